"""`simulate`: a fleet in virtual time. By its flags it runs scenarios, or a task of `replay`: a search, a replay.

Exit codes: 0 the fleet settled, 1 it did not, an invariant broke, or a file cannot be written, 130 interrupted. An interrupted run
prints its results so far.

The ending of the file of `--plot` decides: SVG or PNG. Rules: a mistake in the name, a place that cannot be written, or a missing
library is reported before the fleet runs. Pillow is imported for a PNG only.
"""

import argparse
import io
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from constraint_crdt.cli.files import check_place, write_whole
from constraint_crdt.cli.output import INTERRUPTED, CommandFailedError, MisuseError, print_json, print_lines
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.command import UsageError, parse_duration
from constraint_crdt.simulation.plot import Picture, draw, png_writer, to_svg
from constraint_crdt.simulation.scenario import LONGEST_NS, SECOND_NS, Report, Scenario, ScenarioRun

MOST_SEEDS = 1_000_000
MOST_WORKERS = 256

_SCENARIO_FLAGS = ("nodes", "items", "loss", "latency", "partition", "churn", "choice", "plot")
_SEARCH_FLAGS = ("minutes", "workers")
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)/(s|min|h)")
_PER_MINUTE = {"s": 60.0, "min": 1.0, "h": 1 / 60}


def simulate(arguments: argparse.Namespace) -> int:
    """Run scenarios, search or replay, by the flags. Raises `CommandFailedError`."""
    given = vars(arguments)
    if arguments.replay is not None:
        _refuse(given, (*_SCENARIO_FLAGS, *_SEARCH_FLAGS, "seed", "seeds"), "--replay runs one history as it is")
        if arguments.chaos or arguments.signed:
            raise MisuseError("--replay runs one history as it is, and --chaos searches for some: give one of the two")
        from constraint_crdt.cli.replay import replay_file

        return replay_file(arguments.replay, as_json=arguments.json)
    seed = parse_whole(arguments.seed, "--seed", 0, 2**63 - 1, 0)
    if arguments.chaos:
        _refuse(given, _SCENARIO_FLAGS, "--chaos draws the fleet and its faults from the seed")
        from constraint_crdt.cli.replay import search

        return search(
            first_seed=seed,
            most=None if arguments.seeds is None else parse_whole(arguments.seeds, "--seeds", 1, MOST_SEEDS, 1),
            seconds=60 * parse_number(arguments.minutes, "--minutes", 1.0, above=0.0, most=100_000.0),
            workers=parse_whole(arguments.workers, "--workers", 1, MOST_WORKERS, 1),
            signed=arguments.signed,
            as_json=arguments.json,
        )
    _refuse(given, _SEARCH_FLAGS, "only a search with --chaos takes it")
    if arguments.signed:
        raise MisuseError("only a search with --chaos takes it: leave out --signed")
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
            raise MisuseError(f"{why}: leave out --{flag}")


def _scenario(arguments: argparse.Namespace, seed: int) -> Scenario:
    nodes = parse_whole(arguments.nodes, "--nodes", 2, 10_000, 100)
    scenario = Scenario(
        nodes=nodes,
        seed=seed,
        items=None if arguments.items is None else parse_whole(arguments.items, "--items", 1, nodes, nodes),
        loss=_loss(arguments.loss),
        latency_ns=_time(arguments.latency, "--latency", 0.02),
        partition_ns=0 if arguments.partition is None else _time(arguments.partition, "--partition", 0.0),
        churn_per_minute=_rate(arguments.churn),
        choice=arguments.choice or "uniform",
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


def _rate(text: str | None) -> float:
    if text is None:
        return 0.0
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise MisuseError(f"--churn is a rate, as in 5/min, 0.1/s or 100/h, not {text!r}")
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
        ("fleet", f"{scenario.nodes} nodes, {100 * scenario.loss:.10g}% loss, peers {scenario.choice}, seed {scenario.seed}"),
        ("agreed", "yes" if report.settled else f"no: {states} different states"),
        ("rounds", f"{rounds}; bound {report.bound}, for aligned rounds in which nothing is lost"),
        ("time", f"{report.time_ns / SECOND_NS:.2f} s, virtual"),
        ("messages", report.messages),
        ("bytes", f"{report.bytes_per_node:.0f} per node"),
        ("copies", f"{report.copies:.3f} of each item received"),
    ]
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
    }


def plotter(name: str) -> Callable[[Report], None]:
    """A function that draws a report into the file. Raises `MisuseError` for a wrong name, `CommandFailedError` for the place."""
    encode = _encoding(name)
    check_place(name)
    return lambda report: write_whole(name, encode(draw(report)))


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
