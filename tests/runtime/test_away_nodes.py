"""Nodes that are gone for good: retired by a setting, and warned of where their names are made up."""

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, NodeSettings
from constraint_crdt.insight.diagnosis import check_name
from constraint_crdt.operations.nodes import NodeReport, away_nodes
from constraint_crdt.runtime import lifecycle
from constraint_crdt.runtime.settings import SettingsError, load_settings
from tests.runtime.fleet import QUICK, agreed, eventually


@pytest.mark.parametrize(("value", "seconds"), [("7d", 604_800.0), ("3600", 3600.0), ("0", 0.0)])
def test_the_time_is_a_length_or_a_number(value: str, seconds: float) -> None:
    assert load_settings({"name": "a", "retire_away_after": value}, {}, None).retire_away_after == seconds


@pytest.mark.parametrize("value", ["10m", "soon", "-1"])
def test_too_short_a_time_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"retire_away_after|is not a length of time"):
        load_settings({"name": "a", "retire_away_after": value}, {}, None)
    with pytest.raises(SettingsError, match="must be 0, for never, or from 3600 seconds"):
        NodeSettings(retire_away_after=60.0)


@pytest.mark.slow
async def test_a_node_that_is_away_for_too_long_is_retired_by_one_that_is_not_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network, settings = MemoryNetwork(), msgspec.structs.replace(QUICK, retire_away_after=7200.0)
    monkeypatch.setattr(lifecycle, "RETIRE_EVERY", 0.02)
    looks, ahead = list[float](), 0.0

    def away_later(nodes: list[NodeReport], seconds: float, uptime: float, now: float) -> list[str]:
        looks.append(now)
        return away_nodes(nodes, seconds, uptime + ahead, now + ahead)

    monkeypatch.setattr(lifecycle, "away_nodes", away_later)
    async with (
        Node(name="a", settings=settings, transport=network.transport()) as a,
        Node(name="b", settings=QUICK, transport=network.transport()) as b,
    ):
        async with Node(name="c", settings=QUICK, transport=network.transport()) as c:
            await c.add_constraint("x")
            await eventually(lambda: agreed([a, b, c]))
        await eventually(lambda: "c" not in a._runtime.exchanges.live)
        seen = len(looks)
        await eventually(lambda: len(looks) > seen + 1)
        assert "c" not in a.gossip.state.retirements, "it is away for a moment"
        ahead = 7300.0
        await eventually(lambda: "c" in b.gossip.state.retirements)
        assert "a" not in b.gossip.state.retirements
        assert {each.actor for each in a.gossip.state.audit if each.operation == "retire"} == {"retire_away_after"}
        network.crash("b")
        await eventually(lambda: not a._runtime.exchanges.live)
        await a._runtime.retire_away()
        assert "b" not in a.gossip.state.retirements, "alone, it may be cut off itself"


@pytest.mark.parametrize("name", ["3f2a9c01b7de", "robot-7d9c6bd5f6-x2x9k"])
def test_a_random_name_of_a_container_is_warned_of_where_nothing_is_kept(name: str) -> None:
    (told,) = check_name(name, name, in_memory=True)
    assert (told.level, "retire_away_after" in told.advice) == ("warn", True)
    assert not list(check_name(name, name, in_memory=False))
    assert not list(check_name(name, "another", in_memory=True)), "somebody chose it"


@pytest.mark.parametrize("name", ["forge", "robot-7", "123456789012", "abcdefabcdef", "ip-10-0-0-12"])
def test_a_name_that_somebody_chose_is_none(name: str) -> None:
    assert not list(check_name(name, name, in_memory=True))
