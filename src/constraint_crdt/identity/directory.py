"""The files of identities.

The folder of a fleet has the root, and a folder for each identity made there:

    ca.pem          the certificates of the roots, the newest first; no secret
    root.key        the key of the newest root: certifies nodes, stays off the nodes
    root-PRINT.key  the key of a former root
    rotations.pem   the statements of former roots about those that follow them, if there are any
    fleet.toml      which roles operators certify, unless it is observers and members
    NODE/ca.pem, NODE/rotations.pem    the same again
    NODE/node.pem   the certificate of the node, and of its issuer if an operator signed it
    NODE/node.key   its private key
    NODE/issuer.pem, NODE/issuer.key    of an operator: the certificate with which it certifies others, and its key
    NODE/identity.toml    for people: fleet, node, role and end of the certificate
    NODE/node.toml  of a node that joined by an invitation: where it listens and connects by default

Rules: keys are readable by their owner alone (0600), or are refused. A file is written whole under another name first, so a full
disk leaves the former file. A root and a key are never lost: a root that is followed by another keeps its key in another file.
"""

import json
import os
import ssl
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt.identity import (
    NODE_VALID,
    ROLES,
    Identity,
    IdentityError,
    Issuer,
    RandomBytes,
    Root,
    certify,
    check_name,
    create_issuer,
    create_key,
    create_request,
    create_root,
    fingerprint,
    is_issued_by,
    key_pem,
    public_key_of,
    read_certificates,
    read_chain,
    read_identity,
    read_issuer,
    read_key,
    read_request,
    read_root,
    read_subject,
    rotate,
    split_chain,
)
from constraint_crdt.store.files import replace_file

AUTHORITY = "ca.pem"
ROOT_KEY = "root.key"
CERTIFICATE = "node.pem"
KEY = "node.key"
ABOUT = "identity.toml"
ROTATIONS = "rotations.pem"
FLEET = "fleet.toml"
ISSUER = "issuer.pem"
ISSUER_KEY = "issuer.key"
DEFAULTS = "node.toml"

OPERATORS_CERTIFY: Final[Mapping[str, tuple[str, ...]]] = {"all": ROLES, "members": ("observer", "member"), "none": ()}
"""The roles that operators certify, by the word for them. With any but `none` an operator also renews its own certificate."""

MOST_BYTES = 65_536
"""Bytes read of a file with keys or certificates, at most."""

Content = TypeVar("Content")


def create_fleet(folder: Path, fleet: str, *, now: int, random: RandomBytes, operators_certify: str = "members") -> Root:
    """Make the root of a fleet in `folder`. `operators_certify`: a word of `OPERATORS_CERTIFY`.

    Raises `IdentityError`, also if the folder has a root.
    """
    if operators_certify not in OPERATORS_CERTIFY:
        raise IdentityError(f"{operators_certify!r} is no answer to what operators certify: take all, members or none")
    root = create_root(fleet, now=now, random=random)
    if (folder / ROOT_KEY).exists() or (folder / AUTHORITY).exists():
        raise IdentityError(f"{folder} has the root of a fleet already: name another folder with --dir")
    make_folder(folder)
    if operators_certify != "members":
        write_file(folder / FLEET, f'operators_certify = "{operators_certify}"\n'.encode())
    write_file(folder / ROOT_KEY, key_pem(root.key), secret=True)
    write_file(folder / AUTHORITY, root.pem)
    return root


def find_fleet(folder: Path | None, here: Path) -> Path:
    """The folder with the root: `folder`, else `here`, else the only folder in `here` with a root. Raises `IdentityError`."""
    if folder is not None:
        if not (folder / ROOT_KEY).exists():
            raise IdentityError(f"{folder} has no {ROOT_KEY}: name the folder that `constraint-crdt fleet create` made")
        return folder
    if (here / ROOT_KEY).exists():
        return here
    found = sorted(file.parent for file in here.glob(f"*/{ROOT_KEY}"))
    if len(found) != 1:
        several = f"several fleets are here ({', '.join(each.name for each in found)})"
        raise IdentityError(f"{several if found else 'no fleet is here'}: name the folder of the fleet with --dir")
    return found[0]


def open_root(folder: Path) -> Root:
    """The root in `folder`. Raises `IdentityError`."""
    return _at(folder, lambda: read_root(read_file(folder / AUTHORITY), read_file(folder / ROOT_KEY, secret=True)))


def certify_node(folder: Path, root: Root, node: str, role: str, *, now: int, random: RandomBytes, valid: int = NODE_VALID) -> Path:
    """Make the identity of `node` in a folder below `folder`, or certify it again. Returns its folder. Raises `IdentityError`."""
    own = folder / check_name(node, "the name of a node")
    key = _own_key(own) or create_key(random)
    certificate = certify(root, node, role, key.public_key(), now=now, random=random, valid=valid)
    make_folder(own)
    if not (own / KEY).exists():
        write_file(own / KEY, key_pem(key), secret=True)
    _write_certified(folder, own, root, certificate, now=now, random=random)
    return own


def certify_request(
    folder: Path, root: Root, request: Path, role: str, *, now: int, random: RandomBytes, valid: int = NODE_VALID
) -> Path:
    """Certify a request. Returns the folder below `folder` with the certificates, without a key. Raises `IdentityError`."""
    node, key = _at(request, lambda: read_request(read_file(request)))
    own = folder / node
    if (own / KEY).exists():
        raise IdentityError(f"{own} has an identity called {node} already: request a certificate for another name")
    certificate = certify(root, node, role, key, now=now, random=random, valid=valid)
    make_folder(own)
    _write_certified(folder, own, root, certificate, now=now, random=random)  # without a key, which stays at the node
    return own


def certify_again(
    folder: Path, root: Root, node: str, *, now: int, random: RandomBytes, valid: int = NODE_VALID
) -> tuple[Path, str]:
    """Certify a node of `folder` again, with the key and role that it has. Returns its folder and role. Raises `IdentityError`."""
    own = folder / check_name(node, "the name of a node")
    if not (own / CERTIFICATE).exists():
        raise IdentityError(f"{own} has no certificate to renew: make one with `constraint-crdt fleet certify {node}`")
    name, role, key = _at(own, lambda: _certified(own))
    certificate = certify(root, name, role, key, now=now, random=random, valid=valid)
    _write_certified(folder, own, root, certificate, now=now, random=random)
    return own, role


def rotate_root(folder: Path, *, both: int, now: int, random: RandomBytes) -> tuple[Root, list[Path]]:
    """Replace the root in `folder` by a new root, with new issuing certificates of its operators.

    `both`: how long both roots are accepted, in ns. Returns the new root and the folders of the operators. Raises `IdentityError`.
    """
    former = open_root(folder)
    root, statement = rotate(former, both=both, now=now, random=random)
    statements = [*read_rotations(folder), statement]
    roots = read_file(folder / AUTHORITY)
    kept = folder / f"root-{fingerprint(former.key.public_key())[:8]}.key"
    if not kept.exists():
        write_file(kept, key_pem(former.key), secret=True)
    write_rotations(folder, statements)
    write_file(folder / AUTHORITY, root.pem + roots)  # in this order: the key in root.key has its certificate at any time
    write_file(folder / ROOT_KEY, key_pem(root.key), secret=True)
    operators = [file.parent for file in sorted(folder.glob(f"*/{CERTIFICATE}")) if _certified(file.parent)[1] == "operator"]
    for own in operators:  # the certificate of the node stays: others know the new root only once this node has told them
        write_rotations(own, statements)
        write_file(own / AUTHORITY, root.pem + roots)
        _write_issuer(folder, own, root, own.name, now=now, random=random)
    return root, operators


def _certified(own: Path) -> tuple[str, str, Ed25519PublicKey]:
    """Node, role and public key of the certificate in a folder of the fleet."""
    found, *issuing = read_certificates(read_file(own / CERTIFICATE))
    roots = read_certificates(read_file(own / AUTHORITY))
    signer = next((each for each in (*issuing, *roots) if is_issued_by(found, each)), roots[0])
    subject = read_subject(found, signer)
    return subject.node, subject.role, public_key_of(found)


def former_role(own: Path) -> str:
    """The role of the certificate in a folder of the fleet; empty for a folder without one. Raises `IdentityError`."""
    return _at(own, lambda: _certified(own)[1]) if (own / CERTIFICATE).exists() else ""


def certified_roles(folder: Path) -> tuple[str, ...]:
    """The roles that operators of the fleet in `folder` certify. Raises `IdentityError`."""
    if not (folder / FLEET).exists():
        return OPERATORS_CERTIFY["members"]
    try:
        word = tomllib.loads(read_file(folder / FLEET).decode()).get("operators_certify", "members")
    except (ValueError, RecursionError):
        raise IdentityError(f"{folder / FLEET} is not TOML: correct it, or delete it") from None
    if not isinstance(word, str) or word not in OPERATORS_CERTIFY:
        raise IdentityError(f'{folder / FLEET}: operators_certify is "all", "members" or "none", not {word!r}')
    return OPERATORS_CERTIFY[word]


def _write_certified(folder: Path, own: Path, root: Root, certificate: x509.Certificate, *, now: int, random: RandomBytes) -> None:
    """Write a certificate that the root made, and the issuing certificate of an operator."""
    subject = read_subject(certificate, root.certificate)
    write_rotations(own, read_rotations(folder))
    _write_certificates(own, read_file(folder / AUTHORITY), [certificate], subject.fleet, subject.node, subject.role)
    if subject.role == "operator":
        _write_issuer(folder, own, root, subject.node, now=now, random=random)
    else:
        for name in (ISSUER, ISSUER_KEY):  # of a former role
            (own / name).unlink(missing_ok=True)


def _write_issuer(folder: Path, own: Path, root: Root, node: str, *, now: int, random: RandomBytes) -> None:
    """Make the issuing certificate of an operator, if operators of the fleet certify any role."""
    roles = certified_roles(folder)
    if roles:
        key = read_key(read_file(own / ISSUER_KEY, secret=True)) if (own / ISSUER_KEY).exists() else create_key(random)
        own_public = public_key_of(read_certificates(read_file(own / CERTIFICATE))[0])
        issuer = create_issuer(root, node, own_public, roles, key, now=now, random=random)
        if not (own / ISSUER_KEY).exists():
            write_file(own / ISSUER_KEY, key_pem(key), secret=True)
        write_file(own / ISSUER, issuer.pem)


def write_request(folder: Path, node: str, request: Path, *, random: RandomBytes) -> None:
    """Make the key of `node` in `folder`, unless it is there, and write a request for a certificate. Raises `IdentityError`."""
    key = _own_key(folder) or create_key(random)
    content = create_request(node, key)
    make_folder(folder)
    if not (folder / KEY).exists():
        write_file(folder / KEY, key_pem(key), secret=True)
    write_file(request, content)


def load_identity(folder: Path, now: int) -> Identity:
    """The identity in `folder`. Raises `IdentityError` if it cannot be used at `now`."""
    if not (folder / CERTIFICATE).exists():
        raise IdentityError(_no_identity(folder))
    identity = read_identity_of(folder, now)
    if (folder / ISSUER_KEY).exists():
        read_file(folder / ISSUER_KEY, secret=True)
    _check_about(folder, identity)
    trouble = identity.validity(now)
    if trouble is not None:
        raise IdentityError(trouble)
    return identity


def read_identity_of(folder: Path, now: int) -> Identity:
    """The identity in `folder`, also an identity that is not valid at `now`. Raises `IdentityError`."""
    return _at(folder, lambda: _read_identity(folder, now))


def _read_identity(folder: Path, now: int) -> Identity:
    roots, certificate = read_file(folder / AUTHORITY), read_file(folder / CERTIFICATE)
    return read_identity(roots, certificate, read_file(folder / KEY, secret=True), read_rotations(folder), now)


def load_issuer(folder: Path, identity: Identity) -> Issuer | None:
    """The issuing certificate of an operator, with its key; None if the folder has none. Raises `IdentityError`."""
    if not (folder / ISSUER).exists():
        return None
    issuer = _at(
        folder, lambda: read_issuer(read_file(folder / ISSUER), read_file(folder / ISSUER_KEY, secret=True), identity.known)
    )
    if issuer.powers.key != fingerprint(identity.key.public_key()):
        of, node = issuer.powers.operator, identity.subject.node
        raise IdentityError(f"{folder / ISSUER} is of {of} with another key than {node} has: copy the files of one identity")
    return issuer


def own_key(folder: Path, random: RandomBytes) -> Ed25519PrivateKey:
    """The key of the node in `folder`, made there if there is none. Raises `IdentityError`."""
    key = _own_key(folder)
    if key is None:
        key = create_key(random)
        make_folder(folder)
        write_file(folder / KEY, key_pem(key), secret=True)
    return key


def save_certificate(folder: Path, chain: bytes, identity: Identity | None = None, *, roots: bytes = b"") -> None:
    """Put a new certificate in place, for the key that is there. `identity`: the present. `roots`: those of a node that joins.

    Raises `IdentityError` if the disk takes no file.
    """
    certificates = [x509.load_der_x509_certificate(each) for each in split_chain(chain)]
    known = read_certificates(roots) if identity is None else identity.known
    member = read_chain(chain, known)
    pem = roots if identity is None else read_file(folder / AUTHORITY)
    _write_certificates(folder, pem, certificates, member.fleet, member.node, member.role)


def save_rotations(folder: Path, statements: Sequence[bytes], known: Sequence[x509.Certificate]) -> None:
    """Put new statements of roots in place, with all roots that are known with them. Raises `IdentityError`."""
    write_rotations(folder, statements)
    write_file(folder / AUTHORITY, b"".join(each.public_bytes(Encoding.PEM) for each in known))


def read_rotations(folder: Path) -> list[bytes]:
    """The statements of former roots in a folder. Raises `IdentityError`."""
    if not (folder / ROTATIONS).exists():
        return []
    found = [each.public_bytes(Encoding.DER) for each in read_certificates(read_file(folder / ROTATIONS))]
    return [b"".join(each) for each in zip(found[::3], found[1::3], found[2::3], strict=False)]


def write_rotations(folder: Path, statements: Sequence[bytes]) -> None:
    """Write the statements of former roots, if there are any. Raises `IdentityError`."""
    if statements:
        certificates = [x509.load_der_x509_certificate(each) for statement in statements for each in split_chain(statement, most=3)]
        write_file(folder / ROTATIONS, b"".join(each.public_bytes(Encoding.PEM) for each in certificates))


def read_defaults(folder: Path) -> dict[str, list[str]]:
    """Where the node of an identity listens and connects by default. Raises `IdentityError`."""
    if not (folder / DEFAULTS).exists():
        return {}
    try:
        found = tomllib.loads(read_file(folder / DEFAULTS).decode())
    except (ValueError, RecursionError):
        raise IdentityError(f"{folder / DEFAULTS} is not TOML: correct it, or delete it") from None
    for key, value in found.items():
        if key not in ("listen", "connect"):
            raise IdentityError(f"there is no setting `{key}`, as in {folder / DEFAULTS}: it has `listen` and `connect`")
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise IdentityError(f"`{key}` in {folder / DEFAULTS} is not a list of texts")
    return found


def write_defaults(folder: Path, listen: Sequence[str], connect: Sequence[str]) -> None:
    """Remember where the node of an identity listens and connects by default. Raises `IdentityError`."""
    lines = [f"{key} = {json.dumps(list(value))}\n" for key, value in (("listen", listen), ("connect", connect)) if value]
    write_file(folder / DEFAULTS, "".join(lines).encode())


def tls_context(folder: Path) -> ssl.SSLContext:
    """For a TLS connection to a node of the same fleet, at any address. Raises `IdentityError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a former root may be known by a certificate of the root that follows it
    try:
        context.load_verify_locations(folder / AUTHORITY)
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"cannot use the identity in {folder}: {error.strerror or error}") from None
    return context


def is_open_to_others(folder: Path) -> bool:
    """True if others on this machine can put files into a folder, and so replace a key."""
    try:
        return os.name == "posix" and bool(folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError:
        return False


def _own_key(folder: Path) -> Ed25519PrivateKey | None:
    return _at(folder, lambda: read_key(read_file(folder / KEY, secret=True))) if (folder / KEY).exists() else None


def _no_identity(folder: Path) -> str:
    if (folder / ROOT_KEY).exists():
        return f"{folder} has the root of a fleet, not an identity: name the folder of a node in it, as in {folder / 'forge'}"
    if (folder / KEY).exists():
        return (
            f"{folder} has a key and no certificate yet: have the request certified (`constraint-crdt fleet certify FILE`), "
            f"and copy {AUTHORITY}, {CERTIFICATE} and {ABOUT} to {folder}"
        )
    return f"there is no identity in {folder}: `constraint-crdt fleet certify NAME` makes one"


def _check_about(folder: Path, identity: Identity) -> None:
    """Refuse the files of two identities in one folder. The certificate decides; a missing file is no fault."""
    if not (folder / ABOUT).exists():
        return
    try:
        about = tomllib.loads(read_file(folder / ABOUT).decode())
    except (ValueError, RecursionError):
        raise IdentityError(f"{folder / ABOUT} is not TOML: copy it again, or delete it") from None
    for key in ("fleet", "node"):
        found = getattr(identity.subject, key)
        if about.get(key) != found:
            raise IdentityError(
                f"{folder / CERTIFICATE} is of {key} {found}, and {folder / ABOUT} of {about.get(key)}: "
                "copy the files of one identity"
            )


def _write_certificates(
    own: Path, roots: bytes, certificates: Sequence[x509.Certificate], fleet: str, node: str, role: str
) -> None:
    about = {"fleet": fleet, "node": node, "role": role, "ends": f"{certificates[0].not_valid_after_utc:%Y-%m-%d}"}
    write_file(own / AUTHORITY, roots)
    write_file(own / CERTIFICATE, b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
    write_file(own / ABOUT, "".join(f'{key} = "{value}"\n' for key, value in about.items()).encode())


def _at(place: Path, read: Callable[[], Content]) -> Content:
    """Run `read`, and name the place in its error."""
    try:
        return read()
    except IdentityError as error:
        text = str(error)
        raise IdentityError(text if str(place) in text else f"{place}: {text}") from None


def make_folder(folder: Path) -> None:
    """Make a folder for the owner only. Raises `IdentityError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"cannot make {folder}: {error.strerror or error}; name another folder, or make room") from None


def read_file(file: Path, *, secret: bool = False, most: int = MOST_BYTES) -> bytes:
    """The content of a file, `most` bytes of it. `secret`: others must not be able to read or write it. Raises `IdentityError`."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(most)
    except OSError as error:
        raise IdentityError(f"cannot read {file}: {error.strerror or error}") from None
    if secret and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise IdentityError(f"others on this machine can read or write the key {file}: `chmod 600 {file}` first")
    return content


def write_file(file: Path, content: bytes, *, secret: bool = False) -> None:
    """Write a file as a whole, or leave it as it was. Raises `IdentityError`."""
    try:
        replace_file(file, content, mode=0o600 if secret else 0o644)
    except OSError as error:
        raise IdentityError(f"cannot write {file}: {error.strerror or error}; name another folder, or make room") from None
