"""The node that a command asks, the call of a declared operation, and the errors of the client as the end of the command.

The node is that of the flag, of the environment, or the default one. The token file likewise, without a default. The command of an
operation makes its request of the arguments, calls the node, and prints the response. One that makes several calls has a function
of its own in `HANDLERS`: `function(client, request, arguments) -> exit code`.
"""

import argparse
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from constraint_crdt.cli.arguments import DEFAULT_NODE, FIELD, NODE_VARIABLE, PROGRAM, TOKEN_FILE_VARIABLE
from constraint_crdt.cli.errors import CommandFailedError, MisuseError
from constraint_crdt.cli.output import print_json, print_view
from constraint_crdt.client.address import AddressError, read_token
from constraint_crdt.client.blocking import Client
from constraint_crdt.client.errors import NoAnswer, Stranger, Unauthorized, WrongInput
from constraint_crdt.client.wire import TIMEOUT
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.operation import AnyOperation, Operation
from constraint_crdt.operations.values import UsageError

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")

HANDLERS: Final[Mapping[str, str]] = {
    "add": "constraints:add",
    "remove": "constraints:remove",
}
"""The functions of commands that make several calls, as module:name below `constraint_crdt.cli`."""


def connect(arguments: argparse.Namespace, timeout: float = TIMEOUT) -> Client:
    """A client of the node that `arguments` name. Opens no connection yet. `timeout`: seconds.

    Raises `MisuseError` for a wrong address, token or token file. The methods of the client raise `ClientError`.
    """
    node = arguments.node if arguments.node is not None else os.environ.get(NODE_VARIABLE) or DEFAULT_NODE
    file = arguments.token_file or os.environ.get(TOKEN_FILE_VARIABLE)
    try:
        return Client(node, token=read_token(Path(file)) if file else None, timeout=timeout)
    except AddressError as error:
        raise MisuseError(f"{error} (--node, {NODE_VARIABLE})") from None
    except (ConstraintCrdtError, ValueError) as error:
        raise MisuseError(str(error)) from None


def as_failure(error: ConstraintCrdtError) -> CommandFailedError:
    """The end of a command with this error, in a sentence that says what to do."""
    match error:
        case NoAnswer(refused=True):
            return CommandFailedError(f"{error}: start one with `{PROGRAM} node --name NAME`, or name another with --node")
        case NoAnswer(timed_out=True):
            return CommandFailedError(f"{error}: see what it does")
        case NoAnswer():
            return CommandFailedError(f"{error}; name another with --node")
        case Stranger():
            return CommandFailedError(f"{error}: name another with --node")
        case WrongInput() | UsageError():
            return MisuseError(str(error))
        case Unauthorized() if error.status == 401:
            return CommandFailedError(f"{error}; name the file that it is in with --token-file, or {TOKEN_FILE_VARIABLE}")
        case _:
            return CommandFailedError(str(error))


def run(arguments: argparse.Namespace) -> int:
    """Run the command of `arguments.operation`; returns its exit code."""
    operation: AnyOperation = arguments.operation
    request = request_of(operation, arguments)
    with connect(arguments) as client:
        handler = None if operation.command is None else HANDLERS.get(operation.command.name)
        if handler is None:
            return call(client, operation, request, arguments)
        module, _, function = handler.partition(":")
        code: int = getattr(importlib.import_module(f"constraint_crdt.cli.{module}"), function)(client, request, arguments)
        return code


def call(client: Client, operation: Operation[Request, Response], request: Request, arguments: argparse.Namespace) -> int:
    """Call an operation and print the response: as JSON with `--json`, else as its command shows it."""
    response = client.do(operation, request)
    show = None if operation.command is None else operation.command.show
    if arguments.json or show is None:
        print_json(response)
    else:
        print_view(show(response, request, arguments))
    return 0


def request_of(operation: AnyOperation, arguments: argparse.Namespace) -> Any:
    """The request that the arguments ask for. Raises `UsageError`, or `ConstraintCrdtError` for a value out of bounds."""
    command = operation.command
    flags = {} if command is None else command.flags
    fields: dict[str, object] = {}
    for name in operation.request.__struct_fields__:
        value = getattr(arguments, FIELD + name, None)
        flag = flags.get(name)
        if value is not None:
            fields[name] = value if flag is None or flag.convert is None else flag.convert(value)
    request = operation.request(**fields)
    if command is not None and command.check is not None:
        command.check(request)
    return request
