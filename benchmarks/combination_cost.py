"""What the checks of encoding and decoding with ``--verify checksum`` cost, in CPU time.

    python benchmarks/combination_cost.py --repeats 25

Measures, on one thread, encoding the input of one parity share, decoding one late strip or run of
images, and decoding a whole layer, and the check of each. The last column is the check in parts of
the time that it takes to convolve one share of the layer. Every figure is the least of several.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch

from fcdcc.coding import CodedConv, ConvGeometry, Split, make_code
from fcdcc.coding.combination_checks import (
    coded_input,
    decoded_output,
    first_wrong,
    recovered_share,
    wrong_decoder,
)

LAYERS = ((64, 64, 56, 3), (256, 256, 14, 3), (256, 64, 56, 1))
"""Channels, filters, rows and kernel of the layers of which combinations are measured."""

CODES: tuple[tuple[str, int, int, Split], ...] = (
    ("systematic", 16, 1, "images"),
    ("systematic", 16, 1, "rows"),
    ("crme", 4, 4, "rows"),
)
"""Name, k_a, k_b and split, of six shares of which two may be lost."""


def print_combinations(images: int, repeats: int) -> None:
    """Print a Markdown table of what the checks of encoding and decoding cost."""
    print("| layer | code | step | ms | check, ms | check / convolving a share |")
    print("|---|---|---|---|---|---|")
    for channels, filters, size, kernel in LAYERS:
        x = torch.randn(images, channels, size, size)
        weight = torch.randn(filters, channels, kernel, kernel)
        geometry = ConvGeometry.of(x.shape, weight.shape, padding=kernel // 2)
        for name, k_a, k_b, split in CODES:
            coded = CodedConv(geometry, make_code(name, n=6, k_a=k_a, k_b=k_b), split)
            shown = f"| {channels} → {filters}, {kernel} × {kernel}, {size}² | {name}, {split} "
            for step, taken, check, share in combinations_of(coded, x, weight, repeats):
                print(
                    f"{shown}| {step} | {1e3 * taken:.2f} | {1e3 * check:.2f} | "
                    f"{check / share:.1%} |",
                    flush=True,
                )


def combinations_of(
    coded: CodedConv, x: torch.Tensor, weight: torch.Tensor, repeats: int
) -> Iterator[tuple[str, float, float, float]]:
    """Yield steps with the CPU seconds of the step, of its check, and of convolving a share."""
    batch = len(x)
    encoded = {share: coded.encode_input(x, share) for share in range(6)}
    filters = {share: coded.encode_filters(weight, share) for share in range(6)}
    shares = {s: coded.convolve(encoded[s], filters[s], s) for s in range(6)}
    share = least_seconds(lambda: coded.convolve(encoded[5], filters[5], 5), repeats)
    yield (
        "encode an input",
        least_seconds(lambda: coded.encode_input(x, 5), repeats),
        least_seconds(lambda: first_wrong(coded_input(coded, x, 5, encoded[5])), repeats),
        share,
    )
    late = {s: shares[s] for s in (1, 2, 3, 5)}
    if coded.is_plain(0):
        made = coded.recover(late, 0, batch)
        yield (
            "decode a part",
            least_seconds(lambda: coded.recover(late, 0, batch), repeats),
            least_seconds(
                lambda: (
                    wrong_decoder(coded.code, late),
                    first_wrong(recovered_share(coded, late, 0, batch, made)),
                ),
                repeats,
            ),
            share,
        )
    made = coded.decode(late, batch)
    yield (
        "decode the layer",
        least_seconds(lambda: coded.decode(late, batch), repeats),
        least_seconds(
            lambda: (
                wrong_decoder(coded.code, late),
                first_wrong(decoded_output(coded, late, batch, made)),
            ),
            repeats,
        ),
        share,
    )


def least_seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds of several calls after a first one."""
    taken = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        function()
        taken.append(time.process_time() - begun)
    return min(taken[1:])


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=16, help="images of a batch")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        print_combinations(arguments.images, arguments.repeats)


if __name__ == "__main__":
    main()
