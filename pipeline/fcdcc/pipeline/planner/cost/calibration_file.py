"""Measured speeds in a file of the user's: measured once, used by later plans.

The file is ``calibration.json`` in the folder ``fcdcc`` of the user's caches
(``$XDG_CACHE_HOME``, else ``~/.cache``), or what Dask's configuration value
``fcdcc.calibration-file`` names. It has an entry for every cluster: the scheduler's address, or,
for clusters on this machine, its name and how the workers were started. Losing it costs a
calibration.
"""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask.config
from pydantic import TypeAdapter, ValidationError

from ...plans.forecast import Speeds

logger = logging.getLogger(__name__)

FORMAT = 2
MOST = 100
"""Clusters that are remembered, the latest ones."""


def calibration_file() -> Path:
    """Return where speeds are kept."""
    own = dask.config.get("fcdcc.calibration-file", None)
    if own:
        return Path(own).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME")
    folder = Path(caches) if caches else Path.home() / ".cache"
    return folder / "fcdcc" / "calibration.json"


def read_speeds(cluster: str) -> Speeds | None:
    """Return the speeds that were measured on a cluster; None where none were.

    A file that cannot be read is reported in one line of the log, and counts as none.
    """
    entry = _entries().get(cluster)
    if entry is None:
        return None
    try:
        return TypeAdapter(Speeds).validate_python(entry["speeds"])
    except (ValidationError, KeyError, TypeError):
        _broken(calibration_file(), f"what it says of {cluster} is not complete")
        return None


def save_speeds(cluster: str, speeds: Speeds) -> Path:
    """Keep the speeds of a cluster, and return the file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    file = calibration_file()
    entries = _entries()
    entries[cluster] = {"measured": time.time(), "speeds": asdict(speeds)}
    latest = sorted(entries, key=lambda name: -_measured(entries[name]))[:MOST]
    text = json.dumps({"format": FORMAT, "clusters": {n: entries[n] for n in latest}}, indent=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return file


def _measured(entry: Any) -> float:
    found = entry.get("measured") if isinstance(entry, dict) else None
    return float(found) if isinstance(found, int | float) else 0.0


def _entries() -> dict[str, Any]:
    """Return what is in the file; nothing if it is not there or cannot be used."""
    file = calibration_file()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _broken(file, str(error))
        return {}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        _broken(file, f"expected format {FORMAT}")
        return {}
    entries = content.get("clusters")
    return entries if isinstance(entries, dict) else {}


def _broken(file: Path, why: str) -> None:
    logger.warning(
        "the measured speeds in %s cannot be used (%s): default ones are taken; --calibrate "
        "measures again", file, " ".join(why.split()),
    )  # fmt: skip
