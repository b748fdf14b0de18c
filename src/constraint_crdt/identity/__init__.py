"""Identities: the root of a fleet and the certificates of its nodes. X.509 with Ed25519, by the package `cryptography`.

A fleet has a *root*: a key, and a certificate signed by that key. The root signs the certificates of nodes, and the *issuing*
certificates of operators, which sign certificates of nodes as well. An *identity* is the certificate of a node with that of its
issuer, the private key of the node, and the roots of its fleet.

Rules:

1. A certificate belongs to a fleet if the root of the fleet signed it, or an operator whose issuing certificate the root signed and
   allows the role. Names alone prove nothing.
2. A certificate names its node twice: as common name, which Zenoh reads, and in the URI `constraint-crdt://FLEET/ROLE/NODE` among
   the alternative names. Both must agree.
3. A certificate names no address. Nodes move, and are found by gossip. A link is accepted for the root's signature, and a node for
   the name in its certificate, never for its address.
4. A *proof* binds a name to a session of the transport and to the session's key for messages: the chain of certificates, and a
   signature of fleet, name, session and key. A proof convinces without a question, and also through routers. A copied proof says
   only the answer to its first use, and is of no use without the key: see `credentials`.
5. A *rotation* is the statement that a new root follows the former: three certificates, of the new root by itself, of the new
   root by the former root, and of the former root by the new root. The second ends when links are no longer accepted for the former
   root. Who knows either root thereby knows the other.
6. The functions here are pure: time (ns since the epoch) and random bytes are arguments. `directory` has the files, `invitations`
   the way of a new node into the fleet.
"""

import contextlib
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt.identity.certificates import (
    DAY,
    EARLIER,
    ISSUER_VALID,
    MALFORMED,
    MAX_CHAIN,
    NODE_VALID,
    ROLES,
    ROOT_VALID,
    SECOND,
    IdentityError,
    Issuer,
    Powers,
    RandomBytes,
    Root,
    Subject,
    authority_of,
    certify,
    check_name,
    check_role,
    check_within,
    common_name,
    create_issuer,
    create_key,
    create_request,
    create_root,
    fingerprint,
    is_issued_by,
    issuers_below,
    key_pem,
    moment,
    name_in,
    ns_of,
    public_key_of,
    read_certificates,
    read_issuer,
    read_issuing,
    read_key,
    read_request,
    read_root,
    read_subject,
    split_chain,
    unsigned_certificate,
    validity_of,
    within,
)

__all__ = [
    "DAY",
    "EARLIER",
    "ISSUER_VALID",
    "MAX_CHAIN",
    "MAX_PROOF",
    "MAX_ROOTS",
    "NODE_VALID",
    "PUBLIC_BYTES",
    "ROLES",
    "ROOT_VALID",
    "SECOND",
    "Identity",
    "IdentityError",
    "Issuer",
    "Member",
    "Powers",
    "RandomBytes",
    "Root",
    "Rotation",
    "Subject",
    "accepted_roots",
    "certify",
    "check_name",
    "check_role",
    "create_issuer",
    "create_key",
    "create_request",
    "create_root",
    "fingerprint",
    "key_pem",
    "known_roots",
    "moment",
    "ns_of",
    "public_key_of",
    "read_certificates",
    "read_chain",
    "read_identity",
    "read_issuer",
    "read_key",
    "read_request",
    "read_root",
    "read_rotation",
    "read_subject",
    "rotate",
    "split_chain",
    "useful_statements",
]

MAX_PROOF = 2880
"""Characters of a proof, at most: those of the longest chain, a key and a signature."""

PUBLIC_BYTES = 32
"""Bytes of a session's public key for messages, of X25519."""

MAX_ROOTS = 8
"""Roots of a fleet that a node knows, at most."""

_SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class Member:
    """A node, as its chain of certificates names it. Build it with `read_chain`."""

    fleet: str
    node: str
    role: str
    public_key: bytes
    fingerprint: str
    """SHA-256 of the public key, in hex digits."""
    issuer: str | None
    """The fingerprint of the node key of the operator that signed the certificate; None if the root signed it."""
    begins: int
    ends: int
    """The validity of the certificate, in ns since the epoch."""
    certified_by: str
    """The operator that signed the certificate; "" if the root did."""
    root: str
    """The fingerprint of the root."""
    since: int = field(default=0, compare=False)
    """The begin of the certificate, in ns since the epoch; of a certificate that an operator made for its own key that of its
    issuing certificate, which the root signed: so an operator cannot choose it."""


def read_chain(chain: bytes, roots: Sequence[x509.Certificate]) -> Member:
    """The member of a chain: the DER of its certificate, then that of the issuing certificate, unless a root signed the first.

    Raises `IdentityError` for another content, and for a chain that does not end at one of `roots`, names two fleets, gives a role
    that its issuer may not give, or is valid outside of the validity of its issuer. Does not look at the time.
    """
    try:
        with warnings.catch_warnings():  # the chain may be of a stranger: the library's warnings about it are of no use
            warnings.simplefilter("ignore")
            certificate, *issuing = [x509.load_der_x509_certificate(each) for each in split_chain(chain)]
            return _member(certificate, issuing[0] if issuing else None, roots)
    except MALFORMED as error:
        raise IdentityError(f"that is no chain of certificates: {error}") from None


def _member(certificate: x509.Certificate, issuing: x509.Certificate | None, roots: Sequence[x509.Certificate]) -> Member:
    root = next((each for each in roots if is_issued_by(issuing or certificate, each)), None)
    if root is None:
        raise IdentityError("the certificate is of another fleet: its root did not sign it")
    subject, key = read_subject(certificate, issuing or root), public_key_of(certificate)
    if issuers_below(certificate) is not None or subject.fleet != name_in(root):
        raise IdentityError(f"the certificate of {subject.node} is not that of a node of the fleet {name_in(root)}")
    powers = None if issuing is None else read_issuing(issuing, root)
    if powers is not None:
        powers.check(subject, fingerprint(key))
    check_within(certificate, issuing or root, subject.node)
    of_itself = issuing is not None and powers is not None and powers.key == fingerprint(key)
    since = issuing if issuing is not None and of_itself else certificate
    return Member(
        fleet=subject.fleet,
        node=subject.node,
        role=subject.role,
        public_key=key.public_bytes_raw(),
        fingerprint=fingerprint(key),
        issuer=None if powers is None else powers.key,
        begins=ns_of(certificate.not_valid_before_utc),
        ends=ns_of(certificate.not_valid_after_utc),
        certified_by="" if powers is None else powers.operator,
        root=_print(root),
        since=ns_of(since.not_valid_before_utc),
    )


@dataclass(frozen=True)
class Identity:
    """The identity of a node. Build it with `read_identity`."""

    subject: Subject
    roots: tuple[x509.Certificate, ...]
    """The roots that links are accepted for, the newest first."""
    certificate: x509.Certificate
    key: Ed25519PrivateKey
    issuing: x509.Certificate | None = None
    """The issuing certificate of the operator that signed the certificate; None if a root did."""
    known: tuple[x509.Certificate, ...] = ()
    """All roots known, also those that ended: rows written under them stand."""

    @property
    def root(self) -> x509.Certificate:
        """The root at the end of the chain of the certificate."""
        signed = self.issuing or self.certificate
        return next(root for root in self.known if is_issued_by(signed, root))

    @property
    def root_pem(self) -> bytes:
        """The certificates of the roots that links are accepted for."""
        return _pem(*self.roots)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate of the node, and that of its issuer."""
        return _pem(self.certificate, *([self.issuing] if self.issuing else []))

    @property
    def chain(self) -> bytes:
        """The same in DER, as rows and proofs have it."""
        issuing = b"" if self.issuing is None else self.issuing.public_bytes(Encoding.DER)
        return self.certificate.public_bytes(Encoding.DER) + issuing

    @property
    def member(self) -> Member:
        """The node, as others read it from the chain."""
        return read_chain(self.chain, self.known)

    @property
    def key_pem(self) -> bytes:
        """The private key of the node."""
        return key_pem(self.key)

    @property
    def ends(self) -> int:
        """The end of the certificate, in ns since the epoch."""
        return ns_of(self.certificate.not_valid_after_utc)

    @property
    def renew_from(self) -> int:
        """When a third of the validity is left, in ns since the epoch: the time to renew."""
        return self.ends - max(0, self.ends - ns_of(self.certificate.not_valid_before_utc) - EARLIER) // 3

    def validity(self, now: int) -> str | None:
        """Why the certificate is not valid at `now`: a sentence. None if it is valid."""
        trouble = validity_of(self.certificate, self.subject.node, now)
        return trouble or validity_of(self.root, f"the root of {self.subject.fleet}", now)

    def prove(self, session: str, public: bytes) -> str:
        """The proof that `session` is of this node, in characters of a file name. `public`: the session's key for messages."""
        signature = self.key.sign(_claim(self.subject.fleet, self.subject.node, session, public))
        return urlsafe_b64encode(self.chain + public + signature).decode().rstrip("=")

    def proves(self, proof: str, name: str, session: str, now: int) -> bytes | None:
        """The session's key for messages, if `proof` shows that `session` is of the node `name` of this fleet; else None."""
        if len(proof) > MAX_PROOF:
            return None
        try:
            chain, public, signature = _parts(proof)
            member = read_chain(chain, self.roots)
            if (member.fleet, member.node) != (self.subject.fleet, name) or not member.begins <= now <= member.ends:
                return None
            claim = _claim(member.fleet, name, session, public)
            Ed25519PublicKey.from_public_bytes(member.public_key).verify(signature, claim)
        except (InvalidSignature, IdentityError, *MALFORMED):
            return None
        return public

    def member_in(self, proof: str) -> Member:
        """The member that a checked proof names."""
        return read_chain(_parts(proof)[0], self.known)


def read_identity(root: bytes, certificate: bytes, key: bytes, rotations: Sequence[bytes] = (), now: int = 0) -> Identity:
    """The identity of three PEM files: roots, certificates, key. `rotations`: the statements known. `now` decides which roots are
    accepted for links. The validity of the certificate is not looked at.

    Raises `IdentityError` if they do not belong together.
    """
    anchors, (found, *issuing), secret = read_certificates(root), read_certificates(certificate), read_key(key)
    if len(issuing) > 1:
        raise IdentityError("the certificate is followed by more than its issuer: copy the file again")
    known = known_roots(anchors, rotations)
    if not any(is_issued_by((issuing or [found])[0], each) for each in known):
        raise IdentityError(
            "the certificate is of another fleet: its root did not sign it; copy ca.pem and node.pem of one identity"
        )
    if issuing:
        read_chain(b"".join(each.public_bytes(Encoding.DER) for each in (found, *issuing)), known)
    subject = read_subject(found, issuing[0] if issuing else next(each for each in known if is_issued_by(found, each)))
    if public_key_of(found) != secret.public_key():
        raise IdentityError(
            f"the key is not the key of the certificate, which is of {subject.node}: take the files of one identity"
        )
    return Identity(subject, accepted_roots(known, rotations, now), found, secret, issuing[0] if issuing else None, known)


# --- rotations ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rotation:
    """The statement that a root follows another. Build it with `read_rotation`."""

    former: x509.Certificate
    root: x509.Certificate
    ends: int
    """The former root is accepted for links until then, in ns since the epoch."""


def rotate(former: Root, *, both: int, now: int, random: RandomBytes) -> tuple[Root, bytes]:
    """A new root of the fleet, and the statement that it follows `former`. `both`: how long both are accepted, in ns.

    Raises `IdentityError` if `former` is not valid, or for a time out of bounds.
    """
    root, name = create_root(former.fleet, now=now, random=random), common_name(former.fleet)
    keys = former.key.public_key(), root.key.public_key()
    validity = within(former, f"the root of {former.fleet}", now, both)
    cross = unsigned_certificate(name, name, keys[1], keys[0], validity, random)
    whole = ns_of(former.certificate.not_valid_before_utc), former.ends  # what the former root signed stays valid for its time
    back = unsigned_certificate(name, name, keys[0], keys[1], whole, random)
    certificates = (
        root.certificate,
        authority_of(cross, path_length=1).sign(former.key, None),
        authority_of(back, path_length=issuers_below(former.certificate)).sign(root.key, None),
    )
    return root, b"".join(each.public_bytes(Encoding.DER) for each in certificates)


def read_rotation(statement: bytes, roots: Sequence[x509.Certificate]) -> Rotation:
    """The rotation of a statement. Raises `IdentityError` for another content, and unless `roots` has a root that is part of it."""
    try:
        with warnings.catch_warnings():  # it may be of a stranger: the library's warnings about it are of no use
            warnings.simplefilter("ignore")
            root, cross, back = (x509.load_der_x509_certificate(each) for each in split_chain(statement, most=3))
            signed = all(is_issued_by(*pair) for pair in ((root, root), (cross, back), (back, root)))
            authorities = all(issuers_below(each) is not None for each in (root, cross, back))
            if not signed or not authorities or public_key_of(root) != public_key_of(cross):
                raise IdentityError("the certificates of the statement on a new root do not belong together")
            if not {_print(root), _print(back)} & {_print(each) for each in roots if name_in(each) == name_in(root)}:
                raise IdentityError("the statement is on the roots of another fleet")
            return Rotation(back, root, ns_of(cross.not_valid_after_utc))
    except MALFORMED as error:
        raise IdentityError(f"that is no statement on a new root: {error}") from None


def known_roots(anchors: Sequence[x509.Certificate], statements: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """`anchors`, and the roots that `statements` lead to: the newest first, at most `MAX_ROOTS`. Other statements are ignored."""
    known = {_print(root): root for root in reversed(anchors)}
    for rotation in _rotations(anchors, statements):
        for root in (rotation.root, rotation.former):
            known.setdefault(_print(root), root)
    newest = sorted(known.values(), key=lambda root: (ns_of(root.not_valid_before_utc), _print(root)), reverse=True)
    return tuple(newest[:MAX_ROOTS])


def useful_statements(statements: Sequence[bytes], known: Sequence[x509.Certificate]) -> list[bytes]:
    """Those of `statements` that are on roots of `known`, or on roots that these lead to, each once and in order."""
    roots = known_roots(known, statements)
    found: list[bytes] = []
    for statement in dict.fromkeys(statements):
        with contextlib.suppress(IdentityError):
            read_rotation(statement, roots)
            found.append(statement)
    return found


def accepted_roots(known: Sequence[x509.Certificate], statements: Sequence[bytes], now: int) -> tuple[x509.Certificate, ...]:
    """The roots of `known` that links are accepted for at `now`: those that no other followed, or not for good yet."""
    ended = {_print(rotation.former) for rotation in _rotations(known, statements) if rotation.ends <= now}
    return tuple(root for root in known if _print(root) not in ended)


def _rotations(known: Sequence[x509.Certificate], statements: Sequence[bytes]) -> list[Rotation]:
    """The rotations from or to roots of `known`, and from or to the roots that these lead to."""
    found: list[Rotation] = []
    roots, rest = list(known), list(dict.fromkeys(statements))
    while rest and len(found) < MAX_ROOTS:
        left: list[bytes] = []
        for statement in rest:
            try:
                rotation = read_rotation(statement, roots)
            except IdentityError:
                left.append(statement)
            else:
                found.append(rotation)
                roots += (rotation.root, rotation.former)
        if len(left) == len(rest):
            break
        rest = left
    return found


def _print(certificate: x509.Certificate) -> str:
    return fingerprint(public_key_of(certificate))


def _parts(proof: str) -> tuple[bytes, bytes, bytes]:
    """The chain, the key for messages and the signature of a proof."""
    content = urlsafe_b64decode(proof + "=" * (-len(proof) % 4))
    end = len(content) - PUBLIC_BYTES - _SIGNATURE_BYTES
    return content[:end], content[end:-_SIGNATURE_BYTES], content[-_SIGNATURE_BYTES:]


def _claim(fleet: str, node: str, session: str, public: bytes) -> bytes:
    return f"constraint-crdt session\0{fleet}\0{node}\0{session}\0".encode() + public


def _pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)
