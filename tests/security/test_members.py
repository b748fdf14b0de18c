"""Members that lie: whatever one of them sends, it spoils its own row, never another's, and never the agreement of the others.

A liar is a certified node that runs the exchange and then changes what it sends. The honest nodes write ids of their own, so that
what must stand in the end is known exactly.
"""

import random
from collections.abc import Callable, Sequence
from itertools import count

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, VectorClock
from constraint_crdt.crdt.cells import REMOVE, Cell, Run, Stub, make_cell
from constraint_crdt.crdt.signed_rows import SIGNATURE, covered_digest, signed_text
from constraint_crdt.protocol.messages import (
    ConstraintDelta,
    Delta,
    GossipMessage,
    Mend,
    Ping,
    Sync,
    decode_message,
    encode_message,
)
from constraint_crdt.types.nodes import CERTIFICATE
from tests.conftest import BUDGET

from .credentials import FastCredentials

HONEST = ("a", "b", "c")
LIAR = "liar"
COUNTED = ("a0", "b0", "x")
MOST_MESSAGES = 300
"""Of an exchange with a liar, which may go on for ever; the runtime breaks off, too."""

HISTORIES = 3000 if BUDGET == "nightly" else 5

Lie = Callable[["Liar", GossipMessage], GossipMessage]


class Liar:
    """A node, and the messages that it and others sent."""

    def __init__(self, node: GossipNode, credentials: FastCredentials, rng: random.Random) -> None:
        self.node = node
        self.credentials = credentials
        self.rng = rng
        self.heard: list[bytes] = []

    def runs_of(self, message: GossipMessage) -> list[Run]:
        found = message.delta.runs if isinstance(message, Delta) else message.state.runs if isinstance(message, Sync) else ()
        return [run for run in found if isinstance(run, Run)]

    def with_runs(self, message: GossipMessage, runs: Sequence[Run]) -> GossipMessage:
        if isinstance(message, Delta):
            return msgspec.structs.replace(message, delta=ConstraintDelta(runs))
        return msgspec.structs.replace(message, state=ConstraintDelta(runs))

    def change(self, message: GossipMessage, how: Callable[[Run], Run | None]) -> GossipMessage:
        """Change a run of a transfer."""
        runs = self.runs_of(message)
        if not runs:
            return message
        chosen = self.rng.choice(runs)
        changed = how(chosen)
        kept = [changed if run is chosen else run for run in runs]
        return self.with_runs(message, [run for run in kept if run is not None])

    def sign(self, run: Run) -> Run:
        """The run, signed by the liar up to its end."""
        prediction = self.node.state.rows.signed.predict(run, 0)  # type: ignore[union-attr]
        text = signed_text(self.node.fleet, run.replica, run.hi, prediction.root)
        return with_cells(run, [*run.cells[:-1], at(make_cell(SIGNATURE, "", self.credentials.sign(text)), run.replica, run.hi)])


def at(cell: Cell, replica: Replica, seq: int) -> Cell:
    cell.replica, cell.seq = replica, seq
    if not isinstance(cell.key, str) or (cell.kind == REMOVE):
        cell.key = seq
    return cell


def with_cells(run: Run, cells: Sequence[Cell], *, stubs: Sequence[Stub] | None = None, hi: int | None = None) -> Run:
    return Run(run.replica, run.lo, run.hi if hi is None else hi, cells, run.floor, 0, run.stubs if stubs is None else stubs)


# --- the lies ----------------------------------------------------------------------------------------------------------------


def leaves_out_a_row(liar: Liar, message: GossipMessage) -> GossipMessage:
    return liar.change(message, lambda run: None)


def leaves_out_a_cell(liar: Liar, message: GossipMessage) -> GossipMessage:
    return liar.change(message, lambda run: with_cells(run, run.cells[1:]) if len(run.cells) > 1 else run)


def calls_a_cell_dead(liar: Liar, message: GossipMessage) -> GossipMessage:
    def how(run: Run) -> Run:
        cells = [cell for cell in run.cells if cell.kind not in (SIGNATURE, CERTIFICATE)]
        if not cells:
            return run
        lost = liar.rng.choice(cells)
        stubs = Stub(lost.seq, lost.kind, lost.key if isinstance(lost.key, str) else None, covered_digest(lost))
        return with_cells(run, [cell for cell in run.cells if cell is not lost], stubs=sorted([*run.stubs, stubs]))

    return liar.change(message, how)


def alters_a_cell(liar: Liar, message: GossipMessage) -> GossipMessage:
    def how(run: Run) -> Run:
        place = liar.rng.randrange(len(run.cells))
        old = run.cells[place]
        new = at(make_cell(3, "forged", [1_000, 0]), run.replica, old.seq)
        return with_cells(run, [*run.cells[:place], new, *run.cells[place + 1 :]])

    return liar.change(message, lambda run: how(run) if run.cells else run)


def appends_to_a_row(liar: Liar, message: GossipMessage) -> GossipMessage:
    def how(run: Run) -> Run:
        forged = at(make_cell(3, "forged", [1_000, 0]), run.replica, run.hi + 1)
        end = at(make_cell(SIGNATURE, "", bytes(64)), run.replica, run.hi + 2)
        longer = with_cells(run, [*run.cells[:-1], forged, end], hi=run.hi + 2)
        return liar.sign(longer) if run.lo == 0 else longer

    return liar.change(message, lambda run: how(run) if run.cells else run)


def writes_as_another(liar: Liar, message: GossipMessage) -> GossipMessage:
    """A new life of an honest node, with a certificate of the liar's own making."""
    if not isinstance(message, Delta | Sync):
        return message
    replica = Replica(liar.rng.choice(HONEST), 10**6)
    chain = liar.rng.choice([liar.credentials.chain, liar.credentials.forged(node=replica.node_id, role="operator")])
    cells = [
        at(make_cell(CERTIFICATE, "", chain), replica, 1),
        at(make_cell(3, "forged", [1_000, 0]), replica, 2),
        at(make_cell(SIGNATURE, "", bytes(64)), replica, 3),
    ]
    liar.node.state.rows.digest.fill(replica, cells)
    return liar.with_runs(message, [*liar.runs_of(message), liar.sign(Run(replica, 0, 3, cells))])


def raises_floors(liar: Liar, message: GossipMessage) -> GossipMessage:
    def how(run: Run) -> Run:
        return Run(run.replica, run.lo, run.hi, run.cells, run.hi, 0, run.stubs)

    return liar.change(message, how)


def claims_a_later_clock(liar: Liar, message: GossipMessage) -> GossipMessage:
    if not isinstance(message, Ping) or message.base is not None or message.clock is None:
        return message
    entries = {replica: seq + liar.rng.randrange(3) for replica, seq in message.clock.items()}
    return msgspec.structs.replace(message, clock=VectorClock(entries), changes=())


def claims_another_hash(liar: Liar, message: GossipMessage) -> GossipMessage:
    if isinstance(message, Ping | Sync):
        return msgspec.structs.replace(message, state_hash=type(message.state_hash)(bytes(32)))
    if isinstance(message, Delta) and message.proof is not None:
        return msgspec.structs.replace(message, proof=bytes(8))
    return message


def repairs_wrongly(liar: Liar, message: GossipMessage) -> GossipMessage:
    """Its part of a repair lacks cells, and calls all cells of the reader removed."""
    if not isinstance(message, Mend):
        return message
    runs = [run for run in message.cells.runs if liar.rng.random() < 0.3]
    dead = [(replica, seq) for replica, end in liar.node.clock.items() for seq in range(1, end)]
    return msgspec.structs.replace(message, cells=ConstraintDelta(runs), dead=dead, doubt=0)


def tells_the_truth(liar: Liar, message: GossipMessage) -> GossipMessage:
    return message


LIES: Sequence[Lie] = (
    leaves_out_a_row,
    leaves_out_a_cell,
    calls_a_cell_dead,
    alters_a_cell,
    appends_to_a_row,
    writes_as_another,
    raises_floors,
    claims_a_later_clock,
    claims_another_hash,
    repairs_wrongly,
)


# --- the fleet ---------------------------------------------------------------------------------------------------------------


class LyingFleet:
    """Honest nodes and a liar, whose row may have two versions."""

    def __init__(self, seed: int, *, role: str = "operator", lies: Sequence[Lie] = LIES, share: float = 0.5) -> None:
        self.rng = random.Random(seed)
        self.lies = (*lies, *[tells_the_truth] * max(1, round(len(lies) * (1 - share) / share))) if share else (tells_the_truth,)
        self.time = 10**18
        self.lives = count(1)
        self.nodes = {name: self.node(name, FastCredentials(name, begins=place)) for place, name in enumerate(HONEST)}
        credentials = FastCredentials(LIAR, role, begins=9)
        self.liars = [Liar(self.node(LIAR, credentials, 1), credentials, self.rng) for _ in range(2)]
        self.counts = dict.fromkeys(HONEST, 0)
        self.active: dict[str, set[str]] = {name: set() for name in HONEST}
        self.names = count()

    def node(self, name: str, credentials: FastCredentials, incarnation: int | None = None) -> GossipNode:
        return GossipNode(
            name, incarnation=incarnation, now=lambda: self.time, renew=lambda: next(self.lives), credentials=credentials
        )

    def step(self, *, collects: bool = False) -> None:
        self.time += self.rng.randrange(10**9)
        name = self.rng.choice(HONEST)
        node, what = self.nodes[name], self.rng.random()
        if what < 0.2:
            id_ = f"{name}{next(self.names) % 5}"
            node.add_constraint(id_, when=f"v < {next(self.names)}.0")
            self.active[name].add(id_)
        elif what < 0.3 and self.active[name]:
            id_ = self.rng.choice(sorted(self.active[name]))
            if id_ in node.state.constraints:
                node.remove_constraint(id_)
                self.active[name].discard(id_)
        elif what < 0.4:
            node.record(1, 0, constraint=self.rng.choice(COUNTED))
            self.counts[name] += 1
        elif what < 0.45 and collects:
            node.collect()
        elif what < 0.6:
            self.exchange(node, self.nodes[self.rng.choice(HONEST)])
        else:
            liar = self.rng.choice(self.liars)
            if self.rng.random() < 0.3:
                liar.node.record(1, 1, constraint="x")
            for each in self.rng.sample([(liar.node, node), (node, liar.node)], 2):
                self.exchange(*each, liar)

    def exchange(self, a: GossipNode, b: GossipNode, liar: Liar | None = None) -> None:
        if a is b:
            return
        waiting = [(a, b, a.begin(b.node_id))]
        said = 0
        while waiting and said < MOST_MESSAGES:
            said += 1
            sender, reader, message = waiting.pop(0)
            if liar is not None and sender is liar.node:
                data = encode_message(self.rng.choice(self.lies)(liar, message))
                if liar.heard and self.rng.random() < 0.1:
                    data = self.rng.choice(liar.heard)
            else:
                data = encode_message(message)
                if liar is not None:
                    liar.heard.append(data)
            try:
                responses = reader.receive(decode_message(data, max_bytes=None)).responses
            except ConstraintCrdtError:
                if liar is None:
                    raise
                continue
            waiting += [(reader, sender, response) for response in responses]

    def settle(self) -> None:
        """The liar is gone: the honest exchange, often enough for every pause of a repair."""
        for _ in range(60):
            for a in self.nodes.values():
                for b in self.nodes.values():
                    self.exchange(a, b)
            if len({node.state_hash for node in self.nodes.values()}) == 1:
                return
        raise AssertionError("the honest nodes do not agree")

    def check(self) -> None:
        expected = set().union(*self.active.values())
        for node in self.nodes.values():
            found = {id_ for id_ in node.state.constraints if id_[0] in HONEST}
            assert found == expected
            counts = [node.state.metrics.by_node(id_) for id_ in COUNTED]
            assert {name: sum(each[name].satisfied for each in counts if name in each) for name in HONEST} == self.counts
            assert not any(replica.incarnation == 10**6 for replica in node.clock)


@pytest.fixture(params=range(HISTORIES))
def seed(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.mark.slow
@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_no_lie_of_a_member_spoils_the_row_of_another(lie: Lie) -> None:
    for seed in range(HISTORIES // 5):
        fleet = LyingFleet(seed, lies=(lie,))
        for _ in range(50):
            fleet.step()
        fleet.settle()
        fleet.check()


@pytest.mark.long
def test_all_lies_together_leave_the_honest_in_agreement(seed: int) -> None:
    fleet = LyingFleet(seed)
    for _ in range(80):
        fleet.step()
    fleet.settle()
    fleet.check()


@pytest.mark.long
def test_no_removed_definition_comes_back_while_removals_are_dropped(seed: int) -> None:
    fleet = LyingFleet(seed)
    for _ in range(80):
        fleet.step(collects=True)
    fleet.settle()
    fleet.check()
