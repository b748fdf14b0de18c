"""A node at rest: its rounds come rarely, everything that moves ends the rest at once, and no timer wakes it for nothing."""

import asyncio
from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, MemoryNetwork, Node
from constraint_crdt.protocol.peers import LONGEST_REST, LONGEST_REST_OF_MANY, MANY_PEERS, RoundInterval
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.maintenance import Tasks
from constraint_crdt.transport import Peer
from tests.runtime.fleet import QUICK, agreed, eventually, fleet
from tests.runtime.test_exchanges import Script, Skipping, exchanger

EVERY = 0.2


@pytest.mark.slow
@given(st.floats(0.01, 100.0), st.integers(0, 500))
def test_the_interval_grows_to_its_bound_and_is_the_least_at_once(least: float, peers: int) -> None:
    interval, before = RoundInterval(least), 0.0
    for _ in range(40):
        assert interval.seconds >= before
        before = interval.seconds
        interval.lengthen(peers)
    assert interval.seconds == interval.longest(peers) <= max(least, LONGEST_REST_OF_MANY if peers > MANY_PEERS else LONGEST_REST)
    assert interval.is_long is (interval.seconds > least)
    interval.shorten()
    assert interval.seconds == least


async def met(names: str) -> tuple[GossipNode, Script, ExchangeLoop]:
    """A node that knows the state and the clock of each of its peers."""
    me, nodes = GossipNode("me"), [GossipNode(name) for name in names]
    script = Script(nodes)
    loop = exchanger(me, script, every=EVERY)
    for node in nodes:
        assert await loop.exchange(Peer(node.node_id, "1"))
        (ping,) = node.encoded(node.ping(), "me")
        await loop.answer(ping)
    script.requests.clear()
    return me, script, loop


@pytest.mark.slow
async def test_rounds_of_a_node_at_rest_become_rare_and_ask_its_peers_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    _, script, loop = await met("abcd")
    clock = Skipping(monkeypatch)
    rounds = asyncio.create_task(loop.run_rounds())
    try:
        await clock.until(script, 10)
        assert loop.interval.seconds == LONGEST_REST
        script.requests.clear()
        assert await clock.until(script, 20) >= 20 * 0.8 * LONGEST_REST
        assert set(Counter(peer.name for peer, _ in script.requests).values()) == {5}
    finally:
        rounds.cancel()


async def at_rest(clock: Skipping, loop: ExchangeLoop) -> None:
    """Let time pass until the interval is the longest."""
    for _ in range(1_000):
        if loop.interval.seconds == LONGEST_REST:
            return
        await clock.step(0.05)
    raise AssertionError(f"the interval is {loop.interval.seconds} s")


@pytest.mark.slow
async def test_a_change_ends_the_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    me, script, loop = await met("abc")
    clock = Skipping(monkeypatch)
    rounds = asyncio.create_task(loop.run_rounds())
    try:
        await at_rest(clock, loop)
        script.requests.clear()
        me.add_constraint("max_speed")
        loop.push()
        await clock.until(script, 1)
        assert await clock.until(script, 4) <= 4 * 1.2 * EVERY + 0.2
        assert loop.interval.seconds == EVERY
    finally:
        rounds.cancel()


@pytest.mark.slow
async def test_news_from_a_peer_end_the_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The push of a change may have failed to reach others: this node asks them soon."""
    _, script, loop = await met("abc")
    other = script.nodes[Peer("a", "1")]
    clock = Skipping(monkeypatch)
    rounds = asyncio.create_task(loop.run_rounds())
    try:
        await at_rest(clock, loop)
        other.add_constraint("max_speed")
        (ping,) = other.encoded(other.ping(), "me")
        await loop.answer(ping)
        script.requests.clear()
        await clock.until(script, 2)  # the first still comes by the long interval, and finds the difference
        assert await clock.until(script, 5) <= 5 * 1.2 * EVERY + 0.2
    finally:
        rounds.cancel()


@pytest.mark.slow
async def test_a_node_that_misses_a_peer_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    _, script, loop = await met("abc")
    silent = Peer("a", "1")
    script.lost = lambda peer: peer == silent
    clock = Skipping(monkeypatch)
    rounds = asyncio.create_task(loop.run_rounds())
    try:
        for _ in range(1_000):
            if "a" not in loop.live:
                break
            await clock.step(0.05)
        for _ in range(100):
            await clock.step(0.05)
            assert loop.interval.seconds == EVERY
    finally:
        rounds.cancel()


@pytest.mark.slow
async def test_nodes_at_rest_take_a_change_from_each_other_at_once() -> None:
    slow = msgspec.structs.replace(QUICK, gossip_every=0.2)
    async with fleet("a", "b", "c", settings=slow) as nodes:
        await eventually(lambda: all(node._runtime.exchanges.interval.is_long for node in nodes), 20.0)
        await nodes[0].add_constraint("max_speed")
        await eventually(lambda: agreed(nodes))
        assert all("max_speed" in node.constraint_ids() for node in nodes)


@pytest.mark.long
async def test_nodes_that_start_together_are_met_without_rounds() -> None:
    """The defect: rounds choose by chance, and the last of twenty peers was heard after 15 s."""
    never = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    network = MemoryNetwork()
    nodes = [Node(name=f"n{index:02}", settings=never, transport=network.transport(), random=Random(index)) for index in range(12)]
    for node in nodes:
        await node.start()
    try:
        await eventually(lambda: all(node.status().peers == len(nodes) - 1 for node in nodes))
    finally:
        for node in nodes:
            await node.stop()


@pytest.mark.slow
async def test_steps_of_whole_seconds_share_their_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, other, woken = Tasks("forge"), Tasks("anvil"), dict[str, list[float]]()
    clock = Skipping(monkeypatch)

    def step(name: str) -> None:
        async def note() -> None:
            woken.setdefault(name, []).append(clock.now)

        owner = other if name == "other" else tasks
        owner.repeat(name, 2.0 if name == "two" else 1.0, note)

    try:
        for name in ("one", "two", "three", "other"):
            step(name)
            for _ in range(30):
                await clock.step(0.01)
        for _ in range(600):
            await clock.step(0.01)
    finally:
        await tasks.stop()
        await other.stop()
    assert set(woken["two"]) | set(woken["three"]) <= set(woken["one"])
    assert not set(woken["other"]) & set(woken["one"])
    assert [len(woken[name]) for name in ("one", "two", "other")] == [pytest.approx(7, abs=1), pytest.approx(3, abs=1), 6]


@pytest.mark.slow
async def test_a_node_that_stopped_leaves_no_timer_and_no_task_behind() -> None:
    loop = asyncio.get_running_loop()
    async with fleet("a", "b") as nodes:
        await nodes[0].add_constraint("short", ttl=60.0)
        await eventually(lambda: agreed(nodes))
    await asyncio.sleep(0)
    assert [handle for handle in loop._scheduled if not handle.cancelled()] == []  # type: ignore[attr-defined]
    assert asyncio.all_tasks() == {asyncio.current_task()}
