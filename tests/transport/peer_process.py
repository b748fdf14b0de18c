"""A process of one Zenoh transport, for tests that kill, stop or fail it.

    python peer_process.py NAME MODE JSON-OF-ARGUMENTS

Prints its endpoints as one JSON line to stderr, so that anything on stdout is Zenoh's. It then echoes what it is asked
(`long`: answers 40 MB) until its stdin ends (mode `serve`), raises without closing (`raise`), or returns from the
loop without closing (`leave`).
"""

import asyncio
import json
import sys
from collections.abc import Sequence

from constraint_crdt.transport import Peer
from constraint_crdt.transport.zenoh import ZenohTransport


async def handler(request: bytes, _: Peer | None) -> Sequence[bytes]:
    return [bytes(200_000)] * 200 if request == b"long" else [request]


async def run(name: str, mode: str, arguments: str) -> None:
    transport = ZenohTransport(**json.loads(arguments))
    seen = asyncio.Event()
    await transport.open(name, "fleet", handler, lambda _peer, _up: seen.set())
    sys.stderr.write(json.dumps(transport.endpoints) + "\n")
    sys.stderr.flush()
    if mode != "serve":
        await seen.wait()
    if mode == "raise":
        raise RuntimeError("on purpose")
    if mode == "serve":
        await asyncio.to_thread(sys.stdin.read)
        await transport.close()


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
