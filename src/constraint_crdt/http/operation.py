"""What the API says of one of its operations: enough to route it, to guard it, and to document it.

The list of all operations is in `table`.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.security import Right
from constraint_crdt.runtime.node import Node

Endpoint = Callable[[Node, Request], Awaitable[Response]]
Schema = Mapping[str, object]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
YES_NO: Schema = {"type": "string", "enum": ["0", "1"], "default": "0"}

JSON = "application/json"
BYTES = "application/octet-stream"


class Freshness(enum.Enum):
    """For how long an answer is right, which is what its `ETag` goes by."""

    STATE = "until the state or a reading of it moves"
    AGING = "the same, and for a second at most: it tells what ages"


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that a request may say beside its body."""

    name: str
    about: str
    schema: Schema = field(default_factory=lambda: TEXT)
    required: bool = False
    place: str = "query"
    """`query` or `header`. What stands in a path is found there."""
    many: bool = False
    """It may be given several times: `schema` is that of an array."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request is to send."""

    shape: Any
    """A type that msgspec knows; None for bytes, or for JSON of a shape of its own."""
    media_type: str = JSON
    schema: Schema = field(default_factory=lambda: {"type": "object"})
    """Of JSON of a shape of its own."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with if all goes well."""

    shape: Any = None
    """A type that msgspec knows; None for anything else."""
    media_type: str = JSON
    about: str = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method at one path."""

    name: str
    """What it is called in the document, and the method of the client that asks for it."""
    method: str
    path: str
    """As in a Starlette route."""
    endpoint: Endpoint
    summary: str
    group: str
    right: Right = Right.READ
    parameters: tuple[Parameter, ...] = ()
    ignores_others: bool = False
    """Parameters that are not listed are no mistake."""
    body: Body | None = None
    answers: Mapping[int, Answer]
    refusals: frozenset[int] = frozenset()
    """Statuses of problems beside those that follow from the rest."""
    freshness: Freshness | None = None
    """None: an answer is never kept, and has no `ETag`."""
    by_segment: bool = False
    """Each parameter of the path is one segment of it, as it was sent. See `routing`."""

    @property
    def statuses(self) -> list[int]:
        """Every status of a problem that it can be answered with, by whoever is in between too, ordered."""
        found = {
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.MISDIRECTED_REQUEST,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            HTTPStatus.SERVICE_UNAVAILABLE,
            *map(HTTPStatus, self.refusals),
        }
        if self.right is not Right.NONE:
            found.add(HTTPStatus.UNAUTHORIZED)
            found.add(HTTPStatus.UNPROCESSABLE_ENTITY)
        if self.method != "GET":
            found.add(HTTPStatus.FORBIDDEN)
        if "{" in self.path:
            found.add(HTTPStatus.NOT_FOUND)
        if self.body is not None:
            found |= {
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            }
        return sorted(found)
