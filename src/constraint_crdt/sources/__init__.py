"""Sources: the `[[source]]` tables of the settings, from which a node reads values that others measure.

    [[source]]
    name = "ups"
    kind = "command"
    command = ["upsc", "ups@localhost"]
    format = "pairs"
    every = "10s"
    fields = { battery_percent = "battery.charge", runtime_s = { path = "battery.runtime", unknown = [-1] } }

This module declares the kinds and checks the tables. `reader` reads a source for a node, `formats` decodes payloads, `polled` has
the kinds that are asked, and `pushed` those that send by themselves. They load their libraries at the first use.

Rules kept here:

- A wrong table is refused when the settings are read, with a sentence that names the source.
- Addresses hold no passwords: a password is in a file of its own.
- To add a kind: list it in `KINDS`, and give its module a class with the methods of `reader.Polled` or `reader.Pushed`.
"""

import math
import re
import urllib.parse
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression import check_names
from constraint_crdt.model import nearest
from constraint_crdt.operations.operation import UsageError, parse_duration

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
