"""Planted bugs: a mistake is put into the code, and the search has to find it and shrink it until a person can read it.

What the simulator is worth is what it finds. `test_planted` has the mistakes in the exchange and the state, and
`test_planted_vocabulary` those in the types over it.
"""

from collections.abc import Callable
from time import process_time
from typing import NamedTuple

import pytest

from constraint_crdt.crdt import clock
from constraint_crdt.simulation.chaos import OPERATIONS, Chaos
from constraint_crdt.simulation.histories import History, from_json, replay, shrink, to_json
from tests.conftest import BUDGET

MOST_SECONDS = 120.0
"""Of CPU time, to find one."""

MOST_STEPS = 15
"""Of what it is shrunk to."""

Plant = Callable[[pytest.MonkeyPatch], None]


class Search(NamedTuple):
    """The histories that are searched: from a seed on, with so many operations each. The short ones are shrunk soonest."""

    seed: int
    operations: int = 40


NIGHTLY = Search(1, OPERATIONS)
"""For any plant."""


def forget_hashes() -> None:
    """They are remembered, planted ones too."""
    for each in vars(clock).values():
        if hasattr(each, "cache_clear"):
            each.cache_clear()


def first_wrong(search: Search) -> History | None:
    """The first history that goes wrong, if there is one in time."""
    began = process_time()
    seed = search.seed
    while process_time() - began < MOST_SECONDS:
        outcome = Chaos(seed, operations=search.operations).run()
        if outcome.violation is not None:
            return outcome.history()
        seed += 1
    return None


def find_and_shrink(plant: Plant, search: Search, monkeypatch: pytest.MonkeyPatch) -> History:
    """The search finds the planted bug (nightly by `NIGHTLY`), in a history that goes wrong because of it alone.

    Hashes must be forgotten before and after.
    """
    plant(monkeypatch)
    found = first_wrong(NIGHTLY if BUDGET == "nightly" else search)
    assert found is not None, "not found in time"
    shrunk = from_json(to_json(shrink(found)).encode())
    assert shrunk.invariant != "error", f"the plant itself fails: {shrunk.sentence}"
    assert len(shrunk.steps) <= MOST_STEPS, "\n".join(map(str, shrunk.steps))
    again = replay(shrunk.members, shrunk.steps)
    assert again is not None
    assert (again.invariant, str(again)) == (shrunk.invariant, shrunk.sentence)
    monkeypatch.undo()
    forget_hashes()
    assert replay(shrunk.members, shrunk.steps) is None, "the history goes wrong without the bug"
    return shrunk
