"""Actions: the reactions of a node when a constraint turns on it. The settings of an action, its turns, and its messages.

    [[action]]
    name = "stop"
    constraint = "thermal*"                     # a pattern with * and ?; default: all constraints
    turns = ["violated", "holds again"]         # the default; also "unknown"
    command = ["/usr/local/bin/stop", "--now"]  # or: webhook = ADDRESS or a destination; or: zenoh = "plant/actions";
                                                # or: mqtt = "mqtt://broker", topic = "plant/actions"

An action has a single way out: a command, a webhook, a key expression of Zenoh, or a topic of a broker of MQTT. Rules kept here:

- A turn is kept as facts. Its message is made for each attempt, as some receivers ask for times in relation to the attempt.
- The templates of messages are those of `TEMPLATES`, or a table `body` of the settings. Values stand in texts as `${name}`. A text
  that is a single `${name}` becomes the value itself, so numbers stay numbers, and a message is JSON for any value.
- A signature is that of Standard Webhooks: HMAC-SHA256 over id, time and body.
- An error names the action, and never repeats an address, because an address may hold a secret.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from constraint_crdt.alerts import MOST_TEXT, NAME_OF_PLACE, shown_place, wrong_address
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import nearest
from constraint_crdt.operations.operation import UsageError, parse_duration, show_values

VIOLATED: Final = "violated"
HOLDS_AGAIN: Final = "holds again"
UNKNOWN: Final = "unknown"
ENDED: Final = "ended"
"""The constraint was removed or disabled, or binds this node no longer: told to actions that are told when it holds again."""

TURNS: Final = (VIOLATED, HOLDS_AGAIN, UNKNOWN)

MOST_ACTIONS: Final = 50
"""Actions of a node."""

MOST_WORDS: Final = 64
MOST_COMMAND: Final = 8 * 1024
"""Words of a command, and characters of all of them."""

MOST_BODY: Final = 8 * 1024
"""Bytes of a `body`, as JSON."""

COMMAND_ATTEMPTS: Final = 3
ATTEMPTS: Final = 100
"""The default of `attempts`, for a command, and for the other ways. A hundred take some 95 minutes."""

RESENT: Final = 60.0
"""Seconds: the default of `repeat` for Alertmanager, which forgets alerts that are not sent again."""

KEPT: Final = 4
"""Alertmanager takes an alert as over after this many times `repeat` without a message."""

ENVIRONMENT: Final = "ACTION_"
"""How the names of the variables of a command begin."""

WAYS: Final = ("command", "webhook", "zenoh", "mqtt")
"""The ways out: the names of their fields."""

Way = Literal["command", "webhook", "zenoh", "mqtt"]

IN_PLACES: Final = ("constraint", "node", "fleet", "turn", "action", "severity")
"""The values that may stand in a key of Zenoh and in a topic."""

BROKERS: Final = ("mqtt", "mqtts")
"""The schemes of the address of a broker."""


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An `[[action]]` of the settings."""

    name: str
    constraint: str = "*"
    """A pattern of constraint ids, with * and ?."""
    turns: tuple[str, ...] = (VIOLATED, HOLDS_AGAIN)
    """Those of `TURNS` to act on."""
    unknown_for: float = 10.0
    """Seconds for which a constraint must be unknown to be told as that. A sensor often needs a moment after a start."""
    command: tuple[str, ...] = ()
    """A program and its arguments. No shell is between."""
    timeout: float = 30.0
    """Seconds after which a command, with all processes of its group, is ended."""
    webhook: str = ""
    """An address, or the name of a destination."""
    zenoh: str = ""
    """A key expression without wildcards. `${constraint}`, `${node}` and `${turn}` in it are replaced."""
    mqtt: str = ""
    """The address of a broker, `mqtt://HOST:PORT` or `mqtts://HOST:PORT`."""
    topic: str = ""
    """The topic at the broker. The same is replaced in it as in `zenoh`."""
    retain: bool = False
    """The broker keeps the last message of the topic for those who subscribe later."""
    username: str = ""
    password_file: str = ""
    ca: str = ""
    """A file with the certificates of authorities to trust. Those of the system if left out."""
    certificate: str = ""
    key: str = ""
    """The files by which the node proves itself to the broker."""
    template: str = "json"
    """A key of `TEMPLATES`: the form of the message."""
    body: dict[str, object] | None = None
    """A form of one's own, in place of a template."""
    secret_file: str = ""
    """A file with the secret by which webhooks are signed, not readable for other users of the machine."""
    attempts: int | None = None
    """Attempts after which a turn is dropped. None: 3 for a command, 100 for others."""
    repeat: float | None = None
    """Seconds after which a turn that is still so is told again. None: never; 60 with the template for Alertmanager."""

    @property
    def way(self) -> Way:
        """The way out."""
        return "command" if self.command else "webhook" if self.webhook else "zenoh" if self.zenoh else "mqtt"

    @property
    def to(self) -> str:
        """The program, the key expression, the broker and the topic, or the address without its secret parts."""
        if self.mqtt:
            return f"{self.mqtt.rstrip('/')} {self.topic}"
        return self.command[0] if self.command else shown_place(self.webhook) if self.webhook else self.zenoh

    @property
    def tries(self) -> int:
        """Attempts after which a turn is dropped."""
        return self.attempts or (COMMAND_ATTEMPTS if self.command else ATTEMPTS)

    @property
    def repeats(self) -> float | None:
        """Seconds between two messages about a turn that is still so; None: there is a single message."""
        return RESENT if self.repeat is None and self.template == "alertmanager" and self.body is None else self.repeat


class Turn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A turn of a constraint on this node, for an action. Times in ns since the epoch."""

    action: str
    constraint: str
    turn: str
    at: int
    since: int = 0
    """The begin of the state; of a violation the first violated evaluation."""
    begun: int = 0
    """Of a turn that ends a violation: the begin of the violation."""
    severity: str = ""
    values: dict[str, str] = {}
    """The values read at the turn, as JSON texts, shortened to 256 bytes together."""
    margin: float | None = None
    share: float | None = None
    variable: str = ""
    reason: str = ""
    repeated: bool = False
    tries: int = 0
    """Attempts that were begun."""

    def facts(self, node: str, fleet: str) -> dict[str, object]:
        """The values for templates and commands, by name."""
        return {
            "id": self.id(node),
            "action": self.action,
            "turn": self.turn,
            "constraint": self.constraint,
            "severity": self.severity,
            "node": node,
            "fleet": fleet,
            "time": moment(self.at),
            "since": moment(self.since or self.at),
            "values": {name: _value(text) for name, text in self.values.items()},
            "margin": self.margin,
            "variable": self.variable,
            "reason": self.reason,
            "detail": self.detail,
            "repeated": self.repeated,
        }

    @property
    def detail(self) -> str:
        """The values and the margin, or the reason."""
        return show_values(self.values, self.margin, self.share, self.variable or None) or self.reason

    def id(self, node: str) -> str:
        """The same for each attempt at the same turn, so that a receiver can tell a repeated delivery."""
        parts = (node, self.action, self.constraint, self.turn, str(self.at))
        data = [part.encode(errors="surrogatepass") for part in parts]
        return blake2b(b"".join(len(each).to_bytes(4) + each for each in data), digest_size=12, person=b"action").hexdigest()


def moment(at: int) -> str:
    """A time in ns since the epoch as text of RFC 3339, in UTC, to the microsecond."""
    seconds, rest = divmod(at, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


def _value(text: str) -> object:
    """A value of its JSON text; the text itself where it was shortened."""
    try:
        return json.loads(text)
    except ValueError:
        return text


# --- messages ---------------------------------------------------------------------------------------------------------------


def _alertmanager(action: Action, facts: Mapping[str, object], turn: Turn, now: int) -> object:
    """Alertmanager, `POST /api/v2/alerts`. Alerts of the same labels are one alert."""
    labels = {key: facts[key] for key in ("node", "fleet", "severity", "action") if facts[key]}
    firing = turn.turn in (VIOLATED, UNKNOWN)
    ends = now + round(KEPT * (action.repeats or RESENT) * SECOND) if firing else turn.at
    return [
        {
            "labels": {"alertname": facts["constraint"], **labels},
            "annotations": {"summary": _sentence(facts), "description": str(facts["detail"]), "turn": str(facts["turn"])},
            "startsAt": moment(min(turn.begun or turn.since or turn.at, turn.at)),
            "endsAt": moment(ends),
        }
    ]


def _slack(_: Action, facts: Mapping[str, object], turn: Turn, __: int) -> object:
    """An incoming webhook of Slack, and of those who took its form."""
    mark = {VIOLATED: ":red_circle:", UNKNOWN: ":white_circle:"}.get(turn.turn, ":large_green_circle:")
    detail = f": {facts['detail']}" if facts["detail"] else ""
    text = f"{_sentence(facts)}{detail}"
    for character, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, written)
    return {"text": f"{mark} {text}"}


def _cloudevents(_: Action, facts: Mapping[str, object], turn: Turn, __: int) -> object:
    """A CloudEvent 1.0 in structured mode."""
    from urllib.parse import quote

    return {
        "specversion": "1.0",
        "id": facts["id"],
        "source": f"/{quote(str(facts['fleet']), safe='')}/{quote(str(facts['node']), safe='')}",
        "type": f"constraint-crdt.constraint.{turn.turn.replace(' ', '-')}",
        "subject": facts["constraint"],
        "time": facts["time"],
        "datacontenttype": "application/json",
        "data": _plain(facts),
    }


def _plain(facts: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in facts.items() if value not in (None, "", False)}


def _sentence(facts: Mapping[str, object]) -> str:
    said = {HOLDS_AGAIN: "holds again", ENDED: "is over, as the constraint no longer binds it"}.get(
        str(facts["turn"]), f"is {facts['turn']}"
    )
    return f"{facts['constraint']} {said} on {facts['node']}"


Template = Callable[[Action, Mapping[str, object], Turn, int], object]

TEMPLATES: Final[Mapping[str, Template]] = {
    "json": lambda _, facts, __, ___: _plain(facts),
    "alertmanager": _alertmanager,
    "slack": _slack,
    "cloudevents": _cloudevents,
}
"""The ready forms of a message."""

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
NAMES: Final = tuple(Turn(action="", constraint="", turn="", at=0).facts("", ""))
"""The names of the values of a turn."""


def filled_place(form: str, facts: Mapping[str, object]) -> str:
    """A key of Zenoh or a topic with its placeholders replaced. In values, characters with a meaning there are percent-encoded."""
    from urllib.parse import quote

    return str(filled(form, {name: quote(str(value), safe="") for name, value in facts.items()}))


def message_of(action: Action, turn: Turn, *, node: str, fleet: str, now: int) -> tuple[bytes, str]:
    """The message about a turn, and its media type. `now`: ns since the epoch."""
    facts = turn.facts(node, fleet)
    if action.body is not None:
        content: object = filled(action.body, facts)
    else:
        content = TEMPLATES[action.template](action, facts, turn, now)
    kind = "application/cloudevents+json" if action.template == "cloudevents" and action.body is None else "application/json"
    return json.dumps(content, separators=(",", ":")).encode(), kind


def filled(form: object, facts: Mapping[str, object]) -> object:
    """A form with its placeholders replaced."""
    if isinstance(form, Mapping):
        return {str(filled(key, facts)): filled(value, facts) for key, value in form.items()}
    if isinstance(form, list | tuple):
        return [filled(each, facts) for each in form]
    if not isinstance(form, str):
        return form
    alone = _PLACEHOLDER.fullmatch(form)
    return facts[alone[1]] if alone is not None else _PLACEHOLDER.sub(lambda found: _text(facts[found[1]]), form)


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def environment_of(turn: Turn, node: str, fleet: str) -> dict[str, str]:
    """The variables of a command: the facts, the values as JSON, and each value by its name in capitals."""
    facts = turn.facts(node, fleet)
    found = {f"{ENVIRONMENT}{name.upper()}": _text(value) for name, value in facts.items()}
    values = facts["values"]
    for name, value in values.items() if isinstance(values, dict) else ():
        found[f"{ENVIRONMENT}VALUE_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"] = _text(value)
    return {name: value.replace("\0", "") for name, value in found.items()}


def signed(secret: bytes, id_: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver proves the sender, as in Standard Webhooks 1.0. `seconds`: since the epoch."""
    import hmac  # for actions with a secret only

    proof = hmac.digest(secret, f"{id_}.{seconds}.".encode() + body, "sha256")
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(proof).decode()}",
    }


def read_secret(text: str) -> bytes:
    """The secret of a file: `whsec_` and base64, as in Standard Webhooks, or any text of 16 characters or more.

    Raises `ConstraintCrdtError`, without the text.
    """
    text = text.strip()
    if text.startswith("whsec_"):
        try:
            found = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ConstraintCrdtError("what follows whsec_ in the file of the secret is not base64") from None
    else:
        found = text.encode()
    if not LEAST_SECRET <= len(found) <= MOST_SECRET:
        raise ConstraintCrdtError(f"a secret has {LEAST_SECRET} to {MOST_SECRET} bytes")
    return found


LEAST_SECRET: Final = 16
MOST_SECRET: Final = 1024

# --- settings ---------------------------------------------------------------------------------------------------------------


def read_actions(tables: object, destinations: Iterable[str] | None = None) -> tuple[Action, ...]:
    """The actions of a settings file. `destinations`: the names of the node's; None: any name.

    Raises `ConstraintCrdtError` naming the first wrong action.
    """
    if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping | Action) for table in tables):
        raise ConstraintCrdtError("write each action under [[action]], with double brackets")
    if len(tables) > MOST_ACTIONS:
        raise ConstraintCrdtError(f"at most {MOST_ACTIONS} actions, not {len(tables)}")
    actions = tuple(table if isinstance(table, Action) else _read(number, table) for number, table in enumerate(tables, 1))
    known = None if destinations is None else set(destinations)
    names = [action.name for action in actions]
    for number, action in enumerate(actions, 1):
        problem = _wrong(action)
        if problem is None and names.count(action.name) > 1:
            problem = "another action has this name: give each a name of its own"
        named = action.webhook if "://" not in action.webhook else ""
        if problem is None and known is not None and named and named not in known:
            there = ", ".join(sorted(known)) or "none"
            problem = f"there is no destination {named!r} ({there} under [destinations]): name it there, or give an address"
        if problem is not None:
            raise ConstraintCrdtError(f"action {number} ({action.name}): {problem}")
    return actions


_FIELDS: Final = {field.name: field for field in msgspec.structs.fields(Action)}
_LENGTHS: Final = ("timeout", "repeat", "unknown_for")
_WANTED: Final[Mapping[str, str]] = {
    "turns": 'a list of texts, as in ["violated", "holds again"]',
    "command": 'a list of texts, the program first, as in ["/usr/local/bin/stop", "--now"]',
    "attempts": "a whole number",
    "body": 'a table, as in { text = "${constraint} is ${turn}" }',
    "retain": "true or false",
    **dict.fromkeys(_LENGTHS, "a number of seconds, or a text such as 30s"),
}


def _read(number: int, table: Mapping[str, object]) -> Action:
    where = f"action {number}" + (f" ({table['name']})" if isinstance(table.get("name"), str) else "")
    for key in table:
        if key not in _FIELDS:
            raise ConstraintCrdtError(f"{where}: there is no field `{key}`: {nearest(str(key), _FIELDS)}")
    if "name" not in table:
        raise ConstraintCrdtError(f"{where}: `name` is missing")
    try:
        lengths = {key: parse_duration(value) for key in _LENGTHS if isinstance(value := table.get(key), str)}
    except UsageError as error:
        raise ConstraintCrdtError(f"{where}: {error}") from None
    given = {**table, **lengths}
    for key, value in given.items():
        try:
            msgspec.convert(value, _FIELDS[key].type, strict=True)
        except msgspec.ValidationError:
            raise ConstraintCrdtError(f"{where}: `{key}` must be {_WANTED.get(key, 'a text')}") from None
    return msgspec.convert(given, Action, strict=True)


def _wrong(action: Action) -> str | None:
    return _wrong_fields(action) or _wrong_way(action) or _wrong_message(action)


def _wrong_fields(action: Action) -> str | None:
    if NAME_OF_PLACE.fullmatch(action.name) is None:
        return "`name` has 1 to 64 letters, digits, _, . and -"
    if not (0 < len(action.constraint) <= MOST_TEXT and action.constraint.isprintable()):
        return f"`constraint` must have 1 to {MOST_TEXT} printable characters"
    for turn in action.turns:
        if turn not in TURNS:
            return f"`turns` has no {turn!r}: {nearest(turn, TURNS)}"
    if not action.turns:
        return f"`turns` is empty: give one or more of {', '.join(TURNS)}"
    for key, value, lowest, highest in (
        ("timeout", action.timeout, 0.1, 3600.0),
        ("unknown_for", action.unknown_for, 0.0, 86_400.0),
        ("repeat", action.repeat, 10.0, 86_400.0),
        ("attempts", action.attempts, 1, 1000),
    ):
        if value is not None and not lowest <= value <= highest:
            return f"`{key}` must be from {lowest:g} to {highest:g}, not {value!r}"
    return None


def _wrong_way(action: Action) -> str | None:
    given = [key for key in WAYS if getattr(action, key)]
    if len(given) != 1:
        return "give one of `command`, `webhook`, `zenoh` and `mqtt`" + (f", not {' and '.join(given)}" if given else "")
    if len(action.command) > MOST_WORDS or sum(map(len, action.command)) > MOST_COMMAND:
        return f"`command` has at most {MOST_WORDS} words and {MOST_COMMAND} characters"
    if action.command and (not action.command[0] or any("\0" in word for word in action.command)):
        return "`command` needs the program as its first word, and no word has a NUL"
    if "://" in action.webhook and (problem := wrong_address(action.webhook)) is not None:
        return f"`webhook`: {problem}"
    if action.webhook and "://" not in action.webhook and NAME_OF_PLACE.fullmatch(action.webhook) is None:
        return "`webhook` is an address as https://HOST/PATH, or the name of a destination"
    key = _PLACEHOLDER.sub("x", action.zenoh)
    if len(action.zenoh) > MOST_TEXT or any(each in key for each in "*$?#") or not all([*key.split("/"), *key] if key else ()):
        return "`zenoh` is a key such as plant/actions/${constraint}: no *, $, ? or #, and no empty part between slashes"
    for field in ("zenoh", "topic"):
        for name in _PLACEHOLDER.findall(getattr(action, field)):
            if name not in IN_PLACES:
                return f"`{field}` cannot have ${{{name}}}: it takes {', '.join(IN_PLACES[:-1])} and {IN_PLACES[-1]}"
    if action.timeout != _FIELDS["timeout"].default and not action.command:
        return "`timeout` is for a `command`"
    if action.secret_file and not action.webhook:
        return "`secret_file` signs webhooks: this action has none"
    return _wrong_broker(action)


_OF_BROKERS: Final = ("topic", "retain", "username", "password_file", "ca", "certificate", "key")


def _wrong_broker(action: Action) -> str | None:
    if not action.mqtt:
        misplaced = next((key for key in _OF_BROKERS if getattr(action, key)), None)
        return None if misplaced is None else f"`{misplaced}` is for `mqtt`, which this action does not have"
    if (problem := wrong_address(action.mqtt, BROKERS, ":PORT", "use `username` and `password_file`")) is not None:
        return f"`mqtt`: {problem}"
    if action.mqtt.partition("://")[2].rstrip("/").count("/"):
        return "`mqtt` is the address of the broker alone: the topic is given as `topic`"
    topic = _PLACEHOLDER.sub("x", action.topic)
    if not topic or len(action.topic) > MOST_TEXT or any(each in topic for each in "+#$") or not topic.isprintable():
        return "`topic` is a topic such as plant/actions/${constraint}, without +, # and $"
    if not action.mqtt.startswith("mqtts:") and (action.ca or action.certificate):
        return "`ca` and `certificate` are for TLS: write mqtts://"
    if bool(action.certificate) is not bool(action.key):
        return "`certificate` and `key` belong together: give both"
    return "`password_file` needs a `username`" if action.password_file and not action.username else None


def _wrong_message(action: Action) -> str | None:
    if action.template not in TEMPLATES:
        return f"there is no template {action.template!r}: {nearest(action.template, TEMPLATES)}"
    own = action.body is not None
    if action.command and (own or action.template != "json"):
        return "a command has its values in the environment: leave out `template` and `body`"
    if own and action.template != "json":
        return "give `template` or `body`, not both"
    try:
        text = json.dumps(action.body)
    except TypeError:
        return "`body` takes texts, numbers, true, false, lists and tables, as JSON has them"
    if len(text) > MOST_BODY:
        return f"`body` has at most {MOST_BODY} bytes"
    for name in _PLACEHOLDER.findall(text) if own else ():
        if name not in NAMES:
            return f"`body` has ${{{name}}}, which no turn has: {nearest(name, NAMES)}"
    return None
