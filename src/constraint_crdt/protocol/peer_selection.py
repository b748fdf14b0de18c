"""Peer selection: policies for the peer of the next exchange, and the lattice on which some of them place nodes.

| policy | its use |
|---|---|
| `Uniform` | robust, without knowledge of the fleet; a few rounds more than the least possible |
| `Schedule` | fleets with aligned rounds: the least possible number of rounds, ceil(log3 n), where no message is lost |
| `Nearby` | costly links: most exchanges are with neighbours, a few reach far |
| `ByDistance` | the same for peers that come and go, at measured distances; every peer gets its turn within a bound |

Why 3^r: in an exchange both sides learn, and in a round each node takes part in two, one as initiator and one as partner. A node
that knows the state of k neighbours on either side, and exchanges with the nodes 2k + 1 away on either side, knows three times as
much.

Why d^-2: with a probability that falls with the square of the distance every scale of a plane is equally likely to be bridged
(Kleinberg, "The small-world phenomenon", 2000), so a change spreads in about as many rounds as with `Uniform`, over links a fifth
as long.

Rules kept here:

- A policy is a function of the asking node, the round and a random number. Nodes are numbers from 0: places in a list that all
  agree on. Only `ByDistance` knows peers by name, since each node has its own list of peers, which changes.
- The lattice is that of the Eisenstein integers; `types.register` defines its points and their distance in hops.
"""

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from statistics import median
from typing import Generic, Protocol, TypeVar

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.types.register import Position, hex_distance

UNITS: tuple[Position, ...] = ((1, 0), (1, 1), (0, 1), (-1, 0), (-1, -1), (0, -1))
"""The units in the order of their angles, 60 degrees apart; each is the sum of the two beside it."""


def ring_point(centre: Position, distance: int, place: int) -> Position:
    """The point at `distance` (at least 1) from `centre` at one of the 6 x `distance` places of that ring."""
    side, step = divmod(place, distance)
    corner, along = UNITS[side], UNITS[(side + 2) % 6]
    return centre[0] + corner[0] * distance + along[0] * step, centre[1] + corner[1] * distance + along[1] * step


def hexagon(count: int) -> list[Position]:
    """The first `count` points of the plane, ring by ring around the origin: the most compact layout of a fleet."""
    return [point for point, _ in zip(_spiral(), range(count), strict=False)]


def _spiral() -> Iterator[Position]:
    yield (0, 0)
    distance = 0
    while True:
        distance += 1
        yield from (ring_point((0, 0), distance, place) for place in range(6 * distance))


TRIES = 64
"""Places of the lattice `Nearby` tries before it weighs all peers."""

LONGEST_TURN = 4
"""`ByDistance` asks each of n peers at least once in any so many times n rounds."""

Name = TypeVar("Name", bound=Hashable)


class RandomSource(Protocol):
    """A source of random numbers, such as `random.Random`."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""


class PeerChoice(Protocol):
    """A policy of peer selection."""

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:
        """The node `me` asks in this round; never `me`."""


def _check_count(count: int) -> int:
    if count < 2:
        raise ConstraintCrdtError(f"a choice of peers needs at least 2 nodes, not {count}")
    return count


class Uniform:
    """Any other node, all equally likely."""

    def __init__(self, count: int) -> None:
        """`count`: nodes in all. Raises `ConstraintCrdtError` for fewer than 2."""
        self._others = _check_count(count) - 1

    def __repr__(self) -> str:
        return f"Uniform({self._others + 1})"

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:  # noqa: ARG002 - one of several policies
        """A node drawn from all others."""
        other = int(chance.random() * self._others)
        return other + (other >= me)


class Schedule:
    """In round r the node 3^r places further on, repeated. For rounds that begin everywhere at the same time."""

    def __init__(self, count: int) -> None:
        """`count`: nodes in all. Raises `ConstraintCrdtError` for fewer than 2."""
        self._count = _check_count(count)
        self._offsets = [1]
        while self._offsets[-1] * 3 < count:
            self._offsets.append(self._offsets[-1] * 3)

    @property
    def rounds(self) -> int:
        """Rounds without loss after which every node knows the state of all: ceil(log3 count)."""
        return len(self._offsets)

    def __repr__(self) -> str:
        return f"Schedule({self._count})"

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:  # noqa: ARG002 - one of several policies
        """The node at the offset of this round."""
        return (me + self.offset(round_)) % self._count

    def offset(self, round_: int) -> int:
        """The distance in places between a node and the node it asks in a round."""
        return self._offsets[round_ % len(self._offsets)]


class Nearby:
    """Any other node of a hexagonal lattice, with a chance that falls with the square of its distance in hops."""

    def __init__(self, points: Sequence[Position]) -> None:
        """`points`: the place of each node. Raises `ConstraintCrdtError` for fewer than 2 nodes, or two at one point."""
        _check_count(len(points))
        self._points = points
        self._at = {point: index for index, point in enumerate(points)}
        if len(self._at) != len(points):
            raise ConstraintCrdtError("two nodes cannot stand at one point of the lattice")
        furthest = 2 * max(hex_distance(points[0], point) for point in points)
        self._rings = list(accumulate(1 / distance for distance in range(1, furthest + 1)))
        """A ring has 6d places and d^-2 for each: so 1/d for the ring, accumulated."""

    def __repr__(self) -> str:
        return f"Nearby({len(self._points)} points)"

    def choose(self, me: int, round_: int, chance: RandomSource) -> int:  # noqa: ARG002 - one of several policies
        """Draw places of the lattice until a taken place is found: exact, and O(1) where the lattice is filled."""
        centre = self._points[me]
        for _ in range(TRIES):
            distance = 1 + bisect_left(self._rings, chance.random() * self._rings[-1])
            found = self._at.get(ring_point(centre, distance, int(chance.random() * 6 * distance)))
            if found is not None:
                return found
        return self._weighed(me, chance)

    def _weighed(self, me: int, chance: RandomSource) -> int:
        """The same choice by weighing every node, for points far apart. O(nodes)."""
        mine = self._points[me]
        return _drawn((0.0 if point == mine else hex_distance(mine, point) ** -2.0 for point in self._points), chance)


class ByDistance(Generic[Name]):
    """A present peer, drawn with a chance that falls with the square of its distance, or the peer that has waited too long.

    Without that bound a peer a hundred times as far as the others would be asked once in ten thousand rounds. A peer that was not
    asked for 3n rounds is next, the longest wait first; at most n - 1 others can be before it, so no wait is longer than 4n.
    """

    def __init__(self) -> None:
        self._asked: dict[Name, int] = {}
        """The round in which each peer was asked last, or appeared; in that order."""
        self._round = 0

    def choose(self, distances: Mapping[Name, float | None], chance: RandomSource) -> Name:
        """The peer to ask in the next round. O(peers).

        `distances`: of each present peer, in any unit; an unknown distance counts as the median of the known distances. Raises
        `ConstraintCrdtError`, changing nothing, without peers or for a distance that is not above 0 and finite.
        """
        if not distances:
            raise ConstraintCrdtError("a choice of peers needs at least 1 peer")
        weights = _weights(list(distances.values()))
        self._asked = {name: at for name, at in self._asked.items() if name in distances}
        for name in distances:
            self._asked.setdefault(name, self._round)
        self._round += 1
        longest = next(iter(self._asked))
        overdue = self._round - self._asked[longest] > (LONGEST_TURN - 1) * len(distances)
        chosen = longest if overdue else list(distances)[_drawn(weights, chance)]
        self._asked.pop(chosen)
        self._asked[chosen] = self._round
        return chosen


def _weights(distances: Sequence[float | None]) -> list[float]:
    """The square of each distance's inverse, as a share of the largest, so that none is too large for a float."""
    known = [distance for distance in distances if distance is not None]
    if not all(0 < distance < inf for distance in known):
        raise ConstraintCrdtError("the distance of a peer must be above 0 and finite")
    middle, least = median(known or [1.0]), min(known, default=1.0)
    return [(least / (middle if distance is None else distance)) ** 2 for distance in distances]


def _drawn(weights: Iterable[float], chance: RandomSource) -> int:
    """The index of a weight, drawn in proportion to the weights. Never the index of a weight of 0."""
    sums = list(accumulate(weights))
    return bisect_left(sums, (1 - chance.random()) * sums[-1])
