"""GossipNode: one replica and its side of the exchange, without I/O (DESIGN 3).

How an exchange runs. A asks B; whatever the order in which messages arrive, each step is one of these, and each alone is safe:

1. A `begin`s: with a Ping; or, where it knows B's last clock and is a little ahead of it, with a Delta at once.
2. B has the hash that A said: it Acks, and both know that they agree. Otherwise it sends A what A lacks above A's clock, and in
   the same message asks for the rows in which A is ahead.
3. A applies that, whole; it answers with what B asked for (a Delta against the clock that B just stated), else with an Ack.
4. B applies that and Acks. Both are equal, and both have evidence of it.

Rules kept here:

- Nothing about a peer is believed but what it stated: its clock in a Ping, Delta or Sync, its hash by stating or echoing it.
- A transfer is applied as one: nothing of it counts before its last part is there.
- A message that cannot be resolved here (it names a clock that I do not have, or starts above mine) changes nothing and is
  answered with my clock, whole.
- A message for another life of mine is dropped; its sender is told which life this is.
"""

from collections.abc import Callable, Iterable, Sequence

from constraint_crdt.crdt.clock import SECOND, ClockMark
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.crdt.replica import Dot
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.codec import decode_message
from constraint_crdt.protocol.compression import unpack
from constraint_crdt.protocol.messages import (
    DEFAULT_FLEET,
    DEFAULT_MAX_SKEW,
    Ack,
    Buckets,
    Delta,
    Gone,
    GossipMessage,
    GossipResult,
    Mend,
    Part,
    Ping,
    Resume,
    Sync,
)
from constraint_crdt.protocol.outbound import Speaker
from constraint_crdt.protocol.peer_clocks import (
    Asked,
    Peer,
    behind,
    bound,
    clock_of_applied,
    clock_of_delta,
    clock_of_ping,
    lowered,
    resolved,
)
from constraint_crdt.protocol.repair import Outcome, Repairs
from constraint_crdt.state import ConstraintState


class GossipNode(Speaker):
    """One replica of a fleet's state. Feed it messages, send what it returns."""

    def __init__(
        self,
        node_id: str,
        *,
        incarnation: int,
        now: Callable[[], int],
        renew: Callable[[], int],
        fleet: str = DEFAULT_FLEET,
        limits: Limits = DEFAULT_LIMITS,
        max_skew: float = DEFAULT_MAX_SKEW,
    ) -> None:
        """`incarnation` tells this life from every other of the node; `renew` supplies another one when this life turns out to be
        over; `now` is the time in ns since the epoch; `max_skew` how far clocks in the fleet may differ, in seconds.
        Raises `ConstraintCrdtError` for what is out of bounds.
        """
        super().__init__(node_id, incarnation=incarnation, now=now, renew=renew, fleet=fleet, limits=limits, max_skew=max_skew)
        self.rounds = 0
        """Messages received."""
        self.syncs = 0
        """Pings answered whose hash was not mine."""
        self.alarms = 0
        """Times that a peer had my clock and another hash: corruption on one of the two sides."""
        self._repairs = Repairs(self)

    @property
    def peer_count(self) -> int:
        """How many peers were ever heard from."""
        return len(self.tracker)

    @property
    def converged(self) -> bool:
        """Every known peer's last evidenced hash equals mine now."""
        return self.tracker.all_have(self.state_hash)

    @property
    def repairs(self) -> int:
        """Times that damage here was put right."""
        return self._repairs.repairs

    @property
    def cells_repaired(self) -> int:
        """Cells that were put back, replaced or taken out in agreement with a peer."""
        return self._repairs.cells

    def __str__(self) -> str:
        return (
            f"GossipNode({self.node_id}, {len(self.state.constraints)} constraints, {self.peer_count} peers, "
            f"{self.rounds} rounds, hash={self.state_hash})"
        )

    def retire(self, node_id: str) -> list[Dot]:
        """End a node for good, in all of its lives; returns the lives with the last seq known of each. Its counts stay.

        Raises `KeyError` for a node that never wrote, and `ConstraintCrdtError` for this one.
        """
        if node_id == self.node_id:
            raise ConstraintCrdtError(f"{node_id} cannot retire itself: stop it, and retire it on another node")
        if all(replica.node_id != node_id for replica in self.state.rows.clock_mark.entries):
            raise KeyError(node_id)  # before a write begins, which may start a new life first
        lives = self.write(lambda me: self.state.retirements.retire_node(node_id, node=me))
        self._forget_retired()
        return lives

    def _forget_retired(self) -> None:
        """A retired node is no peer any more: nobody waits for its agreement."""
        for node_id in self.state.retirements.nodes:
            self.tracker.forget(node_id)
            self.time.forget(node_id)

    def remove_expired(self, *, limit: int = 1_000) -> int:
        """Remove adds that expired long enough ago, `limit` at most; returns how many. `expiring` has the rules for when."""
        others = {replica.node_id for replica in self.state.rows.clock_mark.entries}.union(self.tracker)
        others -= {self.node_id, *self.state.retirements.nodes}
        adds = self._expired.due(self.node_id, alone=not others, most=limit)
        if adds:
            try:
                self.write(lambda me: self.state.constraints.remove_adds(adds, node=me))
            except ConstraintCrdtError:
                self._expired.put_back(adds)
                raise
        return len(adds)

    def collect(self, acknowledged_by: Iterable[str] | None = None) -> int:
        """Drop the removals that may be dropped; returns how many cells. Peers below the floors then need a Sync.

        `acknowledged_by`: only those that all of these peers have given evidence of, so that none of them will.
        """
        if acknowledged_by is None:
            return self.state.rows.collect()
        clocks = [self.tracker.clock(node_id) for node_id in acknowledged_by]
        mine = self.state.rows.clock_mark.entries
        upto = {replica: min([seq, *(clock[replica] if clock else 0 for clock in clocks)]) for replica, seq in mine.items()}
        return self.state.rows.collect(upto)

    def merge(self, other: ConstraintState) -> GossipResult:
        """Take in a state that came by another way than a message, such as a file. Nothing is believed of whoever made it.

        Raises `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        before = self.state.rows.seq(self.replica)
        result = GossipResult(state_changed=self.state.merge(other))
        if result.state_changed:
            self._forget_retired()
        if self.state.rows.seq(self.replica) != before:
            result.outlived = self.replica
        result.converged = self.converged
        return result

    # --- hearing -------------------------------------------------------------------------------------------------------

    def hear(self, payload: bytes) -> tuple[GossipMessage, GossipResult]:
        """Take in one message as it came: what it was, and what it led to.

        Raises `ConstraintCrdtError` for one that cannot be decoded, and as `receive` does; nothing changes then.
        """
        message = decode_message(payload)
        return message, self.receive(message)

    def receive(self, message: GossipMessage) -> GossipResult:
        """Take in one message.

        Raises `ConstraintCrdtError` for one of another fleet, one that does not fit, or one beyond a limit; nothing changes then.
        """
        if message.fleet != self.fleet:
            raise ConstraintCrdtError(f"this message is for fleet {message.fleet!r}; node {self.node_id} is in {self.fleet!r}")
        self.rounds += 1
        if message.node.node_id == self.node_id:  # from a former life of mine, or from a namesake: no peer to talk with
            return GossipResult(converged=self.converged)
        if message.to not in (None, self.replica.incarnation):
            return GossipResult(responses=self._who_i_am(message), converged=self.converged)
        if message.node.node_id in self.state.retirements:
            return self._on_retired(message)
        before = self.state.rows.seq(self.replica)
        peer = self.tracker.meet(message.node)
        result = self._hear(message, peer)
        if peer.mark is not None:
            self._sending.settle(peer.replica.node_id, peer.mark.entries)
        if result.state_changed:
            self._forget_retired()
        if self.state.rows.seq(self.replica) != before:
            result.outlived = self.replica
        if self.retired_by is not None:
            result.responses = []  # nobody takes anything from me any more
        result.converged = self.converged
        return result

    def _who_i_am(self, message: GossipMessage) -> list[GossipMessage]:
        """What I answer to a message for another life of mine, of which I take nothing: its sender has to learn of this one."""
        if isinstance(message, Part) and message.index:
            return []
        self.tracker.anyone.state(self.state.rows.clock_mark, self.state_hash)
        return [self._whole_ping(Peer(message.node))]

    def _on_retired(self, message: GossipMessage) -> GossipResult:
        """A retired node is told that it is, and nothing is taken from it; what others relay of it is."""
        if isinstance(message, Ping | Delta):
            return GossipResult(responses=[self._sync(Peer(message.node))], converged=self.converged)
        raise ConstraintCrdtError(f"node {message.node.node_id} was retired: nothing is taken from it any more")

    def _hear(self, message: GossipMessage, peer: Peer, basis: Sequence[ClockMark] = ()) -> GossipResult:
        """`basis`: clocks that the message may name beside those stated lately."""
        match message:
            case Ping():
                result = self._on_ping(message, peer)
                result.skew = self._hear_time(message)
                return result
            case Delta():
                return self._on_delta(message, peer, basis)
            case Sync():
                return self._on_sync(message, peer)
            case Ack():
                return self._on_ack(message, peer)
            case Part():
                return self._on_part(message, peer)
            case Resume() | Gone():
                return self._on_rest(message, peer)
            case Buckets():
                return self._on_repair(self._repairs.compare(message, self.rounds), peer)
            case Mend():
                return self._on_repair(self._repairs.take(message), peer)
            case _:
                raise ConstraintCrdtError(f"a node cannot receive a {type(message).__name__}")

    def _on_part(self, part: Part, peer: Peer) -> GossipResult:
        basis = self._staging.basis(peer.replica.node_id)
        data = self._staging.add(part, self.tracker.marks(peer))
        if data is None:
            self.tracker.admit(peer)
            return GossipResult(responses=self._rest(peer, anew=False) if part.pause else [])
        message = decode_message(data if part.unpacked is None else unpack(data, part.unpacked), max_bytes=None)
        if isinstance(message, Part) or (message.node, message.fleet, message.to) != (part.node, part.fleet, part.to):
            raise ConstraintCrdtError("the parts of a transfer make up a message of another sender, or to another receiver")
        return self._hear(message, peer, basis)

    def _on_rest(self, message: Resume | Gone, peer: Peer) -> GossipResult:
        """The peer asks for the rest of a transfer, or says that it has none."""
        self.tracker.admit(peer)
        if isinstance(message, Gone):
            waited = self._staging.give_up(peer.replica, message.transfer)
            return GossipResult(responses=[self.ping(peer.replica.node_id)] if waited else [])
        burst = self._sending.go_on(peer.replica, message.transfer, message.index)
        gone = Gone(node=self.replica, fleet=self.fleet, to=peer.replica.incarnation, transfer=message.transfer)
        return GossipResult(responses=[gone] if burst is None else burst)

    def _on_ping(self, ping: Ping, peer: Peer) -> GossipResult:
        theirs = self._stated_clock(ping, peer)
        self.tracker.admit(peer)
        talk = self.tracker.conversation(peer.replica.node_id)
        if theirs is None:
            return GossipResult(responses=self._my_clock(peer))
        talk.state(theirs, ping.state_hash)
        talk.common = theirs
        self.tracker.evidence(peer, theirs, ping.state_hash)
        if ping.state_hash == self.state_hash:
            self._repairs.agreed()
            return GossipResult(responses=[self._ack(peer)])
        if theirs == self.state.rows.clock_mark:
            return self._on_divergence(peer, lambda: ping.state_hash == self.state_hash)
        rest = self._rest(peer, anew=True)
        if rest:
            return GossipResult(responses=rest)
        self.syncs += 1
        return GossipResult(responses=[self._transfer(peer, theirs)])

    def _hear_time(self, ping: Ping) -> float | None:
        """Take in what time it is at the peer. How many seconds it is ahead, if that has just become too much."""
        ahead = None if ping.time is None else self.time.hear(ping.node.node_id, ping.time)
        return None if ahead is None else ahead / SECOND

    def _stated_clock(self, ping: Ping, peer: Peer) -> ClockMark | None:
        base = None if ping.base is None else self.tracker.find(peer, ping.base, self.replica)
        if ping.base is not None and base is None:
            return None
        rows = self.state.rows
        return self._bounded(clock_of_ping(ping, base, rows.clock_mark, self.state.retirements, rows.digest))

    def _bounded(self, theirs: ClockMark) -> ClockMark:
        """A clock that a peer stated, if it has no more entries than this node would hold."""
        if len(theirs.entries) > self._limits.rows:
            raise ConstraintCrdtError(f"a clock of {len(theirs.entries)} entries is more than the {self._limits.rows} rows allowed")
        return theirs

    def _on_delta(self, delta: Delta, peer: Peer, basis: Sequence[ClockMark]) -> GossipResult:
        base = self.tracker.find(peer, delta.base, self.replica) if delta.base is not None else None
        if base is None and basis:
            base = next((mark for mark in basis if mark.name(self.replica) == delta.base), None)
        if delta.base is not None and base is None:
            return self._not_for_me(peer)
        runs, asked = bound(delta.delta.runs, base), resolved(delta.behind, base)
        rows = self.state.rows
        before = rows.clock_mark
        lower = lowered(before, asked) if base == before else None
        theirs = None if lower is not None else self._bounded(clock_of_delta(delta, base, runs, asked, rows.digest))
        # It is the sender's whole state only to one who has all that it builds on, also in rows of which it brings nothing. One who
        # stands where it was made for has, and need not look through all rows.
        if theirs is not None and {replica for replica, _ in behind(before, theirs)}.difference([run.replica for run in runs]):
            return self._not_for_me(peer)
        applied = rows.apply(runs)
        if applied.gap:
            return self._not_for_me(peer)
        self.tracker.admit(peer)
        lacks: Asked | None = None
        if theirs is None and applied.exact:
            theirs, lacks = clock_of_applied(delta, rows.clock_mark, asked, lower or 0, rows.digest), asked
        elif theirs is None:
            theirs = clock_of_delta(delta, base, runs, asked, rows.digest)
        proves = None if delta.proof is None else lambda: delta.proof == self.state_hash.token(self.replica)
        return self._after_transfer(peer, theirs, applied.changed, proves, lacks)

    def _not_for_me(self, peer: Peer) -> GossipResult:
        """What I answer to a transfer that cannot be applied here: where I stand."""
        self.tracker.admit(peer)
        return GossipResult(responses=self._my_clock(peer))

    def _on_sync(self, sync: Sync, peer: Peer) -> GossipResult:
        runs = bound(sync.state.runs, None)
        if any(run.lo for run in runs):  # what it does not list would be taken for dead, also below
            raise ConstraintCrdtError("a Sync must hold every row from its start")
        theirs = ClockMark.of({run.replica: run.hi for run in runs}, self.state.rows.digest)
        self._bounded(theirs)
        applied = self.state.rows.apply(runs, whole=True)
        self.tracker.admit(peer)
        return self._after_transfer(peer, theirs, applied.changed, lambda: sync.state_hash == self.state_hash)

    def _after_transfer(
        self,
        peer: Peer,
        theirs: ClockMark,
        changed: bool,
        proves: Callable[[], bool] | None,
        lacks: Asked | None = None,
    ) -> GossipResult:
        """The sender's state is in: say what it lacks, or that we are equal. `proves`: the hash that it stated is mine.

        `lacks`: its entries where I am ahead, if they are known.
        """
        mine = self.state.rows.clock_mark
        talk = self.tracker.conversation(peer.replica.node_id)
        if theirs != mine:
            talk.state(theirs, None)
            talk.common = theirs
            self.tracker.evidence(peer, theirs, None)
            return GossipResult(responses=[self._transfer(peer, theirs, lacks)], state_changed=changed)
        if proves is not None and not proves():
            result = self._on_divergence(peer, proves)
            result.state_changed |= changed
            return result
        self.tracker.evidence(peer, mine, self.state_hash if proves is not None else None)
        return GossipResult(responses=[self._ack(peer)], state_changed=changed)

    def _on_ack(self, ack: Ack, peer: Peer) -> GossipResult:
        said = self.tracker.find_hash(peer, ack.answers, self.replica)
        self.tracker.admit(peer)
        if said is not None:
            talk = self.tracker.conversation(peer.replica.node_id)
            talk.state(said.mark, said.hash)
            talk.common = said.mark
            self.tracker.evidence(peer, said.mark, said.hash)
            if said.hash == self.state_hash:
                self._repairs.agreed()
        return GossipResult()

    def _on_divergence(self, peer: Peer, agrees: Callable[[], bool]) -> GossipResult:
        """The peer is at my clock with another hash: one of us is damaged."""
        self.alarms += 1
        return self._on_repair(self._repairs.open(peer.replica, self.rounds, agrees), peer, alarm=False)

    def _on_repair(self, outcome: Outcome, peer: Peer, *, alarm: bool = True) -> GossipResult:
        """`alarm`: count it, if the peer says that we differ and it is, or was, so."""
        self.tracker.admit(peer)
        diverged = outcome.diverged or outcome.agrees
        if alarm and diverged:
            self.alarms += 1
        result = GossipResult(state_changed=outcome.mended, mended=outcome.mended, diverged=diverged)
        if outcome.says is not None:
            result.responses = [outcome.says]
        elif outcome.agrees:
            self._repairs.agreed()
            self.tracker.evidence(peer, self.state.rows.clock_mark, self.state_hash)
            result.responses = [self._ack(peer)]
        elif outcome.ended:
            result.responses = [self.ping(peer.replica.node_id)]
        return result


def exchange(a: GossipNode, b: GossipNode) -> bool:
    """Let `a` begin with `b` and pass messages until neither has more to say. True if either changed."""
    changed = False
    waiting: list[tuple[GossipNode, GossipMessage]] = [(b, a.begin(b.node_id))]
    while waiting:
        reader, message = waiting.pop(0)
        result = reader.receive(message)
        changed = changed or result.state_changed
        other = a if reader is b else b
        waiting += [(other, response) for response in result.responses]
    return changed
