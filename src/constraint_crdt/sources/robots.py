"""Messages of robots: VDA 5050 in JSON, and ROS 2 in CDR, each with the values of its fields that mean *unknown*.

Rules kept here:

- VDA 5050, 2.x and 3.0: a battery outside of 0 to 100 % is unknown, and so is a position that is not initialized. Both versions
  give `battery_percent`, `charging`, `emergency_stop`, and counts of errors by level; lists are left out but for their lengths. A
  connection that is broken or offline makes the robot's values unknown; a robot that hibernates is silent, and well.
- ROS 2: the charge of a `BatteryState` is also `percent`, from 0 to 100; without a battery all is unknown. A `DiagnosticArray` has
  the status of each name, where STALE is unknown, and the values with units are numbers. A `NavSatFix` without a fix has no
  position, and a `Range` out of its bounds no range. Stamps are left out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from constraint_crdt.sources.formats import Message, SourceError, Unknown, leaves, parse_json, parse_quantity

MOST_ROBOTS = 1000
MOST_ELEMENTS = 64
"""Elements of an array of a ROS 2 message. Longer ones are left out."""

# --- VDA 5050 -------------------------------------------------------------------------------------------------------------------

_BROKEN: Final = frozenset({"OFFLINE", "CONNECTIONBROKEN", "CONNECTION_BROKEN"})
_VELOCITY: Final = ("vx", "vy", "omega")
_PLACE: Final = ("x", "y", "theta", "mapId", "localizationScore", "deviationRange")


class VdaDecoder:
    """Decodes topics `…/state` and `…/connection`, of robots by the texts of the wildcards."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        """The paths of the last state of each robot."""

    def __call__(self, topic: str, payload: bytes, levels: tuple[str, ...]) -> list[Message]:
        """The values of a payload. Raises `SourceError`."""
        document = parse_json(payload)
        if not isinstance(document, dict):
            raise SourceError("it sent no object of VDA 5050")
        if topic.rpartition("/")[2] == "connection":
            return self._connection(document, levels)
        state = vda_state(document)
        if levels in self._said or len(self._said) < MOST_ROBOTS:
            self._said[levels] = [path for path, _ in leaves(state)]
        return [Message(state, levels)]

    def _connection(self, document: Mapping[str, object], levels: tuple[str, ...]) -> list[Message]:
        state = document.get("connectionState")
        found: dict[str, object] = {"connectionState": state}
        if state in _BROKEN:
            gone: dict[str, Any] = found
            for path in self._said.get(levels, ()):
                inner = gone
                for step in path[:-1]:
                    inner = inner.setdefault(step, {})
                inner[path[-1]] = Unknown(f"its connection is {state}")
        return [Message(found, levels)]


def vda_state(state: Mapping[str, object]) -> dict[str, object]:
    """A state of VDA 5050 without its lists, and with the fields that versions 2.x and 3.0 call differently."""
    found: dict[str, object] = {key: value for key, value in state.items() if not isinstance(value, list)}
    found |= {f"{key}_count": len(value) for key, value in state.items() if isinstance(value, list)}
    for key in ("batteryState", "powerSupply"):
        battery = state.get(key)
        if isinstance(battery, Mapping):
            charge = "batteryCharge" if key == "batteryState" else "stateOfCharge"
            percent = _within(battery.get(charge), 0.0, 100.0)
            found[key] = {**battery, charge: percent}
            found |= {"battery_percent": percent, "charging": battery.get("charging")}
    for key in ("agvPosition", "mobileRobotPosition"):
        position = state.get(key)
        if isinstance(position, Mapping):
            found[key] = _position(position)
    velocity = state.get("velocity")
    given = velocity if isinstance(velocity, Mapping) else {}
    found["velocity"] = {axis: _number(given.get(axis)) for axis in _VELOCITY}
    if not state.get("lastNodeId"):
        found |= dict.fromkeys(("lastNodeId", "lastNodeSequenceId"), Unknown("it was at no node yet"))
    safety = state.get("safetyState")
    if isinstance(safety, Mapping):
        found["emergency_stop"] = safety.get("eStop", safety.get("activeEmergencyStop"))
    errors = state.get("errors")
    levels = [each.get("errorLevel") for each in errors if isinstance(each, Mapping)] if isinstance(errors, list) else []
    found |= {f"errors_{level.lower()}": float(levels.count(level)) for level in ("WARNING", "FATAL")}
    return found


def _position(position: Mapping[str, object]) -> dict[str, object]:
    is_known = position.get("positionInitialized", position.get("localized", True)) is not False
    score = position.get("localizationScore")
    if is_known and score != 0:
        return {key: _number(value) if key in ("x", "y", "theta") else value for key, value in position.items()}
    why = Unknown("the robot does not know its position")
    return {key: why if key in _PLACE else value for key, value in position.items()}


def _number(value: object) -> object:
    if value is None:
        return Unknown("it is left out")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else Unknown(f"it says {value!r:.40}, which is no number")


def _within(value: object, lowest: float, highest: float) -> object:
    number = _number(value)
    if isinstance(number, int | float) and not lowest <= number <= highest:
        return Unknown(f"it says {number:g}, which is not from {lowest:g} to {highest:g}")
    return number


# --- ROS 2 ----------------------------------------------------------------------------------------------------------------------


def ros_decoder(name: str) -> Callable[[bytes], object]:
    """A decoder of messages of a type. Raises `SourceError` if `rosbags` is missing, or does not know the type."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise SourceError("messages of ROS 2 need `pip install 'constraint-crdt[ros]'`") from None
    store = get_typestore(Stores.LATEST)
    name = name if "/msg/" in name else name.replace("/", "/msg/", 1)
    if name not in store.types:
        raise SourceError(f"there is no type {name!r} among those of ROS 2, as in sensor_msgs/msg/BatteryState")
    mend = _ROS_TYPES.get(name)

    def decode(payload: bytes) -> object:
        try:
            message = store.deserialize_cdr(payload, name)
        except Exception as error:  # whatever a cut or foreign payload leads to
            raise SourceError(f"it sent no {name}: {error}") from None
        document = _plain(message)
        if not isinstance(document, dict):
            raise SourceError(f"it sent no {name}")
        return document if mend is None else mend(document)

    return decode


def _plain(value: object) -> object:
    """A message of rosbags as a document."""
    if hasattr(value, "__msgtype__"):
        return {key: _plain(each) for key, each in vars(value).items() if key not in ("__msgtype__", "header")}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(each) for each in value] if len(value) <= MOST_ELEMENTS else None
    return value


def _battery(document: dict[str, Any]) -> dict[str, Any]:
    if not document.get("present"):
        why = Unknown("there is no battery, or its message was not filled in")
        return {key: value if key == "present" else why for key, value in document.items()} | {"percent": why}
    ratio = document["percentage"]
    why = Unknown("its charge is not measured")
    document["percent"] = 100.0 * ratio if isinstance(ratio, float) and math.isfinite(ratio) else why
    return document


STALE: Final = 3


def _diagnostics(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status in document.get("status") or ():
        level = status["level"]
        level = level[0] if isinstance(level, bytes) else int(level)
        values = {pair["key"]: parse_quantity(pair["value"]) for pair in status["values"] or ()}
        stale = Unknown("its diagnostic is STALE")
        found[status["name"]] = {
            **(dict.fromkeys(values, stale) if level == STALE else values),
            "level": stale if level == STALE else float(level),
            "message": status["message"],
        }
    return found


def _fix(document: dict[str, Any]) -> dict[str, Any]:
    if document["status"]["status"] < 0:
        document |= dict.fromkeys(("latitude", "longitude", "altitude"), Unknown("the receiver has no fix"))
    if document.get("position_covariance_type") == 0:
        document["position_covariance"] = Unknown("its covariance is not known")
    return document


def _range(document: dict[str, Any]) -> dict[str, Any]:
    distance = document["range"]
    if not document["min_range"] <= distance <= document["max_range"]:
        document["range"] = Unknown(f"it says {distance:g}, which is out of its range")
    return document


_ROS_TYPES: Final[Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "sensor_msgs/msg/BatteryState": _battery,
    "diagnostic_msgs/msg/DiagnosticArray": _diagnostics,
    "sensor_msgs/msg/NavSatFix": _fix,
    "sensor_msgs/msg/Range": _range,
}
