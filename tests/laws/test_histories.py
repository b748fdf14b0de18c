"""Random histories of a fleet against the reference (docs/design/invariants.md, invariants 1 to 4 and 7 to 9).

Five nodes add, edit, extend, remove, count, move and collect; time passes, differently for each. Messages are late, doubled,
reordered, lost, in parts of which some are missing, and made for clocks of long ago; nodes die for good or start again empty.
`Fleet` checks every state that a node reaches.
"""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from constraint_crdt import VectorClock, exchange
from constraint_crdt.crdt.cells import REMOVE
from constraint_crdt.errors import ClockInDoubt

from .fleet import IDS, MESSAGES_PER_EXCHANGE, NAMES, SECOND, Fleet
from .model import Fields

FINAL_ROUNDS = 3
LONG_ENOUGH = 3 * 3600 * SECOND
"""ns after which every node may remove what any other wrote and has expired, also with a clock that was an hour ahead."""
FEWEST_NODES = 3
STEPS_BETWEEN_LOSSES = 4
"""A fleet that forgets all the time has nothing to get wrong."""

Mutate = Callable[[Fleet, str], None]

nodes = st.sampled_from(range(len(NAMES)))
ids = st.sampled_from(IDS)
forms = st.sampled_from(["object", "bytes", "parts"])
any_index = st.integers(0, 2**16)
coordinates = st.integers(-3, 3)
counts = st.integers(0, 3)
sizes = st.integers(40, 70)
"""Of the parts of a message, in bytes."""
Says = tuple[str | None, str, str | None, Fields]
PLAIN: Fields = (0, 0, None, "unknown", None)
SLOW: Fields = (30 * SECOND, SECOND // 2, "v <= 1.5", "unknown", None)
SAFE: Fields = (0, 0, None, "violated", 5 * SECOND)
sayings = st.sampled_from(
    [
        (None, "warning", None, PLAIN),
        ("v <= 1.0", "warning", None, PLAIN),
        ("v <= 2.0", "critical", None, SLOW),
        ("v <= 2.0", "critical", None, SAFE),
        (None, "info", "seen", PLAIN),
    ]
)
ttls = st.sampled_from([None, None, 1, 2, 5])
seconds = st.sampled_from([0, 1, 2, 5, 70])
skews = st.sampled_from([-3600, -2, -1, 0, 0, 0, 1, 2, 3600])


def _add(id_: str, says: Says, ttl: int | None) -> Mutate:
    return lambda fleet, name: fleet.add(name, id_, says, ttl)


def _remove(index: int) -> Mutate:
    def act(fleet: Fleet, name: str) -> None:
        active = sorted(fleet.nodes[name].state.constraints)
        if active:
            fleet.remove(name, active[index % len(active)])

    return act


def _record(constraint: str | None, satisfied: int, violated: int) -> Mutate:
    return lambda fleet, name: fleet.record(name, constraint, satisfied, violated)


def _move(a: int, b: int) -> Mutate:
    return lambda fleet, name: fleet.move(name, (a, b))


adds = st.builds(_add, ids, sayings, ttls)
removals = st.builds(_remove, nodes)
records = st.builds(_record, st.none() | ids, counts, counts)
moves = st.builds(_move, coordinates, coordinates)


class Histories(RuleBasedStateMachine):
    """Whatever happens to a fleet of five."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.quiet = 0
        """Steps since the last time that a node was lost."""

    def _name(self, index: int) -> str:
        alive = sorted(self.fleet.nodes)
        return alive[index % len(alive)]

    # --- mutations ---------------------------------------------------------------------------------------------------

    @rule(mutations=st.lists(st.tuples(nodes, adds | removals | records | moves), min_size=1, max_size=4))
    def mutate(self, mutations: list[tuple[int, "Mutate"]]) -> None:
        """A few mutations here and there: of one's own, of another's, of what was edited or removed before."""
        for index, act in mutations:
            name = self._name(index)
            if self.fleet.may_write(name):
                node = self.fleet.nodes[name]
                before = node.clock, node.state_hash
                try:
                    act(self.fleet, name)
                except ClockInDoubt:  # of an end, by a node with a clock that others contradict
                    assert (node.clock, node.state_hash) == before

    @precondition(lambda self: any(node.state.rows.table(REMOVE) for node in self.fleet.nodes.values()))
    @rule(index=nodes)
    def collect(self, index: int) -> None:
        removed = [node for node in self.fleet.nodes.values() if node.state.rows.table(REMOVE)]
        node = removed[index % len(removed)]
        node.collect()
        self.fleet.observe(node)

    # --- time --------------------------------------------------------------------------------------------------------

    @rule(passed=seconds, node=nodes, skew=skews)
    def pass_time(self, passed: int, node: int, skew: int) -> None:
        """Some time goes by, and somebody sets a clock."""
        self.fleet.time += passed * SECOND
        self.fleet.skews[self._name(node)] = skew * SECOND
        for each in self.fleet.nodes.values():
            self.fleet.observe(each)

    @rule(index=nodes)
    def remove_expired(self, index: int) -> None:
        self.fleet.remove_expired(self._name(index))

    # --- messages ----------------------------------------------------------------------------------------------------

    @rule(pairs=st.lists(st.tuples(nodes, nodes), min_size=1, max_size=4), bare=st.booleans(), form=forms)
    def begin(self, pairs: list[tuple[int, int]], bare: bool, form: str) -> None:
        """The first message of an exchange: a bare Ping, or what the sender finds best."""
        for sender, to in pairs:
            node, peer = self.fleet.nodes[self._name(sender)], self._name(to)
            if node.node_id != peer:
                self.fleet.send(peer, node.ping() if bare else node.begin(peer), form)

    @rule(sender=nodes, readers=st.lists(nodes, min_size=1, max_size=3), index=any_index, form=forms, size=sizes)
    def delta_for_some_clock(self, sender: int, readers: list[int], index: int, form: str, size: int) -> None:
        """A Delta or Sync that was made for a clock of long ago, of whomever, sent to some who may not be there yet."""
        node = self.fleet.nodes[self._name(sender)]
        known = [clock for clock in map(VectorClock, self.fleet.clocks) if node.clock.subsumes(clock)]
        message = node.delta_since(known[index % len(known)])
        for to in readers:
            self.fleet.send(self._name(to), message, form, size)

    @precondition(lambda self: self.fleet.bag)
    @rule(deliveries=st.lists(st.tuples(any_index, st.booleans(), forms), min_size=1, max_size=12))
    def deliver(self, deliveries: list[tuple[int, bool, str]]) -> None:
        for index, keep, form in deliveries:
            if self.fleet.bag:
                self.fleet.deliver(index % len(self.fleet.bag), keep=keep, form=form)

    @precondition(lambda self: self.fleet.bag)
    @rule(times=st.integers(1, 30), keep=st.booleans(), form=forms)
    def deliver_in_order(self, times: int, keep: bool, form: str) -> None:
        """Oldest first, so that transfers in parts have a chance to complete."""
        for index in range(times):
            if index < len(self.fleet.bag):
                self.fleet.deliver(index if keep else 0, keep=keep, form=form)

    @precondition(lambda self: self.fleet.bag)
    @rule(index=any_index, several=st.booleans())
    def lose_messages(self, index: int, several: bool) -> None:
        start = index % len(self.fleet.bag)
        del self.fleet.bag[start : start + (5 if several else 1)]

    @rule(first=nodes, second=nodes, how=st.sampled_from(["exchange", "merge"]))
    def join(self, first: int, second: int, how: str) -> None:
        """One exchange that nothing disturbs leaves both sides equal, whatever they knew of each other; or without messages."""
        a, b = self.fleet.nodes[self._name(first)], self.fleet.nodes[self._name(second)]
        if how == "merge":
            news = not a.state.subsumes(b.state)
            merged = a.state.merged(b.state)
            assert a.state.merge(b.state) == news
            assert a.state == merged
            self.fleet.observe(a)
        elif a is not b:
            before = a.rounds + b.rounds
            exchange(a, b)
            assert a.state_hash == b.state_hash
            assert a.rounds + b.rounds - before <= MESSAGES_PER_EXCHANGE

    # --- lives -------------------------------------------------------------------------------------------------------

    @invariant()
    def time_passes(self) -> None:
        self.quiet += 1

    @precondition(lambda self: self.quiet > STEPS_BETWEEN_LOSSES)
    @rule(node=nodes, how=st.sampled_from(["new life", "same life", "same life, hears", "for good"]), other=nodes)
    def lose_a_node(self, node: int, how: str, other: int) -> None:
        """It comes back empty, as it should: as another life; or as a copy that does not know what it has lost; or never."""
        name = self._name(node)
        self.quiet = 0
        if how == "new life":
            self.fleet.start(name, self.fleet.new_incarnation())
        elif how.startswith("same life"):
            self.fleet.start(name, self.fleet.nodes[name].replica.incarnation)
            if how == "same life, hears" and self._name(other) != name:
                exchange(self.fleet.nodes[self._name(other)], self.fleet.nodes[name])
        elif len(self.fleet.nodes) > FEWEST_NODES:
            del self.fleet.nodes[name]

    @precondition(lambda self: len(self.fleet.nodes) < len(NAMES))
    @rule(node=nodes, index=nodes)
    def retire_a_lost_node(self, node: int, index: int) -> None:
        """Its clock entries stop travelling; its cells do not."""
        lost = [name for name in NAMES if name not in self.fleet.nodes]
        name = self._name(node)
        if self.fleet.may_write(name):
            self.fleet.retire(name, lost[index % len(lost)])

    # --- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """When faults stop, all nodes become equal, know it, what was removed stays gone, and what has expired goes."""
        fleet = list(self.fleet.nodes.values())
        for node in fleet:
            for name in list(node.tracker):  # what was said by a life that is no more says nothing
                if name not in self.fleet.nodes or name in self.fleet.amnesic:
                    node.tracker.forget(name)
        self._exchange_all()
        assert len({node.state_hash for node in fleet}) == 1
        assert all(node.converged and not node.alarms for node in fleet)
        for id_, (replica, seq) in self.fleet.gone.items():
            assert fleet[0].clock[replica] < seq or all(id_ not in node.state.constraints for node in fleet)
        self.fleet.skews.clear()
        self.fleet.time += LONG_ENOUGH
        self._exchange_all()  # which tells all nodes what time it is
        for node in fleet:
            self.fleet.remove_expired(node.node_id)
        self._exchange_all()
        assert not any(node.state.constraints.expired_ids for node in fleet if not self.fleet.amnesic)

    def _exchange_all(self) -> None:
        fleet = list(self.fleet.nodes.values())
        for _ in range(FINAL_ROUNDS):
            for a in fleet:
                for b in fleet:
                    if a is not b:
                        exchange(a, b)


TestHistories = Histories.TestCase
