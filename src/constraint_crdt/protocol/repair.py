"""Repair of a difference no message explains: two nodes at one clock with different hashes (docs/design/exchange.md#repair).

A received a message of B, which is at A's clock with another hash:

1. A audits itself (`crdt.repair`). If that mends the difference, A Acks. Else A sends the sums of its buckets (`Buckets`).
2. B audits itself. If that mends the difference, B Acks. Else B sends its own cells in the buckets that differ (`Mend`, MINE).
3. A sends its cells in these buckets, and which of B's cells it knows to be removed (EVIDENCE).
4. B has all evidence: it decides, applies the outcome and sends it (OUTCOME). A applies the same outcome, and Pings.

Rules kept here:

- Each step names the clock both are at. If that clock has moved since, or another step is expected, the step has no
  effect.
- One repair at a time, and one attempt per exchange. After each attempt the next has to wait for `PAUSE` messages, and for twice as
  many after each attempt that changed nothing: a difference that cannot be repaired stays an alarm and costs little. The other side
  goes along with each attempt, but audits itself no more often than that.
- A node doubts its damaged buckets until some peer agrees with it.
- In a fleet whose rows are signed no peer decides for another: each keeps its own cells, and adds those of the peer that their
  writers signed. A removal counts only as a signed cell, too. A SIGNATURE cell that differs shows two rows of one writer
  (`authority`, rule 5): the row with the larger signature is asked for.
- A large repair is done in pieces of bounded size, a piece per attempt.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from constraint_crdt.crdt.cells import REMOVE, Cell, Run, removed_dots
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.limits import REPAIR_BYTES
from constraint_crdt.crdt.repair import (
    Side,
    Slot,
    audit,
    bucket_bit,
    bucket_sums,
    cells_in,
    decide,
    differing,
    named_dead,
    rebuild,
    replace,
)
from constraint_crdt.crdt.signed_rows import SIGNATURE
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.authority import Authority
from constraint_crdt.protocol.local_replica import LocalReplica
from constraint_crdt.protocol.messages import Buckets, ConstraintDelta, Mend, MendStep
from constraint_crdt.protocol.peers import bind_runs

PAUSE = 8
"""Messages received between the first attempt and the second."""

LONGEST_PAUSE = 1024


@dataclass(slots=True)
class Outcome:
    """The effects of a step of a repair."""

    says: Buckets | Mend | None = None
    """The message to send."""
    mended: bool = False
    agrees: bool = False
    """The statement of the peer about its state is true of the local state now."""
    diverged: bool = False
    """The peer is at the local clock and still has another hash."""
    ended: bool = False
    """The last step was taken: the hashes are to be compared."""
    asks: Collection[Replica] = ()
    """Rows that the peer is to send from 0."""


@dataclass(frozen=True, slots=True)
class _Due:
    """The step a repair expects next."""

    peer: Replica
    base: bytes
    step: MendStep
    buckets: int


class Repairs:
    """The repairs of a node, in both roles: A noticed the difference, B is told."""

    def __init__(self, node: LocalReplica) -> None:
        self._node = node
        self._due: _Due | None = None
        self._doubt = 0
        self._failures = 0
        self._not_before = 0
        self.repairs = 0
        """Repairs of damage here."""
        self.cells = 0
        """Cells restored, replaced or dropped in agreement with a peer."""

    def agreed(self) -> None:
        """Note a peer with the local hash."""
        if self._failures or self._doubt:
            self._failures = self._not_before = self._doubt = 0

    # --- A, which noticed ----------------------------------------------------------------------------------------------

    def open(self, peer: Replica, heard: int, agrees: Callable[[], bool]) -> Outcome:
        """Open a repair with a peer at the local clock. `heard`: messages received so far; `agrees`: its statement is true here."""
        if not self._begins(heard):
            return Outcome(diverged=True)
        mended = self._audit()
        if agrees():
            return Outcome(mended=mended, agrees=True)
        node, mark = self._node, self._node.state.rows.clock_mark
        self._due = _Due(peer, mark.name(node.replica), MendStep.MINE, ~0)
        says = Buckets(
            node=node.replica,
            fleet=node.fleet,
            to=peer.incarnation,
            base=mark.name(peer),
            state_hash=node.state.state_hash,
            sums=bucket_sums(node.state.rows),
        )
        return Outcome(says=says, mended=mended, diverged=True)

    # --- B, which is told ----------------------------------------------------------------------------------------------

    def compare(self, said: Buckets, heard: int) -> Outcome:
        """Answer a peer that is at the local clock with another hash and states the sums of its buckets."""
        rows = self._node.state.rows
        mended = self._begins(heard) and self._audit()
        if rows.clock_mark.name(self._node.replica) != said.base:
            return Outcome(mended=mended)
        if said.state_hash == self._node.state.state_hash:
            return Outcome(mended=mended, agrees=True)
        wrong = differing(bucket_sums(rows), said.sums)
        if not wrong:
            return Outcome(mended=mended, diverged=True)
        buckets, cells = cells_in(rows, wrong, REPAIR_BYTES)
        return Outcome(says=self._mend(said.node, MendStep.MINE, buckets, cells), mended=mended, diverged=True)

    # --- both ----------------------------------------------------------------------------------------------------------

    def take(self, said: Mend) -> Outcome:
        """Take the peer's cells in some buckets. Raises `ConstraintCrdtError`, changing nothing, for cells that do not fit."""
        due, rows = self._due, self._node.state.rows
        name = rows.clock_mark.name(self._node.replica)
        if due is None or (due.peer, due.step, due.base, said.base) != (said.node, said.step, name, name):
            return Outcome()
        if said.buckets & ~due.buckets:
            raise ConstraintCrdtError("a repair is about buckets that were not asked for")
        theirs = self._cells(said)
        if self._node.authority is not None:
            return self._take_signed(said, theirs, self._node.authority)
        if said.step is MendStep.MINE:
            return self._give_evidence(said, theirs)
        if said.step is MendStep.OUTCOME:
            self._due = None
            return Outcome(mended=self._let_stand(said.buckets, theirs), ended=True)
        return self._judge(said, theirs)

    def _give_evidence(self, said: Mend, theirs: Sequence[Cell]) -> Outcome:
        rows = self._node.state.rows
        buckets, mine = cells_in(rows, said.buckets, REPAIR_BYTES)
        dead = named_dead(rows.each(REMOVE))
        dots = [(cell.replica, cell.seq) for cell in theirs if cell.seq <= dead.get((cell.kind, cell.key, cell.replica), 0)]
        return Outcome(says=self._mend(said.node, MendStep.EVIDENCE, buckets, mine, dots))

    def _judge(self, said: Mend, theirs: Sequence[Cell]) -> Outcome:
        node, rows, buckets = self._node, self._node.state.rows, said.buckets
        mine = [cell for cell in rows.live_cells() if bucket_bit(cell) & buckets]
        dead, dots = named_dead(rows.each(REMOVE)), set(said.dead)
        for cell in mine:
            if (cell.replica, cell.seq) in dots:
                slot = (cell.kind, cell.key, cell.replica)
                dead[slot] = max(cell.seq, dead.get(slot, 0))
        stands = decide(Side(node.node_id, mine, self._doubt), Side(said.node.node_id, theirs, said.doubt), dead)
        mended = self._let_stand(buckets, stands)
        outcome = [cell for cell in rows.live_cells() if bucket_bit(cell) & buckets]
        says = self._mend(said.node, MendStep.OUTCOME, buckets, outcome)
        self._due = None
        return Outcome(says=says, mended=mended)

    def _take_signed(self, said: Mend, theirs: Sequence[Cell], authority: Authority) -> Outcome:
        """The same steps where rows are signed: each side adds its missing cells."""
        rows, self._due = self._node.state.rows, None
        signed = authority.check_cells(theirs)
        mended = False
        if said.step is not MendStep.MINE:
            revived = [cell for cell in signed if cell.kind == REMOVE and rows.get(REMOVE, cell.key, cell.replica) is None]
            dead = named_dead([*rows.each(REMOVE), *revived])
            lacking = [cell for cell in signed if cell.kind != REMOVE and self._lacks(cell, dead)]
            mended = bool(revived or lacking) and self._add(lacking, revived)
        if said.step is MendStep.OUTCOME:
            return Outcome(mended=mended, ended=True, asks=self._forked(signed))
        step = MendStep.EVIDENCE if said.step is MendStep.MINE else MendStep.OUTCOME
        mine = cells_in(rows, said.buckets, REPAIR_BYTES)[1] if step is MendStep.EVIDENCE else self._live(said.buckets)
        named = {(cell.replica, cell.seq) for cell in theirs}
        removals = [cell for cell in rows.each(REMOVE) if any((dot.replica, dot.seq) in named for dot in removed_dots(cell))]
        return Outcome(says=self._mend(said.node, step, said.buckets, [*mine, *removals]), mended=mended, asks=self._forked(signed))

    def _lacks(self, cell: Cell, dead: Mapping[Slot, int]) -> bool:
        slot = (cell.kind, cell.key, cell.replica)
        standing = self._node.state.rows.get(*slot)
        return cell.kind != SIGNATURE and cell.seq > dead.get(slot, 0) and (standing is None or standing.seq < cell.seq)

    def _add(self, lacking: Sequence[Cell], revived: Sequence[Cell]) -> bool:
        rows = self._node.state.rows
        changed = rebuild(rows, [*rows.live_cells(), *rows.each(REMOVE), *lacking, *revived])
        rows.act(revived)
        self.cells += changed
        self.repairs += bool(changed)
        return bool(changed)

    def _live(self, buckets: int) -> list[Cell]:
        return [cell for cell in self._node.state.rows.live_cells() if bucket_bit(cell) & buckets]

    def _forked(self, theirs: Sequence[Cell]) -> list[Replica]:
        """The rows with a larger signature of the same length at the peer."""
        rows, found = self._node.state.rows, []
        for cell in theirs:
            mine = rows.get(SIGNATURE, "", cell.replica) if cell.kind == SIGNATURE else None
            if mine is not None and mine.seq == cell.seq and mine.data < cell.data and cell.replica != self._node.replica:
                found.append(cell.replica)
        return found

    def _begins(self, heard: int) -> bool:
        """Note an attempt; False if it is too early."""
        if heard < self._not_before:
            return False
        self._not_before = heard + min(PAUSE << self._failures, LONGEST_PAUSE)
        self._failures += 1
        self._due = None
        return True

    def _audit(self) -> bool:
        found, doubt = audit(self._node.state.rows)
        self._doubt |= doubt
        self.repairs += found
        return found

    def _let_stand(self, buckets: int, cells: Sequence[Cell]) -> bool:
        changed = replace(self._node.state.rows, buckets, cells)
        self.cells += changed
        if changed:
            self.repairs += 1
            self._failures = 0
        return bool(changed)

    def _cells(self, said: Mend) -> list[Cell]:
        """The cells of a message, bound to their rows and digests; refused if any is in a bucket the message does not name."""
        rows = self._node.state.rows
        runs = bind_runs(said.cells.runs, None)
        for run in runs:
            rows.digest.fill(run.replica, run.cells)
            if run.hi > rows.seq(run.replica):
                raise ConstraintCrdtError(f"a repair has a cell of {run.replica} above the clock that it names")
        cells = [cell for run in runs for cell in run.cells]
        signed = self._node.authority is not None
        if any(
            (cell.kind == REMOVE and not signed) or (cell.kind != REMOVE and not bucket_bit(cell) & said.buckets) for cell in cells
        ):
            raise ConstraintCrdtError("a repair has a cell that is not in the buckets that it names")
        return cells

    def _mend(
        self, peer: Replica, step: MendStep, buckets: int, cells: Sequence[Cell], dead: Sequence[tuple[Replica, int]] = ()
    ) -> Mend:
        node, mark = self._node, self._node.state.rows.clock_mark
        if step is not MendStep.OUTCOME:
            due = MendStep.EVIDENCE if step is MendStep.MINE else MendStep.OUTCOME
            self._due = _Due(peer, mark.name(node.replica), due, buckets)
        return Mend(
            node=node.replica,
            fleet=node.fleet,
            to=peer.incarnation,
            base=mark.name(peer),
            step=step,
            buckets=buckets,
            cells=ConstraintDelta(_runs(cells)),
            doubt=self._doubt & buckets,
            dead=dead,
        )


def _runs(cells: Sequence[Cell]) -> list[Run]:
    by_row: dict[Replica, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.seq):
        by_row.setdefault(cell.replica, []).append(cell)
    return [Run(replica, 0, row[-1].seq, row) for replica, row in by_row.items()]
