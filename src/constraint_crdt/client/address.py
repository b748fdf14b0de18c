"""The address of a node's API, as people write it, and the token from a file of tokens.

A file has lines `read TOKEN` and `write TOKEN`, or a single token.
"""

import urllib.parse
from pathlib import Path
from typing import NamedTuple

from constraint_crdt.errors import ConstraintCrdtError

DEFAULT_PORT = 8470


class AddressError(ConstraintCrdtError, ValueError):
    """A text that is not the address of a node."""


class Address(NamedTuple):
    """Host and port of a node's API."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As a URL."""
        return f"http://{self.authority}"

    @property
    def authority(self) -> str:
        """As in a Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str) -> Address:
    """The address in `http://HOST:PORT` or `HOST:PORT`. Raises `AddressError`."""
    wrong = AddressError(f"{text!r} is no address of a node: give http://HOST:PORT or HOST:PORT")
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port out of range, an unclosed bracket; or UnicodeError, a host that no resolver could take
        raise wrong from None
    if parts.scheme != "http" or not parts.hostname or port == 0 or parts.path not in ("", "/") or parts.query or parts.username:
        raise wrong
    return Address(parts.hostname, DEFAULT_PORT if port is None else port)


MOST_BYTES = 512 * 1024


def read_token(file: Path) -> str:
    """The first token with the role write, or else the first token. Raises `ConstraintCrdtError` without any."""
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
