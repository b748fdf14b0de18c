"""A root that follows another: the statements, and which roots are known and accepted."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.identity import (
    DAY,
    MAX_CHAIN,
    MAX_ROOTS,
    SECOND,
    IdentityError,
    Root,
    accepted_roots,
    certify,
    create_root,
    fingerprint,
    key_pem,
    known_roots,
    read_chain,
    read_rotation,
    rotate,
)
from constraint_crdt.identity.directory import (
    certify_node,
    create_fleet,
    load_identity,
    load_issuer,
    open_root,
    read_rotations,
    rotate_root,
    save_rotations,
)

from .fleets import FLEET, NOW, root_of, seeded
from .test_chains import KEY, der, leaf

OLD = root_of()
LATER = NOW + 60 * SECOND
NEW, STATEMENT = rotate(OLD, both=7 * DAY, now=LATER, random=seeded(60))
NEWEST, SECOND_STATEMENT = rotate(NEW, both=DAY, now=NOW + 20 * DAY, random=seeded(61))


@pytest.mark.parametrize("anchor", [OLD, NEW, NEWEST])
def test_each_root_leads_to_the_others(anchor: Root) -> None:
    known = known_roots([anchor.certificate], [SECOND_STATEMENT, STATEMENT])
    assert [each.public_key() for each in known] == [each.key.public_key() for each in (NEWEST, NEW, OLD)]


def test_the_former_root_is_accepted_for_links_until_the_end() -> None:
    known, statements = known_roots([OLD.certificate], [STATEMENT]), [STATEMENT]
    assert len(accepted_roots(known, statements, NOW)) == 2
    assert len(accepted_roots(known, statements, LATER + 7 * DAY - 1)) == 2
    assert accepted_roots(known, statements, LATER + 7 * DAY) == (NEW.certificate,)


@pytest.mark.parametrize("anchor", [OLD, NEW])
def test_what_the_former_root_signed_stays_readable_whatever_the_anchor(anchor: Root) -> None:
    chain = der(leaf(OLD))
    assert read_chain(chain, known_roots([anchor.certificate], [STATEMENT])) == read_chain(chain, [OLD.certificate])


def test_the_root_of_another_fleet_leads_nowhere() -> None:
    stranger = root_of(seed=9)
    with pytest.raises(IdentityError, match="on the roots of another fleet"):
        read_rotation(STATEMENT, [stranger.certificate])
    assert known_roots([stranger.certificate], [STATEMENT]) == (stranger.certificate,)


def test_an_operator_cannot_replace_the_root() -> None:
    """Its own root is not signed by that of the fleet, and none of the two can be left out of a statement."""
    own, statement = rotate(root_of(seed=9), both=DAY, now=NOW, random=seeded(62))
    root, cross, back = (statement[a:b] for a, b in _bounds(statement))
    mine = _bounds(STATEMENT)
    for forged in (statement, root + cross + STATEMENT[slice(*mine[2])], root + STATEMENT[slice(*mine[1])] + back):
        assert known_roots([OLD.certificate], [forged]) == (OLD.certificate,)
    assert own.fleet == FLEET


def _bounds(statement: bytes) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < len(statement):
        end = at + 4 + int.from_bytes(statement[at + 2 : at + 4], "big")
        found.append((at, end))
        at = end
    return found


@given(st.data())
def test_a_changed_statement_leads_nowhere(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(STATEMENT) - 1))
    changed = STATEMENT[:at] + bytes([STATEMENT[at] ^ data.draw(st.integers(1, 255))]) + STATEMENT[at + 1 :]
    assert known_roots([OLD.certificate], [changed]) == (OLD.certificate,)


@given(st.binary(max_size=400))
def test_random_bytes_are_no_statement(content: bytes) -> None:
    with pytest.raises(IdentityError):
        read_rotation(content, [OLD.certificate])


@pytest.mark.slow
def test_the_roots_of_a_fleet_are_bounded() -> None:
    root, statements = OLD, []
    for turn in range(MAX_ROOTS + 3):
        root, statement = rotate(root, both=DAY, now=NOW + turn * DAY, random=seeded(70 + turn))
        statements.append(statement)
    assert len(known_roots([OLD.certificate], statements)) == MAX_ROOTS


def test_a_statement_of_the_longest_name_is_in_bounds() -> None:
    _, statement = rotate(create_root("f" * 63, now=NOW, random=seeded(1)), both=DAY, now=NOW, random=seeded(2))
    assert len(statement) <= MAX_CHAIN


def test_a_root_that_ended_is_followed_by_none() -> None:
    with pytest.raises(IdentityError, match="the root of plant ended"):
        rotate(OLD, both=DAY, now=NOW + 4000 * DAY, random=seeded(3))


# --- files ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    create_fleet(tmp_path / "plant", FLEET, now=NOW, random=seeded(1))
    return tmp_path / "plant"


@pytest.mark.slow
def test_a_rotation_of_files_certifies_the_operators_again(plant: Path) -> None:
    for node, role in (("forge", "operator"), ("lathe", "member")):
        certify_node(plant, open_root(plant), node, role, now=NOW, random=seeded(5))
    old = open_root(plant)
    root, operators = rotate_root(plant, both=7 * DAY, now=NOW + DAY, random=seeded(6))
    assert [each.name for each in operators] == ["forge"]
    assert open_root(plant).certificate == root.certificate
    kept = plant / f"root-{fingerprint(old.key.public_key())[:8]}.key"
    assert kept.read_bytes() == key_pem(old.key)
    forge = load_identity(plant / "forge", NOW + DAY)
    assert forge.root == old.certificate, "others do not know the new root yet"
    assert len(forge.roots) == 2
    assert len(load_identity(plant / "forge", NOW + 9 * DAY).roots) == 1
    issuer = load_issuer(plant / "forge", forge)
    assert issuer is not None
    lathe = certify(issuer, "lathe", "member", KEY.public_key(), now=NOW + DAY, random=seeded(7))
    assert read_chain(der(lathe, issuer.certificate), [root.certificate]).node == "lathe"


def test_a_node_takes_a_statement_into_its_folder(plant: Path) -> None:
    own = certify_node(plant, open_root(plant), "lathe", "member", now=NOW, random=seeded(5))
    before = load_identity(own, NOW)
    rotate_root(plant, both=7 * DAY, now=NOW, random=seeded(6))
    statements = read_rotations(plant)
    save_rotations(own, statements, known_roots(before.known, statements))
    after = load_identity(own, NOW)
    assert len(after.roots) == 2
    assert after.root == before.root
    assert after.certificate.public_bytes(Encoding.DER) == before.certificate.public_bytes(Encoding.DER)
