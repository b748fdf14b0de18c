"""What the exchange costs at scale: CPU, bytes and memory of a state with 100,000 constraints, against the project's own bars.

    python benchmarks/exchange.py [--constraints 100000] [--rivals] [--json] [--check]

Every message is encoded, decoded and received as between two machines, unless a row says otherwise. Names of nodes are one letter
and incarnations random, as the library makes them. Ids are short ("c123") or, in the rows that say so, of realistic length
("constraint-000123"). `docs/benchmarks.md` explains each row.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from time import process_time

import fifty
from memory import megabytes
from report import Row, cpu, machine, median_cpu, show
from wire import by_message, exchange_bytes, total

from constraint_crdt import GossipNode
from constraint_crdt.core.cells import ADD, Cell, make_cell
from constraint_crdt.gossip.codec import decode_message, encode_message

SHORT, REALISTIC = "c%d", "constraint-%06d"
EXCHANGE_MS, EXCHANGE_MS_GOAL = 0.3, 0.1
FIXED_BYTES, BYTES_PER_RUN = 64, 5


def entry_bytes(id_: str) -> int:
    """The bytes of a constraint's own cell as they travel."""
    return len(make_cell(ADD, id_, None).data)


def writer_of(count: int, form: str) -> GossipNode:
    """A node that added so many constraints."""
    node = GossipNode("a")
    for number in range(count):
        node.add_constraint(form % number)
    return node


def blank_node(source: GossipNode, name: str, repeats: int) -> tuple[Row, Row]:
    """A node that has nothing takes everything from `source`, in parts of 64 KiB."""
    both, receiving = [], []
    for _ in range(repeats):
        blank, inside = GossipNode("b"), 0.0
        receive = blank.receive

        start = process_time()
        exchange_bytes(source, blank)
        both.append(process_time() - start)
        if blank.state_hash != source.state_hash:
            sys.exit("the blank node did not get everything")
        fresh = GossipNode("c")
        packets = exchange_packets(source, fresh)
        inside = cpu(lambda fresh=fresh, packets=packets: [fresh.receive(decode_message(data)) for data in packets])
        receiving.append(inside)
        del receive
    return (
        Row(f"blank node takes all, {name}: both sides", statistics.median(both) * 1e3, "ms", 300, 140),
        Row(f"blank node takes all, {name}: its own side", statistics.median(receiving) * 1e3, "ms", note="decode, receive"),
    )
