"""`doctor`: it asks the node for its findings. Where no node answers it looks itself: at the settings, port, seeds and store."""

import argparse
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.connection import as_failure, connect
from constraint_crdt.cli.output import print_json, print_view
from constraint_crdt.client.errors import ClientError, NoAnswer
from constraint_crdt.insight.diagnosis import check_disk, check_seeds
from constraint_crdt.operations.command import View
from constraint_crdt.operations.diagnosis import Finding, worst_of
from constraint_crdt.runtime.persistence import store_path
from constraint_crdt.runtime.settings import ENVIRONMENT_PREFIX, NodeSettings, SettingsError, load_settings, parse_address

DIAGNOSIS_TIMEOUT = 30.0
"""Seconds of silence, beyond those that the client grants a diagnosis, as the node tries its seeds."""


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


def _read_settings(arguments: argparse.Namespace) -> tuple[NodeSettings | None, list[Finding]]:
    """The settings of a node that is started here, and the findings on them."""
    config = arguments.config or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    try:
        settings = load_settings({}, os.environ, Path(config) if config else None)
    except SettingsError as error:
        return None, [Finding(check="settings", level="fail", what=str(error), advice="mend it: a node does not start with it")]
    source = config or "the environment and the defaults"
    return settings, [Finding(check="settings", level="ok", what=f"those in {source} can be used")]


def _without_node(settings: NodeSettings | None) -> list[Finding]:
    settings = settings or NodeSettings()
    path = store_path(settings)
    return [_check_port(settings.api), check_seeds(settings.connect), *_check_store(path), check_disk(path)]


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
