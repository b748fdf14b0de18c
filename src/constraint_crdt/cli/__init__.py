"""The command line: a front on the typed client of a node, and the command that runs a node.

`main` runs a command, from its arguments to its exit code. `arguments` has the commands and their flags, `connection` the node that
is asked, `output` prints. The other modules have the commands of a subject: a function `show_...` makes the view of an answer, and
the function of the command does the rest.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 without a reader of the output. A mistake is a sentence on
stderr. Only `arguments`, `output` and `errors` are loaded before the command is known, since `--help` has to answer at once.
"""

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence

from constraint_crdt.cli.arguments import PROGRAM, parse
from constraint_crdt.cli.output import INTERRUPTED, NO_READER, CommandFailedError, MisuseError, sentence
from constraint_crdt.errors import ConstraintCrdtError

_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Of writes to the output. Errors of other files are sentences by the time they get here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: `sys.argv`) and return its exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell has closed it (`>&-`): as Python's own `print`, go on without it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the end of the process
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an id may hold what the terminal's encoding does not
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return NO_READER
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _discard_output()
        print(f"{PROGRAM}: cannot write the output: {error.strerror or error}", file=sys.stderr)
        return CommandFailedError.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _discard_output() -> None:
    """Python flushes once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = parse(argv)
    except SystemExit as end:  # --help, --version, and usage errors, which are printed by now
        return end.code if isinstance(end.code, int) else 0
    module, _, function = arguments.run.partition(":")
    try:
        code: int = getattr(importlib.import_module(module), function)(arguments)
    except CommandFailedError as error:
        failure = error
    except ConstraintCrdtError as error:
        from constraint_crdt.cli.connection import as_failure

        failure = as_failure(error)
    except OSError as error:
        if error.filename is None or error.errno in _OUTPUT_ERRORS:
            raise
        failure = CommandFailedError(f"cannot use {error.filename}: {error.strerror or error}")
    else:
        return code
    told = str(failure) if isinstance(failure, MisuseError) and failure.several else sentence(failure)
    print(f"{PROGRAM} {arguments.command}: {told}", file=sys.stderr)
    return failure.exit_code
