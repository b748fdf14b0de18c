"""What happens on a node, as a stream for whoever wants to follow.

Each subscriber has a bounded queue. One that does not keep up loses the oldest events and is told how many: it never holds up
the node or the other subscribers.
"""

import asyncio
import enum
from collections import deque
from collections.abc import AsyncIterator

import msgspec

QUEUED = 1024


class EventKind(enum.StrEnum):
    """What happened."""

    ADDED = "added"
    """A constraint became active."""
    CHANGED = "changed"
    """The definitions in force for a constraint changed."""
    REMOVED = "removed"
    """A constraint is no longer active."""
    VIOLATED = "violated"
    """A constraint that held, or was undecided, is violated on this node."""
    SATISFIED = "satisfied"
    """A constraint that was violated on this node holds again."""
    PEER_UP = "peer up"
    PEER_DOWN = "peer down"
    DUPLICATE_NAME = "duplicate name"
    """Another live node bears this node's name."""
    DIVERGED = "diverged"
    """A peer has our clock and another hash: one of the two is corrupted."""
    REPAIRED = "repaired"
    """Cells here that differed from a peer's were repaired; the detail says how many since the start."""
    NEW_LIFE = "new life"
    """This node goes on under a new incarnation, since its former life may have written more than is known here."""
    RETIRED = "retired"
    """A node was retired for good."""
    TROUBLE = "trouble"
    """Writes are refused: the detail says why."""
    RECOVERED = "recovered"
    """Writes are taken again."""
    MISSED = "missed"
    """This subscriber was too slow; the detail says how many events it lost."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened."""

    kind: EventKind
    time: int
    """ns since the epoch, by this node's clock."""
    constraint: str = ""
    node: str = ""
    detail: str = ""


class _Subscriber:
    def __init__(self) -> None:
        self.queue: deque[Event] = deque(maxlen=QUEUED)
        self.missed = 0
        self.ready = asyncio.Event()


class EventStream:
    """Hands each event to every subscriber."""

    def __init__(self) -> None:
        self._subscribers: set[_Subscriber] = set()
        self._closed = False

    def publish(self, event: Event) -> None:
        """Give an event to all subscribers of this moment."""
        for subscriber in self._subscribers:
            if len(subscriber.queue) == QUEUED:
                subscriber.missed += 1
            subscriber.queue.append(event)
            subscriber.ready.set()

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
