"""Budgets of running nodes: local holds, loans on demand, waiting in order, renewal, and the end of a hold."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from unittest.mock import AsyncMock

import msgspec
import pytest

from constraint_crdt import GossipNode, MemoryNetwork, Node, exchange
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError, HoldLost, NoRights, UnknownName
from constraint_crdt.operations.budgets import notes_on, show_budgets, show_explained
from constraint_crdt.protocol.loans import Waiting
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.holds import SOON as MOMENT
from constraint_crdt.runtime.holds import NodeBudgets
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.runtime.sync_node import SyncNode
from tests.runtime.fleet import QUICK, agreed, eventually
from tests.runtime.fleet import fleet as fleet_of

SOON = 60.0


@asynccontextmanager
async def fleet(
    *names: str, settings: NodeSettings = QUICK, network: MemoryNetwork | None = None
) -> AsyncIterator[dict[str, Node]]:
    """Nodes of these names that hear each other, and know the same."""
    async with fleet_of(*names, network=network, settings=settings) as found:
        await eventually(lambda: agreed(found))
        yield dict(zip(names, found, strict=True))


async def known(nodes: dict[str, Node], name: str) -> None:
    await eventually(lambda: all(name in node.budgets for node in nodes.values()))


async def test_a_node_alone_defines_holds_and_releases() -> None:
    async with fleet("a") as nodes:
        node = nodes["a"]
        with pytest.raises(UnknownName):
            await node.budgets.acquire("dock")
        report = await node.budgets.define("dock", 2, lease=60)
        assert (report.limit, report.lease, report.free_here) == (2, 60, 2)
        first, second = [await node.budgets.acquire("dock", holder=f"robot {number}") for number in range(2)]
        assert first.ttl is not None
        assert 59 < first.ttl <= 60
        with pytest.raises(NoRights, match="1 of dock is not free here: 0 is; a holds 2"):
            await node.budgets.acquire("dock")
        with pytest.raises(NoRights, match="more than its limit"):
            await node.budgets.acquire("dock", 3)
        assert [each.holder for each in node.budgets.report("dock").holders] == ["robot 0", "robot 1"]
        assert (await node.budgets.release("dock", first.hold)).released
        assert not (await node.budgets.release("dock", first.hold)).released
        with pytest.raises(NoRights, match="this node gave no hold 1-1 of dock"):  # it said that it was over
            await node.budgets.release("dock", "1-1")
        assert (await node.budgets.acquire("dock")).amount == 1
        renewed = await node.budgets.renew("dock", second.hold)
        assert renewed.until is not None
        assert second.until is not None
        assert renewed.until >= second.until
        with pytest.raises(NoRights, match="acquire it anew"):
            await node.budgets.renew("dock", first.hold)
        await node.budgets.remove("dock")
        assert "dock" not in node.budgets
        with pytest.raises(UnknownName):
            await node.budgets.acquire("dock")


@pytest.mark.slow
async def test_an_acquire_waits_for_the_disk_only_as_more_is_held_at_once(tmp_path: Path) -> None:
    """As much as was held at once lately is kept back on disk, so that a killed node that resumes its life counts it as held."""
    settings = msgspec.structs.replace(QUICK, store=str(tmp_path / "a.db"))
    network, never = MemoryNetwork(), asyncio.Event()
    async with Node(name="a", settings=settings, transport=network.transport()) as node:
        await node.budgets.define("dock", 3, lease=60)
        first = await node.budgets.acquire("dock")
        await node.budgets.release("dock", first.hold)
        persistence = node._runtime.persistence
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(persistence, "durable", never.wait)
            second = await node.budgets.acquire("dock")
            assert second.ttl is not None
            assert 30 < second.ttl <= 60
            further = asyncio.create_task(node.budgets.acquire("dock"))
            await asyncio.sleep(0)
            assert not further.done(), "two at once are not on disk yet"
            further.cancel()
            await asyncio.gather(further, return_exceptions=True)
            assert node.budgets.report("dock").held == 1
        never.set()
    async with Node(name="a", settings=settings, transport=network.transport()) as node:
        await eventually(lambda: not node._runtime.feed.held)
        assert node.budgets.report("dock").held == 1, "the node ended in order: nothing but the hold is counted"
        assert (await node.budgets.release("dock", second.hold)).released


@pytest.mark.slow
async def test_those_that_wait_are_served_in_order() -> None:
    async with fleet("a") as nodes:
        budgets = nodes["a"].budgets
        await budgets.define("dock", 1, lease=60)
        held = await budgets.acquire("dock")
        served: list[int] = []

        async def use(number: int) -> None:
            async with nodes["a"].budget("dock", timeout=SOON):
                served.append(number)

        tasks = [asyncio.create_task(use(number)) for number in range(5)]
        await eventually(lambda: budgets.report("dock").waiting > 0 or len(budgets._queues["dock"]) == 5)
        tasks[2].cancel()
        await budgets.release("dock", held.hold)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served == [0, 1, 3, 4]
        with pytest.raises(NoRights):
            await budgets.acquire("dock", 2, timeout=0.01)


@pytest.mark.slow
async def test_rights_go_where_they_are_asked_for() -> None:
    async with fleet("a", "b", "c") as nodes:
        await nodes["a"].budgets.define("dock", 2, lease=60, nodes=["a"])
        await known(nodes, "dock")
        async with nodes["b"].budget("dock", timeout=SOON), nodes["c"].budget("dock", timeout=SOON) as hold:
            assert hold.node == "c"
            with pytest.raises(NoRights):
                await nodes["a"].budgets.acquire("dock")
            await eventually(lambda: nodes["a"].budgets.report("dock").held == 2)
            report = nodes["a"].budgets.report("dock")
            assert (report.free_here, report.free_elsewhere) == (0, 0)
            waiting = asyncio.create_task(nodes["a"].budgets.acquire("dock", timeout=SOON))
            await asyncio.sleep(0)
        assert (await waiting).node == "a"


@pytest.mark.slow
async def test_rights_of_another_node_are_had_by_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, names = msgspec.structs.replace(QUICK, gossip_every=3600.0), ["dock", "bay", "lift"]
    async with fleet("a", "b", settings=settings) as nodes:
        for name in names:
            await nodes["a"].budgets.define(name, 1, lease=60, nodes=["a"])
            await known(nodes, name)
        await eventually(lambda: len({node.gossip.state_hash for node in nodes.values()}) == 1)
        monkeypatch.setattr(ExchangeLoop, "push_now", AsyncMock(return_value=0))  # exchanges for other reasons
        loops = [node._runtime.exchanges for node in nodes.values()]
        begun = [loop.begun for loop in loops]
        for number, name in enumerate(names):
            assert (await nodes["b"].budgets.acquire(name, timeout=SOON)).node == "b"
            assert [loop.begun for loop in loops] == [begun[0], begun[1] + number + 1]


@pytest.mark.slow
async def test_no_further_owner_is_asked_once_one_has_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    async with fleet("a", "b", "c", "d", settings=settings) as nodes:
        await nodes["a"].budgets.define("dock", 3, lease=60, nodes=["a", "b", "c"])
        await known(nodes, "dock")
        await eventually(lambda: len({node.gossip.state_hash for node in nodes.values()}) == 1)
        monkeypatch.setattr(ExchangeLoop, "push_now", AsyncMock(return_value=0))  # exchanges for other reasons
        loop = nodes["d"]._runtime.exchanges
        begun = loop.begun
        for number in range(1, 4):
            assert (await nodes["d"].budgets.acquire("dock", timeout=SOON)).node == "d"
            await eventually(lambda: not nodes["d"].budgets._telling)
            assert loop.begun == begun + number


@pytest.mark.slow
async def test_a_demand_that_grows_where_rights_are_held_is_told_with_its_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner was told before the new demand was written, and not again."""
    monkeypatch.setattr(NodeBudgets, "tend", AsyncMock())  # else the next look would write it
    settings = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    async with fleet("a", "b", settings=settings) as nodes, asyncio.TaskGroup() as tasks:
        a, b = nodes["a"].budgets, nodes["b"].budgets
        await a.define("dock", 5, lease=60, nodes=["a", "b"])
        await known(nodes, "dock")
        await eventually(lambda: len({node.gossip.state_hash for node in nodes.values()}) == 1)
        held = [await a.acquire("dock") for _ in range(3)]
        for _ in range(2):
            await b.acquire("dock")
        monkeypatch.setattr(ExchangeLoop, "push_now", AsyncMock(return_value=0))  # exchanges for other reasons
        waiting = tasks.create_task(b.acquire("dock", timeout=SOON))
        await eventually(lambda: a.report("dock").waiting == 1)
        more = tasks.create_task(b.acquire("dock", 2, timeout=SOON))
        await eventually(lambda: a.report("dock").waiting == 3)
        for each in held:
            await a.release("dock", each.hold)
        await asyncio.gather(waiting, more)


@pytest.mark.slow
async def test_a_demand_that_is_not_written_yet_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet("a", "b") as nodes:
        b = nodes["b"].budgets
        await nodes["a"].budgets.define("dock", 2, lease=60, nodes=["a", "b"])
        await known(nodes, "dock")
        await b.acquire("dock")
        monkeypatch.setattr(b, "_step", lambda: None)  # as while the node may not write
        waiting = asyncio.create_task(b.acquire("dock", timeout=SOON))
        await eventually(lambda: bool(b._queues["dock"]))
        since = b._queues["dock"][0].since
        await eventually(lambda: b._escrow.has_passed(since, MOMENT))
        b._tell()
        assert not b._untold
        monkeypatch.undo()
        assert (await waiting).node == "b"


@pytest.mark.slow
async def test_a_hold_that_is_granted_as_the_wait_ends_is_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was held, and its process was told that it was not."""
    ends, timeout = dict[float | None, asyncio.Timeout](), asyncio.timeout

    def kept(delay: float | None) -> asyncio.Timeout:
        ends[delay] = timeout(delay)
        return ends[delay]

    async with fleet("a") as nodes:
        budgets = nodes["a"].budgets
        await budgets.define("dock", 1, lease=60)
        held = await budgets.acquire("dock")
        monkeypatch.setattr(asyncio, "timeout", kept)
        waiting = asyncio.create_task(budgets.acquire("dock", timeout=SOON))
        await eventually(lambda: len(budgets._queues["dock"]) == 1)
        ends[SOON].reschedule(0.0)
        await budgets.release("dock", held.hold)
        assert (await waiting).node == "a"


@pytest.mark.slow
@pytest.mark.parametrize("amount", [0, -1, 2**53 + 1])
async def test_an_amount_out_of_bounds_is_refused_at_once_where_others_wait(amount: int) -> None:
    async with fleet("a") as nodes:
        budgets = nodes["a"].budgets
        await budgets.define("dock", 1, lease=60)
        await budgets.acquire("dock")
        waiting = asyncio.create_task(budgets.acquire("dock", timeout=SOON))
        await eventually(lambda: len(budgets._queues["dock"]) == 1)
        with pytest.raises(ConstraintCrdtError, match="an amount is from 1"):
            await budgets.acquire("dock", amount, timeout=SOON)
        waiting.cancel()


@pytest.mark.slow
async def test_who_waits_behind_one_that_left_as_it_was_served_is_served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodeBudgets, "tend", AsyncMock())  # the next look would serve it, too
    monkeypatch.setattr("constraint_crdt.runtime.holds.SOON", SOON * SECOND)
    async with fleet("a") as nodes:
        budgets = nodes["a"].budgets
        await budgets.define("dock", 1, lease=60)
        held = await budgets.acquire("dock")
        tasks = [asyncio.create_task(budgets.acquire("dock", timeout=SOON)) for _ in range(2)]
        await eventually(lambda: len(budgets._queues["dock"]) == 2)
        first = budgets._queues["dock"][0]
        await budgets.release("dock", held.hold)
        assert first.granted.done()
        tasks[0].cancel()
        assert (await tasks[1]).waited < SOON / 2


@pytest.mark.slow
async def test_rights_go_to_a_node_in_contact_and_not_to_one_that_waited_for_longer() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes, asyncio.TaskGroup() as tasks:
        a = nodes["a"].budgets
        await a.define("dock", 1, lease=600, nodes=["a"])
        await known(nodes, "dock")
        held = await a.acquire("dock")
        away = tasks.create_task(nodes["b"].budgets.acquire("dock", timeout=None))
        await eventually(lambda: a.report("dock").waiting == 1)
        network.cut(["b"], ["a", "c"])
        await eventually(lambda: "b" not in a._contacts)
        waiting = tasks.create_task(nodes["c"].budgets.acquire("dock", timeout=None))
        await a.release("dock", held.hold)
        hold = await asyncio.wait_for(waiting, SOON)
        assert not away.done()
        network.heal()
        await nodes["c"].budgets.release("dock", hold.hold)
        assert (await asyncio.wait_for(away, SOON)).node == "b"


def test_one_look_tends_all_budgets() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    exchange(a, b)
    for name in (names := ["bay", "dock", "lift"]):
        a.escrow.define(name, 1, lease=60 * SECOND, nodes=["a"])
    exchange(a, b)
    for name in names:
        b.escrow.wait(name, Waiting(1, b.escrow.now))
    b.escrow.tend()
    exchange(a, b)
    a.escrow.tend()
    exchange(a, b)
    assert [b.escrow.acquire(name, 1, "someone").amount for name in names] == [1, 1, 1]


@pytest.mark.slow
async def test_a_loan_stays_in_use_while_its_owner_is_out_of_contact() -> None:
    network = MemoryNetwork()
    async with fleet("a", "b", "c", network=network) as nodes, asyncio.TaskGroup() as tasks:
        b = nodes["b"].budgets
        b._escrow._turn = 0  # else the turn would keep it
        await nodes["a"].budgets.define("dock", 1, lease=600, nodes=["a"])
        await known(nodes, "dock")
        hold = await b.acquire("dock", timeout=SOON)
        waiting = tasks.create_task(nodes["c"].budgets.acquire("dock", timeout=None))
        await eventually(lambda: b.report("dock").waiting == 1)
        network.cut(["a"], ["b", "c"])
        await eventually(lambda: "a" not in b._contacts)
        for _ in range(3):
            await b.release("dock", hold.hold)
            await b.tend()
            hold = await b.acquire("dock")
        network.heal()
        await b.release("dock", hold.hold)
        assert (await asyncio.wait_for(waiting, SOON)).node == "c"


async def test_a_node_of_another_site_that_this_one_does_not_speak_with_is_taken_for_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loan to it was never made, though the news goes through the speakers."""
    async with fleet("a") as nodes:
        budgets = nodes["a"].budgets
        assert not budgets._is_heard("b")
        monkeypatch.setattr(ExchangeLoop, "away", {"b"})
        monkeypatch.setattr(ExchangeLoop, "meets", lambda _, name: name != "b")
        assert budgets._is_heard("b")


@pytest.mark.slow
async def test_what_was_lent_to_a_node_that_is_gone_comes_back() -> None:
    """Its owner renewed it without an end, since the borrower had told that it needs it."""
    network, settings = MemoryNetwork(), msgspec.structs.replace(QUICK, max_skew=0.1)
    async with fleet("a", "b", network=network, settings=settings) as nodes:
        await nodes["a"].budgets.define("dock", 1, lease=1.0, nodes=["a"])
        await known(nodes, "dock")
        await nodes["b"].budgets.acquire("dock", timeout=SOON)
        network.cut(["a"], ["b"])
        assert (await nodes["a"].budgets.acquire("dock", timeout=SOON)).node == "a"


@pytest.mark.slow
@pytest.mark.parametrize("tended", [False, True], ids=["", "tended before its task ran"])
async def test_owners_hear_of_a_process_that_gave_up(tended: bool) -> None:
    settings = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    async with fleet("a", "b", settings=settings) as nodes:
        a, b = nodes["a"].budgets, nodes["b"].budgets
        await a.define("dock", 1, lease=60, nodes=["a"])
        await known(nodes, "dock")
        held = await a.acquire("dock")
        waiting = asyncio.create_task(b.acquire("dock", timeout=SOON))
        await eventually(lambda: a.report("dock").waiting == 1)
        waiting.cancel()
        if tended:
            await b.tend()
        await eventually(lambda: a.report("dock").waiting == 0)
        await a.release("dock", held.hold)
        assert a.report("dock").free_here == 1


@pytest.mark.slow
async def test_a_demand_is_told_once_and_again_when_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    async with fleet("a", "b", settings=settings) as nodes:
        a, b = nodes["a"].budgets, nodes["b"].budgets
        await a.define("dock", 2, lease=60, nodes=["a"])
        await known(nodes, "dock")
        held = [await a.acquire("dock") for _ in range(2)]
        monkeypatch.setattr(ExchangeLoop, "push_now", AsyncMock(return_value=0))  # exchanges for other reasons
        begin = AsyncMock(wraps=nodes["b"]._runtime.exchanges.begin)
        monkeypatch.setattr(nodes["b"]._runtime.exchanges, "begin", begin)
        waiting = [asyncio.create_task(b.acquire("dock", timeout=SOON))]
        await eventually(lambda: a.report("dock").waiting == 1)
        waiting.append(asyncio.create_task(b.acquire("dock", timeout=SOON)))
        await eventually(lambda: a.report("dock").waiting == 2)
        waiting.append(asyncio.create_task(b.acquire("dock", timeout=SOON)))
        await eventually(lambda: len(b._queues["dock"]) == 3)
        b._step()
        assert begin.await_count == 2, "as much as the limit is asked for already"
        for each in held:
            await a.release("dock", each.hold)
        for each in await asyncio.gather(*waiting[:2]):
            await b.release("dock", each.hold)
        assert (await waiting[2]).node == "b"


@pytest.mark.slow
async def test_other_nodes_are_asked_a_moment_later_where_rights_are_held_here(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = msgspec.structs.replace(QUICK, gossip_every=3600.0)
    async with fleet("a", "b", settings=settings) as nodes:
        a = nodes["a"].budgets
        await a.define("dock", 2, lease=60, nodes=["a", "b"])
        await known(nodes, "dock")
        await eventually(lambda: len({node.gossip.state_hash for node in nodes.values()}) == 1)
        monkeypatch.setattr(ExchangeLoop, "push_now", AsyncMock(return_value=0))  # exchanges for other reasons
        await a.acquire("dock")
        assert (await a.acquire("dock", timeout=SOON)).waited > MOMENT / SECOND * 0.9


@pytest.mark.slow
async def test_a_limit_is_raised_once_all_have_heard_and_lowered_at_once() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("power", 10, lease=60)
        await known(nodes, "power")
        await nodes["b"].budgets.define("power", 20)
        await eventually(lambda: nodes["a"].budgets.report("power").limit == 20)
        held = await nodes["a"].budgets.acquire("power", 20, timeout=SOON)
        await nodes["b"].budgets.define("power", 0)
        await eventually(lambda: nodes["a"].budgets.report("power").limit == 0)
        with pytest.raises(NoRights):
            await nodes["a"].budgets.acquire("power")
        assert (await nodes["a"].budgets.release("power", held.hold)).released
        await eventually(lambda: not nodes["a"].budgets.report("power").waits_for)


@pytest.mark.slow
async def test_a_budget_without_a_lease_is_used_up() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("tokens", 6, lease=0)
        await known(nodes, "tokens")
        for _ in range(3):
            assert (await nodes["b"].budgets.acquire("tokens", 2, timeout=SOON)).until is None
        with pytest.raises(NoRights):
            await nodes["a"].budgets.acquire("tokens", timeout=0.05)


@pytest.mark.long
async def test_a_hold_in_a_block_is_renewed_and_one_that_cannot_be_is_told() -> None:
    async with fleet("a") as nodes:
        node = nodes["a"]
        await node.budgets.define("dock", 1, lease=1)
        begun = asyncio.get_running_loop().time()
        async with node.budget("dock"):
            await eventually(lambda: asyncio.get_running_loop().time() - begun > 1.5)
            assert node.budgets.report("dock").held == 1
        with pytest.raises(HoldLost, match="dock"):
            await held_until_removed(node)


async def held_until_removed(node: Node) -> None:
    async with node.budget("dock"):
        await node.budgets.remove("dock")
        await asyncio.Event().wait()


@pytest.mark.slow
async def test_reports_are_shown_to_people() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("dock", 2, lease=120)
        await known(nodes, "dock")
        await nodes["a"].budgets.acquire("dock", holder="robot")
        shown = show_budgets(nodes["a"].budgets.reports(), None)  # type: ignore[arg-type]
        assert "robot" in str(shown)
        assert "2m" in str(shown)
        assert show_budgets([], None) != shown  # type: ignore[arg-type]
        await nodes["b"].stop()
        await eventually(lambda: nodes["a"].budgets.report("dock").stranded == 1)
        assert any("stranded" in note for note in notes_on(nodes["a"].budgets.report("dock")))
        await nodes["a"].retire("b")
        await eventually(lambda: [share.node for share in nodes["a"].gossip.state.budgets.heads("dock")[0].value.shares] == ["a"])


def test_a_program_without_a_loop_holds_in_a_block() -> None:
    with SyncNode(name="a", settings=QUICK, transport=MemoryNetwork().transport()) as node:
        node.run(lambda running: running.budgets.define("dock", 1, lease=60))
        with node.budget("dock", timeout=1) as hold:
            assert hold.amount == 1
            with pytest.raises(NoRights), node.budget("dock", timeout=0):
                pass
        with node.budget("dock", timeout=0):
            pass


BAD = ((-1, 60.0), (1, 0.1))
"""Limits and leases."""


def define(limit: int, lease: float, node: Node) -> Coroutine[object, object, object]:
    return node.budgets.define("dock", limit, lease=lease)


def test_bounds_are_told() -> None:
    with SyncNode(name="a", settings=QUICK, transport=MemoryNetwork().transport()) as node:
        for limit, lease in BAD:
            with pytest.raises(ConstraintCrdtError):
                node.run(partial(define, limit, lease))


@pytest.mark.slow
async def test_doctor_tells_of_stranded_rights_and_conflicts() -> None:
    async with fleet("a", "b") as nodes:
        assert nodes["a"]._runtime.budgets.findings() == []
        await nodes["a"].budgets.define("dock", 4, lease=60)
        await known(nodes, "dock")
        assert [each.level for each in nodes["a"].budgets.findings()] == ["ok"]
        await nodes["b"].stop()
        await eventually(lambda: nodes["a"].budgets.report("dock").stranded == 2)
        assert any("2 of the 4 of dock cannot be reached: b (2)" in each.what for each in nodes["a"].budgets.findings())


def told(node: Node) -> list[tuple[str, str, str]]:
    """The events on budgets: kind, detail, and the node of the change."""
    events = [each.event for each in node.event_stream.log.newest(100)]
    return [(each.kind.value, each.detail, each.by) for each in events if each.budget]


@pytest.mark.slow
async def test_events_tell_of_definitions_with_their_authors() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("dock", 4, lease=120)
        await known(nodes, "dock")
        await nodes["b"].budgets.define("dock", 3)
        await eventually(lambda: nodes["a"].budgets.report("dock").limit == 3)
        await nodes["b"].budgets.remove("dock")
        await eventually(lambda: "dock" not in nodes["a"].budgets)
        expected = [
            ("budget added", "limit 4, lease 2m", "a"),
            ("budget changed", "limit 4 -> 3", "b"),
            ("budget removed", "", "b"),
        ]
        assert told(nodes["a"]) == expected
        assert told(nodes["b"]) == expected
        assert all(each.event.actor for each in nodes["a"].event_stream.log.newest(100) if each.event.budget)


@pytest.mark.slow
async def test_limits_set_at_once_are_an_event_and_explained() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("dock", 4, lease=120)
        await known(nodes, "dock")
        # `feed.write` tells others at the next round, so both are written before either is heard.
        await asyncio.gather(nodes["a"].budgets.define("dock", 2), nodes["b"].budgets.define("dock", 3))
        for node in nodes.values():
            await eventually(partial(lambda node: len(node.budgets.report("dock").limits) == 2, node))
            assert told(node)[-1][:2] == ("budget conflict", "limits 2, 3, the lowest holds")
        found = nodes["a"].budgets.explanation("dock")
        assert sorted((each.limit, each.made_by) for each in found.definitions) == [(2, "a"), (3, "b")]
        assert all(each.actor for each in found.definitions)
        await nodes["a"].budgets.define("dock", 2)
        await eventually(lambda: told(nodes["b"])[-1][:2] == ("budget changed", "limit 2"))


@pytest.mark.slow
async def test_rights_out_of_reach_are_an_event_at_the_second_look() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("dock", 4, lease=60)
        await known(nodes, "dock")
        await nodes["b"].stop()
        await eventually(lambda: nodes["a"].budgets.report("dock").stranded == 2)
        for expected in ([], [("budget stranded", "b (2)", "")], [("budget stranded", "b (2)", "")]):
            nodes["a"].budgets.look()
            assert [each for each in told(nodes["a"]) if each[0] == "budget stranded"] == expected
        await nodes["a"].retire("b")
        nodes["a"].budgets.look()
        assert told(nodes["a"])[-1][0] == "budget reachable"
        assert ("budget changed", "limit 4; the share of b goes to others", "a") in told(nodes["a"])


@pytest.mark.slow
async def test_an_explanation_says_why_an_acquire_waits_and_by_when_a_lowered_limit_holds() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("dock", 2, lease=60, nodes=["a"])
        await known(nodes, "dock")
        assert nodes["a"].budgets.explanation("dock").wait == ""
        hold = await nodes["b"].budgets.acquire("dock", 2, holder="robot", timeout=SOON)
        await eventually(lambda: nodes["a"].budgets.report("dock").held == 2)
        assert "b holds 2" in nodes["a"].budgets.explanation("dock").wait
        await nodes["a"].budgets.define("dock", 1)
        found = nodes["a"].budgets.explanation("dock")
        assert [(each.node, each.live, each.beyond) for each in found.awaited if each.beyond] == [("a", True, 1)]
        assert found.holds_by is not None
        assert hold.until is not None
        assert found.holds_by >= hold.until
        text = str(show_explained(found))
        assert "a has 1 beyond its share, until in" in text
        assert "robot" in text
        await nodes["b"].budgets.release("dock", hold.hold)
        await eventually(lambda: nodes["a"].budgets.explanation("dock").holds_by is None)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"nodes": ["typo"]}, "typo is no node in service that may hold a share of dock: name one of a, b"),
        ({"nodes": []}, "needs a node with a share"),
        ({"gone": ["typo"]}, "no node typo is known here"),
    ],
)
async def test_nodes_that_are_not_there_get_no_share(given: dict[str, list[str]], why: str) -> None:
    async with fleet("a", "b") as nodes:
        with pytest.raises(ConstraintCrdtError, match=why):
            await nodes["a"].budgets.define("dock", 2, **given)  # type: ignore[arg-type]
        assert "dock" not in nodes["a"].budgets


async def test_doctor_tells_of_a_budget_whose_nodes_are_all_gone() -> None:
    async with fleet("a", "b") as nodes:
        await nodes["a"].budgets.define("dock", 2, lease=60, nodes=["b"])
        await nodes["b"].stop()
        await eventually(lambda: nodes["a"].budgets.report("dock").stranded == 2)
        nodes["a"].gossip.escrow.define("dock", 2, lease=60 * 10**9, nodes=[], without=["b"])
        [finding] = nodes["a"].budgets.findings()
        assert (finding.level, "no node in service has a share of dock" in finding.what) == ("warn", True)
