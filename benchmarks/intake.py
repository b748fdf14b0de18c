"""What a large message costs a running node: CPU, memory, and the longest hold of its event loop. Each row in a process of its own.

Rows: a blank node that joins a node with many constraints, over the transport in memory, and packed messages made to exhaust a
reader. CPU of a join is that of both sides. The longest hold is the most CPU of the thread of the loop between two turns of a
task, so that other processes do not count.
"""

import argparse
import asyncio
import gc
import json
import random
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time, thread_time

import psutil
from report import Row, run

from constraint_crdt import GossipNode, MemoryNetwork, Node, NodeSettings
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.protocol.messages import Part, decode_message, encode_message
from constraint_crdt.transport import Peer

SETTINGS = NodeSettings(name="unnamed", check_every=1.0, count_every=2.0, gossip_every=0.2, request_timeout=60.0)

STAGED = 64 * 1024 * 1024 - 16_384
"""Bytes of a message after decompression: the most that 0.1.0 stages."""

CHUNK = 60_000
PADDING = 640_000
"""Drawn elements before all others, so that the message does not grow more than a hundredfold."""

HEAD = b"\xa1p\x02"
SYNC, PING = b"\x96\x12\xc0" + HEAD + b"\xc4\x20" + bytes(32), b"\x97\x11\xc0" + HEAD + b"\xc4\x20" + bytes(32)
RUN = b"\x91\x93\x92\xa1p\x02\xce\x7f\xff\xff\xff"


def _array(elements: Callable[[bytes], bytes], size: int, room: int) -> bytes:
    """As many elements of `size` bytes as fit, the first ones with a drawn byte."""
    drawn = random.Random(1).choices(range(0x21, 0x7F), k=PADDING)
    data = b"".join([elements(bytes((each,))) for each in drawn])
    more = (room - len(data)) // size
    return b"\xdd" + (PADDING + more).to_bytes(4, "big") + data + elements(b"x") * more


BOMBS = {
    "cells": lambda: SYNC + RUN + _array(lambda drawn: b"\x92\x63\xa1" + drawn, 4, STAGED),
    "runs": lambda: SYNC + _array(lambda drawn: b"\x93" + drawn + b"\x01\x90", 4, STAGED),
    "entries": lambda: PING + b"\xc4\x08" + bytes(8) + _array(lambda drawn: b"\x92\x00" + drawn, 3, STAGED),
    "stubs": lambda: SYNC + b"\x91\x97\x92\xa1p\x02\x01\x90\x90\x00\x00"
    + _array(lambda drawn: b"\x94" + drawn + b"\x01\xc0\xc4\x00", 6, STAGED),
}  # fmt: skip


class Ticker:
    """Measures the longest time between two turns of the event loop, in CPU seconds of its thread: other processes do not count."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """Give way for ever."""
        before = thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = thread_time()
            held, before = now - before, now
            self.longest = max(self.longest, held)


async def _measured(work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    ticker, before, rss = Ticker(), process_time(), psutil.Process().memory_info().rss
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0)
    began = perf_counter()
    await work()
    ticking.cancel()
    used = process_time() - before
    return {
        "cpu": used,
        "rss": (psutil.Process().memory_info().rss - rss) / 1e6,
        "hold": ticker.longest,
        "wall": perf_counter() - began,
    }


async def _bomb(name: str) -> dict[str, float]:
    data = BOMBS[name]()
    packed = zlib.compress(data, 9)
    network = MemoryNetwork()
    attacker = network.transport()
    async with Node(name="victim", settings=SETTINGS, transport=network.transport()) as node:
        await attacker.open("p", node.gossip.fleet, _no_answer, _ignore)
        while not attacker.peers():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        (victim,) = attacker.peers()
        count = -(-len(packed) // CHUNK)
        parts = [
            encode_message(
                Part(
                    node=Replica("p", 2), transfer=bytes(8), index=index, count=count, size=len(packed),
                    chunk=packed[index * CHUNK : (index + 1) * CHUNK], unpacked=len(data),
                )
            )
            for index in range(count)
        ]  # fmt: skip

        async def send() -> None:
            for part in parts:
                await attacker.request(victim, part, 600.0)

        del data
        found = await _measured(send)
        found["bytes"] = len(packed)
        found["peak"] = _peak()
    await attacker.close()
    return found


async def _no_answer(_payload: bytes, _sender: Peer | None) -> list[bytes]:
    return []


async def _join(constraints: int) -> dict[str, float]:
    """A blank node takes in the constraints of a peer, which only answers, and encodes its answers in a thread."""
    network, full, draw = MemoryNetwork(), GossipNode("full", fleet=SETTINGS.fleet), random.Random(2)
    for number in range(constraints):
        full.add_constraint(
            f"{draw.getrandbits(32):08x}-{number:08d}", when=f"speed_mps <= {1 + number % 50}.5", severity="critical"
        )
    lock, transport = asyncio.Lock(), network.transport()

    async def answer(payload: bytes, _: Peer | None = None) -> list[bytes]:
        async with lock:
            responses = full.receive(decode_message(payload)).responses
            return [data for each in responses for data in await asyncio.to_thread(full.encoded, each, "blank")]

    await transport.open("full", SETTINGS.fleet, answer, _ignore)
    gc.collect()
    async with Node(name="blank", settings=SETTINGS, transport=network.transport()) as blank:
        feed = blank._runtime.feed

        async def joined() -> None:
            while len(blank.gossip.state.constraints) < constraints:  # noqa: ASYNC110 - the state tells of no event
                await asyncio.sleep(0.01)

        async def told() -> None:
            while feed.definitions.waiting:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)

        found = await _measured(joined)
        found["peak"] = _peak()
        found["told"] = (await _measured(told))["hold"]
        await asyncio.sleep(1)
        if blank.gossip.state_hash != full.state_hash and len(blank.gossip.state.constraints) != constraints:
            sys.exit("the state is not the same")
    await transport.close()
    return found


def _ignore(_peer: Peer, _up: bool) -> None:
    """Take no notice of a peer."""


def _peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measured(*arguments: str) -> dict[str, float]:
    """The figures of one row, from a process of its own."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def rows() -> list[Row]:
    """The table."""
    found = []
    for constraints in (100_000, 1_000_000):
        one, what = measured("--join", str(constraints)), f"a blank node takes {constraints:,} with definitions: "
        found += [
            Row(what + "CPU of both", one["cpu"], "s", 3.0 if constraints == 1_000_000 else None),
            Row(what + "RSS", one["rss"], "MB"),
            Row(what + "longest hold", one["hold"] * 1e3, "ms", 100.0),
            Row(what + "longest hold while its events are published", one["told"] * 1e3, "ms", 100.0),
        ]
    for name in BOMBS:
        one = measured("--bomb", name)
        what = f"a packed message of {one['bytes'] / 1e3:.0f} kB, of 64 MiB of {name}: "
        found += [
            Row(what + "CPU", one["cpu"], "s", 1.0),
            Row(what + "RSS at most, with its sender", one["peak"], "MB"),
            Row(what + "longest hold", one["hold"] * 1e3, "ms", 100.0),
        ]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--bomb", choices=BOMBS)
    parser.add_argument("--join", type=int)
    args, _ = parser.parse_known_args()
    if args.bomb or args.join:
        print(json.dumps(asyncio.run(_bomb(args.bomb) if args.bomb else _join(args.join))))
    else:
        sys.exit(run(__doc__, rows))
