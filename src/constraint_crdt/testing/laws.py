"""The laws of CRDTs, the description of a type for their checker, `Laws`, and the replicas that they are checked on.

`Laws` is a handful of functions over the states of a type. Every function with a changed state returns the resulting state,
possibly the argument itself, changed in place. Other arguments stay unchanged; the checker makes the copies.

Honest replicas mutate, merge and send deltas; adversarial replicas come from a strategy of their own. A history is a short list
of events, drawn by Hypothesis and played on new states. So a broken law shrinks to the fewest events, and prints as a story.

Adversarial rows are written by no honest node; a broken or lying sender can make others take them in. Their cells are each valid,
at any dots: counts that go down at a higher seq, verdicts with fewer takeovers than before, positions that overwrite each other or
themselves, parts of a tile without the rest, a key at several seqs of a run, unknown kinds, removals of dots beyond the clock. The
property checked on them: replicas with equal knowledge have equal readings.

The types of the package are views over rows. Here each view stands alone, over rows of its own. Deltas are the messages of the
exchange, taken by a real node, in parts small enough for several messages; encodings are state files.

A law is a callable: `commutative(laws)`, or all applicable laws with `check_laws(laws)`. It is checked on replicas of histories
drawn by Hypothesis; a broken law raises `LawBroken` with the shortest history found. Checks work on copies of the drawn states.

The laws are those of join semilattices (Shapiro, Preguica, Baquero and Zawirski, 2011) and of delta states (Almeida, Shoker and
Baquero, 2018), and of the effects of a network and a disk: nothing is ever half-applied.
"""

import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from constraint_crdt.crdt.cells import REMOVABLE, Cell, Run, make_cell, make_key, make_removal
from constraint_crdt.crdt.clock import Replica, VectorClock
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, InvalidType
from constraint_crdt.model import IfUnknown, Mode, Operator, Requirement, VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import GossipMessage, decode_message, encode_message
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.state import ConstraintState, from_json, to_json
from constraint_crdt.types.counters import COUNTS, SECONDS, make_seconds
from constraint_crdt.types.definition import ADD, MEANING, Definition, wire_definition
from constraint_crdt.types.orset import CHANGE, SWITCH
from constraint_crdt.types.parameters import PARAMETER
from constraint_crdt.types.rollouts import PLAN, ROLLOUT, STAGED, STEP
from constraint_crdt.types.tile_cells import POSITION
from constraint_crdt.types.variables import NAMES, READING
from constraint_crdt.types.verdicts import VERDICT, NodeVerdict, make_verdict
from constraint_crdt.types.view import View

State = TypeVar("State")
LawStep = TypeVar("LawStep")
Rest = ParamSpec("Rest")


class LawBroken(ConstraintCrdtError, AssertionError):
    """A CRDT breaks a law. `str()` has the law, the shortest history found, and the readings."""

    def __init__(self, law: str, example: str, found: str) -> None:
        """`law`: its name. `example`: the shortest history found. `found`: the readings that differ."""
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
    """The state encoded by bytes; raises an error of `refusals` for invalid bytes."""
    canonical: bool = False
    """The type promises equal encodings for equal readings, independent of the history."""
    refusals: tuple[type[Exception], ...] = (ValueError,)
    """The exceptions for invalid bytes."""

    def __post_init__(self) -> None:
        for together in (("clock", "delta_since", "apply_delta"), ("encode_delta", "apply_encoded"), ("encode", "decode")):
            given = [name for name in together if getattr(self, name) is not None]
            if given and len(given) < len(together):
                raise InvalidType(f"Laws: {given[0]} goes with {', '.join(name for name in together if name not in given)}")
        if self.encode_delta is not None and self.delta_since is None:
            raise InvalidType("Laws: encode_delta goes with clock, delta_since and apply_delta")
        if len(set(self.replicas)) != len(self.replicas) or len(self.replicas) < 3:
            raise InvalidType("Laws: replicas are at least three different names")

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
class _Receives:
    """From another; from itself stands for from all others."""

    replica: int
    other: int
    by_delta: bool


_Event = _Mutates[Any] | _Receives


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
    hears = st.builds(_Receives, who, who, by_delta)
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


LONGEST_ROW = 6
MOST_FORGED = 6
UNKNOWN_KIND = 126

IDS = ("x", "y")
DEFINITIONS = (
    Definition(),
    Definition("v < 1.0"),
    Definition("v < 2.0", for_=5, clear_after=1, clear_when="v < 1.0"),
    Definition("v < 2.0", if_unknown=IfUnknown.VIOLATED, max_age=9),
    Definition("v < 1.0", requirements=(Requirement("zone", Operator.NOT_IN, ("a", "b")),), mode=Mode.AUDIT),
    Definition("v < 2.0", meaning=MEANING + 1, unknown_fields=b"\xa1x"),
)
"""The last is of a later version."""

Pool = st.SearchStrategy[Sequence[Cell]]
"""Cells to lie with."""


def adversarial_rows(names: Sequence[str], pool: Pool) -> st.SearchStrategy[list[Rows]]:
    """Rows for each of these replicas, with parts of the adversarial writes of a fleet, from cells of the pool."""
    replicas = [Replica(name, 0) for name in names]

    @st.composite
    def drawn(draw: st.DrawFn) -> list[Rows]:
        cells = draw(pool)
        removals = _removals(replicas, cells)
        lies = st.one_of(st.sampled_from(cells), removals) if cells else removals
        logs = {replica: draw(st.lists(lies, max_size=LONGEST_ROW)) for replica in replicas}
        upto = st.lists(st.integers(0, LONGEST_ROW), min_size=len(names), max_size=len(names))
        return [_taken(logs, draw(upto)) for _ in names]

    return drawn()


def _removals(replicas: Sequence[Replica], cells: Sequence[Cell]) -> st.SearchStrategy[Cell]:
    """Removals of cells in the pool, at dots with or without them."""
    slots = sorted({(cell.kind, cell.key) for cell in cells if cell.kind in REMOVABLE and isinstance(cell.key, str) and cell.key})
    dots = st.lists(st.tuples(st.sampled_from(replicas), st.integers(0, LONGEST_ROW + 2)), max_size=3)
    return st.builds(
        lambda slot, named: make_removal([(str(slot[1]), named)], slot[0]), st.sampled_from(slots or [(ADD, IDS[0])]), dots
    )


def forged_cells(
    new: Callable[[], Any], change: Callable[[Any, str, Any], object], rows_of: Callable[[Any], Rows], steps: Any
) -> Pool:
    """Cells from the writes of this type, each to be used without the others of its write."""

    def written(done: Sequence[Any]) -> list[Cell]:
        state, cells = new(), dict[bytes, Cell]()
        for step in done:
            change(state, "a", step)
            cells |= {cell.data: cell for cell in rows_of(state).above(Replica("a", 0), 0)}
        return [Cell(cell.kind, cell.key if isinstance(cell.key, str) else 0, cell.data) for cell in cells.values()]

    return st.lists(steps, min_size=1, max_size=MOST_FORGED).map(written)


def arbitrary_cells(*kinds: int) -> Pool:
    """Cells of these kinds with any values."""
    ids = st.sampled_from(IDS)
    dots = st.lists(st.tuples(st.sampled_from("abc"), st.just(0), st.integers(0, LONGEST_ROW + 2)), max_size=3)
    known: dict[int, st.SearchStrategy[Cell]] = {
        ADD: st.builds(lambda id_, each: make_cell(ADD, id_, wire_definition(each, None)), ids, st.sampled_from(DEFINITIONS)),
        COUNTS: st.builds(_counts, st.sampled_from(("", "x")), st.integers(0, 3), st.integers(0, 3)),
        POSITION: st.builds(_position, st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 2), dots),
        SECONDS: st.builds(make_seconds, st.sampled_from(("", "x")), st.tuples(*[st.integers(0, 3)] * 3)),
        VERDICT: st.builds(make_verdict, ids, _VERDICTS, st.integers(0, 2)),
        READING: st.one_of(
            st.builds(
                lambda number, values, time, ages: make_cell(READING, number, [time, -1, values, ages]),
                st.sampled_from(("0", "1", "later")),
                st.lists(st.sampled_from((None, 1.5, 15, [15, -1], "on", True, {})), max_size=3),
                st.integers(0, 2),
                st.lists(st.integers(0, 2), max_size=2),
            ),
            st.lists(st.sampled_from(("v", "w", "", 1)), max_size=3).map(
                lambda names: make_cell(READING, NAMES, [0, 0, names, [1] * len(names)])
            ),
        ),
        SWITCH: st.builds(make_cell, st.just(SWITCH), ids, st.tuples(st.integers(0, 3), st.booleans(), st.none() | st.just(5))),
        CHANGE: st.builds(
            lambda slot, number: make_cell(CHANGE, slot, [5, "add", "bob", "w", [[1, "x", number, [b"v"]]]] if number else None),
            st.sampled_from(("0", "1", "7")),
            st.integers(0, 3),
        ),
        PARAMETER: st.builds(
            lambda name, selector, value, over: make_cell(PARAMETER, make_key(name, selector), [value, 0, over]),
            st.sampled_from(("v", "w")),
            st.sampled_from(("", "zone=a", "a selector ~ of a later version")),
            st.sampled_from((None, 1.5, [15, -1], "on", True, {})),
            dots,
        ),
        ROLLOUT: st.one_of(
            st.builds(
                lambda slot, at, changes, size: make_cell(
                    ROLLOUT, slot, [PLAN, ["r", at, "o", "", ["zone=a", "a later ~ selector", "zone=b"], "g", 5, size, changes]]
                ),
                st.sampled_from("01"),
                st.integers(0, 2),
                st.sampled_from((_changes("x", []), _changes("x", [["v < 0.5"]]), _changes("y", []), zlib.compress(b"x"), b"")),
                st.integers(1, 2),
            ),
            st.builds(
                lambda slot, node, epoch, phase, stage, undoes: make_cell(
                    ROLLOUT, make_key(slot, "0", node), [STEP, ["r", epoch, phase, stage, 5, "o", "w", undoes]]
                ),
                st.sampled_from("01"),
                st.sampled_from("abc"),
                st.integers(0, 2),
                st.integers(0, 4),
                st.integers(0, 3),
                dots,
            ),
            st.just(make_cell(ROLLOUT, "0", [9, "of a later version"])),
        ),
        STAGED: st.lists(st.tuples(st.sampled_from("xy"), *[st.integers(0, 2)] * 5, st.sampled_from(("", "why"))), max_size=2).map(
            lambda told: make_cell(STAGED, "", told)
        ),
        UNKNOWN_KIND: st.builds(make_cell, st.just(UNKNOWN_KIND), ids, st.integers(0, 3)),
    }
    return st.lists(st.one_of(*(known[kind] for kind in kinds)), min_size=1, max_size=MOST_FORGED)


def _changes(id_: str, before: Sequence[Sequence[str]]) -> bytes:
    return zlib.compress(msgspec.msgpack.encode([[id_, before, ["v < 1.0"]]]))


_VERDICTS = st.none() | st.tuples(st.sampled_from(VerdictState), st.integers(0, 2)).map(lambda parts: NodeVerdict(*parts))


def _counts(key: str, satisfied: int, violated: int) -> Cell:
    return make_cell(COUNTS, key, [satisfied, violated])


def _position(a: int, b: int, time: int, overwrites: Sequence[tuple[str, int, int]]) -> Cell:
    return make_cell(POSITION, "", [a, b, time, [list(dot) for dot in overwrites]])


def _taken(logs: dict[Replica, list[Cell]], upto: Sequence[int]) -> Rows:
    """Rows with the first mutations of each log, superseded ones included."""
    rows = Rows()
    runs = []
    for (replica, log), seq in zip(logs.items(), upto, strict=True):
        cells = [_bound(cell, replica, at) for at, cell in enumerate(log[:seq], start=1)]
        runs.append(Run(replica, 0, len(cells), cells))
    rows.apply(runs)
    return rows


def _bound(cell: Cell, replica: Replica, seq: int) -> Cell:
    """A copy of a cell at its dot."""
    return Cell(cell.kind, cell.key if isinstance(cell.key, str) else seq, cell.data, seq, replica)


REPLICAS = ("a", "b", "c")
PART_BYTES = 96
"""The size of a message: small, so most deltas travel in parts."""


def rows_of(state: ConstraintState | View) -> Rows:
    """The rows under a state, or under a standalone view."""
    return state.rows if isinstance(state, ConstraintState) else state._rows


def over_rows(
    make: Callable[[Rows], Any],
    steps: st.SearchStrategy[Any],
    change: Callable[[Any, str, Any], object],
    reading: Callable[[Any], object],
    *,
    pool: Pool | None = None,
    accounts_for: Callable[[Any, Sequence[tuple[str, Any]]], bool] | None = None,
    canonical: bool = False,
) -> Laws[Any, Any]:
    """The description of a type that is a view over rows, as made by `make`. `pool`: the cells for adversarial rows, else forged
    from the writes of the type."""

    def new() -> Any:
        return make(Rows())

    lying = adversarial_rows(REPLICAS, pool if pool is not None else forged_cells(new, change, rows_of, steps))
    return Laws(
        new=new,
        steps=steps,
        apply_step=in_place(change),
        merge=in_place(lambda state, other: state.merge(other)),
        reading=reading,
        copy=lambda state: make(rows_of(state).copy()),
        replicas=REPLICAS,
        adversarial=lying.map(lambda rows: [make(each) for each in rows]),
        subsumes=lambda state, other: bool(state.subsumes(other)),
        accounts_for=accounts_for,
        clock=lambda state: rows_of(state).clock,
        delta_since=lambda state, clock: _said(rows_of(state), clock),
        apply_delta=in_place(lambda state, message: _take(rows_of(state), [message])),
        encode_delta=_encode_delta,
        apply_encoded=in_place(lambda state, parts: _take(rows_of(state), [decode_message(part) for part in parts])),
        encode=lambda state: to_json(ConstraintState(rows_of(state).copy())).encode(),
        decode=lambda data: make(from_json(data).rows),
        canonical=canonical,
        refusals=(ConstraintCrdtError,),
    )


def _node(name: str, state: ConstraintState) -> GossipNode:
    """A node with this state, to send or receive messages for it."""
    node = GossipNode(name, incarnation=1, now=lambda: 0, renew=lambda: 2)
    node.local.state = state
    return node


def _said(rows: Rows, clock: VectorClock) -> GossipMessage:
    return _node("sender", ConstraintState(rows.copy())).delta_since(clock)


def _take(rows: Rows, messages: Sequence[GossipMessage]) -> None:
    node = _node("receiver", ConstraintState(rows))
    for message in messages:
        node.receive(message)


def _encode_delta(message: GossipMessage) -> list[bytes]:
    return [encode_message(part) for part in split_message(message, PART_BYTES)]


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
            raise InvalidType(f"the law `{self.name}` needs what the description leaves out: {self.says}")

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
