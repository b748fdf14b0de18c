"""Guards of a running node: blocks and functions that run only while constraints hold, and the report that a guard waits for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from constraint_crdt import MemoryNetwork, Node
from constraint_crdt.errors import ConstraintCrdtError, GuardBroken, UnknownConstraint
from constraint_crdt.runtime import actions
from constraint_crdt.runtime.sync_node import SyncNode
from tests.runtime.fleet import QUICK, eventually


@asynccontextmanager
async def guarded_node() -> AsyncIterator[Node]:
    async with Node(name="a", settings=QUICK, transport=MemoryNetwork().transport()) as node:
        await node.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical")
        await node.add_constraint("warm", when="temp_c < 60.0")
        yield node


async def test_a_block_runs_while_the_constraints_hold_and_is_cancelled_when_one_is_violated() -> None:
    async with guarded_node() as node:
        await node.measure({"speed_mps": 1.0})
        began = asyncio.Event()

        async def drive() -> None:
            async with node.guard("max_speed"):
                began.set()
                await asyncio.sleep(60)

        driving = asyncio.create_task(drive())
        await began.wait()
        await node.measure({"speed_mps": 9.0})
        with pytest.raises(GuardBroken, match=r"violated: max_speed: speed_mps = 9.0, 7.5 above the limit"):
            await driving
        with pytest.raises(GuardBroken):
            async with node.guard("max_speed"):
                pytest.fail("it does not hold")


async def test_a_block_that_ends_in_time_or_by_its_own_error_is_left_alone() -> None:
    async with guarded_node() as node:
        await node.measure({"speed_mps": 1.0})
        async with node.guard() as begun:
            assert (begun.standing, begun.constraints) == ("holds", 1)
        with pytest.raises(ZeroDivisionError):
            async with node.guard("max_speed"):
                1 / 0  # noqa: B018 - raises


async def test_what_cannot_be_decided_stops_unless_it_is_said() -> None:
    async with guarded_node() as node:
        with pytest.raises(GuardBroken, match=r"cannot be decided: max_speed: (not judged yet|no measurement of speed_mps)"):
            async with node.guard("max_speed"):
                pass
        async with node.guard("max_speed", if_unknown="go") as begun:
            assert begun.standing == "unknown"
        with pytest.raises(UnknownConstraint):
            async with node.guard("max_sped"):
                pass


async def test_a_constraint_counts_for_a_guard_once_it_is_added() -> None:
    """Its variable was measured before, and no tick comes in between."""
    settings = msgspec.structs.replace(QUICK, check_every=30.0)
    async with Node(name="a", settings=settings, transport=MemoryNetwork().transport()) as node:
        await node.measure({"speed_mps": 1.0})
        await node.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical")
        assert (await node.guards.report(["max_speed"])).standing == "holds"
        await node.add_constraint("min_speed", when="speed_mps >= 0.5", severity="critical")
        async with node.guard("min_speed") as begun:
            assert begun.standing == "holds"


async def test_only_enforced_constraints_that_apply_here_bind() -> None:
    async with guarded_node() as node:
        await node.measure({"speed_mps": 9.0})
        await node.add_constraint("max_speed", when="speed_mps <= 1.5", severity="critical", mode="warn", loosen=True)
        await node.add_constraint("elsewhere", when="speed_mps <= 1.5", severity="critical", on={"zone": "b"})
        await node.add_constraint("listed", severity="critical")
        found = node.guards.standing()
        assert (found.standing, found.constraints) == ("holds", 0)
        assert node.guards.standing(["gone"]).missing == ("gone",)


async def test_a_guard_of_all_critical_constraints_follows_their_definitions() -> None:
    async with guarded_node() as node:
        await node.measure({"speed_mps": 1.0, "temp_c": 90.0})
        assert node.guards.standing().constraints == 1
        await node.add_constraint("warm", when="temp_c < 60.0", severity="critical")
        await eventually(lambda: node.guards.standing().standing == "violated")
        assert node.guards.standing().constraints == 2
        await node.add_constraint("warm", when="temp_c < 60.0", severity="info", loosen=True)
        assert (node.guards.standing().standing, node.guards.standing().constraints) == ("holds", 1)
        await node.remove_constraint("max_speed")
        found = node.guards.standing()
        assert (found.constraints, found.missing) == (0, ())


async def test_a_removal_and_a_repair_are_told_to_a_guard_that_waits() -> None:
    async with guarded_node() as node:
        await node.measure({"speed_mps": 9.0})
        waiting = asyncio.create_task(node.guards.report(("max_speed",), unless="violated", wait=60))
        await eventually(lambda: bool(node.guards._waiting))
        await node.remove_constraint("max_speed")
        found = await waiting
        assert (found.standing, found.missing) == ("holds", ("max_speed",))
        assert (await node.guards.report(("warm",), unless="unknown", wait=0.01)).standing == "unknown"


async def test_a_decorated_function_runs_under_the_guard() -> None:
    async with guarded_node() as node:

        @node.guards.guarded("max_speed")
        async def drive(metres: int) -> int:
            """Drive on."""
            return metres

        assert drive.__doc__ == "Drive on."
        with pytest.raises(GuardBroken):
            await drive(3)
        await node.measure({"speed_mps": 1.0})
        assert await drive(3) == 3


async def test_guards_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded_node() as node:
        await node.measure({"speed_mps": 1.0})
        monkeypatch.setattr(actions, "MOST_GUARDS", 0)
        with pytest.raises(ConstraintCrdtError, match="wait at this node already"):
            await node.guards.report(unless="holds", wait=1)
        monkeypatch.setattr(actions, "MOST_GUARDED", 0)
        with pytest.raises(ConstraintCrdtError, match="at most 0 constraints, not 1: name fewer"):
            node.guards.standing()


def test_a_program_without_an_event_loop_learns_at_the_end_of_the_block() -> None:
    with SyncNode(name="a", settings=QUICK, transport=MemoryNetwork().transport()) as node:
        node.add_constraint("max_speed", when="speed_mps <= 1.5")
        node.measure({"speed_mps": 1.0})
        with node.guard("max_speed"):
            pass
        with pytest.raises(GuardBroken), node.guard("max_speed"):  # noqa: PT012 - the end of the block raises
            node.measure({"speed_mps": 9.0})
            watch = node.read(lambda each: [task for task in asyncio.all_tasks(each._loop) if task.get_name() == "guard"])
            ends = time.monotonic() + 20
            while not all(task.done() for task in watch) and time.monotonic() < ends:
                node.read(lambda _: None)
