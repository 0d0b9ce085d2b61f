"""Where the demonstration leaves its files: never over somebody's own."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from .errors import DemoError

__all__ = ["DEFAULT_NAME", "make_folder"]

DEFAULT_NAME = "demo"


def make_folder(folder: Path | None, beside: Path | None = None) -> Path:
    """Make the folder for the demonstration's files and return its path.

    Parameters
    ----------
    folder
        The one that the user wants; it may exist if it is empty. None for ``demo`` or, where
        that exists, the first of ``demo-2``, ``demo-3``, … that does not.
    beside
        Where the latter is made: by default in the current directory.

    Raises
    ------
    DemoError
        If there is something in ``folder`` already, or it cannot be made.
    """
    if folder is None:
        return _make_unused(beside or Path())
    if folder.is_dir():
        if any(folder.iterdir()):
            raise DemoError(
                f"{folder} is not empty; expected a new or an empty folder for the files of the "
                "demonstration: name another, or leave it out"
            )
        return folder
    if folder.exists():
        raise DemoError(f"{folder} is a file; expected the name of a new or an empty folder")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DemoError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


def _make_unused(beside: Path) -> Path:
    """Make the first folder of its name that does not exist."""
    for number in count(1):
        folder = beside / (DEFAULT_NAME if number == 1 else f"{DEFAULT_NAME}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise DemoError(
                f"{folder} cannot be made in {beside.resolve()}: {error.strerror}; name a folder "
                "in a place that can be written to"
            ) from error
        return folder
    raise AssertionError("numbers do not end")
