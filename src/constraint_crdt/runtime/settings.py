"""The settings of a node, and where each of them comes from: flag, then environment, then file, then default.

Rules: a value is checked where it comes from, so that an error names the key and its source; a key that does not exist is
refused by name, with the nearest one that does. The environment is shared with others (a container platform may inject
`CONSTRAINT_CRDT_PORT`), so there only a near miss of a known name is refused.
"""

import difflib
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from constraint_crdt.alerts.rules import AlertRule, read_rules
from constraint_crdt.crdt.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.runtime.exchange_loop import PeerChoice
from constraint_crdt.types.definition import check_labels
from constraint_crdt.types.rates import DEFAULT_HALF_LIVES, check_half_lives

Role = Literal["peer", "router", "client"]

ENVIRONMENT_PREFIX = "CONSTRAINT_CRDT_"

MEMORY_STORE = "memory"
DEFAULT_STORE = "default"

BOUNDS: dict[str, tuple[float, float]] = {
    "check_every": (0.01, 86_400.0),
    "count_every": (0.01, 86_400.0),
    "rate_every": (0.01, 86_400.0),
    "gossip_every": (0.01, 86_400.0),
    "max_age": (0.01, 86_400.0),
    "request_timeout": (0.05, 60.0),
    "keep_removals_for": (0.0, 31_536_000.0),
    "fold_counts_after": (0.0, 31_536_000.0),
    "keep_deleted_tiles_for": (0.0, 31_536_000.0),
    "max_skew": (0.1, 3600.0),
}
"""Lowest and highest value of each setting that is a time, in seconds."""

NUMBERS: dict[str, tuple[float, float, str]] = {
    "keep_removals": (0, 10_000_000, ""),
    "record_bytes": (1024 * 1024, 1024 * 1024 * 1024, ""),
    "api_rate": (1, 1_000_000, " requests per second"),
}
"""Lowest and highest value of each setting that is another number, and what it counts."""


class SettingsError(ConstraintCrdtError, ValueError):
    """A setting that cannot be used. `str()` is one sentence naming the key and, where known, its source."""

    def __init__(self, message: str, *, from_flag: bool = False) -> None:
        super().__init__(message)
        self.from_flag = from_flag


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one node takes part. Raises `SettingsError` (a `ConstraintCrdtError`) for a value out of bounds."""

    name: str = msgspec.field(default_factory=socket.gethostname)
    """What the node is called, unique in its fleet. The host's name needs no choice and fails where a host runs two nodes."""

    fleet: str = "default"
    """Which fleet it belongs to. Fleets on one network never mix; a name of its own keeps a test out of production."""

    role: Role = "peer"
    """`peer` links to every other peer: simplest, good to some 50 nodes. `router` carries traffic for others as well, at the cost
    of its own; `client` keeps one link, to a router: cheapest, and cut off when its routers are."""

    listen: tuple[str, ...] = ()
    """Endpoints `tcp/HOST:PORT` where other nodes connect; port 0 takes a free one. None: a free port on loopback. An address
    beyond loopback lets other machines in."""

    connect: tuple[str, ...] = ()
    """Endpoints of other nodes. One that is up is enough to find all; more of them survive its loss."""

    discover: bool = True
    """Link also to nodes that the connected ones know of. Without it only to those in `connect`: for networks in which routes are
    a decision; state then travels along these links only."""

    api: str = "127.0.0.1:8470"
    """`HOST:PORT` of the HTTP API; port 0 takes a free one. Beyond loopback it needs a `token_file`, or the node does not start."""

    token_file: str = ""
    """A file with the tokens that the API takes, each on a line `read TOKEN` or `write TOKEN`; others on the machine must not be
    able to read it. Without it the API asks for none."""

    api_rate: float = 5000.0
    """Requests per second that one client may make, twice as many in a burst. Less keeps one that runs wild from costing the others
    more."""

    probe: tuple[str, ...] = ()
    """Probes that measure without being asked: `system` or installed ones. Each costs one reading per check."""

    check_every: float = 1.0
    """Seconds between evaluations of the active constraints. Shorter sees a violation sooner and costs CPU; nothing is sent per
    check."""

    count_every: float = 2.0
    """Seconds that counts gather before they are written, one cell a constraint. Longer sends less and shows counts later; a node
    that is killed loses the counts of that time."""

    rate_every: float = 10.0
    """Seconds that what is told approximately gathers before it is written. Longer sends less, and others hear later; a node that
    is killed loses that of this time, counts apart."""

    gossip_every: float = 0.2
    """Seconds between rounds of gossip. A change is pushed at once; the rounds bring what a push did not. Shorter repairs sooner
    and costs a Ping each."""

    peer_choice: PeerChoice = "auto"
    """Whom a round of gossip asks. `uniform`: any peer, which needs to know nothing; `near`: those near more often than those far,
    by their positions where all have one, else by how soon they answer, which keeps most traffic on short links; `auto`: `near`
    from 16 peers on."""

    max_age: float = 30.0
    """Seconds after which a measurement is no measurement. Shorter notices a dead sensor sooner, as `unknown`; it must exceed the
    time between two measurements."""

    request_timeout: float = 1.0
    """Seconds of silence after which a peer's answer is given up. Shorter goes on to another peer sooner; too short never
    hears a slow link."""

    store: str = MEMORY_STORE
    """Where the state is kept: a file; `default` for one below the XDG state directory, named after fleet and node; or `memory`,
    which is fastest and forgets all when the node ends. (The command line takes `default` where nothing is said.)"""

    keep_removals: int = 10_000
    """Removals kept for live peers that have not heard of them. More spares those peers a whole Sync, and costs memory and disk."""

    keep_removals_for: float = 3600.0
    """Seconds that a removal is kept at most for such peers."""

    fold_counts_after: float = 86_400.0
    """Seconds after which the counts of a constraint that is gone go into the node's total. Sooner keeps less, and tells less of
    the past."""

    keep_deleted_tiles_for: float = 604_800.0
    """Seconds for which a tile that this node deleted can be restored; then it is purged. (One that another node deleted, after
    twice the time.) Sooner keeps less on every node."""

    half_lives: tuple[float, ...] = DEFAULT_HALF_LIVES
    """Seconds, 1 to 8 of them: the half-lives at which recent evaluations can be read. Each costs some 20 bytes per constraint and
    `rate_every`. One that other nodes do not track shows only what those do that track it."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """What the node is labelled with, such as `zone = "a"`. A constraint may ask for labels: nodes without list it and do not
    evaluate it."""

    max_skew: float = 10.0
    """Seconds by which the clocks of the fleet may differ. A clock that is further off counts for nothing and raises an alarm. More
    tolerates worse clocks, and lets the fastest of them end constraints that much earlier for all."""

    record: str = ""
    """A file that every input of the node is recorded in, for `constraint-crdt replay`. It holds all that the fleet shares."""

    record_bytes: int = 64 * 1024 * 1024
    """Bytes that a recording may take, the part that was set aside included. More goes further back."""

    alert: tuple[AlertRule, ...] = ()
    """When somebody is to be told, and where: each under `[[alert]]` in the file. Every node that has a rule tells by itself, so
    one or two nodes of a fleet are enough."""

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            _check(key, getattr(self, key))
        for rule in self.alert:
            if rule.half_life not in (None, *self.half_lives):
                tracked = ", ".join(f"{each:g}" for each in self.half_lives)
                raise SettingsError(f"alert {rule.name!r}: `half_life` must be one that is tracked: {tracked}")


def load_settings(flags: Mapping[str, object], env: Mapping[str, str], file: Path | None = None) -> NodeSettings:
    """Settings from all sources: a flag wins over the environment, that over the file, that over the default.

    `flags`: values by setting, None for a flag that was not given. `env`: the environment. `file`: TOML, one key a setting.
    Raises `SettingsError`, its `from_flag` set if a flag is to blame.
    """
    values: dict[str, object] = {}
    if file is not None:
        values |= _from_file(file)
    values |= _from_environment(env)
    for key, value in flags.items():
        if value is not None:
            try:
                values[key] = _converted(key, value, _flag(key))
            except SettingsError as error:
                raise SettingsError(str(error), from_flag=True) from None
    values.setdefault("store", DEFAULT_STORE)
    try:
        return msgspec.convert(values, NodeSettings)
    except msgspec.ValidationError as error:  # two settings that do not go together
        raise SettingsError(str(error)) from None


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, an IPv6 address in brackets. Raises `ValueError` saying what is wrong."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is not HOST:PORT: put an IPv6 address in brackets")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8470")
    return host, int(port)


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    known = {ENVIRONMENT_PREFIX + key.upper(): key for key in NodeSettings.__struct_fields__}
    values: dict[str, object] = {}
    for variable in sorted(env):
        if variable in known:
            key = known[variable]
            text = env[variable]
            many = key in ("listen", "connect", "probe", "labels", "half_lives")
            value: object = [part.strip() for part in text.split(",") if part.strip()] if many else text
            values[key] = _converted(key, value, variable)
        elif variable.startswith(ENVIRONMENT_PREFIX):
            near = difflib.get_close_matches(variable, known, n=1, cutoff=0.92)
            if near:
                raise SettingsError(f"there is no setting {variable} in the environment: {near[0]} is meant, or unset it")
    return values


def _from_file(file: Path) -> dict[str, object]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {file}: {error.strerror or error}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    known = NodeSettings.__struct_fields__
    for key in content:
        if key not in known:
            raise SettingsError(f"there is no setting `{key}`, as in {file}: {_nearest(key, known)}")
    return {key: _converted(key, value, f"`{key}` in {file}", strict=True) for key, value in content.items()}


def _nearest(key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f"`{near[0]}` may be meant" if near else f"there are {', '.join(names)}"


def _flag(key: str) -> str:
    return "--label" if key == "labels" else "--" + key.replace("_", "-")


_TYPES = {field.name: field.type for field in msgspec.structs.fields(NodeSettings)}


def _converted(key: str, value: object, source: str, *, strict: bool = False) -> object:
    """The value as its setting has it. Raises `SettingsError` naming the source. `strict`: a number is not read from a text."""
    try:
        if key == "alert":
            value = _read_alerts(value)
        if key == "labels" and isinstance(value, list):
            value = _read_labels(value)
        converted: object = msgspec.convert(value, _TYPES[key], strict=strict)
        if key == "probe" and converted == ("none",):
            converted = ()
        _check(key, converted)
    except msgspec.ValidationError:
        raise SettingsError(f"{source}: {value!r} is not {_wanted(key)}") from None
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None
    return converted


def _read_labels(texts: list[object]) -> dict[str, str]:
    """Labels written as KEY=VALUE."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not key or not equals or not value:
            raise SettingsError(f"{text!r} is not a label: give KEY=VALUE, as in zone=a")
        if key in labels:
            raise SettingsError(f"the label {key} has two values: give one")
        labels[key] = value
    return labels


def _read_alerts(tables: object) -> tuple[AlertRule, ...]:
    if isinstance(tables, str):
        raise SettingsError("alerts are given in the settings file only, each under [[alert]]")
    try:
        return read_rules(tables)
    except ConstraintCrdtError as error:
        raise SettingsError(str(error)) from None


def _wanted(key: str) -> str:
    if key == "labels":
        return 'a table of labels, as in { zone = "a" }, or a list of KEY=VALUE'
    if key == "half_lives":
        return "a list of numbers of seconds"
    if key in _WORDS:
        return f"one of {', '.join(_WORDS[key])}"
    if _TYPES[key] is bool:
        return "true or false"
    if _TYPES[key] is int:
        return "a whole number"
    return "a number of seconds" if key in BOUNDS else "a list of texts" if _TYPES[key] == tuple[str, ...] else "a text"


def _check_names(key: str, value: object) -> None:
    try:
        if isinstance(value, dict):
            check_labels(value)
        else:
            check_id(str(value), f"the {'name of a node' if key == 'name' else 'name of a fleet'}")
    except ConstraintCrdtError as error:
        raise SettingsError(str(error)) from None


def _check_half_lives(value: object) -> None:
    try:
        check_half_lives(value if isinstance(value, tuple) else ())
    except (ConstraintCrdtError, TypeError) as error:
        raise SettingsError(str(error)) from None


_WORDS: dict[str, tuple[str, ...]] = {"role": get_args(Role), "peer_choice": get_args(PeerChoice)}
"""The words that a setting takes."""

_READ: dict[str, Callable[[object], object]] = {"half_lives": _check_half_lives, "alert": _read_alerts}
"""What has rules of its own."""


def _check(key: str, value: object) -> None:
    """Raise `SettingsError` if the value, of the right type, is out of bounds."""
    if key in BOUNDS:
        lowest, highest = BOUNDS[key]
        if not isinstance(value, int | float) or not lowest <= value <= highest:  # NaN is in no range
            raise SettingsError(f"{key} must be from {lowest:g} to {highest:g} seconds, not {value!r}")
    elif key in NUMBERS:
        lowest, highest, what = NUMBERS[key]
        if not isinstance(value, int | float) or not lowest <= value <= highest:
            raise SettingsError(f"{key} must be from {lowest:.0f} to {highest:.0f}{what}, not {value!r}")
    elif key in ("name", "fleet", "labels"):
        _check_names(key, value)
    elif key in _READ:
        _READ[key](value)
    elif key == "probe" and isinstance(value, tuple) and "none" in value:
        raise SettingsError("the probe `none` stands alone: leave out the others, or it")
    elif key == "store" and not value:
        raise SettingsError("store must name a file, or be `default` or `memory`")
    elif key in _WORDS and value not in _WORDS[key]:
        raise SettingsError(f"{value!r} is not {_wanted(key)}")
    elif key == "api":
        try:
            parse_address(str(value))
        except ValueError as error:
            raise SettingsError(str(error)) from None
