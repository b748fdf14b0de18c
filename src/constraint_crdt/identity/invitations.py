"""Invitations: how a machine becomes a node of a fleet, and how a node renews its certificate.

An operator's node makes an *invitation*: a role, a number of uses and an end. Its *token* is a text for a person to paste, with the
addresses of the *join endpoint* of that node, the SHA-256 of the key of the fleet's root, and a secret. `join` has the endpoint, a
TLS server. A connection to it, in frames of a length and MessagePack:

    operator    greeting    its clock, its issuing certificate, the root
    node        request     the id and secret of the invitation, a request for a certificate (PKCS #10), its clock
    operator    answer      the chain of the node, statements on roots, endpoints of the fleet; or an error, a sentence

Rules:

1. The node sends its secret only to a server with the certificate of an operator that ends at the root of the token.
2. A use of an invitation is on disk before the certificate leaves. It is bound to name and key: the same request again gets another
   certificate for the same key, without another use, so a lost answer costs nothing, and a replayed request gives nothing.
3. Only a hash of the secret is kept. An invitation ends after `WRONG_SECRETS` requests with another secret.

The join endpoint of an operator's node, and the two requests for a certificate: of a node that joins, and of a node that renews.

Rules:

1. A node sends the secret of its invitation only to a server whose certificate is that of an operator, under the root of the token.
2. The endpoint has bounds for connections, of an address as well, for time, for frames and for lines of the log.
"""

import asyncio
import contextlib
import hmac
import logging
import ssl
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt.identity import (
    DAY,
    EARLIER,
    MALFORMED,
    MAX_CHAIN,
    NODE_VALID,
    SECOND,
    Identity,
    IdentityError,
    Issuer,
    Member,
    RandomBytes,
    certify,
    check_name,
    check_role,
    create_request,
    fingerprint,
    known_roots,
    moment,
    name_in,
    public_key_of,
    read_chain,
    read_request,
)
from constraint_crdt.identity.directory import read_file, write_file

VERSION = 1
PREFIX = "join-"

MAX_INVITATIONS = 1000
MAX_USES = 1000
MAX_VALID = 30 * DAY
"""Invitations kept, uses of an invitation, and its validity in ns, at most."""

KEEP_ENDED = DAY
"""How long an ended invitation is kept, in ns, to say that it ended."""

WRONG_SECRETS = 20
"""Requests with a wrong secret after which an invitation ends."""

MAX_REQUEST = 8192
"""Bytes of a request, at most."""

MAX_BOOK = 8 * 1024 * 1024
"""Bytes of the file of invitations, at most."""

SEEDS = 8
"""Endpoints in an answer, at most."""

RENEWAL = b"constraint-crdt renewal\0"
"""How a request for renewal begins, unlike all messages of the gossip."""


# --- messages -------------------------------------------------------------------------------------------------------------------


class Token(msgspec.Struct, array_like=True, frozen=True):
    """The content of a token."""

    version: int
    addresses: tuple[str, ...]
    root: bytes
    id: bytes
    secret: bytes
    ends: int
    """In ns since the epoch, by the clock of the operator."""
    name: str = ""


class Greeting(msgspec.Struct, array_like=True, frozen=True):
    """The first message of the operator."""

    version: int
    now: int
    issuing: bytes
    root: bytes


class JoinRequest(msgspec.Struct, array_like=True, frozen=True):
    """The request of a node."""

    version: int
    id: bytes
    secret: bytes
    request: bytes
    now: int


class JoinAnswer(msgspec.Struct, array_like=True, frozen=True):
    """The answer of the operator."""

    error: str = ""
    chain: bytes = b""
    rotations: tuple[bytes, ...] = ()
    seeds: tuple[str, ...] = ()


class RenewalRequest(msgspec.Struct, array_like=True, frozen=True):
    """The request of a node that has a certificate."""

    chain: bytes
    request: bytes


Message = TypeVar("Message", Greeting, JoinAnswer)


def encode_token(token: Token) -> str:
    """The text of a token: without spaces, with a check sum."""
    content = msgspec.msgpack.encode(token)
    return PREFIX + urlsafe_b64encode(content + sha256(content).digest()[:4]).decode().rstrip("=")


def root_hash(root: x509.Certificate) -> bytes:
    """SHA-256 of the key of a root, as a token has it."""
    return bytes.fromhex(fingerprint(public_key_of(root)))


def read_token(text: str) -> Token:
    """The token of a text. Raises `IdentityError` for another text."""
    text = text.strip()
    try:
        content = urlsafe_b64decode(text.removeprefix(PREFIX).encode() + b"=" * (-len(text.removeprefix(PREFIX)) % 4))
        token = msgspec.msgpack.decode(content[:-4], type=Token)
        sizes = len(token.root), len(token.id), len(token.secret)
        whole = text.startswith(PREFIX) and sha256(content[:-4]).digest()[:4] == content[-4:]
        whole &= token.version == VERSION and sizes == (32, 8, 16) and 1 <= len(token.addresses) <= SEEDS
        for address in token.addresses:
            host_and_port(address)
        if token.name:
            check_name(token.name, "the name of a node")
    except (ValueError, msgspec.DecodeError, IdentityError):
        whole = False
    if not whole:
        raise IdentityError("that is no invitation: paste the whole token that `constraint-crdt fleet invite` printed")
    return token


def read_join_request(content: bytes) -> JoinRequest:
    """The request in a frame. Raises `IdentityError` for another content."""
    try:
        request = msgspec.msgpack.decode(content, type=JoinRequest)
    except (msgspec.DecodeError, ValueError):
        raise IdentityError("the request to join is malformed: use the same version of constraint-crdt on both sides") from None
    if (request.version, len(request.id), len(request.secret)) != (VERSION, 8, 16) or len(content) > MAX_REQUEST:
        raise IdentityError("the request to join is of another version: use the same version of constraint-crdt on both sides")
    return request


def decoded(content: bytes, kind: type[Message]) -> Message:
    """A message of the operator. Raises `IdentityError` for another content."""
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except (msgspec.DecodeError, ValueError):
        raise IdentityError(
            "the answer to the invitation is malformed: use the same version of constraint-crdt on both sides"
        ) from None


def address_of(host: str, port: int) -> str:
    """HOST:PORT, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of an address. Raises `ValueError` for another text."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError("not an address")
    return host.strip("[]"), int(port)


# --- the operator's side --------------------------------------------------------------------------------------------------------


class Use(msgspec.Struct, array_like=True, frozen=True):
    """A use of an invitation."""

    name: str
    key: str
    """The fingerprint of the key that was certified."""


class Invitation(msgspec.Struct):
    """An invitation, as the operator's node keeps it."""

    id: str
    secret: str
    """SHA-256 of the secret, in hex digits."""
    role: str
    uses: int
    ends: int
    name: str = ""
    wrong: int = 0
    """Requests with another secret."""
    used: list[Use] = []

    @property
    def is_free(self) -> bool:
        """True while a use is left."""
        return len(self.used) < self.uses

    def is_open(self, now: int) -> bool:
        """True until the end."""
        return now < self.ends and self.wrong < WRONG_SECRETS


class _Book(msgspec.Struct):
    invitations: list[Invitation] = []
    port: int = 0


class Invitations:
    """The invitations of an operator's node, in a file. Each change is on disk when its method returns."""

    def __init__(self, file: Path) -> None:
        """Raises `IdentityError` if the file cannot be read."""
        self._file = file
        self._book = _Book()
        if file.exists():
            try:
                self._book = msgspec.json.decode(read_file(file, secret=True, most=MAX_BOOK), type=_Book)
            except (msgspec.DecodeError, ValueError):
                raise IdentityError(f"{file} is damaged: delete it, and invite again") from None

    @property
    def port(self) -> int:
        """The port that the endpoint had last; 0 if it had none."""
        return self._book.port

    def keep_port(self, port: int) -> None:
        """Remember the port of the endpoint, so that tokens stay valid over a restart. Raises `IdentityError`."""
        if port != self._book.port:
            self._book.port = port
            self._save()

    def listed(self, now: int) -> list[Invitation]:
        """The open invitations, the first to end first."""
        return sorted((each for each in self._book.invitations if each.is_open(now)), key=lambda each: (each.ends, each.id))

    def find(self, id_: str) -> Invitation | None:
        """The invitation, also an ended invitation for a while."""
        return next((each for each in self._book.invitations if each.id == id_), None)

    def add(self, invitation: Invitation, now: int) -> None:
        """Keep an invitation. Raises `IdentityError` if there are too many, or the disk takes none."""
        kept = [each for each in self._book.invitations if now < each.ends + KEEP_ENDED]
        if len(kept) >= MAX_INVITATIONS:
            kept = [each for each in kept if each.is_open(now) and each.is_free]
        if len(kept) >= MAX_INVITATIONS:
            raise IdentityError(
                f"{MAX_INVITATIONS} invitations are open: withdraw some (`constraint-crdt fleet invite --withdraw ID`)"
            )
        self._replace([*kept, invitation])

    def withdraw(self, id_: str) -> Invitation:
        """Forget an invitation. Raises `IdentityError` for an unknown id."""
        found = self.find(id_)
        if found is None:
            raise IdentityError(f"there is no invitation {id_}: `constraint-crdt fleet invitations` lists the open ones")
        self._replace([each for each in self._book.invitations if each.id != id_])
        return found

    def use(self, invitation: Invitation, use: Use) -> None:
        """Count a use. Raises `IdentityError` if the disk does not take it; the use is not counted then."""
        invitation.used.append(use)
        try:
            self._save()
        except IdentityError:
            invitation.used.remove(use)
            raise

    def miss(self, invitation: Invitation) -> None:
        """Count a wrong secret. Raises `IdentityError`."""
        invitation.wrong += 1
        self._save()

    def _replace(self, invitations: list[Invitation]) -> None:
        before, self._book.invitations = self._book.invitations, invitations
        try:
            self._save()
        except IdentityError:
            self._book.invitations = before
            raise

    def _save(self) -> None:
        write_file(self._file, msgspec.json.encode(self._book), secret=True)


class Registrar:
    """Certifies nodes for an operator: those with an invitation, and those with a certificate to renew."""

    def __init__(
        self,
        issuer: Issuer,
        invitations: Invitations,
        *,
        refusal: Callable[[str, str, bool], str | None],
        is_revoked: Callable[[str], bool],
        is_known: Callable[[Member], bool],
        fleet: Callable[[], tuple[Sequence[bytes], Sequence[str]]],
        admitted: Callable[[Invitation, str], None],
        random: RandomBytes,
    ) -> None:
        """`refusal(name, fingerprint, invited)`: why the key may not have the name; `invited`: the invitation names it.
        `is_known`: a member whose operator is revoked was there before that.
        `fleet`: the statements on roots, and endpoints, for a node that joins. `admitted` is told of each use, and of the node.
        """
        self.issuer = issuer
        self.invitations = invitations
        self._refusal = refusal
        self._is_revoked = is_revoked
        self._is_known = is_known
        self._fleet = fleet
        self._admitted = admitted
        self._random = random

    def invite(self, role: str, name: str, uses: int, valid: int, now: int) -> tuple[Invitation, bytes]:
        """A new invitation, and its secret. `valid`: in ns. Raises `IdentityError` for a value out of bounds."""
        check_role(role)
        if name:
            check_name(name, "the name of a node")
        if role not in self.issuer.powers.roles:
            roles = " and ".join(self.issuer.powers.roles)
            raise IdentityError(f"operators of this fleet certify {roles}: certify a node of role {role} where the root is")
        if not 1 <= uses <= (1 if name else MAX_USES):
            raise IdentityError("an invitation for a name has one use" if name else f"an invitation has 1 to {MAX_USES} uses")
        if not SECOND <= valid <= MAX_VALID:
            raise IdentityError(f"an invitation is valid for 1 s to {MAX_VALID // DAY} days")
        secret = self._random(16)
        made = Invitation(self._random(8).hex(), sha256(secret).hexdigest(), role, uses, now + valid, name)
        self.invitations.add(made, now)
        return made, secret

    def admit(self, content: bytes, now: int) -> bytes:
        """The answer to a request to join."""
        try:
            return msgspec.msgpack.encode(self._admit(read_join_request(content), now))
        except IdentityError as error:
            return msgspec.msgpack.encode(JoinAnswer(error=str(error)))

    def _admit(self, request: JoinRequest, now: int) -> JoinAnswer:
        invitation = self.invitations.find(request.id.hex())
        if invitation is not None and not hmac.compare_digest(sha256(request.secret).hexdigest(), invitation.secret):
            if invitation.is_open(now):
                self.invitations.miss(invitation)
            invitation = None
        if invitation is None:
            raise IdentityError("the operator knows no such invitation, or withdrew it: ask for a new one")
        if not invitation.is_open(now):
            raise IdentityError(f"the invitation ended on {moment(invitation.ends)}: ask for a new one")
        if abs(request.now - now) > EARLIER:
            raise IdentityError(clocks(request.now, now))
        node, key = read_request(request.request)
        if invitation.name not in ("", node):
            raise IdentityError(f"the invitation is for {invitation.name}, not for {node}: join with --name {invitation.name}")
        use = Use(node, fingerprint(key))
        taken = any(each.name == node and each != use for each in invitation.used)
        if self._is_revoked(use.key):
            raise IdentityError(f"the key of {node} is revoked: delete its folder of keys, and join again")
        refusal = (
            f"the name {node} is taken: join with --name OTHER" if taken else self._refusal(node, use.key, bool(invitation.name))
        )
        if refusal is not None:
            raise IdentityError(refusal)
        if use not in invitation.used:
            if not invitation.is_free:
                raise IdentityError(f"the invitation was used by {_named(invitation.used)}: ask for a new one")
            self.invitations.use(invitation, use)
            self._admitted(invitation, node)
        rotations, seeds = self._fleet()
        return JoinAnswer(
            chain=self._certify(node, invitation.role, key, now), rotations=tuple(rotations), seeds=tuple(seeds)[:SEEDS]
        )

    def renew(self, content: bytes, present: Sequence[x509.Certificate], now: int) -> bytes:
        """The answer to a request for renewal. `present`: the roots that certificates are accepted for now."""
        try:
            return msgspec.msgpack.encode(JoinAnswer(chain=self._renew(content, present, now)))
        except IdentityError as error:
            return msgspec.msgpack.encode(JoinAnswer(error=str(error)))

    def _renew(self, content: bytes, present: Sequence[x509.Certificate], now: int) -> bytes:
        try:
            request = msgspec.msgpack.decode(content.removeprefix(RENEWAL), type=RenewalRequest)
        except (msgspec.DecodeError, ValueError):
            raise IdentityError("the request for renewal is malformed") from None
        if len(content) > MAX_REQUEST:
            raise IdentityError("the request for renewal is too long")
        member = read_chain(request.chain, present)
        node, key = read_request(request.request)
        if (node, key.public_bytes_raw()) != (member.node, member.public_key):
            raise IdentityError("the request for renewal is of another node or key than its certificate")
        if not member.begins <= now <= member.ends:
            raise IdentityError(f"the certificate of {node} is not valid on {moment(now)}: join again by an invitation")
        if self._is_revoked(member.fingerprint):
            raise IdentityError(f"{node} is revoked, and its certificate is not renewed")
        if member.issuer is not None and self._is_revoked(member.issuer) and not self._is_known(member):
            raise IdentityError(f"{member.certified_by}, which certified {node}, is revoked: join again by an invitation")
        valid = min(NODE_VALID, max(SECOND, member.ends - member.begins - EARLIER))
        return self._certify(node, member.role, key, now, valid)

    def _certify(self, node: str, role: str, key: Ed25519PublicKey, now: int, valid: int = NODE_VALID) -> bytes:
        certificate = certify(self.issuer, node, role, key, now=now, random=self._random, valid=valid)
        return certificate.public_bytes(Encoding.DER) + self.issuer.certificate.public_bytes(Encoding.DER)


def _named(used: Sequence[Use]) -> str:
    names = [each.name for each in used]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def clocks(here: int, operator: int) -> str:
    """The sentence on two clocks that differ."""
    return f"the clock of this machine says {moment(here)}, and that of the operator {moment(operator)}: set the one that is wrong"


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
            count = "a connection" if self._refused == 1 else f"{self._refused} connections"
            _log.info("%s to the join endpoint got no certificate, the last from %s: %s", count, address, why)
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
