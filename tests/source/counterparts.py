"""The real counterparts of sources: programs of Debian, started on free ports, and a small web server.

Where one is missing, its test is skipped and says so, unless CI_REQUIRES_SOURCES is set.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.model import VerdictState
from constraint_crdt.operations.service import Finding
from constraint_crdt.sources import SourceSettings, read_sources
from tests.runtime.fleet import QUICK

PLUGINS = Path("/usr/lib/nagios/plugins")
START_SECONDS = 30.0


def program(name: str, package: str) -> str:
    """The path of a program. Skips the test if its package is not installed."""
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:{PLUGINS}"
    path = shutil.which(name, path=places)
    if path is None:
        (pytest.fail if os.environ.get("CI_REQUIRES_SOURCES") else pytest.skip)(f"{name} is missing: apt-get install {package}")
    return path


def source(**table: Any) -> SourceSettings:
    """A checked source, as of a settings file."""
    [made] = read_sources([{"name": "s", **table}])
    return made


def node_with(*tables: dict[str, Any], **changes: Any) -> Node:
    """A node with these sources, alone on its network."""
    settings = msgspec.structs.replace(QUICK, source=read_sources(tables), **changes)
    return Node(name="a", settings=settings, transport=MemoryNetwork().transport())


def free_port() -> int:
    """A port that was free a moment ago, for programs that take no port 0."""
    with socket.socket() as trying:
        trying.bind(("127.0.0.1", 0))
        port: int = trying.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens at a port, until the end of the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < ends, f"{command[0]} does not listen"
        yield process
    finally:
        process.kill()
        process.wait()


class Broker:
    """Debian's mosquitto, which can be stopped and started again at its port."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.port = free_port()
        self._program = program("mosquitto", "mosquitto")
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join((f"listener {self.port} 127.0.0.1", *(lines or ("allow_anonymous true",)), "")))
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        self._running.enter_context(running([self._program, "-c", str(self._config)], self.port))

    def stop(self) -> None:
        self._running.close()

    @contextlib.contextmanager
    def publisher(
        self, tls: str = "", login: tuple[str, str] | None = None, proof: tuple[str | None, str | None] = (None, None)
    ) -> Iterator[Callable[..., Any]]:
        """Publishes a payload at a topic. `proof`: a certificate, and its key."""
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if tls:
            client.tls_set(tls, *proof)
        if login:
            client.username_pw_set(*login)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        try:
            yield client.publish
        finally:
            client.disconnect()
            client.loop_stop()

    @contextlib.contextmanager
    def subscriber(self, topic: str, take: Callable[[Any], None], port: int = 0) -> Iterator[Callable[[], bool]]:
        """Hands each message at a topic to `take`, over restarts of the broker. Gives a function: does the subscription stand?

        `port`: that of another listener of the broker.
        """
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        stands = threading.Event()

        def subscribe(*_: object) -> None:
            client.subscribe(topic, 1)

        client.on_connect, client.on_message = subscribe, lambda _, __, message: take(message)
        client.on_subscribe, client.on_disconnect = lambda *_: stands.set(), lambda *_: stands.clear()
        client.reconnect_delay_set(1, 1)
        client.connect("127.0.0.1", port or self.port)
        client.loop_start()
        try:
            yield stands.is_set
        finally:
            client.disconnect()
            client.loop_stop()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    time.sleep(0.02)
    return False


Answer = tuple[int, str, bytes]


class WebServer:
    """Answers each path as told: with status, media type and body. Takes what is posted, and keeps it."""

    def __init__(self, port: int = 0, certificate: tuple[Path, Path] | None = None) -> None:
        """`certificate`: that of TLS, with its key."""
        self.answers: dict[str, Answer] = {}
        self.requests: list[Mapping[str, str]] = []
        self.posted: list[tuple[str, bytes]] = []
        """The paths and the bodies."""
        answers, requests, posted = self.answers, self.requests, self.posted

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(dict(self.headers))
                status, kind, body = answers.get(self.path, (404, "text/plain", b""))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                if status == 302:
                    self.send_header("location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                posted.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


async def soon(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def values_of(node: Node) -> dict[str, Any]:
    """The values that the node measures now."""
    return {each.name: json.loads(each.value or "null") for each in node.variables() if not each.aged}


def why_unknown(node: Node, constraint: str) -> str | None:
    """Why a constraint is unknown here; None if it is not."""
    verdict = node._runtime.evaluator.verdict(constraint)
    return verdict.reason if verdict is not None and verdict.state is VerdictState.UNKNOWN else None


def finding(node: Node) -> Finding:
    """What `doctor` says of the sources."""
    [found] = [each for each in node.diagnosis.look().findings if each.check == "sources"]
    return found
