"""The parts of an operation's declaration: the operation, and its command.

How to declare an operation, in the module of its subject:

1. A request struct. Its fields are the parameters of the path and of the query, and the fields of the body. Where a path has
   parameters beside a body, the body is a struct of its own, extended by the request.
2. A response struct.
3. `async def name(node: "Node", request: Request) -> Response`: the work. A `Reply` says more to HTTP: created, or a next page.
   For a status other than 422 raise `Problem`. A `ConstraintCrdtError` becomes 422 with its `field`.
4. An `Operation` with these, as a constant of the module, and with a `Command` or `CompositeCommand` for the command line. Then
   `python tools/generate_client.py` writes the clients' method, the page of reference and the man page. A new module is added to
   `_SUBJECTS` of the package.

Rules: undeclared parameters are refused (422). `errors` has the statuses beside the implied ones: 404 for a name in a body, 409,
503 for a reason other than a full disk. A response valid until a change of the state gets a `Freshness` and so an `ETag`; waiting
or large operations get none.

A command has flags, a view of the response for people, and values as people write and read them.

A flag is for a field of the request. Without a declaration a parameter of the path is a positional argument, a bool a switch and
any other field a `--flag`. The view of a response consists of sentences, tables and named values. Values are durations, points in
time, labels, measurements, counts: `30m`, `2026-12-01T00:00:00Z`, `zone=a`, `in 29 min`. A verdict has the same words everywhere:
`pending 12 s of 30 s`, `speed_mps = 9.0, 7.5 above the limit (500 %)`, `99.93 %` of the time.
"""

import enum
import json
import math
import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.model import SelectorError, close_to, make_selector, parse_selector

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node


Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    """Aligned to the right."""


class Table(NamedTuple):
    """Rows below titles."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]


class Lines(NamedTuple):
    """Named values, a line each."""

    values: Sequence[tuple[str, object]]


View: TypeAlias = "str | Table | Lines | Sequence[str | Table | Lines]"
"""A response for a person. A text is a sentence."""


class Flag:
    """A flag or positional argument of a command."""

    def __init__(self, *names: str, convert: Callable[[Any], object] | None = None, exclusive: str = "", **options: Any) -> None:
        """`names`: those of argparse; none: a positional argument. `convert`: makes the value of the field from the parsed value;
        raises `ConstraintCrdtError`. `exclusive`: a name shared by mutually exclusive flags. `options`: those of argparse.
        """
        self.names = names
        self.convert = convert
        self.exclusive = exclusive
        self.options: dict[str, Any] = options


Heading = Literal["run", "constraints", "observe", "state", "fleet", "files"]
"""Of the commands in the help, in order."""


def _require_group(subject: str, group: str, known: Sequence[str]) -> None:
    if group not in known:
        raise ValueError(f"{subject} is in an unknown group {group!r}: it is one of {', '.join(known)}")


class Command(msgspec.Struct, Generic[Request, Response], frozen=True, kw_only=True, eq=False):
    """The command for an operation."""

    name: str
    """Two words, such as `tile put`, for an action of a command."""
    help: str
    example: str
    """A use of it, without the name of the program."""
    group: Heading
    """The heading in the help."""
    flags: Mapping[str, Flag | None] = {}
    """By field of the request, in the order of the help: where they differ from the field. None: not set by the command."""
    options: Mapping[str, Flag] = {}
    """Flags beside the fields of the request, by name."""
    check: Callable[[Request], None] | None = None
    """Raises `ConstraintCrdtError` for a useless request."""
    show: Callable[[Response, Request, "Namespace"], View] | None = None
    """The view of the response, given the request and all flags. None: the command line has a function for the command."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for an unknown group."""
        _require_group(f"the command `{self.name}`", self.group, get_args(Heading))


class CompositeCommand(msgspec.Struct, Generic[Response], frozen=True, kw_only=True, eq=False):
    """A command whose flags choose among operations, or fill a request together."""

    name: str
    """Two words, such as `tile tag`, for an action of a command."""
    help: str
    example: str
    """A use of it, without the name of the program."""
    group: Heading
    """The heading in the help."""
    options: Mapping[str, Flag]
    """All flags, by name."""
    call: Callable[["Client", "Namespace"], Response]
    """Calls an operation. Raises `ConstraintCrdtError` for useless flags."""
    show: Callable[[Response, "Namespace"], View]
    """The view of the response, given all flags."""

    def __post_init__(self) -> None:
        """Raise `ValueError` for an unknown group."""
        _require_group(f"the command `{self.name}`", self.group, get_args(Heading))


AnyCommand: TypeAlias = "Command[Any, Any] | CompositeCommand[Any]"


# --- values ---------------------------------------------------------------------------------------------------------------------

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([smhd]?)")

_SHOWN = (("d", 86_400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 0))
"""Units, largest first, with their seconds, and the least number of them from which on the unit is used."""


class UsageError(ConstraintCrdtError, ValueError):
    """An invalid command line, in any state of the fleet. `str()` is a sentence."""


def is_pattern(text: str) -> bool:
    """True for a pattern with `*` or `?`, in place of an id or a name."""
    return "*" in text or "?" in text


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h`, `7d` or `1.5h`. Raises `UsageError` for anything else, and for 0."""
    found = _DURATION.fullmatch(text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        above = " above 0" if found else ""
        raise UsageError(f"{text!r} is not a length of time{above}: give seconds, or a number with s, m, h or d, as in 30m")
    return seconds


def parse_delay(text: str) -> float:
    """Seconds as of `parse_duration`, or 0. Raises `UsageError` for anything else."""
    return 0.0 if text.strip() in ("0", "0s") else parse_duration(text)


def parse_end(text: str) -> datetime | None:
    """A point in time as of `parse_moment`, or None for `never`. Raises `UsageError` for anything else."""
    return None if text.strip() == "never" else parse_moment(text)


def parse_moment(text: str) -> datetime:
    """A point in time with its zone, as in ISO 8601. Raises `UsageError` for anything else."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is not a point in time: give date, time and zone, as in 2026-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise UsageError(f"{text!r} could be at any place on Earth: give its zone too, as in 2026-12-01T00:00:00Z")
    return moment


def parse_selectors(texts: Iterable[str]) -> Mapping[str, str] | str:
    """The selector of several texts, all of which a node has to match: labels where it has equalities only, else its text.

    Raises `UsageError` for a mistake in a text, and for a label with two values.
    """
    try:
        parts = [parse_selector(text) for text in texts]
        equal = [pair for each in parts for pair in each.equal]
        found = make_selector(equal, [other for each in parts for other in each.requirements])
    except SelectorError as error:
        raise UsageError(str(error)) from None
    return str(found) if found.requirements else dict(found.equal)


def parse_measurements(texts: Iterable[str]) -> dict[str, object]:
    """Values of `VAR=VALUE`. Raises `UsageError` for anything else, and for a name with two values."""
    values: dict[str, object] = {}
    for text in texts:
        labelled = re.match(r"([^={]*\{[^}]*\})(=?)(.*)", text, re.DOTALL)
        name, equals, value = labelled.groups() if labelled else text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not VAR=VALUE, for example gpu_temp_c=91.5")
        if name in values:
            raise UsageError(f"{name} has two values: give one")
        if not value:
            raise UsageError(f"{name} has no value, as of an unset shell variable: give one, or '{name}=\"\"' for the empty text")
        values[name] = _measured(value)
    return values


def parse_scalar(text: str) -> object:
    """A number, true, false or a quoted text as in JSON; other text as given. Raises `UsageError` for too large a number."""
    return _measured(text)


_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ALMOST_NUMBER = re.compile(
    r"[+-]?(?:0[xXoObB][0-9A-Fa-f_]+|[0-9][0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9]+)?|nan|inf(?:inity)?)", re.IGNORECASE
)


def _measured(text: str) -> object:
    """A number, true, false or a quoted text as in JSON; other text as given. Raises `UsageError` for a text that may be meant as
    a number: a verdict must not depend on which of them was.
    """
    if _NUMBER.fullmatch(text):
        if not math.isfinite(float(text)):
            raise UsageError(f"{text} is too large for a number: give one below 1.8e308")
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    if _ALMOST_NUMBER.fullmatch(text):
        raise UsageError(f"{text} is not written as a number: give digits, as in 1000 or 0.5; a text in quotes, as in '\"{text}\"'")
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | str) else text


def parse_count(text: str) -> int:
    """A count, for argparse. Raises `ArgumentTypeError` for anything else."""
    if not text.isascii() or not text.isdigit():
        from argparse import ArgumentTypeError  # a node in a program parses no arguments

        raise ArgumentTypeError(f"{text!r} is not a count: give a whole number, 0 or more")
    return int(text)


def parse_share(text: str) -> float:
    """A share between 0 and 1, for argparse. Raises `ArgumentTypeError` for anything else."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.0 < share < 1.0:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"give a share above 0 and below 1, as in 0.01, not {text!r}")
    return share


def show_duration(seconds: float) -> str:
    """A length in its largest unit that divides it: `1h`, `5m`, `90s`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def show_length(seconds: float) -> str:
    """A length of time in whole units: `12 s`, `29 min`."""
    whole = max(0, int(seconds))
    unit, size = next((unit, size) for unit, size, least in _SHOWN if whole >= least * size)
    return f"{whole // size} {unit}"


def show_distance(seconds: float) -> str:
    """How far off a point in time is: `in 29 min`, or `29 min ago`."""
    return f"in {show_length(seconds + 0.5)}" if seconds > 0 else f"{show_length(-seconds)} ago"


def show_time(time: int | None, now: float) -> str:
    """The distance from `now` (seconds since the epoch) to a time in ns since the epoch; `-` for None."""
    return "-" if time is None else show_distance(time / 1e9 - now)


# --- verdicts ---------------------------------------------------------------------------------------------------------------


def show_share(share: float | None) -> str:
    """A share in percent: `99.93 %`. A share just below 1 or above 0 is rounded to neither."""
    if share is None:
        return "-"
    if 0.99995 <= share < 1.0:
        return "> 99.99 %"
    return "< 0.01 %" if 0.0 < share < 0.00005 else f"{100 * share:.2f} %"


def show_state(state: str, since: int | None, now: float, *, for_: float = 0.0, clear_after: float = 0.0) -> str:
    """A verdict state with its clock: `pending 12 s of 30 s`. Times in seconds; `since` in ns since the epoch."""
    if state == "pending" and for_ and since is not None:
        return f"pending {show_length(min(now - since / 1e9, for_))} of {_exact(for_)}"
    return f"clearing ({_exact(clear_after)})" if state == "clearing" and clear_after else state


def _exact(seconds: float) -> str:
    return show_length(seconds) if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g} s"


def show_margin(values: Mapping[str, str], margin: float, share: float | None, variable: str | None) -> str:
    """The distance to the threshold: `7.5 above the limit (500 %)`; `beyond` or `within` where the direction cannot be told."""
    side = _side(values.get(variable or ""), margin, share) or ("within" if margin > 0 else "beyond")
    if not margin:
        return "at the limit"
    return f"{abs(margin):.4g} {side} the limit{'' if share is None else f' ({_percent(100 * abs(share))} %)'}"


def _percent(share: float) -> str:
    """Three digits, without an exponent up to a million: 500, 1150, 2e+06."""
    return f"{share:.3g}" if not 1000 <= share < 1e6 else f"{float(f'{share:.3g}'):.0f}"


def _side(text: str | None, margin: float, share: float | None) -> str | None:
    """The direction from the threshold to the value, from the size of the threshold; None if it fits neither or both directions."""
    try:
        value, threshold = float(text or ""), abs(margin / share) if share else math.nan
    except (ValueError, OverflowError):
        return None
    above = math.isclose(abs(value - abs(margin)), threshold, rel_tol=1e-9)
    below = math.isclose(abs(value + abs(margin)), threshold, rel_tol=1e-9)
    return None if above is below else "above" if above else "below"


def show_values(values: Mapping[str, str], margin: float | None, share: float | None, variable: str | None) -> str:
    """The values of a judgement and the margin: `speed_mps = 9.0, 7.5 above the limit (500 %); distance_m = 0.3`."""
    texts = {name: f"{name} = {value}" for name, value in values.items()}
    first = []
    if margin is not None:
        read = texts.pop(variable or "", variable or "")
        first = [", ".join(part for part in (read, show_margin(values, margin, share, variable)) if part)]
    return "; ".join([*first, *texts.values()])


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


Group = Literal["reading", "writing", "PLATO"]
"""Of operations in the document: reading, writing, or a contract."""


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
    group: Literal["", Group] = ""
    """By default after the method."""
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
    extra_timeout: Callable[[Request], float] | None = None
    """Seconds beyond the timeout of the clients."""
    in_clients: bool = True
    """The clients have a method."""
    command: Command[Request, Response] | CompositeCommand[Any] | None = None
    more_commands: tuple[CompositeCommand[Any], ...] = ()
    """Further commands for the same operation."""

    def __post_init__(self) -> None:
        """Fill in the defaults after the method. Raises `ValueError` for an unknown group."""
        reads = self.method == GET
        msgspec.structs.force_setattr(self, "right", (Right.READ if reads else Right.OPERATE) if self.right is None else self.right)
        msgspec.structs.force_setattr(self, "group", self.group or ("reading" if reads else "writing"))
        _require_group(f"the operation {self.name}", self.group, get_args(Group))

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

_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def number(text: str) -> float | None:
    """A number in the syntax of JSON; None for other text. (`float` takes `1_0`, ` 1` and the digits of other scripts too.)"""
    return float(text) if _DECIMAL.fullmatch(text) else None


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
