"""Checksums of one convolution: a few weighted sums that its output must have.

A convolution is linear in its filters and in its images. A weighted sum of its outputs therefore
equals a much smaller convolution of weighted sums of filters or images, apart from rounding.
The filters are summed once, when the model is loaded, so that damage to the filters afterwards is
found, too. :class:`ConvChecksum` has these kinds:

``filters``
    Sums over the filters: a convolution with a few checksum filters must give them, at every
    position of every image.
``images``
    Sums over the images of a batch: the convolution of a few checksum images must give them, for
    every filter and position.
``both``
    Sums over filters and images, a bilinear form: checksum images convolved with checksum filters.
``positions``
    Sums over filters and positions, a few for each image. The weights of the positions are
    products of one factor for each axis, so the sums of the input are short matrix products.

``positions`` is the cheapest for almost every layer (:func:`cheapest_checksum`). It reads input and
output once and needs next to no multiply-adds. It is the one that workers use
(:meth:`ConvChecksum.wrong`); the others are for code of your own (:meth:`ConvChecksum.check`).

**Weights.** A weight is a random sign times a random number between ¾ and 1¼; along the first
axis of the positions it is the cosine of a turning angle, and in the next sum the sine. The weights
of an axis add up to about the root of its size, so that an error that is the same everywhere counts
as much as one of random numbers. Different elements have different weights, so that two equal
errors, or two exchanged rows, do not cancel.
An error of one element is seen with at least a quarter of its size. Every kind has :data:`SUMS`
sums: an error that is spread over many elements is missed only if all of them are small by chance.
A cosine and its sine share the weights along the further axes, which makes two pairs of sums hardly
dearer than one.

**Rounding.** :meth:`ConvChecksum.check` compares the difference of both sides with a bound that
follows from sizes alone: Let u be the unit roundoff. An output is a sum of R products, and its
rounding error is about u times the norm of its filter times that of its patch of the input, times
:data:`ROUNDING_FACTOR`. Random signs make the errors of a sum add up like their root mean square,
whatever pattern they have. Along the first axis the weights are a wave: an input that is such a
wave, too, has larger sums and rounding errors of them, and the bound grows with its sums. The terms
for adding up the sums themselves are derived in the same way; see :meth:`ConvChecksum.check` for
the formula and ``docs/trust.md`` for how far clean layers stay below it.

Source: FT-CNN (arXiv 2003.12203); Hari et al., Making Convolutions Resilient via Algorithm-Based
Error Detection Techniques (arXiv 2006.04984); Kosaian and Rashmi, Arithmetic-intensity-guided fault
tolerance (2021).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch.nn import functional

from .checksum_costs import (
    CHECKSUM_KINDS,
    SUMS,
    ChecksumCost,
    ChecksumKind,
    cheapest_checksum,
    checksum_cost,
)
from .errors import GeometryError, TensorError
from .geometry import pad_space
from .position_sums import (
    SUMMED_TOGETHER,
    InputSums,
    ValueSums,
    channels_last_view,
    summable,
)
from .residues import Residues, norms_of, part_of_each, roundoff, roundoff_of_sums
from .sum_weights import position_weights, random_weights

__all__ = [
    "CHECKSUM_KINDS",
    "SUMS",
    "ChecksumCost",
    "ChecksumKind",
    "ConvChecksum",
    "Residues",
    "cheapest_checksum",
    "checksum_cost",
]

SumsOf: TypeAlias = Callable[[torch.Tensor], ValueSums]
"""Returns the sums of a value."""

ROUNDING_FACTOR = 16.0
"""Bound on rounding errors in units of their usual size. Layers of random numbers reach a tenth of
the bound, sums of thousands of products of one sign a third."""

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}

_SAME_SIGN = 64.0
"""The rounding of R products that are added one by one grows with √R / 3 if they have one sign;
in units of ROUNDING_FACTOR this is a good deal less than √R divided by this number."""

_LARGE_SUMS = 2.0
"""A value whose sums are more than so many times its norm has the pattern of the weights, and so
may its rounding errors: the bound grows with its sums."""

LARGEST_CHECKED = 1e30
"""What may be larger than this could overflow in float32 as it is added up, and is not checked."""


class ConvChecksum:
    """The checksum filters of one convolution, and the check of its outputs.

    Parameters
    ----------
    weight
        (N, C / groups, *kernel), as it was when the model was loaded.
    bias
        (N,), if the convolution adds one.
    stride, dilation
        One number for each spatial dimension.
    padding
        (before, after) for each spatial dimension.
    groups
        Groups of the convolution.
    seed
        Of the weights. Use different ones for different layers.
    sums
        Number of sums with different weights.
    keep_filters
        Whether the filters are kept, which only the kind ``images`` needs.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        *,
        stride: Sequence[int],
        padding: Sequence[tuple[int, int]],
        dilation: Sequence[int],
        groups: int = 1,
        seed: int = 0,
        sums: int = SUMS,
        keep_filters: bool = True,
    ) -> None:
        filters, kernel = len(weight), tuple(weight.shape[2:])
        if not len(kernel) == len(stride) == len(padding) == len(dilation):
            raise GeometryError(
                f"filters of shape {tuple(weight.shape)} with stride {tuple(stride)}, padding "
                f"{tuple(padding)} and dilation {tuple(dilation)}; expected one entry for each "
                "spatial dimension"
            )
        self.kernel, self.groups, self.sums = kernel, groups, sums
        self.stride, self.dilation = tuple(stride), tuple(dilation)
        self.padding = tuple((before, after) for before, after in padding)
        self._generator_seed = seed
        self._filter_weights = random_weights((sums, filters), seed, 0)
        # (sums, C, *kernel): a dense convolution, whatever the groups are.
        self._checksum_filters, self._norm = self._sums_of_filters(weight)
        self._weight = weight if keep_filters else None
        self._reduction = max(1, math.prod(weight.shape[1:]))
        self._bias_sums = self._bias_norm = None
        if bias is not None:
            self._bias_sums = self._filter_weights @ bias.detach().to(torch.float64)
            self._bias_norm = float(torch.linalg.vector_norm(bias.detach().to(torch.float64)))
        overlaps = (-(-size // step) for size, step in zip(self.kernel, self.stride, strict=True))
        self._overlap = math.prod(overlaps)
        self._of_inputs: dict[Hashable, _OfInput] = {}

    def with_padding(
        self, padding: Sequence[tuple[int, int]], *, has_bias: bool = True
    ) -> ConvChecksum:
        """Return the checksum of the same filters with other zeros around the input.

        It shares the sums of the filters. Without ``has_bias`` the convolution adds no bias.
        """
        other = copy.copy(self)
        other.padding = tuple((before, after) for before, after in padding)
        other._of_inputs = {}
        if not has_bias:
            other._bias_sums = other._bias_norm = None
        return other

    def is_of(self, weight: torch.Tensor) -> bool:
        """Return whether filters have the sums of those that this was made from.

        Parameters
        ----------
        weight
            Filters of the same shape, as they are now in memory.
        """
        sums, _ = self._sums_of_filters(weight)
        if not math.isfinite(self._norm):  # sums of filters that hold NaN or infinity say no more
            return torch.equal(torch.isfinite(sums), torch.isfinite(self._checksum_filters))
        # NaN is no smaller than any number.
        return bool((sums - self._checksum_filters).abs().amax() <= _SAME_SUMS * self._norm)

    def _sums_of_filters(self, weight: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return (sums, C, *kernel) in float64, and the norm of the filters, some at a time."""
        filters, weight = len(weight), weight.detach()
        if self.groups > 1:
            exact = weight.to(torch.float64)
            by_group = exact.reshape(self.groups, filters // self.groups, *weight.shape[1:])
            grouped = self._filter_weights.reshape(self.sums, self.groups, -1)
            sums = torch.einsum("sgn,gnc...->sgc...", grouped, by_group).flatten(1, 2)
            return sums, float(torch.linalg.vector_norm(exact))
        square = 0.0
        total = torch.zeros((self.sums, math.prod(weight.shape[1:])), dtype=torch.float64)
        step = max(1, _SUMMED_AT_A_TIME // max(1, total.shape[1]))
        for start in range(0, filters, step):
            run = slice(start, start + step)
            exact = weight[run].to(torch.float64).flatten(1)
            total += self._filter_weights[:, run] @ exact
            square += float(exact.square().sum())
        return total.reshape(self.sums, *weight.shape[1:]), math.sqrt(square)

    def check(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        added: torch.Tensor | None = None,
        kind: ChecksumKind = "positions",
    ) -> Residues:
        """Return how far the sums of an output are from those that they must be.

        Parameters
        ----------
        x
            The unpadded input, (images, C, *space), float32, float64 or bfloat16.
        y
            The output, (images, N, *space): the convolution, with the bias and ``added``.
        added
            A value of the shape of ``y`` that was added to it.
        kind
            Which sums are compared.

        Notes
        -----
        With u the unit roundoff of the sums (float32 or better), R the products of an output, P the
        positions, ‖·‖ the norms of the filters and of the input of an image, and ω how many
        patches an element of the input is in (per axis ⌈kernel / stride⌉), an output image has
        at most the norm Y = ‖w‖ ‖x‖ √ω + ‖bias‖ √P + ‖added‖. The bound of ``positions`` is

            16 u (‖w‖ ‖x‖ √ω (1 + √R / 64 + √(A / R)) + Y (1 + √(B / R))) + 16 v Y + 16 t √(N P),

        with A and B the terms that are added up in this precision for a sum of the input and of the
        output: the positions, but at most the lengths of the axes and 1024 more; v the unit
        roundoff of the coarser of the dtypes of x and y if that is coarser than that of the sums,
        else 0; and t the smallest normal number of the dtype of y, for N filters. √R / 64 is for
        products of one sign, whose sums grow on the way. For an input with the pattern of the
        weights, ‖x‖ √ω is replaced by half of the norm of what the elements of the kernel meet in
        the weighted sums, and ‖added‖ by half of the norm of its sums, where these are larger.

        Raises
        ------
        TensorError
            If the dtypes are not floating point, the shapes do not belong to each other, or the
            kind is ``images`` and there is a bias, or the filters are not kept.
        """
        self._check_form(x, y, added)
        if not x.numel() or not y.numel():
            return Residues(torch.zeros(0, 1), torch.zeros(0, 1))
        if kind == "positions":
            return self._check_positions(x, y, added)
        return self._check_sums(x, y, added, kind)

    def _check_form(self, x: torch.Tensor, y: torch.Tensor, added: torch.Tensor | None) -> None:
        """Check dtypes and shapes.

        Raises
        ------
        TensorError
            If the dtypes are not floating point, or the shapes do not belong to each other.
        """
        for name, tensor in (("x", x), ("y", y)):
            if not tensor.is_floating_point():
                raise TensorError(f"{name} of {tensor.dtype}; expected a floating-point dtype")
        space = self._output_space(tuple(x.shape[2:]))
        expected = (len(x), self._filter_weights.shape[1], *space)
        for name, value in (("output", y), ("added value", added)):
            if value is not None and tuple(value.shape) != expected:
                raise TensorError(
                    f"{name} of shape {tuple(value.shape)} for an input of shape "
                    f"{tuple(x.shape)}; expected {expected}"
                )

    # -------------------------------------------------------------- positions

    def is_right(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        added: torch.Tensor | None = None,
        sums_of: SumsOf | None = None,
    ) -> bool:
        """Return whether :meth:`wrong` finds nothing; the parameters are the same."""
        return self.wrong(x, y, added, sums_of) is None

    def wrong(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        added: torch.Tensor | None = None,
        sums_of: SumsOf | None = None,
    ) -> Residues | None:
        """Return what :meth:`check` of the kind ``positions`` finds; None if nothing is wrong.

        It is faster for outputs that are right: a part of the input is enough to show that the
        differences are small, and the whole input is read only where it is not.

        Parameters
        ----------
        x, y, added
            As for :meth:`check`.
        sums_of
            Returns the sums of one of these values, for example from an earlier check. It may know
            those of ``y`` from before ``y`` was changed.
        """
        self._check_form(x, y, added)
        if not x.numel() or not y.numel():
            return None
        differences = self._differences(x, y, added, sums_of)
        part = summable(part_of_each(x))
        norms = torch.linalg.vector_norm(part, dim=1).to(torch.float64)
        of_input = self._of_input(x, y)
        least = (norms * of_input.scale + of_input.least)[:, None]
        # The norm of a part of large numbers may be infinite in float32, and a bound is not.
        if bool(((differences.abs() <= least) & torch.isfinite(least)).all()):
            return None
        found = Residues(differences, self._position_bounds(x, y, added)[:, None])
        return None if found.is_right else found

    def _check_positions(
        self, x: torch.Tensor, y: torch.Tensor, added: torch.Tensor | None
    ) -> Residues:
        differences = self._differences(x, y, added, None)
        return Residues(differences, self._position_bounds(x, y, added)[:, None])

    def _differences(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        added: torch.Tensor | None,
        sums_of: SumsOf | None,
    ) -> torch.Tensor:
        """Return (images, sums) float64: sums of the output less those that they must be."""
        of_input = self._of_input(x, y)
        sums_of = ValueSums if sums_of is None else sums_of
        made = sums_of(y).positions(self.sums)
        if added is not None:
            made = made - sums_of(added).positions(self.sums)
        made = (made * self._filter_weights).sum(dim=2)
        if of_input.sums.is_plain:
            wanted = (sums_of(x).positions(self.sums) * of_input.coefficients).sum(dim=2)
        else:
            wanted = of_input.sums.sums_of(summable(x), of_input.coefficients, sums_of(x))
        differences = made - wanted
        return differences if of_input.of_bias is None else differences - of_input.of_bias

    def uses_sums(self, x: torch.Tensor) -> bool:
        """Return whether a check uses the sums of an input of this size and layout."""
        if not x.numel():
            return False
        space = self._output_space(tuple(x.shape[2:]))
        y = x.new_empty(()).expand(len(x), self._filter_weights.shape[1], *space)
        return self._of_input(x, y).sums.uses_known

    def _of_input(self, x: torch.Tensor, y: torch.Tensor) -> _OfInput:
        """Return how the sums of an output follow from an input of this size, made once."""
        key = (x.shape[2:], x.dtype, y.dtype, channels_last_view(x) is not None)
        found = self._of_inputs.get(key)
        if found is None:
            if len(self._of_inputs) >= _MAX_SIZES:
                self._of_inputs.clear()
            with torch.inference_mode(mode=False):  # kept, and used in other modes, too
                found = self._of_inputs[key] = self._make_of_input(x, y)
        return found

    def _make_of_input(self, x: torch.Tensor, y: torch.Tensor) -> _OfInput:
        space = tuple(x.shape[2:])
        out, before = self._output_space(space), tuple(before for before, _ in self.padding)
        sums = InputSums.of(
            x.shape[1], space, out, self.kernel, self.stride, self.dilation, before, self.sums,
            summable(x[:0]).dtype,
        )  # fmt: skip
        of_bias = None
        if self._bias_sums is not None:
            of_bias = self._bias_sums * position_weights(out, self.sums).sum(dim=1)
        is_last = channels_last_view(x) is not None
        if sums.is_plain:
            coefficients = self._checksum_filters.flatten(1)
        else:
            coefficients = sums.coefficients(
                self._checksum_filters, summable(x[:0]).dtype, channels_last=is_last
            )
        return _OfInput(sums, coefficients, of_bias, *self._bounds(x, y))

    def _bounds(self, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float, float]:
        """Return a, b and c, so that the bound is a ‖x‖ + b + c ‖added‖."""
        filters, positions = y.shape[1], math.prod(y.shape[2:])
        unit, coarse = roundoff_of_sums(x, y), max(roundoff(x.dtype), roundoff(y.dtype))
        of_filters = self._norm * math.sqrt(self._overlap)
        of_bias = (self._bias_norm or 0.0) * math.sqrt(positions)
        of_products = 1 + math.sqrt(self._reduction) / _SAME_SIGN
        of_products += math.sqrt(_summed(x.shape[2:]) / self._reduction)
        of_output = 1 + math.sqrt(_summed(y.shape[2:]) / self._reduction)
        of_output += coarse / unit if coarse > unit else 0
        # Numbers that are too small for the dtype become zero.
        least = ROUNDING_FACTOR * torch.finfo(y.dtype).tiny * math.sqrt(filters * positions)
        factor = ROUNDING_FACTOR * unit
        return (
            factor * of_filters * (of_products + of_output),
            factor * of_bias * of_output + least,
            factor * of_output,
        )

    def _position_bounds(
        self, x: torch.Tensor, y: torch.Tensor, added: torch.Tensor | None
    ) -> torch.Tensor:
        found = self._of_input(x, y)
        overlap = math.sqrt(self._overlap)
        largest = self._norm * overlap
        of_sums = (found.sums.norms(summable(x)) / (_LARGE_SUMS * overlap)).tolist()
        norms = [max(pair) for pair in zip(norms_of(x), of_sums, strict=True)]
        norms_added = [0.0] * len(x)
        if added is not None:
            of_added = torch.linalg.vector_norm(ValueSums(added).positions(self.sums), dim=2)
            of_sums = (of_added.amax(dim=1) / _LARGE_SUMS).tolist()
            pairs = zip(norms_of(added), of_sums, strict=True)
            norms_added = [max(pair) for pair in pairs]
        bounds = []
        for norm, norm_added in zip(norms, norms_added, strict=True):
            # Neither the output nor, with tiny filters, the sums of the input may overflow.
            size = max(largest, 1.0) * norm + norm_added
            bound = found.scale * norm + found.least + found.of_added * norm_added
            bounds.append(bound if size < LARGEST_CHECKED else math.inf)  # NaN is not smaller
        return torch.tensor(bounds, dtype=torch.float64)

    # ---------------------------------------------- filters, images and both

    def _check_sums(
        self, x: torch.Tensor, y: torch.Tensor, added: torch.Tensor | None, kind: ChecksumKind
    ) -> Residues:
        x64, y64 = x.to(torch.float64), y.to(torch.float64)
        if added is not None:
            y64 = y64 - added.to(torch.float64)
        shape = (1, -1, *[1] * len(self.kernel))
        if self._bias_sums is not None and kind == "images":
            raise TensorError(
                "sums over images of outputs with a bias; expected outputs without bias, or "
                "another kind of checksum"
            )
        by_image = random_weights((self.sums, len(x)), self._generator_seed, 1)
        if kind != "filters":
            x64 = torch.einsum("sb,b...->s...", by_image, x64)
        if kind == "filters":
            made = self._convolve(x64, self._checksum_filters, 1)
            if self._bias_sums is not None:
                made = made + self._bias_sums.reshape(shape)
            sums = torch.einsum("sn,bn...->bs...", self._filter_weights, y64)
        elif kind == "images":
            made = self._convolve(x64, self._kept_filters().to(torch.float64), self.groups)
            sums = torch.einsum("sb,b...->s...", by_image, y64)
        else:
            pairs = self._convolve(x64, self._checksum_filters, 1)
            made = torch.diagonal(pairs, dim1=0, dim2=1).movedim(-1, 0)
            if self._bias_sums is not None:
                of_images = by_image.sum(dim=1) * self._bias_sums
                made = made + of_images.reshape(-1, *[1] * len(self.kernel))
            sums = torch.einsum("sb,sn,bn...->s...", by_image, self._filter_weights, y64)
        return Residues(sums - made, self._bound_of_entry(x, y, added, kind))

    def _bound_of_entry(
        self, x: torch.Tensor, y: torch.Tensor, added: torch.Tensor | None, kind: ChecksumKind
    ) -> torch.Tensor:
        """Return a bound of every sum over filters or images, from the largest elements."""
        largest = float(x.abs().amax()) if x.numel() else 0.0
        summed = len(x) if kind == "images" else y.shape[1]
        summed = summed * len(x) if kind == "both" else summed
        # The norm of all filters, or of the largest one times the root of the number of sums.
        norms = self._norm * math.sqrt(len(x)) if kind == "both" else self._norm
        if kind == "images":
            by_filter = torch.linalg.vector_norm(self._kept_filters().flatten(1), dim=1)
            norms = float(by_filter.max()) * math.sqrt(len(x)) if len(by_filter) else 0.0
        products = norms * math.sqrt(self._reduction) * largest
        size = products + math.sqrt(summed) * (self._bias_norm or 0.0)
        if added is not None and added.numel():
            size += math.sqrt(summed) * float(added.abs().amax())
        # The longer the sum, the larger the sums on the way: at most like random numbers.
        coarse = max(roundoff(x.dtype), roundoff(y.dtype))
        bound = ROUNDING_FACTOR * (roundoff_of_sums(x, y) * (products + size) + coarse * size)
        finite = math.isfinite(size) and size < LARGEST_CHECKED
        return torch.tensor(bound if finite else math.inf, dtype=torch.float64)

    # ------------------------------------------------------------------ parts

    def _kept_filters(self) -> torch.Tensor:
        """Return the filters.

        Raises
        ------
        TensorError
            If they are not kept.
        """
        if self._weight is None:
            raise TensorError(
                "sums over images need the filters, and this checksum keeps none; expected "
                "keep_filters=True, or another kind of checksum"
            )
        return self._weight

    def _convolve(self, x: torch.Tensor, weight: torch.Tensor, groups: int) -> torch.Tensor:
        padded = pad_space(x, self.padding)
        convolution = _CONVOLUTIONS[len(self.kernel)]
        return convolution(padded, weight, None, self.stride, 0, self.dilation, groups)

    def _output_space(self, space: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
            for size, (before, after), kernel, dilation, stride in zip(
                space, self.padding, self.kernel, self.dilation, self.stride, strict=True
            )
        )


class _OfInput(NamedTuple):
    """How the sums of an output, and their bound, follow from an input of one size.

    The bound is ``scale`` times the norm of the input, ``least``, and ``of_added`` times the norm
    of what was added.
    """

    sums: InputSums
    coefficients: torch.Tensor
    of_bias: torch.Tensor | None
    scale: float
    least: float
    of_added: float


_SUMMED_AT_A_TIME = 2**20
"""Elements of filters that are summed at a time, in float64."""

_SAME_SUMS = 1e-12
"""Largest difference of sums of the same filters in float64, relative to the filters' norm."""


def _summed(space: Sequence[int]) -> int:
    """Return how many terms of a value of this size are added up in its dtype, at most."""
    return min(SUMMED_TOGETHER + sum(space), math.prod(space))


_MAX_SIZES = 16
"""Sizes of the input for which the weights of the positions are kept."""
