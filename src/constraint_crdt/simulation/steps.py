"""Steps: what a history is made of, each of them atomic and nothing left to chance.

A history is the fleet at its start and a list of steps. Whoever draws one (`chaos`) decides when what happens; what the step then
does follows from the steps before it, so a list of steps alone replays a history, and a list with some left out is a history too:
a step that finds nothing to act on (a node that is down, a message that was never sent) does nothing.

A step has a number for life, and the messages it sends are named by that number and their order, so they are still the same
messages when other steps are left out.
"""

from typing import TypeAlias

import msgspec

MessageName: TypeAlias = tuple[int, int]
"""The number of the step that sent it, and which of its messages."""


LEAST_ROOM = 130
"""Bytes of a message: so few that little has to be told for it to travel in parts."""


class Member(msgspec.Struct, frozen=True):
    """A node that is there at the start."""

    name: str
    incarnation: int


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do"):
    """What all steps have."""

    number: int
    node: str
    """Who does it, or has it done to it."""
    time: int = 0
    """What its clock shows then, in ns; 0 for what it showed before."""


class Write(Step, frozen=True, kw_only=True):
    """A mutation by the node itself."""

    unsaved: bool = False
    """Not acknowledged to whoever asked: it is on disk only once the node next says something."""


class Add(Write, frozen=True, kw_only=True, tag="add"):
    """Add a constraint, or edit it."""

    id: str
    when: str | None = None
    about: str | None = None
    ttl: float | None = None
    """Seconds that it lasts."""


class Remove(Write, frozen=True, kw_only=True, tag="remove"):
    """Remove a constraint, if it is active."""

    id: str


class Record(Write, frozen=True, kw_only=True, tag="record"):
    """Count evaluations."""

    satisfied: int = 0
    violated: int = 0
    id: str | None = None


class Fold(Write, frozen=True, kw_only=True, tag="fold"):
    """Take the node's own counts of some constraints into its total."""

    ids: tuple[str, ...]


class Move(Write, frozen=True, kw_only=True, tag="move"):
    """Move the fleet's position."""

    a: int
    b: int


class Count(Write, frozen=True, kw_only=True, tag="count"):
    """Move a named counter."""

    name: str
    by: int


class Tile(Write, frozen=True, kw_only=True, tag="tile"):
    """Do something to a tile, if that can be."""

    tile: str
    act: str
    """`put`, `delete`, `restore`, `purge`, `tag` or `untag`."""
    text: str = ""
    """The content, or the tag."""


class Expire(Write, frozen=True, kw_only=True, tag="expire"):
    """Remove the constraints that expired long ago, as far as that is this node's to do."""


class Retire(Write, frozen=True, kw_only=True, tag="retire"):
    """Retire another node for good."""

    dead: str


class Tally(Write, frozen=True, kw_only=True, tag="tally"):
    """Count an item in a sketch, which begins with these dimensions if there is none of this name."""

    name: str
    item: str
    count: int
    width: int
    depth: int


class Insert(Write, frozen=True, kw_only=True, tag="insert"):
    """Put an item into a Bloom filter, which begins for so many items if there is none of this name."""

    name: str
    item: str
    expected: int
    wrong: float
    """The rate of wrong findings that it is made for."""


class Rate(Write, frozen=True, kw_only=True, tag="rate"):
    """Count evaluations that weigh less the older they are, and track these half-lives from now on."""

    satisfied: int = 0
    violated: int = 0
    id: str | None = None
    half_lives: tuple[float, ...]


class FoldRates(Write, frozen=True, kw_only=True, tag="fold rates"):
    """Take what is left of the node's own recent evaluations of some constraints to those of none in particular."""

    ids: tuple[str, ...]


class Decay(Write, frozen=True, kw_only=True, tag="decay"):
    """Add to a counter that forgets."""

    name: str
    half_life: float
    amount: float


class Increment(Write, frozen=True, kw_only=True, tag="increment"):
    """A PLATO client sends the increment that it numbered so, and those after it, one after the other.

    The counts have no default: under one number a client counts the same in all steps, also in shrunk ones.
    """

    client: str
    seq: int
    satisfied: int
    violated: int
    more: tuple[tuple[int, int], ...] = ()
    """(satisfied, violated) of those after it."""


class Collect(Step, frozen=True, kw_only=True, tag="collect"):
    """Drop removals."""

    acknowledged: bool = False
    """Only those that all known peers have given evidence of."""


class Begin(Step, frozen=True, kw_only=True, tag="begin"):
    """Send the first message of an exchange."""

    peer: str
    bare: bool = False
    """A Ping, also where the node would find something else better."""
    room: int = 0
    """Bytes to which messages are cut; 0 for what nodes do by themselves."""


class Stale(Step, frozen=True, kw_only=True, tag="stale"):
    """Send the Delta or Sync that serves a clock which some node was at long ago."""

    peer: str
    back: int
    """Which of the clocks noted so far, modulo their number."""
    room: int = 0


class Deliver(Step, frozen=True, kw_only=True, tag="deliver"):
    """A message arrives at the node, which answers."""

    message: MessageName
    again: bool = False
    """It will arrive once more."""
    cut: int = 0
    """Only so many bytes of it arrive; 0 for all."""
    room: int = 0


class Exchange(Step, frozen=True, kw_only=True, tag="exchange"):
    """A whole exchange that nothing disturbs."""

    peer: str


class Crash(Step, frozen=True, kw_only=True, tag="crash"):
    """The node is killed. What was not on disk is lost."""


class Backup(Step, frozen=True, kw_only=True, tag="backup"):
    """Somebody copies what is on the node's disk."""


class Start(Step, frozen=True, kw_only=True, tag="start"):
    """A node starts: a new one, or one that is down."""

    disk: str = "kept"
    """`kept`: as it was left, and known to be. `doubtful`: as it was left, which nobody can vouch for. `copied`: the last backup.
    `lost`: empty."""
    incarnation: int = 0
    """Of a life that begins without a store; 0 for a new one."""


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
    | Tally
    | Insert
    | Rate
    | FoldRates
    | Decay
    | Increment
    | Collect
    | Begin
    | Stale
    | Deliver
    | Exchange
    | Crash
    | Backup
    | Start
)
