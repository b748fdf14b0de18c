"""Planted bugs in the types over the cells, from sketches to verdicts: each is found by the search, and shrunk.

They are mistakes in what a type makes of cells that are right, so only the readings show them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from constraint_crdt.crdt.cells import Cell, value_of
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.simulation.chaos import OPERATIONS
from constraint_crdt.types import counters as stretches
from constraint_crdt.types import variables
from constraint_crdt.types.counters import ConstraintGCounter
from constraint_crdt.types.decay import RATE, Ages, DecayConstraintState, DecayCounter, Pair
from constraint_crdt.types.sketch import FILTER_PAGE_BYTES, PAGE_COUNTERS, BloomCRDT, SketchCRDT, _counters
from constraint_crdt.types.variables import Reading, SharedReadings
from constraint_crdt.types.verdicts import ConstraintVerdicts
from constraint_crdt.types.view import TableDirectory
from tests.simulation.planting import Plant, Search, find_and_shrink

pytestmark = pytest.mark.slow


def sketch_rows_not_summed(patch: pytest.MonkeyPatch) -> None:
    """Of several rows the highest counter is read, as in a sketch of one writer in many copies."""

    def planted(self: SketchCRDT, number: int, old: bytes | None, new: bytes | None) -> None:
        start = number * PAGE_COUNTERS
        for at, count in enumerate(_counters(new or b""), start=start):
            self._table[at] = max(self._table[at], count)

    patch.setattr(SketchCRDT, "_fold_page", planted)


def sketch_named_by_who_came_first(patch: pytest.MonkeyPatch) -> None:
    """Where rows differ in dimensions, those count that this node heard of first."""
    patch.setattr(TableDirectory, "_meant", lambda self, name: next(iter(self._names[name])))


def filter_page_replaced(patch: pytest.MonkeyPatch) -> None:
    """A page that comes takes the place of those of other rows."""

    def planted(self: BloomCRDT, number: int, old: bytes | None, new: bytes | None) -> None:
        start, size = number * FILTER_PAGE_BYTES, self._size(number)
        self._union[start : start + size] = new or bytes(size)

    patch.setattr(BloomCRDT, "_fold_page", planted)


def filter_page_left_out(patch: pytest.MonkeyPatch) -> None:
    """Only the first page of a filter is read."""
    fold = BloomCRDT._fold_page

    def planted(self: BloomCRDT, number: int, old: bytes | None, new: bytes | None) -> None:
        if not number:
            fold(self, number, old, new)

    patch.setattr(BloomCRDT, "_fold_page", planted)


def rate_of_another_writer(patch: pytest.MonkeyPatch) -> None:
    """What a node counts is added to what somebody else has left, and written as its own."""
    all_left = DecayConstraintState._all_left

    def planted(self: DecayConstraintState, cell: Cell, now: int) -> list[Pair]:
        return all_left(self, min(self._rows.held(RATE, cell.key), key=lambda each: each.replica), now)

    patch.setattr(DecayConstraintState, "_all_left", planted)


def folded_rate_lost(patch: pytest.MonkeyPatch) -> None:
    """Folding takes cells away and forgets what they had, but for the first."""
    cell_of = DecayConstraintState._cell

    def planted(self: DecayConstraintState, key: str, parts: Sequence[Sequence[Pair]], now: int) -> Cell:
        return cell_of(self, key, parts[:1], now)

    patch.setattr(DecayConstraintState, "_cell", planted)


def value_from_the_future_grows(patch: pytest.MonkeyPatch) -> None:
    """A cell ages from the time that it states, also where that is still to come."""
    patch.setattr(Ages, "_aged_since", lambda self, cell, time: value_of(cell).time)


def other_half_lives_lost(patch: pytest.MonkeyPatch) -> None:
    """What is recorded in a decaying counter at one half-life takes the place of the counter's others."""
    all_left = DecayCounter._all_left

    def planted(self: DecayCounter, cell: Cell, now: int) -> dict[float, float]:
        return {half_life: left for half_life, left in all_left(self, cell, now).items() if half_life == self.half_life}

    patch.setattr(DecayCounter, "_all_left", planted)


def increment_counted_twice(patch: pytest.MonkeyPatch) -> None:
    """What two nodes took in at once counts once for each."""
    patch.setattr(stretches, "_highest", stretches.sum_counts)


def increment_counted_beside_its_page(patch: pytest.MonkeyPatch) -> None:
    """An increment that another node took together with others goes on counting by itself."""

    def planted(self: stretches.BlockSums, stretch: stretches.Block) -> Iterable[stretches.Block]:
        return ()

    patch.setattr(stretches.BlockSums, "_largest_within", planted)


def time_added_to_itself(patch: pytest.MonkeyPatch) -> None:
    """A cumulative time is added, where it takes the place of the one before."""
    changed = ConstraintGCounter._time_changed
    patch.setattr(ConstraintGCounter, "_time_changed", lambda self, cell, old, new: changed(self, cell, None, new))


def verdict_of_a_former_life(patch: pytest.MonkeyPatch) -> None:
    """A new life takes nothing over, so the later time decides."""
    patch.setattr(ConstraintVerdicts, "_life", lambda self, replica, id_: 0)


def verdict_on_what_was_removed(patch: pytest.MonkeyPatch) -> None:
    """The verdicts on a constraint stay violated after its removal."""
    patch.setattr(ConstraintVerdicts, "_added", lambda self, old, new: None)


def reading_of_a_retired_node(patch: pytest.MonkeyPatch) -> None:
    """The readings of a node go on being shown after its retirement."""
    patch.setattr(SharedReadings, "_show", lambda self, node: None)


def reading_with_the_time_of_the_clock(patch: pytest.MonkeyPatch) -> None:
    """A new life goes by its clock alone, which may be behind that of the former life."""
    after = variables._next

    def planted(reading: Reading | None, before: Any, replica: Replica) -> Any:
        return after(reading, before and before._replace(time=before.time - 200), replica)

    patch.setattr(variables, "_next", planted)


PLANTS: dict[Plant, Search] = {
    reading_of_a_retired_node: Search(44, OPERATIONS),
    reading_with_the_time_of_the_clock: Search(38),
    sketch_rows_not_summed: Search(49),
    sketch_named_by_who_came_first: Search(66),
    filter_page_replaced: Search(23, OPERATIONS),
    filter_page_left_out: Search(20),
    rate_of_another_writer: Search(56, OPERATIONS),
    folded_rate_lost: Search(89),
    value_from_the_future_grows: Search(50),
    other_half_lives_lost: Search(23),
    increment_counted_twice: Search(118),
    increment_counted_beside_its_page: Search(160, OPERATIONS),
    time_added_to_itself: Search(50),
    verdict_of_a_former_life: Search(8, OPERATIONS),
    verdict_on_what_was_removed: Search(71, OPERATIONS),
}
"""Each with histories in which it is found soon: those of the search by default."""


@pytest.mark.long(
    by_day=[
        "filter_page_left_out",
        "reading_with_the_time_of_the_clock",
        "sketch_named_by_who_came_first",
        "value_from_the_future_grows",
    ]
)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_and_shrunk(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    find_and_shrink(plant, PLANTS[plant], monkeypatch)
