"""One connection to the API: uvicorn's over h11, with the bounds that it leaves open.

Rules: one connection too many is told so and closed. Whoever opens one and does not send the head of a request within
`HEAD_SECONDS` is cut off; later requests on it are bounded by the keep-alive. What is no HTTP is answered with a problem, too.
"""

import asyncio
from http import HTTPStatus
from typing import Final

import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 2000
HEAD_SECONDS: Final = 15.0


class Connection(H11Protocol):
    """Made by the server for each connection."""

    _deadline: asyncio.TimerHandle | None = None

    @property
    def _asked(self) -> bool:
        """The head of a request has come."""
        return bool(self.cycle)  # its base says that there always is one

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            detail = f"{MOST_CONNECTIONS} connections are open: close some, or come back later"
            transport.write(_raw_problem(HTTPStatus.SERVICE_UNAVAILABLE, detail))
            transport.close()
            return
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._cut_off_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if not self.transport.is_closing():
            self.transport.write(_raw_problem(HTTPStatus.BAD_REQUEST, f"{msg[:1].lower()}{msg[1:].rstrip('.')}"))
            self.transport.close()

    def _cut_off_if_silent(self) -> None:
        if not self._asked:
            self.transport.abort()


def _raw_problem(status: HTTPStatus, detail: str) -> bytes:
    body = msgspec.json.encode({"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail})
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
