"""Addresses that machines have beside the usual ones."""

import pytest

from tests.fleet.processes import seconds_until
from tests.network.hosts import are_linked, have, network

pytestmark = [pytest.mark.long, pytest.mark.processes]


def test_a_link_local_address_with_its_zone() -> None:
    """Before: refused as malformed."""
    with network() as net:
        one, two = net.hosts(2)
        listen = [f"tcp/[{host.link_local}%eth0]:7447" for host in (one, two)]
        forge = net.node("forge", one, "--listen", listen[0])
        anvil = net.node("anvil", two, "--listen", listen[1], "--connect", listen[0])
        nodes = [forge, anvil]
        seconds_until(lambda: are_linked(nodes))
        anvil.add("c")
        seconds_until(lambda: have(nodes, "c"))
