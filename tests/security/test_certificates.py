"""Certificates and proofs, without files and without a clock."""

import base64
import dataclasses
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.identity import (
    DAY,
    EARLIER,
    MAX_PROOF,
    NODE_VALID,
    Identity,
    IdentityError,
    Root,
    Subject,
    certify,
    create_key,
    create_request,
    create_root,
    key_pem,
    read_identity,
    read_request,
    read_root,
    read_subject,
)

from .fleets import FLEET, NOW, root_of, seeded

PUBLIC = bytes(range(32))
SESSION = "0123456789abcdef01234567"
ROOT = root_of()


def identity_of(node: str, root: Root = ROOT, *, seed: int = 7, now: int = NOW, role: str = "member") -> Identity:
    key = create_key(seeded(seed))
    certificate = certify(root, node, role, key.public_key(), now=now, random=seeded(seed + 1))
    return read_identity(root.pem, certificate.public_bytes(Encoding.PEM), key_pem(key))


FORGE = identity_of("forge")
PROOF = FORGE.prove(SESSION, PUBLIC)


def test_equal_arguments_make_equal_certificates() -> None:
    assert root_of().pem == root_of().pem
    assert identity_of("forge").certificate_pem == FORGE.certificate_pem
    assert identity_of("forge", seed=8).certificate_pem != FORGE.certificate_pem


def test_a_certificate_names_fleet_role_and_node() -> None:
    assert FORGE.subject == Subject(FLEET, "member", "forge")
    assert identity_of("anvil", role="operator").subject == Subject(FLEET, "operator", "anvil")
    common = FORGE.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [each.value for each in common] == ["forge"], "Zenoh and its access control read this name"


def test_a_root_comes_back_from_its_files() -> None:
    again = read_root(ROOT.pem, key_pem(ROOT.key))
    assert (again.fleet, again.pem) == (FLEET, ROOT.pem)
    with pytest.raises(IdentityError, match="do not belong together"):
        read_root(ROOT.pem, key_pem(create_key(seeded(3))))


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (-EARLIER, None),
        (-EARLIER - 2 * 10**9, "is valid from 2026-.* UTC, and the clock of this machine says .*: set the clock"),
        (-365 * DAY, "is valid from 2026-.*, and the clock of this machine says 2025-.*: set the clock"),
        (NODE_VALID, None),
        (NODE_VALID + 2 * 10**9, "of forge ended on 2026-.*: certify it again .*, or set the clock if it is wrong"),
        (365 * DAY, "of forge ended on 2026-.*, and the clock of this machine says 2027-"),
    ],
)
def test_the_validity_is_told_with_the_clock(later: int, says: str | None) -> None:
    trouble = FORGE.validity(NOW + later)
    if says is None:
        assert trouble is None
    else:
        assert trouble is not None
        assert re.search(says, trouble)


def test_a_root_that_ended_certifies_nothing() -> None:
    with pytest.raises(IdentityError, match="the root of plant ended"):
        identity_of("forge", now=NOW + 4000 * DAY)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", ".x", "-x", "é", "x" * 64, "a\0b", "a\n"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(IdentityError, match="the name of a fleet in a certificate"):
        create_root(name, now=NOW, random=seeded(1))
    with pytest.raises(IdentityError, match="the name of a node in a certificate"):
        identity_of(name)
    with pytest.raises(IdentityError, match="the name of a node in a certificate"):
        create_request(name, create_key(seeded(1)))


def test_a_role_that_there_is_not_is_refused() -> None:
    with pytest.raises(IdentityError, match="'king' is no role: take one of observer, member, operator"):
        identity_of("forge", role="king")


@pytest.mark.parametrize("valid", [0, 10**9 - 1, 3650 * DAY + 1])
def test_a_validity_out_of_bounds_is_refused(valid: int) -> None:
    with pytest.raises(IdentityError, match="valid for 1 s to 3650 days"):
        certify(ROOT, "forge", "member", create_key(seeded(1)).public_key(), now=NOW, random=seeded(2), valid=valid)


# --- what does not belong together -----------------------------------------------------------------------------------------------


def test_a_certificate_of_another_root_is_refused_also_under_the_same_names() -> None:
    other = root_of(seed=2)
    with pytest.raises(IdentityError, match="of another fleet: its root did not sign it"):
        read_identity(other.pem, FORGE.certificate_pem, FORGE.key_pem)


def test_a_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(IdentityError, match=r"not the key of the certificate, which is of forge"):
        read_identity(ROOT.pem, FORGE.certificate_pem, key_pem(create_key(seeded(9))))


def signed_by(signer: Root, common_name: str, uris: list[str]) -> x509.Certificate:
    """A certificate with any names."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    model = certify(signer, "forge", "member", create_key(seeded(7)).public_key(), now=NOW, random=seeded(4))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(signer.certificate.subject)
        .public_key(model.public_key())
        .serial_number(7)
        .not_valid_before(model.not_valid_before_utc)
        .not_valid_after(model.not_valid_after_utc)
    )
    return (builder.add_extension(names, critical=False) if uris else builder).sign(signer.key, None)


@pytest.mark.parametrize(
    ("common_name", "uris"),
    [
        ("anvil", ["constraint-crdt://plant/member/forge"]),
        ("forge", ["constraint-crdt://plant/member/forge", "constraint-crdt://plant/operator/forge"]),
        ("forge", ["constraint-crdt://plant/king/forge"]),
        ("forge", ["https://plant/member/forge"]),
        ("forge", []),
    ],
)
def test_names_that_do_not_agree_are_refused(common_name: str, uris: list[str]) -> None:
    with pytest.raises(IdentityError, match="names no node of a fleet"):
        read_subject(signed_by(ROOT, common_name, uris), ROOT.certificate)


def test_the_names_are_taken_where_they_agree() -> None:
    found = read_subject(signed_by(ROOT, "forge", ["constraint-crdt://plant/member/forge"]), ROOT.certificate)
    assert found == Subject(FLEET, "member", "forge")


def test_a_member_cannot_certify() -> None:
    """Its certificate is no authority: what its key signs is of another issuer."""
    forged = dataclasses.replace(ROOT, certificate=FORGE.certificate, key=FORGE.key)
    certificate = certify(forged, "boss", "operator", create_key(seeded(5)).public_key(), now=NOW, random=seeded(6))
    with pytest.raises(IdentityError, match="another fleet"):
        read_subject(certificate, ROOT.certificate)


# --- requests -------------------------------------------------------------------------------------------------------------------


def test_a_request_gives_its_name_and_key() -> None:
    key = create_key(seeded(4))
    node, public = read_request(create_request("lathe", key))
    assert (node, public) == ("lathe", key.public_key())


def test_a_request_of_another_kind_of_key_is_refused() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lathe")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(generate_private_key(SECP256R1()), SHA256())
    with pytest.raises(IdentityError, match="not signed by an Ed25519 key"):
        read_request(request.public_bytes(Encoding.PEM))


@pytest.mark.parametrize("content", [b"", b"nonsense", FORGE.certificate_pem, FORGE.key_pem])
def test_another_file_is_no_request(content: bytes) -> None:
    with pytest.raises(IdentityError, match="that is no request for a certificate"):
        read_request(content)


# --- proofs ---------------------------------------------------------------------------------------------------------------------


def test_a_proof_convinces_the_fleet_of_one_name_and_session() -> None:
    anvil = identity_of("anvil", seed=20)
    assert anvil.proves(PROOF, "forge", SESSION, NOW) == PUBLIC
    assert not anvil.proves(PROOF, "anvil", SESSION, NOW)
    assert not anvil.proves(PROOF, "forge", SESSION.replace("0", "1"), NOW)


def test_a_proof_of_another_name_another_fleet_or_another_time_convinces_nobody() -> None:
    anvil = identity_of("anvil", seed=20)
    assert not anvil.proves(anvil.prove(SESSION, PUBLIC), "forge", SESSION, NOW)
    assert not anvil.proves(identity_of("forge", root_of(seed=2)).prove(SESSION, PUBLIC), "forge", SESSION, NOW)
    assert not anvil.proves(identity_of("forge", root_of("other")).prove(SESSION, PUBLIC), "forge", SESSION, NOW)
    assert not anvil.proves(PROOF, "forge", SESSION, NOW + 31 * DAY)
    assert not anvil.proves(PROOF, "forge", SESSION, NOW - DAY)


def test_a_certificate_without_the_key_proves_nothing() -> None:
    thief = dataclasses.replace(FORGE, key=create_key(seeded(30)))
    assert not FORGE.proves(thief.prove(SESSION, PUBLIC), "forge", SESSION, NOW)


@given(st.one_of(st.text(max_size=400), st.binary(max_size=400).map(lambda content: content.hex())))
def test_any_text_is_no_proof(text: str) -> None:
    assert not FORGE.proves(text, "forge", SESSION, NOW)


@given(st.integers(0, len(PROOF) - 2), st.sampled_from("ABCDxyz09-_"))
def test_a_changed_proof_is_none(place: int, letter: str) -> None:
    changed = PROOF[:place] + letter + PROOF[place + 1 :]
    assert FORGE.proves(changed, "forge", SESSION, NOW) == (PUBLIC if changed == PROOF else None)


def test_a_proof_is_short() -> None:
    longest = identity_of("n" * 63, create_root("f" * 63, now=NOW, random=seeded(1)))
    assert len(longest.prove(SESSION, PUBLIC)) < MAX_PROOF
    assert not longest.proves("A" * (MAX_PROOF + 1), "n" * 63, SESSION, NOW)


def test_a_certificate_that_the_library_warns_of_is_no_proof() -> None:
    """The defect: a serial number of 0 in a stranger's proof raised the library's warning, where warnings are errors."""
    certificate = base64.urlsafe_b64decode(PROOF + "=" * (-len(PROOF) % 4))
    at = certificate.index(bytes((2, 19))) + 2
    changed = certificate[:at] + bytes((0xFF,)) + certificate[at + 1 :]
    assert not FORGE.proves(base64.urlsafe_b64encode(changed).decode().rstrip("="), "forge", SESSION, NOW)
