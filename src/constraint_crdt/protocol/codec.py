"""Messages as bytes, and back.

One msgpack array a message: `[version and type, fleet, node id, incarnation, …]`, then by type

- Ping 1: `state hash, base, entries, to, auth, time in ms`
- Sync 2: `state hash, runs, to, auth`
- Delta 3: `base, proof, runs, behind, clock, to, auth`
- Ack 4: `answers, auth`
- Part 5: `transfer, index, count, size, chunk, to, pause, auth, unpacked`
- Resume 6: `transfer, index, to, auth`
- Gone 7: `transfer, to, auth`
- Buckets 8: `base, state hash, sums, to, auth`
- Mend 9: `base, step, buckets, runs, doubt, dead, to, auth`

with trailing parts left out where they are empty. The first element is 16 x the wire version + the type; `fleet` is nil for the
default one; an entry is `[ref, seq]`, with `ref` as in a run; `buckets` and `doubt` have a bit per bucket; `auth` is room for an
authentication tag; `unpacked` says that the slices are of a packed message (`gossip.packing`), and how large it becomes. (A reader
of before that was said puts them together and refuses the whole: it is not well-formed.)

Decoding validates everything, down to each cell, and knows one error. It copies what it keeps, so no message is held by its parts.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

import constraint_crdt.types  # noqa: F401 - registers the kinds of cells
from constraint_crdt.crdt.clock import CLOCK_NAME_BYTES, ClockMark, VectorClock
from constraint_crdt.crdt.codec import Ref, WireRun, read_ref, read_run, ref_of, wire_run
from constraint_crdt.crdt.digest import HASH_TOKEN_BYTES, STATE_HASH_BYTES, StateHash
from constraint_crdt.crdt.limits import MAX_COUNT, MESSAGE_BYTES
from constraint_crdt.crdt.repair import BUCKETS, SUM_BYTES
from constraint_crdt.crdt.replica import Replica, check_id, check_replica
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.compression import check_growth
from constraint_crdt.protocol.messages import (
    DEFAULT_FLEET,
    Ack,
    Buckets,
    ConstraintDelta,
    Delta,
    Entry,
    Gone,
    GossipMessage,
    Mend,
    MendStep,
    Part,
    Ping,
    Resume,
    Sync,
)

WIRE_VERSION: Final = 1
TRANSFER_BYTES: Final = 8
MS: Final = 1_000_000
"""ns."""

_WireEntry = tuple[Ref, int]
_TYPE: Final = 16 * WIRE_VERSION


class _Envelope(msgspec.Struct, array_like=True, gc=False):
    fleet: str | None
    node_id: str
    incarnation: int


class _Ping(_Envelope, tag=_TYPE + 1):
    state_hash: bytes
    base: bytes | None = None
    entries: list[_WireEntry] = []
    to: int | None = None
    auth: bytes | None = None
    time: int | None = None


class _Sync(_Envelope, tag=_TYPE + 2):
    state_hash: bytes
    runs: list[WireRun]
    to: int | None = None
    auth: bytes | None = None


class _Delta(_Envelope, tag=_TYPE + 3):
    base: bytes | None
    proof: bytes | None
    runs: list[WireRun]
    behind: list[_WireEntry] = []
    clock: list[_WireEntry] = []
    to: int | None = None
    auth: bytes | None = None


class _Ack(_Envelope, tag=_TYPE + 4):
    answers: bytes
    auth: bytes | None = None


class _Part(_Envelope, tag=_TYPE + 5):
    transfer: bytes
    index: int
    count: int
    size: int
    chunk: bytes
    to: int | None = None
    pause: bool | None = None
    auth: bytes | None = None
    unpacked: int | None = None


class _Resume(_Envelope, tag=_TYPE + 6):
    transfer: bytes
    index: int
    to: int | None = None
    auth: bytes | None = None


class _Gone(_Envelope, tag=_TYPE + 7):
    transfer: bytes
    to: int | None = None
    auth: bytes | None = None


class _Buckets(_Envelope, tag=_TYPE + 8):
    base: bytes
    state_hash: bytes
    sums: bytes
    to: int | None = None
    auth: bytes | None = None


class _Mend(_Envelope, tag=_TYPE + 9):
    base: bytes
    step: MendStep
    buckets: bytes
    runs: list[WireRun]
    doubt: bytes | None = None
    dead: list[_WireEntry] = []
    to: int | None = None
    auth: bytes | None = None


_Wire = _Ping | _Sync | _Delta | _Ack | _Part | _Resume | _Gone | _Buckets | _Mend
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Wire).decode


def encode_message(message: GossipMessage) -> bytes:
    """A message as bytes, of whatever size (see `gossip.sending`)."""
    kind, body, keep = _WRITERS[type(message)](message)
    while len(body) > keep and not body[-1] and body[-1] != 0:
        body.pop()
    fleet = None if message.fleet == DEFAULT_FLEET else message.fleet
    return _encode([_TYPE + kind, fleet, message.node.node_id, message.node.incarnation, *body])


def decode_message(data: bytes, max_bytes: int | None = MESSAGE_BYTES) -> GossipMessage:
    """The message in `data`. `max_bytes` None: no limit.

    Raises `ConstraintCrdtError` for anything but a well-formed message of this wire version within the limit.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise ConstraintCrdtError(f"a message of {len(data)} bytes is larger than the {max_bytes} allowed")
    _check_version(data)
    try:
        wire = _decode(data)
        return _READERS[type(wire)](wire)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConstraintCrdtError(f"this is not a well-formed message: {error}") from error


def _check_version(data: bytes) -> None:
    if len(data) >= 2 and 0x90 <= data[0] <= 0x9F and data[1] < 0x80 and data[1] >> 4 != WIRE_VERSION:
        raise ConstraintCrdtError(
            f"the message speaks wire version {data[1] >> 4}, this node speaks {WIRE_VERSION}: run the same major version on both"
        )


# --- writing: (type, body, how many of the body's parts are never left out) ------------------------------------------

_Body = tuple[int, list[object], int]


def _write_ping(message: Ping) -> _Body:
    changes = message.changes
    if message.base is None and not changes and message.clock is not None:
        changes = list(message.clock.items())
    entries = _entries(changes, message.basis)
    time = None if message.time is None else max(0, message.time) // MS
    return 1, [bytes(message.state_hash), message.base, entries, message.to, None, time], 1


def _write_sync(message: Sync) -> _Body:
    return 2, [bytes(message.state_hash), [wire_run(run, None) for run in message.state.runs], message.to], 2


def _write_delta(message: Delta) -> _Body:
    runs = [wire_run(run, message.basis) for run in message.delta.runs]
    clock = _entries(message.clock.items(), None) if message.base is None and message.clock is not None else []
    return 3, [message.base, message.proof, runs, _entries(message.behind, message.basis), clock, message.to], 3


def _write_ack(message: Ack) -> _Body:
    return 4, [message.answers], 1


def _write_part(message: Part) -> _Body:
    rest = [message.to, message.pause or None, None, message.unpacked]
    return 5, [message.transfer, message.index, message.count, message.size, message.chunk, *rest], 5


def _write_resume(message: Resume) -> _Body:
    return 6, [message.transfer, message.index, message.to], 2


def _write_gone(message: Gone) -> _Body:
    return 7, [message.transfer, message.to], 1


def _write_buckets(message: Buckets) -> _Body:
    return 8, [message.base, bytes(message.state_hash), message.sums, message.to], 3


def _write_mend(message: Mend) -> _Body:
    runs = [wire_run(run, None) for run in message.cells.runs]
    doubt = _bits(message.doubt) if message.doubt else None
    dead = _entries(message.dead, None)
    return 9, [message.base, int(message.step), _bits(message.buckets), runs, doubt, dead, message.to], 4


def _bits(buckets: int) -> bytes:
    return buckets.to_bytes(BUCKETS // 8, "little")


def _entries(entries: Iterable[Entry], base: ClockMark | None) -> list[tuple[object, int]]:
    return [(ref if isinstance(ref, int) else ref_of(ref, base), seq) for ref, seq in entries]


_WRITERS: dict[type[GossipMessage], Callable[..., _Body]] = {
    Ping: _write_ping,
    Sync: _write_sync,
    Delta: _write_delta,
    Ack: _write_ack,
    Part: _write_part,
    Resume: _write_resume,
    Gone: _write_gone,
    Buckets: _write_buckets,
    Mend: _write_mend,
}


# --- reading ---------------------------------------------------------------------------------------------------------


def _fleet(wire: _Envelope) -> str:
    return DEFAULT_FLEET if wire.fleet is None else check_id(wire.fleet, "a fleet name")


def _sender(wire: _Envelope) -> Replica:
    return check_replica(wire.node_id, wire.incarnation)


def _to(wire: _Ping | _Sync | _Delta | _Part | _Resume | _Gone | _Buckets | _Mend) -> int | None:
    return None if wire.to is None else _count(wire.to)


def _count(value: int) -> int:
    if not 0 <= value <= MAX_COUNT:
        raise ConstraintCrdtError("a number in a message is out of bounds")
    return value


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ConstraintCrdtError(f"a name in a message must have {size} bytes, not {len(value)}")
    return value


def _base(wire: _Ping | _Delta) -> bytes | None:
    return None if wire.base is None else _sized(wire.base, CLOCK_NAME_BYTES)


def _read_entries(entries: Sequence[tuple[int | tuple[str, int], int]]) -> list[Entry]:
    return [(read_ref(ref), _count(seq)) for ref, seq in entries]


def _read_clock(entries: Sequence[tuple[int | tuple[str, int], int]]) -> VectorClock:
    whole: dict[Replica, int] = {}
    for ref, seq in _read_entries(entries):
        if isinstance(ref, int) or ref in whole:
            raise ConstraintCrdtError("a clock that is spelled out must name each replica once")
        whole[ref] = seq
    return VectorClock(whole)


def _read_ping(wire: _Ping) -> Ping:
    node, fleet, state_hash = _sender(wire), _fleet(wire), StateHash(_sized(wire.state_hash, STATE_HASH_BYTES))
    changes, base = _read_entries(wire.entries), _base(wire)
    clock = _read_clock(wire.entries) if base is None else None
    time = None if wire.time is None else _count(wire.time) * MS
    return Ping(node=node, fleet=fleet, to=_to(wire), state_hash=state_hash, base=base, changes=changes, clock=clock, time=time)


def _read_sync(wire: _Sync) -> Sync:
    if any(run.lo or run.floor > run.span for run in wire.runs):
        raise ConstraintCrdtError("the runs of a Sync must start at 0 and have no floor above their end")
    runs = [read_run(run) for run in wire.runs]
    return Sync(
        node=_sender(wire),
        fleet=_fleet(wire),
        to=_to(wire),
        state=ConstraintDelta(runs),
        state_hash=StateHash(_sized(wire.state_hash, STATE_HASH_BYTES)),
    )


def _read_delta(wire: _Delta) -> Delta:
    if any(run.floor for run in wire.runs):
        raise ConstraintCrdtError("the runs of a Delta have no floors")
    return Delta(
        node=_sender(wire),
        fleet=_fleet(wire),
        to=_to(wire),
        base=_base(wire),
        proof=None if wire.proof is None else _sized(wire.proof, HASH_TOKEN_BYTES),
        delta=ConstraintDelta([read_run(run) for run in wire.runs]),
        behind=_read_entries(wire.behind),
        clock=_read_clock(wire.clock) if wire.base is None else None,
    )


def _read_ack(wire: _Ack) -> Ack:
    return Ack(node=_sender(wire), fleet=_fleet(wire), answers=_sized(wire.answers, HASH_TOKEN_BYTES))


def _read_part(wire: _Part) -> Part:
    if not 0 <= wire.index < wire.count <= _count(wire.size) or not wire.chunk:
        raise ConstraintCrdtError("a part of a message must have an index below its count, and content")
    if wire.unpacked is not None:
        check_growth(wire.size, _count(wire.unpacked))
    return Part(
        node=_sender(wire),
        fleet=_fleet(wire),
        to=_to(wire),
        transfer=_sized(wire.transfer, TRANSFER_BYTES),
        index=wire.index,
        count=wire.count,
        size=wire.size,
        chunk=wire.chunk,
        pause=bool(wire.pause),
        unpacked=wire.unpacked,
    )


def _read_resume(wire: _Resume) -> Resume:
    transfer = _sized(wire.transfer, TRANSFER_BYTES)
    return Resume(node=_sender(wire), fleet=_fleet(wire), to=_to(wire), transfer=transfer, index=_count(wire.index))


def _read_gone(wire: _Gone) -> Gone:
    return Gone(node=_sender(wire), fleet=_fleet(wire), to=_to(wire), transfer=_sized(wire.transfer, TRANSFER_BYTES))


def _read_buckets(wire: _Buckets) -> Buckets:
    return Buckets(
        node=_sender(wire),
        fleet=_fleet(wire),
        to=_to(wire),
        base=_sized(wire.base, CLOCK_NAME_BYTES),
        state_hash=StateHash(_sized(wire.state_hash, STATE_HASH_BYTES)),
        sums=_sized(wire.sums, BUCKETS * SUM_BYTES),
    )


def _read_mend(wire: _Mend) -> Mend:
    if any(run.lo or run.floor for run in wire.runs):
        raise ConstraintCrdtError("the runs of a Mend start at 0 and have no floors")
    return Mend(
        node=_sender(wire),
        fleet=_fleet(wire),
        to=_to(wire),
        base=_sized(wire.base, CLOCK_NAME_BYTES),
        step=wire.step,
        buckets=_read_bits(wire.buckets),
        cells=ConstraintDelta([read_run(run) for run in wire.runs]),
        doubt=0 if wire.doubt is None else _read_bits(wire.doubt),
        dead=_read_dots(wire.dead),
    )


def _read_dots(entries: Sequence[tuple[int | tuple[str, int], int]]) -> list[tuple[Replica, int]]:
    dots = [(ref, seq) for ref, seq in _read_entries(entries) if isinstance(ref, Replica)]
    if len(dots) < len(entries):
        raise ConstraintCrdtError("a dot must name its replica")
    return dots


def _read_bits(bits: bytes) -> int:
    return int.from_bytes(_sized(bits, BUCKETS // 8), "little")


_READERS: dict[type[_Wire], Callable[..., GossipMessage]] = {
    _Ping: _read_ping,
    _Sync: _read_sync,
    _Delta: _read_delta,
    _Ack: _read_ack,
    _Part: _read_part,
    _Resume: _read_resume,
    _Gone: _read_gone,
    _Buckets: _read_buckets,
    _Mend: _read_mend,
}
