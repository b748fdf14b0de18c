"""Clock entries and runs as messages have them, where a replica may be an index into a clock that both sides know."""

from collections.abc import Sequence
from typing import cast

from constraint_crdt.core.clock import ClockMark
from constraint_crdt.core.codec import UnboundRun, resolve
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.run import Run
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.messages import Entry


def behind(mine: ClockMark, theirs: ClockMark, by: int | None = None) -> list[tuple[Replica, int]]:
    """My entries, 0 included, for the rows in which they are ahead of me. O(rows).

    `by`: how many mutations these rows are ahead by, all together, if that is known. Then, if the rows of which I have nothing make
    up for all of it, the others need not be compared.
    """
    if by == 0 or theirs.entries is mine.entries:
        return []
    at, ends = mine.entries, theirs.entries
    new = [(replica, 0) for replica in ends if replica not in at]
    if by is not None and by == sum([ends[replica] for replica, _ in new]):
        return new
    ahead = [replica for replica, seq in ends.items() if replica not in at or seq > at[replica]]
    return [(replica, at.get(replica, 0)) for replica in ahead]


def lowered(base: ClockMark, entries: Sequence[tuple[Replica, int]]) -> int | None:
    """By how much these entries lower a clock, all together; None if one of them does not lower it. O(entries)."""
    at = base.entries
    by = [at.get(replica, 0) - seq for replica, seq in entries]
    return sum(by) if min(by, default=1) > 0 else None


def changed_entries(base: ClockMark, now: ClockMark) -> list[Entry]:
    """The entries of `now` that differ from `base`, 0 for those that it does not have."""
    if base == now:
        return []
    before, after = base.entries, now.entries
    changes: list[Entry] = [(replica, seq) for replica, seq in after.items() if replica not in before or before[replica] != seq]
    changes += [(replica, 0) for replica in before if replica not in after]
    return changes


def resolved(entries: Sequence[Entry], base: ClockMark | None) -> Sequence[tuple[Replica, int]]:
    """Entries with their replicas. Raises `ConstraintCrdtError` for an index that `base` does not have."""
    if not [ref for ref, _ in entries if isinstance(ref, int)]:
        return cast("Sequence[tuple[Replica, int]]", entries)
    return [(ref if isinstance(ref, Replica) else resolve(ref, base), seq) for ref, seq in entries]


def bound(runs: Sequence[Run | UnboundRun], base: ClockMark | None) -> Sequence[Run]:
    """Runs with their replicas, one of each. Raises `ConstraintCrdtError` for what does not fit."""
    if set(map(type, runs)) <= {Run}:
        runs_bound = cast("Sequence[Run]", runs)
    else:
        runs_bound = [run if isinstance(run, Run) else run.bind(base) for run in runs]
    if len({run.replica for run in runs_bound}) != len(runs_bound):
        raise ConstraintCrdtError("a transfer has two runs of one replica")
    return runs_bound
