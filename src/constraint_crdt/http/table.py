"""The operations of the API: one list that is routed, guarded, documented (`/openapi.json`, `/docs`) and tested.

How to add one: write its endpoint, `async def name(node, request) -> Response`, in the file of its group; it reads a body with
`read_body`, raises `Problem` where it cannot serve, and answers with `json_answer(report)`. Then add a line here: `_read(...)` or
`_write(...)` with the name, path, endpoint, one sentence, and the shape of the answer; name every query parameter (others are
refused), and in `refusals` the statuses that follow from nothing else: 404 of something that a body names, 409, 503 beyond those
of a full disk. The bounds of a body stand in `bounds`. A reading that is the same until something moves gets a `Freshness`, and
with it an `ETag`; leave it out for what waits or is large. Add a method of that name to both clients (`client/`): tests see that
all of this is so.
"""

from http import HTTPStatus
from typing import Any, Final

from constraint_crdt.http import (
    answering,
    approximate,
    constraints,
    counters,
    expressions,
    fleet,
    metrics,
    overview,
    plato,
    portable,
    position,
    rates,
    tiles,
)
from constraint_crdt.http import docs as documentation
from constraint_crdt.http import events as events_stream
from constraint_crdt.http.bodies import Batch, Counted, Given, Measured, NewConstraint, Retiring
from constraint_crdt.http.bounds import HALF_LIFE, STATE_FILE
from constraint_crdt.http.operation import (
    BYTES,
    TEXT,
    WHOLE,
    YES_NO,
    Answer,
    Body,
    Endpoint,
    Freshness,
    Operation,
    Parameter,
    Schema,
)
from constraint_crdt.http.routing import LARGEST_PAGE, PAGE
from constraint_crdt.http.security import Right
from constraint_crdt.insight.coverage import LONGEST_WAIT
from constraint_crdt.insight.overview import LARGEST_PAGE as LARGEST_OVERVIEW
from constraint_crdt.insight.overview import MOST_IDS, LatelyReport, OverviewReport
from constraint_crdt.insight.overview import PAGE as OVERVIEW_PAGE
from constraint_crdt.insight.rates import RatesReport
from constraint_crdt.insight.reports import (
    AlertsReport,
    ConvergenceReport,
    CoverageReport,
    DiagnosisReport,
    ExplainReport,
)
from constraint_crdt.plato.shapes import PlatoDelta, PlatoRoom, PlatoTile
from constraint_crdt.runtime.events import KEPT
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
from constraint_crdt.runtime.sketches import MAX_TOP, InsertReport, SeenReport, TallyReport, TopReport
from constraint_crdt.runtime.tiles import TileReport

GET, PUT, POST, PATCH, DELETE = "GET", "PUT", "POST", "PATCH", "DELETE"
STATE, AGING = Freshness.STATE, Freshness.AGING
CREATED = HTTPStatus.CREATED


def _limit(most: int, default: int) -> Schema:
    return {"type": "integer", "minimum": 1, "maximum": most, "default": default}


AFTER = Parameter("after", "the last of the page before")
PAGED = (Parameter("limit", "how many at most; a `Link` leads to the next page", _limit(LARGEST_PAGE, PAGE)), AFTER)
SECONDS: Schema = {"type": "number", "minimum": 0}
TILE = tiles.LIST + "/{room}/{id}"


def _read(name: str, path: str, endpoint: Endpoint, summary: str, shape: Any, *parameters: Parameter, **more: Any) -> Operation:
    answers = {int(HTTPStatus.OK): shape if isinstance(shape, Answer) else Answer(shape)}
    return Operation(**{
        "name": name, "method": GET, "path": path, "endpoint": endpoint, "summary": summary, "group": "reading",
        "parameters": parameters, "answers": answers, **more,
    })  # fmt: skip


def _write(
    name: str, method: str, path: str, endpoint: Endpoint, summary: str, shape: Any, body: Any = None, **more: Any
) -> Operation:
    """`more["created"]`: 201 may be the answer, too."""
    answer = shape if isinstance(shape, Answer) else Answer(shape)
    created: dict[int, Answer] = {CREATED: Answer(shape, about="it is new")} if more.pop("created", False) else {}
    sent = body if body is None or isinstance(body, Body) else Body(body)
    return Operation(**{
        "name": name, "method": method, "path": path, "endpoint": endpoint, "summary": summary, "group": "writing",
        "right": Right.WRITE, "body": sent, "answers": {200: answer, **created}, **more,
    })  # fmt: skip


_NODE: Final = [
    _read("status", "/v1/status", fleet.status, "How the node and its fleet are doing.", Status, freshness=AGING),
    _read("nodes", "/v1/nodes", fleet.nodes, "The nodes ever heard of, by name.", list[NodeReport], *PAGED, freshness=AGING),
    _read("storage", "/v1/storage", fleet.storage, "What the node holds, and could forget.", StorageReport, freshness=AGING),
    _read("identity", "/v1/identity", fleet.identity, "Who the node is, and was.", IdentityReport, freshness=STATE),
    _write(
        "retire", POST, "/v1/retire", fleet.retire, "End another node for good.", RetireReport, Retiring,
        refusals=frozenset({404, 409}),
    ),
    _read("alive", "/healthz", fleet.alive, "Whether the node is there.", Health, right=Right.NONE),
    _read("ready", "/readyz", fleet.ready, "Whether it takes part, and takes writes.", Health, right=Right.NONE),
    _read(
        "metrics", "/metrics", metrics.metrics, "The node for Prometheus.", Answer(media_type="text/plain"), ignores_others=True,
    ),
    _read(
        "openapi", "/openapi.json", documentation.openapi, "This document.", Answer(dict[str, Any]), right=Right.NONE,
    ),
    _read(
        "docs", "/docs", documentation.docs, "This document, for people.", Answer(media_type="text/html"), right=Right.NONE,
    ),
]  # fmt: skip

_CONSTRAINTS: Final = [
    _read(
        "constraints", "/v1/constraints", constraints.constraints, "The active constraints, by id.", list[ConstraintReport],
        Parameter("expired", "1: those instead that have expired and that nobody has removed yet", YES_NO), *PAGED,
        freshness=STATE,
    ),
    _write(
        "add", POST, "/v1/constraints", constraints.add, "Make a constraint active, or give it this definition.", Added,
        NewConstraint, created=True,
    ),
    _write("remove", DELETE, "/v1/constraints/{id:any_text}", constraints.remove, "End a constraint in the fleet.", Removed),
    _write(
        "record", POST, "/v1/record", constraints.record, "Count evaluations made elsewhere.", Recorded, Counted,
        refusals=frozenset({404}),
    ),
    _write("check", POST, "/v1/check", constraints.check, "Evaluate the constraints now, and count it.", Checked, Given),
    _write("measure", POST, "/v1/measure", constraints.measure, "Take measurements in.", Nothing, Measured),
    _write("batch", POST, "/v1/batch", constraints.batch, "Make up to 10,000 changes in one go, or none.", Batched, Batch),
    _write(
        "check_expression", POST, "/v1/expressions", expressions.check, "Whether a `when` would be taken.", ExpressionReport,
        expressions.Expression, right=Right.READ, group="reading",
    ),
    _read(
        "overview", "/v1/overview", overview.overview, "The constraints at a glance, a page at a time.", OverviewReport,
        Parameter(
            "id", "these constraints, instead of a page and with no other parameter; says who has heard of them",
            {"type": "array", "items": TEXT, "maxItems": MOST_IDS}, many=True,
        ),
        AFTER, Parameter("limit", "how many at most", _limit(LARGEST_OVERVIEW, OVERVIEW_PAGE)),
        Parameter("node", "only those that this node evaluated lately"), freshness=AGING,
    ),
    _read("lately", "/v1/lately", overview.lately, "What is left of the evaluations of each node.", LatelyReport, freshness=AGING),
    _read(
        "rates", "/v1/rates", rates.rates, "How often constraints held and were violated lately.", RatesReport,
        Parameter("half_life", "seconds, one of those tracked; without: the shortest", {"type": "number", **HALF_LIFE}),
        Parameter("constraint", "only this constraint"), Parameter("node", "only this node"), *PAGED,
        refusals=frozenset({404}), freshness=AGING,
    ),
    _read(
        "top", "/v1/top", approximate.top, "What is violated most, or the most frequent items of a sketch.", TopReport,
        Parameter("k", "how many", _limit(MAX_TOP, 10)), Parameter("of", "the sketch; without: violations"),
        refusals=frozenset({404}), freshness=AGING,
    ),
]  # fmt: skip

_EVIDENCE: Final = [
    _read(
        "fleet_coverage", "/v1/coverage", answering.coverage, "Which nodes hold all changes of definitions.", CoverageReport,
        *(WAITING := (
            Parameter("wait", "answer only once so many nodes hold it: all, live, majority or a number",
                      {**TEXT, "pattern": f"^({answering.WANTED})$"}),
            Parameter("timeout", "seconds to wait at most", {**SECONDS, "maximum": LONGEST_WAIT, "default": 30}),
        )),
    ),
    _read(
        "coverage", "/v1/coverage/{id:any_text}", answering.coverage, "Which nodes hold this change, and which not.",
        CoverageReport, *WAITING,
    ),
    _read("explain", "/v1/explain/{id:any_text}", answering.explain, "Why a constraint is as it is.", ExplainReport),
    _read("convergence", "/v1/convergence", answering.convergence, "How each peer stands to the node.", ConvergenceReport),
    _read("diagnosis", "/v1/diagnosis", answering.diagnosis, "What is wrong, and what to do about it.", DiagnosisReport),
    _read("alerts", "/v1/alerts", answering.alerts, "The alerts of the node, and the rules that they follow.", AlertsReport),
    _read(
        "events", "/v1/events", events_stream.events, "What happens, as server-sent events.",
        Answer(media_type="text/event-stream"),
        Parameter("last", "begin with so many that have happened already", {**WHOLE, "maximum": KEPT, "default": 0}),
        Parameter("follow", "0: end after those", {**YES_NO, "default": "1"}),
        Parameter("last_event_id", "go on after this one, for who cannot send the header"),
        Parameter("last-event-id", "go on after this one", TEXT, place="header"),
    ),
]  # fmt: skip

_SHARED: Final = [
    _read(
        "tiles", tiles.LIST, tiles.list_tiles, "The tiles, without their contents.", list[TileReport],
        Parameter("room", "only those of this room"), Parameter("prefix", "only those of rooms that begin so"),
        Parameter("deleted", "1: those instead that are deleted and can be restored", YES_NO),
        PAGED[0], Parameter("after", "the last of the page before: ROOM/ID, both percent-encoded", {**TEXT, "pattern": "/"}),
        freshness=STATE,
    ),
    _read("tile", TILE, tiles.show, "One tile with its content.", TileContent, by_segment=True),
    _write("put_tile", PUT, TILE, tiles.put, "Make this its content.", TileReport, tiles.NewTile, created=True,
           by_segment=True),
    _write("edit_tile", PATCH, TILE, tiles.edit, "Add tags and constraints, or take some away.", TileReport,
           tiles.EditedTile, by_segment=True),
    _write("delete_tile", DELETE, TILE, tiles.delete, "Take a tile away.", TileRemoved, by_segment=True),
    _read("tile_content", TILE + "/content", tiles.show_content, "Its bytes.", Answer(media_type=BYTES), by_segment=True),
    _write("put_tile_content", PUT, TILE + "/content", tiles.put_content, "Make these bytes its content.", TileReport,
           Body(None, BYTES), created=True, by_segment=True),
    _write("restore_tile", POST, TILE + "/restore", tiles.restore, "Undo its deletion.", TileReport, by_segment=True),
    _read("counters", "/v1/counters", counters.counters, "The counters that were ever moved.", list[CounterReport],
          freshness=STATE),
    _read("counter", "/v1/counters/{name:any_text}", counters.counter, "What a counter stands at.", CounterReport,
          freshness=STATE),
    _write("move_counter", POST, "/v1/counters/{name:any_text}", counters.move, "Move it up or down.", CounterReport,
           counters.Moved),
    _write("tally", POST, "/v1/sketches/{name:any_text}", approximate.record, "Count items in a sketch.", TallyReport,
           approximate.Tallied),
    _read("seen", "/v1/seen/{name:any_text}", approximate.seen, "Whether any node has seen an item.", SeenReport,
          Parameter("item", "the item", required=True)),
    _write("insert", POST, "/v1/seen/{name:any_text}", approximate.insert, "Put items into a Bloom filter.", InsertReport,
           approximate.Inserted),
    _read("position", "/v1/position", position.position, "Where the fleet and its nodes are.", PositionReport, freshness=STATE),
    _write("move", PUT, "/v1/position", position.move, "Move the fleet.", PositionReport, position.Moving),
    _read("export", "/v1/export", portable.export_state, "Everything the node knows, as a state file.", Answer(dict[str, Any])),
    _write("import_state", POST, "/v1/import", portable.import_state, "Merge a state file into the node.", ImportReport,
           Body(None, schema=STATE_FILE)),
]  # fmt: skip

_PLATO: Final = [
    _read("rooms", "/rooms", plato.list_rooms, "The rooms that have a tile.", list[str],
          Parameter("prefix", "only those that begin so"), ignores_others=True, group="PLATO"),
    _write("submit_tile", POST, "/room/{room:any_text}/tile", plato.submit_tile, "Merge a tile.", TileSubmitted, PlatoTile,
           group="PLATO"),
    _write("send_delta", POST, "/room/{room:any_text}/delta", plato.send_delta, "Take a delta in.", DeltaTaken, PlatoDelta,
           group="PLATO"),
    _read("room", "/room/{room:any_text}", plato.get_room, "A room and its tiles.", PlatoRoom, ignores_others=True,
          group="PLATO"),
]  # fmt: skip

OPERATIONS: Final[tuple[Operation, ...]] = (*_NODE, *_CONSTRAINTS, *_EVIDENCE, *_SHARED, *_PLATO)
"""In the order in which they are routed and shown."""
