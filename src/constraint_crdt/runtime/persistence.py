"""Persistence: the state of a node on disk, and the recordings of its inputs and of its measurements.

Rules of the store: a write, or a merged message, is on disk before any peer or user can know of its content; senders await
`durable` first. While the disk takes no writes, writes are refused before they happen, and reads and gossip go on. Unwritten
changes stay in memory and are retried. The incarnation is not vouched for in this time, so that no dot is ever used for two
contents.

Rules of the recording: each frame is a write call, so that a kill loses no frame. A file of half the bound is renamed to
`FILE.1`, replacing the file before, and a new file begins with a checkpoint.

A recording of measurements (`MeasurementRecorder`, for `constraint-crdt backtest`) has the inputs of verdicts: the samples, the
ticks, the checks, and the definitions in force, each with its time. It is bounded as the other recording. The frames of a second
are a write call: a killed node loses as much.

The spells of verdicts (`temporal`) are in a small file beside the store. Without the file, or with a damaged file, the clocks of
`for` and `clear_after` begin anew; nothing else is lost.

A state file is encoded and parsed in a thread, from cells that never change, and merged on the loop, at an instant: newer data here
stays, and the merge is on disk before the import returns.
"""

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from constraint_crdt.alerts import AlertRule
from constraint_crdt.crdt.cells import Run, make_cell
from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.judgement import Judge
from constraint_crdt.expression.temporal import MAX_SPELLS_BYTES, OpenSpell, SavedSpells, encode_spells, read_spells
from constraint_crdt.gossip import fresh_incarnation, steady_ns
from constraint_crdt.model import DurationHistogram
from constraint_crdt.operations.service import Finding, ImportReport
from constraint_crdt.protocol.authority import Credentials
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import NodeChange
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.runtime.settings import DEFAULT_STORE, MEMORY_STORE, NodeSettings
from constraint_crdt.simulation.recorder import HEADER_BYTES, LONGEST_FRAME, Frame, RecordedNode, RecordingError, encode_frame
from constraint_crdt.state import ConstraintState, from_json, to_json
from constraint_crdt.store import Committer, Life, Rollback, Store, WritesRefused, default_path, marker_for, set_aside
from constraint_crdt.store.files import check_regular, read_bounded, replace_file
from constraint_crdt.types.definition import ADD, wire_definition

_log = logging.getLogger("constraint_crdt.node")


def store_path(settings: NodeSettings) -> Path | None:
    """The file of the store by the settings; None if the state is in memory."""
    if settings.store == MEMORY_STORE:
        return None
    return default_path(settings.name, settings.fleet) if settings.store == DEFAULT_STORE else Path(settings.store)


class LostWrites:
    """The writes of this node that its store lacked, because an older state of the store had been put back."""

    def __init__(self, gossip: GossipNode, tell: Callable[[str], None]) -> None:
        """`tell`: called with a sentence about each finding."""
        self._gossip = gossip
        self._tell = tell
        self._known: dict[Replica, int] = {}
        """Per life of this node that was over at the start: up to which seq it is known here."""
        self._lives: dict[Replica, tuple[int, int]] = {}
        """Per life with lost writes: the seq in the store, and the highest seq known to have been written."""

    def begin(self, lives: Sequence[int], rollback: Rollback | None) -> None:
        """The store was opened. `lives`: its incarnations; `rollback`: the loss that the marker shows."""
        rows, name = self._gossip.state.rows, self._gossip.node_id
        replicas = [Replica(name, incarnation) for incarnation in lives]
        self._known = {replica: rows.seq(replica) for replica in replicas}
        if rollback is not None:
            replica = Replica(name, rollback.incarnation)
            self._known.setdefault(replica, rollback.kept)
            self._lives[replica] = rollback.kept, rollback.noted

    def tell_rollback(self) -> None:
        """Tell of the writes that the marker shows to be missing."""
        for replica, (kept, noted) in self._lives.items():
            self._tell(
                f"the store had been put back: {_numbers(kept, noted)} of {replica} are not in it; peers that heard of them bring "
                "them back"
            )

    def outlived(self, peer: str, replica: Replica, seqs: tuple[int, int], resumed: int) -> None:
        """A peer knew more of the present life. `resumed`: its seq at the start of the process."""
        (here, there), before = seqs, self._lives.get(replica)
        self._lives[replica] = min(here, before[0] if before else here), max(there, before[1] if before else there)
        if before is not None and there <= before[1]:
            return
        twice = ""
        if 0 < resumed < here:
            twice = f"; {_numbers(resumed, here)} were made here since the start, and maybe others under the same numbers before"
        self._tell(
            f"{peer} knows {_numbers(here, there)} of {replica}, which this node does not: its store had been put back{twice}"
        )

    def recovered(self, peer: str) -> None:
        """A message of a peer was merged: it may know more of a former life than the store did."""
        rows, present = self._gossip.state.rows, self._gossip.replica
        for replica, known in self._known.items():
            seq = rows.seq(replica)
            if seq > known and replica != present:
                self._known[replica] = seq
                kept, noted = self._lives.get(replica, (known, seq))
                self._lives[replica] = kept, max(noted, seq)
                self._tell(
                    f"{peer} brought back {_numbers(known, seq)} of this node's former life {replica}, which its store did not have"
                )

    @property
    def missing(self) -> int:
        """The writes known to have been lost that no peer has brought back."""
        rows = self._gossip.state.rows
        return sum(max(0, noted - max(kept, rows.seq(replica))) for replica, (kept, noted) in self._lives.items())

    def finding(self) -> Finding | None:
        """The finding on lost writes; None without any."""
        if not self._lives:
            return None
        lost = "; ".join(f"{_numbers(*seqs)} of {replica}" for replica, seqs in self._lives.items())
        what, missing = f"an older state of the store had been put back; it lacked {lost}", self.missing
        if missing:
            advice = (
                "start the nodes that may have heard of them, or make the changes again: the audit of other nodes may name them"
            )
            return Finding(check="rollback", level="fail", what=f"{what}; {missing} of them are still missing", advice=advice)
        advice = "nothing to do: peers brought them back; of a snapshot that was put back on purpose, this is the trace"
        return Finding(check="rollback", level="warn", what=what, advice=advice)


def _numbers(kept: int, last: int) -> str:
    return f"write {last}" if last == kept + 1 else f"writes {kept + 1} to {last}"


LATELY = 30.0
"""Seconds for which refused writes are told of: a full disk takes some again, as the store finds room for a while."""


class Persistence:
    """The store of a node, or none."""

    trouble: str | None = None
    """Why writes are refused; None if they are taken."""
    abandoned = False
    """A thread still waited for the disk when the node stopped."""

    def __init__(self, settings: NodeSettings, gossip: GossipNode) -> None:
        self._settings = settings
        self._gossip = gossip
        self._subscribers: list[Callable[[str | None], None]] = []
        self._refused: tuple[str | None, float] = None, 0.0
        """Why writes were refused last, and when, by the monotonic clock in seconds."""
        self._store: Store | None = None
        self._committer: Committer | None = None
        self.durable: Callable[[], Awaitable[None]] = _without_disk
        """Returns once all changes up to now are on disk. Raises `WritesRefused` if they cannot be written."""
        self.lost = LostWrites(gossip, self._tell_rollback)
        """The writes that the store lacked."""
        self.on_rollback: Callable[[str], None] | None = None
        """Called with a sentence about lost writes."""

    def subscribe(self, subscriber: Callable[[str | None], None]) -> None:
        """Call `subscriber` with the reason when writes begin to be refused, and with None when they are taken again."""
        self._subscribers.append(subscriber)

    @property
    def lately(self) -> str | None:
        """Why writes are refused, or were within the last `LATELY`: a full disk may take some again. None if all were taken."""
        why, at = self._refused
        return self.trouble or (why if time.monotonic() - at < LATELY else None)

    def _health_changed(self, trouble: str | None) -> None:
        self.trouble = trouble
        if trouble is not None:
            self._refused = trouble, time.monotonic()
        for subscriber in self._subscribers:
            subscriber(trouble)

    @property
    def path(self) -> str:
        """The file of the store, or "memory"."""
        return str(self._store.path) if self._store else MEMORY_STORE

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._store.size if self._store else 0

    @property
    def lives(self) -> tuple[Life, ...]:
        """The incarnations of the node in its store, each a `Life`; none without a store."""
        return self._store.lives if self._store else ()

    @property
    def commits(self) -> DurationHistogram | None:
        """How long commits took; None without a store."""
        return self._committer.durations if self._committer else None

    @property
    def waiting(self) -> int:
        """The writes and messages waiting for the next commit."""
        return self._committer.waiting if self._committer else 0

    async def open(self, *, rejoin: bool = False) -> Path | None:
        """Load the state from disk. Raises `StoreError` if the store cannot be used. `tell` tells of a loss that the store shows.

        `rejoin`: rename the old file, and begin with an empty file. Returns the new path of the old file then.
        """
        path = store_path(self._settings)
        if path is None:
            return None
        gossip = self._gossip

        def opened() -> tuple[Store, Path | None]:
            aside = set_aside(path) if rejoin else None
            store = Store.open(
                path,
                node=gossip.node_id,
                fleet=gossip.fleet,
                marker=marker_for(path, steady=steady_ns),
                fresh_incarnation=fresh_incarnation,
            )
            try:
                store.restore(gossip.state.rows)
            except BaseException:
                store.close()
                raise
            return store, aside

        store, aside = await asyncio.to_thread(opened)
        identity = store.identity
        gossip.resume(identity.incarnation, vouched=identity.vouched)
        self.lost.begin([life.incarnation for life in store.lives], store.rollback)
        self._store = store
        seal = None if gossip.authority is None else gossip.local.seal
        self._committer = Committer(store, gossip.state.rows, before=seal, on_health=self._health_changed)
        self._committer.start()
        self.durable = self._committer.durable
        return aside

    def check(self) -> None:
        """Raise `WritesRefused` if the disk takes no writes now."""
        if self.trouble is not None:
            raise WritesRefused(self.trouble)

    def changed(self, change: NodeChange) -> None:
        """Have a change written soon. See `ChangeFeed`."""
        if change.renewed is not None and self._committer:
            before, after = change.renewed
            self._committer.begin_life(after.incarnation, f"after {before}")
        if change.result is not None and change.result.outlived is not None:
            _log.warning("others know more of %s than this node does: its next write starts a new life", change.result.outlived)
            self.lost.outlived(change.peer, change.result.outlived, change.result.unknown, self._gossip.local.resumed)
            if self._committer:
                self._committer.end_life()
        if change.state_changed:
            if change.peer:
                self.lost.recovered(change.peer)
            self.touch()

    def touch(self) -> None:
        """The state may have changed: have it written soon."""
        if self._committer:
            self._committer.touch()

    async def settled(self) -> None:
        """Return once all changes up to now are on disk, or writes are refused and this incarnation is not vouched for any more."""
        if self._committer is not None:
            with contextlib.suppress(WritesRefused):
                await self._committer.durable(patient=True)

    async def told(self) -> None:
        """Return once messages may leave: as `settled`, for the writes of this node alone.

        A node answers for its own row. The rows of others are on disk at their writers. What it loses of them in a crash comes
        again: it starts as from an older copy of its disk.
        """
        if self._committer is not None and not self._committer.is_kept(self._gossip.replica):
            await self.settled()

    def tell(self) -> int:
        """Tell of a loss that the store showed when opened; returns the ns by which the clock was set since the last session."""
        self.lost.tell_rollback()
        return self._store.clock_set_by if self._store else 0

    def findings(self) -> list[Finding]:
        """The findings on lost writes."""
        found = self.lost.finding()
        return [] if found is None else [found]

    def _tell_rollback(self, sentence: str) -> None:
        _log.error("%s", sentence)
        if self.on_rollback is not None:
            self.on_rollback(sentence)

    async def close(self) -> None:
        """Write the last changes, and close the store. Idempotent."""
        committer, self._committer, self.trouble = self._committer, None, None
        self.durable = _without_disk
        if committer:
            await committer.close()
            self.abandoned = self.abandoned or committer.abandoned
        elif self._store:
            await asyncio.to_thread(self._store.close)


async def _without_disk() -> None:
    """Changes of a node without a store wait for nothing."""


class FileRecorder:
    """Records the inputs of a node to a file. Without a path it does nothing."""

    def __init__(self, path: str, max_bytes: int) -> None:
        """`max_bytes`: the bound of both files together. Nothing is opened before `open`."""
        self._path = Path(path)
        self._half = max_bytes // 2
        self._node: RecordedNode | None = None
        self._file: int | None = None
        self._written = 0
        self._beginning = False

    def node(
        self,
        settings: NodeSettings,
        now: Callable[[], int],
        credentials: Credentials | None = None,
        steady: Callable[[], int] | None = None,
    ) -> RecordedNode:
        """Make the node whose inputs are recorded."""
        self._node = RecordedNode(
            settings.name,
            sink=self.write,
            incarnation=fresh_incarnation(),
            now=now,
            renew=fresh_incarnation,
            fleet=settings.fleet,
            max_skew=settings.max_skew,
            credentials=credentials,
            steady=steady,
        )
        return self._node

    def open(self) -> None:
        """Begin the file with a checkpoint, replacing an existing file. Raises `ConstraintCrdtError` if the file cannot be
        written.
        """
        if self._node is None:
            return
        try:
            self._begin(self._node)
        except OSError as error:
            raise ConstraintCrdtError(f"cannot record to {self._path}: {error.strerror or error}") from None

    def write(self, frame: Frame) -> None:
        """Record an input. A failing disk ends the recording, not the node."""
        if self._file is None:
            return
        data = encode_frame(frame)
        try:
            while data:
                written = os.write(self._file, data)
                self._written += written
                data = data[written:]
            if self._written > self._half and self._node is not None and not self._beginning:
                self._set_aside(self._node)
        except OSError as error:
            _log.error("the recording in %s ends here: %s", self._path, error.strerror or error)
            self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _set_aside(self, node: RecordedNode) -> None:
        self.close()
        check_regular(self._path)
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._begin(node)

    def _begin(self, node: RecordedNode) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._beginning = True  # a checkpoint larger than the bound must not begin the next file
        try:
            node.checkpoint()
        finally:
            self._beginning = False
        self._written = 0


# --- measurements -----------------------------------------------------------------------------------------------------------

MEASUREMENTS_FORMAT = 1
"""Version of the frames. A reader refuses a later version."""

MEASUREMENTS_ENDING = ".measurements"
"""Of the file of a node in a directory."""

BUFFERED = 64 * 1024
"""Bytes of frames that wait for the next tick, at most."""


class Begun(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """The first frame of a file: the node, and its knowledge by then."""

    format: int
    node: str
    life: int
    """Of the process: files of the same life belong together."""
    part: int
    """The number of the file in this life. A file other than the first begins with the state at the end of the file before."""
    steady: int
    """The time of samples and ticks, in ns."""
    wall: int
    """The same moment in ns since the epoch."""
    labels: dict[str, str]
    max_age: float
    max_ages: dict[str, float]
    check_every: float
    samples: dict[str, tuple[int, Any]]
    """The latest sample of each variable, with its time."""
    cells: dict[str, list[bytes]]
    """The definitions in force, by constraint."""
    spells: bytes
    """See `temporal.encode_spells`."""
    alerts: list[Any] = []
    """The alert rules of the node, without their places."""


class Named(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """Variables that are measured together. The first of a file has the number 0."""

    names: tuple[str, ...]


class Taken(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """Samples. None: withdrawn."""

    passed: int
    """ns since the frame with a time before."""
    names: int
    """The number of the variables."""
    values: list[Any]


class Ticked(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """A tick."""

    passed: int


class Checked(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """All constraints were judged by given values."""

    passed: int
    values: dict[str, Any]


class Defined(msgspec.Struct, tag=6, array_like=True, frozen=True):
    """The definitions in force of some constraints changed. Empty: there are none any more."""

    passed: int
    cells: dict[str, list[bytes]]


MeasurementFrame = Begun | Named | Taken | Ticked | Checked | Defined

_encode_frame = msgspec.msgpack.Encoder().encode
_decode_frame = msgspec.msgpack.Decoder(MeasurementFrame).decode


def _framed(frame: MeasurementFrame) -> bytes:
    """A frame as bytes of a file: length, checksum, content."""
    body = _encode_frame(frame)
    return len(body).to_bytes(4, "big") + crc32(body).to_bytes(4, "big") + body


def read_measurements(path: Path) -> Iterator[MeasurementFrame]:
    """The frames of a file, without an incomplete last frame. Raises `RecordingError`, with the path, for another or a damaged
    file, for a later version, and if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            number = 0
            while len(head := file.read(HEADER_BYTES)) == HEADER_BYTES:
                number += 1
                size = int.from_bytes(head[:4], "big")
                if size > LONGEST_FRAME:
                    raise RecordingError(f"{path} is damaged, or no recording of measurements: frame {number} has no such length")
                body = file.read(size)
                if len(body) < size and number > 1:
                    return
                if crc32(body) != int.from_bytes(head[4:], "big"):
                    raise RecordingError(
                        f"{path} is damaged, or no recording of measurements: frame {number} does not fit its checksum"
                    )
                yield _read_frame(path, body, number)
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror or error}") from None
    if not number:
        raise RecordingError(f"{path} is no recording of measurements: it is empty")


def _read_frame(path: Path, body: bytes, number: int) -> MeasurementFrame:
    try:
        frame = _decode_frame(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordingError(f"{path} is damaged, or of a later version: frame {number} cannot be read ({error})") from None
    if isinstance(frame, Begun) is not (number == 1):
        raise RecordingError(f"{path} is no recording of measurements: frame {number} is not in its place")
    if isinstance(frame, Begun) and frame.format > MEASUREMENTS_FORMAT:
        raise RecordingError(f"{path} was made by a later version of constraint-crdt: upgrade to read it")
    return frame


def _without_places(rule: AlertRule) -> dict[str, object]:
    """The fields of a rule that are set, but for `to`: an address may hold a secret."""
    fields: dict[str, object] = msgspec.to_builtins(rule)
    return {key: value for key, value in fields.items() if key != "to" and value is not None}


class MeasurementRecorder:
    """Records the measurements of a node to a file. Without a path it does nothing."""

    def __init__(self, settings: NodeSettings, gossip: GossipNode, now: Callable[[], int]) -> None:
        """`now`: the time in ns since the epoch. Nothing is opened before `open`."""
        path = Path(settings.record_measurements)
        if settings.record_measurements and path.is_dir():
            path /= settings.name.replace("/", "_").replace("\0", "_") + MEASUREMENTS_ENDING
        self.path = path
        self._settings = settings
        self._gossip = gossip
        self._now = now
        self._half = settings.record_measurements_bytes // 2
        self._judge: Judge | None = None
        self._measured: LatestMeasurements | None = None
        self._file: int | None = None
        self._waiting = bytearray()
        self._life = fresh_incarnation()
        self._part = self._written = self._at = 0
        self._numbers: dict[tuple[str, ...], int] = {}
        self._kept: dict[str, tuple[int, float]] = {}
        """The last number recorded of each variable, with its time, for the deadband."""

    def open(self, judge: Judge, measured: LatestMeasurements, steady: int) -> None:
        """Begin the file. A file of before is set aside. Raises `ConstraintCrdtError` if the file cannot be written."""
        if not self._settings.record_measurements:
            return
        self._judge, self._measured = judge, measured
        try:
            if self.path.exists() and self.path.stat().st_size:
                check_regular(self.path)
                self.path.replace(self._aside)
            self._begin(steady)
        except OSError as error:
            raise ConstraintCrdtError(f"cannot record measurements to {self.path}: {error.strerror or error}") from None

    @property
    def _aside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.1")

    @property
    def is_open(self) -> bool:
        """True while something is recorded."""
        return self._file is not None

    def take(self, names: Collection[str], now: int) -> None:
        """Samples of these variables were taken in."""
        if self._file is None or self._measured is None:
            return
        samples, values = self._measured.samples, dict[str, Any]()
        for name in names:
            sample = samples.get(name)
            value = None if sample is None else sample.value
            if not self._is_within_deadband(name, value, now):
                values[name] = value
        if not values:
            return
        key = tuple(values)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            self._put(Named(key))
        self._put(Taken(self._passed(now), number, list(values.values())))

    def _is_within_deadband(self, name: str, value: object, now: int) -> bool:
        """True for a number that moved little since the last number, which is of use still."""
        share = self._settings.record_deadband
        if not share or type(value) is not float or self._measured is None:
            self._kept.pop(name, None)
            return False
        at, last = self._kept.get(name, (0, math.nan))
        if abs(value - last) <= share * abs(last) and now - at < self._measured.max_age(name) // 2:
            return True
        self._kept[name] = now, value
        return False

    def tick(self, at: int) -> None:
        """The node looked at the constraints that time moves."""
        if self._file is not None:
            self._put(Ticked(self._passed(at)))
            self._flush()
            if self._written > self._half:
                self._set_aside(at)

    def check(self, values: Mapping[str, object], now: int) -> None:
        """All constraints were judged by given values."""
        if self._file is None:
            return
        try:
            _encode_frame(given := dict(values))
        except (TypeError, ValueError, OverflowError):
            _log.warning("the recording in %s lacks a check with values that have no encoding", self.path)
            return
        self._put(Checked(self._passed(now), given))

    def define(self, ids: Iterable[str], now: int) -> None:
        """The definitions in force of these constraints changed."""
        if self._file is not None:
            self._put(Defined(self._passed(now), self._cells(ids)))

    def close(self) -> None:
        """Write the waiting frames, and close the file. Idempotent."""
        self._flush()
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _cells(self, ids: Iterable[str]) -> dict[str, list[bytes]]:
        """The definitions in force, with the values of the parameters in place of their names."""
        state, labels = self._gossip.state, self._gossip.labels
        bound = {id_: [state.parameters.bind(each, labels).definition for each in state.definitions_on(id_, labels)] for id_ in ids}
        return {id_: [make_cell(ADD, id_, wire_definition(each, None)).data for each in found] for id_, found in bound.items()}

    def _passed(self, now: int) -> int:
        passed, self._at = now - self._at, now
        return passed

    def _put(self, frame: MeasurementFrame) -> None:
        self._waiting += _framed(frame)
        if len(self._waiting) > BUFFERED:
            self._flush()

    def _flush(self) -> None:
        """Write the frames that wait. A failing disk ends the recording, not the node."""
        if self._file is None:
            return
        data, self._waiting = bytes(self._waiting), bytearray()
        try:
            while data:
                written = os.write(self._file, data)
                self._written += written
                data = data[written:]
        except OSError as error:
            _log.error("the recording in %s ends here: %s", self.path, error.strerror or error)
            file, self._file = self._file, None
            os.close(file)

    def _set_aside(self, now: int) -> None:
        try:
            self.close()
            check_regular(self.path)
            self.path.replace(self._aside)
            self._part += 1
            self._begin(now)
        except OSError as error:
            _log.error("the recording in %s ends here: %s", self.path, error.strerror or error)

    def _begin(self, now: int) -> None:
        settings, judge, measured = self._settings, self._judge, self._measured
        if judge is None or measured is None:
            return
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._written, self._at, self._numbers, self._kept = 0, now, {}, {}
        known = [id_ for id_ in self._gossip.state.constraints if not judge.is_stale(id_)]
        self._put(
            Begun(
                MEASUREMENTS_FORMAT, self._gossip.node_id, self._life, self._part, now, self._now(), dict(self._gossip.labels),
                settings.max_age, settings.max_ages, settings.check_every,
                {name: (each.at, each.value) for name, each in measured.samples.items()}, self._cells(known),
                judge.save(now), [_without_places(each) for each in settings.alert],
            )
        )  # fmt: skip
        self._flush()


class StateFiles:
    """The whole state of a node, exported to and merged from state files."""

    def __init__(
        self,
        gossip: GossipNode,
        persistence: Persistence,
        received: Callable[[str, GossipResult], int],
        push: Callable[[], None],
    ) -> None:
        """`received(from, result)` tells the node of a merge, and returns the number of constraints that changed; `push()` has
        peers hear of it.
        """
        self._gossip = gossip
        self._persistence = persistence
        self._received = received
        self._push = push

    async def export(self) -> str:
        """The state of this instant. O(cells), most of it in a thread."""
        rows = self._gossip.state.rows
        return await asyncio.to_thread(_text, Rows(rows.digest, rows.limits), rows.whole())

    async def merge(self, text: str | bytes, max_bytes: int) -> ImportReport:
        """Merge a state. Raises `StateFileError` for invalid text, `ConstraintCrdtError` beyond a limit, and `WritesRefused`."""
        self._persistence.check()
        rows = self._gossip.state.rows
        incoming = await asyncio.to_thread(from_json, text, limits=rows.limits, max_bytes=max_bytes, digest=rows.digest)
        self._persistence.check()
        cells = sum(len(run.cells) for run in incoming.rows.since(rows.clock_entries))
        result = self._gossip.merge(incoming)
        constraints = self._received("a state file", result)
        if result.state_changed:
            self._push()
        await self._persistence.durable()
        return ImportReport(result.state_changed, cells if result.state_changed else 0, constraints)


def _text(rows: Rows, runs: Sequence[Run]) -> str:
    rows.apply(runs, whole=True)
    return to_json(ConstraintState(rows))


SAVED_AT_ONCE = 200
"""Spells read in a turn of the loop. They take some milliseconds."""

RUNNING_EVERY = 5 * SECOND
"""The time between two writes of spells whose clocks run, without a turn, in ns. A killed node loses this time of `for`."""


def _save_spells(file: Path, spells: Sequence[OpenSpell]) -> None:
    replace_file(file, encode_spells(spells))


class SpellFile:
    """The file of the spells of this node's verdicts."""

    def __init__(self, store: Path | None, judge: Judge) -> None:
        """`store`: the file of the store; None: nothing is kept."""
        self._file = None if store is None else store.with_name(f"{store.name}.verdicts.json")
        self._judge = judge
        self._turns = 0
        self._saved_at = 0

    async def load(self) -> None:
        """Have the judge take over the spells of the time before. An unusable file is ignored with a warning."""
        if self._file is None:
            return
        try:
            self._judge.resume(await asyncio.to_thread(self._read, self._file))
        except FileNotFoundError:
            return
        except (OSError, ConstraintCrdtError) as error:
            _log.warning("cannot read the verdicts in %s (%s): the clocks of `for` and `clear_after` begin anew", self._file, error)

    @staticmethod
    def _read(file: Path) -> SavedSpells:
        return read_spells(read_bounded(file, MAX_SPELLS_BYTES))

    async def save(self, *, final: bool = False) -> None:
        """Save the spells if a state turned since, and at intervals while a clock runs. `final`: before the end of the interval."""
        now, turns = steady_ns(), self._judge.turns
        pause = 0 if final else RUNNING_EVERY
        if self._file is None or (turns == self._turns and not (self._judge.is_running and now - self._saved_at >= pause)):
            return
        spells, ids = list[OpenSpell](), self._judge.open_ids
        for start in range(0, len(ids), SAVED_AT_ONCE):
            spells += self._judge.open_spells(ids[start : start + SAVED_AT_ONCE], steady_ns())
            await asyncio.sleep(0)
        try:
            await asyncio.to_thread(_save_spells, self._file, spells)
            self._turns, self._saved_at = turns, now
        except OSError as error:
            _log.warning("cannot write the verdicts to %s: %s", self._file, error.strerror or error)
