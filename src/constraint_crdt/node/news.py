"""What became of the constraints whose definitions moved.

Cells move many at a time, and some move back within one transfer. What people hear of is the difference between two moments at
which the state was whole: a constraint became active, says something else, or is gone.
"""

from typing import NamedTuple

from constraint_crdt.core.cells import ADD, Cell
from constraint_crdt.node.events import EventKind
from constraint_crdt.state import ConstraintState


class News(NamedTuple):
    """One constraint that is not what it was."""

    kind: EventKind
    constraint: str
    when: str


class DefinitionNews:
    """Follows the definitions of one state."""

    def __init__(self, state: ConstraintState) -> None:
        self._constraints = state.constraints
        self._touched: set[str] = set()
        self._listed: dict[str, int] = {}
        """The constraints as they were last told of, each with a hash of its definitions."""
        state.rows.watch(ADD, self._moved)

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))

    def take(self) -> list[News]:
        """What is new since the last call, ordered by constraint. O(constraints that moved)."""
        touched, self._touched = self._touched, set()
        return [news for id_ in sorted(touched) if (news := self._news(id_)) is not None]

    def _news(self, id_: str) -> News | None:
        before, now = self._listed.get(id_), self._constraints.definitions(id_)
        after = hash(now) if now else None
        if after == before:
            return None
        if after is None:
            del self._listed[id_]
            return News(EventKind.REMOVED, id_, "")
        self._listed[id_] = after
        return News(EventKind.ADDED if before is None else EventKind.CHANGED, id_, now[0].when or "")
