"""Repair of a difference no message explains: two nodes at one clock with different hashes (docs/design/exchange.md#repair).

A received a message of B, which is at A's clock with another hash:

1. A audits itself (`crdt.repair`). If that mends the difference, A Acks. Else A sends the sums of its buckets (`Buckets`).
2. B audits itself. If that mends the difference, B Acks. Else B sends its own cells in the buckets that differ (`Mend`, MINE).
3. A sends its cells in these buckets, and which of B's cells it knows to be removed (EVIDENCE).
4. B has all evidence: it decides, applies the outcome and sends it (OUTCOME). A applies the same outcome, and Pings.

Rules kept here:

- Each step names the clock both are at. If that clock has moved since, or another step is expected, the step has no
  effect.
- One repair at a time, one attempt per exchange. After each attempt the next has to wait for `PAUSE` messages, and for twice as
  many after each attempt that changed nothing: a difference that cannot be repaired stays an alarm and costs little. The other side
  goes along with each attempt, but audits itself no more often than that.
- A node doubts its damaged buckets until some peer agrees with it.
- A large repair is done in pieces of bounded size, a piece per attempt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from constraint_crdt.crdt.cells import REMOVE, Cell, Run
from constraint_crdt.crdt.limits import REPAIR_BYTES
from constraint_crdt.crdt.repair import Side, audit, bucket_bit, bucket_sums, cells_in, decide, differing, named_dead, replace
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.local_replica import LocalReplica
from constraint_crdt.protocol.messages import Buckets, ConstraintDelta, Mend, MendStep
from constraint_crdt.protocol.peer_clocks import bind_runs

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
        if any(cell.kind == REMOVE or not bucket_bit(cell) & said.buckets for cell in cells):
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
