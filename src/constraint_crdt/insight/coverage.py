"""Coverage: the nodes with a change and the nodes without, from the evidence of clocks alone.

The *change* of a constraint is the mutations adding its definitions (in force or expired); for a removed constraint, its removals
while the log has them. States travel as a whole, so a node with these mutations has all mutations before them.

Waiting exchanges with the nodes lacking the change, one after the other, and returns when enough nodes have acknowledged the
change. Waiting never asks a user to write again.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from constraint_crdt.crdt.replica import Dot
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.evidence import Evidence
from constraint_crdt.operations.evidence import LONGEST_WAIT, CoverageReport, NodeCoverage, TooManyWaitingError, Wanted
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.transport import Peer
from constraint_crdt.types.definition import ADD

WAITING = 64
"""Requests waiting for acknowledgements at once, at most."""

ASK_AGAIN = 0.25
"""Seconds until a node without the change is asked again."""


def dot_text(dot: Dot) -> str:
    """A mutation as text, for people."""
    return f"{dot.replica}:{dot.seq}"


class Exchanges(Protocol):
    """Exchanges messages with the peers of a node."""

    def willing(self, names: Collection[str]) -> Sequence[Peer]:
        """The peers of these names ready to be asked."""

    async def exchange(self, peer: Peer) -> bool:
        """Exchange with a peer. Returns False if the peer failed."""


class Coverage:
    """The coverage of changes, by the evidence of a node."""

    def __init__(self, gossip: GossipNode, evidence: Evidence, exchanges: Exchanges, frontier: DefinitionFrontier) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._exchanges = exchanges
        self._frontier = frontier
        self._waiting = 0

    def report(self, id_: str | None = None) -> CoverageReport:
        """The coverage of the change of a constraint, or of all changes of definitions. O(nodes x rows).

        Raises `KeyError` for a constraint without a known change.
        """
        return self._of(id_, *self.change(id_))

    def change(self, id_: str | None) -> tuple[str, tuple[Dot, ...]]:
        """The kind of the change, and its mutations. Raises `KeyError` without a known change."""
        if id_ is None:
            return "definitions", self._frontier.dots
        adds = tuple(sorted(Dot(cell.replica, cell.seq) for cell in self._gossip.state.rows.held(ADD, id_)))
        if adds:
            return "added" if id_ in self._gossip.state.constraints else "expired", adds
        removals = tuple(sorted(change.dot for change in self._evidence.changes.removals(id_)))
        if removals:
            return "removed", removals
        raise KeyError(id_)

    def missing(self, id_: str) -> list[str]:
        """The live nodes lacking the change of an active constraint. O(nodes)."""
        _, dots = self.change(id_)
        return [name for name in self._evidence.names if self._evidence.is_live(name) and self._evidence.holds(name, dots) is False]

    async def wait(self, id_: str | None, wanted: Wanted, timeout: float) -> CoverageReport:  # noqa: ASYNC109 - it comes back with a report when the time is over, and does not raise
        """Exchange with other nodes until `wanted` nodes have the change, this node included, or `timeout` seconds are over.

        `all`: every node of the fleet without the retired nodes; `live`: every live node; `majority`: more than half of all. The
        change is taken at the begin. Raises `KeyError` without a change, and `TooManyWaitingError` for too many waiting requests.
        """
        if self._waiting >= WAITING:
            raise TooManyWaitingError(f"{WAITING} requests wait for acknowledgements already: ask again later")
        kind, dots = self.change(id_)
        self._waiting += 1
        try:
            async with asyncio.timeout(min(timeout, LONGEST_WAIT)):
                await self._bring(dots, wanted)
        except TimeoutError:
            pass  # the report says how far it came
        finally:
            self._waiting -= 1
        return self._of(id_, kind, dots, wanted)

    async def _bring(self, dots: tuple[Dot, ...], wanted: Wanted) -> None:
        clock, asked = asyncio.get_running_loop().time, dict[str, float]()
        with self._evidence.change_event() as changed:
            while not self._is_met(dots, wanted):
                changed.clear()
                now = clock()
                lacking = {name for name in self._lacking(dots) if asked.get(name, 0.0) <= now}
                peer = next(iter(self._exchanges.willing(lacking)), None)
                if peer is not None:
                    asked[peer.name] = now + ASK_AGAIN
                    await self._exchanges.exchange(peer)
                    continue
                try:
                    async with asyncio.timeout(ASK_AGAIN):
                        await changed.wait()
                except TimeoutError:
                    continue  # somebody may be willing to be asked again by now

    def _lacking(self, dots: tuple[Dot, ...]) -> list[str]:
        return [name for name in self._evidence.names if not self._evidence.holds(name, dots)]

    def _target(self, wanted: Wanted) -> int:
        names = self._evidence.names
        if wanted == "live":
            return sum(map(self._evidence.is_live, names))
        if wanted == "majority":
            return len(names) // 2 + 1
        return len(names) if wanted == "all" else wanted

    def _is_met(self, dots: tuple[Dot, ...], wanted: Wanted) -> bool:
        lacking = self._lacking(dots)
        if wanted == "live":
            return not any(map(self._evidence.is_live, lacking))
        return len(self._evidence.names) - len(lacking) >= self._target(wanted)

    def _of(self, id_: str | None, kind: str, dots: tuple[Dot, ...], wanted: Wanted | None = None) -> CoverageReport:
        nodes = tuple(self._node(name, dots) for name in self._evidence.names)
        return CoverageReport(
            id=id_,
            change=kind,
            dots=tuple(map(dot_text, dots)),
            nodes=nodes,
            have=sum(each.holds is True for each in nodes),
            lack=sum(each.holds is False for each in nodes),
            unknown=sum(each.holds is None for each in nodes),
            wanted=None if wanted is None else self._target(wanted),
            met=None if wanted is None else self._is_met(dots, wanted),
        )

    def _node(self, name: str, dots: tuple[Dot, ...]) -> NodeCoverage:
        evidence = self._evidence
        holds = evidence.holds(name, dots)
        return NodeCoverage(
            node=name, holds=holds, live=evidence.is_live(name), since=self._since(name, holds, dots), behind=evidence.behind(name)
        )

    def _since(self, name: str, holds: bool | None, dots: tuple[Dot, ...]) -> int | None:
        """The time at which the last mutation was shown; if mutations are lacking, the time at which the first became known
        here.
        """
        if holds is None:
            return None
        changes = [self._evidence.changes.change(dot) for dot in dots]
        if holds and name != self._gossip.node_id:
            times = [None if change is None else change.heard.get(name) for change in changes]
        elif holds:
            times = [None if change is None else change.known_at for change in changes]
        else:
            lacking = [each for each, dot in zip(changes, dots, strict=True) if not self._evidence.holds(name, (dot,))]
            known = [change.known_at for change in lacking if change is not None and change.known_at is not None]
            return min(known, default=None) if len(known) == len(lacking) else None
        said = [time for time in times if time is not None]
        return max(said, default=None) if len(said) == len(times) else None
