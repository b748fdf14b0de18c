#!/usr/bin/env bash
# prometheus-client 0.26.0: its parser of the text form gives series names that the page does not have.
#
# One would guess: the samples of a parsed page have the names that the page has; only OpenMetrics asks for `_total`.
# It does: a counter whose name does not end in `_total` gets that ending, as in OpenMetrics, so a query by the name on the page finds
# nothing, and two series of a page can become the same one. Without the line of its type the name stays.
# It printed (Python 3.11, Linux x86-64):
#   with types: jobs_total 3, jobs_total 5
#   without types: jobs 3, jobs_total 5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'prometheus-client==0.26.0'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from prometheus_client.parser import text_string_to_metric_families

PAGE = "# TYPE jobs counter\njobs 3\n# TYPE jobs_total counter\njobs_total 5\n"


def series(page: str) -> str:
    return ", ".join(f"{each.name} {each.value:g}" for family in text_string_to_metric_families(page) for each in family.samples)


typed, plain = series(PAGE), series("\n".join(line for line in PAGE.splitlines() if not line.startswith("#")))
print(f"with types: {typed}")
print(f"without types: {plain}")
sys.exit(0 if (typed, plain) == ("jobs_total 3, jobs_total 5", "jobs 3, jobs_total 5") else 1)
PYTHON
