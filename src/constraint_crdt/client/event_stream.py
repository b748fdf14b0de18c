"""The stream of events as it comes: bytes into what was heard. (HTML standard, 9.2.6; the node's side is `GET /v1/events`.)"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import msgspec

from constraint_crdt.model.events import Event, Notice

SILENCE = 25.0
"""Seconds after which a stream that says nothing, not even its heartbeat, counts as broken."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Seconds before a broken stream is taken up again: doubling between these."""

LONGEST_LINE = 1024 * 1024


class Happened(NamedTuple):
    """An event."""

    id: str
    """To go on after it, another time."""
    event: Event


class Moved(NamedTuple):
    """Readings are not what they were."""

    notice: Notice


class Gap(NamedTuple):
    """Events that are not kept any more were missed."""

    missed: int | None
    """How many; None if nobody can tell, since the node was started anew."""


Heard: TypeAlias = Happened | Moved | Gap


class _Missed(msgspec.Struct):
    missed: int | None


class StreamReader:
    """Makes what was heard of the bytes of a stream, and remembers where it is."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        """The last event that was heard: a stream that breaks is taken up after it."""
        self.fed = False
        """Something came since the stream began."""
        self._rest = b""
        self._kind = ""
        self._id = ""
        self._data = b""

    def restart(self) -> None:
        """A new stream begins."""
        self.fed = False
        self._rest = self._data = b""
        self._kind = self._id = ""

    def feed(self, data: bytes) -> Iterator[Heard]:
        """What is complete with these bytes. Raises `ValueError` for what no node sends."""
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
            return None  # the stream ends, or says what this version does not know
        self.last_id = id_
        try:
            return Happened(id_, msgspec.json.decode(data, type=Event))
        except msgspec.ValidationError:
            return None  # of a kind that this version does not know
