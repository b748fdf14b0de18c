"""Fleets in virtual time: the exchange loops of running nodes on an event loop whose time is made up, over links with a rate.

Nothing waits: the time of the loop steps to the next timer. A link has a delay, a rate for which messages queue, losses,
duplicates and breaks in each direction. All is drawn from a generator, so each history is the same again.
"""

import asyncio
import itertools
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, cast

from constraint_crdt import GossipNode
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.messages import Part, decode_message
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.simulation.histories import SimulatedCredentials
from constraint_crdt.transport import Peer, Transport, Unreachable


class _Steps(selectors.DefaultSelector):
    """Does not wait: it puts the time forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += max(timeout or 0.0, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once. The work of threads takes no time."""

    def __init__(self) -> None:
        self._steps = _Steps()
        super().__init__(self._steps)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._steps.now

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        done = self.create_future()
        done.set_result(func(*args))
        return done


def in_virtual_time(work: Coroutine[Any, Any, Any]) -> Any:
    """Run something on a loop of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


@dataclass
class Way:
    """The way from a node to another."""

    delay: float = 0.0005
    """Seconds."""
    rate: float = 1e8
    """Bytes per second, for which messages queue."""
    loss: float = 0.0
    twice: float = 0.0
    """The share of requests that arrive twice."""
    jitter: float = 0.0
    """The mean of an exponential addition to the delay."""
    down: Callable[[float], bool] = lambda _: False
    """Nothing passes while this is true."""
    free_at: float = 0.0


@dataclass
class Member:
    """A node with its exchange loop, and its tasks while it is up."""

    gossip: GossipNode
    transport: "TimedTransport"
    loop: ExchangeLoop
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class TimedTransport:
    """The transport of a life of a node in a `TimedFleet`."""

    endpoints: tuple[str, ...] = ()
    bytes_sent = bytes_received = refused = 0

    def __init__(self, fleet: "TimedFleet", me: Peer) -> None:
        self._fleet = fleet
        self.me = me
        self.up = True

    def peers(self) -> frozenset[Peer]:
        return self._fleet.listed - {self.me}

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        return await self._fleet.request(self, peer, payload, timeout)


class TimedFleet:
    """Nodes and the links between them."""

    def __init__(self, chance: Random, *, signed: bool = False, limits: Limits = DEFAULT_LIMITS, every: float = 0.2) -> None:
        self.chance = chance
        self.signed = signed
        self._limits = limits
        self._every = every
        self.members: dict[str, Member] = {}
        self.ways: dict[tuple[str, str], Way] = {}
        self.way: Callable[[], Way] = Way
        """Makes the ways that are not in `ways`."""
        self.listed: frozenset[Peer] = frozenset()
        self.carried: Counter[tuple[str, str]] = Counter()
        """Bytes by the sender and the reader."""
        self.slices: Counter[tuple[str, str, bytes, int]] = Counter()
        """How often each slice was sent, by the sender, the reader, the transfer and its index."""
        self.log: list[tuple[float, str, str, str, int]] = []
        """Each message: when it was sent, by whom, to whom, its type and its bytes."""
        self.began: dict[str, int] = {}
        """The mutations of each node at the beginning."""
        self._incarnations = itertools.count(1000)
        self._sessions = itertools.count(1)
        self._beside: set[asyncio.Task[None]] = set()

    # --- nodes -----------------------------------------------------------------------------------------------------------

    def make(self, name: str, incarnation: int = 1) -> GossipNode:
        """A node that is not in the fleet yet."""
        return GossipNode(
            name,
            incarnation=incarnation,
            now=lambda: 1,
            renew=self._incarnations.__next__,
            limits=self._limits,
            credentials=SimulatedCredentials(name) if self.signed else None,
        )

    def start(self, gossip: GossipNode) -> Member:
        """Let a node join."""
        name = gossip.node_id
        transport = TimedTransport(self, Peer(name, f"{next(self._sessions):08x}"))

        def received(_: str, result: GossipResult) -> None:
            if result.state_changed:
                member.loop.push()

        loop = ExchangeLoop(
            gossip, cast("Transport", transport), received, _at_once, timeout=1.0, random=Random(name), every=self._every
        )
        member = self.members[name] = Member(gossip, transport, loop)
        others = [each for each in self.members.values() if each is not member]
        self.listed |= {transport.me}
        for each in (*others, member):
            each.loop.came()
        running = asyncio.get_running_loop()
        member.tasks = [running.create_task(run()) for run in (loop.run_rounds, loop.run_pushes, loop.run_meetings)]
        return member

    async def stop(self, name: str) -> GossipNode:
        """Kill a node; returns its last state."""
        member = self.members.pop(name)
        member.transport.up = False
        self.listed -= {member.transport.me}
        for task in member.tasks:
            task.cancel()
        await asyncio.wait(member.tasks)
        await member.loop.close()
        for each in self.members.values():
            each.loop.gone(member.transport.me)
        return member.gossip

    def restored(self, gossip: GossipNode) -> GossipNode:
        """The next process of a node, from its store."""
        again = self.make(gossip.node_id, gossip.replica.incarnation)
        again.state.rows.restore(gossip.state.rows.whole())
        again.resume(gossip.replica.incarnation, vouched=True)
        return again

    async def close(self) -> None:
        """Kill all nodes."""
        for name in list(self.members):
            await self.stop(name)
        for task in self._beside:
            task.cancel()

    def write(self, name: str, write: Callable[[GossipNode], object]) -> None:
        """Let a node write, if it is up, and push it."""
        member = self.members.get(name)
        if member is not None:
            write(member.gossip)
            member.loop.push()

    def agree(self) -> bool:
        """True if all nodes have the same state."""
        return len({member.gossip.state_hash for member in self.members.values()}) == 1

    async def until(self, what: Callable[[], bool], seconds: float) -> float:
        """Wait until something holds; returns the time, or infinity after so many seconds."""
        clock = asyncio.get_running_loop()
        end = clock.time() + seconds
        while not what():
            if clock.time() >= end:
                return float("inf")
            await asyncio.sleep(0.01)
        return clock.time()

    # --- messages --------------------------------------------------------------------------------------------------------

    def way_of(self, sender: str, to: str) -> Way:
        if (sender, to) not in self.ways:
            self.ways[sender, to] = self.way()
        return self.ways[sender, to]

    def _send(self, sender: str, to: str, data: bytes, arrived: Callable[[], object], *, request: bool = False) -> None:
        """Send a message: call `arrived` when it arrives, if it does."""
        way, clock = self.way_of(sender, to), asyncio.get_running_loop()
        self.carried[sender, to] += len(data)
        message = decode_message(data)
        self.log.append((clock.time(), sender, to, type(message).__name__, len(data)))
        if isinstance(message, Part):
            unit = message.unit or len(message.chunk) or 1
            for index in range(message.index, message.index - (-len(message.chunk) // unit)):
                self.slices[sender, to, message.transfer, index] += 1
        leaves = way.free_at = max(clock.time(), way.free_at) + len(data) / way.rate
        if way.down(leaves) or self.chance.random() < way.loss:
            return
        for _ in range(1 + (request and self.chance.random() < way.twice)):
            jitter = self.chance.expovariate(1 / way.jitter) if way.jitter else 0.0
            clock.call_at(leaves + way.delay + jitter, arrived)

    async def request(self, by: TimedTransport, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109
        if peer not in self.listed:
            raise Unreachable(f"{peer.name} is gone")
        clock = asyncio.get_running_loop()
        replies: dict[int, bytes] = {}
        count: list[int] = []
        heard = asyncio.Event()

        def reply(index: int, data: bytes, of: int) -> None:
            count[:] = [of]
            replies[index] = data
            heard.set()

        async def answer() -> None:
            member = self.members.get(peer.name)
            if member is None or member.transport.me != peer:
                return
            data = await member.loop.answer(payload, by.me if self.signed else None)
            if not member.transport.up:
                return
            if not data:  # the end of the answer travels, too
                self._end(peer.name, by.me.name, lambda: reply(-1, b"", 0))
            for index, each in enumerate(data):
                self._send(peer.name, by.me.name, each, partial(reply, index, each, len(data)))

        self._send(by.me.name, peer.name, payload, lambda: self._run(answer()), request=True)
        last = clock.time()
        while True:
            try:
                async with asyncio.timeout_at(last + timeout):
                    await heard.wait()
            except TimeoutError:
                got = [replies[index] for index in sorted(replies) if index >= 0]
                raise Unreachable(f"{peer.name} did not answer within {timeout:g} s", got) from None
            heard.clear()
            last = clock.time()
            if count and all(index in replies for index in range(count[0])):
                return [replies[index] for index in range(count[0])]

    def _end(self, sender: str, to: str, arrived: Callable[[], object]) -> None:
        way, clock = self.way_of(sender, to), asyncio.get_running_loop()
        if not way.down(clock.time()) and self.chance.random() >= way.loss:
            clock.call_at(max(clock.time(), way.free_at) + way.delay, arrived)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)


async def _at_once() -> None:
    """All is on disk."""
