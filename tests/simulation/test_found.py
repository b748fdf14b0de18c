"""What chaos found in the exchange: the histories in `found/` as it shrank them, and examples that say what was wrong."""

from pathlib import Path

import pytest

from constraint_crdt import GossipNode, exchange
from constraint_crdt.protocol.messages import Part, Resume
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.simulation.histories import from_json, replay
from constraint_crdt.simulation.steps import Add, AnyStep, Backup, Crash, NodeStart, Retire, Start

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
