"""Checksums of layers: clean ones against the bound, and what is found of injected faults.

    python benchmarks/checks.py clean --checks 1000000 --seconds 3600
    python benchmarks/checks.py faults --faults 10000 --seconds 3600

*clean*: the networks of ``tests/zoo`` in both engines, with every layer checked as on a worker, in
float32 or another ``--dtype``, on batches of 1 to 3 images that are noise, of one sign, constant,
mostly zero, very small, very large or striped like the weights of the checksums. A check is that of
one layer's output for one batch. The largest difference in units of its bound is that of every
twentieth check.

*faults*: one fault in one layer each. The effect is the norm of the error of the layer's output in
units of the layer's bound. Some of them (``--answers``) are followed to the network's output, to
see whether they change its answer.

Both stop after ``--seconds``, and say how much they did. Another ``--seed`` does other cases.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from models import MODELS
from torch import Tensor, nn

from fcdcc.coding.checksums import ConvChecksum, Residues
from fcdcc.coding.sum_weights import axis_weights
from fcdcc.coding.testing.faults import FAULTS, flip_bit
from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import FailedCheckError, ModelError
from fcdcc.pipeline.worker.engines import StageProgram
from fcdcc.pipeline.worker.layer_checks import LayerChecks

EFFECTS = (1.0, 10.0, 100.0)
"""Effects in units of the bound that separate the columns of the table."""

IN_DETAIL = 20
"""Of so many clean checks one is measured in units of its bound."""

FAULT_KINDS = (*FAULTS, "filter", "input", "accumulator")

# ------------------------------------------------------------------------- clean


class Counted:
    """Counts the checks of a process, and measures some of them."""

    def __init__(self) -> None:
        self.checks = 0
        self.worst = 0.0
        self._usual = ConvChecksum.wrong

    def install(self) -> None:
        """Have every check counted."""
        counted, usual = self, self._usual

        def wrong(checksum: ConvChecksum, *given: Any) -> Any:
            counted.checks += 1
            if counted.checks % IN_DETAIL == 0:
                counted.measure(checksum, *given)
            return usual(checksum, *given)

        ConvChecksum.wrong = wrong  # type: ignore[method-assign] # a benchmark counts the calls of this method by wrapping it

    def measure(self, checksum: ConvChecksum, x: Tensor, y: Tensor, *more: Any) -> None:
        """Note how far a layer is from its bound."""
        added, sums_of = (*more, None, None)[:2]
        differences = checksum._differences(x, y, added, sums_of)
        found = Residues(differences, checksum._position_bounds(x, y, added)[:, None])
        self.worst = max(self.worst, found.worst)


def varied(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Return images of one of several kinds."""
    count = int(rng.integers(1, 4))
    images = torch.from_numpy(rng.standard_normal((count, *shape)).astype("float32"))
    kind = int(rng.integers(8))
    if kind == 1:
        images = images.abs()
    elif kind == 2:
        images = torch.full_like(images, float(rng.standard_normal()))
    elif kind == 3:
        images = images * (torch.rand(images.shape) < 0.02)
    elif kind == 4:
        images = images * 1e-6
    elif kind == 5:
        images = images * 1e4
    elif kind == 6:
        images = images + 30.0
    elif kind == 7:
        stripes = axis_weights(0, shape[1], 1).to(torch.float32)
        images = stripes.reshape(-1, *[1] * (len(shape) - 2)).expand_as(images).contiguous()
    return images


def clean(checks: int, seconds: float, seed: int, dtype: torch.dtype) -> None:
    """Check clean layers, and print a table."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from zoo import ZOO, save

    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    programs: dict[tuple[str, str], tuple[StageProgram, str, tuple[int, ...]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, entry in ZOO.items():
            model = open_model(str(save(entry, Path(folder) / f"{name}.pt2")))
            network = model.to(dtype).network
            layers = LayerChecks(network)
            for engine in ("eager", "fused"):
                program = StageProgram(
                    network, range(len(network.stages)), (network.output,), engine, checks=layers
                )
                programs[name, engine] = program, network.input, entry.input_shape
    counted, done = Counted(), defaultdict[str, list[int]](lambda: [0, 0])
    counted.install()
    skipped: set[str] = set()
    worst, begun = defaultdict[str, float](float), time.monotonic()
    while counted.checks < checks and time.monotonic() - begun < seconds:
        for (name, engine), (program, given, shape) in programs.items():
            before, counted.worst = counted.checks, 0.0
            try:
                program({given: varied(shape, rng).to(dtype)})
            except ModelError:
                skipped.add(name)  # an operator that PyTorch does not have in this dtype
            except FailedCheckError as error:
                done[engine][1] += 1
                print(f"false alarm: {name}, {engine}: {error}", flush=True)
            done[engine][0] += counted.checks - before
            worst[engine] = max(worst[engine], counted.worst)
    print(f"{len(ZOO) - len(skipped)} networks, seed {seed}, {time.monotonic() - begun:.0f} s\n")
    print("| engine | checked layers | false alarms | largest difference / bound |")
    print("|---|---|---|---|")
    for engine, (number, alarms) in done.items():
        print(f"| {engine} | {number:,} | {alarms} | {worst[engine]:.3f} |")


# ------------------------------------------------------------------------ faults


class Call(NamedTuple):
    """One convolution of a network with its input and its checksum."""

    module: nn.Conv2d
    x: Tensor
    right: Tensor
    checksum: ConvChecksum

    def output(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the convolution, bias included."""
        convolve: Callable[..., Tensor] = self.module._conv_forward
        return convolve(x, weight, self.module.bias)

    @property
    def kind(self) -> str:
        """What kind of layer it is."""
        if self.module.groups > 1:
            return "depthwise"
        return "1 × 1" if max(self.module.kernel_size) == 1 else "other"


def calls_of(network: nn.Module, images: Tensor) -> Iterator[Call]:
    """Yield every convolution of a network, with its input for some images."""
    found: list[tuple[nn.Conv2d, Tensor]] = []
    hooks = [
        module.register_forward_pre_hook(lambda m, given: found.append((m, given[0].clone())))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    network(images)
    for hook in hooks:
        hook.remove()
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
        x = x.contiguous(memory_format=torch.channels_last)
        yield Call(module, x, module(x), checksum)


def wrong_output(call: Call, fault: str, rng: np.random.Generator) -> Tensor:
    """Return the output of a convolution with one fault."""
    weight = call.module.weight
    if fault == "filter":
        weight = weight.clone()
        flip_bit(weight, rng)
        return call.output(call.x, weight)
    if fault == "input":
        damaged = call.x.clone(memory_format=torch.preserve_format)
        flip_bit(damaged, rng)
        return call.output(damaged, weight)
    wrong = call.right.clone(memory_format=torch.preserve_format)
    if fault == "accumulator":
        flip_in_sum(call, wrong, rng)
    else:
        FAULTS[fault](wrong, rng)
    return wrong


def flip_in_sum(call: Call, wrong: Tensor, rng: np.random.Generator) -> None:
    """Flip one bit of the sum of some of the products of one output."""
    module = call.module
    image, filter_, *place = (int(rng.integers(size)) for size in wrong.shape)
    per_group = module.weight.shape[1]
    first = filter_ // (len(module.weight) // module.groups) * per_group
    padded = nn.functional.pad(
        call.x[image : image + 1, first : first + per_group],
        [int(p) for p in module.padding[::-1] for _ in range(2)],
    )[0]
    ends = [
        slice(p * s, p * s + (k - 1) * d + 1, d)
        for p, s, k, d in zip(
            place, module.stride, module.kernel_size, module.dilation, strict=True
        )
    ]
    products = (padded[:, ends[0], ends[1]] * module.weight[filter_]).flatten()
    partial = products[: int(rng.integers(len(products))) + 1].sum().reshape(1)
    flipped = partial.clone()
    flip_bit(flipped, rng)
    wrong[image, filter_, place[0], place[1]] += (flipped - partial)[0]


def changes_answer(
    network: nn.Module, images: Tensor, right: Tensor, call: Call, wrong: Tensor
) -> bool:
    """Return whether another output of one convolution changes the network's answers."""
    hook = call.module.register_forward_hook(lambda *_: wrong)
    found = network(images)
    hook.remove()
    return bool((found.argmax(1) != right).any()) or not bool(found.isfinite().all())


class Found(NamedTuple):
    """One fault: its effect in units of the bound, and whether it was found."""

    network: str
    fault: str
    layer: str
    effect: float
    is_found: bool
    changes: bool | None


def inject(
    name: str, size: int, count: int, answers: int, seconds: float, rng: np.random.Generator
) -> Iterator[Found]:
    """Yield faults of one network, as many of each kind, until there are enough or time is over."""
    torch.manual_seed(int(rng.integers(2**31)))
    network = MODELS[name](size)
    begun = time.monotonic()
    images = torch.rand(2, 3, size, size)
    calls, right = list(calls_of(network, images)), network(images).argmax(1)
    for number in range(count):
        for fault in FAULT_KINDS:
            call = calls[int(rng.integers(len(calls)))]
            wrong = wrong_output(call, fault, rng)
            is_right = call.checksum.is_right(call.x, wrong)
            bounds = call.checksum._position_bounds(call.x, wrong, None)
            error = (wrong.to(torch.float64) - call.right).flatten(1).norm(dim=1)
            effect = torch.nan_to_num(error / bounds, nan=math.inf, posinf=math.inf).max()
            changes = None
            if number < answers:
                changes = changes_answer(network, images, right, call, wrong)
            yield Found(name, fault, call.kind, float(effect), not is_right, changes)
        if time.monotonic() - begun > seconds:
            return


def show(found: list[Found], by: str) -> None:
    """Print a table of what was found, by one of its fields."""
    columns = ["above " + f"{effect:.0f}" for effect in reversed(EFFECTS)]
    print(f"\n| {by} | faults | {' | '.join(columns)} | changed answers |")
    print(f"|---|---|{'---|' * (len(columns) + 1)}")
    for name in dict.fromkeys(getattr(one, by) for one in found):
        own = [one for one in found if getattr(one, by) == name]
        cells = []
        for least in reversed(EFFECTS):
            strong = [one.is_found for one in own if one.effect > least]
            cells.append(f"{sum(strong):,} of {len(strong):,}")
        changed = [one.is_found for one in own if one.changes]
        cells.append(f"{sum(changed):,} of {len(changed):,}")
        print(f"| {name} | {len(own):,} | {' | '.join(cells)} |")
    sys.stdout.flush()


def faults(arguments: argparse.Namespace) -> None:
    """Inject faults, and print tables by fault and by kind of layer."""
    rng, found = np.random.default_rng(arguments.seed), list[Found]()
    for name in arguments.networks:
        seconds = arguments.seconds / len(arguments.networks)
        found += inject(name, arguments.size, arguments.faults, arguments.answers, seconds, rng)
        print(f"{name}: {sum(one.network == name for one in found):,} faults", flush=True)
    for by in ("fault", "layer", "network"):
        show(found, by)
    missed = [one for one in found if one.effect > EFFECTS[1] and not one.is_found]
    for one in missed[:20]:
        print(f"missed: {one}")


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mode", choices=["clean", "faults"])
    parser.add_argument("--checks", type=int, default=10_000, help="clean checks")
    parser.add_argument("--faults", type=int, default=100, help="faults of each kind and network")
    parser.add_argument("--answers", type=int, default=50, help="of these, followed to the answer")
    parser.add_argument(
        "--networks", nargs="+", default=["resnet50", "vgg16", "mobilenet_v3_small"]
    )
    parser.add_argument("--size", type=int, default=64, help="pixels of an image, for faults")
    parser.add_argument("--dtype", choices=["float32", "float64", "bfloat16"], default="float32")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        if arguments.mode == "clean":
            clean(
                arguments.checks,
                arguments.seconds,
                arguments.seed,
                getattr(torch, arguments.dtype),
            )
        else:
            faults(arguments)


if __name__ == "__main__":
    main()
