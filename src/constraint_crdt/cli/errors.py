"""How a command ends other than well: one sentence on stderr, and an exit code."""


class CommandFailedError(Exception):
    """The command could not do what it was asked. `str()` is one sentence that says what to do."""

    exit_code = 1


class MisuseError(CommandFailedError):
    """What the command was given cannot be right, whatever the state of the fleet."""

    exit_code = 2
