"""The log of a node in virtual time: what repeats is bounded, counted, and hides nothing that is rare."""

import io
import logging
import re
from random import Random

import pytest

from constraint_crdt.cli.output import (
    BURST_BYTES,
    COUNT_SECONDS,
    HOUR,
    HOUR_BYTES,
    KIND_LINES,
    KIND_SECONDS,
    KINDS,
    LOOK_SECONDS,
    BoundedHandler,
    LineFormatter,
    LogBudget,
)

MOST_AN_HOUR = 200_000
"""Bytes, in any fault."""


class Log:
    """A handler on a clock of its own, and what it wrote."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stream = io.StringIO()
        self.handler = BoundedHandler(self.stream, lambda: self.now)
        self.handler.setFormatter(LineFormatter())

    def tell(self, message: str, line: int = 1, *, kind: str | None = None) -> None:
        record = logging.LogRecord("node", logging.INFO, "file.py", line, "%s", (message,), None)
        if kind is not None:
            record.kind = kind
        self.handler.handle(record)

    @property
    def lines(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.stream.getvalue().splitlines()]


def test_a_kind_that_repeats_is_bounded_and_the_next_line_has_the_count() -> None:
    log = Log()
    for number in range(KIND_LINES + 30):
        log.tell(f"peer {number} came")
    assert log.lines == [f"info peer {number} came" for number in range(KIND_LINES)]
    log.now += KIND_SECONDS
    log.tell("peer 7 came")
    assert log.lines[-1] == "info peer 7 came (30 lines like this left out before)"
    log.tell("left out")
    log.now += KIND_SECONDS
    log.tell("shown")
    assert log.lines[-1] == "info shown (1 line like this left out before)"


def test_kinds_have_budgets_of_their_own() -> None:
    log = Log()
    for _ in range(KIND_LINES + 30):
        log.tell("a violated", kind="violated")
    log.tell("a satisfied", kind="satisfied")
    log.tell("another statement", line=2)
    assert log.lines[KIND_LINES:] == ["info a satisfied", "info another statement"]


def test_lines_that_do_not_come_again_are_counted_in_the_end() -> None:
    log = Log()
    for number in range(KIND_LINES + 30):
        log.tell(f"peer {number} came")
    log.now += COUNT_SECONDS - 1
    log.tell("something else", line=2)
    assert log.lines[-1] == "info something else"
    log.now += LOOK_SECONDS
    log.tell("something else", line=2)
    first, _, example = log.lines[-2].partition(" like: ")
    assert first == "info left out 30 lines"
    assert example.partition(" ")[2] == f"info peer {KIND_LINES} came"
    log.tell("something else", line=2)
    assert log.lines[-1] == "info something else", "it is told once"


@pytest.mark.long
def test_an_hour_of_any_noise_stays_within_the_bound_and_what_is_rare_is_shown() -> None:
    log, random = Log(), Random(5)
    began = log.now
    while log.now - began < HOUR:
        log.now += random.expovariate(2)
        log.tell("x" * random.randint(20, 400), line=random.randint(2, 60))
    size = len(log.stream.getvalue())
    assert HOUR_BYTES <= size <= MOST_AN_HOUR
    log.tell("the disk is full")
    assert log.lines[-1] == "info the disk is full"
    counted = sum(int(each.replace(",", "")) for each in re.findall(r"([\d,]+) lines? like", log.stream.getvalue()))
    assert counted > 5_000
    before, began = size, log.now
    while log.now - began < HOUR:
        log.now += 0.5
        log.tell("x" * 200, line=random.randint(2, 60))
    assert len(log.stream.getvalue()) - before <= MOST_AN_HOUR - BURST_BYTES, "the next hour begins without a burst"


@pytest.mark.slow
def test_one_kind_alone_has_a_small_part_of_the_whole() -> None:
    log = Log()
    for _ in range(7_200):
        log.now += 0.5
        log.tell("edge does not answer (edge did not answer within 2 s); asking it again in 10.0 s")
    assert len(log.stream.getvalue()) < 25_000


def test_the_kinds_it_knows_are_bounded() -> None:
    budget = LogBudget()
    for number in range(KINDS + 50):
        budget.admit(number, "line", float(number))
    assert len(budget._kinds) == KINDS
