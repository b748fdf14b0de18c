"""Rollouts: definitions of constraints that reach the fleet in stages.

| kind | key | value |
|---|---|---|
| 47 ROLLOUT | slot: 0 to 15 | a plan: `[0, [id, at, actor, why, [stage, …], gate, timeout, size, changes]]` |
| 47 ROLLOUT | slot, incarnation, node | a step of the plan there: `[1, [id, epoch, phase, stage, at, actor, reason, undoes]]` |
| 49 STAGED | "" | reports of a node: `[[id, epoch, stage, violations, violated, unknown, detail], …]` |

A stage is a selector of nodes, as text. `at` is in ns since the epoch, `timeout` in ns. `changes` has, deflated, for each
constraint `[constraint, [former definition, …], new definition]`, as values of ADD cells. Rules kept here:

- While a rollout is active, the former definitions stand as ADD cells. The nodes of the stages begun put the new ones in their
  place when they judge (`Rollouts.staged`), by the cells and the labels alone. A node that lacks a cell judges by the former ones.
- They do so only while the former definitions stand. Any other edit is in force at once, everywhere.
- A new constraint is added for no node at first: its definition has a selector without a matching node (`placeholder`).
- The steps of a rollout are a join: of all steps the greatest epoch and the greatest stage count. A step back counts for good, a
  completion for good unless there is a step back, and in an epoch a stop counts before going on. So two nodes that go on at once
  agree, and a stop by a person, which begins an epoch, is not overruled by a node without knowledge of the stop.
- Complete: the new definitions are ordinary additions, in the transaction of the step. Back: so are the former ones. A step back
  names the completions undone by it (`undoes`); a completion from the other side of a partition is undone once.
- No cell is removed: 0.1.0 refuses a removal of an unknown kind. A slot is used again after the end of its rollout, and steps for
  the former rollout in a slot no longer count.
"""

import contextlib
import enum
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import (
    SEPARATOR,
    Cell,
    WireDot,
    check_dots,
    make_cell,
    make_key,
    read_cell,
    register,
    require,
    require_counts,
    require_text,
    value_of,
)
from constraint_crdt.crdt.clock import Dot, Replica, check_id, replica_bytes
from constraint_crdt.crdt.limits import CELL_BYTES, ID_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.model import Selector, parse_selector
from constraint_crdt.types.definition import ADD, Definition, read_addition, wire_definition
from constraint_crdt.types.nodes import RETIRE, cut
from constraint_crdt.types.orset import ConstraintORSet, Switches, read_definitions
from constraint_crdt.types.view import IndexedView

ROLLOUT: Final = 47
STAGED: Final = 49

MOST_ROLLOUTS: Final = 16
"""Active rollouts of a fleet, and the plans of a life."""

MOST_STAGES: Final = 32
MOST_STAGED: Final = 256
"""Constraints of a rollout."""

SELECTOR_BYTES: Final = 512
GATE_BYTES: Final = 512
WHY_BYTES: Final = 256
ACTOR_BYTES: Final = 64
REASON_BYTES: Final = 512
DETAIL_BYTES: Final = 256

PLAN_BYTES: Final = CELL_BYTES - 4 * 1024
"""The deflated changes of a plan."""

UNPACKED_BYTES: Final = 1024 * 1024
"""The same, inflated."""

LABEL: Final = "rollout"
"""The label in the selector of a new constraint that is not in force anywhere yet."""


class Phase(enum.IntEnum):
    """Where a rollout stands."""

    RUNNING = 0
    STOPPED = 1
    COMPLETE = 2
    BACK = 3

    @property
    def active(self) -> bool:
        """The nodes of the stages begun judge by the new definitions."""
        return self in (Phase.RUNNING, Phase.STOPPED)


class PlanValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The body of a plan."""

    id: str
    at: int
    actor: str
    why: str
    stages: tuple[str, ...]
    gate: str
    timeout: int
    """ns for which a stage waits for its gate, beyond the time of the gate."""
    size: int
    """The number of the constraints."""
    changes: bytes


class StepValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The body of a step."""

    id: str
    epoch: int
    """The number of commands of people before."""
    phase: int
    stage: int
    """From 0."""
    at: int = 0
    actor: str = ""
    reason: str = ""
    undoes: tuple[WireDot, ...] = ()
    """Of a step back: the completions that were undone."""


class RolloutValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a ROLLOUT cell."""

    sort: int
    body: msgspec.Raw


PLAN, STEP = 0, 1
"""The sorts of ROLLOUT cells."""


class StagedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The report of a node on a rollout."""

    id: str
    epoch: int
    stage: int
    violations: int
    """Violated judgements since the node took this stage over."""
    violated: int
    """Constraints violated now."""
    unknown: int
    """Constraints undecided now."""
    detail: str = ""
    """A violated constraint, else an undecided constraint, with the reason."""


_read_plan: Final = msgspec.msgpack.Decoder(PlanValue).decode
_read_step: Final = msgspec.msgpack.Decoder(StepValue).decode
_read_changes: Final = msgspec.msgpack.Decoder(list[tuple[str, list[msgspec.Raw], msgspec.Raw]]).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def _is_slot(text: str) -> bool:
    return text.isascii() and text.isdigit() and str(int(text)) == text and int(text) < MOST_ROLLOUTS


def _check_rollout(key: str, value: RolloutValue) -> None:
    slot, *rest = key.split(SEPARATOR, 2)
    require(_is_slot(slot) and len(rest) in (0, 2), "the slot of a rollout")
    if value.sort not in (PLAN, STEP):
        return
    try:
        body = _read_plan(value.body) if value.sort == PLAN else _read_step(value.body)
    except msgspec.DecodeError:
        require(condition=False, subject="the body of a rollout")
        return
    require_text(body.id, "the id of a rollout")
    require_text(body.actor, "the actor of a rollout", ACTOR_BYTES)
    if isinstance(body, StepValue):
        require(bool(rest), "the key of a step of a rollout")
        require_counts((body.epoch, body.phase, body.stage, body.at), "a number of a rollout")
        require_text(body.reason, "the reason of a rollout", REASON_BYTES)
        check_dots(body.undoes)
        return
    require(not rest, "the key of a plan of a rollout")
    require_counts((body.at, body.timeout, body.size), "a number of a rollout")
    require_text(body.why, "the reason of a rollout", WHY_BYTES)
    require_text(body.gate, "the gate of a rollout", GATE_BYTES)
    require(0 < len(body.stages) <= MOST_STAGES, "the number of the stages of a rollout")
    for each in body.stages:
        require_text(each, "a stage of a rollout", SELECTOR_BYTES)
    require(body.size <= MOST_STAGED and len(body.changes) <= PLAN_BYTES, "the size of a rollout")


def _check_staged(key: str, value: tuple[StagedValue, ...]) -> None:
    require(not key and len(value) <= MOST_ROLLOUTS, "the number of the rollouts of a node")
    for each in value:
        require_text(each.id, "the id of a rollout")
        require_counts((each.epoch, each.stage, each.violations, each.violated, each.unknown), "a number of a rollout")
        require_text(each.detail, "the detail of a rollout", DETAIL_BYTES)


register(ROLLOUT, RolloutValue, _check_rollout, empty_key=False)
register(STAGED, tuple[StagedValue, ...], _check_staged, key_bytes=ID_BYTES)


class StagedChange(NamedTuple):
    """A constraint of a rollout."""

    before: tuple[Definition, ...]
    """The definitions before; several: in conflict. Empty for a new constraint."""
    standing: frozenset[Definition]
    """The standing definitions of an active rollout."""
    after: Definition


class Plan(NamedTuple):
    """A rollout as it was begun."""

    id: str
    slot: int
    dot: Dot
    value: PlanValue
    changes: Mapping[str, StagedChange]
    """By constraint."""
    stages: tuple[Selector | None, ...]
    """None: a selector of a later version, without a matching node here."""

    def reaches(self, labels: Mapping[str, str], stage: int) -> bool:
        """True for a node with these labels in a stage up to this number."""
        return any(each is not None and each.matches(labels) for each in self.stages[: stage + 1])


class Rollout(NamedTuple):
    """A rollout, and how far it is."""

    plan: Plan
    phase: Phase
    epoch: int
    stage: int
    """From 0."""
    at: int
    """ns since the epoch: of the counting step, or of the plan."""
    actor: str
    reason: str
    node: str
    """The writer of the step."""
    completions: tuple[WireDot, ...]
    """The completions not undone by a step back."""

    @property
    def id(self) -> str:
        """Names the rollout, in 8 characters."""
        return self.plan.id

    @property
    def place(self) -> tuple[int, Phase, int]:
        """Epoch, phase and stage: other after each step."""
        return self.epoch, self.phase, self.stage


def placeholder(id_: str, definition: Definition) -> Definition:
    """The standing definition of a new constraint of an active rollout: no node matches its selector."""
    return definition._replace(on=((LABEL, id_),), requirements=())


def rollout_id(node: Replica, slot: int, at: int) -> str:
    """The id of the plan of a life in a slot, at a time in ns."""
    data = replica_bytes(node) + bytes((slot,)) + at.to_bytes(8, "big")
    return blake2b(data, digest_size=4, person=b"rollout").hexdigest()


def check_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """The stages in canonical form. Raises `ConstraintCrdtError` for none, too many, and a mistake in a selector."""
    if not 0 < len(stages) <= MOST_STAGES:
        raise ConstraintCrdtError(f"a rollout has 1 to {MOST_STAGES} stages, not {len(stages)}", field="stages")
    found = list[str]()
    for number, each in enumerate(stages, start=1):
        if not each.strip():
            raise ConstraintCrdtError(f"stage {number} is empty: write a selector of nodes, as in zone=a", field="stages")
        try:
            text = str(parse_selector(each))
        except ConstraintCrdtError as error:
            raise ConstraintCrdtError(f"stage {number}: {error}", field="stages") from None
        if len(text.encode()) > SELECTOR_BYTES:
            raise ConstraintCrdtError(f"stage {number}: a selector has at most {SELECTOR_BYTES} bytes", field="stages")
        if text in found:
            raise ConstraintCrdtError(f"stage {number} is stage {found.index(text) + 1} again: {text}", field="stages")
        found.append(text)
    return tuple(found)


class Rollouts(IndexedView):
    """The rollouts of a fleet, with ended rollouts until the next use of their slots."""

    KINDS = (ROLLOUT,)

    def __init__(self, rows: Rows | None = None) -> None:
        """`rows`: the cells to look at; new empty ones if left out."""
        self._watchers: list[Callable[[Sequence[str]], None]] = []
        super().__init__(rows)

    def watch(self, watcher: Callable[[Sequence[str]], None]) -> None:
        """Call `watcher` with the constraints of each rollout at its begin and with each step."""
        self._watchers.append(watcher)

    def _clear(self) -> None:
        self._plans: dict[tuple[Replica, int], Plan] = {}
        self._steps: dict[tuple[Replica, int], dict[Dot, StepValue]] = {}
        """By the life of the plan, and its slot."""
        self._read: dict[tuple[Replica, int], Rollout] = {}
        self._covering: dict[str, list[Rollout]] | None = None
        """By constraint the active rollouts, the first first; None: to be read anew."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        told = dict[str, None]()
        for cell in (old, new):
            if cell is None:
                continue
            value: RolloutValue = value_of(cell)
            slot, *rest = str(cell.key).split(SEPARATOR, 2)
            dot = Dot(cell.replica, cell.seq)
            if value.sort == PLAN:
                at = cell.replica, int(slot)
                told.update(dict.fromkeys(self._constraints(at)))
                plan = None if cell is old else _plan(int(slot), dot, _read_plan(value.body))
                if plan is None:
                    self._plans.pop(at, None)
                else:
                    self._plans[at] = plan
            elif value.sort == STEP and rest[0].isascii() and rest[0].isdigit():
                at = Replica(rest[1], int(rest[0])), int(slot)
                steps = self._steps.setdefault(at, {})
                if cell is old:
                    steps.pop(dot, None)
                else:
                    steps[dot] = _read_step(value.body)
            else:
                continue
            self._read.pop(at, None)
            self._covering = None
            told.update(dict.fromkeys(self._constraints(at)))
        if told:
            for watcher in self._watchers:
                watcher(list(told))

    def _constraints(self, at: tuple[Replica, int]) -> Sequence[str]:
        plan = self._plans.get(at)
        return () if plan is None else list(plan.changes)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._plans)

    def __iter__(self) -> Iterator[Rollout]:
        """The rollouts by their begin, the newest last. O(rollouts)."""
        return iter(sorted(map(self._rollout, self._plans), key=lambda each: (each.plan.value.at, each.plan.dot)))

    def __repr__(self) -> str:
        return f"Rollouts({[f'{each.id}: {each.phase.name}' for each in self]})"

    @property
    def active(self) -> list[Rollout]:
        """The running and stopped rollouts."""
        return [each for each in self if each.phase.active] if self._plans else []

    def find(self, id_: str) -> Rollout:
        """The rollout of this id, or the only rollout whose id begins so. Raises `UnknownName`."""
        found = [each for each in self if each.id.startswith(id_)] if id_ else []
        exact = [each for each in found if each.id == id_]
        if len(exact or found) != 1:
            raise UnknownName(id_, "rollout")
        return (exact or found)[0]

    def _rollout(self, at: tuple[Replica, int]) -> Rollout:
        found = self._read.get(at)
        if found is None:
            found = self._read[at] = _joined(self._plans[at], self._steps.get(at, {}))
        return found

    def covering(self, id_: str) -> Sequence[Rollout]:
        """The active rollouts with this constraint, the first by its begin: the others do not count."""
        if not self._plans:
            return ()
        if self._covering is None:
            self._covering = {}
            for rollout in self.active:
                for each in rollout.plan.changes:
                    self._covering.setdefault(each, []).append(rollout)
        return self._covering.get(id_, ())

    def staged(self, id_: str, definitions: tuple[Definition, ...], labels: Mapping[str, str]) -> tuple[Definition, ...]:
        """The definitions in force on a node with these labels, where `definitions` stand. O(1) without a rollout."""
        rollouts = self.covering(id_)
        if not rollouts:
            return definitions
        rollout = rollouts[0]
        change = rollout.plan.changes[id_]
        if frozenset(definitions) != change.standing or not rollout.plan.reaches(labels, rollout.stage):
            return definitions
        return (change.after,)

    # --- writing -----------------------------------------------------------------------------------------------------------

    def begin(
        self,
        changes: Mapping[str, Definition],
        constraints: ConstraintORSet,
        *,
        stages: Sequence[str],
        gate: str,
        timeout: int,
        node: Replica,
        at: int,
        actor: str = "",
        why: str = "",
    ) -> Rollout:
        """Begin a rollout in its first stage. `changes`: the new definitions. `timeout`: in ns.

        Raises `ConstraintCrdtError` for parts out of bounds, for a constraint of another rollout, and beyond the number of
        rollouts; nothing is written then.
        """
        texts = check_stages(stages)
        if not 0 < len(changes) <= MOST_STAGED:
            raise ConstraintCrdtError(f"a rollout has 1 to {MOST_STAGED} constraints, not {len(changes)}: divide the file")
        for id_ in changes:
            check_id(id_, "a constraint id", field="id")
            other = next(iter(self.covering(id_)), None)
            if other is not None:
                raise ConstraintCrdtError(f"rollout {other.id} has constraint {id_} already: wait for its end, or roll it back")
        if len(self.active) >= MOST_ROLLOUTS:
            raise ConstraintCrdtError(f"{MOST_ROLLOUTS} rollouts at once are the most of a fleet: roll one back, or wait")
        slot = self._free(node)
        id_of = rollout_id(node, slot, at)
        packed = zlib.compress(_encode([self._packed(id_, changes[id_], constraints) for id_ in sorted(changes)]), 9)
        if len(packed) > PLAN_BYTES:
            raise ConstraintCrdtError(f"the definitions of a rollout have at most {PLAN_BYTES} bytes, deflated: divide the file")
        value = PlanValue(
            id_of, at, cut(actor, ACTOR_BYTES), cut(why, WHY_BYTES), texts, gate, timeout, len(changes), packed
        )  # fmt: skip
        cell = make_cell(ROLLOUT, str(slot), [PLAN, value])
        read_cell(cell.data)  # within its bounds
        for id_, definition in changes.items():
            if id_ not in constraints:
                constraints.put(id_, placeholder(id_of, definition), node=node, at=at)
        self._rows.write(node, cell)
        return self._rollout((node, slot))

    def _free(self, node: Replica) -> int:
        for slot in range(MOST_ROLLOUTS):
            if (node, slot) not in self._plans or not self._rollout((node, slot)).phase.active:
                return slot
        raise ConstraintCrdtError(f"{MOST_ROLLOUTS} rollouts at once are the most of a fleet: roll one back, or wait")

    @staticmethod
    def _packed(id_: str, after: Definition, constraints: ConstraintORSet) -> list[object]:
        before = [_encode(wire_definition(each.definition, each.added_at)) for each in constraints.additions(id_)]
        return [id_, [msgspec.Raw(each) for each in before], msgspec.Raw(_encode(wire_definition(after, None)))]

    def step(
        self,
        rollout: Rollout,
        phase: Phase,
        *,
        node: Replica,
        at: int,
        stage: int | None = None,
        by_command: bool = False,
        actor: str = "",
        reason: str = "",
        undoes: Sequence[WireDot] = (),
    ) -> None:
        """Write a step. `stage`: None for the present stage. `by_command`: of a person, which begins an epoch."""
        plan = rollout.plan
        epoch = rollout.epoch + by_command
        place = rollout.stage if stage is None else max(stage, rollout.stage)
        value = StepValue(
            plan.id, epoch, phase, place, at, cut(actor, ACTOR_BYTES), cut(reason, REASON_BYTES), tuple(undoes)
        )  # fmt: skip
        key = make_key(str(plan.slot), str(plan.dot.replica.incarnation), plan.dot.replica.node_id)
        self._rows.write(node, make_cell(ROLLOUT, key, [STEP, value]))

    def complete(
        self, rollout: Rollout, constraints: ConstraintORSet, *, node: Replica, at: int, actor: str = "", reason: str = ""
    ) -> list[str]:
        """Put the new definitions in place of the former ones, as ordinary additions, and end the rollout. Returns the ids."""
        changed = []
        for id_, change in rollout.plan.changes.items():
            if frozenset(constraints.definitions(id_)) == change.standing and change.standing != {change.after}:
                constraints.put(id_, change.after, node=node, at=at)
                changed.append(id_)
        self.step(rollout, Phase.COMPLETE, node=node, at=at, actor=actor, reason=reason)
        return changed

    def back(
        self,
        rollout: Rollout,
        constraints: ConstraintORSet,
        switches: Switches,
        *,
        node: Replica,
        at: int,
        actor: str = "",
        reason: str = "",
    ) -> tuple[list[str], list[str]]:
        """Put the former definitions back where the new ones stand, and end the rollout.

        Returns the restored constraints, and those with another edit meanwhile, which stay.
        """
        restored, kept = [], []
        for id_, change in rollout.plan.changes.items():
            standing = frozenset(constraints.definitions(id_))
            if standing == frozenset(change.before):
                restored.append(id_)
            elif not standing or not standing <= {*change.standing, change.after}:
                kept.append(id_)
            else:
                restored.append(id_)
                if change.before:
                    constraints.put(id_, change.before[-1], node=node, at=at)
                else:
                    constraints.remove(id_, node=node)
                    switches.put_all([id_], disabled=False, time=at, node=node)
        self.step(
            rollout, Phase.BACK, node=node, at=at, by_command=rollout.phase is not Phase.BACK, actor=actor, reason=reason,
            undoes=self._undone(rollout),
        )  # fmt: skip
        return restored, kept

    def _undone(self, rollout: Rollout) -> list[WireDot]:
        """The completions undone by all steps back, with those to be undone now."""
        steps = self._steps.get((rollout.plan.dot.replica, rollout.plan.slot), {})
        before = {each for step in steps.values() if step.id == rollout.id for each in step.undoes}
        return sorted({*before, *rollout.completions}, key=lambda each: (each.node_id, each.incarnation, each.seq))


def _plan(slot: int, dot: Dot, value: PlanValue) -> Plan | None:
    """The plan in a cell; None for an unreadable plan, which has no effect."""
    inflating = zlib.decompressobj()
    try:
        data = inflating.decompress(value.changes, UNPACKED_BYTES)
        entries = _read_changes(data) if inflating.eof else []
    except (zlib.error, msgspec.DecodeError):
        return None
    changes = {}
    for id_, former, after in entries[:MOST_STAGED]:
        new = _definition(id_, bytes(after))
        before = tuple(dict.fromkeys(each.definition for each in read_definitions(id_, [bytes(each) for each in former])))
        if new is not None and (before or not former):
            changes[id_] = StagedChange(before, frozenset(before or (placeholder(value.id, new),)), new)
    if len(changes) != value.size:
        return None
    return Plan(value.id, slot, dot, value, changes, tuple(map(_selector, value.stages)))


def _definition(id_: str, value: bytes) -> Definition | None:
    with contextlib.suppress(msgspec.DecodeError, ConstraintCrdtError):
        return read_addition(read_cell(make_cell(ADD, id_, msgspec.Raw(value)).data)).definition
    return None


def _selector(text: str) -> Selector | None:
    try:
        return parse_selector(text)
    except ConstraintCrdtError:
        return None


def _joined(plan: Plan, steps: Mapping[Dot, StepValue]) -> Rollout:
    """A rollout by its steps, in any order."""
    found = [(step, dot) for dot, step in steps.items() if step.id == plan.id]
    epoch = max((step.epoch for step, _ in found), default=0)
    stage = min(max((step.stage for step, _ in found), default=0), len(plan.stages) - 1)
    undone = {each for step, _ in found for each in step.undoes}
    ended = (
        WireDot(*dot.replica, dot.seq) for step, dot in sorted(found, key=lambda each: each[1]) if step.phase == Phase.COMPLETE
    )
    completions = tuple(each for each in ended if each not in undone)
    phase = Phase.RUNNING
    phases = {step.phase for step, _ in found}
    if Phase.BACK in phases:
        phase = Phase.BACK
    elif Phase.COMPLETE in phases:
        phase = Phase.COMPLETE
    elif any(step.epoch == epoch and step.phase != Phase.RUNNING for step, _ in found):
        phase = Phase.STOPPED  # also a phase of a later version
    counting = [
        (step, dot)
        for step, dot in found
        if (_phase_of(step) is phase and (step.epoch == epoch or not phase.active))
    ]  # fmt: skip
    last = max(counting, key=lambda each: (each[0].epoch, each[0].stage, each[0].at, each[1]), default=None)
    if last is None:
        return Rollout(plan, phase, epoch, stage, plan.value.at, plan.value.actor, "", plan.dot.replica.node_id, completions)
    step, dot = last
    return Rollout(plan, phase, epoch, stage, step.at, step.actor, step.reason, dot.replica.node_id, completions)


def _phase_of(step: StepValue) -> Phase:
    return Phase(step.phase) if step.phase <= Phase.BACK else Phase.STOPPED


class StagedNodes(IndexedView):
    """The reports of the nodes of the stages of active rollouts."""

    KINDS = (STAGED,)

    def _clear(self) -> None:
        self._lives: dict[str, dict[Replica, tuple[StagedValue, ...]]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        for cell in (old, new):
            if cell is not None:
                lives = self._lives.setdefault(cell.replica.node_id, {})
                if cell is new:
                    lives[cell.replica] = value_of(cell)
                else:
                    lives.pop(cell.replica, None)

    def __repr__(self) -> str:
        return f"StagedNodes({sorted(self._lives)})"

    def of(self, node: str, id_: str) -> StagedValue | None:
        """The report of a node on a rollout: of its furthest lives, the last. None without any."""
        found = [
            ((each.epoch, each.stage, each.violations, not self._rows.held(RETIRE, str(life)), self._rows.seq(life), life), each)
            for life, told in self._lives.get(node, {}).items()
            for each in told
            if each.id == id_
        ]
        return max(found, key=lambda each: each[0])[1] if found else None  # a cell may name a rollout twice

    def told_by(self, life: Replica) -> Sequence[StagedValue]:
        """The reports of a life on all rollouts."""
        return self._lives.get(life.node_id, {}).get(life, ())

    def put(self, told: Sequence[StagedValue], *, node: Replica) -> bool:
        """Report on all rollouts with a part of this node. True if a cell was written: for a change only."""
        value = sorted(told, key=lambda each: each.id)[:MOST_ROLLOUTS]
        cell = make_cell(STAGED, "", value)
        standing = self._rows.get(STAGED, "", node)
        if (standing is None and not value) or (standing is not None and standing.data == cell.data):
            return False
        self._rows.write(node, cell)
        return True
