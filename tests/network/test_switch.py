"""The switch: what a path does to frames, in virtual time; and that hosts reach each other through it."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.network import hosts
from tests.network.hosts import Network, SwitchError, network
from tests.network.switch import ETHERNET, Fabric, mac


def frame(source: int, target: int, size: int = 100) -> bytes:
    return (mac(target) + mac(source)).ljust(size, b"\0")


def fabric(ports: int = 2, seed: int = 0) -> Fabric:
    made = Fabric(seed)
    for _ in range(ports):
        made.add_port()
    return made


def arrivals(made: Fabric, until: float = 1000.0) -> list[tuple[float, int]]:
    """When frames arrive, and at which port."""
    found = []
    while made.next_due is not None and made.next_due <= until:
        now = made.next_due
        found += [(round(now, 6), port) for port, _ in made.arrived(now)]
    return found


def test_a_frame_goes_to_its_address_and_a_broadcast_to_all_others() -> None:
    made = fabric(4)
    made.take(0, frame(0, 2), 0.0)
    assert arrivals(made) == [(0.0, 2)]
    made.take(0, b"\xff" * 60, 1.0)
    assert arrivals(made) == [(1.0, 1), (1.0, 2), (1.0, 3)]
    made.take(0, frame(0, 0), 2.0)
    made.take(0, frame(0, 9), 2.0)
    assert arrivals(made) == []


def test_the_delay_of_each_way_is_its_own_and_jitter_reorders_nothing() -> None:
    made = fabric()
    made.paths[0, 1].delay = 0.5
    made.take(0, frame(0, 1), 1.0)
    made.take(1, frame(1, 0), 1.0)
    assert arrivals(made) == [(1.0, 0), (1.5, 1)]
    made.paths[0, 1].jitter = 0.4
    sent = [2.0 + number / 1000 for number in range(200)]
    order: list[int] = []
    for number, now in enumerate(sent):
        made.take(0, frame(0, 1, 100 + number), now)
    while made.next_due is not None:
        order += [len(each) - 100 for _, each in made.arrived(made.next_due)]
    assert order == list(range(200))


def test_a_rate_spaces_frames_and_a_full_queue_loses_them() -> None:
    made = fabric()
    path = made.paths[0, 1]
    path.rate, path.queue = 8000.0, 3000  # 1,000 bytes a second
    for _ in range(5):
        made.take(0, frame(0, 1, 1000), 0.0)
    assert arrivals(made) == [(1.0, 1), (2.0, 1), (3.0, 1)]
    assert (path.frames, path.bytes, path.lost) == (3, 3000, 2)
    made.take(0, frame(0, 1, 1000), 10.0)
    assert arrivals(made) == [(11.0, 1)]


def test_loss_is_as_asked_and_the_same_for_a_seed() -> None:
    def lost(seed: int) -> list[int]:
        made = fabric(seed=seed)
        made.paths[0, 1].loss = 0.3
        passed = []
        for number in range(1000):
            before = made.paths[0, 1].lost
            made.take(0, frame(0, 1), float(number))
            passed.append(made.paths[0, 1].lost - before)
        return passed

    assert 250 < sum(lost(1)) < 350
    assert lost(1) == lost(1) != lost(2)


def test_a_cut_loses_what_is_under_way_and_one_way_leaves_the_other() -> None:
    made = fabric()
    made.paths[0, 1].delay = 1.0
    made.take(0, frame(0, 1), 0.0)
    made.paths[0, 1].cut = True
    made.take(0, frame(0, 1), 0.5)
    made.take(1, frame(1, 0), 0.5)
    assert arrivals(made) == [(0.5, 0)]
    assert made.paths[0, 1].lost == 2


def test_packets_above_the_limit_are_lost() -> None:
    made = fabric()
    made.paths[0, 1].limit = 500
    made.take(0, frame(0, 1, 500 + ETHERNET), 0.0)
    made.take(0, frame(0, 1, 501 + ETHERNET), 1.0)
    assert arrivals(made) == [(0.0, 1)]


@pytest.mark.processes
def test_hosts_reach_each_other_by_both_families_through_what_is_set() -> None:
    with network() as net:
        one, two = net.hosts(2)
        for family, address in (
            (socket.AF_INET, (one.address, 5000)),
            (socket.AF_INET6, (one.link_local, 5000, 0, 2)),  # `eth0` comes after `lo`
        ):
            net.set(one, two, delay=0.0)
            with net.socket(one, family) as listener, net.socket(two, family) as link:
                listener.bind(address)
                listener.listen()
                link.connect(address)
                end, _ = listener.accept()
                with end:
                    net.set(one, two, delay=0.05)
                    began = time.monotonic()
                    link.sendall(b"x")
                    end.recv(1)
                    end.sendall(b"y")
                    link.recv(1)
                    assert 0.1 <= time.monotonic() - began < 5
        passed = net.passed()
        assert {path.lost for path in passed.values()} == {0}
        assert all(path.frames > 4 for path in passed.values())


@pytest.mark.processes
def test_it_is_skipped_with_a_reason_where_namespaces_are_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(seed: int) -> Network:
        raise SwitchError("unshare: Operation not permitted")

    monkeypatch.setattr(hosts, "Network", refuse)
    monkeypatch.delenv("CI_REQUIRES_NAMESPACES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not allowed here: unshare"), network():
        pass
    monkeypatch.setenv("CI_REQUIRES_NAMESPACES", "1")
    with pytest.raises(pytest.fail.Exception, match="not allowed here: unshare"), network():
        pass


@pytest.mark.processes
def test_the_switch_says_what_it_may_not_do() -> None:
    """Its first message is the reason: here a descriptor limit of the process leaves no room for a namespace."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = "import resource; from tests.network import switch; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); switch.main()"
    line = [sys.executable, "-c", program, str(other.fileno()), "0"]
    with one, other:
        done = subprocess.run(line, pass_fds=[other.fileno()], cwd=Path(__file__).parents[2], check=False)
        assert done.returncode == 0
        assert b'"error"' in one.recv(1000)
