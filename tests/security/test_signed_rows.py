"""Signed rows: the tree follows the row, rights by role, replays, and rows with two versions."""

import random
from collections.abc import Callable
from functools import partial
from itertools import count
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica
from constraint_crdt.crdt.cells import Cell, Run, Stub, make_cell, make_removal
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.crdt.signed_rows import SETTLED, SIGNATURE, STRETCH, _hashes_of, _root, check_stubs, signed_text
from constraint_crdt.errors import NotPermitted
from constraint_crdt.protocol.messages import Delta, Sync, decode_message, encode_message
from constraint_crdt.state import from_json, to_json
from constraint_crdt.types.nodes import CERTIFICATE, UNDO

from .credentials import FastCredentials, Key

ME = Replica("a", 1)


def node(
    name: str, role: str = "operator", *, key: Key | None = None, incarnation: int = 1, limits: Limits | None = None
) -> GossipNode:
    return GossipNode(
        name,
        incarnation=incarnation,
        now=lambda: 10**18,
        renew=count(incarnation + 1).__next__,
        credentials=FastCredentials(name, role, key=key),
        limits=limits or Limits(),
    )


def exchange(a: GossipNode, b: GossipNode) -> None:
    waiting = [(b, a, encode_message(a.begin(b.node_id)))]
    for _ in range(40):
        if not waiting:
            return
        reader, sender, data = waiting.pop(0)
        responses = reader.receive(decode_message(data, max_bytes=None)).responses
        waiting += [(sender, reader, encode_message(each)) for each in responses]
    raise AssertionError("an endless exchange")


def made_anew(rows: Rows, replica: Replica) -> bytes:
    """The root of a row by a tree that did not follow the changes."""
    return rows.copy().signed.root(replica)  # type: ignore[union-attr]


# --- the tree ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.integers(0, 2**32), st.sampled_from([3, 64, 65, 200]))
def test_a_tree_that_follows_the_writes_is_that_of_the_cells(seed: int, writes: int) -> None:
    rng = random.Random(seed)
    rows = Rows()
    rows.follow_signatures().begin(ME)
    for _ in range(writes):
        what = rng.random()
        if what < 0.8:
            rows.write_all(ME, [make_cell(3, f"c{rng.randrange(40)}", [1, rng.randrange(9)]) for _ in range(rng.randrange(1, 4))])
        else:
            cells = [cell for cell in rows.above(ME, 0) if cell.kind == 3]
            if cells:
                rows._drop(rng.choice(cells))  # as a removal by another row does
        if rng.random() < 0.2:
            assert rows.signed is not None
            assert rows.signed.root(ME) == made_anew(rows, ME)
    assert rows.signed is not None
    assert rows.signed.root(ME) == made_anew(rows, ME)


def test_a_row_covers_what_another_removed_and_not_what_it_replaced() -> None:
    rows = Rows()
    signed = rows.follow_signatures()
    signed.begin(ME)
    rows.write_all(ME, [make_cell(3, "x", [1, 0]), make_cell(3, "y", [1, 0])])
    before = signed.root(ME)
    rows._drop(rows.above(ME, 0)[0])
    assert signed.root(ME) == before
    assert [(each.seq, each.key) for each in signed.stubs(ME)] == [(1, "x")]
    rows.write(ME, make_cell(3, "x", [2, 0]))
    assert signed.root(ME) != before
    assert signed.stubs(ME) == []


def test_a_writer_settles_and_every_reader_forgets_the_dead() -> None:
    a, b, c = (node(name, limits=Limits(stubs=8)) for name in "abc")
    for number in range(30):
        a.add_constraint(f"c{number}", when="v < 1.0")
    exchange(a, b)
    exchange(b, c)
    for number in range(20):
        b.remove_constraint(f"c{number}")
    for one, other in ((a, b), (b, c), (a, c)):
        exchange(one, other)
    assert len(c.state.rows.signed.stubs(a.replica)) == 20  # type: ignore[union-attr]
    a.record(1)
    exchange(a, c)
    exchange(c, b)
    late = node("late")
    exchange(b, late)
    for each in (a, b, c, late):
        assert each.state.rows.signed.stubs(a.replica) == []  # type: ignore[union-attr]
        assert each.state.rows.get(SETTLED, "0", a.replica) is not None
        assert (len(each.state.constraints), each.state_hash) == (10, a.state_hash)


@pytest.mark.parametrize(
    "stubs",
    [
        [Stub(1, 1, "x", bytes(16))],
        [Stub(9, 1, "x", bytes(16))],
        [Stub(4, 1, "x", bytes(16)), Stub(3, 1, "y", bytes(16))],
        [Stub(3, 200, "x", bytes(16))],
        [Stub(3, 1, "x", bytes(15))],
        [Stub(3, 1, "x" * 10_000, bytes(16))],
    ],
)
def test_malformed_dead_cells_are_refused(stubs: list[Stub]) -> None:
    with pytest.raises(ConstraintCrdtError):
        check_stubs(stubs, 2, 8)


@pytest.mark.parametrize(("key", "bits"), [("x", b""), ("01", b""), ("-1", b""), ("0", bytes(STRETCH // 8 + 1)), ("9" * 20, b"")])
def test_malformed_settled_cells_are_refused(key: str, bits: bytes) -> None:
    from constraint_crdt.crdt.cells import read_cell

    with pytest.raises(ConstraintCrdtError):
        read_cell(make_cell(SETTLED, key, bits).data)


# --- rights ------------------------------------------------------------------------------------------------------------------

UNDONE = partial(make_cell, UNDO, "2", ["b", [["b", 1, 1]]])

MAY_NOT = [
    ("member", lambda a: a.add_constraint("y", when="v < 1.0"), "change constraints"),
    ("member", lambda a: a.set_parameter("limit", 1.0), "set parameters"),
    ("member", lambda a: a.remove_constraint("x"), "remove constraints"),
    ("member", lambda a: a.retire("b"), "retire nodes"),
    ("member", lambda a: a.write(lambda me: a.state.rows.write(me, UNDONE())), "undo retirements"),
    ("observer", lambda a: a.record(1), "write, only read"),
    ("observer", lambda a: a.write(lambda me: a.state.tiles.tile("r", "t").put("text", node=me)), "write, only read"),
]


@pytest.mark.parametrize(("role", "act", "what"), MAY_NOT, ids=lambda value: value if isinstance(value, str) else "")
def test_a_node_refuses_what_its_role_does_not_allow(role: str, act: object, what: str) -> None:
    a, b = node("a", role), node("b")
    b.add_constraint("x", when="v < 1.0")
    exchange(a, b)
    before = a.state_hash
    asks = "a member or operator node" if role == "observer" else "an operator node"
    with pytest.raises(NotPermitted, match=f"a is an? {role} of the fleet, which may not {what}: ask {asks} of the fleet"):
        act(a)  # type: ignore[operator]
    assert len(a.state.constraints) == 1
    a.describe("test")  # what every role may
    exchange(a, b)
    assert a.state_hash == b.state_hash != before


@pytest.mark.parametrize(("role", "act", "what"), MAY_NOT, ids=lambda value: value if isinstance(value, str) else "")
def test_every_receiver_refuses_it_too_whoever_relays_it(role: str, act: object, what: str) -> None:
    a, b, c = node("a", role), node("b"), node("c")
    b.add_constraint("x", when="v < 1.0")
    exchange(a, b)
    exchange(b, c)
    before = c.state_hash
    a.state.rows.permits = None  # a changed program
    act(a)  # type: ignore[operator]
    message = a.delta_since(b.clock)
    with pytest.raises(NotPermitted, match=f"which may not {what}: the row of a~1 is refused"):
        b.receive(message)
    with pytest.raises(NotPermitted):
        c.receive(a.delta_since(c.clock))
    assert (b.state_hash, c.state_hash) == (before, before)


def test_a_role_in_a_certificate_of_its_own_making_is_refused() -> None:
    a, b = node("a", "member"), node("b")
    liar = FastCredentials("a", "operator")
    liar.chain = FastCredentials("a", "member").forged(role="operator")
    forged = GossipNode("a", incarnation=7, now=lambda: 1, renew=count(8).__next__, credentials=liar)
    forged.add_constraint("x", when="v < 1.0")
    for reader in (a, b):
        with pytest.raises(NotPermitted, match="the certificate is of another fleet: its root did not sign it"):
            node("c").receive(forged.delta_since(reader.clock))


def test_a_plain_row_is_left_out_and_a_plain_node_takes_signed_rows() -> None:
    plain, signed = GossipNode("plain"), node("signed")
    plain.record(1)
    before = signed.state_hash
    signed.receive(plain.delta_since(signed.clock))
    assert signed.state_hash == before
    signed.add_constraint("x", when="v < 1.0")
    plain.receive(decode_message(encode_message(signed.delta_since(plain.clock))))
    assert "x" in plain.state.constraints


def test_a_removal_of_its_own_lives_is_allowed_to_every_role_and_of_others_to_none_but_operators() -> None:
    a = node("a", "observer")
    a.describe("test")
    a.local.seal()
    a.resume(a.replica.incarnation, vouched=False)
    a.describe("other")  # a new life, which states the end of the one before
    b = node("b")
    exchange(a, b)
    assert a.state_hash == b.state_hash


def test_a_life_begun_in_another_role_or_under_another_key_is_not_gone_on_with() -> None:
    for again in (node("a", "operator"), node("a", "member", key=Key(b"new"))):
        before = node("a", "member")
        before.record(1)
        before.local.seal()
        again.state.rows.restore(before.state.rows.whole())
        again.resume(1, vouched=True)
        again.record(1)
        assert again.replica.incarnation != 1
        assert again.state.rows.get(CERTIFICATE, "", again.replica) is not None


# --- replays and forks -------------------------------------------------------------------------------------------------------


def test_recorded_messages_of_any_time_and_fleet_change_nothing() -> None:
    a, b, c = node("a"), node("b"), node("c")
    recorded = []
    for number in range(10):
        a.add_constraint(f"c{number % 4}", when=f"v < {number}.0")
        if number == 5:
            b.remove_constraint("c1")
        recorded += [encode_message(a.delta_since(c.clock)), encode_message(a.ping()), encode_message(b.delta_since(c.clock))]
        exchange(a, b)
        exchange(b, c)
    exchange(a, c)
    other = GossipNode("a", incarnation=1, now=lambda: 1, fleet="other", credentials=FastCredentials("a"))
    other.add_constraint("foreign", when="v < 1.0")
    recorded.append(encode_message(other.delta_since(c.clock)))
    before = c.state_hash
    for data in recorded:
        try:
            c.receive(decode_message(data))
        except ConstraintCrdtError:
            continue
    assert c.state_hash == before
    exchange(a, c)
    assert (a.state_hash, c.alarms) == (before, 0)


@pytest.mark.long
def test_two_rows_of_one_writer_are_found_and_settle_on_one() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        nodes = [node(name) for name in "abcd"]
        one, two = node("twin"), node("twin")
        for twin in (one, two):
            for number in range(rng.randrange(1, 4)):
                twin.add_constraint(f"c{number}", when=f"v < {rng.randrange(9)}.0")
        nodes[0].add_constraint("honest", when="v < 1.0")
        exchange(one, nodes[0])
        exchange(two, nodes[1])
        for _ in range(30):
            for a in nodes:
                for b in nodes:
                    if a is not b:
                        exchange(a, b)
        assert len({each.state_hash for each in nodes}) == 1, seed
        assert all("honest" in each.state.constraints for each in nodes)
        same = {one.state.rows.above(one.replica, 0)[-1].data, two.state.rows.above(two.replica, 0)[-1].data}
        told = [fork.node for each in nodes for fork in each.authority.forks.values()]  # type: ignore[union-attr]
        assert set(told) == ({"twin"} if len(same) > 1 else set())


# --- other ways in -----------------------------------------------------------------------------------------------------------


def test_a_state_file_is_taken_as_its_writers_signed_it_and_not_otherwise() -> None:
    a, b, plain = node("a"), node("b"), GossipNode("plain")
    a.add_constraint("x", when="v < 1.0")
    a.remove_constraint("x")
    a.add_constraint("y", when="v < 1.0")
    a.local.seal()
    plain.record(1)
    b.merge(from_json(to_json(a.state)))
    assert b.state_hash == a.state_hash
    with pytest.raises(NotPermitted, match=r"the row of plain~.* has no certificate, and no operator of the fleet vouches for it"):
        b.merge(from_json(to_json(plain.state)))


def test_a_store_keeps_the_dead_cells() -> None:
    a, b = node("a"), node("b")
    for number in range(5):
        a.add_constraint(f"c{number}", when="v < 1.0")
    exchange(a, b)
    b.remove_constraint("c1")
    b.remove_constraint("c3")
    exchange(a, b)
    back = node("b")
    back.state.rows.restore(b.state.rows.whole())
    back.resume(1, vouched=True)
    fresh = node("c")
    exchange(back, fresh)
    assert fresh.state_hash == b.state_hash
    a.record(1)
    exchange(a, back)
    assert back.state_hash == a.state_hash


def test_a_member_cannot_pass_a_removal_of_constraints_off_as_another() -> None:
    a, b = node("a", "member"), node("b")
    b.add_constraint("x", when="v < 1.0")
    exchange(a, b)
    (add,) = b.state.rows.held(1, "x")
    a.state.rows.permits = None
    a.write(lambda me: a.state.rows.write(me, make_removal([("x", [(add.replica, add.seq)])])))
    assert isinstance(a.delta_since(b.clock), Delta | Sync)
    with pytest.raises(NotPermitted, match="remove constraints"):
        b.receive(a.delta_since(b.clock))
    assert "x" in b.state.constraints


def test_a_signature_is_the_last_cell_of_what_leaves() -> None:
    a = node("a")
    a.add_constraint("x", when="v < 1.0")
    assert a.state.rows.above(a.replica, 0)[-1].kind != SIGNATURE
    a.ping()
    last = a.state.rows.above(a.replica, 0)[-1]
    assert (last.kind, last.seq) == (SIGNATURE, a.clock[a.replica])
    a.ping()
    assert a.clock[a.replica] == last.seq


# --- the usual change ----------------------------------------------------------------------------------------------------------


def readers(writer: GossipNode) -> tuple[GossipNode, GossipNode]:
    """A node that takes usual runs by the short way, and one that takes all by the general way. Both have all of the writer."""
    short, general = node("b"), node("b")
    assert general.authority is not None
    general.authority.admit_next = lambda run: None  # type: ignore[method-assign]
    for each in (short, general):
        exchange(writer, each)
    return short, general


def judged(reader: GossipNode, runs: list[Run]) -> tuple[object, ...]:
    """What becomes of a transfer, and of the reader."""
    copies = [
        Run(run.replica, run.lo, run.hi, [Cell(*fields, run.replica) for fields in fields_of(run)], stubs=run.stubs) for run in runs
    ]
    try:
        taken = reader._exchange._apply(copies)
        outcome: object = taken.applied, set(taken.doubted), taken.stripped
    except ConstraintCrdtError as error:
        outcome = str(error)
    signed = reader.state.rows.signed
    assert signed is not None
    replicas = sorted(replica for replica in reader.clock.as_dict() if replica in signed)
    return outcome, reader.state_hash, [(signed.root(each), signed.stubs(each)) for each in replicas]


def fields_of(run: Run) -> list[tuple[int, str | int, bytes, int]]:
    return [(cell.kind, cell.key, cell.data, cell.seq) for cell in run.cells]


@pytest.mark.long(by_day=["0", "1", "2", "9", "13"])
@pytest.mark.parametrize("seed", range(20))
def test_a_usual_run_is_taken_as_any_other(seed: int) -> None:
    rng = random.Random(seed)
    writer, other = node("a"), node("o")
    writer.add_constraint("first")
    exchange(writer, other)
    short, general = readers(writer)
    for step in range(40):
        known = writer.state.rows.clock_mark
        for _ in range(rng.randrange(1, 20) if rng.random() < 0.2 else 1):
            writer.add_constraint(f"c{rng.randrange(30)}", severity=rng.choice(["warning", "critical"]))
        if rng.random() < 0.3:
            writer.record(1, constraint=f"c{rng.randrange(5)}")
        if rng.random() < 0.2:
            exchange(writer, other)
            other.remove_constraint(rng.choice(sorted(other.state.constraints)))
            exchange(writer, other)
        writer.local.seal()
        runs = writer.state.rows.since(known)
        assert judged(short, runs) == judged(general, runs), step
        assert short.state_hash == writer.state_hash
        assert short.state.rows.signed.root(writer.replica) == made_anew(short.state.rows, writer.replica)  # type: ignore[union-attr]


def _other_cell(run: Run) -> Run:
    first = run.cells[0]
    changed = Cell(first.kind, first.key, make_cell(first.kind, str(first.key), ["x < 2"]).data, first.seq, run.replica)
    return Run(run.replica, run.lo, run.hi, [changed, *run.cells[1:]])


def _other_signature(run: Run) -> Run:
    last = run.cells[-1]
    changed = Cell(SIGNATURE, "", last.data[:-1] + bytes((last.data[-1] ^ 1,)), last.seq, run.replica)
    return Run(run.replica, run.lo, run.hi, [*run.cells[:-1], changed])


def _signature_in_another_form(run: Run) -> Run:
    last = run.cells[-1]
    changed = Cell(SIGNATURE, "", last.data[:2] + b"\xd9\x00" + last.data[3:], last.seq, run.replica)
    return Run(run.replica, run.lo, run.hi, [*run.cells[:-1], changed])


def _unsigned(run: Run) -> Run:
    return Run(run.replica, run.lo, run.cells[-2].seq, run.cells[:-1])


def _longer(run: Run) -> Run:
    return Run(run.replica, run.lo, run.hi + 1, run.cells)


def _without_a_cell(run: Run) -> Run:
    return Run(run.replica, run.lo, run.hi, run.cells[1:])


def _with_a_stub(run: Run) -> Run:
    first, *others = run.cells
    return Run(run.replica, run.lo, run.hi, others, stubs=[Stub(first.seq, first.kind, str(first.key), bytes(16))])


def _of_another(run: Run) -> Run:
    return Run(Replica("c", 1), run.lo, run.hi, run.cells)


def _twice_one_slot(run: Run) -> Run:
    first, second, *others = run.cells
    again = Cell(first.kind, first.key, first.data, second.seq, run.replica)
    return Run(run.replica, run.lo, run.hi, [first, again, *others])


@pytest.mark.parametrize(
    "alter",
    [
        _other_cell,
        _other_signature,
        _signature_in_another_form,
        _unsigned,
        _longer,
        _without_a_cell,
        _with_a_stub,
        _of_another,
        _twice_one_slot,
    ],
)
def test_an_altered_run_is_judged_as_any_other_and_changes_nothing(alter: Callable[[Run], Run]) -> None:
    writer = node("a")
    writer.add_constraint("first")
    short, general = readers(writer)
    known = writer.state.rows.clock_mark
    writer.add_constraint("x")
    writer.add_constraint("y")
    writer.local.seal()
    (run,) = writer.state.rows.since(known)
    before = short.state_hash
    assert judged(short, [alter(run)]) == judged(general, [alter(run)])
    assert short.state_hash == before
    assert judged(short, [run]) == judged(general, [run])
    assert short.state_hash == writer.state_hash


@pytest.mark.parametrize("role", ["member", "observer"])
def test_a_usual_run_with_a_cell_beyond_the_role_of_its_writer_is_refused(role: str) -> None:
    writer = node("a", role)
    writer.describe("test")
    short, general = readers(writer)
    known, before = writer.state.rows.clock_mark, short.state_hash
    writer.state.rows.permits = None
    writer.add_constraint("x")
    writer.local.seal()
    runs = writer.state.rows.since(known)
    assert judged(short, runs) == judged(general, runs)
    assert "the row of a~1 is refused" in str(judged(short, runs)[0])
    assert short.state_hash == before


def test_a_usual_run_with_two_cells_of_one_slot_is_refused_although_its_writer_signed_it() -> None:
    writer = node("a")
    writer.add_constraint("first")
    short, general = readers(writer)
    known, before = writer.state.rows.clock_mark, short.state_hash
    row = writer.state.rows.above(writer.replica, 0)
    writer.add_constraint("x")
    writer.add_constraint("y")
    writer.local.seal()
    (run,) = writer.state.rows.since(known)
    lie = _twice_one_slot(run)
    cells = [*row, *lie.cells]
    writer.state.rows.digest.fill(writer.replica, cells)
    root = _root(_hashes_of(cells, [])[-1])
    signature = FastCredentials("a").sign(signed_text(writer.local.fleet, writer.replica, run.hi, root))
    lie = Run(run.replica, run.lo, run.hi, [*lie.cells[:-1], make_cell(SIGNATURE, "", signature)])
    lie.cells[-1].seq = run.hi
    assert judged(short, [lie]) == judged(general, [lie])
    assert judged(short, [lie])[0] == "a row with two cells of one slot is out of bounds"
    assert short.state_hash == before


def test_the_usual_change_goes_the_short_way_and_is_signed_and_checked_once() -> None:
    a, b = node("a"), node("b")
    a.add_constraint("first")
    exchange(a, b)
    exchange(b, a)
    assert b.authority is not None
    b.authority.admit = None  # type: ignore[assignment, method-assign]
    for number in range(40):
        a.add_constraint(f"c{number}")
    exchange(a, b)
    a.add_constraint("x")
    a.add_constraint("first", severity="critical")
    a.local.note("somebody", "add", "x", a.time.stamp())
    with (
        patch.object(FastCredentials, "sign", autospec=True, side_effect=FastCredentials.sign) as sign,
        patch.object(FastCredentials, "verifies", autospec=True, side_effect=FastCredentials.verifies) as verifies,
    ):
        exchange(a, b)
    assert (sign.call_count, verifies.call_count) == (1, 1)
    assert b.state_hash == a.state_hash
