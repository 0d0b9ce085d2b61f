"""The names of the demonstration's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DemoFiles"]


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
