"""Parts of transfers that are not complete yet.

A transfer is put together from the slices of one encoded message, in any order, also repeated; nothing of it is looked at before
the last slice is there. One transfer per node is kept, the one heard from last, and all of them within one bound on memory: where
it is reached, the transfers that have been waiting longest give way, so that a sender that went away holds up nobody.

The reader asks for what is missing (`ask`). Within an exchange each question is for a later part than the one before, so it ends,
whatever the answers are. A transfer of which nothing comes for `STALLED` questions is given up. Nothing is asked of one that was
complete before: a slice of it that is late or comes twice would have it sent, and leave a late slice behind, for ever.

Messages that are too large to be sent as they are: packed, cut into parts, and kept while their reader may ask for the rest.

Rules kept here:

- Parts go out in bursts of bounded size. The last part of a burst says that its sender pauses; the reader then asks for the rest
  (`Resume`), also after a broken connection, or a day later. So nobody is flooded, and what arrived need not come again.
- A message is packed where that pays (`packing`); it travels as a part then, even if it is the only one.
- One message per peer is kept, encoded, so that it is the same one that goes on: the sender's state as of one instant, whatever
  has changed since. It is let go once the peer has shown to know what was in it, when a newer one takes its place, and when all
  that are kept would exceed their bound (the one least lately asked for first).
- What is kept is for one life of the peer. Another life of it knows nothing of the parts that came before.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from constraint_crdt.crdt.clock import ClockMark
from constraint_crdt.crdt.limits import MESSAGE_BYTES, Limits
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.codec import TRANSFER_BYTES, encode_message
from constraint_crdt.protocol.compression import pack
from constraint_crdt.protocol.messages import GossipMessage, Part

PART_BYTES = 128
"""What keeping one slice costs beside its content."""

STALLED = 8
"""Questions for one and the same part after which it is not to be expected any more."""

COMPLETED = 1024
"""Nodes of which the last transfer that was complete is remembered, by its name."""


class _Transfer:
    __slots__ = ("asked", "basis", "chunks", "missing", "name", "sender", "size", "stored", "transfer", "tries")

    def __init__(self, part: Part, name: tuple[object, ...], basis: Sequence[ClockMark]) -> None:
        self.name = name
        self.sender, self.transfer = part.node, part.transfer
        self.basis = basis
        self.chunks: dict[int, bytes] = {}
        self.size = 0
        """Bytes of content so far."""
        self.stored = 0
        """The same with what keeping it costs."""
        self.missing = 0
        """The first slice that is not there."""
        self.asked = 0
        """The slice asked for last; the first one comes unasked."""
        self.tries = 0

    def put(self, index: int, chunk: bytes) -> None:
        self.chunks[index] = chunk
        self.size += len(chunk)
        self.stored += len(chunk) + PART_BYTES
        while self.missing in self.chunks:
            self.missing += 1


class Staging:
    """Incomplete transfers by sender."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._transfers: OrderedDict[str, _Transfer] = OrderedDict()
        self._completed: OrderedDict[str, tuple[Replica, bytes]] = OrderedDict()
        self.bytes = 0
        """Bytes held at present, `PART_BYTES` per slice included."""

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, part: Part, basis: Sequence[ClockMark] = ()) -> bytes | None:
        """Keep one part. The whole message once it is complete, else None. `basis`: see the method of that name.

        Raises `ConstraintCrdtError` if it contradicts the others, which are dropped then, or if the whole would not fit here.
        """
        sender, size = part.node.node_id, part.unpacked or part.size
        if size + part.count * PART_BYTES > self._max_bytes:
            raise ConstraintCrdtError(f"a transfer of {size} bytes is larger than the {self._max_bytes} to be staged")
        if part.count == 1 and part.size == len(part.chunk):  # nothing to wait for: it takes nobody's place
            return part.chunk
        transfer = self._current(part, basis)
        if part.index in transfer.chunks:
            return None
        transfer.put(part.index, part.chunk)
        self.bytes += len(part.chunk) + PART_BYTES
        complete = len(transfer.chunks) == part.count
        if transfer.size > part.size or (complete and transfer.size != part.size):
            self.drop(sender)
            raise ConstraintCrdtError("the parts of a transfer do not add up to its size")
        while self.bytes > self._max_bytes:
            self.drop(next(iter(self._transfers)))
        if not complete:
            return None
        self.drop(sender)
        self._remember(transfer)
        return b"".join(transfer.chunks[index] for index in range(part.count))

    def basis(self, sender: str) -> Sequence[ClockMark]:
        """The clocks that could be named when the incomplete transfer of a node began: by its end they may be out of use."""
        transfer = self._transfers.get(sender)
        return transfer.basis if transfer else ()

    def ask(self, sender: Replica, *, anew: bool) -> tuple[bytes, int] | None:
        """The transfer of a life of a node that is not complete, and the first part that is missing; None if there is none such.

        `anew`: in a new exchange. Else None as well if that very part was asked for before.
        """
        transfer = self._transfers.get(sender.node_id)
        if transfer is None:
            return None
        if self._completed.get(sender.node_id) == (transfer.sender, transfer.transfer):
            self.drop(sender.node_id)
            return None
        advanced = transfer.missing > transfer.asked
        if not (advanced or anew):
            return None
        transfer.tries = 0 if advanced else transfer.tries + 1
        if transfer.sender != sender or transfer.tries >= STALLED:
            self.drop(sender.node_id)
            return None
        transfer.asked = transfer.missing
        return transfer.transfer, transfer.missing

    def give_up(self, sender: Replica, name: bytes) -> bool:
        """Forget this transfer, which its sender does not keep any more. False if it is not waited for."""
        transfer = self._transfers.get(sender.node_id)
        if transfer is None or (transfer.sender, transfer.transfer) != (sender, name):
            return False
        self.drop(sender.node_id)
        return True

    def drop(self, sender: str) -> None:
        """Forget the incomplete transfer of one node."""
        transfer = self._transfers.pop(sender, None)
        if transfer is not None:
            self.bytes -= transfer.stored

    def clear(self) -> None:
        """Forget all incomplete transfers."""
        self._transfers.clear()
        self._completed.clear()
        self.bytes = 0

    def _remember(self, transfer: _Transfer) -> None:
        """Note that a transfer is complete."""
        self._completed[transfer.sender.node_id] = (transfer.sender, transfer.transfer)
        self._completed.move_to_end(transfer.sender.node_id)
        if len(self._completed) > COMPLETED:
            self._completed.popitem(last=False)

    def _current(self, part: Part, basis: Sequence[ClockMark]) -> _Transfer:
        """The transfer that a part belongs to, which takes the place of another one of the same node; now the last heard from."""
        sender, name = part.node.node_id, (part.node, part.to, part.transfer, part.count, part.size, part.unpacked)
        transfer = self._transfers.get(sender)
        if transfer is None or transfer.name != name:
            self.drop(sender)
            transfer = self._transfers[sender] = _Transfer(part, name, basis)
        self._transfers.move_to_end(sender)
        return transfer


class CutMessage:
    """One encoded message, and how it is cut. The same message cut in the same way is the same transfer."""

    __slots__ = ("_data", "_message", "_room", "_unpacked", "count", "transfer")

    def __init__(self, message: GossipMessage, data: bytes, max_bytes: int, unpacked: int | None = None) -> None:
        """`max_bytes`: of each part, encoded; `unpacked`: what `data` becomes, if it is packed.

        Raises `ConstraintCrdtError` if that leaves no room for content.
        """
        self._message, self._data, self._unpacked = message, data, unpacked
        cut = max_bytes.to_bytes(8, "big")  # the same message cut in another way is another transfer
        self.transfer = blake2b(data, digest_size=TRANSFER_BYTES, key=cut, person=b"transfer").digest()
        longest = self._part(len(data), len(data), b"", pause=True)
        self._room = max_bytes - len(encode_message(longest)) - 4  # 4: the chunk's own length
        if self._room < 1:
            raise ConstraintCrdtError(f"{max_bytes} bytes leave no room for any part of a message")
        self.count = -(-len(data) // self._room)

    @property
    def size(self) -> int:
        """Bytes of the whole, as it travels."""
        return len(self._data)

    @property
    def clock(self) -> Mapping[Replica, int] | None:
        """What its reader knows once it has all of it; None where the message does not say."""
        return None if self._message.clock is None else self._message.clock.as_dict()

    def burst(self, start: int, max_bytes: int | None = None) -> list[GossipMessage]:
        """The parts from `start` on: all, or at least one and as many as have `max_bytes` of content."""
        end = self.count if max_bytes is None else min(self.count, start + max(1, max_bytes // self._room))
        return [
            self._part(index, self.count, self._chunk(index), pause=end - 1 == index < self.count - 1)
            for index in range(start, end)
        ]

    def _chunk(self, index: int) -> bytes:
        return self._data[index * self._room : (index + 1) * self._room]

    def _part(self, index: int, count: int, chunk: bytes, *, pause: bool) -> Part:
        whole = self._message
        return Part(
            node=whole.node, fleet=whole.fleet, to=whole.to, transfer=self.transfer,
            index=index, count=count, size=len(self._data), chunk=chunk, pause=pause, unpacked=self._unpacked,
        )  # fmt: skip


def split_message(message: GossipMessage, max_bytes: int = MESSAGE_BYTES) -> list[GossipMessage]:
    """The message itself if it is sent as it is, else parts that each encode within `max_bytes`; `receive` puts them together.

    Raises `ConstraintCrdtError` if `max_bytes` leaves no room for content.
    """
    cut = _cut(message, encode_message(message), max_bytes)
    return [message] if cut is None else cut.burst(0)


def _cut(message: GossipMessage, data: bytes, max_bytes: int) -> CutMessage | None:
    """How a message is sent that encodes to `data`; None if as it is."""
    packed = pack(data)
    if packed is not None:
        return CutMessage(message, packed, max_bytes, len(data))
    return None if len(data) <= max_bytes else CutMessage(message, data, max_bytes)


class Sending:
    """What is on its way in parts, by peer."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[str, tuple[Replica, CutMessage]] = OrderedDict()
        self.bytes = 0
        """Bytes of messages kept at present."""

    def __len__(self) -> int:
        return len(self._kept)

    def encoded(self, message: GossipMessage, reader: Replica | None, max_bytes: int) -> list[bytes]:
        """The message as bytes, or its first burst of parts; the rest is kept for `reader`.

        One that cannot be kept, for want of a known reader or of room, goes out whole: there would be nothing to resume.
        """
        data = encode_message(message)
        cut = _cut(message, data, max_bytes)
        if cut is None:
            return [data]
        kept = reader is not None and cut.count > 1 and self._keep(reader, cut)
        return [encode_message(part) for part in cut.burst(0, self._limits.burst_bytes if kept else None)]

    def go_on(self, reader: Replica, transfer: bytes, start: int) -> list[GossipMessage] | None:
        """The next burst of a transfer; None if it is not kept any more, or never was."""
        kept = self._kept.get(reader.node_id)
        if kept is None or kept[0] != reader or kept[1].transfer != transfer or start >= kept[1].count:
            return None
        self._kept.move_to_end(reader.node_id)
        return kept[1].burst(start, self._limits.burst_bytes)

    def settle(self, node_id: str, known: Mapping[Replica, int]) -> None:
        """A peer has given evidence of this clock: what would tell it nothing is let go. O(rows) while something is kept for it."""
        kept = self._kept.get(node_id)
        clock = kept and kept[1].clock
        if clock and all(known.get(replica, 0) >= seq for replica, seq in clock.items()):
            self.drop(node_id)

    def drop(self, node_id: str) -> None:
        """Let go of what is kept for one peer."""
        kept = self._kept.pop(node_id, None)
        if kept is not None:
            self.bytes -= kept[1].size

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()
        self.bytes = 0

    def _keep(self, reader: Replica, cut: CutMessage) -> bool:
        if cut.size > self._limits.kept_bytes:
            return False
        self.drop(reader.node_id)
        self._kept[reader.node_id] = (reader, cut)
        self.bytes += cut.size
        while self.bytes > self._limits.kept_bytes:
            self.drop(next(iter(self._kept)))
        return True
