"""What happens in the demo, in order, and the measuring of it.

Constraints are added on one node and edited on another; a node is killed, misses a change, and is started again. After each step
every node has to have what changed. Times are those at which a node was first seen to enforce the same as the one that was
written to, asked every 10 ms.
"""

import argparse
import asyncio
import secrets
import signal
from collections.abc import Callable, Mapping

from constraint_crdt.cli.demo.fleet import DemoNode
from constraint_crdt.cli.demo.screen import Scene, Screen, make_screen
from constraint_crdt.cli.demo.summary import Spread, summarise
from constraint_crdt.cli.errors import CommandFailedError

PATIENCE = 15.0
"""Seconds that the fleet has to agree after each step."""

_FIRST: tuple[Mapping[str, str], ...] = (
    {"id": "cpu_possible", "when": "cpu_percent <= 100.0", "severity": "info", "about": "holds on any machine"},
    {"id": "memory_spare", "when": "memory_percent < 1.0", "severity": "critical", "about": "holds on none"},
    {"id": "disk_space", "when": "disk_percent < 99.5", "about": "logs need room"},
)
_EDITED = {"id": "memory_spare", "when": "memory_percent < 99.5", "severity": "critical", "about": "what was meant"}
_MISSED = {"id": "load_bearable", "when": "load_1m < 256.0", "about": "added while a node was away"}


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
        """Everything, step by step. True if every node had every change in time."""
        first, second, last = self._nodes[0], self._nodes[1], self._nodes[-1]
        self._screen.say(f"starting {len(self._nodes)} node processes")
        if not await self._gather_fleet():
            return False
        step = max(0.0, self._end - self._now()) / 5

        for body in _FIRST:
            await self._change(first, body, f"added {body['id']}: {body['when']}")
        await self._watch(step, until=lambda scene: _all_counted(scene, 1))

        await self._change(second, _EDITED, f"edited {_EDITED['id']}: {_EDITED['when']}")
        await self._watch(step, until=lambda scene: _all_counted(scene, 0))

        self._screen.say(f"kill -9 {last.name}")
        await last.status()  # its bytes so far, for the summary
        await last.kill()
        await self._watch(step / 2)
        await self._change(first, _MISSED, f"added {_MISSED['id']}: {_MISSED['when']}")
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
            if all(status is not None and status["peers"] == len(others) for status in statuses):
                self._screen.say(f"{len(self._nodes)} nodes are up, and each sees the others")
                return True
            await asyncio.sleep(0.05)
        self._screen.say(f"the nodes did not find each other within {PATIENCE:g} s")
        return False

    async def _change(self, writer: DemoNode, body: Mapping[str, str], what: str) -> None:
        """Write a constraint on one node, and see how long it takes to reach the others that are up."""
        before = await writer.status()
        began = self._now()
        await writer.post("constraints", body)
        after = await writer.status()
        if before is None or after is None:
            raise CommandFailedError(f"{writer.name} does not answer any more")
        seconds = await self._spread_of(writer, after["constraints_hash"], began)
        self.spreads.append(Spread(f"{what} (on {writer.name})", seconds, after["written_bytes"] - before["written_bytes"]))
        self._screen.say(f"{what} (on {writer.name}): {self._told(seconds)}")

    async def _return(self, node: DemoNode) -> None:
        """Start a killed node again, and see how long it takes to know what it missed."""
        began = self._now()
        self._screen.say(f"starting {node.name} again, with nothing in memory")
        await node.start(tuple(endpoint for other in self._nodes if other.live for endpoint in other.endpoints))
        ready = self._now()
        reference = await self._nodes[0].status()
        seconds = None if reference is None else await self._spread_of(self._nodes[0], reference["constraints_hash"], ready)
        self.spreads.append(Spread(f"started {node.name} again ({ready - began:.2f} s until it serves)", seconds))
        self._screen.say(f"{node.name} serves after {ready - began:.2f} s; {self._told(seconds)}")

    def _told(self, seconds: float | None) -> str:
        live = sum(node.live for node in self._nodes)
        if seconds is None:
            return f"NOT on all {live} live nodes within {PATIENCE:g} s"
        return f"all {live} live nodes have it after {1000 * seconds:.0f} ms"

    async def _spread_of(self, source: DemoNode, constraints_hash: str, began: float) -> float | None:
        """Seconds from `began` until every live node has been seen to enforce that; None if one does not in time, or if `source`,
        which has it, is gone before: nobody may ever hear of it then.
        """
        live = [node for node in self._nodes if node.live]
        times = await asyncio.gather(*(self._reach(node, source, constraints_hash) for node in live))
        reached = [time for time in times if time is not None]
        return max(reached) - began if len(reached) == len(live) else None

    async def _reach(self, node: DemoNode, source: DemoNode, constraints_hash: str) -> float | None:
        deadline = self._now() + PATIENCE
        while self._now() < deadline and node.live and source.live:
            status = await node.status()
            if status is not None and status["constraints_hash"] == constraints_hash:
                return self._now()
            await asyncio.sleep(0.01)
        return None

    async def _agree(self) -> bool:
        """Whether all nodes are up at the end and enforce the same."""
        reference = await self._nodes[0].status()
        if reference is None or not all(node.live for node in self._nodes):
            return False
        return await self._spread_of(self._nodes[0], reference["constraints_hash"], self._now()) is not None

    async def _watch(self, seconds: float, *, until: Callable[[Scene], bool] = lambda _: True) -> None:
        """Show the fleet for so long, every second, and in full at the end.

        `until`: what has to be seen before it goes on. On a slow machine that takes longer, and is waited for.
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
        listed = await self._nodes[0].get("constraints")
        return Scene(
            [node.name for node in self._nodes],
            {node.name: status for node, status in zip(self._nodes, statuses, strict=True) if status is not None},
            listed or [],
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _all_counted(scene: Scene, which: int) -> bool:
    """Whether every node that answers has found the constraint that is edited satisfied (0) or violated (1)."""
    found = [each["by_node"] for each in scene.constraints if each["id"] == _EDITED["id"]]
    return all(counts.get(name, (0, 0))[which] > 0 for counts in found for name in scene.statuses)
