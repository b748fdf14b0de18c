"""The registry of cell kinds.

A kind is a number with a wire value, bounds and a shape of key. Each type in `types` registers its kinds when its module is
imported; the modules of `crdt` name no kind except the removal. A cell of an unregistered kind is kept and forwarded as bytes.

Rules kept here:

- A number is registered once.
- A registered kind has a decoder and a check. `read_cell` applies both, so applying a cell cannot fail.
- Bounds are checked by functions, not declared with `msgspec.Meta`: with `Meta`, building a decoder crashes the interpreter when
  the garbage collector runs at the wrong moment (msgspec issue 717, seen with 0.22.0 on CPython 3.11).
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

import msgspec

from constraint_crdt.crdt.limits import ID_BYTES, KEY_BYTES, MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue

MAX_KIND: Final = 127
"""The highest number of a kind."""

DEFAULT_REMOVED_KIND: Final = 1
"""The kind of the cells in a removal without a kind."""

Check = Callable[[Any, Any], object]
"""Takes the key and the decoded value of a cell; raises `ConstraintCrdtError` for a value out of bounds."""


class CellReader(NamedTuple):
    """The functions and bounds applied by `read_cell` to a kind."""

    decode: Callable[[bytes], Any]
    """From the bytes of a cell to a struct with `kind`, `key`, `value` and `tag`."""
    check: Check
    key_bytes: int
    """The longest key, in UTF-8."""
    empty_key: bool
    """The key may be empty."""
    cached: Callable[[Any], tuple[int, int]] | None
    """From the decoded value to the form cached in the cell."""


class _UnknownCell(msgspec.Struct, array_like=True, gc=False):
    kind: int
    key: str | None
    value: msgspec.Raw = msgspec.Raw()
    tag: bytes | None = None


def _no_check(key: object, value: object) -> None:
    """Accept any value."""


UNKNOWN: Final = CellReader(msgspec.msgpack.Decoder(_UnknownCell).decode, _no_check, KEY_BYTES, True, None)
"""The reader of all unregistered kinds."""

READERS: Final[dict[int, CellReader]] = {}
"""The reader of each registered kind. Only `register` writes here."""

REMOVABLE: Final[dict[int, bool]] = {}
"""The kinds that removals may name. True: a removal names the cell by a non-empty id. Only `register` writes here."""

RANKS: Final[dict[int, Callable[[Any], int]]] = {}
"""The rank of a value in a repair, by kind. Only `register` writes here."""

BARE_HEADS: Final[dict[int, bytes]] = {}
"""The first three bytes of a cell with a kind and a short key alone, by the length of the cell. Only `register` writes here."""

_SHORT_KEY_BYTES: Final = 31


def register(
    kind: int,
    value_type: Any,
    check: Check = _no_check,
    *,
    key_type: Any = str,
    key_bytes: int = KEY_BYTES,
    empty_key: bool = True,
    default: Any = msgspec.NODEFAULT,
    removable: bool = False,
    removed_by_id: bool = False,
    cached: Callable[[Any], tuple[int, int]] | None = None,
    rank: Callable[[Any], int] | None = None,
    bare: bool = False,
) -> None:
    """Register a kind. Raises `ValueError` for a number out of range or registered before.

    `value_type`: the wire value, as msgspec decodes it. `check`: the bounds of key and value. `key_type`, `key_bytes`,
    `empty_key`: the shape of the key. `default`: the value of a cell without a value; left out, the value is required.
    `removable`: removals may name the cells, with `removed_by_id` by an id as key. `cached`: the form of the value kept in a
    decoded cell. `rank`: of two cells with the same dot and different values, a repair keeps the higher rank. `bare`: most cells
    have no value, and are read without decoding; a single kind at most.
    """
    if kind in READERS or not 0 <= kind <= MAX_KIND:
        raise InvalidValue(f"the kind {kind} is registered already, or not from 0 to {MAX_KIND}")
    if bare and BARE_HEADS:
        raise InvalidValue("another kind is read without decoding already")
    value_field = ("value", value_type) if default is msgspec.NODEFAULT else ("value", value_type, default)
    fields = [("kind", int), ("key", key_type), value_field]
    # The tag is last on the wire and may be missing where the value may not: only a keyword-only field can stand so.
    shape = msgspec.defstruct(f"Cell{kind}", fields, bases=(_Tail,), array_like=True, gc=False)
    READERS[kind] = CellReader(msgspec.msgpack.Decoder(shape).decode, check, key_bytes, empty_key, cached)
    if removable:
        REMOVABLE[kind] = removed_by_id
    if rank is not None:
        RANKS[kind] = rank
    if bare:
        BARE_HEADS.update({3 + size: bytes((0x92, kind, 0xA0 | size)) for size in range(1, _SHORT_KEY_BYTES + 1)})


class _Tail(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    tag: bytes | None = None


def registered() -> Collection[int]:
    """The numbers of all registered kinds, in ascending order."""
    return sorted(READERS)


def require(condition: bool, subject: str) -> None:
    """Raise `ConstraintCrdtError` about the subject unless the condition holds."""
    if not condition:
        raise ConstraintCrdtError(f"{subject} is out of bounds")


def require_counts(numbers: Iterable[int], subject: str) -> None:
    """Raise `ConstraintCrdtError` unless all numbers are from 0 to 2**63 - 1."""
    require(all(0 <= number <= MAX_COUNT for number in numbers), subject)


def require_text(text: str, subject: str, max_bytes: int = ID_BYTES) -> None:
    """Raise `ConstraintCrdtError` for a text of more bytes in UTF-8."""
    require(len(text.encode()) <= max_bytes, subject)
