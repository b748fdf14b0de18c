"""Places on the Eisenstein lattice where a fleet may stand: rings around a point, and the plane that they fill.

`types.positions` has the lattice itself: what its points mean, and how many hops apart two of them are.
"""

from collections.abc import Iterator

from constraint_crdt.types.positions import Position

UNITS: tuple[Position, ...] = ((1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1), (0, -1))
"""The units in the order of their angles, 60 degrees apart; each is the sum of the two beside it."""


def ring_point(centre: Position, distance: int, place: int) -> Position:
    """The point at `distance` from `centre` at one of the 6 x `distance` places of that ring."""
    side, step = divmod(place, distance)
    corner, along = UNITS[side], UNITS[(side + 2) % 6]
    return centre[0] + corner[0] * distance + along[0] * step, centre[1] + corner[1] * distance + along[1] * step


def hexagon(count: int) -> list[Position]:
    """The first `count` points of a plane, ring by ring around the origin: the most compact place for a fleet."""
    return [point for point, _ in zip(_spiral(), range(count), strict=False)]


def _spiral() -> Iterator[Position]:
    yield (0, 0)
    distance = 0
    while True:
        distance += 1
        yield from (ring_point((0, 0), distance, place) for place in range(6 * distance))
