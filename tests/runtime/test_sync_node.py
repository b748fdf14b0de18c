"""The node for programs without an event loop."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from constraint_crdt import AddConstraint, BatchError, Definition, ExpressionError, MemoryNetwork, Node
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError, InvalidType, LifecycleError, StoreError, WrongThread
from constraint_crdt.model import EventKind, IfUnknown
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.runtime.sync_node import SyncNode
from tests.runtime.fleet import QUICK

PARTS = {"run", "read"}
"""The methods in place of the parts of a `Node`."""


def make_node(name: str = "a", network: MemoryNetwork | None = None, settings: NodeSettings = QUICK) -> SyncNode:
    return SyncNode(name=name, settings=settings, transport=(network or MemoryNetwork()).transport())


@pytest.fixture
def node() -> Iterator[SyncNode]:
    with make_node() as started:
        yield started


def methods(kind: type) -> dict[str, Callable[..., object]]:
    return {name: value for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}


def test_it_has_the_methods_of_a_node_with_their_parameters() -> None:
    ours, theirs = methods(SyncNode), methods(Node)
    assert set(ours) - PARTS == set(theirs)
    for name in set(theirs) - {"events"}:
        assert list(inspect.signature(ours[name]).parameters.values()) == list(inspect.signature(theirs[name]).parameters.values())
    assert inspect.signature(SyncNode).parameters == inspect.signature(Node).parameters


@pytest.mark.slow
def test_it_adds_checks_and_reads(node: SyncNode) -> None:
    events = node.events(timeout=10)
    node.add_constraint("cool", when="t < 85.0")
    [evaluation] = node.check({"t": 91})
    assert evaluation.verdict.value == "violated"
    assert [report.id for report in node.constraints()] == ["cool"]
    assert node.status().violations == 1
    assert [next(events).kind for _ in range(2)] == [EventKind.ADDED, EventKind.VIOLATED]
    node.remove_constraint("cool")
    assert next(events).kind is EventKind.REMOVED
    with pytest.raises(KeyError):
        node.remove_constraint("cool")


def definitions(id_: str, node: Node) -> tuple[Definition, ...]:
    return node.gossip.state.constraints.definitions(id_)


def test_the_fields_of_a_definition_are_seconds_or_lengths_of_time(node: SyncNode) -> None:
    half, day = timedelta(seconds=0.5), timedelta(days=1)
    wanted = Definition(
        "t < 85.0",
        for_=SECOND // 2,
        clear_after=10 * SECOND,
        clear_when="t < 80.0",
        if_unknown=IfUnknown.SATISFIED,
        max_age=86_400 * SECOND,
    )
    node.add_constraint("a", when="t < 85.0", for_=half, clear_after=10, clear_when="t < 80.0", if_unknown="satisfied", max_age=day)
    changes = [
        AddConstraint(
            id="b", when="t < 85.0", for_=0.5, clear_after=10.0, clear_when="t < 80.0",
            if_unknown=IfUnknown.SATISFIED, max_age=86_400.0,
        )
    ]  # fmt: skip
    node.batch(changes)
    for id_ in ("a", "b"):
        assert node.read(partial(definitions, id_)) == (wanted,)
    reports = {each.id: each for each in node.constraints()}
    assert [(each.for_, each.clear_after, each.max_age) for each in reports.values()] == [(0.5, 10.0, 86_400.0)] * 2


def test_a_wrong_field_of_a_definition_is_named_and_changes_nothing(node: SyncNode) -> None:
    before = node.status().hash
    with pytest.raises(ExpressionError, match=r"^`clear_when`: column 4: ") as refused:
        node.add_constraint("a", when="t < 85.0", clear_when="t <")
    assert (refused.value.field, refused.value.column) == ("clear_when", 4)
    with pytest.raises(InvalidType, match="for in seconds is a number"):
        node.add_constraint("a", when="t < 85.0", for_="30s")  # type: ignore[arg-type]
    with pytest.raises(BatchError, match="max_age must be above 0") as wrong:
        node.batch([AddConstraint(id="a", when="t < 85.0", max_age=0.0)])
    assert wrong.value.field == "add.max_age"
    with pytest.raises(BatchError, match="for in seconds is a number") as wrong:
        node.batch([AddConstraint(id="a", when="t < 85.0", for_="30s")])  # type: ignore[arg-type]
    assert wrong.value.field == "add.for"
    assert node.status().hash == before


def test_it_reaches_the_parts_of_the_node(node: SyncNode) -> None:
    assert node.run(lambda each: each.counters.move("laps", 3)).value == 3
    assert node.read(lambda each: each.counters.report("laps").value) == 3


@pytest.mark.filterwarnings("error")
def test_a_call_of_the_wrong_kind_names_the_other_method(node: SyncNode) -> None:
    with pytest.raises(InvalidType, match="use `read`"):
        node.run(lambda each: each.status())  # type: ignore[arg-type,return-value]
    with pytest.raises(InvalidType, match="use `run`"):
        _ = node.read(lambda each: each.counters.move("laps", 3))
    assert node.read(lambda each: each.counters.reports()) == []


def test_events_end_after_the_timeout_and_with_the_node() -> None:
    with make_node() as node:
        assert list(node.events(timeout=0.01)) == []
        endless = node.events()
        node.add_constraint("kept")
    assert [event.kind for event in endless] in ([EventKind.ADDED], [])


@pytest.mark.slow
def test_many_threads_may_write_at_once(node: SyncNode) -> None:
    node.add_constraint("cool")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: node.record(1, 1, constraint="cool"), range(80)))
    assert node.read(lambda each: each.gossip.state.metrics.constraint("cool")) == (80, 80)


def test_calls_before_the_start_and_after_the_stop_are_refused() -> None:
    node = make_node()
    with pytest.raises(LifecycleError, match="between start and stop"):
        node.add_constraint("early")
    with pytest.raises(LifecycleError, match="between start and stop"):
        node.status()
    with node:
        with pytest.raises(LifecycleError, match="runs already"):
            node.start()
        node.add_constraint("kept")
    with pytest.raises(LifecycleError, match="between start and stop"):
        node.record(1)
    with pytest.raises(LifecycleError, match="was stopped"):
        node.start()
    node.stop()
    assert repr(node) == "SyncNode('a', fleet='default', not running)"


def test_a_call_on_the_loop_of_the_node_is_refused(node: SyncNode) -> None:
    def inside(_: Node) -> str:
        with pytest.raises(WrongThread):
            node.stop()
        with pytest.raises(WrongThread) as raised:
            node.status()
        return str(raised.value)

    assert "would wait for itself" in node.read(inside)


def test_an_error_in_the_block_stops_the_node_and_its_thread() -> None:
    def fail(node: SyncNode) -> None:
        with node:
            assert "gone node" in {thread.name for thread in threading.enumerate()}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(make_node("gone"))
    assert "gone node" not in {thread.name for thread in threading.enumerate()}


def test_a_failed_start_leaves_no_thread(tmp_path: Path) -> None:
    file = tmp_path / "node.db"
    file.write_bytes(b"no store at all" * 100)
    node = make_node("failed", settings=msgspec.structs.replace(QUICK, store=str(file)))
    with pytest.raises(StoreError):
        node.start()
    assert "failed node" not in {thread.name for thread in threading.enumerate()}


def test_a_call_in_progress_ends_when_another_thread_stops_the_node() -> None:
    node = make_node()
    node.start()
    found: list[ConstraintCrdtError] = []
    waiting = threading.Event()

    def wait() -> None:
        async def forever(each: Node) -> str:
            waiting.set()
            return await each.over()

        with pytest.raises(LifecycleError) as raised:
            node.run(forever)
        found.append(raised.value)

    thread = threading.Thread(target=wait)
    thread.start()
    waiting.wait(10)
    node.stop()
    thread.join(10)
    assert [str(each) for each in found] == ["the node was stopped during the call"]


@pytest.mark.long
@pytest.mark.processes
def test_a_node_that_is_not_stopped_is_stopped_at_the_exit_of_the_interpreter(tmp_path: Path) -> None:
    program = """
import sys
from constraint_crdt import MemoryNetwork, NodeSettings
from constraint_crdt.runtime.sync_node import SyncNode

node = SyncNode(name="a", settings=NodeSettings(name="a", store=sys.argv[1]), transport=MemoryNetwork().transport())
node.start()
node.add_constraint("kept", when="t < 85.0")
node.check({"t": 1.0})
"""
    file = str(tmp_path / "node.db")
    done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with make_node(settings=msgspec.structs.replace(QUICK, store=file)) as again:
        assert again.constraint_ids() == ["kept"]
        assert again.status().satisfied == 1


def test_a_count_under_both_of_its_names_is_refused(node: SyncNode) -> None:
    with pytest.raises(TypeError, match="former name"):
        node.record(1, 2, violations=3)
    assert node.status().violations == 0
    node.record(1, 2)
    node.record(violations=3)
    assert node.status().violations == 5


def test_an_iteration_of_events_may_be_dropped_on_the_thread_of_the_node() -> None:
    """As a garbage collection does, which runs on any thread."""
    with SyncNode(name="a", settings=QUICK, transport=MemoryNetwork().transport()) as node:
        events = node.events(timeout=10)
        node.add_constraint("x")
        assert next(events).constraint == "x"
        node.read(lambda _: events.close())  # type: ignore[attr-defined]  # it is a generator
