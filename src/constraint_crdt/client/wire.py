"""What both clients share: a question as it is sent, an answer as it came, and what it means.

Rules: no I/O here. A token goes into a header and nowhere else.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import GenericAlias
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from constraint_crdt.client.address import Address
from constraint_crdt.client.errors import KINDS, NoAnswer, Refused, Stranger

Value = TypeVar("Value")

TIMEOUT = 5.0
"""Seconds of silence after which a node counts as not answering."""

IDLE_SECONDS = 4.0
"""For how long an unused connection is kept: the server closes it a second later."""

MOST_IDLE = 8
"""Unused connections that are kept."""

REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Done twice, they have done no more than once; so they are sent again if a kept connection turns out to be closed."""

_NEXT = re.compile(r'<([^>]*)>;\s*rel="next"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)


class Answered(NamedTuple):
    """An answer as it came."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[Value]):
    """A question, and what to make of the answer."""

    method: str
    path: str
    """With its query."""
    shape: str
    """`module:name` of the type that the answer is read as, loaded when it is needed; `bytes` or `text`: not JSON."""
    body: bytes | None = None
    media_type: str = "application/json"
    join: Callable[[list[Value]], Value] | None = None
    """Given where an answer may come in pages: puts them together."""
    patience: float = 0.0
    """Seconds beyond the usual that the node may take."""


def headers_of(address: Address, token: str | None, body: bytes | None, media_type: str) -> dict[str, str]:
    """What a request says of itself."""
    headers = {"Host": address.authority, "Accept": "application/json, application/problem+json, */*"}
    if body is not None:
        headers |= {"Content-Type": media_type, "Content-Length": str(len(body))}
    return headers | authorization(token)


def authorization(token: str | None) -> dict[str, str]:
    """The header that shows a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def check_token(token: str | None) -> str | None:
    """The token, if it can be one. Raises `ValueError`, which does not show it."""
    if token is not None and not _TOKEN.fullmatch(token):
        raise ValueError("the token has characters in it that no token has")
    return token


def read_answer(call: Call[Value], answered: Answered, address: Address) -> Value:
    """What an answer says. Raises `Refused` if it is a problem, `Stranger` if no node says such a thing."""
    check_answer(answered, address)
    found: Any
    if call.shape in ("bytes", "text"):
        found = answered.content if call.shape == "bytes" else answered.content.decode(errors="replace")
        return found  # type: ignore[no-any-return]  # the call says what it is
    try:
        found = msgspec.json.decode(answered.content, type=_shape(call.shape))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise stranger(address) from None
    return found  # type: ignore[no-any-return]  # the call says what it is


def check_answer(answered: Answered, address: Address) -> None:
    """Raise `Refused` if an answer is a problem, `Stranger` if it is an error and no problem."""
    if answered.status < 400:
        return
    try:
        problem = msgspec.json.decode(answered.content, type=dict[str, Any])
        detail = problem["detail"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        raise stranger(address) from None
    if not isinstance(detail, str):
        raise stranger(address)
    field, wait = problem.get("field"), answered.headers.get("retry-after", "")
    raise KINDS.get(answered.status, Refused)(
        detail,
        answered.status,
        field=field if isinstance(field, str) else None,
        retry_after=float(wait) if wait.isascii() and wait.isdigit() else None,
    )


def next_page(answered: Answered) -> str | None:
    """The path of the next page, if there is one."""
    found = _NEXT.search(answered.headers.get("link", ""))
    return found[1] if found and found[1].startswith("/") else None


def stranger(address: Address) -> Stranger:
    """What answers is no node."""
    return Stranger(f"what answers at {address.url} is no node of constraint-crdt")


def no_answer(address: Address, error: OSError, timeout: float) -> NoAnswer:
    """Why nobody answers."""
    if isinstance(error, TimeoutError):
        return NoAnswer(f"the node at {address.url} did not answer within {timeout:g} s", timed_out=True)
    if isinstance(error, ConnectionRefusedError):
        return NoAnswer(f"no node answers at {address.url}", refused=True)
    return NoAnswer(f"cannot reach a node at {address.url}: {error.strerror or error}")


@cache
def _shape(name: str) -> Any:
    module, _, attribute = name.removeprefix("list:").partition(":")
    found: Any = getattr(importlib.import_module(module), attribute)
    return GenericAlias(list, (found,)) if name.startswith("list:") else found
