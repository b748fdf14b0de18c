"""LoopLag: how late the event loop runs what is due.

All of a node runs on one loop, so what holds it up (a long evaluation, a program that embeds the node and blocks) holds up gossip
and answers too. This is what that looks like from inside.
"""

import asyncio
from typing import Final

from constraint_crdt.store.durations import Durations

EVERY: Final = 0.5
"""Seconds between two looks."""

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures the loop that it runs on."""

    def __init__(self) -> None:
        self.durations = Durations(BOUNDS)
        """By how many seconds each look came too late."""

    async def run(self, every: float = EVERY) -> None:
        """Look for ever, each `every` seconds."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            self.durations.note(max(0.0, loop.time() - due))
