"""The commands on the members of a fleet: `fleet create`, `certify`, `renew` and `rotate`, the requests of `node --request` and
`node --join`, and `retire` of several nodes.

Those on the root and on identities work on files of this machine; `renew` without a name asks a node, and `node --join` the
operator of the invitation. Rule: each names the files it made and the next step. `retire` asks before it retires several nodes.
"""

import argparse
import asyncio
import secrets
import socket
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.connection import connect, request_of
from constraint_crdt.cli.node import default_identity
from constraint_crdt.cli.output import CommandFailedError, MisuseError, confirm, present, print_view, printable
from constraint_crdt.client.blocking import Client
from constraint_crdt.identity import (
    ROLES,
    SECOND,
    IdentityError,
    check_name,
    check_role,
    fingerprint,
    moment,
    public_key_of,
    read_request,
)
from constraint_crdt.identity.directory import (
    AUTHORITY,
    CERTIFICATE,
    ISSUER,
    KEY,
    ROOT_KEY,
    ROTATIONS,
    certify_again,
    certify_node,
    certify_request,
    create_fleet,
    find_fleet,
    former_role,
    open_root,
    own_key,
    read_defaults,
    read_file,
    read_identity_of,
    rotate_root,
    save_certificate,
    write_defaults,
    write_request,
    write_rotations,
)
from constraint_crdt.identity.invitations import Token, read_token, root_hash
from constraint_crdt.identity.invitations import join as ask_to_join
from constraint_crdt.operations.fleet import SHOWN_FINGERPRINT, show_renewal
from constraint_crdt.operations.nodes import RETIRE, NodeReport, Retiring, away_nodes, show_retire
from constraint_crdt.operations.operation import is_pattern, parse_duration
from constraint_crdt.runtime.settings import is_loopback

LEAST_BOTH = 600 * SECOND
"""The shortest time for which two roots are accepted, in ns: ten looks of a node at its certificates."""

REQUEST_FILES = (".csr", ".pem", ".req")
"""Endings of files with requests. A name with one of them is a mistyped file."""

DEFAULT_LISTEN = "tcp/0.0.0.0:7447"
"""Where a node listens by default that joined a fleet beyond its machine."""


def create(arguments: argparse.Namespace) -> int:
    """`fleet create`: make the root of a fleet."""
    _checked(arguments.name, "the name of a fleet")
    folder = Path(arguments.dir or arguments.name)
    root = create_fleet(
        folder, arguments.name,
        now=time.time_ns(), random=secrets.token_bytes, operators_certify=arguments.operators_certify,
    )  # fmt: skip
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
        if Path(name).suffix in REQUEST_FILES:
            raise MisuseError(f"there is no file {name}: name the file of a request, or a node")
        _checked(name, "the name of a node")
    folder = _fleet(arguments)
    root, now = open_root(folder), time.time_ns()
    kept = [name for name in names if (folder / name / KEY).exists()]
    former = {each: former_role(folder / each) for each in names}
    made = [certify_node(folder, root, each, role, now=now, random=secrets.token_bytes, valid=valid) for each in names]
    made += [certify_request(folder, root, each, role, now=now, random=secrets.token_bytes, valid=valid) for each in requests]
    lines = [f"{each}: {each.name} is {role} of the fleet {root.fleet} until {moment(now + valid)}" for each in made]
    for name in kept:
        print_of = fingerprint(own_key(folder / name, secrets.token_bytes).public_key())[:SHOWN_FINGERPRINT]
        lines.append(f"{name} keeps its key {print_of}: if that is revoked, delete {folder / name} first, for a new key")
    lines += [
        f"{each} was {former[each]}: its former certificate is good until its end for anyone who has it; to take that role "
        f"away, run `{PROGRAM} fleet revoke {each}`, delete {folder / each}, and certify {each} again"
        for each in names
        if former[each] and ROLES.index(former[each]) > ROLES.index(role)
    ]
    if names:
        lines.append("next: copy each folder to the machine of its node, where only the user of the node may read it")
    if any((each / ISSUER).exists() for each in made):
        lines.append(f"a node of an operator certifies others: run `{PROGRAM} fleet invite` there for each further machine")
    if requests:
        lines.append("next: copy the files of a request into the folder of its key, on the machine that made the request")
    print_view([*lines, f"then start each node with `{PROGRAM} node --identity FOLDER`"])
    return 0


def request(arguments: argparse.Namespace) -> int:
    """`node --request FILE`: make a key, and write a request for a certificate."""
    node, file = arguments.name or socket.gethostname(), Path(arguments.request)
    if not file.name:
        raise MisuseError(f"--request {arguments.request!r} is no name of a file")
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


def renew(arguments: argparse.Namespace) -> int:
    """`fleet renew`: have a node renew its certificate now, or certify nodes again where the root is."""
    if not arguments.nodes:
        with connect(arguments) as client:
            answer = client.renew()
        return present(answer, None if arguments.json else show_renewal(answer, arguments))
    valid = round(parse_duration(arguments.valid) * SECOND)
    names = [read_request(read_file(Path(each)))[0] if Path(each).is_file() else each for each in arguments.nodes]
    for name in names:
        _checked(name, "the name of a node")
    folder = _fleet(arguments)
    root, now = open_root(folder), time.time_ns()
    made = [certify_again(folder, root, each, now=now, random=secrets.token_bytes, valid=valid) for each in names]
    lines = [f"{own}: {own.name} is {role} of the fleet {root.fleet} until {moment(now + valid)}" for own, role in made]
    print_view([*lines, "next: copy the certificates (*.pem) into the folders of the nodes, which take them without a restart"])
    return 0


def rotate(arguments: argparse.Namespace) -> int:
    """`fleet rotate`: make a new root, which follows the present root."""
    both = round(parse_duration(arguments.both) * SECOND)
    if arguments.both.strip()[-1].isdecimal():
        raise MisuseError(f"--both takes a time with its unit, as in 7d, not {arguments.both}")
    if both < LEAST_BOTH:
        least = LEAST_BOTH // (60 * SECOND)
        raise MisuseError(
            f"--both takes {least}m or longer, not {arguments.both}: nodes that do not renew in this time are locked out"
        )
    folder = _fleet(arguments)
    former, now = open_root(folder), time.time_ns()
    root, operators = rotate_root(folder, both=both, now=now, random=secrets.token_bytes)
    kept = folder / f"root-{fingerprint(public_key_of(former.certificate))[:8]}.key"
    lines = [
        f"{folder}: a new root of the fleet {root.fleet}, valid until {moment(root.ends)}",
        f"the former root is accepted for links until {moment(now + both)}; its key is kept as {kept}: delete it then",
    ]
    told = [own for own in operators if (own / ISSUER).exists()]
    files = f"{AUTHORITY}, {ROTATIONS} and {ISSUER}"
    lines += [f"next: copy {files} of {own} into the folder of {own.name}, which needs no restart" for own in told]
    if told:
        lines.append(
            f"their nodes tell the fleet, and all nodes renew by themselves: `{PROGRAM} fleet members` shows how far it is"
        )
    else:
        lines.append(
            f"no operator certifies: run `{PROGRAM} fleet renew NODE` for each node, and copy its *.pem files, before that"
        )
    print_view(lines)
    return 0


def join(arguments: argparse.Namespace) -> Path:
    """`node --join TOKEN`: make a key, and have it certified by the operator who made the invitation. Returns the folder.

    Raises `CommandFailedError`, and `MisuseError` for a text that is no token.
    """
    try:
        token = read_token(arguments.join)
    except IdentityError as error:
        raise MisuseError(str(error)) from None
    if arguments.name is not None:
        _checked(arguments.name, "the name of a node")
    folder = Path(arguments.identity) if arguments.identity else default_identity()
    try:
        _join(arguments, token, folder)
    except IdentityError as error:
        raise CommandFailedError(str(error)) from None
    return folder


def _join(arguments: argparse.Namespace, token: Token, folder: Path) -> None:
    now, own = time.time_ns(), None
    if (folder / ROOT_KEY).exists():
        raise IdentityError(f"{folder} has the root of a fleet: name another folder with --identity")
    if (folder / CERTIFICATE).exists():
        own = read_identity_of(folder, now)
        of = f"{own.subject.node} in the fleet {own.subject.fleet}"
        another = f"{folder} has the identity of {of}, and the invitation is of another"
        others = [each for each in (arguments.name, token.name) if each and each != own.subject.node]
        if others:
            raise IdentityError(f"{another} node, {others[0]}: name a folder for {others[0]} with --identity")
        if arguments.fleet not in (None, own.subject.fleet):
            raise MisuseError(f"{folder} has the identity of {of}, not in {arguments.fleet}: leave out --fleet")
        if token.root in map(root_hash, own.known) and own.root in own.roots and own.validity(now) is None:
            _say(
                f"{own.subject.node} is of the fleet {own.subject.fleet} already: the invitation is not used; "
                f"if its key was revoked, delete {folder} first"
            )
            return
    name = own.subject.node if own is not None else arguments.name or token.name or socket.gethostname()
    key = own_key(folder, secrets.token_bytes)
    fleet = own.subject.fleet if own is not None else arguments.fleet or ""
    admission = asyncio.run(ask_to_join(token, check_name(name, "the name of a node"), key, time.time_ns, fleet))
    if own is not None and root_hash(own.root) not in map(root_hash, admission.roots):
        raise IdentityError(f"{another} fleet of this name: name a folder with --identity")
    write_rotations(folder, admission.rotations)
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in admission.roots)
    save_certificate(folder, admission.chain, roots=pem)
    beyond = not all(map(is_loopback, admission.seeds))
    listen = arguments.listen or read_defaults(folder).get("listen") or ([DEFAULT_LISTEN] if beyond else [])
    write_defaults(folder, listen, arguments.connect or admission.seeds)
    member = admission.member
    _say(f"joined the fleet {member.fleet} as {member.node} ({member.role}), certified until {moment(member.ends)}; keys: {folder}")


def _fleet(arguments: argparse.Namespace) -> Path:
    """The folder with the root. Raises `MisuseError` if there is none."""
    try:
        return find_fleet(None if arguments.dir is None else Path(arguments.dir), Path())
    except IdentityError as error:
        raise MisuseError(str(error)) from None


def _say(text: str) -> None:
    """Nothing of a node goes to stdout."""
    print(printable(text), file=sys.stderr, flush=True)


def _checked(name: str, what: str) -> None:
    try:
        check_name(name, what)
    except IdentityError as error:
        raise MisuseError(str(error)) from None


def retire(arguments: argparse.Namespace) -> int:
    """Retire nodes by name, by pattern, or by how long they are away. Several are asked about first."""
    if not arguments.nodes and arguments.away is None:
        raise MisuseError("name a node, or say --away TIME for those not heard of for so long")
    request: Retiring = request_of(arguments, node="")
    if arguments.away is not None and request.undo:
        raise MisuseError("--away chooses nodes to retire: leave it out with --undo")
    with connect(arguments) as client:
        names = _chosen(client, arguments, undo=request.undo)
        reports = []
        if arguments.away is not None or names != arguments.nodes:
            _ask(names, request, sure=arguments.yes)
        for name in names:
            one = msgspec.structs.replace(request, node=name)
            report = client.do(RETIRE, one)
            reports.append(report)
            if not arguments.json:
                print_view(show_retire(report, one))
    if arguments.json:
        present(reports[0] if len(arguments.nodes) == 1 and names == arguments.nodes else reports, None)
    return 0


def _chosen(client: Client, arguments: argparse.Namespace, *, undo: bool) -> list[str]:
    """The names that the arguments choose. Raises `CommandFailedError` if they choose none."""
    patterns: list[str] = arguments.nodes
    if arguments.away is None and not any(map(is_pattern, patterns)):
        return list(dict.fromkeys(patterns))
    seconds = None if arguments.away is None else parse_duration(arguments.away)
    nodes = [each for each in client.nodes() if _matches(each, patterns) and each.retired is undo]
    if seconds is None:
        names = [each.node for each in nodes if each.convergence is not None or each.retired]  # not the node that answers
    else:
        names = away_nodes(nodes, seconds, client.status().uptime, time.time())
    if not names:
        which = "" if seconds is None else f" that was not heard of for {arguments.away}"
        raise CommandFailedError(printable(f"there is no such node{which}: see `nodes`"))
    return names


def _matches(node: NodeReport, patterns: list[str]) -> bool:
    return not patterns or any(fnmatchcase(node.node, each) for each in patterns)


def _ask(names: list[str], request: Retiring, *, sure: bool) -> None:
    """Ask whether these nodes are meant."""
    if not sure and not request.dry_run:
        planned = f"{'undo the retirement of' if request.undo else 'retire for good'}: {', '.join(names)}"
        confirm(planned, f"would {printable(planned)}: say --yes, or look with --dry-run first")
