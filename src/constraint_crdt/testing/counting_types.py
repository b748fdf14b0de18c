"""Counters that go up and down, and those that forget, as the checker sees them.

Decaying values are read at one time everywhere: a clock that all states of one description share, which each mutation advances.
How long ago something was is the same for all of them then, as it is for nodes whose clocks agree.
"""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from constraint_crdt.testing.adversarial import IDS
from constraint_crdt.testing.description import Laws
from constraint_crdt.testing.over_rows import REPLICAS, over_rows
from constraint_crdt.types.decay import DecayCounter
from constraint_crdt.types.pncounter import PNCounter
from constraint_crdt.types.rates import DecayConstraintState

START = 1_000_000_000_000_000_000
SECOND = 1_000_000_000
HALF_LIFE = 60.0
HALF_LIVES = (HALF_LIFE, 300.0)

passing = st.sampled_from((0, SECOND, 60 * SECOND))
"""How much time passes before a mutation, in ns."""


class _Clock:
    """The one clock of all states."""

    def __init__(self) -> None:
        self._time = START

    def __call__(self) -> int:
        return self._time

    def after(self, change: Callable[[Any, str, Any], object]) -> Callable[[Any, str, tuple[int, Any]], None]:
        """The change that happens after some time."""

        def later(state: Any, name: str, step: tuple[int, Any]) -> None:
            self._time += step[0]
            change(state, name, step[1])

        return later


# --- up and down -------------------------------------------------------------------------------------------------------

amounts = st.integers(-3, 3).filter(bool)


def shift(counter: PNCounter, name: str, amount: int) -> None:
    """Increment, or decrement for an amount below 0."""
    if amount > 0:
        counter.increment(amount, node=name)
    else:
        counter.decrement(-amount, node=name)


def _shifted(counter: PNCounter, done: Sequence[tuple[str, int]]) -> bool:
    up, down = sum(max(0, amount) for _, amount in done), sum(max(0, -amount) for _, amount in done)
    each = {name: sum(amount for by, amount in done if by == name) for name in REPLICAS}
    return (counter.increments, counter.decrements, counter.value) == (up, down, up - down) and all(
        counter.node_value(name) == value for name, value in each.items()
    )


def read_pn_counter(counter: PNCounter) -> object:
    """All readings of a counter."""
    return counter.value, counter.increments, counter.decrements, counter.by_node(), sorted(counter.nodes)


def pn_counter_laws() -> Laws[PNCounter, Any]:
    """`PNCounter`."""
    return over_rows(PNCounter, amounts, shift, read_pn_counter, accounts_for=_shifted, canonical=True)


# --- decaying ----------------------------------------------------------------------------------------------------------


def decay_counter_laws() -> Laws[DecayCounter, Any]:
    """`DecayCounter`."""
    clock = _Clock()

    def record(counter: DecayCounter, name: str, amount: float) -> None:
        counter.record(amount, node=name)

    return over_rows(
        lambda rows: DecayCounter(HALF_LIFE, rows=rows, now=clock),
        st.tuples(passing, st.sampled_from((0.5, 1.0, 3.0))),
        clock.after(record),
        lambda counter: (counter.value(), counter.by_node(), counter.ahead),
        canonical=True,
    )


def change_rates(rates: DecayConstraintState, name: str, step: tuple[Any, ...]) -> None:
    """Record or fold what a step says."""
    match step:
        case ("fold", id_):
            rates.fold([id_], node=name)
        case (constraint, satisfied, violated):
            rates.record(name, satisfied, violated, constraint=constraint)


def read_rates(rates: DecayConstraintState) -> object:
    """All readings of recent evaluations."""
    return [
        (
            rates.rates(each),
            rates.by_constraint(each),
            rates.by_node(each),
            rates.by_constraint(each, "a"),
            rates.untracked_by(each),
        )
        for each in rates.half_lives
    ], rates.ahead


def decay_state_laws() -> Laws[DecayConstraintState, Any]:
    """`DecayConstraintState`."""
    clock = _Clock()
    recorded = st.tuples(st.sampled_from((None, *IDS)), st.integers(0, 3), st.integers(0, 3))
    return over_rows(
        lambda rows: DecayConstraintState(HALF_LIVES, rows=rows, now=clock),
        st.tuples(passing, st.one_of(recorded, recorded, st.tuples(st.just("fold"), st.sampled_from(IDS)))),
        clock.after(change_rates),
        read_rates,
        canonical=True,
    )
