"""`POST /v1/batch`: many changes in one go, checked whole, applied in order, on disk together."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.model import Severity
from constraint_crdt.operations.constraints import (
    MAX_BATCH_BYTES,
    MAX_CHANGES,
    AddConstraint,
    BatchChange,
    BatchError,
    RecordCounts,
    RemoveConstraint,
)
from constraint_crdt.operations.operation import MAX_BODY_BYTES
from constraint_crdt.runtime.change_feed import apply_changes
from constraint_crdt.runtime.node import Node

MOST = 2**63 - 1


async def post(client: httpx.AsyncClient, *changes: object) -> httpx.Response:
    return await client.post("/v1/batch", json={"changes": changes})


async def test_changes_are_applied_in_order(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("old")
    answer = await post(
        client,
        {"add": {"id": "kept", "when": "a < 1.0", "severity": "critical", "about": "why"}},
        {"add": {"id": "gone"}},
        {"record": {"satisfied": 2, "violations": 1, "constraint": "gone"}},
        {"remove": {"id": "gone"}},
        {"remove": {"id": "old"}},
        {"add": {"id": "kept", "when": "a < 2.0"}},
        {"add": {"id": "kept", "when": "a < 2.0"}},
        {"record": {"satisfied": 4}},
    )
    assert answer.status_code == 200
    assert answer.json()["results"] == [
        {"id": "kept", "change": "added"},
        {"id": "gone", "change": "added"},
        {"id": "gone", "change": "recorded"},
        {"id": "gone", "change": "removed"},
        {"id": "old", "change": "removed"},
        {"id": "kept", "change": "replaced"},
        {"id": "kept", "change": "unchanged"},
        {"id": None, "change": "recorded"},
    ]
    [report] = node.constraints()
    assert (report.id, report.when, report.severity) == ("kept", "a < 2.0", "warning")
    assert (node.status().satisfied, node.status().violations) == (6, 1)
    assert node.gossip.state.metrics.constraint("gone") == (2, 1)


@pytest.mark.slow
async def test_a_batch_waits_for_the_disk_once_and_counts_in_one_cell(
    client: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.add_constraint("c1")
    waits, before = [], node.status().cells
    durable = node._runtime.persistence.durable

    async def counted() -> None:
        waits.append(node.status().satisfied)
        await durable()

    monkeypatch.setattr(node._runtime.persistence, "durable", counted)
    seq = node.gossip.state.rows.seq(node.gossip.replica)
    assert (await post(client, *[{"record": {"satisfied": 1, "constraint": "c1"}}] * 1000)).status_code == 200
    assert waits == [1000]
    assert node.status().cells == before + 1
    assert node.gossip.state.rows.seq(node.gossip.replica) == seq + 1


FINE = {"add": {"id": "fine"}}


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ({"add": {"id": "x", "when": "a <"}}, "changes[1].add.when", "column"),
        ({"add": {"id": "x", "when": "a" * 1025}}, "changes[1].add.when", "1024"),
        ({"add": {"id": ""}}, "changes[1].add.id", "1 to 256 bytes"),
        ({"add": {"id": 7}}, "changes[1].add.id", "`str`"),
        ({"add": {"id": "x", "about": "y" * 1025}}, "changes[1].add.about", "1024"),
        ({"add": {"id": "x", "severity": "fatal"}}, "changes[1].add.severity", "info, warning, critical"),
        ({"add": {"id": "x", "wen": "a"}}, "changes[1].add.wen", "there are id, when, severity, about"),
        ({"add": {}}, "changes[1].add.id", "missing"),
        ({"remove": {"id": "nope"}}, "changes[1].remove.id", "'nope'"),
        ({"record": {"satisfied": 1, "constraint": "nope"}}, "changes[1].record.constraint", "'nope'"),
        ({"record": {"satisfied": -1}}, "changes[1].record.satisfied", "negative"),
        ({"record": {"violations": -1}}, "changes[1].record.violations", "negative"),
        ({"record": {"violations": MOST}}, "changes[1].record.violations", "2**63 - 1"),
        ({"record": {"satisfied": 2**70}}, None, ""),
        ({"move": {}}, "changes[1].move", "there are add, remove, record"),
        ({}, "changes[1]", "exactly one"),
        ({"add": {"id": "x"}, "remove": {"id": "x"}}, "changes[1]", "exactly one"),
        (7, "changes[1]", "`object`"),
    ],
)
async def test_a_wrong_change_is_named_and_nothing_is_applied(
    client: httpx.AsyncClient, node: Node, wrong: object, field: str | None, says: str
) -> None:
    await node.record(violations=1)
    before = node.status().hash
    answer = await post(client, FINE, wrong, FINE)
    assert answer.status_code == 422
    problem: dict[str, Any] = answer.json()
    assert says in problem["detail"]
    if field is not None:
        assert problem["field"] == field
        assert f"`{field}`" in problem["detail"]
    assert node.status().hash == before


async def test_what_is_no_list_of_changes_is_refused(client: httpx.AsyncClient) -> None:
    bodies: list[object] = [{}, {"changes": {}}, []]
    for body in bodies:
        answer = await client.post("/v1/batch", json=body)
        assert answer.status_code == 422
        assert "changes" in answer.json()["detail"]


@pytest.mark.long
async def test_a_batch_has_ten_thousand_changes_at_most(client: httpx.AsyncClient, node: Node) -> None:
    many = [{"add": {"id": f"c{number}", "about": "x" * 200}} for number in range(MAX_CHANGES + 1)]
    answer = await post(client, *many)
    assert answer.status_code == 422
    assert "at most 10000 changes, not 10001" in answer.json()["detail"]
    assert node.constraints() == []
    answer = await post(client, *many[1:])
    assert int(answer.request.headers["content-length"]) > MAX_BODY_BYTES
    assert answer.status_code == 200
    assert node.status().constraints == MAX_CHANGES
    await post(client)  # an empty one is fine


@pytest.mark.slow
async def test_only_a_batch_may_be_large(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/batch", content=b" " * (MAX_BATCH_BYTES + 1), headers=headers)
    assert (answer.status_code, str(MAX_BATCH_BYTES) in answer.json()["detail"]) == (413, True)
    assert (await client.post("/v1/record", content=b" " * (MAX_BODY_BYTES + 1), headers=headers)).status_code == 413


async def test_a_batch_without_room_is_refused_whole(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("c0")
    node.gossip.state.rows.limits = Limits(cells=len(node.gossip.state.rows) + 20)
    before = node.status().hash
    answer = await post(client, *[{"add": {"id": f"c{number}"}} for number in range(30)])
    assert answer.status_code == 422
    assert "more than the" in answer.json()["detail"]
    assert node.status().hash == before
    assert (await post(client, *[{"remove": {"id": "c0"}}, *[{"add": {"id": f"c{n}"}} for n in range(5)]])).status_code == 200


# --- against the same changes, one by one ---------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c"])
COUNTS = st.sampled_from([0, 1, 5, MOST // 2, MOST, -1])
CHANGES = st.one_of(
    st.builds(AddConstraint, id=IDS, about=st.sampled_from([None, "x"]), severity=st.sampled_from(list(Severity))),
    st.builds(RemoveConstraint, id=IDS),
    st.builds(RecordCounts, satisfied=COUNTS, violations=st.integers(0, 3), constraint=st.none() | IDS),
)


def fresh(limits: Limits) -> GossipNode:
    """A node that shares two constraints with another one, and has counted."""
    node, other = GossipNode("n", incarnation=1), GossipNode("o", incarnation=1)
    for each in (node, other):
        each.add_constraint("a", about=each.node_id)
    other.add_constraint("b")
    node.record(1, 1, constraint="a")
    node.state.merge(other.state)
    node.state.rows.limits = limits
    return node


def one_by_one(node: GossipNode, changes: Sequence[BatchChange]) -> int | None:
    """The index of the first change that is refused, None if there is none."""
    for index, change in enumerate(changes):
        try:
            if isinstance(change, AddConstraint):
                node.add_constraint(change.id, severity=change.severity, about=change.about)
            elif isinstance(change, RemoveConstraint):
                node.remove_constraint(change.id)
            else:
                id_, metrics = change.constraint, node.state.metrics
                if id_ is not None and id_ not in node.state.constraints and not any(metrics.constraint(id_)):
                    return index
                node.record(change.satisfied, change.violations, constraint=id_)
        except (KeyError, ValueError, ConstraintCrdtError):
            return index
    return None


def content(rows: Rows) -> list[tuple[object, ...]]:
    """What is held, whatever the seqs."""
    return sorted((cell.replica, cell.kind, str(cell.key), cell.data) for cell in rows.live_cells())


@pytest.mark.slow
@given(changes=st.lists(CHANGES, max_size=12), cells=st.sampled_from([9, 10_000_000]))
def test_a_batch_does_what_its_changes_do_one_by_one_or_nothing(changes: list[BatchChange], cells: int) -> None:
    batched, single = fresh(Limits(cells=cells)), fresh(Limits())
    before = batched.state_hash
    refused = one_by_one(single, changes)
    outcome = attempt(batched, changes)
    if outcome == len(changes):
        assert refused is None
        assert content(batched.state.rows) == content(single.state.rows)
        assert batched.state.metrics.total == single.state.metrics.total
    else:
        assert outcome == refused or (outcome is None and cells == 9)
        assert batched.state_hash == before


def attempt(node: GossipNode, changes: Sequence[BatchChange]) -> int | None:
    """How many changes were made; or the index of the one that was refused; None if there was no room."""
    try:
        return len(apply_changes(node, changes))
    except BatchError as error:
        return error.index
    except ConstraintCrdtError:
        return None
