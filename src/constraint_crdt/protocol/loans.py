"""The budgets of the local node: its holds, and the loans it makes, takes and gives back. No I/O; `types.budgets` has the rules.

Rules kept here:

- Nodes ask for loans in their own rows: the HOLDS cell states the `level` of loans that a node needs, and since when it waits.
  Owners read it in the exchanges that go on anyhow, and lend. A loan is a cell, so it leaves only after it is on disk.
- The first in line is served first, over the whole fleet, by the times that nodes state: best effort, since clocks differ. A node
  with processes that wait lends nothing to nodes that wait for a shorter time.
- The owners with the most to spare lend to the first in line, the next ones to the next, by the knowledge that each has of the
  others. An owner lends out of turn after `OUT_OF_TURN_WAIT`. So a single demand is rarely met several times.
- A borrower gives back surplus loans, once others wait, or once its owner has to lend less. Of two nodes with a part each
  the later gives its part back.
- Rights that came to a node stay there for a turn: while its processes go on acquiring, for `TURN` and `TURN_HOLDS` holds, or
  `LONGER` times `TURN` at most. Else rights that many nodes wait for were moved for each hold, and most of the time went into that.
- A loan in use is renewed by its owner in the second half of the lease. An unused loan runs out.
- Rights move to nodes in contact only (`Contacts`): a loan to a node that is down or cut off is lost to all until it ends, and so
  is one given back to such an owner. A node that was not heard of lately is asked first, and rights stay in use meanwhile.
- A node whose clock is in doubt neither lends nor takes where there is a lease. A step of its clock beyond the skew bound is as the
  beginning of a life: its share is 0 for a lease and twice the skew bound.
- With a lease, a hold may be granted before it is on disk where the states that may be on disk keep enough back for it (`kept`):
  a process that resumes the life counts that as held. So acquires wait for the disk only as their number grows.
- A life that is over has no rights. A participant ends the lives of its own node that it hears of: nothing else speaks for it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.errors import ClockInDoubt, NoRights, UnknownName
from constraint_crdt.protocol.local_replica import LocalReplica
from constraint_crdt.types.budgets import (
    HOLDER_BYTES,
    MOST_HOLDS,
    MOST_LOANS,
    NO_HOLDS,
    NO_LEDGER,
    Budgets,
    BudgetValue,
    Hold,
    Holds,
    Known,
    Ledger,
    Loan,
    ReturnedLoan,
    borrowed,
    check_amount,
    covered_until,
    held,
    least_spare,
    lendable,
    lent,
    loans_to,
    needed,
    renewed,
    settled,
    share_now,
    spare,
    with_loan,
)
from constraint_crdt.types.nodes import cut

OUT_OF_TURN_WAIT: Final = SECOND // 5
"""ns after which an owner lends to a node that waits, though others have more to spare."""

TURN: Final = SECOND // 10
"""ns for which rights stay at a node that they came to, while its processes use them. To move them takes ten times an acquire."""

TURN_HOLDS: Final = 20
"""Holds of a turn. With fewer it goes on: where holds are slow, moves are slow too."""

LONGER: Final = 3
"""By so many times a turn of few holds may be longer."""

IDLE: Final = SECOND // 40
"""ns without a hold after which a turn is over: as long as a process takes between two holds."""

FRESH: Final = SECOND // 10
"""ns for which a node is in contact after a message of it, or longer on a slow link."""

ASKED_ANEW: Final = SECOND
"""ns until a node out of contact is asked again."""

CONTACTS_KEPT: Final = 1_024
"""Nodes of which `Contacts` knows when they spoke, and those that it knows to be asked, at most: the last ones."""

KEPT_ANEW: Final = 8
"""The amount kept back is moved on after this part of a lease, by the next hold."""

GRANTED_BEFORE: Final = "granted before a restart"
"""Stands for the holders that a former process of this life may have had without a trace on disk."""

RESUMED_GAP: Final = 1 << 20
"""Ids left out where a life is resumed: holds that are not on disk may have them."""


class Kept(NamedTuple):
    """The part of `Holds` on the amount kept back."""

    amount: int
    until: int


class Waiting(NamedTuple):
    """The processes of this node that wait for a budget."""

    amount: int
    """Of all of them together."""
    since: int
    """The own time in ns since when the first of them waits."""


class _Demand(NamedTuple):
    """The loans that another node waits for."""

    since: int
    node: str
    life: Replica
    need: int


@dataclass(slots=True)
class _Turn:
    """The loans of this node for a budget, those to it less those by it: since when they are as high, when a hold began or ended
    last, and the most that was held at once meanwhile.
    """

    balance: int = 0
    since: int = 0
    used: int = -1
    most: int = 0
    holds: int = 0

    def end(self, turn: int) -> int:
        """The own time at which the rights go to others that wait."""
        if self.used < self.since:
            return self.since
        return min(self.since + (turn if self.holds >= TURN_HOLDS else LONGER * turn), self.used + IDLE)


@dataclass(slots=True)
class _Question:
    """A message to a node that has not answered since."""

    sought: int
    """When it was put on the list of the nodes to ask last."""
    sent: int | None = None
    """When it was sent first."""
    lost: bool = False
    """No answer will come."""


class Contacts:
    """The nodes that can be told of a loan now, by the messages that come from them. Times are ns of a clock that never steps.

    A node is in contact for a moment after a message of it. Else it has to be asked, and is out of contact without an answer in the
    time that its link needs, unless other nodes hear it.
    """

    def __init__(self, now: Callable[[], int], likely: Callable[[str], int], through: Callable[[str], object]) -> None:
        """`likely`: ns within which the answer of a node comes. `through`: the node that hears another which this one does not."""
        self._now, self._likely, self._through = now, likely, through
        self._met: OrderedDict[str, int] = OrderedDict()
        self._asked: OrderedDict[str, _Question] = OrderedDict()
        self._sought: set[str] = set()

    def __contains__(self, node: object) -> bool:
        return isinstance(node, str) and self.wait(node) == 0

    def met(self, node: str) -> bool:
        """A message of a node came. True if it was asked."""
        self._met[node] = self._now()
        self._met.move_to_end(node)
        if len(self._met) > CONTACTS_KEPT:
            self._met.popitem(last=False)
        self._sought.discard(node)
        return self._asked.pop(node, None) is not None

    def asked(self, node: str) -> None:
        """A message to a node is sent."""
        question = self._asked.get(node)
        if question is not None and question.sent is None:
            question.sent = self._now()

    def missed(self, node: str) -> None:
        """There is no way to a node, or it did not answer. It is out of contact once its last message is old."""
        self._question(node, self._now()).lost = True

    def _question(self, node: str, now: int) -> _Question:
        question = self._asked.setdefault(node, _Question(now))
        if len(self._asked) > CONTACTS_KEPT:
            self._asked.popitem(last=False)
        return question

    def wait(self, node: str) -> int | None:
        """ns until it is known whether a node is in contact; 0: it is; None: it is out of contact."""
        now, met, span = self._now(), self._met.get(node), max(FRESH, self._likely(node))
        if met is not None and now - met < span:
            return 0
        question = self._asked.get(node)
        if question is None:
            return span
        sent = now if question.sent is None else question.sent
        if not question.lost and now < sent + span:
            return sent + span - now
        return 0 if self._through(node) else None

    def seek(self, node: str) -> None:
        """Have a node asked, unless it was asked just now."""
        now, question = self._now(), self._asked.get(node)
        if question is None or now - question.sought >= ASKED_ANEW:
            self._question(node, now).sought = now
            self._sought.add(node)

    def take_sought(self) -> set[str]:
        """The nodes to ask since the last call."""
        sought, self._sought = self._sought, set()
        return sought


class Escrow:
    """The budgets on the local node. All times are those of its own clock."""

    def __init__(self, local: LocalReplica, turn: int = TURN) -> None:
        """`turn`: ns, 0 for none."""
        self._local = local
        self._turn = turn
        self.contacts: Contacts | None = None
        """The nodes that rights move to; None: to all."""
        self._turns: dict[str, _Turn] = {}
        self._waiting: dict[str, Waiting] = {}
        self._kept: dict[tuple[str, Replica], list[Kept]] = {}
        """The amounts kept back by the states that may be on disk, the oldest first, by budget and life of this process."""
        self._most: dict[str, int] = {}
        """The most that was held at once since the amount kept back was moved on."""
        self._steady_offset: int | None = None
        self._concerned: set[str] = set()
        self._agreed = False
        self._due: int | None = None

    def take_concerned(self) -> set[str]:
        """The nodes that the loans written since the last call concern: the sooner they hear of them, the better."""
        concerned, self._concerned = self._concerned, set()
        return concerned

    def take_agreed(self) -> bool:
        """True if this node took a step to an agreement on a definition since the last call: all participants wait for it."""
        agreed, self._agreed = self._agreed, False
        return agreed

    def take_due(self) -> int | None:
        """The own time in ns at which this node lends what it kept for a turn, or in place of an owner that has not by then; None:
        nothing waits.
        """
        due, self._due = self._due, None
        return due

    def has_passed(self, since: int, ns: int) -> bool:
        """True once so much of the own time has passed, or the clock was set back. `take_due` tells when that will be."""
        if since <= self.now < since + ns:
            self._wake(since + ns)
            return False
        return True

    @property
    def budgets(self) -> Budgets:
        """The cells."""
        return self._local.state.budgets

    @property
    def now(self) -> int:
        """The own time in ns."""
        return self._local.time.own()

    @property
    def skew(self) -> int:
        """The bound on clock skew in ns."""
        return self._local.time.max_skew

    @property
    def goes_on(self) -> bool:
        """The present life may hold and lend; else the next write begins another life, or the life was ended by another node."""
        local, retirements, me = self._local, self._local.state.retirements, self._local.replica
        if not local.goes_on or retirements.ended(me) or retirements.is_over(me):
            return False
        return local.authority is None or not local.state.rows.seq(me) or not local.authority.has_ended(me)

    def doubted(self, known: Known) -> bool:
        """True if the clock of this node is in doubt, and the budget depends on it."""
        return bool(known.lease) and self._local.time.in_doubt

    # --- definitions -----------------------------------------------------------------------------------------------------

    def define(
        self, name: str, limit: int, *, lease: int, nodes: Iterable[str], without: Iterable[str] = (), removed: bool = False
    ) -> BudgetValue:
        """Define a budget, or change its limit. `lease`: ns, 0 for none. `nodes`: those that further shares go to.

        Raises `ConstraintCrdtError` for values out of bounds, and `NotPermitted` without the right.
        """
        with self._local as me:
            over = [life for node in dict.fromkeys(nodes) if (life := self._life_of(node, me)) is not None]
            value = self.budgets.define(name, limit, lease=lease, over=over, at=self.now, node=me, without=without, removed=removed)
        self.tend()
        return value

    def _life_of(self, node: str, me: Replica) -> Replica | None:
        """The present life of a node, as far as it is known."""
        if node == me.node_id:
            return me
        rows, retirements = self._local.state.rows, self._local.state.retirements
        lives = [each for each in rows.clock_mark.entries if each.node_id == node and not retirements.is_over(each)]
        return max(lives, key=rows.seq, default=None)

    # --- holding -----------------------------------------------------------------------------------------------------------

    def acquire(self, name: str, amount: int, holder: str) -> Hold:
        """Hold an amount from now on.

        Raises `NoRights`, changing nothing, without rights for all of it, and `KeyError` for an unknown budget.
        """
        known, me, now = self._checked(name), self._local.replica, self.now
        check_amount(amount)
        holds = self._tidy(known, me, now)
        until = covered_until(known, me, amount, now, self.skew)
        if until < 0 or (known.lease and until - now < known.lease // 4) or len(holds.holds) >= MOST_HOLDS:
            raise NoRights(f"{amount} of {name} is not free here")  # `reason` says more, and takes longer
        sure, sum_ = self._sure(name), sum(each.amount for each in holds.holds) + amount
        if sum_ <= sure.amount and sure.until - now >= known.lease // 2:
            until = min(until, sure.until)
        self._use(name, now).holds += 1
        hold = Hold(holds.next, cut(holder, HOLDER_BYTES), amount, now, until)
        holds = msgspec.structs.replace(holds, holds=(*holds.holds, hold), next=holds.next + 1)
        self._put_holds(name, known, self._keeping(name, known, holds, now))
        return hold

    # --- what is kept back -----------------------------------------------------------------------------------------------

    def is_sure(self, name: str, hold: Hold) -> bool:
        """True if a process that resumes this life would count a hold just granted, whatever of the last writes is on disk."""
        sure, holds = self._sure(name), self.budgets.known(name).holds.get(self._local.replica, NO_HOLDS)
        return 0 < hold.until <= sure.until and sum(each.amount for each in holds.holds) <= sure.amount

    def kept(self, name: str) -> Kept:
        """The amount that the present state keeps back. Given to `synced` once the state is on disk."""
        return self._kept_by(name)[-1]

    def synced(self, name: str, kept: Kept) -> None:
        """A state that keeps this back is on disk, so no earlier state is any more."""
        found = self._kept_by(name)
        if kept in found:
            del found[: found.index(kept)]

    def is_synced(self, name: str) -> bool:
        """True if the last change of the amount kept back is on disk."""
        return len(self._kept_by(name)) == 1

    def keep_nothing(self) -> None:
        """The process ends in order: all of its holds will be on disk, so nothing is kept back."""
        me = self._local.replica
        for name, life in self._kept:
            known = self.budgets.known(name)
            holds = known.holds.get(life, NO_HOLDS)
            if life == me and holds.kept and self.goes_on:
                with self._local:
                    self.budgets.put(name, node=me, holds=msgspec.structs.replace(holds, kept=0, kept_until=0))

    def _kept_by(self, name: str) -> list[Kept]:
        return self._kept.get((name, self._local.replica)) or [Kept(0, 0)]

    def _sure(self, name: str) -> Kept:
        """The least amount that each state that may be on disk keeps back."""
        found = self._kept_by(name)
        return Kept(min(each.amount for each in found), min(each.until for each in found))

    def _keeping(self, name: str, known: Known, holds: Holds, now: int) -> Holds:
        """The own holds, with as much kept back as was held at once lately, for another lease from time to time."""
        if not known.lease:
            return holds
        sum_ = sum(each.amount for each in holds.holds)
        self._most[name] = most = max(sum_, self._most.get(name, 0))
        fresh = holds.kept_until - now > known.lease - known.lease // KEPT_ANEW
        if fresh and holds.kept >= sum_:
            return holds
        if not fresh:
            self._most[name] = sum_
        kept = Kept(max(most, holds.kept) if fresh else most, now + known.lease)
        self._kept.setdefault((name, self._local.replica), [Kept(0, 0)]).append(kept)
        return msgspec.structs.replace(holds, kept=kept.amount, kept_until=kept.until)

    def _resumed(self, name: str, known: Known) -> Known:
        """`known`, and as held also the holds that a former process of this life may have granted without a trace on disk. The next
        write of the own holds has it.
        """
        me, now = self._local.replica, self.now
        holds = known.holds.get(me, NO_HOLDS)
        if not holds.kept or (name, me) in self._kept or not self.goes_on:
            return known
        entries, following = self._tidy(known, me, now).holds, holds.next + RESUMED_GAP
        if holds.kept_until > now:
            running = known._replace(holds={**known.holds, me: msgspec.structs.replace(holds, holds=entries)})
            entries = tuple(self._longer(running, me, each, holds.kept_until, now) for each in entries)
            rest = holds.kept - sum(each.amount for each in entries if each.until >= holds.kept_until)
            if rest > 0:
                entries = (*entries, Hold(following, GRANTED_BEFORE, rest, now, holds.kept_until))
        after = msgspec.structs.replace(holds, holds=entries[-MOST_HOLDS:], next=following + 1, kept=0, kept_until=0)
        return known._replace(holds={**known.holds, me: after})

    def _longer(self, known: Known, me: Replica, hold: Hold, until: int, now: int) -> Hold:
        """A hold that lasts until then, where rights cover it."""
        rest = tuple(each for each in known.holds[me].holds if each.id != hold.id)
        without = known._replace(holds={**known.holds, me: msgspec.structs.replace(known.holds[me], holds=rest)})
        if hold.until < until <= covered_until(without, me, hold.amount, now, self.skew):
            return msgspec.structs.replace(hold, until=until)
        return hold

    def renew(self, name: str, id_: int) -> Hold:
        """Hold an amount for another lease, or as long as rights are known to last. Raises `NoRights` for a hold that is over."""
        known, me, now = self._checked(name), self._local.replica, self.now
        holds = self._tidy(known, me, now)
        hold = next((each for each in holds.holds if each.id == id_), None)
        if hold is None:
            raise NoRights(f"this hold of {name} is over: acquire it anew")
        if not known.lease:
            return hold
        rest = msgspec.structs.replace(holds, holds=tuple(each for each in holds.holds if each.id != id_))
        without = known._replace(holds={**known.holds, me: rest})
        later = msgspec.structs.replace(hold, until=max(hold.until, covered_until(without, me, hold.amount, now, self.skew)))
        if later != hold:
            kept = tuple(later if each.id == id_ else each for each in holds.holds)
            self._put_holds(name, known, msgspec.structs.replace(holds, holds=kept))
        return later

    def release(self, name: str, id_: int) -> bool:
        """End a hold; False for a hold already over. An amount others wait for leaves at once."""
        known, me, now = self._checked(name), self._local.replica, self.now
        holds = self._tidy(known, me, now)
        kept = tuple(each for each in holds.holds if each.id != id_)
        if len(kept) == len(holds.holds):
            return False
        self._use(name, now)
        self._put_holds(name, known, msgspec.structs.replace(holds, holds=kept))
        return True

    def _use(self, name: str, now: int) -> _Turn:
        """A hold begins or ends. Returns the turn."""
        turn = self._turns.setdefault(name, _Turn())
        turn.used = now
        return turn

    def wait(self, name: str, waiting: Waiting | None) -> None:
        """Have other nodes know, from the next `tend` on, how much processes of this node wait for; None: none waits."""
        if waiting is None:
            self._waiting.pop(name, None)
        else:
            self._waiting[name] = waiting

    def _checked(self, name: str) -> Known:
        known = self._resumed(name, self.budgets.known(name))
        if all(head.value.removed for head in known.heads):
            raise UnknownName(name, "budget")
        if not self._local.may_count:
            raise NoRights(f"{self._local.node_id} may not hold anything: it is retired or revoked, or an observer")
        if self.doubted(known):
            raise ClockInDoubt(f"the clock of {self._local.node_id} is in doubt, so it holds nothing of {name}: set its clock")
        if not self.goes_on:
            raise NoRights(
                f"{self._local.node_id} has lost its rights with its former life: they come back by themselves, or as loans"
            )
        return known

    def _put_holds(self, name: str, known: Known, holds: Holds) -> None:
        """Write the holds of this node, and their consequences for others, together."""
        after = known._replace(holds={**known.holds, self._local.replica: holds})
        self._write(name, known, after)

    # --- what goes on by itself ------------------------------------------------------------------------------------------

    def tend(self) -> bool:
        """Bring the cells of this node up to date with the state and the time. True if something was written."""
        self.budgets.moved.clear()
        if not self._local.may_count:
            return False
        self._watch_clock()
        written = [self._tend(name) for name in self.budgets.names()]
        return any(written)

    def _watch_clock(self) -> None:
        """After a step of the clock beyond the bound, all shares of this life are 0 for a while."""
        steady = self._local.edge.steady
        if steady is None:
            return
        offset, before = self.now - steady(), self._steady_offset
        self._steady_offset = offset
        if before is None or abs(offset - before) <= self.skew or not self.goes_on:
            return
        me = self._local.replica
        for name in self.budgets.names():
            known = self.budgets.known(name)
            ledger = known.ledgers.get(me)
            if known.lease and ledger is not None:
                waits = msgspec.structs.replace(ledger, share=0, began=max(1, self.now))
                with self._local:
                    self.budgets.put(name, node=me, ledger=waits)

    def _tend(self, name: str) -> bool:
        known, me = self.budgets.known(name), self._local.replica
        if self.doubted(known):
            return False
        takes_part = me.node_id in known.nodes() if known.lease else me in _named(known)
        if self.goes_on:
            if takes_part and self.budgets.other_lives(me) and known.lease:
                with self._local:
                    self._local.state.retirements.end_lives(self.budgets.other_lives(me), node=me)
                known = self.budgets.known(name)
            return self._write(name, known, self._resumed(name, known))
        if not takes_part or not known.lease or self._local.state.retirements.is_over(me):
            return False
        with self._local as me:
            self._local.state.retirements.end_lives(self.budgets.other_lives(me), node=me)
        return self._write(name, self.budgets.known(name), self.budgets.known(name)) or True

    def _write(self, name: str, before: Known, known: Known) -> bool:
        """Write the cells of this node on a budget, given `known`, where they differ from `before`."""
        me, now = self._local.replica, self.now
        takes_part = me.node_id in known.nodes() if known.lease else me in _named(known)
        if takes_part or me in known.ledgers:
            known = _with_ledger(known, me, settled(known, me, now, self.skew))
        known = known._replace(holds={**known.holds, me: self._tidy(known, me, now)})
        queue = self._queue(known, me, now)
        unused = self._unused(name, known, me, now, queue)
        known = known._replace(holds={**known.holds, me: self._returned(known, me, now, name, unused, queue)})
        if me in known.ledgers:
            known = self._lend(known, me, now, name, unused, queue)
        holds = self._with_demand(known, me, now, name)
        ledger_moved = known.ledgers.get(me) != before.ledgers.get(me)
        holds_moved = holds != before.holds.get(me, NO_HOLDS)
        if holds_moved:
            self._kept.setdefault((name, me), [Kept(0, 0)])
        if ledger_moved or holds_moved:
            former, ledger = before.ledgers.get(me, NO_LEDGER), known.ledgers.get(me, NO_LEDGER)
            self._agreed |= _agreement(ledger) != _agreement(former)
            loans = set(ledger.loans) - set(former.loans)
            returned = set(holds.returned) - set(before.holds.get(me, NO_HOLDS).returned)
            self._concerned |= {loan.node for loan in loans} | {loan.node for loan in returned}
            with self._local:
                self.budgets.put(
                    name,
                    node=me,
                    ledger=known.ledgers[me] if ledger_moved else None,
                    holds=holds if holds_moved else None,
                )
        return ledger_moved or holds_moved

    def _tidy(self, known: Known, me: Replica, now: int) -> Holds:
        """The own holds without those that are over, and without returns that their owners know of."""
        holds = known.holds.get(me, NO_HOLDS)
        running = tuple(each for each in holds.holds if not each.until or now < each.until)
        listed = {(*owner, loan.id) for owner, ledger in known.ledgers.items() for loan in ledger.loans}
        returned = tuple(each for each in holds.returned if (each.node, each.life, each.id) in listed)
        if len(running) < len(holds.holds) or len(returned) < len(holds.returned):
            return msgspec.structs.replace(holds, holds=running, returned=returned)
        return holds

    def _with_demand(self, known: Known, me: Replica, now: int, name: str) -> Holds:
        """The own holds with the loans that they need, and with the processes that wait."""
        holds, waiting = known.holds.get(me, NO_HOLDS), self._waiting.get(name)
        amount, since = (waiting.amount, waiting.since) if waiting is not None else (0, 0)
        level = self._level(known, me, now, amount)
        if (holds.level, holds.waiting, holds.since) == (level, amount, since):
            return holds
        return msgspec.structs.replace(holds, level=level, waiting=amount, since=since)

    def _level(self, known: Known, me: Replica, now: int, waiting: int) -> int:
        own = max(0, share_now(known, me) - lent(known, me, now, self.skew))
        return max(0, held(known, me, now) + waiting - own)

    # --- loans -------------------------------------------------------------------------------------------------------------

    def _queue(self, known: Known, me: Replica, now: int) -> Sequence[_Demand]:
        """The demands of the other nodes that wait, the first in line first."""
        over = self._local.state.retirements.is_over
        return sorted(
            _Demand(holds.since, life.node_id, life, need)
            for life, holds in known.holds.items()
            if holds.since and life.node_id != me.node_id and (need := needed(known, life, now)) and not over(life)
        )

    def _unused(self, name: str, known: Known, me: Replica, now: int, queue: Sequence[_Demand]) -> int:
        """The amount that stays here for the next processes of this node, as it is in its turn. See `_Turn`."""
        if not known.lease or not self._turn:
            return 0
        found, holding = self._turns.setdefault(name, _Turn()), held(known, me, now)
        has_loans = any(ledger.loans for ledger in known.ledgers.values())
        balance = borrowed(known, me, now) - lent(known, me, now, self.skew) if has_loans else 0
        if balance > found.balance:
            found.since, found.most, found.holds = now, 0, 0
        found.balance = balance
        if holding >= found.most:
            found.most = holding
            return 0
        end = found.end(self._turn)
        if not found.since <= now < end:  # also where the clock was set
            return 0
        if queue:
            self._wake(end)
            for owner, _ in loans_to(known, me):  # by then they can be given back
                self._ask(owner.node_id)
        return found.most - holding

    def _is_away(self, node: str) -> bool:
        """A node is out of contact, as far as is known."""
        return self.contacts is not None and self.contacts.wait(node) is None

    def _ask(self, node: str) -> bool:
        """True for a node in contact. Another one is asked, and `tend` has something to do once it is known whether it answers."""
        if self.contacts is None or node in self.contacts:
            return True
        self.contacts.seek(node)
        self._wake(self.now + (self.contacts.wait(node) or ASKED_ANEW))
        return False

    def _wake(self, at: int) -> None:
        """`tend` has something to do then."""
        self._due = at if self._due is None else min(at, self._due)

    def _returned(self, known: Known, me: Replica, now: int, name: str, unused: int, queue: Sequence[_Demand]) -> Holds:
        """The own holds, with the loans that others need more given back. `unused` stays, but where an owner has to lend less."""
        queue = queue if known.lease else ()
        waiting, holds = self._waiting.get(name), known.holds[me]
        mine = 0 if waiting is None or (queue and queue[0][:2] < (waiting.since, me.node_id)) else waiting.amount
        for owner, loan in sorted(loans_to(known, me), key=lambda each: (each[1].amount, each[0], each[1].id)):
            lowered = lent(known, owner, now, self.skew) > share_now(known, owner)
            if now >= loan.until or len(holds.returned) >= MOST_LOANS or not (queue or lowered):
                continue
            less = msgspec.structs.replace(holds, returned=(*holds.returned, ReturnedLoan(*owner, loan.id)))
            after, stays = known._replace(holds={**known.holds, me: less}), 0 if lowered else unused
            needs = self._level(known, me, now, max(mine, stays))
            if borrowed(after, me, now) >= needs and least_spare(after, me, now, self.skew) >= stays:
                if not lowered and not self._ask(owner.node_id):
                    continue  # they are of use here only
                known, holds = after, less
        return holds

    def _lend(self, known: Known, me: Replica, now: int, name: str, unused: int, queue: Sequence[_Demand]) -> Known:
        """`known`, with renewed and new loans for the need of others. `unused` stays here."""
        before = known
        for loan in known.ledgers[me].loans if known.lease else ():
            known = self._renew(known, me, loan, now)
        if known is not before:
            queue = self._queue(known, me, now)
        waiting = self._waiting.get(name)
        owners = {me: max(0, lendable(known, me, now, self.skew) - unused)} if queue else {}
        if owners.get(me):  # else it does not matter what others have
            others = (life for node in known.nodes() if node != me.node_id for life in known.current(node))
            owners |= {life: lendable(known, life, now, self.skew) for life in others}
        kept = 0
        for since, node, life, need in queue:
            if waiting is not None and (waiting.since, me.node_id) < (since, node):
                break
            free = lendable(known, me, now, self.skew) - unused - kept
            ledger = known.ledgers[me]
            if free <= 0 or len(ledger.loans) >= MOST_LOANS:
                break
            away = self._is_away(node)
            mine = 0 if away else _part_of(owners, me, life, need)
            if not mine and not away and now - since < OUT_OF_TURN_WAIT:
                self._wake(since + OUT_OF_TURN_WAIT)
                continue
            amount = min(free, mine or need)
            if not known.lease:
                amount = min(free, max(amount, free // 2))
            if not self._ask(node):
                kept += 0 if away else amount
                continue
            until = now + known.lease if known.lease else 0
            known = _with_ledger(known, me, with_loan(ledger, life, amount, until))
        return known

    def _renew(self, known: Known, me: Replica, loan: Loan, now: int) -> Known:
        """`known`, with a loan renewed if it is in use and ends soon. Of a node out of contact nobody knows whether it is."""
        until = now + known.lease
        if loan.until - now >= known.lease // 2 or until <= loan.until or self._local.state.retirements.is_over(loan.to):
            return known
        longer = sum(each.amount for _, each in loans_to(known, loan.to) if each.until - now >= known.lease // 2)
        if longer + loan.amount > max(known.holds.get(loan.to, NO_HOLDS).level, 0) or not self._ask(loan.node):
            return known
        after = _with_ledger(known, me, renewed(known.ledgers[me], loan, until))
        within = lent(after, me, now, self.skew) <= share_now(after, me) and least_spare(after, me, now, self.skew) >= 0
        return after if within else known

    # --- looking -------------------------------------------------------------------------------------------------------------

    def lenders(self, name: str) -> list[tuple[str, int]]:
        """The other nodes with something to lend, as far as this node knows, the most first."""
        known, me, now = self.budgets.known(name), self._local.replica, self.now
        lives = (life for node in known.nodes() if node != me.node_id for life in known.current(node))
        free = [(life.node_id, lendable(known, life, now, self.skew)) for life in lives]
        return sorted(((node, amount) for node, amount in free if amount), key=lambda each: (-each[1], each[0]))

    def asked_first(self, name: str, most: int) -> list[str]:
        """The other nodes to tell of a demand, `most` at most: those with something to lend, the most first, then others with a
        share. A single one, by chance, where nothing is known to be free and others wait already: it will be long until a loan.
        """
        known, me, now = self.budgets.known(name), self._local.replica, self.now
        free = [node for node, _ in self.lenders(name)]
        others = [node for node in known.nodes() if node != me.node_id and node not in free]
        if not free and others and self._queue(known, me, now):
            near = [node for node in others if not self._is_away(node)] or others
            return [near[now // IDLE % len(near)]]
        return sorted(free + others, key=self._is_away)[:most]

    def stated(self, name: str) -> int:
        """The amount for which processes of this node wait, as other nodes can know."""
        return self.budgets.known(name).holds.get(self._local.replica, NO_HOLDS).waiting

    def may_hold(self, name: str, amount: int) -> bool:
        """False if `acquire` would find no rights. It says nothing of the clock and the life of this node."""
        known, me, now = self.budgets.known(name), self._local.replica, self.now
        return spare(known, me, now, self.skew) >= amount

    def has_rights(self, name: str) -> bool:
        """True if this node holds of a budget, or can."""
        known, me, now = self.budgets.known(name), self._local.replica, self.now
        return share_now(known, me) + borrowed(known, me, now) > lent(known, me, now, self.skew)

    def free(self, name: str) -> int:
        """The amount that can be acquired here and now."""
        known = self.budgets.known(name)
        if self.doubted(known) or not self.goes_on:
            return 0
        return max(0, least_spare(known, self._local.replica, self.now, self.skew))

    def reason(self, name: str, amount: int) -> str:
        """A sentence about why an amount cannot be held here: who has free rights, and who holds them."""
        known, now = self.budgets.known(name), self.now
        if amount > known.limit:
            return f"{amount} of {name} is more than its limit of {known.limit}"
        if self.doubted(known):
            return f"the clock of {self._local.node_id} is in doubt, so it holds nothing of {name}: set its clock"
        text, others = f"{amount} of {name} is not free here: {self.free(name)} is", self.lenders(name)
        if others:
            return f"{text}; {self._heard([(node, f'has {spare} free') for node, spare in others])}"
        holders = sorted((life.node_id, held(known, life, now)) for life in known.holds)
        told = [(node, f"holds {sum_}") for node, sum_ in holders if sum_]
        return f"{text}; {self._heard(told)}" if told else f"{text}, and no other node is known to have any free"

    def _heard(self, told: Sequence[tuple[str, str]], most: int = 3) -> str:
        """The figures told by nodes, and how long ago this node heard them."""
        ages = dict(self._local.heard([node for node, _ in told]))
        texts = [
            f"{node} {what}"
            + (f" (heard {ages[node] / 1000:.1f} s ago)" if node in ages else "" if node == self._local.node_id else " (away)")
            for node, what in told[:most]
        ]
        return ", ".join([*texts, *([f"and {len(told) - most} more"] if len(told) > most else [])])


def _part_of(owners: dict[Replica, int], me: Replica, to: Replica, need: int) -> int:
    """The part of a need that falls to this owner, and takes all parts from `owners`: those with the most to spare lend first."""
    mine = 0
    for owner in sorted((life for life in owners if life.node_id != to.node_id), key=lambda life: (-owners[life], life)):
        part = min(need, owners[owner])
        owners[owner] -= part
        need -= part
        mine += part if owner == me else 0
    return mine


def _agreement(ledger: Ledger) -> Ledger:
    """What a ledger says about the definitions, without the loans."""
    return msgspec.structs.replace(ledger, loans=(), next=0)


def _named(known: Known) -> set[Replica]:
    return {share.replica for head in known.heads for share in head.value.shares}


def _with_ledger(known: Known, me: Replica, ledger: Ledger) -> Known:
    return known._replace(ledgers={**known.ledgers, me: ledger})


__all__ = ["GRANTED_BEFORE", "OUT_OF_TURN_WAIT", "Contacts", "Escrow", "Waiting"]
