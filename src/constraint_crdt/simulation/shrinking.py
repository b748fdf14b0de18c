"""Shrinking: from a history in which something goes wrong to a short one in which the same goes wrong.

Delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the steps: leave out ever
smaller stretches, as long as the same invariant breaks, or one that breaks of the same cause. Steps with nothing to act on do
nothing, so every part of a history is one. In between, steps are replaced by simpler ones: a whole exchange in place of its
messages, no faults, no times.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from constraint_crdt.simulation.histories import History, replay
from constraint_crdt.simulation.steps import AnyStep, Begin, Deliver, Exchange, Member

DIVERGENCE = frozenset(("state", "hash", "readings", "counts", "estimates", "members", "decay", "exchange", "liveness"))
"""Invariants that break of one cause, two nodes that take something else for the state: which of them is seen first says little."""

MOST_REPLAYS = 4000
"""After so many the shortest history so far is taken."""

Item = TypeVar("Item")


class _Spent(Exception):
    """No more replays."""


class _Attempts:
    """Replays candidates, and keeps the best one that still goes wrong."""

    def __init__(self, members: Sequence[Member], steps: Sequence[AnyStep], invariant: str, most: int) -> None:
        self.members, self.steps = list(members), list(steps)
        self._alike = DIVERGENCE if invariant in DIVERGENCE else {invariant}
        self._left = most

    def try_steps(self, steps: Sequence[AnyStep]) -> bool:
        """Keep these steps if it still goes wrong with them."""
        found = self._fails(self.members, steps)
        if found:
            self.steps = list(steps)
        return found

    def try_members(self, members: Sequence[Member]) -> bool:
        """Keep these members if it still goes wrong with them."""
        found = self._fails(members, self.steps)
        if found:
            self.members = list(members)
        return found

    def _fails(self, members: Sequence[Member], steps: Sequence[AnyStep]) -> bool:
        self._left -= 1
        if self._left < 0:
            raise _Spent
        violation = replay(members, steps)
        return violation is not None and violation.invariant in self._alike


def shrink(history: History, *, most_replays: int = MOST_REPLAYS) -> History:
    """The shortest history that was found in which the same goes wrong. The same one gives the same result.

    Raises `ValueError` if nothing goes wrong in it.
    """
    attempts = _Attempts(history.members, history.steps, history.invariant, most_replays)
    try:
        _exchange_whole(attempts)
        before = None
        while before != attempts.steps:
            before = attempts.steps
            _leave_out(attempts.steps, attempts.try_steps)
            _gather(attempts)
            _make_plain(attempts)
        _leave_out(attempts.members, attempts.try_members)
    except _Spent:
        pass
    violation = replay(attempts.members, attempts.steps)
    if violation is None:
        raise ValueError("nothing goes wrong in this history")
    return msgspec.structs.replace(
        history,
        members=tuple(attempts.members),
        steps=tuple(attempts.steps),
        invariant=violation.invariant,
        sentence=str(violation),
    )


def _leave_out(items: Sequence[Item], keep: Callable[[Sequence[Item]], bool]) -> None:
    """Leave out stretches, the last ones first, then smaller ones, until nothing can go."""
    kept = list(items)
    size = max(1, len(kept) // 2)
    while True:
        went = False
        end = len(kept)
        while end > 0:
            start = max(0, end - size)
            rest = kept[:start] + kept[end:]
            if keep(rest):
                kept, went = rest, True
            end = start
        if size == 1 and not went:
            return
        size = max(1, size // 2) if not went else size


def _exchange_whole(attempts: _Attempts) -> None:
    """Whole exchanges in place of all messages, if that goes wrong too: most of the way at once."""
    attempts.try_steps(
        [_as_exchange(step) if isinstance(step, Begin) else step for step in attempts.steps if not isinstance(step, Deliver)]
    )


def _as_exchange(begin: Begin) -> Exchange:
    return Exchange(number=begin.number, node=begin.node, peer=begin.peer, time=begin.time)


def _gather(attempts: _Attempts) -> None:
    """Put a whole exchange in the place of what messages there are of it, where it began or where it ended."""
    begins = [step for step in attempts.steps if isinstance(step, Begin)]
    for begin in begins:
        messages = {begin.number}
        for step in attempts.steps:
            if isinstance(step, Deliver) and step.message[0] in messages:
                messages.add(step.number)
        rest = [step for step in attempts.steps if step.number not in messages or step is begin]
        first = rest.index(begin)
        last = first + sum(step.number not in messages for step in attempts.steps[first : _last(attempts.steps, messages)])
        rest.remove(begin)
        for place in dict.fromkeys((first, last)):
            if attempts.try_steps([*rest[:place], _as_exchange(begin), *rest[place:]]):
                break


def _last(steps: Sequence[AnyStep], numbers: set[int]) -> int:
    return max(place for place, step in enumerate(steps) if step.number in numbers)


def _make_plain(attempts: _Attempts) -> None:
    """Put simpler steps in the place of others, one at a time."""
    for place in range(len(attempts.steps)):
        for candidate in _plain(attempts.steps[place]):
            attempts.try_steps([*attempts.steps[:place], candidate, *attempts.steps[place + 1 :]])


def _plain(step: AnyStep) -> Iterator[AnyStep]:
    """The step with one of its particulars as it is by default."""
    for field in msgspec.structs.fields(step):
        if field.default is not msgspec.NODEFAULT and getattr(step, field.name) != field.default:
            yield msgspec.structs.replace(step, **{field.name: field.default})
