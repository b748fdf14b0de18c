"""Histories as files, and shrinking."""

import msgspec
import pytest

from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.simulation.chaos import Chaos
from constraint_crdt.simulation.histories import FILE_BYTES, Fleet, History, from_json, replay, shrink, to_json
from constraint_crdt.simulation.steps import Add, AnyStep, Crash, Deliver, NodeStart, Record, Remove, SetClock, Start, WholeExchange

MEMBERS = (NodeStart("a", 1), NodeStart("b", 11), NodeStart("c", 2))


def history_of(*steps: AnyStep) -> History:
    return History(seed=7, invariant="state", sentence="state: a lacks b~b 1", members=MEMBERS, steps=steps)


@pytest.mark.slow
def test_a_file_holds_every_step() -> None:
    outcome = Chaos(3, operations=60).run()
    history = History(seed=3, invariant="x", sentence="y", members=tuple(outcome.members), steps=tuple(outcome.steps))
    text = to_json(history)
    assert from_json(text.encode()) == history
    assert to_json(from_json(text.encode())) == text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no history"),
        (b"{", "no history"),
        (b"\xff\xfe", "no history"),
        (b"[1, 2]", "no history"),
        (b"{}", "simulate --chaos"),
        (b'{"format": "constraint-crdt history", "version": 2}', "upgrade"),
        (b'{"format": "constraint-crdt history", "version": 1}', "seed"),
        (to_json(history_of(Add(number=1, node="a", id="x"))).replace('"add"', '"burn"').encode(), "burn"),
        (to_json(history_of(Crash(number=1, node="a"))).replace("1", '"one"').encode(), "no history"),
        (b"[" * 100_000, "no history"),
        (bytes(FILE_BYTES + 1), "bytes"),
    ],
)
def test_other_files_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=says):
        from_json(data)


def test_steps_with_nothing_to_act_on_do_nothing() -> None:
    """What makes every part of a history one."""
    fleet = Fleet(MEMBERS)
    before = [node.state_hash for node in fleet.nodes.values()]
    for step in (
        Remove(number=1, node="a", id="x"),
        Deliver(number=2, node="a", message=(99, 0)),
        WholeExchange(number=3, node="a", peer="nobody"),
        WholeExchange(number=4, node="a", peer="a"),
        Crash(number=5, node="nobody"),
        Start(number=6, node="b", disk="lost"),
        Add(number=7, node="nobody", id="x"),
        Record(number=8, node="c"),
    ):
        assert fleet.apply(step) == []
    assert [node.state_hash for node in fleet.nodes.values()] == before


def test_what_is_acknowledged_survives_and_what_is_not_may_go() -> None:
    fleet = Fleet(MEMBERS)
    fleet.apply(Add(number=1, node="a", id="kept"))
    fleet.apply(Add(number=2, node="a", id="lost", unsaved=True))
    fleet.apply(Crash(number=3, node="a"))
    assert fleet.node("a") is None
    fleet.apply(Start(number=4, node="a"))
    node = fleet.nodes["a"]
    assert list(node.state.constraints) == ["kept"]
    assert node.replica.incarnation == 1
    assert fleet.unsaved_lost == 1
    fleet.apply(Add(number=5, node="a", id="again"))
    assert node.clock[node.replica] == 2


@pytest.mark.parametrize(("disk", "known"), [("doubtful", {"x", "y"}), ("copied", set()), ("lost", set())])
def test_a_disk_that_nobody_vouches_for_begins_another_life(disk: str, known: set[str]) -> None:
    fleet = Fleet(MEMBERS)
    fleet.apply(Record(number=1, node="b", satisfied=1))
    for number, id_ in enumerate("xy", start=2):
        fleet.apply(Add(number=number, node="a", id=id_))
    fleet.apply(Crash(number=4, node="a"))
    fleet.apply(Start(number=5, node="a", disk=disk if disk != "copied" else "lost"))
    assert set(fleet.nodes["a"].state.constraints) == known
    before = fleet.nodes["a"].replica
    fleet.apply(Record(number=6, node="a", satisfied=1))
    assert (fleet.nodes["a"].replica == before) == (disk != "doubtful")
    assert fleet.nodes["a"].replica.incarnation != 1


def test_links_are_timed_by_a_clock_that_is_never_set() -> None:
    """As those of a node, whose links go by the time of its event loop: a transfer would be under way for as long as the step."""
    fleet, hour = Fleet(MEMBERS, paced=True), 3600 * 10**9
    fleet.apply(Record(number=1, node="a", time=5 * hour, satisfied=1))
    before = fleet.nodes["a"].links.at
    fleet.apply(SetClock(number=2, node="a", time=4 * hour, by=-hour))
    fleet.apply(Record(number=3, node="a", time=4 * hour + 10**9, satisfied=1))
    assert before == 5 * 3600.0
    assert fleet.nodes["a"].links.at == before + 1


@pytest.mark.long
def test_what_is_shrunk_is_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An add by one node and a removal by another that heard of it, out of twenty steps."""
    monkeypatch.setattr(Rows, "_apply_removal", lambda self, removal: None)
    noise: list[AnyStep] = [Record(number=number, node="c", satisfied=1) for number in range(1, 20)]
    steps = [*noise]
    steps[5] = Add(number=6, node="a", id="x", when="v < 1.0", unsaved=True, time=9)
    steps[10] = WholeExchange(number=11, node="a", peer="b", time=10)
    steps[15] = Remove(number=16, node="b", id="x")
    assert replay(MEMBERS, noise) is None
    violation = replay(MEMBERS, steps)
    assert violation is not None
    shrunk = shrink(msgspec.structs.replace(history_of(*steps), invariant=violation.invariant))
    assert shrunk.steps == (
        Add(number=6, node="a", id="x"),
        WholeExchange(number=11, node="a", peer="b"),
        Remove(number=16, node="b", id="x"),
    )
    assert {member.name for member in shrunk.members} == {"a", "b"}
    with pytest.raises(ValueError, match="nothing goes wrong"):
        shrink(history_of(*noise))
