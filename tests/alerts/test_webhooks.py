"""Webhooks: what is posted, what is tried again, what is dropped, and that nothing secret is logged."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from constraint_crdt.alerts import delivery as webhooks
from constraint_crdt.alerts.delivery import Webhooks
from tests.runtime.fleet import eventually


class Listener:
    """An HTTP server that answers as it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.got: list[tuple[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.got.append((self.path, json.loads(body)))
                self.send_response(outer.answers.pop(0) if outer.answers else 204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class gives it
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/s3cret?token=s3cret"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    found = Listener()
    yield found
    found.close()


async def test_messages_arrive_in_order_and_again_after_a_failure(listener: Listener) -> None:
    hooks = Webhooks(first_pause=0.001)
    listener.answers = [503, 429, 200]
    hooks.send(listener.url, {"n": 1})
    hooks.send(listener.url, {"n": 2})
    await eventually(lambda: hooks.delivered == 2)
    assert not hooks.failing(), "the last attempt succeeded"
    assert [each["n"] for _, each in listener.got] == [1, 1, 1, 2]
    assert {path for path, _ in listener.got} == {"/hook/s3cret?token=s3cret"}
    assert (hooks.waiting, hooks.dropped) == (0, 0)
    await hooks.close()


async def test_what_is_refused_is_dropped_and_secrets_are_not_logged(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    hooks = Webhooks(first_pause=0.001)
    listener.answers = [404]
    with caplog.at_level(logging.DEBUG):
        hooks.send(listener.url, {"n": 1})
        hooks.send(listener.url, {"n": 2})
        await eventually(lambda: (hooks.dropped, hooks.delivered) == (1, 1))
    assert "answered 404" in caplog.text
    assert "s3cret" not in caplog.text
    await hooks.close()


async def test_an_address_where_nobody_is_holds_up_no_other(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks, "QUEUED", 3)
    dead = Listener()
    dead.close()
    hooks = Webhooks(first_pause=30.0)
    for number in range(5):
        hooks.send(dead.url, {"n": number})
    hooks.send(listener.url, {"n": 1})
    await eventually(lambda: hooks.delivered == 1)
    assert (hooks.waiting, hooks.dropped) == (3, 2)
    await eventually(hooks.failing)
    assert "refused" in str(hooks.failing())
    assert "s3cret" not in str(hooks.failing())
    monkeypatch.setattr(webhooks, "FAILING_FOR", -1.0)
    assert not hooks.failing(), "long ago"
    assert "s3cret" not in caplog.text
    await hooks.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("webhook")]


async def test_a_message_that_nobody_takes_is_given_up(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPTS", 3)
    listener.answers = [500] * 3
    hooks = Webhooks(first_pause=0.001)
    hooks.send(listener.url, {"n": 1})
    hooks.send(listener.url, {"n": 2})
    await eventually(lambda: hooks.delivered == 1)
    assert (hooks.dropped, len(listener.got)) == (1, 4)
    await hooks.close()


async def test_a_message_that_is_withdrawn_is_not_tried_again(listener: Listener) -> None:
    hooks = Webhooks(first_pause=0.05)
    listener.answers = [503]
    first, second = hooks.send(listener.url, {"n": 1}), hooks.send(listener.url, {"n": 2})
    await eventually(lambda: len(listener.got) == 1)
    first.withdrawn = True
    await eventually(lambda: second.delivered)
    assert [each["n"] for _, each in listener.got] == [1, 2]
    assert (first.dropped, first.delivered, hooks.dropped, hooks.waiting) == (True, False, 0, 0)
    await hooks.close()


async def test_a_message_may_have_arrived_once_its_attempt_began(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, end = threading.Event(), threading.Event()

    def post(url: str, body: bytes) -> int | str:
        begun.set()
        end.wait(10)
        return "no answer in time"

    monkeypatch.setattr(webhooks, "_post", post)
    hooks = Webhooks(first_pause=30.0)
    first, second = hooks.send(listener.url, {"n": 1}), hooks.send(listener.url, {"n": 2})
    await eventually(begun.is_set)
    assert (first.attempted, second.attempted) == (True, False)
    end.set()
    await eventually(lambda: not first.attempted)
    await hooks.close()
    assert not first.dropped
