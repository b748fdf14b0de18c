"""`events`: what happens on a node, a line each; with `--json` a JSON object each.

It begins with what the node has kept of late, and with `--follow` goes on until Ctrl-C. A stream that breaks is taken up where it
was; events that were missed are said to be, on stderr.
"""

import argparse
import json
import sys
import time
from typing import Any

import msgspec

from constraint_crdt.cli.client import ApiClient, as_failure
from constraint_crdt.cli.errors import MisuseError
from constraint_crdt.cli.output import printable
from constraint_crdt.client.errors import ClientError
from constraint_crdt.client.event_stream import Gap, Happened, Heard
from constraint_crdt.model.events import Event, EventKind

PATIENCE = 3600.0
"""Seconds that a node may be away until it is not waited for any more."""

KEPT = 10_000
"""Events that a node keeps."""

FIRST = 10
"""Events that have happened already and are shown first, where it goes on."""


def events(arguments: argparse.Namespace) -> int:
    """Print what happened, and with `--follow` what happens until Ctrl-C."""
    kinds = {_kind(text) for text in arguments.kind or []}
    last = (FIRST if arguments.follow else KEPT) if arguments.last is None else arguments.last
    if last > KEPT:
        raise MisuseError(f"--last takes at most {KEPT}: a node keeps no more")
    client = ApiClient.chosen(arguments).client
    try:
        if arguments.follow:
            client.status()  # one that is not there, or wants a token, is no stream that broke
        for heard in client.events(last=last, follow=arguments.follow, patience=PATIENCE):
            _tell(heard, kinds, as_json=arguments.json)
    except ClientError as error:
        raise as_failure(error) from None
    return 0


def _kind(text: str) -> str:
    kinds = [kind.value for kind in EventKind]
    wanted = text.replace("-", " ").replace("_", " ")
    if wanted not in kinds:
        raise MisuseError(f"there is no kind of event {text!r}: there are {', '.join(kind.replace(' ', '-') for kind in kinds)}")
    return wanted


def _tell(heard: Heard, kinds: set[str], *, as_json: bool) -> None:
    if isinstance(heard, Gap):
        missed = "some" if heard.missed is None else str(heard.missed)
        print(f"{missed} events are not kept any more and were missed", file=sys.stderr)
    elif isinstance(heard, Happened) and (not kinds or heard.event.kind.value in kinds):
        shown: Any = msgspec.to_builtins(heard.event)
        print(json.dumps({"id": heard.id, **shown}) if as_json else printable(line(heard.event)), flush=True)


def line(event: Event) -> str:
    """One event as people read it."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time / 1e9))
    place = "/".join(part for part in (event.room, event.tile) if part)
    about = " on ".join(part for part in (event.constraint or place, event.node) if part)
    return f"{when}  {event.kind.value:<14}  {about}{f': {event.detail}' if event.detail else ''}".rstrip()
