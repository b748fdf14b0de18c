"""Parts of transfers that are not complete yet.

A transfer is put together from the slices of one encoded message, in any order, also repeated; nothing of it is looked at before
the last slice is there. One transfer per sender is kept, the newest, and all of them within one bound on memory.
"""

from constraint_crdt.core.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.messages import Part


class _Transfer:
    __slots__ = ("chunks", "name", "shape", "stored")

    def __init__(self, part: Part) -> None:
        self.name = part.transfer
        self.shape = (part.count, part.size)
        self.chunks: dict[int, bytes] = {}
        self.stored = 0


class Staging:
    """Incomplete transfers by sender."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._transfers: dict[Replica, _Transfer] = {}
        self.bytes = 0
        """Bytes held at present."""

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, part: Part) -> bytes | None:
        """Keep one part. The whole message once it is complete, else None.

        Raises `ConstraintCrdtError` if it does not fit the others, or the bound; the sender's transfer is dropped then.
        """
        transfer = self._transfers.get(part.node)
        if transfer is None or transfer.name != part.transfer:
            self.drop(part.node)
            if part.size > self._max_bytes:
                raise ConstraintCrdtError(f"a transfer of {part.size} bytes is larger than the {self._max_bytes} to be staged")
            transfer = self._transfers[part.node] = _Transfer(part)
        if part.index in transfer.chunks:
            return None
        transfer.chunks[part.index] = part.chunk
        transfer.stored += len(part.chunk)
        self.bytes += len(part.chunk)
        if transfer.shape != (part.count, part.size) or transfer.stored > part.size:
            self.drop(part.node)
            raise ConstraintCrdtError("the parts of a transfer contradict each other")
        if self.bytes > self._max_bytes:
            self.drop(part.node)
            raise ConstraintCrdtError(f"the parts staged here would exceed {self._max_bytes} bytes")
        return self._complete(part)

    def drop(self, sender: Replica) -> None:
        """Forget the incomplete transfer of one sender."""
        transfer = self._transfers.pop(sender, None)
        if transfer is not None:
            self.bytes -= transfer.stored

    def _complete(self, part: Part) -> bytes | None:
        transfer = self._transfers[part.node]
        if len(transfer.chunks) < part.count:
            return None
        self.drop(part.node)
        whole = b"".join(transfer.chunks[index] for index in range(part.count))
        if len(whole) != part.size:
            raise ConstraintCrdtError("the parts of a transfer do not add up to its size")
        return whole
