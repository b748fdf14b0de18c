"""What can go wrong between a client and a node: one family."""

from constraint_crdt.errors import ConstraintCrdtError

__all__ = ["Busy", "ClientError", "NoAnswer", "NotFound", "Refused", "Stranger", "Unauthorized", "WrongInput"]


class ClientError(ConstraintCrdtError):
    """A request that was not served. `str()` is one sentence, and never has a token in it."""


class NoAnswer(ClientError):
    """Nobody answers there, or not in time. Whether a write was done is not known then."""

    def __init__(self, message: str, *, refused: bool = False, timed_out: bool = False) -> None:
        """`refused`: nothing listens there. `timed_out`: something does, and said nothing."""
        super().__init__(message)
        self.refused = refused
        self.timed_out = timed_out


class Stranger(ClientError):
    """What answers is no node."""


class Refused(ClientError):
    """The node says why it does not serve this: a problem after RFC 9457."""

    def __init__(self, detail: str, status: int, *, field: str | None = None, retry_after: float | None = None) -> None:
        """`field`: the field or parameter at fault. `retry_after`: seconds after which to ask again, where the node said so."""
        super().__init__(detail)
        self.status = status
        self.field = field
        self.retry_after = retry_after


class WrongInput(Refused):
    """What was sent cannot be right, whatever the state of the fleet."""


class NotFound(Refused):
    """The node knows nothing by that name."""


class Unauthorized(Refused):
    """There is no token, or it does not allow this."""


class Busy(Refused):
    """Not at present: asked too often, or the disk takes no writes."""


KINDS: dict[int, type[Refused]] = {
    400: WrongInput, 413: WrongInput, 415: WrongInput, 422: WrongInput,
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 429: Busy, 503: Busy,
}  # fmt: skip
"""By status; the others are just refused."""
