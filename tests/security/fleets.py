"""Fleets of the tests: roots, identities on disk, and strangers."""

import asyncio
import contextlib
import json
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zenoh

from constraint_crdt.identity import NODE_VALID, Identity, Root, create_root
from constraint_crdt.identity.directory import certify_node, create_fleet, load_identity
from constraint_crdt.transport.zenoh_startup import _with_port, checked, close_session, zenoh_config
from tests.transport.seats import DEADLINE

NOW = 1_790_000_000_000_000_000
"""A time of the pure tests, in ns since the epoch."""

FLEET = "plant"


def seeded(seed: int) -> Callable[[int], bytes]:
    """Random bytes of a seed: the same certificates in each run."""
    return random.Random(seed).randbytes


def root_of(fleet: str = FLEET, seed: int = 1) -> Root:
    return create_root(fleet, now=NOW, random=seeded(seed))


class Fleet:
    """A root on disk, with the identities that it made. `age`: seconds for which its certificates are valid already."""

    def __init__(self, folder: Path, name: str = FLEET, *, age: float = 0.0) -> None:
        self.folder = folder
        self.made_at = time.time_ns() - round(age * 1e9)
        self.random = random.SystemRandom().randbytes
        self.root = create_fleet(folder, name, now=self.made_at, random=self.random)

    def certify(self, node: str, *, valid: int = NODE_VALID, role: str = "operator") -> Path:
        return certify_node(self.folder, self.root, node, role, now=self.made_at, random=self.random, valid=valid)

    def identity(self, node: str, *, valid: int = NODE_VALID, role: str = "operator") -> Identity:
        """Also one that is not valid now."""
        return load_identity(self.certify(node, valid=valid, role=role), self.made_at)


class Attempts:
    """A relay to an endpoint, which counts the connections that ended: those of a stranger, which are refused."""

    def __init__(self, endpoint: str) -> None:
        self._port = int(endpoint.rpartition(":")[2])
        self._ended = asyncio.Semaphore(0)
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def open(self) -> str:
        """The endpoint of the relay."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1")
        return f"tls/127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def ended(self, number: int) -> None:
        """Wait for the ends of so many connections."""
        async with asyncio.timeout(DEADLINE):
            for _ in range(number):
                await self._ended.acquire()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", self._port)
        tasks = [asyncio.create_task(_pass(reader, back)), asyncio.create_task(_pass(onward, writer))]
        self._passing.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, back):
            each.close()
        self._ended.release()


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()


class Stranger:
    """A Zenoh session that does what it likes: the configuration of a node, changed."""

    def __init__(self, endpoint: str, *, identity: Identity | None, tls: dict[str, Any] | None = None, role: str = "peer") -> None:
        """`identity`: whose certificates it shows, with TLS. `tls`: other settings of TLS."""
        connect = [endpoint if identity is not None else endpoint.replace("tls/", "tcp/")]
        listens = tls is None or "listen_certificate" in tls
        settings = checked(role, None if listens else (), connect, multicast=False, lease=4.0, identity=identity)
        listening = [_with_port(each) for each in settings.listen]
        self.endpoint = listening[0] if listening else ""
        config = json.loads(json.dumps(zenoh_config(settings, listening, f"a{secrets.token_hex(8)}")))
        config.pop("access_control", None)
        if tls is not None:
            config["transport"]["link"]["tls"] = tls
        self.raw = zenoh.open(zenoh.Config.from_json5(json.dumps(config)))

    def tokens(self, seconds: float = 1.0) -> list[str]:
        """The keys of the tokens that it is told of."""
        replies = self.raw.liveliness().get("**", timeout=seconds)
        return [str(reply.ok.key_expr) for reply in replies if reply.ok is not None]

    def ask(self, key: str, seconds: float = 1.0, *, payload: bytes = b"", attachment: bytes | None = None) -> list[bytes]:
        """What the node at `key` answers."""
        replies = self.raw.get(key, timeout=seconds, payload=payload, attachment=attachment)
        return [bytes(reply.ok.payload) for reply in replies if reply.ok is not None]

    def links(self) -> int:
        return len(self.raw.info.links())

    def close(self) -> None:
        close_session(self.raw)
