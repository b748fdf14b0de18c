"""The operations with approximate answers: the most frequent items, how often items occurred, and which were ever seen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.operations.command import (
    Column,
    Command,
    CompositeCommand,
    Flag,
    Table,
    UsageError,
    View,
    parse_count,
    parse_share,
)
from constraint_crdt.operations.operation import (
    GET,
    POST,
    Body,
    Freshness,
    Operation,
    Parameter,
    Problem,
    Right,
    not_found,
    wrong,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.client.blocking import Client
    from constraint_crdt.runtime.node import Node

VIOLATIONS: Final = "violations"
"""The sketch written by nodes themselves: violations by constraint."""

MAX_ITEMS: Final = 10_000
"""Per call. So many block the node for some hundredths of a second."""

MAX_TOP: Final = 1000
DEFAULT_TOP: Final = 10

# --- requests ---------------------------------------------------------------------------------------------------------------


class GetTop(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/top`."""

    k: int = DEFAULT_TOP
    of: str | None = None
    """None: `VIOLATIONS`."""


class Tallied(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/sketches/{name}`."""

    items: Mapping[str, int]


class CountItems(Tallied, frozen=True, kw_only=True):
    """Items, and their sketch."""

    name: str


class LookUpItem(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/seen/{name}`."""

    name: str
    item: str


class Inserted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/seen/{name}`. The last two are for the first insertion, or equal to those of the filter."""

    items: Sequence[str]
    expected_items: int | None = None
    fp_rate: float | None = None


class InsertItems(Inserted, frozen=True, kw_only=True):
    """Items, and their filter."""

    name: str


# --- responses --------------------------------------------------------------------------------------------------------------


class TopItem(msgspec.Struct, frozen=True, kw_only=True):
    """A frequent item."""

    item: str
    estimate: int
    lower: int
    """Not above the truth, with the probability of the sketch."""
    upper: int | None
    """Never below the truth, so equal to the estimate; None if the sketch is saturated."""
    share: float
    exact: int | None
    """Of the violations of an active constraint: their exact count."""


class TopReport(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent items of a sketch."""

    of: str
    total: int
    error_bound: float
    """The largest excess of an estimate, but for a share `delta` of the items."""
    delta: float
    saturated: bool
    writers: int
    items: tuple[TopItem, ...]


class TallyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of recording."""

    name: str
    recorded: int
    total: int


class SeenReport(msgspec.Struct, frozen=True, kw_only=True):
    """Membership of an item, for insertions on all nodes."""

    name: str
    item: str
    seen: bool
    fpr: float
    """The probability of a false positive."""


class InsertReport(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of inserting."""

    name: str
    items: int
    new: int
    """The number of items not seen before, as far as is known here."""
    fpr: float


# --- operations -------------------------------------------------------------------------------------------------------------


def _parse_k(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f": {text!r} is not a whole number")
    if not 1 <= int(text) <= MAX_TOP:
        raise ValueError(f": the number of items must be from 1 to {MAX_TOP}, not {int(text)}")
    return int(text)


async def _top(node: "Node", request: GetTop) -> TopReport:
    of = VIOLATIONS if request.of is None else request.of
    try:
        return node.approximate.top(request.k, of)
    except KeyError:
        raise _nothing("sketch", of, "of") from None


def show_top(answer: TopReport, _: GetTop, __: "Namespace") -> View:
    """A row for each item; a sentence on the unit of the sketch of violations."""
    if not answer.items:
        return f"nothing counted in {answer.of} yet"
    columns = [Column("item"), *(Column(title, right=True) for title in ("at most", "at least", "share", "exact"))]
    rows = [
        [
            each.item,
            each.estimate if each.upper is not None else "saturated",
            each.lower,
            f"{100 * each.share:.2f} %",
            "-" if each.exact is None else each.exact,
        ]
        for each in answer.items
    ]
    table = Table(columns, rows)
    return ["violated judgements, by constraint", table] if answer.of == VIOLATIONS else table


TOP: Final = Operation(
    name="top",
    method=GET,
    path="/v1/top",
    summary="What is violated most, or the most frequent items of a sketch.",
    about="The constraints violated most, or the most frequent items of another sketch.",
    request=GetTop,
    response=TopReport,
    run=_top,
    parameters=(
        Parameter(
            name="k",
            about="how many",
            schema={"type": "integer", "minimum": 1, "maximum": MAX_TOP, "default": DEFAULT_TOP},
            parse=_parse_k,
        ),
        Parameter(name="of", about="the sketch; without: violations"),
    ),
    errors=frozenset({404}),
    freshness=Freshness.AGING,
    positional=("k",),
    command=Command(
        name="top",
        example="top",
        help="the constraints with the most violated judgements, or the most frequent items of a tally",
        group="constraints",
        flags={
            "k": Flag("-k", type=parse_count, default=10, metavar="N", help="how many to show, 1 to 1000; default: 10"),
            "of": Flag("--of", default="violations", metavar="NAME", help="the tally to look at; default: violations"),
        },
        show=show_top,
    ),
)


async def _tally(node: "Node", request: CountItems) -> TallyReport:
    try:
        return await node.approximate.record(request.name, request.items)
    except ValueError as error:
        raise wrong(f"`items`: {error}", "items") from None


def _not_empty(name: str) -> str:
    if not name:
        raise UsageError("the name must not be empty")
    return name


def _count(client: "Client", flags: "Namespace") -> TallyReport:
    return client.tally(_not_empty(flags.of), {flags.item: flags.count})


def show_tally(answer: TallyReport, flags: "Namespace") -> str:
    """The counts, in a sentence."""
    return f"counted {answer.recorded} of {flags.item} in {answer.name}, {answer.total} in all"


TALLY: Final = Operation(
    name="tally",
    method=POST,
    path="/v1/sketches/{name:any_text}",
    right=Right.MEASURE,
    summary="Count items in a sketch.",
    about="Count items in a sketch: how often each occurred.",
    request=CountItems,
    response=TallyReport,
    run=_tally,
    body=Body(shape=Tallied),
    positional=("name", "items"),
    command=CompositeCommand(
        name="tally",
        example="tally max_speed",
        help="count an item, of any number of items, in little room",
        group="state",
        options={
            "item": Flag(metavar="ITEM"),
            "count": Flag("--count", type=parse_count, default=1, metavar="N", help="how often it occurred; default: 1"),
            "of": Flag("--of", default="items", metavar="NAME", help="the tally to count in; default: items"),
        },
        call=_count,
        show=show_tally,
    ),
)


async def _seen(node: "Node", request: LookUpItem) -> SeenReport:
    try:
        return node.approximate.seen(request.name, request.item)
    except KeyError:
        raise _nothing("filter", request.name, None) from None


def _look_up(client: "Client", flags: "Namespace") -> SeenReport | InsertReport:
    """Look for the item; with `--add`, insert the item as well."""
    if not flags.add and (flags.expect is not None or flags.fp_rate is not None):
        raise UsageError("--expect and --fp-rate are for a filter that begins: give --add with them")
    name = _not_empty(flags.name)
    if flags.add:
        return client.insert(name, [flags.item], expected_items=flags.expect, fp_rate=flags.fp_rate)
    return client.seen(name, flags.item)


def show_seen(answer: SeenReport | InsertReport, flags: "Namespace") -> str:
    """Whether the item is in the filter, or was before, in a sentence."""
    doubt = f" (wrong in {100 * answer.fpr:.2g} % of what is new)"
    if isinstance(answer, InsertReport):
        return f"{flags.item}: seen before{doubt}" if answer.new == 0 else f"{flags.item}: new, and put in"
    return f"{answer.item}: seen{doubt}" if answer.seen else f"{answer.item}: not seen"


SEEN: Final = Operation(
    name="seen",
    method=GET,
    path="/v1/seen/{name:any_text}",
    summary="Whether any node has seen an item.",
    request=LookUpItem,
    response=SeenReport,
    run=_seen,
    parameters=(Parameter(name="item", about="the item", required=True),),
    positional=("name", "item"),
    command=CompositeCommand(
        name="seen",
        example="seen jobs job-17",
        help="whether any node has seen an id before",
        group="state",
        options={
            "name": Flag(metavar="NAME", help="the filter to ask"),
            "item": Flag(metavar="ITEM"),
            "add": Flag("--add", action="store_true", help="put it in, too; the first one begins the filter"),
            "expect": Flag(
                "--expect", type=parse_count, metavar="N", help="items to expect, when the filter begins; default: 100000"
            ),
            "fp_rate": Flag(
                "--fp-rate", type=parse_share, metavar="SHARE", help="of wrong findings, when the filter begins; default: 0.01"
            ),
        },
        call=_look_up,
        show=show_seen,
    ),
)


async def _insert(node: "Node", request: InsertItems) -> InsertReport:
    return await node.approximate.insert(
        request.name, request.items, expected_items=request.expected_items, fp_rate=request.fp_rate
    )


INSERT: Final = Operation(
    name="insert",
    method=POST,
    path="/v1/seen/{name:any_text}",
    right=Right.MEASURE,
    summary="Put items into a Bloom filter.",
    about="Put items into a Bloom filter. The first insertion creates the filter.",
    request=InsertItems,
    response=InsertReport,
    run=_insert,
    body=Body(shape=Inserted),
    positional=("name", "items"),
)


def _nothing(kind: str, name: str, field: str | None) -> Problem:
    return not_found(f"there is no {kind} {name!r} yet: the first item put into it begins it", field)
