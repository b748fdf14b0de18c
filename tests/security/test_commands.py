"""The commands on fleets and identities: what they say, and their exit codes."""

import argparse
import re
import socket
import time
from pathlib import Path

import pytest

from constraint_crdt.cli import main
from constraint_crdt.cli.membership import join
from constraint_crdt.cli.node import default_identity
from constraint_crdt.identity import DAY
from constraint_crdt.identity.directory import load_identity, open_root
from constraint_crdt.identity.invitations import Token, encode_token, root_hash
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, is_loopback, load_settings

from .fleets import Fleet


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """The exit code, and everything that was said."""
    try:
        code = main(argv)
    except SystemExit as end:
        code = int(str(end.code))
    out, err = capsys.readouterr()
    return code, out + err


def test_two_commands_make_an_identity(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "fleet", "create", "plant")
    assert code == 0
    assert "keep plant/root.key secret" in said
    assert "next: `constraint-crdt fleet certify NAME`" in said
    code, said = run(capsys, "fleet", "certify", "forge", "--role", "operator", "--valid", "2h")
    assert code == 0
    assert said.startswith("plant/forge: forge is operator of the fleet plant until ")
    assert "next: copy each folder" in said
    assert "node --identity FOLDER" in said


def test_one_command_certifies_a_fleet(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    run(capsys, "fleet", "create", "plant", "--dir", "keys")
    code, said = run(capsys, "fleet", "certify", "forge", "anvil", "lathe")
    assert (code, said.count("is member of the fleet plant until")) == (0, 3)
    assert {path.name for path in (here / "keys").iterdir() if path.is_dir()} == {"forge", "anvil", "lathe"}


def test_a_request_is_certified_where_the_root_is(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "fleet", "create", "plant")
    code, said = run(capsys, "node", "--name", "lathe", "--request", "lathe.csr")
    assert code == 0
    assert said.startswith("lathe.csr: a request for a certificate of lathe; the key is in lathe and stays there")
    code, said = run(capsys, "fleet", "certify", "lathe.csr")
    assert code == 0
    assert "copy the files of a request into the folder of its key" in said


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["create", "a/b"], 2, "the name of a fleet in a certificate has"),
        (["create", "plant"], 1, "plant has the root of a fleet already"),
        (["certify", "a b"], 2, "the name of a node in a certificate has"),
        (["certify", "forge", "--role", "king"], 2, "'king' is no role"),
        (["certify", "forge", "--valid", "soon"], 2, "'soon' is not a length of time"),
        (["certify", "forge", "--valid", "20000d"], 1, "valid for 1 s to 3650 days"),
        (["certify", "forge", "--dir", "nowhere"], 2, "nowhere has no root.key"),
        (["rotate", "--both", "9m"], 2, "--both takes 10m or longer, not 9m"),
        (["rotate", "--both", "7000"], 2, "--both takes a time with its unit, as in 7d, not 7000"),
        (["certify", "lathe.csr"], 2, "there is no file lathe.csr: name the file of a request, or a node"),
        (["certify", "plant/ca.pem"], 1, "plant/ca.pem: that is no request for a certificate"),
    ],
)
def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str], argv: list[str], code: int, says: str) -> None:
    run(capsys, "fleet", "create", "plant")
    found, said = run(capsys, "fleet", *argv)
    assert (found, said.count("\n")) == (code, 1), said
    assert said.startswith("constraint-crdt fleet: ")
    assert says in said


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--identity", "nowhere"], 2, "there is no identity in nowhere"),
        (["--identity", "plant"], 2, "plant has the root of a fleet, not an identity"),
        (["--identity", "plant/forge", "--name", "anvil"], 2, "is of the node forge, not anvil: leave out `name`"),
        (["--identity", "plant/forge", "--fleet", "other"], 2, "is of the fleet plant, not other: leave out `fleet`"),
        (["--listen", "tcp/0.0.0.0:0"], 2, r"can be reached from other machines: give the node an identity .* or `insecure`"),
        (["--listen", "tls/127.0.0.1:0"], 2, "needs an identity"),
        (["--connect", "tls/127.0.0.1:7"], 2, "needs an identity"),
        (["--accept-plain"], 2, "`accept_plain` is for a node with an identity"),
        (["--config", "listens.toml"], 2, "can be reached from other machines"),
        (["--name", "a/b", "--request", "x.csr"], 2, "the name of a node in a certificate has"),
        (["--name", "x", "--request", "x"], 2, "are both called x: name the folder with --identity"),
        (["--name", "x", "--request", "no/such/x.csr", "--identity", "y"], 1, "cannot write no/such/x.csr: No such file"),
    ],
)
def test_a_node_that_cannot_start_says_why(
    capsys: pytest.CaptureFixture[str], here: Path, flags: list[str], code: int, says: str
) -> None:
    Fleet(here / "plant").certify("forge")
    (here / "listens.toml").write_text('listen = ["tcp/0.0.0.0:0"]\n')
    found, said = run(capsys, "node", "--api", "127.0.0.1:0", "--store", "memory", *flags)
    assert (found, said.count("\n")) == (code, 1), said
    assert re.search(says, said), said


def test_a_mistyped_file_or_several_fleets_are_misuse(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    for name in ("plant", "mill"):
        run(capsys, "fleet", "create", name)
    for command in ("certify", "renew"):
        code, said = run(capsys, "fleet", command, "forge")
        assert (code, said.count("\n")) == (2, 1)
        assert "several fleets are here (mill, plant): name the folder of the fleet with --dir" in said
    assert not list(here.glob("*/forge"))


def test_a_key_that_is_kept_is_named(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    run(capsys, "fleet", "create", "plant")
    _, said = run(capsys, "fleet", "certify", "lathe")
    assert "keeps its key" not in said
    _, said = run(capsys, "fleet", "certify", "lathe")
    key = load_identity(here / "plant" / "lathe", time.time_ns()).member.fingerprint[:12]
    assert f"lathe keeps its key {key}: if that is revoked, delete plant/lathe first, for a new key" in said


# --- where a node may listen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["tcp/127.0.0.1:0", "tcp/127.9.9.9:1", "tcp/[::1]:0", "tcp/localhost:7447", "tls/127.0.0.1:1"])
def test_loopback_needs_nothing(endpoint: str) -> None:
    assert is_loopback(endpoint)
    assert NodeSettings(listen=(endpoint,)).links == "loopback"


@pytest.mark.parametrize("endpoint", ["tcp/0.0.0.0:0", "tcp/[::]:7447", "tcp/192.0.2.7:1", "tcp/forge.example:1"])
def test_any_other_address_needs_an_identity_or_a_word(endpoint: str) -> None:
    with pytest.raises(SettingsError, match=r"give the node an identity \(`identity`, --identity FOLDER\), or `insecure`"):
        NodeSettings(listen=(endpoint,))
    assert NodeSettings(listen=(endpoint,), insecure=True).links == "none"
    assert NodeSettings(listen=(endpoint,), identity="plant/forge").links == "certificates"


def test_links_to_other_machines_without_certificates_are_called_unprotected() -> None:
    assert NodeSettings(connect=("tcp/192.0.2.7:7447",)).links == "none"
    assert NodeSettings(insecure=True).links == "loopback"


def test_the_names_of_an_identity_are_the_defaults() -> None:
    settings = load_settings({"identity": "x"}, {}, names_of=lambda folder: (f"node of {folder}", "plant"))
    assert (settings.name, settings.fleet) == ("node of x", "plant")
    with pytest.raises(SettingsError, match="is of the fleet plant, not factory") as refused:
        load_settings({}, {"CONSTRAINT_CRDT_IDENTITY": "x", "CONSTRAINT_CRDT_FLEET": "factory"}, names_of=lambda _: ("a", "plant"))
    assert not refused.value.from_flag


# --- renewal, rotation and joining ----------------------------------------------------------------------------------------------


def test_a_certificate_of_an_operator_says_what_it_is_for(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    run(capsys, "fleet", "create", "plant")
    _, said = run(capsys, "fleet", "certify", "forge", "--role", "operator")
    assert "a node of an operator certifies others: run `constraint-crdt fleet invite` there" in said
    run(capsys, "fleet", "create", "mill", "--operators-certify", "none")
    _, said = run(capsys, "fleet", "certify", "forge", "--role", "operator", "--dir", "mill")
    assert "certifies others" not in said
    assert not (here / "mill" / "forge" / "issuer.pem").exists()


@pytest.mark.slow
def test_a_lower_role_ends_the_certifying_and_says_that_the_former_certificate_stays(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    run(capsys, "fleet", "create", "plant")
    _, said = run(capsys, "fleet", "certify", "forge", "anvil", "--role", "operator")
    assert "revoke" not in said
    _, said = run(capsys, "fleet", "certify", "forge")
    assert "forge was operator: its former certificate is good until its end for anyone who has it" in said
    assert "run `constraint-crdt fleet revoke forge`, delete plant/forge, and certify forge again" in said
    assert "certifies others" not in said
    assert not list((here / "plant" / "forge").glob("issuer.*"))
    assert len(list((here / "plant" / "anvil").glob("issuer.*"))) == 2


def test_a_node_is_certified_again_with_its_key_and_role(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    run(capsys, "fleet", "create", "plant")
    run(capsys, "fleet", "certify", "forge", "--role", "operator")
    key, certificate = (here / "plant" / "forge" / name for name in ("node.key", "node.pem"))
    before = key.read_bytes(), certificate.read_bytes()
    code, said = run(capsys, "fleet", "renew", "forge", "--valid", "3d")
    assert code == 0
    assert said.startswith("plant/forge: forge is operator of the fleet plant until ")
    assert "copy the certificates (*.pem) into the folders of the nodes, which take them without a restart" in said
    assert key.read_bytes() == before[0]
    assert certificate.read_bytes() != before[1]
    code, said = run(capsys, "fleet", "renew", "anvil")
    assert (code, said.count("\n")) == (1, 1)
    assert "plant/anvil has no certificate to renew: make one with `constraint-crdt fleet certify anvil`" in said


@pytest.mark.slow
def test_a_rotation_says_what_to_copy(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    run(capsys, "fleet", "create", "plant")
    code, said = run(capsys, "fleet", "rotate")
    assert code == 0
    assert "no operator certifies: run `constraint-crdt fleet renew NODE` for each node" in said
    run(capsys, "fleet", "certify", "forge", "--role", "operator")
    code, said = run(capsys, "fleet", "rotate", "--both", "2d")
    assert code == 0
    assert said.startswith("plant: a new root of the fleet plant, valid until ")
    assert "next: copy ca.pem, rotations.pem and issuer.pem of plant/forge into the folder of forge, which needs no restart" in said
    assert len(list((here / "plant").glob("root-*.key"))) == 2
    code, said = run(capsys, "fleet", "certify", "lathe")
    assert code == 0
    assert load_identity(here / "plant" / "lathe", time.time_ns()).root == open_root(here / "plant").certificate


def token_for(fleet: Fleet, *, ends: int = DAY, name: str = "") -> str:
    """An invitation to an address where nothing answers."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    root = root_hash(fleet.root.certificate)
    return encode_token(Token(1, (address,), root, bytes(8), bytes(16), time.time_ns() + ends, name))


def test_a_text_that_is_no_token_is_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("x", token_for(Fleet(Path("plant")))[:-3]):
        code, said = run(capsys, "node", "--join", text)
        assert (code, said.count("\n")) == (2, 1)
        assert "that is no invitation: paste the whole token that `constraint-crdt fleet invite` printed" in said


@pytest.mark.slow
def test_joining_fails_in_one_sentence(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    plant, other = Fleet(here / "plant"), Fleet(here / "other")
    readable = here / "readable"
    readable.mkdir()
    (readable / "node.key").write_bytes((plant.certify("anvil") / "node.key").read_bytes())
    (readable / "node.key").chmod(0o644)
    (here / "file").write_text("")
    for folder, token, says in [
        ("new", token_for(plant), r"no answer from the operator at 127.0.0.1:\d+ \(.*\): look whether its node runs"),
        (
            "new",
            token_for(plant, ends=-DAY),
            "the invitation ended on .*, and the clock of this machine says .*: ask for a new one",
        ),
        ("plant", token_for(plant), "plant has the root of a fleet: name another folder with --identity"),
        (
            "plant/anvil",
            token_for(other),
            "plant/anvil has the identity of anvil in the fleet plant, and the invitation is of another",
        ),
        ("readable", token_for(plant), "others on this machine can read or write the key readable/node.key: `chmod 600"),
        ("file", token_for(plant), "cannot make file: File exists; name another folder, or make room"),
    ]:
        code, said = run(capsys, "node", "--join", token, "--identity", folder, "--name", "lathe")
        assert code == 1, said
        assert re.search(says, said.splitlines()[-1]), said
    key = (here / "new" / "node.key").read_bytes()
    run(capsys, "node", "--join", token_for(plant), "--identity", "new", "--name", "lathe")
    assert (here / "new" / "node.key").read_bytes() == key, "another try is for the same key"


def test_a_node_that_belongs_already_uses_no_invitation(here: Path) -> None:
    plant = Fleet(here / "plant")
    arguments = argparse.Namespace(
        join=token_for(plant), identity=str(plant.certify("forge")), name=None, fleet=None, listen=None, connect=None
    )
    assert join(arguments) == here / "plant" / "forge"


@pytest.mark.parametrize(
    ("flags", "named", "code", "says"),
    [
        (["--name", "anvil"], "", 1, "the invitation is of another node, anvil: name a folder for anvil with --identity"),
        ([], "anvil", 1, "the invitation is of another node, anvil: name a folder for anvil with --identity"),
        (["--fleet", "mill"], "", 2, "has the identity of forge in the fleet plant, not in mill: leave out --fleet"),
    ],
)
def test_a_folder_is_of_one_node(
    capsys: pytest.CaptureFixture[str], here: Path, flags: list[str], named: str, code: int, says: str
) -> None:
    plant = Fleet(here / "plant")
    own = plant.certify("forge")
    before = (own / "node.pem").read_bytes()
    found, said = run(capsys, "node", "--identity", str(own), "--join", token_for(plant, name=named), *flags)
    assert (found, said.count("\n")) == (code, 1), said
    assert says in said
    assert (own / "node.pem").read_bytes() == before


def test_a_node_whose_certificate_ended_joins_again_with_its_key_and_name(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """It asks the operator, where one with a valid certificate does not."""
    plant = Fleet(here / "plant", age=40 * 86_400)
    own = plant.certify("forge")
    key = (own / "node.key").read_bytes()
    code, said = run(capsys, "node", "--identity", str(own), "--store", "memory")
    assert code == 1
    assert "the certificate of forge ended on" in said
    assert "certify it again (`constraint-crdt node --join` with a new invitation" in said
    code, said = run(capsys, "node", "--identity", str(own), "--join", token_for(plant))
    assert code == 1
    assert "no answer from the operator" in said
    assert (own / "node.key").read_bytes() == key


def test_the_identity_of_a_joined_node_is_used_by_later_starts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
    folder = default_identity()
    assert folder == here / "state" / "constraint-crdt" / "identity"
    defaults = {"listen": ["tcp/127.0.0.1:7447"], "connect": ["tls/127.0.0.1:7448"]}
    read = {"names_of": lambda _: ("lathe", "plant"), "defaults_of": lambda _: defaults, "default_identity": str(folder)}
    settings = load_settings({}, {}, **read)  # type: ignore[arg-type]
    assert (settings.identity, settings.name, settings.connect) == (str(folder), "lathe", ("tls/127.0.0.1:7448",))
    assert load_settings({"listen": ["tcp/127.0.0.1:1"]}, {}, **read).listen == ("tcp/127.0.0.1:1",)  # type: ignore[arg-type]
    for other in ({"name": "anvil"}, {"fleet": "mill"}, {"insecure": True}):
        assert load_settings(other, {}, **read).identity == ""  # type: ignore[arg-type]
