"""Sites in running nodes: who speaks with whom, what passes between sites, and that no site keeps a node apart."""

import asyncio
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.operations.nodes import ListNodes, show_nodes, show_status
from constraint_crdt.operations.operation import Lines, Table
from constraint_crdt.protocol.sites import SPEAKERS
from tests.conftest import within
from tests.runtime.fleet import QUICK, agreed, eventually


@asynccontextmanager
async def sites(network: MemoryNetwork, **site_of: str) -> AsyncIterator[dict[str, Node]]:
    """Nodes of these names in these sites, which know each other's sites."""
    async with AsyncExitStack() as stack:
        nodes: dict[str, Node] = {}
        for name, site in site_of.items():
            settings = msgspec.structs.replace(QUICK, site=site)
            nodes[name] = Node(name=name, settings=settings, transport=network.transport(), random=Random(len(nodes)))
            await stack.enter_async_context(nodes[name])
        await eventually(lambda: same(nodes) and all(is_told(node, site_of) for node in nodes.values()))
        yield nodes


def all_live(node: Node) -> bool:
    return all(report.live for report in node.nodes())


def same(nodes: dict[str, Node]) -> bool:
    return len({node.gossip.state_hash for node in nodes.values()}) == 1


def is_told(node: Node, site_of: dict[str, str]) -> bool:
    known = node._runtime.exchanges.sites
    return all(known.of(name) == site for name, site in site_of.items())


TWO = {**{f"b{number}": "berlin" for number in range(5)}, **{f"m{number}": "munich" for number in range(5)}}


@pytest.mark.slow
async def test_a_change_reaches_all_sites_and_status_shows_who_speaks() -> None:
    async with sites(MemoryNetwork(), **TWO) as nodes:
        await nodes["b0"].add_constraint("gate", when="x <= 1")
        await eventually(lambda: all("gate" in node.gossip.state.constraints for node in nodes.values()))
        statuses = {name: node.status() for name, node in nodes.items()}
        assert {name: status.site for name, status in statuses.items()} == TWO
        assert {(status.sites, status.away) for status in statuses.values()} == {(2, 5)}
        speaking = {name for name, status in statuses.items() if status.speaks_with}
        assert len(speaking) == 2 * SPEAKERS
        assert not any(node._runtime.evidence.asks() for node in nodes.values()), "nodes of other sites are not missed"
        for name in ("b0", "m0"):
            reports = {each.node: each for each in nodes[name].nodes()}
            assert {each: report.site for each, report in reports.items()} == TWO
            assert {each for each, report in reports.items() if report.speaks_with} == speaking
            await eventually(partial(all_live, nodes[name]))  # those in other sites too
        await eventually(lambda: same(nodes) and all(node.status().converged for node in nodes.values()))


@pytest.mark.long
async def test_few_nodes_send_to_another_site() -> None:
    async with sites(MemoryNetwork(), **TWO) as nodes:
        loops = {name: node._runtime.exchanges for name, node in nodes.items()}
        before = {name: (loop.sent_away, loop.begun) for name, loop in loops.items()}

        def have_spoken() -> bool:
            for loop in loops.values():
                loop.stir()
            return min(loops[name].begun - begun for name, (_, begun) in before.items()) >= 30

        await eventually(have_spoken)
        speaking = {name for name, node in nodes.items() if node.status().speaks_with}
        sent = {name: loop.sent_away - before[name][0] for name, loop in loops.items()}
        assert all(sent[name] for name in speaking)
        assert sum(sent[name] for name in speaking) >= 0.6 * sum(sent.values())


@pytest.mark.slow
async def test_sites_are_shown_and_their_bytes_are_counted() -> None:
    async with sites(MemoryNetwork(), b0="berlin", b1="berlin", m0="munich", m1="munich", x="") as nodes:
        await eventually(lambda: nodes["b0"].status().away == 3)
        status = nodes["b0"].status()
        shown = show_status(status)
        assert isinstance(shown, Lines)
        assert dict(shown.values)["site"] == "berlin, speaks with (no site), munich; 3 nodes in other sites"
        table = show_nodes(nodes["b0"].nodes(), ListNodes(), Namespace())
        assert isinstance(table, Table)
        place = [column.title for column in table.columns].index("site")
        told = {row[0]: row[place] for row in table.rows}
        assert told["b1"] == "berlin, speaks with (no site), munich"
        assert told["x"] == "(no site), speaks with berlin"
        await eventually(lambda: nodes["b0"].metrics.report().sent_away_bytes and nodes["b0"].metrics.report().received_away_bytes)
        figures = nodes["b0"].metrics.report()
        assert figures.sent_away_bytes <= nodes["b0"].status().bytes_sent
        assert figures.received_away_bytes <= nodes["b0"].status().bytes_received


@pytest.mark.slow
async def test_a_fleet_without_sites_shows_none() -> None:
    async with sites(MemoryNetwork(), a="", b="") as nodes:
        shown, table = (
            show_status(nodes["a"].status()),
            show_nodes(nodes["a"].nodes(), ListNodes(), Namespace()),
        )
        assert isinstance(shown, Lines)
        assert isinstance(table, Table)
        assert "site" not in [*dict(shown.values), *(column.title for column in table.columns)]
        assert nodes["a"].metrics.report().sent_away_bytes == 0


@pytest.mark.long
async def test_a_blank_node_of_a_new_site_joins_and_is_spoken_with() -> None:
    network = MemoryNetwork()
    async with sites(network, **TWO) as nodes:
        settings = msgspec.structs.replace(QUICK, site="paris")
        async with Node(name="p", settings=settings, transport=network.transport(), random=Random(99)) as blank:
            nodes["p"] = blank
            await eventually(lambda: all(is_told(node, {**TWO, "p": "paris"}) for node in nodes.values()))
            assert blank.status().speaks_with == ("berlin", "munich")
            await blank.add_constraint("tower")
            await eventually(lambda: all("tower" in node.gossip.state.constraints for node in nodes.values()))


@pytest.mark.slow
async def test_a_site_whose_speakers_end_has_others_at_once() -> None:
    async with sites(MemoryNetwork(), **TWO) as nodes:
        for name in [name for name, node in nodes.items() if node.status().speaks_with and name.startswith("b")]:
            await nodes.pop(name).stop()
        began = asyncio.get_running_loop().time()
        await next(iter(nodes.values())).add_constraint("gate")
        await eventually(lambda: all("gate" in node.gossip.state.constraints for node in nodes.values()))
        assert asyncio.get_running_loop().time() - began < within(5.0)
        assert sum(bool(node.status().speaks_with) for name, node in nodes.items() if name.startswith("b")) == SPEAKERS


@pytest.mark.slow
async def test_nodes_without_a_site_are_one_and_speak_with_the_others() -> None:
    async with sites(MemoryNetwork(), a="", b="", c="", m="munich") as nodes:
        await nodes["m"].add_constraint("gate")
        await eventually(lambda: all("gate" in node.gossip.state.constraints for node in nodes.values()))
        assert nodes["m"].status().speaks_with == ("",)


@pytest.mark.slow
async def test_the_label_site_is_the_site() -> None:
    network = MemoryNetwork()
    async with (
        Node(name="a", settings=QUICK, labels={"site": "berlin"}, transport=network.transport()) as a,
        Node(name="b", settings=msgspec.structs.replace(QUICK, site="berlin"), transport=network.transport()) as b,
    ):
        await eventually(lambda: agreed([a, b]) and is_told(a, {"b": "berlin"}) and is_told(b, {"a": "berlin"}))
        assert {each.node: each.labels for each in a.nodes()} == {"a": {"site": "berlin"}, "b": {"site": "berlin"}}
        assert a.status().sites == 1


@pytest.mark.slow
async def test_a_wait_for_all_asks_the_other_sites_too() -> None:
    async with sites(MemoryNetwork(), **TWO) as nodes:
        await nodes["b0"].add_constraint("gate")
        report = await nodes["b0"].coverage.wait("gate", "all", 5.0)
        assert (report.met, report.have) == (True, len(TWO))


@pytest.mark.long
async def test_evidence_of_other_sites_does_not_hold_up_agreement() -> None:
    """A stand-in of another site is heard once in a while: it is no live peer of which nothing is heard for long."""
    async with sites(MemoryNetwork(), **TWO) as nodes:
        loops = [node._runtime.exchanges for node in nodes.values()]
        begun = [loop.begun for loop in loops]

        def have_spoken() -> bool:
            for loop in loops:
                loop.stir()
            return all(loop.begun - before >= 60 for loop, before in zip(loops, begun, strict=True))

        await eventually(have_spoken)
        await nodes["m0"].add_constraint("gate")
        await eventually(lambda: all(node.status().converged for node in nodes.values()) and same(nodes))
        assert max(node.status().peers for node in nodes.values()) <= 4 + SPEAKERS
