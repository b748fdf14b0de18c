"""MAVLink: samples of pymavlink, and a recorded stream over UDP and TCP with a break in the middle."""

import asyncio
import io
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from constraint_crdt.sources.formats import SourceError, Unknown
from constraint_crdt.sources.pushed import MavlinkReader, StreamParser, document_of, field_table
from tests.source.counterparts import finding, free_port, node_with, soon, source, values_of, why_unknown

SYS_STATUS = "fd1f0000000101010000000000000000000000000000f401ffffffff000000000000000000000000ff632c"
BATTERY_STATUS = "fd240000000101930000ffffffffffffffffff7f3c0f3c0f3c0f3c0fffffffffffffffffffffffffffff000000ff982b"


def parsed(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for message in StreamParser().parse(data):
        found |= document_of(message)
    return found


def written(*messages: Any) -> bytes:
    """A stream that pymavlink writes."""
    from pymavlink.dialects.v20 import ardupilotmega

    file = io.BytesIO()
    link = ardupilotmega.MAVLink(file, srcSystem=7, srcComponent=1)
    for name, fields in messages:
        link.send(getattr(ardupilotmega, f"MAVLink_{name}_message")(**fields))
    return file.getvalue()


SYSTEM: dict[str, Any] = {
    "onboard_control_sensors_present": 0, "onboard_control_sensors_enabled": 0, "onboard_control_sensors_health": 0, "load": 500,
    "voltage_battery": 65535, "current_battery": -1, "battery_remaining": -1, "drop_rate_comm": 0, "errors_comm": 0,
    "errors_count1": 0, "errors_count2": 0, "errors_count3": 0, "errors_count4": 0,
}  # fmt: skip
GPS: dict[str, Any] = {
    "time_usec": 0, "fix_type": 0, "lat": 0, "lon": 0, "alt": 0, "eph": 65535, "epv": 65535, "vel": 65535, "cog": 65535,
    "satellites_visible": 255,
}  # fmt: skip
FIX: dict[str, Any] = {"lat": 525_200_000, "vel": 250, "satellites_visible": 9, "yaw": 36000}


def unknown(found: dict[str, Any]) -> set[str]:
    return {key for key, value in found.items() if isinstance(value, Unknown)}


def test_the_system_status_without_a_battery() -> None:
    found = parsed(bytes.fromhex(SYS_STATUS))["SYS_STATUS"]
    assert found["load"] == pytest.approx(50.0)
    assert unknown(found) >= {"voltage_battery", "current_battery", "battery_remaining"}


def test_the_battery_status_of_four_cells() -> None:
    found = parsed(bytes.fromhex(BATTERY_STATUS))["BATTERY_STATUS"]
    assert found["voltage"] == pytest.approx(15.6), "not the 408.8 V of all fields"
    assert unknown(found) >= {
        "temperature", "current_consumed", "energy_consumed", "battery_remaining", "time_remaining", "current_battery",
    }  # fmt: skip


def battery(*cells: int, **fields: Any) -> bytes:
    return written(
        ("battery_status", {
            "id": 0, "battery_function": 0, "type": 0, "temperature": 2500, "voltages": [*cells, *[65535] * (10 - len(cells))],
            "current_battery": 150, "current_consumed": 10, "energy_consumed": 2, "battery_remaining": 80, **fields,
        })
    )  # fmt: skip


@pytest.mark.parametrize(("cells", "voltage"), [((15600,), 15.6), ((65534, 1466), 67.0), ((3900, 3900, 3900, 3900), 15.6)])
def test_the_voltage_of_a_pack(cells: tuple[int, ...], voltage: float) -> None:
    found = parsed(battery(*cells))["BATTERY_STATUS"]
    assert found["voltage"] == pytest.approx(voltage)
    assert (found["temperature"], found["current_battery"], found["energy_consumed"]) == (25.0, 1.5, 200.0)


def test_a_second_battery_has_its_number() -> None:
    assert parsed(battery(3900, id=2)).keys() == {"BATTERY_STATUS_2"}


def test_a_gps_without_a_fix_is_not_at_0_0() -> None:
    found = parsed(written(("gps_raw_int", GPS)))["GPS_RAW_INT"]
    assert unknown(found) >= {"lat", "lon", "vel", "cog", "eph", "satellites_visible", "yaw"}
    values = parsed(written(("gps_raw_int", GPS | {"fix_type": 3, **FIX})))["GPS_RAW_INT"]
    assert (values["lat"], values["vel"], values["satellites_visible"], values["yaw"]) == (52.52, 2.5, 9, 360.0)
    assert "time_usec" not in values


def test_an_invalid_signal_has_no_distance() -> None:
    fields = {
        "time_boot_ms": 2**32 - 1, "min_distance": 10, "max_distance": 400, "current_distance": 120, "type": 0, "id": 0,
        "orientation": 0, "covariance": 255,
    }  # fmt: skip
    found = parsed(written(("distance_sensor", fields)))["DISTANCE_SENSOR"]
    assert found["current_distance"] == pytest.approx(1.2)
    assert isinstance(found["covariance"], Unknown)
    invalid = parsed(written(("distance_sensor", fields | {"signal_quality": 1})))["DISTANCE_SENSOR"]
    assert isinstance(invalid["current_distance"], Unknown)
    radio = {"rssi": 255, "remrssi": 200, "txbuf": 90, "noise": 10, "remnoise": 255, "rxerrors": 0, "fixed": 0}
    assert unknown(parsed(written(("radio_status", radio)))["RADIO_STATUS"]) == {"rssi", "remnoise"}


def test_the_table_has_every_invalid_value_of_the_definitions() -> None:
    """257 fields of common.xml, in 23 spellings."""
    from pymavlink.dialects.v20 import ardupilotmega

    text = (Path(ardupilotmega.__file__).parent / "common.xml").read_text()
    assert len(re.findall(r' invalid="', text)) > 200
    unread = {
        spelling
        for message, fields in re.findall(r'<message id="\d+" name="(\w+)">(.*?)</message>', text, re.DOTALL)
        for spelling, name in re.findall(r'<field [^>]*?invalid="([^"]+)"[^>]*?name="(\w+)"', fields)
        + [(each[1], each[0]) for each in re.findall(r'<field [^>]*?name="(\w+)"[^>]*?invalid="([^"]+)"', fields)]
        if field_table()[message, name].invalid is None
    }
    assert unread == set()


def test_what_is_no_message_is_left_out() -> None:
    stream = written(("sys_status", SYSTEM))
    assert parsed(b"noise" + stream + stream[:9]).keys() == {"SYS_STATUS"}


@pytest.mark.parametrize("address", ["udp:h:1", "udpin:h", "tcp:h:x", "dev/ttyUSB0", "tcp:h:1:2"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(SourceError, match="is no address"):
        MavlinkReader(source(kind="mavlink", address=address))


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        yield link


@pytest.mark.slow
async def test_a_stream_over_udp(sender: socket.socket) -> None:
    port = free_port()
    table = {
        "name": "drone", "kind": "mavlink", "address": f"udpin:127.0.0.1:{port}", "every": 0.05,
        "fields": {"load": "SYS_STATUS.load", "battery": "SYS_STATUS.battery_remaining", "lat_{1}": "GPS_RAW_INT.lat"},
    }  # fmt: skip

    def send(**fields: Any) -> bool:
        sender.sendto(written(("sys_status", SYSTEM | fields), ("gps_raw_int", GPS)), ("127.0.0.1", port))
        return True

    async with node_with(table) as node:
        await node.add_constraint("charged", when="battery > 15.0")
        await soon(lambda: send() and values_of(node).get("load") == pytest.approx(50.0))
        expected = "battery is unknown to the source drone: SYS_STATUS.battery_remaining is -1, which means that it is not known"
        await soon(lambda: why_unknown(node, "charged") == expected)
        await soon(lambda: send(battery_remaining=80) and values_of(node).get("battery") == 80.0)
        assert "lat_7" not in values_of(node)


@pytest.mark.slow
async def test_a_link_over_tcp_that_breaks_is_opened_again() -> None:
    stream = written(("sys_status", SYSTEM | {"battery_remaining": 80}))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        address = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        async with node_with({"name": "drone", "kind": "mavlink", "address": address, "every": 0.05}) as node:
            for _ in range(2):
                link, _ = await asyncio.to_thread(server.accept)
                with link:
                    link.sendall(stream)
                    await soon(lambda: values_of(node).get("drone_7_SYS_STATUS_battery_remaining") == 80.0)
                    await soon(lambda: finding(node).level == "ok")
                await soon(lambda: "the other end closed the link" in finding(node).what)


@pytest.mark.slow
async def test_a_serial_device() -> None:
    """A pseudo-terminal stands for it."""
    near, far = os.openpty()
    try:
        table = {"name": "drone", "kind": "mavlink", "address": f"{os.ttyname(far)},115200", "every": 0.05, "prefix": ""}
        async with node_with(table) as node:
            await soon(lambda: finding(node).level == "ok")
            stream = written(("sys_status", SYSTEM | {"battery_remaining": 80}))
            await soon(lambda: os.write(near, stream) and values_of(node).get("v_7_SYS_STATUS_battery_remaining") == 80.0)
        async with node_with(table | {"address": f"{os.ttyname(far)},7"}) as node:
            await soon(lambda: "drone (the link cannot be opened: 7 is no baud rate)" in finding(node).what)
        async with node_with(table | {"address": "/dev/null"}) as node:
            await soon(lambda: "/dev/null is no serial device" in finding(node).what)
    finally:
        os.close(near)
        os.close(far)
