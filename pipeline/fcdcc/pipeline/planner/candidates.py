"""Make the plan of every convolution from the few numbers of a candidate.

:mod:`.search` finds the best candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch

from fcdcc.coding import ConvGeometry
from fcdcc.coding.conditioning import check_tolerance, condition_limit, measure
from fcdcc.coding.cost import Partition, cheapest, coded_share_cost
from fcdcc.coding.partitions import code_partitions, planned_parity
from fcdcc.coding.systematic import known_condition

from ..errors import PlanError
from ..model.interpreter import network_shapes
from ..model.network import ConvStage, FixedBatch, GlueStage, Network, Stage, Step
from ..options import PlanOptions
from ..plans.forecast import Speeds, convolution_work
from ..plans.plan import PART_OF_NEXT_SHARE, CodeSpec, Form, LayerPlan, Plan, Split, form_of
from ..plans.row_layout import analysed
from .bands import Bands

PARTS_PER_SHARE = 4
"""Parts of the input in one share whose parity is made with quaternions: one for each component."""

IMAGE_SHARE_FACTOR = 2.75
"""How much more work a share of runs of images has than one of strips of rows. Runs share no rows,
so several convolutions in one share compute nothing twice (docs/healthy.md)."""

STANDBY_SHARE_FACTOR = 30.0
"""The same where the parity of runs of images waits on standby: at the usual speeds 1.5 seconds of
computing. After every coded convolution its result leaves the memory layout of the engine, and no
activation or sum can be fused into it. With fewer of them the job of a ResNet-50 took a quarter
less CPU time (docs/decisions/0014-long-shares-by-images.md). A coded convolution saves only that a
late share is computed from there on, not from the images."""

MAX_REAL_CONDITION = 100.0
"""Condition number up to which strips of rows have real parity."""

MAX_REAL_SHARES = 14
"""Shares up to which real parity is considered where more than one may be lost. With more of them
its condition is always above :data:`MAX_REAL_CONDITION`, and measuring that would take half of the
time that planning takes."""


SIMILAR_TIME = 1.05
"""Partitions that take at most so many times as long as the fastest are chosen from by their
condition numbers."""


@dataclass(frozen=True)
class PlanningProblem:
    """The network, images, options and speeds that a plan is made for."""

    network: Network
    image_shape: tuple[int, ...]
    options: PlanOptions
    speeds: Speeds

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all values, for one image."""
        return network_shapes(self.network, (1, *self.image_shape))

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        found: torch.dtype = getattr(torch, self.options.dtype)
        return found.itemsize


@dataclass(frozen=True)
class Candidate:
    """The numbers that determine a plan.

    Parameters
    ----------
    form
        What the parts of a block are, and where they stay.
    batch
        Images of a block.
    in_flight
        Blocks at a time.
    share_work
        Multiply-adds since the last coded convolution after which the next one is coded, in strips
        of rows; in runs of images more: :func:`least_image_share_work`. Where parts stay with
        their workers, the convolutions in between belong to the share of the next that is.
    bands
        What the images are cut into.
    """

    form: Form
    batch: int
    in_flight: int
    share_work: float = 0.0
    bands: Bands = field(default_factory=Bands)


def build_plan(problem: PlanningProblem, candidate: Candidate) -> Plan:
    """Return the plan of a candidate.

    Raises
    ------
    CodeError
        If there is no such code.
    IllConditionedError
        If a loss that is to be tolerated leaves too few digits of the dtype.
    """
    options = problem.options
    if options.dtype == "auto":
        raise PlanError("dtype auto: expected the one in which the model was exported by now")
    plan_layers = {"images": _plan_by_images, "rows": _plan_in_place, "gathered": _plan_gathered}
    layers = tuple(plan_layers[candidate.form](problem, candidate))
    warnings = [
        *candidate.bands.warnings,
        *_check_codes(layers, options.dtype),
        *_short_of_rows(layers, options.delta),
        *(_gathered_for_rows(problem) if candidate.form == "gathered" else ()),
        *_odd_filters(problem.network),
    ]
    fixed = problem.network.fixed_batch
    if options.dtype == "bfloat16":
        warnings.append(
            "bfloat16: no convolution is coded, since decoding would lose more digits than it has; "
            "images of a lost worker are computed again"
        )
    if fixed is not None:
        warnings.append(_in_a_loop(problem.network, fixed))
    elif not layers and options.dtype != "bfloat16":
        warnings.append("the model has no convolution: nothing is coded")
    split: Split = "images" if candidate.form == "images" else "rows"
    band = candidate.bands.band
    return Plan(
        network=problem.network.fingerprint,
        image_shape=problem.image_shape,
        n=options.shares,
        tolerate=options.shares - options.delta,
        code=options.code,
        split=split,
        form=form_of(split, layers, band),
        redundancy=options.redundancy,
        dtype=options.dtype,
        batch=candidate.batch,
        in_flight=candidate.in_flight,
        layers=layers,
        warnings=tuple(warnings),
        band=band,
        verify=options.verify,
        objective=options.objective,
    )


# ----------------------------------------------------------------------- layers


def _plan_gathered(problem: PlanningProblem, candidate: Candidate) -> Iterator[LayerPlan]:
    """Yield the plan of every convolution, each gathered on one worker after it."""
    options = problem.options
    partitions = code_partitions(options.code, options.shares, options.delta)
    for stage, geometry, windows in geometries(problem):
        best = _best_partition(problem, geometry, partitions, candidate.batch)
        spec = _code_of(options, best)
        yield LayerPlan(stage.index, stage.name, geometry, spec, windows=windows)


def _code_of(options: PlanOptions, partition: Partition) -> CodeSpec:
    """Return the code with a partition, with complex parity where plans use that."""
    k_a, k_b, *_ = partition
    is_complex = options.code == "systematic" and planned_parity(k_a, k_b) == "complex"
    parity: Literal["complex"] | None = "complex" if is_complex else None
    return CodeSpec(options.code, options.shares, k_a, k_b, parity)


def _best_partition(
    problem: PlanningProblem,
    geometry: ConvGeometry,
    partitions: tuple[Partition, ...],
    batch: int,
) -> Partition:
    """Return the partition that is best by the objective.

    Of those that take hardly longer than the fastest, the one whose worst loss leaves the smallest
    condition number.
    """
    options = problem.options
    if options.objective == "paper":
        return cheapest(geometry, partitions, "paper")
    speeds, itemsize = problem.speeds, problem.itemsize

    def seconds(partition: Partition) -> float:
        cost = coded_share_cost(geometry, partition, "rows", batch)
        moved = itemsize * cost.communication
        work = convolution_work(cost.multiply_adds, moved, 0.0)
        return speeds.seconds(work, itemsize) + speeds.fetching(0, moved) + moved / speeds.link

    times = {partition: seconds(partition) for partition in partitions}
    fastest = min(partitions, key=times.__getitem__)
    if options.code != "systematic":
        return fastest  # the condition number of the other codes hardly depends on the partition
    fast = (p for p in partitions if times[p] <= SIMILAR_TIME * times[fastest])

    def worst(partition: Partition) -> float:
        k_a, k_b, *_ = partition
        return known_condition(options.shares, k_a, k_b, planned_parity(k_a, k_b))

    return min(fast, key=lambda p: (worst(p), times[p]))


def _plan_in_place(problem: PlanningProblem, candidate: Candidate) -> Iterator[LayerPlan]:
    """Yield the plan of every convolution: its strips stay put, some of them are coded.

    A convolution is coded when enough work has come together since the last one that was.
    Those between are computed twice for the rows that two strips need.

    Raises
    ------
    PlanError
        If no layer has as many rows as there are to be strips.
    """
    options = problem.options
    most = _most_rows(problem)
    if most < options.delta:
        raise PlanError(
            f"split by rows into δ = n − γ = {options.delta} strips, where no layer has more than "
            f"{most} rows: take a smaller --n, a larger --tolerate, or --split images"
        )
    spec = _code_of_strips(options)
    found = analysed(problem.network, problem.image_shape)
    uncoded_work, last = 0.0, problem.network.convolutions[-1:]
    images = candidate.batch * candidate.bands.work_part
    for stage, geometry, windows in geometries(problem):
        if found.layouts[stage.output].axis is None:
            reason = "its input has no rows to split: run whole"
            yield LayerPlan(
                stage.index, stage.name, geometry, None, "rows", reason, windows=windows
            )
            continue
        uncoded_work += windows * geometry.multiply_adds * images / options.delta
        coded = uncoded_work >= candidate.share_work or stage in last
        uncoded_work = 0.0 if coded else uncoded_work
        reason = "" if coded else PART_OF_NEXT_SHARE
        code = spec if coded else None
        yield LayerPlan(
            stage.index, stage.name, geometry, code, "rows", reason, coded, windows=windows
        )


def _code_of_strips(options: PlanOptions) -> CodeSpec:
    """Return the code of strips of rows: real parity, where that is well conditioned.

    With real parity there are δ strips, with quaternions 4 δ, of which each share has four;
    so fewer rows are padding with real parity.
    """
    n, delta = options.shares, options.delta
    if n <= MAX_REAL_SHARES or n - delta <= 1:
        real = CodeSpec("systematic", n, delta, 1, "real")
        if measure(real.code).worst <= MAX_REAL_CONDITION:
            return real
    return CodeSpec("systematic", n, PARTS_PER_SHARE * delta, 1)


def _plan_by_images(problem: PlanningProblem, candidate: Candidate) -> Iterator[LayerPlan]:
    """Yield the plan of every convolution: all of them local, some of them coded."""
    options = problem.options
    spec = CodeSpec(options.code, options.shares, PARTS_PER_SHARE * options.delta, 1)
    least = least_image_share_work(options, candidate.share_work)
    uncoded_work, last = 0.0, problem.network.convolutions[-1:]
    for stage, geometry, windows in geometries(problem):
        uncoded_work += windows * geometry.multiply_adds * candidate.batch / options.delta
        coded = uncoded_work >= least or stage in last
        uncoded_work = 0.0 if coded else uncoded_work
        reason = "" if coded else PART_OF_NEXT_SHARE
        code = spec if coded else None
        yield LayerPlan(stage.index, stage.name, geometry, code, "images", reason, windows=windows)


def is_computed_late(options: PlanOptions) -> bool:
    """Return whether parity is computed only where a share is late: it costs nothing until then."""
    return options.redundancy != "eager" and options.verify in ("off", "checksum")


def least_image_share_work(options: PlanOptions, share_work: float) -> float:
    """Return the multiply-adds after which a convolution is coded in a run of images.

    Parity repeats all of its uncoded layers for each run. Where it is computed for every block,
    shares are short.
    """
    factor = STANDBY_SHARE_FACTOR if is_computed_late(options) else IMAGE_SHARE_FACTOR
    return factor * share_work


def geometries(problem: PlanningProblem) -> Iterator[tuple[ConvStage, ConvGeometry, int]]:
    """Yield every convolution with its shapes, and with how many windows of an image it has."""
    return convolution_geometries(problem.network, problem.shapes)


def convolution_geometries(
    network: Network, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[ConvStage, ConvGeometry, int]]:
    """Yield every convolution of a network with its geometry, and how many windows it has.

    ``shapes`` has the shapes of all values for one image, (1, C, *space), or (windows, C, *space)
    where the network puts windows of the image beside each other.
    """
    for stage in network.convolutions:
        weight = network.tensors[stage.weight]
        yield (
            stage,
            ConvGeometry(
                in_channels=shapes[stage.input][1],
                out_channels=weight.shape[0],
                spatial=shapes[stage.input][2:],
                kernel=tuple(weight.shape[2:]),
                stride=stage.stride,
                padding=stage.padding,
                dilation=stage.dilation,
                groups=stage.groups,
            ),
            shapes[stage.input][0],
        )


def check_plan(plan: Plan, network: Network) -> None:
    """Check that a saved plan is one of a network: plans come from files.

    A plan with another stride, say, would make other predictions without an error.

    Raises
    ------
    PlanError
        If it is not.
    """
    if plan.network != network.fingerprint:
        raise _altered("it was made for another")
    shapes = network_shapes(network, (1, *plan.image_shape))
    found = {
        stage.index: (geometry, windows)
        for stage, geometry, windows in convolution_geometries(network, shapes)
    }
    if [layer.layer for layer in plan.layers] != list(found):
        raise _altered(f"it has the layers {[layer.layer for layer in plan.layers]!r:.80}")
    if plan.tolerate >= plan.n:
        raise _altered(f"it tolerates {plan.tolerate} losses of {plan.n}")
    for layer in plan.layers:
        name = f"layer {layer.layer} ({layer.name:.80})"
        if (layer.geometry, layer.windows) != found[layer.layer]:
            raise _altered(f"{name} has another geometry")
        if layer.split != plan.split:
            raise _altered(f"{name} is split by {layer.split}")
        if layer.code is None:
            continue
        made = (layer.code.name, layer.code.n, layer.code.code.recovery_threshold)
        if made != (plan.code, plan.n, plan.delta):
            raise _altered(f"{name} has the code {made}")


def _altered(what: str) -> PlanError:
    return PlanError(
        f"the plan is none of this network: {what}; make one for it with fcdcc plan --json FILE"
    )


# --------------------------------------------------------------------- warnings


def _in_a_loop(network: Network, fixed: FixedBatch) -> str:
    """Return what a fixed batch costs, and how to export the model without one."""
    count = sum(
        step.op == "aten.convolution.default"
        for stage in network.stages
        for step in _steps_of(stage)
    )
    export = (
        f"torch.export.export(model, (example,), dynamic_shapes={{{network.input!r}: "
        '{0: torch.export.Dim("batch")}})'
    )
    return (
        f"the model was exported for batches of {fixed.images}, and cannot be read for other "
        f"numbers of images ({fixed.reason}): each task runs it on {fixed.images} at a time, the "
        f"last batch filled with copies, and none of its {count} convolutions is coded, so images "
        f"of a lost worker are computed again; export it with fcdcc export, or with {export}"
    )


def _steps_of(stage: Stage) -> tuple[Step, ...]:
    return stage.steps if isinstance(stage, GlueStage) else ()


@lru_cache(maxsize=2)
def _odd_filters(network: Network) -> tuple[str, ...]:
    """Return a warning for each convolution with filters that are not finite."""
    found = []
    for stage in network.convolutions:
        filters = [network.tensors[name] for name in (stage.weight, stage.bias) if name]
        odd = sum(int((~torch.isfinite(values)).sum()) for values in filters)
        if odd:
            found.append(
                f"layer {stage.index} ({stage.name}): {odd} of its filters' values are not finite, "
                "and neither are its answers; a block that would have to decode them is done "
                "without a code"
            )
    return tuple(found)


def _check_codes(layers: Iterable[LayerPlan], dtype: str) -> Iterator[str]:
    """Refuse codes that lose too many digits, and yield a warning for each that may lose some."""
    for spec in {layer.code: None for layer in layers if layer.code is not None}:
        limit = condition_limit(getattr(torch, dtype))
        worst = check_tolerance(spec.code, getattr(torch, dtype)).worst
        if worst > limit:
            yield (
                f"{spec.name} with n = {spec.n}, k_a = {spec.k_a}, k_b = {spec.k_b}: the worst "
                f"loss leaves a condition number of {worst:.3g}, above {limit:.0e} for {dtype}: "
                "a layer that loses these shares waits for one more"
            )


def _most_rows(problem: PlanningProblem) -> int:
    """Return the rows of the output that has most of them; δ where there is no convolution."""
    rows = (geometry.output_spatial[0] for _, geometry, _ in geometries(problem))
    return max(rows, default=problem.options.delta)


def _gathered_for_rows(problem: PlanningProblem) -> Iterator[str]:
    """Yield a warning where layers are gathered because they have too few rows to be strips."""
    options, most = problem.options, _most_rows(problem)
    if options.objective == "time" and options.code == "systematic" and most < options.delta:
        yield (
            f"every layer is gathered on one worker after it, which moves all its values: strips "
            f"that stay need δ = {options.delta} rows, and no layer has more than {most}; take a "
            "smaller --n, a larger --tolerate, or --split images in blocks of at least "
            f"{options.delta} images"
        )


def _short_of_rows(layers: Iterable[LayerPlan], delta: int) -> Iterator[str]:
    """Yield a warning where layers have fewer rows than there are strips."""
    strips = [layer for layer in layers if layer.in_place]
    short = [layer for layer in strips if layer.geometry.output_spatial[0] < delta]
    if short:
        yield (
            f"{len(short)} of {len(strips)} coded layers have fewer rows than the {delta} strips: "
            "some workers have nothing to do there"
        )
