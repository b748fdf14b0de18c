"""The intake of a source and its fields: what counts, what is dropped, what is unknown, and a source that is down."""

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.sources import FieldMap, FieldSettings, Intake, Pushed, SourceReader, _Pending, pushed, reader_of
from constraint_crdt.sources.formats import MISSING, Message, SourceError, Unknown, leaves, look_up, scalar
from tests.source.counterparts import soon, source


def intake(**table: Any) -> Intake:
    return Intake(source(kind="file", file="/x", **table), lambda: None)


def taken(found: Intake) -> dict[str, object]:
    return {name: scalar(each.value) for name, each in found.take().items()}


# --- fields ---------------------------------------------------------------------------------------------------------------------


def test_all_scalars_are_taken_without_fields() -> None:
    found = intake()
    found.put(Message({"battery": {"charge %": 80, "cells": [4.1, 4.2]}, "mode": "auto", "ok": True, "none": None}))
    assert taken(found) == {
        "s_battery_charge_percent": 80.0, "s_battery_cells_0": 4.1, "s_battery_cells_1": 4.2, "s_mode": "auto", "s_ok": True,
        "s_none": Unknown("it says null"),
    }  # fmt: skip


def test_wildcards_are_in_the_names() -> None:
    found = intake(fields={"robot_{1}.battery": "b"})
    found.put(Message({"b": 1}, ("r-7",)))
    found.put(Message({"b": 2}, ("r8",)))
    assert taken(found) == {"robot_r_7.battery": 1.0, "robot_r8.battery": 2.0}
    automatic = intake(prefix="p")
    automatic.put(Message({"b": 1}, ("r-7",)))
    assert taken(automatic) == {"p_r_7_b": 1.0}


def test_the_last_value_within_a_period_counts_and_those_before_are_counted() -> None:
    found = intake()
    for value in range(100):
        found.put(Message({"x": value, "y": value}))
    assert taken(found) == {"s_x": 99.0, "s_y": 99.0}
    assert found.dropped == 2 * 99
    assert taken(found) == {}


def test_variables_beyond_the_bound_are_dropped_and_counted() -> None:
    found = intake(most=3)
    for value in range(50):
        found.put(Message({f"x{value}": value}))
    assert sorted(taken(found)) == ["s_x0", "s_x1", "s_x2"]
    assert found.dropped == 47
    assert len(found._automatic) <= 6


def test_a_missing_field_is_unknown_in_a_complete_message_only() -> None:
    found = intake(fields={"x": "a.b"})
    found.put(Message({"a": {}}))
    assert taken(found) == {}
    found.complete = True
    found.put(Message({"a": {}}))
    assert taken(found) == {"x": MISSING}


documents = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.c/", min_size=1, max_size=3), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@given(documents)
def test_each_leaf_is_found_by_its_json_pointer(document: object) -> None:
    for path, value in leaves(document):
        if path and not (isinstance(document, Mapping) and "/" + "/".join(path) in document):
            pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)
            if not (isinstance(document, Mapping) and pointer in document):
                assert look_up(document, pointer) is value


@pytest.mark.slow
@given(documents)
def test_what_counts_is_finite(document: object) -> None:
    for _, value in leaves(document):
        counted = scalar(value)
        assert isinstance(counted, bool | str | Unknown) or abs(float(str(counted))) < float("inf")


# --- values ---------------------------------------------------------------------------------------------------------------------


def value(raw: object, mapping: FieldMap | None = None, at: float = 0.0, **field: Any) -> object:
    return (mapping or FieldMap()).value_of("x", _Pending(raw, FieldSettings(path="x", **field), at))


def test_scale_and_offset() -> None:
    assert value(250, scale=0.1, offset=-5) == 20.0
    assert value("high", scale=0.1) == Unknown("it says 'high', which is no number to be scaled")
    assert value(1e308, scale=1e10) == Unknown("it says inf")


@pytest.mark.parametrize("raw", [255, 255.0, -1, "STALE"])
def test_a_sentinel_is_no_number(raw: object) -> None:
    assert isinstance(value(raw, unknown=(255, -1, "STALE"), scale=0.1), Unknown)
    assert value(True, unknown=(1,)) is True, "a truth value is no number"


@pytest.mark.parametrize("raw", [float("nan"), float("inf"), 10**400, None])
def test_a_number_that_is_not_finite_is_unknown(raw: object) -> None:
    assert isinstance(value(raw), Unknown)


def test_the_rate_of_a_counter() -> None:
    mapping = FieldMap()
    assert isinstance(value(100, mapping, 0.0, rate=True), Unknown)
    assert value(160, mapping, 2.0, rate=True) == 30.0
    assert value(10, mapping, 3.0, rate=True) == 10.0, "it began again at 0"
    assert value(20, mapping, 4.0, rate=True, scale=0.5) == 5.0


def test_a_counter_that_wraps() -> None:
    mapping, wraps = FieldMap(), 2.0**32
    value(wraps - 10, mapping, 0.0, rate=True, wraps_at=wraps)
    assert value(20, mapping, 1.0, rate=True, wraps_at=wraps) == 30.0
    value(1000, mapping, 2.0, rate=True, wraps_at=wraps)
    assert value(40, mapping, 3.0, rate=True, wraps_at=wraps) == 40.0, "a fall by less than half is a new beginning"


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_a_rate_is_never_negative(readings: list[int]) -> None:
    mapping = FieldMap()
    for at, reading in enumerate(readings):
        rate = value(reading, mapping, float(at), rate=True)
        assert isinstance(rate, Unknown) if at == 0 else float(str(rate)) >= 0


# --- the reader -----------------------------------------------------------------------------------------------------------------


class Pushes:
    """A source that sends what a test puts."""

    def __init__(self) -> None:
        self.sink: Intake | None = None
        self.closed = False

    def start(self, sink: Intake) -> None:
        self.sink = sink

    def close(self) -> None:
        self.closed = True


class Measured:
    """Keeps what is measured."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.reasons: dict[str, str | None] = {}
        self.calls = 0

    async def __call__(
        self, values: Mapping[str, object], source: str, *, reasons: Mapping[str, str | None], max_age: float
    ) -> None:
        self.calls += 1
        self.values |= values
        self.reasons |= reasons


@pytest.mark.slow
async def test_a_flood_makes_few_measurements_and_keeps_the_last_value() -> None:
    pushes, measured = Pushes(), Measured()
    reader = SourceReader(source(kind="mqtt", url="mqtt://h", topics=["t"], every=0.05), measured, lambda: pushes)
    task = asyncio.create_task(reader.run())
    await soon(lambda: pushes.sink)
    sink = pushes.sink
    assert sink is not None

    def flood() -> None:
        for number in range(20_000):
            sink.put(Message({"x": number}))

    await asyncio.to_thread(flood)
    await soon(lambda: measured.values.get("s_x") == 19_999.0)
    assert measured.calls < 500
    assert reader.dropped + reader.values == 20_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await soon(lambda: pushes.closed)


@pytest.mark.slow
async def test_down_and_up_again(caplog: pytest.LogCaptureFixture) -> None:
    pushes, measured, tries = Pushes(), Measured(), 0

    def opens() -> Pushed:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise SourceError("no route to 10.0.0.1")
        return pushes

    table = source(kind="mqtt", url="mqtt://h", topics=["t"], every=0.05, fields={"x": "x"})
    with caplog.at_level(logging.INFO, logger="constraint_crdt.node"):
        task = asyncio.create_task(SourceReader(table, measured, opens).run())
        await soon(lambda: measured.reasons.get("x"))
        assert measured.reasons["x"] == "is not told: the source s is down (no route to 10.0.0.1)"
        await soon(lambda: pushes.sink)
        assert pushes.sink is not None
        pushes.sink.put(Message({"x": None}))
        await soon(lambda: measured.reasons["x"] == "is unknown to the source s: it says null")
        pushes.sink.put(Message({"x": 4}))
        await soon(lambda: measured.values.get("x") == 4.0)
        pushes.sink.fail("the broker is gone")
        await soon(lambda: measured.reasons["x"] == "is not told: the source s is down (the broker is gone)")
        assert measured.values["x"] == 4.0, "the last value counts until its maximum age"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["source s is down: no route to 10.0.0.1", "source s works again", "source s is down: the broker is gone"]


@pytest.mark.parametrize(
    ("table", "module", "extra"),
    [
        ({"kind": "mqtt", "url": "mqtt://h", "topics": ["a"]}, "paho.mqtt.client", "mqtt"),
        ({"kind": "mavlink", "address": "udpin:127.0.0.1:1"}, "pymavlink.dialects.v20", "mavlink"),
        ({"kind": "zenoh", "keys": ["a"], "connect": ["tcp/h:1"], "format": "ros2", "type": "a/B"}, "rosbags.typesys", "ros"),
    ],
)
def test_a_missing_library_is_a_sentence_with_its_extra(
    table: dict[str, Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("client_type", "_dialect", "field_table"):
        monkeypatch.setattr(pushed, name, getattr(pushed, name).__wrapped__)  # other tests have loaded it
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SourceError, match=rf"need.* `pip install 'constraint-crdt\[{extra}\]'`$"):
        reader_of(source(**table))
