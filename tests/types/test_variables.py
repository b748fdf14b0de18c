"""`MeasuredVariables`: the readings, the lives of a node, retired nodes, bounds, and malformed cells."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, ConstraintState, GossipNode, Replica, exchange
from constraint_crdt.crdt.cells import REMOVABLE, make_cell, make_removal, read_cell
from constraint_crdt.crdt.limits import CELL_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types import MeasuredVariables, VariableKind
from constraint_crdt.types.variables import MOST_VARIABLES, VARIABLE_KINDS, VARIABLES, kind_of

BOOL, DOUBLE, MIXED, STRING = VariableKind.BOOL, VariableKind.DOUBLE, VariableKind.MIXED, VariableKind.STRING
OLD, NEW, NEWEST = Replica("a", 9), Replica("a", 4), Replica("a", 6)
"""Lives of one node; their incarnations have no order."""

names = st.text(min_size=1, max_size=12)


def test_every_reading_of_some_variables() -> None:
    view = MeasuredVariables()
    assert view.put({"speed_mps": DOUBLE, "door_open": BOOL, "label": STRING}, node="b")
    assert view.put({"speed_mps": DOUBLE, "label": DOUBLE, "notes": MIXED}, node="a")
    assert (list(view), len(view), "label" in view, "x" in view) == (["door_open", "label", "notes", "speed_mps"], 4, True, False)
    assert list(view.of("b").items()) == [("door_open", BOOL), ("label", STRING), ("speed_mps", DOUBLE)]
    assert (view.nodes("speed_mps"), view.nodes("door_open"), view.nodes("x")) == (("a", "b"), ("b",), ())
    assert view.kinds() == {"door_open": "bool", "speed_mps": "double"}
    assert (view.near("sped_mps"), view.near("zzz")) == (["speed_mps"], [])
    assert (view.of("z"), view.left_out("z"), view.left_out("a")) == ({}, 0, 0)
    assert repr(view) == "MeasuredVariables(4 variables on 2 nodes)"


def test_the_variables_of_a_node_take_the_place_of_those_before() -> None:
    view = MeasuredVariables()
    assert not view.put({}, node="a")
    view.put({"x": DOUBLE, "y": BOOL}, node="a")
    assert not view.put({"y": BOOL, "x": DOUBLE}, node="a")
    view.put({"y": STRING}, node="a")
    assert (list(view), view.kinds()) == (["y"], {"y": STRING})
    assert view.put({}, node="a")
    assert not view.put({}, node="a")
    assert (list(view), view.kinds(), view.of("a")) == ([], {}, {})
    (cell,) = view._rows.each(VARIABLES)
    assert cell.data == msgspec.msgpack.encode([VARIABLES, "", []])


@pytest.mark.slow
def test_the_nearest_of_thousands_of_similar_names_is_found() -> None:
    view = MeasuredVariables()
    for number in range(3):
        view.put({f"sensor_{number}_{index}_celsius": DOUBLE for index in range(700)}, node=f"n{number}")
    assert view.near("sensr_2_41_celsius")[0] == "sensor_2_41_celsius"
    assert view.near("zzz") == []


def test_a_node_without_variables_can_tell_that() -> None:
    view = MeasuredVariables()
    assert not view.told("a")
    assert view.put({}, node="a", even_none=True)
    assert not view.put({}, node="a", even_none=True)
    assert (view.told("a"), view.told("b"), len(view), view.of("a")) == (True, False, 0, {})
    assert view.put({"x": DOUBLE}, node="a")
    assert view.told("a")


def test_of_several_lives_the_one_that_took_over_counts_in_any_order_of_arrival() -> None:
    view = MeasuredVariables()
    view.put({"x": DOUBLE}, node=OLD)
    old = view._rows.copy()
    assert view.put({"x": DOUBLE}, node=NEW), "it takes the same over"
    assert view.put({"y": BOOL}, node=NEW)
    late = MeasuredVariables(Rows())
    late._rows.apply(view._rows.since({OLD: 1}))
    late._rows.apply(old.whole())
    assert late.of("a") == view.of("a") == {"y": BOOL}
    view.put({}, node=NEWEST)
    assert (view.of("a"), len(view)) == ({}, 0)


def test_a_life_without_its_store_takes_over_when_it_hears_of_the_former_ones() -> None:
    fleet, node = MeasuredVariables(), MeasuredVariables()
    fleet.put({"x": DOUBLE}, node=OLD)
    fleet.put({"y": DOUBLE}, node=NEW)
    node.put({"z": DOUBLE}, node=NEWEST)
    node.merge(fleet)
    assert list(node) == ["y"]
    assert node.put({"z": DOUBLE}, node=NEWEST)
    assert list(node) == ["z"]
    assert not node.put({"z": DOUBLE}, node=NEWEST)


def test_a_cell_that_goes_down_in_rank_leaves_the_place_to_another_life() -> None:
    rows = Rows()
    view = MeasuredVariables(rows)
    for replica, name, life in ((OLD, "old", 2), (NEW, "new", 3), (NEW, "new", 1)):
        rows.write(replica, read_cell(make_cell(VARIABLES, "", [[[name, 1]], 0, life]).data))
    assert list(view) == ["old"] == list(MeasuredVariables(rows.copy()))


def test_a_retired_node_measures_nothing() -> None:
    state = ConstraintState()
    state.variables.put({"x": DOUBLE, "y": BOOL}, node="a")
    state.variables.put({"x": STRING}, node="b")
    state.retirements.retire_node("a", node="b")
    for each in (state, ConstraintState(state.rows.copy())):
        assert (list(each.variables), each.variables.kinds(), each.variables.of("a")) == (["x"], {"x": STRING}, {})


def test_nodes_tell_each_other() -> None:
    a, b = GossipNode("a", incarnation=1), GossipNode("b", incarnation=1)
    assert a.describe_variables({"x": DOUBLE})
    assert not a.describe_variables({"x": DOUBLE})
    exchange(b, a)
    assert b.state.variables.nodes("x") == ("a",)


@pytest.mark.parametrize("size", [4, 250])
def test_of_too_many_the_first_by_name_are_told(size: int) -> None:
    view = MeasuredVariables()
    measured = {f"{number:0{size}}": DOUBLE for number in range(MOST_VARIABLES + 5)}
    view.put(measured, node="a")
    (cell,) = view._rows.each(VARIABLES)
    told = view.of("a")
    assert len(read_cell(cell.data).data) <= CELL_BYTES
    assert list(told) == sorted(measured)[: len(told)]
    assert len(told) + view.left_out("a") == len(measured)
    assert len(told) == MOST_VARIABLES if size == 4 else len(told) > 100
    assert not view.put(measured, node="a")


@pytest.mark.slow
@given(st.dictionaries(names, st.sampled_from(VariableKind), max_size=20), st.dictionaries(names, st.sampled_from(VariableKind)))
def test_any_variables_are_read_as_written_and_merged(one: dict[str, VariableKind], other: dict[str, VariableKind]) -> None:
    view = MeasuredVariables()
    view.put(one, node="a")
    view.put(other, node="b")
    assert (view.of("a"), view.of("b")) == (one, other)
    every = {name: {each[name] for each in (one, other) if name in each} for name in one | other}
    assert list(view) == sorted(every)
    assert view.kinds() == {name: next(iter(kinds)) for name, kinds in every.items() if len(kinds) == 1 and MIXED not in kinds}
    assert view == MeasuredVariables().merged(view)


def test_the_kind_of_a_value() -> None:
    values: dict[str, tuple[object, ...]] = {
        "double": (1, 2.5, Decimal(3)),
        "bool": (True,),
        "string": ("",),
        "list": ([], (1,)),
        "map": ({},),
        "mixed": (None, {1}),
    }
    assert {kind: {str(kind_of(value)) for value in of_kind} for kind, of_kind in values.items()} == {k: {k} for k in values}


@pytest.mark.parametrize(("name", "kind", "error"), [("", DOUBLE, ConstraintCrdtError), ("x" * 257, BOOL, ConstraintCrdtError)])
def test_a_name_out_of_bounds_is_refused(name: str, kind: VariableKind, error: type[Exception]) -> None:
    view = MeasuredVariables()
    with pytest.raises(error):
        view.put({"good": DOUBLE, name: kind}, node="a")
    with pytest.raises(TypeError, match="VariableKind"):
        view.put({"good": "double"}, node="a")  # type: ignore[dict-item]
    assert len(view._rows) == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        [[["x", -1]]],
        [[["", 1]]],
        [[["x" * 257, 1]]],
        [[[1, 1]]],
        [[], -1],
        [[], 0, -1],
        [[["x", 1]] * (MOST_VARIABLES + 1)],
        ["x"],
    ],
)
def test_a_malformed_cell_is_refused(value: object) -> None:
    with pytest.raises((ConstraintCrdtError, msgspec.DecodeError)):
        read_cell(make_cell(VARIABLES, "", value).data)


def test_the_cell_of_a_node_has_no_key() -> None:
    with pytest.raises(ConstraintCrdtError):
        read_cell(make_cell(VARIABLES, "x", []).data)


def test_a_cell_of_a_later_version_is_read_as_far_as_it_is_understood() -> None:
    rows = Rows()
    view = MeasuredVariables(rows)
    later = [[["x", 1, "m/s"], ["y", len(VARIABLE_KINDS)], ["z"]], 7, 0, "more"]
    rows.write(Replica("a", 0), read_cell(make_cell(VARIABLES, "", later).data))
    assert (view.of("a"), view.left_out("a")) == ({"x": DOUBLE, "y": MIXED, "z": MIXED}, 7)


def test_every_kind_has_a_number_of_its_own_which_never_changes() -> None:
    assert VARIABLE_KINDS == ("mixed", "double", "string", "bool", "list", "map")
    assert set(VARIABLE_KINDS) == set(VariableKind)


def test_a_later_version_may_remove_them() -> None:
    assert VARIABLES in REMOVABLE
    a = GossipNode("a", incarnation=1)
    a.describe_variables({"x": DOUBLE})
    (cell,) = a.state.rows.each(VARIABLES)
    a.state.rows.write(a.replica, make_removal([("", [(cell.replica, cell.seq)])], VARIABLES))
    assert (list(a.state.variables), a.state.variables.of("a")) == ([], {})
