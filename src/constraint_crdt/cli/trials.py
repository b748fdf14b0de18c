"""Rules on trial, without any node: `test` runs cases of series and expectations, in virtual time.

Rule files are those that `apply` reads, with `[[alert]]` as in the settings of a node beside. Files of cases are TOML, or YAML
where PyYAML is installed (extra `yaml`). Exit codes: 0 all as expected, 1 not, 2 a mistake in a file, which is a sentence with its
place.
"""

import argparse
import contextlib
import importlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from constraint_crdt.alerts import AlertRule, check_rules, read_rules
from constraint_crdt.cli.files import STANDARD, WantedConstraint, check_place, read_toml, read_wanted, read_whole, write_whole
from constraint_crdt.cli.output import CommandFailedError, MisuseError, print_json, printable
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.runtime.rule_tests import EPOCH, CaseFile, CaseResult, Rules, RuleTestError, junit, read_cases, run_test
from constraint_crdt.types.definition import Definition

MAX_CASE_BYTES = 16 * 1024 * 1024
"""The longest file of cases, in bytes."""

ALERT = frozenset({"alert"})


def test(arguments: argparse.Namespace) -> int:
    """Run the cases of files. Raises `MisuseError` for the first mistake in one."""
    if arguments.junit is not None:
        check_place(arguments.junit)
    with _silence():
        results = {file: _run_file(file) for file in arguments.files}
    if arguments.junit is not None:
        write_whole(arguments.junit, junit(results).encode())
    if arguments.json:
        print_json([_as_json(file, each) for file, cases in results.items() for each in cases])
    else:
        _print(results)
    return 1 if any(each.mismatches for cases in results.values() for each in cases) else 0


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Nodes in virtual time log nothing: what they would say is not so."""
    log = logging.getLogger("constraint_crdt")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def _run_file(name: str) -> list[CaseResult]:
    file = _read_case_file(name)
    base = Path() if name == STANDARD else Path(name).parent
    rules = read_rule_files([each if each == STANDARD else str(base / each) for each in file.rule_files], EPOCH)
    results = []
    for number, case in enumerate(file.test, 1):
        shown = case.name or f"test {number}"
        place = f"test {number}" + (f" ({case.name})" if case.name else "")
        began = time.perf_counter()
        try:
            mismatches = run_test(file, case, rules)
        except ConstraintCrdtError as error:
            raise MisuseError(printable(f"{name}: {place}: {error}")) from None
        results.append(CaseResult(shown, mismatches, time.perf_counter() - began))
    return results


def _read_case_file(name: str) -> CaseFile:
    content = _read_yaml(name) if name.lower().endswith((".yml", ".yaml")) else read_toml(name)[1]
    try:
        return read_cases(content)
    except RuleTestError as error:
        raise MisuseError(printable(f"{name}: {error}")) from None


def _read_yaml(name: str) -> object:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        needs = f"{name} is YAML, which needs PyYAML: pip install 'constraint-crdt[yaml]', or write the cases in TOML"
        raise CommandFailedError(needs) from None
    try:
        return yaml.safe_load(read_whole(name, MAX_CASE_BYTES))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        why = getattr(error, "problem", None) or "it cannot be read"
        raise MisuseError(printable(f"{name} is not YAML{place}: {why}")) from None


def read_rule_files(names: Sequence[str], epoch: int) -> Rules:
    """The constraints and alert rules of files, together. `epoch`: the time at which a `ttl` begins, in ns since the epoch.

    Raises `MisuseError` with a line for each mistake in a file, and for an id or an alert that two files have.
    """
    constraints: dict[str, Definition] = {}
    alerts: list[AlertRule] = []
    for name in names:
        wanted, _ = read_wanted(name, ALERT)
        for id_, each in wanted.items():
            if id_ in constraints:
                raise MisuseError(printable(f"{name}: {each.place}: another rule file has a constraint of this id"))
            constraints[id_] = _from(each, epoch)
        try:
            alerts += read_rules(read_toml(name)[1].get("alert", []))
            check_rules(tuple(alerts))
        except ConstraintCrdtError as error:
            raise MisuseError(printable(f"{name}: {error}")) from None
    return Rules(constraints, alerts)


def _from(wanted: WantedConstraint, epoch: int) -> Definition:
    """The definition, with a `ttl` that begins at this time."""
    if wanted.ttl is None:
        return wanted.definition
    return wanted.definition._replace(expires_at=epoch + round(wanted.ttl * SECOND))


def _as_json(file: str, result: CaseResult) -> dict[str, object]:
    return {
        "file": file,
        "test": result.name,
        "passed": not result.mismatches,
        "mismatches": [each._asdict() for each in result.mismatches],
        "seconds": round(result.seconds, 3),
    }


def _print(results: dict[str, list[CaseResult]]) -> None:
    failed = 0
    for file, cases in results.items():
        for each in cases:
            if each.mismatches:
                failed += 1
                print(printable(f"FAILED {file}: {each.name}"))
                for mismatch in each.mismatches:
                    for line in str(mismatch).splitlines():
                        print(f"  {printable(line)}")
    count = sum(map(len, results.values()))
    tests = "1 test" if count == 1 else f"{count} tests"
    sys.stdout.flush()
    print(f"{tests}: {'all as expected' if not failed else f'{failed} failed'}")
