"""Keys of users and ids of items as text, and hashes of texts that are the same everywhere."""

from __future__ import annotations

import hashlib
import json
import secrets
from numbers import Integral
from uuid import UUID

from dbnorm_vdb.errors import InvalidParameterError

MAX_KEY_LENGTH = 256
MAX_ITEM_LENGTH = 1024
MAX_NAME_LENGTH = 64


def check_text(value: object, *, what: str, longest: int) -> str:
    """Return a key, an id or a name as text: a string, an integer or a UUID that is neither empty nor too long.

    Integers and their digits are the same text, since ids come back from a browser as strings.

    Raises:
        InvalidParameterError: it is of another type, empty, longer than `longest`, or no valid Unicode.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID, Integral)):
        raise InvalidParameterError(f"{what} must be a string, an integer or a UUID, got {value!r}")
    text = str.__str__(value) if isinstance(value, str) else str(value)  # of an enum of strings, its value
    if not 0 < len(text) <= longest:
        raise InvalidParameterError(f"{what} must have 1 to {longest} characters, got {len(text)}: {text[:40]!r}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidParameterError(f"{what} is no valid Unicode: {text[:40]!r}") from error
    return text


def digest(*texts: str, size: int = 8) -> int:
    """A hash of some texts, of `size` bytes: the same in every process, on every machine, in every version of Python.

    It is BLAKE2b of the texts as a JSON array (ASCII), read as a little-endian integer.
    """
    document = json.dumps(texts).encode("ascii")
    return int.from_bytes(hashlib.blake2b(document, digest_size=size).digest(), "little")


def new_id() -> str:
    """A random id of an impression: 128 bits, so that nobody guesses another's."""
    return secrets.token_hex(16)
