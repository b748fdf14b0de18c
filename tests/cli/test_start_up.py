"""`--help` answers at once, and loads nothing that only a node needs."""

import resource
import subprocess
import sys

import pytest

from tests.cli.process import command, environment

pytestmark = pytest.mark.processes

HELP_CPU_SECONDS = 0.150

HELP_TO_BARE = 10
"""The CPU time of the help relative to an interpreter that does nothing: both take longer on a machine whose cores are shared."""


def _cpu_of(*line: str) -> float:
    cached = {key: value for key, value in environment().items() if key != "PYTHONDONTWRITEBYTECODE"}  # compiling takes longer
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=cached)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_150_ms_of_cpu_at_most() -> None:
    _cpu_of(*command("--help"))  # the first run writes the bytecode
    pairs = [(_cpu_of(*command("--help")), _cpu_of(sys.executable, "-c", "pass")) for _ in range(5)]
    bare = min(bare for _, bare in pairs)
    assert min(cpu for cpu, _ in pairs) <= max(HELP_CPU_SECONDS, HELP_TO_BARE * bare)


def test_a_reading_command_loads_no_server_and_no_engine() -> None:
    code = (
        "import sys; from constraint_crdt.cli import main; main(['status', '--node', '127.0.0.1:1']);"
        "print(*{'zenoh', 'starlette', 'uvicorn', 'httptools', 'cel', 'psutil', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == ""
    assert "no node answers" in done.stderr
