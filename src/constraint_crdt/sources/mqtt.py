"""The source `mqtt`: topics of a broker, by the client `paho`, in a thread of its own.

Rules kept here:

- The client speaks MQTT 5.0. It connects again by itself, after 1 s, later after 30 s at most, and subscribes anew.
- A session without a `client_id` ends with its connection. With one the broker keeps it for an hour and sends what was missed, with
  quality of service 1.
- A retained message is one of any age: it counts from its arrival, as nothing tells its time.
- Payloads of a flood are decoded and then dropped by the rule of `reader`; the broker waits when this end does not keep up.
"""

import ssl
import sys
import urllib.parse
from collections.abc import Callable
from typing import Any, Final

from constraint_crdt.sources import SourceSettings
from constraint_crdt.sources.files import read_secret, tls_context
from constraint_crdt.sources.formats import MAX_PAYLOAD, Message, SourceError, make_decoder
from constraint_crdt.sources.reader import Intake, Pushed
from constraint_crdt.sources.robots import VdaDecoder
from constraint_crdt.sources.sparkplug import SparkplugDecoder

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
KEEP_ALIVE = 20
"""Seconds after which a silent link is probed."""

LONGEST_PAUSE = 30
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


class MqttReader:
    """Subscribes to topics."""

    def __init__(self, settings: SourceSettings) -> None:
        try:
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
            from paho.mqtt.packettypes import PacketTypes
            from paho.mqtt.properties import Properties
        except ImportError:
            raise SourceError("MQTT needs `pip install 'constraint-crdt[mqtt]'`") from None
        self._settings = settings
        self._decode = topic_decoder(settings)
        self._sink: Intake | None = None
        self._is_refused = False
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=settings.client_id, protocol=paho.MQTTv5, reconnect_on_failure=True
        )
        client.reconnect_delay_set(1, LONGEST_PAUSE)
        if settings.username or settings.password_file:
            client.username_pw_set(settings.username, read_secret(settings.password_file) if settings.password_file else None)
        self._parts = urllib.parse.urlsplit(settings.url)
        if self._parts.scheme == "mqtts":
            context = tls_context(settings)
            context.sslsocket_class = _ClosedOnFailure
            client.tls_set_context(context)
        self._properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._properties.MaximumPacketSize = MAX_PAYLOAD
        if settings.client_id:
            self._properties.SessionExpiryInterval = SESSION_SECONDS
        client.on_connect, client.on_connect_fail = self._connected, self._no_connection
        client.on_disconnect, client.on_message, client.on_subscribe = self._disconnected, self._message, self._subscribed

    def start(self, sink: Intake) -> None:
        """Connect, and go on trying."""
        self._sink = sink
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
        error = sys.exception()  # the client calls this where it has caught the error
        why = (error.strerror or str(error)) if isinstance(error, OSError) else ""
        self._down(f"the broker cannot be reached{f': {why}' if why else ''}")

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
