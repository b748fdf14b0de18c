"""Cells of a version that raised a bound: they are kept, passed on and read as far as this version can, and stop no exchange."""

import pytest

from constraint_crdt import GossipNode, Verdict, exchange
from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.types.definition import ADD, LATER

LONG = "y" * 1_500

CELLS = {
    "about": (ADD, "c", ["x < 1.0", 2, LONG]),
    "when": (ADD, "c", ["x < 1.0 ".ljust(2_000), 2]),
    "severity": (ADD, "c", ["x < 1.0", 3]),
    "labels": (ADD, "c", ["x < 1.0", 2, None, [[f"{number:03}", "v" * 200] for number in range(50)]]),
    "for": (ADD, "c", ["x < 1.0", 2, None, [], None, None, 1, [2**62]]),
    "choice": (ADD, "c", ["x < 1.0", 2, None, [], None, None, 1, [0, 0, None, 7]]),
}


@pytest.mark.parametrize("what", CELLS)
def test_a_raised_bound_stops_no_exchange(what: str) -> None:
    later, middle, other = (GossipNode(name) for name in ("later", "middle", "other"))
    later.write(lambda me: later.state.rows.write(me, make_cell(*CELLS[what])))
    later.add_constraint("plain", when="x < 1.0")
    exchange(later, middle)
    exchange(other, middle)
    assert later.state_hash == middle.state_hash == other.state_hash
    assert "plain" in other.state.constraints


@pytest.mark.parametrize(
    ("what", "verdict"),
    [("about", Verdict.VIOLATED), ("severity", Verdict.UNKNOWN), ("choice", Verdict.UNKNOWN), ("when", Verdict.UNKNOWN)],
)
def test_what_this_version_cannot_read_is_unknown_and_the_rest_is_enforced(what: str, verdict: Verdict) -> None:
    node = GossipNode("a")
    node.write(lambda me: node.state.rows.write(me, make_cell(*CELLS[what])))
    [evaluation] = node.check({"x": 5.0})
    assert evaluation.verdict is verdict
    [definition] = node.state.constraints.definitions("c")
    assert (definition.meaning == LATER) is (what in ("severity", "choice"))
    assert node.state.constraints.additions("c")[0].definition.severity == "critical"
