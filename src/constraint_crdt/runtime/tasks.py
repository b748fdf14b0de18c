"""What a node does all the time, each activity a task of its own.

A fault in one is logged, costs the others nothing, and it goes on a second later.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

PAUSE = 1.0
"""Seconds after a fault."""

_log = logging.getLogger("constraint_crdt.node")


class Activities:
    """The tasks of one node."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, what: str, activity: Callable[[], Awaitable[None]]) -> None:
        """Keep an activity going that only ends when it is stopped."""
        self._start(what, self._supervised(what, activity))

    def repeat(self, what: str, every: float, step: Callable[[], Awaitable[None]]) -> None:
        """Do `step` again and again, `every` seconds after the last time."""

        async def steps() -> None:
            while True:
                await asyncio.sleep(every)
                await step()

        self.run(what, steps)

    def once(self, what: str, activity: Coroutine[object, object, None]) -> None:
        """Do something aside, once."""
        self._start(what, activity)

    def _start(self, what: str, activity: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(activity, name=f"{self._node} {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervised(self, what: str, activity: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await activity()
            except Exception:
                _log.exception("%s: a fault in %s, which goes on in a second", self._node, what)
                await asyncio.sleep(PAUSE)

    async def stop(self) -> bool:
        """End all of them. False if there was none."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return bool(tasks)
