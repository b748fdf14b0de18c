"""`ConstraintORSet` standing alone, with the writer named: what is active, what conflicts, what is refused."""

from typing import Any

import pytest

from constraint_crdt import Change, ConstraintCrdtError, ConstraintState, Definition, Limits, Replica, Severity
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import ConstraintORSet, Dot


def synced(*sets: ConstraintORSet) -> None:
    """Let all know all."""
    for one in sets:
        for other in sets:
            one.merge(other)


def test_an_added_constraint_is_active_until_it_is_removed() -> None:
    s = ConstraintORSet()
    assert s.add("c1", node="a") is Change.ADDED
    assert "c1" in s
    assert (len(s), list(s)) == (1, ["c1"])
    s.remove("c1", node="b")
    assert "c1" not in s
    assert (len(s), list(s), s.additions("c1")) == (0, [], ())
    assert s.add("c1", node="b") is Change.ADDED
    assert list(s) == ["c1"]


def test_a_definition_is_read_as_it_was_written() -> None:
    s = ConstraintORSet()
    s.add("t", node=Replica("a", 7), when="x < 1.0", severity="critical", about="heat")
    assert s.definitions("t") == (Definition("x < 1.0", Severity.CRITICAL, "heat"),)
    assert s.additions("t")[0].dot == Dot(Replica("a", 7), 1)


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("when", [None, "x < 1.0"])
@pytest.mark.parametrize("about", [None, "why"])
def test_every_combination_of_parts_is_kept(severity: Severity, when: str | None, about: str | None) -> None:
    s = ConstraintORSet()
    s.add("t", node="a", when=when, severity=severity, about=about)
    assert s.definitions("t") == (Definition(when, severity, about),)


def test_adding_what_is_in_force_writes_nothing() -> None:
    s = ConstraintORSet()
    s.add("c", node="a", when="x < 1.0")
    twin = ConstraintORSet().merged(s)
    assert s.add("c", node="b", when="x < 1.0") is Change.UNCHANGED
    assert twin.subsumes(s)


def test_an_edit_replaces_the_definitions_it_knew_of_whoever_wrote_them() -> None:
    s = ConstraintORSet()
    s.add("c", node="a", when="x < 1.0")
    assert s.add("c", node="b", when="x < 2.0") is Change.REPLACED
    assert s.definitions("c") == (Definition("x < 2.0"),)
    assert s.add("c", node="b", when="x < 3.0") is Change.REPLACED
    assert s.definitions("c") == (Definition("x < 3.0"),)


def test_concurrent_definitions_all_stand_until_somebody_edits_or_removes() -> None:
    a, b, c = ConstraintORSet(), ConstraintORSet(), ConstraintORSet()
    a.add("c", node="a", when="x < 1.0")
    b.add("c", node="b", when="x < 2.0")
    synced(a, b, c)
    both = (Definition("x < 1.0"), Definition("x < 2.0"))
    assert a.definitions("c") == b.definitions("c") == c.definitions("c") == both
    assert len(a) == 1
    assert c.add("c", node="c", when="x < 1.0") is Change.REPLACED, "naming one of two settles the conflict"
    synced(a, b, c)
    assert a.definitions("c") == b.definitions("c") == both[:1]


def test_equal_definitions_from_two_writers_are_no_conflict() -> None:
    a, b = ConstraintORSet(), ConstraintORSet()
    a.add("c", node="a", when="x < 1.0")
    b.add("c", node="b", when="x < 1.0")
    synced(a, b)
    assert len(a.additions("c")) == 2
    assert a.definitions("c") == (Definition("x < 1.0"),)
    a.remove("c", node="a")
    synced(a, b)
    assert "c" not in b


def test_an_add_that_the_removal_did_not_know_of_wins() -> None:
    a, b = ConstraintORSet(), ConstraintORSet()
    a.add("c", node="a")
    b.merge(a)
    a.remove("c", node="a")
    b.add("c", node="b", when="x < 1.0")
    synced(a, b)
    assert a.definitions("c") == b.definitions("c") == (Definition("x < 1.0"),)


def test_a_concurrent_edit_survives_the_edit_of_an_edit() -> None:
    """What a removal said stays said when its writer edits again: it is a cell of its own."""
    a, b, c = ConstraintORSet(), ConstraintORSet(), ConstraintORSet()
    a.add("c", node="a", when="x < 1.0")
    synced(a, b)
    b.add("c", node="b", when="x < 2.0")
    b.add("c", node="b", when="x < 3.0")
    c.merge(b)
    c.merge(a)
    assert c.definitions("c") == (Definition("x < 3.0"),)


def test_removing_what_is_not_active_is_a_key_error_and_writes_nothing() -> None:
    s = ConstraintORSet()
    s.add("c", node="a")
    before = ConstraintORSet().merged(s)
    with pytest.raises(KeyError, match="other"):
        s.remove("other", node="a")
    assert before.subsumes(s)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"id_": ""}, "1 to 256 bytes"),
        ({"id_": "é" * 129}, "1 to 256 bytes"),
        ({"id_": "\ud800"}, "not valid Unicode"),
        ({"id_": "c", "severity": "fatal"}, "severity must be one of info, warning, critical"),
        ({"id_": "c", "when": "x" * 1025}, "when must have at most 1024 bytes"),
        ({"id_": "c", "about": "é" * 513}, "about must have at most 1024 bytes"),
        ({"id_": "c", "about": "\ud800"}, "Unicode"),
        ({"id_": "c", "node": "n" * 257}, "1 to 256 bytes"),
        ({"id_": "c", "node": ""}, "1 to 256 bytes"),
    ],
)
def test_what_is_out_of_bounds_is_refused_and_writes_nothing(arguments: dict[str, Any], what: str) -> None:
    s = ConstraintORSet()
    s.add("c", node="a", when="x < 1.0")
    before = ConstraintORSet().merged(s)
    with pytest.raises(ConstraintCrdtError, match=what):
        s.add(**{"node": "a", **arguments})
    assert before.subsumes(s)
    assert s == before


def test_the_longest_id_and_texts_pass() -> None:
    s = ConstraintORSet()
    s.add("é" * 128, node="n" * 256, when="x" * 1024, about="y" * 1024)
    assert ConstraintORSet().merged(s) == s


def test_an_edit_without_room_for_its_removal_writes_nothing() -> None:
    """The new add and the removal of the old ones are one transaction: never one without the other."""
    a = ConstraintState(Rows(limits=Limits(cells=2)))
    other = ConstraintORSet()
    other.add("c", node="b", when="x < 1.0")
    a.constraints.merge(other)
    hash_ = a.state_hash
    with pytest.raises(ConstraintCrdtError, match="cells"):
        a.constraints.add("c", node="a", when="x < 2.0")
    assert a.state_hash == hash_
    assert a.constraints.definitions("c") == (Definition("x < 1.0"),)


@pytest.mark.long
def test_a_constraint_that_thousands_of_nodes_added_can_be_edited_and_removed() -> None:
    """A fleet that applies one file on every node has an add per node; naming them all takes more than one cell."""
    s = ConstraintORSet()
    for index in range(3000):
        one = ConstraintORSet()
        one.add("c", node=f"some-node-{index:05}")
        s.merge(one)
    assert len(s.additions("c")) == 3000
    s.add("c", node="a", when="x < 1.0")
    assert s.definitions("c") == (Definition("x < 1.0"),)
    other = ConstraintORSet().merged(s)
    assert other.definitions("c") == (Definition("x < 1.0"),)


def test_two_sets_are_equal_if_the_same_adds_stand() -> None:
    a, b = ConstraintORSet(), ConstraintORSet()
    a.add("c", node="a")
    assert a != b
    b.merge(a)
    assert a == b
    a.remove("c", node="a")
    assert a != b
    assert a.__eq__("c") is NotImplemented
    assert repr(b) == "ConstraintORSet(['c'])"
