"""Nodes: their descriptions, certificates and revocations, the retirement of nodes and of single lives, and the audit of changes.

| kind | key | value |
|---|---|---|
| 5 NODE | "" | `[software version, wire version, [endpoint, …], [[label, value], …]]` |
| 6 RETIRE | node id, or a replica as text | `[whole node, [[node id, incarnation, seq], …]]`: these lives are over |
| 27 CERTIFICATE | "" | the certificates of the node, the first cell of a signed row |
| 33 VOUCH | a replica as text | `[seq, root]`: this row, written before the fleet had identities, is as it should be |
| 32 ROOT | fingerprint of the new root | the statement of two roots of the fleet that one follows the other, see `identity` |
| 30 REVOKE | fingerprint of a key | `[node id, [[node id, incarnation, seq], …], reason, [mark, …]]`: rows by this key end there |
| 31 AUDIT | slot: 0 to 999 | `[time in ns, actor, operation, subject, changes]`: the actor caused the `changes` mutations before |

A life ends in two ways: the node goes on under a new incarnation and states it (`end_lives`), or the whole node is retired for
good (`retire_node`). The cells of an ended life stand, and its counts stay counted. The effects:

- messages of a retired node are refused; its cells relayed by others are taken (refusing them makes replicas diverge);
- the clock entry of an ended life is left out of messages; `compact_clock` and `expand_clock` implement the rule.

The audit says who caused a change: a person or a token, on which node, when. An audit cell is written with the change, after it, in
the same row. Each life has `AUDIT_SLOTS` slots and overwrites the oldest, so the audit is bounded. Who wrote is a claim of the node
of the row: an audit cell proves nothing about the actor.

Certificates and revocations are read by `protocol.authority` alone; here are their forms.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping
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
from constraint_crdt.crdt.limits import ID_BYTES
from constraint_crdt.crdt.replica import Dot, Replica, writer
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.signed_rows import HASH_BYTES, ROOT_BYTES
from constraint_crdt.errors import UnknownName
from constraint_crdt.types.definition import Label, check_wire_labels
from constraint_crdt.types.view import IndexedView

NODE: Final = 5
RETIRE: Final = 6
AUDIT: Final = 31

AUDIT_SLOTS: Final = 1000
"""The entries of a life: the latest."""

ACTOR_BYTES: Final = 64
OPERATION_BYTES: Final = 24
SUBJECT_BYTES: Final = 64
"""Bytes of UTF-8 of the texts of an entry, at most. Longer texts are cut."""

CERTIFICATE: Final = 27
REVOKE: Final = 30
VOUCH: Final = 33
ROOT: Final = 32

MAX_CERTIFICATES: Final = 4096
"""Bytes of the certificates of a node, at most."""

MAX_STATEMENT: Final = 2048
"""Bytes of a statement on roots, at most."""

FINGERPRINT_CHARACTERS: Final = 64
MAX_REASON: Final = 200
"""Bytes of the reason of a revocation, at most."""


class NodeValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a NODE cell."""

    software: str
    wire: int
    endpoints: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()


class RetireValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a RETIRE cell: ended lives, each with its highest seq known to the writer."""

    whole_node: bool
    """True: the node is retired, with all of its lives. False: the node went on from these lives."""
    lives: tuple[WireDot, ...]


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


def _check_retire(_: str, value: RetireValue) -> None:
    require(bool(value.lives), "the number of lives retired")
    check_dots(value.lives)


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


def _check_audit(key: str, value: AuditValue) -> None:
    require(key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < AUDIT_SLOTS, "the slot of an audit entry")
    require_counts((value.time, value.changes), "a number of an audit entry")
    require_text(value.actor, "the actor of an audit entry", ACTOR_BYTES)
    require_text(value.operation, "the operation of an audit entry", OPERATION_BYTES)
    require_text(value.subject, "the subject of an audit entry", SUBJECT_BYTES)


register(NODE, NodeValue, _check_node, key_bytes=ID_BYTES)
register(RETIRE, RetireValue, _check_retire, key_bytes=ID_BYTES)
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


def retired_nodes(*cells: Cell | None) -> set[str]:
    """The nodes that these RETIRE cells are about: of a change, those whose readings may move."""
    return {life.node_id for cell in cells if cell is not None for life in retire_value(cell).lives}


class Retirements(IndexedView):
    """The retire cells. Readings are O(1), or O(retired lives) for a clock."""

    KINDS = (RETIRE,)

    infers = True
    """Ended lives are left out of messages, and inferred. Not among members that may lie: a node that has another row of a writer
    has the seq of a RETIRE cell without the cell, and two such nodes would never understand each other's clock."""

    def _clear(self) -> None:
        self._ends: dict[Replica, dict[tuple[Replica, int], int]] = {}
        self._nodes: dict[str, set[Dot]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if old is not None:
            self._note(old, stands=False)
        if new is not None:
            self._note(new, stands=True)

    def _note(self, cell: Cell, *, stands: bool) -> None:
        dot, value = Dot(cell.replica, cell.seq), retire_value(cell)
        for life in value.lives:
            ends = self._ends.setdefault(life.replica, {})
            if stands:
                ends[dot] = life.seq
            else:
                ends.pop(dot, None)
            if value.whole_node:
                by = self._nodes.setdefault(life.node_id, set())
                (by.add if stands else by.discard)(dot)

    def __contains__(self, node_id: object) -> bool:
        """True if this node is retired for good."""
        return bool(self._nodes.get(str(node_id)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"Retirements({self.nodes})"

    @property
    def nodes(self) -> list[str]:
        """The retired nodes, in order of their names. O(retired nodes)."""
        return sorted(node_id for node_id, by in self._nodes.items() if by)

    def by(self, node_id: str) -> str | None:
        """The node that retired a node; None for a node in service."""
        dots = self._nodes.get(node_id)
        return min(dots).replica.node_id if dots else None

    def retire_node(self, node_id: str, *, node: str | Replica) -> list[Dot]:
        """Retire a node for good, in all of its lives known here; returns them. Raises `KeyError` if none is known."""
        clock = self._rows.clock_mark.entries
        lives = [Dot(replica, seq) for replica, seq in sorted(clock.items()) if replica.node_id == node_id]
        if not lives:
            raise UnknownName(node_id, "node")
        self._write(writer(node), node_id, lives, whole_node=True)
        return lives

    def end_lives(self, over: Iterable[Replica], *, node: str | Replica) -> None:
        """State the end of earlier lives of the writer's own node."""
        for replica in over:
            self._write(writer(node), str(replica), [Dot(replica, self._rows.seq(replica))], whole_node=False)

    def _write(self, by: Replica, key: str, lives: Iterable[Dot], *, whole_node: bool) -> None:
        value = [whole_node, [[life.replica.node_id, life.replica.incarnation, life.seq] for life in lives]]
        self._rows.write(by, make_cell(RETIRE, key, value))

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


def _entry(cell: Cell) -> AuditEntry:
    value: AuditValue = value_of(cell)
    return AuditEntry(value.time, Dot(cell.replica, cell.seq), value.actor, value.operation, value.subject, value.changes)


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

    def note(self, actor: str, operation: str, subject: str, *, changes: int, time: int, node: Replica) -> None:
        """Note who caused the last `changes` mutations of the writer, in place of the oldest entry if there is no free slot."""
        seqs = self._seqs.get(node)
        slot = (int(self._cells[Dot(node, seqs[-1])].key) + 1) % AUDIT_SLOTS if seqs else 0
        texts = [cut(actor, ACTOR_BYTES), cut(operation, OPERATION_BYTES), cut(subject, SUBJECT_BYTES)]
        self._rows.write(node, make_cell(AUDIT, str(slot), [time, *texts, changes]))


def cut(text: str, most: int) -> str:
    """The text, or as much of its beginning as has `most` bytes, with an ellipsis."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"
