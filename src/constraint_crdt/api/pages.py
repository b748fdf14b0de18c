"""Long lists, a page at a time: `?limit=1000&after=LAST`, and `Link: <…>; rel="next"` (RFC 8288) where there is more."""

from bisect import bisect_right
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote, urlencode

from starlette.requests import Request

from constraint_crdt.api.answers import NO_STORE
from constraint_crdt.api.problems import Problem

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
