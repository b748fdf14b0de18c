"""The latest measurements: one value per variable, with an age beyond which it is no measurement any more."""

from collections.abc import Mapping

from constraint_crdt.core.replica import check_id
from constraint_crdt.errors import ConstraintCrdtError

MAX_VARIABLES = 10_000
MAX_TEXT_BYTES = 4096


class MeasurementBoard:
    """Variables by name, each with the time it was measured. Times are in ns of any clock that only goes forward."""

    def __init__(self, max_age: float) -> None:
        """`max_age` in seconds."""
        self._max_age = int(max_age * 1e9)
        self._values: dict[str, tuple[int, object]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def put(self, values: Mapping[str, object], now: int) -> None:
        """Take new values in, all of them or, raising `ConstraintCrdtError`, none."""
        for name, value in values.items():
            check_id(name, "the name of a variable")
            if isinstance(value, str) and len(value.encode(errors="replace")) > MAX_TEXT_BYTES:
                raise ConstraintCrdtError(f"the text measured as {name} has more than {MAX_TEXT_BYTES} bytes")
            if not isinstance(value, bool | int | float | str | list | dict):
                raise ConstraintCrdtError(
                    f"the value of {name} is {value!r}; a measurement is a number, a text, true or false, or a list or map of them"
                )
        if len(self._values.keys() | values.keys()) > MAX_VARIABLES:
            raise ConstraintCrdtError(f"more than the {MAX_VARIABLES} variables that a node measures")
        self._values.update({name: (now, value) for name, value in values.items()})

    def fresh(self, now: int) -> dict[str, object]:
        """The values that are young enough. Those that are not are forgotten."""
        oldest = now - self._max_age
        self._values = {name: entry for name, entry in self._values.items() if entry[0] >= oldest}
        return {name: value for name, (_, value) in self._values.items()}
