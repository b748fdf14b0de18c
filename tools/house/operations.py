"""The operation that is traced in each project. Runs in the interpreter that has the project; needs the standard library only.

    python -m house.operations PROJECT

prints JSON: `names` (how many names the project's `__all__` has) and figures of `trace` from the request to its answer, by two
definitions, which are the same where there are no tasks:

- `answered`: everything that the event loop runs until the answer, the commit to the store included. This is the operation.
- `own_task`: the task of the request alone.

Ours is `POST /v1/constraints` at a started node with a store and one peer, over `MemoryNetwork` and the ASGI application called in
this process. Background tasks of both nodes share the loop, so `RUNS` requests are measured after a first one, and for each
definition the run with the median number of moves is given. Release 0.1.0 measured the same way has `RELEASE_0_1_0`. The anchors:
`httpx.Client.post` over `MockTransport`; an insert and commit on SQLite in memory; a request and its response through an h11
client.
"""

import asyncio
import importlib
import json
import pkgutil
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from house.trace import CallTrace, Following, follow

OURS = "constraint_crdt"
RUNS = 15

Figures = dict[str, int]

RELEASE_0_1_0: Mapping[str, Figures] = {
    "own_task": {"modules": 41, "moves": 100, "depth": 22},
    "answered": {"modules": 58, "moves": 190, "depth": 22},
}
"""Ours in release 0.1.0. (The issue that set the bars counted 57, 183, 22 in `answered`.)"""


def locate(package: str, name: str) -> Any:
    """`name` from the package, or from the one of its modules that defines it. Raises `LookupError` if none does."""
    top = importlib.import_module(package)
    if hasattr(top, name):
        return getattr(top, name)
    defined = re.compile(rf"^(?:async def|def|class) {re.escape(name)}\b", re.MULTILINE)
    for found in pkgutil.walk_packages(top.__path__, f"{package}."):
        spec = found.module_finder.find_spec(found.name, None)
        if spec and spec.origin and spec.origin.endswith(".py") and defined.search(Path(spec.origin).read_text(encoding="utf-8")):
            return getattr(importlib.import_module(found.name), name)
    raise LookupError(f"no module of {package} defines {name}")


async def request(app: Any, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    """Status and JSON that an ASGI application answers."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    ends = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "root_path": "", "query_string": b""}
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path, "headers": headers}
    await app({**scope, **ends, "raw_path": path.encode()}, receive, send)
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


class RequestTraces(NamedTuple):
    """One request by both definitions."""

    own_task: CallTrace
    answered: CallTrace


async def _add(app: Any, id_: str) -> RequestTraces:
    """One traced request."""
    task = asyncio.current_task()
    traces = RequestTraces(CallTrace({OURS}), CallTrace({OURS}))
    body = json.dumps({"id": id_}).encode()
    conditions = (lambda: asyncio.current_task() is task, lambda: True)
    with Following(*zip(traces, conditions, strict=True)):
        status, answer = await request(app, "POST", "/v1/constraints", body)
    if status != 201:
        raise RuntimeError(f"POST /v1/constraints answered {status}: {answer}")
    return traces


async def _settled(app: Any, id_: str) -> None:
    """Wait until the node behind `app` has the constraint."""
    async with asyncio.timeout(30):
        while id_ not in {each["id"] for each in (await request(app, "GET", "/v1/constraints"))[1]}:  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # the HTTP API is polled: it needs no more of the node than the trace does


async def _ours() -> dict[str, Figures]:
    node, network, settings, make_app = (locate(OURS, name) for name in ("Node", "MemoryNetwork", "NodeSettings", "make_app"))
    network = network()
    with tempfile.TemporaryDirectory() as folder:
        stored = settings(name="forge", store=str(Path(folder) / "store.db"))
        async with (
            node(settings=stored, transport=network.transport()) as forge,
            node(name="anvil", transport=network.transport()) as anvil,
        ):
            app, peer = make_app(forge), make_app(anvil)
            runs = []
            for number in range(RUNS + 1):
                runs.append(await _add(app, f"c{number}"))
                await _settled(peer, f"c{number}")
    return {name: _median([getattr(run, name) for run in runs[1:]]).figures() for name in RequestTraces._fields}


def _median(traces: Sequence[CallTrace]) -> CallTrace:
    return sorted(traces, key=lambda trace: trace.moves)[len(traces) // 2]


def ours() -> dict[str, Figures]:
    """Figures by the name of the definition."""
    return asyncio.run(_ours())


def httpx_post() -> Figures:
    """`Client.post` with a JSON body, over `MockTransport`."""
    import httpx

    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={}))) as client:
        return follow({"httpx"}, lambda: client.post("http://127.0.0.1/", json={"id": "a"})).figures()


def sqlalchemy_insert() -> Figures:
    """Insert a row and commit, on SQLite in memory."""
    sql = importlib.import_module("sqlalchemy")
    engine = sql.create_engine("sqlite://")
    table = sql.Table("rows", sql.MetaData(), sql.Column("id", sql.Integer, primary_key=True), sql.Column("name", sql.String))
    table.metadata.create_all(engine)

    def insert() -> None:
        with engine.connect() as connection:
            connection.execute(table.insert().values(name="a"))
            connection.commit()

    return follow({"sqlalchemy"}, insert).figures()


def h11_cycle() -> Figures:
    """A client's request sent, and its response received."""
    import h11

    def cycle() -> None:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "127.0.0.1")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        while connection.next_event() not in (h11.NEED_DATA, h11.PAUSED):
            pass

    return follow({"h11"}, cycle).figures()


ANCHOR_OPERATIONS: dict[str, Callable[[], Figures]] = {
    "h11": h11_cycle,
    "httpx": httpx_post,
    "sqlalchemy": sqlalchemy_insert,
}


def observe(package: str) -> dict[str, Any]:
    """All that is learnt by running a project; figures are None where no operation is traced."""
    names = getattr(importlib.import_module(package), "__all__", None)
    figures: dict[str, Figures | None] = dict.fromkeys(RequestTraces._fields)
    if package == OURS:
        figures.update(ours())
    elif package in ANCHOR_OPERATIONS:
        figures = dict.fromkeys(figures, ANCHOR_OPERATIONS[package]())
    return {"names": None if names is None else len(names), **figures}


def main(arguments: Sequence[str]) -> int:
    """Print what is observed of the package named."""
    print(json.dumps(observe(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
