"""Clocks: how they compare and join, and the marks with which two peers name them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import Replica, VectorClock
from constraint_crdt.crdt.clock import CLOCK_NAME_BYTES, ClockMark, Digest
from constraint_crdt.types import CausalOrder

A, B, C = Replica("a", 1), Replica("b", 1), Replica("c", 1)
DIGEST = Digest()

entries = st.dictionaries(st.sampled_from([A, B, C, Replica("a", 2)]), st.integers(0, 4))


def test_a_replica_never_heard_of_stands_at_0_and_zeros_are_no_entries() -> None:
    clock = VectorClock({A: 3, B: 0})
    assert (clock[A], clock[B], clock[C]) == (3, 0, 0)
    assert (len(clock), list(clock), A in clock, B in clock) == (1, [A], True, False)
    assert clock == VectorClock([(A, 3)])
    assert clock.total == 3


def test_an_entry_cannot_be_negative() -> None:
    with pytest.raises(ValueError, match=r"^a clock entry cannot be negative$"):
        VectorClock({A: -1})
    assert VectorClock({A: 1})[A] == 1


@pytest.mark.parametrize(
    ("left", "right", "order"),
    [
        ({A: 1}, {A: 1}, CausalOrder.EQUAL),
        ({}, {A: 1}, CausalOrder.BEFORE),
        ({A: 1, B: 1}, {A: 1}, CausalOrder.AFTER),
        ({A: 1}, {B: 1}, CausalOrder.CONCURRENT),
        ({A: 1, B: 2}, {A: 2, B: 1}, CausalOrder.CONCURRENT),
    ],
)
def test_how_two_clocks_stand_to_each_other(left: dict[Replica, int], right: dict[Replica, int], order: CausalOrder) -> None:
    one, other = VectorClock(left), VectorClock(right)
    assert one.compare(other) is order
    assert one.is_concurrent(other) == (order is CausalOrder.CONCURRENT)
    assert one.happened_before_or_equal(other) == (order in (CausalOrder.EQUAL, CausalOrder.BEFORE))


@given(entries, entries)
def test_a_merge_is_the_least_clock_above_both(left: dict[Replica, int], right: dict[Replica, int]) -> None:
    one, other = VectorClock(left), VectorClock(right)
    both = one.merged(other)
    assert both.as_dict() == {r: max(one[r], other[r]) for r in {*one, *other}}
    assert (one.as_dict(), other.as_dict()) == (VectorClock(left).as_dict(), VectorClock(right).as_dict())
    assert one.merge(other) == (not VectorClock(left).subsumes(other))
    assert one == both


def test_a_merge_leaves_clocks_that_share_its_entries_alone() -> None:
    shared = {A: 1}
    clock = VectorClock.over(shared)
    clock.merge(VectorClock({B: 1}))
    assert shared == {A: 1}


@given(entries, entries)
def test_a_changed_mark_is_the_mark_of_the_changed_clock(before: dict[Replica, int], changes: dict[Replica, int]) -> None:
    mark = ClockMark.of(before, DIGEST)
    assert mark.order == sorted(mark.entries)
    changed, spelled_out = mark.changed(changes.items()), ClockMark.of({**before, **changes}, DIGEST)
    assert changed == spelled_out
    assert (changed.entries, changed.count, changed.order) == (spelled_out.entries, spelled_out.count, spelled_out.order)
    assert changed.name(A) == spelled_out.name(A)
    assert mark.entries == VectorClock(before).as_dict()


@given(entries, entries)
def test_a_clock_worked_out_from_another_is_that_clock(near: dict[Replica, int], spelled_out: dict[Replica, int]) -> None:
    mark, direct = ClockMark.of(near, DIGEST).replaced(spelled_out), ClockMark.of(spelled_out, DIGEST)
    assert (mark.entries, mark.total, mark.count) == (direct.entries, direct.total, direct.count)


def test_a_clock_keeps_the_mark_it_was_made_from_until_it_changes() -> None:
    mark = ClockMark.of({A: 1}, DIGEST)
    clock = VectorClock.of(mark)
    assert clock.mark(Digest()) is mark
    other = clock.mark(Digest(b"another secret"))
    assert other.total != mark.total
    assert other.entries == {A: 1}
    clock.merge(VectorClock({B: 1}))
    assert clock.mark(DIGEST) == ClockMark.of({A: 1, B: 1}, DIGEST)
    assert mark.entries == {A: 1}


def test_a_name_is_the_readers_whoever_was_named_before() -> None:
    mark, again = ClockMark.of({A: 1}, DIGEST), ClockMark.of({A: 1}, DIGEST)
    names = [mark.name(reader) for reader in (A, B, A)]
    assert names == [again.name(A), again.name(B), again.name(A)]
    assert names[0] != names[1]


def test_a_name_means_a_clock_to_one_life_of_one_reader() -> None:
    mark, other = ClockMark.of({A: 1, B: 2}, DIGEST), ClockMark.of({A: 2, B: 1}, DIGEST)
    names = {mark.name(A), mark.name(B), mark.name(Replica("a", 2)), other.name(A), ClockMark.of({}, DIGEST).name(A)}
    assert len(names) == 5
    assert {len(name) for name in names} == {CLOCK_NAME_BYTES}


def test_an_index_refers_to_the_sorted_replicas() -> None:
    mark = ClockMark.of({C: 1, A: 1, Replica("a", 0): 1}, DIGEST)
    assert [mark.index(replica) for replica in (Replica("a", 0), A, C, B)] == [0, 1, 2, None]


def test_names_are_fixed_for_good() -> None:
    """Two versions of the software must name a clock alike: this one was computed from the description alone."""
    total = sum(DIGEST.clock_entry(replica, seq) for replica, seq in ((A, 1), (B, 2)))
    text = (total % 2**256).to_bytes(32, "big") + (7).to_bytes(8, "big") + b"\0\6reader"
    name = hashlib.blake2b(text, digest_size=8, person=b"clock name").digest()
    mark = ClockMark.of({A: 1, B: 2}, DIGEST)
    assert [mark.name(Replica("reader", 7)) for _ in range(2)] == [name, name], "also where it is remembered"
    assert DIGEST.clock_entry(A, 1) == int.from_bytes(keyed(b"clock", (1).to_bytes(8, "big") + (1).to_bytes(8, "big") + b"\0\1a"))


def keyed(person: bytes, text: bytes) -> bytes:
    """The keyed hash of a fleet without a secret."""
    key = hashlib.blake2b(b"", digest_size=32, person=b"constraint-crdt").digest()
    return hashlib.blake2b(text, key=key, digest_size=32, person=person).digest()


def test_marks_of_the_same_replicas_share_their_order() -> None:
    """Sorting costs O(n log n): once, not with each mutation."""
    mark = ClockMark.of({B: 1, A: 1}, DIGEST)
    order = mark.order
    followed = mark.followed_by({B: 1, A: 2}, 5, 3)
    assert mark.changed([(A, 2)]).order is mark.changed([(A, 1)]).order is followed.order is order
    assert mark.changed([(A, 2), (C, 1)]).order == [A, B, C]
    assert mark.changed([(C, 1), (A, 2)]).order == [A, B, C]
    assert mark.changed([(A, 0)]).order == [B]
    assert mark.followed_by({B: 1, A: 2, C: 1}, 5, 4).order == [A, B, C]
    assert (followed.total, followed.count, followed.is_by(DIGEST)) == (5, 3, True)


@given(entries, entries, entries)
def test_a_mark_that_was_changed_can_be_changed_again(
    before: dict[Replica, int], changes: dict[Replica, int], later: dict[Replica, int]
) -> None:
    changed = ClockMark.of(before, DIGEST).changed(changes.items())
    assert changed.is_by(DIGEST)
    again, direct = changed.changed(later.items()), ClockMark.of({**before, **changes, **later}, DIGEST)
    assert (again.entries, again.total, again.count, again.order) == (direct.entries, direct.total, direct.count, direct.order)


def test_nothing_else_equals_a_clock_or_a_mark_or_hash_functions() -> None:
    for each in (VectorClock({A: 1}), ClockMark.of({A: 1}, DIGEST), DIGEST):
        assert each != {A: 1}
        assert each != 5
    assert {DIGEST: 1}[Digest()] == 1
    assert len({hash(Digest(bytes([secret]))) for secret in range(8)}) > 1


def test_a_clock_reads_as_its_entries_in_order() -> None:
    assert repr(VectorClock()) == "VectorClock({})"
    assert repr(VectorClock({Replica("b", 255): 2, A: 1})) == "VectorClock({a~1: 1, b~ff: 2})"


def test_the_mark_of_a_clock_that_was_spelled_out_is_made_once() -> None:
    clock = VectorClock({A: 1})
    mark = clock.mark(DIGEST)
    assert mark == ClockMark.of({A: 1}, DIGEST)
    assert clock.mark(Digest()) is mark
