"""Numbers in a query: as JSON writes them. Python's `float` would take `1_0`, ` 1` and the digits of other scripts too.

Long lists, a page at a time: `?limit=1000&after=LAST`, and `Link: <…>; rel="next"` (RFC 8288) where there is more.

How paths find their operations: an id may contain anything, slashes and line ends too.

Rules: where an id is the rest of a path, its route takes the path decoded (`any_text`). Where a path has several of them, or
something after one, each is one segment of the path as it was sent, percent-encoded: decoded, a slash could be either, and the
path of one resource would be that of others too, with their methods.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote, unquote, unquote_to_bytes, urlencode

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import Scope

from constraint_crdt.http.problems import NO_STORE, Problem

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def number_in(text: str) -> float | None:
    """The number, or None for what is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


PAGE = 1000
LARGEST_PAGE = 10_000


def page_of(request: Request, ids: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The ids of the page that a request asks for, and the headers of the answer. `ids` are ordered.

    Raises `Problem` for a limit out of bounds.
    """
    limit, after = limit_of(request), request.query_params.get("after")
    start = 0 if after is None else bisect_right(ids, after)
    page = list(ids[start : start + limit])
    return page, link_headers(request, page[-1] if start + limit < len(ids) else None)


def limit_of(request: Request) -> int:
    """How many a page may have. Raises `Problem` if that is out of bounds."""
    text = request.query_params.get("limit")
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 0 < int(text) <= LARGEST_PAGE):
        detail = f"`limit`: a whole number from 1 to {LARGEST_PAGE}, not {text!r}"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="limit")
    return int(text)


def link_headers(request: Request, last: str | None) -> dict[str, str]:
    """The headers of a page whose last id is `last`, or of the last page if that is None."""
    if last is None:
        return dict(NO_STORE)
    kept = [(key, value) for key, value in request.query_params.multi_items() if key != "after"]
    query = urlencode([*kept, ("after", last)], quote_via=quote, safe="")
    return {**NO_STORE, "link": f'<{quote(request.url.path)}?{query}>; rel="next"'}


class _AnyText(Convertor[str]):
    """The rest of a path, line ends included, where Starlette's own `path` stops."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_text", _AnyText())


class SegmentRoute(Route):
    """A route of which each parameter is one segment. They are left as they were sent: `segment_of` decodes one."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        if scope["type"] != "http":
            return Match.NONE, {}
        wanted, sent = self.path.split("/"), _sent(scope)
        if len(wanted) != len(sent):
            return Match.NONE, {}
        found = {}
        for each, segment in zip(wanted, sent, strict=True):
            if each.startswith("{"):
                found[each[1:-1]] = segment
            elif each != unquote(segment):
                return Match.NONE, {}
        matched = Match.FULL if scope["method"] in (self.methods or ()) else Match.PARTIAL
        return matched, {"endpoint": self.endpoint, "path_params": found}


def segment_of(request: Request, name: str) -> str:
    """A parameter of a `SegmentRoute`, decoded. Raises `UnicodeDecodeError` for what is not UTF-8."""
    return unquote_to_bytes(request.path_params[name]).decode()


def _sent(scope: Scope) -> list[str]:
    """The segments of a path, as they were sent."""
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return path.decode("latin-1").split("/")
