"""Every type of the package keeps every law, by the public checker, on honest histories and among liars."""

import pytest
from hypothesis import settings

from constraint_crdt.testing import ADAPTERS, check_laws, laws_of
from tests.conftest import BUDGET

EXAMPLES = 2000 if BUDGET == "nightly" else 4
"""A quick run draws fewer."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ADAPTERS, ids=lambda kind: kind.__name__)
def test_a_type_keeps_the_laws(kind: type) -> None:
    check_laws(laws_of(kind), max_examples=min(EXAMPLES, settings().max_examples))


def test_a_type_that_is_not_ours_is_to_be_described() -> None:
    with pytest.raises(TypeError, match="describe it with Laws"):
        laws_of(dict)
