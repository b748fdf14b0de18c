"""Histories: the fleet that carries out their steps, liveness phase, replay, files and shrinking.

The fleet of a history has nodes, their disks and the messages between them. Rules:

- No random number is drawn and no time passes: the same fleet and the same steps give the same states, byte for byte.
- The state in a message is on disk before the message is sent, as in the running node. So a crash loses only writes that no
  other node knows.
- Every message is encoded, and delivered as bytes.
- A step with nothing to act on does nothing. A step that breaks an invariant raises `Violation`, and so does any exception of a
  node its documentation does not name.

A history holds every step, so it replays without the code that drew it, also in a later version. It ends with the liveness phase
(docs/design/invariants.md#invariant-5-convergence).

Shrinking is delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the steps: ever
smaller stretches are left out while the same invariant, or another invariant with the same cause, is violated. In between, steps
are replaced by simpler ones: a whole exchange for its messages, a message for its parts, a plain write for an exchange, no faults,
no times. At the end every pair of steps is left out together, because some go only in pairs: an add and its removal, for example.
Rules:

- Every part of a history is a history: a step with nothing to act on does nothing.
- When all faults have ended, all nodes have to become equal within the bound of rounds.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import TypeVar

import msgspec

from constraint_crdt.crdt.cells import REMOVE, Run, removed_dots
from constraint_crdt.crdt.clock import Replica, VectorClock
from constraint_crdt.crdt.limits import MESSAGE_BYTES, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.signed_rows import SETTLED, SIGNATURE
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.protocol.authority import OPERATOR, MemberOfFleet
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import Ack, Delta, GossipMessage, Part, Ping, Resume, Sync, decode_message
from constraint_crdt.protocol.peers import Schedule
from constraint_crdt.simulation.invariants import Invariants, Violation
from constraint_crdt.simulation.steps import (
    LEAST_ROOM,
    AnyStep,
    Backup,
    Begin,
    Budget,
    Collect,
    Crash,
    Deliver,
    MessageName,
    NodeStart,
    Record,
    SetClock,
    Stale,
    Start,
    WholeExchange,
    Write,
    do,
    expected,
    is_done,
    kinds,
    may_refuse,
    parts,
)
from constraint_crdt.types.nodes import CERTIFICATE, RETIRE

LIMITS = Limits(burst_bytes=1024, stubs=6)
"""The limits of every node: so small that large transfers pause and have to be resumed, and that writers settle."""

OF_LIVES = (RETIRE, CERTIFICATE, SIGNATURE, SETTLED)
"""The kinds of cells that a write may bring beside its own."""

FLEET = "chaos"
"""The name of every simulated fleet."""

MAX_SKEW = 1.0
"""The bound on clock skew of the nodes, in seconds."""

MESSAGES_PER_EXCHANGE = 256
"""More messages than an exchange of two nodes may take, whatever they knew of each other before."""

ATTEMPTS = 3
"""Exchanges after which two nodes are equal: an extra exchange for each side that first completes an older transfer."""

CLOCKS_NOTED = 64
"""Earlier clocks kept for `Stale` steps."""

COPIES_OF_OWN_LIFE = 1000
"""The first of the incarnations chosen by nodes, apart from the incarnations of steps."""


@dataclass(slots=True)
class DiskContent:
    """The content of a node's disk."""

    rows: Rows
    replica: Replica
    over: bool
    """The life is over and must not write any more."""


@dataclass(slots=True)
class Host:
    """The place of a node: its successive lives, and its disk."""

    name: str
    node: GossipNode | None = None
    time: int = 1
    set_by: int = 0
    """ns by which its clock was set."""
    disk: DiskContent | None = None
    backup: DiskContent | None = None
    unsaved: bool = False
    over: bool = False
    """Others know more of the present life than the node itself, so it must not write any more."""


@dataclass(frozen=True)
class SimulatedMember:
    """A member of a simulated fleet. Its key is its name."""

    node: str
    role: str = OPERATOR
    since: int = 0
    issuer: str | None = None

    @property
    def fingerprint(self) -> str:
        """Stands for the key."""
        return blake2b(self.node.encode(), digest_size=32).hexdigest()


class SimulatedCredentials:
    """Signatures as keyed hashes, a thousand times cheaper than real ones. A simulation has no attackers that could make them."""

    def __init__(self, node: str) -> None:
        self.member = SimulatedMember(node)
        self.chain = node.encode()

    def sign(self, text: bytes) -> bytes:
        """The signature of a text."""
        return blake2b(text, key=self.member.fingerprint.encode(), digest_size=64).digest()

    def read(self, chain: bytes) -> SimulatedMember:
        """The member that a certificate names."""
        return SimulatedMember(chain.decode())

    def verifies(self, member: MemberOfFleet, signature: bytes, text: bytes) -> bool:
        """True if the signature of the text is by the key of the member."""
        return blake2b(text, key=member.fingerprint.encode(), digest_size=64).digest() == signature


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A message in transit."""

    name: MessageName
    sender: str
    to: str
    data: bytes
    wants_reply: bool
    mutations: int
    """The carried mutations; of a message in parts, the last part carries all."""
    is_last: bool = True
    """False: more of the same answer follows at once."""
    is_resume: bool = False
    """A question for the rest of a transfer: later there is less to ask for."""


class Fleet:
    """A fleet: carries out steps."""

    def __init__(self, members: Sequence[NodeStart], *, watched: bool = True, limits: Limits = LIMITS, paced: bool = False) -> None:
        """`watched`: invariants are checked at every step, at several times the cost. `paced`: nodes measure their links by the
        times of the steps, and pace large messages.
        """
        self.paced = paced
        self.invariants = Invariants() if watched else None
        self.unsaved_lost = 0
        """Crashes that lost an unacknowledged write."""
        self.written: Counter[str] = Counter()
        """Occurrences of each kind of write; counted only if the fleet is watched."""
        self.carried = self.taken = 0
        """Mutations carried by messages, and the new ones among them."""
        self._limits = limits
        self._hosts: dict[str, Host] = {}
        self._messages: dict[MessageName, SentMessage] = {}
        self._clocks: list[VectorClock] = [VectorClock()]
        self._lives = COPIES_OF_OWN_LIFE
        self._signed = any(member.role for member in members)
        self._sent: list[SentMessage] = []
        for member in members:
            self._begin_life(self._host(member.name), member.incarnation)

    # --- looking -----------------------------------------------------------------------------------------------------

    def may_roll_back(self, name: str, peer: str) -> bool:
        """A node has an older backup of its present life, and a peer knows all that the node wrote since: an exchange shows it."""
        host, other = self._hosts.get(name), self.node(peer)
        backup = None if host is None else host.backup
        if other is None or backup is None or backup.over or self.invariants is None or name == peer:
            return False
        states = [other.state, *([host.node.state] if host is not None and host.node is not None else [])]
        if any({name, peer} & {*state.retirements.nodes} for state in states):
            return False
        known = other.state.rows.seq(backup.replica)
        return backup.rows.seq(backup.replica) < known == self.invariants.length(backup.replica)

    @property
    def nodes(self) -> dict[str, GossipNode]:
        """The running nodes, by name, in the order of their first appearance."""
        return {name: host.node for name, host in self._hosts.items() if host.node is not None}

    def node(self, name: str) -> GossipNode | None:
        """A node, or None if it is down."""
        host = self._hosts.get(name)
        return host.node if host else None

    def forget_message(self, name: MessageName) -> None:
        """Drop a message without further arrivals."""
        self._messages.pop(name, None)

    # --- steps -------------------------------------------------------------------------------------------------------

    def apply(self, step: AnyStep) -> list[SentMessage]:
        """Carry out a step; returns the messages sent. Raises `Violation`."""
        self._sent = []
        try:
            self._dispatch(step)
        except Violation:
            raise
        except Exception as error:  # any exception of a node is a finding
            raise Violation("error", f"{step.node}: {type(error).__name__}: {error}") from error
        return self._sent

    def _dispatch(self, step: AnyStep) -> None:
        if isinstance(step, Start):
            self._start(step)
            return
        host = self._hosts.get(step.node)
        if host is None or host.node is None:
            return
        host.time = step.time or host.time
        if isinstance(step, WholeExchange):  # it takes no time, so nothing in it can be paced
            host.node.links.at = None
        elif not isinstance(step, SetClock):
            self.time_links(step.node, host.time)
        self._act(host, host.node, step)

    def time_links(self, name: str, time: int) -> None:
        """Let the links of a running node of a paced fleet go by its clock, which reads `time`, as if that had never been set."""
        host = self._hosts[name]
        if self.paced and host.node is not None:
            host.node.links.at = (time - host.set_by) / 1e9

    def _act(self, host: Host, node: GossipNode, step: AnyStep) -> None:
        """A step of a running node."""
        match step:
            case Deliver():
                self._deliver(host, node, step)
            case Begin():
                if step.peer != step.node:
                    message = node.ping() if step.bare else node.begin(step.peer)
                    self._send(host, node, step.peer, [message], step.number, step.room)
            case WholeExchange():
                self._exchange(host, step.peer)
            case Stale():
                self._stale(host, node, step)
            case Collect():
                if node.collect(node.tracker if step.acknowledged else None):
                    self._changed(host, node)
            case Backup() | Crash() | SetClock():
                self._befall(host, node, step)
            case Write():
                for part in parts(step):
                    self._write(host, node, part)

    def _befall(self, host: Host, node: GossipNode, step: Backup | Crash | SetClock) -> None:
        """A step of the machine of a running node."""
        if isinstance(step, Backup):
            host.backup = host.disk
        elif isinstance(step, Crash):
            self._crash(host, node)
        else:
            self._set_clock(host, node, step.by)

    def _set_clock(self, host: Host, node: GossipNode, by: int) -> None:
        """Set a clock by `by`, to the present time of its host."""
        host.time -= by
        node.state.ages.read_clock()  # ages are kept from the last look at the clock
        node.time.now()
        host.time, host.set_by = host.time + by, host.set_by + by
        node.state.ages.read_clock()
        if self.invariants is not None:
            self.invariants.clock_set(host.name, node, by)

    # --- lives -------------------------------------------------------------------------------------------------------

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            self._hosts[name] = Host(name)
        return self._hosts[name]

    def _new_life(self) -> int:
        self._lives += 1
        return self._lives

    def _make(self, host: Host, incarnation: int) -> GossipNode:
        return GossipNode(
            host.name,
            incarnation=incarnation,
            now=lambda: host.time,
            renew=self._new_life,
            fleet=FLEET,
            limits=self._limits,
            max_skew=MAX_SKEW,
            credentials=SimulatedCredentials(host.name) if self._signed else None,
            steady=None if self.invariants is None else lambda: host.time - host.set_by,
        )

    def _begin_life(self, host: Host, incarnation: int) -> None:
        node = host.node = self._make(host, incarnation or self._new_life())
        host.disk = DiskContent(node.state.rows.copy(), node.replica, over=False)
        host.unsaved = host.over = False
        if self.invariants is not None:
            self.invariants.started(host.name, node)

    def _start(self, step: Start) -> None:
        host = self._host(step.node)
        if host.node is not None:
            return
        host.time = step.time or host.time
        rolled_back = step.disk == "rolled back" and self.may_roll_back(step.node, step.peer)
        disk = host.backup if step.disk in ("copied", "rolled back") else host.disk
        if step.disk == "lost" or disk is None:
            self._begin_life(host, step.incarnation)
            return
        node = host.node = self._make(host, disk.replica.incarnation)
        node.state.rows.restore(disk.rows.whole())
        host.over = disk.over or not (step.disk == "kept" or rolled_back)
        node.resume(disk.replica.incarnation, vouched=not host.over)
        host.disk, host.unsaved = DiskContent(disk.rows, disk.replica, host.over), False
        if self.invariants is not None:
            self.invariants.started(host.name, node)
            self.invariants.check_subsumed(host.name, disk.rows.clock.items(), "durable")
        if rolled_back:
            self._exchange(host, step.peer)
            if not host.over:
                raise Violation("dot", f"{host.name} goes on as {node.replica}, of which {step.peer} knows more than its disk")

    def _crash(self, host: Host, node: GossipNode) -> None:
        """Stop a node. Its unsaved writes were told to no other node, so they count as never written."""
        host.node = None
        if self.invariants is None:
            host.disk = DiskContent(node.state.rows, node.replica, host.over)
            return
        kept = host.disk.rows.seq(node.replica) if host.disk else 0
        self.invariants.stopped(host.name)
        if not host.over and node.state.rows.seq(node.replica) > kept:
            self.invariants.lost(node.replica, kept)
            self.unsaved_lost += 1

    def _changed(self, host: Host, node: GossipNode) -> None:
        """Check a node whose state changed."""
        host.unsaved = True
        if self.invariants is not None:
            self.invariants.observe(host.name, node)
            if len(self._clocks) < CLOCKS_NOTED:
                self._clocks.append(node.clock)

    def _save_own(self, host: Host, node: GossipNode) -> None:
        """Save what the node wrote, and the end of its life, as before a message. What it has of others may be lost in a crash."""
        disk, life = host.disk, node.replica
        if disk is None or (disk.replica, disk.over) != (life, host.over) or node.state.rows.seq(life) > disk.rows.seq(life):
            self._save(host, node)

    def _save(self, host: Host, node: GossipNode) -> None:
        """Save all changes to disk. Unwatched fleets save when a node goes down: they have no unsaved writes."""
        if host.unsaved and self.invariants is not None:
            host.disk = DiskContent(node.state.rows.copy(), node.replica, host.over)
            host.unsaved = False

    # --- writing -----------------------------------------------------------------------------------------------------

    def _write(self, host: Host, node: GossipNode, step: Write) -> None:
        """Carry out a mutation, log it, and compare it with the request."""
        log = self.invariants
        if log is None:
            do(node, step)
            return
        life, lo, as_it_was = node.replica, node.state.rows.seq(node.replica), _fingerprint(node)
        writes_on = not host.over and not node.state.retirements.ended(life)
        due = expected(node, step, log, writes_on=writes_on)
        try:
            do(node, step)
        except (KeyError, ConstraintCrdtError) as error:
            if not may_refuse(node, step, log):
                raise Violation("refusal", f"{host.name} refused {step}: {error}") from error
            if _fingerprint(node) != as_it_was:
                raise Violation("refusal", f"{host.name} refused {step} and changed all the same") from error
            return
        node.local.seal()
        if node.replica != life:
            lo, host.over = 0, False
        cells = log.wrote(node, lo, due.counted, due.contributions)
        self.written.update(kinds(step, cells))
        removed = {tuple(dot) for cell in cells if cell.kind == REMOVE for dot in removed_dots(cell)}
        if due.named is not None and removed != due.named and not (due.some and removed <= due.named):
            raise Violation("write", f"{host.name} wrote {step} and named {sorted(removed)} instead of {sorted(due.named)}")
        if due.nothing and any(cell.kind not in OF_LIVES for cell in cells):
            raise Violation("write", f"{host.name} wrote {step}, which was known")
        if cells:
            self._changed(host, node)
        if not is_done(node, step):
            raise Violation("write", f"{host.name} wrote {step} and does not read it")
        if not step.unsaved:
            self._save(host, node)
        if isinstance(step, Budget):
            log.budgets.note(node, step.name, host.time, step.at)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _send(self, host: Host, node: GossipNode, to: str, messages: Sequence[GossipMessage], number: int, room: int) -> None:
        """Send messages, after saving what the node wrote."""
        if not messages:
            return
        self._save_own(host, node)
        for message in messages:
            pieces = node.encoded(message, to, room or MESSAGE_BYTES)
            for data in pieces:
                last = data is pieces[-1]
                mutations = mutations_in(message) if last else 0
                name = number, len(self._sent)
                sent = SentMessage(
                    name, host.name, to, data, last and not isinstance(message, Ack), mutations,
                    is_last=last and message is messages[-1], is_resume=isinstance(message, Resume),
                )  # fmt: skip
                self._sent.append(sent)
                self._messages[sent.name] = sent

    def _stale(self, host: Host, node: GossipNode, step: Stale) -> None:
        known = [clock for clock in self._clocks if node.clock.subsumes(clock)]
        if known and step.peer != step.node:
            message = node.delta_since(known[step.back % len(known)])
            self._send(host, node, step.peer, [message], step.number, step.room)

    def _deliver(self, host: Host, node: GossipNode, step: Deliver) -> None:
        message = self._messages.get(step.message) if step.again else self._messages.pop(step.message, None)
        if message is None:
            return
        harmed = step.cut > 0 or message.to != step.node
        data = message.data[: step.cut] if step.cut else message.data
        before = node.state.rows.clock_mark.count
        responses, sender = self._receive(host, node, data, harmed=harmed)
        self.carried += message.mutations
        self.taken += node.state.rows.clock_mark.count - before
        if step.cut and sender:
            raise Violation("refusal", f"{host.name} took a message of which only {step.cut} of {len(message.data)} bytes came")
        self._send(host, node, sender, responses, step.number, step.room)

    def _receive(self, host: Host, node: GossipNode, data: bytes, *, harmed: bool) -> tuple[list[GossipMessage], str]:
        """Let a node receive a message; returns the answers and their reader ("": the message was not accepted)."""
        as_it_was, sender = _fingerprint(node), ""
        try:
            message = decode_message(data, max_bytes=None)
            sender = message.node.node_id
            result = node.receive(message)
        except ConstraintCrdtError as error:
            if not harmed and sender not in node.state.retirements:
                raise Violation("refusal", f"{host.name} refused a well-meant message: {error}") from error
            if _fingerprint(node) != as_it_was:
                raise Violation("refusal", f"{host.name} refused a message and changed all the same: {error}") from error
            return [], ""
        host.over |= result.outlived is not None
        if result.diverged:
            raise Violation("hash", f"{host.name} and {sender} are at the same clock with different hashes")
        if self.invariants is not None and isinstance(message, Ping | Part) and _is_for(message, node):
            self.invariants.heard(host.name, node, sender, message.time if isinstance(message, Ping) else None)
        if _fingerprint(node) != as_it_was:
            self._changed(host, node)
        if self.invariants is not None:
            self.invariants.check_evidence(host.name, node, sender)
        return result.responses, sender

    def _exchange(self, host: Host, peer: str) -> None:
        """Run a whole exchange, again if an older transfer had to be completed first."""
        other = self._hosts.get(peer)
        if other is None or other.node is None or other is host:
            return
        other.node.links.at = None
        for _ in range(ATTEMPTS):
            self._talk(host, other)
            a, b = host.node, other.node
            assert a is not None  # noqa: S101 - it was up, and nothing here stops it
            if a.state_hash == b.state_hash or any(one.node_id in two.state.retirements for one in (a, b) for two in (a, b)):
                return
        raise Violation("exchange", f"{host.name} and {peer} differ after {ATTEMPTS} exchanges that nothing disturbed")

    def _talk(self, host: Host, other: Host) -> None:
        """Deliver the messages of an exchange in their order."""
        assert host.node is not None  # noqa: S101 - see above
        waiting: list[tuple[Host, Host, GossipMessage]] = [(host, other, host.node.begin(other.name))]
        said = 0
        while waiting:
            sender, reader, message = waiting.pop(0)
            if sender.node is None or reader.node is None:
                return
            self._save_own(sender, sender.node)
            for data in sender.node.encoded(message, reader.name):
                said += 1
                responses, _ = self._receive(reader, reader.node, data, harmed=False)
                waiting += [(reader, sender, response) for response in responses]
            if said > MESSAGES_PER_EXCHANGE:
                raise Violation("exchange", f"{host.name} and {other.name} talk without end")


def _is_for(message: GossipMessage, node: GossipNode) -> bool:
    """False for a message to another life, or from another life of the same node, which has no effect."""
    return message.to in (None, node.replica.incarnation) and message.node.node_id != node.node_id


def _fingerprint(node: GossipNode) -> tuple[object, ...]:
    """A value that differs if the state differs: hash (cells and clock), number of cells (tombstones), floors; and the life."""
    rows = node.state.rows
    return node.state_hash, len(rows), rows.floors, node.replica


def mutations_in(message: GossipMessage) -> int:
    """The number of mutations in a message, as its sender made it. O(runs) where the sender has not counted them."""
    if not isinstance(message, Delta | Sync):
        return 0
    delta = message.delta if isinstance(message, Delta) else message.state
    if delta.mutations is not None:
        return delta.mutations
    return sum([run.hi - run.lo for run in delta.runs if isinstance(run, Run)])


SPARE_ROUNDS = 1
"""Rounds beyond the least possible, ceil(log3 n), that may pass until all nodes are equal."""


def is_settled(fleet: Fleet) -> bool:
    """True if all running nodes agree on who is retired, and all others of them are equal."""
    nodes = fleet.nodes
    readings = {tuple(node.state.retirements) for node in nodes.values()}
    return len(readings) <= 1 and len({node.state_hash for name, node in nodes.items() if name not in set().union(*readings)}) <= 1


def settle(fleet: Fleet) -> None:
    """The liveness phase: undisturbed rounds of all running nodes. Raises `Violation` if they stay different.

    Nodes that differ on who is retired settle that first, with the retired ones.
    """
    if len({tuple(node.state.retirements) for node in fleet.nodes.values()}) > 1:
        number = _rounds(fleet, list(fleet.nodes), 0)
        readings = {tuple(node.state.retirements) for node in fleet.nodes.values()}
        if len(readings) > 1:
            raise Violation("retirement", f"{len(fleet.nodes)} nodes read {sorted(readings)} as retired after the rounds")
    else:
        number = 0
    ended = next(iter(fleet.nodes.values())).state.retirements if fleet.nodes else ()
    names = [name for name in fleet.nodes if name not in ended]
    if len(names) < 2:
        return
    _rounds(fleet, names, number)
    hashes = {node.state_hash for name, node in fleet.nodes.items() if name in names}
    if len(hashes) > 1:
        rounds = Schedule(len(names)).rounds + SPARE_ROUNDS
        raise Violation("liveness", f"{len(names)} nodes have {len(hashes)} states after {rounds} rounds")


def _rounds(fleet: Fleet, names: Sequence[str], number: int) -> int:
    """Run the rounds of these nodes. `number`: of the last step before; returns that of the last step."""
    schedule = Schedule(len(names))
    for round_ in range(schedule.rounds + SPARE_ROUNDS):
        for place, name in enumerate(names):
            number -= 1  # steps of the history count up from 1
            peer = names[(place + schedule.offset(round_)) % len(names)]
            fleet.apply(WholeExchange(number=number, node=name, peer=peer))
    return number


FORMAT = "constraint-crdt history"
VERSION = 1
FILE_BYTES = 16 * 1024 * 1024
"""The largest file to be read, in bytes."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at its start, its steps, and the violation they lead to."""

    format: str = FORMAT
    version: int = VERSION
    seed: int
    """The seed it was drawn from; after shrinking only a name."""
    invariant: str
    """The name of the violated invariant."""
    sentence: str
    """The violation in words."""
    members: tuple[NodeStart, ...]
    steps: tuple[AnyStep, ...]
    paced: bool = False
    """The nodes measure their links."""


def replay(members: Sequence[NodeStart], steps: Sequence[AnyStep], *, paced: bool = False) -> Violation | None:
    """Carry out a history and its liveness phase; returns the violation, or None. `paced`: as in `History`."""
    try:
        fleet = Fleet(members, paced=paced)
        for step in steps:
            fleet.apply(step)
        settle(fleet)
    except Violation as found:
        return found
    return None


def to_json(history: History) -> str:
    """A history as the text of its file."""
    return msgspec.json.format(msgspec.json.encode(history), indent=1).decode() + "\n"


def from_json(data: bytes) -> History:
    """The history in a file. Raises `ConstraintCrdtError`, with advice, for any other content."""
    if len(data) > FILE_BYTES:
        raise ConstraintCrdtError(f"a history has at most {FILE_BYTES} bytes, not {len(data)}")
    try:
        head = msgspec.json.decode(data, type=_FileHead)
        if head.format != FORMAT:
            raise ConstraintCrdtError("this is no history: give a file that `simulate --chaos` wrote")
        if head.version != VERSION:
            raise ConstraintCrdtError(f"this history has version {head.version}, and this program reads {VERSION}: upgrade it")
        return msgspec.json.decode(data, type=History)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConstraintCrdtError(f"this is no history: {error}") from None


class _FileHead(msgspec.Struct):
    format: str = ""
    version: int = 0


DIVERGENCE = frozenset(
    ("state", "hash", "readings", "counts", "estimates", "members", "decay", "exchange", "liveness", "retirement")
)
"""Invariants with a common cause, two differing nodes: the first violated invariant says little."""

MOST_REPLAYS = 4000
"""Replays after which shrinking stops with the shortest history so far."""

_NEAR = 8

FEW = 40
"""Steps of a history below which every pair of steps is left out together."""

Element = TypeVar("Element")


class _Spent(Exception):
    """No replays are left."""


class _Attempts:
    """Replays candidates, and keeps the best still violating the invariant."""

    def __init__(self, history: History, most: int) -> None:
        self.members, self.steps, invariant = list(history.members), list(history.steps), history.invariant
        self._paced = history.paced
        self._alike = DIVERGENCE if invariant in DIVERGENCE else {invariant}
        self._left = most

    def try_steps(self, steps: Sequence[AnyStep]) -> bool:
        """Keep these steps if they still lead to the violation."""
        found = self._fails(self.members, steps)
        if found:
            self.steps = list(steps)
        return found

    def try_members(self, members: Sequence[NodeStart]) -> bool:
        """Keep these members if they still lead to the violation."""
        found = self._fails(members, self.steps)
        if found:
            self.members = list(members)
        return found

    def _fails(self, members: Sequence[NodeStart], steps: Sequence[AnyStep]) -> bool:
        self._left -= 1
        if self._left < 0:
            raise _Spent
        violation = replay(members, steps, paced=self._paced)
        return violation is not None and violation.invariant in self._alike


def shrink(history: History, *, most_replays: int = MOST_REPLAYS) -> History:
    """The shortest history found to lead to the same violation. Deterministic.

    Raises `InvalidValue` if its steps lead to no such violation: a bound on time is not in the steps.
    """
    attempts = _Attempts(history, most_replays)
    try:
        if not attempts.try_steps(history.steps):
            raise InvalidValue("nothing goes wrong in the steps of this history")
        _exchange_whole(attempts)
        before = None
        while before != attempts.steps:
            before = attempts.steps
            _leave_out(attempts.steps, attempts.try_steps)
            _gather(attempts)
            _join_parts(attempts)
            _write_instead(attempts)
            _make_plain(attempts)
            if before == attempts.steps:
                _leave_out_two(attempts)
        _leave_out(attempts.members, attempts.try_members)
    except _Spent:
        pass
    violation = replay(attempts.members, attempts.steps, paced=history.paced)
    assert violation is not None  # noqa: S101 - each kept step and member still leads to it
    return msgspec.structs.replace(
        history,
        members=tuple(attempts.members),
        steps=tuple(attempts.steps),
        invariant=violation.invariant,
        sentence=str(violation),
    )


def _leave_out(items: Sequence[Element], keep: Callable[[Sequence[Element]], bool]) -> None:
    """Leave out stretches, the last ones first, then smaller ones, until none can be left out."""
    kept = list(items)
    size = max(1, len(kept) // 2)
    while True:
        went = False
        end = len(kept)
        while end > 0:
            start = max(0, end - size)
            rest = kept[:start] + kept[end:]
            if keep(rest):
                kept, went = rest, True
            end = start
        if size == 1 and not went:
            return
        size = max(1, size // 2) if not went else size


def _exchange_whole(attempts: _Attempts) -> None:
    """Replace all messages by whole exchanges, if the violation remains: most of the shrinking at once."""
    attempts.try_steps(
        [_as_exchange(step) if isinstance(step, Begin) else step for step in attempts.steps if not isinstance(step, Deliver)]
    )


def _as_exchange(begin: Begin) -> WholeExchange:
    return WholeExchange(number=begin.number, node=begin.node, peer=begin.peer, time=begin.time)


def _gather(attempts: _Attempts) -> None:
    """Replace the messages of an exchange by a whole exchange, where it began or where it ended."""
    begins = [step for step in attempts.steps if isinstance(step, Begin)]
    for begin in begins:
        messages = _followed(attempts.steps, begin)
        rest = [step for step in attempts.steps if step.number not in messages or step is begin]
        first = rest.index(begin)
        last = first + sum(step.number not in messages for step in attempts.steps[first : _last(attempts.steps, messages)])
        rest.remove(begin)
        for place in dict.fromkeys((first, last)):
            if attempts.try_steps([*rest[:place], _as_exchange(begin), *rest[place:]]):
                break


def _followed(steps: Sequence[AnyStep], begin: AnyStep) -> set[int]:
    """The numbers of a step that sent a message, and of all steps that followed from it."""
    messages = {begin.number}
    for step in steps:
        if isinstance(step, Deliver) and step.message[0] in messages:
            messages.add(step.number)
    return messages


def _last(steps: Sequence[AnyStep], numbers: set[int]) -> int:
    return max(place for place, step in enumerate(steps) if step.number in numbers)


def _join_parts(attempts: _Attempts) -> None:
    """Let a message travel whole instead of in parts, and arrive where the last part did."""
    for step in list(attempts.steps):
        arrivals = [each for each in attempts.steps if isinstance(each, Deliver) and each.message[0] == step.number]
        if not getattr(step, "room", 0) or not arrivals or step not in attempts.steps:
            continue
        whole = {
            step.number: msgspec.structs.replace(step, room=0),
            arrivals[-1].number: msgspec.structs.replace(arrivals[-1], message=(step.number, 0)),
        }
        attempts.try_steps([whole.get(each.number, each) for each in attempts.steps if each not in arrivals[:-1]])


def _write_instead(attempts: _Attempts) -> None:
    """Replace writes and exchanges by the simplest write of the nodes concerned."""
    for step in list(attempts.steps):
        if isinstance(step, Begin | Stale) and step in attempts.steps:
            messages = _followed(attempts.steps, step)
            rest = [each for each in attempts.steps if each != step]
            attempts.try_steps([_own_write(each, each.node) if each.number in messages else each for each in rest])
        elif isinstance(step, WholeExchange | Write) and not isinstance(step, Record) and step in attempts.steps:
            for node in (step.node, step.peer) if isinstance(step, WholeExchange) else (step.node,):
                attempts.try_steps([_own_write(each, node) if each == step else each for each in attempts.steps])


def _own_write(step: AnyStep, node: str) -> AnyStep:
    return Record(number=step.number, node=node, satisfied=1)


def _leave_out_two(attempts: _Attempts) -> None:
    """Leave out two steps that are not adjacent, the last ones first, if few are left."""
    pairs = combinations(reversed(attempts.steps), 2) if len(attempts.steps) <= FEW else ()
    for pair in pairs:
        rest = [step for step in attempts.steps if step not in pair]
        if len(rest) < len(attempts.steps):
            attempts.try_steps(rest)


def _make_plain(attempts: _Attempts) -> None:
    """Replace steps by simpler steps, each on its own."""
    for place in range(len(attempts.steps)):
        for candidate in _plain(attempts.steps[place]):
            attempts.try_steps([*attempts.steps[:place], candidate, *attempts.steps[place + 1 :]])


def _plain(step: AnyStep) -> Iterator[AnyStep]:
    """The step with a field at its default, or nearer to it."""
    if getattr(step, "room", 0) > LEAST_ROOM:
        yield msgspec.structs.replace(step, room=LEAST_ROOM)
    if isinstance(step, Stale):
        yield from (msgspec.structs.replace(step, back=back) for back in range(min(step.back, _NEAR)))
    for field in msgspec.structs.fields(step):
        if field.default is not msgspec.NODEFAULT and getattr(step, field.name) != field.default:
            yield msgspec.structs.replace(step, **{field.name: field.default})
