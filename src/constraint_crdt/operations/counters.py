"""The operations on the counters of a fleet that go up and down."""

from typing import TYPE_CHECKING, Final

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, WritesRefused
from constraint_crdt.operations.command import Column, Command, Table, View
from constraint_crdt.operations.operation import GET, POST, Body, Empty, Freshness, Operation, not_found, wrong

if TYPE_CHECKING:
    from argparse import Namespace

    from constraint_crdt.runtime.node import Node


class GetCounter(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/counters/{name}`."""

    name: str


class Moved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/counters/{name}`."""

    by: int = 1


class MoveCounter(Moved, frozen=True, kw_only=True):
    """A move, and of which counter."""

    name: str


class CounterReport(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a counter."""

    name: str
    value: int
    increments: int
    decrements: int
    by_node: dict[str, int]
    """The sum of moves per node."""


async def _counters(node: "Node", _: Empty) -> list[CounterReport]:
    return node.counters.reports()


def show_counters(answer: list[CounterReport], _: Empty, __: "Namespace") -> View:
    """A row for each counter."""
    columns = [Column("counter"), *(Column(title, right=True) for title in ("value", "up by", "down by", "nodes"))]
    return Table(columns, [[each.name, each.value, each.increments, each.decrements, len(each.by_node)] for each in answer])


COUNTERS: Final = Operation(
    name="counters",
    method=GET,
    path="/v1/counters",
    summary="The counters that were ever moved.",
    request=Empty,
    response=list[CounterReport],
    run=_counters,
    freshness=Freshness.STATE,
    command=Command(name="counters", help="the counters of the fleet", group="state", show=show_counters),
)


async def _counter(node: "Node", request: GetCounter) -> CounterReport:
    try:
        return node.counters.report(request.name)
    except KeyError:
        raise not_found(f"there is no counter {request.name!r} yet: the first move begins it") from None


COUNTER: Final = Operation(
    name="counter",
    method=GET,
    path="/v1/counters/{name:any_text}",
    summary="What a counter stands at.",
    request=GetCounter,
    response=CounterReport,
    run=_counter,
    freshness=Freshness.STATE,
)


async def _move(node: "Node", request: MoveCounter) -> CounterReport:
    try:
        return await node.counters.move(request.name, request.by)
    except WritesRefused:
        raise
    except ValueError as error:
        raise wrong(f"`by`: {error}", "by") from None
    except ConstraintCrdtError as error:
        raise wrong(str(error), None if error.field == "name" else "by") from None


MOVE_COUNTER: Final = Operation(
    name="move_counter",
    method=POST,
    path="/v1/counters/{name:any_text}",
    summary="Move it up or down.",
    about="Move a counter up, or down by a negative number.",
    request=MoveCounter,
    response=CounterReport,
    run=_move,
    body=Body(shape=Moved),
    positional=("name", "by"),
)
