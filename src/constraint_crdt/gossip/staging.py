"""Parts of transfers that are not complete yet.

A transfer is put together from the slices of one encoded message, in any order, also repeated; nothing of it is looked at before
the last slice is there. One transfer per node is kept, the one heard from last, and all of them within one bound on memory: where
it is reached, the transfers that have been waiting longest give way, so that a sender that went away holds up nobody.

The reader asks for what is missing (`ask`). Within an exchange each question is for a later part than the one before, so it ends,
whatever the answers are. A transfer of which nothing comes for `STALLED` questions is given up. Nothing is asked of one that was
complete before: a slice of it that is late or comes twice would have it sent, and leave a late slice behind, for ever.
"""

from collections import OrderedDict
from collections.abc import Sequence

from constraint_crdt.core.clock import ClockMark
from constraint_crdt.core.replica import Replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.messages import Part

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
