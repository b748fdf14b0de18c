"""The alert engine: evaluates the rules every second, fires alerts and resolves them, and delivers the messages to webhooks.

Rules kept here:

- An alert belongs to a rule and a subject. An alert fires once, when its condition has held for the time of the rule, and resolves
  once, when the condition ends.
- An alert is sent before it is saved: a node killed in between sends the alert twice, but never loses the alert.
- Fired alerts are saved in a small file beside the store, replaced as a whole. So after a restart no alert fires again, and every
  alert is resolved. A node with its state in memory loses its alerts with the state.
- Evaluation takes a bounded share of the time: a slow evaluation runs less often.
- Delivery never delays evaluation. Queued messages are lost when the node stops.
- Everything about a kind comes from `rules`; the engine names no kind.
- A webhook gets a POST of JSON per message, in order for each address, with retries. The event loop never waits; two threads send.
  Each address has a bounded queue. A full queue drops its oldest message. Addresses may hold secrets, so the log has only their
  scheme, host and port.
"""

import asyncio
import contextlib
import http.client
import logging
import os
import secrets
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec

from constraint_crdt.alerts.rules import LOG, AlertRule, Condition, Conditions, shown_place
from constraint_crdt.operations.diagnosis import AlertReport, AlertsReport, RuleReport

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
_log = logging.getLogger("constraint_crdt.alerts")


class Webhooks:
    """Delivers messages to addresses. Belongs to a single event loop."""

    def __init__(self, *, first_pause: float = FIRST_PAUSE) -> None:
        """`first_pause`: seconds before the second attempt."""
        self._first_pause = first_pause
        self._queues: dict[str, deque[bytes]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.delivered = 0
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Messages in all queues."""
        return sum(map(len, self._queues.values()))

    def send(self, url: str, message: Mapping[str, object]) -> None:
        """Queue a message for `url`. Returns at once."""
        queue = self._queues.setdefault(url, deque())
        queue.append(msgspec.json.encode(message))
        if len(queue) > QUEUED:
            queue.popleft()
            self._drop(url, f"more than {QUEUED} wait")
        task = self._tasks.get(url)
        if task is None or task.done():
            self._tasks[url] = asyncio.create_task(self._deliver_all(url, queue), name=f"webhook {shown_place(url)}")

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

    async def _deliver_all(self, url: str, queue: deque[bytes]) -> None:
        while queue:
            message = queue[0]
            why = await self._deliver(url, message)
            if why is None:
                self.delivered += 1
            else:
                self._drop(url, why)
            if queue and queue[0] is message:  # else it was dropped meanwhile from a full queue
                queue.popleft()

    async def _deliver(self, url: str, message: bytes) -> str | None:
        """Deliver a message. Returns the reason of a failure, else None."""
        loop = asyncio.get_running_loop()
        pause, why = self._first_pause, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            if self._threads is None:
                self._threads = ThreadPoolExecutor(THREADS, "webhook")
            answered = await loop.run_in_executor(self._threads, _post, url, message)
            if isinstance(answered, int) and 200 <= answered < 300:
                return None
            why = f"answered {answered}" if isinstance(answered, int) else answered
            if isinstance(answered, int) and answered < 500 and answered not in _WORTH_TRYING_AGAIN:
                return why
        return why

    def _drop(self, url: str, why: str) -> None:
        self.dropped += 1
        _log.warning("a message for %s is dropped: %s", shown_place(url), why)


def _post(url: str, message: bytes) -> int | str:
    """A single attempt. Returns the HTTP status, or the reason for a missing answer."""
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


class Notify(Protocol):
    """Called for each alert that fires or resolves."""

    def __call__(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """`fired` is False if the alert resolved."""


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
    ) -> None:
        """`who`: names of the node and its fleet. `file`: keeps fired alerts; None: nothing is kept. `now`: ns since the epoch."""
        self._rules = {rule.name: rule for rule in rules}
        self._conditions = conditions
        self._who = who
        self._file = file
        self._notify = notify
        self._now = now
        self._webhooks = webhooks or Webhooks()
        self._alerts: dict[tuple[str, str], Alert] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._next_evaluation = 0.0
        self._untracked = 0
        self._unsaved = False
        self._saving: asyncio.Task[None] | None = None

    # --- evaluation ---------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Evaluate the rules, send the fired and resolved alerts, and save them. Called every `LOOK_EVERY` seconds."""
        began = time.monotonic()
        if began < self._next_evaluation:
            return
        changed = self.evaluate(began)
        self._next_evaluation = began + (time.monotonic() - began) / SHARE - LOOK_EVERY
        self._unsaved = self._unsaved or changed
        await self._save()

    def evaluate(self, at: float) -> bool:
        """Evaluate all rules once, `at` in monotonic seconds. Returns True if an alert fired or resolved."""
        self._untracked, changed = 0, False
        for rule in self._rules.values():
            found = {each.subject: each for each in self._conditions.find(rule)}
            for each in found.values():
                changed |= self._held(rule, each, at)
            over = [key for key in self._alerts if key[0] == rule.name and key[1] not in found]
            for key in over:
                changed |= self._ended(rule, key)
        return changed

    def _held(self, rule: AlertRule, condition: Condition, at: float) -> bool:
        """Track a condition. Returns True if its alert fired."""
        key = (rule.name, condition.subject)
        alert = self._alerts.get(key)
        if condition.holds is None:
            return False
        if alert is None:
            if len(self._alerts) >= MOST:
                self._untracked += 1
                return False
            alert = self._alerts[key] = Alert(rule=rule.name, subject=condition.subject, since=self._now())
        alert.detail = condition.detail
        since = self._since.setdefault(key, at)
        if alert.fired_at is not None or at - since < rule.lasts:
            return False
        alert.fired_at = self._now()
        self._send(rule, alert, fired=True)
        return True

    def _ended(self, rule: AlertRule, key: tuple[str, str]) -> bool:
        """Drop an alert after its condition ended. Returns True for a fired alert."""
        alert = self._alerts.pop(key)
        self._since.pop(key, None)
        if alert.fired_at is None:
            return False
        self._send(rule, alert, fired=False)
        return True

    def _send(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        self._notify(rule, alert, fired=fired)
        node, fleet = self._who
        message: dict[str, object] = {
            "alert": rule.name, "kind": rule.kind, "state": "firing" if fired else "resolved", "subject": alert.subject,
            "detail": alert.detail, "node": node, "fleet": fleet, "since": alert.since, "time": self._now(),
        }  # fmt: skip
        for place in rule.to:
            if place != LOG:
                self._webhooks.send(place, message)
            elif fired:
                _log.warning("alert %s: %s: %s", rule.name, alert.subject, alert.detail)
            else:
                _log.info("alert %s: %s: resolved", rule.name, alert.subject)

    # --- persistence --------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Load the alerts fired before the node stopped. An unreadable file is ignored with a warning."""
        if self._file is None or not self._rules:
            return
        try:
            alerts = await asyncio.to_thread(_read, self._file)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            _log.warning("cannot read the alerts in %s (%s): those that hold fire again", self._file, error)
            return
        for alert in alerts[:MOST]:
            if alert.rule in self._rules and alert.fired_at is not None:
                self._alerts[alert.rule, alert.subject] = alert

    async def close(self) -> None:
        """Stop delivery, and save the fired alerts."""
        await self._webhooks.close()
        if self._saving is not None:
            await self._saving
        await self._save()

    async def _save(self) -> None:
        if self._file is not None and self._unsaved:
            self._unsaved = False
            content = msgspec.json.encode([alert for alert in self._alerts.values() if alert.fired_at is not None])
            self._saving = asyncio.create_task(self._put(self._file, content))
            await asyncio.shield(self._saving)  # cancelling the caller does not stop the write; `close` waits for it

    async def _put(self, file: Path, content: bytes) -> None:
        try:
            await asyncio.to_thread(_write, file, content)
        except OSError as error:
            _log.warning("cannot write the alerts to %s: %s", file, error.strerror or error)

    # --- report -------------------------------------------------------------------------------------------------------

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
                for _, each in sorted(self._alerts.items())
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
    with file.open("rb") as opened:
        data = opened.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise ValueError(f"it has more than {FILE_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=list[Alert])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _write(file: Path, content: bytes) -> None:
    """Replace the file atomically."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
