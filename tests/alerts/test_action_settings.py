"""Actions in the settings, and their messages: templates, forms of one's own, signatures, variables of commands."""

import base64
import hashlib
import hmac
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.alerts.actions import (
    ENDED,
    HOLDS_AGAIN,
    TURNS,
    UNKNOWN,
    VIOLATED,
    Action,
    Turn,
    environment_of,
    filled,
    message_of,
    moment,
    read_actions,
    read_secret,
    signed,
)
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.runtime.settings import NodeSettings, SettingsError, load_settings

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000 * SECOND
TURN = Turn(
    action="tell", constraint="max_speed", turn=VIOLATED, at=NOW, since=NOW - SECOND, begun=NOW - SECOND, severity="critical",
    values={"speed_mps": "9.0", "name": '"a<b"'}, margin=-7.5, share=-5.0, variable="speed_mps",
)  # fmt: skip


def content(action: Action, turn: Turn = TURN) -> Any:
    return json.loads(message_of(action, turn, node="forge", fleet="plant", now=NOW + SECOND)[0])


def test_the_examples_of_the_page_are_actions() -> None:
    text = (ROOT / "docs" / "how-to" / "actions.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    for block in blocks:
        tables = tomllib.loads(block)
        assert read_actions(tables["action"], tables.get("destinations", {}))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("comand = ['x']", "action 1 (a): there is no field `comand`: `command` may be meant"),
        ("command = 'x'", "action 1 (a): `command` must be a list of texts, the program first, as in"),
        ("", "action 1 (a): give one of `command`, `webhook`, `zenoh` and `mqtt`"),
        (
            "command = ['x']\nzenoh = 'a'",
            "action 1 (a): give one of `command`, `webhook`, `zenoh` and `mqtt`, not command and",
        ),
        ("command = ['x']\nturns = ['violate']", "action 1 (a): `turns` has no 'violate': `violated` may be meant"),
        ("command = ['x']\nturns = []", "action 1 (a): `turns` is empty: give one or more of violated, holds again, unknown"),
        ("command = ['x']\ntimeout = 'soon'", "action 1 (a): 'soon' is not a length of time"),
        ("command = ['x']\ntimeout = 0", "action 1 (a): `timeout` must be from 0.1 to 3600, not 0.0"),
        ("command = ['']", "action 1 (a): `command` needs the program as its first word"),
        ("command = ['x']\ntemplate = 'slack'", "action 1 (a): a command has its values in the environment"),
        ("command = ['x']\nsecret_file = 'f'", "action 1 (a): `secret_file` signs webhooks: this action has none"),
        ("webhook = 'ops'", "action 1 (a): there is no destination 'ops' (none under [destinations])"),
        ("webhook = 'ftp://h/T0KEN'", "action 1 (a): `webhook`: an address is written as http://HOST/PATH"),
        ("webhook = 'http://u:T0KEN@h/'", "action 1 (a): `webhook`: an address with a password"),
        ("webhook = 'http://h/'\ntemplate = 'slak'", "action 1 (a): there is no template 'slak': `slack` may be meant"),
        (
            "webhook = 'http://h/'\nbody = { x = '${constrain}' }",
            "action 1 (a): `body` has ${constrain}, which no turn has: `constraint`",
        ),
        ("webhook = 'http://h/'\nbody = { x = 2026-01-01 }", "action 1 (a): `body` takes texts, numbers"),
        ("webhook = 'http://h/'\nbody = {}\ntemplate = 'slack'", "action 1 (a): give `template` or `body`, not both"),
        ("webhook = 'http://h/'\ntimeout = 3", "action 1 (a): `timeout` is for a `command`"),
        ("zenoh = 'a//b'", "action 1 (a): `zenoh` is a key such as plant/actions/${constraint}"),
        ("zenoh = 'a/**'", "action 1 (a): `zenoh` is a key such as"),
        ("zenoh = 'a/${margin}'", "action 1 (a): `zenoh` cannot have ${margin}"),
        (
            "mqtt = 'broker:1883'\ntopic = 'a'",
            "action 1 (a): `mqtt`: an address is written as mqtt://HOST:PORT or mqtts://HOST:PORT",
        ),
        ("mqtt = 'mqtt://u:T0KEN@h'\ntopic = 'a'", "action 1 (a): `mqtt`: an address with a password in front of its host is not"),
        ("mqtt = 'mqtt://h/a'", "action 1 (a): `mqtt` is the address of the broker alone: the topic is given as `topic`"),
        ("mqtt = 'mqtt://h'", "action 1 (a): `topic` is a topic such as plant/actions/${constraint}, without +, # and $"),
        ("mqtt = 'mqtt://h'\ntopic = 'a/#'", "action 1 (a): `topic` is a topic such as"),
        (
            "mqtt = 'mqtt://h'\ntopic = 'a/${values}'",
            "action 1 (a): `topic` cannot have ${values}: it takes constraint, node,",
        ),
        ("mqtt = 'mqtt://h'\ntopic = 'a'\nca = 'f'", "action 1 (a): `ca` and `certificate` are for TLS: write mqtts://"),
        ("mqtt = 'mqtts://h'\ntopic = 'a'\nkey = 'f'", "action 1 (a): `certificate` and `key` belong together"),
        ("mqtt = 'mqtts://h'\ntopic = 'a'\npassword_file = 'f'", "action 1 (a): `password_file` needs a `username`"),
        ("mqtt = 'mqtt://h'\ntopic = 'a'\nretain = 1", "action 1 (a): `retain` must be true or false"),
        ("command = ['x']\ntopic = 'a'", "action 1 (a): `topic` is for `mqtt`, which this action does not have"),
        ("zenoh = 'a'\nattempts = 0", "action 1 (a): `attempts` must be from 1 to 1000, not 0"),
        ("zenoh = 'a'\nattempts = 1.5", "action 1 (a): `attempts` must be a whole number"),
        ("zenoh = 'a'\nconstraint = ''", "action 1 (a): `constraint` must have 1 to 256 printable characters"),
        ("zenoh = 'a'\n[[action]]\nname = 'a'\nzenoh = 'b'", "action 1 (a): another action has this name"),
        ("zenoh = 'a'\n[[action]]\nzenoh = 'b'", "action 2: `name` is missing"),
    ],
)
def test_a_mistake_is_told_with_its_place(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"[[action]]\nname = 'a'\n{line}\n")
    with pytest.raises(SettingsError) as raised:
        load_settings({}, {}, file)
    assert says in str(raised.value)
    assert "T0KEN" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_actions_are_given_in_the_file_only_and_are_bounded() -> None:
    with pytest.raises(SettingsError, match="actions are given in the settings file only"):
        load_settings({}, {"CONSTRAINT_CRDT_ACTION": "x"})
    with pytest.raises(SettingsError, match="at most 50 actions, not 51"):
        NodeSettings(name="a", action=tuple(Action(name=f"a{each}", zenoh="a") for each in range(51)))
    with pytest.raises(ConstraintCrdtError, match=r"write each action under \[\[action\]\]"):
        read_actions({"name": "a"})
    named = NodeSettings(name="a", action=(Action(name="a", webhook="ops"),), destinations={"ops": "https://h/x"})
    assert (named.action[0].to, named.action[0].tries) == ("ops", 100)
    assert Action(name="a", command=("x", "y")).tries == 3
    assert Action(name="a", webhook="https://h/T0KEN").to == "https://h/…"


def test_a_message_has_the_facts() -> None:
    found = content(Action(name="tell", webhook="http://h/"))
    assert found == {
        "id": TURN.id("forge"), "action": "tell", "turn": "violated", "constraint": "max_speed", "severity": "critical",
        "node": "forge", "fleet": "plant", "time": "2027-01-15T08:00:00.000000Z", "since": "2027-01-15T07:59:59.000000Z",
        "values": {"speed_mps": 9.0, "name": "a<b"}, "margin": -7.5, "variable": "speed_mps",
        "detail": 'speed_mps = 9.0, 7.5 above the limit (500 %); name = "a<b"',
    }  # fmt: skip


def test_alertmanager_gets_an_alert_that_ends_by_itself_and_its_end() -> None:
    action = Action(name="tell", webhook="http://h/api/v2/alerts", template="alertmanager")
    (firing,) = content(action)
    assert firing["labels"] == {
        "alertname": "max_speed", "node": "forge", "fleet": "plant", "severity": "critical", "action": "tell"
    }  # fmt: skip
    assert (firing["startsAt"], firing["endsAt"]) == (moment(NOW - SECOND), moment(NOW + 241 * SECOND))
    assert firing["annotations"]["summary"] == "max_speed is violated on forge"
    over = Turn(action="tell", constraint="max_speed", turn=HOLDS_AGAIN, at=NOW, since=NOW, begun=NOW - SECOND, severity="critical")
    (resolved,) = content(action, over)
    assert resolved["labels"] == firing["labels"]
    assert (resolved["startsAt"], resolved["endsAt"]) == (moment(NOW - SECOND), moment(NOW))


def test_slack_and_cloudevents() -> None:
    slack = content(Action(name="tell", webhook="http://h/", template="slack"))
    text = ':red_circle: max_speed is violated on forge: speed_mps = 9.0, 7.5 above the limit (500 %); name = "a&lt;b"'
    assert slack == {"text": text}
    event, kind = message_of(
        Action(name="tell", webhook="http://h/", template="cloudevents"), TURN, node="forge", fleet="a b", now=NOW
    )
    found = json.loads(event)
    assert kind == "application/cloudevents+json"
    assert {key: found[key] for key in ("specversion", "source", "type", "subject", "time", "datacontenttype")} == {
        "specversion": "1.0", "source": "/a%20b/forge", "type": "constraint-crdt.constraint.violated", "subject": "max_speed",
        "time": "2027-01-15T08:00:00.000000Z", "datacontenttype": "application/json",
    }  # fmt: skip
    assert (found["id"], found["data"]["margin"]) == (TURN.id("forge"), -7.5)


@pytest.mark.slow
@given(
    st.text(max_size=20), st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3), st.text(max_size=10),
    st.sampled_from([*TURNS, ENDED]), st.sampled_from(["json", "alertmanager", "slack", "cloudevents", "own"]),
)  # fmt: skip
def test_every_message_is_json_whatever_the_values_are(
    id_: str, values: dict[str, str], reason: str, turn: str, template: str
) -> None:
    told = Turn(action="a", constraint=id_, turn=turn, at=NOW, values=values, reason=reason)
    body: dict[str, object] | None = {"text": "${constraint}: ${reason} ${values} ${x", "v": "${values}", "n": [1, "${margin}"]}
    if template == "own":
        action = Action(name="a", webhook="http://h/", body=body)
    else:
        action = Action(name="a", webhook="http://h/", template=template)
    found = content(action, told)
    if template == "own":
        assert isinstance(found, dict)
        assert found["n"] == [1, None]
        assert found["text"].startswith(f"{id_}: {reason} ")
        assert set(found["v"]) == set(values)
    variables = environment_of(told, "forge", "plant")
    assert variables["ACTION_CONSTRAINT"] == id_.replace("\0", "")
    assert not any("\0" in name + value or "=" in name for name, value in variables.items())


def test_a_placeholder_alone_keeps_the_sort_of_its_value() -> None:
    assert filled({"a": "${margin}", "b": "at ${margin}", "c": 3, "${turn}": None}, {"margin": 1.5, "turn": "violated"}) == {
        "a": 1.5, "b": "at 1.5", "c": 3, "violated": None
    }  # fmt: skip


def test_a_command_has_the_facts_in_its_environment() -> None:
    found = environment_of(TURN, "forge", "plant")
    assert {name: found[f"ACTION_{name}"] for name in ("TURN", "CONSTRAINT", "SEVERITY", "MARGIN", "VARIABLE")} == {
        "TURN": "violated", "CONSTRAINT": "max_speed", "SEVERITY": "critical", "MARGIN": "-7.5", "VARIABLE": "speed_mps"
    }  # fmt: skip
    assert found["ACTION_VALUE_SPEED_MPS"] == "9.0"
    assert json.loads(found["ACTION_VALUES"]) == {"speed_mps": 9.0, "name": "a<b"}
    assert found["ACTION_SINCE"] == "2027-01-15T07:59:59.000000Z"
    unknown = Turn(action="a", constraint="c", turn=UNKNOWN, at=NOW, reason="no measurement of x")
    assert environment_of(unknown, "forge", "plant")["ACTION_DETAIL"] == "no measurement of x"


def test_a_signature_is_that_of_standard_webhooks() -> None:
    key = bytes(range(24))
    secret = read_secret(f"whsec_{base64.b64encode(key).decode()}\n")
    assert secret == key
    headers = signed(secret, "id", 1_800_000_000, b"{}")
    proof = base64.b64encode(hmac.new(key, b"id.1800000000.{}", hashlib.sha256).digest()).decode()
    assert headers == {"webhook-id": "id", "webhook-timestamp": "1800000000", "webhook-signature": f"v1,{proof}"}
    # The example of the specification.
    known = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signed(known, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)["webhook-signature"]
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    for wrong, says in (("short", "a secret has 16 to 1024 bytes"), ("whsec_!", "is not base64")):
        with pytest.raises(ConstraintCrdtError, match=says):
            read_secret(wrong)
