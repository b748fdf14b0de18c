"""Definitions of constraints: the ADD kind, its wire value and bounds, severity, labels and expiry.

| kind | key | value |
|---|---|---|
| 1 ADD | constraint id | nil, or `[when, severity, about, [[label, value], …], expires at, added at, meaning, fields]` |

Times and durations are in ns. Trailing defaults are left out. All knowledge about the fields of a definition is in this module.

- A definition may have an end (`expires_at`), which is part of the definition. The time of the addition is not: adding a definition
  already in force changes nothing.
- `fields` are `[for, clear after, clear when, if unknown, max age]` for the meaning version 1, with a sixth element, the scope, for
  the version 2, and `[…, scope, selector, mode, each]` for the version 3. They are absent for the version 0. A definition has the
  lowest version that can express it: 2 only for the scope fleet, 3 only for a selector beyond equality, a mode or an `each`.
  Fields of a later meaning version are not decoded. The definition keeps them as bytes, and evaluation reads it as unknown.
- The selector is `[[label, value], …]` for equalities, which all versions read, and `[[label, operator, [value, …]], …]` in the
  fields for the other requirements. `operator`: 0 exists, 1 absent, 2 in, 3 notin.
- The bounds hold where a definition is written. A cell beyond them, from a version that raised a bound, is kept, passed on and read
  as far as this version can; an unknown severity or choice reads as a later meaning version. A cell of a wrong form is refused.
"""

import enum
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypedDict, TypeVar, runtime_checkable

import msgspec

from constraint_crdt.crdt.cells import READERS, Cell, core, register, require, require_counts
from constraint_crdt.crdt.clock import SECOND, Dot, check_id
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
from constraint_crdt.model import (
    EVERYTHING,
    IfUnknown,
    Label,
    Mode,
    Operator,
    Requirement,
    Scope,
    Selector,
    Severity,
    make_selector,
    parse_selector,
)

ADD: Final = 1

FIELDS_MEANING: Final = 1
"""The meaning version of definitions with fields, for those of scope node."""

FLEET_MEANING: Final = 2
"""The meaning version of definitions of scope fleet."""

MEANING: Final = 3
"""The meaning version of definitions with a selector beyond equality, a mode or an `each`, the highest known here. A version that
changes the meaning of a definition writes a higher number."""

LATER: Final = MAX_COUNT
"""Stands for the meaning version of a definition with a severity or a choice that this version does not know."""

_LEVELS = tuple(Severity)

_CHOICES = tuple(IfUnknown)

_SCOPES = tuple(Scope)

_MODES = (Mode.ENFORCE, Mode.WARN, Mode.AUDIT)
"""By their numbers on the wire."""

_OPERATORS = (Operator.EXISTS, Operator.ABSENT, Operator.IN, Operator.NOT_IN)
"""By their numbers on the wire."""

Labels = Mapping[str, str] | Iterable[Label]
"""Labels as callers give them."""

Selection = Labels | str | Selector
"""A selector as callers give it: labels that a node must have, or the text of a selector."""

VALUES: Final = 128
"""Values in a requirement of a selector."""


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
    """A `FieldsValue` for the meaning versions 1 to 3; of any form for a later version."""


class RequirementValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A requirement of a selector beyond equality."""

    key: str
    operator: int
    """The place in `_OPERATORS`."""
    values: tuple[str, ...] = ()


class FieldsValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The fields of a definition with one of the meaning versions 1 to 3. Durations are in ns."""

    for_: int = 0
    clear_after: int = 0
    clear_when: str | None = None
    if_unknown: int = 0
    """The place in `IfUnknown`."""
    max_age: int | None = None
    scope: int = 0
    """The place in `Scope`."""
    selector: tuple[RequirementValue, ...] = ()
    mode: int = 0
    """The place in `_MODES`."""
    each: str | None = None


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
    require(0 <= fields.mode <= MAX_COUNT, "the mode of a definition")
    for requirement in fields.selector:
        require(0 <= requirement.operator <= MAX_COUNT, "an operator of a selector")
        for text in (requirement.key, *requirement.values):
            check_id(text, "a part of a selector")
    if fields.each is not None:
        check_id(fields.each, "the label of the instances of a definition")


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
    value: DefinitionValue = _decode_add(cell.data).value or _NO_VALUE
    return value


_decode_add: Final = READERS[ADD].decode  # as `value_of`, bound once: each list of constraints reads all of them

_NO_VALUE: Final = DefinitionValue()


class Definition(NamedTuple):
    """The text of a constraint with its fields. Equal definitions have equal fields."""

    when: str | None = None
    """The CEL expression that must hold; None: the constraint is listed, not evaluated."""
    severity: Severity = Severity.WARNING
    about: str | None = None
    on: tuple[Label, ...] = ()
    """The equalities of the selector: labels required of a node, ordered by key."""
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
    requirements: tuple[Requirement, ...] = ()
    """The requirements of the selector beyond equality, ordered."""
    mode: Mode = Mode.ENFORCE
    each: str | None = None
    """The label of measurements whose values are the instances of the constraint; None: it has no instances."""
    meaning: int = 0
    """The meaning version of a later version of constraint-crdt. 0: this version knows the meaning."""
    unknown_fields: bytes = b""
    """The fields of a later meaning version, as received."""

    def applies_to(self, labels: Mapping[str, str]) -> bool:
        """True if a node with these labels has to evaluate the definition. Every node evaluates a definition of scope fleet."""
        return self.scope is Scope.FLEET or self.selects(labels)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """True if the selector matches a node with these labels: in scope fleet, if the node is among `nodes`."""
        return self.selector.matches(labels) if self.requirements else all(labels.get(key) == value for key, value in self.on)

    @property
    def selector(self) -> Selector:
        """The selector: the nodes to which the definition applies."""
        return Selector(self.on, self.requirements)

    def without_end(self) -> "Definition":
        """The same without an end."""
        return self if self.expires_at is None else self._replace(expires_at=None)


class DefinitionFields(TypedDict, total=False):
    """Fields of a definition as callers give them: those to change. None, also for an end: to the default of the field."""

    when: str | None
    severity: str
    about: str | None
    on: "Selection | None"
    ttl: "Duration | float | None"
    until: "Timestamp | int | None"
    for_: "Duration | float | None"
    clear_after: "Duration | float | None"
    clear_when: str | None
    if_unknown: str
    max_age: "Duration | float | None"
    scope: str
    mode: str
    each: str | None


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
    on: Selection | None = None,
    expires_at: int | None = None,
    *,
    for_: int | None = None,
    clear_after: int | None = None,
    clear_when: str | None = None,
    if_unknown: str = IfUnknown.UNKNOWN,
    max_age: int | None = None,
    scope: str = Scope.NODE,
    mode: str = Mode.ENFORCE,
    each: str | None = None,
) -> Definition:
    """Make a `Definition`. Durations are in ns, see `duration_ns`. Does not compile `when` and `clear_when`.

    Raises `TypeError` for a part of another type, and `ConstraintCrdtError` for a part out of bounds, and for a field that
    needs a `when` where there is no `when`.
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
    selector, chosen = check_selector(on), _choice(Mode, mode, "mode")
    if each is not None:
        check_label(each, "each: ", field="each")
        if fields[-1] is Scope.FLEET:
            raise ConstraintCrdtError("each: a constraint of scope fleet has no instances: leave one of the two out", field="each")
        if not when:
            raise ConstraintCrdtError("each needs a `when`: the constraint would not be evaluated", field="each")
    if not when:
        _refuse_fields((*fields, chosen))
    return Definition(
        when or None, level, about or None, selector.equal, expires_at, *fields, selector.requirements, chosen, each
    )  # fmt: skip


def with_mode(definition: Definition, mode: str) -> Definition:
    """The definition with another mode. Raises `ConstraintCrdtError` for an unknown mode, and for a definition without a `when` or
    of a later version.
    """
    if definition.meaning:
        raise ConstraintCrdtError("the definition needs a later version of constraint-crdt: edit it there", field="id")
    changed = definition._replace(mode=_choice(Mode, mode, "mode"))
    if not definition.when:
        _refuse_fields((*_DEFAULTS[:-1], changed.mode))
    return changed


def edited(definition: Definition, fields: DefinitionFields, expires_at: int | None) -> Definition:
    """The definition with other fields, and the end `expires_at` where the fields say `ttl` or `until`.

    Raises as `check_definition`, and `ConstraintCrdtError` for a definition of a later meaning version.
    """
    if definition.meaning:
        raise ConstraintCrdtError("it was written by a later version of constraint-crdt: edit it there, or replace it as a whole")
    return check_definition(
        fields.get("when", definition.when),
        fields.get("severity", definition.severity),
        fields.get("about", definition.about),
        fields.get("on", definition.selector),
        expires_at if "ttl" in fields or "until" in fields else definition.expires_at,
        for_=duration_ns(fields["for_"], "for") if "for_" in fields else definition.for_,
        clear_after=duration_ns(fields["clear_after"], "clear_after") if "clear_after" in fields else definition.clear_after,
        clear_when=fields.get("clear_when", definition.clear_when),
        if_unknown=fields.get("if_unknown", definition.if_unknown),
        max_age=duration_ns(fields["max_age"], "max_age") if "max_age" in fields else definition.max_age,
        scope=fields.get("scope", definition.scope),
        mode=fields.get("mode", definition.mode),
        each=fields.get("each", definition.each),
    )


def joined(definitions: Sequence[Definition]) -> Definition:
    """A single definition that holds where all of these do: each `when` must hold, the gravest severity, the last end.

    Raises `ConstraintCrdtError` for definitions that differ in another field, or of a later meaning version, and where the result
    is out of bounds.
    """
    first = definitions[0]
    for each in definitions:
        if each.meaning:
            raise ConstraintCrdtError("one of them was written by a later version of constraint-crdt: keep one")
        for name in ("selector", *_JOINED_ALIKE):
            if getattr(each, name) != getattr(first, name):
                said = "on" if name == "selector" else name.rstrip("_")
                raise ConstraintCrdtError(f"they differ in `{said}`, so they cannot be joined: keep one", field=said)
    whens = list(dict.fromkeys(each.when for each in definitions if each.when))
    abouts = list(dict.fromkeys(each.about for each in definitions if each.about))
    ends = [each.expires_at for each in definitions]
    joined_when = whens[0] if len(whens) == 1 else " && ".join(f"({each})" for each in whens)
    if len(joined_when.encode()) > WHEN_BYTES:
        raise ConstraintCrdtError(f"joined, their `when` would have more than {WHEN_BYTES} bytes: keep one", field="when")
    about = "; ".join(abouts)
    return first._replace(
        when=joined_when or None,
        severity=max((each.severity for each in definitions), key=lambda each: each.rank),
        about=(about if len(about.encode()) <= ABOUT_BYTES else abouts[0]) or None,
        expires_at=None if None in ends else max(each for each in ends if each is not None),
    )


LABEL_BYTES: Final = 64
"""The label of measurements, and its value, in UTF-8."""

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_label(label: object, what: str = "", field: str | None = None) -> str:
    """Return a label of measurements. `what`: the beginning of the sentence. Raises `ConstraintCrdtError` for another text."""
    if not isinstance(label, str) or not _LABEL.fullmatch(label) or len(label) > LABEL_BYTES:
        raise ConstraintCrdtError(
            f"{what}the label of measurements has ASCII letters, digits and `_`, does not begin with a digit, and has at most "
            f"{LABEL_BYTES} bytes, not {label!r}",
            field=field,
        )
    return label


_JOINED_ALIKE: Final = ("for_", "clear_after", "clear_when", "if_unknown", "max_age", "scope", "mode", "each")
"""The fields, beside the selector, that joined definitions have in common."""


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


_Fields = tuple[int, int, str | None, IfUnknown, int | None, Scope, Mode]
"""for, clear after, clear when, if unknown, max age, scope, mode."""

_DEFAULTS: Final[_Fields] = (0, 0, None, IfUnknown.UNKNOWN, None, Scope.NODE, Mode.ENFORCE)

FIELDS: Final = ("for", "clear_after", "clear_when", "if_unknown", "max_age", "scope", "mode")
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


def check_selector(on: Selection | None) -> Selector:
    """The selector of a caller: labels, a text in the syntax of `parse_selector`, or a `Selector`; None or no labels: all nodes.

    Raises `TypeError` for another type, and `ConstraintCrdtError` for a mistake in a text and for parts out of bounds.
    """
    if on is None:
        return EVERYTHING
    if isinstance(on, str):
        selector = parse_selector(on)
    elif isinstance(on, Selector):
        selector = make_selector(on.equal, on.requirements)
    else:
        return Selector(check_labels(on, "on")) if on else EVERYTHING
    if selector.specificity > LABELS:
        raise ConstraintCrdtError(f"on: at most {LABELS} requirements, not {selector.specificity}", field="on")
    check_labels(selector.equal, "on")
    for each in selector.requirements:
        check_id(each.key, "on: the key of a label", field="on")
        if len(each.values) > VALUES:
            message = f"on: at most {VALUES} values of the label {each.key}, not {len(each.values)}"
            raise ConstraintCrdtError(message, field="on")
        for value in each.values:
            check_id(value, f"on: the value of the label {each.key}", field="on")
    return selector


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
    until = time_ns(until, "until")
    if until <= now:
        raise ConstraintCrdtError(f"until is not in the future: it is {(now - until) / SECOND:.0f} s ago", field="until")
    if until > MAX_COUNT:
        message = "until is later than 2262-04-11, beyond which times cannot be written: leave it out"
        raise ConstraintCrdtError(message, field="until")
    return until


def time_ns(time: "Timestamp | int", what: str) -> int:
    """A point in time of a caller in ns since the epoch, of an aware `datetime` or a number in ns.

    `what`: the name of the field. Raises `TypeError` for other types, and `ConstraintCrdtError` without a time zone.
    """
    if isinstance(time, Timestamp):
        if time.tzinfo is None:
            raise ConstraintCrdtError(f"{what} needs a time zone, as in 2026-12-01T00:00:00Z", field=what)
        time = round(time.timestamp() * 1_000_000) * 1_000  # a datetime is exact to the microsecond, this float to 0.2
    return whole_number(time, f"{what} in ns since the epoch")


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
        [[each.key, _OPERATORS.index(each.operator), *([each.values] if each.values else ())] for each in definition.requirements],
        _MODES.index(definition.mode), definition.each,
    ]  # fmt: skip
    if _without_defaults(fields, [0, 0, None, 0, None, 0, [], 0, None]):
        parts = len(fields)
        meaning = FIELDS_MEANING if parts < _OF_SCOPE else FLEET_MEANING if parts == _OF_SCOPE else MEANING
        return [*value, meaning, fields]
    return _without_defaults(value, [None, _LEVELS.index(Severity.WARNING), None, (), None, None]) or None


_OF_SCOPE: Final = 6
"""The number of the fields up to the scope."""


def _without_defaults(value: list[object], defaults: Sequence[object]) -> list[object]:
    """The value without its trailing defaults."""
    while value and value[-1] == defaults[len(value) - 1]:
        value.pop()
    return value


def read_addition(cell: Cell) -> Addition:
    """The addition in an ADD cell."""
    value = definition_value(cell)
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
    later = fields.if_unknown >= len(_CHOICES) or fields.scope >= len(_SCOPES) or fields.mode >= len(_MODES)
    if definition.meaning or later or any(each.operator >= len(_OPERATORS) for each in fields.selector):
        return definition._replace(meaning=LATER, unknown_fields=bytes(value.fields))
    found = Definition(
        *definition[:5], fields.for_, fields.clear_after, fields.clear_when, _CHOICES[fields.if_unknown], fields.max_age,
        _SCOPES[fields.scope] if value.meaning > FIELDS_MEANING else Scope.NODE,
    )  # fmt: skip
    if value.meaning <= FLEET_MEANING:
        return found
    requirements = tuple([Requirement(each.key, _OPERATORS[each.operator], each.values) for each in fields.selector])
    return found._replace(requirements=requirements, mode=_MODES[fields.mode], each=fields.each)


def expiry_of(cell: Cell) -> int | None:
    """The expiry of an ADD cell, or None. Cells without an end are recognised without decoding."""
    if not core.ending((cell,)):
        return None
    return definition_value(cell).expires_at
