"""Nodes that have to end for good: one that was retired, and one whose name is taken. Exit code 1, and the sentence on stderr."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.cli import main
from tests.cli.process import NodeProcess, ask, running_node
from tests.conftest import runtime_directory

pytestmark = pytest.mark.processes

RETIRED = (
    "constraint-crdt node: node anvil was retired by forge: start it under another name, or, if that was a mistake, run "
    "`constraint-crdt retire anvil --undo` on a node in service and start this one again"
)
Capture = pytest.CaptureFixture[str]


def seen(by: NodeProcess, name: str) -> Any:
    """What one node says of another; nothing while it has not heard of it."""
    return next((each for each in ask(by.url, "nodes") if each["node"] == name), {})


def run(capsys: Capture, node: NodeProcess, *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([argv[0], "--node", node.url, *argv[1:]])
    return code, *capsys.readouterr()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime_directory(tmp_path)))


@pytest.mark.long
@pytest.mark.usefixtures("runtime")
def test_a_retired_node_that_returns_ends_and_says_why(tmp_path: Path, capsys: Capture) -> None:
    with running_node("--fleet", "f", "--listen", "tcp/127.0.0.1:0") as forge:
        flags = ("--name", "anvil", "--fleet", "f", "--connect", forge.endpoint, "--store", str(tmp_path / "anvil.db"))
        with running_node(*flags) as anvil:
            assert main(["record", "--node", anvil.url, "--satisfied", "5"]) == 0
            while seen(forge, "anvil").get("satisfied") != 5:  # each look is a request, so it needs no pause
                pass
            code, out, err = run(capsys, forge, "retire", "anvil")
            assert (code, out) == (1, "")
            assert err.startswith("constraint-crdt retire: anvil is live: stop it first, or force it")
            code, out, _ = run(capsys, forge, "retire", "anvil", "--dry-run")
            assert code == 0
            assert out.startswith("anvil is live, so retiring it would be refused without --force; nothing was done (dry run)\n")
            assert "counts       5 satisfied, 0 violated: they stay\n" in out
            anvil.stop()
        while seen(forge, "anvil")["live"]:
            pass
        assert "anvil is not live, and would be retired for good" in run(capsys, forge, "retire", "anvil", "--dry-run")[1]
        assert not seen(forge, "anvil")["retired"]
        for argv, code, sentence in (
            (("an*",), 2, "would retire for good: anvil: say --yes, or look with --dry-run first"),
            (("--away", "7d"), 1, "there is no such node that was not heard of for 7d"),
            (("web-*", "--yes"), 1, "there is no such node: see `nodes`"),
            ((), 2, "name a node, or say --away TIME"),
            (("--away", "7d", "--undo"), 2, "leave it out with --undo"),
            (("--away", "soon"), 2, "'soon' is not a length of time"),
        ):
            found, _, err = run(capsys, forge, "retire", *argv)
            assert (found, sentence in err, err.count("\n")) == (code, True, 1), err
        assert "would be retired for good (dry run)" in run(capsys, forge, "retire", "--away", "0.001s", "--dry-run")[1]
        assert not seen(forge, "anvil")["retired"]
        code, out, err = run(capsys, forge, "retire", "anvil", "--json")
        assert (code, err) == (0, "")
        report = json.loads(out)
        assert (report["done"], report["live"], report["satisfied"]) == (True, False, 5)
        assert "is retired already" in run(capsys, forge, "retire", "anvil", "--dry-run")[1]

        with running_node(*flags) as returned:  # with its store: it does not know yet
            code, lines = returned.ends()
        assert (code, lines[-1][: len(RETIRED)]) == (1, RETIRED)
        with running_node(*flags) as returned:  # by now its store says so: it asks whether that is over
            code, lines = returned.ends()
        assert (code, lines[-1][: len(RETIRED)]) == (1, RETIRED)
        with running_node(*flags[:-2], "--store", "memory") as blank:  # it has to hear it as well
            code, lines = blank.ends()
        assert (code, lines[-1]) == (1, RETIRED)
        told = seen(forge, "anvil")
        assert (told["retired"], told["satisfied"]) == (True, 5)
        [line] = [line for line in run(capsys, forge, "nodes")[1].splitlines() if line.startswith("anvil")]
        assert line.split()[:3] == ["anvil", "retired", "5"]


@pytest.mark.usefixtures("runtime")
def test_a_live_node_that_is_retired_by_force_ends(capsys: Capture) -> None:
    with (
        running_node("--fleet", "f", "--listen", "tcp/127.0.0.1:0") as forge,
        running_node("--name", "anvil", "--fleet", "f", "--connect", forge.endpoint) as anvil,
    ):
        while not seen(forge, "anvil").get("software"):  # its first write: a node that never wrote is not retired
            pass
        out = run(capsys, forge, "retire", "anvil", "--dry-run", "--force")[1]
        assert "would be retired with the loss of its writes that no peer has taken yet (dry run)" in out
        code, out, _ = run(capsys, forge, "retire", "anvil", "--force")
        assert (code, out.splitlines()[0].partition(":")[0]) == (0, "anvil is retired for good")
        code, lines = anvil.ends()
        assert (code, lines[-1]) == (1, RETIRED)
        assert any("warning anvil retired" in line for line in forge.stop())


@pytest.mark.long
@pytest.mark.usefixtures("runtime")
def test_a_node_that_was_retired_by_mistake_goes_on_with_all_that_its_store_holds(tmp_path: Path, capsys: Capture) -> None:
    store = str(tmp_path / "anvil.db")
    alone = ("--name", "anvil", "--fleet", "f", "--store", store)
    with running_node("--fleet", "f", "--listen", "tcp/127.0.0.1:0") as forge:
        flags = (*alone, "--connect", forge.endpoint)
        with running_node(*flags) as anvil:
            assert main(["record", "--node", anvil.url, "--satisfied", "5"]) == 0
            while seen(forge, "anvil").get("satisfied") != 5:
                pass
            anvil.stop()
        while seen(forge, "anvil")["live"]:
            pass
        assert run(capsys, forge, "retire", "anvil", "--undo")[::2] == (1, "constraint-crdt retire: anvil is not retired\n")
        code, out, _ = run(capsys, forge, "retire", "an*", "--away", "0.001s", "--yes")
        assert (code, out.startswith("anvil is retired for good")) == (0, True)
        with running_node(*alone) as anvil:  # cut off: it does not know
            assert main(["record", "--node", anvil.url, "--satisfied", "7"]) == 0
            assert main(["add", "gate", "--node", anvil.url]) == 0
            anvil.stop()
        with running_node(*flags) as anvil:
            code, lines = anvil.ends()
        beyond = rf"; forge did not know \d of its mutations: `constraint-crdt export --store {re.escape(store)}` shows them"
        assert code == 1
        assert re.fullmatch(re.escape(RETIRED) + beyond, lines[-1]), "what it counted and added, and maybe its start"
        capsys.readouterr()
        assert main(["export", "--store", store]) == 0
        exported = json.loads(capsys.readouterr().out)
        assert ([each["id"] for each in exported["reading"]["constraints"]], exported["reading"]["satisfied"]) == (["gate"], 12)
        assert seen(forge, "anvil")["satisfied"] == 5

        dry = run(capsys, forge, "retire", "anvil", "--undo", "--dry-run")[1]
        assert dry.startswith("anvil was retired by forge, and would be in service again (dry run)\n")
        code, out, _ = run(capsys, forge, "retire", "anvil", "--undo")
        assert (code, out.splitlines()[0]) == (
            0,
            "anvil is in service again: start it with its store, and it goes on in a new life",
        )
        with running_node(*flags) as anvil:
            while seen(forge, "anvil").get("satisfied") != 12:
                pass
            assert ask(forge.url, "constraints")[0]["id"] == "gate"
            assert not seen(forge, "anvil")["retired"]
            while seen(anvil, "anvil")["retired"]:  # it has told what it holds, and may not have heard yet
                pass
            assert main(["record", "--node", anvil.url, "--satisfied", "1"]) == 0
            while seen(forge, "anvil")["satisfied"] != 13:
                pass
            lines = anvil.stop()
        [told] = [line for line in lines if "is in service again" in line]
        assert "forge undid its retirement; " in told
        assert "were not known to the node that retired it" in told


@pytest.mark.long
@pytest.mark.usefixtures("runtime")
def test_of_two_nodes_that_retired_each_other_while_apart_one_ends_when_they_meet(tmp_path: Path, capsys: Capture) -> None:
    forge_flags = ("--fleet", "f", "--listen", "tcp/127.0.0.1:0", "--store", str(tmp_path / "forge.db"))
    anvil_flags = ("--name", "anvil", "--fleet", "f", "--store", str(tmp_path / "anvil.db"))
    with running_node(*forge_flags) as forge, running_node(*anvil_flags, "--connect", forge.endpoint) as anvil:
        while not (seen(forge, "anvil").get("software") and seen(anvil, "forge").get("software")):
            pass
        anvil.stop()
        forge.stop()
    with running_node(*forge_flags) as forge:
        assert run(capsys, forge, "retire", "anvil")[0] == 0
        forge.stop()
    with running_node(*anvil_flags) as anvil:
        assert run(capsys, anvil, "retire", "forge")[0] == 0
        assert main(["record", "--node", anvil.url, "--satisfied", "3"]) == 0
        anvil.stop()
    with running_node(*anvil_flags, "--listen", "tcp/127.0.0.1:0") as anvil:
        with running_node(*forge_flags, "--connect", anvil.endpoint) as forge:
            code, lines = forge.ends()
        assert (code, "node forge was retired by anvil" in lines[-1]) == (1, True)
        assert [(each["node"], each["retired"]) for each in ask(anvil.url, "nodes")] == [("anvil", False), ("forge", True)]
        assert run(capsys, anvil, "retire", "forge", "--undo")[0] == 0
        with running_node(*forge_flags, "--connect", anvil.endpoint) as forge:
            while seen(forge, "anvil").get("satisfied") != 3:
                pass
            while any(each["retired"] for each in [*ask(anvil.url, "nodes"), *ask(forge.url, "nodes")]):
                pass  # anvil learns of the new life of forge with the next message


def test_a_name_that_is_unknown_or_ones_own_is_not_retired(capsys: Capture) -> None:
    with running_node() as forge:
        assert run(capsys, forge, "retire", "nope")[::2] == (
            1,
            "constraint-crdt retire: no node 'nope' ever wrote, as far as is known here\n",
        )
        for flags in ([], ["--dry-run"], ["--force"]):
            code, _, err = run(capsys, forge, "retire", "forge", *flags)
            assert code == 1
            assert err == "constraint-crdt retire: forge cannot retire itself: stop it, and retire it on another node\n"


@pytest.mark.long
def test_of_two_nodes_with_one_name_the_later_ends(capsys: Capture) -> None:
    with running_node("--fleet", "f", "--listen", "tcp/127.0.0.1:0") as first:
        assert main(["add", "--node", first.url, "kept"]) == 0
        with running_node("--fleet", "f", "--connect", first.endpoint) as second:
            code, lines = second.ends()
        assert code == 1
        assert lines[-1] == "constraint-crdt node: a node called forge is live already: start this one under another name"
        assert run(capsys, first, "constraints")[0] == 0
        assert main(["remove", "--node", first.url, "kept"]) == 0
        assert any("another live node is called forge too" in line for line in first.stop())
