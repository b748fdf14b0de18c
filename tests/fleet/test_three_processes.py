"""Three separate node processes, joined over Zenoh on loopback.

The design asks for one second (two after a restart), and the demo prints the margin. A busy machine may stand still for longer than
that, so here only the agreement is required.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fleet.processes import NodeProcess, processes, seconds_until

pytestmark = pytest.mark.processes


def get(node: NodeProcess, path: str) -> Any:
    return node.get(path)


def ids(node: NodeProcess) -> list[str]:
    return [each["id"] for each in get(node, "constraints")]


@pytest.fixture
def trio() -> Iterator[list[NodeProcess]]:
    with processes() as start:
        forge = start("forge")
        seed = ("--connect", forge.endpoints[0])
        nodes = [forge, start("anvil", *seed), start("tongs", *seed)]
        seconds_until(lambda: all(get(node, "status")["peers"] == 2 for node in nodes))
        yield nodes


def test_a_constraint_and_counts_reach_all_and_the_hash_agrees(trio: list[NodeProcess]) -> None:
    forge, anvil, tongs = trio
    forge.run("add", "max_speed", "--when", "speed_mps <= 1.5", "--severity", "critical")
    seconds_until(lambda: ids(anvil) == ids(tongs) == ["max_speed"])
    anvil.run("record", "--satisfied", "10")
    tongs.run("record", "--violations", "4", "--constraint", "max_speed")
    seconds_until(lambda: all((s := get(n, "status"))["satisfied"] == 10 and s["violations"] == 4 for n in trio))
    seconds_until(lambda: all(get(node, "status")["converged"] for node in trio))
    # Each node is asked in its turn, and any of them may write of its own accord in between.
    seconds_until(lambda: len({get(node, "status")["hash"] for node in trio}) == 1)
    assert len({node.ask("status")["constraints_hash"] for node in trio}) == 1
    assert [(each["node"], each["live"], each["same_constraints"]) for each in forge.ask("nodes")] == [
        ("anvil", True, True),
        ("forge", True, True),
        ("tongs", True, True),
    ]
    (report,) = tongs.ask("constraints")
    assert (report["added_by"], report["violations"], report["severity"]) == ("forge", 4, "critical")


def test_kill_9_leaves_the_others_answering_and_the_victim_comes_back_with_everything(trio: list[NodeProcess]) -> None:
    forge, anvil, tongs = trio
    tongs.run("record", "--satisfied", "3")
    seconds_until(lambda: get(forge, "status")["satisfied"] == 3)
    tongs.kill()
    forge.run("add", "while_away")
    seconds_until(lambda: ids(anvil) == ["while_away"])
    seconds_until(lambda: get(forge, "status")["peers"] == get(anvil, "status")["peers"] == 1)
    with processes(forge.fleet) as start:
        again = start("tongs", "--connect", forge.endpoints[0])
        seconds_until(lambda: ids(again) == ["while_away"])
        again.run("record", "--satisfied", "2")
        alive = [forge, anvil, again]
        seconds_until(lambda: {get(node, "status")["satisfied"] for node in alive} == {5})
        seconds_until(lambda: len({get(node, "status")["hash"] for node in alive}) == 1)


def test_sigterm_ends_a_node_in_order(trio: list[NodeProcess]) -> None:
    forge, anvil, _ = trio
    anvil.run("record", "--satisfied", "7")
    assert anvil.terminate() == 0
    assert not [line for line in anvil.log if "Traceback" in line]
    seconds_until(lambda: get(forge, "status")["satisfied"] == 7)
