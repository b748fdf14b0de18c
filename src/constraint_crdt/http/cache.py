"""`ETag`, `If-None-Match`, and a cache of encoded responses, so that frequent polling costs little.

Rules: a tag covers this start of the node, the state hash, the version of readings beside the state, the path and query, and
for a response with ages the current second. So a response is never older than the last write, and ages are at most a second
old. The cache is bounded. An expensive response is computed once for all concurrent requests, and such computations leave the
node half of its time: requests wait, and are never served stale data.
"""

import asyncio
from collections import OrderedDict
from hashlib import blake2b
from http import HTTPStatus
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response

from constraint_crdt.http.endpoint import Endpoint
from constraint_crdt.operations.operation import Freshness
from constraint_crdt.runtime.node import Node

MOST_ANSWERS = 256
MOST_BYTES = 32 * 1024 * 1024
LARGEST = 8 * 1024 * 1024
"""Bytes of the largest response in the cache."""

CHEAP = 0.001
"""Seconds: a response computed faster is computed for each request."""

SHARE_OF_LOOP = 1
"""After an expensive response, the pause as a multiple of its time: half of the loop stays free. (With 4, reads at 2,000 a second
waited for each other while a third of the node's core was idle.)"""

LONGEST_PAUSE = 0.25
"""Seconds between two of them, at most."""

_HEADERS = {"cache-control": "private, no-cache"}
"""Clients revalidate each time."""

_Asked = tuple[str, bytes]


class AnswerCache:
    """The cached responses of an application."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kept: OrderedDict[_Asked, tuple[str, Response]] = OrderedDict()
        self._bytes = 0
        self._pending: dict[_Asked, asyncio.Task[Response]] = {}
        self._costly: set[str] = set()
        """The operations with an expensive response so far."""
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        """When the next expensive response may be computed."""

    async def answer(self, endpoint: Endpoint, request: Request) -> Response:
        """The response to a request: computed unless the cache has a valid copy, and sent unless the client has."""
        freshness = endpoint.operation.freshness
        if freshness is None:
            return await endpoint.answer(self._node, request)
        asked: _Asked = (request.scope["path"], request.scope["query_string"])
        tag = self._tag(freshness, asked)
        held = _held(request)
        if tag.removeprefix("W/") in held:  # only a 200 to the same path and query has ever carried this tag
            return _not_modified(tag)
        kept = self._kept.get(asked)
        if kept is not None and kept[0] == tag:
            self._kept.move_to_end(asked)
            response = kept[1]
        else:
            response = await self._made(endpoint, request, asked)
            tag = response.headers["etag"]
        # `*` matches any response, which exists only now: a wrong parameter has none.
        return _not_modified(tag) if held and (held == ["*"] or tag.removeprefix("W/") in held) else response

    async def _made(self, endpoint: Endpoint, request: Request, asked: _Asked) -> Response:
        """The response, computed now or shared with concurrent requests."""
        # Concurrent requests wait for the same computation, which begins after all of them came.
        pending = self._pending.get(asked)
        if pending is None:
            if endpoint.operation.name not in self._costly or (monotonic() >= self._free_at and not self._turn.locked()):
                return await self._compute(endpoint, request, asked)
            pending = self._pending[asked] = asyncio.create_task(self._compute_in_turn(endpoint, request, asked))
        return await asyncio.shield(pending)

    async def _compute_in_turn(self, endpoint: Endpoint, request: Request, asked: _Asked) -> Response:
        try:
            async with self._turn:
                await asyncio.sleep(self._free_at - monotonic())
                return await self._compute(endpoint, request, asked)
        finally:
            del self._pending[asked]

    async def _compute(self, endpoint: Endpoint, request: Request, asked: _Asked) -> Response:
        began, tag = monotonic(), self._tag(endpoint.operation.freshness or Freshness.STATE, asked)
        response = await endpoint.answer(self._node, request)
        took = monotonic() - began
        if took > CHEAP:
            self._costly.add(endpoint.operation.name)
            self._free_at = began + took + min(took * SHARE_OF_LOOP, LONGEST_PAUSE)
        response.headers.update({**_HEADERS, "etag": tag})
        self._keep(asked, tag, response)
        return response

    def _tag(self, freshness: Freshness, asked: _Asked) -> str:
        node = self._node
        version = node.notices.version
        second = int(monotonic()) if freshness is Freshness.AGING else 0
        goes_by = f"{node.event_stream.log.boot} {version} {second} {asked[0]}?".encode(errors="surrogatepass")
        digest = blake2b(goes_by + asked[1], key=node.gossip.state_hash, digest_size=12)
        # Weak: equal in meaning, while ages may differ in the last digit.
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
    """The tags in `If-None-Match`, for a weak comparison (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match")
    return [] if given is None else [each.strip().removeprefix("W/") for each in given.split(",")]
