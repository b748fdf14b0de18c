"""What a `Write` step asks of a node, what it has to lead to, and how to tell that it did."""

from typing import NamedTuple

from constraint_crdt.core.cells import ADD, COUNTS, counts_value
from constraint_crdt.core.hybrid import SECOND
from constraint_crdt.core.replica import Replica
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.simulation.invariants import Counted, Invariants
from constraint_crdt.simulation.steps import Add, Count, Expire, Fold, Move, Record, Remove, Retire, Tile, Write

ROOM = "depot"
"""Where all tiles of a history are."""

Named = set[tuple[int, object, Replica, int]]
"""Kind, key, replica and seq of what a removal ends."""


def do(node: GossipNode, step: Write) -> None:
    """Have the node do it. Raises as the node does."""
    match step:
        case Add():
            node.add_constraint(step.id, when=step.when, about=step.about, ttl=step.ttl)
        case Remove():
            node.remove_constraint(step.id)
        case Record():
            node.record(step.satisfied, step.violated, constraint=step.id)
        case Fold():
            node.fold(step.ids)
        case Move():
            node.update_position((step.a, step.b))
        case Count():
            counter = node.state.counters[step.name]
            move = counter.increment if step.by > 0 else counter.decrement
            node.write(lambda me: move(abs(step.by), node=me))
        case Tile():
            _do_to_tile(node, step)
        case Expire():
            node.remove_expired()
        case Retire():
            node.retire(step.dead)


def _do_to_tile(node: GossipNode, step: Tile) -> None:
    """Raises `KeyError`, before a write begins, where there is nothing to do it to."""
    tile = node.state.tiles.tile(ROOM, step.tile)
    possible = {
        "put": True,
        "tag": True,
        "delete": tile.exists,
        "restore": tile.deleted,
        "purge": tile.exists or tile.deleted,
        "untag": step.text in tile.tags,
    }
    if not possible[step.act]:
        raise KeyError(step.tile)
    match step.act:
        case "put":
            node.write(lambda me: tile.put(step.text, node=me))
        case "tag":
            node.write(lambda me: tile.edit(node=me, add_tags=[step.text]))
        case "untag":
            node.write(lambda me: tile.edit(node=me, remove_tags=[step.text]))
        case "delete":
            node.write(lambda me: tile.delete(node=me))
        case "restore":
            node.write(lambda me: tile.restore(node=me))
        case "purge":
            node.write(lambda me: tile.purge(node=me))


class Expected(NamedTuple):
    """What one mutation has to lead to."""

    counted: Counted
    """How far it moves the counts."""
    named: Named | None
    """What it has to name as removed; with `some`: at most that. None: whatever its type has to."""
    some: bool = False


def expected(node: GossipNode, step: Write, log: Invariants, *, writes_on: bool) -> Expected:
    """What it has to lead to. `writes_on`: the node goes on in its row; else it begins a new life first."""
    match step:
        case Add():
            ended = _adds(log, node, step.id)
            if is_done(node, step):
                ended = set()  # in force already: nothing to write
            elif writes_on:  # it takes over the cell of its own row
                ended = {each for each in ended if each[2] != node.replica}
            return Expected({}, ended)
        case Remove():
            return Expected({}, _adds(log, node, step.id))
        case Record():
            return Expected({step.id or "": (step.satisfied, step.violated)}, set())
        case Fold():
            return _folded(node, step, writes_on=writes_on)
        case Tile():
            return Expected({}, None)
        case Expire():
            over = log.expired_by(node, node.time.now() - 2 * node.time.max_skew)
            return Expected({}, {(ADD, key, dot.replica, dot.seq) for key, dot in over}, some=True)
    return Expected({}, set())


def _adds(log: Invariants, node: GossipNode, id_: str) -> Named:
    return {(ADD, id_, dot.replica, dot.seq) for dot in log.standing(node.node_id, ADD, id_)}


def _folded(node: GossipNode, step: Fold, *, writes_on: bool) -> Expected:
    """Counts of the node's own row move to its total. A life that begins has none."""
    found = {id_: node.state.rows.get(COUNTS, id_, node.replica) for id_ in step.ids} if writes_on else {}
    cells = {id_: cell for id_, cell in found.items() if cell is not None}
    moved = {id_: counts_value(cell) for id_, cell in cells.items()}
    total = sum(each[0] for each in moved.values()), sum(each[1] for each in moved.values())
    counted = {id_: (-each[0], -each[1]) for id_, each in moved.items()}
    return Expected(counted | {"": total}, {(COUNTS, id_, cell.replica, cell.seq) for id_, cell in cells.items()})


def may_refuse(node: GossipNode, step: Write, log: Invariants) -> bool:
    """True if the node has a reason not to do it."""
    if node.retired_by is not None:
        return True
    match step:
        case Tile():
            return step.act not in ("put", "tag")
        case Remove():
            return step.id not in log.active(node)
        case Retire():
            return step.dead == node.node_id or all(replica.node_id != step.dead for replica in node.clock)
    return False


def is_done(node: GossipNode, step: Write) -> bool:
    """True if the node itself reads what it was asked to write."""
    constraints, now = node.state.constraints, node.time.now()
    match step:
        case Add():
            ends = None if step.ttl is None else now + round(step.ttl * SECOND)
            found = [(each.when, each.about, each.expires_at) for each in constraints.definitions(step.id)]
            return found == [(step.when, step.about, ends)]
        case Remove():
            return step.id not in constraints
        case Move():
            return node.state.position == (step.a, step.b)
        case Tile():
            return _tile_is_so(node, step)
        case Retire():
            return step.dead in node.state.retirements
    return True


def _tile_is_so(node: GossipNode, step: Tile) -> bool:
    tile = node.state.tiles.tile(ROOM, step.tile)
    match step.act:
        case "put":
            return tile.exists and tile.text == step.text
        case "tag":
            return step.text in tile.tags
        case "untag":
            return step.text not in tile.tags
        case "restore":
            return not tile.deleted
        case _:
            return not tile.exists
