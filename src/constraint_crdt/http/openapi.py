"""What msgspec says of the structs, as the document says it: with their bounds, and with tuples that every tool reads.

Tools that know JSON Schema from before 2020 take `prefixItems` for something else (Schemathesis 4.32 refuses what it makes of it).
So a tuple is an array of a fixed length. Where its items are of different types, the schema says which there are, and in words in
which order.

The OpenAPI 3.1 document, made from the table of operations and from the structs that are sent and answered.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from constraint_crdt import __version__
from constraint_crdt.http.bounds import FIELDS, NAME, PART, PARTS_BELOW, STRUCTS
from constraint_crdt.http.operation import BYTES, JSON, TEXT, Answer, Body, Operation, Parameter, Schema
from constraint_crdt.http.problems import ProblemDetails
from constraint_crdt.http.security import Right
from constraint_crdt.model.events import Notice
from constraint_crdt.runtime.events import Event


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


PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"

ABOUT = """\
The HTTP API of one node of a fleet. Ask any node: each answers from what it knows.

Where the node has a file of tokens, send `Authorization: Bearer TOKEN`; a token allows reading, or reading and writing. What cannot
be served is answered with problem details (RFC 9457) that name the field at fault. A path that there is not is answered with 404, a
method that a path does not take with 405 and `Allow`. Answers with an `ETag` can be asked for with `If-None-Match`.

In the stream of events, the data of `event: state` is a `Notice`, that of `gap` and `dropped` an object with `missed` or `reason`,
and that of all others an `Event`.
"""

WHY: Mapping[int, str] = {
    400: "The request, or its body, is not well-formed.",
    401: "There is no token, or none that is known.",
    403: "The token allows reading only, or a page of another origin asks.",
    404: "What the request names is not there.",
    408: "The body stopped coming.",
    409: "It cannot be done as things are.",
    413: "The body is too large.",
    415: "The body is not said to be of the type that is taken.",
    421: "The request is for another host.",
    422: "A field or parameter is wrong.",
    429: "This client asks too often.",
    500: "The node failed; its log says more.",
    503: "Not at present: the disk takes no writes, or too many ask at once.",
}

_CONVERTOR = re.compile(r"\{(\w+):\w+\}")
_IN_PATH = re.compile(r"\{(\w+)\}")


def make_document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document, as what JSON is made of."""
    listed = list(operations)
    shapes = [ProblemDetails, Event, Notice]
    for operation in listed:
        shapes += [answer.shape for answer in operation.answers.values() if answer.shape is not None]
        if operation.body is not None and operation.body.shape is not None:
            shapes.append(operation.body.shape)
    made = msgspec.json.schema_components(shapes, schema_hook=_anything, ref_template="#/components/schemas/{name}")
    schemas, components = (plain_tuples(each) for each in made)
    schema_of = dict(zip(map(str, shapes), schemas, strict=True))
    add_bounds(components)
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        described = _operation(operation, schema_of)
        paths.setdefault(_CONVERTOR.sub(r"{\1}", operation.path), {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "constraint-crdt", "version": __version__, "summary": "One node of a fleet.", "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Where the node has a file of tokens."}
            },
        },
    }


def _anything(shape: type) -> dict[str, Any]:
    """A value of any kind."""
    if shape is object:
        return {"description": "any JSON"}
    raise NotImplementedError


def _operation(operation: Operation, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.group],
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation), *map(_parameter, operation.parameters)],
        "responses": {str(status): _answer(answer, operation, schema_of) for status, answer in operation.answers.items()},
    }
    if operation.freshness is not None:
        found["description"] = f"Has an `ETag` that is right {operation.freshness.value}."
        known = Parameter("if-none-match", "the `ETag` of the answer that is held", place="header")
        found["parameters"].append(_parameter(known))
        found["responses"]["304"] = {"description": "The answer that the client holds is still right."}
    for status in operation.statuses:
        schema = schema_of[str(ProblemDetails)]
        found["responses"][str(status)] = {"description": WHY[status], "content": {PROBLEM: {"schema": schema}}}
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.body, schema_of)}
    if operation.right is not Right.NONE:
        # Both ways: a node on loopback without a file of tokens asks for none.
        found["security"] = [{"token": [operation.right.name.lower()]}, {}]
    return found


def _answer(answer: Answer, operation: Operation, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if operation.freshness is not None:
        headers["etag"] = {"description": "For `If-None-Match`.", "schema": TEXT}
    if any(parameter.name == "after" for parameter in operation.parameters):
        headers["link"] = {"description": '`<…>; rel="next"` where there is a next page.', "schema": TEXT}
    described: dict[str, Any] = {"description": answer.about, "content": _content(answer, schema_of)}
    return {**described, "headers": headers} if headers else described


def _content(sent: Body | Answer, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    if sent.shape is not None:
        return {sent.media_type: {"schema": schema_of[str(sent.shape)]}}
    if isinstance(sent, Body) and sent.media_type == JSON:
        return {sent.media_type: {"schema": sent.schema}}
    return {sent.media_type: {} if sent.media_type in (BYTES, EVENTS) else {"schema": TEXT}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name, "in": parameter.place, "description": parameter.about, "required": parameter.required,
        "schema": parameter.schema,
    }  # fmt: skip


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    names = _IN_PATH.findall(_CONVERTOR.sub(r"{\1}", operation.path))
    schema = {**TEXT, **(PART if operation.path.startswith(PARTS_BELOW) else NAME)}
    return [{"name": name, "in": "path", "required": True, "schema": schema, "description": "percent-encoded"} for name in names]
