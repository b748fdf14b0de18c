"""`SketchCRDT`: never too low, within its bound, sums over writers, and what is refused."""

import math
from collections import Counter
from random import Random

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState, Limits, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import SketchCRDT
from constraint_crdt.types.sketch import COUNTER_MAX, SKETCH, SKETCH_PAGE, SketchShape

MOST = 2**63 - 1


def test_two_writers_add_up() -> None:
    a, b = SketchCRDT(epsilon=0.01, delta=0.01), SketchCRDT(epsilon=0.01, delta=0.01)
    a.record("x", 50, node="a")
    b.record("x", 75, node="b")
    a.merge(b)
    assert (a.estimate("x"), a.total, a.writers) == (125, 125, 2)
    assert b.estimate("x") == 75
    for _ in range(3):
        assert not a.merge(b), "what is known already counts nothing twice"
    assert a.estimate("x") == 125


def test_one_writer_adds_up_over_its_writes_and_its_lives() -> None:
    s = SketchCRDT()
    for life in (1, 2):
        for _ in range(3):
            s.record("x", 2, node=Replica("a", life))
        s.record("y", node=Replica("a", life))
    assert (s.estimate("x"), s.estimate("y"), s.estimate("z"), s.total) == (12, 2, 0, 14)


def test_the_dimensions_follow_from_what_is_asked_for() -> None:
    s = SketchCRDT(epsilon=0.0005, delta=0.01)
    assert s.shape == (5437, 5) == SketchShape(width=math.ceil(math.e / 0.0005), depth=math.ceil(math.log(100)))
    assert s.epsilon <= 0.0005
    assert s.delta <= 0.01
    assert s.space_bytes == 5437 * 5 * 4 <= 110_000
    s.record("x", 1000, node="a")
    assert s.error_bound == pytest.approx(0.5, rel=1e-3)


@pytest.mark.slow
def test_estimates_of_many_writers_are_never_low_and_within_the_bound() -> None:
    random, truth = Random(7), Counter[str]()
    sketches = [SketchCRDT(epsilon=0.005, delta=0.01) for _ in range(10)]
    for number, sketch in enumerate(sketches):
        counts = Counter(f"id-{int(random.paretovariate(0.8)) % 2000}" for _ in range(3000))
        sketch.record_all(counts, node=f"n{number}")
        truth.update(counts)
    merged = sketches[0]
    for other in sketches[1:]:
        merged.merge(other)
    errors = [merged.estimate(item) - count for item, count in truth.items()]
    assert (merged.total, merged.writers) == (30_000, 10)
    assert min(errors) >= 0
    assert sum(error > merged.error_bound for error in errors) <= len(errors) * merged.delta
    heaviest = [item for item, _ in truth.most_common(5)]
    assert [each.item for each in merged.top(5)] == heaviest


def test_the_top_is_bounded_on_both_sides_and_ordered() -> None:
    s = SketchCRDT(epsilon=0.001, delta=0.001)
    s.record_all({"b": 30, "a": 30, "c": 39, "rare": 1}, node="a")
    top = s.top(3)
    assert [(each.item, each.estimate, each.share) for each in top] == [("c", 39, 0.39), ("a", 30, 0.3), ("b", 30, 0.3)]
    assert all(each.at_least <= each.estimate for each in top)
    assert s.top(1) == top[:1]
    assert len(s.top(100)) == 4
    assert s.about("nothing").share == 0.0
    assert SketchCRDT().top() == []
    with pytest.raises(ValueError, match="1 or more"):
        s.top(0)


@pytest.mark.long
def test_a_frequent_item_is_remembered_among_very_many() -> None:
    """One with a larger share than 1/128 + epsilon, however the others come, and though it came first."""
    s = SketchCRDT(epsilon=0.001, delta=0.01)
    s.record("early", 400, node="a")
    for start in range(0, 20_000, 4000):
        s.record_all({f"noise-{number}": 1 for number in range(start, start + 4000)}, node="a")
        s.record("often", 80, node="a")
    assert [each.item for each in s.top(2)] == ["early", "often"]


@pytest.mark.slow
def test_an_item_that_is_frequent_on_one_node_only_is_found() -> None:
    a, b = SketchCRDT(), SketchCRDT()
    a.record_all({f"a-{number}": 5 for number in range(300)}, node="a")
    b.record_all({f"b-{number}": 1 for number in range(300)} | {"hot": 40}, node="b")
    a.merge(b)
    assert a.top(1)[0].item == "hot"


@pytest.mark.slow
def test_long_names_are_remembered_as_far_as_a_cell_has_room() -> None:
    s = SketchCRDT()
    s.record_all({f"{number:03}" + "ü" * 126: number for number in range(1, 129)}, node="a")
    names = [each.item for each in s.top(200)]
    assert 90 < len(names) < 128
    assert names[0].startswith("128")


def test_a_counter_stops_at_32_bits_and_says_so() -> None:
    a, b = SketchCRDT(), SketchCRDT()
    a.record("x", COUNTER_MAX - 1, node="a")
    assert not a.saturated
    b.record("x", COUNTER_MAX + 5, node="b")
    assert (b.estimate("x"), b.saturated, b.total) == (COUNTER_MAX, True, COUNTER_MAX + 5)
    assert a.space_bytes == SketchCRDT().space_bytes
    a.merge(b)
    assert (a.estimate("x"), a.saturated) == (2 * COUNTER_MAX - 1, True)
    assert a.space_bytes == 2 * SketchCRDT().space_bytes, "sums beyond 32 bits take wider counters"
    a.record("x", 100, node="a")
    a.record("y", node="a")
    assert (a.estimate("x"), a.estimate("y")) == (2 * COUNTER_MAX, 1)


@pytest.mark.parametrize(
    ("counts", "error"),
    [
        ({"": 1}, ConstraintCrdtError),
        ({"x" * 257: 1}, ConstraintCrdtError),
        ({"\ud800": 1}, ConstraintCrdtError),
        ({"ok": 1, "x": -1}, ValueError),
        ({"ok": 1, "x": 1.5}, TypeError),
        ({"ok": 1, 7: 1}, TypeError),
        ({"ok": MOST}, ConstraintCrdtError),
        ({"ok": MOST // 2, "x": MOST // 2 + 1}, ConstraintCrdtError),
    ],
)
def test_what_cannot_be_counted_is_refused_and_writes_nothing(counts: dict[str, int], error: type[Exception]) -> None:
    state = ConstraintState()
    sketch = state.sketch("s")
    sketch.record("x", 1, node="a")
    before = state.state_hash
    with pytest.raises(error):
        sketch.record_all(counts, node="a")
    assert (state.state_hash, sketch.total) == (before, 1)


def test_nothing_to_count_writes_nothing() -> None:
    s = SketchCRDT()
    s.record_all({}, node="a")
    s.record("x", 0, node="a")
    assert SketchCRDT().subsumes(s)
    assert s.writers == 0


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 0.01), (1.0, 0.01), (-1.0, 0.01), (math.nan, 0.01), (0.1, 0.0), (0.1, 1.0), (1e-9, 0.01), (5e-324, 0.5)],
)
def test_dimensions_out_of_bounds_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ConstraintCrdtError, match=r"of a sketch is a share|choose larger ones"):
        SketchCRDT(epsilon=epsilon, delta=delta)


def test_unequal_dimensions_and_names_are_not_merged() -> None:
    a = SketchCRDT(epsilon=0.01, delta=0.01)
    a.record("x", node="a")
    for other in (SketchCRDT(epsilon=0.02, delta=0.01), SketchCRDT(epsilon=0.01, delta=0.1), SketchCRDT(0.01, 0.01, name="n")):
        other.record("y", node="b")
        for mine, theirs in ((a, other), (other, a)):
            with pytest.raises(ConstraintCrdtError, match="equal dimensions"):
                mine.merge(theirs)
            with pytest.raises(ConstraintCrdtError, match="equal dimensions"):
                mine.merged(theirs)
        assert (a.total, other.total) == (1, 1)


def test_equal_is_what_holds_the_same_cells() -> None:
    a, b = SketchCRDT(), SketchCRDT()
    a.record("x", node="a")
    b.record("x", node="b")
    assert a != b, "the same count of another node is not the same"
    assert a.merged(b) == b.merged(a)
    assert a != SketchCRDT(epsilon=0.1)
    assert a != "sketch"
    assert repr(SketchCRDT(0.1, 0.1, name="n")) == "SketchCRDT(name='n', width=28, depth=3, total=0)"


@pytest.mark.long
def test_a_record_rewrites_only_the_pages_it_touches() -> None:
    rows = Rows()
    s = SketchCRDT(rows=rows)
    s.record_all({f"id-{number}": 1 for number in range(20_000)}, node="a")
    before = rows.seq(Replica("a", 0))
    s.record("x", node="a")
    kinds = Counter(cell.kind for cell in rows.above(Replica("a", 0), before))
    assert kinds[SKETCH] == 1
    assert 0 < kinds[SKETCH_PAGE] <= 5


def test_a_row_of_other_dimensions_is_left_out_and_shown() -> None:
    rows = Rows()
    narrow, wide = (SketchCRDT(epsilon=epsilon, rows=rows, name="s") for epsilon in (0.1, 0.01))
    narrow.record("x", 3, node="a")
    wide.record("x", 5, node="b")
    for sketch, count in ((narrow, 3), (wide, 5)):
        assert (sketch.estimate("x"), sketch.total, sketch.writers, sketch.ignored_writers) == (count, count, 1, 1)
    with pytest.raises(ConstraintCrdtError, match="with other dimensions"):
        wide.record("x", node="a")
    assert narrow.estimate("x") == 3


def test_sketches_of_a_state_go_by_name() -> None:
    state = ConstraintState()
    assert list(state.sketches) == []
    state.sketch("b").record("x", 2, node="a")
    state.sketch("a", epsilon=0.1, delta=0.1).record("x", 3, node="a")
    assert list(state.sketches) == ["a", "b"]
    assert ("a" in state.sketches, "z" in state.sketches, len(state.sketches)) == (True, False, 2)
    assert state.sketches["a"] is state.sketch("a", epsilon=0.1, delta=0.1)
    assert (state.sketches["a"].estimate("x"), state.sketches["b"].estimate("x")) == (3, 2)
    with pytest.raises(KeyError):
        state.sketches["z"]
    with pytest.raises(ConstraintCrdtError, match=r"'a' with other dimensions: open it as SketchCRDT\(name='a', width=28"):
        state.sketch("a")
    for name in ("", "a\x1fb", "n" * 257):
        with pytest.raises(ConstraintCrdtError):
            state.sketch(name)


def test_a_name_with_two_shapes_means_the_one_that_most_rows_have() -> None:
    states = {name: ConstraintState() for name in "abc"}
    for name, epsilon in (("a", 0.1), ("b", 0.01), ("c", 0.01)):
        states[name].sketch("s", epsilon=epsilon).record("x", node=name)
    joined = [states["a"].merged(states["b"]).merged(states["c"]), states["c"].merged(states["b"]).merged(states["a"])]
    for state in joined:
        assert state.sketches["s"].total == 2
        assert state.sketches["s"].ignored_writers == 1
    even = states["a"].merged(states["b"])
    assert even.sketches["s"].shape == SketchCRDT(epsilon=0.1).shape, "of equally many the smaller"


def test_names_and_tables_that_are_read_are_bounded() -> None:
    state = ConstraintState(Rows(limits=Limits(sketches=2)))
    for name in "ab":
        state.sketch(name, 0.1, 0.1).record("x", node="a")
    with pytest.raises(ConstraintCrdtError, match="2 sketches is the most"):
        state.sketch("c", 0.1, 0.1)
    other = ConstraintState()
    other.sketch("c", 0.1, 0.1).record("x", node="b")
    state.merge(other)
    assert len(state.sketches) == 3, "what others began is taken"
    with pytest.raises(ConstraintCrdtError, match="reads 2 sketches already"):
        state.sketches["c"]


@pytest.mark.slow
def test_one_that_nobody_reads_costs_nothing_but_its_cells() -> None:
    source, state = ConstraintState(), ConstraintState()
    source.sketch("s").record_all({f"id-{number}": 1 for number in range(1000)}, node="a")
    sketch = state.sketch("s")
    state.merge(source)
    assert sketch.total == 1000
    source.sketch("s").record("x", 7, node="a")
    state.merge(source)
    assert sketch.estimate("x") >= 7
    assert sketch == source.sketch("s")
