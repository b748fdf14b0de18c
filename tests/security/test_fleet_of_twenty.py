"""A fleet of processes with identities: twenty in a nightly run, three by default. Nothing is lost, and counts are exact.

Programs count on all nodes all the time, by the API. Each step happens under this load: an operator changes constraints, nodes are
killed and come back to their stores, certificates are renewed, the root is replaced, a node is revoked, and a node of another root
stays outside.
"""

import itertools
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.client import Client
from constraint_crdt.identity import DAY
from constraint_crdt.identity.directory import rotate_root
from tests.conftest import BUDGET
from tests.fleet.processes import NodeProcess, processes, seconds_until

from .fleets import Fleet

pytestmark = [pytest.mark.long, pytest.mark.processes]

NODES = 20 if BUDGET == "nightly" else 3
KILLED = max(1, NODES // 4)
PAUSE = 0.04 * NODES
"""Seconds between two counts of a program: some 25 per second in the fleet, for any number of nodes."""
PATIENCE = 300.0


class Load:
    """A program per node that counts 1 at a time, and remembers what the node confirmed."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        self.unsure: dict[str, int] = {}
        """Counts without an answer, as their node was killed: each is counted once or not at all."""
        self._running: dict[str, tuple[threading.Event, threading.Thread]] = {}

    def begin(self, node: NodeProcess) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=self._count, args=(node.name, node.api, stop), daemon=True)
        self._running[node.name] = stop, thread
        thread.start()

    def end(self, *names: str) -> None:
        """Wait until the last count of these nodes is confirmed or lost."""
        ending = [self._running.pop(name) for name in names]
        for stop, _ in ending:
            stop.set()
        for _, thread in ending:
            thread.join()

    def _count(self, name: str, api: str, stop: threading.Event) -> None:
        with Client(api) as client:
            while not stop.wait(PAUSE):
                try:
                    client.record(satisfied=1)
                except (ConstraintCrdtError, OSError):
                    self.unsure[name] = self.unsure.get(name, 0) + 1
                    return
                self.counted[name] = self.counted.get(name, 0) + 1


class Running:
    """The fleet, with the load on it."""

    def __init__(self, tmp_path: Path) -> None:
        self.plant = Fleet(tmp_path / "plant", f"plant-{tmp_path.name}")
        self.folder = tmp_path
        self.load = Load()
        self.nodes: dict[str, NodeProcess] = {}
        self.seeds: list[str] = []
        self.listening: dict[str, str] = {}
        self._processes = processes(self.plant.root.fleet)
        self._start = self._processes.__enter__()

    def close(self) -> None:
        self.load.end(*list(self.load._running))
        self._processes.__exit__(None, None, None)

    def start(self, name: str, *, role: str = "member", certify: bool = True) -> NodeProcess:
        """Start a node, also again: on its store, at its port, and with the load on it."""
        folder = self.plant.certify(name, role=role) if certify else self.plant.folder / name
        flags = ["--identity", str(folder), "--store", str(self.folder / f"{name}.db")]
        flags += itertools.chain.from_iterable(("--connect", seed) for seed in self.seeds if seed != self.listening.get(name))
        if name in self.listening:
            flags += ["--listen", self.listening[name]]
        node = self.nodes[name] = self._start(name, *flags)
        self.listening.setdefault(name, node.endpoints[0])
        if len(self.seeds) < 2:
            self.seeds.append(node.endpoints[0])
        self.load.begin(node)
        return node

    def kill(self, name: str) -> None:
        """kill -9, in the middle of the load."""
        self.nodes.pop(name).kill()
        self.load.end(name)

    def linked(self) -> None:
        """Each node has a link. Twenty on two cores have all links only at times; what they hold is asked for by `agree_on`."""
        seconds_until(lambda: all(node.get("status")["peers"] for node in self.nodes.values()), PATIENCE)

    def agree_on(self, constraints: set[str]) -> None:
        seconds_until(
            lambda: all({each["id"] for each in node.get("constraints")} == constraints for node in self.nodes.values()), PATIENCE
        )

    def renew(self, *names: str) -> None:
        """Have these nodes renew their certificates, one after the other. Each opens its session again."""
        for name in names:
            seconds_until(lambda: self._renewed(name), PATIENCE)  # noqa: B023 - called at once

    def _renewed(self, name: str) -> bool:
        """Ask a node to renew its certificate. False while it has no link with an operator."""
        with suppress(ConstraintCrdtError), Client(self.nodes[name].api) as client:
            client.renew()
            return True
        return False

    def rotate(self, operator: str) -> None:
        """Replace the root. The operator tells the fleet, and changes last, when all others accept the new root.

        Nodes do so by themselves, in minutes and days. Here the operator is started again, and each node is asked to renew.
        """
        rotate_root(self.plant.folder, both=DAY, now=time.time_ns(), random=secrets.token_bytes)
        self.kill(operator)
        self.start(operator, certify=False)
        seconds_until(lambda: self.nodes[operator].get("status")["peers"], PATIENCE)
        with (
            pytest.raises(ConstraintCrdtError, match="have the other nodes renew first"),
            Client(self.nodes[operator].api) as client,
        ):
            client.renew()
        for name in sorted(self.nodes.keys() - {operator}):
            seconds_until(lambda: self._has_the_new_root(name, operator), PATIENCE)  # noqa: B023 - called at once
        self.renew(operator)
        self.linked()
        assert self._has_the_new_root(operator, operator)

    def _has_the_new_root(self, name: str, operator: str) -> bool:
        """Ask a node to renew its certificate, and the operator whether it ends at the new root."""
        self._renewed(name)
        return all(each["newest_root"] for each in self.nodes[operator].get("members") if each["node"] == name)

    def revoke(self, name: str, operator: str) -> None:
        """Revoke a node under the load of the others, when the operator has all that it counted. The node hears of it, and ends."""
        self.load.end(name)
        counted = self.load.counted[name]  # or more: of a count without an answer nothing is known
        node, revoked = self.nodes[operator], self.nodes.pop(name)
        seconds_until(lambda: {each["node"]: each["satisfied"] for each in node.get("nodes")}[name] >= counted, PATIENCE)
        node.run("fleet", "revoke", name)
        revoked.process.wait(timeout=PATIENCE)
        self.linked()

    def counts_are_exact(self) -> None:
        """End the load. All nodes then have the same state, and all that was confirmed is in it."""
        self.load.end(*list(self.load._running))
        seconds_until(lambda: len({node.get("status")["hash"] for node in self.nodes.values()}) == 1, PATIENCE)
        (told,) = {node.get("status")["satisfied"] for node in self.nodes.values()}
        confirmed, unsure = sum(self.load.counted.values()), sum(self.load.unsure.values())
        assert confirmed <= told <= confirmed + unsure


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    try:
        yield running
    finally:
        running.close()


def is_refusal(line: str) -> bool:
    """A line on a refused message. Requests of a session that just ended, or was shut out, are none: its node asks anew."""
    return ("refused a message" in line or "dropped a" in line) and "of an unknown session" not in line


def test_a_fleet_with_identities_under_load_loses_nothing(fleet: Running, tmp_path: Path) -> None:
    names = [f"n{number:02d}" for number in range(NODES)]
    operator = fleet.start(names[0], role="operator")
    for name in names[1:]:
        fleet.start(name)
    fleet.linked()

    operator.run("add", "max_speed", "--when", "speed_mps <= 1.5", "--severity", "critical")
    operator.run("add", "cool", "--when", "celsius < 90")
    fleet.agree_on({"max_speed", "cool"})

    for name in names[-KILLED:]:
        fleet.kill(name)
    operator.run("remove", "cool")
    operator.run("add", "while_away")
    fleet.agree_on({"max_speed", "while_away"})
    for name in names[-KILLED:]:
        fleet.start(name)
    fleet.linked()
    fleet.agree_on({"max_speed", "while_away"})

    fleet.renew(*names)
    fleet.rotate(names[0])
    fleet.nodes[names[0]].run("add", "rotated")
    fleet.agree_on({"max_speed", "while_away", "rotated"})

    fleet.revoke(names[-1], names[0])
    fleet.nodes[names[0]].run("add", "revoked")
    fleet.agree_on({"max_speed", "while_away", "rotated", "revoked"})

    other = Fleet(tmp_path / "other", fleet.plant.root.fleet)
    with processes(fleet.plant.root.fleet) as start:
        evil = start("evil", "--identity", str(other.certify("evil")), "--connect", fleet.seeds[0])
        seconds_until(lambda: any("its certificate is of another fleet" in line for line in evil.log))
        assert evil.get("status")["peers"] == 0

    fleet.counts_are_exact()
    assert all(node.process.poll() is None for node in fleet.nodes.values())
    refusals = [line for node in fleet.nodes.values() for line in node.log if is_refusal(line)]
    assert refusals == []
