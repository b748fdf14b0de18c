"""Where items fall: fixed for ever, independent, even."""

from hashlib import blake2b

import pytest

from constraint_crdt import ConstraintCrdtError
from constraint_crdt.types.view import positions


def test_positions_never_change() -> None:
    """Tables that nodes of every version have to add up depend on these."""
    assert positions("max_speed", 3, 5437) == [
        int.from_bytes(blake2b(b"max_speed").digest()[at : at + 8], "little") % 5437 for at in (0, 8, 16)
    ]
    assert positions("", 2, 1000) == [184, 270]
    assert positions("é", 10, 10**6) == [193132, 127652, 253475, 926876, 846778, 66805, 431490, 315681, 281514, 403364]


def test_more_positions_than_one_hash_has_are_independent_too() -> None:
    many = positions("x", 64, 2**62)
    assert len(set(many)) == 64
    assert many[:8] == positions("x", 8, 2**62)


@pytest.mark.long
def test_positions_are_spread_evenly() -> None:
    size, items = 97, 20_000
    for line in (0, 7, 8):
        found = [0] * size
        for number in range(items):
            found[positions(f"item-{number}", 9, size)[line]] += 1
        expected = items / size
        chi_squared = sum((each - expected) ** 2 / expected for each in found)
        assert chi_squared < 160, "beyond this lies 1 in 20,000 of evenly spread ones"


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(TypeError, match="an item is a text"):
        positions(7, 1, 10)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ConstraintCrdtError, match="not valid Unicode"):
        positions("\ud800", 1, 10)
