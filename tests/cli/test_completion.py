"""The completion scripts: the shells read them, and offer what there is at each place."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from constraint_crdt.cli import arguments, main
from constraint_crdt.cli.arguments import FIELD, SHELLS
from tests.cli.process import environment

pytestmark = pytest.mark.processes

ASK_BASH = r"""
source "$1"
COMP_WORDS=("${@:2}")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
$(complete -p constraint-crdt | sed -E 's/.*-F ([^ ]+).*/\1/')
printf '%s\n' "${COMPREPLY[@]}"
"""
"""What bash does when somebody presses the tabulator after these words."""


@pytest.fixture
def script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The script for a shell, in a file."""
    # A parser of its own: the script is made of plain names, and other tests share a parser.
    monkeypatch.setattr(arguments, "make_parser", inspect.unwrap(arguments.make_parser))
    assert main(["completion", request.param]) == 0
    path = tmp_path / "completion"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.long
@pytest.mark.parametrize("script", SHELLS, indirect=True)
def test_a_script_has_the_plain_names_of_the_fields(script: Path) -> None:
    assert FIELD not in script.read_text()


def shell(name: str) -> str:
    found = shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


@pytest.mark.long(by_day=["bash-bash"])
@pytest.mark.parametrize(("script", "name"), [(name, name) for name in SHELLS], indirect=["script"])
def test_a_shell_can_read_its_script(script: Path, name: str) -> None:
    done = subprocess.run([shell(name), "-n", script], check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long(by_day=["words0-offered0-bash"])
@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["st"], {"status", "storage"}),
        (["status", "--j"], {"--json"}),
        (["tile", "un"], {"untag"}),
        (["add", "--severity", ""], {"info", "warning", "critical"}),
        (["completion", ""], set(SHELLS)),
        (["node", "--while"], {""}),
        (["node", "--config", "a-"], {"a-file.toml"}),
        (["apply", "a-"], {"a-file.toml"}),
    ],
)
def test_bash_offers_what_there_is(script: Path, words: list[str], offered: set[str]) -> None:
    script.with_name("a-file.toml").touch()
    line = [shell("bash"), "-c", ASK_BASH, "bash", str(script), "constraint-crdt", *words]
    done = subprocess.run(line, check=True, capture_output=True, text=True, cwd=script.parent, timeout=30)
    assert {each.strip() for each in done.stdout.splitlines()} == offered, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_offers_what_there_is(script: Path) -> None:
    line = [shell("fish"), "--no-config", "-c", f"source {script}; complete -C 'constraint-crdt tile un'"]
    done = subprocess.run(line, check=True, capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("untag\t")


@pytest.mark.long
def test_no_other_command_pays_for_it() -> None:
    code = (
        "import sys; from constraint_crdt.cli import main; main(['status', '--node', '127.0.0.1:1']);"
        "print(*{'shtab', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == ""
