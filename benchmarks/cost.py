"""What encoding and decoding cost on VGG-16, n = 20 and δ = 16, one thread.

    python benchmarks/cost.py --table docs/cost-table.md

For every layer and code: the processor time of encoding the inputs of all n shares, and of
decoding a layer with nothing lost, with one and with four shares lost, as a share of the time
of the plain convolution; beside them the same in multiply-adds. Filters are encoded once per
model and do not count.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from geometries import vgg16

from fcdcc.coding import CodedConv, ConvGeometry
from fcdcc.coding.comparison import Variant, build_variant, decoding_multiply_adds

N, DELTA = 20, 16
CODES = (Variant("systematic", "systematic"), Variant("crme", "crme"))
HEADER = (
    "| layer | code | (k_a, k_b) | encode | decode, none lost | one lost | four lost | "
    "encode MAC | decode MAC, none lost | one lost | four lost |"
)


def timed(call: Callable[[], object], repeats: int) -> float:
    """Return the least processor time of some runs, after one that does not count."""
    call()
    best = math.inf
    for _ in range(repeats):
        begun = time.process_time()
        call()
        best = min(best, time.process_time() - begun)
    return best


def encoding_multiply_adds(layer: CodedConv) -> int:
    """Return the multiply-adds of encoding the inputs of all shares."""
    rows = layer.strips.input_rows * math.prod(layer.geometry.padded_spatial[1:])
    each = layer.geometry.in_channels * rows
    coded = [share for share in range(N) if layer.code.input_run(share) is None]
    return sum(layer.code.ell_a * len(layer.code.parts_needed(share)) * each for share in coded)


def measure_layer(geometry: ConvGeometry, variant: Variant, repeats: int) -> list[float]:
    """Return encode, decode with none, one and four lost: time shares, then multiply-adds."""
    code = build_variant(variant, N, DELTA, geometry)
    layer = CodedConv(geometry, code)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, geometry.in_channels, *geometry.spatial), generator=generator)
    weight = torch.randn(geometry.weight_shape, generator=generator)
    weight /= math.sqrt(math.prod(geometry.weight_shape[1:]))
    results = {}
    for share in range(N):
        filters = layer.encode_filters(weight, share)
        results[share] = layer.convolve(layer.encode_input(x, share), filters, share)
    plain = timed(lambda: geometry.convolve(x, weight), repeats)
    encode = timed(lambda: [layer.encode_input(x, share) for share in range(N)], repeats)
    useful = math.prod(layer.output_shape(1)) * math.prod(geometry.weight_shape[1:])
    times, work = [encode / plain], [encoding_multiply_adds(layer) / useful]
    for lost in (0, 1, 4):
        survivors = (*range(DELTA - lost), *range(DELTA, DELTA + lost))
        some = {share: results[share] for share in survivors}
        times.append(timed(lambda some=some: layer.decode(some, 1), repeats) / plain)
        work.append(decoding_multiply_adds(layer, survivors) / useful)
    return [*times, *work]


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=224, help="height and width of the image")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [HEADER, "|" + "---|" * 11]
    for name, geometry in vgg16(arguments.size).items():
        for variant in CODES:
            code = build_variant(variant, N, DELTA, geometry)
            with torch.inference_mode():
                values = measure_layer(geometry, variant, arguments.repeats)
            cells = " | ".join(f"{100 * value:.2g} %" for value in values)
            lines.append(f"| {name} | {variant.label} | ({code.k_a}, {code.k_b}) | {cells} |")
            print(lines[-1], flush=True)
    if arguments.table is not None:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
