"""What identities cost: two nodes on Zenoh on loopback, with identities and without, in the same build.

    python benchmarks/security.py [--constraints 100000] [--changes 200] [--cells 100000] [--starts 9] [--json] [--check]

Every figure is of the same build in the same run, with identities and without.

- One change: a constraint is added on one node and is known on the other, both with so many constraints before; CPU of the process
  of both nodes, and bytes of the connection between them, counted by a relay. Pairs with and without identities take turns.
- A blank node: it takes so many cells of ten writers from one node; CPU of both sides and bytes of the messages, without a network.
- At rest: the bytes of twenty seconds without a change, with the default settings.
- Start-up: CPU and time of a process until it serves, the median of runs in turn; the bar is on the CPU, as a busy machine changes
  the time.
"""

import argparse
import asyncio
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from report import Row, machine, show

from constraint_crdt import GossipNode, Node
from constraint_crdt.identity.credentials import RowCredentials
from constraint_crdt.identity.directory import certify_node, create_fleet, load_identity
from constraint_crdt.runtime.event_log import KeptEvent
from constraint_crdt.runtime.settings import NodeSettings

FLEET = "plant"
TO_REST, AT_REST = 5.0, 20.0
"""Seconds after which an idle pair is at rest, and for which it is watched then."""

MORE_BYTES, MORE_CPU, MORE_START, MORE_IDLE = 110, 0.3, 150, 1.3
"""At most so many bytes and ms of CPU more for a change, ms of CPU more for a start, and times the bytes at rest."""

BLANK_CPU, BLANK_BYTES = 1.3, 1.1
"""At most so many times the CPU and the bytes for a blank node."""

WRITERS = 10
BLANK_RUNS = 3

_READY = re.compile(r" ready name=")


class Relay:
    """Passes a connection on, and counts its bytes both ways."""

    def __init__(self) -> None:
        self.bytes = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, target: int) -> None:
        """Relay to a port of loopback."""

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            onward, back = await asyncio.open_connection("127.0.0.1", target)
            for source, sink in ((reader, back), (onward, writer)):
                self._tasks.add(asyncio.create_task(self._pass(source, sink)))

        self._server = await asyncio.start_server(accepted, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            self.bytes += len(data)
            sink.write(data)
            await sink.drain()
        sink.close()


class Cost(NamedTuple):
    """The cost of a pair: ms of CPU and bytes of a change, bytes per second at rest."""

    cpu: float
    bytes: float
    idle: float


@asynccontextmanager
async def pair(folders: dict[str, Path] | None, *, idle: bool) -> AsyncIterator[tuple[Node, Node, Relay]]:
    """Two nodes with a relay between them. `idle`: with the default intervals, else with few rounds and no checks."""

    def node(name: str, connect: tuple[str, ...]) -> Node:
        identity = "" if folders is None else str(folders[name])
        settings = NodeSettings(name=name, fleet=FLEET, identity=identity, connect=connect, discover=False)
        if not idle:
            rare = dict.fromkeys(("check_every", "count_every", "rate_every"), 3600.0)
            settings = msgspec.structs.replace(settings, gossip_every=2.0, **rare)
        return Node(settings=settings)

    relay = Relay()
    async with node("forge", ()) as forge:
        await relay.open(int(forge.status().endpoints[0].rpartition(":")[2]))
        async with node("anvil", (f"tcp/127.0.0.1:{relay.port}",)) as anvil:
            await until(lambda: forge.status().peers == anvil.status().peers == 1)
            yield forge, anvil, relay
        await relay.close()


async def until(what: Callable[[], object]) -> None:
    """Wait until `what()` is true."""
    async with asyncio.timeout(300):
        while not what():  # noqa: ASYNC110 - about two nodes, neither of which could set an event
            await asyncio.sleep(0.0005)


async def changed(forge: Node, anvil: Node, relay: Relay, id_: str) -> tuple[float, float]:
    """The ms of CPU of both sides and the bytes of a new constraint, until the other node knows it. Polls would cost CPU, too."""
    known, stream = asyncio.Event(), anvil.event_stream

    def listener(kept: KeptEvent) -> None:
        if kept.event.constraint == id_:
            known.set()

    stream.listen(listener)
    began, before = time.process_time(), relay.bytes
    await forge.add_constraint(id_)
    await known.wait()
    cost = (time.process_time() - began) * 1e3, float(relay.bytes - before)
    stream.ignore(listener)
    await asyncio.sleep(0.02)  # what follows, acknowledgements for example, is not of the next change
    return cost


async def costs(folders: dict[str, Path], constraints: int, changes: int) -> tuple[Cost, Cost]:
    """The cost of a pair without identities and with, in turn: a busy machine changes both alike."""
    async with pair(None, idle=False) as plain, pair(folders, idle=False) as secured:
        for forge, anvil, _ in (plain, secured):
            for number in range(constraints):
                forge.gossip.add_constraint(f"c{number:06d}", at=time.time_ns())
            await forge.add_constraint("last")
            await until(partial(anvil.gossip.state.constraints.__contains__, "last"))
        taken = [(await changed(*plain, f"x{number}"), await changed(*secured, f"x{number}")) for number in range(changes)]
    idle = await asyncio.gather(at_rest(None), at_rest(folders))
    cpu, moved = ([statistics.median(pair[which][of] for pair in taken) for which in (0, 1)] for of in (0, 1))
    return Cost(cpu[0], moved[0], idle[0]), Cost(cpu[1], moved[1], idle[1])


async def at_rest(folders: dict[str, Path] | None) -> float:
    """The bytes per second of a pair at rest."""
    async with pair(folders, idle=True) as (_, _, relay):
        await asyncio.sleep(TO_REST)  # until then nodes get to know each other, with their certificates
        before = relay.bytes
        await asyncio.sleep(AT_REST)
        return (relay.bytes - before) / AT_REST


class Blank:
    """Blank nodes that take all cells of a node."""

    def __init__(self, folders: Sequence[Path] | None, cells: int) -> None:
        """`folders`: the identities of the writers, and of a blank node. The node with all cells is the first writer."""
        now = time.time_ns()
        self._credentials = [
            None if folders is None else RowCredentials(load_identity(folders[number], now)) for number in range(WRITERS + 1)
        ]
        self._full, *others = [self._node(number) for number in range(WRITERS)]
        for number, writer in enumerate([self._full, *others]):
            for cell in range(cells // WRITERS):
                writer.add_constraint(f"{number}-{cell}", when="x < 1")
        for writer in others:
            carry(self._full, writer)

    def take(self) -> tuple[float, int]:
        """CPU seconds and bytes until a new blank node has everything."""
        blank = self._node(WRITERS)
        began = time.process_time()
        moved = carry(blank, self._full)
        took = time.process_time() - began
        assert blank.state_hash == self._full.state_hash
        self._full.forget_peers()
        return took, moved

    def _node(self, number: int) -> GossipNode:
        return GossipNode(f"w{number}", fleet=FLEET, credentials=self._credentials[number])


def carry(asker: GossipNode, asked: GossipNode) -> int:
    """Exchange until neither has more to say. Returns the bytes of the messages."""
    moved = 0
    waiting = [(asked, asker, data) for data in asker.encoded(asker.begin(asked.node_id), asked.node_id)]
    while waiting:
        reader, sender, data = waiting.pop(0)
        moved += len(data)
        for response in reader.hear(data, sender.node_id)[1].responses:
            waiting += [(sender, reader, each) for each in reader.encoded(response, sender.node_id)]
    return moved


def start_up(folder: Path | None) -> tuple[float, float]:
    """ms of CPU and of time until a node serves."""
    names = ["--identity", str(folder)] if folder is not None else ["--name", "forge", "--fleet", FLEET]
    command = [sys.executable, "-m", "constraint_crdt", "node", "--api", "127.0.0.1:0", "--store", "memory", *names]
    env = {key: value for key, value in os.environ.items() if not key.startswith("CONSTRAINT_CRDT_")}
    began = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if _READY.search(line):
                break
        took = time.monotonic() - began
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        process.kill()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") * 1e3, took * 1e3


def rows(constraints: int, changes: int, cells: int, starts: int) -> list[Row]:
    """The table."""
    with tempfile.TemporaryDirectory() as place:
        now, random = time.time_ns(), secrets.token_bytes
        root = create_fleet(Path(place), FLEET, now=now, random=random)
        folders = {name: certify_node(Path(place), root, name, "operator", now=now, random=random) for name in ("forge", "anvil")}
        plain, secured = asyncio.run(costs(folders, constraints, changes))
        writers = [certify_node(Path(place), root, f"w{n}", "operator", now=now, random=random) for n in range(WRITERS + 1)]
        blanks = Blank(None, cells), Blank(writers, cells)
        taken = [tuple(blank.take() for blank in blanks) for _ in range(BLANK_RUNS)]
        began = [(start_up(None), start_up(folders["forge"])) for _ in range(starts)]
    cpu, took = (statistics.median(b[i] - a[i] for a, b in began) for i in (0, 1))
    without = [statistics.median(a[i] for a, _ in began) for i in (0, 1)]
    blank_cpu, blank_bytes = (statistics.median(b[i] / a[i] for a, b in taken) for i in (0, 1))
    seconds, size = taken[0][0]
    blank = f"a blank node takes {cells:,} cells"
    what = f"one change among {constraints:,}"
    return [
        Row(f"{what}: more CPU of both sides", secured.cpu - plain.cpu, "ms", MORE_CPU, note=f"{plain.cpu:.2f} ms without"),
        Row(f"{what}: CPU, ratio", secured.cpu / plain.cpu, "x"),
        Row(f"{what}: more bytes", secured.bytes - plain.bytes, "B", MORE_BYTES, note=f"{plain.bytes:.0f} B without"),
        Row(f"{what}: bytes, ratio", secured.bytes / plain.bytes, "x"),
        Row(f"{blank}: CPU, ratio", blank_cpu, "x", BLANK_CPU, note=f"{seconds:.2f} s without"),
        Row(f"{blank}: bytes, ratio", blank_bytes, "x", BLANK_BYTES, note=f"{size:,} B without"),
        Row("at rest: bytes, ratio", secured.idle / plain.idle, "x", MORE_IDLE, note=f"{plain.idle:.0f} B/s without"),
        Row("start-up: more CPU", cpu, "ms", MORE_START, note=f"{without[0]:.0f} ms without"),
        Row("start-up: CPU, ratio", (without[0] + cpu) / without[0], "x"),
        Row("start-up: more time", took, "ms", note=f"{without[1]:.0f} ms without"),
    ]


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraints", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    arguments = parser.parse_args()
    found = rows(arguments.constraints, arguments.changes, arguments.cells, arguments.starts)
    show(machine(), found, as_json=arguments.json)
    return int(arguments.check and not all(row.met for row in found))


if __name__ == "__main__":
    sys.exit(main())
