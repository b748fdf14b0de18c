"""How a CRDT is described to the checker: `Laws`, a handful of functions over its states.

Every function that changes a state returns the state that results, which may be the one it was given, changed in place. None of
them changes any other argument; the checker sees to copies.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from hypothesis.strategies import SearchStrategy

State = TypeVar("State")
Step = TypeVar("Step")
Rest = ParamSpec("Rest")


class LawBroken(AssertionError):
    """A CRDT does not keep a law. `str()` has the law, the shortest history found that shows it, and what was read."""

    def __init__(self, law: str, example: str, found: str) -> None:
        super().__init__(f"the law `{law}` is broken\n{example}\n{found}")
        self.law = law
        self.example = example
        self.found = found


def in_place(function: Callable[Concatenate[State, Rest], object]) -> Callable[Concatenate[State, Rest], State]:
    """A function that changes its first argument, as one that returns it: `merge=in_place(MySet.update)`."""

    def changed(state: State, /, *rest: Rest.args, **named: Rest.kwargs) -> State:
        function(state, *rest, **named)
        return state

    return changed


@dataclass(frozen=True, kw_only=True)
class Laws(Generic[State, Step]):
    """One type of CRDT, as the checker sees it. What is left out is not checked."""

    new: Callable[[], State]
    """A state that knows nothing."""
    steps: SearchStrategy[Step]
    """The mutations that a replica may make; each should print readably."""
    apply_step: Callable[[State, str, Step], State]
    """Make a mutation as the replica of this name. One that cannot be made now changes nothing."""
    merge: Callable[[State, State], State]
    """What both know."""
    reading: Callable[[State], object]
    """Everything that a user can read of a state, as a value that can be compared and printed."""
    copy: Callable[[State], State] = deepcopy
    """An independent copy."""
    replicas: tuple[str, ...] = ("a", "b", "c")
    """The names of the replicas, at least three."""
    adversarial: SearchStrategy[Sequence[State]] | None = None
    """As many states as there are replicas, such as no honest replica would reach; the laws have to hold among them too."""

    subsumes: Callable[[State, State], bool] | None = None
    """True if the first knows all that the second knows."""
    accounts_for: Callable[[State, Sequence[tuple[str, Step]]], bool] | None = None
    """True if a state that knows exactly these mutations reads right: nothing lost, nothing counted twice. For types whose
    mutations may be taken in any order."""

    clock: Callable[[State], Any] | None = None
    """What a state knows, to be told to whoever makes a delta for it."""
    delta_since: Callable[[State, Any], Any] | None = None
    """What a state at this clock lacks."""
    apply_delta: Callable[[State, Any], State] | None = None
    """Take in a delta that was made for the state's clock, or for an earlier one."""
    encode_delta: Callable[[Any], Sequence[bytes]] | None = None
    """A delta as the messages that carry it."""
    apply_encoded: Callable[[State, Sequence[bytes]], State] | None = None
    """Take in these messages, in this order."""

    encode: Callable[[State], bytes] | None = None
    """A state as bytes."""
    decode: Callable[[bytes], State] | None = None
    """The state that bytes encode; raises one of `refusals` for bytes that encode none."""
    canonical: bool = False
    """The type promises that states which read alike encode alike, however they were reached."""
    refusals: tuple[type[Exception], ...] = (ValueError,)
    """What is raised for bytes that cannot be taken."""

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
        """What both know, as a state of its own."""
        return self.merge(self.copy(left), right)
