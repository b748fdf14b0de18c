"""Memory of a state: run as a process of its own, so that nothing else is in the figure. Prints bytes per way of counting, as JSON.

`traced` is what tracemalloc counts; it slows everything down and takes memory itself, so `rss` (what the system has given to the
process) comes from another process without it.
"""

import argparse
import gc
import json
import subprocess
import sys
import tracemalloc

import psutil

from constraint_crdt import GossipNode, Replica, VectorClock
from constraint_crdt.protocol.messages import decode_message, encode_message


def _written(ids: list[str]) -> GossipNode:
    node = GossipNode("a")
    for id_ in ids:
        node.add_constraint(id_)
    return node


def _received(message: bytes) -> GossipNode:
    node = GossipNode("b")
    node.receive(decode_message(message, max_bytes=None))
    return node


def _rss() -> int:
    return int(psutil.Process().memory_info().rss)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--constraints", type=int, required=True)
    parser.add_argument("--form", required=True, help="how an id is made of its number, as in 'c%%d'")
    parser.add_argument("--received", action="store_true", help="measure a node that took them in, not the one that wrote them")
    parser.add_argument("--traced", action="store_true")
    args = parser.parse_args()
    ids = [args.form % number for number in range(args.constraints)]
    source = encode_message(_written(ids).delta_since(VectorClock({Replica("nobody", 0): 0}))) if args.received else b""
    if not args.received:
        ids = []  # made again below, so that the state's own strings are in the figure
    gc.collect()
    if args.traced:
        tracemalloc.start()
    before = _rss()
    node = _received(source) if args.received else _written([args.form % number for number in range(args.constraints)])
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] if args.traced else _rss() - before
    if len(node.state.constraints) != args.constraints:
        sys.exit("the state is not complete")
    json.dump(used, sys.stdout)


def megabytes(constraints: int, form: str, *, received: bool, traced: bool) -> float:
    """MB (10**6 bytes) that the state of so many constraints takes, measured in a process of its own."""
    command = [sys.executable, __file__, "--constraints", str(constraints), "--form", form]
    command += ["--received"] * received + ["--traced"] * traced
    return int(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)) / 1e6


if __name__ == "__main__":
    _main()
