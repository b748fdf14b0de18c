"""Sparkplug B: the payloads of its MQTT messages, decoded with the states that their meaning depends on.

Rules kept here:

- A metric that is null is unknown, and a historical metric is left out: it is old on purpose.
- Signed integers of 8, 16 and 32 bits are taken from their low bits: writers sign-extend them to 32 bits, or do not.
- Data may name a metric by its alias and leave out its type: both are of its birth. A metric without a birth is left out then.
- A death makes all metrics of its device unknown, that of an edge node also those of its devices; not a death of a former session.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from constraint_crdt.sources.formats import MAX_TEXT, Message, SourceError, Unknown

NAMESPACE: Final = "spBv1.0"

MOST_METRICS = 10_000
"""Metrics whose names are kept, over all edge nodes."""

_BITS: Final = {1: 8, 2: 16, 3: 32, 4: 64}
"""Bits of the signed integers, by type."""

_DOUBLE, _BYTES, _FLOAT = 1, 2, 5
"""Types of fields on the wire; 0 is a varint."""

_BIRTH, _DATA, _DEATH = "BIRTH", "DATA", "DEATH"


class Metric(NamedTuple):
    """A metric of a payload."""

    name: str
    alias: int | None
    type: int
    """0: left out."""
    is_historical: bool
    value: object
    """None: null, or of a type that is no scalar. Integers as they are on the wire."""


def read_fields(payload: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """The fields of a message of Protocol Buffers: number and value, bytes as they are. Raises `SourceError`."""
    at, end = 0, len(payload)
    while at < end:
        tag, at = _varint(payload, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value: int | float | bytes
            value, at = _varint(payload, at)
        elif kind in (_DOUBLE, _FLOAT):
            size = 8 if kind == _DOUBLE else 4
            if at + size > end:
                raise SourceError("a payload of Sparkplug was cut")
            [value] = struct.unpack("<d" if kind == _DOUBLE else "<f", payload[at : at + size])
            at += size
        elif kind == _BYTES:
            size, at = _varint(payload, at)
            if at + size > end:
                raise SourceError("a payload of Sparkplug was cut")
            value, at = payload[at : at + size], at + size
        else:
            raise SourceError("it sent no payload of Sparkplug B")
        yield number, value


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(payload):
            raise SourceError("a payload of Sparkplug was cut")
        byte, at = payload[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise SourceError("it sent no payload of Sparkplug B")


def parse_payload(payload: bytes) -> list[Metric]:
    """The metrics of a payload. Raises `SourceError`."""
    return [_metric(value) for number, value in read_fields(payload) if number == 2 and isinstance(value, bytes)]


def _metric(payload: bytes) -> Metric:
    found = dict(read_fields(payload))
    name, alias, kind = found.get(1, b""), found.get(2), found.get(4, 0)
    value: object = next((found[number] for number in (10, 11, 12, 13, 14, 15) if number in found), None)
    if 14 in found:
        value = bool(found[14])
    if found.get(7):
        value = None
    try:
        return Metric(
            name.decode() if isinstance(name, bytes) else "",
            alias if isinstance(alias, int) else None,
            kind if isinstance(kind, int) else 0,
            bool(found.get(5)),
            value.decode()[:MAX_TEXT] if isinstance(value, bytes) else value,
        )
    except UnicodeDecodeError:
        raise SourceError("it sent no payload of Sparkplug B") from None


def signed(value: object, kind: int) -> object:
    """A value by its type: of a signed integer the low bits, sign-extended."""
    bits = _BITS.get(kind)
    if bits is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    low = value & (2**bits - 1)
    return low - 2**bits if low >= 2 ** (bits - 1) else low


Place = tuple[str, ...]
"""Group, edge node, and device if there is any."""


class SparkplugDecoder:
    """Decodes the messages of the edge nodes of a broker."""

    def __init__(self) -> None:
        self._types: dict[tuple[Place, str], int] = {}
        self._aliases: dict[tuple[Place, int], tuple[Place, str]] = {}
        """By edge node and alias."""
        self._sessions: dict[Place, object] = {}
        """The session of each edge node, as of its birth."""

    def __call__(self, topic: str, payload: bytes) -> list[Message]:
        """The messages with the values of a payload, a message for each place. Raises `SourceError`."""
        parts = topic.split("/")
        if len(parts) not in (4, 5) or parts[0] != NAMESPACE:
            return []
        group, verb, *rest = parts[1:]
        place: Place = (group, *rest)
        what, is_device = verb[1:], verb[:1] == "D"
        if what not in (_BIRTH, _DATA, _DEATH) or is_device is not (len(rest) == 2) or verb[:1] not in ("N", "D"):
            return []
        metrics = parse_payload(payload)
        if what == _DEATH:
            return self._die(place, metrics)
        if what == _BIRTH:
            self._learn(place, metrics)
        document = dict(filter(None, (self._value(place, metric) for metric in metrics)))
        return [Message(document, place)] if document else []

    def _learn(self, place: Place, metrics: list[Metric]) -> None:
        if len(place) == 2:
            self._sessions[place] = _session(metrics)
        for metric in metrics:
            key = place, metric.name
            if key in self._types or len(self._types) < MOST_METRICS:
                self._types[key] = metric.type
                if metric.alias is not None:
                    self._aliases[place[:2], metric.alias] = key
        if len(self._sessions) > MOST_METRICS or len(self._aliases) > 2 * MOST_METRICS:
            raise SourceError(f"there are more than {MOST_METRICS} edge nodes or metrics")

    def _value(self, place: Place, metric: Metric) -> tuple[str, object] | None:
        name, kind = metric.name, metric.type
        if not name and metric.alias is not None:
            born = self._aliases.get((place[:2], metric.alias))
            name = "" if born is None or born[0] != place else born[1]
        kind = kind or self._types.get((place, name), 0)
        if not name or name == "bdSeq" or metric.is_historical:
            return None
        if metric.value is None:
            return name, Unknown("its metric is null")
        return name, signed(metric.value, kind)

    def _die(self, place: Place, metrics: list[Metric]) -> list[Message]:
        session = _session(metrics)
        if len(place) == 2 and session is not None and self._sessions.get(place, session) not in (session, None):
            return []
        dead: dict[Place, dict[str, object]] = {}
        for each, name in self._types:
            if each[: len(place)] == place and name != "bdSeq":
                dead.setdefault(each, {})[name] = Unknown(f"{'/'.join(place)} is dead, as its broker tells")
        return [Message(document, each) for each, document in dead.items()]


def _session(metrics: list[Metric]) -> object:
    return next((metric.value for metric in metrics if metric.name == "bdSeq"), None)
