"""`events`: what was kept, and what happens while it is followed."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from constraint_crdt import Node
from constraint_crdt.cli import main
from constraint_crdt.cli.watch import EventLines, Selection, Told
from tests import fork_server
from tests.cli.process import environment
from tests.dashboard.live_fleet import NAMES, live_fleet
from tests.runtime.fleet import eventually

Capture = pytest.CaptureFixture[str]


def test_what_happened_is_printed(node_url: str, capsys: Capture) -> None:
    for arguments in (["add", "seen", "--when", "x < 1.0"], ["remove", "seen"]):
        main([*arguments, "--node", node_url])
    capsys.readouterr()
    assert main(["events", "--node", node_url, "--last", "2"]) == 0
    added, removed = capsys.readouterr().out.splitlines()
    assert added.endswith("  added           seen: x < 1.0 (by local on forge)")
    assert removed.endswith("  removed         seen: was x < 1.0 (by local on forge)")
    assert main(["events", "--node", node_url, "--last", "2", "--kind", "removed", "--json"]) == 0
    (event,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (event["kind"], event["constraint"]) == ("removed", "seen")
    assert event["id"].count("-") == 1


@pytest.mark.processes
def test_what_happens_is_followed_until_it_is_interrupted(node_url: str, capsys: Capture) -> None:
    following = ["events", "--follow", "--last", "1", "--node", node_url]
    main(["add", "before", "--node", node_url])
    with fork_server.start(following, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("added           before (by local on forge)\n")
        main(["add", "meanwhile", "--node", node_url])
        assert process.stdout.readline().endswith("added           meanwhile (by local on forge)\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--kind", "noise"), 2, "there are added, changed"),
        (("--last", "10001"), 2, "at most 10000"),
        (("--follow", "--node", "127.0.0.1:9"), 1, "no node answers"),
        (("--node", "127.0.0.1:9"), 1, "no node answers"),
    ],
)
def test_mistakes_give_one_sentence(capsys: Capture, arguments: tuple[str, ...], code: int, says: str, tmp_path: Path) -> None:
    assert main(["events", *arguments]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says in err


# --- the fleet ---------------------------------------------------------------------------------------------------------------


async def heat(nodes: list[Node]) -> None:
    """All have the constraints, and then all are too hot."""
    await nodes[0].add_constraint("heat", when="heat_c < 85.0")
    await nodes[0].add_constraint("load", when="load < 0.9")
    await eventually(lambda: all({"heat", "load"} <= set(node.constraint_ids()) for node in nodes))
    for node in nodes:
        await node.measure({"heat_c": 99.0})


@pytest.mark.long
def test_turns_of_all_nodes_are_told_and_those_at_once_have_one_line(capsys: Capture) -> None:
    with live_fleet() as fleet:
        where = ("--node", fleet.url)
        fleet.do(heat(fleet.nodes))
        first = fleet.nodes[0]
        fleet.do(eventually(lambda: len(first.gossip.state.verdicts.violated_on("heat")) == len(NAMES)))
        assert main(["events", *where, "--constraint", "he*", "--kind", "violated"]) == 0
        [line] = capsys.readouterr().out.splitlines()
        assert "  violated        heat on " in line
        assert all(name in line for name in NAMES)
        assert ": heat_c = 99.0, 14 above the limit (16.5 %) (on " in line
        assert main(["events", *where, "--each", "--kind", "violated"]) == 0
        assert sorted(line.split(" on ")[1].split(":")[0] for line in capsys.readouterr().out.splitlines()) == sorted(NAMES)
        assert main(["events", *where, "--of", "to*", "--kind", "violated", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["id"], told["constraint"], told["node"]) == (None, "heat", "tongs")
        fleet.do(fleet.nodes[4].measure({"heat_c": 20.0}))
        fleet.do(eventually(lambda: "tongs" not in first.gossip.state.verdicts.violated_on("heat")))
        fleet.do(fleet.nodes[4].measure({"heat_c": "broken"}))
        fleet.do(eventually(lambda: "heat" in first.gossip.state.verdicts.unknown))
        assert main(["events", *where, "--of", "tongs", "--kind", "unknown", "--constraint", "heat"]) == 0
        assert '  unknown         heat on tongs: heat_c = "broken"; the evaluation failed' in capsys.readouterr().out


SECOND = 1_000_000_000


def lines(capsys: Capture, *told: Told) -> list[str]:
    """What is printed of these, without the time."""
    EventLines(Selection(), each=False, as_json=False).tell(told)
    return [line[21:] for line in capsys.readouterr().out.splitlines()]


def turn(second: float, kind: str, node: str, constraint: str = "a") -> Told:
    return Told(kind=kind, time=int(second * SECOND), constraint=constraint, node=node, detail=f"v = {second:g}")


def test_what_flaps_has_one_line(capsys: Capture) -> None:
    flaps = [turn(second, ("violated", "satisfied")[second % 2], "r1") for second in range(17)]
    calm = [turn(3.5, "violated", "r2"), turn(700, "satisfied", "r2"), turn(1500, "violated", "r1")]
    said = lines(capsys, *flaps, *calm)
    assert said[0] == "violated        a on r2: v = 3.5"
    assert said[1].startswith("flapping        a on r1: 17 turns since ")
    assert said[1].endswith(", violated now; v = 16")
    assert said[2:] == ["satisfied       a on r2: v = 700", "violated        a on r1: v = 1500"]
    begins = [turn(second, kind, "r1") for second, kind in enumerate(("unknown", "satisfied", "violated", "satisfied"))]
    assert [line.split()[0] for line in lines(capsys, *begins)] == ["unknown", "satisfied", "violated", "satisfied"]
    both = [turn(second, ("violated", "satisfied")[second % 2], f"r{node}") for node in (1, 2) for second in range(5)]
    [line] = lines(capsys, *both)
    assert line.startswith("flapping        a on r1, r2: 10 turns since ")
    assert line.endswith(", violated now on r1; v = 4")


def test_what_goes_on_flapping_is_told_at_each_doubling(capsys: Capture) -> None:
    printed = EventLines(Selection(), each=False, as_json=False)
    counts = []
    for second in range(40):
        printed.tell([turn(second, ("violated", "satisfied")[second % 2], "r1")])
        if "flapping" in capsys.readouterr().out:
            counts.append(second + 1)
    assert counts == [4, 8, 16, 32]


def test_what_happens_at_once_has_one_line_by_constraint_or_by_node(capsys: Capture) -> None:
    many = [turn(each / 10, "violated", f"r{each}") for each in range(12)]
    assert lines(capsys, *many) == ["violated        a on r0, r1, r2, r3, r4, r5, r6, r7, r8, r9 and 2 more: v = 0 (on r0)"]
    here = [turn(each / 10, "unknown", "r1", f"c{each}") for each in range(3)]
    assert lines(capsys, *here) == ["unknown         c0, c1, c2 on r1: v = 0 (c0)"]
    violated = [turn(each / 10, "violated", "r1", f"c{each}") for each in range(5)]
    assert lines(capsys, *violated) == ["violated        c0, c1, c2, c3, c4 on r1: v = 0 (c0)"]
    assert len(lines(capsys, *violated[:4])) == 4
    assert len(lines(capsys, *many[:2])) == 2
    apart = [turn(11 * each, "violated", f"r{each}") for each in range(3)]
    assert len(lines(capsys, *apart)) == 3
    gone = [Told(kind="peer down", time=each, node=f"r{each}") for each in range(4)]
    assert lines(capsys, *gone) == ["peer down       r0, r1, r2, r3"]
    assert len(lines(capsys, *[Told(kind="added", time=each, constraint=f"c{each}") for each in range(4)])) == 4
