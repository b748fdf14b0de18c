"""The life of rules: switches that disable constraints, and the history of changes to rules.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, read_cell, register, require, require_counts, require_text, value_of
from constraint_crdt.crdt.clock import SECOND, Dot, Replica, check_id, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.definition import ADD, Addition, read_addition
from constraint_crdt.types.nodes import ACTOR_BYTES, OPERATION_BYTES, WHY_BYTES, Cause, cut
from constraint_crdt.types.view import IndexedView, no_time

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


class Switches(IndexedView):
    """Which constraints are disabled. Readings are O(1), or O(disabled constraints)."""

    KINDS = (SWITCH,)

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch. Left out, time stands still, and no disabling ends."""
        self._now = now
        self._told: dict[str, Switch] = {}
        """The disablings as of the last call of `take_turned`."""
        self.touched: set[str] = set()
        """The ids with changed cells since the last call of `take_turned`."""
        super().__init__(rows)

    def merged(self, other: "Switches") -> "Switches":
        result = type(self)(self._rows.copy(), now=self._now)
        result.merge(other)
        return result

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


class ChangeHistory(IndexedView):
    """The last changes of all nodes."""

    KINDS = (CHANGE,)

    def __init__(self, rows: Rows | None = None, *, now: Callable[[], int] = no_time) -> None:
        """`now`: the time in ns since the epoch, which changes are too old by."""
        self._now = now
        super().__init__(rows)

    def merged(self, other: "ChangeHistory") -> "ChangeHistory":
        result = type(self)(self._rows.copy(), now=self._now)
        result.merge(other)
        return result

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
