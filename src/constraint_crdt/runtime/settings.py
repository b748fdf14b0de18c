"""The settings of a node, from four sources: flags override the environment, the environment the file, the file the defaults.

Rules: each value is checked at its source, so that errors name key and source. An unknown key is refused, with the nearest known
key. The environment is shared with other programs (a container platform may inject `CONSTRAINT_CRDT_PORT`), so only a near miss of
a known name is refused there.
"""

import ipaddress
import json
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from constraint_crdt.alerts import LOG, NAME_OF_PLACE, PLACE_NAMES, AlertRule, read_rules, wrong_address
from constraint_crdt.alerts.actions import Action, read_actions
from constraint_crdt.crdt.clock import SECOND, check_id
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.expression import check_names
from constraint_crdt.model import close_to, nearest
from constraint_crdt.operations.nodes import LinkProtection
from constraint_crdt.operations.operation import UsageError, parse_duration
from constraint_crdt.protocol.sites import SITE
from constraint_crdt.runtime.exchange_loop import PeerChoiceRule
from constraint_crdt.sources import SourceSettings, read_sources
from constraint_crdt.transport import TransportError
from constraint_crdt.transport.topology import parse_endpoint
from constraint_crdt.types.decay import DEFAULT_HALF_LIVES, check_half_lives
from constraint_crdt.types.definition import check_labels
from constraint_crdt.types.variables import EVERY, MOST_READINGS, Share, make_share

Role = Literal["auto", "peer", "router", "client"]

LogLevel = Literal["debug", "info", "warning", "error"]

PlatoContract = Literal["crate", "server"]

RELOADED = frozenset({"labels", "log_level", "alert", "destinations"})
"""The settings that a running node takes anew; the others need a restart."""

ENVIRONMENT_PREFIX = "CONSTRAINT_CRDT_"

IDENTITY_TLS = "identity"
"""The API has the certificate of the node's identity."""

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
    "wait_for_address": (0.0, 86_400.0),
}
"""Lowest and highest value of each duration, in seconds."""

NUMBERS: dict[str, tuple[float, float, str]] = {
    "keep_removals": (0, 10_000_000, ""),
    "keep_decisions": (0, 100_000, ""),
    "routers": (1, 16, ""),
    "routers_above": (2, 100_000, " nodes"),
    "record_bytes": (1024 * 1024, 1024 * 1024 * 1024, ""),
    "record_measurements_bytes": (1024 * 1024, 1024 * 1024 * 1024 * 1024, ""),
    "record_deadband": (0, 1, ""),
    "api_rate": (1, 1_000_000, " requests per second"),
    "api_connections_per_address": (1, 100_000, " connections"),
}
"""Lowest and highest value of each other number, and its unit."""


class SettingsError(ConstraintCrdtError, ValueError):
    """A wrong setting. `str()` is a sentence naming the key and, if known, its source."""

    def __init__(self, message: str, *, from_flag: bool = False) -> None:
        super().__init__(message)
        self.from_flag = from_flag


class VariableSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a variable: a table `[variables.NAME]` of the file."""

    max_age: float | None = None
    """Seconds for which a measurement of the variable counts; None: the `max_age` of the node. A file may give a text, as in `5s`.
    """


class SharedVariable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A variable that the node shares with the fleet."""

    name: str
    deadband: float = 0.0
    """A number is told if it moved by more than this. 0: each change."""
    every: float = EVERY / SECOND
    """Seconds after which a measurement is told though it did not move. Readers use a reading for three times as long."""

    @property
    def share(self) -> Share:
        """The same, as the readings have it. Raises `ConstraintCrdtError` for values out of bounds."""
        check_names([self.name])
        return make_share(self.name, self.deadband, self.every)


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a node. Raises `SettingsError` (a `ConstraintCrdtError`) for a value out of bounds."""

    name: str = msgspec.field(default_factory=socket.gethostname)
    """The name of the node, unique in its fleet. The default, the name of the host, fails for two nodes on a host."""

    fleet: str = "default"
    """The name of the fleet. Fleets on a network never mix; a separate name keeps a test out of production."""

    role: Role = "auto"
    """`peer` links to every other peer: simplest, good to some 50 nodes. `router` also carries traffic for others, at its own cost;
    `client` has a single link, to a router: cheapest, and cut off together with its routers. `auto`: a peer in a fleet of up to 40
    live nodes (`routers_above`); beyond, a few nodes that others reach become routers, and the others their clients, without a
    restart.
    """

    routers: int = 2
    """The routers of a fleet whose nodes choose their role. More carry more clients. With three or more, Zenoh 1.10.2 has a defect
    that may break a router when another ends. All nodes should have the same number.
    """

    routers_above: int = 40
    """The live nodes beyond which a fleet has routers; below three quarters of this number for a while it has none again. More keep
    a link between all nodes for longer, which costs each node bytes and CPU for every other. All nodes should have the same number.
    """

    listen: tuple[str, ...] = ()
    """Endpoints `tcp/HOST:PORT` for connections from other nodes; port 0 takes a free port. None: a free port on loopback. An
    address beyond loopback admits other machines: it needs an `identity`, or `insecure`. With an identity, `tls/HOST:PORT` is the
    same.
    """

    connect: tuple[str, ...] = ()
    """Endpoints of other nodes. A single reachable endpoint finds all nodes; further endpoints survive its loss."""

    identity: str = ""
    """The folder of the node's identity, made by `constraint-crdt fleet certify`. With an identity every link is TLS, and both ends
    show certificates of the fleet; name and fleet are those of the certificate. See docs/security.md.
    """

    join_listen: str = ""
    """`HOST:PORT` of the join endpoint of an operator's node, which listens while an invitation is open; port 0 takes a free one.
    By default the host of the first endpoint in `listen` (loopback without an endpoint), and port 7448, or a free port if that is
    taken.
    """

    insecure: bool = False
    """Listen beyond loopback without an identity: every machine that reaches the port can change everything."""

    accept_plain: bool = False
    """With an identity: link also to nodes without an identity, while a fleet gets its identities node by node. Then
    `tcp/HOST:PORT` in `listen` is plain TCP, with TLS at a free port beside it: every machine that reaches the port can change
    everything.
    """

    discover: bool = True
    """Link also to nodes known to the connected nodes. Without discovery, link only to those in `connect`, for networks with chosen
    routes; state travels along these links only.
    """

    api: str = "127.0.0.1:8470"
    """`HOST:PORT` of the HTTP API; port 0 takes a free port. An address beyond loopback needs a `token_file`, or the node does not
    start.
    """

    wait_for_address: float = 30.0
    """Seconds for which a start waits until this machine has the addresses of `api`, `listen` and `join_listen`: the network may
    still be set up after boot. Then a missing address ends the start. Of the command `node` only.
    """

    token_file: str = ""
    """A file with the tokens of the API, each on a line `read TOKEN` or `write TOKEN`, not readable for other users of the machine.
    Without a file the API needs no token.
    """

    base_path: str = ""
    """The path at which a proxy shows the API and its page, such as `/crdt/`. The node serves both `/crdt/v1/…` and `/v1/…`, so the
    proxy may pass the path on or strip it, and its pages and links use the path. Empty: none.
    """

    api_rate: float = 5000.0
    """Requests per second of a client, with bursts of twice this number. A lower rate protects other clients from a faulty one."""

    api_connections_per_address: int = 200
    """Connections of an address to the API at once: of an IPv4 address, or of the /64 network of an IPv6 address; five times as
    many of a loopback address. Beyond, an address may ask for the health of the node only.
    """

    api_tls: str = ""
    """TLS for the API: `identity` (in a file also `true`) with the certificate of the node's identity, or `CERT.pem,KEY.pem` with a
    certificate and its key. Without TLS tokens and answers travel unprotected.
    """

    mcp: bool = False
    """Serve tools for agents by the Model Context Protocol at `/mcp` of the API, with its tokens. Needs the extra `mcp`, whose SDK
    takes some 40 MB of memory and half a second of the start; so not by default.
    """

    plato: PlatoContract = "crate"
    """The contract of PLATO clients that do not name theirs, at `/rooms` and `/room/ROOM`: `crate`, of the Rust crate, or `server`,
    of PLATO servers, which then have `/` as well, but for browsers. The paths below `/plato` are always of `server`.
    """

    probe: tuple[str, ...] = ()
    """Probes read by the node: `system` or installed probes. Each costs a reading per `check_every`."""

    check_every: float = 1.0
    """Seconds between two ticks, at which probes are read, aged values noticed, and `for`, `clear_after` and windows moved. A value
    that a program posts is judged at once. Shorter notices these sooner and costs CPU; nothing is sent per tick.
    """

    count_every: float = 2.0
    """Seconds between two writes of counts, with a cell per constraint. Longer sends less and shows counts later; a killed node
    loses the counts of this time.
    """

    rate_every: float = 10.0
    """Seconds between two writes of sketches and rates. Longer sends less, and other nodes see them later; a killed node loses
    those of this time, without the counts.
    """

    gossip_every: float = 0.2
    """Seconds between rounds of gossip. A change is pushed at once; rounds bring changes missed by a push. Shorter repairs sooner
    and costs a Ping per round. While nothing moves, rounds are rarer: each 2 to 5 s by default.
    """

    peer_choice: PeerChoiceRule = "auto"
    """The selection of the peer of a round. `uniform`: at random, without further knowledge; `near`: preferring near peers, by
    position if all have a position, else by round-trip time, which keeps most traffic on short links; `auto`: `near` from 16 peers.
    """

    max_age: float = 30.0
    """Seconds for which a measurement counts. Shorter shows a dead sensor sooner, as `unknown`; must exceed the time between two
    measurements. The `max_age` of a variable takes precedence, and the `max_age` of a definition over both.
    """

    variables: dict[str, VariableSettings] = msgspec.field(default_factory=dict)
    """Settings of some variables by name, each under `[variables.NAME]` in the file: `max_age`, in place of the `max_age` of the
    node. A variable with a point in its name needs quotes there, as in `[variables."robot.speed"]`.
    """

    share: tuple[SharedVariable, ...] = ()
    """The variables whose last value the node shares with the fleet, at most 64: each a name, or a table with `name`, `deadband`
    and `every`; on the command line and in the environment `NAME[:DEADBAND[:EVERY]]`, as in `power_w:50:5s`. Each value told is a
    cell of some 20 bytes that reaches every node, so a deadband above the noise of the sensor saves most of the traffic.
    """

    share_on_request: bool = True
    """Share also the variables that a constraint of scope fleet reads. Else such a constraint lacks the readings of this node."""

    request_timeout: float = 1.0
    """Seconds to wait for the first answer of a peer; doubled with each timeout, up to 8 times. After that timeouts follow the
    measured link, and are a quarter of this at least. Shorter notices a silent peer sooner, and repeats more requests.
    """

    store: str = MEMORY_STORE
    """The place of the state: a file; `default` for a file below the XDG state directory, named after fleet and node; or `memory`,
    the fastest, lost when the node ends. (The default of the command line is `default`.)
    """

    keep_removals: int = 10_000
    """Removals kept for live peers lacking them. More spares those peers a whole Sync, and costs memory and disk."""

    keep_removals_for: float = 3600.0
    """Seconds for which a removal is kept for such peers, at most."""

    fold_counts_after: float = 86_400.0
    """Seconds after which the counts of an inactive constraint are folded into the node's total. Sooner keeps less, and loses
    detail of the past.
    """

    retire_away_after: float = 0.0
    """Seconds after which a node that was not heard of is retired, an hour at least; 0: never. For fleets whose nodes get names at
    random, as in containers. A node alone retires none; the two sides of a cut that lasts for so long retire each other, which
    `constraint-crdt retire NODE --undo` mends.
    """

    keep_deleted_tiles_for: float = 604_800.0
    """Seconds for which a tile deleted by this node can be restored before the purge. (Twice the time for a tile deleted by another
    node.) Sooner keeps less on every node.
    """

    keep_decisions: int = 1_000
    """Decisions of `decide` kept in memory, of 8 MB together at most. More reaches further back."""

    half_lives: tuple[float, ...] = DEFAULT_HALF_LIVES
    """Half-lives of recent rates in seconds, 1 to 8 of them. Each costs some 20 bytes per constraint and `rate_every`. Rates at a
    half-life cover only the nodes with the same half-life.
    """

    log_level: LogLevel = "info"
    """The lowest level of the lines of the log: `debug`, `info`, `warning` or `error`. It is read again at SIGHUP."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """The labels of the node, such as `zone = "a"`. A constraint may require labels: nodes without them list the constraint and do
    not evaluate it.
    """

    site: str = ""
    """The site of the node, such as `berlin`. Nodes of a site gossip with each other; between sites two nodes of each speak for the
    rest, so that the links between them carry less. The site is told to others as the label `site`, which may be given instead.
    """

    max_skew: float = 10.0
    """Tolerated difference of clocks in the fleet, in seconds. A clock further off is ignored and raises an alarm. More tolerates
    worse clocks, and lets the fastest clock end constraints earlier by as much for all.
    """

    record: str = ""
    """A file to record every input of the node, for `constraint-crdt replay`. The file contains everything shared in the fleet."""

    record_bytes: int = 64 * 1024 * 1024
    """The bound of a recording in bytes, both files together. More reaches further back."""

    record_measurements: str = ""
    """A file to record the measurements of the node with the definitions in force, for `constraint-crdt backtest`; or a directory,
    with a file for the node. A file of before is kept as `FILE.1`, in place of the file before it.
    """

    record_measurements_bytes: int = 256 * 1024 * 1024
    """The bound of a recording of measurements in bytes, both files together. A number takes some 10 bytes. More reaches further
    back.
    """

    record_deadband: float = 0.0
    """A number that moved by no more than this share since the last recorded number is left out of the recording of measurements,
    until that one is half as old as its maximum age. 0: each sample is recorded, and a replay is exact. More saves room, and a
    replay is as exact as that.
    """

    alert: tuple[AlertRule, ...] = ()
    """Alert rules with their destinations, each under `[[alert]]` in the file. Nodes with the same rule tell it together: one of
    them at a time. `constraint-crdt alerts add` defines rules for the whole fleet instead.
    """

    destinations: dict[str, str] = msgspec.field(default_factory=dict)
    """Where this node can tell alerts: addresses of webhooks by name, such as `ops = "https://ops.example/hook/TOKEN"`. Rules name
    them in `to`; the addresses stay on this node. Others see the names, and leave the telling to nodes that have them.
    """

    source: tuple[SourceSettings, ...] = ()
    """Sources that the node reads values from, each under `[[source]]` in the file: programs, web servers, exporters of Prometheus,
    files, brokers of MQTT, Zenoh, MAVLink. See docs/how-to/sources.md.
    """

    action: tuple[Action, ...] = ()
    """The reactions of the node when a constraint turns on it, each under `[[action]]` in the file: a command, a webhook, or a
    message by Zenoh. Only constraints of mode enforce count. See docs/how-to/actions.md.
    """

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            _check(key, getattr(self, key))
        try:
            read_actions(self.action, self.destinations)
        except ConstraintCrdtError as error:
            raise SettingsError(str(error)) from None
        for rule in self.alert:
            if rule.half_life not in (None, *self.half_lives):
                tracked = ", ".join(f"{each:g}" for each in self.half_lives)
                raise SettingsError(f"alert {rule.name!r}: `half_life` must be one that is tracked: {tracked}")
            if any(place != LOG and "://" not in place and place not in self.destinations for place in rule.to):
                known = ", ".join([LOG, *sorted(self.destinations)])
                raise SettingsError(
                    f"alert {rule.name!r}: `to` names a destination that is not there: there are {known}, and addresses; "
                    "name others under [destinations]"
                )
        if self.site and self.labels.get(SITE, self.site) != self.site:
            raise SettingsError(
                f"`site` is {self.site!r}, and the label `{SITE}` is {self.labels[SITE]!r}: they mean the same, so give one"
            )
        if self.api_tls == IDENTITY_TLS and not self.identity:
            raise SettingsError(
                "`api_tls` takes the certificate of the node's identity, and there is none: give the node an identity "
                "(`identity`, --identity FOLDER), or name a certificate and its key (--api-tls CERT.pem,KEY.pem)"
            )
        if self.accept_plain and not self.identity:
            raise SettingsError("`accept_plain` is for a node with an identity: give it one (--identity FOLDER), or leave this out")
        reachable = [endpoint for endpoint in self.listen if not is_loopback(endpoint)]
        if reachable and not self.identity and not self.insecure:
            raise SettingsError(
                f"{reachable[0]} can be reached from other machines: give the node an identity (`identity`, --identity FOLDER), "
                "or `insecure` (--insecure) where only trusted machines reach it"
            )

    @property
    def all_labels(self) -> dict[str, str]:
        """The labels of the node, with that of its site."""
        return {**self.labels, SITE: self.site} if self.site else self.labels

    @property
    def max_ages(self) -> dict[str, float]:
        """The maximum ages of variables that have an age of their own, in seconds: by their tables, else by their sources."""
        by_source = {name: each.lasts for each in self.source for name in each.fields if "{" not in name}
        return by_source | {name: each.max_age for name, each in self.variables.items() if each.max_age is not None}

    @property
    def shares(self) -> tuple[Share, ...]:
        """The shared variables, as the readings have them."""
        return tuple(each.share for each in self.share)

    @property
    def links(self) -> LinkProtection:
        """How the links to other nodes are protected."""
        if self.identity:
            return "mixed" if self.accept_plain else "certificates"
        return "loopback" if all(map(is_loopback, (*self.listen, *self.connect))) else "none"


def load_settings(
    flags: Mapping[str, object],
    env: Mapping[str, str],
    file: Path | None = None,
    *,
    names_of: Callable[[str], tuple[str, str]] | None = None,
    defaults_of: Callable[[str], Mapping[str, Sequence[str]]] | None = None,
    default_identity: str = "",
) -> NodeSettings:
    """Settings from all sources: a flag overrides the environment, the environment the file, the file the default.

    `flags`: values by setting, None for a missing flag. `env`: the environment. `file`: TOML, a key per setting. `names_of`: gives
    the names of node and fleet in an identity, which are their defaults. `defaults_of`: gives the defaults of `listen` and
    `connect` that it remembers. `default_identity`: the identity to use where none is given, unless another name or fleet is.

    Raises `SettingsError`, with `from_flag` set for a wrong flag.
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
    if names_of is not None:
        _add_identity(values, flags, names_of, default_identity)
    if defaults_of is not None and values.get("identity"):
        for key, remembered in defaults_of(str(values["identity"])).items():
            values.setdefault(key, tuple(remembered))
    try:
        settings = msgspec.convert(values, NodeSettings)
    except msgspec.ValidationError as error:  # two settings that do not go together
        raise SettingsError(str(error), from_flag=_is_by_flag(values, flags)) from None
    for key in () if settings.identity else ("listen", "connect"):
        for endpoint in getattr(settings, key):
            if endpoint.startswith("tls/"):
                why = f"the endpoint {endpoint!r} needs an identity; give the node one (--identity), or write tcp/HOST:PORT"
                raise SettingsError(why, from_flag=flags.get(key) is not None)
    return settings


def _is_by_flag(values: Mapping[str, object], flags: Mapping[str, object]) -> bool:
    """True if settings that do not go together would do so without the flags that need an identity."""
    rest = {key: value for key, value in values.items() if key not in _NEED_IDENTITY or flags.get(key) is None}
    try:
        msgspec.convert(rest, NodeSettings)
    except msgspec.ValidationError:
        return False
    return True


def _add_identity(
    values: dict[str, object], flags: Mapping[str, object], names_of: Callable[[str], tuple[str, str]], default: str
) -> None:
    """Take name and fleet from the identity, which may be `default`. Raises `SettingsError` for other names."""
    if default and "identity" not in values and not values.get("insecure"):
        names = dict(zip(("name", "fleet"), names_of(default), strict=True))
        if all(values.get(key, name) == name for key, name in names.items()):
            values["identity"] = default
    identity = values.get("identity")
    if isinstance(identity, str) and identity:
        for key, found in zip(("name", "fleet"), names_of(identity), strict=True):
            if values.setdefault(key, found) != found:
                what = f"the identity in {identity} is of the {'node' if key == 'name' else 'fleet'} {found}, not {values[key]}"
                raise SettingsError(f"{what}: leave out `{key}`, or name another identity", from_flag=flags.get(key) is not None)


def is_loopback(endpoint: str) -> bool:
    """True for an endpoint that other machines cannot reach. A name other than `localhost` may be of any machine. Also True for an
    endpoint without a host: malformed ones are refused elsewhere.
    """
    host = endpoint.partition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("", "localhost")


def parse_address(text: str) -> tuple[str, int]:
    """Parse `HOST:PORT`, with an IPv6 address in brackets. Raises `ValueError` with the fault."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidValue(f"{text!r} is not HOST:PORT: put an IPv6 address in brackets")
    if not colon or not host or not port.isascii() or not port.isdigit():
        raise InvalidValue(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8470")
    if len(port.lstrip("0")) > 5 or int(port) > 65535:
        raise InvalidValue(f"the port of {text!r} is above 65535: give a port from 0 to 65535")
    return host, int(port)


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    known = {ENVIRONMENT_PREFIX + key.upper(): key for key in NodeSettings.__struct_fields__}
    values: dict[str, object] = {}
    for variable in sorted(env):
        if variable in known:
            key = known[variable]
            text = env[variable]
            many = key in ("listen", "connect", "probe", "labels", "destinations", "half_lives", "share")
            value: object = [part.strip() for part in text.split(",") if part.strip()] if many else text
            values[key] = _converted(key, value, variable)
        elif variable.startswith(ENVIRONMENT_PREFIX):
            near = close_to(variable, known, cutoff=0.92)
            if near:
                raise SettingsError(f"there is no setting {variable} in the environment: {near[0]} is meant, or unset it")
    return values


def _from_file(file: Path) -> dict[str, object]:
    import tomllib  # for nodes with a file of settings only

    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the settings in {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not TOML: it is not text in UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{file} cannot be read: it is nested too deep") from None
    except ValueError:  # of the conversion of numbers
        raise SettingsError(f"{file} cannot be read: a number in it has thousands of digits") from None
    known = NodeSettings.__struct_fields__
    for key in content:
        if key not in known:
            raise SettingsError(f"there is no setting `{key}`, as in {file}: {nearest(key, sorted(known))}")
    return {key: _converted(key, value, f"`{key}` in {file}", strict=True) for key, value in content.items()}


def _flag(key: str) -> str:
    return {"labels": "--label", "destinations": "--destination"}.get(key) or "--" + key.replace("_", "-")


_TYPES = {field.name: field.type for field in msgspec.structs.fields(NodeSettings)}


def _converted(key: str, value: object, source: str, *, strict: bool = False) -> object:
    """Convert a value to the type of its setting. Raises `SettingsError` naming the source. `strict`: texts are not parsed as
    numbers.
    """
    try:
        if key in _READERS:
            value = _READERS[key](value)
        if key == "retire_away_after" and isinstance(value, str) and value != "0":
            value = parse_duration(value)
        if key == "labels" and isinstance(value, list):
            value = _read_labels(value)
        converted: object = msgspec.convert(value, _TYPES[key], strict=strict)
        if key == "probe" and converted == ("none",):
            converted = ()
        _check(key, converted)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the second: a text of the command line that is no UTF-8
        shown = "this" if key == "destinations" else repr(value)
        raise SettingsError(f"{source}: {shown} is not {_wanted(key)}") from None
    except (SettingsError, UsageError) as error:
        raise SettingsError(f"{source}: {error}") from None
    return converted


def _read_api_tls(value: object) -> object:
    if value in (True, "true", "1", IDENTITY_TLS):
        return IDENTITY_TLS
    if value in (False, "false", "0", ""):
        return ""
    if isinstance(value, str) and len(parts := [part.strip() for part in value.split(",")]) == 2 and all(parts):
        return ",".join(parts)
    raise SettingsError(f"{value!r} is neither `true` nor CERT.pem,KEY.pem")


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


def _read_destinations(given: object) -> object:
    """Destinations of a table, or of a list of NAME=ADDRESS. Errors repeat no address, which may hold a secret."""
    if not isinstance(given, list):
        return given
    found: dict[str, str] = {}
    for text in given:
        name, equals, address = text.partition("=") if isinstance(text, str) else ("", "", "")
        if not equals or "://" in name:
            raise SettingsError("a destination is NAME=ADDRESS, as in ops=https://ops.example/hook")
        if name in found:
            raise SettingsError(f"the destination {name} has two addresses: give one")
        found[name] = address
    return found


def _check_endpoints(value: object) -> None:
    for endpoint in value if isinstance(value, tuple) else ():
        try:
            parse_endpoint(endpoint)
        except TransportError as error:
            raise SettingsError(str(error)) from None


def _check_destinations(value: object) -> None:
    destinations = value if isinstance(value, dict) else {}
    if len(destinations) > MOST_DESTINATIONS:
        raise SettingsError(f"at most {MOST_DESTINATIONS} destinations, not {len(destinations)}")
    for name, address in destinations.items():
        if name == LOG or NAME_OF_PLACE.fullmatch(str(name)) is None:
            raise SettingsError(f"{name!r} cannot be the name of a destination: it takes {PLACE_NAMES}, except `log`")
        problem = wrong_address(str(address))
        if problem is not None:
            raise SettingsError(f"the destination {name}: {problem}")


def _read_alerts(tables: object) -> tuple[AlertRule, ...]:
    if isinstance(tables, str):
        raise SettingsError("alerts are given in the settings file only, each under [[alert]]")
    try:
        return read_rules(tables)
    except ConstraintCrdtError as error:
        raise SettingsError(str(error)) from None


def _read_sources(tables: object) -> tuple[SourceSettings, ...]:
    if isinstance(tables, str):
        raise SettingsError("sources are given in the settings file only, each under [[source]]")
    try:
        return read_sources(tables)
    except ConstraintCrdtError as error:
        raise SettingsError(str(error)) from None


def _read_actions(tables: object) -> tuple[Action, ...]:
    if isinstance(tables, str):
        raise SettingsError("actions are given in the settings file only, each under [[action]]")
    try:
        return read_actions(tables)
    except ConstraintCrdtError as error:
        raise SettingsError(str(error)) from None


def _read_variables(tables: object) -> dict[str, VariableSettings]:
    if not isinstance(tables, dict) or not all(isinstance(table, dict | VariableSettings) for table in tables.values()):
        raise SettingsError("variables are given in the settings file only, each under [variables.NAME]")
    return {name: _read_variable(name, table) for name, table in tables.items()}


def _read_variable(name: str, table: "Mapping[str, object] | VariableSettings") -> VariableSettings:
    """A checked table, also if it is read already. Raises `SettingsError` naming the table."""
    where = f"[variables.{name if name.isidentifier() else json.dumps(name)}]"
    if isinstance(table, VariableSettings):
        table = {key: value for key, value in msgspec.structs.asdict(table).items() if value is not None}
    for key in table:
        if key not in VariableSettings.__struct_fields__:
            raise SettingsError(f"{where}: there is no key `{key}`: {nearest(key, sorted(VariableSettings.__struct_fields__))}")
    try:
        check_names([name])
        return VariableSettings(max_age=_variable_age(table.get("max_age")))
    except ConstraintCrdtError as error:
        raise SettingsError(f"{where}: {error}") from None


def _read_shares(given: object) -> tuple[SharedVariable, ...]:
    """Checked shared variables of names, texts as on the command line, and tables. Raises `SettingsError`."""
    if not isinstance(given, list | tuple):
        raise SettingsError('share is a list, as in ["battery_percent", {name = "power_w", deadband = 50, every = "5s"}]')
    found = tuple(map(_read_share, given))
    twice = next((each.name for place, each in enumerate(found) if each.name in {other.name for other in found[:place]}), None)
    if twice is not None:
        raise SettingsError(f"share names {twice} twice")
    if len(found) > MOST_READINGS:
        raise SettingsError(f"a node shares at most {MOST_READINGS} variables, not {len(found)}")
    return found


def _read_share(given: object) -> SharedVariable:
    if isinstance(given, str):
        name, *rest = given.split(":")
        try:
            given = {"name": name, **({"deadband": float(rest[0])} if rest and rest[0] else {})}
        except ValueError:
            raise SettingsError(f"share: {rest[0]!r} is no number: give NAME[:DEADBAND[:EVERY]], as in power_w:50:5s") from None
        if len(rest) > 2:
            raise SettingsError(f"share: {':'.join(rest)!r} has too many parts: give NAME[:DEADBAND[:EVERY]], as in power_w:50:5s")
        given |= {"every": rest[1]} if rest[1:] else {}
    if isinstance(given, SharedVariable):
        given = msgspec.structs.asdict(given)
    if not isinstance(given, dict) or "name" not in given:
        raise SettingsError(f"share: {given!r} is no name, and no table with a `name`")
    for key in given:
        if key not in SharedVariable.__struct_fields__:
            raise SettingsError(f"share: there is no key `{key}`: {nearest(key, sorted(SharedVariable.__struct_fields__))}")
    every = given.get("every")
    try:
        table = {**given, "every": parse_duration(every)} if isinstance(every, str) else given
        shared = msgspec.convert(table, SharedVariable)
        shared.share  # noqa: B018 - checks the bounds
    except msgspec.ValidationError:
        raise SettingsError(f"share: {given!r} has a value of a wrong type") from None
    except ConstraintCrdtError as error:
        raise SettingsError(f"share: {error}") from None
    return shared


def _variable_age(value: object) -> float | None:
    """Seconds of a number or a text. Raises `ConstraintCrdtError` for another value, and out of bounds."""
    if value is None:
        return None
    seconds = parse_duration(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise SettingsError(f"max_age must be a number of seconds, or a text such as '5s', not {value!r}")
    _check("max_age", seconds)
    return float(seconds)


def _wanted(key: str) -> str:
    if key == "labels":
        return 'a table of labels, as in { zone = "a" }, or a list of KEY=VALUE'
    if key == "destinations":
        return 'a table of addresses by name, as in { ops = "https://ops.example/hook" }, or a list of NAME=ADDRESS'
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
        elif key == SITE:
            check_labels({SITE: str(value)} if value else {})
        else:
            check_id(str(value), f"the {'name of a node' if key == 'name' else 'name of a fleet'}")
    except ConstraintCrdtError as error:
        raise SettingsError(str(error)) from None


def _check_half_lives(value: object) -> None:
    try:
        check_half_lives(value if isinstance(value, tuple) else ())
    except (ConstraintCrdtError, TypeError) as error:
        raise SettingsError(str(error)) from None


_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")


LEAST_AWAY = 3600.0


def _check_away(value: object) -> None:
    if not isinstance(value, int | float) or not (value == 0 or LEAST_AWAY <= value <= 315_360_000.0):
        raise SettingsError(f"retire_away_after must be 0, for never, or from {LEAST_AWAY:g} seconds to ten years, not {value!r}")


def _check_base_path(value: object) -> None:
    if not _BASE_PATH.fullmatch(str(value)):
        raise SettingsError(f"base_path must be a path, as in /crdt/, not {value!r}")


MOST_DESTINATIONS = 16
"""Destinations of a node."""

_NEED_IDENTITY = ("listen", "accept_plain", "api_tls")
"""The settings with values that need an identity."""

_WORDS: dict[str, tuple[str, ...]] = {
    "role": get_args(Role),
    "peer_choice": get_args(PeerChoiceRule),
    "plato": get_args(PlatoContract),
}
"""The allowed words of a setting."""

_READERS: dict[str, Callable[[Any], object]] = {
    "alert": _read_alerts,
    "source": _read_sources,
    "action": _read_actions,
    "variables": _read_variables,
    "share": _read_shares,
    "api_tls": _read_api_tls,
    "destinations": _read_destinations,
}
"""Settings whose texts and tables are read by a function of their own."""

_READ: dict[str, Callable[[object], object]] = {
    "half_lives": _check_half_lives,
    "alert": _read_alerts,
    "source": _read_sources,
    "action": _read_actions,
    "destinations": _check_destinations,
    "variables": _read_variables,
    "share": _read_shares,
    "base_path": _check_base_path,
    "retire_away_after": _check_away,
    "listen": _check_endpoints,
    "connect": _check_endpoints,
}
"""Settings with checks of their own."""


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
    elif key in ("name", "fleet", "labels", SITE):
        _check_names(key, value)
    elif key in _READ:
        _READ[key](value)
    elif key == "probe" and isinstance(value, tuple) and "none" in value:
        raise SettingsError("the probe `none` stands alone: leave out the others, or it")
    elif key == "store" and not value:
        raise SettingsError("store must name a file, or be `default` or `memory`")
    elif key in _WORDS and value not in _WORDS[key]:
        raise SettingsError(f"{value!r} is not {_wanted(key)}")
    elif key == "api" or (key == "join_listen" and value):
        try:
            parse_address(str(value))
        except ValueError as error:
            raise SettingsError(str(error)) from None
