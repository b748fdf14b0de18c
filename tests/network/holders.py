"""Holders of a budget that all report to a judge outside of the fleet, on nodes that are killed and cut from each other.

A holder believes to hold from the answer of its node until it gave its hold back, or until the hold is over by the earlier of two
clocks, whichever comes first; also while its node is dead. The judge counts those at each change.
"""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.fleet.processes import seconds_until
from tests.network.hosts import Network, NetworkNode, are_linked

KEPT_TO_THE_END = 0.002
"""The share of the holds that are never given back: they end with their lease."""

LONGEST_WORK = 0.005
"""Seconds of work with another hold, at most."""


LONGEST_WAIT = 2.0
"""Seconds that an acquire waits, at most."""

LATEST = 2.0
"""Seconds by which a cycle may be late: those before are left out."""

CALM = 4.0
"""Seconds between two disturbances, at most, where nothing else is said."""


class Judge:
    """Counts holders at each moment."""

    def __init__(self, limit: int) -> None:
        self.limit, self.most, self.acquired, self.refused = limit, 0, 0, 0
        self.times: list[float] = []
        """Seconds of the acquires that were granted."""
        self._now = 0
        self._lock = threading.Lock()

    def refuse(self) -> None:
        """An acquire was refused, or had no answer."""
        with self._lock:
            self.refused += 1

    @contextmanager
    def holding(self, took: float = 0.0) -> Iterator[None]:
        """The block is that of a holder. `took`: seconds of the acquire."""
        with self._lock:
            self._now += 1
            self.acquired += 1
            self.times.append(took)
            self.most = max(self.most, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


class HeldFleet:
    """Nodes on a host each, with a store each, so that they go on after a kill."""

    def __init__(self, net: Network, names: Sequence[str], folder: Path, *flags: str) -> None:
        self._net, self._folder, self._flags = net, folder, flags
        self.nodes: dict[str, NetworkNode] = {}
        self._hosts = dict(zip(names, net.hosts(len(names)), strict=True))
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        """Start a node, or start it again with its store."""
        host, first = self._hosts[name], next(iter(self._hosts.values()))
        connect = () if host is first else ("--connect", first.endpoint)
        store = ("--store", str(self._folder / f"{name}.db"))
        self.nodes[name] = self._net.node(name, host, *store, *connect, *self._flags)

    def cut(self, these: Sequence[str], those: Sequence[str]) -> None:
        """Nothing passes between these and those."""
        self._net.split([self._hosts[name] for name in these], [self._hosts[name] for name in those])

    def heal(self) -> None:
        """Everything passes again."""
        self._net.set_all(cut=False)


def fleet_with_budget(net: Network, names: Sequence[str], folder: Path, limit: int, lease: float, *flags: str) -> HeldFleet:
    """Nodes that are linked and know the budget *dock*."""
    fleet = HeldFleet(net, names, folder, *flags)
    nodes = list(fleet.nodes.values())
    seconds_until(lambda: are_linked(nodes))
    nodes[0].call("PUT", "budgets/dock", {"limit": limit, "lease": lease})
    seconds_until(lambda: all(node.get("budgets") for node in nodes))
    return fleet


def next_due(due: float, pace: float, random: Random) -> float:
    """When the cycle after that one is to be over, on the monotonic clock."""
    return max(due + random.uniform(0.5, 1.5) * pace, time.monotonic() - LATEST)


def hold(fleet: HeldFleet, name: str, budget: str, judge: Judge, until: Callable[[], bool], pace: float, random: Random) -> None:
    """Acquire, work and release at a node until the end, a cycle each `pace` seconds, those that are late without a pause; a node
    that is down is asked again.
    """
    due = time.monotonic()
    while not until():
        node = fleet.nodes[name]
        with contextlib.closing(node.connection()) as connection:
            try:
                while node is fleet.nodes[name] and not until():
                    due = next_due(due, pace, random)
                    _hold_once(node, connection, budget, judge, random)
                    time.sleep(max(0.0, due - time.monotonic()))
            except (OSError, http.client.HTTPException, AssertionError):
                judge.refuse()
        time.sleep(0.02)


def _hold_once(node: NetworkNode, connection: http.client.HTTPConnection, budget: str, judge: Judge, random: Random) -> None:
    began = time.monotonic()
    found = node.ask_on(connection, f"budgets/{budget}/acquire", {"wait": LONGEST_WAIT, "holder": node.name})
    came = time.monotonic()
    to_the_end = random.random() < KEPT_TO_THE_END
    with judge.holding(came - began):
        ends = came + min(found["ttl"], found["until"] / 1e9 - time.time())
        work = found["ttl"] if to_the_end else random.uniform(0.0, LONGEST_WORK)
        time.sleep(max(0.0, min(work, ends - time.monotonic())))
    if not to_the_end:
        node.ask_on(connection, f"budgets/{budget}/release", {"hold": found["hold"]})


def disturb(fleet: HeldFleet, until: Callable[[], bool], random: Random, calm: float = CALM) -> tuple[int, int]:
    """Kill nodes and start them again, and cut the network, until the end. Returns how often each.

    `calm`: seconds between two disturbances, at most.
    """
    kills = cuts = 0
    names = list(fleet.nodes)
    while not until():
        time.sleep(random.uniform(0.2, calm))
        if random.random() < 0.5:
            victim = random.choice(names)
            fleet.nodes[victim].kill()
            kills += 1
            time.sleep(random.uniform(0.0, 1.0))
            fleet.start(victim)
        else:
            drawn = random.sample(names, len(names))
            place = random.randint(1, len(names) - 1)
            fleet.cut(drawn[:place], drawn[place:])
            cuts += 1
            time.sleep(random.uniform(0.3, 3.0))
            fleet.heal()
    return kills, cuts


def judged(
    fleet: HeldFleet,
    budget: str,
    judge: Judge,
    seconds: float,
    rate: float,
    random: Random,
    workers: int = 1,
    calm: float = CALM,
) -> tuple[int, int]:
    """Holders on all nodes, and disturbances, for so long. Returns the number of kills and cuts.

    `rate`: cycles a second that all ask for together. `workers`: those of a node. `calm`: see `disturb`.
    """
    pace = workers * len(fleet.nodes) / rate
    ends = time.monotonic() + seconds

    def over() -> bool:
        return time.monotonic() >= ends

    threads = [
        threading.Thread(target=hold, args=(fleet, name, budget, judge, over, pace, Random(random.random())), daemon=True)
        for name in list(fleet.nodes) * workers
    ]
    for thread in threads:
        thread.start()
    done = disturb(fleet, over, random, calm)
    for thread in threads:
        thread.join()
    return done
