#!/usr/bin/env bash
# automerge 1.0.0rc1 (Python): a key keeps the type of its first value; another value is converted to it without a word, or refused.
#
# One would guess: a key of a map takes any scalar, as in Automerge for JavaScript, and is read as it was written. `in` and `get` of a
# mapping answer for a key that is not there.
# It does: a key that was first written as 1 is of integers. True is stored as 1 then, 2.5 and a text are refused. A key that was first
# written as 1.0 is of doubles, so a large integer loses its last digits. Which type a key has depends on who wrote it first. A key
# that is not there raises IndexError, also from `in` and from `get` with a default.
# It printed (Python 3.11, Linux x86-64):
#   over 1: True is read as 1, 2.5 TypeError, 'fast' TypeError
#   over 1.0: 9007199254740993 is read as 9007199254740992.0, True is read as 1.0
#   'missing' in document: IndexError; get with a default: IndexError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'automerge==1.0.0rc1'
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from automerge import Document


def over(first: object, second: object) -> str:
    document = Document()
    with document.change() as change:
        change["limit"] = first
    try:
        with document.change() as change:
            change["limit"] = second
    except Exception as error:
        return f"{second!r} {type(error).__name__}"
    return f"{second!r} is read as {document['limit']!r}"


def raised(read: object) -> str:
    try:
        return repr(read())
    except Exception as error:
        return type(error).__name__


empty = Document()
lines = [
    "over 1: " + ", ".join(over(1, each) for each in (True, 2.5, "fast")),
    "over 1.0: " + ", ".join(over(1.0, each) for each in (2**53 + 1, True)),
    f"'missing' in document: {raised(lambda: 'missing' in empty)}; get with a default: {raised(lambda: empty.get('missing', 0))}",
]
print("\n".join(lines))
expected = [
    "over 1: True is read as 1, 2.5 TypeError, 'fast' TypeError",
    "over 1.0: 9007199254740993 is read as 9007199254740992.0, True is read as 1.0",
    "'missing' in document: IndexError; get with a default: IndexError",
]
sys.exit(0 if lines == expected else 1)
PYTHON
