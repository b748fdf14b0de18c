"""The flight recorder: every input of a node, in a form for replay; and the replay of a recording.

The state of a `GossipNode` follows from its inputs alone. So a recording is the list of its inputs, each with the time the
node read and the hash it had afterwards. A replay must come to the same hashes; if it does not, the node did something that
its inputs do not account for.

Rules kept here:

- The node's own writes are recorded as the resulting cells, not as calls: their replay needs only the state.
- A frame carries its length and a checksum. A file that ends within a frame (its node was killed) is valid up to there; a file that
  is damaged before its end is refused.
- A recording may begin with a *checkpoint* of the state. Knowledge of peers is not part of a checkpoint, so the node drops that
  knowledge at a checkpoint, which costs each peer a whole Ping.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import Cell, Run, read_cell
from constraint_crdt.crdt.clock import Dot, Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import GossipMessage, Ping, Sync, decode_message, encode_message
from constraint_crdt.protocol.peers import bind_runs

FORMAT = 1
"""Version of the frames. A reader refuses a later version."""
HASH_BYTES = 8
HEADER_BYTES = 8
LONGEST_FRAME = 1 << 30


class Checkpoint(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """The first input: the identity of the node and its state."""

    format: int
    node: str
    incarnation: int
    vouched: bool
    """The node may go on writing as this life."""
    fleet: str
    state: bytes
    """An encoded Sync."""


class ReceivedMessage(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """A message was received."""

    message: bytes


class Initiation(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """An exchange was begun with a peer; without a peer: a Ping to no particular reader."""

    peer: str | None


class LocalWrite(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """The node wrote mutations above `lo` up to `hi` to its own row; `cells` are those standing after the write."""

    incarnation: int
    lo: int
    hi: int
    cells: tuple[tuple[int, bytes], ...]


class Collection(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """Tombstones were dropped: those these peers have acknowledged, or all that may be dropped."""

    acknowledged_by: tuple[str, ...] | None


class Retirement(msgspec.Struct, tag=6, array_like=True, frozen=True):
    """A node was retired here and is no peer any more. (The cell itself is in a `LocalWrite`.)"""

    node: str


Input = Checkpoint | ReceivedMessage | Initiation | LocalWrite | Collection | Retirement


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """An input, and the resulting hash."""

    time: int
    """ns since the epoch, as the node read it."""
    hash: bytes
    """The first bytes of the node's state hash afterwards."""
    input: Input


class RecordingError(ConstraintCrdtError, ValueError):
    """A recording cannot be read."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def encode_frame(frame: Frame) -> bytes:
    """A frame as bytes of a file: length, checksum, content."""
    body = _encode(frame)
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def decode_frames(data: bytes) -> list[Frame]:
    """The frames of a recording, without an incomplete last frame.

    Raises `RecordingError` for bytes of another format, damaged bytes, or a later version.
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
    if not frames or not isinstance(frames[0].input, Checkpoint):
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
    """A `GossipNode` which passes every input to `sink` after processing it."""

    def __init__(self, node_id: str, *, sink: Callable[[Frame], None], now: Callable[[], int], **others: Any) -> None:
        """As `GossipNode`. Inputs are recorded from the first `checkpoint` on."""
        self._sink: Callable[[Frame], None] | None = None
        self._told = sink
        self._clock_of_inputs = now
        super().__init__(node_id, now=now, **others)
        self.local.on_write = self._wrote

    def checkpoint(self) -> None:
        """Begin a recording from the present state. Drops all knowledge of peers."""
        self.forget_peers()
        began = Checkpoint(
            format=FORMAT,
            node=self.node_id,
            incarnation=self.replica.incarnation,
            vouched=self.goes_on,
            fleet=self.fleet,
            state=encode_message(self._composer.sync(None)),
        )
        self._sink = self._told
        self._tell(began)

    def _tell(self, told: Input) -> None:
        if self._sink is not None:
            self._sink(Frame(self._clock_of_inputs(), self.state_hash[:HASH_BYTES], told))

    def receive(self, message: GossipMessage) -> GossipResult:
        try:
            return super().receive(message)
        finally:  # a refused message is an input too
            self._tell(ReceivedMessage(encode_message(message)))

    def begin(self, peer: str) -> GossipMessage:
        message = super().begin(peer)
        self._tell(Initiation(peer))
        return message

    def ping(self, peer: str | None = None) -> Ping:
        message = super().ping(peer)
        if peer is None:  # a Ping to a peer follows from another input
            self._tell(Initiation(None))
        return message

    def _wrote(self, before: Replica, seq: int) -> None:
        """The node wrote; `before` was its life, and `seq` the end of the row of that life."""
        rows, after = self.state.rows, self.replica
        lo = seq if after == before else 0
        if rows.seq(after) > lo:
            cells = tuple((cell.seq, cell.data) for cell in rows.above(after, lo))
            self._tell(LocalWrite(after.incarnation, lo, rows.seq(after), cells))

    def retire(self, node_id: str) -> list[Dot]:
        lives = super().retire(node_id)
        self._tell(Retirement(node_id))
        return lives

    def collect(self, acknowledged_by: Iterable[str] | None = None) -> int:
        names = None if acknowledged_by is None else tuple(acknowledged_by)
        dropped = super().collect(names)
        if dropped:
            self._tell(Collection(names))
        return dropped


class ReplayedInput(NamedTuple):
    """A replayed input."""

    number: int
    """From 1."""
    frame: Frame
    said: str
    """A description of the input, for people."""
    agrees: bool
    """The hash equals the recorded hash."""


class Replay:
    """The replay of a recording: an iterable of steps. `node` is the node after the last step taken."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """`frames`: see `decode_frames`. Raises `RecordingError` if their first state cannot be read."""
        self._frames = frames
        self._time = frames[0].time
        began = frames[0].input
        if not isinstance(began, Checkpoint):
            raise RecordingError("it is no recording: it does not begin with a node")
        self.node = _ReplayedNode(began, lambda: self._time)

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self._frames)

    def __iter__(self) -> Iterator[ReplayedInput]:
        for number, frame in enumerate(self._frames, start=1):
            self._time = frame.time
            said = "began" if number == 1 else self.node.take(frame)
            yield ReplayedInput(number, frame, said, self.node.state_hash[:HASH_BYTES] == frame.hash)


class Difference(NamedTuple):
    """The first moment at which two nodes had equal clocks and different cells."""

    steps: tuple[int, int]
    """The last step of each before that moment."""
    time: int
    cells: tuple[str, ...]
    """Descriptions of the cells that only either of them held, for people."""


def first_difference(a: Sequence[Frame], b: Sequence[Frame]) -> Difference | None:
    """The first moment of equal clocks and different hashes, by the times of the recordings; None if there is none."""
    replays = Replay(a), Replay(b)
    last = [0, 0]
    steps = sorted(
        [(frame.time, 0, number) for number, frame in enumerate(a)] + [(frame.time, 1, number) for number, frame in enumerate(b)]
    )
    runs = [iter(replay) for replay in replays]
    for time, which, _ in steps:
        last[which] = next(runs[which]).number
        one, other = replays[0].node, replays[1].node
        if min(last) and one.clock == other.clock and one.state_hash != other.state_hash:
            return Difference((last[0], last[1]), time, tuple(_unshared(one, other)))
    return None


def _unshared(one: GossipNode, other: GossipNode) -> Iterator[str]:
    mine, theirs = ({(cell.replica, cell.seq): cell.data for cell in node.state.rows.live_cells()} for node in (one, other))
    for node, held, missing in ((one, mine, theirs), (other, theirs, mine)):
        for (replica, seq), data in sorted(held.items()):
            if missing.get((replica, seq)) != data:
                yield f"only {node.node_id} holds {data!r}, mutation {seq} of {replica}"


class _ReplayedNode(GossipNode):
    """A node that processes recorded inputs."""

    def __init__(self, began: Checkpoint, now: Callable[[], int]) -> None:
        super().__init__(began.node, incarnation=began.incarnation, now=now, renew=_never, fleet=began.fleet)
        state = decode_message(began.state, max_bytes=None)
        if not isinstance(state, Sync):
            raise RecordingError("it is no recording: it does not begin with a state")
        self.state.rows.apply(bind_runs(state.state.runs, None), whole=True)
        self.resume(began.incarnation, vouched=began.vouched)

    def take(self, frame: Frame) -> str:
        """Process an input as at the time of the recording; returns a description of it."""
        match frame.input:
            case ReceivedMessage(message):
                return self._hear_again(message)
            case Initiation(peer):
                if peer is None:
                    self.ping()
                else:
                    self.begin(peer)
                return f"began an exchange with {peer or 'whoever is there'}"
            case LocalWrite(incarnation, lo, hi, cells):
                self._write_again(Replica(self.node_id, incarnation), lo, hi, cells)
                return f"wrote {hi - lo} mutations as {incarnation:x}"
            case Collection(names):
                dropped = self.collect(names)
                return f"dropped {dropped} removals"
            case Retirement(node):
                self._exchange.forget_retired()
                return f"retired {node}"
            case Checkpoint():
                raise RecordingError("it begins a second time in the middle")

    def _hear_again(self, payload: bytes) -> str:
        try:
            message, result = self.hear(payload)
        except ConstraintCrdtError as error:
            return f"refused a message: {error}"
        change = "changed by" if result.state_changed else "heard"
        answers = ", ".join(type(each).__name__ for each in result.responses) or "nothing"
        return f"{change} a {type(message).__name__} of {message.node}, answered with {answers}"

    def _write_again(self, me: Replica, lo: int, hi: int, cells: Sequence[tuple[int, bytes]]) -> None:
        if me != self.replica:
            self._drop_transfers()
        self.state.rows.apply([Run(me, lo, hi, [_cell(me, seq, data) for seq, data in cells])])
        self.resume(me.incarnation, vouched=True)


def _cell(replica: Replica, seq: int, data: bytes) -> Cell:
    cell = read_cell(data)
    cell.replica, cell.seq = replica, seq
    cell.key = cell.key or (seq if cell.key == 0 else cell.key)
    return cell


def _never() -> int:
    raise RecordingError("a life begins that was not recorded")
