"""Whether wrong shares are found, and whether right ones are left alone.

    python benchmarks/integrity.py --clean 10000 --corrupt 1000

Groups are those of ``--verify all``: results of real convolutions, δ + 1 shares compared first,
then all n to locate, by sketches. Layers, codes and images differ from group to group: images of
noise, of one sign, nearly constant under filters that add up to nothing, of very different
sizes, and mostly empty ones. A wrong share has one bit of a random element flipped, in the
exponent or the high half of the mantissa, or all of it scaled, or is that of another position,
or of another block. Its effect is what it adds to the result, by the bound of rounding.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from fcdcc.coding import Code, CodedConv, ConvGeometry, make_code
from fcdcc.coding.integrity import Verdict
from fcdcc.coding.sketches import (
    bounded,
    check_sketches,
    convolution_scale,
    rounding_bound,
    sketch,
    summed,
)

IMAGES = ("noise", "one sign", "cancelling", "uneven", "mostly empty")
FAULTS = ("bit", "scaled", "swapped", "stale")
SPLITS: dict[str, dict[str, Any]] = {
    "images": {"k_a": 16, "k_b": 1},
    "strips": {"k_a": 4, "k_b": 1, "parity": "real"},
    "crme": {"k_a": 4, "k_b": 4},
}
LAYERS = (
    ConvGeometry.of((1, 3, 16, 16), (16, 3, 3, 3), padding=1),
    ConvGeometry.of((1, 16, 12, 12), (24, 16, 3, 3), padding=1),
    ConvGeometry.of((1, 64, 8, 8), (32, 64, 3, 3), padding=1),
    ConvGeometry.of((1, 256, 6, 6), (16, 256, 1, 1)),
)
ANSWER = {torch.float32: 1e-4, torch.float64: 1e-11}
"""Relative error of an output that is within tolerance."""

Shares = dict[int, torch.Tensor]


@lru_cache
def code_of(split: str) -> Code:
    """Return the code of a form of block, with n = 6 and δ = 4."""
    name = "crme" if split == "crme" else "systematic"
    return make_code(name, n=6, **SPLITS[split])


@dataclass(frozen=True)
class Group:
    """The shares of one layer, and what rounding is proportional to."""

    layer: CodedConv
    batch: int
    shares: Shares
    scale: float

    @property
    def reduction(self) -> int:
        """Products that are added up for one entry."""
        return math.prod(self.layer.geometry.weight_shape[1:])

    def verdict(self, shares: Shares) -> Verdict:
        """Compare shares."""
        rows = {s: self.layer.outputs(values, s, self.batch) for s, values in shares.items()}
        entries = next(iter(rows.values()))[0].numel()
        sketches = {share: sketch(outputs) for share, outputs in rows.items()}
        return check_sketches(self.layer.code, sketches, self.scale, self.reduction, entries)

    def effect(self, by: torch.Tensor) -> float:
        """Return the size of what was added to a share, by the bound of rounding."""
        present = max(float(v.double().pow(2).mean().sqrt()) for v in self.shares.values())
        bound = rounding_bound(by.dtype, self.reduction, summed(by.numel() // 4))
        size = float(torch.linalg.vector_norm(by.double())) / math.sqrt(by.numel())
        return size / (bound * max(present, self.scale)) if max(present, self.scale) else math.inf

    def decoded(self, shares: Shares) -> torch.Tensor:
        """Return the layer's output."""
        return self.layer.decode(shares, self.batch)


def images(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return a block of images."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if kind == "one sign":
        return x.abs() + 1
    if kind == "cancelling":
        return 1 + 1e-3 * x
    if kind == "uneven":
        return x * 10 ** torch.linspace(-5, 5, shape[0]).double().reshape(-1, 1, 1, 1)
    if kind == "mostly empty":
        x[1:] = 0
    return x


def make_group(number: int, dtype: torch.dtype) -> Group:
    """Return the group of this number."""
    generator = torch.Generator().manual_seed(number)
    split = tuple(SPLITS)[number % 3]
    kind = IMAGES[number // 3 % len(IMAGES)]
    geometry = LAYERS[number // 15 % len(LAYERS)]
    batch = 16 if split == "images" else 2
    layer = CodedConv(geometry, code_of(split), "images" if split == "images" else "rows")
    x = images(kind, (batch, geometry.in_channels, *geometry.spatial), generator)
    weight = torch.randn(geometry.weight_shape, generator=generator, dtype=torch.float64)
    if kind == "cancelling":
        weight -= weight.mean(dim=(1, 2, 3), keepdim=True)
    x, weight = x.to(dtype), weight.to(dtype)
    shares, scales = {}, []
    reduction = math.prod(geometry.weight_shape[1:])
    for share in range(layer.code.n):
        entering, filters = layer.encode_input(x, share), layer.encode_filters(weight, share)
        shares[share] = layer.convolve(entering, filters, share)
        size = float(torch.linalg.vector_norm(filters)) / math.sqrt(filters.numel())
        scales.append(convolution_scale(entering, size, reduction))
    return Group(layer, batch, shares, bounded(scales))


def spoiled(group: Group, fault: str, share: int, rng: np.random.Generator) -> torch.Tensor:
    """Return a wrong result in the place of a share."""
    right = group.shares[share]
    if fault == "scaled":
        return right * (1 + float(rng.choice([-1, 1])) * 10 ** rng.uniform(-8, 1))
    if fault == "swapped":
        return group.shares[int(rng.choice([s for s in group.shares if s != share]))].clone()
    if fault == "stale":
        return right[torch.randperm(len(right))] * 0.9 + right.flip(-1) * 0.1
    wrong = right.clone().reshape(-1)
    single = right.dtype == torch.float32
    bits = wrong.view(torch.int32 if single else torch.int64)
    lowest, highest = (12, 31) if single else (26, 63)
    where, bit = int(rng.integers(len(bits))), int(rng.integers(lowest, highest))
    bits[where] ^= 1 << bit
    return wrong.reshape(right.shape)


def clean_table(count: int) -> None:
    """Print how many right groups were accused."""
    print("| dtype | clean groups | accused |\n|---|---|---|")
    for dtype in (torch.float32, torch.float64):
        accused = 0
        for number in range(count):
            group = make_group(number, dtype)
            five = {s: v for s, v in group.shares.items() if s != number % 6}
            accused += not group.verdict(five).consistent
            accused += not group.verdict(group.shares).consistent
        print(f"| {dtype} | {count} | {accused} |", flush=True)


def corrupt_table(count: int) -> None:
    """Print what became of groups with one wrong share."""
    print(
        "\n| dtype | fault | groups | effect above 10 bounds | of these found | located | "
        "smaller, found | outputs within tolerance |\n|---|---|---|---|---|---|---|---|"
    )
    for dtype in (torch.float32, torch.float64):
        seen: dict[str, Counter[str]] = {fault: Counter() for fault in FAULTS}
        for number in range(count):
            fault = FAULTS[number % len(FAULTS)]
            for name in judged(number, dtype, fault):
                seen[fault][name] += 1
        for fault, n in seen.items():
            print(
                f"| {dtype} | {fault} | {n['all']} | {n['large']} | {n['large found']} | "
                f"{n['large located']} | {n['small found']} of {n['small']} | "
                f"{n['right']} of {n['all']} |",
                flush=True,
            )


def judged(number: int, dtype: torch.dtype, fault: str) -> list[str]:
    """Spoil one share of a group and return what became of it, in the words of the counts."""
    torch.manual_seed(number)
    rng = np.random.default_rng(number)
    group = make_group(number * 7 + 3, dtype)
    share = int(rng.integers(6))
    wrong = spoiled(group, fault, share, rng)
    shares = {**group.shares, share: wrong}
    finite = bool(torch.isfinite(wrong).all())
    effect = group.effect(wrong - group.shares[share]) if finite else math.inf
    # What --verify all sees first: δ + 1 shares, the wrong one among them.
    others = [s for s in shares if s != share]
    five = {s: shares[s] for s in sorted([share, *others[:4]])}
    size = "large" if effect > 10 else "small"
    words = ["all", size]
    expected = group.decoded(group.shares)
    used = five
    if not group.verdict(five).consistent:
        words.append(f"{size} found")
        verdict = group.verdict(shares)
        left = {s: v for s, v in shares.items() if s not in verdict.wrong}
        if verdict.wrong == (share,):
            words.append(f"{size} located")
        # What is not located is done again; these shares are then right.
        used = left if verdict.wrong else group.shares
    answer = group.decoded(used)
    error = float(torch.linalg.vector_norm((answer - expected).double()))
    norm = max(float(torch.linalg.vector_norm(expected.double())), group.scale)
    if error <= ANSWER[dtype] * norm:
        words.append("right")
    return words


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clean", type=int, default=1000, help="clean groups to try")
    parser.add_argument("--corrupt", type=int, default=1000, help="groups with a wrong share")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clean_table(arguments.clean)
    corrupt_table(arguments.corrupt)


if __name__ == "__main__":
    main()
