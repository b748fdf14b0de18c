"""Definitions of constraints: the ADD kind, its wire value and bounds, severity, labels and expiry.

| kind | key | value |
|---|---|---|
| 1 ADD | constraint id | nil, or `[when, severity, about, [[label, value], …], expires at, added at]`; times in ns |

All knowledge about the fields of a definition is in this module. A definition may have an end (`expires_at`), which is part of
the definition. The time of the addition is not: adding a definition already in force changes nothing.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from constraint_crdt.crdt.cells import Cell, register, require, require_counts, require_text, value_of
from constraint_crdt.crdt.clock import SECOND
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
from constraint_crdt.crdt.replica import Dot, check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import Severity

ADD: Final = 1


_LEVELS = tuple(Severity)

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


def check_wire_labels(labels: Sequence[Label]) -> None:
    """The bounds of labels inside a cell. Raises `ConstraintCrdtError`."""
    require(len(labels) <= LABELS, "the number of labels")
    require(all(before[0] < after[0] for before, after in itertools.pairwise(labels)), "the order of labels")
    for each in labels:
        for text in each:
            check_id(text, "a part of a label")


def _check_add(_: str, value: DefinitionValue | None) -> None:
    if value is not None:
        require(0 <= value.severity < len(_LEVELS), "the severity of a definition")
        if value.about is not None:
            require_text(value.about, "the text of a definition", ABOUT_BYTES)
        if value.on:
            check_wire_labels(value.on)
        require_counts((value.expires_at or 0, value.added_at or 0), "a time of a definition")


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
    value: DefinitionValue | None = value_of(cell)
    return value or DefinitionValue()


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

    def applies_to(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels has to evaluate the definition."""
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
    when: str | None, severity: str, about: str | None, on: Labels | None = None, expires_at: int | None = None
) -> Definition:
    """Make a `Definition`. Does not compile `when`.

    Raises `TypeError` for a part of another type, and `ConstraintCrdtError` for a part out of bounds.
    """
    try:
        level = Severity(severity)
    except ValueError:
        message = f"severity must be one of {', '.join(_LEVELS)}, not {severity!r}"
        raise ConstraintCrdtError(message, field="severity") from None
    for what, text, limit in (("when", when, WHEN_BYTES), ("about", about, ABOUT_BYTES)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{what} is a text, not {text!r}")
        if text is not None and len(text.encode(errors="replace")) > limit:
            raise ConstraintCrdtError(f"{what} must have at most {limit} bytes", field=what)
    if expires_at is not None:
        expires_at = whole_number(expires_at, "the end of a constraint in ns since the epoch")
        if not 0 <= expires_at <= MAX_COUNT:
            raise ConstraintCrdtError(f"the end of a constraint is in ns since the epoch and cannot be {expires_at}")
    return Definition(when or None, level, about or None, check_labels(on, "on") if on else (), expires_at)


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
        until = round(until.timestamp() * SECOND)
    until = whole_number(until, "until in ns since the epoch")
    if until <= now:
        raise ConstraintCrdtError(f"until is not in the future: it is {(now - until) / SECOND:.0f} s ago", field="until")
    if until > MAX_COUNT:
        message = "until is later than 2262-04-11, beyond which times cannot be written: leave it out"
        raise ConstraintCrdtError(message, field="until")
    return until


def wire_definition(definition: Definition, added_at: int | None) -> list[object] | None:
    """The wire value of an ADD cell, without trailing defaults."""
    value: list[object] = [
        definition.when, _LEVELS.index(definition.severity), definition.about, definition.on, definition.expires_at, added_at
    ]  # fmt: skip
    defaults: list[object] = [None, _LEVELS.index(Severity.WARNING), None, (), None, None]
    while value and value[-1] == defaults[len(value) - 1]:
        value.pop()
    return value or None


def read_addition(cell: Cell) -> Addition:
    """The addition in an ADD cell."""
    value = definition_value(cell)
    definition = Definition(value.when, _LEVELS[value.severity], value.about, value.on, value.expires_at)
    return Addition(definition, Dot(cell.replica, cell.seq), value.added_at)


_NIL, _ARRAY_OF_FOUR, _SHORT_TEXT, _LONGER_TEXT = 0xC0, 0x94, 0b101, 0xD9
_KEY = 2
WITHOUT_VALUE: Final = 0x92
"""How an add without a value begins: an array of two, the kind and the id. Most adds of a large fleet are such."""


def expiry_of(cell: Cell) -> int | None:
    """The expiry of an ADD cell, or None. Cells without an end are recognised without decoding.

    An ADD cell is `[1, id, value]`, and the end is the fifth element of the value.
    """
    data = cell.data
    if data[0] == WITHOUT_VALUE:
        return None
    head = data[_KEY]
    if head >> 5 == _SHORT_TEXT:
        first = data[_KEY + 1 + (head & 0x1F)]
    elif head == _LONGER_TEXT:
        first = data[_KEY + 2 + data[_KEY + 1]]
    else:
        return definition_value(cell).expires_at
    if first == _NIL or 0x90 <= first <= _ARRAY_OF_FOUR:
        return None
    return definition_value(cell).expires_at
