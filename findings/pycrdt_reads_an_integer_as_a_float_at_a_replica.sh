#!/usr/bin/env bash
# pycrdt 0.14.13: a large integer is an `int` where it was written and a `float` at a replica, depending on its bits.
#
# One would guess: a value of a map has the same type and value at all replicas; if numbers are doubles, as in Yjs, then everywhere.
# It does: an integer below 2^53 is read as a float at once, also by its writer. A larger one is an int at its writer. At a replica it
# is a float if a double holds it exactly, else an int, so of two times in ns one arrives as `1.8e+18` and the next as an int. The
# greatest integer of 64 bits arrives as a float that is greater by one. The updates of both replicas are equal.
# It printed (Python 3.11, Linux x86-64):
#   5: written as float 5.0, read by a replica as float 5.0
#   1800000000000000000: written as int 1800000000000000000, read by a replica as float 1.8e+18
#   1800000000000000001: written as int 1800000000000000001, read by a replica as int 1800000000000000001
#   9223372036854775807: written as int 9223372036854775807, read by a replica as float 9.223372036854776e+18
#   values that differ between the replicas: 9223372036854775807; updates that differ: 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'pycrdt==0.14.13'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from pycrdt import Doc, Map

found, values, updates = [], [], 0
for number in (5, 1_800_000_000_000_000_000, 1_800_000_000_000_000_001, 2**63 - 1):
    first, second = Doc(), Doc()
    first["m"], second["m"] = Map(), Map()
    first["m"]["at"] = number
    second.apply_update(first.get_update())
    here, there = first["m"]["at"], second["m"]["at"]
    print(f"{number}: written as {type(here).__name__} {here}, read by a replica as {type(there).__name__} {there}")
    found.append((type(here), type(there)))
    values += [number] if here != there else []
    updates += first.get_update() != second.get_update()
print(f"values that differ between the replicas: {', '.join(map(str, values))}; updates that differ: {updates}")
expected = [(float, float), (int, float), (int, int), (int, float)]
sys.exit(0 if found == expected and values == [2**63 - 1] and not updates else 1)
PYTHON
