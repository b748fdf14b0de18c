"""The errors of a client: a family below `ClientError`."""

from constraint_crdt.errors import ConstraintCrdtError

__all__ = ["Busy", "ClientError", "NoAnswer", "NotANode", "NotFound", "Refused", "Unauthorized", "WrongInput"]


class ClientError(ConstraintCrdtError):
    """A request that failed. `str()` is a sentence, and never contains a token."""


class NoAnswer(ClientError):
    """No answer, or not in time. A write may have been done."""

    def __init__(self, message: str, *, refused: bool = False, timed_out: bool = False) -> None:
        """`refused`: no server listens at the address. `timed_out`: a server accepted and sent nothing."""
        super().__init__(message)
        self.refused = refused
        self.timed_out = timed_out


class NotANode(ClientError):
    """The server at the address is not a node."""


class Refused(ClientError):
    """A problem after RFC 9457: the reason for which the node refused the request."""

    def __init__(self, detail: str, status: int, *, field: str | None = None, retry_after: float | None = None) -> None:
        """`field`: the field or parameter at fault. `retry_after`: seconds until a retry, if the node gave them."""
        super().__init__(detail)
        self.status = status
        self.field = field
        self.retry_after = retry_after


class WrongInput(Refused, ValueError):
    """An invalid request, in any state of the fleet."""


class NotFound(Refused, KeyError):
    """The node knows no such name."""


class Unauthorized(Refused):
    """The token is missing, unknown, or of too low a role."""


class Busy(Refused):
    """Not at present: the rate limit, or a disk without writes."""


KINDS: dict[int, type[Refused]] = {
    400: WrongInput, 413: WrongInput, 415: WrongInput, 422: WrongInput,
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 429: Busy, 503: Busy,
}  # fmt: skip
"""The error by status; `Refused` for others."""
