"""Judgement: the constraints of a state against the measurements of a node, over time. Pure: times are arguments.

A constraint is *judged* when something that it reads has a new sample, when it is new or redefined, and on request. Each judgement
counts once. A *look* moves the verdict state in time without counting: while `for` or `clear_after` runs, when a value passes its
maximum age, and at each tick for expressions that read windows.

Rules kept here:

- A sample is judged once. So counts do not depend on how often a node looks. The truth between samples is time: the seconds
  satisfied, violated and unknown of a constraint add up to the time since its first judgement.
- Each definition in force has its own `Spell`, since each has its own `for`. The states are combined for the constraint.
- An edit of the expression or of a field of time starts anew; an edit of severity, text or labels does not.
- An index from variables to constraints bounds the work of a sample by the constraints that read the variable.
- A definition is evaluated with the values of the parameters in place of their names, which are put there once per change of a
  value. Another value goes on with the same spell. A parameter without a value leaves what depends on it unknown, for its reason.
- A definition with `each` has a spell for each instance (`_EachRule`). A sample judges the instances that it touches; all are
  judged once a value is too old, at ticks with windows, and by a check. An instance that is no longer measured is dropped with
  its spell. The state of the definition is the most severe of its instances, its verdict the gravest.
- A constraint of scope fleet is judged when something that it reads of the nodes moved (`judge_fleet`). Each node judges it, by its
  own view of the fleet; its counts, its time and its cell are those of the node that `writes` names.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from itertools import chain, islice
from typing import NamedTuple, Protocol

import msgspec

from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.expression.cel import ExpressionError, Measurements, Outcome, Verdict, by_default
from constraint_crdt.expression.evaluation import (
    COMPILED_EXPRESSIONS_KEPT,
    GRAVITY,
    Evaluation,
    Expression,
    compile_expression,
    condition_outcome,
    evaluable,
    expressions_of,
    needs_library,
    outcome_of,
)
from constraint_crdt.expression.fleet_view import Basis, FleetCondition, FleetView
from constraint_crdt.expression.measurements import (
    FOREVER,
    InstanceValues,
    Touched,
    missing_instances,
    named,
    requirements,
    series_of,
    top_of,
)
from constraint_crdt.expression.temporal import (
    DefinitionKey,
    Margin,
    OpenSpell,
    SavedSpells,
    Spell,
    StateSince,
    TimeRules,
    encode_spells,
    margin,
    open_spells,
    severity_of,
    together,
    wall_time,
)
from constraint_crdt.model import Mode, Scope, VerdictState
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.orset import ConstraintORSet, Switches
from constraint_crdt.types.parameters import PARAM, BoundDefinition
from constraint_crdt.types.verdicts import VIOLATED_STATES, NodeVerdict, input_texts, shortened_inputs


class Values(Protocol):
    """The measured values of a node."""

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements:
        """The values of these top-level variables at a time, in ns of a monotonic clock. `max_age` in ns; None: each variable's."""

    def read_each(
        self, names: Collection[str], label: str, now: int, max_age: int | None = None, only: Collection[str] | None = None
    ) -> dict[str, InstanceValues]:
        """The values of each instance by this label that has a value of its own now. `only`: of these instances; None: of all."""


Milliseconds = tuple[int, int, int]
"""Time satisfied, violated and unknown, in ms."""


READ_TOGETHER = 64
"""Constraints whose variables are read at once. The library looks a variable up more slowly among many."""


class Turn(NamedTuple):
    """A change of the verdict state of a constraint on this node."""

    constraint: str
    before: VerdictState
    after: VerdictState

    @property
    def began(self) -> bool:
        """True if a violation began."""
        return self.before not in VIOLATED_STATES and self.after in VIOLATED_STATES

    @property
    def ended(self) -> bool:
        """True if the constraint held again after a violation."""
        return self.before in VIOLATED_STATES and self.after is VerdictState.HOLDS


class Ruling(NamedTuple):
    """The outcome of a definition for given values. The constraint was not judged."""

    constraint: str
    definition: Definition
    outcome: Outcome
    counts_as: Verdict
    """The verdict with `if_unknown`."""
    margin: Margin | None
    """None also where the definition is satisfied."""
    missing: tuple[str, ...]
    """The variables without a usable value, of an undecided outcome."""
    read: frozenset[str]
    """The top-level variables that the definition reads; of scope fleet, those that nodes share. Empty where it is satisfied."""
    windows: Set[str]
    """The variables of which the constraint reads the samples of a time."""


_SUSPENDED = MAX_COUNT
"""The gap between two looks that a spell takes. A node that did not look calls `suspend` instead."""


def _key(definition: Definition) -> DefinitionKey:
    return DefinitionKey(
        definition.when or "", definition.for_, definition.clear_after, definition.clear_when, definition.if_unknown,
        definition.scope, definition.each,
    )  # fmt: skip


class _Rule:
    """A definition in force on this node, with its verdict state."""

    __slots__ = (
        "bound", "by_default", "clear", "compiled", "definition", "fleet", "outcome", "parameters", "reason", "spell",
        "times", "values", "verdict",
    )  # fmt: skip

    def __init__(self, definition: Definition, spell: Spell, bound: BoundDefinition, compiled: Expression | None) -> None:
        """`bound`, `compiled`: see `take`."""
        self.definition = definition
        self.take(bound, compiled)
        self.fleet: FleetCondition | None = None
        """The conditions of a definition of scope fleet."""
        self.spell = spell
        self.times = TimeRules(definition.for_, definition.clear_after, _SUSPENDED)
        self.outcome = _NOT_JUDGED
        self.verdict = self.clear = Verdict.UNKNOWN
        self.by_default = False
        self.values: Measurements | None = None
        """The values of the last judgement, but for a definition that holds."""

    def take(self, bound: BoundDefinition, compiled: Expression | None) -> None:
        """Take over the values of the parameters. `compiled`: the `when` with them; None for a definition that does not compile
        here, and beyond the number of cached expressions for a `when` that the library evaluates: a program takes some 4 KB.
        """
        self.bound, self.parameters, self.reason = bound.definition, bound.values, bound.reason
        self.compiled = compiled

    def judge(self, values: Measurements, now: int) -> None:
        """Evaluate the definition, and move its state."""
        definition, compiled, fleet = self.bound, self.compiled, self.fleet
        if fleet is not None:
            outcome = fleet.outcome()
        else:
            outcome = outcome_of(definition, values) if compiled is None else compiled.evaluate(values)
        self.settle(outcome, values, now)

    def settle(self, outcome: Outcome, values: Measurements, now: int) -> None:
        """Move the state by an outcome of these values."""
        definition, fleet = self.bound, self.fleet
        self.outcome = outcome = _with_reason(self, outcome)
        verdict = outcome.verdict
        if verdict is Verdict.UNKNOWN:
            verdict = by_default(verdict, definition.if_unknown)
        self.by_default = verdict is not outcome.verdict
        self.verdict = self.clear = verdict
        if verdict is Verdict.SATISFIED and definition.clear_when is not None and self.spell.needs_clear:
            clear = condition_outcome(definition.clear_when, values) if fleet is None else fleet.clear_outcome()
            self.clear = by_default(clear.verdict, definition.if_unknown)
        state = self.spell.look(verdict, now, self.times, self.clear)
        self.values = None if state is VerdictState.HOLDS or fleet is not None else values

    def goes_on(self, satisfied: Callable[[Measurements], bool], values: Measurements, now: int) -> bool:
        """Look at a definition that holds. True if it goes on to hold by these values, the frequent case; else nothing is done."""
        spell = self.spell
        if (
            spell.state is not VerdictState.HOLDS
            or self.outcome.verdict is not Verdict.SATISFIED
            or not 0 <= now - spell.at <= _SUSPENDED
            or not satisfied(values)
        ):
            return False
        spell.satisfied += now - spell.at
        spell.at = now
        return True

    def margin(self, values: Measurements) -> Margin | None:
        """The distance to the threshold."""
        definition = self.bound
        if self.fleet is not None:
            return self.fleet.margin()
        if definition.meaning or not definition.when:
            return None
        try:
            return margin(compile_expression(definition.when, checked=False), values)
        except ExpressionError:
            return None

    def look(self, now: int) -> None:
        """Move the state in time, without another outcome."""
        self.spell.look(self.verdict, now, self.times, self.clear)

    def suspend(self, at: int) -> None:
        """Nothing is known from this time on."""
        self.spell.look(Verdict.UNKNOWN, at, self.times)

    @property
    def state(self) -> StateSince:
        """The state, and its begin."""
        return StateSince(self.spell.state, self.spell.since)

    def spells(self) -> dict[DefinitionKey, Spell]:
        """The spells, by the fields that identify them."""
        return {_key(self.definition): self.spell}


class _EachRule(_Rule):
    """A definition with `each` in force on this node, with the verdict state of each instance.

    Its own spell is its state while there is no instance.
    """

    __slots__ = (
        "_combined", "_gravest", "_moved", "_names", "_resume", "_satisfied", "_shown", "_until", "label", "members", "turned",
    )  # fmt: skip

    def __init__(
        self,
        definition: Definition,
        bound: BoundDefinition,
        compiled: Expression | None,
        resume: Callable[[DefinitionKey, int], Spell],
        now: int,
    ) -> None:
        """`resume`: gives the spell of the time before a restart, or a new spell."""
        self.members: dict[str, _Rule] = {}
        self.label = definition.each or ""
        self._resume = resume
        super().__init__(definition, resume(_key(definition), now), bound, compiled)
        self._until = FOREVER
        """The time after which a value of an instance is too old."""
        self._moved = False
        """An instance came, went or turned since they were combined."""
        self.turned = False
        """The same since the judge last looked."""
        self._combined = StateSince(self.spell.state, self.spell.since)
        self._gravest = self._shown = ""

    def take(self, bound: BoundDefinition, compiled: Expression | None) -> None:
        super().take(bound, compiled)
        names = (name.partition(".")[0] for each in expressions_of(bound.definition) for name in each.variables)
        self._names = frozenset(names)
        self._satisfied = _never if compiled is None else compiled.satisfied_by
        for member in self.members.values():
            member.definition = self.definition
            member.take(bound, compiled)

    def judge_each(self, values: Values, now: int, touched: Touched | None, since: int | None = None) -> None:
        """Evaluate the instances with a new sample, and move their states. `touched`: None for all. `since`: of all, those not
        looked at after this time.
        """
        only = None if now > self._until else self._chosen(touched, since)
        if only is not None and not only:
            return
        found, there = values.read_each(self._names, self.label, now, self.definition.max_age, only), only
        if there is None:
            there, self._until = tuple(self.members), FOREVER
        for name in there:
            if name not in found and self.members.pop(name, None) is not None:
                self._moved = True
        if not found and not self.members:
            self._judge_none(now)
        members, satisfied, ends = self.members, self._satisfied, self._until
        for name, (read, until) in found.items():
            member = members.get(name)
            if member is None or not member.goes_on(satisfied, read, now):
                self._judge_instance(name, read, now)
            if until < ends:
                ends = until
        self._until = ends
        self._combine()

    def _chosen(self, touched: Touched | None, since: int | None) -> Collection[str] | None:
        """The instances to be evaluated; None: all."""
        if touched is not None:
            return touched.instances(self._names, self.label)
        if since is None or not self.members:
            return None
        return [name for name, member in self.members.items() if member.spell.at <= since]

    def _judge_none(self, now: int) -> None:
        """There is no instance."""
        if self._gravest:
            self.spell = Spell.new(now)
        self.settle(Outcome(Verdict.UNKNOWN, missing_instances(self.label)), _EMPTY, now)
        self._moved = True

    def _judge_instance(self, name: str, read: Measurements, now: int) -> None:
        member = self.members.get(name)
        if member is None:
            spell, bound = self._resume(_instance_key(self.definition, name), now), BoundDefinition(self.bound, self.parameters)
            member = self.members[name] = _Rule(self.definition, spell, bound, self.compiled)
            self._moved = True
        spell = member.spell
        before = spell.state, spell.since, member.verdict
        member.judge(read, now)
        self._moved |= before != (spell.state, spell.since, member.verdict)

    def _combine(self) -> None:
        """Take the state of the most severe instance, and the verdict of the gravest."""
        members = self.members
        if self._moved:
            self._moved, self.turned = False, True
            self._combined = together([each.spell for each in members.values()] or [self.spell])
            self._gravest = min(members, key=lambda name: (_gravity(members[name]), *_severity(members[name], name)), default="")
            self._shown = self.order()[0] if members else ""
        if not members:
            return
        gravest = members[self._gravest]
        self.verdict, self.by_default = gravest.verdict, gravest.by_default
        reason = "" if self._combined.state is VerdictState.HOLDS else named(self.label, self._gravest, gravest.outcome.reason)
        self.outcome = Outcome(gravest.outcome.verdict, reason)
        self.values = members[self._shown].values

    def order(self) -> list[str]:
        """The instances, the worst first: by the severity of the state, its begin, and the name."""
        return sorted(self.members, key=lambda name: _severity(self.members[name], name))

    def look(self, now: int) -> None:
        if not self.members:
            super().look(now)
            self._moved = True
        for member in self.members.values():
            if member.spell.state in _RUNNING:
                before = member.spell.state, member.spell.since
                member.look(now)
                self._moved |= before != (member.spell.state, member.spell.since)
        self._combine()

    def suspend(self, at: int) -> None:
        super().suspend(at)
        for member in self.members.values():
            member.suspend(at)
        self._moved = True

    @property
    def runs(self) -> bool:
        """True while a clock of `for` or `clear_after` of an instance runs. O(instances) unless all hold."""
        if self._combined.state in (VerdictState.HOLDS, VerdictState.UNKNOWN):
            return False
        return any(each.state.state in _RUNNING for each in self.members.values()) or self.spell.state in _RUNNING

    @property
    def state(self) -> StateSince:
        return self._combined

    def spells(self) -> dict[DefinitionKey, Spell]:
        found = {_instance_key(self.definition, name): each.spell for name, each in self.members.items()}
        return found or super().spells()

    @property
    def gravest(self) -> str:
        """The instance with the gravest verdict, as a reason names it."""
        return named(self.label, self._gravest, "")

    def shown(self) -> tuple[str, _Rule] | None:
        """The worst instance; None without any."""
        return (self._shown, self.members[self._shown]) if self.members else None


def _instance_key(definition: Definition, name: str) -> DefinitionKey:
    return msgspec.structs.replace(_key(definition), instance=name)


def _severity(rule: _Rule, name: str) -> tuple[int, int, str]:
    return severity_of(rule.spell.state), rule.spell.since, name


class InstanceVerdict(NamedTuple):
    """The verdict of an instance."""

    instance: str
    verdict: NodeVerdict


class Instances(NamedTuple):
    """The instances of a constraint on this node."""

    label: str
    total: int
    violated: int
    """Those violated or clearing."""
    unknown: int
    worst: list[InstanceVerdict]
    """The first of them, the most severe first."""


def _never(_: Measurements) -> bool:
    return False


_EMPTY = Measurements({}, {})
_NOT_JUDGED = Outcome(Verdict.UNKNOWN, "not evaluated yet")


class _Judged:
    """A constraint with definitions that apply to this node."""

    __slots__ = (
        "added_to", "began", "each", "evaluation", "id", "known", "looked", "parameters", "quick", "rules", "since",
        "spans", "spent", "timed", "tops", "variables", "verdict", "windowed",
    )  # fmt: skip

    def __init__(self, id_: str, rules: tuple[_Rule, ...]) -> None:
        self.id = id_
        self.rules = rules
        self.each = tuple(rule for rule in rules if isinstance(rule, _EachRule))
        """The definitions with instances."""
        expressions = [each for rule in rules for each in expressions_of(rule.bound)]
        self.parameters = frozenset[str]().union(*(rule.parameters for rule in rules))
        names = frozenset[str]().union(*(each.variables for each in expressions))
        self.variables = frozenset(name.partition(".")[0] for name in names)
        """The top-level names, which measured fields belong to."""
        self.tops = self.variables.union(series_of(name, rule.label) for rule in self.each for name in self.variables)
        """The keys of the measurements that it reads, see `instances.top_of`."""
        self.spans = requirements(expressions)
        """The windows, in ns, by variable."""
        self.timed = bool(self.spans) or any(rule.definition.max_age is not None and rule.fleet is None for rule in rules)
        self.verdict = Verdict.UNKNOWN
        self.evaluation = Evaluation(id_, Verdict.UNKNOWN, _NOT_JUDGED.reason)
        self.known = False
        """True once the constraint was decided here, or there was a sample of a variable of it."""
        self.looked: int | None = None
        self.added_to = 0
        """The time up to which `spent` is added up: the last look or later."""
        self.since: int | None = None
        """The begin of the verdict state."""
        self.began: int | None = None
        """The same in ns since the epoch, once it was asked for: steps of the clock do not move it."""
        self.spent = [0, 0, 0]
        """ns satisfied, violated, unknown, not taken yet."""
        only = rules[0] if len(rules) == 1 and not self.each and rules[0].fleet is None else None
        only = None if only is None or only.definition.max_age is not None else only
        self.quick = None if only is None or only.compiled is None else only.compiled.decides
        """Decides comparisons, of a constraint with a single definition."""
        self.windowed = None if only is None or only.compiled is None else only.compiled.window_comparisons
        """The same for comparisons of windows."""

    def bands(self) -> Mapping[str, tuple[float, float]] | None:
        """Of a constraint that holds, the numbers by which it goes on to; None where these are not known."""
        rule = self.rules[0]
        if self.quick is None or rule.compiled is None or self.evaluation.state is not VerdictState.HOLDS:
            return None
        return rule.compiled.bands() if self.verdict is Verdict.SATISFIED and rule.outcome.verdict is Verdict.SATISFIED else None

    def goes_on(self, values: Measurements, now: int) -> bool:
        """Look at a constraint that holds. True if it goes on to hold by these values, the frequent case; else nothing is done."""
        decides, windowed, rule = self.quick, self.windowed, self.rules[0]
        spell = rule.spell
        if (
            (decides is None and windowed is None)
            or spell.state is not VerdictState.HOLDS
            or rule.outcome.verdict is not Verdict.SATISFIED
            or self.verdict is not Verdict.SATISFIED
            or not self.added_to <= spell.at <= now
        ):
            return False
        if decides(values.plain) is not True if decides is not None else windowed is None or not windowed.holds(values):
            return False
        self.spent[0] += now - self.added_to
        self.looked = self.added_to = now
        spell.satisfied += now - spell.at
        spell.at = now
        return True

    def spend(self, now: int) -> None:
        """A look: add the time before it to the sum of the verdict then. A look back takes away the time added beyond it."""
        self.add_up(now)
        self.looked = now

    def add_up(self, now: int) -> None:
        """Add the time up to now to the sum of the verdict. No look: a reading does not change the result of the next look."""
        verdict = self.verdict
        if self.looked is not None:
            self.spent[0 if verdict is Verdict.SATISFIED else 1 if verdict is Verdict.VIOLATED else 2] += now - self.added_to
        self.added_to = now


class Judge:
    """Judges the active constraints of a state with definitions for this node."""

    def __init__(
        self,
        constraints: ConstraintORSet,
        values: Values,
        labels: Callable[[], Mapping[str, str]],
        wall: Callable[[], int],
        fleet: FleetView | None = None,
        writes: Callable[[str], bool] = lambda _: True,
        switches: Switches | None = None,
        bind: Callable[[Definition], BoundDefinition] = BoundDefinition,
        staged: Callable[[str, tuple[Definition, ...]], tuple[Definition, ...]] = lambda _, definitions: definitions,
    ) -> None:
        """`labels`: gives the labels of this node. `wall`: the time in ns since the epoch, for saved spells. `fleet`: the nodes for
        constraints of scope fleet; `writes`: whether this node writes the counts of such a constraint. `switches`: disabled
        constraints are not judged at all; a change of that is told by `redefine`. `bind`: gives a definition with the parameters of
        this node. `staged`: gives the definitions of this node, where other ones reach it by a rollout.
        """
        self._switches = Switches() if switches is None else switches
        self._fleet = FleetView(tuple, lambda _: None) if fleet is None else fleet
        self._fleet_seen = -1
        """The version of these nodes when `moved` was last asked."""
        self._writes = writes
        self.fleet_ids: set[str] = set()
        """The constraints with a definition of scope fleet."""
        self._constraints = constraints
        self._values = values
        self._labels = labels
        self._bind = bind
        self._staged = staged
        self.tallies: dict[str, int] = {}
        """Violated judgements of the constraints in it, which its reader chooses."""
        self._parameters: dict[str, set[str]] = {}
        """The constraints by the parameters that they read."""
        self._wall = wall
        self._judged: dict[str, _Judged] = {}
        self._readers: dict[str, set[str]] = {}
        self._read_by: tuple[tuple[str, ...], list[str]] | None = None
        self._read_one: dict[str, list[str]] = {}
        """The constraints, ordered, by the variables that were measured alone."""
        self._beside: tuple[list[str], frozenset[str]] | None = None
        """The last answer of `readers`: variables are measured together again and again."""
        self._stale: dict[str, None] = dict.fromkeys(constraints)
        self._running: set[str] = set()
        self._timed: set[str] = set()
        self._saved = SavedSpells()
        self._counts: dict[str | None, tuple[int, int]] = {}
        self._unknown: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._turns: list[Turn] = []
        self._checked: dict[str, None] = {}
        self._left: dict[str, list[int]] = {}
        self._spans_changed = False
        self._looked = self._looked_before = 0
        self.audited: set[str] = set()
        """The active constraints of mode audit, also those that do not apply here."""
        self._violated: set[str] = set()
        self._undecided: set[str] = set()
        self.turns = 0
        """The turns of states since the start; a new spell of the same state counts as a turn."""

    def __len__(self) -> int:
        return len(self._judged)

    def __repr__(self) -> str:
        return f"Judge({len(self._judged)} constraints)"

    # --- definitions -------------------------------------------------------------------------------------------------------

    def redefine(self, ids: Iterable[str]) -> None:
        """The definitions in force of these constraints changed."""
        for id_ in ids:
            self._stale[id_] = None

    def set_parameter(self, name: str) -> bool:
        """The settings of a parameter changed. True if a constraint reads it."""
        ids = self._parameters.get(name, _NONE)
        self.redefine(ids)
        return bool(ids)

    def stale(self, most: int) -> list[str]:
        """At most so many constraints that are new or redefined, in the order of the changes: to be given to `renew`."""
        return list(islice(self._stale, most))

    def need_library(self, ids: Iterable[str]) -> bool:
        """True if any of these constraints has an expression that is not made of comparisons. O(definitions)."""
        definitions = (self._bind(each).definition for each in chain.from_iterable(map(self._definitions, ids)))
        return any(needs_library(text) for each in definitions for text in (each.when, each.clear_when))

    def renew(self, ids: Iterable[str], now: int) -> list[str]:
        """Read the definitions of new or redefined constraints. Returns those that have to be judged."""
        fresh = []
        for id_ in ids:
            self._stale.pop(id_, None)
            if self._read(id_, now):
                fresh.append(id_)
        return fresh

    def _read(self, id_: str, now: int) -> bool:
        """Read the definitions of a constraint. True if any of them is new here."""
        before = self._drop(id_, now)
        labels = self._labels()
        definitions = self._definitions(id_)
        was_audited = id_ in self.audited
        if definitions and all(each.mode is Mode.AUDIT for each in definitions):
            self.audited.add(id_)
        else:
            self.audited.discard(id_)
        if self._switches.disabled and id_ in self._switches:
            definitions = ()
        applying = [each for each in definitions if evaluable(each) and each.applies_to(labels)]
        keyed = {(_key(each), each.max_age): each for each in applying}
        if not keyed:
            self._leave(id_, before)
            return False
        known = {(_key(rule.definition), rule.definition.max_age): rule for rule in before.rules} if before else {}
        edited = {key: rule for (key, max_age), rule in known.items() if (key, max_age) not in keyed}
        rules, anew = [], before is None or {key for key, _ in keyed} != {key for key, _ in known}
        for (key, max_age), definition in keyed.items():
            rule = known.get((key, max_age)) or edited.pop(key, None)
            if rule is None:
                bound, resume = self._bind(definition), partial(self._resume, id_)
                compiled = self._compiled(bound.definition)
                if definition.each is None:
                    rule = _Rule(definition, resume(key, now), bound, compiled)
                else:
                    rule = _EachRule(definition, bound, compiled, resume, now)
                anew = True
            anew |= self._follow(rule, definition)
            rules.append(rule)
        judged = _Judged(id_, tuple(rules))
        self._index(judged, before)
        if was_audited and id_ not in self.audited and judged.evaluation.state in VIOLATED_STATES:
            self._turns.append(Turn(id_, VerdictState.HOLDS, judged.evaluation.state))  # it is told from now on
        if not anew and keyed.keys() != known.keys():
            self._checked[id_] = None  # by the edited maximum age, a value can be there again
        return anew

    def _definitions(self, id_: str) -> tuple[Definition, ...]:
        """The definitions of a constraint that are in force on this node, if they apply to it."""
        return self._staged(id_, self._constraints.definitions(id_))

    def _resume(self, id_: str, key: DefinitionKey, now: int) -> Spell:
        return self._saved.resume(id_, key, now, self._wall())

    def _follow(self, rule: _Rule, definition: Definition) -> bool:
        """Have a rule follow the edits of its definition, and the parameters. True for a rule that has other values of these, or
        goes through other nodes of the fleet from now on.
        """
        before, rule.definition = rule.definition, definition
        bound, last = self._bind(definition), rule.bound
        again = (bound.definition.when, bound.definition.clear_when) != (last.when, last.clear_when) or bound.reason != rule.reason
        rule.take(bound, self._compiled(bound.definition) if again else rule.compiled)
        same = not again and before.selector == definition.selector and before.max_age == definition.max_age
        if definition.scope is not Scope.FLEET or (rule.fleet is not None and same):
            return again
        rule.fleet = FleetCondition(bound.definition, self._fleet.nodes(definition.max_age))
        rule.fleet.refresh()
        return True

    def _compiled(self, definition: Definition) -> Expression | None:
        if definition.meaning or definition.scope is Scope.FLEET:
            return None
        try:
            compiled = compile_expression(definition.when or "", checked=False)
        except ExpressionError:
            return None
        return compiled if compiled.is_comparisons or len(self._judged) < COMPILED_EXPRESSIONS_KEPT else None

    def _index(self, judged: _Judged, before: _Judged | None) -> None:
        self._judged[judged.id] = judged
        self._read_by = self._beside = None
        self._read_one.clear()
        for name in judged.tops:
            self._readers.setdefault(name, set()).add(judged.id)
        for name in judged.parameters:
            self._parameters.setdefault(name, set()).add(judged.id)
        if judged.timed:
            self._timed.add(judged.id)
        if any(rule.fleet for rule in judged.rules):
            self.fleet_ids.add(judged.id)
        self._spans_changed |= bool(judged.spans)
        if before is None:
            self._begin(judged)
        else:
            judged.spent, judged.looked, judged.added_to = before.spent, before.looked, before.added_to
            judged.verdict, judged.evaluation, judged.known = before.verdict, before.evaluation, before.known
            judged.since, judged.began = before.since, before.began
        self._sort(judged)

    def _begin(self, judged: _Judged) -> None:
        """Begin in the states of the spells: a spell that goes on after a restart is no turn."""
        state, judged.since = together(rule.state for rule in judged.rules)
        judged.evaluation = judged.evaluation._replace(state=state)

    def _sort(self, judged: _Judged) -> None:
        """Put a constraint into the sets of its state, and out of the others."""
        state = judged.evaluation.state
        for ids, belongs in (
            (self._violated, state in VIOLATED_STATES),
            (self._undecided, state is VerdictState.UNKNOWN),
            (self._running, state in _RUNNING or any(rule.runs for rule in judged.each)),
        ):
            if belongs:
                ids.add(judged.id)
            else:
                ids.discard(judged.id)

    def _drop(self, id_: str, now: int) -> _Judged | None:
        judged = self._judged.pop(id_, None)
        if judged is None:
            return None
        judged.add_up(now)
        self._read_by = self._beside = None
        self._read_one.clear()
        self._spans_changed |= bool(judged.spans)
        for name in judged.tops:
            readers = self._readers[name]
            readers.discard(id_)
            if not readers:
                del self._readers[name]
        for name in judged.parameters:
            self._parameters[name].discard(id_)
            if not self._parameters[name]:
                del self._parameters[name]
        self._timed.discard(id_)
        self._running.discard(id_)
        self.fleet_ids.discard(id_)
        return judged

    def _leave(self, id_: str, judged: _Judged | None) -> None:
        """No definition applies any more."""
        self._unknown.pop(id_, None)
        if judged is not None:
            if judged.known:
                before = self._left.get(id_, [0, 0, 0])
                self._left[id_] = [spent + more for spent, more in zip(before, judged.spent, strict=True)]
            self._note(judged, Evaluation(id_, Verdict.UNKNOWN, "", VerdictState.OFF))

    def take_spans(self) -> dict[str, int] | None:
        """The longest window in ns of each variable with windows; None without a change since the last call."""
        if not self._spans_changed:
            return None
        self._spans_changed, spans = False, dict[str, int]()
        for id_ in self._timed:
            for name, span in self._judged[id_].spans.items():
                spans[name] = max(span, spans.get(name, 0))
        return spans

    # --- judging -----------------------------------------------------------------------------------------------------------

    def readers(self, names: Iterable[str]) -> list[str]:
        """The constraints that read any of these measurements, ordered."""
        names = tuple(names)
        if len(names) == 1 and (top := top_of(names[0])) in self._readers:
            if top not in self._read_one:
                self._read_one[top] = sorted(self._readers[top])
            return list(self._read_one[top])
        if self._read_by is None or self._read_by[0] != names:
            found = set[str]().union(*[self._readers.get(top_of(name), _NONE) for name in names])
            self._read_by = names, sorted(found)
        return list(self._read_by[1])

    def calm(self) -> dict[str, tuple[float, float]]:
        """The variables whose constraints all hold, each with the least and the greatest number by which they go on to.

        A sample within them turns nothing: it adds to the counts alone. O(constraints and their variables).
        """
        found: dict[str, tuple[float, float]] = {}
        restless: set[str] = set()
        for judged in self._judged.values():
            bands = judged.bands()
            if bands is None:
                restless |= judged.variables
                continue
            for name, (low, high) in bands.items():
                least, most = found.get(name, (low, high))
                found[name] = max(least, low), min(most, high)
        return {name: band for name, band in found.items() if name not in restless}

    def read_beside(self, names: Iterable[str]) -> frozenset[str]:
        """The variables of the constraints that read any of these, these among them."""
        ids = self.readers(names)
        if self._beside is None or self._beside[0] != ids:
            self._beside = ids, frozenset().union(*(self._judged[id_].variables for id_ in ids))
        return self._beside[1].union(names)

    def rests(self, now: int) -> bool:
        """True if `look` would move nothing, but for values that age: as if it was called. O(constraints with windows)."""
        if self._running or self._checked or self._stale or self.fleet_ids:
            return False
        if any((self._judged[id_].looked or 0) <= self._looked or self._judged[id_].each for id_ in self._timed):
            return False
        self._looked = now
        return True

    def is_known(self, id_: str) -> bool:
        """True once the constraint was decided here, or there was a sample of a variable of it."""
        judged = self._judged.get(id_)
        return judged is not None and judged.known

    def is_stale(self, id_: str) -> bool:
        """True for a new or redefined constraint that was not read yet."""
        return id_ in self._stale

    @property
    def ids(self) -> list[str]:
        """The constraints judged here, ordered."""
        return sorted(self._judged)

    def judge(self, ids: Iterable[str], now: int, values: Values | None = None, touched: Touched | None = None) -> list[Evaluation]:
        """Judge these constraints and count the results; constraints without a definition for this node are left out.

        `values`: in place of the node's, for this instant only: see `take_checked`. `touched`: the measurements with a new sample,
        of definitions with instances only the instances of these are judged; None: all.
        """
        evaluations = self._evaluate(ids, now, values or self._values, counted=True, touched=touched)
        if values is not None:
            self._checked.update((each.constraint, None) for each in evaluations)
        return evaluations

    def decide(
        self, ids: Iterable[str], now: int, values: Values, fleet: FleetView, given: Set[str] = frozenset()
    ) -> list[list[Ruling]]:
        """The rulings of these constraints' definitions on values: a list for each constraint. Nothing is counted, timed or kept.

        `fleet`: the nodes, a single node of them with given readings, for definitions that read any of the top-level variables
        `given`.
        """
        there = [self._judged[id_] for id_ in ids if id_ in self._judged]
        chosen = [each for each in there if not (self._constraints.ends and each.id not in self._constraints)]
        found = []
        for start in range(0, len(chosen), READ_TOGETHER):
            together = chosen[start : start + READ_TOGETHER]
            names = frozenset[str]().union(*[judged.variables for judged in together])
            read: dict[int | None, Measurements] = {}
            for judged in together:
                rulings = []
                for rule in judged.rules:
                    max_age = rule.definition.max_age
                    if rule.fleet is not None:
                        rulings.append(_fleet_ruling(judged.id, rule, rule.fleet, fleet, given))
                        continue
                    if isinstance(rule, _EachRule):
                        rulings.append(_worst_ruling(judged, rule, values.read_each(judged.variables, rule.label, now, max_age)))
                        continue
                    if max_age not in read:
                        read[max_age] = values.read(names, now, max_age)
                    rulings.append(_ruling(judged, rule, read[max_age]))
                found.append(rulings)
        return found

    def moved(self, now: int) -> list[str]:
        """The constraints of scope fleet that read something that moved since the last call, ordered. `now`: hybrid time."""
        self._fleet.refresh(now)
        if self._fleet_seen == self._fleet.version:
            return []
        self._fleet_seen = self._fleet.version
        fleet = {id_: [rule.fleet for rule in self._judged[id_].rules if rule.fleet] for id_ in self.fleet_ids}
        return sorted(id_ for id_, conditions in fleet.items() if sum(each.refresh() for each in conditions))

    def take_checked(self) -> list[str]:
        """The constraints judged by given values since the last call, and those with an edited maximum age.

        The caller looks at them again by the node's values, or the interval after a check would have its outcome without end.
        """
        checked, self._checked = list(self._checked), {}
        return checked

    def aged(self, ids: Iterable[str], now: int) -> None:
        """Look at constraints with a value that passed its maximum age at this time, but for those looked at later."""
        before = [id_ for id_ in ids if id_ in self._judged and (self._judged[id_].looked or 0) <= now]
        self._evaluate(before, now, self._values, counted=False)

    def look(self, now: int) -> None:
        """Look at the constraints whose state moves by time alone; not at those looked at since the last call."""
        self.look_at(self.due(now), now)

    def due(self, now: int) -> list[str]:
        """The constraints to be given to `look_at`, some at a time, all with this `now`."""
        since = self._looked_before = self._looked
        self._looked = now
        timed = [id_ for id_ in sorted(self._timed) if (self._judged[id_].looked or 0) <= since or self._judged[id_].each]
        return timed + sorted(self._running - self._timed)

    def look_at(self, ids: Iterable[str], now: int) -> None:
        """Look at constraints whose state moves by time alone, but for those that were redefined or looked at later meanwhile."""
        there = [id_ for id_ in ids if id_ in self._judged and (self._judged[id_].looked or 0) <= now]
        timed, since = [id_ for id_ in there if id_ in self._timed], self._looked_before
        self._evaluate(timed, now, self._values, counted=False, since=since)
        for id_ in there:
            judged = self._judged[id_]
            if id_ in self._timed or id_ not in self._running:
                continue
            judged.spend(now)
            for rule in judged.rules:
                rule.look(now)
            self._combine(judged)

    def suspend(self, at: int) -> None:
        """The node did not look from this time on: until the next look, all verdicts are unknown, and the clocks stand.

        The caller looks at all constraints next.
        """
        for judged in self._judged.values():
            if judged.looked is None or judged.looked > at:
                continue
            judged.spend(at)
            judged.verdict = Verdict.UNKNOWN
            for rule in judged.rules:
                rule.suspend(at)

    def _evaluate(
        self,
        ids: Iterable[str],
        now: int,
        values: Values,
        *,
        counted: bool,
        touched: Touched | None = None,
        since: int | None = None,
    ) -> list[Evaluation]:
        with_ends, constraints = self._constraints.ends, self._constraints
        chosen = [self._judged[id_] for id_ in ids if id_ in self._judged and not (with_ends and id_ not in constraints)]
        for start in range(0, len(chosen), READ_TOGETHER):
            together = chosen[start : start + READ_TOGETHER]
            self._look_at(together, now, values, counted=counted, touched=touched, since=since)
        return [judged.evaluation for judged in chosen]

    def _look_at(
        self,
        chosen: Sequence[_Judged],
        now: int,
        values: Values,
        *,
        counted: bool,
        touched: Touched | None,
        since: int | None,
    ) -> None:
        """Evaluate constraints against values that are read once for all of them. `since`: see `_EachRule.judge_each`."""
        names, plain, aged = _NONE, _EMPTY, dict[int, Measurements]()
        for judged in chosen:
            if len(judged.each) < len(judged.rules):
                names = frozenset().union(*[judged.variables for judged in chosen])
                plain = values.read(names, now)
                break
        for judged in chosen:
            if judged.goes_on(plain, now):
                if counted:
                    self._count(judged)
                continue
            judged.spend(now)
            for rule in judged.rules:
                max_age = rule.definition.max_age
                if isinstance(rule, _EachRule):
                    rule.judge_each(values, now, touched, since)
                    continue
                if max_age is None:
                    rule.judge(plain, now)
                    continue
                if max_age not in aged:
                    aged[max_age] = values.read(names, now, max_age)
                rule.judge(aged[max_age], now)
            self._combine(judged)
            if counted:
                self._count(judged)

    def _combine(self, judged: _Judged) -> None:
        """Combine the definitions of a constraint after a look."""
        rules, last, since = judged.rules, judged.evaluation, judged.since
        rule = rules[0] if len(rules) == 1 else min(rules, key=_gravity)
        now = rule.state if len(rules) == 1 else together(each.state for each in rules)
        judged.verdict = verdict = rule.verdict
        if now.since != since:
            judged.since, judged.began = now.since, None
        if verdict is not last.verdict or now.state is not last.state or rule.outcome.reason != last.reason:
            self._note(judged, Evaluation(judged.id, verdict, rule.outcome.reason, now.state, rule.by_default))
        elif now.since != since:  # another spell, of an edited definition or of another of several
            self._changed[judged.id] = None
            self.turns += 1
        for each in judged.each:
            if each.turned:
                each.turned = False
                self._changed[judged.id] = None
                self._sort(judged)  # the clock of another instance may run

    def _note(self, judged: _Judged, evaluation: Evaluation) -> None:
        """The evaluation of a constraint differs from the last."""
        before, after = judged.evaluation.state, evaluation.state
        judged.evaluation = evaluation
        self._changed[judged.id] = None
        judged.known |= after not in _UNDECIDED
        if before is after:
            return
        self._sort(judged)
        self.turns += 1
        self._turns.append(Turn(judged.id, before, after))

    def _count(self, judged: _Judged) -> None:
        id_, verdict = judged.id, judged.verdict
        if id_ in self.fleet_ids and not judged.known:
            judged.known = True
            self._changed[id_] = None
        if verdict is Verdict.UNKNOWN:
            self._unknown[id_] = self._unknown.get(id_, 0) + 1
            if not judged.known and any(name in (rule.values or ()) for rule in judged.rules for name in judged.variables):
                judged.known = True
                self._changed[id_] = None
            return
        satisfied, violated = self._counts.get(id_, (0, 0))
        holds = verdict is Verdict.SATISFIED
        self._counts[id_] = (satisfied + 1, violated) if holds else (satisfied, violated + 1)
        if not holds and id_ in self.tallies and id_ not in self._stale:
            self.tallies[id_] += 1

    # --- persistence -------------------------------------------------------------------------------------------------------

    def resume(self, saved: SavedSpells) -> None:
        """Take over the spells of the time before the start, for definitions read later."""
        self._saved = saved

    @property
    def is_running(self) -> bool:
        """True while a clock of `for` or `clear_after` runs."""
        return bool(self._running)

    def save(self, now: int) -> bytes:
        """The spells as JSON: see `temporal.encode_spells`. O(constraints with a spell)."""
        return encode_spells(self.open_spells(self.open_ids, now))

    @property
    def open_ids(self) -> list[str]:
        """The constraints with spells to be saved."""
        return [id_ for id_, judged in self._judged.items() if judged.evaluation.state in _OPEN]

    def open_spells(self, ids: Iterable[str], now: int) -> list[OpenSpell]:
        """The spells of these constraints, for `temporal.encode_spells`; without those of which no definition applies any more."""
        there = {id_: self._judged[id_].rules for id_ in ids if id_ in self._judged}
        return list(
            open_spells(
                {id_: dict(pair for each in rules for pair in each.spells().items()) for id_, rules in there.items()},
                now,
                self._wall(),
            )
        )

    # --- results -----------------------------------------------------------------------------------------------------------

    @property
    def violated(self) -> int:
        """The number of constraints in a violated state, without those of mode audit. O(constraints in such a state)."""
        return sum(id_ not in self._stale and id_ not in self.audited for id_ in self._violated)

    @property
    def undecided(self) -> int:
        """The number of constraints in the state `unknown`, without those of mode audit. O(constraints in this state)."""
        return sum(1 for _ in self.undecided_ids)

    @property
    def undecided_ids(self) -> Iterator[str]:
        """The constraints in the state `unknown`, without those of mode audit, in no order."""
        return (id_ for id_ in self._undecided if id_ not in self._stale and id_ not in self.audited)

    def evaluation(self, id_: str) -> Evaluation | None:
        """The last evaluation of a constraint; None before the first, since a redefinition, and if it does not apply here."""
        judged = None if id_ in self._stale else self._judged.get(id_)
        return None if judged is None or judged.looked is None else judged.evaluation

    def since(self, id_: str, now: int) -> int | None:
        """The begin of the verdict state, in ns since the epoch; of a violation, the first violated look. None if not judged."""
        judged = self._judged.get(id_)
        if judged is None or judged.since is None:
            return None
        if judged.began is None:
            judged.began = wall_time(judged.since, now, self._wall())
        return judged.began

    def verdict(self, id_: str, now: int, given: Values | None = None) -> NodeVerdict | None:
        """The state of a constraint, with the values it was judged by and its margin; None without a definition for this node.

        `given`: the values of the judgement, in place of the node's. Of several definitions in this state that with the highest
        severity is told, among equals that with the lowest margin.
        """
        judged, evaluation, since = self._judged.get(id_), self.evaluation(id_), self.since(id_, now)
        if judged is None or evaluation is None or since is None:
            return None
        rules = [rule for rule in judged.rules if rule.state.state is evaluation.state] or judged.rules[:1]
        if isinstance(rules[0], _EachRule):
            return self._worst(judged, rules[0], now, given or self._values)._replace(since=since)
        told = [self._told(judged, rule, now, given) for rule in rules if not isinstance(rule, _EachRule)]
        rule, values, found = told[0] if len(told) == 1 else min(told, key=_worst_first)
        read = {name: value for name, value in values.items() if rule.fleet or name in judged.variables}
        read |= {f"{PARAM}.{name}": each.value for name, each in rule.parameters.items() if each.value is not None}
        variable = found.variable if found else None
        inputs = input_texts(read, variable)
        distance, share = (found.value, found.share) if found else (None, None)
        return NodeVerdict(evaluation.state, since, inputs, distance, share, variable, evaluation.reason, evaluation.by_default)

    def _told(self, judged: _Judged, rule: _Rule, now: int, given: Values | None) -> tuple[_Rule, Measurements, Margin | None]:
        """A definition with the values it was judged by and its margin."""
        if rule.fleet is not None:
            values = rule.fleet.values()
        else:
            values = rule.values or (given or self._values).read(judged.variables, now, rule.definition.max_age)
        return rule, values, rule.margin(values)

    def _worst(self, judged: _Judged, rule: _EachRule, now: int, values: Values) -> NodeVerdict:
        """The verdict of the worst instance as that of the constraint."""
        evaluation, shown = judged.evaluation, rule.shown()
        if shown is None:
            return NodeVerdict(evaluation.state, 0, reason=evaluation.reason, by_default=evaluation.by_default)
        name, member = shown
        verdict = self._instance(judged, rule, name, member, now, values)
        told = evaluation.reason
        if told == named(rule.label, name, "") and verdict.variable is not None:
            told = named(rule.label, name, f"{verdict.variable} = {dict(verdict.inputs).get(verdict.variable, '')}")
        inputs = shortened_inputs((*verdict.inputs, (rule.label, name)), verdict.variable)
        return verdict._replace(state=evaluation.state, inputs=inputs, reason=told, by_default=evaluation.by_default)

    def _instance(self, judged: _Judged, rule: _EachRule, name: str, member: _Rule, now: int, values: Values) -> NodeVerdict:
        """The verdict of an instance."""
        read = member.values
        if read is None:
            found = values.read_each(judged.variables, rule.label, now, rule.definition.max_age, (name,))
            read = found[name].values if name in found else _EMPTY
        margin_ = member.margin(read)
        inputs = {each: value for each, value in read.items() if each in judged.variables}
        inputs |= {f"{PARAM}.{each}": bound.value for each, bound in rule.parameters.items() if bound.value is not None}
        variable = margin_.variable if margin_ else None
        distance, share = (margin_.value, margin_.share) if margin_ else (None, None)
        since = wall_time(member.spell.since, now, self._wall())
        reason = "" if member.outcome.verdict is not Verdict.UNKNOWN else member.outcome.reason
        texts = input_texts(inputs, variable)
        return NodeVerdict(member.spell.state, since, texts, distance, share, variable, reason, member.by_default)

    def is_about(self, id_: str, reason: str) -> bool:
        """False if a reason names another instance than the gravest instance of a constraint with `each`."""
        judged = self._judged.get(id_)
        found = [each.gravest for each in judged.each if each.members] if judged is not None else []
        return not found or any(reason == each or reason.startswith(f"{each}:") for each in found)

    def instances(self, id_: str, now: int, most: int) -> Instances | None:
        """The instances of a constraint, of which the worst `most` with values and margin; None without a definition with `each`,
        and before the first judgement. Of several such definitions, the first. O(instances).
        """
        judged = self._judged.get(id_)
        if judged is None or not judged.each or self.evaluation(id_) is None:
            return None
        rule = judged.each[0]
        states = [each.spell.state for each in rule.members.values()]
        worst = [(name, rule.members[name]) for name in rule.order()[:most]]
        found = [InstanceVerdict(name, self._instance(judged, rule, name, each, now, self._values)) for name, each in worst]
        violated = sum(state in VIOLATED_STATES for state in states)
        return Instances(rule.label, len(states), violated, states.count(VerdictState.UNKNOWN), found)

    def writes(self, id_: str) -> bool:
        """True if this node writes the counts of a constraint, and tells its verdict."""
        return id_ not in self.fleet_ids or self._writes(id_)

    def basis(self, id_: str) -> Basis | None:
        """The basis of the verdict on a constraint of scope fleet; None for another constraint. O(nodes)."""
        judged = self._judged.get(id_)
        found = [each.basis() for each in (rule.fleet for rule in judged.rules) if each] if judged is not None else []
        return next(filter(None, found), None)

    def needs(self) -> frozenset[str]:
        """The variables that nodes have to share for the constraints of scope fleet."""
        rules = [rule for id_ in self.fleet_ids for rule in self._judged[id_].rules if rule.fleet]
        return frozenset[str]().union(*(rule.fleet.needs for rule in rules if rule.fleet))

    def unknown(self, id_: str) -> int:
        """The number of undecided judgements of a constraint."""
        return self._unknown.get(id_, 0)

    @property
    def counted(self) -> int:
        """The number of constraints with judgements that were not taken."""
        return len(self._counts)

    def take_counts(self, most: int | None = None) -> dict[str | None, tuple[int, int]]:
        """The judgements that were not taken before, of so many constraints at most: (satisfied, violated) by constraint."""
        if most is None or most >= len(self._counts):
            counts, self._counts = self._counts, {}
        else:
            counts = dict(self._counts.popitem() for _ in range(most))
        return {id_: both for id_, both in counts.items() if id_ is None or self.writes(id_)}

    def take_changes(self) -> tuple[list[str], list[Turn]]:
        """Since the last call: the constraints whose evaluation differs, and the turns of states, in order."""
        changed, turns = list(self._changed), self._turns
        self._changed, self._turns = {}, []
        return changed, turns

    @property
    def timed_ids(self) -> list[str]:
        """The constraints that `take_times` may have a time of: those judged here, and those that left."""
        return [*self._judged, *(id_ for id_ in self._left if id_ not in self._judged)]

    def take_times(self, now: int, ids: Collection[str] | None = None) -> dict[str, Milliseconds]:
        """The time satisfied, violated and unknown that was not taken before, by constraint, of these or of all; it waits while a
        constraint is unknown from the start, with none of its variables measured. O(constraints).
        """
        found = dict[str, Milliseconds]()
        for id_ in self.timed_ids if ids is None else ids:
            left, judged = self._left.pop(id_, None), self._judged.get(id_)
            if left is not None:
                found[id_] = _milliseconds(left)
            if judged is None:
                continue
            judged.add_up(now)
            times = _milliseconds(judged.spent)
            if judged.known and any(times):
                judged.spent = [spent - taken * _MILLISECOND for spent, taken in zip(judged.spent, times, strict=True)]
                if not self.writes(id_):
                    continue
                before = found.get(id_, _NO_TIME)
                found[id_] = (before[0] + times[0], before[1] + times[1], before[2] + times[2])
        return found

    def times(self, id_: str, now: int) -> Milliseconds:
        """The time satisfied, violated and unknown of a constraint that was not taken yet, that before its removal included."""
        left, judged = self._left.get(id_, [0, 0, 0]), self._judged.get(id_)
        if judged is None:
            return _milliseconds(left)
        judged.add_up(now)
        return _milliseconds([spent + before for spent, before in zip(judged.spent, left, strict=True)])


def _ruling(judged: _Judged, rule: _Rule, given: Measurements) -> Ruling:
    definition, windows = rule.definition, judged.spans.keys()
    outcome = _with_reason(rule, outcome_of(rule.bound, given) if rule.compiled is None else rule.compiled.evaluate(given))
    if outcome.verdict is Verdict.SATISFIED:
        return Ruling(judged.id, definition, outcome, outcome.verdict, None, (), _NONE, windows)
    verdict, missing = by_default(outcome.verdict, definition.if_unknown), tuple[str, ...]()
    expressions = expressions_of(definition._replace(clear_when=None))
    read = frozenset(name.partition(".")[0] for each in expressions for name in each.variables)
    if outcome.verdict is Verdict.UNKNOWN:
        sampled = {name.partition(".")[0] for name in windows}
        missing = (*sorted(read - sampled - given.keys() - {PARAM}), *_without_samples(windows, given))
    return Ruling(judged.id, definition, outcome, verdict, rule.margin(given), missing, read, windows)


def _with_reason(rule: _Rule, outcome: Outcome) -> Outcome:
    """The outcome; an unknown outcome for the reason that a parameter has no value, where there is one."""
    return Outcome(Verdict.UNKNOWN, rule.reason) if rule.reason and outcome.verdict is Verdict.UNKNOWN else outcome


def _worst_ruling(judged: _Judged, rule: _EachRule, found: Mapping[str, InstanceValues]) -> Ruling:
    """The ruling of the instance with the gravest outcome, of equal outcomes that nearest to the limit or farthest beyond it."""
    if not found:
        outcome = Outcome(Verdict.UNKNOWN, missing_instances(rule.label))
        verdict, read = by_default(outcome.verdict, rule.definition.if_unknown), judged.variables
        return Ruling(judged.id, rule.definition, outcome, verdict, None, tuple(sorted(read)), read, judged.spans.keys())
    rulings = {name: _ruling(judged, rule, each.values) for name, each in found.items()}

    def gravity(name: str) -> tuple[int, float, str]:
        ruling = rulings[name]
        return GRAVITY.index(ruling.counts_as), ruling.margin.value if ruling.margin else 0.0, name

    worst = min(rulings, key=gravity)
    outcome = rulings[worst].outcome
    if outcome.verdict is not Verdict.SATISFIED:
        outcome = outcome._replace(reason=named(rule.label, worst, outcome.reason))
    return rulings[worst]._replace(outcome=outcome)


def _fleet_ruling(id_: str, rule: _Rule, condition: FleetCondition, fleet: FleetView, given: Set[str]) -> Ruling:
    definition = rule.definition
    read = frozenset(each.partition(".")[0] for each in condition.needs)
    if not read.isdisjoint(given):
        condition = FleetCondition(rule.bound, fleet.nodes(definition.max_age))
        condition.refresh()
    outcome = _with_reason(rule, condition.outcome())
    verdict = by_default(outcome.verdict, definition.if_unknown)
    return Ruling(id_, definition, outcome, verdict, condition.margin(), (), read, _NONE)


def _without_samples(names: Iterable[str], values: Measurements) -> Iterable[str]:
    """Those of these variables, in order, of which no sample is kept."""
    for name in sorted(names):
        try:
            values.windows.last(name)
        except ValueError:
            yield name


_NONE: frozenset[str] = frozenset()
_MILLISECOND = 1_000_000
_NO_TIME: Milliseconds = (0, 0, 0)


def _milliseconds(spent: Sequence[int]) -> Milliseconds:
    satisfied, violated, unknown = (max(0, each // _MILLISECOND) for each in spent)  # below 0 after a look back, see `aged`
    return satisfied, violated, unknown


_RUNNING = frozenset({VerdictState.PENDING, VerdictState.CLEARING})
_OPEN = _RUNNING | {VerdictState.VIOLATED}
_UNDECIDED = frozenset({VerdictState.UNKNOWN, VerdictState.OFF})


def _worst_first(told: tuple[_Rule, Measurements, Margin | None]) -> tuple[int, float]:
    rule, _, found = told
    return -rule.definition.severity.rank, found.value if found else float("inf")


def _gravity(rule: _Rule) -> int:
    """The gravest first: of several definitions in force, the gravest decides."""
    return GRAVITY.index(rule.verdict)
