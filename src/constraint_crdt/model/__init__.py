"""The data shared by the layers of a node and its clients: severities, verdict states, selectors, events, notices, histograms of
durations, and the HTML tables for notebooks.

An `Event` describes a single occurrence. A `Notice` tells followers of a node about changed readings. A `DurationHistogram` counts
durations in constant space. Its counts never decrease, so the difference of two readings is exact, also after a long time.

Every text in an HTML table is escaped, and a table has a bounded number of rows.

The module imports nothing of the node, so clients can use it.

A selector chooses nodes by their labels, in the syntax of Kubernetes: `zone in (a, b), model != x7, !spare`.

| requirement | a node matches |
|---|---|
| `rack=3`, `rack==3`, `rack in (3)` | the label `rack` has the value `3` |
| `zone in (a, b)` | the label `zone` has one of the values |
| `model!=x7`, `model notin (x7)` | the label `model` has another value, or the node has no such label |
| `spare` | the node has the label `spare`, with any value |
| `!spare` | the node has no label `spare` |

A node matches a selector if it matches each requirement. Beyond Kubernetes, keys and values are any text: a text with spaces at its
ends, commas, brackets or quotes is written in double quotes, with the escapes of JSON. A value without them may have spaces inside.
A selector has a single canonical form, so equal selectors are equal values.
"""

import enum
import json
import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, islice
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.errors import ConstraintCrdtError

KEPT: Final = 10_000
"""Events kept by a node: the latest."""

MOST_ROWS = 100
"""Rows of an HTML table; a line says how many more there are."""


class Severity(enum.StrEnum):
    """The importance of a violation to people. Severity has no effect on evaluation."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """The place of a severity, from 0 for the lowest."""
        return _RANKS[self]


_RANKS: Final = {severity: rank for rank, severity in enumerate(Severity)}


class VerdictState(enum.StrEnum):
    """The state of a constraint on a node: its verdicts with `for`, `clear_after` and `clear_when` applied."""

    OFF = "off"
    """No definition with a `when` applies to the node."""
    HOLDS = "holds"
    """The condition is satisfied, and no violation is in force."""
    PENDING = "pending"
    """The condition is violated, for less time than `for`."""
    VIOLATED = "violated"
    """The condition was violated for the time `for`, and has not held since."""
    CLEARING = "clearing"
    """Violated before; the condition holds again, for less time than `clear_after`."""
    UNKNOWN = "unknown"
    """Undecided for lack of usable values, and not violated before."""


class IfUnknown(enum.StrEnum):
    """The verdict to count for an unknown outcome."""

    UNKNOWN = "unknown"
    """No verdict is counted."""
    VIOLATED = "violated"
    """Fail safe: an undecided constraint counts as violated."""
    SATISFIED = "satisfied"
    """An undecided constraint counts as satisfied."""


class Scope(enum.StrEnum):
    """The subject of a constraint."""

    NODE = "node"
    """Each node for itself: its own measurements."""
    FLEET = "fleet"
    """All nodes together: the list `nodes`, with their shared readings."""


class Mode(enum.StrEnum):
    """The consequence of a violation. The mode has no effect on the verdict."""

    AUDIT = "audit"
    """The verdict is shown and counted apart, and is not told."""
    WARN = "warn"
    """A violation is told."""
    ENFORCE = "enforce"
    """A violation is told, and acted on."""


class EventKind(enum.StrEnum):
    """The kind of an event."""

    ADDED = "added"
    """A constraint became active."""
    CHANGED = "changed"
    """The definitions in force for a constraint changed."""
    REMOVED = "removed"
    """A constraint is no longer active, because of a removal."""
    EXPIRED = "expired"
    """A constraint is no longer active, because its lifetime ended."""
    DISABLED = "disabled"
    """A constraint, or all of them (without a constraint), is not evaluated on any node. The detail has the end."""
    ENABLED = "enabled"
    """A disabled constraint, or all of them, is evaluated again."""
    PARAMETER = "parameter"
    """A setting of a parameter changed. The detail has the setting."""
    CONFLICT = "conflict"
    """Concurrent edits left several definitions of a constraint in force. The detail has their number and the nodes."""
    VIOLATED = "violated"
    """A constraint became violated on this node: the state is violated. The detail has the values and the margin."""
    SATISFIED = "satisfied"
    """A violated constraint holds again on this node. The detail has the length of the violation."""
    PEER_UP = "peer up"
    PEER_DOWN = "peer down"
    DUPLICATE_NAME = "duplicate name"
    """Another live node has this node's name."""
    DIVERGED = "diverged"
    """A peer has this node's clock and another state hash: the state of either node is damaged."""
    REPAIRED = "repaired"
    """Cells of this node differed from a peer's and were repaired. The detail has their number since the start."""
    CLOCK_SKEW = "clock skew"
    """The difference between a peer's clock and this node's exceeds the bound. The detail has the lead of the peer's clock."""
    CLOCK_STEPPED = "clock stepped"
    """This node's clock was set, forth or back. The detail has by how much."""
    CLOCK_DOUBTED = "clock doubted"
    """This node's clock differs from at least half of those that it hears. The detail has whose time it goes by."""
    CLOCK_TRUSTED = "clock trusted"
    """The doubt about this node's clock ended."""
    ROLLED_BACK = "rolled back"
    """This node's store had been put back: it lacked writes that this node had made. The detail has their numbers."""
    NEW_LIFE = "new life"
    """This node continues as a new incarnation, because its former life may have unknown writes."""
    RETIRED = "retired"
    """A node was retired."""
    RETIREMENT_UNDONE = "retirement undone"
    """A retired node is in service again."""
    REVOKED = "revoked"
    """The keys of a node were revoked. The detail has the operators, and the reason."""
    FORKED = "forked"
    """Two different rows of a writer were seen: it runs twice, or lies. The longer row stands."""
    TILE_PUT = "tile put"
    """A tile has new content, or exists again after a deletion."""
    TILE_DELETED = "tile deleted"
    BUDGET_ADDED = "budget added"
    """A budget was defined. The detail has the limit and the lease."""
    BUDGET_CHANGED = "budget changed"
    """A budget has another limit, or other shares."""
    BUDGET_REMOVED = "budget removed"
    BUDGET_CONFLICT = "budget conflict"
    """Several limits of a budget were set at once. The lowest holds until another is set."""
    BUDGET_STRANDED = "budget stranded"
    """Rights of a budget are out of reach: their nodes are away. The detail has the nodes and the amounts."""
    BUDGET_REACHABLE = "budget reachable"
    """All rights of a budget can be reached again."""
    TROUBLE = "trouble"
    """Writes are refused. The detail has the reason."""
    RECOVERED = "recovered"
    """Writes are accepted again."""
    ALERT = "alert"
    """An alert of this node fired. The detail has the rule and the reason."""
    ALERT_RESOLVED = "alert resolved"
    """The condition of a fired alert ended."""
    SILENCED = "silenced"
    """Alerts are silenced, or an alert was acknowledged. The detail has the alerts, the end and the reason."""
    ROLLOUT = "rollout"
    """A rollout of definitions began a stage, stopped, was completed or rolled back. The detail has its id, and why it stopped."""
    SILENCE_ENDED = "silence ended"
    """A silence or an acknowledgement was ended early."""
    MISSED = "missed"
    """This subscriber was too slow. The detail has the number of lost events."""


def check_kinds(kinds: Collection[str]) -> frozenset[str]:
    """The kinds of events, also with hyphens. Raises `ConstraintCrdtError` for an unknown kind."""
    known = [kind.value for kind in EventKind]
    found = []
    for kind in (kinds,) if isinstance(kinds, str) else kinds:
        text = kind.replace("-", " ").replace("_", " ")
        if text not in known:
            shown = ", ".join(each.replace(" ", "-") for each in known)
            raise ConstraintCrdtError(f"there is no kind of event {kind!r}: there are {shown}", field="kind")
        found.append(text)
    return frozenset(found)


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An occurrence on a node."""

    kind: EventKind
    time: int
    """ns since the epoch, by this node's clock."""
    constraint: str = ""
    node: str = ""
    room: str = ""
    tile: str = ""
    budget: str = ""
    detail: str = ""
    actor: str = ""
    """Who caused the change, by the audit: a person, a token, a program; empty if unknown."""
    by: str = ""
    """The node on which the actor caused the change."""
    why: str = ""
    """The reason that the actor gave."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The present readings, and their changes since the last notice."""

    hash: str
    """Of the state, hex."""
    constraints_hash: str
    """Of the definitions in force, hex."""
    version: int
    """Rises when readings change without a change of the state. Never decreases between two starts of a node."""
    constraints: tuple[str, ...] | None
    """The changed constraints, ordered. None for a large number."""
    nodes: tuple[str, ...] | None
    """The nodes with writes, arrival, departure or evidence. None for a large number."""


class DurationHistogram:
    """Counts each duration in the first bucket with a bound not below the duration."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: the upper bound of each bucket in seconds, rising. A further bucket takes longer durations."""
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        """The sum of all durations, in seconds."""

    def note(self, seconds: float) -> None:
        """Count a duration, in seconds."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def up_to(self) -> list[int]:
        """The number of durations up to each bound; last, the number of all durations."""
        return list(accumulate(self._counts))


def counted(count: int, noun: str, one: str = "", more: str = "") -> str:
    """A number with its noun, and if given with its verb: `1 node`, `2 nodes`; `1 node is`, `2 nodes are`."""
    return f"{count} {noun} {one}".rstrip() if count == 1 else f"{count} {noun}s {more}".rstrip()


def close_to(name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names closest to a mistyped name, the closest first: at most `most`, none if none is close to it."""
    from difflib import get_close_matches  # rarely needed: kept out of the import of the package

    return get_close_matches(name, list(known), most, cutoff)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint on a mistyped name: the known name closest to it, or all of them."""
    names = list(known)
    near = close_to(name, names)
    return f"`{near[0]}` may be meant" if near else f"there are {', '.join(names)}"


def html_table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], total: int) -> str:
    """A table with a caption. `columns`: its head. `rows`: the cells, texts or numbers. `total`: the number of rows in all."""
    head = "".join(f"<th>{_escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in islice(rows, MOST_ROWS))
    more = f"<p>and {total - MOST_ROWS} more</p>" if total > MOST_ROWS else ""
    return f"<table><caption>{_escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def html_fields(caption: str, fields: Sequence[tuple[str, object]]) -> str:
    """A table of names and values, a row each."""
    rows = "".join(f"<tr><th>{_escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in fields)
    return f"<table><caption>{_escape(caption)}</caption><tbody>{rows}</tbody></table>"


def _escape(text: str) -> str:
    from html import escape  # for notebooks only

    return escape(text)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return _escape(f"{value:.4g}" if isinstance(value, float) else str(value))


Label = tuple[str, str]
"""A key and its value."""


class Operator(enum.StrEnum):
    """The relation of a requirement that is no equality."""

    EXISTS = "exists"
    ABSENT = "!"
    IN = "in"
    NOT_IN = "notin"


class Requirement(NamedTuple):
    """A requirement of a selector beyond equality."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()
    """Ordered; several of `in`, one or more of `notin`."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels matches. `notin` matches a node without the label, as in Kubernetes."""
        value = labels.get(self.key)
        if self.operator is Operator.EXISTS:
            return value is not None
        if self.operator is Operator.ABSENT:
            return value is None
        return (value in self.values) is (self.operator is Operator.IN)

    def __str__(self) -> str:
        """As it is parsed."""
        key = _written(self.key)
        if self.operator is Operator.EXISTS:
            return key
        if self.operator is Operator.ABSENT:
            return f"!{key}"
        if self.operator is Operator.NOT_IN and len(self.values) == 1:
            return f"{key}!={_written(self.values[0])}"
        return f"{key} {self.operator} ({', '.join(map(_written, self.values))})"


class Selector(NamedTuple):
    """Requirements on the labels of a node, in canonical order."""

    equal: tuple[Label, ...] = ()
    """Labels required of a node, ordered by key."""
    requirements: tuple[Requirement, ...] = ()
    """The requirements beyond equality, ordered."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels matches each requirement."""
        return all(labels.get(key) == value for key, value in self.equal) and all(
            each.matches(labels) for each in self.requirements
        )

    @property
    def is_everything(self) -> bool:
        """True without requirements: each node matches."""
        return not (self.equal or self.requirements)

    @property
    def specificity(self) -> int:
        """The number of requirements. Of several selectors for a node, that with the most is the most specific."""
        return len(self.equal) + len(self.requirements)

    def __str__(self) -> str:
        """As it is parsed, the equalities first; empty without requirements."""
        equal = [f"{_written(key)}={_written(value)}" for key, value in self.equal]
        return ", ".join([*equal, *map(str, self.requirements)])


EVERYTHING: Final = Selector()
"""Matches each node."""


class SelectorError(ConstraintCrdtError, ValueError):
    """A text that is no selector. `str()` is a sentence with the position."""


def make_selector(equal: Iterable[Label], requirements: Iterable[Requirement] = ()) -> Selector:
    """A selector in canonical form. Raises `SelectorError` for a label with two values."""
    required = dict[str, str]()
    others = set[Requirement]()
    singles = []
    for each in requirements:
        values = tuple(sorted(set(each.values)))
        if each.operator is Operator.IN and len(values) == 1:
            singles.append((each.key, values[0]))
        else:
            others.add(each._replace(values=values))
    for key, value in [*equal, *singles]:
        if required.setdefault(key, value) != value:
            raise SelectorError(
                f"on: the label {key} has two values; give one, or `{_written(key)} in ({_written(required[key])}, "
                f"{_written(value)})` for nodes with either",
                field="on",
            )
    return Selector(tuple(sorted(required.items())), tuple(sorted(others)))


_BARE: Final = re.compile(r'[^\s,()=!<>"]+')
"""A text that needs no quotes anywhere."""

_KEY: Final = _BARE
_VALUE: Final = re.compile(r'[^,()"]+')
_SPACE: Final = re.compile(r"\s*")
_SEVERAL: Final = re.compile(r"\s\S*[=!]|\s+\S+\s+(?:not)?in\s*\($")
"""In a value: a further requirement after a missing comma."""


def _written(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def parse_selector(text: str) -> Selector:
    """The selector in a text. Raises `SelectorError` with the position of a mistake, and for a text without a requirement."""
    return make_selector(*_Parser(text).parse())


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._skip()

    def parse(self) -> tuple[list[Label], list[Requirement]]:
        if self._at == len(self._text):
            raise SelectorError("the selector is empty: leave it out for all nodes", field="on")
        equal: list[Label] = []
        others: list[Requirement] = []
        while True:
            found = self._requirement()
            if isinstance(found, Requirement):
                others.append(found)
            else:
                equal.append(found)
            if self._at == len(self._text):
                return equal, others
            if not self._take(","):
                raise self._error("a comma between two requirements")

    def _requirement(self) -> Label | Requirement:
        if self._take("!"):
            return Requirement(self._word(_KEY, "a key after `!`"), Operator.ABSENT)
        key = self._word(_KEY, "the key of a label")
        if self._take("!="):
            return Requirement(key, Operator.NOT_IN, (self._value(),))
        if self._take("==") or self._take("="):
            return key, self._value()
        for operator in (Operator.NOT_IN, Operator.IN):
            if self._text.startswith(operator, self._at):
                self._at += len(operator)
                self._skip()
                return Requirement(key, operator, self._values(operator))
        return Requirement(key, Operator.EXISTS)

    def _values(self, operator: Operator) -> tuple[str, ...]:
        if not self._take("("):
            raise self._error(f"`(` after `{operator}`")
        found = [self._value()]
        while not self._take(")"):
            if not self._take(","):
                raise self._error("`,` or `)`")
            found.append(self._value())
        return tuple(found)

    def _value(self) -> str:
        start = self._at
        value = self._word(_VALUE, "a value")
        if self._text[start] != '"' and (several := _SEVERAL.search(self._text, start, self._at + 1)):
            self._at = several.start()
            raise self._error("a comma between two requirements, or a value in quotes")
        return value

    def _word(self, form: re.Pattern[str], what: str) -> str:
        """A text in quotes, or of a form without them."""
        if self._text.startswith('"', self._at):
            try:
                word, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
            except ValueError:
                raise self._error("a text in double quotes with the escapes of JSON") from None
        else:
            found = form.match(self._text, self._at)
            word = found[0].strip() if found else ""
            if found is None or not word:
                raise self._error(what)
            self._at = found.end()
        self._skip()
        return str(word)

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        self._skip()
        return True

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _error(self, expected: str) -> SelectorError:
        rest = self._text[self._at :].lstrip()
        before = f"not {rest[:12]!r}" if rest else "and the text ends"
        hint = ": a selector knows =, !=, in, notin and the presence of a label" if rest[:1] in ("<", ">") else ""
        place = len(self._text) - len(rest) + 1
        return SelectorError(
            f"on: {self._text!r} is no selector: expected {expected} at character {place}, {before}{hint}", field="on"
        )
