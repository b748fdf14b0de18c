"""Credentials without cryptography, for fast tests: a certificate is a text with a hash keyed by the root.

Whoever holds a `Key` can sign by it. A test keeps the keys of its honest nodes from its liars by not handing them over.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b

import msgspec

from constraint_crdt.errors import ConstraintCrdtError

ROOT = b"the root of the fleet"


@dataclass(frozen=True)
class Key:
    secret: bytes

    @property
    def fingerprint(self) -> str:
        return blake2b(self.secret, digest_size=32, person=b"fingerprint").hexdigest()


@dataclass(frozen=True)
class Person:
    node: str
    role: str
    fingerprint: str
    begins: int = 0
    issuer: str | None = None

    @property
    def since(self) -> int:
        return self.begins


_KEYS: dict[str, Key] = {}
"""By fingerprint: what a public key would do."""


def certificate(person: Person, root: bytes = ROOT) -> bytes:
    text = msgspec.msgpack.encode([person.node, person.role, person.fingerprint, person.begins, person.issuer])
    return blake2b(text, key=root, digest_size=16).digest() + text


class FastCredentials:
    def __init__(
        self, node: str, role: str = "operator", *, key: Key | None = None, begins: int = 0, issuer: str | None = None
    ) -> None:
        self.key = key or Key(node.encode())
        _KEYS[self.key.fingerprint] = self.key
        self.member = Person(node, role, self.key.fingerprint, begins, issuer)
        self.chain = certificate(self.member)

    def with_role(self, role: str) -> "FastCredentials":
        """The same key, certified in another role by the root."""
        return FastCredentials(self.member.node, role, key=self.key, begins=self.member.begins)

    def forged(self, **fields: object) -> bytes:
        """A certificate that this node made itself."""
        return certificate(replace(self.member, **fields), root=b"a root of its own")  # type: ignore[arg-type]

    def sign(self, text: bytes) -> bytes:
        return blake2b(text, key=self.key.secret, digest_size=64).digest()

    def read(self, chain: bytes) -> Person:
        text = chain[16:]
        if blake2b(text, key=ROOT, digest_size=16).digest() != chain[:16]:
            raise ConstraintCrdtError("the certificate is of another fleet: its root did not sign it")
        return Person(*msgspec.msgpack.decode(text))

    def verifies(self, member: object, signature: bytes, text: bytes) -> bool:
        assert isinstance(member, Person)
        return blake2b(text, key=_KEYS[member.fingerprint].secret, digest_size=64).digest() == signature
