"""The cells of alerts: what was told, silences and rules, against plain models; bounds, slots, and malformed cells."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Replica
from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import UnknownName
from constraint_crdt.types import alerts
from constraint_crdt.types.alerts import (
    ALERT_RULE,
    ATTEMPTED,
    DELIVERED,
    ENDED,
    QUIET,
    SILENCE,
    TOLD,
    WAYS,
    FleetRules,
    Silences,
    SilenceValue,
    ToldAlerts,
    Unit,
    WaysOut,
)

A, B, C = Replica("a", 1), Replica("b", 1), Replica("c", 1)
UNITS = [Unit("r", subject, "ops") for subject in "xy"]


@dataclass
class Write:
    """A statement of the model, with all statements that its writer knew."""

    by: int
    key: object
    value: object
    knows: frozenset[int]


@dataclass
class Model:
    """Who knows which statements."""

    writes: list[Write] = field(default_factory=list)
    known: list[set[int]] = field(default_factory=lambda: [set(), set(), set()])

    def write(self, by: int, key: object, value: object) -> None:
        about = frozenset(each for each in self.known[by] if self.writes[each].key == key)
        self.writes.append(Write(by, key, value, about))
        self.known[by].add(len(self.writes) - 1)

    def heads(self, at: int, key: object) -> list[object]:
        """What nobody overruled, by all that a node knows."""
        about = [each for each in self.known[at] if self.writes[each].key == key]
        latest = {self.writes[each].by: each for each in sorted(about)}
        over = set[int]().union(*(self.writes[each].knows for each in latest.values()))
        return sorted(self.writes[each].value for each in latest.values() if each not in over)  # type: ignore[type-var]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.sampled_from(UNITS), st.integers(0, 2), st.sampled_from((ATTEMPTED, DELIVERED, ENDED))),
    ),
    max_size=20,
)


@pytest.mark.slow
@given(steps)
def test_what_counts_is_what_no_other_life_overruled(done: list[tuple[object, int, int]]) -> None:
    rows, model, number = [Rows() for _ in range(3)], Model(), 0
    views = [ToldAlerts(each) for each in rows]
    for what, one, other in done:
        if what == "merge":
            rows[one].merge(rows[other])
            model.known[one] |= model.known[other]
        elif isinstance(what, Unit):
            number += 1
            views[one].put_all({what: (number, other, number)}, node=(A, B, C)[one])
            model.write(one, what, (number, other))
        for place, view in enumerate(views):
            for unit in UNITS:
                assert [(each.episode, each.phase) for each in view.of(unit)] == model.heads(place, unit)
    for place, view in enumerate(views):
        fresh = Rows()
        fresh.merge(rows[place])
        assert {unit: ToldAlerts(fresh).of(unit) for unit in UNITS} == {unit: view.of(unit) for unit in UNITS}


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(("merge", "put", "remove")), st.integers(0, 2), st.integers(0, 2)), max_size=16))
def test_the_latest_of_concurrent_rules_counts_and_a_removal_only_alone(done: list[tuple[str, int, int]]) -> None:
    rows, model = [Rows() for _ in range(3)], Model()
    views = [FleetRules(each) for each in rows]
    for at, (what, one, other) in enumerate(done, 1):
        if what == "merge":
            rows[one].merge(rows[other])
            model.known[one] |= model.known[other]
        else:
            removed = what == "remove"
            views[one].put("r", str(at), at=at, actor="o", node=(A, B, C)[one], removed=removed)
            model.write(one, "r", (not removed, at))
        for place, view in enumerate(views):
            heads = model.heads(place, "r")
            standing = [value for value in heads if isinstance(value, tuple) and value[0]]
            found = view.of("r")
            assert (None if found is None else (found.at, found.definitions)) == (
                (max(standing)[1], len(heads)) if standing else None
            )
            assert list(view) == (["r"] if standing else [])


def silence(until: int = 100, alert: str = "x", at: int = 1) -> SilenceValue:
    return SilenceValue(QUIET, until, alert, why="w", actor="o", at=at)


def test_a_silence_ends_by_itself_or_by_the_word_of_any_node() -> None:
    one, other = Rows(), Rows()
    first, second = Silences(one).put(silence(), node=A), Silences(one).put(silence(200, "y"), node=A)
    told: list[tuple[str, bool]] = []
    here, there = Silences(one), Silences(other)
    there.watch(lambda before, after: told.append(((after or before).value.alert, after is not None)))  # type: ignore[union-attr]
    other.merge(one)
    assert [each.id for each in there.active(99)] == [first.id, second.id]
    assert [each.id for each in there.active(100)] == [second.id]
    there.end(there.find(second.id, 50), at=50, actor="p", node=B)
    one.merge(other)
    assert [each.id for each in here.active(50)] == [first.id]
    here.end(here.find(first.id, 50), at=51, actor="p", node=A)
    other.merge(one)
    assert here.active(50) == there.active(50) == []
    assert told == [("x", True), ("y", True), ("y", False), ("x", False)]
    with pytest.raises(UnknownName):
        here.find(first.id, 50)


def test_slots_are_used_again_once_their_silence_is_long_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "SILENCE_SLOTS", 2)
    monkeypatch.setattr(alerts, "SLACK", 10)
    rows = Rows()
    view = Silences(rows)
    view.put(silence(100), node=A)
    last = view.put(silence(500), node=A)
    with pytest.raises(ConstraintCrdtError, match="2 silences and acknowledgements are the most of a node"):
        view.put(silence(600, at=109), node=A)
    view.end(last, at=109, actor="o", node=A)
    later = view.put(silence(600, at=110), node=A)
    assert [each.id for each in view.active(120)] == [later.id]
    assert len(list(rows.each(SILENCE))) == 2


def test_what_was_told_makes_room_for_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TOLD_SLOTS", 3)
    rows = Rows()
    view = ToldAlerts(rows)
    units = [Unit("r", str(number), "ops") for number in range(5)]
    view.put_all({units[0]: (1, DELIVERED, 1), units[1]: (1, ENDED, 3), units[2]: (1, ENDED, 2)}, node=A)
    view.put_all({units[3]: (1, DELIVERED, 4)}, node=A)
    assert {unit.subject for unit in view} == {"0", "1", "3"}, "the oldest that ended goes first"
    view.put_all({units[4]: (1, DELIVERED, 5), units[2]: (1, DELIVERED, 5)}, node=A)
    assert {unit.subject for unit in view} == {"2", "3", "4"}
    assert len(list(rows.each(TOLD))) == 3


def test_rules_and_names_of_rules_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MOST_RULES", 2)
    monkeypatch.setattr(alerts, "MOST_NAMES", 3)
    view = FleetRules(Rows())
    for name in "ab":
        view.put(name, "{}", at=1, actor="o", node=A)
    with pytest.raises(ConstraintCrdtError, match="2 alert rules are the most"):
        view.put("c", "{}", at=1, actor="o", node=A)
    view.put("a", "", at=2, actor="o", node=A, removed=True)
    view.put("c", "{}", at=3, actor="o", node=A)
    view.put("c", "", at=4, actor="o", node=A, removed=True)
    with pytest.raises(ConstraintCrdtError, match="3 names"):
        view.put("d", "{}", at=5, actor="o", node=A)
    view.put("a", "{}", at=6, actor="o", node=A)
    assert list(view) == ["a", "b"]


def test_ways_out_are_written_only_where_they_change() -> None:
    rows = Rows()
    view = WaysOut(rows)
    view.put([], node=A)
    assert rows.seq(A) == 0
    view.put(["ops", "log"], node=A)
    view.put(["log", "ops"], node=A)
    assert (rows.seq(A), view.of("a"), view.of("b")) == (1, ("log", "ops"), ())
    view.put([], node=A)
    assert view.of("a") == ()


@pytest.mark.parametrize(
    ("kind", "key", "value", "says"),
    [
        (SILENCE, "256", [0, 1], "the slot of a silence"),
        (SILENCE, "01", [0, 1], "the slot of a silence"),
        (SILENCE, "1", [0, -1], "a number of a silence"),
        (SILENCE, "1", [0, 1, "x" * 257], "the pattern of a silence"),
        (SILENCE, "1", [0, 1, "x", "", "", "y" * 257], "the reason of a silence"),
        (TOLD, "1000", ["r", "s", "p", 1, 1], "the slot of a told alert"),
        (TOLD, "1", ["r" * 257, "s", "p", 1, 1], "a name of a told alert"),
        (TOLD, "1", ["r", "s", "p", 1, -1], "a number of a told alert"),
        (ALERT_RULE, "r", ["x" * 2049], "the text of an alert rule"),
        (WAYS, "", ["w"] * 65, "the number of the destinations"),
        (WAYS, "k", ["w"], "the number of the destinations"),
    ],
)
def test_a_malformed_cell_is_refused(kind: int, key: str, value: object, says: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=says):
        read_cell(make_cell(kind, key, value).data)


def test_a_later_version_may_add_elements() -> None:
    for kind, key, value in (
        (SILENCE, "1", [9, 5, "x", "", "", "", "", 0, 0, None, "later"]),
        (TOLD, "1", ["r", "s", "p", 1, 9, 0, [], "later"]),
        (ALERT_RULE, "r", ["{}", 0, "", [], False, "later"]),
    ):
        read_cell(make_cell(kind, key, value).data)
