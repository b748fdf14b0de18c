"""What a node gathers of recent evaluations, when it writes it, and what it answers meanwhile."""

from math import isclose

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, MemoryNetwork, Node, NodeSettings, RecordCounts
from constraint_crdt.insight.history import NodeRates
from constraint_crdt.types.decay import RATE
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

SECOND = 10**9
SOON = msgspec.structs.replace(QUICK, rate_every=0.05, half_lives=(60.0, 3600.0))


class Machine:
    """A node's parts with clocks to be set."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.gossip = GossipNode("forge", now=lambda: 1_700_000_000 * SECOND + int(self.seconds * SECOND))
        self.rates = NodeRates(self.gossip, (60.0, 600.0), now=lambda: self.seconds)


def test_evaluations_that_wait_decay_as_written_ones_do_and_are_one_cell() -> None:
    machine = Machine()
    rates, every = machine.rates, []
    for second in range(0, 120, 10):
        machine.seconds = second
        rates.note({"x": (3, 1), None: (1, 0), "y": (0, 0)})
        every.append(second)
        if second == 60:
            rates.write_waiting()
            assert not rates.waiting
    machine.seconds = 130
    weights = [2 ** (-(130 - second) / 60) for second in every]
    before = rates.report(60)
    assert [each.constraint for each in before.constraints] == [None, "x"]
    assert isclose(before.constraints[1].satisfied, 3 * sum(weights), rel_tol=1e-9)
    assert isclose(before.constraints[1].violated, sum(weights), rel_tol=1e-9)
    assert isclose(before.total.satisfied, 4 * sum(weights), rel_tol=1e-9)
    assert rates.waiting
    rates.write_waiting()
    assert isclose(rates.report(60).total.satisfied, before.total.satisfied, rel_tol=1e-9)
    assert len(list(machine.gossip.state.rows.each(RATE))) == 2
    assert machine.gossip.state.rows.seq(machine.gossip.replica) == 4
    assert isclose(before.constraints[1].violated_per_minute, sum(weights) * 0.6931471805599453, rel_tol=1e-9)


def test_a_report_is_of_one_constraint_or_node_if_asked() -> None:
    machine = Machine()
    rates, state = machine.rates, machine.gossip.state
    state.rates.record("anvil", 4, 4, constraint="x")
    rates.note({"x": (6, 0), "z": (1, 1)})
    machine.gossip.add_constraint("never")
    report = rates.report()
    assert (report.half_life, report.tracked) == (60.0, (60.0, 600.0))
    assert [each.constraint for each in report.constraints] == ["never", "x", "z"]
    assert (report.constraints[0].violated_share, report.constraints[0].by_node) == (None, {})
    [x] = rates.report(600, "x").constraints
    assert (x.satisfied, x.violated, list(x.by_node)) == (10.0, 4.0, ["anvil", "forge"])
    assert x.by_node["anvil"].violated_share == 0.5
    assert rates.report(60, "x").total.satisfied == 10.0
    mine = rates.report(60, node="forge")
    assert (mine.total.satisfied, mine.total.violated) == (7.0, 1.0)
    assert [rates.knows_constraint(id_) for id_ in ("x", "z", "never", "other")] == [True, True, True, False]
    assert [rates.knows_node(name) for name in ("forge", "anvil", "other")] == [True, True, False]
    with pytest.raises(ConstraintCrdtError, match="no half-life of 420 s is tracked here, but 60, 600 s"):
        rates.report(420)
    machine.seconds = 3600.0
    assert [each.constraint for each in rates.report(60).constraints] == ["never"], "nothing is left of the others"


def test_folding_takes_what_waits_along() -> None:
    machine = Machine()
    machine.rates.note({"x": (4, 0), "y": (1, 0)})
    machine.rates.fold(["x"])
    machine.rates.fold(["x"])
    assert machine.gossip.state.rates.recorded == {"", "y"}
    assert machine.rates.report(60).total.satisfied == 5.0


def test_half_lives_out_of_bounds_are_refused() -> None:
    with pytest.raises(ConstraintCrdtError, match="a half-life is from"):
        NodeSettings(half_lives=(0.0,))
    with pytest.raises(ConstraintCrdtError, match="1 to 8 different"):
        NodeSettings(half_lives=())


@pytest.mark.slow
async def test_nodes_tell_each_other_what_was_evaluated_and_recorded_lately() -> None:
    async with fleet("a", "b", settings=SOON) as (a, b):
        await a.add_constraint("cool", when="temp_c < 85.0")
        await a.record(7, 3, constraint="cool")
        await a.batch([RecordCounts(satisfied=5), RecordCounts(satisfied=5)])
        assert a.rates.report(3600).total.satisfied > 16.9
        await a.coverage.wait("cool", "all", 10)
        for _ in range(3):
            await b.measure({"temp_c": 91.0})
        await eventually(lambda: _violated(a, "b") > 2 and _violated(b, "b") > 2)
        report = a.rates.report(3600)
        assert report.tracked == (60.0, 3600.0)
        assert (report.ahead, report.steps_back, report.untracked_by) == (0, 0, ())


def _violated(node: Node, by: str) -> float:
    found = node.rates.report(3600).total.by_node.get(by)
    return found.violated if found else 0.0


@pytest.mark.slow
async def test_what_was_gathered_is_written_when_a_node_stops() -> None:
    network = MemoryNetwork()
    slow = msgspec.structs.replace(QUICK, rate_every=3600.0)
    async with Node(name="a", settings=slow, transport=network.transport()) as a:
        b = Node(name="b", settings=slow, transport=network.transport())
        await b.start()
        await eventually(lambda: a.status().peers == 1)
        await b.record(7, 1)
        await eventually(lambda: agreed([a, b]))
        assert a.rates.report().total.satisfied == 0.0
        assert b.rates.report().total.satisfied > 6.0
        await b.stop()
        await eventually(lambda: a.rates.report().total.satisfied > 6.0)
        assert list(a.rates.report().total.by_node) == ["b"]
