"""Who is reached, directly or through others; who spoke once; and nodes that retire each other across a cut."""

import asyncio
from argparse import Namespace
from typing import NamedTuple

import pytest

from constraint_crdt import GossipNode, MemoryNetwork, Node, exchange
from constraint_crdt.cli.output import print_view
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.insight import evidence
from constraint_crdt.operations.nodes import ListNodes, show_nodes
from constraint_crdt.protocol.messages import encode_message
from tests.runtime.fleet import agreed, eventually, fleet


def told(node: Node, name: str) -> tuple[str, str | None]:
    """How a node shows another one."""
    convergence = next(each for each in node.nodes() if each.node == name).convergence
    return ("-", None) if convergence is None else (convergence.state, convergence.through)


@pytest.mark.long
async def test_a_node_without_a_link_is_shown_as_reachable_through_one_that_hears_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = MemoryNetwork()
    async with fleet("a", "c", "forge", network=network) as nodes:
        a, c, forge = nodes
        await eventually(lambda: agreed(nodes))
        network.cut("a", "c")
        await eventually(lambda: told(a, "c") == ("reachable", "forge"))
        await eventually(lambda: told(c, "a") == ("reachable", "forge"))
        assert told(forge, "a") == ("same", None)
        print_view(show_nodes(a.nodes(), ListNodes(), Namespace()))
        assert "reachable through forge" in capsys.readouterr().out
        [finding] = [each for each in a.diagnosis.look().findings if each.check == "links"]
        assert finding.what == "not heard here, but by others: c through forge"
        network.cut(["forge"], ["c"])
        monkeypatch.setattr(evidence, "REACHABLE_FOR", 0)
        monkeypatch.setattr(evidence.Evidence, "reachable_for", 1)
        await eventually(lambda: told(a, "c") == ("unreachable", None))
        network.heal()
        await eventually(lambda: told(a, "c") == ("same", None))


class Merged(NamedTuple):
    """A merged message."""

    peer: str
    heard: tuple[tuple[str, int], ...] = ()
    diverged: bool = False


class Peers:
    """The live peers of a node."""

    def __init__(self, *names: str) -> None:
        self.live = set(names)
        self.away = frozenset[str]()


def test_what_another_heard_before_contact_was_lost_is_no_evidence() -> None:
    """A node that stopped was heard by all others shortly before. The age of what they heard grows, also if they tell it again."""
    at = 100 * SECOND
    node, peers = GossipNode("a", now=lambda: at, renew=lambda: 2), Peers("b", "c")
    for name in "bc":
        other = GossipNode(name, now=lambda: at, renew=lambda: 2)
        other.add_constraint(name)
        exchange(node, other)
    seen = evidence.Evidence(node, peers, lambda: at, lambda: at)
    seen.begin()
    seen.changed(Merged("c"))
    at += SECOND
    peers.live.discard("c")
    seen.drop_gone()
    assert seen.asks() == ["c"]
    seen.changed(Merged("b", (("c", 1500),)))
    assert seen.through("c") is None
    at += 3 * SECOND
    seen.drop_gone()
    seen.changed(Merged("b", (("c", 4500),)))
    assert seen.through("c") is None
    seen.changed(Merged("b", (("c", 2000),)))
    assert seen.through("c") == "b", "it ran when it could not be reached from here any more"
    assert seen.through("c", 1) is None, "longer ago"
    at += seen.reachable_for
    assert seen.through("c") is None
    peers.live.add("c")
    seen.drop_gone()
    at += SECOND
    peers.live.discard("c")
    seen.drop_gone()
    seen.changed(Merged("b", (("c", 500),)))
    assert seen.through("c") is None, "contact was lost anew"


async def test_a_peer_that_speaks_and_is_not_there_is_no_node_of_the_fleet() -> None:
    async with fleet("a", "b") as nodes:
        a, _ = nodes
        await eventually(lambda: agreed(nodes))
        ghost = GossipNode("ghost", fleet=a.gossip.fleet)
        await a._runtime.exchanges.answer(encode_message(ghost.ping()))
        assert "ghost" in a.gossip.tracker
        assert "ghost" not in a.evidence.names
        assert [each.node for each in a.nodes()] == ["a", "b"]
        assert a.status().converged
        await a.add_constraint("x")
        assert (await a.coverage.wait("x", "all", 10)).met


async def test_what_is_kept_of_a_peer_that_wrote_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as nodes:
        a, _ = nodes
        ghost = GossipNode("ghost", fleet=a.gossip.fleet)
        await a._runtime.exchanges.answer(encode_message(ghost.ping()))
        assert a.evidence.heard_at("ghost") is not None
        a.evidence.drop_gone()
        assert a.evidence.heard_at("ghost") is not None, "it may just be coming"
        monkeypatch.setattr(evidence.Evidence, "reachable_for", -1)
        a.evidence.drop_gone()
        assert a.evidence.heard_at("ghost") is None
        await eventually(lambda: a.evidence.heard_at("b") is not None)


@pytest.mark.slow
async def test_two_that_retire_each_other_across_a_cut_settle_it_when_it_heals() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes:
        a, b, c = nodes
        await eventually(lambda: agreed(nodes))
        network.cut("a", "bc")
        await eventually(lambda: a.status().peers == 0)
        await b.add_constraint("kept")
        await eventually(lambda: "kept" in c.gossip.state.constraints)
        await a.retire("b")
        await b.retire("a")
        network.heal()
        async with asyncio.timeout(10):
            assert (await b.over()).startswith("node b was retired by a")
        for node in (a, c):  # it runs on, as a node of 0.1.0 might
            await eventually(lambda: [each.node for each in node.nodes() if each.live] == ["a", "c"])  # noqa: B023 - awaited here
        await c.remove_constraint("kept")
        await eventually(lambda: a.storage().removed == c.storage().removed == 0)  # nobody waits for it
        await a.add_constraint("kept")
        await b.stop()
        await eventually(lambda: agreed([a, c]))
        assert list(a.gossip.state.retirements) == list(c.gossip.state.retirements) == ["b"]
        assert "kept" in a.gossip.state.constraints
        await a.retire("b", undo=True)
        await eventually(lambda: not list(c.gossip.state.retirements))
        assert a.gossip.retired_by is None, "what b retired meanwhile was settled, and stays so"
