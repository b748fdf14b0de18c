"""Invitations, the requests of nodes that join, and the join endpoint. Requests with random and changed bytes: 600, or 10,000,000
with CONSTRAINT_CRDT_BUDGET=nightly.
"""

import asyncio
import contextlib
import dataclasses
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.identity import (
    DAY,
    EARLIER,
    SECOND,
    IdentityError,
    certify,
    create_issuer,
    create_key,
    create_request,
    fingerprint,
    read_chain,
    split_chain,
)
from constraint_crdt.identity import invitations as messages
from constraint_crdt.identity.directory import certify_node, load_identity, load_issuer
from constraint_crdt.identity.invitations import (
    CONNECTIONS_EACH,
    MAX_INVITATIONS,
    MAX_REQUEST,
    WRONG_SECRETS,
    Greeting,
    Invitations,
    JoinAnswer,
    JoinRequest,
    JoinServer,
    Registrar,
    Token,
    encode_token,
    join,
    read_join_request,
    read_renewal,
    read_token,
    renewal_request,
    root_hash,
)

from .fleets import NOW, Fleet, root_of, seeded
from .test_certificates import identity_of

ROOT = root_of()
OWN = identity_of("forge", ROOT, role="operator", seed=39)
FORGE = create_issuer(
    ROOT, "forge", OWN.key.public_key(), ("observer", "member"), create_key(seeded(40)), now=NOW, random=seeded(41)
)  # fmt: skip
KEY = create_key(seeded(42))
REQUESTS = 10_000_000 if os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly" else 600


def registrar_of(
    folder: Path,
    *,
    refusal: Callable[[str, str, bool], str | None] = lambda *_: None,
    revoked: str = "",
    known: tuple[str, ...] = (),
) -> Registrar:
    folder.mkdir(exist_ok=True)
    return Registrar(
        FORGE,
        Invitations(folder / "invitations.json"),
        refusal=refusal,
        is_revoked=lambda mark: mark == revoked,
        is_known=lambda member: member.node in known,
        fleet=lambda: ((), ("tls/10.0.0.1:7447",)),
        admitted=lambda *_: None,
        random=seeded(50),
    )


class Desk:
    """A registrar with an invitation, and the requests for it."""

    def __init__(self, folder: Path, *, name: str = "", uses: int = 1, valid: int = DAY, **options: object) -> None:
        self.registrar = registrar_of(folder, **options)  # type: ignore[arg-type]
        self.invitation, self.secret = self.registrar.invite("member", name, uses, valid, NOW)

    def request(self, name: str = "lathe", seed: int = 42, *, secret: bytes | None = None, clock: int = NOW) -> bytes:
        request = create_request(name, create_key(seeded(seed)))
        return msgspec.msgpack.encode(
            JoinRequest(1, bytes.fromhex(self.invitation.id), self.secret if secret is None else secret, request, clock)
        )

    def ask(self, request: bytes, now: int = NOW) -> JoinAnswer:
        return msgspec.msgpack.decode(self.registrar.admit(request, now), type=JoinAnswer)

    def admits(self, request: bytes, now: int = NOW) -> bool:
        return not self.ask(request, now).error


# --- tokens ---------------------------------------------------------------------------------------------------------------------

TOKEN = Token(1, ("10.0.0.1:7448", "[2001:db8::1]:7448"), root_hash(ROOT.certificate), bytes(8), bytes(16), NOW, "lathe")


def test_a_token_is_one_word_and_reads_back() -> None:
    text = encode_token(TOKEN)
    assert not set(text) & set(" \n/+=")
    assert len(text) < 250
    assert read_token(f" {text}\n") == TOKEN


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"root": bytes(31)}, {"id": bytes(9)}, {"secret": b""}, {"addresses": ()},
        {"addresses": ("x",)}, {"addresses": ("x:0",)}, {"addresses": ("x:70000",)}, {"name": "a/b"},
    ],
)  # fmt: skip
def test_a_token_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(IdentityError, match="that is no invitation: paste the whole token"):
        read_token(encode_token(msgspec.structs.replace(TOKEN, **change)))


@pytest.mark.slow
@given(st.one_of(st.text(max_size=200), st.binary(max_size=150).map(lambda content: f"join-{content.hex()}")))
def test_any_text_is_no_token(text: str) -> None:
    with pytest.raises(IdentityError, match="that is no invitation"):
        read_token(text)


@given(st.data())
def test_a_token_that_was_cut_or_changed_is_refused(data: st.DataObject) -> None:
    text = encode_token(TOKEN)
    at = data.draw(st.integers(5, len(text) - 2))
    changed = text[:at] + data.draw(st.sampled_from(["", "A", "_", "z9"])) + text[at + 1 :]
    if changed != text:
        with pytest.raises(IdentityError, match="that is no invitation"):
            read_token(changed)


# --- requests to join -----------------------------------------------------------------------------------------------------------


def test_an_invitation_makes_a_member(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    answer = desk.ask(desk.request())
    member = read_chain(answer.chain, [ROOT.certificate])
    assert (member.node, member.role, member.public_key) == ("lathe", "member", KEY.public_key().public_bytes_raw())
    assert answer.seeds == ("tls/10.0.0.1:7447",)
    assert desk.invitation.used == [messages.Use("lathe", member.fingerprint)]


def test_the_secret_is_not_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    kept = (tmp_path / "invitations.json").read_bytes()
    assert desk.secret.hex().encode() not in kept
    assert (tmp_path / "invitations.json").stat().st_mode & 0o077 == 0


def test_a_use_is_counted_once_for_a_key_and_on_disk_before_the_answer(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.admits(desk.request())
    desk.registrar = registrar_of(tmp_path)  # after a crash
    assert desk.admits(desk.request()), "the answer may have been lost"
    again = desk.ask(desk.request("lathe", 43))
    assert again.error == "the name lathe is taken: join with --name OTHER"
    other = desk.ask(desk.request("anvil", 43))
    assert other.error == "the invitation was used by lathe: ask for a new one"


def test_a_use_that_the_disk_does_not_take_gives_no_certificate(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "full")
    for file in (tmp_path / "full").iterdir():
        file.unlink()
    (tmp_path / "full").rmdir()
    answer = desk.ask(desk.request())
    assert "cannot write" in answer.error
    assert "make room" in answer.error
    assert not answer.chain
    assert desk.invitation.used == []


def test_several_uses_are_for_several_names(tmp_path: Path) -> None:
    desk = Desk(tmp_path, uses=2)
    assert desk.admits(desk.request("lathe", 1))
    assert not desk.admits(desk.request("lathe", 2))
    assert desk.admits(desk.request("anvil", 2))
    assert desk.ask(desk.request("mill", 3)).error == "the invitation was used by lathe, anvil: ask for a new one"


def test_an_invitation_for_a_name_is_for_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, name="lathe")
    assert desk.ask(desk.request("anvil")).error == "the invitation is for lathe, not for anvil: join with --name lathe"
    assert desk.admits(desk.request("lathe"))


def test_a_wrong_secret_is_told_nothing_and_ends_the_invitation_in_the_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for _ in range(WRONG_SECRETS):
        assert desk.ask(desk.request(secret=bytes(16))).error == (
            "the operator knows no such invitation, or withdrew it: ask for a new one"
        )
    desk.registrar = registrar_of(tmp_path)
    assert "the invitation ended" in desk.ask(desk.request()).error
    assert desk.registrar.invitations.listed(NOW) == []


def test_an_invitation_ends(tmp_path: Path) -> None:
    desk = Desk(tmp_path, valid=3600 * SECOND)
    assert desk.admits(desk.request(), NOW + 3600 * SECOND - 1)
    late = NOW + 3600 * SECOND
    assert "the invitation ended on 2026-" in desk.ask(desk.request(clock=late), late).error


def test_a_withdrawn_invitation_is_unknown(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.registrar.invitations.withdraw(desk.invitation.id)
    assert "no such invitation" in desk.ask(desk.request()).error
    with pytest.raises(IdentityError, match="there is no invitation"):
        desk.registrar.invitations.withdraw(desk.invitation.id)


@pytest.mark.parametrize("off", [-365 * DAY, -EARLIER - SECOND, EARLIER + SECOND, 365 * DAY])
def test_clocks_that_differ_are_both_named(tmp_path: Path, off: int) -> None:
    desk = Desk(tmp_path)
    error = desk.ask(desk.request(clock=NOW + off)).error
    assert error.startswith("the clock of this machine says 202")
    assert error.endswith("UTC: set the one that is wrong")


def test_names_and_keys_may_be_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path, refusal=lambda name, _, invited: f"the name {name} is taken" if not invited else None)
    assert desk.ask(desk.request()).error == "the name lathe is taken"
    desk = Desk(tmp_path / "named", name="lathe", refusal=lambda name, _, invited: None if invited else f"the name {name} is taken")
    assert desk.admits(desk.request())
    desk = Desk(tmp_path / "revoked", revoked=fingerprint(KEY.public_key()))
    assert "the key of lathe is revoked" in desk.ask(desk.request()).error


@pytest.mark.parametrize(
    ("role", "name", "uses", "valid", "says"),
    [
        ("king", "", 1, DAY, "'king' is no role"),
        ("operator", "", 1, DAY, "operators of this fleet certify observer and member: certify a node of role operator where"),
        ("member", "a/b", 1, DAY, "the name of a node in a certificate"),
        ("member", "", 0, DAY, "1 to 1000 uses"),
        ("member", "", 1001, DAY, "1 to 1000 uses"),
        ("member", "lathe", 2, DAY, "an invitation for a name has one use"),
        ("member", "", 1, 31 * DAY, "valid for 1 s to 30 days"),
        ("member", "", 1, 0, "valid for 1 s to 30 days"),
    ],
)
def test_an_invitation_out_of_bounds_is_refused(tmp_path: Path, role: str, name: str, uses: int, valid: int, says: str) -> None:
    with pytest.raises(IdentityError, match=says):
        registrar_of(tmp_path).invite(role, name, uses, valid, NOW)


def test_invitations_are_bounded_and_ended_ones_make_room(tmp_path: Path) -> None:
    registrar = registrar_of(tmp_path)
    kept = [messages.Invitation(str(number), "", "member", 1, NOW + DAY) for number in range(MAX_INVITATIONS - 1)]
    registrar.invitations._replace(kept)
    registrar.invite("member", "", 1, SECOND, NOW)
    with pytest.raises(IdentityError, match="1000 invitations are open: withdraw some"):
        registrar.invite("member", "", 1, DAY, NOW)
    registrar.invite("member", "", 1, DAY, NOW + 2 * SECOND)


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "invitations.json").write_text("{")
    (tmp_path / "invitations.json").chmod(0o600)
    with pytest.raises(IdentityError, match=r"invitations.json is damaged: delete it, and invite again"):
        registrar_of(tmp_path)


@pytest.mark.long
def test_changed_requests_never_get_a_certificate_of_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request ends the registrar, and what it answers is an error, or a certificate for the name and key of the request."""
    desk, draw = Desk(tmp_path, uses=1000), random.Random(int(os.environ.get("CONSTRAINT_CRDT_SEED", "7")))
    monkeypatch.setattr(Invitations, "_save", lambda _: None)  # the disk would take most of the time
    request = desk.request()
    admitted = 0
    for _ in range(REQUESTS):
        changed = bytearray(request if draw.random() < 0.9 else draw.randbytes(draw.randrange(400)))
        for _ in range(draw.randrange(4)):
            if changed:
                changed[draw.randrange(len(changed))] = draw.randrange(256)
        if draw.random() < 0.1:
            del changed[draw.randrange(len(changed) + 1) :]
        answer = desk.ask(bytes(changed))
        desk.invitation.wrong = 0  # else it ends
        assert bool(answer.error) != bool(answer.chain)
        if answer.chain:
            member = read_chain(answer.chain, [ROOT.certificate])
            assert (member.node, member.public_key) == ("lathe", KEY.public_key().public_bytes_raw())
            admitted += 1
    assert admitted, "some requests are not changed"
    assert len(desk.invitation.used) == 1


@given(st.binary(max_size=300))
def test_random_bytes_are_no_request(content: bytes) -> None:
    with pytest.raises(IdentityError, match="use the same version of constraint-crdt on both sides"):
        read_join_request(content)


# --- renewal --------------------------------------------------------------------------------------------------------------------

LATHE = identity_of("lathe", ROOT, seed=60)


def renewed(registrar: Registrar, request: bytes, now: int) -> bytes:
    return read_renewal(registrar.renew(request, [ROOT.certificate], now), LATHE, now)


def test_a_certificate_is_renewed_for_the_same_key_name_and_role(tmp_path: Path) -> None:
    later = NOW + 25 * DAY
    member = read_chain(renewed(registrar_of(tmp_path), renewal_request(LATHE), later), [ROOT.certificate])
    before = LATHE.member
    assert (member.node, member.role, member.public_key) == (before.node, before.role, before.public_key)
    assert member.ends == later + 30 * DAY


def test_the_time_to_renew_is_when_a_third_is_left() -> None:
    assert LATHE.renew_from == NOW + 20 * DAY


@pytest.mark.parametrize("later", [-2 * EARLIER, 30 * DAY + SECOND])
def test_a_certificate_that_is_not_valid_is_not_renewed(tmp_path: Path, later: int) -> None:
    with pytest.raises(IdentityError, match=r"the certificate of lathe is not valid on .*: join again by an invitation"):
        renewed(registrar_of(tmp_path), renewal_request(LATHE), NOW + later)


def test_a_revoked_key_is_not_renewed(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="lathe is revoked, and its certificate is not renewed"):
        renewed(registrar_of(tmp_path, revoked=LATHE.member.fingerprint), renewal_request(LATHE), NOW)


def test_what_a_revoked_operator_certified_later_is_not_renewed(tmp_path: Path) -> None:
    """Else a stolen issuing key would make certificates that an honest operator keeps alive."""
    chain = renewed(registrar_of(tmp_path), renewal_request(LATHE), NOW)
    issuing = load_der_x509_certificate(split_chain(chain)[1])
    by_forge = dataclasses.replace(LATHE, certificate=load_der_x509_certificate(split_chain(chain)[0]), issuing=issuing)
    with pytest.raises(IdentityError, match="forge, which certified lathe, is revoked: join again by an invitation"):
        renewed(registrar_of(tmp_path, revoked=OWN.member.fingerprint), renewal_request(by_forge), NOW)
    assert renewed(registrar_of(tmp_path, revoked=OWN.member.fingerprint, known=("lathe",)), renewal_request(by_forge), NOW)


def test_a_copied_certificate_without_its_key_is_not_renewed(tmp_path: Path) -> None:
    thief = dataclasses.replace(LATHE, key=create_key(seeded(61)))
    with pytest.raises(IdentityError, match="of another node or key than its certificate"):
        renewed(registrar_of(tmp_path), renewal_request(thief), NOW)


def test_a_stranger_renews_nothing(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="of another fleet"):
        renewed(registrar_of(tmp_path), renewal_request(identity_of("lathe", root_of(seed=2))), NOW)
    for content in (b"", b"x", bytes(MAX_REQUEST + 1)):
        with pytest.raises(IdentityError, match="malformed"):
            renewed(registrar_of(tmp_path), content, NOW)


def test_an_operator_is_renewed_by_itself_alone(tmp_path: Path) -> None:
    operator = identity_of("anvil", ROOT, role="operator")
    answer = registrar_of(tmp_path).renew(renewal_request(operator), [ROOT.certificate], NOW)
    with pytest.raises(IdentityError, match="the operator forge may not certify anvil as operator"):
        read_renewal(answer, operator, NOW)
    answer = registrar_of(tmp_path).renew(renewal_request(OWN), [ROOT.certificate], NOW)
    assert read_chain(read_renewal(answer, OWN, NOW), [ROOT.certificate]).role == "operator"


def test_an_answer_for_another_key_is_not_taken(tmp_path: Path) -> None:
    anvil = identity_of("anvil", ROOT, seed=62)
    answer = registrar_of(tmp_path).renew(renewal_request(anvil), [ROOT.certificate], NOW)
    with pytest.raises(IdentityError, match="for another node, key or role"):
        read_renewal(answer, LATHE, NOW)


# --- the endpoint ---------------------------------------------------------------------------------------------------------------


class Operator:
    """A join endpoint with the files of an operator."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder / "plant")
        now, rand = time.time_ns(), seeded(70)
        self.own = certify_node(self.fleet.folder, self.fleet.root, "forge", "operator", now=now, random=rand)
        self.identity = load_identity(self.own, now)
        issuer = load_issuer(self.own, self.identity)
        assert issuer is not None
        self.registrar = Registrar(
            issuer,
            Invitations(self.own / "invitations.json"),
            refusal=lambda *_: None,
            is_revoked=lambda _: False,
            is_known=lambda _: False,
            fleet=lambda: ((), ()),
            admitted=lambda *_: None,
            random=random.SystemRandom().randbytes,
        )
        self.requests: list[bytes] = []
        self.server = JoinServer(self.admit, self.greeting, (self.own / "node.pem", self.own / "node.key"))
        self.clock = 0

    def admit(self, content: bytes) -> bytes:
        self.requests.append(content)
        return self.registrar.admit(content, time.time_ns() + self.clock)

    def greeting(self) -> Greeting:
        root = self.identity.root.public_bytes(Encoding.DER)
        return Greeting(1, time.time_ns() + self.clock, b"", root)

    def token(self, *, name: str = "", valid: int = DAY) -> Token:
        now = time.time_ns()
        invitation, secret = self.registrar.invite("member", name, 1, valid, now)
        address = f"127.0.0.1:{self.server.port}"
        id_ = bytes.fromhex(invitation.id)
        return Token(1, (address,), root_hash(self.identity.root), id_, secret, invitation.ends, name)


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(tmp_path)
    await made.server.open("127.0.0.1", 0)
    yield made
    await made.server.close()


@pytest.mark.slow
async def test_a_node_joins_at_the_endpoint(operator: Operator) -> None:
    admission = await join(operator.token(), "lathe", KEY, time.time_ns)
    assert (admission.member.node, admission.member.role) == ("lathe", "member")
    assert admission.roots == (operator.identity.root,)


@pytest.mark.slow
async def test_the_secret_is_sent_to_no_other_fleet(operator: Operator) -> None:
    token = msgspec.structs.replace(operator.token(), root=root_hash(ROOT.certificate))
    with pytest.raises(IdentityError, match=r"the node at 127.0.0.1:\d+ is no operator of the fleet that the invitation is for"):
        await join(token, "lathe", KEY, time.time_ns)
    assert operator.requests == []


@pytest.mark.slow
async def test_the_secret_is_sent_to_no_member(operator: Operator) -> None:
    """A member of the fleet that listens at the address of the operator."""
    member = operator.fleet.certify("anvil", role="member")
    server = JoinServer(operator.admit, operator.greeting, (member / "node.pem", member / "node.key"))
    await server.open("127.0.0.1", 0)
    try:
        token = msgspec.structs.replace(operator.token(), addresses=(f"127.0.0.1:{server.port}",))
        with pytest.raises(IdentityError, match="is no operator of the fleet"):
            await join(token, "lathe", KEY, time.time_ns)
    finally:
        await server.close()
    assert operator.requests == []


@pytest.mark.slow
@pytest.mark.parametrize("off", [-365 * DAY, 365 * DAY])
async def test_a_clock_wrong_by_a_year_is_said_at_the_node(operator: Operator, off: int) -> None:
    token = operator.token()
    says = "the clock of this machine says" if off < 0 else "the invitation ended on .*, and the clock of this machine says"
    with pytest.raises(IdentityError, match=says):
        await join(token, "lathe", KEY, lambda: time.time_ns() + off)
    operator.clock = off
    with pytest.raises(IdentityError, match=r"and that of the operator 20.*: set the one that is wrong"):
        await join(token, "lathe", KEY, time.time_ns)
    assert operator.requests == []


@pytest.mark.slow
async def test_errors_of_the_operator_reach_the_node(operator: Operator) -> None:
    token = operator.token(name="lathe")
    with pytest.raises(IdentityError, match="the invitation is for lathe, not for anvil: join with --name lathe"):
        await join(token, "anvil", KEY, time.time_ns)
    with pytest.raises(IdentityError, match="no such invitation"):
        await join(msgspec.structs.replace(token, secret=bytes(16)), "lathe", KEY, time.time_ns)


async def test_an_operator_that_does_not_answer_is_named(operator: Operator) -> None:
    token = operator.token()
    await operator.server.close()
    with pytest.raises(IdentityError, match=r"no answer from the operator at 127.0.0.1:\d+ \(.*\): look whether its node runs"):
        await join(token, "lathe", KEY, time.time_ns)


@pytest.mark.slow
async def test_an_address_that_does_not_answer_is_passed_over(operator: Operator) -> None:
    token = operator.token()
    closed = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    token = msgspec.structs.replace(token, addresses=(f"127.0.0.1:{port}", *token.addresses))
    assert (await join(token, "lathe", KEY, time.time_ns)).member.node == "lathe"
    closed.close()


@pytest.mark.slow
async def test_idle_connections_of_an_address_are_bounded(operator: Operator) -> None:
    """And the endpoint serves again as soon as they go."""
    token = operator.token()
    idle = [await asyncio.open_connection("127.0.0.1", operator.server.port) for _ in range(CONNECTIONS_EACH)]
    reader, extra = await asyncio.open_connection("127.0.0.1", operator.server.port)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b"", "it is closed at once"
    extra.close()
    for _, writer in idle:
        writer.transport.abort()
    admission = None
    while admission is None:
        try:
            admission = await join(token, "lathe", KEY, time.time_ns)
        except IdentityError:  # the endpoint has not seen the end of the others yet
            await asyncio.sleep(0)
    assert admission.member.node == "lathe"


async def test_a_frame_that_is_too_long_ends_the_connection(operator: Operator) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", operator.server.port, ssl=context)
    writer.write((MAX_REQUEST + 1).to_bytes(4, "big") + b"x")
    greeting = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
    assert msgspec.msgpack.decode(greeting, type=Greeting).root
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert operator.requests == []


def test_a_forged_certificate_of_a_member_admits_nobody(tmp_path: Path) -> None:
    """The key of a member, in place of an issuing certificate."""
    member = dataclasses.replace(FORGE, certificate=LATHE.certificate, key=LATHE.key)
    chain = certify(member, "anvil", "member", KEY.public_key(), now=NOW, random=seeded(80)).public_bytes(Encoding.DER)
    with pytest.raises(IdentityError):
        read_chain(chain + LATHE.certificate.public_bytes(Encoding.DER), [ROOT.certificate])
