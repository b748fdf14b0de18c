"""The node that a command asks, the call of a declared command, and the errors of the client as the end of the command.

The node is taken from the flag, the environment or the default, in this order; the token file and the root certificate likewise,
without a default. A declared command calls its operation with the request of its flags, or makes the calls of its declaration, and
prints the response.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from constraint_crdt.cli.arguments import CA_VARIABLE, DEFAULT_NODE, FIELD, NODE_VARIABLE, PROGRAM, TOKEN_FILE_VARIABLE
from constraint_crdt.cli.output import CommandFailedError, MisuseError, present
from constraint_crdt.client import TIMEOUT, AddressError, ClientError, NoAnswer, NotANode, Unauthorized, WrongInput, read_token
from constraint_crdt.client.blocking import Client
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.operations.operation import AnyCommand, AnyOperation, Command, Flag, UsageError

Made = TypeVar("Made")


def connect(arguments: argparse.Namespace, timeout: float = TIMEOUT) -> Client:
    """A client of the node that `arguments` name. Opens no connection yet. `timeout`: seconds.

    Raises `MisuseError` for a wrong address, token, token file or root certificate. The methods of the client raise `ClientError`.
    """
    client = make_client(arguments, partial(Client, timeout=timeout))
    client.why = getattr(arguments, "why", None) or ""
    return client


def make_client(arguments: argparse.Namespace, make: Callable[..., Made]) -> Made:
    """A client of any kind, of the node that `arguments` name. Raises `MisuseError` as `connect` does.

    `make`: takes the address, the `token` and the `ca`.
    """
    node = arguments.node if arguments.node is not None else os.environ.get(NODE_VARIABLE) or DEFAULT_NODE
    file = arguments.token_file or os.environ.get(TOKEN_FILE_VARIABLE)
    ca = arguments.ca or os.environ.get(CA_VARIABLE)
    try:
        return make(node, token=read_token(Path(file)) if file else None, ca=ca or None)
    except AddressError as error:
        raise MisuseError(f"{error} (--node, {NODE_VARIABLE})") from None
    except (ConstraintCrdtError, ValueError) as error:
        raise MisuseError(str(error)) from None


def as_failure(error: ConstraintCrdtError) -> CommandFailedError:
    """The end of a command with this error, in a sentence with advice."""
    match error:
        case NoAnswer(refused=True):
            return CommandFailedError(f"{error}: start one with `{PROGRAM} node --name NAME`, or name another with --node")
        case NoAnswer(timed_out=True):
            return CommandFailedError(f"{error}: look whether this is the address of its API, and what it does")
        case NoAnswer():
            return CommandFailedError(f"{error}; name another with --node")
        case NotANode():
            return CommandFailedError(f"{error}: name another with --node")
        case WrongInput() | UsageError() | InvalidValue():
            return MisuseError(str(error))
        case Unauthorized() if error.status == 401:
            return CommandFailedError(f"{error}; name the file that it is in with --token-file, or {TOKEN_FILE_VARIABLE}")
        case _:
            return CommandFailedError(str(error))


def run(arguments: argparse.Namespace) -> int:
    """Run the declared command of the arguments; returns its exit code."""
    command: AnyCommand = arguments.declared
    if isinstance(command, Command):
        request = request_of(arguments)
        with connect(arguments) as client:
            response = client.do(arguments.operation, request)
        view = None if arguments.json or command.show is None else command.show(response, request, arguments)
    else:
        with connect(arguments) as client:
            response = command.call(client, arguments)
        view = None if arguments.json else command.show(response, arguments)
    return present(response, view)


UNKNOWN = 3
"""The exit code of `status --check` without an answer."""


def status(arguments: argparse.Namespace) -> int:
    """The status of the node; with `--check` its level as the exit code."""
    from constraint_crdt.operations.nodes import check_status, show_check, show_status

    try:
        with connect(arguments) as client:
            answer = client.status()
    except ClientError as error:
        if not arguments.check:
            raise
        why = str(as_failure(error))
        present({"level": UNKNOWN, "reasons": [why]}, None if arguments.json else f"UNKNOWN: {why}")
        return UNKNOWN
    if not arguments.check:
        return present(answer, None if arguments.json else show_status(answer))
    level, reasons = check_status(answer)
    present({"level": level, "reasons": reasons, "status": answer}, None if arguments.json else show_check(answer))
    return level


def _converted(flag: Flag, value: object) -> object:
    """The value of a field of a flag. Raises `UsageError`, which names the flag."""
    try:
        return value if flag.convert is None else flag.convert(value)
    except UsageError as error:
        raise UsageError(f"{flag.names[0]}: {error}" if flag.names else str(error)) from None


def request_of(arguments: argparse.Namespace, **given: object) -> Any:
    """The request of the flags, with the given fields. Raises `ConstraintCrdtError` for a value out of bounds."""
    operation: AnyOperation = arguments.operation
    command: Command[Any, Any] = arguments.declared
    request = operation.request(**{**given, **fields_of(arguments)})
    if command.check is not None:
        command.check(request)
    return request


def fields_of(arguments: argparse.Namespace) -> dict[str, object]:
    """The fields of the request that the flags say. Raises `ConstraintCrdtError` for a value out of bounds."""
    operation: AnyOperation = arguments.operation
    command: Command[Any, Any] = arguments.declared
    fields: dict[str, object] = {}
    for name in operation.request.__struct_fields__:
        value = getattr(arguments, FIELD + name, None)
        flag = command.flags.get(name)
        if value is not None:
            fields[name] = value if flag is None else _converted(flag, value)
    return fields
