"""The checker passes what is right, and finds each planted error, by its law and with a short history."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from constraint_crdt import ConstraintState
from constraint_crdt.testing import (
    Law,
    LawBroken,
    Laws,
    associative,
    check_laws,
    commutative,
    complete,
    convergent,
    delta_is_state,
    faithful,
    idempotent,
    laws_of,
    laws_that_apply,
    monotone,
    pairs,
    states,
    triples,
    truncation_safe,
)
from constraint_crdt.testing import laws as checker
from tests.conftest import BUDGET
from tests.testing import toys

pytestmark = pytest.mark.slow

EXAMPLES = 1500
"""More than finding any of the errors takes."""

RIGHT = {
    "counter": toys.counter_laws(toys.Counter),
    "register": toys.register_laws(toys.later),
    "bag": toys.bag_laws(toys.Bag),
}
PLANTED: dict[str, tuple[Laws[Any, Any], Law]] = {
    "adds on merge": (toys.counter_laws(toys.AddsOnMerge), idempotent),
    "subtracts on merge": (toys.counter_laws(toys.SubtractsOnMerge), monotone),
    "sum merged by max": (toys.counter_laws(toys.SumMergedByMax), complete),
    "increment as delta": (toys.counter_laws(toys.IncrementAsDelta), delta_is_state),
    "drops zeros": (toys.counter_laws(toys.DropsZeros), faithful),
    "in order of arrival": (toys.counter_laws(toys.InOrderOfArrival), faithful),
    "accepts what is cut": (toys.counter_laws(toys.AcceptsWhatIsCut), truncation_safe),
    "takes parts as they come": (toys.counter_laws(toys.TakesPartsAsTheyCome), truncation_safe),
    "tie goes to receiver": (toys.register_laws(toys.tie_goes_to_receiver), commutative),
    "tie goes round": (toys.register_laws(toys.tie_by_value_backwards), associative),
    "removes by value": (toys.bag_laws(toys.RemovesByValue), monotone),
    "forgets removals": (toys.bag_laws(toys.ForgetsRemovals), monotone),
}


@pytest.mark.parametrize("laws", RIGHT.values(), ids=RIGHT)
def test_what_is_right_passes(laws: Laws[Any, Any]) -> None:
    check_laws(laws, max_examples=2000 if BUDGET == "nightly" else 12)


@pytest.fixture
def the_same_histories(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, as shrinking what is found in others takes up to ten times as long."""
    if BUDGET != "nightly":
        monkeypatch.setattr(checker, "settings", lambda **given: settings(**given, derandomize=True))


@pytest.mark.long(by_day=["accepts what is cut", "adds on merge", "drops zeros"])
@pytest.mark.usefixtures("the_same_histories")
@pytest.mark.parametrize(("laws", "law"), PLANTED.values(), ids=PLANTED)
def test_a_planted_error_is_found_by_its_law(laws: Laws[Any, Any], law: Law) -> None:
    with pytest.raises(LawBroken) as found:
        law(laws, max_examples=EXAMPLES)
    assert found.value.law == law.name
    assert str(found.value).startswith(f"the law `{law.name}` is broken\n{found.value.example}\n")
    assert len(found.value.example.splitlines()) <= 12, "not shrunk"


@pytest.fixture
def unshrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """That an error is found is asserted, not how short its example is: shrinking takes most of the time."""
    monkeypatch.setattr(checker, "settings", lambda **given: settings(**{**given, "phases": (Phase.generate,)}))


@pytest.mark.usefixtures("unshrunk")
@pytest.mark.parametrize("plant", ["drops zeros", "removes by value"])
def test_a_planted_error_is_found_among_all_laws(plant: str) -> None:
    with pytest.raises(LawBroken):
        check_laws(PLANTED[plant][0], max_examples=EXAMPLES)


@pytest.mark.long
@pytest.mark.usefixtures("unshrunk")
def test_convergence_alone_finds_what_is_not_commutative() -> None:
    with pytest.raises(LawBroken, match="a new state that merged"):
        convergent(PLANTED["tie goes to receiver"][0], max_examples=EXAMPLES)


def test_what_is_found_reads_as_a_story() -> None:
    with pytest.raises(LawBroken) as found:
        complete(toys.counter_laws(toys.SumMergedByMax), max_examples=EXAMPLES)
    lines = str(found.value).splitlines()
    assert lines[0] == "the law `complete` is broken"
    assert lines[1] == "after this history:"
    assert 2 <= len(lines[2:-1]) <= 7
    assert all(" does " in line for line in lines[2:-1])
    assert lines[-1].startswith("with everything merged it reads wrong: (")


def test_a_law_asks_for_what_it_needs() -> None:
    bare = toys.register_laws(toys.later)
    assert [law.name for law in laws_that_apply(bare)] == ["commutative", "associative", "idempotent", "monotone", "convergent"]
    for law in (complete, delta_is_state, truncation_safe, faithful):
        with pytest.raises(TypeError, match=law.name):
            law(bare)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"clock": len}, "delta_since, apply_delta"),
        ({"encode": bytes}, "decode"),
        ({"encode_delta": list, "apply_encoded": lambda state, _: state}, "clock"),
        ({"replicas": ("a", "b")}, "three different names"),
        ({"replicas": ("a", "b", "b")}, "three different names"),
    ],
)
def test_half_a_description_is_refused(more: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {
        "new": set, "steps": st.just(1), "apply_step": lambda s, *_: s, "merge": lambda s, _: s, "reading": len
    }  # fmt: skip
    with pytest.raises(TypeError, match=says):
        Laws(**given, **more)


@pytest.mark.usefixtures("unshrunk")
def test_another_error_than_a_refusal_is_a_broken_law() -> None:
    class Crashes(toys.Counter):
        @classmethod
        def decode(cls, data: bytes) -> toys.Counter:
            assert len(data) % 3 == 1, "an error of its own"
            return super().decode(data)

    with pytest.raises(LawBroken, match="not one of the refusals"):
        truncation_safe(toys.counter_laws(Crashes), max_examples=EXAMPLES)


@pytest.mark.long
@settings(max_examples=10)
@given(pairs(laws_of(ConstraintState)), triples(laws_of(ConstraintState)), states())
def test_strategies_give_states(two: tuple[Any, Any], three: tuple[Any, Any, Any], one: ConstraintState) -> None:
    for state in (*two, *three, one):
        assert isinstance(state, ConstraintState)
    assert two[0] is not two[1]


@pytest.mark.processes
def test_without_hypothesis_the_import_says_what_to_install() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import constraint_crdt.testing"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == (
        "ImportError: constraint_crdt.testing needs Hypothesis: pip install 'constraint-crdt[testing]'"
    )
