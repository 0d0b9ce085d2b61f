"""Small text files from outside: job files, names of classes, saved plans."""

from __future__ import annotations

import errno
from pathlib import Path

__all__ = ["read_text"]


def read_text(path: str | Path, most: int, encoding: str = "utf-8") -> str:
    """Return the text of a file of at most ``most`` bytes.

    Neither a device nor a pipe that never ends is read, nor a file that was named by mistake
    and fills the memory.

    Raises
    ------
    OSError
        If it cannot be read, is no file, or is larger.
    UnicodeDecodeError
        If it is no text of this encoding.
    """
    try:
        file = Path(path)
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "it is no file", str(path))
        with file.open("rb") as stream:
            data = stream.read(most + 1)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data.decode(encoding)
