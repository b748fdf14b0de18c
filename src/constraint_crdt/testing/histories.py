"""Replicas of one history: what honest replicas reach by mutating, merging and sending deltas, or what liars reach.

A history is a short list of events, drawn by Hypothesis and played on new states; so what shows a broken law shrinks to the
fewest events that do, and prints as a story.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from hypothesis import strategies as st

from constraint_crdt.testing.description import Laws, State, Step

STRETCHES, LONGEST_STRETCH = 3, 8
"""A history is some stretches of events. One list would be short most of the time; what breaks a law can be told in few events,
but is found by chance more often among many."""


@dataclass(frozen=True)
class _Mutates(Generic[Step]):
    replica: int
    step: Step


@dataclass(frozen=True)
class _Hears:
    """From another; from itself stands for from all others."""

    replica: int
    other: int
    by_delta: bool


_Event = _Mutates[Any] | _Hears


@dataclass(frozen=True)
class Replicas(Generic[State]):
    """States of one history, one per replica. `str()` tells how they came about."""

    names: tuple[str, ...]
    states: tuple[State, ...] = field(repr=False)
    story: str
    done: tuple[tuple[str, Any], ...] | None = field(repr=False)
    """All mutations with the replica that made each; None for states that no honest replica reaches."""

    def __str__(self) -> str:
        return self.story


_one_in_three = st.sampled_from((False, False, True))


@st.composite
def replicas(draw: st.DrawFn, laws: Laws[State, Any]) -> Replicas[State]:
    """The replicas of one history, or of one fleet of liars where the type has such states."""
    if laws.adversarial is not None and draw(_one_in_three):
        lying = draw(laws.adversarial)
        story = "states that no honest replica reaches:\n" + "\n".join(
            f"  {name}: {laws.reading(state)}" for name, state in zip(laws.replicas, lying, strict=True)
        )
        return Replicas(laws.replicas, tuple(lying), story, None)
    stretch = st.lists(_events(laws), max_size=LONGEST_STRETCH)
    events = [event for _ in range(STRETCHES) for event in draw(stretch)]
    if draw(st.booleans()):  # that all wrote at the same time is rare by chance, and what merging is about
        events += [_Mutates(index, draw(laws.steps)) for index in range(len(laws.replicas))]
    return _played(laws, events)


def single(laws: Laws[State, Any]) -> st.SearchStrategy[State]:
    """One state: any of the replicas of a history."""
    return replicas(laws).flatmap(lambda each: st.sampled_from(each.states))


def pairs(laws: Laws[State, Any]) -> st.SearchStrategy[tuple[State, State]]:
    """Two replicas of one history."""
    return replicas(laws).map(lambda each: (each.states[0], each.states[1]))


def triples(laws: Laws[State, Any]) -> st.SearchStrategy[tuple[State, State, State]]:
    """Three replicas of one history."""
    return replicas(laws).map(lambda each: (each.states[0], each.states[1], each.states[2]))


def _events(laws: Laws[Any, Any]) -> st.SearchStrategy[_Event]:
    who = st.integers(0, len(laws.replicas) - 1)
    mutates = st.builds(_Mutates, who, laws.steps)
    by_delta = st.booleans() if laws.delta_since else st.just(False)
    hears = st.builds(_Hears, who, who, by_delta)
    return st.one_of(mutates, mutates, hears)


def _played(laws: Laws[State, Any], events: Sequence[_Event]) -> Replicas[State]:
    states = [laws.new() for _ in laws.replicas]
    done: list[tuple[str, Any]] = []
    story = []
    for event in events:
        name = laws.replicas[event.replica]
        if isinstance(event, _Mutates):
            states[event.replica] = laws.apply_step(states[event.replica], name, event.step)
            done.append((name, event.step))
            story.append(f"  {name} does {event.step}")
        else:
            everybody = range(len(states)) if event.other == event.replica else (event.other,)
            others = [other for other in everybody if other != event.replica]
            for other in others:
                states[event.replica] = _heard(laws, states[event.replica], states[other], by_delta=event.by_delta)
            verb = "takes a delta from" if event.by_delta else "merges"
            story.append(f"  {name} {verb} {' and '.join(laws.replicas[other] for other in others)}")
    told = "after this history:\n" + "\n".join(story) if story else "on new states"
    return Replicas(laws.replicas, tuple(states), told, tuple(done))


def _heard(laws: Laws[State, Any], state: State, other: State, *, by_delta: bool) -> State:
    if by_delta and laws.clock and laws.delta_since and laws.apply_delta:
        return laws.apply_delta(state, laws.delta_since(other, laws.clock(state)))
    return laws.merge(state, other)
