"""`Simulation`: a fleet of real nodes in aligned rounds, without virtual time.

Rules kept here:

- In a round every node begins one exchange, with the peer the policy chooses.
- A node takes part in one exchange at a time. A node whose partner is busy waits, so a round has *turns*: in each turn all
  exchanges between free nodes run side by side. Their order is drawn in each round.
- A lost message is sent again, `retries` times at most; then the exchange is broken off, and its effects so far stand.
- The same seed gives the same history.

The unit of time is the round. Faults that need a finer unit (latency, partitions, crashes, clocks) are in `world`. The two do not
share a scheduler: they draw random numbers in different orders, so either in place of the other would change the outcome of every
seed.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

from constraint_crdt.crdt.limits import DEFAULT_LIMITS, Limits
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import Severity, html_fields
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import GossipMessage, decode_message
from constraint_crdt.protocol.peers import PeerChoice, Schedule
from constraint_crdt.simulation.fleet import mutations_in
from constraint_crdt.simulation.world import SimRng
from constraint_crdt.types.register import Position

MOST_NODES = 100_000
"""The most nodes of a simulation."""

ROUND_NS = 10**9
"""Virtual time from one round to the next, and the start of the first round."""

RETRIES = 2
"""Retries of a lost message."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The cost of a simulation so far."""

    nodes: int
    rounds: int
    turns: int
    """Turns over all rounds: the duration of the rounds, counted in exchanges."""
    exchanges: int
    messages: int
    """Messages sent, lost ones included."""
    lost: int
    """Messages lost."""
    bytes: int | None
    """Bytes sent, those of lost messages included; None where messages were handed over as objects."""
    copies: float
    """Mutations received over mutations new to the reader: 1.0 without duplicates."""
    cost: float
    """The sum of the distances over which mutations were carried, per new mutation. 1.0 per link without distances."""
    time_ns: int
    """Virtual time in ns."""

    def _repr_html_(self) -> str:
        """A table of the fields, for notebooks."""
        return html_fields("Cost of a simulation", list(asdict(self).items()))


class Simulation:
    """A fleet of `GossipNode`s that exchange in rounds. `nodes` are the nodes themselves."""

    def __init__(
        self,
        node_count: int,
        seed: int = 0,
        *,
        choice: PeerChoice | None = None,
        loss: float = 0.0,
        retries: int = RETRIES,
        encoded: bool = False,
        distance: Callable[[int, int], float] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """`seed`: of all random numbers. `choice`: the peer policy; `Schedule` if None, since rounds are aligned. `loss`: the
        probability a message is lost. `retries`: of a lost message. `encoded`: messages travel as bytes, which are counted;
        else as objects, which is faster. `distance`: between two nodes by number, for `Stats.cost`. `limits`: of every node.

        Raises `ConstraintCrdtError` for numbers out of bounds.
        """
        if not 2 <= node_count <= MOST_NODES:
            raise ConstraintCrdtError(f"a simulation needs 2 to {MOST_NODES} nodes, not {node_count}")
        if not 0.0 <= loss < 1.0:
            raise ConstraintCrdtError(f"loss is a probability from 0 up to, not including, 1, not {loss}")
        if retries < 0:
            raise ConstraintCrdtError(f"a message cannot be sent again {retries} times")
        self.seed = seed
        self.time_ns = ROUND_NS
        self._rng = SimRng(seed)
        self._choice = choice or Schedule(node_count)
        self._loss, self._retries, self._encoded, self._distance = loss, retries, encoded, distance
        self._lives = 1
        self.nodes = [self._make_node(f"n{index}", limits) for index in range(node_count)]
        self._index = {node.node_id: index for index, node in enumerate(self.nodes)}
        self._rounds = self._turns = self._exchanges = self._messages = self._lost = self._bytes = self._carried = 0
        self._cost = 0.0

    def _make_node(self, name: str, limits: Limits) -> GossipNode:
        return GossipNode(name, incarnation=1, now=lambda: self.time_ns, renew=self._new_life, fleet="simulation", limits=limits)

    def _new_life(self) -> int:
        self._lives += 1
        return self._lives

    # --- what nodes do of their own ----------------------------------------------------------------------------------

    def node(self, which: int | str) -> GossipNode:
        """A node by its number or name. Raises `ConstraintCrdtError` if there is no such node."""
        index = self._index.get(which) if isinstance(which, str) else which
        if index is None or not 0 <= index < len(self.nodes):
            raise ConstraintCrdtError(
                f"there is no node {which!r}: they are 0 to {len(self.nodes) - 1}, or n0 to n{len(self.nodes) - 1}"
            )
        return self.nodes[index]

    def add_constraint(
        self, node: int | str, id_: str, *, when: str | None = None, severity: str = Severity.WARNING, about: str | None = None
    ) -> None:
        """Let a node add a constraint, or replace its definition. Raises as `GossipNode.add_constraint` does."""
        self.node(node).add_constraint(id_, when=when, severity=severity, about=about)

    def remove_constraint(self, node: int | str, id_: str) -> None:
        """Let a node remove a constraint. Raises `KeyError` if it is not active there."""
        self.node(node).remove_constraint(id_)

    def record(self, node: int | str, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Let a node count evaluations. Raises `ValueError` for a negative number, `ConstraintCrdtError` for no such node."""
        self.node(node).record(satisfied, violated, constraint=constraint)

    def record_satisfied(self, node: int | str, count: int = 1, *, constraint: str | None = None) -> None:
        """Let a node count satisfied evaluations."""
        self.node(node).record_satisfied(count, constraint=constraint)

    def record_violations(self, node: int | str, count: int = 1, *, constraint: str | None = None) -> None:
        """Let a node count violated evaluations."""
        self.node(node).record_violations(count, constraint=constraint)

    def update_position(self, node: int | str, position: Position) -> None:
        """Let a node move the fleet's position."""
        self.node(node).update_position(position)

    # --- rounds ------------------------------------------------------------------------------------------------------

    @property
    def is_converged(self) -> bool:
        """All nodes have the same state. O(nodes)."""
        first = self.nodes[0].state_hash
        return all(node.state_hash == first for node in self.nodes)

    def step(self) -> None:
        """Run a round."""
        rng = self._rng
        wanted = [(me, self._choice.choose(me, self._rounds, rng)) for me in range(len(self.nodes))]
        rng.shuffle(wanted)
        while wanted:
            busy = bytearray(len(self.nodes))
            waiting = []
            for pair in wanted:
                me, peer = pair
                if busy[me] or busy[peer]:
                    waiting.append(pair)
                else:
                    busy[me] = busy[peer] = 1
                    self._exchange(me, peer)
            self._turns += 1
            wanted = waiting
        self._rounds += 1
        self.time_ns += ROUND_NS

    def run_until_converged(self, max_rounds: int = 1000) -> int | None:
        """Run until all nodes have the same state; returns the number of rounds, or None if `max_rounds` do not suffice."""
        for rounds in range(max_rounds + 1):
            if self.is_converged:
                return rounds
            if rounds < max_rounds:
                self.step()
        return None

    def _exchange(self, me: int, peer: int) -> None:
        self._exchanges += 1
        a, b = self.nodes[me], self.nodes[peer]
        waiting = deque([(a, b, a.begin(b.node_id))])
        carried = 0
        while waiting:
            sender, reader, message = waiting.popleft()
            if self._encoded:
                responses = self._carry_bytes(sender, reader, message)
            else:
                responses = reader.receive(message).responses if self._arrives(0) else None
            if responses is None:
                break
            carried += mutations_in(message)
            waiting.extend((reader, sender, response) for response in responses)
        self._carried += carried
        self._cost += carried * (1.0 if self._distance is None else self._distance(me, peer))

    def _carry_bytes(self, sender: GossipNode, reader: GossipNode, message: GossipMessage) -> list[GossipMessage] | None:
        """The answers of the reader to an encoded message; None if a part of it did not arrive."""
        responses: list[GossipMessage] = []
        for data in sender.encoded(message, reader.node_id):
            if not self._arrives(len(data)):
                return None
            responses += reader.receive(decode_message(data)).responses
        return responses

    def _arrives(self, size: int) -> bool:
        """Send a message, with retries. False if it did not arrive."""
        for _ in range(1 + self._retries):
            self._messages += 1
            self._bytes += size
            if not self._rng.happens(self._loss):
                return True
            self._lost += 1
        return False

    # --- what it cost ------------------------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """The cost so far. O(nodes x rows)."""
        taken = 0
        for node in self.nodes:
            known = node.clock
            taken += known.total - sum(seq for replica, seq in known.items() if replica.node_id == node.node_id)
        return Stats(
            nodes=len(self.nodes),
            rounds=self._rounds,
            turns=self._turns,
            exchanges=self._exchanges,
            messages=self._messages,
            lost=self._lost,
            bytes=self._bytes if self._encoded else None,
            copies=self._carried / taken if taken else 1.0,
            cost=self._cost / taken if taken else 0.0,
            time_ns=self.time_ns - ROUND_NS,
        )

    def __repr__(self) -> str:
        return f"Simulation({len(self.nodes)} nodes, seed={self.seed}, {self._rounds} rounds)"

    def _repr_html_(self) -> str:
        """A table of the agreement and the cost so far, for notebooks. O(nodes x rows)."""
        states = len({node.state_hash for node in self.nodes})
        fields: list[tuple[str, object]] = [("seed", self.seed), ("different states", states), ("converged", states == 1)]
        return html_fields("Simulation", fields) + self.stats._repr_html_()

    def summary(self) -> str:
        """The cost so far, for people."""
        stats = self.stats
        hashes = {node.state_hash for node in self.nodes}
        agreed = "all nodes agree" if len(hashes) == 1 else f"{len(hashes)} different states"
        sent = f"{stats.messages} messages" + (f", {stats.lost} lost" if stats.lost else "")
        size = "" if stats.bytes is None else f", {stats.bytes / stats.nodes:.0f} bytes per node"
        return (
            f"{stats.nodes} nodes, {stats.rounds} rounds ({stats.turns} turns): {agreed}\n"
            f"{stats.exchanges} exchanges, {sent}{size}\n"
            f"{stats.copies:.3f} copies of each item received"
        )
