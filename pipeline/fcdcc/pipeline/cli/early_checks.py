"""Mistakes in the places of files, found before anything is imported that takes seconds."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fcdcc.storage.errors import InputError
from fcdcc.storage.locations import is_local, normalise, shown

from ..errors import EXPECTED_MODEL, ModelError, OptionError
from ..options import JobConfig, flag_of

ZARR_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zmetadata", ".zattrs")
"""Files of which a folder has at least one if it is a Zarr array or group."""

NAMED_FILES = ("classes", "plan")
"""Options that name a file which is read early."""

MAX_LOOKED_AT = 1 << 30
"""Bytes of a model file up to which its directory is looked for; opening says of larger ones."""


def check_files(job: JobConfig) -> None:
    """Raise for local files that are not there or are something else; what opens them says more.

    It looks at names and at the end of the model file only.

    Raises
    ------
    ModelError, InputError, OptionError
        If the model, the images or another file cannot be what they are given as.
    """
    _check_model(job.model)
    _check_images(job.input)
    for option in NAMED_FILES:
        path = getattr(job, option)
        if path is not None and is_local(place := normalise(path)) and not Path(place).exists():
            raise OptionError(f"{flag_of(option)} {shown(path)}: there is no such file")


def _check_model(source: str) -> None:
    place, name = normalise(source), shown(source)
    if not is_local(place):
        return
    path = Path(place)
    if not path.exists():
        raise ModelError(f"{name}: no such file; {EXPECTED_MODEL}")
    if path.is_dir():
        raise ModelError(f"{name} cannot be read: it is a folder; {EXPECTED_MODEL}")
    if path.is_file() and path.stat().st_size <= MAX_LOOKED_AT and not zipfile.is_zipfile(path):
        raise ModelError(f"{name} is not a .pt2 file (File is not a zip file); {EXPECTED_MODEL}")


def _check_images(url: str) -> None:
    place = normalise(url)
    if not is_local(place):
        return
    path, problem = Path(place), f"{shown(place)} cannot be opened as a Zarr array or group"
    if not path.exists():
        raise InputError(f"{problem}: it does not exist")
    if path.is_dir() and not any((path / name).exists() for name in ZARR_METADATA):
        raise InputError(
            f"{problem}: the folder holds none there; of a folder of pictures, fcdcc ingest FOLDER "
            "OUT.zarr makes one"
        )
