"""The folder of the demo: where it is, and the names of the files in it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from fcdcc.coding.errors import FcdccError

DEFAULT_FOLDER = "demo"

MODEL = "lenet5.pt2"
IMAGES = "digits.zarr"
HEALTHY_OUTPUT = "predictions.zarr"
STALLED_OUTPUT = "predictions-stalled.zarr"
PICTURE = "timeline.png"


class DemoError(FcdccError, ValueError):
    """The demo cannot run with these options, or found data that it did not expect."""


class MissingExtraError(FcdccError, ImportError):
    """A package that only the demo needs is not installed."""


def make_folder(folder: Path | None, parent: Path = Path()) -> Path:
    """Make the folder for the demo's files and return its path.

    Without ``folder`` it is the first of ``demo``, ``demo-2``, … in ``parent``, by default the
    current directory, that does not exist.

    Raises
    ------
    DemoError
        If ``folder`` is a file or not empty, or cannot be made.
    """
    unnamed = (DEFAULT_FOLDER if i == 1 else f"{DEFAULT_FOLDER}-{i}" for i in count(1))
    for path in [folder] if folder is not None else (parent / name for name in unnamed):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if folder is None:
                continue
            if not path.is_dir():
                raise DemoError(f"{path} is a file; expected a new or an empty folder") from None
            if any(path.iterdir()):
                raise DemoError(
                    f"{path} is not empty; expected a new or an empty folder for the demo's "
                    "files: name another one, or leave it out"
                ) from None
        except OSError as error:
            raise DemoError(
                f"{path} cannot be made: {error.strerror}; expected a folder that can be written: "
                "name another one"
            ) from error
        return path
    raise AssertionError("unreachable: there is always a next number")
