"""Blocking calls off the loop, in daemon threads: an executor's threads would be waited for when the program ends.

They are waited for too, but not long: a thread that lets go of a Zenoh object while the interpreter goes down aborts
the process (4 of 150 runs when tried), and one that hangs in Zenoh must not keep the program from ending.
"""

import asyncio
import atexit
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

EXIT_SECONDS = 1.0
_threads: set[threading.Thread] = set()


def start_daemon_thread(work: Callable[[], object]) -> None:
    """Run `work` in a thread of its own."""
    _threads.difference_update([thread for thread in _threads if not thread.is_alive()])
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    _threads.add(thread)


def _wait_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))


atexit.register(_wait_at_exit)


async def in_daemon_thread(work: Callable[[], T], seconds: float, discard: Callable[[T], object]) -> T:
    """Run `work` in a thread and return its result or raise its error; `TimeoutError` after `seconds`.

    A result that nobody waits for any more (timed out, cancelled, loop gone) goes to `discard`, in a thread too.
    """
    call = _Call(work, discard)
    start_daemon_thread(call.run)
    try:
        async with asyncio.timeout(seconds):
            return await call.done
    except BaseException:
        call.abandon()
        raise


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._work = work
        self._discard = discard
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()

    def run(self) -> None:
        """The thread."""
        try:
            result = self._work()
        except BaseException as error:
            self._hand_over(self._fail, error)
        else:
            if not self._hand_over(self._deliver, result):
                self._discard(result)

    def abandon(self) -> None:
        """Nobody waits any more. A result that came between its delivery and the waiter's turn is thrown away."""
        if self.done.done() and not self.done.cancelled() and self.done.exception() is None:
            self._throw_away(self.done.result())

    def _hand_over(self, call: Callable[..., None], argument: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:  # the loop is closed: nobody waits
            return False
        return True

    def _deliver(self, result: T) -> None:
        if self.done.done():
            self._throw_away(result)
        else:
            self.done.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _throw_away(self, result: T) -> None:
        start_daemon_thread(lambda: self._discard(result))
