"""The parts of an operation's declaration.

How to declare an operation, in the module of its subject:

1. A request struct. Its fields are the parameters of the path and of the query, and the fields of the body. Where a path has
   parameters beside a body, the body is a struct of its own, extended by the request.
2. A response struct.
3. `async def name(node: "Node", request: Request) -> Response`: the work. A `Reply` says more to HTTP: created, or a next page.
   For a status other than 422 raise `Problem`. A `ConstraintCrdtError` becomes 422 with its `field`.
4. An `Operation` with these, as a constant of the module, and with a `Command` or `CompositeCommand` for the command line. Then
   `python tools/generate_client.py` writes the clients' method and the page of reference.

Rules: undeclared parameters are refused (422). `errors` has the statuses beside the implied ones: 404 for a name in a body, 409,
503 for a reason other than a full disk. A response valid until a change of the state gets a `Freshness` and so an `ETag`; waiting
or large operations get none.
"""

import enum
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.model import close_to
from constraint_crdt.operations.command import AnyCommand, Command, CompositeCommand

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
    """The role needed by an operation, or given by a token. Each includes the previous roles."""

    NONE = 0
    READ = 1
    MEASURE = 2
    """Also post measurements, counts, positions and tiles."""
    OPERATE = 3
    """Also change constraints and membership."""


RIGHT_OF_ROLE: Final[Mapping[str, Right]] = {"observer": Right.READ, "member": Right.MEASURE, "operator": Right.OPERATE}
"""The right that the role in the certificate of a node gives to the clients of this node, at most."""


class Freshness(enum.Enum):
    """The validity of a response, covered by its `ETag`."""

    STATE = "until the state or a reading of it moves"
    AGING = "the same, and for a second at most: it tells what ages"
    MEASURED = "until the state or a reading of it moves, or something is measured"
    MEASURED_AGING = "the same, and for a second at most"


class Problem(ConstraintCrdtError):
    """A request that cannot be served. `str()` is a sentence for the client."""

    def __init__(
        self, status: HTTPStatus, detail: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """`field`: the field or parameter at fault. `headers`: of the answer, such as `retry-after`."""
        super().__init__(detail, field=field)
        self.status = status
        self.detail = detail
        self.headers: Mapping[str, str] = headers or {}


def wrong(detail: str, field: str | None) -> Problem:
    """A field or parameter out of bounds (422)."""
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=field)


MOST_COMPARED: Final = 1000
"""Known names that a wrong one is compared with, for a hint: a comparison takes some 20 µs."""


def not_found(detail: str, field: str | None = None, *, name: str = "", known: Iterable[str] = ()) -> Problem:
    """An unknown name (404). `name`, `known`: the wrong name and those that exist, for a hint at the most similar one."""
    near = close_to(name, islice(known, MOST_COMPARED)) if name else []
    return Problem(HTTPStatus.NOT_FOUND, f"{detail} ({near[0]} may be meant)" if near else detail, field=field)


def not_json(error: Exception) -> Problem:
    """A malformed body (400)."""
    reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    return Problem(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason}")


def busy(detail: str, seconds: int = 1) -> Problem:
    """Not at present (503). `seconds`: until a retry."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"retry-after": str(seconds)})


@contextmanager
def in_field(name: str) -> Iterator[None]:
    """Have an error in the block name this field, in its sentence as well."""
    try:
        yield
    except (WritesRefused, Problem):
        raise
    except (ConstraintCrdtError, ValueError) as error:
        raise wrong(f"`{name}`: {error}", name) from None


class Empty(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request without parameters."""


class Reply(msgspec.Struct, Generic[Response], frozen=True):
    """A response, with details for HTTP."""

    value: Response
    created: bool = False
    """Something was created: the status is 201."""
    next_after: str | None = None
    """The `after` of the next page; None on the last."""


Work = Callable[["Node", Request], Awaitable[Response | Reply[Response] | AsyncIterator[bytes]]]
"""The work of an operation. An iterator gives the encoded response in parts."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a request, sent in the query or in a header."""

    name: str
    about: str
    schema: Schema = msgspec.field(default_factory=lambda: TEXT)
    parse: Callable[[str], object] = str
    """Parses the text. Raises `ValueError` with the end of a sentence after the name."""
    required: bool = False
    place: str = "query"
    """`query` or `header`. Parameters of the path stand there."""
    many: bool = False
    """Allowed several times: `schema` is the schema of an array."""
    field: str = ""
    """The field of the request, if its name differs."""
    plus_is_plus: bool = False
    """A plus is not taken for a space."""

    @property
    def target(self) -> str:
        """The field of the request."""
        return self.field or self.name


REASON: Final = Parameter(
    name="constraint-crdt-why", about="the reason of the change, for the audit and the history; percent-encoded", place="header"
)
"""The header that all operations with a change of constraints or membership take."""


class Body(msgspec.Struct, kw_only=True):
    """The body of a request."""

    shape: Any = None
    """A struct. None: bytes, or the JSON of a state file."""
    media_type: str = JSON
    limit: int = MAX_BODY_BYTES
    """Bytes."""
    field: str | None = None
    """The field of the request for the body as bytes; None: the body has the fields of `shape`."""


class Answer(msgspec.Struct, frozen=True):
    """The answer of a status, for the document."""

    shape: Any = None
    """A type of msgspec; None for other content."""
    media_type: str = JSON
    about: str = "done"


class Operation(msgspec.Struct, Generic[Request, Response], frozen=True, kw_only=True, eq=False):
    """An HTTP method at a path."""

    name: str
    """The id in the document, and the name of the clients' method."""
    method: str
    path: str
    """With parameters in braces. `:any_text` marks a parameter for the rest of the path, slashes included."""
    summary: str
    request: type[Request]
    response: type[Response]
    run: Work[Request, Response] | None
    """None: the server answers from its own parts."""
    about: str = ""
    """The docstring of the clients' method, if different from the summary."""
    group: str = ""
    """reading, writing, or a contract. By default after the method."""
    right: Right | None = None
    """By default READ for GET, else OPERATE."""
    own_node: bool = False
    """It is about the node that is asked alone, so the role of the node in its fleet does not limit it."""
    right_of: Callable[[Request], Right] | None = None
    """The right needed by the content of a request, where that may be more than `right`."""
    parameters: tuple[Parameter, ...] = ()
    ignores_others: bool = False
    """Undeclared parameters are ignored."""
    body: Body | None = None
    media_type: str = JSON
    """Of the answer."""
    document: Answer | None = None
    """The documented answer, if other than JSON of the response."""
    headers: Mapping[str, str] = {}
    """Of each answer."""
    created: bool = False
    """201 may be the answer, too."""
    accepted: bool = False
    """202 is the answer in place of 200."""
    problem_as_error: bool = False
    """A problem has its sentence in `error` as well, where clients of PLATO servers look for it."""
    errors: frozenset[int] = frozenset()
    """Statuses of problems beside the implied ones."""
    freshness: Freshness | None = None
    """None: responses are never cached, and have no `ETag`."""
    by_segment: bool = False
    """Each parameter of the path is a segment, percent-encoded."""
    positional: tuple[str, ...] | None = None
    """Positional parameters of the clients' method. By default the parameters of the path."""
    build: Callable[..., Request] | None = None
    """Makes the request from the arguments of the clients' method, if these are not the fields."""
    join: Callable[[list[Response]], Response] | None = None
    """Joins the pages of a response. The clients follow the pages then."""
    patience: Callable[[Request], float] | None = None
    """Seconds beyond the timeout of the clients."""
    in_clients: bool = True
    """The clients have a method."""
    command: Command[Request, Response] | CompositeCommand[Any] | None = None
    more_commands: tuple[CompositeCommand[Any], ...] = ()
    """Further commands for the same operation."""

    def __post_init__(self) -> None:
        """Fill in the defaults after the method."""
        reads = self.method == GET
        msgspec.structs.force_setattr(self, "right", (Right.READ if reads else Right.OPERATE) if self.right is None else self.right)
        msgspec.structs.force_setattr(self, "group", self.group or ("reading" if reads else "writing"))

    @property
    def needs(self) -> Right:
        """The role needed by a request."""
        return self.right or Right.NONE

    @property
    def takes_why(self) -> bool:
        """True for a change of constraints or membership, whose reason is kept."""
        return self.method != GET and self.run is not None and (self.needs is Right.OPERATE or self.right_of is not None)

    @property
    def commands(self) -> tuple[AnyCommand, ...]:
        """All commands for the operation."""
        return self.more_commands if self.command is None else (self.command, *self.more_commands)

    @property
    def path_fields(self) -> list[str]:
        """The parameters of the path, in order."""
        return _IN_PATH.findall(self.path)

    @property
    def body_fields(self) -> tuple[str, ...]:
        """The fields of the request within the body."""
        return () if self.body is None or self.body.field or self.body.shape is None else self.body.shape.__struct_fields__

    @property
    def answers(self) -> dict[int, Answer]:
        """The answers by status, if all goes well."""
        answer = self.document or Answer(self.response, self.media_type)
        created = {int(HTTPStatus.CREATED): Answer(answer.shape, answer.media_type, "it is new")} if self.created else {}
        return {int(HTTPStatus.ACCEPTED if self.accepted else HTTPStatus.OK): answer, **created}

    @property
    def statuses(self) -> list[int]:
        """All statuses of problems, from proxies too, ordered."""
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
        if self.method != GET or self.needs > Right.READ:
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
    """A number in the syntax of JSON; None for other text. (`float` takes `1_0`, ` 1` and the digits of other scripts too.)"""
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
    """The parameter for the size of a page."""
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
        """The ids of the page, and the `after` of the next page. `ids` are ordered."""
        start = 0 if self.after is None else bisect_right(ids, self.after)
        page = list(ids[start : start + self.most])
        return page, page[-1] if start + self.most < len(ids) else None

    @property
    def most(self) -> int:
        """The size of the page."""
        return PAGE if self.limit is None else self.limit


def concatenated(pages: list[list[Any]]) -> list[Any]:
    """The pages of a list, joined."""
    return [each for page in pages for each in page]
