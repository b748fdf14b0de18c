"""`/metrics`: what it tells is what the node knows, in a form that Prometheus and OpenMetrics readers take."""

import asyncio
import functools
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from random import Random

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from constraint_crdt.alerts import KINDS, AlertRule
from constraint_crdt.http import make_app
from constraint_crdt.http.metrics import MOST, OPENMETRICS_TEXT, OTHER, PEER_STATES, TEXT, NodeMetrics
from constraint_crdt.http.server import ApiServer
from constraint_crdt.model import Event, EventKind
from constraint_crdt.runtime.node import Node
from constraint_crdt.transport import MemoryNetwork
from tests.http.conftest import BASE
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

WRONG_VERSIONS = ["application/openmetrics-text; version=x", "text/plain;version=y"]

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(client: httpx.AsyncClient) -> Samples:
    """All samples, without the prefix, by name and labels."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TEXT
    return samples(answer.text)


def samples(text: str) -> Samples:
    return {
        (sample.name.removeprefix("constraint_crdt_"), frozenset(sample.labels.items())): sample.value
        for family in read_text(text)
        for sample in family.samples
    }


def labelled(found: Samples, name: str, label: str) -> dict[str, float]:
    """The values of one metric by one of its labels."""
    return {dict(labels)[label]: value for (each, labels), value in found.items() if each == name}


def plain(found: Samples, name: str) -> float:
    return found[name, frozenset()]


def client_of(node: Node) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=make_app(node)), base_url=BASE)


def metrics_of(node: Node) -> NodeMetrics:
    found: NodeMetrics = make_app(node).state.metrics()
    return found


@functools.cache
def at_rest() -> NodeMetrics:
    """Of a node that was never started: enough where only the header is read."""
    return metrics_of(Node(name="forge", transport=MemoryNetwork().transport()))


def promtool(*arguments: str, text: bytes = b"") -> str:
    """What promtool says on stderr and stdout; it must find nothing wrong."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    done = subprocess.run([found, *arguments], input=text, check=False, capture_output=True, timeout=60)
    said = (done.stderr + done.stdout).decode()
    assert done.returncode == 0, said
    return said


@pytest.mark.processes
async def test_promtool_finds_nothing_to_say_of_a_live_node(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, store=str(tmp_path / "a.db"))
    async with fleet("forge", "anvil", settings=QUICK) as (node, _), client_of(node) as client:
        await node.add_constraint("thermal", when="gpu_temp_c < 85.0")
        await client.get("/v1/status")
        text = (await client.get("/metrics")).content
    assert await asyncio.to_thread(promtool, "check", "metrics", text=text) == ""
    async with Node(name="kept", settings=settings, transport=MemoryNetwork().transport()) as kept:
        assert await asyncio.to_thread(promtool, "check", "metrics", text=metrics_of(kept).text("")[0]) == ""


@pytest.mark.slow
async def test_it_tells_what_the_node_knows(node: Node, client: httpx.AsyncClient) -> None:
    await node.add_constraint("thermal", when="gpu_temp_c < 85.0")
    await node.add_constraint("dark", when="lux > 3.0")
    await node.add_constraint("over", ttl=0.001)
    await node.check({"gpu_temp_c": 91.0})
    await node.record(3, 0)
    await eventually(node.expired)
    found, status = await scrape(client), node.status()
    assert plain(found, "constraints") == status.constraints == 2
    assert plain(found, "constraints_expired") == 1
    assert plain(found, "constraints_violated") == 1
    assert plain(found, "constraints_unknown") == status.unknown_here == 1
    assert status.violated_anywhere == 1
    assert plain(found, "satisfied_total") == status.satisfied == 3
    assert plain(found, "violated_total") == status.violations >= 1
    assert plain(found, "cells") == status.cells
    assert plain(found, "written_bytes_total") == status.written_bytes
    assert plain(found, "writes_refused") == 0
    assert plain(found, "known_nodes") == 1
    assert found["node_info", frozenset({("node", "forge"), ("fleet", status.fleet)})] == 1
    assert found["build_info", frozenset({("version", status.software)})] == 1
    assert labelled(found, "peers", "state") == dict.fromkeys(PEER_STATES, 0)
    assert plain(found, "process_open_fds") > 0


@pytest.mark.slow
async def test_what_is_not_known_is_left_out(client: httpx.AsyncClient) -> None:
    found = await scrape(client)
    assert ("staleness_p50_seconds", frozenset()) not in found, "nobody is there to be stale"
    assert ("store_commit_seconds_count", frozenset()) not in found, "it has no store"


@pytest.mark.slow
async def test_openmetrics_tells_the_same(node: Node) -> None:
    metrics = metrics_of(node)
    text, kind = metrics.text("")
    assert kind == TEXT
    other, kind = metrics.text("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2")
    assert kind == OPENMETRICS_TEXT
    assert other.endswith(b"# EOF\n")
    read: Callable[[str], Iterable[Metric]] = read_openmetrics
    names = {sample.name for family in read(other.decode()) for sample in family.samples}
    assert names == {sample.name for family in read_text(text.decode()) for sample in family.samples}


@pytest.mark.slow
@given(st.text(st.characters(codec="latin-1")) | st.sampled_from(WRONG_VERSIONS))
def test_no_accept_header_makes_it_fail(accept: str) -> None:
    assert at_rest().text(accept)[1] in (TEXT, OPENMETRICS_TEXT)


@pytest.mark.slow
async def test_names_of_constraints_survive_and_are_bounded(node: Node, client: httpx.AsyncClient) -> None:
    nasty = ['a"b', "back\\slash", "line\nend", "carriage\rreturn", "{x=\"1\"}", "\x85\u2028", OTHER, "ß" * 128]  # fmt: skip
    for id_ in nasty:
        await node.add_constraint(id_)
        await node.record(0, 7, constraint=id_)
    told = labelled(await scrape(client), "constraint_violated_total", "constraint")
    assert told == dict.fromkeys(nasty, 7)
    for number in range(MOST):
        await node.add_constraint(f"c{number}")
        await node.record(1, number + 10, constraint=f"c{number}")
    told = labelled(await scrape(client), "constraint_violated_total", "constraint")
    assert len(told) == MOST + 1
    assert set(told) == {f"c{number}" for number in range(MOST)} | {OTHER}


@pytest.mark.slow
async def test_requests_are_counted_by_route_and_never_by_what_was_sent(client: httpx.AsyncClient) -> None:
    for path in ("/v1/status", "/v1/status", "/v1/explain/nobody", "/v1/explain/knows", "/no/such/place", "/v1"):
        await client.get(path)
    await client.request("BREW", "/v1/status")
    await client.get("/v1/status", headers={"host": "evil.example"})
    found = await scrape(client)
    answers = {tuple(dict(labels)[key] for key in ("method", "route", "status")): value
               for (name, labels), value in found.items() if name == "http_requests_total"}  # fmt: skip
    assert answers == {
        ("GET", "/v1/status", "200"): 2,
        ("GET", "/v1/explain/{id}", "404"): 2,
        ("GET", "none", "404"): 2,
        ("GET", "none", "421"): 1,
        ("other", "/v1/status", "405"): 1,
    }


@pytest.mark.slow
async def test_exchanges_and_what_they_carry() -> None:
    async with fleet("forge", "anvil") as nodes, client_of(nodes[0]) as client:
        for number in range(20):
            await nodes[1].add_constraint(f"c{number}", when="gpu_temp_c < 85.0")
        await eventually(lambda: agreed(nodes))

        def in_exchanges() -> int:
            return sum(node.metrics.report().exchange_difference_bytes for node in nodes)

        # The last exchange may have brought agreement before the node that began it has counted it.
        await eventually(lambda: in_exchanges() >= sum(node.status().written_bytes for node in nodes))
        found, written = await scrape(client), nodes[1].status().written_bytes
        assert plain(found, "learned_bytes_total") == written, "each byte that the other wrote was new here, once"
        assert plain(found, "received_bytes_total") > plain(found, "learned_bytes_total") / 5, "messages are packed"
        async with client_of(nodes[1]) as other:
            beside = await scrape(other)
        # The node that begins an exchange counts it: either node may have begun all that carried something.
        carried, difference = (
            plain(found, name) + plain(beside, name) for name in ("exchange_bytes_total", "exchange_difference_bytes_total")
        )
        assert difference >= written
        assert 0.2 < carried / difference < 20
        key = ("exchange_bytes_ratio", frozenset[tuple[str, str]]())
        assert any(each.get(key, 0) > 0.2 for each in (found, beside)), "packed definitions that are alike take half"
        ended = plain(found, "exchanges_completed_total") + plain(found, "exchanges_failed_total")
        assert 0 <= plain(found, "exchanges_begun_total") - ended <= 1, "one may be on its way"
        assert plain(found, "messages_received_total") >= plain(found, "exchanges_completed_total")
        assert plain(found, "exchanges_completed_total") + plain(beside, "exchanges_completed_total") > 0
        assert plain(found, "messages_sent_total") >= plain(found, "exchanges_begun_total")
        assert labelled(found, "peers", "state") == {**dict.fromkeys(PEER_STATES, 0), "same": 1}
        assert plain(found, "staleness_p99_seconds") == 0
        assert plain(found, "live_peers") == 1
        assert plain(found, "agreeing_nodes") == 2


@pytest.mark.slow
async def test_the_links_to_live_peers_are_measured() -> None:
    async with fleet("a", "b") as nodes:
        await eventually(lambda: agreed(nodes))
        a = nodes[0]
        a.gossip.links.of("b").answered(2.0, 10_000, 20)
        a.gossip.links.of("gone").answered(0.1, 10, 10)
        async with client_of(a) as client:
            now = await scrape(client)
        assert set(labelled(now, "link_round_trip_seconds", "peer")) == {"b"}
        assert set(labelled(now, "link_loss_ratio", "peer")) == {"b"}
        assert labelled(now, "link_rate_bytes_per_second", "way")["out"] > 1000


@pytest.mark.slow
async def test_a_peer_that_does_not_answer_is_a_failed_exchange() -> None:
    network = MemoryNetwork()
    async with fleet("forge", "anvil", network=network) as nodes, client_of(nodes[0]) as client:
        await eventually(lambda: agreed(nodes))  # else nothing that the other wrote may be known here, and so not its name
        network.lose(1.0, Random(0))
        before = plain(await scrape(client), "exchanges_failed_total")
        await eventually(lambda: nodes[0].metrics.report().exchanges_failed > before)
        found = await scrape(client)
        assert plain(found, "exchanges_failed_total") > before
        assert plain(found, "requests_repeated_total") > 0
        assert labelled(found, "peers", "state")["unreachable"] == 1


@pytest.mark.slow
async def test_a_message_that_cannot_be_taken_counts(node: Node, client: httpx.AsyncClient) -> None:
    before = plain(await scrape(client), "messages_received_total")
    await node._runtime.exchanges.answer(b"no message at all")
    found = await scrape(client)
    assert plain(found, "messages_refused_total") == 1
    assert plain(found, "messages_received_total") == before + 1


@pytest.mark.slow
async def test_commits_are_timed(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(QUICK, store=str(tmp_path / "a.db"))
    async with Node(name="forge", settings=settings, transport=MemoryNetwork().transport()) as node, client_of(node) as client:
        before = plain(await scrape(client), "store_commit_seconds_count")
        await node.add_constraint("thermal")
        found = await scrape(client)
        assert plain(found, "store_commit_seconds_count") > before
        assert plain(found, "store_commit_seconds_sum") > 0
        assert labelled(found, "store_commit_seconds_bucket", "le")["+Inf"] == plain(found, "store_commit_seconds_count")
        assert plain(found, "store_bytes") > 0
        assert plain(found, "store_waiting") == 0


@pytest.mark.slow
async def test_alarms_and_events_are_counted_by_kind(node: Node, client: httpx.AsyncClient) -> None:
    node.event_stream.publish(Event(kind=EventKind.DUPLICATE_NAME, time=0, node="forge"))
    await node.add_constraint("thermal")
    found = await scrape(client)
    assert labelled(found, "alarms_total", "alarm") == {"divergence": 0, "clock_skew": 0, "duplicate_name": 1}
    kinds = labelled(found, "events_total", "kind")
    assert len(kinds) == len(EventKind)
    assert (kinds["added"], kinds["duplicate_name"], kinds["removed"]) == (1, 1, 0)


@pytest.mark.slow
async def test_who_follows_the_events_is_counted(node: Node) -> None:
    async with ApiServer(node, port=0) as api, httpx.AsyncClient(base_url=api.url) as client:
        assert plain(await scrape(client), "event_readers") == 0
        async with client.stream("GET", "/v1/events"):
            assert plain(await scrape(client), "event_readers") == 1


@pytest.mark.slow
async def test_reading_resets_nothing_and_two_nodes_do_not_meet(node: Node, client: httpx.AsyncClient) -> None:
    await node.add_constraint("thermal")
    await node.record(1, 2, constraint="thermal")
    quiet = {"process_", "event_loop", "http_requests", "uptime"}
    first, second = [
        {key: value for key, value in (await scrape(client)).items() if not key[0].startswith(tuple(quiet))} for _ in range(2)
    ]
    assert first == second
    async with Node(name="other", transport=MemoryNetwork().transport()) as other, client_of(other) as asking:
        assert plain(await scrape(asking), "constraints") == 0
        assert plain(await scrape(client), "constraints") == 1


@pytest.mark.slow
async def test_alerts_that_fire_are_counted_by_kind() -> None:
    rule = AlertRule(name="hot", kind="rate", above=0.0)
    settings = msgspec.structs.replace(QUICK, name="forge", alert=(rule,))
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node, client_of(node) as client:
        await node.add_constraint("thermal")
        await node.record(0, 3, constraint="thermal")
        await node.alerts.step()
        found = await scrape(client)
        assert labelled(found, "alerts_firing", "kind") == {kind: int(kind == "rate") for kind in KINDS}
        assert plain(found, "alert_messages_waiting") == 0
