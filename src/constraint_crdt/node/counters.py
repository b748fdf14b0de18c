"""The counters of a node's fleet that go up and down: moving one, and what they stand at."""

import msgspec

from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.telling import Told
from constraint_crdt.types.pncounter import PNCounter


class CounterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one counter stands at."""

    name: str
    value: int
    increments: int
    decrements: int
    by_node: dict[str, int]
    """What each node moved it by."""


class NodeCounters:
    """The counters, as one node sees and moves them."""

    def __init__(self, gossip: GossipNode, told: Told) -> None:
        self._gossip = gossip
        self._told = told

    def reports(self) -> list[CounterReport]:
        """All counters that were ever moved, ordered by name. O(cells of counters)."""
        counters = self._gossip.state.counters
        return [_report(counters[name]) for name in counters]

    def report(self, name: str) -> CounterReport:
        """One counter. Raises `KeyError` for one that nobody ever moved, as far as is known here."""
        if name not in self._gossip.state.counters:
            raise KeyError(name)
        return _report(self._gossip.state.counters[name])

    async def move(self, name: str, by: int) -> CounterReport:
        """Move a counter up, or down by a negative number. The first move begins it.

        Raises `ValueError` for 0 and `ConstraintCrdtError` for what is out of bounds.
        """
        if not by:
            raise ValueError("a counter moves by a whole number other than 0")
        counter = self._gossip.state.counters[name]
        move = counter.increment if by > 0 else counter.decrement
        await self._told(lambda: self._gossip.write(lambda me: move(abs(by), node=me)))
        return _report(counter)


def _report(counter: PNCounter) -> CounterReport:
    return CounterReport(
        name=counter.name,
        value=counter.value,
        increments=counter.increments,
        decrements=counter.decrements,
        by_node={node: moves.value for node, moves in counter.by_node().items()},
    )
