"""Rollouts: their steps against a plain model of who knows what, the definitions of each node, bounds, and malformed cells."""

import zlib
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import Cell, make_cell, make_key, read_cell
from constraint_crdt.errors import UnknownName
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.rollouts import (
    MOST_ROLLOUTS,
    PLAN,
    ROLLOUT,
    STAGED,
    STEP,
    Phase,
    Rollout,
    StagedNodes,
    StagedValue,
    placeholder,
)

NODES = [Replica(name, 1) for name in "abc"]
STAGES = ("zone=a", "zone=b", "zone in (c, d)")
OLD, NEW, OTHER = (Definition(when) for when in ("v < 1.0", "v < 2.0", "v < 3.0"))


def begun(state: ConstraintState, *, ids: dict[str, Definition] | None = None, node: Replica = NODES[0], at: int = 10) -> Rollout:
    changes = {"x": NEW, "y": NEW} if ids is None else ids
    return state.rollouts.begin(
        changes, state.constraints, stages=STAGES, gate="violations == 0 for 5s", timeout=7, node=node, at=at, actor="o", why="w"
    )


def fleet_with_rollout() -> tuple[list[ConstraintState], str]:
    """States of three nodes that know a rollout of `x`, which was there before, and of `y`, which is new."""
    states = [ConstraintState() for _ in NODES]
    states[0].constraints.put("x", OLD, node=NODES[0])
    id_ = begun(states[0]).id
    for each in states[1:]:
        each.merge(states[0])
    return states, id_


def judged_by(state: ConstraintState, id_: str, zone: str) -> tuple[Definition, ...]:
    return state.rollouts.staged(id_, state.constraints.definitions(id_), {"zone": zone})


@dataclass(frozen=True)
class Event:
    """A step of the model."""

    number: int
    phase: Phase
    epoch: int
    stage: int


@dataclass
class Model:
    """Which steps each node knows: all of them count, however they were written."""

    known: list[set[Event]] = field(default_factory=lambda: [set(), set(), set()])
    number: int = 0

    def epoch(self, node: int) -> int:
        return max((each.epoch for each in self.known[node]), default=0)

    def stage(self, node: int) -> int:
        return max((each.stage for each in self.known[node]), default=0)

    def phase(self, node: int) -> Phase:
        phases = {each.phase for each in self.known[node]}
        if Phase.BACK in phases:
            return Phase.BACK
        if Phase.COMPLETE in phases:
            return Phase.COMPLETE
        stopped = any(each.phase is Phase.STOPPED and each.epoch == self.epoch(node) for each in self.known[node])
        return Phase.STOPPED if stopped else Phase.RUNNING

    def step(self, node: int, phase: Phase, *, by_command: bool = False, onward: bool = False) -> None:
        self.number += 1
        self.known[node].add(Event(self.number, phase, self.epoch(node) + by_command, self.stage(node) + onward))


what = st.sampled_from(("merge", "merge", "advance", "advance", "fail", "stop", "continue", "complete", "back"))


@pytest.mark.slow
@example([("complete", 0, 0), ("complete", 1, 0), ("back", 0, 0)])
@given(st.lists(st.tuples(what, st.integers(0, 2), st.integers(0, 2)), max_size=24))
def test_the_steps_that_count_are_a_join_of_all_that_a_node_knows(done: list[tuple[str, int, int]]) -> None:
    states, id_ = fleet_with_rollout()
    model = Model()
    for at, (step, one, other) in enumerate(done, start=11):
        state, me = states[one], NODES[one]
        rollout = state.rollouts.find(id_)
        running, stopped = rollout.phase is Phase.RUNNING, rollout.phase is Phase.STOPPED
        if step == "merge":
            state.merge(states[other])
            model.known[one] |= model.known[other]
        elif step == "advance" and running and rollout.stage < 2:
            state.rollouts.step(rollout, Phase.RUNNING, stage=rollout.stage + 1, node=me, at=at)
            model.step(one, Phase.RUNNING, onward=True)
        elif step == "fail" and running:
            state.rollouts.step(rollout, Phase.STOPPED, node=me, at=at, reason="it fails")
            model.step(one, Phase.STOPPED)
        elif step == "stop" and running:
            state.rollouts.step(rollout, Phase.STOPPED, by_command=True, node=me, at=at, reason="by hand")
            model.step(one, Phase.STOPPED, by_command=True)
        elif step == "continue" and stopped:
            state.rollouts.step(rollout, Phase.RUNNING, by_command=True, node=me, at=at)
            model.step(one, Phase.RUNNING, by_command=True)
        elif step == "complete" and running:
            state.rollouts.complete(rollout, state.constraints, node=me, at=at)
            model.step(one, Phase.COMPLETE)
        elif step == "back" and rollout.phase is not Phase.BACK:
            state.rollouts.back(rollout, state.constraints, state.switches, node=me, at=at)
            model.step(one, Phase.BACK, by_command=True)
        for place, each in enumerate(states):
            found = each.rollouts.find(id_)
            assert (found.phase, found.stage) == (model.phase(place), model.stage(place))
            if found.phase.active:
                assert found.epoch == model.epoch(place)
    for each in states:
        states[0].merge(each)
    settle(states, id_)


def settle(states: list[ConstraintState], id_: str) -> None:
    """All meet, and what a step back left undone is done. Then all judge by the definitions that the phase says."""
    rollout = states[0].rollouts.find(id_)
    if rollout.phase is Phase.BACK and rollout.completions:
        states[0].rollouts.back(rollout, states[0].constraints, states[0].switches, node=NODES[0], at=99)
    for each in states[1:]:
        each.merge(states[0])
    rollout = states[0].rollouts.find(id_)
    assert rollout.phase is not Phase.BACK or not rollout.completions
    for zone, number in (("a", 0), ("b", 1), ("d", 2), ("elsewhere", 3)):
        everywhere = rollout.phase is Phase.COMPLETE
        new = everywhere or (rollout.phase.active and number <= rollout.stage)
        off = () if rollout.phase is Phase.BACK else (placeholder(id_, NEW),)
        for state in states:
            assert judged_by(state, "x", zone) == ((NEW,) if new else (OLD,))
            assert judged_by(state, "y", zone) == ((NEW,) if new else off)
            assert not any(each.applies_to({"zone": zone}) for each in off)


def test_an_edit_by_somebody_else_is_in_force_everywhere_at_once_and_stays() -> None:
    states, id_ = fleet_with_rollout()
    states[1].constraints.put("x", OTHER, node=NODES[1])
    states[0].merge(states[1])
    assert [judged_by(states[0], "x", zone) for zone in "ab"] == [(OTHER,), (OTHER,)]
    assert judged_by(states[0], "y", "a") == (NEW,)
    rollout = states[0].rollouts.find(id_)
    assert states[0].rollouts.back(rollout, states[0].constraints, states[0].switches, node=NODES[0], at=12) == (["y"], ["x"])
    assert states[0].constraints.definitions("x") == (OTHER,)
    assert "y" not in states[0].constraints


def test_a_node_that_lacks_the_plan_judges_by_the_former_definitions() -> None:
    states, id_ = fleet_with_rollout()
    late = ConstraintState()
    late.rows.merge(states[0].rows)
    plan = next(cell for cell in states[0].rows.each(ROLLOUT))
    bare = ConstraintState()
    bare.constraints.put("x", OLD, node=NODES[0])
    assert plan.key == "0"
    assert judged_by(bare, "x", "a") == (OLD,)
    assert judged_by(late, "x", "a") == (NEW,)
    assert late.rollouts.find(id_[:2]).id == id_


def test_two_rollouts_of_a_constraint_that_began_apart_the_first_one_counts() -> None:
    states = [ConstraintState() for _ in NODES]
    states[0].constraints.put("x", OLD, node=NODES[0])
    for each in states[1:]:
        each.merge(states[0])
    first = begun(states[0], ids={"x": NEW})
    second = begun(states[1], ids={"x": OTHER}, node=NODES[1], at=11)
    for one, other in ((0, 1), (1, 0)):
        states[one].merge(states[other])
        assert [each.id for each in states[one].rollouts.covering("x")] == [first.id, second.id]
        assert judged_by(states[one], "x", "a") == (NEW,)


def test_a_slot_is_used_again_once_its_rollout_is_over_and_old_steps_count_no_more() -> None:
    states, id_ = fleet_with_rollout()
    state = states[0]
    states[1].rollouts.step(states[1].rollouts.find(id_), Phase.RUNNING, stage=2, node=NODES[1], at=11)
    with pytest.raises(ConstraintCrdtError, match=f"rollout {id_} has constraint x already"):
        begun(state, at=12)
    state.rollouts.back(state.rollouts.find(id_), state.constraints, state.switches, node=NODES[0], at=13)
    again = begun(state, at=14)
    assert again.plan.slot == 0
    state.merge(states[1])
    assert [(each.id, each.stage) for each in state.rollouts] == [(again.id, 0)]
    with pytest.raises(UnknownName):
        state.rollouts.find(id_)


@pytest.mark.slow
def test_what_can_grow_is_bounded() -> None:
    state = ConstraintState()
    for number in range(MOST_ROLLOUTS):
        begun(state, ids={f"c{number}": NEW}, at=number)
    with pytest.raises(ConstraintCrdtError, match="16 rollouts at once are the most"):
        begun(state, ids={"one more": NEW})
    assert "one more" not in state.constraints
    fresh = ConstraintState()
    with pytest.raises(ConstraintCrdtError, match="1 to 256 constraints, not 257"):
        begun(fresh, ids={f"c{number}": NEW for number in range(257)})
    with pytest.raises(ConstraintCrdtError, match="deflated: divide the file"):
        begun(fresh, ids={f"c{number}": Definition("v < 1.0", about=noise(number)) for number in range(256)})
    begun(fresh, ids={f"c{number}": Definition(f"v{number} < {number}.0", about="why it must hold") for number in range(256)})
    assert len(fresh.rollouts.active[0].plan.changes) == 256


def noise(number: int) -> str:
    """A text that no compression shortens much."""
    return "".join(chr(0x4E00 + (number * 7919 + place * 104729 * (place + number)) % 20000) for place in range(200))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "1 to 32 stages, not 0"),
        (("zone=a", ""), "stage 2 is empty"),
        (("zone=a", "zone==a"), "stage 2 is stage 1 again"),
        (("zone in (",), "stage 1: "),
    ],
)
def test_mistakes_in_stages_are_told_with_their_place(stages: tuple[str, ...], message: str) -> None:
    state = ConstraintState()
    with pytest.raises(ConstraintCrdtError, match=message):
        state.rollouts.begin({"x": NEW}, state.constraints, stages=stages, gate="g", timeout=1, node=NODES[0], at=1)
    assert not len(state.rollouts)


def plan_cell(**changed: object) -> Cell:
    fields = {
        "id": "r", "at": 1, "actor": "o", "why": "", "stages": ["zone=a"], "gate": "g", "timeout": 5, "size": 1,
        "changes": zlib.compress(msgspec.msgpack.encode([["x", [], ["v < 1.0"]]])),
    } | changed  # fmt: skip
    return make_cell(ROLLOUT, "0", [PLAN, list(fields.values())])


@pytest.mark.parametrize(
    "cell",
    [
        plan_cell(stages=[]),
        plan_cell(stages=["z"] * 33),
        plan_cell(size=257),
        plan_cell(at=-1),
        plan_cell(gate="g" * 513),
        make_cell(ROLLOUT, "16", [PLAN, []]),
        make_cell(ROLLOUT, "0", [PLAN, ["r"]]),
        make_cell(ROLLOUT, "0", [STEP, ["r", 0, 0, 0]]),
        make_cell(ROLLOUT, make_key("0", "1", "a"), [STEP, ["r", -1, 0, 0]]),
        make_cell(STAGED, "", [["r", 0, 0, 0, 0, 0]] * 17),
        make_cell(STAGED, "", [["r", 0, 0, -1, 0, 0]]),
        make_cell(STAGED, "key", []),
    ],
)
def test_cells_out_of_bounds_are_refused(cell: Cell) -> None:
    with pytest.raises(ConstraintCrdtError):
        read_cell(cell.data)


@pytest.mark.parametrize(
    "cell",
    [
        plan_cell(changes=b"no deflate"),
        plan_cell(changes=zlib.compress(b"\0" * 2**21, 9)),
        plan_cell(size=2),
        make_cell(ROLLOUT, "0", [7, "of a later version"]),
    ],
)
def test_a_plan_that_cannot_be_read_is_kept_and_has_no_effect(cell: Cell) -> None:
    state = ConstraintState()
    state.rows.write(NODES[0], read_cell(cell.data))
    assert not len(state.rollouts)
    other = ConstraintState()
    other.merge(state)
    assert other.state_hash == state.state_hash


def test_what_a_node_tells_is_that_of_its_furthest_last_life() -> None:
    state = ConstraintState()
    old, new = Replica("a", 1), Replica("a", 2)
    assert not state.staged.put([], node=old)
    assert state.staged.put([StagedValue("r", 0, 1, 2, 1, 0, "x is violated")], node=old)
    assert not state.staged.put([StagedValue("r", 0, 1, 2, 1, 0, "x is violated")], node=old)
    state.retirements.end_lives([old], node=new)
    state.staged.put([StagedValue("r", 0, 1, 2, 0, 0)], node=new)
    told = state.staged.of("a", "r")
    assert told is not None
    assert (told.violated, told.detail) == (0, "")
    assert state.staged.of("a", "other") is state.staged.of("b", "r") is None


def test_a_cell_that_names_a_rollout_twice_is_read() -> None:
    """A lying member may write it: the readers compared what has no order."""
    staged = StagedNodes()
    staged.put([StagedValue("x", 0, 1, 0, 0, 0), StagedValue("x", 0, 1, 0, 0, 1)], node=Replica("b", 1))
    found = staged.of("b", "x")
    assert found is not None
    assert found.unknown == 0
