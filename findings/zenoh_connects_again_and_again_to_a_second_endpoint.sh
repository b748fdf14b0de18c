#!/usr/bin/env bash
# eclipse-zenoh 1.10.2: a second endpoint of a peer that is linked already is connected to again and again, for ever.
#
# One would guess: of two entries in `connect.endpoints` that lead to the same peer, the second is found to be the same peer once,
# and either becomes a second link or is left alone while the first link holds.
# It does: the second is connected to at every period of `connect.retry`, with a whole handshake, which the other side refuses since
# there is a link; with the usual settings of a machine with several addresses (IPv4, IPv6, a bridge) that never ends. Both sides
# pay for it, and nothing tells of it: `info.links()` has one link all the time.
# It printed (Python 3.11, Linux x86-64):
#   links: 1; connections to the second endpoint in 10 s: 13
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'eclipse-zenoh==1.10.2'
"$folder/venv/bin/python" - <<'PYTHON'
import json
import socket
import sys
import threading
import time

import zenoh


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def opened(**values: object) -> zenoh.Session:
    usual = {
        "mode": "peer",
        "listen": {"endpoints": []},
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
        "transport": {"shared_memory": {"enabled": False}},
    }
    return zenoh.open(zenoh.Config.from_json5(json.dumps({**usual, **values})))


def passed_on(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for each in (source, sink):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


port, connections = free_port(), 0
relay = socket.create_server(("127.0.0.1", 0))


def accept() -> None:
    """A second way to the same peer, which counts."""
    global connections
    while True:
        inner, _ = relay.accept()
        connections += 1
        outer = socket.create_connection(("127.0.0.1", port))
        for pair in ((inner, outer), (outer, inner)):
            threading.Thread(target=passed_on, args=pair, daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
one = opened(listen={"endpoints": [f"tcp/127.0.0.1:{port}"]})
retry = {"period_init_ms": 200, "period_max_ms": 1000, "period_increase_factor": 2}
endpoints = [f"tcp/127.0.0.1:{port}", f"tcp/127.0.0.1:{relay.getsockname()[1]}"]
other = opened(connect={"endpoints": endpoints, "timeout_ms": -1, "exit_on_failure": False, "retry": retry})
time.sleep(10)
links = len(other.info.links())
print(f"links: {links}; connections to the second endpoint in 10 s: {connections}")
other.close()
one.close()
sys.exit(0 if links == 1 and connections > 5 else 1)
PYTHON
