"""Approximate counting and membership, measured against the theory and against the project's own bars.

    python benchmarks/approximate.py [--quick] [--json]

Bloom filters of five sizes and three rates: the false-positive rate as a mean over seeds, and the bits per item. A sketch of a
million checks over 100,000 ids, with even and with skewed frequencies, by one writer and by fifty that are merged: whether an
estimate is too low, how many exceed the bound, and what it takes in memory, in cells and on the wire.
Exits with 1 if a bar is missed. `--quick` leaves out the largest sizes. `docs/how-to/sketches-and-filters.md` explains the figures.
"""

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from random import Random

from report import Row, cpu, machine, show
from wire import exchange_bytes, total

from constraint_crdt import GossipNode
from constraint_crdt.types import BloomCRDT, SketchCRDT

SEEDS = {100: 200, 1000: 40, 10_000: 10, 100_000: 2, 1_000_000: 1}
"""Filters measured of each size. Larger ones differ less from each other."""
QUICK_SIZES = (100, 1000, 10_000)
HITS = 1000
"""False positives to expect over all seeds: so a rate is measured to 3.2 % of itself (one standard deviation)."""
RATES = (0.05, 0.01, 0.001)

CHECKS, IDS, WRITERS, BATCH = 1_000_000, 100_000, 50, 10_000
QUICK_CHECKS = 100_000
EPSILON, DELTA = 0.0005, 0.01
TABLE_BYTES = 110_000


def bloom_rows(sizes: tuple[int, ...]) -> Iterator[Row]:
    """The false-positive rate and the size of filters that hold as many items as they were made for."""
    for rate in RATES:
        for size in sizes:
            found, estimates = [], []
            questions = round(HITS / rate / SEEDS[size])
            for seed in range(SEEDS[size]):
                bloom = BloomCRDT(expected_items=size, fp_rate=rate)
                bloom.insert_all((f"{seed}/in/{number}" for number in range(size)), node="a")
                found.append(sum(f"{seed}/out/{number}" in bloom for number in range(questions)) / questions)
                estimates.append(bloom.estimated_fpr)
                if not all(f"{seed}/in/{number}" in bloom for number in range(0, size, max(1, size // 1000))):
                    sys.exit("a filter does not find what was inserted")
            mean, asked = statistics.mean(found), SEEDS[size] * questions
            note = f"{mean:.4%} of {asked:,} questions, seeds: {SEEDS[size]}; estimated {statistics.mean(estimates):.4%}"
            yield Row(f"Bloom, {size:,} items at {rate:.1%}: measured / target", mean / rate, "x", 1.1, note=note)
            bits = bloom.space_bytes * 8 / size
            optimum = -math.log(rate) / math.log(2) ** 2
            yield Row(f"Bloom, {size:,} items at {rate:.1%}: bits per item", bits, "bits", round(9.6 / 9.5851 * optimum, 2))


def checks(random: Random, count: int, *, skewed: bool) -> list[str]:
    """The ids that were checked: evenly spread over all of them, or the n-th with a frequency of 1/n (Zipf)."""
    if not skewed:
        return [f"constraint-{random.randrange(IDS)}" for _ in range(count)]
    weights = list(accumulate(1 / rank for rank in range(1, IDS + 1)))
    return [f"constraint-{rank}" for rank in random.choices(range(IDS), cum_weights=weights, k=count)]


def sketch_rows(count: int, *, skewed: bool) -> Iterator[Row]:
    """One writer, then as many checks by fifty writers who are merged."""
    name = f"sketch, {'Zipf' if skewed else 'even'}"
    random = Random(skewed)
    seen = checks(random, count, skewed=skewed)
    truth = Counter(seen)

    one = SketchCRDT(epsilon=EPSILON, delta=DELTA)
    batches = [Counter(seen[start : start + BATCH]) for start in range(0, count, BATCH)]

    def record() -> None:
        for batch in batches:
            one.record_all(batch, node="a")

    seconds = cpu(record)
    yield from verdicts(f"{name}, 1 writer", one, truth)
    yield Row(f"{name}, 1 writer: CPU per check recorded", seconds / count * 1e6, "µs", note=f"in batches of {BATCH:,}")

    merged = SketchCRDT(epsilon=EPSILON, delta=DELTA)
    share = count // WRITERS
    for number in range(WRITERS):
        writer = SketchCRDT(epsilon=EPSILON, delta=DELTA)
        writer.record_all(Counter(seen[number * share : (number + 1) * share]), node=f"n{number}")
        merged.merge(writer)
    seconds = cpu(lambda: merged.estimate("constraint-0"))
    yield from verdicts(f"{name}, {WRITERS} writers", merged, truth)
    yield Row(f"{name}, {WRITERS} writers: CPU of summing all", seconds * 1e3, "ms", note="once, at the first reading")


def verdicts(name: str, sketch: SketchCRDT, truth: Counter[str]) -> Iterator[Row]:
    """The estimates of all ids that occurred, and of as many that did not, against the truth."""
    if sketch.total != truth.total():
        sys.exit("a sketch lost a count")
    asked = [*truth, *(f"never-{number}" for number in range(len(truth)))]
    errors = [sketch.estimate(item) - truth[item] for item in asked]
    bound = sketch.error_bound
    yield Row(f"{name}: estimates below the truth", sum(error < 0 for error in errors), "", 0)
    yield Row(f"{name}: share beyond the bound", sum(error > bound for error in errors) / len(errors), "", DELTA)
    note = f"largest {max(errors)}, mean {statistics.mean(errors):.1f}, bound {bound:.0f}"
    yield Row(f"{name}: largest error / bound", max(errors) / bound, "x", note=note)
    yield Row(f"{name}: summed table", sketch.space_bytes, "B", TABLE_BYTES)
    yield Row(f"{name}: all its cells", sketch.packed_bytes, "B", note=f"{sketch.writers} rows")
    heavy = {item for item, occurred in truth.items() if occurred > truth.total() / 128 + bound}
    if heavy:
        missed = len(heavy - {each.item for each in sketch.top(len(heavy))})
        yield Row(f"{name}: of the frequent items, missed", missed, "", 0, note=f"{len(heavy)} above 1/128 + epsilon of all")


def small_facts() -> Iterator[Row]:
    """50 + 75, and what one count costs on the wire."""
    a, b = SketchCRDT(), SketchCRDT()
    a.record("x", 50, node="a")
    b.record("x", 75, node="b")
    a.merge(b)
    yield Row("sketch, 50 + 75 merged: off by", abs(a.estimate("x") - 125), "", 0, note=f"says {a.estimate('x')}")

    first, second = GossipNode("a"), GossipNode("b")
    first.write(lambda me: first.state.sketch("s").record("x", node=me))
    exchange_bytes(first, second)
    first.write(lambda me: first.state.sketch("s").record("x", node=me))
    yield Row("sketch, one more count in an empty table: exchange", total(exchange_bytes(first, second)), "B")
    first.write(lambda me: first.state.sketch("s").record_all({f"c-{n}": 1 for n in range(IDS)}, node=me))
    exchange_bytes(first, second)
    first.write(lambda me: first.state.sketch("s").record("x", node=me))
    yield Row("sketch, one more count in a full table: exchange", total(exchange_bytes(first, second)), "B")
    first.write(lambda me: first.state.bloom("f", 100_000, 0.01).insert_all([str(n) for n in range(1000)], node=me))
    exchange_bytes(first, second)
    first.write(lambda me: first.state.bloom("f", 100_000, 0.01).insert("x", node=me))
    yield Row("Bloom, one more item in 1,000 of 100,000: exchange", total(exchange_bytes(first, second)), "B")


def main() -> int:
    """Measure, print, and say by the exit code whether all bars are met."""
    parser = argparse.ArgumentParser(description="Bloom filters and sketches against theory.")
    parser.add_argument("--quick", action="store_true", help="leave out the largest sizes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    count = QUICK_CHECKS if arguments.quick else CHECKS
    rows = [*bloom_rows(QUICK_SIZES if arguments.quick else tuple(SEEDS))]
    rows += [row for skewed in (False, True) for row in sketch_rows(count, skewed=skewed)]
    rows += small_facts()
    show(machine(), rows, as_json=arguments.json)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
