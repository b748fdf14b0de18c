"""The commands top, tally and seen against a real node."""

import pytest

from tests.cli.test_commands import Capture, read, run


def test_top_shows_what_is_violated_most(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "top") == (0, "nothing counted in violations yet\n", "")
    for id_, violations in (("hot", 30), ("fast", 10)):
        run(capsys, node_url, "add", id_)
        run(capsys, node_url, "record", "--violations", str(violations), "--constraint", id_)
    code, out, _ = run(capsys, node_url, "top")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["violated", "judgements,", "by", "constraint"],
        ["item", "at", "most", "at", "least", "share", "exact"],
        ["hot", "30", "30", "75.00", "%", "30"],
        ["fast", "10", "10", "25.00", "%", "10"],
    ]
    assert [each["item"] for each in read(capsys, node_url, "top", "-k", "1")["items"]] == ["hot"]


def test_tally_counts_any_item(node_url: str, capsys: Capture) -> None:
    assert run(capsys, node_url, "tally", "x/1 é") == (0, "counted 1 of x/1 é in items, 1 in all\n", "")
    assert run(capsys, node_url, "tally", "y", "--count", "4", "--of", "items")[1] == "counted 4 of y in items, 5 in all\n"
    top = read(capsys, node_url, "top", "--of", "items")
    assert [(each["item"], each["estimate"]) for each in top["items"]] == [("y", 4), ("x/1 é", 1)]
    code, out, err = run(capsys, node_url, "top", "--of", "other")
    assert (code, out) == (1, "")
    assert err == "constraint-crdt top: there is no sketch 'other' yet: the first item put into it begins it\n"
    code, _, err = run(capsys, node_url, "tally", "x", "--of", "violations")
    assert code == 2
    assert err.count("\n") == 1


def test_seen_asks_and_adds(node_url: str, capsys: Capture) -> None:
    code, _, err = run(capsys, node_url, "seen", "jobs", "17")
    assert (code, err) == (1, "constraint-crdt seen: there is no filter 'jobs' yet: the first item put into it begins it\n")
    assert run(capsys, node_url, "seen", "jobs", "17", "--add", "--expect", "100", "--fp-rate", "0.001") == (
        0,
        "17: new, and put in\n",
        "",
    )
    code, out, _ = run(capsys, node_url, "seen", "jobs", "17", "--add")
    assert out.startswith("17: seen before (wrong in ")
    assert run(capsys, node_url, "seen", "jobs", "18") == (0, "18: not seen\n", "")
    assert run(capsys, node_url, "seen", "jobs", "17")[1].startswith("17: seen (wrong in ")
    assert read(capsys, node_url, "seen", "jobs", "17")["seen"] is True


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["top", "-k", "0"], "from 1 to 1000"),
        (["top", "-k", "-3"], "is not a count"),
        (["tally", "x" * 300], "1 to 256 bytes"),
        (["tally", ""], "1 to 256 bytes"),
        (["seen", "f", "x", "--add", "--expect", "0"], "1 to 50331648 items"),
        (["seen", "f", "x", "--add", "--fp-rate", "2"], "above 0 and below 1"),
        (["seen", "f", "x", "--add", "--fp-rate", "nan"], "above 0 and below 1"),
        (["seen", "f", "x", "--add", "--fp-rate", "one"], "above 0 and below 1"),
        (["seen", "f", "x", "--expect", "5"], "--add"),
        (["seen", "", "x", "--add"], "must not be empty"),
        (["tally", "x", "--of", ""], "must not be empty"),
    ],
)
def test_misuse_is_one_sentence_and_exit_code_2(node_url: str, capsys: Capture, argv: list[str], says: str) -> None:
    code, out, err = run(capsys, node_url, *argv)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
