"""Predictions of arrays as lazy arrays: :func:`plan` and :func:`infer`.

``infer`` returns a lazy :class:`xarray.DataArray`. Its graph contains everything it needs,
including the network, and so runs with any Dask scheduler; what the current client sends refers to
the network, which its workers were given before (:mod:`.sent_executables`). On a cluster with the
any-k plugin a layer is decoded as soon as enough of its shares are done; elsewhere it waits for all
shares.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from operator import getitem
from typing import Any, Unpack, cast

import dask.array as da
import numpy as np
import torch
import xarray as xr
from dask import system
from dask._task_spec import DataNode, GraphNode, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph
from dask.tokenize import tokenize
from dask.typing import Key
from distributed import Client
from numpy.typing import NDArray

from fcdcc.storage import BlockLayout, ImageSource, OutputArray, Preparation

from ..errors import ClusterError, OptionError, PlanError
from ..formatting import counted
from ..graph import Block, build_block
from ..halo import Rows
from ..heads import CLASS_DIM
from ..model import Model
from ..options import (
    AUTO,
    JobConfig,
    PlanKeywords,
    PlanOptions,
    called_from_python,
    shows_options,
    with_keywords,
)
from ..planner.candidates import check_plan
from ..planner.cost.known_workers import KnownWorkers, workers_of_options
from ..planner.search import choose_plan
from ..plans.forecast import Speeds, WorkerPool
from ..plans.plan import Plan
from ..stored_forms import StoredForm
from ..worker.executable import Executable, GraphExecutable
from ..worker.kernels import common, reading
from ..worker.kernels.task_specs import ReadImages
from ..worker.share_checks import Finding
from .job_plan import current_client, workers_of_current_client
from .lazy_images import ImageOptions, Images, image_warnings, lazy_images, stored_images
from .model_preparation import (
    prepared_dtype,
    with_model_channels,
    with_model_dtype,
    with_model_preparation,
)
from .output import heads_of, outputs_in_words
from .plugins import register_graph_executables, register_plugins
from .removal_warnings import warn_of_removed_workers
from .sent_executables import graph_executable
from .stored_outputs import StoredOutputs

OPTIONS_BESIDE_PLAN = frozenset(
    {"channels", "engine", "head", "input_array", "limit", "mean", "outputs", "scale", "std"}
)
"""Options that a plan does not contain, and that may be given together with one."""


@shows_options
@called_from_python()
def plan(model: Model, images: Images, **options: Unpack[PlanKeywords]) -> Plan:
    """Return the plan for a model and images; nothing runs.

    Parameters
    ----------
    model
        From :func:`fcdcc.pipeline.open_model`.
    images
        (n, c, *space) or (n, *space, c), one to three spatial axes: the path or URL of a Zarr array
        or group, as for ``fcdcc run``; an :class:`xarray.Dataset`, whose array ``input_array``
        names; an :class:`xarray.DataArray`; an array of Dask, NumPy or Zarr; or a PyTorch tensor.
        Names of dimensions decide about the axes; without names it is the first order if that
        fits the model. Axes of length 1 are left out, and an axis of one channel is added where
        the model takes one. Packed numbers that are not decoded yet are decoded.
    **options
        ``n``, ``tolerate``, ``code``, ``batch`` and the other options of ``fcdcc run`` that
        concern the plan; :class:`fcdcc.pipeline.JobConfig` says what each means.

    Raises
    ------
    OptionError
        If an option is invalid.
    PlanError, InputError
        If the images do not fit the model, or are of no kind that is read.

    Examples
    --------
    >>> from fcdcc.pipeline import open_model
    >>> made = plan(open_model("model.pt2"), "images.zarr", n=6, tolerate=2, batch=8)
    >>> made.n, made.delta, made.batch
    (6, 4, 8)
    """
    checked = _checked(model, options)
    model = model.with_outputs(checked.outputs)
    return _make_plan(model, _lazy(model, images, checked), checked)


@shows_options
@called_from_python()
def infer(
    model: Model, images: Images, *, plan: Plan | None = None, **options: Unpack[PlanKeywords]
) -> xr.DataArray | Any:  # with a union of two classes, type checkers would know neither's methods
    """Return a model's predictions for images as a lazy array, or several.

    Nothing is computed here. With a current :class:`distributed.Client`, the plan is for the
    workers of its cluster, which compute the array and do not wait for late shares. Without one,
    each core of this process counts as a worker, and what computes the array is Dask's default
    scheduler, threads of this process, or the one that ``compute(scheduler=...)`` names; all
    shares are computed then, the redundant ones too. Nothing is recorded: :func:`run` does that.

    The network is sent to the workers of that client now, once for equal plans, and what the client
    computes refers to it. Elsewhere, and in files, the graph contains it.

    Parameters
    ----------
    model, images
        As for :func:`plan`.
    plan
        From :func:`plan` for the same model and images; not together with options that a plan
        contains.
    **options
        As for :func:`plan`; ``scale``, ``mean`` and ``std`` set how images are prepared. Without
        them they are prepared as the model file says, if it says so.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        An array for a network with one output, or of which ``outputs`` chooses one; else a dataset
        with an array for each output by its name. The first dimension is that of the images. The
        others are named by what the network predicts, which ``head`` says if it is not what is
        found out: ``class`` and the spatial dimensions, or those of class numbers, a mask or
        features. Where outputs have dimensions of one name and of different lengths, the output's
        name is appended to all but one. The type is that of the network's output. Coordinates are
        kept where sizes agree. Chunks along the first dimension are the plan's batch.

    Warns
    -----
    UserWarning
        If the first images have an implausible range once they are prepared, or stored chunks are
        absent, or options contradict what the model file says, or the model was exported in half
        precision or for a fixed number of images that it cannot do without. Nothing is looked at
        of images that Dask has to compute.

    Raises
    ------
    OptionError, PlanError, InputError
        As for :func:`plan`.

    Examples
    --------
    >>> from fcdcc.pipeline import open_model
    >>> predictions = infer(open_model("model.pt2"), "images.zarr", n=6, tolerate=2)
    >>> predictions.dims, predictions.shape  # nothing is computed yet
    (('n', 'class'), (20, 10))
    >>> predictions[:4].compute(scheduler="synchronous").argmax("class").shape
    (4,)
    """
    checked = _checked(model, options)
    opened, model = model, model.with_outputs(checked.outputs)
    if plan is not None:
        _check_plan(model, plan, options)
    source = _stored(model, images, checked)
    first = _lazy(model, images if source is None else source, checked)
    if plan is None:
        plan = _make_plan(model, first, checked)
    elif plan.image_shape != first.shape[1:]:
        raise PlanError(
            f"the plan is for images of shape {plan.image_shape}, and the images have "
            f"{first.shape[1:]}: make one with plan(model, images) for these"
        )
    checked = checked.model_copy(update={"dtype": plan.dtype})
    prepared = with_model_preparation(checked, model, str(first.dtype))
    checked = prepared.options
    preparation = Preparation(checked.scale, checked.mean, checked.std, prepared_dtype(plan.dtype))
    preparation.check(first.shape[1], str(first.dtype))
    client = _client_with_plugins()
    network = model.to(getattr(torch, plan.dtype)).network
    seen = images if source is None else source
    implausible = image_warnings(seen, first, preparation, network, prepared.origin)
    looped = plan.warnings if network.fixed_batch is not None else ()
    for text in (*prepared.warnings, *looped, *implausible):
        warnings.warn(with_keywords(text), stacklevel=3)
    heads = heads_of(model, plan.image_shape, checked)
    executable = graph_executable(Executable(network, plan, checked.engine), opened, client)
    stored = StoredOutputs.of(heads, StoredForm("logits"), None)
    return _labelled(_predictions(executable, preparation, first, stored), first, stored, model)


def _checked(model: Model, options: PlanKeywords) -> PlanOptions:
    """Return checked options, completed by what the model file says.

    Raises
    ------
    OptionError
        If they are invalid, or ask for tiles.
    """
    checked = PlanOptions.of(**options)
    for name in ("tile", "overlap", "blend"):
        if name in checked.model_fields_set:
            raise OptionError(
                f"--{name} is for whole jobs, which store their predictions: use fcdcc run, or "
                "run(JobConfig(...))"
            )
    return with_model_channels(with_model_dtype(checked, model), model)


def _stored(model: Model, images: Images, options: PlanOptions) -> ImageSource | None:
    """Return the images that options choose if they are given by their path; else None."""
    if not isinstance(images, str | os.PathLike):
        return None
    return stored_images(images, model.network.input_shape, _chosen(options))


def _lazy(model: Model, images: Images | ImageSource, options: PlanOptions) -> xr.DataArray:
    """Return the images that options choose, for a model, as (n, c, *space)."""
    return lazy_images(images, model.network.input_shape, _chosen(options))


def _chosen(options: PlanOptions) -> ImageOptions:
    return ImageOptions(options.input_array, options.channels, options.limit)


def _check_plan(model: Model, plan: Plan, options: Mapping[str, object]) -> None:
    """Check that a plan was made for the model, and that no option repeats part of it."""
    repeated = sorted(options.keys() - OPTIONS_BESIDE_PLAN)
    if repeated:
        raise OptionError(
            f"{', '.join(repeated)} given together with plan=, which already contains it: leave "
            "one of the two out"
        )
    network = model.to(getattr(torch, plan.dtype)).network
    if plan.network != network.fingerprint:
        raise PlanError(
            "the plan was made for another model, or for other outputs of it: make one with "
            "plan(model, images) for this one"
        )
    check_plan(plan, network)


def _make_plan(model: Model, images: xr.DataArray, options: PlanOptions) -> Plan:
    """Return the best plan for images (n, c, *space) on the workers of the current client.

    Without a client, each core of this process counts as a worker, unless n is given.
    """
    network = model.to(getattr(torch, options.dtype)).network
    count = len(images)
    known = workers_of_current_client(options)
    shape = images.shape[1:]
    if known is not None:
        cluster = known.workers, known.speeds()
        made = choose_plan(network, shape, options, count, *cluster, in_bands=False)
    else:
        pool = WorkerPool(system.CPU_COUNT) if options.n == AUTO else None
        made = choose_plan(network, shape, options, count, pool, in_bands=False)
    return replace(
        made,
        prediction=outputs_in_words(heads_of(model, shape, options), network),
        batch_reason=made.batch_reason + _unlike_the_command(made, options, known),
    )


def _unlike_the_command(made: Plan, options: PlanOptions, known: KnownWorkers | None) -> str:
    """Return for which workers a block is, in words, if ``fcdcc plan`` would plan for others.

    Blocks of another size may be best for these, for the same model and images. ``known`` are the
    workers of the current client.
    """
    if made.forecast is None or options.batch is not None:
        return ""
    job = JobConfig.of(model="-", input="-", output="-", memory=options.memory)
    started = workers_of_options(job)
    ours = _in_words(made.forecast.workers, made.forecast.speeds)
    theirs = _in_words(started.workers, started.speeds())
    each = "core" if options.n == AUTO else "share"
    where = f", one for each {each}" if known is None else " of the current client"
    return "" if ours == theirs else f"; for {ours}{where}, and fcdcc plan takes {theirs}"


def _in_words(workers: WorkerPool, speeds: Speeds) -> str:
    """Return what a plan depends on of its workers."""
    threads = f" of {workers.slots} threads" if workers.slots > 1 else ""
    measured = " with measured speeds" if speeds.source == "measured" else ""
    return f"{counted(workers.count, 'worker')}{threads}{measured}"


def _predictions(
    model: GraphExecutable,
    preparation: Preparation,
    images: xr.DataArray,
    stored: StoredOutputs,
) -> dict[str, da.Array]:
    """Return the outputs as Dask arrays with one chunk per block, by their names."""
    executable = model.executable
    plan = executable.plan
    whole = dict.fromkeys(range(1, images.ndim), -1)
    source = da.asarray(images.data).rechunk({0: plan.batch, **whole})
    run = tokenize(executable.fingerprint, preparation, source.name)[:8]
    name = f"prediction-{run}"
    of_model: Key = f"model-{run}"
    tasks: dict[Key, GraphNode] = {of_model: DataNode(of_model, model)}
    for number, (start, stop) in enumerate(BlockLayout(len(images), plan.batch)):
        chunk = TaskRef((source.name, number, *[0] * (source.ndim - 1)))
        reader = partial(_read, chunk, preparation)
        block = Block(TaskRef(of_model), run, number, stop - start, reader)
        built = build_block(executable.network, plan, block)
        tasks |= built.tasks
        if stored.is_single:
            key: Key = (name, number, *[0] * len(stored.main.head.shape))
            tasks[key] = Task(key, common.same, built.prediction, *built.checks)
            continue
        key = (name, number)
        tasks[key] = Task(key, _taken_apart, stored, built.prediction, *built.checks)
    lengths = tuple(stop - start for start, stop in BlockLayout(len(images), plan.batch))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=[source])
    make_array = cast("Callable[..., da.Array]", da.Array)  # its signature is untyped
    arrays = {}
    for output, one in stored.members:
        own, of_output = name, graph
        if not stored.is_single:  # each array is a layer of its own name
            own = f"{name}-{output}"
            picked: dict[Key, GraphNode] = {}
            for number in range(len(lengths)):
                key = (own, number, *[0] * len(one.head.shape))
                picked[key] = Task(key, getitem, TaskRef((name, number)), output)
            layers = {**graph.layers, own: picked}
            of_output = HighLevelGraph(layers, {**graph.dependencies, own: {name}})
        chunks = (lengths, *((size,) for size in one.head.shape))
        arrays[output] = make_array(of_output, own, chunks, dtype=np.dtype(one.head.dtype))
    return arrays


def _taken_apart(
    stored: StoredOutputs, prediction: NDArray[Any], *checks: Finding
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a block by name, once all checks of it are done."""
    return stored.outputs(common.same(prediction, *checks))


def _read(
    chunk: TaskRef,
    preparation: Preparation,
    key: Key,
    start: int,
    stop: int,
    pad_to: int,
    rows: Rows | None = None,
) -> Task:
    """Return the task that prepares some images of a chunk."""
    spec = ReadImages(start, stop, pad_to, rows)
    return Task(key, reading.prepare_some, chunk, preparation, spec)


def _labelled(
    predictions: Mapping[str, da.Array], images: xr.DataArray, stored: StoredOutputs, model: Model
) -> xr.DataArray | xr.Dataset:
    """Return predictions with the dimension names and coordinates of the images that fit."""
    spatial = tuple(str(dim) for dim in images.dims[2:])
    arrays = stored.arrays(spatial, images.shape[2:])
    found = {
        array.name: _labelled_array(predictions[array.name], images, array, model)
        for array in arrays
    }
    return found[arrays[0].name] if stored.is_single else xr.Dataset(found)


def _labelled_array(
    predictions: da.Array, images: xr.DataArray, array: OutputArray, model: Model
) -> xr.DataArray:
    """Return one output with the dimension names and coordinates of the images that fit.

    Dense predictions have the images' ``grid_mapping``, too. Classes have the names that the model
    file gives them.
    """
    spatial = tuple(str(dim) for dim in images.dims[2:])
    dims = (str(images.dims[0]), *array.dims)
    sizes = dict(zip(dims, predictions.shape, strict=True))
    others = [
        name
        for name, coord in images.coords.items()
        if any(sizes.get(str(dim)) != size for dim, size in coord.sizes.items())
    ]
    coords = images.coords.to_dataset().drop_vars(others).coords  # with the indexes of several
    labelled = xr.DataArray(predictions, dims=dims, coords=coords, name=array.name)
    names = None if model.description is None else model.description.class_names
    if names is not None and sizes.get(CLASS_DIM) == len(names):
        labelled = labelled.assign_coords({CLASS_DIM: np.array(names)})
    grid_mapping = images.encoding.get("grid_mapping")
    if grid_mapping is not None and all(sizes.get(dim) == images.sizes[dim] for dim in spatial):
        labelled.encoding["grid_mapping"] = grid_mapping
    return labelled


def _client_with_plugins() -> Client | None:
    """Return the current client if its scheduler can load executables for graphs.

    The other scheduler plugins are registered with it, too; a warning says so if that fails.
    """
    client = current_client()
    if client is None:
        return None
    try:
        register_plugins(client)
        warn_of_removed_workers(client)
    except ClusterError as error:
        warnings.warn(f"{error}: every layer will wait for all of its shares", stacklevel=4)
    return client if register_graph_executables(client) else None
