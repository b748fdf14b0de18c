"""Scenarios in virtual time: they settle, and cost what they say."""

import pytest

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.simulation.scenario import SECOND_NS, Report, Scenario, ScenarioRun
from constraint_crdt.simulation.world import Links, Quality, SimRng


def run(scenario: Scenario) -> Report:
    running = ScenarioRun(scenario)
    for _ in running.samples():
        pass
    return running.report()


@pytest.mark.long(by_day=["uniform"])
@pytest.mark.parametrize("choice", ["uniform", "nearby", "schedule"])
def test_a_fleet_settles(choice: str) -> None:
    report = run(Scenario(30, seed=1, choice=choice))
    assert report.settled
    assert report.rounds <= report.bound + 3  # nobody's rounds are aligned here
    assert report.samples[-1].known == 1.0
    assert [sample.known for sample in report.samples] == sorted(sample.known for sample in report.samples)
    assert report.bytes_per_node == report.samples[-1].bytes / 30


@pytest.mark.slow
def test_a_partition_keeps_halves_apart_until_it_ends() -> None:
    report = run(Scenario(20, seed=2, partition_ns=12 * SECOND_NS))
    begin, end = report.partition or (0, 0)
    assert end - begin == 12 * SECOND_NS
    before_end = [sample for sample in report.samples if end - SECOND_NS < sample.time_ns < end]
    assert all(sample.states >= 2 for sample in before_end)
    assert report.settled
    assert report.time_ns > end


@pytest.mark.slow
def test_a_fleet_settles_under_all_of_it() -> None:
    report = run(Scenario(25, seed=3, loss=0.3, partition_ns=10 * SECOND_NS, churn_per_minute=60, items=5))
    assert report.settled
    assert report.samples[-1].states == 1


@pytest.mark.long
def test_the_same_seed_gives_the_same_report() -> None:
    scenario = Scenario(15, seed=4, loss=0.2, churn_per_minute=20)
    assert run(scenario) == run(scenario)
    assert run(scenario) != run(Scenario(15, seed=5, loss=0.2, churn_per_minute=20))


def test_a_run_can_be_left_at_any_time() -> None:
    running = ScenarioRun(Scenario(20, seed=6, partition_ns=10 * SECOND_NS))
    next(running.samples())
    report = running.report()
    assert not report.settled
    assert len(report.samples) == 1


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(1),
        Scenario(0),
        Scenario(10_001),
        Scenario(5, loss=1.0),
        Scenario(5, loss=float("nan")),
        Scenario(5, items=6),
        Scenario(5, items=0),
        Scenario(5, choice="best"),
        Scenario(5, churn_per_minute=-1),
        Scenario(5, churn_per_minute=float("nan")),
        Scenario(5, partition_ns=-1),
        Scenario(5, latency_ns=0),
        Scenario(5, latency_ns=2 * SECOND_NS),
        Scenario(5, sites=6),
        Scenario(5, sites=-1),
        Scenario(5, sites=2, choice="nearby"),
        Scenario(5, sites=2, site_latency_ns=SECOND_NS),
    ],
)
def test_scenarios_without_sense_are_refused(scenario: Scenario) -> None:
    with pytest.raises(ConstraintCrdtError):
        ScenarioRun(scenario)


def links(**quality: float) -> Links:
    from collections import Counter

    return Links(Quality(**quality), SimRng(1), Counter())  # type: ignore[arg-type]  # whichever are given


@pytest.mark.slow
def test_links_lose_and_double_as_often_as_they_say() -> None:
    lossy = links(loss=0.25, duplication=0.5, jitter_ns=1000)
    arrivals = [len(lossy.arrivals(0, "a", "b", 10)) for _ in range(4000)]
    assert 900 < arrivals.count(0) < 1100
    assert 1350 < arrivals.count(2) < 1650
    assert lossy.fired["loss"] == arrivals.count(0)
    assert lossy.fired["duplication"] == arrivals.count(2)


def test_bandwidth_makes_messages_queue() -> None:
    narrow = links(bandwidth=1000, latency_ns=5)
    assert [narrow.arrivals(0, "a", "b", 100) for _ in range(3)] == [[100_000_005], [200_000_005], [300_000_005]]
    assert narrow.arrivals(0, "b", "a", 100) == [100_000_005]  # each way has its own


def test_cuts_have_a_direction_and_partitions_have_none() -> None:
    whole = links()
    whole.cut("a", "b")
    assert not whole.arrivals(0, "a", "b", 1)
    assert whole.arrivals(0, "b", "a", 1)
    whole.mend("a", "b")
    whole.part([["a"], ["b", "c"]])
    assert not whole.connected("a", "b")
    assert not whole.connected("c", "a")
    assert whole.connected("b", "c")
    assert whole.connected("a", "newcomer")
    whole.part([])
    assert whole.connected("a", "b")
    assert +whole.fired == {"cut": 1}
