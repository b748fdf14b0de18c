"""Verdicts: the state of each constraint on each node, as told by the node itself.

| kind | key | value |
|---|---|---|
| 24 VERDICT | constraint id | nil, or `[state, since, [[input, text], …], margin, share, variable, reason, flags, life]` |

A node writes a cell when the state of a constraint turns, and only for constraints with a state other than `holds` at some time.
`state` is a number of `STATES`, 0 for nothing to tell, as is nil; `since` is in ns of hybrid time; bit 1 of `flags` marks a verdict
by default. Trailing defaults are left out. Rules kept here:

- A reader ignores further elements of a value, and reads the number of an unknown state as `unknown`. Later versions may add both.
- No cell is removed: 0.1.0 refuses a message with a removal of a kind that it does not know. A cell with nothing more to tell is
  overwritten by a value without content.
- Of several lives of a node, a single cell counts per constraint: the highest `life`, then the latest `since`, then the order of
  the replicas. `life` is the number of takeovers: a writer takes the cells of other lives over with their highest number plus 1.
  The order thus needs no clock, and a life without knowledge of the former ones (a lost store) takes over as soon as it hears of
  them. `restated` lists the verdicts to take over, `told_by` all that the node told.
- Verdicts of retired nodes are left out, and inside a state also those of constraints without a standing add. A constraint after
  its expiry is left out once its adds are removed, or as soon as its nodes have nothing to tell of the constraint.
- Readings are updated with each cell, and never recomputed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from math import isfinite
from typing import Final, NamedTuple, Self

import msgspec

from constraint_crdt.crdt.cells import Cell, make_cell, register, require, require_counts, require_text, value_of
from constraint_crdt.crdt.clock import Replica, check_id, writer
from constraint_crdt.crdt.limits import ID_BYTES, MAX_COUNT, real_number, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, InvalidType
from constraint_crdt.model import VerdictState
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import RETIRE, UNDO, Retirements
from constraint_crdt.types.view import IndexedView

VERDICT: Final = 24

INPUTS_BYTES: Final = 256
"""Names and texts of the inputs of a verdict together, in UTF-8."""

INPUT_BYTES: Final = 64
"""The text of an input, in UTF-8, where a verdict has several inputs."""

REASON_BYTES: Final = 256
"""The reason of a verdict, in UTF-8."""

STATES: Final = (
    None,
    VerdictState.HOLDS,
    VerdictState.PENDING,
    VerdictState.VIOLATED,
    VerdictState.CLEARING,
    VerdictState.UNKNOWN,
    VerdictState.OFF,
)
"""The states by their numbers on the wire; None for nothing to tell."""

VIOLATED_STATES: Final = frozenset((VerdictState.VIOLATED, VerdictState.CLEARING))

BY_DEFAULT: Final = 1
"""The bit of the flags: the verdict is that of `if_unknown`."""

_CUT: Final = "…"

Inputs = tuple[tuple[str, str], ...]
"""Name and text of the values read."""


class NodeVerdict(NamedTuple):
    """The state of a constraint on a node."""

    state: VerdictState
    """The verdict with `for`, `clear_after` and `clear_when` applied."""
    since: int = 0
    """The beginning of the state in ns since the epoch; of pending, violated and clearing the first violated look of the spell."""
    inputs: Inputs = ()
    """Name and text of the variables read at the turn, shortened to 256 bytes together."""
    margin: float | None = None
    """The signed distance to the threshold; negative for a violation."""
    share: float | None = None
    """The margin as a share of the threshold."""
    variable: str | None = None
    """The variable of the margin."""
    reason: str = ""
    """The reason of an unknown outcome, at the turn; empty for others."""
    by_default: bool = False
    """The verdict is that of `if_unknown`: the outcome itself is unknown."""


class InputValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An input inside the value of a VERDICT cell."""

    name: str
    text: str


class VerdictValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a VERDICT cell."""

    state: int
    since: int = 0
    inputs: tuple[InputValue, ...] = ()
    margin: float | None = None
    share: float | None = None
    variable: str | None = None
    reason: str = ""
    flags: int = 0
    life: int = 0


def _check_verdict(_: str, value: VerdictValue | None) -> None:
    if value is None:
        return
    require_counts((value.state, value.since, value.flags, value.life), "a number of a verdict")
    require(_size((each.name, each.text) for each in value.inputs) <= INPUTS_BYTES, "the size of the inputs of a verdict")
    require(all(number is None or isfinite(number) for number in (value.margin, value.share)), "the margin of a verdict")
    require_text(value.variable or "", "the variable of a verdict")
    require_text(value.reason, "the reason of a verdict", REASON_BYTES)


register(VERDICT, VerdictValue | None, _check_verdict, key_bytes=ID_BYTES, empty_key=False, default=None, removable=True)


# --- texts of inputs ---------------------------------------------------------------------------------------------------


def input_texts(values: Mapping[str, object], first: str | None = None) -> Inputs:
    """The values as the inputs of a verdict: JSON texts, shortened, `first` (the variable of the margin) before the others."""
    return shortened_inputs(((name, _text_of(value)) for name, value in values.items()), first)


def shortened_inputs(inputs: Iterable[tuple[str, str]], first: str | None = None) -> Inputs:
    """The inputs in the order of their names, `first` before the others, with at most 256 bytes together.

    A text beyond 64 bytes is cut, but for a single input. An input without room for its name and an ellipsis is left out.
    """
    ordered = sorted(inputs, key=lambda each: (each[0] != first, each[0]))
    longest = INPUT_BYTES if len(ordered) > 1 else INPUTS_BYTES
    found: list[tuple[str, str]] = []
    left = INPUTS_BYTES
    for name, text in ordered:
        room = left - len(_encoded(name))
        cut = _cut(text, min(longest, room))
        if room >= len(_encoded(_CUT)):
            found.append((name, cut))
            left = room - len(_encoded(cut))
    return tuple(found)


def value_text(value: object, max_bytes: int = INPUTS_BYTES) -> str:
    """A measured value as a JSON text, cut to so many bytes. NaN and infinities, which JSON does not have, as `nan` and `inf`."""
    return _cut(_text_of(value), max_bytes)


def _text_of(value: object) -> str:
    if isinstance(value, float):
        return repr(value)
    try:
        text = msgspec.json.encode(value).decode()
        return _exact_text(value) if "null" in text else text
    except (TypeError, ValueError, OverflowError, RecursionError):
        return str(value)


def _exact_text(value: object) -> str:
    """A value with floats for which JSON has null only."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_exact_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_exact_text(key)}:{_exact_text(each)}" for key, each in value.items()) + "}"
    return msgspec.json.encode(value).decode()


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")


def _cut(text: str, max_bytes: int) -> str:
    """The text, with an ellipsis for the part beyond the bytes; valid Unicode in any case."""
    data = _encoded(text)
    if len(data) <= max_bytes:
        return data.decode()
    return data[: max(0, max_bytes - len(_encoded(_CUT)))].decode(errors="ignore") + _CUT


def _size(inputs: Iterable[Sequence[str]]) -> int:
    return sum(len(part.encode()) for each in inputs for part in each)


# --- cells -------------------------------------------------------------------------------------------------------------


def _number(value: float | None) -> float | None:
    number = None if value is None else real_number(value, "the margin of a verdict")
    return number if number is not None and isfinite(number) else None


def check_verdict(verdict: NodeVerdict) -> NodeVerdict:
    """The verdict as its cell can hold it: texts shortened, and no margin in place of an infinite margin.

    Raises `TypeError` for a part of another type, and `ConstraintCrdtError` for a time out of bounds.
    """
    if not isinstance(verdict.state, VerdictState):
        raise InvalidType(f"the state of a verdict is a VerdictState, not {verdict.state!r}")
    since = whole_number(verdict.since, "the time of a verdict")
    if not 0 <= since <= MAX_COUNT:
        raise ConstraintCrdtError(f"a time is in ns since the epoch and cannot be {since}")
    variable = None if verdict.variable is None else _cut(verdict.variable, ID_BYTES)
    inputs = shortened_inputs(verdict.inputs, variable)
    numbers = (_number(verdict.margin), _number(verdict.share))
    return NodeVerdict(verdict.state, since, inputs, *numbers, variable, _cut(verdict.reason, REASON_BYTES), verdict.by_default)


_DEFAULTS: Final[tuple[object, ...]] = (0, 0, [], None, None, None, "", 0, 0)


def make_verdict(id_: str, verdict: NodeVerdict | None, life: int = 0) -> Cell:
    """A VERDICT cell. `verdict`: within its bounds, see `check_verdict`; None for nothing to tell."""
    if verdict is None:
        value: list[object] = [0, 0, [], None, None, None, "", 0, life]
        return make_cell(VERDICT, id_, value if life else None)
    flags = BY_DEFAULT if verdict.by_default else 0
    head = [STATES.index(verdict.state), verdict.since, [list(each) for each in verdict.inputs]]
    value = [*head, verdict.margin, verdict.share, verdict.variable, verdict.reason, flags, life]
    while len(value) > 1 and value[-1] == _DEFAULTS[len(value) - 1]:
        value.pop()
    return make_cell(VERDICT, id_, value)


def read_verdict(cell: Cell) -> tuple[NodeVerdict | None, int]:
    """The verdict in a VERDICT cell, None for nothing to tell, and the number of takeovers before."""
    value: VerdictValue | None = value_of(cell)
    if value is None:
        return None, 0
    state = STATES[value.state] if value.state < len(STATES) else VerdictState.UNKNOWN
    if state is None:
        return None, value.life
    inputs = tuple([(each.name, each.text) for each in value.inputs])
    by_default = bool(value.flags & BY_DEFAULT)
    verdict = NodeVerdict(state, value.since, inputs, value.margin, value.share, value.variable, value.reason, by_default)
    return verdict, value.life


# --- the view ----------------------------------------------------------------------------------------------------------


class _Standing(NamedTuple):
    """A cell that stands, with its place in the order of the lives of a node."""

    life: int
    since: int
    replica: Replica
    verdict: NodeVerdict | None

    @property
    def rank(self) -> tuple[int, int, Replica]:
        """Of the cells of several lives the highest rank counts."""
        return self.life, self.since, self.replica


def _standing(cell: Cell) -> _Standing:
    verdict, life = read_verdict(cell)
    return _Standing(life, verdict.since if verdict is not None else 0, cell.replica, verdict)


class ConstraintVerdicts(IndexedView):
    """The verdicts of all nodes in service: `in`, `len` and iteration are over the constraints with a verdict.

    Readings are O(1), or O(verdicts returned).
    """

    KINDS = (VERDICT, RETIRE, UNDO)

    def __init__(self, rows: Rows | None = None, *, retirements: Retirements | None = None, active_only: bool = False) -> None:
        """`retirements`: those over the same rows, if they are kept already. `active_only`: leave out constraints without an add
        that stands."""
        rows = Rows() if rows is None else rows
        self._retirements = Retirements(rows) if retirements is None else retirements
        self._active_only = active_only
        super().__init__(rows)
        self._retirements.watch(self._retired)
        if active_only:
            rows.watch(ADD, self._added, None, self._added_all)

    def _with_rows(self, rows: Rows) -> Self:
        return type(self)(rows, active_only=self._active_only)

    # --- following cells -------------------------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._held: dict[str, dict[str, _Standing]] = {}
        """The cell that counts, by constraint and node."""
        self._ids: dict[str, set[str]] = {}
        """The constraints with a cell of each node."""
        self._shown: dict[str, dict[str, NodeVerdict]] = {}
        self._by_node: dict[str, dict[str, NodeVerdict]] = {}
        self._states = dict.fromkeys(VerdictState, 0)
        self._violated: dict[str, int] = {}
        self._unknown: dict[str, int] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None or cell.kind != VERDICT:
            return
        id_, replica = str(cell.key), cell.replica
        held = self._held.setdefault(id_, {})
        before = held.get(replica.node_id)
        after = _standing(new) if new is not None else None
        if after is None or (before is not None and before.replica == replica and before.rank > after.rank):
            after = self._latest(id_, replica.node_id)
        elif before is not None and before.rank > after.rank:
            return
        self._hold(id_, replica.node_id, after)

    def _latest(self, id_: str, node: str) -> _Standing | None:
        """The cell that counts, from all lives of a node. O(rows with a verdict on the constraint)."""
        cells = (cell for cell in self._rows.held(VERDICT, id_) if cell.replica.node_id == node)
        return max(map(_standing, cells), key=lambda each: each.rank, default=None)

    def _hold(self, id_: str, node: str, standing: _Standing | None) -> None:
        if standing is not None:
            self._held[id_][node] = standing
            self._ids.setdefault(node, set()).add(id_)
        else:
            self._held[id_].pop(node, None)
            self._ids.get(node, set()).discard(id_)
        self._show(id_, node)

    def _retired(self, node: str) -> None:
        for id_ in self._ids.get(node, ()):
            self._show(id_, node)

    def _added(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None and cell.key in self._held:
            for node in self._held[str(cell.key)]:
                self._show(str(cell.key), node)

    def _added_all(self, cells: Sequence[Cell]) -> None:
        for cell in cells if self._held else ():
            self._added(None, cell)

    def _show(self, id_: str, node: str) -> None:
        """Bring the readings of a constraint on a node up to date."""
        standing = self._held[id_].get(node)
        left_out = node in self._retirements or (self._active_only and id_ not in self._rows.table(ADD))
        after = None if standing is None or left_out else standing.verdict
        before = self._shown.get(id_, {}).get(node)
        if before is not None:
            self._count(id_, before.state, -1)
            _drop(self._shown, id_, node)
            _drop(self._by_node, node, id_)
        if after is not None:
            self._count(id_, after.state, 1)
            self._shown.setdefault(id_, {})[node] = after
            self._by_node.setdefault(node, {})[id_] = after

    def _count(self, id_: str, state: VerdictState, by: int) -> None:
        self._states[state] += by
        counts = self._violated if state in VIOLATED_STATES else self._unknown if state is VerdictState.UNKNOWN else None
        if counts is not None:
            counts[id_] = counts.get(id_, 0) + by
            if not counts[id_]:
                del counts[id_]

    # --- reading -------------------------------------------------------------------------------------------------------

    def __contains__(self, id_: object) -> bool:
        return id_ in self._shown

    def __len__(self) -> int:
        return len(self._shown)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._shown))

    def __repr__(self) -> str:
        return f"ConstraintVerdicts({len(self)} constraints, {len(self.violated)} violated, {len(self.unknown)} unknown)"

    def of(self, id_: str) -> dict[str, NodeVerdict]:
        """The verdicts on a constraint by node, ordered by node."""
        return dict(sorted(self._shown.get(id_, {}).items()))

    def node(self, node_id: str) -> dict[str, NodeVerdict]:
        """The verdicts of a node by constraint, ordered by id."""
        return dict(sorted(self._by_node.get(node_id, {}).items()))

    @property
    def violated(self) -> Set[str]:
        """The constraints violated or clearing on at least one node: a live set in no order, with `len` and `in` in O(1)."""
        return self._violated.keys()

    @property
    def unknown(self) -> Set[str]:
        """The constraints unknown on at least one node: a live set, as `violated`."""
        return self._unknown.keys()

    def violated_on(self, id_: str) -> tuple[str, ...]:
        """The nodes with the constraint violated or clearing, the longest violated first; by name among equals."""
        found = [(each.since, node) for node, each in self._shown.get(id_, {}).items() if each.state in VIOLATED_STATES]
        return tuple(node for _, node in sorted(found))

    @property
    def counts(self) -> dict[VerdictState, int]:
        """The number of verdicts by state: a constraint counts once for each node."""
        return dict(self._states)

    def restated(self, node: str | Replica) -> dict[str, NodeVerdict]:
        """The verdicts other than `holds` that still count from another life of the writer's node, by constraint.

        A new life takes them over: it writes each anew, changed or not.
        """
        replica = writer(node)
        told = self.told_by(replica.node_id).items()
        return {id_: each for id_, (life, each) in told if life != replica and each.state is not VerdictState.HOLDS}

    def told_by(self, node_id: str) -> dict[str, tuple[Replica, NodeVerdict]]:
        """The verdicts of a node that count, each with the life that told it, ordered by id; those left out of the readings too."""
        found = {id_: self._held[id_][node_id] for id_ in sorted(self._ids.get(node_id, ()))}
        return {id_: (each.replica, each.verdict) for id_, each in found.items() if each.verdict is not None}

    # --- writing -------------------------------------------------------------------------------------------------------

    def put(self, id_: str, verdict: NodeVerdict | None, *, node: str | Replica) -> bool:
        """State the verdict of a node on a constraint, None for nothing to tell. True if a cell was written: not for a standing
        verdict.

        Raises as `check_verdict` does, and `ConstraintCrdtError` for an id out of bounds.
        """
        return self.put_all({id_: verdict}, node=node) > 0

    def put_all(self, verdicts: Mapping[str, NodeVerdict | None], *, node: str | Replica) -> int:
        """State several verdicts as a single transaction; returns the number of cells written. Raises as `put` does."""
        replica = writer(node)
        cells = [self._cell(replica, check_id(id_, "a constraint id"), verdict) for id_, verdict in verdicts.items()]
        written = [cell for cell in cells if cell is not None]
        if written:
            self._rows.write_all(replica, written)
        return len(written)

    def _cell(self, replica: Replica, id_: str, verdict: NodeVerdict | None) -> Cell | None:
        """The cell to write; None where it would change nothing."""
        checked = None if verdict is None else check_verdict(verdict)
        held = self._held.get(id_, {}).get(replica.node_id)
        if held is None:
            return None if checked is None else make_verdict(id_, checked)
        if held.verdict == checked and (checked is None or held.replica == replica):
            return None
        return make_verdict(id_, checked, self._life(replica, id_))

    def _life(self, replica: Replica, id_: str) -> int:
        """The number of takeovers with which a cell of the writer comes before all cells of other lives of its node."""
        lives = [0]
        for cell in self._rows.held(VERDICT, id_):
            if cell.replica.node_id == replica.node_id:
                _, life = read_verdict(cell)
                lives.append(life if cell.replica == replica else min(life + 1, MAX_COUNT))
        return max(lives)


def _drop(index: dict[str, dict[str, NodeVerdict]], first: str, second: str) -> None:
    del index[first][second]
    if not index[first]:
        del index[first]
