"""Reads regular files of bounded size: no devices, no pipes, nothing that never ends.

A file that a user or a record names may be a device, a pipe that nobody writes to, or far larger
than what belongs there. Reading it would fill the memory or wait for ever.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

__all__ = ["NotRegularError", "open_regular", "read_regular", "read_text"]

MAX_GROWTH_BYTES = 2**24
"""Bytes that a file may have in addition to its size when it was opened."""

# Opening a pipe without this flag waits until somebody writes to it.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


class NotRegularError(OSError):
    """A folder, a device or a pipe in place of a file, or a file that is too large."""


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises
    ------
    NotRegularError
        If it is a folder, a device, a pipe or a socket.
    OSError
        If it cannot be opened; also for a name that no file can have.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise NotRegularError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise NotRegularError(errno.EINVAL, "it is not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Return the contents of a regular file of at most ``max_bytes`` bytes.

    Raises
    ------
    NotRegularError
        If it is not a regular file, or is larger.
    OSError
        If it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b""
        if size <= max_bytes:
            data = file.read(size + 1) or b""
        if len(data) > size:  # it has grown, or is one of /proc, which have the size 0
            data += file.read(min(max_bytes + 1, MAX_GROWTH_BYTES)) or b""
    if size > max_bytes or len(data) > min(max_bytes, size + MAX_GROWTH_BYTES):
        raise NotRegularError(errno.EFBIG, f"it has more than {max_bytes} bytes", str(path))
    return data


def read_text(path: str | Path, max_bytes: int, encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most ``max_bytes`` bytes.

    Raises
    ------
    OSError
        As :func:`read_regular`.
    UnicodeDecodeError
        If it is not text in this encoding.
    """
    return read_regular(path, max_bytes).decode(encoding)
