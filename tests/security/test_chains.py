"""Chains: certificates that the root signed, and those that an operator signed with its issuing certificate."""

import dataclasses
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.identity import (
    DAY,
    EARLIER,
    MAX_CHAIN,
    NODE_VALID,
    ROLES,
    IdentityError,
    Issuer,
    Member,
    Root,
    certify,
    create_issuer,
    create_key,
    create_root,
    fingerprint,
    read_chain,
)

from .fleets import FLEET, NOW, root_of, seeded

ROOT = root_of()
KEY = create_key(seeded(3))
OWN = create_key(seeded(39))
"""The key of the operator's node."""


def issuer_of(node: str, roles: tuple[str, ...] = ("observer", "member"), root: Root = ROOT, *, valid: int = 365 * DAY) -> Issuer:
    return create_issuer(root, node, OWN.public_key(), roles, create_key(seeded(40)), now=NOW, random=seeded(41), valid=valid)


def der(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in certificates)


def leaf(
    signer: Root | Issuer, node: str = "lathe", role: str = "member", *, valid: int = NODE_VALID, key: Ed25519PrivateKey = KEY
) -> x509.Certificate:
    return certify(signer, node, role, key.public_key(), now=NOW, random=seeded(5), valid=valid)


def with_powers(issuer: Issuer, **changes: Any) -> Issuer:
    """The same key, which claims more than its certificate says."""
    return dataclasses.replace(issuer, powers=dataclasses.replace(issuer.powers, **changes))


FORGE = issuer_of("forge")
BY_ROOT = der(leaf(ROOT))
BY_FORGE = der(leaf(FORGE), FORGE.certificate)


def test_the_root_certifies_a_member() -> None:
    mark = fingerprint(KEY.public_key())
    begins, ends = NOW - EARLIER, NOW + NODE_VALID
    root = fingerprint(ROOT.key.public_key())
    expected = Member(FLEET, "lathe", "member", KEY.public_key().public_bytes_raw(), mark, None, begins, ends, "", root)
    assert read_chain(BY_ROOT, [ROOT.certificate]) == expected


def test_an_operator_certifies_a_member() -> None:
    member = read_chain(BY_FORGE, [ROOT.certificate])
    assert (member.fleet, member.node, member.role) == (FLEET, "lathe", "member")
    assert (member.issuer, member.certified_by) == (fingerprint(OWN.public_key()), "forge")


def test_each_of_the_roots_will_do() -> None:
    other = root_of(seed=2)
    assert read_chain(BY_FORGE, [other.certificate, ROOT.certificate]).node == "lathe"
    with pytest.raises(IdentityError, match="of another fleet: its root did not sign it"):
        read_chain(BY_FORGE, [other.certificate])
    with pytest.raises(IdentityError, match="of another fleet"):
        read_chain(BY_ROOT, [])


def test_an_issuing_certificate_alone_is_no_member() -> None:
    with pytest.raises(IdentityError, match="names no node of a fleet"):
        read_chain(der(FORGE.certificate), [ROOT.certificate])


def test_a_certificate_without_its_issuer_is_refused() -> None:
    with pytest.raises(IdentityError, match="of another fleet"):
        read_chain(der(leaf(FORGE)), [ROOT.certificate])


@pytest.mark.parametrize("role", ROLES)
def test_an_operator_certifies_its_roles_and_itself(role: str) -> None:
    assert read_chain(der(leaf(FORGE, "forge", role, key=OWN), FORGE.certificate), [ROOT.certificate]).role == role
    if role == "operator":
        with pytest.raises(IdentityError, match="the operator forge may not certify lathe as operator"):
            leaf(FORGE, "lathe", role)
    else:
        assert read_chain(der(leaf(FORGE, "lathe", role), FORGE.certificate), [ROOT.certificate]).role == role


def test_a_role_beyond_those_of_the_issuer_is_refused_by_receivers() -> None:
    lying = with_powers(FORGE, roles=ROLES)
    with pytest.raises(IdentityError, match="the operator forge may not certify lathe as operator"):
        read_chain(der(leaf(lying, "lathe", "operator"), FORGE.certificate), [ROOT.certificate])
    with pytest.raises(IdentityError, match="the operator forge may not certify forge as operator"):
        read_chain(der(leaf(lying, "forge", "operator"), FORGE.certificate), [ROOT.certificate])  # with another key
    every = issuer_of("forge", ROLES)
    assert read_chain(der(leaf(every, "lathe", "operator"), every.certificate), [ROOT.certificate]).role == "operator"


def test_a_member_cannot_certify_for_others() -> None:
    """Its certificate is no authority, also if it is sent as an issuing certificate."""
    boss = leaf(ROOT, "boss", "operator")
    forged = certify(Root("plant", boss, KEY), "anvil", "member", create_key(seeded(8)).public_key(), now=NOW, random=seeded(9))
    with pytest.raises(IdentityError, match="no chain"):
        read_chain(der(forged, boss), [ROOT.certificate])


def test_an_operator_makes_no_further_issuers() -> None:
    nested = create_issuer(
        Root(FLEET, ROOT.certificate, FORGE.key),
        "anvil",
        KEY.public_key(),
        ("member",),
        create_key(seeded(50)),
        now=NOW,
        random=seeded(51),
    )
    with pytest.raises(IdentityError):
        read_chain(der(leaf(nested), nested.certificate), [ROOT.certificate])


def test_an_issuer_is_of_its_own_fleet() -> None:
    with pytest.raises(IdentityError, match="is not that of a node of the fleet plant"):
        read_chain(
            der(leaf(with_powers(dataclasses.replace(FORGE, fleet="mill"), fleet="mill")), FORGE.certificate), [ROOT.certificate]
        )


def test_a_certificate_ends_with_its_issuer() -> None:
    short = issuer_of("forge", valid=3 * DAY)
    assert read_chain(der(leaf(short), short.certificate), [ROOT.certificate]).ends == NOW + 3 * DAY
    long = der(leaf(FORGE), short.certificate)  # the same key and name
    with pytest.raises(IdentityError, match="valid at times when its issuer is not"):
        read_chain(long, [ROOT.certificate])


def test_an_ended_issuer_certifies_nothing() -> None:
    with pytest.raises(IdentityError, match="of forge for certifying others ended"):
        certify(FORGE, "lathe", "member", KEY.public_key(), now=NOW + 366 * DAY, random=seeded(5))


@pytest.mark.parametrize(
    "chain", [b"", b"x", BY_ROOT[:-1], BY_ROOT + b"x", BY_FORGE + BY_ROOT, BY_ROOT * 2, bytes(MAX_CHAIN), BY_ROOT[:2]]
)
def test_another_content_is_no_chain(chain: bytes) -> None:
    with pytest.raises(IdentityError):
        read_chain(chain, [ROOT.certificate])


@given(st.binary(max_size=600))
def test_random_bytes_are_no_chain(content: bytes) -> None:
    with pytest.raises(IdentityError):
        read_chain(content, [ROOT.certificate])


@given(st.sampled_from([BY_ROOT, BY_FORGE]), st.data())
def test_a_changed_chain_is_refused(chain: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(chain) - 1))
    changed = chain[:at] + bytes([chain[at] ^ data.draw(st.integers(1, 255))]) + chain[at + 1 :]
    with pytest.raises(IdentityError):
        read_chain(changed, [ROOT.certificate])


@pytest.mark.parametrize("unused", range(1, 8))
def test_a_chain_has_one_encoding(unused: int) -> None:
    """The defect: unused bits declared at the end of a signature were taken, where the bits are 0."""
    for chain, signature in ((BY_ROOT, BY_ROOT[-64:]), (BY_FORGE, BY_FORGE[-64:]), (BY_FORGE, leaf(FORGE).signature)):
        at = chain.index(signature) - 1
        with pytest.raises(IdentityError):
            read_chain(chain[:at] + bytes([unused]) + chain[at + 1 :], [ROOT.certificate])


def test_the_longest_names_make_a_chain_in_bounds() -> None:
    root = create_root("f" * 63, now=NOW, random=seeded(1))
    issuer = issuer_of("n" * 63, ROLES, root)
    chain = der(leaf(issuer, "m" * 63, "operator"), issuer.certificate)
    assert len(chain) <= MAX_CHAIN
    assert read_chain(chain, [root.certificate]).node == "m" * 63


def test_an_operator_that_certifies_itself_does_not_choose_its_place_in_the_order() -> None:
    """Of two operators who revoke each other the earlier one stays."""
    late = certify(FORGE, "forge", "operator", OWN.public_key(), now=NOW + 20 * DAY, random=seeded(5), valid=30 * DAY)
    chain = der(late, FORGE.certificate)
    member = read_chain(chain, (ROOT.certificate,))
    assert member.begins > member.since == read_chain(BY_ROOT, (ROOT.certificate,)).since
    other = read_chain(der(leaf(FORGE), FORGE.certificate), (ROOT.certificate,))
    assert other.since == other.begins
