"""Never more holders than the limit, by a judge to whom all report, on processes that are killed and cut from each other."""

from pathlib import Path
from random import Random

import pytest

from tests.conftest import BUDGET
from tests.fleet.processes import seconds_until
from tests.network.holders import HeldFleet, Judge, judged
from tests.network.hosts import are_linked, network

pytestmark = [pytest.mark.long, pytest.mark.processes]

NODES, LIMIT, SECONDS, RATE = (10, 3, 300.0, 200.0) if BUDGET == "nightly" else (3, 1, 3.0, 60.0)
LEASE = 2.0
SKEW = 0.5


def test_never_more_than_the_limit_hold_while_nodes_are_killed_and_cut(tmp_path: Path) -> None:
    with network() as net:
        fleet = HeldFleet(net, [f"n{number}" for number in range(NODES)], tmp_path, "--max-skew", str(SKEW))
        seconds_until(lambda: are_linked(list(fleet.nodes.values())))
        first = fleet.nodes["n0"]
        first.call("PUT", "budgets/dock", {"limit": LIMIT, "lease": LEASE})
        seconds_until(lambda: all(node.get("budgets") for node in fleet.nodes.values()))
        judge = Judge(LIMIT)
        kills, cuts = judged(fleet, "dock", judge, SECONDS, RATE, Random(1))
        assert judge.most <= LIMIT, f"{judge.most} at once after {kills} kills and {cuts} cuts"
        assert kills + cuts
        least = RATE / 4 if BUDGET == "nightly" else 1.0
        assert judge.acquired > least * SECONDS, "the nodes did hardly anything"
