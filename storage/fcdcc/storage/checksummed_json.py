"""JSON objects with a checksum inside.

A sealed object is one line of JSON whose first member, ``check``, is the SHA-256 of the bytes of
the other members. :func:`unseal` detects any change, and every JSON parser can read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TypeAlias

from .errors import DamageError

__all__ = ["Json", "canonical", "digest", "seal", "unseal"]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A value that JSON can represent."""

_HEAD = b'{"check":"'
_TAIL = b'",'
_DIGEST_CHARACTERS = 64

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder()


def canonical(value: Json) -> str:
    """Return the canonical JSON text of a value: members sorted, no spaces, ASCII only.

    >>> canonical({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return _CANONICAL.encode(value)


def digest(data: bytes) -> str:
    """Return the SHA-256 of some bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def seal(members: Mapping[str, Json]) -> bytes:
    """Return an object with at least one member as sealed JSON, without a line break."""
    body = canonical(dict(members)).encode()
    return _HEAD + digest(body).encode() + _TAIL + body[1:]


def unseal(data: bytes) -> dict[str, Json]:
    """Return the members of a sealed object, ``check`` left out.

    Raises
    ------
    DamageError
        If the bytes are not exactly what :func:`seal` returned, or what they hold is no JSON.
    """
    start = len(_HEAD) + _DIGEST_CHARACTERS + len(_TAIL)
    body = b"{" + data[start:]
    if data[:start] != _HEAD + digest(body).encode() + _TAIL:
        raise DamageError("its contents do not match its checksum")
    try:
        members = _DECODER.decode(body.decode("utf-8", "surrogatepass"))
    except (RecursionError, ValueError) as error:  # a checksum fits any bytes
        raise DamageError(f"it is not JSON: {error}") from error
    if not isinstance(members, dict):
        raise DamageError("it is not a JSON object")
    return members
