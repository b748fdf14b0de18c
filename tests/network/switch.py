"""A switch in user space, as kernels without `netem` cannot delay, lose or cut what passes between network namespaces.

`Fabric` decides what happens to each frame. It knows no clock and no device: time is an argument, in seconds. `Ports` makes the
namespaces, each with a TAP device, and `serve` carries frames between the devices in a process of its own:

    python -m tests.network.switch DESCRIPTOR SEED

takes commands on a socket (`SOCK_SEQPACKET`), each an object in JSON, and answers each. `hosts.py` is the other end.

What a `Path` does to a frame, in this order:

1. A path that is cut loses it, and also what is under way on it.
2. A packet above `limit` bytes is lost without a word, as behind a router whose messages on the packet size are filtered.
3. One of `loss` is lost: which, depends on the seed and the frames before it alone.
4. With a `rate` it waits until those before it have gone. Beyond `queue` waiting bytes it is lost.
5. It arrives after `delay`, give or take `jitter`. Frames of a path never overtake each other.

Paths are directed: one way can differ from the other, or be cut alone. Broadcasts take the path to each other port.
"""

import contextlib
import ctypes
import errno
import fcntl
import gc
import heapq
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from random import Random
from typing import Any

ETHERNET = 14
"""Bytes of the header of a frame. The rest is the packet."""

FULL_FRAME = 1514
LEAST_QUEUE = 4 * FULL_FRAME
"""Bytes that any queue holds: TCP cannot tell loss from delay with fewer packets under way."""

COMMAND_BYTES = 1 << 20
READ_AT_ONCE = 32
"""Frames taken from a device before the others have their turn."""


@dataclass
class Path:
    """What happens to frames from a port to another. The defaults are those of a cable."""

    delay: float = 0.0
    """Seconds under way."""
    jitter: float = 0.0
    """Seconds by which the delay is more or less, drawn evenly for each frame."""
    rate: float = 0.0
    """Bits per second; 0 for no limit."""
    queue: int = 0
    """Bytes that may wait for their turn; 0 for a second at `rate`, or `LEAST_QUEUE` if that is more."""
    loss: float = 0.0
    """The share of frames that is lost."""
    limit: int = 0
    """The longest packet in bytes; 0 for no limit."""
    cut: bool = False
    """Whether nothing passes."""

    frames: int = 0
    """Frames that arrived."""
    bytes: int = 0
    """Their bytes, headers of the frames included."""
    lost: int = 0
    """Frames that did not arrive, for any reason."""

    _random: Random = field(default_factory=Random)
    _free_at: float = 0.0
    _last_due: float = 0.0

    def due(self, size: int, now: float) -> float | None:
        """When a frame of `size` bytes arrives that is sent `now`; None if it is lost."""
        if self.cut or (self.limit and size - ETHERNET > self.limit) or (self.loss and self._random.random() < self.loss):
            return None
        sent = now
        if self.rate:
            waits = max(0.0, self._free_at - now)
            if waits * self.rate / 8 + size > (self.queue or max(LEAST_QUEUE, self.rate / 8)):
                return None
            sent = self._free_at = now + waits + 8 * size / self.rate
        due = sent + self.delay + (self._random.uniform(-self.jitter, self.jitter) if self.jitter else 0.0)
        self._last_due = max(due, self._last_due, now)
        return self._last_due


SETTINGS = ("delay", "jitter", "rate", "queue", "loss", "limit", "cut")
"""The fields of a path that a command sets."""


class Fabric:
    """The paths between ports, and the frames under way. Ports are numbered from 0; `mac` gives the address behind each."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._ports = 0
        self.paths: dict[tuple[int, int], Path] = {}
        self._under_way: list[tuple[float, int, int, Path, bytes]] = []
        self._count = 0

    def add_port(self) -> int:
        """A port, joined to all others by cables: its number."""
        new = self._ports
        self._ports += 1
        for other in range(new):
            for pair in ((new, other), (other, new)):
                self.paths[pair] = Path(_random=Random(f"{self._seed} {pair}"))
        return new

    def take(self, source: int, frame: bytes, now: float) -> None:
        """A frame comes in at a port."""
        if frame[0] & 1:
            for other in range(self._ports):
                if other != source:
                    self._send(source, other, frame, now)
        elif frame[:5] == _MAC_PREFIX and frame[5] < self._ports and frame[5] != source:
            self._send(source, frame[5], frame, now)

    def _send(self, source: int, target: int, frame: bytes, now: float) -> None:
        path = self.paths[source, target]
        due = path.due(len(frame), now)
        if due is None:
            path.lost += 1
        else:
            self._count += 1
            heapq.heappush(self._under_way, (due, self._count, target, path, frame))

    def arrived(self, now: float) -> Iterator[tuple[int, bytes]]:
        """The frames that have arrived by `now`, each with its port."""
        waiting = self._under_way
        while waiting and waiting[0][0] <= now:
            _, _, target, path, frame = heapq.heappop(waiting)
            if path.cut:
                path.lost += 1
                continue
            path.frames += 1
            path.bytes += len(frame)
            yield target, frame

    @property
    def next_due(self) -> float | None:
        """When the next frame arrives; None with none under way."""
        return self._under_way[0][0] if self._under_way else None


_MAC_PREFIX = bytes((2, 0, 0, 0, 0))


def mac(port: int) -> bytes:
    """The hardware address behind a port."""
    return _MAC_PREFIX + bytes((port,))


# --- namespaces -------------------------------------------------------------------------------------------------------------

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_SIOCADDRT, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU, _SIOCSIFHWADDR = (
    0x890B,
    0x8914,
    0x8916,
    0x891C,
    0x8922,
    0x8924,
)
_IFF_UP, _RTF_UP, _ARPHRD_ETHER = 1, 1, 1
DEVICE = "eth0"
_TUN = "/dev/net/tun"
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_namespaces(paths: Sequence[str]) -> None:
    """Let this process, which must have a single thread, enter the namespaces at these files, in this order."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        _checked(_libc.setns(descriptor, 0), f"setns {path}")
        os.close(descriptor)


class Ports:
    """The namespaces of a switch, each with a TAP device. Raises `OSError` where namespaces are not allowed."""

    def __init__(self) -> None:
        self.user = False
        """Whether there is a user namespace around the network namespaces: without the rights of root."""
        identity = (os.getuid(), os.getgid())
        if _libc.unshare(_CLONE_NEWNET):
            if ctypes.get_errno() != errno.EPERM:
                _checked(-1, "unshare")
            _checked(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET), "unshare")
            self.user = True
            FilePath("/proc/self/setgroups").write_text("deny")
            for name, number in zip(("uid_map", "gid_map"), identity, strict=True):
                FilePath("/proc/self", name).write_text(f"0 {number} 1")
        os.close(os.open(_TUN, os.O_RDWR))
        self.taps: list[int] = []
        self.spaces: list[int] = []

    def add(self, ipv4: str | None) -> int:
        """A namespace whose device has this address (of a /16), a route to everywhere, and a link-local IPv6 address: the
        descriptor of the namespace. Without an address the device is down, and there is loopback only.
        """
        number = len(self.spaces)
        _checked(_libc.unshare(_CLONE_NEWNET), "unshare")
        space = os.open("/proc/self/ns/net", os.O_RDONLY)
        with contextlib.suppress(OSError):  # a kernel without IPv6
            FilePath("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")  # else the address is of no use for a second
            FilePath("/proc/sys/net/ipv6/conf/default/router_solicitations").write_text("0")
        tap = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TAP | _IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

            def configure(request: int, device: str, content: bytes) -> None:
                fcntl.ioctl(control, request, struct.pack("16s24s", device.encode(), content))

            configure(_SIOCSIFFLAGS, "lo", struct.pack("H", _IFF_UP))
            if ipv4 is not None:
                configure(_SIOCSIFHWADDR, DEVICE, struct.pack("H6s", _ARPHRD_ETHER, mac(number)))
                configure(_SIOCSIFADDR, DEVICE, _address(ipv4))
                configure(_SIOCSIFNETMASK, DEVICE, _address("255.255.0.0"))
                configure(_SIOCSIFFLAGS, DEVICE, struct.pack("H", _IFF_UP))
                name = ctypes.create_string_buffer(DEVICE.encode())
                anywhere = _address("0.0.0.0")
                # `struct rtentry`: destination, gateway and mask, flags, metric, and the device.
                route = struct.pack("8x16s16s16sH22xh6xQ24x", *[anywhere] * 3, _RTF_UP, 0, ctypes.addressof(name))
                fcntl.ioctl(control, _SIOCADDRT, route)
        self.taps.append(tap)
        self.spaces.append(space)
        return space

    def set_mtu(self, number: int, mtu: int) -> None:
        """The longest packet of the device in a namespace."""
        with self.socket(number, socket.AF_INET) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", DEVICE.encode(), mtu))

    def socket(self, number: int, family: int) -> socket.socket:
        """A TCP socket in a namespace."""
        _checked(_libc.setns(self.spaces[number], _CLONE_NEWNET), "setns")
        return socket.socket(family, socket.SOCK_STREAM)


def _address(ipv4: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ipv4))


# --- the process ------------------------------------------------------------------------------------------------------------


class Switch:
    """A fabric between ports, driven by the commands of a socket."""

    def __init__(self, control: socket.socket, seed: int) -> None:
        """Raises `OSError` where namespaces are not allowed."""
        self._control = control
        self._fabric = Fabric(seed)
        self._ports = Ports()
        self._polled = select.epoll()
        self._polled.register(control, select.EPOLLIN)
        self._port_of: dict[int, int] = {}
        self._commands: Mapping[str, Callable[..., Mapping[str, Any] | socket.socket]] = {
            "host": self._host, "set": self._set, "mtu": self._set_mtu, "socket": self._socket, "count": self._count,
        }  # fmt: skip

    def serve(self) -> None:
        """Carry frames until the other end of the control socket is closed."""
        user = f"/proc/{os.getpid()}/ns/user" if self._ports.user else None
        self._control.send(json.dumps({"user": user}).encode())
        fabric, taps, poll, clock = self._fabric, self._ports.taps, self._polled.poll, time.monotonic
        while True:
            due = fabric.next_due
            for descriptor, _ in poll(None if due is None else max(0.0, due - clock())):
                port = self._port_of.get(descriptor)
                if port is not None:
                    self._read(port, descriptor)
                elif message := self._control.recv(COMMAND_BYTES):
                    self._obey(json.loads(message))
                else:
                    return
            for target, frame in fabric.arrived(clock()):
                with contextlib.suppress(OSError):  # a full queue of the device: lost
                    os.write(taps[target], frame)

    def _read(self, port: int, descriptor: int) -> None:
        """Take the frames of a device, up to a number: other devices have their turn, too."""
        take, now = self._fabric.take, time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(READ_AT_ONCE):
                take(port, os.read(descriptor, 65536), now)

    def _obey(self, command: dict[str, Any]) -> None:
        try:
            answer = self._commands[command.pop("do")](**command)
        except OSError as error:
            answer = {"error": str(error)}
        if isinstance(answer, socket.socket):
            with answer:
                socket.send_fds(self._control, [b"{}"], [answer.fileno()])
        else:
            self._control.send(json.dumps(answer).encode())

    def _host(self, ipv4: str | None) -> Mapping[str, Any]:
        space = self._ports.add(ipv4)
        port, tap = self._fabric.add_port(), self._ports.taps[-1]
        self._port_of[tap] = port
        self._polled.register(tap, select.EPOLLIN)
        return {"port": port, "space": f"/proc/{os.getpid()}/fd/{space}"}

    def _set(self, pairs: list[tuple[int, int]], values: Mapping[str, Any]) -> Mapping[str, Any]:
        for source, target in pairs:
            for name, value in values.items():
                setattr(self._fabric.paths[source, target], name, value)
        return {}

    def _set_mtu(self, port: int, mtu: int) -> Mapping[str, Any]:
        self._ports.set_mtu(port, mtu)
        return {}

    def _socket(self, port: int, family: int) -> socket.socket:
        return self._ports.socket(port, family)

    def _count(self) -> Mapping[str, Any]:
        return {"paths": [[*pair, each.frames, each.bytes, each.lost] for pair, each in self._fabric.paths.items()]}


def main() -> None:
    """Serve the control socket that the first argument names, with the seed that is the second."""
    with contextlib.suppress(OSError):
        os.nice(-10)  # a late switch is a delay on all paths
    gc.disable()  # frames and paths are in no cycles
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        switch = Switch(control, int(sys.argv[2]))
    except OSError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    switch.serve()


if __name__ == "__main__":
    main()
