"""What moved on a node since somebody last looked: for screens, which then read again what they show and nothing else.

Two questions are answered. *Is it still as I read it?* The state hash and a version together say so: the version moves when
readings change though the state does not (an expiry, another verdict here, a peer that came or went, or gave evidence). *What
moved?* The constraints and nodes, gathered as cells change, as long as they are few.

What only ages (decayed rates, uptime, sizes) moves neither: whoever shows that reads it again after a while.
"""

from constraint_crdt.core.cells import ADD, COUNTS, Cell
from constraint_crdt.core.digest import StateHash
from constraint_crdt.core.shapes import SHAPES
from constraint_crdt.core.values import RATE
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.node.evaluating import Tally
from constraint_crdt.node.exchanging import Exchanger
from constraint_crdt.node.happening import Notice
from constraint_crdt.node.keeping import Keeping

__all__ = ["MOST_NAMED", "Movement", "Notice"]

MOST_NAMED = 100
"""Constraints, or nodes, that a notice names. If more moved, it names none."""

_ABOUT_A_CONSTRAINT = frozenset((ADD, COUNTS, RATE))


class _Gathered:
    """Names, as long as they are few."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        if len(self._names) <= MOST_NAMED:
            self._names.add(name)

    def take(self) -> tuple[str, ...] | None:
        names, self._names = self._names, set()
        return tuple(sorted(names)) if len(names) <= MOST_NAMED else None


class Movement:
    """Follows one node. Costs nothing while nobody looks but a call per cell that changes."""

    def __init__(self, gossip: GossipNode, exchanger: Exchanger, tally: Tally, keeping: Keeping) -> None:
        self._gossip = gossip
        self._exchanger = exchanger
        self._tally = tally
        self._keeping = keeping
        self._seen: tuple[object, ...] = ()
        self._version = 0
        self._told: tuple[StateHash, int] | None = None
        self._evidence: dict[str, tuple[int, StateHash | None]] = {}
        self._constraints = _Gathered()
        self._nodes = _Gathered()
        for kind in SHAPES:
            gossip.state.rows.watch(kind, self._cell_moved)

    @property
    def version(self) -> int:
        """Moves when readings change and the state does not. O(live peers)."""
        gossip = self._gossip
        constraints = gossip.state.constraints
        # The end that comes next changes exactly when an end has passed, once the constraints were read at this time.
        seen = (
            len(constraints),
            constraints.next_expiry,
            gossip.tracker.changes,
            self._exchanger.live,
            self._tally.changes,
            self._keeping.trouble,
        )
        if seen != self._seen:
            self._seen = seen
            self._version += 1
        return self._version

    def note(self, constraint: str) -> None:
        """Another thing is to be said of this constraint than before."""
        self._constraints.add(constraint)

    def take(self) -> Notice | None:
        """What moved since the last call; None if nothing did."""
        gossip, version = self._gossip, self.version
        now = gossip.state_hash, version
        if now == self._told:
            return None
        self._told = now
        self._note_peers()
        return self._notice(version, self._constraints.take(), self._nodes.take())

    def now(self) -> Notice:
        """What readings are like now, for whoever begins to look."""
        return self._notice(self.version, (), ())

    def _notice(self, version: int, constraints: tuple[str, ...] | None, nodes: tuple[str, ...] | None) -> Notice:
        gossip = self._gossip
        return Notice(
            hash=gossip.state_hash.hex(),
            constraints_hash=gossip.constraints_hash.hex(),
            version=version,
            constraints=constraints,
            nodes=nodes,
        )

    def _note_peers(self) -> None:
        """See which peers came, went, or gave evidence. O(live peers)."""
        before, tracker = self._evidence, self._gossip.tracker
        self._evidence = {}
        for name in self._exchanger.live:
            peer = tracker.peer(name)
            said = (peer.mark.count if peer and peer.mark else 0, peer.hash if peer else None)
            self._evidence[name] = said
            if before.pop(name, None) != said:
                self._nodes.add(name)
        for name in before:
            self._nodes.add(name)

    def _cell_moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        self._nodes.add(cell.replica.node_id)
        if cell.kind in _ABOUT_A_CONSTRAINT and cell.key:
            self._constraints.add(str(cell.key))
