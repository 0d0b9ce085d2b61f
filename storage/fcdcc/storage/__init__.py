"""Images and predictions in Zarr, with the records that make a job resumable.

``images`` opens a Zarr array of images as a small value that any process can read from,
``preparation`` turns stored images into a network's input. ``outputs`` creates, continues
and puts aside outputs; ``predictions`` writes blocks of them with their completion records;
``verification`` checks all stored files; ``locking`` prevents that two runs write one output.

This layer does not depend on Dask: any process may write a block.
"""

from __future__ import annotations

from .axes import Axes, find_axes
from .block_status import Progress
from .checksummed_json import Json
from .chunks import OutputArray
from .errors import (
    DamageError,
    InputError,
    LockedError,
    OutputError,
    OutputMismatchError,
    PreparationError,
)
from .fingerprint import Fingerprint
from .images import ImageSource, open_images
from .layout import BlockLayout
from .locking import hold
from .metadata import Coordinate
from .outputs import (
    check_fingerprint,
    create_predictions,
    inspect_output,
    open_predictions,
    resize_predictions,
    salvage_predictions,
    set_aside,
)
from .prediction_store import PredictionStore
from .preparation import Preparation
from .records import BlockRecord
from .runs import StoredRun
from .verification import Damage, damaged_blocks, verify

__all__ = [
    "Axes",
    "BlockLayout",
    "BlockRecord",
    "Coordinate",
    "Damage",
    "DamageError",
    "Fingerprint",
    "ImageSource",
    "InputError",
    "Json",
    "LockedError",
    "OutputArray",
    "OutputError",
    "OutputMismatchError",
    "PredictionStore",
    "Preparation",
    "PreparationError",
    "Progress",
    "StoredRun",
    "check_fingerprint",
    "create_predictions",
    "damaged_blocks",
    "find_axes",
    "hold",
    "inspect_output",
    "open_images",
    "open_predictions",
    "resize_predictions",
    "salvage_predictions",
    "set_aside",
    "verify",
]
