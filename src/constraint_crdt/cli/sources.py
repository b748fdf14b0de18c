"""The command `source try`: read the sources of a settings file without a node, and show what they say."""

import argparse
import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from constraint_crdt.cli.output import CommandFailedError, MisuseError, print_json, print_view
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.command import Column, Lines, Table, parse_duration
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, load_settings
from constraint_crdt.sources import KINDS, SourceSettings
from constraint_crdt.sources.reader import SourceReader, reader_of

FOR = "5s"
"""How long the sources are read, by default."""

LONGEST = 3600.0

LOOK_EVERY = 0.05


class Trial:
    """A source that is tried, and the values that it gave."""

    def __init__(self, settings: SourceSettings, transport: object) -> None:
        self.settings = settings
        self.values: dict[str, object] = {}
        self.reader = SourceReader(settings, self.measure, partial(reader_of, settings, transport))

    async def measure(
        self,
        values: Mapping[str, object],
        source: str,  # noqa: ARG002 - the only one
        *,
        reasons: Mapping[str, str | None],  # noqa: ARG002 - the reader has them
        max_age: float,  # noqa: ARG002 - a trial is short
    ) -> None:
        """Keep the values."""
        for name, value in values.items():
            if value is None:
                self.values.pop(name, None)
            else:
                self.values[name] = value

    @property
    def is_over(self) -> bool:
        """The source has said all that it will for now: one that sends by itself may say more."""
        is_asked = KINDS[self.settings.kind].every >= 1
        has_rate = any(field.rate for field in self.settings.fields.values())
        return is_asked and not has_rate and (self.reader.trouble is not None or self.reader.values > 0)

    def report(self) -> dict[str, object]:
        """What the source gave."""
        reader = self.reader
        silent = None if reader.intake.messages or reader.trouble else "nothing came"
        return {
            "source": self.settings.name,
            "kind": self.settings.kind,
            "trouble": reader.trouble or silent,
            "messages": reader.intake.messages,
            "dropped": reader.dropped,
            "values": {name: self.values[name] for name in sorted(self.values)},
            "unknown": {name: reader.unknown[name] for name in sorted(reader.unknown)},
        }


def try_sources(arguments: argparse.Namespace) -> int:
    """`source try`: exit code 1 if a source gives nothing.

    Raises `MisuseError` for settings that cannot be used, or have no source of that name.
    """
    settings = _read(arguments.file)
    chosen = [each for each in settings.source if arguments.name in (None, each.name)]
    if not chosen:
        there = ", ".join(each.name for each in settings.source)
        raise MisuseError(
            f"{arguments.file} has no source {arguments.name!r}: there is {there}"
            if there
            else f"{arguments.file} has no [[source]]"
        )
    try:
        seconds = parse_duration(arguments.for_)
    except ConstraintCrdtError as error:
        raise MisuseError(str(error)) from None
    if not 0 < seconds <= LONGEST:
        raise MisuseError(f"--for takes up to {LONGEST:.0f}s, not {arguments.for_}")
    log = logging.getLogger("constraint_crdt")
    level = log.level
    log.setLevel(logging.CRITICAL)  # the answer says it
    try:
        reports = asyncio.run(_try(chosen, settings, seconds))
    except ConstraintCrdtError as error:
        raise CommandFailedError(str(error)) from None
    finally:
        log.setLevel(level)
    if arguments.json:
        print_json(reports)
    else:
        print_view(list(_show(reports)))
    return int(any(report["trouble"] for report in reports))


def _read(file: str) -> NodeSettings:
    try:
        return load_settings({}, {}, Path(file))
    except SettingsError as error:
        raise MisuseError(str(error)) from None


async def _try(chosen: Iterable[SourceSettings], settings: NodeSettings, seconds: float) -> list[dict[str, object]]:
    trials = [Trial(each, settings) for each in chosen]
    tasks = [asyncio.create_task(trial.reader.run()) for trial in trials]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not all(trial.is_over for trial in trials):  # noqa: ASYNC110 - a moment
                await asyncio.sleep(LOOK_EVERY)
    reports = [trial.report() for trial in trials]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return reports


def _show(reports: Iterable[Mapping[str, object]]) -> Iterable[str | Table | Lines]:
    for report in reports:
        values, unknown = report["values"], report["unknown"]
        head = f"{report['source']} ({report['kind']}): {report['messages']} messages, {report['dropped']} values dropped"
        yield f"{head}; down: {report['trouble']}" if report["trouble"] else head
        if isinstance(values, dict) and isinstance(unknown, dict) and (values or unknown):
            rows = [[name, _shown(value)] for name, value in values.items()]
            rows += [[name, f"unknown: {why}"] for name, why in unknown.items()]
            yield Table([Column("variable"), Column("value")], rows)


def _shown(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
