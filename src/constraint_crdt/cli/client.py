"""Speaking to a node over its HTTP API, with the standard library only: a command must start fast.

Every failure is one sentence: no node there, no answer in time, something else that answers, or the node's own reason to refuse.
"""

import http.client
import json
import os
import urllib.parse
from collections.abc import Mapping

from constraint_crdt.cli.arguments import DEFAULT_NODE, NODE_VARIABLE, PROGRAM
from constraint_crdt.cli.failures import CommandFailedError, MisuseError

DEFAULT_PORT = 8470
TIMEOUT = 5.0
"""Seconds of silence after which a node counts as not answering."""

_WRONG_INPUT = frozenset({400, 413, 422})


class NoAnswerError(CommandFailedError):
    """No node answers there."""


class NotFoundError(CommandFailedError):
    """The node knows nothing by that name."""


class ApiClient:
    """One node's API. Each call is a connection of its own; safe to use from several threads."""

    def __init__(self, node: str, timeout: float = TIMEOUT) -> None:
        """`node`: URL or HOST:PORT. Raises `MisuseError` if it is neither."""
        self._host, self._port = _address(node)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{self._port}"
        self._timeout = timeout

    @classmethod
    def chosen(cls, node: str | None) -> "ApiClient":
        """The node of the flag; without it that of the environment; without it the default one."""
        return cls(node if node is not None else os.environ.get(NODE_VARIABLE) or DEFAULT_NODE)

    def get(self, path: str) -> object:
        """`GET /v1/{path}`: the answer. Raises `CommandFailedError`, as all calls do."""
        return self._call("GET", path)

    def post(self, path: str, body: Mapping[str, object]) -> object:
        """`POST /v1/{path}`."""
        return self._call("POST", path, json.dumps(body).encode())

    def delete_constraint(self, id_: str) -> object:
        """`DELETE /v1/constraints/{id}`. Raises `NotFoundError` if it is not active."""
        return self._call("DELETE", f"constraints/{urllib.parse.quote(id_, safe='', errors='replace')}")

    def _call(self, method: str, path: str, body: bytes | None = None) -> object:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        try:
            connection.request(method, f"/v1/{path}", body, headers)
            response = connection.getresponse()
            content = response.read()
        except TimeoutError:
            raise NoAnswerError(f"the node at {self.url} did not answer within {self._timeout:g} s: see what it does") from None
        except ConnectionRefusedError:
            raise NoAnswerError(
                f"no node answers at {self.url}: start one with `{PROGRAM} node --name NAME`, or name another with --node"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise NoAnswerError(f"cannot reach a node at {self.url}: {reason}; name another with --node") from None
        except http.client.HTTPException:
            raise self._stranger() from None
        finally:
            connection.close()
        return self._answer(response.status, content)

    def _answer(self, status: int, content: bytes) -> object:
        try:
            answer: object = json.loads(content)
        except ValueError:
            raise self._stranger() from None
        if status < 400:
            return answer
        detail = answer.get("detail") if isinstance(answer, dict) else None
        if not isinstance(detail, str):
            raise self._stranger()
        if status == 404:
            raise NotFoundError(detail)
        raise MisuseError(detail) if status in _WRONG_INPUT else CommandFailedError(detail)

    def _stranger(self) -> CommandFailedError:
        return CommandFailedError(f"what answers at {self.url} is no node of {PROGRAM}: name another with --node")


def _address(node: str) -> tuple[str, int]:
    wrong = MisuseError(f"{node!r} is no address of a node: give http://HOST:PORT or HOST:PORT (--node, {NODE_VARIABLE})")
    try:
        parts = urllib.parse.urlsplit(node if "://" in node else f"http://{node}")
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port out of range, an unclosed bracket; or UnicodeError, a host that no resolver could take
        raise wrong from None
    if parts.scheme != "http" or not parts.hostname or port == 0 or parts.path not in ("", "/") or parts.query or parts.username:
        raise wrong
    return parts.hostname, DEFAULT_PORT if port is None else port
