"""The operation that a guard follows: whether constraints hold on a node, and from when on they do not.

Rules: only constraints of mode enforce that apply to the node and are not disabled bind a guard. A pending constraint holds; a
clearing constraint is violated. Without a judgement a constraint is unknown. A named constraint that is not active binds nothing,
and is told as missing.
"""

from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec

from constraint_crdt.operations.operation import GET, TEXT, Operation, Parameter, Right

if TYPE_CHECKING:
    from constraint_crdt.runtime.node import Node

MOST_GUARDED: Final = 1_000
"""Constraints that a guard follows."""

MOST_REASONS: Final = 10
"""Reasons in a report."""

LONGEST_WAIT: Final = 60.0
"""Seconds that a request waits for a change, at most."""

Standing: TypeAlias = Literal["holds", "violated", "unknown"]
"""Whether all guarded constraints hold; `unknown` without a violation."""

_STANDINGS: Final = get_args(Standing)


class GetGuard(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/guard`."""

    id: tuple[str, ...] = ()
    unless: str | None = None
    """The standing known already: the answer waits for another standing."""
    wait: float = 0.0
    """Seconds."""


class GuardReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the guarded constraints hold on this node."""

    standing: Standing
    reasons: tuple[str, ...] = ()
    """For each violated or undecided constraint, the violated first: its id, values and margin, or missing values; 10 at most."""
    constraints: int = 0
    """The constraints that bind the guard here."""
    missing: tuple[str, ...] = ()
    """The named constraints that are not active."""


async def _guard(node: "Node", request: GetGuard) -> GuardReport:
    return await node.guards.report(request.id, unless=request.unless, wait=request.wait)


def _parse_standing(text: str) -> str:
    if text not in _STANDINGS:
        raise ValueError(f"must be one of {', '.join(_STANDINGS)}, not {text!r}")
    return text


def _parse_wait(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_WAIT:
        raise ValueError(f"must be a number of seconds from 0 to {LONGEST_WAIT:g}, not {text!r}")
    return seconds


GUARD_REPORT: Final = Operation(
    name="guard_report",
    method=GET,
    path="/v1/guard",
    right=Right.READ,
    summary="Whether constraints hold on this node.",
    about="Whether constraints hold on this node. `unless`: answer on another standing, or after `wait` seconds (60 at most).",
    request=GetGuard,
    response=GuardReport,
    run=_guard,
    parameters=(
        Parameter(
            name="id",
            about="these constraints; without any, all critical ones",
            schema={"type": "array", "items": TEXT, "maxItems": MOST_GUARDED},
            many=True,
        ),
        Parameter(
            name="unless", about="the standing known already", schema={**TEXT, "enum": list(_STANDINGS)}, parse=_parse_standing
        ),
        Parameter(
            name="wait",
            about="how many seconds to wait for another standing",
            schema={"type": "number", "minimum": 0, "maximum": LONGEST_WAIT},
            parse=_parse_wait,
        ),
    ),
    patience=lambda request: request.wait,
)
