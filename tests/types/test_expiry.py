"""Constraints with an end: what is in force at a moment, however the cells came and time went."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import Change, ConstraintState, Definition
from constraint_crdt.crdt.cells import Cell, make_cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.crdt.repair import rebuild
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import ConstraintORSet, Dot
from constraint_crdt.types.definition import ADD, MEANING, read_addition


class Clocked:
    """A set with a clock that a test sets."""

    def __init__(self, rows: Rows | None = None) -> None:
        self.time = 0
        self.set = ConstraintORSet(rows, now=lambda: self.time)


def test_a_constraint_is_in_force_until_its_end_and_its_cell_stands() -> None:
    s = Clocked()
    s.set.add("c", node="a", expires_at=10)
    s.set.add("for ever", node="a")
    before = ConstraintState(s.set._rows).constraints_hash
    s.time = 9
    assert (sorted(s.set), len(s.set), "c" in s.set, s.set.next_expiry) == (["c", "for ever"], 2, True, 10)
    s.time = 10
    assert (sorted(s.set), len(s.set), "c" in s.set, s.set.next_expiry) == (["for ever"], 1, False, None)
    assert (s.set.definitions("c"), s.set.expired_ids) == ((), ["c"])
    assert [each.definition for each in s.set.expired("c")] == [Definition(expires_at=10)]
    assert ConstraintState(s.set._rows).constraints_hash == before
    with pytest.raises(KeyError):
        s.set.remove("c", node="a")


def test_readings_depend_on_time_while_an_add_with_an_end_stands() -> None:
    s = Clocked()
    s.set.add("for ever", node="a")
    found = [bool(s.set.ends)]
    s.set.add("c", node="a", expires_at=10)
    s.time = 20
    found.append(bool(s.set.ends))  # its time may go back
    s.set.add("c", node="a")
    found.append(bool(s.set.ends))
    assert found == [False, True, False]


def test_without_a_clock_nothing_expires() -> None:
    s = ConstraintORSet()
    s.add("c", node="a", expires_at=1)
    assert "c" in s


def test_time_that_goes_back_brings_a_constraint_back() -> None:
    s = Clocked()
    s.set.add("c", node="a", expires_at=10)
    for time, there in ((10, False), (9, True), (11, False), (0, True), (10, False)):
        s.time = time
        assert ("c" in s.set, len(s.set), bool(s.set.expired_ids)) == (there, int(there), not there)


def test_adding_again_extends_replaces_or_changes_nothing() -> None:
    s = Clocked()
    assert s.set.add("c", node="a", when="x < 1.0", expires_at=10, at=1) is Change.ADDED
    assert s.set.add("c", node="b", when="x < 1.0", expires_at=10, at=2) is Change.UNCHANGED
    assert s.set.add("c", node="b", when="x < 1.0", expires_at=20, at=2) is Change.EXTENDED
    assert s.set.additions("c")[0].added_at == 2
    assert s.set.add("c", node="a", when="x < 1.0", expires_at=15) is Change.REPLACED
    assert s.set.add("c", node="a", when="x < 2.0", expires_at=30) is Change.REPLACED
    assert s.set.add("c", node="a", when="x < 2.0") is Change.EXTENDED
    assert s.set.add("c", node="a", when="x < 2.0", expires_at=30) is Change.REPLACED
    assert s.set.add("c", node="a", when="x < 2.0", on={"zone": "a"}, expires_at=40) is Change.REPLACED
    assert len(s.set.additions("c")) == 1
    s.time = 40
    assert s.set.add("c", node="b", when="x < 2.0", on={"zone": "a"}, expires_at=50) is Change.ADDED
    assert (len(s.set.additions("c")), s.set.expired("c")) == (1, ())


def test_an_edit_names_what_has_expired_too() -> None:
    a, b = Clocked(), Clocked()
    a.set.add("c", node="a", expires_at=10)
    b.set.merge(a.set)
    b.time = 10
    b.set.add("c", node="b", when="x < 1.0")
    a.set.merge(b.set)
    assert a.set.definitions("c") == (Definition("x < 1.0"),)
    assert a.set.expired("c") == ()


def test_of_several_definitions_each_ends_by_itself() -> None:
    a, b = Clocked(), Clocked()
    a.set.add("c", node="a", when="x < 1.0", expires_at=10)
    b.set.add("c", node="b", when="x < 2.0", expires_at=20)
    b.set.add("d", node="b", expires_at=20)
    a.set.merge(b.set)
    a.time = 10
    assert a.set.definitions("c") == (Definition("x < 2.0", expires_at=20),)
    assert (len(a.set), a.set.expired_ids, len(a.set.expired("c"))) == (2, [], 1)
    a.time = 20
    assert (len(a.set), a.set.expired_ids) == (0, ["c", "d"])
    a.set.add("d", node="a")
    assert (sorted(a.set), a.set.expired_ids) == (["d"], ["c"])


@pytest.mark.slow
def test_exactly_the_adds_given_are_removed() -> None:
    a, b = Clocked(), Clocked()
    for number in range(2000):
        a.set.add(f"constraint number {number}", node="a", expires_at=10)
    b.set.merge(a.set)
    b.set.add("constraint number 7", node="b")
    a.set.remove_adds(list(a.set._rows.each(ADD)), node="a")
    assert len(a.set._rows) < 10, "many are named in one removal"
    a.set.merge(b.set)
    assert sorted(a.set) == ["constraint number 7"]
    seq = a.set._rows.seq(Replica("a", 0))
    a.set.remove_adds([], node="a")
    assert a.set._rows.seq(Replica("a", 0)) == seq


def test_what_is_overdue_is_given_once_soonest_first() -> None:
    s = Clocked()
    for id_, end in (("c", 30), ("a", 10), ("b", 20), ("gone", 5)):
        s.set.add(id_, node="a", expires_at=end)
    s.set.remove("gone", node="a")
    s.time = 30
    assert [(end, cell.key) for end, cell in s.set.take_expired(20, 1)] == [(10, "a")]
    assert [(end, cell.key) for end, cell in s.set.take_expired(20, 9)] == [(20, "b")]
    assert s.set.take_expired(20, 9) == []


def test_what_time_turned_is_told() -> None:
    s = Clocked()
    s.set.add("c", node="a", expires_at=10)
    assert s.set.take_expiry_changes() == set()
    s.time = 10
    assert s.set.take_expiry_changes() == {"c"}
    assert s.set.take_expiry_changes() == set()
    s.time = 9
    assert "c" in s.set
    assert s.set.take_expiry_changes() == {"c"}


@pytest.mark.long
def test_following_ends_that_were_moved_often_does_not_grow() -> None:
    s = Clocked()
    for number in range(5000):
        s.set.add("c", node="a", expires_at=10**6 + number)
    index = s.set._expiries
    assert len(index._coming) + len(index._past) + len(index._untaken) < 500
    s.time = 2 * 10**6
    assert s.set.expired_ids == ["c"]


def test_without_ends_nothing_is_kept() -> None:
    s = Clocked()
    for number in range(100):
        s.set.add(f"c{number}", node="a", when="x < 1.0", at=1)
    assert not s.set.ends
    assert s.set._expiries._over == {}


def test_a_merge_into_a_new_one_goes_by_the_same_clock() -> None:
    a = Clocked()
    a.set.add("c", node="a", expires_at=10)
    twin = a.set.merged(ConstraintORSet())
    a.time = 10
    assert "c" not in twin


# --- against the rule itself -------------------------------------------------------------------------------------------

TIMES = [None, 0, 1, 5, 9, 10, MAX_COUNT]
ids = st.sampled_from(["x", "y"])
actions = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abc"), ids, st.sampled_from(TIMES), st.sampled_from([None, "v < 1.0"])),
    st.tuples(st.just("remove"), st.sampled_from("abc"), ids),
    st.tuples(st.just("merge"), st.sampled_from("abc"), st.sampled_from("abc")),
    st.tuples(st.just("time"), st.sampled_from("abc"), st.integers(0, 12)),
    st.tuples(st.just("purge"), st.sampled_from("abc"), st.integers(0, 12)),
    st.tuples(st.just("repair"), st.sampled_from("abc")),
)


def check(s: Clocked) -> None:
    """What the rows say by the rule, against the readings."""
    standing = [read_addition(cell) for cell in s.set._rows.each(ADD)]
    keys = {Dot(cell.replica, cell.seq): str(cell.key) for cell in s.set._rows.each(ADD)}
    over = {each.dot for each in standing if each.definition.expires_at is not None and each.definition.expires_at <= s.time}
    active = {keys[each.dot] for each in standing if each.dot not in over}
    assert set(s.set) == active
    assert len(s.set) == len(active)
    assert s.set.expired_ids == sorted({keys[dot] for dot in over} - active)
    for id_ in ("x", "y"):
        assert (id_ in s.set) == (id_ in active)
        assert {each.dot for each in s.set.expired(id_)} == {dot for dot in over if keys[dot] == id_}
        assert len(s.set.additions(id_)) + len(s.set.expired(id_)) == sum(key == id_ for key in keys.values())


def perform(sets: dict[str, Clocked], action: tuple[Any, ...]) -> None:
    name, rest = action[1], action[2:]
    one = sets[name]
    match action[0]:
        case "add":
            one.set.add(rest[0], node=name, expires_at=rest[1], when=rest[2])
        case "remove" if rest[0] in one.set:
            one.set.remove(rest[0], node=name)
        case "merge":
            one.set.merge(sets[rest[0]].set)
        case "time":
            one.time = rest[0]
        case "purge":
            one.set.remove_adds([cell for _, cell in one.set.take_expired(rest[0], 2)], node=name)
        case "repair":  # everything is told anew
            rebuild(one.set._rows, [cell for kind in list(one.set._rows._tables) for cell in one.set._rows.each(kind)])


@pytest.mark.slow
@given(st.lists(actions, max_size=40), st.booleans())
def test_readings_follow_the_rule_in_any_history(history: list[tuple[Any, ...]], look: bool) -> None:
    sets = {name: Clocked() for name in "abc"}
    for action in history:
        perform(sets, action)
        if look:  # reading must not matter
            check(sets[action[1]])
    for one in sets.values():
        for other in sets.values():
            one.set.merge(other.set)
    for one in sets.values():
        check(one)
        one.time = 7
        check(one)
    assert len({tuple(sorted(one.set)) for one in sets.values()}) == 1


hostile = st.lists(st.tuples(st.sampled_from("abc"), ids, st.sampled_from(TIMES)), min_size=1, max_size=12)


@pytest.mark.slow
@given(hostile, st.randoms(use_true_random=False), st.integers(0, 12))
def test_rows_that_no_honest_node_writes_read_alike_in_whatever_order_they_come(
    adds: list[tuple[str, str, int | None]], random: Any, time: int
) -> None:
    """Ends long past or beyond all times, with parts that a newer version may add."""
    logs: dict[str, list[Callable[[], Cell]]] = {}
    for name, id_, end in adds:
        value = [None, 1, None, [["k", "v"]], end, None, MEANING + 1, "of a later version"]
        logs.setdefault(name, []).append(lambda id_=id_, value=value: make_cell(ADD, id_, value))  # type: ignore[misc]
    sources = []
    for name, log in logs.items():
        rows = Rows()
        for make in log:
            rows.write(Replica(name, 1), make())
        sources.append(rows)
    found = []
    for _ in range(3):
        one = Clocked()
        random.shuffle(sources)
        for rows in sources:
            one.time = random.randint(0, 12)
            assert len(one.set) >= 0
            one.set._rows.merge(rows)
        one.time = time
        check(one)
        found.append((sorted(one.set), one.set.expired_ids))
    assert found[0] == found[1] == found[2]
