"""The form in which predictions are stored: logits, probabilities or classes.

The output of a network is (n, classes, *rest). This module calls the values along its second
axis logits, whatever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import Coordinate, OutputArray
from fcdcc.storage.regular_files import read_text

from .errors import OptionError

Array: TypeAlias = NDArray[Any]

CLASS_DIM = "class"
"""Name of the axis of classes."""

RANK_DIM = "rank"
"""Name of the axis of the most probable classes, the most probable first."""

NO_CLASS = -1
"""The class where a logit is NaN."""

MAX_CLASS_FILE_BYTES = 64 * 2**20

MAX_DIGITS = 9
"""Digits of K in ``top:K``: more classes than that no network has."""

_KINDS = ("logits", "probabilities", "classes")
_TOP_PREFIX = "top:"


@dataclass(frozen=True)
class StoredForm:
    """What is stored of every image, as ``--store`` names it.

    Parameters
    ----------
    kind
        ``logits``, ``probabilities`` (their softmax), ``classes`` (the index of the largest)
        or ``top`` (the indices and probabilities of the ``k`` largest, largest first).
    k
        Number of classes for ``top``, else 0.
    """

    kind: str
    k: int = 0

    @classmethod
    def parse(cls, text: str) -> StoredForm:
        """Return the form that a value of ``--store`` names.

        >>> StoredForm.parse("top:5")
        StoredForm(kind='top', k=5)

        Raises
        ------
        ValueError
            If the text names no form.
        """
        if text in _KINDS:
            return cls(text)
        count = text.removeprefix(_TOP_PREFIX)
        if (
            text.startswith(_TOP_PREFIX)
            and count.isascii()
            and count.isdecimal()
            and len(count) <= MAX_DIGITS
            and int(count) > 0
        ):
            return cls("top", int(count))
        raise ValueError("expected logits, probabilities, classes or top:K, such as top:5")

    def arrays(
        self,
        shape: tuple[int, ...],
        dims: tuple[str, ...],
        dtype: str,
        bands: tuple[int, int] | None = None,
    ) -> list[OutputArray]:
        """Return the arrays of an output, ``prediction`` first.

        Parameters
        ----------
        shape, dims
            Shape (classes, *rest) and axis names of one image's logits.
        dtype
            Data type of the logits.
        bands
            The axis of ``shape`` that is rows, and the rows of a block; None if blocks hold
            whole images.

        Raises
        ------
        OptionError
            If the model has no classes, fewer than ``k``, or bands would cut through them.
        """
        arrays = self._arrays_of_whole_images(shape, dims, dtype)
        if bands is None:
            return arrays
        axis, band = bands
        if axis == 0 and self.kind != "logits":
            raise OptionError(
                f"--store {self.kind} of an image in bands needs a prediction (classes, rows, …); "
                f"the model predicts {dims}: use --store logits"
            )
        removed_axes = 1 if self.kind == "classes" else 0
        return [replace(array, row_axis=axis - removed_axes, band=band) for array in arrays]

    def _arrays_of_whole_images(
        self, shape: tuple[int, ...], dims: tuple[str, ...], dtype: str
    ) -> list[OutputArray]:
        if self.kind == "logits":
            return [OutputArray("prediction", shape, dtype, dims)]
        if not shape:
            raise OptionError(
                f"--store {self.kind} for a model that predicts one number per image; expected one "
                "that predicts (classes, …): use --store logits"
            )
        if self.kind == "probabilities":
            return [OutputArray("prediction", shape, dtype, dims)]
        if self.kind == "classes":
            return [OutputArray("prediction", shape[1:], "int32", dims[1:])]
        if self.k > shape[0]:
            raise OptionError(
                f"--store top:{self.k} for a model with {shape[0]} classes: expected at most "
                f"top:{shape[0]}"
            )
        ranked, names = (self.k, *shape[1:]), (RANK_DIM, *dims[1:])
        return [
            OutputArray("prediction", ranked, "int32", names),
            OutputArray("probability", ranked, dtype, names),
        ]

    def apply(self, logits: Array) -> dict[str, Array]:
        """Return what is stored of logits (images, classes, *rest), by name of the array.

        Where a logit is NaN, the class is −1 and the probability is NaN.
        """
        if self.kind == "logits":
            return {"prediction": logits}
        if self.kind == "probabilities":
            return {"prediction": _softmax(logits)}
        has_nan = np.isnan(logits).any(axis=1)
        if self.kind == "classes":
            best = logits.argmax(axis=1).astype(np.int32)
            return {"prediction": np.where(has_nan, np.int32(NO_CLASS), best)}
        order = np.argsort(-logits, axis=1, kind="stable")[:, : self.k]
        return {
            "prediction": np.where(
                np.expand_dims(has_nan, 1), np.int32(NO_CLASS), order.astype(np.int32)
            ),
            "probability": np.take_along_axis(_softmax(logits), order, axis=1),
        }


def _softmax(logits: Array) -> Array:
    """Return the softmax over axis 1 in the same dtype; NaN where a logit is NaN."""
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def class_names(path: str, classes: int) -> Coordinate:
    """Return the class names in a text file, one per line, as a coordinate.

    Raises
    ------
    OptionError
        If the file cannot be read, or has another number of names than the model has classes.
    """
    names = read_class_names(path)
    if len(names) != classes or not all(names):
        raise OptionError(
            f"--classes {path} has {sum(map(bool, names))} names on {len(names)} lines; the "
            f"model has {classes} classes: expected one name on each of {classes} lines"
        )
    return class_coordinate(names)


def read_class_names(path: str) -> list[str]:
    """Return the lines of a text file of class names, without white space around them.

    Raises
    ------
    OptionError
        If the file cannot be read.
    """
    try:
        lines = read_text(path, MAX_CLASS_FILE_BYTES, "utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--classes {path} cannot be read: {error}; expected a text file with one name per line"
        ) from error
    return [line.strip() for line in lines]


def class_coordinate(names: Sequence[str]) -> Coordinate:
    """Return class names as a coordinate of an output."""
    return Coordinate(CLASS_DIM, CLASS_DIM, np.array([*names], dtype=np.dtypes.StringDType()))
