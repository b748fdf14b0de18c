"""What a node says of what happens to it: its events, those of constraints and tiles that moved among them.

Rules:

- Of what moved, little is told at once; of much, `AT_ONCE` in one turn of the loop, so that 100,000 constraints that come together
  hold up no exchange and no answer, and who follows the events can keep up. `run` tells the rest, and sleeps while there is none.
- Nothing that moved is left out, or told twice for one change: see `news` and `tiles` for what each is told as, and in which order.
- What is said of a constraint comes after what became of it: "violated" never precedes "added".
"""

import asyncio
import logging
from collections.abc import Callable

from constraint_crdt.node.answering.alert_rules import AlertRule
from constraint_crdt.node.answering.alerting import Alert
from constraint_crdt.node.events import Event, EventKind, EventStream
from constraint_crdt.node.news import DefinitionNews, News
from constraint_crdt.node.tiles import NodeTiles

AT_ONCE = 250
"""Constraints, and as many tiles, that are told of in one piece: two pieces fit into what any who follows may be behind."""

_log = logging.getLogger("constraint_crdt.node")


class Announcer:
    """Tells what happens on one node."""

    def __init__(self, events: EventStream, news: DefinitionNews, tiles: NodeTiles, now: Callable[[], int]) -> None:
        """`now`: ns since the epoch."""
        self._events = events
        self._news = news
        self._tiles = tiles
        self._now = now
        self._moved = asyncio.Event()
        self._behind = False

    def publish(self, kind: EventKind, *, constraint: str = "", node: str = "", detail: str = "") -> None:
        """Tell of one thing that happened."""
        if constraint and (news := self._news.take_of(constraint)) is not None:
            self._tell_of(news)
        self._events.publish(Event(kind=kind, time=self._now(), constraint=constraint, node=node, detail=detail))

    def alert(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """Tell that a rule of the alerts fired, or that what it fired for is over."""
        about = {"node": alert.subject} if rule.kind in ("divergence", "silence") else {"constraint": alert.subject}
        detail = f"{rule.name}: {alert.detail}" if fired else rule.name
        self.publish(EventKind.ALERT if fired else EventKind.ALERT_RESOLVED, detail=detail, **about)

    def health_changed(self, trouble: str | None) -> None:
        """Tell why writes are refused from now on, or that they are taken again (None)."""
        if trouble is None:
            _log.info("writes are taken again")
            self.publish(EventKind.RECOVERED)
        else:
            _log.error("writes are refused: %s", trouble)
            self.publish(EventKind.TROUBLE, detail=trouble)

    # --- what moved ----------------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Constraints or tiles may have moved: tell of them, all at once if they are few and nobody waits before them."""
        if not self._behind:
            self._tell_some()

    def skip(self) -> None:
        """What moved up to now is no news."""
        self._news.take()
        self._tiles.tell(self._now(), publish=False)

    async def run(self) -> None:
        """Tell what is too much for one turn of the loop, for ever."""
        while True:
            await self._moved.wait()
            await self.finish()

    async def finish(self) -> None:
        """Tell all that moved up to now, and meanwhile."""
        while self._behind:
            await asyncio.sleep(0)  # others get their turn; nothing is waited for
            self._tell_some()

    def _tell_some(self) -> None:
        """Tell of the next ones. Nothing may be awaited in here: whoever is cancelled has told of all that it took."""
        for news in self._news.take(AT_ONCE):
            self._tell_of(news)
        self._tiles.tell(self._now(), AT_ONCE)
        self._behind = self._news.waiting or self._tiles.waiting
        if self._behind:
            self._moved.set()
        else:
            self._moved.clear()

    def _tell_of(self, news: News) -> None:
        kind, id_, when = news
        self._events.publish(Event(kind=kind, time=self._now(), constraint=id_, detail=when))
