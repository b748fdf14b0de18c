"""The JSON of the PLATO contract, field by field as the types of the Rust crate (0.4.0) serialize, and its validation.

Field names are those of the JSON. Unknown fields are ignored, as by the crate. Every tile and delta passes `read_tile` or
`read_delta` before use. An error names the field by its path, such as `counter.node` or `constraints[0].Add.seq`. Bounds are those
of the cells.

Rooms of a state under the PLATO contract: a tile from a client is a replica to merge, a delta a numbered increment.

Rules:

- A repeated tile or delta, at this node or at another with knowledge of the first, changes nothing.
- Each is one transaction: applied whole or, beyond a limit, not at all.
- The content and position of a tile win if they are later than the known ones, by the clock of the client. Between two contents of
  the same ms the higher bytes win, so that nodes choose alike.
- Tags are united. Constraints are merged by their tags, counts by the maximum per node, creation by the minimum.
- Claims of a client about replicas of this fleet are ignored: the fleet has the true values, and invented numbers would stay.
- Deltas belong to the room: to a tile of their own, `ROOM_TILE`, and their counts to the increments of the room.
- A client holds text, so a tile with a content other than UTF-8 is not rendered: the client would send back another content.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeVar

import msgspec

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.digest import Replica, check_id, parse_replica
from constraint_crdt.crdt.limits import COORDINATE_MAX, COORDINATE_MIN, ID_BYTES, MAX_COUNT, SEPARATOR, TILE_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import ZERO, Counts
from constraint_crdt.types.tiles import FleetTile

Tag = tuple[str, int]
"""An add to an OR-set: the node, and the number of the add on this node."""


class PlatoConstraints(msgspec.Struct, frozen=True, kw_only=True):
    """An OR-set of constraint ids."""

    elements: dict[str, list[Tag]]
    """The present ids, each with the tags of its adds."""
    tombstones: list[Tag]
    """The tags of removed adds."""
    seq: dict[str, int]
    """The highest tag of each node."""


class PlatoMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative counts by node."""

    counts: dict[str, int]
    """Satisfied evaluations."""
    violations: dict[str, int]
    """Violations."""


class PlatoPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position on the Eisenstein lattice."""

    position: tuple[int, int]
    timestamp: int
    """Time of the write, ns since the epoch."""
    node: str
    norm: int
    """a² - ab + b², as a signed 64-bit number."""


class PlatoTile(msgspec.Struct, frozen=True, kw_only=True):
    """One tile. Times in ms since the epoch."""

    id: str
    room: str
    content: str
    tags: list[str]
    constraints: PlatoConstraints
    metrics: PlatoMetrics
    position: PlatoPosition | None
    author: str
    created_at: int
    updated_at: int
    content_hash: int
    """FNV-1a of the content in UTF-8, 64 bits: see `fnv1a`."""


class PlatoRoom(msgspec.Struct, frozen=True, kw_only=True):
    """One room, as `GET /room/{id}` answers."""

    id: str
    tiles: list[PlatoTile]
    tile_count: int


class PlatoCounter(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations since the previous delta of the node."""

    node: str
    satisfied_delta: int
    violations_delta: int
    seq: int


class PlatoAdd(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint was added, by the tag (node, seq)."""

    constraint_id: str
    node: str
    seq: int


class PlatoRemove(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint was removed: the adds with these tags; if none is named, as the crate's tracker does, all adds known."""

    constraint_id: str
    tombstoned_tags: list[Tag]
    seq: int


class PlatoChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of these."""

    add: PlatoAdd | None = msgspec.field(name="Add", default=None)
    remove: PlatoRemove | None = msgspec.field(name="Remove", default=None)


class PlatoMove(msgspec.Struct, frozen=True, kw_only=True):
    """The position was moved."""

    old_norm: int
    new_norm: int
    position: tuple[int, int]
    node: str
    seq: int


class PlatoDelta(msgspec.Struct, frozen=True, kw_only=True):
    """What one node did since its delta before this one. A (node, seq) is taken in once, however often it is sent."""

    node: str
    seq: int
    counter: PlatoCounter
    constraints: list[PlatoChange]
    position: PlatoMove | None


FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
FNV_BITS = 2**64 - 1


def fnv1a(content: bytes) -> int:
    """FNV-1a of 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv): the content hash of a tile. Some 0.13 s for 1 MiB."""
    found = FNV_OFFSET
    for byte in content:
        found = (found ^ byte) * FNV_PRIME & FNV_BITS
    return found


def signed_norm(position: tuple[int, int]) -> int:
    """The Eisenstein norm in signed 64-bit arithmetic: coordinates near 2**31 overflow, and the norm wraps around."""
    a, b = position
    return (a * a - a * b + b * b + 2**63) % 2**64 - 2**63


MS = 1_000_000
"""ns."""

Shape = TypeVar("Shape", bound=msgspec.Struct)


class PlatoFieldError(ConstraintCrdtError, ValueError):
    """JSON outside of the contract. `str()` is a sentence; `field` is the path of the field at fault, None for the whole."""

    def __init__(self, message: str, field: str | None) -> None:
        """`message`: a sentence. `field`: the path of the field at fault, None for the whole."""
        super().__init__(message)
        self.field = field


def read_tile(data: bytes, room: str) -> PlatoTile:
    """The tile in the body of a request to a room. O(content).

    Raises `PlatoFieldError` for an invalid tile or a tile of another room, `msgspec.DecodeError` or `RecursionError` for
    malformed JSON.
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
    """The delta in the body of a request to a room. Raises as `read_tile` does."""
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
    """An error of msgspec, with the path of the field."""
    field = ""
    if found := _PLACE.fullmatch(message):
        message, field = found[1], found[2].partition("[...]")[0]  # the rest is inside of a map, under a key unknown here
    if found := _MISSING.match(message):
        field = f"{field}.{found[1]}" if field else found[1]
        return PlatoFieldError(f"the field `{field}` is missing", field)
    if not field:
        return PlatoFieldError(f"the body is not what it should be: {message[0].lower()}{message[1:]}", None)
    return PlatoFieldError(f"`{field}`: {message[0].lower()}{message[1:]}", field)


Made = TypeVar("Made")

ROOM_TILE: Final = "_room"
"""The id of the tile for the room itself, with the constraints and position of deltas."""

FURTHEST_AHEAD: Final = 86_400 * 1_000_000_000
"""ns by which the clock of a client may be ahead: a later content or position would win over all writes until then."""


def check_clock(tile: PlatoTile, now: int) -> None:
    """Raise `PlatoFieldError` for a tile from too far ahead. `now`: ns since the epoch."""
    times = {"updated_at": tile.updated_at * MS, "position.timestamp": tile.position.timestamp if tile.position else 0}
    for field, time in times.items():
        if time > now + FURTHEST_AHEAD:
            message = f"`{field}`: it is more than a day ahead of this node's clock: set the clock that is wrong"
            raise PlatoFieldError(message, field)


def merge_tile(state: ConstraintState, sent: PlatoTile, replica: Replica) -> bool:
    """Merge a validated tile, as `replica`. False without anything new. Raises `PlatoFieldError` beyond a limit."""
    tile = state.tiles.tile(sent.room, sent.id)
    cells = [
        *_within(None, lambda: _content(tile, sent, replica)),
        *_within("tags", lambda: tile.tags.additions(sent.tags)),
        *_within("constraints.tombstones", lambda: tile.constraints.tombstone_cells(sent.constraints.tombstones, replica)),
        *_within("constraints.elements", lambda: _constraints(tile, sent, replica)),
        *_within("metrics", lambda: tile.metrics.foreign_records(_counts(sent, state.rows))),
        *_within("position", lambda: _position(tile, sent, replica)),
    ]
    if cells:
        state.rows.write_all(replica, cells)
    return bool(cells)


def apply_delta(state: ConstraintState, room: str, sent: PlatoDelta, replica: Replica) -> bool:
    """Apply a validated delta, as `replica`. False, and no effect, for a known (node, seq).

    Raises `PlatoFieldError` beyond a limit.
    """
    counter, tile = sent.counter, state.tiles.tile(room, ROOM_TILE)
    increment = _within(
        "node",
        lambda: state.increments.increment_cell(room, sent.node, sent.seq, counter.satisfied_delta, counter.violations_delta),
    )
    if increment is None:
        return False
    cells = [increment]
    if not tile.exists:
        cells += _within(None, lambda: tile.put_cells(b"", replica, author=sent.node))
    cells += _within("constraints", lambda: _changes(tile, sent, replica))
    if sent.position is not None:
        cells.append(tile.position_cell(sent.position.position, replica, by=sent.position.node))
    _within(None, lambda: state.increments.fold(room, sent.node, node=replica))
    state.rows.write_all(replica, cells)
    return True


def _within(field: str | None, make: Callable[[], Made]) -> Made:
    """The result of `make`. An error beyond a limit names the field."""
    try:
        return make()
    except ConstraintCrdtError as error:
        raise PlatoFieldError(str(error) if field is None else f"`{field}`: {error}", field) from None


def _content(tile: FleetTile, sent: PlatoTile, replica: Replica) -> list[Cell]:
    created = sent.created_at * MS
    if _is_later(tile, sent):
        cells = tile.put_cells(sent.content.encode(), replica, author=sent.author, time=sent.updated_at * MS, created=created)
    elif sent.created_at < tile.created // MS:  # in the precision of the client
        cells = tile.origin_cells(replica, sent.author, created, created)
    else:
        cells = []
    return cells


def _is_later(tile: FleetTile, sent: PlatoTile) -> bool:
    """True if the content of the client wins over the known content. Times are compared in the precision of the client."""
    if tile.writer is None:
        return True
    held = tile.updated // MS
    return sent.updated_at > held or (sent.updated_at == held and sent.content.encode() > tile.content)


def _constraints(tile: FleetTile, sent: PlatoTile, replica: Replica) -> list[Cell]:
    elements = sent.constraints.elements
    return tile.constraints.foreign_additions(elements, replica, buried_with_it=sent.constraints.tombstones)


def _counts(sent: PlatoTile, rows: Rows) -> dict[str, tuple[int, int]]:
    counts, violations = sent.metrics.counts, sent.metrics.violations
    names = [name for name in (counts | violations) if parse_replica(name) not in rows]
    return {name: (counts.get(name, 0), violations.get(name, 0)) for name in names}


def _position(tile: FleetTile, sent: PlatoTile, replica: Replica) -> list[Cell]:
    position, held = sent.position, tile.position_time
    if position is None or (held is not None and position.timestamp <= held):
        return []
    return [tile.position_cell(position.position, replica, position.timestamp, by=position.node)]


def _changes(tile: FleetTile, sent: PlatoDelta, replica: Replica) -> list[Cell]:
    """The net effect of the adds and removals of a delta."""
    added: dict[str, set[Tag]] = {}
    removed: dict[str, set[Tag]] = {}
    for change in sent.constraints:
        if change.add is not None:
            added.setdefault(change.add.constraint_id, set()).add((change.add.node, change.add.seq))
        if change.remove is not None:
            id_, named = change.remove.constraint_id, set(change.remove.tombstoned_tags)
            now = added.pop(id_, set())
            removed.setdefault(id_, set()).update(named or tile.constraints.tags_of(id_))
            if named and now - named:
                added[id_] = now - named
    buried = {tag for tags in removed.values() for tag in tags}
    return [*_removals(tile, removed, replica), *tile.constraints.foreign_additions(added, replica, buried_with_it=buried)]


def _removals(tile: FleetTile, removed: Mapping[str, set[Tag]], replica: Replica) -> list[Cell]:
    return tile.constraints.removals(removed, replica) if any(removed.values()) else []


MOST_TOMBSTONES: Final = 10_000
"""Rendered per tile. Each node has an equal share, of its latest."""

HASHES_KEPT: Final = 10_000


class ContentHashes:
    """The FNV-1a hashes of contents shown lately, by their blake2b: they are slow to make, and a tile is shown often."""

    def __init__(self, most: int = HASHES_KEPT) -> None:
        self._most = most
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def knows(self, content_hash: bytes) -> bool:
        """True if `of` will answer at once."""
        return content_hash in self._known

    def of(self, content_hash: bytes, content: bytes) -> int:
        """The FNV-1a hash of a content with this blake2b."""
        found = self._known.pop(content_hash, None)
        if found is None:
            found = fnv1a(content)
        self._known[content_hash] = found
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found


def plato_tile(
    tile: FleetTile, *, counted_besides: Mapping[str, Counts] | None = None, hashes: ContentHashes | None = None
) -> PlatoTile:
    """A tile as JSON of the contract. Adds and counts of replicas of this fleet are under the text of the replica.

    `counted_besides`: counts by node outside of the tile; the maximum of both is rendered. O(its cells and tombstones).
    Raises `ConstraintCrdtError` if the content is not text.
    """
    content = tile.content
    text = tile.text
    content_hash = fnv1a(content) if hashes is None else hashes.of(tile.content_hash if content else b"", content)
    return PlatoTile(
        id=tile.id,
        room=tile.room,
        content=text,
        tags=list(tile.tags),
        constraints=_shown_constraints(tile),
        metrics=_metrics(tile.metrics.by_node(), counted_besides or {}),
        position=_shown_position(tile),
        author=tile.author,
        created_at=tile.created // MS,
        updated_at=tile.updated // MS,
        content_hash=content_hash,
    )


def room_tile(state: ConstraintState, tile: FleetTile, hashes: ContentHashes) -> PlatoTile | None:
    """A tile of a state, of `ROOM_TILE` with the counts of deltas. None for a content other than UTF-8."""
    counted = state.increments.by_node(tile.room) if tile.id == ROOM_TILE else {}
    try:
        return plato_tile(tile, counted_besides=counted, hashes=hashes) if tile.exists else None
    except ConstraintCrdtError:
        return None


def _shown_constraints(tile: FleetTile) -> PlatoConstraints:
    elements = {element: sorted(tags) for element, tags in tile.constraints.by_element().items()}
    tombstones = tile.constraints.tombstones()
    latest = {node: stretches[-1][1] for node, stretches in tombstones.items() if stretches}
    for tags in elements.values():
        for node, seq in tags:
            latest[node] = max(seq, latest.get(node, 0))
    share = MOST_TOMBSTONES // max(len(tombstones), 1)
    shown = [tag for node, stretches in sorted(tombstones.items()) for tag in _last(node, stretches, share)]
    return PlatoConstraints(elements=elements, tombstones=shown, seq=dict(sorted(latest.items())))


def _last(node: str, stretches: tuple[tuple[int, int], ...], most: int) -> Iterator[Tag]:
    """The last tags of some stretches, as many as are to be shown: a stretch may have any number."""
    left = most
    for first, last in reversed(stretches):
        for seq in range(last, max(first - 1, last - left), -1):
            yield node, seq
        left -= min(left, last - first + 1)


def _metrics(counted: Mapping[str, Counts], besides: Mapping[str, Counts]) -> PlatoMetrics:
    counts: dict[str, int] = {}
    violations: dict[str, int] = {}
    for node in sorted({*counted, *besides}):
        here, there = counted.get(node, ZERO), besides.get(node, ZERO)
        satisfied, violated = max(here.satisfied, there.satisfied), max(here.violated, there.violated)
        if satisfied:
            counts[node] = satisfied
        if violated:
            violations[node] = violated
    return PlatoMetrics(counts=counts, violations=violations)


def _shown_position(tile: FleetTile) -> PlatoPosition | None:
    position = tile.position
    if position is None:
        return None
    return PlatoPosition(
        position=position, timestamp=tile.position_time or 0, node=tile.position_by or "", norm=signed_norm(position)
    )
