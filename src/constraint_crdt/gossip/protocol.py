"""GossipNode: one replica and its side of the exchange, without I/O (DESIGN 3).

How an exchange runs. A asks B; whatever the order in which messages arrive, each step is one of these, and each alone is safe:

1. A `begin`s: with a Ping; or, where it knows B's last clock and is a little ahead of it, with a Delta at once.
2. B has the hash that A said: it Acks, and both know that they agree. Otherwise it sends A what A lacks above A's clock, and in
   the same message asks for the rows in which A is ahead.
3. A applies that, whole; it answers with what B asked for (a Delta against the clock that B just stated), else with an Ack.
4. B applies that and Acks. Both are equal, and both have evidence of it.

Rules kept here:

- Nothing about a peer is believed but what it stated: its clock in a Ping, Delta or Sync, its hash by stating or echoing it.
- A transfer is the sender's whole state above one clock, made at one instant, and applied as one.
- A message that cannot be resolved here (it names a clock that I do not have, or starts above mine) changes nothing and is
  answered with my clock, whole.
- A message for another life of mine is dropped; its sender is told which life this is.
"""

from collections.abc import Callable, Iterable, Sequence

from constraint_crdt.core.clock import ClockMark, VectorClock
from constraint_crdt.core.codec import UnboundRun, resolve
from constraint_crdt.core.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.core.replica import Dot, Replica
from constraint_crdt.core.run import Run
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.codec import decode_message
from constraint_crdt.gossip.local import LocalReplica
from constraint_crdt.gossip.messages import (
    DEFAULT_FLEET,
    Ack,
    ConstraintDelta,
    Delta,
    Entry,
    GossipMessage,
    GossipResult,
    Part,
    Ping,
    Sync,
)
from constraint_crdt.gossip.staging import Staging
from constraint_crdt.gossip.tracker import DeltaTracker, Peer

UNASKED = 32
"""At most so many mutations are sent to a peer that did not just ask. It may have most of what its last known clock lacks from
others by now: with no bound, 250 random exchanges among 50 nodes carried 1.21 copies of each item, with this one 1.00."""


class GossipNode(LocalReplica):
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
    ) -> None:
        """`incarnation` tells this life from every other of the node; `renew` supplies another one when this life turns out to be
        over; `now` is the time in ns since the epoch. Raises `ConstraintCrdtError` for a name or incarnation out of bounds.
        """
        super().__init__(node_id, incarnation=incarnation, now=now, renew=renew, fleet=fleet, limits=limits)
        self.tracker = DeltaTracker(limits)
        self.rounds = 0
        """Messages received."""
        self.syncs = 0
        """Pings answered whose hash was not mine."""
        self.alarms = 0
        """Times that a peer had my clock and another hash: corruption on one of the two sides."""
        self._limits = limits
        self._staging = Staging(limits.staged_bytes)

    @property
    def peer_count(self) -> int:
        """How many peers were ever heard from."""
        return len(self.tracker)

    @property
    def converged(self) -> bool:
        """Every known peer's last evidenced hash equals mine now."""
        return self.tracker.all_have(self.state_hash)

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
        lives = self._write(lambda me: self.state.retirements.retire_node(node_id, node=me))
        self._forget_retired()
        return lives

    def _forget_retired(self) -> None:
        """A retired node is no peer any more: nobody waits for its agreement."""
        for node_id in self.state.retirements.nodes:
            self.tracker.forget(node_id)

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

    # --- saying --------------------------------------------------------------------------------------------------------

    def ping(self, peer: str | None = None) -> Ping:
        """My hash and clock; the clock as changes against one that `peer` is known to have, if there is one."""
        mark, known = self.state.rows.clock_mark, self.tracker.peer(peer) if peer is not None else None
        if known is None:
            self.tracker.anyone.state(mark, self.state_hash)
            return self._whole_ping(None)
        talk = self.tracker.conversation(known.replica.node_id)
        talk.state(mark, self.state_hash)
        if talk.common is None:
            return self._whole_ping(known)
        return Ping(
            node=self.replica,
            fleet=self.fleet,
            clock=self.clock,
            state_hash=self.state_hash,
            base=talk.common.name(known.replica),
            basis=talk.common,
            changes=_changes(talk.common, mark),
        )

    def begin(self, peer: str) -> GossipMessage:
        """The first message of an exchange: a Delta where I know the peer's clock and am little ahead of it, else a Ping."""
        known = self.tracker.peer(peer)
        if known is not None and known.mark is not None:
            rows = self.state.rows
            stated = any(each.mark == known.mark for each in self.tracker.conversation(peer).statements)
            if stated and 0 < rows.ahead_of(known.mark.entries) <= UNASKED and rows.serves(known.mark.entries):
                return self._transfer(known, known.mark)
        return self.ping(peer)

    def delta_since(self, clock: VectorClock) -> Delta | Sync:
        """Everything above `clock`, for whoever is there: a Delta, or a Sync where `clock` is below a floor."""
        rows, entries = self.state.rows, clock.as_dict()
        if not rows.serves(entries):
            return self._sync(None)
        return Delta(node=self.replica, fleet=self.fleet, clock=self.clock, delta=ConstraintDelta(rows.since(entries)))

    def _whole_ping(self, peer: Peer | None, *, spelled_out: bool = False) -> Ping:
        """My whole clock. Ended lives are left out where the reader can tell, unless it is to be `spelled_out`."""
        entries = self.state.rows.clock_mark.entries
        return Ping(
            node=self.replica,
            fleet=self.fleet,
            to=peer.replica.incarnation if peer else None,
            clock=self.clock,
            state_hash=self.state_hash,
            changes=list((entries if spelled_out else self.state.retirements.spoken(entries)).items()),
        )

    def _my_clock(self, peer: Peer) -> list[GossipMessage]:
        """What I answer to something that cannot be applied here: where I stand, spelled out so that nothing is left to infer."""
        talk = self.tracker.conversation(peer.replica.node_id)
        talk.common = None
        talk.state(self.state.rows.clock_mark, self.state_hash)
        return [self._whole_ping(peer, spelled_out=True)]

    def _transfer(self, peer: Peer, theirs: ClockMark) -> Delta | Sync:
        """What `peer` lacks at its clock `theirs`, and what I lack of it."""
        rows = self.state.rows
        mine = rows.clock_mark
        self.tracker.conversation(peer.replica.node_id).state(mine, self.state_hash)
        if not rows.serves(theirs.entries):
            return self._sync(peer)
        return Delta(
            node=self.replica,
            fleet=self.fleet,
            clock=self.clock,
            base=theirs.name(peer.replica),
            basis=theirs,
            proof=self.state_hash.token(peer.replica),
            delta=ConstraintDelta(rows.since(theirs.entries)),
            behind=[(replica, mine.entries.get(replica, 0)) for replica in _ahead(theirs, mine)],
        )

    def _sync(self, peer: Peer | None) -> Sync:
        return Sync(
            node=self.replica,
            fleet=self.fleet,
            to=peer.replica.incarnation if peer else None,
            clock=self.clock,
            state_hash=self.state_hash,
            state=ConstraintDelta(self.state.rows.whole()),
        )

    # --- hearing -------------------------------------------------------------------------------------------------------

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
        result = self._hear(message, self.tracker.meet(message.node))
        if result.state_changed:
            self._forget_retired()
        if self.state.rows.seq(self.replica) != before:
            result.outlived = self.replica
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
        if isinstance(message, Ping):
            return GossipResult(responses=[self._sync(Peer(message.node))], converged=self.converged)
        raise ConstraintCrdtError(f"node {message.node.node_id} was retired: nothing is taken from it any more")

    def _hear(self, message: GossipMessage, peer: Peer) -> GossipResult:
        match message:
            case Ping():
                return self._on_ping(message, peer)
            case Delta():
                return self._on_delta(message, peer)
            case Sync():
                return self._on_sync(message, peer)
            case Ack():
                return self._on_ack(message, peer)
            case Part():
                return self._on_part(message, peer)
            case _:
                raise ConstraintCrdtError(f"a node cannot receive a {type(message).__name__}")

    def _on_part(self, part: Part, peer: Peer) -> GossipResult:
        data = self._staging.add(part)
        if data is None:
            self.tracker.admit(peer)
            return GossipResult()
        message = decode_message(data, max_bytes=None)
        if isinstance(message, Part) or (message.node, message.fleet, message.to) != (part.node, part.fleet, part.to):
            raise ConstraintCrdtError("the parts of a transfer make up a message of another sender, or to another receiver")
        return self._hear(message, peer)

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
            return GossipResult(responses=[self._ack(peer)])
        if theirs == self.state.rows.clock_mark:
            return self._alarm()
        self.syncs += 1
        return GossipResult(responses=[self._transfer(peer, theirs)])

    def _stated_clock(self, ping: Ping, peer: Peer) -> ClockMark | None:
        digest = self.state.rows.digest
        if ping.base is None:
            spoken = dict(_resolved(ping.changes, None)) or (ping.clock or VectorClock()).as_dict()
            return self._bounded(ClockMark.of(self.state.retirements.heard(spoken), digest))
        base = self.tracker.find(peer, ping.base, self.replica)
        return base and self._bounded(base.changed(_resolved(ping.changes, base), digest))

    def _bounded(self, theirs: ClockMark) -> ClockMark:
        """A clock that a peer stated, if it has no more entries than this node would hold."""
        if len(theirs.entries) > self._limits.rows:
            raise ConstraintCrdtError(f"a clock of {len(theirs.entries)} entries is more than the {self._limits.rows} rows allowed")
        return theirs

    def _on_delta(self, delta: Delta, peer: Peer) -> GossipResult:
        base = self.tracker.find(peer, delta.base, self.replica) if delta.base is not None else None
        if delta.base is not None and base is None:
            self.tracker.admit(peer)
            return GossipResult(responses=self._my_clock(peer))
        runs = _bound(delta.delta.runs, base)
        digest = self.state.rows.digest
        if base is not None:
            ends = [(run.replica, run.hi) for run in runs]
            theirs = base.changed([*ends, *_resolved(delta.behind, base)], digest)
        else:
            theirs = ClockMark.of((delta.clock or VectorClock()).as_dict(), digest)
        self._bounded(theirs)
        applied = self.state.rows.apply(runs)
        self.tracker.admit(peer)
        if applied.gap:
            return GossipResult(responses=self._my_clock(peer))
        proven = delta.proof is not None and delta.proof == self.state_hash.token(self.replica)
        return self._after_transfer(peer, theirs, changed=applied.changed, proven=proven if delta.proof else None)

    def _on_sync(self, sync: Sync, peer: Peer) -> GossipResult:
        runs = _bound(sync.state.runs, None)
        if any(run.lo for run in runs):  # what it does not list would be taken for dead, also below
            raise ConstraintCrdtError("a Sync must hold every row from its start")
        theirs = ClockMark.of({run.replica: run.hi for run in runs}, self.state.rows.digest)
        self._bounded(theirs)
        applied = self.state.rows.apply(runs, whole=True)
        self.tracker.admit(peer)
        return self._after_transfer(peer, theirs, changed=applied.changed, proven=sync.state_hash == self.state_hash)

    def _after_transfer(self, peer: Peer, theirs: ClockMark, *, changed: bool, proven: bool | None) -> GossipResult:
        """The sender's state is in: say what it lacks, or that we are equal. `proven`: the hashes agree (None: it did not say)."""
        mine = self.state.rows.clock_mark
        talk = self.tracker.conversation(peer.replica.node_id)
        if theirs != mine:
            talk.state(theirs, None)
            talk.common = theirs
            self.tracker.evidence(peer, theirs, None)
            return GossipResult(responses=[self._transfer(peer, theirs)], state_changed=changed)
        if proven is False:
            alarm = self._alarm()
            alarm.state_changed = changed
            return alarm
        self.tracker.evidence(peer, mine, self.state_hash if proven else None)
        return GossipResult(responses=[self._ack(peer)], state_changed=changed)

    def _ack(self, peer: Peer) -> Ack:
        """Say that I have the hash that the peer stated, which is mine."""
        mine = self.state.rows.clock_mark
        talk = self.tracker.conversation(peer.replica.node_id)
        talk.state(mine, self.state_hash)
        talk.common = mine
        token = self.state_hash.token(peer.replica)
        return Ack(node=self.replica, fleet=self.fleet, clock=self.clock, answers=token, state_hash=self.state_hash)

    def _on_ack(self, ack: Ack, peer: Peer) -> GossipResult:
        said = self.tracker.find_hash(peer, ack.answers, self.replica)
        self.tracker.admit(peer)
        if said is not None:
            talk = self.tracker.conversation(peer.replica.node_id)
            talk.state(said.mark, said.hash)
            talk.common = said.mark
            self.tracker.evidence(peer, said.mark, said.hash)
        return GossipResult()

    def _alarm(self) -> GossipResult:
        self.alarms += 1
        return GossipResult(diverged=True)


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


def _ahead(theirs: ClockMark, mine: ClockMark) -> list[Replica]:
    """The rows in which they are ahead of me."""
    if theirs.entries is mine.entries:
        return []
    get = mine.entries.get
    return [replica for replica, seq in theirs.entries.items() if seq > get(replica, 0)]


def _changes(base: ClockMark, now: ClockMark) -> list[Entry]:
    if base == now:
        return []
    before, after = base.entries, now.entries
    changes: list[Entry] = [(replica, seq) for replica, seq in after.items() if before.get(replica, 0) != seq]
    changes += [(replica, 0) for replica in before if replica not in after]
    return changes


def _resolved(entries: Sequence[Entry], base: ClockMark | None) -> list[tuple[Replica, int]]:
    return [(ref if isinstance(ref, Replica) else resolve(ref, base), seq) for ref, seq in entries]


def _bound(runs: Sequence[Run | UnboundRun], base: ClockMark | None) -> list[Run]:
    bound = [run if isinstance(run, Run) else run.bind(base) for run in runs]
    if len({run.replica for run in bound}) != len(bound):
        raise ConstraintCrdtError("a transfer has two runs of one replica")
    return bound
