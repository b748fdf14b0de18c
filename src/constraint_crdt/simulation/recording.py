"""The flight recorder: every input of one node as it came, in a form that can be run again.

A `GossipNode` does nothing by itself: what it holds follows from what it was told. So a recording is the list of its inputs, each
with the time that the node read and the hash that it had afterwards. Run again, it must come to the same hashes; where it does
not, the node did something that its inputs do not account for.

Rules kept here:

- What the node itself wrote is recorded as the cells that came of it, not as the call: a write needs nothing but the state.
- A frame carries its length and a checksum. A file that ends in the middle of one (its node was killed) is whole up to there; one
  that is damaged before is refused.
- A recording may begin with a *checkpoint*: a state instead of an empty one. What the node knew of its peers is not part of it, so
  the node forgets that too at the moment of a checkpoint, which costs each peer one whole Ping.
"""

import zlib
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from constraint_crdt.core.replica import Dot, Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.codec import encode_message
from constraint_crdt.gossip.messages import GossipMessage, GossipResult, Ping
from constraint_crdt.gossip.protocol import GossipNode

Result = TypeVar("Result")

FORMAT = 1
"""Of the frames. A reader refuses a later one."""
HASH_BYTES = 8
HEADER_BYTES = 8
LONGEST_FRAME = 1 << 30


class Began(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """The first input: who the node is, and what it holds."""

    format: int
    node: str
    incarnation: int
    vouched: bool
    """It may go on writing as this life."""
    fleet: str
    state: bytes
    """A whole Sync."""


class Heard(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """A message came in."""

    message: bytes


class Asked(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """An exchange was begun, or, without a peer, a Ping made for whoever is there."""

    peer: str | None


class Wrote(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """The node wrote to its own row: the mutations above `lo` up to `hi`, as far as they stand at the end of it."""

    incarnation: int
    lo: int
    hi: int
    cells: tuple[tuple[int, bytes], ...]


class Collected(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """Removals were dropped: those that these peers have acknowledged, or all that may be."""

    acknowledged_by: tuple[str, ...] | None


class Forgot(msgspec.Struct, tag=6, array_like=True, frozen=True):
    """A node was retired here, and is no peer any more. (The cell that says so is a `Wrote`.)"""

    node: str


Input = Began | Heard | Asked | Wrote | Collected | Forgot


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """One input, and what came of it."""

    time: int
    """ns since the epoch, as the node read it."""
    hash: bytes
    """The first bytes of the node's state hash afterwards."""
    input: Input


class RecordingError(ConstraintCrdtError):
    """A recording that cannot be read."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def encode_frame(frame: Frame) -> bytes:
    """A frame as it stands in a file: length, checksum, content."""
    body = _encode(frame)
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def decode_frames(data: bytes) -> list[Frame]:
    """The frames of a recording, without a last one that was cut.

    Raises `RecordingError` for what is no recording, is damaged, or was made by a later version.
    """
    frames: list[Frame] = []
    at = 0
    while at + HEADER_BYTES <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body = data[at + HEADER_BYTES : at + HEADER_BYTES + size]
        if len(body) < size <= LONGEST_FRAME and frames:
            break
        if zlib.crc32(body) != int.from_bytes(data[at + 4 : at + HEADER_BYTES], "big"):
            raise RecordingError(f"it is damaged, or no recording: frame {len(frames) + 1} does not fit its checksum")
        frames.append(_frame(body, len(frames) + 1))
        at += HEADER_BYTES + size
    if not frames or not isinstance(frames[0].input, Began):
        raise RecordingError("it is no recording: it does not begin with a node")
    if frames[0].input.format > FORMAT:
        raise RecordingError("it was made by a later version: upgrade to replay it")
    return frames


def _frame(body: bytes, number: int) -> Frame:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if number == 1:
            raise RecordingError("it is no recording: it does not begin with a node") from None
        raise RecordingError(f"it is damaged, or of a later version: frame {number} cannot be read ({error})") from None


class RecordedNode(GossipNode):
    """A `GossipNode` that tells every input of it to `sink`, as soon as it has taken it in."""

    def __init__(self, node_id: str, *, sink: Callable[[Frame], None], now: Callable[[], int], **others: Any) -> None:
        """As `GossipNode`. Nothing is told before the first `checkpoint`."""
        self._sink: Callable[[Frame], None] | None = None
        self._told = sink
        self._clock_of_inputs = now
        super().__init__(node_id, now=now, **others)

    def checkpoint(self) -> None:
        """Begin the recording, or begin it anew: from the state as it is, with no peer known."""
        self.forget_peers()
        began = Began(
            format=FORMAT,
            node=self.node_id,
            incarnation=self.replica.incarnation,
            vouched=self.goes_on,
            fleet=self.fleet,
            state=encode_message(self._sync(None)),
        )
        self._sink = self._told
        self._tell(began)

    def _tell(self, told: Input) -> None:
        if self._sink is not None:
            self._sink(Frame(self._clock_of_inputs(), self.state_hash[:HASH_BYTES], told))

    def hear(self, payload: bytes) -> tuple[GossipMessage, GossipResult]:
        try:
            return super().hear(payload)
        finally:  # a message that was refused is an input too
            self._tell(Heard(payload))

    def begin(self, peer: str) -> GossipMessage:
        message = super().begin(peer)
        self._tell(Asked(peer))
        return message

    def ping(self, peer: str | None = None) -> Ping:
        message = super().ping(peer)
        if peer is None:  # the others follow from another input
            self._tell(Asked(None))
        return message

    def write(self, mutate: Callable[[Replica], Result]) -> Result:
        rows = self.state.rows
        before, lo = self.replica, rows.seq(self.replica)
        try:
            return super().write(mutate)
        finally:
            after = self.replica
            lo = lo if after == before else 0
            if rows.seq(after) > lo:
                cells = tuple((cell.seq, cell.data) for cell in rows.above(after, lo))
                self._tell(Wrote(after.incarnation, lo, rows.seq(after), cells))

    def retire(self, node_id: str) -> list[Dot]:
        lives = super().retire(node_id)
        self._tell(Forgot(node_id))
        return lives

    def collect(self, acknowledged_by: Iterable[str] | None = None) -> int:
        names = None if acknowledged_by is None else tuple(acknowledged_by)
        dropped = super().collect(names)
        if dropped:
            self._tell(Collected(names))
        return dropped
