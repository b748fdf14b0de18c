"""The operation for the events of a node. The server streams them; the clients have a handwritten method."""

from typing import Final

import msgspec

from constraint_crdt.model import KEPT
from constraint_crdt.operations.operation import (
    GET,
    TEXT,
    WHOLE,
    YES_NO,
    Answer,
    Operation,
    Parameter,
    parse_flag,
    parse_whole,
)


class FollowEvents(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v1/events`."""

    last: int = 0
    follow: bool = True
    last_event_id: str | None = None
    last_event_id_header: str | None = None


EVENTS: Final = Operation(
    name="events",
    method=GET,
    path="/v1/events",
    summary="What happens, as server-sent events.",
    request=FollowEvents,
    response=str,
    run=None,
    media_type="text/event-stream",
    document=Answer(media_type="text/event-stream"),
    parameters=(
        Parameter(
            name="last",
            about="begin with so many that have happened already",
            schema={**WHOLE, "maximum": KEPT, "default": 0},
            parse=parse_whole(0, KEPT),
        ),
        Parameter(name="follow", about="0: end after those", schema={**YES_NO, "default": "1"}, parse=parse_flag),
        Parameter(name="last_event_id", about="go on after this one, for who cannot send the header"),
        Parameter(name="last-event-id", about="go on after this one", schema=TEXT, place="header", field="last_event_id_header"),
    ),
    in_clients=False,
)
