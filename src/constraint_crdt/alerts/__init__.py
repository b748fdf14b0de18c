"""Alert rules: the kinds of rule with their conditions, and the rules in the settings of a node and in the fleet.

    [[alert]]
    name = "hot"
    kind = "rate"                     # a constraint is violated too often, lately
    constraint = "thermal*"           # a pattern with * and ?; default: all constraints
    half_life = 60                    # seconds, tracked by the node; default: the shortest
    above = 6                         # violated judgements a minute; or above_share = 0.01, of the judgements
    for = 30                          # seconds for which the condition must hold; default: 0
    keep_firing_for = 60              # seconds for which it must be over before the alert ends; default: 15
    repeat = "4h"                     # told again while it fires unacknowledged; default: never
    to = ["log", "ops", "https://ops.example/hook"]

| kind | subject | condition | parameters |
|---|---|---|---|
| rate | constraint | violated more often than `above` or `above_share` | constraint, half_life, above or above_share, for |
| coverage | active constraint | unknown to a live node | constraint, node, on, for (10) |
| divergence | node | damaged; with `above`: or staler than so many seconds | node, on, above, for |
| silence | node | not live | node, on, for (30) |
| unknown | active constraint | its state is unknown on a live node | constraint, node, on, for (60) |
| conflict | active constraint | several different definitions are in force | constraint, for (60) |
| budget | budget | more than `above` (0) wait, or more than `above_share` of it is held | budget, above or above_share, for (60) |
| clock | node that evaluates | its clock is in doubt | node, on, for (10) |
| skew | peer | its clock differs by more than `above` seconds, or the bound on skew | node, on, above, for (30) |
| certificate | node | its certificate ends within `within` seconds (7 days) | node, on, within, for |

Rules kept here:

- A kind yields a `Condition` for each subject with a true condition, and for each subject without evidence. All other subjects are
  well. A condition without evidence neither begins nor ends an alert.
- The absence of evaluations is no evidence: a rate that falls because the evaluations of a violating node stopped is unknown, and
  so is a share without evaluations in the last two half-lives.
- An error names the rule and never repeats an address, because an address may hold a secret.
- To add a kind: write its class here and list the class in `KINDS`. The checks, the engine, the events and the metrics read
  everything else from the class.
"""

import dataclasses
import re
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import ClassVar, Final, Literal, NamedTuple, Protocol

import msgspec

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.insight.diagnosis import named
from constraint_crdt.insight.evidence import Convergence, Coverage, DefinitionClock, Evidence
from constraint_crdt.insight.history import NodeRates
from constraint_crdt.model import Mode, VerdictState, close_to, nearest, parse_selector
from constraint_crdt.operations.counts import ConstraintRate
from constraint_crdt.operations.operation import UsageError, parse_duration
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.decay import LN2
from constraint_crdt.types.definition import ADD, check_selector

MOST_RULES = 100
MOST_PLACES = 8
MOST_TEXT = 256
"""Characters of a name or a pattern."""

LOG: Final = "log"

KEEPS: Final = 15.0
"""Seconds: the default of `keep_firing_for`. A value that turns every few seconds is a single alert."""

WITHIN: Final = 7 * 86_400.0
"""Seconds before the end of a certificate: the default of `within`."""

FEWEST: Final = 0.5
"""Evaluations left of a half-life, below which a share is unknown."""

SHORTEST_REPEAT: Final = 60.0
"""Seconds between two messages about an alert that still fires."""

NAME_OF_PLACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
PLACE_NAMES: Final = "names of destinations of 1 to 64 letters, digits, _, . and -"

SHORTEST_STALL: Final = 10.0
"""Seconds without an evaluation after which a share is unknown, or two half-lives if longer."""

About = Literal["constraint", "node", "budget", "fleet"]
"""The sort of the subject of an alert."""


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An `[[alert]]` of the settings: a kind, its parameters, and the places to notify."""

    name: str
    kind: str
    """A key of `KINDS`."""
    constraint: str | None = None
    """A pattern of constraint ids, with * and ?."""
    node: str | None = None
    """A pattern of node names, with * and ?."""
    on: str | None = None
    """The selector of the nodes, as in `zone in (a, b)`. A node without a description has no labels."""
    budget: str | None = None
    """A pattern of names of budgets, with * and ?."""
    half_life: float | None = None
    """Seconds. The shortest half-life tracked by the node if left out."""
    above: float | None = None
    above_share: float | None = None
    for_: float | None = msgspec.field(default=None, name="for")
    """Seconds for which the condition must hold. The default of the kind if left out."""
    to: tuple[str, ...] = (LOG,)
    """`log`, names of destinations, or, in a settings file, addresses of webhooks."""
    keep_firing_for: float = KEEPS
    """Seconds for which the condition must be over before the alert ends."""
    repeat: float | None = None
    """Seconds after which a firing alert without an acknowledgement is told again. None: it is told once."""
    within: float | None = None
    """Seconds to the end of a certificate."""

    @property
    def lasts(self) -> float:
        """Seconds for which the condition must hold before the alert fires."""
        return KINDS[self.kind].lasts if self.for_ is None else self.for_

    @property
    def keeps(self) -> float:
        """Seconds for which the condition must be over before the alert ends."""
        return self.keep_firing_for

    @property
    def longest_unknown(self) -> float | None:
        """Seconds without evidence after which an alert ends as unknown; None: it waits for evidence."""
        return KINDS[self.kind].longest_unknown

    @property
    def about(self) -> About:
        """The sort of the subjects of this rule's alerts."""
        return KINDS[self.kind].about

    def is_about(self, *, constraint: str | None = None, node: str | None = None) -> bool:
        """True if the patterns of the rule match these names."""
        pairs = ((self.constraint, constraint), (self.node, node))
        return all(pattern is None or name is None or fnmatchcase(name, pattern) for pattern, name in pairs)


class Condition(NamedTuple):
    """The condition of a rule, evaluated for a subject."""

    subject: str
    """The constraint id, the name of the node or budget, or, for a rule about the fleet, the fleet name."""
    holds: bool | None
    """None: no evidence."""
    detail: str = ""
    nodes: Sequence[str] = ()
    """The nodes concerned, for silences with a selector."""


class BudgetFigures(Protocol):
    """A budget as the node knows it. `operations.budgets.BudgetReport` is one."""

    @property
    def name(self) -> str:
        """The name of the budget."""

    @property
    def limit(self) -> int:
        """The amount that may be held at once, or used up, in the whole fleet."""

    @property
    def held(self) -> int:
        """The amount held."""

    @property
    def waiting(self) -> int:
        """The amount that processes wait for."""


class Evaluations:
    """Which counts of evaluations move. For rates, which fall also while nothing is evaluated."""

    def __init__(self) -> None:
        self._looked = False
        """All constraints of before the start were looked at."""
        self._moved: dict[str, tuple[int, int | None]] = {}
        """By constraint the evaluations counted at the last look, and when that number last grew; None: not since the start."""
        self._violating: dict[tuple[str, str], dict[str, tuple[int, float, float]]] = {}
        """By rule and constraint, of nodes with violations when the condition last held: all counts, and the decayed pair."""

    def still_for(self, id_: str, count: int, now: int) -> int | None:
        """The ns since the evaluations of a constraint were last seen to grow; None: not since the start of this node."""
        before, at = self._moved.get(id_, (0 if self._looked else count, None))
        if count != before:
            at = now
        self._moved[id_] = count, at
        return None if at is None else now - at

    def note(self, rule: str, id_: str, counts: Mapping[str, int], rate: ConstraintRate) -> None:
        """The condition of a rule holds with these counts of the nodes."""
        self._violating[rule, id_] = {
            node: (counts.get(node, 0), each.satisfied, each.violated) for node, each in rate.by_node.items() if each.violated
        }

    def stalled(self, rule: str, id_: str, counts: Mapping[str, int]) -> Mapping[str, tuple[float, float]]:
        """The violating nodes that evaluated nothing since the condition last held, with their decayed pairs of then."""
        before = self._violating.get((rule, id_), {})
        return {node: (sat, vio) for node, (count, sat, vio) in before.items() if counts.get(node, 0) == count}

    def looked(self) -> None:
        """All constraints were looked at."""
        self._looked = True

    def forget(self, rule: str, id_: str) -> None:
        """The condition is known not to hold."""
        self._violating.pop((rule, id_), None)


@dataclasses.dataclass(frozen=True)
class Facts:
    """The parts of a node read by the kinds."""

    gossip: GossipNode
    evidence: Evidence
    coverage: Coverage
    convergence: Convergence
    rates: NodeRates
    definition_clock: DefinitionClock
    budgets: Callable[[], Sequence[BudgetFigures]] = tuple
    certificates: Callable[[], Mapping[str, int]] = dict
    """The ends of the certificates by node, in ns since the epoch."""
    monotonic: Callable[[], int] = time.monotonic_ns
    evaluations: Evaluations = dataclasses.field(default_factory=Evaluations)

    def chosen(self, rule: AlertRule) -> Callable[[str], bool]:
        """Tells whether a rule is about a node, by its pattern and its selector. O(nodes) with a selector."""
        if rule.on is None:
            return lambda name: rule.is_about(node=name)
        gossip, selector = self.gossip, parse_selector(rule.on)
        labels = gossip.state.labels | {gossip.node_id: dict(gossip.labels)}
        return lambda name: rule.is_about(node=name) and selector.matches(labels.get(name, {}))


class AlertKind(ABC):
    """A kind of rule."""

    name: ClassVar[str]
    about: ClassVar[About]
    parameters: ClassVar[tuple[str, ...]]
    """The fields of a rule for this kind, beside the fields of all kinds."""
    lasts: ClassVar[float] = 0.0
    """The default of `for`, in seconds."""
    longest_unknown: ClassVar[float | None] = None
    """Seconds without evidence after which an alert ends as unknown; None: it waits for evidence."""
    of_verdicts: ClassVar[bool] = False
    """The condition is about verdicts on a constraint: none of a disabled constraint, or of mode audit, is told."""

    def misuse(self, rule: AlertRule) -> str | None:  # noqa: ARG002 - most kinds take any combination of their parameters
        """The reason why parameters of a rule exclude each other. None for a valid rule."""
        return None

    @abstractmethod
    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        """The subjects with a true condition now, and the subjects without evidence."""


class ViolationRate(AlertKind):
    """A constraint is violated too often lately. O(constraints with violations)."""

    name = "rate"
    about = "constraint"
    of_verdicts = True
    parameters = ("constraint", "half_life", "above", "above_share")
    longest_unknown = 3600.0

    def misuse(self, rule: AlertRule) -> str | None:
        if (rule.above is None) is (rule.above_share is None):
            return "kind rate takes one of `above` (violated judgements a minute) and `above_share` (of the judgements)"
        return None

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        state, half_life = facts.gossip.state, rule.half_life or facts.rates.half_lives[0]
        for id_ in state.constraints:
            if rule.is_about(constraint=id_) and state.metrics.constraint(id_).violated:
                condition = self._judge(rule, id_, half_life, facts)
                if condition is not None:
                    yield condition
        facts.evaluations.looked()

    def _judge(self, rule: AlertRule, id_: str, half_life: float, facts: Facts) -> Condition | None:
        rate = facts.rates.of(id_, half_life)
        counts = {node: sum(each) for node, each in facts.gossip.state.metrics.by_node(id_).items()}
        still = facts.evaluations.still_for(id_, sum(counts.values()), facts.monotonic())
        longest = max(SHORTEST_STALL, 2 * half_life) * SECOND
        if rule.above_share is not None and (rate.satisfied + rate.violated < FEWEST or still is None or still > longest):
            return Condition(id_, None)
        nodes = [node for node, each in rate.by_node.items() if each.violated > FEWEST / 1000]
        if _is_above(rule, rate.satisfied, rate.violated, half_life):
            facts.evaluations.note(rule.name, id_, counts, rate)
            if rule.above is not None:
                what = f"{rate.violated_per_minute:.2f} violated judgements a minute"
            else:
                what = f"{100 * (rate.violated_share or 0.0):.2f} % of the judgements violated"
            return Condition(id_, True, f"{what}, half-life {half_life:g} s", nodes)
        known = set(facts.evidence.names)
        stalled = {node: pair for node, pair in facts.evaluations.stalled(rule.name, id_, counts).items() if node in known}
        others = [each for node, each in rate.by_node.items() if node not in stalled]
        satisfied = sum(each.satisfied for each in others) + sum(each for each, _ in stalled.values())
        violated = sum(each.violated for each in others) + sum(each for _, each in stalled.values())
        if stalled and _is_above(rule, satisfied, violated, half_life):
            return Condition(id_, None)
        facts.evaluations.forget(rule.name, id_)
        return None


def _is_above(rule: AlertRule, satisfied: float, violated: float, half_life: float) -> bool:
    """True for decayed evaluations above the threshold of a rule."""
    if rule.above is not None:
        return violated * 60.0 * LN2 / half_life > rule.above
    total = satisfied + violated
    return rule.above_share is not None and total > 0 and violated / total > rule.above_share


class Unheard(AlertKind):
    """A live node lacks an active constraint. O(nodes) while all have every definition."""

    name = "coverage"
    about = "constraint"
    parameters = ("constraint", "node", "on")
    lasts = 10.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence, dots = facts.evidence, facts.definition_clock.dots
        names = list(filter(facts.chosen(rule), evidence.names))
        behind = [name for name in names if evidence.is_live(name) and not evidence.holds(name, dots)]
        awaited = any(map(evidence.awaits, names))
        if not behind and not awaited:
            return
        for id_ in facts.gossip.state.constraints:
            if not rule.is_about(constraint=id_):
                continue
            _, dots = facts.coverage.change(id_)
            held = {name: evidence.holds(name, dots) for name in behind}
            lacking = [name for name, holds in held.items() if holds is False]
            if lacking:
                yield Condition(id_, True, f"no evidence that {named(lacking)} heard of it", lacking)
            elif awaited or None in held.values():
                yield Condition(id_, None)


class Divergence(AlertKind):
    """A node's state is damaged, or too stale. O(nodes)."""

    name = "divergence"
    about = "node"
    parameters = ("node", "on", "above")

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence = facts.evidence
        for name in filter(facts.chosen(rule), evidence.names):
            if name == facts.gossip.node_id:
                continue
            stale = facts.convergence.staleness(name) if evidence.is_live(name) else None
            if evidence.diverged_since(name) is not None:
                yield Condition(name, True, "at this node's clock it had another state: one of the two is damaged", (name,))
            elif rule.above is not None and stale is not None and stale > rule.above:
                yield Condition(name, True, f"it lacks what became known here {stale:.0f} s ago", (name,))
            elif evidence.heard_at(name) is None or (rule.above is not None and stale is None):
                yield Condition(name, None)


class Silence(AlertKind):
    """A node is heard neither here nor by a live peer. O(nodes)."""

    name = "silence"
    about = "node"
    parameters = ("node", "on")
    lasts = 30.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence = facts.evidence
        for name in filter(facts.chosen(rule), evidence.names):
            if not evidence.is_seen(name) and evidence.through(name) is None:
                heard = evidence.heard_at(name)
                since = "not heard since this node started"
                if heard is not None:
                    since = f"last heard {(evidence.now() - heard) / SECOND:.0f} s ago"
                yield Condition(name, True, since, (name,))


class UnknownVerdict(AlertKind):
    """A constraint is unknown on a node, as the node tells. Without evidence while the node is not live. O(unknown verdicts)."""

    name = "unknown"
    about = "constraint"
    of_verdicts = True
    parameters = ("constraint", "node", "on")
    lasts = 60.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        state, evidence, chosen = facts.gossip.state, facts.evidence, facts.chosen(rule)
        for id_ in sorted(state.verdicts.unknown):
            if id_ not in state.constraints or not rule.is_about(constraint=id_):
                continue
            verdicts = {name: each for name, each in state.verdicts.of(id_).items() if each.state is VerdictState.UNKNOWN}
            nodes = list(filter(chosen, verdicts))
            live = [name for name in nodes if evidence.is_seen(name)]
            if live:
                reason = verdicts[live[0]].reason
                yield Condition(id_, True, f"unknown on {named(live)}" + (f": {reason}" if reason else ""), live)
            elif nodes:
                yield Condition(id_, None)


class Conflict(AlertKind):
    """Several different definitions of a constraint are in force. O(active constraints)."""

    name = "conflict"
    about = "constraint"
    parameters = ("constraint",)
    lasts = 60.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        rows, constraints = facts.gossip.state.rows, facts.gossip.state.constraints
        for held in rows.table(ADD).values():
            if not isinstance(held, dict) or len(held) < 2:
                continue
            cells = list(held.values())
            id_ = str(cells[0].key)
            if rule.is_about(constraint=id_):
                many = len({each.without_end() for each in constraints.definitions(id_)})
                if many > 1:
                    writers = sorted({cell.replica.node_id for cell in cells})
                    what = f"{many} definitions made at once, by {named(writers)}: all of them are enforced"
                    yield Condition(id_, True, what, writers)


class BudgetShort(AlertKind):
    """Processes wait for a budget, or too much of it is held. O(budgets x participants)."""

    name = "budget"
    about = "budget"
    parameters = ("budget", "above", "above_share")
    lasts = 60.0

    def misuse(self, rule: AlertRule) -> str | None:
        if rule.above is not None and rule.above_share is not None:
            return "kind budget takes one of `above` (the amount waited for) and `above_share` (of the limit)"
        return None

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        for each in facts.budgets():
            if rule.budget is not None and not fnmatchcase(each.name, rule.budget):
                continue
            if rule.above_share is not None:
                if each.limit and each.held > rule.above_share * each.limit:
                    yield Condition(each.name, True, f"{each.held} of {each.limit} are held")
            elif each.waiting > (rule.above or 0.0):
                yield Condition(each.name, True, f"processes wait for {each.waiting}; {each.held} of {each.limit} are held")


class DoubtedClock(AlertKind):
    """The clock of the node that evaluates is in doubt. Of other nodes there is no evidence. O(nodes)."""

    name = "clock"
    about = "node"
    parameters = ("node", "on")
    lasts = 10.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        me, doubt = facts.gossip.node_id, facts.gossip.time.doubt
        for name in filter(facts.chosen(rule), facts.evidence.names):
            if name != me:
                yield Condition(name, None)
            elif doubt is not None:
                whose = "that of the fleet" if doubt.agreed else "the earliest heard"
                yield Condition(
                    name, True, f"its clock is in doubt: {whose} is {doubt.offset / SECOND:+.1f} s ahead of it", (name,)
                )
            elif not facts.gossip.time.offsets and len(facts.evidence.names) > 1:
                yield Condition(name, None)


class ClockSkew(AlertKind):
    """The clock of a peer differs from this node's by more than the bound. No evidence while this clock is in doubt. O(nodes)."""

    name = "skew"
    about = "node"
    parameters = ("node", "on", "above")
    lasts = 30.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        time_, me = facts.gossip.time, facts.gossip.node_id
        bound = time_.max_skew if rule.above is None else round(rule.above * SECOND)
        offsets, doubted = time_.offsets, time_.in_doubt
        for name in filter(facts.chosen(rule), facts.evidence.names):
            if name == me:
                continue
            offset = offsets.get(name)
            if offset is None or doubted:
                yield Condition(name, None)
            elif abs(offset) > bound:
                yield Condition(name, True, f"its clock is {offset / SECOND:+.1f} s ahead, beyond {bound / SECOND:g} s", (name,))


class EndingCertificate(AlertKind):
    """The certificate of a node ends soon. O(nodes)."""

    name = "certificate"
    about = "node"
    parameters = ("node", "on", "within")

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        within = WITHIN if rule.within is None else rule.within
        ends, now = facts.certificates(), facts.gossip.time.now()
        for name in filter(facts.chosen(rule), facts.evidence.names):
            end = ends.get(name)
            if end is not None and end - now < within * SECOND:
                left = (end - now) / 86_400 / SECOND
                what = f"its certificate ends in {left:.1f} days" if left > 0 else f"its certificate ended {-left:.1f} days ago"
                yield Condition(name, True, what, (name,))


_ALL_KINDS = (
    ViolationRate(), Unheard(), Divergence(), Silence(), UnknownVerdict(), Conflict(), BudgetShort(), DoubtedClock(), ClockSkew(),
    EndingCertificate(),
)  # fmt: skip
KINDS: dict[str, AlertKind] = {kind.name: kind for kind in _ALL_KINDS}
"""The kinds by name, in the order of the metrics."""


class Conditions:
    """Evaluates the conditions of rules on a node."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def find(self, rule: AlertRule) -> Iterator[Condition]:
        """The conditions of a rule now; none of verdicts on a constraint that is disabled, or of mode audit."""
        kind = KINDS[rule.kind]
        found = kind.find(rule, self._facts)
        return filter(self._is_told, found) if kind.of_verdicts else found

    def _is_told(self, condition: Condition) -> bool:
        state, id_ = self._facts.gossip.state, condition.subject
        return id_ not in state.switches and state.constraints.mode(id_) is not Mode.AUDIT


def read_rules(tables: object) -> tuple[AlertRule, ...]:
    """The rules of a settings file. Raises `ConstraintCrdtError` naming the first wrong rule."""
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping | AlertRule) for table in tables):
        raise ConstraintCrdtError("write each alert under [[alert]], with double brackets")
    rules = tuple(table if isinstance(table, AlertRule) else _read(number, table) for number, table in enumerate(tables, 1))
    return check_rules(rules)


def check_rules(rules: tuple[AlertRule, ...]) -> tuple[AlertRule, ...]:
    """Return the rules. Raises `ConstraintCrdtError` for a wrong rule, or two rules of one name."""
    if len(rules) > MOST_RULES:
        raise ConstraintCrdtError(f"at most {MOST_RULES} alerts, not {len(rules)}")
    names = [rule.name for rule in rules]
    for rule in rules:
        _check(rule)
        if names.count(rule.name) > 1:
            raise ConstraintCrdtError(f"two alerts are called {rule.name!r}: give each a name of its own")
    return rules


_WANTED: Final[Mapping[object, str]] = {float | None: "a number", tuple[str, ...]: 'a list of texts, as in ["log"]'}
"""The values of a field by its type, for errors; texts left out."""


def _read(number: int, table: Mapping[str, object]) -> AlertRule:
    known = [field.encode_name for field in msgspec.structs.fields(AlertRule)]
    where = f"alert {number}" + (f" ({table['name']})" if isinstance(table.get("name"), str) else "")
    for key in table:
        if key not in known:
            raise ConstraintCrdtError(f"{where}: there is no field `{key}`: {nearest(str(key), known)}")
    for key in ("name", "kind"):
        if key not in table:
            raise ConstraintCrdtError(f"{where}: `{key}` is missing")
    try:
        lengths = {key: parse_duration(value) for key in _LENGTHS if isinstance(value := table.get(key), str)}
    except UsageError as error:
        raise ConstraintCrdtError(f"{where}: {error}") from None
    given = {**table, **lengths}
    for field in msgspec.structs.fields(AlertRule):
        try:
            msgspec.convert(given.get(field.encode_name, field.default), field.type, strict=True)
        except msgspec.ValidationError:
            raise ConstraintCrdtError(f"{where}: `{field.encode_name}` must be {_WANTED.get(field.type, 'a text')}") from None
    rule = msgspec.convert(given, AlertRule, strict=True)
    if rule.kind not in KINDS:
        raise ConstraintCrdtError(f"{where}: {_unknown(rule.kind)}")
    return rule


def read_text(name: str, text: str, half_lives: Sequence[float] | None = None) -> AlertRule:
    """A rule of the fleet from its text. `half_lives`: those that the node tracks; None: any.

    Raises `ConstraintCrdtError` for a rule that this node cannot evaluate.
    """
    try:
        table = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ConstraintCrdtError(f"alert {name!r} cannot be read here: it was written by a later version, or is damaged") from None
    (rule,) = read_rules([{**table, "name": name}])
    check_of_fleet(rule)
    if half_lives is not None and rule.half_life not in (None, *half_lives):
        raise ConstraintCrdtError(f"alert {name!r}: this node does not track the half-life of {rule.half_life:g} s")
    return rule


def write_text(rule: AlertRule) -> str:
    """The text of a rule of the fleet: its table without the name, and without defaults."""
    fields = msgspec.structs.fields(AlertRule)
    table = {each.encode_name: getattr(rule, each.name) for each in fields if each.name != "name"}
    kept = {key: value for key, value in table.items() if key == "kind" or value != _DEFAULTS[key]}
    return msgspec.json.encode(kept, order="sorted").decode()


_DEFAULTS: Final = {each.encode_name: each.default for each in msgspec.structs.fields(AlertRule)}


def same_rule(one: AlertRule, other: AlertRule) -> bool:
    """True for rules that mean the same: a field left out, and its default written out, are alike."""
    return msgspec.structs.replace(one, for_=one.lasts) == msgspec.structs.replace(other, for_=other.lasts)


def check_of_fleet(rule: AlertRule) -> AlertRule:
    """Return a rule. Raises `ConstraintCrdtError` for a rule with an address, which all nodes would read."""
    if any("://" in place for place in rule.to):
        raise ConstraintCrdtError(
            f"alert {rule.name!r}: every node reads a rule of the fleet, and an address may hold a secret: name the address under "
            "[destinations] in the settings of some nodes, and give that name in `to`",
            field="to",
        )
    return rule


_LENGTHS = ("for", "half_life", "keep_firing_for", "repeat", "within")
"""The fields that take seconds, or a text as in the fields of constraints."""


def _unknown(kind: str) -> str:
    near = close_to(kind, KINDS)
    hint = f"{near[0]!r} may be meant" if near else f"there are {', '.join(KINDS)}"
    return f"there is no kind {kind!r}: {hint}"


def _check(rule: AlertRule) -> None:
    problem = _misuse(rule) or _out_of_bounds(rule) or next(filter(None, map(_wrong_place, rule.to)), None)
    if problem is not None:
        raise ConstraintCrdtError(f"alert {rule.name!r}: {problem}")


_PARAMETERS: Final = ("constraint", "node", "on", "budget", "half_life", "above", "above_share", "within")
"""The fields that some kinds take."""


def _misuse(rule: AlertRule) -> str | None:
    """The reason why the parameters do not fit the kind. None for fitting parameters."""
    kind = KINDS.get(rule.kind)
    if kind is None:
        return _unknown(rule.kind)
    given = [key for key in _PARAMETERS if getattr(rule, key) is not None]
    extra = [key for key in given if key not in kind.parameters]
    if extra:
        return f"`{extra[0]}` means nothing to kind {kind.name}, which takes {', '.join(kind.parameters)}"
    return kind.misuse(rule)


def _out_of_bounds(rule: AlertRule) -> str | None:
    for key in ("name", "constraint", "node", "budget"):
        text = getattr(rule, key)
        if text is not None and not (0 < len(text) <= MOST_TEXT and text.isprintable()):
            return f"`{key}` must have 1 to {MOST_TEXT} printable characters"
    if rule.on is not None:
        try:
            check_selector(rule.on)
        except ConstraintCrdtError as error:
            return str(error)
    if rule.above_share is not None and not 0.0 <= rule.above_share < 1.0:
        return f"`above_share` must be from 0 to below 1, not {rule.above_share!r}"
    lengths = (("keep_firing_for", rule.keep_firing_for), ("repeat", rule.repeat), ("within", rule.within))
    for key, value in (("above", rule.above), ("for", rule.for_), ("half_life", rule.half_life), *lengths):
        if value is not None and not 0.0 <= value <= DURATION_MAX:
            return f"`{key}` must be from 0 to {DURATION_MAX:.0f}, not {value!r}"
    if rule.repeat is not None and 0 < rule.repeat < SHORTEST_REPEAT:
        return f"`repeat` is {SHORTEST_REPEAT:g} seconds at least"
    if not 0 < len(rule.to) <= MOST_PLACES:
        return f"`to` takes 1 to {MOST_PLACES} places: log, names of destinations, or addresses of webhooks"
    return None


def _wrong_place(place: str) -> str | None:
    """The reason why a place cannot be notified; None for a valid place. Does not repeat the place, which may hold a secret."""
    if "://" not in place:
        return None if NAME_OF_PLACE.fullmatch(place) else f"`to` takes log, {PLACE_NAMES}, or addresses as https://HOST/PATH"
    problem = wrong_address(place)
    return None if problem is None else f"`to`: {problem}"


def wrong_address(
    place: str,
    schemes: Sequence[str] = ("http", "https"),
    path: str = "/PATH",
    otherwise: str = "put a token into its path or query",
) -> str | None:
    """The reason why an address cannot be notified; None if it can. Does not repeat the address, which may hold a secret.

    `path`: that of an address of these schemes, for the reason. `otherwise`: where a password belongs.
    """
    try:
        parts = urllib.parse.urlsplit(place)
        fine = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not place.isascii() or not place.isprintable() or " " in place:
        return f"an address is written as {' or '.join(f'{scheme}://HOST{path}' for scheme in schemes)}"
    if parts.username is not None or parts.password is not None:
        return f"an address with a password in front of its host is not taken; {otherwise}"
    return None


def shown_place(place: str) -> str:
    """A place without its secret parts: scheme, host and port only."""
    if "://" not in place:
        return place
    parts = urllib.parse.urlsplit(place)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}/…"
