"""How much the property tests do: CONSTRAINT_CRDT_BUDGET is `default` or `nightly`."""

import gc
import os

import pytest
from hypothesis import HealthCheck, Phase, settings

BUDGET = os.environ.get("CONSTRAINT_CRDT_BUDGET", "default")
NIGHTLY_TIMEOUT = 6 * 3600

# A slow machine is no finding (deadline), and neither is a state machine whose example takes long to draw (too_slow).
_ANY_SPEED = settings(deadline=None, print_blob=True, derandomize=False, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", _ANY_SPEED, max_examples=60, stateful_step_count=40)
settings.register_profile("nightly", _ANY_SPEED, max_examples=2000, stateful_step_count=60)
settings.register_profile(  # for `mutmut`: the same examples for each mutant, and a failure is all that is asked for
    "mutation",
    _ANY_SPEED,
    max_examples=30,
    stateful_step_count=20,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(BUDGET)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The nightly budget takes longer than any one test may by default."""
    if BUDGET == "nightly":
        for item in items:
            item.add_marker(pytest.mark.timeout(NIGHTLY_TIMEOUT))


def pytest_collection_finish() -> None:
    """What was loaded to collect thousands of tests stays, and little of what a test leaves is in cycles: the collector would take
    a tenth of the time, walking over the same again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 100)
