"""What holds the event loop up shows in the lag, as long as it did, and nothing shows on a loop that is free."""

import asyncio
import time

import pytest

from constraint_crdt.runtime.answers import LoopLag

EVERY = 0.01
BLOCKED = 0.2


async def looks(lag: LoopLag, count: int) -> None:
    """Let it look so many times more."""
    wanted = lag.durations.up_to()[-1] + count
    async with asyncio.timeout(20):
        while lag.durations.up_to()[-1] < wanted:  # noqa: ASYNC110 - a histogram has no event to wait on
            await asyncio.sleep(EVERY)


@pytest.mark.slow
async def test_a_loop_that_is_blocked_is_late_by_that_much() -> None:
    lag = LoopLag()
    looking = asyncio.create_task(lag.run(EVERY))
    try:
        await looks(lag, 1)
        before = lag.durations.total
        time.sleep(BLOCKED)  # noqa: ASYNC251 - the very thing that is measured
        await looks(lag, 1)
        assert lag.durations.total - before >= BLOCKED - 2 * EVERY
    finally:
        looking.cancel()
