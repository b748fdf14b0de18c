"""The files of identities.

The folder of a fleet has the root, and a folder for each identity made there:

    ca.pem          the certificate of the root; no secret
    root.key        the key of the root: certifies nodes, stays off the nodes
    NODE/ca.pem     the certificate of the root again
    NODE/node.pem   the certificate of the node
    NODE/node.key   its private key
    NODE/identity.toml    for people: fleet, node, role and end of the certificate

Rules: keys are readable by their owner alone (0600), or are refused. A file is written whole under another name first, so a full
disk leaves the former file. A root and a key are never overwritten.
"""

import contextlib
import os
import ssl
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from constraint_crdt.identity import (
    NODE_VALID,
    Identity,
    IdentityError,
    RandomBytes,
    Root,
    certify,
    check_name,
    create_key,
    create_request,
    create_root,
    key_pem,
    read_identity,
    read_key,
    read_request,
    read_root,
    read_subject,
)

AUTHORITY = "ca.pem"
ROOT_KEY = "root.key"
CERTIFICATE = "node.pem"
KEY = "node.key"
ABOUT = "identity.toml"

MOST_BYTES = 65_536
"""The longest file read here."""

Content = TypeVar("Content")


def create_fleet(folder: Path, fleet: str, *, now: int, random: RandomBytes) -> Root:
    """Make the root of a fleet in `folder`. Raises `IdentityError`, also if the folder has a root."""
    root = create_root(fleet, now=now, random=random)
    if (folder / ROOT_KEY).exists() or (folder / AUTHORITY).exists():
        raise IdentityError(f"{folder} has the root of a fleet already: name another folder with --dir")
    _make_folder(folder)
    _write(folder / ROOT_KEY, key_pem(root.key), secret=True)
    _write(folder / AUTHORITY, root.pem)
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
    return _at(folder, lambda: read_root(_read(folder / AUTHORITY), _read(folder / ROOT_KEY, secret=True)))


def certify_node(folder: Path, root: Root, node: str, role: str, *, now: int, random: RandomBytes, valid: int = NODE_VALID) -> Path:
    """Make the identity of `node` in a folder below `folder`, or certify it again. Returns its folder. Raises `IdentityError`."""
    own = folder / check_name(node, "the name of a node")
    key = _own_key(own) or create_key(random)
    certificate = certify(root, node, role, key.public_key(), now=now, random=random, valid=valid)
    _make_folder(own)
    if not (own / KEY).exists():
        _write(own / KEY, key_pem(key), secret=True)
    _write_certificates(own, root, certificate)
    return own


def certify_request(
    folder: Path, root: Root, request: Path, role: str, *, now: int, random: RandomBytes, valid: int = NODE_VALID
) -> Path:
    """Certify a request. Returns the folder below `folder` with the certificates, without a key. Raises `IdentityError`."""
    node, key = _at(request, lambda: read_request(_read(request)))
    own = folder / node
    if (own / KEY).exists():
        raise IdentityError(f"{own} has an identity called {node} already: request a certificate for another name")
    certificate = certify(root, node, role, key, now=now, random=random, valid=valid)
    _make_folder(own)
    _write_certificates(own, root, certificate)  # without a key, which stays at the node
    return own


def write_request(folder: Path, node: str, request: Path, *, random: RandomBytes) -> None:
    """Make the key of `node` in `folder`, unless it is there, and write a request for a certificate. Raises `IdentityError`."""
    key = _own_key(folder) or create_key(random)
    content = create_request(node, key)
    _make_folder(folder)
    if not (folder / KEY).exists():
        _write(folder / KEY, key_pem(key), secret=True)
    _write(request, content)


def load_identity(folder: Path, now: int) -> Identity:
    """The identity in `folder`. Raises `IdentityError` if it cannot be used at `now`."""
    if not (folder / CERTIFICATE).exists():
        raise IdentityError(_no_identity(folder))
    identity = _at(
        folder,
        lambda: read_identity(_read(folder / AUTHORITY), _read(folder / CERTIFICATE), _read(folder / KEY, secret=True)),
    )
    _check_about(folder, identity)
    trouble = identity.validity(now)
    if trouble is not None:
        raise IdentityError(trouble)
    return identity


def tls_context(folder: Path) -> ssl.SSLContext:
    """For a TLS connection to a node of the same fleet, at any address. Raises `IdentityError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    try:
        context.load_verify_locations(folder / AUTHORITY)
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except (OSError, ssl.SSLError) as error:
        raise IdentityError(f"cannot use the identity in {folder}: {error.strerror or error}") from None
    return context


def _own_key(folder: Path) -> Ed25519PrivateKey | None:
    return _at(folder, lambda: read_key(_read(folder / KEY, secret=True))) if (folder / KEY).exists() else None


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
        about = tomllib.loads(_read(folder / ABOUT).decode())
    except ValueError:
        raise IdentityError(f"{folder / ABOUT} is not TOML: copy it again, or delete it") from None
    for key in ("fleet", "node"):
        found = getattr(identity.subject, key)
        if about.get(key) != found:
            raise IdentityError(
                f"{folder / CERTIFICATE} is of {key} {found}, and {folder / ABOUT} of {about.get(key)}: "
                "copy the files of one identity"
            )


def _write_certificates(own: Path, root: Root, certificate: x509.Certificate) -> None:
    subject = read_subject(certificate, root.certificate)
    about = {
        "fleet": subject.fleet,
        "node": subject.node,
        "role": subject.role,
        "ends": f"{certificate.not_valid_after_utc:%Y-%m-%d}",
    }
    _write(own / AUTHORITY, root.pem)
    _write(own / CERTIFICATE, certificate.public_bytes(Encoding.PEM))
    _write(own / ABOUT, "".join(f'{key} = "{value}"\n' for key, value in about.items()).encode())


def _at(place: Path, read: Callable[[], Content]) -> Content:
    """Run `read`, and name the place in its error."""
    try:
        return read()
    except IdentityError as error:
        text = str(error)
        raise IdentityError(text if str(place) in text else f"{place}: {text}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"cannot make {folder}: {error.strerror or error}; name another folder, or make room") from None


def _read(file: Path, *, secret: bool = False) -> bytes:
    """The content of a file. `secret`: others must not be able to read or write it."""
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            content = opened.read(MOST_BYTES)
    except OSError as error:
        raise IdentityError(f"cannot read {file}: {error.strerror or error}") from None
    if secret and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise IdentityError(f"others on this machine can read or write the key {file}: `chmod 600 {file}` first")
    return content


def _write(file: Path, content: bytes, *, secret: bool = False) -> None:
    """Write a file as a whole, or leave it as it was."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        try:
            number = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
            with os.fdopen(number, "wb") as opened:
                opened.write(content)
                opened.flush()
                os.fsync(opened.fileno())
            beside.replace(file)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise IdentityError(f"cannot write {file}: {error.strerror or error}; name another folder, or make room") from None
