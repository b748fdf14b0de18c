"""The parser of CEL texts: tokens, grammar, and the kinds of value of each part.

A text is parsed from left to right; parts that cannot work are refused with a replacement where one is known. The grammar is
CEL's. Depth counts brackets and chained operators and fields, because the library recurses over both.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from constraint_crdt.expression import cel
from constraint_crdt.expression.cel import FUNCTIONS, MACROS, METHODS, NUMBER, TYPE_NAMES, Kind, describe, refuse

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
REPLACEMENTS = {  # the form in other languages or by keyboards: the form in CEL
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


def printable(text: str) -> str:
    """The text for a sentence: on a single line, without control characters."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def not_cel(text: str) -> str:
    """The sentence about a text outside of CEL, with the replacement where one is known."""
    return f"`{printable(text)}` is not CEL" + (f": write `{REPLACEMENTS[text]}`" if text in REPLACEMENTS else "")


def tokenize(source: str) -> Iterator[Token]:
    """The tokens, closed by a token of sort `end`. Raises `ExpressionError` for text outside of all tokens."""
    number: Token | None = None  # the number directly before the next token
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


MAX_DEPTH = 32  # 32 levels take a fraction of a 256 KiB thread stack

_LEVELS = ({"||"}, {"&&"}, {"<", "<=", ">", ">=", "==", "!=", "in"}, {"+", "-"}, {"*", "/", "%"})
_RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace"}
    | {"return", "var", "void", "while"}
)
_AN_OPERATOR = "an operator such as `<` or `&&`"
_LONGEST_QUOTE = 60


class ParsedPart(NamedTuple):
    """A parsed part of the expression: its place, its kinds of value, its depth."""

    start: int
    end: int
    kinds: Kind
    depth: int = 1
    literal: bool = False
    bracketed: bool = False


class ParsedExpression(NamedTuple):
    """The top-level variables of an expression, and the patterns of its `matches`."""

    variables: frozenset[str]
    patterns: list[ParsedPart]


def parse(source: str) -> ParsedExpression:
    """Read an expression whole. Raises `ExpressionError`."""
    return _ExpressionParser(source).parse()


def _quote(text: str) -> str:
    return f"`{text}`" if len(text) <= _LONGEST_QUOTE else f"`{text[:_LONGEST_QUOTE]}...`"


class _ExpressionParser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._variables: set[str] = set()
        self._patterns: list[ParsedPart] = []
        self._tokens = list(tokenize(source))
        self._next = 0
        self._brackets = 0

    def parse(self) -> ParsedExpression:
        if self._token.sort == "end":
            self._refuse("the expression is empty: write a condition such as `x < 85`", 0)
        part = self._expression()
        if self._token.sort != "end":
            self._unexpected(_AN_OPERATOR)
        if not part.kinds & Kind.BOOL:
            self._refuse(f"this gives {describe(part.kinds)}, and a constraint needs a bool such as `x < 85`", part.start)
        return ParsedExpression(frozenset(self._variables), self._patterns)

    def _refuse(self, message: str, start: int) -> NoReturn:
        refuse(self._source, message, start)

    def _text(self, part: ParsedPart) -> str:
        """The part on a single line, without comments."""
        text, at = "", part.start
        for token in self._tokens:
            if part.start <= token.start < part.end:
                text += " " * (token.start > at) + printable(token.text)
                at = token.end
        return text

    # tokens

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._token
        self._next += 1
        return token

    def _at(self, *texts: str) -> bool:
        return self._token.text in texts and self._token.sort in ("mark", "name")

    def _expect(self, text: str, wanted: str = "") -> int:
        if not self._at(text):
            self._unexpected(wanted or f"`{text}`")
        return self._take().end

    def _unexpected(self, wanted: str) -> NoReturn:
        token = self._token
        if token.sort == "end":
            last = printable(self._tokens[self._next - 1].text)
            self._refuse(f"the expression ends after {_quote(last)}, where {wanted} is needed", token.start)
        hint = f": write `{REPLACEMENTS[token.text]}`" if token.text in REPLACEMENTS else ""
        self._refuse(f"{_quote(printable(token.text))} stands where {wanted} is needed{hint}", token.start)

    def _deeper(self, depth: int, start: int) -> int:
        if depth >= MAX_DEPTH:
            self._refuse(f"this is nested or chained more than {MAX_DEPTH} deep: split the constraint", start)
        return depth + 1

    # grammar, from the loosest binding to the tightest

    def _expression(self) -> ParsedPart:
        self._brackets = self._deeper(self._brackets, self._token.start)
        part = self._binary(0)
        if self._at("?"):
            self._need(part, Kind.BOOL, "which cannot be the condition of `?`", self._take().start)
            yes = self._binary(0)
            self._expect(":")
            no = self._expression()
            depth = self._deeper(max(part.depth, yes.depth, no.depth), part.start)
            part = ParsedPart(part.start, no.end, yes.kinds | no.kinds, depth)
        self._brackets -= 1
        return part

    def _binary(self, level: int) -> ParsedPart:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while self._at(*_LEVELS[level]):
            operator = self._take()
            right = self._binary(level + 1)
            result = self._result(operator, left, right)
            deepest = max(left.depth, right.depth)
            # The library keeps chains of && and || balanced, so they may be as long as the text allows.
            depth = deepest if level < 2 else self._deeper(deepest, operator.start)
            left = ParsedPart(left.start, right.end, result, depth)
        return left

    def _unary(self) -> ParsedPart:
        first = self._token
        signs = 0
        while self._at("!", "-"):
            self._take()
            signs = self._deeper(signs, first.start)
        part = self._member()
        if not signs:
            return part
        takes = Kind.BOOL if first.text == "!" else Kind.INT | Kind.DOUBLE
        self._need(part, takes, f"which `{first.text}` does not take", first.start)
        return part._replace(start=first.start, kinds=part.kinds & takes, bracketed=False)

    def _member(self) -> ParsedPart:
        part = self._primary()
        while self._at(".", "["):
            mark = self._take()
            depth = self._deeper(part.depth, mark.start)
            if mark.text == "[":
                self._need(part, cel.LISTS | cel.MAPS, "which has no items", mark.start)
                index = self._expression()
                self._need(index, cel.KEYS, "which cannot be an index", index.start)
                part = ParsedPart(part.start, self._expect("]"), self._inside(part), max(depth, index.depth))
                continue
            if part.literal and part.kinds == Kind.INT and self._token.sort != "name":
                self._refuse(f"a number cannot end in a point: write `{self._text(part)}.0`", part.start)
            if self._token.sort != "name":
                self._unexpected("the name of a field")
            name = self._take()
            if self._at("("):
                part = self._method(name, part, depth)
            else:
                self._need(part, cel.MAPS, f"which has no field `{name.text}`", name.start)
                part = ParsedPart(part.start, name.end, self._inside(part), depth)
        return part

    def _primary(self) -> ParsedPart:
        token = self._token
        if token.sort in ("string", "double", "int", "uint"):
            is_bytes = token.sort == "string" and token.text[0] in "bB"
            kind = Kind.BYTES if is_bytes else Kind[token.sort.upper()]
            self._take()
            return ParsedPart(token.start, token.end, kind, literal=True)
        if token.sort == "name" and token.text != "in":
            return self._named(self._take())
        if self._at("("):
            self._take()
            part = self._expression()
            return part._replace(start=token.start, end=self._expect(")"), literal=False, bracketed=True)
        if self._at("[", "{"):
            return self._container(self._take())
        return self._unexpected("a value")

    def _named(self, name: Token) -> ParsedPart:
        if self._at("(") and name.text != "not":
            return self._function(name)
        if name.text in ("true", "false", "null"):
            return ParsedPart(name.start, name.end, Kind.NULL if name.text == "null" else Kind.BOOL)
        if name.text in TYPE_NAMES:
            return ParsedPart(name.start, name.end, Kind.TYPE)
        if name.text in REPLACEMENTS:
            self._refuse(not_cel(name.text), name.start)
        if name.text in _RESERVED:
            self._refuse(f"`{name.text}` is a reserved word of CEL, so no measurement can have this name", name.start)
        self._variables.add(name.text)
        return ParsedPart(name.start, name.end, cel.MEASURED)

    def _container(self, mark: Token) -> ParsedPart:
        closing, kind = ("]", Kind.OWN_LIST) if mark.text == "[" else ("}", Kind.OWN_MAP)
        depth = 1
        while not self._at(closing):
            depth = max(depth, self._deeper(self._expression().depth, mark.start))
            if mark.text == "{":
                self._expect(":")
                depth = max(depth, self._deeper(self._expression().depth, mark.start))
            if not self._at(closing):
                self._expect(",", f"`,` or `{closing}`")
        return ParsedPart(mark.start, self._expect(closing), kind, depth)

    # calls

    def _arguments(self) -> tuple[list[ParsedPart], int]:
        self._expect("(")
        arguments: list[ParsedPart] = []
        while arguments or not self._at(")"):
            arguments.append(self._expression())
            if self._at(")"):
                break
            self._expect(",", "`,` or `)`")
        return arguments, self._expect(")")

    def _no_macro(self, name: Token) -> None:
        if name.text in MACROS:
            self._refuse(f"`{name.text}` loops, and a constraint may not: write the cases out with && and ||", name.start)

    def _function(self, name: Token) -> ParsedPart:
        self._no_macro(name)
        if name.text in METHODS and name.text not in FUNCTIONS:
            self._refuse(f"`{name.text}` is a method: write `value.{name.text}(...)`", name.start)
        if name.text not in FUNCTIONS:
            self._refuse(f"CEL has no function `{name.text}` (it has {', '.join(sorted(FUNCTIONS))})", name.start)
        takes, gives = FUNCTIONS[name.text]
        arguments, end = self._arguments()
        if len(arguments) != 1:
            self._refuse(f"`{name.text}` takes 1 argument, not {len(arguments)}", name.start)
        argument = arguments[0]
        depth = self._deeper(argument.depth, name.start)
        self._need(argument, takes, f"which `{name.text}` does not take", argument.start)
        return ParsedPart(name.start, end, argument.kinds if name.text == "dyn" else gives, depth)

    def _method(self, name: Token, value: ParsedPart, depth: int) -> ParsedPart:
        self._no_macro(name)
        if name.text in FUNCTIONS and name.text not in METHODS:
            self._refuse(f"`{name.text}` is a function: write `{name.text}({self._text(value)})`", name.start)
        if name.text not in METHODS:
            likely = next((known for known in METHODS if known.lower() == name.text.lower()), None)
            hint = f": write `{likely}`" if likely else " (text has contains, endsWith, matches, size, startsWith)"
            self._refuse(f"CEL has no method `{name.text}`{hint}", name.start)
        takes, count, gives = METHODS[name.text]
        self._need(value, takes, f"which has no `{name.text}`", name.start)
        arguments, end = self._arguments()
        if len(arguments) != count:
            self._refuse(f"`{name.text}` takes {count} argument{'s'[: count != 1]}, not {len(arguments)}", name.start)
        for argument in arguments:
            self._need(argument, Kind.STRING, f"which `{name.text}` does not take", argument.start)
            depth = self._deeper(max(depth - 1, argument.depth), name.start)
        if name.text == "matches":
            self._patterns += arguments
        return ParsedPart(value.start, end, gives, depth)

    # kinds

    @staticmethod
    def _inside(container: ParsedPart) -> Kind:
        return cel.ANY if container.kinds & (Kind.OWN_LIST | Kind.OWN_MAP) else cel.MEASURED

    def _need(self, part: ParsedPart, takes: Kind, otherwise: str, start: int) -> None:
        if not part.kinds & takes:
            self._refuse(f"{_quote(self._text(part))} is {describe(part.kinds)}, {otherwise}", start)

    def _result(self, operator: Token, left: ParsedPart, right: ParsedPart) -> Kind:
        mark = operator.text
        gives = cel.arithmetic(mark, left.kinds, right.kinds)
        if gives is not None:
            return gives or self._no_arithmetic(operator, left, right)
        if mark in ("&&", "||"):
            self._need(left, Kind.BOOL, f"which `{mark}` does not take", left.start)
            self._need(right, Kind.BOOL, f"which `{mark}` does not take", right.start)
        elif mark == "in":
            self._need(right, cel.LISTS | cel.MAPS, "which has no items for `in`", right.start)
        elif mark not in ("==", "!=") and not cel.ordered(left.kinds, right.kinds):
            self._no_comparison(operator, left, right)
        return Kind.BOOL

    def _no_comparison(self, operator: Token, left: ParsedPart, right: ParsedPart) -> NoReturn:
        hint = ""
        if self._source[left.start] == "!":
            hint = ": write `!(...)` around the comparison"
        elif left.kinds == Kind.BOOL and not left.bracketed:
            hint = ": join two comparisons with `&&`"
        self._refuse(f"`{operator.text}` cannot compare {describe(left.kinds)} with {describe(right.kinds)}{hint}", operator.start)

    def _no_arithmetic(self, operator: Token, left: ParsedPart, right: ParsedPart) -> NoReturn:
        mark = operator.text
        if not (left.kinds & NUMBER and right.kinds & NUMBER):
            self._refuse(f"`{mark}` does not work on {describe(left.kinds)} and {describe(right.kinds)}", operator.start)
        target = Kind.INT if mark == "%" or not (left.kinds | right.kinds) & Kind.DOUBLE else Kind.DOUBLE
        why = f"`{mark}` cannot mix {describe(left.kinds & NUMBER)} with {describe(right.kinds & NUMBER)}"
        if mark == "%" and (left.kinds | right.kinds) & Kind.DOUBLE:
            why = "`%` is for ints, not for doubles"
        if cel.MEASURED in (left.kinds, right.kinds):
            why += " (every number measured is a double)"
        fix = f"{self._as(target, left)} {mark} {self._as(target, right)}"
        self._refuse(f"{why}: write `{fix}`", operator.start)

    def _as(self, kind: Kind, part: ParsedPart) -> str:
        """The part, converted to this kind of number if need be."""
        text = self._text(part)
        if part.kinds & kind:
            return text
        if kind == Kind.DOUBLE and part.literal and "x" not in text:
            return text.rstrip("uU") + ".0"
        return (kind.name or "").lower() + (text if part.bracketed else f"({text})")
