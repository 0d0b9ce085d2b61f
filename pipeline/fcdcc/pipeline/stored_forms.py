"""The form in which predictions are stored: logits, probabilities, classes or the top k.

What a form means depends on what the network predicts (:class:`~fcdcc.pipeline.heads.Head`): a
:class:`StoredPrediction` is a form of one kind of output, or is refused in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fcdcc.storage import Coordinate, Json, OutputArray
from fcdcc.storage.regular_files import read_text

from .errors import OptionError
from .heads import CLASS_DIM, CLASS_KINDS, Head

Array: TypeAlias = NDArray[Any]

RANK_DIM = "rank"
"""Name of the axis of the most probable classes, the most probable first."""

NO_CLASS = -1
"""The class where a number that decides it is NaN."""

DEFAULT_THRESHOLD = 0.5

MAX_CLASS_FILE_BYTES = 64 * 2**20

MAX_DIGITS = 9
"""Digits of K in ``top:K``: more classes than that no network has."""

_KINDS = ("logits", "probabilities", "classes")
_TOP_PREFIX = "top:"

Activation = Literal["none", "softmax", "sigmoid"]
"""What makes probabilities of the numbers that a network gives."""

Decision = Literal["none", "argmax", "threshold"]
"""What makes classes of these numbers."""


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

    def __str__(self) -> str:
        return f"{_TOP_PREFIX}{self.k}" if self.kind == "top" else self.kind

    def of(self, head: Head, threshold: float | None = None) -> StoredPrediction:
        """Return this form of an output.

        Parameters
        ----------
        head
            What the output is.
        threshold
            The probability above which a score, a label or a place of a mask counts as 1; None
            for one half.

        Raises
        ------
        OptionError
            If such an output has no such form, or the threshold decides nothing.
        """
        refusal = self._why_not(head)
        if refusal is not None:
            raise OptionError(f"--store {self} for a network that predicts {head}: {refusal}")
        decision: Decision = "none"
        if self.kind in ("classes", "top") and head.values != "decided":
            exclusive = head.kind in ("logits", "probabilities", "dense")
            decision = "argmax" if exclusive or self.kind == "top" else "threshold"
        if threshold is not None and decision != "threshold":
            raise OptionError(
                f"--threshold {threshold:g} with --store {self} of a network that predicts {head}: "
                "it is for --store classes of a score, of several labels or of a mask that are not "
                "decided yet; leave it out"
            )
        limit = DEFAULT_THRESHOLD if threshold is None else threshold
        return StoredPrediction(self, head, _activation(head), decision, limit)

    def _why_not(self, head: Head) -> str | None:
        """Return why an output has no such form and what to do, in words; None if it has one."""
        if self.kind == "logits":
            return None
        kind, count = head.kind, head.classes_along_first_axis
        raw = "--store logits, which stores what the network gives"
        if kind == "embedding":
            return f"features are no classes; use {raw}, or give --head logits if they are"
        if kind in CLASS_KINDS - {"labels"} and count < 2:
            other = "mask" if head.is_dense else "score"
            return f"one class needs no choice; give --head {other}, or use {raw}"
        if self.kind == "top":
            if kind not in CLASS_KINDS or head.values == "decided":
                return f"it has no classes to rank; use --store classes, or {raw}"
            if self.k > count:
                return f"expected at most top:{count}"
        if self.kind == "probabilities" and head.values == "decided":
            return f"it is decided already; use --store classes, or {raw}"
        argmax = self.kind == "classes" and kind in CLASS_KINDS - {"labels"}
        if head.values == "unknown" and not argmax:
            return (
                "whether these are logits or probabilities is not known; say what they are with "
                f"{' or '.join(_candidates(head))}, or use {raw}"
            )
        return None

    def apply(self, logits: Array) -> dict[str, Array]:
        """Return this form of logits (images, classes, *rest), by name of the array."""
        head = Head("logits", "logits", logits.shape[1:], logits.dtype.name, 0, "logits are given")
        return StoredPrediction(self, head, "softmax", "argmax", DEFAULT_THRESHOLD).apply(logits)


def _candidates(head: Head) -> list[str]:
    """Return the options that say what numbers of an unknown kind are."""
    kinds = ["logits", "labels"] if head.kind in CLASS_KINDS else [head.kind]
    return [f"--head {kind}" for kind in (*kinds, "probabilities")]


def _activation(head: Head) -> Activation:
    if head.values != "logits":
        return "none"
    return "softmax" if head.kind in ("logits", "dense") else "sigmoid"


@dataclass(frozen=True)
class StoredPrediction:
    """What is stored of an output; :meth:`StoredForm.of` makes it.

    Parameters
    ----------
    form
        The form, as ``--store`` names it.
    head
        What the output is.
    activation
        What makes probabilities of its numbers.
    decision
        What makes classes of them; none where the network has decided already.
    threshold
        The probability above which something counts as 1, where the threshold decides.
    """

    form: StoredForm
    head: Head
    activation: Activation
    decision: Decision
    threshold: float

    def __str__(self) -> str:
        decided = self.form.kind == "classes" and self.decision == "threshold"
        if not decided:
            return str(self.head)
        rule = f"a class is 1 where its probability is above the threshold, {self.threshold:g}"
        return f"{self.head}; {rule}"

    def arrays(
        self, spatial: tuple[str, ...], bands: tuple[int, int] | None = None
    ) -> list[OutputArray]:
        """Return the arrays of an output, ``prediction`` first.

        Parameters
        ----------
        spatial
            The names of the spatial axes of the images.
        bands
            The axis of one image's prediction that is rows, and the rows of a block; None if
            blocks hold whole images.

        Raises
        ------
        OptionError
            If bands would cut through the classes.
        """
        arrays = self._arrays_of_whole_images(spatial)
        if bands is None:
            return arrays
        axis, band = bands
        if axis == 0 and (self.decision == "argmax" or self._is_softmax):
            raise OptionError(
                f"--store {self.form} of an image in bands needs a prediction (classes, rows, …); "
                f"the model predicts {self.head.dims(spatial)}: use --store logits"
            )
        row_axis = axis - (len(self.head.shape) - len(arrays[0].shape))
        return [replace(array, row_axis=row_axis, band=band) for array in arrays]

    @property
    def _is_softmax(self) -> bool:
        return self.form.kind == "probabilities" and self.activation == "softmax"

    def _arrays_of_whole_images(self, spatial: tuple[str, ...]) -> list[OutputArray]:
        head = self.head
        shape, dims, dtype = head.shape, head.dims(spatial), stored_dtype(head.dtype)
        if self.form.kind == "top":
            ranked, names = (self.form.k, *shape[1:]), (RANK_DIM, *dims[1:])
            return [
                OutputArray("prediction", ranked, "int32", names),
                OutputArray("probability", ranked, dtype, names),
            ]
        if self.form.kind == "classes":
            kept = len(shape) - len(self._class_shape(shape))
            shape, dims = shape[kept:], dims[kept:]
            dtype = self._class_dtype
        return [OutputArray("prediction", shape, dtype, dims)]

    def _class_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the classes of one image, or of a part of its rows."""
        head = self.head
        if self.decision == "argmax":
            return shape[1:]
        if head.kind == "score":
            return ()
        return shape[len(head.channels) :] if head.kind == "mask" else shape

    @property
    def _class_dtype(self) -> str:
        if self.decision == "argmax":
            return "int32"
        if self.decision == "threshold" or self.head.kind != "label-map":
            return "int8"
        return "int32" if self.head.dtype.startswith("float") else self.head.dtype

    def apply(self, values: Array) -> dict[str, Array]:
        """Return what is stored of an output (images, …), by name of the array.

        Where a number that decides is NaN, the class is −1 and the probability is NaN.
        """
        if self.form.kind == "logits":
            return {"prediction": values.astype(stored_dtype(values.dtype.name), copy=False)}
        if self.form.kind == "probabilities":
            return {"prediction": self._probabilities(values)}
        if self.form.kind == "classes":
            return {"prediction": self._classes(values)}
        has_nan = np.isnan(values).any(axis=1)
        order = np.argsort(-values, axis=1, kind="stable")[:, : self.form.k]
        return {
            "prediction": np.where(
                np.expand_dims(has_nan, 1), np.int32(NO_CLASS), order.astype(np.int32)
            ),
            "probability": np.take_along_axis(self._probabilities(values), order, axis=1),
        }

    def _probabilities(self, values: Array) -> Array:
        if self.activation == "none":
            return values
        return _softmax(values) if self.activation == "softmax" else _sigmoid(values)

    def _classes(self, values: Array) -> Array:
        shape = (len(values), *self._class_shape(values.shape[1:]))
        if self.decision == "none":
            return values.reshape(shape).astype(self._class_dtype, copy=False)
        if self.decision == "threshold":
            is_above = self._probabilities(values) > self.threshold
            decided = np.where(np.isnan(values), np.int8(NO_CLASS), is_above.astype(np.int8))
            return decided.reshape(shape)
        has_nan = np.isnan(values).any(axis=1)
        best = values.argmax(axis=1).astype(np.int32)
        return np.where(has_nan, np.int32(NO_CLASS), best)

    def identity(self, dtype: str) -> dict[str, Json] | None:
        """Return what a job's fingerprint holds of this, beside the name of the form.

        None if older versions, which took every output for logits of the type of the
        computation, stored the same.

        Parameters
        ----------
        dtype
            Data type of the computation.
        """
        former: dict[str, tuple[Activation, Decision]] = {
            "logits": (self.activation, self.decision),
            "probabilities": ("softmax", "none"),
            "classes": (self.activation, "argmax"),
            "top": ("softmax", "argmax"),
        }
        made = (self.activation, self.decision)
        if former[self.form.kind] == made and self.head.dtype == dtype:
            return None
        found: dict[str, Json] = {"dtype": self.head.dtype}
        if self.form.kind in ("probabilities", "top"):
            found["activation"] = self.activation
        if self.form.kind in ("classes", "top"):
            found["decision"] = self.decision
        if self.decision == "threshold":
            found |= {"activation": self.activation, "threshold": self.threshold}
        return found


def stored_dtype(dtype: str) -> str:
    """Return the type in which numbers of a type are stored.

    True and false become 1 and 0 of ``uint8``: in an array of booleans an image without a
    prediction could not be told from one where all is false.
    """
    return "uint8" if dtype == "bool" else dtype


def _softmax(logits: Array) -> Array:
    """Return the softmax over axis 1 in the same dtype; NaN where a logit is NaN."""
    wide = _wide(logits)
    with np.errstate(invalid="ignore"):
        exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    made: Array = probabilities.astype(logits.dtype, copy=False)
    return made


def _sigmoid(logits: Array) -> Array:
    """Return the sigmoid of each number in the same dtype; NaN where it is NaN."""
    wide = _wide(logits)
    exponentials = np.exp(-np.abs(wide))  # at most 1: nothing overflows
    probabilities = np.where(wide >= 0, 1, exponentials) / (1 + exponentials)
    made: Array = probabilities.astype(logits.dtype, copy=False)
    return made


def _wide(values: Array) -> Array:
    """Return numbers in a type that exponentials are computed in."""
    return values.astype(np.float32) if values.dtype.itemsize < np.float32().itemsize else values


def class_names(path: str, classes: int | None) -> Coordinate:
    """Return the class names in a text file, one per line, as a coordinate.

    Parameters
    ----------
    path
        Of the file.
    classes
        How many classes the model has; None if that is not known.

    Raises
    ------
    OptionError
        If the file cannot be read, or has another number of names than the model has classes.
    """
    names = read_class_names(path)
    wanted = max(len(names), 1) if classes is None else classes
    if len(names) != wanted or not all(names):
        raise OptionError(
            f"--classes {path} has {sum(map(bool, names))} names on {len(names)} lines; the "
            f"model has {wanted} classes: expected one name on each of {wanted} lines, or leave "
            "--classes out"
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
