"""What all types have in common: they are views over the cells of a few kinds.

A view that stands alone has rows of its own; the views inside a `ConstraintState` share the state's. Merging a view merges the
rows under it, whole: taking only some cells of a state would break the rule that equal clocks have equal state.
"""

from abc import abstractmethod
from typing import ClassVar, Self

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import Merge
from constraint_crdt.crdt.replica import Replica, check_replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.tables import Greeter

ALONE = 0
"""The incarnation of a writer that is named by its node id only, as in a type that stands alone."""


def no_time() -> int:
    """The clock of whoever brings none: no time ever passes."""
    return 0


def writer(node: str | Replica) -> Replica:
    """The replica that a caller names: a replica itself, or a node id for a life that needs no telling apart.

    Two copies that both write as the same node without hearing of each other would use a dot twice; that is the caller's to avoid.
    """
    return node if isinstance(node, Replica) else check_replica(node, ALONE)


class View(Merge):
    """A CRDT type over the cells of `KINDS`."""

    KINDS: ClassVar[tuple[int, ...]]

    def __init__(self, rows: Rows | None = None) -> None:
        """`rows`: the cells to look at; new empty ones if left out."""
        self._rows = Rows() if rows is None else rows

    def merge(self, other: Self) -> bool:
        return self._rows.merge(other._rows)

    def merged(self, other: Self) -> Self:
        result = type(self)(self._rows.copy())
        result.merge(other)
        return result

    def subsumes(self, other: Self) -> bool:
        return self._rows.clock.subsumes(other._rows.clock)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(self._rows.kind_sum(kind) == other._rows.kind_sum(kind) for kind in self.KINDS)

    __hash__ = None  # type: ignore[assignment]  # mutable


class WatchingView(View):
    """A view that keeps readings of its own, told of every change of a cell. (The others read the tables of the rows.)"""

    _greeter: Greeter | None = None
    """See `Tables.watch`."""

    def __init__(self, rows: Rows | None = None) -> None:
        super().__init__(rows)
        self._clear()
        for kind in self.KINDS:
            self._rows.watch(kind, self._changed, self._clear, self._greeter)
            for cell in self._rows.each(kind):
                self._changed(None, cell)

    @abstractmethod
    def _clear(self) -> None:
        """Forget all readings: each cell that stands is told of anew after this."""

    @abstractmethod
    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        """Bring the readings up to date: `old` fell, `new` stands now."""
