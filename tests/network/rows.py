"""What the rows of the table of situations share: which run nightly, and the bound of the log.

The docstring of each row says what was seen before (2026-11, two cores) and what has to hold. Times include those of a poll.
"""

import time
from collections.abc import Sequence
from hashlib import blake2b

import pytest

from tests.conftest import BUDGET
from tests.network.hosts import NetworkNode

nightly = pytest.mark.skipif(BUDGET != "nightly", reason="takes a minute or more: part of CONSTRAINT_CRDT_BUDGET=nightly")


ROUND_TRIP = 0.05
"""Seconds, where a row says nothing else."""

LOG_BURST = 30_000
LOG_BYTES_AN_HOUR = 200_000


def random_ids(count: int) -> list[str]:
    """Ids that compress as badly as real definitions do: a constraint takes 17 bytes on a link."""
    return [blake2b(str(number).encode(), digest_size=5).hexdigest() for number in range(count)]


class Watch:
    """The time of a row, and what its nodes log in it."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def check_logs(self, nodes: Sequence[NetworkNode]) -> None:
        """Nodes log at most `LOG_BYTES_AN_HOUR`, of which a part may come at once."""
        hours = (time.monotonic() - self._began) / 3600
        most = LOG_BURST + (LOG_BYTES_AN_HOUR - LOG_BURST) * hours
        assert {node.name: node.log_bytes for node in nodes if node.log_bytes > most} == {}
