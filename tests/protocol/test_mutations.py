"""Whatever arrives: damaged, forged and hostile messages are refused with one error and leave no trace, or do no harm.

Messages that a node would take in are damaged as bytes (flips, cuts, insertions, forged lengths, deep nesting, halves of two) and
as structure (another value, a doubled or lost or swapped part, anywhere down to the values of cells). Of each result:

- refused: `ConstraintCrdtError`, and nothing that the node holds has changed;
- taken: all that the node holds is still consistent, readable, and travels on.

600 by default; 100,000 with CONSTRAINT_CRDT_BUDGET=nightly. CONSTRAINT_CRDT_SEED repeats a run: failures name theirs.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest

from constraint_crdt import ConstraintCrdtError, GossipNode, Replica, VectorClock, exchange
from constraint_crdt.crdt.cells import REMOVE, Cell, make_cell
from constraint_crdt.crdt.clock import Digest
from constraint_crdt.crdt.limits import Limits
from constraint_crdt.crdt.repair import rebuild
from constraint_crdt.protocol.messages import WIRE_VERSION, GossipMessage, Resume, decode_message, encode_message
from constraint_crdt.protocol.transfers import split_message
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import NODE
from constraint_crdt.types.tile_cells import POSITION
from tests.conftest import BUDGET, SEED

MESSAGES = 100_000 if BUDGET == "nightly" else 600
START_AGAIN = 0.25
"""How likely a node that took a message starts from its first state: some damage shows only when a second message builds on it."""
LIMITS = Limits(rows=12, cells=400, staged_bytes=10_000, peers=6)

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


def node(name: str, incarnation: int) -> GossipNode:
    return GossipNode(
        name, incarnation=incarnation, now=lambda: 10**18, renew=partial(next, iter(range(900, 10**6))), limits=LIMITS
    )


def write(node: GossipNode, cell: Cell) -> None:
    """A mutation of a kind that the node itself has no name for."""
    node.write(lambda me: node.state.rows.write(me, cell))


def scene() -> tuple[GossipNode, GossipNode]:
    """A victim in the middle of a life, and a peer of it that has news: cells of all kinds, gaps, a removal, floors."""
    victim, peer, third = node("v", 1), node("p", 2), node("q", 3)
    for name in ("a", "b", "c", "d"):
        victim.add_constraint(name, when="x < 1.0")
        third.add_constraint(name, when="x < 2.0", severity="critical", about="because")
        third.record(3, 1, constraint=name)
    third.update_position((3, 1))
    third.describe("1.0")
    write(third, make_cell(99, "future", {"k": [1, 2]}))
    exchange(victim, third)
    exchange(third, peer)
    peer.add_constraint("a", when="x < 3.0")
    peer.remove_constraint("b")
    peer.collect()
    exchange(victim, peer)
    victim.update_position((2, 2))
    victim.record(4)
    peer.update_position((-1, 4))
    peer.remove_constraint("d")
    write(peer, make_cell(99, "future", "x"))
    peer.record(2, 2, constraint="c")
    peer.add_constraint("news")
    for part in in_parts(peer)[:-1]:
        victim.receive(part)
    return victim, peer


def in_parts(peer: GossipNode) -> list[GossipMessage]:
    """A transfer of which the victim waits for the last part."""
    return [*split_message(peer.delta_since(VectorClock()), 130)]


def twin(node: GossipNode) -> GossipNode:
    """An independent copy. The digest never changes and is shared."""
    digest = node.state.rows.digest
    return copy.deepcopy(node, {id(digest): digest})


def corpus() -> list[bytes]:
    """Messages of every type that the victim would take in."""
    victim, peer = scene()
    ping, whole = peer.ping("v"), peer.ping()
    [answer] = peer.receive(victim.ping("p")).responses
    messages: list[GossipMessage] = [ping, whole, answer, peer.begin("v"), peer.delta_since(VectorClock())]
    messages.append(peer.delta_since(VectorClock({**victim.clock.as_dict(), peer.replica: 4})))
    messages += split_message(peer.delta_since(VectorClock()), 200)[:3]
    messages += 2 * in_parts(peer)[-1:]
    messages += split_message(peer.begin("v"), 130)
    messages += victim.receive(answer).responses
    messages += [peer.receive(resume).responses[0] for resume in [victim.begin("p")] if isinstance(resume, Resume)]
    return [encode_message(message) for message in messages] + repair_messages()


def repair_messages() -> list[bytes]:
    """What two nodes at one clock say to each other when one of them is damaged. The victim waits for none of it."""
    one, other = scene()
    exchange(one, other)
    other.state.rows._sums[ADD] += 1
    other.state.rows._hash = None
    lost = next(cell for cell in one.state.rows.each(ADD))
    rebuild(
        one.state.rows, [cell for kind in list(one.state.rows._tables) for cell in one.state.rows.each(kind) if cell is not lost]
    )
    said, waiting = list[bytes](), [(other, one.begin("p"))]
    while waiting:
        reader, message = waiting.pop()
        said.append(encode_message(message))
        waiting += [(one if reader is other else other, each) for each in reader.receive(message).responses]
    assert {data[1] for data in said} >= {WIRE_VERSION * 16 + 8, WIRE_VERSION * 16 + 9}
    return said


# --- damage ----------------------------------------------------------------------------------------------------------

HEADERS = [
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xdc\xff\xff",
]
NASTY: list[Any] = [
    0, 1, 2, 3, 5, 7, 19, -1, 127, 128, 255, 256, 2**31, 2**32, -(2**31) - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    None, True, False, 0.0, 1.0, 1.5, float("nan"), float("inf"), "", "a", "b", "future", "v", "p", "q", "\0", "é" * 128, "x" * 257,
    "x < ", b"", b"\0", b"\xff" * 8, b"\xff" * 32, [], [0], [[]], {}, {"a": 1}, ["v", 1], ["p", 2], ["q", 3], ["z", 0],
    ["v", 1, 99],
    ["p", 2, 2**63 - 1], [99, None, 5], [98, "k"], [1, ""], [1, "a"], [1, None], [1, "n", ["x", 9]], [2, None, []], [2, "a", []],
    [2, None, [["a", [["q", 3, 99], ["v", 1, 1]]], ["a", []]]], [3, "", [2**63 - 1, 2**63 - 1]], [3, "c", [0, 0]], [3, 5, [0, 0]],
    [3, "c", [2**63, 0]], [4, "", [1, 1, 1, [["p", 2, 9]]]], [4, "other", [1, 1, 1]], [4, None, [1, 1, 1]], [4, "", [2**31, 0, 0]],
    [5, "", ["2.0", 1]], [5, "x", ["2.0", 1]], [5, "", [1, 1]], [0, "zero"], [127, None], [1, "tagged", None, b"t" * 16],
]  # fmt: skip


def positions(tree: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """The way to every element of nested lists."""
    if isinstance(tree, list):
        for index, child in enumerate(tree):
            yield (*path, index)
            yield from positions(child, (*path, index))


def at(tree: Any, path: tuple[int, ...]) -> Any:
    for index in path:
        tree = tree[index]
    return tree


def reshape(data: bytes, rng: random.Random) -> bytes:
    """One to three changes to the structure of a message."""
    tree = decode(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        ways = list(positions(tree))
        if not ways:
            break
        *parent, index = rng.choice(ways)
        inside = at(tree, tuple(parent))
        match rng.randrange(6):
            case 0 | 1:
                inside[index] = copy.deepcopy(rng.choice(NASTY))
            case 2:
                inside.insert(index, copy.deepcopy(rng.choice(NASTY)))
            case 3:
                inside.insert(index, copy.deepcopy(inside[index]))
            case 4:
                inside[index] = copy.deepcopy(at(tree, rng.choice(ways)))
            case _:
                inside.pop(index)
    return encode(tree)


def flip(data: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] if rng.random() < 0.5 else data[:start] + data[rng.randrange(start, len(data)) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    extra = rng.choice([rng.randbytes(rng.randrange(1, 9)), rng.choice(HEADERS), encode(rng.choice(NASTY))])
    return data[:start] + extra + data[start + rng.choice((0, 0, len(extra), 1)) :]


def nest(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return (
        data[:start]
        + rng.choice((b"\x91", b"\x81\xa1k", b"\x81", b"\x92\xc0")) * rng.choice((3, 600, 5_000, 20_000))
        + data[start:]
    )


def splice(data: bytes, rng: random.Random) -> bytes:
    other = rng.choice(CORPUS)
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def invent(_: bytes, rng: random.Random) -> bytes:
    """An array that begins like a message and goes on at random."""
    head = [rng.randrange(15, 28), rng.choice((None, "default", "other")), rng.choice("pvqz"), rng.choice((1, 2, 3, 9))]
    return encode(head + [rng.choice(NASTY) for _ in range(rng.randrange(8))])


def lie(_: bytes, rng: random.Random) -> bytes:
    """A well-formed Delta or Sync that no honest node would send, with a floor, a gap or a cell out of bounds here and there."""

    def dots() -> list[Any]:
        return [[rng.choice("vpqz"), rng.randrange(4), rng.choice((0, 1, 3, 9, 2**63 - 1))] for _ in range(rng.randrange(4))]

    def cell() -> list[Any]:
        key = rng.choice(("a", "a", "c", "future", "")) if rng.random() < 0.97 else rng.choice((None, 5, "other"))
        match rng.choice((ADD, REMOVE, COUNTS, POSITION, NODE, 99)):
            case 1:
                return [ADD, key or "new", [rng.choice(("x < 4.0", "not CEL", None)), rng.randrange(3)]]
            case 2:
                return [REMOVE, None, [[rng.choice("abcd"), dots()] for _ in range(rng.randrange(3))]]
            case 3:
                return [COUNTS, key, [rng.choice((0, 1, 2**63 - 1)), rng.randrange(9)]]
            case 4:
                return [POSITION, rng.choice(("",) * 12 + ("x",)), [rng.randrange(-9, 9), 2**31 - 1, rng.randrange(9), dots()]]
            case 5:
                return [NODE, rng.choice(("",) * 12 + ("x",)), ["1", 1]]
        return [99, rng.choice((None, "future")), rng.choice(NASTY)]

    def run(name: str) -> list[Any]:
        replica = Replica(name, rng.choice((INCARNATIONS[name], INCARNATIONS[name], 7)))
        lo = CLOCK[replica] if delta or rng.random() < 0.02 else 0
        cells = [cell() for _ in range(rng.randrange(6))]
        gaps = [rng.randrange(3) for _ in cells] if rng.random() < 0.5 else []
        span = max(1, len(cells) + sum(gaps) + rng.choice((0,) * 12 + (8,) * 6 + (1, -1)))
        return [list(replica), span, cells, gaps, lo, 0 if delta else rng.choice((0,) * 18 + (span, span + 1))]

    delta = rng.random() < 0.5
    runs = [run(name) for name in rng.sample("vpqz", rng.randrange(1, 4))]
    if delta:
        return encode([19, None, "p", 2, None, None, runs, [], [[run[0], run[1] + run[4]] for run in runs]])
    return encode([18, None, "p", 2, bytes(32), runs])


DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [
    reshape,
    reshape,
    reshape,
    reshape,
    flip,
    flip,
    cut,
    insert,
    nest,
    splice,
    invent,
    lie,
    lie,
]
CORPUS = corpus()
CLOCK = scene()[0].clock
INCARNATIONS = {"v": 1, "p": 2, "q": 3, "z": 0}


# --- what a node holds -------------------------------------------------------------------------------------------------


def everything(node: GossipNode) -> object:
    """All that a node holds, as one value to compare."""
    rows, tracker = node.state.rows, node.tracker
    talks = tracker._conversations
    return (
        node.state_hash,
        rows.clock,
        rows.floors,
        sorted((cell.kind, cell.replica, cell.seq, cell.data) for kind in rows._tables for cell in rows.each(kind)),
        set(rows._rows),
        rows._pending,
        {name: (peer.replica, peer.mark and peer.mark.total, peer.hash) for name, peer in tracker._peers.items()},
        [(name, talk.common and talk.common.total, list(talk.statements)) for name, talk in talks.items()],
        (node.replica, node.alarms, node.syncs, node.converged),
    )


def check_consistent(node: GossipNode) -> None:
    """What is kept up to date equals what it is computed from, and every reading works."""
    rows, state = node.state.rows, node.state
    held = [cell for kind in rows._tables for cell in rows.each(kind)]
    assert len(rows) == len(held)
    fresh = [Cell(cell.kind, cell.key, cell.data, cell.seq, cell.replica) for cell in held if cell.kind != REMOVE]
    digest = Digest()
    for cell in fresh:
        digest.fill(cell.replica, (cell,))
    clock_sum = sum(digest.clock_entry(replica, seq) for replica, seq in rows.clock.items())
    assert rows.state_hash == digest.state(sum(cell.digest for cell in fresh), clock_sum)
    assert all(cell.seq <= rows.seq(cell.replica) for cell in held)
    assert all(floor <= rows.seq(replica) for replica, floor in rows.floors.items())
    assert len(rows._rows) == len(rows.clock) <= LIMITS.rows
    assert node._inbound.bytes <= LIMITS.staged_bytes
    for id_ in state.constraints:
        assert state.constraints.definitions(id_)
    assert state.metrics.total.satisfied == sum(state.metrics.node(name).satisfied for name in state.metrics.nodes)
    assert 0 <= state.satisfaction_rate <= 1
    assert state.position is None or any(True for _ in rows.each(POSITION))
    assert all(isinstance(value.software, str) for value in state.nodes.values())
    assert str(node)


def check_usable(victim: GossipNode) -> None:
    """What the node would send is well formed, and gives a blank node the same."""
    check_consistent(victim)
    message = decode_message(encode_message(victim.delta_since(VectorClock())), None)
    blank = GossipNode("blank", limits=LIMITS)
    blank.receive(message)
    assert blank.state_hash == victim.state_hash
    check_consistent(blank)
    victim.check({"x": 1.0})
    victim.add_constraint("still working")
    victim.collect()
    check_consistent(victim)


@pytest.mark.slow
def test_damaged_messages_are_refused_or_harmless() -> None:
    rng, taken, refused, sentences = random.Random(SEED), Counter[str](), Counter[str](), set[str]()
    pristine, _ = scene()
    victim, before, staged = twin(pristine), everything(pristine), pristine._inbound.bytes
    for number in range(MESSAGES):
        damage = rng.choice(DAMAGES)
        data = damage(rng.choice(CORPUS), rng)
        where = f"seed {SEED}, message {number} ({damage.__name__}): {data[:400].hex()}"
        try:
            message = decode_message(data)
        except ConstraintCrdtError as error:
            refused[damage.__name__] += 1
            sentences.add(str(error))
            continue
        except Exception as error:
            pytest.fail(f"{error!r} from decode_message; {where}")
        assert encode_message(decode_message(encode_message(message))) == encode_message(message), where
        try:
            result = victim.receive(message)
        except ConstraintCrdtError:
            assert everything(victim) == before, f"refused, but not without trace; {where}"
            assert victim._inbound.bytes <= staged, where
            refused[damage.__name__] += 1
            if victim._inbound.bytes < staged:  # the parts of a transfer that contradict each other are gone together
                victim = twin(pristine)
                before, staged = everything(victim), victim._inbound.bytes
            continue
        except Exception as error:
            pytest.fail(f"{error!r} from receive; {where}")
        taken["changed" if result.state_changed else "unchanged"] += 1
        try:
            for response in result.responses:
                decode_message(encode_message(response), None)
            check_usable(twin(victim))
        except Exception as error:
            pytest.fail(f"{error!r} after taking; {where}")
        if rng.random() < START_AGAIN:
            victim = twin(pristine)
        before, staged = everything(victim), victim._inbound.bytes
    print(f"taken {dict(taken)}, refused {dict(refused)}")  # noqa: T201  # shown with -s
    assert not [sentence for sentence in sentences if "\n" in sentence]
    assert taken["changed"] > MESSAGES // 100
    assert min(refused[damage.__name__] for damage in DAMAGES) > MESSAGES // 100
