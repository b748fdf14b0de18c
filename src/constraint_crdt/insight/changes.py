"""Changes of definitions: the frontier of clocks, and a log with times.

Counts change all the time in a measuring fleet, so full state hashes rarely agree at any instant. The useful question is whether a
peer enforces the same constraints. The peer does if its clock covers, in every row, the last mutation of a definition, and has no
mutation unknown here: `DefinitionClock`.

`ChangeLog` keeps the latest changes of definitions, with the time at which each became known here and the time at which each peer
first showed the change in its clock. The log is bounded, separately for additions and removals. Dropped changes, and changes from
before the start, have no time (None). A removal stays in the log after its cell was dropped, for peers returning later.
"""

from collections import deque
from collections.abc import Callable, Mapping

from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types.definition import ADD


class DefinitionClock:
    """The seq of the last mutation of a definition in each row."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: dict[Replica, int] = {}
        for kind, watcher in ((ADD, self._changed), (REMOVE, self._removed)):
            rows.watch(kind, watcher)
            for cell in rows.each(kind):
                watcher(None, cell)

    def _changed(self, _fell: Cell | None, new: Cell | None) -> None:
        if new is not None and new.seq > self._last.get(new.replica, 0):
            self._last[new.replica] = new.seq

    def _removed(self, fell: Cell | None, new: Cell | None) -> None:
        """A removal counts if it ends a definition. Other removals end tiles, counts, and so on."""
        if new is not None and any(removed.kind == ADD for removed in removed_dots(new)):
            self._changed(fell, new)

    @property
    def dots(self) -> tuple[Dot, ...]:
        """These mutations, ordered. O(rows)."""
        return tuple(sorted(Dot(replica, seq) for replica, seq in self._last.items()))

    def covered_by(self, clock: Mapping[Replica, int]) -> bool:
        """True for a clock with exactly the definitions known here. O(rows).

        Dropped removals lie at or below the floor of their row. A clock beyond ours may have more definitions: False.
        """
        seq = self._rows.seq
        return (
            all(clock.get(replica, 0) >= last for replica, last in self._last.items())
            and all(clock.get(replica, 0) >= floor for replica, floor in self._rows.floors.items())
            and all(mark <= seq(replica) for replica, mark in clock.items())
        )


ADDITIONS = 10_000
REMOVALS = 10_000
"""The latest changes kept, at most."""

HEARD = 200_000
"""Times kept of peers showing changes. The times of the oldest changes are dropped first."""


class LoggedChange:
    """A mutation of definitions, with its times."""

    __slots__ = ("dot", "heard", "known_at", "removed")

    def __init__(self, dot: Dot, known_at: int | None, removed: Mapping[str, tuple[Dot, ...]] | None) -> None:
        self.dot = dot
        self.known_at = known_at
        """ns since the epoch by this node's clock; None for a change from before the start."""
        self.removed = removed
        """For a removal: the ended additions, by constraint."""
        self.heard: dict[str, int] = {}
        """The time at which each peer first showed the change, in ns since the epoch by this node's clock."""


class ChangeLog:
    """Follows the definitions of a state, from `begin` on."""

    def __init__(self, rows: Rows, now: Callable[[], int]) -> None:
        self._rows = rows
        self._now = now
        self._begun = False
        self._first = self._next = 0
        self._changes: dict[int, LoggedChange] = {}
        self._numbers: dict[Dot, int] = {}
        self._additions: deque[int] = deque()
        self._removals: deque[int] = deque()
        self._removed: dict[str, list[Dot]] = {}
        self._open: dict[str, list[int]] = {}
        self._seen: dict[str, int] = {}
        self._times = 0
        self._fresh: deque[tuple[int, Cell]] = deque(maxlen=ADDITIONS)
        """Additions without an entry yet. Of 100,000 additions at once most never need an entry."""
        rows.watch(ADD, self._added)
        rows.watch(REMOVE, self._removal)

    def begin(self) -> None:
        """The node starts. Changes known by now have no time; removals in the state are kept without a time."""
        self._begun = True
        for cell in self._rows.each(REMOVE):
            self._note_removal(cell, None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def change(self, dot: Dot) -> LoggedChange | None:
        """The entry of a mutation; None without an entry."""
        self._take_fresh()
        number = self._numbers.get(dot)
        return None if number is None else self._changes[number]

    def removals(self, id_: str) -> list[LoggedChange]:
        """The removals of additions of a constraint, in the order in which they became known."""
        return [change for dot in self._removed.get(id_, ()) if (change := self.change(dot)) is not None]

    # --- following ---------------------------------------------------------------------------------------------------

    def showed(self, peer: str, clock: Mapping[Replica, int]) -> None:
        """A peer gave evidence of this clock. O(changes not shown by the peer before)."""
        self._take_fresh()
        waiting = [*self._open.get(peer, ()), *range(max(self._seen.get(peer, 0), self._first), self._next)]
        self._seen[peer] = self._next
        still, now = [], self._now()
        for number in waiting:
            change = self._changes.get(number)
            if change is None:
                continue
            if clock.get(change.dot.replica, 0) < change.dot.seq:
                still.append(number)
            elif peer not in change.heard:
                change.heard[peer] = now
                self._times += 1
        self._open[peer] = still
        while self._times > HEARD:
            self._forget(min(self._changes))

    def lost(self, peer: str) -> None:
        """A peer has a new incarnation: drop its times. O(changes)."""
        for change in self._changes.values():
            if change.heard.pop(peer, None) is not None:
                self._times -= 1
        self._open.pop(peer, None)
        self._seen.pop(peer, None)

    def _added(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None and self._begun:
            self._fresh.append((self._now(), new))

    def _take_fresh(self) -> None:
        while self._fresh:
            at, cell = self._fresh.popleft()
            self._remember(LoggedChange(Dot(cell.replica, cell.seq), at, None), self._additions, ADDITIONS)

    def _removal(self, _old: Cell | None, new: Cell | None) -> None:
        if new is not None and self._begun:
            self._note_removal(new, self._now())

    def _note_removal(self, cell: Cell, at: int | None) -> None:
        removed: dict[str, list[Dot]] = {}
        for each in removed_dots(cell):
            if each.kind == ADD:
                removed.setdefault(each.key, []).append(Dot(each.replica, each.seq))
        dot = Dot(cell.replica, cell.seq)
        if not removed or dot in self._numbers:
            return
        for id_ in removed:
            self._removed.setdefault(id_, []).append(dot)
        self._remember(LoggedChange(dot, at, {id_: tuple(dots) for id_, dots in removed.items()}), self._removals, REMOVALS)

    def _remember(self, change: LoggedChange, kind: deque[int], most: int) -> None:
        if change.dot in self._numbers:
            return  # a repair put its cell back
        number, self._next = self._next, self._next + 1
        self._changes[number], self._numbers[change.dot] = change, number
        kind.append(number)
        while len(kind) > most:
            self._forget(kind.popleft())

    def _forget(self, number: int) -> None:
        change = self._changes.pop(number, None)
        if change is None:
            return  # its times were too many: it was forgotten before
        del self._numbers[change.dot]
        self._times -= len(change.heard)
        for id_ in change.removed or ():
            dots = self._removed[id_]
            dots.remove(change.dot)
            if not dots:
                del self._removed[id_]
        while self._first < self._next and self._first not in self._changes:
            self._first += 1
