"""The parts of a definition that requests name as well: its severity."""

import enum


class Severity(enum.StrEnum):
    """How much a violation matters to people; it changes nothing in how a constraint is evaluated."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
