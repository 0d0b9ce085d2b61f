"""Worst, 99th percentile and median condition numbers of the codes over the usual sizes.

    python benchmarks/conditions.py 6,4 8,6 12,10 18,16 20,16 24,20 31,28 40,32 48,32 60,48

Over all losses of γ shares where there are at most 60 000, marked "all"; else over 5 000
random ones, all contiguous ones and a search for bad ones. ``--orders`` adds how long decodes
wait under the limit of float32, over random orders of arrival.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from fcdcc.coding import Code, make_code
from fcdcc.coding.conditioning import condition_limit, condition_of, is_enough, measure


def codes(n: int, delta: int) -> dict[str, Code]:
    """Return the codes with everything on the side of the input."""
    return {
        "systematic": make_code("systematic", n=n, k_a=4 * delta, k_b=1),
        "systematic, rotation": make_code(
            "systematic", n=n, k_a=2 * delta, k_b=1, parity="rotation"
        ),
        "crme": make_code("crme", n=n, k_a=2 * delta, k_b=1),
        "crme, odd q": make_code("crme", n=n, k_a=2 * delta, k_b=1, q=n + 1 - n % 2),
        "chebyshev": make_code("chebyshev", n=n, k_a=delta, k_b=1),
        "khatri-rao": make_code("khatri-rao", n=n, k_a=delta, k_b=1),
        "polynomial": make_code("polynomial", n=n, k_a=delta, k_b=1),
    }


def waits(code: Code, orders: int, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and the largest number of extra shares, and the worst decode."""
    rng = np.random.default_rng(seed)
    extra, worst = [], 0.0
    for _ in range(orders):
        order = [int(share) for share in rng.permutation(code.n)]
        count = code.recovery_threshold
        while not is_enough(code, order[:count], torch.float32):
            count += 1
        extra.append(count - code.recovery_threshold)
        worst = max(worst, condition_of(code, order[:count]))
    return float(np.mean(extra)), float(np.max(extra)), worst


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="+", help="n,δ")
    parser.add_argument("--orders", type=int, default=0)
    parser.add_argument("--codes", nargs="*", help="only these")
    arguments = parser.parse_args()
    limit = condition_limit(torch.float32)
    print("| (n, δ) | code | worst | 99th percentile | median | losses |", end="")
    print(f" extra shares, limit {limit:.0e} | most | worst decode |" if arguments.orders else "")
    print("|---|---|---|---|---|---|" + ("---|---|---|" if arguments.orders else ""))
    for text in arguments.sizes:
        n, delta = map(int, text.split(","))
        for label, code in codes(n, delta).items():
            if arguments.codes and label not in arguments.codes:
                continue
            found = measure(code)
            cells = [f"{v:.4g}" for v in (found.worst, found.percentile_99, found.median)]
            cells.append(f"{found.looked_at}, {found.method}")
            if arguments.orders:
                cells += [f"{value:.4g}" for value in waits(code, arguments.orders)]
            print(f"| ({n}, {delta}) | {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
