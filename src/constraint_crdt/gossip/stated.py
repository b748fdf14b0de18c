"""At which clock the sender of a message stands, worked out from what the message says.

Rules kept here:

- On the wire a clock is spelled out, or given against one that both sides know. A message that was handed over as an object has
  its sender's clock, with the sums that go with it; then nothing is worked out again, and the two nodes share it.
- What a message says has been checked to fit its base before; nothing here changes anything.
"""

from collections.abc import Sequence

from constraint_crdt.core.clock import ClockMark, VectorClock
from constraint_crdt.core.digest import Digest
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.run import Run
from constraint_crdt.gossip.entries import resolved
from constraint_crdt.gossip.messages import Delta, Ping
from constraint_crdt.types.retirement import Retirements

Asked = Sequence[tuple[Replica, int]]
"""The entries in which a sender is behind, each with its own seq: it asks for these rows above it."""


def clock_of_ping(ping: Ping, base: ClockMark | None, mine: ClockMark, retirements: Retirements, digest: Digest) -> ClockMark:
    """The clock in a Ping. `base`: the one that it names; `mine`: any, hashing then costs only for what differs from it."""
    if base is not None:
        return ping.clock.mark(digest) if ping.clock is not None else base.changed(resolved(ping.changes, base))
    if ping.changes:  # what travelled, with ended lives left out
        return mine.replaced(retirements.heard(dict(resolved(ping.changes, None))))
    stated = (ping.clock or VectorClock()).mark(digest)
    heard = retirements.heard(stated.entries)
    return stated if heard is stated.entries else mine.replaced(heard)


def clock_of_delta(delta: Delta, base: ClockMark | None, runs: Sequence[Run], asked: Asked, digest: Digest) -> ClockMark:
    """The clock of a Delta's sender, of one instant with its runs."""
    if base is None:
        return (delta.clock or VectorClock()).mark(digest)
    return base.changed([*((run.replica, run.hi) for run in runs), *asked])


def clock_of_applied(delta: Delta, now: ClockMark, asked: Asked, lower: int, digest: Digest) -> ClockMark:
    """The same for a Delta of which each run began where my clock stood, once it is applied: `now`, where I am, but in the rows
    that the sender asks for, `lower` mutations in all.
    """
    if not asked:
        return now
    stated = None if delta.clock is None else delta.clock.mark(digest)
    return stated if stated is not None and stated.count == now.count - lower else now.changed(asked)
