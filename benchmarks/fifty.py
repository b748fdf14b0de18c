"""Fifty replicas that each add 200 items and count 200 times, in turns; then 250 random push-pulls: here, in pycrdt and in loro.

Each library does it in the way that suits it best. Here: constraints and the node's counter. pycrdt: a map of items, and, as it
has no counter, a map of cumulative counts. loro: a map of items, and its counters. Their push-pull is an exchange of state vectors
and of the updates above them, in their standard binary form; they have no other. Only the push-pulls are timed.
"""

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from report import cpu
from wire import exchange_bytes, total

from constraint_crdt import GossipNode, exchange

REPLICAS, ROUNDS, EXCHANGES = 50, 200, 250
SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the replicas write."""

    name: str
    form: str
    """How an id is made of the number of its replica and its own."""
    per_item: bool = False
    """Each increment counts for the item just added, in a counter of its own; else for the replica as a whole."""
    demanded: bool = True
    """The project's bars are for this one."""


SCENARIOS = (
    Scenario("short ids", "r%d-c%d"),
    Scenario("realistic ids", "constraint-%02d-%03d", demanded=False),
    Scenario("a counter per item, short ids", "r%d-c%d", per_item=True, demanded=False),
)


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


def _nodes(scenario: Scenario) -> list[GossipNode]:
    nodes = [GossipNode(f"r{index}") for index in range(REPLICAS)]
    for index, node in enumerate(nodes):
        for number in range(ROUNDS):
            id_ = scenario.form % (index, number)
            node.add_constraint(id_)
            node.record_satisfied(1, constraint=id_ if scenario.per_item else None)
    return nodes


def run_objects(seed: int, scenario: Scenario) -> Outcome:
    """constraint-crdt, with messages handed over as objects, so without bytes."""
    nodes, pairs = _nodes(scenario), _pairs(seed)

    def work() -> None:
        for a, b in pairs:
            exchange(nodes[a], nodes[b])

    seconds = cpu(work)
    return Outcome(seconds, 0, sum(len(node.state.constraints) for node in nodes))


def run_wire(seed: int, scenario: Scenario) -> Outcome:
    """constraint-crdt, with every message encoded, split where it is large, and decoded."""
    nodes, sizes = _nodes(scenario), []

    def work() -> None:
        for a, b in _pairs(seed):
            sizes.append(total(exchange_bytes(nodes[a], nodes[b])))

    seconds = cpu(work)
    return Outcome(seconds, sum(sizes), sum(len(node.state.constraints) for node in nodes))


def run_pycrdt(seed: int, scenario: Scenario) -> Outcome:
    """pycrdt (Yjs). Raises `ImportError` where it is not installed."""
    from pycrdt import Doc, Map

    docs = []
    for index in range(REPLICAS):
        doc: Doc[Map[float]] = Doc()
        items, counts = doc.get("items", type=Map), doc.get("counts", type=Map)
        for number in range(ROUNDS):
            id_ = scenario.form % (index, number)
            items[id_] = 1
            counts[id_ if scenario.per_item else str(index)] = 1 if scenario.per_item else number + 1
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


def run_loro(seed: int, scenario: Scenario) -> Outcome:
    """loro. Raises `ImportError` where it is not installed."""
    from loro import ExportMode, LoroCounter, LoroDoc, VersionVector

    make_doc: Any = LoroDoc  # loro's stubs are incomplete
    make_counter: Any = LoroCounter
    docs = []
    for index in range(REPLICAS):
        doc = make_doc()
        items, counts, counter = doc.get_map("items"), doc.get_map("counts"), doc.get_counter("count")
        for number in range(ROUNDS):
            id_ = scenario.form % (index, number)
            items.insert(id_, 1)
            (counts.get_or_create_container(id_, make_counter()) if scenario.per_item else counter).increment(1)
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


_RIVALS: dict[str, Callable[[int, Scenario], Outcome]] = {"pycrdt": run_pycrdt, "loro": run_loro}


def median_of(run: Callable[[int, Scenario], Outcome], scenario: Scenario) -> Outcome:
    """Medians over the seeds, which are the same for all libraries; what is known in the end, summed."""
    runs = [run(seed, scenario) for seed in SEEDS]
    cpu_median, bytes_median = median(each.cpu for each in runs), median(each.bytes for each in runs)
    return Outcome(cpu_median, int(bytes_median), sum(each.known for each in runs))


def run_rivals(scenario: Scenario) -> Iterator[tuple[str, Outcome]]:
    """The other libraries, as far as they are installed; says on stderr which are not."""
    for name, run in _RIVALS.items():
        try:
            yield name, median_of(run, scenario)
        except ImportError:
            print(f"{name} is not installed here, so it is left out (pip install {name})", file=sys.stderr)
