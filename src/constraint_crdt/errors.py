"""The errors of the package. All errors about invalid input derive from `ConstraintCrdtError`."""


class ConstraintCrdtError(Exception):
    """Input is refused: malformed, oversized, of another fleet or version, or against a limit.

    The refused call has changed nothing. `str()` is a sentence for the person who has to act.
    """
