"""The bytes of shared readings, and the CPU time of constraints of scope fleet.

    python benchmarks/readings.py [--nodes 100] [--many 1000] [--seconds 20] [--json] [--check]

Bytes: nodes in virtual time, each of which begins an exchange with another at random each 0.2 s, as the default settings have it
while there is news. All have the same state before, and each node has the clocks of peers, of as many as it keeps.
Every node shares five readings, with one digit after the point, which all move every 5 s; the bytes are those of the encoded
messages that a node sends, above those of the same rounds without news. A transport adds its own.

CPU: 50 constraints of scope fleet, ten on each of five readings, over nodes whose readings move every 5 s. The time is that of one
node, in a share of a core: that of noting what moved and judging four times a second (`FLEET_EVERY`), without receiving the cells.
"""

import argparse
import sys
from collections.abc import Callable
from random import Random

from report import Row, cpu, machine, show

from constraint_crdt import GossipNode
from constraint_crdt.crdt.limits import DEFAULT_LIMITS
from constraint_crdt.expression.fleet_view import FleetView, NodeFacts
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.protocol.peers import most_conversations
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.state import ConstraintState
from constraint_crdt.types import Reading

SECOND = 10**9
ROUNDS_PER_SECOND = 5
MOVE_EVERY = 5
LOOKS_PER_SECOND = 4
READINGS = ("battery_percent", "power_w", "temp_c", "load_1m", "speed_mps")
CONSTRAINTS = 50

MOST_BY_ROUNDS = 200
"""Nodes of a fleet that meets in rounds."""

LARGE = 1
"""Seconds counted of a larger fleet, each of which takes 10 to 20 s of CPU with readings."""

MOST_BYTES = 1_200
"""Bytes that a node sends a second for the readings of 100 nodes."""

MOST_CPU = 2.0
"""Percent of a core for 50 constraints over 1,000 nodes."""


def sent(nodes: list[GossipNode], now: list[int], seconds: int, random: Random, moved: Callable[[GossipNode, int], None]) -> float:
    """Bytes that a node sends a second."""
    total = 0
    for step in range(seconds * ROUNDS_PER_SECOND):
        now[0] += SECOND // ROUNDS_PER_SECOND
        for place, node in enumerate(nodes):
            if place % (MOVE_EVERY * ROUNDS_PER_SECOND) == step % (MOVE_EVERY * ROUNDS_PER_SECOND):
                moved(node, now[0])
        for node in random.sample(nodes, len(nodes)):
            peer = random.choice(nodes)
            if peer is node:
                continue
            waiting = [(peer, node.begin(peer.node_id))]
            while waiting:
                reader, message = waiting.pop(0)
                total += len(encode_message(message))
                other = node if reader is peer else peer
                waiting += [(other, response) for response in reader.receive(message).responses]
    return total / seconds / len(nodes)


def merge(nodes: list[GossipNode]) -> None:
    """Give all nodes the whole state, without rounds."""
    first = nodes[0]
    for node in nodes[1:]:
        first.receive(node.delta_since(first.state.rows.clock))
    for node in nodes[1:]:
        node.receive(first.delta_since(node.state.rows.clock))


def meet(nodes: list[GossipNode], random: Random) -> None:
    """Have each node know the present clocks of the last peers of which it keeps them, as by exchanges at random."""
    kept = most_conversations(DEFAULT_LIMITS, len(nodes))
    pairs = [(random.choice(nodes), random.choice(nodes)) for _ in range(kept * len(nodes) // 2)]
    pairs = [(one, other) for one, other in pairs if one is not other]
    for pair in pairs:
        for node, peer in (pair, pair[::-1]):
            mark, state_hash = node.state.rows.clock_mark, node.state.rows.state_hash
            known, talk = node.tracker.meet(peer.replica), node.tracker.conversation(peer.node_id)
            node.tracker.admit(known)
            node.tracker.evidence(known, mark, state_hash)
            talk.state(mark, state_hash)
            talk.common, talk.packs = mark, True


def traffic(count: int, seconds: int, *, must: float | None) -> list[Row]:
    """The bytes of readings in a fleet of this size, as it has run for long.

    A small fleet meets in rounds. A large one, for which that takes minutes of CPU, is made as it would be then.
    """
    random, now = Random(1), [1_800_000_000 * SECOND]
    nodes = [GossipNode(f"node-{each:04}", now=lambda: now[0]) for each in range(count)]
    for node in nodes:
        node.describe("constraint-crdt")
    values = {node.node_id: {name: random.uniform(10, 90) for name in READINGS} for node in nodes}

    def share(node: GossipNode, at: int) -> None:
        found = values[node.node_id]
        for name in READINGS:
            found[name] += random.uniform(-2, 2)
        node.share_readings({name: Reading(round(value, 1), at) for name, value in found.items()})

    def rest(node: GossipNode, at: int) -> None:
        del node, at

    if count <= MOST_BY_ROUNDS:
        warm = 35  # until most nodes have met, and know the clock of each other
        sent(nodes, now, warm, random, rest)
        idle = sent(nodes, now, MOVE_EVERY, random, rest)
    else:
        warm, seconds = LARGE, LARGE
        merge(nodes)
        meet(nodes, random)
        idle = sent(nodes, now, LARGE, random, rest)
        for node in nodes:
            share(node, now[0])
        merge(nodes)  # so all readings moved since any two nodes met, as they do within seconds
    sent(nodes, now, warm, random, share)
    moving = sent(nodes, now, seconds, random, share)
    cells = count * len(READINGS) / MOVE_EVERY
    note = f"{cells:g} readings a second: {(moving - idle) / cells:.0f} B each"
    return [
        Row(f"{count} nodes, rounds without news: sent by a node", idle, "B/s"),
        Row(f"{count} nodes share 5 readings: sent by a node, above that", moving - idle, "B/s", must, note=note),
    ]


WHENS = (
    "nodes.filter(n, n.{0} < {1}.0).size() <= 300",
    "count(nodes, n, n.live && n.{0} < {1}.0) <= 300",
    "share_of(nodes, n, n.{0} > {1}.0) < 0.9",
    "max(nodes, n, n.{0}) < 9{1}.0",
    "nodes.all(n, n.{0} < 9{1}.0)",
)


def judging(count: int, seconds: int) -> list[Row]:
    """The CPU time of the constraints, as a share of a core."""
    random, now, state = Random(2), 1_800_000_000 * SECOND, ConstraintState()
    readings = {f"node-{each:04}": {name: Reading(random.uniform(10, 90), now) for name in READINGS} for each in range(count)}
    view = FleetView(lambda: readings, lambda name: NodeFacts({"zone": "a"}, live=True, position=None, readings=readings[name]))
    clock = [now]
    judge = Judge(state.constraints, LatestMeasurements(30.0), dict, lambda: clock[0], view)
    for number in range(CONSTRAINTS):
        when = WHENS[number // 10].format(READINGS[number % 5], 10 + number)
        state.constraints.add(f"c{number:02}", when=when, scope="fleet", node="node-0000")
    judge.redefine(state.constraints)
    view.refresh(now)
    first = cpu(lambda: judge.judge(judge.renew(judge.stale(1000), 0), 0))
    names, every = list(readings), MOVE_EVERY * LOOKS_PER_SECOND

    def run(looks: int) -> None:
        for look in range(looks):
            clock[0] += SECOND // LOOKS_PER_SECOND
            for name in names[look % every :: every]:
                readings[name] = {each: Reading(random.uniform(10, 90), clock[0]) for each in READINGS}
                view.note((name,))
            judge.judge(judge.moved(clock[0]), look + 1)
            judge.take_changes()

    took = cpu(lambda: run(LOOKS_PER_SECOND * seconds))
    quiet = cpu(lambda: [judge.judge(judge.moved(clock[0] + each), each) for each in range(1000)]) / 1000
    return [
        Row(f"{CONSTRAINTS} constraints over {count} nodes read at first", 1000 * first, "ms", note="CPU"),
        Row(f"{CONSTRAINTS} constraints, all readings move every 5 s", 100 * took / seconds, "% of a core", MOST_CPU),
        Row(f"{CONSTRAINTS} constraints, a look at which nothing moved", 1e6 * quiet, "us", note="CPU"),
    ]


def main() -> None:
    """See the docstring of the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--many", type=int, default=1000, help="nodes of the larger fleet; 0: without it")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit code 1 if something demanded is missed")
    arguments = parser.parse_args()
    rows = judging(arguments.many or 1000, arguments.seconds)
    rows += traffic(arguments.nodes, arguments.seconds, must=MOST_BYTES)
    if arguments.many:
        rows += traffic(arguments.many, arguments.seconds, must=None)
    show(machine(), rows, as_json=arguments.json)
    if arguments.check and not all(row.met for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
