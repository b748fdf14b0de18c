"""Keys, roots, requests, certificates and chains, in X.509 with Ed25519 by the package `cryptography`.

Rules: a certificate never outlives its signer. A *chain* is the certificate of a node, and the issuing certificate if an operator
signed it. `read_chain` alone decides whose a chain is: the same answer at every receiver, from the bytes and the roots.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
