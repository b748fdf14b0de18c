"""Reading the JSON of the PLATO contract: in the right shape and within bounds, or an error that names the field.

Rules: nothing of a tile or delta is used that has not passed here. A field is named by its path, such as `counter.node` or
`constraints[0].Add.seq`. Bounds are those of what the cells can hold.
"""

import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from constraint_crdt.core.cells import SEPARATOR
from constraint_crdt.core.limits import ID_BYTES, MAX_COUNT, TILE_BYTES
from constraint_crdt.core.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.plato.shapes import (
    FNV_BITS,
    PlatoChange,
    PlatoDelta,
    PlatoMove,
    PlatoPosition,
    PlatoTile,
    Tag,
    fnv1a,
    signed_norm,
)
from constraint_crdt.types.positions import COORDINATE_MAX, COORDINATE_MIN

MS = 1_000_000
"""ns."""

Shape = TypeVar("Shape", bound=msgspec.Struct)


class PlatoFieldError(ConstraintCrdtError):
    """JSON that is not what the contract says. `str()` is one sentence; `field` is the path of what is to blame, None for all."""

    def __init__(self, message: str, field: str | None) -> None:
        super().__init__(message)
        self.field = field


def read_tile(data: bytes, room: str) -> PlatoTile:
    """The tile that somebody sent to a room. O(content).

    Raises `PlatoFieldError` for what is no tile of that room, `msgspec.DecodeError` or `RecursionError` for what is no JSON.
    """
    tile = _decoded(data, PlatoTile)
    if tile.room != room:
        raise PlatoFieldError(f"`room`: the tile is of room {tile.room!r}, and was sent to {room!r}", "room")
    for text, field in ((tile.room, "room"), (tile.id, "id")):
        _check_name(text, field)
        _check_part(text, field)
    _check_text(tile.author, "author")
    _check_number(tile.created_at, "created_at", MAX_COUNT // MS)
    _check_number(tile.updated_at, "updated_at", MAX_COUNT // MS)
    for number, tag in enumerate(tile.tags):
        _check_name(tag, f"tags[{number}]")
    _check_sets(tile)
    if tile.position is not None:
        _check_position(tile.position)
    _check_content(tile)
    return tile


def read_delta(data: bytes, room: str) -> PlatoDelta:
    """The delta that somebody sent to a room. Raises as `read_tile` does."""
    delta = _decoded(data, PlatoDelta)
    _check_name(room, "room")
    _check_part(room, "room")
    _check_name(delta.node, "node")
    _check_part(delta.node, "node")
    _check_number(delta.seq, "seq")
    counter = delta.counter
    _check_number(counter.satisfied_delta, "counter.satisfied_delta")
    _check_number(counter.violations_delta, "counter.violations_delta")
    if counter.node != delta.node:
        raise PlatoFieldError(f"`counter.node`: it is {counter.node!r} in a delta of {delta.node!r}", "counter.node")
    if counter.seq != delta.seq:
        raise PlatoFieldError(f"`counter.seq`: it is {counter.seq} in a delta of seq {delta.seq}", "counter.seq")
    for number, change in enumerate(delta.constraints):
        _check_change(change, f"constraints[{number}]")
    if delta.position is not None:
        _check_move(delta.position)
    return delta


def _check_sets(tile: PlatoTile) -> None:
    for element, tags in tile.constraints.elements.items():
        _check_name(element, "constraints.elements")
        _check_tags(tags, "constraints.elements")
    _check_tags(tile.constraints.tombstones, "constraints.tombstones")
    for field, numbers in (
        ("constraints.seq", tile.constraints.seq),
        ("metrics.counts", tile.metrics.counts),
        ("metrics.violations", tile.metrics.violations),
    ):
        for name, number in numbers.items():
            _check_name(name, field)
            _check_number(number, field)


def _check_content(tile: PlatoTile) -> None:
    content = tile.content.encode()
    if len(content) > TILE_BYTES:
        message = f"`content`: the content of a tile has at most {TILE_BYTES} bytes, not {len(content)}"
        raise PlatoFieldError(message, "content")
    _check_number(tile.content_hash, "content_hash", FNV_BITS)
    found = fnv1a(content)
    if tile.content_hash != found:
        message = f"`content_hash`: it is {tile.content_hash}, and the content has the hash {found} (FNV-1a)"
        raise PlatoFieldError(message, "content_hash")


def _check_position(position: PlatoPosition) -> None:
    _check_coordinates(position.position, "position.position")
    _check_number(position.timestamp, "position.timestamp")
    _check_name(position.node, "position.node")
    _check_norm(position.norm, position.position, "position.norm")


def _check_move(move: PlatoMove) -> None:
    _check_coordinates(move.position, "position.position")
    _check_name(move.node, "position.node")
    _check_number(move.seq, "position.seq")
    _check_norm(move.new_norm, move.position, "position.new_norm")


def _check_change(change: PlatoChange, field: str) -> None:
    if (change.add is None) is (change.remove is None):
        raise PlatoFieldError(f"`{field}`: a change has exactly one of Add, Remove", field)
    if change.add is not None:
        _check_name(change.add.constraint_id, f"{field}.Add.constraint_id")
        _check_tags([(change.add.node, change.add.seq)], f"{field}.Add")
    if change.remove is not None:
        _check_name(change.remove.constraint_id, f"{field}.Remove.constraint_id")
        _check_tags(change.remove.tombstoned_tags, f"{field}.Remove.tombstoned_tags")
        _check_number(change.remove.seq, f"{field}.Remove.seq")


def _check_name(text: str, field: str) -> None:
    try:
        check_id(text, f"`{field}`: a name")
    except ConstraintCrdtError as error:
        raise PlatoFieldError(str(error), field) from None


def _check_part(text: str, field: str) -> None:
    if SEPARATOR in text:
        raise PlatoFieldError(f"`{field}`: it must not contain the control character U+001F", field)


def _check_text(text: str, field: str) -> None:
    if len(text.encode()) > ID_BYTES:
        raise PlatoFieldError(f"`{field}`: it has at most {ID_BYTES} bytes", field)


def _check_number(number: int, field: str, most: int = MAX_COUNT) -> None:
    if not 0 <= number <= most:
        raise PlatoFieldError(f"`{field}`: a number from 0 to {most}, not {number}", field)


def _check_tags(tags: Iterable[Tag], field: str) -> None:
    for node, seq in tags:
        _check_name(node, field)
        _check_number(seq, field)


def _check_coordinates(position: tuple[int, int], field: str) -> None:
    if not all(COORDINATE_MIN <= coordinate <= COORDINATE_MAX for coordinate in position):
        raise PlatoFieldError(f"`{field}`: two 32-bit coordinates, not {list(position)}", field)


def _check_norm(norm: int, position: tuple[int, int], field: str) -> None:
    if norm != signed_norm(position):
        raise PlatoFieldError(f"`{field}`: the norm of {list(position)} is {signed_norm(position)}, not {norm}", field)


# --- the shape -----------------------------------------------------------------------------------------------------------

_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$\.?([^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`")


def _decoded(data: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error)) from None


def _misshapen(message: str) -> PlatoFieldError:
    """What msgspec says, with the field as others write it."""
    field = ""
    if found := _PLACE.fullmatch(message):
        message, field = found[1], found[2].partition("[...]")[0]  # what follows is inside of a map, under a key that is not told
    if found := _MISSING.match(message):
        field = f"{field}.{found[1]}" if field else found[1]
        return PlatoFieldError(f"the field `{field}` is missing", field)
    if not field:
        return PlatoFieldError(f"the body is not what it should be: {message[0].lower()}{message[1:]}", None)
    return PlatoFieldError(f"`{field}`: {message[0].lower()}{message[1:]}", field)
