"""The commands on whole states as files: merge, export, import. docs/reference/state-files.md says what is in such a file."""

import argparse
import json
from typing import Any

from constraint_crdt.cli.client import ApiClient
from constraint_crdt.cli.errors import CommandFailedError, MisuseError
from constraint_crdt.cli.files import STANDARD, read_whole, write_whole
from constraint_crdt.cli.output import print_json, printable
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.state import ConstraintState
from constraint_crdt.state_file import FORMAT, MAX_STATE_BYTES, from_json, to_json

MAX_IMPORT_BYTES = 64 * 1024 * 1024
"""What a node takes at once."""

PATIENCE = 60.0
"""Seconds that a node may take: a large state takes some to be written or read."""


def merge(arguments: argparse.Namespace) -> int:
    """Put together what several files know. It does not matter in which order, or how often one is named."""
    merged = ConstraintState()
    for name in arguments.files:
        try:
            merged.merge(from_json(read_whole(name, MAX_STATE_BYTES)))
        except ConstraintCrdtError as error:
            raise MisuseError(printable(f"{name}: {error}")) from None
    text = to_json(merged)
    write_whole(arguments.output, _line(text.encode()))
    _say(arguments.output, json.loads(text))
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write what a node knows to a file."""
    client = ApiClient.chosen(arguments, timeout=PATIENCE)
    answer, content = client.get_whole("export")
    if not isinstance(answer, dict) or answer.get("format") != FORMAT:
        raise CommandFailedError(f"what the node at {client.url} answered is no state: its version may be an older one")
    write_whole(arguments.output, _line(content))
    if not arguments.json:
        _say(arguments.output, answer)
    elif arguments.output != STANDARD:
        print_json({"file": arguments.output, **answer["reading"]})
    return 0


def import_(arguments: argparse.Namespace) -> int:
    """Have a node take in what a file knows."""
    client = ApiClient.chosen(arguments, timeout=PATIENCE)
    content = read_whole(arguments.file, MAX_IMPORT_BYTES)
    try:
        answer: Any = client.post_bytes("import", content)
    except MisuseError as error:  # what the node finds wrong with the file
        raise MisuseError(printable(f"{arguments.file}: {error}")) from None
    if arguments.json:
        print_json(answer)
    elif not answer["changed"]:
        print("nothing new: the node knew all of it")
    else:
        print(f"taken in: {answer['cells']} new cells; constraints that changed: {answer['constraints']}")
    return 0


def _line(content: bytes) -> bytes:
    return content.rstrip() + b"\n"


def _say(output: str, document: Any) -> None:
    """What was written, unless that went where this would go."""
    if output == STANDARD:
        return
    reading = document["reading"]
    counts = f"{reading['satisfied']} satisfied, {reading['violations']} violated"
    print(printable(f"{output}: {len(reading['constraints'])} constraints, {counts}; hash {document['hash'][:16]}"))
