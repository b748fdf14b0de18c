"""Calling a node's handler: what a failure in it costs, in one place for every engine."""

import logging

from constraint_crdt.engine.transport import MAX_PAYLOAD, Handler

_log = logging.getLogger(__name__)


def check_payload(payload: bytes) -> bytes:
    """Return `payload`; raise `ValueError` when it is longer than any engine carries."""
    if len(payload) > MAX_PAYLOAD:
        msg = f"a payload of {len(payload)} bytes is above the engine's limit of {MAX_PAYLOAD}; send it in parts"
        raise ValueError(msg)
    return payload


def answer(handler: Handler, request: bytes) -> list[bytes] | None:
    """The handler's replies to `request`, or None when it failed: logged here, and no answer to the requester."""
    try:
        return [check_payload(reply) for reply in handler(request)]
    except Exception:  # whatever a handler does wrong must not end the engine that serves every other peer
        _log.exception("the handler failed on a request of %d bytes, which stays unanswered", len(request))
        return None
