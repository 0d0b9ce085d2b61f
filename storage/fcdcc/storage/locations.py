"""Locations of data: local paths and URLs, and URLs without credentials for messages.

Everything that is not a local path is opened with fsspec. A URL may contain credentials, as
``user:password@`` or in its query; they are used to open the store and appear nowhere else.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from .errors import LocationError

__all__ = ["has_secrets", "is_local", "normalise", "scrubbed", "shown"]

_LOCAL_SCHEMES = ("file://", "local://")

_USER = re.compile(r"(?<=://)[^/?#]*@")
"""Name and password in a URL; a password may hold what joins the URLs of a chain."""

_IPV6_ADDRESS = re.compile(r"\[[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]")

MAX_SHOWN = 200
"""Characters of a path that cannot be used, in its message."""


def normalise(url: str | os.PathLike[str]) -> str:
    """Return an absolute local path, or the URL without a slash at its end.

    Worker processes may have another working directory, where a relative path would mean
    something else. Links are resolved, so that an output has one lock whatever path is given.

    Raises
    ------
    LocationError
        If no file can have such a path or URL: it contains a zero byte, links that lead in a
        circle, or the home of a user whom nobody knows.

    >>> normalise("memory://images.zarr/")
    'memory://images.zarr'
    >>> normalise("file:///data/images.zarr")
    '/data/images.zarr'
    """
    text = os.fspath(url)
    try:
        if "\0" in text:
            raise ValueError("it contains a zero byte")
        for scheme in _LOCAL_SCHEMES:
            if text.startswith(scheme):
                return str(Path(text.removeprefix(scheme)).resolve())
        if "://" in text:
            shown(text)
            return _IPV6_ADDRESS.sub(_in_full, text).rstrip("/")
        return str(Path(text).expanduser().resolve())
    except (OSError, RuntimeError, ValueError) as error:
        # The text of a URL may contain credentials.
        name = "a URL" if "://" in text else f"the path {text[:MAX_SHOWN]!r}"
        raise LocationError(f"{name} cannot be used: {error}; expected that of a file") from None


def is_local(location: str) -> bool:
    """Return whether a normalised location is a local path."""
    return "://" not in location


def shown(location: str) -> str:
    """Return a location without credentials, for messages, representations and identities.

    >>> shown("https://user:secret@example.org/images.zarr?token=abc")
    'https://example.org/images.zarr'
    >>> shown("https://user:secret@[2001:db8::1]:8080/images.zarr")
    'https://[2001:db8::1]:8080/images.zarr'
    >>> shown("https://user:a::b@example.org/images.zarr")
    'https://example.org/images.zarr'
    >>> shown("/data/images.zarr")
    '/data/images.zarr'
    """
    if is_local(location):
        return location
    return "::".join(map(_shown_link, _links(_USER.sub("", location))))


def _in_full(found: re.Match[str]) -> str:
    """Return an IPv6 address without the ``::`` at which fsspec would split the URL."""
    return f"[{IPv6Address(found.group()[1:-1]).exploded}]"


def _links(location: str) -> list[str]:
    """Return the URLs of a chain, which are joined by ``::``; an IPv6 address may have that, too.

    >>> _links("zip://images.zarr::https://[2001:db8::1]:8080/all.zip")
    ['zip://images.zarr', 'https://[2001:db8::1]:8080/all.zip']
    """
    joined = _IPV6_ADDRESS.sub(lambda found: found.group().replace("::", "\0"), location)
    return [link.replace("\0", "::") for link in joined.split("::")]


def _shown_link(link: str) -> str:
    if "://" not in link:
        return link
    parts = urlsplit(link)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scrubbed(text: str, location: str) -> str:
    """Return a text, such as a driver's message, without the credentials of a location.

    >>> scrubbed("no key abc at u:p@host", "https://u:p@host/x?token=abc")
    'no key … at …@host'
    """
    text = text.replace(location, shown(location))
    for link in _links(location) if not is_local(location) else ():
        parts = urlsplit(link)
        secrets = [parts.netloc.rpartition("@")[0], parts.password or "", parts.query]
        secrets += [parts.fragment, *(value for _, value in parse_qsl(parts.query))]
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) > 2:  # shorter ones are flags, and occur in other words
                text = text.replace(secret, "…")
    return text


def has_secrets(location: str) -> bool:
    """Return whether a location contains credentials."""
    return shown(location) != location
