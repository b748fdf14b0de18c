"""The nodes of the fleet with their shared readings, and the values of expressions over them, kept up to date. Pure.

Rules kept here:

- The body of an aggregate (`aggregates`) is evaluated for a node when a field that it reads moved, and at no other time: once for
  all aggregates that share the column.
- A body that cannot be evaluated for a node leaves an aggregate between two bounds. The expression is evaluated with the bound that
  is worst for it, then with the best: true in the worst case is satisfied, false in the best case is violated, anything else
  unknown. Where the direction of an aggregate is not known, as in `count(…) == 3`, an aggregate with two bounds has no value.
- A reading that is older than it may be counts as missing. The time is an argument: hybrid time, in ns since the epoch.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.expression.aggregates import CONDITIONS, NODES, Column, FleetExpression, Part, cut
from constraint_crdt.expression.cel import (
    ExpressionError,
    Measurements,
    Outcome,
    Verdict,
    assembled,
    environment,
    measurements,
)
from constraint_crdt.expression.temporal import Margin, margin
from constraint_crdt.model import EVERYTHING, Selector
from constraint_crdt.types.definition import Definition
from constraint_crdt.types.variables import Reading

if TYPE_CHECKING:
    from cel_expr_python import cel

SHOWN: Final = 3
"""Nodes named in a reason."""

# --- the nodes -----------------------------------------------------------------------------------------------------------


class NodeFacts(NamedTuple):
    """The known facts of a node of the fleet."""

    labels: Mapping[str, str]
    live: bool
    position: tuple[int, int] | None
    readings: Mapping[str, Reading]


class NodeEntry:
    """A node as expressions see it."""

    __slots__ = ("_ready", "facts", "name", "until", "values")

    def __init__(self, name: str, facts: NodeFacts, now: int, max_age: int | None) -> None:
        self.name = name
        self.facts = facts
        usable: dict[str, object] = {}
        first, nested = None, False
        for variable, reading in facts.readings.items():
            until = reading.until if max_age is None else reading.time + max_age
            if now <= until:
                usable[variable] = reading.value
                nested = nested or "." in variable
                if first is None or until < first:
                    first = until
        self.until: int | None = first
        """The time at which the first reading that counts ages; None: none does."""
        values = dict(assembled(usable, {})) if nested else usable
        values |= {"name": name, "labels": dict(facts.labels), "live": facts.live}
        if facts.position is not None:
            values["position"] = {"a": float(facts.position[0]), "b": float(facts.position[1])}
        self.values: dict[str, object] = values
        self._ready: dict[str, cel.Activation] = {}

    def activation(self, variable: str) -> "cel.Activation":
        """The node in the library's own form, as this variable."""
        ready = self._ready.get(variable)
        if ready is None:
            ready = self._ready[variable] = environment().activation({variable: self.values})
        return ready


class FleetNodes:
    """The nodes of the fleet, brought up to date by `note` and `refresh`; each change of a field has a number."""

    def __init__(self, facts: Callable[[str], NodeFacts | None], max_age: int | None = None) -> None:
        """`facts`: of a node; None out of service. `max_age`: ns, in place of that of the readings."""
        self._facts = facts
        self._max_age = max_age
        self._pending: dict[str, None] = {}
        self._ages: list[tuple[int, str]] = []
        self._queued: dict[str, int] = {}
        self._moves: dict[str, dict[str, int]] = {}
        """By field, the nodes with the number of its last change, in the order of the changes; "" for nodes that came or went."""
        self.entries: dict[str, NodeEntry] = {}
        self.version = 0
        """The number of the last change."""
        self.now = 0
        """The time of the last refresh."""
        self._asked = 0
        self._answers: dict[tuple[frozenset[str] | None, int], set[str]] = {}
        """Those of `changed` at the version `_asked`: columns of the same readings ask the same."""
        self._columns: WeakValueDictionary[Hashable, NodeColumn] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"FleetNodes({len(self.entries)} nodes, {len(self._columns)} columns)"

    def note(self, names: Iterable[str]) -> None:
        """Something about these nodes may have changed."""
        self._pending.update(dict.fromkeys(names))

    def refresh(self, now: int) -> bool:
        """Take in the changes since the last call, aged readings included. True if a field changed."""
        self.now, before = max(now, self.now), self.version
        while self._ages and self._ages[0][0] < self.now:
            _, name = heappop(self._ages)
            self._queued.pop(name, None)
            self._pending[name] = None
        pending, self._pending = self._pending, {}
        for name in pending:
            self._renew(name)
        return self.version != before

    def _renew(self, name: str) -> None:
        facts, before = self._facts(name), self.entries.get(name)
        after = None if facts is None else NodeEntry(name, facts, self.now, self._max_age)
        if after is None:
            if before is not None:
                del self.entries[name]
                self._move(name, ("",))
            return
        self.entries[name] = after
        if after.until is not None and after.until < self._queued.get(name, after.until + 1):
            self._queued[name] = after.until
            heappush(self._ages, (after.until, name))
        if before is None:
            self._move(name, ("",))
            return
        was, is_ = before.values, after.values
        self._move(name, [each for each in was.keys() | is_.keys() if not _same(was.get(each), is_.get(each))])

    def _move(self, name: str, fields: Iterable[str]) -> None:
        for field in fields:
            self.version += 1
            moved = self._moves.get(field)
            if moved is None:
                moved = self._moves[field] = {}
            else:
                moved.pop(name, None)
            moved[name] = self.version

    def changed(self, fields: frozenset[str] | None, since: int) -> Set[str]:
        """The nodes of which one of these fields changed after this number, or that came or went. None: any field."""
        if self._asked != self.version:
            self._asked, self._answers = self.version, {}
        key = fields, since
        found = self._answers.get(key)
        if found is None:
            found = self._answers[key] = set()
            for field in self._moves if fields is None else {"", *fields}:
                for name, version in reversed(self._moves.get(field, {}).items()):
                    if version <= since:
                        break
                    found.add(name)
        return found

    def column(self, column: Column, selector: Selector = EVERYTHING) -> "NodeColumn":
        """The column over the nodes that a selector chooses. All who ask for it share it."""
        key = column.form, selector
        found = self._columns.get(key)
        if found is None:
            found = self._columns[key] = NodeColumn(self, column, selector)
        return found


def _same(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) and (one == other or (one != one and other != other)))


# --- evaluations -------------------------------------------------------------------------------------------------------------

_Value = bool | int | float


class _Distribution:
    """The values of some nodes, counted by kind, the numbers in order."""

    __slots__ = ("_came", "_gone", "by_node", "falses", "none", "not_numbers", "numbers", "trues")

    def __init__(self) -> None:
        self.by_node: dict[str, bool | float | None] = {}
        self.trues = self.falses = self.not_numbers = 0
        """`not_numbers`: of the doubles, those that are NaN, which has no place in an order."""
        self.numbers: list[float] = []
        """The other doubles, in ascending order once `arrange` was called."""
        self.none: set[str] = set()
        """The nodes without a value."""
        self._came: list[float] = []
        self._gone: list[float] = []

    def put(self, name: str, value: bool | float | None) -> None:
        """A node has this value."""
        before = self.by_node.get(name)
        if type(before) is float and type(value) is float and before == before and value == value:  # the usual move
            if before != value or not value:
                self.by_node[name] = value
                self._came.append(value)
                self._gone.append(before)
            return
        if name in self.by_node:
            self._count(name, before, -1)
        self.by_node[name] = value
        self._count(name, value, 1)

    def drop(self, name: str) -> None:
        """A node does not belong any more."""
        self._count(name, self.by_node.pop(name), -1)

    def _count(self, name: str, value: bool | float | None, by: int) -> None:
        if type(value) is float:
            if value == value:
                (self._came if by > 0 else self._gone).append(value)
            else:
                self.not_numbers += by
        elif value is True:
            self.trues += by
        elif value is False:
            self.falses += by
        elif by > 0:
            self.none.add(name)
        else:
            self.none.discard(name)

    def arrange(self) -> None:
        """Put the numbers that came and went since the last call into the order."""
        came, gone, numbers = self._came, self._gone, self.numbers
        if not came and not gone:
            return
        if len(came) + len(gone) > len(numbers) // _SORTED_ANEW or 0.0 in gone:  # which of 0.0 and -0.0 the order does not tell
            self.numbers = sorted(each for each in self.by_node.values() if type(each) is float and each == each)
        else:
            for each in came:
                insort(numbers, each)
            for each in gone:
                del numbers[bisect_left(numbers, each)]
        self._came, self._gone = [], []


_SORTED_ANEW: Final = 4
"""Numbers are sorted anew when a share of 1 / this of them changed: that is faster than to place each then."""


class NodeColumn:
    """A column over the nodes that a selector chooses, kept up to date with them. A moved node costs O(log n) at most."""

    def __init__(self, nodes: FleetNodes, column: Column, selector: Selector) -> None:
        self._nodes = nodes
        self._filters, self._body = column.filters, column.body
        self._selector = selector
        fields = column.fields
        self._fields = fields if selector.is_everything or fields is None else fields | {"labels"}
        self._seen = -1
        self.moved = 0
        """The number of the last change that the column reads, as `FleetNodes.version`."""
        self.sure = _Distribution()
        """The values of the nodes that pass the filters."""
        self.maybe = _Distribution()
        """Of those of which it is unknown whether they do."""
        self._out = _Distribution()
        self._place: dict[str, _Distribution] = {}

    @property
    def selected(self) -> Set[str]:
        """The nodes that the selector chooses."""
        return self._place.keys()

    def refresh(self) -> int:
        """Take in the changes since the last call by any user of the column. Returns `moved`."""
        nodes, seen = self._nodes, self._seen
        if seen != nodes.version:
            self._seen = nodes.version
            if self._take(nodes.changed(self._fields, seen) if seen >= 0 else nodes.entries.keys()):
                self.moved = nodes.version
        return self.moved

    def _take(self, names: Iterable[str]) -> bool:
        """Read these nodes anew. True if the selector chooses any of them, or did."""
        entries, places, sure, body, everything = (
            self._nodes.entries,
            self._place,
            self.sure,
            self._body,
            self._selector.is_everything,
        )
        any_ = False
        for name in names:
            entry, before = entries.get(name), places.get(name)
            if entry is None or not (everything or self._selector.matches(entry.facts.labels)):
                if before is not None:
                    any_ = True
                    del places[name]
                    before.drop(name)
                continue
            any_ = True
            place = self._pass(entry) if self._filters else sure
            if place is not before:
                if before is not None:
                    before.drop(name)
                places[name] = place
            place.put(name, None if body is None or place is self._out else body.value(entry))
        sure.arrange()
        self.maybe.arrange()
        return any_

    def _pass(self, entry: NodeEntry) -> _Distribution:
        """Where a node belongs by the filters."""
        place = self.sure
        for each in self._filters:
            found = each.value(entry)
            if found is False:
                return self._out
            if found is not True:
                place = self.maybe
        return place


class _Aggregated:
    """The bounds of an aggregate, by the values of its column."""

    def __init__(self, part: Part, column: NodeColumn) -> None:
        self.part = part
        self.column = column
        self._at = -1
        self._bounds: tuple[_Value, _Value] | None = None

    def bounds(self) -> tuple[_Value, _Value] | None:
        """The least and the greatest value; None without any, as of the mean of no node."""
        if self._at != self.column.moved:
            self._at = self.column.moved
            self._bounds = self._bounds_of_condition() if self.part.function in CONDITIONS else self._bounds_of_values()
        return self._bounds

    def _bounds_of_condition(self) -> tuple[_Value, _Value] | None:
        function, column = self.part.function, self.column
        members, maybe_members = len(column.sure.by_node), len(column.maybe.by_node)
        if self.part.column.body is None:
            return members, members + maybe_members
        holds, fails, unknown = self._count(column.sure)
        maybe_holds, maybe_fails, maybe_unknown = self._count(column.maybe) if maybe_members else (0, 0, 0)
        if function == "all":
            return fails + unknown + maybe_fails + maybe_unknown == 0, fails == 0
        most = holds + unknown + maybe_holds + maybe_unknown
        if function == "exists":
            return holds > 0, most > 0
        if function != "share_of":
            return holds, most
        if not members:
            return (0.0, 1.0) if maybe_members else None
        return holds / (members + maybe_members), min(1.0, most / members)

    def _count(self, values: _Distribution) -> tuple[int, int, int]:
        """The numbers of nodes for which the condition holds, fails, and is unknown."""
        threshold = self.part.threshold
        if threshold is None:
            return values.trues, values.falses, len(values.by_node) - values.trues - values.falses
        known = len(values.numbers) + values.not_numbers  # any comparison with NaN fails
        holds = threshold.count(values.numbers)
        return holds, known - holds, len(values.by_node) - known

    def _bounds_of_values(self) -> tuple[float, float] | None:
        function, sure, maybe = self.part.function, self.column.sure, self.column.maybe
        unknown = len(sure.by_node) - len(sure.numbers) - sure.not_numbers
        if not sure.by_node:
            return (-math.inf, math.inf) if maybe.by_node else (0.0, 0.0) if function == "sum" else None
        if sure.not_numbers:
            return math.nan, math.nan
        if function in ("max", "min"):
            return self._extremes(function, unknown)
        if maybe.by_node or (unknown and function != "quantile"):
            return -math.inf, math.inf
        if function == "quantile":
            low, high = ([-math.inf] * unknown) + sure.numbers, sure.numbers + [math.inf] * unknown
            return _quantile(low, self.part.fraction), _quantile(high, self.part.fraction)
        total = _total(sure.numbers)
        result = total if function == "sum" else total / len(sure.numbers)
        return result, result

    def _extremes(self, function: str, unknown: int) -> tuple[float, float]:
        sure, maybe = self.column.sure.numbers, self.column.maybe.numbers
        open_ended = unknown or len(maybe) < len(self.column.maybe.by_node)
        if function == "max":
            low = sure[-1] if sure else -math.inf
            return low, math.inf if open_ended else max([low, *maybe[-1:]])
        high = sure[0] if sure else math.inf
        return -math.inf if open_ended else min([high, *maybe[:1]]), high

    @property
    def open(self) -> set[str]:
        """The nodes with unknown membership or an unknown value. O(nodes) if there are values that the function cannot use."""
        sure, maybe, function = self.column.sure, self.column.maybe, self.part.function
        if self.part.column.body is None or function not in CONDITIONS:
            found = set(maybe.by_node)
        else:
            found = {name for name, value in maybe.by_node.items() if self._holds(value) is not (function == "all")}
        if self.part.column.body is None:
            return found
        of_bools = function in CONDITIONS and self.part.threshold is None
        odd = len(sure.numbers) + sure.not_numbers if of_bools else sure.trues + sure.falses
        if not odd:
            return found | sure.none
        return found | {name for name, value in sure.by_node.items() if value is None or (type(value) is float) is of_bools}

    def _holds(self, value: bool | float | None) -> bool | None:
        if self.part.threshold is not None:
            return self.part.threshold.holds(value)
        return value if isinstance(value, bool) else None


def _total(values: Iterable[float]) -> float:
    """The sum, exact but for the last rounding."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):  # beyond a double, or infinities of both signs
        return sum(values)


def _quantile(ordered: list[float], fraction: float) -> float:
    """The quantile, interpolated linearly between the two nearest values."""
    place = fraction * (len(ordered) - 1)
    below = ordered[math.floor(place)]
    above = ordered[math.ceil(place)]
    part = place - math.floor(place)
    if below == above or not part:
        return below
    return below if math.isinf(below) else above if math.isinf(above) else below + (above - below) * part


class Basis(NamedTuple):
    """The basis of a verdict."""

    nodes: int
    """The nodes that the definition selects."""
    read: int
    """Those with all readings."""
    oldest: int | None
    """The age of the oldest reading used, in ns; None without any."""
    needed: bool
    """Readings are needed."""

    @property
    def text(self) -> str:
        """For people."""
        if not self.needed:
            return f"{self.nodes} node{'s'[: self.nodes != 1]}"
        age = "" if self.oldest is None else f", the oldest {max(0, self.oldest) / SECOND:.0f} s old"
        return f"readings of {self.read} of {self.nodes} node{'s'[: self.nodes != 1]}{age}"


class FleetEvaluation:
    """An expression over the nodes that a selector chooses, kept up to date with them."""

    def __init__(self, expression: FleetExpression, nodes: FleetNodes, definition: Definition) -> None:
        self._expression = expression
        self._nodes = nodes
        selector = definition.selector
        self._selection = nodes.column(Column(), selector)
        self._aggregates = [_Aggregated(part, nodes.column(part.column, selector)) for part in expression.parts]
        self._columns = [*dict.fromkeys(each.column for each in self._aggregates)]
        if expression.native or not self._columns:
            self._columns.append(nodes.column(Column(fields=expression.fields), selector))
        self._seen = -1
        self._list: list[object] | None = None

    def __repr__(self) -> str:
        return f"FleetEvaluation({self._expression.source!r}, {len(self.selected)} nodes)"

    @property
    def needs(self) -> frozenset[str]:
        """The variables that nodes have to share."""
        return self._expression.needs

    @property
    def selected(self) -> Set[str]:
        """The nodes that the definition selects."""
        self._selection.refresh()
        return self._selection.selected

    def refresh(self) -> bool:
        """Take in the changes since the last call. True if the expression reads any of them."""
        seen, self._seen = self._seen, self._nodes.version
        if seen == self._seen:
            return False
        moved = max([each.refresh() for each in self._columns]) > seen
        if moved:
            self._list = None
        return moved

    # --- results -------------------------------------------------------------------------------------------------------

    def evaluate(self) -> Outcome:
        """The outcome over the nodes as of the last refresh."""
        worst, best = self._corners()
        outcome = self._decided(worst)
        if best is worst:
            return self._with_reason(outcome)
        if outcome.verdict is Verdict.SATISFIED:
            return outcome
        outcome = self._decided(best)
        if outcome.verdict is Verdict.VIOLATED:
            return outcome
        return self._with_reason(Outcome(Verdict.UNKNOWN, outcome.reason))

    def _decided(self, values: dict[str, object]) -> Outcome:
        """The outcome by these values of the aggregates."""
        found = None if self._expression.quick is None else self._expression.quick(values)
        if found is True:
            return _SATISFIED
        return _VIOLATED if found is False else self._expression.expression.evaluate(Measurements(values, {}))

    def margin(self) -> Margin | None:
        """The distance to the threshold. Where readings are missing, it is at least as far: the values nearest to it count."""
        verdict = self.evaluate().verdict
        worst, best = self._corners()
        if verdict is Verdict.UNKNOWN:
            return None
        values = worst if verdict is Verdict.SATISFIED else best
        found = margin(self._expression.expression, Measurements(values, {}))
        if found is None:
            return None
        texts = {part.name: part.text for part in self._expression.parts}
        return found._replace(variable=texts.get(found.variable, cut(found.variable)))

    def values(self) -> Measurements:
        """The aggregates, as they are written, and their basis."""
        shown: dict[str, object] = {}
        for aggregate in self._aggregates:
            bounds = aggregate.bounds()
            if bounds is not None:
                low, high = bounds
                shown[aggregate.part.text] = low if _same(low, high) else f"{low} to {high}"
        return Measurements({**shown, NODES: self.basis().text}, {})

    def basis(self) -> Basis:
        """The basis of the verdict. O(nodes)."""
        needs, read, oldest = self._expression.needs, 0, None
        tops = {need.partition(".")[0] for need in needs}
        for name in self.selected:
            entry = self._nodes.entries[name]
            read += tops <= entry.values.keys()
            for variable, reading in entry.facts.readings.items():
                if variable.partition(".")[0] in tops and variable.partition(".")[0] in entry.values:
                    age = self._nodes.now - reading.time
                    oldest = age if oldest is None else max(oldest, age)
        return Basis(len(self.selected), read, oldest, bool(needs))

    def _corners(self) -> tuple[dict[str, object], dict[str, object]]:
        """The values that are worst for the expression, and the best ones; the same object where all are known."""
        worst: dict[str, object] = {}
        best: dict[str, object] = {}
        for aggregate in self._aggregates:
            bounds, part = aggregate.bounds(), aggregate.part
            if bounds is None:
                continue
            low, high = bounds
            if _same(low, high):
                worst[part.name] = best[part.name] = low
            elif part.direction:
                worst[part.name], best[part.name] = (low, high) if part.direction > 0 else (high, low)
        if self._expression.native:
            if self._list is None:
                self._list = [self._nodes.entries[name].values for name in sorted(self.selected)]
            worst[NODES] = best[NODES] = self._list
        return worst, worst if all(value is best[name] for name, value in worst.items()) else best

    def _with_reason(self, outcome: Outcome) -> Outcome:
        """The outcome with the nodes and readings that are missing, if it is unknown."""
        if outcome.verdict is not Verdict.UNKNOWN:
            return outcome
        open_ = set().union(*(aggregate.open for aggregate in self._aggregates))
        if self._expression.native:
            open_ |= self.selected
        open_ &= self._nodes.entries.keys()  # a node may have left since the last refresh
        tops = sorted({need.partition(".")[0] for need in self._expression.needs})
        lacking = {top: [name for name in sorted(open_) if top not in self._nodes.entries[name].values] for top in tops}
        reasons = [f"no reading of {top} from {self._named(top, names)}" for top, names in lacking.items() if names]
        if reasons:
            return Outcome(Verdict.UNKNOWN, "; ".join(reasons))
        if open_ and not self._expression.native:
            return Outcome(Verdict.UNKNOWN, f"the evaluation fails for {self._named('', sorted(open_))}")
        empty = next((aggregate.part.text for aggregate in self._aggregates if aggregate.bounds() is None), None)
        if empty is not None:
            return Outcome(Verdict.UNKNOWN, f"no node for `{empty}`")
        return outcome

    def _named(self, variable: str, names: list[str]) -> str:
        shown = []
        for name in names[:SHOWN]:
            reading = self._nodes.entries[name].facts.readings.get(variable)
            age = "" if reading is None else f" ({max(0, self._nodes.now - reading.time) / SECOND:.0f} s old)"
            shown.append(f"{name}{age}")
        more = len(names) - len(shown)
        return ", ".join(shown) + (f" and {more} more" if more else "")


_SATISFIED: Final = Outcome(Verdict.SATISFIED, "")
_VIOLATED: Final = Outcome(Verdict.VIOLATED, "")


class FleetCondition:
    """A definition of scope fleet, evaluated over the nodes."""

    def __init__(self, definition: Definition, nodes: FleetNodes) -> None:
        self._when = _evaluation(definition.when or "", nodes, definition)
        self._clear = None if definition.clear_when is None else _evaluation(definition.clear_when, nodes, definition)

    def refresh(self) -> bool:
        """Take in the changes. True if `when` or `clear_when` reads any of them."""
        moved = isinstance(self._when, FleetEvaluation) and self._when.refresh()
        return (isinstance(self._clear, FleetEvaluation) and self._clear.refresh()) or moved

    def outcome(self) -> Outcome:
        """The outcome of `when`."""
        return self._when.evaluate() if isinstance(self._when, FleetEvaluation) else self._when

    def clear_outcome(self) -> Outcome:
        """The outcome of `clear_when`."""
        if self._clear is None:
            return self.outcome()
        return self._clear.evaluate() if isinstance(self._clear, FleetEvaluation) else self._clear

    def margin(self) -> Margin | None:
        """The distance to the threshold of `when`."""
        return self._when.margin() if isinstance(self._when, FleetEvaluation) else None

    def values(self) -> Measurements:
        """The aggregates of `when`, and their basis."""
        return self._when.values() if isinstance(self._when, FleetEvaluation) else measurements({})

    @property
    def needs(self) -> frozenset[str]:
        """The variables that nodes have to share."""
        evaluations = [each for each in (self._when, self._clear) if isinstance(each, FleetEvaluation)]
        return frozenset[str]().union(*(each.needs for each in evaluations))

    def basis(self) -> Basis | None:
        """The basis of the verdict; None for a `when` that cannot be evaluated here."""
        return self._when.basis() if isinstance(self._when, FleetEvaluation) else None


def _evaluation(source: str, nodes: FleetNodes, definition: Definition) -> FleetEvaluation | Outcome:
    try:
        return FleetEvaluation(FleetExpression(source), nodes, definition)
    except ExpressionError as error:
        return Outcome(Verdict.UNKNOWN, f"cannot be evaluated on this node: {error}")


class FleetView:
    """The nodes of the fleet for definitions with several maximum ages."""

    def __init__(self, names: Callable[[], Iterable[str]], facts: Callable[[str], NodeFacts | None]) -> None:
        """`names`: of all nodes. `facts`: see `FleetNodes`."""
        self._names = names
        self._facts = facts
        self._by_age: WeakValueDictionary[int | None, FleetNodes] = WeakValueDictionary()
        """As long as a definition with that maximum age has them."""
        self._now = 0
        self.version = 0
        """Grows when a field of a node changed."""

    def __repr__(self) -> str:
        return f"FleetView({dict(self._by_age)!r})"

    def nodes(self, max_age: int | None) -> FleetNodes:
        """The nodes with readings that are not older."""
        nodes = self._by_age.get(max_age)
        if nodes is None:
            nodes = self._by_age[max_age] = FleetNodes(self._facts, max_age)
            nodes.note(self._names())
            nodes.refresh(self._now)
            self.version += 1
        return nodes

    def with_readings(self, node: str, readings: Mapping[str, Reading]) -> "FleetView":
        """The nodes as they are now, but a node with these readings in place of its own ones. O(nodes) when it is read."""

        def facts(name: str) -> NodeFacts | None:
            found = self._facts(name)
            if name != node or found is None:
                return found
            return found._replace(readings={**found.readings, **readings})

        view = FleetView(self._names, facts)
        view.refresh(self._now)
        return view

    def note(self, names: Iterable[str]) -> None:
        """Something about these nodes may have changed."""
        for nodes in self._by_age.values():
            nodes.note(names)

    def refresh(self, now: int) -> bool:
        """Take in the changes up to this hybrid time. True if a field of a node changed."""
        self._now = now
        changed = sum(nodes.refresh(now) for nodes in self._by_age.values()) > 0
        self.version += changed
        return changed
