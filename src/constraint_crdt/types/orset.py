"""The active constraints with their definitions: an add-wins OR-set.

An add is a cell under the constraint's id in its writer's row. A constraint is active while an unexpired add stands. A removal
names the observed add-dots, so a concurrent add wins. Concurrent edits leave several definitions: *all* of them are in force
until the next edit, which replaces them all.

An expiry is only a reading: the cell stands, and an edit or extension of the constraint names it, until an ordinary removal
removes it. So an extension wins over a concurrent expiry, and equal clocks have equal cells at any time. Rules of `Expiries`:

- The same cells at the same time read the same, independent of the order of arrival and the course of time.
- Time may go back (a clock was set, a fast peer was lost). Expired definitions are in force again then.
- Only adds with an end are tracked: O(log n) for each expiry, nothing for other adds.

Each such add is in one of two heaps: `coming`, soonest first, or `past`, latest first. A reading at a later time moves adds to
the past, a reading at an earlier time moves them back. Entries of removed adds are dropped at the top of a heap, or when they are
most of it.
"""

import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter

from constraint_crdt.crdt.cells import REMOVE, Cell, Key, core, make_cell, make_removal, removed_dots
from constraint_crdt.crdt.clock import Replica, check_id, writer
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.errors import ConstraintInConflict, UnknownConstraint
from constraint_crdt.model import IfUnknown, Mode, Scope, Severity, html_table
from constraint_crdt.types.definition import (
    ADD,
    Addition,
    Definition,
    Selection,
    check_definition,
    expiry_of,
    read_addition,
    wire_definition,
)
from constraint_crdt.types.view import IndexedView, no_time

SLACK = 64
"""The number of stale entries tolerated in a heap."""

_dot = attrgetter("replica", "seq")

MANY = 256
"""The number of entries at which a heap is rebuilt instead of changed singly."""

_Entry = tuple[int, Key, Replica, int]
"""(expiry, constraint id, writer, seq)."""


class Expiries:
    """The standing adds with an end."""

    def __init__(self, rows: Rows, at: int = 0) -> None:
        """`at`: the moment to begin with, ns since the epoch."""
        self._rows = rows
        self.at = at
        """The time of the last reading."""
        self.standing: dict[tuple[Key, Replica], _Entry] = {}
        """Every standing add with an end. Empty: nothing to track."""
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
        """Drop an add with or without an end."""
        entry = self.standing.pop((cell.key, cell.replica), None)
        if entry is not None and entry[0] <= self.at:
            self._count(entry[1], -1)
        self._tidy()

    def judge(self, key: Key) -> None:
        """Update the state of a constraint after a change of its adds."""
        over = self._over.get(key, 0)
        if over and over == self._held(key):
            self.gone.add(key)
        else:
            self.gone.discard(key)

    def read(self, now: int) -> list[Key]:
        """Move to another time; returns the ids whose reading may have changed, possibly with repeats."""
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
        """Take the due entries out of `coming`. Many are taken at once: a heap is slow for that."""
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
        """The next expiry of an add, possibly of a removed add; None if there is none."""
        return self._coming[0][0] if self._coming else None

    def take_expired(self, by: int, most: int) -> list[tuple[int, Cell]]:
        """The adds expired at `by` or before, with their expiry, soonest first, at most `most`; each is given once."""
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
        """The number of standing adds of a constraint."""
        held = self._rows.table(ADD).get(key)
        return len(held) if isinstance(held, dict) else int(held is not None)

    def _stands(self, entry: _Entry) -> bool:
        return self.standing.get((entry[1], entry[2])) is entry

    def _cell(self, entry: _Entry) -> Cell | None:
        return self._rows.get(ADD, entry[1], entry[2]) if self._stands(entry) else None

    def _tidy(self) -> None:
        """Drop the entries of removed adds, if they are the majority."""
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
"""The targets in a removal of adds of many constraints, encoded."""

NAMED_BYTES = 40
"""The largest cost of naming an add, besides its id and the name of its node."""

DOTS_PER_REMOVAL = 100
"""The number of dots that always fit into a cell. A fleet with the same file on every node has an add of each constraint per
node."""


class Change(enum.StrEnum):
    """The effect of an addition."""

    ADDED = "added"
    REPLACED = "replaced"
    EXTENDED = "extended"
    """The definition was in force already, and now has a later end."""
    UNCHANGED = "unchanged"


class ConstraintORSet(IndexedView):
    """The active constraints. `in`, `len` and iteration are over constraint ids. `in` and `len` are O(1), plus O(log n) for each
    expiry since the last reading.

    The table of ADD cells is the reading; only expiries are kept beside it.
    """

    KINDS = (ADD,)

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch. Left out, time stands still, and nothing expires."""
        self._now = now
        self._expiry_changes: set[str] | None = None
        super().__init__(rows)

    def _clear(self) -> None:
        self._expiries = Expiries(self._rows, self._now())
        self.ends: Collection[object] = self._expiries.standing
        """The standing adds with an end. Without any, readings do not depend on the time."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if not self.ends and (new is None or not core.ending((new,))):
            return  # the common case, without an end, must cost no more
        expires_at = None if new is None else expiry_of(new)
        cell = new if new is not None else old
        if old is not None:
            self._expiries.drop(old)
        if new is not None and expires_at is not None:
            self._expiries.put(new, expires_at)
        if cell is not None and (old is not None or self.ends):
            self._expiries.judge(cell.key)

    def _bulk_watcher(self, cells: Sequence[Cell]) -> None:
        """Of adds in empty slots, only those with an end matter, while no other add has an end."""
        for cell in cells if self.ends else core.ending(cells):
            self._changed(None, cell)

    def merged(self, other: "ConstraintORSet") -> "ConstraintORSet":
        result = type(self)(self._rows.copy(), now=self._now)
        result.merge(other)
        return result

    # --- reading -----------------------------------------------------------------------------------------------------

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows.table(ADD) and not (self.ends and id_ in self._expired_now())

    def __len__(self) -> int:
        return len(self._rows.table(ADD)) - (len(self._expired_now()) if self.ends else 0)

    def __iter__(self) -> Iterator[str]:
        gone = self._expired_now() if self.ends else ()
        return (str(id_) for id_ in self._rows.table(ADD) if id_ not in gone)

    def __repr__(self) -> str:
        return f"ConstraintORSet({sorted(self)})"

    def _repr_html_(self) -> str:
        """A table of the active constraints for notebooks, a row per definition."""
        ids = sorted(self)
        rows = ([id_, each.severity, each.when, each.about] for id_ in ids for each in self.definitions(id_))
        return html_table("Active constraints", ("id", "severity", "when", "about"), rows, len(ids))

    def additions(self, id_: str) -> tuple[Addition, ...]:
        """The definitions in force for a constraint, ordered by dot; several are a possible conflict. Empty for an inactive
        constraint."""
        return self._additions(id_, expired=False)

    def expired(self, id_: str) -> tuple[Addition, ...]:
        """The expired definitions of a constraint whose cells still stand, ordered by dot."""
        return self._additions(id_, expired=True)

    def definitions(self, id_: str) -> tuple[Definition, ...]:
        """The different definitions in force for a constraint. Empty for an inactive constraint."""
        if not self.ends:
            held = self._rows.held(ADD, id_)
            if len(held) < 2:  # the common case
                return (read_addition(held[0]).definition,) if held else ()
        return tuple(dict.fromkeys([addition.definition for addition in self._additions(id_, expired=False)]))

    def mode(self, id_: str) -> Mode:
        """The strictest mode of the definitions in force. O(definitions)."""
        return strictest(self.definitions(id_))

    def definition(self, id_: str) -> Definition:
        """The definition in force for a constraint; of several that differ in their ends only, the longest lasting.

        Raises `UnknownConstraint` for an inactive constraint, and `ConstraintInConflict` for other definitions.
        """
        found = self.definitions(id_)
        if not found:
            raise UnknownConstraint(id_)
        if is_conflict(found):
            raise ConstraintInConflict(id_, len({each.without_end() for each in found}))
        return max(found, key=lambda each: (each.expires_at is None, each.expires_at or 0))

    def conflicts(self) -> list[str]:
        """The constraints with definitions in conflict, ordered. O(constraints)."""
        shared = [id_ for id_, held in self._rows.table(ADD).items() if isinstance(held, dict) and len(held) > 1]
        return sorted(id_ for id_ in map(str, shared) if is_conflict(self.definitions(id_)))

    @property
    def expired_ids(self) -> list[str]:
        """The constraints with only expired definitions, ordered; each until its removal."""
        return sorted(map(str, self._expired_now())) if self.ends else []

    @property
    def next_expiry(self) -> int | None:
        """No definition in force expires before this time (ns since the epoch); None if none ever does. O(1)."""
        return self._expiries.next if self.ends else None

    @property
    def tombstone_count(self) -> int:
        """Adds whose removals are remembered here, for peers that may not know of them. O(removals)."""
        return sum(removed.kind == ADD for cell in self._rows.each(REMOVE) for removed in removed_dots(cell))

    def take_expiry_changes(self) -> set[str]:
        """The constraints whose reading changed by time since the last call. Kept from the first call on."""
        if self.ends:
            self._expired_now()
        turned, self._expiry_changes = self._expiry_changes, set()
        return turned or set()

    def take_expired(self, by: int, most: int) -> list[tuple[int, Cell]]:
        """The adds expired at `by` (ns since the epoch) or before, with their expiry, soonest first, at most `most`.

        Each is given once.
        """
        return self._expiries.take_expired(by, most)

    def _expired_now(self) -> set[Key]:
        """The ids with only expired adds, now."""
        expiries, now = self._expiries, self._now()
        if now != expiries.at:
            moved = expiries.read(now)
            if moved and self._expiry_changes is not None:
                self._expiry_changes.update(map(str, moved))
        return expiries.gone

    def _additions(self, id_: str, *, expired: bool) -> tuple[Addition, ...]:
        cells = sorted(self._rows.held(ADD, id_), key=_dot)
        found = map(read_addition, cells)
        if not self.ends:
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
        on: Selection | None = None,
        expires_at: int | None = None,
        for_: int | None = None,
        clear_after: int | None = None,
        clear_when: str | None = None,
        if_unknown: str = IfUnknown.UNKNOWN,
        max_age: int | None = None,
        scope: str = Scope.NODE,
        mode: str = Mode.ENFORCE,
        each: str | None = None,
        at: int | None = None,
    ) -> Change:
        """Make a constraint active with this definition, in place of all observed definitions, expired ones included.

        `on`: the selector. `expires_at`: the end; `at`: the time now, for people; both in ns since the epoch. Durations are in ns.
        Adding a definition in force changes nothing. Raises `TypeError` and `ConstraintCrdtError` as `check_definition` does.
        """
        definition = check_definition(
            when, severity, about, on, expires_at,
            for_=for_, clear_after=clear_after, clear_when=clear_when, if_unknown=if_unknown, max_age=max_age, scope=scope,
            mode=mode, each=each,
        )  # fmt: skip
        return self.put(id_, definition, node=node, at=at)

    def put(self, id_: str, definition: Definition, *, node: str | Replica, at: int | None = None) -> Change:
        """The same, with a checked definition."""
        check_id(id_, "a constraint id", field="id")
        replica = writer(node)
        observed = self._rows.held(ADD, id_)
        change = change_of(self.definitions(id_), definition) if observed else Change.ADDED
        if change is Change.UNCHANGED:
            return change
        cells = [make_cell(ADD, id_, wire_definition(definition, at))]
        if observed:  # the new add supersedes the own earlier add
            cells += _removals(id_, [held for held in observed if held.replica != replica])
        self._rows.write_all(replica, cells)
        return change

    def remove(self, id_: str, *, node: str | Replica) -> None:
        """Remove a constraint: every add known here. Raises `KeyError` for an inactive constraint."""
        if id_ not in self:
            raise UnknownConstraint(id_)
        self._rows.write_all(writer(node), _removals(id_, self._rows.held(ADD, id_)))

    def remove_adds(self, adds: Sequence[Cell], *, node: str | Replica) -> None:
        """Remove exactly these adds, of any constraints: for adds expired long ago."""
        if adds:
            self._rows.write_all(writer(node), _packed(adds))


_STRICTEST = (Mode.ENFORCE, Mode.WARN, Mode.AUDIT)


def strictest(definitions: Iterable[Definition]) -> Mode:
    """The mode of a constraint with these definitions."""
    return min((each.mode for each in definitions), key=_STRICTEST.index, default=Mode.ENFORCE)


def is_conflict(definitions: Sequence[Definition]) -> bool:
    """True if the definitions in force for a constraint differ in more than their ends."""
    return len(definitions) > 1 and len({each.without_end() for each in definitions}) > 1


def change_of(in_force: Sequence[Definition], definition: Definition) -> Change:
    """The effect of adding a definition to those in force, none of them with a later end."""
    if not in_force:
        return Change.ADDED
    if tuple(in_force) == (definition,):
        return Change.UNCHANGED
    same = {each.without_end() for each in in_force} == {definition.without_end()}
    ends = [each.expires_at for each in in_force if each.expires_at is not None]
    longer = len(ends) == len(in_force) and (definition.expires_at is None or definition.expires_at > max(ends))
    return Change.EXTENDED if same and longer else Change.REPLACED


def _removals(id_: str, observed: Sequence[Cell]) -> list[Cell]:
    """The removals naming the observed adds, as few as possible."""
    starts = range(0, len(observed), DOTS_PER_REMOVAL)
    return [make_removal([(id_, dots_of(observed[start : start + DOTS_PER_REMOVAL]))]) for start in starts]


def _packed(adds: Sequence[Cell]) -> list[Cell]:
    """The removals naming adds of many constraints, as few as possible."""
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
