"""The settings about recent evaluations: half-lives from each source, and what is wrong with them."""

from pathlib import Path

import pytest

from constraint_crdt.runtime.settings import SettingsError, load_settings


def test_half_lives_come_from_the_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("half_lives = [60, 7.5]\nrate_every = 2\n")
    settings = load_settings({}, {}, file)
    assert (settings.half_lives, settings.rate_every) == ((60.0, 7.5), 2.0)
    settings = load_settings({}, {"CONSTRAINT_CRDT_HALF_LIVES": "30, 86400,"}, file)
    assert (settings.half_lives, settings.rate_every) == ((30.0, 86_400.0), 2.0)
    assert load_settings({}, {}).half_lives == (60.0, 300.0, 3600.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "half-lives are 1 to 8 different numbers of seconds"),
        ("[60, 60.0]", "half-lives are 1 to 8 different"),
        ("[1, 2, 3, 4, 5, 6, 7, 8, 9]", "half-lives are 1 to 8 different"),
        ("[0]", "a half-life is from 0.001 to"),
        ("[nan]", "a half-life is from 0.001 to"),
        ("[inf]", "a half-life is from 0.001 to"),
        ('["5m"]', "is not a list of numbers of seconds"),
        ("60", "is not a list of numbers of seconds"),
    ],
)
def test_half_lives_that_cannot_be_are_named_with_their_source(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"half_lives = {text}\n")
    with pytest.raises(SettingsError, match=rf"`half_lives` in .*node.toml: .*{says}"):
        load_settings({}, {}, file)
    with pytest.raises(SettingsError, match=r"CONSTRAINT_CRDT_HALF_LIVES: .* is not a list of numbers of seconds"):
        load_settings({}, {"CONSTRAINT_CRDT_HALF_LIVES": "5m"})
