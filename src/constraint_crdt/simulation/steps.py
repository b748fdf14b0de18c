"""Steps: the atomic operations of a history, in which nothing is left to chance, and the effects of the writes among them.

A history is a fleet at its start and a list of steps. `chaos` and `scenario` decide the steps and their order; the effect of a step
follows from the steps before it. So a list of steps is enough to replay a history, and any part of the list is a history too.
Rules:

- A step with nothing to act on (a stopped node, a message never sent) does nothing.
- A step has a number for life. Its messages are named by that number and their order, so they keep their names when other steps are
  left out.

The effect of a `Write` is how a node carries it out, the expected result, and the check of the result.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, get_args

import msgspec

from constraint_crdt.crdt.cells import Cell
from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.errors import NoRights, UnknownName
from constraint_crdt.model import IfUnknown, VerdictState
from constraint_crdt.plato import PlatoCounter, PlatoDelta
from constraint_crdt.plato.rooms import apply_delta
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.loans import Waiting
from constraint_crdt.protocol.sites import SITE
from constraint_crdt.simulation.invariants import (
    ROOM,
    ClientIncrement,
    Contribution,
    CountsById,
    DecayedValues,
    Invariants,
    ItemCount,
    ItemInsertion,
    Model,
    Shape,
    SharedValue,
    Statement,
    TimeFolded,
    TimeSpent,
    Values,
)
from constraint_crdt.types.budgets import NO_HOLDS
from constraint_crdt.types.counters import APPLIED, COUNTS, NODE_KEY, counts_value
from constraint_crdt.types.decay import DECAY, RATE
from constraint_crdt.types.definition import ADD, Definition
from constraint_crdt.types.nodes import NODE, RETIRE, node_value
from constraint_crdt.types.sketch import BloomCRDT, BloomShape, SketchCRDT, SketchShape
from constraint_crdt.types.variables import TENTH, VARIABLES, Reading, VariableKind
from constraint_crdt.types.verdicts import VERDICT, NodeVerdict

MessageName: TypeAlias = tuple[int, int]
"""The number of the sending step, and the index of the message in that step."""


LEAST_ROOM = 130
"""The least bound on the bytes of a message: small transfers already travel in parts."""


class NodeStart(msgspec.Struct, frozen=True):
    """A node of the fleet at its start."""

    name: str
    incarnation: int
    role: str = ""
    """Its role, in a fleet whose rows are signed; empty in a fleet without signatures."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do"):
    """The fields of all steps."""

    number: int
    node: str
    """The acting node, or the node acted on."""
    time: int = 0
    """The reading of its clock in ns; 0: as before."""


class Write(Step, frozen=True, kw_only=True):
    """A mutation by the node itself."""

    unsaved: bool = False
    """Not acknowledged: the mutation is on disk only once the node sends its next message."""


class Add(Write, frozen=True, kw_only=True, tag="add"):
    """Add a constraint, or replace its definition."""

    id: str
    when: str | None = None
    about: str | None = None
    ttl: float | None = None
    """Lifetime in seconds; None for no end."""
    for_: float = 0.0
    """Seconds, as `clear_after` and `max_age`."""
    clear_after: float = 0.0
    clear_when: str | None = None
    if_unknown: IfUnknown = IfUnknown.UNKNOWN
    max_age: float | None = None


class Remove(Write, frozen=True, kw_only=True, tag="remove"):
    """Remove a constraint, if it is active."""

    id: str


class Record(Write, frozen=True, kw_only=True, tag="record"):
    """Count evaluations."""

    satisfied: int = 0
    violated: int = 0
    id: str | None = None


class Fold(Write, frozen=True, kw_only=True, tag="fold"):
    """Move the node's own counts of some constraints to its total."""

    ids: tuple[str, ...]


class Move(Write, frozen=True, kw_only=True, tag="move"):
    """Move the fleet's position."""

    a: int
    b: int


class Count(Write, frozen=True, kw_only=True, tag="count"):
    """Increment or decrement a named counter."""

    name: str
    by: int


class Tile(Write, frozen=True, kw_only=True, tag="tile"):
    """Write to a tile, if the tile allows it."""

    tile: str
    act: str
    """`put`, `delete`, `restore`, `purge`, `tag` or `untag`."""
    text: str = ""
    """The content, or the tag."""


class Expire(Write, frozen=True, kw_only=True, tag="expire"):
    """Remove the expired constraints this node is due to remove."""


class Retire(Write, frozen=True, kw_only=True, tag="retire"):
    """Retire another node for good."""

    dead: str


class Undo(Write, frozen=True, kw_only=True, tag="undo"):
    """Undo the retirement of a node."""

    dead: str


class CountItem(Write, frozen=True, kw_only=True, tag="tally"):
    """Count an item in a sketch, created with these dimensions if there is no sketch of this name."""

    name: str
    item: str
    count: int
    width: int
    depth: int


class Insert(Write, frozen=True, kw_only=True, tag="insert"):
    """Insert an item into a Bloom filter, created for `expected` items if there is no filter of this name."""

    name: str
    item: str
    expected: int
    wrong: float
    """The rate of false positives it is made for."""


class Rate(Write, frozen=True, kw_only=True, tag="rate"):
    """Count evaluations in decaying rates, and track these half-lives from now on."""

    satisfied: int = 0
    violated: int = 0
    id: str | None = None
    half_lives: tuple[float, ...]


class FoldRates(Write, frozen=True, kw_only=True, tag="fold rates"):
    """Move the node's own decaying rates of some constraints to those of no constraint in particular."""

    ids: tuple[str, ...]


class Decay(Write, frozen=True, kw_only=True, tag="decay"):
    """Add to a decaying counter."""

    name: str
    half_life: float
    amount: float


class Increment(Write, frozen=True, kw_only=True, tag="increment"):
    """A PLATO client sends the increment with this number, and those after it in order.

    The counts have no default: a client counts the same under one number in all steps, also in shrunk steps.
    """

    client: str
    seq: int
    satisfied: int
    violated: int
    more: tuple[tuple[int, int], ...] = ()
    """(satisfied, violated) of the increments after it."""


class Tell(Write, frozen=True, kw_only=True, tag="tell"):
    """State the node's verdict on a constraint."""

    id: str
    state: str | None = None
    """A `VerdictState`; None for nothing to tell."""
    since: int = 0
    """ns since the epoch."""


class Spend(Write, frozen=True, kw_only=True, tag="spend"):
    """Add to the time of a constraint by verdict, in ms."""

    id: str
    satisfied: int = 0
    violated: int = 0
    unknown: int = 0


class Measure(Write, frozen=True, kw_only=True, tag="measure"):
    """State the variables that the node measures, with their kinds."""

    variables: tuple[tuple[str, str], ...] = ()


class ShareReading(Write, frozen=True, kw_only=True, tag="share"):
    """Share the value of a variable with the fleet, measured now."""

    name: str
    value: float | str | bool | None = None
    """None withdraws the reading."""


class Describe(Write, frozen=True, kw_only=True, tag="describe"):
    """Tell the site of the node."""

    site: str = ""


class Budget(Write, frozen=True, kw_only=True, tag="budget"):
    """Define a budget, acquire, renew or release of it, or bring the cells of the node up to date."""

    act: str
    """`define`, `retire`, `acquire`, `renew`, `release` or `tend`."""
    name: str
    at: int
    """The true time in ns, by which holders are counted."""
    amount: int = 0
    """The limit, or the amount to hold."""
    place: int = 0
    """Which of the holds of the node, modulo their number."""
    lease: int = 0
    """ns."""
    nodes: tuple[str, ...] = ()
    """Those with a share; of a retirement those declared gone."""


class Collect(Step, frozen=True, kw_only=True, tag="collect"):
    """Drop tombstones."""

    acknowledged: bool = False
    """Only tombstones all known peers have given evidence of."""


class Begin(Step, frozen=True, kw_only=True, tag="begin"):
    """Send the first message of an exchange."""

    peer: str
    bare: bool = False
    """Send a Ping, also where the node would begin with another message."""
    room: int = 0
    """The largest message in bytes; 0: the node's default."""


class Stale(Step, frozen=True, kw_only=True, tag="stale"):
    """Send the Delta or Sync that serves a clock some node was at long ago."""

    peer: str
    back: int
    """The index among the clocks noted so far, modulo their number."""
    room: int = 0


class Deliver(Step, frozen=True, kw_only=True, tag="deliver"):
    """A message arrives at the node, which answers."""

    message: MessageName
    again: bool = False
    """The message will arrive once more."""
    cut: int = 0
    """The number of arriving bytes; 0: all."""
    room: int = 0


class WholeExchange(Step, frozen=True, kw_only=True, tag="exchange"):
    """A whole undisturbed exchange."""

    peer: str


class Crash(Step, frozen=True, kw_only=True, tag="crash"):
    """The node is killed. Writes not on disk are lost."""


class Backup(Step, frozen=True, kw_only=True, tag="backup"):
    """The node's disk is copied."""


class SetClock(Step, frozen=True, kw_only=True, tag="set clock"):
    """The node's clock is set: `time` is the reading after it."""

    by: int
    """ns."""


class Start(Step, frozen=True, kw_only=True, tag="start"):
    """A node starts, for the first time or again."""

    disk: str = "kept"
    """`kept`: as the node left it. `doubtful`: the same, but not vouched for. `copied`: the last backup. `lost`: empty.

    `rolled back`: the last backup, wrongly vouched for, and an exchange with `peer` before any write; as `copied` unless the peer
    knows all writes of that life, since nothing shows the loss of writes that no node knows.
    """
    peer: str = ""
    incarnation: int = 0
    """The incarnation of a life that begins without a store; 0: a new incarnation."""


AnyStep: TypeAlias = (
    Add
    | Remove
    | Record
    | Fold
    | Move
    | Count
    | Tile
    | Expire
    | Retire
    | Undo
    | CountItem
    | Insert
    | Rate
    | FoldRates
    | Decay
    | Increment
    | Tell
    | Spend
    | Measure
    | ShareReading
    | Describe
    | Budget
    | Collect
    | Begin
    | Stale
    | Deliver
    | WholeExchange
    | Crash
    | Backup
    | SetClock
    | Start
)


TILE_ACTS: Final = ("put", "delete", "restore", "purge", "tag", "untag")
TOGETHER: Final = "increments taken together"
AGAIN: Final = "increment known already"

WRITES: Final = (
    *sorted(
        str(each.__struct_config__.tag) for each in get_args(AnyStep) if issubclass(each, Write) and each not in (Tile, Budget)
    ),
    *(f"tile {act}" for act in TILE_ACTS),
    AGAIN,
)
"""Every kind of write. A search in which any of them never occurred has not covered it. (`TOGETHER` is a rare effect of some of
them: reported, but not required of a short search.)
"""

BUDGET_ACTS: Final = ("acquire", "define", "release", "renew", "retire", "tend")
OF_BUDGETS: Final = tuple(f"budget {act}" for act in BUDGET_ACTS)
"""The kinds of writes that only histories with budgets have."""

OF_SITES: Final = str(Describe.__struct_config__.tag)
"""The kind of write that only histories with sites have."""

SummaryStep: TypeAlias = CountItem | Insert | Rate | FoldRates | Decay | Increment
"""Steps that add to a sketch, a Bloom filter, decaying values or the increments of clients."""

Named = set[tuple[int, object, Replica, int]]
"""Kind, key, replica and seq of the cells a removal ends."""


def do(node: GossipNode, step: Write) -> None:
    """Let the node carry out a step. Raises as the node does."""
    match step:
        case Add():
            node.add_constraint(
                step.id, when=step.when, about=step.about, ttl=step.ttl, for_=step.for_, clear_after=step.clear_after,
                clear_when=step.clear_when, if_unknown=step.if_unknown, max_age=step.max_age,
            )  # fmt: skip
        case Remove():
            node.remove_constraint(step.id)
        case Record():
            node.record(step.satisfied, step.violated, constraint=step.id)
        case Fold():
            node.fold(step.ids)
        case Move():
            node.update_position((step.a, step.b))
        case Count():
            counter = node.state.counters[step.name]
            move = counter.increment if step.by > 0 else counter.decrement
            node.write(lambda me: move(abs(step.by), node=me))
        case Tile():
            _do_to_tile(node, step)
        case Expire():
            node.remove_expired()
        case Retire() | Undo():
            (node.retire if isinstance(step, Retire) else node.undo_retirement)(step.dead)
        case Tell() | Spend() | Measure() | ShareReading() | Describe() | Budget():
            _tell(node, step)
        case CountItem() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            _do_summary(node, step)


def _do_budget(node: GossipNode, step: Budget) -> None:
    """Let the node carry out a step. A process without rights waits, until it gets some or another step of the node comes."""
    escrow, name = node.escrow, step.name
    if step.act == "define":
        escrow.define(name, step.amount, lease=step.lease, nodes=step.nodes)
    elif step.act == "tend":
        escrow.tend()
    elif step.act == "retire":
        known = escrow.budgets.known(name)
        nodes = [each for each in known.nodes() if each not in step.nodes]
        escrow.define(name, known.limit, lease=known.lease, nodes=nodes, without=step.nodes)
    elif step.act == "acquire":
        try:
            escrow.wait(name, None)
            escrow.acquire(name, step.amount, "a process")
        except NoRights:
            if not escrow.goes_on or name not in escrow.budgets:
                raise
            escrow.wait(name, Waiting(step.amount, escrow.now))
            escrow.tend()
    else:
        holds = escrow.budgets.known(name).holds.get(node.replica, NO_HOLDS).holds
        if holds:
            (escrow.renew if step.act == "renew" else escrow.release)(name, holds[step.place % len(holds)].id)


def _tell(node: GossipNode, step: Tell | Spend | Measure | ShareReading | Describe | Budget) -> None:
    match step:
        case Budget():
            _do_budget(node, step)
        case Describe():
            node.describe("", labels={SITE: step.site} if step.site else {})
        case Tell():
            node.record_verdicts({step.id: _verdict(step)})
        case Spend():
            node.record_seconds({step.id: (step.satisfied, step.violated, step.unknown)})
        case Measure():
            node.describe_variables(_variables(step))
        case ShareReading():
            node.share_readings({step.name: None if step.value is None else Reading(step.value, node.time.now())})


def _verdict(step: Tell) -> NodeVerdict | None:
    return None if step.state is None else NodeVerdict(VerdictState(step.state), step.since)


def _variables(step: Measure) -> dict[str, VariableKind]:
    return {name: VariableKind(kind) for name, kind in step.variables}


def _do_to_tile(node: GossipNode, step: Tile) -> None:
    """Raises `KeyError`, before a write begins, if the tile does not allow the act."""
    tile = node.state.tiles.tile(ROOM, step.tile)
    possible = {
        "put": True,
        "tag": True,
        "delete": tile.exists,
        "restore": tile.deleted,
        "purge": tile.exists or tile.deleted,
        "untag": step.text in tile.tags,
    }
    if not possible[step.act]:
        raise UnknownName(step.tile, "tile")
    match step.act:
        case "put":
            node.write(lambda me: tile.put(step.text, node=me))
        case "tag":
            node.write(lambda me: tile.edit(node=me, add_tags=[step.text]))
        case "untag":
            node.write(lambda me: tile.edit(node=me, remove_tags=[step.text]))
        case "delete":
            node.write(lambda me: tile.delete(node=me))
        case "restore":
            node.write(lambda me: tile.restore(node=me))
        case "purge":
            node.write(lambda me: tile.purge(node=me))


class Expected(NamedTuple):
    """The expected result of a mutation."""

    counted: CountsById
    """The amounts by which it moves the counts."""
    named: Named | None
    """The cells it has to name as removed; with `some`: at most these. None: those its type prescribes."""
    some: bool = False
    contributions: tuple[Contribution, ...] = ()
    """Its contributions to summaries."""
    nothing: bool = False
    """Nothing is to be written, except the beginning of a life."""


def parts(step: Write) -> Sequence[Write]:
    """The mutations of a step, in order."""
    if not isinstance(step, Increment) or not step.more:
        return (step,)
    counts = ((step.satisfied, step.violated), *step.more)
    return [
        msgspec.structs.replace(step, seq=step.seq + place, satisfied=satisfied, violated=violated, more=())
        for place, (satisfied, violated) in enumerate(counts)
    ]


def kinds(step: Write, cells: Sequence[Cell]) -> list[str]:
    """The kinds of writes carried out, by the written cells except those at the beginning of a life: of `WRITES`."""
    if not isinstance(step, Retire) and all(cell.kind == RETIRE for cell in cells):
        return [AGAIN] if isinstance(step, Increment) else []
    kind = f"{step.__struct_config__.tag} {step.act}" if isinstance(step, Tile | Budget) else str(step.__struct_config__.tag)
    return [kind, TOGETHER] if any(cell.kind == APPLIED for cell in cells) else [kind]


def expected(node: GossipNode, step: Write, log: Invariants, *, writes_on: bool) -> Expected:
    """The expected result of a step. `writes_on`: the node continues its row; else it begins a new life first."""
    match step:
        case Add():
            ended = _adds(log, node, step.id)
            if is_done(node, step):
                ended = set()  # in force already: nothing to write
            elif writes_on:  # it takes over the cell of its own row
                ended = {each for each in ended if each[2] != node.replica}
            return Expected({}, ended)
        case Remove():
            return Expected({}, _adds(log, node, step.id))
        case Record():
            return Expected({step.id or "": (step.satisfied, step.violated)}, set())
        case Fold():
            return _folded(node, step, writes_on=writes_on)
        case Tile():
            return Expected({}, None)
        case Expire():
            over = log.expired_by(node, node.time.now() - 2 * node.time.max_skew)
            return Expected({}, {(ADD, key, dot.replica, dot.seq) for key, dot in over}, some=True)
        case Tell() | Spend() | Measure():
            return Expected({}, set(), contributions=(_told(node, step, log.model(node.node_id)),))
        case ShareReading():
            return _shared(node, step, log.model(node.node_id), writes_on=writes_on)
        case CountItem() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            return _summed(node, step, log, writes_on=writes_on)
    return Expected({}, set())


def _told(node: GossipNode, step: Tell | Spend | Measure, model: Model) -> Contribution:
    """The time, or the statement in place of those of all lives of the node known to it."""
    if isinstance(step, Spend):
        return TimeSpent(step.id, (step.satisfied, step.violated, step.unknown))
    kind, key = (VERDICT, step.id) if isinstance(step, Tell) else (VARIABLES, NODE_KEY)
    over = model.statements.lives(kind, key, node.node_id) - {node.replica}
    if isinstance(step, Measure):
        return Statement(kind, key, _variables(step), over)
    verdict = _verdict(step)
    return Statement(kind, key, verdict and verdict[:2], over)


def _shared(node: GossipNode, step: ShareReading, model: Model, *, writes_on: bool) -> Expected:
    """The reading, with the time it is to have. Nothing where it is the last reading of this life already, or withdrawn already."""
    last = model.readings.last(node.node_id, step.name)
    if step.value is None and (last is None or last[2] is None):
        return Expected({}, set(), nothing=True)
    me = node.replica if writes_on else Replica(node.node_id, 0)  # a life that is not known yet
    now = None if step.value is None else node.time.now() // TENTH
    shared = SharedValue(step.name, step.value, model.readings.next_time(me, step.name, now))
    known = last == (shared.time, me, step.value)
    return Expected({}, set(), contributions=() if known else (shared,), nothing=known)


def _adds(log: Invariants, node: GossipNode, id_: str) -> Named:
    return {(ADD, id_, dot.replica, dot.seq) for dot in log.standing(node.node_id, ADD, id_)}


def _folded(node: GossipNode, step: Fold, *, writes_on: bool) -> Expected:
    """Counts of the node's own row move to its total. A life that begins has none."""
    found = {id_: node.state.rows.get(COUNTS, id_, node.replica) for id_ in step.ids} if writes_on else {}
    cells = {id_: cell for id_, cell in found.items() if cell is not None}
    moved = {id_: counts_value(cell) for id_, cell in cells.items()}
    total = sum(each[0] for each in moved.values()), sum(each[1] for each in moved.values())
    counted = {id_: (-each[0], -each[1]) for id_, each in moved.items()}
    named: Named = {(COUNTS, id_, cell.replica, cell.seq) for id_, cell in cells.items()}
    return Expected(counted | {"": total}, named, contributions=(TimeFolded(step.ids),) if writes_on else ())


def _summed(node: GossipNode, step: SummaryStep, log: Invariants, *, writes_on: bool) -> Expected:
    contributions = _contributions(node, step, log.model(node.node_id), writes_on=writes_on)
    named: Named | None = set()
    if isinstance(step, FoldRates) and writes_on:
        cells = {id_: node.state.rows.get(RATE, id_, node.replica) for id_ in step.ids}
        named = {(RATE, id_, cell.replica, cell.seq) for id_, cell in cells.items() if cell is not None}
    elif isinstance(step, Increment) and contributions:
        named = None
    return Expected({}, named, contributions=contributions, nothing=not contributions)


def may_refuse(node: GossipNode, step: Write, log: Invariants) -> bool:
    """True if the node has a reason to refuse the step."""
    if node.retired_by is not None:
        return True
    match step:
        case Add():
            return step.ttl is not None and node.time.doubt is not None and not node.time.doubt.agreed
        case Tile():
            return step.act not in ("put", "tag")
        case Budget():
            return True
        case Remove():
            return step.id not in log.active(node)
        case Undo():
            return step.dead not in node.state.retirements
        case Retire():
            return step.dead == node.node_id or all(replica.node_id != step.dead for replica in node.clock)
        case CountItem() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            return _may_refuse_summary(node, step, log.model(node.node_id))
    return False


def is_done(node: GossipNode, step: Write) -> bool:
    """True if the node itself reads the result of the step."""
    constraints, now = node.state.constraints, node.time.now()
    match step:
        case Add():
            return constraints.definitions(step.id) == (_definition(step, now),)
        case Remove():
            return step.id not in constraints
        case Move():
            return node.state.position == (step.a, step.b)
        case Tile():
            return _tile_is_so(node, step)
        case Retire():
            return step.dead in node.state.retirements
        case Undo():
            return step.dead not in node.state.retirements
        case Describe():
            cell = node.state.rows.get(NODE, "", node.replica)
            return cell is not None and dict(node_value(cell).labels).get(SITE, "") == step.site
        case Tell() | Spend() | Measure() | ShareReading():
            return _is_told(node, step)
        case CountItem() | Insert() | Rate() | FoldRates() | Decay() | Increment():
            return _summary_is_done(node, step)
    return True


def _definition(step: Add, now: int) -> Definition:
    return Definition(
        when=step.when,
        about=step.about,
        expires_at=None if step.ttl is None else now + round(step.ttl * SECOND),
        for_=round(step.for_ * SECOND),
        clear_after=round(step.clear_after * SECOND),
        clear_when=step.clear_when,
        if_unknown=step.if_unknown,
        max_age=None if step.max_age is None else round(step.max_age * SECOND),
    )


def _is_told(node: GossipNode, step: Tell | Spend | Measure | ShareReading) -> bool:
    state = node.state
    match step:
        case Tell():
            return step.id not in state.rows.table(ADD) or state.verdicts.of(step.id).get(node.node_id) == _verdict(step)
        case Spend():
            times = (step.satisfied, step.violated, step.unknown)
            found = state.metrics.time_on(step.id).get(node.node_id, (0.0,) * 3)
            return all(1000 * has >= more for has, more in zip(found, times, strict=True))
        case Measure():
            return state.variables.of(node.node_id) == _variables(step)
        case ShareReading():
            shown = state.readings.of(node.node_id).get(step.name)
            return (None if shown is None else shown.value) == step.value


def _tile_is_so(node: GossipNode, step: Tile) -> bool:
    tile = node.state.tiles.tile(ROOM, step.tile)
    match step.act:
        case "put":
            return tile.exists and tile.text == step.text
        case "tag":
            return step.text in tile.tags
        case "untag":
            return step.text not in tile.tags
        case "restore":
            return not tile.deleted
        case _:
            return not tile.exists


# --- summaries ------------------------------------------------------------------------------------------------------


def _do_summary(node: GossipNode, step: SummaryStep) -> None:
    """Let the node carry out a step, as the running node does. Raises as the node does."""
    state = node.state
    match step:
        case CountItem():
            sketch = _sketch(node, step)
            node.write(lambda me: sketch.record(step.item, step.count, node=me))
        case Insert():
            bloom = _bloom(node, step)
            node.write(lambda me: bloom.insert(step.item, node=me))
        case Rate():
            state.rates.track(step.half_lives)
            node.write(lambda me: state.rates.record(me, step.satisfied, step.violated, constraint=step.id))
        case FoldRates():
            node.write(lambda me: state.rates.fold(step.ids, node=me))
        case Decay():
            counter = state.decay(step.name, step.half_life)
            node.write(lambda me: counter.record(step.amount, node=me))
        case Increment():
            counts = PlatoCounter(node=step.client, seq=step.seq, satisfied_delta=step.satisfied, violations_delta=step.violated)
            delta = PlatoDelta(node=step.client, seq=step.seq, counter=counts, constraints=[], position=None)
            node.write(lambda me: apply_delta(state, ROOM, delta, me))


def _sketch(node: GossipNode, step: CountItem) -> SketchCRDT:
    sketches = node.state.sketches
    return sketches[step.name] if step.name in sketches else sketches.open(step.name, SketchShape(step.width, step.depth))


def _bloom(node: GossipNode, step: Insert) -> BloomCRDT:
    blooms = node.state.blooms
    return blooms[step.name] if step.name in blooms else node.state.bloom(step.name, step.expected, step.wrong)


def _contributions(node: GossipNode, step: SummaryStep, model: Model, *, writes_on: bool) -> tuple[Contribution, ...]:
    """The contributions to log; none if nothing is to be written. `model`: the state of the node before the step."""
    match step:
        case CountItem():
            shape: Shape = model.sketches.meant(step.name) or SketchShape(step.width, step.depth)
            return (ItemCount(step.name, shape, step.item, step.count),) if step.count else ()
        case Insert():
            shape = model.filters.meant(step.name) or BloomShape.of(step.expected, step.wrong)
            return (ItemInsertion(step.name, shape, step.item),)
        case Rate():
            if not step.satisfied and not step.violated:
                return ()
            key, own = step.id or "", node.time.own()
            held = _held(node, model, RATE, key, writes_on=writes_on)
            counted = dict.fromkeys(step.half_lives, (float(step.satisfied), float(step.violated)))
            return (DecayedValues(RATE, key, own, _sum(held, counted)),)
        case FoldRates():
            return _folded_rates(node, step, model, writes_on=writes_on)
        case Decay():
            held = _held(node, model, DECAY, step.name, writes_on=writes_on)
            values = held | _sum(held, {step.half_life: (step.amount,)})
            return (DecayedValues(DECAY, step.name, node.time.own(), values),)
        case Increment():
            known = model.knows(step.client, step.seq)
            return () if known else (ClientIncrement(step.client, step.seq, (step.satisfied, step.violated)),)


def _held(node: GossipNode, model: Model, kind: int, key: str, *, writes_on: bool) -> Values:
    """The remaining values in the node's own cell. A life that begins has none."""
    return model.decays.left(kind, key, node.replica, node.time.own()) if writes_on else {}


def _sum(held: Mapping[float, tuple[float, ...]], more: Mapping[float, tuple[float, ...]]) -> Values:
    """The half-lives of `more`, each added to the held values."""
    return {
        half_life: tuple(a + b for a, b in zip(held.get(half_life, (0.0,) * len(values)), values, strict=True))
        for half_life, values in more.items()
    }


def _folded_rates(node: GossipNode, step: FoldRates, model: Model, *, writes_on: bool) -> tuple[Contribution, ...]:
    """The remaining values of the node's own cells move to those of no constraint, at the half-lives it tracks."""
    own = node.time.own()
    found = {id_: held for id_ in step.ids if (held := _held(node, model, RATE, id_, writes_on=writes_on))}
    if not found:
        return ()
    nothing: Values = dict.fromkeys(node.state.rates.half_lives, (0.0, 0.0))
    total = nothing
    for held in (_held(node, model, RATE, "", writes_on=writes_on), *found.values()):
        total = _sum(held, total)
    return (DecayedValues(RATE, "", own, total), *(DecayedValues(RATE, id_, own, {}) for id_ in found))


def _may_refuse_summary(node: GossipNode, step: SummaryStep, model: Model) -> bool:
    """True if the name stands for a table of other dimensions than those of the node's own row."""
    match step:
        case CountItem():
            own, meant = model.sketches.shape(step.name, node.replica), model.sketches.meant(step.name)
        case Insert():
            own, meant = model.filters.shape(step.name, node.replica), model.filters.meant(step.name)
        case _:
            return False
    return own is not None and own != meant


def _summary_is_done(node: GossipNode, step: SummaryStep) -> bool:
    """True if the node itself reads the result of the step."""
    state = node.state
    match step:
        case CountItem():
            return not step.count or state.sketches[step.name].estimate(step.item) >= step.count
        case Insert():
            return step.item in state.blooms[step.name]
        case Rate():
            key = step.id or ""
            found = (state.rates.rates(half_life, key, node.node_id) for half_life in step.half_lives)
            return all(each.satisfied >= step.satisfied and each.violated >= step.violated for each in found)
        case FoldRates():
            return all(state.rows.get(RATE, id_, node.replica) is None for id_ in step.ids)
        case Decay():
            return state.decay(step.name, step.half_life).node_value(node.node_id) >= step.amount
        case Increment():
            return state.increments.knows(ROOM, step.client, step.seq)
