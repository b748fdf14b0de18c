"""The commands that examine constraints without evaluating them on measurements: lint.

They need no node: `lint` reads files of `apply`. Without a file it asks a node for its constraints and its variables.
"""

import argparse
import math
from collections.abc import Sequence

from constraint_crdt.cli.connection import connect
from constraint_crdt.cli.files import definition_of, read_constraints
from constraint_crdt.cli.output import MisuseError, present, printable
from constraint_crdt.expression.analysis import Fault, Finding, Range, Rule
from constraint_crdt.expression.analysis import lint as find_faults
from constraint_crdt.model import counted

NOTES = frozenset({Fault.UNDECIDED})
"""Findings that are no fault of the constraints."""


def lint(arguments: argparse.Namespace) -> int:
    """Find faults of a set of constraints. Exit code 1 if there are any."""
    ranges = dict(map(_read_range, arguments.range))
    rules, kinds = _rules_of_files(arguments.files) if arguments.files else _rules_of_node(arguments)
    findings = find_faults(rules, ranges=ranges, kinds=kinds, measured=kinds)
    answer = {"constraints": len(rules), "findings": [each._asdict() for each in findings]}
    present(answer, None if arguments.json else show_findings(len(rules), findings))
    return int(any(each.fault not in NOTES for each in findings))


def show_findings(count: int, findings: Sequence[Finding]) -> list[str]:
    """A line for each finding, and a summary."""
    faults = sum(each.fault not in NOTES for each in findings)
    notes = f", {len(findings) - faults} not decided" if len(findings) > faults else ""
    summary = f"{counted(count, 'constraint')}: {counted(faults, 'fault') if faults else 'no faults'}{notes}"
    return [*(f"{each.fault}: {', '.join(each.ids)}: {each.text}" for each in findings), summary]


def _read_range(text: str) -> tuple[str, Range]:
    name, _, bounds = text.partition("=")
    low, separator, high = bounds.partition("..")
    try:
        found = float(low), float(high)
    except ValueError:
        found = math.nan, math.nan
    if not (name and separator and found[0] <= found[1] and all(map(math.isfinite, found))):
        raise MisuseError(f"--range takes a variable with its lowest and highest value, as in percent=0..100, not {text!r}")
    return name, found


def _rules_of_files(files: Sequence[str]) -> tuple[list[Rule], dict[str, str]]:
    rules: dict[str, Rule] = {}
    for file in files:
        for id_, wanted in read_constraints(file).items():
            if id_ in rules:
                raise MisuseError(printable(f"{file}: {wanted.place}: the id is in a file before"))
            rules[id_] = Rule(id_, wanted.definition)
    return list(rules.values()), {}


def _rules_of_node(arguments: argparse.Namespace) -> tuple[list[Rule], dict[str, str]]:
    """The constraints of a node, each definition of a conflict for itself, and the kinds of the variables of the fleet."""
    client = connect(arguments)
    rules = [Rule(report.id, definition_of(each)) for report in client.constraints() for each in report.definitions]
    return rules, {each.name: each.kind for each in client.variables()}
