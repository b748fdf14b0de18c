"""The active constraints with their definitions, their switches, and the history of changes to rules.

Constraints are an add-wins OR-set. An add is a cell under the constraint's id in its writer's row. A constraint is active while an
unexpired add stands. A removal names the observed add-dots, so a concurrent add wins. Concurrent edits leave several definitions:
*all* of them are in force until the next edit, which replaces them all.

An expiry is only a reading: the cell stands, and an edit or extension of the constraint names it, until an ordinary removal
removes it. So an extension wins over a concurrent expiry, and equal clocks have equal cells at any time. Rules of `Expiries`:

- The same cells at the same time read the same, independent of the order of arrival and the course of time.
- Time may go back (a clock was set, a fast peer was lost). Expired definitions are in force again then.
- Only adds with an end are tracked: O(log n) for each expiry, nothing for other adds.

Each such add is in one of two heaps: `coming`, soonest first, or `past`, latest first. A reading at a later time moves adds to
the past, a reading at an earlier time moves them back. Entries of removed adds are dropped at the top of a heap, or when they are
most of it.

Switches and changes:

| kind | key | value |
|---|---|---|
| 42 SWITCH | constraint id, or "" for all constraints | `[number, disabled, until, time, actor, why]`, trailing defaults left out |
| 46 CHANGE | slot: 0 to 999 | nil, or `[time, operation, actor, why, [[kind, subject, number, [wire value, …]], …]]` |

Times are in ns. No cell is removed: 0.1.0 refuses a removal of a kind that it does not know.

Switches. A constraint is disabled while its switch, or that of all constraints, says so and `until` has not passed in hybrid time.

- The number of a switch is 1 plus the highest number that its writer knew under the key. So a switch comes after all those that its
  writer knew. The highest number counts.
- Of concurrent switches with one number, enabled counts before disabled: in doubt a constraint is in force. Then the later time
  counts, then the order of the replicas.
- A disabling that ends needs no cell: its end is a reading, as that of a definition.

Changes. A change has the former state of a subject: the wire values of its standing cells of a kind, none where it was absent. The
first definition of a constraint makes no change, since its ADD cell tells all of it.

- The change with the number n made version n of its subject. The first version has the number 1, so changes begin with 2.
- Each life keeps its last changes: `CHANGE_SLOTS` cells, `CHANGE_BYTES` in all, the oldest are emptied first. Changes older than
  `KEPT` are not read, and are emptied with the next change of that life.
- A cell has all changes of an operation that fit. A change too large for a cell is left out.
"""

import contextlib
import enum
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import (
    REMOVE,
    Cell,
    Key,
    core,
    make_cell,
    make_removal,
    read_cell,
    register,
    removed_dots,
    require,
    require_counts,
    require_text,
    value_of,
)
from constraint_crdt.crdt.clock import SECOND, Dot, Replica, check_id, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT
from constraint_crdt.crdt.rows import Rows, dots_of
from constraint_crdt.errors import ConstraintCrdtError, ConstraintInConflict, UnknownConstraint
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
from constraint_crdt.types.nodes import ACTOR_BYTES, OPERATION_BYTES, WHY_BYTES, Cause, cut
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


class TimedView(IndexedView):
    """A view whose readings depend on the time as well."""

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch. Left out, time stands still."""
        self._now = now
        super().__init__(rows)

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(rows, now=self._now)


class ConstraintORSet(TimedView):
    """The active constraints. `in`, `len` and iteration are over constraint ids. `in` and `len` are O(1), plus O(log n) for each
    expiry since the last reading.

    The table of ADD cells is the reading; only expiries are kept beside it.
    """

    KINDS = (ADD,)

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch. Left out, time stands still, and nothing expires."""
        self._expiry_changes: set[str] | None = None
        super().__init__(rows, now=now)

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


SWITCH: Final = 42
CHANGE: Final = 46

ALL: Final = ""
"""The key of the switch of all constraints."""

CHANGE_SLOTS: Final = 1000
"""Cells of a life with changes."""

CHANGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of these cells."""

KEPT: Final = 90 * 86_400 * SECOND
"""The age up to which changes are read, in ns."""

_PACKED_BYTES: Final = 24 * 1024
"""Bytes of the changes in a cell."""

# --- switches ----------------------------------------------------------------------------------------------------------


class SwitchValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a SWITCH cell."""

    number: int
    disabled: bool = False
    until: int | None = None
    time: int = 0
    actor: str = ""
    why: str = ""


def _check_switch(_: str, value: SwitchValue) -> None:
    require_counts((value.number, value.until or 0, value.time), "a number of a switch")
    require_text(value.actor, "the actor of a switch", ACTOR_BYTES)
    require_text(value.why, "the reason of a switch", WHY_BYTES)


register(SWITCH, SwitchValue, _check_switch, key_bytes=ID_BYTES)


class Switch(NamedTuple):
    """The switch of a constraint that counts."""

    id: str
    """The constraint; `ALL` for all of them."""
    disabled: bool
    until: int | None
    """ns since the epoch: the end of the disabling; None: until it is enabled."""
    time: int
    """By the clock of the writer, in ns since the epoch. For people, and for concurrent switches."""
    actor: str
    why: str
    replica: Replica
    """The life that wrote the switch."""


class _Ranked(NamedTuple):
    """A switch in the order that decides: the highest counts."""

    number: int
    enabled: bool
    time: int
    replica: Replica
    switch: Switch


def _ranked(cell: Cell) -> _Ranked:
    value: SwitchValue = value_of(cell)
    switch = Switch(str(cell.key), value.disabled, value.until, value.time, value.actor, value.why, cell.replica)
    return _Ranked(value.number, not value.disabled, value.time, cell.replica, switch)


class Turned(NamedTuple):
    """A constraint, or all, was disabled or enabled, or its disabling has other words or another end."""

    id: str
    before: Switch | None
    """The disabling in force before; None: it was enabled."""
    after: Switch | None
    cause: Switch | None
    """The switch that counts now. Where a disabling ended by its time, that disabling."""


class Switches(TimedView):
    """Which constraints are disabled. Readings are O(1), or O(disabled constraints)."""

    KINDS = (SWITCH,)

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch. Left out, time stands still, and no disabling ends."""
        self._told: dict[str, Switch] = {}
        """The disablings as of the last call of `take_turned`."""
        self.touched: set[str] = set()
        """The ids with changed cells since the last call of `take_turned`."""
        super().__init__(rows, now=now)

    def _clear(self) -> None:
        self._counting: dict[str, _Ranked] = {}
        self.disabled: dict[str, Switch] = {}
        """Those that say disabled, over or not. Without any, every constraint is enabled."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        id_ = str(cell.key)
        after = max(map(_ranked, self._rows.held(SWITCH, id_)), default=None)
        if after is None:
            self._counting.pop(id_, None)
        else:
            self._counting[id_] = after
        if after is not None and after.switch.disabled:
            self.disabled[id_] = after.switch
        else:
            self.disabled.pop(id_, None)
        self.touched.add(id_)

    # --- reading -------------------------------------------------------------------------------------------------------

    def _in_force(self, id_: str, now: int) -> Switch | None:
        found = self.disabled.get(id_)
        return None if found is None or (found.until is not None and found.until <= now) else found

    def disabling(self, id_: str) -> Switch | None:
        """Why a constraint is disabled now: its own switch, else that of all; None for an enabled constraint."""
        if not self.disabled:
            return None
        now = self._now()
        return self._in_force(id_, now) or self._in_force(ALL, now)

    @property
    def of_all(self) -> Switch | None:
        """The switch that disables all constraints now; None where none does."""
        return self._in_force(ALL, self._now()) if self.disabled else None

    def __contains__(self, id_: object) -> bool:
        return isinstance(id_, str) and bool(self.disabled) and self.disabling(id_) is not None

    def __iter__(self) -> Iterator[str]:
        """The ids with a disabling of their own in force, ordered."""
        now = self._now() if self.disabled else 0
        return iter(sorted(id_ for id_ in self.disabled if id_ and self._in_force(id_, now)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Switches({'all disabled, ' if self.of_all else ''}{list(self)})"

    @property
    def has_turned(self) -> bool:
        """True if `take_turned` may find something. O(disabled constraints)."""
        if self.touched or not self._told:
            return bool(self.touched)
        now = self._now()
        return any(each.until is not None and each.until <= now for each in self._told.values())

    def take_turned(self) -> list[Turned]:
        """The constraints switched since the last call, by cells or by time, by id. O(cells changed, and disabled constraints)."""
        if not self.touched and not self._told:
            return []
        now, found = self._now(), []
        for id_ in sorted(self.touched | {id_ for id_, each in self._told.items() if each.until is not None}):
            before, after = self._told.get(id_), self._in_force(id_, now)
            if before == after:
                continue
            counting = self._counting.get(id_)
            found.append(Turned(id_, before, after, None if counting is None else counting.switch))
            if after is None:
                del self._told[id_]
            else:
                self._told[id_] = after
        self.touched.clear()
        return found

    # --- writing -------------------------------------------------------------------------------------------------------

    def put_all(
        self,
        ids: Iterable[str],
        *,
        disabled: bool,
        node: str | Replica,
        until: int | None = None,
        time: int = 0,
        actor: str = "",
        why: str = "",
    ) -> list[str]:
        """Disable or enable constraints; returns those that changed. Disabling again is a change: it has other words.

        `until`, `time`: in ns since the epoch. Raises `ConstraintCrdtError` for an id or a time out of bounds.
        """
        replica, written, changed = writer(node), list[Cell](), list[str]()
        require_counts((until or 0, time), "a time of a switch")
        for id_ in dict.fromkeys(ids):
            if id_ != ALL:
                check_id(id_, "a constraint id", field="id")
            counting = self._counting.get(id_)
            if not disabled and (counting is None or not counting.switch.disabled):
                continue
            number = min(MAX_COUNT, 1 + max((each.number for each in map(_ranked, self._rows.held(SWITCH, id_))), default=0))
            value: list[object] = [number, disabled, until, time, cut(actor, ACTOR_BYTES), cut(why, WHY_BYTES)]
            while len(value) > 1 and value[-1] == _DEFAULTS[len(value) - 1]:
                value.pop()
            written.append(make_cell(SWITCH, id_, value))
            changed.append(id_)
        if written:
            self._rows.write_all(replica, written)
        return changed


_DEFAULTS: Final[tuple[object, ...]] = (0, False, None, 0, "", "")

# --- the history -------------------------------------------------------------------------------------------------------


_read_switch: Final = msgspec.msgpack.Decoder(SwitchValue).decode


def read_switch(id_: str, values: Sequence[bytes]) -> Switch | None:
    """The switch that counts of the wire values of all switches of a constraint; None without any that can be read."""
    found = []
    for value in values:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(_read_switch(value))
    if not found:
        return None
    each = max(found, key=lambda each: (each.number, not each.disabled, each.time))
    return Switch(id_, each.disabled, each.until, each.time, each.actor, each.why, Replica("", 0))


def read_definitions(id_: str, values: Sequence[bytes]) -> list[Addition]:
    """The additions of the wire values of all ADD cells of a constraint, without those that cannot be read. They have no dots."""
    found = []
    for value in values:
        with contextlib.suppress(msgspec.DecodeError, ConstraintCrdtError):
            found.append(read_addition(read_cell(make_cell(ADD, id_, msgspec.Raw(value)).data)))
    return found


class SubjectValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The former state of a subject, in a CHANGE cell."""

    kind: int
    subject: str
    number: int
    before: tuple[msgspec.Raw, ...] = ()
    first: tuple[str, str, str] | None = None
    """The actor, the node and the reason of the first version, in its first change: see `Cause`."""


class ChangeValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a CHANGE cell."""

    time: int
    operation: str
    actor: str = ""
    why: str = ""
    subjects: tuple[SubjectValue, ...] = ()


def _check_change(key: str, value: ChangeValue | None) -> None:
    require(key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < CHANGE_SLOTS, "the slot of a change")
    if value is None:
        return
    require_counts((value.time,), "the time of a change")
    require_text(value.operation, "the operation of a change", OPERATION_BYTES)
    require_text(value.actor, "the actor of a change", ACTOR_BYTES)
    require_text(value.why, "the reason of a change", WHY_BYTES)
    for each in value.subjects:
        require_counts((each.kind, each.number), "a number of a change")
        require_text(each.subject, "the subject of a change")
        for text, most in zip(each.first or (), (ACTOR_BYTES, ID_BYTES, WHY_BYTES), strict=False):
            require_text(text, "the origin of a first version", most)


register(CHANGE, ChangeValue | None, _check_change, default=None, key_bytes=3, empty_key=False)


class Subject(NamedTuple):
    """The subject of a change: a kind of cells and their key."""

    kind: int
    key: str


class RecordedChange(NamedTuple):
    """A change of a subject."""

    time: int
    """By the clock of the writing node, in ns since the epoch."""
    number: int
    """The version that the change made; `before` is the version before."""
    dot: Dot
    subject: Subject
    operation: str
    actor: str
    why: str
    before: tuple[bytes, ...]
    """The wire values of the standing cells before the change; empty: there was none."""
    first: Cause | None = None
    """Of the version before, if that was the first and its writer noted it: its cell is gone, and the audit names no subjects of a
    batch.
    """


class Before(NamedTuple):
    """The state of a subject, right before a change of it."""

    subject: Subject
    values: tuple[bytes, ...]
    first: Cause | None = None
    """Of a first version, where it is known."""


_NIL: Final = b"\xc0"
_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def before_change(rows: Rows, subject: Subject) -> Before:
    """The wire values of the standing cells of a subject, in the order of their dots: of those that no other one overwrites."""
    held, over, found = rows.held(subject.kind, subject.key), dict[Replica, int](), []
    for dot in (dot for cell in held for dot in getattr(value_of(cell), "overwrites", ())):
        over[dot.replica] = max(dot.seq, over.get(dot.replica, 0))
    for cell in sorted(held, key=lambda each: (each.replica, each.seq)):
        if cell.seq <= over.get(cell.replica, 0):
            continue
        parts = _parts(cell.data)
        found.append(bytes(parts[2]) if len(parts) > 2 else _NIL)
    return Before(subject, tuple(found))


class ChangeHistory(TimedView):
    """The last changes of all nodes."""

    KINDS = (CHANGE,)

    def _clear(self) -> None:
        self._slots: dict[Replica, dict[int, Cell]] = {}
        """The cells with changes of each life, by seq."""
        self.subjects: dict[Subject, dict[Dot, RecordedChange]] = {}
        """The changes that are held, those too old to be read as well."""
        self._bytes: dict[Replica, int] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        for cell, stands in ((old, False), (new, True)):
            value = None if cell is None else value_of(cell)
            if cell is None or value is None:
                continue
            slots, dot = self._slots.setdefault(cell.replica, {}), Dot(cell.replica, cell.seq)
            if stands:
                slots[cell.seq] = cell
            elif slots.pop(cell.seq, None) is None:
                continue
            self._bytes[cell.replica] = self._bytes.get(cell.replica, 0) + (len(cell.data) if stands else -len(cell.data))
            for each in _recorded(value, dot):
                if stands:
                    self.subjects.setdefault(each.subject, {})[dot] = each
                    continue
                of_subject = self.subjects.get(each.subject, {})
                of_subject.pop(dot, None)  # a subject may stand twice in a cell of another implementation
                if not of_subject:
                    self.subjects.pop(each.subject, None)

    # --- reading -------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(map(len, self.subjects.values()))

    def __iter__(self) -> Iterator[RecordedChange]:
        """The changes by time, the newest last. O(changes)."""
        oldest = self._now() - KEPT
        return iter(sorted(each for found in self.subjects.values() for each in found.values() if each.time >= oldest))

    def __repr__(self) -> str:
        return f"ChangeHistory({len(self)} changes of {len(self.subjects)} subjects)"

    def of(self, subject: Subject) -> list[RecordedChange]:
        """The changes of a subject by number, then by time. O(its changes)."""
        oldest = self._now() - KEPT
        found = [each for each in self.subjects.get(subject, {}).values() if each.time >= oldest]
        return sorted(found, key=lambda each: (each.number, each.time, each.dot))

    def number(self, subject: Subject) -> int:
        """The number of the present version of a subject, as far as its changes are kept."""
        numbers = [each.number for each in self.subjects.get(subject, {}).values()]
        return max(numbers, default=1)

    @property
    def complete_since(self) -> int:
        """The time since which no change is missing for lack of room, in ns since the epoch. O(lives)."""
        full = [slots for life, slots in self._slots.items() if len(slots) >= CHANGE_SLOTS or self._bytes[life] > _ALMOST_FULL]
        oldest: list[int] = [value_of(slots[min(slots)]).time for slots in full]
        return max([self._now() - KEPT, *oldest])

    # --- writing -------------------------------------------------------------------------------------------------------

    def note(self, changes: Sequence[Before], *, operation: str, actor: str, why: str, time: int, node: Replica) -> None:
        """Note the former state of subjects, each once, before an operation, in place of the oldest changes if there is no room."""
        head: list[object] = [time, cut(operation, OPERATION_BYTES), cut(actor, ACTOR_BYTES), cut(why, WHY_BYTES)]
        packed, room = list[list[object]]([]), 0
        for each in changes:
            values = [msgspec.Raw(value) for value in each.values]
            first = [] if each.first is None else [*each.first]
            size = sum(map(len, each.values)) + 4 * (len(each.subject.key) + sum(map(len, first))) + _ENTRY_BYTES
            if size > _PACKED_BYTES:
                continue
            if size > room:
                packed.append([])
                room = _PACKED_BYTES
            entry: list[object] = [each.subject.kind, each.subject.key, self.number(each.subject) + 1, values]
            packed[-1].append([*entry, first] if first else entry)
            room -= size
        if not packed:
            return
        slots = [cell for _, cell in sorted(self._slots.get(node, {}).items())]
        newest = int(slots[-1].key) if slots else -1
        keys = [str((newest + place) % CHANGE_SLOTS) for place in range(1, len(packed) + 1)]
        cells = {key: make_cell(CHANGE, key, [*head, subjects]) for key, subjects in zip(keys, packed, strict=True)}
        emptied = self._to_empty(slots, cells, self._bytes.get(node, 0), time - KEPT)
        self._rows.write_all(node, [*(make_cell(CHANGE, key, None) for key in emptied), *cells.values()])

    @staticmethod
    def _to_empty(slots: Sequence[Cell], cells: Mapping[str, Cell], held: int, oldest: int) -> list[str]:
        """The slots of a life to be emptied for these cells: the oldest beyond the bytes, and those too old to be read.

        `slots`: those in use, the oldest first. `held`: their bytes.
        """
        held += sum(len(cell.data) for cell in cells.values())
        found = []
        for cell in slots:
            if held <= CHANGE_BYTES and value_of(cell).time >= oldest:
                break
            held -= len(cell.data)
            if cell.key not in cells:
                found.append(str(cell.key))
        return found


_ENTRY_BYTES: Final = 32
"""Bytes of a change in a cell beside its values and its subject."""

_ALMOST_FULL: Final = CHANGE_BYTES - 2 * _PACKED_BYTES
"""From so many bytes on, changes may have been emptied for room."""


def _recorded(value: ChangeValue, dot: Dot) -> Iterator[RecordedChange]:
    for each in value.subjects:
        before = tuple([bytes(raw) for raw in each.before])
        subject = Subject(each.kind, each.subject)
        first = None if each.first is None else Cause(*each.first)
        yield RecordedChange(value.time, each.number, dot, subject, value.operation, value.actor, value.why, before, first)
