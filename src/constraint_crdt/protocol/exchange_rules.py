"""The rules of the exchange: the messages a node sends, and its reactions to those it receives (docs/design/exchange.md).

Anti-entropy in the sense of Demers et al., "Epidemic algorithms for replicated database maintenance" (1987), with delta-states
after Almeida, Shoker and Baquero, "Delta state replicated data types" (2018). A asks B; each step is safe by itself, in whatever
order messages arrive:

1. A `begin`s with a Ping, or with a Delta where B's last clock is known to be a little behind.
2. If B has the hash A stated, it Acks, and both know that they agree. Otherwise B sends the runs that A lacks above A's clock, and
   in the same message asks for the rows in which A is ahead.
3. A applies that as a whole. It answers with the rows B asked for (a Delta against the clock B just stated), else an Ack.
4. B applies that and Acks. Both are equal, and both have evidence of it.

Rules kept here:

- The only evidence of a peer's state is its own statement: its clock in a Ping, Delta or Sync, its hash by stating or echoing
  it.
- A transfer is the sender's whole state above one clock, as of an instant. The whole is applied at once, after its last part
  arrived.
- A clock is named where the peer has shown to know it, and spelled out otherwise. A clock is noted as nameable when it is stated.
- A message that cannot be resolved here (it names an unknown clock, or starts above the local clock) changes nothing and is
  answered with the local clock, spelled out.
- A message for another life of this node is dropped; its sender is told the present life.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import cast

import msgspec

from constraint_crdt.crdt.cells import Cell, Run, Table, core
from constraint_crdt.crdt.clock import SECOND, ClockMark, Digest, Replica, VectorClock
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.rows import NO_TABLES, Applied, Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.authority import Authority, OwnReplaced
from constraint_crdt.protocol.local_replica import LocalReplica
from constraint_crdt.protocol.messages import (
    PACKED_FROM,
    Ack,
    Buckets,
    ConstraintDelta,
    Delta,
    Gone,
    GossipMessage,
    Mend,
    Part,
    Ping,
    Resume,
    Sync,
    decode_message,
    pack_entries,
    unpack_entries,
)
from constraint_crdt.protocol.peers import (
    Conversation,
    DeltaTracker,
    LinkEstimates,
    Peer,
    behind,
    bind_runs,
    changed_entries,
    lowered,
    resolve_entries,
)
from constraint_crdt.protocol.repair import Outcome, Repairs
from constraint_crdt.protocol.transfers import InboundTransfers, OutboundTransfers, unpack
from constraint_crdt.types.nodes import is_about_retirements

UNASKED = 4
"""Cells that are sent to a peer without a question. The peer may have received them from others by now: in fleets of 32 and 100
in rounds, copies of each item received were 1.17 and 1.11 with 32, 1.003 and 1.01 with 4, while each saves the same few Pings."""

OVERWRITTEN = 256
"""By so many mutations the peer may be behind where they left as few cells: of a counter or a hold that moves on, the last cell is
all. But only a Ping tells the time of this node, its fault, and whom it asks for."""

BETWEEN = 32
"""Cells that are sent in the middle of a transfer from the peer."""

READ_APART = 256 * 1024
"""Bytes of a message after decompression from which a thread may read it: some milliseconds, and ten times as many in Python."""

READ_AT_ONCE = 4096
"""Cells that a thread prepares before others may run."""

Asked = Sequence[tuple[Replica, int]]
"""The entries in which a sender is behind, each with its own seq: the sender asks for these rows above the seq."""


class GossipResult(msgspec.Struct, kw_only=True):
    """The effects of a received message."""

    responses: list[GossipMessage] = []
    """The answers to the sender, in order."""
    state_changed: bool = False
    converged: bool = False
    """The last evidenced hash of every known peer equals this node's hash."""
    diverged: bool = False
    """The peer has the same clock and another hash: either state is corrupted."""
    mended: bool = False
    """Damage here was repaired: sums were corrected, or cells dropped, restored or replaced."""
    skew: float | None = None
    """Seconds the sender's clock is ahead, if it just exceeded the bound; else None."""
    heard: Sequence[tuple[str, int]] = ()
    """Nodes that this node asked for, each with the ms since the sender heard it."""
    outlived: Replica | None = None
    """A life of this node of which others know more than the node itself: the next write starts a new life."""
    unknown: tuple[int, int] = (0, 0)
    """The seq of that life here, and the higher seq that others know."""
    replaced: OwnReplaced | None = None
    """A row of this node was replaced by a longer row that it signed. `GossipNode.write_again` takes the former's own cells."""


def read_parts(data: bytes, part: Part, limits: Limits) -> GossipMessage:
    """The message that parts like this make up. Raises `ConstraintCrdtError` for malformed content, and beyond a limit."""
    return decode_message(
        data if part.unpacked is None else unpack(data, part.unpacked),
        max_bytes=None,
        most_items=limits.message_items + part.size,
        most_cells=limits.cells,
    )


class ReadMessage(msgspec.Struct, frozen=True):
    """A large message, read apart from the node that is to receive it: nothing of the node is read or changed by that.

    All that can be done without its state is done: decompression, all checks, the hashes of cells, and the tables of the kinds of
    which the node has no cells.
    """

    data: bytes
    """As it travelled."""
    message: GossipMessage | None = None
    error: ConstraintCrdtError | None = None

    @classmethod
    def of(cls, data: bytes, part: Part, limits: Limits, digest: Digest, empty: Callable[[int], bool] | None) -> "ReadMessage":
        """Read a message. `empty`: says if the node has no cells of a kind; None: make no tables."""
        try:
            message = read_parts(data, part, limits)
        except ConstraintCrdtError as error:
            return cls(data, error=error)
        try:
            if isinstance(message, Delta):
                message = msgspec.structs.replace(message, delta=_prepared(message.delta, digest, empty))
            elif isinstance(message, Sync):
                message = msgspec.structs.replace(message, state=_prepared(message.state, digest, empty))
        except ConstraintCrdtError:
            pass  # a run that does not fit, which the node refuses when it receives the message
        return cls(data, message)

    def result(self) -> GossipMessage:
        """The message. Raises the `ConstraintCrdtError` of reading it."""
        if self.message is None:
            raise ConstraintCrdtError("nothing was read") if self.error is None else self.error
        return self.message


def _prepared(delta: ConstraintDelta, digest: Digest, empty: Callable[[int], bool] | None) -> ConstraintDelta:
    """The runs with the hashes of the cells of runs that name their replica, and tables, if all of them do."""
    kinds: dict[int, list[Cell]] = {}
    for run in delta.runs:
        if isinstance(run, Run) or not isinstance(run.ref, Replica):
            empty = None
            continue
        bound = run.bind(None)
        for start in range(0, len(bound.cells), READ_AT_ONCE):
            some = bound.cells[start : start + READ_AT_ONCE]
            digest.fill(bound.replica, some)
            for kind, cells in core.by_kind(some).items() if empty is not None else ():
                kinds.setdefault(kind, []).extend(cells)
    tables = {}
    for kind, all_of_kind in kinds.items():
        if empty is None or len(all_of_kind) <= READ_AT_ONCE or not empty(kind):
            continue
        table, starts = Table(), range(0, len(all_of_kind), READ_AT_ONCE)
        if all(table.put_new(all_of_kind[start : start + READ_AT_ONCE]) for start in starts):
            tables[kind] = table
    return ConstraintDelta(delta.runs, delta.mutations, tables)


class Composer:
    """Composes the messages a node sends. Changes no state; notes the clocks it states."""

    def __init__(
        self, local: LocalReplica, tracker: DeltaTracker, inbound: InboundTransfers, links: LinkEstimates, limits: Limits
    ) -> None:
        self._limits = limits
        self._local = local
        self._tracker = tracker
        self._inbound = inbound
        self._links = links

    def ping(self, peer: str | None = None) -> Ping:
        """A Ping, its clock as changes against a clock `peer` is known to have, if any."""
        local, rows = self._local, self._local.state.rows
        mark, state_hash = rows.clock_mark, rows.state_hash
        known = self._tracker.peer(peer) if peer is not None else None
        if known is None:
            self._tracker.anyone.state(mark, state_hash)
            return self.whole_ping(None)
        talk = self._tracker.conversation(known.replica.node_id)
        talk.state(mark, state_hash)
        talk.told_time, talk.told_trouble = local.time.own(), local.trouble()
        common = talk.common
        if common is None:
            return self.whole_ping(known)
        changes = () if common.total == mark.total else changed_entries(common, mark, rows.changed_since(common))
        packed = None
        if talk.packs and len(changes) >= PACKED_FROM:
            packed, changes = pack_entries(changes, common)
        return Ping(
            node=local.replica,
            fleet=local.fleet,
            clock=VectorClock.of(mark),
            state_hash=state_hash,
            base=common.name(known.replica),
            basis=common,
            changes=changes,
            packed=packed,
            time=talk.told_time,
            asks=local.asks() or None,
            trouble=talk.told_trouble or None,
        )

    def whole_ping(self, peer: Peer | None, *, spelled_out: bool = False) -> Ping:
        """A Ping with the whole clock. Ended lives are left out where the reader can infer them, unless `spelled_out`."""
        local, state = self._local, self._local.state
        entries = state.rows.clock_mark.entries
        spoken = state.retirements.compact_clock(entries, spelled_out=spelled_out)
        return Ping(
            node=local.replica,
            fleet=local.fleet,
            to=peer.replica.incarnation if peer else None,
            clock=state.rows.clock,
            state_hash=state.rows.state_hash,
            changes=() if spoken is entries else list(spoken.items()),
            time=local.time.own(),
            asks=local.asks() or None,
            trouble=local.trouble() or None,
        )

    def begin(self, peer: str) -> GossipMessage:
        """The first message of an exchange: a Resume of an interrupted transfer; a Delta to a peer that is known to be a little
        behind, unless it is to hear of a fault here; else a Ping.
        """
        known = self._tracker.peer(peer)
        if known is None or self._tracker.conversation(peer).told_trouble != self._local.trouble():
            return self.ping(peer)
        if peer in self._inbound:
            first = self.rest(known, anew=True)
            if first:
                return first[0]
        delta = self._small_delta(known, UNASKED)
        return self.ping(peer) if delta is None else delta

    def _small_delta(self, known: Peer, most: int) -> Delta | Sync | None:
        """The cells that a peer lacks by its evidence, if these are few: `most`. O(`OVERWRITTEN`)."""
        rows, mark, span = self._local.state.rows, known.mark, max(most, OVERWRITTEN)
        mine = rows.clock_mark
        if mark is None or mine.count - mark.count > span or mine.total == mark.total:  # necessary, and always O(1)
            return None
        talk = self._tracker.conversation(known.replica.node_id)
        if mark.total not in talk.statements:
            return None
        lacks, entries = rows.lacked_at(mark), mine.entries
        mutations = sum([entries[replica] - seq for replica, seq in lacks])
        if not 0 < mutations <= span or not rows.serves(mark):
            return None
        runs = rows.runs(lacks)
        if mutations > most and (not self._has_told(talk) or sum([len(run.cells) + len(run.stubs) for run in runs]) > most):
            return None
        return self.transfer(known, mark, talk, runs)

    def _has_told(self, talk: Conversation) -> bool:
        """Whether the peer lately heard what only a Ping tells: messages with news must not replace all Pings."""
        local, told = self._local, talk.told_time
        return told is not None and not local.misses() and 0 <= local.time.own() - told <= local.time.heard_for // 2

    def go_on(self, peer: Peer) -> list[GossipMessage]:
        """The question for the rest of a peer's transfer, if any, and before it a small Delta of the news here.

        The peer answers such a Delta with its clock, which is evidence. The question does not wait for that: what is asked for
        must not depend on what the peer knows. A peer of 0.1.0, which sends no units, gets no Delta: it would begin another
        transfer.
        """
        delta = self._small_delta(peer, BETWEEN) if self._inbound.sends_units(peer.replica) else None
        rest = self.rest(peer, anew=False)
        return [delta, *rest] if delta is not None and rest else rest

    def delta_since(self, clock: VectorClock) -> Delta | Sync:
        """Everything above `clock`, for any reader: a Delta, or a Sync where `clock` is below a floor."""
        local, rows, entries = self._local, self._local.state.rows, clock.as_dict()
        if not rows.serves(entries):
            return self.sync(None)
        delta = ConstraintDelta(rows.since(entries))
        return Delta(node=local.replica, fleet=local.fleet, clock=local.state.rows.clock, delta=delta)

    def restated_clock(self, peer: Peer, without: Collection[Replica] = ()) -> list[GossipMessage]:
        """The answer to a message that cannot be applied here: the local clock, spelled out so that nothing is left to infer.

        `without`: rows that the peer is to send from 0, although they are known here.
        """
        talk, rows = self._tracker.conversation(peer.replica.node_id), self._local.state.rows
        talk.common = None
        if not without:
            talk.state(rows.clock_mark, rows.state_hash)
            return [self.whole_ping(peer, spelled_out=True)]
        mark = rows.clock_mark.changed([(replica, 0) for replica in without])
        talk.state(mark, None)
        ping = self.whole_ping(peer, spelled_out=True)
        entries = dict(self._local.state.retirements.compact_clock(rows.clock_mark.entries, spelled_out=True))
        entries |= dict.fromkeys(without, 0)
        return [msgspec.structs.replace(ping, clock=VectorClock.of(mark), changes=list(entries.items()))]

    def transfer(self, peer: Peer, theirs: ClockMark, talk: Conversation, runs: Sequence[Run] | None = None) -> Delta | Sync:
        """The runs `peer` lacks at its clock `theirs`, and the rows that are lacking here. `runs`: these, if known."""
        local, rows = self._local, self._local.state.rows
        mine, state_hash = rows.clock_mark, rows.state_hash
        talk.state(mine, state_hash)
        if not rows.serves(theirs):
            return self.sync(peer)
        runs = rows.since(theirs) if runs is None else runs
        more = sum([run.hi - run.lo for run in runs])
        return Delta(
            node=local.replica,
            fleet=local.fleet,
            clock=VectorClock.of(mine),
            base=theirs.name(peer.replica),
            basis=theirs,
            proof=state_hash.token(peer.replica),
            delta=ConstraintDelta(runs, more),
            behind=behind(mine, theirs, more - (mine.count - theirs.count)) if more != mine.count - theirs.count else (),
        )

    def sync(self, peer: Peer | None) -> Sync:
        """The whole state with its floors."""
        local, state = self._local, self._local.state
        return Sync(
            node=local.replica,
            fleet=local.fleet,
            to=peer.replica.incarnation if peer else None,
            clock=state.rows.clock,
            state_hash=state.rows.state_hash,
            state=ConstraintDelta(state.rows.whole()),
        )

    def rest(self, peer: Peer, *, anew: bool) -> list[GossipMessage]:
        """The question for the rest of a peer's incomplete transfer, if any."""
        asked = self._inbound.ask(peer.replica, anew=anew, at=self._links.at)
        if asked is None:
            return []
        (transfer, index), local = asked, self._local
        to, held = peer.replica.incarnation, self._inbound.held(peer.replica.node_id)
        return [Resume(node=local.replica, fleet=local.fleet, to=to, transfer=transfer, index=index, held=held)]

    @property
    def at(self) -> float | None:
        """The present time of the links."""
        return self._links.at

    def is_receiving(self, peer: Peer) -> bool:
        """True while parts of a transfer of a peer are to be expected."""
        if peer.replica.node_id not in self._inbound:
            return False
        wait = self._links.of(peer.replica.node_id).step(expected=self._limits.burst_bytes)
        return self._inbound.is_active(peer.replica, wait, self._links.at)

    def ack(self, peer: Peer, talk: Conversation) -> Ack:
        """The confirmation of the hash the peer stated, which is the local hash."""
        local, rows = self._local, self._local.state.rows
        mine, state_hash = rows.clock_mark, rows.state_hash
        talk.state(mine, state_hash)
        talk.common = mine
        token = state_hash.token(peer.replica)
        return Ack(node=local.replica, fleet=local.fleet, clock=VectorClock.of(mine), answers=token, state_hash=state_hash)


class Exchange:
    """The reactions of a node to received messages."""

    def __init__(
        self,
        local: LocalReplica,
        tracker: DeltaTracker,
        inbound: InboundTransfers,
        outbound: OutboundTransfers,
        composer: Composer,
        limits: Limits,
    ) -> None:
        self._local = local
        self._tracker = tracker
        self._inbound = inbound
        self._outbound = outbound
        self._composer = composer
        self._limits = limits
        self.repairs = Repairs(local)
        self.read: ReadMessage | None = None
        """The large message that the next part completes, read already."""
        self.rounds = 0
        """Messages received."""
        self.syncs = 0
        """Pings answered whose hash differed from the local hash."""
        self.alarms = 0
        """Times a peer had the local clock and another hash: corruption on either side."""

    def reading(self, message: GossipMessage) -> Callable[[], ReadMessage] | None:
        """See `GossipNode.reading`."""
        if not isinstance(message, Part) or (message.unpacked or message.size) < READ_APART:
            return None
        data = self._inbound.completed_by(message)
        if data is None:
            return None
        rows, limits = self._local.state.rows, self._limits
        empty = None if self._local.authority is not None else rows.is_empty
        return lambda: ReadMessage.of(data, message, limits, rows.digest, empty)

    def receive(self, message: GossipMessage) -> GossipResult:
        """See `GossipNode.receive`."""
        local, state, sender = self._local, self._local.state, message.node
        if message.fleet != local.fleet:
            raise ConstraintCrdtError(f"this message is for fleet {message.fleet!r}; node {local.node_id} is in {local.fleet!r}")
        self.rounds += 1
        if sender.node_id == local.replica.node_id:  # from a former life of this node, or from a namesake: not a peer
            return GossipResult()
        if message.to not in (None, local.replica.incarnation):
            return GossipResult(responses=self._present_life(message))
        before = state.rows.seq(local.replica)
        peer = self._tracker.meet(sender)
        result = self._take(message, peer)
        self._tell_packs(message, result)
        heard: Sequence[tuple[str, int]] | None = getattr(message, "heard", None)  # in an Ack or a Delta
        if heard and sender.node_id not in state.retirements:
            result.heard = heard
        authority = local.authority
        if authority is not None and authority.has_revocations and self._is_revoked(authority, sender):
            result.responses = self._answers_to_revoked(message)
        if peer.mark is not None and sender.node_id in self._outbound:
            self._outbound.settle(sender.node_id, peer.mark.entries)
        has_retired = bool(state.retirements)
        if result.state_changed and has_retired:
            self.forget_retired()
        self._compare_life(result, peer, before)
        if not has_retired:
            return result
        if sender.node_id in state.retirements:
            self._tracker.forget(sender.node_id)
        if local.retired_by is not None and not self._may_tell(peer):
            result.responses = [each for each in result.responses if isinstance(each, Part | Resume | Gone)]
        return result

    def _tell_packs(self, message: GossipMessage, result: GossipResult) -> None:
        """Note that a peer reads packed changes of a clock, or say so in the answers to a Ping that could have had such."""
        if isinstance(message, Ping):
            if len(message.changes) >= PACKED_FROM:
                for place, each in enumerate(result.responses):
                    if isinstance(each, Ack | Delta):
                        result.responses[place] = msgspec.structs.replace(each, packs=True)
        elif isinstance(message, Ack | Delta) and message.packs and message.node.node_id in self._tracker:
            self._tracker.conversation(message.node.node_id).packs = True

    def _may_tell(self, peer: Peer) -> bool:
        """True if this node, which was retired, or the peer may lack a cell that decides who is retired. Else others would take
        nothing from this node.
        """
        mark = peer.mark
        return self._lacks_retirements(peer) or (mark is not None and bool(behind(self._local.state.rows.clock_mark, mark)))

    def _compare_life(self, result: GossipResult, peer: Peer, before: int) -> None:
        """Find out whether a peer knows more of the present life than this node, whose seq was `before`.

        Where rows are not signed, the clock of a peer is as good as a run: the life ends before the run is there, since a write in
        between would use a dot twice.
        """
        local = self._local
        known = local.state.rows.seq(local.replica)
        if local.authority is not None:
            replaced = local.authority.take_own_replaced()
            if replaced is not None and replaced.replica == local.replica:
                replaced = replaced._replace(resumed=local.resumed)
                result.outlived, result.unknown = local.replica, (min(local.resumed, known), known)
                local.end_life()
            result.replaced = replaced
        if known == before == local.written and local.authority is None and peer.mark is not None:  # as of `goes_on`
            known = max(known, peer.mark.entries.get(local.replica, 0))
        if known != before and result.outlived is None:
            result.outlived, result.unknown = local.replica, (before, known)
            local.end_life()

    def _is_revoked(self, authority: Authority, sender: Replica) -> bool:
        member = authority.member_of(sender)
        return member is not None and authority.is_revoked(member)

    def _answers_to_revoked(self, message: GossipMessage) -> list[GossipMessage]:
        """A node of a revoked key is told so, and is no peer. Its message was taken: it may end the revocation, see `authority`."""
        self._tracker.forget(message.node.node_id)
        return [self._composer.sync(Peer(message.node))] if isinstance(message, Ping) else []

    def forget_ended(self) -> None:
        """Forget the rows beyond the end of a revoked key, and the clocks of peers, which are to be told anew."""
        if self._local.authority is not None and self._local.authority.forget_ended():
            self._tracker.clear()

    def merge(self, other: Rows) -> bool:
        """Take in rows from another source than a message. True if the state changed. Raises as `Rows.merge` and `admit` do."""
        rows = self._local.state.rows
        if self._local.authority is None or other.digest != rows.digest:
            return rows.merge(other)
        mine = rows.clock_mark.entries
        whole = not other.serves(mine)
        return self._apply(other.whole() if whole else other.since(mine), whole=whole, proven=True).applied.changed

    def _apply(
        self, runs: Sequence[Run], *, whole: bool = False, proven: bool = False, tables: Mapping[int, Table] = NO_TABLES
    ) -> "_Taken":
        """Apply the runs of a transfer, after their signatures and rights were checked. `proven`: refuse unproven rows, too.
        `tables`: those of the transfer, without signatures.
        """
        rows, authority = self._local.state.rows, self._local.authority
        if authority is None:
            return _Taken(rows.apply(runs, whole=whole, tables=tables))
        if len(runs) == 1 and runs[0].lo and runs[0].lo == rows.seq(runs[0].replica) and not whole:
            hashes = authority.admit_next(runs[0])
            if hashes is not None:
                applied = rows.apply(runs)
                authority.adopt_next(runs[0], hashes)
                return _Taken(applied)
        if any(run.lo > rows.seq(run.replica) for run in runs):
            return _Taken(Applied(changed=False, gap=True))
        admitted = authority.admit(runs, whole=whole)
        if proven:
            authority.check_proven(runs, admitted)
        if admitted.doubted:
            return _Taken(Applied(changed=False, gap=True), admitted.doubted)
        authority.prepare(admitted)
        try:
            applied = rows.apply(admitted.runs, whole=whole, replaced=admitted.replaced)
        except ConstraintCrdtError:
            authority.abandon(admitted)
            raise
        if applied.gap:
            authority.abandon(admitted)
            return _Taken(applied)
        forgot = authority.adopt(admitted)
        if forgot or admitted.replaced:
            self._tracker.clear()
        plain = not (forgot or admitted.replaced or admitted.stripped or len(admitted.runs) < len(runs))
        return _Taken(Applied(applied.changed or forgot, False, applied.exact and plain), stripped=admitted.stripped)

    def forget_retired(self) -> None:
        """Drop the evidence of retired nodes: they are no peers any more, and convergence does not wait for them."""
        for node_id in self._local.state.retirements.nodes:
            self._tracker.forget(node_id)
            self._local.time.forget(node_id)

    def _present_life(self, message: GossipMessage) -> list[GossipMessage]:
        """The answer to a message for another life of this node: its sender has to learn of the present life."""
        if isinstance(message, Part) and message.index:
            return []
        state = self._local.state
        self._tracker.anyone.state(state.rows.clock_mark, state.rows.state_hash)
        return [self._composer.whole_ping(Peer(message.node))]

    def _on_retired(self, message: GossipMessage, peer: Peer, basis: Sequence[ClockMark]) -> GossipResult:
        """A retired node is told so. Its transfers have an effect only if they tell of retirements: perhaps it is in service after
        all. Its writes count where other nodes relay them.
        """
        state = self._local.state
        if isinstance(message, Part):
            return self._on_part(message, peer)
        if isinstance(message, Resume):  # it asks for the rest of what it is told
            return GossipResult(responses=self._rest_of(message, peer))
        if isinstance(message, Gone):
            waited = self._inbound.give_up(peer.replica, message.transfer)
            return GossipResult(responses=[self._proof(peer)] if waited else [])
        if isinstance(message, Delta | Sync) and self._tells_of_retirements(message):
            result = self._on_delta(message, peer, basis) if isinstance(message, Delta) else self._on_sync(message, peer)
            if message.node.node_id not in state.retirements:
                return result
            if any(isinstance(each, Ping) for each in result.responses):
                result.responses = [self._proof(peer)]
            elif not self._lacks_retirements(peer):
                result.responses = []
            return result
        told = {run.replica: run.hi for run in bind_runs(message.state.runs, None)} if isinstance(message, Sync) else {}
        if isinstance(message, Ping | Delta) or (isinstance(message, Sync) and state.retirements.beyond(told)):
            return GossipResult(responses=[self._proof(peer)])
        raise ConstraintCrdtError(f"node {message.node.node_id} was retired: nothing is taken from it any more")

    def _tells_of_retirements(self, message: Delta | Sync) -> bool:
        """True if a transfer has a cell that decides who is retired, of a Sync a cell that is new here. O(cells)."""
        if isinstance(message, Delta):
            return any(is_about_retirements(cell) for run in message.delta.runs for cell in run.cells)
        seq = self._local.state.rows.seq
        runs = bind_runs(message.state.runs, None)
        return any(cell.seq > seq(run.replica) and is_about_retirements(cell) for run in runs for cell in run.cells)

    def _proof(self, peer: Peer) -> Sync:
        """The whole state, whose retirements show who is retired."""
        rows = self._local.state.rows
        self._tracker.anyone.state(rows.clock_mark, rows.state_hash)  # its answer may name this clock
        return self._composer.sync(peer)

    def _lacks_retirements(self, peer: Peer) -> bool:
        """True if a peer may lack a cell that decides who is retired."""
        return peer.mark is None or self._local.state.retirements.beyond(peer.mark.entries)

    def _take(self, message: GossipMessage, peer: Peer, basis: Sequence[ClockMark] = ()) -> GossipResult:
        """`basis`: clocks the message may name beside the recent ones."""
        if message.node.node_id in self._local.state.retirements:
            return self._on_retired(message, peer, basis)
        match message:
            case Ping():
                result = self._on_ping(message, peer)
                if message.asks:
                    self._tell_heard(message.asks, result.responses)
                self._tracker.conversation(message.node.node_id).trouble = message.trouble or ""
                ahead = None if message.time is None else self._local.time.hear(message.node.node_id, message.time)
                result.skew = None if ahead is None else ahead / SECOND
                return result
            case Ack():
                return self._on_ack(message, peer)
            case Delta():
                return self._on_delta(message, peer, basis)
            case Sync():
                return self._on_sync(message, peer)
            case Part():
                return self._on_part(message, peer)
            case Resume() | Gone():
                return self._on_rest(message, peer)
            case Buckets():
                return self._on_repair(self.repairs.compare(message, self.rounds), peer)
            case Mend():
                return self._on_repair(self.repairs.take(message), peer)
            case _:
                raise ConstraintCrdtError(f"a node cannot receive a {type(message).__name__}")

    def _tell_heard(self, asks: Sequence[str], responses: list[GossipMessage]) -> None:
        """Say in the answer to a Ping which of some nodes this node hears."""
        heard = self._local.heard(asks)
        for place, response in enumerate(responses if heard else ()):
            if isinstance(response, Ack | Delta):
                responses[place] = msgspec.structs.replace(response, heard=heard)

    def _on_part(self, part: Part, peer: Peer) -> GossipResult:
        read, self.read = self.read, None
        basis = self._inbound.basis(peer.replica.node_id)
        data = self._inbound.add(part, self._tracker.marks(peer), self._composer.at)
        if data is None:
            self._tracker.admit(peer)
            return GossipResult(responses=self._composer.go_on(peer) if self._inbound.take_pause(part) else [])
        message = read_parts(data, part, self._limits) if read is None or read.data != data else read.result()
        if isinstance(message, Part) or (message.node, message.fleet, message.to) != (part.node, part.fleet, part.to):
            raise ConstraintCrdtError("the parts of a transfer make up a message of another sender, or to another receiver")
        return self._take(message, peer, basis)

    def _on_rest(self, message: Resume | Gone, peer: Peer) -> GossipResult:
        """The peer asks for the rest of a transfer, or no longer keeps a transfer."""
        self._tracker.admit(peer)
        if isinstance(message, Gone):
            waited = self._inbound.give_up(peer.replica, message.transfer)
            return GossipResult(responses=[self._composer.ping(peer.replica.node_id)] if waited else [])
        return GossipResult(responses=self._rest_of(message, peer))

    def _rest_of(self, message: Resume, peer: Peer) -> list[GossipMessage]:
        """The next parts of a transfer."""
        local = self._local
        burst = self._outbound.resume(peer.replica, message.transfer, message.index, message.held)
        gone = Gone(node=local.replica, fleet=local.fleet, to=peer.replica.incarnation, transfer=message.transfer)
        return [gone] if burst is None else [*burst]

    def _on_ping(self, ping: Ping, peer: Peer) -> GossipResult:
        theirs = self._clock_of_ping(ping, peer)
        self._tracker.admit(peer)
        talk = self._tracker.conversation(peer.replica.node_id)
        talk.stripped = None
        if theirs is None:
            return GossipResult(responses=self._composer.restated_clock(peer))
        talk.state(theirs, ping.state_hash)
        talk.common = theirs
        self._tracker.evidence(peer, theirs, ping.state_hash)
        rows = self._local.state.rows
        if ping.state_hash == rows.state_hash:
            self.repairs.agreed()
            return GossipResult(responses=[self._composer.ack(peer, talk)])
        if theirs == rows.clock_mark:
            return self._on_divergence(peer, lambda: ping.state_hash == rows.state_hash)
        if self._composer.is_receiving(peer):
            return GossipResult()  # a second question for the same parts would have them sent twice
        rest = self._composer.rest(peer, anew=True)
        if rest:
            return GossipResult(responses=rest)
        again = self._outbound.again(peer.replica, theirs, rows.serves)
        if again is not None:
            return GossipResult(responses=[*again])
        self.syncs += 1
        return GossipResult(responses=[self._composer.transfer(peer, theirs, talk)])

    def _clock_of_ping(self, ping: Ping, peer: Peer) -> ClockMark | None:
        """The clock in a Ping; None if it names a clock unknown here."""
        state = self._local.state
        mine, digest = state.rows.clock_mark, state.rows.digest
        if ping.base is not None:
            base = self._tracker.find(peer, ping.base, self._local.replica)
            if base is None or not (ping.changes or ping.packed):
                return base
            if ping.clock is not None:
                return self._bounded(ping.clock.mark(digest))
            packed = [] if ping.packed is None else unpack_entries(ping.packed, base)
            return self._bounded(base.changed([*packed, *resolve_entries(ping.changes, base)]))
        if ping.changes:  # the entries that travelled, with ended lives left out
            return self._bounded(mine.replaced(state.retirements.expand_clock(dict(resolve_entries(ping.changes, None)))))
        stated = (ping.clock or VectorClock()).mark(digest)
        heard = state.retirements.expand_clock(stated.entries)
        return self._bounded(stated if heard is stated.entries else mine.replaced(heard))

    def _bounded(self, theirs: ClockMark) -> ClockMark:
        """The clock a peer stated, refused with more entries than this node would hold rows."""
        if len(theirs.entries) > self._limits.rows:
            raise ConstraintCrdtError(f"a clock of {len(theirs.entries)} entries is more than the {self._limits.rows} rows allowed")
        return theirs

    def _on_delta(self, delta: Delta, peer: Peer, basis: Sequence[ClockMark]) -> GossipResult:
        me, rows = self._local.replica, self._local.state.rows
        base = self._tracker.find(peer, delta.base, me) if delta.base is not None else None
        if base is None and basis:
            base = next((mark for mark in basis if mark.name(me) == delta.base), None)
        if delta.base is not None and base is None:
            return self._not_applicable(peer)
        if base is not None and delta.basis is not None:  # handed over as an object: it names replicas, each once
            runs, asked = cast("Sequence[Run]", delta.delta.runs), cast("Asked", delta.behind)
        else:
            runs, asked = bind_runs(delta.delta.runs, base), resolve_entries(delta.behind, base) if delta.behind else ()
        before = rows.clock_mark
        lower = lowered(before, asked) if base is not None and base.total == before.total else None
        theirs = None
        if lower is None:
            theirs = self._bounded(_clock_of_delta(delta, base, [(run.replica, run.hi) for run in runs], asked, rows.digest))
            # The runs are the sender's whole state only to a reader that has everything below them, also in rows without a run.
            # A reader at the clock that they were made for has it, and need not compare all rows.
            if {replica for replica, _ in behind(before, theirs)}.difference([run.replica for run in runs]):
                return self._not_applicable(peer)
        taken = self._apply(runs, tables=delta.delta.tables)
        applied, stripped = taken.applied, taken.stripped
        if applied.gap:
            return self._not_applicable(peer, taken.doubted)
        self._tracker.admit(peer)
        lacks: Asked | None = None
        if theirs is None and applied.exact:
            theirs, lacks = _clock_of_applied(delta, rows.clock_mark, asked, lower or 0, rows.digest), asked
        elif theirs is None:
            theirs = _clock_of_delta(delta, base, [(run.replica, run.hi) for run in runs], asked, rows.digest)
        proves = None if delta.proof is None else lambda: delta.proof == rows.state_hash.token(me)
        return self._after_transfer(peer, theirs, applied.changed, proves, lacks, stripped=stripped, between=bool(runs))

    def _not_applicable(self, peer: Peer, doubted: Collection[Replica] = ()) -> GossipResult:
        """A transfer cannot be applied here: the answer is the local clock, without the rows that are asked for from 0."""
        self._tracker.admit(peer)
        return GossipResult(responses=self._composer.restated_clock(peer, doubted))

    def _on_sync(self, sync: Sync, peer: Peer) -> GossipResult:
        rows, runs = self._local.state.rows, bind_runs(sync.state.runs, None)
        if any(run.lo for run in runs):  # cells below `lo` would count as removed
            raise ConstraintCrdtError("a Sync must hold every row from its start")
        theirs = self._bounded(ClockMark.of({run.replica: run.hi for run in runs}, rows.digest))
        taken = self._apply(runs, whole=True, tables=sync.state.tables)
        self._tracker.admit(peer)
        proves = lambda: sync.state_hash == rows.state_hash  # noqa: E731 - as in `_on_delta`
        return self._after_transfer(peer, theirs, taken.applied.changed, proves, stripped=taken.stripped)

    def _after_transfer(
        self,
        peer: Peer,
        theirs: ClockMark,
        changed: bool,
        proves: Callable[[], bool] | None,
        lacks: Asked | None = None,
        *,
        stripped: bool = False,
        between: bool = False,
    ) -> GossipResult:
        """The sender's state was applied: send the runs it lacks, or confirm equality.

        `proves`: the stated hash is the local hash. `lacks`: its entries in the rows where it is behind, if known. `stripped`: runs
        were left out, so a sender that lacks nothing gets no answer, which would only ask for them again; nor does a sender get the
        same answer twice before its next Ping: two nodes may each leave out the row of the other. `between`: it may be the small
        Delta of a peer that receives a transfer. A Delta without runs and a Sync answer a Ping: to answer them with a Ping would go
        on without an end.
        """
        rows, talk = self._local.state.rows, self._tracker.conversation(peer.replica.node_id)
        if theirs.total != rows.clock_mark.total:
            talk.state(theirs, None)
            talk.common = theirs
            self._tracker.evidence(peer, theirs, None)
            if stripped:
                clocks = theirs.total, rows.clock_mark.total
                if not rows.ahead_of(theirs) or talk.stripped == clocks:
                    return GossipResult(state_changed=changed)
                talk.stripped = clocks
            if not between and self._outbound.is_under_way(peer.replica, theirs, rows.serves):
                return GossipResult(state_changed=changed)
            if between and (self._outbound.is_sending(peer.replica) or (changed and self._outbound.keeps(peer.replica))):
                # It sent a small Delta in between, and asks for the rest of the transfer after this evidence: also where nothing in
                # the Delta was new here, since the peer sends the Delta again until it has the evidence. After a break the evidence
                # comes once: a peer that no longer has the parts gets another transfer.
                return GossipResult(responses=[self._composer.ping(peer.replica.node_id)], state_changed=changed)
            missing = None if lacks is None else rows.runs(lacks)
            return GossipResult(responses=[self._composer.transfer(peer, theirs, talk, missing)], state_changed=changed)
        if proves is not None and not proves():
            result = self._on_divergence(peer, proves)
            result.state_changed |= changed
            return result
        self._tracker.evidence(peer, rows.clock_mark, rows.state_hash if proves is not None else None)
        return GossipResult(responses=[self._composer.ack(peer, talk)], state_changed=changed)

    def _on_ack(self, ack: Ack, peer: Peer) -> GossipResult:
        said = self._tracker.find_hash(peer, ack.answers, self._local.replica)
        self._tracker.admit(peer)
        if said is not None:
            talk = self._tracker.conversation(peer.replica.node_id)
            talk.state(said.mark, said.hash)
            talk.common = said.mark
            self._tracker.evidence(peer, said.mark, said.hash)
            if said.hash == self._local.state.rows.state_hash:
                self.repairs.agreed()
        return GossipResult()

    def _on_divergence(self, peer: Peer, agrees: Callable[[], bool]) -> GossipResult:
        """The peer has the local clock and another hash: either state is damaged."""
        self.alarms += 1
        return self._on_repair(self.repairs.open(peer.replica, self.rounds, agrees), peer, alarm=False)

    def _on_repair(self, outcome: Outcome, peer: Peer, *, alarm: bool = True) -> GossipResult:
        """`alarm`: count an alarm if the states differ, or differed before the repair."""
        self._tracker.admit(peer)
        diverged = outcome.diverged or outcome.agrees
        if alarm and diverged:
            self.alarms += 1
        result = GossipResult(state_changed=outcome.mended, mended=outcome.mended, diverged=diverged)
        if outcome.asks:
            result.responses = self._composer.restated_clock(peer, outcome.asks)
        elif outcome.says is not None:
            result.responses = [outcome.says]
        elif outcome.agrees:
            self.repairs.agreed()
            self._tracker.evidence(peer, self._local.state.rows.clock_mark, self._local.state.rows.state_hash)
            result.responses = [self._composer.ack(peer, self._tracker.conversation(peer.replica.node_id))]
        elif outcome.ended:
            result.responses = [self._composer.ping(peer.replica.node_id)]
        return result


class _Taken(msgspec.Struct, frozen=True):
    """The outcome of the runs of a transfer."""

    applied: Applied
    doubted: Collection[Replica] = ()
    stripped: bool = False
    """Runs were left out, since they do not count here."""


def _clock_of_delta(delta: Delta, base: ClockMark | None, ends: Asked, asked: Asked, digest: Digest) -> ClockMark:
    """The clock of a Delta's sender as of the instant of its runs, which end at `ends`."""
    if base is None:
        return (delta.clock or VectorClock()).mark(digest)
    return base.changed([*ends, *asked])


def _clock_of_applied(delta: Delta, now: ClockMark, asked: Asked, lower: int, digest: Digest) -> ClockMark:
    """The same, for a Delta whose runs all began at the local clock, after it was applied.

    The sender's clock is then `now`, the local clock, lowered by `lower` mutations in the rows it asks for. A message that was
    handed over as an object has its sender's clock with its sums, so nothing is computed again and the two nodes share it.
    """
    if not asked:
        return now
    stated = None if delta.clock is None else delta.clock.mark(digest)
    return stated if stated is not None and stated.count == now.count - lower else now.changed(asked)
