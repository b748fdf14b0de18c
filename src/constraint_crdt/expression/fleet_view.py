"""The nodes of the fleet with their shared readings, and the values of expressions over them, kept up to date. Pure.

Rules kept here:

- The body of an aggregate (`aggregates`) is evaluated for a node when a field that it reads moved, and at no other time.
- A body that cannot be evaluated for a node leaves an aggregate between two bounds. The expression is evaluated with the bound that
  is worst for it, then with the best: true in the worst case is satisfied, false in the best case is violated, anything else
  unknown. Where the direction of an aggregate is not known, as in `count(…) == 3`, an aggregate with two bounds has no value.
- A reading that is older than it may be counts as missing. The time is an argument: hybrid time, in ns since the epoch.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.expression.aggregates import NODES, FleetExpression, Part, cut
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
        self.until: int | None = None
        """The time at which the first reading that counts ages; None: none does."""
        usable: dict[str, object] = {}
        for variable, reading in facts.readings.items():
            until = reading.until if max_age is None else reading.time + max_age
            if now <= until:
                usable[variable] = reading.value
                self.until = until if self.until is None else min(self.until, until)
        values = dict(assembled(usable, {})) if any("." in each for each in usable) else usable
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
        """Those of `changed` at the version `_asked`: constraints on the same readings ask the same."""

    def __repr__(self) -> str:
        return f"FleetNodes({len(self.entries)} nodes)"

    def note(self, names: Iterable[str]) -> None:
        """Something about these nodes may have changed."""
        self._pending.update(dict.fromkeys(names))

    def refresh(self, now: int) -> bool:
        """Take in the changes since the last call, aged readings included. True if there were any."""
        self.now = max(now, self.now)
        while self._ages and self._ages[0][0] < self.now:
            _, name = heappop(self._ages)
            self._queued.pop(name, None)
            self._pending[name] = None
        pending, self._pending = self._pending, {}
        for name in pending:
            self._renew(name)
        return bool(pending)

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
            moved = self._moves.setdefault(field, {})
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


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))


# --- evaluations -------------------------------------------------------------------------------------------------------------

_Value = bool | int | float


class _Aggregated:
    """The values of an aggregate for the nodes, and the bounds that follow from them. A node costs O(1)."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._filters, self._body = part.filters, part.body
        self._judges = part.function in _CONDITIONS
        self._held: dict[str, tuple[bool | None, object]] = {}
        self.open: set[str] = set()
        """The nodes with unknown membership or an unknown value."""
        self._members = self._maybe_members = self._sure = self._maybe = 0
        self._values: dict[str, float] = {}
        self._maybe_values: dict[str, float] = {}

    def put_all(self, moved: Iterable[tuple[str, NodeEntry | None]]) -> None:
        """These nodes have other values; None: the node does not belong any more."""
        quick = None if self._filters or self._body is None else self._body.quick
        held, judges = self._held, self._judges
        for name, entry in moved:
            if quick is not None and entry is not None:  # most often: a comparison with the same outcome, or another number
                value, before = quick(entry.values), held.get(name)
                if before is not None and value is not None:
                    if before[1] is value:
                        continue
                    if not judges and type(value) is float and type(before[1]) is float:
                        held[name] = True, value
                        self._values[name] = value
                        continue
            self._put(name, entry)

    def _put(self, name: str, entry: NodeEntry | None) -> None:
        if entry is None:
            self._count(name, -1)
            self._held.pop(name, None)
            return
        belongs: bool | None = True
        for each in self._filters:
            found = each.value(entry)
            if found is False:
                belongs = False
                break
            if found is not True:
                belongs = None
        value = None if self._body is None or belongs is False else self._body.value(entry)
        self._count(name, -1)
        self._held[name] = belongs, value
        self._count(name, 1)

    def _count(self, name: str, by: int) -> None:
        held = self._held.get(name)
        if held is None or held[0] is False:
            return
        belongs, value = held
        if belongs:
            self._members += by
        else:
            self._maybe_members += by
        function = self.part.function
        if function == "size":
            undecided = belongs is None
        elif self._judges:
            holds = value if isinstance(value, bool) else None
            if function == "all" and holds is not None:
                holds = not holds
            undecided = holds is None or (holds and belongs is None)
            if undecided:
                self._maybe += by
            elif holds:
                self._sure += by
        else:
            known = type(value) is float
            undecided = not known or belongs is None
            if isinstance(value, float) and known:
                values = self._values if belongs else self._maybe_values
                if by > 0:
                    values[name] = value
                else:
                    del values[name]
        if undecided and by > 0:
            self.open.add(name)
        else:
            self.open.discard(name)

    def bounds(self) -> tuple[_Value, _Value] | None:
        """The least and the greatest value; None without any, as of the mean of no node."""
        function, sure, most = self.part.function, self._sure, self._sure + self._maybe
        if function == "size":
            return self._members, self._members + self._maybe_members
        if function == "count":
            return sure, most
        if function == "exists":
            return sure > 0, most > 0
        if function == "all":
            return most == 0, sure == 0
        if function == "share_of":
            if not self._members:
                return (0.0, 1.0) if self._maybe_members else None
            return sure / (self._members + self._maybe_members), min(1.0, most / self._members)
        return self._bounds_of_values()

    def _bounds_of_values(self) -> tuple[float, float] | None:
        function, values, unknown = self.part.function, self._values, self._members - len(self._values)
        if not self._members:
            return (-math.inf, math.inf) if self._maybe_members else (0.0, 0.0) if function == "sum" else None
        if any(map(math.isnan, values.values())):
            return math.nan, math.nan
        if function in ("max", "min"):
            return self._extremes(function, unknown)
        if self._maybe_members or (unknown and function != "quantile"):
            return -math.inf, math.inf
        if function == "sum":
            total = _total(values.values())
            return total, total
        if function == "avg":
            mean = _total(values.values()) / len(values)
            return mean, mean
        ordered = sorted(values.values())
        low, high = ([-math.inf] * unknown) + ordered, ordered + [math.inf] * unknown
        return _quantile(low, self.part.fraction), _quantile(high, self.part.fraction)

    def _extremes(self, function: str, unknown: int) -> tuple[float, float]:
        maybe = self._maybe_values.values()
        open_ended = unknown or len(maybe) < self._maybe_members or any(map(math.isnan, maybe))
        if function == "max":
            low = max(self._values.values(), default=-math.inf)
            return low, math.inf if open_ended else max([low, *maybe])
        high = min(self._values.values(), default=math.inf)
        return -math.inf if open_ended else min([high, *maybe]), high


_CONDITIONS = frozenset({"count", "share_of", "all", "exists"})


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
        self._definition = definition
        self._seen = -1
        self._aggregates = [_Aggregated(part) for part in expression.parts]
        self.selected: set[str] = set()
        self._list: list[object] | None = None
        self._fields = expression.fields
        if not definition.selector.is_everything and self._fields is not None:
            self._fields |= {"labels"}

    def __repr__(self) -> str:
        return f"FleetEvaluation({self._expression.source!r}, {len(self.selected)} nodes)"

    @property
    def needs(self) -> frozenset[str]:
        """The variables that nodes have to share."""
        return self._expression.needs

    def refresh(self) -> bool:
        """Take in the changes since the last call. True if the expression reads any of them."""
        if self._seen < 0:
            changed: Set[str] = self._nodes.entries.keys()
        elif self._seen == self._nodes.version:
            return False
        else:
            changed = self._nodes.changed(self._fields, self._seen)
        first, self._seen, entries = self._seen < 0, self._nodes.version, self._nodes.entries
        found: list[tuple[str, NodeEntry | None]] = [(name, entries.get(name)) for name in changed]
        if not self._definition.selector.is_everything:
            found = [(name, each if each and self._definition.selects(each.facts.labels) else None) for name, each in found]
        gone = {name for name, each in found if each is None}
        if gone:
            found = [(name, each) for name, each in found if each is not None or name in self.selected]
        self.selected.update(changed)
        self.selected -= gone
        for aggregate in self._aggregates:
            aggregate.put_all(found)
        if found:
            self._list = None
        return bool(found) or first

    # --- results -------------------------------------------------------------------------------------------------------

    def evaluate(self) -> Outcome:
        """The outcome over the nodes as of the last refresh."""
        worst, best = self._corners()
        outcome = self._expression.expression.evaluate(worst)
        if best is worst:
            return self._with_reason(outcome)
        if outcome.verdict is Verdict.SATISFIED:
            return outcome
        outcome = self._expression.expression.evaluate(best)
        if outcome.verdict is Verdict.VIOLATED:
            return outcome
        return self._with_reason(Outcome(Verdict.UNKNOWN, outcome.reason))

    def margin(self) -> Margin | None:
        """The distance to the threshold. Where readings are missing, it is at least as far: the values nearest to it count."""
        verdict = self.evaluate().verdict
        worst, best = self._corners()
        if verdict is Verdict.UNKNOWN:
            return None
        found = margin(self._expression.expression, worst if verdict is Verdict.SATISFIED else best)
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
        for name in self.selected:
            entry = self._nodes.entries[name]
            tops = {need.partition(".")[0] for need in needs}
            read += tops <= entry.values.keys()
            for variable, reading in entry.facts.readings.items():
                if variable.partition(".")[0] in tops and variable.partition(".")[0] in entry.values:
                    age = self._nodes.now - reading.time
                    oldest = age if oldest is None else max(oldest, age)
        return Basis(len(self.selected), read, oldest, bool(needs))

    def _corners(self) -> tuple[Measurements, Measurements]:
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
        first = Measurements(worst, {})
        return first, first if all(value is best[name] for name, value in worst.items()) else Measurements(best, {})

    def _with_reason(self, outcome: Outcome) -> Outcome:
        """The outcome with the nodes and readings that are missing, if it is unknown."""
        if outcome.verdict is not Verdict.UNKNOWN:
            return outcome
        open_ = set().union(*(aggregate.open for aggregate in self._aggregates))
        if self._expression.native:
            open_ |= self.selected
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
        self._by_age: dict[int | None, FleetNodes] = {}
        self._now = 0

    def __repr__(self) -> str:
        return f"FleetView({self._by_age!r})"

    def nodes(self, max_age: int | None) -> FleetNodes:
        """The nodes with readings that are not older."""
        nodes = self._by_age.get(max_age)
        if nodes is None:
            nodes = self._by_age[max_age] = FleetNodes(self._facts, max_age)
            nodes.note(self._names())
            nodes.refresh(self._now)
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

    def keep(self, max_ages: Iterable[int | None]) -> None:
        """Forget the nodes for any other maximum age."""
        kept = set(max_ages)
        self._by_age = {max_age: nodes for max_age, nodes in self._by_age.items() if max_age in kept}

    def note(self, names: Iterable[str]) -> None:
        """Something about these nodes may have changed."""
        for nodes in self._by_age.values():
            nodes.note(names)

    def refresh(self, now: int) -> bool:
        """Take in the changes up to this hybrid time. True if there were any."""
        self._now = now
        return sum([nodes.refresh(now) for nodes in self._by_age.values()]) > 0
