"""How a command ends when it fails: one sentence on stderr, and an exit code."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

NO_READER = 141
"""The exit code when the output has no reader any more."""


class CommandFailedError(Exception):
    """The command could not do its work. `str()` is one sentence that says what to do."""

    exit_code = 1


class MisuseError(CommandFailedError):
    """The arguments of the command cannot be right, whatever the state of the fleet."""

    exit_code = 2
