"""Much that moves at once is told some at a time: each constraint once, in order; what was found about it goes at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from constraint_crdt import ConstraintState, Event, EventKind, MemoryNetwork, Node, to_json
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.expression.judgement import Turn
from constraint_crdt.model import VerdictState
from constraint_crdt.runtime.change_feed import ChangeOrigin, NodeChange
from constraint_crdt.runtime.evaluation import JUDGED_AT_ONCE
from constraint_crdt.runtime.event_log import AT_ONCE, QUEUED, EventPublisher, KeptEvent
from constraint_crdt.types.verdicts import NodeVerdict
from tests.runtime.fleet import QUICK, agreed, eventually, fleet

MANY = 5 * AT_ONCE + 1
IDS = [f"cell-{number:04}" for number in range(MANY)]
PIECES_PER_TURN = 2
"""One for what is told at once, one for what waits."""


def much(when: str = "x < 1.0", node: str = "far") -> ConstraintState:
    state = ConstraintState()
    for id_ in IDS:
        state.constraints.add(id_, node=node, when=when)
    return state


class Told:
    """The events of a node about constraints, each with the turn of the loop in which it was told."""

    def __init__(self, node: Node) -> None:
        self.events: list[tuple[int, KeptEvent]] = []
        self.turn = 0
        node.event_stream.listen(self._heard)

    def _heard(self, kept: KeptEvent) -> None:
        if kept.event.constraint:
            self.events.append((self.turn, kept))

    async def count_turns(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.turn += 1

    def of(self, *kinds: EventKind) -> list[str]:
        return [kept.event.constraint for _, kept in self.events if kept.event.kind in kinds]

    @property
    def most_in_a_turn(self) -> int:
        return max(Counter(turn for turn, _ in self.events).values())


@asynccontextmanager
async def following(node: Node) -> AsyncIterator[Told]:
    told = Told(node)
    counting = asyncio.create_task(told.count_turns())
    try:
        yield told
    finally:
        counting.cancel()


@asynccontextmanager
async def single() -> AsyncIterator[tuple[Node, Told]]:
    async with Node(name="forge", settings=QUICK, transport=MemoryNetwork().transport()) as node, following(node) as told:
        yield node, told


@pytest.mark.long
async def test_an_import_is_told_over_many_turns_of_the_loop_once_and_in_order() -> None:
    async with single() as (node, told):
        report = await node.import_state(to_json(much()))
        assert report.constraints == MANY
        assert len(told.events) < MANY, "not all of it was told before others had a turn"
        await eventually(lambda: len(told.events) >= MANY)
        assert told.of(EventKind.ADDED) == IDS
        assert told.most_in_a_turn <= PIECES_PER_TURN * AT_ONCE
        assert (await node.import_state(to_json(much()))).constraints == 0
        assert len(told.events) == MANY


@pytest.mark.long
async def test_what_a_peer_sends_is_told_over_many_turns_too() -> None:
    async with fleet("forge", "anvil") as nodes, following(nodes[1]) as told:
        await nodes[0].import_state(to_json(much()))
        await eventually(lambda: len(told.events) >= MANY)
        await eventually(lambda: agreed(nodes))
        assert told.of(EventKind.ADDED) == IDS
        assert told.most_in_a_turn <= PIECES_PER_TURN * AT_ONCE


@pytest.mark.slow
async def test_who_follows_the_events_misses_none_of_more_than_it_may_be_behind() -> None:
    assert MANY > QUEUED
    async with single() as (node, _):
        events = node.events()
        await node.import_state(to_json(much()))
        async with asyncio.timeout(20):
            heard = [await anext(events) for _ in IDS]
        assert [(each.kind, each.constraint) for each in heard] == [(EventKind.ADDED, id_) for id_ in IDS]


@pytest.mark.slow
async def test_who_comes_back_between_two_pieces_sees_no_gap() -> None:
    async with single() as (node, told):
        before = node.event_stream.log.last_id
        await node.import_state(to_json(much()))
        first = node.event_stream.log.after(before)
        assert 0 < len(first.events) < MANY
        await eventually(lambda: len(told.events) >= MANY)
        rest = node.event_stream.log.after(first.events[-1].id)
        assert (first.missed, rest.missed) == (0, 0)
        assert [each.event.constraint for each in (*first.events, *rest.events)] == IDS


@pytest.mark.slow
async def test_what_changes_before_it_is_told_is_told_once_as_it_is_then() -> None:
    async with single() as (node, told):
        await node.import_state(to_json(much()))
        assert not {IDS[-1], IDS[-2], IDS[-3]} & set(told.of(EventKind.ADDED))
        # None of these waits for anything, as one with a `when` would: so all of them are before the next piece.
        await node.remove_constraint(IDS[-1])
        await node.add_constraint(IDS[-2], about="edited")
        await node.remove_constraint(IDS[-3])
        await node.add_constraint(IDS[-3], about="added again")
        await node.add_constraint("later")
        await eventually(lambda: "later" in told.of(EventKind.ADDED))
        assert told.of(EventKind.ADDED) == [*IDS[:-1], "later"]
        details = {kept.event.constraint: kept.event.detail for _, kept in told.events}
        assert [details[id_] for id_ in IDS[-4:-1]] == ["x < 1.0", "", ""]
        assert told.of(EventKind.REMOVED, EventKind.CHANGED) == []


@pytest.mark.long
async def test_what_is_removed_at_once_is_told_as_removed_over_many_turns() -> None:
    async with single() as (node, told):
        state = much()
        await node.import_state(to_json(state))
        await eventually(lambda: len(told.events) == MANY)
        for id_ in IDS:
            state.constraints.remove(id_, node="far")
        assert (await node.import_state(to_json(state))).constraints == MANY
        await eventually(lambda: len(told.events) == 2 * MANY)
        assert told.of(EventKind.REMOVED) == IDS
        assert told.most_in_a_turn <= PIECES_PER_TURN * AT_ONCE


@pytest.mark.slow
async def test_stopping_tells_the_rest_before_the_events_end() -> None:
    node = Node(name="forge", settings=QUICK, transport=MemoryNetwork().transport())
    await node.start()

    async def follow() -> list[Event]:
        return [event async for event in node.events()]

    reading = asyncio.create_task(follow())
    await asyncio.sleep(0)  # it subscribes
    await node.import_state(to_json(much()))
    assert len(node.event_stream.log) < MANY
    await node.stop()
    async with asyncio.timeout(10):
        heard = await reading
    assert [each.constraint for each in heard] == IDS


@pytest.mark.long
async def test_what_was_found_is_forgotten_at_once_though_the_change_is_told_later() -> None:
    async with single() as (node, told):
        last = IDS[-1]
        await node.import_state(to_json(much()))
        await eventually(lambda: len(told.events) == MANY)
        await node.check({"x": 5.0})
        [report] = node.constraints([last])
        assert report.verdict == "violated"
        assert node.explanations.report(last).violations[0].violated is True
        state = much()
        for id_ in IDS:
            state.constraints.add(id_, node="far", when="y < 1.0")
        told.events.clear()
        assert (await node.import_state(to_json(state))).constraints == MANY
        assert last not in told.of(EventKind.CHANGED)
        [report] = node.constraints([last])
        assert (report.when, report.verdict) == ("y < 1.0", None)
        assert node.explanations.report(last).violations[0].violated is not True
        assert node.metrics.report().violated_here == 0
        await eventually(lambda: len(told.of(EventKind.CHANGED)) == MANY)
        assert told.of(EventKind.CHANGED) == IDS


@pytest.mark.long
async def test_a_constraint_is_violated_only_after_it_was_added_and_once() -> None:
    async with single() as (node, told):
        await node.import_state(to_json(much()))
        assert IDS[-1] not in told.of(EventKind.ADDED)
        await node.check({"x": 5.0})
        await eventually(lambda: len(told.events) >= 2 * MANY)
        await node.check({"x": 5.0})
        assert len(told.events) == 2 * MANY
        kinds: dict[str, list[EventKind]] = {}
        for _, kept in told.events:
            kinds.setdefault(kept.event.constraint, []).append(kept.event.kind)
        assert kinds == {id_: [EventKind.ADDED, EventKind.VIOLATED] for id_ in IDS}


@pytest.mark.long
async def test_a_check_of_many_gives_others_their_turn() -> None:
    assert MANY > JUDGED_AT_ONCE
    async with single() as (node, told):
        await node.import_state(to_json(much()))
        await eventually(lambda: len(told.events) == MANY)
        await eventually(lambda: not node._runtime.evaluator.judge.stale(1))  # else some are renewed in a turn of the check
        told.events.clear()
        await node.measure({"x": 5.0})
        await eventually(lambda: len(told.events) == MANY)
        assert told.of(EventKind.VIOLATED) == IDS
        assert told.most_in_a_turn <= JUDGED_AT_ONCE


async def test_a_violation_is_told_with_its_values_and_its_end_with_its_length() -> None:
    holds, bad, clearing, off = VerdictState.HOLDS, VerdictState.VIOLATED, VerdictState.CLEARING, VerdictState.OFF
    speed = (("speed_mps", "9.0"),)
    verdicts = {
        "speed": NodeVerdict(bad, 5 * SECOND, speed, -7.5, -5.0, "speed_mps"),
        "blind": NodeVerdict(bad, 6 * SECOND, reason="no measurement of x", by_default=True),
        "brief": NodeVerdict(holds, 9 * SECOND),
    }
    clock = [10 * SECOND]
    async with single() as (node, told):
        runtime = node._runtime
        publisher = EventPublisher(
            runtime.events, node.gossip, runtime.feed, runtime.tiles, verdicts.get, lambda _: [], max_skew=1.0, now=lambda: clock[0]
        )

        def turn(id_: str, *states: VerdictState) -> list[tuple[EventKind, str]]:
            told.events.clear()
            turns = [Turn(id_, before, after) for before, after in pairwise(states)]
            publisher.changed(NodeChange(ChangeOrigin.EVALUATED, state_changed=False, turns=turns))
            return [(kept.event.kind, kept.event.detail) for _, kept in told.events]

        assert turn("speed", holds, bad) == [(EventKind.VIOLATED, "speed_mps = 9.0, 7.5 above the limit (500 %)")]
        assert turn("blind", holds, bad) == [(EventKind.VIOLATED, "no measurement of x")]
        assert turn("speed", bad, clearing, bad, clearing) == []
        clock[0] = 17 * SECOND
        assert turn("speed", clearing, holds) == [(EventKind.SATISFIED, "after 12 s")]
        assert turn("blind", bad, off) == []
        assert turn("blind", bad, holds) == [(EventKind.SATISFIED, "")], "its beginning is not known any more"
        assert turn("brief", holds, bad, holds) == [(EventKind.VIOLATED, ""), (EventKind.SATISFIED, "after 0 s")]


@pytest.mark.slow
async def test_many_tiles_are_told_over_many_turns_once_and_in_order() -> None:
    state = ConstraintState()
    for id_ in IDS:
        state.tiles.tile("yard", id_).put("x", node="far")
    async with single() as (node, _):
        events = node.events()
        await node.import_state(to_json(state))
        async with asyncio.timeout(20):
            heard = [await anext(events) for _ in IDS]
        assert [(each.kind, each.tile) for each in heard] == [(EventKind.TILE_PUT, id_) for id_ in IDS]
