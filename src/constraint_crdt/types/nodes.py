"""Nodes: their descriptions, certificates and revocations, the retirement of nodes and of single lives, and the audit of changes.

| kind | key | value |
|---|---|---|
| 5 NODE | "" | `[software version, wire version, [endpoint, …], [[label, value], …], role]`, the last two left out if empty |
| 6 RETIRE | node id, or a replica as text | `[whole node, [[node id, incarnation, seq], …]]`: these lives are over |
| 27 CERTIFICATE | "" | the certificates of the node, the first cell of a signed row |
| 33 VOUCH | a replica as text | `[seq, root]`: this row, written before the fleet had identities, is as it should be |
| 32 ROOT | fingerprint of the new root | the statement of two roots of the fleet that one follows the other, see `identity` |
| 30 REVOKE | fingerprint of a key | `[node id, [[node id, incarnation, seq], …], reason, [mark, …]]`: rows by this key end there |
| 34 UNDO | its own seq | `[node id, [[node id, incarnation, seq], …]]`: these RETIRE cells do not count; the node is in service |
| 31 AUDIT | slot: 0 to 999 | `[time in ns, actor, operation, subject, changes, why]`: who caused the `changes` mutations before |

A life ends in two ways: the node goes on under a new incarnation and states it (`end_lives`), or the whole node is retired for
good (`retire_node`). The cells of an ended life stand, and its counts stay counted. The effects:

- messages of a retired node are refused, unless they tell of retirements; its cells relayed by others are taken (refusing them
  makes replicas diverge);
- the clock entry of an ended life is left out of messages; `compact_clock` and `expand_clock` implement the rule.

Which retirements count follows from the RETIRE and UNDO cells of the state alone (`standing`), so nodes with equal states agree,
also where the sides of a partition retired each other (docs/design/forgetting.md#retirements-that-contradict-each-other).

The audit says who caused a change: a person or a token, on which node, when. An audit cell is written with the change, after it, in
the same row. Each life has `AUDIT_SLOTS` slots and overwrites the oldest, so the audit is bounded. Who wrote is a claim of the node
of the row: an audit cell proves nothing about the actor.

Certificates and revocations are read by `protocol.authority` alone; here are their forms.
"""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import (
    DOTS_PER_REMOVAL,
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
from constraint_crdt.crdt.clock import Dot, Replica, writer
from constraint_crdt.crdt.limits import ID_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.signed_rows import HASH_BYTES, ROOT_BYTES
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.model import Label
from constraint_crdt.types.definition import check_wire_labels
from constraint_crdt.types.view import IndexedView

NODE: Final = 5
RETIRE: Final = 6
AUDIT: Final = 31

AUDIT_SLOTS: Final = 1000
"""The entries of a life: the latest."""

ACTOR_BYTES: Final = 64
OPERATION_BYTES: Final = 24
SUBJECT_BYTES: Final = 64
WHY_BYTES: Final = 200
"""Bytes of UTF-8 of the texts of an entry, at most. Longer texts are cut."""

CERTIFICATE: Final = 27
REVOKE: Final = 30
VOUCH: Final = 33
ROOT: Final = 32
UNDO: Final = 34

MAX_CERTIFICATES: Final = 4096
"""Bytes of the certificates of a node, at most."""

MAX_STATEMENT: Final = 2048
"""Bytes of a statement on roots, at most."""

FINGERPRINT_CHARACTERS: Final = 64
MAX_ROLE: Final = 16
"""Bytes of the role of a node, at most."""

MAX_REASON: Final = 200
"""Bytes of the reason of a revocation, at most."""


class NodeValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a NODE cell."""

    software: str
    wire: int
    endpoints: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    role: str = ""
    """`router` or `client` among the links of the fleet; empty for a peer, and from nodes of 0.1.0."""


class RetireValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a RETIRE cell: ended lives, each with its highest seq known to the writer."""

    whole_node: bool
    """True: the node is retired, with all of its lives. False: the node went on from these lives."""
    lives: tuple[WireDot, ...]


class UndoValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of an UNDO cell."""

    node: str
    """The node that is in service again; empty where none is."""
    retirements: tuple[WireDot, ...]
    """The dots of the RETIRE cells that count no more."""


class RevokeValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a REVOKE cell: the last seq that counts of each life of the key. Lives that it does not name do not count."""

    node: str
    ends: tuple[WireDot, ...]
    reason: str = ""
    marks: tuple[bytes, ...] = ()
    """Of each end, the hash of the signature there (`signature_mark`), or empty. A row with another signature does not count."""


class VouchValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a VOUCH cell: the end of a row, and the root of its cells up to there (`crdt.signed_rows`)."""

    seq: int
    root: bytes


def _check_node(key: str, value: NodeValue) -> None:
    require(not key, "the key of a node's word on itself")
    require_text(value.software, "the software version of a node")
    require_counts((value.wire,), "the wire version of a node")
    check_wire_labels(value.labels)
    require_text(value.role, "the role of a node", MAX_ROLE)


def _check_retire(_: str, value: RetireValue) -> None:
    require(bool(value.lives), "the number of lives retired")
    check_dots(value.lives)


def _check_undo(_: str, value: UndoValue) -> None:
    require_text(value.node, "the name of a node")
    check_dots(value.retirements)


def _check_certificate(key: str, value: bytes) -> None:
    require(not key and 0 < len(value) <= MAX_CERTIFICATES, "the certificate of a node")


def _check_root(key: str, value: bytes) -> None:
    require(len(key) == FINGERPRINT_CHARACTERS and not set(key) - set("0123456789abcdef"), "the fingerprint of a root")
    require(0 < len(value) <= MAX_STATEMENT, "the statement on a root")


def _check_revoke(key: str, value: RevokeValue) -> None:
    require(len(key) == FINGERPRINT_CHARACTERS and not set(key) - set("0123456789abcdef"), "the fingerprint of a key")
    require_text(value.node, "the name of a node")
    require_text(value.reason, "the reason of a revocation", MAX_REASON)
    check_dots(value.ends)
    require(len(value.marks) in (0, len(value.ends)), "the number of signatures of a revocation")
    require(all(len(mark) in (0, HASH_BYTES) for mark in value.marks), "a signature of a revocation")


def _check_vouch(_: str, value: VouchValue) -> None:
    require_counts((value.seq,), "the end of a row")
    require(len(value.root) == ROOT_BYTES, "the root of a row")


class AuditValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of an AUDIT cell."""

    time: int
    actor: str
    operation: str
    subject: str = ""
    changes: int = 0
    why: str = ""


def _check_audit(key: str, value: AuditValue) -> None:
    require(key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < AUDIT_SLOTS, "the slot of an audit entry")
    require_counts((value.time, value.changes), "a number of an audit entry")
    require_text(value.actor, "the actor of an audit entry", ACTOR_BYTES)
    require_text(value.operation, "the operation of an audit entry", OPERATION_BYTES)
    require_text(value.subject, "the subject of an audit entry", SUBJECT_BYTES)
    require_text(value.why, "the reason of an audit entry", WHY_BYTES)


register(NODE, NodeValue, _check_node, key_bytes=ID_BYTES)
register(RETIRE, RetireValue, _check_retire, key_bytes=ID_BYTES)
register(UNDO, UndoValue, _check_undo, empty_key=False)
register(CERTIFICATE, bytes, _check_certificate, key_bytes=ID_BYTES)
register(ROOT, bytes, _check_root, key_bytes=ID_BYTES, empty_key=False)
register(REVOKE, RevokeValue, _check_revoke, key_bytes=ID_BYTES, empty_key=False)
register(VOUCH, VouchValue, _check_vouch, empty_key=False)
register(AUDIT, AuditValue, _check_audit, key_bytes=3, empty_key=False)


def node_value(cell: Cell) -> NodeValue:
    """The value of a NODE cell."""
    value: NodeValue = value_of(cell)
    return value


def retire_value(cell: Cell) -> RetireValue:
    """The value of a RETIRE cell."""
    value: RetireValue = value_of(cell)
    return value


def revoke_value(cell: Cell) -> RevokeValue:
    """The value of a REVOKE cell."""
    value: RevokeValue = value_of(cell)
    return value


def vouch_value(cell: Cell) -> VouchValue:
    """The value of a VOUCH cell."""
    value: VouchValue = value_of(cell)
    return value


def root_statements(rows: Rows) -> list[bytes]:
    """The statements on roots in the state, unproven, each once. O(statements)."""
    return list(dict.fromkeys(value_of(cell) for cell in rows.each(ROOT)))


def write_root(rows: Rows, by: Replica, root: str, statement: bytes) -> None:
    """Write a statement on a new root, with the fingerprint of its key."""
    rows.write(by, make_cell(ROOT, root, statement))


def is_about_retirements(cell: Cell) -> bool:
    """True for a cell that decides which nodes are retired."""
    return cell.kind == UNDO or (cell.kind == RETIRE and retire_value(cell).whole_node)


class Retirement(NamedTuple):
    """The content of a RETIRE cell about a node."""

    dot: Dot
    nodes: frozenset[str]
    """The retired node. A cell of another implementation may name several. Never the node of the writer."""
    ends: Mapping[Replica, int]
    """The lives of the node, each with its highest seq known to the writer."""

    def contradicts(self, other: "Retirement") -> bool:
        """True if the other was written by the node retired here, beyond the end known here."""
        life, seq = other.dot
        return life.node_id in self.nodes and seq > self.ends.get(life, 0)


def standing(retirements: Collection[Retirement]) -> set[Dot]:
    """The retirements that count: none of them contradicts another. A function of the set alone. O(their contradictions).

    1. A retirement counts if no other contradicts it, or only such as do not count.
    2. A retirement does not count if a retirement that counts contradicts it.
    3. Of retirements that contradict each other in a circle the first counts, in the order of: the number of nodes that its
       writer retires, the name of the writer, the dot. Those that contradict the first do not count.

    Not all nodes are retired by them. Else some nodes would retire each other in a circle, each after it saw that the node before
    it was retired, as nothing here contradicts another: each retirement of the circle would come before itself.
    """
    against, contradicted = _contradictions(retirements)
    targets = Counter(writer for writer, _ in {(each.dot.replica.node_id, node) for each in retirements for node in each.nodes})
    unsettled = {dot: len(by) for dot, by in against.items()}
    counting, free = set[Dot](), [dot for dot, many in unsettled.items() if not many]
    while unsettled:
        rejected: list[Dot] = []
        if free:
            first = free.pop()
        else:
            circle = _circle(unsettled, against, contradicted)
            first = min(circle, key=lambda dot: (targets[dot.replica.node_id], dot.replica.node_id, dot))
            rejected += against[first]
        if unsettled.pop(first, None) is not None:
            counting.add(first)
            rejected += contradicted[first]
        for dot in [each for each in rejected if unsettled.pop(each, None) is not None]:
            for after in contradicted[dot]:
                if after in unsettled:
                    unsettled[after] -= 1
                    free += [after] * (not unsettled[after])
    return counting


def _contradictions(retirements: Collection[Retirement]) -> tuple[dict[Dot, list[Dot]], dict[Dot, list[Dot]]]:
    """By retirement those that contradict it, and those that it contradicts."""
    on: dict[str, list[Retirement]] = {}
    for each in retirements:
        for node in each.nodes:
            on.setdefault(node, []).append(each)
    against = {each.dot: [by.dot for by in on.get(each.dot.replica.node_id, ()) if by.contradicts(each)] for each in retirements}
    contradicted: dict[Dot, list[Dot]] = {dot: [] for dot in against}
    for dot, dots in against.items():
        for by in dots:
            contradicted[by].append(dot)
    return against, contradicted


def _circle(left: Collection[Dot], against: Mapping[Dot, list[Dot]], contradicted: Mapping[Dot, list[Dot]]) -> set[Dot]:
    """Of these retirements, each contradicted by another: a strong component that only its own members contradict."""
    start = min(left)
    while True:
        before, after = _reached(start, against, left), _reached(start, contradicted, left)
        if before <= after:
            return before
        start = min(before - after)


def _reached(start: Dot, steps: Mapping[Dot, list[Dot]], left: Collection[Dot]) -> set[Dot]:
    found, waiting = set[Dot](), [start]
    while waiting:
        news = [dot for dot in steps[waiting.pop()] if dot in left and dot not in found]
        found.update(news)
        waiting += news
    return found


class Retirements(IndexedView):
    """The retirements that count, and the lives that are over. Readings are O(1), or O(retired lives) for a clock."""

    KINDS = (RETIRE, UNDO)

    infers = True
    """Ended lives are left out of messages, and inferred. Not among members that may lie: a node that has another row of a writer
    has the seq of a RETIRE cell without the cell, and two such nodes would never understand each other's clock."""

    def __init__(self, rows: Rows | None = None) -> None:
        self._watchers: list[Callable[[str], None]] = []
        super().__init__(rows)

    def watch(self, watcher: Callable[[str], None]) -> None:
        """Have a callback called with each node that is retired now, or in service again."""
        self._watchers.append(watcher)

    def _clear(self) -> None:
        self._ends: dict[Replica, dict[tuple[Replica, int], int]] = {}
        self._said: dict[Dot, Retirement] = {}
        """The retirements of nodes, also those that do not count."""
        self._undone: dict[Dot, dict[Dot, str]] = {}
        """By RETIRE cell the UNDO cells that name it, each with the node that is in service again."""
        self._counting: set[Dot] = set()
        self._nodes: dict[str, set[Dot]] = {}
        """By node the retirements that count."""
        self._contested = False
        self._over: set[Replica] | None = None
        """The lives that undone retirements ended; None: to be found out again."""
        self._retired: set[str] = set()
        self._writers: set[str] = set()
        """The nodes that were ever retired, and those that retired others: only their retirements may contradict each other."""

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        self._over = None
        for cell, stands in ((old, False), (new, True)):
            if cell is None:
                continue
            if cell.kind == UNDO:
                self._note_undo(cell, stands=stands)
            else:
                self._note(cell, stands=stands)

    def _note(self, cell: Cell, *, stands: bool) -> None:
        dot, value = Dot(cell.replica, cell.seq), retire_value(cell)
        for life in value.lives:
            ends = self._ends.setdefault(life.replica, {})
            if stands:
                ends[dot] = life.seq
            else:
                ends.pop(dot, None)
        nodes = frozenset(life.node_id for life in value.lives) - {cell.replica.node_id}
        if not value.whole_node or not nodes:
            return
        if not stands:
            self._said.pop(dot, None)
            self._settle()
            return
        self._said[dot] = Retirement(dot, nodes, {life.replica: life.seq for life in value.lives})
        contested = self._contested or cell.replica.node_id in self._retired or not nodes.isdisjoint(self._writers)
        self._retired |= nodes
        self._writers.add(cell.replica.node_id)
        if contested:
            self._settle()
        elif not self._undone.get(dot):
            self._count(dot)

    def _note_undo(self, cell: Cell, *, stands: bool) -> None:
        value: UndoValue = value_of(cell)
        for named in value.retirements:
            dot = Dot(named.replica, named.seq)
            by = self._undone.setdefault(dot, {})
            if stands:
                by[Dot(cell.replica, cell.seq)] = value.node
            else:
                by.pop(Dot(cell.replica, cell.seq), None)
            if dot in self._said:
                self._settle()

    def _count(self, dot: Dot) -> None:
        self._counting.add(dot)
        for node in self._said[dot].nodes:
            by = self._nodes.setdefault(node, set())
            by.add(dot)
            if len(by) == 1:
                self._tell(node)

    def _settle(self) -> None:
        """Find out again which retirements count."""
        told = [each for dot, each in self._said.items() if not self._undone.get(dot)]
        self._counting = standing(told)
        self._contested = len(self._counting) < len(told)
        before, self._nodes = self._nodes, {}
        for dot in self._counting:
            for node in self._said[dot].nodes:
                self._nodes.setdefault(node, set()).add(dot)
        for node in before.keys() ^ self._nodes.keys():
            self._tell(node)

    def _tell(self, node: str) -> None:
        for watcher in self._watchers:
            watcher(node)

    def __contains__(self, node_id: object) -> bool:
        """True if this node is retired."""
        return node_id in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"Retirements({self.nodes})"

    @property
    def nodes(self) -> list[str]:
        """The retired nodes, in order of their names. O(retired nodes)."""
        return sorted(self._nodes)

    def by(self, node_id: str) -> str | None:
        """The node that retired a node; None for a node in service."""
        dots = self._nodes.get(node_id)
        return min(dots).replica.node_id if dots else None

    def known_ends(self, node_id: str) -> dict[Replica, int]:
        """The lives of a node named by retirements of it, each with the highest seq in them. O(retirements)."""
        found: dict[Replica, int] = {}
        for each in self._said.values():
            if node_id in each.nodes:
                for life, seq in each.ends.items():
                    if life.node_id == node_id:
                        found[life] = max(seq, found.get(life, 0))
        return found

    def ended(self, life: Replica) -> bool:
        """True for a life of a node that was retired and is in service again: the node goes on in another life."""
        if self._over is None:
            undone = [(self._said[dot], by.values()) for dot, by in self._undone.items() if dot in self._said]
            self._over = {life for each, nodes in undone for life in each.ends if life.node_id in nodes}
        return life in self._over

    def is_over(self, life: Replica) -> bool:
        """True for a life whose end was stated: the node went on in another life, or was retired."""
        return bool(self._ends.get(life))

    def undone_by(self, node_id: str) -> list[str]:
        """The nodes that undid retirements of a node, in order. O(undone retirements)."""
        return sorted({dot.replica.node_id for by in self._undone.values() for dot, node in by.items() if node == node_id})

    def beyond(self, clock: Mapping[Replica, int]) -> bool:
        """True if a clock lacks a cell that decides which nodes are retired. O(retirements)."""
        undos = (dot for by in self._undone.values() for dot in by)
        return any(clock.get(dot.replica, 0) < dot.seq for dots in (self._said, undos) for dot in dots)

    def retire_node(self, node_id: str, *, node: str | Replica) -> list[Dot]:
        """Retire a node, in all of its lives known here; returns them. Raises `KeyError` if none is known.

        The retirements that do not count are undone for good: a decision that the operator saw stays.
        """
        clock = self._rows.clock_mark.entries
        lives = [Dot(replica, seq) for replica, seq in sorted(clock.items()) if replica.node_id == node_id]
        if not lives:
            raise UnknownName(node_id, "node")
        by = writer(node)
        self._rows.write_all(by, [*self._undo(by, "", self._void()), _retirement(node_id, lives, whole_node=True)])
        return lives

    def undo(self, node_id: str, *, node: str | Replica) -> None:
        """Undo the retirements of a node. Raises `ConstraintCrdtError` for a node in service."""
        if node_id not in self:
            raise ConstraintCrdtError(f"{node_id} is not retired")
        on = {dot for dot, each in self._said.items() if node_id in each.nodes and not self._undone.get(dot)}
        by = writer(node)
        self._rows.write_all(by, self._undo(by, node_id, on | self._void()))

    def _void(self) -> set[Dot]:
        """The retirements that do not count, though nothing undid them."""
        return {dot for dot in self._said if not self._undone.get(dot)} - self._counting

    def _undo(self, by: Replica, node_id: str, dots: Collection[Dot]) -> list[Cell]:
        names = [[dot.replica.node_id, dot.replica.incarnation, dot.seq] for dot in sorted(dots)]
        seq = self._rows.seq(by)
        parts = [names[start : start + DOTS_PER_REMOVAL] for start in range(0, len(names), DOTS_PER_REMOVAL)]
        return [make_cell(UNDO, str(seq + place), [node_id, part]) for place, part in enumerate(parts, start=1)]

    def end_lives(self, over: Iterable[Replica], *, node: str | Replica) -> None:
        """State the end of earlier lives of the writer's own node."""
        for replica in over:
            self._rows.write(writer(node), _retirement(str(replica), [Dot(replica, self._rows.seq(replica))], whole_node=False))

    def compact_clock(self, clock: Mapping[Replica, int], *, spelled_out: bool = False) -> Mapping[Replica, int]:
        """My clock for a message: without an ended life where I stand at its highest known end; else its entry is explicit, 0
        included.

        `spelled_out`: leave none out, for a reader with possibly other knowledge. Without ended lives the result is `clock`
        itself.
        """
        if not self._ends:
            return clock
        entries = dict(clock)
        for replica, ends in self._ends.items():
            if ends and not spelled_out and self.infers and clock.get(replica, 0) == max(ends.values()):
                entries.pop(replica, None)
            elif ends:
                entries.setdefault(replica, 0)
        return entries

    def expand_clock(self, entries: Mapping[Replica, int]) -> Mapping[Replica, int]:
        """The clock meant by `entries`: a missing entry is the highest end whose RETIRE cell the clock covers, else 0.

        The writer of a RETIRE cell may be an ended life with a missing entry as well, so the search repeats until nothing is
        found. Without ended lives the result is `entries` itself.
        """
        if not self._ends:
            return entries
        clock = dict(entries)
        missing = [replica for replica in self._ends if replica not in entries] if self.infers else []
        ended_by: dict[Replica, list[Replica]] = {}
        for replica in missing:
            for by, _ in self._ends[replica]:
                ended_by.setdefault(by, []).append(replica)
        while missing:
            replica = missing.pop()
            end = max((end for (by, seq), end in self._ends[replica].items() if clock.get(by, 0) >= seq), default=0)
            if end > clock.get(replica, 0):
                clock[replica] = end
                missing += ended_by.get(replica, ())
        return {replica: seq for replica, seq in clock.items() if seq}


def _retirement(key: str, lives: Iterable[Dot], *, whole_node: bool) -> Cell:
    value = [whole_node, [[life.replica.node_id, life.replica.incarnation, life.seq] for life in lives]]
    return make_cell(RETIRE, key, value)


class Cause(NamedTuple):
    """Who made a mutation, where and why. Empty: unknown."""

    actor: str = ""
    node: str = ""
    why: str = ""


class AuditEntry(NamedTuple):
    """Who caused changes of a node."""

    time: int
    """By the clock of the writing node, in ns since the epoch."""
    dot: Dot
    actor: str
    operation: str
    subject: str
    changes: int
    """The number of mutations before the dot, in the same row, that the actor caused."""
    why: str = ""


def _entry(cell: Cell) -> AuditEntry:
    value: AuditValue = value_of(cell)
    return AuditEntry(
        value.time, Dot(cell.replica, cell.seq), value.actor, value.operation, value.subject, value.changes, value.why
    )


class AuditLog(IndexedView):
    """The audit of all nodes."""

    KINDS = (AUDIT,)

    def _clear(self) -> None:
        self._seqs: dict[Replica, list[int]] = {}
        self._cells: dict[Dot, Cell] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if old is not None and self._cells.pop(Dot(old.replica, old.seq), None) is not None:
            self._seqs[old.replica].remove(old.seq)
        if new is not None:
            self._cells[Dot(new.replica, new.seq)] = new
            insort(self._seqs.setdefault(new.replica, []), new.seq)

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[AuditEntry]:
        """The entries by time, the newest last. O(entries)."""
        return iter(sorted(map(_entry, self._cells.values())))

    def __repr__(self) -> str:
        return f"AuditLog({len(self)} entries)"

    def of(self, dot: Dot) -> AuditEntry | None:
        """The entry about a mutation; None for a mutation without an entry. O(log entries of its row)."""
        seqs = self._seqs.get(dot.replica, [])
        place = bisect_right(seqs, dot.seq)
        if place == len(seqs):
            return None
        entry = _entry(self._cells[Dot(dot.replica, seqs[place])])
        return entry if entry.dot.seq - entry.changes <= dot.seq else None

    def cause(self, dot: Dot) -> Cause:
        """Who made a mutation, without an actor for a mutation without an entry. O(log entries of its row)."""
        entry, node = self.of(dot), dot.replica.node_id
        return Cause(node=node) if entry is None else Cause(entry.actor, node, entry.why)

    def note(self, actor: str, operation: str, subject: str, *, changes: int, time: int, node: Replica, why: str = "") -> None:
        """Note who caused the last `changes` mutations of the writer, in place of the oldest entry if there is no free slot."""
        seqs = self._seqs.get(node)
        slot = (int(self._cells[Dot(node, seqs[-1])].key) + 1) % AUDIT_SLOTS if seqs else 0
        texts = [cut(actor, ACTOR_BYTES), cut(operation, OPERATION_BYTES), cut(subject, SUBJECT_BYTES)]
        self._rows.write_all(node, (make_cell(AUDIT, str(slot), [time, *texts, changes, *([cut(why, WHY_BYTES)] if why else ())]),))


def cut(text: str, most: int) -> str:
    """The text, or as much of its beginning as has `most` bytes, with an ellipsis."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"
