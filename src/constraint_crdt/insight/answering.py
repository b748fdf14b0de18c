"""What a node answers from evidence, put together: the node tells it what happens, others ask it."""

from collections.abc import Callable, Sequence

from constraint_crdt.alerts.engine import AlertEngine, Notify
from constraint_crdt.alerts.kinds import Conditions, Facts
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.coverage import Coverage
from constraint_crdt.insight.diagnosis import Diagnosing
from constraint_crdt.insight.evidence import Convergence, Evidence
from constraint_crdt.insight.explain import Explaining, Spells
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Tally
from constraint_crdt.runtime.exchange_loop import Exchanger
from constraint_crdt.runtime.persistence import Keeping, store_path
from constraint_crdt.runtime.settings import NodeSettings


class Answering:
    """The answers of one node."""

    def __init__(
        self,
        gossip: GossipNode,
        exchanger: Exchanger,
        frontier: DefinitionFrontier,
        tally: Tally,
        rates: NodeRates,
        now: Callable[[], int],
        settings: NodeSettings,
        keeping: Keeping,
        missed: Callable[[], Sequence[str]],
        notify: Notify,
    ) -> None:
        """`now`: ns since the epoch. `missed`: the nodes that write, as others tell, and that this one does not see. `notify`:
        called for alerts.
        """
        self.evidence = Evidence(gossip, lambda: exchanger.seen, now)
        self.spells = Spells(gossip.state.rows, now)
        """Since when what is violated where."""
        self.coverage = Coverage(gossip, self.evidence, exchanger, frontier)
        """Who has heard of what."""
        self.explaining = Explaining(gossip, self.evidence, self.coverage, self.spells, tally, rates)
        """All about one constraint."""
        self.convergence = Convergence(gossip, self.evidence)
        """How the peers stand to this node."""
        self.diagnosing = Diagnosing(settings, gossip, self.evidence, exchanger, keeping, missed)
        """What is wrong with this node."""
        path = store_path(settings)
        self.alerting = AlertEngine(
            settings.alert,
            Conditions(Facts(gossip, self.evidence, self.coverage, self.convergence, rates, frontier)),
            who=(settings.name, settings.fleet),
            file=None if path is None else path.with_name(f"{path.name}.alerts.json"),
            notify=notify,
            now=now,
        )
        """Who is to be told of what."""

    async def begin(self) -> None:
        """The node starts now: what it holds by now, it held before."""
        self.evidence.begin()
        self.spells.begin()
        await self.alerting.load()

    async def step(self) -> None:
        """What is to be done each second."""
        self.evidence.tidy()
        await self.alerting.step()
