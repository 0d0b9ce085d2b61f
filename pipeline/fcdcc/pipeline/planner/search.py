"""Find the best :class:`Plan` of a network for the shape of its images, options and workers.

Candidates are simulated (:mod:`.cost`) on these workers. The first of them is the usual plan;
another one is chosen only if it is better by more than the error of the simulation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil, prod

import numpy as np
from dask.utils import format_bytes

from fcdcc.coding.errors import CodeError, FcdccError

from ..errors import PlanError, PlanMemoryError
from ..model.network import Network
from ..options import AUTO, PlanOptions
from ..plans.forecast import Speeds, WorkerPool, on_this_machine
from ..plans.plan import Form, Plan
from ..plans.row_layout import analysed
from .bands import BANDS_IN_FLIGHT, plan_bands
from .candidates import (
    PARTS_PER_SHARE,
    Candidate,
    PlanningProblem,
    build_plan,
    geometries,
    is_computed_late,
    least_image_share_work,
)
from .check_coverage import check_coverage
from .cost.estimate import forecast
from .share_counts import USUAL_SHARES, share_count_note, with_share_counts

MAX_BLOCK_BYTES = 64 * 2**20
"""The largest value of the network, for a whole block, should not exceed this."""

MAX_BATCH = 64
"""Most images of a planned block, so that finished work is recorded often; of each of its shares
where it is split by images and parity waits on standby."""

MIN_IN_FLIGHT = 4
"""Least number of blocks in flight, so that workers have work while a block is decoded."""

MIN_WORK_PER_OVERHEAD = 33.0
"""Minimum ratio of a share's compute time to the overhead of its task."""

SHARE_WORK_FACTORS = (1.0, 0.25, 1 / 16)
"""Fractions of the usual work of a share that are tried, too. With less work in a share, more
layers are coded, and fewer uncoded ones lie between two coded ones. Strips then compute fewer rows
twice, and a parity share of a block that is split by images repeats fewer uncoded layers."""

MIN_GAIN = 0.05
"""Another plan must be faster than the usual one by more than this fraction of its time."""

TIE_TOLERANCE = 0.02
"""Plans whose times differ by less than this fraction count as equal; the one with least memory is
chosen."""

MAX_MEMORY_PART = 0.7
"""Part of the workers' memory that a plan may use; above it Dask begins to write to disk."""


def check_images(network: Network, image_shape: tuple[int, ...]) -> None:
    """Check that a network takes images of this shape, (C, *space).

    Raises
    ------
    PlanError
        If it does not.
    """
    if not fits(network.input_shape, image_shape):
        wanted = ", ".join("any" if size is None else str(size) for size in network.input_shape[1:])
        raise PlanError(
            f"images of shape {image_shape} for a model that takes ({wanted}), channels first: "
            "resize the images or use another model"
        )


def fits(input_shape: tuple[int | None, ...], image_shape: tuple[int, ...]) -> bool:
    """Return whether images (C, *space) fit an input (batch, C, *space), None being any size.

    >>> fits((None, 3, None, 32), (3, 7, 32)), fits((None, 3, None, 32), (1, 7, 32))
    (True, False)
    """
    expected = input_shape[1:]
    return len(image_shape) == len(expected) and all(
        want is None or want == size for want, size in zip(expected, image_shape, strict=True)
    )


def choose_plan(
    network: Network,
    image_shape: tuple[int, ...],
    options: PlanOptions,
    images: int | None = None,
    workers: WorkerPool | None = None,
    speeds: Speeds | None = None,
    *,
    in_bands: bool = True,
) -> Plan:
    """Return the plan for images of shape (C, *space).

    Parameters
    ----------
    network, image_shape, options
        What is run, on what, and how.
    images
        How many images there are, if that is known.
    workers
        The workers that run it; by default n workers of unknown memory, or six if n is ``auto``.
    speeds
        Their speeds, if known.
    in_bands
        Whether images that are too large to be computed at once may be cut.

    Raises
    ------
    PlanError
        If the images do not fit the network, the options do not go together, or the plan needs
        more memory than there is.
    OptionError
        If n or γ is ``auto``, and the other one does not go with the code.
    CodeError, IllConditionedError
        If there is no such code, or it loses too many digits.
    """
    check_images(network, image_shape)
    workers = workers or WorkerPool(USUAL_SHARES if options.n == AUTO else options.n)
    speeds = speeds or on_this_machine(workers.count * workers.slots)
    note = share_count_note(options, workers.count)
    options = with_share_counts(options, workers.count)
    problem = PlanningProblem(network, image_shape, options, speeds)
    _check_batch(problem)
    usual = _usual(problem, images, workers)
    if in_bands and network.convolutions:
        usual = _in_bands(problem, usual, workers)
    if options.objective == "paper":
        usual = replace(usual, form="gathered")
    plan = _Search(problem, workers, images).best(usual)
    plan = replace(
        plan,
        batch_reason=_batch_reason(problem, plan, usual),
        checksums_cover=check_coverage(network, problem.image_shape, in_rows=plan.form == "rows"),
    )
    return plan if note is None else replace(plan, warnings=(*plan.warnings, note))


def _batch_reason(problem: PlanningProblem, plan: Plan, usual: Candidate) -> str:
    """Return why a block has the images that it has, in words."""
    if problem.options.batch is not None:
        return "as given"
    if plan.form == "images" and plan.delta > 1:
        return f"{plan.part_images} for each of {plan.delta} shares"
    if plan.batch == MAX_BATCH:
        return "no more, so that finished work is recorded often"
    if plan.batch != usual.batch:
        return "the fastest of some sizes by the forecast"
    return f"so that no layer's output exceeds {format_bytes(MAX_BLOCK_BYTES)}"


def with_forecast(
    plan: Plan,
    network: Network,
    workers: WorkerPool,
    speeds: Speeds,
    images: int | None,
    memory: int | None = None,
) -> Plan:
    """Return a plan with what it costs on these workers.

    Raises
    ------
    PlanError
        If it needs more memory than they may use, or than is allowed.
    """
    found = replace(plan, forecast=forecast(network, plan, workers, speeds, images))
    allowed = _allowed(memory, workers)
    if plan.band is None and allowed is not None and _memory(found) > allowed:
        raise _too_large(found, allowed)
    return found


def _check_batch(problem: PlanningProblem) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    PlanError
        If the options name a batch that the network does not take, or a split that cannot be.
    """
    options = problem.options
    if options.split != "images":
        return
    if options.objective == "paper":
        raise PlanError(
            "--split images with --objective paper, which is about rows and filters: leave one out"
        )
    if options.code != "systematic":
        raise PlanError(
            f"--split images with --code {options.code}: only the systematic code leaves runs of "
            "images whole; take --code systematic, or --split rows"
        )
    if options.batch is not None and options.batch < options.delta:
        raise PlanError(
            f"--split images with blocks of {options.batch}: expected at least {options.delta} "
            "images, one for each share that does not hold parity; raise --batch, or take --split "
            "rows"
        )


def _usual(problem: PlanningProblem, images: int | None, workers: WorkerPool) -> Candidate:
    """Return the usual split: by images if blocks hold enough of them, else by rows."""
    options = problem.options
    batch = options.batch or _planned_batch(problem)
    whole = PARTS_PER_SHARE * options.delta
    form: Form = "rows" if options.code == "systematic" else "gathered"
    if options.split == "images":
        form = "images"
    elif options.split == "auto" and options.code == "systematic":
        enough = min(batch, batch if images is None else images) >= whole
        form = "images" if enough else "rows"
    if form == "images" and options.batch is None:
        batch = max(1, round(_planned_image_batch(problem) / whole)) * whole
    places = workers.count * workers.slots
    return Candidate(
        form,
        batch=batch,
        in_flight=options.in_flight or max(MIN_IN_FLIGHT, _blocks_for(places, options.delta)),
        share_work=_share_work(problem.speeds),
    )


def _blocks_for(places: int, delta: int) -> int:
    """Return how many blocks in flight keep so many places busy.

    Blocks of a single share end at different times on every worker, and until the next block has
    been sent and its images have been read, a worker needs others that wait for it. With two
    workers and four such blocks their threads had nothing to do for a tenth of the time.
    """
    for_each = 4 if delta == 1 else 2
    return ceil(for_each * places / delta)


def _in_bands(problem: PlanningProblem, usual: Candidate, workers: WorkerPool) -> Candidate:
    """Return a candidate with the bands that the images are cut into, if they are.

    Raises
    ------
    PlanError
        If an image does not fit a worker and cannot be cut.
    """
    options = problem.options
    found = analysed(problem.network, problem.image_shape)
    batch = options.batch or usual.batch
    bands = plan_bands(found, options, batch, workers.count)
    if bands.band is None:
        return replace(usual, bands=bands)
    batch = options.batch or _planned_batch(problem)
    in_flight = options.in_flight or BANDS_IN_FLIGHT
    return replace(usual, form="rows", batch=batch, in_flight=in_flight, bands=bands)


def _planned_batch(problem: PlanningProblem) -> int:
    """Return images per block: as many as keep the largest value within its bytes."""
    largest = max(prod(shape) for shape in problem.shapes.values()) * problem.itemsize
    return int(np.clip(MAX_BLOCK_BYTES // largest, 1, MAX_BATCH))


def _planned_image_batch(problem: PlanningProblem) -> int:
    """Return images per block that is split by images: as many as are one share of each worker.

    Where parity is computed always, shares are short, and the values between them are kept: then
    the block as a whole is bounded.
    """
    options = problem.options
    work = sum(windows * geometry.multiply_adds for _, geometry, windows in geometries(problem))
    least = least_image_share_work(options, _share_work(problem.speeds))
    if not is_computed_late(options) or not work or not least:
        return _planned_batch(problem)
    return options.delta * int(np.clip(least / work, 1, _planned_batch(problem)))


def _share_work(speeds: Speeds) -> float:
    """Return the least multiply-adds of a share for a small overhead of its task."""
    return MIN_WORK_PER_OVERHEAD * speeds.task * speeds.multiply_adds


class _Search:
    """Simulates candidates and finds the best of them."""

    def __init__(self, problem: PlanningProblem, workers: WorkerPool, images: int | None) -> None:
        self._problem = problem
        self._options = problem.options
        self._workers = workers
        self._images = images
        self._allowed = _allowed(problem.options.memory, workers)

    def best(self, usual: Candidate) -> Plan:
        """Return the plan of the best candidate.

        Raises
        ------
        PlanError
            If none fits the memory.
        """
        candidates = [usual]
        fixed = self._options.objective == "paper" or usual.bands.band is not None
        if not fixed and self._problem.network.convolutions:
            candidates += self._others(usual)
        found = list(self._forecasts(candidates))
        fitting = [plan for plan in found if plan.band is not None or self._fits(plan)]
        if not fitting:
            return self._smaller(candidates, found[0])
        least, first = min(map(self._seconds, fitting)), fitting[0]
        if least >= (1 - MIN_GAIN) * self._seconds(first):
            return first
        equal = (p for p in fitting if self._seconds(p) <= (1 + TIE_TOLERANCE) * least)
        return min(equal, key=_memory)

    def _forecasts(self, candidates: Iterable[Candidate]) -> Iterator[Plan]:
        """Yield the plans of candidates with their forecasts, each plan once.

        Raises
        ------
        FcdccError
            The error of the first candidate, if none is possible.
        """
        seen: set[Plan] = set()
        error: FcdccError | None = None
        for candidate in candidates:
            try:
                plan = build_plan(self._problem, candidate)
            except (PlanError, CodeError) as found:
                error = error or found
                continue
            if plan not in seen:
                seen.add(plan)
                yield self._with_forecast(plan)
        if error is not None and not seen:
            raise error

    def _others(self, usual: Candidate) -> Iterator[Candidate]:
        """Yield the other candidates that the options leave open."""
        options = self._options
        whole = PARTS_PER_SHARE * options.delta
        if options.code == "systematic":
            if options.split != "rows":
                is_eager = options.redundancy == "eager"
                factors = SHARE_WORK_FACTORS if is_eager else SHARE_WORK_FACTORS[:1]
                for batch in self._batches(whole, usual.batch, [whole, 2 * whole, 4 * whole]):
                    if batch >= options.delta:
                        images = replace(usual, form="images", batch=batch)
                        yield from _with_share_work(images, factors)
            if options.split != "images":
                for batch in self._batches(1, usual.batch, [1, 4, 16]):
                    rows = replace(usual, form="rows", batch=batch)
                    yield from _with_share_work(rows, SHARE_WORK_FACTORS)
                yield replace(usual, form="gathered")
        else:
            for batch in self._batches(1, usual.batch, [1, 4, 16]):
                yield replace(usual, batch=batch)
        if options.in_flight is None:
            yield replace(usual, in_flight=2 * usual.in_flight)

    def _batches(self, least: int, usual: int, more: list[int]) -> list[int]:
        """Return batches to try: the one that is given, or some near the usual one."""
        given = self._options.batch
        if given is not None:
            return [given]
        most = max(MAX_BATCH, least)
        if self._images is not None:
            most = min(most, max(least, self._images))
        return sorted({batch for batch in (*more, usual) if least <= batch <= most})

    def _with_forecast(self, plan: Plan) -> Plan:
        problem = self._problem
        found = forecast(problem.network, plan, self._workers, problem.speeds, self._images)
        return replace(plan, forecast=found)

    def _smaller(self, candidates: Iterable[Candidate], least: Plan) -> Plan:
        """Return a plan with fewer or smaller blocks at a time that fits the memory.

        Raises
        ------
        PlanError
            If there is none.
        """
        given, usual = self._options.in_flight, least.in_flight
        for in_flight in [given] if given else sorted({usual // 2, 2, 1} - {0}, reverse=True):
            fewer = (replace(candidate, in_flight=in_flight) for candidate in candidates)
            for plan in self._forecasts(fewer):
                if self._fits(plan):
                    return plan
                least = min(least, plan, key=_memory)
        raise _too_large(least, self._allowed or 0)

    def _fits(self, plan: Plan) -> bool:
        return self._allowed is None or _memory(plan) <= self._allowed

    def _seconds(self, plan: Plan) -> float:
        """Return the seconds for all images; if their number is unknown, for one."""
        if plan.forecast is None:
            return np.inf
        if self._images is None:
            return plan.forecast.block_seconds / plan.batch
        return plan.forecast.seconds_of(self._images, plan.batch)


def _with_share_work(candidate: Candidate, factors: Iterable[float]) -> Iterator[Candidate]:
    """Yield variants of a candidate with a fraction of the work in each share."""
    for factor in factors:
        yield replace(candidate, share_work=factor * candidate.share_work)


def _memory(plan: Plan) -> float:
    return 0.0 if plan.forecast is None else plan.forecast.peak_memory


def _allowed(memory: int | None, workers: WorkerPool) -> float | None:
    """Return the bytes that a plan may need of a worker's process."""
    if memory is not None:
        return float(memory)
    together = workers.count if workers.in_one_process else 1
    return None if workers.memory is None else MAX_MEMORY_PART * workers.memory * together


def _too_large(plan: Plan, allowed: float) -> PlanMemoryError:
    found = plan.forecast
    rest = 0.0 if found is None else found.speeds.memory_at_rest
    hint = (
        f"the process alone has {format_bytes(int(rest))}: allow more with --memory"
        if rest >= allowed
        else "take a smaller --batch or --in-flight, more --memory, or fewer workers on a machine"
    )
    return PlanMemoryError(
        f"the plan that needs least, split by {plan.split}, {plan.batch} images a block and "
        f"{plan.in_flight} in flight, needs {format_bytes(int(_memory(plan)))} of a worker's "
        f"memory and {format_bytes(int(allowed))} are allowed: {hint}",
        needed=_memory(plan) / MAX_MEMORY_PART,
    )
