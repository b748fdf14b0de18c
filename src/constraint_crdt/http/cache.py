"""`ETag`, `If-None-Match`, and answers that are kept as they were encoded: so that many who ask often cost little.

Rules: a tag names what an answer goes by: this start of the node, the state hash, the version of what is read beside the state,
what was asked for, and for an answer that tells what ages the second in which it was made. So a reading is never older than the
last write or movement, whoever made it, and what ages is at most a second old. What is kept is bounded. What takes long to compute
is computed once for all who ask meanwhile, and leaves the node half of its time: they wait, rather than be told what is not so any
more.
"""

import asyncio
from collections import OrderedDict
from hashlib import blake2b
from http import HTTPStatus
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.operation import Freshness, Operation
from constraint_crdt.runtime.node import Node

MOST_ANSWERS = 256
MOST_BYTES = 32 * 1024 * 1024
LARGEST = 8 * 1024 * 1024
"""Bytes of an answer that is kept, at most."""

CHEAP = 0.001
"""Seconds that an answer may take so that it is computed as often as anybody asks."""

SHARE_OF_LOOP = 1
"""After one that took longer, the next such one waits for so many times as long: they leave the node half of its time. (With 4,
reads at 2,000 a second waited for each other while a third of the node's core was free.)"""

LONGEST_PAUSE = 0.25
"""Seconds between two of them, at most."""

_HEADERS = {"cache-control": "private, no-cache"}
"""Ask each time whether it is still right."""

_Asked = tuple[str, bytes]


class AnswerCache:
    """The answers of one application."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept: OrderedDict[_Asked, tuple[str, Response]] = OrderedDict()
        self._bytes = 0
        self._pending: dict[_Asked, asyncio.Task[Response]] = {}
        self._costly: set[str] = set()
        """The operations that took long once."""
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        """When one of these may be computed again."""

    async def answer(self, operation: Operation, request: Request) -> Response:
        """What an operation answers, computed only if it may differ from what is kept, and sent only if the client lacks it."""
        if operation.freshness is None:
            return await operation.endpoint(self._node, request)
        asked: _Asked = (request.scope["path"], request.scope["query_string"])
        tag = self._tag(operation.freshness, asked)
        held = _held(request)
        if tag.removeprefix("W/") in held:  # only an answer of 200 to this very question has ever carried it
            return _not_modified(tag)
        kept = self._kept.get(asked)
        if kept is not None and kept[0] == tag:
            self._kept.move_to_end(asked)
            response = kept[1]
        else:
            response = await self._made(operation, request, asked)
            tag = response.headers["etag"]
        # `*` is any answer that there is, which shows only now: for a wrong parameter there is none.
        return _not_modified(tag) if held and (held == ["*"] or tag.removeprefix("W/") in held) else response

    async def _made(self, operation: Operation, request: Request, asked: _Asked) -> Response:
        """The answer, computed now or with that of others who ask the same."""
        # A request that comes meanwhile waits for the same computation, which begins after all of them have asked.
        pending = self._pending.get(asked)
        if pending is None:
            if operation.name not in self._costly or (monotonic() >= self._free_at and not self._turn.locked()):
                return await self._compute(operation, request, asked)
            pending = self._pending[asked] = asyncio.create_task(self._compute_in_turn(operation, request, asked))
        return await asyncio.shield(pending)

    async def _compute_in_turn(self, operation: Operation, request: Request, asked: _Asked) -> Response:
        try:
            async with self._turn:
                await asyncio.sleep(self._free_at - monotonic())
                return await self._compute(operation, request, asked)
        finally:
            del self._pending[asked]

    async def _compute(self, operation: Operation, request: Request, asked: _Asked) -> Response:
        began, tag = monotonic(), self._tag(operation.freshness or Freshness.STATE, asked)
        response = await operation.endpoint(self._node, request)
        took = monotonic() - began
        if took > CHEAP:
            self._costly.add(operation.name)
            self._free_at = began + took + min(took * SHARE_OF_LOOP, LONGEST_PAUSE)
        response.headers.update({**_HEADERS, "etag": tag})
        self._keep(asked, tag, response)
        return response

    def _tag(self, freshness: Freshness, asked: _Asked) -> str:
        node = self._node
        version = node.movement.version
        second = int(monotonic()) if freshness is Freshness.AGING else 0
        goes_by = f"{node.event_stream.log.boot} {version} {second} {asked[0]}?".encode(errors="surrogatepass")
        digest = blake2b(goes_by + asked[1], key=node.gossip.state_hash, digest_size=12)
        # Weak: the answer means the same, and what ages in it may differ in the last digit.
        return f'W/"{digest.hexdigest()}"'

    def _keep(self, asked: _Asked, tag: str, response: Response) -> None:
        _, before = self._kept.pop(asked, ("", None))
        if before is not None:
            self._bytes -= len(before.body)
        if len(response.body) > LARGEST:
            return
        self._kept[asked] = tag, response
        self._bytes += len(response.body)
        while len(self._kept) > MOST_ANSWERS or self._bytes > MOST_BYTES:
            self._bytes -= len(self._kept.popitem(last=False)[1][1].body)


def _not_modified(tag: str) -> Response:
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={**_HEADERS, "etag": tag})


def _held(request: Request) -> list[str]:
    """The tags of the answers that the client says it holds, for a weak comparison (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match")
    return [] if given is None else [each.strip().removeprefix("W/") for each in given.split(",")]
