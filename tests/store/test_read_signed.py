"""The store of a fleet with identities is read with what proves its rows: another node of the fleet takes the export."""

from itertools import count
from pathlib import Path

from constraint_crdt import GossipNode, exchange, from_json, to_json
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.simulation.histories import SimulatedCredentials
from constraint_crdt.state import ConstraintState
from constraint_crdt.store import Changes, read_store
from tests.store.disk import open_store, taken


def member(name: str) -> GossipNode:
    return GossipNode(name, incarnation=1, renew=count(2).__next__, fleet="f", credentials=SimulatedCredentials(name))


def test_what_a_store_of_signed_rows_holds_is_taken_by_another_node_of_the_fleet(tmp_path: Path) -> None:
    a, b = member("a"), member("b")
    changes = Changes(a.state.rows)
    for id_ in ("x", "y"):
        a.add_constraint(id_)
    exchange(a, b)
    b.remove_constraint("x")  # of the signed cell a stub is left in the row of `a`
    exchange(a, b)
    a.record(5)
    a.local.seal()
    store = open_store(tmp_path / "a.db")
    store.commit(taken(changes))
    store.close()
    rows = Rows()
    read_store(tmp_path / "a.db", rows)
    file = to_json(ConstraintState(rows))
    blank = member("c")
    assert blank.merge(from_json(file)).state_changed
    assert blank.state_hash == a.state_hash
    assert b.merge(from_json(file)).state_changed
    assert b.state.metrics.node_satisfied("a") == 5
