"""Two halves of a fleet whose only route is a relay that is cut and joined again."""

import pytest

from tests.fleet.processes import NodeProcess, processes, seconds_until
from tests.fleet.relay import Relay
from tests.fleet.test_three_processes import get, ids

pytestmark = [pytest.mark.long, pytest.mark.processes]


def satisfied(nodes: list[NodeProcess]) -> set[int]:
    return {get(node, "status")["satisfied"] for node in nodes}


def test_halves_go_on_working_and_agree_again_with_exact_counts() -> None:
    with processes() as start:
        a = start("a", "--no-discover")
        b = start("b", "--no-discover", "--connect", a.endpoints[0])
        host, port = b.endpoints[0].removeprefix("tcp/").split(":")
        relay = Relay((host, int(port)))
        c = start("c", "--no-discover", "--connect", relay.endpoint)
        d = start("d", "--no-discover", "--connect", c.endpoints[0])
        nodes = [a, b, c, d]
        a.run("add", "shared", "--when", "x < 1.0")
        seconds_until(lambda: all(ids(node) == ["shared"] for node in nodes))

        relay.cut()
        seconds_until(lambda: get(b, "status")["peers"] == get(c, "status")["peers"] == 1)
        for count, node in enumerate(nodes, start=1):
            node.run("record", "--satisfied", str(count), "--constraint", "shared")
        a.run("add", "left")
        d.run("add", "right")
        a.run("remove", "shared")
        d.run("add", "shared", "--when", "x < 2.0")
        seconds_until(lambda: satisfied([a, b]) == {3} and ids(b) == ["left"])
        seconds_until(lambda: satisfied([c, d]) == {7} and ids(c) == ["right", "shared"])

        relay.join()
        seconds_until(lambda: satisfied(nodes) == {10})
        seconds_until(lambda: len({get(node, "status")["hash"] for node in nodes}) == 1)
        assert all(ids(node) == ["left", "right", "shared"] for node in nodes), "an edit that the removal did not see wins"
        relay.close()
