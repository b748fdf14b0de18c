"""Blocking calls in daemon threads: nothing that they open is left behind."""

import asyncio
import threading

import pytest

from constraint_crdt.transport import zenoh_startup
from constraint_crdt.transport.zenoh_startup import in_daemon_thread, start_daemon_thread

from .seats import DEADLINE


class Blocking:
    """Work that waits to be released, and what became of its result."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.released = threading.Event()
        self.discarded = threading.Event()

    def work(self) -> str:
        self.begun.set()
        assert self.released.wait(DEADLINE)
        return "result"

    def discard(self, result: str) -> None:
        assert result == "result"
        self.discarded.set()


async def test_a_result_and_an_error_come_back() -> None:
    def fail() -> None:
        raise KeyError

    assert await in_daemon_thread(lambda: 1, DEADLINE, lambda _: None) == 1
    with pytest.raises(KeyError):
        await in_daemon_thread(fail, DEADLINE, lambda _: None)


async def test_a_result_that_comes_too_late_is_discarded() -> None:
    blocking = Blocking()
    with pytest.raises(TimeoutError):
        await in_daemon_thread(blocking.work, 0.01, blocking.discard)
    blocking.released.set()
    assert await asyncio.to_thread(blocking.discarded.wait, DEADLINE)


async def test_the_result_of_a_cancelled_call_is_discarded() -> None:
    blocking = Blocking()
    call = asyncio.get_running_loop().create_task(in_daemon_thread(blocking.work, DEADLINE, blocking.discard))
    assert await asyncio.to_thread(blocking.begun.wait, DEADLINE)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    blocking.released.set()
    assert await asyncio.to_thread(blocking.discarded.wait, DEADLINE)


def test_a_result_that_outlives_its_loop_is_discarded() -> None:
    blocking = Blocking()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await in_daemon_thread(blocking.work, 0.01, blocking.discard)

    asyncio.run(give_up())
    blocking.released.set()
    assert blocking.discarded.wait(DEADLINE)


def test_a_thread_starts_while_another_one_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is entered while this one looks for threads that ended. (A node failed to start: the set changed size.)"""
    threads: set[threading.Thread] = set()
    done = threading.Event()

    class Other(threading.Thread):
        def is_alive(self) -> bool:
            threads.add(threading.Thread())
            return False

    threads.update(Other() for _ in range(3))
    monkeypatch.setattr(zenoh_startup, "_threads", threads)
    start_daemon_thread(done.set)
    assert done.wait(DEADLINE)
