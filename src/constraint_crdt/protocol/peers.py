"""Peers of a node: their clocks, and the selection of the peer of the next exchange.

Clocks of peers are the entries and runs in messages, and the last clock and hash evidenced by each peer. Three kinds of knowledge
are kept apart:

- *Evidence*, for every peer: the last clock and hash the peer stated or acknowledged. Never inferred from a message sent to
  it.
- *Links*, for recent peers: the round trip, rate and loss of the way to a peer. Measured by the caller, who passes times in.
- *Conversations*, for recent peers: the last few clocks either side stated to the other, so messages can name a clock in
  8 bytes. Several clocks, because messages are lost and overtake each other: with a single clock kept, 37 % of the Pings at 30 %
  loss had to spell out the whole clock, with four 7 %.

Rules of clocks:

- A peer is a node. Knowledge of an earlier life of the node is forgotten when a message of another life arrives.
- An entry or run in a message may have an index into a named clock instead of a replica; it is resolved before use.

Policies of peer selection, some of which place the nodes on a lattice:

| policy | its use |
|---|---|
| `Uniform` | robust, without knowledge of the fleet; a few rounds more than the least possible |
| `Schedule` | fleets with aligned rounds: the least possible number of rounds, ceil(log3 n), where no message is lost |
| `Nearby` | costly links: most exchanges are with neighbours, a few reach far |
| `ByDistance` | the same for peers that come and go, at measured distances; every peer gets its turn within a bound |

Why 3^r: in an exchange both sides learn, and in a round each node takes part in two, as initiator and as partner. A node
that knows the state of k neighbours on either side, and exchanges with the nodes 2k + 1 away on either side, knows three times as
much.

Why d^-2: with a probability that falls with the square of the distance every scale of a plane is equally likely to be bridged
(Kleinberg, "The small-world phenomenon", 2000), so a change spreads in about as many rounds as with `Uniform`, over links a fifth
as long.

Rules of policies:

- A policy is a function of the asking node, the round and a random number. Nodes are numbers from 0: places in a list that all
  agree on. Only `ByDistance` knows peers by name, since each node has its own list of peers, which changes.
- The lattice is that of the Eisenstein integers; `types.tile_cells` defines its points and their distance in hops.
"""

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from typing import Generic, Protocol, TypeVar, cast

import msgspec

from constraint_crdt.crdt.cells import Run, UnboundRun, core, resolve
from constraint_crdt.crdt.clock import ClockMark, Replica, StateHash, VectorClock
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MAX_COUNT, Limits
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.messages import Entry
from constraint_crdt.types.tile_cells import Position, hex_distance


def behind(mine: ClockMark, theirs: ClockMark, by: int | None = None) -> list[tuple[Replica, int]]:
    """The entries of `mine`, 0 included, for the rows in which `theirs` is ahead. O(rows).

    `by`: the number of mutations these rows are ahead by in total, if known: no row is compared for 0.
    """
    if by == 0 or theirs.entries is mine.entries:
        return []
    return core.ahead(theirs.entries, mine.entries)


def lowered(base: ClockMark, entries: Sequence[tuple[Replica, int]]) -> int | None:
    """The number of mutations by which these entries lower a clock; None if an entry does not. O(entries)."""
    return core.lowered(base.entries, entries) if entries else 0


def changed_entries(base: ClockMark, now: ClockMark, among: Collection[Replica] | None = None) -> list[Entry]:
    """The entries of `now` that differ from `base`, 0 for replicas that only `base` has.

    `among`: the replicas whose entries may differ, where that is known: then O(`among`), else O(entries).
    """
    if base == now:
        return []
    before, after = base.entries, now.entries
    if among is not None:
        return [(each, after.get(each, 0)) for each in among if before.get(each, 0) != after.get(each, 0)]
    changes: list[Entry] = [(replica, seq) for replica, seq in after.items() if replica not in before or before[replica] != seq]
    changes += [(replica, 0) for replica in before if replica not in after]
    return changes


def resolve_entries(entries: Sequence[Entry], base: ClockMark | None) -> Sequence[tuple[Replica, int]]:
    """Entries with their replicas. Raises `ConstraintCrdtError` for an index `base` does not have."""
    if not entries or not [ref for ref, _ in entries if isinstance(ref, int)]:
        return cast("Sequence[tuple[Replica, int]]", entries)
    return [(ref if isinstance(ref, Replica) else resolve(ref, base), seq) for ref, seq in entries]


def bind_runs(runs: Sequence[Run | UnboundRun], base: ClockMark | None) -> Sequence[Run]:
    """Runs with their replicas, each replica once. Raises `ConstraintCrdtError` for runs that do not fit `base`."""
    runs_bound = [run if isinstance(run, Run) else run.bind(base) for run in runs]
    if len(runs) > 1 and len({run.replica for run in runs_bound}) != len(runs_bound):
        raise ConstraintCrdtError("a transfer has two runs of one replica")
    return runs_bound


FEWEST_CONVERSATIONS = 64
"""Kept also where clocks are so long that `Limits.conversation_entries` allows fewer; `Limits.conversations` may allow fewer."""


def most_conversations(limits: Limits, entries: int) -> int:
    """The peers whose clocks are cached, where the longest clock has so many entries."""
    return min(limits.conversations, max(FEWEST_CONVERSATIONS, limits.conversation_entries // max(1, entries)))


STATEMENTS = 8
"""Clocks kept per conversation, of both sides together."""


class Statement(msgspec.Struct, eq=False):
    """A clock that either side stated, with its hash if known."""

    mark: ClockMark
    hash: StateHash | None


class Conversation(msgspec.Struct, eq=False):
    """The clocks that two replicas can name to each other."""

    statements: dict[int, Statement] = {}
    """By the total of the clock: `STATEMENTS` at most, the latest at the end."""
    common: ClockMark | None = None
    """The latest clock the peer has shown to know: the base of messages to it."""
    packs: bool = False
    """The peer said that it reads packed changes of a clock."""
    trouble: str = ""
    """The fault of the peer that it told last; empty for none."""
    told_time: int | None = None
    """When this node last told the peer its time, by its own clock; None: never."""
    told_trouble: str = ""
    """Its own fault that it told then."""
    stripped: tuple[int, int] | None = None
    """The clocks of both sides, as totals, when a transfer was last answered of which runs were left out here."""

    def state(self, mark: ClockMark, hash_: StateHash | None) -> None:
        """Note that either side stated this clock to the other."""
        statements, total = self.statements, mark.total
        known = statements.get(total)
        if known is not None:
            known.hash = hash_ or known.hash  # the later one: a repair changes the hash, not the clock
            return
        statements[total] = Statement(mark, hash_)
        if len(statements) > STATEMENTS:
            del statements[next(iter(statements))]

    def find(self, name: bytes, reader: Replica) -> ClockMark | None:
        """The clock a peer named to `reader`."""
        for known in reversed(self.statements.values()):
            if known.mark.name(reader) == name:
                return known.mark
        return None

    def find_hash(self, token: bytes, reader: Replica) -> Statement | None:
        """The statement whose hash a peer echoed to `reader`."""
        for known in reversed(self.statements.values()):
            if known.hash and known.hash.token(reader) == token:
                return known
        return None


class Peer(msgspec.Struct, eq=False):
    """The evidence of a peer."""

    replica: Replica
    mark: ClockMark | None = None
    hash: StateHash | None = None


class DeltaTracker:
    """Evidence per peer. `in`, `len` and iteration are over node ids."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """`limits`: bounds the number of peers and of conversations."""
        self._limits = limits
        self._peers: dict[str, Peer] = {}
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()
        self._longest = 0
        """Entries of the longest clock that a peer gave evidence of."""
        self._hashes: dict[StateHash | None, int] = {}
        self.changes = 0
        """Changes to the evidence so far: a version for caches."""
        self.anyone = Conversation()
        """Clocks stated to no particular peer: a first Ping, which a new peer answers."""

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __repr__(self) -> str:
        return f"DeltaTracker({ {node_id: str(peer.hash) for node_id, peer in self._peers.items()} })"

    def peer(self, node_id: str) -> Peer | None:
        """The evidence of a peer, or None before its first message."""
        return self._peers.get(node_id)

    def clock(self, node_id: str) -> VectorClock | None:
        """The last clock a peer gave evidence of; None before the first."""
        peer = self._peers.get(node_id)
        return VectorClock.over(peer.mark.entries) if peer and peer.mark else None

    def hash(self, node_id: str) -> StateHash | None:
        """The last hash a peer gave evidence of; None before the first, or if its last clock is newer than its last hash."""
        peer = self._peers.get(node_id)
        return peer.hash if peer else None

    def all_have(self, hash_: StateHash) -> bool:
        """True if every known peer's last evidenced hash is this hash. O(1)."""
        return self._hashes.get(hash_, 0) == len(self._peers)

    def meet(self, replica: Replica) -> Peer:
        """The evidence of a life of a peer; empty for a life other than the last known. Changes nothing, see `admit`.

        Raises `ConstraintCrdtError` for a new peer beyond the limit.
        """
        peer = self._peers.get(replica.node_id)
        if peer is None and len(self._peers) >= self._limits.peers:
            raise ConstraintCrdtError(f"more than the {self._limits.peers} peers that this node is set to know")
        return peer if peer is not None and peer.replica == replica else Peer(replica)

    def admit(self, peer: Peer) -> None:
        """Note an accepted message of a peer, and forget the evidence of another life."""
        node_id = peer.replica.node_id
        if self._peers.get(node_id) is not peer:
            self.forget(node_id)
            self._peers[node_id] = peer
            self.changes += 1
            self._hashes[peer.hash] = self._hashes.get(peer.hash, 0) + 1  # of a peer that was forgotten meanwhile it is known

    def forget(self, node_id: str) -> None:
        """Drop all knowledge of a peer."""
        peer = self._peers.pop(node_id, None)
        if peer is not None:
            self.changes += 1
            self._uncount(peer.hash)
            self._conversations.pop(node_id, None)

    def clear(self) -> None:
        """Drop all knowledge of all peers."""
        self._peers.clear()
        self._conversations.clear()
        self._hashes.clear()
        self.anyone = Conversation()
        self.changes += 1

    def find(self, peer: Peer, name: bytes, reader: Replica) -> ClockMark | None:
        """The clock a peer names to `reader`, among the clocks recently stated by either side, or None."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return (talk.find(name, reader) if talk else None) or self.anyone.find(name, reader)

    def marks(self, peer: Peer) -> list[ClockMark]:
        """The clocks a peer can name at present."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return [known.mark for each in (talk, self.anyone) if each for known in each.statements.values()]

    def find_hash(self, peer: Peer, token: bytes, reader: Replica) -> Statement | None:
        """The statement whose hash a peer echoes to `reader`; None if there is none."""
        talk = self._conversations.get(peer.replica.node_id) if self._is_current(peer) else None
        return (talk.find_hash(token, reader) if talk else None) or self.anyone.find_hash(token, reader)

    def _is_current(self, peer: Peer) -> bool:
        return self._peers.get(peer.replica.node_id) is peer

    def conversation(self, node_id: str) -> Conversation:
        """The conversation with a peer, now the most recently used. Beyond the limits the least recently used are dropped."""
        found = self._conversations.get(node_id)
        if found is None:
            found = self._conversations[node_id] = Conversation()
            while len(self._conversations) > most_conversations(self._limits, self._longest):
                self._conversations.popitem(last=False)
        else:
            self._conversations.move_to_end(node_id)
        return found

    def trouble(self, node_id: str) -> str:
        """The fault that a peer told last; empty for none."""
        found = self._conversations.get(node_id)
        return "" if found is None else found.trouble

    def evidence(self, peer: Peer, mark: ClockMark, hash_: StateHash | None) -> None:
        """Note a clock a peer stated, with its hash if known. A clock older than the last is ignored: one of fewer cells, unless
        the peer wrote since then. A peer that resumes its life has all of its own writes, and may lack what it had from others.
        """
        known, before = peer.mark, peer.hash
        if known is not None:
            same = mark.total == known.total
            if mark.count < known.count and mark.entries.get(peer.replica, 0) <= known.entries.get(peer.replica, 0):
                return
            if same and (hash_ is None or (mark is known and hash_ == before)):
                return
        else:
            same = False
        self.changes += not same or hash_ != before
        peer.mark, self._longest = mark, max(self._longest, len(mark.entries))
        if hash_ != before:
            self._uncount(before)
            self._hashes[hash_] = self._hashes.get(hash_, 0) + 1
            peer.hash = hash_

    def _uncount(self, hash_: StateHash | None) -> None:
        left = self._hashes[hash_] - 1
        if left:
            self._hashes[hash_] = left
        else:
            del self._hashes[hash_]


LEAST_FANOUT = 3
WIDER_FROM = (10, 100, 1000)
"""Sizes of a fleet from which a change is pushed to another peer."""


def fanout(nodes: int) -> int:
    """The number of peers in a push, in a fleet of `nodes` live nodes."""
    return LEAST_FANOUT + sum(nodes >= many for many in WIDER_FROM)


LENGTHENING = 1.5
MOST_LENGTHENED = 25
LONGEST_REST = 2.0
LONGEST_REST_OF_MANY = 5.0
MANY_PEERS = 30
"""The interval grows by this factor with each round at rest, to so many times the least, and to so many seconds in a fleet of up to
`MANY_PEERS` peers, and of more, where each message passes a router.
"""


class RoundInterval:
    """The interval of a node's rounds: it lengthens while a node is at rest, and is the least interval otherwise.

    A node is at rest while it knows all its peers to have its state: rounds bring no news then. Changes do not wait for rounds, and
    a node that knows of a change, or misses a peer, is not at rest.
    """

    def __init__(self, least: float) -> None:
        """`least`: seconds between two rounds of a node that is not at rest."""
        self._least = least
        self.seconds = least
        """The present interval."""

    @property
    def is_long(self) -> bool:
        """True if rounds come later than those of a node that is not at rest."""
        return self.seconds > self._least

    def longest(self, peers: int) -> float:
        """The interval of a node with so many peers that is at rest for long."""
        rest = LONGEST_REST if peers <= MANY_PEERS else LONGEST_REST_OF_MANY
        return max(self._least, min(MOST_LENGTHENED * self._least, rest))

    def lengthen(self, peers: int) -> None:
        """A round is over, and the node was at rest, with so many peers."""
        self.seconds = min(self.seconds * LENGTHENING, self.longest(peers))

    def shorten(self) -> None:
        """The node is not at rest."""
        self.seconds = self._least


PART_SECONDS = 1.0
"""Seconds that a part of a message may take at the measured rate. A quarter of the time after which a silent link ends, so that
keep-alives pass in between."""

LONGEST_WAY = 3.0
"""Seconds of round trip that a burst makes up for by being longer, at most."""

FIRST_BURST = 1024
"""Bytes of a large message sent to a peer whose rate is unknown, and the least of a burst: 0.9 s at 9.6 kbit/s."""

MOST_GROWTH_OF_BURST = 16
"""A burst is at most so many times as long as the burst before."""

SMALL = 512
"""Bytes of a request and its answers together up to which their time counts as a round trip."""

TELLING = 8192
TELLING_SECONDS = 0.25
"""A message of so many bytes, or so long on the way, tells a rate. In less time the work of the nodes has too large a part."""

RECENT = 8
"""Round trips kept for the least of them."""

LEAST_ROUND_TRIP = 0.001
"""Seconds. Differences below are noise."""

HASTE = 0.25
"""The least timeout of a peer that has answered, as a share of the timeout of an unknown peer."""

LONGEST_TIMEOUT = 60.0
"""Seconds."""

MOST_DOUBLINGS = 4
"""Times that timeouts double the timeout, at most."""

FIRST_DOUBLINGS = 3
"""The same, of a peer that has never answered."""

REQUEST_TRIES = 3
"""Tries of a request. The last try of a known peer waits as long as an unknown peer is waited for: the way may have changed."""

LEAST_RATE = 1200.0
"""Bytes per second, 9.6 kbit/s: the assumed rate of a message of `FIRST_BURST` where no round trip is known yet."""


SLOW_ROUND_TRIP = 0.5
SLOW_RATE = 16_000.0
SLOW_LOSS = 0.1
"""A link beyond any of these is told as slow: seconds, bytes per second (128 kbit/s), share of requests."""


@dataclass(slots=True)
class _Direction:
    """The round trip of a link by its large messages in a direction, while no small message was measured.

    A large message that took a second is of a slow link, or of a long round trip. Only another one of another size tells.
    """

    seconds: float = inf
    size: int = 0
    """The message that took the least time."""
    best: float = LEAST_RATE
    """The highest rate seen, with the round trip in the time: the link has this rate at least."""
    tells: bool = False
    """A message was long enough to tell the rate."""

    def add(self, seconds: float, size: int) -> None:
        """A message of so many bytes took so many seconds, with its answer."""
        self.tells = self.tells or size >= TELLING
        if seconds < self.seconds:
            self.seconds, self.size = seconds, size
        self.best = max(self.best, size / seconds)

    @property
    def least(self) -> float:
        """The round trip in seconds, if the link has no higher rate than those seen; infinite before the first message."""
        return self.seconds - self.size / self.best


@dataclass(slots=True)
class LinkEstimate:
    """The link to a peer, as measured from this side. Times are in seconds, rates in bytes per second.

    The timeout is that of RFC 6298: the smoothed round trip, and four times its mean deviation. A sample is the time of an answer
    that belongs to one request for certain (Karn's rule): a caller with unmatched answers takes none after a retry. Each timeout
    of an unknown peer doubles the next until there is a sample. Those of a known peer double more slowly the more is lost: a
    missing answer then says little about the time that an answer takes.
    """

    round_trip: float | None = None
    """Smoothed; None before the first small answer."""
    variation: float = 0.0
    """The mean deviation of the round trip."""
    rate_out: float | None = None
    """The rate at which large messages arrived at the peer; None before the first."""
    rate_in: float | None = None
    """The rate at which large messages arrived from the peer."""
    loss: float = 0.0
    """The share of requests without an answer, lately."""
    timeouts: int = 0
    """Requests in a row without an answer."""
    burst: int = FIRST_BURST
    """Bytes of a large message to send at once."""
    reads_units: Replica | None = None
    """The life of the peer that reads parts of several slices."""
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _at_most: float | None = None
    """The least time of a large message and its answer."""
    _out: _Direction = field(default_factory=_Direction)
    _in: _Direction = field(default_factory=_Direction)
    _arrived: int = FIRST_BURST
    """Bytes of the last bursts that arrived."""
    _last_in: int = 0
    """Bytes of the last large answer."""
    _passed_out: float = 1.0
    _passed_in: float = 1.0
    """Rates that small messages show to be possible at least."""

    @property
    def least(self) -> float | None:
        """The least of the last round trips: without queueing, or nearly so. None before the first answer."""
        if self._at_most is None:
            return min(self._recent, default=None)
        if self._recent:
            return min(*self._recent, self._at_most)  # a message that came sooner was not measured behind others
        return max(LEAST_ROUND_TRIP, min(self._out.least, self._in.least))

    @property
    def is_measured(self) -> bool:
        """The round trip was measured. Until then the time of a large message tells no rate: it may be that of a long way."""
        return bool(self._recent)

    @property
    def is_slow(self) -> bool:
        """The link is slow enough to be told."""
        rate = min(self.rate_out or inf, self.rate_in or inf)
        return (self.round_trip or 0.0) > SLOW_ROUND_TRIP or rate < SLOW_RATE or self.loss > SLOW_LOSS

    @property
    def part(self) -> int:
        """Bytes of a part, of which a burst has one or several: as many as pass in `PART_SECONDS`."""
        return max(FIRST_BURST, int(self.burst * PART_SECONDS / (PART_SECONDS + self._way)))

    @property
    def _way(self) -> float:
        return min(self.least or 0.0, LONGEST_WAY)

    def timeout(self, first: float, sent: int = 0, expected: int = 0, *, last: bool = False) -> float:
        """Seconds to wait for an answer. `first`: for a peer without an answer so far; a quarter of it is the least for any peer.

        `sent`: bytes of the request. `expected`: bytes of the answer, at most; in bursts, so they take a bounded time.
        `last`: for the last try of a request.
        """
        known = self.round_trip is not None or self._at_most is not None
        if known:
            wait, doublings = self.likely(first), int(self.timeouts / (REQUEST_TRIES + 16 * self.loss))
        else:  # what comes first from either side is short
            wait, doublings, sent, expected = first, min(self.timeouts, FIRST_DOUBLINGS), 0, 0
        wait *= 1 << min(doublings, MOST_DOUBLINGS)
        wait += self._travel(sent, expected)
        if last and known:
            wait = max(wait, first * (1 << min(self.timeouts // REQUEST_TRIES, FIRST_DOUBLINGS)))
        return min(wait, LONGEST_TIMEOUT)

    def step(self, sent: int = 0, expected: int = 0) -> float:
        """Seconds within which the next step of a transfer comes: after a burst of `sent` bytes the question for the rest, or after
        that question `expected` bytes at most.

        A timeout grows with the silence of a peer. This does not: it holds up exchanges with the peer, also those of the peer.
        """
        return min(2 * self.likely(PART_SECONDS) + self._travel(max(sent, FIRST_BURST), expected), LONGEST_TIMEOUT)

    def likely(self, first: float) -> float:
        """Seconds within which a short answer to a short request comes. `first`: as of `timeout`."""
        if self.round_trip is not None:
            return max(self.round_trip + 4 * self.variation, HASTE * first)
        return first if self._at_most is None else max(1.5 * self._at_most, HASTE * first)

    def _travel(self, sent: int, expected: int) -> float:
        """Seconds in addition for large messages each way, twice as long as is likely."""
        wait, longest = 0.0, PART_SECONDS + self._way
        if sent > SMALL:
            wait += 2 * min(longest, sent / (self.rate_out or max(self._passed_out, self._out.best)))
        if expected > SMALL:
            likely = min(expected, MOST_GROWTH_OF_BURST * max(self._last_in, FIRST_BURST))
            wait += 2 * min(longest, likely / (self.rate_in or max(self._passed_in, self._in.best)))
        return wait

    def answered(self, seconds: float, sent: int, received: int, *, queued: bool = False) -> None:
        """A request of `sent` bytes was answered by `received` bytes after so many seconds.

        `queued`: a large message was under way meanwhile, so a small one may have waited behind it, and tells no round trip.
        """
        seconds = max(seconds, LEAST_ROUND_TRIP)
        self.timeouts = 0
        self.loss -= self.loss / 16
        if sent + received <= SMALL and not queued:
            self._sample(seconds)
            self._passed_out = max(self._passed_out, sent / seconds)
            self._passed_in = max(self._passed_in, received / seconds)
            self.burst = max(self.burst, int(sent / seconds))  # all of it passed in this time, so the rate is at least this
            self._disprove(sent / seconds, received / seconds)
        if received > SMALL:
            self._at_most = seconds if self._at_most is None else min(self._at_most, seconds)
            self._in.add(seconds, received)
            self.rate_in = self._rate(self.rate_in, received, seconds)
            self._last_in = received
        if sent > SMALL:
            self.delivered(seconds, sent)

    def delivered(self, seconds: float, size: int) -> None:
        """So many bytes of a large message are at the peer, as it said after so many seconds: all sent at once, or nearly so.

        A few bytes give the round trip, where it is unknown.
        """
        seconds = max(seconds, LEAST_ROUND_TRIP)
        if size <= SMALL and not self.is_measured:
            self._sample(seconds)
            self.burst = max(self.burst, int(size / seconds))
            return
        self._at_most = seconds if self._at_most is None else min(self._at_most, seconds)
        self._out.add(seconds, size)
        self._arrived = max(size, self._arrived // 2)
        self.rate_out = self._rate(self.rate_out, size, seconds)
        aim = PART_SECONDS + self._way
        queued = max(seconds - (self.least or 0.0), aim / MOST_GROWTH_OF_BURST)
        wanted = size * aim / queued
        if wanted > self.burst:
            self.burst = int(min(wanted, self.burst * MOST_GROWTH_OF_BURST, MAX_COUNT))
        elif size >= self.burst / 2 or queued > aim:
            self.burst = max(int(wanted), self.burst // 2, FIRST_BURST)

    def unanswered(self, sent: int = 0) -> None:
        """A request of `sent` bytes got no answer in time. The next waits twice as long."""
        self.timeouts += 1
        self.loss += (1 - self.loss) / 16
        if sent > SMALL:
            self.lost()

    def lost(self) -> None:
        """A burst did not arrive, as far as is known: the next burst is shorter, but not below the rate that was delivered before.
        A burst that was many times as long as any that arrived is followed by one of about their length.

        That rate is trusted less with each loss: it may have been of another route.
        """
        if self.rate_out is not None:
            self.rate_out *= 0.75
        shorter = min(self.burst // 2, 2 * self._arrived)
        self.burst = max(shorter, min(self.burst, int(self.rate_out or 0.0)), FIRST_BURST)

    def anew(self) -> None:
        """The peer has a new session, perhaps on another way: its round trip is unknown."""
        self.round_trip, self.variation, self._at_most, self.timeouts = None, 0.0, None, 0
        self._out, self._in = _Direction(), _Direction()
        self._recent.clear()

    def _sample(self, seconds: float) -> None:
        self._recent.append(seconds)
        if self.round_trip is None:
            self.round_trip, self.variation = seconds, seconds / 2
        else:
            self.variation += (abs(seconds - self.round_trip) - self.variation) / 4
            self.round_trip += (seconds - self.round_trip) / 8

    def _disprove(self, out: float, in_: float) -> None:
        """Drop a rate below that of a small message, unless a long message told it: a node was busy, and the link is not slow."""
        if self.rate_out is not None and out > self.rate_out and not self._out.tells:
            self.rate_out = None
        if self.rate_in is not None and in_ > self.rate_in and not self._in.tells:
            self.rate_in = None

    def _rate(self, before: float | None, size: int, seconds: float) -> float | None:
        """The smoothed rate, with a message that took so many seconds, a round trip included."""
        took = max(seconds - (self.least or 0.0), seconds / 4)
        if size < TELLING and took < TELLING_SECONDS:
            return before
        return size / took if before is None else before + (size / took - before) / 4


class LinkEstimates:
    """The links to recent peers. `len` is their number."""

    def __init__(self, most: int) -> None:
        """`most`: links kept. Beyond it the least recently used is dropped, and measured anew."""
        self._most = most
        self._links: OrderedDict[str, LinkEstimate] = OrderedDict()
        self.at: float | None = None
        """The time in seconds of a clock that never steps, told by the caller before it passes a message in or has a message
        encoded. None: there is no time, and large messages are sent in bursts of the full size."""

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[str]:
        return iter(self._links)

    def of(self, node_id: str) -> LinkEstimate:
        """The link to a peer, now the most recently used."""
        link = self._links.get(node_id)
        if link is None:
            link = self._links[node_id] = LinkEstimate()
            if len(self._links) > self._most:
                self._links.popitem(last=False)
        else:
            self._links.move_to_end(node_id)
        return link

    def only_try(self, node_id: str, first: float) -> float:
        """Seconds to wait for the answer to a request of a few kilobytes that is not repeated. `first`: as of `timeout`."""
        link = self._links.get(node_id) or LinkEstimate()
        return max(first, (1 << FIRST_DOUBLINGS) * link.timeout(first)) + 2 * PART_SECONDS

    def get(self, node_id: str) -> LinkEstimate | None:
        """The link to a peer, if it was measured."""
        return self._links.get(node_id)


UNITS: tuple[Position, ...] = ((1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1), (0, -1))
"""The units in the order of their angles, 60 degrees apart; each is the sum of the two beside it."""


def ring_point(centre: Position, distance: int, place: int) -> Position:
    """The point at `distance` (at least 1) from `centre` at any of the 6 x `distance` places of that ring."""
    side, step = divmod(place, distance)
    corner, along = UNITS[side], UNITS[(side + 2) % 6]
    return centre[0] + corner[0] * distance + along[0] * step, centre[1] + corner[1] * distance + along[1] * step


def hexagon(count: int) -> list[Position]:
    """The first `count` points of the plane, ring by ring around the origin: the most compact layout of a fleet."""
    return [point for point, _ in zip(_spiral(), range(count), strict=False)]


def _spiral() -> Iterator[Position]:
    yield (0, 0)
    distance = 0
    while True:
        distance += 1
        yield from (ring_point((0, 0), distance, place) for place in range(6 * distance))


TRIES = 64
"""Places of the lattice `Nearby` tries before it weighs all peers."""

LONGEST_TURN = 4
"""`ByDistance` asks each of n peers at least once in any so many times n rounds."""

Name = TypeVar("Name", bound=Hashable)


class RandomSource(Protocol):
    """A source of random numbers, such as `random.Random`."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""


class PeerChoice(Protocol):
    """A policy of peer selection."""

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:
        """The node `me` asks in this round; never `me`."""


def _check_count(count: int) -> int:
    if count < 2:
        raise ConstraintCrdtError(f"a choice of peers needs at least 2 nodes, not {count}")
    return count


class Uniform:
    """Any other node, all equally likely."""

    def __init__(self, count: int) -> None:
        """`count`: nodes in all. Raises `ConstraintCrdtError` for fewer than 2."""
        self._others = _check_count(count) - 1

    def __repr__(self) -> str:
        return f"Uniform({self._others + 1})"

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:  # noqa: ARG002 - one of several policies
        """A node drawn from all others."""
        other = int(chance.random() * self._others)
        return other + (other >= me)


class Schedule:
    """In round r the node 3^r places further on, repeated. For rounds that begin everywhere at the same time."""

    def __init__(self, count: int) -> None:
        """`count`: nodes in all. Raises `ConstraintCrdtError` for fewer than 2."""
        self._count = _check_count(count)
        self._offsets = [1]
        while self._offsets[-1] * 3 < count:
            self._offsets.append(self._offsets[-1] * 3)

    @property
    def rounds(self) -> int:
        """Rounds without loss after which every node knows the state of all: ceil(log3 count)."""
        return len(self._offsets)

    def __repr__(self) -> str:
        return f"Schedule({self._count})"

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:  # noqa: ARG002 - one of several policies
        """The node at the offset of this round."""
        return (me + self.offset(round_)) % self._count

    def offset(self, round_: int) -> int:
        """The distance in places between a node and the node it asks in a round."""
        return self._offsets[round_ % len(self._offsets)]


class Nearby:
    """Any other node of a hexagonal lattice, with a chance that falls with the square of its distance in hops."""

    def __init__(self, points: Sequence[Position]) -> None:
        """`points`: the place of each node. Raises `ConstraintCrdtError` for fewer than 2 nodes, or two at one point."""
        _check_count(len(points))
        self._points = points
        self._at = {point: index for index, point in enumerate(points)}
        if len(self._at) != len(points):
            raise ConstraintCrdtError("two nodes cannot stand at one point of the lattice")
        furthest = 2 * max(hex_distance(points[0], point) for point in points)
        self._rings = list(accumulate(1 / distance for distance in range(1, furthest + 1)))
        """A ring has 6d places and d^-2 for each: so 1/d for the ring, accumulated."""

    def __repr__(self) -> str:
        return f"Nearby({len(self._points)} points)"

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:  # noqa: ARG002 - one of several policies
        """Draw places of the lattice until a taken place is found: exact, and O(1) where the lattice is filled."""
        centre = self._points[me]
        for _ in range(TRIES):
            distance = 1 + bisect_left(self._rings, chance.random() * self._rings[-1])
            found = self._at.get(ring_point(centre, distance, int(chance.random() * 6 * distance)))
            if found is not None:
                return found
        return self._weighed(me, chance)

    def _weighed(self, me: int, chance: RandomSource) -> int:
        """The same choice by weighing every node, for points far apart. O(nodes)."""
        mine = self._points[me]
        return _drawn((0.0 if point == mine else hex_distance(mine, point) ** -2.0 for point in self._points), chance)


class ByDistance(Generic[Name]):
    """A present peer, drawn with a chance that falls with the square of its distance, or the peer that has waited too long.

    Without that bound a peer a hundred times as far as the others would be asked once in ten thousand rounds. A peer that was not
    asked for 3n rounds is next, the longest wait first; at most n - 1 others can be before it, so no wait is longer than 4n.
    """

    def __init__(self) -> None:
        self._asked: dict[Name, int] = {}
        """The round in which each peer was asked last, or appeared; in that order."""
        self._round = 0

    def choose(self, distances: Mapping[Name, float | None], chance: RandomSource) -> Name:
        """The peer to ask in the next round. O(peers).

        `distances`: of each present peer, in any unit; an unknown distance counts as the median of the known distances. Raises
        `ConstraintCrdtError`, changing nothing, without peers or for a distance that is not above 0 and finite.
        """
        if not distances:
            raise ConstraintCrdtError("a choice of peers needs at least 1 peer")
        weights = _weights(list(distances.values()))
        self._asked = {name: at for name, at in self._asked.items() if name in distances}
        for name in distances:
            self._asked.setdefault(name, self._round)
        self._round += 1
        longest = next(iter(self._asked))
        overdue = self._round - self._asked[longest] > (LONGEST_TURN - 1) * len(distances)
        chosen = longest if overdue else list(distances)[_drawn(weights, chance)]
        self._asked.pop(chosen)
        self._asked[chosen] = self._round
        return chosen


def median(values: Sequence[float]) -> float:
    """The median of some values, at least one."""
    ordered, middle = sorted(values), len(values) // 2
    return ordered[middle] if len(values) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _weights(distances: Sequence[float | None]) -> list[float]:
    """The square of each distance's inverse, as a share of the largest, so that none is too large for a float."""
    known = [distance for distance in distances if distance is not None]
    if not all(0 < distance < inf for distance in known):
        raise ConstraintCrdtError("the distance of a peer must be above 0 and finite")
    middle, least = median(known or [1.0]), min(known, default=1.0)
    return [(least / (middle if distance is None else distance)) ** 2 for distance in distances]


def _drawn(weights: Iterable[float], chance: RandomSource) -> int:
    """The index of a weight, drawn in proportion to the weights. Never the index of a weight of 0."""
    sums = list(accumulate(weights))
    return bisect_left(sums, (1 - chance.random()) * sums[-1])
