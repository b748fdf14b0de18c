"""The simulated world: random numbers, links between nodes, and virtual time.

Rules kept here:

- One seed decides everything: every number is drawn from the world's `SimRng`, and events at the same instant happen in the order
  in which they were scheduled.
- Nodes behave as running nodes do: each begins an exchange per interval of its own clock, one at a time, while it answers others;
  it waits for a reply, sends its question again `RETRIES` times, then gives up.
- In a *paced* world they measure their links, too: timeouts follow the link, large messages are paced, an answer belongs to the
  question that it answers, and no exchange begins with a peer that is being sent a large message. Histories of other worlds are as
  they were before there was pacing.
- In a world *with sites* each node tells its site and follows `protocol.sites`: it knows the sites of others from its state only,
  and their failures from silence. There nodes also push changes, as running nodes do.
- A link may have a quality of its own, in one direction or both: a slow link is a fault like any other.
- Time decides only the order of events and the readings of clocks. The fleet carries out the events, as `steps`.

`SimRng` is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): 64 bits of state, the same
numbers on every machine and version of Python, and no good for secrets.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import islice
from math import log
from typing import Any, Generic, TypeVar

from constraint_crdt.crdt.clock import StateHash
from constraint_crdt.crdt.limits import MESSAGE_BYTES, Limits
from constraint_crdt.protocol.peers import HASTE, LinkEstimate, PeerChoice, fanout
from constraint_crdt.protocol.sites import SPEAKERS, NodeSites, Sites
from constraint_crdt.simulation.histories import LIMITS, Fleet, SentMessage
from constraint_crdt.simulation.invariants import Violation
from constraint_crdt.simulation.steps import AnyStep, Begin, Crash, Deliver, Describe, MessageName, NodeStart, Start

EPOCH_NS = 1_700_000_000 * 10**9
"""The reading of an exact clock when a world begins."""

SECOND_NS = 10**9

PUSHES_PER_SECOND = 100
"""Pushes of a node per second, at most."""

MOST_MESSAGES = 50_000
"""Messages of a watched history, at most."""

RETRIES = 2
"""Retries of a question without an answer."""


Item = TypeVar("Item")

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15


class SimRng:
    """A stream of random numbers. `random` makes it a `protocol.peers.RandomSource`."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        """`seed`: any whole number; seeds equal modulo 2**64 give the same stream."""
        self._state = seed & _MASK

    def bits(self) -> int:
        """The next 64 bits."""
        state = self._state = (self._state + _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        return state ^ (state >> 31)

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        return (self.bits() >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """A whole number from 0 up to, not including, `bound`, which is at least 1 and far below 2**64."""
        return (self.bits() * bound) >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def happens(self, probability: float) -> bool:
        """True with this probability. Draws no number for a probability of 0."""
        return probability > 0.0 and self.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """A random item of a sequence, which must not be empty."""
        return items[self.below(len(items))]

    def shuffle(self, items: list[Item]) -> None:
        """Shuffle a list (Fisher and Yates)."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]

    def exponential(self, mean: float) -> float:
        """An exponentially distributed waiting time."""
        return -mean * log(1.0 - self.random())


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of all links."""

    latency_ns: int = 5_000_000
    """The least latency."""
    jitter_ns: int = 0
    """The mean of an exponential addition to it: where it is long, messages overtake each other."""
    loss: float = 0.0
    duplication: float = 0.0
    straggling: float = 0.0
    """The probability a message takes `STRAGGLE` times as long."""
    bandwidth: int = 0
    """Bytes per second in each direction, for which messages queue; 0: no bound."""


STRAGGLE = 40


@dataclass(frozen=True, slots=True)
class Question:
    """The message that an answer belongs to."""

    by: str
    at: int
    """The time in ns at which it was sent."""


class Links:
    """All links of a fleet. `fired` counts the occurrences of each kind of fault."""

    def __init__(self, quality: Quality, rng: SimRng, fired: Counter[str]) -> None:
        self.quality = quality
        self.fired = fired
        self._rng = rng
        self._cut: set[tuple[str, str]] = set()
        self._slow: dict[tuple[str, str], Quality] = {}
        self.site_of: Mapping[str, str] = {}
        self.between: Quality | None = None
        """The quality of the links between sites; None: that of all links."""
        self._group_of: dict[str, int] = {}
        self._free_at: dict[tuple[str, str], int] = {}
        self._latest: dict[tuple[str, str], int] = {}

    def cut(self, sender: str, to: str) -> None:
        """Cut the link from a node to another; the other direction is not touched."""
        self._cut.add((sender, to))

    def mend(self, sender: str, to: str) -> None:
        """End a cut."""
        self._cut.discard((sender, to))

    def slow(self, sender: str, to: str, quality: Quality) -> None:
        """Give the link from a node to another a quality of its own; the other direction is not touched."""
        self._slow[sender, to] = quality

    def restore(self, sender: str, to: str) -> None:
        """Give a link the quality of all links again."""
        self._slow.pop((sender, to), None)

    def heal(self) -> None:
        """End all cuts, partitions, slow links, losses and stragglers. Latency and bandwidth stay."""
        self._cut.clear()
        self._slow.clear()
        self._group_of.clear()
        self.quality = replace(self.quality, loss=0.0, straggling=0.0)
        if self.between is not None:
            self.between = replace(self.between, loss=0.0, straggling=0.0)

    def part(self, groups: Iterable[Iterable[str]]) -> None:
        """Partition the fleet into groups; no groups: the network is whole. A node in no group reaches all."""
        self._group_of = {name: index for index, group in enumerate(groups) for name in group}

    def between_sites(self, sender: str, to: str) -> bool:
        """True for nodes of two sites."""
        return self.site_of.get(sender) != self.site_of.get(to)

    def connected(self, sender: str, to: str) -> bool:
        """True if messages from a node to another arrive at all."""
        if (sender, to) in self._cut:
            return False
        mine, theirs = self._group_of.get(sender), self._group_of.get(to)
        return mine == theirs or mine is None or theirs is None

    def arrivals(self, now: int, sender: str, to: str, size: int) -> list[int]:
        """The arrival times in ns of a message sent now: none, one or two."""
        rng, link = self._rng, (sender, to)
        usual = self.quality if self.between is None or not self.between_sites(sender, to) else self.between
        quality = self._slow.get(link, usual)
        if not self.connected(sender, to):
            self.fired["cut" if link in self._cut else "partition"] += 1
            return []
        leaves = now
        if quality.bandwidth:
            free = self._free_at.get(link, 0)
            self.fired["bandwidth"] += free > now
            leaves = self._free_at[link] = max(now, free) + size * 10**9 // quality.bandwidth
        if rng.happens(quality.loss):
            self.fired["loss"] += 1
            return []
        arrivals = [leaves + self._travel(quality)]
        if rng.happens(quality.duplication):
            self.fired["duplication"] += 1
            arrivals.append(leaves + self._travel(quality))
        self.fired["reordering"] += min(arrivals) < self._latest.get(link, 0)
        self._latest[link] = max(arrivals)
        return sorted(arrivals)

    def _travel(self, quality: Quality) -> int:
        travel = quality.latency_ns + (int(self._rng.exponential(quality.jitter_ns)) if quality.jitter_ns else 0)
        if self._rng.happens(quality.straggling):
            self.fired["straggling"] += 1
            travel *= STRAGGLE
        return travel


@dataclass(frozen=True, slots=True)
class Pace:
    """The timing of nodes."""

    interval_ns: int = 10**9
    """Between two exchanges a node begins; varied by a fifth, so that nodes drift apart."""
    patience_ns: int = 250_000_000
    """The timeout for a reply."""


@dataclass(slots=True, eq=False)
class BegunExchange:
    """An exchange that a node began."""

    peer: str
    begun: int
    """The time in ns."""
    question: SentMessage | None = None
    asked: Question | None = None
    """The same, in a paced world."""
    heard: int = 0
    """Bytes of the answer to it so far."""
    tries: int = 0
    turn: int = 0
    """The number of its questions: a timeout of an earlier question is ignored."""


@dataclass(slots=True, eq=False)
class SimulatedNode:
    """The world's view of a node."""

    name: str
    rate: float = 1.0
    """The rate of its clock."""
    skew_ns: int = 0
    """The offset of its clock; positive: ahead."""
    paused_until: int = 0
    free_at: int = 0
    """The time by which it has processed earlier messages."""
    process_ns: int = 0
    """Processing time per message."""
    room: int = 0
    """The largest message in bytes; 0: the node's default."""
    exchanges: dict[str, BegunExchange] = field(default_factory=dict)
    """The exchanges it began, by peer: one at a time, or in a paced world one within its turn."""
    bytes: int = 0
    """Bytes sent."""
    sites: Sites | None = None
    told_sites: NodeSites | None = None
    """In a world with sites: as the present life of the process sees them."""
    pushing: bool = False
    """A push is planned."""
    pushed_until: int = 0
    """The time before which there is no further push."""


@dataclass(frozen=True, slots=True)
class Harm:
    """Probabilities of faults of messages beside those of links."""

    truncation: float = 0.0
    misrouting: float = 0.0


Time = TypeVar("Time", int, float)


class Agenda(Generic[Time]):
    """The calls to come in virtual time; those of one time in the order in which they were put."""

    def __init__(self) -> None:
        self._order = 0
        self._calls: list[tuple[Time, int, Callable[..., None], tuple[Any, ...]]] = []

    def put(self, time: Time, act: Callable[..., None], *args: object) -> None:
        """Schedule a call."""
        self._order += 1
        heappush(self._calls, (time, self._order, act, args))

    def has_until(self, until: Time) -> bool:
        """True if there is a call at this time or earlier."""
        return bool(self._calls) and self._calls[0][0] <= until

    def take(self) -> tuple[Time, Callable[..., None], tuple[Any, ...]]:
        """Remove the next call: its time, function and arguments."""
        time, _, act, args = heappop(self._calls)
        return time, act, args

    def keep(self, *acts: Callable[..., None]) -> None:
        """Drop the calls of all other functions."""
        self._calls = [each for each in self._calls if each[2] in acts]
        heapify(self._calls)


class World:
    """A fleet, its links and virtual time."""

    def __init__(
        self,
        members: Sequence[NodeStart],
        rng: SimRng,
        *,
        quality: Quality,
        pace: Pace,
        choice: PeerChoice | None = None,
        watched: bool,
        paced: bool = False,
        limits: Limits = LIMITS,
        sites: Mapping[str, str] | None = None,
    ) -> None:
        """`choice`: the peer policy, by index in `members`; None: uniform. `watched`: check invariants and keep the steps. `paced`:
        nodes measure their links. `limits`: of each node. `sites`: the site of each node by name, in a world with sites.
        """
        self.rng = rng
        self.fired: Counter[str] = Counter()
        """Occurrences of each kind of fault."""
        self.now = 0
        """Virtual time in ns."""
        self.events = self.messages = 0
        self.links = Links(quality, rng, self.fired)
        self.pace = pace
        self.harm = Harm()
        self.steps: list[AnyStep] = []
        self.fleet = Fleet(members, watched=watched, paced=paced, limits=limits)
        self._paced = paced
        self._cause: Question | None = None
        """The question that the messages of the present step belong to."""
        self._choice = choice
        self._watched = watched
        self._number = 0
        self._agenda = Agenda[int]()
        self._uses: Counter[MessageName] = Counter()
        self.actors = {member.name: SimulatedNode(member.name) for member in members}
        self.names = [member.name for member in members]
        """The nodes to choose peers from, in the order in which they joined."""
        self._place = {name: place for place, name in enumerate(self.names)}
        self.bytes_between = 0
        """Bytes of messages between sites."""
        self._sited = sites is not None
        self.links.site_of = sites or {}
        for actor in self.actors.values() if self._sited else ():
            self.after(0, self._follow_from_start, actor)
        for actor in self.actors.values():
            self.after(rng.below(pace.interval_ns), self._round, actor)

    # --- time --------------------------------------------------------------------------------------------------------

    def after(self, delay_ns: float, act: Callable[..., None], *args: object) -> None:
        """Schedule a call after a delay."""
        self._agenda.put(self.now + max(0, int(delay_ns)), act, *args)

    def run(self, until: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Run the events up to a time in ns, or until `stop` returns True. Raises `Violation`."""
        while self._agenda.has_until(until) and not stop():
            self.now, act, args = self._agenda.take()
            self.events += 1
            act(*args)
        self.now = max(self.now, until) if not stop() else self.now

    def clock_of(self, actor: SimulatedNode) -> int:
        """The reading of a node's clock."""
        return EPOCH_NS + actor.skew_ns + int(self.now * actor.rate)

    # --- steps -------------------------------------------------------------------------------------------------------

    def perform(self, kind: Callable[..., AnyStep], actor: SimulatedNode, **what: object) -> list[SentMessage]:
        """Carry out a step now and send its messages."""
        self._number += 1
        step = kind(number=self._number, node=actor.name, time=self.clock_of(actor), **what)
        if self._watched:
            self.steps.append(step)
        before = self._hash_of(actor) if self._sited else None
        sent = self.fleet.apply(step)
        if self._sited and self._hash_of(actor) not in (before, None):
            self._plan_push(actor)
        self.fired["parts"] += len(sent) > 1
        for each in sent:
            self._post(each)
        return sent

    def is_up(self, name: str) -> bool:
        """True if a node is up."""
        return self.fleet.node(name) is not None

    def calm(self) -> None:
        """End all faults, those that are due later too. Messages under way arrive, and nodes go on with their exchanges."""
        self.links.heal()
        self.harm = Harm()
        self._agenda.keep(self._round, self._push, self._arrive, self._lose_patience, self._forget_unused)

    def crash(self, actor: SimulatedNode) -> None:
        """Kill a node."""
        for exchange in list(actor.exchanges.values()):
            self._end(actor, exchange)
        self.perform(Crash, actor)

    def start(self, name: str, disk: str, incarnation: int = 0, peer: str = "") -> SimulatedNode:
        """Start a node, for the first time or again. `peer`: see `Start`."""
        actor = self.actors.get(name)
        if actor is None:
            actor = self.actors[name] = SimulatedNode(name)
            self._place[name] = len(self.names)
            self.names.append(name)
            self.after(self.rng.below(self.pace.interval_ns), self._round, actor)
        actor.paused_until = actor.free_at = 0
        self.perform(Start, actor, disk=disk, incarnation=incarnation, peer=peer)
        if self._sited:
            self._follow_from_start(actor)
            for each in self.actors.values():
                if each.sites is not None and each.told_sites is not None:
                    each.sites.put(name, each.told_sites.of(name))
        return actor

    def forget(self, name: str) -> None:
        """Remove a node from the possible peers."""
        self.names.remove(name)
        for actor in self.actors.values():
            if actor.sites is not None:
                actor.sites.drop(name)

    # --- sites -------------------------------------------------------------------------------------------------------

    def _hash_of(self, actor: SimulatedNode) -> StateHash | None:
        node = self.fleet.node(actor.name)
        return None if node is None else node.state_hash

    def _follow_from_start(self, actor: SimulatedNode) -> None:
        """A node with sites has started: it tells its site."""
        node = self.fleet.nodes[actor.name]
        actor.told_sites, actor.sites = NodeSites(node.state.rows), Sites(actor.name)
        for name in self.names:
            if name != actor.name:
                actor.sites.put(name, actor.told_sites.of(name))
        self.perform(Describe, actor, site=self.links.site_of.get(actor.name, ""))

    def change_site(self, actor: SimulatedNode, site: str) -> None:
        """Let a node belong to another site, and tell it."""
        self.links.site_of = {**self.links.site_of, actor.name: site}
        self.perform(Describe, actor, site=site)

    def sites_of(self, actor: SimulatedNode) -> Sites:
        """The sites as a node sees them now, in a world with sites."""
        sites, told = actor.sites, actor.told_sites
        assert sites is not None  # noqa: S101 - set at the start of each node
        assert told is not None  # noqa: S101 - the same
        sites.move(self.links.site_of.get(actor.name, ""))
        for name in told.take_moved():
            if name != actor.name and name in sites:
                sites.put(name, told.of(name))
        return sites

    def _speakers(self, actor: SimulatedNode, sites: Sites, other: str) -> list[str]:
        ranked = islice(sites.ranked(other, sites.site), SPEAKERS)
        return [name for name in ranked if name not in actor.exchanges]

    def _sited_peer(self, actor: SimulatedNode) -> str:
        """The peer of a round; the node itself for none."""
        sites = self.sites_of(actor)
        other = sites.choose(self.rng, alone=not sites.near)
        ready = [] if other is None else self._speakers(actor, sites, other)
        return self.rng.pick(ready or sites.near or [actor.name])

    def _plan_push(self, actor: SimulatedNode) -> None:
        if not actor.pushing:
            actor.pushing = True
            self._agenda.put(max(actor.pushed_until, self.now), self._push, actor)

    def _push(self, actor: SimulatedNode) -> None:
        """Push the state to some peers that lack it: of the own site, and of a few others."""
        actor.pushing, node = False, self.fleet.node(actor.name)
        if node is None or actor.paused_until > self.now:
            return
        sites, hash_of, mine = self.sites_of(actor), node.tracker.hash, node.state_hash
        near = list(sites.near)
        self.rng.shuffle(near)
        chosen = list(islice((name for name in near if hash_of(name) != mine), fanout(1 + len(near))))
        for other in sites.to_tell(fanout(1 + len(sites.others)), self.rng):
            ready = self._speakers(actor, sites, other)
            if ready and all(hash_of(name) != mine for name in sites.witnesses(other)):
                chosen.append(self.rng.pick(ready))
        actor.pushed_until = self.now + len(chosen) * SECOND_NS // PUSHES_PER_SECOND
        for peer in chosen:
            if peer not in actor.exchanges and not (self._paced and self._is_transferring(actor, peer)):
                begun = actor.exchanges[peer] = BegunExchange(peer, self.now)
                self._begin(actor, begun)

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _round(self, actor: SimulatedNode) -> None:
        self.after(self.pace.interval_ns / actor.rate * (0.8 + 0.4 * self.rng.random()), self._round, actor)
        if self._is_busy(actor) or actor.paused_until > self.now or not self.is_up(actor.name) or len(self.names) < 2:
            return
        peer = self._peer_of(actor)
        if peer == actor.name or peer in actor.exchanges or (self._paced and self._is_transferring(actor, peer)):
            return
        exchange = actor.exchanges[peer] = BegunExchange(peer, self.now)
        self._begin(actor, exchange)

    def _is_busy(self, actor: SimulatedNode) -> bool:
        """True if a node begins no exchange now. In a paced world an exchange beyond its turn goes on beside others."""
        if not self._paced:
            return bool(actor.exchanges)
        return any(self.now - exchange.begun < HASTE * self.pace.patience_ns for exchange in actor.exchanges.values())

    def _is_transferring(self, actor: SimulatedNode, peer: str) -> bool:
        self.fleet.time_links(actor.name, self.clock_of(actor))
        return self.fleet.nodes[actor.name].is_transferring(peer)

    def _begin(self, actor: SimulatedNode, exchange: BegunExchange) -> None:
        self._cause = Question(actor.name, self.now)
        self._ask(actor, exchange, self.perform(Begin, actor, peer=exchange.peer, room=actor.room))

    def _peer_of(self, actor: SimulatedNode) -> str:
        if self._sited:
            return self._sited_peer(actor)
        if self._choice is None:
            return self.rng.pick(self.names)
        round_ = self.now // self.pace.interval_ns
        return self.names[self._choice.choose(self._place[actor.name], round_, self.rng)]

    def _ask(self, actor: SimulatedNode, exchange: BegunExchange, sent: Sequence[SentMessage]) -> None:
        """Wait for the reply to the last message, if the message wants a reply."""
        question = sent[-1] if sent and sent[-1].wants_reply else None
        if question is None:
            self._end(actor, exchange)
            return
        self._drop_question(exchange)
        exchange.question, exchange.asked, exchange.tries, exchange.heard = question, self._cause, 0, 0
        self._uses[question.name] += 1
        self._wait(actor, exchange)

    def _wait(self, actor: SimulatedNode, exchange: BegunExchange) -> None:
        exchange.turn += 1
        patience: float = self.pace.patience_ns
        link = self._link(actor, exchange)
        if link is not None and exchange.question is not None:
            last = exchange.tries == RETRIES
            patience = link.timeout(patience / 1e9, len(exchange.question.data), MESSAGE_BYTES, last=last) * 1e9
        self.after(patience, self._lose_patience, actor, exchange, exchange.turn)

    def _link(self, actor: SimulatedNode, exchange: BegunExchange) -> LinkEstimate | None:
        """The link to the peer of an exchange, in a paced world."""
        node = self.fleet.node(actor.name) if self._paced else None
        return None if node is None else node.links.of(exchange.peer)

    def _lose_patience(self, actor: SimulatedNode, exchange: BegunExchange, turn: int) -> None:
        if exchange.question is None or exchange.turn != turn:
            return
        link = self._link(actor, exchange)
        if link is not None:
            link.unanswered(len(exchange.question.data))
        if exchange.tries >= RETRIES or not self.is_up(actor.name):
            if actor.sites is not None:
                actor.sites.failed(exchange.peer)
            node = self.fleet.node(actor.name) if self._paced else None
            if node is not None:
                node.break_off(exchange.peer)
            self._end(actor, exchange)
            return
        exchange.tries += 1
        self.fired["retry"] += 1
        if self._paced and exchange.question.is_resume:
            tries = exchange.tries
            self._begin(actor, exchange)
            exchange.tries = tries
            return
        self._cause = exchange.asked = Question(actor.name, self.now)
        self._post(exchange.question)
        self._wait(actor, exchange)

    def _end(self, actor: SimulatedNode, exchange: BegunExchange) -> None:
        self._drop_question(exchange)
        actor.exchanges.pop(exchange.peer, None)

    def _drop_question(self, exchange: BegunExchange) -> None:
        if exchange.question is not None:
            name, exchange.question = exchange.question.name, None
            self._release(name)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _post(self, sent: SentMessage) -> None:
        self.messages += 1
        if self._watched and self.messages > MOST_MESSAGES:
            raise Violation("messages", f"more than {MOST_MESSAGES} messages: nodes answer each other without end")
        self.actors[sent.sender].bytes += len(sent.data)
        self.bytes_between += len(sent.data) * self.links.between_sites(sent.sender, sent.to)
        arrivals = self.links.arrivals(self.now, sent.sender, sent.to, len(sent.data))
        self._uses[sent.name] += len(arrivals)
        for time in arrivals:
            self._agenda.put(time, self._arrive, sent, self._cause)
        if not arrivals and not self._uses[sent.name]:
            self._agenda.put(self.now, self._forget_unused, sent.name)  # not at once: its sender may be about to wait for a reply

    def _forget_unused(self, name: MessageName) -> None:
        if not self._uses[name]:
            self._forget(name)

    def _release(self, name: MessageName) -> None:
        self._uses[name] -= 1
        if not self._uses[name]:
            self._forget(name)

    def _forget(self, name: MessageName) -> None:
        del self._uses[name]
        self.fleet.forget_message(name)

    def _arrive(self, sent: SentMessage, cause: Question | None) -> None:
        actor = self.actors[sent.to]
        ready = max(actor.paused_until, actor.free_at)
        if ready > self.now:
            self.fired["pause" if actor.paused_until > self.now else "slow processing"] += 1
            self._agenda.put(ready, self._arrive, sent, cause)
            return
        actor.free_at = self.now + actor.process_ns
        if self._watched and self._harmed(sent, actor):
            self._release(sent.name)
            return
        again = self._uses[sent.name] > 1
        is_answer = cause is not None and cause.by == sent.to
        if self.is_up(sent.to):
            self._cause = Question(sent.to, self.now) if is_answer else cause
            if actor.sites is not None:
                actor.sites.heard(sent.sender)
            replies = self.perform(Deliver, actor, message=sent.name, again=again, room=actor.room)
            if self._paced:
                self._hear(actor, sent, cause if is_answer else None, replies)
            elif sent.sender in actor.exchanges:
                self._ask(actor, actor.exchanges[sent.sender], replies)
        else:
            self.fired["nobody there"] += 1
        self._release(sent.name)

    def _hear(self, actor: SimulatedNode, sent: SentMessage, question: Question | None, replies: Sequence[SentMessage]) -> None:
        """A node of a paced world heard a message; `question`: its own question that the message answers, if any."""
        exchange = actor.exchanges.get(sent.sender)
        link = None if exchange is None else self._link(actor, exchange)
        if question is None or exchange is None or link is None:
            return
        current = exchange.asked is question
        exchange.heard += current * len(sent.data)
        if sent.is_last and current and exchange.question is not None:
            queued = self._is_transferring(actor, exchange.peer)
            link.answered((self.now - question.at) / 1e9, len(exchange.question.data), exchange.heard, queued=queued)
        if replies or (sent.is_last and current):
            self._ask(actor, exchange, replies)

    def _harmed(self, sent: SentMessage, actor: SimulatedNode) -> bool:
        """Damage or misroute a message, sometimes; True if it was."""
        if self.rng.happens(self.harm.truncation):
            self.fired["truncation"] += 1
            self.perform(Deliver, actor, message=sent.name, again=True, cut=self.rng.between(1, len(sent.data) - 1))
            return True
        if self.rng.happens(self.harm.misrouting):
            self.fired["misrouting"] += 1
            wrong = self.actors[self.rng.pick(self.names)]
            if self.is_up(wrong.name):
                self.perform(Deliver, wrong, message=sent.name, again=True)
            return True
        return False
