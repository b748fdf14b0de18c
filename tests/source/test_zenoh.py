"""Zenoh: what other programs publish, on the node's session and on one of the source's own, over a restart of the publisher."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import zenoh

from constraint_crdt import Node
from constraint_crdt.sources import read_sources
from constraint_crdt.sources.pushed import matched_chunks
from tests.runtime.fleet import QUICK
from tests.source.counterparts import finding, free_port, node_with, soon, values_of, why_unknown
from tests.source.test_formats import cdr

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("pattern", "key", "levels"),
    [
        ("a/b", "a/b", ()),
        ("a/*/c", "a/b/c", ("b",)),
        ("a/**", "a/b/c", ("b", "c")),
        ("**/c", "a/b/c", ("a", "b")),
        ("a/**/c", "a/c", ()),
        ("a/b$*", "a/bc", ("bc",)),
        ("a/*", "a/b/c", None),
        ("a/b/c", "a/b", None),
    ],
)
def test_the_texts_of_wildcards(pattern: str, key: str, levels: tuple[str, ...] | None) -> None:
    assert matched_chunks(pattern, key) == levels


@contextlib.contextmanager
def publisher(endpoint: str, *, listens: bool = False, mode: str = "peer") -> Iterator[Callable[[str, bytes], None]]:
    """Another program in the network, linked by this endpoint."""
    config = {
        "mode": mode,
        "listen": {"endpoints": [endpoint] if listens else []},
        "connect": {"endpoints": [] if listens else [endpoint]},
        "scouting": {"multicast": {"enabled": False}},
    }
    session = zenoh.open(zenoh.Config.from_json5(json.dumps(config)))
    try:
        yield session.put
    finally:
        session.close()  # type: ignore[no-untyped-call]  # the stub leaves the return type out


def node_on_zenoh(*tables: dict[str, Any]) -> Node:
    return Node(name="a", settings=msgspec.structs.replace(QUICK, source=read_sources(tables)))


async def publishing(put: Callable[[str, bytes], None], key: str, content: bytes, condition: Callable[[], object]) -> None:
    """Publish again and again until a condition holds: what is sent before a subscription is known is lost."""

    def repeated() -> object:
        put(key, content)
        return condition()

    await soon(repeated)


@pytest.mark.long
async def test_values_on_the_session_of_the_node_over_a_restart_of_the_publisher() -> None:
    tables: list[dict[str, Any]] = [
        {"name": "json", "kind": "zenoh", "keys": ["plant/*/state"], "fields": {"speed_{1}": "v"}, "max_age": 1},
        {"name": "pack", "kind": "zenoh", "keys": ["plant/pack"], "format": "msgpack"},
        {"name": "plain", "kind": "zenoh", "keys": ["plant/number"], "format": "number", "fields": {"plain": "value"}},
        {
            "name": "ros", "kind": "zenoh", "keys": ["0/battery_state/**"], "format": "ros2",
            "type": "sensor_msgs/msg/BatteryState", "fields": {"charge": "percent", "volts": "voltage"},
        },
    ]  # fmt: skip
    async with node_on_zenoh(*({"every": 0.05} | table for table in tables)) as node:
        await node.add_constraint("slow", when="speed_r1 < 2.0")
        [endpoint, *_] = node.status().endpoints
        with publisher(endpoint) as put:
            await publishing(put, "plant/r1/state", b'{"v": 1.5}', lambda: values_of(node).get("speed_r1") == 1.5)
            await publishing(put, "plant/pack", b"\x81\xa1x\x05", lambda: values_of(node).get("pack_x") == 5.0)
            await publishing(put, "plant/number", b"7.5 m", lambda: values_of(node).get("plain") == 7.5)
            battery = cdr("sensor_msgs/msg/BatteryState", present=True, percentage=0.5, voltage=12.5)
            key = "0/battery_state/sensor_msgs::msg::dds_::BatteryState_/RIHS01_0"
            await publishing(put, key, battery, lambda: values_of(node).get("charge") == 50.0)
            unfilled = cdr("sensor_msgs/msg/BatteryState")
            await publishing(put, key, unfilled, lambda: "volts" not in values_of(node))
            await publishing(put, "plant/pack", b"\xc1", lambda: node._runtime.sources[1].faults)
        await soon(lambda: "is not told: the source json is down (nothing came for" in str(why_unknown(node, "slow")))
        assert "json (nothing came for" in finding(node).what
        with publisher(endpoint) as put:
            await publishing(put, "plant/r1/state", b'{"v": 1.0}', lambda: values_of(node).get("speed_r1") == 1.0)
        await soon(lambda: "json" not in finding(node).what or finding(node).level == "ok")


async def test_the_subscription_goes_on_in_a_new_session_of_the_node() -> None:
    table = {"name": "s", "kind": "zenoh", "keys": ["k"], "format": "number", "every": 0.05, "fields": {"x": "value"}}
    async with node_on_zenoh(table) as node:
        for value in (1.0, 2.0):
            with publisher(node.status().endpoints[0]) as put:
                await publishing(put, "k", f"{value}".encode(), lambda value=value: values_of(node) == {"x": value})  # type: ignore[misc]
            await node._runtime.transport.reopen()


@pytest.mark.long
async def test_a_node_at_the_router_of_robots() -> None:
    """As with `rmw_zenoh`: the robot's programs and the node connect to a router. It is started again in the middle."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    table = {
        "name": "battery", "kind": "zenoh", "keys": ["0/battery_state/**"], "format": "ros2", "every": 0.05,
        "type": "sensor_msgs/msg/BatteryState", "fields": {"battery_percent": "percent"},
    }  # fmt: skip
    key = "0/battery_state/sensor_msgs::msg::dds_::BatteryState_/RIHS01_0"
    settings = msgspec.structs.replace(QUICK, source=read_sources([table]))
    with publisher(endpoint, listens=True, mode="router"):
        node = Node(name="a", settings=settings, connect=[endpoint])
        await node.start()
        with publisher(endpoint, mode="client") as put:
            message = cdr("sensor_msgs/msg/BatteryState", present=True, percentage=0.5)
            await publishing(put, key, message, lambda: values_of(node) == {"battery_percent": 50.0})
    try:
        with publisher(endpoint, listens=True, mode="router"), publisher(endpoint, mode="client") as put:
            message = cdr("sensor_msgs/msg/BatteryState", present=True, percentage=0.25)
            await publishing(put, key, message, lambda: values_of(node) == {"battery_percent": 25.0})
    finally:
        await node.stop()


async def test_a_session_of_its_own() -> None:
    """A node with an identity, and one without Zenoh, reads robots through a session beside its own."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    table = {"name": "s", "kind": "zenoh", "keys": ["k"], "format": "number", "every": 0.05, "fields": {"x": "value"}}
    async with node_with(table | {"connect": [endpoint]}) as node:
        for value in (1.0, 2.0):
            with publisher(endpoint, listens=True) as put:
                await publishing(put, "k", f"{value}".encode(), lambda value=value: values_of(node) == {"x": value})  # type: ignore[misc]
    async with node_with(table) as node:
        await soon(lambda: "this node has no session of Zenoh: give the source `connect`" in finding(node).what)
