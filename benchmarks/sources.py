"""A flood from a broker: a node that reads it by MQTT, in memory, and what that costs its loop.

    python benchmarks/sources.py [--seconds 60] [--rate 50000] [--values 10] [--alone] [--check]

A process sends so many values a second, over 20 topics, through Debian's mosquitto: packets that were made before, many at once, so
that the sender is not what limits. A message has `--values` values, in JSON, or a single number: mosquitto passes on some 15,000 to
60,000 messages a second, whatever is in them. With `--alone` sender, broker and node run as on a machine without other programs:
they have the priority of real time, which Linux keeps for root. The node collects garbage as one of the command line.

The node takes the last value of a topic in each fifth of a second, drops those before, and counts them. Told are: the values that
arrived at the node, were taken and dropped; how late the loop ran what was due, each 5 ms, and how much of that the node computed;
the memory that the node grew by. mosquitto drops what it cannot deliver, too: these values are counted as lost on the way.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.cli.node import keep_collections_short
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.sources import read_sources

TOPICS = 20
BLOCK = 500
"""Values sent at once."""

MOST_LAG = 0.05
MOST_GROWTH = 32
"""Seconds that the loop is late, and MB, for `--check`. Without `--alone`: what the node's own CPU delays it."""


def text(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def packet(first: int, body: bytes) -> bytes:
    """A packet of MQTT of less than 16 KiB."""
    size = len(body)
    return bytes([first, size] if size < 128 else [first, size & 0x7F | 0x80, size >> 7]) + body


def payload(number: int, values: int) -> bytes:
    if values == 1:
        return f"{number}.5".encode()
    return msgspec.json.encode({f"v{each}": number + 0.5 for each in range(values)})


def send(port: int, rate: int, seconds: float, values: int) -> None:
    """The process that sends. Prints how many values the broker took."""
    messages = max(TOPICS, BLOCK // values)
    packets = [packet(0x30, text(f"flood/{number % TOPICS}".encode()) + payload(number, values)) for number in range(messages)]
    block = b"".join(packets)
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)  # what waits there was not sent
        link.sendall(packet(0x10, text(b"MQTT") + b"\x04\x02\x00\x3c" + text(b"flood")))
        link.recv(4)
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            link.sendall(block)
            sent += messages * values
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
        link.sendall(packet(0xC0, b""))  # a ping: once it is answered, the broker has passed on all before it
        link.recv(2)
    print(sent)


@contextlib.contextmanager
def broker() -> Iterator[int]:
    with socket.socket() as trying:
        trying.bind(("127.0.0.1", 0))
        port: int = trying.getsockname()[1]
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        sys.exit("mosquitto is missing: apt-get install mosquitto")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield port
        finally:
            process.kill()
            process.wait()


class Lag(NamedTuple):
    """By how many seconds the loop was late, after 5 ms."""

    all: float
    own: float
    """At most what the process computed meanwhile, and not while the thread of the loop was ready and others had the processor: the
    rest was other processes' on a machine that is not alone.
    """


def delayed() -> float:
    """The seconds for which this thread was ready to run and waited for a processor."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


async def lag() -> Lag:
    began, waited, due = time.process_time(), delayed(), time.monotonic() + 0.005
    await asyncio.sleep(0.005)
    late = max(0.0, time.monotonic() - due)
    return Lag(late, max(0.0, min(late - (delayed() - waited), time.process_time() - began)))


async def measure(port: int, rate: int, seconds: float, values: int, *, alone: bool) -> bool:
    """`alone`: other programs do not delay this one."""
    fields = {"x_{1}_0": "value"} if values == 1 else {f"x_{{1}}_{each}": f"v{each}" for each in range(values)}
    table = {
        "name": "flood", "kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "topics": ["flood/+"], "fields": fields,
        "format": "number" if values == 1 else "json", "most": TOPICS * values,
    }  # fmt: skip
    settings = msgspec.structs.replace(NodeSettings(name="a"), source=read_sources([table]))
    async with Node(settings=settings, transport=MemoryNetwork().transport()) as node:
        for number in range(TOPICS):
            await node.add_constraint(f"c{number}", when=f"x_{number}_0 < 1000.0")
        [reader] = node._runtime.sources
        await asyncio.sleep(1.0)
        at_rest = [await lag() for _ in range(400)]
        process = psutil.Process()
        sender = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--send", str(port), "--rate", str(rate), "--seconds", str(seconds), "--values", str(values),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        lags: list[Lag] = []
        await asyncio.sleep(min(2.0, seconds / 4))
        before, highest, cpu = process.memory_info().rss, 0, time.process_time()
        began = time.monotonic()
        while sender.returncode is None and time.monotonic() - began < seconds + 30:
            lags.append(await lag())
            if len(lags) % 100 == 0:
                highest = max(highest, process.memory_info().rss)
        assert sender.stdout is not None
        sent = int(await sender.stdout.read())
        share = (time.process_time() - cpu) / (time.monotonic() - began)
    arrived = reader.intake.messages * values
    growth = (max(highest, before) - before) / 1e6
    print(f"sent {sent:,} values in {seconds:g} s, {sent / seconds:,.0f} a second; arrived {arrived:,}")
    print(f"taken {reader.values:,}, dropped and counted {reader.dropped:,}; lost on the way {sent - arrived:,}")
    for when, each in (("at rest", at_rest), ("in the flood", lags)):
        whole, own = sorted(one.all for one in each), sorted(one.own for one in each)
        place = int(len(each) * 0.99)
        print(
            f"lag of the loop {when}: p99 {whole[place] * 1e3:.1f} ms, worst {whole[-1] * 1e3:.1f} ms; "
            f"by the node's own CPU p99 {own[place] * 1e3:.1f} ms, worst {own[-1] * 1e3:.1f} ms"
        )
    print(f"memory {growth:+.1f} MB; CPU {share:.2f} cores")
    return (
        max(one.all if alone else one.own for one in lags) <= MOST_LAG
        and growth <= MOST_GROWTH
        and arrived - reader.dropped - reader.values <= TOPICS * values
    )


def take_precedence() -> None:
    """Give this process, and those that it starts, the processor before all ordinary programs. A nice value does not: it counts
    among the programs of a session only.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError as error:
        sys.exit(f"--alone needs the right to real time, as of root: {error.strerror}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=50_000, help="values a second; default: 50000")
    parser.add_argument("--values", type=int, default=10, help="values of a message; default: 10")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 if the loop is late by more than 50 ms (without --alone: by the node's own CPU), or memory grows",
    )
    parser.add_argument("--alone", action="store_true", help="take the processor before all other programs; needs root")
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        send(arguments.send, arguments.rate, arguments.seconds, arguments.values)
        return 0
    if arguments.alone:
        take_precedence()
    keep_collections_short()
    with broker() as port:
        is_well = asyncio.run(measure(port, arguments.rate, arguments.seconds, arguments.values, alone=arguments.alone))
    return int(arguments.check and not is_well)


if __name__ == "__main__":
    sys.exit(main())
