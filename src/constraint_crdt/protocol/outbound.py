"""Speaker: what a node has to say, and to whom it said what. Nothing here changes the state.

Rules kept here:

- A transfer is the sender's whole state above one clock, made at one instant.
- A clock is named where the peer has shown to know it, and spelled out where not. What can be named is noted as it is said.
"""

from collections.abc import Callable, Sequence

from constraint_crdt.crdt.clock import ClockMark, VectorClock
from constraint_crdt.crdt.limits import MESSAGE_BYTES, Limits
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.protocol.local_replica import LocalReplica
from constraint_crdt.protocol.messages import Ack, ConstraintDelta, Delta, GossipMessage, Ping, Resume, Sync
from constraint_crdt.protocol.peer_clocks import DeltaTracker, Peer, behind, changed_entries
from constraint_crdt.protocol.transfers import Sending, Staging

UNASKED = 4
"""At most so many mutations are sent to a peer that did not just ask. It may have most of what its last known clock lacks from
others by now: in fleets of 32 and 100 in rounds, copies of each item received were 1.17 and 1.11 with 32, 1.003 and 1.01 with 4,
while each saves the same few Pings."""


class Speaker(LocalReplica):
    """One replica that can speak of its state."""

    def __init__(
        self,
        node_id: str,
        *,
        incarnation: int,
        now: Callable[[], int],
        renew: Callable[[], int],
        fleet: str,
        limits: Limits,
        max_skew: float,
    ) -> None:
        """See `GossipNode`."""
        super().__init__(node_id, incarnation=incarnation, now=now, renew=renew, fleet=fleet, limits=limits, max_skew=max_skew)
        self._limits = limits
        self.tracker = DeltaTracker(limits)
        self._staging = Staging(limits.staged_bytes)
        self._sending = Sending(limits)

    def _start_life(self) -> None:
        super()._start_life()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Drop what is on its way to, or from, the life before."""
        self._staging.clear()
        self._sending.clear()

    def forget_peers(self) -> None:
        """Know nothing of any peer any more, as after a restart: the next exchange with each begins with a whole Ping."""
        self.tracker = DeltaTracker(self._limits)
        self._begin_anew()

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
            changes=changed_entries(talk.common, mark),
            time=self.time.own(),
        )

    def begin(self, peer: str) -> GossipMessage:
        """The first message of an exchange: a question for the rest of what the peer began to send; a Delta where I know its clock
        and am little ahead of it; else a Ping.
        """
        known = self.tracker.peer(peer)
        rest = self._rest(known, anew=True) if known is not None else []
        if rest:
            return rest[0]
        if known is not None and known.mark is not None:
            rows = self.state.rows
            few = rows.clock_mark.count - known.mark.count <= UNASKED  # it is more than that if not, and that takes O(rows) to tell
            stated = few and any(each.mark == known.mark for each in self.tracker.conversation(peer).statements)
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
        spoken = self.state.retirements.compact_clock(entries, spelled_out=spelled_out)
        return Ping(
            node=self.replica,
            fleet=self.fleet,
            to=peer.replica.incarnation if peer else None,
            clock=self.clock,
            state_hash=self.state_hash,
            changes=() if spoken is entries else list(spoken.items()),
            time=self.time.own(),
        )

    def _my_clock(self, peer: Peer) -> list[GossipMessage]:
        """What I answer to something that cannot be applied here: where I stand, spelled out so that nothing is left to infer."""
        talk = self.tracker.conversation(peer.replica.node_id)
        talk.common = None
        talk.state(self.state.rows.clock_mark, self.state_hash)
        return [self._whole_ping(peer, spelled_out=True)]

    def _transfer(self, peer: Peer, theirs: ClockMark, lacks: Sequence[tuple[Replica, int]] | None = None) -> Delta | Sync:
        """What `peer` lacks at its clock `theirs`, and what I lack of it. `lacks`: its entries where I am ahead, if known."""
        rows = self.state.rows
        mine, state_hash = rows.clock_mark, rows.state_hash
        self.tracker.conversation(peer.replica.node_id).state(mine, state_hash)
        if not rows.serves(theirs.entries):
            return self._sync(peer)
        runs = rows.since(theirs.entries) if lacks is None else rows.runs(lacks)
        more = sum([run.hi - run.lo for run in runs])
        return Delta(
            node=self.replica,
            fleet=self.fleet,
            clock=self.clock,
            base=theirs.name(peer.replica),
            basis=theirs,
            proof=state_hash.token(peer.replica),
            delta=ConstraintDelta(runs),
            behind=behind(mine, theirs, more - (mine.count - theirs.count)),
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

    def encoded(self, message: GossipMessage, peer: str, max_bytes: int = MESSAGE_BYTES) -> list[bytes]:
        """A message to `peer` as bytes, none of them longer than `max_bytes`: itself, or a first burst of parts.

        The rest of it is kept, and goes out when the peer asks for it.
        """
        known = self.tracker.peer(peer)
        return self._sending.encoded(message, known.replica if known else None, max_bytes)

    def _rest(self, peer: Peer, *, anew: bool) -> list[GossipMessage]:
        """The question for the rest of what a peer began to send, if there is one to be put."""
        asked = self._staging.ask(peer.replica, anew=anew)
        if asked is None:
            return []
        transfer, index = asked
        return [Resume(node=self.replica, fleet=self.fleet, to=peer.replica.incarnation, transfer=transfer, index=index)]

    def _ack(self, peer: Peer) -> Ack:
        """Say that I have the hash that the peer stated, which is mine."""
        mine, state_hash = self.state.rows.clock_mark, self.state_hash
        talk = self.tracker.conversation(peer.replica.node_id)
        talk.state(mine, state_hash)
        talk.common = mine
        token = state_hash.token(peer.replica)
        return Ack(node=self.replica, fleet=self.fleet, clock=self.clock, answers=token, state_hash=state_hash)
