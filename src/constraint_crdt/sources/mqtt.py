"""The source `mqtt`: topics of a broker, by the client `paho`, in a thread of its own; and publishing at a broker, for actions.

Rules kept here:

- The client speaks MQTT 5.0. It connects again by itself, after 1 s, later after 30 s at most, and subscribes anew.
- A session without a `client_id` ends with its connection. With a `client_id` the broker keeps it for an hour and sends the missed
  messages, with quality of service 1.
- A retained message may have any age: it counts from its arrival, as nothing tells its time.
- Of the messages that are read at once only the last of each topic is decoded, of those of quality 0; those before are dropped and
  counted, as the rule of `reader` would drop their values. So for the formats of `WHOLE`, whose messages have a single value. Of
  others, whose messages may have different fields, only in a flood: when a whole piece of `PIECE` bytes waits. Not of Sparkplug,
  whose messages have only the changed metrics: the broker waits when this end does not keep up.
- A message is published with quality of service 1, in a session of its own, and counts as published once the broker says so. So no
  client keeps a message back to send it later, behind a younger message.
"""

import socket
import ssl
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, Final, Protocol

from constraint_crdt.sources import SourceSettings
from constraint_crdt.sources.formats import MAX_PAYLOAD, Message, SourceError, make_decoder
from constraint_crdt.sources.polled import TlsFiles, read_secret, tls_context
from constraint_crdt.sources.reader import Intake, Pushed
from constraint_crdt.sources.robots import VdaDecoder
from constraint_crdt.sources.sparkplug import SparkplugDecoder

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


def open_source(settings: SourceSettings, _: object = None) -> Pushed:
    """The reader of a source. Raises `SourceError` if `paho-mqtt` is missing, or a file cannot be used."""
    return MqttReader(settings)


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
