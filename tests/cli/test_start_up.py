"""`--help` answers at once, and loads nothing that only a node needs."""

import resource
import subprocess
import sys

import pytest

from tests.cli.process import command, environment
from tests.conftest import BUDGET

pytestmark = pytest.mark.processes

HELP_CPU_SECONDS = 0.150 if BUDGET == "nightly" else 0.300
"""Of a machine at rest. On one whose cores are shared the same work takes up to 1.6 times the CPU time."""

HELP_TO_BARE = 10
"""The CPU time of the help relative to an interpreter that does nothing: both take longer on a machine whose cores are shared."""

RUNS = 10
"""At most, until one is within the bound: the least of them counts."""


def _cpu_of(*line: str) -> float:
    cached = {key: value for key, value in environment().items() if key != "PYTHONDONTWRITEBYTECODE"}  # compiling takes longer
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=cached)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.long
def test_help_takes_little_cpu() -> None:
    _cpu_of(*command("--help"))  # the first run writes the bytecode
    took = []
    for _ in range(RUNS):
        took.append((_cpu_of(*command("--help")), _cpu_of(sys.executable, "-c", "pass")))
        least, bare = map(min, zip(*took, strict=True))
        if least <= max(HELP_CPU_SECONDS, HELP_TO_BARE * bare):
            return
    pytest.fail(f"{least:.3f} s in the best of {RUNS} runs, and {bare:.3f} s for an interpreter that does nothing")


@pytest.mark.long
def test_a_reading_command_loads_no_server_and_no_engine() -> None:
    code = (
        "import sys; from constraint_crdt.cli import main; main(['status', '--node', '127.0.0.1:1']);"
        "print(*{'zenoh', 'starlette', 'uvicorn', 'httptools', 'cel', 'psutil', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == ""
    assert "no node answers" in done.stderr
