#!/usr/bin/env bash
# eclipse-zenoh 1.10.2: some links that died with data under way stop all other links of the process for 10 s when they are closed.
#
# One would guess: a link whose lease has passed is closed in the background. Links to other peers go on.
# It does: each TCP connection has SO_LINGER with 10 s. Closing one that has unacknowledged data blocks the thread that closes it for
# so long, and Zenoh has few threads: queries to other peers that live on are not answered meanwhile, tokens are not told, and new
# links wait. With the option taken away from the connections (from outside: Zenoh has no setting for it) nothing waits.
# It printed (Python 3.11, Linux x86-64):
#   with SO_LINGER: longest time without an answer of the other peer 13.8 s
#   without:        longest time without an answer of the other peer 0.2 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'eclipse-zenoh==1.10.2'
cat > "$folder/try.py" <<'PYTHON'
import json
import os
import socket
import struct
import sys
import threading
import time

import zenoh
from zenoh.handlers import Callback

LEASE = 1.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def opened(*, listen: int | None = None, connect: tuple[int, ...] = ()) -> zenoh.Session:
    values = {
        "mode": "peer",
        "listen": {"endpoints": [] if listen is None else [f"tcp/127.0.0.1:{listen}"]},
        "connect": {"endpoints": [f"tcp/127.0.0.1:{port}" for port in connect], "timeout_ms": -1, "exit_on_failure": False},
        "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
        "transport": {"shared_memory": {"enabled": False}, "link": {"tx": {"lease": round(LEASE * 1000)}}},
    }
    return zenoh.open(zenoh.Config.from_json5(json.dumps(values)))


def passed_on(source: socket.socket, sink: socket.socket, dead: threading.Event) -> None:
    """Until the link is dead: then nothing is read any more, and nothing ends."""
    try:
        while not dead.is_set() and (data := source.recv(65536)):
            sink.sendall(data)
    except OSError:
        pass


def relay(target: int, dead: threading.Event) -> int:
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def accept() -> None:
        while True:
            inner, _ = listener.accept()
            kept.append(inner)
            if dead.is_set():
                continue
            outer = socket.create_connection(("127.0.0.1", target))
            kept.append(outer)
            for pair in ((inner, outer), (outer, inner)):
                threading.Thread(target=passed_on, args=(*pair, dead), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def take_linger_away() -> None:
    for number in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(number))) as each:
                if each.type == socket.SOCK_STREAM:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        except OSError:
            pass


ports, dead = [free_port() for _ in range(4)], threading.Event()
if os.fork() == 0:  # the other peers are in a process of their own: only the first is looked at
    answering = opened(listen=int(sys.argv[2]))
    dying = [opened(listen=each) for each in ports]
    for each in dying:
        each.declare_subscriber("data", Callback(lambda _: None, indirect=False))
    answering.declare_queryable("ask", Callback(lambda query: (query.reply("ask", b""), query.drop()), indirect=False))
    time.sleep(40)
    os._exit(0)
time.sleep(1)
session = opened(connect=(*(relay(port, dead) for port in ports), int(sys.argv[2])))
time.sleep(1)
assert len(session.info.links()) == 5
if sys.argv[1] == "without":
    take_linger_away()
longest, last, until, said = 0.0, time.monotonic(), time.monotonic() + 16, False


def answered(reply: zenoh.Reply) -> None:
    global longest, last
    if reply.ok is None:  # Zenoh tells of a timeout like this
        return
    now = time.monotonic()
    longest, last = max(longest, now - last), now


while time.monotonic() < until:
    if not said and time.monotonic() > until - 15:
        said = True
        dead.set()
        for _ in range(200):
            session.put("data", bytes(65536), congestion_control=zenoh.CongestionControl.DROP)
    session.get("ask", Callback(answered, indirect=False), timeout=0.5, congestion_control=zenoh.CongestionControl.DROP)
    time.sleep(0.05)
longest = max(longest, time.monotonic() - last)
print(f"{longest:.1f}")
sys.stdout.flush()
os._exit(0)
PYTHON
free_port() { "$folder/venv/bin/python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])'; }
with=$("$folder/venv/bin/python" "$folder/try.py" with "$(free_port)")
without=$("$folder/venv/bin/python" "$folder/try.py" without "$(free_port)")
echo "with SO_LINGER: longest time without an answer of the other peer $with s"
echo "without:        longest time without an answer of the other peer $without s"
"$folder/venv/bin/python" -c "import sys; sys.exit(0 if $with > 5 > 2 > $without else 1)"
