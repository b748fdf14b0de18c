"""The cells of tiles, and positions on the lattice: kinds and wire values, the content in pages, the counts, the index of all
tiles.

| kind | key | value |
|---|---|---|
| 14 TILE | room, tile id | `[created, author]` |
| 15 CONTENT | room, tile id | `[time, size, hash]` |
| 16 CONTENT_PAGE | room, tile id, page | bytes |
| 17 ELEMENT | room, tile id, letter, element | `t` tag, `k` constraint: nil; `f` constraint by foreign tags: `[[node, seq], …]` |
| 18 TOMBSTONES | room, tile id, foreign node | `[[first seq, last seq], …]`: removed foreign tags |
| 19 TILE_COUNTS | room, tile id, counting name | `[satisfied, violated]`, cumulative |
| 20 TILE_POSITION | room, tile id | as POSITION, with the name of a writer outside of the fleet |
| 21 DELETED | room, tile id | `[time, [[node id, incarnation, seq], …]]`: the CONTENT cells observed by the deletion |

A tile is named by a room and an id. Header, content, deletion and position stand under this name; pages, elements, counts and
tombstones stand under longer keys beginning with it. `TileIndex` knows these keys, so reading a tile costs as much as its own
cells. A tile is visible while a content stands without a deletion. Rules:

- A content is a header with a hash and the pages, all in the same row and transaction. Transfers are applied as a whole, so
  honest nodes always have header and pages together. A content with missing pages or another hash is *damaged* and reads as
  empty.
- Every reading follows from the standing cells, never from the order of their arrival.
- A count is cumulative and belongs to a name: the text of a replica for a node of the fleet, any other name for outside software,
  whose counts any node may take in. The reading is, per name, the highest count of any row; the total is the sum over the names.

The fleet has a position on the Eisenstein (hexagonal) lattice, too, a register whose concurrent values resolve by lowest norm.

| kind | key | value |
|---|---|---|
| 4 POSITION | "" | `[a, b, time in ns, [[node id, incarnation, seq], …]]` |

A write names the cells it supersedes (`overwrites`), so a position moves anywhere, also away from the origin. Among the cells
without a successor the lowest Eisenstein norm wins, then the latest time, then the replica. `Positions` implements the rule for
this register and for tiles. A register without writes has no candidate: a fresh node never counts as (0, 0).
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Self

import msgspec

from constraint_crdt.crdt.cells import (
    SEPARATOR,
    Cell,
    WireDot,
    check_dots,
    make_cell,
    make_key,
    register,
    require,
    require_counts,
    require_text,
    value_of,
)
from constraint_crdt.crdt.clock import Replica, check_id, parse_replica, writer
from constraint_crdt.crdt.limits import COORDINATE_MAX, COORDINATE_MIN, ID_BYTES, MAX_COUNT, PAGE_BYTES, TILE_BYTES, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, CountTooLarge, InvalidType, InvalidValue
from constraint_crdt.types.counters import ZERO, Counts, check_pair
from constraint_crdt.types.view import IndexedView, check_page

Position = tuple[int, int]
"""(a, b): the lattice point a + b·ω, ω = e^(2πi/3)."""

POSITION: Final = 4


class PositionValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a POSITION or TILE_POSITION cell."""

    a: int
    b: int
    time: int
    """ns since the epoch."""
    overwrites: tuple[WireDot, ...] = ()
    """The cells superseded by this cell."""
    by: str = ""
    """The name of a writer outside of the fleet; else empty."""


def check_position(_: str, value: PositionValue) -> None:
    """The bounds of a position inside a cell. Raises `ConstraintCrdtError`."""
    in_range = min(value.a, value.b) >= COORDINATE_MIN and max(value.a, value.b) <= COORDINATE_MAX
    require(in_range, "a coordinate of a position")
    require_counts((value.time,), "the time of a position")
    require_text(value.by, "the name of who wrote a position")
    check_dots(value.overwrites)


def _check_register(key: str, value: PositionValue) -> None:
    require(not key, "the key of a position")
    check_position(key, value)


register(POSITION, PositionValue, _check_register, key_bytes=ID_BYTES)


def position_value(cell: Cell) -> PositionValue:
    """The value of a POSITION or TILE_POSITION cell."""
    value: PositionValue = value_of(cell)
    return value


def eisenstein_norm(position: Position) -> int:
    """a² - ab + b²: the squared distance of a + b·ω from the origin. Exact for any integers."""
    a, b = position
    return a * a - a * b + b * b


def hex_distance(one: Position, other: Position) -> int:
    """The number of steps between neighbours from a lattice point to another. Exact for any integers.

    OtherNodes differ by a unit of norm 1: ±1, ±ω or ±(1 + ω). Where the two parts of the difference have the same sign, steps of
    ±(1 + ω) reduce both at once; otherwise each part needs steps of its own.
    """
    a, b = one[0] - other[0], one[1] - other[1]
    return max(abs(a), abs(b), abs(a - b))


class Positions:
    """The cells of a register over all rows, updated with each change. The winner is read in O(1)."""

    def __init__(self, cells: Iterable[Cell] = ()) -> None:
        """`cells`: the standing cells, at most one per row."""
        self.values: dict[Replica, tuple[int, PositionValue]] = {}
        """The standing value in each row, with its seq."""
        self.winner: PositionValue | None = None
        """The winning position; None before the first write."""
        self.leader: Replica | None = None
        """The writer of the winning position."""
        self._overwritten: dict[Replica, int] = {}
        self._candidates: dict[Replica, tuple[int, PositionValue]] = {}
        for cell in cells:
            self.values[cell.replica] = (cell.seq, position_value(cell))
        self._recompute()
        self._resolve()

    def changed(self, old: Cell | None, new: Cell | None) -> None:
        """`old` fell, `new` stands now."""
        if old is not None:
            del self.values[old.replica]
            self._candidates.pop(old.replica, None)
        if new is not None:
            self.values[new.replica] = (new.seq, position_value(new))
        if new is not None and (old is None or self._carried_on(old, new)):
            self._take(new.replica)
        else:
            self._recompute()
        self._resolve()

    def value(self, position: Position, time: int, replica: Replica, *, by: str = "") -> list[object]:
        """The value of the next cell of `replica`, for a move to `position`. `by`: see `PositionValue`.

        Raises `TypeError` for numbers that are not whole, and `ConstraintCrdtError` for a coordinate or time out of bounds.
        """
        try:
            a, b = (whole_number(number, "a coordinate of a position") for number in position)
        except ValueError:
            raise ConstraintCrdtError(f"a position has two coordinates, not {position!r}") from None
        time = whole_number(time, "a time in ns since the epoch")
        if not all(COORDINATE_MIN <= x <= COORDINATE_MAX for x in (a, b)):
            raise ConstraintCrdtError(f"a position has two 32-bit integer coordinates, not {position!r}")
        if not 0 <= time <= MAX_COUNT:
            raise ConstraintCrdtError(f"a time is in ns since the epoch and cannot be {time}")
        named = {other: seq for other, (seq, _) in self._candidates.items() if other != replica}
        if replica in self.values:
            for dot in self.values[replica][1].overwrites:
                if self._standing_seq(dot.replica) == dot.seq:  # a later position there needs no naming
                    named.setdefault(dot.replica, dot.seq)
        overwrites = [[other.node_id, other.incarnation, seq] for other, seq in sorted(named.items())]
        return [a, b, time, overwrites, by] if by else [a, b, time, overwrites]

    def _carried_on(self, old: Cell, new: Cell) -> bool:
        """True if `new` still overwrites the standing targets of `old`: then no superseded cell returns."""
        named = {dot.replica: dot.seq for dot in position_value(new).overwrites}
        return all(
            named.get(dot.replica, 0) >= dot.seq or self._standing_seq(dot.replica) > dot.seq
            for dot in position_value(old).overwrites
            if dot.replica != new.replica
        )

    def _standing_seq(self, replica: Replica) -> int:
        return self.values[replica][0] if replica in self.values else 0

    def _take(self, replica: Replica) -> None:
        """Apply the overwrites of a new cell, and those of others to it."""
        seq, value = self.values[replica]
        for dot in value.overwrites:
            other = dot.replica
            if other == replica:
                continue
            self._overwritten[other] = max(dot.seq, self._overwritten.get(other, 0))
            if other in self._candidates and self._candidates[other][0] <= dot.seq:
                del self._candidates[other]
        if self._overwritten.get(replica, 0) < seq:
            self._candidates[replica] = (seq, value)

    def _recompute(self) -> None:
        """From all standing cells, only after the loss of a cell with overwrites. O(cells)."""
        self._overwritten, self._candidates = {}, {}
        for replica in self.values:
            self._take(replica)

    def _resolve(self) -> None:
        self.leader = min(self._candidates, key=self._rank) if self._candidates else None
        self.winner = self._candidates[self.leader][1] if self.leader is not None else None

    def _rank(self, replica: Replica) -> tuple[int, int, Replica]:
        value = self._candidates[replica][1]
        return eisenstein_norm((value.a, value.b)), -value.time, replica


__all__ = ["COORDINATE_MAX", "COORDINATE_MIN", "KEY", "EisensteinRegister", "Position", "eisenstein_norm", "hex_distance"]

KEY = ""


class _RegisterFile(msgspec.Struct):
    """A register as JSON, in the form of the Rust crate."""

    position: Position
    timestamp: int
    node: str
    norm: int


class EisensteinRegister(IndexedView):
    """The position. Reading is O(1)."""

    KINDS = (POSITION,)

    def _clear(self) -> None:
        self._positions = Positions()

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        self._positions.changed(old, new)

    @property
    def position(self) -> Position | None:
        """(a, b), or None before the first write."""
        winner = self._positions.winner
        return (winner.a, winner.b) if winner else None

    @property
    def norm(self) -> int | None:
        """The Eisenstein norm of the position, or None while there is none."""
        return eisenstein_norm(self.position) if self.position else None

    def hex_distance(self, other: Position = (0, 0)) -> int | None:
        """Steps on the lattice from the position to another, the origin if left out; None while there is none."""
        return hex_distance(self.position, other) if self.position else None

    @property
    def time(self) -> int | None:
        """When the position was written, ns since the epoch by its writer's clock."""
        winner = self._positions.winner
        return winner.time if winner else None

    def to_json(self) -> str:
        """`{"position": [a, b], "timestamp": NS, "node": REPLICA, "norm": NORM}`, as the Rust crate writes; `null` if empty."""
        winner, leader = self._positions.winner, self._positions.leader
        if winner is None:
            return "null"
        position = (winner.a, winner.b)
        file = _RegisterFile(position, winner.time, str(leader), eisenstein_norm(position))
        return msgspec.json.encode(file).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The register in a JSON of `to_json`, or of the crate, where a node has no life. Its norm is not read.

        Raises `ValueError` for any other text.
        """
        register = cls()
        try:
            file = msgspec.json.decode(text, type=_RegisterFile | None)
            if file is not None:
                register.update(file.position, node=parse_replica(file.node) or file.node, time=file.timestamp)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConstraintCrdtError) as error:
            raise InvalidValue(f"this is no JSON of a register: {error}") from None
        return register

    def node_position(self, node_id: str) -> Position | None:
        """The last position written by a node (over its incarnations, the latest). O(rows with a position)."""
        return self.by_node.get(node_id)

    @property
    def by(self) -> str | None:
        """The node with the winning position, or None before the first write. O(rows with a position)."""
        positions = self._positions
        return next((replica.node_id for replica, (_, value) in positions.values.items() if value is positions.winner), None)

    @property
    def by_node(self) -> dict[str, Position]:
        """The last position written by each node, ordered by name. O(rows with a position)."""
        last: dict[str, tuple[int, int, int]] = {}
        for replica, (_, value) in self._positions.values.items():
            written = (value.time, value.a, value.b)
            last[replica.node_id] = max(written, last.get(replica.node_id, written))
        return {node: (a, b) for node, (_, a, b) in sorted(last.items())}

    def update(self, position: Position, *, node: str | Replica, time: int) -> None:
        """Move to `position` (any two 32-bit integers); `time` in ns since the epoch.

        Raises `TypeError` for numbers that are not whole, and `ConstraintCrdtError` for a coordinate or time out of bounds, or
        for more concurrent positions than fit into a cell.
        """
        replica = writer(node)
        self._rows.write(replica, make_cell(POSITION, KEY, self._positions.value(position, time, replica)))

    def __repr__(self) -> str:
        return f"EisensteinRegister({self.position})"


TILE: Final = 14
CONTENT: Final = 15
CONTENT_PAGE: Final = 16
ELEMENT: Final = 17
TOMBSTONES: Final = 18
TILE_COUNTS: Final = 19
TILE_POSITION: Final = 20
DELETED: Final = 21

HASH_BYTES: Final = 32

Interval = tuple[int, int]
"""The first and the last seq of a range."""


class TileValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a TILE cell: when and by whom a tile was created, as its writer knew."""

    created: int
    """ns since the epoch."""
    author: str


class ContentValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a CONTENT cell. The content is in CONTENT_PAGE cells of the same row, unless empty."""

    time: int
    """Hybrid logical time, ns since the epoch."""
    size: int
    """Bytes."""
    hash: bytes
    """blake2b, 32 bytes, of the whole content."""


class DeletedValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a DELETED cell."""

    time: int
    """ns since the epoch."""
    seen: tuple[WireDot, ...]
    """The CONTENT cells observed by the deletion."""


def _check_tile(_: str, value: TileValue) -> None:
    require_counts((value.created,), "the time at which a tile was created")
    require_text(value.author, "the author of a tile")


def _check_content(_: str, value: ContentValue) -> None:
    require_counts((value.time,), "the time of a content")
    require(0 <= value.size <= TILE_BYTES, "the size of a content")
    require(len(value.hash) == HASH_BYTES, "the hash of a content")


def _check_element(_: str, value: Sequence[tuple[str, int]]) -> None:
    for node, seq in value:
        check_id(node, "the node of a tag")
        require_counts((seq,), "the seq of a tag")


def _check_tombstones(_: str, value: Sequence[Interval]) -> None:
    require_counts([end for interval in value for end in interval], "a seq of a stretch")
    require(all(lo <= hi for lo, hi in value), "a stretch")
    require(all(before[1] < after[0] for before, after in itertools.pairwise(value)), "the order of stretches")


def _check_deleted(_: str, value: DeletedValue) -> None:
    require_counts((value.time,), "the time of a deletion")
    check_dots(value.seen)


register(TILE, TileValue, _check_tile, removable=True)
register(CONTENT, ContentValue, _check_content, removable=True)
register(CONTENT_PAGE, bytes, check_page, removable=True)
register(ELEMENT, tuple[tuple[str, int], ...], _check_element, default=(), removable=True)
register(TOMBSTONES, tuple[Interval, ...], _check_tombstones, removable=True)
register(TILE_COUNTS, tuple[int, int], check_pair, removable=True)
register(TILE_POSITION, PositionValue, check_position, removable=True)
register(DELETED, DeletedValue, _check_deleted, removable=True)


def hash_content(content: bytes) -> bytes:
    """blake2b, 32 bytes."""
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()


def encode_content(content: str | bytes) -> bytes:
    """The stored bytes of a content. Raises `TypeError` for other types than text and bytes, `ConstraintCrdtError` for too many
    bytes."""
    if isinstance(content, str):
        try:
            content = content.encode()
        except UnicodeEncodeError:
            raise ConstraintCrdtError("the content of a tile is bytes or valid Unicode text") from None
    elif not isinstance(content, bytes | bytearray):
        raise InvalidType(f"the content of a tile is text or bytes, not {type(content).__name__}")
    if len(content) > TILE_BYTES:
        raise ConstraintCrdtError(f"the content of a tile has at most {TILE_BYTES} bytes, not {len(content)}")
    return bytes(content)


def content_cells(key: str, content: bytes, time: int) -> list[Cell]:
    """The cells of a content in a row."""
    cells = [make_cell(CONTENT, key, [time, len(content), hash_content(content)])]
    for number, start in enumerate(range(0, len(content), PAGE_BYTES)):
        cells.append(make_cell(CONTENT_PAGE, _page_key(key, number), content[start : start + PAGE_BYTES]))
    return cells


def read_content(rows: Rows, header: Cell) -> bytes | None:
    """The content of a header; None for a damaged content. O(content)."""
    value: ContentValue = value_of(header)
    pages: list[bytes] = []
    left = value.size
    while left > 0:
        page = rows.get(CONTENT_PAGE, _page_key(str(header.key), len(pages)), header.replica)
        if page is None:
            return None
        pages.append(value_of(page))
        left -= len(pages[-1])
    content = b"".join(pages)
    return content if left == 0 and hash_content(content) == value.hash else None


def _page_key(key: str, number: int) -> str:
    return f"{key}{SEPARATOR}{number}"


Place = tuple[str, str]
"""Room and id of a tile."""

NAME_KINDS = (TILE, CONTENT, TILE_POSITION, DELETED)
PART_KINDS = (CONTENT_PAGE, ELEMENT, TOMBSTONES, TILE_COUNTS)


def check_place(room: str, id_: str) -> str:
    """The key of a tile. Raises `TypeError` and `ConstraintCrdtError` for an invalid room or id."""
    for text, what in ((room, "the room of a tile"), (id_, "the id of a tile")):
        check_id(text, what)
        if SEPARATOR in text:
            raise ConstraintCrdtError(f"{what} must not contain the control character U+001F")
    return make_key(room, id_)


def standing_content(rows: Rows, key: str) -> tuple[Cell | None, bool]:
    """The content of a tile, and whether the tile is visible. Without any content: (None, False).

    The latest content without a deletion, ties by replica; if all are deleted the latest of them. O(cells).
    """
    cells = rows.held(CONTENT, key)
    if not cells:
        return None, False
    named: dict[Replica, int] = {}
    for mark in rows.held(DELETED, key):
        deleted: DeletedValue = value_of(mark)
        for dot in deleted.seen:
            named[dot.replica] = max(dot.seq, named.get(dot.replica, 0))
    kept = [cell for cell in cells if named.get(cell.replica, 0) < cell.seq] if named else cells
    return max(kept or cells, key=_recency), bool(kept)


def _recency(cell: Cell) -> tuple[int, Replica]:
    value: ContentValue = value_of(cell)
    return value.time, cell.replica


class TileIndex(IndexedView):
    """The tiles known, visible or not. Lookups are O(1)."""

    KINDS = (*NAME_KINDS, *PART_KINDS)

    def _clear(self) -> None:
        self._longer: dict[str, dict[int, set[str]]] = {}
        self._rooms: dict[str, set[str]] = {}
        self._visible = 0

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        kind, whole = cell.kind, str(cell.key)
        room, _, rest = whole.partition(SEPARATOR)
        id_, more, _ = rest.partition(SEPARATOR)
        if bool(more) is (kind in NAME_KINDS):
            return  # not the key of a tile
        key = f"{room}{SEPARATOR}{id_}"
        longer = self._longer.get(key)
        if longer is None:
            if new is None or not _is_name(room) or not _is_name(id_):
                return
            longer = self._longer[key] = {}
        if more:
            self._note(longer, kind, whole)
        elif kind in (CONTENT, DELETED):
            self._judge(room, id_, key)
        if new is None and not longer and not any(key in self._rows.table(each) for each in NAME_KINDS):
            del self._longer[key]

    def _note(self, longer: dict[int, set[str]], kind: int, whole: str) -> None:
        if whole in self._rows.table(kind):
            longer.setdefault(kind, set()).add(whole)
        elif kind in longer:
            longer[kind].discard(whole)
            if not longer[kind]:
                del longer[kind]

    def _judge(self, room: str, id_: str, key: str) -> None:
        """See whether the tile is there."""
        rows = self._rows
        there = key in rows.table(CONTENT) and (key not in rows.table(DELETED) or standing_content(rows, key)[1])
        ids = self._rooms.get(room, set())
        if there is (id_ in ids):
            return
        self._visible += 1 if there else -1
        if there:
            self._rooms.setdefault(room, ids).add(id_)
        else:
            ids.discard(id_)
            if not ids:
                del self._rooms[room]

    @property
    def visible(self) -> int:
        """How many tiles are there."""
        return self._visible

    @property
    def known(self) -> int:
        """How many tiles have any cell, deleted ones included."""
        return len(self._longer)

    def check_room(self, key: str) -> None:
        """Raise `ConstraintCrdtError` for a new tile beyond the limit of this node."""
        most = self._rows.limits.tiles
        if key not in self._longer and self.known >= most:
            raise ConstraintCrdtError(f"there are {most} tiles or more, deleted ones included: no further one, as this node is set")

    def is_visible(self, room: str, id_: str) -> bool:
        """True if the tile is visible."""
        return id_ in self._rooms.get(room, ())

    @property
    def rooms(self) -> list[str]:
        """The rooms with a visible tile, in order. O(rooms)."""
        return sorted(self._rooms)

    def ids(self, room: str) -> list[str]:
        """The visible tiles of a room, in order. O(their number)."""
        return sorted(self._rooms.get(room, ()))

    def places(self) -> Iterator[Place]:
        """Every tile known, in no order."""
        for key in self._longer:
            room, _, id_ = key.partition(SEPARATOR)
            yield room, id_

    def keys(self, key: str, kind: int, start: str = "") -> Sequence[str]:
        """The keys of a tile for a kind with longer keys, beginning with `start`. O(keys of the kind)."""
        found = self._longer.get(key, {}).get(kind, ())
        return [whole for whole in found if whole.startswith(start)] if start else tuple(found)

    def cells(self, key: str) -> list[Cell]:
        """Every standing cell of a tile."""
        rows = self._rows
        found = [cell for kind in NAME_KINDS for cell in rows.held(kind, key)]
        found += [cell for kind in PART_KINDS for whole in self.keys(key, kind) for cell in rows.held(kind, whole)]
        return found


def _is_name(name: str) -> bool:
    return 0 < len(name.encode()) <= ID_BYTES


class TileCounts:
    """The counts of a tile. Readings are O(counting names x rows)."""

    def __init__(self, rows: Rows, index: TileIndex, key: str) -> None:
        """`key`: the key of the tile."""
        self._rows = rows
        self._index = index
        self._key = key

    @property
    def total(self) -> Counts:
        """All counts."""
        each = self.by_node().values()
        return Counts(sum(counts.satisfied for counts in each), sum(counts.violated for counts in each))

    @property
    def satisfied(self) -> int:
        """Satisfied evaluations."""
        return self.total.satisfied

    @property
    def violated(self) -> int:
        """Violated evaluations."""
        return self.total.violated

    def by_node(self) -> dict[str, Counts]:
        """The counts by name, in order of the names."""
        start = len(self._key) + len(SEPARATOR)
        names = sorted(whole[start:] for whole in self._index.keys(self._key, TILE_COUNTS))
        return {who: self._of(who) for who in names}

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0) -> None:
        """Count evaluations of a node of the fleet. Zero counts write nothing.

        Raises `TypeError` for a number that is not whole, `ValueError` for a negative number and `ConstraintCrdtError` for a
        total beyond 2**63 - 1, or a name beyond `Limits.tile_elements`.
        """
        satisfied, violated = (whole_number(number, "a count") for number in (satisfied, violated))
        if satisfied < 0 or violated < 0:
            raise InvalidValue("counts only grow: the number to record cannot be negative")
        replica = writer(node)
        who = str(replica)
        self._write(replica, self._cells({who: self._of(who).plus(satisfied, violated)}))

    def record_foreign(self, who: str, satisfied: int, violated: int, *, node: str | Replica) -> bool:
        """Take in the total counts of an outside name, as known to `node`. False if they were known. Raises as `record` does."""
        return self._write(writer(node), self.foreign_records({who: (satisfied, violated)}))

    def foreign_records(self, counted: Mapping[str, tuple[int, int]]) -> list[Cell]:
        """The cells of `record_foreign` for several names."""
        for who, each in counted.items():
            check_id(who, "the name of who counted")
            if min(whole_number(number, "a count") for number in each) < 0:
                raise InvalidValue("counts only grow: they cannot be negative")
        return self._cells(counted)

    def _cells(self, counted: Mapping[str, tuple[int, int]]) -> list[Cell]:
        cells, opened = [], 0
        for who, (satisfied, violated) in counted.items():
            if max(satisfied, violated) > MAX_COUNT:
                raise CountTooLarge(f"a cumulative count, here that of {who!r}, cannot exceed 2**63 - 1")
            before = self._of(who)
            after = Counts(max(satisfied, before.satisfied), max(violated, before.violated))
            if after != before:
                opened += before == ZERO
                cells.append(make_cell(TILE_COUNTS, self._cell_key(who), list(after)))
        most = self._rows.limits.tile_elements
        if opened:
            self._index.check_room(self._key)
        if opened and len(self.by_node()) + opened > most:
            raise ConstraintCrdtError(f"at most {most} may count in one tile, as this node is set")
        return cells

    def _write(self, replica: Replica, cells: list[Cell]) -> bool:
        if cells:
            self._rows.write_all(replica, cells)
        return bool(cells)

    def _cell_key(self, who: str) -> str:
        return self._key + SEPARATOR + who

    def _of(self, who: str) -> Counts:
        values: list[tuple[int, int]] = [value_of(cell) for cell in self._rows.held(TILE_COUNTS, self._cell_key(who))]
        return Counts(max(v[0] for v in values), max(v[1] for v in values)) if values else ZERO

    def __repr__(self) -> str:
        return f"TileCounts(satisfied={self.satisfied}, violated={self.violated})"
