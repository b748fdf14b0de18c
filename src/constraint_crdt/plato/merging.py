"""Taking in what clients of the PLATO contract send: a tile is a replica to merge with, a delta a numbered increment.

Rules kept here:

- The same tile or delta a second time, here or at another node that has heard of the first, changes nothing.
- Each is one transaction: all of it counts or, beyond a limit, none.
- A tile's content and position count if they are later than what is held, by the client's clock. Of two contents of the same ms
  the one with the higher bytes counts, so that nodes choose alike.
- Tags are united. Constraints are merged by their tags, counts by the highest for each node, creation by the earliest.
- What a client tells of this fleet's own replicas is left aside: the fleet knows better, and one who made numbers up would have
  them stand.
- Deltas are about the room: they go to a tile of their own, `ROOM_TILE`, and their counts to the room's increments.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from constraint_crdt.core.cells import Cell
from constraint_crdt.core.replica import Replica, replica_named
from constraint_crdt.core.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.plato.checking import MS, PlatoFieldError
from constraint_crdt.plato.shapes import PlatoDelta, PlatoTile, Tag
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.tile import FleetTile

Made = TypeVar("Made")

ROOM_TILE: Final = "_room"
"""The id of the tile that stands for the room itself: its constraints and position are what deltas said."""

FURTHEST_AHEAD: Final = 86_400 * 1_000_000_000
"""ns that a client's clock may be ahead: a content or position from further on would stand against all that comes until then."""


def check_clock(tile: PlatoTile, now: int) -> None:
    """Raise `PlatoFieldError` for a tile from too far ahead. `now`: ns since the epoch."""
    times = {"updated_at": tile.updated_at * MS, "position.timestamp": tile.position.timestamp if tile.position else 0}
    for field, time in times.items():
        if time > now + FURTHEST_AHEAD:
            message = f"`{field}`: it is more than a day ahead of this node's clock: set the clock that is wrong"
            raise PlatoFieldError(message, field)


def merge_tile(state: ConstraintState, sent: PlatoTile, replica: Replica) -> bool:
    """Merge a tile that was checked, as `replica`. False if all of it was known. Raises `PlatoFieldError` beyond a limit."""
    tile = state.tiles.tile(sent.room, sent.id)
    cells = [
        *_within(None, lambda: _content(tile, sent, replica)),
        *_within("tags", lambda: tile.tags.additions(sent.tags)),
        *_within("constraints.tombstones", lambda: tile.constraints.burials(sent.constraints.tombstones, replica)),
        *_within("constraints.elements", lambda: _constraints(tile, sent, replica)),
        *_within("metrics", lambda: tile.metrics.foreign_records(_counts(sent, state.rows))),
        *_within("position", lambda: _position(tile, sent, replica)),
    ]
    if cells:
        state.rows.write_all(replica, cells)
    return bool(cells)


def apply_delta(state: ConstraintState, room: str, sent: PlatoDelta, replica: Replica) -> bool:
    """Take in a delta that was checked, as `replica`. False, and no effect, for a (node, seq) that is known.

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
    """What `make` makes; what is beyond a limit is said of the field."""
    try:
        return make()
    except ConstraintCrdtError as error:
        raise PlatoFieldError(str(error) if field is None else f"`{field}`: {error}", field) from None


def _content(tile: FleetTile, sent: PlatoTile, replica: Replica) -> list[Cell]:
    created = sent.created_at * MS
    if _is_later(tile, sent):
        cells = tile.put_cells(sent.content.encode(), replica, author=sent.author, time=sent.updated_at * MS, created=created)
    elif sent.created_at < tile.created // MS:  # as exact as the client knows it
        cells = tile.origin_cells(replica, sent.author, created, created)
    else:
        cells = []
    return cells


def _is_later(tile: FleetTile, sent: PlatoTile) -> bool:
    """True if the content sent is to stand in place of the one held. Times are compared as exactly as the client knows them."""
    if tile.writer is None:
        return True
    held = tile.updated // MS
    return sent.updated_at > held or (sent.updated_at == held and sent.content.encode() > tile.content)


def _constraints(tile: FleetTile, sent: PlatoTile, replica: Replica) -> list[Cell]:
    elements = sent.constraints.elements
    return tile.constraints.foreign_additions(elements, replica, buried_with_it=sent.constraints.tombstones)


def _counts(sent: PlatoTile, rows: Rows) -> dict[str, tuple[int, int]]:
    counts, violations = sent.metrics.counts, sent.metrics.violations
    names = [name for name in (counts | violations) if replica_named(name) not in rows]
    return {name: (counts.get(name, 0), violations.get(name, 0)) for name in names}


def _position(tile: FleetTile, sent: PlatoTile, replica: Replica) -> list[Cell]:
    position, held = sent.position, tile.position_time
    if position is None or (held is not None and position.timestamp <= held):
        return []
    return [tile.position_cell(position.position, replica, position.timestamp, by=position.node)]


def _changes(tile: FleetTile, sent: PlatoDelta, replica: Replica) -> list[Cell]:
    """What the adds and removals of a delta come to, in their order."""
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
