"""Alerts of a whole fleet, on real nodes: one node tells, another takes over, and silences are respected everywhere."""

import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, EventKind, MemoryNetwork, Node
from constraint_crdt.alerts import delivery
from constraint_crdt.alerts import engine as alerting
from tests.conftest import within
from tests.runtime.fleet import QUICK, eventually

RULE = {"name": "away", "kind": "silence", "node": "[gl]o*", "for": 0.3, "keep_firing_for": 0.0, "to": ["ops"]}
"""Of nodes that leave. On a busy machine others may be silent for a moment, too."""


class Ops:
    """The destination of all nodes: what arrived, in order."""

    def __init__(self) -> None:
        self.got: list[dict[str, object]] = []

    def post(self, url: str, body: bytes) -> int | str:
        self.got.append(msgspec.json.decode(body))
        return 200

    def told(self) -> list[tuple[object, object]]:
        return [(each["subject"], each["state"]) for each in self.got]


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch) -> Ops:
    found = Ops()
    monkeypatch.setattr("constraint_crdt.runtime.lifecycle.LOOK_EVERY", 0.02)
    monkeypatch.setattr(alerting, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(delivery, "_post", found.post)
    monkeypatch.setattr(delivery, "GROUP_EVERY", 10**8)
    return found


def born(network: MemoryNetwork, name: str, *, destination: bool = True, store: str = "memory") -> Node:
    destinations = {"ops": "https://ops.example/T0KEN"} if destination else {}
    labels = {"zone": "a" if name < "n2" else "b"}
    settings = msgspec.structs.replace(QUICK, name=name, destinations=destinations, labels=labels, store=store)
    return Node(settings=settings, transport=network.transport())


@pytest.mark.slow
async def test_one_node_tells_and_another_takes_over(ops: Ops) -> None:
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(born(network, f"n{number}", destination=number < 2)) for number in range(3)]
        await eventually(lambda: all(node.status().peers == 2 for node in nodes))
        async with born(network, "gone", destination=False):
            await eventually(lambda: all(node.status().peers == 3 for node in nodes))
        await eventually(lambda: list(nodes[2].gossip.state.ways_out) == ["n0", "n1"])
        change = await nodes[2].fleet_alerts.define(RULE)
        assert (change.change, change.lacking) == ("added", ())
        await eventually(lambda: ("gone", "firing") in ops.told())
        assert "gone" in ops.got[0]["unreached"]  # type: ignore[operator]
        await eventually(lambda: all(each.told for node in nodes for each in node.alerts.report().alerts))
        told = str(ops.got[0]["node"])
        first, other = (nodes[0], nodes[1]) if told == "n0" else (nodes[1], nodes[0])
        async with born(network, "lost", destination=False):
            await eventually(lambda: nodes[2].status().peers == 3)
            await first.stop()
        left = time.monotonic()
        await eventually(lambda: ("lost", "firing") in ops.told())
        assert time.monotonic() - left < within(5.0 + 0.3)
        assert ops.got[-1]["node"] == other.settings.name
        async with born(network, "gone", destination=False):
            await eventually(lambda: ("gone", "resolved") in ops.told())
        assert ops.told().count(("gone", "firing")) == 1, "the other one knew that it was told"
        await nodes[2].fleet_alerts.remove("away")
        await eventually(lambda: ("lost", "resolved") in ops.told())
        assert ops.got[-1]["detail"] == "the rule was removed"


@pytest.mark.slow
async def test_a_restart_neither_tells_again_nor_forgets(ops: Ops, tmp_path: Path) -> None:
    network, store = MemoryNetwork(), str(tmp_path / "n0.db")
    async with born(network, "n0", store=store) as node:
        async with born(network, "gone", destination=False):
            await eventually(lambda: node.status().peers == 1)
        await node.fleet_alerts.define(RULE)
        await eventually(lambda: ops.told() == [("gone", "firing")])
        await eventually(lambda: node.alerts.report().alerts[0].told == {"ops": "n0"})
    async with born(network, "n0", store=store) as node:
        await eventually(lambda: any(each.firing for each in node.alerts.report().alerts))
        async with born(network, "gone", destination=False):
            await eventually(lambda: len(ops.got) > 1)
    assert ops.told() == [("gone", "firing"), ("gone", "resolved")]


@pytest.mark.slow
async def test_silences_and_acknowledgements_hold_on_all_nodes(ops: Ops) -> None:
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(born(network, name)) for name in ("n0", "n3")]
        events: list[tuple[EventKind, str]] = []
        two.event_stream.listen(lambda kept: events.append((kept.event.kind, kept.event.detail)))
        with pytest.raises(ConstraintCrdtError, match="reason"):
            await one.fleet_alerts.silence("gone*", why=" ")
        with pytest.raises(ConstraintCrdtError, match="above 0"):
            await one.fleet_alerts.silence("gone*", why="x", for_=0.0)
        with pytest.raises(KeyError):
            await one.fleet_alerts.acknowledge("away")
        silence = await one.fleet_alerts.silence("gone*", why="moved", for_=600.0)
        await eventually(lambda: [each.id for each in two.fleet_alerts.silences()] == [silence.id])
        assert (EventKind.SILENCED, f"{silence.id}: gone* is silenced; moved") in events
        await one.fleet_alerts.define(RULE)
        async with born(network, "gone", destination=False), born(network, "lost", destination=False):
            await eventually(lambda: one.status().peers == two.status().peers == 3)
        await eventually(lambda: ops.told() == [("lost", "firing")])
        await eventually(lambda: any(each.subject == "gone" and each.firing for each in two.alerts.report().alerts))
        gone = next(each for each in two.alerts.report().alerts if each.subject == "gone")
        assert (gone.silenced, gone.told) == ((silence.id,), {})
        (done,) = await two.fleet_alerts.acknowledge("away/lost", why="on it")
        await eventually(lambda: any(each.acknowledged for each in one.alerts.report().alerts))
        assert done.alert == "away/lost"
        await two.fleet_alerts.unsilence(silence.id)
        await eventually(lambda: ("gone", "firing") in ops.told())
        assert ops.told().count(("lost", "firing")) == 1
        await eventually(lambda: [each.id for each in one.fleet_alerts.silences()] == [done.id])
        assert [(each.operation, each.subject) for each in one.audit() if "silence" in each.operation] == [
            ("silence", "gone*"), ("unsilence", "gone*")
        ]  # fmt: skip


@pytest.mark.long
async def test_an_alert_that_is_acknowledged_before_it_is_told_is_not_told_and_the_next_one_is(
    ops: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "APART", 0)
    network = MemoryNetwork()
    async with born(network, "n0") as one, born(network, "n3") as two:
        silence = await one.fleet_alerts.silence("gone", why="moved", for_=600.0)  # so that nobody is told yet
        await one.fleet_alerts.define(RULE)
        async with born(network, "gone", destination=False):
            await eventually(lambda: one.status().peers == two.status().peers == 2)
        await eventually(lambda: any(each.firing for each in one.alerts.report().alerts))
        await eventually(lambda: any(each.firing for each in two.alerts.report().alerts))
        await two.fleet_alerts.acknowledge("away/gone")
        await eventually(lambda: all(each.acknowledged for node in (one, two) for each in node.alerts.report().alerts))
        await one.fleet_alerts.unsilence(silence.id)
        await eventually(lambda: not two.alerts.report().alerts[0].silenced)
        async with born(network, "lost", destination=False):
            await eventually(lambda: one.status().peers == two.status().peers == 2)
        await eventually(lambda: ops.told() == [("lost", "firing")])
        async with born(network, "gone", destination=False):
            await eventually(lambda: [each.subject for each in one.alerts.report().alerts] == ["lost"])
            await eventually(lambda: [each.subject for each in two.alerts.report().alerts] == ["lost"])
        await eventually(lambda: ("gone", "firing") in ops.told())


async def test_a_rule_with_an_address_or_too_many_rules_are_refused(ops: Ops) -> None:
    async with born(MemoryNetwork(), "n0") as node:
        with pytest.raises(ConstraintCrdtError, match=r"every node reads a rule of the fleet") as caught:
            await node.fleet_alerts.define({**RULE, "to": ["https://ops.example/T0KEN"]})
        assert "T0KEN" not in str(caught.value)
        assert (await node.fleet_alerts.define({**RULE, "to": ["nobody"]})).lacking == ("nobody",)
        with pytest.raises(KeyError):
            await node.fleet_alerts.remove("other")
        with pytest.raises(ConstraintCrdtError, match="there is no kind"):
            await node.fleet_alerts.define({**RULE, "kind": "noise"})
