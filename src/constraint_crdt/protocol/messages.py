"""The messages of the exchange and their wire form (docs/design/exchange.md).

| message | says | is answered by |
|---|---|---|
| `Ping` | the sender's hash, clock and time | `Ack` where the hashes are equal, else `Delta` or `Sync` |
| `Delta` | every run above a clock of the receiver; the rows in which the sender is behind | `Delta`, else `Ack` |
| `Sync` | every row from 0 with its floor, for a receiver below a floor | `Delta`, else `Ack` |
| `Ack` | the sender has the hash the receiver stated | nothing |
| `Part` | a slice of a message beyond the limit | the whole message's answer after the last slice; `Resume` at a pause |
| `Resume` | the sender has all parts of a transfer below an index | the next parts, or `Gone` |
| `Gone` | the sender no longer keeps a transfer | `Ping` |
| `Buckets` | equal clocks, different hashes: the sender's bucket sums | `Mend`, or `Ack` if the sums were wrong |
| `Mend` | the sender's cells in the buckets that differ, or the outcome | `Mend`, finally `Ack` |

Every message names the life of its sender. The life of its receiver is named too: as `to`, or in an 8-byte name of a clock or a
hash, which is computed over the reader's replica and so means nothing to another life.

A clock both sides know is *named* by `base`, and the message gives differences from it. So `clock` may be None in a decoded
message; the receiver derives it. A message composed here always has a clock.

Wire form: a msgpack array per message, `[16 * wire version + type, fleet, node id, incarnation, *body]`. `_WIRE` has a row per
type with the fields of the body in their order. Encoding, decoding, validation and equality all follow from that row. Trailing
optional fields are left out where they are empty, and a reader ignores those that it does not know, so new fields come last.
`fleet` is nil for the default fleet; an entry is `[ref, seq]` with `ref` as in a run (`crdt.cells`); `auth` is reserved for an
authentication tag.

Rules kept here:

- Decoding validates every field and every cell, and raises a single type of error.
- Decoding copies the bytes it keeps, so no part of a message keeps the whole message in memory.
- Two messages are equal if they have the same wire form.
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import attrgetter, or_
from typing import Any, ClassVar, Final, NamedTuple, cast

import msgspec

import constraint_crdt.types  # noqa: F401 - registers the kinds of cells
from constraint_crdt.crdt.cells import Ref, Run, Table, UnboundRun, WireRun, array_length, read_ref, read_run, ref_of, wire_run
from constraint_crdt.crdt.clock import (
    CLOCK_NAME_BYTES,
    HASH_TOKEN_BYTES,
    STATE_HASH_BYTES,
    ClockMark,
    Replica,
    StateHash,
    VectorClock,
    check_id,
    check_replica,
)
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, MESSAGE_BYTES
from constraint_crdt.crdt.repair import BUCKETS, SUM_BYTES
from constraint_crdt.errors import ConstraintCrdtError

WIRE_VERSION: Final = 1
"""The major version of the wire form. Nodes of different versions refuse each other's messages."""

DEFAULT_FLEET: Final = "default"

TRANSFER_BYTES: Final = 8
"""Bytes of the name of a transfer."""

HELD_BYTES: Final = 256
"""Bytes of the slices that a `Resume` names as arrived, at most: 2,048 slices."""

MOST_GROWTH: Final = 100
"""Bytes that a compressed byte may expand to."""

MOST_ASKED: Final = 16
"""Nodes in a message that the sender asks for, or that it heard."""

TROUBLE_BYTES: Final = 300
"""Bytes of the trouble in a `Ping`, at most."""

LEAST_ITEM_BYTES: Final = 3
"""Bytes of the shortest cell, run or clock entry, so that a short message needs no count."""

MS: Final = 1_000_000
"""Nanoseconds in a millisecond."""

Entry = tuple[int | Replica, int]
"""A clock entry whose replica may be an index into the clock the message names."""


# --- the messages ----------------------------------------------------------------------------------------------------


class GossipMessage(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The fields all messages have. Messages are equal if they encode to the same bytes."""

    auth: ClassVar[None] = None
    """Reserved on the wire for an authentication tag."""

    node: Replica
    """The sender."""
    clock: VectorClock | None = None
    """The sender's clock, or None where the receiver has to derive it from `base`."""
    fleet: str = DEFAULT_FLEET
    to: int | None = None
    """The receiver's incarnation; None where a name in the message implies it, or where it is not known."""
    base: bytes | None = None
    """The 8-byte name of a clock both sides know; the message gives differences from it."""
    basis: ClockMark | None = None
    """That clock itself, at the sender only: the encoder needs the clock to turn replicas into indexes."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self is other or encode_message(self) == encode_message(other)

    def __hash__(self) -> int:
        return hash(encode_message(self))


class Ping(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The sender's hash, clock and time, for comparison."""

    state_hash: StateHash
    changes: Sequence[Entry] = ()
    """With a `base`: the entries in which the sender's clock differs from it. Without: the clock as it travels, where ended lives
    may be left out."""
    time: int | None = None
    """The sender's time in ns since the epoch, by its own clock; on the wire in ms."""
    asks: Sequence[str] | None = None
    """Nodes that the sender does not hear: it asks who hears them."""
    packed: bytes | None = None
    """Further changes, as of `pack_entries`: only for a reader that says that it `packs`."""
    trouble: str | None = None
    """A fault of the sender that operators of the fleet should see, in a sentence. Nodes of 0.1.0 tell and read none."""

    @property
    def entries(self) -> Iterable[Entry]:
        """The entries that travel: `changes`, or the whole clock if there is no `base` and no `changes`."""
        if self.base is None and not self.changes and self.clock is not None:
            return self.clock.items()
        return self.changes


class ConstraintDelta(msgspec.Struct, frozen=True, eq=False):
    """The runs of a transfer: everything above a clock, as of an instant."""

    runs: Sequence[Run | UnboundRun]
    mutations: int | None = None
    """The mutations that the runs account for, where the sender has counted them. Does not travel."""
    tables: Mapping[int, Table] = {}
    """Of a message that was read apart: the cells of some kinds by key, all those of a kind in the runs."""

    def __len__(self) -> int:
        """The number of cells in the runs."""
        return sum(len(run.cells) for run in self.runs)


class Delta(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The runs the receiver lacks, and the rows in which the sender is behind."""

    delta: ConstraintDelta
    proof: bytes | None = None
    """The sender's hash as an 8-byte token to the receiver, which compares it once the clocks are equal."""
    behind: Sequence[Entry] = ()
    """Entries in which the sender is behind `base`: it asks for these rows."""
    heard: Sequence[tuple[str, int]] | None = None
    """As in an `Ack`."""
    packs: bool = False
    """As in an `Ack`."""

    @property
    def spelled(self) -> Iterable[Entry]:
        """The sender's whole clock, which travels only if there is no `base`."""
        return self.clock.items() if self.base is None and self.clock is not None else ()


class Sync(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The sender's whole state with its floors, for a receiver a Delta cannot serve."""

    state: ConstraintDelta
    state_hash: StateHash


class Ack(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The sender has the hash stated to it. Proves that hash and nothing else."""

    answers: bytes
    """That hash as an 8-byte token to its reader."""
    state_hash: StateHash | None = None
    """The whole hash, in a message that was not decoded."""
    heard: Sequence[tuple[str, int]] | None = None
    """Nodes that the Ping asked for, each with the ms since the sender heard it, without another node in between."""
    packs: bool = False
    """The sender reads `Ping.packed`; said where a Ping had many changes that were not packed. Nodes of 0.1.0 do not."""


class Part(GossipMessage, frozen=True, kw_only=True, eq=False):
    """A slice of a larger or compressed message. No slice has an effect before all of them are there."""

    transfer: bytes
    """The 8-byte name of the message."""
    index: int
    count: int
    size: int
    """Bytes of the whole message, as it travels."""
    chunk: bytes
    pause: bool = False
    """The sender waits after this part until it receives a `Resume`."""
    unpacked: int | None = None
    """Bytes of the whole message after decompression; None without compression."""
    unit: int | None = None
    """Bytes of each slice but the last. The chunk then holds one slice or several, from `index` on: several only for a reader that
    has sent a `Resume` with `held`, since a node of 0.1.0 reads a single slice. None: the chunk is one slice."""


class Resume(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The sender has all slices of a transfer below `index`, and asks for the rest."""

    transfer: bytes
    index: int
    held: bytes | None = None
    """The slices from `index` on that arrived already, one bit each, the lowest first. Nodes of 0.1.0 send none, and when asked
    send all slices from `index` on."""


class Gone(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The sender no longer keeps this transfer."""

    transfer: bytes


class Buckets(GossipMessage, frozen=True, kw_only=True, eq=False):
    """The sender is at `base`, as the receiver was, with another hash. Opens a repair."""

    base: bytes
    state_hash: StateHash
    sums: bytes
    """Eight bytes per bucket: the sum of the hashes of its cells, modulo 2**64."""


class MendStep(enum.IntEnum):
    """The purpose of a `Mend`."""

    MINE = 1
    """The sender's cells in these buckets; the receiver is to answer with its own."""
    EVIDENCE = 2
    """The sender's cells in these buckets; the receiver is to decide."""
    OUTCOME = 3
    """The cells that stand in these buckets from now on."""


class Mend(GossipMessage, frozen=True, kw_only=True, eq=False):
    """Cells in some buckets, of a sender at `base`."""

    base: bytes
    step: MendStep
    buckets: int
    """The buckets, one bit each."""
    cells: ConstraintDelta
    """All cells of the sender in these buckets. The runs say nothing beyond their cells."""
    doubt: int = 0
    """The buckets in which the sender found itself damaged."""
    dead: Sequence[tuple[Replica, int]] = ()
    """Dots of the receiver's cells that are named by removals which the sender holds."""


# --- encoding and decoding -------------------------------------------------------------------------------------------


def encode_message(message: GossipMessage) -> bytes:
    """A message as bytes, without a limit on its size (`transfers` splits large ones)."""
    return _encode(_LAYOUT_OF[type(message)].array(message))


def decode_message(
    data: bytes, max_bytes: int | None = MESSAGE_BYTES, *, most_items: int | None = None, most_cells: int | None = None
) -> GossipMessage:
    """The message in `data`. `max_bytes` None: no limit. `most_items`: the bound on its cells, stubs, runs and clock entries, all
    together; `most_cells`: that on cells and stubs. Both are checked before memory is taken for these, in a message of some size.

    Raises `ConstraintCrdtError` for bytes that are not a well-formed message of this wire version within the limits.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise ConstraintCrdtError(f"a message of {len(data)} bytes is larger than the {max_bytes} allowed")
    if len(data) < 2 or data[1] >> 4 != WIRE_VERSION:
        _check_version(data)
    try:
        if most_items is not None and len(data) > LEAST_ITEM_BYTES * most_items:
            _check_items(sum(map(array_length, _decode_fields(data))), most_items)
        wire = _decode(data)
        layout = _LAYOUT_OF[type(wire)]
        if most_items is not None or most_cells is not None:
            _check_runs(layout.runs_of(wire), most_items, most_cells)
        return layout.read(wire)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConstraintCrdtError(f"this is not a well-formed message: {error}") from error


def check_growth(packed: int, size: int) -> None:
    """Raise `ConstraintCrdtError` if `packed` compressed bytes cannot rightly expand to `size` bytes."""
    if not packed < size <= packed * MOST_GROWTH:
        raise ConstraintCrdtError(f"a packed message of {packed} bytes is said to become {size}: that is refused")


def items_of(message: GossipMessage) -> int:
    """The cells, stubs, runs and clock entries of a message that may be large."""
    if isinstance(message, Ping):
        return sum(1 for _ in message.entries)
    if not isinstance(message, Delta | Sync):
        return 0
    runs = message.delta.runs if isinstance(message, Delta) else message.state.runs
    entries = len(message.behind) + sum(1 for _ in message.spelled) if isinstance(message, Delta) else 0
    return entries + len(runs) + sum([len(run.cells) + len(run.stubs) for run in runs])


def _check_items(items: int, most: int) -> None:
    if items > most:
        raise ConstraintCrdtError(
            f"a message of {items} or more cells, runs and entries is refused: its size allows for {most}, see "
            "`Limits.message_items`"
        )


def _check_runs(runs: Sequence[WireRun], most_items: int | None, most_cells: int | None) -> None:
    """Refuse runs that state more cells and stubs than allowed."""
    cells = sum([run.items for run in runs])
    if most_items is not None:
        _check_items(len(runs) + cells, most_items)
    if most_cells is not None and cells > most_cells:
        raise ConstraintCrdtError(f"more than the {most_cells} cells that this node is set to hold")


def _check_version(data: bytes) -> None:
    if len(data) >= 2 and 0x90 <= data[0] <= 0x9F and data[1] < 0x80 and data[1] >> 4 != WIRE_VERSION:
        theirs = f"{_sender(data)} speaks wire version {data[1] >> 4}"
        raise ConstraintCrdtError(f"{theirs}, this node speaks {WIRE_VERSION}: run the same major version on both")


def _sender(data: bytes) -> str:
    """The node that a message of another wire version names, where it is at the same place as in this version."""
    try:
        name = msgspec.msgpack.decode(_decode_fields(data)[2], type=str)
    except (msgspec.DecodeError, IndexError, UnicodeError, RecursionError):
        return "the message"
    return name if name and len(name.encode()) <= ID_BYTES and name.isprintable() else "the message"


# --- the forms of fields ---------------------------------------------------------------------------------------------

_WireEntry = tuple[Ref, int]


class _Form(NamedTuple):
    """The wire form of a field. A value of None is nil, in both directions."""

    type: Any
    """Its msgpack type."""
    write: Callable[[Any, ClockMark | None], Any] | None = None
    """Converts the value of a message, given its `basis`; None: the value is encoded unchanged."""
    read: Callable[[Any], Any] | None = None
    """Validates a decoded value and converts it; None: the value is kept unchanged."""


def _count(value: int) -> int:
    if not 0 <= value <= MAX_COUNT:
        raise ConstraintCrdtError("a number in a message is out of bounds")
    return value


def _sized(size: int, of: Callable[[bytes], bytes] = bytes) -> Callable[[bytes], Any]:
    """Reads a name of so many bytes."""

    def read(value: bytes) -> bytes:
        if len(value) != size:
            raise ConstraintCrdtError(f"a name in a message must have {size} bytes, not {len(value)}")
        return of(value)

    return read


def _optional(form: _Form) -> _Form:
    """The same form, or nil."""
    return form._replace(type=form.type | None)


def _runs(is_wrong: Callable[[WireRun], object], sentence: str) -> _Form:
    """Runs, refused with `sentence` if any is wrong."""

    def read(runs: Sequence[WireRun]) -> ConstraintDelta:
        if [run for run in runs if is_wrong(run)]:
            raise ConstraintCrdtError(sentence)
        return ConstraintDelta([read_run(run) for run in runs])

    return _Form(list[WireRun], lambda delta, basis: [wire_run(run, basis) for run in delta.runs], read)


def _write_entries(entries: Iterable[Entry], basis: ClockMark | None) -> list[tuple[object, int]]:
    return [(ref if isinstance(ref, int) else ref_of(ref, basis), seq) for ref, seq in entries]


def _read_entries(entries: Sequence[_WireEntry]) -> list[Entry]:
    return [(read_ref(ref), _count(seq)) for ref, seq in entries]


def _read_dots(entries: Sequence[_WireEntry]) -> list[tuple[Replica, int]]:
    dots = [(ref, seq) for ref, seq in _read_entries(entries) if isinstance(ref, Replica)]
    if len(dots) < len(entries):
        raise ConstraintCrdtError("a dot must name its replica")
    return dots


_bytes_of_map: Final = _sized(BUCKETS // 8)


def _write_map(buckets: int) -> bytes:
    return buckets.to_bytes(BUCKETS // 8, "little")


def _read_map(value: bytes) -> int:
    return int.from_bytes(_bytes_of_map(value), "little")


PACKED_FROM: Final = 8
"""Changes of a clock from which on they are packed."""


def pack_entries(changes: Sequence[Entry], base: ClockMark) -> tuple[bytes, list[Entry]]:
    """Changes of a clock in a short form, and those that it cannot have: of replicas outside of `base`, and to a lower seq.

    A bit for each entry of `base` that changed, the lowest first, then by how much each of them rose: three bits in half a byte,
    the lowest first, with the fourth bit set in all but the last. The lower half of a byte comes first.
    """
    rises: dict[int, int] = {}
    rest: list[Entry] = []
    for ref, seq in changes:
        index = ref if isinstance(ref, int) else base.index(ref)
        rise = 0 if index is None else seq - base.entries[base.order[index]]
        if index is not None and rise > 0:
            rises[index] = rise
        else:
            rest.append((ref, seq))
    bits = bytearray((len(base.order) + 7) // 8)
    halves: list[int] = []
    for index in sorted(rises):
        bits[index >> 3] |= 1 << (index & 7)
        rise = rises[index]
        while rise > 7:
            halves.append(8 | (rise & 7))
            rise >>= 3
        halves.append(rise)
    pairs = zip(halves[::2], [*halves[1::2], 0], strict=False)
    return bytes(bits) + bytes(low | high << 4 for low, high in pairs), rest


def unpack_entries(packed: bytes, base: ClockMark) -> list[tuple[Replica, int]]:
    """The changes of `pack_entries`. Raises `ConstraintCrdtError` for bytes that do not fit `base`."""
    size = (len(base.order) + 7) // 8
    halves = [half for byte in packed[size:] for half in (byte & 15, byte >> 4)]
    place, found = 0, []
    for index in range(8 * min(size, len(packed))):
        if packed[index >> 3] >> (index & 7) & 1:
            rise = shift = 0
            while place < len(halves) and shift < 63 and halves[place] & 8:
                rise |= (halves[place] & 7) << shift
                place, shift = place + 1, shift + 3
            if place >= len(halves) or index >= len(base.order):
                raise ConstraintCrdtError("the packed changes of a clock do not fit the clock")
            rise |= (halves[place] & 7) << shift
            place += 1
            replica = base.order[index]
            found.append((replica, _count(base.entries[replica] + rise)))
    if len(packed) < size or any(halves[place:]) or len(halves) - place > 1:
        raise ConstraintCrdtError("the packed changes of a clock have a wrong length")
    return found


def _whole_clock(entries: Sequence[Entry]) -> VectorClock:
    whole: dict[Replica, int] = {}
    for ref, seq in entries:
        if isinstance(ref, int) or ref in whole:
            raise ConstraintCrdtError("a clock that is spelled out must name each replica once")
        whole[ref] = seq
    return VectorClock(whole)


def _checked_names(names: Sequence[str]) -> Sequence[str]:
    if len(names) > MOST_ASKED or any(len(name.encode()) > ID_BYTES for name in names):
        raise ConstraintCrdtError("a message asks for too many nodes, or for too long names")
    return names


def _checked_trouble(text: str) -> str:
    if len(text.encode()) > TROUBLE_BYTES:
        raise ConstraintCrdtError("the trouble that a message tells is too long")
    return text


def _checked_ages(ages: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
    _checked_names([name for name, _ in ages])
    return [(name, _count(age)) for name, age in ages]


_AGES: Final = _Form(list[tuple[str, int]] | None, lambda ages, _: ages or None, _checked_ages)
_ASKS: Final = _Form(list[str] | None, lambda names, _: names or None, _checked_names)
_AUTH: Final = _Form(bytes | None)
_BITS: Final = _Form(bytes, lambda bits, _: _write_map(bits), _read_map)
_BYTES: Final = _Form(bytes)
_COUNT: Final = _Form(int, None, _count)
_DOTS: Final = _Form(list[_WireEntry], _write_entries, _read_dots)
_DOUBT: Final = _Form(bytes | None, lambda bits, _: _write_map(bits) if bits else None, _read_map)
_ENTRIES: Final = _Form(list[_WireEntry], _write_entries, _read_entries)
_FLAG: Final = _Form(bool | None, lambda value, _: value or None)
_HELD: Final = _Form(bytes | None, None, lambda value: value[:HELD_BYTES])
_HASH: Final = _Form(bytes, lambda value, _: bytes(value), _sized(STATE_HASH_BYTES, StateHash))
_INTEGER: Final = _Form(int)
_NAME: Final = _Form(bytes, None, _sized(CLOCK_NAME_BYTES))
_STEP: Final = _Form(MendStep, lambda step, _: int(step))
_SUMS: Final = _Form(bytes, None, _sized(BUCKETS * SUM_BYTES))
_TIME: Final = _Form(int | None, lambda time, _: max(0, time) // MS, lambda time: _count(time) * MS)
_TO: Final = _optional(_COUNT)
_TOKEN: Final = _Form(bytes, None, _sized(HASH_TOKEN_BYTES))
_TRANSFER: Final = _Form(bytes, None, _sized(TRANSFER_BYTES))
_TROUBLE: Final = _Form(str | None, lambda text, _: text or None, _checked_trouble)
_UNREAD_ENTRIES: Final = _Form(list[_WireEntry], _write_entries)


# --- the wire form of each message -----------------------------------------------------------------------------------

_Fields = dict[str, Any]


def _finish_ping(fields: _Fields) -> None:
    changes = fields["changes"] = fields.pop("entries")
    if fields["base"] is None:
        if fields["packed"] is not None:
            raise ConstraintCrdtError("packed changes of a clock need the clock that they change")
        fields["clock"] = _whole_clock(changes)


def _finish_packs(fields: _Fields) -> None:
    fields["packs"] = bool(fields["packs"])


def _finish_delta(fields: _Fields) -> None:
    _finish_packs(fields)
    spelled = fields.pop("spelled")
    if fields["base"] is None:  # else the receiver derives the clock, and these entries mean nothing
        fields["clock"] = _whole_clock(_read_entries(spelled))


def _finish_part(fields: _Fields) -> None:
    if not 0 <= fields["index"] < fields["count"] <= _count(fields["size"]) or not fields["chunk"]:
        raise ConstraintCrdtError("a part of a message must have an index below its count, and content")
    if fields["unpacked"] is not None:
        check_growth(fields["size"], fields["unpacked"])
    unit = fields["unit"]
    if unit is not None and (not unit or fields["index"] - (-len(fields["chunk"]) // unit) > fields["count"]):
        raise ConstraintCrdtError("a part of a message must not reach beyond its last slice")
    fields["pause"] = bool(fields["pause"])


def _finish_mend(fields: _Fields) -> None:
    fields["doubt"] = fields["doubt"] or 0


class _Envelope(msgspec.Struct, array_like=True, gc=False):
    fleet: str | None
    node_id: str
    incarnation: int


class _Layout:
    """The wire form of a type of message."""

    def __init__(
        self,
        message: type[GossipMessage],
        number: int,
        required: dict[str, _Form],
        optional: dict[str, _Form],
        finish: Callable[[_Fields], None] | None = None,
    ) -> None:
        """`required`: the fields always present, by attribute of the message; `optional`: those
        after them, left out where all that follow are empty. `finish`: checks and sets fields that depend on each other.
        """
        self.tag = 16 * WIRE_VERSION + number
        self.message = message
        forms = required | optional
        kinds: list[tuple[Any, ...]] = [(name, form.type) for name, form in required.items()]
        kinds += [(name, form.type, [] if form.write is _write_entries else None) for name, form in optional.items()]
        struct = msgspec.defstruct(message.__name__, kinds, bases=(_Envelope,), tag=self.tag, array_like=True, gc=False)
        self.struct = cast("type[_Envelope]", struct)
        self._runs = next((name for name, form in forms.items() if form.type == list[WireRun]), None)
        names = [name for name in forms if name != "auth"]
        written = list(forms)[: list(forms).index(names[-1]) + 1]
        self._least = 4 + len(required)
        self._values = _getter(written)
        self._writers = [(4 + place, write) for place, name in enumerate(written) if (write := forms[name].write) is not None]
        self._readers = [(name, read) for name in names if (read := forms[name].read) is not None]
        self._finish = finish

    def array(self, message: GossipMessage) -> list[object]:
        """The array a message is encoded as."""
        fleet, basis = message.fleet, message.basis
        array = [self.tag, None if fleet == DEFAULT_FLEET else fleet, *message.node, *self._values(message)]
        for place, write in self._writers:
            value = array[place]
            if value is not None:
                array[place] = write(value, basis)
        end = len(array)
        while end > self._least and not array[end - 1] and array[end - 1] != 0:
            end -= 1
        del array[end:]
        return array

    def runs_of(self, wire: _Envelope) -> Sequence[WireRun]:
        """The runs of a decoded message, not validated."""
        return () if self._runs is None else getattr(wire, self._runs)

    def read(self, wire: _Envelope) -> GossipMessage:
        """The decoded message, validated."""
        fields = msgspec.structs.asdict(wire)
        fields["node"] = check_replica(fields.pop("node_id"), fields.pop("incarnation"))
        fleet = fields["fleet"]
        fields["fleet"] = DEFAULT_FLEET if fleet is None else check_id(fleet, "a fleet name")
        del fields["auth"]
        for name, read in self._readers:
            value = fields[name]
            if value is not None:
                fields[name] = read(value)
        if self._finish is not None:
            self._finish(fields)
        return self.message(**fields)


def _getter(names: Sequence[str]) -> Callable[[object], Sequence[Any]]:
    """Reads these attributes at once."""
    if len(names) > 1:
        return attrgetter(*names)
    (name,) = names
    return lambda source: (getattr(source, name),)


_SYNC_RUNS: Final = _runs(
    lambda run: run.lo or run.floor > run.span, "the runs of a Sync must start at 0 and have no floor above their end"
)
_DELTA_RUNS: Final = _runs(lambda run: run.floor, "the runs of a Delta have no floors")
_MEND_RUNS: Final = _runs(lambda run: run.lo or run.floor, "the runs of a Mend start at 0 and have no floors")
_SLICE: Final = {"transfer": _TRANSFER, "index": _INTEGER, "count": _INTEGER, "size": _INTEGER, "chunk": _BYTES}
_ADDRESS: Final = {"to": _TO, "auth": _AUTH}

_WIRE: Final = (
    _Layout(
        Ping,
        1,
        {"state_hash": _HASH},
        {
            "base": _optional(_NAME),
            "entries": _ENTRIES,
            **_ADDRESS,
            "time": _TIME,
            "asks": _ASKS,
            "packed": _optional(_BYTES),
            "trouble": _TROUBLE,
        },
        _finish_ping,
    ),
    _Layout(Sync, 2, {"state_hash": _HASH, "state": _SYNC_RUNS}, _ADDRESS),
    _Layout(
        Delta,
        3,
        {"base": _optional(_NAME), "proof": _optional(_TOKEN), "delta": _DELTA_RUNS},
        {"behind": _ENTRIES, "spelled": _UNREAD_ENTRIES, **_ADDRESS, "heard": _AGES, "packs": _FLAG},
        _finish_delta,
    ),
    _Layout(Ack, 4, {"answers": _TOKEN}, {"auth": _AUTH, "heard": _AGES, "packs": _FLAG}, _finish_packs),
    _Layout(
        Part,
        5,
        _SLICE,
        {"to": _TO, "pause": _FLAG, "auth": _AUTH, "unpacked": _optional(_COUNT), "unit": _optional(_COUNT)},
        _finish_part,
    ),
    _Layout(Resume, 6, {"transfer": _TRANSFER, "index": _COUNT}, {**_ADDRESS, "held": _HELD}),
    _Layout(Gone, 7, {"transfer": _TRANSFER}, _ADDRESS),
    _Layout(Buckets, 8, {"base": _NAME, "state_hash": _HASH, "sums": _SUMS}, _ADDRESS),
    _Layout(
        Mend,
        9,
        {"base": _NAME, "step": _STEP, "buckets": _BITS, "cells": _MEND_RUNS},
        {"doubt": _DOUBT, "dead": _DOTS, **_ADDRESS},
        _finish_mend,
    ),
)
"""A row per message: its type number, then the fields of its body in their order."""

_LAYOUT_OF: Final = {each: layout for layout in _WIRE for each in (layout.message, layout.struct)}
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final[Callable[[bytes], _Envelope]] = msgspec.msgpack.Decoder(reduce(or_, [layout.struct for layout in _WIRE])).decode
_decode_fields: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
