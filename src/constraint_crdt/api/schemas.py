"""What msgspec says of the structs, as the document says it: with their bounds, and with tuples that every tool reads.

Tools that know JSON Schema from before 2020 take `prefixItems` for something else (Schemathesis 4.32 refuses what it makes of it).
So a tuple is an array of a fixed length. Where its items are of different types, the schema says which there are, and in words in
which order.
"""

from collections.abc import Mapping
from typing import Any

from constraint_crdt.api.bounds import FIELDS, STRUCTS
from constraint_crdt.api.operation import Schema


def plain_tuples(schema: Any) -> Any:
    """The same, without `prefixItems`, however deep."""
    if isinstance(schema, list | tuple):
        return [plain_tuples(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: plain_tuples(value) for key, value in schema.items()}
    items = found.pop("prefixItems", None)
    if items is None:
        return found
    kinds = [each for number, each in enumerate(items) if each not in items[:number]]
    if len(kinds) == 1:
        return {**found, "items": kinds[0]}
    order = ", ".join(each.get("type", "any") for each in items)
    return {**found, "items": {"anyOf": kinds}, "description": f"in this order: {order}"}


def add_bounds(components: Mapping[str, dict[str, Any]]) -> None:
    """Add to the schemas of the structs what `bounds` has of them."""
    for struct, bounds in FIELDS.items():
        properties = components[struct.__name__]["properties"]
        for field, bound in bounds.items():
            properties[field] = _bounded(properties[field], bound)
    for struct, bound in STRUCTS.items():
        components[struct.__name__].update(bound)


def _bounded(schema: dict[str, Any], bound: Schema) -> dict[str, Any]:
    """A schema with a bound, which goes into the parts that it names; where there may be null, it is for what is not."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [each if each == {"type": "null"} else _bounded(each, bound) for each in schema["anyOf"]]}
    found = dict(schema)
    for key, value in bound.items():
        inside = found.get(key)
        found[key] = _bounded(inside, value) if isinstance(inside, dict) and isinstance(value, Mapping) else value
    return found
