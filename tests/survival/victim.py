"""A node process that is made to be killed, and what clients of it hold it to: the writes that it acknowledged."""

import asyncio
import contextlib
import os
import re
import subprocess
from pathlib import Path
from random import Random

import httpx

from tests import fork_server
from tests.conftest import runtime_directory
from tests.fleet.processes import clean_environment

START_SECONDS = 60.0
_READY = re.compile(r" ready name=.* api=(?P<api>\S+) endpoints=")


class Victim:
    """One start of a node process with a store."""

    def __init__(self, process: subprocess.Popen[str], log: asyncio.StreamReader) -> None:
        """Use `launch`."""
        self._process = process
        self._lines = log
        self.log: list[str] = []
        self._api: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def launch(cls, name: str, store: Path, runtime: Path, *connect: str, discover: bool = True) -> "Victim":
        """Start a process; it is not ready yet. `discover`: it connects to nodes of its state, too."""
        os.makedirs(runtime, mode=0o700, exist_ok=True)
        flags = ["--name", name, "--api", "127.0.0.1:0", "--probe", "none", "--store", str(store)]
        for endpoint in connect:
            flags += ["--connect", endpoint]
        flags += [] if discover else ["--no-discover"]
        environment = clean_environment() | {"XDG_RUNTIME_DIR": str(runtime_directory(runtime))}
        process = fork_server.start(["node", *flags], stderr=subprocess.PIPE, env=environment)
        assert process.stderr is not None
        log = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(log), process.stderr)
        return cls(process, log)

    async def api(self) -> str:
        """The URL of its API, once it is ready."""
        async with asyncio.timeout(START_SECONDS):
            return await asyncio.shield(self._api)

    async def kill(self) -> None:
        """kill -9, at whatever it is doing."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        await self._reading
        self._api.cancel()

    async def _read(self) -> None:
        async for line in self._lines:
            self.log.append(line.decode().rstrip())
            found = _READY.search(self.log[-1])
            if found and not self._api.done():
                self._api.set_result(found["api"])
        if not self._api.done():
            self._api.set_exception(AssertionError(f"it did not start: {self.log}"))
            self._api.exception()  # whoever does not wait for it does not miss it


class Client:
    """Writes to ids and a count of its own, one write after the other, and knows what was acknowledged."""

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self._random = random
        self.active: dict[str, str | None] = {}
        """The constraints that are active, by what was acknowledged, with their text."""
        self.counted = 0
        self.acknowledged = 0
        """Writes."""
        self.unknown: tuple[str, str | None, int] | None = None
        """The write that was under way when the node died: the id, its text after it (None: removed), what it counts."""

    async def write_until_it_dies(self, api: str) -> None:
        """Write for as long as anyone answers."""
        async with httpx.AsyncClient(base_url=f"{api}/v1", timeout=10) as http:
            with contextlib.suppress(httpx.TransportError):
                while True:
                    await self._write(http)

    async def _write(self, http: httpx.AsyncClient) -> None:
        id_ = f"{self.name}-{self._random.randrange(20)}"
        kind = self._random.choice(("add", "add", "remove", "record", "record"))
        if kind == "record" or (kind == "remove" and id_ not in self.active):
            await self._record(http, self._random.randrange(1, 5))
        elif kind == "remove":
            self.unknown = (id_, None, 0)
            answer = await http.delete(f"/constraints/{id_}")
            assert answer.status_code == 200, answer.text
            del self.active[id_]
        else:
            about = f"{self._random.getrandbits(60):x}"
            self.unknown = (id_, about, 0)
            answer = await http.post("/constraints", json={"id": id_, "about": about})
            assert answer.status_code in (200, 201), answer.text
            self.active[id_] = about
        self.unknown = None
        self.acknowledged += 1

    async def _record(self, http: httpx.AsyncClient, amount: int) -> None:
        counter = f"{self.name}-count"
        if counter not in self.active:
            self.unknown = (counter, "counts", 0)
            answer = await http.post("/constraints", json={"id": counter, "about": "counts"})
            assert answer.status_code in (200, 201), answer.text
            self.active[counter] = "counts"
        self.unknown = (counter, "counts", amount)
        answer = await http.post("/record", json={"satisfied": amount, "constraint": counter})
        assert answer.status_code == 200, answer.text
        self.counted += amount

    def judge(self, constraints: dict[str, tuple[str | None, int]]) -> None:
        """What a restarted node has, as (text, satisfied) by id, is exactly what was acknowledged, with or without the write that
        was under way. Takes over which of the two it is.
        """
        mine = {id_: each for id_, each in constraints.items() if id_.startswith(f"{self.name}-")}
        active, counted = {id_: about for id_, (about, _) in mine.items()}, sum(satisfied for _, satisfied in mine.values())
        possible = [(self.active, self.counted)]
        if self.unknown is not None:
            id_, about, amount = self.unknown
            after = {key: text for key, text in self.active.items() if key != id_} | ({id_: about} if about else {})
            possible.append((after, self.counted + amount))
        assert (active, counted) in possible, f"{self.name}: has {(active, counted)}, may have {possible}"
        self.active, self.counted, self.unknown = active, counted, None
