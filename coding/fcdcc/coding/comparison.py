"""A comparison of all codes for one n and δ: conditioning, error, work, bytes, decoding.

:func:`compare_codes` computes every share of a layer with every code, decodes from random
survivors and from the worst ones found, and compares with the plain convolution in float64.
Its result depends on its arguments alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch

from .code import Code
from .conditioning import ConditionStatistics, guaranteed_tolerance, measure
from .cost import Partition, cheapest, share_cost
from .errors import CodeError, NotDecodableError
from .geometry import ConvGeometry
from .nsctc import CodedConv, Split
from .partitions import code_partitions, every_partition, planned_parity
from .registry import make_code

__all__ = [
    "VARIANTS",
    "CodeRow",
    "Errors",
    "SplitCondition",
    "Variant",
    "build_variant",
    "compare_codes",
    "decoding_multiply_adds",
    "default_layer",
    "layer_errors",
    "split_conditions",
    "survivor_sets",
]


@dataclass(frozen=True)
class Variant:
    """A code with its options, as one row of the comparison."""

    label: str
    name: str
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def parity(self) -> str | None:
        """The parity of the systematic code; None: for each split the one that plans use."""
        parity = self.options.get("parity")
        return None if parity is None else str(parity)


VARIANTS = (
    Variant("systematic", "systematic"),
    Variant("systematic, rotation", "systematic", {"parity": "rotation"}),
    Variant("crme", "crme"),
    Variant("crme, odd q", "crme", {"q": "odd"}),
    Variant("chebyshev", "chebyshev"),
    Variant("khatri-rao", "khatri-rao"),
    Variant("polynomial", "polynomial"),
    Variant("polynomial, equispaced", "polynomial", {"points": "equispaced"}),
    Variant("replication", "replication"),
    Variant("uncoded", "uncoded"),
)
"""The codes that are compared. The odd q is the smallest that is at least n, as in the paper."""


@dataclass(frozen=True)
class Errors:
    """Mean squared errors relative to the power of the output; nan if nothing decoded."""

    random: float
    worst: float


@dataclass(frozen=True)
class SplitCondition:
    """The worst condition number of a code with one split into parts.

    Parameters
    ----------
    k_a, k_b
        Parts of the input and of the filters.
    parity
        That of the systematic code; None for other codes.
    worst
        Over the losses of as many shares as the code tolerates.
    method
        'all' or 'search', as in :class:`~fcdcc.coding.conditioning.ConditionStatistics`.
    planned
        Whether plans use this split.
    """

    k_a: int
    k_b: int
    parity: str | None
    worst: float
    method: str
    planned: bool


@dataclass(frozen=True)
class CodeRow:
    """One code in the comparison; work and bytes are those of one worker, of one share.

    Parameters
    ----------
    label
        The code with its options.
    n, recovery_threshold, k_a, k_b
        See :class:`~fcdcc.coding.Code`.
    tolerance
        How many shares may be lost, whichever they are.
    conditions
        Condition numbers over losses of that many shares.
    float32, float64
        Mean squared errors in that dtype, from random and from the worst survivors.
    work
        Multiply-adds of the costliest share.
    upload_bytes, download_bytes, stored_bytes
        In float32: coded inputs, result, coded filters, of the costliest share.
    total_work
        Multiply-adds of all n shares, relative to those of the plain convolution.
    decoding
        Multiply-adds of decoding after the worst loss, relative to the plain convolution.
    decoding_none_lost
        The same when the first shares arrive and none is lost.
    splits
        Every split into k_a and k_b parts that the code has for n and δ; none where there are
        too many losses to compute all condition numbers.
    """

    label: str
    n: int
    recovery_threshold: int
    k_a: int
    k_b: int
    tolerance: int
    conditions: ConditionStatistics
    float32: Errors
    float64: Errors
    work: int
    upload_bytes: int
    download_bytes: int
    stored_bytes: int
    total_work: float
    decoding: float
    decoding_none_lost: float
    splits: tuple[SplitCondition, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON, None for numbers that are not finite."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def default_layer() -> ConvGeometry:
    """Return the layer of the comparison by default: conv4 of AlexNet, for one image."""
    return ConvGeometry.of((1, 384, 13, 13), (384, 384, 3, 3), padding=1)


def build_variant(
    variant: Variant, n: int, delta: int, geometry: ConvGeometry, split: Split = "rows"
) -> Code:
    """Return the code with the partition of the layer that takes the least work.

    Raises
    ------
    CodeError
        If the code has no partition for n and δ.
    """
    partitions = code_partitions(variant.name, n, delta, variant.parity)
    best = cheapest(geometry, partitions, split=split)
    return _make_variant(variant, n, best)


def _make_variant(variant: Variant, n: int, partition: Partition) -> Code:
    options = dict(variant.options)
    if options.get("q") == "odd":
        options["q"] = n + 1 - n % 2
    parity = _parity_of(variant, partition)
    if parity is not None:
        options["parity"] = parity
    return make_code(variant.name, n=n, k_a=partition.k_a, k_b=partition.k_b, **options)


def _parity_of(variant: Variant, partition: Partition) -> str | None:
    """Return the parity to make a partition's code with; None if the code is not systematic."""
    if variant.name == "systematic" and variant.parity is None:
        return planned_parity(partition.k_a, partition.k_b)
    return variant.parity


def split_conditions(variant: Variant, n: int, delta: int) -> tuple[SplitCondition, ...]:
    """Return the worst condition number of a code with each of its splits into parts.

    Raises
    ------
    CodeError
        If the code has no partition for n and δ.
    """
    planned = code_partitions(variant.name, n, delta, variant.parity)
    found = []
    for partition in every_partition(variant.name, n, delta, variant.parity):
        conditions = measure(_make_variant(variant, n, partition))
        found.append(
            SplitCondition(
                partition.k_a,
                partition.k_b,
                _parity_of(variant, partition),
                conditions.worst,
                conditions.method,
                partition in planned,
            )
        )
    return tuple(found)


def survivor_sets(code: Code, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Return random sets of survivors, each after as many losses as the code tolerates."""
    rng = np.random.default_rng([seed, code.n, code.recovery_threshold])
    size = code.n - guaranteed_tolerance(code)
    chosen = [rng.choice(code.n, size=size, replace=False) for _ in range(count)]
    return [tuple(sorted(int(share) for share in some)) for some in chosen]


def layer_errors(
    layer: CodedConv,
    x: torch.Tensor,
    weight: torch.Tensor,
    survivors: Iterable[Sequence[int]],
    reference: torch.Tensor,
) -> list[float]:
    """Return the mean squared error of the decoded layer for each set of survivors.

    Relative to the power of the reference; nan if the survivors do not decode.

    Parameters
    ----------
    layer
        The coded layer.
    x, weight
        In the dtype to compute in.
    survivors
        Sets of shares to decode from. Each share is computed once.
    reference
        The exact output, float64.
    """
    power = float((reference**2).mean())
    results: dict[int, torch.Tensor] = {}
    errors = []
    for chosen in survivors:
        for share in chosen:
            if share not in results:
                coded = layer.encode_input(x, share)
                results[share] = layer.convolve(coded, layer.encode_filters(weight, share), share)
        try:
            y = layer.decode({share: results[share] for share in chosen}, len(x))
        except NotDecodableError:
            errors.append(math.nan)
            continue
        errors.append(float(((y.to(torch.float64) - reference) ** 2).mean()) / power)
    return errors


def decoding_multiply_adds(layer: CodedConv, survivors: Sequence[int], batch: int = 1) -> int:
    """Return the multiply-adds of decoding a layer from these survivors."""
    shape = layer.share_shape(0, batch)
    code = layer.code
    return int(code.decoder(survivors).matrix.size * math.prod(shape) // (code.ell_a * code.ell_b))


def compare_codes(
    n: int,
    delta: int,
    *,
    geometry: ConvGeometry | None = None,
    variants: Iterable[Variant] = VARIANTS,
    sets: int = 5,
    seed: int = 0,
    samples: int = 5000,
) -> tuple[CodeRow, ...]:
    """Return a row for every code that exists for n and δ.

    Parameters
    ----------
    n, delta
        Number of shares, and how many of any suffice. ``uncoded`` splits into δ parts, which
        gives each worker the same load, and tolerates no loss.
    geometry
        The layer; by default :func:`default_layer`.
    variants
        The codes.
    sets
        Random survivor sets for the errors.
    seed
        Of the data and of the sets.
    samples
        Random losses for the condition numbers, if there are too many to compute all.

    Raises
    ------
    CodeError
        If δ is not one of 1 … n.
    """
    if not 1 <= delta <= n:
        raise CodeError(f"recovery threshold {delta} of n = {n} shares; expected 1 to n")
    geometry = default_layer() if geometry is None else geometry
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(
        (1, geometry.in_channels, *geometry.spatial), generator=generator, dtype=torch.float64
    )
    weight = torch.randn(geometry.weight_shape, generator=generator, dtype=torch.float64)
    weight /= math.sqrt(math.prod(geometry.weight_shape[1:]))
    reference = geometry.convolve(x, weight)
    rows = []
    for variant in variants:
        shares = delta if variant.name == "uncoded" else n
        try:
            code = build_variant(variant, shares, delta, geometry)
        except CodeError:
            continue
        layer = CodedConv(geometry, code)
        row = _row(variant, layer, x, weight, reference, sets, seed, samples)
        if row.conditions.method == "all":
            row = replace(row, splits=split_conditions(variant, shares, delta))
        rows.append(row)
    return tuple(rows)


def _row(
    variant: Variant,
    layer: CodedConv,
    x: torch.Tensor,
    weight: torch.Tensor,
    reference: torch.Tensor,
    sets: int,
    seed: int,
    samples: int,
) -> CodeRow:
    code = layer.code
    conditions = measure(code, samples=samples)
    worst = tuple(share for share in range(code.n) if share not in conditions.worst_lost)
    chosen = [*survivor_sets(code, sets, seed), worst]
    errors = {}
    for dtype in (torch.float32, torch.float64):
        *found, last = layer_errors(layer, x.to(dtype), weight.to(dtype), chosen, reference)
        decoded = [error for error in found if not math.isnan(error)]
        errors[dtype] = Errors(float(np.mean(decoded)) if decoded else math.nan, last)
    costs = [share_cost(layer, share) for share in range(code.n)]
    plain = math.prod(reference.shape) * math.prod(weight.shape[1:])
    none_lost = tuple(range(code.n - guaranteed_tolerance(code)))
    return CodeRow(
        label=variant.label,
        n=code.n,
        recovery_threshold=code.recovery_threshold,
        k_a=code.k_a,
        k_b=code.k_b,
        tolerance=guaranteed_tolerance(code),
        conditions=conditions,
        float32=errors[torch.float32],
        float64=errors[torch.float64],
        work=max(cost.multiply_adds for cost in costs),
        upload_bytes=4 * max(cost.upload for cost in costs),
        download_bytes=4 * max(cost.download for cost in costs),
        stored_bytes=4 * max(cost.stored for cost in costs),
        total_work=sum(cost.multiply_adds for cost in costs) / plain,
        decoding=_decoding(layer, worst) / plain,
        decoding_none_lost=_decoding(layer, none_lost) / plain,
    )


def _decoding(layer: CodedConv, survivors: Sequence[int]) -> float:
    try:
        return float(decoding_multiply_adds(layer, survivors))
    except NotDecodableError:
        return math.nan


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
