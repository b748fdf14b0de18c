"""Rollouts on a node: its report on the stages begun, and the steps from stage to stage.

Each node of the stages begun reports how the new definitions do there (`types.rollouts.StagedNodes`). Each node with the right to
change constraints reads these reports once a second, and measures by itself how long the gate has held. A single live node writes
the steps, chosen by rendezvous hashing, without any election. Each node waits for `STAND_IN` longer than its predecessor in
weight, so the next node takes over from a dead driver. Rules kept here:

- A node is *reachable* while it is live, directly or through a peer, and reports on the present stage: it has judged by the new
  definitions then. Unless the gate reads `reachable`, an unreachable node leaves the gate undecided; unless it reads `unknown`, an
  undecided constraint does. No rollout goes on while its gate is undecided.
- A gate fails if it does not hold with all nodes reachable and no constraint undecided either. The rollout then stops.
- A rollout also stops after a change of its definitions by another edit, and if the gate has not held in time.
- Violations count from the arrival of the cells of a stage on, before the node judges by the new definitions. A constraint in a
  violated state counts at least once. The count goes on after a restart of the node.
- A step back and a completion on two sides of a partition: the step back is carried out once the sides meet.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple, Protocol, TypeVar

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError, ConstraintExists
from constraint_crdt.expression import Expression, Verdict, compile_written, measurements
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.insight.explain import EditEffects
from constraint_crdt.model import EventKind, Scope, VerdictState
from constraint_crdt.operations.constraints import AddConstraint, BatchError
from constraint_crdt.operations.operation import parse_delay
from constraint_crdt.operations.rules import (
    DEFAULT_GATE,
    GATE_VARIABLES,
    MOST_NAMED,
    RolledBack,
    RolloutReport,
    StagedFigures,
    StageReport,
)
from constraint_crdt.operations.service import Finding
from constraint_crdt.protocol.authority import OBSERVER, OPERATOR
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.sites import weight
from constraint_crdt.runtime.change_feed import ChangeFeed, acting_as, check_definitions, definition_of
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import ADD, Definition, check_definition
from constraint_crdt.types.nodes import cut
from constraint_crdt.types.orset import SWITCH, Subject, is_conflict
from constraint_crdt.types.rollouts import (
    DETAIL_BYTES,
    GATE_BYTES,
    Phase,
    Rollout,
    StagedValue,
    check_stages,
)
from constraint_crdt.types.verdicts import VIOLATED_STATES

LOOK_EVERY: Final = 1.0
"""Seconds between two looks."""

STAND_IN: Final = 3 * SECOND
"""ns for which each node waits longer than its predecessor in weight."""

DEFAULT_TIMEOUT: Final = 600.0
"""Seconds for which a stage waits for its gate, beyond the time of the gate."""

LONGEST_TIMEOUT: Final = 30 * 86_400.0
"""Seconds."""

SUSPENDED: Final = 10 * SECOND
"""ns between two looks beyond which the gate has to hold anew: the node was not running."""

STUCK_AFTER: Final = 60 * SECOND
"""ns of waiting for nodes before a finding of `doctor`."""

_GATE: Final = re.compile(r"(?P<expression>.+?)(?:\s+for\s+(?P<time>.+))?", re.DOTALL)

_PHASES: Final = {Phase.RUNNING: "running", Phase.STOPPED: "stopped", Phase.COMPLETE: "complete", Phase.BACK: "rolled back"}

_log = logging.getLogger("constraint_crdt.node")

Result = TypeVar("Result")


# --- gates ------------------------------------------------------------------------------------------------------------------


class Gate(NamedTuple):
    """The condition for the next stage of a rollout."""

    expression: Expression
    lasts: int
    """ns for which it has to hold."""

    def outcome(self, figures: StagedFigures) -> Verdict:
        """Whether the gate holds by these figures."""
        values = {name: float(getattr(figures, name)) for name in GATE_VARIABLES}
        return self.expression.evaluate(measurements(values)).verdict


@lru_cache(maxsize=256)
def parse_gate(text: str) -> Gate:
    """A gate of `EXPRESSION for TIME`. Raises `ConstraintCrdtError` for a mistake in it. May load the library of expressions."""
    found = _GATE.fullmatch(text.strip())
    if found is None or len(text.encode()) > GATE_BYTES:
        example = f"write it as in `{DEFAULT_GATE}`, in at most {GATE_BYTES} bytes"
        raise ConstraintCrdtError(f"the gate {text[:40]!r} is no gate: {example}", field="gate")
    try:
        expression = compile_written(found["expression"], kinds=dict.fromkeys(GATE_VARIABLES, "double"))
        lasts = parse_delay(found["time"] or "0")
    except ConstraintCrdtError as error:
        raise ConstraintCrdtError(f"the gate {text!r}: {error}", field="gate") from None
    strange = sorted(expression.variables - set(GATE_VARIABLES))
    if strange or not isinstance(expression, Expression) or expression.windows:
        named = f"{strange[0]}, which no gate has" if strange else "the past"
        raise ConstraintCrdtError(f"the gate {text!r} reads {named}: there are {', '.join(GATE_VARIABLES)}", field="gate")
    return Gate(expression, round(lasts * SECOND))


def read_gate(text: str) -> Gate | None:
    """The gate of a plan; None for a gate of a later version."""
    try:
        return parse_gate(text)
    except ConstraintCrdtError:
        return None


# --- steps, without a clock of their own ------------------------------------------------------------------------------------


class Sight(NamedTuple):
    """The nodes of the stages begun, as a node sees them."""

    figures: StagedFigures
    unreached: str = ""
    """The unreachable nodes, for people; empty: there are none."""
    violated: str = ""
    """A violated constraint with its node."""
    undecided: str = ""
    """An undecided constraint with its node."""


def see(state: ConstraintState, rollout: Rollout, nodes: Iterable[str], is_heard: Callable[[str], bool]) -> Sight:
    """The sight of a rollout. `nodes`: the nodes of the stages begun. O(nodes)."""
    counts, silent, behind = dict.fromkeys(GATE_VARIABLES, 0), list[str](), list[str]()
    violated = undecided = ""
    for node in sorted(nodes):
        counts["nodes"] += 1
        told = state.staged.of(node, rollout.id)
        current = told is not None and (told.epoch, told.stage) == (rollout.epoch, rollout.stage)
        if told is not None and current:
            counts["violations"] += told.violations
            counts["violated"] += told.violated
            counts["unknown"] += told.unknown
            if told.violations and not violated:
                violated = f"{node}: {told.detail}" if told.detail else node
            elif told.unknown and not undecided:
                undecided = f"{node}: {told.detail}" if told.detail else node
        if not is_heard(node):
            silent.append(node)
        elif not current:
            behind.append(node)
        else:
            counts["reachable"] += 1
    parts = [f"{_names(silent)} cannot be reached from here"] if silent else []
    parts += [f"{_names(behind)} did not take this stage over yet"] if behind else []
    return Sight(StagedFigures(**counts), "; ".join(parts), violated, undecided)


def _names(nodes: Sequence[str]) -> str:
    more = f" and {len(nodes) - MOST_NAMED} more" if len(nodes) > MOST_NAMED else ""
    return ", ".join(nodes[:MOST_NAMED]) + more


def trouble(state: ConstraintState, rollout: Rollout) -> str:
    """Why a rollout cannot go on, by the standing definitions; empty: it can. O(constraints of the rollout)."""
    for id_, change in rollout.plan.changes.items():
        first = state.rollouts.covering(id_)
        if first and first[0].id != rollout.id:
            return f"{id_} is in rollout {first[0].id} too, which began before"
        definitions = state.constraints.definitions(id_)
        if frozenset(definitions) in (change.standing, {change.after}):
            continue
        if not definitions:
            return f"{id_} was removed, or its end has passed"
        if is_conflict(definitions):
            return f"{id_} has {len(definitions)} definitions in conflict"
        return f"{id_} was changed on {state.constraints.additions(id_)[-1].dot.replica.node_id} since the rollout began"
    return ""


class Move(NamedTuple):
    """The next step of a rollout."""

    phase: Phase
    stage: int
    reason: str = ""


class Following:
    """The course of a running rollout, as a node sees it. Times are arguments, in ns of a monotonic clock."""

    def __init__(self) -> None:
        self.place: tuple[int, Phase, int] | None = None
        """Of the rollout at the last look, see `Rollout.place`."""
        self._began = self._looked = 0
        self.held_since: int | None = None
        """The begin of the time for which the gate has held."""
        self.due_since: int | None = None
        """The time at which a step became due."""
        self.waits_since: int | None = None
        """The begin of the time for which the gate has been undecided."""
        self.waits_for = ""
        self.sight = Sight(StagedFigures())

    def look(self, rollout: Rollout, sight: Sight, wrong: str, now: int) -> Move | None:
        """Take in a sight. `wrong`: of `trouble`. Returns the step due now; None without any."""
        if rollout.place != self.place:
            self.place, self._began, self._looked = rollout.place, now, now
            self.held_since = self.due_since = self.waits_since = None
        if now - self._looked > SUSPENDED:
            self._began += now - self._looked
            self.held_since = None
        self._looked, self.sight, self.waits_for = now, sight, ""
        if rollout.phase is not Phase.RUNNING:
            self.held_since = self.due_since = self.waits_since = None
            return None
        move = self._next(rollout, sight, wrong, now)
        self.due_since = None if move is None else now if self.due_since is None else self.due_since
        self.waits_since = None if not self.waits_for else now if self.waits_since is None else self.waits_since
        return move

    def _next(self, rollout: Rollout, sight: Sight, wrong: str, now: int) -> Move | None:
        if wrong:
            self.held_since = None
            return Move(Phase.STOPPED, rollout.stage, wrong)
        gate = read_gate(rollout.plan.value.gate)
        if gate is None:
            self.held_since, self.waits_for = None, "its gate cannot be read here: it is of a later version"
            return None
        holds, reason = judge_gate(gate, sight)
        if holds:
            self.held_since = now if self.held_since is None else self.held_since
            if now - self.held_since < gate.lasts:
                return None
            last = rollout.stage + 1 >= len(rollout.plan.stages)
            return Move(Phase.COMPLETE if last else Phase.RUNNING, rollout.stage + (not last))
        self.held_since = None
        if holds is False:
            return Move(Phase.STOPPED, rollout.stage, reason)
        self.waits_for = reason
        if now - self._began <= gate.lasts + rollout.plan.value.timeout:
            return None
        return Move(Phase.STOPPED, rollout.stage, f"the gate did not hold in time: {reason}")


def judge_gate(gate: Gate, sight: Sight) -> tuple[bool | None, str]:
    """Whether a gate holds (None: undecided), and why not."""
    figures, reads = sight.figures, gate.expression.variables
    outcome = gate.outcome(figures)
    if outcome is not Verdict.SATISFIED:
        best = StagedFigures(
            violations=figures.violations, violated=figures.violated, nodes=figures.nodes, reachable=figures.nodes
        )  # fmt: skip
        told = ", ".join(f"{name} = {getattr(figures, name)}" for name in GATE_VARIABLES if name in reads)
        where = f"; {sight.violated}" if sight.violated and reads & {"violations", "violated"} else ""
        if outcome is Verdict.VIOLATED and gate.outcome(best) is not Verdict.SATISFIED and figures.nodes:
            return False, f"the gate does not hold: {told}{where}"
    if not figures.nodes:
        return None, "no node matches the stages so far"
    if "reachable" not in reads and figures.reachable < figures.nodes:
        return None, sight.unreached
    if "unknown" not in reads and figures.unknown:
        return None, f"undecided on {sight.undecided}"
    if outcome is Verdict.SATISFIED:
        return True, ""
    return None, sight.unreached or (f"undecided on {sight.undecided}" if sight.undecided else f"the gate does not hold: {told}")


# --- on a node --------------------------------------------------------------------------------------------------------------


class OtherNodes(Protocol):
    """The other nodes, as in `insight.evidence.Evidence`."""

    @property
    def names(self) -> Sequence[str]:
        """The nodes of the fleet in service, with this node."""

    def is_seen(self, name: str) -> bool:
        """A node is live, or of another site that the transport lists."""

    def through(self, name: str) -> str | None:
        """The peer through which another node is reachable."""


class Publish(Protocol):
    """Publishes an event, see `EventPublisher.publish`."""

    def __call__(self, kind: EventKind, *, detail: str, actor: str, by: str, why: str) -> None:
        """Publish it."""


Written = TypeVar("Written")


class NodeRollouts:
    """The rollouts of a fleet, as a node begins, follows and drives them."""

    def __init__(
        self,
        gossip: GossipNode,
        feed: ChangeFeed,
        judge: Judge,
        *,
        others: OtherNodes,
        push: Callable[[], None],
        publish: Publish,
        now: Callable[[], int],
        check_call: Callable[[], None],
    ) -> None:
        """`push`: has peers learn of a write at once. `now`: ns of a clock that is never set. `check_call`: refuses a write outside
        of the life of the node.
        """
        self._gossip = gossip
        self._state = gossip.state
        self._feed = feed
        self._judge = judge
        self._others = others
        self._push = push
        self._publish = publish
        self._now = now
        self._check_call = check_call
        self._effects = EditEffects(gossip)
        self._following: dict[str, Following] = {}
        self._taken: dict[str, tuple[int, int, int]] = {}
        """By rollout the epoch and stage that this node counts violations of, and those counted before a restart."""
        self._told: dict[str, tuple[int, Phase, int]] = {}
        self._stepping = asyncio.Lock()
        self._state.rollouts.watch(self._moved)

    def __repr__(self) -> str:
        return f"NodeRollouts({self._state.rollouts!r})"

    def recall(self) -> None:
        """The state was loaded: events from before are not published again."""
        self._told = {each.id: each.place for each in self._state.rollouts}
        self._taken.clear()  # the report of the former process may have been loaded after the rollout
        self._take()

    # --- commands ----------------------------------------------------------------------------------------------------------

    async def begin(
        self,
        constraints: Sequence[AddConstraint],
        *,
        stages: Sequence[str],
        gate: str = DEFAULT_GATE,
        timeout: float | None = None,  # noqa: ASYNC109 - of a stage, not of the call
        why: str = "",
    ) -> RolloutReport:
        """Give constraints new definitions in stages of nodes, selectors each; after the last stage everywhere.

        `gate`: an expression over `GATE_VARIABLES`, as in `violations == 0 for 10m`, that has to hold for so long before the
        rollout goes on. `timeout`: seconds for which a stage waits beyond that. Definitions that are in force already are left
        out. Raises `BatchError` for a definition at fault, `LooseningRefused` where it loosens a critical constraint and does not
        say `loosen`, and `ConstraintCrdtError` for other mistakes; nothing changes then.
        """
        self._check_call()
        timeout = DEFAULT_TIMEOUT if timeout is None else timeout
        if not 0 < timeout <= LONGEST_TIMEOUT:
            raise ConstraintCrdtError("the timeout of a stage is above 0 seconds and at most 30 days", field="timeout")
        texts = check_stages(stages)
        await asyncio.to_thread(parse_gate, gate)
        await self._check(constraints)
        self._check_call()
        changes = self._changes(constraints)
        self._check_nodes(texts)
        if not changes:
            raise ConstraintCrdtError("there is nothing to stage: these definitions are in force already", field="constraints")
        loosening = {each.id for each in constraints if each.loosen}
        await self._effects.permit({id_: each for id_, each in changes.items() if id_ not in loosening}, loosen=False)
        self._check_call()
        at, actor = self._gossip.time.stamp(), self._feed.actor
        begin = partial(
            self._state.rollouts.begin, changes, self._state.constraints,
            stages=texts, gate=gate.strip(), timeout=round(timeout * SECOND), at=at, actor=actor, why=why or self._feed.why,
        )  # fmt: skip
        rollout = await self._commit(begin, "rollout", _counted(list(changes)), why=why, subjects=_subjects(changes))
        await self.step()
        return self.report(rollout.id)

    async def _check(self, constraints: Sequence[AddConstraint]) -> None:
        """Raises for a definition at fault."""
        if len({each.id for each in constraints}) < len(constraints):
            raise ConstraintCrdtError("a constraint is there twice", field="constraints")
        kinds = dict(self._state.variables.kinds())
        bind = self._gossip.binding(*(text for each in constraints for text in (each.when, each.clear_when)))
        await asyncio.to_thread(check_definitions, list(constraints), kinds, 0, bind)
        for index, each in enumerate(constraints):
            if each.scope is not Scope.NODE:
                sentence = "every node judges it over all nodes, so it cannot reach them in stages: add it with mode audit first"
                raise BatchError(index, "scope", sentence)
            if each.ttl is not None or each.until is not None:
                field = "ttl" if each.until is None else "until"
                raise BatchError(index, field, "a definition with an end is not staged: leave it out, and edit it afterwards")

    def _changes(self, constraints: Sequence[AddConstraint]) -> dict[str, Definition]:
        """The definitions not in force yet. Raises for a constraint with a definition of scope fleet, or in conflict."""
        found = {}
        for index, each in enumerate(constraints):
            definition = definition_of(each)
            standing = self._state.constraints.definitions(each.id)
            if each.new and standing:
                raise ConstraintExists(each.id)
            if len(standing) > 1:
                raise BatchError(index, "id", f"{each.id} has {len(standing)} definitions: settle that first (`resolve`)")
            if standing and (standing[0].scope is not Scope.NODE or standing[0].meaning):
                raise BatchError(index, "id", f"the definition of {each.id} in force is of scope fleet, or of a later version")
            if standing != (definition,):
                found[each.id] = definition
        return found

    def _check_nodes(self, stages: Sequence[str]) -> None:
        """Raise `ConstraintCrdtError` for a stage of which no node is known."""
        labels = self._labels()
        for number, text in enumerate(stages, start=1):
            selector = check_definition(None, "warning", None, text).selector
            if not any(selector.matches(each) for each in labels.values()):
                raise ConstraintCrdtError(f"stage {number}, {text}: no node with these labels is known here", field="stages")

    async def stop(self, id_: str, *, why: str = "") -> RolloutReport:
        """Stop a rollout in its stage. Raises `UnknownName`, and `ConstraintCrdtError` unless it runs."""
        rollout = self._find(id_, Phase.RUNNING)
        return await self._command(rollout, Phase.STOPPED, "stop rollout", why, why or "by hand")

    async def go_on(self, id_: str, *, why: str = "") -> RolloutReport:
        """Have a stopped rollout go on in its stage. Raises `UnknownName`, and `ConstraintCrdtError` unless it is stopped, and
        after a change of its definitions by another edit.
        """
        rollout = self._find(id_, Phase.STOPPED)
        wrong = trouble(self._state, rollout)
        if wrong:
            raise ConstraintCrdtError(f"rollout {rollout.id} cannot go on: {wrong}; roll it back, and begin another one")
        return await self._command(rollout, Phase.RUNNING, "continue rollout", why, "")

    async def _command(self, rollout: Rollout, phase: Phase, operation: str, why: str, reason: str) -> RolloutReport:
        self._check_call()
        step = partial(
            self._state.rollouts.step, rollout, phase, at=self._gossip.time.stamp(), by_command=True,
            actor=self._feed.actor, reason=reason,
        )  # fmt: skip
        await self._commit(step, operation, rollout.id, why=why)
        await self.step()
        return self.report(rollout.id)

    async def _commit(
        self, write: Callable[..., Written], operation: str, subject: str, *, why: str, subjects: Sequence[Subject] = ()
    ) -> Written:
        """Carry out a write, which takes the life of this node as `node`, and wait until it is on disk."""
        return await self._feed.commit(
            lambda: self._gossip.write(lambda me: write(node=me)), operation, subject, why=why, subjects=subjects
        )

    async def back(self, id_: str, *, why: str = "") -> RolledBack:
        """Give the constraints of a rollout their former definitions, in a single transaction; also after its completion.

        Raises `UnknownName`, and `ConstraintCrdtError` for a rollout rolled back before.
        """
        rollout = self._find(id_, Phase.RUNNING, Phase.STOPPED, Phase.COMPLETE)
        self._check_call()
        restored, kept = await self._back(rollout, why, why)
        await self.step()
        return RolledBack(rollout=self.report(rollout.id), restored=tuple(restored), kept=tuple(kept))

    async def _back(self, rollout: Rollout, why: str, reason: str) -> tuple[list[str], list[str]]:
        back = partial(
            self._state.rollouts.back, rollout, self._state.constraints, self._state.switches,
            at=self._gossip.time.stamp(), actor=self._feed.actor, reason=reason,
        )  # fmt: skip
        subjects = [*_subjects(rollout.plan.changes), *(Subject(SWITCH, id_) for id_ in rollout.plan.changes)]
        return await self._commit(back, "roll back", rollout.id, why=why, subjects=subjects)

    def _find(self, id_: str, *phases: Phase) -> Rollout:
        rollout = self._state.rollouts.find(id_)
        if rollout.phase not in phases:
            raise ConstraintCrdtError(f"rollout {rollout.id} is {_PHASES[rollout.phase]}", field="id")
        return rollout

    # --- the node's own part -----------------------------------------------------------------------------------------------

    def _moved(self, ids: Sequence[str]) -> None:
        """Rollouts of these constraints moved: read their definitions again, and count violations from now on."""
        self._take()
        self._feed.definitions.tell(ids)

    def _own(self) -> Iterator[Rollout]:
        """The active rollouts with a part of this node."""
        labels = self._gossip.labels
        return (each for each in self._state.rollouts.active if each.plan.reaches(labels, each.stage))

    def _take(self) -> None:
        """Begin to count for new stages."""
        own = {each.id: each for each in self._own()}
        for id_ in set(self._taken) - own.keys():
            del self._taken[id_]
        counted = set[str]()
        for id_, rollout in own.items():
            counted.update(rollout.plan.changes)
            if self._taken.get(id_, ())[:2] == (rollout.epoch, rollout.stage):
                continue
            told = self._state.staged.of(self._gossip.node_id, id_)
            goes_on = told is not None and (told.epoch, told.stage) == (rollout.epoch, rollout.stage)
            self._taken[id_] = rollout.epoch, rollout.stage, told.violations if told is not None and goes_on else 0
            self._judge.tallies.update(dict.fromkeys(rollout.plan.changes, 0))
        for id_ in set(self._judge.tallies) - counted:
            del self._judge.tallies[id_]

    def _report_own(self) -> list[StagedValue]:
        """The reports of this node, on the rollouts whose definitions it judges by."""
        found = []
        for rollout in self._own():
            if any(map(self._judge.is_stale, rollout.plan.changes)):
                continue
            violations, violated, unknown, worst, doubt = self._taken[rollout.id][2], 0, 0, "", ""
            for id_, change in rollout.plan.changes.items():
                state, reason = self._state_of(id_, change.after)
                if state in VIOLATED_STATES:
                    violated += 1
                    self._judge.tallies[id_] = max(1, self._judge.tallies[id_])
                elif state is VerdictState.UNKNOWN:
                    unknown += 1
                    doubt = doubt or f"{id_} is unknown: {reason}"
                count = self._judge.tallies[id_]
                violations += count
                if count and not worst:
                    verdict = self._judge.verdict(id_, self._now()) if state in VIOLATED_STATES else None
                    values = "" if verdict is None else "; ".join(f"{name} = {text}" for name, text in verdict.inputs)
                    worst = f"{id_} was violated" if verdict is None else f"{id_} is violated{' by ' + values if values else ''}"
            epoch, stage, _ = self._taken[rollout.id]
            found.append(
                StagedValue(rollout.id, epoch, stage, violations, violated, unknown, cut(worst or doubt, DETAIL_BYTES))
            )  # fmt: skip
        return found

    def _state_of(self, id_: str, definition: Definition) -> tuple[VerdictState | None, str]:
        """The state of a staged constraint here, and why unknown; None: it does not apply here, or is not evaluated."""
        if not definition.when or not definition.applies_to(self._gossip.labels):
            return None, ""
        if id_ in self._state.switches:
            return VerdictState.UNKNOWN, "it is disabled"
        found = self._judge.evaluation(id_)
        return (VerdictState.UNKNOWN, "not evaluated yet") if found is None else (found.state, found.reason)

    async def step(self) -> None:
        """Look at all rollouts: report on this node, and take the steps due here."""
        if not len(self._state.rollouts):
            return
        async with self._stepping:
            await self._step()

    async def _step(self) -> None:
        self._take()
        if self._feed.writable:
            told = self._report_own()
            if self._feed.write(lambda: self._tell(told)):
                self._push()
        now, known = self._now(), set[str]()
        for rollout in list(self._state.rollouts):
            known.add(rollout.id)
            if rollout.phase.active:
                following = self._following.setdefault(rollout.id, Following())
                move = following.look(rollout, self._see(rollout), trouble(self._state, rollout), now)
                if move is not None and self._is_turn(rollout, now - (following.due_since or now)):
                    await self._do(rollout, move)
            elif rollout.phase is Phase.BACK and rollout.completions and self._is_turn(rollout, 0):
                await self._undo(rollout)
        for id_ in set(self._following) - known:
            del self._following[id_]
        self._tell_steps()

    def _tell(self, told: Sequence[StagedValue]) -> bool:
        """Write changed reports. A node without a part in any rollout begins no life for them."""
        state, before = self._state, [self._state.staged.of(self._gossip.node_id, each.id) for each in told]
        if before == list(told) and len(state.staged.told_by(self._gossip.replica)) == len(told):
            return False
        return self._gossip.write(lambda me: state.staged.put(told, node=me))

    def _is_turn(self, rollout: Rollout, waited: int) -> bool:
        """True if this node is to take a step due for so many ns."""
        local = self._gossip.local
        if not self._feed.writable or not local.may_change_constraints:
            return False
        me, authority = self._gossip.node_id, self._gossip.authority
        able = {name for name in self._others.names if self._is_heard(name)} | {me}
        if authority is not None:
            able &= {member.node for member in authority.members().values() if member.role == OPERATOR} | {me}
        order = sorted(able, key=lambda name: (-weight(name, rollout.id, ""), name))
        return waited >= order.index(me) * STAND_IN

    async def _do(self, rollout: Rollout, move: Move) -> None:
        with acting_as("rollout"):
            try:
                if move.phase is Phase.COMPLETE:
                    complete = partial(
                        self._state.rollouts.complete, rollout, self._state.constraints,
                        at=self._gossip.time.stamp(), actor=self._feed.actor,
                    )  # fmt: skip
                    why, subjects = rollout.plan.value.why, _subjects(rollout.plan.changes)
                    await self._commit(complete, "complete rollout", rollout.id, why=why, subjects=subjects)
                    return
                step = partial(
                    self._state.rollouts.step, rollout, move.phase, stage=move.stage, at=self._gossip.time.stamp(),
                    actor=self._feed.actor, reason=move.reason,
                )  # fmt: skip
                operation = "stop rollout" if move.phase is Phase.STOPPED else "advance rollout"
                await self._commit(step, operation, rollout.id, why=move.reason)
            except ConstraintCrdtError as error:  # such as a full disk: another node takes the step
                _log.warning("rollout %s does not go on by this node: %s", rollout.id, error)

    async def _undo(self, rollout: Rollout) -> None:
        with acting_as("rollout"):
            try:
                await self._back(rollout, "it was rolled back while another node completed it", rollout.reason)
            except ConstraintCrdtError as error:
                _log.warning("rollout %s is not rolled back by this node: %s", rollout.id, error)

    # --- what is seen ------------------------------------------------------------------------------------------------------

    def _is_heard(self, name: str) -> bool:
        return self._others.is_seen(name) or self._others.through(name) is not None

    def _labels(self) -> dict[str, Mapping[str, str]]:
        """The labels of the nodes in service, without observers, by name. O(nodes)."""
        gossip, authority = self._gossip, self._gossip.authority
        found = self._state.labels | {gossip.node_id: dict(gossip.labels)}
        observers = set[str]()
        if authority is not None:
            observers = {each.node for each in authority.members().values() if each.role == OBSERVER}
        out = {*self._state.retirements.nodes, *gossip.revoked_nodes, *observers}
        return {name: labels for name, labels in found.items() if name not in out}

    def _see(self, rollout: Rollout) -> Sight:
        nodes = [name for name, labels in self._labels().items() if rollout.plan.reaches(labels, rollout.stage)]
        return see(self._state, rollout, nodes, self._is_heard)

    def reports(self) -> list[RolloutReport]:
        """The rollouts of the fleet, the newest last. O(rollouts x nodes)."""
        return self._reports(list(self._state.rollouts))

    def active(self) -> list[RolloutReport]:
        """The running and stopped rollouts."""
        return self._reports(self._state.rollouts.active)

    def _reports(self, rollouts: Sequence[Rollout]) -> list[RolloutReport]:
        labels = self._labels() if rollouts else {}
        return [self._report(each, labels) for each in rollouts]

    def report(self, id_: str) -> RolloutReport:
        """A rollout, by its id or the beginning of it. Raises `UnknownName`."""
        return self._report(self._state.rollouts.find(id_), self._labels())

    def _report(self, rollout: Rollout, labels: Mapping[str, Mapping[str, str]]) -> RolloutReport:
        plan, value = rollout.plan, rollout.plan.value
        stages = []
        for number, (text, selector) in enumerate(zip(value.stages, plan.stages, strict=True)):
            nodes = sorted(name for name, each in labels.items() if selector is not None and selector.matches(each))
            begun = "begun" if number == rollout.stage and rollout.phase.active else "done"
            begun = "waiting" if number > rollout.stage else "rolled back" if rollout.phase is Phase.BACK else begun
            stages.append(StageReport(on=text, state=begun, nodes=tuple(nodes[:MOST_NAMED]), nodes_in_all=len(nodes)))
        following = self._following.get(rollout.id, Following())
        running = rollout.phase is Phase.RUNNING and following.place == rollout.place
        held = following.held_since
        return RolloutReport(
            id=rollout.id,
            phase=_PHASES[rollout.phase],
            stage=rollout.stage + 1,
            stages=tuple(stages),
            gate=value.gate,
            timeout=value.timeout / SECOND,
            began=value.at,
            begun_by=value.actor,
            begun_on=plan.dot.replica.node_id,
            why=value.why,
            since=rollout.at,
            by=rollout.actor,
            by_node=rollout.node,
            reason=rollout.reason,
            constraints=tuple(plan.changes),
            new=tuple(id_ for id_, change in plan.changes.items() if not change.before),
            applies_here=rollout.phase.active and plan.reaches(self._gossip.labels, rollout.stage),
            figures=self._see(rollout).figures if rollout.phase.active else StagedFigures(),
            waits_for=following.waits_for if running else "",
            holds_for=None if held is None or not running else (self._now() - held) / SECOND,
        )

    def _tell_steps(self) -> None:
        """Publish the steps since the last look."""
        for rollout in self._state.rollouts:
            before = self._told.get(rollout.id)
            if before == rollout.place:
                continue
            self._told[rollout.id] = rollout.place
            where = f"stage {rollout.stage + 1} of {len(rollout.plan.stages)}"
            if rollout.phase is Phase.RUNNING:
                on = rollout.plan.value.stages[rollout.stage]
                sentence = f"{where} began, {on}"
            elif rollout.phase is Phase.STOPPED:
                sentence = f"stopped in {where}: {rollout.reason}"
                _log.warning("rollout %s %s", rollout.id, sentence)
            else:
                sentence = f"{_PHASES[rollout.phase]}{': ' + rollout.reason if rollout.reason else ''}"
            why = rollout.plan.value.why if before is None else ""
            self._publish(EventKind.ROLLOUT, detail=f"{rollout.id}: {sentence}", actor=rollout.actor, by=rollout.node, why=why)
        kept = {each.id for each in self._state.rollouts}
        self._told = {id_: place for id_, place in self._told.items() if id_ in kept}

    def findings(self) -> Iterator[Finding]:
        """The findings of `doctor`: stopped rollouts, and those waiting for nodes. None without an active rollout."""
        active, wrong = self._state.rollouts.active, False
        for rollout in active:
            following = self._following.get(rollout.id, Following())
            where = f"rollout {rollout.id}, stage {rollout.stage + 1} of {len(rollout.plan.stages)},"
            if rollout.phase is Phase.STOPPED:
                wrong = True
                advice = f"`constraint-crdt rollout show {rollout.id}`; then `rollout continue` or `rollout back`"
                yield Finding(check="rollouts", level="warn", what=f"{where} stopped: {rollout.reason}", advice=advice)
            elif following.waits_since is not None and self._now() - following.waits_since > STUCK_AFTER:
                wrong = True
                advice = "start these nodes or retire them; `rollout stop` and `rollout back` end it"
                yield Finding(check="rollouts", level="warn", what=f"{where} waits: {following.waits_for}", advice=advice)
        if active and not wrong:
            yield Finding(check="rollouts", level="ok", what=f"no rollout has stopped, of {len(active)} active")


def _subjects(ids: Iterable[str]) -> list[Subject]:
    return [Subject(ADD, id_) for id_ in ids]


def _counted(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} constraints"
