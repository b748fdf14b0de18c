"""The tables `[[source]]`: what is taken, and the sentence for what is not."""

from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, VariableSettings, load_settings
from constraint_crdt.sources import KINDS, read_sources
from tests.source.counterparts import source


def test_a_table_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        '[[source]]\nname = "ups"\nkind = "command"\ncommand = ["upsc", "ups"]\nformat = "pairs"\nevery = "1m"\n'
        'fields = { battery_percent = "battery.charge", left_s = { path = "battery.runtime", unknown = [-1], scale = 2 } }\n'
    )
    [ups] = load_settings({}, {}, file).source
    assert (ups.period, ups.lasts, ups.payload_format) == (60.0, 180.0, "pairs")
    assert ups.fields["battery_percent"].path == "battery.charge"
    assert (ups.fields["left_s"].unknown, ups.fields["left_s"].scale) == ((-1,), 2.0)


def test_the_maximum_age_of_a_variable_has_precedence_over_that_of_its_source() -> None:
    made = source(kind="file", file="/x", max_age=90, fields={"x": "a", "y": "b", "z_{1}": "c"})
    settings = NodeSettings(source=(made,), variables={"y": VariableSettings(max_age=5.0), "other": VariableSettings()})
    assert settings.max_ages == {"x": 90.0, "y": 5.0}


def test_the_environment_has_no_sources() -> None:
    with pytest.raises(SettingsError, match=r"CONSTRAINT_CRDT_SOURCE: sources are given in the settings file only"):
        load_settings({}, {"CONSTRAINT_CRDT_SOURCE": "x"})


def test_every_kind_has_a_table_that_is_taken() -> None:
    needed: dict[str, Any] = {
        "command": ["true"], "url": "http://h/x", "file": "/x", "topics": ["a/+"], "keys": ["a/**"], "address": "udpin::1",
    }  # fmt: skip
    for name, kind in KINDS.items():
        given = {key: "mqtt://h" if (name, key) == ("mqtt", "url") else needed[key] for key in kind.needs}
        assert source(kind=name, **given, fields={"x": "a"}).lasts >= 30.0


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"kind": "command"}, r"source 's': kind command needs `command`"),
        ({"kind": "comand", "command": ["x"]}, r"there is no kind 'comand': `command` may be meant"),
        ({"kind": "command", "comand": ["x"]}, r"source 1 \(s\): there is no key `comand`: `command` may be meant"),
        ({"kind": "command", "command": "x y"}, r"`command` must be a list of texts"),
        ({"kind": "command", "command": ["x"], "url": "http://h"}, r"`url` means nothing to kind command"),
        ({"kind": "command", "command": ["x"], "format": "xml"}, r"there is no format 'xml' for kind command"),
        ({"kind": "command", "command": ["x"], "every": "1 week"}, r"source 1 \(s\)"),
        ({"kind": "command", "command": ["x"], "every": 0}, r"`every` must be from 0.05 to 86400 seconds"),
        ({"kind": "command", "command": ["x"], "most": 0}, r"`most` must be from 1 to 10000"),
        ({"kind": "command", "command": ["x"], "fields": {"a b": "x"}}, r"no expression can read a measurement named 'a b'"),
        ({"kind": "command", "command": ["x"], "fields": {"a": {"pth": "x"}}}, r"a: there is no key `pth`: `path` may be meant"),
        ({"kind": "command", "command": ["x"], "fields": {"a": {}}}, r"a has no `path`"),
        ({"kind": "command", "command": ["x"], "fields": {"a": {"path": "x", "scale": 0}}}, r"only `offset` may be 0"),
        ({"kind": "command", "command": ["x"], "fields": {"a": {"path": "x", "wraps_at": 8}}}, r"set `rate = true`"),
        ({"kind": "http", "url": "ftp://h"}, r"`url` must be http://HOST or https://HOST"),
        ({"kind": "http", "url": "http://me:pw@h"}, r"an address with a password"),
        ({"kind": "http", "url": "http://h", "ca": "x.pem"}, r"for TLS: write https://"),
        ({"kind": "prometheus", "url": "http://h"}, r"kind prometheus needs `fields`"),
        ({"kind": "mqtt", "url": "mqtt://h", "topics": []}, r"kind mqtt needs `topics`"),
        ({"kind": "mqtt", "url": "mqtts://h", "topics": ["a"], "certificate": "c"}, r"`certificate` and `key` belong together"),
        ({"kind": "zenoh", "keys": ["a"], "format": "ros2"}, r"a `type` belongs to the format ros2"),
    ],
)
def test_a_wrong_table_gets_a_sentence(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConstraintCrdtError, match=sentence) as found:
        source(**table)
    assert "me:pw" not in str(found.value)


def test_two_sources_have_two_names() -> None:
    table = {"name": "x", "kind": "file", "file": "/x"}
    with pytest.raises(ConstraintCrdtError, match="two sources are called 'x'"):
        read_sources([table, table])
