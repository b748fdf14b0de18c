"""`[[alert]]` in a settings file: what is taken, and that a mistake is named and no secret is repeated."""

import re
from pathlib import Path

import pytest

from constraint_crdt.alerts import KINDS, AlertRule, shown_place
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, load_settings

ROOT = Path(__file__).parents[2]

FILE = """
[[alert]]
name = "hot"
kind = "rate"
constraint = "thermal*"
half_life = 60
above = 6
for = 30
to = ["log", "https://ops.example:8443/hook/T0KEN?key=T0KEN"]

[[alert]]
name = "unheard"
kind = "coverage"
"""


def test_the_rules_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(FILE)
    hot, unheard = load_settings({}, {}, file).alert
    assert (hot.constraint, hot.half_life, hot.above, hot.lasts) == ("thermal*", 60.0, 6.0, 30.0)
    assert (unheard.lasts, unheard.to) == (10.0, ("log",))
    assert (hot.is_about(constraint="thermal_1"), hot.is_about(constraint="x")) == (True, False)
    assert [shown_place(place) for place in hot.to] == ["log", "https://ops.example:8443/…"]


def test_lengths_of_time_are_written_as_in_constraints(tmp_path: Path) -> None:
    """The defect: *Expected `float | null`, got `str` - at `$.for`*."""
    file = tmp_path / "node.toml"
    file.write_text(FILE.replace("half_life = 60", "half_life = '1m'").replace("for = 30", "for = '30s'"))
    hot = load_settings({}, {}, file).alert[0]
    assert (hot.half_life, hot.lasts) == (60.0, 30.0)


def test_the_rules_that_the_docs_show(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    (block,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "docs" / "how-to" / "alerts.md").read_text(), re.DOTALL | re.MULTILINE)
    file.write_text(block)
    assert [rule.kind for rule in load_settings({}, {}, file).alert] == list(KINDS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[alert]\nname = 'x'", "double brackets"),
        ("alert = 3", "double brackets"),
        ("[[alert]]\nkind = 'silence'", "alert 1: `name` is missing"),
        ("[[alert]]\nname = 'x'", r"alert 1 \(x\): `kind` is missing"),
        ("[[alert]]\nname = 5\nkind = 'silence'", "alert 1: `name` must be a text"),
        ("[[alert]]\nname = 'x'\nkind = 'unknwon'", r"alert 1 \(x\): there is no kind 'unknwon': 'unknown' may be meant"),
        (
            "[[alert]]\nname = 'x'\nkind = 'noise'",
            "there is no kind 'noise': there are rate, coverage, divergence, silence, unknown",
        ),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nfor = [5]", r"alert 1 \(x\): `for` must be a number"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nto = 'log'", r"`to` must be a list of texts, as in \[\"log\"\]"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nabov = 1", "no field `abov`: `above` may be meant"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nabove = 1", "`above` means nothing to kind silence, which takes node"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\non = 'zone in'", r"expected `\(` after `in` at character 8"),
        ("[[alert]]\nname = 'x'\nkind = 'rate'\non = 'zone=a'", "`on` means nothing to kind rate"),
        ("[[alert]]\nname = 'x'\nkind = 'rate'", "takes one of `above`"),
        ("[[alert]]\nname = 'x'\nkind = 'rate'\nabove = 1\nabove_share = 0.5", "takes one of `above`"),
        ("[[alert]]\nname = 'x'\nkind = 'rate'\nabove_share = 1.5", "above_share"),
        ("[[alert]]\nname = 'x'\nkind = 'rate'\nabove = nan", "`above` must be"),
        (
            "[[alert]]\nname = 'x'\nkind = 'rate'\nabove = 1\nhalf_life = 7",
            "`half_life` must be one that is tracked: 60, 300, 3600",
        ),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nfor = -1", "`for` must be"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nfor = '1h30m'", r"alert 1 \(x\): '1h30m' is not a length of time: give"),
        ("[[alert]]\nname = ''\nkind = 'silence'", "`name` must have"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\nto = []", "`to` takes 1 to 8"),
        ("[[alert]]\nname = 'x'\nkind = 'silence'\n[[alert]]\nname = 'x'\nkind = 'silence'", "two alerts are called 'x'"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load_settings({}, {}, file)


@pytest.mark.parametrize(
    "place", ["ftp://x/s3cret", "s3cret", "http://u:s3cret@host/", "http:///s3cret", "http://h:x/s3cret", "http://[s3cret"]
)
def test_an_address_that_is_none_is_refused_without_being_repeated(place: str) -> None:
    with pytest.raises(SettingsError, match="`to`") as caught:
        NodeSettings(alert=(AlertRule(name="x", kind="silence", to=(place,)),))
    assert "s3cret" not in str(caught.value)


def test_they_are_in_the_file_only() -> None:
    with pytest.raises(SettingsError, match=r"CONSTRAINT_CRDT_ALERT: .*settings file only"):
        load_settings({}, {"CONSTRAINT_CRDT_ALERT": "x"})
