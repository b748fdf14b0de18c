"""What messages carry: the measure of how often nodes hear of the same."""

from constraint_crdt.core.run import Run
from constraint_crdt.gossip.messages import Delta, GossipMessage, Sync


def mutations_in(message: GossipMessage) -> int:
    """How many mutations a message accounts for, as its sender made it. O(runs)."""
    if not isinstance(message, Delta | Sync):
        return 0
    runs = message.delta.runs if isinstance(message, Delta) else message.state.runs
    return sum([run.hi - run.lo for run in runs if isinstance(run, Run)])
