"""The files of identities: who may read them, and the sentence for each way in which they do not fit together."""

import errno
import os
import re
import shutil
import stat
import time
from pathlib import Path

import pytest

from constraint_crdt.identity import DAY, IdentityError
from constraint_crdt.identity.directory import (
    certify_request,
    create_fleet,
    find_fleet,
    is_open_to_others,
    load_identity,
    open_root,
    read_defaults,
    tls_context,
    write_request,
)

from .fleets import NOW, Fleet, seeded


@pytest.fixture
def plant(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "plant")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def refusal(folder: Path, now: int | None = None) -> str:
    with pytest.raises(IdentityError) as refused:
        load_identity(folder, time.time_ns() if now is None else now)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_keys_are_for_their_owner_alone(plant: Fleet) -> None:
    forge = plant.certify("forge", role="member")
    assert names_in(forge) == {"ca.pem", "node.pem", "node.key", "identity.toml"}
    assert names_in(plant.folder) == {"ca.pem", "root.key", "forge"}
    for key in (plant.folder / "root.key", forge / "node.key"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(forge.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_read_or_write_is_refused(plant: Fleet, mode: int) -> None:
    forge = plant.certify("forge")
    (forge / "node.key").chmod(mode)
    assert refusal(forge) == (
        f"others on this machine can read or write the key {forge / 'node.key'}: `chmod 600 {forge / 'node.key'}` first"
    )
    (plant.folder / "root.key").chmod(mode)
    with pytest.raises(IdentityError, match="chmod 600"):
        open_root(plant.folder)


def test_the_key_of_an_issuing_certificate_is_for_its_owner_alone(plant: Fleet) -> None:
    forge = plant.certify("forge")
    (forge / "issuer.key").chmod(0o644)
    assert "chmod 600" in refusal(forge)
    assert "issuer.key" in refusal(forge)


@pytest.mark.parametrize(("mode", "is_open"), [(0o700, False), (0o755, False), (0o775, True), (0o777, True)])
def test_a_folder_where_others_can_replace_a_key_is_found(plant: Fleet, mode: int, is_open: bool) -> None:
    forge = plant.certify("forge")
    forge.chmod(mode)
    assert is_open_to_others(forge) == is_open


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("listens = []", "there is no setting `listens`, as in .*node.toml: it has `listen` and `connect`"),
        ('listen = "tcp/127.0.0.1:0"', "`listen` in .*node.toml is not a list of texts"),
        ("connect = [1]", "`connect` in .*node.toml is not a list of texts"),
    ],
)
def test_defaults_that_are_mistyped_are_refused(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "node.toml").write_text(content)
    with pytest.raises(IdentityError, match=says):
        read_defaults(tmp_path)


def test_an_identity_comes_back(plant: Fleet) -> None:
    identity = load_identity(plant.certify("forge", role="member"), time.time_ns())
    assert (identity.subject.fleet, identity.subject.role, identity.subject.node) == ("plant", "member", "forge")
    assert 29 * DAY < identity.ends - time.time_ns() <= 30 * DAY


def test_a_root_is_never_overwritten(plant: Fleet) -> None:
    before = (plant.folder / "root.key").read_bytes()
    with pytest.raises(IdentityError, match="has the root of a fleet already: name another folder with --dir"):
        create_fleet(plant.folder, "plant", now=NOW, random=seeded(1))
    assert (plant.folder / "root.key").read_bytes() == before


def test_certified_again_a_node_keeps_its_key(plant: Fleet) -> None:
    forge = plant.certify("forge", valid=DAY)
    key, certificate = (forge / "node.key").read_bytes(), (forge / "node.pem").read_bytes()
    plant.certify("forge")
    assert (forge / "node.key").read_bytes() == key
    assert (forge / "node.pem").read_bytes() != certificate
    assert load_identity(forge, plant.made_at + 20 * DAY).subject.node == "forge"


# --- what does not fit together -------------------------------------------------------------------------------------------------


def test_a_folder_without_an_identity_is_named_with_the_way_out(plant: Fleet, tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"there is no identity in {tmp_path / 'nowhere'}: `constraint-crdt fleet certify NAME` makes one"
    )
    assert "has the root of a fleet, not an identity: name the folder of a node in it" in refusal(plant.folder)
    write_request(tmp_path / "lathe", "lathe", tmp_path / "lathe.csr", random=plant.random)
    assert "has a key and no certificate yet: have the request certified" in refusal(tmp_path / "lathe")


def test_the_files_of_two_nodes_are_refused(plant: Fleet) -> None:
    forge, anvil = plant.certify("forge"), plant.certify("anvil")
    shutil.copy(anvil / "node.key", forge / "node.key")
    assert "the key is not the key of the certificate, which is of forge" in refusal(forge)
    shutil.copy(anvil / "node.pem", forge / "node.pem")
    assert re.search(r"node.pem is of node anvil, and .*identity.toml of forge: copy the files of one identity", refusal(forge))


def test_the_files_of_two_fleets_are_refused(plant: Fleet, tmp_path: Path) -> None:
    other = Fleet(tmp_path / "other")
    forge = plant.certify("forge")
    shutil.copy(other.folder / "ca.pem", forge / "ca.pem")
    assert "the certificate is of another fleet: its root did not sign it" in refusal(forge)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("node.pem", "no certificate in PEM"),
        ("ca.pem", "no certificate in PEM"),
        ("node.key", "no private key of Ed25519 in PEM"),
        ("identity.toml", "is not TOML"),
    ],
)
def test_a_damaged_file_is_named(plant: Fleet, file: str, says: str) -> None:
    forge = plant.certify("forge")
    (forge / file).write_bytes(b"\xff\x00 nonsense")
    (forge / file).chmod(0o600)
    assert str(forge) in refusal(forge)
    assert says in refusal(forge)


@pytest.mark.parametrize("file", ["ca.pem", "node.key"])
def test_a_missing_file_is_named(plant: Fleet, file: str) -> None:
    forge = plant.certify("forge")
    (forge / file).unlink()
    assert refusal(forge) == f"cannot read {forge / file}: No such file or directory"


def test_an_ended_certificate_and_a_clock_wrong_by_a_year_are_told(plant: Fleet) -> None:
    forge = plant.certify("forge")
    assert "the certificate of forge ended on" in refusal(forge, plant.made_at + 31 * DAY)
    assert "set the clock of this machine" in refusal(forge, plant.made_at - 365 * DAY)


def test_a_disk_without_room_leaves_no_half_identity(plant: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.certify("forge")
    before = {path.name: path.read_bytes() for path in (plant.folder / "forge").iterdir()}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match=r"cannot write .*node.key: No space left on device; name another folder, or make room"):
        plant.certify("anvil")
    assert names_in(plant.folder / "anvil") == set()
    with pytest.raises(IdentityError, match="No space left on device"):
        plant.certify("forge")
    assert {path.name: path.read_bytes() for path in (plant.folder / "forge").iterdir()} == before


def test_a_place_where_no_folder_can_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match=r"cannot make .*: Not a directory; name another folder"):
        create_fleet(tmp_path / "file" / "plant", "plant", now=NOW, random=seeded(1))


# --- requests -------------------------------------------------------------------------------------------------------------------


def test_a_request_makes_an_identity_whose_key_never_left_its_machine(plant: Fleet, tmp_path: Path) -> None:
    lathe, request = tmp_path / "lathe", tmp_path / "lathe.csr"
    write_request(lathe, "lathe", request, random=plant.random)
    assert b"PRIVATE" not in request.read_bytes()
    made = certify_request(plant.folder, plant.root, request, "operator", now=plant.made_at, random=plant.random)
    assert names_in(made) == {"ca.pem", "node.pem", "identity.toml", "issuer.pem", "issuer.key"}
    for name in names_in(made):
        shutil.copy(made / name, lathe / name)
    assert load_identity(lathe, plant.made_at).subject.role == "operator"
    key = (lathe / "node.key").read_bytes()
    write_request(lathe, "lathe", request, random=plant.random)
    assert (lathe / "node.key").read_bytes() == key, "a later request asks for the same key"


def test_a_request_does_not_take_the_name_of_an_identity_made_here(plant: Fleet, tmp_path: Path) -> None:
    plant.certify("forge")
    write_request(tmp_path / "forge", "forge", tmp_path / "forge.csr", random=plant.random)
    with pytest.raises(IdentityError, match="has an identity called forge already"):
        certify_request(plant.folder, plant.root, tmp_path / "forge.csr", "member", now=NOW, random=plant.random)


# --- where the root is ----------------------------------------------------------------------------------------------------------


def test_the_root_is_found_here_or_in_the_only_folder_that_has_one(plant: Fleet, tmp_path: Path) -> None:
    assert find_fleet(None, tmp_path) == plant.folder
    assert find_fleet(None, plant.folder) == plant.folder
    assert find_fleet(plant.folder, Path("/")) == plant.folder
    Fleet(tmp_path / "other")
    with pytest.raises(IdentityError, match=r"several fleets are here \(other, plant\): name the folder"):
        find_fleet(None, tmp_path)
    with pytest.raises(IdentityError, match="no fleet is here: name the folder"):
        find_fleet(None, plant.certify("forge"))
    with pytest.raises(IdentityError, match=r"has no root.key: name the folder that `constraint-crdt fleet create` made"):
        find_fleet(tmp_path, tmp_path)


def test_tls_needs_files(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cannot use the identity in"):
        tls_context(tmp_path)
