"""What a definition says: labels, ends, and how both are written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Definition
from constraint_crdt.crdt.cells import make_cell, read_cell
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.model import Severity
from constraint_crdt.types.definition import (
    ADD,
    check_definition,
    check_labels,
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


@given(ids, texts, st.sampled_from(list(Severity)), texts, labels, times, times)
def test_what_is_written_is_read(
    id_: str, when: str | None, severity: str, about: str | None, on: dict[str, str], expires_at: int | None, at: int | None
) -> None:
    definition = check_definition(when, severity, about, on, expires_at)
    cell = read_cell(make_cell(ADD, id_, wire_definition(definition, at)).data)
    assert read_addition(cell)[::2] == (definition, at)
    assert expiry_of(cell) == expires_at


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
