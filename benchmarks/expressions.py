"""Expressions: CPU time of evaluation and compilation, CPU and memory of the first; beside the library of 0.1.0 if installed.

    python benchmarks/expressions.py [--json] [--check]

`common-expression-language` (module `cel`) is compared if it is installed: the same text and values, as 0.1.0 called it.
"""

import contextlib
import subprocess
import sys

from report import Row, cpu, run

from constraint_crdt.expression import compile_expression, measurements

SOURCE = "speed_mps <= 1.5 && distance_m > 0.5"
LIBRARY = "speed_mps in [0.5, 1.0] && distance_m > 0.5"
"""An expression that the library evaluates; `SOURCE` is made of comparisons."""
COMPILED = (
    ("compilation, comparisons, with the check", "speed_mps <= {}.5 && distance_m > 0.5", True, 50),
    ("compilation by the library", "speed_mps in [{}.5] && distance_m > 0.5", False, 1000),
    ("compilation by the library, with the check", "speed_mps in [{}.25] && distance_m > 0.5", True, 2000),
)
VALUES = {"speed_mps": 1.0, "distance_m": 2.0}
EVALUATIONS = 20_000
COMPILATIONS = 300
FIRST = """
import psutil, time
import constraint_crdt.expression
begun, before = time.process_time(), psutil.Process().memory_info().rss
{code}
print(time.process_time() - begun, (psutil.Process().memory_info().rss - before) / 1e6)
"""


def first(code: str) -> tuple[float, float]:
    """CPU seconds and MB of the first expression, in a process of its own; the best of three."""
    runs = [
        subprocess.run([sys.executable, "-c", FIRST.format(code=code)], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    return min(float(seconds) for seconds, _ in runs), min(float(mb) for _, mb in runs)


def rows() -> list[Row]:
    """The table."""
    prepared = measurements(VALUES)
    partial = measurements({"speed_mps": 1.0})
    each = 1e6 / EVALUATIONS

    def compiled(text: str, *, checked: bool) -> None:
        for number in range(COMPILATIONS):
            compile_expression(text.format(number), checked=checked)

    seconds, mb = first(f"constraint_crdt.expression.compile_expression({LIBRARY!r})")
    found = list[Row]()
    for kind, text, within in (("comparisons", SOURCE, (2, 5, 10)), ("by the library", LIBRARY, (6, 15, 20))):
        expression = compile_expression(text)
        for (name, values), most in zip(
            (("kept values", prepared), ("unknown", partial), ("new values", VALUES)), within, strict=True
        ):
            took = cpu(lambda expression=expression, values=values: [expression.evaluate(values) for _ in range(EVALUATIONS)])  # type: ignore[misc]
            found.append(Row(f"evaluation, {kind}, {name}", took * each, "µs", most))
    for name, text, checked, most in COMPILED:
        took = cpu(lambda text=text, checked=checked: compiled(text, checked=checked))  # type: ignore[misc]
        found.append(Row(name, took * 1e6 / COMPILATIONS, "µs", most))
    found += [Row("first expression, CPU", seconds * 1e3, "ms", 60), Row("first expression, memory", mb, "MB", 25)]
    with contextlib.suppress(ImportError):
        found += former()
    return found


def former() -> list[Row]:
    """The same with the library of 0.1.0. Raises `ImportError` where it is not installed."""
    import cel

    execute, context = cel.compile(SOURCE).execute, cel.Context(variables=VALUES)
    seconds, mb = first(f"import cel; cel.compile({SOURCE!r})")
    return [
        Row(
            "0.1.0: evaluation, kept values", cpu(lambda: [execute(context) for _ in range(EVALUATIONS)]) * 1e6 / EVALUATIONS, "µs"
        ),
        Row("0.1.0: compilation", cpu(lambda: [cel.compile(SOURCE) for _ in range(COMPILATIONS)]) * 1e6 / COMPILATIONS, "µs"),
        Row("0.1.0: first expression, CPU", seconds * 1e3, "ms"),
        Row("0.1.0: first expression, memory", mb, "MB"),
    ]


if __name__ == "__main__":
    sys.exit(run(__doc__, rows))
