"""The errors of the package. All bad input that it refuses is a `ConstraintCrdtError`.

An error names the field at fault as data (`field`): a server or a form shows it there, and never searches the sentence for it.
"""


class ConstraintCrdtError(Exception):
    """Input is refused: malformed, oversized, of another fleet or version, or against a limit.

    Nothing has changed when it is raised. `str()` is one sentence for the person who has to act on it.
    """

    field: str | None = None
    """The field or parameter at fault, if one is known."""

    def __init__(self, *message: object, field: str | None = None) -> None:
        super().__init__(*message)
        if field is not None:
            self.field = field


class StoreError(ConstraintCrdtError):
    """A store cannot be opened or used. `str()` is one sentence that says what to do."""


class WritesRefused(StoreError):
    """A store takes no writes now: disk full, read-only, failing. The state on disk stays as it was; a retry is safe."""
