"""The join endpoint of an operator's node, and the two requests for a certificate: of a node that joins, and of one that renews.

Rules:

1. A node sends the secret of its invitation only to a server whose certificate is that of an operator, under the root of the token.
2. The endpoint has bounds for connections, of an address as well, for time, for frames and for lines of the log.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constraint_crdt.identity import (
    EARLIER,
    MAX_CHAIN,
    Identity,
    IdentityError,
    Member,
    create_request,
    known_roots,
    moment,
    read_chain,
)
from constraint_crdt.identity.certificates import MALFORMED, name_in
from constraint_crdt.identity.invitations import (
    MAX_REQUEST,
    RENEWAL,
    SEEDS,
    VERSION,
    Greeting,
    JoinAnswer,
    JoinRequest,
    RenewalRequest,
    Token,
    clocks,
    decoded,
    host_and_port,
    root_hash,
)

MAX_ANSWER = 65_536
"""Bytes of a frame of the operator, at most."""

CONNECTIONS = 32
CONNECTIONS_EACH = 4
"""Connections to the endpoint at once, and those of an address."""

SERVE_SECONDS = 5.0
ASK_SECONDS = 10.0
"""Seconds of a connection, at the operator and at the node, at most."""

LOG_EVERY = 10.0
"""Seconds between two lines of the log about refused connections and requests."""

_log = logging.getLogger("constraint_crdt.node")


class JoinServer:
    """The join endpoint of an operator's node."""

    def __init__(self, admit: Callable[[bytes], bytes], greeting: Callable[[], Greeting], files: tuple[Path, Path]) -> None:
        """`admit`: the answer to a request. `files`: the certificate of the node, and its key."""
        self._admit = admit
        self._greeting = greeting
        self._files = files
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], str] = {}
        self._refused = 0
        self._logged = -LOG_EVERY

    @property
    def port(self) -> int:
        """The port; 0 while closed."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else 0

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        self._server = await asyncio.start_server(self._accept, host, port)

    async def close(self) -> None:
        """End all connections. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        if len(self._serving) >= CONNECTIONS or Counter(self._serving.values())[address] >= CONNECTIONS_EACH:
            writer.transport.abort()
            self._note(address, "there are too many connections")
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer, address))
        self._serving[task] = address
        task.add_done_callback(self._serving.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        try:
            async with asyncio.timeout(SERVE_SECONDS):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                context.load_cert_chain(*self._files)
                await writer.start_tls(context, ssl_handshake_timeout=SERVE_SECONDS)
                _send(writer, msgspec.msgpack.encode(self._greeting()))
                answer = self._admit(await _receive(reader, MAX_REQUEST))
                error = decoded(answer, JoinAnswer).error
                if error:
                    self._note(address, error)
                _send(writer, answer)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, EOFError, IdentityError) as error:
            self._note(address, str(error) or type(error).__name__)
        finally:
            writer.transport.abort()

    def _note(self, address: str, why: str) -> None:
        now, self._refused = asyncio.get_running_loop().time(), self._refused + 1
        if now - self._logged >= LOG_EVERY:
            _log.info("%d connections to the join endpoint got no certificate, the last from %s: %s", self._refused, address, why)
            self._logged, self._refused = now, 0


def _send(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(len(content).to_bytes(4, "big") + content)


async def _receive(reader: asyncio.StreamReader, most: int) -> bytes:
    """The content of a frame. Raises `EOFError` at the end of the connection, and `IdentityError` for a longer frame."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > most:
        raise IdentityError(f"a message has more than {most} bytes")
    return await reader.readexactly(length)


# --- the node's side ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Admission:
    """The checked answer to a node that joins."""

    member: Member
    chain: bytes
    roots: tuple[x509.Certificate, ...]
    rotations: tuple[bytes, ...]
    seeds: tuple[str, ...]


async def join(token: Token, name: str, key: Ed25519PrivateKey, now: Callable[[], int], fleet: str = "") -> Admission:
    """Ask for a certificate of `name` for `key`. `fleet`: the only fleet to join; empty: any. Raises `IdentityError`: why there is
    none.
    """
    if now() > token.ends:
        raise IdentityError(
            f"the invitation ended on {moment(token.ends)}, and the clock of this machine says {moment(now())}: "
            "ask for a new one, or set the clock if it is wrong"
        )
    silent: list[str] = []
    for address in token.addresses:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await _join_at(address, token, name, key, now, fleet)
        except TimeoutError:
            silent.append(f"{address} (no answer)")
        except ssl.SSLError as error:
            silent.append(f"{address} (TLS: {error.reason})")
        except EOFError:
            silent.append(f"{address} (it closed the connection)")
        except OSError as error:
            silent.append(f"{address} ({error.strerror or error})")
    raise IdentityError(
        f"no answer from the operator at {', '.join(silent)}: look whether its node runs, whether a firewall is in between, "
        "and whether the invitation is still open"
    )


async def _join_at(address: str, token: Token, name: str, key: Ed25519PrivateKey, now: Callable[[], int], fleet: str) -> Admission:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # `_check_greeting` verifies, by the root of the token
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    host, port = host_and_port(address)
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        greeting = decoded(await _receive(reader, MAX_ANSWER), Greeting)
        root = _check_greeting(greeting, shown, token, address, now())
        if fleet not in ("", name_in(root)):  # before the secret is sent: the invitation is not used
            raise IdentityError(f"the invitation is for the fleet {name_in(root)}, not for {fleet}: ask for one of {fleet}")
        request = JoinRequest(VERSION, token.id, token.secret, create_request(name, key), now())
        _send(writer, msgspec.msgpack.encode(request))
        answer = decoded(await _receive(reader, MAX_ANSWER), JoinAnswer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if answer.error:
        raise IdentityError(answer.error)
    roots = known_roots([root], answer.rotations)
    member = read_chain(answer.chain, roots)
    if (member.node, member.public_key) != (name, key.public_key().public_bytes_raw()):
        raise IdentityError(f"the operator at {address} certified another node or key: ask for a new invitation")
    return Admission(member, answer.chain, roots, answer.rotations, answer.seeds[:SEEDS])


def _check_greeting(greeting: Greeting, shown: bytes, token: Token, address: str, now: int) -> x509.Certificate:
    """The root of the fleet. Raises `IdentityError` unless the certificate shown is of an operator of the token's fleet."""
    elsewhere = f"the node at {address} is no operator of the fleet that the invitation is for: ask for a new invitation"
    try:
        root = x509.load_der_x509_certificate(greeting.root)
        member = read_chain(shown + greeting.issuing, [root])
    except (IdentityError, *MALFORMED):
        raise IdentityError(elsewhere) from None
    if member.role != "operator" or root_hash(root) != token.root:
        raise IdentityError(elsewhere)
    if abs(greeting.now - now) > EARLIER or not member.begins <= now <= member.ends:
        raise IdentityError(clocks(now, greeting.now))
    return root


# --- renewal --------------------------------------------------------------------------------------------------------------------


def renewal_request(identity: Identity) -> bytes:
    """The request of a node for a new certificate of the same key, name and role."""
    request = RenewalRequest(identity.chain, create_request(identity.subject.node, identity.key))
    return RENEWAL + msgspec.msgpack.encode(request)


def read_renewal(answer: bytes, identity: Identity, now: int) -> bytes:
    """The new chain in an answer. Raises `IdentityError`: why there is none, or none for the same key, name and role."""
    if len(answer) > MAX_CHAIN + MAX_REQUEST:
        raise IdentityError("the answer to a renewal is too long")
    found = decoded(answer, JoinAnswer)
    if found.error:
        raise IdentityError(found.error)
    member, mine = read_chain(found.chain, identity.known), identity.member
    if (member.node, member.role, member.public_key) != (mine.node, mine.role, mine.public_key):
        raise IdentityError("the answer to a renewal is for another node, key or role")
    if not member.begins <= now <= member.ends:
        raise IdentityError(clocks(now, member.begins))
    return found.chain
