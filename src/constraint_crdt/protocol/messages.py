"""The messages of the exchange (DESIGN 3).

| message | says | is answered by |
|---|---|---|
| `Ping` | my hash and clock, and what time it is here | `Ack` where the hashes are equal, else `Delta` or `Sync` |
| `Delta` | every run above a clock of yours; and where your clock is ahead of mine | `Delta` if I hold more, else `Ack` |
| `Sync` | every row from 0, with floors: for one whose clock is below them | `Delta` if I hold more, else `Ack` |
| `Ack` | I have the hash that you said | nothing |
| `Part` | a slice of a message too large to be sent as it is | as the whole, once it is there; where its sender pauses, `Resume` |
| `Resume` | of that transfer I have all parts below this one | the next parts, or `Gone` |
| `Gone` | that transfer I do not keep any more | `Ping`: it starts again |
| `Buckets` | you have my clock and not my hash: these are my sums | `Mend`, or `Ack` if it was my sums that were wrong |
| `Mend` | these are my cells in the buckets that differ; or: so they stand now | `Mend`, at last `Ack` |

Every message names its sender's life. It names its receiver's life too, either as `to` or inside an 8-byte name (of a clock, of
a hash), which is computed over the reader's replica and so means nothing to another life of it.

A clock that both sides know is *named* and the rest given against it. So a message that was decoded may have `clock` None:
its receiver derives it. A message made here has it always.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.clock import ClockMark, VectorClock
from constraint_crdt.crdt.codec import UnboundRun
from constraint_crdt.crdt.digest import StateHash
from constraint_crdt.crdt.replica import Replica

DEFAULT_FLEET = "default"

DEFAULT_MAX_SKEW = 10.0
"""Seconds by which the clocks of a fleet may differ."""

Entry = tuple[int | Replica, int]
"""A clock entry whose replica may be an index into the clock that the message names."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GossipMessage:
    """What all messages carry."""

    node: Replica
    """The sender."""
    clock: VectorClock | None = None
    """The sender's clock, or None where the wire leaves it to be derived from `base`."""
    fleet: str = DEFAULT_FLEET
    to: int | None = None
    """The receiver's incarnation, or None where a name inside the message says it, or it is not known."""
    base: bytes | None = None
    """The 8-byte name of a clock that both sides know, against which this message speaks."""
    basis: ClockMark | None = field(default=None, repr=False)
    """That clock itself, at its sender only: what the encoder needs to turn replicas into indexes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ping(GossipMessage):
    """Compare: the sender's hash and clock."""

    state_hash: StateHash
    changes: Sequence[Entry] = ()
    """With a `base`: the entries in which the sender's clock differs from it. Without: the clock as it travels, where ended lives
    may be left out."""
    time: int | None = None
    """What time it was at the sender, ns since the epoch by its own clock; on the wire in ms."""


@dataclass(frozen=True, slots=True, eq=False)
class ConstraintDelta:
    """The runs of a Delta: everything above one clock, as of one instant."""

    runs: Sequence[Run | UnboundRun]

    def __len__(self) -> int:
        """How many cells the runs hold."""
        return sum(len(run.cells) for run in self.runs)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta(GossipMessage):
    """What the receiver lacks, and where it is ahead of the sender."""

    delta: ConstraintDelta
    proof: bytes | None = None
    """The sender's hash as an 8-byte token to the receiver: compared once the clocks are equal."""
    behind: Sequence[Entry] = ()
    """Entries in which the sender is behind `base`: it asks for these rows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sync(GossipMessage):
    """The sender's whole state with its floors, for a receiver that a Delta cannot serve any more."""

    state: ConstraintDelta
    state_hash: StateHash


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ack(GossipMessage):
    """The sender has the hash that it was told. Proves that hash and nothing else."""

    answers: bytes
    """That hash as an 8-byte token to its reader."""
    state_hash: StateHash | None = None
    """That hash whole, in a message that was not decoded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part(GossipMessage):
    """A slice of a larger message, or of a packed one. Nothing of it counts before all slices are there."""

    transfer: bytes
    """8 bytes that name the message it is a slice of."""
    index: int
    count: int
    size: int
    """Bytes of the whole message, as it travels."""
    chunk: bytes
    pause: bool = False
    """The sender waits here until it is asked for the rest."""
    unpacked: int | None = None
    """Bytes of the whole message once it is unpacked; None where it travels as it is."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resume(GossipMessage):
    """The sender has all parts of a transfer of the receiver's below `index`, and asks for the rest."""

    transfer: bytes
    index: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gone(GossipMessage):
    """The sender does not keep this transfer any more."""

    transfer: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Buckets(GossipMessage):
    """The sender is at `base`, as the receiver was, with another hash. Opens a repair."""

    base: bytes
    state_hash: StateHash
    sums: bytes
    """Eight bytes per bucket: the sum of the hashes of its cells, modulo 2**64."""


class MendStep(enum.IntEnum):
    """What a `Mend` is for."""

    MINE = 1
    """My cells in these buckets; say yours."""
    EVIDENCE = 2
    """My cells in these buckets; decide."""
    OUTCOME = 3
    """What stands in these buckets from now on."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mend(GossipMessage):
    """Cells in some buckets, of a sender at `base`."""

    base: bytes
    step: MendStep
    buckets: int
    """Which ones: a bit each."""
    cells: ConstraintDelta
    """All of the sender's in these buckets. Its runs say nothing beyond their cells."""
    doubt: int = 0
    """The buckets in which the sender found itself damaged."""
    dead: Sequence[tuple[Replica, int]] = ()
    """The dots of cells that the receiver said it has, which removals that the sender holds name."""


@dataclass(slots=True, kw_only=True)
class GossipResult:
    """What receiving one message led to."""

    responses: list[GossipMessage] = field(default_factory=list)
    """What to send back to the sender, in order."""
    state_changed: bool = False
    converged: bool = False
    """Every known peer's last evidenced hash equals mine now."""
    diverged: bool = False
    """The peer has the same clock and another hash: one of the two is corrupted."""
    mended: bool = False
    """Damage here was repaired: sums were corrected, or cells dropped, put back or replaced."""
    skew: float | None = None
    """The sender's clock was found to be off by more than the bound, and had not been before: seconds that it is ahead."""
    outlived: Replica | None = None
    """A life of mine that others know more of than I do: my next write starts a new one."""
