"""Journals of runs: a file per run in the output, which ``fcdcc report`` reads.

Nothing else depends on these files: predictions and records are complete without them, older
versions ignore them, and damaged ones are skipped. The oldest files of an output with very many
runs are removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from .checksummed_json import Json, seal, unseal
from .errors import DamageError, OutputError
from .files import MAX_RECORD_BYTES, Folder
from .foreign_files import is_foreign
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

MAX_JOURNALS = 50
"""Number of journals that :func:`trim_journals` keeps."""

_NAME = re.compile(r"[0-9A-Za-z-]{1,80}")


def write_journal(folder: Folder, name: str, members: Mapping[str, Json]) -> None:
    """Write a run's journal, completely or not at all, in place of an earlier one of the run.

    Parameters
    ----------
    folder
        Of the output.
    name
        Of the run, letters, digits and hyphens; names sort by the time of their runs.
    members
        The contents; numbers must be finite.

    Raises
    ------
    OutputError
        If the name is not allowed.
    OSError
        If it cannot be written.
    """
    if _NAME.fullmatch(name) is None:
        raise OutputError(f"{name!r} is not a name of a run; expected letters, digits and hyphens")
    folder.write(f"{JOURNALS}/{name}.json", seal(members) + b"\n")


def damaged_journals(folder: Folder) -> dict[str, str]:
    """Return the damaged journals, each with what is wrong."""
    found: dict[str, str] = {}
    for name, data in folder.read_many(_names(folder), MAX_RECORD_BYTES):
        try:
            if not data.endswith(b"\n"):
                raise DamageError("it is cut off")
            unseal(data[:-1])
        except DamageError as error:
            found[name] = str(error)
    return found


def trim_journals(folder: Folder) -> None:
    """Remove the journals of the oldest runs if there are more than :data:`MAX_JOURNALS`."""
    names = _names(folder)
    folder.delete(names[: max(0, len(names) - MAX_JOURNALS)])


def read_journals(url: str | os.PathLike[str]) -> list[dict[str, Json]]:
    """Return the journals of an output's runs, oldest first, without damaged ones.

    Raises
    ------
    OutputError
        If they cannot be read.
    """
    folder = open_folder(normalise(url))
    return _read(folder, _names(folder))


def last_journal(url: str | os.PathLike[str]) -> dict[str, Json] | None:
    """Return the journal of the latest run; None if there is none or it is damaged.

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
        names = [name for name in folder.sizes(JOURNALS) if not is_foreign(name)]
        return sorted(name for name in names if name.endswith(".json"))
    except OSError as error:
        raise OutputError(f"{shown(folder.location)} cannot be read: {error}") from error


def _read(folder: Folder, names: list[str]) -> list[dict[str, Json]]:
    found: list[dict[str, Json]] = []
    try:
        for _, data in folder.read_many(names, MAX_RECORD_BYTES):
            try:
                found.append(unseal(data.removesuffix(b"\n")))
            except DamageError:
                continue
    except OSError as error:
        raise OutputError(f"{shown(folder.location)} cannot be read: {error}") from error
    return found
