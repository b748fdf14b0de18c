"""The commands on the node and its fleet: status, nodes, storage, identity, retire, convergence, doctor.

With `--json` they print the answer of the API. `doctor` asks the node for its findings. Where no node answers it looks itself: at
the settings, the port, the seeds and the store.
"""

import argparse
import os
import socket
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.connection import as_failure, connect
from constraint_crdt.cli.output import present, print_json, print_view
from constraint_crdt.client.errors import ClientError, NoAnswer
from constraint_crdt.operations.command import Column, Lines, Table, View
from constraint_crdt.operations.evidence import ConvergenceReport, Finding, PeerConvergence, worst_of
from constraint_crdt.operations.nodes import Holding, IdentityReport, NodeReport, RetireReport, Status, StorageReport
from constraint_crdt.operations.values import show_time

if TYPE_CHECKING:
    from constraint_crdt.runtime.settings import NodeSettings

SHOWN_OFFSET = 1.0
"""Seconds by which the clock of a peer differs at least from that of the node to be worth a column."""

DIAGNOSIS_TIMEOUT = 30.0
"""Seconds of silence, beyond those that the client grants a diagnosis, as the node tries its seeds."""


# --- status -----------------------------------------------------------------------------------------------------------------


def status(arguments: argparse.Namespace) -> int:
    """The state of the node and its fleet."""
    answer = connect(arguments).status()
    return present(answer, show_status(answer), as_json=arguments.json)


def show_status(answer: Status) -> View:
    """The values by name, with the alarms of the node last."""
    total = answer.satisfied + answer.violations
    rate = f", {100 * answer.satisfaction_rate:.2f} % satisfied" if total else ""
    state = "the same state on all" if answer.converged else "changes still travel"
    lines: list[tuple[str, object]] = [
        ("node", f"{answer.node} (replica {answer.replica}), up {answer.uptime:.0f} s"),
        ("fleet", f"{answer.fleet}, {answer.peers} live peers of {answer.known - 1} known"),
        ("constraints", f"{answer.constraints} active, the same on {answer.agreeing} of {answer.peers + 1} live nodes"),
        ("counts", f"{answer.satisfied} satisfied, {answer.violations} violated{rate}"),
        ("position", list(answer.position) if answer.position else "none"),
        ("agreement", f"{state}; constraints {answer.constraints_hash[:16]}, everything {answer.hash[:16]}"),
        ("staleness", _staleness(answer)),
        ("gossip", f"{answer.rounds} messages received, {answer.exchanges} exchanges begun, {answer.syncs} with news"),
        ("bytes", f"{answer.bytes_sent} sent, {answer.bytes_received} received, {answer.written_bytes} written here"),
        ("endpoints", ", ".join(answer.endpoints) or "none"),
    ]
    if answer.trouble:
        lines.append(("TROUBLE", f"writes are refused: {answer.trouble}"))
    if answer.clock_alarms:
        mine = "; this node's own clock is in doubt, so it removes nothing that expired" if answer.clock_in_doubt else ""
        lines.append(("CLOCKS", f"{answer.clock_alarms} times a peer's clock was off by more than it may be: see `nodes`{mine}"))
    if answer.alarms:
        lines.append(("ALARM", f"{answer.alarms} times a peer with the same clock had another state: one is corrupted"))
        lines.append(("repaired", f"{answer.repairs} times, {answer.cells_repaired} cells here"))
    return Lines(lines)


def _staleness(status: Status) -> str:
    if status.staleness_p50 is None or status.staleness_p99 is None:
        return "nothing is known of any live peer"
    return f"half of the live peers {status.staleness_p50:.1f} s at most, 99 % of them {status.staleness_p99:.1f} s"


# --- nodes ------------------------------------------------------------------------------------------------------------------


def nodes(arguments: argparse.Namespace) -> int:
    """The nodes of the fleet."""
    answer = connect(arguments).nodes()
    return present(answer, show_nodes(answer, time.time()), as_json=arguments.json)


def show_nodes(answer: list[NodeReport], now: float) -> View:
    """A row for each node. Labels and clock have a column where a node has some, or differs. `now`: seconds since the epoch."""
    columns = [
        Column("node"),
        Column("live"),
        Column("satisfied", right=True),
        Column("violated", right=True),
        Column("position"),
        Column("same constraints"),
        Column("state"),
        Column("since"),
        Column("behind", right=True),
        Column("software"),
    ]
    skewed = any(abs(each.clock_offset or 0.0) >= SHOWN_OFFSET for each in answer)
    labelled = any(each.labels for each in answer)
    columns += [Column("labels")] if labelled else []
    columns += [Column("clock", right=True)] if skewed else []
    rows = [
        [
            each.node,
            "retired" if each.retired else _yes(each.live),
            each.satisfied,
            each.violations,
            "-" if each.position is None else "{}, {}".format(*each.position),
            _yes(each.same_constraints),
            *_standing(each.convergence, now),
            each.software,
            *([", ".join(f"{key}={value}" for key, value in each.labels.items()) or "-"] if labelled else []),
            *([_offset(each.clock_offset)] if skewed else []),
        ]
        for each in answer
    ]
    return Table(columns, rows)


def _standing(convergence: PeerConvergence | None, now: float) -> tuple[object, object, object]:
    """The state of a node, its beginning, and the number of changes that the node is behind."""
    if convergence is None:
        return "-", "-", "-"
    return convergence.state, show_time(convergence.since, now), _or_dash(convergence.behind)


def _offset(seconds: float | None) -> str:
    return "-" if seconds is None or abs(seconds) < SHOWN_OFFSET else f"{seconds:+.1f} s"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _or_dash(value: int | None) -> object:
    return "-" if value is None else value


# --- convergence ------------------------------------------------------------------------------------------------------------


def convergence(arguments: argparse.Namespace) -> int:
    """The standing of each peer to the node, and the staleness of the fleet."""
    answer = connect(arguments).convergence()
    return present(answer, show_convergence(answer, time.time()), as_json=arguments.json)


def show_convergence(answer: ConvergenceReport, now: float) -> View:
    """A sentence on the fleet, and a row for each peer. `now`: seconds since the epoch."""
    stale = f"p50 {_seconds(answer.staleness_p50)}, p99 {_seconds(answer.staleness_p99)}"
    columns = [Column("node"), Column("state"), Column("since")]
    columns += [Column(name, right=True) for name in ("behind", "ahead", "stale")]
    rows = [[each.node, *_standing(each, now), _or_dash(each.ahead), _seconds(each.staleness)] for each in answer.peers]
    return [f"{answer.same} of {answer.live} live peers have the same as {answer.node}; staleness {stale}", Table(columns, rows)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


# --- storage and identity ---------------------------------------------------------------------------------------------------


def storage(arguments: argparse.Namespace) -> int:
    """The cells of the node, and the tombstones that it could drop."""
    answer = connect(arguments).storage()
    return present(answer, show_storage(answer), as_json=arguments.json)


def show_storage(answer: StorageReport) -> View:
    """The values by name, and a table of the floors if there are some."""
    dropped = ", ".join(f"{count} by {reason}" for reason, count in answer.dropped.items() if count)
    lines: list[tuple[str, object]] = [
        ("store", f"{answer.path}, {answer.bytes_on_disk} bytes on disk"),
        ("live", f"{answer.live} cells, {answer.live_bytes} bytes"),
        ("removed", f"{answer.removed} cells, {answer.removed_bytes} bytes, kept until all have heard"),
        ("dropped", f"{dropped or 'no removals'} since the start"),
    ]
    lines += [("held back", _held(each)) for each in answer.holding] or [("held back", "by nobody who is live")]
    if answer.trouble:
        lines.append(("TROUBLE", f"writes are refused: {answer.trouble}"))
    if not answer.floors:
        return Lines(lines)
    columns = [Column("replica"), Column("removals dropped up to", right=True)]
    return [Lines(lines), "", Table(columns, list(answer.floors.items()))]


def _held(each: Holding) -> str:
    return f"by {each.node}: {each.removals} removals, {each.bytes} bytes, that it has not acknowledged, for {each.seconds:.0f} s"


def identity(arguments: argparse.Namespace) -> int:
    """The name of the node, and its incarnations."""
    answer = connect(arguments).identity()
    return present(answer, show_identity(answer), as_json=arguments.json)


def show_identity(answer: IdentityReport) -> View:
    """The names of the node, and a row for each incarnation."""
    lines: list[tuple[str, object]] = [
        ("node", f"{answer.node} of fleet {answer.fleet}"),
        ("replica", answer.replica),
        ("store", answer.store),
    ]
    if answer.retired_by:
        lines.append(("RETIRED", f"by {answer.retired_by}, for good"))
    columns = [Column("incarnation"), Column("began"), Column("mutations", right=True), Column("why")]
    rows = [[each.incarnation, _local_time(each.began), each.seq, each.why] for each in answer.lives]
    return [Lines(lines), "", Table(columns, rows)]


def _local_time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat(sep=" ", timespec="seconds")


# --- retire -----------------------------------------------------------------------------------------------------------------


def retire(arguments: argparse.Namespace) -> int:
    """Retire another node for good, or tell the consequences."""
    answer = connect(arguments).retire(arguments.name, dry_run=arguments.dry_run, force=arguments.force)
    view = show_retire(answer, dry_run=arguments.dry_run, force=arguments.force)
    return present(answer, view, as_json=arguments.json)


def show_retire(answer: RetireReport, *, dry_run: bool, force: bool) -> View:
    """A sentence on the retirement, and the values of the node by name."""
    return [
        _verdict(answer, dry_run=dry_run, force=force),
        Lines(
            [
                ("lives", ", ".join(f"{replica} up to {seq}" for replica, seq in answer.lives.items())),
                ("counts", f"{answer.satisfied} satisfied, {answer.violations} violated: they stay"),
                ("known to", _names(answer.acknowledged, "this node and no live peer")),
                ("not yet to", _names(answer.missing, "nobody: every live peer has all that is known here of it")),
            ]
        ),
    ]


def _verdict(answer: RetireReport, *, dry_run: bool, force: bool) -> str:
    name = answer.node
    if not dry_run:
        return f"{name} is retired for good: its return is refused, and its name is not to be used again"
    if answer.done:
        return f"{name} is retired already; nothing was done (dry run)"
    if answer.live and not force:
        return f"{name} is live, so retiring it would be refused without --force; nothing was done (dry run)"
    if answer.live:
        return f"{name} is live, and would be retired with the loss of what it wrote and nobody has taken yet (dry run)"
    return f"{name} is not live, and would be retired for good (dry run)"


def _names(names: Iterable[str], none: str) -> str:
    return ", ".join(names) or none


# --- doctor -----------------------------------------------------------------------------------------------------------------
# The settings and checks of a node are loaded for this command only: they take longer than the other commands.


def doctor(arguments: argparse.Namespace) -> int:
    """Print a line for each finding; exit code 1 if one of them is a failure."""
    settings, findings = _read_settings(arguments)
    node = arguments.node
    if node is None and settings is not None and not settings.api.endswith(":0") and arguments.config is not None:
        node = settings.api
    token_file = arguments.token_file or (settings.token_file if settings is not None else None)
    client = connect(argparse.Namespace(node=node, token_file=token_file), DIAGNOSIS_TIMEOUT)
    try:
        answer = client.diagnosis()
        findings.append(Finding(check="node", level="ok", what=f"{answer.node} answers at {client.address.url}"))
        findings += answer.findings
    except NoAnswer as error:
        advice = f"start it with `{PROGRAM} node`; the findings below are about what it would meet"
        findings.append(Finding(check="node", level="fail", what=str(as_failure(error)), advice=advice))
        findings += _without_node(settings)
    except ClientError as error:
        findings.append(Finding(check="node", level="fail", what=str(as_failure(error)), advice="name a node with --node"))
    if arguments.json:
        print_json({"worst": worst_of(findings), "findings": findings})
    else:
        print_view(show_findings(findings))
    return 1 if worst_of(findings) == "fail" else 0


def show_findings(findings: Iterable[Finding]) -> View:
    """A line for each finding."""
    return [
        f"{each.level.upper():<4}  {each.check:<12}  {each.what}{f': {each.advice}' if each.advice else ''}" for each in findings
    ]


def _read_settings(arguments: argparse.Namespace) -> "tuple[NodeSettings | None, list[Finding]]":
    """The settings of a node that is started here, and the findings on them."""
    from constraint_crdt.runtime.settings import ENVIRONMENT_PREFIX, SettingsError, load_settings

    config = arguments.config or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    try:
        settings = load_settings({}, os.environ, Path(config) if config else None)
    except SettingsError as error:
        return None, [Finding(check="settings", level="fail", what=str(error), advice="mend it: a node does not start with it")]
    source = config or "the environment and the defaults"
    return settings, [Finding(check="settings", level="ok", what=f"those in {source} can be used")]


def _without_node(settings: "NodeSettings | None") -> list[Finding]:
    from constraint_crdt.insight.diagnosis import check_disk, check_seeds
    from constraint_crdt.runtime.persistence import store_path
    from constraint_crdt.runtime.settings import NodeSettings

    settings = settings or NodeSettings()
    path = store_path(settings)
    return [_check_port(settings.api), check_seeds(settings.connect), *_check_store(path), check_disk(path)]


def _check_port(api: str) -> Finding:
    """Whether a node could serve its API there."""
    from constraint_crdt.runtime.settings import parse_address

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
