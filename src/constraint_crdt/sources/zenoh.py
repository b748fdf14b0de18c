"""The source `zenoh`: publications of other programs in a network of Zenoh, by key expressions; with ROS 2 over Zenoh its topics.

It is on the session of the node, which finds its way through the network anyhow. With `connect` it has a session of its own, as the
links of a node with an identity carry the messages of its fleet only.
"""

import contextlib
import json
from collections.abc import Callable, Sequence

import zenoh

from constraint_crdt.sources import SourceSettings
from constraint_crdt.sources.formats import Message, SourceError, check_size, make_decoder
from constraint_crdt.sources.reader import Intake, Pushed
from constraint_crdt.sources.robots import VdaDecoder, ros_decoder
from constraint_crdt.transport import SubscribingTransport, TransportError

RETRY = {"period_init_ms": 200, "period_max_ms": 4000, "period_increase_factor": 1.5}


def open_source(settings: SourceSettings, transport: object = None) -> Pushed:
    """The reader of a source. Raises `SourceError` for a missing library, and a transport that carries nothing else than nodes."""
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
