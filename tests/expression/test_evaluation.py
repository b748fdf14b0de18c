"""Evaluating an expression: the verdict, what is unknown and why, measurements prepared for many, what cannot get out."""

import math
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from constraint_crdt.expression import Expression, Outcome, Verdict, compile_expression, evaluation, measurements
from tests.expression.cases import VALUES, isolated, refusal


def test_a_missing_variable_makes_it_unknown_even_where_the_rest_would_decide() -> None:
    expression = compile_expression("true || gpu_temp_c < fan_max || x < 3")
    assert expression.evaluate({"x": 1}) == Outcome(Verdict.UNKNOWN, "no measurement of fan_max, gpu_temp_c")
    assert expression.evaluate({"x": 1, "gpu_temp_c": 1, "fan_max": 1}).verdict is Verdict.SATISFIED


def test_values_that_are_no_measurement_make_it_unknown_and_say_why() -> None:
    expression = compile_expression("x < 3")
    deep: list[object] = []
    deep.append(deep)
    for value, reason in [
        (math.nan, "x is not a number (NaN)"),
        ([1, {"a": math.nan}], "x contains NaN, which is not a number"),
        (10**400, "x is too large for a double"),
        (None, "x has a value of type NoneType, which is not measurable"),
        (deep, "x is nested more than 16 deep"),
        ({1: 2}, "x has a key that is not text"),
        ("\ud800", "x is not valid text"),
    ]:
        assert expression.evaluate({"x": value}) == Outcome(Verdict.UNKNOWN, reason)
    both = compile_expression("x < 3 && y < 3").evaluate({"y": math.nan})
    assert both == Outcome(Verdict.UNKNOWN, "no measurement of x; y is not a number (NaN)")


class Real:
    """A float of another library."""

    def __float__(self) -> float:
        return 2.5


class Whole:
    """An integer of another library."""

    def __index__(self) -> int:
        return 2


class Broken:
    """A number without a value."""

    def __float__(self) -> float:
        raise ValueError("no value")


@pytest.mark.parametrize("value", [Decimal("2.5"), Fraction(5, 2), Real(), Whole()])
def test_numbers_of_other_types_are_values(value: object) -> None:
    assert compile_expression("x < 3 && xs[0] > 1").evaluate({"x": value, "xs": [value]}).verdict is Verdict.SATISFIED


def test_scalars_of_numpy_are_values() -> None:
    numpy = pytest.importorskip("numpy")
    for kind in (numpy.float32, numpy.float64, numpy.longdouble, numpy.int8, numpy.uint64):
        assert compile_expression("x < 3").evaluate({"x": kind(2)}).verdict is Verdict.SATISFIED
    assert compile_expression("x").evaluate({"x": numpy.bool_(True)}).verdict is Verdict.SATISFIED
    assert compile_expression("x < 3").evaluate({"x": numpy.array([1, 2])}).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Decimal("NaN"), "x is not a number (NaN)"),
        (Decimal("1e400"), "x is too large for a double"),
        (Broken(), "x has a value of type Broken, which is not measurable"),
        (1j, "x has a value of type complex, which is not measurable"),
    ],
)
def test_numbers_without_a_value_make_it_unknown(value: object, reason: str) -> None:
    assert compile_expression("x < 3").evaluate({"x": value}) == Outcome(Verdict.UNKNOWN, reason)


def test_infinities_are_values() -> None:
    assert compile_expression("x < 3").evaluate({"x": math.inf}).verdict is Verdict.VIOLATED
    assert compile_expression("x < 3").evaluate({"x": -math.inf}).verdict is Verdict.SATISFIED


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x", "not a bool but of type float"),
        ("robot.wheels < 3", "no field wheels"),
        ("xs[9] < 3", "out of bounds"),
        ("x < 'a'", "does not take the kind of value measured"),
        ("size(x) < 3", "`size` does not take"),
        ("1 / int(x - 7.0) < 3", "division by zero"),
    ],
)
def test_what_only_the_values_can_tell_is_unknown_with_a_reason(source: str, says: str) -> None:
    outcome = compile_expression(source).evaluate(VALUES)
    assert outcome.verdict is Verdict.UNKNOWN
    assert says in outcome.reason
    assert "\n" not in outcome.reason


def test_prepared_measurements_serve_many_expressions_and_hold_doubles() -> None:
    prepared = measurements({**VALUES, "broken": math.nan, "double": 1})
    assert prepared["robot"] == {"speed": 1.0, "all": 2.0, "arm": {"joints": [1.0, 2.0]}}
    assert type(prepared["x"]) is float
    assert prepared["flag"] is True
    assert set(prepared) == set(VALUES)
    assert len(prepared) == len(VALUES)
    for source in ("x < 8", "x > 8", "broken < 1", "missing < 1", "type(x) == double"):
        expression = compile_expression(source)
        raw = {**VALUES, "broken": math.nan}
        assert expression.evaluate(prepared) == expression.evaluate(raw)


def test_prepared_measurements_can_be_shared_between_threads() -> None:
    prepared, expression = measurements(VALUES), compile_expression("x < 8")
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(expression.evaluate(prepared))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [Outcome(Verdict.SATISFIED, "")] * 4


def test_a_compilation_is_kept_a_refusal_is_not_and_an_expression_cannot_be_changed() -> None:
    assert compile_expression("x < 4242") is compile_expression("x < 4242")
    assert refusal("x <") is not refusal("x <")
    with pytest.raises(AttributeError):
        compile_expression("x < 1").source = "x < 2"  # type: ignore[misc]


def raising(error: BaseException) -> Callable[..., Any]:
    def act(*_: object) -> None:
        raise error

    return act


class PanicException(BaseException):
    """The name and the base with which a Rust panic reaches Python."""


def test_a_panic_of_the_library_does_not_get_out_and_an_interrupt_does(monkeypatch: pytest.MonkeyPatch) -> None:
    import cel

    panicking = Expression("x < 1", frozenset({"x"}), raising(PanicException("index out of range")))
    outcome = panicking.evaluate({"x": 1})
    assert outcome == Outcome(Verdict.UNKNOWN, "the evaluation failed: index out of range")
    with pytest.raises(KeyboardInterrupt):
        Expression("x < 1", frozenset({"x"}), raising(KeyboardInterrupt())).evaluate({"x": 1})
    monkeypatch.setattr(cel, "compile", raising(PanicException("boom")))
    assert "not CEL" in str(refusal("panics_when_compiled < 1"))


def test_readings_that_differ_from_the_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "compile_cel", lambda _: (raising(AssertionError()), frozenset({"other"})))
    assert "ambiguous" in str(refusal("read_differently < 1"))


@pytest.mark.processes
def test_importing_the_module_does_not_load_the_library() -> None:
    assert isolated("import constraint_crdt.expression, sys; print('cel' in sys.modules)").strip() == "False"
