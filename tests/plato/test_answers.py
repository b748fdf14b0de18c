"""Questions with their answers as tiles: against a plain model, submitted anywhere in any order."""

import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintState, Limits, Replica
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.plato import PlatoFieldError, read_submission
from constraint_crdt.plato.rooms import answer_id, plato_answer, submit_answer

from .tiles import DAY

NOW = DAY * 1_000_000
A, B = Replica("a", 1), Replica("b", 1)


class Submitted(NamedTuple):
    at: int  # the state
    room: str
    question: str
    answer: str
    author: str
    timestamp: int  # ms


ROOM = st.sampled_from(["r", "s/t"])
TEXT = st.sampled_from(["x", '"', "é", "x:y", "{}"])
SUBMITTED = st.builds(Submitted, st.integers(0, 1), ROOM, TEXT, TEXT, st.sampled_from(["ann", "bob"]), st.integers(DAY - 3, DAY))


def submit(state: ConstraintState, each: Submitted, me: Replica) -> bool:
    body = {"question": each.question, "answer": each.answer, "agent": each.author, "timestamp": each.timestamp}
    return submit_answer(state, read_submission(json.dumps(body).encode(), each.room), me, now=NOW)[1]


@pytest.mark.slow
@given(st.lists(SUBMITTED, max_size=8), st.booleans())
def test_answers_are_those_of_a_plain_set_in_any_order(history: list[Submitted], merge_between: bool) -> None:
    states, me = [ConstraintState(now=lambda: NOW), ConstraintState(now=lambda: NOW)], (A, B)
    seen: list[dict[tuple[str, str, str], set[tuple[str, int]]]] = [{}, {}]
    for each in history:
        key = (each.room, each.question, each.answer)
        assert submit(states[each.at], each, me[each.at]) is (key not in seen[each.at])
        seen[each.at].setdefault(key, set()).add((each.author, each.timestamp))
        if merge_between:
            states[1 - each.at].merge(states[each.at])
            seen[1 - each.at] = {**seen[each.at], **seen[1 - each.at]}
    states[0].merge(states[1])
    states[1].merge(states[0])
    expected = {**seen[0], **seen[1]}
    for state in states:
        shown = [answer for answer in (plato_answer(state.tiles[place]) for place in state.tiles) if answer]
        assert sorted((answer.room, answer.question, answer.answer) for answer in shown) == sorted(expected)
        for answer in shown:
            assert (answer.id, answer.sequence) == (answer_id(answer.question, answer.answer), answer.timestamp * 1000)
            known = {claim for one in seen for claim in one.get((answer.room, answer.question, answer.answer), ())}
            assert (answer.source, answer.timestamp) in known
    assert states[0].state_hash == states[1].state_hash


def test_the_id_tells_question_and_answer_apart() -> None:
    assert len({answer_id("a", "b:c"), answer_id("a:b", "c"), answer_id("a", "b"), answer_id("b", "a")}) == 4


def test_no_answer_goes_beyond_the_limit_of_tiles() -> None:
    state = ConstraintState(Rows(limits=Limits(tiles=1)))
    one = Submitted(0, "r", "q", "a", "ann", DAY)
    assert submit(state, one, A)
    with pytest.raises(PlatoFieldError, match="there are 1 tiles or more") as caught:
        submit(state, one._replace(question="p"), A)
    assert caught.value.field is None
    assert len(state.tiles) == 1
