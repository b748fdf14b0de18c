"""State files: whole states as JSON, for files and pipes. docs/reference/state-files.md describes the form.

Rules kept here:

- Cells travel as their own bytes, never encoded again, so the hash of the state is kept, and cells of unknown kinds pass
  unchanged.
- The same state gives the same text.
- A text is checked before a state is made: the form, the bounds, the order, a checksum over all relevant parts, every cell, and
  the state hash. A text with any error is refused as a whole.
- The part for people and `jq`, `reading`, is derived, and never parsed.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from constraint_crdt.crdt.cells import Cell, Run, Stub, read_cell
from constraint_crdt.crdt.digest import Digest, replica_bytes
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MAX_COUNT, Limits
from constraint_crdt.crdt.replica import Replica, check_replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import IfUnknown
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import ADD, Definition, read_addition
from constraint_crdt.types.view import no_time

FORMAT: Final = "constraint-crdt state"
VERSION: Final = 1

MAX_STATE_BYTES: Final = 256 * 1024 * 1024
"""The longest text accepted by default. Parsing takes some ten times as much memory."""


class StateFileError(ConstraintCrdtError, ValueError):
    """A text is no state, or not to be trusted. `field` is the place of the error in the text, if known."""

    def __init__(self, message: str, field: str | None = None) -> None:
        """`message`: a sentence. `field`: the place of the error in the text, such as `rows[0].seq`."""
        super().__init__(f"the state file is wrong at `{field}`: {message}" if field else message)
        self.field = field


class _Head(msgspec.Struct):
    format: str
    version: int


class _Cell(msgspec.Struct, array_like=True, gc=False):
    """Many live at once, while a node goes on: they are nothing for the collector to walk."""

    seq: int
    data: bytes


class _Row(msgspec.Struct):
    node: str
    incarnation: int
    seq: int
    cells: list[_Cell]
    floor: int = 0
    stubs: list[Stub] | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct):
    hash: str
    checksum: str
    rows: list[_Row]


_encode = msgspec.json.Encoder().encode
_head = msgspec.json.Decoder(_Head)
_file = msgspec.json.Decoder(_File)


def to_json(state: ConstraintState) -> str:
    """The whole state as a JSON object on a single line. O(cells)."""
    rows = [_row(run) for run in sorted(state.rows.whole(), key=lambda run: run.replica)]
    head = {"format": FORMAT, "version": VERSION, "hash": state.state_hash.hex(), "checksum": _checksum(rows)}
    # Piece by piece: what is made for a large state is gone at once, and no step keeps other threads waiting for long.
    parts = [_encode(head)[:-1], b',"reading":', _reading(state), b',"rows":[', b",".join([_encode(row) for row in rows]), b"]}"]
    return b"".join(parts).decode()


def from_json(
    text: str | bytes,
    *,
    now: Callable[[], int] = no_time,
    limits: Limits = DEFAULT_LIMITS,
    max_bytes: int = MAX_STATE_BYTES,
    digest: Digest | None = None,
) -> ConstraintState:
    """The state written by `to_json`, with its clock, floors and hash.

    `now` and `limits`: of the new state; without `now` time stands still, and nothing expires. `digest`: of the fleet of the
    file, for a fleet with a secret. Raises `StateFileError` (a `ConstraintCrdtError`) for a text that is no state, damaged, of a
    newer version or longer than `max_bytes`, and `ConstraintCrdtError` beyond a limit.
    """
    data = _bytes(text, max_bytes)
    _check_head(data)
    file = _decoded(_file, data)
    runs = [_run(row, place) for place, row in enumerate(file.rows)]
    _check_replicas(runs)
    if file.checksum != _checksum(file.rows):
        raise StateFileError("the state file is damaged: its checksum is not that of its rows; make it again")
    for run, row, place in zip(runs, file.rows, range(len(runs)), strict=True):
        run.cells = _cells(run.replica, row, place)
    state = ConstraintState(Rows(digest, limits), now=now)
    state.rows.apply(runs, whole=True)
    if state.state_hash.hex() != file.hash:
        raise StateFileError("its content has another hash: it is damaged, or from a fleet with another secret", "hash")
    return state


# --- writing -----------------------------------------------------------------------------------------------------------


def _row(run: Run) -> _Row:
    cells = [_Cell(cell.seq, cell.data) for cell in run.cells]
    stubs = list(run.stubs) if run.stubs else msgspec.UNSET
    return _Row(run.replica.node_id, run.replica.incarnation, run.hi, cells, run.floor, stubs)


def _reading(state: ConstraintState) -> bytes:
    """The readings of the state, for people and `jq`; independent of time, so the same state gives the same text."""
    totals = {
        "satisfied": state.metrics.total_satisfied,
        "violations": state.metrics.total_violations,
        "position": state.position,
    }
    ids = sorted(map(str, state.rows.table(ADD)))
    constraints = b",".join([_encode({"id": id_, "definitions": _definitions(state, id_)}) for id_ in ids])
    return b'{"constraints":[' + constraints + b"]," + _encode(totals)[1:]


def _definitions(state: ConstraintState, id_: str) -> list[dict[str, object]]:
    """The standing definitions of a constraint, expired ones included."""
    cells = sorted(state.rows.held(ADD, id_), key=lambda cell: (cell.replica, cell.seq))
    found = dict.fromkeys(read_addition(cell).definition for cell in cells)
    return [{key: value for key, value in _parts(each) if value} for each in found]


def _parts(definition: Definition) -> list[tuple[str, object]]:
    return [
        ("when", definition.when),
        ("severity", str(definition.severity)),
        ("about", definition.about),
        ("on", dict(definition.on)),
        ("expires_at", definition.expires_at),
        ("for", definition.for_),
        ("clear_after", definition.clear_after),
        ("clear_when", definition.clear_when),
        ("if_unknown", None if definition.if_unknown is IfUnknown.UNKNOWN else definition.if_unknown.value),
        ("max_age", definition.max_age),
        ("meaning", definition.meaning),
    ]


def _checksum(rows: Sequence[_Row]) -> str:
    """A checksum over all parsed parts, removals and floors included, which the state hash does not cover. Each part is
    unambiguous."""
    hasher = blake2b(digest_size=32, person=b"state file")
    for row in rows:
        numbers = (row.seq, row.floor, len(row.cells))
        hasher.update(replica_bytes(Replica(row.node, row.incarnation)) + b"".join(n.to_bytes(8, "big") for n in numbers))
        hasher.update(b"".join([cell.seq.to_bytes(8, "big") + len(cell.data).to_bytes(4, "big") + cell.data for cell in row.cells]))
    return hasher.hexdigest()


# --- reading -----------------------------------------------------------------------------------------------------------


def _bytes(text: str | bytes, max_bytes: int) -> bytes:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise StateFileError("the state file is not valid Unicode text") from None
    if len(data) > max_bytes:
        raise StateFileError(f"the state file has {len(data)} bytes, more than the {max_bytes} that are read")
    if not data.strip():
        raise StateFileError("the state file is empty")
    return data


def _check_head(data: bytes) -> None:
    """Check the part common to all versions of the form, to tell a newer version from a malformed text."""
    foreign = StateFileError(f"this is no state file: it is not an object with `format` {FORMAT!r} and a `version`")
    try:
        head = _head.decode(data)
    except msgspec.ValidationError:
        raise foreign from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if head.format != FORMAT or head.version < 1:
        raise foreign
    if head.version > VERSION:
        raise StateFileError(
            f"the state file was made by a newer version of constraint-crdt (form {head.version}, this one reads up to {VERSION}): "
            "upgrade constraint-crdt here"
        )


def _decoded(decoder: "msgspec.json.Decoder[_File]", data: bytes) -> _File:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise StateFileError(message[:1].lower() + message[1:], place.strip("`.") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None


def _not_json(error: Exception) -> StateFileError:
    reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    return StateFileError(f"the state file is not JSON, or only a part of it: {reason}")


def _run(row: _Row, place: int) -> Run:
    """The run of a row, still without its cells: all numbers in bounds, the cells in ascending order."""
    try:
        replica = check_replica(row.node, row.incarnation)
    except ConstraintCrdtError as error:
        raise StateFileError(str(error), f"rows[{place}]") from None
    if not 0 < row.seq <= MAX_COUNT:
        raise StateFileError("a row has a seq from 1 to 2**63 - 1", f"rows[{place}].seq")
    if not 0 <= row.floor <= row.seq:
        raise StateFileError("a floor cannot be above the seq of its row", f"rows[{place}].floor")
    last = 0
    for number, cell in enumerate(row.cells):
        if not last < cell.seq <= row.seq:
            raise StateFileError("seqs go up, and not above the seq of their row", f"rows[{place}].cells[{number}]")
        last = cell.seq
    return Run(replica, 0, row.seq, (), row.floor, 0, row.stubs or ())


def _check_replicas(runs: Sequence[Run]) -> None:
    seen: set[Replica] = set()
    for place, run in enumerate(runs):
        if run.replica in seen:
            raise StateFileError(f"there is a row of {run.replica} before", f"rows[{place}]")
        seen.add(run.replica)


def _cells(replica: Replica, row: _Row, place: int) -> list[Cell]:
    """The cells of a row, each validated and at its dot."""
    cells = []
    for number, written in enumerate(row.cells):
        try:
            cell = read_cell(written.data)
        except (msgspec.DecodeError, RecursionError, UnicodeError, ConstraintCrdtError) as error:
            reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            raise StateFileError(f"this is no cell: {reason}", f"rows[{place}].cells[{number}]") from None
        cell.replica, cell.seq = replica, written.seq
        if not isinstance(cell.key, str):
            cell.key = written.seq
        cells.append(cell)
    return cells
