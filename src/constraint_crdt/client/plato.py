"""PlatoClient: asks a server of the PLATO contract, such as the API of a node, over HTTP. Synchronous; standard library only.

Every failure is a `PlatoError` with a sentence. Each call opens a connection, so a client is safe to use from several threads.
"""

import http.client
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.plato.rooms import plato_tile
from constraint_crdt.plato.shapes import PlatoDelta, PlatoRoom, PlatoTile
from constraint_crdt.types.tiles import FleetTile

TIMEOUT = 10.0
"""Seconds of silence after which a server counts as not answering."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024

Decoded = TypeVar("Decoded")


class PlatoError(ConstraintCrdtError):
    """A failed call. `str()` is a sentence."""

    def __init__(self, message: str, *, status: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, if the server answered."""
        self.field = field
        """The field at fault, if the server named a field."""


class PlatoClient:
    """A client of a PLATO server."""

    def __init__(self, base_url: str, *, timeout: float = TIMEOUT) -> None:
        """`base_url`: `http://HOST:PORT`, or https, with or without a path. `timeout`: seconds.

        Raises `PlatoError` for an invalid address or timeout.
        """
        wrong = PlatoError(f"{base_url!r} is no address of a PLATO server: give http://HOST:PORT")
        try:
            parts = urlsplit(base_url)
            self._port = parts.port
            (parts.hostname or "").encode("idna")
        except ValueError:  # a port out of range, an unclosed bracket, a host that no resolver could take
            raise wrong from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise wrong
        if quote(parts.path, safe="/%:@!$&'()*+,;=~") != parts.path:
            raise wrong
        if not timeout > 0:
            raise PlatoError(f"the timeout of a PlatoClient is a number of seconds above 0, not {timeout!r}")
        self._connection = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host = parts.hostname
        self._path = parts.path.rstrip("/")
        self._timeout = timeout
        self.url = base_url.rstrip("/")
        """The address of the server."""

    def __repr__(self) -> str:
        return f"PlatoClient({self.url!r})"

    def list_rooms(self, prefix: str | None = None) -> list[str]:
        """The rooms with a tile, filtered by `prefix`."""
        query = "" if prefix is None else f"?prefix={_quoted(prefix)}"
        return self._decoded(self._call("GET", f"/rooms{query}"), list[str])

    def get_room(self, room_id: str) -> PlatoRoom:
        """A room with its tiles. Raises `PlatoError` with status 404 for an unknown room."""
        room = self._decoded(self._call("GET", f"/room/{_quoted(room_id)}"), _SentRoom)
        tiles = room.tiles or []
        return PlatoRoom(id=room.id, tiles=tiles, tile_count=len(tiles) if room.tile_count is None else room.tile_count)

    def submit_tile(self, room_id: str, tile: PlatoTile | FleetTile) -> None:
        """Have the server merge a tile into a room. Raises `PlatoError` with the field for a refused tile."""
        try:
            sent = plato_tile(tile) if isinstance(tile, FleetTile) else tile
        except ConstraintCrdtError as error:
            raise PlatoError(f"this tile cannot be sent: {error}", field="content") from None
        self._call("POST", f"/room/{_quoted(room_id)}/tile", sent)

    def send_delta(self, room_id: str, delta: PlatoDelta) -> None:
        """Have the server apply a delta. A repeat has no effect."""
        self._call("POST", f"/room/{_quoted(room_id)}/delta", delta)

    def is_healthy(self) -> bool:
        """True if the server answers."""
        try:
            self._call("GET", "/rooms")
        except PlatoError:
            return False
        return True

    def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            content = _encoded(body)
            headers["Content-Type"] = "application/json"
        connection = self._connection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, self._path + path, content, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError:
            raise PlatoError(f"the PLATO server at {self.url} did not answer within {self._timeout:g} s") from None
        except OSError as error:
            raise PlatoError(f"cannot reach a PLATO server at {self.url}: {error.strerror or error}") from None
        except http.client.HTTPException:
            raise PlatoError(f"what answers at {self.url} does not speak HTTP, or broke off") from None
        finally:
            connection.close()
        if len(answer) > MAX_ANSWER_BYTES:
            raise PlatoError(f"the answer of {self.url} has more than {MAX_ANSWER_BYTES} bytes", status=response.status)
        if not 200 <= response.status < 300:
            raise self._refused(response.status, answer)
        return answer

    def _refused(self, status: int, answer: bytes) -> PlatoError:
        """The error of a problem, with the detail and field of a known format."""
        try:
            said = msgspec.json.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = None
        said = said if isinstance(said, Mapping) else {}
        detail, field = said.get("detail"), said.get("field")
        message = f"the PLATO server at {self.url} answered {status}"
        if isinstance(detail, str):
            message += f": {detail}"
        return PlatoError(message, status=status, field=field if isinstance(field, str) else None)

    def _decoded(self, answer: bytes, shape: type[Decoded]) -> Decoded:
        try:
            return msgspec.json.decode(answer, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PlatoError(f"what {self.url} answered is not what a PLATO server does: {error}") from None


class _SentRoom(msgspec.Struct, frozen=True, kw_only=True):
    """A room of other servers, with optional parts."""

    id: str
    tiles: list[PlatoTile] | None = None
    tile_count: int | None = None


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise PlatoError(f"{text!r} is not valid Unicode text") from None


def _encoded(body: msgspec.Struct) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeError, OverflowError, TypeError) as error:
        raise PlatoError(f"this cannot be sent as JSON: {error}") from None
