"""The open Zenoh sessions of a node: tokens, peers, requests, and the bridge to asyncio.

A `ZenohSession` is a life of the node on the network. It has a main Zenoh session, and side sessions, each for the link to a
single peer that the main session has no link to (`zenoh`). All declare the same token and the same answering key, so others see
a single peer. Where the role of the node changes, another session becomes the main one (`promote`), and where the port has to be
free for it, the former is closed before, while the peers stay listed (`hold`). Rules:

1. A peer is listed while any of the sessions sees its token. Requests go through the main session if it sees the peer.
2. The answering key is declared as complete, so of two sessions of a node only one gets a request.
3. The Zenoh id of a session tells whose it is, and whether it is a main session (`zenoh_startup`). So a node knows links between
   main sessions from links by a side session of either end. Nodes of 0.1.0 have random ids, and no side sessions.

Rules of the bridge, each found by a measured freeze, hang or loss:

1. Every callback is direct (`indirect=False`), runs in a network thread, and only schedules a call on the loop. An indirect
   callback keeps the process from ending.
2. A query is answered on the loop. A query without an answer is dropped when its handler ends.
3. Requests and replies are dropped rather than wait for a full queue: waiting blocks the loop.
4. Calls scheduled by a callback are ignored after the session was closed.

Replies travel in pages, because Zenoh drops messages beyond its queue, and a long list would lose parts:

1. The first page answers the request. The rest waits in the responder's `PendingPages` under a random token. The requester asks
   for the page from its next index.
2. Every reply carries token, position, the end of its page and the length of the list, so gaps are detected. A page counts up to
   its first gap; the rest is requested again. An empty list is a single empty reply of length 0.
3. Both sides are bounded: the pending pages in lists and time, a page in bytes and number. A requester accepts pages of other sizes
   than its own: older responders send up to 512 KiB.

With an identity every request and reply has a tag (`identity.credentials`) in its attachment, before the turn of a request and
after the header of a reply. Messages without a valid tag are dropped and counted. A request that overtakes the token of its sender
is held until the token comes, for `EARLY_SECONDS` and up to a number.
"""

import asyncio
import contextlib
import logging
import secrets
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import zenoh
from zenoh.handlers import Callback

from constraint_crdt.transport import MAX_PAYLOAD, HandlerTasks, LinkKind, Peer, PeerCallback, Unreachable, check_payload
from constraint_crdt.transport.topology import ease_links
from constraint_crdt.transport.zenoh_startup import (
    ALIVE_ANYWHERE,
    MARK,
    alive_key,
    alive_keys,
    close_session,
    fleet_of,
    in_daemon_thread,
    link_ends,
    main_id,
    node_key,
    peer_of,
    proof_in,
    side_id,
    start_daemon_thread,
)

if TYPE_CHECKING:  # `cryptography` is loaded for nodes with an identity only
    from constraint_crdt.identity import Identity
    from constraint_crdt.identity.credentials import Authenticator, Request

PAGE_BYTES = 384 * 1024
"""A page has to fit into Zenoh's queue of 16 batches of 64 KiB, with room for other messages. A reply begins a new batch where the
rest of the last is too short, so a reply of 64 KiB takes two: eight of them filled the queue, and on a busy machine lost their end.
"""
PAGE_REPLIES = 256
SHELF_LISTS = 32
SHELF_SECONDS = 30.0

_HEADER = struct.Struct("!8sIII")
_TOKEN_BYTES = 8
_WHOLE = _HEADER.pack(bytes(_TOKEN_BYTES), 0, 1, 1)
"""The header of a list of one reply, which has no tail to ask for."""
_TURN = struct.Struct("!8sI")


PUBLISH_SECONDS = 5.0
"""Seconds for a message to others than nodes."""


class Header(NamedTuple):
    """The header of each reply."""

    token: bytes
    position: int
    end: int
    total: int


def encode_turn(token: bytes, start: int) -> bytes:
    """The attachment of a request for the page of `token` from index `start`."""
    return _TURN.pack(token, start)


class PendingPages:
    """The responder's lists with pages not requested yet. Times are in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._lists: OrderedDict[bytes, tuple[float, Sequence[bytes]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lists)

    def first_page(self, replies: Sequence[bytes], now: float) -> list[tuple[bytes, bytes]]:
        """The (header, payload) pairs of the first page. Keeps the rest."""
        token = secrets.token_bytes(8)
        end = _page_end(replies, 0)
        self._tidy(now)
        if end < len(replies):
            self._lists[token] = (now, replies)
            if len(self._lists) > SHELF_LISTS:
                self._lists.popitem(last=False)
        return _page(token, replies, 0, end)

    def next_page(self, turn: bytes, now: float) -> list[tuple[bytes, bytes]] | None:
        """The page requested by `turn`, or None. The last page drops the list."""
        self._tidy(now)
        if len(turn) != _TURN.size:
            return None
        token, start = _TURN.unpack(turn)
        held = self._lists.get(token)
        if held is None or start >= len(held[1]):
            return None
        replies = held[1]
        end = _page_end(replies, start)
        if end == len(replies):
            del self._lists[token]
        else:
            self._lists[token] = (now, replies)
            self._lists.move_to_end(token)
        return _page(token, replies, start, end)

    def _tidy(self, now: float) -> None:
        """Drop lists after `SHELF_SECONDS` without a request; the oldest come first."""
        while self._lists:
            token, (since, _) = next(iter(self._lists.items()))
            if now - since <= SHELF_SECONDS:
                return
            del self._lists[token]


class Page:
    """The requester's side of a page. `add` is called in a network thread, every other method after the last `add`."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._bytes = 0
        self.header: Header | None = None
        self.payloads: list[bytes] = []

    def add(self, attachment: bytes, payload: bytes) -> bool:
        """Add a reply if its position is next. Returns True for a complete page."""
        if len(attachment) != _HEADER.size:
            return False
        header = Header(*_HEADER.unpack(attachment))
        if self.header is not None and header.token != self.header.token:
            return False
        self.header = header
        fits = len(self.payloads) < PAGE_REPLIES and self._bytes + len(payload) <= PAGE_BYTES + MAX_PAYLOAD
        if header.position == self._next < header.end and fits:
            self.payloads.append(payload)
            self._bytes += len(payload)
            self._next += 1
        return self._next == header.end


def _page_end(replies: Sequence[bytes], start: int) -> int:
    size, end = 0, start
    while end < len(replies) and end - start < PAGE_REPLIES and (end == start or size + len(replies[end]) <= PAGE_BYTES):
        size += len(replies[end])
        end += 1
    return end


def _page(token: bytes, replies: Sequence[bytes], start: int, end: int) -> list[tuple[bytes, bytes]]:
    total = len(replies)
    if not total:
        return [(_HEADER.pack(token, 0, 0, 0), b"")]
    return [(_HEADER.pack(token, index, end, total), replies[index]) for index in range(start, end)]


CLOSE_SECONDS = 1.5
LOG_EVERY = 60.0
"""Seconds between two lines of the log on names without a valid certificate, at least; and on messages without a valid tag."""

FOREIGN_AFTER = 1.0
"""Seconds after a link came at which a node without peers asks for the nodes of other fleets behind its links."""

FOREIGN_TIMEOUT = 2.0
"""Seconds for the answers."""

MOST_FOREIGN = 4
"""Other fleets that are named."""

MOST_SESSIONS = 16
"""Sessions of one name that are listed, at most. A node has a single session, and for a moment those before it."""

EASE_SECONDS = 0.05
EASE_AGAIN_SECONDS = 3.0
EASE_EVERY = 30.0
"""Seconds from a new link until the options of its connection are set: those of others that come at once are set with them. And
until they are set again, by the measurements of the system since.
"""

EARLY_SECONDS = 2.0
EARLY_REQUESTS = 64
"""Requests that are held until the token of their sender comes: for how long, and how many at most."""

ANSWER_BYTES = 256 * 1024 * 1024
"""The longest answer of a request, in bytes."""

_log = logging.getLogger(__name__)


@dataclass
class Traffic:
    """Payload bytes over all sessions of a transport."""

    sent: int = 0
    received: int = 0
    refused: int = 0
    """Messages without a valid tag, not bytes."""


@dataclass(frozen=True)
class Registration:
    """The arguments of a node's `open`, with the tasks of its handler."""

    name: str
    fleet: str
    handlers: HandlerTasks
    changed: PeerCallback


class Declared:
    """A Zenoh session and the declarations of this node in it."""

    def __init__(self, raw: zenoh.Session) -> None:
        self.raw = raw
        self.held: tuple[object, ...] = ()
        self.tokens: list[zenoh.LivelinessToken] = []
        self.linked: dict[str, zenoh.WhatAmI] = {}
        """The Zenoh ids at the other ends of its links, and the role of each."""
        self.requests = 0
        """Requests that wait for a reply."""
        self.is_closed = False
        self.pause = 0.0
        """Seconds between the end of the declarations and that of the links: for a router, whose neighbours have to take note."""

    @property
    def serves_clients(self) -> bool:
        """Whether clients have a link to it."""
        return any(what == zenoh.WhatAmI.CLIENT for what in self.linked.values())

    def leave(self) -> None:
        """Close. Blocks."""
        # The token goes first. Where it goes together with its link, Zenoh does not tell every peer, and it stays listed there.
        with contextlib.suppress(zenoh.ZError):
            for token in self.tokens:
                token.undeclare()  # type: ignore[no-untyped-call]  # the stub leaves the return type out
        time.sleep(self.pause)
        close_session(self.raw)


class ZenohSession:
    """A life of a node on the network. Belongs to a single event loop, and owns its Zenoh sessions."""

    def __init__(
        self,
        raw: zenoh.Session,
        member: Registration,
        me: Peer,
        is_me: Callable[[Peer], bool],
        traffic: Traffic,
        identity: "Identity | None",
        *,
        accept_plain: bool = False,
        is_shut_out: Callable[[str], bool] = lambda _: False,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_shut_out(proof)`: a session with this proof is not listed. `moved` is called after each change of peers and links."""
        self._member = member
        self._me = me
        self._moved = moved
        self._is_me = is_me
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._pending = PendingPages()
        self._waiting: set[asyncio.Future[Page]] = set()
        self._closed = False
        self._identity = identity
        self._accept_plain = accept_plain or identity is None
        self._is_shut_out = is_shut_out
        self._authenticator = None if identity is None else _authenticator(member.fleet, me)
        self._early: list[zenoh.Query] = []
        self._unproven_at = -LOG_EVERY
        self._refused_at = -LOG_EVERY
        self.peers: dict[Peer, str] = {}
        """The peers, each with the proof in its token."""
        self._via: dict[Peer, dict[Declared, None]] = {}
        """The sessions that see each listed peer, in the order in which they saw it."""
        self._proofs = [""] if self._accept_plain else []
        if identity is not None and self._authenticator is not None:
            self._proofs.append(identity.prove(me.session, self._authenticator.public))
        self._sides: dict[Declared, None] = {}
        self._marked_links = Counter[str]()
        """The links of the main session by the beginning of the id at their other end."""
        self._router_links = 0
        self._holds = False
        self._easing = False
        self._eased = 0
        self._is_new = False
        """Whether a link has come since the options were set last."""
        self.foreign: dict[str, str] = {}
        """Other fleets that were found at the other ends of links while no node of this fleet was, each with the name of a node."""
        self._looks_around = False
        self._main = self._declare(raw)

    def _declare(self, raw: zenoh.Session) -> Declared:
        """Declare this node in a Zenoh session. Raises `ZError`."""
        declared, fleet = Declared(raw), self._member.fleet

        def on_token(sample: zenoh.Sample) -> None:
            self._hand_over(self._see, declared, str(sample.key_expr), sample.kind == zenoh.SampleKind.PUT)

        def on_link(event: zenoh.TransportEvent) -> None:
            other = event.transport
            self._hand_over(self._link, declared, str(other.zid), other.whatami, event.kind == zenoh.SampleKind.PUT)

        def on_connection(event: zenoh.LinkEvent) -> None:
            if event.kind == zenoh.SampleKind.PUT:
                self._hand_over(self._ease_soon)

        query, token = Callback(self._on_query, indirect=False), Callback(on_token, indirect=False)
        # The tokens come last: a peer notified of a token finds the answering key declared.
        declared.held = (
            raw.info.declare_link_events_listener(Callback(on_connection, indirect=False), history=True),
            raw.info.declare_transport_events_listener(Callback(on_link, indirect=False), history=True),
            *(raw.declare_queryable(node_key(fleet, self._me, proven=bool(proof)), query, complete=True) for proof in self._proofs),
            *(
                raw.liveliness().declare_subscriber(alive_keys(fleet, proven=bool(proof)), token, history=True)
                for proof in self._proofs
            ),
        )
        declared.tokens = [raw.liveliness().declare_token(alive_key(fleet, self._me, proof)) for proof in self._proofs]
        return declared

    # --- side sessions ------------------------------------------------------------------------------------------------

    def attach(self, raw: zenoh.Session) -> Declared:
        """Take a Zenoh session as a side session. Raises `ZError`, and `Unreachable` after `close`; `raw` is the caller's then."""
        if self._closed:
            raise Unreachable("this transport is closed")
        declared = self._declare(raw)
        self._sides[declared] = None
        return declared

    def detach(self, side: Declared) -> None:
        """Close a side session, in the background. Peers seen by it alone are no longer listed."""
        if self._sides.pop(side, self) is not None:
            return
        for peer in [peer for peer, via in self._via.items() if side in via]:
            self._lose(peer, side)
        start_daemon_thread(side.leave)

    # --- the main session ---------------------------------------------------------------------------------------------

    def promote(self, declared: Declared) -> Declared:
        """Make an attached session the main session. Returns the former, which goes on as a side session."""
        former, self._main = self._main, declared
        self._sides.pop(declared, None)
        if not former.is_closed:
            self._sides[former] = None
        self._marked_links = Counter(other[:MARK] for other in declared.linked)
        self._router_links = sum(what == zenoh.WhatAmI.ROUTER for what in declared.linked.values())
        self._moved()
        return former

    @property
    def main(self) -> zenoh.Session:
        """The Zenoh session that is the main session."""
        return self._main.raw

    @property
    def lacks_main(self) -> bool:
        """Whether the main session is closed, and no other has taken its place."""
        return self._main.is_closed

    def leave_after(self, seconds: float) -> None:
        """The main session keeps its links for so long after its declarations have ended."""
        self._main.pause = seconds

    async def hold(self) -> None:
        """Close the main session before there is another. Its peers stay listed until `release`; requests to them fail."""
        self._holds, former = True, self._main
        former.is_closed = True
        for peer in [peer for peer, via in self._via.items() if former in via]:
            self._lose(peer, former)
        with contextlib.suppress(TimeoutError):
            await in_daemon_thread(former.leave, CLOSE_SECONDS, lambda _: None)

    async def end(self, side: Declared) -> None:
        """Close a side session, and wait for it for a bounded time."""
        if self._sides.pop(side, self) is not None:
            return
        for peer in [peer for peer, via in self._via.items() if side in via]:
            self._lose(peer, side)
        with contextlib.suppress(TimeoutError):
            await in_daemon_thread(side.leave, CLOSE_SECONDS, lambda _: None)

    def release(self) -> None:
        """List no more the peers that no session sees."""
        self._holds = False
        for peer in [peer for peer, via in self._via.items() if not via]:
            self._forget(peer)

    def routers(self, declared: Declared | None = None) -> set[str]:
        """The names of the routers with a link to a session, the main if left out; "" for those of another name. O(peers)."""
        linked = (self._main if declared is None else declared).linked
        found = {other[:MARK] for other, what in linked.items() if what == zenoh.WhatAmI.ROUTER}
        named = {main_id(peer.session): peer.name for peer in self.peers}
        return {named.get(mark, "") for mark in found}

    @property
    def serves_clients(self) -> bool:
        """Whether clients have a link to the main session."""
        return self._main.serves_clients

    def seen_by(self, side: Declared) -> set[str]:
        """The names of the peers that a side session sees. O(peers)."""
        return {peer.name for peer, via in self._via.items() if side in via}

    @property
    def is_linked(self) -> bool:
        """Whether the main session has a link."""
        return bool(self._main.linked)

    def links(self) -> dict[str, LinkKind]:
        """How each name among the peers is linked, the best link of its sessions. O(peers)."""
        found: dict[str, LinkKind] = {}
        for peer in self.peers:
            kind = self._kind(peer)
            if peer.name not in found or kind != "side":
                found[peer.name] = kind
        return found

    def sides_of_others(self) -> set[str]:
        """The names of the peers with a side session to this node. O(peers)."""
        return {peer.name for peer in self.peers if self._marked_links[side_id(peer.session)]}

    def _kind(self, peer: Peer) -> LinkKind:
        if self._main not in self._via[peer]:
            return "side"
        if self._marked_links[main_id(peer.session)]:
            return "direct"
        if self._marked_links[side_id(peer.session)]:
            return "side"
        return "router" if self._router_links else "direct"

    def _ease_soon(self) -> None:
        self._is_new = True
        if not self._easing:
            self._easing = True
            self._loop.call_later(EASE_SECONDS, self._ease)

    def _ease_again(self, eased: int) -> None:
        if eased == self._eased:  # else another one is to come
            self._ease()

    def _ease(self) -> None:
        """Set the options of the connections of new links, in the background."""
        self._easing = False
        self._eased += 1
        if self._closed:
            return
        self._loop.call_later(EASE_AGAIN_SECONDS if self._is_new else EASE_EVERY, self._ease_again, self._eased)
        self._is_new = False
        sessions = [declared.raw for declared in (self._main, *self._sides)]
        start_daemon_thread(lambda: ease_links(link_ends(sessions)))

    def _link(self, declared: Declared, other: str, what: zenoh.WhatAmI, up: bool) -> None:
        if up != (other in declared.linked):
            if up:
                declared.linked[other] = what
            else:
                what = declared.linked.pop(other)
            if declared is self._main:
                change, mark = 1 if up else -1, other[:MARK]
                self._router_links += (what == zenoh.WhatAmI.ROUTER) * change
                self._marked_links[mark] += change
                if not self._marked_links[mark]:
                    del self._marked_links[mark]
        if up and not self.peers and self._identity is None and not self._looks_around:
            self._looks_around = True
            self._loop.call_later(FOREIGN_AFTER, self._look_around)
        self._moved()

    def _look_around(self) -> None:
        """Ask for the nodes of all fleets behind the links, as no node of this fleet was found there: a name may be misspelt."""
        self._looks_around = False
        if self.peers or self._closed:
            return

        def on_token(reply: zenoh.Reply) -> None:
            if reply.ok is not None:
                self._hand_over(self._note_foreign, str(reply.ok.key_expr))

        with contextlib.suppress(zenoh.ZError):
            self._main.raw.liveliness().get(ALIVE_ANYWHERE, Callback(on_token, indirect=False), timeout=FOREIGN_TIMEOUT)

    def _note_foreign(self, key: str) -> None:
        peer = peer_of(key)
        if peer is not None and not self._is_me(peer) and len(self.foreign) < MOST_FOREIGN:
            fleet = fleet_of(key)
            if fleet != self._member.fleet:
                if fleet not in self.foreign:
                    told = (
                        "%s of fleet %s is at the other end of a link, and this node is of fleet %s: look at --fleet and --connect"
                    )
                    _log.warning(told, peer.name, fleet, self._member.fleet)
                self.foreign.setdefault(fleet, peer.name)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        """See `Transport.request`."""
        self._traffic.sent += len(check_payload(payload))
        replies: list[bytes] = []
        try:
            await self._fetch_all(peer, payload, timeout, replies)
        except Unreachable as error:
            error.replies = (*replies, *error.replies)
            raise
        finally:
            self._traffic.received += sum(map(len, replies))
        return replies

    async def _fetch_all(self, peer: Peer, payload: bytes, seconds: float, replies: list[bytes]) -> None:
        """Request all pages, and add their replies to `replies`."""
        page = await self._fetch(peer, payload, None, 0, seconds)
        if page.header is None:
            raise Unreachable(f"{peer.name} did not answer")
        token, total = page.header.token, page.header.total
        replies += page.payloads
        while len(replies) < total:
            page = await self._fetch(peer, b"", encode_turn(token, len(replies)), len(replies), seconds)
            replies += page.payloads
            if not page.payloads or sum(map(len, replies)) > ANSWER_BYTES:
                raise Unreachable(f"{peer.name} answered only {len(replies)} of {total} parts")

    async def publish(self, key: str, payload: bytes, media_type: str) -> None:
        """Publish a message by the main session. Raises `Unreachable`."""
        if self._closed:
            raise Unreachable("this transport is closed")
        raw = self._main.raw

        def put() -> None:
            # Blocking, as a message of this sort must not be dropped for a full queue; in a thread, so that the loop does not wait.
            raw.put(key, payload, encoding=zenoh.Encoding(media_type), congestion_control=zenoh.CongestionControl.BLOCK)

        try:
            await in_daemon_thread(put, PUBLISH_SECONDS, lambda _: None)
        except zenoh.ZError as error:
            raise Unreachable(f"Zenoh does not take the message: {error}") from None
        except TimeoutError:
            raise Unreachable("Zenoh did not take the message in time") from None

    async def close(self) -> None:
        """Close within `CANCEL_SECONDS` and `CLOSE_SECONDS`; slower parts end in the background."""
        if self._closed:
            return
        self._closed = True
        self.peers.clear()
        self._via.clear()
        while self._early:
            self._reply(self._early.pop(), [])
        for page in self._waiting:
            if not page.done():
                page.set_exception(Unreachable("this transport closed before the answer came"))
        self._member.handlers.cancel()
        try:
            await self._member.handlers.wait()  # first: the handlers' queries are dropped while the session is open
        finally:
            for side in self._sides:
                start_daemon_thread(side.leave)
            with contextlib.suppress(TimeoutError):
                await in_daemon_thread(self._main.leave, CLOSE_SECONDS, lambda _: None)

    async def _fetch(self, peer: Peer, payload: bytes, turn: bytes | None, start: int, seconds: float) -> Page:
        """Request a page, and return its replies, possibly none."""
        if self._closed:
            raise Unreachable("this transport is closed")
        page = Page(start)
        fetched: asyncio.Future[Page] = self._loop.create_future()
        attachment, signed = self._signed(peer, turn or b"", payload)

        def finish() -> None:
            if not fetched.done():
                fetched.set_result(page)

        def on_reply(reply: zenoh.Reply) -> None:
            sample = reply.ok
            if sample is None or sample.attachment is None:  # Zenoh reports a timeout
                return
            header, content = bytes(sample.attachment), bytes(sample.payload)
            if signed is not None:
                header, tag = _untagged(header)
                if not self._is_reply(signed, header, content, tag):
                    self._hand_over(self._refuse_reply, peer)
                    return
            if page.add(header, content):
                self._hand_over(finish)  # without waiting for Zenoh's closing message, which may be lost

        via = self._via.get(peer, {})
        way = self._main if self._main in via else next(iter(via), self._main)
        self._waiting.add(fetched)
        way.requests += 1
        try:
            way.raw.get(
                node_key(self._member.fleet, peer, proven=signed is not None),
                Callback(on_reply, lambda: self._hand_over(finish), indirect=False),
                consolidation=zenoh.ConsolidationMode.NONE,  # else replies with the same key count as versions of a single value
                congestion_control=zenoh.CongestionControl.DROP,
                timeout=seconds,
                payload=payload,
                attachment=attachment or None,
            )
            async with asyncio.timeout(seconds):
                await fetched
        except TimeoutError:
            raise Unreachable(f"{peer.name} did not answer within {seconds:g} s", tuple(page.payloads)) from None
        except zenoh.ZError as error:
            raise Unreachable(f"{peer.name} could not be asked: {error}") from None
        finally:
            way.requests -= 1
            self._waiting.discard(fetched)
        if signed is not None and page.header is not None and self._authenticator is not None:
            self._authenticator.answered(signed)
        return page

    def _hand_over(self, call: Callable[..., None], *arguments: object) -> bool:
        """Schedule a call on the loop, from a network thread. Returns False after the end of the loop."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return False
        return True

    def _on_query(self, query: zenoh.Query) -> None:
        if self._closed or not self._hand_over(self._answer, query):
            query.drop()  # type: ignore[no-untyped-call]  # the stub leaves the return type out

    def _see(self, declared: Declared, key: str, up: bool) -> None:
        peer, proof = peer_of(key), proof_in(key)
        if self._closed or declared.is_closed or peer is None or self._is_me(peer):
            return
        if declared is not self._main and declared not in self._sides:
            return
        if not up:
            if self.peers.get(peer) == proof:  # not the end of a false token under the same name
                self._lose(peer, declared)
        elif self.peers.get(peer) == proof:
            self._via[peer][declared] = None
        elif self._admit(peer, proof):
            new = peer not in self.peers
            self.peers[peer] = proof
            self._via.setdefault(peer, {})[declared] = None
            if new:
                self._member.changed(peer, True)
            early, self._early = self._early, []
            for query in early:
                self._answer(query)
        self._moved()

    def _lose(self, peer: Peer, declared: Declared) -> None:
        """A session no longer sees a peer."""
        self._via[peer].pop(declared, None)
        if not self._via[peer] and not self._holds:
            self._forget(peer)

    def shut_out(self) -> None:
        """List the sessions no longer that are shut out by now."""
        for peer, proof in list(self.peers.items()):
            if proof and self._is_shut_out(proof):
                self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer], self._via[peer]
        if self._authenticator is not None:
            self._authenticator.forget(peer.session)
        self._member.changed(peer, False)

    def _admit(self, peer: Peer, proof: str) -> bool:
        """Whether a session is listed: with an identity here, only for a certificate of the fleet that shows its name."""
        listed = self.peers.get(peer)
        if listed or sum(other.name == peer.name for other in self.peers) >= MOST_SESSIONS:
            return False
        if self._identity is None or self._authenticator is None or (self._accept_plain and not proof):
            return listed is None
        public = None if self._authenticator.knows(peer.session) else self._identity.proves(proof, *peer, time.time_ns())
        if public is not None and self._is_shut_out(proof):
            return False
        if public is not None and self._authenticator.learn(peer.name, peer.session, public):
            return True
        if self._loop.time() - self._unproven_at >= LOG_EVERY:
            self._unproven_at = self._loop.time()
            _log.warning("a session calls itself %s and has no valid certificate of that name: ignored", peer.name)
        return False

    # --- authentication of messages -----------------------------------------------------------------------------------

    def _signed(self, peer: Peer, turn: bytes, payload: bytes) -> tuple[bytes, "Request | None"]:
        """The attachment of a request. Raises `Unreachable` for a peer without a key, where every peer has one."""
        if self._authenticator is not None and self._authenticator.knows(peer.session):
            header, request = self._authenticator.sign(peer.session, turn, payload)
            return header + turn, request
        if not self._accept_plain:
            raise Unreachable(f"{peer.name} is gone")
        return turn, None

    def _is_reply(self, request: "Request", header: bytes, payload: bytes, tag: bytes) -> bool:
        """Whether a reply has a valid tag. Called in a network thread: reads only."""
        return self._authenticator is not None and self._authenticator.is_reply(request, header, payload, tag)

    def _tagged(self, request: "Request | None", header: bytes, payload: bytes) -> bytes:
        """The attachment of a reply: its header, with a tag if the request had a tag."""
        if request is None or self._authenticator is None:
            return header
        if header[_TOKEN_BYTES:] == _WHOLE[_TOKEN_BYTES:]:  # a list of one reply has no further page: no header travels
            return self._authenticator.sign_reply(request, _WHOLE, payload)
        return header + self._authenticator.sign_reply(request, header, payload)

    def _refuse(self, what: str) -> None:
        """Count a message without a valid tag. The log has a line for many."""
        self._traffic.refused += 1
        if self._loop.time() - self._refused_at >= LOG_EVERY:
            self._refused_at = self._loop.time()
            _log.warning("dropped %s: nothing proves its sender", what)

    def _refuse_reply(self, peer: Peer) -> None:
        """Count a reply without a valid tag, unless its session has ended: its key is forgotten then."""
        if peer in self.peers:
            self._refuse(f"a reply in the name of {peer.name}")

    def _hold(self, query: zenoh.Query) -> None:
        """Keep a request whose sender is not known yet."""
        if len(self._early) >= EARLY_REQUESTS:
            self._give_up(self._early[0])
        self._early.append(query)
        self._loop.call_later(EARLY_SECONDS, self._give_up, query)

    def _give_up(self, query: zenoh.Query) -> None:
        if query in self._early:
            self._early.remove(query)
            self._refuse("a request of an unknown session")
            self._reply(query, [])

    # --- answers ------------------------------------------------------------------------------------------------------

    def _answer(self, query: zenoh.Query) -> None:
        """Handle a query: a request for the handler, or for the next page of a list."""
        turn = b"" if query.attachment is None else bytes(query.attachment)
        payload = b"" if query.payload is None else bytes(query.payload)
        request, sender = None, None
        if self._authenticator is not None and not self._closed:
            header, turn = self._authenticator.split(turn)
            if header and not self._authenticator.knows_sender(header):
                self._hold(query)
                return
            request = self._authenticator.verify(header, turn, payload)
            if request is not None:
                sender = Peer(request.name, request.session)
            elif header or not self._accept_plain:
                self._refuse("a request")
                self._reply(query, [])
                return
        if self._closed:
            self._reply(query, [])
        elif turn:
            self._reply(query, self._pending.next_page(turn, self._loop.time()) or [], request)
        else:
            self._traffic.received += len(payload)
            self._member.handlers.begin(payload, lambda replies: self._deliver(query, request, replies), sender)

    def _deliver(self, query: zenoh.Query, request: "Request | None", replies: list[bytes] | None) -> None:
        now = self._loop.time()
        self._reply(query, [] if replies is None or self._closed else self._pending.first_page(replies, now), request)

    def _reply(self, query: zenoh.Query, page: list[tuple[bytes, bytes]], request: "Request | None" = None) -> None:
        """Send a page, if there are replies, and end the query."""
        try:
            for header, payload in page:
                query.reply(query.key_expr, payload, attachment=self._tagged(request, header, payload))
                self._traffic.sent += len(payload)
        except zenoh.ZError as error:
            _log.debug("a request could not be answered: %s", error)
        finally:
            query.drop()  # type: ignore[no-untyped-call]  # the stub leaves the return type out


def _untagged(attachment: bytes) -> tuple[bytes, bytes]:
    """The header and the tag in the attachment of a reply with a tag."""
    whole = len(attachment) < _HEADER.size
    return (_WHOLE, attachment) if whole else (attachment[: _HEADER.size], attachment[_HEADER.size :])


def _authenticator(fleet: str, me: Peer) -> "Authenticator":
    from constraint_crdt.identity.credentials import Authenticator

    return Authenticator(fleet, *me, secrets.token_bytes)
