"""The names of the demonstration's files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path

from fcdcc.coding.errors import FcdccError

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


class DemoError(FcdccError, ValueError):
    """A demonstration that cannot be given as it was asked for."""


class MissingExtraError(FcdccError, ImportError):
    """A package that only the demonstration needs is not installed."""


@dataclass(frozen=True)
class DemoFiles:
    """Where everything is in the demonstration's folder."""

    folder: Path

    @property
    def model(self) -> Path:
        """The exported network."""
        return self.folder / "lenet5.pt2"

    @property
    def images(self) -> Path:
        """The images that it has not seen, with labels."""
        return self.folder / "digits.zarr"

    @property
    def healthy(self) -> Path:
        """The predictions of the run with all workers at work."""
        return self.folder / "predictions.zarr"

    @property
    def stalled(self) -> Path:
        """The predictions of the run with some stopped."""
        return self.folder / "predictions-stalled.zarr"

    @property
    def picture(self) -> Path:
        """The picture of what happened."""
        return self.folder / "timeline.png"
