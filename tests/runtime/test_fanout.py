"""To how many peers at once a change is carried."""

import pytest

from constraint_crdt.protocol.peers import fanout


@pytest.mark.parametrize(
    ("nodes", "wide"), [(0, 3), (2, 3), (5, 3), (9, 3), (10, 4), (99, 4), (100, 5), (999, 5), (1000, 6), (10**6, 6)]
)
def test_fan_out_grows_slowly_with_the_fleet(nodes: int, wide: int) -> None:
    assert fanout(nodes) == wide
