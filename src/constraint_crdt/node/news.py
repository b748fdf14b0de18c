"""What became of the constraints whose definitions moved, or that time has ended.

Cells move many at a time, and some move back within one transfer. What people hear of is the difference between two moments at
which the state was whole: a constraint became active, says something else, has expired, or is gone.

Two steps, since a transfer may move more than can be told at once:

- `settle`, at once after each change: what was found about a constraint that is not what it was is forgotten, before anybody
  evaluates or reads it again. Of those that are new, which is where the many come from, no definition is read.
- `take`, some at a time: what is to be told. Constraints come in the order in which they changed, of one change by id, and each
  once: by what it is then, against what was last told of it. So what is back to what it was by then is not told.

An expiry is told once. The time that a node reads may go back a little (a fast peer was lost), and then a constraint that had just
expired is in force again for a moment: that is neither told, nor its second expiry. An extension is, since it says something else.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from constraint_crdt.core.cells import ADD, Cell
from constraint_crdt.node.events import EventKind
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import Definition, addition_of


class News(NamedTuple):
    """One constraint that is not what it was."""

    kind: EventKind
    constraint: str
    when: str


class DefinitionNews:
    """Follows the definitions of one state."""

    def __init__(self, state: ConstraintState, forget: Callable[[Collection[str]], None] = lambda _: None) -> None:
        """`forget` is told the constraints that are not what they were, as soon as that is seen."""
        self._constraints = state.constraints
        self._rows = state.rows
        self._forget = forget
        self._touched: set[str] = set()
        self._waiting: OrderedDict[str, int | Cell | None] = OrderedDict()
        """The constraints that are to be told of, each with a hash of its definitions when they were settled. Of one that was new
        then, the add in place of it, since most are told before anybody asks for the hash.
        """
        self._listed: dict[str, int] = {}
        """The constraints as they were last told of, each with a hash of its definitions."""
        self._expired: dict[str, int] = {}
        """The same of those whose expiry was told, while any add of them stands."""
        state.rows.watch(ADD, self._moved, greeter=self._came)
        state.constraints.take_turned()  # has it kept from now on

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))

    def _came(self, cells: Sequence[Cell]) -> None:
        self._touched.update([str(cell.key) for cell in cells])

    def note(self, ids: Iterable[str]) -> None:
        """Time may have made something else of these constraints."""
        self._touched.update(ids)

    # --- at once -------------------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Have forgotten what is true no more; returns how many constraints are not what they were at the last call.

        O(constraints that moved).
        """
        if not self._touched:
            return 0
        touched, self._touched = self._touched, set()
        changed: list[str] = []
        for id_ in sorted(touched):
            before, after = self._settled(id_), self._now(id_)
            if before != after:
                self._waiting[id_] = after
                changed.append(id_)
            elif after is None and id_ in self._expired and not self._constraints.expired(id_):
                del self._expired[id_]
        self._forget(changed)
        return len(changed)

    def _settled(self, id_: str) -> int | None:
        """A hash of the definitions that were in force when the constraint was last settled; None: none was."""
        if id_ not in self._waiting:
            return self._listed.get(id_)
        settled = self._waiting[id_]
        if isinstance(settled, Cell):
            settled = self._waiting[id_] = _hash((addition_of(settled).definition,))
        return settled

    def _now(self, id_: str) -> int | Cell | None:
        """The same of those that are in force now; or the add that they come from, of a constraint that is new."""
        if id_ not in self._constraints:
            return None
        if id_ not in self._listed and id_ not in self._waiting and id_ not in self._expired:
            held = self._rows.held(ADD, id_)
            if len(held) == 1:
                return held[0]
        return _hash(self._constraints.definitions(id_))

    # --- some at a time ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """There are constraints that were not looked at yet."""
        return bool(self._waiting or self._touched)

    def take(self, most: int | None = None) -> list[News]:
        """What is new since the last call.

        `most`: look at so many constraints only; there may be more as long as `waiting` is true.
        """
        self.settle()
        count = len(self._waiting) if most is None else min(most, len(self._waiting))
        return [news for _ in range(count) if (news := self._news(*self._waiting.popitem(last=False))) is not None]

    def take_of(self, id_: str) -> News | None:
        """What is new of one constraint."""
        self.settle()
        return self._news(id_, self._waiting.pop(id_)) if id_ in self._waiting else None

    def _news(self, id_: str, settled: int | Cell | None) -> News | None:
        now = self._constraints.definitions(id_)
        before, after = self._listed.get(id_), _hash(now)
        if after is None if isinstance(settled, Cell) else after != settled:
            self._forget((id_,))  # its time ended since
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


def _hash(definitions: Sequence[Definition]) -> int | None:
    return hash(tuple(definitions)) if definitions else None
