"""The commands that change a constraint, and can wait until enough nodes have the change: add and remove."""

import argparse
from typing import Final

import msgspec

from constraint_crdt.cli.coverage import check_wait, heard_by, not_enough, wait_for
from constraint_crdt.cli.output import print_json, printable
from constraint_crdt.client.blocking import Client
from constraint_crdt.operations.constraints import ADD, REMOVE, Added, NewConstraint, Removed, RemovedConstraint

_CHANGES: Final = {
    "added": "added",
    "replaced": "replaced: it was active with another definition",
    "extended": "extended: it was active with this definition, and lasts longer now",
    "unchanged": "unchanged: it is active with this definition",
}


def add(client: Client, request: NewConstraint, arguments: argparse.Namespace) -> int:
    """Add a constraint, or replace its definition; with `--wait`, and wait until enough nodes have it."""
    check_wait(arguments)
    response = client.do(ADD, request)
    _finish(arguments, response, f"{response.id}: {_CHANGES.get(response.change, response.change)}")
    return 0


def remove(client: Client, request: RemovedConstraint, arguments: argparse.Namespace) -> int:
    """Remove a constraint; with `--wait`, and wait until enough nodes know of it."""
    check_wait(arguments)
    response = client.do(REMOVE, request)
    _finish(arguments, response, f"{response.id}: removed")
    return 0


def _finish(arguments: argparse.Namespace, response: Added | Removed, sentence: str) -> None:
    """Say what was done; with `--wait` once enough nodes have it. Raises `CommandFailedError`, naming the others, if too few."""
    told = msgspec.to_builtins(response)
    if arguments.wait is None:
        if arguments.json:
            print_json(told)
        else:
            print(printable(sentence))
        return
    heard = wait_for(arguments, response.id)
    if arguments.json:
        print_json(told | {"coverage": heard})
    else:
        print(printable(sentence if not heard["met"] else f"{sentence}; {heard_by(heard)}"))
    if not heard["met"]:
        raise not_enough(f"{response.id}: it is done here", heard)
