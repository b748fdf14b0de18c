"""The tokens of a CEL text, and what to write instead of those that only other languages have."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from constraint_crdt.expression.outcome import refuse

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f]|//[^\n]*)+)
    |(?P<string>[bB]?(?:[rR](?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n\r]*"|'[^'\n\r]*')
        |\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
    |(?P<double>[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+)
    |(?P<int>(?:0x[0-9a-fA-F]+|[0-9]+)(?P<unsigned>[uU])?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<foreign>===|!==|=>|=<|<>|:=|\*\*)
    |(?P<mark>&&|\|\||[=!<>]=|[-+*/%<>!?:.,()\[\]{}])
    |(?P<unknown>.)""",
    re.VERBOSE | re.DOTALL,
)
INSTEAD = {  # what other languages or keyboards write: what CEL writes
    **dict.fromkeys(("=", "===", ":="), "=="),
    **dict.fromkeys(("!==", "<>", "≠"), "!="),
    **dict.fromkeys(("=>", "≥"), ">="),
    **dict.fromkeys(("=<", "≤"), "<="),
    **dict.fromkeys(("&", "and"), "&&"),
    **dict.fromkeys(("|", "or"), "||"),
    **dict.fromkeys(("**", "^"), "x * x"),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("‘’", "'"),  # noqa: RUF001 (the look-alikes are the point)
    "not": "!(...)",
    "True": "true",
    "False": "false",
}


class Token(NamedTuple):
    """A token and its offset in the text."""

    sort: str  # string, double, int, uint, name, mark, end
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def shown(text: str) -> str:
    """The text as it can stand in a sentence: on one line, without control characters."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def not_cel(text: str) -> str:
    """The sentence that says so, with what to write instead where that is known."""
    return f"`{shown(text)}` is not CEL" + (f": write `{INSTEAD[text]}`" if text in INSTEAD else "")


def split(source: str) -> Iterator[Token]:
    """The tokens, closed by one of sort `end`. Raises `ExpressionError` for what is no token."""
    number: Token | None = None  # the number that ends where the next token begins
    for match in _TOKEN.finditer(source):
        token = Token("uint" if match["unsigned"] else match.lastgroup or "", match[0], match.start())
        if token.sort == "unknown" and token.text in "\"'":
            refuse(source, "the string that begins here is not closed", token.start)
        if token.sort in ("foreign", "unknown"):
            refuse(source, not_cel(token.text), token.start)
        if number and token.sort == "name" and token.text != "in":
            refuse(source, f"`{number.text}{token.text}` is not a number: write digits only, without a unit", number.start)
        number = token if token.sort in ("double", "int", "uint") else None
        if token.sort != "space":
            yield token
    yield Token("end", "", len(source))
