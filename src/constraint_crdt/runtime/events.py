"""What happens on a node, as a stream for whoever wants to follow.

Each subscriber has a bounded queue. One that does not keep up loses the oldest events and is told how many: it never holds up
the node or the other subscribers. The last events are kept, each with an id, for those who come back after a while.
"""

import asyncio
import re
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from itertools import islice
from typing import NamedTuple

from constraint_crdt.model.events import KEPT, Event, EventKind

__all__ = ["Event", "EventKind", "EventLog", "EventStream", "KeptEvent", "Resumed"]

QUEUED = 1024

KEPT_BYTES = 8 * 1024 * 1024
"""How much text the last events that are kept may have."""

EVENT_BYTES = 100
"""What an event is reckoned to take beside its text."""


class KeptEvent(NamedTuple):
    """An event and its id: the start of the node that it belongs to, a hyphen, and its number from 1."""

    id: str
    event: Event


class Resumed(NamedTuple):
    """What happened after an event."""

    events: list[KeptEvent]
    missed: int | None
    """How many more had happened and are not kept any more; None if nobody can tell: the id is of another start."""


_ID = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})", re.ASCII)


class EventLog:
    """The last events of one start of a node."""

    def __init__(self, *, most: int = KEPT, most_bytes: int = KEPT_BYTES) -> None:
        self.boot = secrets.token_hex(4)
        """Tells this start from others."""
        self._most = most
        self._most_bytes = most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._last = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def last_id(self) -> str:
        """The id of the last event; of number 0 before the first."""
        return f"{self.boot}-{self._last}"

    def append(self, event: Event) -> KeptEvent:
        """Keep an event, and forget the oldest for it if there are too many."""
        self._events.append(event)
        self._bytes += _size(event)
        self._last += 1
        while len(self._events) > self._most or self._bytes > self._most_bytes:
            self._bytes -= _size(self._events.popleft())
        return KeptEvent(self.last_id, event)

    def newest(self, count: int) -> list[KeptEvent]:
        """The last events, `count` at most, oldest first."""
        first = max(len(self._events) - count, 0)
        number = self._last - len(self._events) + first + 1
        return [KeptEvent(f"{self.boot}-{number + place}", each) for place, each in enumerate(islice(self._events, first, None))]

    def after(self, id_: str) -> Resumed:
        """What happened after the event of this id. After one of another start, or of none, that is all that is kept."""
        found = _ID.fullmatch(id_)
        if found is None or found[1] != self.boot or int(found[2]) > self._last:
            return Resumed(self.newest(len(self._events)), None)
        behind = self._last - int(found[2])
        return Resumed(self.newest(behind), max(behind - len(self._events), 0))


def _size(event: Event) -> int:
    texts = (event.constraint, event.node, event.room, event.tile, event.detail)
    return EVENT_BYTES + 4 * sum(map(len, texts))  # 4: what a character takes at most


class _Subscriber:
    def __init__(self) -> None:
        self.queue: deque[Event] = deque(maxlen=QUEUED)
        self.missed = 0
        self.ready = asyncio.Event()


class EventStream:
    """Hands each event to every subscriber, and keeps the last ones."""

    def __init__(self) -> None:
        self.log = EventLog()
        """The last events."""
        self.counts: Counter[EventKind] = Counter()
        """How many there were of each kind."""
        self._subscribers: set[_Subscriber] = set()
        self._listeners: list[Callable[[KeptEvent], None]] = []
        self._closed = False

    def publish(self, event: Event) -> None:
        """Give an event to all subscribers of this moment."""
        self.counts[event.kind] += 1
        kept = self.log.append(event)
        for listener in self._listeners:
            listener(kept)
        for subscriber in self._subscribers:
            if len(subscriber.queue) == QUEUED:
                subscriber.missed += 1
            subscriber.queue.append(event)
            subscriber.ready.set()

    def listen(self, listener: Callable[[KeptEvent], None]) -> None:
        """Have `listener` called with each event from now on, at once. It must neither raise nor wait."""
        self._listeners.append(listener)

    def close(self) -> None:
        """End all iterations once they have taken what is queued."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.ready.set()

    def subscribe(self) -> AsyncIterator[Event]:
        """The events from now on, until the node stops."""
        subscriber = _Subscriber()
        self._subscribers.add(subscriber)
        return self._follow(subscriber)

    async def _follow(self, subscriber: _Subscriber) -> AsyncIterator[Event]:
        try:
            while True:
                while subscriber.queue:
                    if subscriber.missed:
                        count, subscriber.missed = subscriber.missed, 0
                        yield Event(kind=EventKind.MISSED, time=subscriber.queue[0].time, detail=f"{count} events")
                        continue
                    yield subscriber.queue.popleft()
                if self._closed:
                    return
                subscriber.ready.clear()
                await subscriber.ready.wait()
        finally:
            self._subscribers.discard(subscriber)
