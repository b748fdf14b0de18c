"""Replicas: a replica is a life of a node, and the writer of a row.

A node after a possible loss of writes comes back under the same id with another incarnation, and so as another replica with a row
of its own. So a (replica, seq) pair, a *dot*, never means two mutations.
"""

from typing import NamedTuple

from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError

ALONE = 0
"""The incarnation of a writer given by its node id only, as in a standalone type."""


class Replica(NamedTuple):
    """A life of a node. Orders by node id, then incarnation (unique, with no further meaning)."""

    node_id: str
    incarnation: int

    def __str__(self) -> str:
        return f"{self.node_id}~{self.incarnation:x}"


class Dot(NamedTuple):
    """A mutation: the `seq`-th of `replica`."""

    replica: Replica
    seq: int


def parse_replica(text: str) -> Replica | None:
    """The replica with this text; None for any other text."""
    name, _, life = text.rpartition("~")
    try:
        replica = Replica(name, int(life, 16))
    except ValueError:
        return None
    return replica if str(replica) == text else None


def check_id(text: str, what: str, *, field: str | None = None) -> str:
    """Return `text` if it may serve as an id: not empty, at most `ID_BYTES` in UTF-8.

    `what`: the beginning of the sentence of an error. `field`: the field named by the error. Raises `TypeError` for a value of
    another type, and `ConstraintCrdtError` for a text out of bounds.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is a text, not {text!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConstraintCrdtError(f"{what} {text!r} is not valid Unicode text", field=field) from None
    if not 0 < size <= ID_BYTES:
        raise ConstraintCrdtError(f"{what} must have 1 to {ID_BYTES} bytes, not {size}", field=field)
    return text


def check_replica(node_id: str, incarnation: int) -> Replica:
    """Make a `Replica`, or raise `ConstraintCrdtError` for a part out of bounds."""
    if not 0 <= incarnation <= MAX_COUNT:
        raise ConstraintCrdtError(f"an incarnation must be between 0 and 2**63 - 1, not {incarnation}")
    return Replica(check_id(node_id, "a node id"), incarnation)


def writer(node: str | Replica) -> Replica:
    """The replica of a writer: a `Replica`, or a node id for a life without siblings.

    Two copies that both write as the same node without merging would use a dot twice; callers have to avoid that. Raises
    `TypeError` and `ConstraintCrdtError` for an invalid node id.
    """
    return node if isinstance(node, Replica) else check_replica(node, ALONE)
