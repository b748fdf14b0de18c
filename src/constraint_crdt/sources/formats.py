"""Formats of payloads: decoding, and the values of a payload that mean *unknown*.

A decoder turns a payload into a document: mappings, lists and scalars, as of JSON. A value that the format declares as unknown is
an `Unknown` with the reason there. Numbers that are not finite are `Unknown` wherever they come from. Pure, but for the libraries.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.errors import ConstraintCrdtError

MAX_PAYLOAD = 1024 * 1024
"""The longest payload, in bytes."""

MAX_DEPTH = 16
MOST_LEAVES = 5000
"""Levels and scalars of a document that are looked at."""

MAX_TEXT = 1024
"""Characters of a text that are kept."""


class SourceError(ConstraintCrdtError):
    """A source cannot be read. `str()` is the reason, as a part of a sentence."""


class Unknown(NamedTuple):
    """In place of a value that a source says not to know."""

    why: str


class Message(NamedTuple):
    """A decoded payload."""

    document: object
    levels: tuple[str, ...] = ()
    """The texts of the wildcards, of a source with topics."""


Decoder = Callable[[bytes], object]


def check_size(payload: bytes | bytearray) -> None:
    """Raise `SourceError` for a payload beyond `MAX_PAYLOAD`."""
    if len(payload) > MAX_PAYLOAD:
        raise SourceError(f"it sent {len(payload)} bytes, of {MAX_PAYLOAD} at most")


def decoder(name: str) -> Decoder:
    """The decoder of a format without a state."""
    return _DECODERS[name]


def text_of(payload: bytes) -> str:
    """The payload as a text. Raises `SourceError` if it is none."""
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SourceError("it sent something that is no text in UTF-8") from None


def parse_json(payload: bytes) -> object:
    """A JSON document. Raises `SourceError`."""
    if not payload.strip():
        raise SourceError("it sent nothing")
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SourceError(f"it sent no JSON: {error}") from None


def parse_msgpack(payload: bytes) -> object:
    """A document in MessagePack. Raises `SourceError`."""
    try:
        return msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SourceError(f"it sent no MessagePack: {error}") from None


_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_QUANTITY: Final = re.compile(rf"({_NUMBER.pattern})\s*([%°µa-zA-Z][^\s\d]{{0,15}})?")
_NO_VALUE: Final = frozenset(
    {"", "nan", "none", "null", "n/a", "na", "unknown", "unavailable", "-", "--", "u", "inf", "-inf", "+inf"}
)


def parse_quantity(text: str) -> object:
    """The number of a text such as `-71 dBm` or `42%`; `Unknown` for an empty text and words for no value; else the text."""
    stripped = text.strip()
    if stripped.lower() in _NO_VALUE:
        return Unknown(f"it says {text!r}")
    found = _QUANTITY.fullmatch(stripped)
    return float(found[1]) if found else stripped[:MAX_TEXT]


def parse_number(payload: bytes) -> object:
    """A number, with a unit or without. Raises `SourceError` for another text."""
    value = parse_quantity(text_of(payload))
    if isinstance(value, str):
        raise SourceError(f"it sent {value[:40]!r}, which is no number")
    return {"value": value}


def parse_text(payload: bytes) -> object:
    """The whole payload as a text."""
    return {"value": text_of(payload).strip()[:MAX_TEXT]}


def parse_pairs(payload: bytes) -> object:
    """Lines or words `key=value` or `key: value`. Numbers with units are numbers. Raises `SourceError` if there are none."""
    found: dict[str, object] = {}
    for line in text_of(payload).splitlines():
        for key, value in _pairs_of(line.strip()):
            found[key] = parse_quantity(value)
    if not found:
        raise SourceError("it sent no `key=value`")
    return found


_PAIR: Final = re.compile(r"""([\w./:-]+)=("[^"]*"|'[^']*'|\S*)""")
_LINE: Final = re.compile(r"([\w./ -]+?)\s*[:=]\s*(.*)")


def _pairs_of(line: str) -> Iterator[tuple[str, str]]:
    pairs = _PAIR.findall(line)
    if len(pairs) > 1:
        yield from ((key, value.strip("\"'")) for key, value in pairs)
    elif line and not line.startswith("#") and (found := _LINE.fullmatch(line)):
        yield found[1], found[2].strip("\"'")


# --- monitoring plugins ---------------------------------------------------------------------------------------------------------

STATES: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
"""The states of a plugin, by exit code."""

_PERFORMANCE: Final = re.compile(r"('(?:[^']|'')*'|[^\s=']+)=([^\s;]*)((?:;[^\s;]*)*)")
_SCALES: Final = {
    "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9,
    "b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "pb": 1e15,
    "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40,
    "%": 1.0, "c": 1.0, "": 1.0,
}  # fmt: skip
"""Units of performance data, to seconds and bytes. As the plugins count: 1 MB is 1,000,000 bytes, 1 MiB is 2**20."""


def parse_nagios(output: bytes, exit_code: int) -> object:
    """The output of a monitoring plugin: `state`, `code` (0 OK, 1 WARNING, 2 CRITICAL), `message`, and the performance data by
    label, in seconds and bytes. State and code are `Unknown` for exit code 3. Raises `SourceError` for other exit codes.
    """
    if exit_code not in range(len(STATES)):
        raise SourceError(f"the plugin ended with exit code {exit_code}, which means nothing to the plugin API")
    lines = text_of(output).splitlines() or [""]
    message, _, performance = lines[0].partition("|")
    rest = "\n".join(lines[1:])
    for part in rest.split("|")[1:]:
        performance += f" {part}"
    known = exit_code != STATES.index("UNKNOWN")
    why = Unknown(f"the plugin ended with exit code 3, UNKNOWN: {message.strip()[:200]}")
    document: dict[str, object] = {
        "state": STATES[exit_code] if known else why,
        "code": float(exit_code) if known else why,
        "message": message.strip()[:MAX_TEXT],
    }
    for label, value, _ in _PERFORMANCE.findall(performance):
        name = label[1:-1].replace("''", "'") if label.startswith("'") else label
        document[name] = _performance(value)
    return document


def _performance(text: str) -> object:
    found = re.fullmatch(rf"({_NUMBER.pattern})([a-zA-Z%]*)", text.replace(",", "."))
    if found is None:
        return Unknown(f"the plugin says {text[:40]!r}")
    scale = _SCALES.get(found[2].lower())
    return float(found[1]) * (1.0 if scale is None else scale)


# --- NMEA 0183 ------------------------------------------------------------------------------------------------------------------

KNOT: Final = 1852.0 / 3600.0
"""Metres per second."""

_NO_DILUTION: Final = 99.0
"""A dilution of precision from here on means none: 99.99 in most receivers."""


def parse_nmea(payload: bytes) -> object:
    """Sentences of NMEA 0183 with a right checksum: GGA, RMC, XDR. A position without a fix is `Unknown`. Speeds are in m/s.

    Raises `SourceError` if there is no sentence.
    """
    document: dict[str, object] = {}
    for line in text_of(payload).split():
        found = re.fullmatch(r"[$!]([A-Z]{2,5}[A-Z]{3}|P[A-Z0-9]+),([^*]*)(?:\*([0-9A-Fa-f]{2}))?", line)
        if found is None:
            continue
        body = line[1:].partition("*")[0]
        checksum = 0
        for byte in body.encode():
            checksum ^= byte
        if found[3] is not None and int(found[3], 16) != checksum:
            raise SourceError(f"the checksum of a sentence {found[1]} is wrong")
        parse = _SENTENCES.get(found[1][-3:])
        if parse is not None:
            document |= parse(found[2].split(","))
    if not document:
        raise SourceError("it sent no sentence GGA, RMC or XDR of NMEA 0183")
    return document


def _part(parts: Sequence[str], index: int) -> str:
    return parts[index] if index < len(parts) else ""


def _nmea_number(text: str) -> object:
    return float(text) if _NUMBER.fullmatch(text) else Unknown("the field of the sentence is empty")


def _coordinate(text: str, side: str) -> object:
    if not _NUMBER.fullmatch(text) or side not in ("N", "S", "E", "W"):
        return Unknown("the field of the sentence is empty")
    degrees, minutes = divmod(float(text), 100.0)
    return (degrees + minutes / 60.0) * (-1.0 if side in "SW" else 1.0)


def _gga(parts: Sequence[str]) -> dict[str, object]:
    quality = _part(parts, 5)
    fixed = quality not in ("", "0")
    lost = Unknown("the receiver has no fix")
    dilution = _nmea_number(_part(parts, 7))
    if isinstance(dilution, float) and dilution >= _NO_DILUTION:
        dilution = Unknown(f"a dilution of {dilution:g} means none")
    return {
        "quality": float(quality) if quality.isdigit() else Unknown("the field of the sentence is empty"),
        "satellites": _nmea_number(_part(parts, 6)),
        "latitude": _coordinate(_part(parts, 1), _part(parts, 2)) if fixed else lost,
        "longitude": _coordinate(_part(parts, 3), _part(parts, 4)) if fixed else lost,
        "dilution": dilution if fixed else lost,
        "altitude_m": _nmea_number(_part(parts, 8)) if fixed else lost,
    }


def _rmc(parts: Sequence[str]) -> dict[str, object]:
    valid, lost = _part(parts, 1) == "A", Unknown("the receiver has no fix")
    speed = _nmea_number(_part(parts, 6))
    return {
        "latitude": _coordinate(_part(parts, 2), _part(parts, 3)) if valid else lost,
        "longitude": _coordinate(_part(parts, 4), _part(parts, 5)) if valid else lost,
        "speed_mps": lost if not valid else speed * KNOT if isinstance(speed, float) else speed,
        "course_deg": _nmea_number(_part(parts, 7)) if valid else lost,
    }


def _xdr(parts: Sequence[str]) -> dict[str, object]:
    """Transducers, by their names."""
    groups = [parts[at : at + 4] for at in range(0, len(parts) - 3, 4)]
    return {name: _nmea_number(value) for _, value, _, name in groups if name}


_SENTENCES: Final[Mapping[str, Callable[[Sequence[str]], dict[str, object]]]] = {"GGA": _gga, "RMC": _rmc, "XDR": _xdr}


# --- OpenTelemetry --------------------------------------------------------------------------------------------------------------

_NO_RECORDED_VALUE: Final = 1
_DELTA: Final = 1


class OtlpDecoder:
    """Metrics in the JSON form of OTLP, by name: gauges, and sums as totals. Deltas are added up, since the first here."""

    def __init__(self) -> None:
        self._totals: dict[str, float] = {}

    def __call__(self, payload: bytes) -> object:
        """The metrics of a payload. Raises `SourceError`."""
        document = parse_json(payload)
        found: dict[str, object] = {}
        for metric in _walk(document, ("resourceMetrics", "scopeMetrics", "metrics")):
            name = metric.get("name")
            if isinstance(name, str):
                found.update(self._points(name, metric))
        if not found:
            raise SourceError("it sent no metrics in the form of OTLP (`resourceMetrics`)")
        return found

    def _points(self, name: str, metric: Mapping[str, object]) -> Iterator[tuple[str, object]]:
        for shape in ("gauge", "sum"):
            data = metric.get(shape)
            points = data.get("dataPoints") if isinstance(data, Mapping) else None
            if not isinstance(points, list) or not isinstance(data, Mapping):
                continue
            for point in points:
                if isinstance(point, Mapping):
                    labels = _otlp_labels(point.get("attributes"))
                    key = f"{name}{{{labels}}}" if labels else name
                    value = _otlp_value(point)
                    if shape == "sum" and data.get("aggregationTemporality") in (_DELTA, "AGGREGATION_TEMPORALITY_DELTA"):
                        value = self._add(key, value)
                    yield key, value

    def _add(self, key: str, value: object) -> object:
        if not isinstance(value, int | float):
            return value
        if key not in self._totals and len(self._totals) >= MOST_LEAVES:
            raise SourceError(f"it sends more than {MOST_LEAVES} sums of changes")
        self._totals[key] = self._totals.get(key, 0.0) + value
        return self._totals[key]


def _walk(document: object, keys: Sequence[str]) -> Iterator[Mapping[str, object]]:
    if isinstance(document, Mapping) and keys:
        inner = document.get(keys[0])
        for each in inner if isinstance(inner, list) else ():
            yield from _walk(each, keys[1:])
    elif isinstance(document, Mapping):
        yield document


def _otlp_labels(attributes: object) -> str:
    pairs = []
    for each in attributes if isinstance(attributes, list) else ():
        value = each.get("value") if isinstance(each, Mapping) else None
        if isinstance(value, Mapping) and value:
            pairs.append(f'{each["key"]}="{next(iter(value.values()))}"')
    return ",".join(sorted(pairs))


def _otlp_value(point: Mapping[str, object]) -> object:
    flags = point.get("flags", 0)
    if isinstance(flags, int) and flags & _NO_RECORDED_VALUE:
        return Unknown("its data point says that there is no recorded value")
    value = point.get("asDouble", point.get("asInt"))
    if isinstance(value, str):  # 64-bit integers, and NaN, are texts in this form
        try:
            return int(value) if "asInt" in point else float(value)
        except ValueError:
            return Unknown(f"its data point says {value[:40]!r}")
    return Unknown("its data point has no value") if value is None else value


# --- documents ------------------------------------------------------------------------------------------------------------------


def look_up(document: object, path: str) -> object:
    """The value at a path; `MISSING` if there is none. A key that is the whole path has precedence over a way along points."""
    if isinstance(document, Mapping) and path in document:
        return document[path]
    if path.startswith("/"):
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
    else:
        steps = path.split(".")
    for step in steps:
        if isinstance(document, Mapping):
            if step not in document:
                return MISSING
            document = document[step]
        elif isinstance(document, list) and step.isascii() and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return document if isinstance(document, Unknown) else MISSING
    return document


MISSING: Final = Unknown("it is not in what the source sends")


def leaves(document: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """The scalars of a document with their paths, as far as `MAX_DEPTH`. Keys that are no texts are left out."""
    if isinstance(document, Unknown):
        yield path, document
    elif len(path) > MAX_DEPTH:
        return
    elif isinstance(document, Mapping):
        for key, value in document.items():
            if isinstance(key, str):
                yield from leaves(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from leaves(value, (*path, str(index)))
    else:
        yield path, document


def scalar(value: object) -> object:
    """A value as it counts: a finite number, a text, true or false; else `Unknown`."""
    if isinstance(value, bool | Unknown):
        return value
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return Unknown("its number is too large")
        return number if math.isfinite(number) else Unknown(f"it says {number}")
    if isinstance(value, str):
        return value[:MAX_TEXT]
    return Unknown("it says null") if value is None else Unknown("it sends a list, a map or bytes there: name a path into it")


_DECODERS: Final[Mapping[str, Decoder]] = {
    "json": parse_json,
    "msgpack": parse_msgpack,
    "number": parse_number,
    "text": parse_text,
    "pairs": parse_pairs,
    "nmea": parse_nmea,
}


def make_decoder(name: str) -> Decoder:
    """A decoder with a state of its own, if the format has a state."""
    return OtlpDecoder() if name == "otlp" else decoder(name)
