"""`[[alert]]` in the settings of a node: reads and checks the rules.

    [[alert]]
    name = "hot"
    kind = "rate"                     # a constraint is violated too often, lately
    constraint = "thermal*"           # a pattern with * and ?; default: all constraints
    half_life = 60                    # seconds, tracked by the node; default: the shortest
    above = 6                         # violations a minute; or above_share = 0.01, of the evaluations
    for = 30                          # seconds for which the condition must hold; default: 0
    to = ["log", "https://ops.example/hook"]

The kinds and their parameters are in `kinds`. An error names the rule and never repeats an address, which may hold a secret.
"""

import difflib
import urllib.parse
from collections.abc import Mapping

import msgspec

from constraint_crdt.alerts.kinds import KINDS, LOG, AlertRule
from constraint_crdt.crdt.limits import DURATION_MAX
from constraint_crdt.errors import ConstraintCrdtError

__all__ = ["AlertRule", "check_rules", "read_rules", "shown_place"]

MOST_RULES = 100
MOST_PLACES = 8
MOST_TEXT = 256
"""Characters of a name or a pattern."""


def read_rules(tables: object) -> tuple[AlertRule, ...]:
    """The rules of a settings file. Raises `ConstraintCrdtError` naming the first wrong rule."""
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping | AlertRule) for table in tables):
        raise ConstraintCrdtError("write each alert under [[alert]], with double brackets")
    rules = tuple(table if isinstance(table, AlertRule) else _read(number, table) for number, table in enumerate(tables, 1))
    return check_rules(rules)


def check_rules(rules: tuple[AlertRule, ...]) -> tuple[AlertRule, ...]:
    """Return the rules. Raises `ConstraintCrdtError` for a wrong rule, or two of one name."""
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
        rule = msgspec.convert(table, AlertRule, strict=True)
    except msgspec.ValidationError as error:
        raise ConstraintCrdtError(f"{where}: {error}") from None
    if rule.kind not in KINDS:
        raise ConstraintCrdtError(f"{where}: {_unknown(rule.kind)}")
    return rule


def _unknown(kind: str) -> str:
    return f"Invalid enum value {kind!r} - at `$.kind`"


def _check(rule: AlertRule) -> None:
    problem = _misuse(rule) or _out_of_bounds(rule) or next(filter(None, map(_wrong_place, rule.to)), None)
    if problem is not None:
        raise ConstraintCrdtError(f"alert {rule.name!r}: {problem}")


def _misuse(rule: AlertRule) -> str | None:
    """Why the kind does not take these parameters; None if it does."""
    kind = KINDS.get(rule.kind)
    if kind is None:
        return _unknown(rule.kind)
    given = [key for key in ("constraint", "node", "half_life", "above", "above_share") if getattr(rule, key) is not None]
    extra = [key for key in given if key not in kind.parameters]
    if extra:
        return f"`{extra[0]}` means nothing to kind {kind.name}, which takes {', '.join(kind.parameters)}"
    return kind.misuse(rule)


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
    """Why a place cannot be notified; None if it can. The place is not repeated, because it may hold a secret."""
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
    """A place without the parts that may be secret: scheme, host and port only."""
    if place == LOG:
        return place
    parts = urllib.parse.urlsplit(place)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}/…"
