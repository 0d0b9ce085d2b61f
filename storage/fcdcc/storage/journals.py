"""What each run left about itself beside the output: a file per run, for people to read later.

Nothing depends on these files: predictions and records are whole without them, an older
version passes over them, and one that is damaged is left out. Of an output with very many
runs the oldest files are removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from .checksummed_json import Json, seal, unseal
from .errors import DamageError, OutputError
from .files import Folder
from .locations import normalise, shown
from .objects import open_folder
from .runs import PRIVATE

__all__ = [
    "JOURNALS",
    "damaged_journals",
    "last_journal",
    "read_journals",
    "trim_journals",
    "write_journal",
]

JOURNALS = f"{PRIVATE}/runs"

KEPT = 50
"""Files of earlier runs that stay when a new run writes its first."""

_NAME = re.compile(r"[0-9A-Za-z-]{1,80}")


def write_journal(folder: Folder, name: str, members: Mapping[str, Json]) -> None:
    """Write a run's file, all of it or nothing, in place of what the same run wrote before.

    Parameters
    ----------
    folder
        Of the output.
    name
        Of the run, letters, digits and hyphens; names sort by the time of their runs.
    members
        What to keep; numbers must be finite.

    Raises
    ------
    OutputError
        If the name is none.
    OSError
        If it cannot be written.
    """
    if _NAME.fullmatch(name) is None:
        raise OutputError(f"{name!r} is no name of a run; expected letters, digits and hyphens")
    folder.write(f"{JOURNALS}/{name}.json", seal(members) + b"\n")


def damaged_journals(folder: Folder) -> dict[str, str]:
    """Return the files that are not what a run has written, each with what is wrong."""
    found: dict[str, str] = {}
    for name, data in folder.read_many(_names(folder)):
        try:
            if not data.endswith(b"\n"):
                raise DamageError("it is cut off")
            unseal(data[:-1])
        except DamageError as error:
            found[name] = str(error)
    return found


def trim_journals(folder: Folder) -> None:
    """Remove the files of the oldest runs where there are more than are kept."""
    names = _names(folder)
    folder.delete(names[: max(0, len(names) - KEPT)])


def read_journals(url: str | os.PathLike[str]) -> list[dict[str, Json]]:
    """Return what the runs of an output left, oldest first; damaged files are left out.

    Raises
    ------
    OutputError
        If they cannot be read.
    """
    folder = open_folder(normalise(url))
    return _read(folder, _names(folder))


def last_journal(url: str | os.PathLike[str]) -> dict[str, Json] | None:
    """Return what the latest run left; None where no run has left anything.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    folder = open_folder(normalise(url))
    found = _read(folder, _names(folder)[-1:])
    return found[0] if found else None


def _names(folder: Folder) -> list[str]:
    try:
        return sorted(name for name in folder.sizes(JOURNALS) if name.endswith(".json"))
    except OSError as error:
        raise OutputError(f"{shown(folder.location)} cannot be read: {error}") from error


def _read(folder: Folder, names: list[str]) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    try:
        for _, data in folder.read_many(names):
            try:
                found.append(unseal(data.removesuffix(b"\n")))
            except DamageError:
                continue
    except OSError as error:
        raise OutputError(f"{shown(folder.location)} cannot be read: {error}") from error
    return found
