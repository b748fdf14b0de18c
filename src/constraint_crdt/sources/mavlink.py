"""The source `mavlink`: the messages of autopilots, parsed by `pymavlink`, from UDP, TCP or a serial device.

Rules kept here:

- Values are in V, A, %, degrees Celsius, m, m/s, degrees, s and J: the units of the definitions are converted. Times of the
  autopilot's own clock, which wrap, are left out.
- The value that the definition of a field calls invalid is unknown. The table is read from the XML that `pymavlink` ships.
- Without a fix a GPS has no position and no speed. The voltage of a battery is the sum of its cells, or of the first field alone if
  that has the whole pack; longer packs go on in the next field.
- A message of another instance than the first has its number in its name, `BATTERY_STATUS_1`.
"""

import math
import os
import re
import select
import socket
import struct
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

from constraint_crdt.sources import SourceSettings
from constraint_crdt.sources.formats import Message, SourceError, Unknown
from constraint_crdt.sources.reader import Intake, Pushed

MESSAGES: Final = (
    "HEARTBEAT", "SYS_STATUS", "BATTERY_STATUS", "GPS_RAW_INT", "GLOBAL_POSITION_INT", "VFR_HUD", "DISTANCE_SENSOR",
    "RADIO_STATUS", "EXTENDED_SYS_STATE",
)  # fmt: skip
"""The messages that are taken if no field names others."""

LOOK_EVERY = 0.25
PAUSE = 1.0
"""Seconds between two looks whether to stop, and before a link is opened again."""

_BAUD: Final = 57600

_UNITS: Final[Mapping[str, float]] = {
    "mV": 1e3, "cA": 1e2, "mA": 1e3, "d%": 10.0, "c%": 1e2, "cdegC": 1e2, "ddegC": 10.0, "cm/s": 1e2, "mm/s": 1e3, "degE7": 1e7,
    "degE5": 1e5, "cdeg": 1e2, "mdeg": 1e3, "mm": 1e3, "cm": 1e2, "dm": 10.0, "hJ": 0.01, "mG": 1e3, "ms": 1e3,
}  # fmt: skip
"""Units that are converted, each with its number in the unit that is given. A division loses no digits."""

_TEXT_ONLY: Final[Mapping[tuple[str, str], frozenset[float]]] = {
    ("BATTERY_STATUS", "time_remaining"): frozenset({0.0}),
    ("GPS_RAW_INT", "yaw"): frozenset({0.0, 65535.0}),
    ("GLOBAL_POSITION_INT", "hdg"): frozenset({65535.0}),
}
"""Values that only the text of a definition calls unknown."""

_CLOCKS: Final = frozenset({"time_boot_ms", "time_usec", "time_unix_usec"})
_NO_FIX: Final = 2
"""The fix types below have no position."""
_LIMITS: Final = {
    f"{sign}INT{bits}_MAX": float(2**bits - 1 if sign else 2 ** (bits - 1) - 1) for sign in ("U", "") for bits in (8, 16, 32, 64)
}


class _Field(NamedTuple):
    """A field as the XML describes it."""

    divisor: float
    invalid: float | None
    first: bool
    """An array is invalid as a whole if its first element is."""
    is_instance: bool


def open_source(settings: SourceSettings, _: object = None) -> Pushed:
    """The reader of a source. Raises `SourceError` if `pymavlink` is missing, or for an address of another form."""
    return MavlinkReader(settings)


@cache
def _dialect() -> Any:
    try:
        from pymavlink.dialects.v20 import ardupilotmega
    except ImportError:
        raise SourceError("sources of MAVLink need `pip install 'constraint-crdt[mavlink]'`") from None
    return ardupilotmega


@cache
def field_table() -> Mapping[tuple[str, str], _Field]:
    """The fields of the messages by message and name, from the definitions beside the parser."""
    dialect, table = _dialect(), dict[tuple[str, str], _Field]()
    folder = Path(dialect.__file__).parent
    for name in ("minimal.xml", "standard.xml", "common.xml", "ardupilotmega.xml"):
        if not (folder / name).exists():
            continue
        for message in ET.parse(folder / name).getroot().iter("message"):  # noqa: S314 - a file of an installed package
            for field in message.iter("field"):
                given = field.get("invalid", "")
                table[message.get("name", ""), field.get("name", "")] = _Field(
                    _UNITS.get(field.get("units", ""), 1.0),
                    _invalid(given.strip("[]").partition(",")[0].rstrip(":")),
                    given.endswith(":]"),
                    field.get("instance") == "true",
                )
    return table


def _invalid(text: str) -> float | None:
    if not text:
        return None
    if text in _LIMITS:
        return _LIMITS[text]
    try:
        return float(int(text, 16)) if text.lower().startswith("0x") else float(text)
    except ValueError:
        value = getattr(_dialect(), text, None)  # an entry of an enum
        return float(value) if isinstance(value, int) else None


def _value(message: str, name: str, value: object, field: _Field) -> object:
    if isinstance(value, list | tuple):
        if field.first and value and _is_invalid(value[0], field.invalid):
            return [Unknown(f"{message}.{name} is not given")] * len(value)
        return [_value(message, name, each, field) for each in value]
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode(errors="replace")
    if not isinstance(value, int | float):
        return value
    if _is_invalid(value, field.invalid) or value in _TEXT_ONLY.get((message, name), ()):
        return Unknown(f"{message}.{name} is {value:g}, which means that it is not known")
    return value / field.divisor if field.divisor != 1.0 else value


def _is_invalid(value: float, invalid: float | None) -> bool:
    if isinstance(value, float) and math.isnan(value):
        return True
    return invalid is not None and (value == invalid or math.isclose(value, invalid, rel_tol=1e-7))


_AS_IS: Final = _Field(1.0, None, False, False)


def document_of(message: Any) -> dict[str, object]:
    """The fields of a message, by its name."""
    name, table = str(message.get_type()), field_table()
    fields = {key: value for key, value in message.to_dict().items() if key != "mavpackettype" and key not in _CLOCKS}
    found = {key: _value(name, key, value, table.get((name, key), _AS_IS)) for key, value in fields.items()}
    mend = _MENDED.get(name)
    if mend is not None:
        found = mend(fields, found)
    instance = next((fields[key] for key in fields if table.get((name, key), _AS_IS).is_instance), 0)
    return {name if not instance else f"{name}_{instance}": found}


def _fix(fields: Mapping[str, Any], found: dict[str, object]) -> dict[str, object]:
    if fields["fix_type"] < _NO_FIX:
        lost = Unknown("the GPS has no fix")
        found |= {key: lost for key in found if key not in ("fix_type", "satellites_visible")}
    return found


def _battery(_: Mapping[str, Any], found: dict[str, object]) -> dict[str, object]:
    cells = [each for key in ("voltages", "voltages_ext") for each in _list(found.get(key)) if isinstance(each, int | float)]
    found["voltage"] = sum(cells) if cells else Unknown("no cell has a voltage")
    return found


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _distance(fields: Mapping[str, Any], found: dict[str, object]) -> dict[str, object]:
    if fields.get("signal_quality") == 1:
        found["current_distance"] = Unknown("the signal of the sensor is invalid")
    return found


def _heartbeat(fields: Mapping[str, Any], found: dict[str, object]) -> dict[str, object]:
    return {**found, "armed": bool(fields["base_mode"] & 128)}


_MENDED: Final[Mapping[str, Callable[[Mapping[str, Any], dict[str, object]], dict[str, object]]]] = {
    "GPS_RAW_INT": _fix,
    "BATTERY_STATUS": _battery,
    "DISTANCE_SENSOR": _distance,
    "HEARTBEAT": _heartbeat,
}


class StreamParser:
    """Parses the bytes of a link. Bytes outside of messages are left out."""

    def __init__(self) -> None:
        self._parser = _dialect().MAVLink(None)
        self._parser.robust_parsing = True

    def parse(self, data: bytes) -> Iterator[Any]:
        """The messages that are complete with these bytes."""
        try:
            yield from (each for each in self._parser.parse_buffer(data) or () if each.get_type() != "BAD_DATA")
        except (_dialect().MAVError, struct.error):
            self._parser = _dialect().MAVLink(None)
            self._parser.robust_parsing = True


_ADDRESS: Final = re.compile(r"(udpin|tcp):(\[[^\]]+\]|[^:\[\]]*):(\d{1,5})|(/[^,]+)(?:,(\d+))?")


class MavlinkReader:
    """Reads messages of a link."""

    def __init__(self, settings: SourceSettings) -> None:
        address = _ADDRESS.fullmatch(settings.address)
        if address is None:
            raise SourceError(f"{settings.address!r} is no address: give udpin:HOST:PORT, tcp:HOST:PORT, or /dev/DEVICE[,BAUD]")
        self._scheme, self._host, self._port, self._device, self._baud = address.groups()
        named = {field.path.partition(".")[0] for field in settings.fields.values()}
        self._wanted = {re.sub(r"_\d+$", "", each) for each in named} | named if named else set(MESSAGES)
        self._stop = threading.Event()
        field_table()

    def start(self, sink: Intake) -> None:
        """Read in a thread, until `close`. A link that breaks is opened again."""
        threading.Thread(target=self._read, args=(sink,), name="mavlink", daemon=True).start()

    def close(self) -> None:
        """Stop reading, soon."""
        self._stop.set()

    def _read(self, sink: Intake) -> None:
        while not self._stop.is_set():
            try:
                number = self._open()
            except OSError as error:
                sink.fail(f"the link cannot be opened: {error.strerror or error}")
            except SourceError as error:
                sink.fail(f"the link cannot be opened: {error}")
            else:
                try:
                    sink.connected()
                    self._receive(number, sink)
                except OSError as error:
                    sink.fail(f"the link is broken: {error.strerror or error}")
                finally:
                    os.close(number)
            self._stop.wait(PAUSE)

    def _receive(self, number: int, sink: Intake) -> None:
        parser = StreamParser()
        while not self._stop.is_set():
            if not select.select([number], [], [], LOOK_EVERY)[0]:
                continue
            data = os.read(number, 65536)
            if not data and self._scheme != "udpin":
                sink.fail("the other end closed the link")
                return
            for message in parser.parse(data):
                if message.get_type() in self._wanted:
                    sink.put(Message(document_of(message), (str(message.get_srcSystem()),)))

    def _open(self) -> int:
        """The number of an open file. Raises `OSError`, and `SourceError` for a device that is not serial."""
        if self._device:
            return _open_serial(self._device, int(self._baud or _BAUD))
        host = self._host.strip("[]")
        if self._scheme == "tcp":
            return socket.create_connection((host, int(self._port)), 10.0).detach()
        found = socket.getaddrinfo(host or None, int(self._port), type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as link:
            link.bind(address)
            return os.dup(link.fileno())


def _open_serial(device: str, baud: int) -> int:
    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        raise SourceError(f"{baud} is no baud rate")
    number = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(number)
        settings = termios.tcgetattr(number)
        settings[4] = settings[5] = speed
        termios.tcsetattr(number, termios.TCSANOW, settings)
    except termios.error as error:
        os.close(number)
        raise SourceError(f"{device} is no serial device: {error}") from None
    return number
