"""What the types of this package have in common for the checker: they are views over rows.

Views stand alone here, over rows of their own. Deltas are the messages of the exchange, in parts small enough that there are
several, taken by a real node; encodings are state files.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.core.clock import VectorClock
from constraint_crdt.core.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip.codec import decode_message, encode_message
from constraint_crdt.gossip.messages import GossipMessage
from constraint_crdt.gossip.protocol import GossipNode
from constraint_crdt.gossip.sending import split_message
from constraint_crdt.portable import from_json, to_json
from constraint_crdt.state import ConstraintState
from constraint_crdt.testing.adversarial import Pool, forged, lying_rows
from constraint_crdt.testing.description import Laws, in_place
from constraint_crdt.types.view import View

REPLICAS = ("a", "b", "c")
PART_BYTES = 96
"""Of a message: little, so that most deltas travel in parts."""


def rows_of(state: ConstraintState | View) -> Rows:
    """The rows under a state, or under a view that stands alone and has no other use for them than its own."""
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
    """The description of a type that is a view over rows, as `make` makes it. `pool`: cells to lie with, else forged ones."""

    def new() -> Any:
        return make(Rows())

    lying = lying_rows(REPLICAS, pool if pool is not None else forged(new, change, rows_of, steps))
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
    """A node that holds a state, to speak for it or to take in messages for it."""
    node = GossipNode(name, incarnation=1, now=lambda: 0, renew=lambda: 2)
    node.state = state
    return node


def _said(rows: Rows, clock: VectorClock) -> GossipMessage:
    return _node("sender", ConstraintState(rows.copy())).delta_since(clock)


def _take(rows: Rows, messages: Sequence[GossipMessage]) -> None:
    node = _node("receiver", ConstraintState(rows))
    for message in messages:
        node.receive(message)


def _encode_delta(message: GossipMessage) -> list[bytes]:
    return [encode_message(part) for part in split_message(message, PART_BYTES)]
