"""Authority: the writer of a row, the rights of the writer, and ended rows (docs/design/authority.md).

A node with credentials signs its row, and takes rows from others only as their writers signed them, from any sender. Without
credentials nothing here is used.

1. The first cell of a signed row is the CERTIFICATE of its writer. A row belongs to the node that the certificate names.
2. The last cell is the SIGNATURE of the row up to there (`crdt.signed_rows`). A clock names no other seqs than those of signatures.
3. The role in the certificate says which kinds of cells the row may have. A row with another cell is refused, with its message.
4. A REVOKE cell in the row of an operator ends all rows of a key, and of the keys that it certified, at the seqs that it names.
   Longer copies are forgotten, and taken again from nodes that have the row up to its end. A revocation beyond the end of its own
   row does not count: of two operators who revoke each other, the holder of the earlier certificate wins, on every node.
5. A row without a certificate was written before the fleet had identities. It counts as far as a VOUCH cell of an operator says so;
   longer copies are left out of a transfer.
6. A row may turn out not to continue the copy here: its writer signed two different cells with one seq, as a lying node or two
   copies of a machine do. The longer row stands, of equally long ones that with the larger signature: the same on every node.

Rules kept here:

- Decisions follow from the row and its certificate alone, never from the time or the sender. So all nodes decide alike.
- `admit` changes nothing. Its result is applied as a whole, and then `adopt`ed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from constraint_crdt.crdt.cells import REMOVE, Cell, Run, core, make_cell, removed_dots, value_of
from constraint_crdt.crdt.clock import Replica, parse_replica
from constraint_crdt.crdt.limits import CELL_BYTES
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.signed_rows import (
    SETTLED,
    SIGNATURE,
    SIGNATURE_BYTES,
    SIGNATURE_HEAD,
    Hashes,
    Prediction,
    SignedRows,
    signature_mark,
    signed_text,
    unsettled,
)
from constraint_crdt.errors import ConstraintCrdtError, NotPermitted
from constraint_crdt.types.alerts import ALERT_RULE, SILENCE
from constraint_crdt.types.budgets import BUDGET
from constraint_crdt.types.counters import COUNTS, SECONDS
from constraint_crdt.types.decay import RATE
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import (
    CERTIFICATE,
    MAX_REASON,
    NODE,
    RETIRE,
    REVOKE,
    ROOT,
    UNDO,
    VOUCH,
    cut,
    retire_value,
    revoke_value,
    vouch_value,
)
from constraint_crdt.types.orset import CHANGE, SWITCH
from constraint_crdt.types.parameters import PARAMETER
from constraint_crdt.types.rollouts import ROLLOUT
from constraint_crdt.types.variables import READING, VARIABLES
from constraint_crdt.types.verdicts import VERDICT

OBSERVER: Final = "observer"
MEMBER: Final = "member"
OPERATOR: Final = "operator"

_OF_OPERATORS: Final = frozenset({ADD, ALERT_RULE, BUDGET, CHANGE, PARAMETER, REVOKE, ROLLOUT, ROOT, SILENCE, SWITCH, UNDO, VOUCH})
_OF_OBSERVERS: Final = frozenset({CERTIFICATE, SIGNATURE, SETTLED, NODE, VARIABLES})


_OF_WRITERS: Final = frozenset({COUNTS, SECONDS, RATE, VERDICT, VARIABLES, READING})
"""The kinds of which a node removes its own cells only."""

_SUSPECT: Final = {
    OPERATOR: bytes((CERTIFICATE, RETIRE, REMOVE, SETTLED, REVOKE, VOUCH)),
    MEMBER: bytes((CERTIFICATE, RETIRE, REMOVE, SETTLED, *_OF_OPERATORS)),
    OBSERVER: None,
}
"""The kinds of cells to be looked at, a byte each; None: all."""


_HEAD_OF_REVOCATION: Final = 1024
_BYTES_OF_AN_END: Final = 48
"""Bytes of a REVOKE cell, at most: without the ends, and of an end with its mark, without the name of the node."""


class MemberOfFleet(Protocol):
    """A certified node. `identity.Member` is one."""

    @property
    def node(self) -> str:
        """The name of the node."""

    @property
    def role(self) -> str:
        """`observer`, `member` or `operator`."""

    @property
    def fingerprint(self) -> str:
        """Stands for the key, in 64 hex digits."""

    @property
    def issuer(self) -> str | None:
        """The fingerprint of the operator's key that signed the certificate; None if the root did."""

    @property
    def since(self) -> int:
        """Since when the node is a member, in ns since the epoch, as the root says."""


class Credentials(Protocol):
    """The identity of a node, for signing and checking rows. `identity.credentials` has those of a certificate."""

    @property
    def member(self) -> MemberOfFleet:
        """The node itself."""

    @property
    def chain(self) -> bytes:
        """The certificates of the node, for its CERTIFICATE cell."""

    def sign(self, text: bytes) -> bytes:
        """The signature of a text, 64 bytes."""

    def read(self, chain: bytes) -> MemberOfFleet:
        """The member that certificates name. Raises `ConstraintCrdtError` for certificates of no member of the fleet."""

    def verifies(self, member: MemberOfFleet, signature: bytes, text: bytes) -> bool:
        """True if the signature of the text is by the key of the member."""


@dataclass(slots=True)
class AdmittedRuns:
    """The runs of a transfer, checked."""

    runs: list[Run] = field(default_factory=list)
    """The runs to apply."""
    predictions: list[Prediction] = field(default_factory=list)
    replaced: set[Replica] = field(default_factory=set)
    """Rows that take the place of other rows of the same writer, see rule 6."""
    own: "OwnReplaced | None" = None
    """The row of this node among them."""
    doubted: set[Replica] = field(default_factory=set)
    """Rows that do not continue their copies here. The transfer is not to be applied; the sender is asked for them from 0."""
    by_vouch: set[Replica] = field(default_factory=set)
    """Rows without a certificate for which an operator vouches."""
    stripped: bool = False
    """Runs beyond the end of a revoked row were left out."""


@dataclass(slots=True)
class Fork:
    """Two rows of one writer were seen."""

    replica: Replica
    node: str
    seqs: tuple[int, int]
    """The ends of both rows."""


class _End(NamedTuple):
    """The end of a row."""

    seq: int
    mark: bytes = b""
    """The signature there (`signature_mark`); empty for any."""

    def excludes(self, seq: int, signature: Cell | None) -> bool:
        """True if a row of this length goes on beyond the end, or is another row of the same writer."""
        if seq != self.seq or not self.mark or signature is None:
            return seq > self.seq
        return signature_mark(signature) != self.mark


_seq_of = attrgetter("seq")
_NO_END: Final = _End(2**63)
_END_AT_ONCE: Final = _End(0)
_Ends = Mapping[str, Mapping[Replica, _End]]
"""The ends of the rows by each revoked key; rows that are left out end at once."""


class OwnReplaced(NamedTuple):
    """A row of this node that was replaced by a longer row of the same key: this node had been put back, or runs twice."""

    replica: Replica
    cells: Sequence[Cell]
    """The cells of the former row that are not in the other row."""
    resumed: int = 0
    """The seq of the former row at the start of the process, if it was that of the present life."""


class Authority:
    """The signatures and rights of the rows of a node."""

    def __init__(self, rows: Rows, fleet: str, credentials: Credentials) -> None:
        self._rows = rows
        self._fleet = fleet
        self._credentials = credentials
        self._signed: SignedRows = rows.follow_signatures()
        self._members: dict[Replica, MemberOfFleet] = {}
        """The writers of rows, as far as they were asked for."""
        self._ends: _Ends = {}
        self._moved = False
        """The ends are to be computed again."""
        self._enforced = True
        """No row in the state is beyond its end. So only a change of the ends takes a look at all rows."""
        self._revoked_nodes: tuple[_Ends, Sequence[Replica], Set[str]] = {}, (), frozenset()
        """The revoked nodes, with the ends and the rows of which they are the reading."""
        self._by_vouch: set[Replica] = set()
        self._own_replaced: OwnReplaced | None = None
        self.forks: dict[Replica, Fork] = {}
        """The rows of which two versions were seen."""
        self.refused = 0
        """Transfers refused for a signature, a certificate or a right."""
        self.on_fork: Callable[[Fork], None] | None = None
        self.learn_root: Callable[[bytes], bool] | None = None
        """Takes the value of a ROOT cell. True if it is proven, and more certificates can be read by it."""
        rows.permits = self._check_own
        rows.watch(REVOKE, self._revocation_changed, self._restart)

    # --- the local row -----------------------------------------------------------------------------------------------------

    @property
    def member(self) -> MemberOfFleet:
        """This node."""
        return self._credentials.member

    def certificate(self) -> Cell:
        """The first cell of a life of this node."""
        return make_cell(CERTIFICATE, "", self._credentials.chain)

    def is_own(self, replica: Replica) -> bool:
        """True if a row in the state was begun under the present key and role of this node."""
        member, own = self.member_of(replica), self.member
        return member is not None and (member.fingerprint, member.role) == (own.fingerprint, own.role)

    def begin(self, replica: Replica) -> None:
        """Begin the row of a new life of this node with its certificate."""
        self._signed.begin(replica)
        self._rows.write(replica, self.certificate())

    def seal(self, replica: Replica) -> bool:
        """Sign the row of this node up to its last cell. True if a cell was written, else it was signed already."""
        rows = self._rows
        seq = rows.seq(replica)
        last = rows.get(SIGNATURE, "", replica)
        if not seq or (last is not None and last.seq == seq) or replica not in self._signed:
            return False
        settled = self._signed.settled_cells(replica, rows.limits.stubs)
        if settled:
            rows.write_all(replica, settled)
            seq += len(settled)
        text = signed_text(self._fleet, replica, seq + 1, self._signed.root(replica))
        rows.sign(replica, Cell(SIGNATURE, "", SIGNATURE_HEAD + self._credentials.sign(text)))
        return True

    def _check_own(self, replica: Replica, cells: Sequence[Cell]) -> None:
        """Refuse cells beyond the role of this node, before the write."""
        own = self._credentials.member
        suspect = _SUSPECT[own.role]
        if (suspect is None or core.of_kinds(cells, suspect)) and replica.node_id == own.node:
            self._check_rights(own, replica, cells)

    # --- readings ----------------------------------------------------------------------------------------------------------

    def member_of(self, replica: Replica) -> MemberOfFleet | None:
        """The writer of a row in the state; None for a row without a valid certificate."""
        found = self._members.get(replica)
        if found is None:
            cell = self._rows.get(CERTIFICATE, "", replica)
            if cell is None:
                return None
            try:
                found = self._credentials.read(value_of(cell))
            except ConstraintCrdtError:
                return None
            self._members[replica] = found
        return found

    def members(self) -> dict[Replica, MemberOfFleet]:
        """The writers of all rows in the state. O(rows)."""
        found = {replica: self.member_of(replica) for replica in self._rows.clock_entries}
        return {replica: member for replica, member in found.items() if member is not None}

    @property
    def revoked(self) -> Set[str]:
        """The fingerprints of the revoked keys."""
        self._refresh()
        return self._ends.keys()

    def is_revoked(self, member: MemberOfFleet) -> bool:
        """True if the key of a member was revoked, or the key that certified it."""
        return self.has_revocations and (member.fingerprint in self._ends or member.issuer in self._ends)

    def is_revoked_node(self, node_id: str) -> bool:
        """True for a node whose keys are all revoked. O(1), see `revoked_nodes`."""
        return node_id in self.revoked_nodes()

    def revoked_nodes(self) -> Set[str]:
        """The nodes whose keys are all revoked. O(rows) after a revocation or a new row, else O(1)."""
        if not self.has_revocations:
            return frozenset()
        ends, rows, found = self._revoked_nodes
        order = self._rows.clock_mark.order  # the same object as long as the rows are the same
        if ends is not self._ends or rows is not order:
            members = self.members()
            in_use = {replica.node_id for replica, member in members.items() if not self.is_revoked(member)}
            found = {replica.node_id for replica in members} - in_use
            self._revoked_nodes = self._ends, order, found
        return found

    def has_ended(self, replica: Replica) -> bool:
        """True if a row of this node may not go on: cells beyond its end count nowhere."""
        return self.has_revocations and self._rows.seq(replica) >= self._end(replica, self.member_of(replica), self._ends).seq

    @property
    def has_revocations(self) -> bool:
        """Whether any key is revoked."""
        if self._moved:
            self._refresh()
        return bool(self._ends)

    def revoked_by(self, fingerprint: str) -> list[str]:
        """The operators whose revocations of a key count, in order."""
        if not self.has_revocations or fingerprint not in self._ends:
            return []
        return sorted({cell.replica.node_id for cell in self._rows.held(REVOKE, fingerprint) if self._counts(cell)})

    def revoke(self, node_id: str, fingerprints: Collection[str], by: Replica, reason: str = "") -> None:
        """Revoke keys of a node: their rows end at the present state. Raises `NotPermitted` without the right.

        So do the rows of the keys that they certified, those apart of which two versions were seen: perhaps the revoked operator
        certified the name of an honest node again. They end at 0, and the other version comes back.
        """
        members = self.members()
        for fingerprint in sorted(fingerprints):
            rows = [
                (member.fingerprint != fingerprint, -self._rows.seq(replica), replica)
                for replica, member in members.items()
                if member.fingerprint == fingerprint or (member.issuer == fingerprint and replica not in self.forks)
            ]
            self._rows.write(by, self._revocation(fingerprint, node_id, [replica for *_, replica in sorted(rows)], reason))

    def _revocation(self, fingerprint: str, node_id: str, replicas: Sequence[Replica], reason: str) -> Cell:
        """The cell that ends rows. Of more rows than fit into a cell the last ones end at 0: none keep a key from being revoked."""
        last = [self._rows.get(SIGNATURE, "", replica) for replica in replicas]
        ends = [[replica.node_id, replica.incarnation, self._rows.seq(replica)] for replica in replicas]
        marks = [b"" if cell is None else signature_mark(cell) for cell in last]
        room = CELL_BYTES - _HEAD_OF_REVOCATION
        for fits, end in enumerate(ends):
            room -= len(str(end[0]).encode()) + _BYTES_OF_AN_END
            if room < 0:
                ends, marks = ends[:fits], marks[:fits]
                break
        return make_cell(REVOKE, fingerprint, [node_id, ends, cut(reason, MAX_REASON), marks])

    # --- transfers ---------------------------------------------------------------------------------------------------------

    def admit_next(self, run: Run) -> Sequence[Hashes] | None:
        """Check the usual transfer, a single run from the end of a row here on. None where `admit` has to decide, or to refuse it.

        The result is for `adopt_next`, after the run was applied. All that `admit` checks is checked: the writer, its rights, the
        form of the signature, and the signature. No revocation is in question.
        """
        replica, cells = run.replica, run.cells
        member = self.member_of(replica)
        if member is None or member.node != replica.node_id or self.has_revocations or not (self._enforced and cells):
            return None
        suspect, last = _SUSPECT[member.role], cells[-1]
        if suspect is None or core.of_kinds(cells, suspect):
            return None
        signature = last.data[-SIGNATURE_BYTES:]
        if last.kind != SIGNATURE or last.seq != run.hi or last.data != SIGNATURE_HEAD + signature:
            return None
        self._rows.digest.fill(replica, cells)
        predicted = self._signed.predict_next(run)
        if predicted is None:
            return None
        hashes, root = predicted
        text = signed_text(self._fleet, replica, run.hi, root)
        return hashes if self._credentials.verifies(member, signature, text) else None

    def adopt_next(self, run: Run, hashes: Sequence[Hashes]) -> None:
        """The run of `admit_next` was applied."""
        self._signed.adopt_next(run.replica, hashes)

    def admit(self, runs: Sequence[Run], *, whole: bool = False) -> AdmittedRuns:
        """Check the runs of a transfer. `whole`: it is a Sync.

        Raises `NotPermitted` for a row that is not as its writer signed it, or that its writer may not write.
        """
        try:
            return self._admit(runs, whole=whole)
        except NotPermitted:  # perhaps for a certificate of a new root, which the transfer has the statement on
            learn = self.learn_root
            if learn is None or not sum(learn(value_of(cell)) for run in runs for cell in run.cells if cell.kind == ROOT):
                raise
            self._restart()
            return self._admit(runs, whole=whole)

    def _admit(self, runs: Sequence[Run], *, whole: bool) -> AdmittedRuns:
        rows = self._rows
        admitted = AdmittedRuns()
        plain: list[Run] = []
        for run in runs:
            known = rows.seq(run.replica)
            if run.hi <= known and not whole and run.lo:
                admitted.runs.append(run)
                continue
            rows.digest.fill(run.replica, run.cells)
            if self._is_plain(run):
                plain.append(run)
            else:
                self._admit_run(run, known, admitted, whole=whole)
        self._strip(admitted)
        if plain:
            self._admit_plain(plain, admitted)
        admitted.stripped = len(admitted.runs) + len(admitted.doubted) < len(runs)
        self._check_room(admitted)
        return admitted

    def _check_room(self, admitted: AdmittedRuns) -> None:
        """Stubs take the room of cells."""
        stubs = sum([len(each.stubs) for each in admitted.predictions])
        most = self._rows.limits.cells
        if stubs and len(self._rows) + self._signed.count() + stubs > most:
            raise ConstraintCrdtError(
                f"more than the {most} cells that this node is set to hold, with the removed ones of signed rows"
            )

    def _admit_run(self, run: Run, known: int, admitted: AdmittedRuns, *, whole: bool) -> None:
        prediction = self._checked(run, known)
        if prediction is None:
            admitted.doubted.add(run.replica)
            return
        if prediction.whole and known and run.hi >= known:
            if not self._continues(run, known):
                if not self._wins(run, known, admitted):
                    return
                admitted.replaced.add(run.replica)
            else:
                prediction = prediction._replace(superseded=self._signed.replaced_by(run, known))
        elif prediction.whole and known and not whole:
            return
        admitted.runs.append(run)
        if run.hi > known or run.replica in admitted.replaced:
            admitted.predictions.append(prediction)

    def check_proven(self, runs: Sequence[Run], admitted: AdmittedRuns) -> None:
        """Refuse rows without a certificate for which no operator vouches: for a file, whose rows are not to be left out unsaid."""
        left_out = {run.replica for run in runs if self._is_plain(run)} - {run.replica for run in admitted.runs}
        if left_out:
            raise self._refusal(f"the row of {min(left_out)} has no certificate, and no operator of the fleet vouches for it")

    def check_cells(self, cells: Iterable[Cell]) -> list[Cell]:
        """Those cells of a repair that their writers signed."""
        return [cell for cell in cells if cell.kind == SIGNATURE or self._signed.covers(cell)]

    def prepare(self, admitted: AdmittedRuns) -> None:
        """Follow the new rows of a checked transfer, right before it is applied. `Rows.apply` begins the replaced ones anew."""
        for prediction in admitted.predictions:
            replica = prediction.run.replica
            if replica not in self._signed:
                self._signed.begin(replica)

    def abandon(self, admitted: AdmittedRuns) -> None:
        """The transfer could not be applied."""
        for prediction in admitted.predictions:
            if prediction.run.replica not in self._rows:
                self._signed.forget(prediction.run.replica)

    def adopt(self, admitted: AdmittedRuns) -> bool:
        """A checked transfer was applied. True if rows beyond their ends were forgotten."""
        for replica in admitted.replaced:
            self._members.pop(replica, None)
        self._own_replaced = admitted.own or self._own_replaced
        self._by_vouch |= admitted.by_vouch
        for prediction in admitted.predictions:
            self._rows.supersede(prediction.superseded)
            self._signed.adopt(prediction)
        disproved = self._forget_disproved(admitted)
        return self.forget_ended() or disproved

    def forget_ended(self) -> bool:
        """Forget the rows that are longer than a revocation allows; nodes with the row up to its end still have it.

        O(rows) after a revocation, else O(1): later transfers are checked against the ends before they are applied.
        """
        if self._enforced:
            return False
        self._enforced = True  # first: to forget a row may end a revocation, and then there is more to look at
        self._refresh()
        if not self._ends:
            return False
        longer = [
            replica
            for replica, seq in self._rows.clock_entries.items()
            if replica.node_id != self.member.node and self._excludes(replica, seq)
        ]
        self._rows.reset(longer)
        for replica in longer:
            self._members.pop(replica, None)
        if longer:  # perhaps with a vouch
            self._rows.reset([replica for replica in self._by_vouch if self._is_unproven(replica, self._rows.seq(replica))])
            self._by_vouch.intersection_update(self._rows.clock_entries)
        return bool(longer)

    # --- rows of a time before identities ------------------------------------------------------------------------------------

    def vouch(self, by: Replica) -> int:
        """Vouch for the rows without a certificate as they are here; returns their number. For the end of a transition.

        Raises `NotPermitted` without the right.
        """
        cells = [
            make_cell(VOUCH, str(replica), [seq, self._signed.root(replica)])
            for replica, seq in self._rows.clock_entries.items()
            if self._is_unproven(replica, seq)
        ]
        self._rows.write_all(by, cells)
        return len(cells)

    @property
    def unproven(self) -> list[Replica]:
        """The rows in the state with neither a certificate nor an operator that vouches for them. O(rows)."""
        return [replica for replica, seq in self._rows.clock_entries.items() if self._is_unproven(replica, seq)]

    def _is_unproven(self, replica: Replica, seq: int) -> bool:
        if replica not in self._signed or self._rows.get(CERTIFICATE, "", replica) is not None:
            return False
        return (seq, self._signed.root(replica)) not in self._vouches(replica, self._held_vouches(replica))

    def _held_vouches(self, replica: Replica) -> list[Cell]:
        """The vouches in rows with a certificate, whose rights were checked."""
        return [cell for cell in self._rows.held(VOUCH, str(replica)) if self.member_of(cell.replica) is not None]

    def _vouches(self, replica: Replica, cells: Iterable[Cell]) -> set[tuple[int, bytes]]:
        values = [vouch_value(cell) for cell in cells if cell.key == str(replica)]
        return {(value.seq, value.root) for value in values}

    def _is_plain(self, run: Run) -> bool:
        """True if the row of a run has no certificate."""
        if run.lo == 0:
            return not run.cells or run.cells[0].kind != CERTIFICATE
        return self._rows.get(CERTIFICATE, "", run.replica) is None

    def _admit_plain(self, plain: Sequence[Run], admitted: AdmittedRuns) -> None:
        """Of runs without a certificate those from 0 for which an operator vouches, in the state or in a run taken with them.

        A row of which only the end came is doubted: it is to be sent from 0.
        """
        told = self._told(admitted, VOUCH)
        for run in plain:
            replica, known = run.replica, self._rows.seq(run.replica)
            vouches = self._vouches(replica, [*self._held_vouches(replica), *told])
            if run.lo and any(seq == run.hi for seq, _ in vouches):
                admitted.doubted.add(replica)
            if run.lo or run.hi < known:
                continue
            prediction = self._signed.predict(run, 0)
            if (run.hi, prediction.root) in vouches:
                admitted.runs.append(run)
                admitted.predictions.append(prediction)
                admitted.by_vouch.add(replica)
                if known and (known, self._signed.root(replica)) != (run.hi, prediction.root):
                    admitted.replaced.add(replica)

    def _forget_disproved(self, admitted: AdmittedRuns) -> bool:
        """Forget rows without a certificate that differ from rows newly vouched for by an operator: they are taken again, whole."""
        forgot = False
        for cell in self._told(admitted, VOUCH):
            replica, value = parse_replica(str(cell.key)), vouch_value(cell)
            if replica is None or replica not in self._signed or self._rows.seq(replica) > value.seq:
                continue
            if self._is_unproven(replica, self._rows.seq(replica)):
                self._rows.reset([replica])
                forgot = True
        return forgot

    def _told(self, admitted: AdmittedRuns, kind: int) -> list[Cell]:
        """The cells of a kind that the signatures of a transfer cover. Cells that a reader has already are not checked."""
        return [
            cell
            for each in admitted.predictions
            if each.run.replica not in admitted.by_vouch
            for cell in each.noted
            if cell.kind == kind
        ]

    # --- checks ------------------------------------------------------------------------------------------------------------

    def _checked(self, run: Run, known: int) -> Prediction | None:
        """The row after a run; None if the run does not continue the row here, although it may be of its writer."""
        member = self._writer(run)
        noted = self._check_rights(member, run.replica, run.above(known) if run.lo else run.cells)
        last = run.cells[-1] if run.cells else None
        if last is None or last.kind != SIGNATURE or last.seq != run.hi:
            raise self._refusal(f"a row of {run.replica} is not signed up to its end")
        signature = last.data[-SIGNATURE_BYTES:]
        if last.data != SIGNATURE_HEAD + signature:  # the one cell that the signature does not cover
            raise self._refusal(f"the signature of a row of {run.replica} is not in its usual form")
        if run.stubs and any(each.kind == CERTIFICATE for each in run.stubs):
            raise self._refusal(f"a row of {run.replica} without its certificate")
        prediction = self._signed.predict(run, known, noted)
        text = signed_text(self._fleet, run.replica, run.hi, prediction.root)
        if self._credentials.verifies(member, signature, text):
            return prediction
        if prediction.whole:
            raise self._refusal(f"a row of {run.replica} is not as {member.node} signed it")
        return None

    def _writer(self, run: Run) -> MemberOfFleet:
        """The member that wrote a row, by its first cell."""
        first = run.cells[0] if run.cells and run.lo == 0 else None
        if first is None:
            member = self.member_of(run.replica)
        elif first.kind != CERTIFICATE or first.seq != 1:
            raise self._refusal(f"a row of {run.replica} has no certificate")
        else:
            known = self._rows.get(CERTIFICATE, "", run.replica)
            if known is not None and known.data == first.data:
                member = self.member_of(run.replica)
            else:
                try:
                    member = self._credentials.read(value_of(first))
                except ConstraintCrdtError as error:
                    raise self._refusal(f"a row of {run.replica}: {error}") from None
        if member is None:
            raise self._refusal(f"a row of {run.replica} has no certificate")
        if member.node != run.replica.node_id:
            raise self._refusal(f"a row of {run.replica} was written by {member.node}")
        return member

    def _check_rights(self, member: MemberOfFleet, replica: Replica, cells: Sequence[Cell]) -> Sequence[Cell]:
        """Refuse cells that a role does not allow. Returns the cells that were looked at, revocations and vouches among them."""
        suspect = _SUSPECT[member.role]
        noted = cells if suspect is None else core.of_kinds(cells, suspect)
        for cell in noted:
            why = _excess(member.role, replica, cell)
            if why is not None:
                own = member.node == self.member.node
                who = "an operator node" if _excess(MEMBER, replica, cell) else "a member or operator node"
                asks = f"ask {who} of the fleet" if own else f"the row of {replica} is refused"
                raise self._refusal(f"{member.node} is {_article(member.role)} of the fleet, which may not {why}: {asks}")
        return noted

    def _continues(self, run: Run, known: int) -> bool:
        """True if a whole row is the row here, or goes on with it; False for another row of the same writer.

        Keys of stubs are not signed, so they say nothing about that. A key may have many signatures of one row.
        """
        mine = self._rows.get(SIGNATURE, "", run.replica)
        if run.hi == known and (mine is None or mine.data != run.cells[-1].data):
            return False
        return self._signed.continues(run, known)

    def _wins(self, run: Run, known: int, admitted: AdmittedRuns) -> bool:
        """Rule 6, for a row at least as long as the row here."""
        replica = run.replica
        mine = self._rows.get(SIGNATURE, "", replica)
        fork = Fork(replica, replica.node_id, (known, run.hi))
        if replica not in self.forks:
            self.forks[replica] = fork
            if self.on_fork is not None:
                self.on_fork(fork)
        if replica.node_id == self.member.node and self._writer(run).fingerprint != self.member.fingerprint:
            return False  # another key: nothing that this node wrote
        wins = run.hi > known or mine is None or value_of(run.cells[-1]) > value_of(mine)
        if wins and replica.node_id == self.member.node:
            theirs = {(cell.kind, cell.key, cell.data) for cell in run.cells}
            mine_alone = [cell for cell in self._rows.above(replica, 0) if (cell.kind, cell.key, cell.data) not in theirs]
            admitted.own = OwnReplaced(replica, mine_alone)
        return wins

    def take_own_replaced(self) -> "OwnReplaced | None":
        """The row of this node that another row of its key replaced since the last call; None without any."""
        taken, self._own_replaced = self._own_replaced, None
        return taken

    def _refusal(self, sentence: str) -> NotPermitted:
        self.refused += 1
        return NotPermitted(sentence)

    # --- revocations -------------------------------------------------------------------------------------------------------

    def _revocation_changed(self, _: Cell | None, __: Cell | None) -> None:
        self._restart()

    def _restart(self) -> None:
        self._moved, self._enforced = True, False

    def _refresh(self) -> None:
        if self._moved:
            self._moved = False
            self._ends = self._effective({})

    def _strip(self, admitted: AdmittedRuns) -> None:
        """Leave out the runs that are longer than a revocation allows, those of the transfer itself included."""
        told = self._told(admitted, REVOKE)
        if not (told or admitted.replaced or self.has_revocations):
            return
        newer = [run for run in admitted.runs if run.hi > self._rows.seq(run.replica) or run.replica in admitted.replaced]
        longer = {run.replica: run for run in newer if not self._is_plain(run)}
        writers = {replica: self._writer(run) for replica, run in longer.items()}
        ends = self._effective(writers, told, longer) if told or admitted.replaced else self._ends
        if not ends:
            return
        ended = {
            replica for replica, run in longer.items() if self._end(replica, writers[replica], ends).excludes(run.hi, run.cells[-1])
        }
        if ended:
            admitted.runs = [run for run in admitted.runs if run.replica not in ended]
            admitted.predictions = [each for each in admitted.predictions if each.run.replica not in ended]
            admitted.replaced -= ended
            admitted.stripped = True

    def _end(self, replica: Replica, member: MemberOfFleet | None, ends: _Ends) -> _End:
        """Up to where a row counts."""
        keys = () if member is None else (member.fingerprint, member.issuer or "")
        return min([ends[key].get(replica, _END_AT_ONCE) for key in keys if key in ends], key=_seq_of, default=_NO_END)

    def _excludes(self, replica: Replica, seq: int) -> bool:
        """True for a row in the state that does not count as it is."""
        end = self._end(replica, self.member_of(replica), self._ends)
        return end.excludes(seq, self._rows.get(SIGNATURE, "", replica))

    def _counts(self, cell: Cell) -> bool:
        return cell.seq <= self._end(cell.replica, self.member_of(cell.replica), self._ends).seq

    def _effective(
        self,
        writers: Mapping[Replica, MemberOfFleet],
        told: Collection[Cell] = (),
        runs: Mapping[Replica, Run] = MappingProxyType({}),
    ) -> dict[str, Mapping[Replica, _End]]:
        """The ends of the rows of each revoked key. `told`: revocations of a transfer, in `runs` by `writers`.

        In the order of the certificates: writes of a revoked operator beyond its end do not count.
        """
        candidates = []
        for cell, is_told in (*((cell, False) for cell in self._rows.each(REVOKE)), *((cell, True) for cell in told)):
            member = writers.get(cell.replica) or self.member_of(cell.replica)
            if member is not None:
                candidates.append((member.since, member.node, member.fingerprint, cell.seq, is_told, cell, member))
        ends: dict[str, Mapping[Replica, _End]] = {}
        for *_, is_told, cell, member in sorted(candidates, key=lambda each: each[:5]):
            run = runs.get(cell.replica) if is_told else None
            seq, last = (
                (run.hi, run.cells[-1]) if run else (self._rows.seq(cell.replica), self._rows.get(SIGNATURE, "", cell.replica))
            )
            end = self._end(cell.replica, member, ends)
            if cell.seq <= end.seq and not (seq == end.seq and end.excludes(seq, last)):
                value = revoke_value(cell)
                marks = value.marks or (b"",) * len(value.ends)
                named = {dot.replica: _End(dot.seq, mark) for dot, mark in zip(value.ends, marks, strict=True)}
                before = ends.get(str(cell.key))
                if before is not None:
                    named = {replica: min(before[replica], end, key=_seq_of) for replica, end in named.items() if replica in before}
                ends[str(cell.key)] = named
        return ends


_RIGHTS: Final = {
    ADD: "change constraints",
    ALERT_RULE: "change alert rules",
    BUDGET: "define budgets",
    PARAMETER: "set parameters",
    REVOKE: "revoke nodes",
    ROLLOUT: "stage constraints",
    ROOT: "replace the root",
    SILENCE: "silence alerts",
    UNDO: "undo retirements",
}


def _excess(role: str, replica: Replica, cell: Cell) -> str | None:
    """The denied right of a role, as the end of a sentence; None for an allowed cell."""
    kind = cell.kind
    if kind == RETIRE:
        value = retire_value(cell)
        own = not value.whole_node and all(life.node_id == replica.node_id for life in value.lives)
        return None if own or role == OPERATOR else "retire nodes"
    if (kind == CERTIFICATE and cell.seq > 1) or (kind == SETTLED and unsettled(cell, [1])):
        return "change its certificate"
    if kind == REMOVE and any(each.kind in _OF_WRITERS and each.replica.node_id != replica.node_id for each in removed_dots(cell)):
        return "remove what others measured"
    if role == OPERATOR:
        return None
    if kind in _OF_OPERATORS:
        return {
            ADD: "change constraints",
            ALERT_RULE: "change alert rules",
            SILENCE: "silence alerts",
            BUDGET: "define budgets",
            CHANGE: "write the history of rules",
            PARAMETER: "set parameters",
            REVOKE: "revoke nodes",
            ROLLOUT: "stage constraints",
            ROOT: "replace the root",
            SWITCH: "disable or enable constraints",
            UNDO: "undo retirements",
        }.get(kind, "vouch for rows")
    if kind == REMOVE and any(each.kind == ADD for each in removed_dots(cell)):
        return "remove constraints"
    if role == OBSERVER and kind not in _OF_OBSERVERS:
        return "write, only read"
    return None


def _article(role: str) -> str:
    return f"an {role}" if role[0] in "aeiou" else f"a {role}"
