"""Real processes: one store has one, and `kill -9` at any moment costs nothing that was acknowledged."""

import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from constraint_crdt.store import StoreError
from constraint_crdt.types.counters import COUNTS, counts_value
from tests.conftest import BUDGET, SEED
from tests.store.disk import copy_store, loaded, open_store

pytestmark = pytest.mark.processes

KILLS = 200 if BUDGET == "nightly" else 3
ROOT = Path(__file__).parents[2]


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    """A writer process on a store."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.writer_process", str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def killed(process: subprocess.Popen[str]) -> list[str]:
    """What else it said until it was killed. `communicate` would leave out what is in the buffer of `readline`."""
    assert process.stdout is not None
    process.kill()
    rest = process.stdout.read()
    process.wait()
    return rest.splitlines(keepends=True)


def test_the_second_process_is_refused_naming_the_first_until_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with start(path, "hold") as first:
        try:
            assert told(first) == "open\n"
            with pytest.raises(StoreError) as caught:
                open_store(path)
        finally:
            killed(first)
    assert re.fullmatch(
        rf"the store {path} is in use by process {first.pid} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC: "
        r"stop that one first, or give --store another path",
        str(caught.value),
    )
    open_store(path).close()


@pytest.mark.long
def test_what_was_acknowledged_survives_kill_9_and_no_dot_is_used_twice(tmp_path: Path) -> None:
    path, random = tmp_path / "a.db", Random(SEED)
    acknowledged: dict[tuple[int, int], int] = {}
    for _ in range(KILLS):
        with start(path) as process:
            lines = [told(process) for _ in range(random.randrange(12))]
            lines += killed(process)
        for line in lines:
            if line != "open\n" and line.endswith("\n"):
                incarnation, seq, value = map(int, line.split())
                assert acknowledged.setdefault((incarnation, seq), value) == value, f"a dot was used twice, seed {SEED}"
        if not path.exists():
            continue  # killed before there was one
        image = path.with_name("image.db")  # opening the store itself would renew its session
        copy_store(path, image)
        store = open_store(image)
        held = {(cell.replica.incarnation, cell.seq): counts_value(cell)[0] for cell in loaded(store).each(COUNTS)}
        store.close()
        assert {dot: held.get(dot) for dot in acknowledged} == acknowledged, f"seed {SEED}"
    assert len(acknowledged) > KILLS
