"""Speaking to a node: the client of `constraint_crdt.client`, with what goes wrong as the end of a command.

Commands print what the node answered as it came, so they read answers as JSON. Every failure is one sentence: no node there, no
answer in time, something else that answers, or the node's own reason to refuse.
"""

import argparse
import json
import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constraint_crdt.cli.arguments import DEFAULT_NODE, NODE_VARIABLE, PROGRAM, TOKEN_FILE_VARIABLE
from constraint_crdt.cli.errors import CommandFailedError, MisuseError
from constraint_crdt.client.address import AddressError, read_token
from constraint_crdt.client.blocking import Client
from constraint_crdt.client.errors import NoAnswer, NotFound, Refused, Stranger, Unauthorized, WrongInput
from constraint_crdt.client.wire import TIMEOUT, Answered, check_answer, next_page
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.values import UsageError


class NoAnswerError(CommandFailedError):
    """No node answers there."""


class NotFoundError(CommandFailedError):
    """The node knows nothing by that name."""


class ApiClient:
    """One node's API. Safe to use from several threads."""

    def __init__(self, node: str, timeout: float = TIMEOUT, token: str | None = None) -> None:
        """`node`: URL or HOST:PORT. Raises `MisuseError` if it is neither."""
        try:
            self.client = Client(node, token=token, timeout=timeout)
        except AddressError as error:
            raise MisuseError(f"{error} (--node, {NODE_VARIABLE})") from None
        except ValueError as error:
            raise MisuseError(str(error)) from None

    @classmethod
    def chosen(cls, arguments: argparse.Namespace, timeout: float = TIMEOUT) -> "ApiClient":
        """The node of the flag; without it that of the environment; without it the default one. The token file likewise."""
        node = arguments.node if arguments.node is not None else os.environ.get(NODE_VARIABLE) or DEFAULT_NODE
        file = arguments.token_file or os.environ.get(TOKEN_FILE_VARIABLE)
        try:
            token = read_token(Path(file)) if file else None
        except ConstraintCrdtError as error:
            raise MisuseError(str(error)) from None
        return cls(node, timeout, token)

    @property
    def url(self) -> str:
        """Where the node is asked."""
        return self.client.address.url

    def get(self, path: str) -> object:
        """`GET /v1/{path}`: the answer, all pages of it. Raises `CommandFailedError`, as all calls do."""
        answered = self._ask("GET", f"/v1/{path}")
        answer: Any = self._read(answered)
        while (following := next_page(answered)) is not None:
            answered = self._ask("GET", following)
            page: Any = self._read(answered)
            if isinstance(answer, list):
                answer += page
            else:
                answer["constraints"] += page["constraints"]
        return answer

    def post(self, path: str, body: Mapping[str, object]) -> object:
        """`POST /v1/{path}`."""
        return self.post_bytes(path, json.dumps(body).encode())

    def put(self, path: str, body: Mapping[str, object]) -> object:
        """`PUT /v1/{path}`."""
        return self._read(self._ask("PUT", f"/v1/{path}", json.dumps(body).encode()))

    def get_whole(self, path: str) -> tuple[object, bytes]:
        """`GET /v1/{path}`: the answer, and the bytes that it was sent as."""
        answered = self._ask("GET", f"/v1/{path}")
        return self._read(answered), answered.content

    def post_bytes(self, path: str, body: bytes) -> object:
        """`POST /v1/{path}` of what is JSON already."""
        return self._read(self._ask("POST", f"/v1/{path}", body))

    def patch(self, path: str, body: Mapping[str, object]) -> object:
        """`PATCH /v1/{path}`."""
        return self._read(self._ask("PATCH", f"/v1/{path}", json.dumps(body).encode()))

    def delete(self, path: str) -> object:
        """`DELETE /v1/{path}`. Raises `NotFoundError` if it is not there."""
        return self._read(self._ask("DELETE", f"/v1/{path}"))

    def delete_constraint(self, id_: str) -> object:
        """`DELETE /v1/constraints/{id}`. Raises `NotFoundError` if it is not active."""
        return self.delete(f"constraints/{urllib.parse.quote(id_, safe='', errors='replace')}")

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Answered:
        try:
            answered = self.client.ask(method, path, body)
            check_answer(answered, self.client.address)
        except ConstraintCrdtError as error:
            raise as_failure(error) from None
        return answered

    def _read(self, answered: Answered) -> object:
        try:
            answer: object = json.loads(answered.content)
        except ValueError:
            raise CommandFailedError(f"what answers at {self.url} is no node of {PROGRAM}: name another with --node") from None
        return answer


def chosen_client(arguments: argparse.Namespace, timeout: float = TIMEOUT) -> Client:
    """The client of the node that the flags, or else the environment, name. Raises `MisuseError`."""
    return ApiClient.chosen(arguments, timeout).client


def as_failure(error: ConstraintCrdtError) -> CommandFailedError:
    """What went wrong with a call, as the end of a command that says what to do."""
    match error:
        case UsageError():
            return MisuseError(str(error))
        case NoAnswer(refused=True):
            return NoAnswerError(f"{error}: start one with `{PROGRAM} node --name NAME`, or name another with --node")
        case NoAnswer(timed_out=True):
            return NoAnswerError(f"{error}: see what it does")
        case NoAnswer():
            return NoAnswerError(f"{error}; name another with --node")
        case Stranger():
            return CommandFailedError(f"{error}: name another with --node")
        case NotFound():
            return NotFoundError(str(error))
        case WrongInput():
            return MisuseError(str(error))
        case Unauthorized() if error.status == 401:
            return CommandFailedError(f"{error}; name the file that it is in with --token-file, or {TOKEN_FILE_VARIABLE}")
        case Refused() | _:
            return CommandFailedError(str(error))
