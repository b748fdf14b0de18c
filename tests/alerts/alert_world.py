"""Nodes of a fleet with alerts in virtual time: kills, cuts, outages of the destination, silences, and a judge of what was told.

The truth about each subject is known to the world alone; nodes see it through their conditions, a little late. The rule stands in
the fleet, the destination on some nodes. A tick is a second: messages of the gossip pass, all nodes look, deliveries arrive.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from constraint_crdt.alerts import AlertRule, Condition, Conditions, write_text
from constraint_crdt.alerts.delivery import Alert, Outlook, Teller, WebhookMessage, Webhooks
from constraint_crdt.alerts.engine import AlertEngine, FleetAlerts
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.simulation.world import SimRng
from constraint_crdt.types.orset import Subject

SECOND = 10**9
Result = TypeVar("Result")
RULE = AlertRule(name="hot", kind="silence", for_=2.0, keep_firing_for=5.0, to=("ops",))
PLACE = "ops"
SETTLE = 60
"""Seconds without faults at the end of a history."""

KNOWN_AFTER = 8
"""Seconds after which what one node wrote is known to all that it is connected with."""

IN_TIME = 18
"""Seconds within which an alert is told where nothing disturbs it."""

NOTICED_AFTER = 2
"""Seconds after which the end of a link or of a node is noticed."""


class Received(NamedTuple):
    """A message that arrived at the destination."""

    at: int
    sender: str
    subject: str
    firing: bool
    marked: bool
    """It says that nodes were not reached."""
    divided: bool
    """The fleet was divided then."""
    store: int
    """How often its sender had lost its disk."""


class SentMessage(NamedTuple):
    """A message on its way."""

    due: int
    content: Mapping[str, object]
    message: WebhookMessage


class Pager(Webhooks):
    """Takes the messages of a node, and delivers them in its time."""

    def __init__(self, node: "SimulatedTeller") -> None:
        super().__init__()
        self._node = node
        self.queue: list[SentMessage] = []

    def send(self, url: str, content: Mapping[str, object]) -> WebhookMessage:
        message = WebhookMessage(b"")
        world = self._node.world
        self.queue.append(SentMessage(world.second + world.rng.below(3), content, message))
        return message

    def tick(self) -> None:
        """Deliver what is due, in order; nothing while the destination is out."""
        world = self._node.world
        while self.queue and self.queue[0].due <= world.second:
            _, content, message = self.queue[0]
            if message.withdrawn:
                message.dropped = True
                self.queue.pop(0)
                continue
            message.attempted = True
            message.tries += 1
            if world.second < world.out_until or self._node.mute:
                message.attempted = False
                return
            self.queue.pop(0)
            message.delivered = True
            world.receive(self._node, content)


class Seen(Conditions):
    """What a node sees of the truth."""

    def __init__(self, node: "SimulatedTeller") -> None:
        self._node = node

    def find(self, rule: AlertRule) -> Iterator[Condition]:
        for subject in self._node.world.truth:
            if self._node.world.seen_truth(self._node.name, subject):
                yield Condition(subject, True, "it is so", ("n0",))


class SimulatedTeller:
    """A node, over its lives."""

    def __init__(self, world: "AlertWorld", name: str, *, destination: bool) -> None:
        self.world = world
        self.name = name
        self.destination = destination
        self.lives = 0
        self.stores = 0
        """How often it lost its disk."""
        self.up = True
        self.mute = False
        """Its way out takes no message any more."""
        self.file: list[bytes] = []
        self.gossip = self._born()
        self._start()

    def _born(self) -> GossipNode:
        self.lives += 1
        return GossipNode(
            self.name,
            incarnation=self.lives,
            now=lambda: self.world.wall,
            renew=self._renew,
            fleet="f",
            steady=lambda: self.world.wall,
        )

    def _renew(self) -> int:
        self.lives += 1
        return self.lives

    def _start(self) -> None:
        self.began = self.world.second
        self.met = self.wrote = False
        self.pager = Pager(self)
        destinations = {PLACE: "http://ops/"} if self.destination else {}
        outlook = Outlook(live=lambda: self.world.seen_by(self.name), unreached=self._unreached, waits=self._waits)
        self.teller = Teller(
            self.gossip, self.pager, destinations=destinations, outlook=outlook, write=self._write, now=lambda: self.world.wall
        )
        self.engine = AlertEngine(
            (), Seen(self), teller=self.teller, file=None, notify=lambda *_, **__: None, now=lambda: self.world.wall,
            fleet_rules=self.gossip.state.alert_rules,
        )  # fmt: skip
        self.desk = FleetAlerts(self.gossip, self.engine, self.teller, commit=_commit, actor=lambda: "o")

    def _write(self, mutate: Callable[[], object]) -> None:
        mutate()
        self.wrote = True

    def _unreached(self) -> Sequence[str]:
        return sorted(self.world.nodes.keys() - self.world.seen_by(self.name) - {self.name})

    def _waits(self) -> bool:
        return not self.met and self.world.second - self.began < NOTICED_AFTER and bool(self.world.reached_by(self.name))

    def look(self) -> None:
        """Evaluate and tell; the file is saved each ten seconds."""
        self.engine.evaluate(float(self.world.second))
        if self.world.second % 10 == 0:
            self.file = [msgspec.json.encode(each) for each in self.engine.saved()]
        self.pager.tick()

    def kill(self) -> None:
        """The process ends at once."""
        self.up = False

    def restart(self, *, lost: bool) -> None:
        """It starts again; with its store, or without."""
        self.up = True
        if lost:
            self.file, self.gossip = [], self._born()
            self.stores += 1
        self._start()
        self.engine.restore([msgspec.json.decode(each, type=Alert) for each in self.file])


async def _commit(mutate: Callable[[], Result], operation: str, subject: str, subjects: Sequence[Subject] = ()) -> Result:
    return mutate()


@dataclass
class AlertWorld:
    """A fleet in virtual time."""

    seed: int
    count: int = 4
    faults: bool = True
    silences: bool = True
    seconds: int = 150
    received: list[Received] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    truth: dict[str, bool] = field(default_factory=dict)
    turns: list[tuple[int, str, bool]] = field(default_factory=list)
    disturbed: list[int] = field(default_factory=list)
    """The seconds of faults, and of their ends."""
    speechless: list[int] = field(default_factory=list)
    """The seconds in which no node can reach the destination."""

    def __post_init__(self) -> None:
        self.rng = SimRng(self.seed)
        self.second = 0
        self.out_until = 0
        self.cut: frozenset[str] = frozenset()
        """One side of a partition."""
        self.last_seen: dict[tuple[str, str], int] = {}
        self.quiet: list[tuple[int, int, str, str]] = []
        """Silences: from, until, subject, node."""
        self.nodes: dict[str, SimulatedTeller] = {}
        for number in range(self.count):
            self.nodes[f"n{number}"] = SimulatedTeller(self, f"n{number}", destination=number < max(2, self.count - 1))
        self.truth = dict.fromkeys(("a", "b"), False)
        first = self.nodes["n0"].gossip
        first.write(lambda me: first.state.alert_rules.put(RULE.name, write_text(RULE), at=1, actor="o", node=me))

    @property
    def wall(self) -> int:
        """ns since the epoch."""
        return 1_800_000_000 * SECOND + self.second * SECOND

    # --- who reaches whom --------------------------------------------------------------------------------------------------

    def linked(self, one: str, other: str) -> bool:
        """True if two nodes run, on the same side."""
        return self.nodes[one].up and self.nodes[other].up and (one in self.cut) == (other in self.cut)

    def reached_by(self, name: str) -> set[str]:
        """The nodes that a node can talk to."""
        return {other for other in self.nodes if other != name and self.linked(name, other)}

    def seen_by(self, name: str) -> set[str]:
        """The nodes that a node takes for live."""
        return {
            other
            for other in self.nodes
            if other != name and self.second - self.last_seen.get((name, other), -NOTICED_AFTER) < NOTICED_AFTER
        }

    def seen_truth(self, name: str, subject: str) -> bool:
        """The truth as a node sees it: up to a second late."""
        turns = [(at, holds) for at, about, holds in self.turns if about == subject]
        late = sum(map(ord, name + subject)) + len(turns)
        seen = [holds for at, holds in turns if at + late % 2 <= self.second]
        return seen[-1] if seen else False

    # --- running -----------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """A history, and its end without faults."""
        while self.second < self.seconds + SETTLE:
            self.second += 1
            if self.second == self.seconds:
                self._heal()
            elif self.second < self.seconds:
                self._disturb()
            if not any(node.up and node.destination and not node.mute for node in self.nodes.values()):
                self.speechless.append(self.second)
            self._turn()
            self._exchange()
            for node in self.nodes.values():
                if node.up:
                    node.look()
        self._judge()

    def _disturb(self) -> None:
        if not self.faults or self.second < 20:
            return
        roll = self.rng.below(100)
        up = [node for node in self.nodes.values() if node.up]
        if roll < 3 and len(up) > 1:
            self._note()
            self.rng.pick(up).kill()
        elif roll < 7:
            down = [node for node in self.nodes.values() if not node.up]
            if down:
                self._note()
                self.rng.pick(down).restart(lost=self.rng.below(3) == 0)
        elif roll < 9:
            self._note()
            self.cut = frozenset() if self.cut else frozenset(name for name in self.nodes if self.rng.below(2))
        elif roll < 10:
            self._note()
            self.out_until = self.second + 5 + self.rng.below(20)
        elif roll < 13 and self.silences:
            self._silence(self.rng.pick(up))
        elif roll < 14 and not any(node.mute for node in self.nodes.values()):
            self._note()
            self.rng.pick([node for node in self.nodes.values() if node.destination]).mute = True

    def _silence(self, node: SimulatedTeller) -> None:
        subject, length = self.rng.pick(("a", "b")), 10 + self.rng.below(40)
        coroutine = node.desk.silence(subject, why="a test", for_=float(length))
        try:
            coroutine.send(None)
        except StopIteration:
            self.quiet.append((self.second, self.second + length, subject, f"{node.name} {node.lives}"))
        self._note()

    def _heal(self) -> None:
        self._note()
        self.cut, self.out_until = frozenset(), 0
        for node in self.nodes.values():
            if not node.up:
                node.restart(lost=False)

    def _note(self) -> None:
        self.disturbed.append(self.second)

    def _turn(self) -> None:
        """The truth changes now and then, not in the last seconds."""
        if self.second >= 10 and self.second < self.seconds and self.rng.below(25) == 0:
            subject = self.rng.pick(("a", "b"))
            self.truth[subject] = not self.truth[subject]
            self.turns.append((self.second, subject, self.truth[subject]))

    def _exchange(self) -> None:
        for name, node in self.nodes.items():
            reached = sorted(self.reached_by(name))
            for other in reached:
                self.last_seen[name, other] = self.second
            for _ in reached[:2]:
                exchange(node.gossip, self.nodes[self.rng.pick(reached)].gossip)
                node.met = True
            for other in reached if node.wrote else ():  # news is pushed at once
                exchange(node.gossip, self.nodes[other].gossip)
            node.wrote = False

    # --- judging -----------------------------------------------------------------------------------------------------------

    def receive(self, node: SimulatedTeller, content: Mapping[str, object]) -> None:
        """A message arrives at the destination."""
        alerts = content.get("alerts")
        subjects = [each["subject"] for each in alerts] if isinstance(alerts, list) else [content["subject"]]
        for subject in subjects:
            self.received.append(
                Received(
                    self.second,
                    node.name,
                    str(subject),
                    content["state"] == "firing",
                    "unreached" in content,
                    bool(self.cut),
                    node.stores,
                )
            )
            self._judge_silence(node, str(subject))

    def _judge_silence(self, node: SimulatedTeller, subject: str) -> None:
        since = max((each for each in self.disturbed if each < self.second), default=0)
        for begin, end, about, by in self.quiet:
            writer, _, life = by.partition(" ")
            same = int(life) == self.nodes[writer].lives and self.linked(writer, node.name)
            connected = same and (writer == node.name or self.second - since >= KNOWN_AFTER)
            if about == subject and begin + KNOWN_AFTER <= self.second < end and connected:
                self.problems.append(f"{subject} was told at {self.second} by {node.name}, silenced from {begin} to {end} by {by}")

    def _judge(self) -> None:
        if not any(RULE.name in node.gossip.state.alert_rules for node in self.nodes.values()):
            return  # all nodes lost their disks, one after the other, and the rule is gone with the last
        for subject, holds in self.truth.items():
            told = [each for each in self.received if each.subject == subject]
            if any(end > self.second - KNOWN_AFTER - 20 for _, end, about, _ in self.quiet if about == subject):
                continue
            firing = bool(told) and told[-1].firing
            if holds and not firing and not (told and self._is_lost(told[-1])):
                self.problems.append(f"{subject} is so and its destination does not know: lost")
            if not holds and firing and not self._is_lost(told[-1]):
                self.problems.append(f"the end of {subject} was never told")
            self._judge_repetition(subject, told)
        for place, (begin, subject, holds) in enumerate(self.turns):
            end = next((at for at, about, _ in self.turns[place + 1 :] if about == subject), self.second)
            if holds and end - begin >= IN_TIME and not self._is_disturbed(begin - 25, begin + IN_TIME):
                later = [each.at for each in self.received if each.subject == subject and each.at >= begin]
                known = [each for each in self.received if each.subject == subject and each.at < begin][-1:]
                mute = any(begin <= each <= begin + IN_TIME for each in self.speechless)
                if not (later and later[0] <= begin + IN_TIME) and not (known and known[0].firing) and not mute:
                    self.problems.append(f"{subject} was so from {begin} on, and was told at {later[:1]}")

    def _is_disturbed(self, begin: int, end: int) -> bool:
        return any(begin <= each <= end for each in self.disturbed) or any(a < end and b > begin for a, b, _, _ in self.quiet)

    def _is_lost(self, last: Received) -> bool:
        """A message of a node that did not reach some others and then lost its disk: no other node may know of it."""
        return last.marked and self.nodes[last.sender].stores > last.store

    def _judge_repetition(self, subject: str, told: Sequence[Received]) -> None:
        """Two messages of the same content in a row come only with a fault between them, or shortly before the first.

        In a partition both sides tell, and say that they do not reach the others. What turns to and fro is seen by some nodes some
        seconds before others.
        """
        for before, after in itertools.pairwise(told):
            faults = any(before.at - 25 <= each <= after.at for each in self.disturbed)
            to_and_fro = sum(about == subject and before.at - 10 <= at <= after.at for at, about, _ in self.turns) > 1
            if to_and_fro or faults or (after.divided and after.marked and before.marked):
                continue
            if before.firing == after.firing:
                self.problems.append(f"{subject} was told twice without a fault: {before} and {after}")


def exchange(one: GossipNode, other: GossipNode) -> None:
    """An exchange of two nodes, to its end."""
    waiting = [(other, one, one.begin(other.node_id))]
    while waiting:
        to, back, message = waiting.pop(0)
        waiting += [(back, to, response) for response in to.receive(message).responses]
