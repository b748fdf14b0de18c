"""Damage behind a node's back: noticed at the next exchange, alarmed, compared bucket by bucket, put right, and counted."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, StateHash, VectorClock
from constraint_crdt.crdt.cells import Cell, make_cell
from constraint_crdt.crdt.clock import Digest
from constraint_crdt.crdt.repair import BUCKETS, audit, bucket_bit, bucket_sums, rebuild
from constraint_crdt.protocol.messages import Buckets, Mend, MendStep, Ping, encode_message
from constraint_crdt.protocol.repair import PAUSE
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD
from tests.protocol.damage import (
    SEEN_ALONE,
    Damage,
    check_sound,
    everything,
    flip_bytes,
    lose_cell,
    node,
    own_cells,
    pair,
    run,
    shown,
    wire,
)


@pytest.mark.parametrize("damaged_begins", [False, True])
@pytest.mark.parametrize("damage", SEEN_ALONE)
def test_damage_is_noticed_alarmed_and_repaired_in_one_exchange(damage: Damage, damaged_begins: bool) -> None:
    sound, damaged = pair()
    own_cells(damaged)
    before, hash_ = everything(sound), sound.state_hash
    damage(damaged)
    assert damaged.state_hash != hash_
    first, second = (damaged, sound) if damaged_begins else (sound, damaged)
    log = run(first, second)
    assert sound.state_hash == damaged.state_hash == hash_
    assert everything(sound) == everything(damaged) == before, "the undamaged one has lost nothing and taken nothing"
    assert sound.alarms + damaged.alarms >= 1
    assert any(result.diverged for _, result in log)
    assert any(result.mended and result.state_changed for _, result in log)
    assert (damaged.repairs >= 1, sound.repairs, sound.cells_repaired) == (True, 0, 0)
    check_sound(damaged)
    run(sound, damaged)
    assert sound.converged
    assert damaged.converged


@pytest.mark.long
def test_only_the_buckets_that_differ_are_exchanged() -> None:
    sound, damaged = pair(2_000)
    own_cells(damaged)
    flip_bytes(damaged)
    log = run(damaged, sound)
    assert sound.state_hash == damaged.state_hash
    mends = [message for message, _ in log if isinstance(message, Mend)]
    assert [mend.step for mend in mends] == [MendStep.MINE, MendStep.EVIDENCE, MendStep.OUTCOME]
    assert 0 < mends[0].buckets.bit_count() <= 2
    assert max(len(mend.cells) for mend in mends) < 0.05 * len(sound.state.rows)
    assert sum(len(encode_message(message)) for message, _ in log) < 0.1 * len(encode_message(sound.delta_since(VectorClock())))
    assert damaged.cells_repaired == 1


# --- damage that neither side can see by itself ------------------------------------------------------------------------------


def alter(node: GossipNode, change: Callable[[list[Cell]], list[Cell]]) -> None:
    """Change a node's cells so that all of it fits: as a fault in a program would."""
    rows = node.state.rows
    cells = change([cell for kind in rows._tables for cell in rows.each(kind)])
    for cell in cells:
        rows.digest.fill(cell.replica, [cell])
    rebuild(rows, cells)
    assert not audit(rows).found


def without(key: str, kind: int = ADD) -> Callable[[list[Cell]], list[Cell]]:
    return lambda cells: [cell for cell in cells if (cell.kind, cell.key) != (kind, key)]


def rewritten(key: str, cell: Cell) -> Callable[[list[Cell]], list[Cell]]:
    """The same dot, with other content."""

    def change(cells: list[Cell]) -> list[Cell]:
        old = next(each for each in cells if (each.kind, each.key) == (cell.kind, key))
        return [each for each in cells if each is not old] + [Cell(cell.kind, key, cell.data, old.seq, old.replica)]

    return change


@pytest.mark.parametrize("order", [1, -1])
def test_what_only_one_side_has_stays_when_in_doubt(order: int) -> None:
    a, b = pair()
    alter(b, without("c3"))
    alter(b, without("c4", COUNTS))
    expected = a.state_hash
    run(*(a, b)[::order])
    assert a.state_hash == b.state_hash == expected
    assert b.cells_repaired == 2
    check_sound(b)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("holder", [0, 1])
def test_but_not_if_either_side_knows_that_it_was_removed(order: int, holder: int) -> None:
    nodes = pair()
    nodes[0].add_constraint("gone")
    run(*nodes)
    [cell] = nodes[0].state.rows.held(ADD, "gone")
    nodes[1 - holder].remove_constraint("gone")
    run(*nodes)
    expected = nodes[0].state_hash
    nodes[holder].collect()  # forgets the removal, so that it could not know better
    alter(nodes[holder], lambda cells: [*cells, Cell(cell.kind, cell.key, cell.data, cell.seq, cell.replica)])
    run(*nodes[::order])
    assert nodes[0].state_hash == nodes[1].state_hash == expected
    assert "gone" not in nodes[holder].state.constraints


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_cell_with_one_dot_and_two_contents_the_writers_word_counts(order: int) -> None:
    a, b = pair()
    expected = a.state_hash
    alter(b, rewritten("a3", make_cell(ADD, "a3", ["v < 99.0", 2])))
    run(*(a, b)[::order])
    assert a.state_hash == b.state_hash == expected


@pytest.mark.parametrize("order", [1, -1])
def test_where_neither_is_the_writer_both_choose_alike_and_of_counts_the_higher(order: int) -> None:
    a, b = pair()
    alter(b, rewritten("c3", make_cell(ADD, "c3", ["v < 99.0", 2])))
    alter(b, rewritten("c4", make_cell(COUNTS, "c4", (500, 1))))
    alter(b, rewritten("c5", make_cell(COUNTS, "c5", (0, 0))))
    counts = [a.state.metrics.constraint(key) for key in ("c4", "c5")]
    run(*(a, b)[::order])
    assert a.state_hash == b.state_hash
    assert a.state.metrics.constraint("c4") == (500, 1) > counts[0]
    assert b.state.metrics.constraint("c5") == counts[1]
    chosen = max((any_definition("v < 3.5", 1), any_definition("v < 99.0", 2)))[1]
    assert [each.when for each in a.state.constraints.definitions("c3")] == [chosen]
    check_sound(a)
    check_sound(b)


def any_definition(when: str, severity: int) -> tuple[int, str]:
    """The digest of that cell of c, and its expression."""
    cell = make_cell(ADD, "c3", [when, severity])
    cell.seq = 7
    node("c").state.rows.digest.fill(Replica("c", 1), [cell])
    return cell.digest, when


def test_what_stands_again_and_what_fell_is_told_to_the_store() -> None:
    a, b = pair()
    rows = b.state.rows
    alter(b, without("c3"))
    alter(b, lambda cells: [*cells, Cell(ADD, "foreign", make_cell(ADD, "foreign", None).data, 2, Replica("a", 1))])
    b._exchange.repairs._doubt = (1 << BUCKETS) - 1
    assert rows.take_dropped() == rows.take_repaired() == []
    run(a, b)
    assert a.state == b.state
    assert [cell.key for cell in rows.take_repaired()] == ["c3"]
    assert [cell.key for cell in rows.take_dropped()] == ["foreign"]
    assert rows.take_repaired() == rows.take_dropped() == []


# --- the property ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 6))
def test_random_damage_to_one_of_two_is_always_repaired_and_the_other_keeps_all(
    seed: int, damaged_begins: bool, times: int
) -> None:
    rng = random.Random(seed)
    sound, damaged = pair(12)
    own_cells(damaged)
    before = everything(sound)
    for _ in range(times):
        cells = list(damaged.state.rows.live_cells())
        cell = rng.choice(cells)
        match rng.randrange(4):
            case 0:
                at = rng.randrange(len(cell.data))
                cell.data = cell.data[:at] + bytes([cell.data[at] ^ 1 << rng.randrange(8)]) + cell.data[at + 1 :]
            case 1:
                cell.digest ^= 1 << rng.randrange(256)
            case 2:
                damaged.state.rows._sums[cell.kind] += rng.randrange(1, 2**256)
            case 3:
                table = damaged.state.rows._tables[cell.kind]
                held = table[cell.key]
                if isinstance(held, dict):
                    del held[cell.replica]
                else:
                    del table[cell.key]
    shown(damaged)
    if damaged.state_hash == sound.state_hash:  # one damage undid the other
        return
    run(*((damaged, sound) if damaged_begins else (sound, damaged)))
    assert damaged.state_hash == sound.state_hash
    assert everything(damaged) == everything(sound) == before
    check_sound(damaged)


# --- ends ----------------------------------------------------------------------------------------------------------------------


class Broken(Digest):
    """Sums up to another hash, whatever the cells are."""

    def state(self, cells: int, clock: int) -> StateHash:
        return super().state(cells + 1, clock)


def test_a_difference_that_cannot_be_repaired_stays_an_alarm_ends_and_is_not_tried_all_the_time() -> None:
    a, b = node("a"), node("b")
    b.state.rows.digest = Broken()
    a.add_constraint("x")
    b.add_constraint("y")
    logs = [run(a, b) for _ in range(10 * PAUSE)]
    assert set(a.state.constraints) == set(b.state.constraints) == {"x", "y"}
    assert a.state_hash != b.state_hash
    assert a.alarms + b.alarms >= 10 * PAUSE - 1, "each exchange says that something is wrong"
    attempts = [message for log in logs for message, _ in log if isinstance(message, Buckets)]
    assert 2 <= len(attempts) <= 12
    assert (a.cells_repaired, b.cells_repaired) == (0, 0)


@pytest.mark.slow
def test_a_repair_of_which_messages_are_lost_is_taken_up_again_later() -> None:
    for kept in range(6):
        sound, damaged = pair()
        own_cells(damaged)
        lose_cell(damaged)
        waiting, number = [(sound, damaged.begin("b" if damaged.node_id == "a" else "a"))], 0
        while waiting and number < kept:
            reader, message = waiting.pop(0)
            number += 1
            waiting += [(damaged if reader is sound else sound, each) for each in reader.receive(wire(message)).responses]
        for _ in range(2 * PAUSE):
            run(damaged, sound)
        assert sound.state_hash == damaged.state_hash, f"after {kept} messages"
        check_sound(damaged)


def test_steps_that_are_not_due_do_nothing_and_lies_are_refused() -> None:
    a, b = pair()
    own_cells(b)
    lose_cell(b)
    [opening] = b.receive(wire(a.begin("b"))).responses
    assert isinstance(opening, Buckets)
    [mine] = a.receive(wire(opening)).responses
    assert isinstance(mine, Mend)
    before = a.state_hash
    late = Mend(node=b.replica, to=1, base=mine.base, step=MendStep.OUTCOME, buckets=mine.buckets, cells=mine.cells)
    assert a.receive(late).responses == []
    c = node("c")
    stranger = Mend(node=c.replica, base=mine.base, step=MendStep.MINE, buckets=mine.buckets, cells=mine.cells)
    assert b.receive(stranger).responses == []
    [evidence] = b.receive(wire(mine)).responses
    assert isinstance(evidence, Mend)
    beyond = Mend(node=b.replica, base=evidence.base, step=evidence.step, buckets=(1 << BUCKETS) - 1, cells=evidence.cells)
    outside = next(cell for cell in a.state.rows.live_cells() if not bucket_bit(cell) & evidence.buckets)
    stray = type(evidence.cells)([type(a.state.rows.whole()[0])(outside.replica, 0, outside.seq, [outside])])
    lie = Mend(node=b.replica, base=evidence.base, step=evidence.step, buckets=evidence.buckets, cells=stray)
    for message, sentence in ((beyond, "were not asked for"), (lie, "not in the buckets")):
        with pytest.raises(ConstraintCrdtError, match=sentence):
            a.receive(message)
    assert a.state_hash == before
    [outcome] = a.receive(wire(evidence)).responses
    [ping] = b.receive(wire(outcome)).responses
    assert isinstance(ping, Ping)
    assert a.state_hash == b.state_hash == before
    assert b.receive(wire(outcome)).responses == [], "a second time it is not due"


def test_a_repair_across_a_change_of_the_clock_does_nothing() -> None:
    a, b = pair()
    alter(b, without("c3"))
    [opening] = b.receive(wire(a.begin("b"))).responses
    a.record(1)
    assert a.receive(wire(opening)).responses == []
    run(a, b)
    for _ in range(PAUSE):
        run(a, b)
    assert a.state == b.state
    assert "c3" in b.state.constraints


def test_sums_tell_equal_buckets_from_others() -> None:
    a, b = pair()
    assert bucket_sums(a.state.rows) == bucket_sums(b.state.rows)
    alter(b, without("c3"))
    assert bucket_sums(a.state.rows) != bucket_sums(b.state.rows)
