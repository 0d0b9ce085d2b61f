"""What the output of a network is: logits, probabilities, a score, class numbers or features.

A :class:`Head` is worked out from the network (:mod:`fcdcc.pipeline.model.head_analysis`), or is
what ``--head`` says. It decides how axes are named and which stored forms there are
(:mod:`fcdcc.pipeline.stored_forms`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal, get_args

from .errors import OptionError

HeadKind = Literal[
    "logits", "probabilities", "score", "labels", "label-map", "mask", "embedding", "dense"
]
"""Kinds of outputs, as ``--head`` names them. Of one image:

logits
    A number for each class, (class, …); their softmax is the probabilities.
probabilities
    The same after a softmax.
score
    One number: a logit, or a probability after a sigmoid.
labels
    A number for each of several labels, which do not exclude each other.
label-map
    Class numbers, as argmax makes them: integers for each place, or one for the image.
mask
    One number for each place, or whether the place belongs to something.
embedding
    Features, which are no classes.
dense
    A number for each class at each place.
"""

HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)

Values = Literal["logits", "probabilities", "decided", "unknown"]
"""What the numbers are: before a softmax or sigmoid, after it, decided already (true or false,
class numbers), or something that the network does not show."""

CLASS_DIM = "class"
"""Name of the axis of classes."""


@dataclass(frozen=True)
class Head:
    """What an output is.

    Parameters
    ----------
    kind
        See :data:`HeadKind`.
    values
        What its numbers are.
    shape
        Of the output of one image.
    dtype
        Of its numbers, by NumPy's name; ``bool`` where the network answers true or false.
    places
        How many of its last axes are places in the image, such as rows and columns.
    reason
        How this is known, in words.
    classes
        How many classes or labels there are, 2 of a score or a mask: no and yes. None where that is
        not known, or there are none.
    given
        Whether ``--head`` says so.
    """

    kind: HeadKind
    values: Values
    shape: tuple[int, ...]
    dtype: str
    places: int
    reason: str
    classes: int | None = None
    given: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """The sizes of the axes in front of the places."""
        return self.shape[: len(self.shape) - self.places]

    @property
    def has_classes(self) -> bool:
        """Whether its numbers belong to classes or are the numbers of classes."""
        return self.kind != "embedding"

    @property
    def is_dense(self) -> bool:
        """Whether there is a number for each of several places."""
        return self.places > 0 and prod(self.shape[len(self.channels) :]) > 1

    def dims(self, spatial: tuple[str, ...]) -> tuple[str, ...]:
        """Name the axes of the output of one image.

        Parameters
        ----------
        spatial
            The names of the spatial axes of the images.

        >>> head = Head("dense", "logits", (21, 64, 64), "float32", 2, "")
        >>> head.dims(("y", "x"))
        ('class', 'y', 'x')
        """
        names = [f"axis_{axis}" for axis in range(1, 1 + len(self.channels))]
        first = _FIRST_DIMS[self.kind]
        if first is not None and names:
            names[0] = first
        if self.kind == "embedding" and len(names) > 1:
            names[0] = "axis_1"
        return (*names, *spatial[len(spatial) - self.places :])

    def named(self, kind: HeadKind, source: str | None = None) -> Head:
        """Return what the output is if it is of a kind that somebody names.

        Numbers are taken for logits unless they are seen to be something else, since the network
        does not say it.

        Parameters
        ----------
        kind
            The kind.
        source
            The file that names it, for messages; None for ``--head``.

        Raises
        ------
        OptionError
            If an output of this shape or type cannot be of the kind.
        """
        expected = self._why_not(kind)
        if expected is not None:
            says = (
                f"--head {kind}" if source is None else f"{source} says that {kind} is the output"
            )
            leave = "leave --head out, or " if source is None else ""
            raise OptionError(
                f"{says} for a network that predicts {self.dtype} of shape {self.shape} for an "
                f"image: expected {expected}; {leave}give {' or '.join(self._possible())}"
            )
        chosen, values = kind, self.values
        if kind == "probabilities":
            values = "probabilities"
            if self.classes_along_first_axis == 1:
                chosen = "mask" if self.is_dense else "score"
        elif kind == "embedding":
            values = "unknown"
        elif kind == "logits" or values == "unknown":
            values = "logits"
        classes = self.classes if kind == "label-map" else self.classes_of(chosen)
        reason = "--head says so" if source is None else f"{source} says so"
        return replace(
            self, kind=chosen, values=values, classes=classes, given=source is None, reason=reason
        )

    def classes_of(self, kind: HeadKind) -> int | None:
        """Return how many classes the shape shows, if the output is of a kind."""
        if kind in ("score", "mask"):
            return 2
        return self.classes_along_first_axis if kind in CLASS_KINDS else None

    @property
    def classes_along_first_axis(self) -> int:
        """The size of the first axis; 1 where there is none in front of the places."""
        return self.channels[0] if self.channels else 1

    def _possible(self) -> list[str]:
        return [f"--head {kind}" for kind in HEAD_KINDS if self._why_not(kind) is None]

    def _why_not(self, kind: HeadKind) -> str | None:
        """Return what an output of a kind has, in words, if this output does not have it."""
        is_float = self.dtype.startswith("float")
        if kind == "label-map":
            whole = self.values == "decided" and self.dtype != "bool"
            return None if whole else "integers, as argmax gives them"
        if kind in ("logits", "probabilities", "dense", "embedding") and not is_float:
            return "floating-point numbers"
        if kind in ("score", "mask", "labels") and not is_float and self.dtype != "bool":
            return "floating-point numbers, or true and false"
        if kind == "score" and prod(self.shape) != 1:
            return "one number for an image"
        if kind == "mask" and not (self.is_dense and prod(self.channels) == 1):
            return "one number for each place"
        if kind == "dense" and not self.is_dense:
            return "numbers for each place"
        if kind in ("logits", "labels", "embedding") and not self.shape:
            return "several numbers for an image"
        return None

    def __str__(self) -> str:
        return f"{_in_words(self)}, {self.dtype}: {self.reason}"


CLASS_KINDS: frozenset[HeadKind] = frozenset({"logits", "probabilities", "labels", "dense"})
"""Kinds that have classes, or labels, along the first axis."""

_FIRST_DIMS: dict[HeadKind, str | None] = {
    "logits": CLASS_DIM,
    "probabilities": CLASS_DIM,
    "labels": CLASS_DIM,
    "dense": CLASS_DIM,
    "score": "score",
    "mask": "channel",
    "label-map": None,
    "embedding": "feature",
}


def _in_words(head: Head) -> str:
    size = " × ".join(map(str, head.shape[len(head.channels) :]))
    where = f" at {size} places" if head.is_dense else ""
    count = head.classes_along_first_axis
    several = f"{count} classes" if count != 1 else "1 class"
    match head.kind, head.values:
        case (("logits" | "dense"), "unknown"):
            words = f"numbers for {several}{where}"
        case (("logits" | "dense"), _):
            words = f"logits of {several}{where}"
        case "probabilities", _:
            words = f"probabilities of {several}{where}"
        case "labels", values:
            each = {"probabilities": "probabilities of ", "decided": "true or false for "}
            words = f"{each.get(values, 'logits of ')}{count} labels{where}"
        case "score", values:
            which = {"probabilities": "probability", "decided": "truth value", "logits": "score"}
            words = f"one {which.get(values, 'number')} for an image"
        case "mask", values:
            which = {"probabilities": " of probabilities", "decided": " of true and false"}
            words = f"a mask{which.get(values, '')}{where}"
        case "label-map", _:
            known = "" if head.classes is None else f" of {head.classes} classes"
            words = f"class numbers{known}{where}"
        case _:
            words = f"an embedding of {' × '.join(map(str, head.shape))} features"
    return words
