"""The way to the CEL library: imported when first needed; what it raises, panics included, is put into a sentence here."""

import re
import sys
from collections.abc import Callable
from types import ModuleType

from constraint_crdt.expression.kinds import TYPE_NAMES
from constraint_crdt.expression.outcome import ExpressionError

BAD_ESCAPE = "this string has an escape that CEL does not know: write `\\\\` for a backslash"
_PLAINLY = {  # how a message of the library begins: what to say to the person who wrote the expression
    "token recognition error": BAD_ESCAPE,  # all else that it cannot recognise has been refused by the reader
    "invalid int literal": "this int does not fit 64 bits: write it as a double, such as `1e19`",
    "invalid uint literal": "this uint does not fit 64 bits: write it as a double, such as `1e20`",
    "invalid double literal": "this number is too large for a double",
    "invalid argument to has()": "`has` needs a field, such as `has(robot.speed)`",
}


def import_library() -> ModuleType:
    """The CEL library, without its command line.

    `import cel` imports that too, and with it three packages for terminals: as much processor time as the rest of a node takes to
    start. An empty module stands in for it during the import only.
    """
    absent = "cel" not in sys.modules and "cel.cli" not in sys.modules
    if absent:
        sys.modules["cel.cli"] = ModuleType("cel.cli")
    try:
        import cel
    finally:
        if absent:
            sys.modules.pop("cel.cli", None)
    return cel


def compile_in_library(source: str) -> tuple[Callable[..., object], frozenset[str]]:
    """Compile with the CEL library. Returns what evaluates it, and the variables that the library sees.

    Raises `ExpressionError` with the library's column.
    """
    library = import_library()
    try:
        program = library.compile(source)
        names = frozenset(program.variables())
    except BaseException as error:
        reraise_unless_from_library(error)
        place = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)", str(error))
        if place is None:
            raise ExpressionError("this is not CEL", 1) from None
        plainly = next((plain for begins, plain in _PLAINLY.items() if place[3].startswith(begins)), None)
        # The parser lists everything that could have stood there, which helps nobody.
        what = plainly or re.sub(r" expecting \{.*", "", place[3])
        raise ExpressionError(what or "this is not CEL", int(place[2]), int(place[1])) from None
    return program.execute, names - TYPE_NAMES


def context(values: dict[str, object]) -> object:
    """The values in the library's own form. Converting all of them takes as long as 50 evaluations."""
    return import_library().Context(variables=values)


def reraise_unless_from_library(error: BaseException) -> None:
    """Let KeyboardInterrupt and the like pass; a Rust panic is a BaseException too, of a class that cannot be imported."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def failure(error: BaseException) -> str:
    """What the library says when an evaluation fails, as part of a sentence."""
    if isinstance(error, KeyError):
        return f"there is no field {error.args[0]}" if error.args else "a field is missing"
    text = str(error).strip()
    if text.startswith("No such overload"):
        return "an operator or function does not take the kind of value measured"
    undefined = re.match(r"Undefined variable or function: '(\w+)'", text)
    if undefined:
        return f"`{undefined[1]}` does not take the kind of value measured"
    function = re.match(r"Function '(\w+)' error:", text)
    if function:
        return f"`{function[1]}` cannot use the value that it is given"
    first_sentence = re.split(r"\.\s|\.?$|\n", text, maxsplit=1)[0].removesuffix(" in CEL expression")
    return first_sentence or type(error).__name__
