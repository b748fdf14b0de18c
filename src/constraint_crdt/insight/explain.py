"""Explanations: everything known of a constraint, with the evidence; decisions; and the overview of all constraints.

An explanation lists the mutations keeping the constraint active and their authors, the removals and the additions ended by each,
the nodes with violations and since when, the recent rates, and the nodes lacking the constraint.

A constraint of scope fleet is told by a single node, so a verdict on it from a node that is not live counts no more.

The verdict of a node is the verdict that the node told in its cell; nothing is inferred from counts. A node that evaluated a
constraint and told no verdict has seen it hold only. The verdict of this node is from its evaluations.

`EditEffects` says what an edit means for the values that are allowed, and refuses one that loosens a critical constraint without a
word. An edit of which the analysis does not decide passes, and its answer says so: a flag that each such edit needed would be given
by habit. The solver is no library for several threads, so all nodes of a process have one thread for it.

A decision is the outcome of the constraints for given values. The last decisions are kept in memory, as bytes, in bounds of number
and size.

The overview has the constraints of a large fleet in pages, for screens. The size of a page depends on the number of constraints
asked for, not on the number of constraints. A page names few nodes and counts the others. The coverage of a constraint is given
only if asked by id, from the clocks of peers.
"""

import asyncio
import secrets
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, NamedTuple, Protocol

import msgspec

from constraint_crdt.crdt.clock import SECOND, Dot, Replica, dot_text
from constraint_crdt.errors import ConstraintCrdtError, LooseningRefused
from constraint_crdt.expression.analysis import Edit, Effect, Part, compare_definitions, merge_edits
from constraint_crdt.expression.cel import Verdict
from constraint_crdt.expression.evaluation import GRAVITY, Evaluation, evaluable
from constraint_crdt.expression.fleet_view import Basis
from constraint_crdt.expression.judgement import Instances, Ruling
from constraint_crdt.expression.measurements import flattened, variable_of
from constraint_crdt.insight.evidence import Coverage, Evidence, LoggedChange
from constraint_crdt.insight.history import NodeRates
from constraint_crdt.model import IfUnknown, Mode, Selector, Severity, VerdictState
from constraint_crdt.operations.budgets import AwaitedNode, BudgetDefinitionReport, BudgetExplanation, BudgetReport
from constraint_crdt.operations.constraints import (
    DISABLED,
    EditEffect,
    EffectPart,
    ViolatedNode,
    reported_disabling,
    reported_fields,
    reported_instances,
    reported_staging,
    reported_time,
    reported_verdict,
)
from constraint_crdt.operations.counts import OVERVIEW_PAGE, ConstraintOverview, ConstraintRate, LatelyReport, OverviewReport
from constraint_crdt.operations.evidence import (
    MOST_EXPLAINED,
    ExplainReport,
    FleetJudgement,
    RecentRates,
    Removal,
    StandingDefinition,
    ViolationReport,
)
from constraint_crdt.operations.rules import MOST_RULINGS, DecisionReport, RulingReport
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.budgets import NO_HOLDS, NO_LEDGER, borrowed, held, lent, target
from constraint_crdt.types.counters import ZERO, Seconds, Times
from constraint_crdt.types.definition import ADD, Addition, Definition, joined
from constraint_crdt.types.orset import is_conflict
from constraint_crdt.types.parameters import Bound, Setting, SetValue, bind, choose, literal, read_parameters
from constraint_crdt.types.variables import Scalar
from constraint_crdt.types.verdicts import VIOLATED_STATES, ConstraintVerdicts, NodeVerdict, value_text

NAMED = 3
"""Nodes named where a constraint is violated: those with the most violations."""

NOTICED = 0.05
"""A node counts as recently violating a constraint while more than this number of violations remains."""

SHARE_OF_LOOP = 20
"""A slow sum is cached for this multiple of its duration."""

_URGENT = VIOLATED_STATES | {VerdictState.UNKNOWN}

Clock = Mapping[Replica, int]


class Evaluations(Protocol):
    """Knows the evaluations of a node."""

    def last(self, id_: str) -> Evaluation | None:
        """The last evaluation of a constraint."""

    def since(self, id_: str) -> int | None:
        """The begin of its verdict state, in ns since the epoch."""

    def verdict(self, id_: str) -> NodeVerdict | None:
        """The verdict of this node on a constraint, with the values and the margin."""

    def times(self, id_: str) -> Times:
        """The time by verdict that this node did not write yet."""

    def instances(self, id_: str, most: int) -> Instances | None:
        """The instances of a constraint with `each`, the worst `most` of them with values."""

    def basis(self, id_: str) -> Basis | None:
        """The basis of the verdict on a constraint of scope fleet."""

    def writer(self, id_: str) -> str | None:
        """The node that writes the counts of a constraint of scope fleet; None for another constraint."""


class Explanations:
    """Explains the constraints of a node."""

    def __init__(
        self, gossip: GossipNode, evidence: Evidence, coverage: Coverage, evaluations: Evaluations, rates: NodeRates
    ) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._coverage = coverage
        self._evaluations = evaluations
        self._rates = rates

    def report(self, id_: str) -> ExplainReport:
        """Everything known of a constraint. O(nodes x rows). Raises `KeyError` for an unknown constraint."""
        state = self._gossip.state
        try:
            coverage = self._coverage.report(id_)
        except KeyError:
            coverage = None
            if not self._rates.knows_constraint(id_) and not state.metrics.by_node(id_):
                raise
        constraints = state.constraints
        with self._gossip.time.held():
            in_force, expired = constraints.additions(id_), constraints.expired(id_)
        definitions = [self._definition(each, expired=False) for each in in_force]
        definitions += [self._definition(each, expired=True) for each in expired]
        return ExplainReport(
            id=id_,
            active=bool(in_force),
            conflict=is_conflict([each.definition for each in in_force]),
            definitions=tuple(definitions),
            removals=tuple(_removal(change, id_, state) for change in self._evidence.changes.removals(id_)),
            violations=self._violations(id_),
            lately=self._lately(id_),
            coverage=coverage,
            fleet=self._judgement(id_),
            disabled=reported_disabling(state.switches.disabling(id_)),
            staged=reported_staging(state.rollouts, id_, self._gossip.labels),
            instances=reported_instances(self._evaluations.instances(id_, MOST_EXPLAINED)),
        )

    def _judgement(self, id_: str) -> FleetJudgement | None:
        basis, writer = self._evaluations.basis(id_), self._evaluations.writer(id_)
        if basis is None or writer is None:
            return None
        return FleetJudgement(
            nodes=basis.nodes,
            read=basis.read,
            oldest=None if basis.oldest is None else max(0, basis.oldest) / SECOND,
            basis=basis.text,
            counted_by=writer,
        )

    def _definition(self, addition: Addition, *, expired: bool) -> StandingDefinition:
        definition, change = addition.definition, self._evidence.changes.change(addition.dot)
        return StandingDefinition(
            dot=dot_text(addition.dot),
            when=definition.when,
            severity=definition.severity.value,
            about=definition.about,
            on=dict(definition.on),
            added_by=addition.dot.replica.node_id,
            actor=_actor(self._gossip.state, addition.dot),
            why=_why(self._gossip.state, addition.dot),
            added_at=addition.added_at,
            known_since=None if change is None else change.known_at,
            expires_at=definition.expires_at,
            **reported_fields(definition),
            expired=expired,
        )

    def _violations(self, id_: str) -> tuple[ViolationReport, ...]:
        """The violations on every node with evaluations."""
        counts = self._gossip.state.metrics.by_node(id_)
        lately = self._rates.of(id_, self._rates.half_lives[0])
        per_minute = lately.violated_per_minute / lately.violated if lately.violated else 0.0
        verdicts, own = self._gossip.state.verdicts.of(id_), self._evaluations.verdict(id_)
        verdicts.pop(self._gossip.node_id, None)  # not told yet, or of a former definition
        if own is not None:
            verdicts[self._gossip.node_id] = own
        if self._evaluations.writer(id_) is not None:
            verdicts = {name: told for name, told in verdicts.items() if self._evidence.is_seen(name)}
        seconds = self._gossip.state.metrics.time_on(id_)
        if any(unwritten := self._evaluations.times(id_)):
            seconds[self._gossip.node_id] = seconds.get(self._gossip.node_id, Seconds()).plus(unwritten)
        names = {*counts, *lately.by_node, *verdicts, *(name for name, time in seconds.items() if time.held is not None)}
        reports = []
        for name in sorted(names):
            rate, ever = lately.by_node.get(name), counts.get(name, ZERO)
            told = verdicts.get(name)
            only_satisfied = told is None and ever.satisfied > 0 and not ever.violated
            reports.append(
                ViolationReport(
                    node=name,
                    live=self._evidence.is_seen(name),
                    violated=_is_violated(told, otherwise=False if only_satisfied else None),
                    **reported_verdict(told),
                    **reported_time(seconds.get(name, Seconds())),
                    last=self._evidence.now() if name == self._gossip.node_id else self._evidence.heard_at(name),
                    exact=told is not None,
                    satisfied=ever.satisfied,
                    violations=ever.violated,
                    violated_per_minute=rate.violated * per_minute if rate else 0.0,
                    violated_share=rate.violated_share if rate else None,
                )
            )
        return tuple(reports)

    def _lately(self, id_: str) -> tuple[RecentRates, ...]:
        found = []
        for half_life in self._rates.half_lives:
            rate = self._rates.of(id_, half_life)
            found.append(
                RecentRates(
                    half_life=half_life,
                    satisfied_per_minute=rate.satisfied_per_minute,
                    violated_per_minute=rate.violated_per_minute,
                    violated_share=rate.violated_share,
                )
            )
        return tuple(found)


def state_here(last: Evaluation | None, definitions: Iterable[Definition], labels: Mapping[str, str]) -> str | None:
    """The verdict state of a constraint on a node with these labels; None before the first judgement."""
    if last is not None:
        return last.state.value
    applies = any(evaluable(each) and each.applies_to(labels) for each in definitions)
    return None if applies else VerdictState.OFF.value


def violated_nodes(verdicts: ConstraintVerdicts, id_: str, me: str, own: NodeVerdict | None) -> dict[str, NodeVerdict]:
    """The violations of a constraint by node, the longest violated first.

    `own`: the verdict of this node, `me`, in place of its cell, which may be of a former definition. O(nodes with a violation).
    """
    told = verdicts.of(id_) if id_ in verdicts.violated else {}
    found = {name: told[name] for name in verdicts.violated_on(id_) if name != me}
    if own is not None and own.state in VIOLATED_STATES:
        found[me] = own
        return dict(sorted(found.items(), key=lambda each: (each[1].since, each[0])))
    return found


def explain_budget(gossip: GossipNode, report: BudgetReport) -> BudgetExplanation:
    """Everything known of a budget. `report`: that of the budget. Raises `KeyError` for an unknown name."""
    escrow, name = gossip.escrow, report.name
    known, now, skew = escrow.budgets.known(name), escrow.now, escrow.skew
    live = {each.node for each in report.nodes if each.live}
    awaited = []
    for node in report.waits_for:
        beyond, ends = 0, [0]
        for life in known.current(node):
            given = lent(known, life, now, skew)
            out = given + max(0, held(known, life, now) - borrowed(known, life, now))
            beyond += max(0, out - target(known, life))
            ends += [loan.until + skew for loan in known.ledgers.get(life, NO_LEDGER).loans if loan.until]
            ends += [hold.until for hold in known.holds.get(life, NO_HOLDS).holds if hold.until]
        until = max(ends) if beyond and known.lease and max(ends) > now else None
        awaited.append(AwaitedNode(node=node, live=node in live, beyond=beyond, until=until))
    later = [each for each in awaited if each.beyond]
    ends = [each.until for each in later if each.until is not None]
    definitions = []
    for dot, value in known.heads:
        shares: dict[str, int] = {}
        for each in value.shares:
            shares[each.node] = shares.get(each.node, 0) + each.amount
        definitions.append(
            BudgetDefinitionReport(
                dot=dot_text(dot),
                limit=value.limit,
                shares=shares,
                gone=value.without,
                made_by=dot.replica.node_id,
                actor=_actor(gossip.state, dot),
                made_at=value.made,
            )
        )
    return BudgetExplanation(
        budget=report,
        definitions=tuple(definitions),
        awaited=tuple(awaited),
        holds_by=max(ends) if ends and all(each.live for each in later) else None,
        wait="" if report.free_here else escrow.reason(name, 1),
    )


def _is_violated(verdict: NodeVerdict | None, *, otherwise: bool | None) -> bool | None:
    """`otherwise`: of a node that told no verdict."""
    if verdict is None:
        return otherwise
    return None if verdict.state in (VerdictState.UNKNOWN, VerdictState.OFF) else verdict.state in VIOLATED_STATES


def _actor(state: ConstraintState, dot: Dot) -> str | None:
    entry = state.audit.of(dot)
    return None if entry is None else entry.actor


def _why(state: ConstraintState, dot: Dot) -> str:
    entry = state.audit.of(dot)
    return "" if entry is None else entry.why


def _removal(change: LoggedChange, id_: str, state: ConstraintState) -> Removal:
    dot, rows = change.dot, state.rows
    return Removal(
        dot=dot_text(dot),
        by=dot.replica.node_id,
        actor=_actor(state, dot),
        why=_why(state, dot),
        ended=tuple(map(dot_text, sorted((change.removed or {}).get(id_, ())))),
        known_since=change.known_at,
        held=any(cell.seq == dot.seq for cell in rows.above(dot.replica, dot.seq - 1)[:1]),
    )


DECISION_BYTES = 8 * 1024 * 1024
"""Bytes of the kept decisions, at most."""


# --- edits ------------------------------------------------------------------------------------------------------------------

MOST_EFFECTS: Final = 100
"""Constraints of which the effect of a parameter is told."""

MOST_SETTINGS: Final = 8
"""Different values of parameters for which an edit is analysed."""

LONGEST_ANALYSIS: Final = 10.0
"""Seconds for all edits of a request, the critical constraints first. A single edit takes some 10 ms."""

Edits = Mapping[str, Definition | None]
"""Definitions by id; None: the constraint is removed."""

Pair = tuple[Definition, Definition]
"""An old and a new definition."""


class _ChangedValue(NamedTuple):
    """A parameter on the nodes with some labels, before and after a change."""

    labels: Mapping[str, str]
    before: Bound
    after: Bound


class EditEffects:
    """What edits of constraints mean, in values."""

    def __init__(self, gossip: GossipNode) -> None:
        self._gossip = gossip

    async def of(self, id_: str, before: Sequence[Definition], after: Definition | None) -> EditEffect:
        """The effect of a definition in place of those in force; None: of the removal of the constraint."""
        if after is None:
            return _reported(id_, Edit((Part("when", Effect.LOOSENS, why="it is removed"),)), before)
        critical = [each for each in before if each.severity is Severity.CRITICAL]
        edit = await self._analyse(self._pairs(before, after))
        if not critical or len(critical) == len(before):
            return _reported(id_, edit, before)
        of_critical = await self._analyse(self._pairs(critical, after))  # of several definitions, those that must not be loosened
        return msgspec.structs.replace(_reported(id_, edit, before), needs_loosen=of_critical.loosens)

    async def of_all(self, edits: Edits, disabled: Iterable[str] = ()) -> dict[str, EditEffect]:
        """The effects of edits on active constraints, by id. `disabled`: those that are disabled by the way."""
        constraints, ends = self._gossip.state.constraints, time.monotonic() + LONGEST_ANALYSIS
        active = {id_: standing for id_ in edits if (standing := constraints.definitions(id_))}
        found = dict[str, EditEffect]()
        for id_ in sorted(active, key=lambda each: (not _is_critical(active[each]), each)):
            before, after = active[id_], edits[id_]
            if time.monotonic() < ends:
                found[id_] = await self.of(id_, before, after)
            else:
                late = Part("when", Effect.UNDECIDED, why="there are too many edits at once: look at fewer")
                found[id_] = _reported(id_, Edit((late,)), before)
        for id_ in disabled:
            if id_ not in found and (before := constraints.definitions(id_)):
                found[id_] = _reported(id_, Edit((Part("mode", Effect.LOOSENS, why="it is disabled"),)), before)
        return {id_: found[id_] for id_ in sorted(found)}

    async def permit(self, edits: Edits, *, loosen: bool, disabled: Sequence[str] = ()) -> None:
        """Return if these edits may be made now. Raises `LooseningRefused` for critical constraints, unless `loosen`."""
        constraints = self._gossip.state.constraints
        while not loosen:
            before = {id_: constraints.definitions(id_) for id_ in (*edits, *disabled)}
            critical = [id_ for id_, found in before.items() if _is_critical(found)]
            if not critical:
                break
            wanted = {id_: edits[id_] for id_ in critical if id_ in edits}
            effects = await self.of_all(wanted, [id_ for id_ in critical if id_ not in edits])
            if all(constraints.definitions(id_) == found for id_, found in before.items()):  # else look at what came meanwhile
                _refuse(effects.values())
                break

    async def permit_parameter(self, name: str, on: Selector, value: Scalar | None, *, loosen: bool) -> tuple[EditEffect, ...]:
        """The effects of a setting, or of its removal (None), on the constraints that read the parameter. Raises as `permit`."""
        while True:
            changed, readers = self._changed_values(name, on, value), self._readers(name)
            effects = await self._of_parameter(name, changed, readers)
            if (changed, readers) == (self._changed_values(name, on, value), self._readers(name)):
                break
        if not loosen:
            _refuse(effects)
        return effects[:MOST_EFFECTS]

    def _pairs(self, before: Sequence[Definition], after: Definition) -> list[Pair]:
        """The definitions to compare: parameters that both read stay, others get the values that they have on some node."""
        olds = list(before)
        if len(olds) > 1:
            try:
                olds = [joined(olds)]
            except ConstraintCrdtError:  # they differ in more than their `when`: each is compared
                olds = list(before)
        pairs = dict[Pair, None]()
        for old in olds:
            names = sorted(read_parameters(old) ^ read_parameters(after))
            found = [self._values(names, labels) for labels in (self._labels() if names else [{}])]
            whole = [values for values in found if all(each.value is not None for each in values.values())]
            for values in whole or found[:1]:  # where a parameter has no value, it is unknown
                pairs[_bound(old, values), _bound(after, values)] = None
        return list(pairs)[: MOST_SETTINGS * len(olds)]

    def _values(self, names: Iterable[str], labels: Mapping[str, str]) -> dict[str, Bound]:
        return {name: self._gossip.state.parameters.value(name, labels) for name in names}

    def _labels(self) -> list[Mapping[str, str]]:
        """The different labels of the known nodes in service, this one first."""
        state, me = self._gossip.state, self._gossip.node_id
        known = [each for node, each in state.labels.items() if node != me and node not in state.retirements]
        found = {tuple(sorted(each.items())): each for each in (dict(self._gossip.labels), *known)}
        return list(found.values())

    async def _analyse(self, pairs: Sequence[Pair]) -> Edit:
        if all((old.when, old.clear_when, old.scope) == (new.when, new.clear_when, new.scope) for old, new in pairs):
            return _compared(pairs, {})
        kinds = dict(self._gossip.state.variables.kinds())
        return await asyncio.get_running_loop().run_in_executor(_thread(), _compared, pairs, kinds)

    # --- parameters ----------------------------------------------------------------------------------------------------

    def _readers(self, name: str) -> dict[str, tuple[Definition, ...]]:
        """The active constraints that read a parameter: all critical ones, and as many others as are told."""
        constraints = self._gossip.state.constraints
        rows, needle = self._gossip.state.rows, name.encode()
        likely = [id_ for id_ in constraints if any(needle in cell.data for cell in rows.held(ADD, id_))]
        found = {id_: tuple(each for each in constraints.definitions(id_) if name in read_parameters(each)) for id_ in likely}
        readers = sorted((id_ for id_ in found if found[id_]), key=lambda id_: (not _is_critical(found[id_]), id_))
        critical = sum(_is_critical(found[id_]) for id_ in readers)
        return {id_: found[id_] for id_ in readers[: max(critical, MOST_EFFECTS)]}

    def _changed_values(self, name: str, on: Selector, value: Scalar | None) -> list[_ChangedValue]:
        """The values that a setting, or its removal, changes on known nodes."""
        parameters, text = self._gossip.state.parameters, str(on)
        settings = [each for each in parameters.settings(name) if each.text != text]
        if value is not None:
            settings.append(Setting(name, on, text, (SetValue(value, Dot(self._gossip.replica, 0), 0),)))
        found = [_ChangedValue(each, parameters.value(name, each), choose(name, settings, each)) for each in self._labels()]
        return [each for each in found if repr(each.before.value) != repr(each.after.value)]

    async def _of_parameter(
        self, name: str, changed: Sequence[_ChangedValue], readers: Mapping[str, Sequence[Definition]]
    ) -> tuple[EditEffect, ...]:
        found = list[EditEffect]()
        ends = time.monotonic() + LONGEST_ANALYSIS
        for id_, definitions in readers.items():
            edits, pairs = list[Edit](), dict[Pair, None]()
            for each in definitions:
                for change in changed:
                    if not each.applies_to(change.labels):
                        continue
                    if type(change.before.value) is not type(change.after.value):
                        edits.append(_undefined(each, name, change))
                        continue
                    others = self._values(read_parameters(each) - {name}, change.labels)
                    old, new = ({**others, name: bound} for bound in (change.before, change.after))
                    pairs[_bound(each, old), _bound(each, new)] = None
            if pairs and time.monotonic() < ends:
                edits.append(await self._analyse(list(pairs)[:MOST_SETTINGS]))
            if edits:
                found.append(_reported(id_, merge_edits(edits), definitions))
        return tuple(sorted(found, key=lambda each: each.id))


def _bound(definition: Definition, values: Mapping[str, Bound]) -> Definition:
    """The definition with these values in place of parameters."""
    when, clear = definition.when, definition.clear_when
    return definition._replace(when=when and bind(when, values), clear_when=clear and bind(clear, values))


def _undefined(definition: Definition, name: str, change: _ChangedValue) -> Edit:
    """The effect of a parameter that gets its first value, or loses it, or has one of another type: the values that were compared
    with it are compared no more, so the constraint may be unknown.
    """
    if change.before.value is None:
        return Edit((Part("when", Effect.UNDECIDED, why=f"param.{name} had no value"),))
    value = change.after.value
    why = f"without a value of param.{name} it is unknown"
    if value is not None:
        why = f"param.{name} = {literal(value)} is compared with other values than {literal(change.before.value)}"
    loosens = definition.if_unknown is not IfUnknown.VIOLATED
    return Edit((Part("when", Effect.LOOSENS if loosens else Effect.TIGHTENS, why=why),))


def _is_critical(definitions: Iterable[Definition]) -> bool:
    return any(each.severity is Severity.CRITICAL for each in definitions)


def _compared(pairs: Sequence[Pair], kinds: Mapping[str, str]) -> Edit:
    return merge_edits([compare_definitions(old, new, kinds) for old, new in pairs])


@cache
def _thread() -> ThreadPoolExecutor:
    """The thread of the solver."""
    return ThreadPoolExecutor(1, thread_name_prefix="constraint-crdt analysis")


def _reported(id_: str, edit: Edit, before: Iterable[Definition]) -> EditEffect:
    effect = edit.effect
    if effect is Effect.UNDECIDED and edit.loosens:
        effect = Effect.LOOSENS
    parts = tuple(
        EffectPart(
            field=each.field, effect=each.effect, text=each.text, example=None if each.example is None else dict(each.example)
        )
        for each in edit.parts
    )
    return EditEffect(id=id_, effect=effect, parts=parts, needs_loosen=edit.loosens and _is_critical(before))


def _refuse(effects: Iterable[EditEffect]) -> None:
    """Raise `LooseningRefused` for those that loosen a critical constraint."""
    loosened = {each.id: _loosening(each) for each in effects if each.needs_loosen}
    if loosened:
        raise LooseningRefused(loosened)


def _loosening(effect: EditEffect) -> str:
    return "; ".join(each.text for each in effect.parts if each.effect in (Effect.LOOSENS, Effect.BOTH))


# --- decisions --------------------------------------------------------------------------------------------------------------


class Decisions:
    """Decisions by the constraints of a node, and the last of them."""

    def __init__(
        self,
        node: str,
        decide: Callable[[Mapping[str, object]], Awaitable[list[list[Ruling]]]],
        *,
        disabled: Callable[[], int],
        now: Callable[[], int],
        kept: int,
    ) -> None:
        """`decide`: see `Evaluator.decide`. `disabled`: the number of disabled constraints. `now`: the time in ns since the epoch.

        `kept`: the number of decisions to be kept.
        """
        self._node = node
        self._decide = decide
        self._disabled = disabled
        self._now = now
        self._most = kept
        self._boot = secrets.token_hex(4)
        self._made = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def make(self, values: Mapping[str, object], actor: str) -> DecisionReport:
        """Decide, and keep the decision. O(constraints that apply here)."""
        values = flattened(values)
        decided, given = await self._decide(values), _variables(values)
        rulings = [_gravest(each) for each in decided]
        windows = {name for each in decided for ruling in each for name in ruling.windows if name.partition(".")[0] in given}
        found = [_ruling_report(each, values) for each in rulings if each.outcome.verdict is not Verdict.SATISFIED]
        found.sort(key=lambda each: (not each.forbids, -Severity(each.severity).rank, each.constraint))
        violated = [each for each in found if each.verdict == Verdict.VIOLATED.value]
        undecided = [each for each in found if each.verdict == Verdict.UNKNOWN.value]
        self._made += 1
        report = DecisionReport(
            id=f"{self._boot}-{self._made:08d}",
            time=self._now(),
            node=self._node,
            actor=actor,
            allowed=not any(each.forbids for each in found),
            values={name: value_text(value) for name, value in values.items()},
            violated=tuple(violated[:MOST_RULINGS]),
            violated_in_all=len(violated),
            undecided=tuple(undecided[:MOST_RULINGS]),
            undecided_in_all=len(undecided),
            satisfied=len(rulings) - len(found),
            windows=tuple(sorted(windows)),
            disabled=self._disabled(),
        )
        self._keep(report)
        return report

    def _keep(self, report: DecisionReport) -> None:
        data = self._kept[report.id] = msgspec.msgpack.encode(report)
        self._bytes += len(data)
        while len(self._kept) > self._most or self._bytes > DECISION_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1])

    @property
    def ids(self) -> list[str]:
        """The ids of the kept decisions, the newest last."""
        return list(self._kept)

    def reports(self, ids: Sequence[str]) -> list[DecisionReport]:
        """Those of these decisions that are still kept."""
        return [_read_decision(self._kept[id_]) for id_ in ids if id_ in self._kept]


_read_decision = msgspec.msgpack.Decoder(DecisionReport).decode


def _gravest(rulings: Sequence[Ruling]) -> Ruling:
    """Of several rulings, the first that forbids, else that with the gravest verdict."""
    return min(rulings, key=lambda each: (not _forbids(each), GRAVITY.index(each.counts_as), GRAVITY.index(each.outcome.verdict)))


def _forbids(ruling: Ruling) -> bool:
    """True for a definition of mode enforce that counts as violated."""
    return ruling.counts_as is Verdict.VIOLATED and ruling.definition.mode is Mode.ENFORCE


def _variables(values: Mapping[str, object]) -> set[str]:
    """The top-level variables of given values."""
    return {variable_of(name).partition(".")[0] for name in values}


def _ruling_report(ruling: Ruling, values: Mapping[str, object]) -> RulingReport:
    margin = ruling.margin
    given = _variables(values)
    return RulingReport(
        constraint=ruling.constraint,
        severity=ruling.definition.severity.value,
        when=ruling.definition.when,
        verdict=ruling.outcome.verdict.value,
        counts_as=ruling.counts_as.value,
        mode=ruling.definition.mode.value,
        forbids=_forbids(ruling),
        reason=ruling.outcome.reason,
        missing=ruling.missing,
        margin=margin.value if margin else None,
        margin_share=margin.share if margin else None,
        margin_variable=margin.variable if margin else None,
        reads=tuple(sorted(ruling.read & given)),
        windows=tuple(sorted(name for name in ruling.windows if name.partition(".")[0] in given)),
    )


class NodeOverview:
    """Reads; changes nothing."""

    def __init__(self, gossip: GossipNode, rates: NodeRates, evaluations: Evaluations, evidence: Evidence) -> None:
        self._gossip = gossip
        self._rates = rates
        self._evaluations = evaluations
        self._evidence = evidence
        self._lately: tuple[float, LatelyReport] | None = None

    def page(
        self, after: str | None = None, limit: int = OVERVIEW_PAGE, node: str | None = None, *, urgent: bool = False
    ) -> OverviewReport:
        """The constraints after `after`, `limit` at most.

        `node`: only the constraints with recent evaluations or a verdict of this node, and only these. `urgent`: only the
        constraints told as violated or unknown by a node.
        """
        constraints, verdicts = self._gossip.state.constraints, self._gossip.state.verdicts
        told = verdicts.node(node) if node is not None else {}
        if urgent:
            here = {id_ for id_, each in told.items() if each.state in _URGENT}
            chosen = {*verdicts.violated, *verdicts.unknown} if node is None else here
        else:
            chosen = set(constraints) if node is None else self._rates.evaluated_by(node) | told.keys()
        ids = sorted(chosen.intersection(constraints))
        start = 0 if after is None else bisect_right(ids, after)
        wanted = ids[start : start + limit]
        last = wanted[-1] if start + limit < len(ids) and wanted else None
        return self._report(wanted, len(constraints), last, node=node)

    def of(self, ids: Iterable[str]) -> OverviewReport:
        """These constraints with their coverage. Inactive constraints are left out."""
        constraints = self._gossip.state.constraints
        wanted = [id_ for id_ in sorted(set(ids)) if id_ in constraints]
        return self._report(wanted, len(constraints), None, clocks=self._clocks())

    def lately(self) -> LatelyReport:
        """See `LatelyReport`. A slow report is cached: readers take a twentieth of the loop's time at most."""
        now = time.monotonic()
        if self._lately is None or now >= self._lately[0]:
            report = LatelyReport(half_life=self._rates.half_lives[0], by_node=self._rates.by_node())
            took = time.monotonic() - now
            self._lately = now + took * (SHARE_OF_LOOP + 1), report
        return self._lately[1]

    def _report(
        self,
        ids: Sequence[str],
        total: int,
        last: str | None,
        *,
        node: str | None = None,
        clocks: Sequence[Clock | None] | None = None,
    ) -> OverviewReport:
        with self._gossip.time.held():
            every = tuple(self._one(id_, node, clocks) for id_ in ids)
        return OverviewReport(
            half_lives=self._rates.half_lives,
            total=total,
            next=last,
            constraints=every,
        )

    def _one(self, id_: str, node: str | None, clocks: Sequence[Clock | None] | None) -> ConstraintOverview:
        state = self._gossip.state
        additions = sorted(state.constraints.additions(id_), key=lambda each: -each.definition.severity.rank)
        definitions = [each.definition for each in additions]
        by_now = state.rollouts.staged(id_, tuple(definitions), self._gossip.labels)
        ends = [each.expires_at for each in definitions if each.expires_at is not None]
        first, counts, last = definitions[0], state.metrics.constraint(id_), self._evaluations.last(id_)
        lately = [self._rates.of(id_, half_life, node) for half_life in self._rates.half_lives]
        told = {name: each for name, each in self._told_now(id_, last).items() if node in (None, name)}
        now = {name: each for name, each in told.items() if each.state in VIOLATED_STATES}
        violated = {name: rate.violated for name, rate in lately[0].by_node.items() if name in now or rate.violated > NOTICED}
        violated |= {name: 0.0 for name in now if name not in violated}
        return ConstraintOverview(
            id=id_,
            when=first.when,
            severity=first.severity.value,
            about=first.about,
            on=dict(first.on),
            added_by=additions[0].dot.replica.node_id,
            added_at=additions[0].added_at,
            expires_at=max(ends) if len(ends) == len(definitions) else None,
            **reported_fields(first),
            applies_here=any(each.applies_to(self._gossip.labels) for each in definitions),
            definitions=len({each.without_end() for each in definitions}),
            satisfied=counts.satisfied,
            violations=counts.violated,
            verdict=last.verdict.value if last else None,
            reason=last.reason if last else "",
            lately=tuple((_short(rate.satisfied), _short(rate.violated)) for rate in lately),
            evaluated_on=_evaluating(lately[0]),
            violated_now=len(now),
            violated_since=min((each.since for each in now.values()), default=None),
            violated_on=len(violated),
            worst=tuple(sorted(violated, key=lambda name: (name not in now, -violated[name], name))[:NAMED]),
            longest=_longest(now or told),
            unknown_now=len(told) - len(now),
            state=DISABLED if id_ in state.switches else state_here(last, by_now, self._gossip.labels),
            since=self._evaluations.since(id_) if last else None,
            by_default=last is not None and last.by_default,
            **reported_time(state.metrics.time(id_).plus(self._evaluations.times(id_))),
            covered=None if clocks is None else _covered([(each.dot.replica, each.dot.seq) for each in additions], clocks),
        )

    def _told_now(self, id_: str, last: Evaluation | None) -> dict[str, NodeVerdict]:
        """The nodes on which a constraint is violated or unknown, with their verdicts; for this node from its own evaluations.

        A node without the variables of a constraint does not tell that it is unknown there, and is left out.
        """
        me, told = self._gossip.node_id, self._gossip.state.verdicts.of(id_)
        found = {name: each for name, each in told.items() if each.state in _URGENT and name != me}
        if found and self._evaluations.writer(id_) is not None:
            found = {name: each for name, each in found.items() if self._evidence.is_seen(name)}
        if last is not None and (last.state in VIOLATED_STATES or (last.state is VerdictState.UNKNOWN and me in told)):
            own = self._evaluations.verdict(id_)
            if own is not None:
                found[me] = own
        return found

    def _clocks(self) -> list[Clock | None]:
        """The last clock of each other node of the fleet; None without evidence."""
        others = (name for name in self._evidence.names if name != self._gossip.node_id)
        peers = map(self._gossip.tracker.peer, others)
        return [None if peer is None or peer.mark is None else peer.mark.entries for peer in peers]


def _longest(told: Mapping[str, NodeVerdict]) -> tuple[ViolatedNode, ...]:
    named = sorted(told, key=lambda name: (told[name].since, name))[:NAMED]
    return tuple([ViolatedNode(node=name, **reported_verdict(told[name])) for name in named])


def _evaluating(rate: ConstraintRate) -> int:
    return sum(each.satisfied + each.violated > NOTICED for each in rate.by_node.values())


def _covered(dots: Sequence[tuple[Replica, int]], clocks: Sequence[Clock | None]) -> tuple[int, int, int]:
    have = lack = unknown = 0
    for clock in clocks:
        if clock is None:
            unknown += 1
        elif all(clock.get(replica, 0) >= seq for replica, seq in dots):
            have += 1
        else:
            lack += 1
    return have + 1, lack, unknown


def _short(number: float) -> float:
    """Enough digits for a screen."""
    return float(f"{number:.4g}")
