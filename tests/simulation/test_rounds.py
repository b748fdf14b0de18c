"""`Simulation`: rounds, what they cost, and what it refuses."""

import math
from statistics import median

import pytest

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.peers import Nearby, Schedule, Uniform, hexagon
from constraint_crdt.simulation.scenario import Simulation
from constraint_crdt.types.tile_cells import hex_distance


def an_item_each(simulation: Simulation) -> Simulation:
    for index in range(len(simulation.nodes)):
        simulation.add_constraint(index, f"c{index}")
    return simulation


@pytest.mark.parametrize("count", [2, 3, 4, 9, 10, 32, 100])
def test_a_schedule_needs_the_least_number_of_rounds(count: int) -> None:
    simulation = an_item_each(Simulation(count, choice=Schedule(count)))
    rounds = simulation.run_until_converged(20)
    assert rounds is not None
    assert rounds <= math.ceil(math.log(count, 3) - 1e-9)
    assert simulation.stats.copies == 1.0
    assert all(len(node.state.constraints) == count for node in simulation.nodes)


@pytest.mark.long
def test_chance_needs_hardly_more() -> None:
    rounds = [an_item_each(Simulation(32, seed, choice=Uniform(32))).run_until_converged(20) for seed in range(9)]
    assert median(each or 99 for each in rounds) <= math.ceil(math.log(32, 3)) + 2


def test_two_in_a_turn_never_share_a_node() -> None:
    """What a turn is: side by side, so the order inside of it cannot matter."""
    turns: list[list[int]] = []

    class Watched(Simulation):
        def _exchange(self, me: int, peer: int) -> None:
            while len(turns) <= self._turns:
                turns.append([])
            turns[self._turns] += [me, peer]
            super()._exchange(me, peer)

    simulation = an_item_each(Watched(20, 1))
    simulation.step()
    simulation.step()
    assert simulation.stats.turns == len(turns)
    assert simulation.stats.exchanges == 40
    assert all(len(set(turn)) == len(turn) for turn in turns)


@pytest.mark.slow
@pytest.mark.parametrize("encoded", [False, True])
def test_lost_messages_cost_rounds_and_nothing_else(encoded: bool) -> None:
    simulation = an_item_each(Simulation(30, 2, loss=0.4, encoded=encoded))
    assert simulation.run_until_converged(60) is not None
    stats = simulation.stats
    assert 0.3 < stats.lost / stats.messages < 0.5
    assert all(len(node.state.constraints) == 30 for node in simulation.nodes)


@pytest.mark.slow
def test_objects_and_bytes_give_the_same_history() -> None:
    objects, data = (an_item_each(Simulation(25, 3, encoded=encoded)) for encoded in (False, True))
    assert objects.run_until_converged(30) == data.run_until_converged(30)
    assert [node.state_hash for node in objects.nodes] == [node.state_hash for node in data.nodes]
    one, other = objects.stats, data.stats
    assert (one.messages, one.copies, one.turns) == (other.messages, other.copies, other.turns)
    assert one.bytes is None
    assert other.bytes is not None
    assert other.bytes > 25 * 24 * 6  # each learns of 24 others: at least the cells


@pytest.mark.slow
def test_large_states_travel_in_parts() -> None:
    simulation = Simulation(3, 1, encoded=True)
    for index in range(1000):
        simulation.add_constraint(0, f"c{index}", about="x" * 200)
    assert simulation.run_until_converged(10) is not None
    assert len(simulation.node("n2").state.constraints) == 1000


@pytest.mark.long
def test_the_same_seed_gives_the_same_history() -> None:
    runs = [an_item_each(Simulation(40, 4, loss=0.2, encoded=True)) for _ in range(2)]
    for _ in range(6):
        for each in runs:
            each.step()
        assert [node.state_hash for node in runs[0].nodes] == [node.state_hash for node in runs[1].nodes]
    assert runs[0].stats == runs[1].stats
    other = an_item_each(Simulation(40, 5, loss=0.2, encoded=True))
    other.run_until_converged(20)
    assert other.stats != runs[0].stats


@pytest.mark.long
def test_links_between_neighbours_cost_less() -> None:
    points = hexagon(91)

    def distance(one: int, other: int) -> int:
        return hex_distance(points[one], points[other])

    cost = {}
    for name, choice in ("uniform", Uniform(91)), ("nearby", Nearby(points)):
        simulation = an_item_each(Simulation(91, 6, choice=choice, distance=distance))
        simulation.run_until_converged(40)
        cost[name] = simulation.stats.cost
    assert cost["nearby"] < 0.65 * cost["uniform"]


def test_every_write_reaches_everybody() -> None:
    simulation = Simulation(8, 7)
    simulation.add_constraint("n3", "speed", when="speed <= 1.5", severity="critical", about="indoors")
    simulation.record_satisfied(1, 5, constraint="speed")
    simulation.record_violations(2, 2)
    simulation.update_position(4, (3, -1))
    simulation.add_constraint(5, "gone")
    simulation.remove_constraint(5, "gone")
    before = simulation.is_converged
    assert simulation.run_until_converged(20)
    assert (before, simulation.is_converged) == (False, True)
    for node in simulation.nodes:
        assert list(node.state.constraints) == ["speed"]
        assert node.state.metrics.total == (5, 2)
        assert node.state.position == (3, -1)
    told = simulation.summary()
    assert "all nodes agree" in told
    assert f"{simulation.stats.rounds} rounds" in told


def test_a_summary_tells_of_loss_and_disagreement() -> None:
    simulation = an_item_each(Simulation(12, 8, loss=0.9, retries=0, encoded=True))
    simulation.step()
    told = simulation.summary()
    assert "different states" in told
    assert f"{simulation.stats.lost} lost" in told
    assert "bytes per node" in told


@pytest.mark.slow
def test_so_many_rounds_may_not_suffice() -> None:
    simulation = an_item_each(Simulation(30, 9))
    assert simulation.run_until_converged(1) is None
    assert simulation.stats.rounds == 1
    assert simulation.run_until_converged(0) is None
    assert simulation.run_until_converged(20)
    assert simulation.run_until_converged(0) == 0


@pytest.mark.parametrize("arguments", [{"loss": 1.0}, {"loss": -0.1}, {"loss": math.nan}, {"retries": -1}])
def test_settings_without_sense_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConstraintCrdtError):
        Simulation(5, **arguments)  # type: ignore[arg-type]  # what is tried


@pytest.mark.parametrize("count", [-3, 0, 1, 100_001])
def test_fleets_of_no_sense_are_refused(count: int) -> None:
    with pytest.raises(ConstraintCrdtError, match="2 to 100000 nodes"):
        Simulation(count)


@pytest.mark.parametrize("which", [-1, 5, "n5", "", "five"])
def test_a_node_that_is_not_there_is_named(which: int | str) -> None:
    with pytest.raises(ConstraintCrdtError, match="n0 to n4"):
        Simulation(5).record_satisfied(which)
