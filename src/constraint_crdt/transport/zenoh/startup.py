"""Blocking calls off the loop, in daemon threads: an executor's threads would be waited for when the program ends.

They are waited for too, but not long: a thread that lets go of a Zenoh object while the interpreter goes down aborts
the process (4 of 150 runs when tried), and one that hangs in Zenoh must not keep the program from ending.

Opening and closing Zenoh sessions: ports chosen where none was asked for, and Zenoh's errors put into one sentence.

Everything here blocks; call it off the loop. Zenoh does not say which port it got for port 0, so we choose a free one
ourselves, and choose again when somebody was faster. What we chose before is tried first: others know us by it.

Every session opened here must be closed here, and what is still open when the interpreter ends is closed then: a
network thread that calls into an interpreter that is gone aborts the process (16 of 60 runs when tried).
"""

import asyncio
import atexit
import contextlib
import errno
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, NamedTuple, TypeVar

import zenoh

from constraint_crdt.transport.interface import TransportError
from constraint_crdt.transport.zenoh.config import Settings, parse_endpoint, reachable_endpoints, zenoh_config

T = TypeVar("T")

EXIT_SECONDS = 1.0
_threads: set[threading.Thread] = set()


def start_daemon_thread(work: Callable[[], object]) -> None:
    """Run `work` in a thread of its own."""
    _threads.difference_update([thread for thread in _threads if not thread.is_alive()])
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    _threads.add(thread)


def _wait_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))


atexit.register(_wait_at_exit)


async def in_daemon_thread(work: Callable[[], T], seconds: float, discard: Callable[[T], object]) -> T:
    """Run `work` in a thread and return its result or raise its error; `TimeoutError` after `seconds`.

    A result that nobody waits for any more (timed out, cancelled, loop gone) goes to `discard`, in a thread too.
    """
    call = _Call(work, discard)
    start_daemon_thread(call.run)
    try:
        async with asyncio.timeout(seconds):
            return await call.done
    except BaseException:
        call.abandon()
        raise


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._work = work
        self._discard = discard
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()

    def run(self) -> None:
        """The thread."""
        try:
            result = self._work()
        except BaseException as error:
            self._hand_over(self._fail, error)
        else:
            if not self._hand_over(self._deliver, result):
                self._discard(result)

    def abandon(self) -> None:
        """Nobody waits any more. A result that came between its delivery and the waiter's turn is thrown away."""
        if self.done.done() and not self.done.cancelled() and self.done.exception() is None:
            self._throw_away(self.done.result())

    def _hand_over(self, call: Callable[..., None], argument: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:  # the loop is closed: nobody waits
            return False
        return True

    def _deliver(self, result: T) -> None:
        if self.done.done():
            self._throw_away(result)
        else:
            self.done.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _throw_away(self, result: T) -> None:
        start_daemon_thread(lambda: self._discard(result))


_ATTEMPTS = 8
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class RouterUnreachableError(TransportError):
    """A client found none of its routers; it may try again."""


class Opened(NamedTuple):
    """An open Zenoh session, what it listens on, and where others reach that."""

    session: zenoh.Session
    listening: tuple[str, ...]
    endpoints: tuple[str, ...]


def open_session(settings: Settings, before: Sequence[str]) -> Opened:
    """Open a session; `before` is what the last one listened on. Raises `TransportError`."""
    _close_at_exit()
    chose = any(parse_endpoint(endpoint)[1] == 0 for endpoint in settings.listen)
    for attempt in range(_ATTEMPTS):
        keep = before if attempt == 0 and len(before) == len(settings.listen) else settings.listen
        listening = tuple(_with_port(endpoint) for endpoint in keep)
        try:
            session = zenoh.open(zenoh.Config.from_json5(json.dumps(zenoh_config(settings, listening))))
        except zenoh.ZError as error:
            if chose and _os_error(str(error)) == errno.EADDRINUSE and attempt + 1 < _ATTEMPTS:
                continue
            raise _explained(settings, listening, str(error)) from None
        _open.add(session)
        return Opened(session, listening, reachable_endpoints(listening, _own_addresses()))
    raise AssertionError("the last attempt returns or raises")


def close_session(session: zenoh.Session) -> None:
    """Close a session of `open_session`; nothing happens the second time."""
    _open.discard(session)
    with contextlib.suppress(zenoh.ZError):
        session.close()  # type: ignore[no-untyped-call]  # the stub leaves the return type out


_open: set[zenoh.Session] = set()
_exiting = threading.Event()
atexit.register(_exiting.set)  # runs before the wait for daemon threads, which was registered earlier


@cache
def _close_at_exit() -> None:
    """Have a thread ready to close what is open in the end: Python 3.12 starts none any more by then."""

    def close_all() -> None:
        _exiting.wait()
        for session in list(_open):
            close_session(session)

    start_daemon_thread(close_all)


def _with_port(endpoint: str) -> str:
    """`endpoint`, with a port that is free now in place of port 0."""
    host, port = parse_endpoint(endpoint)
    if port:
        return endpoint
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            port = probe.getsockname()[1]
    except OSError as error:
        raise TransportError(f"Cannot listen on {endpoint}: {error.strerror or error}; use another address.") from None
    return f"{endpoint.rpartition(':')[0]}:{port}"


def _own_addresses() -> list[str]:
    """The addresses that this machine is reached by, one per IP version it has a route for; loopback without any."""
    found: list[str] = []
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # sends nothing: it asks the routing table
            found.append(probe.getsockname()[0])
    return found or ["127.0.0.1"]


def _os_error(message: str) -> int:
    match = _OS_ERROR.search(message)
    return int(match[1]) if match else 0


def _explained(settings: Settings, listening: Sequence[str], message: str) -> TransportError:
    if settings.role == "client" and "Unable to connect" in message:
        return RouterUnreachableError(f"No router answers at {', '.join(settings.connect)}; start one there.")
    endpoint = next((each for each in listening if each in message), ", ".join(listening))
    number = _os_error(message)
    if number == errno.EADDRINUSE:
        return TransportError(f"Cannot listen on {endpoint}: the port is taken; choose another, or end what uses it.")
    if number == errno.EADDRNOTAVAIL:
        return TransportError(f"Cannot listen on {endpoint}: this machine has no such address; use one that it has.")
    # Zenoh ends its messages in places of its source code, which help nobody here.
    reason = os.strerror(number) if number else message.split(" at /")[0].strip().rstrip(".")
    return TransportError(f"Cannot open with {endpoint or 'these settings'}: {reason}; change the endpoint.")
