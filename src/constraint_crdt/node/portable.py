"""A node's whole state as text, out and in.

Rules: the text is made and read in a thread, from cells that never change; what is taken in is applied on the loop, at one instant.
Taking in is a merge, as of what a peer sends: what is newer here stays, and it is on disk before anybody is told that it is in.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from constraint_crdt.core.rows import Rows
from constraint_crdt.core.run import Run
from constraint_crdt.gossip.messages import GossipResult
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.keeping import Keeping
from constraint_crdt.portable import from_json, to_json
from constraint_crdt.state import ConstraintState


class ImportReport(msgspec.Struct, frozen=True):
    """What taking a state in has changed."""

    changed: bool
    cells: int
    """Cells that were new here."""
    constraints: int
    """Constraints that were added, removed, or say something else now."""


class Portable:
    """The state of one node as text."""

    def __init__(
        self,
        gossip: GossipNode,
        keeping: Keeping,
        settle: Callable[[], int],
        received: Callable[[str, GossipResult], None],
        push: Callable[[], None],
    ) -> None:
        """`settle()` follows the definitions that moved, and returns how many; `received(from, result)` follows what was taken in;
        `push()` has peers hear of it.
        """
        self._gossip = gossip
        self._keeping = keeping
        self._settle = settle
        self._received = received
        self._push = push

    async def export(self) -> str:
        """The state of this instant. O(cells), most of it aside."""
        rows = self._gossip.state.rows
        return await asyncio.to_thread(_text, Rows(rows.digest, rows.limits), rows.whole())

    async def take_in(self, text: str | bytes, max_bytes: int) -> ImportReport:
        """Merge a state. Raises `StateFileError` for what is none, `ConstraintCrdtError` beyond a limit, and `WritesRefused`."""
        self._keeping.check()
        rows = self._gossip.state.rows
        incoming = await asyncio.to_thread(from_json, text, limits=rows.limits, max_bytes=max_bytes, digest=rows.digest)
        self._keeping.check()
        cells = sum(len(run.cells) for run in incoming.rows.since(rows.clock_mark.entries))
        result = self._gossip.merge(incoming)
        constraints = self._settle()
        self._received("a state file", result)
        if result.state_changed:
            self._push()
        await self._keeping.durable()
        return ImportReport(result.state_changed, cells if result.state_changed else 0, constraints)


def _text(rows: Rows, runs: Sequence[Run]) -> str:
    rows.apply(runs, whole=True)
    return to_json(ConstraintState(rows))
