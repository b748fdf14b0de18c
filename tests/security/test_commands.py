"""The commands on fleets and identities: what they say, and their exit codes."""

import re
from pathlib import Path

import pytest

from constraint_crdt.cli.main import main
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
        (["certify", "forge", "--dir", "nowhere"], 1, "nowhere has no root.key"),
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
        (["--identity", "nowhere"], 1, "there is no identity in nowhere"),
        (["--identity", "plant"], 1, "plant has the root of a fleet, not an identity"),
        (["--identity", "plant/forge", "--name", "anvil"], 2, "is of the node forge, not anvil: leave out `name`"),
        (["--identity", "plant/forge", "--fleet", "other"], 2, "is of the fleet plant, not other: leave out `fleet`"),
        (["--listen", "tcp/0.0.0.0:0"], 1, r"can be reached from other machines: give the node an identity .* or `insecure`"),
        (["--listen", "tls/127.0.0.1:0"], 1, "needs an identity"),
        (["--name", "a/b", "--request", "x.csr"], 2, "the name of a node in a certificate has"),
        (["--name", "x", "--request", "x"], 2, "are both called x: name the folder with --identity"),
        (["--name", "x", "--request", "no/such/x.csr", "--identity", "y"], 1, "cannot write no/such/x.csr: No such file"),
    ],
)
def test_a_node_that_cannot_start_says_why(
    capsys: pytest.CaptureFixture[str], here: Path, flags: list[str], code: int, says: str
) -> None:
    Fleet(here / "plant").certify("forge")
    found, said = run(capsys, "node", "--api", "127.0.0.1:0", "--store", "memory", *flags)
    assert (found, said.count("\n")) == (code, 1), said
    assert re.search(says, said), said


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
