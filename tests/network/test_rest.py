"""A fleet at rest: what it logs, when nothing happens."""

import time

import pytest

from tests.fleet.processes import seconds_until
from tests.network.hosts import agree, are_linked, network
from tests.network.rows import ROUND_TRIP, nightly

pytestmark = pytest.mark.processes


@nightly
def test_a_fleet_at_rest_logs_nothing() -> None:
    """Five kilobytes an hour would be allowed: a line in two minutes."""
    with network() as net:
        nodes = net.fleet_of(["forge", "anvil", "tongs"])
        net.set_all(delay=ROUND_TRIP / 2)
        nodes[0].add("c")
        seconds_until(lambda: are_linked(nodes) and agree(nodes))
        time.sleep(5)
        before = {node.name: len(node.log) for node in nodes}
        time.sleep(120)
        assert {node.name: node.log[before[node.name] :] for node in nodes} == {node.name: [] for node in nodes}
