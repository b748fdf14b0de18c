"""Fleets that choose their roles by themselves, as node processes: several routers, killed and stopped while clients write."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import BUDGET

from .processes import FAR, NodeProcess, processes, seconds_until

pytestmark = [pytest.mark.long, pytest.mark.processes]

NODES = 20 if BUDGET == "nightly" else 6
FAULTS = [signal.SIGKILL, signal.SIGSTOP] if BUDGET == "nightly" else [signal.SIGKILL]
ROUTERS = 2
KILLED, STOPPED = (3.0, 10.0) if BUDGET == "nightly" else (FAR, FAR)
"""Seconds to agreement after a router is killed, and after one is stopped: its lease of 4 s and what a kill takes. With a reserve
for a busy machine.
"""


def _start(start: Callable[..., NodeProcess]) -> list[NodeProcess]:
    """A fleet with its roles taken: routers and their clients."""
    flags = ["--routers-above", str(NODES - 3), "--routers", str(ROUTERS)]
    seed = start("n0", *flags)
    nodes = [seed, *(start(f"n{number}", *flags, "--connect", seed.endpoints[0]) for number in range(1, NODES))]
    seconds_until(lambda: sum(each.get("status")["role"] == "router" for each in nodes) == ROUTERS)
    seconds_until(lambda: all(each.get("status")["role"] != "peer" for each in nodes))
    seconds_until(lambda: all(each.get("status")["routers"] for each in nodes))
    return nodes


def _agree(nodes: list[NodeProcess]) -> bool:
    return len({each.get("status")["constraints_hash"] for each in nodes}) == 1


@contextmanager
def _writes(node: NodeProcess) -> Iterator[list[str]]:
    """A client that adds constraints one after the other. Yields the names of those that were acknowledged."""
    added: list[str] = []
    over = threading.Event()

    def write() -> None:
        while not over.wait(0.02):
            name = f"under-load-{len(added)}"
            node.run("add", name, "--when", "x > 1")
            added.append(name)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield added
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.name)
def test_the_fleet_agrees_again_after_a_router_is_gone(fault: signal.Signals) -> None:
    with processes() as start:
        nodes = _start(start)
        through = [name for each in nodes if (told := each.get("status"))["role"] == "client" for name in told["routers"]]
        gone = next(each for each in nodes if each.name == max(set(through), key=through.count))
        rest = [each for each in nodes if each is not gone]
        writer = next(
            each for each in rest if each.get("status")["role"] == "client" and each.get("status")["routers"] == [gone.name]
        )
        with _writes(writer) as added:
            seconds_until(lambda: len(added) > 1)
            gone.process.send_signal(fault)
            before = time.monotonic()
            seconds_until(lambda: len(added) > 4)
        try:
            seconds_until(lambda: _agree(rest) and rest[0].get("status")["constraints"] == len(added))
            seconds = time.monotonic() - before
            assert seconds < (KILLED if fault is signal.SIGKILL else STOPPED) + 2
            seconds_until(lambda: gone.name not in [name for each in rest for name in each.get("status")["routers"]])
        finally:
            gone.process.send_signal(signal.SIGCONT)
