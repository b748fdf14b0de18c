"""What every benchmark here shares: CPU time of a piece of work, and the table of what was measured against what must hold.

Times are CPU time of this process, so that a busy machine changes them little; the garbage collector stays on, as it is in use.
"""

import argparse
import hashlib
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from time import process_time

YARDSTICK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    measured: float
    unit: str
    must: float | None = None
    """At most this much; None where nothing is demanded and the row only informs."""
    goal: float | None = None
    note: str = ""

    @property
    def met(self) -> bool:
        """True if nothing demanded is missed."""
        return self.must is None or self.measured <= self.must


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one run of `work`."""
    start = process_time()
    work()
    return process_time() - start


def median_cpu(work: Callable[[], object], repeats: int, prepare: Callable[[], object] = lambda: None) -> float:
    """CPU seconds of `work`, the median of `repeats`; `prepare` runs before each and is not counted."""
    times = []
    for _ in range(repeats):
        prepare()
        times.append(cpu(work))
    return statistics.median(times)


def yardstick() -> float:
    """CPU seconds of hashing 64 MB: what times on two machines can be compared by."""
    block = bytes(YARDSTICK_BYTES)
    return median_cpu(lambda: hashlib.blake2b(block).digest(), 3)


def machine() -> str:
    """The interpreter and the yardstick, in one line."""
    return f"{platform.python_implementation()} {platform.python_version()}; blake2b of 64 MB: {yardstick() * 1e3:.1f} ms of CPU"


def show(heading: str, rows: Iterable[Row], *, as_json: bool) -> None:
    """Print the rows, for people or as one JSON object."""
    rows = list(rows)
    if as_json:
        json.dump({"machine": heading, "rows": [{**asdict(row), "met": row.met} for row in rows]}, sys.stdout, indent=2)
        print()
        return
    print(heading)
    lines = [("what", "measured", "must (goal)", "met", "note")]
    lines += [(row.what, _value(row.measured, row.unit), _bar(row), _met(row), row.note) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for index, line in enumerate(lines):
        what, measured, bar, met, note = line
        print(f"{what:<{widths[0]}}  {measured:>{widths[1]}}  {bar:>{widths[2]}}  {met:<{widths[3]}}  {note}".rstrip())
        if index == 0:
            print("-" * (sum(widths) + 6))


def run(about: str | None, rows: Callable[[], list[Row]]) -> int:
    """The command of a benchmark with one table: print it; with `--check`, returns 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    table = rows()
    show(machine(), table, as_json=args.json)
    return int(args.check and not all(row.met for row in table))


def _value(value: float, unit: str) -> str:
    digits = 0 if value == int(value) else 1 if value >= 100 else 3
    return f"{value:,.{digits}f} {unit}".rstrip()


def _bar(row: Row) -> str:
    if row.must is None:
        return "-"
    return f"<= {row.must:g}" + ("" if row.goal is None else f" ({row.goal:g})")


def _met(row: Row) -> str:
    if row.must is None:
        return ""
    if not row.met:
        return "NO"
    return "goal" if row.goal is not None and row.measured <= row.goal else "yes"
