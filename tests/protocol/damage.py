"""Two nodes that agree, the ways to damage one of them behind its back, and what must hold once that is repaired."""

import itertools
from collections.abc import Callable

from constraint_crdt import GossipNode, Replica, VectorClock, exchange
from constraint_crdt.crdt.cells import Cell, make_cell
from constraint_crdt.crdt.repair import audit, rebuild
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.messages import GossipMessage, decode_message, encode_message
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.tile_cells import POSITION

Damage = Callable[[GossipNode], None]


def node(name: str) -> GossipNode:
    return GossipNode(name, incarnation=1, renew=itertools.count(2).__next__, now=lambda: 1)


def pair(constraints: int = 40) -> tuple[GossipNode, GossipNode]:
    """Two nodes that agree, on cells of several kinds that both of them and a third wrote; some were removed."""
    a, b, c = node("a"), node("b"), node("c")
    for writer in (a, b, c):
        for number in range(constraints // 3 + 1):
            writer.add_constraint(f"{writer.node_id}{number}", when=f"v < {number}.5")
            writer.record(number + 1, 1, constraint=f"{writer.node_id}{number}")
        writer.update_position((number, 1))
        writer.describe("1.0", ["somewhere"])
    for one, other in ((c, a), (a, b), (b, a)):
        exchange(one, other)
    a.tracker.forget("c")
    a.remove_constraint("c1")
    b.remove_constraint("a2")
    exchange(a, b)
    exchange(b, a)
    assert a.converged
    assert a.state == b.state
    return a, b


def any_cell(node: GossipNode, kind: int = ADD, number: int = 0) -> Cell:
    return sorted(node.state.rows.each(kind), key=lambda cell: (cell.replica, cell.seq))[number]


def own_cells(node: GossipNode) -> None:
    """Have a node hold cells of its own, as another process does: within one, replicas share them."""
    rows = node.state.rows
    cells = [Cell(c.kind, c.key, c.data, c.seq, c.replica, c.digest) for kind in rows._tables for c in rows.each(kind)]
    for kind in list(rows._tables):
        rows._tables[kind].clear()
    rebuild(rows, cells)


def wire(message: GossipMessage) -> GossipMessage:
    return decode_message(encode_message(message), None)


def run(a: GossipNode, b: GossipNode) -> list[tuple[GossipMessage, GossipResult]]:
    """An exchange over the wire: the messages, and what each led to."""
    log: list[tuple[GossipMessage, GossipResult]] = []
    waiting = [(b, a.begin(b.node_id))]
    while waiting:
        reader, message = waiting.pop(0)
        result = reader.receive(wire(message))
        log.append((message, result))
        assert len(log) < 20, "a repair without end"
        waiting += [(a if reader is b else b, response) for response in result.responses]
    return log


# --- the ways to do damage -----------------------------------------------------------------------------------------------


def shown(node: GossipNode) -> None:
    """Have the hash show what is in the cells. (Damage in memory that nothing reads is not seen, and does no harm.)"""
    rows = node.state.rows
    for kind in rows._sums:
        cells = [Cell(cell.kind, cell.key, cell.data, cell.seq, cell.replica) for cell in rows.each(kind)]
        for cell in cells:
            rows.digest.fill(cell.replica, [cell])
        rows._sums[kind] = sum(cell.digest for cell in cells)
    rows._hash = None


def flip_bytes(node: GossipNode) -> None:
    cell = any_cell(node)
    cell.data = cell.data[:-1] + bytes([cell.data[-1] ^ 1])
    shown(node)


def flip_counts(node: GossipNode) -> None:
    cell = any_cell(node, COUNTS, 3)
    cell.data = make_cell(COUNTS, str(cell.key), (10**9, 10**9)).data
    shown(node)


def garbage_position(node: GossipNode) -> None:
    any_cell(node, POSITION).data = b"\xc1garbage"
    shown(node)


def wrong_digest(node: GossipNode) -> None:
    cell = any_cell(node)
    cell.digest ^= 1 << 70
    node.state.rows._sums[ADD] += 1 << 70
    node.state.rows._hash = None


def wrong_seq(node: GossipNode) -> None:
    any_cell(node).seq += 1000
    shown(node)


def lose_cell(node: GossipNode) -> None:
    del node.state.rows._tables[ADD][any_cell(node).key]
    shown(node)


def foreign_cell(node: GossipNode) -> None:
    cell = make_cell(ADD, "foreign", None)
    cell.replica, cell.seq = Replica("a", 1), 2
    node.state.rows.digest.fill(cell.replica, [cell])
    node.state.rows._tables[ADD]["foreign"] = cell
    shown(node)


def wrong_sum(node: GossipNode) -> None:
    node.state.rows._sums[ADD] += 1
    node.state.rows._hash = None


def wrong_clock_sum(node: GossipNode) -> None:
    node.state.rows._clock_sum += 1
    node.state.rows._mark_is_old, node.state.rows._hash = True, None


SEEN_ALONE: list[Damage] = [
    flip_bytes,
    flip_counts,
    garbage_position,
    wrong_digest,
    wrong_seq,
    lose_cell,
    foreign_cell,
    wrong_sum,
    wrong_clock_sum,
]
"""Damage that the node can find by itself, once it looks."""


def everything(node: GossipNode) -> set[tuple[Replica, int, bytes]]:
    return {(cell.replica, cell.seq, cell.data) for cell in node.state.rows.live_cells()}


def check_sound(node: GossipNode) -> None:
    """Nothing is wrong with it, and every reading is that of its cells."""
    assert not audit(node.state.rows).found
    blank = GossipNode("blank")
    blank.receive(wire(node.delta_since(VectorClock())))
    assert blank.state_hash == node.state_hash
    assert blank.state.metrics.total == node.state.metrics.total
    assert blank.state.position == node.state.position
    assert set(blank.state.constraints) == set(node.state.constraints)
    for name in "abc":
        assert blank.state.metrics.node(name) == node.state.metrics.node(name)
