#!/usr/bin/env bash
# loro 1.17.1 beside pycrdt 0.14.13: whether a write of a key survives a concurrent removal depends on who wrote.
#
# One would guess: a map has one rule for a write beside a concurrent removal; in most replicated maps the write survives, as what
# was removed was an older value.
# It does: in loro the two are compared as if both were writes, by Lamport time and then by peer id. With equal times the greater
# peer id wins, so the same two actions leave the key in one fleet and remove it in another; ids are drawn at random by default. In
# pycrdt (Yjs) the write survives in both cases.
# It printed (Python 3.11, Linux x86-64):
#   written by the lower id: loro {}, pycrdt {'limit': 'new'}; by the greater: loro {'limit': 'new'}, pycrdt {'limit': 'new'}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'loro==1.17.1' 'pycrdt==0.14.13'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from loro import ExportMode, LoroDoc
from pycrdt import Doc, Map


def in_loro(writer: int, remover: int) -> dict:
    one, other = LoroDoc(), LoroDoc()
    one.peer_id, other.peer_id = writer, remover
    base = LoroDoc()
    base.peer_id = 99
    base.get_map("limits").insert("limit", "old")
    base.commit()
    for each in (one, other):
        each.import_(base.export(ExportMode.Snapshot()))
    one.get_map("limits").insert("limit", "new")
    other.get_map("limits").delete("limit")
    for each in (one, other):
        each.commit()
    one.import_(other.export(ExportMode.Snapshot()))
    other.import_(one.export(ExportMode.Snapshot()))
    assert one.get_deep_value() == other.get_deep_value()
    return one.get_deep_value()["limits"]


def in_pycrdt(writer: int, remover: int) -> dict:
    base, one, other = Doc(client_id=99), Doc(client_id=writer), Doc(client_id=remover)
    base.get("limits", type=Map)["limit"] = "old"
    maps = []
    for each in (one, other):
        each.apply_update(base.get_update())
        maps.append(each.get("limits", type=Map))
    maps[0]["limit"] = "new"
    del maps[1]["limit"]
    one.apply_update(other.get_update())
    other.apply_update(one.get_update())
    assert maps[0].to_py() == maps[1].to_py()
    return maps[0].to_py()


found = [(in_loro(*ids), in_pycrdt(*ids)) for ids in ((1, 2), (2, 1))]
(low, low_yjs), (high, high_yjs) = found
print(f"written by the lower id: loro {low}, pycrdt {low_yjs}; by the greater: loro {high}, pycrdt {high_yjs}")
sys.exit(0 if found == [({}, {"limit": "new"}), ({"limit": "new"}, {"limit": "new"})] else 1)
PYTHON
