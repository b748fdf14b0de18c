"""Which adds have expired at a moment, brought up to date as time passes: O(log n) for each that does, nothing for the others.

Rules kept here:

- A cell is never touched: an expiry is only a reading (DESIGN 2, Lifetimes). The same cells at the same moment read the same,
  in whatever order they came and however time went in between.
- Time may go back (a clock was set, a fast peer was lost). What had expired is in force again then.
- Only adds that have an end are known here at all.

Each such add is in one of two heaps: the `coming` ones, soonest first, and the `past` ones, latest first. Reading a later moment
moves some to the past, an earlier one moves some back. Adds that fell are dropped when they come up, or when most are such.
"""

from heapq import heapify, heappop, heappush

from constraint_crdt.core.cells import ADD, Cell, Key
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.rows import Rows

SLACK = 64
"""Entries of adds that fell, for which nothing is tidied up."""

MANY = 256
"""Entries of a heap from which on it is made anew instead of changed one by one."""

_Entry = tuple[int, Key, Replica, int]
"""(when it expires, constraint id, writer, seq)."""


class Expiries:
    """The adds with an end that stand in some rows."""

    def __init__(self, rows: Rows, at: int = 0) -> None:
        """`at`: the moment to begin with, ns since the epoch."""
        self._rows = rows
        self.at = at
        """The moment that was read last."""
        self.standing: dict[tuple[Key, Replica], _Entry] = {}
        """Every add that has an end. Empty: there is nothing to follow."""
        self.gone: set[Key] = set()
        """The ids of which adds stand, and all of them have expired."""
        self._over: dict[Key, int] = {}
        self._coming: list[_Entry] = []
        self._past: list[tuple[int, _Entry]] = []
        self._overdue: list[_Entry] = []

    def put(self, cell: Cell, expires_at: int) -> None:
        """An add with an end stands now."""
        entry = (expires_at, cell.key, cell.replica, cell.seq)
        self.standing[cell.key, cell.replica] = entry
        heappush(self._overdue, entry)
        if expires_at > self.at:
            heappush(self._coming, entry)
        else:
            heappush(self._past, (-expires_at, entry))
            self._count(cell.key, 1)
        self._tidy()

    def drop(self, cell: Cell) -> None:
        """An add fell, if it had an end."""
        entry = self.standing.pop((cell.key, cell.replica), None)
        if entry is not None and entry[0] <= self.at:
            self._count(entry[1], -1)
        self._tidy()

    def judge(self, key: Key) -> None:
        """The adds of one constraint changed: see whether any of those that stand is in force."""
        over = self._over.get(key, 0)
        if over and over == self._held(key):
            self.gone.add(key)
        else:
            self.gone.discard(key)

    def read(self, now: int) -> list[Key]:
        """Go to another moment; returns the ids whose reading may have changed, some of them perhaps twice."""
        self.at = now
        expired = [entry for entry in self._take_due(now) if self._stands(entry)]
        _push_all(self._past, [(-entry[0], entry) for entry in expired])
        for entry in expired:
            self._count(entry[1], 1)
        moved = [entry[1] for entry in expired]
        past = self._past
        while past and -past[0][0] > now:
            entry = heappop(past)[1]
            if self._stands(entry):
                heappush(self._coming, entry)
                self._count(entry[1], -1)
                moved.append(entry[1])
        for key in moved:
            self.judge(key)
        return moved

    def _take_due(self, now: int) -> list[_Entry]:
        """Take out what is coming no longer. Where that is much, all at once: a heap is slow at it."""
        coming = self._coming
        due: list[_Entry] = []
        while coming and coming[0][0] <= now:
            if len(due) >= MANY:
                due += [entry for entry in coming if entry[0] <= now]
                self._coming = [entry for entry in coming if entry[0] > now]
                heapify(self._coming)
                break
            due.append(heappop(coming))
        return due

    @property
    def next(self) -> int | None:
        """When the next add expires, or one did that has fallen since; None if none will."""
        return self._coming[0][0] if self._coming else None

    def take_overdue(self, by: int, most: int) -> list[tuple[int, Cell]]:
        """The adds that expired at `by` at the latest, with when, soonest first, `most` at once; each is given only once."""
        found: list[tuple[int, Cell]] = []
        while self._overdue and self._overdue[0][0] <= by and len(found) < most:
            entry = heappop(self._overdue)
            cell = self._cell(entry)
            if cell is not None:
                found.append((entry[0], cell))
        return found

    def _count(self, key: Key, by: int) -> None:
        over = self._over.get(key, 0) + by
        if over:
            self._over[key] = over
        else:
            del self._over[key]

    def _held(self, key: Key) -> int:
        """How many adds of one constraint stand."""
        held = self._rows.table(ADD).get(key)
        return len(held) if isinstance(held, dict) else int(held is not None)

    def _stands(self, entry: _Entry) -> bool:
        return self.standing.get((entry[1], entry[2])) is entry

    def _cell(self, entry: _Entry) -> Cell | None:
        return self._rows.get(ADD, entry[1], entry[2]) if self._stands(entry) else None

    def _tidy(self) -> None:
        """Let go of the entries of adds that fell, if they are most."""
        most = 2 * len(self.standing) + SLACK
        if len(self._coming) + len(self._past) > most:
            self._coming = [entry for entry in self._coming if self._stands(entry)]
            self._past = [each for each in self._past if self._stands(each[1])]
            heapify(self._coming)
            heapify(self._past)
        if len(self._overdue) > most:
            self._overdue = [entry for entry in self._overdue if self._stands(entry)]
            heapify(self._overdue)


def _push_all(heap: list[tuple[int, _Entry]], entries: list[tuple[int, _Entry]]) -> None:
    if len(entries) < MANY:
        for entry in entries:
            heappush(heap, entry)
    else:
        heap += entries
        heapify(heap)
