"""The course of a constraint in memory, against a plain model of samples and turns."""

from argparse import Namespace
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.insight import history
from constraint_crdt.insight.history import VerdictHistory
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.evidence import GetSeries, show_series
from constraint_crdt.operations.operation import Table
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.verdicts import NodeVerdict

LIMIT = 1.5


class Verdicts:
    """The verdicts of a node on constraints `x <= 1.5`."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    @property
    def ids(self) -> list[str]:
        return sorted(self.values)

    def verdict(self, id_: str) -> NodeVerdict | None:
        return verdict_at(self.values[id_])


def verdict_at(value: float, limit: float = LIMIT) -> NodeVerdict:
    margin = limit - value
    return NodeVerdict(VerdictState.HOLDS, 0, (("x", str(value)),), margin, margin / limit if limit else None, "x")


class Followed:
    """A history, its clock, and the node that it follows."""

    def __init__(self) -> None:
        self.now = SECOND
        self.gossip = GossipNode("a", incarnation=1, now=lambda: self.now, renew=lambda: 2)
        self.verdicts = Verdicts()
        self.history = VerdictHistory(self.gossip, self.verdicts, lambda: self.now, lambda node: node != "gone")

    def told(self, node: str, state: VerdictState, since: int, id_: str = "speed") -> None:
        self.gossip.state.verdicts.put(id_, NodeVerdict(state, since), node=Replica(node, 1))


@pytest.fixture
def followed() -> Followed:
    found = Followed()
    found.gossip.add_constraint("speed", when="x <= 1.5")
    return found


@given(st.lists(st.sampled_from((0.5, 1.0, 1.4, 1.6, 9.0)), min_size=1, max_size=120), st.integers(1, 12))
def test_a_bounded_course_keeps_the_worst_sample_and_the_latest(values: list[float], points: int) -> None:
    course = history._Course()
    for time, value in enumerate(values):
        course.append(time, verdict_at(value), 10)
    samples = list(course.samples(points))
    assert len(course.times) <= 10
    assert len(samples) <= points + 1
    assert max(value for _, value, _, _ in samples) == max(values)
    assert samples[-1][:2] == (len(values) - 1, values[-1])
    assert [time for time, *_ in samples] == sorted(time for time, *_ in samples)
    assert {limit for _, _, limit, _ in samples} == {LIMIT}


@pytest.mark.parametrize(
    ("value", "margin", "share", "limit"),
    [
        (9.0, -7.5, -5.0, 1.5),  # x <= 1.5
        (5.0, -15.0, -0.75, 20.0),  # x >= 20
        (-15.0, 5.0, 0.25, -20.0),  # x >= -20
        (9.0, -9.0, None, 0.0),  # x <= 0
    ],
)
def test_the_limit_follows_from_value_margin_and_share(value: float, margin: float, share: float | None, limit: float) -> None:
    assert history._limit(value, margin, share) == limit


def test_a_limit_that_the_margin_does_not_tell_is_unknown() -> None:
    assert isnan(history._limit(0.0, 5.0, 1.0))  # x <= 5 and x >= -5
    assert isnan(history._limit(float("nan"), 5.0, 1.0))


async def test_each_constraint_is_sampled_in_turn(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "SAMPLED_AT_ONCE", 2)
    followed.verdicts.values = {"a": 1.0, "b": 2.0, "speed": 9.0}
    for _ in range(2):
        await followed.history.sample()
    report = followed.history.report("speed", 300)
    assert [(each.value, each.limit, each.margin) for each in report.points] == [(9.0, 1.5, -7.5)]
    assert report.variable == "x"
    del followed.verdicts.values["a"]
    for _ in range(2):
        await followed.history.sample()
    with pytest.raises(KeyError):
        followed.history.report("a", 300)


def test_spells_go_from_turn_to_turn_and_a_violation_begins_with_its_first_look(followed: Followed) -> None:
    for state, since in (("holds", 1), ("pending", 5), ("violated", 5), ("clearing", 5), ("holds", 9)):
        followed.told("b", VerdictState(state), since)
    followed.told("gone", VerdictState.UNKNOWN, 3)
    found = {each.node: each for each in followed.history.report("speed", 10).nodes}
    assert [(each.state, each.since, each.until) for each in found["b"].spells] == [
        ("holds", 1, 5), ("clearing", 5, 9), ("holds", 9, None)
    ]  # fmt: skip
    assert (found["b"].live, found["gone"].live) == (True, False)


def test_turns_are_bounded_by_node_and_in_all(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "TURNS", 4)
    monkeypatch.setattr(history, "ALL_TURNS", 10)
    for index in range(10):
        followed.told("b", VerdictState.VIOLATED if index % 2 else VerdictState.UNKNOWN, index + 1, "old")
    assert [each.since for each in followed.history.report("old", 10).nodes[0].spells] == [7, 8, 9, 10]
    for node in ("b", "c"):
        for index in range(4):
            followed.told(node, VerdictState.VIOLATED if index % 2 else VerdictState.UNKNOWN, index + 1)
    assert len(followed.history.report("speed", 10).nodes) == 2
    with pytest.raises(KeyError):
        followed.history.report("old", 10)


def test_the_latest_turns_of_all_nodes_are_kept_in_order_and_bounded(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = (("b", "unknown", 4), ("c", "pending", 2), ("c", "violated", 2), ("c", "violated", 2), ("b", "holds", 7))
    for node, state, since in turns:
        followed.told(node, VerdictState(state), since)
        followed.history.latest(9)  # each is read by itself, as a node reads them over time
    followed.told("b", VerdictState.VIOLATED, 1)  # of a former life
    told = [(each.node, each.state, each.since) for each in followed.history.latest(9)]
    assert told == [("c", "pending", 2), ("c", "violated", 2), ("b", "unknown", 4), ("b", "holds", 7)]
    assert [each.since for each in followed.history.latest(1)] == [7]
    monkeypatch.setattr(history, "LATEST_TURNS", 3)
    bounded = VerdictHistory(followed.gossip, Verdicts(), lambda: 1, bool)
    for since in range(10, 20):
        followed.told("b", VerdictState.VIOLATED if since % 2 else VerdictState.HOLDS, since)
        bounded.latest(1)
    assert [each.since for each in bounded.latest(9)] == [17, 18, 19]


def test_violations_between_which_a_node_told_no_turn_are_several(followed: Followed) -> None:
    """The defect: of a constraint that flaps each second told state was a violation, and these counted as a single one."""
    for since in (2.0, 5.0, 5.4, 8.0):  # 5.4: the same one, as a new life of the node has it
        followed.told("b", VerdictState.VIOLATED, int(since * SECOND))
        followed.history.latest(1)
    assert list(followed.history.flapping(0, 3)) == [(3, "speed", "b")]
    for since in (9.0, 12.0):
        followed.told("b", VerdictState.HOLDS, int(since * SECOND))
    [found] = followed.history.report("speed", 10).nodes
    assert [(each.state, each.since) for each in found.spells] == [
        ("violated", 2 * SECOND), ("violated", 5 * SECOND), ("violated", 8 * SECOND), ("holds", 9 * SECOND)
    ]  # fmt: skip


async def test_the_command_tells_the_margin_and_each_spell(followed: Followed) -> None:
    followed.verdicts.values = {"speed": 9.0}
    await followed.history.sample()
    followed.told("b", VerdictState.VIOLATED, 5)
    sentence, table, *_ = show_series(followed.history.report("speed", 10), GetSeries(id="speed"), Namespace())
    assert str(sentence).startswith("speed: margin of x on a since ")
    assert str(sentence).endswith(": lowest -7.5, now -7.5")
    assert isinstance(table, Table)
    assert [row[:2] for row in table.rows] == [["b", "violated"]]
    silent = VerdictHistory(followed.gossip, Verdicts(), lambda: 1, bool)
    empty, *_ = show_series(silent.report("speed", 10), GetSeries(id="speed"), Namespace())
    assert empty == "speed: no margin was sampled on a"
