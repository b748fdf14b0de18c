"""The counters and the positions of a fleet, as its nodes see and move them."""

import pytest

from constraint_crdt import ConstraintCrdtError
from tests.runtime.fleet import agreed, eventually, fleet


async def test_a_counter_moves_and_says_who_moved_it() -> None:
    async with fleet("a", "b") as (a, b):
        assert (await a.counters.move("parts", 5)).value == 5
        await b.counters.move("parts", -8)
        await eventually(lambda: agreed([a, b]))
        report = a.counters.report("parts")
        assert (report.value, report.increments, report.decrements, report.by_node) == (-3, 5, 8, {"a": 5, "b": -8})
        assert b.counters.reports() == [report]
        with pytest.raises(KeyError):
            a.counters.report("other")
        with pytest.raises(ValueError, match="other than 0"):
            await a.counters.move("parts", 0)
        with pytest.raises(ConstraintCrdtError):
            await a.counters.move("", 1)


@pytest.mark.slow
async def test_where_the_fleet_is_and_each_of_its_nodes() -> None:
    async with fleet("a", "b") as (a, b):
        assert (a.position().position, a.position().by, a.position().nodes) == (None, None, {})
        await a.update_position((3, -1))
        await eventually(lambda: agreed([a, b]))
        await b.update_position((5, 5))
        await eventually(lambda: agreed([a, b]))
        report = a.position()
        assert (report.position, report.norm, report.by) == ((5, 5), 25, "b")
        assert [(name, own.position, own.norm, own.distance) for name, own in report.nodes.items()] == [
            ("a", (3, -1), 13, 6),
            ("b", (5, 5), 25, 0),
        ]
