"""The figures of docs/reference/benchmarks.md that are no times: what the benchmarks print now differs by 10 % at most.

The bytes of small exchanges do not depend on how much the nodes know, so here they are taken among 1,000 constraints, of one seed.
Whole states and fleets are measured as on the page: the short ones in the slow tests, all of them in nightly runs. Resident memory
is left out, since it is the allocator's and the system's as well.
"""

import importlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from constraint_crdt.crdt.cells import COMPILED

ROOT = Path(__file__).parent.parent
NIGHTLY = os.environ.get("CONSTRAINT_CRDT_BUDGET") == "nightly"
KNOWN = 1_000 if not NIGHTLY else 100_000
TOLERANCE = 0.1

_LINE = re.compile(r"^(?P<what>\S.*?) {2,}(?P<number>[\d,.]+) (?P<unit>\S+) {2,}", re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs/reference/benchmarks.md").read_text()


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


def benchmark(name: str) -> ModuleType:
    return importlib.import_module(name)


def number(text: str) -> float:
    return float(text.replace(",", ""))


def printed(page: str) -> dict[str, tuple[float, str]]:
    """The lines of the printed table: figure and unit by what they are about."""
    table = page.split("## Results")[1].split("```")[1]
    return {line["what"]: (number(line["number"]), line["unit"]) for line in _LINE.finditer(table)}


def is_no_time(what: str, unit: str) -> bool:
    return unit in {"B", "MB", "x"} and "CPU" not in what and "RSS" not in what


def assert_near(what: str, now: float, said: float) -> None:
    assert abs(now - said) <= TOLERANCE * said, f"{what}: {now:g} now, and {said:g} on docs/reference/benchmarks.md"


def compare(measured: Iterable[Any], said: dict[str, tuple[float, str]]) -> set[str]:
    """Compare rows of a benchmark with the page. Returns what was compared."""
    compared = set()
    for row in measured:
        if is_no_time(row.what, row.unit):
            assert row.what in said, f"the page says nothing about {row.what}"
            assert said[row.what][1] == row.unit
            assert_near(row.what, row.measured, said[row.what][0])
            compared.add(row.what)
    return compared


def of_libraries(page: str, row: str, place: int) -> float:
    """A figure of the table beside other libraries: of the core that runs, the one at this place in `ms / MB`."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {row}"))
    return number(line.split("|")[2 if COMPILED else 3].split("/")[place])


needs_compiled = pytest.mark.skipif(not COMPILED, reason="the printed table is of the compiled core, which packs smaller")


def test_every_line_of_the_printed_table_is_read(page: str) -> None:
    table = page.split("## Results")[1].split("```")[1]
    lines = [line for line in table.splitlines()[1:] if not line.startswith(("what ", "---"))]
    assert len(printed(page)) == len(lines) > 40


@needs_compiled
@pytest.mark.slow
def test_small_exchanges_take_the_bytes_on_the_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = benchmark("exchange")
    monkeypatch.setattr(exchange, "ONE_REPEATS", 3)
    monkeypatch.setattr(exchange, "MANY_REPEATS", 2)
    said, compared = printed(page), set()
    for name, form in exchange.FORMS.items():
        a, b = exchange.a_pair(KNOWN, form)
        compared |= compare(exchange.one_change(a, b, form, name, asked=False), said)
        compared |= compare(exchange.one_change(a, b, form, name, asked=True), said)
        compared |= compare(exchange.many_changes(a, b, form, name), said)
        compared |= compare([exchange.nothing_new(a, b)], said)
    assert len(compared) == 7


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "work"),
    [("one change: ms / bytes", "change"), ("nothing new: ms / bytes", "nothing"), ("1,000 changes: ms / bytes", "thousand")],
)
def test_exchanges_beside_other_libraries_take_the_bytes_on_the_page(
    page: str, row: str, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = benchmark("peers")
    monkeypatch.setattr(peers, "CHANGES", 5)
    chosen = next(each for each in peers._work() if each.name == work)
    assert_near(row, chosen.run(peers.LIBRARIES[peers.OURS], 1, KNOWN)["bytes"], of_libraries(page, row, 1))


def test_the_bytes_named_for_synchronization_are_those_of_the_printed_table(page: str) -> None:
    named = re.search(r"(\d+)\s+bytes\s+for\s+one\s+change\s+and\s+(\d+)\s+for\s+nothing\s+new", page)
    assert named is not None
    said = printed(page)
    assert float(named[1]) == said["one change, short ids: bytes"][0]
    assert float(named[2]) == said["nothing new, both ways: bytes"][0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("row", "work"),
    [
        ("50 replicas, bare ids", "fleet"),
        ("… definitions", "fleet-definitions"),
        ("… a counter per", "fleet-counters"),
        ("… both", "fleet-both"),
    ],
)
def test_fleets_beside_other_libraries_take_the_bytes_on_the_page(page: str, row: str, work: str) -> None:
    if not NIGHTLY and work != "fleet":
        pytest.skip("nightly")
    peers = benchmark("peers")
    chosen = next(each for each in peers._work() if each.name == work)
    assert_near(row, chosen.run(peers.LIBRARIES[peers.OURS], 1, 0)["bytes"] / 1e6, of_libraries(page, row, 1))


@needs_compiled
@pytest.mark.long
def test_the_fifty_replicas_take_the_bytes_on_the_page(page: str) -> None:
    fifty = benchmark("fifty")
    for scenario in fifty.SCENARIOS if NIGHTLY else fifty.SCENARIOS[:1]:
        what = f"50 x 50, {scenario.name}: bytes"
        assert_near(what, fifty.run_wire(1, scenario).bytes / 1e6, printed(page)[what][0])


@needs_compiled
@pytest.mark.slow
@pytest.mark.skipif(not NIGHTLY, reason="nightly: states of 100,000 constraints in processes of their own")
def test_whole_states_take_the_bytes_and_the_memory_on_the_page(page: str) -> None:
    exchange, said, compared = benchmark("exchange"), printed(page), set[str]()
    for name, form in exchange.FORMS.items():
        source, _ = exchange.a_pair(KNOWN, form)
        compared |= compare(exchange.blank_node(source, name), said)
        compared |= compare(exchange.memory(KNOWN, form, name), said)
    assert len(compared) == 6
    peers = benchmark("peers")
    blank = next(each for each in peers._work() if each.name == "blank").run(peers.LIBRARIES[peers.OURS], 1, KNOWN)
    row = "a blank one takes 100,000 with definitions: ms / MB"
    assert_near(row, blank["bytes"] / 1e6, of_libraries(page, row, 1))
