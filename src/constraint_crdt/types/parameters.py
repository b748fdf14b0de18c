"""Parameters: named values that expressions read as `param.NAME`, for all nodes or for those that a selector matches.

| kind | key | value |
|---|---|---|
| 41 PARAMETER | name, selector as text | `[value, set at, overwrites]`: a setting; trailing defaults left out |

`value` is a bool, a text or a number, as of a shared reading; nil: the setting is removed. `set at` is in ns since the epoch by the
clock of the writer, for people. Rules kept here:

- A setting overwrites those of the same name and selector that its writer knew, with all that they overwrote; others stay.
  A removal counts only where no other value stands: a concurrent set wins.
- On a node, of the settings with a matching selector those with the most requirements count. Several different values of these are
  a conflict: the parameter has no value then. So the value depends on the cells and the labels alone.
- A setting with a selector, or a value, of a form that is not known here, from a later version, counts on no node.
- No cell is removed: 0.1.0 refuses a removal of a kind that it does not know.
- The text of an expression gets the values in place of the names once per change (`bind`), so evaluation costs no more.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Final, NamedTuple, SupportsFloat, SupportsIndex

import msgspec

from constraint_crdt.crdt.cells import Cell, WireDot, check_dots, make_cell, make_key, register, require_counts, split_key, value_of
from constraint_crdt.crdt.clock import Dot, Replica, check_id, writer
from constraint_crdt.crdt.limits import KEY_BYTES, real_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, InvalidType, UnknownName
from constraint_crdt.model import EVERYTHING, Selector, SelectorError, parse_selector
from constraint_crdt.types.definition import Definition, Selection, check_selector
from constraint_crdt.types.variables import Scalar, read_scalar, wire_scalar
from constraint_crdt.types.view import IndexedView

PARAMETER: Final = 41

MOST_PARAMETERS: Final = 500
"""Settings that stand: of all parameters and selectors together."""

MOST_SETTINGS: Final = 5_000
"""Settings with their removed ones, of which the cells stay."""

SELECTOR_BYTES: Final = KEY_BYTES // 2
"""The text of the selector of a setting."""

VALUE_BYTES: Final = 256
"""The text of a parameter, in UTF-8."""

PARAM: Final = "param"
"""The variable whose fields are the parameters."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_RESERVED: Final = frozenset({"true", "false", "null", "in"})
"""Names that CEL reads as something else, also as fields."""

_REFERENCE: Final = re.compile(
    r"""
    [rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')          # a raw text
    | [bB]?[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')
    | [bB]?(?:\"{3}(?:\\.|.)*?\"{3}|'{3}(?:\\.|.)*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    | //[^\n]*
    | [A-Za-z_][A-Za-z0-9_]*(?:\s*\.\s*[A-Za-z_][A-Za-z0-9_]*)+          # a path
    """,
    re.VERBOSE | re.DOTALL,
)

_FIELDS: Final = re.compile(r"\s*\.\s*")


class ParameterValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a PARAMETER cell."""

    value: msgspec.Raw = msgspec.Raw(b"\xc0")
    at: int = 0
    overwrites: tuple[WireDot, ...] = ()


def _check_parameter(_: str, value: ParameterValue) -> None:
    require_counts((value.at,), "the time of a parameter")
    check_dots(value.overwrites)


register(PARAMETER, ParameterValue, _check_parameter, empty_key=False, removable=True)


class SetValue(NamedTuple):
    """A value of a setting, and the mutation that set it."""

    value: Scalar
    dot: Dot
    at: int
    """ns since the epoch by the clock of the writer."""


class Setting(NamedTuple):
    """The values that stand for a parameter and a selector, ordered by dot; several different ones are a conflict."""

    name: str
    selector: Selector | None
    """None: of a later version, which is not known here."""
    text: str
    """The selector as text."""
    values: tuple[SetValue, ...]

    @property
    def in_conflict(self) -> bool:
        """True for several different values."""
        return len({_identity(each.value) for each in self.values}) > 1


def told_setting(setting: Setting) -> str:
    """A setting as a person writes it: `limit = 0.8 on zone=dock`."""
    values = " or ".join(literal(each.value) for each in setting.values)
    where = f" on {setting.text}" if setting.text else ""
    return f"{setting.name} = {values}{where}{', in conflict' if setting.in_conflict else ''}"


class GivenParameter(NamedTuple):
    """A setting as a file gives it."""

    name: str
    value: Scalar
    selector: str
    """Empty: all nodes."""


class Bound(NamedTuple):
    """A parameter on a node."""

    value: Scalar | None
    """None: it has no value there."""
    selector: str = ""
    """That of the setting which counts."""
    reason: str = ""
    """Why it has no value; else empty."""


def _identity(value: Scalar) -> tuple[type, str]:
    """Equal for equal values of a kind: true is not 1.0."""
    return type(value), repr(value)


def check_parameter_name(name: str) -> str:
    """Return the name of a parameter. Raises `ConstraintCrdtError` for a name that no expression can read."""
    check_id(name, "the name of a parameter", field="name")
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConstraintCrdtError(
            f"no expression can read a parameter named {name!r}: a name has ASCII letters, digits and `_`, and does not begin with "
            "a digit",
            field="name",
        )
    return name


def check_parameter_value(value: object) -> Scalar:
    """The value of a parameter: numbers as doubles. Raises `TypeError` and `ConstraintCrdtError` for any other value."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value.encode(errors="replace")) > VALUE_BYTES:
            raise ConstraintCrdtError(f"the text of a parameter has at most {VALUE_BYTES} bytes", field="value")
        return value
    if not isinstance(value, SupportsFloat | SupportsIndex):
        raise InvalidType(f"a parameter is a number, a text, true or false, not {value!r}", field="value")
    number = real_number(value, "a parameter")
    if not isfinite(number):
        raise ConstraintCrdtError(f"a parameter is a finite number, not {number}", field="value")
    return number


# --- expressions ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def parameters_of(text: str | None) -> tuple[str, ...]:
    """The names of the parameters that an expression reads, ordered. Texts in quotes and comments read none."""
    if not text or PARAM not in text:
        return ()
    return tuple(sorted({name for name, _, _ in _references(text)}))


def read_parameters(definition: Definition) -> set[str]:
    """The names of the parameters that a definition reads."""
    return {*parameters_of(definition.when), *parameters_of(definition.clear_when)}


def _references(text: str) -> Iterator[tuple[str, int, int]]:
    """The parameters in a text: their names, begins and ends."""
    for found in _REFERENCE.finditer(text):
        parts = _FIELDS.split(found[0])
        before = text[: found.start()].rstrip()
        if len(parts) > 1 and parts[0] == PARAM and not before.endswith("."):
            begin = _FIELDS.search(text, found.start())
            name = None if begin is None else _NAME.match(text, begin.end())
            if name is not None:
                yield name[0], found.start(), name.end()


def bind(text: str, values: Mapping[str, Bound]) -> str:
    """The expression with the values of the parameters in place of their names. Those without a value stay."""
    found, last = list[str](), 0
    for name, begin, end in _references(text):
        bound = values.get(name)
        if bound is not None and bound.value is not None:
            found += [text[last:begin], literal(bound.value)]
            last = end
    return "".join([*found, text[last:]]) if found else text


def literal(value: Scalar) -> str:
    """A value as CEL writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


class BoundDefinition(NamedTuple):
    """A definition on a node, with the values of the parameters in place of their names."""

    definition: Definition
    values: Mapping[str, Bound] = {}
    """The parameters that it reads."""

    @property
    def reason(self) -> str:
        """Why parameters have no value; empty if all have."""
        return "; ".join(each.reason for each in self.values.values() if each.reason)


def measured_names(variables: Iterable[str]) -> set[str]:
    """The variables of an expression without the parameters."""
    return {name for name in variables if name.partition(".")[0] != PARAM}


# --- the view ---------------------------------------------------------------------------------------------------------------


class Parameters(IndexedView):
    """The parameters of the fleet: `in`, `len` and iteration are over the names with a setting that stands."""

    KINDS = (PARAMETER,)

    def __init__(self, rows: Rows | None = None) -> None:
        """`rows`: the cells to look at; new empty ones if left out."""
        self._subscribers: list[Callable[[str], None]] = []
        super().__init__(rows)

    def _clear(self) -> None:
        self._cells: dict[str, dict[str, dict[Dot, ParameterValue]]] = {}
        """By name and selector."""
        self._settings: dict[str, tuple[Setting, ...]] = {}
        """Read when they are asked for, until the next change."""
        self._bound: dict[tuple[str, tuple[tuple[str, str], ...]], Bound] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        name, *rest = split_key(cell.key, 2)
        cells = self._cells.setdefault(name, {}).setdefault("".join(rest), {})
        if old is not None:
            cells.pop(Dot(old.replica, old.seq), None)
        if new is not None:
            cells[Dot(cell.replica, new.seq)] = value_of(new)
        self._settings.pop(name, None)
        self._bound.clear()
        for subscriber in self._subscribers:
            subscriber(name)

    def subscribe(self, subscriber: Callable[[str], None]) -> None:
        """Call `subscriber` with the name of each parameter whose settings may have changed."""
        self._subscribers.append(subscriber)

    # --- reading -------------------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.settings(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name in sorted(self._cells) if name in self)

    def __len__(self) -> int:
        return sum(name in self for name in self._cells)

    def __repr__(self) -> str:
        return f"Parameters({list(self)})"

    def dots(self, name: str, text: str) -> Sequence[Dot]:
        """The mutations of a setting, removals included. `text`: its selector."""
        return tuple(self._cells.get(name, {}).get(text, ()))

    def settings(self, name: str) -> tuple[Setting, ...]:
        """The settings of a parameter that stand, ordered by selector; none for an unknown name."""
        found = self._settings.get(name)
        if found is None:
            read = [_setting(name, text, cells) for text, cells in sorted(self._cells.get(name, {}).items())]
            found = self._settings[name] = tuple([each for each in read if each.values])
        return found

    def value(self, name: str, labels: Mapping[str, str]) -> Bound:
        """A parameter on a node with these labels. O(settings of the parameter), and O(1) for the same labels again."""
        key = name, tuple(sorted(labels.items()))
        found = self._bound.get(key)
        if found is None:
            if len(self._bound) >= MOST_BOUND:
                self._bound.clear()
            found = self._bound[key] = choose(name, self.settings(name), labels)
        return found

    def bind(self, definition: Definition, labels: Mapping[str, str]) -> BoundDefinition:
        """A definition on a node with these labels. O(size of its expressions)."""
        names = read_parameters(definition)
        if not names or definition.meaning:
            return BoundDefinition(definition)
        values = {name: self.value(name, labels) for name in sorted(names)}
        clear = definition.clear_when
        bound = definition._replace(
            when=bind(definition.when or "", values), clear_when=None if clear is None else bind(clear, values)
        )
        return BoundDefinition(bound, values)

    # --- writing -------------------------------------------------------------------------------------------------------

    def set(self, name: str, value: object, on: Selection | None = None, *, node: str | Replica, at: int = 0) -> bool:
        """Give a parameter a value on the nodes that a selector matches. True if a cell was written: not for the value that it has.

        `at`: ns since the epoch. Raises `TypeError` for a value of another type, and `ConstraintCrdtError` for parts out of bounds
        and beyond the number of settings.
        """
        checked = check_parameter_value(value)
        text = self._text(name, on)
        if [_identity(each.value) for each in self._values(name, text)] == [_identity(checked)]:
            return False
        if not self._values(name, text):
            if sum(len(self.settings(each)) for each in self._cells) >= MOST_PARAMETERS:
                raise ConstraintCrdtError(f"{MOST_PARAMETERS} settings of parameters are the most: unset one")
            if text not in self._cells.get(name, {}) and sum(map(len, self._cells.values())) >= MOST_SETTINGS:
                raise ConstraintCrdtError(
                    f"{MOST_SETTINGS} settings of parameters are the most, removed ones included: use one of them"
                )
        self._write(name, text, checked, node, at)
        return True

    def unset(self, name: str, on: Selection | None = None, *, node: str | Replica, at: int = 0) -> None:
        """Remove the setting of a parameter for this selector. Raises `UnknownName` if none stands."""
        text = self._text(name, on)
        if not self._values(name, text):
            raise UnknownName(f"{name} on {text}" if text else name, "setting of a parameter", field="name")
        self._write(name, text, None, node, at)

    def _text(self, name: str, on: Selection | None) -> str:
        text = str(check_selector(on))
        if len(text.encode(errors="replace")) > SELECTOR_BYTES:
            raise ConstraintCrdtError(f"the selector of a parameter has at most {SELECTOR_BYTES} bytes", field="on")
        check_parameter_name(name)
        return text

    def _values(self, name: str, text: str) -> tuple[SetValue, ...]:
        return next((each.values for each in self.settings(name) if each.text == text), ())

    def _write(self, name: str, text: str, value: Scalar | None, node: str | Replica, at: int) -> None:
        over: dict[Replica, int] = {}
        for dot, each in self._cells.get(name, {}).get(text, {}).items():
            for replica, seq in ((dot.replica, dot.seq), *((other.replica, other.seq) for other in each.overwrites)):
                over[replica] = max(seq, over.get(replica, 0))
        dots = [WireDot(*replica, seq) for replica, seq in sorted(over.items())]
        wire: list[object] = [None if value is None else wire_scalar(value), at, *([dots] if dots else [])]
        self._rows.write(writer(node), make_cell(PARAMETER, make_key(name, text), wire))


MOST_BOUND: Final = 10_000
"""Values of parameters kept, by labels."""


@lru_cache(maxsize=1024)
def _selector(text: str) -> Selector | None:
    try:
        found = parse_selector(text) if text else EVERYTHING
    except SelectorError:
        return None
    return found


_read_raw: Final = msgspec.msgpack.Decoder().decode


def _setting(name: str, text: str, cells: Mapping[Dot, ParameterValue]) -> Setting:
    over: dict[Replica, int] = {}
    for each in cells.values():
        for other in each.overwrites:
            over[other.replica] = max(other.seq, over.get(other.replica, 0))
    selector, values = _selector(text), []
    for dot, each in sorted(cells.items()):
        if over.get(dot.replica, 0) >= dot.seq:
            continue
        raw = bytes(each.value)
        value = read_scalar(_read_raw(raw)) if raw else None
        if isinstance(value, float) and not isfinite(value):
            value = None
        if value is not None:
            values.append(SetValue(value, dot, each.at))
        elif raw != _NIL:
            selector = None
    return Setting(name, selector, text, tuple(values))


_NIL: Final = b"\xc0"


def read_setting(values: Iterable[bytes]) -> Scalar | None:
    """The value of a setting, of the wire values of its cells, of which no other one is overwritten; of several the last one.

    None for a removed setting, and for one of a form that is not known here.
    """
    found = []
    for each in values:
        with contextlib.suppress(msgspec.DecodeError):
            value = _read_setting_value(each)
            found.append((value.at, read_scalar(_read_raw(bytes(value.value)))))
    standing = [(at, value) for at, value in found if value is not None]
    return max(standing, key=lambda each: each[0])[1] if standing else None


_read_setting_value: Final = msgspec.msgpack.Decoder(ParameterValue).decode


def choose(name: str, settings: Sequence[Setting], labels: Mapping[str, str]) -> Bound:
    """The value of a parameter on a node with these labels, by its settings."""
    matching = [each for each in settings if each.selector is not None and each.selector.matches(labels)]
    if not matching:
        where = " on this node" if settings else ""
        return Bound(None, reason=f"the parameter {name} is not set{where}")
    most = max(each.selector.specificity for each in matching if each.selector is not None)
    chosen = [each for each in matching if each.selector is not None and each.selector.specificity == most]
    told = {_identity(value.value): (value.value, each.text) for each in chosen for value in each.values}
    if len(told) == 1:
        return Bound(*next(iter(told.values())))
    shown = " and ".join(f"{literal(value)}{f' on {text}' if text else ''}" for value, text in list(told.values())[:3])
    return Bound(None, reason=f"the parameter {name} is in conflict: {shown}")
