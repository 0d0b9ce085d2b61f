"""In what form answers are stored: as the network gives them, or what people ask of them.

A network's output is (n, classes, *rest); what lies along its first axis after n are scores,
called logits here whatever they are.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import Coordinate, OutputArray

from .errors import OptionError


def read_text(path: str | Path, most: int, encoding: str = "utf-8") -> str:
    """Return the text of a file of at most ``most`` bytes.

    Neither a device nor a pipe that never ends is read, nor a file that was named by mistake
    and fills the memory.

    Raises
    ------
    OSError
        If it cannot be read, is no file, or is larger.
    UnicodeDecodeError
        If it is no text of this encoding.
    """
    try:
        file = Path(path)
        if file.exists() and not file.is_file():
            raise OSError(errno.EINVAL, "it is no file", str(path))
        with file.open("rb") as stream:
            data = stream.read(most + 1)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return data.decode(encoding)


Array = NDArray[Any]

CLASS_DIM = "class"

RANK_DIM = "rank"

NO_CLASS = -1
"""The class of what has no scores that are numbers."""

MOST_BYTES = 1 << 26

KINDS = ("logits", "probabilities", "classes")

TOP = "top:"


@dataclass(frozen=True)
class StoredForm:
    """What is stored of every image.

    Parameters
    ----------
    kind
        ``logits``, ``probabilities`` (their softmax), ``classes`` (the number of the largest)
        or ``top`` (the numbers and probabilities of the ``k`` largest, largest first).
    k
        How many for ``top``, else 0.
    """

    kind: str
    k: int = 0

    @classmethod
    def parse(cls, text: str) -> StoredForm:
        """Return the form that ``--store`` names.

        >>> StoredForm.parse("top:5")
        StoredForm(kind='top', k=5)

        Raises
        ------
        ValueError
            If it names none.
        """
        if text in KINDS:
            return cls(text)
        count = text.removeprefix(TOP)
        if text.startswith(TOP) and count.isascii() and count.isdecimal() and int(count) > 0:
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
            Of one image's logits: (classes, *rest), with their names.
        dtype
            Of the logits.
        bands
            The axis of the logits that is rows, and the rows of a block; None where blocks
            hold whole images.

        Raises
        ------
        OptionError
            If there are no classes, or fewer than are asked for.
        """
        arrays = self._whole_arrays(shape, dims, dtype)
        if bands is None:
            return arrays
        axis, band = bands
        if axis == 0 and self.kind != "logits":
            raise OptionError(
                f"--store {self.kind} of an image in bands needs a prediction (classes, rows, …); "
                f"the model gives {dims}: use --store logits"
            )
        gone = 1 if self.kind == "classes" else 0
        return [replace(array, row_axis=axis - gone, band=band) for array in arrays]

    def _whole_arrays(
        self, shape: tuple[int, ...], dims: tuple[str, ...], dtype: str
    ) -> list[OutputArray]:
        if self.kind == "logits":
            return [OutputArray("prediction", shape, dtype, dims)]
        if not shape:
            raise OptionError(
                f"--store {self.kind} for a model that gives one number per image; expected one "
                "that gives (classes, …): use --store logits"
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
        """Return what is stored, by array, of logits (images, classes, *rest).

        Where a score is not a number, the class is −1 and the probability NaN.
        """
        if self.kind == "logits":
            return {"prediction": logits}
        if self.kind == "probabilities":
            return {"prediction": _softmax(logits)}
        blank = np.isnan(logits).any(axis=1)
        if self.kind == "classes":
            best = logits.argmax(axis=1).astype(np.int32)
            return {"prediction": np.where(blank, np.int32(NO_CLASS), best)}
        order = np.argsort(-logits, axis=1, kind="stable")[:, : self.k]
        return {
            "prediction": np.where(
                np.expand_dims(blank, 1), np.int32(NO_CLASS), order.astype(np.int32)
            ),
            "probability": np.take_along_axis(_softmax(logits), order, axis=1),
        }


def _softmax(logits: Array) -> Array:
    """Return the softmax over axis 1, in the same floating type; NaN where a score is none."""
    with np.errstate(invalid="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def class_names(path: str, classes: int) -> Coordinate:
    """Return the names in a file, one per line in the order of the classes, as a coordinate.

    Raises
    ------
    OptionError
        If it cannot be read, or holds another number of names.
    """
    try:
        lines = read_text(path, MOST_BYTES, "utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"--classes {path} cannot be read: {error}; expected a text file with one name per line"
        ) from error
    names = [line.strip() for line in lines]
    if len(names) != classes or not all(names):
        raise OptionError(
            f"--classes {path} holds {sum(map(bool, names))} names on {len(names)} lines; the "
            f"model has {classes} classes: expected one name on each of {classes} lines"
        )
    return Coordinate(CLASS_DIM, CLASS_DIM, np.array(names, dtype=np.dtypes.StringDType()))
