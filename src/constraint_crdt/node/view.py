"""Noticing that this node sees less of the fleet than there is, and reopening its session then.

A link found by gossip that breaks is not repaired by the engine, and two nodes that cannot hear each other still hear *of* each
other through a third: the rows of the missing one go on growing. That, over a while, is the sign. Reopening costs a moment of
silence, so it backs off by doubling while it does not help (there may simply be no route).
"""

from collections.abc import Mapping, Set

from constraint_crdt.core.replica import Replica

PATIENCE = 3
"""Looks in a row at which a node is missing before anything is done."""

LONGEST_PAUSE = 60
"""Looks between two reopenings, at most."""


class ViewWatch:
    """Compares who writes with who is seen. Look at regular intervals."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: dict[Replica, int] = {}
        self._missed: dict[str, int] = {}
        self._pause = PATIENCE
        self._wait = 0

    @property
    def missed(self) -> list[str]:
        """The nodes that go on writing, as others tell, and that this one has not seen for a while."""
        return sorted(name for name, looks in self._missed.items() if looks >= PATIENCE)

    def look(self, clock: Mapping[Replica, int], live: Set[str]) -> list[str]:
        """The nodes whose absence from `live` calls for reopening now; usually none."""
        writing = {replica.node_id for replica, seq in clock.items() if self._seen.get(replica, 0) < seq} if self._seen else set()
        self._seen = dict(clock)
        for name in live:
            self._missed.pop(name, None)
        for name in writing - live - {self._me}:
            self._missed[name] = self._missed.get(name, 0) + 1
        missing = self.missed
        self._wait -= 1
        if not missing:
            self._pause = PATIENCE if not self._missed else self._pause
            return []
        if self._wait > 0:
            return []
        self._wait, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return missing
