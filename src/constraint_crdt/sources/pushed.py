"""Sources that send by themselves: a network of Zenoh, a broker of MQTT, autopilots.

The source `zenoh`: publications of other programs in a network of Zenoh, by key expressions; with ROS 2 over Zenoh its topics.

It is on the session of the node, which finds its way through the network anyhow. With `connect` it has a session of its own, as the
links of a node with an identity carry the messages of its fleet only.

The source `mqtt`: topics of a broker, by the client `paho`, in a thread of its own; and publishing at a broker, for actions. Rules:

- The client speaks MQTT 5.0. It connects again by itself, after 1 s, later after 30 s at most, and subscribes anew.
- A session without a `client_id` ends with its connection. With a `client_id` the broker keeps it for an hour and sends the missed
  messages, with quality of service 1.
- A retained message may have any age: it counts from its arrival, as nothing tells its time.
- Of the messages that are read at once only the last of each topic is decoded, of those of quality 0; those before are dropped and
  counted, as the rule of `Pushed` would drop their values. So for the formats of `WHOLE`, whose messages have a single value. Of
  others, whose messages may have different fields, only in a flood: when a whole piece of `PIECE` bytes waits. Not of Sparkplug,
  whose messages have only the changed metrics: the broker waits when this end does not keep up.
- A message is published with quality of service 1, in a session of its own, and counts as published once the broker says so. So no
  client keeps a message back to send it later, behind a younger message.

The source `mavlink`: the messages of autopilots, parsed by `pymavlink`, from UDP, TCP or a serial device. Rules:

- Values are in V, A, %, degrees Celsius, m, m/s, degrees, s and J: the units of the definitions are converted. Times of the
  autopilot's own clock, which wrap, are left out.
- The value that the definition of a field calls invalid is unknown. The table is read from the XML that `pymavlink` ships.
- Without a fix a GPS has no position and no speed. The voltage of a battery is the sum of its cells, or of the first field alone if
  that has the whole pack; longer packs go on in the next field.
- A message of another instance than the first has its number in its name, `BATTERY_STATUS_1`.
"""

import contextlib
import json
import math
import os
import re
import select
import socket
import ssl
import struct
import sys
import termios
import threading
import time
import tty
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from xml.etree import ElementTree as ET

import zenoh

from constraint_crdt.sources import Intake, Pushed, SourceSettings
from constraint_crdt.sources.formats import (
    MAX_PAYLOAD,
    Message,
    SourceError,
    SparkplugDecoder,
    Unknown,
    VdaDecoder,
    check_size,
    make_decoder,
    ros_decoder,
)
from constraint_crdt.sources.polled import TlsFiles, read_secret, tls_context
from constraint_crdt.transport import SubscribingTransport, TransportError

RETRY = {"period_init_ms": 200, "period_max_ms": 4000, "period_increase_factor": 1.5}


def open_source(settings: SourceSettings, transport: object = None) -> Pushed:
    """The reader of a source of kind mqtt, mavlink or zenoh.

    Raises `SourceError` for a missing library, a file or address that cannot be used, and a transport that carries nodes only.
    """
    if settings.kind == "mqtt":
        return MqttReader(settings)
    if settings.kind == "mavlink":
        return MavlinkReader(settings)
    if settings.connect:
        return ZenohReader(settings, OwnSession(settings.connect))
    if not isinstance(transport, SubscribingTransport):
        raise SourceError("this node has no session of Zenoh: give the source `connect`, the endpoints of a session of its own")
    return ZenohReader(settings, transport)


def matched_chunks(pattern: str, key: str) -> tuple[str, ...] | None:
    """The texts of the wildcards `*` and `**` of a key expression in a key; None if it does not match."""
    return _matched(pattern.split("/"), key.split("/"))


def _matched(steps: Sequence[str], chunks: Sequence[str]) -> tuple[str, ...] | None:
    if not steps:
        return None if chunks else ()
    if steps[0] == "**":
        for size in range(len(chunks) + 1):
            rest = _matched(steps[1:], chunks[size:])
            if rest is not None:
                return (*chunks[:size], *rest)
        return None
    if not chunks or (steps[0] not in ("*", chunks[0]) and "$*" not in steps[0]):
        return None
    rest = _matched(steps[1:], chunks[1:])
    return None if rest is None else (*((chunks[0],) if "*" in steps[0] else ()), *rest)


class OwnSession:
    """A session beside that of the node."""

    def __init__(self, connect: Sequence[str]) -> None:
        self._connect = list(connect)

    def subscribe(self, keys: Sequence[str], take: Callable[[str, bytes], None]) -> Callable[[], None]:
        """See `SubscribingTransport.subscribe`. Tries its endpoints again and again. Raises `TransportError`."""
        config = {
            "mode": "peer",
            "listen": {"endpoints": []},
            "connect": {"endpoints": self._connect, "timeout_ms": -1, "exit_on_failure": False, "retry": RETRY},
            "open": {"return_conditions": {"connect_scouted": False}},
            "scouting": {"multicast": {"enabled": False}, "gossip": {"enabled": False}},
        }

        def on_sample(sample: zenoh.Sample) -> None:
            if sample.kind == zenoh.SampleKind.PUT:
                take(str(sample.key_expr), sample.payload.to_bytes())

        try:
            session = zenoh.open(zenoh.Config.from_json5(json.dumps(config)))
            held = [session.declare_subscriber(key, zenoh.handlers.Callback(on_sample, indirect=False)) for key in keys]
        except zenoh.ZError as error:
            raise TransportError(f"no session with {', '.join(self._connect)}: {error}") from None

        def end() -> None:
            held.clear()
            with contextlib.suppress(zenoh.ZError):
                session.close()  # type: ignore[no-untyped-call]  # the stub leaves the return type out

        return end


class ZenohReader:
    """Subscribes to key expressions."""

    def __init__(self, settings: SourceSettings, transport: SubscribingTransport) -> None:
        self._settings = settings
        self._transport = transport
        self._robots = VdaDecoder() if settings.payload_format == "vda5050" else None
        form = settings.payload_format
        self._decode = ros_decoder(settings.type) if form == "ros2" else make_decoder("json" if form == "vda5050" else form)
        self._end: Callable[[], None] = lambda: None

    def start(self, sink: Intake) -> None:
        """Subscribe. Raises `SourceError` for a key expression that is none."""
        keys = self._settings.keys

        def take(key: str, payload: bytes) -> None:
            levels = next((found for each in keys if (found := matched_chunks(each, key)) is not None), ())
            try:
                check_size(payload)
                for message in self._messages(key, payload, levels):
                    sink.put(message)
            except SourceError as error:
                sink.fault(f"{error} (key {key})")

        try:
            self._end = self._transport.subscribe(keys, take)
        except TransportError as error:
            raise SourceError(f"{error}; `connect` gives the source a session of its own") from None

    def close(self) -> None:
        """Subscribe no longer."""
        self._end()

    def _messages(self, key: str, payload: bytes, levels: tuple[str, ...]) -> list[Message]:
        if self._robots is not None:
            return self._robots(key, payload, levels)
        document = self._decode(payload)
        return [Message(document if isinstance(document, dict | list) else {"value": document}, levels)]


PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
KEEP_ALIVE = 20
"""Seconds after which a silent link is probed."""

LONGEST_PAUSE = 30
PIECE = 64 * 1024
"""Bytes that are read at once."""

WHOLE: Final = frozenset({"number", "text"})
"""The formats whose messages have a single value: the next message of the topic replaces it."""

MANY: Final = 50
PAUSE: Final = 0.01
"""Messages that are dropped at once, above which the client waits for so many seconds: then it reads more at once."""

MOST_HEAD = 128 * 1024
"""Bytes of a packet beside its payload, at most: a topic and properties."""

PUBLISH = 0x30
"""The first byte of a message of quality 0."""

PACKETS = 1000
"""Packets that are read before the client looks for packets to send."""

TURN: Final = 16
"""Packets after which other threads of the node have a turn: the interpreter would let them wait for 5 ms."""

SESSION_SECONDS = 3600
"""Seconds for which the broker keeps a session."""

TopicDecoder = Callable[[str, bytes], list[Message]]


def matched_levels(pattern: str, topic: str) -> tuple[str, ...] | None:
    """The texts of the wildcards of a pattern in a topic; None if it does not match."""
    levels: list[str] = []
    steps, parts = pattern.split("/"), topic.split("/")
    if steps[:1] == ["$share"]:
        steps = steps[2:]
    for at, step in enumerate(steps):
        if step == "#":
            return (*levels, *parts[at:])
        if at >= len(parts) or step not in ("+", parts[at]):
            return None
        if step == "+":
            levels.append(parts[at])
    return tuple(levels) if len(parts) == len(steps) else None


@lru_cache(maxsize=4096)
def levels_of(patterns: tuple[str, ...], topic: str) -> tuple[str, ...]:
    """The texts of the wildcards of the first pattern that matches."""
    return next((found for pattern in patterns if (found := matched_levels(pattern, topic)) is not None), ())


def topic_decoder(settings: SourceSettings) -> TopicDecoder:
    """The decoder of payloads with their topics. Raises `SourceError` if a library is missing."""
    if settings.payload_format == "sparkplug":
        return SparkplugDecoder()
    if settings.payload_format == "vda5050":
        robots = VdaDecoder()
        return lambda topic, payload: robots(topic, payload, levels_of(settings.topics, topic))
    decode = make_decoder(settings.payload_format)
    return lambda topic, payload: [Message(_named(decode(payload)), levels_of(settings.topics, topic))]


def _named(document: object) -> object:
    """A payload that is a scalar, as `{"value": …}`."""
    return document if isinstance(document, dict | list) else {"value": document}


class _ClosedOnFailure(ssl.SSLSocket):
    """A socket that is closed if the handshake fails: the client leaves that to the collector of garbage."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def split_packets(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """The places of the whole packets, each with its beginning, its body and its end; and the end of the last. Raises `SourceError`
    for bytes that are no packet, and for a packet beyond `MAX_PAYLOAD`.
    """
    places: list[tuple[int, int, int]] = []
    at, size = 0, len(data)
    while at + 2 <= size:
        length, body, shift = data[at + 1], at + 2, 7
        while length >= 1 << shift:  # the length goes on in the next byte
            if body >= size:
                return places, at
            length = (length & ~(1 << shift)) | data[body] << shift
            body, shift = body + 1, shift + 7
            if shift > 28:
                raise SourceError("the broker sent no packet of MQTT")
        if length > MAX_PAYLOAD + MOST_HEAD:
            raise SourceError(f"the broker sent a packet of {length} bytes")
        if body + length > size:
            break
        places.append((at, body, body + length))
        at = body + length
    return places, at


def thin(data: bytes, places: Sequence[tuple[int, int, int]]) -> tuple[bytes, int]:
    """The packets without the messages of quality 0 that are followed by another of their topic; and how many these were."""
    kept: dict[object, tuple[int, int]] = {}
    for start, body, end in places:
        key: object = start
        if data[start] & 0xF6 == PUBLISH:
            key = data[body : body + 2 + int.from_bytes(data[body : body + 2], "big")]
            kept.pop(key, None)
        kept[key] = start, end
    return b"".join(data[start:end] for start, end in kept.values()), len(places) - len(kept)


class BufferedSocket:
    """A socket whose bytes are read in large pieces. The client asks for a byte or two at a time, and each call of the system would
    hand the interpreter over to another thread.

    With `skipped`, which takes a number of messages, a piece of `least` bytes and more is thinned.
    """

    def __init__(self, inner: socket.socket, skipped: Callable[[int], None] | None = None, least: int = PIECE) -> None:
        self._inner = inner
        self._skipped = skipped
        self._least = least
        self._is_flooded = False
        self._buffer = b""
        self._at = 0
        self._rest = b""
        """The beginning of a packet whose end is not there yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv(self, size: int) -> bytes:
        """The next bytes of whole packets, fewer than `size` at the end of a piece; none at the end, and for bytes that are no
        packet. Raises as the socket does.
        """
        while self._at >= len(self._buffer):
            if self._is_flooded:
                time.sleep(PAUSE)
            piece = self._inner.recv(PIECE)
            if not piece:
                return b""
            data = self._rest + piece
            try:
                places, end = split_packets(data)
            except SourceError:
                return b""
            self._rest, self._buffer, self._at = data[end:], data[:end], 0
            if self._skipped is not None and len(piece) >= self._least:
                self._buffer, skipped = thin(data, places)
                self._is_flooded = skipped > MANY
                if skipped:
                    self._skipped(skipped)
        part = self._buffer[self._at : self._at + size]
        self._at += len(part)
        return part

    def pending(self) -> int:
        """The bytes that are here already."""
        left = len(self._buffer) - self._at
        return left or (self._inner.pending() if isinstance(self._inner, ssl.SSLSocket) else 0)

    def fileno(self) -> int:
        """For `select`."""
        return self._inner.fileno()


@cache
def client_type() -> Any:
    """The client of paho, reading many packets at a time. Raises `SourceError` if it is missing."""
    try:
        import paho.mqtt.client as paho
    except ImportError:
        raise SourceError("MQTT needs `pip install 'constraint-crdt[mqtt]'`") from None

    class Client(paho.Client):
        skipped: Callable[[int], None] | None = None
        least = PIECE

        def _create_socket(self) -> Any:
            link: Any = super()._create_socket()
            return BufferedSocket(link, self.skipped, self.least)

        def loop_read(self, max_packets: int = 1) -> Any:
            outcome = super().loop_read(max_packets)
            for number in range(PACKETS):
                if number % TURN == TURN - 1:
                    time.sleep(0)
                link: Any = self.socket()
                if outcome != paho.MQTT_ERR_SUCCESS or link is None or not link.pending():
                    break
                outcome = super().loop_read(max_packets)
            return outcome

    return Client


class MqttReader:
    """Subscribes to topics."""

    def __init__(self, settings: SourceSettings) -> None:
        make = client_type()
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self._settings = settings
        self._decode = topic_decoder(settings)
        self._sink: Intake | None = None
        self._is_refused = False
        self._client = client = make(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=True,
        )
        client.reconnect_delay_set(1, LONGEST_PAUSE)
        self._parts = urllib.parse.urlsplit(settings.url)
        _prove(client, settings, self._parts.scheme)
        self._properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._properties.MaximumPacketSize = MAX_PAYLOAD
        if settings.client_id:
            self._properties.SessionExpiryInterval = SESSION_SECONDS
        client.on_connect, client.on_connect_fail = self._connected, self._no_connection
        client.on_disconnect, client.on_message, client.on_subscribe = self._disconnected, self._message, self._subscribed

    def start(self, sink: Intake) -> None:
        """Connect, and go on trying."""
        self._sink = sink
        if self._settings.payload_format != "sparkplug":  # its messages have what has changed only
            self._client.skipped = sink.skip
            self._client.least = 0 if self._settings.payload_format in WHOLE else PIECE
        port = self._parts.port or PORTS[self._parts.scheme]
        self._client.connect_async(
            self._parts.hostname or "", port, KEEP_ALIVE, clean_start=not self._settings.client_id, properties=self._properties
        )
        self._client.loop_start()

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: Any, _: object, __: object, reason: Any, ___: object) -> None:
        if reason.is_failure:
            self._is_refused = True
            self._down(f"the broker refuses the connection: {reason}")
            return
        self._is_refused = False
        client.subscribe([(topic, 1) for topic in self._settings.topics])

    def _subscribed(self, _: object, __: object, ___: object, reasons: list[Any], ____: object) -> None:
        refused = [topic for topic, reason in zip(self._settings.topics, reasons, strict=False) if reason.is_failure]
        if refused:
            self._down(f"the broker refuses the subscription to {', '.join(refused)}")
        elif self._sink is not None:
            self._sink.connected()

    def _no_connection(self, _: object, __: object) -> None:
        self._down(_unreached(sys.exception()))  # the client calls this where it has caught the error

    def _disconnected(self, _: object, __: object, ___: object, reason: Any, ____: object) -> None:
        if not self._is_refused:
            self._down(f"the connection to the broker ended: {reason}")

    def _down(self, why: str) -> None:
        if self._sink is not None:
            self._sink.fail(why)

    def _message(self, _: object, __: object, message: Any) -> None:
        sink = self._sink
        if sink is None:
            return
        try:
            for each in self._decode(message.topic, message.payload):
                sink.put(each)
        except SourceError as error:
            sink.fault(f"{error} (topic {message.topic})")


def _unreached(error: BaseException | None) -> str:
    why = (error.strerror or str(error)) if isinstance(error, OSError) else ""
    return f"the broker cannot be reached{f': {why}' if why else ''}"


class Login(TlsFiles, Protocol):
    """How to prove oneself to a broker, in the settings of a source or an action."""

    @property
    def username(self) -> str:
        """Empty for none."""

    @property
    def password_file(self) -> str:
        """The file with the password; none if empty."""


def _prove(client: Any, login: Login, scheme: str) -> None:
    """Give a client its password and TLS. Raises `SourceError` for files that cannot be used."""
    if login.username or login.password_file:
        client.username_pw_set(login.username, read_secret(login.password_file) if login.password_file else None)
    if scheme == "mqtts":
        context = tls_context(login)
        context.sslsocket_class = _ClosedOnFailure
        client.tls_set_context(context)


# --- publishing -------------------------------------------------------------------------------------------------------------


class Publisher:
    """Publishes at a broker."""

    def __init__(self, url: str, login: Login, seconds: float) -> None:
        """`seconds`: for which a broker may take to answer. Raises `SourceError` without the client, and for files that cannot be
        used; they are read anew for each message.
        """
        self._parts, self._login, self._seconds = urllib.parse.urlsplit(url), login, seconds
        self._make()

    def _make(self) -> Any:
        make = client_type()
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        client = make(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        _prove(client, self._login, self._parts.scheme)
        return client

    def publish(self, topic: str, payload: bytes, media_type: str, *, retain: bool = False) -> None:
        """Publish a message, and wait until the broker has it. Blocks. Raises `SourceError` if that fails.

        The broker may have the message even so, if the connection ended before its answer.
        """
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        client, ends = self._make(), time.monotonic() + self._seconds
        answers: dict[str, Any] = {}
        client.on_connect = lambda _, __, ___, reason, ____: answers.update(connect=reason)
        client.on_publish = lambda _, __, ___, reason, ____: answers.update(publish=reason)
        client.on_disconnect = lambda _, __, ___, reason, ____: answers.update(disconnect=reason)
        client.connect_timeout = self._seconds
        try:
            client.connect(self._parts.hostname or "", self._parts.port or PORTS[self._parts.scheme], KEEP_ALIVE)
            self._await(client, answers, "connect", "the connection", ends)
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = media_type
            client.publish(topic, payload, 1, retain, properties)
            self._await(client, answers, "publish", "the message", ends)
        except OSError as error:
            raise SourceError(_unreached(error)) from None
        except ValueError as error:
            raise SourceError(f"the message cannot be sent: {error}") from None
        finally:
            client.disconnect()
            client.loop(0)  # closes the socket

    def _await(self, client: Any, answers: dict[str, Any], wanted: str, name: str, ends: float) -> None:
        """Wait for an answer of the broker. Raises `SourceError` for a refusal, for the end of the connection, and for none."""
        while wanted not in answers and "disconnect" not in answers and time.monotonic() < ends:
            client.loop(max(0.01, ends - time.monotonic()))
        reason = answers.get(wanted)
        if reason is None:
            why = answers.get("disconnect")
            raise SourceError(
                f"the broker does not answer within {self._seconds:g} s" if why is None else f"the connection ended: {why}"
            )
        if reason.is_failure:
            raise SourceError(f"the broker refuses {name}: {reason}")


MESSAGES: Final = (
    "HEARTBEAT", "SYS_STATUS", "BATTERY_STATUS", "GPS_RAW_INT", "GLOBAL_POSITION_INT", "VFR_HUD", "DISTANCE_SENSOR",
    "RADIO_STATUS", "EXTENDED_SYS_STATE",
)  # fmt: skip
"""The messages that are taken if no field names others."""

LOOK_EVERY = 0.25
LOOK_EVERY = 1.0
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
            self._stop.wait(LOOK_EVERY)

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
