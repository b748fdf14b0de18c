"""Hashes of states: over the bytes, unambiguous, independent of order, keyed by the fleet's secret."""

import random

import pytest

from constraint_crdt import Replica, StateHash
from constraint_crdt.crdt.cells import Cell, make_cell
from constraint_crdt.crdt.clock import Digest, replica_bytes
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD

A = Replica("a", 1)


def test_hashes_are_fixed_for_good() -> None:
    """Two versions of the software must agree on every hash: these were computed from the description alone."""
    assert Rows().state_hash.hex() == "bcd827a1d48a5273fd330b70fc49811c13e7fd8025b0115b7b623159475cab31"
    rows = Rows()
    rows.write(A, make_cell(ADD, "c1", ["x < 1.0"]))
    rows.write(Replica("b", 2**63 - 1), make_cell(COUNTS, "", [1, 2]))
    assert rows.state_hash.hex() == "25515d79bde02ba53e988a7cccf28b80f743dfbb809cd67e1c3303977a95dc54"


def test_the_order_of_writers_does_not_matter_but_all_else_does() -> None:
    def hash_of(*mutations: tuple[str, str]) -> StateHash:
        rows = Rows()
        for writer, key in mutations:
            rows.write(Replica(writer, 1), make_cell(ADD, key, None))
        return rows.state_hash

    assert hash_of(("a", "x"), ("b", "y")) == hash_of(("b", "y"), ("a", "x"))
    hashes = {
        hash_of(("a", "x"), ("b", "y")), hash_of(("a", "y"), ("b", "x")), hash_of(("a", "x"), ("a", "y")),
        hash_of(("a", "y"), ("a", "x")),
        hash_of(("a", "xy")), hash_of(("ax", "y")), hash_of(("a", "ab"), ("a", "c")), hash_of(("a", "a"), ("a", "bc")), hash_of(),
    }  # fmt: skip
    assert len(hashes) == 9


def test_a_replica_is_encoded_unambiguously() -> None:
    replicas = [Replica("a", 1), Replica("a", 2), Replica("a\0", 1), Replica("aa", 1), Replica("é", 1), Replica("a", 2**63 - 1)]
    assert len({replica_bytes(replica) for replica in replicas}) == len(replicas)


def test_the_sums_kept_up_to_date_equal_the_sums_from_scratch() -> None:
    rng, rows = random.Random(5), Rows()
    for _ in range(200):
        rows.write(Replica(rng.choice("abc"), 1), cell(rng))
    digest = Digest()
    cells = [Cell(each.kind, each.key, each.data, each.seq, each.replica) for each in rows.live_cells()]
    for each in cells:
        digest.fill(each.replica, (each,))
    clock = sum(digest.clock_entry(replica, seq) for replica, seq in rows.clock.items())
    assert rows.state_hash == digest.state(sum(each.digest for each in cells), clock)


def cell(rng: random.Random) -> Cell:
    return (
        make_cell(ADD, rng.choice("xyz"), None)
        if rng.random() < 0.5
        else make_cell(COUNTS, rng.choice("xyz"), [rng.randrange(9), 1])
    )


def test_fleets_with_different_secrets_hash_differently() -> None:
    plain, north, south = Digest(), Digest(b"north"), Digest(b"south")
    assert len({plain.state(0, 0), north.state(0, 0), south.state(0, 0)}) == 3
    assert north == Digest(b"north")
    assert north != south
    assert len({digest.clock_entry(A, 1) for digest in (plain, north, south)}) == 3


def test_a_cell_that_was_hashed_is_not_hashed_again() -> None:
    one = Cell(ADD, "c", b"bytes", 1, A, digest=42)
    Digest().fill(A, (one,))
    assert one.digest == 42


def test_a_hash_reads_short_and_a_token_is_for_one_reader() -> None:
    state_hash = StateHash(bytes(range(32)))
    assert str(state_hash) == "00010203…1c1d1e1f"
    assert repr(state_hash) == f"StateHash('{bytes(range(32)).hex()}')"
    assert len({state_hash.token(reader) for reader in (A, Replica("a", 2), Replica("b", 1))}) == 3
    assert len(state_hash.token(A)) == 8


@pytest.mark.parametrize("value", [2**256, 2**256 + 5, -1])
def test_sums_count_modulo_2_to_the_256(value: int) -> None:
    digest = Digest()
    assert digest.state(value, 0) == digest.state(value % 2**256, 0)
    assert digest.state(value, 0) != digest.state(0, value % 2**256 + 1)
