"""The operations of the API as calls: what is asked for, and what the answer is. Both clients have a method for each."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from constraint_crdt.client.wire import Call

if TYPE_CHECKING:
    from constraint_crdt.insight.overview import LatelyReport, OverviewReport
    from constraint_crdt.insight.rates import RatesReport
    from constraint_crdt.insight.reports import (
        AlertsReport,
        ConvergenceReport,
        CoverageReport,
        DiagnosisReport,
        ExplainReport,
    )
    from constraint_crdt.plato.shapes import PlatoDelta, PlatoRoom, PlatoTile
    from constraint_crdt.runtime.reports import (
        Added,
        Batched,
        Checked,
        ConstraintReport,
        DeltaTaken,
        ExpressionReport,
        Health,
        IdentityReport,
        NodeReport,
        Nothing,
        Recorded,
        Removed,
        RetireReport,
        Status,
        StorageReport,
        TileContent,
        TileRemoved,
        TileSubmitted,
    )
    from constraint_crdt.runtime.shared import CounterReport, ImportReport, PositionReport
    from constraint_crdt.runtime.sketches import InsertReport, SeenReport, TallyReport, TopReport
    from constraint_crdt.runtime.tiles import TileReport

_NODE = "constraint_crdt.runtime"
_INSIGHT = "constraint_crdt.insight"
_REPORTS = f"{_NODE}.reports"
_OUTCOMES = f"{_NODE}.reports"
_ANSWERING = f"{_INSIGHT}.reports"

# --- the node and its fleet -------------------------------------------------------------------------------------------------


def status() -> "Call[Status]":
    """How the node and its fleet are doing."""
    return _get("/v1/status", f"{_REPORTS}:Status")


def nodes() -> "Call[list[NodeReport]]":
    """The nodes ever heard of, by name."""
    return _get("/v1/nodes", f"list:{_REPORTS}:NodeReport", join=_lists)


def storage() -> "Call[StorageReport]":
    """What the node holds, and could forget."""
    return _get("/v1/storage", f"{_REPORTS}:StorageReport")


def identity() -> "Call[IdentityReport]":
    """Who the node is, and was."""
    return _get("/v1/identity", f"{_REPORTS}:IdentityReport")


def retire(node: str, *, dry_run: bool = False, force: bool = False) -> "Call[RetireReport]":
    """End another node for good; `dry_run` only says what that means."""
    return _send("POST", "/v1/retire", f"{_REPORTS}:RetireReport", {"node": node, "dry_run": dry_run, "force": force})


def alive() -> "Call[Health]":
    """Whether the node is there."""
    return _get("/healthz", f"{_OUTCOMES}:Health")


def ready() -> "Call[Health]":
    """Whether it takes part, and takes writes. Raises `Busy` if it does not."""
    return _get("/readyz", f"{_OUTCOMES}:Health")


def metrics() -> "Call[str]":
    """The node for Prometheus, as text."""
    return _get("/metrics", "text")


def openapi() -> "Call[dict[str, Any]]":
    """The OpenAPI document of the node."""
    return _get("/openapi.json", "builtins:dict")


# --- constraints ------------------------------------------------------------------------------------------------------------


def constraints(*, expired: bool = False) -> "Call[list[ConstraintReport]]":
    """The active constraints, by id; or those that have expired and that nobody has removed yet."""
    return _get("/v1/constraints", f"list:{_REPORTS}:ConstraintReport", join=_lists, expired="1" if expired else None)


def add(
    id_: str,
    *,
    when: str | None = None,
    severity: str = "warning",
    about: str | None = None,
    on: Mapping[str, str] | None = None,
    ttl: float | None = None,
    until: datetime | None = None,
) -> "Call[Added]":
    """Make a constraint active, or give it this definition. `ttl` in seconds."""
    body = {"id": id_, "when": when, "severity": severity, "about": about, "on": on, "ttl": ttl, "until": until}
    return _send("POST", "/v1/constraints", f"{_OUTCOMES}:Added", body)


def remove(id_: str) -> "Call[Removed]":
    """End a constraint in the fleet. Raises `NotFound` if it is not active."""
    return Call("DELETE", f"/v1/constraints/{_quoted(id_)}", f"{_OUTCOMES}:Removed")


def record(satisfied: int = 0, violations: int = 0, *, constraint: str | None = None) -> "Call[Recorded]":
    """Count evaluations made elsewhere."""
    body = {"satisfied": satisfied, "violations": violations, "constraint": constraint}
    return _send("POST", "/v1/record", f"{_OUTCOMES}:Recorded", body)


def check(values: Mapping[str, object]) -> "Call[Checked]":
    """Evaluate the constraints now against these values and the latest measurements, and count it."""
    return _send("POST", "/v1/check", f"{_OUTCOMES}:Checked", {"values": values})


def measure(values: Mapping[str, object]) -> "Call[Nothing]":
    """Take measurements in."""
    return _send("POST", "/v1/measure", f"{_OUTCOMES}:Nothing", {"values": values})


def batch(changes: Iterable[Mapping[str, Mapping[str, object]]]) -> "Call[Batched]":
    """Make up to 10,000 changes in one go, or none: each `{"add": {…}}`, `{"remove": {…}}` or `{"record": {…}}`."""
    return _send("POST", "/v1/batch", f"{_OUTCOMES}:Batched", {"changes": list(changes)}, patience=30.0)


def check_expression(when: str) -> "Call[ExpressionReport]":
    """Whether a `when` would be taken."""
    return _send("POST", "/v1/expressions", f"{_OUTCOMES}:ExpressionReport", {"when": when})


def overview(*, after: str | None = None, limit: int | None = None, node: str | None = None) -> "Call[OverviewReport]":
    """The constraints at a glance, one page."""
    return _get("/v1/overview", f"{_INSIGHT}.overview:OverviewReport", after=after, limit=limit, node=node)


def lately() -> "Call[LatelyReport]":
    """What is left of the evaluations of each node."""
    return _get("/v1/lately", f"{_INSIGHT}.overview:LatelyReport")


def rates(*, half_life: float | None = None, constraint: str | None = None, node: str | None = None) -> "Call[RatesReport]":
    """How often constraints held and were violated lately. `half_life` in seconds, one of those that the node tracks."""
    shape = f"{_INSIGHT}.rates:RatesReport"
    return _get("/v1/rates", shape, join=_rates, half_life=half_life, constraint=constraint, node=node)


def top(k: int = 10, *, of: str | None = None) -> "Call[TopReport]":
    """What is violated most, or the most frequent items of a sketch."""
    return _get("/v1/top", f"{_NODE}.sketches:TopReport", k=k, of=of)


# --- evidence ---------------------------------------------------------------------------------------------------------------


def fleet_coverage(*, wait: str | int | None = None, timeout: float = 30.0) -> "Call[CoverageReport]":
    """Which nodes hold all changes of definitions. As `coverage`."""
    return _coverage("/v1/coverage", wait, timeout)


def coverage(id_: str, *, wait: str | int | None = None, timeout: float = 30.0) -> "Call[CoverageReport]":
    """Which nodes hold this change, and which not. `wait`: answer once all, live, majority or a number of them do."""
    return _coverage(f"/v1/coverage/{_quoted(id_)}", wait, timeout)


def _coverage(path: str, wait: str | int | None, timeout: float) -> "Call[CoverageReport]":
    shape = f"{_ANSWERING}:CoverageReport"
    if wait is None:
        return _get(path, shape)
    return _get(path, shape, patience=timeout, wait=wait, timeout=timeout)


def explain(id_: str) -> "Call[ExplainReport]":
    """Why a constraint is as it is."""
    return _get(f"/v1/explain/{_quoted(id_)}", f"{_ANSWERING}:ExplainReport")


def convergence() -> "Call[ConvergenceReport]":
    """How each peer stands to the node."""
    return _get("/v1/convergence", f"{_ANSWERING}:ConvergenceReport")


def diagnosis() -> "Call[DiagnosisReport]":
    """What is wrong, and what to do about it."""
    return _get("/v1/diagnosis", f"{_ANSWERING}:DiagnosisReport", patience=30.0)


def alerts() -> "Call[AlertsReport]":
    """The alerts of the node, and the rules that they follow."""
    return _get("/v1/alerts", f"{_ANSWERING}:AlertsReport")


# --- what else the fleet shares ---------------------------------------------------------------------------------------------


def tiles(room: str | None = None, *, prefix: str = "", deleted: bool = False) -> "Call[list[TileReport]]":
    """The tiles, without their contents; or those that are deleted and can be restored."""
    shape = f"list:{_NODE}.tiles:TileReport"
    return _get("/v1/tiles", shape, join=_lists, room=room, prefix=prefix or None, deleted="1" if deleted else None)


def tile(room: str, id_: str) -> "Call[TileContent]":
    """One tile with its content."""
    return _get(_tile(room, id_), f"{_OUTCOMES}:TileContent")


def put_tile(
    room: str,
    id_: str,
    text: str | bytes,
    *,
    author: str | None = None,
    tags: Sequence[str] = (),
    constraints: Sequence[str] = (),
) -> "Call[TileReport]":
    """Make this text, or these bytes, the content of a tile, and add tags and constraints."""
    sent = {"text": text} if isinstance(text, str) else {"base64": text}
    body = {**sent, "author": author, "tags": tags, "constraints": constraints}
    return _send("PUT", _tile(room, id_), f"{_NODE}.tiles:TileReport", body)


def put_tile_content(room: str, id_: str, content: bytes) -> "Call[TileReport]":
    """Make these bytes the content of a tile."""
    path, shape = f"{_tile(room, id_)}/content", f"{_NODE}.tiles:TileReport"
    return Call("PUT", path, shape, content, "application/octet-stream")


def tile_content(room: str, id_: str) -> "Call[bytes]":
    """The bytes of a tile."""
    return _get(f"{_tile(room, id_)}/content", "bytes")


def edit_tile(
    room: str,
    id_: str,
    *,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
    add_constraints: Sequence[str] = (),
    remove_constraints: Sequence[str] = (),
) -> "Call[TileReport]":
    """Add tags and constraints to a tile, or take some away, at once."""
    body = {
        "add_tags": add_tags, "remove_tags": remove_tags,
        "add_constraints": add_constraints, "remove_constraints": remove_constraints,
    }  # fmt: skip
    return _send("PATCH", _tile(room, id_), f"{_NODE}.tiles:TileReport", body)


def delete_tile(room: str, id_: str) -> "Call[TileRemoved]":
    """Take a tile away; it can be restored for a while."""
    return Call("DELETE", _tile(room, id_), f"{_OUTCOMES}:TileRemoved")


def restore_tile(room: str, id_: str) -> "Call[TileReport]":
    """Undo the deletion of a tile."""
    return _send("POST", f"{_tile(room, id_)}/restore", f"{_NODE}.tiles:TileReport", {})


def counters() -> "Call[list[CounterReport]]":
    """The counters that were ever moved."""
    return _get("/v1/counters", f"list:{_NODE}.shared:CounterReport")


def counter(name: str) -> "Call[CounterReport]":
    """What a counter stands at."""
    return _get(f"/v1/counters/{_quoted(name)}", f"{_NODE}.shared:CounterReport")


def move_counter(name: str, by: int = 1) -> "Call[CounterReport]":
    """Move a counter up, or down by a negative number."""
    return _send("POST", f"/v1/counters/{_quoted(name)}", f"{_NODE}.shared:CounterReport", {"by": by})


def tally(name: str, items: Mapping[str, int]) -> "Call[TallyReport]":
    """Count items in a sketch: how often each occurred."""
    return _send("POST", f"/v1/sketches/{_quoted(name)}", f"{_NODE}.sketches:TallyReport", {"items": items})


def seen(name: str, item: str) -> "Call[SeenReport]":
    """Whether any node has seen an item."""
    return _get(f"/v1/seen/{_quoted(name)}", f"{_NODE}.sketches:SeenReport", item=item)


def insert(
    name: str, items: Sequence[str], *, expected_items: int | None = None, fp_rate: float | None = None
) -> "Call[InsertReport]":
    """Put items into a Bloom filter, which the first insertion begins."""
    body = {"items": items, "expected_items": expected_items, "fp_rate": fp_rate}
    return _send("POST", f"/v1/seen/{_quoted(name)}", f"{_NODE}.sketches:InsertReport", body)


def position() -> "Call[PositionReport]":
    """Where the fleet and its nodes are."""
    return _get("/v1/position", f"{_NODE}.shared:PositionReport")


def move(position: tuple[int, int]) -> "Call[PositionReport]":
    """Move the fleet."""
    return _send("PUT", "/v1/position", f"{_NODE}.shared:PositionReport", {"position": position})


def export() -> "Call[bytes]":
    """Everything the node knows, as a state file."""
    return _get("/v1/export", "bytes", patience=60.0)


def import_state(content: bytes) -> "Call[ImportReport]":
    """Merge a state file into the node."""
    return Call("POST", "/v1/import", f"{_NODE}.shared:ImportReport", content, patience=60.0)


# --- the PLATO contract -----------------------------------------------------------------------------------------------------


def rooms(prefix: str = "") -> "Call[list[str]]":
    """The rooms that have a tile."""
    return _get("/rooms", "list:builtins:str", prefix=prefix or None)


def room(room: str) -> "Call[PlatoRoom]":
    """A room and its tiles."""
    return _get(f"/room/{_quoted(room)}", "constraint_crdt.plato.shapes:PlatoRoom")


def submit_tile(tile: "PlatoTile") -> "Call[TileSubmitted]":
    """Merge a tile of the contract."""
    return _send("POST", f"/room/{_quoted(tile.room)}/tile", f"{_OUTCOMES}:TileSubmitted", tile)


def send_delta(room: str, delta: "PlatoDelta") -> "Call[DeltaTaken]":
    """Take a delta of the contract in."""
    return _send("POST", f"/room/{_quoted(room)}/delta", f"{_OUTCOMES}:DeltaTaken", delta)


# --- how calls are made -----------------------------------------------------------------------------------------------------


def _get(path: str, shape: str, *, join: Any = None, patience: float = 0.0, **query: str | float | None) -> Call[Any]:
    given = urlencode({key: value for key, value in query.items() if value is not None}, errors="replace")
    return Call("GET", f"{path}?{given}" if given else path, shape, join=join, patience=patience)


def _send(method: str, path: str, shape: str, body: object, *, patience: float = 0.0) -> Call[Any]:
    return Call(method, path, shape, _encoded(body), patience=patience)


def _encoded(body: object) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (OverflowError, UnicodeEncodeError):
        # A number beyond 64 bits, or a text that is not valid Unicode: JSON has both, and the node says why it refuses them.
        return json.dumps(msgspec.to_builtins(body)).encode()


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")


def _tile(room: str, id_: str) -> str:
    return f"/v1/tiles/{_quoted(room)}/{_quoted(id_)}"


def _lists(pages: list[list[Any]]) -> list[Any]:
    return [each for page in pages for each in page]


def _rates(pages: "list[RatesReport]") -> "RatesReport":
    return msgspec.structs.replace(pages[0], constraints=tuple(each for page in pages for each in page.constraints))
