"""Running a recording again, input by input, and finding where two recorded nodes first differed."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from constraint_crdt.core.cells import Cell, read_cell
from constraint_crdt.core.replica import Replica
from constraint_crdt.core.run import Run
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.codec import decode_message
from constraint_crdt.gossip.entries import bound
from constraint_crdt.gossip.messages import Sync
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.simulation.recording import HASH_BYTES, Asked, Began, Collected, Forgot, Frame, Heard, RecordingError, Wrote


class Step(NamedTuple):
    """One input, run again."""

    number: int
    """From 1."""
    frame: Frame
    said: str
    """What the input was, for people."""
    agrees: bool
    """The hash is the one that was recorded."""


class Replay:
    """One recorded node, run again. Iterate over it; `node` is the node after the last step taken."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """`frames`: see `decode_frames`. Raises `RecordingError` if the state that they begin with cannot be read."""
        self._frames = frames
        self._time = frames[0].time
        began = frames[0].input
        if not isinstance(began, Began):
            raise RecordingError("it is no recording: it does not begin with a node")
        self.node = _Again(began, lambda: self._time)

    def __len__(self) -> int:
        """How many inputs there are."""
        return len(self._frames)

    def __iter__(self) -> Iterator[Step]:
        for number, frame in enumerate(self._frames, start=1):
            self._time = frame.time
            said = "began" if number == 1 else self.node.take(frame)
            yield Step(number, frame, said, self.node.state_hash[:HASH_BYTES] == frame.hash)


class Difference(NamedTuple):
    """The first moment at which two nodes knew as much and held something else."""

    steps: tuple[int, int]
    """The last step of each before it."""
    time: int
    cells: tuple[str, ...]
    """What only one of them held, for people."""


def first_difference(a: Sequence[Frame], b: Sequence[Frame]) -> Difference | None:
    """Where two nodes first had equal clocks and different hashes, by the times that their recordings state; None for nowhere."""
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


class _Again(GossipNode):
    """A node that takes recorded inputs."""

    def __init__(self, began: Began, now: Callable[[], int]) -> None:
        super().__init__(began.node, incarnation=began.incarnation, now=now, renew=_never, fleet=began.fleet)
        state = decode_message(began.state, max_bytes=None)
        if not isinstance(state, Sync):
            raise RecordingError("it is no recording: it does not begin with a state")
        self.state.rows.apply(bound(state.state.runs, None), whole=True)
        self.resume(began.incarnation, vouched=began.vouched)

    def take(self, frame: Frame) -> str:
        """Take one input in, as it was taken then; returns what it was."""
        match frame.input:
            case Heard(message):
                return self._hear_again(message)
            case Asked(peer):
                if peer is None:
                    self.ping()
                else:
                    self.begin(peer)
                return f"began an exchange with {peer or 'whoever is there'}"
            case Wrote(incarnation, lo, hi, cells):
                self._write_again(Replica(self.node_id, incarnation), lo, hi, cells)
                return f"wrote {hi - lo} mutations as {incarnation:x}"
            case Collected(names):
                dropped = self.collect(names)
                return f"dropped {dropped} removals"
            case Forgot(node):
                self._forget_retired()
                return f"retired {node}"
            case Began():
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
            self._begin_anew()
        self.state.rows.apply([Run(me, lo, hi, [_cell(me, seq, data) for seq, data in cells])])
        self.resume(me.incarnation, vouched=True)


def _cell(replica: Replica, seq: int, data: bytes) -> Cell:
    cell = read_cell(data)
    cell.replica, cell.seq = replica, seq
    cell.key = cell.key or (seq if cell.key == 0 else cell.key)
    return cell


def _never() -> int:
    raise RecordingError("a life begins that was not recorded")
