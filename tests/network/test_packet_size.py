"""A path that drops long packets without a word: found, said, and mended as `doctor` advises."""

import subprocess

import pytest

from tests.fleet.processes import seconds_until
from tests.network.hosts import Host, are_linked, have, network
from tests.network.rows import Watch, nightly, random_ids

pytestmark = pytest.mark.processes

LIMIT = 1300
"""Bytes of a packet: a tunnel in a tunnel."""


def set_in(host: Host, setting: str, value: int) -> None:
    """Set a `sysctl` of the network namespace of a host."""
    entered = [f"--{'user' if space.endswith('user') else 'net'}={space}" for space in host.namespaces]
    write = f"echo {value} > /proc/sys/{setting.replace('.', '/')}"
    subprocess.run(["nsenter", *entered, "sh", "-c", write], check=True)


@nightly
def test_doctor_names_the_peer_and_what_to_do() -> None:
    """Before: no hint. The links fall each four seconds, and `doctor` says that all is well, or that a firewall is in between."""
    watch = Watch()
    with network() as net:
        nodes = forge, anvil = net.fleet_of(["forge", "anvil"])
        seconds_until(lambda: are_linked(nodes))
        net.set_all(limit=LIMIT, delay=0.01)
        forge.add("short")
        seconds_until(lambda: have([anvil], "short"))
        assert forge.findings("size") == []
        batches = (random_ids(20_000)[start : start + 1000] for start in range(0, 20_000, 1000))
        added = 1

        def is_found() -> bool:
            """With luck a batch passes in short parts: only a fleet in which long messages are needed has something to find."""
            nonlocal added
            if anvil.get("status")["constraints"] == added:
                forge.add(*next(batches))
                added += 1000
            return bool(forge.findings("size"))

        seconds_until(is_found, 90)
        (finding,) = forge.findings("size")
        assert "long ones do not reach anvil" in finding["what"]
        assert "tcp_mtu_probing" in finding["advice"]
        assert anvil.findings("size") == [], "its own are short"
        watch.check_logs(nodes)


@nightly
@pytest.mark.parametrize("advice", ["net.ipv4.tcp_mtu_probing", "mtu"])
def test_what_doctor_advises_helps(advice: str) -> None:
    """Seen: all is there after 3.4 s with probing (before the lease of the link ends), after 0.2 s with a lower MTU."""
    with network() as net:
        hosts = net.hosts(2)
        for host in hosts:
            if advice == "mtu":
                net.set_mtu(host, LIMIT)
            else:
                set_in(host, advice, 1)
        forge, anvil = net.node("forge", hosts[0]), net.node("anvil", hosts[1], "--connect", hosts[0].endpoint)
        seconds_until(lambda: are_linked([forge, anvil]))
        net.set_all(limit=LIMIT, delay=0.01)
        for number in range(2):
            forge.add(*random_ids(2000)[1000 * number : 1000 * (number + 1)])
            seconds_until(lambda number=number: anvil.get("status")["constraints"] == 1000 * (number + 1), 20)  # type: ignore[misc]
        assert forge.findings("size") == []
