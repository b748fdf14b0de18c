"""docs/reference/crate.md has each public name of the Rust crate, and what it names here is there."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from constraint_crdt import errors

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reference" / "crate.md"
NAMES = TESTS / "data" / "crate_names.txt"
"""The `pub` names of 0.5.0, as its source has them, and the methods of its trait `Merge`."""

ROW = re.compile(r"\| `([\w:]+)` \| (?:`([\w.]+)`|none) \| (.*?) ?\|")
ROWS = [row.groups() for line in PAGE.read_text().splitlines() if (row := ROW.fullmatch(line))]


def found(path: str) -> object:
    """The object with this path. Fails if there is none."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            value: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            value = getattr(value, name)
        return value
    raise AssertionError(path)


def test_every_name_of_the_crate_stands_there_once() -> None:
    named = [crate for crate, _, _ in ROWS]
    assert sorted(named) == sorted(NAMES.read_text().split())


@pytest.mark.parametrize("path", sorted({here for _, here, _ in ROWS if here}))
def test_what_answers_it_is_there(path: str) -> None:
    assert found(path) is not None


def test_a_name_without_an_answer_has_a_reason() -> None:
    without = {crate: note for crate, here, note in ROWS if not here}
    assert without.keys() == {"E12", "GeometricNode", "DecayCounter::lambda", "TtlCrdtStats", "PlatoClient::fleet"}
    assert all(len(note) > 30 for note in without.values())


def test_another_name_is_explained() -> None:
    for crate, here, note in ROWS:
        if here and not note:
            assert here.rpartition(".")[2] == (crate.removesuffix("::new").rpartition("::")[2]), crate


def test_a_name_that_is_gone_would_be_noticed() -> None:
    with pytest.raises(AttributeError):
        found("constraint_crdt.types.PNCounter.total_positive")
    assert found("constraint_crdt.errors") is errors
