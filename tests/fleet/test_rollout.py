"""A rollout as a stranger does it, over five processes: stages, kill -9 of the driving node, a violation, and the way back."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.protocol.sites import weight
from tests.fleet.processes import NodeProcess, processes, seconds_until

pytestmark = [pytest.mark.long, pytest.mark.processes]

OLD = '[[constraint]]\nid = "speed"\nwhen = "v <= 2.0"\n'
NEW = '[[constraint]]\nid = "speed"\nwhen = "v <= 1.0"\n\n[[constraint]]\nid = "fresh"\nwhen = "v >= 0.0"\n'
GATE = "violations == 0 && reachable >= nodes - 1.0 for 4s"


def rollout(node: NodeProcess) -> dict[str, Any]:
    found: list[dict[str, Any]] = node.get("rollouts")
    return found[-1] if found else {"phase": "not known"}


def is_in(node: NodeProcess, phase: str) -> bool:
    return bool(rollout(node)["phase"] == phase)


def whens(node: NodeProcess) -> dict[str, str]:
    return {each["id"]: each["when"] for each in node.get("constraints")}


def test_stages_a_killed_driver_a_violation_and_the_way_back(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text(OLD)
    new.write_text(NEW)
    with processes() as start:
        nodes = {"n0": start("n0", "--label", "zone=a")}
        for name, zone in (("n1", "b"), ("n2", "b"), ("n3", "c"), ("n4", "c")):
            nodes[name] = start(name, "--label", f"zone={zone}", "--connect", nodes["n0"].endpoints[0])
        seconds_until(lambda: all(node.get("status")["peers"] == 4 for node in nodes.values()))
        nodes["n0"].run("apply", str(old))
        seconds_until(lambda: all(whens(node) == {"speed": "v <= 2.0"} for node in nodes.values()))
        for name, node in nodes.items():
            node.run("measure", f"v={1.5 if name in ('n3', 'n4') else 0.5}")
        nodes["n0"].run("apply", str(new), "--stage", "zone=a,zone=b,zone=c", "--gate", GATE, "--why", "a wet floor")
        id_ = rollout(nodes["n0"])["id"]
        driver = max(nodes, key=lambda name: weight(name, id_, ""))
        seconds_until(lambda: rollout(nodes["n4" if driver != "n4" else "n3"]).get("stage", 0) >= 2)
        nodes.pop(driver).kill()

        last = next(iter(nodes.values()))
        seconds_until(lambda: rollout(last)["phase"] == "stopped")
        for node in nodes.values():
            seconds_until(partial(is_in, node, "stopped"))
            found = rollout(node)
            assert (found["id"], found["stage"], found["by_node"] != driver) == (id_, 3, True)
            assert "the gate does not hold: violations = " in found["reason"]
            assert ": speed is violated by v = 1.5" in found["reason"]
            assert whens(node)["speed"] == "v <= 2.0", "the former definition stands until all stages are done"
        assert f"{id_}: STOPPED in stage 3 of 3" in last.run("status")
        assert "rolled back" in last.run("rollout", "back", id_[:5], "--why", "two nodes are faster")
        for node in nodes.values():
            seconds_until(partial(is_in, node, "rolled back"))
            assert whens(node) == {"speed": "v <= 2.0"}
