"""Settings: which source wins, and that a wrong value or key is named with where it came from."""

import math
import socket
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest

from constraint_crdt.runtime.settings import (
    BOUNDS,
    NodeSettings,
    SettingsError,
    VariableSettings,
    load_settings,
    parse_address,
)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('name = "file"\nfleet = "file"\nmax_age = 5\nlisten = ["tcp/127.0.0.1:1"]\n')
    env = {"CONSTRAINT_CRDT_NAME": "env", "CONSTRAINT_CRDT_FLEET": "env", "HOME": "/"}
    settings = load_settings({"name": "flag", "fleet": None, "listen": None}, env, file)
    assert (settings.name, settings.fleet, settings.max_age, settings.listen) == ("flag", "env", 5.0, ("tcp/127.0.0.1:1",))
    assert settings.gossip_every == NodeSettings().gossip_every


ON_DISK = NodeSettings(store="default")
"""What the command line starts with: a node that is embedded keeps its state in memory unless told otherwise, this one does not."""


def test_nothing_given_is_the_default() -> None:
    assert load_settings({}, {}) == ON_DISK
    assert load_settings({"store": None}, {"CONSTRAINT_CRDT_STORE": "memory"}) == NodeSettings()
    assert NodeSettings().store == "memory"
    assert NodeSettings().name == socket.gethostname()


def test_the_environment_gives_lists_and_numbers_as_text() -> None:
    env = {"CONSTRAINT_CRDT_CONNECT": "tcp/a:1, tcp/b:2,", "CONSTRAINT_CRDT_CHECK_EVERY": "0.5", "CONSTRAINT_CRDT_PROBE": "none"}
    settings = load_settings({}, env)
    assert (settings.connect, settings.check_every, settings.probe) == (("tcp/a:1", "tcp/b:2"), 0.5, ())


@pytest.mark.parametrize("text", ['labels = { zone = "a", rack = "3" }', 'labels = ["zone=a", "rack=3"]'])
def test_labels_come_as_a_table_or_a_list(tmp_path: Path, text: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    wanted = {"zone": "a", "rack": "3"}
    assert load_settings({}, {}, file).labels == wanted
    assert load_settings({}, {"CONSTRAINT_CRDT_LABELS": "zone=a, rack=3"}).labels == wanted
    assert load_settings({"labels": ["zone=a=b"]}, {}, file).labels == {"zone": "a=b"}
    assert load_settings({"labels": None}, {}).labels == {}


def test_a_site_is_a_label(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('site = "berlin"\nlabels = { zone = "a" }')
    assert load_settings({}, {}, file).all_labels == {"zone": "a", "site": "berlin"}
    assert load_settings({"site": "rome"}, {"CONSTRAINT_CRDT_SITE": "paris"}, file).all_labels == {"zone": "a", "site": "rome"}
    assert load_settings({}, {"CONSTRAINT_CRDT_SITE": "paris"}).all_labels == {"site": "paris"}
    assert load_settings({}, {}).all_labels == {}
    assert load_settings({"site": "rome", "labels": ["site=rome"]}, {}).all_labels == {"site": "rome"}
    with pytest.raises(SettingsError, match="`site` is 'rome', and the label `site` is 'berlin': they mean the same"):
        load_settings({"site": "rome", "labels": ["site=berlin"]}, {})
    with pytest.raises(SettingsError, match="--site: ") as caught:
        load_settings({"site": "x" * 257}, {})
    assert caught.value.from_flag


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('labels = ["zone"]', "`labels` in .*'zone' is not a label: give KEY=VALUE"),
        ("labels = [1]", "1 is not a label"),
        (
            'listen = ["tcp/127.0.0.1:70000"]',
            "`listen` in .*cannot use the endpoint 'tcp/127.0.0.1:70000'; write it as tcp/HOST:PORT",
        ),
        ('connect = ["forge:7447"]', "`connect` in .*cannot use the endpoint 'forge:7447'; write it as tcp/HOST:PORT"),
        ("labels = { zone = 1 }", "`labels` in .* is not a table of labels"),
        ('labels = { zone = "" }', "`labels` in .*the value of the label zone must have 1 to 256 bytes"),
        ('labels = "zone=a"', "is not a table of labels"),
        ("chek_every = 1", "`chek_every`.*`check_every` may be meant"),
        ("zzz = 1", "`zzz`.*there are accept_plain, action, alert, api"),
        ('check_every = "1"', "`check_every` in .*node.toml: '1' is not a number of seconds"),
        ("check_every = 0", "`check_every` in .*: check_every must be from 0.01"),
        ("max_age = nan", "max_age"),
        ('listen = "tcp/x:1"', "`listen` in .* is not a list of texts"),
        ('peer_choice = "best"', "`peer_choice` in .*'best' is not one of auto, uniform, near"),
        ('role = "king"', "`role` in .*'king' is not one of auto, peer, router, client"),
        ("name = ", "node.toml is not TOML"),
        (f"a = {'[' * 5_000}", "nested too deep"),
        (f"max_age = {'9' * 5_000}", "thousands of digits"),
        (f"max_age = {'9' * 400}", "max_age"),
        ('fleet = ""', "`fleet` in .*name of a fleet"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings({}, {}, file)
    assert not caught.value.from_flag


def test_variables_have_tables_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('[variables.speed_mps]\nmax_age = "1.5m"\n[variables."robot.speed"]\nmax_age = 2\n[variables.load]\n')
    found = load_settings({}, {}, file).variables
    assert {name: each.max_age for name, each in found.items()} == {"speed_mps": 90.0, "robot.speed": 2.0, "load": None}
    assert load_settings({}, {}).variables == {}
    assert NodeSettings(variables=found).variables == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[variables."a b"]',
            r"`variables` in .*node.toml: \[variables.\"a b\"\]: no expression can read a measurement named 'a b'",
        ),
        ("[variables.true]", r"\[variables.true\]: .*a reserved word"),
        ("[variables.x]\nmaxage = 1", r"\[variables.x\]: there is no key `maxage`: `max_age` may be meant"),
        (
            "[variables.x]\nmax_age = true",
            r"\[variables.x\]: max_age must be a number of seconds, or a text such as '5s', not True",
        ),
        ('[variables.x]\nmax_age = "5 parsecs"', r"\[variables.x\]: '5 parsecs' is not a length of time"),
        ("[variables.x]\nmax_age = 0", r"\[variables.x\]: max_age must be from 0.01 to 86400 seconds, not 0"),
        ("[variables.x]\nmax_age = nan", r"\[variables.x\]: max_age must be from 0.01"),
        ('[variables.x]\nmax_age = "2d"', r"\[variables.x\]: max_age must be from 0.01 to 86400 seconds, not 172800.0"),
        ("variables = 1", "each under .variables.NAME."),
        ("variables = { x = 1 }", "each under .variables.NAME."),
    ],
)
def test_a_mistake_in_the_table_of_a_variable_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load_settings({}, {}, file)


def test_variables_are_not_for_the_environment_and_are_checked_in_programs() -> None:
    with pytest.raises(SettingsError, match="CONSTRAINT_CRDT_VARIABLES: variables are given in the settings file only"):
        load_settings({}, {"CONSTRAINT_CRDT_VARIABLES": "x"})
    with pytest.raises(SettingsError, match=r"\[variables.x\]: max_age must be from 0.01"):
        NodeSettings(variables={"x": VariableSettings(max_age=-1.0)})


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings"):
        load_settings({}, {}, tmp_path / "nope.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"is not TOML: it is not text in UTF-8$"):
        load_settings({}, {}, tmp_path / "bytes.toml")


def test_a_mistake_in_the_environment_is_named() -> None:
    with pytest.raises(SettingsError, match="CONSTRAINT_CRDT_MAX_AGE: 'old' is not a number"):
        load_settings({}, {"CONSTRAINT_CRDT_MAX_AGE": "old"})
    with pytest.raises(SettingsError, match=r"CONSTRAINT_CRDT_LISTNE.*CONSTRAINT_CRDT_LISTEN is meant"):
        load_settings({}, {"CONSTRAINT_CRDT_LISTNE": "x"})


@pytest.mark.parametrize("variable", ["NODE", "CONFIG", "BUDGET", "PORT", "SERVICE_HOST", "PORT_8470_TCP_ADDR"])
def test_variables_of_others_are_left_alone(variable: str) -> None:
    """The client, the tests, and container platforms use the same prefix."""
    assert load_settings({}, {f"CONSTRAINT_CRDT_{variable}": "whatever"}) == ON_DISK


def test_a_mistake_in_a_flag_says_so() -> None:
    with pytest.raises(SettingsError, match="--gossip-every: ") as caught:
        load_settings({"gossip_every": "-1"}, {})
    assert caught.value.from_flag


@pytest.mark.parametrize("key", sorted(BOUNDS))
def test_times_are_bounded_also_without_a_source(key: str) -> None:
    lowest, highest = BOUNDS[key]
    for value in (lowest, highest):
        msgspec.structs.replace(NodeSettings(), **{key: value})
    for value in (-1.0, lowest - 0.001, highest * 2, math.nan, math.inf):
        with pytest.raises(SettingsError, match=key):
            msgspec.structs.replace(NodeSettings(), **{key: value})


NUMERIC = [key for key, type_ in get_type_hints(NodeSettings).items() if type_ in (int, float)]


@pytest.mark.parametrize("key", NUMERIC)
def test_each_number_has_bounds(key: str) -> None:
    for value in (-1, 10**30):
        with pytest.raises(SettingsError, match=key):
            msgspec.structs.replace(NodeSettings(), **{key: value})


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:8470", ("127.0.0.1", 8470)), ("[::1]:0", ("::1", 0)), ("forge:65535", ("forge", 65535))]
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "8470", ":8470", "forge", "forge:", "forge:x", "::1:8470", "forge:-1", "forge:\u0661"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize("port", ["65536", "9" * 5_000])
def test_a_port_that_no_machine_has_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match="above 65535"):
        parse_address(f"forge:{port}")
