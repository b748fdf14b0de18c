"""`BloomCRDT`: finds all that was inserted anywhere, anything else at its rate, and says honestly what that is."""

import math

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState, Limits, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import BloomCRDT
from constraint_crdt.types.sketch import BLOOM, BLOOM_PAGE, BloomShape


def test_what_was_inserted_anywhere_is_found() -> None:
    a, b = BloomCRDT(expected_items=100, fp_rate=0.01), BloomCRDT(expected_items=100, fp_rate=0.01)
    assert a.insert("x", node="a")
    assert b.insert("y", node="b")
    assert ("x" in a, "y" in a, "z" in a) == (True, False, False)
    assert a.merge(b)
    assert ("x" in a, "y" in a, "x" in b) == (True, True, False)
    assert not a.merge(b)
    assert (a.inserted, a.writers) == (2, 2)


def test_inserting_says_what_was_new_and_writes_nothing_twice() -> None:
    rows = Rows()
    b = BloomCRDT(expected_items=1000, fp_rate=0.01, rows=rows)
    assert b.insert_all(["x", "y", "x"], node="a") == 2
    seq = rows.seq(Replica("a", 0))
    assert not b.insert("x", node="a")
    assert b.insert_all([], node="a") == 0
    assert rows.seq(Replica("a", 0)) == seq
    assert not b.insert("x", node="b"), "found, from another row"
    assert rows.seq(Replica("b", 0)) > 0, "each row holds what was inserted in it, whatever others do"
    assert b.inserted == 2


@pytest.mark.parametrize("items", [100, 101, 128, 163, 200, 333, 1000, 10_000, 10**6])
@pytest.mark.parametrize("rate", [0.05, 0.01, 0.001])
def test_the_rate_that_its_dimensions_give_is_within_a_tenth_of_the_target(items: int, rate: float) -> None:
    """Exact but for a term of higher order: the mean of fill**hashes, for hashes x items independent throws."""
    shape = BloomShape.of(items, rate)
    assert shape.bits % 8 == 0
    assert shape.bits / items <= 1.0016 * -math.log(rate) / math.log(2) ** 2
    assert shape.bits / items <= 9.6 or rate < 0.01
    bits, throws, hashes = shape.bits, shape.hashes * items, shape.hashes
    clear = (1 - 1 / bits) ** throws
    variance = (clear + (bits - 1) * (1 - 2 / bits) ** throws - bits * clear**2) / bits
    fill = 1 - clear
    mean_rate = fill**hashes * (1 + hashes * (hashes - 1) / 2 * variance / fill**2)
    assert mean_rate <= 1.1 * rate


@pytest.mark.long
def test_the_measured_rate_is_the_target_and_the_estimate() -> None:
    """Mean of 20 filters of 200 items; 1.1 is four standard deviations above what the dimensions give."""
    found, estimated, asked = 0, 0.0, 2000
    for seed in range(20):
        b = BloomCRDT(expected_items=200, fp_rate=0.05)
        b.insert_all([f"{seed}-in-{number}" for number in range(200)], node="a")
        found += sum(f"{seed}-out-{number}" in b for number in range(asked))
        estimated += b.estimated_fpr
        assert b.estimated_items == pytest.approx(200, rel=0.15)
    assert found / (20 * asked) <= 1.1 * 0.05
    assert found / (20 * asked) == pytest.approx(estimated / 20, rel=0.12)


def test_the_estimated_rate_is_that_of_the_union_as_it_is() -> None:
    a, b = BloomCRDT(100, 0.01), BloomCRDT(100, 0.01)
    assert (a.estimated_fpr, a.estimated_items, a.filled) == (0.0, 0.0, 0.0)
    a.insert_all([f"a-{number}" for number in range(100)], node="a")
    alone = a.estimated_fpr
    assert alone == pytest.approx(0.01, rel=0.6)
    b.insert_all([f"b-{number}" for number in range(100)], node="b")
    a.merge(b)
    assert a.estimated_fpr > 5 * alone, "twice the items that it was made for"
    assert a.estimated_items == pytest.approx(200, rel=0.15)


def test_a_full_filter_says_so() -> None:
    b = BloomCRDT(1, 0.5)
    b.insert_all([str(number) for number in range(200)], node="a")
    assert (b.estimated_fpr, b.filled) == (1.0, 1.0)
    assert math.isfinite(b.estimated_items)


def test_space_is_what_the_dimensions_say() -> None:
    for items in (100, 1000, 100_000, 1_000_000):
        b = BloomCRDT(expected_items=items, fp_rate=0.01)
        assert b.space_bytes * 8 == b.shape.bits
        assert b.space_bytes * 8 / items <= 9.6
        assert b.shape.hashes == 7


@pytest.mark.slow
def test_an_insertion_rewrites_only_the_pages_it_touches() -> None:
    rows = Rows()
    b = BloomCRDT(expected_items=100_000, fp_rate=0.01, rows=rows)
    b.insert_all([str(number) for number in range(2000)], node="a")
    seq = rows.seq(Replica("a", 0))
    b.insert("new", node="a")
    kinds = [cell.kind for cell in rows.above(Replica("a", 0), seq)]
    assert kinds.count(BLOOM) == 1
    assert 1 <= kinds.count(BLOOM_PAGE) <= 7


@pytest.mark.parametrize(
    ("items", "rate", "error"),
    [
        (0, 0.01, ConstraintCrdtError),
        (-5, 0.01, ConstraintCrdtError),
        (10**12, 0.01, ConstraintCrdtError),
        (2**26, 0.01, ConstraintCrdtError),
        (1.5, 0.01, TypeError),
        (100, 0.0, ConstraintCrdtError),
        (100, 1.0, ConstraintCrdtError),
        (100, math.nan, ConstraintCrdtError),
        (100, 1e-300, ConstraintCrdtError),
    ],
)
def test_dimensions_out_of_bounds_are_refused(items: int, rate: float, error: type[Exception]) -> None:
    with pytest.raises(error):
        BloomCRDT(expected_items=items, fp_rate=rate)


def test_small_and_generous_filters_work() -> None:
    for items, rate in ((1, 0.9999), (1, 0.5), (1, 0.01), (3, 0.2), (7, 1e-9)):
        b = BloomCRDT(items, rate)
        b.insert("x", node="a")
        assert "x" in b


def test_what_is_no_text_is_refused_and_writes_nothing() -> None:
    b = BloomCRDT(100, 0.01)
    for item, error in (("\ud800", ConstraintCrdtError), (7, TypeError)):
        with pytest.raises(error):
            b.insert_all(["fine", item], node="a")  # type: ignore[list-item]  # that is the point
    assert "fine" not in b
    assert b.writers == 0
    with pytest.raises(TypeError):
        assert 7 in b  # type: ignore[operator]  # same


def test_unequal_parameters_and_names_are_not_merged() -> None:
    a = BloomCRDT(100, 0.01)
    a.insert("x", node="a")
    for other in (BloomCRDT(100, 0.02), BloomCRDT(200, 0.01), BloomCRDT(100, 0.01, name="n")):
        with pytest.raises(ConstraintCrdtError, match="equal dimensions"):
            a.merge(other)
        with pytest.raises(ConstraintCrdtError, match="equal dimensions"):
            other.merge(a)
        assert "x" not in other


def test_equal_is_what_holds_the_same_cells() -> None:
    a, b = BloomCRDT(100, 0.01), BloomCRDT(100, 0.01)
    a.insert("x", node="a")
    b.insert("x", node="b")
    assert a != b
    assert a.merged(b) == b.merged(a)
    assert repr(a) == "BloomCRDT(name='', bits=960, hashes=7, expected=100)"


def test_filters_of_a_state_go_by_name() -> None:
    state = ConstraintState(Rows(limits=Limits(blooms=1)))
    state.bloom("jobs", expected_items=100, fp_rate=0.01).insert("17", node="a")
    assert list(state.blooms) == ["jobs"]
    assert "17" in state.blooms["jobs"]
    with pytest.raises(ConstraintCrdtError, match="'jobs' with other dimensions"):
        state.bloom("jobs", expected_items=200, fp_rate=0.01)
    with pytest.raises(ConstraintCrdtError, match="1 filters is the most"):
        state.bloom("more", expected_items=200, fp_rate=0.01)
