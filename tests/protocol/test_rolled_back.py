"""A node put back to an older state that vouches for itself: the first contact ends its life, and nothing that it knows is lost."""

from itertools import count
from typing import TypeVar

import pytest

from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode, exchange
from constraint_crdt.protocol.messages import GossipMessage
from constraint_crdt.simulation.histories import SimulatedCredentials

EARLY, LATE = 10, 100

Kind = TypeVar("Kind", bound=GossipNode)


class PutBack(GossipNode):
    """A node that does what a running one does with the results."""

    found: list[tuple[int, int]]

    def receive(self, message: GossipMessage) -> GossipResult:
        result = super().receive(message)
        if result.outlived is not None:
            self.found.append(result.unknown)
        if result.replaced is not None:
            self.write_again(result.replaced)
        return result


class Scene:
    """`a` has written, `b` and `c` have heard of all of it, and then `a` is put back to the time before the late writes."""

    def __init__(self, *, signed: bool) -> None:
        self._lives, self._signed = count(100), signed
        before, self.b, self.c = self._made(GossipNode, "a", 1), self._made(GossipNode, "b", 2), self._made(GossipNode, "c", 3)
        for number in range(EARLY):
            before.add_constraint(f"early-{number}")
        exchange(before, self.b)
        snapshot = before.state.rows.whole()
        for number in range(LATE):
            before.add_constraint(f"late-{number}")
        exchange(before, self.b)
        exchange(self.b, self.c)
        self.known = before.state.rows.seq(before.replica)
        self.a = self._made(PutBack, "a", 1)
        self.a.found = []
        self.a.state.rows.restore(snapshot)
        self.a.resume(1, vouched=True)

    def _made(self, kind: type[Kind], name: str, incarnation: int) -> Kind:
        credentials = SimulatedCredentials(name) if self._signed else None
        lives = self._lives
        return kind(name, incarnation=incarnation, now=lambda: 10**18, renew=lambda: next(lives), credentials=credentials)

    def meet(self) -> None:
        for _ in range(6):
            exchange(self.a, self.b)
            exchange(self.b, self.c)
            exchange(self.c, self.a)
        assert self.a.state_hash == self.b.state_hash == self.c.state_hash

    def counted(self, tag: str) -> int:
        return sum(id_.startswith(tag) for id_ in self.c.state.constraints)


@pytest.mark.parametrize("signed", [False, True])
def test_what_was_lost_comes_back_and_the_next_write_is_of_a_new_life(signed: bool) -> None:
    scene = Scene(signed=signed)
    scene.meet()
    assert scene.a.found[0][1] == scene.known
    scene.a.add_constraint("afterwards")
    assert scene.a.replica.incarnation != 1
    scene.meet()
    assert (scene.counted("early"), scene.counted("late"), scene.counted("afterwards")) == (EARLY, LATE, 1)
    assert scene.a.alarms == scene.b.alarms == 0


@pytest.mark.parametrize("signed", [False, True])
def test_what_was_written_before_the_contact_is_kept_beside_it(signed: bool) -> None:
    """Where rows are signed, the longer row of the former life stands: 0.1.0 and one version after kept both apart for ever."""
    scene = Scene(signed=signed)
    for number in range(5):
        scene.a.add_constraint(f"alone-{number}")
    scene.meet()
    assert scene.a.found[0][1] == scene.known
    assert (scene.counted("early"), scene.counted("late"), scene.counted("alone")) == (EARLY, LATE, 5)
    scene.a.add_constraint("afterwards")
    assert scene.a.replica.incarnation != 1
    scene.meet()
    assert scene.counted("afterwards") == 1


def test_a_clock_that_names_more_of_the_life_ends_it_before_the_cells_are_there() -> None:
    """A write in between would use a dot twice."""
    scene = Scene(signed=False)
    scene.a.receive(scene.b.ping())
    assert scene.a.found == [(EARLY, scene.known)]
    assert not scene.a.goes_on
    scene.a.add_constraint("afterwards")
    assert scene.a.replica.incarnation != 1


def test_signed_a_claim_in_a_clock_alone_ends_no_life() -> None:
    scene = Scene(signed=True)
    scene.a.receive(scene.b.ping())
    assert scene.a.found == []
