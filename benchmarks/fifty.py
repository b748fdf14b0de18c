"""Fifty replicas that each add 200 items and count 200 times, then 250 random push-pulls: constraint-crdt, pycrdt and loro.

Each library does it in the way that suits it best. Here: constraints and the node's counter. pycrdt: a map of items, and, as it
has no counter, a map with one cumulative count per replica. loro: a map of items and its counter. Their push-pull is an exchange
of state vectors and of the updates above them, in their standard binary form; it has no other. A replica counts as it adds, in
turns, as a node that measures does. Only the push-pulls are timed.
"""

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from report import cpu
from wire import exchange_bytes, total

from constraint_crdt import GossipNode, exchange

REPLICAS, ROUNDS, EXCHANGES = 50, 200, 250
FORMS = {"short ids": "r%d-c%d", "realistic ids": "constraint-%02d-%03d"}
"""How an id is made of the number of its replica and its own."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one library needed."""

    cpu: float
    """Seconds, for all push-pulls."""
    bytes: int
    known: int
    """Items known in the end, over all replicas: says that everybody did the same work."""


def _pairs(seed: int) -> list[tuple[int, int]]:
    chance = random.Random(seed)
    return [tuple(chance.sample(range(REPLICAS), 2)) for _ in range(EXCHANGES)]  # type: ignore[misc]  # a sample of 2 is a pair


def _nodes(form: str) -> list[GossipNode]:
    nodes = [GossipNode(f"r{index}") for index in range(REPLICAS)]
    for index, node in enumerate(nodes):
        for number in range(ROUNDS):
            node.add_constraint(form % (index, number))
            node.record_satisfied(1)
    return nodes


def run_objects(seed: int, form: str) -> Outcome:
    """constraint-crdt, with messages handed over as objects, so without bytes."""
    nodes, pairs = _nodes(form), _pairs(seed)

    def work() -> None:
        for a, b in pairs:
            exchange(nodes[a], nodes[b])

    seconds = cpu(work)
    return Outcome(seconds, 0, sum(len(node.state.constraints) for node in nodes))


def run_wire(seed: int, form: str) -> Outcome:
    """constraint-crdt, with every message encoded, split where it is large, and decoded."""
    nodes, sizes = _nodes(form), []

    def work() -> None:
        for a, b in _pairs(seed):
            sizes.append(total(exchange_bytes(nodes[a], nodes[b])))

    seconds = cpu(work)
    return Outcome(seconds, sum(sizes), sum(len(node.state.constraints) for node in nodes))


def run_pycrdt(seed: int, form: str) -> Outcome:
    """pycrdt (Yjs). Raises `ImportError` where it is not installed."""
    from pycrdt import Doc, Map

    docs = []
    for index in range(REPLICAS):
        doc: Doc[Map[float]] = Doc()
        items, counts = doc.get("items", type=Map), doc.get("counts", type=Map)
        for number in range(ROUNDS):
            items[form % (index, number)] = 1
            counts[str(index)] = number + 1
        docs.append((doc, items))
    sent = 0

    def work() -> None:
        nonlocal sent
        for a, b in _pairs(seed):
            (left, _), (right, _) = docs[a], docs[b]
            left_state, right_state = left.get_state(), right.get_state()
            to_right, to_left = left.get_update(right_state), right.get_update(left_state)
            right.apply_update(to_right)
            left.apply_update(to_left)
            sent += len(left_state) + len(right_state) + len(to_right) + len(to_left)

    seconds = cpu(work)
    return Outcome(seconds, sent, sum(len(items) for _, items in docs))


def run_loro(seed: int, form: str) -> Outcome:
    """loro. Raises `ImportError` where it is not installed."""
    from loro import ExportMode, LoroDoc, VersionVector

    docs = []
    for index in range(REPLICAS):
        doc = LoroDoc()
        items, counter = doc.get_map("items"), doc.get_counter("count")
        for number in range(ROUNDS):
            items.insert(form % (index, number), 1)
            counter.increment(1)
        doc.commit()
        docs.append(doc)
    sent = 0

    def work() -> None:
        nonlocal sent
        for a, b in _pairs(seed):
            left, right = docs[a], docs[b]
            left_state, right_state = left.oplog_vv.encode(), right.oplog_vv.encode()
            to_right = left.export(ExportMode.Updates(VersionVector.decode(right_state)))
            to_left = right.export(ExportMode.Updates(VersionVector.decode(left_state)))
            right.import_(to_right)
            left.import_(to_left)
            sent += len(left_state) + len(right_state) + len(to_right) + len(to_left)

    seconds = cpu(work)
    return Outcome(seconds, sent, sum(len(doc.get_map("items")) for doc in docs))


_RIVALS: dict[str, Callable[[int, str], Outcome]] = {"pycrdt": run_pycrdt, "loro": run_loro}


def run_rivals(seed: int, form: str) -> Iterator[tuple[str, Outcome]]:
    """The other libraries, as far as they are installed; says on stderr which are not."""
    for name, run in _RIVALS.items():
        try:
            yield name, run(seed, form)
        except ImportError:
            print(f"{name} is not installed here, so it is left out (pip install {name})", file=sys.stderr)
