"""What was done, told to whoever asked for it: the shapes of answers to writes, and of a few questions. (Reports on what there is:
`reports`.) Imports nothing, so that a client may have them without a node.
"""

import msgspec


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint is active with the definition given."""

    id: str
    change: str
    """added, replaced, extended, unchanged."""


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint is not active any more."""

    id: str


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations made elsewhere were counted."""

    satisfied: int
    violations: int
    constraint: str | None


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """What one evaluation gave."""

    constraint: str
    verdict: str
    """satisfied, violated, unknown."""
    reason: str
    """Why it is unknown."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The constraints with a `when` were evaluated, and it was counted."""

    evaluations: tuple[Evaluated, ...]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """It was done, and there is nothing to tell of it."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one change of a batch."""

    id: str | None
    """The constraint's; None for counts of none in particular."""
    change: str
    """added, replaced, extended, unchanged, removed, recorded."""


class Batched(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the changes of a batch, in their order."""

    results: tuple[Changed, ...]


class ExpressionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said of a `when`."""

    ok: bool
    error: str | None
    """What is wrong with it, naming the column."""
    variables: tuple[str, ...]
    """The measurements that it reads, ordered; none if it is wrong."""


class TileRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """A tile is deleted; it can be restored for a while."""

    room: str
    id: str


class TileContent(msgspec.Struct, frozen=True, kw_only=True):
    """One tile with its content, as text if it is UTF-8. The rest as in a `TileReport`."""

    room: str
    id: str
    deleted: bool
    size: int
    hash: str
    author: str
    created: int
    updated: int
    written_by: str | None
    tags: tuple[str, ...]
    constraints: tuple[str, ...]
    satisfied: int
    violations: int
    position: tuple[int, int] | None
    text: str | None
    base64: str | None


class TileSubmitted(msgspec.Struct, frozen=True, kw_only=True):
    """A tile of the PLATO contract was merged."""

    room: str
    id: str
    changed: bool


class DeltaTaken(msgspec.Struct, frozen=True, kw_only=True):
    """A delta of the PLATO contract was taken in."""

    node: str
    seq: int
    applied: bool


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A node is there, or ready. (Else there is a problem.)"""

    ok: bool
