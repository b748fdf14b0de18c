"""Who has heard of every change of the definitions, from evidence alone.

Counts always move in a measuring fleet, so full hashes hardly ever agree at one instant. What people ask is whether a peer
enforces the same constraints. Its clock answers that exactly: it does if its clock covers, in every row, the last mutation that
added or removed a definition, and it holds nothing that is unknown here.

The latest changes of the definitions, each with when it became known here and when each peer first showed that it has it.

The clock of a peer says *whether* it has a change (`evidence`); only whoever was there knows since when. So this remembers, for a
bounded number of changes, additions and removals apart. What it has forgotten, and what was known before the node started, has no
time: None, never a guess. A removal stays in here after its cell was dropped, so that a node that returns later can still be asked.
"""

from collections import deque
from collections.abc import Callable, Mapping

from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.crdt.replica import Dot, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types.definition import ADD


class DefinitionFrontier:
    """Per row, the seq of the last mutation that matters to the definitions."""

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
        """A removal matters if it ends a definition: others end tiles, counts, and so on."""
        if new is not None and any(removed.kind == ADD for removed in removed_dots(new)):
            self._changed(fell, new)

    @property
    def dots(self) -> tuple[Dot, ...]:
        """These mutations, ordered. O(rows)."""
        return tuple(sorted(Dot(replica, seq) for replica, seq in self._last.items()))

    def covered_by(self, clock: Mapping[Replica, int]) -> bool:
        """True if somebody at this clock has exactly the definitions known here. O(rows).

        Removals that were dropped lie at or below the floor of their row. A clock that is ahead of ours may hold more: False.
        """
        seq = self._rows.seq
        return (
            all(clock.get(replica, 0) >= last for replica, last in self._last.items())
            and all(clock.get(replica, 0) >= floor for replica, floor in self._rows.floors.items())
            and all(mark <= seq(replica) for replica, mark in clock.items())
        )


ADDITIONS = 10_000
REMOVALS = 10_000
"""Changes remembered, the latest ones."""

HEARD = 200_000
"""Times remembered of which peer first showed that it has which change: those of the oldest changes go first."""


class Change:
    """One mutation that added or removed definitions."""

    __slots__ = ("dot", "heard", "known_at", "removed")

    def __init__(self, dot: Dot, known_at: int | None, removed: Mapping[str, tuple[Dot, ...]] | None) -> None:
        self.dot = dot
        self.known_at = known_at
        """ns since the epoch by this node's clock; None: it was known before the node started."""
        self.removed = removed
        """Of a removal: the additions that it ended, by constraint."""
        self.heard: dict[str, int] = {}
        """When each peer first showed that it has this change, ns since the epoch by this node's clock."""


class ChangeLog:
    """Follows the definitions of one state from `begin` on."""

    def __init__(self, rows: Rows, now: Callable[[], int]) -> None:
        self._rows = rows
        self._now = now
        self._begun = False
        self._first = self._next = 0
        self._changes: dict[int, Change] = {}
        self._numbers: dict[Dot, int] = {}
        self._additions: deque[int] = deque()
        self._removals: deque[int] = deque()
        self._removed: dict[str, list[Dot]] = {}
        self._open: dict[str, list[int]] = {}
        self._seen: dict[str, int] = {}
        self._times = 0
        self._fresh: deque[tuple[int, Cell]] = deque(maxlen=ADDITIONS)
        """Additions that were not looked at yet: of 100,000 that come at once most are never."""
        rows.watch(ADD, self._added)
        rows.watch(REMOVE, self._removal)

    def begin(self) -> None:
        """What there is by now was known before the node started. Removals that stand are remembered, without a time."""
        self._begun = True
        for cell in self._rows.each(REMOVE):
            self._note_removal(cell, None)

    # --- reading -----------------------------------------------------------------------------------------------------

    def change(self, dot: Dot) -> Change | None:
        """What is remembered of one mutation."""
        self._take_fresh()
        number = self._numbers.get(dot)
        return None if number is None else self._changes[number]

    def removals(self, id_: str) -> list[Change]:
        """The removals remembered that ended additions of one constraint, in the order in which they became known."""
        return [change for dot in self._removed.get(id_, ()) if (change := self.change(dot)) is not None]

    # --- following ---------------------------------------------------------------------------------------------------

    def showed(self, peer: str, clock: Mapping[Replica, int]) -> None:
        """A peer gave evidence of this clock. O(changes that it had not shown so far)."""
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
        """A peer lives a new life: what it showed before counts no more. O(changes)."""
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
            self._remember(Change(Dot(cell.replica, cell.seq), at, None), self._additions, ADDITIONS)

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
        self._remember(Change(dot, at, {id_: tuple(dots) for id_, dots in removed.items()}), self._removals, REMOVALS)

    def _remember(self, change: Change, kind: deque[int], most: int) -> None:
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
