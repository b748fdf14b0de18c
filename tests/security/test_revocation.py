"""Revocations: what a revoked key wrote beyond the end that the operator saw stands nowhere, on all nodes alike."""

import random
from itertools import count

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode
from constraint_crdt.errors import NotPermitted, UnknownName
from constraint_crdt.protocol.messages import Ack, Sync, decode_message, encode_message
from tests.conftest import BUDGET

from .credentials import FastCredentials, Key

MOST_MESSAGES = 60


class Fleet:
    """Nodes by name; the operators in the order of their certificates."""

    def __init__(self, *names: str, members: tuple[str, ...] = ()) -> None:
        self.lives = count(1)
        self.nodes = {
            name: self.start(name, "member" if name in members else "operator", begins=place) for place, name in enumerate(names)
        }

    def start(self, name: str, role: str = "operator", *, begins: int = 0, key: Key | None = None) -> GossipNode:
        credentials = FastCredentials(name, role, key=key, begins=begins)
        return GossipNode(name, now=lambda: 10**18, renew=lambda: next(self.lives), credentials=credentials)

    def __getitem__(self, name: str) -> GossipNode:
        return self.nodes[name]

    def exchange(self, first: str, second: str) -> None:
        """An exchange over bytes, in which refused messages get no answer."""
        a, b = self[first], self[second]
        waiting = [(b, a, encode_message(a.begin(b.node_id)))]
        for _ in range(MOST_MESSAGES):
            if not waiting:
                return
            reader, sender, data = waiting.pop(0)
            try:
                responses = reader.receive(decode_message(data, max_bytes=None)).responses
            except ConstraintCrdtError:
                continue
            waiting += [(sender, reader, encode_message(each)) for each in responses]

    def settle(self, *names: str) -> None:
        for _ in range(4):
            for a in names:
                for b in names:
                    if a != b:
                        self.exchange(a, b)
        assert len({self[name].state_hash for name in names}) == 1


def test_what_came_before_stands_and_what_came_after_does_not() -> None:
    fleet = Fleet("a", "b", "thief")
    fleet["thief"].add_constraint("before", when="v < 1.0")
    fleet.settle("a", "b", "thief")
    fleet["a"].revoke("thief", "stolen")
    fleet["thief"].add_constraint("after", when="v < 2.0")
    fleet.exchange("thief", "b")  # b has not heard of the revocation
    assert "after" in fleet["b"].state.constraints
    fleet.settle("a", "b")
    for name in "ab":
        assert sorted(fleet[name].state.constraints) == ["before"]
        assert fleet[name].authority is not None
        assert len(fleet[name].authority.revoked) == 1  # type: ignore[union-attr]
        assert fleet[name].revoked_nodes == {"thief"}


def test_a_relay_that_does_not_know_brings_nothing_of_it_back() -> None:
    fleet = Fleet("a", "b", "c", "thief")
    fleet["thief"].record(1)
    fleet.settle("a", "b", "c", "thief")
    fleet["a"].revoke("thief")
    fleet["thief"].add_constraint("after", when="v < 2.0")
    fleet.exchange("thief", "c")
    fleet.exchange("a", "b")
    fleet.exchange("c", "b")
    assert "after" not in fleet["b"].state.constraints
    fleet.settle("a", "b", "c")
    assert not len(fleet["c"].state.constraints)


def test_the_counts_before_the_end_come_back_to_nodes_that_saw_later_ones() -> None:
    fleet = Fleet("a", "b", "m", members=("m",))
    fleet["m"].record(5, constraint="x")
    fleet.settle("a", "b", "m")
    fleet["m"].record(1_000_000, constraint="x")
    fleet.exchange("m", "b")
    fleet["a"].revoke("m")
    fleet.settle("a", "b")
    assert fleet["b"].state.metrics.total.satisfied == 5


def test_the_revoked_node_is_told_and_writes_no_more() -> None:
    fleet = Fleet("a", "thief")
    fleet["thief"].add_constraint("before", when="v < 1.0")
    fleet.settle("a", "thief")
    fleet["a"].revoke("thief")
    fleet.exchange("a", "thief")
    assert fleet["thief"].revoked_by == "a"
    with pytest.raises(ConstraintCrdtError, match="was revoked by a: make it a new identity"):
        fleet["thief"].add_constraint("after", when="v < 1.0")
    (told,) = fleet["a"].receive(fleet["thief"].ping()).responses
    assert isinstance(told, Sync)
    answer = Ack(node=fleet["thief"].replica, answers=bytes(8))
    assert not fleet["a"].receive(answer).responses
    assert "thief" not in fleet["a"].tracker


def test_a_new_life_of_a_revoked_key_counts_nowhere() -> None:
    fleet = Fleet("a", "b", "thief")
    fleet["thief"].add_constraint("before", when="v < 1.0")
    fleet.settle("a", "b", "thief")
    fleet["a"].revoke("thief")
    fleet.exchange("a", "b")
    again = fleet.start("thief")
    again.add_constraint("again", when="v < 1.0")
    fleet.nodes["thief"] = again
    fleet.exchange("thief", "b")
    assert sorted(fleet["b"].state.constraints) == ["before"]


def test_the_same_name_with_a_new_key_goes_on() -> None:
    fleet = Fleet("a", "b", "lathe", members=("lathe",))
    fleet["lathe"].record(1, constraint="x")
    fleet.settle("a", "b", "lathe")
    fleet["a"].revoke("lathe")
    fleet.nodes["lathe"] = fleet.start("lathe", "member", key=Key(b"another"))
    fleet["lathe"].record(2, constraint="x")
    fleet.settle("a", "b", "lathe")
    assert fleet["b"].state.metrics.total.satisfied == 3


def test_a_revoked_operator_takes_its_certificates_with_it_and_their_nodes_go_on_with_others() -> None:
    fleet = Fleet("a", "thief", "b")
    thief = FastCredentials("thief", begins=1)
    certified = FastCredentials("m", "member", issuer=thief.member.fingerprint)
    fleet.nodes["m"] = m = GossipNode("m", now=lambda: 10**18, renew=lambda: next(fleet.lives), credentials=certified)
    m.record(3, constraint="x")
    fleet["thief"].record(1)
    fleet.settle("a", "thief", "b", "m")
    fleet["a"].revoke("thief")
    forged = FastCredentials("mole", "operator", issuer=thief.member.fingerprint)
    mole = GossipNode("mole", now=lambda: 1, renew=lambda: next(fleet.lives), credentials=forged)
    mole.add_constraint("forged", when="v < 1.0")
    fleet.nodes["mole"] = mole
    fleet.exchange("mole", "b")
    fleet.exchange("a", "b")
    assert not len(fleet["b"].state.constraints)
    fleet.exchange("a", "m")
    with pytest.raises(ConstraintCrdtError, match="the operator that certified m was revoked by a: writes go on with"):
        m.record(1, constraint="x")
    m.authority._credentials = FastCredentials("m", "member")  # type: ignore[union-attr]  # as a renewal does
    before = m.replica
    m.record(4, constraint="x")
    assert m.replica != before
    fleet.settle("a", "b", "m")
    assert fleet["b"].state.metrics.constraint("x").satisfied == 7


def test_a_member_cannot_revoke_and_nobody_itself() -> None:
    fleet = Fleet("a", "m", members=("m",))
    fleet["m"].record(1)
    fleet["a"].add_constraint("x", when="v < 1.0")
    fleet.settle("a", "m")
    with pytest.raises(NotPermitted, match="m is a member of the fleet, which may not revoke nodes: ask an operator"):
        fleet["m"].revoke("a")
    with pytest.raises(ConstraintCrdtError, match="a cannot revoke itself"):
        fleet["a"].revoke("a")
    with pytest.raises(UnknownName, match="no member 'nobody'"):
        fleet["a"].revoke("nobody")
    with pytest.raises(ConstraintCrdtError, match="are not signed, so there is nothing to revoke"):
        GossipNode("plain").revoke("a")


@pytest.mark.slow
@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("meets", ["abc", "bac", "cab", "cba"])
def test_of_two_operators_who_revoke_each_other_the_earlier_certificate_stays_everywhere(first: str, meets: str) -> None:
    fleet = Fleet("a", "b", "c", "d")
    for name in "abcd":
        fleet[name].add_constraint(name, when="v < 1.0")
    fleet.settle("a", "b", "c", "d")
    second = "b" if first == "a" else "a"
    fleet[first].revoke(second)
    fleet[second].revoke(first)
    fleet[second].add_constraint("late", when="v < 1.0")
    fleet.exchange("a", "c")
    fleet.exchange("b", "d")
    for _ in range(2):
        for one in meets:
            fleet.exchange(one, "d")
            fleet.exchange("c", one)
    fleet.settle("a", "c", "d")
    for name in "acd":
        assert fleet[name].authority.revoked == {FastCredentials("b").member.fingerprint}  # type: ignore[union-attr]
    assert fleet["b"].revoked_by == "a"


@pytest.mark.long
def test_random_revocations_end_the_same_everywhere() -> None:
    for seed in range(300 if BUDGET == "nightly" else 3):
        rng = random.Random(seed)
        names = ["a", "b", "c", "d", "e"]
        fleet = Fleet(*names)
        for name in names:
            fleet[name].add_constraint(name, when="v < 1.0")
        fleet.settle(*names)
        for step in range(40):
            one, other = rng.sample(names, 2)
            what = rng.random()
            try:
                if what < 0.06:
                    fleet[one].revoke(other)
                elif what < 0.3:
                    fleet[one].add_constraint(f"{one}{step % 3}", when=f"v < {step}.0")
                elif what < 0.4:
                    fleet[one].record(1, constraint="x")
                else:
                    fleet.exchange(one, other)
            except ConstraintCrdtError:
                continue
        for _ in range(12):
            for one in names:
                for other in names:
                    if one != other:
                        fleet.exchange(one, other)
        left = [name for name in names if fleet[name].revoked_by is None]
        refused = {(one, other) for one in left for other in left if revokes(fleet[one], fleet[other])}
        assert not {(one, other) for one, other in refused if (other, one) in refused}, seed
        accepted = [name for name in left if name not in {other for _, other in refused}]
        assert len({(fleet[name].state_hash, frozenset(revoked(fleet[name]))) for name in accepted}) == 1, seed


def revoked(node: GossipNode) -> set[str]:
    assert node.authority is not None
    return set(node.authority.revoked)


def revokes(one: GossipNode, other: GossipNode) -> bool:
    assert other.authority is not None
    return other.authority.member.fingerprint in revoked(one)
