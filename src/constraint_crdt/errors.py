"""The errors of the package. Everything it raises on bad input of its own making derives from `ConstraintCrdtError`."""


class ConstraintCrdtError(Exception):
    """Input that cannot be taken: malformed, oversized, of another fleet or version, or against a limit.

    Whatever raises it has changed nothing. `str()` is one sentence for the person who has to act on it.
    """
