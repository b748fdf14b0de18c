"""The world in which a fleet runs: virtual time, and what happens in it when.

Rules kept here:

- One seed decides everything: every number is drawn from the world's `Chance`, and what happens at the same instant happens in the
  order in which it was arranged.
- Nodes behave as running nodes do: each begins an exchange per interval of its own clock, one at a time, while it answers others;
  it waits so long for a reply, sends its question again so often, then leaves it.
- Time only says in which order things happen and what clocks show. What happens is carried out by the fleet, as `steps`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from constraint_crdt.protocol.peer_selection import PeerChoice
from constraint_crdt.simulation.fleet import Fleet, Sent
from constraint_crdt.simulation.links import Chance, Links, Quality
from constraint_crdt.simulation.steps import AnyStep, Begin, Crash, Deliver, Member, MessageName, Start

EPOCH_NS = 1_700_000_000 * 10**9
"""What an exact clock shows when a world begins."""

RETRIES = 2
"""How often a question is sent again that nobody answers."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How nodes go about it."""

    interval_ns: int = 10**9
    """Between two exchanges that a node begins; varied by a fifth, so that nodes drift apart."""
    patience_ns: int = 250_000_000
    """How long a node waits for a reply."""


@dataclass(slots=True, eq=False)
class Actor:
    """What the world knows of one node."""

    name: str
    rate: float = 1.0
    """How fast its clock goes."""
    skew_ns: int = 0
    """How far its clock is ahead."""
    paused_until: int = 0
    free_at: int = 0
    """It has dealt with what arrived before by then."""
    process_ns: int = 0
    """How long it takes over a message."""
    room: int = 0
    """Bytes that its messages are cut to; 0 for what nodes do by themselves."""
    peer: str | None = None
    """With whom it is in an exchange that it began."""
    question: Sent | None = None
    tries: int = 0
    turn: int = 0
    """Counts its questions, so that a timer knows whether it is for the present one."""
    bytes: int = 0
    """Sent."""


@dataclass(frozen=True, slots=True)
class Harm:
    """What may befall a message beside what its link does."""

    truncation: float = 0.0
    misrouting: float = 0.0


class World:
    """A fleet, its links and time."""

    def __init__(
        self,
        members: Sequence[Member],
        chance: Chance,
        *,
        quality: Quality,
        pace: Pace,
        choice: PeerChoice | None = None,
        watched: bool,
    ) -> None:
        """`choice`: whom to ask, by the places of `members`; anybody if left out. `watched`: check invariants, keep the steps."""
        self.chance = chance
        self.fired: Counter[str] = Counter()
        """How often each kind of fault came about."""
        self.now = 0
        """Virtual time in ns."""
        self.events = self.messages = 0
        self.links = Links(quality, chance, self.fired)
        self.pace = pace
        self.harm = Harm()
        self.steps: list[AnyStep] = []
        self.fleet = Fleet(members, watched=watched)
        self._choice = choice
        self._watched = watched
        self._number = 0
        self._order = 0
        self._agenda: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._uses: Counter[MessageName] = Counter()
        self.actors = {member.name: Actor(member.name) for member in members}
        self.names = [member.name for member in members]
        """Those that a node may choose to ask, in the order in which they joined."""
        self._place = {name: place for place, name in enumerate(self.names)}
        for actor in self.actors.values():
            self.after(chance.below(pace.interval_ns), self._round, actor)

    # --- time --------------------------------------------------------------------------------------------------------

    def after(self, delay_ns: float, act: Callable[..., None], *args: object) -> None:
        """Have something happen so much later."""
        self._at(self.now + max(0, int(delay_ns)), act, *args)

    def _at(self, time: int, act: Callable[..., None], *args: object) -> None:
        self._order += 1
        heappush(self._agenda, (time, self._order, act, args))

    def run(self, until: int, stop: Callable[[], bool] = lambda: False) -> None:
        """Let happen what happens up to a time in ns, or until `stop` says so. Raises `Violation`."""
        while self._agenda and self._agenda[0][0] <= until and not stop():
            self.now, _, act, args = heappop(self._agenda)
            self.events += 1
            act(*args)
        self.now = max(self.now, until) if not stop() else self.now

    def clock_of(self, actor: Actor) -> int:
        """What a node's clock shows."""
        return EPOCH_NS + actor.skew_ns + int(self.now * actor.rate)

    # --- steps -------------------------------------------------------------------------------------------------------

    def perform(self, kind: Callable[..., AnyStep], actor: Actor, **what: object) -> list[Sent]:
        """Have a step carried out now; its messages go on their way."""
        self._number += 1
        step = kind(number=self._number, node=actor.name, time=self.clock_of(actor), **what)
        if self._watched:
            self.steps.append(step)
        sent = self.fleet.apply(step)
        self.fired["parts"] += len(sent) > 1
        for each in sent:
            self._post(each)
        return sent

    def is_up(self, name: str) -> bool:
        """True if a node runs."""
        return self.fleet.node(name) is not None

    def crash(self, actor: Actor) -> None:
        """Kill a node."""
        self._end(actor)
        self.perform(Crash, actor)

    def start(self, name: str, disk: str, incarnation: int = 0) -> Actor:
        """Start a node: a new one, or one that is down."""
        actor = self.actors.get(name)
        if actor is None:
            actor = self.actors[name] = Actor(name)
            self._place[name] = len(self.names)
            self.names.append(name)
            self.after(self.chance.below(self.pace.interval_ns), self._round, actor)
        actor.paused_until = actor.free_at = 0
        self.perform(Start, actor, disk=disk, incarnation=incarnation)
        return actor

    def forget(self, name: str) -> None:
        """Nobody asks this node any more."""
        self.names.remove(name)

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _round(self, actor: Actor) -> None:
        self.after(self.pace.interval_ns / actor.rate * (0.8 + 0.4 * self.chance.random()), self._round, actor)
        if actor.peer is not None or actor.paused_until > self.now or not self.is_up(actor.name) or len(self.names) < 2:
            return
        peer = self._peer_of(actor)
        if peer == actor.name:
            return
        actor.peer = peer
        self._ask(actor, self.perform(Begin, actor, peer=peer, room=actor.room))

    def _peer_of(self, actor: Actor) -> str:
        if self._choice is None:
            return self.chance.pick(self.names)
        round_ = self.now // self.pace.interval_ns
        return self.names[self._choice.choose(self._place[actor.name], round_, self.chance)]

    def _ask(self, actor: Actor, sent: Sequence[Sent]) -> None:
        """Wait for the reply to what was just said, if there is to be one."""
        question = sent[-1] if sent and sent[-1].wants_reply else None
        if question is None:
            self._end(actor)
            return
        self._drop_question(actor)
        actor.question, actor.tries = question, 0
        self._uses[question.name] += 1
        self._wait(actor)

    def _wait(self, actor: Actor) -> None:
        actor.turn += 1
        self.after(self.pace.patience_ns, self._lose_patience, actor, actor.turn)

    def _lose_patience(self, actor: Actor, turn: int) -> None:
        if actor.question is None or actor.turn != turn:
            return
        if actor.tries < RETRIES and self.is_up(actor.name):
            actor.tries += 1
            self.fired["retry"] += 1
            self._post(actor.question)
            self._wait(actor)
        else:
            self._end(actor)

    def _end(self, actor: Actor) -> None:
        self._drop_question(actor)
        actor.peer = None

    def _drop_question(self, actor: Actor) -> None:
        if actor.question is not None:
            name, actor.question = actor.question.name, None
            self._release(name)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _post(self, sent: Sent) -> None:
        self.messages += 1
        self.actors[sent.sender].bytes += len(sent.data)
        arrivals = self.links.arrivals(self.now, sent.sender, sent.to, len(sent.data))
        self._uses[sent.name] += len(arrivals)
        for time in arrivals:
            self._at(time, self._arrive, sent)
        if not arrivals and not self._uses[sent.name]:
            self._at(self.now, self._forget_unused, sent.name)  # not at once: its sender may be about to wait for a reply

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

    def _arrive(self, sent: Sent) -> None:
        actor = self.actors[sent.to]
        ready = max(actor.paused_until, actor.free_at)
        if ready > self.now:
            self.fired["pause" if actor.paused_until > self.now else "slow processing"] += 1
            self._at(ready, self._arrive, sent)
            return
        actor.free_at = self.now + actor.process_ns
        if self._watched and self._harmed(sent, actor):
            self._release(sent.name)
            return
        again = self._uses[sent.name] > 1
        if self.is_up(sent.to):
            replies = self.perform(Deliver, actor, message=sent.name, again=again, room=actor.room)
            if actor.peer == sent.sender:
                self._ask(actor, replies)
        else:
            self.fired["nobody there"] += 1
        self._release(sent.name)

    def _harmed(self, sent: Sent, actor: Actor) -> bool:
        """Let a message arrive as it should not, now and then."""
        if self.chance.happens(self.harm.truncation):
            self.fired["truncation"] += 1
            self.perform(Deliver, actor, message=sent.name, again=True, cut=self.chance.between(1, len(sent.data) - 1))
            return True
        if self.chance.happens(self.harm.misrouting):
            self.fired["misrouting"] += 1
            wrong = self.actors[self.chance.pick(self.names)]
            if self.is_up(wrong.name):
                self.perform(Deliver, wrong, message=sent.name, again=True)
            return True
        return False
