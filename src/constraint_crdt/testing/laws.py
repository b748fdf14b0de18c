"""The laws, as callables: `commutative(laws)`, or all applicable laws with `check_laws(laws)`.

A law is checked on replicas of histories drawn by Hypothesis; a broken law raises `LawBroken` with the shortest history found.
Checks work on copies of the drawn states.

The laws are those of join semilattices (Shapiro, Preguica, Baquero and Zawirski, 2011) and of delta states (Almeida, Shoker and
Baquero, 2018), and of the effects of a network and a disk: nothing is ever half-applied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from constraint_crdt.testing.drawn_replicas import LawBroken, Laws, Replicas, replicas

CUTS = 6
"""The places at which an encoding is truncated, per example."""

Drawn = TypeVar("Drawn")
_Apply = Callable[[Any, Sequence[bytes]], Any]
_Named = tuple[str, Any]


class _Draw(Protocol):
    def __call__(self, strategy: st.SearchStrategy[Drawn], /) -> Drawn: ...


@dataclass(frozen=True)
class Law:
    """A law. Call it with the description of a type."""

    name: str
    says: str
    """The law in a sentence."""
    check: Callable[["_Case"], None]
    applies: Callable[[Laws[Any, Any]], bool]
    """True if a description has the functions needed by the law."""

    def __call__(self, laws: Laws[Any, Any], *, max_examples: int | None = None) -> None:
        """Check the law on `max_examples` histories (the setting of Hypothesis if left out).

        Raises `LawBroken`, and `TypeError` for a description without the functions needed.
        """
        if not self.applies(laws):
            raise TypeError(f"the law `{self.name}` needs what the description leaves out: {self.says}")

        _check(laws, [self], max_examples)


def _check(laws: Laws[Any, Any], chosen: Sequence[Law], max_examples: int | None) -> None:
    """Check these laws on each drawn history: drawing takes longer than checking all laws."""

    @given(replicas(laws), st.data())
    def hold(found: Replicas[Any], data: st.DataObject) -> None:
        for law in chosen:
            law.check(_Case(law.name, laws, found, data.draw))

    settings(
        max_examples=max_examples or settings().max_examples,
        deadline=None,
        database=None,  # its entries go by the source of the test, which is the same for all types and laws
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),  # a slow history is no finding
    )(hold)()


class _Case:
    """Check a law on a set of replicas."""

    def __init__(self, law: str, laws: Laws[Any, Any], found: Replicas[Any], draw: _Draw) -> None:
        self.law, self.laws, self.found, self.draw = law, laws, found, draw
        self.join, self.read = laws.join, laws.reading

    def three(self) -> Sequence[_Named]:
        """Three of the replicas, with their names, in any order."""
        named = list(zip(self.found.names, self.found.states, strict=True))
        return self.draw(st.permutations(named))[:3]

    def same(self, left: Any, right: Any, what: str) -> None:
        """Two readings, required to be equal."""
        if left != right:
            self.broken(f"{what}\n  {left}\nis not\n  {right}")

    def holds(self, condition: bool, what: str) -> None:
        if not condition:
            self.broken(what)

    def broken(self, what: str) -> None:
        raise LawBroken(self.law, self.found.story, what)


# --- join ------------------------------------------------------------------------------------------------------------


def _commutative(case: _Case) -> None:
    (a, left), (b, right), _ = case.three()
    case.same(case.read(case.join(left, right)), case.read(case.join(right, left)), f"{a} merged with {b}, and {b} with {a}:")


def _associative(case: _Case) -> None:
    (a, first), (b, second), (c, third) = case.three()
    one, other = case.join(case.join(first, second), third), case.join(first, case.join(second, third))
    case.same(case.read(one), case.read(other), f"({a} merged with {b}) merged with {c}, and {a} with ({b} with {c}):")


def _idempotent(case: _Case) -> None:
    (a, left), (b, right), _ = case.three()
    case.same(case.read(case.join(left, left)), case.read(left), f"{a} merged with itself, and {a}:")
    joined = case.join(left, right)
    case.same(case.read(case.join(joined, right)), case.read(joined), f"{a} merged with {b} twice, and once:")


def _monotone(case: _Case) -> None:
    laws = case.laws
    (a, left), (b, right), _ = case.three()
    before = case.read(left), case.read(right)
    joined = case.join(left, right)
    case.same((case.read(left), case.read(right)), before, f"{a} and {b} after merging copies of them, and before:")
    for name, part in ((a, left), (b, right)):
        merged = case.read(joined)
        case.same(case.read(case.join(part, joined)), merged, f"{name} merged with what {a} and {b} know, and that:")
        if laws.subsumes is not None:
            case.holds(laws.subsumes(joined, part), f"{a} merged with {b} does not subsume {name}")
    if laws.subsumes is not None and laws.subsumes(left, right):
        case.same(case.read(joined), before[0], f"{a} merged with {b}, which it subsumes, and {a}:")
    if case.found.done is not None:
        _grows(case, a, left)


def _grows(case: _Case, name: str, state: Any) -> None:
    """A mutation only adds knowledge, so it survives a merge with the state before it."""
    step = case.draw(case.laws.steps)
    after = case.laws.apply_step(case.laws.copy(state), name, step)
    for one, other, way in ((after, state, "the state before merged in"), (state, after, "merged into the state before")):
        case.same(case.read(case.join(one, other)), case.read(after), f"{name} after {step} with {way}, and {name} after {step}:")


def _convergent(case: _Case) -> None:
    states, everybody = case.found.states, range(len(case.found.states))
    again = st.lists(st.sampled_from(everybody), max_size=3)
    orders = [case.draw(again.flatmap(lambda more: st.permutations([*everybody, *more]))) for _ in range(2)]
    readings = []
    for order in orders:
        state = case.laws.new()
        for index in order:
            state = case.laws.merge(state, states[index])
        readings.append(case.read(state))
    told = [", ".join(case.found.names[index] for index in order) for order in orders]
    case.same(readings[0], readings[1], f"a new state that merged {told[0]}, and one that merged {told[1]}:")


def _complete(case: _Case) -> None:
    if case.found.done is None or case.laws.accounts_for is None:
        return
    state = case.laws.new()
    for other in case.found.states:
        state = case.laws.merge(state, other)
    right = case.laws.accounts_for(state, case.found.done)
    case.holds(right, f"with everything merged it reads wrong: {case.read(state)}")


# --- deltas ----------------------------------------------------------------------------------------------------------


def _delta_is_state(case: _Case) -> None:
    laws = case.laws
    if laws.clock is None or laws.delta_since is None or laws.apply_delta is None:
        return
    (a, left), (b, right), (c, third) = case.three()
    merged = case.read(case.join(left, right))
    delta = laws.delta_since(right, laws.clock(left))
    once = laws.apply_delta(laws.copy(left), delta)
    case.same(case.read(once), merged, f"{a} with the delta that {b} made for it, and {a} merged with {b}:")
    case.same(case.read(laws.apply_delta(once, delta)), merged, f"{a} with that delta twice, and {a} merged with {b}:")
    whole = laws.delta_since(right, laws.clock(laws.new()))
    full = laws.apply_delta(laws.copy(left), whole)
    case.same(case.read(full), merged, f"{a} with the delta that {b} made for nothing known, and {a} merged with {b}:")
    further = case.join(left, third)
    late = laws.apply_delta(laws.copy(further), delta)
    expected = case.read(case.join(further, right))
    case.same(case.read(late), expected, f"{a}, which merged {c} meanwhile, with that delta, and merged with {b}:")


# --- bytes -----------------------------------------------------------------------------------------------------------


def _truncation_safe(case: _Case) -> None:
    (a, left), (b, right), _ = case.three()
    if case.laws.encode is not None and case.laws.decode is not None:
        data = case.laws.encode(left)
        for cut in _cuts(case, data):
            _refused(case, case.laws.decode, data[:cut], f"{a} encoded and cut after {cut} of {len(data)} bytes")
    if case.laws.encode_delta is not None and case.laws.apply_encoded is not None:
        _delta_is_whole_or_nothing(case, case.laws.apply_encoded, (a, left), (b, right))


def _cuts(case: _Case, data: bytes) -> Sequence[int]:
    return sorted(case.draw(st.sets(st.integers(0, len(data) - 1), min_size=1, max_size=CUTS))) if data else ()


def _refused(case: _Case, decode: Callable[[bytes], Any], data: bytes, what: str) -> None:
    try:
        decode(data)
    except case.laws.refusals:
        return
    except Exception as error:
        raise LawBroken(case.law, case.found.story, f"{what} is refused with {error!r}, not one of the refusals") from error
    case.broken(f"{what} is taken for a whole state")


def _delta_is_whole_or_nothing(case: _Case, apply: _Apply, to: _Named, sender: _Named) -> None:
    laws, (a, left), (b, right) = case.laws, to, sender
    if laws.clock is None or laws.delta_since is None or laws.encode_delta is None:
        return
    messages = list(laws.encode_delta(laws.delta_since(right, laws.clock(left))))
    expected = case.read(case.join(left, right))
    took = apply(laws.copy(left), messages)
    case.same(case.read(took), expected, f"{a} with the encoded delta of {b}, and {a} merged with {b}:")
    if not messages:
        return
    index = case.draw(st.integers(0, len(messages) - 1))
    before, after = messages[:index], messages[index + 1 :]
    _changes_nothing(
        case, apply, left, [*before, *after], f"{a} with message {index + 1} of {len(messages)} of {b}'s delta missing"
    )
    for cut in _cuts(case, messages[index]):
        damaged = [*before, messages[index][:cut], *after]
        _changes_nothing(case, apply, left, damaged, f"{a} with message {index + 1} of {b}'s delta cut after {cut} bytes")


def _changes_nothing(case: _Case, apply: _Apply, state: Any, messages: Sequence[bytes], what: str) -> None:
    before, victim = case.read(state), case.laws.copy(state)
    try:
        victim = apply(victim, messages)
    except case.laws.refusals:
        pass
    except Exception as error:
        raise LawBroken(case.law, case.found.story, f"{what} is refused with {error!r}, not one of the refusals") from error
    case.same(case.read(victim), before, f"{what}, and without any of it:")


def _faithful(case: _Case) -> None:
    laws = case.laws
    if laws.encode is None or laws.decode is None:
        return
    (a, left), (b, right), _ = case.three()
    data = laws.encode(left)
    back = laws.decode(data)
    case.same(case.read(back), case.read(left), f"{a} decoded from its encoding, and {a}:")
    case.same(laws.encode(back), data, f"{a} encoded, decoded and encoded again, and encoded once:")
    if laws.canonical:
        one, other = laws.encode(case.join(left, right)), laws.encode(case.join(right, left))
        case.same(one, other, f"{a} merged with {b}, encoded, and {b} merged with {a}, encoded:")


def _always(_: Laws[Any, Any]) -> bool:
    return True


commutative = Law("commutative", "merging a with b reads as merging b with a", _commutative, _always)
associative = Law("associative", "it does not matter in what groups states are merged", _associative, _always)
idempotent = Law("idempotent", "merging again what is known changes nothing", _idempotent, _always)
monotone = Law("monotone", "merging and mutating take no knowledge away", _monotone, _always)
convergent = Law("convergent", "the same merges in any order, some doubled, read the same", _convergent, _always)
complete = Law(
    "complete", "with everything merged nothing is lost or counted twice", _complete, lambda laws: laws.accounts_for is not None
)
delta_is_state = Law(
    "delta = state",
    "a delta for a clock does there what a full merge does",
    _delta_is_state,
    lambda laws: laws.delta_since is not None,
)
truncation_safe = Law(
    "truncation safety",
    "an encoding that is cut, or a delta of which a part is missing, is refused or changes nothing",
    _truncation_safe,
    lambda laws: laws.encode is not None or laws.encode_delta is not None,
)
faithful = Law(
    "codec", "decoding gives back the state, and encoding that the same bytes", _faithful, lambda laws: laws.encode is not None
)

ALL = (commutative, associative, idempotent, monotone, convergent, complete, delta_is_state, truncation_safe, faithful)


def laws_that_apply(laws: Laws[Any, Any]) -> list[Law]:
    """The laws applicable to a description."""
    return [law for law in ALL if law.applies(laws)]


def check_laws(laws: Laws[Any, Any], *, max_examples: int | None = None) -> None:
    """Check every applicable law on `max_examples` histories. Raises `LawBroken` for a broken law."""
    _check(laws, laws_that_apply(laws), max_examples)
