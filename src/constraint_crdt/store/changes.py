"""The changes of a node's rows since the last commit.

Rules: a batch has all changes since the last successful commit, so its cells, clock and floors belong together. The next batch
repeats the changes of a failed batch. Deletes precede puts, because a key may have been written again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from constraint_crdt.crdt.cells import Cell, Key, Run
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.crdt.rows import Rows

_MASK = 2**63 - 1


class Seal(NamedTuple):
    """The expected content of the state on disk, checked at loading. Written with each commit."""

    state_hash: bytes
    hash_key: bytes
    """Stands for the key of the hash: the hash of the empty state. A store whose fleet changed its secret is not damaged."""
    cells: int
    rows: int
    floors: int
    """The sum of the floors, modulo 2**63."""

    @classmethod
    def of(cls, rows: Rows) -> Self:
        """The seal of rows as they are. O(floors)."""
        empty = rows.digest.state(0, 0)
        floors = sum(rows.floors.values()) & _MASK
        return cls(bytes(rows.state_hash), bytes(empty), len(rows), len(rows.clock_mark.entries), floors)


class Life(NamedTuple):
    """A life of the node: its incarnation, its begin (ns since the epoch), and the reason."""

    incarnation: int
    began: int
    why: str


class Fallen(NamedTuple):
    """A cell to be deleted, up to a seq."""

    replica: Replica
    kind: int
    key: Key
    seq: int


class CommitBatch(NamedTuple):
    """The content of a commit."""

    runs: Sequence[Run]
    fallen: Sequence[Fallen]
    floors: Mapping[Replica, int]
    """The changed floors."""
    seal: Seal
    lives: Sequence[Life] = ()
    """The lives beginning with this commit."""
    life_ends: bool = False
    """The life on disk must end with this commit, whatever the marker says."""


class Changes:
    """Follows a node's `Rows`, and is the only caller of `take_dropped` and `take_repaired`."""

    def __init__(self, rows: Rows) -> None:
        """`rows` are as on disk now."""
        self._rows = rows
        self._clock = rows.clock_mark.entries
        self._floors = rows.floors
        self._tried = self._clock
        """The clock of the last batch: a failed commit may have reached the disk."""
        self._fallen: dict[tuple[Replica, int, Key], int] = {}
        self._mended: list[Cell] = []
        self._lives: list[Life] = []
        self._life_ends = False
        self._taken: tuple[dict[Replica, int], dict[Replica, int], int] | None = None
        rows.take_dropped()
        rows.take_repaired()

    @property
    def on_disk(self) -> Mapping[Replica, int]:
        """The clock on disk."""
        return self._clock

    def begin_life(self, life: Life) -> None:
        """Have the next batch begin a life of the node."""
        self._lives.append(life)
        self._life_ends = False

    def end_life(self) -> None:
        """Have the next batch end the life on disk."""
        self._life_ends = True

    def take(self) -> CommitBatch | None:
        """The next batch, or None without changes. Call `done` after the commit; until then the next batch repeats the changes.
        O(rows + changes).
        """
        rows = self._rows
        clock, floors = rows.clock_mark.entries, rows.floors
        self._gather_fallen()
        self._mended += rows.take_repaired()
        if clock is self._clock and floors == self._floors and not (self._fallen or self._mended or self._lives or self._life_ends):
            return None
        self._tried = clock
        self._taken = clock, floors, len(self._lives)
        changed = {replica: floor for replica, floor in floors.items() if floor != self._floors.get(replica, 0)}
        fallen = [Fallen(*place, seq) for place, seq in self._fallen.items()]
        return CommitBatch(
            [*self._repaired(), *rows.since(self._clock)], fallen, changed, Seal.of(rows), tuple(self._lives), self._life_ends
        )

    def done(self, batch: CommitBatch) -> None:
        """The last batch is on disk."""
        assert self._taken is not None, "nothing was taken"  # noqa: S101 - a fault of the caller, not of the input
        self._clock, self._floors, lives = self._taken
        self._taken = None
        self._fallen.clear()  # only `take` adds to it
        self._mended.clear()  # the same
        del self._lives[:lives]
        if batch.life_ends and not self._lives:  # else the end belongs to a life begun meanwhile
            self._life_ends = False

    def _repaired(self) -> list[Run]:
        """The standing cells of a repair below the clock on disk: incomplete runs, for writing only."""
        rows = self._rows
        standing = [cell for cell in self._mended if rows.get(cell.kind, cell.key, cell.replica) is cell]
        return [Run(cell.replica, cell.seq - 1, rows.seq(cell.replica), [cell]) for cell in standing]

    def _gather_fallen(self) -> None:
        tried = self._tried
        for cell in self._rows.take_dropped():
            # A cell without a key has nothing on disk before its first batch. A cell with a key may have an older cell there. So
            # the many removals made and dropped between two commits cost nothing here.
            if isinstance(cell.key, str) or cell.seq <= tried.get(cell.replica, 0):
                place = (cell.replica, cell.kind, cell.key)
                self._fallen[place] = max(cell.seq, self._fallen.get(place, 0))
