"""How accurate each code is on the convolutions of AlexNet and VGG-16.

    python benchmarks/stability.py --json stability.json \
        --table docs/stability-table.md --figure docs/figures/stability.svg

For every (n, δ), every code and both dtypes: the mean squared error of the decoded layer,
relative to the power of the output, against the plain convolution in float64; from random
survivors and from the worst set of survivors that was found. ``--draw stability.json`` makes
table and figure again from an earlier run, ``--codes`` with ``--json`` of an earlier run does
only these codes again.

VGG-16 is taken for 112 × 112 images by default (``--vgg-size``): a quarter of the work, and
the error does not depend on the number of rows.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from geometries import alexnet, vgg16

from fcdcc.coding import CodedConv, CodeError, ConvGeometry
from fcdcc.coding.comparison import (
    VARIANTS,
    Variant,
    build_variant,
    layer_errors,
    survivor_sets,
)
from fcdcc.coding.conditioning import measure

SIZES = ((5, 4), (12, 10), (20, 16), (40, 32), (48, 32), (60, 48))


@dataclass(frozen=True)
class Record:
    """The errors of one code on one layer; nan where shares did not decode."""

    network: str
    layer: str
    n: int
    delta: int
    code: str
    k_a: int
    k_b: int
    condition: float
    float32_random: float
    float32_worst: float
    float64_random: float
    float64_worst: float


def study(
    network: str,
    layer_name: str,
    geometry: ConvGeometry,
    size: tuple[int, int],
    variant: Variant,
    sets: int,
    seed: int,
) -> Record | None:
    """Return the record of one code on one layer, None if there is no such code."""
    n, delta = size
    try:
        code = build_variant(variant, delta if variant.name == "uncoded" else n, delta, geometry)
    except CodeError:
        return None
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(
        (1, geometry.in_channels, *geometry.spatial), generator=generator, dtype=torch.float64
    )
    weight = torch.randn(geometry.weight_shape, generator=generator, dtype=torch.float64)
    weight /= math.sqrt(math.prod(geometry.weight_shape[1:]))
    reference = geometry.convolve(x, weight)
    conditions = measure(code, samples=500, countable=5000)
    worst = tuple(share for share in range(code.n) if share not in conditions.worst_lost)
    chosen = [*survivor_sets(code, sets, seed), worst]
    layer = CodedConv(geometry, code)
    found = {}
    for dtype in (torch.float32, torch.float64):
        *some, last = layer_errors(layer, x.to(dtype), weight.to(dtype), chosen, reference)
        found[dtype] = (float(np.mean(some)), last)
    return Record(
        network,
        layer_name,
        n,
        delta,
        variant.label,
        code.k_a,
        code.k_b,
        conditions.worst,
        *found[torch.float32],
        *found[torch.float64],
    )


def run(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Return the records of all layers, sizes and codes."""
    networks = {"AlexNet": alexnet(), "VGG-16": vgg16(arguments.vgg_size)}
    again = [v for v in VARIANTS if not arguments.codes or v.label in arguments.codes]
    records: list[dict[str, object]] = []
    if arguments.codes and arguments.json is not None and arguments.json.exists():
        names = {variant.label for variant in again}
        records = [r for r in json.loads(arguments.json.read_text()) if r["code"] not in names]
    for size in SIZES:
        for variant in again:
            begun = time.monotonic()
            for network, layers in networks.items():
                for name, geometry in layers.items():
                    record = study(
                        network, name, geometry, size, variant, arguments.sets, arguments.seed
                    )
                    if record is not None:
                        records.append(vars(record))
            print(f"{size} {variant.label}: {time.monotonic() - begun:.0f} s", flush=True)
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    order = [variant.label for variant in VARIANTS]
    return sorted(records, key=lambda r: (r["n"], order.index(str(r["code"]))))


def table(records: list[dict[str, object]]) -> str:
    """Return a Markdown table: the largest mean squared error over all layers."""
    lines = [
        (
            "| (n, δ) | code | worst condition | float32, random | float32, worst | "
            "float64, random | float64, worst |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for size, label in _keys(records):
        some = _select(records, size, label)
        cells = [_largest(some, key) for key in ("condition", *_COLUMNS)]
        shown = " | ".join("does not decode" if math.isnan(c) else f"{c:.2g}" for c in cells)
        lines.append(f"| {size} | {label} | {shown} |")
    return "\n".join(lines) + "\n"


_COLUMNS = ("float32_random", "float32_worst", "float64_random", "float64_worst")


def figure(records: list[dict[str, object]], path: Path) -> None:
    """Draw the errors from the worst survivors over the sizes, a panel for each dtype."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    sizes = list(dict.fromkeys(f"({r['n']}, {r['delta']})" for r in records))
    labels = list(dict.fromkeys(str(r["code"]) for r in records))
    figure_, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, dtype in zip(axes, ("float32", "float64"), strict=True):
        for number, label in enumerate(labels):
            worst, random = (
                [
                    _largest(_select(records, size, label), f"{dtype}_{kind}") or math.nan
                    for size in sizes
                ]
                for kind in ("worst", "random")
            )
            color = f"C{number}"
            width = 2.5 if label == "systematic" else 1.2
            axis.plot(sizes, worst, "o-", color=color, label=label, linewidth=width)
            axis.plot(sizes, random, "x:", color=color, linewidth=width / 2)
        axis.set_yscale("log")
        axis.set_title(dtype)
        axis.set_xlabel("(n, δ)")
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("mean squared error / power")
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    figure_.suptitle(
        "Largest error over the convolutions of AlexNet and VGG-16: worst survivors found (solid), "
        "random survivors (dotted)",
        fontsize="medium",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure_.savefig(path, metadata={"Date": None})
    plt.close(figure_)


def _keys(records: list[dict[str, object]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((f"({r['n']}, {r['delta']})", str(r["code"])) for r in records))


def _select(records: list[dict[str, object]], size: str, label: str) -> list[dict[str, object]]:
    return [r for r in records if f"({r['n']}, {r['delta']})" == size and r["code"] == label]


def _largest(records: list[dict[str, object]], key: str) -> float:
    values = [float(str(record[key])) for record in records]
    return math.nan if not values or any(map(math.isnan, values)) else max(values)


def main() -> None:
    """Run the study, or draw one that was run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where to write the records")
    parser.add_argument("--draw", type=Path, help="records to draw, instead of a run")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--codes", nargs="*", help="only these")
    parser.add_argument("--sets", type=int, default=3, help="random survivor sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vgg-size", type=int, default=112)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = json.loads(arguments.draw.read_text()) if arguments.draw else run(arguments)
    print(table(records))
    if arguments.table is not None:
        arguments.table.write_text(table(records))
    if arguments.figure is not None:
        figure(records, arguments.figure)


if __name__ == "__main__":
    main()
