"""Real images that need no download: scikit-learn's handwritten digits.

1797 digits written by 13 people, scanned as bitmaps of 32 × 32 pixels and published as counts
of the black pixels in cells of 4 × 4: images of 8 × 8 with values from 0 to 16 (E. Alpaydin
and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository,
1998). They are enlarged to the size of the scans, which is LeNet-5's input size.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch.nn import functional
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from .files import DemoError, MissingExtraError

DIGIT_SIZE = 32
"""Pixels along each side: the size of the original scans, and LeNet-5's."""

HELD_OUT_IMAGES = 597
"""Images that are not used for training, about a third."""

CHUNK_IMAGES = 16
"""Images per chunk of the Zarr array: few, so that a batch reads few images of other batches."""

SPLIT_SEED = 1998


@dataclass(frozen=True, eq=False)
class Digits:
    """Handwritten digits.

    Parameters
    ----------
    images
        (n, 1, 32, 32) unsigned bytes, 0 for paper and 255 for ink.
    labels
        (n,) int64, the digits that were meant.
    ids
        (n,) int64, their indices in scikit-learn's data set.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: NDArray[np.int64]) -> Digits:
        """Return the digits at these indices, in this order."""
        return Digits(self.images[indices], self.labels[indices], self.ids[indices])


def load_digits() -> Digits:
    """Return all 1797 digits, enlarged from 8 × 8 to 32 × 32.

    The enlargement is bicubic: a bilinear one leaves kinks in strokes and costs 0.5 % accuracy.

    Raises
    ------
    MissingExtraError
        If scikit-learn, which contains the images, is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtraError(
            "the demo takes its images from scikit-learn, which is not installed: "
            "install it with  pip install 'fcdcc[demo]'  (or pip install scikit-learn)"
        ) from None
    pixels, digits = datasets.load_digits(return_X_y=True)
    counts = np.asarray(pixels, dtype=np.float64).reshape(-1, 8, 8)
    labels = np.asarray(digits, dtype=np.int64)
    return Digits(_enlarge(counts), labels, np.arange(len(labels)))


def _enlarge(counts: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (n, 8, 8) counts from 0 to 16 as (n, 1, 32, 32) bytes from 0 to 255."""
    small = torch.from_numpy(counts / 16)[:, None]
    large = functional.interpolate(
        small, size=(DIGIT_SIZE, DIGIT_SIZE), mode="bicubic", align_corners=False
    )
    # Bicubic interpolation leaves [0, 1] at sharp edges.
    return (large.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def split_digits(digits: Digits, held_out: int = HELD_OUT_IMAGES) -> tuple[Digits, Digits]:
    """Return the digits to train on and the ones held out, the same random choice each time."""
    if not 0 < held_out < len(digits):
        raise DemoError(f"{held_out} of {len(digits)} digits held out; expected some, not all")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(digits))
    return digits.take(order[held_out:]), digits.take(order[:held_out])


def write_digits(digits: Digits, path: str | os.PathLike[str]) -> None:
    """Write digits as a new Zarr group (format 3) that is an input of ``fcdcc run``.

    Arrays: ``image`` (n, c, y, x), unsigned bytes, which a run scales to [0, 1]; ``label``
    (n,); the coordinate ``image_id`` (n,), which a run copies to its output.

    Raises
    ------
    FileExistsError
        If ``path`` exists.
    """
    group = xr.Dataset(
        {
            "image": (("n", "c", "y", "x"), digits.images, {"long_name": "handwritten digit"}),
            "label": (("n",), digits.labels, {"long_name": "digit that was meant"}),
        },
        coords={"image_id": (("n",), digits.ids)},
        attrs={
            "title": "Handwritten digits, enlarged from 8 x 8 to 32 x 32",
            "source": "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
            "UCI Machine Learning Repository, 1998; as in scikit-learn",
        },
    )
    encoding: dict[str, dict[str, object]] = {
        str(name): {"compressors": [ZstdCodec(level=3), Crc32cCodec()]} for name in group.variables
    }
    encoding["image"]["chunks"] = (CHUNK_IMAGES, *digits.images.shape[1:])
    with warnings.catch_warnings():
        # Zarr warns that consolidated metadata is not in the specification of format 3 yet;
        # without it, xarray warns each time that the group is opened.
        warnings.simplefilter("ignore", ZarrUserWarning)
        group.to_zarr(path, mode="w-", zarr_format=3, consolidated=True, encoding=encoding)
