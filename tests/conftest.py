"""How much the tests do, and which of them are quick.

CONSTRAINT_CRDT_BUDGET is one of three:

- `default`, by day: tests marked `long` are skipped before their fixtures are set up, and properties draw few examples;
- `full`, before a merge: every test;
- `nightly`: every test, with the large numbers of examples, histories and kills.

Rules kept here:

- A test is `quick` unless it is marked `processes`, `browser`, `slow` or `long`, or uses a fixture that is (`FIXTURES`).
- A quick test that starts a process fails, by whatever call of the standard library, but for `multiprocessing` with *spawn*, which
  tells of none.
- A quick run does not import a test module that is marked as a whole.
- A quick run takes `QUICK_CASES` of the cases of a parametrized test: another in each run, as the seed of the order draws it.
- In a quick run, a test that takes more than `QUICK_SECONDS` of processor time is named at the end, and one that takes more than
  `SLOW_SECONDS` fails. Elapsed time would depend on how busy the machine is.
"""

import gc
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

BUDGET = os.environ.get("CONSTRAINT_CRDT_BUDGET", "default")
BUDGETS = ("default", "full", "nightly")
if BUDGET not in BUDGETS:
    raise pytest.UsageError(f"CONSTRAINT_CRDT_BUDGET is {BUDGET!r}: it is one of {', '.join(BUDGETS)}")
NIGHTLY_TIMEOUT = 6 * 3600

NOT_QUICK = ("processes", "browser", "slow", "long")
FIXTURES = {"node_url": "processes", "browser": "browser"}
"""Fixtures, and the mark of the tests that use them."""
QUICK_SECONDS = 0.25
SLOW_SECONDS = 2.0
"""In a quick run on a busy machine. On an idle one a test of more than 0.012 s, or with waits of more than 0.1 s, is `slow`."""
QUICK_CASES = 1
_PROPERTY = "quick test took too long"
_MARKED_AS_A_WHOLE = re.compile(rf"^pytestmark = \[?pytest\.mark\.({'|'.join(NOT_QUICK)})\b", re.MULTILINE)

# A slow machine is no finding (deadline), and neither is a state machine whose example takes long to draw (too_slow).
# What a change must pass are the same examples each time, so that a failure is the change's; a nightly run draws new ones.
_ANY_SPEED = settings(deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _ANY_SPEED, max_examples=5, stateful_step_count=12)
settings.register_profile("full", _ANY_SPEED, max_examples=10, stateful_step_count=20)
settings.register_profile("nightly", _ANY_SPEED, max_examples=2000, stateful_step_count=60, derandomize=False)
settings.register_profile(  # for `mutmut`: the same examples for each mutant, and a failure is all that is asked for
    "mutation",
    _ANY_SPEED,
    max_examples=30,
    stateful_step_count=20,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(BUDGET)

SEED = int(os.environ.get("CONSTRAINT_CRDT_SEED", "0")) or (random.SystemRandom().getrandbits(32) if BUDGET == "nightly" else 1)
"""Of the tests that draw by themselves: failures name it, and CONSTRAINT_CRDT_SEED repeats a run."""


def within(seconds: float) -> float:
    """A bound on elapsed time: as it stands nightly, and four times as much else, where other jobs may have the cores."""
    return seconds if BUDGET == "nightly" else 4 * seconds


_IN_MEMORY = Path(f"/dev/shm/constraint-crdt-tests-{os.getpid()}")


def runtime_directory(place: Path) -> Path:
    """A private directory in memory for this place of a test: a marker vouches for a store from memory only.

    The same for the same place. Removed at the end of the tests.
    """
    directory = _IN_MEMORY / blake2b(str(place).encode(), digest_size=8).hexdigest()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def pytest_unconfigure() -> None:
    shutil.rmtree(_IN_MEMORY, ignore_errors=True)


MEMORY_DISK = Path("/dev/shm")
MEMORY_DISK_BYTES = 2**30
if MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free >= MEMORY_DISK_BYTES:
    # Thousands of stores wait for no `fsync` here. Tests of faults and power cuts bring disks of their own.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_DISK))

gc.set_threshold(200_000, 10, 100)  # a collection makes thousands of objects that all stay

_started: list[str] = []
"""The programs that were started since the present test began; for a fork, the function."""

_STARTS = {"subprocess.Popen": 1, "os.posix_spawn": 0, "os.system": 0, "os.exec": 0, "os.fork": None, "os.forkpty": None}
"""The audit events of a start, with the place of the program among their arguments."""


def _note_start(event: str, arguments: tuple[object, ...]) -> None:
    if event in _STARTS:
        place = _STARTS[event]
        _started.append(event if place is None else str(arguments[place]))


sys.addaudithook(_note_start)

# A shell starts what runs in the background with SIGINT ignored, and processes inherit that: those of the tests end by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_left_out(item: pytest.Item) -> bool:
    """By day: what is `long`, but for the cases that the mark names."""
    marker = item.get_closest_marker("long") if BUDGET == "default" else None
    return marker is not None and _case(item) not in marker.kwargs.get("by_day", ())


def _case(item: pytest.Item) -> str:
    return str(getattr(getattr(item, "callspec", None), "id", ""))


def _require_cases(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """A case that is to stay by day would else be lost with a change of its name."""
    if any("[" in argument for argument in config.args):
        return  # not all cases of a test are collected
    named: dict[str, set[str]] = {}
    found: dict[str, set[str]] = {}
    for item in items:
        if marker := item.get_closest_marker("long"):
            test, _, _ = item.nodeid.partition("[")
            named[test] = set(marker.kwargs.get("by_day", ()))
            found.setdefault(test, set()).add(_case(item))
    for test, cases in named.items():
        if missing := cases - found[test]:
            raise pytest.UsageError(f"{test} has no case {', '.join(sorted(missing))}, which its mark `long` names")


def _is_quick_run(config: pytest.Config) -> bool:
    return bool(config.option.markexpr == "quick") and BUDGET == "default"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Some modules without a quick test take long to import."""
    is_module = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    ignored = is_module and _is_quick_run(config) and _MARKED_AS_A_WHOLE.search(collection_path.read_text())
    return True if ignored else None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto`: with the full budget two workers a core, as half of the time of a worker is a wait for a process, a socket or a
    browser. By day the waits are fewer, and each worker takes 5 s of processor time to collect the tests: one more than cores. The
    tests of a quick run wait little, and with the nightly budget most of the time is computing.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _is_quick_run(config) or BUDGET == "nightly":
        return cores
    return cores + 1 if BUDGET == "default" else 2 * cores


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    """Mark what is quick, before `-m` selects, and order what is left, after pytest-randomly. The nightly budget takes longer than
    any one test may by default.
    """
    for item in items:
        for fixture in FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(FIXTURES[fixture])
        if not any(item.get_closest_marker(name) for name in NOT_QUICK):
            item.add_marker(pytest.mark.quick)
        if _is_left_out(item):
            item.add_marker(pytest.mark.skip(reason="long: run with CONSTRAINT_CRDT_BUDGET=full"))
        if BUDGET == "nightly":
            item.add_marker(pytest.mark.timeout(NIGHTLY_TIMEOUT))
    _require_cases(config, items)
    yield
    if _is_quick_run(config):
        _leave_out_cases(config, items)
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = _for_workers(items, workers)


def _leave_out_cases(config: pytest.Config, items: list[pytest.Item]) -> None:
    taken: Counter[str] = Counter()
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:  # shuffled, with the same seed in all workers
        test, _, _ = item.nodeid.partition("[")
        taken[test] += 1
        (kept if taken[test] <= QUICK_CASES else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def _for_workers(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Tests in an order in which no worker waits for another at the end, and not all wait at once.

    `--dist worksteal` gives each worker an equal part of the list, and an idle one takes from the end of another's part. So each
    part ends with quick tests. The slow tests of a module stay together, as the node that they share would else be started
    for each of them. They are mostly waits: every second part begins with them, and the others have their modules spread among
    quick tests, which compute. The tests of a module that is marked `one_worker`, or of a group that is named there, are in
    one part, at its beginning; the first part, with those of the browser, has half as many others as the other parts.
    """
    quick: list[pytest.Item] = []
    parts: list[list[list[pytest.Item]]] = [[] for _ in range(workers)]
    together: dict[str, list[pytest.Item]] = {}
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if _is_left_out(item):
            quick.append(item)
        elif marker := item.get_closest_marker("one_worker"):
            together.setdefault(marker.args[0] if marker.args else str(item.path), []).append(item)
        elif item.get_closest_marker("quick"):
            quick.append(item)
        else:
            modules.setdefault(item.path, []).append(item)
    sizes = [0] * workers
    for module in modules.values():
        number = min(range(workers), key=lambda number: sizes[number])
        parts[number].append(module)
        sizes[number] += len(module) * (1 if number else 2)
    for number, path in enumerate(sorted(together)):
        parts[number % workers].insert(0, together[path])
    ordered: list[pytest.Item] = []
    for number, part in enumerate(parts):
        size = (len(items) - len(ordered)) // (workers - number)
        filling = quick[: max(0, size - sum(map(len, part)))]
        del quick[: len(filling)]
        ordered += _spread(part, filling) if number % 2 else [*chain.from_iterable(part), *filling]
    return [*ordered, *quick]


def _spread(modules: Sequence[Sequence[pytest.Item]], quick: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The slow tests of each module, spread evenly over the first two thirds of the quick ones."""
    between = len(quick) * 2 // 3 // max(1, len(modules))
    spread: list[pytest.Item] = []
    for number, module in enumerate(modules):
        spread += [*module, *quick[number * between : (number + 1) * between]]
    return [*spread, *quick[len(modules) * between :]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was loaded to collect thousands of tests stays, and little of what a test leaves is in cycles: the collector would take
    a tenth of the time, walking over the same again and again.
    """
    if _is_quick_run(session.config):
        _fill_caches_of_hypothesis()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 100)


@settings(max_examples=1, database=None)
@given(st.text())
def _fill_caches_of_hypothesis(_: str) -> None:
    """In a fresh clone the first property reads all sources for their constants, and makes the tables of Unicode: two seconds,
    which would count as those of a quick test.
    """


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """The fixtures of a quick test start no process."""
    _started.clear()
    yield
    _require_no_process(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A quick test starts no process, and is quick where it draws few examples."""
    began = time.process_time()
    yield
    _require_no_process(item)
    if not _is_quick_run(item.config):
        return
    took = time.process_time() - began
    if took > SLOW_SECONDS:
        pytest.fail(f"{took:.1f} s of processor time: make it quicker, or mark it `slow`", pytrace=False)
    if took > QUICK_SECONDS:
        item.user_properties.append((_PROPERTY, took))


def _require_no_process(item: pytest.Item) -> None:
    if _started and item.get_closest_marker("quick") is not None:
        pytest.fail(f"it started {_started[0]}: mark it `processes`", pytrace=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the quick tests that were not."""
    found = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
        for name, value in report.user_properties
        if name == _PROPERTY
    }
    if found:
        terminalreporter.section(f"more than {QUICK_SECONDS:g} s of processor time: make them quicker, or mark them `slow`")
        for nodeid, took in sorted(found.items()):
            terminalreporter.write_line(f"{took:5.1f} s  {nodeid}")
