"""What is told of constraints: the difference between two moments, an expiry once."""

import pytest

from constraint_crdt import ConstraintState, EventKind
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.runtime import change_feed
from constraint_crdt.runtime.change_feed import DefinitionChange, DefinitionChanges
from constraint_crdt.types.definition import ADD


class Told:
    """A state on a clock that the test sets, and the news of it."""

    def __init__(self) -> None:
        self.time = 0
        self.state = ConstraintState(now=lambda: self.time)
        self.news = DefinitionChanges(self.state)

    def at(self, time: int) -> list[DefinitionChange]:
        """Go to a moment; what is new then."""
        self.time = time
        self.news.note(self.state.constraints.take_expiry_changes())
        return self.news.take()


def test_an_expiry_is_told_once_and_the_removal_of_the_cells_not_at_all() -> None:
    told = Told()
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=10)
    assert told.at(0) == [DefinitionChange(EventKind.ADDED, "c", "x < 1.0")]
    assert told.at(9) == []
    assert told.at(10) == [DefinitionChange(EventKind.EXPIRED, "c", "")]
    assert told.at(11) == []
    told.state.constraints.remove_adds(list(told.state.rows.each(ADD)), node="a")
    assert told.at(12) == []
    assert told.news._expired == {}


def test_time_that_goes_back_and_forth_is_no_news() -> None:
    told = Told()
    told.state.constraints.add("c", node="a", expires_at=10)
    told.at(0)
    assert [each.kind for each in told.at(10)] == [EventKind.EXPIRED]
    assert told.at(9) == []
    assert told.at(10) == []
    told.at(9)
    told.state.constraints.remove("c", node="a")
    assert [each.kind for each in told.at(9)] == [EventKind.REMOVED]


def test_what_is_extended_is_added_again_and_expires_again() -> None:
    told = Told()
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=10)
    told.at(0)
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=20)
    assert [each.kind for each in told.at(5)] == [EventKind.CHANGED]
    assert [each.kind for each in told.at(20)] == [EventKind.EXPIRED]
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=30)
    assert told.at(20) == [DefinitionChange(EventKind.ADDED, "c", "x < 1.0")]
    assert [each.kind for each in told.at(30)] == [EventKind.EXPIRED]


def test_of_two_definitions_the_end_of_one_is_a_change() -> None:
    told = Told()
    other = ConstraintState()
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=10)
    other.constraints.add("c", node="b", when="x < 2.0")
    told.state.merge(other)
    told.at(0)
    assert told.at(10) == [DefinitionChange(EventKind.CHANGED, "c", "x < 2.0")]


def test_what_had_expired_before_anybody_looked_is_no_news() -> None:
    told = Told()
    told.time = 50
    told.state.constraints.add("c", node="a", expires_at=10)
    assert told.at(50) == []


def test_much_news_is_told_in_pieces() -> None:
    told = Told()
    for number in range(25):
        told.state.constraints.add(f"c{number}", node="a", expires_at=10)
    first = told.news.take(10)
    assert (len(first), told.news.waiting) == (10, True)
    assert first == sorted(first)
    assert len(told.news.take(10)) == 10
    assert (len(told.news.take(10)), told.news.waiting) == (5, False)


def test_a_change_is_seen_at_once_and_told_later() -> None:
    forgotten: list[str] = []
    state = ConstraintState()
    news = DefinitionChanges(state)
    news.subscribe(forgotten.extend)
    for id_ in "cab":
        state.constraints.add(id_, node="a", when="x < 1.0")
    assert (news.settle(), forgotten, news.waiting) == (3, ["a", "b", "c"], True)
    assert news.settle() == 0
    assert news.take(1) == [DefinitionChange(EventKind.ADDED, "a", "x < 1.0")]
    state.constraints.add("a", node="a", when="x < 2.0")
    state.constraints.remove("b", node="a")
    state.constraints.add("c", node="a", when="x < 3.0")
    assert (news.settle(), forgotten[3:]) == (3, ["a", "b", "c"])
    added, changed = news.take()
    assert (added, changed[:3]) == (DefinitionChange(EventKind.ADDED, "c", "x < 3.0"), (EventKind.CHANGED, "a", "x < 2.0"))
    assert changed.former is not None
    assert changed.former.when == "x < 1.0"
    assert (news.waiting, forgotten[6:]) == (False, [])


def test_what_others_add_in_the_same_words_before_it_is_told_is_no_change() -> None:
    forgotten: list[str] = []
    state, other = ConstraintState(), ConstraintState()
    news = DefinitionChanges(state)
    news.subscribe(forgotten.extend)
    state.constraints.add("c", node="a", when="x < 1.0")
    other.constraints.add("c", node="b", when="x < 1.0")
    assert news.settle() == 1
    state.merge(other)
    assert (news.settle(), forgotten) == (0, ["c"])
    assert news.take() == [DefinitionChange(EventKind.ADDED, "c", "x < 1.0")]


def test_what_is_back_to_what_was_told_is_no_news_but_what_was_found_is_gone() -> None:
    forgotten: list[str] = []
    state = ConstraintState()
    news = DefinitionChanges(state)
    news.subscribe(forgotten.extend)
    state.constraints.add("c", node="a", when="x < 1.0")
    news.take()
    state.constraints.remove("c", node="a")
    assert news.settle() == 1
    state.constraints.add("c", node="a", when="x < 1.0")
    assert (news.settle(), forgotten) == (1, ["c", "c", "c"])
    assert (news.take(), news.waiting) == ([], False)


def test_what_time_ends_before_it_is_told_is_forgotten_then() -> None:
    told = Told()
    forgotten: list[str] = []
    news = DefinitionChanges(told.state)
    news.subscribe(forgotten.extend)
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=10)
    told.state.constraints.add("d", node="a", when="x < 1.0", expires_at=20)
    assert (news.settle(), forgotten) == (2, ["c", "d"])
    told.time = 10
    assert news.take() == [DefinitionChange(EventKind.ADDED, "d", "x < 1.0")]
    assert forgotten == ["c", "d", "c"]


def test_one_that_is_asked_for_is_told_before_the_others() -> None:
    told = Told()
    for id_ in "abc":
        told.state.constraints.add(id_, node="a")
    assert told.news.take_of("b") == DefinitionChange(EventKind.ADDED, "b", "")
    assert told.news.take_of("b") is None
    assert [each.constraint for each in told.news.take()] == ["a", "c"]


def test_what_is_in_force_again_for_longer_than_clocks_may_differ_is_added_again_and_expires_again() -> None:
    """The clock had been set forth by mistake, and was set back."""
    told = Told()
    told.state.constraints.add("c", node="a", when="x < 1.0", expires_at=1800 * SECOND)
    told.at(0)
    assert [each.kind for each in told.at(1800 * SECOND)] == [EventKind.EXPIRED]
    assert told.at(1795 * SECOND) == []
    assert told.at(1800 * SECOND) == []
    assert told.at(0) == [DefinitionChange(EventKind.ADDED, "c", "x < 1.0")]
    assert [each.kind for each in told.at(3600 * SECOND)] == [EventKind.EXPIRED]


def test_an_addition_that_had_ended_before_it_came_is_told_once_with_its_writer() -> None:
    told = Told()
    told.at(3600 * SECOND)
    told.state.constraints.add("late", node="b", expires_at=1800 * SECOND)
    told.state.constraints.add("just", node="b", expires_at=3595 * SECOND)
    [change] = told.at(3600 * SECOND)
    assert (change.kind, change.constraint) == (EventKind.EXPIRED, "late")
    assert change.when == "it had ended 1800 s before, by this node's time; written by b"
    assert told.at(3601 * SECOND) == []
    assert [each.kind for each in told.at(0)] == [EventKind.ADDED, EventKind.ADDED]


def test_what_comes_with_many_others_is_settled_in_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "SETTLED_AT_ONCE", 10)
    found: list[str] = []
    other, state = ConstraintState(), ConstraintState()
    news = DefinitionChanges(state)
    news.subscribe(found.extend)
    ids = [f"c{number:03d}" for number in range(34)]
    for id_ in ids:
        other.constraints.add(id_, node="a", when="x < 1.0")
    state.constraints.add("here before", node="b")
    state.merge(other)
    assert (news.settle(), len(found), news.arriving, news.waiting) == (35, 11, True, True), "all are counted at once"
    state.constraints.remove(ids[30], node="b")
    state.constraints.add(ids[31], node="b", when="x < 2.0")
    assert news.take_of(ids[33]) == DefinitionChange(EventKind.ADDED, ids[33], "x < 1.0"), "whatever waits before it"
    told = news.take(5)
    assert (len(told), news.arriving) == (5, True)
    told += news.take()
    assert not news.arriving
    assert not news.waiting
    assert sorted(change.constraint for change in told) == sorted(["here before", *ids[:30], *ids[31:33]])
    assert [change.when for change in told if change.constraint == ids[31]] == ["x < 2.0"]
    assert set(found) == {"here before", *ids[:30], *ids[31:]}
    assert news.settle() == 0
