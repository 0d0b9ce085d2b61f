"""How the command ``fcdcc`` of this environment is called."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "fcdcc"


def program_command() -> list[str]:
    """Return the words that call this environment's ``fcdcc`` from anywhere, without a PATH."""
    installed = _installed()
    if installed is None:
        return [sys.executable, "-m", "fcdcc.pipeline"]
    return [str(installed)]


def typed_program() -> str:
    """Return what a user types in the current directory to call this environment's ``fcdcc``."""
    installed, found = _installed(), shutil.which(PROGRAM)
    if installed is None and found is None:
        return shlex.join(program_command())
    if installed is None or (found is not None and Path(found).samefile(installed)):
        return PROGRAM
    return shlex.quote(os.path.relpath(installed))


def _installed() -> Path | None:
    path = Path(sys.executable).with_name(PROGRAM)
    return path if path.exists() else None
