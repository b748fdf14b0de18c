"""What an operator types: addresses in short, numbers, names of other tools, several ids, the check of a monitor, a full disk."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from constraint_crdt.cli import main
from constraint_crdt.client import Address, read_address
from constraint_crdt.model import counted
from constraint_crdt.operations.evidence import PeerConvergence
from constraint_crdt.operations.nodes import (
    NodeReport,
    Status,
    ViolatedConstraint,
    away_nodes,
    check_status,
    show_check,
    show_status,
)
from constraint_crdt.operations.operation import UsageError, parse_measurements
from tests.cli.process import NodeProcess, running_node

Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *argv: str) -> tuple[int, str, str]:
    code = main(list(argv))
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8471", Address("127.0.0.1", 8471)),
        (":8471", Address("127.0.0.1", 8471)),
        ("forge:8471", Address("forge", 8471)),
        ("https://forge:8471", Address("forge", 8471, secure=True)),
        ("http://proxy:80/crdt/", Address("proxy", 80, prefix="/crdt")),
        ("https://proxy/a/b", Address("proxy", 8470, secure=True, prefix="/a/b")),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        " ",
        "zone in (",
        "a b:8470",
        "x <",
        "a\nb",
        "\udcff",
        "http://proxy/crdt?x=1",
        "http://proxy/a b",
        "http://proxy/#x",
        "99999",
        "0",
    ],
)
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no address of a node"):
        read_address(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("+5", 5), ("-3", -3), (".5", 0.5), ("5.", 5.0), ("-.5e3", -500.0), ("1e5", 1e5), ("true", True), ('"05"', "05"),
     ("1.2.3", "1.2.3"), ("2026-11-30", "2026-11-30"), ("null", "null"), ("infra", "infra")],
)  # fmt: skip
def test_a_value_of_the_command_line(text: str, value: object) -> None:
    found = parse_measurements([f"v={text}"])["v"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["05", "00", "-01", "1_000", "0x10", "nan", "NaN", "inf", "-Infinity", "1e400", "007.5"])
def test_a_text_that_may_be_meant_as_a_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="number"):
        parse_measurements([f"v={text}"])


def test_a_count_fits_its_noun_and_verb() -> None:
    assert [counted(each, "node", "is", "are") for each in (0, 1, 2)] == ["0 nodes are", "1 node is", "2 nodes are"]
    assert [counted(each, "live peer") for each in (0, 1, 2)] == ["0 live peers", "1 live peer", "2 live peers"]


@pytest.mark.parametrize(
    ("word", "commands"),
    [
        ("list", ["constraints"]),
        ("delete", ["remove"]),
        ("show", ["explain ID", "tile get ROOM ID"]),
        ("info", ["explain ID", "tile get ROOM ID", "status"]),
    ],
)
def test_a_word_of_other_tools_names_ours(word: str, commands: list[str], capsys: Capture) -> None:
    code, out, err = run(capsys, word)
    assert (code, out) == (2, "")
    ours = " or ".join(f"`constraint-crdt {command}`" for command in commands)
    assert f"invalid choice: '{word}' (it is {ours}); see" in err


@pytest.mark.long
def test_what_is_no_constraint_is_said_to_be_what_it_is(node_url: str, capsys: Capture) -> None:
    """The defect: `explain` said of a tile, a counter or a node that no such constraint is active, and nothing more."""
    for words in (
        ("tile", "put", "my lab", "note", "--text", "calibrated"),
        ("counter", "parts", "--by", "2"),
        ("set", "limit", "1.5"),
        ("measure", "speed=1.0"),
    ):
        assert run(capsys, *words, "--node", node_url)[0] == 0
    for name, told in (
        ("note", "a tile of the room my lab: `constraint-crdt tile get 'my lab' note`"),
        ("my lab/note", "a tile of the room my lab: `constraint-crdt tile get 'my lab' note`"),
        ("parts", "a counter: `constraint-crdt counter parts`"),
        ("limit", "a parameter: `constraint-crdt params limit`"),
        ("speed", "a variable: `constraint-crdt variables` and `constraint-crdt readings speed`"),
        ("forge", "a node: `constraint-crdt nodes` and `constraint-crdt events --of forge`"),
    ):
        code, out, err = run(capsys, "explain", name, "--node", node_url)
        assert (code, out) == (1, "")
        assert err == f"constraint-crdt explain: {name!r} is no constraint and no budget, but {told}\n"
        for command in told.split("`")[1::2]:
            assert run(capsys, *shlex.split(command)[1:], "--node", node_url)[0] == 0
    assert "no constraint 'nope' is active" in run(capsys, "explain", "nope", "--node", node_url)[2]


def test_an_unlike_word_names_the_help_and_not_all_commands(capsys: Capture) -> None:
    assert run(capsys, "xyzzy")[2] == ("constraint-crdt: argument COMMAND: invalid choice: 'xyzzy'; see `constraint-crdt --help`\n")


@pytest.mark.long
@pytest.mark.processes
def test_no_space_for_the_output_is_a_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        line = [sys.executable, "-m", "constraint_crdt", "completion", "bash"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "constraint-crdt: cannot write the output: No space left on device\n")


# --- several constraints --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with running_node() as node:
        yield node


@pytest.mark.processes
def test_constraints_are_listed_and_removed_by_id_and_by_pattern(node: NodeProcess, capsys: Capture) -> None:
    asked = ("--node", node.url)
    for id_ in ("thermal-a", "thermal-b", "power", "door"):
        run(capsys, "add", id_, *asked)
    listed = json.loads(run(capsys, "constraints", "thermal*", "door", *asked, "--json")[1])
    assert [each["id"] for each in listed] == ["door", "thermal-a", "thermal-b"]
    assert run(capsys, "constraints", "nothing*", "--json", *asked)[:2] == (0, "[]\n")
    code, _, err = run(capsys, "constraints", "thermal-c", *asked)
    assert code == 1
    assert "no constraint 'thermal-c' is active (thermal-b may be meant)" in err
    code, _, err = run(capsys, "remove", "doer", *asked)
    assert (code, err.strip().endswith("no constraint 'doer' is active (door may be meant)")) == (1, True)
    code, _, err = run(capsys, "remove", "door", "nope", *asked)
    assert (code, err.count("\n")) == (1, 1)
    assert "no constraint 'nope' is active" in err
    assert run(capsys, "remove", "thermal*", "door", *asked)[:2] == (0, "thermal-a: removed\nthermal-b: removed\ndoor: removed\n")
    assert run(capsys, "remove", "thermal*", *asked)[0] == 1
    for id_ in ("*", "thermal?"):
        code, _, err = run(capsys, "add", id_, *asked)
        assert (code, "is a pattern where constraints are named" in err) == (2, True)
    code, _, err = run(capsys, "remove", "*", *asked)
    assert (code, err) == (2, "constraint-crdt remove: there is no terminal to ask on: give --yes\n"), "an unset variable before *"
    assert run(capsys, "remove", "*", "--yes", *asked)[:2] == (0, "power: removed\n")


@pytest.mark.processes
def test_a_check_has_the_exit_codes_of_a_monitor(node: NodeProcess, capsys: Capture) -> None:
    asked = ("--node", node.url)
    code, out, _ = run(capsys, "status", "--check", *asked)
    assert (code, out) == (0, "OK: 0 constraints, 1 live node | violated=0 unknown=0 live=1 firing=0\n")
    run(capsys, "add", "max_speed", "--when", "speed_mps <= 1.5", "--severity", "critical", *asked)
    run(capsys, "check", "speed_mps=9", *asked)
    code, out, _ = run(capsys, "status", "--check", *asked)
    assert code == 2
    assert out.startswith("CRITICAL: violated: max_speed (critical) on ")
    assert "max_speed (critical) on" in run(capsys, "status", *asked)[1]
    run(capsys, "remove", "max_speed", *asked)
    code, out, err = run(capsys, "status", "--check", "--node", "1")
    assert (code, err) == (3, "")
    assert out.startswith("UNKNOWN: no node answers at http://127.0.0.1:1")
    assert json.loads(run(capsys, "status", "--check", "--node", "1", "--json")[1])["level"] == 3


SOUND = Status(
    node="a", replica="a~1", fleet="f", software="", hash="", constraints_hash="", constraints=2, satisfied=0, violations=0,
    satisfaction_rate=1.0, position=None, peers=2, known=3, in_service=3, agreeing=3, converged=True, staleness_p50=None,
    staleness_p99=None, rounds=0, syncs=0, exchanges=0, bytes_sent=0, bytes_received=0, written_bytes=0, cells=0, trouble=None,
    clock_alarms=0, clock_in_doubt=False, alarms=0, repairs=0, cells_repaired=0, endpoints=(), uptime=1.0,
)  # fmt: skip
WARM = ViolatedConstraint(id="warm", severity="warning", nodes=3, node="b", since=None)


@pytest.mark.parametrize(
    ("changes", "level", "why"),
    [
        ({}, 0, []),
        ({"worst": (WARM,), "violated_anywhere": 1}, 1, ["violated: warm (warning) on b, and on 2 more nodes"]),
        ({"worst": (WARM,), "violated_anywhere": 9}, 1, ["violated: warm (warning) on b, and on 2 more nodes",
                                                         "8 more constraints violated"]),
        ({"trouble": "the disk is full"}, 2, ["writes are refused: the disk is full"]),
        ({"peers": 0}, 1, ["cut off: none of the 2 other nodes in service is live: what they have is not known here"]),
        ({"peers": 1}, 1, ["1 node in service is not live"]),
        ({"peers": 1, "in_service": 4}, 1, ["2 nodes in service are not live"]),
        ({"peers": 0, "away": 2}, 1, ["cut off: none of the 2 other nodes in service is live: what they have is not known here"]),
        ({"unknown_here": 2, "firing": 1}, 1, ["2 constraints unknown on this node", "1 alert firing"]),
        ({"alarms": 1, "clock_in_doubt": True}, 2, ["a peer with the same clock had another state: one is corrupted",
                                                    "the clock is in doubt"]),
    ],
)  # fmt: skip
def test_the_level_of_a_status(changes: dict[str, object], level: int, why: list[str]) -> None:
    status = msgspec.structs.replace(SOUND, **changes)
    assert check_status(status) == (level, why)
    assert show_check(status).startswith(("OK: ", "WARNING: ", "CRITICAL: ")[level])


@pytest.mark.parametrize(
    ("changes", "shared", "agreement", "cut_off"),
    [
        ({}, "the same on 3 of 3 live nodes", "the same state on all live nodes", False),
        ({"peers": 0}, "as this node knows them", "not known", True),
        ({"peers": 0, "known": 1, "in_service": 1}, "on this node alone", "there is no other node", False),
        ({"converged": False, "agreeing": 1}, "the same on 1 of 3 live nodes", "changes still travel", False),
    ],
)
def test_a_node_that_is_cut_off_claims_nothing_of_others(
    changes: dict[str, object], shared: str, agreement: str, cut_off: bool
) -> None:
    lines = dict(show_status(msgspec.structs.replace(SOUND, **changes)).values)
    assert str(lines["constraints"]).endswith(shared)
    assert str(lines["agreement"]).startswith(agreement)
    assert ("CUT OFF" in lines) is cut_off


NOW = 1_000_000.0


def node_report(name: str, **changes: object) -> NodeReport:
    told = {"node": name, "state": "unreachable", "since": None, "behind": None, "ahead": None, "staleness": None, "heard": None}
    report = NodeReport(
        node=name, live=False, satisfied=0, violations=0, position=None, same_constraints=True, same_state=True, software="",
        labels={}, clock_offset=None, retired=False, convergence=PeerConvergence(**told),  # type: ignore[arg-type]  # as told
    )  # fmt: skip
    return msgspec.structs.replace(report, **changes)


def heard(ago: float) -> PeerConvergence:
    at = round((NOW - ago) * 1e9)
    return PeerConvergence(node="a", state="unreachable", since=at, behind=0, ahead=0, staleness=0.0, heard=at)


@pytest.mark.parametrize(
    ("changes", "uptime", "away"),
    [
        ({"convergence": heard(100.0)}, 5.0, True),
        ({"convergence": heard(10.0)}, 5.0, False),
        ({"convergence": heard(10.0)}, 1000.0, False),
        ({}, 1000.0, True),
        ({}, 5.0, False),
        ({"live": True, "convergence": heard(100.0)}, 5.0, False),
        ({"retired": True, "convergence": heard(100.0)}, 5.0, False),
        ({"revoked": True, "convergence": heard(100.0)}, 5.0, False),
        ({"convergence": None}, 1000.0, False),
        ({"convergence": msgspec.structs.replace(heard(100.0), state="reachable")}, 1000.0, False),
    ],
)
def test_a_node_is_away_only_as_long_as_it_is_known_to_be(changes: dict[str, object], uptime: float, away: bool) -> None:
    assert away_nodes([node_report("a", **changes)], 60.0, uptime, NOW) == (["a"] if away else [])
