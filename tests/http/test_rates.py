"""The route for recent evaluations."""

import httpx
import msgspec
import pytest

from constraint_crdt.operations.counts import RatesReport
from constraint_crdt.runtime.node import Node


@pytest.mark.slow
async def test_rates_are_the_nodes(client: httpx.AsyncClient, node: Node) -> None:
    await node.add_constraint("a/1 é")
    await node.record(6, 2, constraint="a/1 é")
    answer = await client.get("/v1/rates", params={"half_life": "300"})
    assert answer.headers["cache-control"] == "private, no-cache"
    report = msgspec.json.decode(answer.content, type=RatesReport)
    assert (report.half_life, report.tracked) == (300.0, (60.0, 300.0, 3600.0))
    [one] = report.constraints
    assert one.constraint == "a/1 é"
    assert one.violated_share == pytest.approx(0.25)
    assert 5.9 < one.satisfied <= 6.0
    assert list(one.by_node) == ["forge"]
    assert report.total.satisfied == one.satisfied
    one_only = (await client.get("/v1/rates", params={"constraint": "a/1 é", "node": "forge"})).json()
    assert (one_only["half_life"], len(one_only["constraints"])) == (60.0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "status", "field", "says"),
    [
        ({"half_life": "420"}, 422, "half_life", "`half_life`: no half-life of 420 s is tracked here, but 60, 300, 3600 s"),
        ({"half_life": "5m"}, 422, "half_life", "'5m' is not a number of seconds"),
        ({"half_life": "nan"}, 422, "half_life", "'nan' is not a number of seconds"),
        ({"half_life": "-1"}, 422, "half_life", "a half-life is from"),
        ({"halflife": "60"}, 422, "halflife", "there is no parameter `halflife`: there is half_life"),
        ({"constraint": "nope"}, 404, "constraint", "no constraint 'nope' is active"),
        ({"node": "nope"}, 404, "node", "no node 'nope' ever wrote"),
    ],
)
async def test_a_wrong_question_is_answered_with_what_is_wrong(
    client: httpx.AsyncClient, query: dict[str, str], status: int, field: str, says: str
) -> None:
    answer = await client.get("/v1/rates", params=query)
    assert (answer.status_code, answer.json()["field"]) == (status, field)
    assert says in answer.json()["detail"]
