"""A machine whose clock is hours off: what it writes ends nothing on the others."""

import contextlib

import pytest

from tests.fleet.processes import seconds_until
from tests.network.hosts import are_linked, have, network
from tests.network.rows import ROUND_TRIP, nightly

pytestmark = pytest.mark.processes

HOURS = 2 * 3600
"""Seconds by which the clock is behind."""


@nightly
def test_an_edit_with_a_lifetime_by_a_clock_in_doubt_ends_no_constraint() -> None:
    """Before: the edit replaces a permanent constraint by one that has expired already: gone on the whole fleet, without a word."""
    with network() as net:
        nodes = forge, _, _ = net.fleet_of(["forge", "anvil", "tongs"])
        net.set_all(delay=ROUND_TRIP / 2)
        (host,) = net.hosts(1)
        odd = net.node("odd", host, "--connect", forge.host.endpoint, "--clock-offset", str(-HOURS))
        forge.add("gate")
        seconds_until(lambda: are_linked([*nodes, odd]) and have([*nodes, odd], "gate"))
        seconds_until(lambda: odd.findings("clock")[0]["level"] == "fail")
        with contextlib.suppress(AssertionError):  # refused
            odd.call("POST", "constraints", {"id": "gate", "when": "x < 1.0", "ttl": 1800.0})
        odd.add("after")
        seconds_until(lambda: have(nodes, "after"))
        assert have(nodes, "gate")
