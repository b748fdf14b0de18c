"""The credentials of a node for its rows: its certificates and signatures, as `protocol.authority` asks for them.

Rules kept here:

- Certificates in rows are read without the time: a row stands after the end of the certificate under which it was written.
- A chain and a key are parsed once. The number of those that are kept is bounded.
"""

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from constraint_crdt.identity import Identity, Member, read_chain
from constraint_crdt.protocol.authority import MemberOfFleet

KEPT = 4096
"""Chains and keys that are kept parsed."""


class RowCredentials:
    """The identity of a node, for signing its row and checking those of others."""

    def __init__(self, identity: Identity) -> None:
        self.renew(identity)

    def renew(self, identity: Identity) -> None:
        """Go on with a new certificate for the same key, or with more roots."""
        self._identity = identity
        self._roots = identity.known
        self.chain = identity.chain
        """The certificates of the node."""
        self.member = self.read(self.chain)
        """The node itself."""

    def sign(self, text: bytes) -> bytes:
        """The signature of a text."""
        return self._identity.key.sign(text)

    def read(self, chain: bytes) -> Member:
        """The member that certificates name. Raises `IdentityError` for certificates of no member of the fleet."""
        return _read(chain, self._roots)

    def verifies(self, member: MemberOfFleet, signature: bytes, text: bytes) -> bool:
        """True if the signature of the text is by the key of the member."""
        if not isinstance(member, Member):
            return False
        try:
            _key(member.public_key).verify(signature, text)
        except InvalidSignature:
            return False
        return True


@lru_cache(maxsize=KEPT)
def _read(chain: bytes, roots: tuple[x509.Certificate, ...]) -> Member:
    return read_chain(chain, roots)


@lru_cache(maxsize=KEPT)
def _key(public_key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key)
