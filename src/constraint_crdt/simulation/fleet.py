"""The nodes of a history, their disks and the messages between them: carries out one step after another.

Rules kept here:

- Nothing is drawn and no time passes: the same fleet and the same steps give the same states, byte for byte.
- What a node says is on its disk before it is said, as in the running node; so a crash loses only what nobody heard of.
- Every message goes through the codec, and is handed over as bytes.
- A step with nothing to act on does nothing. One that breaks an invariant raises `Violation`, also where a node raises anything
  that it does not say it raises.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from constraint_crdt.crdt.cells import REMOVE, removed_dots
from constraint_crdt.crdt.clock import VectorClock
from constraint_crdt.crdt.limits import MESSAGE_BYTES, Limits
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.codec import decode_message
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import Ack, GossipMessage, Part, Ping
from constraint_crdt.simulation.invariants import Invariants, Violation
from constraint_crdt.simulation.links import mutations_in
from constraint_crdt.simulation.steps import (
    AnyStep,
    Backup,
    Begin,
    Collect,
    Crash,
    Deliver,
    Exchange,
    Member,
    MessageName,
    Stale,
    Start,
    Write,
)
from constraint_crdt.simulation.writes import do, expected, is_done, kinds, may_refuse, parts
from constraint_crdt.types.nodes import RETIRE

LIMITS = Limits(burst_bytes=1024)
"""Of every node: so small that large transfers pause, and have to be asked for."""

MAX_SKEW = 1.0
"""Seconds that clocks may differ by the nodes' settings."""

MESSAGES_PER_EXCHANGE = 256
"""More than an exchange of two nodes may take, whatever they knew of each other before."""

ATTEMPTS = 3
"""Exchanges after which two nodes are equal: one, and one more for each side that first takes the rest of an older transfer."""

CLOCKS_NOTED = 64
"""Clocks of long ago that a `Stale` step can go back to."""

COPIES_OF_OWN_LIFE = 1000
"""Incarnations that nodes take by themselves count from here, so that they are told from those that steps give."""


@dataclass(slots=True)
class Disk:
    """What a node has on disk."""

    rows: Rows
    replica: Replica
    over: bool
    """The life turned out to be over."""


@dataclass(slots=True)
class Seat:
    """A place for one life of a node after the other."""

    name: str
    node: GossipNode | None = None
    time: int = 1
    disk: Disk | None = None
    backup: Disk | None = None
    unsaved: bool = False
    over: bool = False
    """Others know more of the present life than the node itself: it must not write any more."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A message on its way."""

    name: MessageName
    sender: str
    to: str
    data: bytes
    wants_reply: bool
    mutations: int
    """What it carries; of a message in parts the last one carries all."""


class Fleet:
    """A fleet that carries out steps."""

    def __init__(self, members: Sequence[Member], *, watched: bool = True, limits: Limits = LIMITS) -> None:
        """`watched`: invariants are checked at every step, at several times the cost."""
        self.invariants = Invariants() if watched else None
        self.unsaved_lost = 0
        """Crashes that lost a write which was not acknowledged."""
        self.written: Counter[str] = Counter()
        """How often each kind of write came about; only if it is watched."""
        self.carried = self.taken = 0
        """Mutations that messages brought, and those that were news."""
        self._limits = limits
        self._seats: dict[str, Seat] = {}
        self._letters: dict[MessageName, Sent] = {}
        self._clocks: list[VectorClock] = [VectorClock()]
        self._lives = COPIES_OF_OWN_LIFE
        self._sent: list[Sent] = []
        for member in members:
            self._begin_life(self._seat(member.name), member.incarnation)

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[str, GossipNode]:
        """The nodes that are up, by name, in the order in which their names first came up."""
        return {name: seat.node for name, seat in self._seats.items() if seat.node is not None}

    def node(self, name: str) -> GossipNode | None:
        """A node, if it is up."""
        seat = self._seats.get(name)
        return seat.node if seat else None

    def forget_message(self, name: MessageName) -> None:
        """A message will never arrive (any more)."""
        self._letters.pop(name, None)

    # --- steps -------------------------------------------------------------------------------------------------------

    def apply(self, step: AnyStep) -> list[Sent]:
        """Carry out one step; returns the messages that were sent with it. Raises `Violation`."""
        self._sent = []
        try:
            self._dispatch(step)
        except Violation:
            raise
        except Exception as error:  # whatever a node raises: it is what is looked for
            raise Violation("error", f"{step.node}: {type(error).__name__}: {error}") from error
        return self._sent

    def _dispatch(self, step: AnyStep) -> None:
        if isinstance(step, Start):
            self._start(step)
            return
        seat = self._seats.get(step.node)
        if seat is None or seat.node is None:
            return
        seat.time = step.time or seat.time
        self._act(seat, seat.node, step)

    def _act(self, seat: Seat, node: GossipNode, step: AnyStep) -> None:
        """A step of a node that is up."""
        match step:
            case Deliver():
                self._deliver(seat, node, step)
            case Begin():
                if step.peer != step.node:
                    message = node.ping() if step.bare else node.begin(step.peer)
                    self._send(seat, node, step.peer, [message], step.number, step.room)
            case Exchange():
                self._exchange(seat, step.peer)
            case Stale():
                self._stale(seat, node, step)
            case Collect():
                if node.collect(node.tracker if step.acknowledged else None):
                    self._changed(seat, node)
            case Backup():
                seat.backup = seat.disk
            case Crash():
                self._crash(seat, node)
            case Write():
                for part in parts(step):
                    self._write(seat, node, part)

    # --- lives -------------------------------------------------------------------------------------------------------

    def _seat(self, name: str) -> Seat:
        if name not in self._seats:
            self._seats[name] = Seat(name)
        return self._seats[name]

    def _new_life(self) -> int:
        self._lives += 1
        return self._lives

    def _make(self, seat: Seat, incarnation: int) -> GossipNode:
        return GossipNode(
            seat.name,
            incarnation=incarnation,
            now=lambda: seat.time,
            renew=self._new_life,
            fleet="chaos",
            limits=self._limits,
            max_skew=MAX_SKEW,
        )

    def _begin_life(self, seat: Seat, incarnation: int) -> None:
        node = seat.node = self._make(seat, incarnation or self._new_life())
        seat.disk = Disk(node.state.rows.copy(), node.replica, over=False)
        seat.unsaved = seat.over = False
        if self.invariants is not None:
            self.invariants.started(seat.name, node)

    def _start(self, step: Start) -> None:
        seat = self._seat(step.node)
        if seat.node is not None:
            return
        disk = seat.backup if step.disk == "copied" else seat.disk
        if step.disk == "lost" or disk is None:
            self._begin_life(seat, step.incarnation)
            return
        node = seat.node = self._make(seat, disk.replica.incarnation)
        node.state.rows.apply(disk.rows.whole(), whole=True)
        seat.over = disk.over or step.disk != "kept"
        node.resume(disk.replica.incarnation, vouched=not seat.over)
        seat.disk, seat.unsaved = Disk(disk.rows, disk.replica, seat.over), False
        if self.invariants is not None:
            self.invariants.started(seat.name, node)
            self.invariants.check_subsumed(seat.name, disk.rows.clock.items(), "durable")

    def _crash(self, seat: Seat, node: GossipNode) -> None:
        """What the node wrote and did not save was told to nobody, and has never been."""
        seat.node = None
        if self.invariants is None:
            seat.disk = Disk(node.state.rows, node.replica, seat.over)
            return
        kept = seat.disk.rows.seq(node.replica) if seat.disk else 0
        self.invariants.stopped(seat.name)
        if not seat.over and node.state.rows.seq(node.replica) > kept:
            self.invariants.lost(node.replica, kept)
            self.unsaved_lost += 1

    def _changed(self, seat: Seat, node: GossipNode) -> None:
        """The state of a node changed: look at it."""
        seat.unsaved = True
        if self.invariants is not None:
            self.invariants.observe(seat.name, node)
            if len(self._clocks) < CLOCKS_NOTED:
                self._clocks.append(node.clock)

    def _save(self, seat: Seat, node: GossipNode) -> None:
        """Put all that changed on disk. Unwatched fleets do that when a node goes down: they have no unsaved writes."""
        if seat.unsaved and self.invariants is not None:
            seat.disk = Disk(node.state.rows.copy(), node.replica, seat.over)
            seat.unsaved = False

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write(self, seat: Seat, node: GossipNode, step: Write) -> None:
        """A mutation: done by the node, noted in the log, and compared with what was asked."""
        log = self.invariants
        if log is None:
            do(node, step)
            return
        life, lo, as_it_was = node.replica, node.state.rows.seq(node.replica), _fingerprint(node)
        due = expected(node, step, log, writes_on=not seat.over)
        try:
            do(node, step)
        except (KeyError, ConstraintCrdtError) as error:
            if not may_refuse(node, step, log):
                raise Violation("refusal", f"{seat.name} refused {step}: {error}") from error
            if _fingerprint(node) != as_it_was:
                raise Violation("refusal", f"{seat.name} refused {step} and changed all the same") from error
            return
        if node.replica != life:
            lo, seat.over = 0, False
        cells = log.wrote(node, lo, due.counted, due.said)
        self.written.update(kinds(step, cells))
        removed = {tuple(dot) for cell in cells if cell.kind == REMOVE for dot in removed_dots(cell)}
        if due.named is not None and removed != due.named and not (due.some and removed <= due.named):
            raise Violation("write", f"{seat.name} wrote {step} and named {sorted(removed)} instead of {sorted(due.named)}")
        if due.nothing and any(cell.kind != RETIRE for cell in cells):
            raise Violation("write", f"{seat.name} wrote {step}, which was known")
        if cells:
            self._changed(seat, node)
        if not is_done(node, step):
            raise Violation("write", f"{seat.name} wrote {step} and does not read it")
        if not step.unsaved:
            self._save(seat, node)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _send(self, seat: Seat, node: GossipNode, to: str, messages: Sequence[GossipMessage], number: int, room: int) -> None:
        """Put messages on their way, what they tell on disk first."""
        if not messages:
            return
        self._save(seat, node)
        for message in messages:
            pieces = node.encoded(message, to, room or MESSAGE_BYTES)
            for data in pieces:
                last = data is pieces[-1]
                mutations = mutations_in(message) if last else 0
                name = number, len(self._sent)
                sent = Sent(name, seat.name, to, data, last and not isinstance(message, Ack), mutations)
                self._sent.append(sent)
                self._letters[sent.name] = sent

    def _stale(self, seat: Seat, node: GossipNode, step: Stale) -> None:
        known = [clock for clock in self._clocks if node.clock.subsumes(clock)]
        if known and step.peer != step.node:
            message = node.delta_since(known[step.back % len(known)])
            self._send(seat, node, step.peer, [message], step.number, step.room)

    def _deliver(self, seat: Seat, node: GossipNode, step: Deliver) -> None:
        letter = self._letters.get(step.message) if step.again else self._letters.pop(step.message, None)
        if letter is None:
            return
        harmed = step.cut > 0 or letter.to != step.node
        data = letter.data[: step.cut] if step.cut else letter.data
        before = node.state.rows.clock_mark.count
        responses, sender = self._receive(seat, node, data, harmed=harmed)
        self.carried += letter.mutations
        self.taken += node.state.rows.clock_mark.count - before
        if step.cut and sender:
            raise Violation("refusal", f"{seat.name} took a message of which only {step.cut} of {len(letter.data)} bytes came")
        self._send(seat, node, sender, responses, step.number, step.room)

    def _receive(self, seat: Seat, node: GossipNode, data: bytes, *, harmed: bool) -> tuple[list[GossipMessage], str]:
        """Have a node take a message; returns what it answers, and whom (no name: it was not taken)."""
        as_it_was, sender = _fingerprint(node), ""
        try:
            message = decode_message(data, max_bytes=None)
            sender = message.node.node_id
            result = node.receive(message)
        except ConstraintCrdtError as error:
            if not harmed and sender not in node.state.retirements:
                raise Violation("refusal", f"{seat.name} refused a well-meant message: {error}") from error
            if _fingerprint(node) != as_it_was:
                raise Violation("refusal", f"{seat.name} refused a message and changed all the same: {error}") from error
            return [], ""
        seat.over |= result.outlived is not None
        if result.diverged:
            raise Violation("hash", f"{seat.name} and {sender} are at the same clock with different hashes")
        if self.invariants is not None and isinstance(message, Ping | Part) and _is_for(message, node):
            self.invariants.heard(seat.name, node, sender, message.time if isinstance(message, Ping) else None)
        if _fingerprint(node) != as_it_was:
            self._changed(seat, node)
        if self.invariants is not None:
            self.invariants.check_evidence(seat.name, node, sender)
        return result.responses, sender

    def _exchange(self, seat: Seat, peer: str) -> None:
        """All messages of one exchange, one after the other."""
        other = self._seats.get(peer)
        if other is None or other.node is None or other is seat:
            return
        for _ in range(ATTEMPTS):
            self._talk(seat, other)
            a, b = seat.node, other.node
            assert a is not None  # noqa: S101 - it was up, and nothing here stops it
            if a.state_hash == b.state_hash or any(one.node_id in two.state.retirements for one in (a, b) for two in (a, b)):
                return
        raise Violation("exchange", f"{seat.name} and {peer} differ after {ATTEMPTS} exchanges that nothing disturbed")

    def _talk(self, seat: Seat, other: Seat) -> None:
        """Deliver the messages of an exchange, one after the other."""
        assert seat.node is not None  # noqa: S101 - see above
        waiting: list[tuple[Seat, Seat, GossipMessage]] = [(seat, other, seat.node.begin(other.name))]
        said = 0
        while waiting:
            sender, reader, message = waiting.pop(0)
            if sender.node is None or reader.node is None:
                return
            self._save(sender, sender.node)
            for data in sender.node.encoded(message, reader.name):
                said += 1
                responses, _ = self._receive(reader, reader.node, data, harmed=False)
                waiting += [(reader, sender, response) for response in responses]
            if said > MESSAGES_PER_EXCHANGE:
                raise Violation("exchange", f"{seat.name} and {other.name} talk without end")


def _is_for(message: GossipMessage, node: GossipNode) -> bool:
    """False for a message to another life, or from another life of the same node: nothing is taken from those."""
    return message.to in (None, node.replica.incarnation) and message.node.node_id != node.node_id


def _fingerprint(node: GossipNode) -> tuple[object, ...]:
    """What differs if anything in the state does: hash (cells and clock), how many cells (removals), floors; and the life."""
    rows = node.state.rows
    return node.state_hash, len(rows), rows.floors, node.replica
