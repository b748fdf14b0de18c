"""Probes: in which thread they are read, and what is said of one that fails or does not return."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node, Probe, SystemProbe
from constraint_crdt.operations.service import Finding
from constraint_crdt.runtime import measurement
from tests.runtime.fleet import QUICK, eventually


class Source:
    """A probe made of a function."""

    name = "source"

    def __init__(self, read: Callable[[], Mapping[str, object]]) -> None:
        self.read = read


def node_with(probe: Probe) -> Node:
    return Node(name="a", settings=QUICK, transport=MemoryNetwork().transport(), probes=[probe])


def found(node: Node) -> Finding:
    [finding] = [each for each in node.diagnosis.look().findings if each.check == "probes"]
    return finding


@pytest.mark.slow
async def test_all_readings_are_made_in_one_thread() -> None:
    """The defect: `cpu_percent` read 0.0 in each new thread of the pool, since psutil keeps the former reading by thread."""
    threads: list[int] = []

    def read() -> Mapping[str, object]:
        threads.append(threading.get_ident())
        return {"x": 1.0}

    async with node_with(Source(read)):
        await asyncio.gather(*(asyncio.to_thread(threading.get_ident) for _ in range(8)))  # the pool has threads to choose from
        await eventually(lambda: len(threads) >= 10)
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


@pytest.mark.slow
async def test_the_processor_time_of_a_busy_host_is_not_0() -> None:
    async with node_with(SystemProbe()) as node:
        await eventually(node.variables)

        def busy() -> float:
            sum(range(200_000))
            return float(str(next(each.value for each in node.variables() if each.name == "cpu_percent")))

        await eventually(lambda: busy() > 0.0)


@pytest.mark.slow
async def test_a_failure_is_logged_once_and_told_by_doctor(caplog: pytest.LogCaptureFixture) -> None:
    """The defect: a probe that failed logged a line a second without end, and `doctor` said nothing."""
    reads, works = 0, False

    def read() -> Mapping[str, object]:
        nonlocal reads
        reads += 1
        if works:
            return {"x": 1.0}
        raise OSError("no such sensor")

    with caplog.at_level(logging.INFO, logger="constraint_crdt.node"):
        async with node_with(Source(read)) as node:
            await eventually(lambda: reads > 5)
            await eventually(lambda: found(node).level == "warn")
            assert found(node).what == "no values come from source (no such sensor)"
            works = True
            await eventually(lambda: found(node).level == "ok")
    lines = [each.getMessage() for each in caplog.records if "probe source" in each.getMessage()]
    assert lines == ["probe source failed: no such sensor", "probe source works again"]


async def test_a_probe_that_does_not_return_is_told_and_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect: a probe that blocked for a minute held up the end of the node for as long."""
    monkeypatch.setattr(measurement, "SLOW", 0.01)
    release = threading.Event()

    def read() -> Mapping[str, object]:
        release.wait()
        return {"x": 1.0}

    try:
        async with node_with(Source(read)) as node:
            await eventually(lambda: found(node).level == "warn")
            assert "it has not returned for" in found(node).what
            await node.add_constraint("y", when="y < 1.0")
            await node.measure({"y": 0.0})
        [thread] = [each for each in threading.enumerate() if each.name == "probe source"]
        assert thread.daemon
    finally:
        release.set()
    await eventually(lambda: not thread.is_alive())


async def test_a_node_without_probes_says_so() -> None:
    async with Node(name="a", settings=msgspec.structs.replace(QUICK), transport=MemoryNetwork().transport()) as node:
        assert (found(node).level, found(node).what) == ("ok", "there are none")
