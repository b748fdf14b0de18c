"""The background tasks of a node. A fault in one is logged, and the task continues a second later; the others go on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

PAUSE = 1.0
"""Seconds before a task continues after a fault."""

_log = logging.getLogger("constraint_crdt.node")


class Tasks:
    """The background tasks of one node."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        """Run `activity`, which never returns, until `stop`."""
        self._start(name, self._supervised(name, activity))

    def repeat(self, name: str, every: float, step: Callable[[], Awaitable[None]]) -> None:
        """Call `step` repeatedly, `every` seconds after the last call ended."""

        async def steps() -> None:
            while True:
                await asyncio.sleep(every)
                await step()

        self.run(name, steps)

    def once(self, name: str, activity: Coroutine[object, object, None]) -> None:
        """Run `activity` once."""
        self._start(name, activity)

    def _start(self, name: str, activity: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(activity, name=f"{self._node} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervised(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await activity()
            except Exception:
                _log.exception("%s: a fault in %s, which goes on in a second", self._node, name)
                await asyncio.sleep(PAUSE)

    async def stop(self) -> bool:
        """Cancel all tasks and wait for them. Returns False if there were none."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return bool(tasks)
