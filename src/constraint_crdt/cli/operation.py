"""The command of an operation: its request from the arguments, the call, and the response as a person or a program reads it.

A command that makes several calls has a function of its own in `HANDLERS`: `function(client, request, arguments) -> exit code`.
"""

import argparse
import importlib
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from constraint_crdt.cli.arguments import FIELD
from constraint_crdt.cli.connection import connect
from constraint_crdt.cli.output import print_json, print_view
from constraint_crdt.client.blocking import Client
from constraint_crdt.operations.operation import AnyOperation, Operation

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")

HANDLERS: Final[Mapping[str, str]] = {
    "add": "constraints:add",
    "remove": "constraints:remove",
}
"""The functions of commands that make several calls, as module:name below `constraint_crdt.cli`."""


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
