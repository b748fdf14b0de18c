"""The commands on the root of a fleet and on identities: `fleet create`, `fleet certify`, and the requests of `node --request`.

They work on files of this machine, and ask no node. Rule: each says what it made and what comes next.
"""

import argparse
import secrets
import socket
import time
from pathlib import Path

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.output import MisuseError, print_view
from constraint_crdt.identity import SECOND, IdentityError, check_name, check_role, moment
from constraint_crdt.identity.directory import (
    ROOT_KEY,
    certify_node,
    certify_request,
    create_fleet,
    find_fleet,
    open_root,
    write_request,
)
from constraint_crdt.operations.command import parse_duration


def create(arguments: argparse.Namespace) -> int:
    """`fleet create`: make the root of a fleet."""
    _checked(arguments.name, "the name of a fleet")
    folder = Path(arguments.dir or arguments.name)
    root = create_fleet(folder, arguments.name, now=time.time_ns(), random=secrets.token_bytes)
    where = "" if arguments.dir is None else f" --dir {folder}"
    print_view(
        [
            f"{folder}: the root of the fleet {root.fleet}, valid until {moment(root.ends)}",
            f"keep {folder / ROOT_KEY} secret, off the nodes, and with a copy in a safe place: it decides who belongs to the fleet",
            f"next: `{PROGRAM} fleet certify NAME{where}` makes the identity of a node",
        ]
    )
    return 0


def certify(arguments: argparse.Namespace) -> int:
    """`fleet certify`: make the identities of nodes, or certify requests."""
    valid, role = round(parse_duration(arguments.valid) * SECOND), arguments.role
    try:
        check_role(role)
    except IdentityError as error:
        raise MisuseError(str(error)) from None
    requests = [Path(each) for each in arguments.nodes if Path(each).is_file()]
    names = [each for each in arguments.nodes if Path(each) not in requests]
    for name in names:
        _checked(name, "the name of a node")
    folder = find_fleet(None if arguments.dir is None else Path(arguments.dir), Path())
    root, now = open_root(folder), time.time_ns()
    made = [certify_node(folder, root, each, role, now=now, random=secrets.token_bytes, valid=valid) for each in names]
    made += [certify_request(folder, root, each, role, now=now, random=secrets.token_bytes, valid=valid) for each in requests]
    lines = [f"{each}: {each.name} is {role} of the fleet {root.fleet} until {moment(now + valid)}" for each in made]
    if names:
        lines.append("next: copy each folder to the machine of its node, where only the user of the node may read it")
    if requests:
        lines.append("next: copy the files of a request into the folder of its key, on the machine that made the request")
    print_view([*lines, f"then start each node with `{PROGRAM} node --identity FOLDER`"])
    return 0


def request(arguments: argparse.Namespace) -> int:
    """`node --request FILE`: make a key, and write a request for a certificate."""
    node, file = arguments.name or socket.gethostname(), Path(arguments.request)
    _checked(node, "the name of a node")
    folder = Path(arguments.identity) if arguments.identity else file.with_name(node)
    if file == folder:
        raise MisuseError(f"the request and the folder of the key are both called {file}: name the folder with --identity")
    write_request(folder, node, file, random=secrets.token_bytes)
    print_view(
        [
            f"{file}: a request for a certificate of {node}; the key is in {folder} and stays there",
            f"next: `{PROGRAM} fleet certify {file.name}` where the root is; copy the files that it makes to {folder},",
            f"and start the node with `{PROGRAM} node --identity {folder}`",
        ]
    )
    return 0


def _checked(name: str, what: str) -> None:
    try:
        check_name(name, what)
    except IdentityError as error:
        raise MisuseError(str(error)) from None
