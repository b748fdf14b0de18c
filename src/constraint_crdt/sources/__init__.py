"""Sources: the `[[source]]` tables of the settings, from which a node reads values that others measure, and their readers.

    [[source]]
    name = "ups"
    kind = "command"
    command = ["upsc", "ups@localhost"]
    format = "pairs"
    every = "10s"
    fields = { battery_percent = "battery.charge", runtime_s = { path = "battery.runtime", unknown = [-1] } }

This module declares the kinds, checks the tables, and reads a source for a node. `formats` decodes payloads, `polled` has the kinds
that are asked, and `pushed` those that send by themselves. They load their libraries at the first use. Rules:

- A wrong table is refused when the settings are read, with a sentence that names the source.
- Addresses hold no passwords: a password is in a file of its own.
- To add a kind: list it in `KINDS`, and give its module a class with the methods of `Polled` or `Pushed`.

A source is read in threads of its own, so that no source holds up the event loop, however long a reading takes. `Polled` sources
are asked every `every` seconds; `Pushed` ones send by themselves. Both hand documents to an `Intake`, which a task of the loop
empties. Rules:

- Of the values of a variable that come within `every`, the last counts; those before are dropped, and counted. So memory and the
  work of the loop are bounded by the number of variables, `most`, whatever a source sends. Further variables are dropped and
  counted.
- A value that the source says not to know, a value in the field's `unknown`, and a number that is not finite make the variable
  unknown at once, with the reason.
- A source that is down leaves the last values, until their maximum age. Then the variables are unknown, with the reason of the
  source. The log has a line when it goes down or fails otherwise, and a line when it works again.
- A rate needs two readings of its counter. A counter that falls began again at 0, or at `wraps_at` if it fell by more than half
  of that.
"""

import asyncio
import contextlib
import importlib
import logging
import math
import re
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from threading import Event, Lock, Thread
from typing import Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import check_names
from constraint_crdt.model import nearest
from constraint_crdt.operations.operation import UsageError, parse_duration
from constraint_crdt.operations.service import Finding
from constraint_crdt.sources.formats import MISSING, MOST_LEAVES, Message, SourceError, Unknown, leaves, look_up, scalar

MOST_SOURCES = 50
MOST_FIELDS = 500
MOST_TEXT = 256
"""Characters of a name, a path or a topic."""

MOST_NAMES: Final = 200
"""Variables of a source, by default."""

EVERY: Final = (0.05, 86_400.0)
TIMEOUT: Final = (0.1, 300.0)
"""Seconds: the bounds of `every` and of `timeout`."""

LEAST_AGE: Final = 30.0
AGE_IN_READINGS: Final = 3
"""The maximum age of a value, if none is given: so many times `every`, and so many seconds at least."""

PAYLOAD_FORMATS: Final = ("json", "number", "text", "msgpack", "pairs", "nmea", "otlp")


class SourceKind(NamedTuple):
    """A kind of source."""

    module: str
    """The module of this package whose `open_source` makes its reader."""
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    """The keys of a table for this kind, beside those of all kinds: those that it must have, and others."""
    formats: tuple[str, ...] = ()
    """The formats, the default first. None: the kind has a format of its own."""
    every: float = 10.0
    needs_fields: bool = False


KINDS: Final[Mapping[str, SourceKind]] = {
    "command": SourceKind("polled", ("command",), ("timeout",), ("json", "pairs", "nagios", "number", "text", "nmea")),
    "http": SourceKind("polled", ("url",), ("timeout", "token_file", "ca"), PAYLOAD_FORMATS),
    "prometheus": SourceKind("polled", ("url",), ("timeout", "token_file", "ca"), needs_fields=True),
    "file": SourceKind("polled", ("file",), (), PAYLOAD_FORMATS, every=1.0),
    "mqtt": SourceKind(
        "pushed",
        ("url", "topics"),
        ("username", "password_file", "ca", "certificate", "key", "client_id"),
        (*PAYLOAD_FORMATS, "sparkplug", "vda5050"),
        every=0.2,
    ),
    "zenoh": SourceKind("pushed", ("keys",), ("type", "connect"), (*PAYLOAD_FORMATS, "ros2", "vda5050"), every=0.2),
    "mavlink": SourceKind("pushed", ("address",), (), every=0.2),
}
"""The kinds by name."""


class FieldSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A field in the messages of a source, for a variable: `value * scale + offset`."""

    path: str
    """A key; keys joined by points, with the index in a list (`cells.0.voltage`); a JSON pointer (`/cells/0/voltage`); for kind
    prometheus a metric with its labels (`node_load1`, `up{job="a"}`).
    """
    scale: float = 1.0
    offset: float = 0.0
    unknown: tuple[float | str | bool, ...] = ()
    """Values, as the source sends them, that mean that it does not know."""
    rate: bool = False
    """Take the growth of a counter, per second. A counter that falls began again at 0."""
    wraps_at: float | None = None
    """The number at which such a counter begins again, as in 4294967296."""


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[source]]` of the settings."""

    name: str
    kind: str
    """A key of `KINDS`."""
    every: float | None = None
    """Seconds between two readings. Of a source that sends by itself: seconds in which the last value of a variable counts."""
    max_age: float | None = None
    """Seconds for which a value counts. By default `AGE_IN_READINGS` times `every`, and `LEAST_AGE` at least."""
    format: str | None = None
    prefix: str | None = None
    """The beginning of the names of variables without an entry in `fields`. By default the name of the source."""
    most: int = MOST_NAMES
    """Variables taken from the source. Further ones are dropped."""
    fields: dict[str, FieldSettings] = msgspec.field(default_factory=dict)
    """The field of each variable. Without any, all fields are taken. `{1}` in a name stands for the text of the first wildcard."""
    command: tuple[str, ...] = ()
    url: str = ""
    file: str = ""
    topics: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()
    """Endpoints of Zenoh, for a session of the source's own. By default it is on the session of the node."""
    type: str = ""
    """The type of ROS 2 messages, as in `sensor_msgs/msg/BatteryState`."""
    address: str = ""
    """An endpoint of MAVLink, as in `udpin:0.0.0.0:14550`, or a serial device."""
    timeout: float = 10.0
    token_file: str = ""
    """A file with a token, sent as `Authorization: Bearer`."""
    username: str = ""
    password_file: str = ""
    ca: str = ""
    """A file with the certificates of authorities to trust. Those of the system if left out."""
    certificate: str = ""
    key: str = ""
    client_id: str = ""
    """The name of the session at the broker, which then keeps it over restarts. By default a new session each time."""

    @property
    def period(self) -> float:
        """`every`, or the default of the kind."""
        return KINDS[self.kind].every if self.every is None else self.every

    @property
    def lasts(self) -> float:
        """`max_age`, or its default."""
        return max(LEAST_AGE, AGE_IN_READINGS * self.period) if self.max_age is None else self.max_age

    @property
    def payload_format(self) -> str:
        """`format`, or the default of the kind."""
        formats = KINDS[self.kind].formats
        return self.format or (formats[0] if formats else "")


def read_sources(tables: object) -> tuple[SourceSettings, ...]:
    """The sources of a settings file. Raises `ConstraintCrdtError` naming the first wrong source."""
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping | SourceSettings) for table in tables):
        raise ConstraintCrdtError("write each source under [[source]], with double brackets")
    if len(tables) > MOST_SOURCES:
        raise ConstraintCrdtError(f"at most {MOST_SOURCES} sources, not {len(tables)}")
    sources = tuple(table if isinstance(table, SourceSettings) else _read(number, table) for number, table in enumerate(tables, 1))
    names = [source.name for source in sources]
    for source in sources:
        problem = _misuse(source) or _out_of_bounds(source) or _wrong_address(source)
        if problem is not None:
            raise ConstraintCrdtError(f"source {source.name!r}: {problem}")
        if names.count(source.name) > 1:
            raise ConstraintCrdtError(f"two sources are called {source.name!r}: give each a name of its own")
    return sources


_WANTED: Final[Mapping[object, str]] = {
    float: "a number",
    float | None: "a number of seconds, or a text as '5s'",
    int: "a whole number",
    tuple[str, ...]: 'a list of texts, as in ["a", "b"]',
}
"""The values of a key by its type, for errors; texts left out."""


def _read(number: int, table: Mapping[str, object]) -> SourceSettings:
    where = f"source {number}" + (f" ({table['name']})" if isinstance(table.get("name"), str) else "")
    fields = msgspec.structs.fields(SourceSettings)
    known = [field.name for field in fields]
    for key in table:
        if key not in known:
            raise ConstraintCrdtError(f"{where}: there is no key `{key}`: {nearest(str(key), known)}")
    for key in ("name", "kind"):
        if key not in table:
            raise ConstraintCrdtError(f"{where}: `{key}` is missing")
    try:
        spans = {key: parse_duration(value) for key in ("every", "max_age", "timeout") if isinstance(value := table.get(key), str)}
        given = {**table, **spans}
        if "fields" in given:
            given["fields"] = _read_fields(given["fields"])
    except (UsageError, ConstraintCrdtError) as error:
        raise ConstraintCrdtError(f"{where}: {error}") from None
    for field in fields:
        if field.name in given:
            try:
                msgspec.convert(given[field.name], field.type, strict=True)
            except msgspec.ValidationError:
                raise ConstraintCrdtError(f"{where}: `{field.name}` must be {_WANTED.get(field.type, 'a text')}") from None
    return msgspec.convert(given, SourceSettings, strict=True)


def _read_fields(tables: object) -> dict[str, FieldSettings]:
    if not isinstance(tables, Mapping):
        raise ConstraintCrdtError('`fields` is a table of variables, as in { speed_mps = "velocity.vx" }')
    found: dict[str, FieldSettings] = {}
    for name, given in tables.items():
        table = {"path": given} if isinstance(given, str) else given
        if not isinstance(table, Mapping | FieldSettings):
            raise ConstraintCrdtError(f"`fields`: {name} must be a path, or a table with a `path`")
        if isinstance(table, Mapping):
            for key in table:
                if key not in FieldSettings.__struct_fields__:
                    raise ConstraintCrdtError(
                        f"`fields`: {name}: there is no key `{key}`: {nearest(str(key), FieldSettings.__struct_fields__)}"
                    )
            if "path" not in table:
                raise ConstraintCrdtError(f"`fields`: {name} has no `path`")
        try:
            found[name] = msgspec.convert(table, FieldSettings, strict=True)
        except msgspec.ValidationError as error:
            raise ConstraintCrdtError(f"`fields`: {name}: {error}") from None
    return found


_OF_ALL_KINDS: Final = ("name", "kind", "every", "max_age", "prefix", "most", "fields")


def _misuse(source: SourceSettings) -> str | None:
    """The reason why the keys do not fit the kind. None for fitting keys."""
    kind = KINDS.get(source.kind)
    if kind is None:
        return f"there is no kind {source.kind!r}: {nearest(source.kind, list(KINDS))}"
    taken = {*_OF_ALL_KINDS, *kind.needs, *kind.takes, *(("format",) if kind.formats else ())}
    for field in msgspec.structs.fields(SourceSettings):
        is_given = field.default is not msgspec.NODEFAULT and getattr(source, field.name) != field.default
        if field.name not in taken and is_given:
            return f"`{field.name}` means nothing to kind {source.kind}, which takes {', '.join((*kind.needs, *kind.takes))}"
    missing = next((key for key in kind.needs if not getattr(source, key)), None)
    if missing is not None:
        return f"kind {source.kind} needs `{missing}`"
    if source.format is not None and source.format not in kind.formats:
        return f"there is no format {source.format!r} for kind {source.kind}: {nearest(source.format, list(kind.formats))}"
    if kind.needs_fields and not source.fields:
        return f"kind {source.kind} needs `fields`: an exporter tells hundreds of metrics"
    if (source.payload_format == "ros2") is not bool(source.type):
        return "a `type` belongs to the format ros2, as in `sensor_msgs/msg/BatteryState`"
    if bool(source.certificate) is not bool(source.key):
        return "`certificate` and `key` belong together: give both"
    return None


_NUMBERED = re.compile(r"\{\d\}")


def _out_of_bounds(source: SourceSettings) -> str | None:
    for key, bounds in (("every", EVERY), ("max_age", EVERY), ("timeout", TIMEOUT)):
        value = getattr(source, key)
        if value is not None and not bounds[0] <= value <= bounds[1]:
            return f"`{key}` must be from {bounds[0]:g} to {bounds[1]:g} seconds, not {value!r}"
    if not 1 <= source.most <= 10_000:
        return f"`most` must be from 1 to 10000, not {source.most}"
    if len(source.fields) > MOST_FIELDS:
        return f"at most {MOST_FIELDS} fields, not {len(source.fields)}"
    texts = [source.name, *source.topics, *source.keys, *(each.path for each in source.fields.values())]
    wrong = next((text for text in texts if not (0 < len(text) <= MOST_TEXT and text.isprintable())), None)
    if wrong is not None:
        return f"names, topics and paths have 1 to {MOST_TEXT} printable characters, unlike {wrong[:40]!r}"
    try:
        check_names(_NUMBERED.sub("x", name) for name in source.fields)
        check_names([] if source.prefix in (None, "") else [str(source.prefix)])
    except ConstraintCrdtError as error:
        return str(error)
    for name, field in source.fields.items():
        numbers = [each for each in (field.scale, field.offset, field.wraps_at) if each is not None]
        if not all(map(math.isfinite, numbers)) or field.scale == 0 or (field.wraps_at is not None and field.wraps_at <= 0):
            return f"`fields`: {name}: `scale`, `offset` and `wraps_at` are finite numbers, and only `offset` may be 0"
        if field.wraps_at is not None and not field.rate:
            return f"`fields`: {name}: `wraps_at` belongs to a counter: set `rate = true`"
    return None


_SCHEMES: Final[Mapping[str, tuple[str, ...]]] = {
    "http": ("http", "https"),
    "prometheus": ("http", "https"),
    "mqtt": ("mqtt", "mqtts"),
}


def _wrong_address(source: SourceSettings) -> str | None:
    """The reason why the address cannot be used. Does not repeat it, as it may hold a secret."""
    schemes = _SCHEMES.get(source.kind)
    if schemes is None:
        return None
    try:
        parts = urllib.parse.urlsplit(source.url)
        fine = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not source.url.isascii() or not source.url.isprintable() or " " in source.url:
        return f"`url` must be {schemes[0]}://HOST or {schemes[1]}://HOST, with a port and a path if needed"
    if parts.username is not None or parts.password is not None:
        return (
            "`url`: an address with a password in front of its host is not taken; use `username`, `password_file` or `token_file`"
        )
    if parts.scheme not in ("https", "mqtts") and (source.ca or source.certificate):
        return f"`ca` and `certificate` are for TLS: write {schemes[1]}://"
    return None


LOOK_EVERY = 1.0
"""Seconds between two looks for a source that has fallen silent."""

SLOW = 10.0
"""Seconds beyond the timeout of a source after which a reading that did not return is told as trouble."""

_log = logging.getLogger("constraint_crdt.node")


class Measure(Protocol):
    """Takes the values of a source in."""

    async def __call__(
        self, values: Mapping[str, object], source: str, *, reasons: Mapping[str, str | None], max_age: float
    ) -> None:
        """None withdraws a variable. `reasons`: why a variable has no value, in words that follow its name; None: no reason.
        `max_age`: seconds for which the values count.
        """


class Polled(Protocol):
    """A source that is asked."""

    complete: bool
    """Each message has all fields: a missing field is unknown."""

    def read(self) -> Iterable[Message]:
        """The present messages. Blocks. Raises `SourceError`."""

    def close(self) -> None:
        """Give up a reading, from another thread."""


@runtime_checkable
class Pushed(Protocol):
    """A source that sends by itself."""

    def start(self, sink: "Intake") -> None:
        """Hand each message to `sink.put`, from any thread, until `close`. Raises `SourceError`."""

    def close(self) -> None:
        """Blocks for a moment."""


class _Pending(NamedTuple):
    """A value that waits to be taken."""

    value: object
    field: FieldSettings | None
    at: float


class Intake:
    """The values that came from a source and were not taken yet. Its methods may be called in any thread."""

    def __init__(self, settings: SourceSettings, wake: Callable[[], None]) -> None:
        """`wake` is called after something came, or the source is down."""
        self._settings = settings
        self._wake = wake
        self._lock = Lock()
        self._pending: dict[str, _Pending] = {}
        self._prefix = settings.name if settings.prefix is None else settings.prefix
        self._automatic: dict[tuple[str, ...], str] = {}
        self.complete = False
        """Each message has all fields: a missing field is unknown."""
        self.names: dict[str, None] = {name: None for name in settings.fields if "{" not in name}
        """The variables of the source, as far as they are known."""
        self.failure: str | None = None
        self.messages = 0
        self._width = max(1, len(settings.fields))
        """Values of the last message that was decoded."""
        self.last: Message | None = None
        """The last message that was decoded."""
        self.last_at: float | None = None
        """When the last message came."""
        self.dropped = 0
        """Values that were followed by another before they were taken, or are of variables beyond the bound."""
        self.faults = 0
        """Messages that could not be decoded."""
        self.last_fault: str | None = None

    def put(self, message: Message) -> None:
        """Take a message in."""
        now = time.monotonic()
        with self._lock:
            self.messages += 1
            self.last, self.last_at, self.failure = message, now, None
            width = 0
            for name, field, value in self._mapped(message):
                width += 1
                if name not in self.names:
                    if len(self.names) >= self._settings.most:
                        self.dropped += 1
                        continue
                    self.names[name] = None
                self.dropped += name in self._pending
                self._pending[name] = _Pending(value, field, now)
            self._width = max(1, width)
        self._wake()

    def skip(self, messages: int) -> None:
        """So many messages were dropped before they were decoded. Each counts as the values of the last that was decoded."""
        with self._lock:
            self.messages += messages
            self.dropped += messages * self._width

    def fail(self, why: str) -> None:
        """The source is down."""
        self.failure = why
        self._wake()

    def fault(self, why: str) -> None:
        """A message could not be decoded: others may be, so the source is not down."""
        self.faults += 1
        self.last_fault = why

    def connected(self) -> None:
        """The source can be heard, and may have nothing to say yet."""
        self.failure = None
        self._wake()

    def take(self) -> dict[str, _Pending]:
        """The values that came since the last call."""
        with self._lock:
            taken, self._pending = self._pending, {}
        return taken

    def _mapped(self, message: Message) -> Iterator[tuple[str, FieldSettings | None, object]]:
        if not self._settings.fields:
            for place, (path, value) in enumerate(leaves(message.document)):
                name = self._name_of((*message.levels, *path)) if place < MOST_LEAVES else None
                if name is not None:
                    yield name, None, value
                else:
                    self.dropped += 1
            return
        for name, field in self._settings.fields.items():
            value = look_up(message.document, field.path)
            if value is not MISSING or self.complete:
                yield _numbered(name, message.levels), field, value

    def _name_of(self, path: tuple[str, ...]) -> str | None:
        """The variable of a field that is not in `fields`; None beyond the bound, and for a name that no expression can read."""
        if path not in self._automatic:
            if len(self._automatic) >= 2 * self._settings.most:
                return None
            name = "_".join(filter(None, (_clean(part) for part in (self._prefix, *path))))
            try:
                check_names([name])
            except ConstraintCrdtError:
                name = f"v_{name}"
            self._automatic[path] = name
        return self._automatic[path]


def _clean(text: str) -> str:
    if text.strip() == "/":  # a file system, in what monitoring plugins say
        return "root"
    return re.sub(r"[^0-9A-Za-z]+", "_", text.replace("%", "percent")).strip("_")


@lru_cache(maxsize=4096)
def _numbered(name: str, levels: tuple[str, ...]) -> str:
    if "{" not in name:
        return name
    return re.sub(r"\{(\d)\}", lambda found: _clean(levels[int(found[1]) - 1]) if int(found[1]) <= len(levels) else "", name)


class FieldMap:
    """Turns pending values into values of variables. Keeps the last reading of each counter."""

    def __init__(self) -> None:
        self._counters: dict[str, tuple[float, float]] = {}

    def value_of(self, name: str, pending: _Pending) -> object:
        """The value of a variable, or `Unknown`."""
        value, field = scalar(pending.value), pending.field
        if field is None or isinstance(value, Unknown):
            return value
        if _is_sentinel(value, field):
            return Unknown(f"it says {_shown(value)}")
        if field.rate:
            value = self._rate(name, value, field, pending.at)
        if isinstance(value, float) and (field.scale, field.offset) != (1.0, 0.0):
            return scalar(value * field.scale + field.offset)
        if not isinstance(value, float | Unknown) and (field.scale, field.offset) != (1.0, 0.0):
            return Unknown(f"it says {_shown(value)}, which is no number to be scaled")
        return value

    def _rate(self, name: str, value: object, field: FieldSettings, at: float) -> object:
        if not isinstance(value, float):
            return Unknown(f"it says {_shown(value)}, which is no counter")
        before = self._counters.get(name)
        self._counters[name] = value, at
        if before is None or at <= before[1]:
            return Unknown("a rate needs two readings")
        growth = value - before[0]
        if growth < 0:
            wrapped = growth + (field.wraps_at or 0.0)
            growth = wrapped if field.wraps_at and 0 <= wrapped <= field.wraps_at / 2 else value
        return growth / (at - before[1])


def _is_sentinel(value: object, field: FieldSettings) -> bool:
    return any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in field.unknown)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)[:60]


class SourceReader:
    """Reads a source for a node."""

    def __init__(self, settings: SourceSettings, measure: Measure, open_reader: Callable[[], Polled | Pushed]) -> None:
        """`open_reader` makes the reader of the kind; see `reader_of`."""
        self.settings = settings
        self._measure = measure
        self._open = open_reader
        self._map = FieldMap()
        self._told: str | None = None
        self._told_fault: str | None = None
        self._began_reading: float | None = None
        self._refused: str | None = None
        self._since = time.monotonic()
        self._wakes: Callable[[], None] = lambda: None
        self._is_waking = False
        self.intake = Intake(settings, self._wake)
        self.values = 0
        """Values taken in."""
        self.unknown: dict[str, str] = {}
        """The variables that the source says not to know, with its reason."""

    @property
    def name(self) -> str:
        """The name of the source."""
        return self.settings.name

    @property
    def dropped(self) -> int:
        """Values dropped: followed by another within `every`, or of variables beyond the bound."""
        return self.intake.dropped

    @property
    def faults(self) -> int:
        """Messages that could not be decoded."""
        return self.intake.faults

    @property
    def trouble(self) -> str | None:
        """Why the source gives no values now; None if it does."""
        now, intake = time.monotonic(), self.intake
        began = self._began_reading
        if began is not None and now - began > self.settings.timeout + SLOW:
            return f"it has not answered for {now - began:.0f} s"
        if intake.failure is not None:
            return intake.failure
        if self._refused is not None:
            return self._refused
        heard = self._since if intake.last_at is None else intake.last_at
        if now - heard > self.settings.lasts:
            why = "nothing came yet" if intake.last_at is None else f"nothing came for {now - heard:.0f} s"
            return why if intake.last_fault is None else f"{why} that can be decoded: {intake.last_fault}"
        return None

    async def run(self) -> None:
        """Take in the values of the source. Never returns."""
        loop, ready, stop = asyncio.get_running_loop(), asyncio.Event(), Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(ready.set)

        self._since, self._wakes = time.monotonic(), wake
        opened: list[Polled | Pushed] = []
        Thread(target=self._work, args=(stop, opened), name=f"source {self.name}", daemon=True).start()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await ready.wait()
                ready.clear()
                self._is_waking = False
                await self._take()
                if isinstance(next(iter(opened), None), Pushed):
                    await asyncio.sleep(self.settings.period)
        finally:
            stop.set()
            for each in opened:
                Thread(target=each.close, name=f"closing source {self.name}", daemon=True).start()

    def _wake(self) -> None:
        """Wake the task of the loop, once until it has looked: a flood makes a single call."""
        if not self._is_waking:
            self._is_waking = True
            self._wakes()

    async def _take(self) -> None:
        values: dict[str, object] = {}
        reasons: dict[str, str | None] = {}
        for name, pending in self.intake.take().items():
            value = self._map.value_of(name, pending)
            if isinstance(value, Unknown):
                values[name], self.unknown[name] = None, value.why
                reasons[name] = self._not_known(value.why)
            else:
                values[name] = value
                self.unknown.pop(name, None)
        trouble = self.trouble
        if _gist(trouble) != _gist(self._told):
            reasons = self._reasons(trouble) | reasons
        if values or reasons:
            await self._hand_over(values, reasons)
        self._tell(trouble)

    def _not_known(self, why: str) -> str:
        return f"is unknown to the source {self.name}: {why}"

    def _reasons(self, trouble: str | None) -> dict[str, str | None]:
        """Why each variable of the source has no value, once its last value is too old."""
        if trouble is not None:
            return dict.fromkeys(self.intake.names, f"is not told: the source {self.name} is down ({trouble})")
        return {name: self._not_known(self.unknown[name]) if name in self.unknown else None for name in self.intake.names}

    async def _hand_over(self, values: dict[str, object], reasons: dict[str, str | None]) -> None:
        """Measure the values; one by one if any of them is refused."""
        measure, lasts = self._measure, self.settings.lasts
        self._refused = None
        try:
            await measure(values, self.name, reasons=reasons, max_age=lasts)
        except ConstraintCrdtError:
            for name, value in values.items():
                try:
                    await measure({name: value}, self.name, reasons={name: reasons.get(name)}, max_age=lasts)
                except ConstraintCrdtError as error:
                    self._refused = str(error)
                    self.intake.dropped += 1
        self.values += sum(value is not None for value in values.values())

    def _tell(self, trouble: str | None) -> None:
        fault = self.intake.last_fault
        if fault is not None and _gist(fault) != self._told_fault:
            self._told_fault = _gist(fault)
            _log.warning("source %s: a message is left out: %s", self.name, fault)
        if trouble is not None and _gist(trouble) != _gist(self._told):
            _log.warning("source %s is down: %s", self.name, trouble)
        elif trouble is None and self._told is not None:
            _log.info("source %s works again", self.name)
        self._told = trouble

    # --- the threads ---------------------------------------------------------------------------------------------------------

    def _work(self, stop: Event, opened: list[Polled | Pushed]) -> None:
        """Open the source, again and again until that works, and ask it if it is to be asked."""
        while not stop.is_set():
            try:
                reader = self._open()
                if isinstance(reader, Pushed):
                    reader.start(self.intake)
            except SourceError as error:
                self.intake.fail(str(error))
            except Exception as error:
                self.intake.fail(f"{type(error).__name__}: {error}")
            else:
                opened.append(reader)
                if stop.is_set():  # nobody else closes it
                    reader.close()
                elif not isinstance(reader, Pushed):
                    self.intake.complete = reader.complete
                    self._poll(reader, stop)
                return
            stop.wait(max(LOOK_EVERY, self.settings.period))

    def _poll(self, reader: Polled, stop: Event) -> None:
        due = time.monotonic()
        while not stop.is_set():
            self._began_reading = time.monotonic()
            try:
                for message in reader.read():
                    self.intake.put(message)
            except SourceError as error:
                self.intake.fail(str(error))
            except Exception as error:
                self.intake.fail(f"{type(error).__name__}: {error}")
            finally:
                self._began_reading = None
            due = max(due + self.settings.period, time.monotonic())
            stop.wait(due - time.monotonic())


def _gist(trouble: str | None) -> str | None:
    """A trouble without its figures, which change from look to look."""
    return None if trouble is None else re.sub(r"\d+", "", trouble)


class SourceHealth(Protocol):
    """A source of a node."""

    @property
    def name(self) -> str:
        """The name of the source, as in the settings."""

    @property
    def trouble(self) -> str | None:
        """Why it gives no values now; None if it does."""


def find_trouble(sources: Sequence[SourceHealth]) -> Finding:
    """The finding on the sources of a node."""
    down = [f"{each.name} ({each.trouble})" for each in sources if each.trouble is not None]
    if down:
        advice = (
            "the variables of these sources age, and what reads them becomes unknown; `constraint-crdt source try FILE` shows them"
        )
        return Finding(check="sources", level="warn", what=f"down: {'; '.join(down)}", advice=advice)
    return Finding(check="sources", level="ok", what=f"values come from {', '.join(each.name for each in sources)}")


def reader_of(settings: SourceSettings, transport: object = None) -> Polled | Pushed:
    """Make the reader of a source. `transport`: that of the node, for sources that share it.

    Raises `SourceError` if a library is missing, or its files cannot be read.
    """
    module = importlib.import_module(f"constraint_crdt.sources.{KINDS[settings.kind].module}")
    made: Polled | Pushed = module.open_source(settings, transport)
    return made
