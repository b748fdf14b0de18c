"""What the dashboard costs a browser: the first look at 1,000 nodes and 10,000 constraints, and following ten events a second.

    python benchmarks/dashboard.py [--nodes 1000] [--json]

Needs Debian's packages `chromium` and `chromium-driver`. The node runs in a process of its own. What is demanded is said of the CPU
time of all processes of the browser together, once it has come to rest after its start. The page's thread alone is shown beside it
by the wall clock, as the DevTools protocol has it (`TaskDuration`), so other work on the machine shows in it. The page counts as
shown in the second frame after lattice and rows were drawn.
"""

import argparse
import re
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from report import Row, machine, show

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.dashboard.chromium import Chromium, chromium, missing
from tests.dashboard.large_fleet import Size, large_fleet

NODES, CONSTRAINTS = 1000, 10_000
RUNS = 3
EVENTS = 10.0
FOLLOWED = 30.0
"""Seconds."""

WATCH = """
    window.lags = [];
    new MutationObserver((changes) => {
        for (const change of changes) for (const line of change.addedNodes)
            window.lags.push(Date.now() - Date.parse(line.querySelector('time').dateTime));
    }).observe(document.getElementById('events'), {childList: true});
"""


def browser_cpu(page: Chromium) -> Callable[[], float]:
    """Reads the CPU seconds that the processes of the browser took together since now."""
    driver = psutil.Process(page.driver.service.process.pid)

    def taken() -> dict[int, float]:
        found = {}
        for process in driver.children(recursive=True):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found[process.pid] = times.user + times.system
        return found

    before = taken()
    return lambda: sum(seconds - before.get(pid, 0.0) for pid, seconds in taken().items())


def rest(page: Chromium) -> None:
    """Wait until the browser does nothing any more after its start: half a second in which it takes less than 20 ms."""
    page.open("about:blank")
    for _ in range(40):
        cpu = browser_cpu(page)
        time.sleep(0.5)
        if cpu() < 0.02:
            return


def shown(page: Chromium) -> bool:
    """Lattice and rows are on the screen."""
    return bool(page.run("return performance.getEntriesByName('fleet-shown').length"))


def first_look(url: str) -> tuple[float, float, float]:
    """Of one fresh browser: seconds of its main thread, of all its processes, and of the wall clock, until the page is shown."""
    with chromium() as page:
        page.size(1440, 900)
        rest(page)
        cpu = browser_cpu(page)
        page.open(url)
        page.until(lambda: shown(page), "the page", within=60)
        main, every = page.metric("TaskDuration"), cpu()
        return main, every, float(page.run("return performance.getEntriesByName('fleet-shown')[0].startTime")) / 1000


class Followed(NamedTuple):
    """What following the events for a while was like."""

    lags: list[float]
    """Seconds from each event to the screen."""
    happened: int
    """How many events the node says there were."""
    share: float
    """Of a CPU, that the browser took."""
    complete: float
    """Seconds until all rows were known."""
    heap: float
    """MB of the page's scripts."""


def following(url: str) -> Followed:
    """Follow in one browser."""
    with chromium() as page:
        page.size(1440, 900)
        page.open(url)
        complete = page.until(lambda: page.count("#constraints[aria-busy=false]"), "all rows", within=120)
        page.run(WATCH)
        watched, cpu = time.time(), browser_cpu(page)
        time.sleep(FOLLOWED)
        share = cpu() / (time.time() - watched)
        assert page.complaints() == []
        lags = [lag / 1000 for lag in page.run("return window.lags")]
        with urllib.request.urlopen(f"{url}/v1/events?last=10000&follow=0") as answer:
            times = re.findall(rb'"time":(\d+)', answer.read())
        happened = sum(watched <= int(each) / 1e9 <= watched + FOLLOWED for each in times)
        return Followed(lags, happened, share, complete, page.metric("JSHeapUsedSize") / 1e6)


def main() -> int:
    """Measure, print, and return 1 if something demanded is missed."""
    parser = argparse.ArgumentParser(description="Measure the dashboard in a browser.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--nodes", type=int, default=NODES, help="how many nodes, with 10,000 constraints")
    given = parser.parse_args()
    size = Size(nodes=given.nodes, constraints=CONSTRAINTS, cut_off=max(1, given.nodes // 60))
    why = missing()
    if why is not None:
        print(why, file=sys.stderr)
        return 2
    with large_fleet(size) as url:
        looks = [first_look(url) for _ in range(RUNS)]
    with large_fleet(size, EVENTS) as url:
        followed = following(url)
    main_thread, every, wall = (statistics.median(column) for column in zip(*looks, strict=True))
    ordered = sorted(followed.lags)
    rows = [
        Row("first look, CPU", every, "s", 1.0, 0.8, f"{size.nodes:,} nodes, {CONSTRAINTS:,} constraints; median of {RUNS}"),
        Row("first look, main thread", main_thread, "s", None, None, "by the wall clock"),
        Row("first look, wall clock", wall, "s", None, None, "from the address to the second frame; the node's answers included"),
        Row("all 10,000 rows known after", followed.complete, "s", None, None, "while ten events a second happen"),
        Row("an event on the screen after, median", statistics.median(ordered), "s", 0.5, 0.2, f"{len(ordered)} events"),
        Row("an event on the screen after, 99 %", ordered[int(len(ordered) * 0.99)], "s", 1.0, 0.5),
        Row("events that were not shown", max(0, followed.happened - len(ordered)), "", 0, None, f"of {followed.happened}"),
        Row("following, CPU", followed.share, "", 0.5, 0.25, "share of one CPU"),
        Row("memory of the page's scripts", followed.heap, "MB", 100.0, 40.0),
    ]
    show(machine(), rows, as_json=given.json)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
