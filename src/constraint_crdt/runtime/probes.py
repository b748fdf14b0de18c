"""Probes: sources of measurements that the node reads by itself.

A probe is any object with a `name` and a `read()`. Packages install more of them as entry points of the group
`constraint_crdt.probes`, each a callable without arguments that makes one; `--probe NAME` picks it.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.runtime.evaluation import Measurements

ENTRY_POINTS = "constraint_crdt.probes"

_log = logging.getLogger("constraint_crdt.node")


@runtime_checkable
class Probe(Protocol):
    """A source of measurements."""

    @property
    def name(self) -> str:
        """The name in logs and settings."""

    def read(self) -> Mapping[str, object]:
        """The values now, by variable. Called in a thread, never twice at once. An exception is logged."""


class SystemProbe:
    """The host: `cpu_percent`, `memory_percent`, `swap_percent`, `disk_percent` (of /), `load_1m`, `load_5m`, `process_count`,
    and where the host has sensors `temp_c`, the highest of them, and `battery_percent`.
    """

    name = "system"

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        psutil.cpu_percent()  # the first call has nothing to compare with

    def __repr__(self) -> str:
        return "SystemProbe()"

    def read(self) -> dict[str, object]:
        """The values of the host now."""
        psutil = self._psutil
        one, five, _ = psutil.getloadavg()
        values: dict[str, object] = {
            "cpu_percent": psutil.cpu_percent(),
            "memory_percent": psutil.virtual_memory().percent,
            "swap_percent": psutil.swap_memory().percent,
            "disk_percent": psutil.disk_usage("/").percent,
            "load_1m": one,
            "load_5m": five,
            "process_count": len(psutil.pids()),
        }
        values |= self._sensors()
        return values

    def _sensors(self) -> dict[str, object]:
        psutil, values = self._psutil, {}
        read_temperatures = getattr(psutil, "sensors_temperatures", None)  # not on every platform
        temperatures = [each.current for group in (read_temperatures() if read_temperatures else {}).values() for each in group]
        if temperatures:
            values["temp_c"] = max(temperatures)
        read_battery = getattr(psutil, "sensors_battery", None)
        battery = read_battery() if read_battery else None
        if battery is not None:
            values["battery_percent"] = battery.percent
        return values


class ProbeReader:
    """Reads a probe at regular intervals."""

    def __init__(self, probe: Probe, measurements: Measurements, every: float) -> None:
        """`every`: seconds between two readings."""
        self._probe = probe
        self._measurements = measurements
        self._every = every
        self.name = probe.name

    async def run(self) -> None:
        """Take in the values of the probe. Never returns."""
        while True:
            try:
                values = await asyncio.to_thread(self._probe.read)
                self._measurements.put(values, time.monotonic_ns())
            except Exception as error:
                _log.warning("probe %s failed: %s", self.name, error)
            await asyncio.sleep(self._every)


def find_probe(name: str) -> Probe:
    """The probe of that name: `system`, or one that an installed package offers.

    Raises `ConstraintCrdtError` if there is none, or it cannot be made.
    """
    if name == SystemProbe.name:
        return SystemProbe()
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in offered:
        raise ConstraintCrdtError(f"there is no probe {name!r}: choose from {', '.join(['none', 'system', *sorted(offered)])}")
    try:
        probe = offered[name].load()()
    except Exception as error:
        raise ConstraintCrdtError(f"the probe {name!r} cannot be started: {error}") from error
    if not isinstance(probe, Probe):
        raise ConstraintCrdtError(f"the probe {name!r} has no name and read()")
    return probe
