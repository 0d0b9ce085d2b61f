"""Preparation of images for a network: scale, mean, standard deviation.

The arithmetic has the order and precision of torchvision's ``ToTensor`` and ``Normalize``, so that
a prepared image is bit for bit equal to what a model was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .checksummed_json import Json
from .errors import PreparationError

__all__ = ["Preparation"]


@dataclass(frozen=True)
class Preparation:
    """The conversion of stored images to a network's input.

    Parameters
    ----------
    scale
        ``"auto"``: unsigned bytes are divided by 255, other types are unchanged; ``"none"``:
        all types are unchanged; ``"max"``: integers are divided by the largest one of their
        type; a number: all types are divided by it.
    mean, std
        Subtracted, and divided by, after scaling: one number, or one per channel, in units of
        the scaled images; None for neither.
    dtype
        ``"float32"`` or ``"float64"``, the type in which the network computes.

    Raises
    ------
    PreparationError
        If a value is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> Preparation(mean=0.5, std=0.5).apply(np.array([[[0, 255]]], dtype=np.uint8))
    array([[[-1.,  1.]]], dtype=float32)
    """

    scale: Literal["auto", "none", "max"] | float = "auto"
    mean: tuple[float, ...] | float | None = None
    std: tuple[float, ...] | float | None = None
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        if self.scale not in ("auto", "none", "max"):
            object.__setattr__(self, "scale", _positive_number(self.scale))
        if self.dtype not in ("float32", "float64"):
            raise PreparationError(f"dtype {self.dtype!r}; expected 'float32' or 'float64'")
        object.__setattr__(self, "mean", _numbers("mean", self.mean))
        object.__setattr__(self, "std", _numbers("std", self.std))
        if any(value <= 0.0 for value in _as_tuple(self.std)):
            raise PreparationError(f"std {_text(self.std)}; expected numbers above 0")

    def check(self, channels: int, dtype: str | None = None) -> None:
        """Raise PreparationError unless the values fit images of so many channels.

        With ``dtype``, the type of the images, the scale must fit it, too.
        """
        if dtype is not None:
            self.divisor(np.dtype(dtype))
        for label, values in (("mean", self.mean), ("std", self.std)):
            if isinstance(values, tuple) and len(values) not in (1, channels):
                raise PreparationError(
                    f"{label} has {len(values)} numbers ({_text(values)}) and the images have "
                    f"{channels} channels; give one number or {channels}"
                )

    def divisor(self, dtype: np.dtype[Any]) -> float | None:
        """Return what images of a type are divided by; None if their scale is unchanged.

        Raises
        ------
        PreparationError
            If the scale is ``"max"`` and the type is none of integers.
        """
        if self.scale == "auto":
            return 255.0 if dtype == np.uint8 else None
        if self.scale == "none":
            return None
        if not isinstance(self.scale, str):
            return self.scale
        if dtype.kind not in "iu":
            raise PreparationError(
                f"scale 'max' for images of {dtype}, which have no largest value; give the number "
                "to divide by"
            )
        return float(np.iinfo(dtype).max)

    def apply(self, images: NDArray[np.generic]) -> NDArray[np.float32] | NDArray[np.float64]:
        """Return (n, c, *space) images of any real dtype, prepared.

        Returns
        -------
        ndarray
            A new array of the same shape and of ``dtype``, C-contiguous.

        Raises
        ------
        PreparationError
            If mean or std do not fit the number of channels, or the scale does not fit the type.
        """
        self.check(images.shape[1])
        divisor = self.divisor(images.dtype)
        prepared: NDArray[np.float32] | NDArray[np.float64]
        prepared = np.array(images, dtype=self.dtype, order="C", copy=True)
        if divisor is not None:
            prepared /= prepared.dtype.type(divisor)
        if self.mean is not None:
            prepared -= self._per_channel(self.mean, images.ndim)
        if self.std is not None:
            prepared /= self._per_channel(self.std, images.ndim)
        return prepared

    def _per_channel(self, values: tuple[float, ...] | float, ndim: int) -> NDArray[np.floating]:
        numbers = np.array(_as_tuple(values), dtype=self.dtype)
        return numbers.reshape((1, -1) + (1,) * (ndim - 2))

    def as_json(self) -> dict[str, Json]:
        """Return the preparation as JSON, for a fingerprint."""
        return {
            "scale": self.scale,
            "mean": [*_as_tuple(self.mean)],
            "std": [*_as_tuple(self.std)],
            "dtype": self.dtype,
        }


def _positive_number(value: object) -> float:
    """Return the number that a scale is; PreparationError if it is none above 0."""
    try:
        number = float(value)  # type: ignore[arg-type] # anything that is no number is refused
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise PreparationError(
            f"scale {value!r}; expected 'auto', 'none', 'max' or a number above 0 to divide by"
        )
    return number


def _numbers(
    label: str, values: Sequence[float] | float | None
) -> tuple[float, ...] | float | None:
    if values is None:
        return None
    single = np.ndim(values) == 0
    try:
        numbers = tuple(float(value) for value in np.atleast_1d(np.asarray(values)))
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise PreparationError(f"{label} {values!r}; expected one finite number or one per channel")
    return numbers[0] if single else numbers


def _as_tuple(values: tuple[float, ...] | float | None) -> tuple[float, ...]:
    if values is None:
        return ()
    return values if isinstance(values, tuple) else (values,)


def _text(values: tuple[float, ...] | float | None) -> str:
    return ", ".join(f"{value:g}" for value in _as_tuple(values))
