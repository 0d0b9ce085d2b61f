"""Images and predictions in Zarr, with the records that make a job resumable.

``images`` opens a Zarr array of images as a small value that any process can read from,
``preparation`` turns stored images into a network's input. ``outputs`` creates, continues
and puts aside outputs; ``predictions`` writes blocks of them with their completion records;
``verification`` checks all stored files; ``locking`` prevents that two runs write one output.

This layer does not depend on Dask: any process may write a block.

Names are imported when they are first used: ``fcdcc status`` needs neither Zarr nor what reads
images.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .axes import Axes, find_axes
    from .block_status import Progress
    from .checksummed_json import Json
    from .chunks import OutputArray
    from .errors import (
        DamageError,
        InputError,
        LocationError,
        LockedError,
        OutputError,
        OutputGoneError,
        OutputMismatchError,
        PreparationError,
        UnreachableError,
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
        predictions_of,
        resize_predictions,
        salvage_predictions,
        set_aside,
    )
    from .prediction_store import PredictionStore
    from .preparation import Preparation
    from .records import BlockRecord
    from .runs import StoredRun
    from .verification import Damage, damaged_blocks, find_foreign_files, verify

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
    "LocationError",
    "LockedError",
    "OutputArray",
    "OutputError",
    "OutputGoneError",
    "OutputMismatchError",
    "PredictionStore",
    "Preparation",
    "PreparationError",
    "Progress",
    "StoredRun",
    "UnreachableError",
    "check_fingerprint",
    "create_predictions",
    "damaged_blocks",
    "find_axes",
    "find_foreign_files",
    "hold",
    "inspect_output",
    "open_images",
    "open_predictions",
    "predictions_of",
    "resize_predictions",
    "salvage_predictions",
    "set_aside",
    "verify",
]

_MODULE_OF = {
    "Axes": "axes",
    "BlockLayout": "layout",
    "BlockRecord": "records",
    "Coordinate": "metadata",
    "Damage": "verification",
    "DamageError": "errors",
    "Fingerprint": "fingerprint",
    "ImageSource": "images",
    "InputError": "errors",
    "Json": "checksummed_json",
    "LocationError": "errors",
    "LockedError": "errors",
    "OutputArray": "chunks",
    "OutputError": "errors",
    "OutputGoneError": "errors",
    "OutputMismatchError": "errors",
    "PredictionStore": "prediction_store",
    "Preparation": "preparation",
    "PreparationError": "errors",
    "Progress": "block_status",
    "StoredRun": "runs",
    "UnreachableError": "errors",
    "check_fingerprint": "outputs",
    "create_predictions": "outputs",
    "damaged_blocks": "verification",
    "find_axes": "axes",
    "find_foreign_files": "verification",
    "hold": "locking",
    "inspect_output": "outputs",
    "open_images": "images",
    "open_predictions": "outputs",
    "predictions_of": "outputs",
    "resize_predictions": "outputs",
    "salvage_predictions": "outputs",
    "set_aside": "outputs",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
