"""Budgets: never more than the limit is held, in true time. Drawn histories, all histories of a small world, and planted bugs."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from constraint_crdt.crdt.clock import SECOND, Replica
from constraint_crdt.protocol import loans
from constraint_crdt.protocol.loans import ASKED_ANEW, CONTACTS_KEPT, FRESH, IDLE, LONGER, TURN, TURN_HOLDS, Contacts, Escrow
from constraint_crdt.types import budgets
from constraint_crdt.types.budgets import NO_HOLDS, NO_LEDGER, Known, Ledger, Loan
from tests.conftest import BUDGET
from tests.protocol.budget_world import NAME, TinyWorld, Violated, exhaust, explore, history, lagging_history

HALF = SECOND // 2 - 1
HISTORIES = 3_000 if BUDGET == "nightly" else 20
DEPTH = 6 if BUDGET == "nightly" else 3


@pytest.mark.long
@pytest.mark.parametrize("lease", [3 * SECOND, 0])
def test_never_more_than_the_limit_is_held_in_drawn_histories(lease: int) -> None:
    worlds = [history(seed, lease) for seed in range(HISTORIES)]
    assert sum(world.taken for world in worlds) > HISTORIES  # else the histories say nothing
    assert sum(world.peak == world.limit for world in worlds if world.limit) > HISTORIES // 20


@pytest.mark.long
def test_never_more_than_the_limit_is_held_where_disks_lag() -> None:
    """Holds and releases that a killed node had not on its disk yet: as much is kept back for them there."""
    worlds = [lagging_history(seed) for seed in range(HISTORIES)]
    assert sum(world.lost for world in worlds) > HISTORIES // 2, "else the histories say nothing"
    assert sum(world.taken for world in worlds) > HISTORIES


@pytest.mark.long
@pytest.mark.parametrize("rule", ["is_sure", "_resumed", "_sure"])
def test_each_rule_on_what_is_kept_back_is_needed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted: dict[str, Callable[..., object]] = {
        "is_sure": lambda _, __, ___: True,
        "_resumed": lambda _, __, known: known,
        "_sure": lambda self, name: self._kept_by(name)[-1],
    }
    monkeypatch.setattr(loans.Escrow, rule, planted[rule])
    with pytest.raises(Violated):
        list(map(lagging_history, range(HISTORIES)))


@pytest.mark.slow
def test_what_a_former_life_used_up_is_not_given_to_others() -> None:
    """The limit was lowered and raised while a life was over that had used a part of it."""
    history(108736, 0)


@pytest.mark.long
@pytest.mark.parametrize("lease", [3 * SECOND, 0])
def test_a_ledger_at_rest_is_as_all_rules_make_it(lease: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case has a way of its own."""
    settled, is_settled, short = budgets.settled, budgets._is_settled, 0

    def both(known: Known, life: Replica, now: int, skew: int) -> Ledger:
        nonlocal short
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(budgets, "_is_settled", lambda *_: False)
            expected = settled(known, life, now, skew)
        assert settled(known, life, now, skew) == expected
        ledger = known.ledgers.get(life)
        short += ledger is not None and is_settled(known, ledger, budgets.mark_of(known.heads), budgets.target(known, life))
        return expected

    replaced(monkeypatch, "settled", both)
    for seed in range(HISTORIES):
        history(seed, lease)
    assert short > HISTORIES


class BudgetMachine(RuleBasedStateMachine):
    """Any order of events in a world of three nodes; the judge of the world is the plain model."""

    names = st.sampled_from(["a", "b", "c"])
    places = st.integers(0, 3)

    def __init__(self) -> None:
        super().__init__()
        self.world = TinyWorld({"a": HALF, "b": -HALF, "c": 0}, limit=2, lease=2 * SECOND, skew=SECOND)

    @rule(node=names, amount=st.integers(1, 2))
    def take(self, node: str, amount: int) -> None:
        self.world.want(node, 0 if self.world.take(node, amount) else amount)

    @rule(node=names, place=places)
    def release(self, node: str, place: int) -> None:
        self.world.release(node, place)

    @rule(node=names, place=places)
    def renew(self, node: str, place: int) -> None:
        self.world.renew(node, place)

    @rule(one=names, other=names)
    def copy(self, one: str, other: str) -> None:
        if one != other:
            self.world.copy(one, other)
            self.world.tend(other)

    @rule(node=names, disk=st.sampled_from(["kept", "doubtful", "old", "lost"]))
    def restart(self, node: str, disk: str) -> None:
        self.world.stop(node)
        self.world.start(node, disk)

    @rule(node=names)
    def backup(self, node: str) -> None:
        self.world.backup(node)

    @rule(node=names, limit=st.integers(0, 4))
    def change(self, node: str, limit: int) -> None:
        self.world.define(node, limit)

    @rule(node=names, offset=st.integers(-HALF, HALF))
    def clock(self, node: str, offset: int) -> None:
        self.world.set_clock(node, offset)

    @rule(time=st.sampled_from([SECOND // 4, SECOND, 2 * SECOND, 4 * SECOND]))
    def tick(self, time: int) -> None:
        self.world.now += time
        for name in self.world.nodes:
            self.world.tend(name)


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(max_examples=400 if BUDGET == "nightly" else 10, stateful_step_count=40, deadline=None)
TestBudgetMachine.pytestmark = [pytest.mark.slow]  # type: ignore[attr-defined]


def fresh(turn: int = 0, over: Sequence[str] = (), *, contacts: bool = False) -> TinyWorld:
    """Three nodes, two of them with a share of 1, or one of them with both."""
    clocks = {"a": HALF, "b": -HALF, "c": 0}
    return TinyWorld(clocks, limit=2, lease=2 * SECOND, skew=SECOND, shares_over=over, turn=turn, contacts=contacts)


def meet(world: TinyWorld, *names: str) -> None:
    """All of them come to know the same, and act on it."""
    for _ in range(3):
        for one in names:
            for other in names:
                if one != other:
                    world.copy(one, other)
                    world.tend(other)


def lent_away() -> TinyWorld:
    """A node without a share holds a loan that ends soon."""
    world = fresh()
    meet(world, "a", "b", "c")
    world.want("c", 1)
    meet(world, "a", "b", "c")
    world.want("c", 0)
    assert world.take("c")
    world.now += SECOND
    return world


@pytest.mark.long
@pytest.mark.parametrize("start", [fresh, lent_away])
def test_all_histories_of_three_nodes_and_a_limit_of_two(start: Callable[[], TinyWorld]) -> None:
    assert explore(start(), DEPTH) > 400


AMOUNTS = {"a": 1, "b": 1, "c": 2}


def worlds(clocks: dict[str, int], limit: int, uses: int | None) -> int:
    """How many worlds there are, from one on in which each node knows all."""
    world = TinyWorld(clocks, limit=limit, lease=2 * SECOND, skew=SECOND)
    meet(world, *clocks)
    return exhaust(world, uses, AMOUNTS, broken_off=len(clocks) == 2)


@pytest.mark.long
def test_a_world_of_two_nodes_is_exhausted() -> None:
    assert worlds({"a": HALF, "b": -HALF}, 1, None) > 400


@pytest.mark.slow
@pytest.mark.skipif(BUDGET != "nightly", reason="takes minutes")
@pytest.mark.timeout(7200)
def test_a_world_of_three_nodes_with_a_limit_of_two_is_exhausted() -> None:
    assert worlds({"a": HALF, "b": -HALF, "c": 0}, 2, 2) > 10_000


# --- what each rule is for -------------------------------------------------------------------------------------------------------


def test_a_fresh_budget_can_be_used_at_once_where_the_shares_are() -> None:
    world = fresh()
    meet(world, "a", "b", "c")
    assert world.take("a")
    assert world.take("b")
    assert not world.take("a")
    assert not world.take("c")


def test_a_node_without_a_share_borrows_and_gives_back_what_others_need() -> None:
    world = lent_away()
    lender = next(name for name in ("a", "b") if world.budgets(name).known(NAME).ledgers[world.nodes[name].local.replica].loans)  # type: ignore[union-attr]
    other = "b" if lender == "a" else "a"
    assert world.take(other)
    world.want(lender, 1)
    world.release("c")
    meet(world, "a", "b", "c")
    assert world.take(lender)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "pause", "over"),
    [
        pytest.param(0, TURN // 20, TURN, id="many holds"),
        pytest.param(0, TURN // 10, TURN_HOLDS * TURN // 10, id="few holds"),
        pytest.param(TURN // 5, TURN // 5, LONGER * TURN, id="fewer holds than a turn should have"),
    ],
)
def test_rights_that_came_to_a_node_stay_for_a_turn_while_its_processes_use_them(work: int, pause: int, over: int) -> None:
    world = waited_for(TURN)
    began = world.now
    while world.now + pause < began + over:
        world.now += pause
        meet(world, "a", "b", "c")
        assert not world.take("a")
        assert world.take("c")
        world.now += work
        world.release("c")
    world.now = began + over
    world.tend("c")
    assert not world.take("c")
    meet(world, "a", "b", "c")
    assert world.take("a")


def test_a_turn_is_over_once_no_process_uses_the_rights() -> None:
    world = waited_for(TURN)
    escrow = world.nodes["c"].escrow
    assert escrow is not None
    world.tend("c")
    assert escrow.take_due() == world.clock("c") + IDLE
    world.now += IDLE
    meet(world, "a", "b", "c")
    meet(world, "a", "b", "c")
    assert world.take("a")


def test_rights_go_at_once_to_a_node_that_waits_where_no_process_used_them() -> None:
    world = fresh(TURN, over=["a"])
    world.want("c", 2)
    meet(world, "a", "b", "c")
    assert world.take("c", 2)


def test_where_all_is_held_and_others_wait_a_single_node_is_told_of_a_demand() -> None:
    world = fresh()
    escrow = world.nodes["c"].escrow
    assert escrow is not None
    meet(world, "a", "b", "c")
    assert set(escrow.asked_first(NAME, 3)) == {"a", "b"}
    assert world.take("a")
    assert world.take("b")
    meet(world, "a", "b", "c")
    assert set(escrow.asked_first(NAME, 3)) == {"a", "b"}, "one of them may have come free since"
    world.want("b", 1)
    meet(world, "a", "b", "c")
    assert {tuple(escrow.asked_first(NAME, 3)) for world.now in range(world.now, world.now + 4 * IDLE, IDLE)} == {("a",), ("b",)}


def test_a_wait_is_over_in_time_and_where_the_clock_was_set_back() -> None:
    world = fresh()
    escrow = world.nodes["c"].escrow
    assert escrow is not None
    since = escrow.now
    assert not escrow.has_passed(since, IDLE)
    assert escrow.take_due() == since + IDLE
    world.now += IDLE
    assert escrow.has_passed(since, IDLE)
    assert escrow.has_passed(escrow.now + SECOND, IDLE)
    assert escrow.take_due() is None


def waited_for(turn: int) -> TinyWorld:
    """A process of c has just released what came to c, and one of a waits for it."""
    world = fresh(turn, over=["a"])
    assert world.take("a")
    world.want("c", 1)
    meet(world, "a", "b", "c")
    world.want("c", 0)
    assert world.take("c")
    world.want("a", 1)
    meet(world, "a", "b", "c")
    world.release("c")
    return world


@pytest.mark.slow
def test_a_loan_in_use_is_renewed_and_one_that_is_not_runs_out() -> None:
    world = lent_away()
    for _ in range(6):
        meet(world, "a", "b", "c")
        world.renew("c")
        world.now += SECOND // 2
    assert [each[0] for each in world.holders] == ["c"]
    world._judge()
    assert world.holders
    world.release("c")
    world.now += 4 * SECOND
    meet(world, "a", "b", "c")
    assert world.take("a")
    assert world.take("b")


def test_a_restarted_node_without_a_marker_waits_and_needs_to_be_heard() -> None:
    world = fresh()
    meet(world, "a", "b", "c")
    assert world.take("a")
    world.stop("a")
    world.start("a", "doubtful")
    world.now += 10 * SECOND
    world.tend("a")
    assert not world.take("a"), "nobody knows of this life"
    meet(world, "a", "b", "c")
    world.now += 10 * SECOND
    meet(world, "a", "b", "c")
    assert world.take("a")


def test_a_share_rises_only_once_all_participants_go_by_the_definition() -> None:
    world = fresh()
    meet(world, "a", "b", "c")
    world.define("a", 4)
    meet(world, "a", "b")
    assert world.take("a")
    assert not world.take("a"), "c has not heard of it"
    meet(world, "a", "b", "c")
    assert world.take("a")


def test_a_limit_of_zero_is_a_stop_and_holds_run_out() -> None:
    world = fresh()
    meet(world, "a", "b", "c")
    assert world.take("a")
    world.define("b", 0)
    meet(world, "a", "b", "c")
    assert not world.take("b")
    assert world.holders
    world.now += 3 * SECOND
    meet(world, "a", "b", "c")
    assert world.limit == 0
    assert not world.holders
    assert not world.take("a")


def test_of_two_changes_at_once_the_lower_limit_holds_until_one_is_chosen() -> None:
    world = fresh()
    meet(world, "a", "b", "c")
    world.define("a", 5)
    world.define("b", 3)
    meet(world, "a", "b", "c")
    assert len(world.budgets("c").heads(NAME)) == 2
    assert world.limit == 3
    world.define("c", 4)
    meet(world, "a", "b", "c")
    assert len(world.budgets("a").heads(NAME)) == 1
    assert world.limit == 4


def test_the_share_of_a_retired_node_goes_to_others_after_a_lease() -> None:
    world = fresh()
    meet(world, "a", "b", "c")
    assert world.take("b")
    world.retire("a", "b")
    meet(world, "a", "c")
    assert world.take("a")
    assert not world.take("c")
    world.now += 5 * SECOND
    meet(world, "a", "c")
    assert world.take("a", 1)
    taken = [name for name in ("a", "c", "a") if world.take(name)]
    assert taken


# --- planted bugs ----------------------------------------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def replaced(patch: pytest.MonkeyPatch, name: str, rule_: Callable[..., object]) -> None:
    """Put another rule in place of one."""
    patch.setattr(budgets, name, rule_)
    if hasattr(loans, name):
        patch.setattr(loans, name, rule_)


def any_life_is_named(patch: pytest.MonkeyPatch) -> None:
    """Each life of a node has the share of the first definition at once."""
    replaced(patch, "is_root", lambda known, _: len(known.heads) == 1 and not known.heads[0].value.overwrites)


def no_quiet_time(patch: pytest.MonkeyPatch) -> None:
    """A life begins where another one of its node still holds and lends."""
    replaced(patch, "quiet_until", lambda *_: 0)


def no_skew(patch: pytest.MonkeyPatch) -> None:
    """An owner takes a loan as over when its own clock says so."""
    is_lent = budgets.is_lent
    replaced(patch, "is_lent", lambda known, life, loan, now, _: is_lent(known, life, loan, now, 0))


def shares_rise_alone(patch: pytest.MonkeyPatch) -> None:
    """A share rises before others go by the definition."""
    replaced(patch, "all_go_by", lambda *_: True)


def returned_loans_stay_in_use(patch: pytest.MonkeyPatch) -> None:
    """A borrower goes on to use what it gave back."""

    def loans_to(known: Known, life: Replica) -> Iterator[tuple[Replica, Loan]]:
        for owner, ledger in known.ledgers.items():
            yield from ((owner, loan) for loan in ledger.loans if loan.to == life and owner != life)

    replaced(patch, "loans_to", loans_to)


def loans_go_to_nodes(patch: pytest.MonkeyPatch) -> None:
    """A new life uses the loans of the former one, too."""

    def loans_to(known: Known, life: Replica) -> Iterator[tuple[Replica, Loan]]:
        back = {(each.node, each.life, each.id) for each in known.holds.get(life, NO_HOLDS).returned}
        for owner, ledger in known.ledgers.items():
            for loan in ledger.loans:
                if loan.node == life.node_id and owner != life and (*owner, loan.id) not in back:
                    yield owner, loan

    replaced(patch, "loans_to", loans_to)


def shares_never_fall(patch: pytest.MonkeyPatch) -> None:
    """An owner goes on with its share of before."""
    settled = budgets.settled

    def planted(known: Known, life: Replica, now: int, skew: int) -> Ledger:
        ledger = settled(known, life, now, skew)
        before = known.ledgers.get(life, NO_LEDGER).share
        return msgspec.structs.replace(ledger, share=max(before, ledger.share))

    replaced(patch, "settled", planted)
    replaced(patch, "share_now", lambda known, life: known.ledgers.get(life, NO_LEDGER).share)


def ends_of_loans_ignored(patch: pytest.MonkeyPatch) -> None:
    """A hold lasts a whole lease, also on a loan that ends before."""
    covered = budgets.covered_until

    def planted(known: Known, life: Replica, amount: int, now: int, skew: int) -> int:
        until = covered(known, life, amount, now, skew)
        return now + known.lease if until > now else until

    replaced(patch, "covered_until", planted)


def word_given_early(patch: pytest.MonkeyPatch) -> None:
    """A participant says that it goes by a lower share while its loans still run."""
    replaced(patch, "_is_within", lambda *_: True)


def highest_of_concurrent(patch: pytest.MonkeyPatch) -> None:
    """Of two changes at once the higher share counts."""
    replaced(patch, "target", lambda known, life: max(budgets.share_of(head.value, life) for head in known.heads))


PLANTED: dict[Plant, int] = {
    any_life_is_named: 140,
    no_quiet_time: 426,
    no_skew: 892,
    shares_rise_alone: 8,
    returned_loans_stay_in_use: 5,
    loans_go_to_nodes: 89,
    shares_never_fall: 18,
    ends_of_loans_ignored: 104,
    word_given_early: 32,
    highest_of_concurrent: 8,
}
"""Each with a seed at which it is found."""


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    seeds = range(HISTORIES) if BUDGET == "nightly" else range(PLANTED[plant], PLANTED[plant] + 400)
    with pytest.raises(Violated):  # noqa: PT012 - the search ends at the first one
        for seed in seeds:
            history(seed)
    monkeypatch.undo()


@pytest.mark.long
@pytest.mark.parametrize("plant", [no_skew, returned_loans_stay_in_use, ends_of_loans_ignored], ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_in_the_world_that_is_exhausted(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises(Violated):
        worlds({"a": HALF, "b": -HALF}, 1, None)


# --- nodes in contact ------------------------------------------------------------------------------------------------------------


def escrow_of(world: TinyWorld, name: str) -> Escrow:
    escrow = world.nodes[name].escrow
    assert escrow is not None
    return escrow


def contacts_of(world: TinyWorld, name: str) -> Contacts:
    contacts = escrow_of(world, name).contacts
    assert contacts is not None
    return contacts


def loans_by(world: TinyWorld, name: str) -> list[str]:
    """The nodes that this one lends to."""
    life = world.nodes[name].local.replica  # type: ignore[union-attr]
    return sorted(loan.node for loan in world.budgets(name).known(NAME).ledgers[life].loans)


def borrowed_whole(turn: int = 0) -> TinyWorld:
    """A node without a share holds all that another one has lent to it."""
    world = fresh(turn, over=["a"], contacts=True)
    world.want("c", 2)
    meet(world, "a", "b", "c")
    world.want("c", 0)
    assert world.take("c", 2)
    return world


def test_rights_go_to_the_first_in_line_of_those_in_contact() -> None:
    world = fresh(over=["a"], contacts=True)
    assert world.take("a", 2)
    for name in ("b", "c"):
        world.now += SECOND // 100
        world.want(name, 2)
        meet(world, "a", "b", "c")
    world.now += FRESH  # b is not heard of any more
    world.copy("c", "a")
    world.release("a")
    world.tend("a")
    assert loans_by(world, "a") == [], "the place of the first in line is kept for it while it is asked"
    assert contacts_of(world, "a").take_sought() == {"b"}
    contacts_of(world, "a").asked("b")
    assert escrow_of(world, "a").take_due() == world.clock("a") + FRESH
    world.now += FRESH
    world.copy("c", "a")
    world.tend("a")
    assert loans_by(world, "a") == ["c"]


def test_rights_go_to_a_node_that_answers() -> None:
    world = fresh(over=["a"], contacts=True)
    assert world.take("a", 2)
    world.want("c", 1)
    meet(world, "a", "b", "c")
    world.now += FRESH
    world.release("a")
    world.tend("a")
    assert loans_by(world, "a") == []
    world.copy("c", "a")
    world.tend("a")
    assert loans_by(world, "a") == ["c"]


def test_a_loan_is_given_back_to_an_owner_in_contact_only_and_stays_in_use_until_then() -> None:
    world = borrowed_whole()
    world.want("b", 2)
    meet(world, "a", "b", "c")
    world.now += FRESH
    world.copy("b", "c")
    world.release("c")
    assert world.take("c", 2), "nothing was given back"
    assert contacts_of(world, "c").take_sought() == {"a"}
    world.copy("a", "c")
    world.release("c")
    assert not world.take("c", 2)


def test_the_owner_is_asked_before_a_turn_is_over() -> None:
    world = borrowed_whole(TURN)
    world.want("b", 2)
    meet(world, "a", "b", "c")
    world.now += FRESH
    world.release("c")
    assert contacts_of(world, "c").take_sought() == {"a"}
    assert world.take("c", 2), "the turn goes on"


def test_a_loan_to_a_node_that_is_gone_comes_back() -> None:
    """It was renewed without an end, since its borrower had told that it needs it."""
    world = borrowed_whole()
    meet(world, "a", "b", "c")
    world.stop("c")
    for _ in range(40):
        world.now += SECOND // 10
        for one, other in ("ab", "ba"):
            world.copy(one, other)
            world.tend(other)
    assert world.take("a", 2)


def test_a_lowered_limit_waits_for_no_owner_in_contact() -> None:
    world = borrowed_whole()
    world.define("a", 0, ["a"])
    meet(world, "a", "b", "c")
    world.now += FRESH
    world.release("c")
    assert not world.take("c")


def test_owners_in_contact_are_asked_first() -> None:
    world = fresh(contacts=True)
    meet(world, "a", "b", "c")
    assert escrow_of(world, "c").asked_first(NAME, 1) == ["a"]
    contacts_of(world, "c").missed("a")
    world.now += FRESH
    assert escrow_of(world, "c").asked_first(NAME, 2) == ["b", "a"]


def test_where_all_is_held_an_owner_in_contact_is_told_of_a_demand() -> None:
    world = fresh(contacts=True)
    meet(world, "a", "b", "c")
    assert world.take("a")
    assert world.take("b")
    world.want("b", 1)
    meet(world, "a", "b", "c")
    contacts_of(world, "c").missed("a")
    world.now += FRESH
    assert {tuple(escrow_of(world, "c").asked_first(NAME, 3)) for world.now in range(world.now, world.now + 4 * IDLE, IDLE)} == {
        ("b",)
    }


def test_contact_is_by_messages_and_their_lack() -> None:
    now, through = SECOND, set[str]()
    contacts = Contacts(lambda: now, lambda node: SECOND if node == "far" else 0, through.__contains__)
    assert contacts.wait("a") == FRESH, "nothing is known"
    assert not contacts.met("a")
    assert "a" in contacts
    now += FRESH
    contacts.seek("a")
    assert contacts.take_sought() == {"a"}
    now += FRESH
    assert contacts.wait("a") == FRESH, "the message was not sent yet"
    contacts.asked("a")
    now += FRESH - 1
    assert contacts.wait("a") == 1
    now += 1
    assert contacts.wait("a") is None
    through.add("a")
    assert contacts.wait("a") == 0, "others hear it"
    through.clear()
    contacts.seek("a")
    assert contacts.take_sought() == set(), "it was asked just now"
    now += ASKED_ANEW
    contacts.seek("a")
    assert contacts.take_sought() == {"a"}
    assert contacts.wait("a") is None, "its place is kept once"
    assert contacts.met("a")
    assert "a" in contacts
    contacts.missed("a")
    assert "a" in contacts, "it spoke just now"
    now += FRESH
    assert contacts.wait("a") is None
    contacts.met("far")
    now += FRESH
    assert "far" in contacts, "its answers take longer"
    contacts.seek("far")
    contacts.missed("far")
    now += SECOND
    assert contacts.wait("far") is None, "no answer will come"


def test_contacts_keep_a_bounded_number_of_nodes() -> None:
    contacts = Contacts(lambda: 0, lambda _: 0, lambda _: None)
    for number in range(CONTACTS_KEPT + 1):
        contacts.missed(f"m{number}")
        contacts.met(f"n{number}")
    assert "n0" not in contacts
    assert f"n{CONTACTS_KEPT}" in contacts
    assert contacts.wait("m0") == FRESH, "forgotten"
    assert contacts.wait("m1") is None
