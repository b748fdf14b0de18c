"""Reading the JSON of the contract: what is wrong is named by its path, and what is more than asked for is ignored."""

import json
from typing import Any

import msgspec
import pytest

from constraint_crdt.plato import PlatoFieldError, fnv1a, read_delta, read_tile, signed_norm

from .tiles import delta_json, tile_json

MOST = 2**63 - 1
ROOM = "fleet-ops"


def put(made: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """`made` with something else at a path, or without it if that is `...`."""
    made = json.loads(json.dumps(made))
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place: Any = made
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    elif isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)]
)
def test_the_content_hash_is_fnv_1a(content: bytes, expected: int) -> None:
    """The vectors are from the draft."""
    assert fnv1a(content) == expected


def test_a_norm_wraps_where_it_does_not_fit() -> None:
    assert signed_norm((3, -1)) == 13
    assert signed_norm((-(2**31), 2**31 - 1)) == (3 * 2**62 - 3 * 2**31 + 1) - 2**64
    assert signed_norm((0, 0)) == 0


@pytest.mark.parametrize("field", [*tile_json()])
def test_every_field_of_a_tile_is_needed(field: str) -> None:
    with pytest.raises(PlatoFieldError, match=f"`{field}` is missing") as caught:
        read_tile(json.dumps(put(tile_json(), field, ...)).encode(), ROOM)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("id", "", "id"),
        ("id", "x" * 257, "id"),
        ("id", "a\x1fb", "id"),
        ("id", 7, "id"),
        ("room", "another", "room"),
        ("content", None, "content"),
        ("content", "é" * 2**19 + "x", "content"),
        ("content_hash", 0, "content_hash"),
        ("content_hash", 1, "content_hash"),
        ("content_hash", -1, "content_hash"),
        ("content_hash", 2**64, "content_hash"),
        ("content_hash", "1", "content_hash"),
        ("tags", {}, "tags"),
        ("tags/1", 5, "tags[1]"),
        ("tags/1", "", "tags[1]"),
        ("author", "x" * 257, "author"),
        ("created_at", -1, "created_at"),
        ("created_at", 1.5, "created_at"),
        ("updated_at", "now", "updated_at"),
        ("updated_at", MOST // 1_000_000 + 1, "updated_at"),
        ("constraints", None, "constraints"),
        ("constraints/elements", ..., "constraints.elements"),
        ("constraints/elements", [], "constraints.elements"),
        ("constraints/elements/bounds", [["n"]], "constraints.elements"),
        ("constraints/elements/bounds", [["n", -1]], "constraints.elements"),
        ("constraints/elements/bounds", [["", 1]], "constraints.elements"),
        ("constraints/elements/", [["n", 1]], "constraints.elements"),
        ("constraints/tombstones", ..., "constraints.tombstones"),
        ("constraints/tombstones/0", ["n", MOST + 1], "constraints.tombstones"),
        ("constraints/tombstones/0/1", "2", "constraints.tombstones[0][1]"),
        ("constraints/seq/agent-a", None, "constraints.seq"),
        ("constraints/seq/agent-a", -4, "constraints.seq"),
        ("metrics/counts", ..., "metrics.counts"),
        ("metrics/counts/agent-a", 2**63, "metrics.counts"),
        ("metrics/counts/", 1, "metrics.counts"),
        ("metrics/violations/agent-b", -1, "metrics.violations"),
        ("metrics/violations/agent-b", 1.5, "metrics.violations"),
        ("position/position", [1], "position.position"),
        ("position/position", [2**31, 0], "position.position"),
        ("position/timestamp", ..., "position.timestamp"),
        ("position/timestamp", 2**63, "position.timestamp"),
        ("position/node", "", "position.node"),
        ("position/norm", 12, "position.norm"),
        ("position", 5, "position"),
    ],
)
def test_what_is_wrong_in_a_tile_is_named(path: str, value: object, field: str) -> None:
    with pytest.raises(PlatoFieldError) as caught:
        read_tile(json.dumps(put(tile_json(), path, value)).encode(), ROOM)
    assert caught.value.field == field
    assert f"`{field}`" in str(caught.value)


CHANGES = [{"Add": {"constraint_id": "c1", "node": "agent-a", "seq": 1}}]
MOVED = {"old_norm": 0, "new_norm": 3, "position": [2, 1], "node": "agent-a", "seq": 1}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("node", ..., "node"),
        ("node", "", "node"),
        ("node", "a\x1f", "node"),
        ("seq", ..., "seq"),
        ("seq", -1, "seq"),
        ("seq", 2**63, "seq"),
        ("counter", None, "counter"),
        ("counter", ..., "counter"),
        ("counter/node", "another", "counter.node"),
        ("counter/seq", 2, "counter.seq"),
        ("counter/satisfied_delta", -1, "counter.satisfied_delta"),
        ("counter/violations_delta", "5", "counter.violations_delta"),
        ("constraints", ..., "constraints"),
        ("constraints/0", {}, "constraints[0]"),
        ("constraints/0", {"Edit": {}}, "constraints[0]"),
        ("constraints/0/Remove", {"constraint_id": "c", "tombstoned_tags": [], "seq": 1}, "constraints[0]"),
        ("constraints/0/Add/constraint_id", "", "constraints[0].Add.constraint_id"),
        ("constraints/0/Add/seq", ..., "constraints[0].Add.seq"),
        ("constraints/0/Add/seq", -1, "constraints[0].Add"),
        ("constraints/1", {"Remove": {"constraint_id": "c", "seq": 1}}, "constraints[1].Remove.tombstoned_tags"),
        (
            "constraints/1",
            {"Remove": {"constraint_id": "", "tombstoned_tags": [], "seq": 1}},
            "constraints[1].Remove.constraint_id",
        ),
        (
            "constraints/1",
            {"Remove": {"constraint_id": "c", "tombstoned_tags": [["", 1]], "seq": 1}},
            "constraints[1].Remove.tombstoned_tags",
        ),
        ("constraints/1", {"Remove": {"constraint_id": "c", "tombstoned_tags": [], "seq": -1}}, "constraints[1].Remove.seq"),
        ("position", ..., "position"),
        ("position/new_norm", 4, "position.new_norm"),
        ("position/position", [0, 2**31], "position.position"),
        ("position/seq", -1, "position.seq"),
    ],
)
def test_what_is_wrong_in_a_delta_is_named(path: str, value: object, field: str) -> None:
    made = put(delta_json(constraints=CHANGES, position=MOVED), path, value)
    with pytest.raises(PlatoFieldError) as caught:
        read_delta(json.dumps(made).encode(), ROOM)
    assert caught.value.field == field
    assert f"`{field}`" in str(caught.value)


@pytest.mark.parametrize("room", ["", "x" * 257, "a\x1fb"])
def test_a_room_that_none_can_be_is_named(room: str) -> None:
    for read, made in ((read_tile, tile_json(room=room)), (read_delta, delta_json())):
        with pytest.raises(PlatoFieldError) as caught:
            read(json.dumps(made).encode(), room)
        assert caught.value.field == "room"


def test_what_is_no_object_has_no_field() -> None:
    with pytest.raises(PlatoFieldError, match="not what it should be") as caught:
        read_tile(b"[]", ROOM)
    assert caught.value.field is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"id": "\\ud800"}', b'{"x":' + b"[" * 100_000])
def test_what_is_no_json_is_told_apart(data: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)) as caught:
        read_tile(data, ROOM)
    assert not isinstance(caught.value, PlatoFieldError | msgspec.ValidationError)


def test_what_the_contract_does_not_know_is_ignored() -> None:
    made = put(put(tile_json(), "extra", {"deep": [1]}), "metrics/rate", 0.5)
    assert read_tile(json.dumps(made).encode(), ROOM) == read_tile(json.dumps(tile_json()).encode(), ROOM)


@pytest.mark.long
def test_a_tile_may_hold_the_largest_content_and_numbers() -> None:
    made = tile_json("\0" * 2**20, author="", updated_at=MOST // 1_000_000, tags=[], position=None)
    made["metrics"]["counts"]["agent-a"] = MOST
    assert read_tile(json.dumps(made).encode(), ROOM).metrics.counts == {"agent-a": MOST}
