"""The contracts of PLATO tile servers in JSON over HTTP: rooms of tiles, and deltas, as clients of the Rust crate use them, and
questions with answers, as the SDK on PyPI and protocol v2 do.

The JSON and its validation are here; `rooms` merges tiles, deltas and answers into a state, and renders its tiles as JSON. Both are
pure. `constraint_crdt.operations.plato` is the server side, `constraint_crdt.client.PlatoClient` a client.

There are two contracts. Clients of the Rust crate send tiles and deltas, field by field as its types (0.4.0) serialize. Clients of
PLATO servers, such as `cocapn-plato-sdk` 2.0, and of protocol v2 submit *answers*: a question with its answer, which `PlatoAnswer`
shows.

Field names are those of the JSON. Unknown fields are ignored, as by the crate. Every tile and delta passes `read_tile` or
`read_delta` before use. An error names the field by its path, such as `counter.node` or `constraints[0].Add.seq`. Bounds are those
of the cells.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from constraint_crdt import lazy_names
from constraint_crdt.crdt.clock import check_id
from constraint_crdt.crdt.limits import COORDINATE_MAX, COORDINATE_MIN, ID_BYTES, MAX_COUNT, SEPARATOR, TILE_BYTES
from constraint_crdt.errors import ConstraintCrdtError

if TYPE_CHECKING:
    from constraint_crdt.plato.rooms import plato_answer, plato_tile

__all__ = [
    "PlatoAdd",
    "PlatoAnswer",
    "PlatoChange",
    "PlatoConstraints",
    "PlatoCounter",
    "PlatoDelta",
    "PlatoDeltaTracker",
    "PlatoFieldError",
    "PlatoMetrics",
    "PlatoMove",
    "PlatoPosition",
    "PlatoRemove",
    "PlatoRoom",
    "PlatoSubmission",
    "PlatoTile",
    "plato_answer",
    "plato_tile",
]


__getattr__, __dir__ = lazy_names(__name__, dict.fromkeys(("plato_answer", "plato_tile"), "constraint_crdt.plato.rooms"))


Tag = tuple[str, int]
"""An add to an OR-set: the node, and the number of the add on this node."""


class PlatoConstraints(msgspec.Struct, frozen=True, kw_only=True):
    """An OR-set of constraint ids."""

    elements: dict[str, list[Tag]]
    """The present ids, each with the tags of its adds."""
    tombstones: list[Tag]
    """The tags of removed adds."""
    seq: dict[str, int]
    """The highest tag of each node."""


class PlatoMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative counts by node."""

    counts: dict[str, int]
    """Satisfied evaluations."""
    violations: dict[str, int]
    """Violations."""


class PlatoPosition(msgspec.Struct, frozen=True, kw_only=True):
    """A position on the Eisenstein lattice."""

    position: tuple[int, int]
    timestamp: int
    """Time of the write, ns since the epoch."""
    node: str
    norm: int
    """a² - ab + b², as a signed 64-bit number."""


class PlatoTile(msgspec.Struct, frozen=True, kw_only=True):
    """A tile. Times in ms since the epoch."""

    id: str
    room: str
    content: str
    tags: list[str]
    constraints: PlatoConstraints
    metrics: PlatoMetrics
    position: PlatoPosition | None
    author: str
    created_at: int
    updated_at: int
    content_hash: int
    """FNV-1a of the content in UTF-8, 64 bits: see `fnv1a`."""


class PlatoRoom(msgspec.Struct, frozen=True, kw_only=True):
    """A room, as `GET /room/{id}` answers."""

    id: str
    tiles: list[PlatoTile]
    tile_count: int


class PlatoCounter(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations since the previous delta of the node."""

    node: str
    satisfied_delta: int
    violations_delta: int
    seq: int


class PlatoAdd(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint was added, by the tag (node, seq)."""

    constraint_id: str
    node: str
    seq: int


class PlatoRemove(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint was removed: the adds with these tags; if none is named, as the crate's tracker does, all adds known."""

    constraint_id: str
    tombstoned_tags: list[Tag]
    seq: int


class PlatoChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one of these."""

    add: PlatoAdd | None = msgspec.field(name="Add", default=None)
    remove: PlatoRemove | None = msgspec.field(name="Remove", default=None)


class PlatoMove(msgspec.Struct, frozen=True, kw_only=True):
    """The position was moved."""

    old_norm: int
    new_norm: int
    position: tuple[int, int]
    node: str
    seq: int


class PlatoDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The actions of a node since its previous delta. A (node, seq) is taken in once, however often it is sent."""

    node: str
    seq: int
    counter: PlatoCounter
    constraints: list[PlatoChange]
    position: PlatoMove | None


ANSWER_CHARACTERS = 20
"""An answer has at least so many, without the spaces around it."""

NOT_GIVEN = 0.5
"""The confidence of an answer that is submitted without any, as by the SDK."""


class PlatoSubmission(msgspec.Struct, frozen=True, kw_only=True):
    """A question with its answer, as `POST /plato/submit` takes it."""

    question: str
    answer: str
    room: str = ""
    """Empty: the room of the path, else the domain."""
    domain: str = ""
    agent: str = ""
    source: str = ""
    """The author: `agent` for the SDK, `source` in protocol v2, where both mean the same."""
    confidence: float = NOT_GIVEN
    """From 0 to 1."""
    tags: list[str] = []
    timestamp: float | None = None
    """ms since the epoch, or seconds below 10^11. None: now."""

    @property
    def author(self) -> str:
        """Who answers."""
        return self.source or self.agent or "anonymous"

    @property
    def created(self) -> int | None:
        """The timestamp in ns since the epoch, in whole ms; None without a timestamp."""
        if self.timestamp is None:
            return None
        return round(self.timestamp if self.timestamp >= SECONDS_BELOW else self.timestamp * 1000) * MS


class PlatoAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A tile as PLATO servers and protocol v2 show it. A tile with another content is shown as an answer under its id."""

    id: str
    tile_hash: str
    """The id."""
    room: str
    domain: str
    question: str
    answer: str
    agent: str
    source: str
    """The author, as is `agent`."""
    confidence: float
    tags: list[str]
    created_at: float
    """Seconds since the epoch."""
    timestamp: int
    """ms since the epoch."""
    sequence: int
    """Microseconds since the epoch: increasing with the time of creation, equal on all nodes."""


class PlatoDeltaTracker:
    """Makes the deltas of nodes from their totals, as `DeltaTracker` of the crate does. Not that of `constraint_crdt.gossip`."""

    def __init__(self, last_seqs: Mapping[str, int] | None = None) -> None:
        """`last_seqs`: the last seq that each node has sent before, which a node that starts again must continue."""
        self._last = {node: _Sent(seq=seq) for node, seq in (last_seqs or {}).items()}

    def generate(
        self,
        node: str,
        satisfied: int = 0,
        violations: int = 0,
        position: tuple[int, int] | None = None,
        added: Iterable[str] = (),
        removed: Iterable[str] = (),
    ) -> PlatoDelta:
        """The delta from the last delta of the node to these totals, and to this position, None for none.

        `added`, `removed`: constraints since then. A removal names no tags, so it ends all known adds. A total below the last
        total adds nothing.
        """
        last = self._last.get(node, _Sent())
        seq = last.seq + 1
        counter = PlatoCounter(
            node=node,
            satisfied_delta=max(0, satisfied - last.satisfied),
            violations_delta=max(0, violations - last.violations),
            seq=seq,
        )
        changes = [PlatoChange(add=PlatoAdd(constraint_id=id_, node=node, seq=seq)) for id_ in added]
        changes += [PlatoChange(remove=PlatoRemove(constraint_id=id_, tombstoned_tags=[], seq=seq)) for id_ in removed]
        move = None
        if position is not None and position != last.position:
            old = 0 if last.position is None else signed_norm(last.position)
            move = PlatoMove(old_norm=old, new_norm=signed_norm(position), position=position, node=node, seq=seq)
        self._last[node] = _Sent(seq=seq, satisfied=satisfied, violations=violations, position=position or last.position)
        return PlatoDelta(node=node, seq=seq, counter=counter, constraints=changes, position=move)

    def __repr__(self) -> str:
        return f"PlatoDeltaTracker({ {node: sent.seq for node, sent in self._last.items()} })"

    def last_seq(self, node: str) -> int:
        """The seq of the last delta of a node; 0 before the first."""
        return self._last[node].seq if node in self._last else 0


class _Sent(msgspec.Struct, frozen=True, kw_only=True):
    """The totals up to the last delta of a node."""

    seq: int = 0
    satisfied: int = 0
    violations: int = 0
    position: tuple[int, int] | None = None


FNV_OFFSET = 0xCBF29CE484222325
FNV_PRIME = 0x100000001B3
FNV_BITS = 2**64 - 1


def fnv1a(content: bytes) -> int:
    """FNV-1a of 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv): the content hash of a tile. Some 0.13 s for 1 MiB."""
    found = FNV_OFFSET
    for byte in content:
        found = (found ^ byte) * FNV_PRIME & FNV_BITS
    return found


def signed_norm(position: tuple[int, int]) -> int:
    """The Eisenstein norm in signed 64-bit arithmetic: coordinates near 2**31 overflow, and the norm wraps around."""
    a, b = position
    return (a * a - a * b + b * b + 2**63) % 2**64 - 2**63


MS = 1_000_000
"""ns."""

SECONDS_BELOW = 1e11
"""A timestamp below counts seconds: in ms it would be before 1973. Clients send both."""

Shape = TypeVar("Shape", bound=msgspec.Struct)


class PlatoFieldError(ConstraintCrdtError, ValueError):
    """JSON outside of the contract. `str()` is a sentence; `field` is the path of the field at fault, None for the whole."""

    def __init__(self, message: str, field: str | None) -> None:
        """`message`: a sentence. `field`: the path of the field at fault, None for the whole."""
        super().__init__(message)
        self.field = field


def read_tile(data: bytes, room: str) -> PlatoTile:
    """The tile in the body of a request to a room. O(content).

    Raises `PlatoFieldError` for an invalid tile or a tile of another room, `msgspec.DecodeError` or `RecursionError` for
    malformed JSON.
    """
    tile = _decoded(data, PlatoTile)
    if tile.room != room:
        raise PlatoFieldError(f"`room`: the tile is of room {tile.room!r}, and was sent to {room!r}", "room")
    for text, field in ((tile.room, "room"), (tile.id, "id")):
        _check_name(text, field)
        _check_part(text, field)
    _check_text(tile.author, "author")
    _check_number(tile.created_at, "created_at", MAX_COUNT // MS)
    _check_number(tile.updated_at, "updated_at", MAX_COUNT // MS)
    for number, tag in enumerate(tile.tags):
        _check_name(tag, f"tags[{number}]")
    _check_sets(tile)
    if tile.position is not None:
        _check_position(tile.position)
    _check_content(tile)
    return tile


def read_delta(data: bytes, room: str) -> PlatoDelta:
    """The delta in the body of a request to a room. Raises as `read_tile` does."""
    delta = _decoded(data, PlatoDelta)
    check_room(room)
    _check_name(delta.node, "node")
    _check_part(delta.node, "node")
    _check_number(delta.seq, "seq")
    counter = delta.counter
    _check_number(counter.satisfied_delta, "counter.satisfied_delta")
    _check_number(counter.violations_delta, "counter.violations_delta")
    if counter.node != delta.node:
        raise PlatoFieldError(f"`counter.node`: it is {counter.node!r} in a delta of {delta.node!r}", "counter.node")
    if counter.seq != delta.seq:
        raise PlatoFieldError(f"`counter.seq`: it is {counter.seq} in a delta of seq {delta.seq}", "counter.seq")
    for number, change in enumerate(delta.constraints):
        _check_change(change, f"constraints[{number}]")
    if delta.position is not None:
        _check_move(delta.position)
    return delta


def read_submission(data: bytes, room: str = "") -> PlatoSubmission:
    """The submission in the body of a request, to a room unless the body names it. Raises as `read_tile` does."""
    sent = _decoded(data, PlatoSubmission)
    if room and sent.room not in ("", room):
        raise PlatoFieldError(f"`room`: the answer is of room {sent.room!r}, and was sent to {room!r}", "room")
    place = room or sent.room or sent.domain or "general"
    sent = msgspec.structs.replace(sent, room=place, domain=sent.domain or place)
    check_room(sent.room)
    _check_text(sent.domain, "domain")
    if not sent.question.strip():
        raise PlatoFieldError("`question`: it is empty", "question")
    if not 0 <= sent.confidence <= 1:
        raise PlatoFieldError(f"`confidence`: a number from 0 to 1, not {sent.confidence}", "confidence")
    if sent.timestamp is not None and not 0 <= sent.timestamp <= MAX_COUNT // MS:
        raise PlatoFieldError(f"`timestamp`: ms since the epoch, not {sent.timestamp}", "timestamp")
    _check_text(sent.author, "source" if sent.source else "agent")
    for number, tag in enumerate(sent.tags):
        _check_name(tag, f"tags[{number}]")
    return sent


def check_room(room: str) -> None:
    """Raise `PlatoFieldError` for the name of a room that no tile can be in."""
    _check_name(room, "room")
    _check_part(room, "room")


def _check_sets(tile: PlatoTile) -> None:
    for element, tags in tile.constraints.elements.items():
        _check_name(element, "constraints.elements")
        _check_tags(tags, "constraints.elements")
    _check_tags(tile.constraints.tombstones, "constraints.tombstones")
    for field, numbers in (
        ("constraints.seq", tile.constraints.seq),
        ("metrics.counts", tile.metrics.counts),
        ("metrics.violations", tile.metrics.violations),
    ):
        for name, number in numbers.items():
            _check_name(name, field)
            _check_number(number, field)


def _check_content(tile: PlatoTile) -> None:
    content = tile.content.encode()
    if len(content) > TILE_BYTES:
        message = f"`content`: the content of a tile has at most {TILE_BYTES} bytes, not {len(content)}"
        raise PlatoFieldError(message, "content")
    _check_number(tile.content_hash, "content_hash", FNV_BITS)
    found = fnv1a(content)
    if tile.content_hash != found:
        message = f"`content_hash`: it is {tile.content_hash}, and the content has the hash {found} (FNV-1a)"
        raise PlatoFieldError(message, "content_hash")


def _check_position(position: PlatoPosition) -> None:
    _check_coordinates(position.position, "position.position")
    _check_number(position.timestamp, "position.timestamp")
    _check_name(position.node, "position.node")
    _check_norm(position.norm, position.position, "position.norm")


def _check_move(move: PlatoMove) -> None:
    _check_coordinates(move.position, "position.position")
    _check_name(move.node, "position.node")
    _check_number(move.seq, "position.seq")
    _check_norm(move.new_norm, move.position, "position.new_norm")


def _check_change(change: PlatoChange, field: str) -> None:
    if (change.add is None) is (change.remove is None):
        raise PlatoFieldError(f"`{field}`: a change has exactly one of Add, Remove", field)
    if change.add is not None:
        _check_name(change.add.constraint_id, f"{field}.Add.constraint_id")
        _check_tags([(change.add.node, change.add.seq)], f"{field}.Add")
    if change.remove is not None:
        _check_name(change.remove.constraint_id, f"{field}.Remove.constraint_id")
        _check_tags(change.remove.tombstoned_tags, f"{field}.Remove.tombstoned_tags")
        _check_number(change.remove.seq, f"{field}.Remove.seq")


def _check_name(text: str, field: str) -> None:
    try:
        check_id(text, f"`{field}`: a name")
    except ConstraintCrdtError as error:
        raise PlatoFieldError(str(error), field) from None


def _check_part(text: str, field: str) -> None:
    if SEPARATOR in text:
        raise PlatoFieldError(f"`{field}`: it must not contain the control character U+001F", field)


def _check_text(text: str, field: str) -> None:
    if len(text.encode()) > ID_BYTES:
        raise PlatoFieldError(f"`{field}`: it has at most {ID_BYTES} bytes", field)


def _check_number(number: int, field: str, most: int = MAX_COUNT) -> None:
    if not 0 <= number <= most:
        raise PlatoFieldError(f"`{field}`: a number from 0 to {most}, not {number}", field)


def _check_tags(tags: Iterable[Tag], field: str) -> None:
    for node, seq in tags:
        _check_name(node, field)
        _check_number(seq, field)


def _check_coordinates(position: tuple[int, int], field: str) -> None:
    if not all(COORDINATE_MIN <= coordinate <= COORDINATE_MAX for coordinate in position):
        raise PlatoFieldError(f"`{field}`: two 32-bit coordinates, not {list(position)}", field)


def _check_norm(norm: int, position: tuple[int, int], field: str) -> None:
    if norm != signed_norm(position):
        raise PlatoFieldError(f"`{field}`: the norm of {list(position)} is {signed_norm(position)}, not {norm}", field)


# --- the shape -----------------------------------------------------------------------------------------------------------

_PLACE = re.compile(r"(.*) - at (?:`key` in )?`\$\.?([^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*?)`")


def _decoded(data: bytes, shape: type[Shape]) -> Shape:
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error)) from None


def _misshapen(message: str) -> PlatoFieldError:
    """An error of msgspec, with the path of the field."""
    field = ""
    if found := _PLACE.fullmatch(message):
        message, field = found[1], found[2].partition("[...]")[0]  # the rest is inside of a map, under a key unknown here
    if found := _MISSING.match(message):
        field = f"{field}.{found[1]}" if field else found[1]
        return PlatoFieldError(f"the field `{field}` is missing", field)
    if not field:
        return PlatoFieldError(f"the body is not what it should be: {message[0].lower()}{message[1:]}", None)
    return PlatoFieldError(f"`{field}`: {message[0].lower()}{message[1:]}", field)
