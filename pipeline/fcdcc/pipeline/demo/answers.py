"""Whether answers are right: against labels, and against plain PyTorch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from .digits import Digits
from .errors import DemoError
from .lenet import accuracy

__all__ = ["Comparison", "compare", "read_predictions"]


@dataclass(frozen=True)
class Comparison:
    """How predictions compare with labels and with plain PyTorch.

    Parameters
    ----------
    images
        How many there are.
    accuracy
        The part of them whose largest logit is their label's.
    agreeing
        How many get the class that plain PyTorch gives them.
    largest_difference
        Of any logit from plain PyTorch's; NaN if one is missing.
    """

    images: int
    accuracy: float
    agreeing: int
    largest_difference: float

    @property
    def agrees(self) -> bool:
        """Whether every image gets the class that plain PyTorch gives it."""
        return self.agreeing == self.images and bool(np.isfinite(self.largest_difference))


def compare(
    predicted: NDArray[np.floating], plain: NDArray[np.floating], labels: NDArray[np.int64]
) -> Comparison:
    """Compare predictions with plain PyTorch's, both (n, classes), and with labels (n,)."""
    return Comparison(
        images=len(labels),
        accuracy=accuracy(predicted, labels),
        agreeing=int(np.sum(predicted.argmax(axis=1) == plain.argmax(axis=1))),
        largest_difference=float(np.abs(predicted - plain).max()),
    )


def read_predictions(path: str | os.PathLike[str], digits: Digits) -> NDArray[np.floating]:
    """Return the predictions of a run, (n, classes), one for each of the digits.

    Raises
    ------
    DemoError
        If they are those of other images.
    """
    with xr.open_zarr(path) as output:
        if not np.array_equal(output["image_id"].values, digits.ids):
            raise DemoError(f"{path} holds the predictions of other images")
        predictions: NDArray[np.floating] = output["prediction"].values
    return predictions
