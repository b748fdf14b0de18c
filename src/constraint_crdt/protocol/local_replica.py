"""The replica of the local node: its state, its time, its lives, and writes. No exchange, no I/O.

Rules of lives:

- A life of this node of which others know more than the node itself is over: the next write starts a new life.
- A write that cannot be done raises before anything has changed.
- A node with credentials begins each life with its certificate, and signs its row before any other node hears of it (`authority`).
- Readings that depend on time use hybrid time; the timestamp of a write is that of the node's own clock, or the fleet's time where
  that clock is in doubt.
- Nothing with an end is written while the clock is in doubt and the fleet's time is not known (`check_clock`).

Rules of the removal of expired adds (docs/design/state.md#lifetimes). Expiry itself is only a reading; the cells go by an ordinary
removal that names the expired adds. Any node may write the removal and duplicates do no harm, but removals should come neither
early nor from all nodes:

- An add is not removed before it has been over for twice the bound on clock skew: then all clocks within the bound agree.
- The writer of an add removes the add. If the writer is gone, the others do, later and in turn, in order of their
  names.
- A node whose own clock is in doubt removes nothing: its own clock may be ahead. Neither does a node that knows of
  others but has heard none of their clocks lately.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import SECOND, Dot, HybridClock, Replica, check_id, check_replica
from constraint_crdt.crdt.limits import DURATION_MAX, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ClockInDoubt, ConstraintCrdtError
from constraint_crdt.protocol.authority import OBSERVER, OPERATOR, Authority, Credentials
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import ADD

OTHERS_AFTER = 60 * SECOND
"""Nanoseconds each node waits longer than the node before it, for expired adds another node wrote."""

SLACK = 64
"""Kept adds of other nodes below which removed ones are not purged."""

NEVER = -1
"""No seq: the mark of a life that must not write again."""


class Edge(NamedTuple):
    """The machine of a node: a clock and a source of incarnations. The pure part is given both as functions."""

    now: Callable[[], int]
    """The time in nanoseconds since the epoch."""
    renew: Callable[[], int]
    """An incarnation no life of the node has had."""
    steady: Callable[[], int] | None = None
    """A clock of any beginning in nanoseconds, never set, that runs on while the machine sleeps; None: there is none."""


class ExpiredAdds:
    """The expired adds of a state due for removal, from the view of a node. O(log n) for each."""

    def __init__(self, state: ConstraintState, time: HybridClock, *, others_after: int = OTHERS_AFTER) -> None:
        """`others_after`: see `OTHERS_AFTER`."""
        self._state = state
        self._time = time
        self._others_after = others_after
        self._of_others: list[tuple[int, Replica, int, Cell]] = []
        self._again: list[Cell] = []
        self._most = SLACK

    def due(self, node_id: str, *, alone: bool, most: int) -> list[Cell]:
        """The adds this node is to remove now, `most` of them. `alone`: the node knows of no other node.

        Each add is returned once, except after `put_back`.
        """
        offsets = self._time.offsets
        if self._time.in_doubt or not (alone or offsets):
            return []
        over = self._time.now() - 2 * self._time.max_skew
        due, self._again = self._again[:most], self._again[most:]
        for expires_at, cell in self._state.constraints.take_expired(over, most - len(due)):
            if cell.replica.node_id == node_id:
                due.append(cell)
            else:
                heappush(self._of_others, (expires_at, cell.replica, cell.seq, cell))
        turn = 1 + sum(peer < node_id for peer in offsets)
        while self._of_others and self._of_others[0][0] <= over - turn * self._others_after and len(due) < most:
            due.append(heappop(self._of_others)[3])
        self._purge()
        return list(filter(self._stands, {(cell.replica, cell.seq): cell for cell in due}.values()))

    def put_back(self, adds: Iterable[Cell]) -> None:
        """Make adds due again whose removal failed."""
        self._again += adds

    def _stands(self, cell: Cell) -> bool:
        return self._state.rows.get(ADD, cell.key, cell.replica) is cell

    def _purge(self) -> None:
        """Drop kept adds removed meanwhile, once they may be the majority."""
        if len(self._of_others) > self._most:
            self._of_others = [each for each in self._of_others if self._stands(each[3])]
            heapify(self._of_others)
            self._most = 2 * len(self._of_others) + SLACK


class LocalReplica:
    """The state of a node and the life under which it writes.

    A write is a block: `with local as replica: ...` gives the life to write under, which is the present life, or a new life if the
    present life is over. It raises `ConstraintCrdtError` if the node is retired.
    """

    def __init__(
        self,
        replica: Replica,
        edge: Edge,
        *,
        fleet: str,
        limits: Limits,
        max_skew: float,
        credentials: Credentials | None = None,
    ) -> None:
        """`replica`: the present life. `max_skew`: the bound on the skew of clocks, in seconds. `credentials`: of this node, in a
        fleet whose rows are signed.

        Raises `ConstraintCrdtError` for values out of bounds, and for credentials of another node.
        """
        self.replica = replica
        self.node_id = replica.node_id
        """The name of the node, the same in all of its lives."""
        self.fleet = check_id(fleet, "a fleet name")
        self.time = HybridClock(edge.now, max_skew=_skew(max_skew), steady=edge.steady)
        self.state = ConstraintState(
            Rows(limits=limits), now=self.time.now, own_time=edge.now, stamp=self.time.stamp, max_skew=max_skew
        )
        self.edge = edge
        self.authority: Authority | None = None
        """The signatures and rights of the rows; None in a fleet without."""
        if credentials is not None:
            if credentials.member.node != replica.node_id:
                raise ConstraintCrdtError(f"the identity is that of {credentials.member.node}, not of {replica.node_id}")
            self.authority = Authority(self.state.rows, self.fleet, credentials)
            self.state.retirements.infers = False
        self.expired = ExpiredAdds(self.state, self.time)
        self.on_new_life: Callable[[], None] | None = None
        """Called after a new life began."""
        self.on_write: Callable[[Replica, int], None] | None = None
        """Called after each write, with the life and its seq before the write."""
        self.asks: Callable[[], Sequence[str]] = tuple
        """The nodes that this node does not hear, to be asked for in a Ping."""
        self.misses: Callable[[], bool] = bool
        """True if `asks` has any."""
        self.trouble: Callable[[], str] = str
        """The fault of this node that a Ping tells, cut to its bound; empty for none."""
        self.heard: Callable[[Sequence[str]], Sequence[tuple[str, int]]] = lambda _: ()
        """Which of some nodes this node hears, each with the ms since then."""
        self.resumed = 0
        """The seq of the present life at the start of this process; 0 for a life that began since."""
        self.written = 0
        """The seq up to which this node wrote the present life; `NEVER`: the next write starts a new life."""
        self._sealed_life: Replica | None = None
        self._sealed = 0
        """The life and its seq at the last call of `seal`: nothing is left to be signed there."""
        self._before = replica, 0

    @property
    def seq(self) -> int:
        """The seq of the row of the present life."""
        return self.state.rows.seqs.get(self.replica, 0)

    @property
    def goes_on(self) -> bool:
        """The present life may write: no other node is known to know more of this life."""
        return self.seq == self.written

    @property
    def retired_by(self) -> str | None:
        """The node that retired this node for good; None without retirement."""
        return self.state.retirements.by(self.node_id)

    @property
    def may_change_constraints(self) -> bool:
        """The role of this node allows it to add and to remove constraints."""
        return self.authority is None or self.authority.member.role == OPERATOR

    @property
    def may_count(self) -> bool:
        """The node may write counts, verdicts and other values of its own: it is in service, and no observer."""
        if self.retired_by is not None or self.revoked_by is not None or self.issuer_revoked_by is not None:
            return False
        return self.authority is None or self.authority.member.role != OBSERVER

    @property
    def revoked_by(self) -> str | None:
        """The operators that revoked the key of this node; None for a key in use."""
        if self.authority is None or not self.authority.has_revocations:
            return None
        return ", ".join(self.authority.revoked_by(self.authority.member.fingerprint)) or None

    @property
    def issuer_revoked_by(self) -> str | None:
        """The operators that revoked the key which certified this node, so that it needs a new certificate; else None."""
        if self.authority is None or not self.authority.has_revocations:
            return None
        issuer = self.authority.member.issuer
        if issuer is None:
            return None
        return ", ".join(self.authority.revoked_by(issuer)) or None

    def resume(self, incarnation: int, *, vouched: bool) -> None:
        """Go on as a life from a store, after its rows were put into the state.

        `vouched`: the rows have everything this life told others. If not, the next write starts another life; so it does if the
        life was begun without a signature, under another key, or in another role.
        """
        self.replica = check_replica(self.node_id, incarnation)
        seq = self.seq
        goes_on = vouched and (self.authority is None or not seq or self.authority.is_own(self.replica))
        self.written = seq if goes_on else NEVER
        self.resumed = seq

    def end_life(self) -> None:
        """Have the next write begin a new life."""
        self.written = NEVER

    def seal(self) -> None:
        """Sign the row up to its last write, if the fleet has signatures. Called before a message is composed."""
        if self.authority is None:
            return
        if self._sealed == self.written and self._sealed_life is self.replica:
            return
        if not self.goes_on:
            return
        before = self.written
        if self.authority.seal(self.replica):
            self.written = self.seq
            if self.on_write is not None:
                self.on_write(self.replica, before)
        self._sealed_life, self._sealed = self.replica, self.written

    def __enter__(self) -> Replica:
        replica, state, authority = self.replica, self.state, self.authority
        seq = self.seq
        retired_by = state.retirements.by(replica.node_id)
        if retired_by is not None:
            raise ConstraintCrdtError(f"node {replica.node_id} was retired by {retired_by}: start it under another name")
        has_revocations = authority is not None and authority.has_revocations
        if has_revocations:
            self._check_key(replica.node_id)
        self._before = replica, seq
        if (
            seq != self.written
            or state.retirements.ended(replica)
            or (seq and has_revocations and authority is not None and authority.has_ended(replica))
        ):
            self._start_life()
        elif not seq and authority is not None:
            authority.begin(replica)
        return self.replica

    def __exit__(self, *_: object) -> None:
        self.written = self.seq
        if self.on_write is not None:
            self.on_write(*self._before)

    def check_clock(self) -> None:
        """Raise `ClockInDoubt` if this node cannot tell the time: its clock is in doubt, and the others do not agree."""
        doubt = self.time.doubt
        if doubt is not None and not doubt.agreed:
            raise ClockInDoubt(
                f"the clock of {self.node_id} is in doubt, and too few of the others agree on the time, so what ends at a time "
                "cannot be written here: set its clock, write on another node, or leave the end out"
            )

    def note(self, actor: str, operation: str, subject: str, time: int, since: Dot | None = None, why: str = "") -> None:
        """Write an entry of the audit about the mutations of this node after `since`; None: of a change without mutations here.

        `time`: of the entry, in ns since the epoch.
        """
        with self as me:
            changes = 0 if since is None else self.written - (since.seq if since.replica == me else 0)
            self.state.audit.note(actor, operation, subject, changes=changes, time=time, node=me, why=why)

    def _check_key(self, name: str) -> None:
        """Raise `ConstraintCrdtError` if the key of this node, or the key that certified it, was revoked."""
        revoked_by = self.revoked_by
        if revoked_by is not None:
            raise ConstraintCrdtError(f"the key of node {name} was revoked by {revoked_by}: make it a new identity")
        revoked_by = self.issuer_revoked_by
        if revoked_by is not None:
            raise ConstraintCrdtError(
                f"the operator that certified {name} was revoked by {revoked_by}: writes go on with a certificate of "
                "another operator, for which this node asks by itself"
            )

    def _start_life(self) -> None:
        """Go on under a new incarnation, and record the end of the life before."""
        over, rows = self.replica, self.state.rows
        replica = check_replica(self.node_id, self.edge.renew())
        if replica in rows:
            raise ConstraintCrdtError(f"incarnation {replica.incarnation} of {self.node_id} was used before")
        if self.authority is not None:
            self.authority.begin(replica)
        self.state.retirements.end_lives([over], node=replica)
        self.replica, self.written, self.resumed = replica, rows.seq(replica), 0
        if self.on_new_life is not None:
            self.on_new_life()


def _skew(seconds: float) -> int:
    """A bound on the skew of clocks in ns. Raises `ConstraintCrdtError` for any other value."""
    if not 0 <= seconds <= DURATION_MAX:  # NaN is in no range
        raise ConstraintCrdtError(f"the bound on the skew of clocks is in seconds, 0 or more, and cannot be {seconds}")
    return round(seconds * SECOND)
