"""The budgets of a running node: holds for processes, a queue of waiting processes, and prompt news for the nodes concerned.

Rules kept here:

- An amount is held once it is on disk, or as much is kept back for such holds there (`protocol.loans`). Holding and releasing where
  rights are is a matter of this node: nothing is sent for it. The next exchange carries it.
- The end of a hold with a lease waits for no disk: a process that resumes counts it as held for longer.
- Processes of this node are served in the order in which they came. `protocol.loans` has the order over the fleet.
- A node whose processes begin to wait begins an exchange with a few owners, those that have the most to lend first, until one has
  lent; with a single one where none has, and others wait already. Where the node has rights itself, it waits a moment for these.
- An owner with free rights lends in its answer: an acquire takes one exchange. An owner that lends later begins one with the
  borrower; a borrower that gave back, with the owner. Each is told once: with ten nodes that contend, exchanges at each change took
  all of the CPU. The others hear of it in rounds.
- Nodes that were not heard of lately are asked before rights move to them (`protocol.loans.Contacts`), before demands are told.
- A node that has resumed its life holds and lends nothing before its first contact (`lifecycle`).
"""

import asyncio
import contextlib
import enum
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError, HoldLost, NoRights, UnknownName, WritesRefused
from constraint_crdt.insight.explain import explain_budget
from constraint_crdt.model import DurationHistogram, EventKind, counted
from constraint_crdt.operations.budgets import (
    DEFAULT_LEASE,
    BudgetExplanation,
    BudgetNode,
    BudgetReport,
    HolderReport,
    HoldReport,
    ReleaseReport,
    stranded_at,
)
from constraint_crdt.operations.operation import show_duration
from constraint_crdt.operations.service import Finding
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.loans import Contacts, Waiting
from constraint_crdt.runtime.change_feed import ChangeFeed, ChangeOrigin, NodeChange
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.persistence import Persistence
from constraint_crdt.transport import Transport
from constraint_crdt.types.budgets import (
    MOST_BUDGETS,
    NO_HOLDS,
    Head,
    Hold,
    Known,
    borrowed,
    check_amount,
    held,
    lendable,
    lent,
    share_now,
    waits_for,
)
from constraint_crdt.types.definition import duration_ns

MOST_WAITING: Final = 1_000
"""Processes that wait for a budget at a node."""

RENEW_AFTER: Final = 1 / 3
"""Of a lease: a hold of a program is renewed then."""

LEAST_RENEWAL: Final = 0.2
"""Seconds between two renewals."""

LOOK_EVERY: Final = 10.0
"""Seconds between two looks for rights out of reach. Two looks in a row have to find them, since peers come and go for a moment."""

SOON: Final = SECOND // 40
"""ns for which processes wait for rights that are held here, before other nodes are asked: most come free within that."""

HEARSAY: Final = 5 * SECOND
"""ns that the word of others is old, at most, by which rights move to a node that does not answer itself."""

ASKED: Final = 3
"""The most owners that a node begins exchanges with when processes begin to wait. Others hear of it by rounds."""

WAIT_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0, 300.0)
"""Seconds: the bounds of the histogram of waits."""

_log = logging.getLogger(__name__)


class _Reason(enum.IntEnum):
    """Why a node is to be told: the more, the sooner."""

    ASKED = 0
    """Processes wait for a loan of it. It is told nothing once nobody waits."""
    GIVEN_UP = 1
    """It may have heard of a process that waits no more."""
    MOVED = 2
    """Rights moved to it, or will once it answers."""


@dataclass(slots=True)
class _Waiter:
    """A process that waits."""

    amount: int
    holder: str
    since: int
    granted: asyncio.Future[Hold]


class NodeBudgets:
    """The budgets, as programs of this node use them. `in` is over the names."""

    def __init__(
        self,
        gossip: GossipNode,
        feed: ChangeFeed,
        persistence: Persistence,
        exchanges: ExchangeLoop,
        transport: Transport,
        check_call: Callable[[], None],
        once: Callable[[str, Coroutine[object, object, None]], None],
        publish: Callable[..., None],
        monotonic: Callable[[], int],
        through: Callable[[str, int], object],
    ) -> None:
        """`check_call` refuses a write outside of the life of the node. `once(name, coroutine)` runs a coroutine in the background.
        `publish`: that of `EventPublisher`. `monotonic`: ns of a clock that never steps. `through`: that of `Evidence`.
        """
        self._gossip = gossip
        self._escrow = gossip.escrow
        self._contacts = gossip.escrow.contacts = Contacts(monotonic, self._likely, self._is_heard)
        self._through = through
        self._feed = feed
        self._persistence = persistence
        self._exchanges = exchanges
        exchanges.owes, exchanges.told = self.owes, self._told_peer
        self._transport = transport
        self._check_call = check_call
        self._once = once
        self._publish = publish
        self._queues: dict[str, deque[_Waiter]] = {}
        self._planned: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        """For loans that wait for other owners, or for the end of a turn."""
        self._asked: dict[str, Waiting | None] = {}
        """The demand that owners were told of last, by budget."""
        self._given_up: set[str] = set()
        """The budgets for which a process waited in vain: owners should lend nothing for it any more."""
        self._untold: dict[str, _Reason] = {}
        """The nodes to begin an exchange with."""
        self._telling = False
        self._syncing: set[str] = set()
        """The budgets for which the amount kept back is being written."""
        self._told: dict[str, tuple[Head, ...]] = {}
        """The definitions of each budget in force, as the events told them."""
        self._away: dict[str, str] = {}
        """The stranded rights of each budget at the last look."""
        self._stranded: set[str] = set()
        """The budgets with stranded rights, as the events told them."""
        self._look_at = 0.0
        self.waits = DurationHistogram(WAIT_BOUNDS)
        """How long processes waited until they acquired."""
        self.acquired = 0
        """Amounts acquired since the start, by number."""
        self.released = 0
        """Holds ended by their holders."""
        self.refused = 0
        """Refused for lack of rights, at once or after a wait."""

    def __contains__(self, name: object) -> bool:
        return name in self._escrow.budgets

    # --- definitions -----------------------------------------------------------------------------------------------------

    async def define(
        self,
        name: str,
        limit: int,
        *,
        lease: float | None = None,
        nodes: Sequence[str] | None = None,
        gone: Sequence[str] = (),
    ) -> BudgetReport:
        """Define a budget, or change its limit. `lease`: seconds, 0 for none; left out as before, or two minutes.

        `nodes`: those that further shares go to, by default the live ones. `gone`: nodes lost for good: their share goes to
        others once a lease and twice the skew bound are over. Raises `ConstraintCrdtError` for values out of bounds and for nodes
        that are not known, and `NotPermitted`.
        """
        self._check_call()
        heads = self._escrow.budgets.heads(name)
        why = self.refusal(name, lease, nodes, gone)
        if why is not None:
            raise ConstraintCrdtError(why)
        ns = duration_ns(DEFAULT_LEASE if lease is None else lease, "lease") or 0
        if heads and lease is None:
            ns = heads[0].value.lease
        over = self._live() if nodes is None else list(nodes)
        over = [node for node in over if node not in gone]
        await self._feed.commit(lambda: self._escrow.define(name, limit, lease=ns, nodes=over, without=gone), "budget", name)
        self._tell_changes()
        self._after()
        return self.report(name)

    def refusal(self, name: str, lease: float | None, nodes: Sequence[str] | None = None, gone: Sequence[str] = ()) -> str | None:
        """Why a budget cannot be defined so beside those that exist, or with shares for these nodes; None if it can."""
        heads = self._escrow.budgets.heads(name)
        if not heads and len(self._escrow.budgets.names()) >= MOST_BUDGETS:
            return f"{MOST_BUDGETS} budgets are the most, removed ones included: use one of them"
        if heads and lease is not None and duration_ns(lease, "lease") != heads[0].value.lease:
            return f"the lease of budget {name} stays as it is: choose another name for another lease"
        if nodes is not None and not nodes and not heads:
            return f"budget {name} needs a node with a share: name one, or leave the nodes out for those that are live"
        taking = set(self._able())
        strange = [node for node in nodes or () if node not in taking]
        if strange:
            return f"{strange[0]} is no node in service that may hold a share of {name}: name one of {_some(sorted(taking))}"
        written = {replica.node_id for replica in self._gossip.state.rows.clock_mark.entries}
        unknown = [node for node in gone if node not in written]
        return f"no node {unknown[0]} is known here, so it has no share to give away" if unknown else None

    async def remove(self, name: str) -> BudgetReport:
        """Remove a budget: a limit of 0, and no longer listed. Raises `KeyError` for an unknown name."""
        self._check_call()
        known = self._known(name)
        await self._feed.commit(
            lambda: self._escrow.define(name, 0, lease=known.lease, nodes=(), removed=True), "remove budget", name
        )
        self._tell_changes()
        self._after()
        return self.report(name)

    async def retire(self, node: str) -> list[str]:
        """Give the shares of a node that is gone for good to others; returns the budgets. On an operator's word."""
        done = []
        for name in self._escrow.budgets:
            known = self._escrow.budgets.known(name)
            if any(share.node == node and share.amount for head in known.heads for share in head.value.shares):
                await self.define(name, known.limit, gone=[node])
                done.append(name)
        return done

    def _able(self) -> set[str]:
        """The nodes in service that may hold."""
        ended = self._gossip.revoked_nodes | set(self._gossip.state.retirements)
        authority = self._gossip.authority
        if authority is not None:
            ended |= {member.node for member in authority.members().values() if member.role == "observer"}
        written = {replica.node_id for replica in self._gossip.state.rows.clock_mark.entries}
        return {self._gossip.node_id} | ((written | self._exchanges.live) - ended)

    def _live(self) -> list[str]:
        """This node and the live ones that may hold."""
        return [self._gossip.node_id, *sorted((self._able() & self._exchanges.live) - {self._gossip.node_id})]

    # --- holding -----------------------------------------------------------------------------------------------------------

    async def acquire(self, name: str, amount: int = 1, *, holder: str = "", timeout: float | None = 0.0) -> HoldReport:  # noqa: ASYNC109 - it ends with a reason
        """Hold an amount. `timeout`: seconds to wait for rights; None: without an end.

        Raises `NoRights` with the reason, `UnknownName`, `ClockInDoubt`, `ConstraintCrdtError` for an amount out of bounds, and
        `WritesRefused` by the store.
        """
        self._check_call()
        self._check_name(name)
        check_amount(amount)
        loop = asyncio.get_running_loop()
        begun, queue = loop.time(), self._queues.setdefault(name, deque())
        hold = None if queue or self._feed.held else await self._take(name, amount, holder)
        if hold is None:
            if not self._may_wait(name, amount) or (timeout is not None and timeout <= 0):
                self.refused += 1
                raise NoRights(self._escrow.reason(name, amount))
            hold = await self._wait(name, _Waiter(amount, holder, self._escrow.now, loop.create_future()), timeout)
        waited = loop.time() - begun
        self.waits.note(waited)
        return self._report(name, hold, waited)

    def _may_wait(self, name: str, amount: int) -> bool:
        return amount <= self._escrow.budgets.known(name).limit and len(self._queues[name]) < MOST_WAITING

    async def _take(self, name: str, amount: int, holder: str) -> Hold | None:
        self._persistence.check()
        try:
            hold = self._feed.write(lambda: self._escrow.acquire(name, amount, holder))
        except NoRights:
            return None
        self.acquired += 1
        await self._settle(name, hold)
        return hold

    async def _settle(self, name: str, hold: Hold) -> None:
        """Wait until a hold is on disk, or sure without. A caller that goes away meanwhile holds nothing."""
        if self._escrow.is_sure(name, hold):
            if not self._escrow.is_synced(name) and name not in self._syncing:
                self._syncing.add(name)
                self._once(f"budget {name}", self._sync_soon(name))
            self._after()
            return
        try:
            await self._sync(name)
        except BaseException:
            self._drop(name, hold)
            raise
        self._after()

    async def _sync_soon(self, name: str) -> None:
        try:
            with contextlib.suppress(WritesRefused):
                await self._sync(name)
        finally:
            self._syncing.discard(name)

    async def _sync(self, name: str) -> None:
        """Wait until all up to now is on disk, and note the amount kept back there. Raises `WritesRefused`."""
        kept = self._escrow.kept(name)
        await self._persistence.durable()
        self._escrow.synced(name, kept)

    async def _wait(self, name: str, waiter: _Waiter, timeout: float | None) -> Hold:  # noqa: ASYNC109 - see `acquire`
        queue = self._queues[name]
        queue.append(waiter)
        self._escrow.wait(name, self._demand(name))
        if self._concerns_others(name, queue[0].since):
            self._plan()
        else:
            self._after()
        try:
            async with asyncio.timeout(timeout):
                hold = await waiter.granted
        except TimeoutError:
            if waiter.granted.cancelled():
                self.refused += 1
                raise NoRights(self._escrow.reason(name, waiter.amount)) from None
            hold = waiter.granted.result()  # it came as the time was over
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():  # granted while the caller went away
                self._drop(name, waiter.granted.result())
            raise
        finally:
            if waiter in queue:
                self._give_up(name, waiter)
        await self._settle(name, hold)
        return hold

    def _give_up(self, name: str, waiter: _Waiter) -> None:
        """Take a process that waited in vain out of the queue, and have the owners told."""
        self._queues[name].remove(waiter)
        if self._escrow.stated(name):
            self._given_up.add(name)
        self._state_demand(name)
        self._plan()

    def _drop(self, name: str, hold: Hold) -> None:
        with contextlib.suppress(ConstraintCrdtError):
            self._feed.write(lambda: self._escrow.release(name, hold.id))
        self._plan()  # others may wait for it

    def _demand(self, name: str) -> Waiting | None:
        """How much processes of this node wait for, and since when. Raises `UnknownName`."""
        queue = self._queues.get(name)
        if not queue:
            return None
        return Waiting(min(sum(each.amount for each in queue), self._escrow.budgets.known(name).limit), queue[0].since)

    def _state_demand(self, name: str) -> None:
        """Have other nodes know how much processes of this node wait for."""
        with contextlib.suppress(UnknownName):
            self._escrow.wait(name, self._demand(name))

    async def renew(self, name: str, hold: str) -> HoldReport:
        """Hold an amount for another lease. Raises `NoRights` for a hold that is over."""
        self._check_call()
        self._check_name(name)
        id_ = self._id(name, hold)
        self._persistence.check()
        found = self._feed.write(lambda: self._escrow.renew(name, id_))
        await self._persistence.durable()
        self._tell()
        return self._report(name, found, 0.0)

    async def release(self, name: str, hold: str) -> ReleaseReport:
        """End a hold; `released` is false for a hold already over. Raises `NoRights` for a hold of another node or life."""
        self._check_call()
        id_ = self._id(name, hold)
        released = self._feed.write(lambda: self._escrow.release(name, id_))
        self.released += released
        if not self._escrow.budgets.known(name).lease:
            await self._persistence.durable()
        self._after()
        return ReleaseReport(name=name, released=released)

    def _id(self, name: str, hold: str) -> int:
        life, _, id_ = hold.partition("-")
        if not (life.isdigit() and id_.isdigit() and len(hold) < 48) or int(life) != self._gossip.replica.incarnation:
            raise NoRights(f"this node gave no hold {hold} of {name}, or lost it with a former life: ask the node that gave it")
        return int(id_)

    @asynccontextmanager
    async def hold(
        self,
        name: str,
        amount: int = 1,
        *,
        holder: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - see `acquire`
    ) -> AsyncIterator[HoldReport]:
        """Hold an amount inside of the block, and renew it meanwhile.

        Raises as `acquire`. A hold that ends before the block does cancels it, and raises `HoldLost`.
        """
        report = await self.acquire(name, amount, holder=holder, timeout=timeout)
        task, keeper = asyncio.current_task(), self.keep(report)
        keeper.add_done_callback(lambda done: None if done.cancelled() or task is None else task.cancel())
        try:
            yield report
        except asyncio.CancelledError:
            if keeper.done() and not keeper.cancelled() and task is not None and task.uncancel() == 0:
                raise HoldLost(keeper.result()) from None
            raise
        finally:
            keeper.cancel()
            with contextlib.suppress(ConstraintCrdtError):
                await self.release(name, report.hold)

    def keep(self, report: HoldReport) -> "asyncio.Task[str]":
        """Renew a hold until the task is cancelled. The task ends by itself, with the reason, only if the hold is lost."""
        return asyncio.create_task(self._keep(report), name=f"hold of {report.name}")

    async def _keep(self, report: HoldReport) -> str:
        """Renew a hold as long as that is possible; returns why it ended."""
        loop = asyncio.get_running_loop()
        if report.ttl is None:
            await loop.create_future()
        ends = loop.time() + (report.ttl or 0.0)
        while True:
            await asyncio.sleep(max(LEAST_RENEWAL, (ends - loop.time()) * RENEW_AFTER))
            reason = f"the hold of {report.name} could not be renewed"
            try:
                found = await self.renew(report.name, report.hold)
                ends = max(ends, loop.time() + (found.ttl or 0.0))
            except ConstraintCrdtError as error:
                reason = str(error)
            if loop.time() + LEAST_RENEWAL >= ends:
                return reason

    # --- what goes on by itself ----------------------------------------------------------------------------------------

    def changed(self, change: NodeChange) -> None:
        """Act on cells of other nodes, and on answers of those asked, soon: a subscriber does not write. See `ChangeFeed`."""
        if change.peer and self._contacts.met(change.peer):
            self._plan()
        if not change.state_changed or not self._escrow.budgets.moved:
            return
        self._tell_changes(publish=change.origin is not ChangeOrigin.RESTORED)
        self._plan()

    def _tell_changes(self, *, publish: bool = True) -> None:
        """Publish the definitions that changed since the last call. Without `publish` only note them."""
        budgets = self._escrow.budgets
        for name in budgets.names():
            before, after = self._told.get(name, ()), tuple(budgets.heads(name))
            if before == after:
                continue
            self._told[name] = after
            kind = _change_of(before, after) if publish else None
            if kind is not None:
                last = max(set(after) - set(before), key=lambda head: (head.value.made, head.dot), default=after[-1])
                entry = self._gossip.state.audit.of(last.dot)
                actor, by = ("", last.dot.replica.node_id) if entry is None else (entry.actor, entry.dot.replica.node_id)
                self._publish(kind, budget=name, detail=_detail_of(kind, before, after), actor=actor, by=by)

    def look(self) -> None:
        """Publish the budgets with rights out of reach, at the second look that finds them, and those whose rights are back."""
        found = {each.name: away for each in self.reports() if (away := stranded_at(each))}
        for name, away in found.items():
            if name not in self._stranded and self._away.get(name) == away:
                self._stranded.add(name)
                self._publish(EventKind.BUDGET_STRANDED, budget=name, detail=away)
        for name in sorted(self._stranded - found.keys()):
            self._stranded.remove(name)
            if name in self._escrow.budgets:
                self._publish(EventKind.BUDGET_REACHABLE, budget=name)
        self._away = found

    def _plan(self) -> None:
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_soon(self._act)

    def owes(self, peer: str) -> bool:
        """Act on what a peer just told. True if that concerns the peer: then it is told in the answer, without an exchange."""
        if self._planned is None:
            return False
        self._planned.cancel()
        self._act()
        return self._untold.get(peer) is _Reason.MOVED

    def _told_peer(self, peer: str) -> None:
        self._untold.pop(peer, None)

    def _act(self) -> None:
        self._planned = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._step()
        except ConstraintCrdtError as error:
            _log.warning("budgets: %s", error)

    async def tend(self) -> None:
        """Lend, renew, give back and end loans as due. Called at regular intervals."""
        self._step()
        now = asyncio.get_running_loop().time()
        if now >= self._look_at and self._escrow.budgets.names():
            self._look_at = now + LOOK_EVERY
            self.look()

    def close(self) -> None:
        """The node ends in order: its last state has all holds, so a restart need not count further ones."""
        if self._timer is not None:
            self._timer.cancel()
        if self._feed.writable:
            self._feed.write(self._escrow.keep_nothing)

    def _step(self) -> None:
        if not self._escrow.budgets.names() or not self._feed.writable:
            return
        self._serve()  # what came is used, before it is given back for others that wait for longer
        self._feed.write(self._escrow.tend)
        if self._escrow.take_agreed():
            self._exchanges.push()
        self._note_given_up()
        self._after()

    def _after(self) -> None:
        """Serve those that wait, tell the nodes concerned, and be back when there is more to do."""
        self._serve()
        self._tell()
        due = self._escrow.take_due()
        if due is None:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0, due - self._escrow.now) / SECOND
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._act)

    def _serve(self) -> None:
        """Grant the free amounts here to the processes that wait, the first in line first."""
        for waited, queue in self._queues.items():
            while queue and not self._feed.held:
                waiter = queue[0]
                if waiter.granted.done():  # cancelled: its task has yet to run
                    self._give_up(waited, waiter)
                    continue
                if waited in self and not self._escrow.may_hold(waited, waiter.amount):
                    break
                queue.popleft()
                self._state_demand(waited)  # first, so that a single write has both
                try:
                    hold = self._feed.write(partial(self._escrow.acquire, waited, waiter.amount, waiter.holder))
                except UnknownName as error:
                    waiter.granted.set_exception(NoRights(str(error)))
                except ConstraintCrdtError:
                    queue.appendleft(waiter)
                    self._state_demand(waited)
                    break
                else:
                    self.acquired += 1
                    waiter.granted.set_result(hold)

    def _tell(self) -> None:
        """Have the nodes told that the last writes concern, or that can help."""
        for name in self._queues:
            with contextlib.suppress(UnknownName):
                demand = self._demand(name)
                if self._is_news(name, demand):
                    self._note(self._escrow.asked_first(name, ASKED), _Reason.ASKED)
                    self._asked[name] = demand
                elif demand is None:
                    self._asked[name] = None
        self._note(self._escrow.take_concerned() | self._contacts.take_sought(), _Reason.MOVED)
        if self._untold and not self._telling:
            self._telling = True
            self._once("loans", self._tell_all())

    def _note_given_up(self) -> None:
        """Have owners told of processes that wait no more. Called once that is written."""
        for name in self._given_up:
            with contextlib.suppress(UnknownName):
                self._note(self._escrow.asked_first(name, ASKED), _Reason.GIVEN_UP)
                if self._asked.get(name) is not None:
                    self._asked[name] = self._demand(name)
        self._given_up.clear()

    def _note(self, nodes: Iterable[str], reason: _Reason) -> None:
        """Have nodes told."""
        for node in nodes:
            self._untold[node] = max(reason, self._untold.get(node, reason))

    def _is_news(self, name: str, demand: Waiting | None) -> bool:
        """Whether owners are to be told of a demand now: they lend as soon as they can to those of which they know."""
        told = self._asked.get(name)
        if demand is None or (told is not None and demand.amount <= told.amount) or demand.amount > self._escrow.stated(name):
            return False  # what is not written, an exchange does not tell
        return self._concerns_others(name, demand.since)

    def _concerns_others(self, name: str, since: int) -> bool:
        """False for a demand that rights held here may meet in a moment. If they do not, there is more to do then: see `_after`."""
        return not self._escrow.has_rights(name) or self._escrow.has_passed(since, SOON)

    async def _tell_all(self) -> None:
        """Exchange with the nodes to tell, one after the other: first with those whose rights changed. Those with which an exchange
        goes on are told later.
        """
        under_way = set[str]()
        try:
            while names := [name for name in self._untold if name not in under_way]:
                name = max(names, key=self._untold.__getitem__)
                if self._untold[name] is _Reason.ASKED and not any(self._queues.values()):
                    del self._untold[name]
                    continue
                peers = [peer for peer in self._transport.peers() if peer.name == name]
                self._contacts.asked(name)
                if any(map(self._exchanges.is_under_way, peers)):
                    under_way.add(name)
                    continue
                del self._untold[name]
                if not peers or await self._exchanges.begin(peers[0]) is False:
                    self._contacts.missed(name)
                    self._plan()
        finally:
            self._telling = False

    def _is_heard(self, name: str) -> bool:
        """Others hear a node, lately; or it is of another site, and its speakers do, as far as this node can know."""
        if name in self._exchanges.away and not self._exchanges.meets(name):
            return True
        return bool(self._through(name, HEARSAY))

    def _likely(self, name: str) -> int:
        """ns within which the answer of a node comes, if it is in contact."""
        return int(self._exchanges.likely(name) * SECOND)

    def findings(self) -> list[Finding]:
        """The findings of `doctor`: conflicts, definitions not in force, and stranded rights. None without a budget."""
        found = []
        for each in self.reports():
            where = stranded_at(each)
            if not each.participants and each.limit:
                what = f"no node in service has a share of {each.name}, so nothing of it can be acquired"
                advice = f"give it to nodes with `budget set {each.name} --on NODE`"
                found.append(Finding(check="budgets", level="warn", what=what, advice=advice))
                continue
            if len(each.limits) > 1:
                limits = ", ".join(map(str, each.limits))
                advice = f"resolve it with `budget set {each.name} --limit N`"
                found.append(
                    Finding(check="budgets", level="warn", what=f"{each.name} has the limits {limits}, set at once", advice=advice)
                )
            if each.waits_for:
                what = f"the definition of {each.name} is not in force everywhere: {', '.join(each.waits_for)} did not agree yet"
                advice = "wait until holds and loans have run out there, bring these nodes back, or retire them"
                found.append(Finding(check="budgets", level="warn", what=what, advice=advice))
            if where:
                what = f"{each.stranded} of the {each.limit} of {each.name} cannot be reached: {where}"
                found.append(
                    Finding(
                        check="budgets", level="warn", what=what, advice="bring these nodes back, or retire those that are gone"
                    )
                )
        reports = len(self._escrow.budgets)
        if reports and not found:
            found.append(Finding(check="budgets", level="ok", what=f"all rights of {counted(reports, 'budget')} can be reached"))
        return found

    # --- looking -------------------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> Known:
        self._check_name(name)
        return self._escrow.budgets.known(name)

    def _check_name(self, name: str) -> None:
        if name not in self._escrow.budgets:
            raise UnknownName(name, "budget")

    def _report(self, name: str, hold: Hold, waited: float) -> HoldReport:
        return HoldReport(
            name=name,
            hold=f"{self._gossip.replica.incarnation}-{hold.id}",
            node=self._gossip.node_id,
            holder=hold.holder,
            amount=hold.amount,
            since=hold.since,
            until=hold.until or None,
            ttl=max(0, hold.until - self._escrow.now) / SECOND if hold.until else None,
            waited=waited,
        )

    def reports(self) -> list[BudgetReport]:
        """All budgets by name. O(participants)."""
        return [self.report(name) for name in self._escrow.budgets]

    def explanation(self, name: str) -> BudgetExplanation:
        """Why a budget is as it is. Raises `KeyError` for an unknown name."""
        return explain_budget(self._gossip, self.report(name))

    def report(self, name: str) -> BudgetReport:
        """A budget as this node knows it. Raises `KeyError` for an unknown name."""
        known, now, skew, me = self._escrow.budgets.known(name), self._escrow.now, self._escrow.skew, self._gossip.node_id
        over = self._gossip.state.retirements.is_over
        live = {me, *self._exchanges.live}
        lives = {*known.ledgers, *known.holds}
        lives = {life for life in lives if not over(life) or held(known, life, now) or lent(known, life, now, skew)}
        heard = dict(self._gossip.local.heard(sorted({life.node_id for life in lives})))
        nodes, holders = [], []
        for life in sorted(lives):
            node, free = life.node_id, max(0, lendable(known, life, now, skew))
            if node == me:
                free = self._escrow.free(name) if life == self._gossip.replica else 0
            holds = known.holds.get(life, NO_HOLDS)
            nodes.append(
                BudgetNode(
                    node=node,
                    live=node in live,
                    heard=heard[node] / 1000 if node in heard else None,
                    share=0 if over(life) else share_now(known, life),
                    lent=lent(known, life, now, skew),
                    borrowed=borrowed(known, life, now),
                    held=held(known, life, now),
                    free=0 if over(life) else free,
                    waiting=holds.waiting if node in live else 0,
                )
            )
            holders += [
                HolderReport(node=node, holder=each.holder, amount=each.amount, since=each.since, until=each.until or None)
                for each in holds.holds
                if not each.until or now < each.until
            ]
        here = sum(each.free for each in nodes if each.node == me)
        elsewhere = sum(each.free for each in nodes if each.node != me and each.live)
        total = sum(each.held for each in nodes)
        waiting = sum(each.waiting for each in nodes)
        return BudgetReport(
            name=name,
            limit=known.limit,
            lease=known.lease / SECOND if known.lease else None,
            held=total,
            free_here=here,
            free_elsewhere=elsewhere,
            stranded=max(0, known.limit - sum(_reachable(each, leased=bool(known.lease)) for each in nodes)),
            waiting=waiting,
            limits=tuple(sorted({head.value.limit for head in known.heads})),
            waits_for=() if _is_root(known) else tuple(waits_for(known)),
            participants=tuple(known.nodes()),
            holders=tuple(holders),
            nodes=tuple(nodes),
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join([*names[:most], *([f"and {len(names) - most} more"] if len(names) > most else [])])


def _change_of(before: Sequence[Head], after: Sequence[Head]) -> EventKind | None:
    """The event of a change of the definitions in force; None for none, as where a budget was removed twice."""
    existed, exists = (any(not head.value.removed for head in heads) for heads in (before, after))
    if not exists:
        return EventKind.BUDGET_REMOVED if existed else None
    if len({head.value.limit for head in after}) > 1 and not set(before) > set(after):
        return EventKind.BUDGET_CONFLICT
    return EventKind.BUDGET_CHANGED if existed else EventKind.BUDGET_ADDED


def _without(heads: Sequence[Head]) -> set[str]:
    return {node for head in heads for node in head.value.without}


def _detail_of(kind: EventKind, before: Sequence[Head], after: Sequence[Head]) -> str:
    """The change, for people."""
    value = after[-1].value
    limit = min(head.value.limit for head in after)
    if kind is EventKind.BUDGET_REMOVED:
        return ""
    if kind is EventKind.BUDGET_CONFLICT:
        return f"limits {', '.join(map(str, sorted({head.value.limit for head in after})))}, the lowest holds"
    if kind is EventKind.BUDGET_ADDED:
        return f"limit {limit}, {f'lease {show_duration(value.lease / SECOND)}' if value.lease else 'without a lease'}"
    former = min(head.value.limit for head in before)
    gone = sorted(_without(after) - _without(before))
    parts = [f"limit {limit}" if former == limit else f"limit {former} -> {limit}"]
    return "; ".join([*parts, *([f"the share of {', '.join(gone)} goes to others"] if gone else [])])


def _reachable(each: BudgetNode, *, leased: bool) -> int:
    """The part of a limit that live nodes have, or that is held, or will come back by itself."""
    if each.live and each.share:
        return each.share
    return each.lent if leased else each.lent + each.held - each.borrowed


def _is_root(known: Known) -> bool:
    return len(known.heads) == 1 and not known.heads[0].value.overwrites
