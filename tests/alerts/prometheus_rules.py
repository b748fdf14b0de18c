"""Rules of ten kinds that public Prometheus rule files have, written anew in both languages, each with a history and the minutes at
which it fires.

The kinds are those of the alerts for the node exporter: space left, memory, processors, temperature, clocks, batteries, network
errors, load, file descriptors, units. Samples and evaluations come each minute. Values are chosen so that no case depends on what
the two do differently on purpose (docs/explanation/constraints.md): Prometheus counts a value that is gone as good.

A window of Prometheus 2 includes its left end, and one of this package does not: `duration("2m1ms")` has the samples of `[2m]`.
"""

from collections.abc import Mapping
from typing import NamedTuple


class PublicRule(NamedTuple):
    """A rule in both languages."""

    name: str
    expr: str
    """Of Prometheus: true while something is wrong."""
    when: str
    """Of this package: true while all is well."""
    for_: str
    series: Mapping[str, str]
    """promtool's notation, by name of Prometheus; the variables have the same names."""
    firing: tuple[tuple[int, int], ...]
    """The minutes at which it fires, from and to."""
    minutes: int
    """The length of the history."""
    keep: str = ""
    """`keep_firing_for`, and `clear_after`."""


RULES = (
    PublicRule(
        "FilesystemAlmostOutOfSpace",
        "fs_avail_bytes / fs_size_bytes * 100 < 5 and fs_readonly == 0",
        "fs_avail_bytes / fs_size_bytes * 100.0 >= 5.0 || fs_readonly != 0.0",
        "30m",
        {"fs_avail_bytes": "10-1x5 4x40 8x20", "fs_size_bytes": "100x70", "fs_readonly": "0x70"},
        ((36, 46),),
        66,
    ),
    PublicRule(
        "MemoryHighUtilization",
        "100 - mem_available_bytes / mem_total_bytes * 100 > 90",
        "100.0 - mem_available_bytes / mem_total_bytes * 100.0 <= 90.0",
        "15m",
        {"mem_available_bytes": "64x4 3x9 12 4x29 20x9", "mem_total_bytes": "64x60"},
        ((31, 45),),
        55,
    ),
    PublicRule(
        "CPUHighUsage",
        "(1 - rate(cpu_idle_seconds[2m])) * 100 > 90",
        '(1.0 - rate("cpu_idle_seconds", duration("2m1ms"))) * 100.0 <= 90.0',
        "15m",
        {"cpu_idle_seconds": "1000+50x10 1501+1x29 1580+50x10"},
        ((27, 40),),
        50,
    ),
    PublicRule(
        "TemperatureCritical",
        "hwmon_temp_celsius > 80",
        "hwmon_temp_celsius <= 80.0",
        "5m",
        {"hwmon_temp_celsius": "60+4x4 85 85 _ 88 88 90 90 79 79 86 70x20"},
        ((10, 19),),
        34,
        keep="5m",
    ),
    PublicRule(
        "ClockSkewDetected",
        "(clock_offset_seconds > 0.05 and deriv(clock_offset_seconds[5m]) >= 0)"
        " or (clock_offset_seconds < -0.05 and deriv(clock_offset_seconds[5m]) <= 0)",
        '!((clock_offset_seconds > 0.05 && delta("clock_offset_seconds", duration("5m1ms")) >= 0.0)'
        ' || (clock_offset_seconds < -0.05 && delta("clock_offset_seconds", duration("5m1ms")) <= 0.0))',
        "10m",
        {"clock_offset_seconds": "0.01x9 0.02+0.01x19 0.2-0.01x10"},
        ((24, 31),),
        40,
    ),
    PublicRule(
        "BatteryLow",
        "battery_capacity_percent < 15 and battery_charging == 0",
        "battery_capacity_percent >= 15.0 || battery_charging != 0.0",
        "2m",
        {"battery_capacity_percent": "20-1x12 9x5 12+3x5", "battery_charging": "0x14 1x9"},
        ((8, 14),),
        23,
    ),
    PublicRule(
        "NetworkReceiveErrs",
        "rate(net_receive_errs[2m]) / rate(net_receive_packets[2m]) > 0.01",
        'rate("net_receive_errs", duration("2m1ms")) / rate("net_receive_packets", duration("2m1ms")) <= 0.01',
        "1h",
        {"net_receive_errs": "5000x10 5500+500x79 45000x20", "net_receive_packets": "900000+6000x110"},
        ((71, 91),),
        108,
    ),
    PublicRule(
        "ClockNotSynchronising",
        "min_over_time(timex_sync_status[5m]) == 0 and timex_maxerror_seconds >= 16",
        'min_over("timex_sync_status", duration("5m1ms")) != 0.0 || timex_maxerror_seconds < 16.0',
        "10m",
        {"timex_sync_status": "1x9 0x14 1x20", "timex_maxerror_seconds": "0.1x11 16x32"},
        ((22, 29),),
        43,
    ),
    PublicRule(
        "SystemSaturation",
        "node_load1 / node_cpus > 2",
        "node_load1 / node_cpus <= 2.0",
        "15m",
        {"node_load1": "4x3 9x13 8 9x19 3x9", "node_cpus": "4x50"},
        ((34, 38),),
        48,
    ),
    PublicRule(
        "SystemdServiceFailed",
        "systemd_unit_failed == 1",
        "systemd_unit_failed != 1.0",
        "5m",
        {"systemd_unit_failed": "0x2 1x2 _ _ 1x6 0 1x2 0x5 1x9"},
        ((8, 14), (30, 32)),
        32,
    ),
)
