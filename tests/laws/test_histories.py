"""Random histories of a fleet against the reference (DESIGN 7: invariants 1 to 4, 7, 8, 9).

Five nodes add, edit, remove, count, move and collect. Messages are late, doubled, reordered, lost, in parts of which some are
missing, and made for clocks of long ago; nodes die for good or start again empty. `Fleet` checks every state that a node reaches.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from constraint_crdt import VectorClock, exchange

from .fleet import IDS, MESSAGES_PER_EXCHANGE, NAMES, Fleet

FINAL_ROUNDS = 3

nodes = st.integers(0, len(NAMES) - 1)
ids = st.sampled_from(IDS)
forms = st.sampled_from(["object", "bytes", "parts"])
any_index = st.integers(0, 2**16)
definitions = st.sampled_from(
    [(None, "warning", None), ("v <= 1.0", "warning", None), ("v <= 2.0", "critical", None), (None, "info", "seen")]
)
coordinates = st.integers(-3, 3)
counts = st.integers(0, 3)


class Histories(RuleBasedStateMachine):
    """Whatever happens to a fleet of five."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()

    def _name(self, index: int) -> str:
        alive = sorted(self.fleet.nodes)
        return alive[index % len(alive)]

    def _writer(self, index: int) -> str | None:
        name = self._name(index)
        return name if self.fleet.may_write(name) else None

    # --- mutations ---------------------------------------------------------------------------------------------------

    @rule(node=nodes, id_=ids, definition=definitions)
    def add(self, node: int, id_: str, definition: tuple[str | None, str, str | None]) -> None:
        """A first add, an edit of one's own or of another's definition, or an add after a removal."""
        if name := self._writer(node):
            self.fleet.add(name, id_, definition)

    @rule(node=nodes, index=any_index)
    def remove(self, node: int, index: int) -> None:
        name = self._writer(node)
        active = sorted(self.fleet.nodes[name].state.constraints) if name else []
        if name and active:
            self.fleet.remove(name, active[index % len(active)])

    @rule(node=nodes, constraint=st.none() | ids, satisfied=counts, violated=counts)
    def record(self, node: int, constraint: str | None, satisfied: int, violated: int) -> None:
        if name := self._writer(node):
            self.fleet.record(name, constraint, satisfied, violated)

    @rule(node=nodes, a=coordinates, b=coordinates, time=st.integers(1, 3))
    def move(self, node: int, a: int, b: int, time: int) -> None:
        if name := self._writer(node):
            self.fleet.move(name, (a, b), time)

    @rule(node=nodes)
    def collect(self, node: int) -> None:
        self.fleet.nodes[self._name(node)].collect()
        self.fleet.observe(self.fleet.nodes[self._name(node)])

    # --- messages ----------------------------------------------------------------------------------------------------

    @rule(sender=nodes, to=nodes, begin=st.booleans(), form=forms)
    def begin(self, sender: int, to: int, begin: bool, form: str) -> None:
        """The first message of an exchange: a bare Ping, or what the sender finds best."""
        node, peer = self.fleet.nodes[self._name(sender)], self._name(to)
        if node.node_id != peer:
            self.fleet.send(peer, node.begin(peer) if begin else node.ping(peer), form)

    @rule(sender=nodes, to=nodes, index=any_index, form=forms, max_bytes=st.integers(90, 200))
    def delta_for_some_clock(self, sender: int, to: int, index: int, form: str, max_bytes: int) -> None:
        """A Delta or Sync that was made for a clock of long ago, or for one of somebody else."""
        clock = VectorClock(self.fleet.clocks[index % len(self.fleet.clocks)])
        self.fleet.send(self._name(to), self.fleet.nodes[self._name(sender)].delta_since(clock), form, max_bytes)

    @precondition(lambda self: self.fleet.bag)
    @rule(deliveries=st.lists(st.tuples(any_index, st.booleans(), forms), min_size=1, max_size=6))
    def deliver(self, deliveries: list[tuple[int, bool, str]]) -> None:
        for index, keep, form in deliveries:
            if self.fleet.bag:
                self.fleet.deliver(index % len(self.fleet.bag), keep=keep, form=form)

    @precondition(lambda self: self.fleet.bag)
    @rule(times=st.integers(1, 12), keep=st.booleans())
    def deliver_in_order(self, times: int, keep: bool) -> None:
        """Oldest first, so that transfers in parts have a chance to complete."""
        for index in range(times):
            if index < len(self.fleet.bag):
                self.fleet.deliver(index if keep else 0, keep=keep, form="object")

    @precondition(lambda self: self.fleet.bag)
    @rule(index=any_index, several=st.booleans())
    def lose_messages(self, index: int, several: bool) -> None:
        start = index % len(self.fleet.bag)
        del self.fleet.bag[start : start + (5 if several else 1)]

    @rule(first=nodes, second=nodes)
    def exchange(self, first: int, second: int) -> None:
        """One exchange that nothing disturbs leaves both sides equal, whatever they knew of each other."""
        a, b = self.fleet.nodes[self._name(first)], self.fleet.nodes[self._name(second)]
        if a is not b:
            before = a.rounds + b.rounds
            exchange(a, b)
            assert a.state_hash == b.state_hash
            assert a.rounds + b.rounds - before <= MESSAGES_PER_EXCHANGE

    @rule(first=nodes, second=nodes)
    def merge(self, first: int, second: int) -> None:
        """States joined without messages."""
        a, b = self.fleet.nodes[self._name(first)], self.fleet.nodes[self._name(second)]
        news = not a.state.subsumes(b.state)
        merged = a.state.merged(b.state)
        assert a.state.merge(b.state) == news
        assert a.state == merged
        self.fleet.observe(a)

    # --- lives -------------------------------------------------------------------------------------------------------

    @rule(node=nodes)
    def restart(self, node: int) -> None:
        """Back empty, as it should be: as another life."""
        self.fleet.start(self._name(node), self.fleet.new_incarnation())

    @rule(node=nodes)
    def restart_as_the_same_life(self, node: int) -> None:
        """Back empty under the old incarnation: a copy that does not know what it has lost."""
        name = self._name(node)
        self.fleet.start(name, self.fleet.nodes[name].replica.incarnation)

    @precondition(lambda self: len(self.fleet.nodes) > 3)
    @rule(node=nodes)
    def die(self, node: int) -> None:
        """Lost for good, with all that nobody has heard of."""
        del self.fleet.nodes[self._name(node)]

    # --- the end -----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """When faults stop, all nodes become equal, know it, and what was removed stays gone."""
        fleet = list(self.fleet.nodes.values())
        for node in fleet:
            for name in list(node.tracker):  # what was said by a life that is no more says nothing
                if name not in self.fleet.nodes or name in self.fleet.amnesic:
                    node.tracker.forget(name)
        for _ in range(FINAL_ROUNDS):
            for a in fleet:
                for b in fleet:
                    if a is not b:
                        exchange(a, b)
        assert len({node.state_hash for node in fleet}) == 1
        assert all(node.converged and not node.alarms for node in fleet)
        for id_, (replica, seq) in self.fleet.gone.items():
            assert fleet[0].clock[replica] < seq or all(id_ not in node.state.constraints for node in fleet)


TestHistories = Histories.TestCase
