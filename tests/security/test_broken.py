"""Attacks of members that once worked."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, VectorClock
from constraint_crdt.crdt import signed_rows
from constraint_crdt.crdt.cells import Cell, Run, Stub, make_cell, make_removal, read_cell, value_of
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.signed_rows import SETTLED, SIGNATURE, covered_digest, signed_text
from constraint_crdt.errors import NotPermitted
from constraint_crdt.protocol.messages import ConstraintDelta, Delta, GossipMessage, Sync, decode_message, encode_message
from constraint_crdt.store import Changes
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import CERTIFICATE, NODE, RETIRE, VOUCH
from tests.store.disk import loaded, open_store, taken

from .credentials import FastCredentials, Key
from .test_members import at
from .test_signed_rows import exchange, node


def send(reader: GossipNode, message: GossipMessage) -> None:
    """A message over bytes, whose refusal is of no interest."""
    with suppress(ConstraintCrdtError):
        reader.receive(decode_message(encode_message(message), max_bytes=None))


def settle(*nodes: GossipNode) -> None:
    """Exchanges of honest nodes, often enough for every pause of a repair."""
    for _ in range(60):
        for a in nodes:
            for b in nodes:
                if a is not b:
                    exchange(a, b)
        if len({each.state_hash for each in nodes}) == 1:
            return
    raise AssertionError("the honest nodes do not agree")


def sync(sender: GossipNode, runs: Sequence[Run]) -> Sync:
    return Sync(node=sender.replica, fleet=sender.fleet, state_hash=sender.state_hash, state=ConstraintDelta(runs))


def whole_row(sender: GossipNode, replica: Replica) -> Run:
    sender.local.seal()
    return next(run for run in sender.state.rows.whole() if run.replica == replica)


def as_stub(cell: Cell) -> Stub:
    return Stub(cell.seq, cell.kind, cell.key if isinstance(cell.key, str) else None, covered_digest(cell))


def forged_row(replica: Replica, cells: Sequence[Cell]) -> tuple[Run, bytes]:
    """A row without a certificate, and its root."""
    rows = Rows()
    rows.follow_signatures().begin(replica)
    rows.write_all(replica, cells)
    return rows.whole()[0], rows.signed.root(replica)  # type: ignore[union-attr]


def lying_root(rows: Rows, run: Run, known: int) -> bytes:
    """The root that a node without the checks computes."""
    with patch.object(signed_rows, "check_slots"), patch.object(signed_rows, "check_stubs"):
        assert rows.signed is not None
        return rows.signed.predict(run, known).root


def signed_run(writer: GossipNode, replica: Replica, cells: Sequence[Cell], stubs: Sequence[Stub] = (), *, lo: int = 0) -> Run:
    """A row by a liar: any cells at any seqs, signed up to the last. `lo`: send only what is above."""
    bound = [at(make_cell(CERTIFICATE, "", writer.authority._credentials.chain), replica, 1), *cells]  # type: ignore[union-attr]
    hi = max([*[cell.seq for cell in bound], *[each.seq for each in stubs]]) + 1
    rows = writer.state.rows
    rows.digest.fill(replica, bound)
    root = lying_root(rows, Run(replica, 0, hi, bound, 0, 0, stubs), 0)
    text = signed_text(writer.fleet, replica, hi, root)
    last = at(make_cell(SIGNATURE, "", writer.authority._credentials.sign(text)), replica, hi)  # type: ignore[union-attr]
    rows.digest.fill(replica, [last])
    return Run(replica, lo, hi, [cell for cell in [*bound, last] if cell.seq > lo], 0, 0, [each for each in stubs if each.seq > lo])


# --- rows without a certificate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [True, False])
def test_a_cell_that_was_not_checked_vouches_for_nothing(true: bool) -> None:
    """Neither is a forged row taken, nor a former row lost."""
    a, liar, b = node("a"), node("liar", "member"), node("b")
    ghost = Replica("a", 77)
    row, root = forged_row(ghost, [make_cell(3, "former", [1_000, 0])])
    if not true:
        b.state.rows.restore([row])
    a.add_constraint("x", when="v < 1.0")
    for one in (a, liar):
        exchange(one, b)
    vouch = at(make_cell(VOUCH, str(ghost), [row.hi, root if true else bytes(32)]), a.replica, b.clock[a.replica])
    told = Run(a.replica, 1, vouch.seq, [vouch])
    clock = {**dict(b.clock.items()), ghost: row.hi}
    send(b, Delta(node=liar.replica, fleet=liar.fleet, clock=VectorClock(clock), delta=ConstraintDelta([told, row])))
    assert (ghost in b.clock) is not true


def test_a_cell_of_a_row_without_a_certificate_vouches_for_nothing() -> None:
    ghost = Replica("b", 77)
    row, root = forged_row(ghost, [make_cell(3, "forged", [1_000, 0])])
    before = GossipNode("old", incarnation=1, now=lambda: 10**18, renew=count(2).__next__)
    before.write(lambda me: before.state.rows.write(me, make_cell(VOUCH, str(ghost), [row.hi, root])))
    a = node("a")
    a.state.rows.restore(before.state.rows.whole())
    assert a.vouch() == 1
    b = node("b")
    exchange(a, b)
    assert before.replica in b.clock
    liar = node("liar", "member")
    exchange(liar, b)
    clock = {**dict(b.clock.items()), ghost: row.hi}
    send(b, Delta(node=liar.replica, fleet=liar.fleet, clock=VectorClock(clock), delta=ConstraintDelta([row])))
    assert ghost not in b.clock


def test_a_revoked_operator_vouches_for_nothing_at_any_node() -> None:
    a, b, thief, liar = node("a"), node("b"), node("thief"), node("liar", "member")
    thief.record(1)
    for one, other in ((a, thief), (a, b), (liar, a)):
        exchange(one, other)
    a.revoke("thief")
    exchange(a, b)
    ghost = Replica("old", 77)
    row, root = forged_row(ghost, [make_cell(3, "forged", [1_000, 0])])
    thief.state.rows.write(thief.replica, make_cell(VOUCH, str(ghost), [row.hi, root]))
    thief.local.written = thief.clock[thief.replica]
    told = whole_row(thief, thief.replica)
    clock = {**dict(b.clock.items()), ghost: row.hi, thief.replica: told.hi}
    send(b, Delta(node=liar.replica, fleet=liar.fleet, clock=VectorClock(clock), delta=ConstraintDelta([told, row])))
    assert ghost not in b.clock
    settle(a, b)


def test_what_a_revoked_operator_vouched_for_goes_with_it() -> None:
    a, b, thief = node("a"), node("b"), node("thief")
    thief.record(1)
    for one, other in ((a, thief), (a, b)):
        exchange(one, other)
    ghost = Replica("old", 77)
    row, _ = forged_row(ghost, [make_cell(3, "forged", [1_000, 0])])
    thief.state.rows.restore([*thief.state.rows.whole(), row])
    assert thief.vouch() == 1
    exchange(thief, b)
    assert ghost in b.clock
    a.revoke("thief")
    settle(a, b)
    assert ghost not in b.clock


# --- the signature -----------------------------------------------------------------------------------------------------------


def test_a_relay_cannot_write_a_signature_in_another_way() -> None:
    gone, a, b, liar = node("gone"), node("a"), node("b"), node("liar", "observer")
    gone.add_constraint("x", when="v < 1.0")
    exchange(gone, liar)
    exchange(gone, a)
    row = whole_row(liar, gone.replica)
    last = row.cells[-1]
    changed = read_cell(b"\x94" + last.data[1:] + b"\xc4\x01x")  # with a tag
    assert value_of(changed) == value_of(last)
    changed = at(changed, gone.replica, last.seq)
    send(b, sync(liar, [Run(row.replica, 0, row.hi, [*row.cells[:-1], changed])]))
    settle(a, b)


def test_two_signatures_of_one_row_end_as_one() -> None:
    class Fickle(FastCredentials):
        """As a key of Ed25519, of which many signatures of a text are valid."""

        salt = b""

        def sign(self, text: bytes) -> bytes:
            return super().sign(text)[:32] + self.salt.ljust(32, b"\0")

    class Reader(FastCredentials):
        def verifies(self, member: object, signature: bytes, text: bytes) -> bool:
            whole = FastCredentials("liar", key=None).sign(text)
            return super().verifies(member, signature, text) or signature[:32] == whole[:32]

    a, b = (GossipNode(name, incarnation=1, now=lambda: 1, renew=count(2).__next__, credentials=Reader(name)) for name in "ab")
    for salt, reader in ((b"1", a), (b"2", b)):
        credentials = Fickle("liar", "member")
        credentials.salt = salt
        liar = GossipNode("liar", incarnation=1, now=lambda: 1, renew=count(2).__next__, credentials=credentials)
        liar.record(1)
        send(reader, sync(liar, [whole_row(liar, liar.replica)]))
        assert liar.replica in reader.clock
    settle(a, b)


# --- stubs -------------------------------------------------------------------------------------------------------------------


def test_no_constraint_is_lost_by_a_sync_that_calls_it_removed() -> None:
    a, b, c, liar = node("a"), node("b"), node("c"), node("liar", "observer")
    a.add_constraint("x", when="v < 1.0")
    liar.describe("test")
    for one in (b, c, liar):
        exchange(a, one)
    liar.describe("again")
    row = whole_row(liar, a.replica)
    lost = next(cell for cell in row.cells if cell.kind == ADD)
    stubs = Run(row.replica, 0, row.hi, [cell for cell in row.cells if cell is not lost], 0, 0, [as_stub(lost)])
    own = whole_row(liar, liar.replica)
    send(b, sync(liar, [stubs, Run(own.replica, 0, own.hi, own.cells, own.hi, 0, own.stubs)]))
    for one, other in ((b, c), (b, a), (c, a)):
        exchange(one, other)
    settle(a, b, c)
    assert "x" in a.state.constraints


def test_a_writer_settles_no_cell_that_a_liar_called_removed() -> None:
    a, b, liar = (node(name, limits=Limits(stubs=4)) for name in ("a", "b", "liar"))
    for number in range(8):
        a.add_constraint(f"c{number}", when="v < 1.0")
    exchange(a, b)
    exchange(a, liar)
    row = whole_row(liar, a.replica)
    lost = [cell for cell in row.cells if cell.kind == ADD]
    stubs = Run(row.replica, 0, row.hi, [cell for cell in row.cells if cell not in lost], 0, 0, [as_stub(cell) for cell in lost])
    send(a, sync(liar, [stubs]))
    a.record(1)
    settle(a, b)
    assert len(b.state.constraints) == 8


def test_a_removed_constraint_does_not_come_back_with_a_node_that_was_away_while_removals_were_dropped() -> None:
    a, b, away = node("a"), node("b"), node("away")
    a.add_constraint("x", when="v < 1.0")
    settle(a, b, away)
    b.remove_constraint("x")
    exchange(a, b)
    a.collect()
    b.collect()
    settle(a, b, away)
    assert "x" not in away.state.constraints


def spread(run: Run, *, partly: int = 0) -> None:
    """Whatever a node takes of a liar, it can pass on, and then others are not kept from its own row."""
    a, b, liar = node("a"), node("b"), node("liar")
    exchange(a, b)
    if partly:
        first = signed_run(liar, liar.replica, [cell for cell in run.cells if 1 < cell.seq <= partly])
        send(a, sync(liar, [first]))
    send(a, sync(liar, [run]))
    a.add_constraint("honest", when="v < 1.0")
    send(b, a.delta_since(b.clock))
    assert "honest" in b.state.constraints
    late = node("late")
    for one, other in ((a, b), (b, late), (late, a)):
        exchange(one, other)
    settle(a, b, late)


LIAR = Replica("liar", 1)


def cell(seq: int, kind: int, key: str | None, value: object) -> Cell:
    return at(make_cell(kind, key, value), LIAR, seq)


@pytest.mark.parametrize(
    ("cells", "stubs"),
    [
        pytest.param([cell(2, 3, "x", [1, 0]), cell(3, 3, "x", [2, 0])], [], id="two cells of a slot"),
        pytest.param([cell(2, 3, "x", [1, 0])], [Stub(2, 3, "y", bytes(16))], id="a cell and a stub with one seq"),
        pytest.param([cell(3, 3, "x", [1, 0])], [Stub(2, 3, "x", bytes(16))], id="a cell and a stub of a slot"),
        pytest.param([cell(4, 3, "y", [1, 0])], [Stub(2, 3, "x", bytes(16)), Stub(3, 3, "x", bytes(16))], id="two stubs of a slot"),
        pytest.param([cell(2, 3, "x", [1, 0])], [Stub(3, CERTIFICATE, "", bytes(16))], id="a stub of the certificate"),
        pytest.param([cell(2, 3, "x", [1, 0])], [Stub(3, SIGNATURE, "", bytes(16))], id="a stub of a signature"),
        pytest.param([cell(2, SIGNATURE, "", bytes(64)), cell(3, 3, "x", [1, 0])], [], id="two signatures"),
        pytest.param([cell(2, 3, "x", [1, 0]), cell(3, SETTLED, "0", b"")], [], id="a settled certificate"),
        pytest.param([cell(2, SETTLED, "0", b"\2"), cell(3, 3, "x", [1, 0])], [], id="settled before"),
        pytest.param([cell(3, SETTLED, "0", b"\3")], [Stub(2, 3, "x", bytes(16))], id="a stub that was settled"),
        pytest.param([cell(2, 3, "x", [1, 0]), cell(3, SETTLED, "0", b"\3")], [], id="a cell that was settled"),
    ],
)
def test_what_a_node_takes_it_can_pass_on(cells: Sequence[Cell], stubs: Sequence[Stub]) -> None:
    spread(signed_run(node("liar"), LIAR, cells, stubs))


def deltas(*parts: tuple[Sequence[Cell], Sequence[Stub]]) -> None:
    """The same for a row that came in pieces."""
    a, b, liar = node("a"), node("b"), node("liar")
    exchange(a, b)
    credentials = liar.authority._credentials  # type: ignore[union-attr]
    chain = at(make_cell(CERTIFICATE, "", credentials.chain), LIAR, 1)
    lo = 0
    for cells, stubs in parts:
        bound = [*([chain] if not lo else []), *cells]
        hi = max([*[each.seq for each in bound], *[each.seq for each in stubs]]) + 1
        a.state.rows.digest.fill(LIAR, bound)
        root = lying_root(a.state.rows, Run(LIAR, lo, hi, bound, 0, 0, stubs), lo)
        last = at(make_cell(SIGNATURE, "", credentials.sign(signed_text(liar.fleet, LIAR, hi, root))), LIAR, hi)
        run = Run(LIAR, lo, hi, [*bound, last], 0, 0, stubs)
        clock = VectorClock({**dict(a.clock.items()), LIAR: hi})
        send(a, Delta(node=liar.replica, fleet=liar.fleet, clock=clock, delta=ConstraintDelta([run])))
        if LIAR not in a.clock or a.clock[LIAR] != hi:
            break
        lo = hi
    a.add_constraint("honest", when="v < 1.0")
    send(b, a.delta_since(b.clock))
    assert "honest" in b.state.constraints
    late = node("late")
    for one, other in ((a, b), (b, late), (late, a)):
        exchange(one, other)
    settle(a, b, late)


FIRST: tuple[Sequence[Cell], Sequence[Stub]] = ([cell(2, 3, "x", [1, 0]), cell(3, 3, "y", [1, 0])], [])


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([FIRST, ([cell(5, 3, "x", [1, 0]), cell(6, 3, "x", [2, 0])], [])], id="two cells of a slot"),
        pytest.param([FIRST, ([], [Stub(5, CERTIFICATE, "", bytes(16))])], id="a stub of the certificate"),
        pytest.param([FIRST, ([cell(5, SETTLED, "0", b"")], [])], id="a settled certificate"),
        pytest.param([FIRST, ([], [Stub(5, SIGNATURE, "", bytes(16))])], id="a stub of a signature"),
        pytest.param([FIRST, ([cell(5, 3, "z", [1, 0])], [Stub(5, 3, "q", bytes(16))])], id="a cell and a stub with one seq"),
        pytest.param([FIRST, ([cell(5, 3, "z", [1, 0])], [Stub(6, 3, "z", bytes(16))])], id="a cell and a stub of a slot"),
        pytest.param([FIRST, ([], [Stub(5, 3, "q", bytes(16)), Stub(6, 3, "q", bytes(16))])], id="two stubs of a slot"),
        pytest.param([FIRST, ([cell(5, SETTLED, "0", b"\x03"), cell(6, SETTLED, "0", b"\x01")], [])], id="settled twice"),
        pytest.param([FIRST, ([cell(5, SETTLED, "0", b"\x03")], []), ([cell(7, 3, "y", [3, 0])], [])], id="settled and again"),
        pytest.param([FIRST, ([cell(5, 3, "q", [3, 0]), cell(6, SETTLED, "0", b"\x03")], [])], id="settled at once"),
        pytest.param([FIRST, ([], [Stub(5, 3, "q", bytes(16)), Stub(6, SETTLED, "0", bytes(16))])], id="a stub of a settlement"),
    ],
)
def test_what_a_node_takes_in_pieces_it_can_pass_on(parts: Sequence[tuple[Sequence[Cell], Sequence[Stub]]]) -> None:
    deltas(*parts)


def test_a_stub_under_another_name_tells_no_fork_of_an_honest_writer() -> None:
    a, b, c, liar = node("a"), node("b"), node("c"), node("liar", "observer")
    a.add_constraint("x", when="v < 1.0")
    exchange(a, b)
    b.remove_constraint("x")
    for one in (a, liar):
        exchange(one, b)
    row = whole_row(liar, a.replica)
    (stub,) = row.stubs
    send(c, sync(liar, [Run(row.replica, 0, row.hi, row.cells, 0, 0, [stub._replace(key="other")])]))
    a.add_constraint("x", when="v < 2.0")
    settle(a, b, c)
    assert not c.authority.forks  # type: ignore[union-attr]
    assert "x" in c.state.constraints


def test_nodes_with_two_rows_of_a_liar_about_ended_lives_understand_each_other() -> None:
    a, b, liar = node("a"), node("b"), node("liar", "observer")
    b.add_constraint("x", when="v < 1.0")
    ended = cell(2, RETIRE, "liar~5", [False, [["liar", 5, 3]]])
    send(b, sync(liar, [signed_run(liar, LIAR, [ended])]))
    send(a, sync(liar, [signed_run(liar, LIAR, [cell(3, NODE, "", ["1", 1])])]))
    b.add_constraint("y", when="v < 1.0")
    settle(a, b)
    assert sorted(a.state.constraints) == ["x", "y"]


# --- removals of what is yet to come -----------------------------------------------------------------------------------------


def test_a_removal_of_what_is_yet_to_come_ends_with_the_row_that_has_it() -> None:
    a, b, thief = node("a"), node("b"), node("thief")
    a.add_constraint("x", when="v < 1.0")
    thief.record(1)
    for one, other in ((a, thief), (a, b)):
        exchange(one, other)
    thief.write(lambda me: thief.state.rows.write(me, make_removal([("x", [(a.replica, 2**62)])])))
    exchange(thief, b)
    a.revoke("thief")
    settle(a, b)
    a.add_constraint("x", when="v < 2.0")
    exchange(a, b)
    assert "x" in b.state.constraints


def test_a_member_removes_no_counts_of_others() -> None:
    a, b, liar = node("a"), node("b"), node("liar", "member")
    a.record(5, constraint="x")
    settle(a, b, liar)
    (count_cell,) = b.state.rows.held(3, "x")
    liar.state.rows.permits = None
    liar.write(lambda me: liar.state.rows.write(me, make_removal([("x", [(a.replica, count_cell.seq)])], 3)))
    with pytest.raises(NotPermitted):
        b.receive(liar.delta_since(b.clock))
    assert b.state.metrics.total.satisfied == 5


# --- bounds ------------------------------------------------------------------------------------------------------------------


def test_stubs_count_against_the_limit_of_cells() -> None:
    a, liar = node("a", limits=Limits(cells=100)), node("liar")
    stubs = [Stub(seq, 3, f"k{seq}", bytes(16)) for seq in range(2, 200)]
    with pytest.raises(ConstraintCrdtError, match="more than the 100 cells that this node is set to hold, with the removed ones"):
        a.receive(sync(liar, [signed_run(liar, LIAR, [], stubs)]))
    assert LIAR not in a.clock


# --- revocations -------------------------------------------------------------------------------------------------------------


def rewritten(thief: GossipNode, id_: str, *, larger: bool = True) -> Run:
    """Another row of the thief, as long as the one that is known, with a larger signature."""
    row = whole_row(thief, thief.replica)
    for number in count():
        add = at(make_cell(ADD, id_, None), thief.replica, 2)
        fill = at(make_cell(3, "x", [number, 0]), thief.replica, row.hi - 1)
        other = signed_run(thief, thief.replica, [add, fill])
        assert other.hi == row.hi
        if (other.cells[-1].data > row.cells[-1].data) is larger:
            return other
    raise AssertionError


def test_a_revoked_key_does_not_write_its_row_anew() -> None:
    a, b, thief = node("a"), node("b"), node("thief")
    thief.add_constraint("before", when="v < 1.0")
    thief.record(1)
    settle(a, b, thief)
    a.revoke("thief")
    settle(a, b)
    late = node("late")
    exchange(b, late)
    for reader in (a, b, late):
        send(reader, sync(thief, [rewritten(thief, "forged")]))
    settle(a, b, late)
    for each in (a, b, late):
        assert sorted(each.state.constraints) == ["before"]


def test_of_two_rows_of_a_revoked_key_the_one_that_the_operator_saw_stands() -> None:
    for larger in (True, False):
        a, b, thief = node("a"), node("b"), node("thief")
        thief.add_constraint("before", when="v < 1.0")
        thief.record(1)
        exchange(a, thief)
        send(b, sync(thief, [rewritten(thief, "forged", larger=larger)]))
        assert sorted(b.state.constraints) == ["forged"]
        a.revoke("thief")
        settle(a, b)
        assert sorted(b.state.constraints) == ["before"]


@pytest.mark.long
def test_a_key_with_any_number_of_lives_can_be_revoked() -> None:
    a, b = node("a"), node("b")
    credentials = FastCredentials("m", "member")
    for life in range(1_500):
        m = GossipNode("m", incarnation=life, now=lambda: 1, renew=lambda: 10**6, credentials=credentials)
        m.record(1)
        if life == 700:
            m.record(1, constraint="longest")
        send(a, m.delta_since(VectorClock()))
    assert a.state.metrics.total.satisfied == 1_501
    a.revoke("m")
    m.record(1_000_000)
    for each in (a, b):
        send(each, sync(m, [whole_row(m, m.replica)]))
    settle(a, b)
    assert 2 < b.state.metrics.total.satisfied < 1_000
    assert b.state.metrics.constraint("longest").satisfied == 1


def test_the_row_of_a_node_comes_back_when_the_operator_is_revoked_that_certified_its_name_again() -> None:
    a, b, thief, m = node("a"), node("b"), node("thief"), node("m", "member")
    m.record(1, constraint="x")
    thief.record(1)
    settle(a, b, thief, m)
    issuer = thief.authority.member.fingerprint  # type: ignore[union-attr]
    again = FastCredentials("m", "member", key=Key(b"another"), issuer=issuer)
    other = GossipNode("m", incarnation=1, now=lambda: 1, renew=count(2).__next__, credentials=again)
    for _ in range(5):
        other.record(1_000, constraint="x")
    for each in (a, b):
        send(each, sync(other, [whole_row(other, m.replica)]))
    assert a.state.metrics.total.satisfied == 5_001
    a.revoke("thief")
    settle(a, b, m)
    assert a.state.metrics.constraint("x").satisfied == 1


# --- stores ------------------------------------------------------------------------------------------------------------------


def test_a_store_keeps_the_floor_of_a_row_that_was_taken_anew(tmp_path: Path) -> None:
    rows = Rows()
    rows.follow_signatures()
    store = open_store(tmp_path / "a.db")
    changes = Changes(rows)
    row, _ = forged_row(Replica("b", 1), [make_cell(3, "x", [1, 0]), make_cell(3, "y", [1, 0])])
    run = Run(row.replica, 0, row.hi, row.cells, 1)
    for _ in range(2):
        rows.reset([row.replica])
        rows.apply([run], whole=True)
        store.commit(taken(changes))
        changes.done(taken(changes))
    assert loaded(store).floors == rows.floors == {row.replica: 1}
    store.close()


def test_two_nodes_that_leave_out_the_rows_of_each_other_come_to_an_end() -> None:
    a, b = node("a"), node("b")
    thief = GossipNode(
        "thief", incarnation=1, now=lambda: 1, renew=count(2).__next__, credentials=FastCredentials("thief", begins=-1)
    )
    a.record(1)
    b.record(1)
    keys = [FastCredentials(name).member.fingerprint for name in "ab"]
    assert thief.authority is not None
    thief.authority.revoke("a", keys, thief.write(lambda me: me))
    thief.local.written = thief.clock[thief.replica]
    told = whole_row(thief, thief.replica)
    for each in (a, b):
        send(each, sync(thief, [told]))
        assert each.revoked_by == "thief"
    exchange(a, b)
    exchange(b, a)


def test_a_longer_row_of_another_copy_is_a_fork_although_it_replaced_all_its_cells() -> None:
    one, two, b, relay = node("twin"), node("twin"), node("b"), node("relay")
    one.add_constraint("x", when="v < 1.0")
    for _ in range(5):
        two.record(1, constraint="y")
        two.ping()
    exchange(one, b)
    life, message = one.replica, encode_message(sync(relay, [whole_row(two, two.replica)]))
    send(b, decode_message(message, max_bytes=None))
    result = one.receive(decode_message(message, max_bytes=None))
    for each in (one, b):
        assert list(each.authority.forks) == [life]  # type: ignore[union-attr]
    assert result.replaced is not None
    assert not one.goes_on, "the longer row is of its own key: it had been put back, or runs twice"
    one.write_again(result.replaced)
    assert "x" in one.state.constraints
    assert one.replica != life
