"""The end of every history: faults stop, and all nodes have to become equal within the bound of rounds (DESIGN 7.5)."""

from constraint_crdt.gossip.peers import Schedule
from constraint_crdt.simulation.fleet import Fleet
from constraint_crdt.simulation.invariants import Violation
from constraint_crdt.simulation.steps import Exchange

SPARE_ROUNDS = 1
"""So many more than the least possible, ceil(log3 n), may pass until all are equal."""


def settle(fleet: Fleet) -> None:
    """The liveness phase: nodes that are up ask each other in undisturbed rounds. Raises `Violation` if they stay different."""
    ended = {name for node in fleet.nodes.values() for name in node.state.retirements.nodes}
    names = [name for name in fleet.nodes if name not in ended]
    if len(names) < 2:
        return
    schedule = Schedule(len(names))
    number = 0
    for round_ in range(schedule.rounds + SPARE_ROUNDS):
        for place, name in enumerate(names):
            number -= 1  # steps of the history count up from 1
            peer = names[(place + schedule.offset(round_)) % len(names)]
            fleet.apply(Exchange(number=number, node=name, peer=peer))
    hashes = {node.state_hash for name, node in fleet.nodes.items() if name in names}
    if len(hashes) > 1:
        raise Violation("liveness", f"{len(names)} nodes have {len(hashes)} states after {schedule.rounds + SPARE_ROUNDS} rounds")
