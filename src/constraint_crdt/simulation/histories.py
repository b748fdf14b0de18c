"""Histories as values and files: liveness phase, replay, and shrinking (docs/design/invariants.md#invariant-5-convergence).

A history holds every step, so it replays without the code that drew it, also in a later version.

Shrinking is delta debugging (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002) over the steps: ever
smaller stretches are left out while the same invariant, or another invariant with the same cause, is violated. In between, steps
are replaced by simpler ones: a whole exchange for its messages, a message for its parts, a plain write for an exchange, no faults,
no times. At the end every pair of steps is left out together, because some go only in pairs: an add and its removal, for example.

Rules kept here:

- Every part of a history is a history: a step with nothing to act on does nothing.
- When all faults have ended, all nodes have to become equal within the bound of rounds.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import TypeVar

import msgspec

from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.protocol.peers import Schedule
from constraint_crdt.simulation.fleet import Fleet
from constraint_crdt.simulation.invariants import Violation
from constraint_crdt.simulation.steps import LEAST_ROOM, AnyStep, Begin, Deliver, NodeStart, Record, Stale, WholeExchange, Write

SPARE_ROUNDS = 1
"""Rounds beyond the least possible, ceil(log3 n), that may pass until all nodes are equal."""


def is_settled(fleet: Fleet) -> bool:
    """True if all running nodes agree on who is retired, and all others of them are equal."""
    nodes = fleet.nodes
    readings = {tuple(node.state.retirements) for node in nodes.values()}
    return len(readings) <= 1 and len({node.state_hash for name, node in nodes.items() if name not in set().union(*readings)}) <= 1


def settle(fleet: Fleet) -> None:
    """The liveness phase: undisturbed rounds of all running nodes. Raises `Violation` if they stay different.

    Nodes that differ on who is retired settle that first, with the retired ones.
    """
    if len({tuple(node.state.retirements) for node in fleet.nodes.values()}) > 1:
        number = _rounds(fleet, list(fleet.nodes), 0)
        readings = {tuple(node.state.retirements) for node in fleet.nodes.values()}
        if len(readings) > 1:
            raise Violation("retirement", f"{len(fleet.nodes)} nodes read {sorted(readings)} as retired after the rounds")
    else:
        number = 0
    ended = next(iter(fleet.nodes.values())).state.retirements if fleet.nodes else ()
    names = [name for name in fleet.nodes if name not in ended]
    if len(names) < 2:
        return
    _rounds(fleet, names, number)
    hashes = {node.state_hash for name, node in fleet.nodes.items() if name in names}
    if len(hashes) > 1:
        rounds = Schedule(len(names)).rounds + SPARE_ROUNDS
        raise Violation("liveness", f"{len(names)} nodes have {len(hashes)} states after {rounds} rounds")


def _rounds(fleet: Fleet, names: Sequence[str], number: int) -> int:
    """Run the rounds of these nodes. `number`: of the last step before; returns that of the last step."""
    schedule = Schedule(len(names))
    for round_ in range(schedule.rounds + SPARE_ROUNDS):
        for place, name in enumerate(names):
            number -= 1  # steps of the history count up from 1
            peer = names[(place + schedule.offset(round_)) % len(names)]
            fleet.apply(WholeExchange(number=number, node=name, peer=peer))
    return number


FORMAT = "constraint-crdt history"
VERSION = 1
FILE_BYTES = 16 * 1024 * 1024
"""The largest file to be read, in bytes."""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet at its start, its steps, and the violation they lead to."""

    format: str = FORMAT
    version: int = VERSION
    seed: int
    """The seed it was drawn from; after shrinking only a name."""
    invariant: str
    """The name of the violated invariant."""
    sentence: str
    """The violation in words."""
    members: tuple[NodeStart, ...]
    steps: tuple[AnyStep, ...]
    paced: bool = False
    """The nodes measure their links."""


def replay(members: Sequence[NodeStart], steps: Sequence[AnyStep], *, paced: bool = False) -> Violation | None:
    """Carry out a history and its liveness phase; returns the violation, or None. `paced`: as in `History`."""
    try:
        fleet = Fleet(members, paced=paced)
        for step in steps:
            fleet.apply(step)
        settle(fleet)
    except Violation as found:
        return found
    return None


def to_json(history: History) -> str:
    """A history as the text of its file."""
    return msgspec.json.format(msgspec.json.encode(history), indent=1).decode() + "\n"


def from_json(data: bytes) -> History:
    """The history in a file. Raises `ConstraintCrdtError`, with advice, for any other content."""
    if len(data) > FILE_BYTES:
        raise ConstraintCrdtError(f"a history has at most {FILE_BYTES} bytes, not {len(data)}")
    try:
        head = msgspec.json.decode(data, type=_FileHead)
        if head.format != FORMAT:
            raise ConstraintCrdtError("this is no history: give a file that `simulate --chaos` wrote")
        if head.version != VERSION:
            raise ConstraintCrdtError(f"this history has version {head.version}, and this program reads {VERSION}: upgrade it")
        return msgspec.json.decode(data, type=History)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConstraintCrdtError(f"this is no history: {error}") from None


class _FileHead(msgspec.Struct):
    format: str = ""
    version: int = 0


DIVERGENCE = frozenset(
    ("state", "hash", "readings", "counts", "estimates", "members", "decay", "exchange", "liveness", "retirement")
)
"""Invariants with a common cause, two differing nodes: the first violated invariant says little."""

MOST_REPLAYS = 4000
"""Replays after which shrinking stops with the shortest history so far."""

_NEAR = 8

FEW = 40
"""Steps of a history below which every pair of steps is left out together."""

Element = TypeVar("Element")


class _Spent(Exception):
    """No replays are left."""


class _Attempts:
    """Replays candidates, and keeps the best still violating the invariant."""

    def __init__(self, history: History, most: int) -> None:
        self.members, self.steps, invariant = list(history.members), list(history.steps), history.invariant
        self._paced = history.paced
        self._alike = DIVERGENCE if invariant in DIVERGENCE else {invariant}
        self._left = most

    def try_steps(self, steps: Sequence[AnyStep]) -> bool:
        """Keep these steps if they still lead to the violation."""
        found = self._fails(self.members, steps)
        if found:
            self.steps = list(steps)
        return found

    def try_members(self, members: Sequence[NodeStart]) -> bool:
        """Keep these members if they still lead to the violation."""
        found = self._fails(members, self.steps)
        if found:
            self.members = list(members)
        return found

    def _fails(self, members: Sequence[NodeStart], steps: Sequence[AnyStep]) -> bool:
        self._left -= 1
        if self._left < 0:
            raise _Spent
        violation = replay(members, steps, paced=self._paced)
        return violation is not None and violation.invariant in self._alike


def shrink(history: History, *, most_replays: int = MOST_REPLAYS) -> History:
    """The shortest history found to lead to the same violation. Deterministic.

    Raises `InvalidValue` if its steps lead to no such violation: a bound on time is not in the steps.
    """
    attempts = _Attempts(history, most_replays)
    try:
        if not attempts.try_steps(history.steps):
            raise InvalidValue("nothing goes wrong in the steps of this history")
        _exchange_whole(attempts)
        before = None
        while before != attempts.steps:
            before = attempts.steps
            _leave_out(attempts.steps, attempts.try_steps)
            _gather(attempts)
            _join_parts(attempts)
            _write_instead(attempts)
            _make_plain(attempts)
            if before == attempts.steps:
                _leave_out_two(attempts)
        _leave_out(attempts.members, attempts.try_members)
    except _Spent:
        pass
    violation = replay(attempts.members, attempts.steps, paced=history.paced)
    assert violation is not None  # noqa: S101 - each kept step and member still leads to it
    return msgspec.structs.replace(
        history,
        members=tuple(attempts.members),
        steps=tuple(attempts.steps),
        invariant=violation.invariant,
        sentence=str(violation),
    )


def _leave_out(items: Sequence[Element], keep: Callable[[Sequence[Element]], bool]) -> None:
    """Leave out stretches, the last ones first, then smaller ones, until none can be left out."""
    kept = list(items)
    size = max(1, len(kept) // 2)
    while True:
        went = False
        end = len(kept)
        while end > 0:
            start = max(0, end - size)
            rest = kept[:start] + kept[end:]
            if keep(rest):
                kept, went = rest, True
            end = start
        if size == 1 and not went:
            return
        size = max(1, size // 2) if not went else size


def _exchange_whole(attempts: _Attempts) -> None:
    """Replace all messages by whole exchanges, if the violation remains: most of the shrinking at once."""
    attempts.try_steps(
        [_as_exchange(step) if isinstance(step, Begin) else step for step in attempts.steps if not isinstance(step, Deliver)]
    )


def _as_exchange(begin: Begin) -> WholeExchange:
    return WholeExchange(number=begin.number, node=begin.node, peer=begin.peer, time=begin.time)


def _gather(attempts: _Attempts) -> None:
    """Replace the messages of an exchange by a whole exchange, where it began or where it ended."""
    begins = [step for step in attempts.steps if isinstance(step, Begin)]
    for begin in begins:
        messages = _followed(attempts.steps, begin)
        rest = [step for step in attempts.steps if step.number not in messages or step is begin]
        first = rest.index(begin)
        last = first + sum(step.number not in messages for step in attempts.steps[first : _last(attempts.steps, messages)])
        rest.remove(begin)
        for place in dict.fromkeys((first, last)):
            if attempts.try_steps([*rest[:place], _as_exchange(begin), *rest[place:]]):
                break


def _followed(steps: Sequence[AnyStep], begin: AnyStep) -> set[int]:
    """The numbers of a step that sent a message, and of all steps that followed from it."""
    messages = {begin.number}
    for step in steps:
        if isinstance(step, Deliver) and step.message[0] in messages:
            messages.add(step.number)
    return messages


def _last(steps: Sequence[AnyStep], numbers: set[int]) -> int:
    return max(place for place, step in enumerate(steps) if step.number in numbers)


def _join_parts(attempts: _Attempts) -> None:
    """Let a message travel whole instead of in parts, and arrive where the last part did."""
    for step in list(attempts.steps):
        arrivals = [each for each in attempts.steps if isinstance(each, Deliver) and each.message[0] == step.number]
        if not getattr(step, "room", 0) or not arrivals or step not in attempts.steps:
            continue
        whole = {
            step.number: msgspec.structs.replace(step, room=0),
            arrivals[-1].number: msgspec.structs.replace(arrivals[-1], message=(step.number, 0)),
        }
        attempts.try_steps([whole.get(each.number, each) for each in attempts.steps if each not in arrivals[:-1]])


def _write_instead(attempts: _Attempts) -> None:
    """Replace writes and exchanges by the simplest write of the nodes concerned."""
    for step in list(attempts.steps):
        if isinstance(step, Begin | Stale) and step in attempts.steps:
            messages = _followed(attempts.steps, step)
            rest = [each for each in attempts.steps if each != step]
            attempts.try_steps([_own_write(each, each.node) if each.number in messages else each for each in rest])
        elif isinstance(step, WholeExchange | Write) and not isinstance(step, Record) and step in attempts.steps:
            for node in (step.node, step.peer) if isinstance(step, WholeExchange) else (step.node,):
                attempts.try_steps([_own_write(each, node) if each == step else each for each in attempts.steps])


def _own_write(step: AnyStep, node: str) -> AnyStep:
    return Record(number=step.number, node=node, satisfied=1)


def _leave_out_two(attempts: _Attempts) -> None:
    """Leave out two steps that are not adjacent, the last ones first, if few are left."""
    pairs = combinations(reversed(attempts.steps), 2) if len(attempts.steps) <= FEW else ()
    for pair in pairs:
        rest = [step for step in attempts.steps if step not in pair]
        if len(rest) < len(attempts.steps):
            attempts.try_steps(rest)


def _make_plain(attempts: _Attempts) -> None:
    """Replace steps by simpler steps, each on its own."""
    for place in range(len(attempts.steps)):
        for candidate in _plain(attempts.steps[place]):
            attempts.try_steps([*attempts.steps[:place], candidate, *attempts.steps[place + 1 :]])


def _plain(step: AnyStep) -> Iterator[AnyStep]:
    """The step with a field at its default, or nearer to it."""
    if getattr(step, "room", 0) > LEAST_ROOM:
        yield msgspec.structs.replace(step, room=LEAST_ROOM)
    if isinstance(step, Stale):
        yield from (msgspec.structs.replace(step, back=back) for back in range(min(step.back, _NEAR)))
    for field in msgspec.structs.fields(step):
        if field.default is not msgspec.NODEFAULT and getattr(step, field.name) != field.default:
            yield msgspec.structs.replace(step, **{field.name: field.default})
