"""The tables of one kind in a state, by name: which names stand, in which dimensions, and a view of each that somebody reads.

Names are given by whoever records first, anywhere. Nodes that did not know of each other may have given one name to tables of
different dimensions, which cannot be summed. Then the name means those that most rows have (of equally many the smaller); the
others show as `ignored_writers`. That depends on the cells alone, so every node says the same.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from constraint_crdt.crdt.cells import SEPARATOR, Cell, value_of
from constraint_crdt.crdt.replica import check_id
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.bloom import BloomCRDT, BloomShape
from constraint_crdt.types.pages import PagedView
from constraint_crdt.types.sketch import SketchCRDT, SketchShape

Shape = TypeVar("Shape", bound=tuple[int, ...])
Table = TypeVar("Table", bound=PagedView[Any])


class NamedTables(Mapping[str, Table], Generic[Table, Shape]):
    """The tables of one kind. A name stands from the first record on; `[]` raises `KeyError` before."""

    def __init__(self, rows: Rows, kind: type[Table], limit: int, make: Callable[[str, Shape], Table]) -> None:
        """`limit`: names that this node begins, and tables that it reads, at most."""
        self._rows, self._kind, self._limit, self._make = rows, kind, limit, make
        self._opened: dict[tuple[str, Shape], Table] = {}
        self._clear()
        rows.watch(kind.HEADER, self._changed, self._clear)
        for cell in rows.each(kind.HEADER):
            self._changed(None, cell)

    def _clear(self) -> None:
        self._names: dict[str, dict[Shape, int]] = {}  # with the number of rows

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        before = self._kind.shape_of(value_of(old)) if old is not None else None
        after = self._kind.shape_of(value_of(new)) if new is not None else None
        cell = new if new is not None else old
        if cell is None or before == after or not cell.key or SEPARATOR in (name := str(cell.key)):
            return
        shapes = self._names.setdefault(name, {})
        if after is not None:
            shapes[after] = shapes.get(after, 0) + 1
        if before is not None:
            shapes[before] -= 1
            if not shapes[before]:
                del shapes[before]
        if not shapes:
            del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Table:
        return self.view(name, self._meant(name))

    def _meant(self, name: str) -> Shape:
        shapes = self._names[name]
        return min(shapes, key=lambda shape: (-shapes[shape], shape))

    def open(self, name: str, shape: Shape) -> Table:
        """The table of this name, which the first record begins. Raises `ConstraintCrdtError` for a name that stands for one of
        other dimensions, for one out of bounds, and beyond the number of names.
        """
        check_id(name, f"the name of a {self._kind.WHAT}")
        if name in self._names:
            if self._meant(name) != shape:
                raise ConstraintCrdtError(
                    f"there is a {self._kind.WHAT} called {name!r} with other dimensions: open it as {self[name]!r}, "
                    "or choose another name"
                )
        elif len(self._names) >= self._limit:
            raise ConstraintCrdtError(f"{self._limit} {self._kind.MANY} is the most, and there are as many: use one of them")
        return self.view(name, shape)

    def view(self, name: str, shape: Shape) -> Table:
        """The table of this name in these dimensions, whatever else stands there. Raises `ConstraintCrdtError` beyond a limit."""
        table = self._opened.get((name, shape))
        if table is None:
            if len(self._opened) >= self._limit:
                raise ConstraintCrdtError(f"this node reads {self._limit} {self._kind.MANY} already, which is the most")
            table = self._opened[name, shape] = self._make(name, shape)
        return table


class Sketches(NamedTables[SketchCRDT, SketchShape]):
    """The sketches of a state by name."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows, SketchCRDT, rows.limits.sketches, lambda name, shape: SketchCRDT(rows=rows, name=name, shape=shape))


class Blooms(NamedTables[BloomCRDT, BloomShape]):
    """The Bloom filters of a state by name."""

    def __init__(self, rows: Rows) -> None:
        super().__init__(rows, BloomCRDT, rows.limits.blooms, lambda name, shape: BloomCRDT(rows=rows, name=name, shape=shape))
