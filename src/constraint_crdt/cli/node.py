"""The commands on a node of this machine: `node`, `doctor`, and `token`.

`node` runs a node and its API until SIGTERM or Ctrl-C, or until a fault ends the node, and logs to stderr.
Rules: nothing on stdout. The port of the API is taken first: a taken port is refused before the fleet hears of the node.
Once it serves, it logs a line `ready name=NAME api=URL endpoints=...`, which those who start nodes may wait for.

The log of a node: stderr, a line per event, `time level message`, within the `LogBudget`.

`doctor` asks the node for its findings. Without an answer it looks itself: at the settings, port, seeds and store.

`token` changes the token file of a node, which need not run: a running node notices the change.
"""

import argparse
import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from constraint_crdt.cli.arguments import CA_VARIABLE, PROGRAM
from constraint_crdt.cli.output import CommandFailedError, MisuseError, log_to_stderr, print_json, print_view, printable
from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.dashboard import dashboard_pages
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.gossip import steady_ns
from constraint_crdt.http.security import ApiCertificate
from constraint_crdt.http.server import ApiServer
from constraint_crdt.http.tokens import ApiToken, TokenFile, Tokens, check_token_name, parse_role, show_moment
from constraint_crdt.insight.diagnosis import check_disk, check_seeds
from constraint_crdt.model import Event, EventKind
from constraint_crdt.operations.operation import Column, Table, View, parse_duration
from constraint_crdt.operations.service import Finding, worst_of
from constraint_crdt.runtime.measurement import find_probe
from constraint_crdt.runtime.node import Node
from constraint_crdt.runtime.persistence import store_path
from constraint_crdt.runtime.settings import (
    ENVIRONMENT_PREFIX,
    IDENTITY_TLS,
    MEMORY_STORE,
    NodeSettings,
    SettingsError,
    load_settings,
    parse_address,
)
from constraint_crdt.store import default_path
from constraint_crdt.transport import TransportError

if TYPE_CHECKING:
    from constraint_crdt.cli.mcp import McpTools

_LOGGED = {
    EventKind.ADDED: logging.INFO,
    EventKind.CHANGED: logging.INFO,
    EventKind.REMOVED: logging.INFO,
    EventKind.EXPIRED: logging.INFO,
    EventKind.VIOLATED: logging.WARNING,
    EventKind.SATISFIED: logging.INFO,
    EventKind.RETIRED: logging.WARNING,
    EventKind.RETIREMENT_UNDONE: logging.WARNING,
    EventKind.MISSED: logging.WARNING,
}
"""The events that the log tells, each with its level. The node itself logs events of its peers and its own life."""

OPEN_FILES = 4096
"""Open files that a node may need: connections of the API, links, and the store."""

ADDRESS_PAUSE = 0.5
"""Seconds between two looks for an address."""

DIAGNOSIS_TIMEOUT = 30.0
"""Seconds of silence, beyond those that the client grants a diagnosis, as the node tries its seeds."""

_log = logging.getLogger("constraint_crdt.cli")


def run_node(arguments: argparse.Namespace) -> NoReturn:
    """Run a node until it is told to stop, and end the process with exit code 0 then; with 1 and a sentence if it has to end.

    Raises `CommandFailedError` if it cannot start.
    """
    if os.getpid() == 1:
        _become_init()
    if arguments.request is not None:
        sys.exit(_write_request(arguments))
    if arguments.join is not None:
        _join(arguments)
    settings = _settings(arguments)
    if arguments.rejoin and settings.store == MEMORY_STORE:
        raise MisuseError("--rejoin sets a store aside, and this node keeps its state in memory: leave it out, or name a --store")
    try:
        node, api, agents = _made(settings, arguments)
        log_to_stderr(settings.log_level)
        _await_addresses(settings)
        api.bind()
        _allow_open_files()
        if settings.identity:
            _log.info("identity %s: %s of the fleet %s", settings.identity, settings.name, settings.fleet)
        keep_collections_short()
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            over = runner.run(_serve(node, api, agents, arguments))
    except ConstraintCrdtError as error:
        raise CommandFailedError(str(error)) from None
    if over is not None:
        print(f"{PROGRAM} node: {printable(over)}", file=sys.stderr, flush=True)
    logging.shutdown()
    # The node has left in order. A thread in which the engine tries to reach a router that is down, or a probe that hangs, would
    # hold the process back for as long as that takes, and has nothing to lose.
    os._exit(0 if over is None else CommandFailedError.exit_code)


def _made(settings: NodeSettings, arguments: argparse.Namespace) -> "tuple[Node, ApiServer, McpTools | None]":
    """The node, its API, and its tools for agents, if it serves them; none of them opens anything yet.

    Raises `MisuseError` for settings that do not work, and `ConstraintCrdtError` for files and libraries that do not.
    """
    try:
        probes = [find_probe(name) for name in settings.probe]
        ahead = round(arguments.clock_offset * 1e9)
        node = Node(settings=settings, probes=probes, now=lambda: time.time_ns() + ahead, steady=steady_ns)
        tokens = Tokens.load(Path(settings.token_file)) if settings.token_file else None
        agents = _agent_tools(settings)
        api = ApiServer(
            node,
            *parse_address(settings.api),
            pages=[*dashboard_pages(settings.base_path), *([] if agents is None else [agents.route])],
            tokens=tokens,
            certificate=_api_certificate(settings),
            base_path=settings.base_path,
        )
    except (InvalidValue, TransportError) as error:
        raise MisuseError(str(error)) from None
    return node, api, agents


def _become_init() -> None:
    """As process 1, as in a container: run the node in a child, pass signals on, and take the exit codes of all processes that lost
    their parent, as those that a command left behind. Returns in the child; in process 1 the process ends with the child.
    """
    passed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    for number in passed_on:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(128 - code if code < 0 else code)


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop where it is installed (the extra `fast`); None for that of asyncio."""
    try:
        import uvloop
    except ImportError:
        return None
    loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return loop


def _agent_tools(settings: NodeSettings) -> "McpTools | None":
    """The tools for agents, if the node serves them. Raises `ConstraintCrdtError` if their library is missing."""
    if not settings.mcp:
        return None
    from constraint_crdt.cli.mcp import McpTools

    return McpTools()


def _await_addresses(settings: NodeSettings) -> None:
    """Wait until this machine has the addresses to listen at, for as long as the settings say."""
    ends = time.monotonic() + settings.wait_for_address
    places = [settings.api, settings.join_listen, *(endpoint.partition("/")[2] for endpoint in settings.listen)]
    told: list[str] = []
    while (missing := [place for place in places if place and not _is_here(place)]) and time.monotonic() < ends:
        if missing != told:
            told = missing
            _log.warning("waiting for %s: this machine has no such address yet", ", ".join(missing))
            tell_supervisor(f"STATUS=waiting for {', '.join(missing)}")
        time.sleep(ADDRESS_PAUSE)


def _is_here(place: str) -> bool:
    """False for an address that this machine does not have, and for a name that cannot be resolved now."""
    try:
        host = parse_address(place.partition("?")[0].partition("#")[0])[0]
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as trying:
            trying.bind(address)
    except socket.gaierror as error:
        return error.errno != socket.EAI_AGAIN
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    except ValueError:
        return True  # the start tells the fault
    return True


def _allow_open_files() -> None:
    """Raise the limit of open files for the connections of the API, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY in (soft, hard):
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, OPEN_FILES)), hard))


def _api_certificate(settings: NodeSettings) -> ApiCertificate | None:
    """The certificate of the API; None for plain HTTP. Raises `ConstraintCrdtError` if it cannot be used."""
    if not settings.api_tls:
        return None
    if settings.api_tls == IDENTITY_TLS:
        from constraint_crdt.identity.directory import CERTIFICATE, KEY

        return ApiCertificate(Path(settings.identity) / CERTIFICATE, Path(settings.identity) / KEY)
    certificate, _, key = settings.api_tls.partition(",")
    return ApiCertificate(Path(certificate), Path(key))


def _write_request(arguments: argparse.Namespace) -> int:
    from constraint_crdt.cli.membership import request

    return request(arguments)


def _join(arguments: argparse.Namespace) -> None:
    """Join a fleet by an invitation. The node then has an identity, as with `--identity`."""
    from constraint_crdt.cli.membership import join

    arguments.identity = str(join(arguments))


def _defaults_of(folder: str) -> Mapping[str, Sequence[str]]:
    """Where the node of an identity listens and connects by default. Raises `IdentityError`."""
    from constraint_crdt.identity.directory import read_defaults

    return read_defaults(Path(folder))


def default_identity() -> Path:
    """The folder of the identity of a node that joined by an invitation."""
    return default_path("node", "fleet").parents[1] / "identity"


def _remembered_identity() -> str:
    """The same, if there is one; else ""."""
    folder = default_identity()
    return str(folder) if (folder / "node.pem").exists() else ""


def _names_of(folder: str) -> tuple[str, str]:
    """The names of node and fleet in an identity. Raises `IdentityError`."""
    from constraint_crdt.identity.directory import load_identity

    subject = load_identity(Path(folder), time.time_ns()).subject
    return subject.node, subject.fleet


def _settings(arguments: argparse.Namespace) -> NodeSettings:
    given = vars(arguments)
    flags = {key: given[key] for key in NodeSettings.__struct_fields__ if key in given}
    config = arguments.config or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    try:
        return _load(flags, config)
    except SettingsError as error:
        raise MisuseError(str(error)) from None  # also of a file: to start again changes nothing
    except ConstraintCrdtError as error:
        folder = flags.get("identity")
        is_other = isinstance(folder, str) and not any((Path(folder) / name).exists() for name in ("node.pem", "node.key"))
        raise (MisuseError if is_other else CommandFailedError)(str(error)) from None


def _load(flags: Mapping[str, object], config: str | None) -> NodeSettings:
    return load_settings(
        flags, os.environ, Path(config) if config else None,
        names_of=_names_of, defaults_of=_defaults_of, default_identity=_remembered_identity(),
    )  # fmt: skip


LONG_COLLECTION = 0.005
"""Seconds of a full garbage collection, above which the next ones leave out the objects that it found alive."""


def keep_collections_short() -> None:
    """Have full garbage collections of this process look only at objects since this call, and since the last that took long.

    With many constraints a full collection holds up the event loop for a tenth of a second and more, again and again. State, views
    and judgements form no cycles, so reference counts free them all the same.
    """
    began = 0.0

    def watch(phase: str, details: Mapping[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        elif details["generation"] == 2 and time.perf_counter() - began > LONG_COLLECTION:
            gc.freeze()  # all garbage was just collected

    gc.freeze()  # the modules, which are most of the objects of a new node
    gc.callbacks.append(watch)


async def _serve(node: Node, api: ApiServer, agents: "McpTools | None", arguments: argparse.Namespace) -> str | None:
    """Run until told to stop (None), or until the node has to end for good: why."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _told_to_stop, number.name, stop)
    reloads = set[asyncio.Task[None]]()
    loop.add_signal_handler(signal.SIGHUP, lambda: reloads.add(asyncio.create_task(_reload(node, api.tokens, arguments))))
    if arguments.while_stdin_open:
        try:
            loop.add_reader(sys.stdin.fileno(), _stdin_moved, stop)
        except OSError:  # a file, or /dev/null
            raise CommandFailedError("--while-stdin-open needs a pipe or a terminal as its input") from None
    running = asyncio.create_task(_run(node, api, agents, rejoin=arguments.rejoin))
    stopping = asyncio.create_task(stop.wait())
    following = asyncio.create_task(_log_events(node))
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        over = await running if running.done() else None  # raises what kept it from starting
    finally:
        for task in (running, stopping, following, *reloads):
            task.cancel()
        await asyncio.gather(running, stopping, following, *reloads, return_exceptions=True)
        await api.stop()
        await node.stop()
    _log.info("%s stopped", node.settings.name)
    if node.has_abandoned_disk:  # the interpreter would wait for the threads that wait for the disk
        logging.shutdown()
        os._exit(1)
    return over


async def _run(node: Node, api: ApiServer, agents: "McpTools | None", *, rejoin: bool) -> str:
    """Start, and return once the node has to end for good: why."""
    async with contextlib.nullcontext() if agents is None else agents.served():
        return await _run_served(node, api, rejoin=rejoin)


async def _run_served(node: Node, api: ApiServer, *, rejoin: bool) -> str:
    await node.start(rejoin=rejoin)
    await api.start()
    status = node.status()
    _log.info("ready name=%s api=%s endpoints=%s", status.node, api.url, ",".join(status.endpoints))
    tell_supervisor(f"READY=1\nSTATUS={status.node} of fleet {status.fleet}, API at {api.url}")
    watching = asyncio.create_task(_feed_watchdog(node))
    try:
        return await node.over()
    finally:
        watching.cancel()


def tell_supervisor(message: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send a message of the protocol `sd_notify` to the supervisor named by `$NOTIFY_SOCKET`. True if it was sent."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.connect("\0" + address[1:] if address.startswith("@") else address)
            link.sendall(message.encode())
    except OSError as error:
        _log.warning("cannot tell the supervisor at %s: %s", address, error.strerror or error)
        return False
    return True


def watchdog_pause(environ: Mapping[str, str] = os.environ, process: int | None = None) -> float | None:
    """Seconds between two signs of life for the supervisor, half of the time it allows; None if it expects none of this process."""
    allowed, of = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or not int(allowed) or of not in ("", str(os.getpid() if process is None else process)):
        return None
    return int(allowed) / 2e6


async def _feed_watchdog(node: Node) -> None:
    """Tell the supervisor that the loop turns. A node whose writes are refused by a broken disk is alive: its reads go on."""
    pause = watchdog_pause()
    while pause is not None:
        tell_supervisor(f"WATCHDOG=1\nSTATUS={node.not_ready() or 'ready'}")
        await asyncio.sleep(pause)


async def _reload(node: Node, tokens: Tokens | None, arguments: argparse.Namespace) -> None:
    """Read the settings again, and take over those that a running node can. A file with a mistake changes nothing. Tokens are read
    again, too.
    """
    tell_supervisor(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        settings = _settings(arguments)
        taken, left = await node.reload(settings)
    except (CommandFailedError, ConstraintCrdtError) as error:
        _log.error("SIGHUP: the settings stay as they are: %s", printable(str(error)))
    else:
        logging.getLogger().setLevel(settings.log_level.upper())
        told = f"taken over: {', '.join(taken)}" if taken else "nothing new that a running node takes over"
        needs = f"; after a restart only: {', '.join(left)}" if left else ""
        api = "" if tokens is None else f"; {tokens.reread()}"
        logging.getLogger("constraint_crdt").log(logging.WARNING, "SIGHUP: %s%s%s", told, needs, api)
    tell_supervisor("READY=1")


def _told_to_stop(signal_name: str, stop: asyncio.Event) -> None:
    if not stop.is_set():
        _log.info("stopping: %s", signal_name)
        tell_supervisor("STOPPING=1")
    stop.set()


def _stdin_moved(stop: asyncio.Event) -> None:
    """Stop at the end of stdin. Its content is ignored."""
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        _told_to_stop("whoever started this node is gone", stop)


async def _log_events(node: Node) -> None:
    async for event in node.events():
        level = _LOGGED.get(event.kind)
        if level is not None:
            _log.log(level, "%s", _line(event), extra={"kind": event.kind})


def _line(event: Event) -> str:
    cause = f" (by {event.actor} on {event.by})" if event.actor else ""
    return f"{event.constraint or event.node} {event.kind}" + (f": {event.detail}" if event.detail else "") + cause


# --- token ----------------------------------------------------------------------------------------------------------------------


def add_token(arguments: argparse.Namespace) -> int:
    """`token add`: print a new token on stdout, and a sentence about it on stderr."""
    file = _token_file(arguments)
    try:
        right, name = parse_role(arguments.role), check_token_name(arguments.name)
        valid = None if arguments.valid is None else round(parse_duration(arguments.valid))
    except ConstraintCrdtError as error:
        raise MisuseError(str(error)) from None
    if valid is not None and not 1 <= valid <= DURATION_MAX:
        raise MisuseError(f"--valid takes 1s to {DURATION_MAX}s, not {arguments.valid}")
    now = int(time.time())
    secret = file.add(name, right, made=now, ends=None if valid is None else now + valid)
    print(secret, flush=True)
    until = "until it is removed" if valid is None else f"until {show_moment(now + valid)}"
    print(
        f"{file.path}: the token {name} has the role {right.name.lower()}, {until}. It is shown this once: keep it in a file that "
        "only its user can read, and name this file to commands with --token-file",
        file=sys.stderr,
    )
    return 0


def list_tokens(arguments: argparse.Namespace) -> int:
    """`token list`: a row for each token."""
    found, now = _token_file(arguments).read(), time.time()
    if arguments.json:
        print_json(
            [
                {
                    "name": each.name,
                    "role": each.right.name.lower(),
                    "made": each.made,
                    "ends": each.ends,
                    "ended": _ended(each, now),
                }
                for each in found
            ]
        )
    elif not found:
        print_view(f"there is no token: `{PROGRAM} token add NAME --role operate` makes one")
    else:
        rows = [
            [
                each.name,
                each.right.name.lower(),
                f"{show_moment(each.ends)}{' (over)' if _ended(each, now) else ''}",
                show_moment(each.made),
            ]
            for each in found
        ]
        print_view(Table([*map(Column, ("name", "role", "ends", "made"))], rows))
    return 0


def _ended(token: ApiToken, now: float) -> bool:
    return token.ends is not None and now >= token.ends


def remove_token(arguments: argparse.Namespace) -> int:
    """`token remove`: withdraw a token."""
    file = _token_file(arguments)
    file.remove(arguments.name)
    print_view(f"{file.path}: the token {arguments.name} is withdrawn; a running node refuses it from now on")
    return 0


def _token_file(arguments: argparse.Namespace) -> TokenFile:
    """The token file of the node. Raises `CommandFailedError` for wrong settings, `MisuseError` if none is named."""
    file = arguments.token_file or _settings(argparse.Namespace(config=arguments.config)).token_file
    if not file:
        raise MisuseError("name the token file of the node with --token-file, or `token_file` in the settings of --config")
    return TokenFile(Path(file))


# --- doctor ---------------------------------------------------------------------------------------------------------------------


def doctor(arguments: argparse.Namespace) -> int:
    """Print a line for each finding; exit code 1 if there is a failure."""
    from constraint_crdt.cli.connection import as_failure, connect  # a node needs no client
    from constraint_crdt.client import ClientError, NoAnswer

    settings, findings = _read_settings(arguments)
    node = arguments.node
    if node is None and settings is not None and not settings.api.endswith(":0") and arguments.config is not None:
        node = f"https://{settings.api}" if settings.api_tls else settings.api
    token_file = arguments.token_file or (_own_token_file(settings) if settings is not None else None)
    ca = arguments.ca
    if settings is not None and settings.api_tls == IDENTITY_TLS:
        ca = ca or os.environ.get(CA_VARIABLE) or Path(settings.identity) / "ca.pem"
    client = connect(argparse.Namespace(node=node, token_file=token_file, ca=ca), DIAGNOSIS_TIMEOUT)
    try:
        answer = client.diagnosis()
        findings.append(Finding(check="node", level="ok", what=f"{answer.node} answers at {client.address.url}"))
        findings += answer.findings
    except NoAnswer as error:
        advice = "the findings below are about a node that is started on this machine"
        findings.append(Finding(check="node", level="fail", what=str(as_failure(error)), advice=advice))
        findings += _without_node(settings)
    except ClientError as error:
        findings.append(Finding(check="node", level="fail", what=str(as_failure(error)), advice="name a node with --node"))
    if arguments.json:
        print_json({"worst": worst_of(findings), "findings": findings})
    else:
        print_view(show_findings(findings))
    return 1 if worst_of(findings) == "fail" else 0


def _own_token_file(settings: NodeSettings) -> str | None:
    """The token file of the node, if a command can use a token of it: not if it has hashes only."""
    from constraint_crdt.client import read_token

    try:
        read_token(Path(settings.token_file))
    except ConstraintCrdtError:
        return None
    return settings.token_file


def show_findings(findings: Iterable[Finding]) -> View:
    """A line for each finding."""
    return [
        f"{each.level.upper():<4}  {each.check:<12}  {each.what}{f': {each.advice}' if each.advice else ''}" for each in findings
    ]


def _read_settings(arguments: argparse.Namespace) -> tuple[NodeSettings | None, list[Finding]]:
    """The settings of a node that is started here, and the findings on them."""
    config = arguments.config or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    try:
        settings = _load({}, config)
    except ConstraintCrdtError as error:
        return None, [Finding(check="settings", level="fail", what=str(error), advice="mend it: a node does not start with it")]
    source = config or "the environment and the defaults"
    return settings, [Finding(check="settings", level="ok", what=f"those in {source} can be used")]


def _without_node(settings: NodeSettings | None) -> list[Finding]:
    settings = settings or NodeSettings()
    path = store_path(settings)
    return [_check_port(settings.api), check_seeds(settings.connect, settings.identity), *_check_store(path), check_disk(path)]


def _check_port(api: str) -> Finding:
    """Whether a node could serve its API there."""
    host, port = parse_address(api)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trying:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind(address)
    except OSError as error:
        advice = "end what has it, or serve the API elsewhere (--api HOST:PORT)"
        return Finding(check="port", level="fail", what=f"{api} cannot be had: {error.strerror or error}", advice=advice)
    return Finding(check="port", level="ok", what=f"{api} is free")


def _check_store(path: Path | None) -> list[Finding]:
    """Whether the file of the store can be read and written. No finding without a file in the settings."""
    if path is None:
        return []
    try:
        if not path.exists():
            return [Finding(check="store", level="ok", what=f"{path} is not there yet: the first start makes it")]
        with path.open("rb+") as file:
            begins = file.read(16)
    except OSError as error:
        advice = "look at who owns it and whether the disk is writable; --store PATH takes another one"
        return [Finding(check="store", level="fail", what=f"cannot use {path}: {error.strerror or error}", advice=advice)]
    if begins and not begins.startswith(b"SQLite format 3"):
        advice = f"`{PROGRAM} node --rejoin` sets it aside and takes everything from the peers again"
        return [Finding(check="store", level="fail", what=f"{path} is no store, or is damaged", advice=advice)]
    return [Finding(check="store", level="ok", what=f"{path} can be read and written")]
