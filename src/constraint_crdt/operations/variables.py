"""The operations on the variables that the nodes of the fleet measure, on the readings that they share, and on parameters.

Rules: of other nodes only the names and kinds are known, as told by the nodes themselves, and the last values of the variables that
they share. Other values, ages and readers are those of the node that answers. An id of a page is `NODE/NAME` for variables and
`NAME/NODE` for readings; names of variables have no slash.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from constraint_crdt.errors import UnknownName
from constraint_crdt.model import counted
from constraint_crdt.operations.constraints import LOOSEN, EditEffect, show_effect
from constraint_crdt.operations.operation import (
    DELETE,
    GET,
    PAGED,
    PUT,
    YES_NO,
    Body,
    Column,
    Command,
    Flag,
    Freshness,
    Operation,
    Paged,
    Parameter,
    Reply,
    Right,
    Table,
    UsageError,
    View,
    concatenated,
    not_found,
    parse_flag,
    parse_scalar,
    parse_selectors,
    show_time,
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
    """A variable that a node measures. The fields after `kind` are null or empty for other nodes than the answering node."""

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
        detail = f"no node {request.node!r} ever wrote, as far as is known here"
        raise not_found(detail, "node", name=request.node, known=node.node_names())
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
        example="variables",
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
    node: str | None = None


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
    page, following = request.page(node.reading_ids(name=request.name, node=request.node))
    return Reply(node.readings(page), next_after=following)


def joined_readings(pages: list[ReadingsReport]) -> ReadingsReport:
    """The pages of the readings, joined. A variable on two pages has its figures once."""
    fleet = {each.variable: each for page in pages for each in page.fleet}
    return ReadingsReport(readings=tuple(concatenated([list(each.readings) for each in pages])), fleet=tuple(fleet.values()))


def show_readings(answer: ReadingsReport, request: GetReadings, _: "Namespace") -> View:
    """A row for each reading, and a row for each variable, or a sentence without any."""
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
    parameters=(
        Parameter(name="name", about="only those of this variable"),
        Parameter(name="node", about="only those of this node"),
        *PAGED,
    ),
    freshness=Freshness.AGING,
    join=joined_readings,
    command=Command(
        name="readings",
        example="readings",
        help="the last values that the nodes share with the fleet, and their figures",
        group="constraints",
        flags={
            "name": Flag(nargs="?", metavar="VAR", help="the variable; default: all"),
            "node": Flag("--of", metavar="NODE", help="only those of this node"),
        },
        show=show_readings,
    ),
)

# --- parameters -------------------------------------------------------------------------------------------------------------


class ParameterValueReport(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a setting, and who set it."""

    value: float | str | bool
    set_by: str
    """The node."""
    set_at: int
    """ns since the epoch by the clock of that node."""
    actor: str | None = None
    """Who caused it, by the audit of that node; null if unknown."""


class SettingReport(msgspec.Struct, frozen=True, kw_only=True):
    """A setting of a parameter, for the nodes that a selector matches."""

    selector: str
    """Empty: all nodes."""
    value: float | str | bool | None
    """Null for several different values, set at the same time by several nodes: the parameter has none there then."""
    values: tuple[ParameterValueReport, ...]


class ParameterReport(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of the fleet."""

    name: str
    settings: tuple[SettingReport, ...]
    value: float | str | bool | None
    """On the node that answers; null without a value."""
    selector: str
    """That of the setting which counts there."""
    reason: str
    """Why it has no value there; else empty."""
    constraints: tuple[str, ...]
    """The active constraints that read it, by id."""


class GetParameters(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/parameters`."""

    name: str | None = None


class ParameterSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `PUT /v1/parameters/{name}`."""

    value: float | str | bool
    on: Mapping[str, str] | str | None = None
    """The labels of the nodes concerned, or the text of a selector; null: all nodes."""
    loosen: bool = False
    """Set it also where it loosens a critical constraint."""


class SetParameter(ParameterSetting, frozen=True, kw_only=True):
    """`PUT /v1/parameters/{name}`."""

    name: str


class UnsetParameter(msgspec.Struct, frozen=True, kw_only=True):
    """`DELETE /v1/parameters/{name}`."""

    name: str
    on: str | None = None
    loosen: bool = False
    """Remove it also where it loosens a critical constraint."""


class NodeParameter(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a parameter on a node before and after a change; null without a value."""

    node: str
    before: float | str | bool | None
    after: float | str | bool | None
    reason: str = ""
    """Why it has no value after; else empty."""


class ParameterChange(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of a setting, or of its removal, as far as the answering node knows the labels of the nodes."""

    name: str
    selector: str
    change: str
    """set, unset, unchanged."""
    nodes: tuple[NodeParameter, ...]
    """Nodes with another value now, at most 100."""
    changed_nodes: int
    """Their number."""
    constraints: tuple[str, ...]
    """The active constraints that read it on these nodes, by id."""
    effects: tuple[EditEffect, ...] = ()
    """What it means for these constraints, for at most 100 of them."""


async def _parameters(node: "Node", request: GetParameters) -> list[ParameterReport]:
    return node.parameters(request.name)


def show_parameters(answer: list[ParameterReport], request: GetParameters, _: "Namespace") -> View:
    """A row for each setting, or a sentence without any."""
    if not answer:
        return (
            f"no parameter {request.name} is set"
            if request.name
            else "no parameter is set: `constraint-crdt set NAME VALUE` sets one"
        )
    now = time.time()
    columns = [Column("parameter"), Column("on"), Column("value", right=True), Column("here"), Column("set by"), Column("read by")]
    rows: list[list[object]] = []
    for each in answer:
        for number, setting in enumerate(each.settings):
            counts = each.value is not None and setting.selector == each.selector
            by = [f"{value.actor or ''}{' on ' if value.actor else ''}{value.set_by}" for value in setting.values]
            told = " or ".join(show_scalar(value.value) for value in setting.values)
            since = show_time(max(value.set_at for value in setting.values), now)
            readers = "" if number else _readers(each.constraints)
            here = "counts" if counts else "conflict" if setting.value is None else "-"
            rows.append([each.name, setting.selector or "all nodes", told, here, f"{', '.join(by)}, {since}", readers])
    reasons = [f"{each.name}: {each.reason}" for each in answer if each.reason]
    return [Table(columns, rows), *reasons]


def _readers(constraints: Sequence[str]) -> str:
    more = len(constraints) - SHOWN_READERS
    return ", ".join(constraints[:SHOWN_READERS]) + (f" and {more} more" if more > 0 else "") or "-"


def show_scalar(value: float | str | bool | None) -> str:
    """A value of a parameter as a person writes it; `-` without a value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value is None else value if isinstance(value, str) else f"{value:.15g}"


PARAMETERS: Final = Operation(
    name="parameters",
    method=GET,
    path="/v1/parameters",
    summary="The parameters that constraints read.",
    about="The parameters that constraints read as `param.NAME`, with their settings, and the value on the node that answers.",
    request=GetParameters,
    response=list[ParameterReport],
    run=_parameters,
    parameters=(Parameter(name="name", about="only this one"),),
    freshness=Freshness.STATE,
    command=Command(
        name="params",
        example="params",
        help="the parameters that constraints read as param.NAME, for which nodes they are set, by whom",
        group="constraints",
        flags={"name": Flag(nargs="?", metavar="NAME", help="the parameter; default: all")},
        show=show_parameters,
    ),
)


def _parameter_value(text: str) -> object:
    """The value of a parameter. Raises `UsageError` for an empty value, as of an unset variable of a shell."""
    if not text:
        raise UsageError("VALUE is empty, as of an unset shell variable: give a number, true, false or a text")
    if text.lower() in ("true", "false") and text not in ("true", "false"):
        raise UsageError(f"{text} would be a text: write {text.lower()}, as CEL does")
    return parse_scalar(text)


async def _set(node: "Node", request: SetParameter) -> ParameterChange:
    return await node.set_parameter(request.name, request.value, request.on, loosen=request.loosen)


def show_change(answer: ParameterChange, _: Any, __: "Namespace") -> View:
    """The effect of a setting: the nodes by their values before and after, and the constraints."""
    where = f" on {answer.selector}" if answer.selector else ""
    if answer.change == "unchanged":
        return f"{answer.name}{where}: unchanged: it has this value"
    lines = [f"{answer.name}{where}: {answer.change}"]
    by_values: dict[tuple[str, str], list[str]] = {}
    for each in answer.nodes:
        by_values.setdefault((show_scalar(each.before), each.reason or show_scalar(each.after)), []).append(each.node)
    for (before, after), names in by_values.items():
        more = f" and {len(names) - SHOWN_NODES} more" if len(names) > SHOWN_NODES else ""
        lines.append(f"  {before} -> {after} on {', '.join(names[:SHOWN_NODES])}{more}")
    if answer.changed_nodes > len(answer.nodes):
        lines.append(f"  and on {counted(answer.changed_nodes - len(answer.nodes), 'more node')}")
    if not answer.changed_nodes:
        lines.append("  no known node has another value by it")
    readers = ", ".join(answer.constraints[:SHOWN_NODES])
    more = f" and {len(answer.constraints) - SHOWN_NODES} more" if len(answer.constraints) > SHOWN_NODES else ""
    lines.append(f"  read by {readers}{more}" if readers else "  no constraint reads it there")
    lines += [f"  {each.id}: {show_effect(each)}" for each in answer.effects[:SHOWN_NODES]]
    return lines


MOST_CHANGED: Final = 100
"""Nodes named in the effect of a change of a parameter."""

SHOWN_NODES: Final = 10
"""Nodes, or constraints, in a line of the command."""

_PARAMETER: Final = Flag(metavar="NAME", help="as in param.NAME")

SET_PARAMETER: Final = Operation(
    name="set_parameter",
    method=PUT,
    path="/v1/parameters/{name}",
    right=Right.OPERATE,
    summary="Give a parameter a value, on all nodes or on some.",
    about="Give a parameter a value, on all nodes or on those that `on` selects. Of several settings the most specific counts.",
    request=SetParameter,
    response=ParameterChange,
    run=_set,
    errors=frozenset({409}),
    body=Body(shape=ParameterSetting),
    positional=("name", "value"),
    command=Command(
        name="set", example="set speed_limit 0.8 --on zone=dock",
        help="give a parameter a value, and show which nodes and constraints that changes",
        group="constraints",
        flags={
            "name": _PARAMETER,
            "value": Flag(metavar="VALUE", convert=_parameter_value, help="a number, true, false, or a text"),
            "on": Flag(
                "--on", action="append", metavar="SELECTOR", convert=parse_selectors,
                help="only for nodes with these labels, as in 'zone=dock, !spare'; the most specific setting counts",
            ),
            "loosen": LOOSEN,
        },
        show=show_change,
    ),
)  # fmt: skip


async def _unset(node: "Node", request: UnsetParameter) -> ParameterChange:
    try:
        return await node.unset_parameter(request.name, request.on, loosen=request.loosen)
    except UnknownName as error:
        raise not_found(str(error), name=request.name, known=node.gossip.state.parameters) from None


UNSET_PARAMETER: Final = Operation(
    name="unset_parameter",
    method=DELETE,
    path="/v1/parameters/{name}",
    right=Right.OPERATE,
    summary="Remove a setting of a parameter.",
    about="Remove the setting of a parameter for this selector. Raises `NotFound` if none stands.",
    request=UnsetParameter,
    response=ParameterChange,
    run=_unset,
    parameters=(
        Parameter(name="on", about="the selector of the setting; default: that for all nodes"),
        Parameter(name="loosen", about="1: remove it also where it loosens a critical constraint", schema=YES_NO, parse=parse_flag),
    ),
    errors=frozenset({409}),
    positional=("name",),
    command=Command(
        name="unset",
        example="unset speed_limit --on zone=dock",
        help="remove a setting of a parameter, and show which nodes and constraints that changes",
        group="constraints",
        flags={
            "name": _PARAMETER,
            "on": Flag("--on", metavar="SELECTOR", help="of the setting; default: that for all nodes"),
            "loosen": LOOSEN,
        },
        show=show_change,
    ),
)
