"""Identities: the root of a fleet and the certificates of its nodes. X.509 with Ed25519, by the package `cryptography`.

A fleet has a *root*: a key, and a certificate signed by that key. The root signs the certificates of nodes, and the *issuing*
certificates of operators, which sign certificates of nodes as well. An *identity* is the certificate of a node with that of its
issuer, the private key of the node, and the roots of its fleet. Rules:

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

A certificate never outlives its signer. A *chain* is the certificate of a node, and the issuing certificate if an operator
signed it. `read_chain` alone decides whose a chain is: the same answer at every receiver, from the bytes and the roots.
"""

import contextlib
import re
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from constraint_crdt.errors import ConstraintCrdtError

SECOND = 1_000_000_000
DAY = 86_400 * SECOND

ROLES = ("observer", "member", "operator")
"""The roles of a certificate. This version writes the role, and does not enforce it."""

ROOT_VALID = 3650 * DAY
ISSUER_VALID = 365 * DAY
NODE_VALID = 30 * DAY
"""The validity of a root, of an issuing certificate and of a node's certificate, in ns."""

EARLIER = 3600 * SECOND
"""A certificate is valid from this time before its signature, in ns: the clocks of a fleet differ."""

RandomBytes = Callable[[int], bytes]
"""Gives so many random bytes, as `secrets.token_bytes` does."""

MAX_CHAIN = 2048
"""Bytes of a chain, or of a statement on a new root, at most."""

MALFORMED = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.ExtensionNotFound, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""The errors of the library for content that is no certificate, or a certificate of an unknown form."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_URI = re.compile(r"constraint-crdt://([^/]+)/([^/]+)/([^/]+)", re.ASCII)
_ISSUER = "issuer"
_CERTIFIES = "certifies"
_KEY = "key"
_LONG_FORM = b"\x30\x82"
_SIGNATURE = b"\x03\x41\x00"


class IdentityError(ConstraintCrdtError):
    """A key, certificate or request cannot be used. `str()` is one sentence with advice."""


@dataclass(frozen=True)
class Subject:
    """The names in a certificate of a node."""

    fleet: str
    role: str
    node: str


@dataclass(frozen=True)
class Signer:
    """A key that certifies nodes of a fleet, and its certificate."""

    fleet: str
    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def ends(self) -> int:
        """The end of the certificate, in ns since the epoch."""
        return ns_of(self.certificate.not_valid_after_utc)


@dataclass(frozen=True)
class Root(Signer):
    """The root of a fleet."""


@dataclass(frozen=True)
class Powers:
    """The rights in the issuing certificate of an operator."""

    fleet: str
    operator: str
    roles: tuple[str, ...]
    """The roles that it may give to any node."""
    key: str
    """The fingerprint of the operator's own key, which it may certify in any role."""

    def check(self, subject: Subject, key: str) -> None:
        """Refuse to certify `subject`, whose key has the fingerprint `key`. Raises `IdentityError`."""
        if subject.fleet != self.fleet:
            raise IdentityError(
                f"the certificate of {subject.node} is of the fleet {subject.fleet}, and its issuer of {self.fleet}"
            )
        if subject.role not in self.roles and (subject.node, key) != (self.operator, self.key):
            raise IdentityError(
                f"the operator {self.operator} may not certify {subject.node} as {subject.role}: certify it where the root is"
            )


@dataclass(frozen=True)
class Issuer(Signer):
    """The issuing certificate of an operator, with its key."""

    powers: Powers


def check_name(name: str, what: str) -> str:
    """Return `name`, of a node or a fleet. Raises `IdentityError` for a name that a certificate or a folder cannot have."""
    if not _NAME.fullmatch(name):
        raise IdentityError(f"{what} in a certificate has 1 to 63 letters, digits and ._- and begins with no sign: not {name!r}")
    return name


def check_role(role: str) -> str:
    """Return `role`. Raises `IdentityError` for an unknown role."""
    if role not in ROLES:
        raise IdentityError(f"{role!r} is no role: take one of {', '.join(ROLES)}")
    return role


# --- keys, roots, requests and certificates -----------------------------------------------------------------------------------


def create_key(random: RandomBytes) -> Ed25519PrivateKey:
    """A private key of 32 random bytes."""
    return Ed25519PrivateKey.from_private_bytes(random(32))


def key_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key as a file holds it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def create_root(fleet: str, *, now: int, random: RandomBytes) -> Root:
    """A new root. Raises `IdentityError` for a wrong name."""
    name, key = common_name(check_name(fleet, "the name of a fleet")), create_key(random)
    unsigned = unsigned_certificate(name, name, key.public_key(), key.public_key(), (now - EARLIER, now + ROOT_VALID), random)
    return Root(fleet, authority_of(unsigned, path_length=1).sign(key, None), key)


def create_issuer(
    root: Root,
    node: str,
    own: Ed25519PublicKey,
    roles: Sequence[str],
    key: Ed25519PrivateKey,
    *,
    now: int,
    random: RandomBytes,
    valid: int = ISSUER_VALID,
) -> Issuer:
    """The issuing certificate of the operator `node`, for `key`. `own`: the key of the node. `roles`: those that it certifies.

    Raises `IdentityError` for a wrong name, role or validity, and for a root that is not valid or that allows no issuers.
    """
    check_name(node, "the name of a node")
    _check_issuers(root.certificate)
    uris = [
        f"constraint-crdt://{root.fleet}/{_ISSUER}/{node}",
        f"constraint-crdt://{root.fleet}/{_CERTIFIES}/{'+'.join(check_role(each) for each in roles)}",
        f"constraint-crdt://{root.fleet}/{_KEY}/{fingerprint(own)}",
    ]
    subject = common_name(f"/{node}")  # the name of no node
    validity = within(root, f"the root of {root.fleet}", now, valid)
    unsigned = unsigned_certificate(subject, root.certificate.subject, key.public_key(), root.key.public_key(), validity, random)
    certificate = authority_of(unsigned, path_length=0).add_extension(_alternative(uris), critical=False).sign(root.key, None)
    return Issuer(root.fleet, certificate, key, Powers(root.fleet, node, tuple(roles), fingerprint(own)))


def read_issuer(certificate: bytes, key: bytes, roots: Sequence[x509.Certificate]) -> Issuer:
    """The issuer of two PEM files. Raises `IdentityError` if they do not belong together, or none of `roots` signed it."""
    found, secret = read_certificates(certificate)[0], read_key(key)
    if public_key_of(found) != secret.public_key():
        raise IdentityError("the issuing certificate and its key do not belong together: copy both from one folder")
    root = next((each for each in roots if is_issued_by(found, each)), None)
    if root is None:
        raise IdentityError("the issuing certificate is of another fleet: its root did not sign it")
    try:
        powers = read_issuing(found, root)
    except MALFORMED:
        raise IdentityError(
            "that is no issuing certificate: make one with `constraint-crdt fleet certify --role operator`"
        ) from None
    return Issuer(powers.fleet, found, secret, powers)


def read_root(certificate: bytes, key: bytes) -> Root:
    """The root of two PEM files. Of several certificates that of the key. Raises `IdentityError` if they do not belong together."""
    secret = read_key(key)
    found = next((each for each in read_certificates(certificate) if public_key_of(each) == secret.public_key()), None)
    if found is None:
        raise IdentityError("the key and the certificate of the root do not belong together: take both from one backup")
    return Root(name_in(found), found, secret)


def create_request(node: str, key: Ed25519PrivateKey) -> bytes:
    """A request for a certificate of `node`: PKCS #10, as PEM. Raises `IdentityError` for a wrong name."""
    name = common_name(check_name(node, "the name of a node"))
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None).public_bytes(Encoding.PEM)


def read_request(pem: bytes) -> tuple[str, Ed25519PublicKey]:
    """The node of a request, and its public key. Raises `IdentityError` for a malformed request, and for another key."""
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except MALFORMED:
        raise IdentityError("that is no request for a certificate: make one with `constraint-crdt node --request FILE`") from None
    if not signed or not isinstance(key, Ed25519PublicKey):
        raise IdentityError(
            "the request is not signed by an Ed25519 key: make a new one with `constraint-crdt node --request FILE`"
        )
    return check_name(name_in(request), "the name of a node"), key


def certify(
    signer: Signer, node: str, role: str, key: Ed25519PublicKey, *, now: int, random: RandomBytes, valid: int = NODE_VALID
) -> x509.Certificate:
    """A certificate of a node. `valid`: its validity in ns, which ends with that of `signer` at the latest.

    Raises `IdentityError` for a wrong name, role or validity, and for a signer that is not valid or may not give the role.
    """
    check_name(node, "the name of a node")
    check_role(role)
    if isinstance(signer, Issuer):
        signer.powers.check(Subject(signer.fleet, role, node), fingerprint(key))
        of = f"{signer.powers.operator} for certifying others"
    else:
        of = f"the root of {signer.fleet}"
    validity = within(signer, of, now, valid)
    unsigned = unsigned_certificate(common_name(node), signer.certificate.subject, key, signer.key.public_key(), validity, random)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        unsigned.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_alternative([f"constraint-crdt://{signer.fleet}/{role}/{node}"]), critical=False)
        .add_extension(usage, critical=False)
        .sign(signer.key, None)
    )


def read_subject(certificate: x509.Certificate, root: x509.Certificate) -> Subject:
    """The names in a certificate. Raises `IdentityError` if `root` did not sign it, or the names do not agree."""
    if not is_issued_by(certificate, root):
        raise IdentityError("the certificate is of another fleet: its root did not sign it")
    try:
        uris = _uris(certificate)
    except MALFORMED:
        uris = []
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None or match[2] not in ROLES or match[3] != name_in(certificate):
        raise IdentityError("the certificate names no node of a fleet: make one with `constraint-crdt fleet certify`")
    return Subject(match[1], match[2], match[3])


def split_chain(chain: bytes, most: int = 2) -> list[bytes]:
    """The certificates of a chain, in DER: 1 to `most`. Each takes 256 bytes or more, so its length has two bytes.

    Raises `ValueError` for another content.
    """
    parts: list[bytes] = []
    rest = chain
    while rest:
        end = 4 + int.from_bytes(rest[2:4], "big")
        if len(chain) > MAX_CHAIN or len(parts) == most or rest[:2] != _LONG_FORM or end > len(rest):
            raise ValueError(f"it has other bytes than 1 to {most} certificates")
        if rest[end - 67 : end - 64] != _SIGNATURE:  # else the same signature would have several encodings
            raise ValueError("a certificate does not end in a signature of Ed25519")
        parts.append(rest[:end])
        rest = rest[end:]
    if not parts:
        raise ValueError("it is empty")
    return parts


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, in hex digits."""
    return sha256(key.public_bytes_raw()).hexdigest()


def read_issuing(issuing: x509.Certificate, root: x509.Certificate) -> Powers:
    """The powers of an issuing certificate, which `root` signed. Raises `IdentityError`, and the errors of the library."""
    _check_issuers(root)
    constraints, usage = _constraints(issuing), issuing.extensions.get_extension_for_class(x509.KeyUsage).value
    found = [match.groups() for uri in _uris(issuing) if (match := _URI.fullmatch(uri)) is not None]
    if not constraints.ca or constraints.path_length != 0 or not usage.key_cert_sign or len(found) != 3:
        raise ValueError("an issuing certificate has another form")
    (fleet, *named), (_, *certifies), (_, *key) = found
    if {each[0] for each in found} != {fleet} or (named[0], certifies[0], key[0]) != (_ISSUER, _CERTIFIES, _KEY):
        raise ValueError("an issuing certificate names a node, its roles and its key")
    check_within(issuing, root, f"{named[1]} for certifying others")
    return Powers(fleet, named[1], tuple(certifies[1].split("+")), key[1])


def _check_issuers(root: x509.Certificate) -> None:
    if _constraints(root).path_length == 0:
        fleet = name_in(root)
        raise IdentityError(
            f"the root of {fleet} was made without operators that certify: replace it (`constraint-crdt fleet rotate`)"
        )


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """True if the key of `issuer` signed the certificate, and the names agree."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *MALFORMED):
        return False
    return True


def check_within(certificate: x509.Certificate, issuer: x509.Certificate, of: str) -> None:
    """Refuse a certificate that is valid at times when its issuer is not. Raises `IdentityError`."""
    outer = issuer.not_valid_before_utc, issuer.not_valid_after_utc
    if certificate.not_valid_before_utc < outer[0] or certificate.not_valid_after_utc > outer[1]:
        raise IdentityError(f"the certificate of {of} is valid at times when its issuer is not")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value


def _uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates, at least one. Raises `IdentityError` for another content."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except MALFORMED:
        raise IdentityError("that is no certificate in PEM: copy the file again") from None


def read_key(pem: bytes) -> Ed25519PrivateKey:
    """Raises `IdentityError` for another content."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError("that is no private key of Ed25519 in PEM: copy the file again")
    return key


def moment(at: int) -> str:
    """A time for people: UTC, to the minute."""
    return f"{_datetime(at):%Y-%m-%d %H:%M} UTC"


def within(signer: Signer, of: str, now: int, valid: int) -> tuple[int, int]:
    """Begin and end of a certificate that `signer` signs now. Raises `IdentityError` if `signer`, named `of`, is not valid."""
    if not SECOND <= valid <= ROOT_VALID:
        raise IdentityError(f"a certificate is valid for 1 s to {ROOT_VALID // DAY} days")
    trouble = validity_of(signer.certificate, of, now)
    if trouble is not None:
        raise IdentityError(trouble)
    return max(now - EARLIER, ns_of(signer.certificate.not_valid_before_utc)), min(now + valid, signer.ends)


def issuers_below(certificate: x509.Certificate) -> int | None:
    """How many certificates in a row below the given may sign others; None if it may not sign. Raises the library's errors."""
    constraints = _constraints(certificate)
    return constraints.path_length if constraints.ca else None


def authority_of(unsigned: x509.CertificateBuilder, path_length: int | None) -> x509.CertificateBuilder:
    """The certificate made able to sign others. `path_length`: how many of these may sign others in turn, in a row."""
    usage = x509.KeyUsage(*(each in (5, 6) for each in range(9)))  # the sixth and seventh: signing certificates and their lists
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return unsigned.add_extension(constraints, critical=True).add_extension(usage, critical=True)


def _alternative(uris: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def unsigned_certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    issuer_key: Ed25519PublicKey,
    validity: tuple[int, int],
    random: RandomBytes,
) -> x509.CertificateBuilder:
    """A certificate to sign. `validity`: its begin and end, in ns since the epoch."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(int.from_bytes(random(19), "big") | 1)
        .not_valid_before(_datetime(validity[0]))
        .not_valid_after(_datetime(validity[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def common_name(name: str) -> x509.Name:
    """A subject with this name alone."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def name_in(found: x509.Certificate | x509.CertificateSigningRequest) -> str:
    """The common name; "" if there is none, or several."""
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def public_key_of(certificate: x509.Certificate) -> Ed25519PublicKey:
    """The public key. Raises `IdentityError` for another kind of key."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("the certificate has no key of Ed25519: make it with `constraint-crdt fleet certify`")
    return key


def validity_of(certificate: x509.Certificate, of: str, now: int) -> str | None:
    """Why the certificate of `of` is not valid at `now`: a sentence. None if it is valid."""
    begins, ends = ns_of(certificate.not_valid_before_utc), ns_of(certificate.not_valid_after_utc)
    if now < begins:
        return (
            f"the certificate of {of} is valid from {moment(begins)}, and the clock of this machine says {moment(now)}: "
            "set the clock of this machine"
        )
    if now > ends:
        return (
            f"the certificate of {of} ended on {moment(ends)}, and the clock of this machine says {moment(now)}: "
            "certify it again (`constraint-crdt node --join` with a new invitation, or `fleet renew` where the root is), "
            "or set the clock if it is wrong"
        )
    return None


def _datetime(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at // SECOND)


def ns_of(at: datetime) -> int:
    """Nanoseconds since the epoch."""
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND


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
