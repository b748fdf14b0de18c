"""Identities: the root of a fleet and the certificates of its nodes. X.509 with Ed25519, by the package `cryptography`.

A fleet has a *root*: a key, and a certificate signed by that key. The root signs the certificate of each node. An *identity* is the
certificate of a node, its private key, and the certificate of the root.

Rules:

1. A certificate belongs to a fleet if the root of the fleet signed it. Names alone prove nothing.
2. A certificate names its node twice: as common name, which Zenoh reads, and in the URI `constraint-crdt://FLEET/ROLE/NODE` among
   the alternative names. Both must agree.
3. A certificate names no address. Nodes move, and are found by gossip. A link is accepted for the root's signature, and a node for
   the name in its certificate, never for its address.
4. A *proof* binds a name to a session of the transport and to the session's key for messages: the certificate, and a signature of
   fleet, name, session and key. A proof convinces without a question, and also through routers. A copied proof says only what its
   first use said, and is of no use without the key: see `authentication`.
5. The functions here are pure: time (ns since the epoch) and random bytes are arguments. `directory` has the files.
"""

import re
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
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

MAX_PROOF = 2048
"""Characters of a proof, at most."""

PUBLIC_BYTES = 32
"""Bytes of a session's public key for messages, of X25519."""

RandomBytes = Callable[[int], bytes]
"""Gives so many random bytes, as `secrets.token_bytes` does."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
MAX_CHAIN = 2048
"""Bytes of a chain, at most."""

_URI = re.compile(r"constraint-crdt://([^/]+)/([^/]+)/([^/]+)", re.ASCII)
_ISSUER = "issuer"
_CERTIFIES = "certifies"
_LONG_FORM = b"\x30\x82"
_SIGNATURE_BYTES = 64


class IdentityError(ConstraintCrdtError):
    """A key, certificate or request cannot be used. `str()` is one sentence that says what to do."""


@dataclass(frozen=True)
class Subject:
    """The names in a certificate of a node."""

    fleet: str
    role: str
    node: str


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
    """The fingerprint of the operator's key that signed the certificate; None if the root signed it."""
    begins: int
    ends: int
    """The validity of the certificate, in ns since the epoch."""


@dataclass(frozen=True)
class Root:
    """The root of a fleet."""

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
        return _ns(self.certificate.not_valid_after_utc)


@dataclass(frozen=True)
class Issuer:
    """The issuing certificate of an operator, and its key. It certifies `roles`, and the operator itself in any role."""

    fleet: str
    node: str
    roles: tuple[str, ...]
    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def ends(self) -> int:
        """The end of the certificate, in ns since the epoch."""
        return _ns(self.certificate.not_valid_after_utc)


@dataclass(frozen=True)
class Identity:
    """The identity of a node. Build it with `read_identity`."""

    subject: Subject
    root: x509.Certificate
    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def root_pem(self) -> bytes:
        """The certificate of the root."""
        return self.root.public_bytes(Encoding.PEM)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate of the node."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key of the node."""
        return key_pem(self.key)

    @property
    def ends(self) -> int:
        """The end of the certificate, in ns since the epoch."""
        return _ns(self.certificate.not_valid_after_utc)

    def validity(self, now: int) -> str | None:
        """Why the certificate is not valid at `now`: a sentence. None if it is valid."""
        return _validity(self.certificate, self.subject.node, now) or _validity(self.root, f"the root of {self.subject.fleet}", now)

    def prove(self, session: str, public: bytes) -> str:
        """The proof that `session` is of this node, in characters of a file name. `public`: the session's key for messages."""
        signature = self.key.sign(_claim(self.subject, session, public))
        return _text(self.certificate.public_bytes(Encoding.DER) + public + signature)

    def proves(self, proof: str, name: str, session: str, now: int) -> bytes | None:
        """The session's key for messages, if `proof` shows that `session` is of the node `name` of this fleet; else None."""
        if len(proof) > MAX_PROOF:
            return None
        try:
            content = urlsafe_b64decode(proof + "=" * (-len(proof) % 4))
            public, signature = content[-_SIGNATURE_BYTES - PUBLIC_BYTES : -_SIGNATURE_BYTES], content[-_SIGNATURE_BYTES:]
            with warnings.catch_warnings():  # of a stranger's certificate nothing is to be said
                warnings.simplefilter("ignore")
                certificate = x509.load_der_x509_certificate(content[: -_SIGNATURE_BYTES - PUBLIC_BYTES])
            subject = read_subject(certificate, self.root)
            if (subject.fleet, subject.node) != (self.subject.fleet, name) or _validity(certificate, name, now) is not None:
                return None
            _public_key(certificate).verify(signature, _claim(subject, session, public))
        except (ValueError, InvalidSignature, IdentityError):
            return None
        return public


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
    name, key = _common_name(check_name(fleet, "the name of a fleet")), create_key(random)
    unsigned = _unsigned(name, name, key.public_key(), key.public_key(), (now - EARLIER, now + ROOT_VALID), random)
    return Root(fleet, _authority(unsigned, path_length=1).sign(key, None), key)


def create_issuer(
    root: Root, node: str, roles: Sequence[str], key: Ed25519PrivateKey, *, now: int, random: RandomBytes, valid: int = ISSUER_VALID
) -> Issuer:
    """The issuing certificate of the operator `node`, for `key`. `roles`: those that it certifies.

    Raises `IdentityError` for a wrong name, role or validity, and for a root that is not valid or that allows no issuers.
    """
    check_name(node, "the name of a node")
    _check_issuers(root.certificate)
    uris = [
        f"constraint-crdt://{root.fleet}/{_ISSUER}/{node}",
        f"constraint-crdt://{root.fleet}/{_CERTIFIES}/{'+'.join(check_role(each) for each in roles)}",
    ]
    subject = _common_name(f"/{node}")  # the name of no node
    validity = _within(root, f"the root of {root.fleet}", now, valid)
    unsigned = _unsigned(subject, root.certificate.subject, key.public_key(), root.key.public_key(), validity, random)
    certificate = _authority(unsigned, path_length=0).add_extension(_alternative(uris), critical=False).sign(root.key, None)
    return Issuer(root.fleet, node, tuple(roles), certificate, key)


def read_issuer(certificate: bytes, key: bytes, root: x509.Certificate) -> Issuer:
    """The issuer of two PEM files. Raises `IdentityError` if they do not belong together, or `root` did not sign it."""
    found, secret = read_certificate(certificate), read_key(key)
    if _public_key(found) != secret.public_key():
        raise IdentityError("the issuing certificate and its key do not belong together: copy both from one folder")
    if not _is_issued_by(found, root):
        raise IdentityError("the issuing certificate is of another fleet: its root did not sign it")
    try:
        fleet, node, roles = _read_issuing(found, root)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise IdentityError(
            "that is no issuing certificate: make one with `constraint-crdt fleet certify --role operator`"
        ) from None
    return Issuer(fleet, node, roles, found, secret)


def read_root(certificate: bytes, key: bytes) -> Root:
    """The root of two PEM files. Raises `IdentityError` if they do not belong together."""
    found, secret = read_certificate(certificate), read_key(key)
    if _public_key(found) != secret.public_key():
        raise IdentityError("the key and the certificate of the root do not belong together: take both from one backup")
    return Root(_name_in(found), found, secret)


def create_request(node: str, key: Ed25519PrivateKey) -> bytes:
    """A request for a certificate of `node`: PKCS #10, as PEM. Raises `IdentityError` for a wrong name."""
    name = _common_name(check_name(node, "the name of a node"))
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None).public_bytes(Encoding.PEM)


def read_request(pem: bytes) -> tuple[str, Ed25519PublicKey]:
    """The node of a request, and its public key. Raises `IdentityError` for a malformed request, and for one of another key."""
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except ValueError:
        raise IdentityError("that is no request for a certificate: make one with `constraint-crdt node --request FILE`") from None
    if not signed or not isinstance(key, Ed25519PublicKey):
        raise IdentityError(
            "the request is not signed by an Ed25519 key: make a new one with `constraint-crdt node --request FILE`"
        )
    return check_name(_name_in(request), "the name of a node"), key


def certify(
    signer: Root | Issuer, node: str, role: str, key: Ed25519PublicKey, *, now: int, random: RandomBytes, valid: int = NODE_VALID
) -> x509.Certificate:
    """A certificate of a node. `valid`: its validity in ns, which ends with that of `signer` at the latest.

    Raises `IdentityError` for a wrong name, role or validity, and for a signer that is not valid or may not give the role.
    """
    check_name(node, "the name of a node")
    check_role(role)
    if isinstance(signer, Issuer):
        _check_may_certify(signer.node, signer.roles, node, role)
        of = f"{signer.node} for certifying others"
    else:
        of = f"the root of {signer.fleet}"
    validity = _within(signer, of, now, valid)
    unsigned = _unsigned(_common_name(node), signer.certificate.subject, key, signer.key.public_key(), validity, random)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    return (
        unsigned.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_alternative([f"constraint-crdt://{signer.fleet}/{role}/{node}"]), critical=False)
        .add_extension(usage, critical=False)
        .sign(signer.key, None)
    )


def read_identity(root: bytes, certificate: bytes, key: bytes) -> Identity:
    """The identity of three PEM files. Raises `IdentityError` if they do not belong together. Does not look at the time."""
    authority, found, secret = read_certificate(root), read_certificate(certificate), read_key(key)
    subject = read_subject(found, authority)
    if _public_key(found) != secret.public_key():
        raise IdentityError(
            f"the key is not the key of the certificate, which is of {subject.node}: take the files of one identity"
        )
    return Identity(subject, authority, found, secret)


def read_subject(certificate: x509.Certificate, root: x509.Certificate) -> Subject:
    """The names in a certificate. Raises `IdentityError` if `root` did not sign it, or the names do not agree."""
    if not _is_issued_by(certificate, root):
        raise IdentityError("the certificate is of another fleet: its root did not sign it")
    try:
        uris = _uris(certificate)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        uris = []
    match = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if match is None or match[2] not in ROLES or match[3] != _name_in(certificate):
        raise IdentityError("the certificate names no node of a fleet: make one with `constraint-crdt fleet certify`")
    return Subject(match[1], match[2], match[3])


def read_chain(chain: bytes, roots: Sequence[x509.Certificate]) -> Member:
    """The member of a chain: the DER of its certificate, then that of the issuing certificate, unless a root signed the first.

    Raises `IdentityError` for another content, and for a chain that does not end at one of `roots`, names two fleets, gives a role
    that its issuer may not give, or is valid outside of the validity of its issuer. Does not look at the time.
    """
    try:
        with warnings.catch_warnings():  # the chain may be of a stranger: the library's warnings about it are of no use
            warnings.simplefilter("ignore")
            certificate, *issuing = [x509.load_der_x509_certificate(each) for each in _split(chain)]
            return _member(certificate, issuing[0] if issuing else None, roots)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise IdentityError(f"that is no chain of certificates: {error}") from None


def _split(chain: bytes) -> list[bytes]:
    """The one or two certificates of a chain. Each takes 256 bytes or more, so its length has two bytes."""
    parts: list[bytes] = []
    rest = chain
    while rest:
        end = 4 + int.from_bytes(rest[2:4], "big")
        if len(chain) > MAX_CHAIN or len(parts) == 2 or rest[:2] != _LONG_FORM or end > len(rest):
            raise ValueError("it has other bytes than one or two certificates")
        parts.append(rest[:end])
        rest = rest[end:]
    if not parts:
        raise ValueError("it is empty")
    return parts


def _member(certificate: x509.Certificate, issuing: x509.Certificate | None, roots: Sequence[x509.Certificate]) -> Member:
    signed = certificate if issuing is None else issuing
    root = next((each for each in roots if _is_issued_by(signed, each)), None)
    if root is None:
        raise IdentityError("the certificate is of another fleet: its root did not sign it")
    subject = read_subject(certificate, root if issuing is None else issuing)
    if _constraints(certificate).ca or subject.fleet != _name_in(root):
        raise IdentityError(f"the certificate of {subject.node} is not that of a node of the fleet {_name_in(root)}")
    if issuing is not None:
        _check_issuing(issuing, root, subject)
    _check_within(certificate, signed if issuing is not None else root, subject.node)
    key = _public_key(certificate)
    return Member(
        fleet=subject.fleet,
        node=subject.node,
        role=subject.role,
        public_key=key.public_bytes_raw(),
        fingerprint=fingerprint(key),
        issuer=None if issuing is None else fingerprint(_public_key(issuing)),
        begins=_ns(certificate.not_valid_before_utc),
        ends=_ns(certificate.not_valid_after_utc),
    )


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key, in hex digits."""
    return sha256(key.public_bytes_raw()).hexdigest()


def _check_issuing(issuing: x509.Certificate, root: x509.Certificate, subject: Subject) -> None:
    """Refuse an issuing certificate that the root does not allow, and a `subject` that it may not certify."""
    fleet, node, roles = _read_issuing(issuing, root)
    if fleet != subject.fleet:
        raise IdentityError(f"the certificate of {subject.node} is of the fleet {subject.fleet}, and its issuer of {fleet}")
    _check_may_certify(node, roles, subject.node, subject.role)


def _read_issuing(issuing: x509.Certificate, root: x509.Certificate) -> tuple[str, str, tuple[str, ...]]:
    """Fleet, node and roles of an issuing certificate, which `root` signed. Raises also the errors of the library."""
    _check_issuers(root)
    constraints, usage = _constraints(issuing), issuing.extensions.get_extension_for_class(x509.KeyUsage).value
    named, certifies = (_URI.fullmatch(uri) for uri in _uris(issuing))
    if not constraints.ca or constraints.path_length != 0 or not usage.key_cert_sign or named is None or certifies is None:
        raise ValueError("an issuing certificate has another form")
    if (named[2], certifies[1], certifies[2]) != (_ISSUER, named[1], _CERTIFIES):
        raise ValueError("an issuing certificate names a node and its roles")
    _check_within(issuing, root, f"{named[3]} for certifying others")
    return named[1], named[3], tuple(certifies[3].split("+"))


def _check_issuers(root: x509.Certificate) -> None:
    if _constraints(root).path_length == 0:
        fleet = _name_in(root)
        raise IdentityError(
            f"the root of {fleet} was made without operators that certify: replace it (`constraint-crdt fleet rotate`)"
        )


def _check_may_certify(issuer: str, roles: Sequence[str], node: str, role: str) -> None:
    if role not in roles and node != issuer:
        raise IdentityError(f"the operator {issuer} may not certify {node} as {role}: certify it where the root is")


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_within(certificate: x509.Certificate, issuer: x509.Certificate, of: str) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if begins < issuer.not_valid_before_utc or ends > issuer.not_valid_after_utc:
        raise IdentityError(f"the certificate of {of} is valid at times when its issuer is not")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value


def _uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def read_certificate(pem: bytes) -> x509.Certificate:
    """Raises `IdentityError` for another content."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
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


def _within(signer: Root | Issuer, of: str, now: int, valid: int) -> tuple[int, int]:
    """Begin and end of a certificate that `signer` signs now."""
    if not SECOND <= valid <= ROOT_VALID:
        raise IdentityError(f"a certificate is valid for 1 s to {ROOT_VALID // DAY} days")
    trouble = _validity(signer.certificate, of, now)
    if trouble is not None:
        raise IdentityError(trouble)
    return max(now - EARLIER, _ns(signer.certificate.not_valid_before_utc)), min(now + valid, signer.ends)


def _authority(unsigned: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return unsigned.add_extension(constraints, critical=True).add_extension(usage, critical=True)


def _alternative(uris: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def _unsigned(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    issuer_key: Ed25519PublicKey,
    validity: tuple[int, int],
    random: RandomBytes,
) -> x509.CertificateBuilder:
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


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name_in(found: x509.Certificate | x509.CertificateSigningRequest) -> str:
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _public_key(certificate: x509.Certificate) -> Ed25519PublicKey:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("the certificate has no key of Ed25519: make it with `constraint-crdt fleet certify`")
    return key


def _validity(certificate: x509.Certificate, of: str, now: int) -> str | None:
    begins, ends = _ns(certificate.not_valid_before_utc), _ns(certificate.not_valid_after_utc)
    if now < begins:
        return (
            f"the certificate of {of} is valid from {moment(begins)}, and the clock of this machine says {moment(now)}: "
            "set the clock of this machine"
        )
    if now > ends:
        return (
            f"the certificate of {of} ended on {moment(ends)}, and the clock of this machine says {moment(now)}: "
            "certify it again (`constraint-crdt fleet certify`), or set the clock if it is wrong"
        )
    return None


def _claim(subject: Subject, session: str, public: bytes) -> bytes:
    return f"constraint-crdt session\0{subject.fleet}\0{subject.node}\0{session}\0".encode() + public


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def _datetime(at: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at // SECOND)


def _ns(at: datetime) -> int:
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND
