"""Never more holders than the limit, by a judge to whom all report, on processes that are killed and cut from each other.

And no cut stops those that have rights on their side.
"""

import threading
from pathlib import Path
from random import Random

import pytest

from tests.conftest import BUDGET
from tests.fleet.processes import seconds_until
from tests.network.holders import HeldFleet, Judge, fleet_with_budget, hold, judged
from tests.network.hosts import Network, network

pytestmark = [pytest.mark.long, pytest.mark.processes]

NODES, LIMIT, SECONDS, RATE = (10, 3, 300.0, 200.0) if BUDGET == "nightly" else (3, 1, 3.0, 60.0)
LEASE = 2.0
SKEW = 0.5


def fleet_on(net: Network, folder: Path, count: int, limit: int) -> HeldFleet:
    return fleet_with_budget(net, [f"n{number}" for number in range(count)], folder, limit, LEASE, "--max-skew", str(SKEW))


def test_never_more_than_the_limit_hold_while_nodes_are_killed_and_cut(tmp_path: Path) -> None:
    with network() as net:
        fleet, judge = fleet_on(net, tmp_path, NODES, LIMIT), Judge(LIMIT)
        kills, cuts = judged(fleet, "dock", judge, SECONDS, RATE, Random(1))
        assert judge.most <= LIMIT, f"{judge.most} at once after {kills} kills and {cuts} cuts"
        assert kills + cuts
        least = RATE / 4 if BUDGET == "nightly" else 1.0
        assert judge.acquired > least * SECONDS, "the nodes did hardly anything"


def test_both_sides_of_a_cut_go_on_with_the_rights_that_they_have(tmp_path: Path) -> None:
    """The demands of each side drew the rights of the other to nodes that could not hear of it, and these loans were renewed."""
    with network() as net:
        fleet, over = fleet_on(net, tmp_path, 4, 2), threading.Event()
        judges = {name: Judge(1) for name in fleet.nodes}
        workers = [
            threading.Thread(target=hold, args=(fleet, name, "dock", judge, over.is_set, 0.02, Random(name)), daemon=True)
            for name, judge in judges.items()
        ]
        for worker in workers:
            worker.start()
        try:
            seconds_until(lambda: all(judge.acquired > 20 for judge in judges.values()))
            fleet.cut(["n0", "n2"], ["n1", "n3"])
            before = {name: judge.acquired for name, judge in judges.items()}
            seconds_until(lambda: all(judge.acquired > before[name] + 100 for name, judge in judges.items()))
        finally:
            over.set()
            for worker in workers:
                worker.join()
