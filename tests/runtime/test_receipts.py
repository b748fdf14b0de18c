"""What exchanges cost, against the difference that they were for."""

from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, MemoryNetwork
from constraint_crdt.runtime.exchange_loop import RECEIPTS, ExchangeReceipt, Receipts
from tests.runtime.fleet import agreed, eventually, fleet
from tests.runtime.test_exchanges import Losing, Script, exchanger


def cell_bytes(node: GossipNode) -> int:
    return sum(len(cell.data) for run in node.state.rows.since({}) for cell in run.cells)


@pytest.mark.slow
@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 4), max_size=3 * RECEIPTS))
def test_totals_are_of_all_and_the_median_is_of_the_last(costs: list[tuple[int, int, int, int]]) -> None:
    receipts = Receipts()
    for sent, got, told, learned in costs:
        receipts.keep(ExchangeReceipt(peer="anvil", sent=sent, received=got, told=told, learned=learned))
    assert len(receipts.last) == min(len(costs), RECEIPTS)
    counted = [each for each in costs if each[2] + each[3]]
    assert receipts.carried == sum(sent + got for sent, got, _, _ in counted)
    assert receipts.difference == sum(told + learned for _, _, told, learned in counted)
    ratios = [(sent + got) / (told + learned) for sent, got, told, learned in costs[-RECEIPTS:] if told + learned]
    assert receipts.ratio == (median(ratios) if ratios else None)


@pytest.mark.parametrize("losses", [0, 2])
async def test_an_exchange_both_ways_is_accounted_for_to_the_byte(losses: int) -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other], Losing(losses))
    carrying, peer = exchanger(me, script), next(iter(script.nodes))
    me.add_constraint("max_speed", when="speed_mps <= 1.5")
    other.add_constraint("max_load")
    told, learned = cell_bytes(me), cell_bytes(other)
    assert await carrying.exchange(peer)
    (receipt,) = carrying.receipts.last
    assert (receipt.told, receipt.learned) == (told, learned)
    assert receipt.sent == sum(len(payload) for _, payload in script.requests)
    assert receipt.completed
    assert receipt.ratio == receipt.carried / (told + learned) > 1


async def test_two_that_agree_have_no_difference_and_no_ratio() -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other])
    carrying, peer = exchanger(me, script), next(iter(script.nodes))
    assert await carrying.exchange(peer)
    (receipt,) = carrying.receipts.last
    assert (receipt.ratio, carrying.receipts.ratio, carrying.receipts.carried) == (None, None, 0)
    assert receipt.sent > 0 < receipt.received


async def test_one_that_failed_leaves_a_receipt_too() -> None:
    me, other = GossipNode("me"), GossipNode("other")
    script = Script([other], lambda _: True)
    carrying, peer = exchanger(me, script), next(iter(script.nodes))
    assert not await carrying.exchange(peer)
    (receipt,) = carrying.receipts.last
    assert (receipt.completed, receipt.received) == (False, 0)
    assert receipt.sent == sum(len(payload) for _, payload in script.requests)


@pytest.mark.slow
async def test_receipts_add_up_over_a_lossy_fleet() -> None:
    """What the nodes learned as beginners, and told as beginners, covers all that any of them wrote."""
    network = MemoryNetwork()
    network.lose(0.2, Random(4))
    async with fleet("forge", "anvil", "press", network=network) as nodes:
        for node in nodes:
            await node.add_constraint(f"from_{node.settings.name}")
        await eventually(lambda: agreed(nodes))
        written = sum(node.status().written_bytes for node in nodes)
        assert sum(node.metrics.report().exchange_difference_bytes for node in nodes) >= 2 * written
        assert all(receipt.peer in {"forge", "anvil", "press"} for node in nodes for receipt in node.metrics.receipts())
