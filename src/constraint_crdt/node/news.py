"""What became of the constraints whose definitions moved, or that time has ended.

Cells move many at a time, and some move back within one transfer. What people hear of is the difference between two moments at
which the state was whole: a constraint became active, says something else, has expired, or is gone.

An expiry is told once. The time that a node reads may go back a little (a fast peer was lost), and then a constraint that had just
expired is in force again for a moment: that is neither told, nor its second expiry. An extension is, since it says something else.
"""

from collections.abc import Iterable
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
        self._expired: dict[str, int] = {}
        """The same of those whose expiry was told, while any add of them stands."""
        state.rows.watch(ADD, self._moved)
        state.constraints.take_turned()  # has it kept from now on

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))

    def note(self, ids: Iterable[str]) -> None:
        """Time may have made something else of these constraints."""
        self._touched.update(ids)

    def take(self, most: int | None = None) -> list[News]:
        """What is new since the last call, ordered by constraint. O(constraints that moved).

        `most`: look at so many of them only; there may be more as long as `waiting` is true.
        """
        if most is None or len(self._touched) <= most:
            touched, self._touched = self._touched, set()
        else:
            touched = {self._touched.pop() for _ in range(most)}
        return [news for id_ in sorted(touched) if (news := self._news(id_)) is not None]

    @property
    def waiting(self) -> bool:
        """There are constraints that were not looked at yet."""
        return bool(self._touched)

    def _news(self, id_: str) -> News | None:
        before, now = self._listed.get(id_), self._constraints.definitions(id_)
        after = hash(now) if now else None
        if after == before:
            if after is None and not self._constraints.expired(id_):
                self._expired.pop(id_, None)
            return None
        if after is None:
            del self._listed[id_]
            return self._ended(id_, before)
        self._listed[id_] = after
        if before is None and self._expired.get(id_) == after:
            return None
        return News(EventKind.ADDED if before is None else EventKind.CHANGED, id_, now[0].when or "")

    def _ended(self, id_: str, before: int | None) -> News | None:
        if not self._constraints.expired(id_):
            self._expired.pop(id_, None)
            return News(EventKind.REMOVED, id_, "")
        told = self._expired.get(id_)
        if told == before or before is None:
            return None
        self._expired[id_] = before
        return News(EventKind.EXPIRED, id_, "")
