"""The alert engine: evaluates the rules every second, fires alerts and resolves them, and delivers the messages to webhooks.

Rules kept here:

- An alert belongs to a rule and a subject. An alert fires once, when its condition has held for the time of the rule, and resolves
  once, when the condition ends. `Spell` has the exact semantics: a look per evaluation, violated while the condition is true.
- Time is measured by a monotonic clock. A condition without evidence stops the time of the rule and ends no alert. A pause between
  two evaluations beyond `MAX_PAUSE` is time without evidence.
- An alert is sent before it is saved: a node killed in between sends the alert twice, but never loses the alert.
- Alerts are saved in a small file beside the store, replaced as a whole. So after a restart no alert fires again, every alert is
  resolved, and an alert about to fire keeps its time; the time away is without evidence. A node with its state in memory loses
  its alerts with the state.
- A place is told of the end of an alert only if the message of its firing was not dropped there.
- Evaluation takes a bounded share of the time: a slow evaluation runs less often.
- Delivery never delays evaluation. Queued messages are lost when the node stops.
- Everything about a kind comes from `rules`; the engine names no kind.
- A webhook gets a POST of JSON per message, in order for each address, with retries. The event loop never waits; two threads send.
  Each address has a bounded queue. A full queue drops its oldest message. Addresses may hold secrets, so the log has only their
  scheme, host and port.
"""

import asyncio
import logging
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import msgspec

from constraint_crdt.alerts import LOG, AlertRule, Condition, Conditions, shown_place
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.errors import InvalidValue, StoreError
from constraint_crdt.expression.cel import Verdict
from constraint_crdt.expression.temporal import Spell, TimeRules
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.service import AlertReport, AlertsReport, RuleReport
from constraint_crdt.store.files import read_bounded, replace_file

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

_WORTH_TRYING_AGAIN = frozenset({408, 425, 429})
_OUTCOMES = {True: Verdict.VIOLATED, False: Verdict.SATISFIED, None: Verdict.UNKNOWN}
_log = logging.getLogger("constraint_crdt.alerts")


class WebhookMessage:
    """A message for an address."""

    __slots__ = ("attempted", "body", "dropped", "follows")

    def __init__(self, body: bytes, follows: "WebhookMessage | None" = None) -> None:
        """`follows`: the message without which this message means nothing."""
        self.body = body
        self.follows = follows
        self.attempted = False
        """True during an attempt, and after a successful attempt: the address may have the message."""
        self.dropped = False


class Webhooks:
    """Delivers messages to addresses. Belongs to a single event loop."""

    def __init__(self, *, first_pause: float = FIRST_PAUSE) -> None:
        """`first_pause`: seconds before the second attempt."""
        self._first_pause = first_pause
        self._queues: dict[str, deque[WebhookMessage]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.delivered = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Messages in all queues."""
        return sum(map(len, self._queues.values()))

    def send(self, url: str, content: Mapping[str, object], follows: WebhookMessage | None = None) -> WebhookMessage:
        """Queue a message for `url`. Returns at once. `follows`: a dropped message drops the new message as well."""
        queue = self._queues.setdefault(url, deque())
        message = WebhookMessage(msgspec.json.encode(content), follows)
        queue.append(message)
        if len(queue) > QUEUED:
            self._drop(url, queue.popleft(), f"more than {QUEUED} wait")
        task = self._tasks.get(url)
        if task is None or task.done():
            self._tasks[url] = asyncio.create_task(self._deliver_all(url, queue), name=f"webhook {shown_place(url)}")
        return message

    async def close(self) -> None:
        """Stop delivery. Messages in the queues are lost."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def _deliver_all(self, url: str, queue: deque[WebhookMessage]) -> None:
        while queue:
            message = queue[0]
            if message.follows is not None and message.follows.dropped:
                queue.popleft()
                continue
            why = await self._deliver(url, message)
            if why is None:
                self.delivered += 1
            elif not message.dropped:
                self._drop(url, message, why)
            if queue and queue[0] is message:  # else it was dropped meanwhile from a full queue
                queue.popleft()

    async def _deliver(self, url: str, message: WebhookMessage) -> str | None:
        """Deliver a message. Returns the reason of a failure, else None."""
        loop = asyncio.get_running_loop()
        pause, why = self._first_pause, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "webhook")
            message.attempted = True
            answered = await loop.run_in_executor(self._threads, _post, url, message.body)
            if isinstance(answered, int) and 200 <= answered < 300:
                return None
            message.attempted = False
            why = f"answered {answered}" if isinstance(answered, int) else answered
            if isinstance(answered, int) and answered < 500 and answered not in _WORTH_TRYING_AGAIN:
                return why
        return why

    def _drop(self, url: str, message: WebhookMessage, why: str) -> None:
        message.dropped = True
        self.dropped += 1
        _log.warning("a message for %s is dropped: %s", shown_place(url), why)


def _post(url: str, message: bytes) -> int | str:
    """A single attempt. Returns the HTTP status, or the reason for a missing answer."""
    import http.client  # for nodes with webhooks only

    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        connection.request("POST", target, message, {"Content-Type": "application/json", "User-Agent": "constraint-crdt"})
        return connection.getresponse().status
    except TimeoutError:
        return "no answer in time"
    except OSError as error:
        return error.strerror or type(error).__name__
    except http.client.HTTPException as error:
        return type(error).__name__
    finally:
        connection.close()


LOOK_EVERY = 1.0
"""Seconds between two evaluations."""

SHARE = 0.05
"""The share of the time that evaluation takes, at most."""

MAX_PAUSE = 30.0
"""Seconds between two evaluations beyond which the time between them is without evidence, or twice the planned pause if longer."""

SAVE_EVERY = 10.0
"""Seconds between two writes of the time of alerts about to fire. A killed node loses this time, at most."""

MOST = 1_000
"""Alerts tracked at once. Further conditions are counted, and tracked when other alerts have ended."""

FILE_BYTES = 4 * 1024 * 1024


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
    """Of an alert about to fire: the counted time of the rule, in ns."""
    untold: list[str] = []
    """Of a fired alert: the places where the message was dropped, by `_digest`."""

    def __post_init__(self) -> None:
        if not 0 <= self.elapsed <= MAX_COUNT:
            raise InvalidValue("the time of an alert is out of bounds")


class _Tracked:
    """An alert, the clock of its rule, and the messages about it."""

    __slots__ = ("alert", "sent", "spell")

    def __init__(self, alert: Alert, spell: Spell | None) -> None:
        """`spell`: None for an alert of before a restart, until the first evaluation."""
        self.alert = alert
        self.spell = spell
        self.sent: dict[str, WebhookMessage] = {}
        """By address. Empty for an alert of before a restart."""

    def resume(self, at: int) -> Spell:
        """The clock of the rule, at an evaluation at this monotonic time in ns."""
        if self.spell is None:
            state = VerdictState.PENDING if self.alert.fired_at is None else VerdictState.VIOLATED
            self.spell = Spell(at, at, state, elapsed=self.alert.elapsed)
        return self.spell

    def saved(self, *, stopped: bool) -> Alert:
        """The alert for the file. `stopped`: queued messages are lost."""
        lost = [url for url, message in self.sent.items() if message.dropped or (stopped and not message.attempted)]
        elapsed = self.alert.elapsed if self.spell is None else self.spell.elapsed
        untold = sorted({*self.alert.untold, *map(_digest, lost)})
        return msgspec.structs.replace(self.alert, elapsed=elapsed, untold=untold)


def _digest(url: str) -> str:
    """An address as 16 characters: the address may hold a secret."""
    return blake2b(url.encode(), digest_size=8).hexdigest()


class Notify(Protocol):
    """Called for each alert that fires or resolves."""

    def __call__(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """`fired` is False if the alert resolved."""


def _machine_seconds() -> float:
    return time.monotonic()


class AlertEngine:
    """The alerts of a node."""

    def __init__(
        self,
        rules: tuple[AlertRule, ...],
        conditions: Conditions,
        *,
        who: tuple[str, str],
        file: Path | None,
        notify: Notify,
        now: Callable[[], int],
        webhooks: Webhooks | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """`who`: names of the node and its fleet. `file`: keeps alerts; None: nothing is kept. `now`: ns since the epoch.
        `monotonic`: seconds of a clock that is never set; None: the machine's.
        """
        self._monotonic = _machine_seconds if monotonic is None else monotonic
        self._rules = {rule.name: rule for rule in rules}
        self._conditions = conditions
        self._who = who
        self._file = file
        self._notify = notify
        self._now = now
        self._webhooks = webhooks or Webhooks()
        self._tracked: dict[tuple[str, str], _Tracked] = {}
        self._next_evaluation = 0.0
        self._max_pause = MAX_PAUSE
        self._untracked = 0
        self._unsaved = False
        self._unsaved_time = False
        self._next_save = 0.0
        self._saving: asyncio.Task[None] | None = None

    # --- evaluation ---------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Evaluate the rules, send the fired and resolved alerts, and save them. Called every `LOOK_EVERY` seconds."""
        began = self._monotonic()
        if began < self._next_evaluation:
            return
        changed = self.evaluate(began)
        pause = (self._monotonic() - began) / SHARE
        self._next_evaluation = began + pause - LOOK_EVERY
        self._max_pause = max(MAX_PAUSE, 2 * pause)
        self._unsaved = self._unsaved or changed or (self._unsaved_time and began >= self._next_save)
        if self._unsaved:
            self._next_save = began + SAVE_EVERY
        await self._save()

    def evaluate(self, at: float) -> bool:
        """Evaluate all rules once, `at` in monotonic seconds. Returns True if an alert fired or resolved."""
        self._untracked, changed, now = 0, False, round(at * SECOND)
        for rule in self._rules.values():
            found = {each.subject: each for each in self._conditions.find(rule)}
            over = [subject for name, subject in self._tracked if name == rule.name and subject not in found]
            for each in (*found.values(), *(Condition(subject, False) for subject in over)):
                changed |= self._look(rule, each, now)
        return changed

    def _look(self, rule: AlertRule, condition: Condition, now: int) -> bool:
        """Move the alert of a rule and a subject. Returns True if the alert fired or resolved."""
        key = (rule.name, condition.subject)
        tracked = self._tracked.get(key)
        if tracked is None:
            if not condition.holds:
                return False
            if len(self._tracked) >= MOST:
                self._untracked += 1
                return False
            alert = Alert(rule=rule.name, subject=condition.subject, since=self._now())
            tracked = self._tracked[key] = _Tracked(alert, Spell.new(now))
        alert, spell = tracked.alert, tracked.resume(now)
        if condition.holds:
            alert.detail = condition.detail
        rules = TimeRules(round(rule.lasts * SECOND), 0, round(self._max_pause * SECOND))
        state = spell.look(_OUTCOMES[condition.holds], now, rules)
        if state is VerdictState.HOLDS:
            return self._end(rule, key)
        if state is VerdictState.PENDING:
            self._unsaved_time = True
            return False
        if alert.fired_at is not None:
            return False
        alert.fired_at = self._now()
        self._send(rule, tracked, fired=True)
        return True

    def _end(self, rule: AlertRule, key: tuple[str, str]) -> bool:
        """Drop an alert after its condition ended. Returns True for a fired alert."""
        tracked = self._tracked.pop(key)
        if tracked.alert.fired_at is None:
            self._unsaved_time = True
            return False
        self._send(rule, tracked, fired=False)
        return True

    def _send(self, rule: AlertRule, tracked: _Tracked, *, fired: bool) -> None:
        alert = tracked.alert
        self._notify(rule, alert, fired=fired)
        node, fleet = self._who
        message: dict[str, object] = {
            "alert": rule.name, "kind": rule.kind, "state": "firing" if fired else "resolved", "subject": alert.subject,
            "detail": alert.detail, "node": node, "fleet": fleet, "since": alert.since, "time": self._now(),
        }  # fmt: skip
        for place in rule.to:
            if place == LOG:
                if fired:
                    _log.warning("alert %s: %s: %s", rule.name, alert.subject, alert.detail)
                else:
                    _log.info("alert %s: %s: resolved", rule.name, alert.subject)
            elif fired:
                tracked.sent[place] = self._webhooks.send(place, message)
            elif _digest(place) not in alert.untold:
                self._webhooks.send(place, message, tracked.sent.get(place))

    # --- persistence --------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the alerts of before the node stopped. An unreadable file is ignored with a warning."""
        if self._file is None or not self._rules:
            return
        try:
            alerts = await asyncio.to_thread(_read, self._file)
        except FileNotFoundError:
            return
        except (OSError, ValueError, StoreError) as error:
            _log.warning("cannot read the alerts in %s (%s): those that hold fire again", self._file, error)
            return
        for alert in alerts[:MOST]:
            if alert.rule in self._rules:
                self._tracked[alert.rule, alert.subject] = _Tracked(alert, None)

    async def close(self) -> None:
        """Stop delivery, and save the alerts."""
        await self._webhooks.close()
        if self._saving is not None:
            await self._saving
        self._unsaved = self._unsaved or self._unsaved_time or any(each.sent for each in self._tracked.values())
        await self._save(stopped=True)

    async def _save(self, *, stopped: bool = False) -> None:
        if self._file is not None and self._unsaved:
            self._unsaved = self._unsaved_time = False
            content = msgspec.json.encode([each.saved(stopped=stopped) for each in self._tracked.values()])
            self._saving = asyncio.create_task(self._put(self._file, content))
            await asyncio.shield(self._saving)  # cancelling the caller does not stop the write; `close` waits for it

    async def _put(self, file: Path, content: bytes) -> None:
        try:
            await asyncio.to_thread(replace_file, file, content)
        except OSError as error:
            _log.warning("cannot write the alerts to %s: %s", file, error.strerror or error)

    # --- report -------------------------------------------------------------------------------------------------------

    @property
    def firing(self) -> int:
        """The number of alerts that fire now."""
        return sum(tracked.alert.fired_at is not None for tracked in self._tracked.values())

    def report(self) -> AlertsReport:
        """The rules and their alerts. O(alerts)."""
        return AlertsReport(
            alerts=tuple(
                AlertReport(
                    rule=each.rule,
                    kind=self._rules[each.rule].kind,
                    subject=each.subject,
                    firing=each.fired_at is not None,
                    since=each.since,
                    fired_at=each.fired_at,
                    detail=each.detail,
                )
                for each in (tracked.alert for _, tracked in sorted(self._tracked.items(), key=lambda item: item[0]))
            ),
            rules=tuple(map(_shown, self._rules.values())),
            waiting=self._webhooks.waiting,
            delivered=self._webhooks.delivered,
            dropped=self._webhooks.dropped,
            untracked=self._untracked,
        )


def _shown(rule: AlertRule) -> RuleReport:
    return RuleReport(
        name=rule.name,
        kind=rule.kind,
        constraint=rule.constraint,
        node=rule.node,
        half_life=rule.half_life,
        above=rule.above,
        above_share=rule.above_share,
        lasts=rule.lasts,
        to=tuple(map(shown_place, rule.to)),
    )


def _read(file: Path) -> list[Alert]:
    data = read_bounded(file, FILE_BYTES)
    try:
        return msgspec.json.decode(data, type=list[Alert])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
