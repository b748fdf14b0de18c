"""Places on the Eisenstein lattice where a fleet may stand: rings around a point, and the plane that they fill.

`types.positions` has the lattice itself: what its points mean, and how many hops apart two of them are.

Whom to ask next: policies for the choice of a peer, as functions of who asks, in which round, and chance.

| policy | what it is good for |
|---|---|
| `Uniform` | robust, needs to know nothing; a few rounds more than the least possible |
| `Schedule` | fleets with aligned rounds: the least possible number of rounds, ceil(log3 n), where nothing is lost |
| `Nearby` | the cost of links: most exchanges are with neighbours, a few reach far |
| `ByDistance` | the same for peers that come and go, at distances that are measured; nobody is left out for long |

Why 3^r: in an exchange both sides learn, and in a round each node takes part in two, the one that it begins and the one that it is
asked for. Who knew what k neighbours on either side know, and hears of those 2k + 1 away on either side, knows three times as much.

Why d^-2: with a chance falling as the square of the distance every scale of a plane is equally likely to be bridged (Kleinberg,
"The small-world phenomenon", 2000), so what is new spreads in about as many rounds as with `Uniform`, over links a fifth as long.

Nodes are numbers from 0: places in a list that all agree on. Only `ByDistance` knows its peers by names of their own, since each
node has another list, which changes.
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


TRIES = 64
"""Places of the lattice at which `Nearby` looks for a peer before it weighs all of them."""

LONGEST_TURN = 4
"""`ByDistance` asks each of n peers at least once in any so many times n rounds."""

Name = TypeVar("Name", bound=Hashable)


class Chance(Protocol):
    """Where random numbers come from; `random.Random` is one."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""


class PeerChoice(Protocol):
    """A policy."""

    def choose(self, me: int, round_: int, chance: Chance) -> int:
        """Whom `me` asks in this round: another node than itself."""


def _check_count(count: int) -> int:
    if count < 2:
        raise ConstraintCrdtError(f"a choice of peers needs at least 2 nodes, not {count}")
    return count


class Uniform:
    """Any other node, all equally likely."""

    def __init__(self, count: int) -> None:
        """`count`: nodes in all. Raises `ConstraintCrdtError` for fewer than 2."""
        self._others = _check_count(count) - 1

    def choose(self, me: int, round_: int, chance: Chance) -> int:  # noqa: ARG002 - one of several policies
        """Any other node."""
        other = int(chance.random() * self._others)
        return other + (other >= me)


class Schedule:
    """In round r the node 3^r places further on; over and over. For rounds that begin everywhere at the same time."""

    def __init__(self, count: int) -> None:
        """`count`: nodes in all. Raises `ConstraintCrdtError` for fewer than 2."""
        self._count = _check_count(count)
        self._offsets = [1]
        while self._offsets[-1] * 3 < count:
            self._offsets.append(self._offsets[-1] * 3)

    @property
    def rounds(self) -> int:
        """After so many rounds in which nothing was lost everybody knows everything: ceil(log3 count)."""
        return len(self._offsets)

    def choose(self, me: int, round_: int, chance: Chance) -> int:  # noqa: ARG002 - one of several policies
        """The node whose turn it is."""
        return (me + self.offset(round_)) % self._count

    def offset(self, round_: int) -> int:
        """How far on the node stands that is asked in a round."""
        return self._offsets[round_ % len(self._offsets)]


class Nearby:
    """Any other node of a hexagonal lattice, with a chance that falls with the square of its distance in hops."""

    def __init__(self, points: Sequence[Position]) -> None:
        """`points`: where each node stands. Raises `ConstraintCrdtError` for fewer than 2 nodes, or two at one point."""
        _check_count(len(points))
        self._points = points
        self._at = {point: index for index, point in enumerate(points)}
        if len(self._at) != len(points):
            raise ConstraintCrdtError("two nodes cannot stand at one point of the lattice")
        furthest = 2 * max(hex_distance(points[0], point) for point in points)
        self._rings = list(accumulate(1 / distance for distance in range(1, furthest + 1)))
        """A ring has 6d places and d^-2 for each: so 1/d for the ring, accumulated."""

    def choose(self, me: int, round_: int, chance: Chance) -> int:  # noqa: ARG002 - one of several policies
        """Draws places of the lattice with that chance until somebody stands there: exact, and O(1) where the lattice is filled."""
        centre = self._points[me]
        for _ in range(TRIES):
            distance = 1 + bisect_left(self._rings, chance.random() * self._rings[-1])
            found = self._at.get(ring_point(centre, distance, int(chance.random() * 6 * distance)))
            if found is not None:
                return found
        return self._weighed(me, chance)

    def _weighed(self, me: int, chance: Chance) -> int:
        """The same choice by weighing every node: for points far apart. O(nodes)."""
        mine = self._points[me]
        return _drawn((0.0 if point == mine else hex_distance(mine, point) ** -2.0 for point in self._points), chance)


class ByDistance(Generic[Name]):
    """Of the peers that are there, one with a chance that falls with the square of its distance, or whoever waited too long.

    Without that floor a peer a hundred times as far as the others would be asked once in ten thousand rounds. Who was not asked
    for 3n rounds is next, the longest first; at most n - 1 others can be before it, so no turn is longer than 4n.
    """

    def __init__(self) -> None:
        self._asked: dict[Name, int] = {}
        """The round in which each was asked last, or came; in that order."""
        self._round = 0

    def choose(self, distances: Mapping[Name, float | None], chance: Chance) -> Name:
        """Whom to ask in the next round. O(peers).

        `distances`: of each peer that is there, in any unit; one that is not known counts as the median of those that are. Raises
        `ConstraintCrdtError` where there is none, or for a distance that is not above 0 and finite; nothing changes then.
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
    """The square of each distance's inverse, as a share of the largest: so none is too large for a float."""
    known = [distance for distance in distances if distance is not None]
    if not all(0 < distance < inf for distance in known):
        raise ConstraintCrdtError("the distance of a peer must be above 0 and finite")
    middle, least = median(known or [1.0]), min(known, default=1.0)
    return [(least / (middle if distance is None else distance)) ** 2 for distance in distances]


def _drawn(weights: Iterable[float], chance: Chance) -> int:
    """The place of a weight, with a chance as large as its share of all. Never one that is 0."""
    sums = list(accumulate(weights))
    return bisect_left(sums, (1 - chance.random()) * sums[-1])
