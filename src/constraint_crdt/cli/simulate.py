"""`simulate`, a fleet in virtual time; `plan`, the cost of a fleet; and `replay`, the recording of a node run again.

By its flags `simulate` runs scenarios, searches for a history that breaks an invariant (`--chaos`), or repeats a history
(`--replay`).

Exit codes: 0 the fleet settled, 1 it did not, an invariant broke, or a file cannot be written, 130 interrupted. An interrupted run
prints its results so far.

The ending of the file of `--plot` decides: SVG or PNG. Rules: a mistake in the name, a place that cannot be written, or a missing
library is reported before the fleet runs. Pillow is imported for a PNG only.

`plan` prints figures with their sources, the first part to break, and the settings to use. Exit codes: 0 the plan works, 1
something breaks in it, or a file cannot be written.

`replay` runs the flight recording of a node again, step by step, and compares the states. Its exit code is 0 if they agree, 1 if
they do not, or if two recordings of a fleet differ at equal clocks.
"""

import argparse
import io
import math
import multiprocessing
import re
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from constraint_crdt.cli.arguments import PROGRAM
from constraint_crdt.cli.files import check_place, read_whole, write_whole
from constraint_crdt.cli.output import INTERRUPTED, CommandFailedError, MisuseError, print_json, print_lines, print_table, printable
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.model import counted
from constraint_crdt.operations.operation import Column, UsageError, parse_duration
from constraint_crdt.simulation import histories
from constraint_crdt.simulation.chaos import MOST_SITES, SearchExtent, search_seeds
from constraint_crdt.simulation.histories import FILE_BYTES, History, from_json, shrink, to_json
from constraint_crdt.simulation.plan import Plan, PlannedFleet, draw_plan, make_plan
from constraint_crdt.simulation.recorder import Frame, Replay, ReplayedInput, decode_frames, first_difference
from constraint_crdt.simulation.scenario import (
    LONGEST_NS,
    SECOND_NS,
    Picture,
    Report,
    Scenario,
    ScenarioRun,
    draw,
    png_writer,
    to_svg,
)

MOST_SEEDS = 1_000_000
MOST_WORKERS = 256

_SCENARIO_FLAGS = ("nodes", "items", "loss", "latency", "partition", "churn", "choice", "plot", "site_latency")
_SEARCH_FLAGS = ("minutes", "workers")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/(s|min|h)")
_PER_MINUTE = {"s": 60.0, "min": 1.0, "h": 1 / 60}


def simulate(arguments: argparse.Namespace) -> int:
    """Run scenarios, search or replay, by the flags. Raises `CommandFailedError`."""
    given = vars(arguments)
    if arguments.replay is not None:
        _refuse(given, (*_SCENARIO_FLAGS, *_SEARCH_FLAGS, "seed", "seeds", "sites"), "--replay runs one history as it is")
        if arguments.chaos or arguments.signed or arguments.network or arguments.budgets:
            raise MisuseError("--replay runs one history as it is, and --chaos searches for some: give one of the two")
        return replay_file(arguments.replay, as_json=arguments.json)
    seed = parse_whole(arguments.seed, "--seed", 0, 2**63 - 1, 0)
    if arguments.chaos:
        _refuse(given, _SCENARIO_FLAGS, "--chaos draws the fleet and its faults from the seed")
        return search(
            first_seed=seed,
            most=None if arguments.seeds is None else parse_whole(arguments.seeds, "--seeds", 1, MOST_SEEDS, 1),
            seconds=60 * parse_number(arguments.minutes, "--minutes", 1.0, above=0.0, most=100_000.0),
            workers=parse_whole(arguments.workers, "--workers", 1, MOST_WORKERS, 1),
            signed=arguments.signed,
            network=arguments.network,
            budgets=arguments.budgets,
            sites=parse_whole(arguments.sites, "--sites", 1, MOST_SITES, 0),
            as_json=arguments.json,
        )
    _refuse(given, _SEARCH_FLAGS, "only a search with --chaos takes it")
    for flag in ("signed", "network", "budgets"):
        if given[flag]:
            raise MisuseError(f"only a search with --chaos takes it: leave out --{flag}")
    seeds = parse_whole(arguments.seeds, "--seeds", 1, MOST_SEEDS, 1)
    scenarios = [_scenario(arguments, seed + more) for more in range(seeds)]
    plot = None if arguments.plot is None else plotter(arguments.plot)
    return _run_scenarios(scenarios, plot, as_json=arguments.json)


# --- reading flags -------------------------------------------------------------------------------------------------------


def parse_whole(text: str | None, flag: str, least: int, most: int, default: int) -> int:
    """A whole number from `least` to `most`; `default` for None. Raises `MisuseError`, which names the flag."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise MisuseError(f"{flag} is a whole number from {least} to {most}, not {text!r}")
    return int(text)


def parse_number(text: str | None, flag: str, default: float, *, above: float, most: float) -> float:
    """A number above `above`, and at most `most`; `default` for None. Raises `MisuseError`, which names the flag."""
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = above
    if not above < number <= most:  # NaN is in no range
        raise MisuseError(f"{flag} is a number above {above:g} and at most {most:g}, not {text!r}")
    return number


def _refuse(given: Mapping[str, object], flags: Iterable[str], why: str) -> None:
    for flag in flags:
        if given[flag] is not None:
            raise MisuseError(f"{why}: leave out --{flag.replace('_', '-')}")


def _scenario(arguments: argparse.Namespace, seed: int) -> Scenario:
    nodes = parse_whole(arguments.nodes, "--nodes", 2, 10_000, 100)
    scenario = Scenario(
        nodes=nodes,
        seed=seed,
        items=None if arguments.items is None else parse_whole(arguments.items, "--items", 1, nodes, nodes),
        loss=_loss(arguments.loss),
        latency_ns=_time(arguments.latency, "--latency", 0.02),
        partition_ns=0 if arguments.partition is None else _time(arguments.partition, "--partition", 0.0),
        churn_per_minute=_rate(arguments.churn, "--churn"),
        choice=arguments.choice or "uniform",
        sites=parse_whole(arguments.sites, "--sites", 1, nodes, 0),
        site_latency_ns=_time(arguments.site_latency, "--site-latency", 0.0),
    )
    try:
        scenario.check()
    except ConstraintCrdtError as error:
        raise MisuseError(str(error)) from None
    return scenario


def _loss(text: str | None) -> float:
    try:
        loss = float(text or 0.0)
    except ValueError:
        loss = -1.0
    if not 0.0 <= loss < 1.0:
        raise MisuseError(f"--loss is a probability from 0 up to, not including, 1, not {text!r}: with 1 nothing would ever arrive")
    return loss


def _time(text: str | None, flag: str, default: float) -> int:
    try:
        seconds = default if text is None else parse_duration(text)
    except UsageError as error:
        raise MisuseError(f"{flag}: {error}") from None
    return min(round(seconds * SECOND_NS), LONGEST_NS)


def _rate(text: str | None, flag: str) -> float:
    """Events per minute."""
    if text is None:
        return 0.0
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise MisuseError(f"{flag} is a rate, as in 5/min, 0.1/s or 100/h, not {text!r}")
    return float(found[1]) * _PER_MINUTE[found[2]]


# --- scenarios -----------------------------------------------------------------------------------------------------------


def _run_scenarios(scenarios: Sequence[Scenario], plot: Callable[[Report], None] | None, *, as_json: bool) -> int:
    reports: list[Report] = []
    interrupted = False
    with _progress(len(scenarios)) as advance:
        for scenario in scenarios:
            run = ScenarioRun(scenario)
            try:
                for sample in run.samples():
                    advance(len(reports), sample.known)
            except KeyboardInterrupt:
                interrupted = True
            reports.append(run.report())
            if interrupted:
                break
    if as_json:
        print_json({"interrupted": interrupted, "runs": [_as_json(report) for report in reports]})
    elif len(scenarios) == 1:
        _print_report(reports[0])
    else:
        _print_distribution(reports)
    if interrupted:
        print("interrupted: this is what there was by then", file=sys.stderr)
    if plot is not None:  # last: the report is printed even if the file cannot be written
        plot(reports[0])
    if interrupted:
        return INTERRUPTED
    return 0 if all(report.settled for report in reports) else 1


@contextmanager
def _progress(runs: int) -> Iterator[Callable[[int, float], None]]:
    """A progress bar on stderr, on a terminal: `advance(runs done, share known of the present run)`."""
    if not sys.stderr.isatty():
        yield _show_nothing
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("known by all", total=float(runs))
        yield lambda done, known: progress.update(task, completed=done + known)


def _show_nothing(_done: int, _known: float) -> None:
    """No bar without a terminal."""


def _print_report(report: Report) -> None:
    scenario = report.scenario
    disturbed = bool(scenario.partition_ns or scenario.churn_per_minute)
    rounds = f"{report.rounds:.2f}" + (" after the last disturbance" if disturbed else "")
    states = report.samples[-1].states if report.samples else scenario.nodes
    lines: list[tuple[str, object]] = [
        (
            "fleet",
            f"{counted(scenario.nodes, 'node')}, {100 * scenario.loss:.10g}% loss, peers {scenario.choice}, seed {scenario.seed}",
        ),
        ("agreed", "yes" if report.settled else f"no: {states} different states"),
        ("rounds", f"{rounds}; bound {report.bound}, for aligned rounds in which nothing is lost"),
        ("time", f"{report.time_ns / SECOND_NS:.2f} s, virtual"),
        ("messages", report.messages),
        ("bytes", f"{report.bytes_per_node:.0f} per node"),
        ("copies", f"{report.copies:.3f} of each item received"),
    ]
    if scenario.sites > 1:
        lines.append(("sites", f"{scenario.sites}; {report.bytes_between / scenario.sites:.0f} bytes per site to others"))
    print_lines(lines)


def _print_distribution(reports: Sequence[Report]) -> None:
    settled = [report for report in reports if report.settled]
    print_lines([("runs", f"{len(reports)}, of which {len(settled)} agreed in the end"), ("bound", f"{reports[0].bound} rounds")])
    for name, values in (
        ("rounds", [report.rounds for report in settled]),
        ("bytes/node", [report.bytes_per_node for report in settled]),
        ("copies", [report.copies for report in settled]),
    ):
        if values:
            ordered = sorted(values)
            tenth, ninetieth = ordered[len(ordered) // 10], ordered[(len(ordered) * 9) // 10]
            told = f"median {statistics.median(values):.4g}, 10 % below {tenth:.4g}, 10 % above {ninetieth:.4g}"
            print_lines([(name, f"{told}, from {ordered[0]:.4g} to {ordered[-1]:.4g}")])


def _as_json(report: Report) -> dict[str, object]:
    scenario = report.scenario
    return {
        "nodes": scenario.nodes,
        "seed": scenario.seed,
        "loss": scenario.loss,
        "choice": scenario.choice,
        "agreed": report.settled,
        "rounds": report.rounds,
        "bound": report.bound,
        "seconds": report.time_ns / SECOND_NS,
        "messages": report.messages,
        "bytes_per_node": report.bytes_per_node,
        "copies": report.copies,
        **({"sites": scenario.sites, "bytes_between_sites": report.bytes_between} if scenario.sites else {}),
    }


def plotter(name: str) -> Callable[[Report], None]:
    """A function that draws a report into the file. Raises `MisuseError` for a wrong name, `CommandFailedError` for the place."""
    write = picture_writer(name)
    return lambda report: write(draw(report))


def picture_writer(name: str) -> Callable[[Picture], None]:
    """A function that writes a picture to the file. Raises `MisuseError` for a wrong name, `CommandFailedError` for the place."""
    encode = _encoding(name)
    check_place(name)
    return lambda picture: write_whole(name, encode(picture))


def _encoding(name: str) -> Callable[[Picture], bytes]:
    ending = name.lower()
    if ending.endswith(".svg"):
        return lambda picture: to_svg(picture).encode()
    if ending.endswith(".png"):
        return _png_encoding(name)
    raise MisuseError(f"--plot draws SVG or PNG: name a file that ends in .svg or .png, not {name!r}")


def _png_encoding(name: str) -> Callable[[Picture], bytes]:
    try:
        write_png = png_writer()
    except ImportError:
        needs = f"--plot {name} needs Pillow: pip install 'constraint-crdt[png]', or name a file that ends in .svg"
        raise CommandFailedError(needs) from None

    def encode(picture: Picture) -> bytes:
        file = io.BytesIO()
        write_png(picture, file)
        return file.getvalue()

    return encode


# --- plans ---------------------------------------------------------------------------------------------------------------------

_LINK = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(k|M|G)bit/([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)")
_BITS = {"k": 1e3, "M": 1e6, "G": 1e9}
_SHARE = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,9})?)%")
MOST_DELAY = 10.0
"""Seconds."""
MOST_LOSS = 0.5


def plan(arguments: argparse.Namespace) -> int:
    """Print the plan of a fleet. Raises `MisuseError` and `CommandFailedError`."""
    write = None if arguments.plot is None else picture_writer(arguments.plot)
    try:
        made = make_plan(_planned_fleet(arguments), time.process_time)
    except InvalidValue as error:
        raise MisuseError(str(error)) from None
    if arguments.json:
        print_json(_plan_as_json(made))
    else:
        _print_plan(made)
    if write is not None:
        write(draw_plan(made))
    return 0 if made.works else 1


def _planned_fleet(arguments: argparse.Namespace) -> PlannedFleet:
    nodes = parse_whole(arguments.nodes, "--nodes", 2, 10_000, 100)
    fleet = PlannedFleet(
        nodes=nodes,
        sites=parse_whole(arguments.sites, "--sites", 1, 1_000, 1),
        constraints=parse_whole(arguments.constraints, "--constraints", 1, 100_000, 100),
        changes=_rate(arguments.change_rate or "1/min", "--change-rate") / 60,
        loss=_share(arguments.loss),
        judged=parse_whole(arguments.judged, "--judged", 0, 100_000, 0),
        gossip_every=None if arguments.gossip_every is None else _time(arguments.gossip_every, "--gossip-every", 0.0) / SECOND_NS,
        routers=None if arguments.routers is None else parse_whole(arguments.routers, "--routers", 0, nodes - 1, 0),
        cores=None if arguments.cores is None else parse_whole(arguments.cores, "--cores", 1, 1_024, 1),
        seed=parse_whole(arguments.seed, "--seed", 0, 2**63 - 1, 0),
    )
    if arguments.link is None:
        return fleet
    rate, delay = _link(arguments.link)
    return replace(fleet, rate=rate, delay=delay)


def _link(text: str) -> tuple[float, float]:
    """Bytes per second, and seconds one way."""
    found = _LINK.fullmatch(text.strip())
    if found is None:
        raise MisuseError(f"--link is a rate and a delay one way, as in 256kbit/100ms or 10Mbit/0.3s, not {text!r}")
    rate, delay = float(found[1]) * _BITS[found[2]] / 8, float(found[3]) / (1000 if found[4] == "ms" else 1)
    if rate < 1 or not 0 < delay <= MOST_DELAY:
        raise MisuseError(f"--link has a rate of 8 bit/s at least, and a delay above 0 and at most {MOST_DELAY:g} s, not {text!r}")
    return rate, delay


def _share(text: str | None) -> float:
    found = _SHARE.fullmatch((text or "0%").strip())
    share = float(found[1]) / 100 if found else MOST_LOSS
    if share >= MOST_LOSS:
        raise MisuseError(f"--loss is a share of packets from 0% up to, not including, {MOST_LOSS:.0%}, as in 2%, not {text!r}")
    return share


def _print_plan(made: Plan) -> None:
    columns = [Column("figure"), Column("value", right=True), Column("source")]
    print_table(columns, [[each.what, _in_unit(each.value, each.unit), each.source] for each in made.figures])
    print()
    rows = [[each.what, _at_most(each.at, each.unit), _reserve(each.reserve)] for each in made.breaks]
    print_table([Column("what breaks first"), Column("at", right=True), Column("reserve", right=True)], rows)
    print()
    print("settings to use")
    for line in _settings(made):
        print(f"  {line}")


def _in_unit(value: float, unit: str) -> str:
    if value == math.inf:
        return "never"
    if unit in ("B", "B/s"):
        for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= factor:
                return f"{value / factor:.3g} {prefix}{unit}"
        return f"{value:.0f} {unit}"
    return f"{value:.3g} {unit}"


def _at_most(at: float, unit: str) -> str:
    return f"beyond 1,000,000 {unit}" if at == math.inf else f"{at:,.4g} {unit}" if at < 1000 else f"{at:,.0f} {unit}"


def _reserve(reserve: float) -> str:
    return "broken" if reserve < 1 else "-" if reserve == math.inf else f"{reserve:,.3g} times"


def _settings(made: Plan) -> Iterator[str]:
    """Lines to paste."""
    fleet = made.fleet
    every = f"CONSTRAINT_CRDT_GOSSIP_EVERY={made.gossip_every:g} CONSTRAINT_CRDT_REQUEST_TIMEOUT={made.request_timeout:g}"
    site = " --site SITE" if fleet.sites > 1 else ""
    if fleet.routed:
        few = (
            f"{fleet.routed} routers"
            if fleet.sites == 1
            else f"{fleet.routed} routers, {fleet.routed / fleet.sites:.3g} in each site"
        )
        yield f"# {few}, each with --connect to the others; the other nodes are clients of two of them"
        need = made["router_bytes"] + fleet.changes * fleet.nodes / fleet.routed * made["change_bytes"]
        if need > fleet.goodput and need < math.inf:
            yield f"# a router needs a faster link: it sends {8 * need / 1000:,.0f} kbit/s"
        yield f"{every} constraint-crdt node --role router --listen tcp/0.0.0.0:7447 --connect tcp/ROUTER:7447{site}"
        yield f"{every} constraint-crdt node --role client --connect tcp/ROUTER-1:7447 --connect tcp/ROUTER-2:7447{site}"
    else:
        yield f"{every} constraint-crdt node --role peer --listen tcp/0.0.0.0:7447 --connect tcp/SEED:7447{site}"


def _plan_as_json(made: Plan) -> dict[str, object]:
    def number(value: float) -> float | None:
        return None if value == math.inf else value

    return {
        "works": made.works,
        "figures": {
            each.key: {"value": number(each.value), "unit": each.unit, "source": each.source, "what": each.what}
            for each in made.figures
        },
        "breaks": [
            {"what": each.what, "at": number(each.at), "unit": each.unit, "reserve": number(each.reserve)} for each in made.breaks
        ],
        "settings": {
            "gossip_every": made.gossip_every,
            "request_timeout": made.request_timeout,
            "role": "client" if made.fleet.routed else "peer",
            "routers": made.fleet.routed,
            "lines": list(_settings(made)),
        },
        "sizes": [{"nodes": nodes, "bytes": load} for nodes, load in made.sizes],
    }


# --- search and replay of a history, and replay of a recording ------------------------------------------------------------------

BATCH = 8
"""Seeds that a process is given at a time."""

TOLD_EVERY = 2.0
"""Seconds between two lines on the progress of the search."""

MOST_BYTES = 1 << 30
"""Of a recording."""

_Part = tuple[SearchExtent, History | None]

_TEST = '''"""A recorded node, run again: it must come to the hashes recorded. Written by `constraint-crdt replay --test`."""

from pathlib import Path

from constraint_crdt.simulation.recorder import decode_frames
from constraint_crdt.simulation.recorder import Replay

RECORDING = Path(__file__).parent / {name!r}


def test_the_recording_replays_to_the_same_hashes() -> None:
    for step in Replay(decode_frames(RECORDING.read_bytes())):
        assert step.agrees, f"step {{step.number}}: {{step.said}}"
'''


# --- search and replay of a history ----------------------------------------------------------------------------------------


def search(
    *,
    first_seed: int,
    most: int | None,
    seconds: float,
    workers: int,
    signed: bool,
    as_json: bool,
    network: bool = False,
    sites: int = 0,
    budgets: bool = False,
) -> int:
    """Search for `seconds`, or `most` histories, or until an invariant breaks: 0 if none did, else 1 and a file of the history."""
    tally, found, interrupted = SearchExtent(network=network, sites=sites, budgets=budgets), None, False
    run = partial(search_seeds, signed=signed, network=network, sites=sites, budgets=budgets)
    began = told = time.monotonic()
    try:
        for part, history in _parts(first_seed, most, began + seconds, workers, run):
            tally.add(part)
            if history is not None and (found is None or history.seed < found.seed):
                found = history
            if found is not None:
                break
            if time.monotonic() - told > TOLD_EVERY:
                told = time.monotonic()
                print(f"{tally.histories} histories, {tally.events} events, no violation so far", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        interrupted = True
    elapsed = time.monotonic() - began
    if as_json:
        print_json(_frames_json(tally, found, elapsed))
    else:
        _print_tally(tally, elapsed)
    if found is not None:
        flags = [*(["--network"] if network else []), *(["--budgets"] if budgets else [])]
        _keep(found, " ".join([*flags, *([f"--sites {sites}"] if sites else [])]))
        return 1
    if interrupted:
        print("interrupted: this is what there was by then, and nothing went wrong in it", file=sys.stderr)
        return INTERRUPTED
    never = [*tally.never_fired(), *tally.never_written()]
    if never:
        print(f"{PROGRAM} simulate: never came about: {', '.join(never)}; search for longer", file=sys.stderr)
    return 1 if never else 0


def _parts(
    first_seed: int, most: int | None, end: float, workers: int, run: Callable[[int, int], _Part] = search_seeds
) -> Iterator[_Part]:
    """Batch after batch of histories, from as many processes."""
    seed, last = first_seed, None if most is None else first_seed + most
    if workers == 1:
        while time.monotonic() < end and (last is None or seed < last):
            count = 1 if last is None else min(BATCH, last - seed)
            yield run(seed, count)
            seed += count
        return
    context = multiprocessing.get_context("spawn")  # a fork of the caller might hold locks
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
        waiting: set[Future[_Part]] = set()
        try:
            while waiting or (time.monotonic() < end and (last is None or seed < last)):
                while len(waiting) < workers + 1 and time.monotonic() < end and (last is None or seed < last):
                    count = BATCH if last is None else min(BATCH, last - seed)
                    waiting.add(pool.submit(run, seed, count))
                    seed += count
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to all processes of a terminal; the first process ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep(found: History, how: str) -> None:
    """Write the history to a file, shrunk if there is time. `how`: the flags of the search."""
    name = f"chaos-{found.seed}.json"
    print(
        f"seed {found.seed} breaks an invariant after {counted(len(found.steps), 'step')}: {printable(found.sentence)}",
        file=sys.stderr,
    )
    write_whole(name, to_json(found).encode())
    try:
        found = shrink(found)
        write_whole(name, to_json(found).encode())
    except KeyboardInterrupt:
        print("interrupted: the file holds the whole history", file=sys.stderr)
    except InvalidValue:  # a bound on time, which steps do not have
        again = f"{PROGRAM} simulate --chaos {how} --seed {found.seed} --seeds 1"
        print(f"it is only seen in time, not in its steps; see it again: {again}", file=sys.stderr)
        return
    print(
        f"{counted(len(found.steps), 'step', 'is', 'are')} in {name}; see it again: {PROGRAM} simulate --replay {name}",
        file=sys.stderr,
    )


def _print_tally(tally: SearchExtent, elapsed: float) -> None:
    rate = tally.histories / elapsed if elapsed else 0.0
    print_lines(
        [
            ("histories", f"{tally.histories} ({rate:.1f} a second)"),
            ("mutations", tally.operations),
            ("events", tally.events),
            ("checks", f"{tally.checks} states compared with the log"),
        ]
    )
    for what, happened in (("faults", tally.fired), ("writes", tally.written)):
        print_lines([(what, ", ".join(f"{kind} {times}" for kind, times in sorted(happened.items())))])


def _frames_json(tally: SearchExtent, found: History | None, elapsed: float) -> dict[str, object]:
    return {
        "histories": tally.histories,
        "seconds": elapsed,
        "mutations": tally.operations,
        "events": tally.events,
        "checks": tally.checks,
        "faults": dict(sorted(tally.fired.items())),
        "never_fired": tally.never_fired(),
        "writes": dict(sorted(tally.written.items())),
        "never_written": tally.never_written(),
        "violation": None if found is None else {"seed": found.seed, "invariant": found.invariant, "sentence": found.sentence},
    }


def replay_file(name: str, *, as_json: bool) -> int:
    """Run a history again, step by step: 1 if it breaks an invariant again, else 0."""
    try:
        history = from_json(read_whole(name, FILE_BYTES))
    except ConstraintCrdtError as error:
        raise MisuseError(f"{name}: {error}") from None
    violation = histories.replay(history.members, history.steps, paced=history.paced)
    if as_json:
        print_json({"steps": len(history.steps), "violation": None if violation is None else str(violation)})
        return 0 if violation is None else 1
    for step in history.steps:
        print(printable(step))
    print(printable(violation) if violation is not None else f"all is well now; it was: {printable(history.sentence)}")
    return 0 if violation is None else 1


# --- replay of a recording -------------------------------------------------------------------------------------------------


def replay(arguments: argparse.Namespace) -> int:
    """Run a recording again, or compare two."""
    if len(arguments.files) > 2:
        raise MisuseError("replay takes one recording, or two to compare")
    recordings = [_read_recording(Path(name)) for name in arguments.files]
    try:
        outcomes = [_run_again(Path(name), frames, arguments) for name, frames in zip(arguments.files, recordings, strict=True)]
        difference = first_difference(*recordings) if len(recordings) == 2 else None
    except ConstraintCrdtError as error:
        raise CommandFailedError(f"a recording cannot be run again: {error}") from None
    if arguments.test is not None:
        _write_test(Path(arguments.files[0]), Path(arguments.test))
    if arguments.json:
        parted = difference and {"steps": list(difference.steps), "time": difference.time, "cells": list(difference.cells)}
        print_json({"recordings": outcomes, "difference": parted})
    elif len(recordings) == 2:
        if difference is None:
            print("the two never had equal clocks and different states")
        else:
            print(f"first differed at {_at(difference.time)}, after step {difference.steps[0]} and step {difference.steps[1]}:")
            print(printable("\n".join(difference.cells)).replace("\\n", "\n"))
    return int(difference is not None or any(each.differs_at is not None for each in outcomes))


def _read_recording(path: Path) -> list[Frame]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise CommandFailedError(f"{path} has more than {MOST_BYTES} bytes: no node records so much")
        return decode_frames(path.read_bytes())
    except OSError as error:
        raise MisuseError(f"cannot read {path}: {error.strerror or error}") from None
    except ConstraintCrdtError as error:
        raise CommandFailedError(f"cannot replay {path}: {error}") from None


class ReplayOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a replay. Times in ns since the epoch."""

    file: str
    node: str
    inputs: int
    steps: int
    begins: int = msgspec.field(name="from")
    ends: int = msgspec.field(name="to")
    hash: str
    """Of the state at the end, hex."""
    constraints: int
    differs_at: int | None
    """The step with the first state that differs from the recorded state; None if all agree."""


def _run_again(path: Path, frames: Sequence[Frame], arguments: argparse.Namespace) -> ReplayOutcome:
    again, differs_at, last = Replay(frames), None, 0
    for step in again:
        last = step.number
        if arguments.steps and not arguments.json:
            _print_step(step, again)
        if not step.agrees:
            differs_at = step.number
            break
        if arguments.until is not None and step.number >= arguments.until:
            break
    node = again.node
    outcome = ReplayOutcome(
        file=str(path),
        node=node.node_id,
        inputs=len(again),
        steps=last,
        begins=frames[0].time,
        ends=frames[last - 1].time,
        hash=node.state_hash.hex(),
        constraints=len(node.state.constraints),
        differs_at=differs_at,
    )
    if not arguments.json:
        verdict = "as recorded" if differs_at is None else f"DIFFERS from what was recorded, first at step {differs_at}"
        print_lines(
            [
                ("node", f"{node.node_id}, {path}"),
                ("steps", f"{last} of {len(again)}, {_at(outcome.begins)} to {_at(outcome.ends)}"),
                ("state", f"{node.state_hash}, {counted(outcome.constraints, 'constraint')}"),
                ("replay", verdict),
            ]
        )
    return outcome


def _print_step(step: ReplayedInput, again: Replay) -> None:
    mark = "" if step.agrees else "  <- another state than was recorded"
    print(printable(f"{step.number:>6} {_at(step.frame.time)} {again.node.state_hash} {step.said}{mark}"))


def _write_test(recording: Path, test: Path) -> None:
    if test.suffix != ".py" or not test.name.startswith("test_"):
        raise CommandFailedError(f"--test {test}: give a file that pytest finds, test_SOMETHING.py")
    kept = test.with_suffix(".recording")
    try:
        shutil.copyfile(recording, kept)
        test.write_text(_TEST.format(name=kept.name), encoding="utf-8")
    except (OSError, shutil.SameFileError) as error:
        raise CommandFailedError(f"cannot write the test {test}: {error}") from None


def _at(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(sep=" ", timespec="milliseconds")
