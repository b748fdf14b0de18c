"""The faults of the in-memory engine."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from constraint_crdt.transport import Peer, Unreachable

from .seats import Network, all_see_all


async def test_a_cut_takes_the_route_both_ways_and_healing_gives_it_back(memory: Network) -> None:
    a, b, c = [await memory.join(name) for name in "abc"]
    await all_see_all(a, b, c)
    memory.memory.cut(["a"], ["b", "c"])
    await a.sees()
    await b.sees(c)
    await c.sees(b)
    for x, y in ((a, b), (b, a), (a, c)):
        with pytest.raises(Unreachable):
            await x.ask(y)
    assert await b.ask(c, b"x") == [b"x"]
    memory.memory.heal()
    await all_see_all(a, b, c)
    assert await a.ask(b, b"x") == [b"x"]
    assert b.changes[-2:] == [(a.me, False), (a.me, True)]


async def test_a_cut_holds_for_those_who_open_later(memory: Network) -> None:
    memory.memory.cut(["a"], ["b"])
    a, b, c = [await memory.join(name) for name in "abc"]
    await c.sees(a, b)
    await a.sees(c)
    assert (b.me, True) not in a.changes


async def test_a_cut_in_the_middle_of_a_request_loses_its_answer(memory: Network) -> None:
    async def cut_and_answer(request: bytes, _: Peer | None) -> Sequence[bytes]:
        memory.memory.cut(["a"], ["b"])
        return [b"too late"]

    a, b = await memory.join("a"), await memory.join("b", handler=cut_and_answer)
    await a.sees(b)
    with pytest.raises(Unreachable):
        await a.ask(b)


async def test_a_crash_is_seen_by_the_others_and_told_to_nobody_in_it(memory: Network) -> None:
    a, b, c = [await memory.join(name) for name in "abc"]
    await all_see_all(a, b, c)
    told = list(b.changes)
    memory.memory.crash("b")
    await a.sees(c)
    assert b.changes == told
    with pytest.raises(Unreachable):
        await a.ask(b)
    with pytest.raises(Unreachable):
        await b.ask(a)
    await b.transport.close()
    again = await memory.join("b")
    await all_see_all(a, again, c)
    assert again.me != b.me


@pytest.mark.slow
async def test_loss_follows_the_generator_and_strikes_both_legs(memory: Network) -> None:
    served: list[bytes] = []

    async def serve(request: bytes, _: Peer | None) -> Sequence[bytes]:
        served.append(request)
        return [request]

    a, b = await memory.join("a"), await memory.join("b", handler=serve)
    await a.sees(b)

    async def run() -> list[bool]:
        memory.memory.lose(0.5, Random(7))
        results = [await asyncio.gather(a.ask(b, bytes([n])), return_exceptions=True) for n in range(100)]
        return [isinstance(result, list) for (result,) in results]

    first = await run()
    answered, lost_on_the_way_back = sum(first), len(served) - sum(first)
    assert 10 < answered < 50
    assert 10 < lost_on_the_way_back < 50
    assert await run() == first
    memory.memory.lose(0.0, Random(7))
    assert await a.ask(b, b"x") == [b"x"]
