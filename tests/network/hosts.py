"""Hosts on a network of their own, and the nodes on them.

    with network() as net:
        one, two = net.hosts(2)
        forge, anvil = net.node("forge", one), net.node("anvil", two, "--connect", one.endpoint)
        net.set(one, two, delay=0.7)    # both ways; `net.set_way(one, two, ...)` sets one
        net.cut(one, two)

Each host is a network namespace with the address 10.0.0.N (and a link-local IPv6 address) at `eth0`, behind a port of the switch of
`switch.py`. Nodes are processes of the command line in the namespace of their host; a host can have several. Their API listens on
loopback there, and `NetworkNode` reaches it through a socket that the switch opened in the namespace.

Where namespaces are not allowed, `network` skips the test and says why, unless CI_REQUIRES_NAMESPACES is set.
"""

import http.client
import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from constraint_crdt.operations.operation import LARGEST_PAGE
from tests import fork_server
from tests.fleet.processes import NodeProcess, clean_environment
from tests.network import switch
from tests.network.switch import COMMAND_BYTES

PORT = 7447


class SwitchError(Exception):
    """The switch could not do what it was told."""


class Host:
    """A network namespace behind a port of the switch."""

    def __init__(self, address: str, port: int, namespaces: Sequence[str]) -> None:
        self.port = port
        self.namespaces = namespaces
        """The files of the namespaces to enter."""
        self.address = address
        self.link_local = f"fe80::ff:fe00:{port:x}"
        """The link-local address that the system derives from the hardware address."""

    @property
    def endpoint(self) -> str:
        """Where a node that was started without `--listen` listens."""
        return f"tcp/{self.address}:{PORT}"


class NetworkNode(NodeProcess):
    """A node process on a host."""

    def __init__(self, net: "Network", host: Host, name: str, fleet: str, *flags: str) -> None:
        self._net = net
        self.host = host
        super().__init__(name, fleet, *flags)

    def start_process(self, arguments: Sequence[str]) -> subprocess.Popen[str]:
        """In the namespaces of the host. What is written to stdout, where there should be nothing, is in the log too."""
        return fork_server.start(
            arguments,
            namespaces=self.host.namespaces,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
        )

    def run(self, *arguments: str) -> str:
        """See `NodeProcess.run`."""
        done = fork_server.run([*arguments, "--node", self.api], env=clean_environment(), namespaces=self.host.namespaces)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def get(self, path: str) -> Any:
        """See `NodeProcess.get`."""
        return self.call("GET", path)

    def connection(self) -> http.client.HTTPConnection:
        """A connection to the API, kept open over several requests."""
        return Connection(lambda: self._net.socket(self.host), urlsplit(self.api).port)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the API below /v1; refusals fail."""
        connection = self.connection()
        try:
            return self.ask_on(connection, path, body, method)
        finally:
            connection.close()

    @staticmethod
    def ask_on(connection: http.client.HTTPConnection, path: str, body: Any = None, method: str = "POST") -> Any:
        """The same over a connection that stays open."""
        content = None if body is None else json.dumps(body)
        connection.request(method, f"/v1/{path}", content, {} if body is None else {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read().decode()
        assert answer.status < 400, f"{method} {path}: {answer.status} {content}"
        return json.loads(content)

    def add(self, *ids: str) -> None:
        """Add constraints, in one write."""
        self.call("POST", "batch", {"changes": [{"add": {"id": id_}} for id_ in ids]})

    @property
    def peers(self) -> int:
        """The number of live peers."""
        return int(self.get("status")["peers"])

    def findings(self, check: str) -> list[dict[str, Any]]:
        """What `doctor` finds by this check."""
        return [each for each in self.get("diagnosis")["findings"] if each["check"] == check]

    @property
    def log_bytes(self) -> int:
        """The length of the log so far."""
        return sum(len(line.encode()) + 1 for line in self.log)


class Connection(http.client.HTTPConnection):
    """A connection in the namespace of a host."""

    def __init__(self, make: Callable[[], socket.socket], port: int | None) -> None:
        super().__init__("127.0.0.1", port, timeout=30)
        self._make = make

    def connect(self) -> None:
        """In place of a socket of this process."""
        self.sock = self._make()
        self.sock.settimeout(self.timeout)
        self.sock.connect((self.host, self.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as that of the class does: head and body are sent apart


class Network:
    """A switch, its hosts, and the nodes on them. Made by `network`."""

    def __init__(self, seed: int = 0, fleet: str | None = None) -> None:
        """Raises `SwitchError` where namespaces are not allowed."""
        self.fleet = fleet or f"test-{secrets.token_hex(4)}"
        self._hosts: list[Host] = []
        self._ending = ExitStack()
        self._lock = threading.Lock()
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ending.callback(self._control.close)
        line = [sys.executable, "-m", "tests.network.switch", str(other.fileno()), str(seed)]
        with other:
            self._process = subprocess.Popen(
                line, pass_fds=[other.fileno()], cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            user = self._answer()["user"]
        except SwitchError:
            self.close()
            raise
        self._outer = [user] if user else []

    def close(self) -> None:
        """End the nodes, then the switch, and the namespaces with it."""
        self._ending.close()
        self._process.wait()

    def hosts(self, count: int) -> list[Host]:
        """More hosts, joined by cables to all others."""
        for _ in range(count):
            address = f"10.0.0.{len(self._hosts) + 1}"
            self._add_host(address, address)
        return self._hosts[-count:]

    def host_alone(self) -> Host:
        """A host without a network: loopback only."""
        return self._add_host(None, "127.0.0.1")

    def _add_host(self, ipv4: str | None, address: str) -> Host:
        made = self._ask(do="host", ipv4=ipv4)
        self._hosts.append(Host(address, made["port"], [*self._outer, made["space"]]))
        return self._hosts[-1]

    def node(self, name: str, host: Host, *flags: str) -> NetworkNode:
        """A node on a host, ready. Without `--listen` among the flags it listens at the endpoint of the host."""
        listen = () if "--listen" in flags else ("--listen", host.endpoint)
        node = NetworkNode(self, host, name, self.fleet, "--insecure", *listen, *flags)
        self._ending.callback(node.kill)
        return node

    def fleet_of(self, names: Iterable[str], *flags: str) -> list[NetworkNode]:
        """Nodes on a host each, with these flags; all connect to the first."""
        nodes: list[NetworkNode] = []
        for name in names:
            (host,) = self.hosts(1)
            connect = ("--connect", nodes[0].host.endpoint) if nodes else ()
            nodes.append(self.node(name, host, *connect, *flags))
        return nodes

    def set(self, one: Host, other: Host, **values: float) -> None:
        """Set fields of the `Path` between two hosts, both ways."""
        self._set([(one, other), (other, one)], values)

    def set_way(self, source: Host, target: Host, **values: float) -> None:
        """The same one way."""
        self._set([(source, target)], values)

    def set_all(self, **values: float) -> None:
        """The same between all hosts that there are."""
        self._set([(one, other) for one in self._hosts for other in self._hosts if one is not other], values)

    def cut(self, one: Host, other: Host) -> None:
        """Nothing passes between two hosts, nor does what is under way."""
        self.set(one, other, cut=True)

    def heal(self, one: Host, other: Host) -> None:
        """It passes again."""
        self.set(one, other, cut=False)

    def split(self, one: Sequence[Host], other: Sequence[Host], *, one_way: bool = False) -> None:
        """Cut two sides from each other: nothing passes between them, or nothing from the first to the second."""
        pairs = [(a, b) for a in one for b in other]
        self._set(pairs if one_way else [*pairs, *((b, a) for a, b in pairs)], {"cut": True})

    def set_mtu(self, host: Host, mtu: int) -> None:
        """The longest packet that a host sends, and takes."""
        self._ask(do="mtu", port=host.port, mtu=mtu)

    def passed(self) -> dict[tuple[str, str], switch.Path]:
        """What passed between addresses so far: frames, bytes, and frames lost."""
        found = self._ask(do="count")["paths"]
        names = {host.port: host.address for host in self._hosts}
        return {(names[a], names[b]): switch.Path(frames=frames, bytes=size, lost=lost) for a, b, frames, size, lost in found}

    def socket(self, host: Host, family: int = socket.AF_INET) -> socket.socket:
        """A TCP socket in the namespace of a host."""
        with self._lock:
            self._control.send(json.dumps({"do": "socket", "port": host.port, "family": family}).encode())
            message, descriptors, _, _ = socket.recv_fds(self._control, COMMAND_BYTES, 1)
        _raise_error(json.loads(message))
        return socket.socket(fileno=descriptors[0])

    def _set(self, ways: Iterable[tuple[Host, Host]], values: Mapping[str, float]) -> None:
        self._ask(do="set", pairs=[(source.port, target.port) for source, target in ways], values=values)

    def _ask(self, **command: Any) -> dict[str, Any]:
        with self._lock:
            self._control.send(json.dumps(command).encode())
            return self._answer()

    def _answer(self) -> dict[str, Any]:
        message = self._control.recv(COMMAND_BYTES)
        if not message:
            raise SwitchError("the switch ended")
        answer: dict[str, Any] = json.loads(message)
        _raise_error(answer)
        return answer


def _raise_error(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        raise SwitchError(answer["error"])


def are_linked(nodes: Sequence[NetworkNode]) -> bool:
    """Whether each of these sees all others."""
    return all(node.peers == len(nodes) - 1 for node in nodes)


def have(nodes: Iterable[NetworkNode], id_: str) -> bool:
    """Whether all of these have a constraint."""
    return all(id_ in {each["id"] for each in node.get(f"constraints?limit={LARGEST_PAGE}")} for node in nodes)


def agree(nodes: Iterable[NetworkNode]) -> bool:
    """Whether these have one state."""
    return len({node.get("status")["hash"] for node in nodes}) == 1


@contextmanager
def network(seed: int = 0) -> Iterator[Network]:
    """A network that is gone, with its nodes, when the block ends. `seed`: decides which frames are lost."""
    why = None
    if platform.system() != "Linux":
        why = "network namespaces are of Linux"
    else:
        try:
            net = Network(seed)
        except (SwitchError, OSError) as error:
            why = f"network namespaces with TAP devices are not allowed here: {error}"
    if why is not None:
        (pytest.fail if os.environ.get("CI_REQUIRES_NAMESPACES") else pytest.skip)(why)
    try:
        yield net
    finally:
        net.close()
