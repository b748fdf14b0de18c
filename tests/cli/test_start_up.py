"""`--help` answers at once, and loads nothing that only a node needs."""

import resource
import subprocess
import sys

import pytest

from tests.cli.process import command, environment

pytestmark = pytest.mark.processes

HELP_CPU_SECONDS = 0.150


def _cpu_of_help() -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command("--help"), check=True, stdout=subprocess.DEVNULL, env=environment())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_takes_150_ms_of_cpu_at_most() -> None:
    _cpu_of_help()  # the first one may have to write the bytecode
    assert min(_cpu_of_help() for _ in range(5)) <= HELP_CPU_SECONDS


def test_a_reading_command_loads_no_server_and_no_engine() -> None:
    code = (
        "import sys; from constraint_crdt.cli.main import main; main(['status', '--node', '127.0.0.1:1']);"
        "print(*{'zenoh', 'starlette', 'uvicorn', 'cel', 'psutil', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == ""
    assert "no node answers" in done.stderr
