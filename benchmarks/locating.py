"""How many wrong shares of one group are located, and how often right ones are accused.

    python benchmarks/locating.py --clean 10000

n = 20, δ = 16, results of real convolutions. Wrong shares have all results replaced by noise,
or all changed by about one per cent, or one of their outputs scaled.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from fcdcc.coding import CodedConv, ConvGeometry, make_code
from fcdcc.coding.integrity import check_shares

KINDS = ("noise", "one per cent", "one output")
Results = dict[int, torch.Tensor]


def results_of(layer: CodedConv, dtype: torch.dtype, generator: torch.Generator) -> Results:
    """Return the results of all shares for a random input and random filters."""
    geometry = layer.geometry
    x = torch.randn((1, geometry.in_channels, *geometry.spatial), generator=generator, dtype=dtype)
    weight = torch.randn(geometry.weight_shape, generator=generator, dtype=dtype)
    return {
        share: layer.convolve(
            layer.encode_input(x, share), layer.encode_filters(weight, share), share
        )
        for share in range(layer.code.n)
    }


def spoil(result: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """Return a wrong result."""
    noise = torch.randn(result.shape, generator=generator, dtype=result.dtype)
    if kind == "noise":
        return noise * result.std()
    if kind == "one per cent":
        return result * (1 + 0.01 * noise)
    wrong = result.clone()
    wrong[..., :1] *= 1.5
    return wrong


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clean", type=int, default=1000, help="clean groups to try")
    parser.add_argument("--tries", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    located_on = ConvGeometry.of((1, 32, 16, 16), (64, 32, 3, 3), padding=1)
    clean_on = ConvGeometry.of((1, 8, 8, 6), (16, 8, 3, 3), padding=1)
    codes = {
        "systematic": make_code("systematic", n=20, k_a=4, k_b=16),
        "crme": make_code("crme", n=20, k_a=8, k_b=8),
    }
    print("| code | dtype | wrong | located: " + ", ".join(KINDS) + " | detected |")
    print("|---|---|---|---|---|")
    for label, code in codes.items():
        layer = CodedConv(located_on, code)
        for dtype in (torch.float64, torch.float32):
            for count in (1, 2, 3, 4):
                rng, generator = np.random.default_rng(count), torch.Generator().manual_seed(count)
                located, detected = dict.fromkeys(KINDS, 0), 0
                for kind in KINDS:
                    for _ in range(arguments.tries):
                        results = results_of(layer, dtype, generator)
                        wrong = sorted(int(s) for s in rng.choice(20, count, replace=False))
                        for share in wrong:
                            results[share] = spoil(results[share], kind, generator)
                        rows = {s: layer.outputs(r, s, 1) for s, r in results.items()}
                        verdict = check_shares(code, rows)
                        located[kind] += list(verdict.wrong) == wrong
                        detected += not verdict.consistent
                shown = ", ".join(f"{value}/{arguments.tries}" for value in located.values())
                total = 3 * arguments.tries
                print(f"| {label} | {dtype} | {count} | {shown} | {detected}/{total} |", flush=True)
    print("\n| code | dtype | clean groups | accused | largest syndrome |\n|---|---|---|---|---|")
    for label, code in codes.items():
        layer = CodedConv(clean_on, code)
        for dtype in (torch.float64, torch.float32):
            generator = torch.Generator().manual_seed(0)
            accused, largest = 0, 0.0
            for _ in range(arguments.clean):
                results = results_of(layer, dtype, generator)
                rows = {s: layer.outputs(r, s, 1) for s, r in results.items()}
                verdict = check_shares(code, rows)
                largest = max(largest, verdict.syndrome)
                accused += not verdict.consistent
            print(
                f"| {label} | {dtype} | {arguments.clean} | {accused} | {largest:.2g} |", flush=True
            )


if __name__ == "__main__":
    main()
