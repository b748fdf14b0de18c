"""Hybrid time: one's own clock, and what is heard of the clocks of peers (DESIGN 2, Lifetimes).

Nodes whose clocks differ a little should still read the same expiry at the same moment. So each reads the highest of its own time
and what it heard of others lately; those in touch with each other then go by the fastest clock among them.

Rules kept here:

- A clock that is further ahead of mine than `max_skew` counts for nothing: it is an alarm. So no peer can move my reading by more
  than that.
- What was heard runs on at the pace of my own clock, and is forgotten after `heard_for`: a node that is cut off soon goes by its
  own clock alone.
- Where my own clock steps, the reading follows at once, also backwards: nothing freezes. What was heard before the step is
  forgotten.
- Of several measurements of one clock the highest counts, as long as it does, and then the next: messages are delayed, and never
  arrive before they are sent.

The idea of a hybrid of physical and heard time is that of Kulkarni et al., Logical Physical Clocks (2014). There is no logical part
here, since nothing is ordered by these times.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

SECOND = 1_000_000_000
"""ns."""

DEFAULT_MAX_SKEW = 10 * SECOND
DEFAULT_HEARD_FOR = 5 * SECOND

TRAVEL = SECOND
"""ns by which a clock may look slower than it is, for the time that its message took: that much more is no alarm."""


NEVER = 1 << 63
"""ns: later than any time."""

MEASUREMENTS = 16
"""Of one clock, at most: the highest, and the later ones that will count when it does not any more."""


class _Heard(NamedTuple):
    offset: int
    """How far that clock is ahead of mine."""
    at: int
    """When it was heard, by my clock."""


class HybridClock:
    """The time that one node goes by, in ns since the epoch. A reading is O(1), or O(peers) where the fastest clock was lost."""

    def __init__(self, now: Callable[[], int], *, max_skew: int = DEFAULT_MAX_SKEW, heard_for: int = DEFAULT_HEARD_FOR) -> None:
        """`now`: my own clock. `max_skew`: how far clocks may differ; `heard_for`: how long what was heard counts. All in ns."""
        self.own = now
        """My own clock."""
        self.max_skew = max_skew
        self.heard_for = heard_for
        self.alarms = 0
        """Times that a peer's clock was found beyond `max_skew`, and had not been before."""
        self._heard: dict[str, deque[_Heard]] = {}
        """Of each peer, what counts first: later measurements are lower, or the earlier would not be here."""
        self._skewed: set[str] = set()
        self._lead = _Heard(0, 0)
        self._hidden_until = NEVER
        """When a measurement beyond the bound goes out of date that hides a lower one of the same clock."""
        self._last = 0
        self._held: int | None = None

    def now(self) -> int:
        """The hybrid time."""
        if self._held is not None:
            return self._held
        own, lead = self._look(), self._lead
        if (lead.offset and own - lead.at > self.heard_for) or own > self._hidden_until:
            lead = self._find_lead(own)
        return own + lead.offset

    def hear(self, peer: str, time: int) -> int | None:
        """A peer said its own time. Returns how far it is ahead (negative: behind) if that has just become an alarm, else None."""
        own = self._last = self._look()
        heard, known = _Heard(time - own, own), self._known(peer, own)
        lost = False
        while known and known[-1].offset <= heard.offset:
            lost |= known.pop() is self._lead
        if len(known) == MEASUREMENTS:
            known.pop()
        known.append(heard)
        if len(known) > 1:
            if known[0].offset > self.max_skew:
                self._hidden_until = min(self._hidden_until, known[0].at + self.heard_for)
            return None
        if self._lead.offset <= heard.offset <= self.max_skew:
            self._lead = heard
        elif lost:
            self._find_lead(own)
        if self._is_near(heard.offset):
            self._skewed.discard(peer)
        elif peer not in self._skewed:
            self._skewed.add(peer)
            self.alarms += 1
            return heard.offset
        return None

    def forget(self, peer: str) -> None:
        """A peer is no more."""
        self._skewed.discard(peer)
        if self._lead in self._heard.pop(peer, ()):
            self._find_lead(self._look())

    def offset(self, peer: str) -> int | None:
        """How far a peer's clock is ahead of mine (negative: behind), in ns; None if it was not heard lately."""
        if peer not in self._heard:
            return None
        known = self._known(peer, self._look())
        return known[0].offset if known else None

    @property
    def offsets(self) -> dict[str, int]:
        """The same of all peers that were heard lately. O(peers)."""
        own = self._look()
        return {peer: known[0].offset for peer in self._heard if (known := self._known(peer, own))}

    @property
    def in_doubt(self) -> bool:
        """True unless most of the clocks heard lately, mine included, are within `max_skew` of mine. O(peers)."""
        offsets = self.offsets.values()
        near = 1 + sum(map(self._is_near, offsets))
        return near * 2 <= 1 + len(offsets)

    @contextmanager
    def held(self) -> Iterator[int]:
        """Let no time pass inside of the block, so that all that is read there is of one moment; gives that moment."""
        before, self._held = self._held, self.now()
        try:
            yield self._held
        finally:
            self._held = before

    def _look(self) -> int:
        """My own time. If that was set back, what was heard before says nothing any more."""
        own = self.own()
        if own < self._last:
            self._heard.clear()
            self._lead, self._last, self._hidden_until = _Heard(0, own), own, NEVER
        return own

    def _known(self, peer: str, own: int) -> deque[_Heard]:
        """The measurements of a peer's clock that count, the highest first."""
        known = self._heard.setdefault(peer, deque())
        while known and own - known[0].at > self.heard_for:
            known.popleft()
        return known

    def _is_near(self, offset: int) -> bool:
        return -self.max_skew - TRAVEL <= offset <= self.max_skew

    def _find_lead(self, own: int) -> _Heard:
        """The clock that is furthest ahead of mine, of those that count; mine if none is."""
        firsts = [known[0] for peer in self._heard if (known := self._known(peer, own))]
        leads = [heard for heard in firsts if 0 < heard.offset <= self.max_skew]
        hiding = [heard.at for heard in firsts if heard.offset > self.max_skew]
        self._hidden_until = min(hiding) + self.heard_for if hiding else NEVER
        self._lead = max(leads, default=_Heard(0, own))
        return self._lead
