"""What a node answers in approximation: how often each of very many things occurred, and which ids any node has seen.

Rules: what this node counts as violated gathers here and is written once per interval, so that the sketch costs the fleet no more
gossip the more often constraints are violated; what this node itself has gathered shows in its own answers at once. A node that is
killed loses the gathered part: the exact counts are in the metrics.
"""

from collections.abc import Mapping, Sequence

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.shared import Told
from constraint_crdt.types.bloom import BloomCRDT
from constraint_crdt.types.sketch import Frequent, SketchCRDT, SketchShape

VIOLATIONS = "violations"
"""The sketch that nodes keep by themselves: violations by constraint."""

MAX_ITEMS = 10_000
"""In one call. So many hold the node up for some hundredths of a second."""

MAX_TOP = 1000
DEFAULT_EXPECTED_ITEMS = 100_000
DEFAULT_FP_RATE = 0.01


class TopItem(msgspec.Struct, frozen=True, kw_only=True):
    """One frequent item."""

    item: str
    estimate: int
    lower: int
    """With the sketch's probability not above the truth."""
    upper: int | None
    """Never below the truth, which makes it the estimate; None if the sketch is saturated."""
    share: float
    exact: int | None
    """Of the violations of an active constraint: their exact count."""


class TopReport(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent items of one sketch."""

    of: str
    total: int
    error_bound: float
    """By how much an estimate exceeds the truth at most, but for a share `delta` of the items."""
    delta: float
    saturated: bool
    writers: int
    items: tuple[TopItem, ...]


class TallyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What recording has changed."""

    name: str
    recorded: int
    total: int


class SeenReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an item was ever inserted, anywhere."""

    name: str
    item: str
    seen: bool
    fpr: float
    """The probability that an item which was never inserted shows as seen."""


class InsertReport(msgspec.Struct, frozen=True, kw_only=True):
    """What inserting has changed."""

    name: str
    items: int
    new: int
    """How many of them had not been seen, as far as is known here."""
    fpr: float


class NodeApproximate:
    """The sketches and Bloom filters of one node."""

    def __init__(self, gossip: GossipNode, told: Told) -> None:
        self._gossip = gossip
        self._told = told
        self._violations: SketchCRDT = gossip.state.sketches.view(VIOLATIONS, SketchShape.default())
        self._waiting: dict[str, int] = {}

    # --- what the node itself counts -------------------------------------------------------------------------------------

    def note(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Gather the violations among these (satisfied, violated) counts by constraint."""
        for constraint, (_, violated) in counts.items():
            if constraint is not None and violated:
                self._waiting[constraint] = self._waiting.get(constraint, 0) + violated

    @property
    def waiting(self) -> bool:
        """True if something was gathered that is not written yet."""
        return bool(self._waiting)

    def write_waiting(self) -> None:
        """Write what was gathered. What cannot be written waits on."""
        self._gossip.write(lambda me: self._violations.record_all(self._waiting, node=me))
        self._waiting = {}

    # --- how often -------------------------------------------------------------------------------------------------------

    async def record(self, name: str, counts: Mapping[str, int]) -> TallyReport:
        """Count items in the sketch of this name, which the first record begins, with the default dimensions.

        Raises as `SketchCRDT.record_all` does, and `ConstraintCrdtError` for too many at once and for `violations`.
        """
        if name == VIOLATIONS:
            raise ConstraintCrdtError(
                f"the sketch {VIOLATIONS} is what nodes count themselves: record a violation, or name another"
            )
        _check_number(len(counts))
        state = self._gossip.state
        sketch = state.sketches[name] if name in state.sketches else state.sketch(name)
        await self._told(lambda: self._gossip.write(lambda me: sketch.record_all(counts, node=me)))
        return TallyReport(name=name, recorded=sum(counts.values()), total=sketch.total)

    def top(self, k: int = 10, of: str = VIOLATIONS) -> TopReport:
        """The `k` most frequent items of a sketch.

        Raises `KeyError` for a sketch that there is not, and `ValueError` for a `k` out of bounds.
        """
        if not 1 <= k <= MAX_TOP:
            raise ValueError(f"the number of items must be from 1 to {MAX_TOP}, not {k}")
        own = of == VIOLATIONS
        sketch = self._violations if own else self._gossip.state.sketches[of]
        waiting = self._waiting if own else {}
        total = sketch.total + sum(waiting.values())
        found = {each.item: each for each in sketch.top(k)} | {item: sketch.about(item) for item in waiting}
        reports = [self._item(sketch, each, waiting.get(each.item, 0), total, own=own) for each in found.values()]
        reports.sort(key=lambda report: (-report.estimate, report.item))
        return TopReport(
            of=of,
            total=total,
            error_bound=sketch.error_bound,
            delta=sketch.delta,
            saturated=sketch.saturated,
            writers=sketch.writers,
            items=tuple(reports[:k]),
        )

    def _item(self, sketch: SketchCRDT, found: Frequent, waiting: int, total: int, *, own: bool) -> TopItem:
        state, estimate = self._gossip.state, found.estimate + waiting
        return TopItem(
            item=found.item,
            estimate=estimate,
            lower=found.at_least + waiting,
            upper=None if sketch.saturated else estimate,
            share=estimate / total,
            exact=state.metrics.constraint_violations(found.item) if own and found.item in state.constraints else None,
        )

    # --- whether ever ----------------------------------------------------------------------------------------------------

    async def insert(
        self, name: str, items: Sequence[str], *, expected_items: int | None = None, fp_rate: float | None = None
    ) -> InsertReport:
        """Put items into the Bloom filter of this name, which the first insertion begins; by default for 100,000 items at 1 %.

        Raises `ConstraintCrdtError` for too many at once, for what is no text, and for other dimensions than those that stand.
        """
        _check_number(len(items))
        state = self._gossip.state
        if name in state.blooms and expected_items is None and fp_rate is None:
            bloom = state.blooms[name]
        else:
            expected = DEFAULT_EXPECTED_ITEMS if expected_items is None else expected_items
            bloom = state.bloom(name, expected, DEFAULT_FP_RATE if fp_rate is None else fp_rate)
        new = await self._told(lambda: self._gossip.write(lambda me: bloom.insert_all(items, node=me)))
        return InsertReport(name=name, items=len(items), new=new, fpr=bloom.estimated_fpr)

    def seen(self, name: str, item: str) -> SeenReport:
        """Whether an item was inserted, on any node as far as is known here. Raises `KeyError` for a filter that there is not."""
        bloom: BloomCRDT = self._gossip.state.blooms[name]
        return SeenReport(name=name, item=item, seen=item in bloom, fpr=bloom.estimated_fpr)


def _check_number(items: int) -> None:
    if items > MAX_ITEMS:
        raise ConstraintCrdtError(f"{items} items are more than the {MAX_ITEMS} taken at once: send them in several goes")
