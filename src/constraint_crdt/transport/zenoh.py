"""`ZenohTransport`: the membership of a node in a network of Eclipse Zenoh, over any number of sessions.

Zenoh runs in the process of the node, without a broker. Rules: a malformed endpoint or role is refused at construction, a taken
port at open. Silent seeds and routers are retried in the background. Every session has a random Zenoh id, because Zenoh isolates
the second of two equal ids without an error.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import zenoh

from constraint_crdt.transport import (
    ANSWERS_AT_ONCE,
    Handler,
    HandlerTasks,
    Peer,
    PeerCallback,
    TransportError,
    Unreachable,
    check_answers_at_once,
)
from constraint_crdt.transport.address_limit import AddressLimit
from constraint_crdt.transport.zenoh_session import CLOSE_SECONDS, Registration, Traffic, ZenohSession
from constraint_crdt.transport.zenoh_startup import (
    Opened,
    RouterUnreachableError,
    Settings,
    checked,
    close_session,
    in_daemon_thread,
    linked_addresses,
    open_session,
    parse_endpoint,
    start_daemon_thread,
    with_more_connects,
)

if TYPE_CHECKING:
    from constraint_crdt.identity import Identity

OPEN_SECONDS = 10.0
_RETRY_SECONDS = (0.2, 2.0)

_log = logging.getLogger(__name__)


class ZenohTransport:
    """A `Transport` on Zenoh.

    Args:
        role: `peer` links to every other peer (up to about 50 nodes); `router` also carries traffic for clients;
            `client` has a single link, to a router in `connect`.
        listen: endpoints `tcp/HOST:PORT`; port 0 takes a free one. Loopback when left out; nothing for a client.
        connect: endpoints of other nodes, retried without end. Links to these are repaired, unlike links found by gossip.
        multicast: also discover nodes by multicast on the local network.
        discover: also link to nodes known to connected nodes; otherwise only to nodes in `connect`.
        lease: seconds of silence after which a link, and with it a peer, counts as gone.
        answers_at_once: the limit of running handlers; a request beyond the limit stays unanswered.
        identity: the identity of the node, for links by TLS with nodes of its fleet alone.
        accept_plain: with an identity, link also to nodes without one.

    Raises `TransportError` for an invalid role, endpoint, lease or limit.
    """

    def __init__(
        self,
        role: str = "peer",
        *,
        listen: Sequence[str] | None = None,
        connect: Sequence[str] = (),
        multicast: bool = False,
        lease: float = 4.0,
        discover: bool = True,
        answers_at_once: int = ANSWERS_AT_ONCE,
        identity: "Identity | None" = None,
        accept_plain: bool = False,
    ) -> None:
        """`role`: peer, client or router. `listen` and `connect`: endpoints, such as `tcp/10.0.0.1:7447`. `multicast` and
        `discover`: find peers on the local network, and through other peers. `lease`: seconds until a silent link is closed.
        `answers_at_once`: requests answered at the same time. `identity`: that of the node, for links by TLS.
        `accept_plain`: link also to nodes without an identity.

        Raises `TransportError` for a setting out of bounds.
        """
        self._settings = checked(
            role, listen, connect,
            multicast=multicast, lease=lease, discover=discover, identity=identity, accept_plain=accept_plain,
        )  # fmt: skip
        self._answers_at_once = check_answers_at_once(answers_at_once)
        self._lock = asyncio.Lock()
        self._member: Registration | None = None
        self._mine: set[str] = set()
        self._session: ZenohSession | None = None
        self._listening: tuple[str, ...] = ()
        self._endpoints: tuple[str, ...] = ()
        self._joining: asyncio.Task[None] | None = None
        self._traffic = Traffic()
        self._limit: AddressLimit | None = None
        self._shut_out: Callable[[str], bool] = lambda _: False

    @property
    def endpoints(self) -> tuple[str, ...]:
        """See `Transport.endpoints`."""
        return self._endpoints

    @property
    def bytes_sent(self) -> int:
        """See `Transport.bytes_sent`."""
        return self._traffic.sent

    @property
    def bytes_received(self) -> int:
        """See `Transport.bytes_received`."""
        return self._traffic.received

    @property
    def refused(self) -> int:
        """See `Transport.refused`."""
        return self._traffic.refused

    def peers(self) -> frozenset[Peer]:
        """See `Transport.peers`."""
        return frozenset(self._session.peers) if self._session else frozenset()

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        """See `Transport.open`. A client without an answering router opens, and joins when a router answers.

        Raises `TransportError`.
        """
        if self._member is not None:
            raise TransportError("this transport is open already; close it first")
        if not name or not fleet:
            raise TransportError("a node and its fleet need a name each; give both")
        identity = self._settings.identity
        if identity is not None and (name, fleet) != (identity.subject.node, identity.subject.fleet):
            of = f"{identity.subject.node} in the fleet {identity.subject.fleet}"
            raise TransportError(f"the identity is of {of}, not of {name} in {fleet}; name the identity of this node")
        self._member = member = Registration(name, fleet, HandlerTasks(handler, self._answers_at_once), changed)
        try:
            async with self._lock:
                return await self._join(member, self._settings)
        except BaseException:
            if self._member is member:
                self._member = None
            raise

    async def reopen(self, extra_connect: Sequence[str] = ()) -> Peer:
        """See `Transport.reopen`. Raises `TransportError`."""
        async with self._lock:
            member = self._member
            if member is None:
                raise TransportError("this transport is not open; open it first")
            settings = with_more_connects(self._settings, extra_connect, self._endpoints)
            gone = self.peers()
            await self._leave()
            for peer in sorted(gone):
                asyncio.get_running_loop().call_soon(self._report_gone, member, peer)
            return await self._join(member, settings)

    @property
    def proofs(self) -> Mapping[Peer, str]:
        """The present peers, each with the proof of its session; "" for a peer without one."""
        return self._session.peers if self._session else {}

    def shut_out(self, is_shut_out: Callable[[str], bool]) -> None:
        """List no sessions whose proof this function names, from now on. Their requests get no answer."""
        self._shut_out = is_shut_out
        if self._session is not None:
            self._session.shut_out()

    def _is_shut_out(self, proof: str) -> bool:
        return self._shut_out(proof)

    async def renew(self, identity: "Identity") -> Peer:
        """Open the session again, with a new certificate. Raises `TransportError`."""
        self._settings = replace(self._settings, identity=identity)
        return await self.reopen()

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        """See `Transport.request`. Raises `Unreachable`, and `ValueError` for a payload above `MAX_PAYLOAD`."""
        if self._session is None:
            raise Unreachable(f"{peer.name} cannot be asked: this transport has no link now")
        return await self._session.request(peer, payload, timeout)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._member = None
        await self._leave()
        self._listening = ()

    def _is_me(self, peer: Peer) -> bool:
        return peer.session in self._mine

    def _report_gone(self, member: Registration, peer: Peer) -> None:
        if self._member is member:
            member.changed(peer, False)

    async def _leave(self) -> None:
        joining, self._joining = self._joining, None
        session, self._session = self._session, None
        limit, self._limit = self._limit, None
        self._endpoints = ()
        if joining is not None:
            joining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await joining
        if limit is not None:
            limit.stop()
        if session is not None:
            await session.close()

    async def _join(self, member: Registration, settings: Settings) -> Peer:
        me = Peer(member.name, f"{time.time_ns():016x}{secrets.token_hex(4)}")
        self._mine.add(me.session)
        try:
            await self._attach(member, me, settings)
        except RouterUnreachableError as error:
            if self._member is not member:
                raise
            _log.warning("%s; trying again until it answers", error)
            self._joining = asyncio.create_task(self._keep_trying(member, me, settings))
        return me

    async def _keep_trying(self, member: Registration, me: Peer, settings: Settings) -> None:
        """Attach a client as soon as any of its routers answers."""
        pause, longest = _RETRY_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._attach(member, me, settings)
            except RouterUnreachableError:
                pause = min(2 * pause, longest)
            except TransportError as error:
                _log.warning("%s; trying again", error)

    async def _attach(self, member: Registration, me: Peer, settings: Settings) -> None:
        """Open a Zenoh session as the current session. Raises `TransportError`."""
        before = self._listening
        try:
            opened = await in_daemon_thread(
                lambda: open_session(settings, before), OPEN_SECONDS, lambda late: close_session(late.session)
            )
        except TimeoutError:
            raise TransportError(f"Zenoh did not open within {OPEN_SECONDS:g} s; look at the endpoints") from None
        try:
            self._adopt(opened, member, me)
        except BaseException:
            with contextlib.suppress(TimeoutError):
                await in_daemon_thread(lambda: close_session(opened.session), CLOSE_SECONDS, lambda _: None)
            raise

    def _adopt(self, opened: Opened, member: Registration, me: Peer) -> None:
        if self._member is not member:
            raise TransportError("this transport was closed while it opened")
        try:
            self._session = ZenohSession(
                opened.session, member, me, self._is_me, self._traffic, self._settings.identity,
                accept_plain=self._settings.accept_plain, is_shut_out=self._is_shut_out,
            )  # fmt: skip
        except zenoh.ZError as error:
            raise TransportError(f"Zenoh opened, and refused to join: {error}; open again") from None
        self._listening, self._endpoints = opened.listening, opened.endpoints
        if self._settings.identity is not None:
            self._limit = AddressLimit(
                {parse_endpoint(each)[1] for each in opened.listening}, partial(linked_addresses, opened.session)
            )
            start_daemon_thread(self._limit.run)
