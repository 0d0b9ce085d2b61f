"""Checks of encoding and decoding: weighted sums that linear combinations must have.

Encoding combines parts of an input or of the filters, and decoding combines results of shares. A
combination holds element by element, so it holds for weighted sums of the elements, too: those of
what was made must equal the same combination of those of what it was made from. The sums are over
the positions of every channel of an image, with the weights of :mod:`.sum_weights`, and are
compared all together: the norm of their differences is about the norm of the error.

A decoder is checked as well: its matrix times the equations of the shares must give the products.
Otherwise the same wrong matrix would make the values and what their sums must be.

**Rounding.** Let u be the unit roundoff, m the coefficients of a combination, y its operands for
one image, and A = Σ |m| ‖y‖. Adding up the R products of an element is off by about u √R times
their size, and a sum of P elements by about u √P times their norm. Both are added in several runs
at once, whose errors do not add up. The norm of the differences is therefore bounded by

    16 u A (1 + √R / 8 + √P / 8),

with P at most 1024. The tests assert that right combinations stay below half of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .apcp import rows_inside
from .checksum_costs import SUMS
from .checksums import LARGEST_CHECKED, ROUNDING_FACTOR, Residues
from .code import Code
from .decoder import Decoder
from .kccp import split_filters
from .nsctc import CodedConv
from .position_sums import SUMMED_TOGETHER
from .sum_weights import position_weights

__all__ = [
    "Combinations",
    "Operand",
    "coded_filters",
    "coded_input",
    "decoded_output",
    "first_wrong",
    "recovered_share",
    "wrong_decoder",
]

_RUNS = 8.0
"""Roots of the numbers of terms are divided by it: they are added in several runs at once."""

_PART_READ = 8
"""Of so many channels one is read to show that differences are small."""


@dataclass(frozen=True)
class Operand:
    """Values with the weights of their positions.

    Parameters
    ----------
    values
        (images, G, channels, *space), float32 or float64.
    weights
        (sums, positions).
    """

    values: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, rows: int | None = None) -> Operand:
        """Return values, or their first rows, with the weights of their whole size."""
        weights = _weights(tuple(values.shape[3:]), values.dtype)
        if rows is None or rows == values.shape[3]:
            return cls(values, weights)
        return cls(values[:, :, :, :rows], weights[:, : rows * math.prod(values.shape[4:])])

    def sums(self) -> torch.Tensor:
        """Return (sums, images, G, channels) in float64."""
        channels, positions = math.prod(self.values.shape[:3]), self.weights.shape[1]
        flat = self.values.reshape(channels, positions)
        total = torch.zeros((len(self.weights), channels), dtype=torch.float64)
        for start in range(0, positions, SUMMED_TOGETHER):
            run = slice(start, start + SUMMED_TOGETHER)
            # A few rows times many columns: the other way round takes several times as long.
            total += self.weights[:, run] @ flat[:, run].T
        return total.reshape(len(total), *self.values.shape[:3])

    def part_of_norms(self, images: int) -> torch.Tensor:
        """Return at most the norm of every image, from some of its channels; 0 for further ones."""
        step = _PART_READ if self.values.shape[2] >= _PART_READ else 1
        part = self.values[:, :, ::step].flatten(1)
        return functional.pad(torch.linalg.vector_norm(part, dim=1), (0, images - len(part)))

    def norms(self, images: int) -> torch.Tensor:
        """Return the norm of every image in float64; 0 for further images."""
        whole = self.values.flatten(1)
        found = torch.linalg.vector_norm(whole, dim=1, dtype=torch.float64)
        return functional.pad(found, (0, images - len(found)))


@dataclass(frozen=True)
class Combinations:
    """Linear combinations of the same operands.

    Parameters
    ----------
    operands
        Values that were combined, of one size. They may lack their last images, which are zeros,
        and with them positions, whose weights they lack, too.
    matrix
        (results, operands) in float64.
    results
        What was made. They may lack their last images and channels, which nobody needs.
    """

    operands: tuple[Operand, ...]
    matrix: NDArray[np.float64]
    results: tuple[Operand, ...]

    def residues(self) -> Residues:
        """Return the norms of the differences, (results, images), and their bounds."""
        if not self._is_needed:
            return Residues(torch.zeros(0, 1), torch.zeros(0, 1))
        whole = torch.stack([operand.norms(self._images) for operand in self.operands])
        return Residues(self._differences(), self._bounds(whole))

    def wrong(self) -> Residues | None:
        """Return :meth:`residues` if something is wrong, else None.

        It is faster for combinations that are right: some channels of the operands are enough to
        show that the differences are small.
        """
        if not self._is_needed:
            return None
        differences = self._differences()
        part = torch.stack([operand.part_of_norms(self._images) for operand in self.operands])
        least = self._bounds(part.to(torch.float64))
        # Where a part is not finite, for example because its squares are not, all is read.
        if bool(((differences <= least) & torch.isfinite(least)).all()):
            return None
        whole = torch.stack([operand.norms(self._images) for operand in self.operands])
        found = Residues(differences, self._bounds(whole))
        return None if found.is_right else found

    @property
    def _is_needed(self) -> bool:
        return any(result.values.numel() for result in self.results)

    @property
    def _images(self) -> int:
        return max(len(operand.values) for operand in (*self.operands, *self.results))

    def _differences(self) -> torch.Tensor:
        """Return the norm of what the sums of each result and image are off, in float64."""
        images = self._images
        _, groups, channels = self.operands[0].values.shape[:3]
        sums = torch.zeros(
            (len(self.operands), SUMS, images, groups, channels), dtype=torch.float64
        )
        for number, operand in enumerate(self.operands):
            sums[number, :, : len(operand.values)] = operand.sums()
        wanted = torch.from_numpy(self.matrix.copy()) @ sums.flatten(1)
        wanted = torch.unflatten(wanted, 1, sums.shape[1:])
        found = torch.zeros((len(self.results), images), dtype=torch.float64)
        for number, result in enumerate(self.results):
            made = result.sums()
            _, count, _, kept = made.shape
            off = made - wanted[number, :, :count, :, :kept]
            found[number, :count] = torch.linalg.vector_norm(off, dim=(0, 2, 3))
        return found

    def _bounds(self, norms: torch.Tensor) -> torch.Tensor:
        """Return the largest differences that rounding explains, (results, images).

        Infinity where the operands are not finite, or so large that the results may not be.

        Parameters
        ----------
        norms
            Of the images of every operand, (operands, images).
        """
        kind = torch.finfo(self.operands[0].values.dtype)
        positions = max(operand.weights.shape[1] for operand in self.operands)
        terms = math.sqrt(len(self.operands)) + math.sqrt(min(SUMMED_TOGETHER, positions))
        size = torch.from_numpy(np.abs(self.matrix)) @ norms
        # Numbers that are too small for the dtype become zero.
        elements = sum(operand.values[:1].numel() for operand in self.operands)
        least = kind.tiny * math.sqrt(elements)
        bounds = ROUNDING_FACTOR * (kind.eps / 2 * size * (1 + terms / _RUNS) + least)
        return torch.where(size < LARGEST_CHECKED, bounds, math.inf)  # NaN is not smaller


def first_wrong(found: Iterable[Combinations]) -> Residues | None:
    """Return the residues of the first combinations that are wrong; None if all are right."""
    return next((wrong for one in found if (wrong := one.wrong()) is not None), None)


def wrong_decoder(code: Code, shares: Iterable[int]) -> Residues | None:
    """Check that the decoder of some shares solves their equations; None if it does.

    Raises
    ------
    NotDecodableError
        If the shares do not decode.
    """
    decoder = code.decoder(shares)
    equations = np.concatenate(code.share_matrices[list(decoder.survivors)])[list(decoder.rows)]
    products = np.eye(equations.shape[1])[list(decoder.solved)]
    differences = np.linalg.norm(decoder.matrix @ equations - products, axis=1)
    size = float(np.linalg.norm(decoder.matrix) * np.linalg.norm(equations))
    bound = len(decoder.rows) * ROUNDING_FACTOR * np.finfo(np.float64).eps * size
    found = Residues(torch.from_numpy(differences), torch.tensor(bound, dtype=torch.float64))
    return None if found.is_right else found


# ------------------------------------------------------------ encoding, decoding


def coded_input(
    coded: CodedConv, x: torch.Tensor, share: int, made: torch.Tensor
) -> list[Combinations]:
    """Return the combinations in the result of :meth:`.CodedConv.encode_input`.

    Parameters
    ----------
    coded, x, share
        As they were encoded. An input that is not coded is no combination.
    made
        The coded input.
    """
    code = coded.code
    if code.input_run(share) is not None:
        return []
    x = x.contiguous()
    if coded.split == "images":
        partition = coded.images(len(x))
        parts = [Operand.of(x[partition.run(a), None]) for a in range(code.k_a)]
    else:
        parts = [_strip(coded, x, start) for start in coded.strips.starts]
    results = torch.unflatten(made, 0, (code.ell_a, len(made) // code.ell_a))
    return _combinations(
        parts, code.input_matrix[share], [Operand.of(result[:, None]) for result in results]
    )


def coded_filters(
    coded: CodedConv, weight: torch.Tensor, share: int, made: torch.Tensor
) -> list[Combinations]:
    """Return the combinations in the result of :meth:`.CodedConv.encode_filters`.

    Parameters
    ----------
    coded, weight, share
        As they were encoded. Filters that are not coded are no combination.
    made
        The coded filters.
    """
    code, filters = coded.code, coded.filters
    if code.filter_run(share) is not None:
        return []
    # Groups take the place of images, and all elements of a filter are positions.
    parts = split_filters(weight, filters).flatten(3).movedim(1, 0)
    results = torch.unflatten(made.flatten(1), 0, (filters.groups, code.ell_b, filters.per_group))
    return _combinations(
        [Operand.of(part[:, None]) for part in parts],
        code.filter_matrix[share],
        [Operand.of(result[:, None]) for result in results.movedim(1, 0)],
    )


def decoded_output(
    coded: CodedConv, shares: Mapping[int, torch.Tensor], batch: int, made: torch.Tensor
) -> list[Combinations]:
    """Return the combinations in the result of :meth:`.CodedConv.decode`.

    Parameters
    ----------
    coded, shares, batch
        As they were decoded. Products that are copied are no combinations.
    made
        The layer's output, without bias.
    """
    decoder = coded.code.decoder(shares)
    places = {i: coded.place_of(made, product) for i, product in enumerate(decoder.solved)}
    return _solved(coded, decoder, shares, batch, places)


def recovered_share(
    coded: CodedConv,
    shares: Mapping[int, torch.Tensor],
    share: int,
    batch: int,
    made: torch.Tensor,
) -> list[Combinations]:
    """Return the combinations in the result of :meth:`.CodedConv.recover`.

    Parameters
    ----------
    coded, shares, share, batch
        As the share was recovered. Products that are copied are no combinations.
    made
        The recovered share.
    """
    decoder = coded.code.decoder(shares)
    solved = {product: i for i, product in enumerate(decoder.solved)}
    products = coded.code.share_matrices[share].argmax(axis=1)
    outputs = zip(products, coded.outputs(made, share, batch), strict=True)
    places = {solved[int(p)]: place for p, place in outputs if int(p) in solved}
    return _solved(coded, decoder, shares, batch, places)


def _solved(
    coded: CodedConv,
    decoder: Decoder,
    shares: Mapping[int, torch.Tensor],
    batch: int,
    places: Mapping[int, torch.Tensor],
) -> list[Combinations]:
    """Return the combinations in products that were solved for.

    Parameters
    ----------
    places
        By position in ``decoder.solved``: the product, which may lack its last images, channels
        and rows.
    """
    places = {i: place for i, place in places.items() if place.numel()}
    if not places:
        return []
    rows: list[torch.Tensor] = []
    for survivor in decoder.survivors:
        rows += coded.all_outputs(shares[survivor], survivor, batch)
    found = []
    for height in sorted({place.shape[3] for place in places.values()}):
        chosen = [i for i, place in places.items() if place.shape[3] == height]
        operands = [Operand.of(rows[row], height) for row in decoder.rows]
        results = [Operand(places[i], operands[0].weights) for i in chosen]
        found += _combinations(operands, decoder.matrix[chosen], results)
    return found


def _combinations(
    operands: Sequence[Operand], matrix: NDArray[np.float64], results: Sequence[Operand]
) -> list[Combinations]:
    """Return combinations without operands that none of them has."""
    used = np.flatnonzero(np.any(matrix != 0.0, axis=0)).tolist()
    return [Combinations(tuple(operands[i] for i in used), matrix[:, used], tuple(results))]


def _strip(coded: CodedConv, x: torch.Tensor, start: int) -> Operand:
    """Return the rows of the input in the strip that begins at a padded row, without its zeros."""
    geometry, count = coded.geometry, coded.strips.input_rows
    inside, above, _ = rows_inside(geometry, start, count)
    values, padded = x[:, None, :, inside], (count, *geometry.padded_spatial[1:])
    weights = torch.unflatten(_weights(padded, x.dtype), 1, padded)
    weights = weights.narrow(1, above, values.shape[3])
    for axis, (size, (before, _)) in enumerate(
        zip(x.shape[3:], geometry.padding[1:], strict=True), start=2
    ):
        weights = weights.narrow(axis, before, size)
    return Operand(values, weights.flatten(1))


@lru_cache(maxsize=256)
def _weights(space: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return the weights of all positions, (sums, positions)."""
    with torch.inference_mode(mode=False):  # kept, and used in other modes, too
        return position_weights(space, SUMS).to(dtype)
