"""The plan of a job: made for its workers, whose speed ``--calibrate`` measures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from dask.utils import format_bytes
from distributed import Client

from fcdcc.storage import (
    BlockLayout,
    ImageSource,
    InputError,
    Preparation,
    StoredRun,
    open_images,
)
from fcdcc.storage.regular_files import read_regular
from fcdcc.storage.tiled_images import TiledImages

from ..anyk.queries import cluster_workers
from ..errors import OptionError, PlanError, PlanMemoryError, bad_values_refused
from ..formatting import counted
from ..model import Model, open_model
from ..model.network import Network
from ..monitoring.progress import Watcher, watch
from ..options import JobConfig, PlanOptions, flag_of
from ..planner.bands import peak_bytes_of_images, reading_note
from ..planner.candidates import check_plan
from ..planner.cost.calibration import calibrate
from ..planner.cost.estimate import forecast
from ..planner.cost.known_workers import (
    SPEEDS_SAVED,
    KnownWorkers,
    save_speeds,
    workers_of_client,
    workers_of_options,
)
from ..planner.search import choose_plan, with_forecast
from ..planner.share_counts import with_share_counts
from ..plans.chunks import MAX_IMAGES_COUNTED, StoredChunks
from ..plans.forecast import Forecast, RunForecast
from ..plans.plan import Plan
from ..plans.row_layout import analysed
from .absence import absence_text
from .cluster import Cluster, open_cluster, opening_in_words
from .image_sample import ImageSample, look_at_images
from .input_changes import look_at_chunks
from .model_preparation import (
    picture_advice,
    prepared_dtype,
    with_model_channels,
    with_model_dtype,
    with_model_preparation,
)
from .output import heads_of, outputs_in_words
from .tiles.tiling import Tiling, find_tiling

logger = logging.getLogger(__name__)

PLAN_OPTIONS = ("n", "tolerate", "code", "split", "batch", "dtype", "objective", "band")
"""Options that a plan contains."""

OVERRIDABLE_OPTIONS = ("redundancy", "in_flight", "verify")
"""Options that a plan contains, and that a run with a saved plan may override."""

OUTPUT_BATCH = "as in the output, which goes on with its blocks"
"""Why a block has so many images in a run that continues an output."""

TILE_BATCH = "as many tiles as keep the memory of a worker at that of a few"
"""Why a block has so many tiles, if the planner would take more."""

MAX_TILE_BYTES = 16 * 2**20
"""Most bytes that the values of the tiles of one share take at once, unless one tile takes more."""

MAX_PLAN_BYTES = 64 * 2**20


@dataclass(frozen=True)
class JobPreview:
    """What a job would do.

    Parameters
    ----------
    plan
        Its plan.
    sample
        What its images become; None if none could be read.
    absence
        Which chunks of them are not stored, in words; empty if all are, or it is not known.
    compared
        What it costs to see which of them changed, in words; empty if that is little.
    tiles
        How they are cut into tiles, in words; empty if they are not.
    """

    plan: Plan
    sample: ImageSample | None
    absence: str
    compared: str
    tiles: str = ""


@bad_values_refused()
def preview_job(config: JobConfig, progress: Watcher | None = None) -> JobPreview:
    """Return what a job would do; nothing is run or written.

    With ``scheduler``, the plan is for the workers of that cluster. With ``calibrate``, the
    cluster of the job is started.

    Raises
    ------
    FcdccError
        As :func:`fcdcc.pipeline.run`.
    """
    if progress is None:
        with watch(config.progress) as shown:
            return preview_job(config, shown)
    progress.step("reading the model")
    opened = open_job(config)
    config, network, source = opened.config, opened.network, opened.source
    heads = heads_of(opened.model, source.image_shape, config, config.classes)
    progress.step("reading some images")
    listing = look_at_chunks(source.whole, config)
    preparation = preparation_of(config, source)
    sample = look_at_images(source.whole, preparation, network, listing, opened.origin)
    with ExitStack() as stack:
        cluster = None
        if config.calibrate or config.scheduler is not None:
            progress.step(opening_in_words(config))
            cluster = stack.enter_context(open_cluster(config))
        progress.step("planning")
        plan = job_plan(config, network, source, known_workers(config, cluster, progress))
    plan = replace(plan, prediction=outputs_in_words(heads, network))
    compared = ""
    if config.compare == "contents":
        read = format_bytes(source.whole.images * source.whole.image_bytes)
        compared = f"each run reads all {read} of them to compare them (--compare contents)"
    return JobPreview(
        plan, sample, "" if listing is None else absence_text(listing, config), compared,
        "" if opened.tiling is None else str(opened.tiling),
    )  # fmt: skip


def preparation_of(config: JobConfig, source: ImageSource) -> Preparation:
    """Return how the images of a job are prepared.

    Raises
    ------
    PreparationError
        If that does not fit the images.
    """
    preparation = Preparation(config.scale, config.mean, config.std, prepared_dtype(config.dtype))
    preparation.check(source.channels, source.dtype)
    return preparation


@dataclass(frozen=True)
class OpenedJob:
    """The model and the images of a job.

    Parameters
    ----------
    config
        The options, completed by what the model file says of its images.
    model
        The model, in the dtype of the job.
    source
        The images, or their tiles.
    origin
        What of the preparation the model file asked for, in words; empty if nothing.
    tiling
        How the images are cut into tiles; None if they stay whole.
    """

    config: JobConfig
    model: Model
    source: ImageSource
    origin: str
    tiling: Tiling | None = None

    @property
    def network(self) -> Network:
        """The network of the model."""
        return self.model.network


def open_job(config: JobConfig) -> OpenedJob:
    """Open the model of a job, in the dtype of the job, and its images.

    Options that contradict the model file are logged as warnings.
    """
    opened = open_model(config.model, inputs=config.fixed_inputs)
    model = opened.with_outputs(config.outputs)
    config = with_model_channels(with_model_dtype(config, model), model)
    model = model.to(getattr(torch, config.dtype))
    source = _open_images(config, model)
    prepared = with_model_preparation(config, model, source.dtype)
    for warning in prepared.warnings:
        logger.warning("%s", warning)
    config = prepared.options
    tiling = find_tiling(config, model, source.shape[2:], config.classes)
    if tiling is not None:
        if tiling.warning:
            logger.warning("%s", tiling.warning)
        source = TiledImages.of(source, tiling.grid)
    return OpenedJob(config, model, source, prepared.origin, tiling)


def _open_images(config: JobConfig, model: Model) -> ImageSource:
    """Open the images of a job, of the size that its model takes, or larger ones for tiles.

    Raises
    ------
    InputError
        If they do not fit the model.
    """

    def opened(shape: tuple[int | None, ...]) -> ImageSource:
        return open_images(
            config.input, config.input_array, channels=config.channels,
            expect=shape, limit=config.limit,
        )  # fmt: skip

    shape = model.network.input_shape
    any_size = (*shape[:2], *(None for _ in shape[2:]))
    if config.tile is not None:
        return opened(any_size)
    try:
        return opened(shape)
    except InputError as error:
        if type(error) is not InputError or None in shape[2:]:
            raise
        advice = picture_advice(model.description, config.model)
        try:
            larger = opened(any_size)
        except InputError:
            raise error from error.__cause__
        sizes = zip(larger.shape[2:], shape[2:], strict=True)
        if not all(pixels >= (tile or 0) for pixels, tile in sizes):
            raise InputError(f"{error}{advice}") from error
        if advice:
            tile = ",".join(map(str, shape[2:]))
            raise InputError(
                f"{error}{advice}; --tile {tile} cuts larger ones into tiles instead"
            ) from error
        return larger


def known_workers(config: JobConfig, cluster: Cluster | None, progress: Watcher) -> KnownWorkers:
    """Return the workers of a job: those of its cluster, or else those it will start.

    With ``calibrate`` their speeds are measured first.

    Raises
    ------
    OptionError
        If their speeds should be measured and there are none.
    """
    running = None
    if cluster is not None:
        running = workers_of_client(cluster.client, config.torch_threads)
    workers = running or workers_of_options(config)
    if config.calibrate:
        if cluster is None or running is None:
            raise OptionError("--calibrate with a cluster that has no workers: start some first")
        return _measured(cluster.client, workers, config.torch_threads, progress.step)
    if cluster is not None and running is None:
        logger.warning(
            "the cluster has no workers yet: this is planned for %s, and fewer may be lost if "
            "fewer join; start them before the run",
            counted(workers.workers.count, "worker"),
        )
    return workers


def current_client() -> Client | None:
    """Return the current Dask client; None without one, or where only an event loop may use it."""
    try:
        client = Client.current()
    except ValueError:
        return None
    return None if client.asynchronous else client


def workers_of_current_client(options: PlanOptions) -> KnownWorkers | None:
    """Return the workers of the current Dask client; None without a client or workers.

    With ``calibrate`` their speeds are measured first.

    Raises
    ------
    OptionError
        If their speeds should be measured and there are none.
    """
    client = current_client()
    workers = None if client is None else workers_of_client(client)
    if options.calibrate:
        if client is None or workers is None:
            raise OptionError(
                "calibrate=True without workers: connect a distributed.Client to a cluster first"
            )
        workers = _measured(client, workers, 1, lambda _: None)
    return workers


def _measured(
    client: Client, workers: KnownWorkers, torch_threads: int, report: Callable[[str], None]
) -> KnownWorkers:
    """Return workers with their measured speeds, which are also saved for later plans.

    ``report`` is called with a line about each step.
    """
    speeds = calibrate(client, workers.workers, torch_threads, report)
    try:
        logger.info(SPEEDS_SAVED, save_speeds(workers.name, speeds))
    except OSError as error:
        logger.warning("the measured speeds could not be saved for later plans: %s", error)
    return workers.with_speeds(speeds)


def job_plan(
    config: JobConfig,
    network: Network,
    source: ImageSource,
    workers: KnownWorkers,
    stored: StoredRun | None = None,
) -> Plan:
    """Return the plan of a job for its workers.

    That is the saved plan that ``--plan`` names, or else the plan of the stored output if it is
    what would be chosen for these workers, or else the best plan. If the workers are not started
    yet and so many have too little memory, it is for fewer of them.

    Parameters
    ----------
    config, network, source
        The job.
    workers
        From :func:`known_workers`.
    stored
        The output that is continued; its blocks stay as they are.

    Raises
    ------
    PlanError
        If the saved plan is for another model or other images, or no plan is possible.
    OptionError
        If the saved plan has other blocks than the output, or n or γ is ``auto`` and cannot be
        chosen.
    """
    while True:
        try:
            plan = _plan_for(workers, config, network, source, stored)
            break
        except PlanMemoryError as error:
            fewer = workers.with_memory(error.needed)
            is_any_size = None in network.input_shape[2:]
            if fewer is None and isinstance(source, TiledImages) and is_any_size:
                raise PlanMemoryError(f"{error}; or a smaller --tile", error.needed) from error
            if fewer is None:
                raise
            workers = fewer
    if plan.forecast is not None:
        plan = replace(plan, forecast=_with_reads(plan.forecast, config, plan, source))
    note = reading_note(source, stored_chunks(config, source, plan), plan)
    if note is None or note in plan.warnings:
        return plan
    return replace(plan, warnings=(*plan.warnings, note))


def stored_chunks(config: JobConfig, source: ImageSource, plan: Plan) -> StoredChunks:
    """Return how the images of a job are read by its plan."""
    workers = None if plan.forecast is None else plan.forecast.workers
    memory = None if workers is None else workers.memory
    return StoredChunks.of(source, config.memory or memory)


def _with_reads(found: Forecast, config: JobConfig, plan: Plan, source: ImageSource) -> Forecast:
    """Return a forecast with what is sent of the images as they are stored."""
    if plan.band is not None:  # every band reads its rows itself
        return found
    chunks = stored_chunks(config, source, plan)
    sent = chunks.bytes_sent(plan.batch, plan.part_images, found.workers.count)
    return replace(found, read_bytes=sent)


def _plan_for(
    workers: KnownWorkers,
    config: JobConfig,
    network: Network,
    source: ImageSource,
    stored: StoredRun | None,
) -> Plan:
    """Return the plan of a job for exactly these workers."""
    if config.plan is not None:
        plan = _saved_plan(config.plan, network, source)
        if stored is not None and (plan.batch, plan.band) != (stored.batch, stored.arrays[0].band):
            raise OptionError(
                f"the plan in {config.plan} has other blocks than the output {config.output}: "
                "leave --plan out, or use another output"
            )
        plan = plan.with_run_options(config.redundancy, config.in_flight, config.verify)
        return with_forecast(
            plan, network, workers.workers, workers.speeds(), source.images, config.memory
        )
    band, is_tiled = None, isinstance(source, TiledImages)
    if stored is not None:
        plan = Plan.from_json(str(stored.plan))
        if _still_fits(plan, config, source, workers):
            check_plan(plan, network)
            plan = plan.with_run_options(config.redundancy, config.in_flight, config.verify)
            return replace(plan, batch_reason=OUTPUT_BATCH)
        band = stored.arrays[0].band
        config = config.model_copy(update={"batch": stored.batch, "band": band})

    def chosen(options: JobConfig) -> Plan:
        return choose_plan(
            network, source.image_shape, options, source.images, workers.workers,
            workers.speeds(), in_bands=not is_tiled and (stored is None or band is not None),
        )  # fmt: skip

    plan = chosen(config)
    if isinstance(source, TiledImages) and config.batch is None:
        most = _most_tiles(network, source, plan)
        if plan.batch > most:
            plan = chosen(config.model_copy(update={"batch": most}))
            plan = replace(plan, batch_reason=TILE_BATCH)
    return plan if stored is None else replace(plan, batch_reason=OUTPUT_BATCH)


def _most_tiles(network: Network, source: TiledImages, plan: Plan) -> int:
    """Return the most tiles of a block: what a share has of them keeps within its memory."""
    found = analysed(network, source.image_shape)
    peak = peak_bytes_of_images(found, 1, plan.dtype)
    return plan.delta * max(1, MAX_TILE_BYTES // max(peak, 1))


def _saved_plan(path: str, network: Network, source: ImageSource) -> Plan:
    """Return the plan in a file.

    Raises
    ------
    PlanError
        If it is for another model or other images.
    """
    saved = read_plan(path)
    if saved.network != network.fingerprint:
        raise PlanError(
            f"the plan in {path} was made for another model, or for other outputs of it: make one "
            "for this one with fcdcc plan --json FILE"
        )
    if saved.image_shape != source.image_shape:
        raise PlanError(
            f"the plan in {path} is for images of shape {saved.image_shape}, and the input "
            f"has {source.image_shape}: make one for the input with fcdcc plan --json FILE"
        )
    check_plan(saved, network)
    return saved


def _still_fits(plan: Plan, config: JobConfig, source: ImageSource, workers: KnownWorkers) -> bool:
    """Return whether a plan of an earlier run is one for these options and workers."""
    found, options = plan.forecast, with_share_counts(config, workers.workers.count)
    if found is None or found.workers != workers.workers or config.calibrate:
        return False
    return (
        (plan.n, plan.delta, plan.code) == (options.shares, options.delta, options.code)
        and options.split in ("auto", plan.split)
        and plan.objective == options.objective
        and plan.image_shape == source.image_shape
        and (options.memory is None or found.peak_memory <= options.memory)
    )


def forecast_of_run(
    config: JobConfig,
    plan: Plan,
    network: Network,
    cluster: Cluster,
    source: ImageSource,
    layout: BlockLayout,
    pending: Sequence[int],
) -> RunForecast:
    """Return the costs of a plan for the blocks of a run, on the workers that it starts with.

    ``pending`` are the blocks that it computes, at least one. The workers' memory at rest is what
    they use already, if that is more than the plan took: a worker that was just started uses less
    than one that has computed something.
    """
    workers = workers_of_client(cluster.client, config.torch_threads)
    workers = workers or workers_of_options(config)
    infos = cluster_workers(cluster.client).values()
    memory = [info["metrics"].get("memory", 0) for info in infos]
    speeds = workers.speeds()
    speeds = replace(speeds, memory_at_rest=max([speeds.memory_at_rest, *map(float, memory)]))
    # Only the first are simulated: full ones, wherever a last block with fewer images is.
    sizes = sorted(layout.sizes(pending).tolist(), reverse=True)
    found = forecast(network, plan, workers.workers, speeds, blocks=sizes)
    read_bytes = _bytes_read(found, config, plan, source, layout, pending)
    return RunForecast(found, len(sizes), sum(sizes) / sizes[0], plan.in_flight, read_bytes)


def _bytes_read(
    found: Forecast,
    config: JobConfig,
    plan: Plan,
    source: ImageSource,
    layout: BlockLayout,
    pending: Sequence[int],
) -> float:
    """Return the bytes of stored images that workers send each other for the blocks of a run."""
    if plan.band is not None:  # every band reads its rows itself
        return 0.0
    counted_blocks = pending[: max(1, MAX_IMAGES_COUNTED // plan.batch)]

    def part_images_of(images: int) -> int:
        return plan.images_per_share(images) if plan.form == "images" else images

    sent = stored_chunks(config, source, plan).bytes_sent_to(
        map(layout.bounds, counted_blocks), plan.batch, plan.part_images, found.workers.count,
        part_images_of,
    )  # fmt: skip
    return sent * int(layout.sizes(pending).sum()) / int(layout.sizes(counted_blocks).sum())


def apply_saved_plan(config: JobConfig) -> JobConfig:
    """Return the options of a job, completed with those of the saved plan that it names.

    Raises
    ------
    OptionError
        If one of the plan's options is given as well, or the plan cannot be read.
    PlanError
        If the file does not contain a plan.
    """
    if config.plan is None:
        return config
    repeated = sorted(config.model_fields_set.intersection(PLAN_OPTIONS))
    if repeated:
        names = ", ".join(map(flag_of, repeated))
        raise OptionError(
            f"{names} given together with --plan, which already contains it: leave it out"
        )
    plan = read_plan(config.plan)
    not_given = [name for name in OVERRIDABLE_OPTIONS if name not in config.model_fields_set]
    from_plan = (*PLAN_OPTIONS, *not_given)
    return config.model_copy(update={name: getattr(plan, name) for name in from_plan})


def read_plan(path: str) -> Plan:
    """Return the plan saved in a JSON file.

    Raises
    ------
    OptionError
        If the file cannot be read.
    PlanError
        If it does not contain a plan.
    """
    try:
        text = read_regular(path, MAX_PLAN_BYTES)
    except OSError as error:
        raise OptionError(f"the plan {path} cannot be read: {error}") from error
    return Plan.from_json(text)
