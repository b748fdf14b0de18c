"""The readings of a whole state as plain data, for the comparison with files of earlier versions."""

from collections.abc import Sequence
from typing import Any

import msgspec

from constraint_crdt.state import ConstraintState
from constraint_crdt.types.orset import Addition, Definition

NOW = 1_700_000_100 * 10**9
"""ns since the epoch: the time at which the readings are taken."""

HALF_LIVES = (60.0, 300.0, 3600.0)
ITEMS = ("pump", "valve", "belt", "absent")


def views(state: ConstraintState) -> Any:
    """Every reading of every type, as JSON has it."""
    found = {
        "hash": state.state_hash.hex(),
        "constraints_hash": state.constraints_hash.hex(),
        "clock": {str(replica): seq for replica, seq in sorted(state.clock.as_dict().items())},
        "floors": {str(replica): seq for replica, seq in sorted(state.rows.floors.items())},
        "constraints": {id_: _additions(state.constraints.additions(id_)) for id_ in sorted(state.constraints)},
        "expired": {id_: _additions(state.constraints.expired(id_)) for id_ in state.constraints.expired_ids},
        "next_expiry": state.constraints.next_expiry,
        "counts": [state.metrics.total, {node: state.metrics.node(node) for node in sorted(state.metrics.nodes)}],
        "counts_of_speed": [state.metrics.constraint("speed"), state.metrics.by_node("speed")],
        "position": [state.position, state.register.norm, state.register.time, state.register.by, state.register.by_node],
        "nodes": {node: [value.software, value.wire, value.endpoints, value.labels] for node, value in state.nodes.items()},
        "retired": {node: state.retirements.by(node) for node in state.retirements.nodes},
        "counters": {name: [state.counters[name].value, state.counters[name].by_node()] for name in state.counters},
        "decay": [state.decay("jobs", 60.0).by_node(), state.decay("jobs", 600.0).value()],
        "rates": [[state.rates.by_constraint(each), state.rates.by_node(each)] for each in HALF_LIVES],
        "sketches": {
            name: [sketch.shape, sketch.total, sketch.top(), [sketch.estimate(item) for item in ITEMS], sketch.writers]
            for name, sketch in state.sketches.items()
        },
        "blooms": {
            name: [bloom.shape, bloom.inserted, bloom.filled, [item in bloom for item in ITEMS]]
            for name, bloom in state.blooms.items()
        },
        "tiles": [_tile(state, room, id_) for room, id_ in sorted([*state.tiles, *state.tiles.deleted()])],
        "increments": {room: [state.increments.by_node(room), state.increments.total(room)] for room in state.increments.rooms},
        "cells": sorted(
            [cell.kind, str(cell.key), str(cell.replica), cell.seq, cell.digest.to_bytes(32, "big").hex()]
            for cell in state.rows.live_cells()
        ),
    }
    return msgspec.json.decode(msgspec.json.encode(found))


FIELDS_0_1_0 = 5
"""A definition of 0.1.0 has no further fields, so the others have their defaults."""


def _additions(additions: Sequence[Addition]) -> list[object]:
    defaults = Definition()[FIELDS_0_1_0:]
    assert all(each.definition[FIELDS_0_1_0:] == defaults for each in additions)
    return [(each.definition[:FIELDS_0_1_0], *each[1:]) for each in additions]


def _tile(state: ConstraintState, room: str, id_: str) -> list[object]:
    tile = state.tiles.tile(room, id_)
    return [
        [room, id_, tile.exists, tile.deleted, tile.deletion, tile.size, tile.content_hash.hex(), tile.verify_integrity()],
        [tile.created, tile.author, tile.updated, tile.writer],
        [
            list(tile.tags),
            {each: sorted(tile.constraints.tags_of(each)) for each in tile.constraints},
            tile.constraints.tombstones(),
        ],
        [tile.metrics.total, tile.metrics.by_node()],
        [tile.position, tile.norm, tile.position_time, tile.position_by],
    ]
