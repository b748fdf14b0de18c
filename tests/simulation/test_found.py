"""What chaos found in the exchange: the histories in `found/` as it shrank them, and examples that say what was wrong."""

from pathlib import Path

import pytest

from constraint_crdt import GossipNode, Limits, exchange
from constraint_crdt.protocol.messages import Part, Resume
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.simulation.histories import Fleet, from_json, replay, settle
from constraint_crdt.simulation.steps import Add, AnyStep, Backup, Crash, NodeStart, Record, Retire, Start, WholeExchange

FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_is_mended(path: Path) -> None:
    history = from_json(path.read_bytes())
    assert replay(history.members, history.steps) is None


def test_a_slice_that_comes_after_its_transfer_is_complete_asks_for_nothing() -> None:
    """It was taken for the beginning of another one: sent again, of which it was a late slice, and so on without end."""
    a, b = GossipNode("a"), GossipNode("b")
    a.add_constraint("x", about="y" * 300)
    parts = split_message(a.delta_since(b.clock), 200)
    assert len(parts) > 1
    for part in parts:
        b.receive(part)
    assert "x" in b.state.constraints
    b.receive(parts[-1])
    b.add_constraint("z")
    assert not isinstance(b.begin("a"), Resume)
    exchange(b, a)
    assert a.state_hash == b.state_hash


def test_the_same_transfer_may_come_again_whole() -> None:
    """As a Ping does that is too long for one message and that nothing has changed since."""
    a, b = GossipNode("a"), GossipNode("b")
    for name in "cdefghij":
        other = GossipNode(name)
        other.add_constraint("x")
        exchange(other, a)
    for _ in range(2):
        answers = [b.receive(part).responses for part in split_message(a.ping(), 130) if isinstance(part, Part)]
        assert len(answers) > 1
        assert answers[-1], "the Ping is answered each time"


def test_a_retirement_that_is_refused_starts_no_life() -> None:
    """The node came from an old copy of its disk, so its next write begins a new life: it did so though it then wrote nothing."""
    steps: list[AnyStep] = [
        Add(number=1, node="a", id="x"),
        Backup(number=2, node="a"),
        Crash(number=3, node="a"),
        Start(number=4, node="a", disk="copied"),
        Retire(number=5, node="a", dead="nobody"),
    ]
    assert replay([NodeStart("a", 1)], steps) is None


def _met(*names: str) -> list[AnyStep]:
    """Each node writes, and all meet."""
    wrote: list[AnyStep] = [Record(number=number, node=name, satisfied=1) for number, name in enumerate(names, start=1)]
    pairs = [(one, other) for one in names for other in names if one < other]
    return wrote + [WholeExchange(number=100 + number, node=one, peer=other) for number, (one, other) in enumerate(pairs * 2)]


@pytest.mark.slow
@pytest.mark.parametrize("role", ["", "operator"])
@pytest.mark.parametrize(
    "retirements",
    [
        [("a", "b"), ("b", "a")],
        [("a", "b"), ("b", "c"), ("c", "a")],
        [("a", "b"), ("a", "c"), ("b", "a"), ("c", "a")],
        [("c", "b"), ("b", "a")],
    ],
    ids=str,
)
def test_nodes_that_retire_each_other_while_apart_settle_it_when_they_meet(retirements: list[tuple[str, str]], role: str) -> None:
    """In 0.1.0 nobody ended and nobody agreed, for ever: each refused the others."""
    members = [NodeStart(name, 1, role) for name in "abc"]
    steps = _met(*"abc")
    steps += [Retire(number=200 + number, node=by, dead=dead) for number, (by, dead) in enumerate(retirements)]
    fleet = Fleet(members)
    for step in steps:
        fleet.apply(step)
    settle(fleet)
    (retired,) = {tuple(node.state.retirements) for node in fleet.nodes.values()}
    assert 0 < len(retired) < 3
    assert replay(members, steps) is None


def test_the_rest_of_what_a_retired_node_is_told_is_no_longer_there() -> None:
    """It asked for the rest, was refused, and asked again in each exchange, for ever: now it hears that the rest is gone."""
    a, b = (GossipNode(name, incarnation=1, limits=Limits(burst_bytes=512)) for name in "ab")
    b.record(1)
    exchange(a, b)
    a.retire("b")
    for number in range(200):
        a.add_constraint(f"x{number}", about=f"{number * 7919:x}" * 20)
    (sync,) = a.receive(b.ping("a")).responses
    first, *_ = split_message(sync, 400)
    b.receive(first)
    asked = b.begin("a")
    assert isinstance(asked, Resume)
    (gone,) = a.receive(asked).responses
    b.receive(gone)
    exchange(b, a)
    assert b.retired_by == "a"
