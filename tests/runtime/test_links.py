"""The nodes that a node names to a transport that makes links on its own, and what it tells of its links."""

from argparse import Namespace
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.operations.nodes import ListNodes, show_links, show_nodes, show_status
from constraint_crdt.operations.operation import Lines, Table
from constraint_crdt.transport import ANSWERS_AT_ONCE, LinkKind, MemoryTransport, Sought, Standing

from .fleet import QUICK, agreed, eventually

HERE, THERE = "tcp/127.0.0.1:7447", "tcp/192.0.2.7:7447"


class Linking(MemoryTransport):
    """A transport that is told whom to link to, with links of these kinds."""

    def __init__(self, network: MemoryNetwork, *endpoints: str, kinds: Mapping[str, LinkKind] | None = None) -> None:
        super().__init__(network, ANSWERS_AT_ONCE)
        self.endpoints = endpoints
        self.sought: Mapping[str, Sought] = {}
        self.first: Mapping[str, Sought] | None = None
        self._kinds = kinds or {}

    def seek(self, peers: Mapping[str, Sought]) -> None:
        if self.first is None:
            self.first = peers
        self.sought = peers

    def links(self) -> Mapping[str, LinkKind]:
        return {peer.name: self._kinds.get(peer.name, "direct") for peer in self.peers()}


def node_on(name: str, transport: MemoryTransport, settings: NodeSettings = QUICK) -> Node:
    return Node(name=name, settings=msgspec.structs.replace(settings, name=name), transport=transport, random=Random(name))


async def look(node: Node) -> None:
    await node._runtime.membership.look_at_links()


@pytest.mark.slow
async def test_the_nodes_of_the_state_are_sought_unless_they_ended() -> None:
    network = MemoryNetwork()
    transports = {name: Linking(network, f"tcp/127.0.0.1:{number}") for number, name in enumerate("abc", start=1)}
    async with node_on("a", transports["a"]) as a, node_on("b", transports["b"]) as b:
        async with node_on("c", transports["c"]) as c:
            await eventually(lambda: agreed([a, b, c]))
            await look(a)
            assert {name: each.endpoints for name, each in transports["a"].sought.items()} == {
                "b": ("tcp/127.0.0.1:2",), "c": ("tcp/127.0.0.1:3",)
            }  # fmt: skip
        await a.retire("c", force=True)
        await look(a)
        assert transports["a"].sought.keys() == {"b"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "endpoints"),
    [
        (QUICK, (HERE,)),
        (msgspec.structs.replace(QUICK, insecure=True, listen=("tcp/0.0.0.0:7448",)), (HERE, THERE)),
        (msgspec.structs.replace(QUICK, discover=False, connect=(HERE,)), (HERE,)),
        (msgspec.structs.replace(QUICK, discover=False), None),
    ],
    ids=["on this machine", "anywhere", "configured", "not configured"],
)
async def test_endpoints_are_taken_as_far_as_the_protection_of_links_allows(
    settings: NodeSettings, endpoints: tuple[str, ...] | None
) -> None:
    network = MemoryNetwork()
    seeking = Linking(network, "tcp/127.0.0.1:1")
    async with node_on("a", seeking, settings) as a, node_on("b", Linking(network, THERE, HERE)) as b:
        await eventually(lambda: agreed([a, b]))
        await look(a)
        found = seeking.sought.get("b")
        assert (None if found is None else tuple(sorted(found.endpoints))) == endpoints


@pytest.mark.slow
async def test_a_node_starts_with_the_addresses_in_its_store(tmp_path: Path) -> None:
    network = MemoryNetwork()
    stored = msgspec.structs.replace(QUICK, store=str(tmp_path / "a"))
    async with node_on("b", Linking(network, HERE)) as b, node_on("a", Linking(network), stored) as a:
        await eventually(lambda: agreed([a, b]))
    again = Linking(network)
    async with node_on("a", again, stored):
        assert again.first == {"b": Sought((HERE,))}


@pytest.mark.slow
async def test_a_node_that_others_hear_of_is_sought_as_alive_and_with_its_round_trip() -> None:
    network = MemoryNetwork()
    seeking = Linking(network, HERE)
    others = Linking(network), Linking(network, HERE)
    async with node_on("a", seeking) as a, node_on("b", others[0]) as b, node_on("c", others[1]) as c:
        await eventually(lambda: agreed([a, b, c]))
        await eventually(lambda: all(a._runtime.exchanges.round_trip(peer) for peer in seeking.peers()))
        network.cut(["a"], ["c"])
        await eventually(lambda: len(seeking.peers()) == 1)
        await look(a)
        before = seeking.sought["c"]
        await c.add_constraint("news")
        await eventually(lambda: "news" in a.gossip.state.constraints)
        await look(a)
        assert (before.alive, seeking.sought["c"].alive) == (False, True)
        assert before.round_trip is not None


@pytest.mark.slow
async def test_a_link_that_comes_back_is_used_at_once() -> None:
    network = MemoryNetwork()
    slow = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    async with node_on("a", Linking(network), slow) as a, node_on("b", Linking(network), slow) as b:
        await eventually(lambda: a.status().peers == b.status().peers == 1)
        await eventually(lambda: a._runtime.exchanges.round_trip(next(iter(a._runtime.transport.peers()))))
        network.cut(["a"], ["b"])
        await eventually(lambda: a.status().peers == b.status().peers == 0)
        network.heal()
        await eventually(lambda: a.status().peers == b.status().peers == 1)


async def test_new_addresses_of_a_machine_are_told() -> None:
    network = MemoryNetwork()
    moving = Linking(network, HERE)
    async with node_on("a", moving) as a, node_on("b", Linking(network)) as b:
        await eventually(lambda: agreed([a, b]))
        before = a.gossip.state.rows.clock_entries
        await look(a)
        assert a.gossip.state.rows.clock_entries == before, "the same addresses are not told again"
        moving.endpoints = (THERE,)
        await look(a)
        await eventually(lambda: b.gossip.state.nodes["a"].endpoints == (THERE,))


@pytest.mark.slow
async def test_links_are_shown_by_status_nodes_and_doctor() -> None:
    network = MemoryNetwork()
    kinds: dict[str, LinkKind] = {"b": "side"}
    async with AsyncExitStack() as running:
        transports = {"a": Linking(network, kinds=kinds)} | {name: Linking(network) for name in "bcd"}
        nodes = [await running.enter_async_context(node_on(name, each)) for name, each in transports.items()]
        a = nodes[0]
        await eventually(lambda: agreed(nodes) and a.status().peers == 3)
        network.cut(["a"], ["d"])
        await eventually(lambda: a.status().peers == 2)
        assert a.status().linked == {"direct": 1, "side": 1, "none": 1}
        shown = show_status(a.status())
        assert isinstance(shown, Lines)
        assert dict(shown.values)["linked"] == "1 directly, 1 by a session for the link alone, 1 without a link"
        assert {each.node: each.link for each in a.nodes()} == {"a": "", "b": "side", "c": "direct", "d": "none"}
        table = show_nodes(a.nodes(), ListNodes(), Namespace())
        assert isinstance(table, Table)
        assert table.columns[-1].title == "link"
        assert [row[-1] for row in table.rows] == ["-", "side", "direct", "none"]
        findings = {each.check: each.what for each in a._runtime.diagnosis.look().findings}
        assert "b" in findings["links"]


def test_no_links_are_shown_in_words() -> None:
    assert show_links({}) == "to no other node"
    assert show_links({"router": 3}) == "3 through a router"


class WithRole(Linking):
    """A transport whose node is a client in a fleet that lacks servers."""

    @property
    def standing(self) -> Standing:
        return Standing("client", "60 nodes: a client of 2 routers", ("b",), lacks_servers=True)


@pytest.mark.slow
async def test_the_role_is_told_to_others_and_shown_by_status_and_doctor() -> None:
    network = MemoryNetwork()
    async with AsyncExitStack() as running:
        a = await running.enter_async_context(node_on("a", WithRole(network)))
        b = await running.enter_async_context(node_on("b", Linking(network)))
        await eventually(lambda: agreed([a, b]) and a.status().peers == 1)
        assert [b.gossip.state.nodes[name].role for name in "ab"] == ["client", ""]
        status = a.status()
        assert (status.role, status.role_rule, status.routers) == ("client", "60 nodes: a client of 2 routers", ("b",))
        assert "client (60 nodes: a client of 2 routers), through b" in str(show_status(status))
        assert any("no node has an address" in each.what for each in a.diagnosis.look().findings)
        assert b.status().role == "peer"
        assert not any("no node has an address" in each.what for each in b.diagnosis.look().findings)
