"""The store: start-up from disk, durable commits, records per second, and how large the log gets.

    python benchmarks/store.py [--directory DIR] [--json]

Times here are wall-clock: a durable commit waits for the disk, and so do people. Run it on the disk that nodes use (`--directory`).
What that disk takes for one sync is measured before and after and printed: it varies tenfold with what else the machine does, so
figures can be compared only where it is alike.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Row, machine, show

from constraint_crdt.crdt.cells import make_cell
from constraint_crdt.crdt.clock import Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.store import Changes, Committer, Store
from constraint_crdt.store.files import Machine, Marker, Session
from constraint_crdt.types.definition import ADD

ROWS, CONSTRAINTS = 1_000, 100_000
COMMITS, SMALL = 300, 100
BATCHES, LARGE = 50, 1_000
START_UPS = 5


def open_store(directory: Path) -> Store:
    marker = Marker(directory / "marker", Machine("this boot"))
    return Store.open(directory / "node.db", node="a", fleet="bench", marker=marker, fresh_incarnation=lambda: 1)


def clocked(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write(rows: Rows, replica: Replica, count: int, prefix: str) -> None:
    for number in range(count):
        rows.write(replica, make_cell(ADD, f"{prefix}-{number:07d}", ["gpu_temp_c < 85.0", 2]))


def filled(directory: Path) -> tuple[float, int]:
    """Put 100,000 constraints over 1,000 rows on disk in one commit. Returns its seconds, and the bytes of the log after it."""
    rows = Rows()
    store = open_store(directory)
    changes = Changes(rows)
    for number in range(ROWS):
        write(rows, Replica(f"node-{number:04d}", 7), CONSTRAINTS // ROWS, f"max_speed-{number:04d}")
    batch = changes.take()
    assert batch is not None
    seconds = clocked(lambda: store.commit(batch))
    log = (directory / "node.db-wal").stat().st_size
    store.close()
    return seconds, log


def start_up(directory: Path) -> float:
    """Seconds from nothing to all rows in memory, checked."""

    def start() -> None:
        store = open_store(directory)
        rows = Rows()
        store.restore(rows)
        assert len(rows) == CONSTRAINTS
        store.close()

    return statistics.median(clocked(start) for _ in range(START_UPS))


def commits(directory: Path, cells: int) -> tuple[list[float], int]:
    """Seconds of each of many commits of so many cells; and the largest the log got."""
    store, rows, times, log = open_store(directory), Rows(), [], 0
    changes = Changes(rows)
    for number in range(COMMITS):
        write(rows, Replica("a", 1), cells, f"c{number % 10}")
        batch = changes.take()
        assert batch is not None
        times.append(clocked(lambda batch=batch: store.commit(batch)))  # type: ignore[misc]
        changes.done(batch)
        log = max(log, (directory / "node.db-wal").stat().st_size)
    store.close()
    return sorted(times), log


async def acknowledged(directory: Path, writers: int) -> list[float]:
    """Seconds until a single write is acknowledged, with so many writing at once through one `Committer`."""
    rows, times = Rows(), []
    store = open_store(directory)
    committer = Committer(store, rows)
    committer.start()

    async def writer(name: int) -> None:
        for number in range(COMMITS):
            start = time.perf_counter()
            write(rows, Replica("a", 1), 1, f"w{name}-{number % 10}")
            await committer.durable()
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(writer(name) for name in range(writers)))
    await committer.close()
    return sorted(times)


async def throughput(directory: Path, writers: int) -> float:
    """Records per second through rows and committer, 1,000 at a time from each of some writers."""
    rows = Rows()
    committer = Committer(open_store(directory), rows)
    committer.start()

    async def writer(name: int) -> None:
        for number in range(BATCHES):
            write(rows, Replica("a", 1), LARGE, f"b{name}-{number}")
            await committer.durable()

    start = time.perf_counter()
    await asyncio.gather(*(writer(name) for name in range(writers)))
    seconds = time.perf_counter() - start
    await committer.close()
    return writers * BATCHES * LARGE / seconds


def note_seconds(directory: Path) -> float:
    """Seconds of one note in the marker."""
    marker = Marker(directory / "marker", Machine("this boot"))
    marker.begin(Session(bytes(16), 1, 1), 1, 0)
    return statistics.median(clocked(lambda seq=seq: marker.note(1, seq)) for seq in range(1, 1_000))  # type: ignore[misc]


def sync_seconds(directory: Path) -> float:
    """Seconds of one sync of one page, by the disk alone: the median."""
    with (directory / "probe").open("wb", buffering=0) as file:

        def sync() -> None:
            file.write(bytes(4096))
            os.fdatasync(file.fileno())

        return statistics.median(clocked(sync) for _ in range(COMMITS))


def at(times: list[float], share: float) -> float:
    return times[int(len(times) * share)]


def measured(base: Path) -> list[Row]:
    """All rows of the table."""

    def fresh(name: str) -> Path:
        (base / name).mkdir()
        return base / name

    sync_before = sync_seconds(base)
    large = fresh("large")
    whole, whole_log = filled(large)
    start = start_up(large)
    small, log = commits(fresh("small"), SMALL)
    alone = asyncio.run(acknowledged(fresh("alone"), 1))
    many = asyncio.run(acknowledged(fresh("many"), 50))
    single = asyncio.run(throughput(fresh("single"), 1))
    records = asyncio.run(throughput(fresh("records"), 3))
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as memory:
        note = note_seconds(Path(memory))
    sync_after = sync_seconds(base)
    return [
        Row("one sync of this disk, p50", sync_before * 1e3, "ms", note=f"{sync_after * 1e3:.2f} ms afterwards"),
        Row("start-up: 100,000 constraints, 1,000 rows", start, "s", must=1.0, note="opened, checked and in memory"),
        Row("commit of 100 cells, p50", at(small, 0.5) * 1e3, "ms", must=10.0),
        Row("commit of 100 cells, p99", at(small, 0.99) * 1e3, "ms"),
        Row("one write acknowledged, p50", at(alone, 0.5) * 1e3, "ms", must=15.0, note=f"p99 {at(alone, 0.99) * 1e3:.1f} ms"),
        Row("the same, 50 writing at once, p50", at(many, 0.5) * 1e3, "ms", must=15.0, note=f"p99 {at(many, 0.99) * 1e3:.1f} ms"),
        Row(
            "a record, 1,000 at a time, 3 writers",
            1e6 / records,
            "µs",
            must=20.0,
            note=f"{records:,.0f} records/s; one writer: {single:,.0f}",
        ),
        Row("one commit of 100,000 cells", whole, "s", note=f"log {whole_log / 2**20:.1f} MiB"),
        Row("log after 300 commits of 100, at most", log / 2**20, "MiB", must=16.0),
        Row("one note in the marker", note * 1e6, "µs", must=100.0, note="in memory, where runtime directories are"),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="where to make the stores (default: the temporary directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        show(machine(), measured(Path(directory)), as_json=arguments.json)


if __name__ == "__main__":
    main()
