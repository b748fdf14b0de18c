"""Coverage, --wait and explain on a fleet of processes, one of which is cut off: right before, meanwhile, and after (issue 6)."""

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import fork_server
from tests.fleet.processes import NodeProcess, clean_environment, processes, seconds_until
from tests.fleet.relay import Relay

pytestmark = [pytest.mark.long, pytest.mark.processes]


def tried(node: NodeProcess, *arguments: str) -> tuple[int, str, str]:
    done = fork_server.run([*arguments, "--node", node.api], env=clean_environment())
    return done.returncode, done.stdout, done.stderr


def holders(node: NodeProcess, id_: str) -> dict[str, bool | None]:
    return {each["node"]: each["holds"] for each in node.get(f"coverage/{id_}")["nodes"]}


def of(answer: Any, key: str, name: str) -> Any:
    return next(each for each in answer[key] if each["node"] == name)


ALL = {"anvil": True, "forge": True, "tongs": True}
BUT_TONGS = ALL | {"tongs": False}


@pytest.fixture
def trio() -> Iterator[list[NodeProcess]]:
    with processes() as start:
        forge = start("forge")
        seed = ("--connect", forge.endpoints[0])
        nodes = [forge, start("anvil", *seed), start("tongs", *seed)]
        seconds_until(lambda: all(node.get("status")["peers"] == 2 for node in nodes))
        yield nodes


def test_a_stopped_node_is_named_until_it_goes_on_and_has_heard(trio: list[NodeProcess]) -> None:
    forge, anvil, tongs = trio
    code, out, err = tried(forge, "add", "cool", "--when", "temp_c < 85.0", "--wait", "all")
    assert (code, out, err) == (0, "cool: added; 3 of 3 nodes have it\n", "")
    assert holders(forge, "cool") == ALL
    tongs.run("check", "temp_c=99")
    seconds_until(lambda: ("tongs", True) in [(each["node"], each["violated"]) for each in forge.get("explain/cool")["violations"]])

    tongs.process.send_signal(signal.SIGSTOP)
    stopped = time.time_ns()
    code, out, err = tried(forge, "add", "late", "--wait", "all", "--timeout", "3s")
    assert (code, out) == (1, "late: added\n")
    assert "only 2 of 3 nodes have it" in err
    assert "tongs" in err
    assert "anvil" not in err
    assert err.count("\n") == 1
    code, out, _ = tried(anvil, "add", "late", "--about", "edited", "--wait", "majority")
    assert (code, "2 of 3 nodes have it" in out) == (0, True)
    code, _, err = tried(anvil, "add", "late", "--about", "again", "--wait", "3", "--timeout", "1s")
    assert code == 1
    seconds_until(lambda: forge.get("status")["peers"] == 1)
    code, out, _ = tried(forge, "remove", "cool", "--wait", "live")
    assert (code, out) == (0, "cool: removed; 2 of 3 nodes have it\n")
    seconds_until(lambda: holders(anvil, "cool") == BUT_TONGS)
    for id_, change in (("late", "added"), ("cool", "removed")):
        answer = forge.ask("coverage", id_)
        assert (answer["change"], answer["have"], answer["lack"], answer["unknown"]) == (change, 2, 1, 0)
        lacking = of(answer, "nodes", "tongs")
        assert (lacking["holds"], lacking["live"]) == (False, False)
        assert stopped < lacking["since"] < time.time_ns()
        assert lacking["behind"] >= 3
    explained = forge.ask("explain", "late")
    assert explained["active"]
    assert {each["node"]: each["holds"] for each in explained["coverage"]["nodes"]} == BUT_TONGS
    (definition,) = explained["definitions"]
    assert (definition["added_by"], definition["about"]) == ("anvil", "again")
    gone = forge.ask("explain", "cool")
    assert (gone["active"], gone["definitions"], gone["removals"][-1]["by"]) == (False, [], "forge")
    assert of(forge.ask("convergence"), "peers", "tongs")["state"] == "unreachable"
    seconds_until(lambda: anvil.get("status")["peers"] == 1)
    assert of(anvil.ask("convergence"), "peers", "tongs")["state"] == "unreachable"
    assert of(forge.ask("convergence"), "peers", "tongs")["staleness"] > 0

    returned = time.time_ns()
    tongs.process.send_signal(signal.SIGCONT)
    code, out, err = tried(forge, "add", "late", "--about", "again", "--wait", "all", "--timeout", "40s")
    assert (code, err) == (0, "")
    assert "unchanged" in out
    assert "3 of 3 nodes have it" in out
    seconds_until(lambda: holders(forge, "cool") == holders(forge, "late") == ALL)
    assert of(forge.ask("coverage", "late"), "nodes", "tongs")["since"] > returned
    seconds_until(lambda: of(forge.get("convergence"), "peers", "tongs")["state"] == "same")
    seconds_until(lambda: forge.get("convergence")["staleness_p99"] == 0)  # a change of the fleet's own may be on its way
    assert "3 of 3 nodes have it" in forge.run("coverage")


def test_a_node_behind_a_cut_route_is_named_and_one_that_was_never_spoken_with_is_not_assumed() -> None:
    with processes() as start:
        forge = start("forge", "--no-discover")
        host, port = forge.endpoints[0].removeprefix("tcp/").split(":")
        relay = Relay((host, int(port)))
        anvil = start("anvil", "--no-discover", "--connect", relay.endpoint)
        start("tongs", "--no-discover", "--connect", anvil.endpoints[0])
        seconds_until(lambda: forge.get("status")["known"] == 3)
        code, out, _ = tried(anvil, "add", "shared", "--wait", "all")
        assert (code, out) == (0, "shared: added; 3 of 3 nodes have it\n")
        seconds_until(lambda: holders(forge, "shared") == {"anvil": True, "forge": True, "tongs": None})
        assert "tongs (not live, nothing is known of what it has)" in tried(forge, "add", "x", "--wait", "3", "--timeout", "1s")[2]

        relay.cut()
        seconds_until(lambda: anvil.get("status")["peers"] == 1)
        code, _, err = tried(anvil, "add", "cut", "--wait", "all", "--timeout", "2s", "--json")
        assert code == 1
        assert "forge (not live)" in err
        assert tried(anvil, "remove", "shared", "--wait", "live")[0] == 0
        assert holders(anvil, "cut") == {"anvil": True, "forge": False, "tongs": True}

        relay.join()
        code, out, _ = tried(anvil, "add", "cut", "--wait", "all", "--timeout", "40s", "--json")
        assert code == 0
        assert json.loads(out)["coverage"]["met"] is True
        assert holders(anvil, "shared") == {"anvil": True, "forge": True, "tongs": True}
        relay.close()
