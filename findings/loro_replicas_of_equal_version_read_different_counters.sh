#!/usr/bin/env bash
# loro 1.17.1: replicas that have taken in the same changes, and say so, read different values of a counter for good.
#
# One would guess: two documents with equal version vectors have equal values; a counter that only adds is the simplest case of it.
# It does: a counter is a sum of floats in the order in which a replica heard of the increments, and adding floats depends on the
# order. The replicas stay apart in the last digits whatever they exchange later, as neither has anything that the other lacks; a
# third one that takes a snapshot of either keeps that one's value. Hashes of the values, or a check of equality, tell a divergence.
# It printed (Python 3.11, Linux x86-64):
#   equal versions: True; counters: 0.6000000000000001 and 0.6; after another exchange: 0.6000000000000001 and 0.6
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'loro==1.17.1'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from loro import ExportMode, LoroDoc


def document(peer: int) -> LoroDoc:
    made = LoroDoc()
    made.peer_id = peer
    return made


writers = [document(peer) for peer in (1, 2, 3)]
for writer, amount in zip(writers, (0.1, 0.2, 0.3)):
    writer.get_counter("kwh").increment(amount)
    writer.commit()
changes = [writer.export(ExportMode.Snapshot()) for writer in writers]
one, other = document(10), document(11)
for change in changes:
    one.import_(change)
for change in reversed(changes):
    other.import_(change)


def counters() -> list[float]:
    return [each.get_deep_value()["kwh"] for each in (one, other)]


equal, before = one.oplog_vv == other.oplog_vv, counters()
other.import_(one.export(ExportMode.Snapshot()))
one.import_(other.export(ExportMode.Snapshot()))
after = counters()
print(f"equal versions: {equal}; counters: {before[0]} and {before[1]}; after another exchange: {after[0]} and {after[1]}")
sys.exit(0 if equal and before[0] != before[1] and after == before else 1)
PYTHON
