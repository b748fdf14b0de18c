"""What is known of peers: evidence only grows, hashes stay with their clocks, and what is forgotten cannot be named any more."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintCrdtError, Limits, Replica, StateHash, VectorClock
from constraint_crdt.crdt.clock import ClockMark, Digest
from constraint_crdt.protocol.peers import FEWEST_CONVERSATIONS, STATEMENTS, Conversation, DeltaTracker, Peer

ME, P, Q = Replica("me", 1), Replica("p", 1), Replica("q", 1)
DIGEST = Digest()
ONE, OTHER = StateHash(b"1" * 32), StateHash(b"2" * 32)


def mark(entries: Mapping[Replica, int]) -> ClockMark:
    return ClockMark.of(entries, DIGEST)


def tracker(**limits: int) -> DeltaTracker:
    return DeltaTracker(Limits(**limits))


def admitted(known: DeltaTracker, replica: Replica) -> Peer:
    peer = known.meet(replica)
    known.admit(peer)
    return peer


# --- evidence ----------------------------------------------------------------------------------------------------------


def test_an_equal_clock_without_a_hash_leaves_the_hash() -> None:
    known = tracker()
    peer = admitted(known, P)
    known.evidence(peer, mark({P: 2}), ONE)
    changes = known.changes
    known.evidence(peer, mark({P: 2}), None)
    assert known.hash("p") == ONE
    assert known.all_have(ONE)
    assert known.changes == changes


def test_an_equal_clock_with_another_hash_has_that_hash() -> None:
    known = tracker()
    peer = admitted(known, P)
    known.evidence(peer, mark({P: 2}), ONE)
    changes = known.changes
    known.evidence(peer, mark({P: 2}), OTHER)
    assert (known.hash("p"), known.all_have(ONE), known.all_have(OTHER)) == (OTHER, False, True)
    assert known.changes > changes


def test_a_later_clock_without_a_hash_has_none() -> None:
    known = tracker()
    peer = admitted(known, P)
    known.evidence(peer, mark({P: 2}), ONE)
    known.evidence(peer, mark({P: 3}), None)
    assert known.hash("p") is None
    assert known.clock("p") == VectorClock({P: 3})
    assert not known.all_have(ONE)


def test_an_earlier_clock_is_no_evidence() -> None:
    known = tracker()
    peer = admitted(known, P)
    known.evidence(peer, mark({P: 3}), ONE)
    changes = known.changes
    known.evidence(peer, mark({P: 2}), OTHER)
    assert (known.hash("p"), peer.mark == mark({P: 3}), known.changes) == (ONE, True, changes)


def test_a_peer_that_wrote_since_may_have_less_of_others() -> None:
    """It crashed before it had saved what came from them."""
    known = tracker()
    peer = admitted(known, P)
    known.evidence(peer, mark({P: 1, Q: 5}), ONE)
    known.evidence(peer, mark({P: 1, Q: 3}), OTHER)
    assert known.clock("p") == VectorClock({P: 1, Q: 5}), "an older message"
    known.evidence(peer, mark({P: 2, Q: 3}), OTHER)
    assert (known.clock("p"), known.hash("p")) == (VectorClock({P: 2, Q: 3}), OTHER)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("evidence"), st.sampled_from([P, Q]), st.integers(0, 3), st.sampled_from([None, ONE, OTHER])),
        st.tuples(st.sampled_from(["admit", "forget"]), st.sampled_from([P, Replica("p", 2), Q]), st.just(0), st.none()),
    ),
    max_size=20,
)


@pytest.mark.slow
@given(steps)
def test_all_have_and_hash_are_those_of_a_plain_list_of_peers(history: list[tuple[str, Replica, int, StateHash | None]]) -> None:
    known, model = tracker(), dict[str, tuple[Replica, int, StateHash | None]]()
    for what, replica, seq, hash_ in history:
        name, changes, before = replica.node_id, known.changes, dict(model)
        if what == "forget":
            known.forget(name)
            model.pop(name, None)
        else:
            peer = admitted(known, replica)
            if name not in model or model[name][0] != replica:
                model[name] = (replica, -1, None)
            if what == "evidence":
                known.evidence(peer, mark({replica: seq}), hash_)
                last = model[name][1]
                if seq > last or (seq == last and hash_ is not None):
                    model[name] = (replica, seq, hash_)
        assert {each: known.hash(each) for each in known} == {each: last_hash for each, (_, _, last_hash) in model.items()}
        assert [known.all_have(each) for each in (ONE, OTHER)] == [
            all(last_hash == each for _, _, last_hash in model.values()) for each in (ONE, OTHER)
        ]
        assert len(known) == len(model)
        assert (known.changes > changes) == (model != before)
    assert set(known._hashes) == {last_hash for _, _, last_hash in model.values()}, "a hash that no peer has takes no memory"


def test_a_peer_too_many_is_refused_and_those_known_are_not() -> None:
    known = tracker(peers=1)
    admitted(known, P)
    with pytest.raises(ConstraintCrdtError, match=r"^more than the 1 peers that this node is set to know$"):
        known.meet(Q)
    assert known.meet(P) is known.peer("p")
    admitted(known, Replica("p", 2))
    assert (len(known), list(known), "q" in known) == (1, ["p"], False)


def test_forgetting_all_peers_is_a_change_too() -> None:
    known = tracker()
    for replica in (P, Q):
        known.evidence(admitted(known, replica), mark({replica: 1}), ONE)
    changes = known.changes
    known.clear()
    assert known.changes > changes > 2


def test_a_peer_that_is_admitted_again_is_counted_with_its_hash() -> None:
    known = tracker()
    peer = admitted(known, P)
    known.evidence(peer, mark({P: 1}), ONE)
    known.clear()
    known.admit(peer)
    assert known.all_have(ONE)
    known.evidence(peer, mark({P: 2}), OTHER)
    assert known.all_have(OTHER)
    assert set(known._hashes) == {OTHER}


def test_a_tracker_shows_the_hash_of_each_peer() -> None:
    known = tracker()
    known.evidence(admitted(known, P), mark({P: 1}), ONE)
    admitted(known, Q)
    assert repr(known) == f"DeltaTracker({{'p': '{ONE}', 'q': 'None'}})"


# --- conversations -----------------------------------------------------------------------------------------------------


def test_a_hash_stays_with_its_clock_until_another_one_is_stated() -> None:
    talk = Conversation()
    talk.state(mark({P: 1}), ONE)
    talk.state(mark({P: 1}), None)
    found = talk.find_hash(ONE.token(ME), ME)
    assert found is not None
    assert found.mark == mark({P: 1})
    talk.state(mark({P: 1}), OTHER)
    assert talk.find_hash(ONE.token(ME), ME) is None
    assert talk.find_hash(OTHER.token(ME), ME) is not None
    assert len(talk.statements) == 1


def test_a_conversation_keeps_the_last_statements_only() -> None:
    talk, marks = Conversation(), [mark({P: seq}) for seq in range(1, STATEMENTS + 4)]
    for each in marks:
        talk.state(each, None)
    assert len(talk.statements) == STATEMENTS
    assert [talk.find(each.name(ME), ME) for each in marks] == [None] * 3 + marks[3:]


def test_conversations_beyond_the_limit_end_the_least_recent_first() -> None:
    known = tracker(conversations=2)
    peers = [admitted(known, Replica(name, 1)) for name in "abc"]
    said = mark({P: 1})
    for peer in peers[:2]:
        known.conversation(peer.replica.node_id).state(said, None)
    known.conversation("a")
    known.conversation("c").state(said, None)
    assert [known.find(peer, said.name(ME), ME) for peer in peers] == [said, None, said]
    assert len(known._conversations) == 2


def test_fewer_conversations_are_kept_of_long_clocks_and_never_fewer_than_a_node_needs() -> None:
    short, long = tracker(conversation_entries=1000), tracker(conversation_entries=1000)
    for known, entries in ((short, 2), (long, 500)):
        said = mark({Replica(f"r{number}", 1): 1 for number in range(entries)})
        for number in range(600):
            peer = admitted(known, Replica(f"p{number}", 1))
            known.evidence(peer, said, None)
            known.conversation(peer.replica.node_id).state(said, None)
    assert len(short._conversations) == 1000 // 2
    assert len(long._conversations) == FEWEST_CONVERSATIONS


@pytest.mark.parametrize("again", [P, Replica("p", 2)])
def test_what_was_said_to_a_forgotten_peer_cannot_be_named_any_more(again: Replica) -> None:
    known = tracker()
    peer = admitted(known, P)
    said = mark({P: 1})
    known.conversation("p").state(said, ONE)
    assert known.find(peer, said.name(ME), ME) == said
    known.forget("p")
    peer = admitted(known, again)
    assert known.find(peer, said.name(ME), ME) is None
    assert known.find_hash(peer, ONE.token(ME), ME) is None
    assert known.marks(peer) == []
    assert len(known._conversations) == 0


def test_another_life_of_a_peer_cannot_name_what_was_said_to_the_one_before() -> None:
    known = tracker()
    said = mark({P: 1})
    admitted(known, P)
    known.conversation("p").state(said, ONE)
    stranger = known.meet(Replica("p", 2))
    for _ in range(2):  # before and after it is admitted
        assert known.find(stranger, said.name(ME), ME) is None
        assert known.find_hash(stranger, ONE.token(ME), ME) is None
        assert known.marks(stranger) == []
        known.admit(stranger)
    assert (known.clock("p"), known.hash("p")) == (None, None)
    assert (known.clock("unheard of"), known.hash("unheard of")) == (None, None)


def test_what_was_said_to_no_peer_in_particular_can_be_named_by_each() -> None:
    known = tracker()
    peer = admitted(known, P)
    early, late = mark({P: 1}), mark({P: 2})
    known.anyone.state(early, ONE)
    known.conversation("p").state(late, None)
    for each in (peer, known.meet(Q)):
        assert known.find(each, early.name(ME), ME) == early
        assert known.find_hash(each, ONE.token(ME), ME) is not None
    assert known.marks(peer) == [late, early]
    assert known.find(peer, early.name(P), ME) is None, "a name is for one reader"
