"""The base classes of the types: views over the cells of a few kinds.

A standalone view has rows of its own. The views inside a `ConstraintState` share the rows of the state. Merging a view merges its
rows as a whole: taking only some cells of a state would break the rule of equal states at equal clocks.

Three bases build on each other. A `View` reads the tables of the rows. An `IndexedView` keeps an index of its own, updated with
each cell. A `PagedView` is a table of bytes per row, cut into pages (sketches, Bloom filters):

- A row has a header cell under the name of the table, with the dimensions and totals, and a page cell under name and number for
  each part of the table with a non-zero byte, compressed. A write rewrites only the changed pages.
- A row counts while its header has the dimensions of the view. Rows with other dimensions are left out as a whole and counted.
- A reading depends on the standing cells, not on the order of their arrival and not on earlier readings.
- Accounting for a changed cell costs O(1). Pages are decompressed and folded into the sum at the next reading, each once, however
  often they changed. A node without readers decompresses nothing.
- A page with another size after decompression reads as zeros and is counted. No page takes more memory than its size.

Names of tables are given by the first writer, on any node. Two nodes may give the same name to tables with different dimensions,
which cannot be summed. `TableDirectory` then takes the dimensions of most rows (of equally many, the smaller); other rows show as
`ignored_writers`. The choice depends on the cells alone, so all nodes agree.
"""

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from constraint_crdt.crdt.cells import SEPARATOR, Cell, Key, make_cell, make_key, require, value_of
from constraint_crdt.crdt.clock import Merge, Replica, check_id
from constraint_crdt.crdt.limits import PAGE_BYTES
from constraint_crdt.crdt.rows import BulkWatcher, Rows
from constraint_crdt.errors import ConstraintCrdtError, InvalidType, UnknownName


def no_time() -> int:
    """The default clock: time stands still."""
    return 0


class View(Merge):
    """A CRDT type over the cells of `KINDS`."""

    KINDS: ClassVar[tuple[int, ...]]

    def __init__(self, rows: Rows | None = None) -> None:
        """`rows`: the cells to look at; new empty ones if left out."""
        self._rows = Rows() if rows is None else rows

    def merge(self, other: Self) -> bool:
        return self._rows.merge(other._rows)

    def merged(self, other: Self) -> Self:
        result = self._with_rows(self._rows.copy())
        result.merge(other)
        return result

    def _with_rows(self, rows: Rows) -> Self:
        """Such a view over other rows, which it keeps."""
        return type(self)(rows)

    def subsumes(self, other: Self) -> bool:
        return self._rows.clock.subsumes(other._rows.clock)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(self._rows.kind_sum(kind) == other._rows.kind_sum(kind) for kind in self.KINDS)

    __hash__ = None  # type: ignore[assignment]  # mutable


class IndexedView(View):
    """A view with an index of its own, updated with every change of a cell. (Other views read the tables of the rows.)"""

    _bulk_watcher: BulkWatcher | None = None
    """See `Tables.watch`."""

    def __init__(self, rows: Rows | None = None) -> None:
        super().__init__(rows)
        self._clear()
        for kind in self.KINDS:
            self._rows.watch(kind, self._changed, self._clear, self._bulk_watcher)
            for cell in self._rows.each(kind):
                self._changed(None, cell)

    @abstractmethod
    def _clear(self) -> None:
        """Reset the index: each standing cell is reported anew afterwards."""

    @abstractmethod
    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        """Bring the readings up to date: `old` fell, `new` stands now."""


WORDS: Final = 8
_words: Final = Struct("<8Q").unpack


def positions(item: str, count: int, size: int) -> list[int]:
    """`count` independent positions of an item, each from 0 to `size` - 1, with a bias of at most 1 in 2**40.

    The values are the 64-bit little-endian words of blake2b with 64 bytes over the item's UTF-8: words 0 to 7 of the plain hash,
    words 8 to 15 of the hash with the salt 1, and so on. Independent words matter: values derived from two of them (Kirsch and
    Mitzenmacher, 2006) raise the rate of a Bloom filter of 100 items by 15 %. Stored tables depend on this function, which never
    changes.

    Raises `TypeError` for an item that is no text and `ConstraintCrdtError` for invalid Unicode.
    """
    data = _encoded(item)
    words = _words(blake2b(data).digest())
    if count > WORDS:
        for block in range(1, -(-count // WORDS)):
            words += _words(blake2b(data, salt=block.to_bytes(8, "little")).digest())
    return [word % size for word in words[:count]]


def _encoded(item: str) -> bytes:
    if not isinstance(item, str):
        raise InvalidType(f"an item is a text, not {item!r}")
    try:
        return item.encode()
    except UnicodeEncodeError:
        raise ConstraintCrdtError(f"the item {item!r} is not valid Unicode text") from None


Shape = TypeVar("Shape", bound=tuple[int, ...])

_RAW: Final = b"\0"
_DEFLATED: Final = b"\1"
_LEVEL: Final = 6


def pack_page(content: bytes) -> bytes:
    """A page inside a cell: a byte with the encoding, then the bytes, deflated if shorter."""
    deflated = zlib.compress(content, _LEVEL)
    return _DEFLATED + deflated if len(deflated) < len(content) else _RAW + content


def unpack_page(data: bytes, size: int) -> bytes | None:
    """The content of a page of exactly `size` bytes; None for any other content. Never takes more memory."""
    if data[:1] == _RAW:
        return data[1:] if len(data) == size + 1 else None
    if data[:1] != _DEFLATED:
        return None
    inflating = zlib.decompressobj()
    try:
        content = inflating.decompress(data[1:], size + 1)
    except zlib.error:
        return None
    whole = len(content) == size and inflating.eof and not inflating.unused_data
    return content if whole else None


def check_page(_: str, value: bytes) -> None:
    """The bounds of a page inside a cell. Raises `ConstraintCrdtError`."""
    require(0 < len(value) <= PAGE_BYTES, "the size of a page")


class PagedView(IndexedView, Generic[Shape]):
    """A type over tables of the same shape and name."""

    HEADER: ClassVar[int]
    PAGE: ClassVar[int]
    WHAT: ClassVar[str]
    MANY: ClassVar[str]
    """The word for a table, and its plural."""

    def __init__(self, rows: Rows | None, name: str, shape: Shape, table_bytes: int, page_bytes: int) -> None:
        """`table_bytes`: the size of a row's table, decompressed; `page_bytes`: the size of a page, except the last."""
        self.name = check_name(name, self.WHAT)
        """The name in the rows; "" for a standalone table."""
        self.shape = shape
        """The dimensions; only tables with equal dimensions can be merged."""
        self._table_bytes, self._page_bytes = table_bytes, page_bytes
        self._pages = -(-table_bytes // page_bytes)
        self._prefix = make_key(name, "")
        super().__init__(rows)

    # --- what the types say ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _with_rows(self, rows: Rows) -> Self:
        """A table with the same name and shape over other rows."""

    @staticmethod
    @abstractmethod
    def shape_of(header: Any) -> Any:
        """The shape in the value of a header."""

    @abstractmethod
    def _empty(self) -> None:
        """Reset the sum."""

    @abstractmethod
    def _fold_header(self, old: Any, new: Any) -> None:
        """Put the value of a counted row's header in place of another; None for none."""

    @abstractmethod
    def _fold_page(self, number: int, old: bytes | None, new: bytes | None) -> None:
        """Put the content of a counted row's page in place of another; None for zeros."""

    # --- following cells -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._moved_headers: dict[Replica, Cell | None] = {}
        self._moved_pages: dict[tuple[Replica, int], Cell | None] = {}
        self._counted: set[Replica] = set()
        self._others = 0
        self._unreadable = 0
        self._empty()

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        """Note the earlier cell of this slot, which the reading still contains."""
        cell = new if new is not None else old
        if cell is None:
            return
        if cell.kind == self.HEADER:
            if cell.key == self.name:
                self._moved_headers.setdefault(cell.replica, old)
        elif (number := self._number(cell.key)) is not None:
            self._moved_pages.setdefault((cell.replica, number), old)

    def _number(self, key: Key) -> int | None:
        """Of a page of this table; None for all else."""
        text = str(key)
        if not text.startswith(self._prefix):
            return None
        digits = text[len(self._prefix) :]
        if not (digits.isascii() and digits.isdigit() and len(digits) < 10) or (digits[0] == "0" and digits != "0"):
            return None
        return number if (number := int(digits)) < self._pages else None

    def _settle(self) -> None:
        """Bring the reading up to date. O(changes since the last reading)."""
        if not self._moved_headers and not self._moved_pages:
            return
        headers, self._moved_headers = self._moved_headers, {}
        moved, self._moved_pages = self._moved_pages, {}
        before = self._counted.intersection(replica for replica, _ in moved) | self._counted.intersection(headers)
        turned = [replica for replica, old in headers.items() if self._follow_header(replica, old)]
        folds = [(replica, number, old, self._page(replica, number)) for (replica, number), old in moved.items()]
        for replica in turned:
            standing = ((number, self._page(replica, number)) for number in range(self._pages) if (replica, number) not in moved)
            folds += [(replica, number, cell, cell) for number, cell in standing if cell is not None]
        for replica, number, old, new in folds:
            was = self._content(number, old, -1) if replica in before else None
            now = self._content(number, new, +1) if replica in self._counted else None
            if was != now:
                self._fold_page(number, was, now)

    def _follow_header(self, replica: Replica, old: Cell | None) -> bool:
        """True if the row counts now and did not, or the other way round."""
        new = self._rows.get(self.HEADER, self.name, replica)
        was, now = self._value(old), self._value(new)
        self._others += int(new is not None and now is None) - int(old is not None and was is None)
        self._fold_header(was, now)
        if now is None:
            self._counted.discard(replica)
        else:
            self._counted.add(replica)
        return (was is None) != (now is None)

    def _value(self, header: Cell | None) -> Any:
        """The value of a header of this shape."""
        value = None if header is None else value_of(header)
        return None if value is None or self.shape_of(value) != self.shape else value

    def _page(self, replica: Replica, number: int) -> Cell | None:
        return self._rows.get(self.PAGE, f"{self._prefix}{number}", replica)

    def _size(self, number: int) -> int:
        """Bytes of a page, decompressed."""
        return min(self._page_bytes, self._table_bytes - number * self._page_bytes)

    def _content(self, number: int, page: Cell | None, unreadable: int = 0) -> bytes | None:
        if page is None:
            return None
        content = unpack_page(value_of(page), self._size(number))
        if content is None:
            self._unreadable += unreadable
        return content

    def _contents(self, number: int) -> Iterator[bytes]:
        """A page of every counted row."""
        for cell in self._rows.held(self.PAGE, f"{self._prefix}{number}"):
            if cell.replica in self._counted and (content := self._content(number, cell)) is not None:
                yield content

    # --- writing ---------------------------------------------------------------------------------------------------------

    def _own(self, replica: Replica) -> Any:
        """The value of the writer's own header; None without a header. Raises `ConstraintCrdtError` for another shape."""
        header = self._rows.get(self.HEADER, self.name, replica)
        if header is None:
            return None
        value = value_of(header)
        if self.shape_of(value) != self.shape:
            raise ConstraintCrdtError(
                f"{replica.node_id} keeps a {self.WHAT} called {self.name!r} with other dimensions: choose another name"
            )
        return value

    def _own_page(self, replica: Replica, number: int) -> bytes:
        """The content of a page in the writer's own row."""
        return self._content(number, self._page(replica, number)) or bytes(self._size(number))

    def _page_cell(self, number: int, content: bytes) -> Cell:
        return make_cell(self.PAGE, f"{self._prefix}{number}", pack_page(content))

    # --- readings of all such types --------------------------------------------------------------------------------------

    @property
    def writers(self) -> int:
        """The number of counted rows."""
        self._settle()
        return len(self._counted)

    @property
    def ignored_writers(self) -> int:
        """The number of rows with other dimensions under this name, which are left out."""
        self._settle()
        return self._others

    @property
    def unreadable_pages(self) -> int:
        """The number of pages in counted rows without bytes of their size, which read as zeros."""
        self._settle()
        return self._unreadable

    @property
    def packed_bytes(self) -> int:
        """Bytes of all its cells, in all rows: the size on disk and on the wire. O(rows x pages)."""
        return sum(map(len, self._standing().values()))

    def _standing(self) -> dict[tuple[int, Key, Replica], bytes]:
        cells = [*self._rows.held(self.HEADER, self.name)]
        for number in range(self._pages):
            cells += self._rows.held(self.PAGE, f"{self._prefix}{number}")
        return {(cell.kind, cell.key, cell.replica): cell.data for cell in cells}

    # --- merging ---------------------------------------------------------------------------------------------------------

    def merge(self, other: Self) -> bool:
        """Take in the knowledge of `other`. Raises `ConstraintCrdtError`, changing nothing, for another name or other
        dimensions."""
        if (self.name, self.shape) != (other.name, other.shape):
            raise ConstraintCrdtError(
                f"only {self.MANY} of one name and equal dimensions can be merged, not {self!r} and {other!r}: make both alike"
            )
        return super().merge(other)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return (self.name, self.shape) == (other.name, other.shape) and self._standing() == other._standing()

    __hash__ = None  # type: ignore[assignment]  # mutable


def check_name(name: str, what: str) -> str:
    """Return a name for numbered pages. Empty for a standalone table. Raises `TypeError` and `ConstraintCrdtError` for an
    invalid name."""
    if SEPARATOR in name:
        raise ConstraintCrdtError(f"the name of a {what} must not contain the control character U+001F")
    return check_id(name, f"the name of a {what}") if name else name


Table = TypeVar("Table", bound=PagedView[Any])


class TableDirectory(Mapping[str, Table], Generic[Table, Shape]):
    """The tables of a kind by name. A name exists from its first record on; `[]` raises `KeyError` before."""

    def __init__(self, rows: Rows, kind: type[Table], limit: int, make: Callable[[str, Shape], Table]) -> None:
        """`limit`: the most names begun by this node, and the most tables it reads."""
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
        shapes = self._names.get(name)
        if shapes is None:
            raise UnknownName(name, self._kind.WHAT)
        return min(shapes, key=lambda shape: (-shapes[shape], shape))

    def open(self, name: str, shape: Shape) -> Table:
        """The table of this name; the first record begins it. Raises `ConstraintCrdtError` for a name with other dimensions, for
        a name out of bounds, and beyond the number of names."""
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
        """The table of this name and these dimensions, independent of other tables. Raises `ConstraintCrdtError` beyond a limit."""
        table = self._opened.get((name, shape))
        if table is None:
            if len(self._opened) >= self._limit:
                raise ConstraintCrdtError(f"this node reads {self._limit} {self._kind.MANY} already, which is the most")
            table = self._opened[name, shape] = self._make(name, shape)
        return table
