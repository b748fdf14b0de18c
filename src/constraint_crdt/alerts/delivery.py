"""Telling alerts: the node that tells an alert to a destination, and delivery to webhooks.

An alert is told to each destination of its rule by a single node: of the live nodes with a way to the destination that of the
highest weight (rendezvous hashing, Thaler and Ravishankar, 1998). The last message is a cell (`types.alerts`), so it survives
restarts and is known to all nodes. Rules kept here:

- A destination is told once that an alert fires, and once that it ended, if no fault comes between. It is told again where a node
  is killed between the delivery and its cell, where a destination takes longer than `STAND_IN` to answer, and where the sides of a
  partition do not know of each other. No alert is lost: an alert without a cell of its delivery is told again.
- The node next in weight tells an alert that the nodes before it did not tell for `STAND_IN` each: they may not see it, or have
  lost their way out.
- The end of an alert is told by the node that told its begin, or, once that node is not live or has tried in vain, by the first of
  the others.
- A node that still sees an alert that another node ended waits for `DISAGREEMENT`, and then tells it as a new alert.
- A silenced alert is not told, neither its begin nor its end; the state when the silence ends is told then. A message that waits
  for its delivery when the silence comes is withdrawn, and so is a message whose alerts ended meanwhile, or that another node
  delivered.
- An acknowledged alert is told no more until it ends.
- Alerts of a rule that turn together are told in one message; after it the next alerts of the rule wait for `GROUP_EVERY`.
- Time is measured by a monotonic clock, except for the end of silences, which is in hybrid time, and for `repeat`.
- A node tells nothing before its first contact with a peer, as it may not know the messages told meanwhile.
- A webhook gets a POST of JSON per message, in order for each address, with retries. The event loop never waits; two threads send.
  Each address has a bounded queue. A full queue drops its oldest message. Addresses may hold secrets, so the log has only their
  scheme, host and port.
"""

import asyncio
import logging
import time
import urllib.parse
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from constraint_crdt.alerts import LOG, AlertRule, shown_place
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.model import parse_selector
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.types.alerts import ATTEMPTED, DELIVERED, ENDED, ENDING, Silence, Told, Unit

FAILING_FOR = 3600.0
"""Seconds for which a failed attempt is told of."""

QUEUED = 256
"""Messages in the queue of an address, at most."""

TIMEOUT = 5.0
"""Seconds without an answer after which an attempt fails."""

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between two attempts: each pause is twice the last, between these bounds."""

ATTEMPTS = 10
"""Attempts after which a message is dropped. They take some five minutes."""

THREADS = 2

STAND_IN: Final = 4 * SECOND
"""ns for which each node waits longer than the node before it in weight."""

APART: Final = 5 * SECOND
"""ns by which nodes date the beginning of an alert differently."""

DISAGREEMENT: Final = 10 * SECOND
"""ns for which a node waits before it tells an alert that another node ended."""

GROUP_EVERY: Final = 10 * SECOND
"""ns between two messages of a rule to a destination, of firing alerts or of ended ones."""

AGAIN: Final = 300 * SECOND
"""ns after a dropped message before the alert is told again."""

MOST_GROUPED: Final = 100
"""Alerts in a message."""

MOST_NAMED: Final = 20
"""Nodes named in a message as not reached."""

_WORTH_TRYING_AGAIN = frozenset({408, 425, 429})
Result = TypeVar("Result")

_log = logging.getLogger("constraint_crdt.alerts")


class Alert(msgspec.Struct, kw_only=True):
    """A rule and a subject with a true condition."""

    rule: str
    subject: str
    since: int
    """When the condition began to hold, in ns since the epoch."""
    fired_at: int | None = None
    """In ns since the epoch; None before the rule's time has passed."""
    detail: str = ""
    elapsed: int = 0
    """The counted time of the rule in ns: of `for` for an alert about to fire, of `keep_firing_for` for an alert about to end."""
    untold: list[str] = []
    """Of a fired alert: the destinations that do not know of it."""
    clearing: bool = False
    """The condition is over, for less than `keep_firing_for`."""
    nodes: list[str] = []
    """The nodes concerned, for silences."""
    episode: int = 0
    """Of a fired alert that was told: the number of the episode. See `types.alerts`."""

    def __post_init__(self) -> None:
        if not 0 <= self.elapsed <= MAX_COUNT:
            raise InvalidValue("the time of an alert is out of bounds")


class Message:
    """A message in a queue."""

    __slots__ = ("attempted", "delivered", "dropped", "pointless", "tries", "why", "withdrawn")

    def __init__(self) -> None:
        self.attempted = False
        """True during an attempt, and after a successful attempt: the receiver may have the message."""
        self.tries = 0
        """Attempts that were begun."""
        self.why = ""
        """The reason for which the last attempt failed."""
        self.delivered = False
        self.dropped = False
        self.withdrawn = False
        """Not to be sent any more. The writer sets this; an attempt that runs goes on."""
        self.pointless = False
        """Withdrawn because the alerts are over."""

    @property
    def tried(self) -> bool:
        """An attempt was made at some time."""
        return self.tries > 0


class WebhookMessage(Message):
    """A message for an address."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


class Failure(NamedTuple):
    """A failed attempt."""

    why: str
    final: bool = False
    """Further attempts are useless."""


Queued = TypeVar("Queued", bound=Message)


class Deliveries(ABC, Generic[Queued]):
    """Delivers messages in order for each key, with retries. Belongs to a single event loop."""

    def __init__(self, *, first_pause: float = FIRST_PAUSE, threads: int = THREADS) -> None:
        """`first_pause`: seconds before the second attempt. `threads`: attempts that block at once."""
        self._first_pause = first_pause
        self._queues: dict[str, deque[Queued]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._most_threads = threads
        self._threads: ThreadPoolExecutor | None = None
        self.waiting = 0
        """Messages in all queues."""
        self.delivered = 0
        self.dropped = 0
        self._failing: dict[str, tuple[str, float]] = {}
        """The keys, as shown, whose last attempt failed: the reason, and the monotonic time in seconds."""

    @abstractmethod
    async def attempt(self, key: str, message: Queued) -> Failure | None:
        """A single attempt. None: delivered."""

    @abstractmethod
    def shown(self, key: str) -> str:
        """A key for the log, without secrets."""

    def most_attempts(self, message: Queued) -> int:  # noqa: ARG002 - of another subclass
        """Attempts after which a message is dropped."""
        return ATTEMPTS

    def settled(self, key: str, message: Queued) -> None:
        """A message left its queue: it was delivered or dropped."""

    def failing(self) -> dict[str, str]:
        """The keys, as shown, whose last attempt failed within `FAILING_FOR`, each with the reason."""
        after = time.monotonic() - FAILING_FOR
        return {shown: why for shown, (why, at) in sorted(self._failing.items()) if at >= after}

    def put(self, key: str, message: Queued) -> None:
        """Queue a message. Returns at once."""
        queue = self._queues.setdefault(key, deque())
        queue.append(message)
        self.waiting += 1
        if len(queue) > QUEUED:
            self.drop_oldest(key, f"more than {QUEUED} wait")
        task = self._tasks.get(key)
        if task is None or task.done():
            self._tasks[key] = asyncio.create_task(self._deliver_all(key, queue), name=f"delivery to {self.shown(key)}")

    def drop_oldest(self, key: str, why: str) -> None:
        """Drop the oldest message of a key; a younger one, if there is any, during an attempt."""
        queue = self._queues[key]
        oldest = queue[queue[0].attempted and len(queue) > 1]
        queue.remove(oldest)
        self.waiting -= 1
        self._drop(key, oldest, why)

    async def in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function that blocks."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._most_threads, "delivery")
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def close(self) -> None:
        """Stop delivery. Messages stay in the queues."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _deliver_all(self, key: str, queue: deque[Queued]) -> None:
        while queue:
            message = queue[0]
            why = None if message.withdrawn else await self._deliver(key, message)
            if message.dropped:
                continue  # it left a full queue meanwhile
            queue.popleft()
            self.waiting -= 1
            if message.withdrawn and not message.attempted:
                message.dropped = True
            elif why is None:
                self.delivered += 1
                message.delivered = True
            else:
                self._drop(key, message, why)
            if message.delivered:
                self.settled(key, message)
        del self._queues[key], self._tasks[key]

    async def _deliver(self, key: str, message: Queued) -> str | None:
        """Deliver a message. Returns the reason of a failure, else None."""
        pause, waits = self._first_pause, False
        while message.tries < self.most_attempts(message):
            if waits:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                if message.withdrawn or message.dropped:
                    break
            waits = message.attempted = True
            message.tries += 1
            failure = await self.attempt(key, message)
            if failure is None:
                self._failing.pop(self.shown(key), None)
                return None
            message.attempted, message.why = False, failure.why
            if len(self._failing) < QUEUED:
                self._failing[self.shown(key)] = failure.why, time.monotonic()
            if failure.final:
                break
        return message.why or "no attempt is left"

    def _drop(self, key: str, message: Queued, why: str) -> None:
        message.dropped = True
        self.dropped += 1
        _log.warning("a message for %s is dropped: %s", self.shown(key), why)
        self.settled(key, message)


class Webhooks(Deliveries[WebhookMessage]):
    """Delivers messages to addresses."""

    def send(self, url: str, content: Mapping[str, object]) -> WebhookMessage:
        """Queue a message for `url`. Returns at once."""
        message = WebhookMessage(msgspec.json.encode(content))
        self.put(url, message)
        return message

    async def attempt(self, key: str, message: WebhookMessage) -> Failure | None:
        """A single POST."""
        return failure_of(await self.in_thread(_post, key, message.body))

    def shown(self, key: str) -> str:
        """The address without its secret parts."""
        return shown_place(key)


def failure_of(answered: int | str) -> Failure | None:
    """The failure of a POST of this status, or without an answer for this reason; None for a status of success."""
    if isinstance(answered, str):
        return Failure(answered)
    final = answered < 500 and answered not in _WORTH_TRYING_AGAIN
    return None if 200 <= answered < 300 else Failure(f"answered {answered}", final)


def _post(url: str, message: bytes) -> int | str:
    return post(url, message, {"Content-Type": "application/json"})


def post(url: str, message: bytes, headers: Mapping[str, str]) -> int | str:
    """A single POST. Blocks. Returns the HTTP status, or the reason for a missing answer."""
    import http.client  # for nodes with webhooks only

    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        connection.request("POST", target, message, {"User-Agent": "constraint-crdt", **headers})
        return connection.getresponse().status
    except TimeoutError:
        return "no answer in time"
    except OSError as error:
        return error.strerror or type(error).__name__
    except http.client.HTTPException as error:
        return type(error).__name__
    finally:
        connection.close()


# --- who tells what ----------------------------------------------------------------------------------------------------------


class Outlook(NamedTuple):
    """The fleet as a node sees it."""

    live: Callable[[], Set[str]]
    """The live peers."""
    unreached: Callable[[], Sequence[str]]
    """The nodes of the fleet that are not heard."""
    waits: Callable[[], bool]
    """True before the first contact: the node does not know yet the messages told."""


ALONE: Final = Outlook(live=frozenset, unreached=tuple, waits=lambda: False)
"""The outlook of a node without a fleet."""


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """True if a selector, as text, selects a node with these labels. An unreadable selector selects none."""
    try:
        return parse_selector(selector).matches(labels)
    except ConstraintCrdtError:  # of a later version: an alert is told rather than lost
        return False


class Look(NamedTuple):
    """The result of an evaluation of all rules on a node."""

    rules: Mapping[str, AlertRule]
    """Those in force, and those removed whose alerts were not all told as ended."""
    of_fleet: Collection[str]
    """The names of the rules of the fleet."""
    fired: Mapping[tuple[str, str], Alert]
    open: Collection[tuple[str, str]]
    """The alerts whose end is not to be told: tracked, or without evidence."""
    over: Mapping[tuple[str, str], Alert]
    """The last words on alerts that ended here."""


class Knowledge(NamedTuple):
    """The messages told of an alert to a destination, as far as is known. In a partition each side may have told something."""

    heads: tuple[Told, ...]

    @property
    def delivered(self) -> bool:
        """The destination knows that the alert fires, and no node told its end meanwhile: a later episode says so, too."""
        last = self.episode
        return any(each.phase == DELIVERED and each.episode == last for each in self.heads) and all(
            each.firing for each in self.heads
        )

    @property
    def open(self) -> bool:
        """The destination may know that the alert fires, and not that it ended."""
        return any(each.open for each in self.heads)

    @property
    def episode(self) -> int:
        """The last episode."""
        return max(each.episode for each in self.heads)

    @property
    def begun(self) -> Told:
        """Whose word on the begin counts for the turns of the nodes."""
        return max(self.heads, key=lambda each: (not each.firing, each.episode, each.phase == DELIVERED, each.at, each.replica))

    @property
    def owner(self) -> Told:
        """Whose turn it is to tell the end."""
        return max(self.heads, key=lambda each: (each.open, each.phase, each.at, each.replica))


class _Due(NamedTuple):
    """A message that some node has to send."""

    told: Knowledge | None
    firing: bool
    repeated: bool = False


class _Flying(NamedTuple):
    """A message on its way."""

    message: WebhookMessage
    outgoing: "Outgoing"


class Outgoing(NamedTuple):
    """A message to be sent."""

    place: str
    """`log`, or an address."""
    content: Mapping[str, object]
    units: Mapping[Unit, int]
    """The alerts in it, with their episodes."""
    firing: bool
    repeated: bool
    open: Collection[Unit]
    """The alerts that the destination knew of before."""


class Teller:
    """Tells the alerts of a node, and of its fleet. `look`, then `send`, after each evaluation."""

    def __init__(
        self,
        gossip: GossipNode,
        webhooks: Webhooks,
        *,
        destinations: Mapping[str, str] | None = None,
        outlook: Outlook = ALONE,
        write: Callable[[Callable[[], object]], object] | None = None,
        now: Callable[[], int],
    ) -> None:
        """`destinations`: the addresses of this node by name. `write` calls a mutation of the state. `now`: ns since the epoch."""
        self._gossip = gossip
        self._state = gossip.state
        self._webhooks = webhooks
        self._destinations = destinations or {}
        self._outlook = outlook
        self._write = write or (lambda mutate: mutate())
        self._now = now
        self._mine: dict[Unit, Told] = {}
        """The messages that this node told, also where it cannot write cells."""
        self._due: dict[Unit, tuple[_Due, int]] = {}
        """Since when a message waits, by the monotonic clock."""
        self._flying: list[_Flying] = []
        self._again: dict[Unit, int] = {}
        """Until when a destination that did not take a message is left alone."""
        self._grouped: dict[tuple[str, str, bool], int] = {}
        """When the last message of a rule left, by rule, place, and firing."""
        self._heard: dict[tuple[str, str], int] = {}
        """When another node was last seen to tell alerts of a rule, by rule and place."""
        self._seen: dict[Unit, Knowledge] = {}
        self._outbox: list[Outgoing] = []

    # --- reading -----------------------------------------------------------------------------------------------------------

    @property
    def webhooks(self) -> Webhooks:
        """The delivery to addresses."""
        return self._webhooks

    def known(self, unit: Unit) -> Knowledge | None:
        """The messages told of an alert to a destination; None: nothing."""
        heads, mine = self._state.told_alerts.of(unit), self._mine.get(unit)
        found = heads if mine is None else [*heads, mine]
        return Knowledge(tuple(found)) if found else None

    def told(self, rule: AlertRule, subject: str) -> Iterator[tuple[str, str]]:
        """The destinations that know that an alert fires, for people, and the node that told each."""
        for place in rule.to:
            found = self.known(Unit(rule.name, subject, place_name(place)))
            if found is not None and found.delivered:
                yield shown_place(place) if "://" in place else place, found.begun.replica.node_id

    def silences_of(self, rule: str, subject: str, nodes: Collection[str]) -> list[Silence]:
        """The silences that cover an alert together; empty if they do not. O(silences), and O(nodes) with selectors.

        A silence with a selector covers the nodes that it selects. An alert is silenced if all nodes that it concerns are covered.
        """
        found, covered = [], set[str]()
        labels: Mapping[str, Mapping[str, str]] | None = None
        for each in self._state.silences.active(self._gossip.time.now()):
            value = each.value
            if each.acknowledges or not (fnmatchcase(rule, value.alert) or fnmatchcase(subject, value.alert)):
                continue
            if not value.on:
                return [each]
            if labels is None:
                labels = self._state.labels
            chosen = {node for node in nodes if selects(value.on, labels.get(node, {}))}
            if chosen - covered:
                covered |= chosen
                found.append(each)
        return found if nodes and covered.issuperset(nodes) else []

    def acknowledgement(self, alert: Alert) -> Silence | None:
        """The acknowledgement in force of a fired alert; None without an acknowledgement.

        An alert that no destination was told of has no episode yet: it is covered by an acknowledgement of the episode to come, but
        not by an acknowledgement from before it began.
        """
        told, episode = self.is_firing(alert.rule, alert.subject), self.episode(alert.rule, alert.subject)
        for each in self._state.silences.active(self._gossip.time.now()):
            value = each.value
            if not each.acknowledges or (value.alert, value.subject) != (alert.rule, alert.subject) or value.episode < episode:
                continue
            if told or value.at + APART >= alert.since:
                return each
        return None

    def episode(self, rule: str, subject: str) -> int:
        """The episode of a fired alert; the next episode, if no destination knows that it fires."""
        firing = [head.episode for each in self._known(rule, subject) for head in each.heads if head.firing]
        return max(firing) if firing else self._last_episode(rule, subject) + 1

    def is_firing(self, rule: str, subject: str) -> bool:
        """A destination was told that an alert fires, or this is being tried."""
        return any(head.firing for each in self._known(rule, subject) for head in each.heads)

    def _known(self, rule: str, subject: str) -> list[Knowledge]:
        return [told for unit in self._units(rule, subject) if (told := self.known(unit)) is not None]

    def _last_episode(self, rule: str, subject: str) -> int:
        """The last episode of an alert that was told anywhere; 0: none was."""
        return max((each.episode for each in self._known(rule, subject)), default=0)

    def is_told(self, rule: str, subject: str) -> bool:
        """Some destination was told that an alert fires, and not that it ended."""
        return any(each is not None and each.open for each in map(self.known, self._units(rule, subject)))

    def lacking(self, rule: AlertRule) -> tuple[str, ...]:
        """The destinations of a rule of the fleet that no live node can tell."""
        live = self._outlook.live()
        ways = {way for node in live for way in self._state.ways_out.of(node)} | {LOG, *self._destinations}
        return tuple(place for place in rule.to if place not in ways)

    def _units(self, rule: str, subject: str) -> set[Unit]:
        return {*self._state.told_alerts.units(rule, subject), *(each for each in self._mine if each[:2] == (rule, subject))}

    # --- deciding ----------------------------------------------------------------------------------------------------------

    def recall(self, alerts: Iterable[Alert], rules: Mapping[str, AlertRule]) -> None:
        """Take over the alerts of a file: their destinations were told of them, but for `untold`."""
        for alert in alerts:
            rule = rules.get(alert.rule)
            for place in () if rule is None or alert.fired_at is None else rule.to:
                unit = Unit(alert.rule, alert.subject, place_name(place))
                if digest_of(place) not in alert.untold and self.known(unit) is None:
                    self._mine[unit] = Told(alert.episode, DELIVERED, alert.fired_at or 0, self._gossip.replica)

    def untold(self, rule: AlertRule, subject: str) -> list[str]:
        """The destinations that do not know that an alert fires, by their digests."""
        found = []
        for place in rule.to:
            told = self.known(Unit(rule.name, subject, place_name(place)))
            if told is None or not any(each.firing for each in told.heads):
                found.append(digest_of(place))
        return sorted(found)

    def look(self, look: Look, at: int) -> None:
        """Decide on the messages to tell now, `at` in ns of a monotonic clock, and write them down. O(alerts x destinations)."""
        self._put(self._collect(at))
        self._outbox.clear()
        if (look.rules or self._destinations) and not self._outlook.waits():
            self._state_ways(look)
            self._withdraw(look)
            due = dict(self._wanted(look, at))
            self._due = {unit: held for unit, held in self._due.items() if unit in due}
            self._put(self._take(look, due, at))
        live = {*look.fired, *look.open}
        self._mine = {unit: told for unit, told in self._mine.items() if told.open or unit[:2] in live}
        self._seen = {unit: told for unit, told in self._seen.items() if self.known(unit) is not None}

    def send(self) -> None:
        """Send the messages that `look` decided on."""
        for each in self._outbox:
            if each.place == LOG:
                _to_log(each.content, firing=each.firing)
                message = WebhookMessage(b"")
                message.attempted = message.delivered = True
            else:
                message = self._webhooks.send(each.place, each.content)
            self._flying.append(_Flying(message, each))
        self._outbox.clear()

    async def close(self) -> None:
        """Stop delivery. Alerts whose message no attempt was made for are told later, here or by another node."""
        await self._webhooks.close()
        writes = self._collect(0)
        for message, sent in self._flying:
            if sent.firing and not sent.repeated and not message.attempted:
                writes |= {unit: (episode, ENDED) for unit, episode in sent.units.items()}
        self._flying.clear()
        self._put(writes)

    def _wanted(self, look: Look, at: int) -> Iterator[tuple[Unit, _Due]]:
        """The messages that some node of the fleet has to send, as far as this node sees."""
        flying = {unit for each in self._flying for unit in each.outgoing.units}
        now, acknowledged = self._now(), dict[tuple[str, str], bool]()
        for key, alert in look.fired.items():
            rule = look.rules[alert.rule]
            if self.silences_of(*key, alert.nodes):
                continue
            for place in rule.to:
                unit = Unit(*key, place_name(place))
                told = self.known(unit)
                self._note(unit, told, at)
                if unit in flying:
                    continue
                if told is None or not told.delivered:
                    wanted = _Due(told, firing=True)
                elif rule.repeat and now - told.begun.at >= rule.repeat * SECOND:
                    wanted = _Due(told, firing=True, repeated=True)
                else:
                    alert.episode = told.episode
                    continue
                if key not in acknowledged:
                    acknowledged[key] = self.acknowledgement(alert) is not None
                if not acknowledged[key]:
                    yield unit, wanted
        for unit in {*self._state.told_alerts, *self._mine}:
            key = (unit.rule, unit.subject)
            if key in look.open or key in look.fired or unit in flying or unit.rule not in look.rules:
                continue
            told = self.known(unit)
            self._note(unit, told, at)
            alert_over = look.over.get(key)
            nodes = () if alert_over is None else alert_over.nodes
            if told is not None and told.open and not self.silences_of(*key, nodes):
                yield unit, _Due(told, firing=False)

    def _note(self, unit: Unit, told: Knowledge | None, at: int) -> None:
        """Note that another node tells alerts of a rule, and that its messages arrive."""
        if told is not None and self._seen.get(unit) != told:
            self._seen[unit] = told
            begun = told.begun
            if begun.phase in (DELIVERED, ENDED) and begun.replica.node_id != self._gossip.node_id:
                self._heard[unit.rule, unit.place] = at

    def _take(self, look: Look, due: Mapping[Unit, _Due], at: int) -> dict[Unit, tuple[int, int]]:
        """Take the messages that this node has to send now into the outbox. Returns the cells to be written."""
        writes: dict[Unit, tuple[int, int]] = {}
        batches: dict[tuple[str, str, bool, bool], dict[Unit, _Due]] = {}
        orders: dict[tuple[str, str], list[str]] = {}
        places = {name: [place_name(place) for place in rule.to] for name, rule in look.rules.items()}
        order_of = {unit: (unit.rule, _place_in(places[unit.rule], unit.place), unit.subject) for unit in due}
        for unit, wanted in sorted(due.items(), key=lambda item: order_of[item[0]]):
            before, since = self._due.get(unit, (None, at))
            if before != wanted:
                self._due[unit] = wanted, at
                since = at
            order = orders.get((unit.rule, unit.place))
            if order is None:
                order = orders[unit.rule, unit.place] = self._order(look, unit)
            wait = self._wait(look, unit, wanted, order, at)
            if wait is not None and at - since >= wait and at >= self._again.get(unit, at):
                batches.setdefault((unit.rule, unit.place, wanted.firing, wanted.repeated), {})[unit] = wanted
        for (rule, place, firing, repeated), units in batches.items():
            last = self._grouped.get((rule, place, firing))
            if last is not None and at - last < GROUP_EVERY:
                continue
            self._grouped[rule, place, firing] = at
            target = LOG if place == LOG else self._address(look.rules[rule], place)
            for unit in list(units)[MOST_GROUPED:]:
                del units[unit]
            episodes = {unit: self._episode_of(unit, each) for unit, each in units.items()}
            if target is not None:
                if not repeated:
                    writes |= {unit: (episode, ATTEMPTED if firing else ENDING) for unit, episode in episodes.items()}
                content = self._content(look, list(units), firing=firing, repeated=repeated)
                known = [unit for unit, each in units.items() if each.told is not None and each.told.open]
                self._outbox.append(Outgoing(target, content, episodes, firing, repeated, known))
        return writes

    def _episode_of(self, unit: Unit, wanted: _Due) -> int:
        last = self._last_episode(unit.rule, unit.subject)
        if wanted.told is None:
            return max(1, last)
        if wanted.firing and not wanted.told.begun.firing:
            return max(last, wanted.told.episode + 1)
        return wanted.told.episode

    def _order(self, look: Look, unit: Unit) -> list[str]:
        """The live nodes with a way to the destination, the first to tell first. Without this node if it has none."""
        rule, me = look.rules[unit.rule], self._gossip.node_id
        way = unit.place if unit.rule in look.of_fleet else way_of(rule)
        live = {node for node in self._outlook.live() if way in self._state.ways_out.of(node)} - {me}
        if unit.place == LOG or self._address(rule, unit.place) is not None:
            live.add(me)
        return sorted(live, key=lambda node: (-weight(node, unit.rule, unit.place), node))

    def _wait(self, look: Look, unit: Unit, wanted: _Due, order: list[str], at: int) -> int | None:
        """The ns for which this node leaves a message to others; None: it is not its turn."""
        me, known = self._gossip.node_id, wanted.told
        if me not in order:
            return None
        rank = order.index(me)
        wait = rank * STAND_IN
        if known is not None and (not wanted.firing or wanted.repeated):
            told = known.begun if wanted.firing else known.owner
            by = told.replica.node_id
            if by not in order:
                return wait
            if by == me:
                return 0
            return self._behind(by, order) if told.phase == ENDING else None
        if known is not None and known.begun.phase == ATTEMPTED and known.begun.replica.node_id == me:
            return 0  # the others leave it to this node, which has tried before
        if rank and at < self._heard.get((unit.rule, unit.place), at - 2 * GROUP_EVERY - wait) + GROUP_EVERY + wait:
            return None  # the nodes before this one gather alerts for their next message
        if known is not None:
            told = known.begun
            by = told.replica.node_id
            if by != me and by in order:
                if told.phase == ATTEMPTED:
                    return self._behind(by, order)
                if look.fired[unit[:2]].episode >= told.episode:
                    wait += DISAGREEMENT
        return wait

    def _behind(self, by: str, order: Sequence[str]) -> int:
        """The ns for which this node leaves a message to a node that tries, and to the nodes before it that stand in first."""
        others = [node for node in order if node != by]
        return (1 + others.index(self._gossip.node_id)) * STAND_IN

    def _withdraw(self, look: Look) -> None:
        """Take back messages that wait for delivery while any of their alerts was silenced, or all are over or told by others."""
        for message, sent in self._flying:
            if message.attempted or message.withdrawn:
                continue
            keys = {unit[:2] for unit in sent.units}
            is_told = all(self._is_told(unit, sent) for unit in sent.units)
            message.pointless = not is_told and sent.firing and not any(key in look.fired or key in look.open for key in keys)
            message.withdrawn = is_told or message.pointless or any(self._is_silenced(unit, look) for unit in sent.units)

    def _is_told(self, unit: Unit, sent: Outgoing) -> bool:
        """Another node delivered this message meanwhile, or tells a later episode."""
        told, episode = self.known(unit), sent.units[unit]
        if told is None or sent.repeated or told.episode < episode:
            return False
        if told.episode > episode and (told.open or not sent.firing):
            return True
        return told.delivered if sent.firing else not told.open

    def _is_silenced(self, unit: Unit, look: Look) -> bool:
        alert = look.fired.get(unit[:2]) or look.over.get(unit[:2])
        return bool(self.silences_of(unit.rule, unit.subject, () if alert is None else alert.nodes))

    def _collect(self, at: int) -> dict[Unit, tuple[int, int]]:
        """The results of the messages on their way."""
        writes: dict[Unit, tuple[int, int]] = {}
        still: list[_Flying] = []
        for message, sent in self._flying:
            if message.delivered:
                phase = DELIVERED if sent.firing else ENDED
                writes |= {unit: (max(episode, self._last_told(unit)), phase) for unit, episode in sent.units.items()}
            elif not message.dropped:
                still.append(_Flying(message, sent))
            else:
                if not message.withdrawn:
                    self._again |= dict.fromkeys(sent.units, at + AGAIN)
                if sent.firing and not sent.repeated and (message.pointless or not message.withdrawn):
                    unsure = message.pointless and message.tried
                    writes |= {
                        unit: (episode, ENDING if unsure or unit in sent.open else ENDED)
                        for unit, episode in sent.units.items()
                        if episode >= self._last_told(unit)
                    }
        self._flying = still
        self._again = {unit: until for unit, until in self._again.items() if until > at}
        return writes

    def _last_told(self, unit: Unit) -> int:
        """The last episode of an alert that any node told a destination; 0: none."""
        told = self.known(unit)
        return 0 if told is None else told.episode

    # --- writing -----------------------------------------------------------------------------------------------------------

    def _put(self, writes: Mapping[Unit, tuple[int, int]]) -> None:
        if not writes:
            return
        time = max(0, self._gossip.time.stamp())
        told = {unit: (*each, time) for unit, each in writes.items()}
        written = self._gossip.local.may_count and self._change(
            lambda: self._gossip.write(lambda me: self._state.told_alerts.put_all(told, node=me))
        )
        for unit, each in told.items():
            self._mine.pop(unit, None)
            if not written or not self._state.told_alerts.of(unit):
                self._mine[unit] = Told(*each, self._gossip.replica)

    def replace_destinations(self, destinations: Mapping[str, str]) -> None:
        """The addresses of this node, by name, are these now. Messages on their way go to the former ones."""
        self._destinations = destinations

    def _state_ways(self, look: Look) -> None:
        """Tell the others which destinations this node can tell."""
        ways = [*self._destinations, *(way_of(rule) for name, rule in look.rules.items() if name not in look.of_fleet)]
        if look.of_fleet:
            ways.append(LOG)
        if sorted(set(ways)) != list(self._state.ways_out.of(self._gossip.node_id)) and self._gossip.local.may_count:
            self._change(lambda: self._gossip.write(lambda me: self._state.ways_out.put(ways, node=me)))

    def _change(self, mutate: Callable[[], object]) -> bool:
        try:
            self._write(mutate)
        except ConstraintCrdtError as error:  # beyond a limit: alerts go on, and may be told twice
            _log.debug("what was told of alerts is not written: %s", error)
            return False
        return True

    # --- messages ----------------------------------------------------------------------------------------------------------

    def _address(self, rule: AlertRule, place: str) -> str | None:
        """The address of a destination; None if this node has none."""
        named = self._destinations.get(place)
        return named if named is not None else next((each for each in rule.to if "://" in each and place_name(each) == place), None)

    def _content(self, look: Look, units: Sequence[Unit], *, firing: bool, repeated: bool) -> Mapping[str, object]:
        now, rule = self._now(), look.rules[units[0].rule]
        alerts = [self._alert_of(look, unit, now) for unit in units]
        first = alerts[0]
        message: dict[str, object] = {
            "alert": rule.name, "kind": rule.kind, "state": "firing" if firing else "resolved", "subject": first.subject,
            "detail": first.detail, "node": self._gossip.node_id, "fleet": self._gossip.fleet,
            "since": min(each.since for each in alerts), "time": now,
        }  # fmt: skip
        if len(alerts) > 1:
            message["detail"] = f"{len(alerts)} alerts: {', '.join(each.subject for each in alerts)}"
            message["alerts"] = [{"subject": each.subject, "detail": each.detail, "since": each.since} for each in alerts]
        if repeated:
            message["repeated"] = True
        unreached = list(self._outlook.unreached())
        if unreached:
            message["unreached"] = unreached[:MOST_NAMED]
        return message

    def _alert_of(self, look: Look, unit: Unit, now: int) -> Alert:
        found = look.fired.get(unit[:2]) or look.over.get(unit[:2])
        if found is not None:
            return found
        told = self.known(unit)
        return Alert(rule=unit.rule, subject=unit.subject, since=now if told is None else told.owner.at)


def _place_in(places: Sequence[str], place: str) -> int:
    return places.index(place) if place in places else len(places)


def _to_log(content: Mapping[str, object], *, firing: bool) -> None:
    unreached = content.get("unreached")
    away = f" (not reached from here: {', '.join(unreached)})" if isinstance(unreached, list) else ""
    if firing:
        _log.warning("alert %s: %s: %s%s", content["alert"], content["subject"], content["detail"], away)
    else:
        _log.info("alert %s: %s: resolved%s", content["alert"], content["subject"], away)


def weight(node: str, rule: str, place: str) -> int:
    """The weight of a node for a rule and a destination: of the live ones the highest tells."""
    data = [text.encode(errors="surrogatepass") for text in (rule, place, node)]
    return int.from_bytes(
        blake2b(b"".join(len(each).to_bytes(4) + each for each in data), digest_size=8, person=b"teller").digest()
    )


def digest_of(place: str) -> str:
    """A destination as 16 characters: an address may hold a secret."""
    return blake2b(place.encode(), digest_size=8).hexdigest()


def place_name(place: str) -> str:
    """A destination in cells: its name, or the digest of an address."""
    return digest_of(place) if "://" in place else place


def way_of(rule: AlertRule) -> str:
    """A rule of a settings file among the ways out of a node: nodes with the same rule tell it together."""
    return f"rule {blake2b(msgspec.json.encode(rule), digest_size=8).hexdigest()}"
