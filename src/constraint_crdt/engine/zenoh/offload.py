"""Blocking calls off the loop, in daemon threads: an executor's threads would be waited for when the program ends."""

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


async def in_daemon_thread(work: Callable[[], T], seconds: float, discard: Callable[[T], object]) -> T:
    """Run `work` in a thread and return its result or raise its error; `TimeoutError` after `seconds`.

    A result that nobody waits for any more (timed out, cancelled, loop gone) goes to `discard`, in a thread too.
    """
    call = _Call(work, discard)
    threading.Thread(target=call.run, daemon=True).start()
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
        threading.Thread(target=self._discard, args=(result,), daemon=True).start()
