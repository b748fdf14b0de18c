"""Evaluation: constraints judged when something is measured, and the results counted, timed and told.

Judgements are frequent, so counts gather in memory and are written in a cell per constraint and interval, at most. A killed node
loses the counts of an interval. Counts wait while writes are refused.

Rules kept here:

- A sample is judged when it comes in, before `measure` returns. A look at each tick moves what depends on time alone.
- A tick that comes late by more than `SUSPENDED` means that the node was not running: nothing is known of the time between.
- The state of a constraint is told in a cell when it turns. The first turn is told at once; a constraint that turns often is told
  every `TOLD_EVERY` at most, always with its last state.
"""


from constraint_crdt.crdt.clock import SECOND

JUDGED_AT_ONCE = 500
"""Constraints judged in a turn of the loop. They take some milliseconds."""

RENEWED_AT_ONCE = 20
"""New or redefined constraints read in a turn of the loop. Compiling an expression takes up to a millisecond."""

SUSPENDED = 5 * SECOND
"""The delay of a tick above which the node counts as suspended, in ns."""


class Evaluator:
    """Judges the active constraints of a node, and writes the results."""

    def __init__(
        self, gossip: GossipNode, feed: ChangeFeed, measurements: LatestMeasurements, rates: NodeRates, sketches: NodeSketches
    ) -> None:
        self._gossip = gossip
        self._feed = feed
        self._measurements = measurements
        self._rates = rates
        self._sketches = sketches
        self.judge = Judge(gossip.state.constraints, measurements, lambda: gossip.labels, gossip.time.now)
        self.changes = 0
        """Grows with each evaluation that differs from the last."""
        self._subscribers: list[Callable[[str], None]] = []
        self._ticked: int | None = None

    def subscribe(self, subscriber: Callable[[str], None]) -> None:
        """Call `subscriber` with each constraint whose evaluation differs from the last."""
        self._subscribers.append(subscriber)

    # --- judging -----------------------------------------------------------------------------------------------------------

    async def measure(self, values: Mapping[str, object], source: str = PROGRAM) -> None:
        """Take measurements in, and judge the constraints that read them.

        Raises `ConstraintCrdtError` for a name that no expression can read and for a value out of bounds; takes none then.
        """
        now = time.monotonic_ns()
        self._measurements.put(values, now, source)
        await self._judge(self.judge.readers(values), now)

    async def check(self, values: Mapping[str, object]) -> list[Evaluation]:
        """Judge all constraints against these values and the latest measurements. Other tasks run in between."""
        await self._renew()
        now = time.monotonic_ns()
        return await self._judge(self.judge.ids, now, _Given(self._measurements, values))

    async def tick(self) -> None:
        """Judge new and redefined constraints, and look at those that time moves."""
        now = time.monotonic_ns()
        if self._ticked is not None and now - self._ticked > SUSPENDED:
            self.judge.suspend(self._ticked)
        self._ticked = now
        await self._renew()
        for at, names in self._measurements.aged(now).items():
            self.judge.aged(self.judge.readers(names), at)
        self.judge.look(now)
        self._publish()

    async def _renew(self) -> None:
        ids = self.judge.stale
        for start in range(0, len(ids), RENEWED_AT_ONCE):
            now = time.monotonic_ns()
            self.judge.judge(self.judge.renew(ids[start : start + RENEWED_AT_ONCE], now), now)
            self._publish()
            await asyncio.sleep(0)

    async def _judge(self, ids: Sequence[str], now: int, values: Values | None = None) -> list[Evaluation]:
        evaluations = []
        for start in range(0, len(ids), JUDGED_AT_ONCE):
            evaluations += self.judge.judge(ids[start : start + JUDGED_AT_ONCE], now, values)
            self._publish()
            if start + JUDGED_AT_ONCE < len(ids):
                await asyncio.sleep(0)
        return evaluations

    def _publish(self) -> None:
        """Tell the node of changed evaluations and of turns."""
        changed, turns = self.judge.take_changes()
        self.changes += len(changed)
        for id_ in changed:
            for subscriber in self._subscribers:
                subscriber(id_)
        if turns:
            self._feed.evaluate(turns)

    def recorded(self, constraint: str | None, satisfied: int, violations: int) -> None:
        """Evaluations made elsewhere were written: count them in the recent rates and the most violated, too."""
        self._sketches.note({constraint: (satisfied, violations)})
        self._rates.note({constraint: (satisfied, violations)})

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def write_counts(self) -> None:
        """Write the counts."""
        if self._feed.writable and (counts := self.judge.take_counts()):
            self._feed.write(lambda: self._gossip.record_all(counts))
            self._sketches.note(counts)
            self._rates.note(counts)

    async def write_sketches(self) -> None:
        """Write the counts of violations to the sketch."""
        if self._sketches.waiting and self._feed.writable:
            self._feed.write(self._sketches.write_waiting)

    async def write_rates(self) -> None:
        """Write the recent rates."""
        if self._rates.waiting and self._feed.writable:
            self._feed.write(self._rates.write_waiting)


class _Given:
    """Values given for a check, in front of the measured ones. None: the variable is missing."""

    def __init__(self, measured: LatestMeasurements, given: Mapping[str, object]) -> None:
        self._measured = measured
        self._given = given

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements: 
        """See `Values.read`."""
        ...
