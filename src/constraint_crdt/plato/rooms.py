"""Rooms of a state under the PLATO contracts: a tile from a client is a replica to merge, a delta a numbered increment, an answer a
tile under the hash of its question and answer.

Rules:

- A repeated tile or delta, at this node or at another with knowledge of the first, changes nothing.
- Each is a transaction: applied whole or, beyond a limit, not at all.
- The content and position of a tile win if they are later than the known ones, by the clock of the client. Between two contents of
  the same ms the higher bytes win, so that nodes choose alike.
- Tags are united. Constraints are merged by their tags, counts by the maximum per node, creation by the minimum.
- Claims of a client about replicas of this fleet are ignored: the fleet has the true values, and invented numbers would stay.
- Deltas belong to the room: to a tile of their own, `ROOM_TILE`, and their counts to the increments of the room.
- An answer is a single tile, however often and wherever it is submitted: its content is JSON, its id the hash of question and
  answer.
- A client holds text, so a tile with a content other than UTF-8 is not rendered: the client would send back another content.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Final, TypeVar

import msgspec

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import Replica, parse_replica
from constraint_crdt.crdt.limits import TILE_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.plato import (
    MS,
    NOT_GIVEN,
    PlatoAnswer,
    PlatoConstraints,
    PlatoDelta,
    PlatoFieldError,
    PlatoMetrics,
    PlatoPosition,
    PlatoSubmission,
    PlatoTile,
    Tag,
    fnv1a,
    signed_norm,
)
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import ZERO, Counts
from constraint_crdt.types.tiles import FleetTile

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


class _AnswerContent(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the tile of an answer, as JSON."""

    question: str
    answer: str
    domain: str = ""
    confidence: float = NOT_GIVEN


HASH_DIGITS: Final = 32
"""Of the id of an answer: 128 bits, so that two answers do not share an id by chance or by design."""


def answer_id(question: str, answer: str) -> str:
    """The id of an answer in its room, in hex."""
    return sha256(msgspec.json.encode([question, answer])).hexdigest()[:HASH_DIGITS]


def submit_answer(state: ConstraintState, sent: PlatoSubmission, replica: Replica, *, now: int) -> tuple[FleetTile, bool]:
    """Put a validated answer, as `replica`. The tile, and whether it is new: a known tile stays as it is.

    `now`: ns since the epoch. Raises `PlatoFieldError` beyond a limit, and for a timestamp more than a day ahead.
    """
    if sent.created is not None and sent.created > now + FURTHEST_AHEAD:
        raise PlatoFieldError(
            "`timestamp`: it is more than a day ahead of this node's clock: set the clock that is wrong", "timestamp"
        )
    tile = state.tiles.tile(sent.room, answer_id(sent.question, sent.answer))
    if tile.exists:
        return tile, False
    content = _AnswerContent(question=sent.question, answer=sent.answer, domain=sent.domain, confidence=sent.confidence)
    encoded = msgspec.json.encode(content)
    check_size(encoded)
    cells = _within(None, lambda: tile.put_cells(encoded, replica, author=sent.author, created=sent.created))
    cells += _within("tags", lambda: tile.tags.additions(sent.tags))
    state.rows.write_all(replica, cells)
    return tile, True


def check_size(content: bytes) -> None:
    """Raise `PlatoFieldError` for a question and an answer that are too long for a tile."""
    if len(content) > TILE_BYTES:
        message = f"`answer`: with its question it has at most {TILE_BYTES} bytes as JSON, not {len(content)}"
        raise PlatoFieldError(message, "answer")


def plato_answer(tile: FleetTile) -> PlatoAnswer | None:
    """A tile as PLATO servers show it; None for a content other than UTF-8. O(content)."""
    try:
        text = tile.text
    except ConstraintCrdtError:
        return None
    held = _answer_content(text) or _AnswerContent(question=tile.id, answer=text)
    created, author = tile.created, tile.author
    return PlatoAnswer(
        id=tile.id,
        tile_hash=tile.id,
        room=tile.room,
        domain=held.domain or tile.room,
        question=held.question,
        answer=held.answer,
        agent=author,
        source=author,
        confidence=held.confidence,
        tags=list(tile.tags),
        created_at=created / 1e9,
        timestamp=created // MS,
        sequence=created // 1000,
    )


def _answer_content(text: str) -> _AnswerContent | None:
    if not text.startswith("{"):
        return None
    try:
        return msgspec.json.decode(text, type=_AnswerContent)
    except (msgspec.DecodeError, RecursionError):
        return None


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
