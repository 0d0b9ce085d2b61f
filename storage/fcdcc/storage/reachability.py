"""Tells stores that cannot be reached now from those that refuse, or have not what is wanted.

Drivers raise errors of their own classes for a connection that is refused or ends, a name that is
not resolved and a server that does not answer in time or is overloaded. They are recognised by the
names of their classes, so that no driver has to be imported.
"""

from __future__ import annotations

import errno
import ssl

from .errors import UnreachableError
from .locations import has_secrets, scrubbed

__all__ = ["as_unreachable"]

_CLASSES = frozenset({
    "ConnectionError",  # of Python, botocore and requests
    "TimeoutError",  # of Python, so of fsspec and aiohttp
    "gaierror",
    "ClientConnectionError", "ClientPayloadError",  # of aiohttp
    "ConnectionClosedError", "ConnectTimeoutError", "ReadTimeoutError",  # of botocore
    "IncompleteReadError", "ResponseStreamingError",  # of botocore, in the middle of an answer
    "Timeout",  # of requests
    "ServiceRequestError", "ServiceResponseError",  # of Azure
})  # fmt: skip
"""Names of classes of errors that connections have."""

_CERTIFICATES = frozenset({"SSLError", "ClientSSLError", "SSLCertVerificationError"})
"""Names of classes of errors of TLS, which a later try has as well."""

_NUMBERS = frozenset({
    errno.EBUSY,  # what s3fs makes of SlowDown and ServiceUnavailable
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip
"""Error numbers of hosts that cannot be reached, or that are busy."""

_STATUSES = frozenset({429, 502, 503, 504})
"""HTTP statuses of servers that are overloaded, or stand before one that does not answer."""


def as_unreachable(error: BaseException, location: str) -> UnreachableError | None:
    """Return an error without credentials if a store is out of reach; None if it is another one.

    >>> as_unreachable(ConnectionRefusedError("refused"), "s3://bucket/images.zarr")
    UnreachableError('refused')
    >>> as_unreachable(PermissionError("denied"), "s3://bucket/images.zarr")
    """
    found = _out_of_reach(error)
    if found is None:
        return None
    text = " ".join(str(found).split()) or type(found).__name__
    unreachable = UnreachableError(scrubbed(text, location))
    if not has_secrets(location):  # a chained error would show the location in a traceback
        unreachable.__cause__ = error
    return unreachable


def _out_of_reach(error: BaseException) -> BaseException | None:
    """Return which of an error and its causes says that a store is out of reach."""
    found: BaseException | None = error
    while found is not None:
        names = {kind.__name__ for kind in type(found).__mro__}
        if isinstance(found, ssl.SSLError) or names & _CERTIFICATES:
            return None
        number, status = getattr(found, "errno", None), getattr(found, "status", None)
        is_busy = isinstance(number, int) and number in _NUMBERS
        is_busy = is_busy or (isinstance(status, int) and status in _STATUSES)
        if names & _CLASSES or is_busy:
            return found
        found = found.__cause__
    return None
