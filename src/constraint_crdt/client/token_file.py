"""A token out of the file that a node's tokens are in: lines `read TOKEN` and `write TOKEN`, or one token alone."""

from pathlib import Path

from constraint_crdt.errors import ConstraintCrdtError

MOST_BYTES = 512 * 1024


def read_token(file: Path) -> str:
    """The first token there that allows writing, or else the first. Raises `ConstraintCrdtError` if there is none."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES).decode()
    except OSError as error:
        raise ConstraintCrdtError(f"cannot read the tokens in {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConstraintCrdtError(f"the tokens in {file} are no text") from None
    lines = [words for line in text.splitlines() if (words := line.split()) and not words[0].startswith("#")]
    for right in ("write", "read"):
        for words in lines:
            if len(words) == 2 and words[0] == right:
                return words[1]
    if len(lines) == 1 and len(lines[0]) == 1:
        return lines[0][0]
    raise ConstraintCrdtError(f"there is no token in {file}: write a line `read TOKEN` or `write TOKEN`")
