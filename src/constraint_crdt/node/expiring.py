"""What a node does as time passes: it tells that constraints have ended, and removes what has long expired.

Nothing here decides that a constraint has ended: that is a reading, which every node makes by itself (`types.orset`). Who removes
the cells, and when, is for `gossip.expiring` to say.
"""

import asyncio
from collections.abc import Callable, Set

from constraint_crdt.core.hybrid import DEFAULT_HEARD_FOR, SECOND
from constraint_crdt.gossip.protocol import GossipNode

AT_ONCE = 1_000
"""Adds that are removed before others get their turn on the loop."""

HEARINGS = 10
"""So many times the mean time between two Pings of one peer, its clock counts: else it would be lost by chance now and then."""

LONGEST_HEARD_FOR = 60 * SECOND
"""But no longer than this: a node that is cut off is to go by its own clock soon."""


class Expiring:
    """Follows the expiries of one node."""

    def __init__(
        self, gossip: GossipNode, *, turned: Callable[[Set[str]], None], remove: Callable[[int], int], every: float
    ) -> None:
        """`turned(ids)` tells of the constraints that time has made something else of. `remove(n)` removes at most n adds, and says
        whether there may be more. `every`: seconds between two rounds of gossip.
        """
        self._gossip = gossip
        self._turned = turned
        self._remove = remove
        self._every = every

    async def tell(self) -> None:
        """Tell of what time has made of the constraints. O(those that expired)."""
        ids = self._gossip.state.constraints.take_turned()
        if ids:
            self._turned(ids)

    async def remove(self) -> None:
        """Remove the adds that it is for this node to remove now. O(those, and peers)."""
        time = self._gossip.time
        wanted = round(HEARINGS * self._every * len(time.offsets) * SECOND)
        time.heard_for = min(max(DEFAULT_HEARD_FOR, wanted), LONGEST_HEARD_FOR)
        while self._remove(AT_ONCE):  # noqa: ASYNC110 - the pause gives others a turn; nothing is waited for
            await asyncio.sleep(0)
