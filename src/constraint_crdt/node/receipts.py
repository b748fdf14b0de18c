"""Receipts: what each exchange that a node began cost, against the difference that it was for.

Rules kept here:

- The difference is the cells themselves: those that were new here, and those that the peer lacked, by its own evidence. What is
  said beside them (clocks, hashes, names, the parts of a message) and what is said again is cost.
- An exchange of two that agree has no difference, so no ratio; its bytes are in the totals of the transport.
- A large state that goes on in a later exchange is told in the first of them, and learned in the last.
- The last receipts are kept, so many and no more.
"""

from collections import deque
from collections.abc import Sequence
from statistics import median

import msgspec

from constraint_crdt.gossip.messages import Delta, GossipMessage, Sync

RECEIPTS = 100
"""How many are kept."""


class Receipt(msgspec.Struct, kw_only=True):
    """What one exchange cost. All in bytes."""

    peer: str
    """The node that it was with."""
    sent: int = 0
    received: int = 0
    """Messages, with those that were repeated."""
    told: int = 0
    """Of cells that the peer lacked."""
    learned: int = 0
    """Of cells that were new here."""
    completed: bool = False
    """It came to an end. Else the peer did not answer, and how much arrived there is not known."""

    @property
    def carried(self) -> int:
        """Bytes of all messages."""
        return self.sent + self.received

    @property
    def difference(self) -> int:
        """Bytes of the difference itself."""
        return self.told + self.learned

    @property
    def ratio(self) -> float | None:
        """Bytes carried per byte of the difference; None where there was none."""
        return self.carried / self.difference if self.difference else None

    def tell(self, message: GossipMessage) -> None:
        """Note what a message to the peer holds. O(its cells)."""
        if isinstance(message, Delta):
            runs = message.delta.runs
        elif isinstance(message, Sync):
            runs = message.state.runs
        else:
            return
        self.told += sum(len(cell.data) for run in runs for cell in run.cells)


class Receipts:
    """The receipts of one node."""

    def __init__(self) -> None:
        self._last: deque[Receipt] = deque(maxlen=RECEIPTS)
        self.carried = 0
        """Bytes of all messages of the exchanges that had a difference, since the start."""
        self.difference = 0
        """Bytes of these differences."""

    @property
    def last(self) -> Sequence[Receipt]:
        """Those of the last exchanges, the latest at the end."""
        return tuple(self._last)

    @property
    def ratio(self) -> float | None:
        """The median ratio of the last exchanges that had a difference; None if none had. O(receipts kept)."""
        ratios = [receipt.ratio for receipt in self._last if receipt.ratio is not None]
        return median(ratios) if ratios else None

    def keep(self, receipt: Receipt) -> None:
        """An exchange is over."""
        self._last.append(receipt)
        if receipt.difference:
            self.carried += receipt.carried
            self.difference += receipt.difference
