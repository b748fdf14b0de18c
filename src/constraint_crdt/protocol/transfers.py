"""Transfers of messages too large for a single packet: compressed, split into parts, and put together again.

Rules of the sender (`OutboundTransfers`):

- A message larger than a page is compressed if compression saves a tenth or more. A compressed message travels as a part,
  even as the only part. A smaller message is sent unchanged: the envelope of a part would cost more than compression saves.
- Parts go out in bursts of bounded size. The last part of a burst says that its sender pauses; the reader then asks for the rest
  with a `Resume`, also after a broken connection or a day later.
- Where the caller tells the time (`LinkEstimates.at`), a burst is the bytes that pass in about a second at the measured rate, and
  so is each part. A peer of unknown rate gets a kilobyte first. The message is split into slices of half a kilobyte, so that the
  size of parts can change in the middle of a transfer; a part has one slice or several (`Part.unit`), several only for a reader
  that knows them.
- A `Resume` names the slices that arrived beyond a gap (`Resume.held`); these are not sent again.
- A kept message is sent on, instead of another message, to a peer that asks again at the clock that it was made for.
- One encoded message per peer is kept, so that a resumed transfer goes on with the same bytes: the sender's state as of an instant.
  The message is dropped once the peer has given evidence of its clock, when a newer message replaces it, and when all kept messages
  exceed their bound (least recently asked for first).
- A kept message is for a single life of the peer. Another life has none of the parts that came before.

Rules of the receiver (`InboundTransfers`):

- Slices may arrive in any order and repeatedly. No slice is decoded before the last slice arrived.
- The rest is asked for when the pausing part of a burst comes, or where it overtook others, once the burst is whole. From the pause
  on nothing is under way, so late parts do not hold up a further question of the sender.
- One transfer per node is kept, the latest, and all of them within a bound on memory. Beyond the bound the
  transfers that have waited longest are dropped, so a sender that disappeared blocks no other.
- Within an exchange each question (`ask`) is for a later part than the question before, so the exchange ends whatever the answers
  are. A transfer is given up after `STALLED` questions without progress. A transfer that was complete before is not asked for: a
  late or duplicated slice would have the whole sent again.
- The stated size of a compressed message is checked against the bounds before decompression, no more than that is expanded, and
  any other result is refused. Growth beyond `MOST_GROWTH` counts as a decompression bomb, so no such message is sent.
- The cells, runs and clock entries of a message are counted before they are read. Allowed are `Limits.message_items`, and one more
  for each byte that travelled. So the cost of a message is in proportion to its bytes on the way. A sender that would exceed the
  bound sends the message uncompressed, where each item has three bytes or more.

Compression is DEFLATE (RFC 1951) in the zlib format (RFC 1950), whose checksum detects damage. Zstandard at its fastest level made
the definitions of 2,000 constraints 11 % smaller: not enough for a dependency.
"""

import math
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from constraint_crdt.crdt.cells import core
from constraint_crdt.crdt.clock import ClockMark, Replica
from constraint_crdt.crdt.limits import LARGE_BYTES, MESSAGE_BYTES, UNPACKED_BYTES, UNPACKED_GROWTH, Limits
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.messages import (
    HELD_BYTES,
    LEAST_ITEM_BYTES,
    MOST_GROWTH,
    TRANSFER_BYTES,
    GossipMessage,
    Part,
    Sync,
    check_growth,
    encode_message,
    items_of,
)
from constraint_crdt.protocol.peers import LinkEstimates

PACK_FROM = 4096
"""Bytes beyond which a message may be compressed."""

PAYS_BELOW = 0.9
"""Share of its size below which a compressed message is worth sending."""

PART_BYTES = 128
"""Memory for a kept slice beside its content."""

STALLED = 64
"""Questions for the same part after which its transfer is given up: at 50 % loss each way one question in four brings its part."""

UNIT = 512
"""Bytes of a slice of a message that is sent at a measured rate."""

MOST_UNITS = 8192
"""Slices of a message; those of a message beyond 4 MiB are longer."""

FAST = 64 * 1024
"""Bytes of a burst from which a message for a reader that is not known to read units is split as for a reader of 0.1.0."""

COMPLETED = 1024
"""Nodes whose last complete transfer is remembered, by its name."""


def pack(data: bytes, least: int = PACK_FROM) -> bytes | None:
    """An encoded message compressed, or None if compression does not pay. `least`: bytes beyond which to try."""
    if len(data) <= least:
        return None
    packed = core.deflate(data, math.ceil(len(data) * PAYS_BELOW) - 1)
    return packed if packed is not None and len(data) <= len(packed) * MOST_GROWTH else None


def packed_message(message: GossipMessage, data: bytes, limits: Limits, least: int = PACK_FROM) -> bytes | None:
    """An encoded message compressed; None if that does not pay, or if its reader would refuse so many items in so few bytes."""
    packed = pack(data, least)
    if packed is None or len(data) <= LEAST_ITEM_BYTES * limits.message_items:
        return packed
    return packed if items_of(message) <= limits.message_items + len(packed) else None


class EncodedMessage(NamedTuple):
    """A message as bytes."""

    data: bytes
    packed: bytes | None
    """Compressed, where that pays."""


def encoded_apart(message: GossipMessage, limits: Limits) -> EncodedMessage:
    """The bytes of a large message. Reads nothing but the message, so any thread may do this."""
    data = encode_message(message)
    return EncodedMessage(data, packed_message(message, data, limits))


def most_unpacked(packed: int, staged: int) -> int:
    """The bytes that a message of `packed` compressed bytes may become, on a node that stages `staged` bytes."""
    return max(min(staged, UNPACKED_BYTES), (packed - LARGE_BYTES) * UNPACKED_GROWTH)


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


def _slices(part: Part) -> Iterator[tuple[int, bytes]]:
    """The slices of a part, each with its index."""
    unit = part.unit or len(part.chunk) or 1
    for index, start in enumerate(range(0, max(1, len(part.chunk)), unit), part.index):
        yield index, part.chunk[start : start + unit]


class _Transfer:
    __slots__ = (
        "active_at",
        "answered",
        "asked",
        "basis",
        "chunks",
        "missing",
        "name",
        "paused",
        "paused_at",
        "sender",
        "size",
        "stored",
        "transfer",
        "tries",
        "units",
    )

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
        self.answered = True
        """A part came that begins as the last question asked for: the burst of an earlier question asks for nothing."""
        self.paused = False
        """A pausing part came since the last question."""
        self.paused_at = 0
        """The slice after that part, until the rest is asked for; else 0."""
        self.active_at: float | None = None
        """When a part came, or was asked for. None: nothing is under way."""
        self.tries = 0
        self.units = part.unit is not None
        """Its sender splits messages into units, so it reads `Resume.held`, too."""

    def put(self, part: Part, at: float | None) -> int:
        """Keep the slices of a part; returns the bytes of memory they take. `at`: now."""
        before, index = self.stored, part.index
        for index, chunk in _slices(part):
            if index not in self.chunks:
                self.chunks[index] = chunk
                self.size += len(chunk)
                self.stored += len(chunk) + PART_BYTES
        while self.missing in self.chunks:
            self.missing += 1
        self.answered = self.answered or part.index == self.asked
        if part.pause:
            self.paused_at = index + 1
        self.paused = self.paused or part.pause
        self.active_at = None if self.paused and self.answered else at
        return self.stored - before

    def take_pause(self, part: Part) -> bool:
        """True for the pausing part of a burst, and if it overtook others, once the burst is whole."""
        whole = 0 < self.paused_at <= self.missing
        self.paused_at = 0 if whole else self.paused_at
        return whole or part.pause

    def held(self) -> bytes:
        """The slices above the first missing one, as in `Resume.held`."""
        if len(self.chunks) == self.missing:
            return b"\0"
        bits = sum(1 << index - self.missing for index in self.chunks if 0 < index - self.missing < 8 * HELD_BYTES)
        return bits.to_bytes(max(1, -(-bits.bit_length() // 8)), "little")


class InboundTransfers:
    """Incomplete transfers by sender. `len` is their number, and `in` is of the node ids of senders."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: the bound on the memory of all of them."""
        self._max_bytes = max_bytes
        self._transfers: OrderedDict[str, _Transfer] = OrderedDict()
        self._completed: OrderedDict[str, tuple[Replica, bytes]] = OrderedDict()
        self.bytes = 0
        """Bytes held at present, `PART_BYTES` per slice included."""

    def __len__(self) -> int:
        return len(self._transfers)

    def __contains__(self, sender: object) -> bool:
        return sender in self._transfers

    def add(self, part: Part, basis: Sequence[ClockMark] = (), at: float | None = None) -> bytes | None:
        """Keep a part; returns the whole message after its last part, else None. `basis`: see the method of that name. `at`: now.

        Raises `ConstraintCrdtError` if the part contradicts the others, which are then dropped, or if the whole exceeds the bound.
        """
        sender, staged = part.node.node_id, part.count * PART_BYTES
        if part.unpacked is not None:
            most = most_unpacked(part.size, self._max_bytes)
            if part.unpacked + staged > most:
                raise ConstraintCrdtError(f"a transfer of {part.unpacked} bytes is larger than the {most} to be staged")
        if part.size + staged > self._max_bytes:
            raise ConstraintCrdtError(f"a transfer of {part.size} bytes is larger than the {self._max_bytes} to be staged")
        if part.count == 1 and part.size == len(part.chunk):  # complete: it replaces no other transfer
            return part.chunk
        transfer = self._current(part, basis)
        self.bytes += transfer.put(part, at)
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

    def completed_by(self, part: Part) -> bytes | None:
        """The whole message, if this part completes it: as `add` would return it. Changes nothing."""
        if part.count == 1:
            return part.chunk if part.size == len(part.chunk) else None
        transfer = self._transfers.get(part.node.node_id)
        slices = -(-len(part.chunk) // (part.unit or len(part.chunk) or 1))
        if transfer is None or transfer.name != _name(part) or len(transfer.chunks) + slices < part.count:
            return None
        chunks = dict(_slices(part)) | transfer.chunks
        return b"".join(chunks[index] for index in range(part.count)) if len(chunks) == part.count else None

    def basis(self, sender: str) -> Sequence[ClockMark]:
        """The clocks a node could name when its incomplete transfer began: they may be dropped before the transfer ends."""
        transfer = self._transfers.get(sender)
        return transfer.basis if transfer else ()

    def is_active(self, sender: Replica, seconds: float, at: float | None) -> bool:
        """True if a part of this life's transfer came or was asked for less than so many seconds ago, and more is to be expected.

        `at`: now; None: unknown.
        """
        transfer = self._transfers.get(sender.node_id)
        if transfer is None or transfer.sender != sender or transfer.active_at is None or at is None:
            return False
        return at - transfer.active_at < seconds

    def take_pause(self, part: Part) -> bool:
        """True if the sender of this part pauses, and the rest may be asked for: see `_Transfer.take_pause`."""
        transfer = self._transfers.get(part.node.node_id)
        return part.pause if transfer is None else transfer.take_pause(part)

    def break_off(self, sender: str) -> None:
        """No answer to the last question for the rest of a transfer is to be expected."""
        transfer = self._transfers.get(sender)
        if transfer is not None:
            transfer.active_at = None

    def sends_units(self, sender: Replica) -> bool:
        """True if the incomplete transfer of this life is of units."""
        transfer = self._transfers.get(sender.node_id)
        return transfer is not None and transfer.sender == sender and transfer.units

    def held(self, sender: str) -> bytes:
        """The slices of the incomplete transfer of a node that arrived beyond its first missing slice, as in `Resume.held`."""
        return self._transfers[sender].held()

    def ask(self, sender: Replica, *, anew: bool, at: float | None = None) -> tuple[bytes, int] | None:
        """The name of the incomplete transfer of a life of a node and its first missing part; None if there is nothing to ask for.

        `anew`: in a new exchange, where the same part may be asked for again. `at`: now, for `is_active`.
        """
        transfer = self._transfers.get(sender.node_id)
        if transfer is None:
            return None
        if self._completed.get(sender.node_id) == (transfer.sender, transfer.transfer):
            self.drop(sender.node_id)
            return None
        advanced = transfer.missing > transfer.asked
        if not anew and not (advanced and transfer.answered):
            return None
        transfer.tries = 0 if advanced else transfer.tries + 1
        if transfer.sender != sender or transfer.tries >= STALLED:
            self.drop(sender.node_id)
            return None
        transfer.asked, transfer.active_at, transfer.answered = transfer.missing, at, at is None
        transfer.paused, transfer.paused_at = False, 0
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
        sender, name = part.node.node_id, _name(part)
        transfer = self._transfers.get(sender)
        if transfer is None or transfer.name != name:
            self.drop(sender)
            transfer = self._transfers[sender] = _Transfer(part, name, basis)
        self._transfers.move_to_end(sender)
        return transfer


def _name(part: Part) -> tuple[object, ...]:
    """The transfer of a part."""
    return part.node, part.to, part.transfer, part.count, part.size, part.unpacked


class CutMessage:
    """An encoded message, split into parts. The same message split in the same way is the same transfer."""

    __slots__ = ("_data", "_message", "_most", "_room", "_unit", "_unpacked", "count", "transfer")

    def __init__(
        self, message: GossipMessage, data: bytes, max_bytes: int, unpacked: int | None = None, unit: int | None = None
    ) -> None:
        """`max_bytes`: of each encoded part; `unpacked`: the size of `data` after decompression, if compressed. `unit`: bytes of a
        slice, of which a part has one or several; None: a part is one slice, as long as possible.

        Raises `ConstraintCrdtError` if `max_bytes` leaves no room for content.
        """
        self._message, self._data, self._unpacked, self._unit = message, data, unpacked, unit
        cut = (max_bytes + 2**32 * (unit or 0)).to_bytes(8, "big")  # the same message split in another way is another transfer
        self.transfer = blake2b(data, digest_size=TRANSFER_BYTES, key=cut, person=b"transfer").digest()
        longest = self._part(len(data), len(data), b"", pause=True)
        room = max_bytes - len(encode_message(longest)) - 4  # 4: the chunk's own length
        if room < 1:
            raise ConstraintCrdtError(f"{max_bytes} bytes leave no room for any part of a message")
        if unit is not None:
            self._unit = unit = min(unit, room)
        self._room = unit or room
        self._most = max(1, room // self._room)
        """Slices that a part has room for."""
        self.count = -(-len(data) // self._room)

    @property
    def size(self) -> int:
        """Bytes of the whole message, as it travels."""
        return len(self._data)

    @property
    def message(self) -> GossipMessage:
        """The message itself."""
        return self._message

    @property
    def slice_bytes(self) -> int:
        """Bytes of each slice but the last."""
        return self._room

    def burst(self, start: int, max_bytes: int | None = None, part_bytes: int = 0, held: int = 0) -> list[Part]:
        """The parts from `start` on: all, or with `max_bytes` at least one and at most so many bytes of content.

        `part_bytes`: content of a part, if it may have several slices. `held`: slices from `start` on that are left out, as bits.
        """
        left = self.count if max_bytes is None else max(1, max_bytes // self._room)
        most = min(self._most, max(1, part_bytes // self._room))
        spans: list[tuple[int, int]] = []
        index = start
        while index < self.count and left > 0:
            if held >> index - start & 1:
                index += 1
                continue
            end = index + 1
            while end < self.count and end - index < min(most, left) and not held >> end - start & 1:
                end += 1
            spans.append((index, end))
            left -= end - index
            index = end
        rest = any(not held >> each - start & 1 for each in range(index, self.count)) if spans and held else index < self.count
        return [
            self._part(at, self.count, self._data[at * self._room : end * self._room], pause=rest and end == spans[-1][1])
            for at, end in spans
        ]

    def _part(self, index: int, count: int, chunk: bytes, *, pause: bool) -> Part:
        whole = self._message
        return Part(
            node=whole.node, fleet=whole.fleet, to=whole.to, transfer=self.transfer,
            index=index, count=count, size=len(self._data), chunk=chunk, pause=pause, unpacked=self._unpacked, unit=self._unit,
        )  # fmt: skip


def split_message(message: GossipMessage, max_bytes: int = MESSAGE_BYTES) -> Sequence[GossipMessage]:
    """The message itself if small enough, else parts of at most `max_bytes` encoded bytes.

    `GossipNode.receive` puts the parts together. Raises `ConstraintCrdtError` if `max_bytes` leaves no room for content.
    """
    data = encode_message(message)
    packed = pack(data)
    if packed is None and len(data) <= max_bytes:
        return [message]
    return CutMessage(message, packed or data, max_bytes, None if packed is None else len(data)).burst(0)


@dataclass(slots=True)
class _Kept:
    """A message that is sent in parts."""

    reader: Replica
    cut: CutMessage
    arrived: int = 0
    """Slices at the reader, as it said."""
    start: int = 0
    held: int = 0
    """The first slice that it lacks, and those above that it has, as bits."""
    sent: int = 0
    """Slices of the last burst."""
    end: int = 0
    """The slice after the last one ever sent."""
    sent_at: float | None = None
    repeated: bool = False
    """Slices of the last burst were sent before, so the next question may answer either (Karn's rule)."""

    def is_for(self, theirs: ClockMark, serves: Callable[[ClockMark], bool]) -> bool:
        """True if the message has everything above this clock. A Sync is for any clock that no Delta serves."""
        message = self.cut.message
        return not serves(theirs) if isinstance(message, Sync) else message.basis == theirs


class OutboundTransfers:
    """Messages being sent in parts, by peer. `len` is their number, and `in` is of the node ids of peers."""

    def __init__(self, limits: Limits, links: LinkEstimates) -> None:
        """`limits`: bounds the size of a burst and the memory of kept messages. `links`: the rates of peers, and the time."""
        self._limits = limits
        self._links = links
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.bytes = 0
        """Bytes of kept messages."""
        self.made: tuple[GossipMessage, EncodedMessage] | None = None
        """The bytes of the message to be encoded next, made already."""

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._kept

    def encoded(self, message: GossipMessage, reader: Replica | None, max_bytes: int) -> list[bytes]:
        """The message as bytes, or its first burst of parts; the rest is kept for `reader`.

        Without a known reader, or beyond the bound on kept messages, all parts are returned: a `Resume` could not be answered.
        """
        made, self.made = self.made if self.made is not None and self.made[0] is message else None, None
        data = encode_message(message) if made is None else made[1].data
        if (self._links.at is None and len(data) <= min(max_bytes, PACK_FROM)) or isinstance(message, Part):
            return [data]
        most, least, link = max_bytes, PACK_FROM, None
        if self._links.at is not None and reader is not None:
            link = self._links.of(reader.node_id)
            most = min(max_bytes, link.burst)
            least = min(PACK_FROM, most)
        packed = packed_message(message, data, self._limits, least) if made is None else made[1].packed
        size = len(packed or data)
        if packed is None and size <= most:
            return [data]
        unit = None
        if link is not None and size > most and (link.reads_units == reader or link.burst < FAST):
            unit = max(UNIT, -(-size // MOST_UNITS))
        cut = CutMessage(message, packed or data, max_bytes, None if packed is None else len(data), unit)
        kept = self._keep(reader, cut) if reader is not None and cut.count > 1 else None
        return [encode_message(part) for part in (cut.burst(0) if kept is None else self._burst(kept))]

    def resume(self, reader: Replica, transfer: bytes, start: int, held: bytes | None = None) -> list[Part] | None:
        """The next burst of a transfer; None if the transfer is not kept. `held`: see `Resume`."""
        kept = self._kept.get(reader.node_id)
        if kept is None or kept.reader != reader or kept.cut.transfer != transfer or start >= kept.cut.count:
            return None
        self._kept.move_to_end(reader.node_id)
        kept.start, kept.held = start, int.from_bytes(held or b"", "little")
        link, at = self._links.of(reader.node_id), self._links.at
        if held is not None:
            link.reads_units = reader
        arrived = start + kept.held.bit_count()
        new = arrived - kept.arrived
        if at is not None and kept.sent_at is not None and not kept.repeated and 0 < new <= kept.sent:
            link.delivered(at - kept.sent_at, new * kept.cut.slice_bytes)
        kept.arrived = max(arrived, kept.arrived)
        return self._burst(kept, again=new <= 0)

    def again(self, reader: Replica, theirs: ClockMark, serves: Callable[[ClockMark], bool]) -> list[Part] | None:
        """The burst to go on with for a peer that asks for everything above its clock again; None if no message for this clock is
        kept, or there is no time.
        """
        kept = self._kept_for(reader)
        return self._burst(kept, again=True) if kept is not None and kept.is_for(theirs, serves) else None

    def keeps(self, reader: Replica) -> bool:
        """True if a message for this life of a peer is kept. False without a time."""
        return self._kept_for(reader) is not None

    def is_sending(self, reader: Replica) -> bool:
        """True if parts of a message were sent to this life of a peer, and its question for the rest is to be expected. False
        without a time.
        """
        kept, at = self._kept_for(reader), self._links.at
        if kept is None or at is None or kept.sent_at is None:
            return False
        return at - kept.sent_at < self._links.of(reader.node_id).step(kept.sent * kept.cut.slice_bytes)

    def is_under_way(self, reader: Replica, theirs: ClockMark, serves: Callable[[ClockMark], bool]) -> bool:
        """True if parts of the message for this clock of a peer were sent to it, and may not have arrived yet."""
        return self.is_sending(reader) and self._kept[reader.node_id].is_for(theirs, serves)

    def _kept_for(self, reader: Replica) -> _Kept | None:
        """The message kept for this life of a peer; None without a time."""
        kept = self._kept.get(reader.node_id)
        return kept if self._links.at is not None and kept is not None and kept.reader == reader else None

    def _burst(self, kept: _Kept, *, again: bool = False) -> list[Part]:
        """The next parts for the reader of a message. `again`: nothing arrived of the burst before, as far as is known."""
        most, part = self._limits.burst_bytes, 0
        if self._links.at is not None:
            link = self._links.of(kept.reader.node_id)
            if again and kept.sent_at is not None:
                link.lost()
            most, part = min(most, link.burst), link.part if link.reads_units == kept.reader else 0
            if not link.is_measured and not again:  # a slice and the question for the next give the round trip
                most = min(most, UNIT)
        burst = kept.cut.burst(kept.start, most, part, kept.held)
        kept.repeated = kept.start < kept.end
        kept.sent, unit = 0, kept.cut.slice_bytes
        for each in burst:
            slices = -(-len(each.chunk) // unit)
            kept.sent, kept.end = kept.sent + slices, max(kept.end, each.index + slices)
        kept.sent_at = self._links.at
        return burst

    def settle(self, node_id: str, known: Mapping[Replica, int]) -> None:
        """Drop the message kept for a peer with evidence of its clock. O(rows) while a message is kept."""
        kept = self._kept.get(node_id)
        clock = kept and kept.cut.message.clock
        if clock and all(known.get(replica, 0) >= seq for replica, seq in clock.as_dict().items()):
            self.drop(node_id)

    def drop(self, node_id: str) -> None:
        """Drop the message kept for a peer."""
        kept = self._kept.pop(node_id, None)
        if kept is not None:
            self.bytes -= kept.cut.size

    def clear(self) -> None:
        """Drop all kept messages."""
        self._kept.clear()
        self.bytes = 0

    def _keep(self, reader: Replica, cut: CutMessage) -> _Kept | None:
        if cut.size > self._limits.kept_bytes:
            return None
        before = self._kept.get(reader.node_id)
        self.drop(reader.node_id)
        same = before is not None and before.reader == reader and before.cut.transfer == cut.transfer and self._links.at is not None
        kept = self._kept[reader.node_id] = before if before is not None and same else _Kept(reader, cut)
        self.bytes += cut.size
        while self.bytes > self._limits.kept_bytes:
            self.drop(next(iter(self._kept)))
        return kept
