"""The simulator: whole fleets of real nodes in a single process, in virtual time, decided by a seed.

`Simulation` runs aligned rounds. `Scenario` and `ScenarioRun` add links, partitions and churn in virtual time. `Chaos` draws
histories with faults and checks invariants after each step; `History`, `replay` and `shrink` keep the findings. `RecordedNode` and
`Replay` record the inputs of a node and run them again. `SimRng` is the generator of random numbers behind all of them.

`run_experiment` compares peers by lattice distance with peers at random. `make_plan` computes the costs of a `PlannedFleet` and how
long its agreement takes, as a `Plan`.

Each name is loaded on its first use.
"""

from typing import TYPE_CHECKING

from constraint_crdt import lazy_names

if TYPE_CHECKING:
    from constraint_crdt.simulation.chaos import Chaos, SearchExtent, search_seeds
    from constraint_crdt.simulation.histories import History, replay, shrink
    from constraint_crdt.simulation.invariants import Violation
    from constraint_crdt.simulation.plan import Plan, PlannedFleet, make_plan
    from constraint_crdt.simulation.recorder import RecordedNode, RecordingError, Replay, decode_frames, first_difference
    from constraint_crdt.simulation.scenario import (
        GeometricExperiment,
        Report,
        Sample,
        Scenario,
        ScenarioRun,
        Simulation,
        Stats,
        run_experiment,
    )
    from constraint_crdt.simulation.world import SimRng

_MODULE_OF = {
    "Chaos": "chaos",
    "SearchExtent": "chaos",
    "GeometricExperiment": "scenario",
    "History": "histories",
    "Plan": "plan",
    "PlannedFleet": "plan",
    "RecordedNode": "recorder",
    "RecordingError": "recorder",
    "Replay": "recorder",
    "Report": "scenario",
    "ScenarioRun": "scenario",
    "Sample": "scenario",
    "Scenario": "scenario",
    "SimRng": "world",
    "Simulation": "scenario",
    "Stats": "scenario",
    "Violation": "invariants",
    "decode_frames": "recorder",
    "first_difference": "recorder",
    "make_plan": "plan",
    "replay": "histories",
    "run_experiment": "scenario",
    "search_seeds": "chaos",
    "shrink": "histories",
}

__all__ = [
    "Chaos",
    "GeometricExperiment",
    "History",
    "Plan",
    "PlannedFleet",
    "RecordedNode",
    "RecordingError",
    "Replay",
    "Report",
    "Sample",
    "Scenario",
    "ScenarioRun",
    "SearchExtent",
    "SimRng",
    "Simulation",
    "Stats",
    "Violation",
    "decode_frames",
    "first_difference",
    "make_plan",
    "replay",
    "run_experiment",
    "search_seeds",
    "shrink",
]


__getattr__, __dir__ = lazy_names(__name__, {name: f"{__name__}.{place}" for name, place in _MODULE_OF.items()})
