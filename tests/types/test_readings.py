"""Shared readings: the forms of a value, the lives of a node, bounds, and when a value is due."""

import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, exchange
from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import Reading, SharedReadings
from constraint_crdt.types.variables import (
    AT_ONCE,
    EVERY,
    MOST_NAMES,
    MOST_READINGS,
    PACE,
    READING,
    TEXT_BYTES,
    Sample,
    Scalar,
    Share,
    Sharing,
    make_share,
    moved,
    read_scalar,
    wire_scalars,
)

SECOND = 10**9
NOW = 1_795_000_000 * SECOND

scalars = st.booleans() | st.text(max_size=10) | st.floats() | st.integers(-1000, 1000).map(lambda each: each / 10)


def written(*values: Scalar | None) -> tuple[int, list[object]]:
    """The forms of values, as they are read back from their bytes."""
    exponent, forms = wire_scalars(values)
    return exponent, msgspec.msgpack.decode(msgspec.msgpack.encode(forms))


# --- the forms of a value ------------------------------------------------------------------------------------------------


@given(st.lists(st.none() | scalars, max_size=8))
@example([4294967296.0])
def test_values_are_read_as_they_were_written(values: list[Scalar | None]) -> None:
    exponent, forms = written(*values)
    for value, form in zip(values, forms, strict=True):
        found = read_scalar(form, exponent)
        assert type(found) is type(value)
        assert found == value or (value != value and found != found)
        if isinstance(value, float):
            assert isinstance(found, float)
            assert math.copysign(1, found) == math.copysign(1, value)
        assert isinstance(value, str) or len(msgspec.msgpack.encode(form)) <= 9


@pytest.mark.parametrize(("values", "size"), [
    ([87.0], 1), ([87.5], 3), ([12.25, 0.5, 3.0], 9), ([0.1 + 0.2], 9), ([1e300], 9), ([-0.0], 9), ([True], 1), ([None], 1),
    ([1e9, 0.001], 8),
])  # fmt: skip
def test_the_size_of_values(values: list[Scalar | None], size: int) -> None:
    assert sum(len(msgspec.msgpack.encode(form)) for form in wire_scalars(values)[1]) <= size


@pytest.mark.parametrize("value", [[1, 2, 3], {"a": 1}, [1, 9**9], [True, 2], None, b"x"])
def test_a_form_of_a_later_version_reads_as_missing(value: object) -> None:
    rows = Rows()
    view = SharedReadings(rows)
    rows.write(Replica("a", 1), read_cell(make_cell(READING, "n", [0, 0, ["x", 7, "y"], [50], "more"]).data))
    rows.write(Replica("a", 1), read_cell(make_cell(READING, "0", [1, 0, [value, 2, 3, 4], [], "more"]).data))
    rows.write(Replica("a", 1), read_cell(make_cell(READING, "later", [1, 0, [1]]).data))
    assert "x" not in view
    assert {name: each.value for name, each in view.of("a").items()} == {"y": 3.0}


@pytest.mark.parametrize(
    "value", [["now", 0, [1.0]], [2**63, 0, [1.0]], [1, 401, [1.0]], [1, 0, [1.0], [-1]], [1, 0, [0] * 257], 3]
)
def test_a_malformed_cell_is_refused(value: object) -> None:
    with pytest.raises((ConstraintCrdtError, msgspec.ValidationError)):
        read_cell(make_cell(READING, "0", value).data)


def test_readings_that_move_together_share_a_short_cell() -> None:
    view, names = SharedReadings(), ("battery_percent", "power_w", "temp_c", "load_1m", "speed_mps")
    assert view.put_all({name: Reading(61.5, NOW) for name in names}, node="a") == 5
    assert {str(each.key): len(each.data) for each in view._rows.each(READING)} == {"n": 57, "0": 27}
    view.put_all({name: Reading(62.5, NOW + SECOND) for name in names}, node="a")
    assert view._rows.seq(Replica("a", 0)) == 3, "the names are told once"


def test_a_reading_that_moves_alone_leaves_the_times_of_the_others() -> None:
    view = SharedReadings()
    view.put_all({f"v{number}": Reading(1.0, NOW, SECOND * (1 + number % 2)) for number in range(10)}, node="a")
    view.put_all({"v3": Reading("on", NOW + 5 * SECOND, 2 * SECOND)}, node="a")
    found = SharedReadings(view._rows.copy()).of("a")
    assert found == view.of("a")
    assert found["v3"] == Reading("on", NOW + 5 * SECOND, 2 * SECOND)
    assert [found[f"v{number}"] for number in (2, 4, 9)] == [Reading(1.0, NOW, SECOND * each) for each in (1, 1, 2)]


MOVES = st.lists(
    st.tuples(st.sampled_from([3, 7]), st.dictionaries(st.sampled_from("uvwxyz"), st.none() | scalars, max_size=6)), max_size=12
)


@pytest.mark.slow
@given(MOVES)
@example([(3, {"u": None, "v": None, "y": False}), (3, {"y": None}), (3, {"v": None, "y": False, "w": False})])
@example([(3, {"y": False}), (3, {"y": None}), (3, {"v": False, "y": False})])
def test_what_is_read_is_what_was_put_last(moves: list[tuple[int, dict[str, Scalar | None]]]) -> None:
    """Against a plain model, with two lives of a node that know of each other, whatever order the cells come in."""
    view, model, now = SharedReadings(), dict[str, Scalar](), NOW
    for life, values in moves:
        now += SECOND
        view.put_all(
            {name: None if value is None else Reading(value, now) for name, value in values.items()}, node=Replica("a", life)
        )
        for name, value in values.items():
            if value is None:
                model.pop(name, None)
            else:
                model[name] = value
        assert repr({name: each.value for name, each in sorted(view.of("a").items())}) == repr(dict(sorted(model.items())))
    rows = Rows()
    late = SharedReadings(rows)
    for replica in (Replica("a", 7), Replica("a", 3)):
        for cell in reversed(view._rows.above(replica, 0)):
            rows.write(replica, read_cell(cell.data))
    assert repr(sorted(late.of("a").items())) == repr(sorted(view.of("a").items()))


@pytest.mark.long
def test_the_number_of_a_withdrawn_variable_is_given_again_where_none_is_left() -> None:
    view = SharedReadings()
    for number in range(MOST_NAMES + 100):
        view.put_all({f"v{number}": Reading(1.0, NOW + number * SECOND)}, node="a")
        view.put_all({f"v{number}": None}, node="a")
    assert not view.of("a")
    view.put_all({"x": Reading(1.0, NOW)}, node="a")
    assert view.of("a") == {"x": Reading(1.0, NOW)}


def test_a_withdrawal_overrules_a_former_life_that_the_writer_does_not_know() -> None:
    former, later = GossipNode("a", incarnation=1), GossipNode("a", incarnation=2)
    for life in (former, later):
        life.share_readings({"door": Reading(1.0, NOW)})
    later.share_readings({"door": None})
    later.share_readings({"notes": Reading(2.0, NOW)})
    reader = GossipNode("b")
    for life in (former, later):
        reader.receive(life.delta_since(reader.clock))
    assert reader.state.readings.of("a") == {"notes": Reading(2.0, NOW)}


# --- nodes and lives -----------------------------------------------------------------------------------------------------


def test_readings_are_those_of_the_last_cells() -> None:
    view = SharedReadings()
    assert view.put_all({"x": Reading(1.0, NOW), "mode": Reading("auto", NOW, SECOND)}, node="a") == 2
    assert view.put_all({"x": Reading(2.0, NOW)}, node="b") == 1
    assert (list(view), view.nodes("x"), "mode" in view, "y" in view, len(view)) == (["mode", "x"], ("a", "b"), True, False, 2)
    assert view.of("a") == {"x": Reading(1.0, NOW), "mode": Reading("auto", NOW, SECOND)}
    assert view.of("a")["x"].until == NOW + 3 * EVERY
    assert view.put_all({"x": Reading(1.0, NOW)}, node="a") == 0
    assert view.put_all({"x": None, "y": None}, node="a") == 1
    assert view.nodes("x") == ("b",)
    assert repr(view) == "SharedReadings(2 variables on 2 nodes)"
    assert SharedReadings(view._rows.copy()).of("a") == view.of("a")


def test_a_new_life_writes_later_times_and_withdraws_what_a_former_life_told() -> None:
    rows = Rows()
    view = SharedReadings(rows)
    view.put_all({"x": Reading(1.0, NOW), "y": Reading(1.0, NOW)}, node=Replica("a", 7))
    view.put_all({"x": Reading(2.0, NOW - SECOND)}, node=Replica("a", 3))  # its clock is behind
    assert view.of("a")["x"].value == 2.0
    view.put_all({"y": None}, node=Replica("a", 3))
    assert "y" not in view.of("a")
    view.put_all({"x": None}, node=Replica("a", 3))
    assert not view.of("a")
    assert not SharedReadings(rows.copy()).of("a")


def test_the_readings_of_a_retired_node_are_left_out() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    b.share_readings({"x": Reading(1.0, NOW)})
    exchange(a, b)
    seen: list[tuple[str, str]] = []
    a.state.readings.subscribe(lambda node, name: seen.append((node, name)))
    assert a.state.readings.of("b")["x"].value == 1.0
    before = a.constraints_hash
    a.retire("b")
    assert not a.state.readings.of("b")
    a.undo_retirement("b")
    assert a.state.readings.of("b")["x"].value == 1.0
    assert seen == [("b", "x")] * 2
    assert a.constraints_hash == before


def test_bounds() -> None:
    view = SharedReadings()
    view.put_all({f"v{number}": Reading(1.0, NOW) for number in range(MOST_READINGS)}, node="a")
    with pytest.raises(ConstraintCrdtError, match="at most 64 readings"):
        view.put_all({"one_more": Reading(1.0, NOW)}, node="a")
    assert view.put_all({"v1": None, "one_more": Reading(1.0, NOW)}, node="a") == 2
    with pytest.raises(ConstraintCrdtError, match="at most 64 bytes"):
        view.put_all({"v2": Reading("é" * (TEXT_BYTES // 2 + 1), NOW)}, node="a")
    with pytest.raises(ConstraintCrdtError, match="a number, a text, true or false"):
        view.put_all({"v2": Reading([1.0], NOW)}, node="a")  # type: ignore[arg-type]


def test_a_node_that_does_not_know_the_kind_keeps_and_forwards_the_cell() -> None:
    from constraint_crdt.crdt.cells import READERS

    a, old, c = GossipNode("a"), GossipNode("old"), GossipNode("c")
    a.share_readings({"x": Reading(1.5, NOW)})
    reader = READERS.pop(READING)
    try:
        exchange(a, old)
        exchange(old, c)
    finally:
        READERS[READING] = reader
    assert c.state.readings.of("a")["x"] == Reading(1.5, NOW)
    assert a.state.rows.state_hash == old.state.rows.state_hash or old.state_hash == c.state_hash


# --- when a value is due -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "deadband", "expected"),
    [
        (1.0, 1.5, 0.5, False),
        (1.0, 1.6, 0.5, True),
        (1.0, 1.0, 0.0, False),
        (1.0, 1.0000001, 0.0, True),
        (1.0, "1", 9.0, True),
        (True, False, 9.0, True),
        ("a", "b", 9.0, True),
        (math.nan, math.nan, 0.0, False),
        (math.nan, 1.0, 9.0, True),
        (math.inf, math.inf, 0.0, False),
        (math.inf, -math.inf, 9.0, True),
    ],
)
def test_what_moved(before: Scalar, after: Scalar, deadband: float, expected: bool) -> None:
    assert moved(before, after, deadband) is expected


STEPS = st.lists(st.tuples(st.integers(0, 4_000), st.none() | st.integers(0, 30).map(float)), min_size=1, max_size=40)


@pytest.mark.slow
@given(STEPS, st.sampled_from([0.0, 2.0, 7.5]), st.sampled_from([1, 3, 10]))
def test_what_is_told_follows_the_samples(steps: list[tuple[int, float | None]], deadband: float, every: int) -> None:
    """Against the rules: the pace holds, nothing needless is told, and after a calm time the last sample is told, or near."""
    sharing, now = Sharing(), 0
    sharing.require([Share("x", deadband, every * SECOND)])
    told: list[tuple[int, Sample | None]] = []
    last: Sample | None = None
    for wait, value in steps:
        now += wait * SECOND // 1000
        last = None if value is None else Sample(value, now)
        sharing.offer("x", last)
        told += [(now, sample) for sample, _ in sharing.take(now).values()]
    calm = now + AT_ONCE * PACE
    told += [(calm, sample) for sample, _ in sharing.take(calm).values()]
    for place, (at, sample) in enumerate(told):
        assert sum(at - PACE < other <= at for other, _ in told) <= AT_ONCE
        before = told[place - 1][1] if place else None
        if sample is not None and before is not None:
            assert moved(before.value, sample.value, deadband) or sample.at - before.at >= every * SECOND
        assert place == 0 or sample is not None or before is not None
    shown = told[-1][1] if told else None
    assert (shown is None) is (last is None)
    if shown is not None and last is not None:
        assert not moved(shown.value, last.value, deadband)
        assert last.at - shown.at < every * SECOND
    assert not sharing.waiting


def test_what_is_no_longer_shared_is_withdrawn_once() -> None:
    sharing = Sharing()
    sharing.require([Share("x")], told=["old"])
    sharing.offer("x", Sample(1.0, 0))
    sharing.offer("y", Sample(1.0, 0))
    assert sharing.take(0) == {"old": (None, EVERY), "x": (Sample(1.0, 0), EVERY)}
    sharing.require([Share("z")])
    assert sharing.take(0) == {"x": (None, EVERY)}
    assert sharing.take(9 * SECOND) == {}
    assert set(sharing.names) == {"z"}


def test_the_first_variables_within_the_bound_are_shared() -> None:
    sharing = Sharing()
    sharing.require([Share(f"v{number}") for number in range(MOST_READINGS + 1)])
    assert len(sharing.names) == MOST_READINGS
    assert f"v{MOST_READINGS}" not in sharing.names


def test_shares_of_callers() -> None:
    assert make_share("x", 50, 5) == Share("x", 50.0, 5 * SECOND)
    assert make_share("x") == Share("x")
    for name in ("name", "labels.zone", "live", "position", "nodes"):
        with pytest.raises(ConstraintCrdtError, match="of their own; give it another name"):
            make_share(name)
    for deadband, every in ((-1.0, None), (math.inf, None), (math.nan, None), (0.0, 0.5), (0.0, math.nan)):
        with pytest.raises(ConstraintCrdtError):
            make_share("x", deadband, every)
