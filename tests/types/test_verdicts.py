"""`ConstraintVerdicts`: the readings, the lives of a node, retired nodes, removed constraints, bounds, and malformed cells."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, GossipNode, Replica, exchange
from constraint_crdt.crdt.cells import REMOVABLE, make_cell, make_removal, read_cell
from constraint_crdt.crdt.limits import CELL_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.model import VerdictState
from constraint_crdt.types import ConstraintVerdicts, NodeVerdict
from constraint_crdt.types.verdicts import (
    INPUTS_BYTES,
    REASON_BYTES,
    STATES,
    VERDICT,
    input_texts,
    make_verdict,
    read_verdict,
    shortened_inputs,
)
from tests.types.trio import WRITERS, Trio, copies

HOLDS, VIOLATED, CLEARING, UNKNOWN = VerdictState.HOLDS, VerdictState.VIOLATED, VerdictState.CLEARING, VerdictState.UNKNOWN
OLD, NEW, NEWEST = Replica("a", 9), Replica("a", 4), Replica("a", 6)
"""Lives of one node; their incarnations have no order."""

BAD = NodeVerdict(VIOLATED, 5, (("speed_mps", "9.0"),), -7.5, -5.0, "speed_mps", "speed_mps <= 1.5")

texts = st.text(max_size=400)
numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
verdicts = st.builds(
    NodeVerdict,
    st.sampled_from(VerdictState),
    st.integers(0, 2**63 - 1),
    st.lists(st.tuples(st.text(max_size=90), texts), max_size=6).map(tuple),
    numbers,
    numbers,
    st.none() | st.text(min_size=1, max_size=60),
    texts,
    st.booleans(),
)


def size(inputs: tuple[tuple[str, str], ...]) -> int:
    return sum(len(part.encode()) for each in inputs for part in each)


def test_every_reading_of_some_verdicts() -> None:
    view = ConstraintVerdicts()
    assert view.put("speed", BAD, node="b")
    assert view.put("speed", BAD._replace(state=CLEARING, since=3), node="a")
    assert view.put_all({"temp": NodeVerdict(UNKNOWN, 8, reason="no temp_c"), "speed": NodeVerdict(HOLDS, 9)}, node="c") == 2
    assert (list(view), len(view), "speed" in view, "other" in view) == (["speed", "temp"], 2, True, False)
    assert view.of("speed") == {"a": BAD._replace(state=CLEARING, since=3), "b": BAD, "c": NodeVerdict(HOLDS, 9)}
    assert view.node("c") == {"speed": NodeVerdict(HOLDS, 9), "temp": NodeVerdict(UNKNOWN, 8, reason="no temp_c")}
    assert (view.violated, view.unknown) == ({"speed"}, {"temp"})
    assert (len(view.violated), view.violated_on("speed"), view.violated_on("temp")) == (1, ("a", "b"), ())
    assert {state: number for state, number in view.counts.items() if number} == {VIOLATED: 1, CLEARING: 1, UNKNOWN: 1, HOLDS: 1}
    assert (view.of("other"), view.node("other")) == ({}, {})
    assert repr(view) == "ConstraintVerdicts(2 constraints, 1 violated, 1 unknown)"


def test_a_turn_takes_the_place_of_the_verdict_before() -> None:
    view = ConstraintVerdicts()
    view.put("speed", BAD, node="a")
    view.put("speed", NodeVerdict(HOLDS, 7), node="a")
    assert (view.of("speed"), set(view.violated)) == ({"a": NodeVerdict(HOLDS, 7)}, set())
    view.put("speed", None, node="a")
    assert (view.of("speed"), view.node("a"), len(view), any(view.counts.values())) == ({}, {}, 0, False)


def test_a_standing_verdict_is_not_written_again() -> None:
    view = ConstraintVerdicts()
    assert not view.put("speed", None, node="a")
    assert view.put("speed", BAD, node="a")
    assert not view.put("speed", BAD, node="a")
    assert view.put("speed", None, node="a")
    assert not view.put("speed", None, node="a")
    assert view._rows.seq(Replica("a", 0)) == 2


def test_nothing_to_tell_is_a_small_cell_and_the_defaults_take_no_bytes() -> None:
    assert make_verdict("x", None).data == msgspec.msgpack.encode([VERDICT, "x"])
    assert make_verdict("x", NodeVerdict(HOLDS)).data == msgspec.msgpack.encode([VERDICT, "x", [1]])
    assert make_verdict("x", NodeVerdict(VIOLATED, 7)).data == msgspec.msgpack.encode([VERDICT, "x", [3, 7]])
    assert len(make_verdict("x", None, life=3).data) < 20
    assert read_verdict(make_verdict("x", None, life=3)) == (None, 3)


def test_of_several_lives_the_one_that_took_over_counts_in_any_order_of_arrival() -> None:
    view = ConstraintVerdicts()
    view.put("speed", BAD, node=OLD)
    view.put("temp", BAD, node=OLD)
    old = view._rows.copy()
    assert view.restated(NEW) == {"speed": BAD, "temp": BAD}
    view.put("speed", NodeVerdict(HOLDS, 2), node=NEW)  # earlier than BAD: its clock was set back
    assert view.of("speed") == {"a": NodeVerdict(HOLDS, 2)}
    assert view.restated(NEW) == {"temp": BAD}
    assert view.told_by("a") == {"speed": (NEW, NodeVerdict(HOLDS, 2)), "temp": (OLD, BAD)}
    view.put("temp", None, node=NEW)
    assert (view.restated(NEW), view.of("temp"), list(view)) == ({}, {}, ["speed"])
    late = ConstraintVerdicts(Rows())
    late._rows.apply(view._rows.since({OLD: 2}))
    late._rows.apply(old.whole())
    assert (late.of("speed"), list(late)) == (view.of("speed"), ["speed"])


def test_a_life_without_its_store_takes_over_when_it_hears_of_the_former_ones() -> None:
    fleet, node = ConstraintVerdicts(), ConstraintVerdicts()
    fleet.put("speed", BAD, node=OLD)
    fleet.put("speed", NodeVerdict(UNKNOWN, 90), node=NEW)
    node.put("speed", NodeVerdict(HOLDS, 95), node=NEWEST)
    node.merge(fleet)
    assert node.of("speed") == {"a": NodeVerdict(UNKNOWN, 90)}, "it took nothing over so far"
    assert node.restated(NEWEST) == {"speed": NodeVerdict(UNKNOWN, 90)}
    assert node.put("speed", NodeVerdict(HOLDS, 95), node=NEWEST)
    assert node.of("speed") == {"a": NodeVerdict(HOLDS, 95)}
    assert node.restated(NEWEST) == {}


def test_a_clock_set_back_gives_the_word_to_no_former_life() -> None:
    """Two lives wrote without knowledge of each other."""
    view, other = ConstraintVerdicts(), ConstraintVerdicts()
    view.put("speed", BAD, node=NEW)
    other.put("speed", NodeVerdict(UNKNOWN, 3), node=OLD)
    view.merge(other)
    assert view.of("speed") == {"a": BAD}
    view.put("speed", NodeVerdict(HOLDS, 1), node=NEW)
    assert view.of("speed") == {"a": NodeVerdict(HOLDS, 1)}


def test_a_new_life_takes_an_equal_verdict_over() -> None:
    view = ConstraintVerdicts()
    view.put("speed", BAD, node=OLD)
    assert view.put("speed", BAD, node=NEW)
    assert not view.put("speed", BAD, node=NEW)
    assert view.restated(NEW) == {}


def test_a_verdict_that_goes_down_in_rank_leaves_the_place_to_another_life() -> None:
    """As no honest node writes it: the later cell of a row has fewer takeovers."""
    rows = Rows()
    view = ConstraintVerdicts(rows)
    rows.write(OLD, make_verdict("speed", BAD, life=2))
    rows.write(NEW, make_verdict("speed", NodeVerdict(HOLDS, 1), life=3))
    assert view.of("speed") == {"a": NodeVerdict(HOLDS, 1)}
    rows.write(NEW, make_verdict("speed", NodeVerdict(HOLDS, 1), life=1))
    assert view.of("speed") == {"a": BAD} == ConstraintVerdicts(rows.copy()).of("speed")


def test_a_retired_node_violates_nothing() -> None:
    state = ConstraintState()
    view = state.verdicts
    state.constraints.add("speed", node="b")
    view.put("speed", BAD, node="a")
    assert set(view.violated) == {"speed"}
    state.retirements.retire_node("a", node="b")
    assert (set(view.violated), view.of("speed"), view.node("a"), len(view)) == (set(), {}, {}, 0)
    assert ConstraintState(state.rows.copy()).verdicts.of("speed") == {}


def test_verdicts_of_a_removed_constraint_are_left_out_and_come_back_with_it() -> None:
    state = ConstraintState()
    view = state.verdicts
    view.put("speed", BAD, node="a")
    assert (list(view), set(view.violated), view.node("a")) == ([], set(), {}), "no add of it is known yet"
    state.constraints.add("speed", node="b")
    assert (list(view), set(view.violated), view.node("a")) == (["speed"], {"speed"}, {"a": BAD}.fromkeys(["speed"], BAD))
    state.constraints.remove("speed", node="b")
    assert (list(view), set(view.violated)) == ([], set())
    state.constraints.add("speed", node="b")
    assert set(view.violated) == {"speed"}


def test_many_adds_at_once_are_followed() -> None:
    a, b = GossipNode("a", incarnation=1), GossipNode("b", incarnation=1)
    a.record_verdicts({"c7": BAD})
    assert list(a.state.verdicts) == []
    for number in range(20):
        b.add_constraint(f"c{number}")
    exchange(a, b)
    assert set(a.state.verdicts.violated) == set(b.state.verdicts.violated) == {"c7"}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), copies, st.tuples(st.sampled_from("xy"), st.sampled_from((None, BAD, NodeVerdict(HOLDS, 2))))),
        st.tuples(st.sampled_from(["merge", "send"]), copies, copies),
        st.tuples(st.just("deliver"), st.integers(0, 7), st.none()),
    ),
    max_size=30,
)


@pytest.mark.slow
@given(steps)
def test_two_lives_and_another_node_in_any_history(history: list[tuple[str, int, object]]) -> None:
    """The writer reads its last verdict, whatever its node said before, and readings kept up to date are those made anew."""
    trio: Trio[None] = Trio(lambda _: ConstraintState())
    for state in trio.states:
        assert list(state.verdicts) == []  # the views follow from the beginning
    for act, first, second in history:
        if act == "put":
            assert isinstance(second, tuple)
            view, (id_, verdict) = trio.states[first].verdicts, second
            if view.put(id_, verdict, node=WRITERS[first]):
                trio.wrote(first, None)
            held = view._held.get(id_, {}).get(WRITERS[first].node_id)
            assert (None if held is None else held.verdict) == verdict
            assert id_ not in view.restated(WRITERS[first])
        elif act == "deliver":
            trio.deliver(first)
        else:
            assert isinstance(second, int)
            (trio.merge if act == "merge" else trio.send)(first, second)
        for state in trio.states:
            kept, anew = ConstraintVerdicts(state.rows), ConstraintVerdicts(state.rows.copy())
            assert state.verdicts._held == kept._held == anew._held
            assert [anew.of(id_) for id_ in "xy"] == [kept.of(id_) for id_ in "xy"]


def test_equal_cells_are_equal_verdicts() -> None:
    one, other = ConstraintVerdicts(), ConstraintVerdicts()
    one.put("speed", BAD, node="a")
    assert one != other
    other.merge(one)
    assert one == other == one.merged(other)
    assert one.__eq__(1) is NotImplemented


@pytest.mark.slow
@given(verdicts)
def test_any_verdict_is_written_within_its_bounds_and_read_as_written(verdict: NodeVerdict) -> None:
    view = ConstraintVerdicts()
    view.put("x", verdict, node="a")
    read = view.of("x")["a"]
    assert (read.state, read.since, read.by_default) == (verdict.state, verdict.since, verdict.by_default)
    assert size(read.inputs) <= INPUTS_BYTES
    assert len(read.reason.encode()) <= REASON_BYTES
    again = ConstraintVerdicts()
    again.put("x", read, node="a")
    assert again.of("x") == view.of("x")
    (cell,) = view._rows.each(VERDICT)
    assert read_verdict(read_cell(cell.data)) == (read, 0)


def test_the_variable_of_the_margin_comes_first_and_long_texts_are_cut() -> None:
    values = {"b": "x" * 500, "a": [1, None, True], "speed_mps": 9.0, "t": float("nan")}
    found = input_texts(values, "speed_mps")
    assert found == (("speed_mps", "9.0"), ("a", "[1,null,true]"), ("b", '"' + "x" * 60 + "…"), ("t", "nan"))
    assert input_texts({"label": "Žižek"}) == (("label", '"Žižek"'),)
    assert shortened_inputs([("label", "ž" * 200)]) == (("label", "ž" * 124 + "…"),)
    assert [name for name, _ in shortened_inputs([(f"v{number}", "y" * 64) for number in range(6)])] == ["v0", "v1", "v2", "v3"]
    assert shortened_inputs([("n" * 254, "1")]) == ()


def test_a_value_without_a_text_in_json_has_its_own_and_half_a_character_harms_nothing() -> None:
    found = {"xs": [1.0, math.nan, None], "m": {"a b": -math.inf, "c": [True, "nüll"]}}
    assert input_texts(found) == (("m", '{"a b":-inf,"c":[true,"nüll"]}'), ("xs", "[1.0,nan,null]"))
    assert input_texts({"n": 2**70, "s": {1j}}) == (("n", str(2**70)), ("s", "{1j}"))
    view = ConstraintVerdicts()
    view.put("x", NodeVerdict(VIOLATED, 1, (("s", "\ud800"),), reason="\ud800"), node="a")
    assert view.of("x")["a"] == NodeVerdict(VIOLATED, 1, (("s", "?"),), reason="?")


def test_a_long_name_of_a_variable_is_cut() -> None:
    """An expression may read `m['…']`, longer than the name of any variable."""
    view = ConstraintVerdicts()
    view.put("x", BAD._replace(variable="m['" + "k" * 600 + "']"), node="a")
    variable = view.of("x")["a"].variable or ""
    assert (len(variable.encode()), variable[:4], variable[-1]) == (256, "m['k", "…")


def test_a_margin_without_a_number_is_left_out() -> None:
    view = ConstraintVerdicts()
    view.put("x", NodeVerdict(VIOLATED, 1, margin=float("nan"), share=float("-inf")), node="a")
    assert view.of("x")["a"] == NodeVerdict(VIOLATED, 1)


@pytest.mark.parametrize(
    ("id_", "verdict", "error"),
    [
        ("", BAD, ConstraintCrdtError),
        ("x" * 257, BAD, ConstraintCrdtError),
        ("x", BAD._replace(state="violated"), TypeError),  # type: ignore[arg-type]
        ("x", BAD._replace(since=-1), ConstraintCrdtError),
        ("x", BAD._replace(since=2**63), ConstraintCrdtError),
        ("x", BAD._replace(since=1.5), TypeError),  # type: ignore[arg-type]
        ("x", BAD._replace(margin="far"), TypeError),  # type: ignore[arg-type]
    ],
)
def test_a_verdict_out_of_bounds_is_refused_and_writes_nothing(id_: str, verdict: NodeVerdict, error: type[Exception]) -> None:
    view = ConstraintVerdicts()
    with pytest.raises(error):
        view.put_all({"good": BAD, id_: verdict}, node="a")
    assert len(view._rows) == 0


def test_the_largest_verdict_fits_into_a_cell() -> None:
    view = ConstraintVerdicts()
    inputs = tuple((f"{number}", "") for number in range(256))
    largest = NodeVerdict(VIOLATED, 2**63 - 1, inputs, -1e308, -1e308, "v" * 256, "r" * 256, by_default=True)
    view.put("i" * 256, largest, node="a")
    (cell,) = view._rows.each(VERDICT)
    assert len(cell.data) < CELL_BYTES // 8


@pytest.mark.parametrize(
    "value",
    [
        [-1],
        [3, -1],
        ["violated"],
        [],
        3,
        [3, 1, [["v", "x" * 256]]],
        [3, 1, [["v"]]],
        [3, 1, [[1, "x"]]],
        [3, 1, [], float("nan")],
        [3, 1, [], None, float("inf")],
        [3, 1, [], None, None, "v" * 257],
        [3, 1, [], None, None, None, "r" * 257],
        [3, 1, [], None, None, None, "", -1],
        [3, 1, [], None, None, None, "", 0, -1],
    ],
)
def test_a_malformed_cell_is_refused(value: object) -> None:
    with pytest.raises((ConstraintCrdtError, msgspec.DecodeError)):
        read_cell(make_cell(VERDICT, "x", value).data)


def test_a_cell_needs_an_id() -> None:
    with pytest.raises(ConstraintCrdtError):
        read_cell(make_cell(VERDICT, "", [3]).data)


def test_a_cell_of_a_later_version_is_read_as_far_as_it_is_understood() -> None:
    rows = Rows()
    view = ConstraintVerdicts(rows)
    later = [3, 7, [["v", "1", "number"]], -1, None, None, "", 6, 0, {"more": 1}, "and more"]
    rows.write(Replica("a", 0), read_cell(make_cell(VERDICT, "x", later).data))
    rows.write(Replica("b", 0), read_cell(make_cell(VERDICT, "x", [len(STATES), 8]).data))
    assert view.of("x") == {"a": NodeVerdict(VIOLATED, 7, (("v", "1"),), -1.0), "b": NodeVerdict(UNKNOWN, 8)}


def test_every_state_has_a_number_of_its_own_which_never_changes() -> None:
    assert STATES == (None, "holds", "pending", "violated", "clearing", "unknown", "off")
    assert set(STATES[1:]) == set(VerdictState)


def test_a_later_version_may_remove_verdicts() -> None:
    assert VERDICT in REMOVABLE
    a = GossipNode("a", incarnation=1)
    a.add_constraint("speed")
    a.record_verdicts({"speed": BAD})
    (cell,) = a.state.rows.each(VERDICT)
    a.state.rows.write(a.replica, make_removal([("speed", [(cell.replica, cell.seq)])], VERDICT))
    assert (a.state.verdicts.of("speed"), len(a.state.verdicts.violated)) == ({}, 0)
