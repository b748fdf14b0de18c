"""The certificates of a running node: renewal, invitations, and the replacement of the root.

- *Renewal.* When a third of its validity is left, a node asks the operators for a new certificate of the same key, name and role,
  by a request over the transport. An operator with an issuing certificate answers, and renews its own. The new certificate is put
  to use by opening the session of the transport again: the life and the row of the node go on.
- *Invitations.* An operator's node keeps them in its folder, and listens at the join endpoint while one is open.
- *Rotation.* `fleet rotate` makes a new root and a statement of the former root about it. An operator's node finds the statement in
  its folder and writes it as a ROOT cell. Each node takes it into its own folder, and accepts both roots from then on. After a
  quarter of the time for which both are accepted, nodes ask for certificates of the new root; operators after three quarters, so
  that a node that was away still finds some that it accepts, and learns of the new root from them.

Rules: the folder is read again at each look, so copied files need no restart. A file is written before its content is used. A
failed renewal is tried again, at growing intervals.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.identity import (
    DAY,
    EARLIER,
    SECOND,
    Identity,
    IdentityError,
    Issuer,
    Member,
    Rotation,
    fingerprint,
    known_roots,
    moment,
    ns_of,
    public_key_of,
    read_chain,
    read_rotation,
    useful_statements,
)
from constraint_crdt.identity.credentials import RowCredentials
from constraint_crdt.identity.directory import (
    CERTIFICATE,
    KEY,
    is_open_to_others,
    load_identity,
    load_issuer,
    read_rotations,
    save_certificate,
    save_rotations,
)
from constraint_crdt.identity.invitations import (
    RENEWAL,
    SEEDS,
    VERSION,
    Greeting,
    Invitation,
    Invitations,
    JoinServer,
    Registrar,
    Token,
    address_of,
    encode_token,
    read_renewal,
    renewal_request,
    root_hash,
)
from constraint_crdt.operations.fleet import InvitationReport, MemberReport, RenewalReport, RevocationReport
from constraint_crdt.operations.service import Finding
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import acting_as
from constraint_crdt.runtime.settings import NodeSettings, is_loopback, parse_address
from constraint_crdt.transport import Peer, Transport, Unreachable
from constraint_crdt.types.nodes import root_statements, write_root

JOIN_PORT = 7448
INVITATIONS = "invitations.json"

FIRST_RETRY = 30 * SECOND
LAST_RETRY = 6 * 3600 * SECOND
"""The pause after a failed renewal, the first and the longest, in ns. The longest is also a twentieth of the remaining time. A node
looks once a minute, so the first two retries come with the next looks.
"""

CERTIFY_NONE = "either operators of this fleet certify no nodes, or issuer.pem is missing in its folder: certify where the root is"

ISSUER_ENDS_SOON = 30 * DAY
"""An issuing certificate that ends sooner is a warning, in ns."""

_log = logging.getLogger("constraint_crdt.node")


@runtime_checkable
class CertifiedTransport(Protocol):
    """A transport whose sessions show certificates."""

    @property
    def proofs(self) -> Mapping[Peer, str]:
        """The proofs of the present peers."""

    async def renew(self, identity: Identity) -> Peer:
        """Open the session again, with a new certificate. Raises `TransportError`."""

    def shut_out(self, is_shut_out: Callable[[str], bool]) -> None:
        """List no sessions whose proof this function names."""


class Certificates:
    """The certificates of a node with an identity."""

    def __init__(
        self,
        settings: NodeSettings,
        identity: Identity,
        credentials: RowCredentials | None,
        gossip: GossipNode,
        transport: Transport,
        *,
        commit: Callable[[Callable[[], None]], Awaitable[None]],
        note: Callable[[str, str], None],
        reopened: Callable[[Peer], None],
        now: Callable[[], int],
    ) -> None:
        """`credentials`: of the rows, if they are signed. `commit` writes cells. `note(operation, subject)` writes an entry of the
        audit. `reopened` is told of each new session.
        """
        self._settings = settings
        self._folder = Path(settings.identity)
        self._credentials = credentials
        self._gossip = gossip
        self._transport = transport
        self._commit = commit
        self._note = note
        self._reopened = reopened
        self._now = now
        self._registrar: Registrar | None = None
        self._invitations: Invitations | None = None
        self._server: JoinServer | None = None
        self._statements: list[bytes] = []
        self._retry_at, self._pause = 0, 0
        self._trouble, self._said = "", ""
        self._lock = asyncio.Lock()
        self.identity = identity
        """The present identity of the node."""
        if gossip.authority is not None:
            gossip.authority.learn_root = self._learn

    # --- life -------------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read the issuing certificate before the node joins: peers ask for renewals at once. Faults are logged."""
        with self._logged():
            self._load_issuer(self.identity)

    async def begin(self) -> None:
        """The node has joined: read the folder, and listen again for open invitations. Faults are logged."""
        await self.look()
        if self._invitations is not None and self._invitations.listed(self._now()):
            with self._logged():
                await self._listen()

    async def close(self) -> None:
        """Close the join endpoint. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await server.close()

    async def look(self) -> None:
        """Take over changes of the folder and of the state, and renew the certificate if it is time."""
        async with self._lock:
            with self._logged():
                await self._reload()
                await self._spread()
                if self._now() >= self._retry_at and self._renewal_is_due(self.identity):
                    await self._renew()
            if self._server is not None and self._invitations is not None and not self._invitations.listed(self._now()):
                await self.close()

    async def peer_came(self, node: str) -> None:
        """A session of `node` came: if it is an operator, a renewal that failed is tried again now."""
        if self._trouble and node in self._operators():
            self._retry_at = 0
            await self.look()

    async def renew(self) -> RenewalReport:
        """Renew the certificate now. Raises `ConstraintCrdtError` if no operator does."""
        identity = self.identity
        async with self._lock:
            await self._reload()
            await self._spread()
            self._check_others_first()
            if not await self._renew(forced=True):
                raise IdentityError(f"the certificate of {identity.subject.node} could not be renewed: {self._trouble}")
        return RenewalReport(node=identity.subject.node, ends=self.identity.ends)

    def _check_others_first(self) -> None:
        """Refuse an operator a certificate of a root that live nodes may not have heard of: they would refuse its links."""
        own, newest = self.identity, self.identity.known[0]
        if own.subject.role != "operator" or own.root == newest:
            return
        old = [each.node for each in self.member_reports() if each.live and not each.newest_root and each.node != own.subject.node]
        if old:
            raise IdentityError(f"the fleet has a new root: have the other nodes renew first ({', '.join(old)})")

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        """Log an error about certificates, which ends nothing. The same error again is not logged."""
        try:
            yield
        except ConstraintCrdtError as error:
            if str(error) != self._said:
                _log.warning("%s", error)
            self._said = str(error)
        else:
            self._said = ""

    # --- renewal ----------------------------------------------------------------------------------------------------------

    def _renewal_is_due(self, identity: Identity) -> bool:
        now = self._now()
        if self._gossip.local.issuer_revoked_by is not None:
            return True
        return now >= identity.renew_from or (identity.root != identity.known[0] and now >= self._change_root_at(identity))

    def _change_root_at(self, identity: Identity) -> int:
        """When this node takes a certificate of the newest root, in ns."""
        parts = 3 if identity.subject.role == "operator" else 1
        found = 0
        for rotation in self._rotations(identity):
            begins = ns_of(rotation.root.not_valid_before_utc) + EARLIER
            found = max(found, begins + (rotation.ends - begins) * parts // 4)
        return found

    def _accepted_until(self, identity: Identity) -> int:
        """When the root of the present certificate is accepted for links no longer, in ns; the end of the root if none follows."""
        own = public_key_of(identity.root)
        ends = [each.ends for each in self._rotations(identity) if public_key_of(each.former) == own]
        return min([*ends, ns_of(identity.root.not_valid_after_utc)])

    def _rotations(self, identity: Identity) -> Iterator[Rotation]:
        for statement in self._statements:
            with contextlib.suppress(IdentityError):
                yield read_rotation(statement, identity.known)

    async def _renew(self, *, forced: bool = False) -> bool:
        """Ask for a new certificate and put it to use. True for success; else the reason is kept, and a retry is planned."""
        identity, now = self.identity, self._now()
        request, troubles = renewal_request(identity), list[str]()
        async for answer in self._answers(request):
            try:
                chain = read_renewal(answer, identity, now)
                if not forced:
                    self._check_better(read_chain(chain, identity.known), identity)
                await asyncio.to_thread(save_certificate, self._folder, chain, identity)
                await self._reload()
            except ConstraintCrdtError as error:
                troubles.append(str(error))
            else:
                self._retry_at, self._pause, self._trouble = 0, 0, ""
                _log.info("the certificate of %s is renewed until %s", identity.subject.node, moment(self.identity.ends))
                return True
        self._trouble = self._locked_out() or (troubles[-1] if troubles else self._silence())
        remaining = min(identity.ends, self._accepted_until(identity)) - now
        longest = max(SECOND, min(LAST_RETRY, (identity.ends - identity.renew_from) // 20, remaining // 20))
        self._pause = min(longest, 2 * self._pause or FIRST_RETRY)
        self._retry_at = now + self._pause
        _log.warning("the certificate of %s is not renewed yet: %s", identity.subject.node, self._trouble)
        return False

    def _locked_out(self) -> str:
        """Why no other node accepts the certificate, if the fleet has replaced its root; else ""."""
        identity = self.identity
        if identity.root in identity.roots:
            return ""
        since = moment(ns_of(identity.known[0].not_valid_before_utc) + EARLIER)
        return f"the fleet has a new root since {since}, and the root of this certificate is no longer accepted"

    def _silence(self) -> str:
        """Why there is no answer to a request for renewal."""
        if self._registrar is None and self.identity.subject.role == "operator":
            return f"{self.identity.subject.node} has no issuing certificate"
        operators = sorted(self._operators())
        live = {peer.name for peer in self._transport.peers()}
        if operators and live.issuperset(operators):
            return f"no operator certifies ({', '.join(operators)})"
        return f"no operator answers ({', '.join(operators) or 'none is known'})"

    def _check_better(self, member: Member, identity: Identity) -> None:
        """Refuse a certificate that is not worth its use: it is to end later, or at a newer root. Raises `IdentityError`."""
        newer = [fingerprint(public_key_of(root)) for root in identity.known[: identity.known.index(identity.root)]]
        if member.root in newer:
            return
        authority = self._gossip.authority
        if authority is not None and authority.is_revoked(identity.member):
            if not authority.is_revoked(member):
                return
            raise IdentityError("the operators that answer were revoked")
        if self._now() < identity.renew_from:
            raise IdentityError("the operators that answer certify under the former root still")
        if member.ends <= identity.ends:
            raise IdentityError(f"the issuing certificate of {member.certified_by} ends on {moment(member.ends)}")

    async def _answers(self, request: bytes) -> AsyncIterator[bytes]:
        """The answers to a request for renewal: of this node if it certifies, else of the operators, in turn."""
        if self._registrar is not None and self.identity.subject.role == "operator":
            # Of all roots: an operator that was away keeps the issuing certificate of the newest root, and comes back by it.
            yield self._registrar.renew(request, self.identity.known, self._now())
            return
        operators = self._operators()
        for peer in sorted(self._transport.peers()):
            if peer.name in operators:
                timeout = self._gossip.links.only_try(peer.name, self._settings.request_timeout)
                with contextlib.suppress(Unreachable):
                    for answer in (await self._transport.request(peer, request, timeout))[:1]:
                        yield answer

    def _operators(self) -> set[str]:
        return {member.node for member in self.members().values() if member.role == "operator"}

    def answer(self, request: bytes) -> list[bytes] | None:
        """The answer to a request of a peer for renewal, none from a node that does not certify; None for another message."""
        if not request.startswith(RENEWAL):
            return None
        return [] if self._registrar is None else [self._registrar.renew(request, self.identity.roots, self._now())]

    # --- the folder -------------------------------------------------------------------------------------------------------

    async def _reload(self) -> None:
        """Read the folder, and use its changes. Raises `IdentityError`."""
        before = self.identity
        found = await asyncio.to_thread(load_identity, self._folder, self._now())
        if found.subject != before.subject:
            names = f"{found.subject.node} as {found.subject.role} of {found.subject.fleet}"
            raise IdentityError(f"{self._folder} is of {names} now: start the node again to change that")
        self._statements = list(dict.fromkeys([*self._statements, *await asyncio.to_thread(read_rotations, self._folder)]))
        self._load_issuer(found)
        if (found.chain, found.roots, found.known) != (before.chain, before.roots, before.known):
            await self._use(found, reopen=(found.chain, found.roots) != (before.chain, before.roots))

    def _load_issuer(self, identity: Identity) -> None:
        issuer = load_issuer(self._folder, identity)
        if issuer is None or identity.subject.role != "operator":
            self._registrar = None
        elif self._registrar is None or self._registrar.issuer.certificate != issuer.certificate:
            self._registrar = self._make_registrar(issuer)

    async def _use(self, identity: Identity, *, reopen: bool) -> None:
        self.identity = identity
        if self._credentials is not None:
            self._credentials.renew(identity)
        if reopen and isinstance(self._transport, CertifiedTransport):
            self._reopened(await self._transport.renew(identity))

    def _make_registrar(self, issuer: Issuer) -> Registrar:
        if self._invitations is None:
            self._invitations = Invitations(self._folder / INVITATIONS)
        return Registrar(
            issuer,
            self._invitations,
            refusal=self._refusal,
            is_revoked=self._is_revoked,
            is_known=self._is_known,
            fleet=lambda: (self._statements, self._seeds()),
            admitted=self._admitted,
            random=secrets.token_bytes,
        )

    # --- rotation ---------------------------------------------------------------------------------------------------------

    def _learn(self, statement: bytes) -> bool:
        """Take a statement on roots out of a message, before its rows are checked. True if it leads to a new root."""
        identity = self.identity
        known = known_roots(identity.known, [statement])
        if len(known) == len(identity.known):
            return False
        self._statements.append(statement)
        self.identity = replace(identity, known=known)
        if self._credentials is not None:
            self._credentials.renew(self.identity)
        return True

    async def _spread(self) -> None:
        """Take the statements in the state into the folder, and those of the folder of an operator into the state."""
        identity, told = self.identity, root_statements(self._gossip.state.rows)
        kept = await asyncio.to_thread(read_rotations, self._folder)
        useful = useful_statements([*kept, *self._statements, *told], identity.known)
        if set(useful) - set(kept):
            await asyncio.to_thread(save_rotations, self._folder, useful, known_roots(identity.known, useful))
            await self._reload()
            _log.warning("the fleet %s has a new root, and both are accepted now", identity.subject.fleet)
        for statement in set(useful) - set(told) if identity.subject.role == "operator" else ():
            root = fingerprint(public_key_of(read_rotation(statement, self.identity.known).root))
            write = partial(write_root, self._gossip.state.rows, root=root, statement=statement)
            await self._commit(partial(self._gossip.write, write))
            self._note("rotate", f"root {root[:16]}")

    # --- invitations ------------------------------------------------------------------------------------------------------

    async def invite(self, role: str, name: str, uses: int, valid: float) -> InvitationReport:
        """Make an invitation, and listen at the join endpoint. `valid`: in seconds. Raises `ConstraintCrdtError`."""
        registrar, identity = self._certifying(), self.identity
        await self._listen()
        made, secret = registrar.invite(role, name, uses, round(valid * SECOND), self._now())
        self._note("invite", f"{made.id} {name}".rstrip())
        _log.info(
            "invitation %s is open until %s: %s as %s, by port %d",
            made.id,
            moment(made.ends),
            name or "any name",
            role,
            self._server_port,
        )
        token = Token(VERSION, self._addresses(), root_hash(identity.root), bytes.fromhex(made.id), secret, made.ends, name)
        return msgspec.structs.replace(_report(made), token=encode_token(token), note=self._port_note())

    def invitations(self) -> list[InvitationReport]:
        """The open invitations with a use left. Raises `IdentityError`."""
        return [_report(each) for each in self._certifying().invitations.listed(self._now()) if each.is_free]

    def withdraw(self, id_: str) -> InvitationReport:
        """Forget an invitation. Raises `IdentityError` for an unknown id."""
        withdrawn = self._certifying().invitations.withdraw(id_)
        self._note("withdraw invitation", id_)
        return _report(withdrawn)

    def _admitted(self, invitation: Invitation, node: str) -> None:
        with acting_as(f"invitation {invitation.id}"):
            self._note("join", f"{node} as {invitation.role}")
        _log.info("certified %s as %s, by the invitation %s", node, invitation.role, invitation.id)

    def _certifying(self) -> Registrar:
        if self._registrar is None:
            name = self.identity.subject.node
            if self.identity.subject.role == "operator":
                raise IdentityError(f"{name} has no issuing certificate: {CERTIFY_NONE} (`constraint-crdt fleet certify NAME`)")
            raise IdentityError(
                f"{name} certifies no other nodes: ask a node of an operator (--node URL), or make this one an operator where the "
                f"root is (`constraint-crdt fleet certify {name} --role operator`)"
            )
        return self._registrar

    async def _listen(self) -> None:
        """Open the join endpoint. Raises `IdentityError` if the address cannot be had."""
        if self._server is not None:
            return
        host, port = self._join_address()
        invitations = self._certifying().invitations
        files = self._folder / CERTIFICATE, self._folder / KEY
        server = JoinServer(lambda content: self._certifying().admit(content, self._now()), self._greeting, files)
        ports = dict.fromkeys((invitations.port or port, port, *(() if self._settings.join_listen else (0,))))
        for each in ports:
            try:
                await server.open(host, each)
                break
            except OSError as error:
                why = error.strerror or str(error)
        else:
            raise IdentityError(f"the join endpoint cannot listen at {host}:{port}: {why}; name another address with --join-listen")
        self._server = server
        invitations.keep_port(server.port)

    def _join_address(self) -> tuple[str, int]:
        if self._settings.join_listen:
            return parse_address(self._settings.join_listen)
        listen = self._settings.listen[:1] or ("tcp/127.0.0.1:0",)
        return parse_address(listen[0].partition("/")[2])[0], JOIN_PORT

    def _port_note(self) -> str:
        """Names a port outside of the settings, which a firewall may refuse; "" for the usual port, or a port of the settings."""
        port = self._server_port
        if self._settings.join_listen or port == JOIN_PORT:
            return ""
        return (
            f"nodes join at port {port}, as {JOIN_PORT} was taken: let it pass a firewall, or choose an address with --join-listen"
        )

    @property
    def _server_port(self) -> int:
        return 0 if self._server is None else self._server.port

    def _addresses(self) -> tuple[str, ...]:
        """The addresses of the join endpoint, for other machines."""
        host = self._join_address()[0]
        port = self._server_port
        hosts = [host]
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
            hosts = [parse_address(each.partition("/")[2])[0] for each in self._transport.endpoints] or ["127.0.0.1"]
        return tuple(dict.fromkeys(address_of(each, port) for each in hosts))[:SEEDS]

    def _greeting(self) -> Greeting:
        identity = self.identity
        issuing = b"" if identity.issuing is None else identity.issuing.public_bytes(Encoding.DER)
        return Greeting(VERSION, self._now(), issuing, identity.root.public_bytes(Encoding.DER))

    def _seeds(self) -> list[str]:
        """Endpoints for a node that joins: of this node first."""
        described, live = self._gossip.state.nodes, {peer.name for peer in self._transport.peers()}
        others = [endpoint for name in sorted(live) if name in described for endpoint in described[name].endpoints]
        own = list(self._transport.endpoints)
        return [*own, *(each for each in others if not is_loopback(each) or all(map(is_loopback, own)))]

    def _refusal(self, name: str, key: str, invited: bool) -> str | None:
        """Why `key` may not have a name: None if it may."""
        state = self._gossip.state
        if name in state.retirements:
            return f"the node {name} was retired, and its name is not used again: join with --name OTHER"
        keys = self.keys_of(name)
        if keys and all(map(self._is_revoked, keys)):  # it comes back with a new key
            return None
        known = name in state.nodes or any(replica.node_id == name for replica in state.rows.clock_entries)
        if key in keys or (not keys and (invited or not known)):
            return None
        return f"the name {name} is taken: join with --name OTHER"

    # --- members ----------------------------------------------------------------------------------------------------------

    def _members(self) -> list[Member]:
        """The members of all certificates known: in rows, in proofs of live sessions, and of this node."""
        authority, identity = self._gossip.authority, self.identity
        rows = [] if authority is None else [each for each in authority.members().values() if isinstance(each, Member)]
        proofs = self._transport.proofs.values() if isinstance(self._transport, CertifiedTransport) else ()
        shown = [identity.member_in(proof) for proof in proofs if proof]
        return [*rows, *shown, identity.member]

    def members(self) -> dict[str, Member]:
        """The members by name, each by its latest certificate known."""
        found: dict[str, Member] = {}
        for member in sorted(self._members(), key=lambda each: (each.begins, each.ends)):
            found[member.node] = member
        return dict(sorted(found.items()))

    def member_reports(self) -> list[MemberReport]:
        """The members of the fleet, by name."""
        live = {peer.name for peer in self._transport.peers()} | {self.identity.subject.node}
        newest = fingerprint(public_key_of(self.identity.known[0]))
        return [
            MemberReport(
                node=member.node,
                role=member.role,
                fingerprint=member.fingerprint,
                certified_by=member.certified_by,
                ends=member.ends,
                live=member.node in live,
                newest_root=member.root == newest,
                revoked=self._is_revoked(member.fingerprint),
            )
            for member in self.members().values()
        ]

    # --- revocation -------------------------------------------------------------------------------------------------------

    def revocation(self, node: str) -> RevocationReport:
        """The effects of the revocation of a node, made or not. Raises `KeyError` for a node without a certificate."""
        keys = self.keys_of(node)
        if not keys:
            raise UnknownName(node, "member")
        constraints, revoked = self._gossip.state.constraints, all(map(self._is_revoked, keys))
        own = [id_ for id_ in sorted(constraints) if any(each.dot.replica.node_id == node for each in constraints.additions(id_))]
        return RevocationReport(
            node=node,
            keys=tuple(sorted(keys)),
            revoked=revoked,
            already=revoked,
            constraints=tuple(own),
            certified=tuple(
                name
                for name, member in self.members().items()
                if name != node and member.issuer in keys and not self._is_revoked(member.fingerprint)
            ),
        )

    def keys_of(self, node: str) -> set[str]:
        """The fingerprints of the keys of a node, as far as they are known here."""
        return {member.fingerprint for member in self._members() if member.node == node}

    async def shut_out_revoked(self, tell: Callable[[Peer], Awaitable[object]]) -> None:
        """Link no longer with revoked nodes, after a last exchange that tells them; and renew, if that concerns this node."""
        transport = self._transport
        if isinstance(transport, CertifiedTransport):
            for peer, proof in list(transport.proofs.items()):
                if self._is_shut_out(proof):
                    await tell(peer)
            transport.shut_out(self._is_shut_out)
        if self._gossip.local.issuer_revoked_by is not None:
            self._retry_at = 0
            await self.look()

    def _is_shut_out(self, proof: str) -> bool:
        authority = self._gossip.authority
        return bool(proof) and authority is not None and authority.is_revoked(self.identity.member_in(proof))

    def _is_revoked(self, key: str) -> bool:
        authority = self._gossip.authority
        return authority is not None and key in authority.revoked

    def _is_known(self, member: Member) -> bool:
        """True if a row by the key of a member stands: none does of members that a stolen issuing key makes after a revocation."""
        authority = self._gossip.authority
        return authority is not None and any(each.fingerprint == member.fingerprint for each in authority.members().values())

    def findings(self) -> Iterator[Finding]:
        """The certificates that need attention, beside the validity of that of this node."""
        identity, now = self.identity, self._now()
        node = identity.subject.node
        out = self._locked_out()
        if out:
            advice = (
                f"have an operator invite it (`constraint-crdt fleet invite --name {node}`), and start it with --join TOKEN and "
                f"--identity {self._folder}: it keeps its key"
            )
            yield Finding(check="renewal", level="fail", what=out, advice=advice)
        elif self._trouble:
            advice = (
                f"see whether an operator's node is live, and has an issuing certificate; else, where the root is, run "
                f"`constraint-crdt fleet renew {node}`, "
                "and copy its files here"
            )
            yield Finding(check="renewal", level="warn", what=f"the certificate is not renewed: {self._trouble}", advice=advice)
        if is_open_to_others(self._folder):
            what = f"others on this machine can replace the files in {self._folder}"
            yield Finding(check="identity", level="warn", what=what, advice=f"run `chmod 700 {self._folder}`")
        issuer = None if self._registrar is None else self._registrar.issuer
        if issuer is not None and issuer.ends - now < ISSUER_ENDS_SOON:
            what = f"the issuing certificate of {node} is valid until {moment(issuer.ends)}"
            advice = f"where the root is, run `constraint-crdt fleet renew {node}`, and copy issuer.pem here"
            yield Finding(check="issuer", level="warn", what=what, advice=advice)
        old = [each.node for each in self.member_reports() if not each.newest_root and not each.revoked]
        if len(identity.roots) > 1 and old:
            what = f"the fleet has a new root, and these have certificates of the former one: {', '.join(old[:10])}"
            advice = "they renew by themselves while both roots are accepted; `constraint-crdt fleet members` shows how far it is"
            yield Finding(check="root", level="warn", what=what, advice=advice)


def _report(invitation: Invitation) -> InvitationReport:
    return InvitationReport(
        id=invitation.id,
        role=invitation.role,
        name=invitation.name,
        uses=invitation.uses,
        used=tuple(each.name for each in invitation.used),
        ends=invitation.ends,
    )
