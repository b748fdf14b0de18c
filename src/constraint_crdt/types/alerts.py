"""Alerts of a fleet: silences, acknowledgements, the messages told to destinations, the fleet's rules, and the ways out of nodes.

| kind | key | value |
|---|---|---|
| 43 SILENCE | slot: 0 to 255 | `[sort, until, alert, subject, on, why, actor, at, episode, [node id, incarnation, seq]]` |
| 44 TOLD | slot: 0 to 999 | `[rule, subject, destination, episode, phase, at, [[node id, incarnation, seq], …]]` |
| 45 ALERT RULE | name | `[table as JSON, at, actor, overwrites, removed]` |
| 48 WAYS | "" | `[destination, …]`: the destinations that the node can tell |

Times are in ns since the epoch. Trailing defaults may be left out. Rules kept here:

- No cell is removed: 0.1.0 refuses a removal of a kind that it does not know. A slot is used again once its content is over, so
  each life has a bounded number of cells.
- A silence and an acknowledgement end by themselves (`until`). Another node ends a silence earlier by a cell of its own (sort
  `END`), which names it. Its slot is not used again before the silence would have ended.
- A TOLD cell names the cells of other lives on the same alert and destination that its writer saw: these count no more. Cells that
  no other cell names are the *heads*; several are those of the sides of a partition. An alert is open at a destination while a head
  says so. No clock takes part.
- An *episode* is the time from the firing of an alert to its end, numbered per alert.
- A rule overwrites the definitions that its writer saw. Of several definitions made at once the latest counts, by time and dot, and
  a removal counts only alone.
- A rule is kept as text. The rules of a later version, and selectors that this version cannot read, are kept and passed on.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import (
    Cell,
    WireDot,
    check_dots,
    make_cell,
    register,
    require,
    require_counts,
    require_text,
    value_of,
)
from constraint_crdt.crdt.clock import SECOND, Dot, Replica, check_id, replica_bytes
from constraint_crdt.crdt.limits import ID_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.types.nodes import RETIRE
from constraint_crdt.types.view import IndexedView

SILENCE: Final = 43
TOLD: Final = 44
ALERT_RULE: Final = 45
WAYS: Final = 48

SILENCE_SLOTS: Final = 256
"""Silences, acknowledgements and early ends of a life at once."""

TOLD_SLOTS: Final = 1000
"""Pairs of an alert and a destination that a life has told."""

MOST_SEEN: Final = 32
"""Cells that a TOLD cell overrules: the latest."""

MOST_RULES: Final = 100
"""Alert rules of a fleet."""

MOST_NAMES: Final = 1000
"""Names of alert rules of a fleet, those of removed rules included."""

RULE_BYTES: Final = 2048
"""The text of a rule, in UTF-8."""

SELECTOR_BYTES: Final = 512
WHY_BYTES: Final = 256
ACTOR_BYTES: Final = 64

MOST_WAYS: Final = 64
"""Destinations that a node states."""

LONGEST_SILENCE: Final = 366 * 24 * 3600.0
"""Seconds."""

SLACK: Final = 60 * SECOND
"""ns after the end of a silence before its slot is used again: clocks differ."""

QUIET, ACKNOWLEDGED, END = 0, 1, 2
"""The sorts of SILENCE cells."""

ATTEMPTED, DELIVERED, ENDING, ENDED = 1, 2, 3, 4
"""The phases: the message that it fires was sent and may have arrived; it arrived; that of its end was sent; that arrived."""


class SilenceValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a SILENCE cell."""

    sort: int
    until: int
    alert: str = ""
    """Of a silence a pattern of names of rules, constraints or nodes; of an acknowledgement the name of the rule."""
    subject: str = ""
    """Of an acknowledgement."""
    on: str = ""
    """A selector of nodes, as text; empty: all nodes."""
    why: str = ""
    actor: str = ""
    at: int = 0
    episode: int = 0
    """Of an acknowledgement: it covers the alert up to this episode."""
    target: WireDot | None = None
    """Of an `END`: the silence."""


class ToldValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a TOLD cell."""

    rule: str
    subject: str
    place: str
    episode: int
    phase: int
    at: int = 0
    seen: tuple[WireDot, ...] = ()
    """The cells of other lives that this cell overrules."""


class RuleValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of an ALERT RULE cell."""

    text: str
    at: int = 0
    actor: str = ""
    overwrites: tuple[WireDot, ...] = ()
    """The definitions that this cell replaces, with all that they replaced."""
    removed: bool = False


def _check_slot(key: str, slots: int, subject: str) -> None:
    require(key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < slots, subject)


def _check_silence(key: str, value: SilenceValue) -> None:
    _check_slot(key, SILENCE_SLOTS, "the slot of a silence")
    require_counts((value.sort, value.until, value.at, value.episode), "a number of a silence")
    require_text(value.alert, "the pattern of a silence")
    require_text(value.subject, "the subject of a silence")
    require_text(value.on, "the selector of a silence", SELECTOR_BYTES)
    require_text(value.why, "the reason of a silence", WHY_BYTES)
    require_text(value.actor, "the actor of a silence", ACTOR_BYTES)
    check_dots(() if value.target is None else (value.target,))


def _check_told(key: str, value: ToldValue) -> None:
    _check_slot(key, TOLD_SLOTS, "the slot of a told alert")
    require_counts((value.episode, value.phase, value.at), "a number of a told alert")
    for text in (value.rule, value.subject, value.place):
        require_text(text, "a name of a told alert")
    check_dots(value.seen)


def _check_rule(_: str, value: RuleValue) -> None:
    require_text(value.text, "the text of an alert rule", RULE_BYTES)
    require_text(value.actor, "the actor of an alert rule", ACTOR_BYTES)
    require_counts((value.at,), "the time of an alert rule")
    check_dots(value.overwrites)


def _check_ways(key: str, value: tuple[str, ...]) -> None:
    require(not key and len(value) <= MOST_WAYS, "the number of the destinations of a node")
    for each in value:
        require_text(each, "the name of a destination")


register(SILENCE, SilenceValue, _check_silence, key_bytes=3, empty_key=False)
register(TOLD, ToldValue, _check_told, key_bytes=3, empty_key=False)
register(ALERT_RULE, RuleValue, _check_rule, key_bytes=ID_BYTES, empty_key=False)
register(WAYS, tuple[str, ...], _check_ways, key_bytes=ID_BYTES)


# --- silences ----------------------------------------------------------------------------------------------------------------


class Silence(NamedTuple):
    """A silence or an acknowledgement."""

    dot: Dot
    value: SilenceValue

    @property
    def id(self) -> str:
        """Names the silence, in 8 characters."""
        data = replica_bytes(self.dot.replica) + self.dot.seq.to_bytes(8, "big")
        return blake2b(data, digest_size=4, person=b"silence").hexdigest()

    @property
    def acknowledges(self) -> bool:
        """True for an acknowledgement."""
        return self.value.sort == ACKNOWLEDGED


class Silences(IndexedView):
    """The silences and acknowledgements of a fleet, those that are over included."""

    KINDS = (SILENCE,)

    def __init__(self, rows: Rows | None = None) -> None:
        self._watchers: list[Callable[[Silence | None, Silence | None], None]] = []
        super().__init__(rows)

    def watch(self, watcher: Callable[[Silence | None, Silence | None], None]) -> None:
        """Call `watcher` with each silence that is new (None before), and with each that was ended early (None after)."""
        self._watchers.append(watcher)

    def _clear(self) -> None:
        self._held: dict[Dot, Silence] = {}
        self._ends: dict[Dot, set[Dot]] = {}
        """By silence the cells that end it."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        for cell in (old, new):
            if cell is None:
                continue
            dot, value = Dot(cell.replica, cell.seq), value_of(cell)
            if value.sort != END:
                if cell is new:
                    found = self._held[dot] = Silence(dot, value)
                    self._tell(None, found)
                else:
                    self._held.pop(dot, None)
            elif value.target is not None:
                target = Dot(value.target.replica, value.target.seq)
                ends = self._ends.setdefault(target, set())
                if cell is new:
                    ends.add(dot)
                    if target in self._held:
                        self._tell(self._held[target], None)
                else:
                    ends.discard(dot)
                    if not ends:
                        del self._ends[target]

    def _tell(self, before: Silence | None, after: Silence | None) -> None:
        for watcher in self._watchers:
            watcher(before, after)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return f"Silences({len(self)})"

    def active(self, now: int) -> list[Silence]:
        """Those in force at a time, by their end. O(silences)."""
        found = [each for each in self._held.values() if each.value.until > now and each.dot not in self._ends]
        return sorted(found, key=lambda each: (each.value.until, each.dot))

    def ended(self, now: int) -> list[Silence]:
        """Those that were ended early and would still be in force. O(silences)."""
        return sorted(each for each in self._held.values() if each.value.until > now and each.dot in self._ends)

    def at(self, time: int) -> list[Silence]:
        """Those that were in force at a time, as far as their cells stand. O(silences)."""
        ends = {
            Dot(value.target.replica, value.target.seq)
            for value in map(value_of, self._rows.each(SILENCE))
            if value.target is not None and value.at <= time
        }
        found = [each for each in self._held.values() if each.value.at <= time < each.value.until and each.dot not in ends]
        return sorted(found, key=lambda each: (each.value.at, each.dot))

    def find(self, id_: str, now: int) -> Silence:
        """The silence in force of this id. Raises `UnknownName`."""
        for each in self.active(now):
            if each.id == id_:
                return each
        raise UnknownName(id_, "silence")

    def put(self, value: SilenceValue, *, node: Replica) -> Silence:
        """Write a silence. Raises `ConstraintCrdtError` if all slots of this life are in use."""
        slot = self._free(node, value.at)
        self._rows.write(node, make_cell(SILENCE, slot, value))
        return Silence(Dot(node, self._rows.seq(node)), value)

    def end(self, silence: Silence, *, at: int, actor: str, node: Replica) -> None:
        """End a silence early; its cell stays, for a way back. A silence of this life goes where all slots are in use.

        Raises `ConstraintCrdtError` for one of another life then.
        """
        target = WireDot(*silence.dot.replica, silence.dot.seq)
        value = SilenceValue(END, silence.value.until, silence.value.alert, actor=actor, at=at, target=target)
        try:
            slot = self._free(node, at)
        except ConstraintCrdtError:
            if silence.dot.replica != node:
                raise
            slot = self._slot_of(silence.dot)
            self._tell(silence, None)  # its cell goes with the write
        self._rows.write(node, make_cell(SILENCE, slot, value))

    def _slot_of(self, dot: Dot) -> str:
        return next(str(cell.key) for cell in self._rows.each(SILENCE) if (cell.replica, cell.seq) == dot)

    def _free(self, node: Replica, now: int) -> str:
        """A slot of a life without content, or with content that is over. O(cells of silences)."""
        taken = {str(cell.key): value_of(cell).until for cell in self._rows.each(SILENCE) if cell.replica == node}
        for slot in map(str, range(SILENCE_SLOTS)):
            if slot not in taken or taken[slot] + SLACK <= now:
                return slot
        raise ConstraintCrdtError(
            f"{SILENCE_SLOTS} silences and acknowledgements are the most of a node: end one, or ask another node"
        )


# --- what was told -----------------------------------------------------------------------------------------------------------


class Unit(NamedTuple):
    """An alert and a destination."""

    rule: str
    subject: str
    place: str


class Told(NamedTuple):
    """The last message of a life about an alert to a destination."""

    episode: int
    phase: int
    at: int
    replica: Replica
    """The life that told it."""
    seq: int = 0

    @property
    def firing(self) -> bool:
        """The destination was told that the alert fires, or may have been, and no node began to tell its end."""
        return self.phase in (ATTEMPTED, DELIVERED)

    @property
    def open(self) -> bool:
        """The same, and the end may not have arrived."""
        return self.firing or self.phase == ENDING


class ToldAlerts(IndexedView):
    """The messages about each alert to each destination. Iteration is over the pairs, in no order."""

    KINDS = (TOLD,)

    def _clear(self) -> None:
        self._units: dict[Unit, dict[tuple[Replica, int], Told]] = {}
        """By unit the content of each slot of a life."""
        self._overruled: dict[Unit, dict[tuple[Replica, int], tuple[WireDot, ...]]] = {}
        self._alerts: dict[tuple[str, str], set[Unit]] = {}
        self._slots: dict[Replica, dict[int, Unit]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        for cell in (old, new):
            if cell is None:
                continue
            value: ToldValue = value_of(cell)
            unit, slot = Unit(value.rule, value.subject, value.place), int(cell.key)
            if cell is new:
                told = Told(value.episode, value.phase, value.at, cell.replica, cell.seq)
                self._units.setdefault(unit, {})[cell.replica, slot] = told
                self._overruled.setdefault(unit, {})[cell.replica, slot] = value.seen
                self._alerts.setdefault(unit[:2], set()).add(unit)
                self._slots.setdefault(cell.replica, {})[slot] = unit
                continue
            del self._slots[cell.replica][slot]
            del self._units[unit][cell.replica, slot]
            del self._overruled[unit][cell.replica, slot]
            if not self._units[unit]:
                del self._units[unit], self._overruled[unit]
                self._alerts[unit[:2]].discard(unit)
                if not self._alerts[unit[:2]]:
                    del self._alerts[unit[:2]]

    def __iter__(self) -> Iterator[Unit]:
        return iter(list(self._units))

    def __len__(self) -> int:
        return len(self._units)

    def __repr__(self) -> str:
        return f"ToldAlerts({len(self)})"

    def of(self, unit: Unit) -> list[Told]:
        """The messages that no other life overruled, in order; empty: nothing was told. O(rows with a message)."""
        held = self._units.get(unit)
        if not held:
            return []
        over = _latest(dot for seen in self._overruled[unit].values() for dot in seen)
        return sorted(told for told in held.values() if over.get(told.replica, 0) < told.seq) or [max(held.values())]

    def units(self, rule: str, subject: str) -> Iterable[Unit]:
        """The pairs of an alert."""
        return self._alerts.get((rule, subject), ())

    def put_all(self, told: Mapping[Unit, tuple[int, int, int]], *, node: Replica) -> None:
        """Write the messages: episode, phase and time, by unit. The oldest of this life make room, those that ended first."""
        held = self._slots.get(node, {})
        slots = {unit: slot for slot, unit in held.items()}
        spare = iter([slot for slot in range(TOLD_SLOTS) if slot not in held][: len(told)])
        oldest = iter(sorted((unit for unit in slots if unit not in told), key=lambda unit: self._rank(unit, node, slots[unit])))
        cells: dict[int, Cell] = {}
        for unit, (episode, phase, at) in told.items():
            slot = slots.get(unit)
            if slot is None:
                slot = next(spare, None)
            if slot is None and (unit_before := next(oldest, None)) is not None:
                slot = slots[unit_before]
            if slot is not None and all(len(text.encode()) <= ID_BYTES for text in unit):
                cells[slot] = make_cell(TOLD, str(slot), ToldValue(*unit, episode, phase, at, self._seen(unit, node)))
        self._rows.write_all(node, list(cells.values()))

    def _seen(self, unit: Unit, node: Replica) -> tuple[WireDot, ...]:
        held = self._units.get(unit, {}).values()
        others = sorted((told for told in held if told.replica != node), key=lambda each: (each.at, each.replica))
        return tuple(WireDot(*told.replica, told.seq) for told in others[-MOST_SEEN:])

    def _rank(self, unit: Unit, node: Replica, slot: int) -> tuple[bool, int]:
        told = self._units[unit][node, slot]
        return told.firing, told.at


# --- rules of the fleet ------------------------------------------------------------------------------------------------------


class FleetRule(NamedTuple):
    """A rule of the fleet, as text."""

    text: str
    at: int
    actor: str
    node: str
    """The writer."""
    definitions: int
    """More than 1: made at once, and the latest counts."""


class FleetRules(IndexedView):
    """The alert rules of a fleet: `in` and iteration are over the names of those in force."""

    KINDS = (ALERT_RULE,)

    def _clear(self) -> None:
        self._definitions: dict[str, dict[Dot, RuleValue]] = {}
        self.changes = getattr(self, "changes", 0) + 1
        """Grows with each change."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        self.changes += 1
        for cell in (old, new):
            if cell is not None:
                held = self._definitions.setdefault(str(cell.key), {})
                if cell is new:
                    held[Dot(cell.replica, cell.seq)] = value_of(cell)
                else:
                    held.pop(Dot(cell.replica, cell.seq), None)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.of(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in sorted(self._definitions) if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"FleetRules({list(self)})"

    def of(self, name: str) -> FleetRule | None:
        """The rule of this name; None: there is none."""
        heads = self._heads(name)
        standing = [(value.at, dot, value) for dot, value in heads if not value.removed]
        if not standing:
            return None
        at, dot, value = max(standing, key=lambda each: each[:2])
        return FleetRule(value.text, at, value.actor, dot.replica.node_id, len(heads))

    def _heads(self, name: str) -> list[tuple[Dot, RuleValue]]:
        """The definitions that no other definition overwrites."""
        held = self._definitions.get(name, {})
        over = _latest(dot for value in held.values() for dot in value.overwrites)
        return [(dot, value) for dot, value in sorted(held.items()) if over.get(dot.replica, 0) < dot.seq]

    def put(self, name: str, text: str, *, at: int, actor: str, node: Replica, removed: bool = False) -> None:
        """Define a rule, or remove it. Raises `ConstraintCrdtError` for a name out of bounds, and beyond the number of rules."""
        check_id(name, "the name of an alert rule", field="name")
        if len(text.encode()) > RULE_BYTES:
            raise ConstraintCrdtError(f"an alert rule has at most {RULE_BYTES} bytes", field="name")
        if not removed and name not in self and len(self) >= MOST_RULES:
            raise ConstraintCrdtError(f"{MOST_RULES} alert rules are the most of a fleet: remove one")
        if name not in self._definitions and len(self._definitions) >= MOST_NAMES:
            raise ConstraintCrdtError(f"{MOST_NAMES} names of alert rules are the most, removed ones included: use one of them")
        heads = self._heads(name)
        seen = [*(dot for _, value in heads for dot in value.overwrites), *(WireDot(*dot.replica, dot.seq) for dot, _ in heads)]
        overwrites = tuple(WireDot(*replica, seq) for replica, seq in sorted(_latest(seen).items()))
        self._rows.write(node, make_cell(ALERT_RULE, name, RuleValue("" if removed else text, at, actor, overwrites, removed)))


def read_rule(values: Iterable[bytes]) -> str | None:
    """The text of a rule, of the wire values of its definitions that no other one overwrites; None for a removed one."""
    found = []
    for each in values:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(_read_rule_value(each))
    standing = [each for each in found if not each.removed]
    return max(standing, key=lambda each: each.at).text if standing else None


_read_rule_value: Final = msgspec.msgpack.Decoder(RuleValue).decode


def _latest(dots: Iterable[WireDot]) -> dict[Replica, int]:
    found: dict[Replica, int] = {}
    for dot in dots:
        found[dot.replica] = max(dot.seq, found.get(dot.replica, 0))
    return found


# --- ways out ----------------------------------------------------------------------------------------------------------------


class WaysOut(IndexedView):
    """The destinations that each node can tell, as it says."""

    KINDS = (WAYS,)

    def _clear(self) -> None:
        self._lives: dict[str, dict[Replica, tuple[str, ...]]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        for cell in (old, new):
            if cell is not None:
                lives = self._lives.setdefault(cell.replica.node_id, {})
                lives.pop(cell.replica, None)
                if cell is new:
                    lives[cell.replica] = value_of(cell)

    def __iter__(self) -> Iterator[str]:
        """The nodes with an entry, in order."""
        return iter(sorted(self._lives))

    def __repr__(self) -> str:
        return f"WaysOut({list(self)})"

    def of(self, node: str) -> Sequence[str]:
        """The destinations of a node. Of several lives the last counts, as far as is known."""
        lives = self._lives.get(node)
        if not lives:
            return ()
        if len(lives) == 1:
            return next(iter(lives.values()))
        return lives[max(lives, key=lambda life: (not self._rows.held(RETIRE, str(life)), self._rows.seq(life), life))]

    def put(self, ways: Iterable[str], *, node: Replica) -> None:
        """State the destinations of a node, the first `MOST_WAYS` of them. Writes a cell for a change only."""
        value = sorted(set(ways))[:MOST_WAYS]
        cell = make_cell(WAYS, "", value)
        standing = self._rows.get(WAYS, "", node)
        if (standing is None and value) or (standing is not None and standing.data != cell.data):
            self._rows.write(node, cell)
