"""What `import constraint_crdt` costs: CPU, and what it drags in."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

MUST_NOT_LOAD = {
    "zenoh",
    "starlette",
    "uvicorn",
    "cel_expr_python",
    "asyncio",
    "rich",
    "psutil",
    "sqlite3",
    "http",
    "ssl",
    "argparse",
}
CPU_MS = 60
RUNS = 5


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_importing_the_package_loads_no_engine_server_or_event_loop() -> None:
    loaded = run("import sys, constraint_crdt; constraint_crdt.GossipNode; print(*sys.modules)").split()
    assert "constraint_crdt.protocol.gossip_node" in loaded
    assert MUST_NOT_LOAD.isdisjoint(loaded)


def test_importing_the_package_costs_at_most_60_ms() -> None:
    """CPU beside that of starting Python; the best of several runs, as the others measure who else uses the machine."""
    measure = "import time; before = time.process_time(); import constraint_crdt; print(time.process_time() - before)"
    assert min(1000 * float(run(measure)) for _ in range(RUNS)) <= CPU_MS


def test_compiling_an_expression_loads_the_library_and_nothing_else_heavy() -> None:
    code = "import sys; from constraint_crdt.expression import compile_expression; compile_expression('x < 1'); print(*sys.modules)"
    loaded = run(code).split()
    assert "cel_expr_python.cel" in loaded
    assert {"typer", "click", "rich", "prompt_toolkit", "pydantic", "google.protobuf"}.isdisjoint(loaded)
