"""Formats: the samples that real libraries made, and what each says for *unknown*. A sentinel is never a number to compare."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.sources.formats import (
    Metric,
    OtlpDecoder,
    SourceError,
    SparkplugDecoder,
    Unknown,
    VdaDecoder,
    parse_json,
    parse_msgpack,
    parse_nagios,
    parse_nmea,
    parse_number,
    parse_pairs,
    parse_payload,
    parse_quantity,
    parse_text,
    ros_decoder,
    signed,
    vda_state,
)


def is_unknown(value: object) -> bool:
    return isinstance(value, Unknown)


# --- texts ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("-71 dBm", -71.0), ("42%", 42.0), ("3.3V", 3.3), ("1e3", 1000.0), ("21.5 °C", 21.5), ("auto", "auto"), ("1.2.3", "1.2.3")],
)
def test_a_text_with_a_unit(text: str, value: object) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "  ", "nan", "NaN", "N/A", "unavailable", "-", "U", "inf"])
def test_words_for_no_value(text: str) -> None:
    assert is_unknown(parse_quantity(text))


def test_plain_payloads() -> None:
    assert parse_number(b" 4.5 \n") == {"value": 4.5}
    assert parse_text(b" on \n") == {"value": "on"}
    assert parse_msgpack(b"\x81\xa1x\x05") == {"x": 5}
    assert parse_pairs(b'# a comment\nNAME="a b"\nbattery.charge: 80\nx=1 y=2\n') == {
        "NAME": "a b", "battery.charge": 80.0, "x": 1.0, "y": 2.0,
    }  # fmt: skip


@given(st.binary(max_size=60))
def test_no_payload_leads_to_another_error(payload: bytes) -> None:
    decoders: list[Any] = [
        parse_json, parse_msgpack, parse_number, parse_text, parse_pairs, parse_nmea, OtlpDecoder(), parse_payload,
        lambda each: parse_nagios(each, 0), lambda each: VdaDecoder()("a/state", each, ()),
        lambda each: SparkplugDecoder()("spBv1.0/g/NDATA/e", each),
    ]  # fmt: skip
    for decode in decoders:
        try:
            decode(payload)
        except SourceError:
            continue


# --- monitoring plugins ---------------------------------------------------------------------------------------------------------


def test_performance_data_in_seconds_and_bytes() -> None:
    text = b"DISK OK|/=46390MiB;50000;;0;108405 'a b'=5%;;;; rta=12.5ms gone=U;1;2 n=4c\nmore|k=1KB\n"
    document: Any = parse_nagios(text, 0)
    assert document["/"] == 46390 * 2**20
    assert (document["a b"], document["rta"], document["n"], document["k"]) == (5.0, 0.0125, 4.0, 1000.0)
    assert is_unknown(document["gone"])


# --- NMEA -----------------------------------------------------------------------------------------------------------------------


def nmea(body: str) -> bytes:
    checksum = 0
    for byte in body.encode():
        checksum ^= byte
    return f"${body}*{checksum:02X}\r\n".encode()


def test_a_receiver_without_a_fix_has_no_position() -> None:
    document: Any = parse_nmea(nmea("GPGGA,092750.000,,,,,0,00,,,M,,M,,"))
    assert all(is_unknown(document[key]) for key in ("latitude", "longitude", "altitude_m", "dilution"))
    assert document["satellites"] == 0.0
    kept: Any = parse_nmea(nmea("GPGGA,092750.000,5321.6802,N,00630.3372,W,0,8,99.99,61.7,M,55.2,M,,"))
    assert is_unknown(kept["latitude"]), "quality 0 may carry an old position"


def test_a_position_and_a_speed_in_metres_per_second() -> None:
    document: Any = parse_nmea(
        nmea("GPGGA,092750.000,5321.6802,N,00630.3372,W,1,8,1.03,61.7,M,55.2,M,,")
        + nmea("GPRMC,092750.000,A,5321.6802,N,00630.3372,W,3.9,31.66,280511,,,A")
    )
    assert document["latitude"] == pytest.approx(53.36133667)
    assert document["longitude"] == pytest.approx(-6.50562)
    assert document["speed_mps"] == pytest.approx(2.006333, rel=1e-5)
    resting: Any = parse_nmea(nmea("GPRMC,092750.000,A,5321.6802,N,00630.3372,W,0.0,,280511,,,A"))
    assert (resting["speed_mps"], is_unknown(resting["course_deg"])) == (0.0, True)
    lost: Any = parse_nmea(nmea("GPRMC,092750.000,V,,,,,3.9,,280511,,,N"))
    assert is_unknown(lost["speed_mps"])


def test_transducers_are_numbers_and_a_wrong_checksum_is_refused() -> None:
    document: Any = parse_nmea(nmea("YXXDR,C,71.5,F,TEMP,P,,B,BARO"))
    assert document["TEMP"] == 71.5
    assert is_unknown(document["BARO"])
    with pytest.raises(SourceError, match="checksum"):
        parse_nmea(b"$GPGGA,092750.000,,,,,0,00,,,M,,M,,*00")


# --- OpenTelemetry --------------------------------------------------------------------------------------------------------------


def otlp(shape: str, point: dict[str, object], **more: object) -> bytes:
    metric = {"name": "m", shape: {"dataPoints": [{"timeUnixNano": "1796000001000000000", **point}], **more}}
    return json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()


def test_a_point_without_a_recorded_value_is_unknown() -> None:
    points: list[dict[str, object]] = [{"flags": 1}, {}, {"asDouble": "NaN"}]
    for point in points:
        document: Any = OtlpDecoder()(otlp("gauge", point))
        assert is_unknown(document["m"]) or document["m"] != document["m"]  # NaN is unknown where values are taken


def test_integers_are_texts_and_lose_nothing() -> None:
    assert OtlpDecoder()(otlp("gauge", {"asInt": "9007199254740993"})) == {"m": 9007199254740993}


def test_deltas_are_added_and_totals_are_not() -> None:
    delta, total = OtlpDecoder(), OtlpDecoder()
    for expected in (5.0, 10.0, 15.0):
        assert delta(otlp("sum", {"asInt": "5"}, aggregationTemporality=1)) == {"m": expected}
        assert total(otlp("sum", {"asInt": "5"}, aggregationTemporality=2)) == {"m": 5}


# --- Sparkplug B ----------------------------------------------------------------------------------------------------------------

EIGHT_BITS = bytes.fromhex("0880d0c4cfa23412130a0269381880d0c4cfa234200150ffffffff0f1801")
IS_NULL = bytes.fromhex("0880d0c4cfa234120a0a046e756c6c200938011801")


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def payload(*metrics: tuple[str, int | None, int, int | None], historical: bool = False) -> bytes:
    """A payload of metrics: name, alias, type, integer."""
    out = b""
    for name, alias, kind, value in metrics:
        body = (b"\x0a" + varint(len(name)) + name.encode()) if name else b""
        body += b"" if alias is None else b"\x10" + varint(alias)
        body += b"" if not kind else b"\x20" + varint(kind)
        body += b"\x28\x01" if historical else b""
        body += b"\x38\x01" if value is None else b"\x50" + varint(value)
        out += b"\x12" + varint(len(body)) + body
    return out


def decoded(decoder: SparkplugDecoder, topic: str, content: bytes) -> dict[object, object]:
    return {message.levels: message.document for message in decoder(f"spBv1.0/{topic}", content)}


def test_both_encodings_of_a_signed_integer() -> None:
    """pysparkplug writes the low bits only; others sign-extend to 32."""
    low_bits = EIGHT_BITS.replace(bytes.fromhex("50ffffffff0f"), bytes.fromhex("50ff01")).replace(b"\x12\x13", b"\x12\x10")
    for sample in (EIGHT_BITS, low_bits):
        assert decoded(SparkplugDecoder(), "g/NBIRTH/e", sample) == {("g", "e"): {"i8": -1}}


@given(st.sampled_from([(1, 8), (2, 16), (3, 32)]), st.integers(-(2**31), 2**31 - 1))
def test_signed_integers_of_each_size(kind: tuple[int, int], number: int) -> None:
    type_, bits = kind
    value = (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
    assert signed(value % 2**bits, type_) == signed(value % 2**32, type_) == value


def test_a_null_metric_is_unknown_and_a_historical_one_is_left_out() -> None:
    assert parse_payload(IS_NULL) == [Metric("null", None, 9, False, None)]
    assert decoded(SparkplugDecoder(), "g/NDATA/e", IS_NULL) == {("g", "e"): {"null": Unknown("its metric is null")}}
    assert decoded(SparkplugDecoder(), "g/NDATA/e", payload(("x", None, 3, 5), historical=True)) == {}


def test_data_by_alias_has_the_name_and_type_of_its_birth() -> None:
    decoder = SparkplugDecoder()
    assert decoded(decoder, "g/DDATA/e/d", payload(("", 7, 0, 5))) == {}, "no birth is known yet"
    decoded(decoder, "g/DBIRTH/e/d", payload(("temp", 7, 1, 20)))
    assert decoded(decoder, "g/DDATA/e/d", payload(("", 7, 0, 0xF0))) == {("g", "e", "d"): {"temp": -16}}
    assert decoded(decoder, "g/DDATA/e/other", payload(("", 7, 0, 5))) == {}


def test_a_death_makes_all_metrics_unknown() -> None:
    decoder = SparkplugDecoder()
    decoded(decoder, "g/NBIRTH/e", payload(("bdSeq", None, 8, 4), ("load", 1, 3, 5)))
    decoded(decoder, "g/DBIRTH/e/d", payload(("temp", 2, 3, 5)))
    assert decoded(decoder, "g/NDEATH/e", payload(("bdSeq", None, 8, 3))) == {}, "the death of a former session"
    dead = Unknown("g/e is dead, as its broker tells")
    assert decoded(decoder, "g/NDEATH/e", payload(("bdSeq", None, 8, 4))) == {
        ("g", "e"): {"load": dead}, ("g", "e", "d"): {"temp": dead},
    }  # fmt: skip
    assert decoded(decoder, "g/DDEATH/e/d", b"") == {("g", "e", "d"): {"temp": Unknown("g/e/d is dead, as its broker tells")}}


# --- VDA 5050 -------------------------------------------------------------------------------------------------------------------

STATE = (
    b'{"headerId":4294967295,"timestamp":"2026-11-30T00:53:20.00Z","version":"2.1.0","manufacturer":"Acme","serialNumber":"amr-1",'
    b'"orderId":"","orderUpdateId":0,"lastNodeId":"","lastNodeSequenceId":0,"nodeStates":[],"edgeStates":[],"driving":false,'
    b'"actionStates":[],"batteryState":{"batteryCharge":80.0,"charging":false},"operatingMode":"AUTOMATIC","errors":[],'
    b'"safetyState":{"eStop":"NONE","fieldViolation":false},"agvPosition":{"x":0.0,"y":0.0,"theta":0.0,"mapId":"",'
    b'"positionInitialized":false,"localizationScore":0.0},"velocity":{}}'
)


def state_3() -> dict[str, Any]:
    state: dict[str, Any] = json.loads(STATE) | {"version": "3.0.0", "instantActionStates": []}
    state["powerSupply"] = {"stateOfCharge": 100, "charging": False}
    state["safetyState"] = {"activeEmergencyStop": "NONE", "fieldViolation": False}
    state["mobileRobotPosition"] = {"x": 0.0, "y": 0.0, "theta": 0.0, "mapId": "", "localized": False}
    del state["batteryState"], state["agvPosition"]
    return state


def test_a_state_of_2_1_and_of_3_0() -> None:
    """A reader of 2.x finds no battery in 3.0; a position that is not known is no position at 0, 0."""
    two, three = vda_state(json.loads(STATE)), vda_state(state_3())
    assert (two["battery_percent"], three["battery_percent"]) == (80.0, 100)
    for state, key in ((two, "agvPosition"), (three, "mobileRobotPosition")):
        position: Any = state[key]
        assert all(is_unknown(position[axis]) for axis in ("x", "y", "theta"))
        assert is_unknown(state["lastNodeId"])
        assert is_unknown(state["lastNodeSequenceId"])
        assert (state["charging"], state["emergency_stop"]) == (False, "NONE")
        velocity: Any = state["velocity"]
        assert is_unknown(velocity["vx"]), "an absent key is no standstill"


@pytest.mark.parametrize("charge", [-1, 255, 150, "NaN", None])
def test_a_charge_that_is_none(charge: object) -> None:
    """The schemas of 2.x take them."""
    state = json.loads(STATE) | {"batteryState": {"batteryCharge": charge, "charging": False}}
    assert is_unknown(vda_state(state)["battery_percent"])


def test_a_broken_connection_makes_the_state_unknown_and_hibernation_does_not() -> None:
    decoder = VdaDecoder()
    decoder("uagv/v2/Acme/amr-1/state", STATE, ("Acme", "amr-1"))
    topic = "uagv/v2/Acme/amr-1/connection"
    [asleep] = decoder(topic, b'{"connectionState":"HIBERNATING"}', ("Acme", "amr-1"))
    assert asleep.document == {"connectionState": "HIBERNATING"}
    [broken] = decoder(topic, b'{"connectionState":"CONNECTIONBROKEN"}', ("Acme", "amr-1"))
    found: Any = broken.document
    assert found["battery_percent"] == found["velocity"]["vx"] == Unknown("its connection is CONNECTIONBROKEN")
    [other] = decoder(topic, b'{"connectionState":"CONNECTION_BROKEN"}', ("Acme", "amr-2"))
    assert other.document == {"connectionState": "CONNECTION_BROKEN"}


# --- ROS 2 ----------------------------------------------------------------------------------------------------------------------


def cdr(name: str, **changes: Any) -> bytes:
    """A message of a type, zero but for some fields, as `rosbags` writes it."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)

    def made(kind: str, given: dict[str, Any]) -> Any:
        values = []
        for field, (shape, of) in store.fielddefs[kind][1]:
            if field in given and not isinstance(given[field], dict):
                values.append(given[field])
            elif int(shape) == 2:  # another message
                values.append(made(str(of), given.get(field, {})))
            elif int(shape) == 1:
                values.append("" if isinstance(of, tuple) and of[0] == "string" else False if of[0] == "bool" else 0)
            elif int(shape) == 3:
                values.append(np.zeros(of[1], dtype=str(of[0][1][0])))
            else:
                values.append([] if int(of[0][0]) == 2 else np.zeros(0, dtype=str(of[0][1][0])))
        return store.types[kind](*values)

    return bytes(store.serialize_cdr(made(name, changes), name))


def status(name: str, level: int, *pairs: tuple[str, str]) -> Any:
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.LATEST).types
    key_value = types["diagnostic_msgs/msg/KeyValue"]
    values = [key_value(key=key, value=value) for key, value in pairs]
    return types["diagnostic_msgs/msg/DiagnosticStatus"](level=level, name=name, message="", hardware_id="", values=values)


@pytest.mark.slow
def test_a_battery_that_was_not_filled_in_is_not_empty() -> None:
    decode = ros_decoder("sensor_msgs/BatteryState")
    unfilled: Any = decode(cdr("sensor_msgs/msg/BatteryState"))
    assert unfilled["present"] is False
    assert all(is_unknown(unfilled[key]) for key in ("percent", "percentage", "voltage", "temperature"))
    filled: Any = decode(cdr("sensor_msgs/msg/BatteryState", present=True, percentage=0.42, voltage=12.5, temperature=float("nan")))
    assert (round(filled["percent"], 4), filled["voltage"]) == (42.0, 12.5)
    assert filled["temperature"] != filled["temperature"]  # NaN is unknown where values are taken
    unmeasured: Any = decode(cdr("sensor_msgs/msg/BatteryState", present=True, percentage=float("nan")))
    assert is_unknown(unmeasured["percent"])


@pytest.mark.slow
def test_a_stale_diagnostic_is_unknown() -> None:
    array = cdr(
        "diagnostic_msgs/msg/DiagnosticArray",
        status=[status("battery", 3, ("charge", "80 %")), status("wifi", 0, ("signal", "-71 dBm"))],
    )
    found: Any = ros_decoder("diagnostic_msgs/msg/DiagnosticArray")(array)
    assert is_unknown(found["battery"]["level"]), "max() would call it worse than ERROR"
    assert is_unknown(found["battery"]["charge"])
    assert (found["wifi"]["level"], found["wifi"]["signal"]) == (0.0, -71.0)


@pytest.mark.slow
@pytest.mark.parametrize("fix", [-1, -2])
def test_a_receiver_of_ros_without_a_fix(fix: int) -> None:
    decode = ros_decoder("sensor_msgs/msg/NavSatFix")
    found: Any = decode(cdr("sensor_msgs/msg/NavSatFix", status={"status": fix}))
    assert is_unknown(found["latitude"])
    known: Any = decode(cdr("sensor_msgs/msg/NavSatFix", latitude=52.5))
    assert known["latitude"] == 52.5


@pytest.mark.slow
@pytest.mark.parametrize("distance", [float("inf"), float("-inf"), float("nan"), 9.0, 0.01])
def test_a_range_out_of_range(distance: float) -> None:
    """`inf > limit` would hold."""
    decode = ros_decoder("sensor_msgs/msg/Range")
    found: Any = decode(cdr("sensor_msgs/msg/Range", min_range=0.1, max_range=4.0, range=distance))
    assert is_unknown(found["range"])


@pytest.mark.slow
def test_a_message_that_is_none_and_a_type_that_is_none() -> None:
    decode = ros_decoder("sensor_msgs/msg/NavSatFix")
    with pytest.raises(SourceError, match=r"it sent no sensor_msgs/msg/NavSatFix"):
        decode(b"\0\1\0\0\1")
    with pytest.raises(SourceError, match=r"there is no type 'sensor_msgs/msg/Nothing'"):
        ros_decoder("sensor_msgs/Nothing")
