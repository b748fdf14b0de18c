"""The bounds of what is sent, as JSON Schema: by struct and field, for the document.

Rules: a bound here repeats what the code enforces, with the constant that it enforces it with; a number is never written twice.
Lengths are counted in bytes of UTF-8 there and in characters in a schema, so `maxLength` is the most characters that can do, and
the description says bytes. They are not in the structs themselves: `msgspec.Meta` has crashed CPython 3.11.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from constraint_crdt.crdt.cells import SEPARATOR
from constraint_crdt.crdt.limits import (
    ABOUT_BYTES,
    DURATION_MAX,
    ID_BYTES,
    LABELS,
    MAX_COUNT,
    PAGE_BYTES,
    PAGES,
    TILE_BYTES,
    WHEN_BYTES,
)
from constraint_crdt.http.approximate import Inserted, Tallied
from constraint_crdt.http.bodies import Batch, BatchEntry, Counted, Measured, NewConstraint, Retiring
from constraint_crdt.http.counters import Moved
from constraint_crdt.http.operation import Schema
from constraint_crdt.http.position import Moving
from constraint_crdt.http.tiles import EditedTile, NewTile
from constraint_crdt.plato.shapes import (
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
    PlatoTile,
)
from constraint_crdt.runtime.batches import MAX_CHANGES, AddConstraint, RecordCounts, RemoveConstraint
from constraint_crdt.runtime.evaluation import MAX_TEXT_BYTES, MAX_VARIABLES
from constraint_crdt.runtime.sketches import MAX_ITEMS
from constraint_crdt.state_file import FORMAT, VERSION
from constraint_crdt.types.decay import HALF_LIFE_MIN
from constraint_crdt.types.register import COORDINATE_MAX, COORDINATE_MIN


def _text(most: int, least: int = 0) -> Schema:
    bounds = {"maxLength": most, "description": f"at most {most} bytes of UTF-8"}
    return {**bounds, "minLength": least, "description": f"{least} to {most} bytes of UTF-8"} if least else bounds


def _numbers_by(name: Schema, most: int | None = None) -> Schema:
    """An object with counts by name."""
    found = {"propertyNames": name, "additionalProperties": COUNT}
    return found if most is None else {**found, "maxProperties": most}


def _exactly_one(kind: str, *names: str) -> Schema:
    """A field that may be null counts as given only with a value."""
    return {"oneOf": [{"required": [name], "properties": {name: {"type": kind}}} for name in names]}


NAME: Final = _text(ID_BYTES, 1)
"""A constraint id, the name of a node, a tag, an item."""

PART: Final[Schema] = {
    **NAME, "pattern": f"^[^\\x{ord(SEPARATOR):02x}]*$",
    "description": f"{NAME['description']}, without the control character U+{ord(SEPARATOR):04X}",
}  # fmt: skip
"""What is a part of a longer key: a room, the id of a tile, the name of a sketch."""

PARTS_BELOW: Final = ("/v1/tiles/", "/v1/sketches/", "/v1/seen/", "/room/")
"""The paths whose parameters are such. Those of others are each a `NAME`."""

NAMES: Final[Schema] = {"items": NAME}
COUNT: Final[Schema] = {"minimum": 0, "maximum": MAX_COUNT}
TIME_IN_MS: Final[Schema] = {"minimum": 0, "maximum": MAX_COUNT // MS}
COORDINATES: Final[Schema] = {"items": {"minimum": COORDINATE_MIN, "maximum": COORDINATE_MAX}}
HALF_LIFE: Final[Schema] = {"minimum": HALF_LIFE_MIN, "maximum": DURATION_MAX}

_DEFINITION: Final[Mapping[str, Schema]] = {
    "id": NAME,
    "when": {**_text(WHEN_BYTES), "description": f"an expression in CEL, of at most {WHEN_BYTES} bytes of UTF-8"},
    "about": _text(ABOUT_BYTES),
    "on": {"maxProperties": LABELS, "propertyNames": NAME, "additionalProperties": NAME},
    "ttl": {"exclusiveMinimum": 0, "maximum": DURATION_MAX, "description": "seconds; not with `until`"},
    "until": {"format": "date-time", "description": "a moment to come; not with `ttl`"},
}
_COUNTED: Final[Mapping[str, Schema]] = {"satisfied": COUNT, "violations": COUNT, "constraint": NAME}
_MEASUREMENT: Final[Schema] = {
    "type": ["boolean", "number", "string", "array", "object"], "maxLength": MAX_TEXT_BYTES,
    "description": f"a text has at most {MAX_TEXT_BYTES} bytes of UTF-8",
}  # fmt: skip
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_TAGS: Final[Schema] = {"items": {"description": f"a node ({NAME['description']}), then the number of its add (from 0)"}}

FIELDS: Final[Mapping[type[msgspec.Struct], Mapping[str, Schema]]] = {
    NewConstraint: _DEFINITION,
    AddConstraint: _DEFINITION,
    RemoveConstraint: {"id": NAME},
    Counted: _COUNTED,
    RecordCounts: _COUNTED,
    Measured: {"values": {"maxProperties": MAX_VARIABLES, "propertyNames": NAME, "additionalProperties": _MEASUREMENT}},
    Retiring: {"node": NAME},
    Batch: {"changes": {"maxItems": MAX_CHANGES}},
    NewTile: {
        "text": _text(TILE_BYTES), "base64": {"contentEncoding": "base64", "pattern": _BASE64},
        "author": _text(ID_BYTES), "tags": NAMES, "constraints": NAMES,
    },
    EditedTile: {"add_tags": NAMES, "add_constraints": NAMES},
    Moved: {"by": {"minimum": -MAX_COUNT, "maximum": MAX_COUNT, "not": {"const": 0}}},
    Moving: {"position": COORDINATES},
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
"""What a field has beside its type. Where it may be null, this is for what is not."""

STRUCTS: Final[Mapping[type[msgspec.Struct], Schema]] = {
    BatchEntry: _exactly_one("object", "add", "remove", "record"),
    NewTile: _exactly_one("string", "text", "base64"),
    PlatoChange: _exactly_one("object", "Add", "Remove"),
}
"""What holds of several fields together."""

STATE_FILE: Final[Schema] = {
    "type": "object", "required": ["format", "version", "hash", "checksum", "rows"],
    "description": "What `GET /v1/export` gives, with the checksum and the hash of its rows.",
    "properties": {
        "format": {"const": FORMAT}, "version": {"type": "integer", "minimum": 1, "maximum": VERSION},
        "hash": {"type": "string"}, "checksum": {"type": "string"}, "rows": {"type": "array", "items": {"type": "object"}},
    },
}  # fmt: skip
