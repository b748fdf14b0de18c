"""What a definition says: labels, ends, and how both are written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Definition
from constraint_crdt.crdt import pure_cells
from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.limits import DURATION_MAX, MAX_COUNT
from constraint_crdt.model import IfUnknown, Mode, Scope, Severity
from constraint_crdt.types.definition import (
    ADD,
    FIELDS_MEANING,
    FLEET_MEANING,
    LATER,
    MEANING,
    check_definition,
    check_labels,
    check_selector,
    duration_ns,
    expiry_of,
    expiry_time,
    read_addition,
    wire_definition,
)

NOW = 1_700_000_000 * SECOND

texts = st.none() | st.sampled_from(["", "x < 1.0", "é" * 300, "a" * 31, "a" * 32])
ids = st.sampled_from(["a", "a" * 28, "a" * 31, "a" * 32, "é" * 20, "x" * 255, "x" * 256])
labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2" * 40]), max_size=3)
times = st.none() | st.sampled_from([0, 1, 127, 128, 2**16, 2**32, NOW, MAX_COUNT])


@pytest.mark.slow
@given(ids, texts, st.sampled_from(list(Severity)), texts, labels, times, times)
def test_what_is_written_is_read(
    id_: str, when: str | None, severity: str, about: str | None, on: dict[str, str], expires_at: int | None, at: int | None
) -> None:
    definition = check_definition(when, severity, about, on, expires_at)
    cell = read_cell(make_cell(ADD, id_, wire_definition(definition, at)).data)
    assert read_addition(cell)[::2] == (definition, at)
    assert expiry_of(cell) == expires_at


LONGEST = int(DURATION_MAX) * SECOND
durations = st.sampled_from([0, 1, SECOND // 2, 30 * SECOND, LONGEST])
fields = st.fixed_dictionaries(
    {},
    optional={
        "for_": durations,
        "clear_after": durations,
        "clear_when": texts,
        "if_unknown": st.sampled_from(list(IfUnknown)),
        "max_age": st.none() | durations.filter(bool),
    },
)


class Definition010(msgspec.Struct, array_like=True, frozen=True):
    """The wire value of a definition as version 0.1.0 reads it."""

    when: str | None = None
    severity: int = 1
    about: str | None = None
    on: tuple[tuple[str, str], ...] = ()
    expires_at: int | None = None
    added_at: int | None = None


class Cell010(msgspec.Struct, array_like=True):
    """An ADD cell as version 0.1.0 reads it."""

    kind: int
    key: str
    value: Definition010 | None = None
    tag: bytes | None = None


@pytest.mark.slow
@given(ids, texts, labels, times, times, fields)
def test_the_fields_are_written_and_read_and_version_0_1_0_reads_the_rest(
    id_: str, about: str | None, on: dict[str, str], expires_at: int | None, at: int | None, given_fields: dict[str, Any]
) -> None:
    definition = check_definition("x < 1.0", "warning", about, on, expires_at, **given_fields)
    cell = read_cell(make_cell(ADD, id_, wire_definition(definition, at)).data)
    assert read_addition(cell)[::2] == (definition, at)
    assert expiry_of(cell) == expires_at
    assert definition.meaning == 0
    old = msgspec.msgpack.decode(cell.data, type=Cell010).value
    assert old == Definition010("x < 1.0", 1, definition.about, definition.on, expires_at, at)


def test_definitions_that_differ_in_a_field_are_not_equal() -> None:
    different: list[dict[str, Any]] = [
        {},
        {"for_": 1},
        {"clear_after": 1},
        {"clear_when": "x < 2.0"},
        {"if_unknown": "violated"},
        {"max_age": 1},
        {"scope": "fleet"},
        {"on": "zone in (a, b)"},
        {"on": "zone notin (a, b)"},
        {"mode": "audit"},
    ]
    definitions = [check_definition("x < 1.0", "warning", None, **each) for each in different]
    assert len(set(definitions)) == len(different)


def test_a_definition_without_the_fields_is_written_as_version_0_1_0_writes_it() -> None:
    definition = check_definition("x < 1.0", "warning", None)
    assert wire_definition(definition, None) == ["x < 1.0"]
    assert wire_definition(definition, 7) == ["x < 1.0", 1, None, (), None, 7]
    assert wire_definition(definition._replace(for_=5), None) == ["x < 1.0", 1, None, (), None, None, FIELDS_MEANING, [5]]


def test_only_the_scope_fleet_needs_its_meaning_version() -> None:
    definition = check_definition("size(nodes) > 2", "warning", None, scope="fleet")
    wire = wire_definition(definition, None)
    assert wire == ["size(nodes) > 2", 1, None, (), None, None, FLEET_MEANING, [0, 0, None, 0, None, 1]]
    assert read_addition(read_cell(make_cell(ADD, "c", wire).data)).definition == definition
    assert definition.applies_to({})
    assert definition.selects({})
    zoned = check_definition("size(nodes) > 2", "warning", None, {"zone": "a"}, scope="fleet")
    assert zoned.applies_to({"zone": "b"})
    assert not zoned.selects({"zone": "b"})
    unknown = read_cell(make_cell(ADD, "c", [*(wire or [])[:7], [0, 0, None, 0, None, 9]]).data)
    assert read_addition(unknown).definition.meaning == LATER
    before = read_cell(make_cell(ADD, "c", [*(wire or [])[:6], FIELDS_MEANING, [0, 0, None, 0, None, 1]]).data)
    assert read_addition(before).definition.scope is Scope.NODE  # the version 1 has no scope
    with pytest.raises(ConstraintCrdtError, match="scope says how a `when` is evaluated"):
        check_definition(None, "warning", None, scope="fleet")
    with pytest.raises(ConstraintCrdtError, match="scope must be one of node, fleet, not 'all'"):
        check_definition("x < 1.0", "warning", None, scope="all")


SELECTORS = ["", "zone=a", "zone in (a, b), !spare", "model!=x7, spare", "zone notin (a, b), zone in (a, c), rack=3"]


@pytest.mark.slow
@given(
    ids,
    times,
    labels,
    fields,
    st.sampled_from(SELECTORS),
    st.sampled_from(list(Mode)),
    st.none() | ids,
    st.sampled_from(list(Scope)),
)
def test_a_selector_a_mode_and_each_are_written_and_read_and_both_modules_find_the_end(
    id_: str,
    expires_at: int | None,
    on: dict[str, str],
    given_fields: dict[str, Any],
    text: str,
    mode: Mode,
    each: str | None,
    scope: Scope,
) -> None:
    selector = check_selector(text or on)
    definition = check_definition("x < 1.0", "warning", None, selector, expires_at, **given_fields, mode=mode, scope=scope)
    definition = definition._replace(each=each)
    wire = wire_definition(definition, None)
    cell = read_cell(make_cell(ADD, id_, wire).data)
    assert read_addition(cell).definition == definition
    assert expiry_of(cell) == expires_at
    assert pure_cells.ends(cell.data) is (expires_at is not None)
    meaning = wire[6] if wire is not None and len(wire) > 6 else 0
    assert (meaning == MEANING) is bool(definition.requirements or mode is not Mode.ENFORCE or each)
    old = msgspec.msgpack.decode(cell.data, type=Cell010).value
    assert old == Definition010("x < 1.0", 1, None, selector.equal, expires_at)


def test_an_operator_or_a_mode_of_a_later_version_is_kept_and_read_as_unknown() -> None:
    later: list[list[Any]] = [[0, 0, None, 0, None, 0, [["zone", 4, ["a"]]]], [0, 0, None, 0, None, 0, [], 3]]
    for fields_ in later:
        value = ["x < 1.0", 1, None, [["rack", "1"]], None, None, MEANING, fields_]
        definition = read_addition(read_cell(make_cell(ADD, "c", value).data)).definition
        assert definition.meaning == LATER
        assert msgspec.msgpack.decode(definition.unknown_fields) == fields_
        assert definition.selects({"rack": "1"})


def test_a_selector_of_equalities_is_written_as_before_and_needs_no_meaning() -> None:
    text = check_definition("x < 1.0", "warning", None, "zone == a, rack in (3)")
    assert text == check_definition("x < 1.0", "warning", None, {"zone": "a", "rack": "3"})
    assert wire_definition(text, None) == ["x < 1.0", 1, None, (("rack", "3"), ("zone", "a"))]
    audited = check_definition("x < 1.0", "warning", None, "zone!=a", mode="audit")
    assert wire_definition(audited, None) == [
        "x < 1.0", 1, None, (), None, None, MEANING, [0, 0, None, 0, None, 0, [["zone", 3, ("a",)]], 2]
    ]  # fmt: skip


def test_expressions_beyond_the_bounds_here_are_kept() -> None:
    """A version with other bounds may have written them; the evaluation reads them as unknown."""
    long = "x" * 1025
    cell = read_cell(make_cell(ADD, "c", [long, 1, None, [], None, None, MEANING, [0, 0, long]]).data)
    assert read_addition(cell).definition == Definition(long, clear_when=long)


LATER_FIELDS: list[Any] = [[], ["y", {"a": 1}, -3], {"for": "x"}, "text", None, 2.5, [[[1]]]]


@pytest.mark.parametrize("later", LATER_FIELDS)
@pytest.mark.parametrize("more", [[], ["x", None], [{"a": [1]}]])
def test_a_later_meaning_is_kept_and_told_apart_and_its_fields_are_not_read(later: Any, more: list[Any]) -> None:
    value = ["x < 1.0", 2, "why", [["zone", "a"]], 9, 8, MEANING + 1, later]
    cell = read_cell(make_cell(ADD, "c", [*value, *more]).data)
    addition = read_addition(cell)
    definition = addition.definition
    assert definition[:5] == ("x < 1.0", Severity.CRITICAL, "why", (("zone", "a"),), 9)
    assert definition[5:14] == Definition()[5:14]
    assert (definition.meaning, addition.added_at, expiry_of(cell)) == (MEANING + 1, 8, 9)
    assert make_cell(ADD, "c", wire_definition(definition, 8)).data == make_cell(ADD, "c", value).data
    other = read_cell(make_cell(ADD, "c", [*value[:7], "other"]).data)
    assert read_addition(other).definition != definition


def test_the_meaning_alone_is_enough() -> None:
    for meaning in (MEANING, MEANING + 1):
        cell = read_cell(make_cell(ADD, "c", ["x < 1.0", 1, None, [], None, None, meaning]).data)
        assert read_addition(cell).definition == Definition("x < 1.0", meaning=meaning if meaning > MEANING else 0)
    wire = wire_definition(Definition("x < 1.0", meaning=MEANING + 1), None)
    assert wire == ["x < 1.0", 1, None, (), None, None, MEANING + 1]


@pytest.mark.parametrize(
    "tail",
    [
        [0, [1]],
        [-1],
        [-1, []],
        ["1"],
        [MEANING, None],
        [MEANING, ["30s"]],
        [MEANING, [-1]],
        [MEANING, [MAX_COUNT + 1]],
        [MEANING, [0, -1]],
        [MEANING, [0, 0, 3]],
        [MEANING, [0, 0, None, -1]],
        [MEANING, [0, 0, None, 0, 0]],
        [MEANING, [0, 0, None, 0, MAX_COUNT + 1]],
        [MEANING, [0, 0, None, 0, None, -1]],
        [MEANING, [0, 0, None, 0, None, 0, None]],
        [MEANING, [0, 0, None, 0, None, 0, [["zone"]]]],
        [MEANING, [0, 0, None, 0, None, 0, [["", 0]]]],
        [MEANING, [0, 0, None, 0, None, 0, [["zone", -1]]]],
        [MEANING, [0, 0, None, 0, None, 0, [["zone", 2, ["x" * 257]]]]],
        [MEANING, [0, 0, None, 0, None, 0, [], -1]],
        [MEANING, [0, 0, None, 0, None, 0, [], 0, ""]],
    ],
)
def test_fields_of_a_known_meaning_out_of_bounds_are_refused(tail: list[Any]) -> None:
    with pytest.raises((ConstraintCrdtError, msgspec.DecodeError)):
        read_cell(make_cell(ADD, "c", ["x < 1.0", 1, None, [], None, None, *tail]).data)


@pytest.mark.parametrize(
    ("wrong", "field", "what"),
    [
        ({"for_": -1}, "for", "for must be at least 0 and at most 315360000 seconds"),
        ({"for_": LONGEST + 1}, "for", "ten years"),
        ({"clear_after": -1}, "clear_after", "clear_after must be at least 0"),
        ({"max_age": 0}, "max_age", "max_age must be above 0"),
        ({"max_age": LONGEST + 1}, "max_age", "ten years"),
        ({"clear_when": "x" * 1025}, "clear_when", "clear_when must have at most 1024 bytes"),
        ({"mode": "dry"}, "mode", "mode must be one of audit, warn, enforce, not 'dry'"),
        ({"each": "a joint"}, "each", "each: the label of measurements has ASCII letters"),
        ({"each": "joint", "scope": "fleet"}, "each", "a constraint of scope fleet has no instances"),
        ({"on": "zone in (a"}, "on", "expected `,` or `\\)` at character 11, and the text ends"),
        ({"on": "zone=" + "x" * 257}, "on", "the value of the label zone must have 1 to 256 bytes"),
        ({"on": ", ".join(f"!k{number}" for number in range(33))}, "on", "at most 32 requirements, not 33"),
        ({"on": f"k in ({', '.join(map(str, range(129)))})"}, "on", "at most 128 values of the label k, not 129"),
        ({"if_unknown": "maybe"}, "if_unknown", "if_unknown must be one of unknown, violated, satisfied, not 'maybe'"),
    ],
)
def test_fields_out_of_bounds_are_refused(wrong: dict[str, Any], field: str, what: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=what) as raised:
        check_definition("x < 1.0", "warning", None, **wrong)
    assert raised.value.field == field


@pytest.mark.parametrize("wrong", [{"for_": 1.5}, {"clear_after": "1s"}, {"clear_when": 3}, {"max_age": 2.5}])
def test_fields_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        check_definition("x < 1.0", "warning", None, **wrong)


@pytest.mark.parametrize(
    ("field", "given_field"),
    [
        ("for", {"for_": 1}),
        ("clear_after", {"clear_after": 1}),
        ("clear_when", {"clear_when": "x < 1.0"}),
        ("if_unknown", {"if_unknown": "violated"}),
        ("max_age", {"max_age": 1}),
    ],
)
@pytest.mark.parametrize("when", [None, ""])
def test_a_field_without_a_when_is_refused(when: str | None, field: str, given_field: dict[str, Any]) -> None:
    with pytest.raises(ConstraintCrdtError, match=f"{field} says how a `when` is evaluated") as raised:
        check_definition(when, "warning", None, **given_field)
    assert raised.value.field == field


def test_a_duration_is_a_timedelta_or_a_number_in_seconds() -> None:
    assert duration_ns(None, "for") is None
    assert duration_ns(0, "for") == 0
    assert duration_ns(2.5, "for") == duration_ns(timedelta(seconds=2.5), "for") == 5 * SECOND // 2
    assert duration_ns(1e-12, "for") == 1


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), True, timedelta(days=3651)])
def test_a_duration_out_of_bounds_is_refused(wrong: Any) -> None:
    with pytest.raises(ConstraintCrdtError, match="for must be at least 0") as raised:
        duration_ns(wrong, "for")
    assert raised.value.field == "for"


def test_a_duration_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="for in seconds is a number"):
        duration_ns("30s", "for")  # type: ignore[arg-type]


def test_an_expiry_is_found_however_the_cell_is_encoded() -> None:
    """Another implementation may choose longer forms of the same; each is kept as it came."""
    key = b"\xdb\x00\x00\x00\x01a"  # a text with 32 bits for its length
    value = b"\xdd\x00\x00\x00\x05\xc0\x01\xc0\x90\x07"  # an array likewise
    assert expiry_of(read_cell(b"\x93\x01" + key + value)) == 7
    assert expiry_of(read_cell(b"\x93\x01\xa1a" + value)) == 7
    assert expiry_of(read_cell(b"\x93\x01\xd9\x01a" + value)) == 7
    assert expiry_of(read_cell(b"\x93\x01" + key + b"\xc0")) is None
    assert expiry_of(read_cell(b"\x94\x01\xa1a\xc0\xc4\x01t")) is None


def test_labels_are_ordered_and_a_definition_applies_where_all_are_there() -> None:
    definition = check_definition(None, "warning", None, {"zone": "a", "rack": "3"})
    assert definition.on == (("rack", "3"), ("zone", "a"))
    assert definition == check_definition(None, "warning", None, [("zone", "a"), ("rack", "3")])
    assert definition.applies_to({"zone": "a", "rack": "3", "more": "x"})
    assert not definition.applies_to({"zone": "a"})
    assert not definition.applies_to({"zone": "b", "rack": "3"})
    assert Definition().applies_to({})


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ([("zone", "a"), ("zone", "b")], "labels: the label zone has two values"),
        ([("zone", "a"), ("zone", "a")], "two values"),
        ({"": "a"}, "the key of a label must have 1 to 256 bytes"),
        ({"zone": ""}, "the value of the label zone must have 1 to 256 bytes"),
        ({"zone": "é" * 129}, "1 to 256 bytes"),
        ({str(number): "x" for number in range(33)}, "at most 32 labels, not 33"),
    ],
)
def test_labels_out_of_bounds_are_refused(wrong: Any, what: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=what):
        check_labels(wrong)


@pytest.mark.parametrize(
    ("ttl", "until", "expires_at"),
    [
        (None, None, None),
        (90, None, NOW + 90 * SECOND),
        (0.5, None, NOW + SECOND // 2),
        (timedelta(minutes=30), None, NOW + 1800 * SECOND),
        (1e-12, None, NOW + 1),
        (None, NOW + 5, NOW + 5),
        (None, datetime(2026, 12, 1, tzinfo=UTC), 1_796_083_200 * SECOND),
    ],
)
def test_an_end_is_reckoned(ttl: Any, until: Any, expires_at: int | None) -> None:
    assert expiry_time(ttl, until, NOW) == expires_at


@pytest.mark.parametrize(
    ("ttl", "until", "what"),
    [
        (1, NOW + 1, "ttl and until both"),
        (0, None, "ttl must be above 0"),
        (-1, None, "ttl must be above 0"),
        (float("nan"), None, "ttl must be above 0"),
        (float("inf"), None, "ten years"),
        (True, None, "ttl must be above 0"),
        (timedelta(0), None, "ttl must be above 0"),
        (timedelta(days=3651), None, "ten years"),
        (None, NOW, "until is not in the future: it is 0 s ago"),
        (None, NOW - 3 * SECOND, "it is 3 s ago"),
        (None, datetime(9999, 1, 1, tzinfo=UTC), "until is later than 2262"),
        (None, datetime(2026, 12, 1), "until needs a time zone"),  # noqa: DTZ001 - that it has none is the point
    ],
)
def test_an_end_that_is_none_is_refused(ttl: Any, until: Any, what: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=what):
        expiry_time(ttl, until, NOW)


def test_an_end_beyond_all_times_is_refused() -> None:
    for wrong in (-1, MAX_COUNT + 1):
        with pytest.raises(ConstraintCrdtError, match="the end of a constraint"):
            check_definition(None, "warning", None, None, wrong)
