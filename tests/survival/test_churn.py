"""Constraints that come and go for ever: what nodes keep, in memory and on disk, levels off. The benchmark, in small."""

import importlib
from pathlib import Path

import pytest

from constraint_crdt.types.nodes import AUDIT_SLOTS
from tests.conftest import BUDGET
from tests.survival.nodes import boot

CHANGES, IDS, NODES = 20_000 if BUDGET == "nightly" else 5_000, 200, 3
ROOM = 1.75
"""How much more a store may take the second time: it depends on how much was under way at once. Kept for ever, it were 2."""


@pytest.mark.slow
async def test_what_a_fleet_keeps_levels_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same, the second time with the stores of the first: in them, what was freed is used again."""
    boot(monkeypatch, tmp_path / "run")
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
        largest.append(max(sample.store_bytes for sample in samples))
    assert largest[1] < ROOM * largest[0], largest
