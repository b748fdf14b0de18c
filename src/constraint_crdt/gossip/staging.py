"""Parts of transfers that are not complete yet.

A transfer is put together from the slices of one encoded message, in any order, also repeated; nothing of it is looked at before
the last slice is there. One transfer per node is kept, the one heard from last, and all of them within one bound on memory: where
it is reached, the transfers that have been waiting longest give way, so that a sender that went away holds up nobody.
"""

from collections import OrderedDict

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.messages import Part

PART_BYTES = 128
"""What keeping one slice costs beside its content."""


class _Transfer:
    __slots__ = ("chunks", "name", "size", "stored")

    def __init__(self, name: tuple[object, ...]) -> None:
        self.name = name
        self.chunks: dict[int, bytes] = {}
        self.size = 0
        """Bytes of content so far."""
        self.stored = 0
        """The same with what keeping it costs."""


class Staging:
    """Incomplete transfers by sender."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._transfers: OrderedDict[str, _Transfer] = OrderedDict()
        self.bytes = 0
        """Bytes held at present, `PART_BYTES` per slice included."""

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, part: Part) -> bytes | None:
        """Keep one part. The whole message once it is complete, else None.

        Raises `ConstraintCrdtError` if it contradicts the others, which are dropped then, or if the whole would not fit here.
        """
        sender, cost = part.node.node_id, len(part.chunk) + PART_BYTES
        if part.size + part.count * PART_BYTES > self._max_bytes:
            raise ConstraintCrdtError(f"a transfer of {part.size} bytes is larger than the {self._max_bytes} to be staged")
        transfer = self._current(part)
        if part.index in transfer.chunks:
            return None
        transfer.chunks[part.index] = part.chunk
        transfer.size += len(part.chunk)
        transfer.stored += cost
        self.bytes += cost
        complete = len(transfer.chunks) == part.count
        if transfer.size > part.size or (complete and transfer.size != part.size):
            self.drop(sender)
            raise ConstraintCrdtError("the parts of a transfer do not add up to its size")
        while self.bytes > self._max_bytes:
            self.drop(next(iter(self._transfers)))
        if not complete:
            return None
        self.drop(sender)
        return b"".join(transfer.chunks[index] for index in range(part.count))

    def drop(self, sender: str) -> None:
        """Forget the incomplete transfer of one node."""
        transfer = self._transfers.pop(sender, None)
        if transfer is not None:
            self.bytes -= transfer.stored

    def _current(self, part: Part) -> _Transfer:
        """The transfer that a part belongs to, which takes the place of another one of the same node; now the last heard from."""
        sender, name = part.node.node_id, (part.node, part.to, part.transfer, part.count, part.size)
        transfer = self._transfers.get(sender)
        if transfer is None or transfer.name != name:
            self.drop(sender)
            transfer = self._transfers[sender] = _Transfer(name)
        self._transfers.move_to_end(sender)
        return transfer
