"""The OpenAPI 3.1 document: from the list of operations, the structs of their requests and responses, and the bounds of fields.

Served at `/openapi.json`. Its page `/docs` loads nothing from other hosts and has no inline script or style.

Rules: a bound here repeats a check of the code, with the constant of that check; no number is written twice. Lengths are
counted in bytes of UTF-8 there and in characters in a schema, so `maxLength` is the number of characters of the longest valid
text, and the description gives bytes. Bounds are not in the structs themselves: `msgspec.Meta` has crashed CPython 3.11.

A tuple is an array of a fixed length, without `prefixItems`: tools for JSON Schema before 2020 misread that keyword
(Schemathesis 4.32 refuses the result). Where its items are of different types, the schema names them, and in words their order.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from constraint_crdt import __version__
from constraint_crdt.crdt.limits import (
    ABOUT_BYTES,
    COORDINATE_MAX,
    COORDINATE_MIN,
    DURATION_MAX,
    ID_BYTES,
    LABELS,
    MAX_COUNT,
    PAGE_BYTES,
    PAGES,
    SEPARATOR,
    TILE_BYTES,
    WHEN_BYTES,
)
from constraint_crdt.expression import MAX_VALUE_TEXT_BYTES, NAME_PATTERN
from constraint_crdt.http.endpoint import ProblemDetails
from constraint_crdt.model import Event, Notice, Scope
from constraint_crdt.operations.budgets import LONGEST_WAIT, Acquired, BudgetDefinition
from constraint_crdt.operations.constraints import (
    MAX_CHANGES,
    AddConstraint,
    Batch,
    BatchEntry,
    ConstraintEdit,
    Expression,
    NewConstraint,
    RecordCounts,
    RemoveConstraint,
)
from constraint_crdt.operations.counts import MAX_ITEMS, Counted, Given, Inserted, Measured, Tallied
from constraint_crdt.operations.fleet import Moved, Moving
from constraint_crdt.operations.nodes import Retiring
from constraint_crdt.operations.operation import (
    BYTES,
    JSON,
    REASON,
    TEXT,
    Answer,
    AnyOperation,
    Body,
    Empty,
    Parameter,
    Right,
    Schema,
)
from constraint_crdt.operations.tiles import EditedTile, NewTile
from constraint_crdt.operations.variables import ParameterSetting
from constraint_crdt.plato import (
    ANSWER_CHARACTERS,
    FNV_BITS,
    MS,
    PlatoAdd,
    PlatoChange,
    PlatoConstraints,
    PlatoCounter,
    PlatoDelta,
    PlatoMetrics,
    PlatoMove,
    PlatoPosition,
    PlatoRemove,
    PlatoSubmission,
    PlatoTile,
)
from constraint_crdt.runtime.measurement import MAX_VARIABLES
from constraint_crdt.state import FORMAT, VERSION
from constraint_crdt.types.budgets import AMOUNT_MAX, BUDGET_PATTERN, LEASE_MIN

# --- bounds -----------------------------------------------------------------------------------------------------------------


def _text(most: int, least: int = 0) -> Schema:
    bounds = {"maxLength": most, "description": f"at most {most} bytes of UTF-8"}
    return {**bounds, "minLength": least, "description": f"{least} to {most} bytes of UTF-8"} if least else bounds


def _numbers_by(name: Schema, most: int | None = None) -> Schema:
    """An object with counts by name."""
    found = {"propertyNames": name, "additionalProperties": COUNT}
    return found if most is None else {**found, "maxProperties": most}


def _exactly_one(kind: str, *names: str) -> Schema:
    """A nullable field counts as given only with a value."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": kind}}} for name in names]}


NAME: Final = _text(ID_BYTES, 1)
"""A constraint id, the name of a node, a tag, an item."""

PART: Final[Schema] = {
    **NAME, "pattern": f"^[^\\x{ord(SEPARATOR):02x}]*$",
    "description": f"{NAME['description']}, without the control character U+{ord(SEPARATOR):04X}",
}  # fmt: skip
"""A part of a longer key: a room, the id of a tile, the name of a sketch."""

BUDGET: Final[Schema] = {
    **NAME, "pattern": BUDGET_PATTERN,
    "description": f"{NAME['description']}, without control characters, a space at its ends, and a - at its begin",
}  # fmt: skip

PARTS_BELOW: Final = ("/v1/tiles/", "/v1/sketches/", "/v1/seen/", "/room/", "/plato/room/")
"""The paths with such parameters. Other paths have a `NAME`."""

NAMES: Final[Schema] = {"items": NAME}
COUNT: Final[Schema] = {"minimum": 0, "maximum": MAX_COUNT}
TIME_IN_MS: Final[Schema] = {"minimum": 0, "maximum": MAX_COUNT // MS}
COORDINATES: Final[Schema] = {"items": {"minimum": COORDINATE_MIN, "maximum": COORDINATE_MAX}}

_DURATION: Final[Schema] = {"minimum": 0, "maximum": DURATION_MAX}

_DEFINITION: Final[Mapping[str, Schema]] = {
    "id": NAME,
    "when": {**_text(WHEN_BYTES), "description": f"an expression in CEL, of at most {WHEN_BYTES} bytes of UTF-8"},
    "about": _text(ABOUT_BYTES),
    "on": {"maxProperties": LABELS, "propertyNames": NAME, "additionalProperties": NAME},
    "ttl": {"exclusiveMinimum": 0, "maximum": DURATION_MAX, "description": "seconds; not with `until`"},
    "until": {"format": "date-time", "description": "a moment to come; not with `ttl`"},
    "for": {**_DURATION, "description": "seconds; needs a `when`, as the fields below"},
    "clear_after": {**_DURATION, "description": "seconds"},
    "clear_when": {**_text(WHEN_BYTES), "description": f"an expression in CEL, of at most {WHEN_BYTES} bytes of UTF-8"},
    "max_age": {"exclusiveMinimum": 0, "maximum": DURATION_MAX, "description": "seconds"},
}
_COUNTED: Final[Mapping[str, Schema]] = {"satisfied": COUNT, "violations": COUNT, "constraint": NAME}
_VARIABLE: Final[Schema] = {**NAME, "pattern": NAME_PATTERN}
_MEASUREMENT: Final[Schema] = {
    "type": ["boolean", "number", "string", "array", "object", "null"], "maxLength": MAX_VALUE_TEXT_BYTES,
    "description": f"a text has at most {MAX_VALUE_TEXT_BYTES} bytes of UTF-8; null withdraws the variable",
}  # fmt: skip
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_TAGS: Final[Schema] = {"items": {"description": f"a node ({NAME['description']}), then the number of its add (from 0)"}}

FIELDS: Final[Mapping[type[msgspec.Struct], Mapping[str, Schema]]] = {
    NewConstraint: _DEFINITION,
    AddConstraint: _DEFINITION,
    ConstraintEdit: {key: value for key, value in _DEFINITION.items() if key != "id"},
    RemoveConstraint: {"id": NAME},
    Counted: _COUNTED,
    RecordCounts: _COUNTED,
    Given: {"values": {"propertyNames": {"pattern": NAME_PATTERN}}},
    Measured: {"values": {"maxProperties": MAX_VARIABLES, "propertyNames": _VARIABLE, "additionalProperties": _MEASUREMENT}},
    Retiring: {"node": NAME},
    Batch: {"changes": {"maxItems": MAX_CHANGES}},
    Expression: {"scope": {"enum": [each.value for each in Scope]}},
    NewTile: {
        "text": _text(TILE_BYTES), "base64": {"contentEncoding": "base64", "pattern": _BASE64},
        "author": _text(ID_BYTES), "tags": NAMES, "constraints": NAMES,
    },
    EditedTile: {"add_tags": NAMES, "add_constraints": NAMES},
    ParameterSetting: {"on": _DEFINITION["on"]},
    Moved: {"by": {"minimum": -MAX_COUNT, "maximum": MAX_COUNT, "not": {"const": 0}}},
    Moving: {"position": COORDINATES},
    BudgetDefinition: {
        "limit": {"minimum": 0, "maximum": AMOUNT_MAX}, "nodes": NAMES, "gone": NAMES,
        "lease": {"anyOf": [{"const": 0}, {"minimum": LEASE_MIN, "maximum": DURATION_MAX}], "description": "seconds; 0: none"},
    },
    Acquired: {"amount": {"minimum": 1, "maximum": AMOUNT_MAX}, "wait": {"minimum": 0, "maximum": LONGEST_WAIT}},
    Tallied: {"items": _numbers_by(NAME, MAX_ITEMS)},
    Inserted: {
        "items": {"maxItems": MAX_ITEMS}, "expected_items": {"minimum": 1, "maximum": PAGES * PAGE_BYTES * 8},
        "fp_rate": {"exclusiveMinimum": 0, "exclusiveMaximum": 1},
    },
    PlatoTile: {
        "id": PART, "room": PART, "content": _text(TILE_BYTES), "tags": NAMES, "author": _text(ID_BYTES),
        "created_at": TIME_IN_MS, "updated_at": TIME_IN_MS,
        "content_hash": {"minimum": 0, "maximum": FNV_BITS, "description": "FNV-1a of the content, 64 bits"},
    },
    PlatoSubmission: {
        "question": {"minLength": 1}, "answer": {"minLength": ANSWER_CHARACTERS}, "tags": NAMES,
        "room": _text(ID_BYTES), "domain": _text(ID_BYTES), "agent": _text(ID_BYTES), "source": _text(ID_BYTES),
        "confidence": {"minimum": 0, "maximum": 1},
        "timestamp": {**TIME_IN_MS, "description": "ms since the epoch, at most a day ahead; seconds below 10^11"},
    },
    PlatoConstraints: {
        "elements": {"propertyNames": NAME, "additionalProperties": _TAGS}, "tombstones": _TAGS, "seq": _numbers_by(NAME),
    },
    PlatoMetrics: {"counts": _numbers_by(NAME), "violations": _numbers_by(NAME)},
    PlatoPosition: {"position": COORDINATES, "timestamp": COUNT, "node": NAME},
    PlatoDelta: {"node": PART, "seq": COUNT},
    PlatoCounter: {"node": PART, "satisfied_delta": COUNT, "violations_delta": COUNT, "seq": COUNT},
    PlatoAdd: {"constraint_id": NAME, "node": NAME, "seq": COUNT},
    PlatoRemove: {"constraint_id": NAME, "tombstoned_tags": _TAGS, "seq": COUNT},
    PlatoMove: {"position": COORDINATES, "node": NAME, "seq": COUNT},
}  # fmt: skip
"""The bounds of a field beside its type. Null stays allowed for a nullable field."""

STRUCTS: Final[Mapping[type[msgspec.Struct], Schema]] = {
    BatchEntry: _exactly_one("object", "add", "remove", "record"),
    NewTile: _exactly_one("string", "text", "base64"),
    PlatoChange: _exactly_one("object", "Add", "Remove"),
}
"""The bounds over several fields."""

STATE_FILE: Final[Schema] = {
    "type": "object", "required": ["format", "version", "hash", "checksum", "rows"],
    "description": "What `GET /v1/export` gives, with the checksum and the hash of its rows.",
    "properties": {
        "format": {"const": FORMAT}, "version": {"type": "integer", "minimum": 1, "maximum": VERSION},
        "hash": {"type": "string"}, "checksum": {"type": "string"}, "rows": {"type": "array", "items": {"type": "object"}},
    },
}  # fmt: skip
"""The body of an import."""

# --- the document -----------------------------------------------------------------------------------------------------------


def plain_tuples(schema: Any) -> Any:
    """The same schema without `prefixItems`, at any depth."""
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
    """Add to the schemas of the structs the bounds of their fields."""
    for struct, bounds in FIELDS.items():
        properties = components[struct.__name__]["properties"]
        for field, bound in bounds.items():
            properties[field] = _bounded(properties[field], bound)
    for struct, bound in STRUCTS.items():
        components[struct.__name__].update(bound)


def _bounded(schema: dict[str, Any], bound: Schema) -> dict[str, Any]:
    """A schema with a bound, merged into the nested schemas; null stays allowed."""
    if "anyOf" in schema:
        kept = ("null", "string") if "maxProperties" in bound else ("null",)  # the text of a selector, where its labels are bounded
        return {**schema, "anyOf": [each if each.get("type") in kept else _bounded(each, bound) for each in schema["anyOf"]]}
    found = dict(schema)
    for key, value in bound.items():
        inside = found.get(key)
        found[key] = _bounded(inside, value) if isinstance(inside, dict) and isinstance(value, Mapping) else value
    return found


PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"

ABOUT = """\
The HTTP API of one node of a fleet. Ask any node: each answers from what it knows.

Where the node has a file of tokens, send `Authorization: Bearer TOKEN`. The role of a token is read, measure or operate; each
includes the ones before, and an operation names the role that it needs (`POST /v1/batch`: operate, where it changes constraints).
What cannot be served is answered with problem details (RFC 9457) that name the field at fault. A path that there is not is answered
with 404, a method that a path does not take with 405 and `Allow`. Answers with an `ETag` can be asked for with `If-None-Match`.

In the stream of events, the data of `event: state` is a `Notice`, that of `gap` and `dropped` an object with `missed` or `reason`,
and that of all others an `Event`.
"""

WHY: Mapping[int, str] = {
    400: "The request, or its body, is not well-formed.",
    401: "There is no token, or none that is known, or it has ended.",
    403: "The role of the token, or of this node in its fleet, is too small; or a page of another origin asks.",
    404: "What the request names is not there.",
    408: "The body stopped coming.",
    409: "It cannot be done as things are.",
    413: "The body is too large.",
    415: "The body is not said to be of the type that is taken.",
    421: "The request is for another host.",
    422: "A field or parameter is wrong.",
    429: "This client asks too often.",
    500: "The node failed; its log says more.",
    503: "Not at present: the disk takes no writes, or too many ask or are connected at once.",
}

_CONVERTOR = re.compile(r"\{(\w+):\w+\}")
_IN_PATH = re.compile(r"\{(\w+)\}")


def make_document(operations: Iterable[AnyOperation]) -> dict[str, Any]:
    """The document, as builtin types."""
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


def _operation(operation: AnyOperation, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.group],
        "summary": operation.summary,
        "parameters": [
            *_path_parameters(operation),
            *map(_parameter, [*operation.parameters, *([REASON] if operation.takes_why else [])]),
        ],
        "responses": {str(status): _answer(answer, operation, schema_of) for status, answer in operation.answers.items()},
    }
    if operation.freshness is not None:
        found["description"] = f"Has an `ETag` that is right {operation.freshness.value}."
        known = Parameter(name="if-none-match", about="the `ETag` of the answer that is held", place="header")
        found["parameters"].append(_parameter(known))
        found["responses"]["304"] = {"description": "The answer that the client holds is still right."}
    for status in operation.statuses:
        schema = schema_of[str(ProblemDetails)]
        found["responses"][str(status)] = {"description": WHY[status], "content": {PROBLEM: {"schema": schema}}}
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.body, schema_of)}
    if operation.needs is not Right.NONE:
        # Both ways: a node on loopback without a file of tokens asks for none.
        found["security"] = [{"token": [operation.needs.name.lower()]}, {}]
    return found


def _answer(answer: Answer, operation: AnyOperation, schema_of: Mapping[str, Any]) -> dict[str, Any]:
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
        return {sent.media_type: {"schema": STATE_FILE}}
    return {sent.media_type: {} if sent.media_type in (BYTES, EVENTS) else {"schema": TEXT}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name, "in": parameter.place, "description": parameter.about, "required": parameter.required,
        "schema": parameter.schema,
    }  # fmt: skip


def _path_parameters(operation: AnyOperation) -> list[dict[str, Any]]:
    names = _IN_PATH.findall(_CONVERTOR.sub(r"{\1}", operation.path))
    named = BUDGET if operation.path.startswith("/v1/budgets/") else NAME
    schema = {**TEXT, **(PART if operation.path.startswith(PARTS_BELOW) else named)}
    return [{"name": name, "in": "path", "required": True, "schema": schema, "description": "percent-encoded"} for name in names]


# --- the document and its page --------------------------------------------------------------------------------------------

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_PARTS: Final = {"docs.js": "text/javascript", "docs.css": "text/css"}


async def openapi(_: Empty, request: Request) -> Response:
    """`GET /openapi.json`."""
    document: bytes = request.app.state.document()
    return Response(document, media_type="application/json", headers=_HEADERS)


async def docs(_: Empty, __: Request) -> Response:
    """`GET /docs`."""
    return Response(_file("docs.html"), media_type="text/html", headers=_HEADERS)


def parts_of_docs() -> list[Route]:
    """The routes of the files of the page."""
    return [_part(name, media_type) for name, media_type in _PARTS.items()]


def _part(name: str, media_type: str) -> Route:
    content = _file(name)

    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(f"/docs/{name}", serve, methods=["GET"], name=name)


def _file(name: str) -> bytes:
    return Path(__file__).with_name("static").joinpath(name).read_bytes()
