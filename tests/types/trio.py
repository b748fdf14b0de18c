"""Random histories of three copies of a state that write, merge and hear of each other late, twice or never.

What each copy must know is tracked beside it, as how much of each writer's log has reached it: the models of the types read that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hypothesis import strategies as st

from constraint_crdt import ConstraintState, Replica
from constraint_crdt.crdt.cells import Run

WRITERS = [Replica("a", 0), Replica("a", 1), Replica("b", 0)]
"""The n-th copy writes as the n-th of these. Two of them are lives of one node."""

Op = TypeVar("Op")

copies = st.integers(0, 2)


@dataclass
class Transfer:
    """A delta that was made and may arrive at any time, or more than once."""

    to: int
    runs: Sequence[Run]
    bounds: list[tuple[int, int]]
    """Per writer, from where and up to where it goes."""


@dataclass
class Trio(Generic[Op]):
    """Three copies, the log of each writer, and what of it has reached whom."""

    make: Callable[[int], ConstraintState]
    states: list[ConstraintState] = field(init=False)
    logs: list[list[tuple[int, Op]]] = field(init=False)
    """What each writer did, with the seq that its row had afterwards."""
    known: list[list[int]] = field(init=False)
    """For each copy, up to which seq it has each writer's row."""
    under_way: list[Transfer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.states = [self.make(copy) for copy in range(3)]
        self.logs = [[], [], []]
        self.known = [[0, 0, 0] for _ in range(3)]

    def wrote(self, copy: int, op: Op) -> None:
        """Note what a copy has just written."""
        seq = self.states[copy].rows.seq(WRITERS[copy])
        self.logs[copy].append((seq, op))
        self.known[copy][copy] = seq

    def reached(self, copy: int) -> list[list[Op]]:
        """What of each writer's log has reached a copy."""
        return [[op for seq, op in log if seq <= upto] for log, upto in zip(self.logs, self.known[copy], strict=True)]

    def merge(self, copy: int, other: int) -> bool:
        """Have a copy take in all that another knows. True if that was news."""
        before = list(self.known[copy])
        self.known[copy] = [max(pair) for pair in zip(before, self.known[other], strict=True)]
        self.states[copy].merge(self.states[other])
        return self.known[copy] != before

    def send(self, copy: int, other: int) -> None:
        """Have a copy make a delta for another one, to arrive later."""
        mine, theirs = self.states[copy].rows, self.states[other].rows
        if mine.serves(theirs.clock_mark.entries):
            bounds = list(zip(self.known[other], self.known[copy], strict=True))
            self.under_way.append(Transfer(other, mine.since(theirs.clock_mark.entries), bounds))

    def deliver(self, place: int) -> int | None:
        """Have one of the deltas made so far arrive. The copy for which it was news, if it was."""
        if not self.under_way:
            return None
        transfer = self.under_way[place % len(self.under_way)]
        known = self.known[transfer.to]
        self.states[transfer.to].rows.apply(transfer.runs)
        if any(hi > lo > mine for (lo, hi), mine in zip(transfer.bounds, known, strict=True)):
            return None
        after = [max(mine, hi) for (_, hi), mine in zip(transfer.bounds, known, strict=True)]
        self.known[transfer.to] = after
        return transfer.to if after != known else None

    def check_clocks(self) -> None:
        """The copies know as much as they must."""
        for state, known in zip(self.states, self.known, strict=True):
            assert [state.rows.seq(writer) for writer in WRITERS] == known
