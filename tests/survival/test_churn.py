"""Constraints that come and go for ever: what nodes keep, in memory and on disk, levels off. The benchmark, in small."""

import importlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from constraint_crdt.types import orset
from constraint_crdt.types.nodes import AUDIT_SLOTS
from tests.conftest import BUDGET
from tests.survival.nodes import boot

CHANGES, IDS, NODES = 20_000 if BUDGET == "nightly" else 1_000, 200, 3
HISTORY_BYTES = 20_000
"""Of the history of a node: few, so that the changes of the first time fill it."""

ROOM = 1.6
"""How much more a store may use the second time: some of its 20 pages are in use or not by chance. A store that kept every change
would use twice as much.
"""


def used_bytes(folder: Path) -> int:
    """Bytes of the pages in use in the largest closed store. The sizes of a file and of an open log depend on how much was under
    way at once.
    """
    used = []
    for store in folder.glob("*.db"):
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
            size, pages, free = (
                database.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_size", "page_count", "freelist_count")
            )
        used.append(int(size * (pages - free)))
    assert len(used) == NODES
    return max(used)


@pytest.mark.long
async def test_what_a_fleet_keeps_levels_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same, the second time with the stores of the first: in them, what was freed is used again."""
    boot(monkeypatch, tmp_path / "run")
    monkeypatch.setattr(orset, "CHANGE_BYTES", HISTORY_BYTES)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    churn = importlib.import_module("churn")
    largest = []
    for _ in range(2):
        samples = await churn.run(tmp_path, CHANGES, ids=IDS, nodes=NODES, tell=lambda _: None)
        assert samples[-2].changes >= CHANGES
        end = samples[-1]
        assert end.removals == 0
        assert end.rows == NODES
        assert NODES < end.cells <= NODES * (1 + AUDIT_SLOTS), "what each node says of itself, and its audit"
        largest.append(used_bytes(tmp_path))
    assert largest[1] < ROOM * largest[0], largest
