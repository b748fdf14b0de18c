"""Tags of messages between two sessions, without a network."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.identity import credentials
from constraint_crdt.identity.credentials import TAG_BYTES, WINDOW, Authenticator, Request

from .fleets import FLEET, seeded

A, B = "a" * 24, "b" * 24


def pair(fleet: str = FLEET) -> tuple[Authenticator, Authenticator]:
    """Two sessions that have read each other's proof."""
    forge, anvil = Authenticator(FLEET, "forge", A, seeded(1)), Authenticator(fleet, "anvil", B, seeded(2))
    assert forge.learn("anvil", B, anvil.public)
    assert anvil.learn("forge", A, forge.public)
    return forge, anvil


def test_requests_and_replies_go_both_ways() -> None:
    forge, anvil = pair()
    for asker, asked, session, name in ((forge, anvil, B, "forge"), (anvil, forge, A, "anvil")):
        header, sent = asker.sign(session, b"turn", b"question")
        heard = asked.verify(header, b"turn", b"question")
        assert heard is not None
        assert heard.name == name
        tag = asked.sign_reply(heard, b"place", b"answer")
        assert len(tag) == TAG_BYTES
        assert asker.is_reply(sent, b"place", b"answer", tag)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from(["header", "place", "payload"]))
def test_a_changed_request_is_refused(at: int, by: int, where: str) -> None:
    forge, anvil = pair()
    parts = {"place": b"turn", "payload": b"question"}
    parts["header"], _ = forge.sign(B, parts["place"], parts["payload"])
    whole = dict(parts)
    at %= len(parts[where])
    parts[where] = parts[where][:at] + bytes((parts[where][at] ^ by,)) + parts[where][at + 1 :]
    assert anvil.verify(parts["header"], parts["place"], parts["payload"]) is None
    assert anvil.verify(whole["header"], whole["place"], whole["payload"]) is not None, "and it costs the true one nothing"


def test_parts_do_not_run_into_each_other() -> None:
    forge, anvil = pair()
    header, _ = forge.sign(B, b"ab", b"c")
    assert anvil.verify(header, b"a", b"bc") is None


def test_a_changed_reply_is_refused() -> None:
    forge, anvil = pair()
    header, sent = forge.sign(B, b"", b"question")
    heard = anvil.verify(header, b"", b"question")
    assert heard is not None
    tag = anvil.sign_reply(heard, b"place", b"answer")
    assert not forge.is_reply(sent, b"place", b"answers", tag)
    assert not forge.is_reply(sent, b"other", b"answer", tag)
    assert not forge.is_reply(sent, b"place", b"answer", tag[:-1])
    assert not forge.is_reply(sent, b"place", b"answer", b"")
    _, later = forge.sign(B, b"", b"question")
    assert not forge.is_reply(later, b"place", b"answer", tag), "a reply belongs to one request"


def test_a_request_is_no_request_of_the_other_end_and_no_reply() -> None:
    """Reflection: both ends have the same keys."""
    forge, anvil = pair()
    header, sent = forge.sign(B, b"", b"x")
    assert forge.verify(header, b"", b"x") is None
    theirs, _ = anvil.sign(A, b"", b"x")
    assert forge.verify(theirs[:2] + header[2:], b"", b"x") is None
    heard = anvil.verify(header, b"", b"x")
    assert heard is not None
    assert not forge.is_reply(sent, b"", b"x", header[-TAG_BYTES:])


def test_a_repeated_request_is_refused_also_out_of_order() -> None:
    forge, anvil = pair()
    headers = [forge.sign(B, b"", b"x")[0] for _ in range(200)]
    Random(3).shuffle(headers)
    for header in headers:
        assert anvil.verify(header, b"", b"x") is not None
        assert anvil.verify(header, b"", b"x") is None
    assert all(anvil.verify(header, b"", b"x") is None for header in headers)


def test_a_request_beyond_the_window_is_refused() -> None:
    forge, anvil = pair()
    old, just = forge.sign(B, b"", b"x")[0], forge.sign(B, b"", b"x")[0]
    for _ in range(WINDOW - 1):
        last, _ = forge.sign(B, b"", b"x")
    assert anvil.verify(last, b"", b"x") is not None
    assert anvil.verify(old, b"", b"x") is None
    assert anvil.verify(just, b"", b"x") is not None


def asked(forge: Authenticator, anvil: Authenticator) -> int:
    """Ask with a reply. Returns the bytes of the header."""
    header, sent = forge.sign(B, b"", b"x")
    heard = anvil.verify(header, b"", b"x")
    assert heard == Request("forge", A, sent.counter)
    forge.answered(sent)
    return len(header)


@pytest.mark.slow
def test_a_header_is_short_while_replies_come_and_whole_after_many_without() -> None:
    forge, anvil = pair()
    assert {asked(forge, anvil) for _ in range(1000)} == {2 + 1 + TAG_BYTES}
    lost = [forge.sign(B, b"", b"x")[0] for _ in range(5_000)]
    assert {len(header) for header in lost} == {2 + 1 + TAG_BYTES, 2 + 5 + TAG_BYTES}
    assert asked(forge, anvil) == 2 + 5 + TAG_BYTES, "and the first one that arrives is understood"
    assert asked(forge, anvil) == 2 + 1 + TAG_BYTES


@pytest.mark.slow
@given(st.integers(0, 400), st.randoms(use_true_random=False))
def test_requests_overtake_each_other_with_short_headers(answered: int, chance: Random) -> None:
    forge, anvil = pair()
    for _ in range(answered):
        asked(forge, anvil)
    late, _ = forge.sign(B, b"", b"late")
    for _ in range(chance.randrange(WINDOW)):
        asked(forge, anvil)
    assert anvil.verify(late, b"", b"late") == Request("forge", A, answered)
    assert anvil.verify(late, b"", b"late") is None


def test_a_session_that_is_gone_for_a_moment_goes_on_and_its_requests_of_before_are_refused() -> None:
    """A router can take a token back and tell it again. What it recorded before counts no second time."""
    forge, anvil = pair()
    recorded = [forge.sign(B, b"", b"x") for _ in range(300)]
    for header, sent in recorded:
        assert anvil.verify(header, b"", b"x") is not None
        forge.answered(sent)
    anvil.forget(A)
    assert anvil.verify(recorded[-1][0], b"", b"x") is None
    assert anvil.learn("forge", A, forge.public)
    assert all(anvil.verify(header, b"", b"x") is None for header, _ in recorded)
    asked(forge, anvil)
    forge.forget(B)
    assert forge.learn("anvil", B, anvil.public)
    asked(forge, anvil)


def test_the_counters_of_ended_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "ENDED", 3)
    forge, _ = pair()
    for number in range(10):
        assert forge.learn("guest", f"{number:024}", Authenticator(FLEET, "guest", f"{number:024}", seeded(number)).public)
        forge.forget(f"{number:024}")
    assert len(forge._ended) == 3


def test_nothing_goes_from_one_session_to_another() -> None:
    """Of the same node too: what was recorded in one life opens nothing in the next."""
    forge, anvil = pair()
    header, sent = forge.sign(B, b"", b"x")
    again = Authenticator(FLEET, "anvil", B, seeded(5))
    assert again.learn("forge", A, forge.public)
    assert again.verify(header, b"", b"x") is None
    anvil.forget(A)
    assert anvil.verify(header, b"", b"x") is None
    assert anvil.sign_reply(Request("forge", A, sent.counter), b"", b"x") == b""


def test_fleets_do_not_mix() -> None:
    forge, anvil = pair("other")
    header, _ = forge.sign(B, b"", b"x")
    assert anvil.verify(header, b"", b"x") is None


@pytest.mark.parametrize("public", [b"", b"x", bytes(32), b"\x01" + bytes(31), bytes(33)])
def test_a_key_that_is_none_is_refused(public: bytes) -> None:
    """Also the points that give the same secret to all."""
    forge, _ = pair()
    assert not forge.learn("liar", "c" * 24, public)
    assert not forge.knows("c" * 24)


@given(st.binary(max_size=80))
def test_any_attachment_is_split_and_refused(attachment: bytes) -> None:
    forge, _ = pair()
    header, place = forge.split(attachment)
    assert header + place == attachment
    forge.knows_sender(header)
    assert forge.verify(header, place, b"x") is None
