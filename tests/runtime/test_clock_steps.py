"""Running nodes whose clocks are wrong, or are set: what is refused, what is told, and that followers miss nothing."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from constraint_crdt import Event, EventKind, MemoryNetwork, Node
from constraint_crdt.errors import ClockInDoubt
from constraint_crdt.gossip import steady_ns
from constraint_crdt.runtime.maintenance import LOOKS
from tests.runtime.fleet import QUICK, agreed, eventually, stop_clocks

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


class Wall:
    """The wall clock of a machine, wrong by so many ns."""

    def __init__(self, wrong_by: int = 0) -> None:
        self.wrong_by = wrong_by

    def __call__(self) -> int:
        return time.time_ns() + self.wrong_by


@asynccontextmanager
async def machines(*walls: Wall) -> AsyncIterator[list[Node]]:
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes = [
            Node(name=f"n{index}", settings=QUICK, transport=network.transport(), now=wall, steady=time.monotonic_ns)
            for index, wall in enumerate(walls)
        ]
        for node in nodes:
            await stack.enter_async_context(node)
        await eventually(lambda: all(len(node.gossip.time.offsets) == len(walls) - 1 for node in nodes))
        yield nodes


class Follower:
    """Keeps the list of active constraints by events alone."""

    def __init__(self, node: Node) -> None:
        self.active = set(node.constraint_ids())
        self.seen: list[Event] = []
        node.event_stream.listen(lambda kept: self._take(kept.event))

    def _take(self, event: Event) -> None:
        self.seen.append(event)
        if event.kind in (EventKind.ADDED, EventKind.CHANGED):
            self.active.add(event.constraint)
        elif event.kind in (EventKind.REMOVED, EventKind.EXPIRED):
            self.active.discard(event.constraint)

    def details(self, kind: EventKind) -> list[str]:
        return [event.detail for event in self.seen if event.kind is kind]


@pytest.mark.slow
async def test_a_node_that_does_not_know_the_time_refuses_an_end_and_says_why() -> None:
    async with machines(Wall(), Wall(HOUR)) as nodes:
        for node in nodes:
            await node.add_constraint("gate", when="x < 1.0")
            with pytest.raises(ClockInDoubt, match="set its clock"):
                await node.add_constraint("gate", when="x < 2.0", ttl=1800)
            status = node.status()
            assert (status.clock_in_doubt, status.fleet_time) == (True, False)
            [finding] = [each for each in node.diagnosis.look().findings if each.check == "clock"]
            assert "writes nothing that ends at a time" in finding.what


@pytest.mark.slow
@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR])
async def test_where_enough_others_agree_the_end_is_theirs_and_the_answer_says_so(
    monkeypatch: pytest.MonkeyPatch, wrong_by: int
) -> None:
    stop_clocks(monkeypatch)
    async with machines(Wall(), Wall(), Wall(wrong_by)) as nodes:
        good, wrong = nodes[0], nodes[2]
        await wrong.add_constraint("gate", when="x < 1.0", ttl=1800)
        await eventually(lambda: agreed(nodes))
        [found] = good.constraints()
        assert found.expires_at is not None
        assert abs(found.expires_at - time.time_ns() - 1800 * SECOND) < 10 * SECOND
        assert found.added_at is not None
        assert abs(found.added_at - time.time_ns()) < 10 * SECOND
        assert all(node.constraint_ids() == ["gate"] for node in nodes)
        [note] = wrong.diagnosis.clock_notes()
        assert f"it goes by the fleet's time, {-wrong_by / SECOND:+.1f} s from its own clock" in note
        assert good.diagnosis.clock_notes() == ()
        assert wrong.status().fleet_time
        assert [entry.subject for entry in wrong.audit()] == ["gate"]
        assert abs(wrong.audit()[0].time - time.time_ns()) < 10 * SECOND


@pytest.mark.slow
async def test_a_follower_of_a_lone_node_whose_clock_is_set_forth_and_back_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clocks(monkeypatch)
    wall = Wall()
    async with machines(wall) as [node]:
        await node.add_constraint("lease", ttl=1800)
        await node.add_constraint("for good")
        follower = Follower(node)
        await eventually(lambda: follower.active == {"lease", "for good"})
        for _ in range(2):
            wall.wrong_by = HOUR
            await eventually(lambda: follower.active == {"for good"} == set(node.constraint_ids()))
            wall.wrong_by = 0
            await eventually(lambda: follower.active == {"lease", "for good"} == set(node.constraint_ids()))
        assert follower.details(EventKind.CLOCK_STEPPED) == ["+3600.0 s", "-3600.0 s"] * 2
        assert follower.details(EventKind.EXPIRED)[0].startswith("it had ended 1800 s before")
        assert node.status().clock_steps == 4


@pytest.mark.slow
async def test_among_others_a_step_changes_no_reading_and_the_doubt_is_told() -> None:
    wall = Wall()
    async with machines(Wall(), Wall(), wall) as nodes:
        await nodes[0].add_constraint("lease", ttl=1800)
        await eventually(lambda: agreed(nodes))
        follower = Follower(nodes[2])
        wall.wrong_by = -50 * 365 * 24 * HOUR
        watch = nodes[2]._runtime.maintenance.clock
        for _ in range(LOOKS):
            watch.note_doubt()
        assert follower.active == {"lease"} == set(nodes[2].constraint_ids())
        wall.wrong_by = 0
        for _ in range(LOOKS):
            watch.note_doubt()
        assert follower.details(EventKind.CLOCK_TRUSTED)
        assert not follower.details(EventKind.EXPIRED)
        [doubt] = follower.details(EventKind.CLOCK_DOUBTED)
        assert doubt.startswith("it goes by the fleet's time")


@pytest.mark.slow
async def test_an_addition_that_had_ended_before_it_came_is_shown_with_its_writer() -> None:
    """Written while nobody could know better: an isolated node, two hours behind."""
    network = MemoryNetwork()
    wall = Wall(-2 * HOUR)
    async with (
        Node(name="good", settings=QUICK, transport=network.transport()) as good,
        Node(name="other", settings=QUICK, transport=network.transport()) as other,
    ):
        await good.add_constraint("gate", when="x < 1.0", severity="critical")
        await eventually(lambda: agreed([good, other]))
        follower = Follower(good)
        network.cut(["good", "other"], ["late"])
        async with Node(name="late", settings=QUICK, transport=network.transport(), now=wall, steady=time.monotonic_ns) as late:
            await late.add_constraint("lease", ttl=1800)
            of_writer = Follower(late)
            network.heal()
            await eventually(lambda: agreed([good, other, late]))
            for told in (follower, of_writer):
                await eventually(partial(told.details, EventKind.EXPIRED))
                [detail] = told.details(EventKind.EXPIRED)
                assert detail.startswith(("it had ended 5400 s before", "it had ended 5401 s before"))
                assert detail.endswith("written by late")
            assert good.constraint_ids() == other.constraint_ids() == late.constraint_ids() == ["gate"]


@pytest.mark.slow
async def test_a_value_of_before_a_sleep_of_the_machine_has_aged_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock stands while the machine sleeps, the clock of the boot runs on, and so does the wall clock."""
    network = MemoryNetwork()
    async with Node(name="a", settings=QUICK, transport=network.transport()) as node:
        await node.add_constraint("gate", when="x < 1.0")
        await node.measure({"x": 0.5})
        assert node.status().unknown_here == 0
        wall, slept = time.time_ns, 9 * HOUR
        for module in ("answers", "evaluation", "lifecycle"):
            monkeypatch.setattr(f"constraint_crdt.runtime.{module}.steady_ns", lambda: steady_ns() + slept)
        monkeypatch.setattr("constraint_crdt.gossip.time.time_ns", lambda: wall() + slept)
        await eventually(lambda: node.status().unknown_here == 1)
