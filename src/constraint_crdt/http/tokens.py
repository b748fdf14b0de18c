"""The tokens of the API, and their file.

A file has a line per token:

    token alice measure 2026-11-29T15:31:12Z 2026-12-29T15:31:12Z 5f1c…
    read  a1b2c3d4e5f6a7b8c9d0
    write 0f9e8d7c6b5a49382716

Of the first form are the lines of `constraint-crdt token add`: name, role, when it was made, its end (`-`: none), and a hash of the
token. The others have the token itself, after its role: read, measure, operate, or write, which is operate. They are called by
their line, as in `line 3`. Each role includes the previous ones. A token is sent as `Authorization: Bearer TOKEN` and in no other
way. A token is never compared character by character, or printed. The tokens made here have 160 random bits, so their hash needs no
salt.

A running node looks at the file at each request (one `stat`), and reads a changed file before it answers. If a changed file is
unusable, the tokens known before stay valid, and the log and `doctor` say so.
"""

import contextlib
import fcntl
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.model import counted
from constraint_crdt.operations.operation import Right
from constraint_crdt.store.files import replace_file

LEAST_CHARACTERS = 16
MOST_CHARACTERS = 256
MOST_TOKENS = 1000
MOST_BYTES = 512 * 1024

LOCAL: Final = "local"
"""The name of every client of a node without tokens."""

HEAD = "# The tokens of the API of a node. Change them with `constraint-crdt token add` and `token remove`.\n"

LOCK_TRIES = 100
LOCK_PAUSE = 0.05
"""Tries of a command to lock the file, and seconds between two of them."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, 2.1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}", re.ASCII)
_RESERVED = frozenset({LOCAL, "python"})
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_PLAIN = {"read": Right.READ, "measure": Right.MEASURE, "operate": Right.OPERATE, "write": Right.OPERATE}
_ROLES = {right.name.lower(): right for right in (Right.READ, Right.MEASURE, Right.OPERATE)}

_log = logging.getLogger("constraint_crdt.api")


class ApiToken(NamedTuple):
    """A token of a file, without the token itself. Times in seconds since the epoch."""

    name: str
    right: Right
    made: int | None
    """None: unknown."""
    ends: int | None
    """None: valid until it is removed."""
    hash: str


def check_token_name(name: str) -> str:
    """The name. Raises `ConstraintCrdtError` for an invalid name."""
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConstraintCrdtError(
            f"the name of a token has 1 to 63 letters, digits and ._@-, and is not local or python: not {name!r}"
        )
    return name


def parse_role(text: str) -> Right:
    """The right of a role. Raises `ConstraintCrdtError` for another word."""
    if text not in _ROLES:
        raise ConstraintCrdtError(f"{text!r} is no role of a token: take one of {', '.join(_ROLES)}")
    return _ROLES[text]


def _hash(token: str) -> str:
    return blake2b(token.encode(errors="replace"), digest_size=32, person=b"crdt api token").hexdigest()


def parse_tokens(text: str) -> list[ApiToken]:
    """The tokens of the text of a file. Raises `ConstraintCrdtError` naming the line, without the token."""
    found: dict[str, ApiToken] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        token = _read_managed(number, words) if words[0] == "token" else _read_plain(number, words)
        if token.name in found:
            raise ConstraintCrdtError(f"line {number}: there is another token called {token.name}")
        found[token.name] = token
        if len(found) > MOST_TOKENS:
            raise ConstraintCrdtError(f"there are more than {MOST_TOKENS} tokens: keep fewer")
    return list(found.values())


def _read_plain(number: int, words: Sequence[str]) -> ApiToken:
    if len(words) != 2 or words[0] not in _PLAIN:
        raise ConstraintCrdtError(f"line {number}: write `read TOKEN`, `measure TOKEN` or `operate TOKEN`")
    return plain_token(_PLAIN[words[0]], words[1], f"line {number}")


def plain_token(right: Right, token: str, name: str) -> ApiToken:
    """A token that is known itself. Raises `ConstraintCrdtError` for an invalid token."""
    if not LEAST_CHARACTERS <= len(token) <= MOST_CHARACTERS or not _TOKEN.fullmatch(token):
        raise ConstraintCrdtError(
            f"{name}: a token has {LEAST_CHARACTERS} to {MOST_CHARACTERS} letters, digits and -._~+/, "
            "for example what `openssl rand -hex 32` prints"
        )
    return ApiToken(name, right, None, None, _hash(token))


def _read_managed(number: int, words: Sequence[str]) -> ApiToken:
    try:
        _, name, role, made, ends, digest = words
        token = ApiToken(check_token_name(name), parse_role(role), _time(made), _time(ends), digest)
    except (ValueError, ConstraintCrdtError):
        token = None
    if token is None or not _HASH.fullmatch(token.hash):
        raise ConstraintCrdtError(f"line {number}: that is no line of `constraint-crdt token add`: make the token again")
    return token


def _time(text: str) -> int | None:
    return None if text == "-" else round(datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp())


def show_moment(at: int | None) -> str:
    """A time as the file has it; `-` for None."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime(_TIME)


class TokenFile:
    """A file of tokens. All errors are `ConstraintCrdtError`, each a sentence naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, *, empty: bool = True) -> list[ApiToken]:
        """The tokens. Raises if the file is unreadable, malformed, or readable by others; and if empty, unless allowed."""
        text = self._text()
        if not text and not empty:
            raise ConstraintCrdtError(f"{self.path} is empty")
        return self._parsed(text)

    def add(self, name: str, right: Right, *, made: int, ends: int | None = None) -> str:
        """Make a token, and the file if needed. Returns the token, of which the file has a hash only.

        Raises for a name that is taken, beyond the most tokens, and for a file that cannot be written.
        """
        check_token_name(name)
        secret = secrets.token_hex(20)
        with self._locked():
            text = self._text() if self.path.exists() else HEAD
            known = self._parsed(text)
            if any(token.name == name for token in known):
                raise ConstraintCrdtError(f"{self.path} has a token called {name} already: remove it first, or take another name")
            if len(known) >= MOST_TOKENS:
                raise ConstraintCrdtError(f"{self.path} has {MOST_TOKENS} tokens, the most that a node takes: remove some")
            line = " ".join(("token", name, right.name.lower(), show_moment(made), show_moment(ends), _hash(secret)))
            before = text if not text or text.endswith("\n") else f"{text}\n"
            self._write(f"{before}{line}\n")
        return secret

    def remove(self, name: str) -> None:
        """Withdraw a token. Its line becomes a comment, so that the names of the other lines stay. Raises for an unknown name."""
        with self._locked():
            text = self._text()
            if all(token.name != name for token in self._parsed(text)):
                raise ConstraintCrdtError(f"{self.path} has no token called {name}: `constraint-crdt token list` shows its tokens")
            lines = text.splitlines()
            for number, line in enumerate(lines):
                words = line.split()
                if (words[:1] == ["token"] and words[1:2] == [name]) or name == f"line {number + 1}":
                    lines[number] = f"# {name} was removed"
            self._write("".join(f"{line}\n" for line in lines))

    def _parsed(self, text: str) -> list[ApiToken]:
        try:
            return parse_tokens(text)
        except ConstraintCrdtError as error:
            raise ConstraintCrdtError(f"{self.path}: {error}") from None

    def _text(self) -> str:
        file = self.path
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                content = opened.read(MOST_BYTES + 1)
            text = content.decode()
        except OSError as error:
            raise InvalidValue(f"cannot read the tokens in {file}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ConstraintCrdtError(f"the tokens in {file} are no text") from None
        if os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConstraintCrdtError(f"anybody on this machine can read or write the tokens in {file}: `chmod 600 {file}` first")
        if len(content) > MOST_BYTES:
            raise ConstraintCrdtError(f"the tokens in {file} are more than {MOST_BYTES} bytes: keep fewer")
        return text

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder of the file, so that two writers do not lose each other's tokens. The lock ends with the process."""
        try:
            folder = os.open(self.path.parent, os.O_RDONLY)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            for _ in range(LOCK_TRIES):
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(LOCK_PAUSE)
            else:
                raise ConstraintCrdtError(f"another command changes the tokens in {self.path}: try again")
            yield
        finally:
            os.close(folder)

    def _write(self, text: str) -> None:
        """Replace the file as a whole, for the same user and group, or leave it as it was."""
        try:
            replace_file(self.path, text.encode(), prepare=self._keep_owner)
        except OSError as error:
            raise self._unwritable(error) from None

    def _keep_owner(self, handle: int) -> None:
        if self.path.exists():  # made by root for the user of a node: the node goes on reading it
            former = self.path.stat()
            with contextlib.suppress(PermissionError):
                os.fchown(handle, former.st_uid, former.st_gid)
                os.fchmod(handle, former.st_mode & 0o660 | 0o600)

    def _unwritable(self, error: OSError) -> ConstraintCrdtError:
        return ConstraintCrdtError(f"cannot write the tokens in {self.path}: {error.strerror or error}; nothing has changed")


class Tokens:
    """The tokens that a node takes."""

    def __init__(self, tokens: Iterable[tuple[Right, str]] = (), *, file: TokenFile | None = None) -> None:
        """`tokens`: rights and tokens. `file`: has further tokens, and is followed. Raises `ConstraintCrdtError` for an invalid or
        missing token, and for an unusable file.
        """
        self._key = secrets.token_bytes(32)
        self._file = file
        self.trouble: str | None = None
        """Why the changed file is not used; None if there is no reason."""
        self._fixed = [plain_token(right, token, f"token {number}") for number, (right, token) in enumerate(tokens, 1)]
        self._seen = self._signature()
        self._known = self._index([] if file is None else file.read())
        if not self._known:
            where = "" if file is None else f"{file.path}: "
            raise ConstraintCrdtError(f"{where}there is no token: `constraint-crdt token add NAME --role operate` makes one")

    @classmethod
    def load(cls, file: Path) -> "Tokens":
        """The tokens of a file, followed while the node runs. Raises `ConstraintCrdtError` for an unusable file."""
        return cls(file=TokenFile(file))

    def count(self, now: float) -> int:
        """The number of tokens that have not ended at `now`, in seconds since the epoch."""
        return sum(token.ends is None or now < token.ends for token in self._known.values())

    def find(self, token: str) -> ApiToken | None:
        """The token with its name and right; None for an unknown token. Reads a changed file first."""
        self._look()
        return self._known.get(self._digest(_hash(token)))

    def knows(self, token: ApiToken) -> bool:
        """True as long as a found token is valid as it was."""
        self._look()
        return self._known.get(self._digest(token.hash)) == token

    def right(self, token: str) -> Right:
        """The right of a token; `NONE` for an unknown token."""
        found = self.find(token)
        return Right.NONE if found is None else found.right

    def reread(self) -> str:
        """Read the file if it changed, as each request does. Returns a sentence on the tokens."""
        self._look()
        return self.trouble or f"{counted(self.count(time.time()), 'token', 'is', 'are')} valid"

    def _look(self) -> None:
        """Read the file if it changed."""
        if self._file is not None and (signature := self._signature()) != self._seen:
            self._seen = signature
            self._renew(self._file)

    def _renew(self, file: TokenFile) -> None:
        """Take the changed file. An empty file is unusable: an editor may be about to write it."""
        try:
            found = file.read(empty=False)
        except ConstraintCrdtError as error:
            trouble = f"the tokens known before stay valid, as the changed file cannot be used: {error}"
            if trouble != self.trouble:
                _log.error("%s", trouble)
            self.trouble = trouble
            return
        if self.trouble is not None:
            _log.info("the tokens in %s are used again", file.path)
        self.trouble, self._known = None, self._index(found)

    def _signature(self) -> tuple[int, ...]:
        """Differs after a change of the file."""
        if self._file is None:
            return ()
        try:
            found = self._file.path.stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def _index(self, tokens: Iterable[ApiToken]) -> dict[bytes, ApiToken]:
        """The tokens by digest. Of a token with two lines, the line with more rights counts."""
        known: dict[bytes, ApiToken] = {}
        for token in sorted((*self._fixed, *tokens), key=lambda each: each.right):
            known[self._digest(token.hash)] = token
        return known

    def _digest(self, found: str) -> bytes:
        # Keyed by a secret of this process, so the time of a look-up reveals nothing of the hashes.
        return blake2b(found.encode(), key=self._key, digest_size=32).digest()
