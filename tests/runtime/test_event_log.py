"""The events that are kept: whoever comes back is given all that happened since, or told how much is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.model import Event, EventKind
from constraint_crdt.runtime.event_log import EVENT_BYTES, EventLog, EventStream, KeptEvent


def event(number: int, detail: str = "") -> Event:
    return Event(kind=EventKind.ADDED, time=number, constraint=f"c{number}", detail=detail)


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 40))
def test_whoever_comes_back_gets_the_rest_or_hears_what_is_lost(happened: int, kept: int, read: int) -> None:
    log = EventLog(most=kept)
    ids = [log.last_id] + [log.append(event(number)).id for number in range(1, happened + 1)]
    read = min(read, happened)
    events, missed = log.after(ids[read])
    assert missed == max(happened - kept - read, 0)
    assert [each.event.time for each in events] == list(range(read + 1 + missed, happened + 1))
    assert [each.id for each in events] == ids[read + 1 + missed :]


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_newest_are_the_last_ones(happened: int, wanted: int) -> None:
    log = EventLog(most=20)
    for number in range(1, happened + 1):
        log.append(event(number))
    first = happened - min(wanted, happened, 20) + 1
    assert [each.event.time for each in log.newest(wanted)] == list(range(first, happened + 1))


@given(st.lists(st.sampled_from([EventKind.ADDED, EventKind.REMOVED, EventKind.ALERT]), max_size=30), st.integers(0, 30))
def test_the_newest_of_some_kinds_are_the_last_ones_of_these(kinds: list[EventKind], wanted: int) -> None:
    log, chosen = EventLog(most=20), {EventKind.ADDED, EventKind.ALERT}
    kept = [log.append(Event(kind=kind, time=number)) for number, kind in enumerate(kinds)][-20:]
    expected = [each for each in kept if each.event.kind in chosen]
    assert log.newest(wanted, chosen) == expected[len(expected) - min(wanted, len(expected)) :]


def test_ids_of_another_start_or_of_none_lose_an_unknown_number() -> None:
    log, other = EventLog(), EventLog()
    log.append(event(1))
    for id_ in (other.append(event(1)).id, "", "17", f"{log.boot}-2", f"{log.boot}-", f"{log.boot}--1", "x" * 10_000):
        events, missed = log.after(id_)
        assert missed is None
        assert [each.event.time for each in events] == [1]


def test_what_is_kept_is_bounded_in_bytes_too() -> None:
    log = EventLog(most_bytes=10 * (EVENT_BYTES + 4 * (1000 + 3)))
    for number in range(100):
        log.append(event(number, "x" * 1000))
    assert 5 <= len(log) <= 11
    assert log.newest(1)[0].event.time == 99


def test_listeners_hear_each_event_with_its_id_at_once() -> None:
    stream = EventStream()
    heard: list[KeptEvent] = []
    stream.listen(heard.append)
    stream.publish(event(1))
    assert [(each.id, each.event) for each in heard] == [(stream.log.last_id, event(1))]


def test_a_listener_that_is_ignored_hears_no_more() -> None:
    stream = EventStream()
    heard: list[KeptEvent] = []
    others: list[KeptEvent] = []
    listener = heard.append
    stream.listen(listener)
    stream.listen(others.append)
    stream.publish(event(1))
    stream.ignore(listener)
    stream.publish(event(2))
    assert [each.event.time for each in heard] == [1]
    assert [each.event.time for each in others] == [1, 2]
    with pytest.raises(ValueError, match="not in list"):
        stream.ignore(listener)
