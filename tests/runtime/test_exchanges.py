"""Carrying exchanges over a transport whose every answer a test decides."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import pytest

from constraint_crdt import GossipNode, Limits, exchange
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.messages import Part, decode_message
from constraint_crdt.protocol.peers import fanout
from constraint_crdt.runtime.exchange_loop import NEAR_FROM, PROMPT, PUSHES_PER_SECOND, REPEATS, ExchangeLoop
from constraint_crdt.transport import Handler, Peer, PeerCallback, Unreachable
from tests.protocol.scrambled import scrambled


class Script:
    """A transport to nodes in this process; `lost(peer)` says whether a request gets no answer."""

    endpoints: tuple[str, ...] = ()
    bytes_sent = bytes_received = refused = 0

    def __init__(self, nodes: Sequence[GossipNode], lost: Callable[[Peer], bool] = lambda _: False) -> None:
        self.nodes = {Peer(node.node_id, "1"): node for node in nodes}
        self.lost = lost
        self.requests: list[tuple[Peer, bytes]] = []

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        raise NotImplementedError

    async def reopen(self) -> Peer:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def peers(self) -> frozenset[Peer]:
        return frozenset(self.nodes)

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        self.requests.append((peer, payload))
        if self.lost(peer):
            raise Unreachable(f"{peer.name} did not answer within {timeout:g} s.")
        node = self.nodes[peer]
        _, result = node.hear(payload)
        return [data for response in result.responses for data in node.encoded(response, "me")]


def received(_: str, __: GossipResult) -> None:
    """What the node would do with a message."""


async def settled() -> None:
    """Nothing is written to disk here."""


def exchanger(me: GossipNode, script: Script, every: float = 0.2) -> ExchangeLoop:
    return ExchangeLoop(me, script, received, settled, timeout=0.1, choice="auto", random=Random(1), every=every)


class Skipping:
    """The clock of the running loop, set forward by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)

    async def until(self, script: Script, asked: int) -> float:
        """Let time pass until so many requests were made; how long that took, in seconds, to 0.1."""
        begun = self.now
        while len(script.requests) < asked:
            await self.step(0.05)
        return self.now - begun

    async def step(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds
        for _ in range(20):  # who was woken gets its turn, and so do those that it wakes
            await asyncio.sleep(0)


class Losing:
    """Loses the first `count` requests."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, _: Peer) -> bool:
        self.count -= 1
        return self.count >= 0


@pytest.mark.parametrize("losses", range(REPEATS + 1))
async def test_a_request_without_an_answer_is_repeated_as_it_was(losses: int) -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other], Losing(losses))
    carrying = exchanger(me, script)
    other.add_constraint("max_speed")
    assert await carrying.exchange(Peer("other", "1"))
    assert me.state_hash == other.state_hash
    assert (carrying.repeated, carrying.failed, carrying.completed) == (losses, 0, 1)
    assert len({payload for _, payload in script.requests[: losses + 1]}) == 1
    assert carrying.sent == len(script.requests)


@pytest.mark.parametrize(("known", "patience"), [(True, [0.25, 0.25, 1.0]), (False, [1.0, 2.0, 4.0])])
async def test_a_silent_peer_is_waited_for_as_long_as_its_link_needs(
    monkeypatch: pytest.MonkeyPatch, known: bool, patience: list[float]
) -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script, waited = Script([other]), list[float]()
    carrying, peer = ExchangeLoop(me, script, received, settled, timeout=1.0, random=Random(1)), Peer("other", "1")
    if known:
        assert await carrying.exchange(peer)
    clock = Skipping(monkeypatch)

    async def silent(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        waited.append(timeout)
        await clock.step(timeout)
        raise Unreachable(f"{peer.name} did not answer to {len(payload)} bytes")

    script.request = silent  # type: ignore[method-assign]  # the same, and stopped
    assert not await carrying.exchange(peer)
    assert waited == patience


@pytest.mark.slow
@pytest.mark.parametrize(("demanded", "rounds"), [(False, 40), (True, 10)])
async def test_rounds_make_room_for_exchanges_on_demand_but_for_one_of_four(
    monkeypatch: pytest.MonkeyPatch, demanded: bool, rounds: int
) -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script, clock = Script([other]), Skipping(monkeypatch)
    carrying, peer = exchanger(me, script, every=1.0), Peer("other", "1")
    monkeypatch.setattr(carrying, "_is_at_rest", lambda: False)
    task, begun = asyncio.create_task(carrying.run_rounds()), 0
    for _ in range(400):
        if demanded:
            await carrying.begin(peer)
            begun += 1
        await clock.step(0.1)
    task.cancel()
    assert carrying.begun - begun == pytest.approx(rounds, abs=4)


@pytest.mark.slow
async def test_a_slow_peer_and_a_silent_one_hold_up_no_exchange_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it never answered, or answered quickly until now."""
    me, known, unknown, other = (GossipNode(name) for name in ("me", "known", "unknown", "other"))
    script = Script([known, unknown, other])
    carrying = ExchangeLoop(me, script, received, settled, timeout=1.0, random=Random(1))
    assert await carrying.exchange(Peer("known", "1"))
    clock, answering = Skipping(monkeypatch), script.request

    async def request(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        if peer.name == "other":
            return await answering(peer, payload, timeout)
        script.requests.append((peer, payload))
        until = clock.now + timeout
        while clock.now < until:  # noqa: ASYNC110 - the time is that of the test
            await asyncio.sleep(0)
        raise Unreachable(f"{peer.name} did not answer")

    script.request = request  # type: ignore[method-assign]  # the same, and slow
    silent = [asyncio.create_task(carrying.exchange(Peer(name, "1"))) for name in ("known", "unknown")]
    after = asyncio.create_task(carrying.exchange(Peer("other", "1")))
    while not after.done():
        await clock.step(0.05)
    assert clock.now <= 0.7, "a quarter of a timeout for each"
    assert carrying.live == {"known", "other"}
    assert await after
    while not all(task.done() for task in silent):
        await clock.step(0.05)
    assert [task.result() for task in silent] == [False, False]
    assert carrying.live == {"other"}
    await carrying.close()


@pytest.mark.parametrize(("silent", "round_trip", "most"), [(False, 0.001, 0.05), (True, 0.001, 0.1), (True, 3.0, 0.25)])
async def test_an_exchange_on_demand_holds_up_others_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, silent: bool, round_trip: float, most: float
) -> None:
    me, first, other = (GossipNode(name) for name in ("me", "first", "other"))
    script = Script([first, other])
    carrying = ExchangeLoop(me, script, received, settled, timeout=1.0, random=Random(1))
    assert await carrying.exchange(Peer("first", "1"))
    me.links.of("first").round_trip = round_trip
    clock, answering = Skipping(monkeypatch), script.request

    async def request(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        if silent and peer.name == "first":
            await asyncio.Event().wait()
        return await answering(peer, payload, timeout)

    script.request = request  # type: ignore[method-assign]  # the same, and silent
    begun = [asyncio.create_task(carrying.begin(Peer(name, "1"))) for name in ("first", "other")]
    while not all(task.done() for task in begun):
        await clock.step(PROMPT / 10)
    assert [task.result() for task in begun] == [None if silent else True, True]
    assert carrying.is_under_way(Peer("first", "1")) is silent
    assert clock.now <= most + PROMPT / 5
    await carrying.close()


@pytest.mark.parametrize("pushed", [False, True])
async def test_what_a_push_left_out_for_an_exchange_under_way_is_pushed_at_its_end(
    monkeypatch: pytest.MonkeyPatch, pushed: bool
) -> None:
    me, slow = GossipNode("me"), GossipNode("slow")
    script = Script([slow])
    carrying = ExchangeLoop(me, script, received, settled, timeout=1.0, random=Random(1))
    assert await carrying.exchange(Peer("slow", "1"))
    clock, answering, may_answer = Skipping(monkeypatch), script.request, asyncio.Event()

    async def request(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        answer = await answering(peer, payload, timeout)
        await may_answer.wait()
        return answer

    script.request = request  # type: ignore[method-assign]  # the same, and slow
    begun = asyncio.create_task(carrying.begin(Peer("slow", "1")))
    while not begun.done():
        await clock.step(PROMPT / 10)
    pushes = asyncio.create_task(carrying.run_pushes())
    me.add_constraint("change")
    if pushed:
        carrying.push()
        await clock.step(1 / PUSHES_PER_SECOND)
    may_answer.set()
    await clock.step(1.0)
    await clock.step(1.0)
    assert (slow.state == me.state) is pushed
    assert carrying.begun == 2 + pushed
    pushes.cancel()
    await carrying.close()


async def test_of_exchanges_with_a_peer_one_goes_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that waited for the turn of a quick peer began while it answered slowly, and the end of the first one failed."""
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other])
    loop = ExchangeLoop(me, script, received, settled, timeout=1.0, random=Random(1))
    assert await loop.exchange(Peer("other", "1"))
    clock, answer, under_way, most = Skipping(monkeypatch), script.request, 0, 0

    async def slow(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.9)
        under_way -= 1
        return await answer(peer, payload, timeout)

    script.request = slow  # type: ignore[method-assign]
    me.add_constraint("a")
    other.add_constraint("b")
    tasks = [asyncio.create_task(loop.exchange(Peer("other", "1"))) for _ in range(3)]
    while not all(task.done() for task in tasks):
        await clock.step(0.1)
    assert [task.result() for task in tasks] == [True] * 3
    assert most == 1
    assert loop.completed == 4


@pytest.mark.long
async def test_what_arrived_of_an_answer_that_broke_off_is_kept() -> None:
    me, other = GossipNode("me"), GossipNode("other", limits=Limits(burst_bytes=200_000))
    for number in range(9000):
        other.add_constraint(scrambled(f"{number}") + scrambled(f"-{number}"))
    script = Script([other])
    answering, breaks, heard = script.request, Losing(3), Counter[int]()

    async def request(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        replies = await answering(peer, payload, timeout)
        parts = [message for message in map(decode_message, replies) if isinstance(message, Part)]
        broken = len(replies) > 2 and breaks(peer)
        heard.update(part.index for part in (parts[:2] if broken else parts))
        if broken:
            raise Unreachable("broke off", replies[:2])
        return replies

    script.request = request  # type: ignore[method-assign]  # the same, on a link that falls
    assert await exchanger(me, script).exchange(Peer("other", "1"))
    assert me.state_hash == other.state_hash
    assert breaks.count < 0, "it broke off"
    assert max(heard.values()) == 1


async def test_an_answer_that_was_lost_comes_again() -> None:
    """The peer takes the same bytes twice, and nothing is counted twice."""
    me, other = GossipNode("me"), GossipNode("other")
    exchange(me, other)
    me.add_constraint("max_speed")
    script = Script([other])
    answering, losing = script.request, Losing(2)

    async def request(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        replies = await answering(peer, payload, timeout)
        if losing(peer):
            raise Unreachable("lost on the way back")
        return replies

    script.request = request  # type: ignore[method-assign]  # the same, with a bad way back
    assert await exchanger(me, script).exchange(Peer("other", "1"))
    assert me.state_hash == other.state_hash
    assert len(script.requests) > 2


async def test_who_never_answers_is_left_alone_and_then_asked_once() -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other], lambda _: True)
    carrying, peer = exchanger(me, script), Peer("other", "1")
    assert not await carrying.exchange(peer)
    assert (len(script.requests), carrying.failed) == (1 + REPEATS, 1)
    assert carrying.willing({"other"}) == []
    assert not await carrying.exchange(peer)
    assert (len(script.requests), carrying.failed, carrying.repeated) == (2 + REPEATS, 2, REPEATS)


async def test_a_session_that_ends_takes_no_life_from_another_of_the_same_name() -> None:
    """The defect: a second node of a live name ended, as it has to, and the first one was away until it spoke again."""
    peer = GossipNode("peer")
    script = Script([peer], lost=lambda asked: asked.session == "2")
    loop = exchanger(GossipNode("me"), script)
    second = Peer("peer", "2")
    script.nodes[second] = GossipNode("peer")
    assert await loop.exchange(Peer("peer", "1"))
    assert not await loop.exchange(second)
    assert loop.live == {"peer"}
    del script.nodes[second]
    loop.gone(second)
    assert loop.live == {"peer"}


async def test_a_peer_that_went_is_not_asked_again() -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other])

    def leaves(peer: Peer) -> bool:
        del script.nodes[peer]
        return True

    script.lost = leaves
    assert not await exchanger(me, script).exchange(Peer("other", "1"))
    assert len(script.requests) == 1


@pytest.mark.parametrize("peers", [2, 4, 30])
async def test_a_change_is_carried_to_as_many_as_the_fleet_is_large(peers: int) -> None:
    me, nodes = GossipNode("me"), [GossipNode(f"n{number:02}") for number in range(peers)]
    script = Script(nodes)
    carrying = exchanger(me, script)
    for peer in sorted(script.nodes):
        await carrying.exchange(peer)
    me.add_constraint("max_speed")
    assert await carrying.push_now() == min(peers, fanout(1 + peers))
    assert sum(node.state_hash == me.state_hash for node in nodes) == min(peers, fanout(1 + peers))


@pytest.mark.long
async def test_carrying_changes_keeps_to_its_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something changes all the time."""
    me, nodes = GossipNode("me"), [GossipNode(f"n{number:02}") for number in range(20)]
    script = Script(nodes)
    carrying = exchanger(me, script)
    for peer in sorted(script.nodes):
        await carrying.exchange(peer)
    clock, begun = Skipping(monkeypatch), carrying.begun
    pushes = asyncio.create_task(carrying.run_pushes())
    while clock.now < 5:
        me.record_satisfied()
        carrying.push()
        await clock.step(0.01)
    pushes.cancel()
    assert PUSHES_PER_SECOND / 2 < (carrying.begun - begun) / 5 <= PUSHES_PER_SECOND * 1.02


@pytest.mark.slow
async def test_rounds_go_to_the_near_and_leave_nobody_out() -> None:
    """By positions: four peers next to this node, the others far away."""
    me, nodes = GossipNode("me"), [GossipNode(f"n{number:02}") for number in range(NEAR_FROM)]
    me.update_position((0, 0))
    for number, node in enumerate(nodes):
        node.update_position((1, 0) if number < 4 else (1000, 0))
        exchange(me, node)
    script = Script(nodes)
    rounds = asyncio.create_task(exchanger(me, script, every=0.0).run_rounds())
    try:
        async with asyncio.timeout(10):
            while len(script.requests) < 400:  # noqa: ASYNC110 - the rounds go on by themselves; each yields the loop
                await asyncio.sleep(0)
    finally:
        rounds.cancel()
    asked = Counter(peer.name for peer, _ in script.requests)
    assert set(asked) == {node.node_id for node in nodes}
    assert sum(asked[node.node_id] for node in nodes[:4]) > 200


def leave(script: Script, carrying: ExchangeLoop, peer: Peer) -> GossipNode:
    """The peer leaves the transport, which says so."""
    node = script.nodes.pop(peer)
    carrying.gone(peer)
    return node


async def test_a_request_merged_after_its_sender_left_does_not_keep_the_sender_live() -> None:
    """The handler of a request is a task: its sender may leave before the task runs, and no failure ends its life after that."""
    me, other = GossipNode("me"), GossipNode("other")
    peer, script = Peer("other", "1"), Script([other])
    carrying = exchanger(me, script)
    other.add_constraint("max_speed")
    (request,) = other.encoded(other.begin("me"), "me")
    leave(script, carrying, peer)
    await carrying.answer(request)
    assert carrying.live == set()
    script.nodes[peer] = other
    await carrying.answer(request)
    assert carrying.live == {"other"}


async def test_an_answer_merged_after_its_sender_left_does_not_keep_the_sender_live() -> None:
    me, other = GossipNode("me"), GossipNode("other")
    peer, script = Peer("other", "1"), Script([other])
    carrying, answering = exchanger(me, script), script.request

    async def request(peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - as `Transport` has it
        replies = await answering(peer, payload, timeout)
        if peer in script.nodes:
            leave(script, carrying, peer)
        return replies

    script.request = request  # type: ignore[method-assign]  # the same, and the link falls after the answer
    assert await carrying.exchange(peer)
    assert carrying.live == set()


async def test_a_peer_that_left_during_its_exchange_is_asked_as_soon_as_it_comes_again() -> None:
    me, other = GossipNode("me"), GossipNode("other")
    peer, script = Peer("other", "1"), Script([other])
    carrying = exchanger(me, script)

    def lost(peer: Peer) -> bool:
        leave(script, carrying, peer)
        return True

    script.lost = lost
    assert not await carrying.exchange(peer)
    script.nodes[peer] = other
    assert carrying.willing({"other"}) == [peer]
