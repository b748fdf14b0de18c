"""Chaos: histories are the same again for the same seed, every kind of fault comes about, and nothing is found in the real code."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from typing import get_args

import msgspec
import pytest

from constraint_crdt.errors import InvalidValue
from constraint_crdt.simulation import world
from constraint_crdt.simulation.chaos import FAULTS, NETWORK_FAULTS, OPERATIONS, SITE_FAULTS, Chaos, SearchExtent, search_seeds
from constraint_crdt.simulation.histories import replay, shrink
from constraint_crdt.simulation.steps import (
    BUDGET_ACTS,
    OF_BUDGETS,
    OF_SITES,
    TILE_ACTS,
    TOGETHER,
    WRITES,
    Add,
    AnyStep,
    Budget,
    Describe,
    Tile,
    Write,
    kinds,
)
from tests.conftest import BUDGET

HISTORIES = 20_000 if BUDGET == "nightly" else 2
OTHER_HISTORIES = max(2, HISTORIES // 2)
"""Of the network, and with sites: one alone has too few of their faults."""
FIRST_SEED = 700_000
REPLAYED = 80 if BUDGET == "nightly" else 40
"""Operations of the histories that are replayed."""

_DIGEST = """
import hashlib, msgspec
from constraint_crdt.simulation.chaos import Chaos
outcome = Chaos(11, operations=40).run()
print(hashlib.sha256(msgspec.json.encode(list(outcome.steps))).hexdigest(), outcome.events, sorted(outcome.fired.items()))
"""


@pytest.mark.long
def test_the_drawn_definitions_have_every_field() -> None:
    added = [step for step in Chaos(5, operations=120).run().steps if isinstance(step, Add)]
    plain = Add(number=0, node="a", id="x")
    for name in ("when", "about", "ttl", "for_", "clear_after", "clear_when", "if_unknown", "max_age"):
        assert any(getattr(each, name) != getattr(plain, name) for each in added), name


@pytest.mark.long(by_day=["False"])
@pytest.mark.parametrize("signed", [False, True])
def test_nothing_goes_wrong(signed: bool) -> None:
    tally, found = search_seeds(FIRST_SEED, HISTORIES, signed=signed)
    assert found is None, f"seed {found.seed}: {found.sentence}"
    assert tally.histories == HISTORIES
    assert tally.operations >= HISTORIES * OPERATIONS
    assert tally.checks > tally.operations  # each mutation, and what is taken in
    if BUDGET == "nightly":
        assert tally.never_fired() == tally.never_written() == []
        assert tally.written[TOGETHER]
    else:  # a few histories cannot have them all
        assert len(tally.never_fired()) < len(FAULTS) / 3
        assert len(tally.never_written()) < len(WRITES) / 3


@pytest.mark.long
@pytest.mark.parametrize("signed", [False, True])
def test_nothing_goes_wrong_on_slow_and_half_broken_links(signed: bool) -> None:
    """Each history ends with all nodes equal within the bound on time, by themselves."""
    tally, found = search_seeds(FIRST_SEED, OTHER_HISTORIES, signed=signed, network=True)
    assert found is None, f"seed {found.seed}: {found.sentence}"
    assert any(tally.fired[fault] for fault in NETWORK_FAULTS)
    if BUDGET == "nightly":
        assert tally.never_fired() == tally.never_written() == []


def test_nodes_that_answer_each_other_without_end_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "MOST_MESSAGES", 100)
    violation = Chaos(FIRST_SEED, network=True).run().violation
    assert violation is not None
    assert violation.invariant == "messages"


@pytest.mark.long
@pytest.mark.parametrize(("sites", "network", "signed"), [(3, False, False), (2, True, True)])
def test_nothing_goes_wrong_in_fleets_with_sites(sites: int, network: bool, signed: bool) -> None:
    """Sites are cut off and restart, their speakers are killed, and nodes move; then all are equal within the bound on time."""
    tally, found = search_seeds(FIRST_SEED, OTHER_HISTORIES, signed=signed, network=network, sites=sites)
    assert found is None, f"seed {found.seed}: {found.sentence}"
    assert sum(tally.fired[fault] > 0 for fault in SITE_FAULTS) >= 2
    assert tally.written[OF_SITES]
    if BUDGET == "nightly":
        assert tally.never_fired() == tally.never_written() == []


@pytest.mark.long
@pytest.mark.parametrize("signed", [False, True])
def test_never_more_than_the_limit_of_a_budget_is_held(signed: bool) -> None:
    """Leased and not, with limits moved, nodes lost, restarted from old stores and retired, and clocks apart within the bound."""
    tally, found = search_seeds(FIRST_SEED, HISTORIES // 2, signed=signed, budgets=True)
    assert found is None, f"seed {found.seed}: {found.sentence}"
    assert tally.written["budget acquire"] > tally.histories
    if BUDGET == "nightly":
        assert tally.never_fired() == tally.never_written() == []


@pytest.mark.long
def test_a_history_with_budgets_replays_from_its_steps() -> None:
    outcome = Chaos(5, operations=REPLAYED, budgets=True).run()
    assert outcome.violation is None
    assert replay(outcome.members, outcome.steps) is None
    assert any(isinstance(step, Budget) for step in outcome.steps)
    assert not any(isinstance(step, Budget) for step in Chaos(5, operations=40).run().steps)


@pytest.mark.long
def test_a_history_with_sites_replays_from_its_steps() -> None:
    outcome = Chaos(5, operations=REPLAYED, sites=3).run()
    assert outcome.violation is None
    assert replay(outcome.members, outcome.steps, paced=True) is None
    assert any(isinstance(step, Describe) for step in outcome.steps)
    assert not any(isinstance(step, Describe) for step in Chaos(5, operations=40).run().steps)


@pytest.mark.long
def test_a_history_of_the_network_replays_from_its_steps_and_its_faults_come_about() -> None:
    outcome = Chaos(5, operations=REPLAYED, network=True).run()
    assert outcome.violation is None
    assert replay(outcome.members, outcome.steps, paced=True) is None
    fired = sum((Chaos(seed, operations=40, network=True).run().fired for seed in range(4)), Counter[str]())
    assert sum(fired[fault] > 0 for fault in NETWORK_FAULTS) > len(NETWORK_FAULTS) / 2
    assert not any(Chaos(5, operations=40).run().fired[fault] for fault in NETWORK_FAULTS)


@pytest.mark.slow
def test_nodes_that_stay_different_after_the_last_fault_are_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constraint_crdt.simulation.chaos.AGREE_NS", 0)
    outcome = Chaos(5, operations=40, network=True).run()
    assert outcome.violation is not None
    assert outcome.violation.invariant == "agreement in time"
    history = outcome.history()
    assert history is not None
    with pytest.raises(InvalidValue, match="nothing goes wrong in the steps of this history"):
        shrink(history)


@pytest.mark.slow
def test_parts_that_overtake_the_pause_of_their_burst_hold_up_nothing() -> None:
    """The reader neither asked for the rest of the burst nor answered Pings, for minutes."""
    assert Chaos(312058, network=True).run().violation is None


@pytest.mark.slow
def test_histories_have_five_nodes_and_more() -> None:
    for seed in range(20):
        chaos = Chaos(seed)
        assert len(chaos.members) >= 5
        assert len({member.name for member in chaos.members}) == len(chaos.members)


@pytest.mark.long
@pytest.mark.processes
def test_the_same_seed_gives_the_same_history_whatever_hashes_are() -> None:
    """Byte for byte, in processes in which sets and dicts of texts iterate in another order."""
    outputs = []
    for seed in ("0", "31337"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _DIGEST], check=True, capture_output=True, text=True, env=environment, timeout=60
        )
        outputs.append(done.stdout)
    outcome = Chaos(11, operations=40).run()
    digest = hashlib.sha256(msgspec.json.encode(list(outcome.steps))).hexdigest()
    assert set(outputs) == {f"{digest} {outcome.events} {sorted(outcome.fired.items())}\n"}


@pytest.mark.slow
def test_another_seed_gives_another_history() -> None:
    one, other = (Chaos(seed, operations=30).run() for seed in (1, 2))
    assert msgspec.json.encode(list(one.steps)) != msgspec.json.encode(list(other.steps))


@pytest.mark.slow
def test_a_history_replays_from_its_steps_alone() -> None:
    outcome = Chaos(5, operations=REPLAYED).run()
    assert outcome.violation is None
    assert outcome.history() is None
    assert replay(outcome.members, outcome.steps) is None


def test_what_never_fired_is_told() -> None:
    tally = SearchExtent(fired=Counter(dict.fromkeys(FAULTS[1:], 1)))
    assert tally.never_fired() == [FAULTS[0]]
    tally.add(SearchExtent(histories=2, fired=Counter({FAULTS[0]: 3})))
    assert tally.never_fired() == []
    assert tally.histories == 2


def test_what_was_never_written_is_told() -> None:
    tally = SearchExtent(written=Counter(dict.fromkeys(WRITES[1:], 1)))
    assert tally.never_written() == [WRITES[0]]
    tally.add(SearchExtent(written=Counter({WRITES[0]: 1})))
    assert tally.never_written() == []


def test_every_step_that_writes_is_a_kind_of_write_that_must_come_about() -> None:
    """So that a step which somebody adds, and nobody draws, is told."""
    steps = [each for each in get_args(AnyStep) if issubclass(each, Write)]
    assert set(steps) == set(Write.__subclasses__())
    for each in steps:
        acts = TILE_ACTS if each is Tile else BUDGET_ACTS if each is Budget else ("",)
        for act in acts:
            assert f"{each.__struct_config__.tag} {act}".strip() in WRITES + OF_BUDGETS


@pytest.mark.long
def test_a_write_that_changes_nothing_has_not_come_about() -> None:
    outcome = Chaos(5, operations=80).run()
    drawn = outcome.written.total() - outcome.written["share"]  # readings are shared beside the operations
    assert 0 < drawn < 80 + sum(len(getattr(step, "more", ())) for step in outcome.steps)
    assert all(kinds(step, []) in ([], ["increment known already"]) for step in outcome.steps if isinstance(step, Write))


@pytest.mark.long
def test_a_history_has_some_kinds_of_faults_only() -> None:
    """Else each would hide what only shows without the others."""
    fired = [Chaos(seed, operations=40).run().fired for seed in range(8)]
    for fault in ("loss", "duplication", "bandwidth", "collection", "parts"):
        assert 0 < sum(bool(each[fault]) for each in fired) < len(fired)
