"""Which adds have expired at a moment, brought up to date as time passes: O(log n) for each that does, nothing for the others.

Rules kept here:

- A cell is never touched: an expiry is only a reading (DESIGN 2, Lifetimes). The same cells at the same moment read the same,
  in whatever order they came and however time went in between.
- Time may go back (a clock was set, a fast peer was lost). What had expired is in force again then.
- Only adds that have an end are known here at all.

Each such add is in one of two heaps: the `coming` ones, soonest first, and the `past` ones, latest first. Reading a later moment
moves some to the past, an earlier one moves some back. Adds that fell are dropped when they come up, or when most are such.

Which constraints are active, with their definitions: an add-wins OR-set.

An add is a cell under the constraint's id in its writer's row; a constraint is active while any add cell of it stands that has not
expired. A removal names the add-dots it observed, so an add that it did not observe wins. Concurrent edits leave several
definitions: *all* of them are in force until somebody edits again, which replaces them all.

An expiry is only a reading: the cell stands, and whoever edits or extends the constraint names it, until somebody removes it by an
ordinary removal. So an extension wins over a concurrent expiry, and equal clocks have equal cells whatever time it is where.
"""

import enum
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from constraint_crdt.crdt.cells import Cell, Key, make_cell, make_removal
from constraint_crdt.crdt.replica import Replica, check_id
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.types.definition import (
    ADD,
    WITHOUT_VALUE,
    Addition,
    Definition,
    Labels,
    Severity,
    check_definition,
    expiry_of,
    read_addition,
    wire_definition,
)
from constraint_crdt.types.view import IndexedView, no_time, writer

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
        self._untaken: list[_Entry] = []

    def put(self, cell: Cell, expires_at: int) -> None:
        """An add with an end stands now."""
        entry = (expires_at, cell.key, cell.replica, cell.seq)
        self.standing[cell.key, cell.replica] = entry
        heappush(self._untaken, entry)
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

    def take_expired(self, by: int, most: int) -> list[tuple[int, Cell]]:
        """The adds that expired at `by` at the latest, with when, soonest first, `most` at once; each is given only once."""
        found: list[tuple[int, Cell]] = []
        while self._untaken and self._untaken[0][0] <= by and len(found) < most:
            entry = heappop(self._untaken)
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
        if len(self._untaken) > most:
            self._untaken = [entry for entry in self._untaken if self._stands(entry)]
            heapify(self._untaken)


def _push_all(heap: list[tuple[int, _Entry]], entries: list[tuple[int, _Entry]]) -> None:
    if len(entries) < MANY:
        for entry in entries:
            heappush(heap, entry)
    else:
        heap += entries
        heapify(heap)


__all__ = ["DOTS_PER_REMOVAL", "Addition", "Change", "ConstraintORSet", "Definition", "Severity", "check_definition"]

PACKED_BYTES = 24 * 1024
"""What is named in one removal of adds of many constraints, encoded."""

NAMED_BYTES = 40
"""What naming an add costs at most beside its id and the name of its node."""

DOTS_PER_REMOVAL = 100
"""So many always fit into a cell. A fleet that applies one file on every node has an add of each constraint per node."""


class Change(enum.StrEnum):
    """What adding did."""

    ADDED = "added"
    REPLACED = "replaced"
    EXTENDED = "extended"
    """It was active with this definition already, and now is for longer."""
    UNCHANGED = "unchanged"


class ConstraintORSet(IndexedView):
    """The active constraints. `in`, `len` and iteration are over constraint ids. `in` and `len` are O(1), and once O(log n) for
    each add that has expired since the last reading.

    The table of add cells is the reading, apart from those that have expired, so nothing is kept beside it but these.
    """

    KINDS = (ADD,)

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch. Without it no time ever passes, and nothing expires."""
        self._now = now
        self._expiry_changes: set[str] | None = None
        super().__init__(rows)

    def _clear(self) -> None:
        self._expiries = Expiries(self._rows, self._now())
        self._ending = self._expiries.standing

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if not self._ending and (new is None or new.data[0] == WITHOUT_VALUE):
            return  # this is all that the many without an end may cost
        expires_at = None if new is None else expiry_of(new)
        cell = new if new is not None else old
        if old is not None:
            self._expiries.drop(old)
        if new is not None and expires_at is not None:
            self._expiries.put(new, expires_at)
        if cell is not None:
            self._expiries.judge(cell.key)

    def _bulk_watcher(self, cells: Sequence[Cell]) -> None:
        """Of adds that come where none stood, only those with an end can matter, while no other has one."""
        for cell in cells if self._ending else [cell for cell in cells if cell.data[0] != WITHOUT_VALUE]:
            self._changed(None, cell)

    def merged(self, other: "ConstraintORSet") -> "ConstraintORSet":
        result = type(self)(self._rows.copy(), now=self._now)
        result.merge(other)
        return result

    # --- reading -----------------------------------------------------------------------------------------------------

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows.table(ADD) and not (self._ending and id_ in self._expired_now())

    def __len__(self) -> int:
        return len(self._rows.table(ADD)) - (len(self._expired_now()) if self._ending else 0)

    def __iter__(self) -> Iterator[str]:
        gone = self._expired_now() if self._ending else ()
        return (str(id_) for id_ in self._rows.table(ADD) if id_ not in gone)

    def __repr__(self) -> str:
        return f"ConstraintORSet({sorted(self)})"

    def additions(self, id_: str) -> tuple[Addition, ...]:
        """The definitions in force for one constraint, ordered by dot; more than one may be a conflict. Empty if not active."""
        return self._additions(id_, expired=False)

    def expired(self, id_: str) -> tuple[Addition, ...]:
        """The definitions of one constraint that have expired and whose cells still stand, ordered by dot."""
        return self._additions(id_, expired=True)

    def definitions(self, id_: str) -> tuple[Definition, ...]:
        """The different definitions in force for one constraint. Empty if it is not active."""
        return tuple(dict.fromkeys(addition.definition for addition in self.additions(id_)))

    @property
    def expired_ids(self) -> list[str]:
        """The constraints of which all definitions have expired, ordered; each until somebody removes it."""
        return sorted(map(str, self._expired_now())) if self._ending else []

    @property
    def next_expiry(self) -> int | None:
        """No definition in force expires before this time (ns since the epoch); None if none ever does. O(1)."""
        return self._expiries.next if self._ending else None

    def take_expiry_changes(self) -> set[str]:
        """The constraints that time has made something else of since the last call. Kept from the first call on."""
        if self._ending:
            self._expired_now()
        turned, self._expiry_changes = self._expiry_changes, set()
        return turned or set()

    def take_expired(self, by: int, most: int) -> list[tuple[int, Cell]]:
        """The adds that expired at `by` (ns since the epoch) at the latest, each with when it did, soonest first, `most` at once.

        Each is given once.
        """
        return self._expiries.take_expired(by, most)

    def _expired_now(self) -> set[Key]:
        """The ids whose every add has expired by now."""
        expiries, now = self._expiries, self._now()
        if now != expiries.at:
            moved = expiries.read(now)
            if moved and self._expiry_changes is not None:
                self._expiry_changes.update(map(str, moved))
        return expiries.gone

    def _additions(self, id_: str, *, expired: bool) -> tuple[Addition, ...]:
        cells = sorted(self._rows.held(ADD, id_), key=lambda cell: (cell.replica, cell.seq))
        found = map(read_addition, cells)
        if not self._ending:
            return () if expired else tuple(found)
        now = self._now()
        return tuple(
            addition
            for addition in found
            if (addition.definition.expires_at is not None and addition.definition.expires_at <= now) is expired
        )

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(
        self,
        id_: str,
        *,
        node: str | Replica,
        when: str | None = None,
        severity: str = Severity.WARNING,
        about: str | None = None,
        on: Labels | None = None,
        expires_at: int | None = None,
        at: int | None = None,
    ) -> Change:
        """Make a constraint active with this definition, in place of the definitions observed so far, expired ones included.

        `on`: the labels of the nodes that it applies to. `expires_at`: when it ends; `at`: the time now, for people to read; both
        in ns since the epoch. Adding what is in force changes nothing. Raises `ConstraintCrdtError` if a part is out of bounds.
        """
        return self.put(id_, check_definition(when, severity, about, on, expires_at), node=node, at=at)

    def put(self, id_: str, definition: Definition, *, node: str | Replica, at: int | None = None) -> Change:
        """The same, of a definition that was checked."""
        check_id(id_, "a constraint id")
        replica = writer(node)
        observed = self._rows.held(ADD, id_)
        in_force = self.definitions(id_) if observed else ()
        if in_force == (definition,):
            return Change.UNCHANGED
        others = [held for held in observed if held.replica != replica]  # this row's own earlier add is taken over by the new one
        self._rows.write_all(replica, [make_cell(ADD, id_, wire_definition(definition, at)), *_removals(id_, others)])
        return change_of(in_force, definition)

    def remove(self, id_: str, *, node: str | Replica) -> None:
        """End a constraint: removes every add of it that is known here. Raises `KeyError` if it is not active."""
        if id_ not in self:
            raise KeyError(id_)
        self._rows.write_all(writer(node), _removals(id_, self._rows.held(ADD, id_)))

    def remove_adds(self, adds: Sequence[Cell], *, node: str | Replica) -> None:
        """Remove exactly these adds, whatever constraints they are of: what a node does with adds that have long expired."""
        if adds:
            self._rows.write_all(writer(node), _packed(adds))


def change_of(in_force: Sequence[Definition], definition: Definition) -> Change:
    """What it means to add a definition where these are in force, none of them for as long."""
    if not in_force:
        return Change.ADDED
    if tuple(in_force) == (definition,):
        return Change.UNCHANGED
    same = {each.without_end() for each in in_force} == {definition.without_end()}
    ends = [each.expires_at for each in in_force if each.expires_at is not None]
    longer = len(ends) == len(in_force) and (definition.expires_at is None or definition.expires_at > max(ends))
    return Change.EXTENDED if same and longer else Change.REPLACED


def _removals(id_: str, observed: Sequence[Cell]) -> list[Cell]:
    """As many removals as it takes to name the adds observed."""
    starts = range(0, len(observed), DOTS_PER_REMOVAL)
    return [make_removal([(id_, dots_of(observed[start : start + DOTS_PER_REMOVAL]))]) for start in starts]


def _packed(adds: Sequence[Cell]) -> list[Cell]:
    """As few removals as it takes to name adds of many constraints."""
    found: list[Cell] = []
    named: dict[str, list[tuple[Replica, int]]] = {}
    room = PACKED_BYTES
    for add in adds:
        size = len(str(add.key).encode()) + len(add.replica.node_id.encode()) + NAMED_BYTES
        if size > room:
            found.append(make_removal(named.items()))
            named, room = {}, PACKED_BYTES
        named.setdefault(str(add.key), []).append((add.replica, add.seq))
        room -= size
    return [*found, make_removal(named.items())]
