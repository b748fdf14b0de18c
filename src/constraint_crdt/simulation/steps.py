"""Steps: the atomic operations of a history, in which nothing is left to chance.

A history is a fleet at its start and a list of steps. `chaos` and `scenario` decide the steps and their order; the effect of a step
follows from the steps before it. So a list of steps is enough to replay a history, and any part of the list is a history too.

Rules kept here:

- A step with nothing to act on (a stopped node, a message never sent) does nothing.
- A step has a number for life. Its messages are named by that number and their order, so they keep their names when other steps are
  left out.
"""

from typing import TypeAlias

import msgspec

from constraint_crdt.model import IfUnknown

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
