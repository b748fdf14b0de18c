"""Where an item falls: independent hash values of a text, the same on every machine and in every version.

The values are the 64-bit little-endian words of blake2b with 64 bytes over the item's UTF-8: words 0 to 7 of the plain hash, words
8 to 15 of the one with the salt 1, and so on. So each is independent of the others, where values derived from two of them (Kirsch
and Mitzenmacher, 2006) raise the rate of a Bloom filter of 100 items by 15 %. Stored tables depend on this: it never changes.

Tables in pages: what a type whose rows each hold a table of bytes keeps in cells, and how a reading follows them.

A row has one header cell under the name, which tells the shape of its table and what it counts besides, and a page cell under name
and number for each stretch of the table that is not all zeros, compressed. A write rewrites only the pages it touched.

Rules kept here:

- A row counts while its header has the shape of the view. Rows of another shape are left out, whole, and their number is shown.
- A reading depends on the cells that stand and on nothing else: not on the order in which they came, nor on which were read before.
- Following a cell costs O(1); pages are unpacked and folded into the sum when somebody reads, each once, however often it changed
  in between. A node where nobody reads never unpacks any.
- A page that cannot be unpacked to exactly its size reads as zeros and is counted. No page takes more memory than its size.
"""

import zlib
from abc import abstractmethod
from collections.abc import Iterator
from hashlib import blake2b
from struct import Struct
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from constraint_crdt.crdt.cells import SEPARATOR, Cell, Key, make_cell, make_key, value_of
from constraint_crdt.crdt.replica import Replica, check_id
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.view import WatchingView

WORDS: Final = 8
_words: Final = Struct("<8Q").unpack


def positions(item: str, count: int, size: int) -> list[int]:
    """`count` independent positions of an item, each from 0 to `size` - 1, at most by 1 in 2**40 from evenly spread.

    Raises `TypeError` for what is no text and `ConstraintCrdtError` for what is not valid Unicode.
    """
    data = _encoded(item)
    words = _words(blake2b(data).digest())
    if count > WORDS:
        for block in range(1, -(-count // WORDS)):
            words += _words(blake2b(data, salt=block.to_bytes(8, "little")).digest())
    return [word % size for word in words[:count]]


def _encoded(item: str) -> bytes:
    if not isinstance(item, str):
        raise TypeError(f"an item is a text, not {item!r}")
    try:
        return item.encode()
    except UnicodeEncodeError:
        raise ConstraintCrdtError(f"the item {item!r} is not valid Unicode text") from None


Shape = TypeVar("Shape", bound=tuple[int, ...])

_RAW: Final = b"\0"
_DEFLATED: Final = b"\1"
_LEVEL: Final = 6


def pack_page(content: bytes) -> bytes:
    """A page as a cell carries it: a byte that says how, then the bytes, deflated if that makes them fewer."""
    deflated = zlib.compress(content, _LEVEL)
    return _DEFLATED + deflated if len(deflated) < len(content) else _RAW + content


def unpack_page(data: bytes, size: int) -> bytes | None:
    """The content of a page, which has exactly `size` bytes; None if that is not what it holds. Never takes more than that."""
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


class PagedView(WatchingView, Generic[Shape]):
    """A type over tables of one shape under one name."""

    HEADER: ClassVar[int]
    PAGE: ClassVar[int]
    WHAT: ClassVar[str]
    MANY: ClassVar[str]
    """What users call one, and several."""

    def __init__(self, rows: Rows | None, name: str, shape: Shape, table_bytes: int, page_bytes: int) -> None:
        """`table_bytes`: of one row's table, unpacked; `page_bytes`: of one page of it, the last one apart."""
        self.name = check_name(name, self.WHAT)
        """Under which it stands in its rows; "" for one that stands alone."""
        self.shape = shape
        """What must be equal for two of them to be merged."""
        self._table_bytes, self._page_bytes = table_bytes, page_bytes
        self._pages = -(-table_bytes // page_bytes)
        self._prefix = make_key(name, "")
        super().__init__(rows)

    # --- what the types say ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _over(self, rows: Rows) -> Self:
        """One of the same name and shape over other rows."""

    @staticmethod
    @abstractmethod
    def shape_of(header: Any) -> Any:
        """The shape that a header's value tells."""

    @abstractmethod
    def _empty(self) -> None:
        """Forget all that was folded."""

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
        """Remember what the reading holds of this slot: what stood there when it was last brought up to date."""
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
        """Bring the reading up to date. O(what changed since the last time)."""
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
        """Bytes of one page, unpacked."""
        return min(self._page_bytes, self._table_bytes - number * self._page_bytes)

    def _content(self, number: int, page: Cell | None, unreadable: int = 0) -> bytes | None:
        if page is None:
            return None
        content = unpack_page(value_of(page), self._size(number))
        if content is None:
            self._unreadable += unreadable
        return content

    def _contents(self, number: int) -> Iterator[bytes]:
        """One page of every row that counts."""
        for cell in self._rows.held(self.PAGE, f"{self._prefix}{number}"):
            if cell.replica in self._counted and (content := self._content(number, cell)) is not None:
                yield content

    # --- writing ---------------------------------------------------------------------------------------------------------

    def _own(self, replica: Replica) -> Any:
        """The value of the writer's own header; None if it has none. Raises `ConstraintCrdtError` if it has another shape."""
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
        """What the writer's own row has of one page."""
        return self._content(number, self._page(replica, number)) or bytes(self._size(number))

    def _page_cell(self, number: int, content: bytes) -> Cell:
        return make_cell(self.PAGE, f"{self._prefix}{number}", pack_page(content))

    # --- readings of all such types --------------------------------------------------------------------------------------

    @property
    def writers(self) -> int:
        """Rows that count."""
        self._settle()
        return len(self._counted)

    @property
    def ignored_writers(self) -> int:
        """Rows that hold a table of other dimensions under this name: they are left out."""
        self._settle()
        return self._others

    @property
    def unreadable_pages(self) -> int:
        """Pages of rows that count which hold no bytes of their size: they read as zeros."""
        self._settle()
        return self._unreadable

    @property
    def packed_bytes(self) -> int:
        """Bytes of all its cells, in all rows: what it takes on disk and on the wire. O(rows x pages)."""
        return sum(map(len, self._standing().values()))

    def _standing(self) -> dict[tuple[int, Key, Replica], bytes]:
        cells = [*self._rows.held(self.HEADER, self.name)]
        for number in range(self._pages):
            cells += self._rows.held(self.PAGE, f"{self._prefix}{number}")
        return {(cell.kind, cell.key, cell.replica): cell.data for cell in cells}

    # --- merging ---------------------------------------------------------------------------------------------------------

    def merge(self, other: Self) -> bool:
        """Take in what `other` knows. Raises `ConstraintCrdtError`, changing nothing, for another name or other dimensions."""
        if (self.name, self.shape) != (other.name, other.shape):
            raise ConstraintCrdtError(
                f"only {self.MANY} of one name and equal dimensions can be merged, not {self!r} and {other!r}: make both alike"
            )
        return super().merge(other)

    def merged(self, other: Self) -> Self:
        result = self._over(self._rows.copy())
        result.merge(other)
        return result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return (self.name, self.shape) == (other.name, other.shape) and self._standing() == other._standing()

    __hash__ = None  # type: ignore[assignment]  # mutable


def check_name(name: str, what: str) -> str:
    """Return a name that pages can be numbered under, or raise `ConstraintCrdtError`. Empty for what stands alone."""
    if SEPARATOR in name:
        raise ConstraintCrdtError(f"the name of a {what} must not contain the control character U+001F")
    return check_id(name, f"the name of a {what}") if name else name
