"""Clock entries and runs as messages have them, where a replica may be an index into a clock that both sides know."""

from collections.abc import Iterable, Sequence

from constraint_crdt.core.clock import ClockMark
from constraint_crdt.core.codec import UnboundRun, resolve
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.run import Run
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.messages import Entry


def rows_ahead(theirs: ClockMark, mine: ClockMark) -> list[Replica]:
    """The rows in which they are ahead of me."""
    if theirs.entries is mine.entries:
        return []
    get = mine.entries.get
    return [replica for replica, seq in theirs.entries.items() if seq > get(replica, 0)]


def changed_entries(base: ClockMark, now: ClockMark) -> list[Entry]:
    """The entries of `now` that differ from `base`, 0 for those that it does not have."""
    if base == now:
        return []
    before, after = base.entries, now.entries
    changes: list[Entry] = [(replica, seq) for replica, seq in after.items() if before.get(replica, 0) != seq]
    changes += [(replica, 0) for replica in before if replica not in after]
    return changes


def resolved(entries: Iterable[Entry], base: ClockMark | None) -> list[tuple[Replica, int]]:
    """Entries with their replicas. Raises `ConstraintCrdtError` for an index that `base` does not have."""
    return [(ref if isinstance(ref, Replica) else resolve(ref, base), seq) for ref, seq in entries]


def bound(runs: Sequence[Run | UnboundRun], base: ClockMark | None) -> list[Run]:
    """Runs with their replicas, one of each. Raises `ConstraintCrdtError` for what does not fit."""
    runs_bound = [run if isinstance(run, Run) else run.bind(base) for run in runs]
    if len({run.replica for run in runs_bound}) != len(runs_bound):
        raise ConstraintCrdtError("a transfer has two runs of one replica")
    return runs_bound
