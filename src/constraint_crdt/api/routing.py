"""How paths find their operations: an id may contain anything, slashes and line ends too.

Rules: where an id is the rest of a path, its route takes the path decoded (`any_text`). Where a path has several of them, or
something after one, each is one segment of the path as it was sent, percent-encoded: decoded, a slash could be either, and the
path of one resource would be that of others too, with their methods.
"""

from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import Scope


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
