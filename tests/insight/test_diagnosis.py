"""What is found wrong with a node, each by bringing it about."""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.identity import Identity, moment
from constraint_crdt.insight import diagnosis as diagnosing
from constraint_crdt.insight.diagnosis import check_certificates, check_disk, check_seeds
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.operations.fleet import InvitationReport, show_invitation
from constraint_crdt.operations.nodes import ListNodes, check_status, show_nodes, show_worst
from constraint_crdt.operations.operation import Table
from constraint_crdt.operations.service import Finding, worst_of
from constraint_crdt.runtime import answers, evaluation, persistence
from constraint_crdt.runtime.lifecycle import MissedNodes
from constraint_crdt.transport import zenoh_session
from constraint_crdt.types import VariableKind
from constraint_crdt.types.counters import make_counts
from tests.runtime.fleet import QUICK, agreed, eventually, fleet
from tests.security.fleets import Fleet


def found(node: Node) -> dict[str, Finding]:
    findings = node.diagnosis.look().findings
    assert len({each.check for each in findings}) == len(findings)
    assert all(each.advice for each in findings if each.level != "ok"), "whatever is wrong, it is said what to do"
    return {each.check: each for each in findings}


async def test_a_fleet_that_is_well_has_nothing_but_ok() -> None:
    async with fleet("a", "b") as nodes:
        await eventually(lambda: agreed(nodes))
        report = nodes[0].diagnosis.look()
        assert (report.worst, report.node) == ("ok", "a")
        assert found(nodes[0])["peers"].what == "live peers: 1 of 1 known"
        clock = found(nodes[0])["clock"].what
        assert re.fullmatch(r"b is [+-]\d\.\d\d s from this node's clock, where 10 s are tolerated", clock), "the reading"


@pytest.mark.slow
async def test_a_seed_of_another_fleet_is_told_by_the_names_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zenoh_session, "FOREIGN_AFTER", 0.1)
    settings = msgspec.structs.replace(QUICK, listen=("tcp/127.0.0.1:0",))
    async with (
        Node(name="forge", fleet="works", settings=settings) as forge,
        Node(name="anvil", fleet="work", settings=settings, connect=forge.status().endpoints[:1]) as anvil,
    ):
        await eventually(lambda: "fleet" in found(anvil))
        told = found(anvil)["fleet"]
        assert (told.level, told.what) == (
            "fail",
            "at the other end of its links this node of fleet work finds forge of fleet works",
        )
        assert "--fleet" in told.advice


@pytest.mark.slow
async def test_a_fault_of_a_node_is_told_by_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as nodes:
        a, b = nodes
        await eventually(lambda: agreed(nodes))
        assert "others" not in found(a)
        b._runtime.persistence._health_changed("No space left on device")
        await eventually(lambda: "others" in found(a))
        assert found(a)["others"].what == "live nodes tell of a fault of theirs: b (writes are refused: No space left on device)"
        (told,) = a.status().concerns
        assert (told.kind, told.what) == ("trouble", "b tells: writes are refused: No space left on device")
        assert check_status(a.status())[0] == 1
        assert {each.node: each.trouble for each in a.nodes()} == {"a": "", "b": "writes are refused: No space left on device"}
        shown = show_nodes(a.nodes(), ListNodes(), Namespace())
        assert isinstance(shown, Table)
        assert shown.columns[-1].title == "trouble"
        b._runtime.persistence._health_changed(None)
        often = "writes are refused now and then: No space left on device"
        await eventually(lambda: [each.what for each in a.status().concerns] == [f"b tells: {often}"])
        assert (found(b)["store"].level, found(b)["store"].what) == ("fail", often), "a full disk takes some writes again"
        assert [each.what for each in b.status().concerns] == [often]
        monkeypatch.setattr(persistence, "LATELY", -1.0)
        await eventually(lambda: "others" not in found(a))
        assert not a.status().concerns


@pytest.mark.slow
async def test_a_status_names_what_no_node_can_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: `1 unknown on this node`, and neither which nor why."""
    monkeypatch.setattr(evaluation, "VARIABLES_NONE", 0)
    monkeypatch.setattr(evaluation, "VARIABLES_EVERY", 0)
    async with fleet("a", "b") as (a, b):
        await b.measure({"temp": 1.0})
        await a.add_constraint("brake", when="presure_kpa > 400.0", severity="critical")
        await a.add_constraint("warm", when="temp < 85.0")
        await eventually(lambda: a.status().concerns)
        (told,) = a.status().concerns
        assert (told.kind, told.command) == ("undecidable", "explain brake")
        assert told.what == "brake (critical) on every node: no node measures presure_kpa"
        assert check_status(a.status())[0] == 1
        await b.measure({"presure_kpa": 500.0})
        await eventually(lambda: not a.status().concerns)


@pytest.mark.long
async def test_a_status_names_what_flaps_on_another_node() -> None:
    async with fleet("a", "b") as nodes:
        a, b = nodes
        await a.add_constraint("load", when="x < 1.0")
        await eventually(lambda: agreed(nodes))
        for turn in range(1, 4):
            await b.measure({"x": 2.0})
            await eventually(lambda: "load" in a.gossip.state.verdicts.violated)
            assert [each.kind for each in a.status().concerns] == (["flapping"] if turn == 3 else [])
            await b.measure({"x": 0.0})
            await eventually(lambda: "load" not in a.gossip.state.verdicts.violated)
        (told,) = a.status().concerns
        assert (told.what, told.command) == (
            "load on b: violated 3 times in 10 min; `for` and `clear_when` calm it",
            "explain load",
        )


async def test_a_status_tells_the_last_change_of_a_constraint_alone() -> None:
    """The defect: a constraint that was added again was told of as removed, with `revert`, which would end it."""
    async with fleet("a") as (a,):
        await a.add_constraint("x")
        await a.remove_constraint("x")
        await eventually(lambda: [each.what[:13] for each in a.status().concerns] == ["x was removed"])
        await a.add_constraint("x", when="y < 1")
        assert not [each for each in a.status().concerns if each.kind == "changed"]
        await a.edit_constraint("x", when="y < 2")
        await a.edit_constraint("x", when="y < 3")
        (told,) = [each for each in a.status().concerns if each.kind == "changed"]
        assert told.what.endswith("when: y < 2 -> y < 3")
        await a.set_parameter("limit", 1.5)
        await a.set_parameter("limit", 150)
        await a.budgets.define("dock", 3)
        await a.budgets.define("dock", 4)
        await eventually(lambda: len(a.status().concerns) == 3)
        assert [(each.what.rpartition(": ")[2], each.command) for each in a.status().concerns] == [
            ("limit 3 -> 4", "budget"), ("limit = 150.0, before 1.5", "params"), ("y < 2 -> y < 3", "revert x"),
        ]  # fmt: skip


@pytest.mark.slow
async def test_a_violation_of_a_node_that_is_gone_is_told_as_last_heard() -> None:
    """The defect: the violation of a node that was switched off was told as one of now."""
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes:
        a, b, c = nodes
        await a.add_constraint("x", when="y < 1", severity="critical")
        await eventually(lambda: agreed(nodes))
        await b.measure({"y": 2})
        await eventually(lambda: a.status().worst)
        network.cut(["b"], ["a", "c"])
        await eventually(lambda: not a.status().worst[0].live)
        (told,) = a.status().worst
        assert show_worst(told, told.since / 1e9) == "x (critical) on b since 0 s ago, as last heard: it is not live"  # type: ignore[operator]
        assert check_status(a.status())[0] == 2
        await c.measure({"y": 3})
        await eventually(lambda: a.status().worst[0].nodes == 2)
        assert (a.status().worst[0].node, a.status().worst[0].live) == ("c", True), "the one that lasts now"


@pytest.mark.long
async def test_a_violation_whose_sensor_died_is_told_as_such_everywhere() -> None:
    """The defect: the others went on to tell the value at which it began, for ever."""
    async with fleet("a", "b") as nodes:
        a, b = nodes
        await a.add_constraint("x", when="y < 1", severity="critical", max_age=0.3)
        await eventually(lambda: agreed(nodes))
        await b.measure({"y": 2})
        await eventually(lambda: [each.reason for each in a.status().worst] == [""])
        await eventually(lambda: [each.reason for each in a.status().worst] != [""])
        (told,) = a.status().worst
        assert told.reason.startswith("y is older than 0.3 s")
        assert "(y is older than 0.3 s)" in show_worst(told, time.time())
        await b.measure({"y": 3})
        await eventually(lambda: [each.reason for each in a.status().worst] == [""])
        await b.measure({"y": 0})
        await eventually(lambda: not a.status().worst)


async def test_a_status_names_a_seed_that_was_never_reached() -> None:
    """The defect: `there is no other node`, and OK for a monitor."""
    settings = msgspec.structs.replace(QUICK, connect=("tcp/127.0.0.1:1",))
    async with Node(name="a", settings=settings, transport=MemoryNetwork().transport()) as a:
        (told,) = a.status().concerns
        assert (told.kind, told.what, told.command) == ("fault", "this node sees no other one", "doctor")
        assert check_status(a.status()) == (1, ["fault: this node sees no other one"])


async def test_a_status_names_a_probe_without_values_and_alerts_that_are_not_taken() -> None:
    class Broken:
        name = "lidar"

        def read(self) -> dict[str, object]:
            raise OSError("no such device")

    async with Node(name="a", settings=QUICK, transport=MemoryNetwork().transport(), probes=[Broken()]) as a:
        await eventually(lambda: a.status().concerns)
        assert [each.what for each in a.status().concerns] == ["no values come from lidar (no such device)"]
        a._runtime.teller.webhooks._failing["https://ops.example/…"] = "Connection refused", time.monotonic()
        assert found(a)["alerts"].what == "alerts are not taken by https://ops.example/… (Connection refused); 0 messages wait"
        assert len(a.status().concerns) == 2


@pytest.mark.slow
async def test_a_slow_link_is_told_as_such() -> None:
    async with fleet("a", "b") as nodes:
        await eventually(lambda: agreed(nodes))
        a = nodes[0]
        assert "links" not in found(a)
        link = a.gossip.links.of("b")
        for _ in range(20):
            link.answered(3.0, 60, 60)
        link.answered(7.0, 4800, 60)
        told = found(a)["links"]
        assert told.level == "warn"
        assert "b (round trip " in told.what
        assert "1.2 kB/s out" in told.what
        assert "firewall" not in told.advice
        (slow,) = a.status().slow_links
        assert (slow.node, slow.slow, slow.rate_in) == ("b", True, None)
        assert a.nodes(["b"])[0].measured is not None
        assert a.nodes(["a"])[0].measured is None
        table = show_nodes(a.nodes(), ListNodes(), Namespace())
        assert isinstance(table, Table)
        assert {"round trip", "rate"} <= {column.title for column in table.columns}


async def test_a_peer_that_does_not_answer_in_time_is_told_to_be_slow_and_not_behind_a_firewall() -> None:
    async with Node(
        name="a", settings=msgspec.structs.replace(QUICK, connect=("tcp/127.0.0.1:1",)), transport=MemoryNetwork().transport()
    ) as a:
        assert "firewall" in found(a)["peers"].advice
        a.gossip.links.of("far").unanswered()
        told = found(a)["peers"]
        assert told.level == "fail"
        assert told.advice.startswith("far can be reached")
        assert "firewall" not in told.advice


async def test_a_namesake_is_reported() -> None:
    network = MemoryNetwork()
    async with Node(name="twin", settings=QUICK, transport=network.transport()) as first:
        assert found(first)["name"].level == "ok"
        async with Node(name="twin", settings=QUICK, transport=network.transport()):
            await eventually(lambda: found(first)["name"].level == "fail")
            assert "twin" in found(first)["name"].what


@pytest.mark.slow
async def test_clocks_that_differ_are_reported_and_whose_it_is() -> None:
    import time

    network = MemoryNetwork()
    late = Node(name="late", settings=QUICK, transport=network.transport(), now=lambda: time.time_ns() - 60 * 10**9)
    async with fleet("a", "b", "c", network=network) as (a, _, _), late:
        await eventually(lambda: found(a)["clock"].level == "warn")
        assert "late -6" in found(a)["clock"].what
        await eventually(lambda: found(late)["clock"].level == "fail")


@pytest.mark.slow
async def test_nodes_that_are_gone_are_reported_and_being_alone_is() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes:
        a = nodes[0]
        await eventually(lambda: agreed(nodes))
        network.cut(["a", "b"], ["c"])
        await eventually(lambda: "silent" in found(a))
        assert found(a)["silent"].what == "not live: c"
        network.heal()
        network.cut(["a"], ["b", "c"])
        await eventually(lambda: found(a)["peers"].level == "fail")


@pytest.mark.slow
async def test_a_revoked_node_is_not_to_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: right after a stolen machine was revoked, `doctor` advised to start it again."""
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes:
        a = nodes[0]
        await eventually(lambda: agreed(nodes))
        network.cut(["a", "b"], ["c"])
        await eventually(lambda: "silent" in found(a))
        monkeypatch.setattr(type(a.gossip), "revoked_nodes", {"c"})
        assert "silent" not in found(a)
        assert found(a)["peers"].what == "live peers: 1 of 1 known"
        shown = show_nodes(a.nodes(), ListNodes(), Namespace())
        assert isinstance(shown, Table)
        assert {row[0]: (row[1], row[6]) for row in shown.rows}["c"] == ("revoked", "-")


def test_a_revoked_node_is_not_missed() -> None:
    """The defect: the session was reopened again and again for rows of a revoked node that others told of."""
    nodes, rows = MissedNodes("a"), Rows()

    def write() -> None:
        for name in "bc":
            rows.write(Replica(name, 1), make_counts("x", 1, 0))

    assert nodes.look(rows, frozenset()) == set()
    for _ in range(9):
        write()
        writing = nodes.look(rows, frozenset())
    assert writing == {"b", "c"}
    assert nodes.missed == ["b", "c"]
    write()
    assert nodes.look(rows, frozenset(), {"c"}) == {"b"}
    assert nodes.missed == ["b"]


@pytest.mark.slow
async def test_trouble_and_damage_and_refusals_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as (a, _):
        a.evidence.heard("b", diverged=True)
        assert found(a)["agreement"].level == "fail"
        await eventually(lambda: found(a)["agreement"].level == "ok")
        a.gossip._exchange.alarms = 1
        assert found(a)["agreement"].level == "warn"
        monkeypatch.setattr(type(a._runtime.persistence), "trouble", "the disk is full")
        assert found(a)["store"].what == "writes are refused: the disk is full"
        a._runtime.exchanges._refuse("c speaks wire version 2")
        assert found(a)["messages"].level == "warn"
        assert found(a)["messages"].what == "1 message was refused since the start; the last: c speaks wire version 2"
        assert "a message was refused: c speaks wire version 2" in [each.what for each in a.status().concerns]


async def test_a_status_names_a_live_peer_that_is_behind_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as nodes:
        a, _ = nodes
        await eventually(lambda: agreed(nodes))
        monkeypatch.setattr(answers, "BEHIND_FOR", -1.0)
        (told,) = a.status().concerns
        assert (told.kind, told.command) == ("behind", "convergence")
        assert told.what == "no evidence that the changes known here have arrived: b for 0 s"
        monkeypatch.setattr(answers, "BEHIND_FOR", 60.0)
        assert not a.status().concerns, "no flicker of changes on their way"


async def test_a_retired_node_is_told() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", network=network) as (a, b):
        await eventually(lambda: agreed([a, b]))
        await a.retire("b", force=True)
        await eventually(lambda: "retired" in found(b))
        assert found(b)["retired"].level == "fail"


@pytest.mark.slow
async def test_a_node_that_other_machines_cannot_reach_is_reported() -> None:
    """The defect: a node with a fleet and without --listen stayed alone, and `doctor` did not say why."""

    def node(fleet: str = "plant", *endpoints: str, **settings: tuple[str, ...]) -> Node:
        changed = msgspec.structs.replace(QUICK, name="a", fleet=fleet, insecure=True, **settings)
        transport = MemoryNetwork().transport()
        transport.endpoints = endpoints
        return Node(settings=changed, transport=transport)

    alone = "this node listens on this machine only, and connects to no other node"
    assert (found(node())["listen"].level, found(node())["listen"].what) == ("ok", alone), "it may be a trial on one machine"
    certified = node()
    certified.diagnosis._folder = "plant/a"
    assert (found(certified)["listen"].level, found(certified)["listen"].what) == ("warn", alone)
    assert "listen" not in found(node("default")), "the first node of a trial"
    assert "listen" not in found(node(connect=("tcp/10.0.0.1:7447",)))
    assert "listen" not in found(node("plant", "tcp/10.0.0.2:7447", listen=("tcp/0.0.0.0:7447",)))
    without_route = found(node("plant", "tls/127.0.0.1:7447", listen=("tcp/0.0.0.0:7447",)))["listen"]
    assert without_route.what == "it listens at tcp/0.0.0.0:7447, and found no address of this machine but 127.0.0.1"
    assert "--listen tcp/ADDRESS:7447" in without_route.advice
    async with fleet("a", "b", settings=msgspec.structs.replace(QUICK, fleet="plant")) as nodes:
        assert "listen" not in found(nodes[0]), "it has peers on this machine"


def test_an_invitation_says_that_other_machines_do_not_reach_its_address() -> None:
    made = InvitationReport(id="ab", role="member", name="lathe", uses=1, used=(), ends=0, token="TOKEN", note="no address")
    assert show_invitation(made, Namespace()) == [
        "note: no address",
        "invitation ab: one machine called lathe may join as member until 1970-01-01 00:00 UTC; on that machine, run",
        "",
        "constraint-crdt node --join TOKEN",
    ]


@pytest.mark.slow
async def test_seeds_are_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = f"tcp/127.0.0.1:{listening.getsockname()[1]}"
        assert check_seeds([there]).level == "ok"
        with socket.create_server(("127.0.0.1", 0)) as closed:
            gone = f"tcp/127.0.0.1:{closed.getsockname()[1]}"
        some = check_seeds([there, gone])
        assert (some.level, gone in some.what, there in some.what) == ("warn", True, False)
        assert check_seeds([gone, "tcp/nonsense", "tcp/127.0.0.1:99999999"]).level == "fail"
        assert check_seeds(["udp/127.0.0.1:1"]).level == "ok"
        assert check_seeds([]).level == "ok"
        settings = msgspec.structs.replace(QUICK, name="a", connect=(there,))
        async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
            findings = await asyncio.to_thread(node.diagnosis.look_outside)
            assert [(each.check, each.level) for each in findings] == [("seeds", "ok"), ("disk", "ok")]
            assert found(node)["peers"].level == "fail", "it was told of others and sees none"


async def test_an_own_endpoint_is_no_seed() -> None:
    own = check_seeds(["tcp/127.0.0.1:1"], own=["tls/127.0.0.1:1"])
    assert (own.level, own.what) == ("ok", "there are none to connect to beside this node (--connect)")


@pytest.fixture
def plain_seed() -> Iterator[str]:
    """The endpoint of a server that closes each connection at the first bytes, as a node without TLS does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = server.accept()[0]
                    with connection:
                        connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp/127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_fleet_that_is_open_tries_its_seeds_both_ways(plain_seed: str, tmp_path: Path) -> None:
    """The defect: with --accept-plain `doctor` called seeds without an identity faulty, though they were linked."""
    folder = str(Fleet(tmp_path / "plant").certify("forge"))
    assert "it has no identity" in check_seeds([plain_seed], folder).what
    assert check_seeds([plain_seed], folder, accept_plain=True).level == "ok"
    assert check_seeds([plain_seed]).level == "ok"


def test_a_node_that_forgot_its_identity_is_told(tmp_path: Path) -> None:
    """The defect: a seed that takes TLS only was called well, as its port takes connections."""
    folder = Fleet(tmp_path / "plant").certify("forge")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "node.pem", folder / "node.key")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection = server.accept()[0]
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as link:
                link.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        finding = check_seeds([f"tcp/127.0.0.1:{server.getsockname()[1]}"])
        thread.join()
    assert finding.level == "fail"
    assert "it answers by TLS only: give this node an identity (--identity)" in finding.what


def test_a_certificate_or_root_that_ended_by_this_clock_has_its_own_sentence(tmp_path: Path) -> None:
    """The defect: a node past the end of its root was alone, and `doctor` said only that it sees no other one."""
    identity = Fleet(tmp_path / "plant").identity("forge")
    day = 86_400 * 10**9

    def look(after: int, given: Identity = identity) -> Finding:
        return check_certificates("certificates", given, given.ends + after)

    assert look(-20 * day).what == "the certificate of forge as operator of plant is valid for 20 days"
    soon = look(-3600 * 10**9)
    assert (soon.level, soon.what) == (
        "warn", f"the certificate of forge as operator of plant is valid until {moment(identity.ends)}",
    )  # fmt: skip
    ended = look(day)
    assert (ended.level, ended.what == look(2 * day).what) == ("fail", True), "the log has it once"
    assert f"the certificate of forge ended on {moment(identity.ends)}, by the clock of this machine" in ended.what
    assert "fleet renew forge" in ended.advice
    assert "is valid from" in look(-400 * day).what
    rotated = look(-20 * day, replace(identity, roots=()))
    assert (rotated.level, rotated.what.startswith("the former root of plant signed the certificate")) == ("fail", True)


def test_room_on_the_disk_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "not" / "there" / "yet.db"
    assert check_disk(None).level == "ok"
    free = 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert check_disk(path).level == "fail"
    free = diagnosing.NO_SPACE
    assert check_disk(path).level == "warn"
    free = diagnosing.LOW_SPACE
    assert str(tmp_path) in check_disk(path).what
    assert check_disk(path).level == "ok"


def test_the_worst_counts() -> None:
    levels = {level: Finding(check="x", level=level, what="w") for level in ("ok", "warn", "fail")}
    assert worst_of([]) == "ok"
    assert worst_of([levels["ok"], levels["warn"]]) == "warn"
    assert worst_of(list(levels.values())) == "fail"


def describe(node: Node, *names: str, **labels: str) -> None:
    node.gossip.describe("", labels=labels)
    node.gossip.describe_variables(dict.fromkeys(names, VariableKind.DOUBLE), even_none=True)


@pytest.mark.slow
async def test_a_constraint_that_no_node_can_decide_is_reported_with_the_nearest_variable() -> None:
    async with fleet("a", "b") as (a, b):
        describe(a, "speed_mps", zone="a")
        await a.add_constraint("slow", when="sped_mps < 1.0 || zzz < 1.0")
        await a.add_constraint("far", when="load < 1.0", on={"zone": "c"})
        await a.add_constraint("near", when="speed_mps < 1.0", on={"zone": "a"})
        await a.add_constraint("listed")
        what = "no node can decide far (no known node has the label zone=c)"  # and nothing of `slow`: b told nothing
        await eventually(lambda: found(a)["undecidable"].what == what)
        describe(b, zone="b")
        await eventually(lambda: a.gossip.state.variables.told("b"))
        assert found(a)["undecidable"].what == (
            "no node can decide far (no known node has the label zone=c), slow (no node measures sped_mps (speed_mps may be meant))"
        )
        await a.add_constraint("slow", when="speed_mps < 1.0", on={"zone": "b"})
        await a.remove_constraint("far")
        assert found(a)["undecidable"].what == "no node can decide slow (no node with the label zone=b measures speed_mps)"
        await a.remove_constraint("slow")
        assert found(a)["undecidable"].level == "ok"


@pytest.mark.slow
async def test_a_constraint_on_the_fleet_is_undecidable_where_explain_says_unknown() -> None:
    """The defect: doctor looked for readings, and named what was decided without them, and not what failed for a missing label."""
    async with fleet("a") as (a,):
        await a.add_constraint("decided", when="count(nodes, n, n.?load.orValue(0.0) > 1.0) == 0", scope="fleet")
        await a.add_constraint("zone", when='nodes.all(n, n.labels.zone == "a")', scope="fleet")
        await eventually(lambda: all(each.state is not None for each in a.constraints()))
        states = {each.id: (each.state, each.reason) for each in a.constraints()}
        assert states["decided"] == ("holds", "")
        assert states["zone"][0] == "unknown"
        assert found(a)["undecidable"].what == f"no node can decide zone ({states['zone'][1]})"


async def test_nodes_in_scope_node_is_noted() -> None:
    """The defect: it was taken without a word."""
    async with fleet("a") as (a,):
        await a.add_constraint("count", when="size(nodes) > 1")
        assert any("add `scope` fleet" in note for note in a.notes_on("count"))
        await a.add_constraint("count", when="size(nodes) > 1", scope="fleet")
        assert not any("scope" in note for note in a.notes_on("count"))


@pytest.mark.slow
async def test_a_constraint_that_can_be_decided_without_a_variable_is_decidable() -> None:
    """The defect: `doctor` said that no node can decide what a node had just judged."""
    async with fleet("a") as (a,):
        describe(a, "x", "flag")
        for id_, when in {
            "or": "x < 1.0 || y < 1.0",
            "and": "x < 1.0 && y < 1.0",
            "branch": "flag > 0.0 ? x < 1.0 : y < 1.0",
            "loop": "[1.0].exists(i, i > x || y < i)",
        }.items():
            await a.add_constraint(id_, when=when)
        assert found(a)["undecidable"].level == "ok"
        for id_, when in {
            "both": "y < 1.0 || avg_over('y', duration('5m')) < 1.0",
            "condition": "y < 1.0 ? x < 1.0 : x > 1.0",
            "range": "y.all(i, i > x)",
            "sum": "x + y < 1.0",
        }.items():
            await a.add_constraint(id_, when=when)
        await a.add_constraint("stuck", when="x < 1.0", clear_when="y < 1.0")
        assert found(a)["undecidable"].what == "no node can decide " + ", ".join(
            [f"{id_} (no node measures y)" for id_ in ("both", "condition", "range")]
            + ["stuck (no node measures y, which its `clear_when` reads)", "sum (no node measures y)"]
        )


async def test_what_a_node_told_a_state_of_is_decidable() -> None:
    async with fleet("a") as (a,):
        await a.add_constraint("aged", when='age("z") < duration("0s")')
        await a.measure({"z": 1.0})
        await eventually(lambda: a.gossip.state.verdicts.of("aged"))
        describe(a, "x")
        assert found(a)["undecidable"].level == "ok"


@pytest.mark.slow
async def test_nothing_is_reported_of_nodes_that_did_not_tell_their_variables_yet() -> None:
    async with fleet("a", "b") as (a, b):
        await a.add_constraint("slow", when="speed_mps < 1.0")
        describe(a, "load")
        what = "not known yet for all constraints: b did not tell which variables they measure"
        await eventually(lambda: found(a)["undecidable"].what == what)
        assert found(a)["undecidable"].level == "ok"
        describe(b, *(f"x{number}" for number in range(1001)))
        await eventually(lambda: a.gossip.state.variables.left_out("b"))
        assert found(a)["undecidable"].level == "ok", "b may measure it"


@pytest.mark.slow
async def test_a_variable_of_this_node_counts_before_its_cell_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "VARIABLES_EVERY", 10**15)
    async with fleet("a") as (a,):
        await a.measure({"load": 1})
        await eventually(lambda: a.gossip.state.variables.told("a"))
        await a.add_constraint("slow", when="speed_mps < 1.0 && robot.speed < 1.0")
        assert a.notes_on("slow") == ("no node measures robot", "no node measures speed_mps")
        await a.measure({"speed_mps": 0.5, "robot": {"speed": 0.5}})
        assert "speed_mps" not in a.gossip.state.variables.of("a")
        assert a.notes_on("slow") == ()
        assert found(a)["undecidable"].level == "ok"
        await a.measure({"speed_mps": None})
        assert a.notes_on("slow") == ("no node measures speed_mps",)


@pytest.mark.slow
async def test_of_many_undecidable_constraints_some_are_named() -> None:
    async with fleet("a") as (a,):
        describe(a, "x")
        await a.batch([AddConstraint(id=f"c{number:03}", when=f"y{number:03} < 1.0") for number in range(100)])
        what = found(a)["undecidable"].what
        assert what.endswith("c009 (no node measures y009) and 90 more")
        assert len(what) < 1000


async def test_a_node_without_variables_tells_that_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a") as (a,):
        await a.add_constraint("slow", when="speed_mps < 1.0")
        assert "a did not tell" in found(a)["undecidable"].what
        monkeypatch.setattr(evaluation, "VARIABLES_NONE", 0)
        await eventually(lambda: found(a)["undecidable"].level == "warn")
        assert a.gossip.state.variables.of("a") == {}


async def test_a_variable_that_this_node_measures_now_is_measured() -> None:
    """The defect: up to ten seconds after the first sample, `add` said that no node measures the variable."""
    async with fleet("a") as (a,):
        describe(a, "speed_mps")
        a._runtime.evaluator._described = time.monotonic_ns()  # the variables were told just now
        await a.measure({"name": "x"})
        await a.add_constraint("named", when="name == 'x' && nam == 'x'")
        assert a.notes_on("named") == ("no node measures nam (name may be meant)",)
