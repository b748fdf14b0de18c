"""`demo`: a fleet of node processes on this machine, and the effect of the changes made on it.

Constraints are added on a node and edited on another; a node is killed, misses a change, and is started again. After each step
every node has to have the change. A time is that of the first answer, every 10 ms, in which a node enforces the same as the node
that was written to. On a terminal a table stays in place; anywhere else there are lines with the time. A summary ends it.

Rule: a node ends with the demo. Each node reads a pipe whose other end the demo holds open, and ends when the system closes it,
even after a kill of the demo.
"""

import argparse
import asyncio
import contextlib
import os
import re
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

from constraint_crdt.cli.output import CommandFailedError, aligned, printable
from constraint_crdt.client import ClientError, NoAnswer
from constraint_crdt.client.blocking import Client
from constraint_crdt.model import counted
from constraint_crdt.operations.constraints import ConstraintReport
from constraint_crdt.operations.nodes import Status
from constraint_crdt.operations.operation import Column
from constraint_crdt.runtime.settings import ENVIRONMENT_PREFIX

Value = TypeVar("Value")

READY_SECONDS = 30.0
END_SECONDS = 2.5
ANSWER_SECONDS = 10.0
"""The end of a node closes its connection at once; with a shorter wait a node on a busy machine would count as ended."""

_READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=(?P<endpoints>\S*)$")


class DemoNode:
    """A node of the demo, over any number of processes."""

    def __init__(self, name: str, fleet: str) -> None:
        self.name = name
        self.live = False
        self.endpoints: tuple[str, ...] = ()
        self.lives: list[Status | None] = []
        """The last status of each process; None before the first answer."""
        self._fleet = fleet
        self._process: asyncio.subprocess.Process | None = None
        self._client: Client | None = None
        self._log: deque[str] = deque(maxlen=5)
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def start(self, connect: tuple[str, ...]) -> None:
        """Start a process, and wait until it serves. Raises `CommandFailedError` if it does not."""
        command = [sys.executable, "-m", "constraint_crdt", "node", "--name", self.name, "--fleet", self._fleet]
        command += ["--api", "127.0.0.1:0", "--listen", "tcp/127.0.0.1:0", "--probe", "system", "--store", "memory"]
        command += ["--while-stdin-open"]
        for endpoint in connect:
            command += ["--connect", endpoint]
        self._ready = asyncio.Event()
        self.lives.append(None)
        # A session of its own: Ctrl-C reaches the demo alone, which then ends the nodes in order.
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            env=_environment(os.environ),
        )
        self._reading = asyncio.create_task(self._read_log(self._process))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await self._ready.wait()
        if not self.live:
            said = self._log[-1] if self._log else "it said nothing"
            raise CommandFailedError(f"the process of {self.name} did not start: {said}")

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        """Drain the log, or the node would block; take the addresses of the node from it."""
        if process.stderr is None:
            return
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            found = _READY.search(line)
            if found:
                self._client = Client(found["api"], timeout=ANSWER_SECONDS)
                self.endpoints = tuple(endpoint for endpoint in found["endpoints"].split(",") if endpoint)
                self.live = True
                self._ready.set()
        self.live = False
        self._ready.set()

    async def status(self) -> Status | None:
        """Its status; None if it does not answer."""
        answer = await self._read(Client.status)
        if answer is not None:
            self.lives[-1] = answer
        return answer

    async def constraints(self) -> list[ConstraintReport]:
        """Its active constraints; none if it does not answer."""
        return await self._read(Client.constraints) or []

    async def _read(self, call: Callable[[Client], Value]) -> Value | None:
        """The answer to a call; None if the node does not answer."""
        client = self._client
        if client is None or not self.live:
            return None
        try:
            return await asyncio.to_thread(call, client)
        except ClientError:  # or a part of an answer, of a process that ended meanwhile
            return None

    async def add(self, id_: str, when: str, severity: str, about: str, loosen: bool) -> None:
        """Add a constraint on it. Raises `CommandFailedError`."""
        client = self._client
        if client is None:
            raise CommandFailedError(f"{self.name} has not started")
        try:
            await asyncio.to_thread(lambda: client.add(id_, when=when, severity=severity, about=about, loosen=loosen))
        except NoAnswer:
            raise CommandFailedError(f"{self.name} does not answer any more") from None

    async def kill(self) -> None:
        """Kill the process, as a power cut would."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        await self._gone()

    async def stop(self) -> None:
        """End the process in order, or else by force. Idempotent."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
        await self.kill()

    async def _gone(self) -> None:
        self.live = False
        if self._process is not None:
            await self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._reading is not None:
            await self._reading


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of another node."""
    return {key: value for key, value in own.items() if not key.startswith(ENVIRONMENT_PREFIX)}


PATIENCE = 15.0
"""Seconds that the fleet has to agree after each step."""


class DemoChange(NamedTuple):
    """A constraint that the demo adds, or edits."""

    id: str
    when: str
    severity: str
    about: str
    loosen: bool = False
    """It allows what a critical constraint forbade."""


_FIRST = (
    DemoChange("cpu_possible", "cpu_percent <= 100.0", "info", "holds on any machine"),
    DemoChange("memory_spare", "memory_percent < 1.0", "critical", "holds on none"),
    DemoChange("disk_space", "disk_percent < 99.5", "warning", "logs need room"),
)
_EDITED = DemoChange("memory_spare", "memory_percent < 99.5", "critical", "what was meant", loosen=True)
_MISSED = DemoChange("load_bearable", "load_1m < 256.0", "warning", "added while a node was away")


# --- screen -----------------------------------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """The fleet at a moment."""

    nodes: Sequence[str]
    statuses: Mapping[str, Status]
    """Of each node that answers."""
    constraints: Sequence[ConstraintReport]
    """Of a node that answers."""

    def agreement(self) -> str:
        """How many nodes enforce the same, in words."""
        hashes = [status.constraints_hash for status in self.statuses.values()]
        most = max((hashes.count(each) for each in hashes), default=0)
        same = counted(len(self.constraints), "constraint")
        return f"{most} of {counted(len(hashes), 'live node', 'enforces', 'enforce')} the same {same}"


class Screen(Protocol):
    """The output of the demo."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, scene: Scene) -> None:
        """The fleet now."""

    def table(self, scene: Scene) -> None:
        """The fleet now, constraint by node, to stay."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def make_screen() -> Screen:
    """The screen that suits stdout."""
    return _TerminalScreen() if sys.stdout.isatty() else _PlainScreen()


def _columns(scene: Scene) -> list[Column]:
    return [Column("satisfied/violated"), *(Column(name, right=True) for name in scene.nodes)]


def _rows(scene: Scene) -> list[list[str]]:
    rows = []
    for each in scene.constraints:
        counts = each.by_node
        rows.append([printable(each.id), *("{}/{}".format(*counts[name]) if name in counts else "-" for name in scene.nodes)])
    short = {name: status.constraints_hash[:8] for name, status in scene.statuses.items()}
    rows.append(["constraints_hash", *(short.get(name, "down") for name in scene.nodes)])
    return rows


class _PlainScreen:
    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", flush=True)

    def show(self, scene: Scene) -> None:
        counts = ", ".join(f"{printable(each.id)} {each.satisfied}/{each.violations}" for each in scene.constraints)
        self.say(scene.agreement() + (f"; satisfied/violated: {counts}" if counts else ""))

    def table(self, scene: Scene) -> None:
        print(*(f"          {line}" for line in aligned(_columns(scene), _rows(scene))), sep="\n", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """A file has no state to restore."""


class _TerminalScreen:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self._console.print(f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, highlight=False)

    def show(self, scene: Scene) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(scene.agreement()))
        for column in _columns(scene):
            table.add_column(Text(column.title), justify="right" if column.right else "left", overflow="fold")
        rows = _rows(scene)
        for row in rows:
            table.add_row(*(Text(text, style="bold red" if text == "down" else "") for text in row), end_section=row is rows[-2])
        self._live.update(table, refresh=True)

    def table(self, scene: Scene) -> None:
        self.show(scene)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


# --- summary ----------------------------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """The time for a change, or the return of a node, to reach every node."""

    what: str
    seconds: float | None
    """Until every node that was up had it; None: not in time."""
    cell_bytes: int | None = None
    """Of the cells of the change; None for a return."""


def summarise(spreads: Sequence[Spread], nodes: Sequence[DemoNode], seconds: float) -> list[str]:
    """The lines that end the demo."""
    rows = [[each.what, "" if each.cell_bytes is None else str(each.cell_bytes), _time(each.seconds)] for each in spreads]
    lines = aligned([Column("what happened"), Column("bytes", right=True), Column("on every node after", right=True)], rows)
    statuses = [life for node in nodes for life in node.lives if life is not None]  # a node that is started again counts from 0
    sent, written = sum(each.bytes_sent for each in statuses), sum(each.written_bytes for each in statuses)
    others = len(nodes) - 1
    definitions = sum(each.cell_bytes or 0 for each in spreads)
    per_byte = f", {sent / (written * others):.2f} for each byte due" if written else ""
    rate = sent / seconds / len(nodes)
    lines += [
        "",
        f"The nodes wrote {written} bytes in cells: {definitions} for the changes above, the rest for counts and for themselves.",
        f"Each is due on {counted(others, 'other node')}: {written * others} bytes to bring.",
        f"The nodes sent {sent} bytes in {seconds:.0f} s, Pings included{per_byte}: {rate:.0f} bytes/s a node.",
    ]
    return lines


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "NOT IN TIME"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


# --- story ------------------------------------------------------------------------------------------------------------------


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo. Exit code 0 if every node had every change in time, 1 if not."""
    return asyncio.run(_run(arguments.nodes, arguments.seconds))


async def _run(count: int, seconds: float) -> int:
    task = asyncio.current_task()
    told: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        if task is not None and not told:
            told.append(number)
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    fleet = f"demo-{secrets.token_hex(4)}"  # of its own, so that two demos at once do not mix
    nodes = [DemoNode(f"node-{number}", fleet) for number in range(1, count + 1)]
    try:
        with make_screen() as screen:
            story = _Story(nodes, seconds, screen)
            agreed = await story.tell()
        print("\n" + "\n".join(summarise(story.spreads, nodes, story.elapsed())))
        print("Every node had every change." if agreed else "NOT every node had every change in time.")
    except asyncio.CancelledError:
        if not told:
            raise
        return 128 + told[0]  # as shells put it
    finally:
        await asyncio.gather(*(node.stop() for node in nodes))
    return 0 if agreed else CommandFailedError.exit_code


class _Story:
    def __init__(self, nodes: list[DemoNode], seconds: float, screen: Screen) -> None:
        self.spreads: list[Spread] = []
        self._nodes = nodes
        self._screen = screen
        self._began = self._now()
        self._end = self._began + seconds

    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return self._now() - self._began

    async def tell(self) -> bool:
        """All steps. True if every node had every change in time."""
        first, second, last = self._nodes[0], self._nodes[1], self._nodes[-1]
        self._screen.say(f"starting {len(self._nodes)} node processes")
        if not await self._gather_fleet():
            return False
        step = max(0.0, self._end - self._now()) / 5

        for each in _FIRST:
            await self._change(first, each, f"added {each.id}: {each.when}")
        await self._watch(step, until=lambda scene: _all_counted(scene, 1))

        await self._change(second, _EDITED, f"edited {_EDITED.id}: {_EDITED.when}")
        await self._watch(step, until=lambda scene: _all_counted(scene, 0))

        self._screen.say(f"kill -9 {last.name}")
        await last.status()  # its bytes so far, for the summary
        await last.kill()
        await self._watch(step / 2)
        await self._change(first, _MISSED, f"added {_MISSED.id}: {_MISSED.when}")
        await self._watch(step / 2)

        await self._return(last)
        await self._watch(self._end - self._now())
        return all(each.seconds is not None for each in self.spreads) and await self._agree()

    async def _gather_fleet(self) -> bool:
        """Start all nodes and wait until each sees all others."""
        first, *others = self._nodes
        await first.start(())
        try:
            async with asyncio.TaskGroup() as starting:
                for node in others:
                    starting.create_task(node.start(first.endpoints))
        except* CommandFailedError as group:
            raise group.exceptions[0] from None
        deadline = self._now() + PATIENCE
        while self._now() < deadline:
            statuses = [await node.status() for node in self._nodes]
            if all(status is not None and status.peers == len(others) for status in statuses):
                self._screen.say(f"{len(self._nodes)} nodes are up, and each sees the others")
                return True
            await asyncio.sleep(0.05)
        self._screen.say(f"the nodes did not find each other within {PATIENCE:g} s")
        return False

    async def _change(self, writer: DemoNode, change: DemoChange, what: str) -> None:
        """Write a constraint on a node, and measure the time until the other live nodes have it."""
        before = await writer.status()
        began = self._now()
        await writer.add(*change)
        after = await writer.status()
        if before is None or after is None:
            raise CommandFailedError(f"{writer.name} does not answer any more")
        seconds = await self._spread_of(writer, after.constraints_hash, began)
        self.spreads.append(Spread(f"{what} (on {writer.name})", seconds, after.written_bytes - before.written_bytes))
        self._screen.say(f"{what} (on {writer.name}): {self._told(seconds)}")

    async def _return(self, node: DemoNode) -> None:
        """Start a killed node again, and measure the time until it has the change that it missed."""
        began = self._now()
        self._screen.say(f"starting {node.name} again, with nothing in memory")
        await node.start(tuple(endpoint for other in self._nodes if other.live for endpoint in other.endpoints))
        ready = self._now()
        reference = await self._nodes[0].status()
        seconds = None if reference is None else await self._spread_of(self._nodes[0], reference.constraints_hash, ready)
        self.spreads.append(Spread(f"started {node.name} again ({ready - began:.2f} s until it serves)", seconds))
        self._screen.say(f"{node.name} serves after {ready - began:.2f} s; {self._told(seconds)}")

    def _told(self, seconds: float | None) -> str:
        live = sum(node.live for node in self._nodes)
        if seconds is None:
            return f"NOT on all {live} live nodes within {PATIENCE:g} s"
        return f"all {live} live nodes have it after {1000 * seconds:.0f} ms"

    async def _spread_of(self, source: DemoNode, constraints_hash: str, began: float) -> float | None:
        """Seconds from `began` until every live node enforces these constraints. None after the deadline, or if `source` ends
        before: the change may be lost with the node.
        """
        live = [node for node in self._nodes if node.live]
        times = await asyncio.gather(*(self._reach(node, source, constraints_hash) for node in live))
        reached = [time for time in times if time is not None]
        return max(reached) - began if len(reached) == len(live) else None

    async def _reach(self, node: DemoNode, source: DemoNode, constraints_hash: str) -> float | None:
        deadline = self._now() + PATIENCE
        while self._now() < deadline and node.live and source.live:
            status = await node.status()
            if status is not None and status.constraints_hash == constraints_hash:
                return self._now()
            await asyncio.sleep(0.01)
        return None

    async def _agree(self) -> bool:
        """Whether all nodes are up at the end and enforce the same."""
        reference = await self._nodes[0].status()
        if reference is None or not all(node.live for node in self._nodes):
            return False
        return await self._spread_of(self._nodes[0], reference.constraints_hash, self._now()) is not None

    async def _watch(self, seconds: float, *, until: Callable[[Scene], bool] = lambda _: True) -> None:
        """Show the fleet for so long, every second, and in full at the end.

        `until`: the scene to wait for before it goes on, as a slow machine takes longer.
        """
        deadline = self._now() + seconds
        while (left := deadline - self._now()) > 0:
            await asyncio.sleep(min(1.0, left))
            self._screen.show(await self._scene())
        while not until(scene := await self._scene()) and self._now() < deadline + PATIENCE:  # noqa: ASYNC110 - nodes are asked
            await asyncio.sleep(0.1)
        self._screen.table(scene)

    async def _scene(self) -> Scene:
        statuses = await asyncio.gather(*(node.status() for node in self._nodes))
        listed = await self._nodes[0].constraints()
        return Scene(
            [node.name for node in self._nodes],
            {node.name: status for node, status in zip(self._nodes, statuses, strict=True) if status is not None},
            listed,
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _all_counted(scene: Scene, which: int) -> bool:
    """Whether every node that answers has found the constraint that is edited satisfied (0) or violated (1)."""
    found = [each.by_node for each in scene.constraints if each.id == _EDITED.id]
    return all(counts.get(name, (0, 0))[which] > 0 for counts in found for name in scene.statuses)
