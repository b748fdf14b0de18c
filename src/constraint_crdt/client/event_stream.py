"""The parser of the stream of events. (HTML standard, 9.2.6; the server side is `GET /v1/events`.)"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgspec

from constraint_crdt.model import Event, Notice

SILENCE = 25.0
"""Seconds without data, heartbeats included, after which a stream counts as broken."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Seconds before the retry of a broken stream: doubling between these."""

LONGEST_LINE = 1024 * 1024


class Happened(NamedTuple):
    """An event."""

    id: str
    """For `after`, to resume later."""
    event: Event


class Moved(NamedTuple):
    """Readings changed."""

    notice: Notice


class Gap(NamedTuple):
    """Events were missed: the log has dropped them."""

    missed: int | None
    """Their number; None if unknown, after a restart of the node."""


Heard: TypeAlias = Happened | Moved | Gap


class _Missed(msgspec.Struct):
    missed: int | None


class StreamReader:
    """Parses the bytes of a stream, and tracks the last event id."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        """The id of the last event, after which a broken stream resumes."""
        self.fed = False
        """True after the first data of this stream."""
        self._rest = b""
        self._kind = ""
        self._id = ""
        self._data = b""

    def restart(self) -> None:
        """Begin a new stream."""
        self.fed = False
        self._rest = self._data = b""
        self._kind = self._id = ""

    def feed(self, data: bytes) -> Iterator[Heard]:
        """The messages completed by these bytes. Raises `ValueError` for malformed data."""
        self.fed = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError("the stream has a line without end")
        for line in lines:
            heard = self._line(line.removesuffix(b"\r"))
            if heard is not None:
                yield heard

    def _line(self, line: bytes) -> Heard | None:
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"id":
                self._id = value.decode(errors="replace")
            elif field == b"event":
                self._kind = value.decode(errors="replace")
            elif field == b"data":
                self._data += value
            return None
        kind, id_, data = self._kind, self._id, self._data
        self._kind, self._id, self._data = "", "", b""
        return self._heard(kind, id_, data) if data else None

    def _heard(self, kind: str, id_: str, data: bytes) -> Heard | None:
        if kind == "state":
            return Moved(msgspec.json.decode(data, type=Notice))
        if kind == "gap":
            return Gap(msgspec.json.decode(data, type=_Missed).missed)
        if not id_:
            return None  # the end of the stream, or a message unknown to this version
        self.last_id = id_
        try:
            return Happened(id_, msgspec.json.decode(data, type=Event))
        except msgspec.ValidationError:
            return None  # of a kind unknown to this version
