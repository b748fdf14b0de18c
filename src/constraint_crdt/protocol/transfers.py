"""Transfers of messages too large for a single packet: compressed, split into parts, and put together again.

Rules of the sender (`OutboundTransfers`):

- A message larger than a page is compressed if compression saves a tenth or more. A compressed message travels as a part,
  even as the only part. A smaller message is sent unchanged: the envelope of a part would cost more than compression saves.
- Parts go out in bursts of bounded size. The last part of a burst says that its sender pauses; the reader then asks for the rest
  with a `Resume`, also after a broken connection or a day later.
- One encoded message per peer is kept, so that a resumed transfer goes on with the same bytes: the sender's state as of an instant.
  The message is dropped once the peer has given evidence of its clock, when a newer message replaces it, and when all kept messages
  exceed their bound (least recently asked for first).
- A kept message is for a single life of the peer. Another life has none of the parts that came before.

Rules of the receiver (`InboundTransfers`):

- Slices may arrive in any order and repeatedly. No slice is decoded before the last slice arrived.
- One transfer per node is kept, the latest, and all of them within a bound on memory. Beyond the bound the
  transfers that have waited longest are dropped, so a sender that disappeared blocks no other.
- Within an exchange each question (`ask`) is for a later part than the question before, so the exchange ends whatever the answers
  are. A transfer is given up after `STALLED` questions without progress. A transfer that was complete before is not asked for: a
  late or duplicated slice would have the whole sent again.
- The stated size of a compressed message is checked against the bounds before decompression, no more than that is expanded, and
  any other result is refused. Growth beyond `MOST_GROWTH` counts as a decompression bomb, so no such message is sent.

Compression is DEFLATE (RFC 1951) in the zlib format (RFC 1950), whose checksum detects damage. Zstandard at its fastest level made
the definitions of 2,000 constraints 11 % smaller: not enough for a dependency.
"""

import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from constraint_crdt.crdt.clock import ClockMark
from constraint_crdt.crdt.limits import MESSAGE_BYTES, Limits
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.messages import MOST_GROWTH, TRANSFER_BYTES, GossipMessage, Part, check_growth, encode_message

PACK_FROM = 4096
"""Bytes beyond which a message may be compressed."""

PAYS_BELOW = 0.9
"""Share of its size below which a compressed message is worth sending."""

LEVEL = 1
"""The fastest: some 4 ms per megabyte of constraints, a fortieth of the time the reader spends on it."""

PART_BYTES = 128
"""Memory for a kept slice beside its content."""

STALLED = 8
"""Questions for the same part after which its transfer is given up."""

COMPLETED = 1024
"""Nodes whose last complete transfer is remembered, by its name."""


def pack(data: bytes) -> bytes | None:
    """An encoded message compressed, or None if compression does not pay."""
    if len(data) <= PACK_FROM:
        return None
    packed = zlib.compress(data, LEVEL)
    pays = len(packed) < len(data) * PAYS_BELOW and len(data) <= len(packed) * MOST_GROWTH
    return packed if pays else None


def unpack(packed: bytes, size: int) -> bytes:
    """Decompress a message of `size` bytes. At most one byte more than `size` is ever expanded.

    Raises `ConstraintCrdtError` for a size that compression does not lead to, for damaged content, and for another size.
    """
    check_growth(len(packed), size)
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise ConstraintCrdtError(f"a packed message is damaged: {error}") from error
    if len(data) != size or not inflater.eof or inflater.unused_data:
        raise ConstraintCrdtError(f"a packed message does not become the {size} bytes that it is said to be")
    return data


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
        """Bytes of memory, `PART_BYTES` per slice included."""
        self.missing = 0
        """The first missing slice."""
        self.asked = 0
        """The slice asked for last; the first slice comes without a question."""
        self.tries = 0

    def put(self, index: int, chunk: bytes) -> None:
        self.chunks[index] = chunk
        self.size += len(chunk)
        self.stored += len(chunk) + PART_BYTES
        while self.missing in self.chunks:
            self.missing += 1


class InboundTransfers:
    """Incomplete transfers by sender. `len` is their number."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: the bound on the memory of all of them."""
        self._max_bytes = max_bytes
        self._transfers: OrderedDict[str, _Transfer] = OrderedDict()
        self._completed: OrderedDict[str, tuple[Replica, bytes]] = OrderedDict()
        self.bytes = 0
        """Bytes held at present, `PART_BYTES` per slice included."""

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, part: Part, basis: Sequence[ClockMark] = ()) -> bytes | None:
        """Keep a part; returns the whole message after its last part, else None. `basis`: see the method of that name.

        Raises `ConstraintCrdtError` if the part contradicts the others, which are then dropped, or if the whole exceeds the bound.
        """
        sender, size = part.node.node_id, part.unpacked or part.size
        if size + part.count * PART_BYTES > self._max_bytes:
            raise ConstraintCrdtError(f"a transfer of {size} bytes is larger than the {self._max_bytes} to be staged")
        if part.count == 1 and part.size == len(part.chunk):  # complete: it replaces no other transfer
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
        """The clocks a node could name when its incomplete transfer began: they may be dropped before the transfer ends."""
        transfer = self._transfers.get(sender)
        return transfer.basis if transfer else ()

    def ask(self, sender: Replica, *, anew: bool) -> tuple[bytes, int] | None:
        """The name of the incomplete transfer of a life of a node and its first missing part; None if there is nothing to ask for.

        `anew`: in a new exchange, where the same part may be asked for again.
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
        """Drop a transfer its sender no longer keeps. False if the transfer is not incomplete here."""
        transfer = self._transfers.get(sender.node_id)
        if transfer is None or (transfer.sender, transfer.transfer) != (sender, name):
            return False
        self.drop(sender.node_id)
        return True

    def drop(self, sender: str) -> None:
        """Drop the incomplete transfer of a node."""
        transfer = self._transfers.pop(sender, None)
        if transfer is not None:
            self.bytes -= transfer.stored

    def clear(self) -> None:
        """Drop all incomplete transfers."""
        self._transfers.clear()
        self._completed.clear()
        self.bytes = 0

    def _remember(self, transfer: _Transfer) -> None:
        """Note a complete transfer."""
        self._completed[transfer.sender.node_id] = (transfer.sender, transfer.transfer)
        self._completed.move_to_end(transfer.sender.node_id)
        if len(self._completed) > COMPLETED:
            self._completed.popitem(last=False)

    def _current(self, part: Part, basis: Sequence[ClockMark]) -> _Transfer:
        """The transfer of a part, now the last heard from. Replaces another transfer of the same node."""
        sender, name = part.node.node_id, (part.node, part.to, part.transfer, part.count, part.size, part.unpacked)
        transfer = self._transfers.get(sender)
        if transfer is None or transfer.name != name:
            self.drop(sender)
            transfer = self._transfers[sender] = _Transfer(part, name, basis)
        self._transfers.move_to_end(sender)
        return transfer


class CutMessage:
    """An encoded message, split into parts. The same message split in the same way is the same transfer."""

    __slots__ = ("_data", "_message", "_room", "_unpacked", "count", "transfer")

    def __init__(self, message: GossipMessage, data: bytes, max_bytes: int, unpacked: int | None = None) -> None:
        """`max_bytes`: of each encoded part; `unpacked`: the size of `data` after decompression, if compressed.

        Raises `ConstraintCrdtError` if `max_bytes` leaves no room for content.
        """
        self._message, self._data, self._unpacked = message, data, unpacked
        cut = max_bytes.to_bytes(8, "big")  # the same message split in another way is another transfer
        self.transfer = blake2b(data, digest_size=TRANSFER_BYTES, key=cut, person=b"transfer").digest()
        longest = self._part(len(data), len(data), b"", pause=True)
        self._room = max_bytes - len(encode_message(longest)) - 4  # 4: the chunk's own length
        if self._room < 1:
            raise ConstraintCrdtError(f"{max_bytes} bytes leave no room for any part of a message")
        self.count = -(-len(data) // self._room)

    @property
    def size(self) -> int:
        """Bytes of the whole message, as it travels."""
        return len(self._data)

    @property
    def clock(self) -> Mapping[Replica, int] | None:
        """The entries its reader knows after the whole message; None if the message does not say."""
        return None if self._message.clock is None else self._message.clock.as_dict()

    def burst(self, start: int, max_bytes: int | None = None) -> list[GossipMessage]:
        """The parts from `start` on: all, or with `max_bytes` at least one and at most so many bytes of content."""
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
    """The message itself if small enough, else parts of at most `max_bytes` encoded bytes.

    `GossipNode.receive` puts the parts together. Raises `ConstraintCrdtError` if `max_bytes` leaves no room for content.
    """
    cut = _cut(message, encode_message(message), max_bytes)
    return [message] if cut is None else cut.burst(0)


def _cut(message: GossipMessage, data: bytes, max_bytes: int) -> CutMessage | None:
    """A message that encodes to `data`, split into parts; None if sent unchanged."""
    packed = pack(data)
    if packed is not None:
        return CutMessage(message, packed, max_bytes, len(data))
    return None if len(data) <= max_bytes else CutMessage(message, data, max_bytes)


class OutboundTransfers:
    """Messages being sent in parts, by peer. `len` is their number."""

    def __init__(self, limits: Limits) -> None:
        """`limits`: bounds the size of a burst and the memory of kept messages."""
        self._limits = limits
        self._kept: OrderedDict[str, tuple[Replica, CutMessage]] = OrderedDict()
        self.bytes = 0
        """Bytes of kept messages."""

    def __len__(self) -> int:
        return len(self._kept)

    def encoded(self, message: GossipMessage, reader: Replica | None, max_bytes: int) -> list[bytes]:
        """The message as bytes, or its first burst of parts; the rest is kept for `reader`.

        Without a known reader, or beyond the bound on kept messages, all parts are returned: a `Resume` could not be answered.
        """
        data = encode_message(message)
        cut = _cut(message, data, max_bytes)
        if cut is None:
            return [data]
        kept = reader is not None and cut.count > 1 and self._keep(reader, cut)
        return [encode_message(part) for part in cut.burst(0, self._limits.burst_bytes if kept else None)]

    def resume(self, reader: Replica, transfer: bytes, start: int) -> list[GossipMessage] | None:
        """The next burst of a transfer; None if the transfer is not kept."""
        kept = self._kept.get(reader.node_id)
        if kept is None or kept[0] != reader or kept[1].transfer != transfer or start >= kept[1].count:
            return None
        self._kept.move_to_end(reader.node_id)
        return kept[1].burst(start, self._limits.burst_bytes)

    def settle(self, node_id: str, known: Mapping[Replica, int]) -> None:
        """Drop the message kept for a peer with evidence of its clock. O(rows) while a message is kept."""
        kept = self._kept.get(node_id)
        clock = kept and kept[1].clock
        if clock and all(known.get(replica, 0) >= seq for replica, seq in clock.items()):
            self.drop(node_id)

    def drop(self, node_id: str) -> None:
        """Drop the message kept for a peer."""
        kept = self._kept.pop(node_id, None)
        if kept is not None:
            self.bytes -= kept[1].size

    def clear(self) -> None:
        """Drop all kept messages."""
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
