"""Pacing: to how many peers a node carries a change at once, and how often at most.

A change reaches n nodes in about log n steps, and the wider each step the fewer: so the fan-out grows with the logarithm, slowly,
since each node that hears of a change carries it on as well. (Rounds keep their interval whatever the size and the quiet of the
fleet: a node begins one and answers one on average, and the clocks of peers are known by them, see `core.hybrid`.)
"""

LEAST_FANOUT = 3
WIDER_FROM = (10, 100, 1000)
"""Nodes of a fleet from which on a change is carried to one peer more at once."""

PUSHES_PER_SECOND = 100
"""Exchanges that a node begins at most to carry changes. Where all do, each answers as many, on average, however many they are."""


def fanout(nodes: int) -> int:
    """To how many peers a change is carried at once, in a fleet of so many live nodes."""
    return LEAST_FANOUT + sum(nodes >= many for many in WIDER_FROM)
