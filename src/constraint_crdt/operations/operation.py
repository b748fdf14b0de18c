"""The parts of an operation's declaration.

How to declare one, in the module of its subject:

1. A request struct. Its fields are the parameters of the path and of the query, and the fields of the body. Where a path has
   parameters beside a body, the body is a struct of its own and the request extends it.
2. A response struct.
3. `async def name(node: "Node", request: Request) -> Response`: the work. A `Reply` says more to HTTP: created, or a next page.
   It raises `Problem` for a status other than 422. A `ConstraintCrdtError` becomes 422 with the `field` that it names.
4. An `Operation` with these, and a line in `catalogue`. Then `python tools/generate_client.py` writes the clients' method and the
   page of reference.

Rules: a request names no parameter that is not declared (422). `errors` has the statuses that follow from nothing else: 404 of a
name in a body, 409, 503 beyond that of a full disk. An answer that stays the same until the state moves gets a `Freshness`, and
with it an `ETag`; one that waits, or is large, gets none.
"""

import enum
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.operations.command import Command

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node

GET, PUT, POST, PATCH, DELETE = "GET", "PUT", "POST", "PATCH", "DELETE"

Schema = Mapping[str, object]
"""A JSON Schema."""

TEXT: Final[Schema] = {"type": "string"}
WHOLE: Final[Schema] = {"type": "integer", "minimum": 0}
YES_NO: Final[Schema] = {"type": "string", "enum": ["0", "1"], "default": "0"}
SECONDS: Final[Schema] = {"type": "number", "minimum": 0}

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"

MAX_BODY_BYTES: Final = 1024 * 1024

Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")


class Right(enum.IntEnum):
    """The role that an operation needs, or that a token has. Each includes those before."""

    NONE = 0
    READ = 1
    WRITE = 2


class Freshness(enum.Enum):
    """For how long an answer is right, which decides its `ETag`."""

    STATE = "until the state or a reading of it moves"
    AGING = "the same, and for a second at most: it tells what ages"


class Problem(ConstraintCrdtError):
    """A request that cannot be served. `str()` is one sentence for the person who sent it."""

    def __init__(
        self, status: HTTPStatus, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`field`: the field or parameter at fault. `headers`: of the answer, such as `retry-after`."""
        super().__init__(detail, field=field)
        self.status = status
        self.detail = detail
        self.headers: Mapping[str, str] = headers or {}


def wrong(detail: str, field: str | None) -> Problem:
    """A field or parameter that is out of bounds (422)."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=field)


def not_found(detail: str, field: str | None = None) -> Problem:
    """A name that is not known (404)."""
    return Problem(HTTPStatus.NOT_FOUND, detail, field=field)


def not_json(error: Exception) -> Problem:
    """A body that cannot be decoded (400)."""
    reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    return Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason}")


def busy(detail: str, seconds: int = 1) -> Problem:
    """Not at present (503). `seconds`: after which a retry is worth it."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"retry-after": str(seconds)})


@contextmanager
def in_field(name: str) -> Iterator[None]:
    """Have an error in there name this field, in its sentence as well."""
    try:
        yield
    except (WritesRefused, Problem):
        raise
    except (ConstraintCrdtError, ValueError) as error:
        raise wrong(f"`{name}`: {error}", name) from None


class Empty(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request without parameters."""


class Reply(msgspec.Struct, Generic[Response], frozen=True):
    """A response, with more for HTTP to say."""

    value: Response
    created: bool = False
    """It is new: the status is 201."""
    next_after: str | None = None
    """The `after` of the next page; None on the last."""


Run = Callable[["Node", Request], Awaitable[Response | Reply[Response] | AsyncIterator[bytes]]]
"""The work of an operation. An iterator gives the encoded response in parts."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a request that is sent in the query or in a header."""

    name: str
    about: str
    schema: Schema = msgspec.field(default_factory=lambda: TEXT)
    parse: Callable[[str], object] = str
    """The value of a text. Raises `ValueError` with the rest of a sentence that begins with the name."""
    required: bool = False
    place: str = "query"
    """`query` or `header`. Parameters of the path stand there."""
    many: bool = False
    """It may be given several times: `schema` is that of an array."""
    field: str = ""
    """The field of the request, where that has another name."""
    plus_is_plus: bool = False
    """A plus is not taken for a space."""

    @property
    def target(self) -> str:
        """The field of the request."""
        return self.field or self.name


class Body(msgspec.Struct, kw_only=True):
    """The body of a request."""

    shape: Any = None
    """A struct. None: bytes, or the JSON of a state file."""
    media_type: str = JSON
    limit: int = MAX_BODY_BYTES
    """Bytes."""
    field: str | None = None
    """The field of the request that takes the body as bytes; None: the body has the fields of `shape`."""


class Answer(msgspec.Struct, frozen=True):
    """An answer of a status, as the document describes it."""

    shape: Any = None
    """A type that msgspec knows; None for anything else."""
    media_type: str = JSON
    about: str = "done"


class Operation(msgspec.Struct, Generic[Request, Response], frozen=True, kw_only=True, eq=False):
    """One method at one path."""

    name: str
    """The id in the document, and the name of the clients' method."""
    method: str
    path: str
    """With parameters in braces. `:any_text` marks one that takes the rest of the path, slashes too."""
    summary: str
    request: type[Request]
    response: type[Response]
    run: Run[Request, Response] | None
    """None: the server answers from its own parts."""
    about: str = ""
    """The docstring of the clients' method, if it says more than the summary."""
    group: str = ""
    """reading, writing, or the contract that it belongs to. By default after the method."""
    right: Right | None = None
    """By default after the method."""
    parameters: tuple[Parameter, ...] = ()
    ignores_others: bool = False
    """Parameters that are not declared are no mistake."""
    body: Body | None = None
    media_type: str = JSON
    """Of the answer."""
    document: Answer | None = None
    """The answer as the document has it, if it is not JSON of the response."""
    headers: Mapping[str, str] = {}
    """Of each answer."""
    created: bool = False
    """201 may be the answer, too."""
    errors: frozenset[int] = frozenset()
    """Statuses of problems beside those that follow from the rest."""
    freshness: Freshness | None = None
    """None: an answer is never cached, and has no `ETag`."""
    by_segment: bool = False
    """Each parameter of the path is one segment of it, percent-encoded."""
    positional: tuple[str, ...] | None = None
    """Fields that the clients' method takes by position. By default: the parameters of the path, or the body."""
    build: Callable[..., Request] | None = None
    """Makes the request of the clients' arguments, where these are not the fields."""
    join: Callable[[list[Response]], Response] | None = None
    """Makes one response of all pages, which the clients then follow."""
    patience: Callable[[Request], float] | None = None
    """Seconds beyond the usual that the clients wait."""
    in_clients: bool = True
    """The clients have a method for it."""
    command: Command[Request, Response] | None = None

    def __post_init__(self) -> None:
        """Fill in the defaults that follow from the method."""
        reads = self.method == GET
        msgspec.structs.force_setattr(self, "right", (Right.READ if reads else Right.WRITE) if self.right is None else self.right)
        msgspec.structs.force_setattr(self, "group", self.group or ("reading" if reads else "writing"))

    @property
    def needs(self) -> Right:
        """The role that a request needs."""
        return self.right or Right.NONE

    @property
    def path_fields(self) -> list[str]:
        """The parameters of the path, in order."""
        return _IN_PATH.findall(self.path)

    @property
    def body_fields(self) -> tuple[str, ...]:
        """The fields of the request that are fields of the body."""
        return () if self.body is None or self.body.field or self.body.shape is None else self.body.shape.__struct_fields__

    @property
    def answers(self) -> dict[int, Answer]:
        """The answers by status, if all goes well."""
        answer = self.document or Answer(self.response, self.media_type)
        created = {int(HTTPStatus.CREATED): Answer(answer.shape, answer.media_type, "it is new")} if self.created else {}
        return {int(HTTPStatus.OK): answer, **created}

    @property
    def statuses(self) -> list[int]:
        """Every status of a problem that may be the answer, from a server in between too, ordered."""
        found = {
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.MISDIRECTED_REQUEST,
            HTTPStatus.TOO_MANY_REQUESTS,
            HTTPStatus.INTERNAL_SERVER_ERROR,
            HTTPStatus.SERVICE_UNAVAILABLE,
            *map(HTTPStatus, self.errors),
        }
        if self.needs is not Right.NONE:
            found |= {HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY}
        if self.method != GET:
            found.add(HTTPStatus.FORBIDDEN)
        if "{" in self.path:
            found.add(HTTPStatus.NOT_FOUND)
        if self.body is not None:
            found |= {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE}
        return sorted(found)


_IN_PATH = re.compile(r"\{(\w+)(?::\w+)?\}")

AnyOperation = Operation[Any, Any]

# --- values of a query ------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def number(text: str) -> float | None:
    """A number as JSON writes it; None for anything else. (`float` takes `1_0`, ` 1` and the digits of other scripts too.)"""
    return float(text) if _NUMBER.fullmatch(text) else None


def parse_flag(text: str) -> bool:
    """True for 1, False for 0. Raises `ValueError` for anything else."""
    if text not in ("0", "1"):
        raise ValueError(f": 1 or 0, not {text!r}")
    return text == "1"


def parse_whole(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
            raise ValueError(f": a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return parse


# --- long lists, a page at a time -------------------------------------------------------------------------------------------

PAGE = 1000
LARGEST_PAGE: Final = 10_000


def limit(most: int, default: int, about: str = "how many at most") -> Parameter:
    """The parameter that bounds a page."""
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Parameter(name="limit", about=about, schema=schema, parse=parse_whole(1, most))


AFTER: Final = Parameter(name="after", about="the last of the page before")
PAGED: Final = (limit(LARGEST_PAGE, PAGE, "how many at most; a `Link` leads to the next page"), AFTER)


class Paged(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a page of a list."""

    limit: int | None = None
    """None: `PAGE`."""
    after: str | None = None

    def page(self, ids: Sequence[str]) -> tuple[list[str], str | None]:
        """The ids of the page, and the `after` of the next one. `ids` are ordered."""
        start = 0 if self.after is None else bisect_right(ids, self.after)
        page = list(ids[start : start + self.most])
        return page, page[-1] if start + self.most < len(ids) else None

    @property
    def most(self) -> int:
        """How many the page may have."""
        return PAGE if self.limit is None else self.limit


def concatenated(pages: list[list[Any]]) -> list[Any]:
    """The pages of a list as one list."""
    return [each for page in pages for each in page]
