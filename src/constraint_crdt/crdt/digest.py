"""Replicas, and the hashes of their writes.

A replica is a life of a node, and the writer of a row. A node after a possible loss of writes comes back under the same id with
another incarnation, and so as another replica with a row of its own. So a (replica, seq) pair, a *dot*, never means two mutations.

The hash of a state has 32 bytes, costs O(1) per mutation, and is equal exactly where knowledge is equal.

The state hash is H(sum of the keyed hashes of live cells ‖ sum of the keyed hashes of clock entries), both modulo 2**256 (a
multiset hash by addition: Bellare and Micciancio, 1997; XOR of hashes can be cancelled by chosen items). Every item is encoded
unambiguously: the replica with its length in front, seq as 8 bytes, then the bytes of the cell as received.

The key keeps outsiders from choosing colliding items. The key is derived from the fleet's secret; a fleet without a secret uses a
default.
"""

from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, InvalidType

if TYPE_CHECKING:
    from constraint_crdt.crdt.cells import Cell, Run

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


def dot_text(dot: Dot) -> str:
    """A mutation as text, for people."""
    return f"{dot.replica}:{dot.seq}"


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
        raise InvalidType(f"{what} is a text, not {text!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConstraintCrdtError(f"{what} {text!r} is not valid Unicode text", field=field) from None
    if not 0 < size <= ID_BYTES:
        raise ConstraintCrdtError(f"{what} must have 1 to {ID_BYTES} bytes, not {size}", field=field)
    return text


@lru_cache(maxsize=4096, typed=True)
def check_replica(node_id: str, incarnation: int) -> Replica:
    """Make a `Replica`, or raise `ConstraintCrdtError` for a part out of bounds.

    Remembered, because each message names the same few replicas. A single object for each is also compared faster.
    """
    if not 0 <= incarnation <= MAX_COUNT:
        raise ConstraintCrdtError(f"an incarnation must be between 0 and 2**63 - 1, not {incarnation}")
    return Replica(check_id(node_id, "a node id"), incarnation)


def writer(node: str | Replica) -> Replica:
    """The replica of a writer: a `Replica`, or a node id for a life without siblings.

    Two copies that both write as the same node without merging would use a dot twice; callers have to avoid that. Raises
    `TypeError` and `ConstraintCrdtError` for an invalid node id.
    """
    return node if isinstance(node, Replica) else check_replica(node, ALONE)


_MODULO = 2**256 - 1
"""`x & _MODULO` is x modulo 2**256, in half the time of `%`."""
STATE_HASH_BYTES = 32
HASH_TOKEN_BYTES = 8


class Hashed(Protocol):
    """A state, a tile or a clock."""

    @property
    def state_hash(self) -> "StateHash":
        """Equal for equal knowledge."""


class StateHash(bytes):
    """32 bytes, equal for equal knowledge. `str()` is a short form for people; `hex()` the whole."""

    __slots__ = ()

    @classmethod
    def zero(cls) -> Self:
        """32 zeros, which stand for no hash: no state has it, the empty state included."""
        return cls(STATE_HASH_BYTES)

    @property
    def is_zero(self) -> bool:
        """True for `zero()`."""
        return not any(self)

    @staticmethod
    def from_state(state: Hashed) -> "StateHash":
        """The hash of a state: its `state_hash`."""
        return state.state_hash

    @staticmethod
    def from_tile(tile: Hashed) -> "StateHash":
        """The hash of a tile: its `state_hash`."""
        return tile.state_hash

    @staticmethod
    def from_clock(clock: Hashed) -> "StateHash":
        """The hash of a clock: its `state_hash`."""
        return clock.state_hash

    def __str__(self) -> str:
        digits = self.hex()
        return f"{digits[:8]}…{digits[-8:]}"

    def __repr__(self) -> str:
        return f"StateHash({self.hex()!r})"

    def token(self, reader: Replica) -> bytes:
        """8 bytes in place of this hash, for a life of a reader."""
        return _token(self, reader)


@lru_cache(maxsize=4096)
def replica_bytes(replica: Replica) -> bytes:
    """A replica as unambiguous bytes: incarnation, length of the id, the id."""
    name = replica.node_id.encode()
    return replica.incarnation.to_bytes(8, "big") + len(name).to_bytes(2, "big") + name


@lru_cache(maxsize=256)
def _token(state_hash: bytes, reader: Replica) -> bytes:
    """Remembered, because each message of an exchange says or checks the same few."""
    return blake()(state_hash + replica_bytes(reader), HASH_TOKEN_BYTES, b"hash token")


@cache
def _fill() -> "Callable[[Iterable[Cell], bytes, bytes], None]":
    """Imported late, since cells are made of replicas."""
    from constraint_crdt.crdt.cells import core

    return core.fill_digests


@cache
def blake() -> "Callable[..., bytes]":
    """The hash function of the core: of bytes, a size, a purpose and a key. Imported late as well."""
    from constraint_crdt.crdt.cells import core

    return core.blake


@lru_cache(maxsize=4096)
def _clock_entry(key: bytes, replica: Replica, seq: int) -> int:
    """Remembered, because each message of an exchange moves the same few entries from and to the same values."""
    return int.from_bytes(blake()(seq.to_bytes(8, "big") + replica_bytes(replica), STATE_HASH_BYTES, b"clock", key))


class Digest:
    """The keyed hash functions of a fleet."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes = b"") -> None:
        """`secret` is the fleet's; empty means none, which still tells accidents apart but not attackers."""
        self._key = blake2b(secret, digest_size=32, person=b"constraint-crdt").digest()

    def __eq__(self, other: object) -> bool:
        return self._key == other._key if isinstance(other, Digest) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def fill(self, replica: Replica, cells: "Iterable[Cell]") -> None:
        """Set the keyed hash of each cell of a row without a hash."""
        _fill()(cells, self._key, replica_bytes(replica))

    def enter(self, runs: "Iterable[Run]") -> None:
        """Set the keyed hash of the clock entry at the end of each run without a hash."""
        for run in [run for run in runs if not run.entry]:
            run.entry = self.clock_entry(run.replica, run.hi)

    def clock_entry(self, replica: Replica, seq: int) -> int:
        """The keyed hash of a clock entry."""
        return _clock_entry(self._key, replica, seq)

    def state(self, cells: int, clock: int) -> StateHash:
        """The hash of a state from its two sums."""
        sums = (cells & _MODULO).to_bytes(32, "big") + (clock & _MODULO).to_bytes(32, "big")
        return StateHash(blake()(sums, STATE_HASH_BYTES, b"state", self._key))
