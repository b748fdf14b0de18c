"""Definitions of constraints: the ADD kind, its wire value and bounds, severity, labels and expiry.

| kind | key | value |
|---|---|---|
| 1 ADD | constraint id | nil, or `[when, severity, about, [[label, value], …], expires at, added at, meaning, fields]` |

Times and durations are in ns. Trailing defaults are left out. All knowledge about the fields of a definition is in this module.

- A definition may have an end (`expires_at`), which is part of the definition. The time of the addition is not: adding a definition
  already in force changes nothing.
- `fields` are `[for, clear after, clear when, if unknown, max age]` for the meaning version 1, with a sixth element, the scope, for
  the version 2, and are absent for the version 0. Only a definition of scope fleet has the version 2.
  Fields of a later meaning version are not decoded. The definition keeps them as bytes, and evaluation reads it as unknown.
- The bounds hold where a definition is written. A cell beyond them, from a version that raised one, is kept, passed on and read as
  far as this version can; an unknown severity or choice reads as a later meaning version. What is not of the right form is refused.
"""

import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from constraint_crdt.crdt.cells import Cell, core, register, require, require_counts, value_of
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.digest import Dot, check_id
from constraint_crdt.crdt.limits import (
    ABOUT_BYTES,
    DURATION_MAX,
    ID_BYTES,
    LABELS,
    MAX_COUNT,
    WHEN_BYTES,
    real_number,
    whole_number,
)
from constraint_crdt.errors import ConstraintCrdtError, InvalidType
from constraint_crdt.model import IfUnknown, Scope, Severity

ADD: Final = 1

FIELDS_MEANING: Final = 1
"""The meaning version of definitions with fields, for those of scope node."""

MEANING: Final = 2
"""The meaning version of definitions of scope fleet, the highest known here. A version that changes the meaning of a definition
writes a higher one."""

LATER: Final = MAX_COUNT
"""Stands for the meaning version of a definition with a severity or a choice that this version does not know."""

_LEVELS = tuple(Severity)

_CHOICES = tuple(IfUnknown)

_SCOPES = tuple(Scope)

Label = tuple[str, str]
"""A key and its value."""

Labels = Mapping[str, str] | Iterable[Label]
"""Labels as callers give them."""


class DefinitionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of an ADD cell."""

    when: str | None = None
    severity: int = 1
    """The place in `Severity`."""
    about: str | None = None
    on: tuple[Label, ...] = ()
    """The selector: labels required of a node, ordered by key."""
    expires_at: int | None = None
    """ns since the epoch."""
    added_at: int | None = None
    """ns since the epoch, by the clock of the writer."""
    meaning: int = 0
    """The meaning version."""
    fields: msgspec.Raw = msgspec.Raw()
    """A `FieldsValue` for the meaning versions 1 and 2; of any form for a later one."""


class FieldsValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The fields of a definition with the meaning version 1 or 2. Durations are in ns."""

    for_: int = 0
    clear_after: int = 0
    clear_when: str | None = None
    if_unknown: int = 0
    """The place in `IfUnknown`."""
    max_age: int | None = None
    scope: int = 0
    """The place in `Scope`."""


_read_fields = msgspec.msgpack.Decoder(FieldsValue).decode


def check_wire_labels(labels: Sequence[Label]) -> None:
    """The form of labels inside a cell: their number is bounded where they are written. Raises `ConstraintCrdtError`."""
    require(all(before[0] < after[0] for before, after in itertools.pairwise(labels)), "the order of labels")
    for each in labels:
        for text in each:
            check_id(text, "a part of a label")


def _check_add(_: str, value: DefinitionValue | None) -> None:
    if value is not None:
        require(0 <= value.severity <= MAX_COUNT, "the severity of a definition")
        if value.on:
            check_wire_labels(value.on)
        require_counts((value.expires_at or 0, value.added_at or 0), "a time of a definition")
        if value.meaning or value.fields:
            _check_fields(value)


def _check_fields(value: DefinitionValue) -> None:
    """Check the fields of a known meaning. A later version may have any."""
    require(0 < value.meaning <= MAX_COUNT, "the meaning version of a definition")
    if value.meaning > MEANING:
        return
    fields = _read_fields(value.fields or _NO_FIELDS)
    require(all(0 <= each <= MAX_COUNT for each in (fields.for_, fields.clear_after)), "a duration of a definition")
    require(fields.max_age is None or 0 < fields.max_age <= MAX_COUNT, "the largest age of a definition")
    require(0 <= fields.if_unknown <= MAX_COUNT, "the choice of a definition for unknown")
    require(0 <= fields.scope <= MAX_COUNT, "the scope of a definition")


_NO_FIELDS: Final = b"\x90"
"""An empty array."""

_LONGEST: Final = int(DURATION_MAX) * SECOND
"""The longest duration in a definition, in ns."""


register(
    ADD,
    DefinitionValue | None,
    _check_add,
    default=None,
    key_bytes=ID_BYTES,
    empty_key=False,
    removable=True,
    removed_by_id=True,
    bare=True,
)


def definition_value(cell: Cell) -> DefinitionValue:
    """The value of an ADD cell."""
    value: DefinitionValue = value_of(cell) or _NO_VALUE
    return value


_NO_VALUE: Final = DefinitionValue()


class Definition(NamedTuple):
    """The text of a constraint with its fields. Equal definitions have equal fields."""

    when: str | None = None
    """The CEL expression that must hold; None: the constraint is listed, not evaluated."""
    severity: Severity = Severity.WARNING
    about: str | None = None
    on: tuple[Label, ...] = ()
    """The selector: labels required of a node, ordered by key. Empty: the definition applies to all nodes."""
    expires_at: int | None = None
    """ns since the epoch: the end of the definition. None: in force until its removal."""
    for_: int = 0
    """ns: the constraint is violated once the condition was violated for so long."""
    clear_after: int = 0
    """ns: a violated constraint holds again once the condition held for so long."""
    clear_when: str | None = None
    """The CEL expression that must hold before a violated constraint holds again; None: `when`."""
    if_unknown: IfUnknown = IfUnknown.UNKNOWN
    """The verdict to count for an unknown outcome."""
    max_age: int | None = None
    """ns: measured values older than this are not used. None: the node's `max_age`."""
    scope: Scope = Scope.NODE
    meaning: int = 0
    """The meaning version of a later version of constraint-crdt. 0: this version knows the meaning."""
    unknown_fields: bytes = b""
    """The fields of a later meaning version, as received."""

    def applies_to(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels has to evaluate the definition. One of scope fleet is evaluated by every node."""
        return self.scope is Scope.FLEET or self.selects(labels)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """True if the selector matches a node with these labels: in scope fleet, if the node is one of `nodes`."""
        return all(labels.get(key) == value for key, value in self.on)

    def without_end(self) -> "Definition":
        """The same without an end."""
        return self if self.expires_at is None else self._replace(expires_at=None)


class Addition(NamedTuple):
    """A standing definition, and the dot of its mutation."""

    definition: Definition
    dot: Dot
    added_at: int | None = None
    """ns since the epoch by the clock of the writer, if known. For people: the time orders nothing."""


def check_definition(
    when: str | None,
    severity: str,
    about: str | None,
    on: Labels | None = None,
    expires_at: int | None = None,
    *,
    for_: int | None = None,
    clear_after: int | None = None,
    clear_when: str | None = None,
    if_unknown: str = IfUnknown.UNKNOWN,
    max_age: int | None = None,
    scope: str = Scope.NODE,
) -> Definition:
    """Make a `Definition`. Durations are in ns, see `duration_ns`. Does not compile `when` and `clear_when`.

    Raises `TypeError` for a part of another type, and `ConstraintCrdtError` for a part out of bounds, and for a field that needs a
    `when` without one.
    """
    level, choice = _choice(Severity, severity, "severity"), _choice(IfUnknown, if_unknown, "if_unknown")
    for what, text, limit in (("when", when, WHEN_BYTES), ("about", about, ABOUT_BYTES), ("clear_when", clear_when, WHEN_BYTES)):
        if text is not None and not isinstance(text, str):
            raise InvalidType(f"{what} is a text, not {text!r}", field=what)
        if text is not None and len(text.encode(errors="replace")) > limit:
            raise ConstraintCrdtError(f"{what} must have at most {limit} bytes", field=what)
    if expires_at is not None:
        expires_at = whole_number(expires_at, "the end of a constraint in ns since the epoch")
        if not 0 <= expires_at <= MAX_COUNT:
            raise ConstraintCrdtError(f"the end of a constraint is in ns since the epoch and cannot be {expires_at}")
    fields = (
        0 if for_ is None else _duration(for_, "for"),
        0 if clear_after is None else _duration(clear_after, "clear_after"),
        clear_when or None,
        choice,
        None if max_age is None else _duration(max_age, "max_age", least=1),
        _choice(Scope, scope, "scope"),
    )
    if not when:
        _refuse_fields(fields)
    return Definition(when or None, level, about or None, check_labels(on, "on") if on else (), expires_at, *fields)


Choice = TypeVar("Choice", bound=enum.StrEnum)


def _choice(choices: type[Choice], value: str, what: str) -> Choice:
    try:
        return choices(value)
    except ValueError:
        raise ConstraintCrdtError(f"{what} must be one of {', '.join(choices)}, not {value!r}", field=what) from None


def _duration(nanoseconds: int, what: str, least: int = 0) -> int:
    nanoseconds = whole_number(nanoseconds, f"{what} in ns")
    if not least <= nanoseconds <= _LONGEST:
        bounds = f"{'above' if least else 'at least'} 0 and at most {DURATION_MAX:.0f} seconds (ten years)"
        raise ConstraintCrdtError(f"{what} must be {bounds}, not {nanoseconds / SECOND:g}", field=what)
    return nanoseconds


_Fields = tuple[int, int, str | None, IfUnknown, int | None, Scope]
"""for, clear after, clear when, if unknown, max age, scope."""

_DEFAULTS: Final[_Fields] = (0, 0, None, IfUnknown.UNKNOWN, None, Scope.NODE)

FIELDS: Final = ("for", "clear_after", "clear_when", "if_unknown", "max_age", "scope")
"""The names of the fields that say how a `when` is evaluated, in the order of the wire."""


def _refuse_fields(fields: _Fields) -> None:
    """Raise `ConstraintCrdtError` for the first field of a definition without a `when`."""
    for what, value, default in zip(FIELDS, fields, _DEFAULTS, strict=True):
        if value != default:
            raise ConstraintCrdtError(f"{what} says how a `when` is evaluated, and this constraint has none: give one", field=what)


def check_labels(labels: Labels, what: str = "labels") -> tuple[Label, ...]:
    """Labels in the order of their keys. Raises `ConstraintCrdtError` for labels out of bounds, and for a key with two values.

    `what`: the beginning of the sentence of an error.
    """
    pairs = sorted(labels.items() if isinstance(labels, Mapping) else labels)
    if len(pairs) > LABELS:
        raise ConstraintCrdtError(f"{what}: at most {LABELS} labels, not {len(pairs)}", field=what)
    for key, value in pairs:
        check_id(key, f"{what}: the key of a label", field=what)
        check_id(value, f"{what}: the value of the label {key}", field=what)
    keys = [key for key, _ in pairs]
    twice = next((key for key, following in itertools.pairwise(keys) if key == following), None)
    if twice is not None:
        raise ConstraintCrdtError(f"{what}: the label {twice} has two values; give one", field=what)
    return tuple(pairs)


@runtime_checkable
class Duration(Protocol):
    """A length of time, such as a `datetime.timedelta`."""

    def total_seconds(self) -> float:
        """In seconds."""


@runtime_checkable
class Timestamp(Protocol):
    """A point in time, such as a `datetime.datetime`."""

    @property
    def tzinfo(self) -> object:
        """Its time zone, or None."""

    def timestamp(self) -> float:
        """In seconds since the epoch."""


def expiry_time(ttl: "Duration | float | None", until: "Timestamp | int | None", now: int) -> int | None:
    """The end of a definition added `now`, in ns since the epoch; None without an end.

    `ttl`: the lifetime, a number in seconds. `until`: the end, a number in ns since the epoch. Raises `TypeError` for other
    types, and `ConstraintCrdtError` for an end not in the future, a `ttl` of more than ten years, an `until` without a time zone.
    """
    if ttl is not None and until is not None:
        raise ConstraintCrdtError("ttl and until both say when it ends: give one of them", field="ttl")
    if ttl is not None:
        seconds = real_number(ttl.total_seconds() if isinstance(ttl, Duration) else ttl, "ttl in seconds")
        if isinstance(ttl, bool) or not 0 < seconds <= DURATION_MAX:  # NaN is in no range
            message = f"ttl must be above 0 and at most {DURATION_MAX:.0f} seconds (ten years), not {ttl}"
            raise ConstraintCrdtError(message, field="ttl")
        return now + max(1, round(seconds * SECOND))
    if until is None:
        return None
    if isinstance(until, Timestamp):
        if until.tzinfo is None:
            raise ConstraintCrdtError("until needs a time zone, as in 2026-12-01T00:00:00Z", field="until")
        until = round(until.timestamp() * 1_000_000) * 1_000  # a datetime is exact to the microsecond, this float to 0.2
    until = whole_number(until, "until in ns since the epoch")
    if until <= now:
        raise ConstraintCrdtError(f"until is not in the future: it is {(now - until) / SECOND:.0f} s ago", field="until")
    if until > MAX_COUNT:
        message = "until is later than 2262-04-11, beyond which times cannot be written: leave it out"
        raise ConstraintCrdtError(message, field="until")
    return until


def duration_ns(duration: "Duration | float | None", what: str) -> int | None:
    """A duration of a caller in ns, of a `timedelta` or a number in seconds; None for None.

    `what`: the name of the field. Raises `TypeError` for other types, and `ConstraintCrdtError` for a duration out of bounds.
    """
    if duration is None:
        return None
    seconds = real_number(duration.total_seconds() if isinstance(duration, Duration) else duration, f"{what} in seconds")
    if isinstance(duration, bool) or not 0 <= seconds <= DURATION_MAX:  # NaN is in no range
        message = f"{what} must be at least 0 and at most {DURATION_MAX:.0f} seconds (ten years), not {duration}"
        raise ConstraintCrdtError(message, field=what)
    return max(1, round(seconds * SECOND)) if seconds else 0


def wire_definition(definition: Definition, added_at: int | None) -> list[object] | None:
    """The wire value of an ADD cell, without trailing defaults."""
    value: list[object] = [
        definition.when, _LEVELS.index(definition.severity), definition.about, definition.on, definition.expires_at, added_at
    ]  # fmt: skip
    if definition.meaning:
        return [*value, definition.meaning, *([msgspec.Raw(definition.unknown_fields)] if definition.unknown_fields else ())]
    fields: list[object] = [
        definition.for_, definition.clear_after, definition.clear_when, _CHOICES.index(definition.if_unknown), definition.max_age,
        _SCOPES.index(definition.scope),
    ]  # fmt: skip
    if _without_defaults(fields, [0, 0, None, 0, None, 0]):
        return [*value, FIELDS_MEANING if definition.scope is Scope.NODE else MEANING, fields]
    return _without_defaults(value, [None, _LEVELS.index(Severity.WARNING), None, (), None, None]) or None


def _without_defaults(value: list[object], defaults: Sequence[object]) -> list[object]:
    """The value without its trailing defaults."""
    while value and value[-1] == defaults[len(value) - 1]:
        value.pop()
    return value


def read_addition(cell: Cell) -> Addition:
    """The addition in an ADD cell."""
    value: DefinitionValue = value_of(cell) or _NO_VALUE
    if value.severity >= len(_LEVELS):
        definition = Definition(value.when, _LEVELS[-1], value.about, value.on, value.expires_at, meaning=LATER)
    else:
        definition = Definition(value.when, _LEVELS[value.severity], value.about, value.on, value.expires_at)
    if value.meaning:
        definition = _with_fields(definition, value)
    return Addition(definition, Dot(cell.replica, cell.seq), value.added_at)


def _with_fields(definition: Definition, value: DefinitionValue) -> Definition:
    if value.meaning > MEANING:
        return definition._replace(meaning=value.meaning, unknown_fields=bytes(value.fields))
    fields = _read_fields(value.fields or _NO_FIELDS)
    if definition.meaning or fields.if_unknown >= len(_CHOICES) or fields.scope >= len(_SCOPES):
        return definition._replace(meaning=LATER, unknown_fields=bytes(value.fields))
    return Definition(
        *definition[:5], fields.for_, fields.clear_after, fields.clear_when, _CHOICES[fields.if_unknown], fields.max_age,
        _SCOPES[fields.scope] if value.meaning > FIELDS_MEANING else Scope.NODE,
    )  # fmt: skip


def expiry_of(cell: Cell) -> int | None:
    """The expiry of an ADD cell, or None. Cells without an end are recognised without decoding."""
    if not core.ending((cell,)):
        return None
    value: DefinitionValue = value_of(cell) or _NO_VALUE
    return value.expires_at
