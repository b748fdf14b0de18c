"""The robustness of formulas over traces by RTAMT, for test_rtamt.py: JSON cases in, JSON lists of numbers out.

Run by an interpreter that has the package `rtamt`; nothing of this repository is imported.
"""

import json
import sys

import rtamt


def robustness(formula: str, trace: dict[str, list[float]]) -> list[float]:
    """The robustness at each sample, in discrete time with a period of 1 s."""
    specification = rtamt.StlDiscreteTimeSpecification()
    for name in trace:
        specification.declare_var(name, "float")
    specification.spec = formula
    specification.parse()
    samples = len(next(iter(trace.values())))
    return [value for _, value in specification.evaluate({"time": list(range(samples)), **trace})]


if __name__ == "__main__":
    json.dump([robustness(formula, trace) for formula, trace in json.load(sys.stdin)], sys.stdout)
