"""For tests: a checker of the laws of CRDTs for any type, and Hypothesis strategies for the types of this package.

    check_laws(Laws(new=MyCounter, steps=st.integers(1, 3), apply_step=..., merge=..., reading=...))
    check_laws(laws_of(ConstraintState))

    @given(pairs(laws_of(ConstraintState)))
    def test_mine(states): ...

Needs Hypothesis, which the package itself does not: `pip install 'constraint-crdt[testing]'`.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401 - only to see whether it is there
except ImportError:
    raise ImportError("constraint_crdt.testing needs Hypothesis: pip install 'constraint-crdt[testing]'") from None

from constraint_crdt.testing.catalogue import (
    ADAPTERS,
    blooms,
    constraint_sets,
    counters,
    decay_counters,
    decay_states,
    increments,
    laws_of,
    pn_counters,
    registers,
    sketches,
    states,
    tiles,
    vector_clocks,
)
from constraint_crdt.testing.histories import LawBroken, Laws, Replicas, in_place, pairs, replicas, single, triples
from constraint_crdt.testing.laws import (
    Law,
    associative,
    check_laws,
    commutative,
    complete,
    convergent,
    delta_is_state,
    faithful,
    idempotent,
    laws_that_apply,
    monotone,
    truncation_safe,
)

__all__ = [
    "ADAPTERS",
    "Law",
    "LawBroken",
    "Laws",
    "Replicas",
    "associative",
    "blooms",
    "check_laws",
    "commutative",
    "complete",
    "constraint_sets",
    "convergent",
    "counters",
    "decay_counters",
    "decay_states",
    "delta_is_state",
    "faithful",
    "idempotent",
    "in_place",
    "increments",
    "laws_of",
    "laws_that_apply",
    "monotone",
    "pairs",
    "pn_counters",
    "registers",
    "replicas",
    "single",
    "sketches",
    "states",
    "tiles",
    "triples",
    "truncation_safe",
    "vector_clocks",
]
