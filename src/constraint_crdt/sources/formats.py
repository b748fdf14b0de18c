"""Formats of payloads: decoding, and the values of a payload that mean *unknown*.

A decoder turns a payload into a document: mappings, lists and scalars, as of JSON. A value that the format declares as unknown is
an `Unknown` with the reason there. Numbers that are not finite are `Unknown` wherever they come from. Pure, but for the libraries.

Messages of robots: VDA 5050 in JSON, and ROS 2 in CDR, each with the values of its fields that mean *unknown*.

Rules kept here:

- VDA 5050, 2.x and 3.0: a battery outside of 0 to 100 % is unknown, and so is a position that is not initialized. Both versions
  give `battery_percent`, `charging`, `emergency_stop`, and counts of errors by level; lists are left out but for their lengths. A
  connection that is broken or offline makes the robot's values unknown; a robot that hibernates is silent, and well.
- ROS 2: the charge of a `BatteryState` is also `percent`, from 0 to 100; without a battery all is unknown. A `DiagnosticArray` has
  the status of each name, where STALE is unknown, and the values with units are numbers. A `NavSatFix` without a fix has no
  position, and a `Range` out of its bounds no range. Stamps are left out.

Sparkplug B: the payloads of its MQTT messages, decoded with the states that their meaning depends on.

Rules kept here:

- A metric that is null is unknown, and a historical metric is left out: it is old on purpose.
- Signed integers of 8, 16 and 32 bits are taken from their low bits: writers sign-extend them to 32 bits, or do not.
- Data may name a metric by its alias and leave out its type: both are of its birth. A metric without a birth is left out then.
- A death makes all metrics of its device unknown, that of an edge node also those of its devices; not a death of a former session.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

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


MOST_ROBOTS = 1000
MOST_ELEMENTS = 64
"""Elements of an array of a ROS 2 message. Longer ones are left out."""

# --- VDA 5050 -------------------------------------------------------------------------------------------------------------------

_BROKEN: Final = frozenset({"OFFLINE", "CONNECTIONBROKEN", "CONNECTION_BROKEN"})
_VELOCITY: Final = ("vx", "vy", "omega")
_PLACE: Final = ("x", "y", "theta", "mapId", "localizationScore", "deviationRange")


class VdaDecoder:
    """Decodes topics `…/state` and `…/connection`, of robots by the texts of the wildcards."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        """The paths of the last state of each robot."""

    def __call__(self, topic: str, payload: bytes, levels: tuple[str, ...]) -> list[Message]:
        """The values of a payload. Raises `SourceError`."""
        document = parse_json(payload)
        if not isinstance(document, dict):
            raise SourceError("it sent no object of VDA 5050")
        if topic.rpartition("/")[2] == "connection":
            return self._connection(document, levels)
        state = vda_state(document)
        if levels in self._said or len(self._said) < MOST_ROBOTS:
            self._said[levels] = [path for path, _ in leaves(state)]
        return [Message(state, levels)]

    def _connection(self, document: Mapping[str, object], levels: tuple[str, ...]) -> list[Message]:
        state = document.get("connectionState")
        found: dict[str, object] = {"connectionState": state}
        if state in _BROKEN:
            gone: dict[str, Any] = found
            for path in self._said.get(levels, ()):
                inner = gone
                for step in path[:-1]:
                    inner = inner.setdefault(step, {})
                inner[path[-1]] = Unknown(f"its connection is {state}")
        return [Message(found, levels)]


def vda_state(state: Mapping[str, object]) -> dict[str, object]:
    """A state of VDA 5050 without its lists, and with the fields that versions 2.x and 3.0 call differently."""
    found: dict[str, object] = {key: value for key, value in state.items() if not isinstance(value, list)}
    found |= {f"{key}_count": len(value) for key, value in state.items() if isinstance(value, list)}
    for key in ("batteryState", "powerSupply"):
        battery = state.get(key)
        if isinstance(battery, Mapping):
            charge = "batteryCharge" if key == "batteryState" else "stateOfCharge"
            percent = _within(battery.get(charge), 0.0, 100.0)
            found[key] = {**battery, charge: percent}
            found |= {"battery_percent": percent, "charging": battery.get("charging")}
    for key in ("agvPosition", "mobileRobotPosition"):
        position = state.get(key)
        if isinstance(position, Mapping):
            found[key] = _position(position)
    velocity = state.get("velocity")
    given = velocity if isinstance(velocity, Mapping) else {}
    found["velocity"] = {axis: _number(given.get(axis)) for axis in _VELOCITY}
    if not state.get("lastNodeId"):
        found |= dict.fromkeys(("lastNodeId", "lastNodeSequenceId"), Unknown("it was at no node yet"))
    safety = state.get("safetyState")
    if isinstance(safety, Mapping):
        found["emergency_stop"] = safety.get("eStop", safety.get("activeEmergencyStop"))
    errors = state.get("errors")
    levels = [each.get("errorLevel") for each in errors if isinstance(each, Mapping)] if isinstance(errors, list) else []
    found |= {f"errors_{level.lower()}": float(levels.count(level)) for level in ("WARNING", "FATAL")}
    return found


def _position(position: Mapping[str, object]) -> dict[str, object]:
    is_known = position.get("positionInitialized", position.get("localized", True)) is not False
    score = position.get("localizationScore")
    if is_known and score != 0:
        return {key: _number(value) if key in ("x", "y", "theta") else value for key, value in position.items()}
    why = Unknown("the robot does not know its position")
    return {key: why if key in _PLACE else value for key, value in position.items()}


def _number(value: object) -> object:
    if value is None:
        return Unknown("it is left out")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else Unknown(f"it says {value!r:.40}, which is no number")


def _within(value: object, lowest: float, highest: float) -> object:
    number = _number(value)
    if isinstance(number, int | float) and not lowest <= number <= highest:
        return Unknown(f"it says {number:g}, which is not from {lowest:g} to {highest:g}")
    return number


# --- ROS 2 ----------------------------------------------------------------------------------------------------------------------


def ros_decoder(name: str) -> Callable[[bytes], object]:
    """A decoder of messages of a type. Raises `SourceError` if `rosbags` is missing, or does not know the type."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise SourceError("messages of ROS 2 need `pip install 'constraint-crdt[ros]'`") from None
    store = get_typestore(Stores.LATEST)
    name = name if "/msg/" in name else name.replace("/", "/msg/", 1)
    if name not in store.types:
        raise SourceError(f"there is no type {name!r} among those of ROS 2, as in sensor_msgs/msg/BatteryState")
    mend = _ROS_TYPES.get(name)

    def decode(payload: bytes) -> object:
        try:
            message = store.deserialize_cdr(payload, name)
        except Exception as error:  # whatever a cut or foreign payload leads to
            raise SourceError(f"it sent no {name}: {error}") from None
        document = _plain(message)
        if not isinstance(document, dict):
            raise SourceError(f"it sent no {name}")
        return document if mend is None else mend(document)

    return decode


def _plain(value: object) -> object:
    """A message of rosbags as a document."""
    if hasattr(value, "__msgtype__"):
        return {key: _plain(each) for key, each in vars(value).items() if key not in ("__msgtype__", "header")}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(each) for each in value] if len(value) <= MOST_ELEMENTS else None
    return value


def _battery(document: dict[str, Any]) -> dict[str, Any]:
    if not document.get("present"):
        why = Unknown("there is no battery, or its message was not filled in")
        return {key: value if key == "present" else why for key, value in document.items()} | {"percent": why}
    ratio = document["percentage"]
    why = Unknown("its charge is not measured")
    document["percent"] = 100.0 * ratio if isinstance(ratio, float) and math.isfinite(ratio) else why
    return document


STALE: Final = 3


def _diagnostics(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in document.get("status") or ():
        level = status["level"]
        level = level[0] if isinstance(level, bytes) else int(level)
        values = {pair["key"]: parse_quantity(pair["value"]) for pair in status["values"] or ()}
        stale = Unknown("its diagnostic is STALE")
        found[status["name"]] = {
            **(dict.fromkeys(values, stale) if level == STALE else values),
            "level": stale if level == STALE else float(level),
            "message": status["message"],
        }
    return found


def _fix(document: dict[str, Any]) -> dict[str, Any]:
    if document["status"]["status"] < 0:
        document |= dict.fromkeys(("latitude", "longitude", "altitude"), Unknown("the receiver has no fix"))
    if document.get("position_covariance_type") == 0:
        document["position_covariance"] = Unknown("its covariance is not known")
    return document


def _range(document: dict[str, Any]) -> dict[str, Any]:
    distance = document["range"]
    if not document["min_range"] <= distance <= document["max_range"]:
        document["range"] = Unknown(f"it says {distance:g}, which is out of its range")
    return document


_ROS_TYPES: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "sensor_msgs/msg/BatteryState": _battery,
    "diagnostic_msgs/msg/DiagnosticArray": _diagnostics,
    "sensor_msgs/msg/NavSatFix": _fix,
    "sensor_msgs/msg/Range": _range,
}


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
