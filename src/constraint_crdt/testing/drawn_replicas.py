"""The description of a CRDT for the checker, `Laws`, and the replicas of a history.

`Laws` is a handful of functions over the states of a type. Every function with a changed state returns the resulting state,
possibly the argument itself, changed in place. Other arguments stay unchanged; the checker makes the copies.

Honest replicas mutate, merge and send deltas; adversarial replicas come from a strategy of their own. A history is a short list
of events, drawn by Hypothesis and played on new states. So a broken law shrinks to the fewest events, and prints as a story.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

State = TypeVar("State")
LawStep = TypeVar("LawStep")
Rest = ParamSpec("Rest")


class LawBroken(AssertionError):
    """A CRDT breaks a law. `str()` has the law, the shortest history found, and the readings."""

    def __init__(self, law: str, example: str, found: str) -> None:
        super().__init__(f"the law `{law}` is broken\n{example}\n{found}")
        self.law = law
        self.example = example
        self.found = found


def in_place(function: Callable[Concatenate[State, Rest], object]) -> Callable[Concatenate[State, Rest], State]:
    """A function on its first argument, as a function that returns the argument: `merge=in_place(MySet.update)`."""

    def changed(state: State, /, *rest: Rest.args, **named: Rest.kwargs) -> State:
        function(state, *rest, **named)
        return state

    return changed


@dataclass(frozen=True, kw_only=True)
class Laws(Generic[State, LawStep]):
    """The description of a type of CRDT for the checker. Parts left out are not checked."""

    new: Callable[[], State]
    """An empty state."""
    steps: SearchStrategy[LawStep]
    """The possible mutations of a replica; each should print readably."""
    apply_step: Callable[[State, str, LawStep], State]
    """Apply a mutation as the replica of this name. A mutation impossible at present changes nothing."""
    merge: Callable[[State, State], State]
    """The merge of both."""
    reading: Callable[[State], object]
    """All public readings of a state, as a value with equality and a readable `repr`."""
    copy: Callable[[State], State] = deepcopy
    """An independent copy."""
    replicas: tuple[str, ...] = ("a", "b", "c")
    """The names of the replicas, at least three."""
    adversarial: SearchStrategy[Sequence[State]] | None = None
    """As many states as there are replicas, such as no honest replica would reach; the laws have to hold among them too."""

    subsumes: Callable[[State, State], bool] | None = None
    """True if the first has all knowledge of the second."""
    accounts_for: Callable[[State, Sequence[tuple[str, LawStep]]], bool] | None = None
    """True if a state with exactly these mutations reads right: nothing lost, nothing counted twice. For types whose mutations
    may be taken in any order."""

    clock: Callable[[State], Any] | None = None
    """The clock of a state, for the sender of a delta."""
    delta_since: Callable[[State, Any], Any] | None = None
    """The delta for a state at this clock."""
    apply_delta: Callable[[State, Any], State] | None = None
    """Take in a delta made for the state's clock, or for an earlier clock."""
    encode_delta: Callable[[Any], Sequence[bytes]] | None = None
    """The messages of a delta."""
    apply_encoded: Callable[[State, Sequence[bytes]], State] | None = None
    """Take in these messages, in this order."""

    encode: Callable[[State], bytes] | None = None
    """A state as bytes."""
    decode: Callable[[bytes], State] | None = None
    """The state encoded by bytes; raises one of `refusals` for invalid bytes."""
    canonical: bool = False
    """The type promises equal encodings for equal readings, independent of the history."""
    refusals: tuple[type[Exception], ...] = (ValueError,)
    """The exceptions for invalid bytes."""

    def __post_init__(self) -> None:
        for together in (("clock", "delta_since", "apply_delta"), ("encode_delta", "apply_encoded"), ("encode", "decode")):
            given = [name for name in together if getattr(self, name) is not None]
            if given and len(given) < len(together):
                raise TypeError(f"Laws: {given[0]} goes with {', '.join(name for name in together if name not in given)}")
        if self.encode_delta is not None and self.delta_since is None:
            raise TypeError("Laws: encode_delta goes with clock, delta_since and apply_delta")
        if len(set(self.replicas)) != len(self.replicas) or len(self.replicas) < 3:
            raise TypeError("Laws: replicas are at least three different names")

    def join(self, left: State, right: State) -> State:
        """The merge of both, as a state of its own."""
        return self.merge(self.copy(left), right)


STRETCHES, LONGEST_STRETCH = 3, 8
"""A history is a few lists of events. A single list would be short most of the time; a broken law needs few events, but is found
by chance more often among many."""


@dataclass(frozen=True)
class _Mutates(Generic[LawStep]):
    replica: int
    step: LawStep


@dataclass(frozen=True)
class _Hears:
    """From another; from itself stands for from all others."""

    replica: int
    other: int
    by_delta: bool


_Event = _Mutates[Any] | _Hears


@dataclass(frozen=True)
class Replicas(Generic[State]):
    """States of a history, one per replica. `str()` tells the history."""

    names: tuple[str, ...]
    states: tuple[State, ...] = field(repr=False)
    story: str
    done: tuple[tuple[str, Any], ...] | None = field(repr=False)
    """All mutations with the replica of each; None for adversarial states."""

    def __str__(self) -> str:
        return self.story


_one_in_three = st.sampled_from((False, False, True))


@st.composite
def replicas(draw: st.DrawFn, laws: Laws[State, Any]) -> Replicas[State]:
    """The replicas of an honest history, or adversarial replicas for types with such states."""
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
    """A single state: any of the replicas of a history."""
    return replicas(laws).flatmap(lambda each: st.sampled_from(each.states))


def pairs(laws: Laws[State, Any]) -> st.SearchStrategy[tuple[State, State]]:
    """Two replicas of a history."""
    return replicas(laws).map(lambda each: (each.states[0], each.states[1]))


def triples(laws: Laws[State, Any]) -> st.SearchStrategy[tuple[State, State, State]]:
    """Three replicas of a history."""
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
