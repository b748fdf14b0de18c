"""The limit of connections without a link that an address may hold at the port of a node. Linux only.

Zenoh works off refused handshakes one by one, with 0.1 s after each, and keeps their connections until then. So an address that
opened ten connections per second kept members from linking, and 60 per second filled the table of open files (1,024) in 20 s.

Every address with more than `MOST_UNLINKED` connections that are no link is shut out for `SHUT_SECONDS`, and each time for twice as
long. A filter on the listening sockets drops its packets, so nothing of them reaches Zenoh. Rules:

- Links go on, also those from an address that is shut out. Addresses with a link, and this machine, are not shut out.
- IPv6 addresses count by their network of 64 bits.
- The number of addresses shut out is bounded; the oldest makes room. A flood from many addresses is for a firewall.
- Without `/proc`, or without the right to set a filter, nothing is limited, and nothing fails.
"""

import contextlib
import ctypes
import ipaddress
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

MOST_UNLINKED = 64
SHUT_SECONDS = 30.0
LONGEST_SHUT = 3600.0
MOST_SHUT = 64
"""Addresses shut out at a time."""

LOOK_EVERY = 0.1
"""Seconds between two looks at the number of open files. Connections are looked at only where that number grew, because the list of
them is long on a busy machine: 20 ms for 10,000.
"""

_ATTACH, _DETACH = 26, 27
_NETWORK_HEADER = 0xFFF00000
"""SO_ATTACH_FILTER, SO_DETACH_FILTER, and the offset of the network header in a filter, by linux/filter.h."""

_OPEN = {"01", "08"}
"""The states of connections that an application still has: ESTABLISHED and CLOSE_WAIT."""

_log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressLimit:
    """Watches the listening ports of a session in a thread of its own, from `run` to `stop`."""

    def __init__(self, ports: Collection[int], linked: Callable[[], Collection[str]]) -> None:
        """`linked`: gives the addresses of the links, in any thread."""
        self._ports = frozenset(ports)
        self._linked = linked
        self._stopped = threading.Event()
        self._shut: dict[Network, float] = {}
        self._times: Counter[Network] = Counter()

    def run(self) -> None:
        """Look until `stop`. Returns at once on another system."""
        if sys.platform != "linux" or not self._ports:
            return
        seen = 0
        while not self._stopped.wait(LOOK_EVERY):
            files, now = _open_files(), time.monotonic()
            if files > seen + MOST_UNLINKED // 2 or any(until <= now for until in self._shut.values()):
                self.look(now)
                seen = files
            seen = min(seen, files)

    def stop(self) -> None:
        """End `run` soon. The filter ends with the sockets."""
        self._stopped.set()

    def look(self, now: float) -> None:
        """Shut out the addresses with too many connections, and let in those whose time is over. `now`: s, monotonic."""
        ended = [network for network, until in self._shut.items() if until <= now]
        for network in ended:
            del self._shut[network]
        found = [network for network, number in self._unlinked().items() if number > MOST_UNLINKED and network not in self._shut]
        for network in found:
            seconds = min(SHUT_SECONDS * 2 ** min(self._times[network], 10), LONGEST_SHUT)
            self._times[network] += 1
            self._shut[network] = now + seconds
            _log.warning("%s holds more than %d connections without a link: shut out for %g s", network, MOST_UNLINKED, seconds)
        while len(self._shut) > MOST_SHUT:
            del self._shut[next(iter(self._shut))]
        while len(self._times) > MOST_SHUT:
            del self._times[next(iter(self._times))]
        if ended or found:
            for number in _descriptors():
                _set_filter(number, self._ports, list(self._shut))

    def _unlinked(self) -> Counter[Network]:
        """The connections of each network to the listening ports, without networks that have a link."""
        found = Counter(_network(each) for each in map(_unmapped, _remote_addresses(self._ports)) if not each.is_loopback)
        if found and max(found.values()) > MOST_UNLINKED:
            for address in self._linked():
                with contextlib.suppress(ValueError):
                    found.pop(_network(_unmapped(ipaddress.ip_address(address))), None)
        return found


def filter_program(networks: Sequence[Network]) -> bytes:
    """The filter that drops all packets from these networks: a program of classic BPF."""
    fours = [struct.unpack("!I", each.network_address.packed)[0] for each in networks if each.version == 4]
    sixes = [struct.unpack("!II", each.network_address.packed[:8]) for each in networks if each.version == 6]
    drop, take = (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)
    load_byte, shift, load, jump, equal = 0x30, 0x74, 0x20, 0x05, 0x15
    of_four = [(load, 0, 0, _NETWORK_HEADER + 12)]
    for value in fours:
        of_four += [(equal, 0, 1, value), drop]
    of_six: list[tuple[int, int, int, int]] = []
    for high, low in sixes:
        of_six += [
            (load, 0, 0, _NETWORK_HEADER + 8),
            (equal, 0, 3, high),
            (load, 0, 0, _NETWORK_HEADER + 12),
            (equal, 0, 1, low),
            drop,
        ]
    version = [(load_byte, 0, 0, _NETWORK_HEADER), (shift, 0, 0, 4), (equal, 1, 0, 4), (jump, 0, 0, len(of_four) + 1)]
    return b"".join(struct.pack("=HBBI", *each) for each in [*version, *of_four, take, *of_six, take])


def _unmapped(address: Address) -> Address:
    """The IPv4 address in one of IPv6, as a listener for both has it."""
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def _network(address: Address) -> Network:
    return ipaddress.ip_network((address, 32 if address.version == 4 else 64), strict=False)


def _remote_addresses(ports: Collection[int]) -> list[Address]:
    """The other ends of the open connections to these ports, in this network namespace."""
    found: list[Address] = []
    for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(file).read_text().splitlines()[1:]:
                _, local, remote, state = line.split(maxsplit=4)[:4]
                if state in _OPEN and int(local.rpartition(":")[2], 16) in ports:
                    words = bytes.fromhex(remote.partition(":")[0])
                    packed = struct.pack(f"!{len(words) // 4}I", *struct.unpack(f"={len(words) // 4}I", words))
                    found.append(ipaddress.ip_address(packed))
    return found


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _descriptors() -> list[int]:
    try:
        return [int(each) for each in os.listdir("/proc/self/fd")]
    except OSError:
        return []


def _set_filter(descriptor: int, ports: Collection[int], networks: Sequence[Network]) -> None:
    """Set the filter of a listening socket on one of `ports`. Another file, and one closed meanwhile, stays as it is."""
    with contextlib.suppress(OSError):
        copy = os.dup(descriptor)
        try:
            opened = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            return
        with opened:
            if not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or opened.getsockname()[1] not in ports:
                return
            if not networks:
                opened.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
                return
            program = filter_program(networks)
            content = ctypes.create_string_buffer(program)
            opened.setsockopt(socket.SOL_SOCKET, _ATTACH, struct.pack("@HP", len(program) // 8, ctypes.addressof(content)))
