"""The public conformance suite of CEL: `../shared/cel/conformance.json`, beside the repository. Its README says what it holds.

Each case is compiled as a definition in force is, and evaluated against its bindings as measurements. Measured numbers are doubles,
so a number that comes from a binding is compared by value. Bytes and durations cannot be measured and are bound as they are; a
binding that was a message of protobuf has the content of its expected value.
"""

import datetime as dt
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from constraint_crdt.expression import ExpressionError, measurements
from constraint_crdt.expression import evaluation as compiler
from constraint_crdt.expression.cel import environment

PLACES = [folder / "shared" / "cel" / "conformance.json" for folder in Path(__file__).resolve().parents[3:]]
CASES = next((place for place in PLACES if place.exists()), PLACES[0])
TOTAL = 1503
DIFFERENT = {
    ("timestamps", "get_milliseconds", "x.getMilliseconds()"): "the library gives the whole milliseconds of a duration",
    ("fields", "map_value_repeat_key_heterogeneous", "{0: 1, 0u: 2}[0.0]"): "the library takes a key that is repeated across types",
}
"""The cases that do not agree, with the reason. Four of the README, with points in the names of variables, do agree here."""
TYPES = {
    "bool": "BOOL",
    "int": "INT",
    "uint": "UINT",
    "double": "DOUBLE",
    "string": "STRING",
    "bytes": "BYTES",
    "list": "LIST",
    "map": "MAP",
}


def plain(value: list[Any]) -> Any:
    """A value of the file as Python has it."""
    kind, content = value
    if kind in ("int", "uint"):
        return int(content)
    if kind == "double":
        return float(content)
    if kind == "bytes":
        return bytes(content)
    if kind == "list":
        return [plain(each) for each in content]
    if kind == "map":
        return {plain(key): plain(each) for key, each in content}
    if kind == "duration":
        return dt.timedelta(seconds=content[0], microseconds=content[1] // 1000)
    return content


def bindings(case: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(case["expect"][1] if value[0] == "object" else value) for name, value in case["bindings"].items()}


def result(case: dict[str, Any]) -> tuple[str, Any]:
    """("error", reason) or (type, value)."""
    bound = bindings(case)
    measured = {name: value for name, value in bound.items() if not isinstance(value, bytes | dt.timedelta)}
    values: Mapping[str, object] = {**measurements(measured), **{name: bound[name] for name in bound.keys() - measured.keys()}}
    library = environment()
    try:
        program = compiler._compilation(case["expr"]).expression._program
        assert program is not None
        found = program.eval(library.activation(values))
    except (ExpressionError, RuntimeError) as error:
        return "error", str(error)
    return ("error" if found.type() == library.error_type else found.type().name()), found.plain_value()


def agrees(case: dict[str, Any]) -> bool:
    kind, value = result(case)
    outcome, expected = case["expect"]
    if outcome == "error":
        return kind == "error"
    if kind == "error" or (not case["bindings"] and not kind.startswith(TYPES.get(expected[0], "NULL"))):
        return False
    wanted = plain(expected)
    if isinstance(wanted, float) and math.isnan(wanted):
        return math.isnan(value)
    if isinstance(wanted, bytes):
        return bytes(value) == wanted
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


@pytest.mark.long
@pytest.mark.skipif(
    not CASES.exists(), reason="the conformance cases of CEL lie beside the repository, in shared/cel, and are not there"
)
def test_every_case_of_the_conformance_suite_agrees() -> None:
    """All 1,503, but for those explained, and those that bind a variable to null at the top, which withdraws it."""
    cases = cast("list[dict[str, Any]]", json.loads(CASES.read_text(encoding="utf-8")))
    assert len(cases) == TOTAL
    decided = [case for case in cases if None not in bindings(case).values()]
    different = {(case["file"], case["test"], case["expr"]) for case in decided if not agrees(case)}
    assert different == DIFFERENT.keys()
