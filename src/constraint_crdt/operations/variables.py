"""The operations on the variables that the nodes of the fleet measure, and on the readings that they share.

Rules: of other nodes only the names and kinds are known, as told by the nodes themselves, and the last values of the variables that
they share. Other values, ages and readers are those of the node that answers. An id of a page is `NODE/NAME` for variables and
`NAME/NODE` for readings; names of variables have no slash.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.operations.command import Column, Command, Flag, Table, View
from constraint_crdt.operations.operation import (
    GET,
    PAGED,
    Freshness,
    Operation,
    Paged,
    Parameter,
    Reply,
    concatenated,
    not_found,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.runtime.node import Node

MOST_READERS: Final = 100
"""The constraints named for a variable. Further constraints are counted."""

SHOWN_READERS: Final = 3
"""The constraints named in a row of the command."""


class GetVariables(Paged, frozen=True, kw_only=True):
    """`GET /v1/variables`."""

    node: str | None = None
    name: str | None = None


class VariableReport(msgspec.Struct, frozen=True, kw_only=True):
    """A variable that a node measures. The fields after `kind` are null or empty for other nodes than the one that answers."""

    node: str
    name: str
    kind: str
    """double, string, bool, list, map; mixed for several or other kinds."""
    value: str | None = None
    """The last value as JSON, cut to 256 bytes."""
    age: float | None = None
    """Seconds since the value was measured."""
    max_age: float | None = None
    """Seconds for which the value counts, without a `max_age` of a definition."""
    aged: bool | None = None
    """True if the value is older, so constraints without a `max_age` of their own read it as missing."""
    source: str | None = None
    """The name of a probe or a source, or `program` for a value posted by a program."""
    constraints: tuple[str, ...] = ()
    """The active constraints evaluated here that read the variable, windows included; the first 100 by id."""
    readers: int | None = None
    """The number of these constraints."""


async def _variables(node: "Node", request: GetVariables) -> Reply[list[VariableReport]]:
    if request.node is not None and request.node not in node.node_names():
        raise not_found(f"no node {request.node!r} ever wrote, as far as is known here", "node")
    page, following = request.page(node.variable_ids(node=request.node, name=request.name))
    return Reply(node.variables(page), next_after=following)


def show_variables(answer: list[VariableReport], request: GetVariables, _: "Namespace") -> View:
    """A row for each variable of a node, or a sentence without any."""
    if not answer:
        named = "" if request.name is None else f" {request.name}"
        return f"no variable{named} is measured by {request.node or 'any node'}, as far as is known here"
    columns = [
        Column("node"),
        Column("variable"),
        Column("kind"),
        Column("value", right=True),
        Column("age", right=True),
        Column("max age", right=True),
        Column("source"),
        Column("read by"),
    ]
    return Table(columns, [_row(each) for each in answer])


def _row(each: VariableReport) -> list[object]:
    if each.age is None or each.max_age is None:
        return [each.node, each.name, each.kind, "-", "-", "-", "-", "-"]
    named = ", ".join(each.constraints[:SHOWN_READERS])
    more = (each.readers or 0) - min(len(each.constraints), SHOWN_READERS)
    age = f"{each.age:.1f} s" + (", aged" if each.aged else "")
    readers = f"{named} and {more} more" if more > 0 else named
    return [each.node, each.name, each.kind, each.value, age, f"{each.max_age:g} s", each.source, readers or "no constraint"]


VARIABLES: Final = Operation(
    name="variables",
    method=GET,
    path="/v1/variables",
    summary="The variables that the nodes measure.",
    about="The variables that the nodes measure; those of the answering node with value, age, source and readers.",
    request=GetVariables,
    response=list[VariableReport],
    run=_variables,
    parameters=(
        Parameter(name="node", about="only those of this node"),
        Parameter(name="name", about="only the variable of this name"),
        *PAGED,
    ),
    errors=frozenset({404}),
    freshness=Freshness.MEASURED_AGING,
    join=concatenated,
    command=Command(
        name="variables",
        help="the variables that the nodes measure, and the constraints that read them",
        group="constraints",
        flags={
            "name": Flag(nargs="?", metavar="NAME", help="the variable; default: all"),
            "node": Flag("--of", metavar="NODE", help="only those of this node"),
        },
        show=show_variables,
    ),
)

# --- readings ---------------------------------------------------------------------------------------------------------------


class GetReadings(Paged, frozen=True, kw_only=True):
    """`GET /v1/readings`."""

    name: str | None = None


class ReadingReport(msgspec.Struct, frozen=True, kw_only=True):
    """The last value of a variable that a node shared."""

    variable: str
    node: str
    value: float | str | bool | None
    """Null for NaN and the infinities, which JSON does not have."""
    age: float
    """Seconds since the measurement, in hybrid time."""
    aged: bool
    """True if the value is older than three times `every`: it counts as missing."""
    every: float
    """The longest time between two values told, in seconds, while the variable is measured."""
    live: bool
    """The node is live. If not, this is the last that it said."""


class FleetFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The readings of a variable together, aged ones left out. The figures are null without a number."""

    variable: str
    read: int
    """Nodes with a reading that counts."""
    nodes: int
    """Nodes in service."""
    minimum: float | None
    median: float | None
    maximum: float | None
    sum: float | None


class ReadingsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Shared readings, ordered by variable and node."""

    readings: tuple[ReadingReport, ...]
    fleet: tuple[FleetFigures, ...]
    """Of each variable among the readings, over all nodes."""


async def _readings(node: "Node", request: GetReadings) -> Reply[ReadingsReport]:
    page, following = request.page(node.reading_ids(name=request.name))
    return Reply(node.readings(page), next_after=following)


def joined_readings(pages: list[ReadingsReport]) -> ReadingsReport:
    """The pages of the readings, joined. A variable on two pages has its figures once."""
    fleet = {each.variable: each for page in pages for each in page.fleet}
    return ReadingsReport(readings=tuple(concatenated([list(each.readings) for each in pages])), fleet=tuple(fleet.values()))


def show_readings(answer: ReadingsReport, request: GetReadings, _: "Namespace") -> View:
    """A row for each reading, and one for each variable, or a sentence without any."""
    if not answer.readings:
        named = "" if request.name is None else f" of {request.name}"
        return f"no node shares a reading{named}: `share` in its settings or a constraint of scope fleet has it share one"
    columns = [
        Column("variable"), Column("node"), Column("value", right=True), Column("age", right=True), Column("every", right=True),
        Column("live"),
    ]  # fmt: skip
    rows = [
        [each.variable, each.node, _shown(each.value), f"{each.age:.1f} s" + (", aged" if each.aged else ""), f"{each.every:g} s",
         "yes" if each.live else "no"]
        for each in answer.readings
    ]  # fmt: skip
    titles = ("minimum", "median", "maximum", "sum")
    fleet = [Column("variable"), Column("read", right=True), *(Column(title, right=True) for title in titles)]
    figures = [
        [each.variable, f"{each.read} of {each.nodes}", *map(_shown, (each.minimum, each.median, each.maximum, each.sum))]
        for each in answer.fleet
    ]
    return [Table(columns, rows), Table(fleet, figures)]


def _shown(value: float | str | bool | None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else value if isinstance(value, str) else f"{value:.6g}"


READINGS: Final = Operation(
    name="readings",
    method=GET,
    path="/v1/readings",
    summary="The readings that the nodes share.",
    about="The readings that the nodes share, with their ages, and the figures of each variable over the fleet.",
    request=GetReadings,
    response=ReadingsReport,
    run=_readings,
    parameters=(Parameter(name="name", about="only those of this variable"), *PAGED),
    freshness=Freshness.AGING,
    join=joined_readings,
    command=Command(
        name="readings",
        help="the last values that the nodes share with the fleet, and their figures",
        group="constraints",
        flags={"name": Flag(nargs="?", metavar="VAR", help="the variable; default: all")},
        show=show_readings,
    ),
)
