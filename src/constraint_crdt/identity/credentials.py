"""The credentials of a node: the signatures of its rows, and the tags of its messages.

The certificates and signatures of rows, as `protocol.authority` asks for them. Rules:

- Certificates in rows are read without the time: a row stands after the end of the certificate under which it was written.
- A chain and a key are parsed once. The number of those that are kept is bounded.

Messages are authenticated between two sessions, end to end: also through routers. The proof of a session has its public key of
X25519, signed by its node (`Identity.prove`). Two sessions derive two keys from these by HKDF-SHA256, one for the messages of
each. Every request and every reply has a *tag*: 12 bytes of keyed BLAKE2b over the message, its place in the exchange, and the
counter of its request. A signature of each message would cost ten times the CPU and five times the bytes.

Rules:

1. A tag is checked before a message is read. A message with a wrong tag has no effect.
2. A request counts once: the receiver remembers the last `WINDOW` counters of each session, and refuses older ones. So requests
   may overtake each other, and a repeated request is refused. A session that is gone for a moment goes on with its counters.
3. A reply belongs to one request, by its counter. The requester waits for it, so a late or repeated reply finds no request.
4. Keys live as long as their sessions. Recorded messages open nothing later, also to a holder of the node's own key.
5. Of the counter the last 7 bits travel, as in DTLS 1.3 (RFC 9147, 4.2.2), while the requester knows by replies that the receiver
   is near. The receiver tries the counters that they may stand for, the nearest first. The tag is over the whole counter.
6. Pure: random bytes are an argument.
"""

import hmac
import struct
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from constraint_crdt.identity import Identity, Member, RandomBytes, read_chain
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


TAG_BYTES = 12
"""Tags can be guessed over the network only, 1 in 2**96. 16 bytes would cost a change 8 bytes more."""
WINDOW = 1024
"""Counters of requests that a receiver remembers of each session."""

_ALL_SEEN = (1 << WINDOW) - 1

ENDED = 4096
"""Sessions that ended whose counters are kept, in case that they come back."""

_KEY_BYTES = 32
_REQUEST, _REPLY = b"Q", b"R"
_ABOUT = struct.Struct("!cQI")
_NAME_BYTES = 2
_COUNTER_BYTES = 5
_SHORT_BYTES = _NAME_BYTES + 1 + TAG_BYTES
_LONG_BYTES = _NAME_BYTES + _COUNTER_BYTES + TAG_BYTES
"""Bytes of a header, with a short and with a whole counter."""
_WHOLE = 1 << 8 * _COUNTER_BYTES - 1
"""Set in a whole counter, of `_COUNTER_BYTES`. Else the counter is a byte, its last 7 bits."""
_TURN = 128
_NEAR = 60
"""A counter that is so far ahead of the last one with a reply, at most, travels as its last bits."""


class Request(NamedTuple):
    """A request with a tag: the name and the session of its other end."""

    name: str
    session: str
    counter: int


_Counters = tuple[int, int, int, int]


class _Pair:
    """The keys of this session with another session, short names of the keys, and the counters of requests."""

    def __init__(self, peer: tuple[str, str], public: bytes, own: bytes, other: bytes) -> None:
        self.peer = peer
        self.public = public
        self.own, self.own_name = _hasher(own[:_KEY_BYTES]), own[_KEY_BYTES:]
        self.other, self.other_name = _hasher(other[:_KEY_BYTES]), other[_KEY_BYTES:]
        self.sent = 0
        self.answered = -1
        """The highest counter of a request that got a reply: the other end has seen it."""
        self._highest = -1
        self._seen = 0

    @property
    def counters(self) -> _Counters:
        """All that is counted, for a session that is gone."""
        return self.sent, self.answered, self._highest, self._seen

    def go_on(self, counters: _Counters) -> None:
        """Go on with the counters of the same session, before it was gone."""
        self.sent, self.answered, self._highest, self._seen = counters

    def header(self, counter: int) -> bytes:
        """The name of the key and a counter."""
        if counter - self.answered <= _NEAR:
            return self.own_name + bytes((counter % _TURN,))
        return self.own_name + (_WHOLE | counter).to_bytes(_COUNTER_BYTES)

    def candidates(self, told: bytes) -> Iterable[int]:
        """The counters that may be meant by what a header tells, the nearest first."""
        if len(told) > 1:
            return (int.from_bytes(told) - _WHOLE,)
        nearest = self._highest + 1 - _TURN // 2
        nearest += (told[0] - nearest) % _TURN
        return range(nearest, max(-1, self._highest - WINDOW), -_TURN)

    def is_new(self, counter: int) -> bool:
        """Remember a counter. False if it came before, or is too old to tell."""
        if counter > self._highest:
            self._seen = (self._seen << min(counter - self._highest, WINDOW) | 1) & _ALL_SEEN
            self._highest = counter
            return True
        age = self._highest - counter
        if age >= WINDOW or self._seen >> age & 1:
            return False
        self._seen |= 1 << age
        return True


class Authenticator:
    """Makes and checks the tags of a session. Sessions are 24 characters of hex."""

    def __init__(self, fleet: str, name: str, session: str, random: RandomBytes) -> None:
        self._fleet = fleet
        self._me = (name, session)
        self._key = X25519PrivateKey.from_private_bytes(random(32))
        self._pairs: dict[str, _Pair] = {}
        self._named: dict[bytes, list[_Pair]] = {}
        self._ended: OrderedDict[tuple[str, bytes], _Counters] = OrderedDict()
        """The counters of sessions that ended, by session and key: requests of before its end count once in all."""
        self.public = self._key.public_key().public_bytes_raw()
        """The key for the proof of this session."""

    def learn(self, name: str, session: str, public: bytes) -> bool:
        """Take the key out of the proof of another session. False for a key that is none. Costs 0.1 ms."""
        low, high = sorted([self._me, (name, session)], key=lambda end: end[1])
        about = "\0".join(("constraint-crdt messages", self._fleet, *low, *high)).encode()
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            return False
        half = _KEY_BYTES + _NAME_BYTES
        keys = HKDF(SHA256(), 2 * half, salt=None, info=about).derive(shared)
        halves = keys[:half], keys[half:]
        self.forget(session)
        pair = self._pairs[session] = _Pair((name, session), public, *(halves if low == self._me else halves[::-1]))
        before = self._ended.pop((session, public), None)
        if before is not None:
            pair.go_on(before)
        self._named.setdefault(pair.other_name, []).append(pair)
        return True

    def forget(self, session: str) -> None:
        """Drop the keys of a session that ended."""
        pair = self._pairs.pop(session, None)
        if pair is not None:
            same = self._named.pop(pair.other_name)
            same.remove(pair)
            if same:
                self._named[pair.other_name] = same
            self._ended[session, pair.public] = pair.counters
            if len(self._ended) > ENDED:
                self._ended.popitem(last=False)

    def knows(self, session: str) -> bool:
        """Whether the key of a session was learned."""
        return session in self._pairs

    def sign(self, session: str, place: bytes, payload: bytes) -> tuple[bytes, Request]:
        """The header of a request to a known session, and the request. `place`: further bytes covered by the tag."""
        pair = self._pairs[session]
        counter, pair.sent = pair.sent, pair.sent + 1
        tag = _tag(pair.own, _REQUEST, counter, place, payload)
        return pair.header(counter) + tag, Request(*pair.peer, counter)

    def split(self, attachment: bytes) -> tuple[bytes, bytes]:
        """The header of a request and its place. The header is empty where the attachment has none."""
        size = _header_bytes(attachment)
        return attachment[:size], attachment[size:]

    def knows_sender(self, header: bytes) -> bool:
        """Whether a header names a key of a known session."""
        return header[:_NAME_BYTES] in self._named

    def verify(self, header: bytes, place: bytes, payload: bytes) -> Request | None:
        """The request, if its tag is of a known session and it came for the first time; else None."""
        if not header or _header_bytes(header) != len(header):
            return None
        told, tag = header[_NAME_BYTES:-TAG_BYTES], header[-TAG_BYTES:]
        for pair in self._named.get(header[:_NAME_BYTES], ()):
            for counter in pair.candidates(told):
                if hmac.compare_digest(tag, _tag(pair.other, _REQUEST, counter, place, payload)):
                    return Request(*pair.peer, counter) if pair.is_new(counter) else None
        return None

    def answered(self, request: Request) -> None:
        """The other end of `request` sent a reply to it."""
        pair = self._pairs.get(request.session)
        if pair is not None and request.counter > pair.answered:
            pair.answered = request.counter

    def sign_reply(self, request: Request, place: bytes, payload: bytes) -> bytes:
        """The tag of a reply to `request`; empty if its session ended."""
        pair = self._pairs.get(request.session)
        return b"" if pair is None else _tag(pair.own, _REPLY, request.counter, place, payload)

    def is_reply(self, request: Request, place: bytes, payload: bytes, tag: bytes) -> bool:
        """Whether the other end of `request` sent this reply to it. Also from another thread."""
        pair = self._pairs.get(request.session)
        return pair is not None and hmac.compare_digest(tag, _tag(pair.other, _REPLY, request.counter, place, payload))


def _header_bytes(attachment: bytes) -> int:
    """The bytes of the header with which an attachment begins; 0 where it is too short for one."""
    if len(attachment) < _SHORT_BYTES:
        return 0
    if not attachment[_NAME_BYTES] & 0x80:
        return _SHORT_BYTES
    return _LONG_BYTES if len(attachment) >= _LONG_BYTES else 0


def _hasher(key: bytes) -> blake2b:
    return blake2b(digest_size=TAG_BYTES, key=key)


def _tag(hasher: blake2b, kind: bytes, counter: int, place: bytes, payload: bytes) -> bytes:
    digest = hasher.copy()
    digest.update(_ABOUT.pack(kind, counter, len(place)) + place)
    digest.update(payload)
    return digest.digest()
