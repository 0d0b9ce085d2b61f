"""What is stored of all outputs of a network: the arrays of each, and their values in a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from fcdcc.storage import Json, OutputArray

from ..errors import OptionError
from ..heads import Head
from ..model.output_bundle import taken_apart
from ..model.outputs import main_output
from ..stored_forms import StoredForm, StoredPrediction

PREDICTION = "prediction"
"""Name of the array of a network with one output."""

Array = NDArray[Any]


@dataclass(frozen=True)
class StoredOutputs:
    """What is stored of each output of a network.

    Parameters
    ----------
    members
        The names of the outputs, in the network's order, each with what is stored of it. One
        output has the name ``prediction``, whatever the network calls it.
    """

    members: tuple[tuple[str, StoredPrediction], ...]

    @classmethod
    def of(
        cls, heads: Mapping[str, Head], form: StoredForm, threshold: float | None
    ) -> StoredOutputs:
        """Return what is stored of outputs in one form.

        Parameters
        ----------
        heads
            What each output is, by name.
        form
            The form, as ``--store`` names it.
        threshold
            As for :meth:`StoredForm.of`; of several outputs it is for those that need one.

        Raises
        ------
        OptionError
            If an output has no such form, or no output needs the threshold.
        """
        if len(heads) == 1:
            (head,) = heads.values()
            return cls(((PREDICTION, form.of(head, threshold)),))
        members = {}
        for name, head in heads.items():
            with named_output(name):
                found = form.of(head)
                if found.decision == "threshold":
                    found = form.of(head, threshold)
            members[name] = found
        if threshold is not None and all(m.decision != "threshold" for m in members.values()):
            form.of(heads[main_output(heads)], threshold)  # its error says what it is for
        return cls(tuple(members.items()))

    def __str__(self) -> str:
        if self.is_single:
            return str(self.main)
        return ", ".join(f"{name}: {member}" for name, member in self.members)

    @property
    def main(self) -> StoredPrediction:
        """What is stored of the main output."""
        members = dict(self.members)
        return members[main_output(members)]

    @property
    def is_single(self) -> bool:
        """Whether the network has one output."""
        return len(self.members) == 1

    def arrays(
        self,
        spatial: tuple[str, ...],
        sizes: tuple[int, ...],
        bands: tuple[int, int] | None = None,
    ) -> list[OutputArray]:
        """Return the arrays of all outputs, in the order of the outputs.

        The array of an output has its name. With ``top:K`` the probabilities of the output
        ``NAME`` are an array ``NAME_probability``.

        Parameters
        ----------
        spatial, sizes
            The names and lengths of the spatial axes of the images.
        bands
            As for :meth:`StoredPrediction.arrays`; only of one output.
        """
        if self.is_single:
            return self.main.arrays(spatial, bands)
        found = {}
        for name, stored in self.members:
            for array in stored.arrays(spatial):
                own = self._array_name(name, array.name)
                found[own] = name, replace(array, name=own)
        shapes = {own: (name, array.dims, array.shape) for own, (name, array) in found.items()}
        dims = distinct_dims(shapes, dict(zip(spatial, sizes, strict=True)))
        return [replace(array, dims=dims[own]) for own, (_, array) in found.items()]

    def outputs(self, prediction: Array) -> dict[str, Array]:
        """Return the outputs of the network by name, from what the last stage made.

        Parameters
        ----------
        prediction
            (images, …): the output of the network, or a bundle of several outputs.
        """
        if self.is_single:
            return {PREDICTION: prediction}
        forms = [(stored.head.shape, stored.head.dtype) for _, stored in self.members]
        names = (name for name, _ in self.members)
        return dict(zip(names, taken_apart(prediction, forms), strict=True))

    def apply(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return what is stored of outputs, by name of the array."""
        return {
            self._array_name(name, array): values
            for name, stored in self.members
            for array, values in stored.apply(outputs[name]).items()
        }

    def _array_name(self, output: str, array: str) -> str:
        """Return the name of an array of an output, given what it is called for a single one."""
        if self.is_single:
            return array
        return output if array == PREDICTION else f"{output}_{array}"

    def identity(self, dtype: str) -> dict[str, Json]:
        """Return what a job's fingerprint holds of this, beside the name of the form.

        Of one output it is what older versions, which knew no others, put there.
        """
        if self.is_single:
            found = self.main.identity(dtype)
            return {} if found is None else {"prediction": found}
        return {"outputs": {name: stored.identity(dtype) for name, stored in self.members}}

    def attributes(self) -> dict[str, Json]:
        """Return what the attributes of an output say of it."""
        if self.is_single:
            said: dict[str, Json] = {"head": self.main.head.kind}
        else:
            said = {"heads": {name: stored.head.kind for name, stored in self.members}}
        for _, stored in self.members:
            if stored.decision == "threshold":
                said["threshold"] = stored.threshold
        return said

    @property
    def head_of_classes(self) -> Head:
        """The output that names of classes are for: the main one, or the first with classes."""
        heads = [self.main.head, *(stored.head for _, stored in self.members)]
        return next((head for head in heads if head.has_classes), heads[0])


@contextmanager
def named_output(name: str) -> Iterator[None]:
    """Say in errors about options which of several outputs they are about."""
    try:
        yield
    except OptionError as error:
        raise OptionError(f"the output {name}: {error}; or choose others with --output") from error


def distinct_dims(
    shapes: Mapping[str, tuple[str, tuple[str, ...], tuple[int, ...]]], sizes: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Return names for the axes of arrays, so that each name has one length.

    Where outputs have axes of one name and of different lengths, the name is that of the output
    whose axis is as long as that of the images, or else of the main output; for others the
    name of the output is appended.

    Parameters
    ----------
    shapes
        The output that each array belongs to, its dimensions and its shape, by name of the array.
    sizes
        The lengths of the spatial axes of the images, by their names.

    >>> shapes = {
    ...     "half": ("half", ("class", "y"), (5, 32)),
    ...     "whole": ("whole", ("class", "y"), (5, 64)),
    ... }
    >>> distinct_dims(shapes, {"y": 64})
    {'half': ('class', 'y_half'), 'whole': ('class', 'y')}
    """
    axes = [
        (owner, dim, size)
        for owner, dims, shape in shapes.values()
        for dim, size in zip(dims, shape, strict=True)
    ]
    main = main_output(owner for owner, _, _ in axes) if axes else ""
    # Sorting keeps the order of axes that are equally good.
    axes.sort(key=lambda axis: (sizes.get(axis[1]) != axis[2], axis[0] != main))
    lengths: dict[str, int] = {}
    for _, dim, size in axes:
        lengths.setdefault(dim, size)

    def named(owner: str, dim: str, size: int) -> str:
        own = dim if lengths[dim] == size else f"{dim}_{owner}"
        return f"{own}_axis" if own in shapes else own

    return {
        name: tuple(named(owner, dim, size) for dim, size in zip(dims, shape, strict=True))
        for name, (owner, dims, shape) in shapes.items()
    }
