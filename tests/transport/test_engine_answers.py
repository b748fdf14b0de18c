"""Handlers that take their time: interleaved, bounded, each for its own requester only, and ended with their transport."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Callable, Coroutine, Sequence

import pytest

from constraint_crdt.transport import Peer, TransportError, Unreachable
from tests.conftest import within

from .seats import DEADLINE, Gate, Network, Seat, all_see_all

Ending = Callable[[Seat], Coroutine[None, None, object]]


def asking(seat: Seat, other: Seat, payload: bytes) -> asyncio.Task[list[bytes]]:
    return asyncio.get_running_loop().create_task(seat.ask(other, payload))


async def test_a_reply_leaves_only_once_its_handler_is_done(network: Network) -> None:
    gate = Gate()
    a, b = await network.join("a"), await network.join("b", handler=gate.handler)
    await a.sees(b)
    asked = asking(a, b, b"x")
    await gate.holds(1)
    assert b.transport.bytes_sent == 0
    assert not asked.done()
    gate.open()
    assert await asked == [b"x"]
    assert b.transport.bytes_sent == 1


@pytest.mark.slow
async def test_a_handler_that_waits_holds_no_other_up(network: Network) -> None:
    gate = Gate()

    async def slow_or_quick(request: bytes, _: Peer | None) -> Sequence[bytes]:
        return await gate.handler(request, _) if request == b"slow" else [request]

    a, b = await network.join("a"), await network.join("b", handler=slow_or_quick)
    await a.sees(b)
    slow = asking(a, b, b"slow")
    await gate.holds(1)
    assert await a.ask(b, b"quick") == [b"quick"]
    assert not slow.done()
    gate.open()
    assert await slow == [b"slow"]


@pytest.mark.slow
async def test_a_handler_may_wait_for_an_answer_of_the_one_who_asks(network: Network) -> None:
    async def ask_back(request: bytes, _: Peer | None) -> Sequence[bytes]:
        return await b.ask(a, b"back of " + request)

    a, b = await network.join("a"), await network.join("b", handler=ask_back)
    await all_see_all(a, b)
    assert await a.ask(b, b"x") == [b"back of x"]


@pytest.mark.slow
async def test_a_run_is_kept_although_only_the_engine_knows_it(network: Network) -> None:
    """What the handler awaits and its task refer to each other only: without the engine's reference both are garbage."""
    begun = asyncio.Event()
    awaited: list[weakref.ref[asyncio.Future[bytes]]] = []

    async def wait(_request: bytes, _: Peer | None) -> Sequence[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        awaited.append(weakref.ref(future))
        begun.set()
        return [await future]

    a, b = await network.join("a"), await network.join("b", handler=wait)
    await a.sees(b)
    asked = asking(a, b, b"x")
    await begun.wait()
    gc.collect()
    future = awaited[0]()
    assert future is not None
    future.set_result(b"kept")
    assert await asked == [b"kept"]


async def test_requests_beyond_the_bound_stay_unanswered_until_one_is_done(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    a, b = await network.join("a"), await network.join("b", handler=gate.handler, transport=network.transport(2))
    await a.sees(b)
    held = [asking(a, b, b"1"), asking(a, b, b"2")]
    await gate.holds(2)
    async with asyncio.timeout(DEADLINE / 2):  # it is refused, not left to time out
        for _ in range(2):
            with pytest.raises(Unreachable):
                await a.ask(b, b"3")
    gate.open()
    assert await asyncio.gather(*held) == [[b"1"], [b"2"]]
    assert await a.ask(b, b"4") == [b"4"]
    assert sorted(gate.entered) == [b"1", b"2", b"4"]
    assert len([each for each in caplog.records if "stay unanswered" in each.message]) == 1, "said once, not per request"


async def test_a_bound_that_lets_nothing_through_is_refused(network: Network) -> None:
    with pytest.raises(TransportError, match="0 requests"):
        network.transport(0)


async def close(seat: Seat) -> None:
    await seat.transport.close()


async def reopen(seat: Seat) -> None:
    await seat.transport.reopen()


@pytest.mark.slow
@pytest.mark.parametrize("end", [close, reopen])
async def test_ending_a_transport_cancels_the_handlers_that_wait(network: Network, end: Ending) -> None:
    gate = Gate()
    a, b = await network.join("a"), await network.join("b", handler=gate.handler)
    await a.sees(b)
    asked = [asking(a, b, bytes([n])) for n in range(20)]
    await gate.holds(20)
    async with asyncio.timeout(DEADLINE / 2):
        await end(b)
        results = await asyncio.gather(*asked, return_exceptions=True)
    assert gate.cancelled == gate.entered, "all of them, in the order in which they came"
    assert all(isinstance(result, Unreachable) for result in results)
    assert b.transport.bytes_sent == 0


class Resisting(Gate):
    """A gate whose handler goes on after it was cancelled, and answers once it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()
        self.resisting = asyncio.Event()

    async def handler(self, request: bytes, _: Peer | None) -> Sequence[bytes]:
        try:
            return await super().handler(request, _)
        except asyncio.CancelledError:
            self.resisting.set()
            await self.released.wait()
            return [b"too late"]


@pytest.mark.slow
async def test_a_handler_that_resists_does_not_hold_closing_up_and_sends_nothing(network: Network) -> None:
    gate = Resisting()
    a, b = await network.join("a"), await network.join("b", handler=gate.handler)
    await a.sees(b)
    asked = asking(a, b, b"x")
    await gate.holds(1)
    async with asyncio.timeout(within(2.0)):
        await b.transport.close()
    assert gate.resisting.is_set()
    gate.released.set()
    with pytest.raises(Unreachable):
        await asked
    assert b.transport.bytes_sent == 0


@pytest.mark.slow
async def test_a_handler_may_close_its_own_transport(network: Network) -> None:
    closed = asyncio.Event()

    async def close_here(request: bytes, _: Peer | None) -> Sequence[bytes]:
        await b.transport.close()
        closed.set()
        return [request]

    a, b = await network.join("a"), await network.join("b", handler=close_here)
    await a.sees(b)
    with pytest.raises(Unreachable):
        await a.ask(b)
    async with asyncio.timeout(DEADLINE):
        await closed.wait()


@pytest.mark.slow
async def test_closing_that_is_cancelled_says_so_and_still_closes(network: Network) -> None:
    gate = Resisting()
    a, b = await network.join("a"), await network.join("b", handler=gate.handler)
    await a.sees(b)
    asked = asking(a, b, b"x")
    await gate.holds(1)
    closing = asyncio.get_running_loop().create_task(b.transport.close())
    await gate.resisting.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await a.sees()
    gate.released.set()
    with pytest.raises(Unreachable):
        await asked


async def test_a_handler_cancelled_by_itself_costs_its_answer_only(network: Network, caplog: pytest.LogCaptureFixture) -> None:
    async def cancelled(request: bytes, _: Peer | None) -> Sequence[bytes]:
        if request == b"bad":
            raise asyncio.CancelledError
        return [request]

    a, b = await network.join("a"), await network.join("b", handler=cancelled)
    await a.sees(b)
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(DEADLINE / 2):
            with pytest.raises(Unreachable):
                await a.ask(b, b"bad")
    assert await a.ask(b, b"good") == [b"good"]
    assert caplog.records == []


async def test_a_crash_ends_the_handlers_and_answers_nobody(memory: Network) -> None:
    gate = Gate()
    a, b = await memory.join("a"), await memory.join("b", handler=gate.handler)
    asked = asking(a, b, b"x")
    await gate.holds(1)
    memory.memory.crash("b")
    with pytest.raises(Unreachable):
        await asked
    assert gate.cancelled == [b"x"]


async def test_answers_in_memory_come_in_the_same_order_every_time(memory: Network) -> None:
    async def turns(request: bytes, __: Peer | None) -> Sequence[bytes]:
        for _ in range(request[0] * 7 % 10):
            await asyncio.sleep(0)  # gives the others turns, as many as the request says
        return [request]

    a, b = await memory.join("a"), await memory.join("b", handler=turns)

    async def run() -> list[bytes]:
        order: list[bytes] = []

        async def ask(payload: bytes) -> None:
            order.extend(await a.ask(b, payload))

        await asyncio.gather(*(ask(bytes([n])) for n in range(10)))
        return order

    first = await run()
    assert first == sorted(first, key=lambda request: request[0] * 7 % 10)
    assert first == await run() == await run()
