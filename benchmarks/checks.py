"""Checksums of convolutions: clean layers against the bound, what is found, what it costs.

    python benchmarks/checks.py --networks resnet50 vgg16 mobilenet_v3_small --faults 200

Runs networks with random weights on random images, 2 at a time, and checks every convolution in
the memory formats of both engines. *Clean*: the largest difference in units of its bound, over all
layers. *Faults*: one fault in one layer each; the effect is the norm of the error of the layer's
output in units of the bound. *Cost*: CPU time of the checks over that of the convolutions, in
oneDNN with fused activations, one thread. The checks read an output without its activation, so the
time for which this has to be applied by itself counts as theirs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from models import MODELS
from torch import Tensor, nn

from fcdcc.coding.checksums import ConvChecksum
from fcdcc.coding.testing.faults import FAULTS, flip_bit

EFFECTS = (1.0, 10.0, 100.0)
"""Effects in units of the bound that separate the columns of the table."""


class Call(NamedTuple):
    """One convolution of a network with what it was given and what it made."""

    module: nn.Conv2d
    x: Tensor
    checksum: ConvChecksum

    def output(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution, bias included."""
        convolve: Callable[..., Tensor] = self.module._conv_forward
        return convolve(x, weight, self.module.bias)


def calls_of(name: str, size: int, images: int, seed: int) -> Iterator[Call]:
    """Yield every convolution of a network, with its input for random images."""
    torch.manual_seed(seed)
    network = MODELS[name](size)
    found: list[tuple[nn.Conv2d, Tensor]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda m, given: found.append((m, given[0].clone())))
    network(torch.rand(images, 3, size, size))
    for number, (module, x) in enumerate(found):
        checksum = ConvChecksum(
            module.weight.clone(),
            module.bias,
            stride=module.stride,
            padding=[(int(p), int(p)) for p in module.padding],
            dilation=module.dilation,
            groups=module.groups,
            seed=number,
        )
        yield Call(module, x, checksum)


def clean(calls: list[Call]) -> tuple[float, int]:
    """Return the largest difference in units of its bound, and the number of checks."""
    worst, checks = 0.0, 0
    for call in calls:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = call.x.contiguous(memory_format=layout)
            y = call.output(x, call.module.weight)
            worst = max(worst, call.checksum.check(x, y).worst)
            checks += len(x)
    return worst, checks


def inject(
    calls: list[Call], fault: str, count: int, rng: np.random.Generator
) -> list[tuple[float, bool]]:
    """Return the effect of each fault in units of the bound, and whether it was found."""
    effects = []
    for _ in range(count):
        call = calls[int(rng.integers(len(calls)))]
        x, weight = call.x.contiguous(memory_format=torch.channels_last), call.module.weight
        right = call.output(x, weight)
        if fault == "filter":
            weight = weight.clone()
            flip_bit(weight, rng)
            wrong = call.output(x, weight)
        elif fault == "input":
            damaged = x.clone(memory_format=torch.preserve_format)
            flip_bit(damaged, rng)
            wrong = call.output(damaged, weight)
        else:
            wrong = right.clone(memory_format=torch.preserve_format)
            FAULTS[fault](wrong, rng)
        found = call.checksum.check(x, wrong)
        error = (wrong.to(torch.float64) - right.to(torch.float64)).flatten(1).norm(dim=1)
        effect = float(torch.nan_to_num(error / found.bounds[:, 0], nan=1e300, posinf=1e300).max())
        effects.append((effect, not found.is_right))
    return effects


def cost(calls: list[Call], rounds: int) -> tuple[float, float]:
    """Return the CPU seconds of fused convolutions, and those with checks before activations."""
    internal: Any = torch._C
    fused = checked = 0.0
    for call in calls:
        module, x = call.module, call.x.contiguous(memory_format=torch.channels_last)
        geometry = (
            list(module.padding), list(module.stride), list(module.dilation), module.groups
        )  # fmt: skip
        weight = internal._nn.mkldnn_reorder_conv2d_weight(
            module.weight.to_mkldnn(), *geometry, list(x.shape)
        )

        def convolve(
            activation: str, x: Tensor = x, weight: Tensor = weight, module: nn.Conv2d = module,
            geometry: tuple[object, ...] = geometry,
        ) -> Tensor:  # fmt: skip
            made: Tensor = torch.ops.mkldnn._convolution_pointwise(
                x, weight, module.bias, *geometry, activation, [], ""
            )
            return made

        def with_check(
            x: Tensor = x, convolve: Callable[[str], Tensor] = convolve, call: Call = call
        ) -> None:
            y = convolve("none")
            call.checksum.check(x, y)
            torch.relu_(y)

        one, other = [], []
        for _ in range(rounds + 1):
            one.append(_seconds(partial(convolve, "relu")))
            other.append(_seconds(with_check))
        fused, checked = fused + float(np.median(one[1:])), checked + float(np.median(other[1:]))
    return fused, checked


def _seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    """Print three Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--networks", nargs="+", default=["resnet50", "vgg16", "mobilenet_v3_small"]
    )
    parser.add_argument("--size", type=int, default=224, help="pixels of an image")
    parser.add_argument("--images", type=int, default=2, help="images of a batch")
    parser.add_argument("--faults", type=int, default=100, help="faults of each kind")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of the cost")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    clean_rows, cost_rows = [], []
    effects: dict[str, list[tuple[float, bool]]] = {}
    with torch.inference_mode():
        for name in arguments.networks:
            calls = list(calls_of(name, arguments.size, arguments.images, arguments.seed))
            worst, checks = clean(calls)
            clean_rows.append(f"| {name} | {checks} | {worst:.3f} |")
            for fault in [*FAULTS, "filter", "input"]:
                effects.setdefault(fault, []).extend(inject(calls, fault, arguments.faults, rng))
            if arguments.rounds:
                fused, checked = cost(calls, arguments.rounds)
                cost_rows.append(
                    f"| {name} | {1e3 * fused / arguments.images:.0f} ms | "
                    f"{100 * (checked / fused - 1):.1f} % |"
                )
    print("| network | checked images and layers | largest difference / bound |\n|---|---|---|")
    print("\n".join(clean_rows))
    columns = ["above " + f"{effect:.0f}" for effect in reversed(EFFECTS)]
    print(f"\n| fault | faults | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for fault, found in effects.items():
        cells = []
        for least in reversed(EFFECTS):
            strong = [was_found for effect, was_found in found if effect > least]
            cells.append(f"{sum(strong)} of {len(strong)}")
        print(f"| {fault} | {len(found)} | {' | '.join(cells)} |")
    if cost_rows:
        print("\n| network | convolutions, one image | added by checks |\n|---|---|---|")
        print("\n".join(cost_rows))


if __name__ == "__main__":
    main()
