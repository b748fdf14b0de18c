"""The operation on the variables that the nodes of the fleet measure.

Rules: of other nodes only the names and kinds are known, as told by the nodes themselves. Values, ages and readers are those of the
node that answers. An id of a page is `NODE/NAME`; names have no slash.
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
    """The name of a probe, or `program` for a value posted by a program."""
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
