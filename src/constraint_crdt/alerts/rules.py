"""`[[alert]]` in the settings of a node: when somebody is to be told, and where.

    [[alert]]
    name = "hot"
    kind = "rate"                     # a constraint is violated too often, lately
    constraint = "thermal*"           # which ones: a pattern with * and ?; default: all
    half_life = 60                    # seconds, one that the node tracks; default: the shortest
    above = 6                         # violations a minute; or above_share = 0.01, of the evaluations
    for = 30                          # seconds that it has to be so; default: 0
    to = ["log", "https://ops.example/hook"]

| kind | fires for each | that | parameters |
|---|---|---|---|
| rate | constraint | is violated more often than `above` or `above_share` | constraint, half_life, above or above_share, for |
| coverage | active constraint | a live node has not heard of | constraint, node, for (10) |
| divergence | node | was found damaged; with `above`: or is staler than so many seconds | node, above, for |
| silence | node | is not live | node, for (30) |
"""

import difflib
import urllib.parse
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.errors import ConstraintCrdtError

MOST_RULES = 100
MOST_PLACES = 8
MOST_TEXT = 256
"""Characters of a name or a pattern."""

LOG: Final = "log"

_USES: Final[dict[str, tuple[str, ...]]] = {
    "rate": ("constraint", "half_life", "above", "above_share"),
    "coverage": ("constraint", "node"),
    "divergence": ("node", "above"),
    "silence": ("node",),
}
_FOR: Final = {"rate": 0.0, "coverage": 10.0, "divergence": 0.0, "silence": 30.0}


Kind = Literal["rate", "coverage", "divergence", "silence"]
"""What a rule looks at."""


class AlertRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When somebody is to be told, and where."""

    name: str
    kind: Kind
    constraint: str | None = None
    node: str | None = None
    half_life: float | None = None
    above: float | None = None
    above_share: float | None = None
    for_: float | None = msgspec.field(default=None, name="for")
    to: tuple[str, ...] = (LOG,)

    @property
    def lasts(self) -> float:
        """Seconds that it has to be so before anybody is told."""
        return _FOR[self.kind] if self.for_ is None else self.for_

    def is_about(self, *, constraint: str | None = None, node: str | None = None) -> bool:
        """True if the patterns of the rule match these."""
        pairs = ((self.constraint, constraint), (self.node, node))
        return all(pattern is None or name is None or fnmatchcase(name, pattern) for pattern, name in pairs)


def read_rules(tables: object) -> tuple[AlertRule, ...]:
    """The rules that a settings file lists. Raises `ConstraintCrdtError` naming the one that is wrong."""
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping | AlertRule) for table in tables):
        raise ConstraintCrdtError("write each alert under [[alert]], with double brackets")
    rules = tuple(table if isinstance(table, AlertRule) else _read(number, table) for number, table in enumerate(tables, 1))
    return check_rules(rules)


def check_rules(rules: tuple[AlertRule, ...]) -> tuple[AlertRule, ...]:
    """Raise `ConstraintCrdtError` if they cannot be used together, or one of them alone."""
    if len(rules) > MOST_RULES:
        raise ConstraintCrdtError(f"at most {MOST_RULES} alerts, not {len(rules)}")
    names = [rule.name for rule in rules]
    for rule in rules:
        _check(rule)
        if names.count(rule.name) > 1:
            raise ConstraintCrdtError(f"two alerts are called {rule.name!r}: give each a name of its own")
    return rules


def _read(number: int, table: Mapping[str, object]) -> AlertRule:
    known = [field.encode_name for field in msgspec.structs.fields(AlertRule)]
    where = f"alert {number}" + (f" ({table['name']})" if isinstance(table.get("name"), str) else "")
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"`{near[0]}` may be meant" if near else f"there are {', '.join(known)}"
            raise ConstraintCrdtError(f"{where}: there is no field `{key}`: {hint}")
    try:
        return msgspec.convert(table, AlertRule, strict=True)
    except msgspec.ValidationError as error:
        raise ConstraintCrdtError(f"{where}: {error}") from None


def _check(rule: AlertRule) -> None:
    problem = _misuse(rule) or _out_of_bounds(rule) or next(filter(None, map(_wrong_place, rule.to)), None)
    if problem is not None:
        raise ConstraintCrdtError(f"alert {rule.name!r}: {problem}")


def _misuse(rule: AlertRule) -> str | None:
    """What does not go together."""
    given = [key for key in ("constraint", "node", "half_life", "above", "above_share") if getattr(rule, key) is not None]
    extra = [key for key in given if key not in _USES[rule.kind]]
    if extra:
        return f"`{extra[0]}` means nothing to kind {rule.kind}, which takes {', '.join(_USES[rule.kind])}"
    if rule.kind == "rate" and (rule.above is None) is (rule.above_share is None):
        return "kind rate takes one of `above` (violations a minute) and `above_share` (of the evaluations)"
    return None


def _out_of_bounds(rule: AlertRule) -> str | None:
    for key in ("name", "constraint", "node"):
        text = getattr(rule, key)
        if text is not None and not (0 < len(text) <= MOST_TEXT and text.isprintable()):
            return f"`{key}` must have 1 to {MOST_TEXT} printable characters"
    if rule.above_share is not None and not 0.0 <= rule.above_share < 1.0:
        return f"`above_share` must be from 0 to below 1, not {rule.above_share!r}"
    for key, value in (("above", rule.above), ("for", rule.for_), ("half_life", rule.half_life)):
        if value is not None and not 0.0 <= value <= DURATION_MAX:
            return f"`{key}` must be from 0 to {DURATION_MAX:.0f}, not {value!r}"
    if not 0 < len(rule.to) <= MOST_PLACES:
        return f"`to` takes 1 to {MOST_PLACES} places: log, or addresses of webhooks"
    return None


def _wrong_place(place: str) -> str | None:
    """What is wrong with one place to tell; it is never repeated, as it may hold a secret."""
    if place == LOG:
        return None
    try:
        parts = urllib.parse.urlsplit(place)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or not place.isascii() or not place.isprintable() or " " in place:
        return "`to` takes log, or addresses as http://HOST/PATH or https://HOST/PATH"
    if parts.username is not None or parts.password is not None:
        return "`to`: an address with a password in front of its host is not taken; put a token into its path or query"
    return None


def shown_place(place: str) -> str:
    """A place without what may be secret in it."""
    if place == LOG:
        return place
    parts = urllib.parse.urlsplit(place)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}/…"
