"""Alerts: looks each second at what the rules are about, and tells when something begins to be so and when it ends.

Rules kept here:

- An alert is one rule and one subject (a constraint, or a node). It fires once, when it has been so for as long as its rule says,
  and resolves once, as soon as it is not so any more.
- It is told first and remembered then: a node that is killed in between tells once more, and never not at all.
- What fires is remembered in a small file beside the store, replaced whole. So a restart neither fires an alert again nor forgets
  to resolve it. A node that keeps its state in memory forgets its alerts with it.
- Looking takes at most a share of the time: where it takes long, it is done less often.
- Telling never holds up looking. A message that waits for a webhook when the node ends is not sent.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from constraint_crdt.alerts.conditions import Conditions, Found
from constraint_crdt.alerts.delivery import Webhooks
from constraint_crdt.alerts.rules import LOG, AlertRule, shown_place
from constraint_crdt.operations.diagnosis import AlertReport, AlertsReport, RuleReport

LOOK_EVERY = 1.0
"""Seconds between two looks."""

SHARE = 0.05
"""Of the time is spent on looking, at most."""

MOST = 1_000
"""Alerts that are followed at once. Further ones are counted, and told of when others have ended."""

FILE_BYTES = 4 * 1024 * 1024

_log = logging.getLogger("constraint_crdt.alerts")


class Alert(msgspec.Struct, kw_only=True):
    """One rule and one subject, of which it is so."""

    rule: str
    subject: str
    since: int
    """ns since the epoch."""
    fired_at: int | None = None
    detail: str = ""


class Tell(Protocol):
    """How the node tells of an alert that fired (True) or resolved (False)."""

    def __call__(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """Tell of it."""


class Alerting:
    """The alerts of one node."""

    def __init__(
        self,
        rules: tuple[AlertRule, ...],
        conditions: Conditions,
        *,
        who: tuple[str, str],
        file: Path | None,
        tell: Tell,
        now: Callable[[], int],
        webhooks: Webhooks | None = None,
    ) -> None:
        """`who`: the node and its fleet. `file`: where what fires is remembered; None: nowhere. `now`: ns since the epoch."""
        self._rules = {rule.name: rule for rule in rules}
        self._conditions = conditions
        self._who = who
        self._file = file
        self._tell = tell
        self._now = now
        self._webhooks = webhooks or Webhooks()
        self._alerts: dict[tuple[str, str], Alert] = {}
        self._so_since: dict[tuple[str, str], float] = {}
        self._next_look = 0.0
        self._untracked = 0
        self._unsaved = False
        self._saving: asyncio.Task[None] | None = None

    # --- looking -----------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Look, tell of what changed, and have it remembered."""
        began = time.monotonic()
        if began < self._next_look:
            return
        changed = self.look(began)
        self._next_look = began + (time.monotonic() - began) / SHARE - LOOK_EVERY
        self._unsaved = self._unsaved or changed
        await self._save()

    def look(self, at: float) -> bool:
        """Look once, `at` being the time in monotonic seconds. True if an alert fired or resolved."""
        self._untracked, changed = 0, False
        for rule in self._rules.values():
            found = {each.subject: each for each in self._conditions.find(rule)}
            for each in found.values():
                changed |= self._is_so(rule, each, at)
            over = [key for key in self._alerts if key[0] == rule.name and key[1] not in found]
            for key in over:
                changed |= self._is_over(rule, key)
        return changed

    def _is_so(self, rule: AlertRule, found: Found, at: float) -> bool:
        """True if that made it fire."""
        key = (rule.name, found.subject)
        alert = self._alerts.get(key)
        if found.is_so is None:
            return False
        if alert is None:
            if len(self._alerts) >= MOST:
                self._untracked += 1
                return False
            alert = self._alerts[key] = Alert(rule=rule.name, subject=found.subject, since=self._now())
        alert.detail = found.detail
        since = self._so_since.setdefault(key, at)
        if alert.fired_at is not None or at - since < rule.lasts:
            return False
        alert.fired_at = self._now()
        self._announce(rule, alert, fired=True)
        return True

    def _is_over(self, rule: AlertRule, key: tuple[str, str]) -> bool:
        """True if it had fired."""
        alert = self._alerts.pop(key)
        self._so_since.pop(key, None)
        if alert.fired_at is None:
            return False
        self._announce(rule, alert, fired=False)
        return True

    def _announce(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        self._tell(rule, alert, fired=fired)
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

    # --- remembering -------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take up what had fired when the node ended. A file that cannot be read is passed over with a warning."""
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
        """Stop telling, and remember what was told."""
        await self._webhooks.close()
        if self._saving is not None:
            await self._saving
        await self._save()

    async def _save(self) -> None:
        if self._file is not None and self._unsaved:
            self._unsaved = False
            content = msgspec.json.encode([alert for alert in self._alerts.values() if alert.fired_at is not None])
            self._saving = asyncio.create_task(self._put(self._file, content))
            await asyncio.shield(self._saving)  # it goes on where the node ends meanwhile, and `close` waits for it

    async def _put(self, file: Path, content: bytes) -> None:
        try:
            await asyncio.to_thread(_write, file, content)
        except OSError as error:
            _log.warning("cannot write the alerts to %s: %s", file, error.strerror or error)

    # --- answering ---------------------------------------------------------------------------------------------------

    def report(self) -> AlertsReport:
        """The rules, and what they found. O(alerts)."""
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
    """Replace the file: whoever reads it sees the old one or the new one."""
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
