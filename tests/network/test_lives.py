"""Lives that are not as they seem: a snapshot put back with its marker, and a peer that spoke once and never announced itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from constraint_crdt import GossipNode
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.transport import Peer
from constraint_crdt.transport.zenoh_startup import alive_keys, node_key, peer_of
from tests.conftest import runtime_directory
from tests.fleet.processes import seconds_until
from tests.network.hosts import Host, agree, are_linked, have, network
from tests.network.rows import ROUND_TRIP, Watch, nightly, random_ids
from tests.survival.nodes import marker_file
from tests.survival.watching import copy_store, overwrite_store

pytestmark = pytest.mark.processes

WRITES = 100

SPEAK = """
import sys, zenoh
endpoint, alive, payload = sys.argv[1:]
config = zenoh.Config()
config.insert_json5("mode", '"client"')
config.insert_json5("connect/endpoints", f'["{endpoint}"]')
with zenoh.open(config) as session:
    token, *_ = session.liveliness().get(alive)
    print(token.ok.key_expr, flush=True)
    replies = session.get(sys.stdin.readline().strip(), payload=bytes.fromhex(payload), timeout=10.0)
    print(sum(reply.ok is not None for reply in replies), flush=True)
"""
"""A session that asks one question and ends. It prints the token of a node that it finds, and then how many answers it got."""


def speak_once(host: Host, endpoint: str, fleet: str) -> None:
    """From a host, as a node that writes nothing and has no token."""
    ghost = GossipNode("ghost", fleet=fleet)
    ghost.record_satisfied()
    entered = [f"--{'user' if space.endswith('user') else 'net'}={space}" for space in host.namespaces]
    arguments = [sys.executable, "-c", SPEAK, endpoint, alive_keys(fleet), encode_message(ghost.ping()).hex()]
    with subprocess.Popen(["nsenter", *entered, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        peer = peer_of(process.stdout.readline().strip())
        assert isinstance(peer, Peer)
        process.stdin.write(f"{node_key(fleet, peer)}\n")
        process.stdin.flush()
        assert process.stdout.readline().strip() == "1", "it was answered"


@pytest.mark.long
def test_a_peer_that_spoke_once_is_not_live_and_holds_up_nothing() -> None:
    """Before: live for ever, and `converged` false for ever."""
    with network() as net:
        nodes = forge, anvil = net.fleet_of(["forge", "anvil"])
        seconds_until(lambda: are_linked(nodes))
        (host,) = net.hosts(1)
        speak_once(host, forge.host.endpoint, net.fleet)
        forge.add("gate")
        seconds_until(lambda: have([anvil], "gate"))
        seconds_until(lambda: all(node.get("status")["converged"] for node in nodes))
        for node in nodes:
            assert [each["node"] for each in node.get("nodes") if each["live"]] == ["anvil", "forge"]
            assert node.peers == 1


@nightly
def test_a_snapshot_put_back_with_its_marker_loses_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: the same life goes on, and 100 acknowledged writes are lost without an alarm."""
    runtime, store, snapshot = tmp_path / "run", tmp_path / "node.db", tmp_path / "snapshot.db"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(runtime)))
    watch = Watch()
    with network() as net:
        forge, anvil = net.fleet_of(["forge", "anvil"])
        (host,) = net.hosts(1)
        flags = "--connect", forge.host.endpoint, "--store", str(store)
        lathe = net.node("lathe", host, *flags)
        net.set_all(delay=ROUND_TRIP / 2)
        lathe.add("early")
        seconds_until(lambda: have([forge, anvil], "early"))
        copy_store(store, snapshot)
        marker = marker_file(store, runtime)
        kept = marker.read_bytes()
        late = random_ids(WRITES)
        lathe.add(*late)
        seconds_until(lambda: have([forge, anvil], late[-1]))
        lathe.kill()
        overwrite_store(snapshot, store)
        marker.write_bytes(kept)
        lathe = net.node("lathe", host, *flags)
        seconds_until(lambda: have([lathe], late[-1]))
        (finding,) = lathe.findings("rollback")
        assert finding["level"] == "warn"
        assert "to " in finding["what"]
        assert lathe.get("status")["lost_writes"] == 0
        lathe.add("afterwards")
        seconds_until(lambda: have([forge, anvil], "afterwards") and agree([forge, anvil, lathe]))
        assert all(node.get("status")["constraints"] == WRITES + 2 for node in (forge, anvil, lathe))
        watch.check_logs([forge, anvil, lathe])
