"""What the tests of expressions share: values to evaluate against, a refusal looked at, code run in a process of its own."""

import subprocess
import sys

import pytest

from constraint_crdt.expression import ExpressionError, compile_expression

VALUES: dict[str, object] = {
    "x": 7,
    "y": 2.5,
    "flag": True,
    "name": "forge-é",
    "xs": [1, 2.0, [3]],
    "robot": {"speed": 1, "all": 2, "arm": {"joints": [1, 2]}},
}


def refusal(source: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return caught.value


def isolated(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
