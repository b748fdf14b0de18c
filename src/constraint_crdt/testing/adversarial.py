"""Adversarial rows, and the description of views for the law checker.

Adversarial rows are written by no honest node; a broken or lying sender can make others take them in. Their cells are each valid,
at any dots: counts that go down at a higher seq, verdicts with fewer takeovers than before, positions that overwrite each other or
themselves, parts of a tile without the rest, a key at several seqs of a run, unknown kinds, removals of dots beyond the clock. The
property checked on them: replicas with equal knowledge have equal readings.

The types of this package are views over rows. Here each view stands alone, over rows of its own. Deltas are the messages of the
exchange, taken by a real node, in parts small enough for several messages; encodings are state files.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.crdt.cells import REMOVABLE, Cell, Run, make_cell, make_removal
from constraint_crdt.crdt.clock import VectorClock
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import IfUnknown, VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import GossipMessage, decode_message, encode_message
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.state import ConstraintState
from constraint_crdt.state_file import from_json, to_json
from constraint_crdt.testing.drawn_replicas import Laws, in_place
from constraint_crdt.types.counters import COUNTS, SECONDS, make_seconds
from constraint_crdt.types.definition import ADD, MEANING, Definition, wire_definition
from constraint_crdt.types.register import POSITION
from constraint_crdt.types.verdicts import VERDICT, NodeVerdict, make_verdict
from constraint_crdt.types.view import View

LONGEST_ROW = 6
MOST_FORGED = 6
UNKNOWN_KIND = 126

IDS = ("x", "y")
DEFINITIONS = (
    Definition(),
    Definition("v < 1.0"),
    Definition("v < 2.0", for_=5, clear_after=1, clear_when="v < 1.0"),
    Definition("v < 2.0", if_unknown=IfUnknown.VIOLATED, max_age=9),
    Definition("v < 2.0", meaning=MEANING + 1, unknown_fields=b"\xa1x"),
)
"""The last is of a later version."""

Pool = st.SearchStrategy[Sequence[Cell]]
"""Cells to lie with."""


def adversarial_rows(names: Sequence[str], pool: Pool) -> st.SearchStrategy[list[Rows]]:
    """Rows for each of these replicas, with parts of the adversarial writes of a fleet, from cells of the pool."""
    replicas = [Replica(name, 0) for name in names]

    @st.composite
    def drawn(draw: st.DrawFn) -> list[Rows]:
        cells = draw(pool)
        removals = _removals(replicas, cells)
        lies = st.one_of(st.sampled_from(cells), removals) if cells else removals
        logs = {replica: draw(st.lists(lies, max_size=LONGEST_ROW)) for replica in replicas}
        upto = st.lists(st.integers(0, LONGEST_ROW), min_size=len(names), max_size=len(names))
        return [_taken(logs, draw(upto)) for _ in names]

    return drawn()


def _removals(replicas: Sequence[Replica], cells: Sequence[Cell]) -> st.SearchStrategy[Cell]:
    """Removals of cells in the pool, at dots with or without them."""
    slots = sorted({(cell.kind, cell.key) for cell in cells if cell.kind in REMOVABLE and isinstance(cell.key, str) and cell.key})
    dots = st.lists(st.tuples(st.sampled_from(replicas), st.integers(0, LONGEST_ROW + 2)), max_size=3)
    return st.builds(
        lambda slot, named: make_removal([(str(slot[1]), named)], slot[0]), st.sampled_from(slots or [(ADD, IDS[0])]), dots
    )


def forged_cells(
    new: Callable[[], Any], change: Callable[[Any, str, Any], object], rows_of: Callable[[Any], Rows], steps: Any
) -> Pool:
    """Cells from the writes of this type, each to be used without the others of its write."""

    def written(done: Sequence[Any]) -> list[Cell]:
        state, cells = new(), dict[bytes, Cell]()
        for step in done:
            change(state, "a", step)
            cells |= {cell.data: cell for cell in rows_of(state).above(Replica("a", 0), 0)}
        return [Cell(cell.kind, cell.key if isinstance(cell.key, str) else 0, cell.data) for cell in cells.values()]

    return st.lists(steps, min_size=1, max_size=MOST_FORGED).map(written)


def arbitrary_cells(*kinds: int) -> Pool:
    """Cells of these kinds with any values."""
    ids = st.sampled_from(IDS)
    dots = st.lists(st.tuples(st.sampled_from("abc"), st.just(0), st.integers(0, LONGEST_ROW + 2)), max_size=3)
    known: dict[int, st.SearchStrategy[Cell]] = {
        ADD: st.builds(lambda id_, each: make_cell(ADD, id_, wire_definition(each, None)), ids, st.sampled_from(DEFINITIONS)),
        COUNTS: st.builds(_counts, st.sampled_from(("", "x")), st.integers(0, 3), st.integers(0, 3)),
        POSITION: st.builds(_position, st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 2), dots),
        SECONDS: st.builds(make_seconds, st.sampled_from(("", "x")), st.tuples(*[st.integers(0, 3)] * 3)),
        VERDICT: st.builds(make_verdict, ids, _VERDICTS, st.integers(0, 2)),
        UNKNOWN_KIND: st.builds(make_cell, st.just(UNKNOWN_KIND), ids, st.integers(0, 3)),
    }
    return st.lists(st.one_of(*(known[kind] for kind in kinds)), min_size=1, max_size=MOST_FORGED)


_VERDICTS = st.none() | st.tuples(st.sampled_from(VerdictState), st.integers(0, 2)).map(lambda parts: NodeVerdict(*parts))


def _counts(key: str, satisfied: int, violated: int) -> Cell:
    return make_cell(COUNTS, key, [satisfied, violated])


def _position(a: int, b: int, time: int, overwrites: Sequence[tuple[str, int, int]]) -> Cell:
    return make_cell(POSITION, "", [a, b, time, [list(dot) for dot in overwrites]])


def _taken(logs: dict[Replica, list[Cell]], upto: Sequence[int]) -> Rows:
    """Rows with the first mutations of each log, superseded ones included."""
    rows = Rows()
    runs = []
    for (replica, log), seq in zip(logs.items(), upto, strict=True):
        cells = [_bound(cell, replica, at) for at, cell in enumerate(log[:seq], start=1)]
        runs.append(Run(replica, 0, len(cells), cells))
    rows.apply(runs)
    return rows


def _bound(cell: Cell, replica: Replica, seq: int) -> Cell:
    """A copy of a cell at its dot."""
    return Cell(cell.kind, cell.key if isinstance(cell.key, str) else seq, cell.data, seq, replica)


REPLICAS = ("a", "b", "c")
PART_BYTES = 96
"""The size of a message: small, so most deltas travel in parts."""


def rows_of(state: ConstraintState | View) -> Rows:
    """The rows under a state, or under a standalone view."""
    return state.rows if isinstance(state, ConstraintState) else state._rows


def over_rows(
    make: Callable[[Rows], Any],
    steps: st.SearchStrategy[Any],
    change: Callable[[Any, str, Any], object],
    reading: Callable[[Any], object],
    *,
    pool: Pool | None = None,
    accounts_for: Callable[[Any, Sequence[tuple[str, Any]]], bool] | None = None,
    canonical: bool = False,
) -> Laws[Any, Any]:
    """The description of a type that is a view over rows, as made by `make`. `pool`: the cells for adversarial rows, else forged
    from the writes of the type."""

    def new() -> Any:
        return make(Rows())

    lying = adversarial_rows(REPLICAS, pool if pool is not None else forged_cells(new, change, rows_of, steps))
    return Laws(
        new=new,
        steps=steps,
        apply_step=in_place(change),
        merge=in_place(lambda state, other: state.merge(other)),
        reading=reading,
        copy=lambda state: make(rows_of(state).copy()),
        replicas=REPLICAS,
        adversarial=lying.map(lambda rows: [make(each) for each in rows]),
        subsumes=lambda state, other: bool(state.subsumes(other)),
        accounts_for=accounts_for,
        clock=lambda state: rows_of(state).clock,
        delta_since=lambda state, clock: _said(rows_of(state), clock),
        apply_delta=in_place(lambda state, message: _take(rows_of(state), [message])),
        encode_delta=_encode_delta,
        apply_encoded=in_place(lambda state, parts: _take(rows_of(state), [decode_message(part) for part in parts])),
        encode=lambda state: to_json(ConstraintState(rows_of(state).copy())).encode(),
        decode=lambda data: make(from_json(data).rows),
        canonical=canonical,
        refusals=(ConstraintCrdtError,),
    )


def _node(name: str, state: ConstraintState) -> GossipNode:
    """A node with this state, to send or receive messages for it."""
    node = GossipNode(name, incarnation=1, now=lambda: 0, renew=lambda: 2)
    node.local.state = state
    return node


def _said(rows: Rows, clock: VectorClock) -> GossipMessage:
    return _node("sender", ConstraintState(rows.copy())).delta_since(clock)


def _take(rows: Rows, messages: Sequence[GossipMessage]) -> None:
    node = _node("receiver", ConstraintState(rows))
    for message in messages:
        node.receive(message)


def _encode_delta(message: GossipMessage) -> list[bytes]:
    return [encode_message(part) for part in split_message(message, PART_BYTES)]
