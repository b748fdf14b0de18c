"""Tiles and deltas as the Rust crate sends them, to be changed in part."""

import json
from typing import Any

from constraint_crdt.plato import PlatoDelta, PlatoTile, fnv1a, read_delta, read_tile

DAY = 1_750_000_000_000
"""ms since the epoch."""


def tile_json(content: str = "Hello fleet", **changes: Any) -> dict[str, Any]:
    """A tile as `serde_json` writes it."""
    return {
        "id": "tile-1",
        "room": "fleet-ops",
        "content": content,
        "tags": ["critical", "verified"],
        "constraints": {"elements": {"bounds": [["agent-a", 1]]}, "tombstones": [["agent-a", 2]], "seq": {"agent-a": 2}},
        "metrics": {"counts": {"agent-a": 100}, "violations": {"agent-b": 2}},
        "position": {"position": [3, -1], "timestamp": DAY * 1_000_000, "node": "agent-a", "norm": 13},
        "author": "forgemaster",
        "created_at": DAY,
        "updated_at": DAY + 5,
        "content_hash": fnv1a(content.encode()),
    } | changes


def delta_json(seq: int = 1, satisfied: int = 100, violations: int = 5, **changes: Any) -> dict[str, Any]:
    """A delta as the crate's `DeltaTracker` makes it."""
    return {
        "node": "agent-a",
        "seq": seq,
        "counter": {"node": "agent-a", "satisfied_delta": satisfied, "violations_delta": violations, "seq": seq},
        "constraints": [],
        "position": None,
    } | changes


def tile(content: str = "Hello fleet", **changes: Any) -> PlatoTile:
    """A tile that was read and checked."""
    made = tile_json(content, **changes)
    return read_tile(json.dumps(made).encode(), made["room"])


def delta(seq: int = 1, satisfied: int = 100, violations: int = 5, **changes: Any) -> PlatoDelta:
    """A delta that was read and checked."""
    return read_delta(json.dumps(delta_json(seq, satisfied, violations, **changes)).encode(), "fleet-ops")
