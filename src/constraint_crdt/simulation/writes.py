"""What a `Write` step asks of a node, what it has to lead to, and how to tell that it did."""

from collections.abc import Sequence
from typing import Final, NamedTuple, get_args

import msgspec

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.simulation import summaries
from constraint_crdt.simulation.invariants import Counted, Invariants
from constraint_crdt.simulation.models import ROOM, Said
from constraint_crdt.simulation.steps import (
    Add,
    AnyStep,
    Count,
    Decay,
    Expire,
    Fold,
    FoldRates,
    Increment,
    Insert,
    Move,
    Rate,
    Record,
    Remove,
    Retire,
    Tally,
    Tile,
    Write,
)
from constraint_crdt.simulation.summaries import Summing
from constraint_crdt.types.counters import COUNTS, counts_value
from constraint_crdt.types.decay import RATE
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.increments import APPLIED
from constraint_crdt.types.nodes import RETIRE

TILE_ACTS: Final = ("put", "delete", "restore", "purge", "tag", "untag")
TOGETHER: Final = "increments taken together"
AGAIN: Final = "increment known already"

WRITES: Final = (
    *sorted(str(each.__struct_config__.tag) for each in get_args(AnyStep) if issubclass(each, Write) and each is not Tile),
    *(f"tile {act}" for act in TILE_ACTS),
    AGAIN,
)
"""Every kind of write, all that there is a step for. A search in which one of them never came about has not looked. (`TOGETHER` is
what follows from some of them: told, and too rare to be asked of a short search.)
"""

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
        case Tally() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            summaries.do(node, step)


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
    said: tuple[Said, ...] = ()
    """What it puts into summaries."""
    nothing: bool = False
    """It has to write nothing, but for the beginning of a life."""


def parts(step: Write) -> Sequence[Write]:
    """The mutations that a step consists of, one after the other."""
    if not isinstance(step, Increment) or not step.more:
        return (step,)
    counts = ((step.satisfied, step.violated), *step.more)
    return [
        msgspec.structs.replace(step, seq=step.seq + place, satisfied=satisfied, violated=violated, more=())
        for place, (satisfied, violated) in enumerate(counts)
    ]


def kinds(step: Write, cells: Sequence[Cell]) -> list[str]:
    """Which kinds of writes came about, by what was written beside the beginning of a life: of `WRITES`."""
    if not isinstance(step, Retire) and all(cell.kind == RETIRE for cell in cells):
        return [AGAIN] if isinstance(step, Increment) else []
    kind = f"tile {step.act}" if isinstance(step, Tile) else str(step.__struct_config__.tag)
    return [kind, TOGETHER] if any(cell.kind == APPLIED for cell in cells) else [kind]


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
        case Tally() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            return _summed(node, step, log, writes_on=writes_on)
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


def _summed(node: GossipNode, step: Summing, log: Invariants, *, writes_on: bool) -> Expected:
    said = summaries.said(node, step, log.model(node.node_id), writes_on=writes_on)
    named: Named | None = set()
    if isinstance(step, FoldRates) and writes_on:
        cells = {id_: node.state.rows.get(RATE, id_, node.replica) for id_ in step.ids}
        named = {(RATE, id_, cell.replica, cell.seq) for id_, cell in cells.items() if cell is not None}
    elif isinstance(step, Increment) and said:
        named = None
    return Expected({}, named, said=said, nothing=not said)


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
        case Tally() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            return summaries.may_refuse(node, step, log.model(node.node_id))
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
        case Tally() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            return summaries.is_done(node, step)
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
