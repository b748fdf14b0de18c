"""The registry of kinds: complete whenever cells are read, each number once, and open for a new kind."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import constraint_crdt
from constraint_crdt import ConstraintCrdtError
from constraint_crdt.crdt.cells import (
    BARE_HEADS,
    RANKS,
    READERS,
    REMOVABLE,
    REMOVE,
    make_cell,
    make_removal,
    read_cell,
    register,
    registered,
    require,
    value_of,
)
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.types.definition import ADD

NEW_KIND = 120
PACKAGE = Path(constraint_crdt.__file__).parent
READING_MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if "crdt" not in path.relative_to(PACKAGE).parts and any(f"{name}(" in path.read_text() for name in ("read_cell", "read_run"))
)
"""The modules outside of `crdt` that read cells from bytes."""


def _check_length(_: str, value: str) -> None:
    require(len(value) < 5, "the length of a word")


@pytest.fixture
def new_kind() -> Iterator[None]:
    register(NEW_KIND, str, _check_length, removable=True, removed_by_id=True, rank=len)
    yield
    for registry in (READERS, REMOVABLE, RANKS):
        del registry[NEW_KIND]


def test_the_codec_and_the_store_read_cells() -> None:
    assert {"protocol.messages", "store.store", "state", "simulation.recorder"} <= set(READING_MODULES)


@pytest.mark.long(by_day=["protocol.messages"])
@pytest.mark.processes
@pytest.mark.parametrize("module", READING_MODULES)
def test_all_kinds_are_registered_by_every_module_that_reads_cells(module: str) -> None:
    code = f"import constraint_crdt.{module}; from constraint_crdt.crdt.cells import registered; print(*registered())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert [int(kind) for kind in done.stdout.split()] == [*range(1, 38), *range(40, 50)]


def test_a_kind_that_is_not_registered_is_kept_as_bytes_and_cannot_be_removed() -> None:
    cell = make_cell(NEW_KIND, "k", "a long word")
    assert read_cell(cell.data).data == cell.data
    with pytest.raises(ConstraintCrdtError, match="the kind of what is removed is out of bounds"):
        read_cell(make_removal([("k", [(Replica("a", 0), 1)])], NEW_KIND).data)


@pytest.mark.usefixtures("new_kind")
def test_a_kind_is_registered_in_one_place() -> None:
    assert NEW_KIND in registered()
    assert value_of(read_cell(make_cell(NEW_KIND, "k", "word").data)) == "word"
    with pytest.raises(ConstraintCrdtError, match="the length of a word is out of bounds"):
        read_cell(make_cell(NEW_KIND, "k", "a long word").data)
    with pytest.raises(msgspec.ValidationError, match="Expected `str`"):
        read_cell(make_cell(NEW_KIND, "k", 5).data)
    read_cell(make_removal([("k", [(Replica("a", 0), 1)])], NEW_KIND).data)
    with pytest.raises(ConstraintCrdtError, match="the key of what is removed"):
        read_cell(make_removal([("", [(Replica("a", 0), 1)])], NEW_KIND).data)


@pytest.mark.parametrize("kind", [ADD, REMOVE, -1, 128])
def test_a_number_is_registered_once_and_within_range(kind: int) -> None:
    before = dict(READERS)
    with pytest.raises(ValueError, match=f"the kind {kind} is registered already, or not from 0 to 127"):
        register(kind, int)
    assert before == READERS


def test_one_kind_is_read_without_decoding() -> None:
    before = dict(BARE_HEADS)
    with pytest.raises(ValueError, match="another kind"):
        register(NEW_KIND, int, bare=True)
    assert before == BARE_HEADS
    assert NEW_KIND not in READERS
