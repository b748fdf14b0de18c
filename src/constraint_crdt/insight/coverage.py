"""Coverage: which nodes have heard of a change and which have not, from what their clocks say and from nothing else.

A *change* is what stands for a constraint: the mutations that added the definitions in force (or expired); of a constraint that was
removed, the removals, as long as they are remembered. States travel whole, so whoever has these mutations has all that led to them.

Waiting brings the change to the nodes that lack it, one after the other, and comes back when enough of them have said that they
have it. It never asks anybody to write again.
"""

import asyncio
from typing import Literal

from constraint_crdt.crdt.replica import Dot
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.evidence import Evidence
from constraint_crdt.insight.reports import CoverageReport, NodeCoverage
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.exchange_loop import Exchanger
from constraint_crdt.types.definition import ADD

WAITING = 64
"""Requests that may wait for acknowledgements at once."""

LONGEST_WAIT = 300.0
"""Seconds that one request may wait."""

ASK_AGAIN = 0.25
"""Seconds until a node that was asked, and still lacks the change, is asked again."""

Wanted = Literal["all", "live", "majority"] | int


class TooManyWaitingError(ConstraintCrdtError):
    """As many requests as may wait at once do."""


def dot_text(dot: Dot) -> str:
    """A mutation as people read it."""
    return f"{dot.replica}:{dot.seq}"


class Coverage:
    """Who has what, as one node knows it."""

    def __init__(self, gossip: GossipNode, evidence: Evidence, exchanger: Exchanger, frontier: DefinitionFrontier) -> None:
        self._gossip = gossip
        self._evidence = evidence
        self._exchanger = exchanger
        self._frontier = frontier
        self._waiting = 0

    def report(self, id_: str | None = None) -> CoverageReport:
        """Who has heard of the change that stands for a constraint, or of all changes of definitions. O(nodes x rows).

        Raises `KeyError` for a constraint of which no change is known.
        """
        return self._of(id_, *self.change(id_))

    def change(self, id_: str | None) -> tuple[str, tuple[Dot, ...]]:
        """What the change is, and its mutations. Raises `KeyError` if none is known."""
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
        """The live nodes that are known to lack the change of an active constraint. O(nodes)."""
        _, dots = self.change(id_)
        return [name for name in self._evidence.names if self._evidence.is_live(name) and self._evidence.holds(name, dots) is False]

    async def wait(self, id_: str | None, wanted: Wanted, timeout: float) -> CoverageReport:  # noqa: ASYNC109 - it comes back with a report when the time is over, and does not raise
        """Bring the change to others until `wanted` nodes are known to have it, this one included, or `timeout` seconds are over.

        `all`: every node of the fleet that is not retired; `live`: every node that is live; `majority`: more than half of all.
        The change is that which stands now. Raises `KeyError` if there is none, and `ConstraintCrdtError` if too many wait.
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
        with self._evidence.stirring() as stirred:
            while not self._is_met(dots, wanted):
                stirred.clear()
                now = clock()
                lacking = {name for name in self._lacking(dots) if asked.get(name, 0.0) <= now}
                peer = next(iter(self._exchanger.willing(lacking)), None)
                if peer is not None:
                    asked[peer.name] = now + ASK_AGAIN
                    await self._exchanger.exchange(peer)
                    continue
                try:
                    async with asyncio.timeout(ASK_AGAIN):
                        await stirred.wait()
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
        """When the last of the mutations was shown; or, of one that is lacking, when the first of them became known here."""
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
