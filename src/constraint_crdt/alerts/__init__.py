"""Alert rules: the kinds of rule with their conditions, and the rules in the settings of a node.

    [[alert]]
    name = "hot"
    kind = "rate"                     # a constraint is violated too often, lately
    constraint = "thermal*"           # a pattern with * and ?; default: all constraints
    half_life = 60                    # seconds, tracked by the node; default: the shortest
    above = 6                         # violated judgements a minute; or above_share = 0.01, of the judgements
    for = 30                          # seconds for which the condition must hold; default: 0
    to = ["log", "https://ops.example/hook"]

| kind | subject | condition | parameters |
|---|---|---|---|
| rate | constraint | violated more often than `above` or `above_share` | constraint, half_life, above or above_share, for |
| coverage | active constraint | unknown to a live node | constraint, node, on, for (10) |
| divergence | node | damaged; with `above`: or staler than so many seconds | node, on, above, for |
| silence | node | not live | node, on, for (30) |
| unknown | active constraint | its state is unknown on a live node | constraint, node, on, for (60) |
| conflict | active constraint | several definitions are in force | constraint, for |

Rules kept here:

- A kind yields a `Condition` for each subject with a true condition, and for each subject without evidence. All other subjects are
  well. A condition without evidence neither begins nor ends an alert.
- An error names the rule and never repeats an address, because an address may hold a secret.
- To add a kind: write its class here and list the class in `KINDS`. The checks, the engine, the events and the metrics read
  everything else from the class.
"""

import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.insight.diagnosis import named
from constraint_crdt.insight.evidence import Convergence, Coverage, Evidence
from constraint_crdt.insight.history import DefinitionClock, NodeRates
from constraint_crdt.model import Mode, VerdictState
from constraint_crdt.model.selectors import parse_selector
from constraint_crdt.operations.command import UsageError, parse_duration
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.definition import check_selector

MOST_RULES = 100
MOST_PLACES = 8
MOST_TEXT = 256
"""Characters of a name or a pattern."""

LOG: Final = "log"

About = Literal["constraint", "node", "fleet"]
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
    half_life: float | None = None
    """Seconds. The shortest half-life tracked by the node if left out."""
    above: float | None = None
    above_share: float | None = None
    for_: float | None = msgspec.field(default=None, name="for")
    """Seconds for which the condition must hold. The default of the kind if left out."""
    to: tuple[str, ...] = (LOG,)
    """`log`, or addresses of webhooks."""

    @property
    def lasts(self) -> float:
        """Seconds for which the condition must hold before the alert fires."""
        return KINDS[self.kind].lasts if self.for_ is None else self.for_

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
    """The constraint id, the node name or, for a rule about the fleet, the fleet name."""
    holds: bool | None
    """None: no evidence."""
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """The parts of a node read by the kinds."""

    gossip: GossipNode
    evidence: Evidence
    coverage: Coverage
    convergence: Convergence
    rates: NodeRates
    frontier: DefinitionClock

    def chosen(self, rule: AlertRule) -> Callable[[str], bool]:
        """Tells whether a rule is about a node, by its pattern and its selector. O(nodes) with a selector."""
        if rule.on is None:
            return lambda name: rule.is_about(node=name)
        gossip, selector = self.gossip, parse_selector(rule.on)
        labels = {name: dict(each.labels) for name, each in gossip.state.nodes.items()} | {gossip.node_id: dict(gossip.labels)}
        return lambda name: rule.is_about(node=name) and selector.matches(labels.get(name, {}))


class AlertKind(ABC):
    """A kind of rule."""

    name: ClassVar[str]
    about: ClassVar[About]
    parameters: ClassVar[tuple[str, ...]]
    """The fields of a rule for this kind, beside the fields of all kinds."""
    lasts: ClassVar[float] = 0.0
    """The default of `for`, in seconds."""
    of_verdicts: ClassVar[bool] = False
    """The condition is about verdicts on a constraint: none of a disabled one, or of mode audit, is told."""

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

    def misuse(self, rule: AlertRule) -> str | None:
        if (rule.above is None) is (rule.above_share is None):
            return "kind rate takes one of `above` (violated judgements a minute) and `above_share` (of the judgements)"
        return None

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        state, rates = facts.gossip.state, facts.rates
        half_life = rule.half_life or rates.half_lives[0]
        for id_ in state.constraints:
            if not rule.is_about(constraint=id_) or not state.metrics.constraint(id_).violated:
                continue
            rate = rates.of(id_, half_life)
            if rule.above is not None and rate.violated_per_minute > rule.above:
                yield Condition(
                    id_, True, f"{rate.violated_per_minute:.2f} violated judgements a minute, half-life {half_life:g} s"
                )
            elif rule.above_share is not None and (rate.violated_share or 0.0) > rule.above_share:
                share = 100 * (rate.violated_share or 0.0)
                yield Condition(id_, True, f"{share:.2f} % of the judgements violated, half-life {half_life:g} s")


class Unheard(AlertKind):
    """A live node lacks an active constraint. O(nodes) while all have every definition."""

    name = "coverage"
    about = "constraint"
    parameters = ("constraint", "node", "on")
    lasts = 10.0

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        evidence, dots = facts.evidence, facts.frontier.dots
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
                yield Condition(id_, True, f"no evidence that {named(lacking)} heard of it")
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
                yield Condition(name, True, "at this node's clock it had another state: one of the two is damaged")
            elif rule.above is not None and stale is not None and stale > rule.above:
                yield Condition(name, True, f"it lacks what became known here {stale:.0f} s ago")
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
                yield Condition(name, True, since)


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
                yield Condition(id_, True, f"unknown on {named(live)}" + (f": {reason}" if reason else ""))
            elif nodes:
                yield Condition(id_, None)


class Conflict(AlertKind):
    """Concurrent edits left several definitions of a constraint in force. O(constraints)."""

    name = "conflict"
    about = "constraint"
    parameters = ("constraint",)

    def find(self, rule: AlertRule, facts: Facts) -> Iterator[Condition]:
        constraints = facts.gossip.state.constraints
        for id_ in constraints.conflicts():
            if rule.is_about(constraint=id_):
                nodes = sorted({each.dot.replica.node_id for each in constraints.additions(id_)})
                yield Condition(id_, True, f"several definitions are in force, by {named(nodes)}")


_ALL_KINDS = (ViolationRate(), Unheard(), Divergence(), Silence(), UnknownVerdict(), Conflict())
KINDS: dict[str, AlertKind] = {kind.name: kind for kind in _ALL_KINDS}
"""The kinds by name, in the order of the metrics."""


class Conditions:
    """Evaluates the conditions of rules on one node."""

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
    """Return the rules. Raises `ConstraintCrdtError` for a wrong rule, or two of one name."""
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
            near = _close_to(str(key), known)
            hint = f"`{near[0]}` may be meant" if near else f"there are {', '.join(known)}"
            raise ConstraintCrdtError(f"{where}: there is no field `{key}`: {hint}")
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


_LENGTHS = ("for", "half_life")
"""The fields that take seconds, or a text as in the fields of constraints."""


def _close_to(name: str, names: Iterable[str]) -> list[str]:
    from difflib import get_close_matches  # rarely needed: kept out of the start of a node

    return get_close_matches(name, list(names), n=1)


def _unknown(kind: str) -> str:
    near = _close_to(kind, KINDS)
    hint = f"{near[0]!r} may be meant" if near else f"there are {', '.join(KINDS)}"
    return f"there is no kind {kind!r}: {hint}"


def _check(rule: AlertRule) -> None:
    problem = _misuse(rule) or _out_of_bounds(rule) or next(filter(None, map(_wrong_place, rule.to)), None)
    if problem is not None:
        raise ConstraintCrdtError(f"alert {rule.name!r}: {problem}")


def _misuse(rule: AlertRule) -> str | None:
    """The reason why the parameters do not fit the kind. None for fitting parameters."""
    kind = KINDS.get(rule.kind)
    if kind is None:
        return _unknown(rule.kind)
    given = [key for key in ("constraint", "node", "on", "half_life", "above", "above_share") if getattr(rule, key) is not None]
    extra = [key for key in given if key not in kind.parameters]
    if extra:
        return f"`{extra[0]}` means nothing to kind {kind.name}, which takes {', '.join(kind.parameters)}"
    return kind.misuse(rule)


def _out_of_bounds(rule: AlertRule) -> str | None:
    for key in ("name", "constraint", "node"):
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
    for key, value in (("above", rule.above), ("for", rule.for_), ("half_life", rule.half_life)):
        if value is not None and not 0.0 <= value <= DURATION_MAX:
            return f"`{key}` must be from 0 to {DURATION_MAX:.0f}, not {value!r}"
    if not 0 < len(rule.to) <= MOST_PLACES:
        return f"`to` takes 1 to {MOST_PLACES} places: log, or addresses of webhooks"
    return None


def _wrong_place(place: str) -> str | None:
    """The reason why a place cannot be notified; None for a valid place. Does not repeat the place, which may hold a secret."""
    if place == LOG:
        return None
    try:
        parts = urllib.parse.urlsplit(place)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not place.isascii() or not place.isprintable() or " " in place:
        return "`to` takes log, or addresses as http://HOST/PATH or https://HOST/PATH"
    if parts.username is not None or parts.password is not None:
        return "`to`: an address with a password in front of its host is not taken; put a token into its path or query"
    return None


def shown_place(place: str) -> str:
    """A place without its secret parts: scheme, host and port only."""
    if place == LOG:
        return place
    parts = urllib.parse.urlsplit(place)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}/…"
