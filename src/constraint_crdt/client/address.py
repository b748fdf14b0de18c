"""Where a node's API is, read from what people write."""

import urllib.parse
from typing import NamedTuple

from constraint_crdt.errors import ConstraintCrdtError

DEFAULT_PORT = 8470


class AddressError(ConstraintCrdtError, ValueError):
    """It is no address of a node."""


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
