"""What the exchange costs at scale: CPU, bytes and memory of a state with 100,000 constraints, against the project's own bars.

    python benchmarks/exchange.py [--constraints 100000] [--rivals] [--json] [--check]

Every message is encoded, decoded and received as between two machines, unless a row says otherwise. Names of nodes are one letter
and incarnations random, as the library makes them. Ids are short ("c123") or, in rows that say so, of realistic length
("constraint-000123"). `docs/reference/benchmarks.md` explains each row.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator

import fifty
from memory import megabytes
from report import Row, cpu, machine, median_cpu, show
from wire import by_message, exchange_bytes, packets, total

from constraint_crdt import GossipNode
from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.protocol.messages import decode_message
from constraint_crdt.types.definition import ADD

FORMS = {"short ids": "c%06d", "realistic ids": "constraint-%06d"}
ONE_REPEATS, MANY_REPEATS, BLANK_REPEATS, HASH_REPEATS = 300, 7, 5, 3000
MANY = 1000
MANY_WRITERS_REPEATS = 100


def entry_bytes(id_: str) -> int:
    """The bytes of a constraint's own cell as they travel."""
    return len(make_cell(ADD, id_, None).data)


def a_pair(constraints: int, form: str) -> tuple[GossipNode, GossipNode]:
    """Two nodes that know the same constraints, all written by the first, and have spoken with each other."""
    a, b = GossipNode("a"), GossipNode("b")
    for number in range(constraints):
        a.add_constraint(form % number)
    exchange_bytes(a, b)
    return a, b


def one_change(a: GossipNode, b: GossipNode, form: str, name: str, *, asked: bool) -> Iterator[Row]:
    """An exchange after one addition; begun by who has it, or (`asked`) by who lacks it."""
    ids = iter(range(10**6 - 2 * ONE_REPEATS if asked else 10**6 - ONE_REPEATS, 10**6))
    sent: list[tuple[str, int]] = []

    def work() -> None:
        sent[:] = exchange_bytes(b, a) if asked else exchange_bytes(a, b)

    seconds = median_cpu(work, ONE_REPEATS, prepare=lambda: a.add_constraint(form % next(ids)))
    what = f"one change{', asked for' if asked else ''}, {name}"
    yield Row(f"{what}: exchange CPU", seconds * 1e3, "ms", 0.3, 0.1)
    bound = entry_bytes(form % 0) + 64 + 5
    yield Row(f"{what}: bytes", total(sent), "B", None if asked else bound, note=by_message(sent))


def many_changes(a: GossipNode, b: GossipNode, form: str, name: str) -> Iterator[Row]:
    """An exchange after 1,000 additions."""
    rounds = iter(range(MANY_REPEATS))
    sent: list[tuple[str, int]] = []

    def prepare() -> None:
        first = 500_000 + next(rounds) * MANY
        for number in range(first, first + MANY):
            a.add_constraint(form % number)

    def work() -> None:
        sent[:] = exchange_bytes(a, b)

    seconds = median_cpu(work, MANY_REPEATS, prepare)
    ratio = total(sent) / (MANY * entry_bytes(form % 0))
    yield Row(f"1,000 changes, {name}: exchange CPU", seconds * 1e3, "ms")
    yield Row(f"1,000 changes, {name}: bytes / bytes of entries", ratio, "x", 1.05, note=by_message(sent))


def nothing_new(a: GossipNode, b: GossipNode) -> Row:
    """An exchange of two nodes that agree."""
    sent = exchange_bytes(a, b)
    return Row("nothing new, both ways: bytes", total(sent), "B", 96 + len(a.node_id) + len(b.node_id), note=by_message(sent))


def hash_after_change(a: GossipNode) -> Iterator[Row]:
    """The state hash after one change: what reading it adds to a write, and what the write itself spends on hashing."""
    ids = iter(range(10**9))
    silent, read = [], []
    for _ in range(HASH_REPEATS):
        silent.append(cpu(lambda: a.add_constraint(f"silent-{next(ids)}")))
        read.append(cpu(lambda: (a.add_constraint(f"read-{next(ids)}"), a.state_hash)))
    reading = statistics.median(read) - statistics.median(silent)
    digest, cell, seqs = a.state.rows.digest, make_cell(ADD, "silent-000123", None), iter(range(10**6, 10**9))
    cell.replica, cell.seq = a.replica, 10**6

    def hashing() -> None:
        for _ in range(HASH_REPEATS):
            cell.digest = 0
            digest.fill(cell.replica, (cell,))
            digest.clock_entry(cell.replica, next(seqs))

    inside = median_cpu(hashing, 5) / HASH_REPEATS
    yield Row("state hash after one change: reading it", reading * 1e6, "µs", 3, 1, note="[write + state_hash] - [write]")
    yield Row("state hash after one change: inside the write", inside * 1e6, "µs", note="hash of the cell and of the clock entry")
    yield Row("state hash after one change: both", (reading + inside) * 1e6, "µs")
    yield Row("the whole write, hash not read", statistics.median(silent) * 1e6, "µs")


def blank_node(source: GossipNode, name: str) -> Iterator[Row]:
    """A node that has nothing takes everything from `source`, in parts of 64 KiB."""
    both, own, size = [], [], 0
    for _ in range(BLANK_REPEATS):
        blank = GossipNode("b")
        both.append(cpu(lambda blank=blank: exchange_bytes(blank, source)))  # type: ignore[misc]  # mypy infers no default of a lambda
        if blank.state_hash != source.state_hash:
            sys.exit("the blank node did not get everything")
        blank = GossipNode("b")
        parts = packets(source.receive(blank.ping()).responses[0])
        size = sum(map(len, parts))
        own.append(cpu(lambda blank=blank, parts=parts: [blank.receive(decode_message(part)) for part in parts]))  # type: ignore[misc]  # same
    yield Row(f"blank node takes all, {name}: CPU of both sides", statistics.median(both) * 1e3, "ms", 300, 140)
    yield Row(f"blank node takes all, {name}: CPU of its own", statistics.median(own) * 1e3, "ms", note="decode and receive")
    yield Row(f"blank node takes all, {name}: bytes", size, "B", note=f"in {len(parts)} parts")


def memory(constraints: int, form: str, name: str) -> Iterator[Row]:
    """What the whole state takes in a process of its own."""
    for received in (False, True):
        who = "received" if received else "written"
        traced = megabytes(constraints, form, received=received, traced=True)
        resident = megabytes(constraints, form, received=received, traced=False)
        yield Row(f"memory, {name}, {who}: tracemalloc", traced, "MB", 40, 20)
        yield Row(f"memory, {name}, {who}: RSS", resident, "MB", 40, 20)


def fifty_replicas(*, rivals: bool) -> Iterator[Row]:
    """50 replicas x (200 adds + 200 increments), 250 random push-pulls."""
    for scenario in fifty.SCENARIOS:
        what = f"50 x 50, {scenario.name}"
        ours, wired = (fifty.median_of(run, scenario) for run in (fifty.run_objects, fifty.run_wire))
        yield Row(f"{what}: CPU, messages as objects", ours.cpu * 1e3, "ms")
        yield Row(f"{what}: CPU, encoded and decoded", wired.cpu * 1e3, "ms")
        yield Row(f"{what}: bytes", wired.bytes / 1e6, "MB")
        outcomes = dict(fifty.run_rivals(scenario)) if rivals else {}
        for rival, outcome in outcomes.items():
            yield Row(f"{what}: CPU of {rival}", outcome.cpu * 1e3, "ms")
            yield Row(f"{what}: bytes of {rival}", outcome.bytes / 1e6, "MB")
            if outcome.known != ours.known:
                sys.exit(f"{rival} did not do the same work: {outcome.known} items known in the end, here {ours.known}")
        if outcomes:
            best_cpu, best_bytes = min(each.cpu for each in outcomes.values()), min(each.bytes for each in outcomes.values())
            demanded = scenario.demanded
            yield Row(f"{what}: CPU as objects / better rival", ours.cpu / best_cpu, "x", *((0.5, 0.2) if demanded else ()))
            yield Row(f"{what}: CPU encoded and decoded / better rival", wired.cpu / best_cpu, "x")
            yield Row(f"{what}: bytes / better rival", wired.bytes / best_bytes, "x", 0.6 if demanded else None)


def many_writers(few: int, many: int) -> Iterator[Row]:
    """A round without news and one change between nodes that know `many` writers, against `few`."""
    (little, less), (much, more) = (_cost_among(writers) for writers in (few, many))
    yield Row(f"nothing new among {many:,} writers: CPU of both sides", much * 1e3, "ms", note=f"{little * 1e3:.3f} among {few:,}")
    yield Row(f"nothing new: CPU among {many:,} writers / among {few:,}", much / little, "x", 1.5)
    yield Row(f"one change among {many:,} writers: CPU of both sides", more * 1e3, "ms", note=f"{less * 1e3:.3f} among {few:,}")


def _cost_among(writers: int) -> tuple[float, float]:
    """CPU seconds of a round without news, and of one with a change."""
    a, b, runs = GossipNode("a"), GossipNode("b"), []
    for number in range(writers):
        writer = GossipNode(f"w{number:05d}")
        writer.add_constraint(f"c{number}")
        runs += writer.state.rows.whole()
    for node in (a, b):
        node.state.rows.apply(runs)
    for asker, asked in ((a, b), (b, a)) * 2:
        exchange_bytes(asker, asked)
    quiet = median_cpu(lambda: exchange_bytes(a, b), MANY_WRITERS_REPEATS)
    names = iter(range(10 * MANY_WRITERS_REPEATS))

    def change() -> None:
        a.add_constraint(f"x{next(names)}")
        exchange_bytes(a, b)

    return quiet, median_cpu(change, MANY_WRITERS_REPEATS)


def rows(constraints: int, *, rivals: bool) -> Iterator[Row]:
    """The whole table."""
    for name, form in FORMS.items():
        a, b = a_pair(constraints, form)
        yield from one_change(a, b, form, name, asked=False)
        yield from one_change(a, b, form, name, asked=True)
        yield from many_changes(a, b, form, name)
        if name == "short ids":
            yield nothing_new(a, b)
            yield from hash_after_change(a)
        del a, b
        source, _ = a_pair(constraints, form)
        yield from blank_node(source, name)
        del source
        yield from memory(constraints, form, name)
    yield from many_writers(100, 10_000)
    yield from fifty_replicas(rivals=rivals)


def main() -> int:
    """Run, print; 1 if `--check` was given and something that must hold does not."""
    parser = argparse.ArgumentParser(description="What the exchange costs at scale, against the project's own bars.")
    parser.add_argument("--constraints", type=int, default=100_000, metavar="N", help="how many are known to begin with (100000)")
    parser.add_argument("--rivals", action="store_true", help="run pycrdt and loro too, where they are installed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is missed")
    args = parser.parse_args()
    if args.constraints < 1:
        parser.error("--constraints must be at least 1")
    heading = machine()
    measured = list(rows(args.constraints, rivals=args.rivals))
    show(heading, measured, as_json=args.json)
    missed = [row.what for row in measured if not row.met]
    if missed and args.check:
        print(f"missed: {'; '.join(missed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
