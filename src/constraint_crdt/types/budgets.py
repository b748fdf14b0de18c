"""Budgets: how many of something the fleet may hold at once, or use up in all. Escrow with leases, without a quorum.

| kind | key | value |
|---|---|---|
| 35 BUDGET | name | `[limit, lease in ns, [[node id, incarnation, amount], …], overwrites, made, without, removed]`: a definition |
| 36 LEDGER | name | `[share, mark, phase, began, admitted, acks, next id, [[id, node id, incarnation, amount, until], …]]` |
| 37 HOLDS | name | `[[[id, holder, amount, since, until], …], used, level, waiting, since, returned, next id, kept, kept until]` |

A definition spreads its limit as shares over *participants*. Each participant has a LEDGER cell with its share in force and its
loans, and each node that acquires has a HOLDS cell. docs/design/budgets.md says why each rule is there.

- **Rights** of a life: its share in force, less its loans that may still be in use (until + skew bound), plus loans to it that run
  (until). All times are by the reader's own clock. Holds never exceed the rights, at any later time.
- Only shares are lent, and loans go to a life, not to a node. Renewing moves `until` forward. Its owner drops a returned loan.
- A **root** definition (it overwrites none) is in force at once, for the lives that it names. Other lives begin with the share 0.
- A share falls at once, to the lowest of all definitions that no other overwrites (`heads`). Its ledger goes by these definitions
  (`mark`) once all that is lent and held is within the lower share.
- A share rises when all participants go by the same definitions, and each has seen that all do (`phase`), itself included.
- A life that the root does not name gets a share when it is also *admitted* (an admitted participant wrote that it knows of this
  life, or all others did), and a lease and twice the skew bound have passed since it began.
- With a retired participant (`without`) shares rise a lease and twice the skew bound after the definition was made.
- Without a lease (0) participants are lives, loans are gifts for good, and time has no part in anything. The share of a life that
  is over stays, unless its node was declared gone: it may have been spent.
- No cell is removed: 0.1.0 refuses a removal of a kind that it does not know. A removed budget is a definition with the limit 0.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from constraint_crdt.crdt.cells import (
    SEPARATOR,
    Cell,
    WireDot,
    check_dots,
    make_cell,
    register,
    require,
    require_counts,
    require_text,
    value_of,
)
from constraint_crdt.crdt.clock import Dot, Replica, check_id, replica_bytes
from constraint_crdt.crdt.limits import DURATION_MAX, ID_BYTES, whole_number
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError, UnknownName
from constraint_crdt.types.nodes import Retirements
from constraint_crdt.types.view import IndexedView

BUDGET: Final = 35
LEDGER: Final = 36
HOLDS: Final = 37

MOST_BUDGETS: Final = 64
"""Budgets that a node defines, removed ones included."""

MOST_PARTICIPANTS: Final = 64
"""Nodes with a share, or a voice in its changes."""

MOST_LOANS: Final = 256
MOST_HOLDS: Final = 256
MARK_BYTES: Final = 8

_NONE: Final = r"\x00-\x1f\x7f-\x9f"
BUDGET_PATTERN: Final = rf"^[^\s{_NONE}-](?:[^{_NONE}]*[^\s{_NONE}])?$"
"""The names of budgets: no control characters, no space at the ends, no - at the begin."""

HOLDER_BYTES: Final = 128
"""The text that names a holder, in UTF-8."""

AMOUNT_MAX: Final = 2**53
"""The largest limit and amount: exact in JSON, too."""

LEASE_MIN: Final = 1.0
"""Seconds: the shortest lease."""


class Share(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The part of a limit that a participant may spend or lend."""

    node: str
    life: int
    amount: int

    @property
    def replica(self) -> Replica:
        """The life that the definition names."""
        return Replica(self.node, self.life)


class BudgetValue(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a BUDGET cell."""

    limit: int
    lease: int
    """ns; 0: amounts are used up."""
    shares: tuple[Share, ...]
    overwrites: tuple[WireDot, ...] = ()
    """The definitions that this definition replaces, with all that they replaced."""
    made: int = 0
    """The time in ns, by the writer's own clock."""
    without: tuple[str, ...] = ()
    """Nodes that an operator declared gone: their share belongs to others, and their word is not awaited."""
    removed: bool = False


class Loan(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An entry of a ledger: an amount lent to a life of a node."""

    id: int
    node: str
    life: int
    amount: int
    until: int
    """By any clock, in ns; 0 in a budget without a lease."""

    @property
    def to(self) -> Replica:
        """The borrower."""
        return Replica(self.node, self.life)


class Ledger(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a LEDGER cell."""

    share: int = 0
    """The share in force."""
    mark: bytes = b""
    """The definitions that this participant goes by."""
    phase: int = 0
    """1: it saw that all participants go by them."""
    began: int = 0
    """The time in ns at which this life began to wait; 0: named by the first definition."""
    admitted: bool = False
    acks: tuple[tuple[str, int], ...] = ()
    """Lives of other participants that this life knows of, until they are admitted."""
    next: int = 1
    loans: tuple[Loan, ...] = ()


class Hold(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An amount that a process holds."""

    id: int
    holder: str
    amount: int
    since: int
    until: int
    """By the clock of the node, in ns; 0 in a budget without a lease."""


class ReturnedLoan(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A loan that its borrower uses no more."""

    node: str
    life: int
    id: int


class Holds(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The value of a HOLDS cell."""

    holds: tuple[Hold, ...] = ()
    used: int = 0
    """Without a lease: used up for good, beside the holds."""
    level: int = 0
    """The sum of the loans that this node needs."""
    waiting: int = 0
    """The amount that processes wait for here."""
    since: int = 0
    """The time in ns since when the first of them waits; 0: none does."""
    returned: tuple[ReturnedLoan, ...] = ()
    next: int = 1
    kept: int = 0
    """With a lease: the most that may be held up to `kept_until` after this is on disk and before the next state is. A process that
    resumes the life counts as much as held."""
    kept_until: int = 0


NO_LEDGER: Final = Ledger()
NO_HOLDS: Final = Holds()


def _check_budget(key: str, value: BudgetValue) -> None:
    _check_name(key)
    require(0 <= value.limit <= AMOUNT_MAX, "the limit of a budget")
    require_counts((value.lease, value.made), "a time of a budget")
    require(len(value.shares) <= MOST_PARTICIPANTS, "the number of participants of a budget")
    for each in value.shares:
        _check_life(each.node, each.life)
        require(0 <= each.amount <= AMOUNT_MAX, "a share of a budget")
    require(len({each.replica for each in value.shares}) == len(value.shares), "the participants of a budget")
    require(not value.lease or sum(each.amount for each in value.shares) <= value.limit, "the sum of the shares of a budget")
    check_dots(value.overwrites)
    for node in value.without:
        require_text(node, "the name of a node")


def _check_ledger(key: str, value: Ledger) -> None:
    _check_name(key)
    require(0 <= value.share <= AMOUNT_MAX and len(value.mark) in (0, MARK_BYTES), "a part of a ledger")
    require_counts((value.phase, value.began, value.next), "a number of a ledger")
    require(len(value.loans) <= MOST_LOANS and len(value.acks) <= MOST_PARTICIPANTS, "the length of a ledger")
    for node, life in value.acks:
        _check_life(node, life)
    for each in value.loans:
        _check_life(each.node, each.life)
        require(0 <= each.amount <= AMOUNT_MAX, "the amount of a loan")
        require_counts((each.id, each.until), "a number of a loan")


def _check_holds(key: str, value: Holds) -> None:
    _check_name(key)
    numbers = (value.used, value.level, value.waiting, value.since, value.next, value.kept, value.kept_until)
    require_counts(numbers, "a number of the holds of a node")
    require(len(value.holds) <= MOST_HOLDS and len(value.returned) <= MOST_LOANS, "the number of holds of a node")
    for each in value.holds:
        require(0 <= each.amount <= AMOUNT_MAX, "the amount of a hold")
        require_counts((each.id, each.since, each.until), "a number of a hold")
        require_text(each.holder, "the name of a holder", HOLDER_BYTES)
    for loan in value.returned:
        _check_life(loan.node, loan.life)
        require_counts((loan.id,), "the id of a loan")


def _check_name(key: str) -> None:
    require(SEPARATOR not in key, "the name of a budget")


def _check_life(node: str, life: int) -> None:
    require_text(node, "the name of a node")
    require_counts((life,), "an incarnation")


register(BUDGET, BudgetValue, _check_budget, key_bytes=ID_BYTES, empty_key=False)
register(LEDGER, Ledger, _check_ledger, key_bytes=ID_BYTES, empty_key=False)
register(HOLDS, Holds, _check_holds, key_bytes=ID_BYTES, empty_key=False)


# --- the rules, over what a node knows --------------------------------------------------------------------------------------


class Head(NamedTuple):
    """A definition no other overwrites."""

    dot: Dot
    value: BudgetValue


class Known(NamedTuple):
    """The knowledge of a node about a budget. All rules are functions of it, of a life, a time and the bound on clock skew."""

    heads: Sequence[Head]
    """Ordered by dot, at least one."""
    ledgers: Mapping[Replica, Ledger]
    holds: Mapping[Replica, Holds]
    lives: Mapping[str, frozenset[Replica]]
    """By participant its lives whose end is not known."""

    @property
    def lease(self) -> int:
        """ns; 0: amounts are used up."""
        heads = self.heads
        return heads[0].value.lease if len(heads) == 1 else max(head.value.lease for head in heads)

    @property
    def limit(self) -> int:
        """Of concurrent definitions the lowest limit."""
        return min(head.value.limit for head in self.heads)

    @property
    def without(self) -> frozenset[str]:
        """The nodes declared gone."""
        return frozenset(node for head in self.heads for node in head.value.without)

    def nodes(self) -> list[str]:
        """The participants, in order."""
        return sorted({share.node for head in self.heads for share in head.value.shares} - self.without)

    def current(self, node: str) -> frozenset[Replica]:
        """The lives of a participant whose word counts."""
        return self.lives.get(node, frozenset())


def mark_of(heads: Iterable[Head]) -> bytes:
    """Names a set of definitions by 8 bytes."""
    return _mark_of(tuple(sorted([head.dot for head in heads])))


@lru_cache(maxsize=MOST_BUDGETS)
def _mark_of(dots: Sequence[Dot]) -> bytes:
    text = b"".join(replica_bytes(replica) + seq.to_bytes(8, "big") for replica, seq in dots)
    return blake2b(text, digest_size=MARK_BYTES, person=b"budget heads").digest()


def share_of(value: BudgetValue, life: Replica) -> int:
    """The share of a life by a definition: that of its node, or without a lease of exactly this life."""
    if value.lease and life.node_id in value.without:
        return 0
    return sum(each.amount for each in value.shares if (each.node == life.node_id if value.lease else each.replica == life))


def target(known: Known, life: Replica) -> int:
    """The share of a life by all definitions that no other overwrites."""
    return min(share_of(head.value, life) for head in known.heads)


def is_root(known: Known, life: Replica) -> bool:
    """True if the first definition is the only definition, and names this life."""
    value = known.heads[0].value
    return len(known.heads) == 1 and not value.overwrites and any(each.replica == life for each in value.shares)


def lent(known: Known, life: Replica, now: int, skew: int) -> int:
    """The sum of the loans of a life that may still be in use."""
    return sum(each.amount for each in known.ledgers.get(life, NO_LEDGER).loans if is_lent(known, life, each, now, skew))


def is_lent(known: Known, life: Replica, loan: Loan, now: int, skew: int) -> bool:
    """True if a loan may still be in use, by the clock of its owner."""
    if not loan.until:
        return True
    if now >= loan.until + skew:
        return False
    returned = known.holds.get(loan.to, NO_HOLDS).returned
    return not any((each.node, each.life, each.id) == (*life, loan.id) for each in returned)


def loans_to(known: Known, life: Replica) -> Sequence[tuple[Replica, Loan]]:
    """The loans to a life that it did not return, with their owners, also those that are over."""
    node, incarnation = life
    found = [
        (owner, loan)
        for owner, ledger in known.ledgers.items()
        for loan in ledger.loans
        if loan.life == incarnation and loan.node == node and owner != life
    ]
    if not found:
        return found
    back = {(each.node, each.life, each.id) for each in known.holds.get(life, NO_HOLDS).returned}
    return [(owner, loan) for owner, loan in found if (*owner, loan.id) not in back] if back else found


def borrowed(known: Known, life: Replica, now: int) -> int:
    """The sum of the loans to a life that run."""
    return sum(loan.amount for _, loan in loans_to(known, life) if not loan.until or now < loan.until)


def held(known: Known, life: Replica, now: int) -> int:
    """The amount that processes of a node hold, or have used up."""
    holds = known.holds.get(life, NO_HOLDS)
    return holds.used + sum(each.amount for each in holds.holds if not each.until or now < each.until)


def share_now(known: Known, life: Replica) -> int:
    """The share in force of a life: of its ledger, lowered by later definitions."""
    return min(known.ledgers.get(life, NO_LEDGER).share, target(known, life))


def spare(known: Known, life: Replica, now: int, skew: int) -> int:
    """The rights of a life less its holds."""
    return share_now(known, life) - lent(known, life, now, skew) + borrowed(known, life, now) - held(known, life, now)


def least_spare(known: Known, life: Replica, now: int, skew: int) -> int:
    """The least of these now and later, if nothing is renewed. It falls only where a loan to the life ends."""
    return min(spare(known, life, time, skew) for time in _ends(known, life, now))


def _ends(known: Known, life: Replica, now: int) -> list[int]:
    """Now, and the times at which rights of a life end."""
    return sorted({now, *(loan.until for _, loan in loans_to(known, life) if loan.until > now)})


def covered_until(known: Known, life: Replica, amount: int, now: int, skew: int) -> int:
    """The time up to which a life may hold so much more, at most a lease from now; `now` itself: it may not.

    Without a lease 0 stands for *for good*, and -1 for *not at all*.
    """
    if not known.lease:
        return 0 if spare(known, life, now, skew) >= amount else -1
    end = now + known.lease
    for time in _ends(known, life, now):
        if time < end and spare(known, life, time, skew) < amount:
            return time
    return end


def lendable(known: Known, life: Replica, now: int, skew: int) -> int:
    """The amount a life may lend: of its own share, less the need of its holds."""
    least = least_spare(known, life, now, skew)
    if not known.lease:  # gifts are passed on
        return max(0, least)
    return max(0, min(least, share_now(known, life) - lent(known, life, now, skew)))


def needed(known: Known, life: Replica, now: int) -> int:
    """The amount of further loans that a life has asked for."""
    return max(0, known.holds.get(life, NO_HOLDS).level - borrowed(known, life, now))


def all_go_by(known: Known, mark: bytes, phase: int) -> bool:
    """True if all current lives of all participants go by these definitions, and have come to the phase."""
    return not _missing(known, mark, phase)


def waits_for(known: Known, phase: int = 1) -> list[str]:
    """The participants whose word is missing for the definitions to be in force."""
    return _missing(known, mark_of(known.heads), phase)


def _missing(known: Known, mark: bytes, phase: int) -> list[str]:
    found = set[str]()
    for node in known.nodes():
        lives = known.current(node)
        ledgers = [known.ledgers.get(life) for life in lives]
        lacking = any(each is None or each.mark != mark or each.phase < phase for each in ledgers)
        if lacking or (known.lease and not lives) or any(_is_open(known, life, mark) for life in _over(known, node)):
            found.add(node)
    return sorted(found)


def _over(known: Known, node: str) -> list[Replica]:
    """Without a lease: the lives of a participant that definitions name, and that are over."""
    if known.lease:
        return []
    return [
        share.replica
        for head in known.heads
        for share in head.value.shares
        if share.node == node and share.replica not in known.current(node)
    ]


def _is_open(known: Known, life: Replica, mark: bytes) -> bool:
    """True if a life that is over may have spent more than its share: it was lowered without its word."""
    ledger = known.ledgers.get(life)
    return ledger is None or (ledger.mark != mark and ledger.share > target(known, life))


def is_acknowledged(known: Known, life: Replica) -> bool:
    """True if a participant with a share in force knows of this life, or all other participants do."""
    others = [node for node in known.nodes() if node != life.node_id]
    if not others:
        return True
    acks = {by: tuple(life) in known.ledgers.get(by, NO_LEDGER).acks for node in others for by in known.current(node)}
    if any(knows and known.ledgers[by].admitted for by, knows in acks.items()):
        return True
    return all(known.current(node) and all(acks[by] for by in known.current(node)) for node in others)


def quiet_until(known: Known, ledger: Ledger, skew: int) -> int:
    """The time up to which former lives of the node, and their borrowers, may hold."""
    return ledger.began + known.lease + 2 * skew if known.lease and ledger.began else 0


def begins(known: Known, ledger: Ledger, skew: int) -> int:
    """The time before which no share of this ledger rises."""
    if not known.lease:
        return 0
    gone = [head.value.made + known.lease + 2 * skew for head in known.heads if head.value.without]
    return max([quiet_until(known, ledger, skew), *gone])


def settled(known: Known, life: Replica, now: int, skew: int) -> Ledger:
    """The ledger of a life as it is to be now; equal to the present ledger if there is nothing to write."""
    mark, goal = mark_of(known.heads), target(known, life)
    ledger = known.ledgers.get(life)
    if ledger is None:
        ledger = Ledger(share=goal, mark=mark, admitted=True) if is_root(known, life) else Ledger(began=max(now, 1))
    loans = tuple([each for each in ledger.loans if is_lent(known, life, each, now, skew)])
    if len(loans) == len(ledger.loans) and _is_settled(known, ledger, mark, goal):
        return ledger
    share, phase = min(ledger.share, goal), ledger.phase
    if ledger.mark != mark and now >= quiet_until(known, ledger, skew) and _is_within(known, life, share, now, skew):
        ledger, phase = msgspec.structs.replace(ledger, mark=mark), 0
    admitted = ledger.admitted or is_acknowledged(known, life)
    after = known._replace(ledgers={**known.ledgers, life: ledger})
    if ledger.mark == mark and not phase and all_go_by(after, mark, 0):
        phase = 1
    ledger = msgspec.structs.replace(ledger, share=share, phase=phase, admitted=admitted, loans=loans, acks=_acks(known, life))
    after = known._replace(ledgers={**known.ledgers, life: ledger})
    ready = share < goal and admitted and now >= begins(known, ledger, skew) and life in known.current(life.node_id)
    if ready and all_go_by(after, mark, 1):
        ledger = msgspec.structs.replace(ledger, share=goal)
    return ledger


def _is_settled(known: Known, ledger: Ledger, mark: bytes, goal: int) -> bool:
    """True if nothing but its loans can change in a ledger by `settled`: the usual case, which is to be fast."""
    at_goal = ledger.share == goal and ledger.mark == mark and ledger.phase
    return bool(at_goal and ledger.admitted and not ledger.acks) and all(each.admitted for each in known.ledgers.values())


def _is_within(known: Known, life: Replica, share: int, now: int, skew: int) -> bool:
    """True if all that a life has lent and holds is within a share."""
    out = lent(known, life, now, skew)
    if not known.lease:
        return share - out + borrowed(known, life, now) - held(known, life, now) >= 0
    lowered = known.ledgers.get(life, NO_LEDGER)
    after = known._replace(ledgers={**known.ledgers, life: msgspec.structs.replace(lowered, share=share)})
    return out <= share and least_spare(after, life, now, skew) >= 0


def _acks(known: Known, life: Replica) -> tuple[tuple[str, int], ...]:
    found = []
    for node in known.nodes():
        for other in sorted(known.current(node)):
            ledger = known.ledgers.get(other)
            if node != life.node_id and ledger is not None and not ledger.admitted:
                found.append((other.node_id, other.incarnation))
    return tuple(found[:MOST_PARTICIPANTS])


def with_loan(ledger: Ledger, to: Replica, amount: int, until: int) -> Ledger:
    """The ledger with a further loan; without a lease (`until` 0) all gifts to a life are a single loan."""
    if not until:
        for place, each in enumerate(ledger.loans):
            if each.to == to:
                more = msgspec.structs.replace(each, amount=each.amount + amount)
                return msgspec.structs.replace(ledger, loans=(*ledger.loans[:place], more, *ledger.loans[place + 1 :]))
    if len(ledger.loans) >= MOST_LOANS:
        raise ConstraintCrdtError(f"{MOST_LOANS} loans are the most of a node and a budget")
    loan = Loan(ledger.next, to.node_id, to.incarnation, amount, until)
    return msgspec.structs.replace(ledger, next=ledger.next + 1, loans=(*ledger.loans, loan))


def renewed(ledger: Ledger, loan: Loan, until: int) -> Ledger:
    """The ledger with a loan that ends later. `until` never moves back."""
    later = msgspec.structs.replace(loan, until=max(loan.until, until))
    return msgspec.structs.replace(ledger, loans=tuple(later if each.id == loan.id else each for each in ledger.loans))


def spread(amount: int, shares: Mapping[Replica, int], over: Sequence[Replica]) -> dict[Replica, int]:
    """Shares changed so that their sum is `amount`: more goes to the lowest of `over`, less comes from the highest of all."""
    found = dict(shares)
    for life in over:
        found.setdefault(life, 0)
    more = amount - sum(found.values())
    if more > 0 and over:
        goal = _level({life: found[life] for life in over}, more)
        for life in sorted(over):
            found[life] = max(found[life], goal)
        left = amount - sum(found.values())
        for life in sorted(over, key=lambda each: (found[each], each))[: max(0, left)]:
            found[life] += 1
    elif more < 0:
        goal = amount // len(found) if found else 0
        lower = sorted(found.values())
        for place, each in enumerate(lower):  # the highest cap under which all shares fit
            rest = len(lower) - place
            goal = (amount - sum(lower[:place])) // rest
            if goal <= each:
                break
        for life, each in found.items():
            found[life] = min(each, max(0, goal))
        left = amount - sum(found.values())
        for life in sorted(found):
            add = min(left, 1 if shares.get(life, 0) > found[life] else 0)
            found[life] += add
            left -= add
    return found


def _level(shares: Mapping[Replica, int], more: int) -> int:
    """The height to which `more` fills the lowest shares."""
    ordered = sorted(shares.values())
    for place in range(1, len(ordered) + 1):
        goal = (sum(ordered[:place]) + more) // place
        if place == len(ordered) or goal <= ordered[place]:
            return goal
    return 0


# --- the view ----------------------------------------------------------------------------------------------------------------


class Budgets(IndexedView):
    """The budgets of a fleet: iteration and `in` are over the names of those not removed."""

    KINDS = (BUDGET, LEDGER, HOLDS)

    def __init__(self, rows: Rows | None = None, *, retirements: Retirements | None = None) -> None:
        """`retirements`: those over the same rows, if they are kept already."""
        rows = Rows() if rows is None else rows
        self._retirements = Retirements(rows) if retirements is None else retirements
        self.moved: set[str] = set()
        """The budgets with a changed cell since the caller cleared this."""
        super().__init__(rows)

    def _clear(self) -> None:
        self._definitions: dict[str, dict[Dot, BudgetValue]] = {}
        self._heads: dict[str, list[Head]] = {}
        """A cache."""
        self._ledgers: dict[str, dict[Replica, Ledger]] = {}
        self._holds: dict[str, dict[Replica, Holds]] = {}

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        name, replica = str(cell.key), cell.replica
        self.moved.add(name)
        if cell.kind == BUDGET:
            self._heads.pop(name, None)
            cells = self._definitions.setdefault(name, {})
            if old is not None:
                cells.pop(Dot(old.replica, old.seq), None)
            if new is not None:
                cells[Dot(replica, new.seq)] = value_of(new)
            return
        values = (self._ledgers if cell.kind == LEDGER else self._holds).setdefault(name, {})
        if new is None:
            values.pop(replica, None)
        else:
            values[replica] = value_of(new)

    # --- reading ---------------------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(not head.value.removed for head in self.heads(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names() if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Budgets({list(self)})"

    def names(self) -> list[str]:
        """The names of all budgets in order, removed ones included."""
        return sorted(name for name, cells in self._definitions.items() if cells)

    def heads(self, name: str) -> Sequence[Head]:
        """The definitions no other overwrites, ordered by dot; several are a conflict. Empty for an unknown budget."""
        found = self._heads.get(name)
        if found is None:
            cells = self._definitions.get(name, {})
            over: dict[Replica, int] = {}
            for value in cells.values():
                for dot in value.overwrites:
                    over[dot.replica] = max(dot.seq, over.get(dot.replica, 0))
            found = [Head(dot, value) for dot, value in sorted(cells.items()) if over.get(dot.replica, 0) < dot.seq]
            if found:
                self._heads[name] = found
        return found

    def known(self, name: str) -> Known:
        """The knowledge of this replica about a budget. Raises `KeyError` for an unknown name. O(participants)."""
        heads = self.heads(name)
        if not heads:
            raise UnknownName(name, "budget")
        nodes = {share.node for head in heads for share in head.value.shares}
        lives: dict[str, set[Replica]] = {node: set() for node in nodes}
        named: set[Replica] | None = None
        if not heads[0].value.lease:
            named = {share.replica for head in heads for share in head.value.shares}
        for replica in self._rows.clock_mark.entries:
            if replica.node_id in nodes and not self._retirements.is_over(replica) and (named is None or replica in named):
                lives[replica.node_id].add(replica)
        by_node = {node: frozenset(found) for node, found in lives.items()}
        return Known(heads, self._ledgers.get(name, {}), self._holds.get(name, {}), by_node)

    def other_lives(self, life: Replica) -> list[Replica]:
        """The lives of the same node whose end is not known, except the given life."""
        entries = self._rows.clock_mark.entries
        return sorted(
            each for each in entries if each.node_id == life.node_id and each != life and not self._retirements.is_over(each)
        )

    # --- writing ---------------------------------------------------------------------------------------------------------

    def define(
        self,
        name: str,
        limit: int,
        *,
        lease: int,
        over: Sequence[Replica],
        at: int,
        node: Replica,
        without: Iterable[str] = (),
        removed: bool = False,
    ) -> BudgetValue:
        """Define a budget, or change its limit. `over`: the lives that further shares go to, most wanted first.

        `without`: nodes that an operator declares gone; `at`: the own time in ns. Raises `ConstraintCrdtError` for values out of
        bounds, and for another lease than before.
        """
        check_budget(name, limit, lease)
        heads = self.heads(name)
        if not heads and len(self.names()) >= MOST_BUDGETS:
            raise ConstraintCrdtError(f"{MOST_BUDGETS} budgets are the most, removed ones included: use one of them")
        if any(head.value.lease != lease for head in heads):
            raise ConstraintCrdtError(
                f"the lease of budget {name} stays as it is: choose another name for another lease", field="lease"
            )
        gone = {node for head in heads for node in head.value.without}.union(without)
        gone -= {life.node_id for life in over}
        value = self._value(limit, lease, heads, [life for life in over if life.node_id not in gone], sorted(gone), at, name)
        value = msgspec.structs.replace(value, removed=removed)
        self._rows.write(node, make_cell(BUDGET, name, value))
        return value

    def _value(
        self, limit: int, lease: int, heads: Sequence[Head], over: Sequence[Replica], gone: Sequence[str], at: int, name: str
    ) -> BudgetValue:
        before = _shares_before(heads, lease, over)
        fixed: dict[Replica, int] = {}
        if not lease and heads:  # what a life that is over had used or given cannot come back
            known = self.known(name)
            ended = [life for life in before if life.node_id in gone or life not in known.current(life.node_id)]
            fixed = {life: min(before[life], _spent(known, life)) if life.node_id in gone else before[life] for life in ended}
        kept = {life: each for life, each in before.items() if life.node_id not in gone and life not in fixed}
        room = max(0, MOST_PARTICIPANTS - len(kept) - len(fixed))
        chosen = [life for life in over if life in kept] + [life for life in over if life not in kept][:room]
        shares = {**spread(max(0, limit - sum(fixed.values())), kept, chosen), **fixed}
        overwrites: dict[Replica, int] = {}
        for head in heads:
            for dot in (head.dot, *(Dot(each.replica, each.seq) for each in head.value.overwrites)):
                overwrites[dot.replica] = max(dot.seq, overwrites.get(dot.replica, 0))
        dots = tuple(WireDot(*replica, seq) for replica, seq in sorted(overwrites.items()))
        found = tuple(Share(life.node_id, life.incarnation, amount) for life, amount in sorted(shares.items()))
        return BudgetValue(limit, lease, found, dots, at, tuple(gone))

    def put(self, name: str, *, node: Replica, ledger: Ledger | None = None, holds: Holds | None = None) -> None:
        """Write the ledger and the holds of a life, together."""
        cells = [make_cell(kind, name, value) for kind, value in ((LEDGER, ledger), (HOLDS, holds)) if value is not None]
        self._rows.write_all(node, cells)


def _spent(known: Known, life: Replica) -> int:
    """The amount a life has used and given away beyond the gifts to it."""
    return max(0, held(known, life, 0) + lent(known, life, 0, 0) - borrowed(known, life, 0))


def _shares_before(heads: Sequence[Head], lease: int, over: Sequence[Replica]) -> dict[Replica, int]:
    """The shares by all definitions in force, by life: with a lease that of the node in its present life."""
    present = {life.node_id: life for life in over}
    lives = {each.replica for head in heads for each in head.value.shares}
    if not lease:
        return {life: min(share_of(head.value, life) for head in heads) for life in lives}
    named = {life.node_id: life for life in sorted(lives)}
    return {present.get(node, life): min(share_of(head.value, life) for head in heads) for node, life in named.items()}


def check_budget(name: str, limit: int, lease: int) -> None:
    """Raise `ConstraintCrdtError` for a definition out of bounds. `lease` in ns."""
    check_id(name, "the name of a budget", field="name")
    if not re.fullmatch(BUDGET_PATTERN, name):
        raise ConstraintCrdtError(
            f"the name of a budget has no control characters, no space at its ends, and no - at its begin, unlike {name!r}",
            field="name",
        )
    if not 0 <= whole_number(limit, "the limit of a budget") <= AMOUNT_MAX:
        raise ConstraintCrdtError(f"the limit of a budget is from 0 to 2**53, not {limit}", field="limit")
    if lease and not LEASE_MIN * 1e9 <= lease <= DURATION_MAX * 1e9:
        raise ConstraintCrdtError("the lease of a budget is 1 second at least, or none", field="lease")


def check_amount(amount: int) -> int:
    """Return an amount to be held. Raises `ConstraintCrdtError` out of bounds."""
    if not 0 < whole_number(amount, "an amount") <= AMOUNT_MAX:
        raise ConstraintCrdtError(f"an amount is from 1 to 2**53, not {amount}", field="amount")
    return amount
