"""Plans: what more nodes, slower links and more changes do to cost and time, and what is told to break."""

import math
from dataclasses import replace

import pytest

from constraint_crdt.errors import InvalidValue
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.simulation import plan as planning
from constraint_crdt.simulation.plan import MESH, ROUTED, Plan, PlannedFleet, make_plan
from constraint_crdt.transport.topology import ASKED_AFTER
from constraint_crdt.transport.zenoh_startup import KEEP_ALIVES, ROUTED_LEASE
from tests.conftest import BUDGET

SLOW_LINK = PlannedFleet(nodes=12, constraints=10, rate=8_000.0, delay=0.05, gossip_every=1.0)


@pytest.fixture(autouse=True)
def _few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    if BUDGET != "nightly":
        monkeypatch.setattr(planning, "FEWEST_CHANGES", 3)
    monkeypatch.setattr(planning, "MOST_CHANGES", 8)
    monkeypatch.setattr(planning, "REPEATS", 3)


def planned(fleet: PlannedFleet) -> Plan:
    """A plan whose CPU does not depend on the machine."""
    return make_plan(fleet, lambda: 0.0)


def break_of(plan: Plan, what: str, unit: str) -> float:
    """Where something breaks."""
    return next(each.at for each in plan.breaks if what in each.what and each.unit == unit)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_plan() -> None:
    assert planned(SLOW_LINK) == planned(SLOW_LINK)


@pytest.mark.long
@pytest.mark.parametrize("routers", [0, 3])
def test_more_nodes_never_cost_less(routers: int) -> None:
    plans = [planned(PlannedFleet(nodes=nodes, routers=routers, constraints=5, gossip_every=1.0)) for nodes in (5, 20, 60)]
    for figure in ("rest_bytes", "busy_bytes"):
        totals = [each.fleet.nodes * each[figure] for each in plans]
        assert totals == sorted(totals)
    memories = [each["memory"] for each in plans]
    assert memories == sorted(memories)


@pytest.mark.slow
def test_a_full_mesh_costs_keep_alives_of_each_link() -> None:
    few, many = (planned(PlannedFleet(nodes=nodes, routers=0, gossip_every=5.0))["rest_bytes"] for nodes in (10, 40))
    assert many - few == pytest.approx(30 * planning.KEEP_ALIVE_BYTES / MESH.keep_alive)


@pytest.mark.slow
def test_a_slower_link_never_agrees_sooner() -> None:
    fast = replace(SLOW_LINK, rate=1_000_000.0)
    plans = [planned(each) for each in (replace(fast, rate=math.inf), fast, SLOW_LINK, replace(SLOW_LINK, rate=4_000.0))]
    for figure in ("node_p50", "all_p50", "blank"):
        seconds = [each[figure] for each in plans]
        assert seconds == sorted(seconds), figure


@pytest.mark.slow
def test_a_longer_delay_never_agrees_sooner() -> None:
    plans = [planned(replace(SLOW_LINK, delay=delay, gossip_every=5.0)) for delay in (0.001, 0.1, 1.0)]
    for figure in ("node_p50", "all_p50", "blank"):
        seconds = [each[figure] for each in plans]
        assert seconds == sorted(seconds), figure
    assert plans[-1]["all_p50"] > 2.0  # two steps, at least


@pytest.mark.slow
def test_loss_delays_and_costs() -> None:
    without, with_loss = planned(SLOW_LINK), planned(replace(SLOW_LINK, loss=0.2))
    assert with_loss["all_p50"] > without["all_p50"]
    assert with_loss["change_bytes"] > without["change_bytes"]
    assert with_loss["blank"] > without["blank"]


@pytest.mark.slow
def test_shared_cores_never_agree_sooner() -> None:
    fleet = PlannedFleet(nodes=30, routers=3, gossip_every=1.0)
    assert planned(replace(fleet, cores=1))["all_p50"] > 2 * planned(fleet)["all_p50"]


@pytest.mark.slow
def test_bytes_between_sites_do_not_grow_with_the_nodes_in_them() -> None:
    small, large = (
        planned(PlannedFleet(nodes=nodes, sites=3, constraints=5, rate=32_000.0, delay=0.05, gossip_every=1.0))
        for nodes in (12, 39)
    )
    assert large["away_rest_bytes"] == pytest.approx(small["away_rest_bytes"], rel=0.1)
    assert large["all_p99"] < math.inf


@pytest.mark.slow
def test_counts_cost_by_nodes_and_constraints() -> None:
    fleet = PlannedFleet(nodes=10, constraints=40, gossip_every=1.0)
    one, four, twice = (
        planned(each)["count_bytes"]
        for each in (replace(fleet, judged=10), replace(fleet, judged=40), replace(fleet, nodes=20, judged=40))
    )
    assert 3 < four / one <= 4
    assert twice == pytest.approx(2 * four, rel=0.05)


@pytest.mark.long
def test_a_full_link_is_told() -> None:
    plan = planned(replace(SLOW_LINK, nodes=40, rate=1_000.0))
    assert not plan.works
    assert plan.breaks[0].what == "the link of a node is full"
    assert plan.breaks[0].reserve < 1
    assert break_of(plan, "the link of a node is full", "nodes") < 40
    assert plan["all_p50"] == math.inf
    assert (
        planned(replace(SLOW_LINK, nodes=int(0.7 * break_of(plan, "the link of a node is full", "nodes")), rate=1_000.0))["all_p50"]
        < math.inf
    )


@pytest.mark.slow
def test_changes_beyond_the_told_rate_do_not_work() -> None:
    rate = break_of(planned(SLOW_LINK), "agree", "changes/min") / 60
    assert not planned(replace(SLOW_LINK, changes=rate * 1.2)).works
    assert planned(replace(SLOW_LINK, changes=rate / 4)).works  # changes take their part of the link, too


@pytest.mark.slow
def test_the_interval_follows_the_link() -> None:
    fleet = replace(SLOW_LINK, gossip_every=None)
    slow, fast = planned(fleet), planned(replace(fleet, rate=math.inf))
    assert fast.gossip_every == NodeSettings().gossip_every
    assert slow.gossip_every > fast.gossip_every
    assert slow["rest_bytes"] <= max(0.1 * fleet.rate, 11 * planning.KEEP_ALIVE_BYTES + 50)


def test_large_fleets_use_routers() -> None:
    assert PlannedFleet(nodes=40).routed == 0
    assert PlannedFleet(nodes=41).routed == 3
    assert PlannedFleet(nodes=5_000).routed == 10
    assert PlannedFleet(nodes=200, sites=20).routed == 40


@pytest.mark.slow
def test_nothing_is_asked_of_a_fleet_without_changes() -> None:
    plan = planned(replace(SLOW_LINK, changes=0.0))
    assert plan["busy_bytes"] == plan["rest_bytes"]
    assert break_of(plan, "agree", "changes/min") > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"nodes": 1}, "nodes"),
        ({"sites": 7}, "1 to 6 sites, not 7"),
        ({"constraints": 0}, "constraints"),
        ({"judged": 11}, "judged"),
        ({"routers": 12}, "routers"),
        ({"sites": 2, "cores": 2}, "either sites or cores"),
    ],
)
def test_a_fleet_out_of_bounds_is_refused(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(InvalidValue, match=says):
        make_plan(replace(SLOW_LINK, **wrong), lambda: 0.0)


def test_constants_are_those_of_the_node() -> None:
    settings = NodeSettings()
    assert settings.count_every == planning.COUNT_EVERY
    assert (settings.keep_removals, settings.keep_removals_for) == (planning.KEPT_REMOVALS, planning.REMOVALS_KEPT_FOR)
    assert MESH.keep_alive == ASKED_AFTER
    assert ROUTED.keep_alive == ROUTED_LEASE / KEEP_ALIVES


@pytest.mark.long
def test_more_rows_than_are_measured_are_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = PlannedFleet(nodes=90, constraints=5, gossip_every=5.0)
    whole = planned(fleet)
    monkeypatch.setattr(planning, "MOST_ROWS", 45)
    assert planned(fleet)["rest_bytes"] == pytest.approx(whole["rest_bytes"], rel=0.2)
    assert planned(fleet)["change_bytes"] == pytest.approx(whole["change_bytes"], rel=0.2)


@pytest.mark.long
def test_few_peers_are_recent_in_a_large_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    if BUDGET != "nightly":
        monkeypatch.setattr(planning, "MOST_CHANGES", 2)
        monkeypatch.setattr(planning, "FEWEST_CHANGES", 2)
    sizes = (400, 2000) if BUDGET == "nightly" else (150, 750)
    small, large = (planned(PlannedFleet(nodes=nodes, routers=3, gossip_every=5.0)) for nodes in sizes)
    assert large["change_bytes"] > 1.5 * small["change_bytes"]
