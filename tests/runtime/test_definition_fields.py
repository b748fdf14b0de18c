"""No field of a definition is lost where the fields are listed one by one: in additions, files and edits, and for people."""

from collections.abc import Callable
from typing import Any

import pytest

from constraint_crdt import Definition, GossipNode
from constraint_crdt.cli.files import _read_entry
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.insight.history import definition_texts
from constraint_crdt.model import IfUnknown, Mode, Scope, Severity
from constraint_crdt.operations.constraints import AddConstraint
from constraint_crdt.runtime.change_feed import definition_of
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import check_definition, edited

TEXTS: dict[str, Any] = {
    "when": "x < 1.0",
    "severity": Severity.CRITICAL,
    "about": "the rule of the house",
    "on": "site=x,zone in (a,b)",
    "clear_when": "x < 0.5",
    "if_unknown": IfUnknown.VIOLATED,
    "mode": Mode.AUDIT,
}
SECONDS: dict[str, Any] = {"for_": 5.0, "clear_after": 6.0, "max_age": 7.0}
ON_THE_FLEET = {"when": "count(nodes, n, n.x < 1.0) <= 1", "clear_when": "count(nodes, n, n.x < 1.0) < 1", "scope": Scope.FLEET}
OF_ONE_NODE, OF_THE_FLEET = TEXTS | {"each": "motor"}, TEXTS | ON_THE_FLEET
"""A constraint of scope fleet has no instances."""

DURATIONS: dict[str, Any] = {key: round(value * SECOND) for key, value in SECONDS.items()}
"""The same in ns."""

OF_LATER_VERSIONS = {"meaning", "unknown_fields"}
ENDS = {"expires_at"}
"""Reckoned from `ttl` or `until`."""


def definition(fields: dict[str, Any]) -> Definition:
    return check_definition(**fields, **DURATIONS)


def of_an_addition(fields: dict[str, Any]) -> Definition:
    return definition_of(AddConstraint(id="c", **fields, **SECONDS))


def of_a_file(fields: dict[str, Any]) -> Definition:
    durations = {key.rstrip("_"): f"{value:g}s" for key, value in SECONDS.items()}
    return _read_entry({"id": "c", **{key: str(value) for key, value in fields.items()}, **durations}, ())[1].definition


def of_an_edit(fields: dict[str, Any]) -> Definition:
    return edited(Definition(), {**fields, **SECONDS}, None)  # type: ignore[typeddict-item]  # the fields are those that it lists


def of_a_state(fields: dict[str, Any]) -> Definition:
    state = ConstraintState()
    state.constraints.add("c", node="a", **fields, **DURATIONS)
    return state.constraints.definitions("c")[0]


def of_a_node(fields: dict[str, Any]) -> Definition:
    node = GossipNode("a", now=lambda: SECOND)
    node.add_constraint("c", **fields, **SECONDS)
    return node.state.constraints.definitions("c")[0]


def test_the_definitions_of_this_test_have_all_fields() -> None:
    both = [definition(fields)._asdict() for fields in (OF_ONE_NODE, OF_THE_FLEET)]
    given = {key for each in both for key, value in each.items() if value != getattr(Definition(), key)}
    assert given == set(Definition._fields) - OF_LATER_VERSIONS - ENDS


@pytest.mark.parametrize("fields", [OF_ONE_NODE, OF_THE_FLEET], ids=["of one node", "of the fleet"])
@pytest.mark.parametrize("way", [of_an_addition, of_a_file, of_an_edit, of_a_state, of_a_node], ids=lambda way: way.__name__)
def test_each_field_of_a_definition_arrives(way: Callable[[dict[str, Any]], Definition], fields: dict[str, Any]) -> None:
    assert way(fields) == definition(fields)


@pytest.mark.parametrize("field", sorted({*Definition._fields} - {"unknown_fields"}))
def test_each_field_of_a_definition_is_told(field: str) -> None:
    others = definition(OF_ONE_NODE)._asdict() | definition(OF_THE_FLEET)._asdict() | {"expires_at": SECOND, "meaning": 9}
    others["each"] = "motor"
    plain = Definition(when="x < 2.0")
    assert definition_texts(plain._replace(**{field: others[field]})) != definition_texts(plain)
