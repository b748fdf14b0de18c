"""A router with a certificate of the fleet that lies about what it carries between two clients.

It ends the links, so it sees all messages in clear. It can hold them back. It can neither change, invent nor repeat one: each has a
tag of its sender (`identity.credentials`), and each run of cells a signature of its writer.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest
import zenoh

from constraint_crdt import GossipNode, Node
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.transport.zenoh_startup import alive_keys, node_key, peer_of
from tests.runtime.fleet import agreed, eventually

from .fleets import FLEET, Fleet, Stranger
from .test_links import tls_files

pytestmark = pytest.mark.slow

Message = tuple[bytes, bytes]
"""A payload and its attachment."""


class Lie:
    """What a router does to the messages that it carries. This one does nothing."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.seen: list[Message] = []
        self.told = 0
        """Messages that were not passed on as they came."""

    def requests(self, message: Message) -> list[Message]:
        """What goes on in place of a request."""
        return [message]

    def replies(self, messages: list[Message]) -> list[Message]:
        """What goes back in place of the replies to a request."""
        return messages


class Altered(Lie):
    """A bit of the content, of the tag or of the header of every second message is another."""

    def requests(self, message: Message) -> list[Message]:
        return [self._changed(message)]

    def replies(self, messages: list[Message]) -> list[Message]:
        return [self._changed(message) for message in messages]

    def _changed(self, message: Message) -> Message:
        if self.random.random() < 0.5:
            return message
        self.told += 1
        parts = list(message)
        which = self.random.randrange(2) if parts[1] else 0
        content = bytearray(parts[which])
        if not content:
            return message
        content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        parts[which] = bytes(content)
        return parts[0], parts[1]


class HeldBack(Lie):
    """Every second request and every third list of replies is lost."""

    def requests(self, message: Message) -> list[Message]:
        lost = self.random.random() < 0.5
        self.told += lost
        return [] if lost else [message]

    def replies(self, messages: list[Message]) -> list[Message]:
        lost = self.random.random() < 0.33
        self.told += lost
        return [] if lost else messages


class Reordered(Lie):
    """A request goes on after later ones, by whichever client, and replies go back in another order."""

    def requests(self, message: Message) -> list[Message]:
        self.seen.append(message)
        if len(self.seen) < 4:
            self.told += 1
            return []
        self.random.shuffle(self.seen)
        return [self.seen.pop() for _ in range(2)]

    def replies(self, messages: list[Message]) -> list[Message]:
        return self.random.sample(messages, len(messages))


class Doubled(Lie):
    """Each request goes on twice, followed by one of long ago; each reply goes back twice."""

    def requests(self, message: Message) -> list[Message]:
        self.seen.append(message)
        self.told += 2
        return [message, message, self.random.choice(self.seen)]

    def replies(self, messages: list[Message]) -> list[Message]:
        return [message for message in messages for _ in range(2)]


class Invented(Lie):
    """Messages in the name of the clients, with content of the router's own, in place of and beside the true ones."""

    def requests(self, message: Message) -> list[Message]:
        self.told += 1
        return [message, self._forged(message), self._forged(message)]

    def replies(self, messages: list[Message]) -> list[Message]:
        return [self._forged(message) for message in messages] if self.random.random() < 0.5 else messages

    def _forged(self, message: Message) -> Message:
        forger = GossipNode(self.random.choice(("forge", "anvil")), fleet=FLEET, incarnation=self.random.randrange(1, 10**12))
        forger.add_constraint("forged", when="x < 0")
        forger.record(1_000_000, 1_000_000)
        content = encode_message(self.random.choice((forger.ping(), forger.begin("anvil"), forger.delta_since(forger.clock))))
        attachment = self.random.choice((b"", message[1], self.random.randbytes(len(message[1]))))
        return content, attachment


LIES: list[type[Lie]] = [Altered, HeldBack, Reordered, Doubled, Invented]


class Router:
    """Two Zenoh routers with certificates, and a program in between that shows each client the other one."""

    def __init__(self, plant: Fleet, lie: Lie) -> None:
        self.lie = lie
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(16)
        self._shown: tuple[dict[str, list[object]], dict[str, list[object]]] = ({}, {})
        self._sides: list[Stranger] = []
        for name in ("left", "right"):
            identity = plant.identity(name, role="observer")
            self._sides.append(
                Stranger("tls/127.0.0.1:1", identity=identity, tls=tls_files(plant, plant.folder / name), role="router")
            )
        self._held = [
            side.raw.liveliness().declare_subscriber(alive_keys(FLEET, proven=True), self._watch(number), history=True)
            for number, side in enumerate(self._sides)
        ]

    @property
    def endpoints(self) -> list[str]:
        return [side.endpoint for side in self._sides]

    def close(self) -> None:
        self._workers.shutdown(cancel_futures=True)
        for side in self._sides:
            side.close()

    def _watch(self, here: int) -> Callable[[zenoh.Sample], None]:
        def told(sample: zenoh.Sample) -> None:
            self._workers.submit(self._show, here, str(sample.key_expr), sample.kind == zenoh.SampleKind.PUT)

        return told

    def _show(self, here: int, token: str, up: bool) -> None:
        """Show a session of one side on the other side, or take it away."""
        peer = peer_of(token)
        with self._lock:
            if peer is None or token in self._shown[here]:
                return
            there = self._sides[1 - here].raw
            shown = self._shown[1 - here]
            if up and token not in shown:
                key = node_key(FLEET, peer, proven=True)
                shown[token] = [
                    there.declare_queryable(key, lambda query: self._workers.submit(self._carry, here, query)),
                    there.liveliness().declare_token(token),
                ]
            elif not up:
                for each in shown.pop(token, []):
                    each.undeclare()  # type: ignore[attr-defined]  # a queryable and a token

    def _carry(self, to: int, query: zenoh.Query) -> None:
        """Carry a request to a side, and its replies back."""
        payload = bytes(query.payload) if query.payload is not None else b""
        attachment = bytes(query.attachment) if query.attachment is not None else b""
        with self._lock:
            lie, requests = self.lie, self.lie.requests((payload, attachment))
        replies: list[Message] = []
        for content, header in requests:
            replies += self._ask(to, str(query.key_expr), content, header)
        with self._lock:
            replies = lie.replies(replies)
        for content, header in replies:
            query.reply(query.key_expr, content, attachment=header or None)
        query.drop()  # type: ignore[no-untyped-call]  # the stub leaves the return type out

    def _ask(self, to: int, key: str, payload: bytes, attachment: bytes) -> Iterator[Message]:
        answers = self._sides[to].raw.get(
            key, payload=payload, attachment=attachment or None, timeout=1.0, consolidation=zenoh.ConsolidationMode.NONE
        )
        for reply in answers:
            if reply.ok is not None:
                yield bytes(reply.ok.payload), bytes(reply.ok.attachment) if reply.ok.attachment is not None else b""


@asynccontextmanager
async def clients(tmp_path: Path, lie: Lie) -> AsyncIterator[tuple[Router, Node, Node]]:
    """Two clients with a router between them."""
    plant = Fleet(tmp_path / "plant")
    router = await asyncio.to_thread(Router, plant, Lie(Random(1)))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, router.close)
        nodes: list[Node] = []
        for name, endpoint in zip(("forge", "anvil"), router.endpoints, strict=True):
            identity = str(plant.certify(name))
            settings = NodeSettings(
                name=name, fleet=FLEET, identity=identity, role="client", connect=(endpoint,), gossip_every=0.05
            )
            settings = msgspec.structs.replace(settings, request_timeout=0.5, count_every=0.2)
            nodes.append(await stack.enter_async_context(Node(settings=settings)))
        await eventually(lambda: all(node.status().peers == 1 for node in nodes))
        router.lie = lie
        yield router, nodes[0], nodes[1]


def nothing_forged(node: Node, written: dict[str, str], counted: int) -> bool:
    """True if a node holds nothing but what the two nodes wrote, in rows of their own lives."""
    definitions = {report.id: report.when for report in node.constraints()}
    lives = {replica.node_id for replica in node.gossip.state.rows.clock_entries}
    known = all(written.get(id_) == when for id_, when in definitions.items())
    return known and lives <= {"forge", "anvil"} and node.status().satisfied <= counted and not node.status().violations


@pytest.mark.long(by_day=["Reordered"])
@pytest.mark.parametrize("kind", LIES)
async def test_a_router_that_lies_changes_nothing_and_agreement_comes(tmp_path: Path, kind: type[Lie]) -> None:
    lie = kind(Random(7))
    async with clients(tmp_path, lie) as (router, forge, anvil):
        written: dict[str, str] = {}
        counted = 0
        for number in range(30):
            node = (forge, anvil)[number % 2]
            written[f"c{number}"] = f"x < {number}"
            await node.add_constraint(f"c{number}", when=f"x < {number}")
            await node.record(satisfied=1)
            counted += 1
            await asyncio.sleep(0.02)  # the load of a program: changes come while others are on their way
            assert nothing_forged(forge, written, counted)
            assert nothing_forged(anvil, written, counted)
        await eventually(lambda: lie.told >= 4)
        router.lie = Lie(Random(2))
        await eventually(lambda: agreed([forge, anvil]), 20)
        for node in (forge, anvil):
            assert nothing_forged(node, written, counted)
            assert node.constraint_ids() == sorted(written)
            assert node.status().satisfied == counted
        dropped = forge._runtime.transport.refused + anvil._runtime.transport.refused
        if kind is HeldBack:
            assert dropped == 0
        elif kind is not Reordered:  # a reply that comes after its request has ended is not even looked at
            assert dropped > 0, "the lie is seen for what it is"


async def test_an_honest_router_of_this_harness_carries_everything(tmp_path: Path) -> None:
    """So the lies are refused for what they are."""
    async with clients(tmp_path, Lie(Random(3))) as (_, forge, anvil):
        await forge.add_constraint("speed")
        await eventually(lambda: agreed([forge, anvil]))
        assert anvil.constraint_ids() == ["speed"]
        assert forge._runtime.transport.refused == anvil._runtime.transport.refused == 0
