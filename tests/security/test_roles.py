"""Running nodes with roles: an observer judges for itself, and writes nothing."""

import logging
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, Verdict
from constraint_crdt.errors import NotPermitted
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.types.alerts import WAYS
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.orset import Before, Subject
from constraint_crdt.types.rollouts import STAGED
from tests.runtime.fleet import QUICK, agreed, eventually

from .fleets import Fleet


@pytest.mark.long
async def test_an_observer_judges_and_counts_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant, network = Fleet(tmp_path / "plant"), MemoryNetwork()

    def node(name: str, role: str) -> Node:
        folder = plant.certify(name, role=role)
        settings = msgspec.structs.replace(QUICK, name=name, fleet=plant.root.fleet, identity=str(folder), count_every=0.05)
        return Node(settings=settings, transport=network.transport())

    async with node("forge", "operator") as forge, node("eye", "observer") as eye, node("anvil", "member") as anvil:
        await forge.add_constraint("never", when="v < 0.0")
        await eventually(lambda: all("never" in each.gossip.state.constraints for each in (eye, anvil)))
        for each in (eye, anvil):
            (judged,) = await each.check({"v": 1.0})
            assert judged.verdict is Verdict.VIOLATED
        await eventually(lambda: forge.gossip.state.metrics.total_violations == 1)
        await eye.measure({"v": 2.0})
        await eye._runtime.evaluator.write_counts()
        await eye._runtime.evaluator.write_times()
        await eye._runtime.evaluator.write_verdicts(final=True)
        await eventually(lambda: agreed([forge, eye, anvil]))
        assert {cell.replica.node_id for cell in eye.gossip.state.rows.each(COUNTS)} == {"anvil"}
        with pytest.raises(NotPermitted, match="eye is an observer of the fleet, which may not"):
            await eye.add_constraint("x", when="v < 1.0")
        with pytest.raises(NotPermitted, match="anvil is a member of the fleet, which may not remove constraints"):
            await anvil.remove_constraint("never")
        with pytest.raises(NotPermitted, match="anvil is a member of the fleet, which may not silence alerts"):
            await anvil.fleet_alerts.silence("x", why="y")
        with pytest.raises(NotPermitted, match="anvil is a member of the fleet, which may not change alert rules"):
            await anvil.fleet_alerts.define({"name": "away", "kind": "silence"})
        await forge.fleet_alerts.define({"name": "never", "kind": "rate", "above": 0.0})
        await eventually(lambda: [each.name for each in eye.alerts.report().rules] == ["never"])
        assert {cell.replica.node_id for cell in eye.gossip.state.rows.each(WAYS)} <= {"forge", "anvil"}
        with pytest.raises(NotPermitted, match="anvil is a member of the fleet, which may not disable or enable constraints"):
            await anvil.disable(["never"], why="noise")
        forged, note = Before(Subject(ADD, "never"), (b"\xc0",)), anvil.gossip.state.changes.note
        with pytest.raises(NotPermitted, match="may not write the history of rules"):  # else a revert might restore a forged one
            anvil.gossip.write(lambda me: note([forged], operation="add", actor="", why="", time=1, node=me))
        assert not (await eye.decide({"v": 1.0})).allowed, "a question writes nothing"
        staged = [AddConstraint(id="never", when="v < 9.0")]
        with pytest.raises(NotPermitted, match="anvil is a member of the fleet, which may not stage constraints"):
            await anvil.rollouts.begin(staged, stages=["!zone"], gate="violations == 0")
        began = await forge.rollouts.begin(staged, stages=["!zone"], gate="violations == 0 && unknown <= 2")
        for each in (forge, anvil, eye):
            await each.measure({"v": 2.0})
        await eventually(lambda: forge.rollouts.report(began.id).phase == "complete")
        assert {cell.replica.node_id for cell in eye.gossip.state.rows.each(STAGED)} <= {"forge", "anvil"}
        assert forge.rollouts.report(began.id).stages[0].nodes == ("anvil", "forge"), "an observer tells nothing"
        await forge.disable(["never"], why="noise")
        await eventually(lambda: eye.status().disabled == anvil.status().disabled == 1)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
