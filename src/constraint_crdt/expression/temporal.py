"""Verdicts over time: the verdict state of a definition on a node, moved by the outcomes of evaluations. Pure.

Times are ns: `now` of a monotonic clock, `wall` since the epoch. Only the monotonic clock moves a state; wall-clock times are for
people. A *look* is an outcome with its time. A *spell* begins with the first violated look, and ends when the definition holds
again.

Rules kept here:

- The interval between two looks has the outcome of the look at its beginning. An interval longer than `max_age` is unknown.
- The time for `for` counts in violated intervals, the time for `clear_after` in satisfied intervals. An unknown interval
  counts for neither.
- An unknown look begins and ends no spell. A definition becomes `unknown` if the state was `holds`.
- A state changes only at a look, so up to an interval late.
- A look earlier than the last look changes nothing.
- Only spells are saved. After a restart the time away is unknown. An edit of a field in `DefinitionKey` begins anew.

The margin of an expression: the signed distance of measured values to the threshold that decides. Pure.

The margin is the quantitative robustness of temporal logic at an instant: G. Fainekos and G. Pappas, "Robustness of temporal logic
specifications for continuous-time signals", Theoretical Computer Science 410 (2009); A. Donzé and O. Maler, "Robust satisfaction
of temporal logic over real-valued signals", FORMATS 2010.

Rules kept here:

- A comparison of numbers has the distance to its threshold: `a <= b` and `a < b` have b - a, `>=` and `>` a - b, `==` -|a - b|, and
  `!=` |a - b|. `&&` takes the minimum, `||` the maximum, `!` the negation, `?:` the branch that its condition chooses.
- Any other part has no distance: +infinity where it is true, -infinity where it is false. So do comparisons of constants, and
  comparisons whose distance is no finite number (NaN, infinities, an overflow).
- An unknown part can have any distance, from -infinity to +infinity. The margin is the bound that the other parts leave: `&&` with
  a negative operand has the minimum of the known operands.
- An infinite margin is none, and an unknown verdict has none. So a margin other than 0 has the sign of the verdict. A margin of 0
  says nothing about the verdict: at 5, `x > 5` is violated and `x >= 5` satisfied, both with 0.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, TypeGuard

import msgspec

from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.expression.cel import ALIAS, WINDOW_FUNCTIONS, Measurements, Verdict, measurements
from constraint_crdt.expression.evaluation import Expression, Parts, parts
from constraint_crdt.expression.syntax import OPERATORS, Node, is_path, unparse
from constraint_crdt.model import IfUnknown, Scope, VerdictState

MAX_SPELLS: Final = 100_000
"""Spells in a file. Further spells are not saved."""
MAX_SPELLS_BYTES: Final = 256 * 1024 * 1024
"""The longest file of spells accepted. `MAX_SPELLS` spells with the longest ids fit."""

FORMAT: Final = "constraint-crdt spells"
VERSION: Final = 1

_SATISFIED, _VIOLATED, _UNKNOWN = Verdict.SATISFIED, Verdict.VIOLATED, Verdict.UNKNOWN
_OFF, _HOLDS, _UNDECIDED = VerdictState.OFF, VerdictState.HOLDS, VerdictState.UNKNOWN
_PENDING, _IN_VIOLATION, _CLEARING = VerdictState.PENDING, VerdictState.VIOLATED, VerdictState.CLEARING

_RANKS = {state: rank for rank, state in enumerate((_IN_VIOLATION, _CLEARING, _PENDING, _UNDECIDED, _HOLDS, _OFF))}


class TimeRules(NamedTuple):
    """The durations of a definition, in ns."""

    for_: int = 0
    """The violated time before the state is `violated`."""
    clear_after: int = 0
    """The satisfied time before the state is `holds` again."""
    max_age: int = 30_000_000_000
    """The longest interval between two looks with a known outcome."""


class Times(NamedTuple):
    """Time by outcome, in ns."""

    satisfied: int
    violated: int
    unknown: int


class StateSince(NamedTuple):
    """A verdict state, and the time of its beginning in ns of the monotonic clock; None for `off`."""

    state: VerdictState
    since: int | None


class Spell(msgspec.Struct, gc=False):
    """The verdict state of a definition on a node, and the time by outcome. Some 150 bytes.

    A constraint with several definitions has a spell for each. Its time by outcome comes from a further spell without `for` and
    `clear_after`, which looks at the outcome of all definitions together.
    """

    since: int
    """The beginning of the state; of `pending`, `violated` and `clearing` the first violated look."""
    at: int
    """The last look."""
    state: VerdictState = _UNDECIDED
    outcome: Verdict = _UNKNOWN
    """The outcome of the last look."""
    counting: bool = False
    """True if the interval after the last look counts for `for` (if pending) or `clear_after` (if clearing)."""
    elapsed: int = 0
    """The time counted for `for` or `clear_after` up to the last look."""
    satisfied: int = 0
    violated: int = 0
    unknown: int = 0

    @classmethod
    def new(cls, now: int) -> "Spell":
        """The state of a definition without a look: `unknown`."""
        return cls(now, now)

    @property
    def needs_clear(self) -> bool:
        """True if the next look needs the outcome of `clear_when`."""
        return self.state is _IN_VIOLATION or self.state is _CLEARING

    def look(self, outcome: Verdict, now: int, rules: TimeRules, clear: Verdict = _SATISFIED) -> VerdictState:
        """Move the state by an outcome of `when`, and return the state. `clear`: the outcome of `clear_when`; satisfied without it.

        `clear` counts only if `needs_clear` and if `outcome` is satisfied: the spell ends only if both are.
        """
        if outcome is _SATISFIED and self.state is _HOLDS and 0 <= now - self.at <= rules.max_age:
            self.satisfied += now - self.at  # by far the most frequent case
            self.at = now
            return _HOLDS
        if now >= self.at:
            self._count(now, rules.max_age)
            self.outcome = outcome
            if self.needs_clear:
                self._look_in_violation(clear if outcome is _SATISFIED else outcome, now, rules.clear_after)
            else:
                self._look_before_violation(outcome, now, rules.for_)
        return self.state

    def take(self) -> Times:
        """The time by outcome since the last call, up to the last look. The three add up to the time between."""
        times = Times(self.satisfied, self.violated, self.unknown)
        self.satisfied = self.violated = self.unknown = 0
        return times

    def _count(self, now: int, max_age: int) -> None:
        """Count the interval since the last look."""
        passed = now - self.at
        if passed > max_age:
            self.outcome, self.counting = _UNKNOWN, False
            if self.state is _HOLDS:
                self.state, self.since = _UNDECIDED, self.at
        if self.counting:
            self.elapsed += passed
        if self.outcome is _SATISFIED:
            self.satisfied += passed
        elif self.outcome is _VIOLATED:
            self.violated += passed
        else:
            self.unknown += passed
        self.at = now

    def _look_before_violation(self, outcome: Verdict, now: int, for_: int) -> None:
        self.counting = outcome is _VIOLATED
        if outcome is _VIOLATED:
            if self.state is not _PENDING:
                self.state, self.since, self.elapsed = _PENDING, now, 0
            if self.elapsed >= for_:
                self.state, self.counting, self.elapsed = _IN_VIOLATION, False, 0
        elif outcome is _SATISFIED:
            self._begin(_HOLDS, now)
        elif self.state is not _PENDING:
            self._begin(_UNDECIDED, now)

    def _look_in_violation(self, outcome: Verdict, now: int, clear_after: int) -> None:
        self.counting = outcome is _SATISFIED
        if outcome is _VIOLATED:
            self.state, self.elapsed = _IN_VIOLATION, 0
        elif outcome is _SATISFIED:
            if self.state is not _CLEARING:
                self.state, self.elapsed = _CLEARING, 0
            if self.elapsed >= clear_after:
                self._begin(_HOLDS, now)

    def _begin(self, state: VerdictState, now: int) -> None:
        """Begin a state outside of a spell, unless the state is the present state."""
        if self.state is not state:
            self.state, self.since = state, now
        self.counting, self.elapsed = False, 0


def together(spells: Iterable[Spell | StateSince]) -> StateSince:
    """The state of a constraint with these definitions in force: the most severe, since the first of them; `holds` since the last.

    The order of severity is violated, clearing, pending, unknown, holds. Without a definition the state is `off`.
    """
    worst, since = _OFF, None
    for spell in spells:
        if spell.since is None:
            continue
        if since is None or _RANKS[spell.state] < _RANKS[worst]:
            worst, since = spell.state, spell.since
        elif spell.state is worst:
            since = max(since, spell.since) if worst is _HOLDS else min(since, spell.since)
    return StateSince(worst, since)


def severity_of(state: VerdictState) -> int:
    """The place of a state in the order of severity, 0 for the most severe: see `together`."""
    return _RANKS[state]


def wall_time(time: int, now: int, wall: int) -> int:
    """A time of the monotonic clock in ns since the epoch. `now` and `wall`: readings of the two clocks at the same moment."""
    return min(max(0, wall - (now - time)), MAX_COUNT)


# --- persistence ------------------------------------------------------------------------------------------------------


class DefinitionKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields that identify a spell. Definitions with other differences, as in severity, share the spell. Durations in ns."""

    when: str
    for_: int = 0
    clear_after: int = 0
    clear_when: str | None = None
    if_unknown: IfUnknown = IfUnknown.UNKNOWN
    scope: Scope = Scope.NODE
    each: str | None = None
    """The label of the instances."""
    instance: str | None = None
    """Of a definition with `each`, the instance; None while there is none."""

    @property
    def digest(self) -> str:
        """The fields in 32 characters. A field added by a later version changes no digest while the field has its default."""
        return blake2b(_encode(self), digest_size=16, person=b"definition").hexdigest()


class SavedSpell(msgspec.Struct, frozen=True, gc=False):
    """A spell in a file."""

    state: Literal["pending", "violated", "clearing"]
    since: int
    """ns since the epoch."""
    elapsed: int
    """ns counted for `for` or `clear_after`."""

    def __post_init__(self) -> None:
        for field, time in (("since", self.since), ("elapsed", self.elapsed)):
            if not 0 <= time <= MAX_COUNT:
                raise InvalidValue(f"`{field}` of a spell is out of bounds")


class _Head(msgspec.Struct):
    format: str
    version: int


class _File(msgspec.Struct):
    spells: dict[str, dict[str, SavedSpell]]


class SavedSpells:
    """The spells of a file, by constraint id and definition."""

    def __init__(self, spells: Mapping[str, Mapping[str, SavedSpell]] | None = None) -> None:
        """`spells`: by constraint id, then by `DefinitionKey.digest`."""
        self._spells = {id_: dict(saved) for id_, saved in (spells or {}).items()}

    def __len__(self) -> int:
        return sum(map(len, self._spells.values()))

    def resume(self, id_: str, key: DefinitionKey, now: int, wall: int) -> Spell:
        """The spell of a definition after a restart, at the first call; else a new spell. The time away is unknown."""
        spells = self._spells.get(id_)
        saved = spells.pop(key.digest, None) if spells else None
        if saved is None:
            return Spell.new(now)
        since = now - max(0, wall - saved.since)  # the wall clock may have stepped back
        return Spell(since, now, VerdictState(saved.state), elapsed=saved.elapsed)


_encode = msgspec.json.Encoder().encode
_head = msgspec.json.Decoder(_Head)
_file = msgspec.json.Decoder(_File)


OpenSpell = tuple[int, str, str, SavedSpell]
"""A pending, violated or clearing spell to be saved: its rank, the constraint, the digest of the definition, and the spell."""


def encode_spells(spells: Iterable[OpenSpell]) -> bytes:
    """Spells as JSON, at most `MAX_SPELLS`, in that case the most severe. The same spells give the same bytes."""
    kept = sorted(spells, key=lambda each: each[:3])
    content: dict[str, dict[str, SavedSpell]] = {}
    for _, id_, digest, saved in kept[:MAX_SPELLS]:
        content.setdefault(id_, {})[digest] = saved
    return _encode({"format": FORMAT, "version": VERSION, "spells": content})


def open_spells(spells: Mapping[str, Mapping[DefinitionKey, Spell]], now: int, wall: int) -> Iterator[OpenSpell]:
    """The pending, violated and clearing ones of these spells. `now` and `wall`: readings of the two clocks at the same moment."""
    for id_, definitions in spells.items():
        for key, spell in definitions.items():
            since = wall_time(spell.since, now, wall)
            if spell.state is _IN_VIOLATION:
                yield _RANKS[spell.state], id_, key.digest, SavedSpell("violated", since, 0)
            elif spell.state is _CLEARING:
                yield _RANKS[spell.state], id_, key.digest, SavedSpell("clearing", since, min(spell.elapsed, MAX_COUNT))
            elif spell.state is _PENDING:
                yield _RANKS[spell.state], id_, key.digest, SavedSpell("pending", since, min(spell.elapsed, MAX_COUNT))


def read_spells(data: bytes) -> SavedSpells:
    """The spells in a file made by `encode_spells`.

    Raises `ConstraintCrdtError` for a damaged file, for another kind of file or a newer version, and above the bounds.
    """
    if len(data) > MAX_SPELLS_BYTES:
        raise ConstraintCrdtError(f"the file of spells has {len(data)} bytes, more than the {MAX_SPELLS_BYTES} that are read")
    try:
        head = _head.decode(data)
        if head.format != FORMAT or head.version < 1:
            raise ConstraintCrdtError(f"this is no file of spells: its `format` is not {FORMAT!r}")
        if head.version > VERSION:
            raise ConstraintCrdtError(f"the file of spells was made by a newer version (form {head.version}, not {VERSION})")
        spells = SavedSpells(_file.decode(data).spells)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConstraintCrdtError(f"the file of spells is damaged: {error}") from None
    if len(spells) > MAX_SPELLS:
        raise ConstraintCrdtError(f"the file of spells has {len(spells)} spells, more than the {MAX_SPELLS} that are read")
    return spells


class Margin(NamedTuple):
    """The margin of an expression: positive for satisfied, negative for violated; 0 for either."""

    value: float
    """Finite, in the unit of the comparison that decides."""
    share: float | None
    """`value` / |threshold|, where one side of that comparison is a constant other than 0."""
    variable: str
    """The measurement of that comparison, as it is written: `speed_mps`, `robot.speed`, `limits['a']`; of a window its variable."""


def margin(expression: Expression, values: Mapping[str, object]) -> Margin | None:
    """The margin of measured values; None if the verdict is unknown, or no comparison of numbers decides it. Raises nothing."""
    if type(values) is not Measurements:
        values = measurements(values)
    verdict = expression.evaluate(values).verdict
    if verdict is Verdict.UNKNOWN:
        return None
    found = parts(expression)
    bounds = _Distances(found, values).of(found.root)
    value, comparison = bounds.low if verdict is Verdict.SATISFIED else bounds.high
    if comparison is None:
        return None
    measured = next(each for each in comparison.nodes if not _is_constant(each))
    constant = next((each for each in comparison.nodes if _is_constant(each)), None)
    share = _share(value, found.value(constant, values)) if constant else None
    return Margin(value, share, _measurement(measured, expression.variables))


class _Distance(NamedTuple):
    """A signed distance and its comparison; None for an infinite distance."""

    value: float
    comparison: Node | None


class _Bounds(NamedTuple):
    """The least and the greatest distance that a part can have. They are the same if it is known."""

    low: _Distance
    high: _Distance


_TRUE, _FALSE = _Distance(math.inf, None), _Distance(-math.inf, None)
_UNKNOWN_BOUNDS = _Bounds(_FALSE, _TRUE)
_SIGNS = {"_<_": 1, "_<=_": 1, "_>_": -1, "_>=_": -1}


def _value(distance: _Distance) -> float:
    return distance.value


class _Distances:
    """The distances of the parts of an expression for measured values."""

    def __init__(self, found: Parts, values: Measurements) -> None:
        self._parts = found
        self._values = values

    def of(self, node: Node) -> _Bounds:
        """The bounds of the distance of a part."""
        if node.name in ("_&&_", "_||_"):
            choose = min if node.name == "_&&_" else max
            one, other = map(self.of, node.nodes)
            return _Bounds(choose(one.low, other.low, key=_value), choose(one.high, other.high, key=_value))
        if node.name == "!_":
            low, high = self.of(node.nodes[0])
            return _Bounds(_Distance(0.0 - high.value, high.comparison), _Distance(0.0 - low.value, low.comparison))
        if node.name == "_?_:_":
            condition = self._parts.value(node.nodes[0], self._values)
            return self.of(node.nodes[1 if condition else 2]) if isinstance(condition, bool) else _UNKNOWN_BOUNDS
        distance = self._compared(node)
        if distance is None:
            verdict = self._parts.value(node, self._values)
            distance = (_TRUE if verdict else _FALSE) if isinstance(verdict, bool) else None
        return _Bounds(distance, distance) if distance else _UNKNOWN_BOUNDS

    def _compared(self, node: Node) -> _Distance | None:
        """The distance of a comparison of numbers; None for any other part, and for a distance that is not finite."""
        sign = _SIGNS.get(node.name, 0)
        if not (sign or node.name in ("_==_", "_!=_")) or all(map(_is_constant, node.nodes)):
            return None
        left, right = (self._parts.value(each, self._values) for each in node.nodes)
        if not (_is_number(left) and _is_number(right)):
            return None
        difference = float(right - left)
        if not math.isfinite(difference):
            return None
        if not sign:
            difference, sign = abs(difference), -1 if node.name == "_==_" else 1
        return _Distance(sign * difference + 0.0, node)  # + 0.0 and 0.0 - never give -0.0


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CASTS = ("int", "uint", "double", "dyn", "-_")


def _is_constant(node: Node) -> bool:
    """True for a constant, and for arithmetic of constants."""
    computed = node.name in OPERATORS or node.name in _CASTS
    return node.sort == "constant" or (node.sort == "call" and computed and all(map(_is_constant, node.nodes)))


def _share(value: float, threshold: object) -> float | None:
    share = value / abs(threshold) if _is_number(threshold) and threshold else math.inf
    return share if math.isfinite(share) else None


def _measurement(side: Node, variables: frozenset[str]) -> str:
    """The first measurement that a side reads, as it is written; the side for a side that names none."""
    free = {each.id for each in side.free() if each.name.removeprefix(ALIAS) in variables}
    for each in side.walk():
        if each.sort == "call" and each.name in WINDOW_FUNCTIONS and not each.member:
            return str(each.nodes[WINDOW_FUNCTIONS[each.name].index("name")].value)
        if is_path(each) and _leftmost(each).id in free:
            return unparse(each).removeprefix(ALIAS)
    return unparse(side)


def _leftmost(path: Node) -> Node:
    return _leftmost(path.nodes[0]) if path.nodes else path
