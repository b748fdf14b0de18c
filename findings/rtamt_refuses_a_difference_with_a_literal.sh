#!/usr/bin/env bash
# rtamt 0.4.10: a comparison of `x - 1.0` is refused, that of `(x - 1.0)` or of `x - z` is not.
#
# One would guess: `x - 1.0 <= y` is parsed as `(x - 1.0) <= y`, as `x + 1.0 <= y` and `x - z <= y` are.
# It does: the listener of the parser raises an exception for `reportAttemptingFullContext`, by which ANTLR reports that it looks
# further ahead to decide (here between the operator `-` and the sign of a literal), not an error.
# It printed (Python 3.11, Linux x86-64):
#   x + 1.0 <= y: [-1.0, 0.0, -15.0]
#   x - z <= y: [0.0, 1.0, -14.0]
#   (x - 1.0) <= y: [1.0, 2.0, -13.0]
#   x - 1.0 <= y: RTAMTException: Attempting full context ERROR
#   y >= x - 1.0: RTAMTException: Attempting full context ERROR
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'rtamt==0.4.10'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import rtamt

TRACE = {"time": [0, 1, 2], "x": [1.0, 2.0, 9.0], "y": [1.0, 3.0, -5.0], "z": [0.0, 0.0, 0.0]}


def robustness(formula):
    specification = rtamt.StlDiscreteTimeSpecification()
    for name in "xyz":
        specification.declare_var(name, "float")
    specification.spec = formula
    try:
        specification.parse()
        values = specification.evaluate(TRACE)
    except rtamt.RTAMTException as error:
        return f"RTAMTException: {str(error).removeprefix('RTAMT Exception: ').partition(',')[0]}"
    return [value for _, value in values]


refused = "RTAMTException: Attempting full context ERROR"
expected = {
    "x + 1.0 <= y": [-1.0, 0.0, -15.0],
    "x - z <= y": [0.0, 1.0, -14.0],
    "(x - 1.0) <= y": [1.0, 2.0, -13.0],
    "x - 1.0 <= y": refused,
    "y >= x - 1.0": refused,
}
found = {formula: robustness(formula) for formula in expected}
for formula, values in found.items():
    print(f"{formula}: {values}")
sys.exit(0 if found == expected else 1)
PYTHON
