"""The plan of a job: with the workers that there are, measured if that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from distributed import Client

from fcdcc.storage import ImageSource, open_images

from ..errors import OptionError, PlanError
from ..model import open_model
from ..model.network import Network
from ..monitoring.progress import Watcher, watch
from ..options import JobConfig, PlanOptions
from ..planner.cost.calibration import calibrate
from ..planner.cost.calibration_file import save_speeds
from ..planner.cost.estimate import forecast
from ..planner.cost.known_workers import KnownWorkers, workforce_of_client, workforce_of_options
from ..planner.search import choose_plan, with_forecast
from ..plans.forecast import Forecast
from ..plans.plan import Plan
from .cluster import Cluster, open_cluster

logger = logging.getLogger(__name__)

PLAN_OPTIONS = ("n", "tolerate", "code", "split", "batch", "dtype", "objective", "band")
"""Options that a plan contains."""

CHANGEABLE = ("redundancy", "in_flight", "verify")
"""Options that a plan contains, and that a run may have otherwise."""


def preview_job_plan(config: JobConfig, watcher: Watcher | None = None) -> Plan:
    """Return the plan of a job; nothing is run or written.

    With a scheduler its workers are asked for; with ``calibrate`` the cluster is started.

    Raises
    ------
    FcdccError
        As :func:`fcdcc.pipeline.run`.
    """
    if watcher is None:
        with watch(config.progress) as shown:
            return preview_job_plan(config, shown)
    watcher.step("reading the model")
    network, source = open_job(config)
    with planning_cluster(config, watcher) as cluster:
        watcher.step("planning")
        return job_plan(config, network, source, calibrated(config, cluster, watcher))


def open_job(config: JobConfig) -> tuple[Network, ImageSource]:
    """Return the network of a job, in its precision, and its images."""
    network = open_model(config.model).to(getattr(torch, config.dtype)).network
    source = open_images(
        config.input, config.input_array, expect=network.input_shape, limit=config.limit
    )
    return network, source


@contextmanager
def planning_cluster(config: JobConfig, watcher: Watcher) -> Iterator[Cluster | None]:
    """Open the cluster of a job if it is needed for its plan."""
    with ExitStack() as stack:
        if config.calibrate or config.scheduler is not None:
            watcher.step("starting the cluster")
            yield stack.enter_context(open_cluster(config))
        else:
            yield None


def calibrated(config: JobConfig, cluster: Cluster | None, watcher: Watcher) -> KnownWorkers:
    """Return the workers of a job; their speeds are measured first if that is asked for.

    Raises
    ------
    OptionError
        If they are to be measured and there are none.
    """
    known = None
    if cluster is not None:
        known = workforce_of_client(cluster.client, config.torch_threads)
    found = known or workforce_of_options(config)
    if config.calibrate:
        if cluster is None or known is None:
            raise OptionError("--calibrate with a cluster that has no workers: start some first")
        return _measured(cluster.client, found, config.torch_threads, watcher.step)
    return found


def workforce_here(options: PlanOptions) -> KnownWorkers | None:
    """Return the workers of the current client, if there is one.

    Raises
    ------
    OptionError
        If they are to be measured and there are none.
    """
    try:
        client = Client.current()
    except ValueError:
        client = None
    found = None if client is None else workforce_of_client(client)
    if options.calibrate:
        if client is None or found is None:
            raise OptionError(
                "calibrate=True without workers: connect a distributed.Client to a cluster first"
            )
        found = _measured(client, found, 1, lambda _: None)
    return found


def _measured(
    client: Client, found: KnownWorkers, torch_threads: int, tell: Callable[[str], None]
) -> KnownWorkers:
    """Return workers with their speeds, which are kept for later plans."""
    speeds = calibrate(client, found.workers, torch_threads, tell)
    try:
        logger.info("the speeds are kept in %s", save_speeds(found.name, speeds))
    except OSError as error:
        logger.warning("the measured speeds could not be kept for later plans: %s", error)
    return found.with_speeds(speeds)


def job_plan(
    config: JobConfig, network: Network, source: ImageSource, workforce: KnownWorkers
) -> Plan:
    """Return the plan that the options name, or the best one."""
    if config.plan is None:
        return choose_plan(
            network, source.image_shape, config, source.images,
            workforce.workers, workforce.speeds(),
        )  # fmt: skip
    saved = read_plan(config.plan)
    if saved.network != network.fingerprint:
        raise PlanError(
            f"the plan in {config.plan} was made for another model: make one for this one with "
            "fcdcc plan --json FILE"
        )
    if saved.image_shape != source.image_shape:
        raise PlanError(
            f"the plan in {config.plan} is for images of shape {saved.image_shape}, and those of "
            f"the input have {source.image_shape}: make one for them with fcdcc plan --json FILE"
        )
    again = saved.with_run_options(config.redundancy, config.in_flight, config.verify)
    return with_forecast(
        again, network, workforce.workers, workforce.speeds(), source.images, config.memory
    )


def forecast_of_run(
    config: JobConfig, plan: Plan, network: Network, cluster: Cluster, images: int
) -> Forecast:
    """Return what a plan costs on the workers that a run begins with, with what they hold now."""
    found = workforce_of_client(cluster.client, config.torch_threads)
    found = found or workforce_of_options(config)
    workers = cluster.client.scheduler_info(n_workers=-1)["workers"].values()
    held = [worker["metrics"].get("memory", 0) for worker in workers]
    speeds = found.speeds()
    if any(held):
        speeds = replace(speeds, memory_at_rest=float(max(held)))
    return forecast(network, plan, found.workers, speeds, images)


def apply_saved_plan(config: JobConfig) -> JobConfig:
    """Return the options of a job with those that its saved plan contains.

    Raises
    ------
    OptionError
        If some of these were given, too, or the plan cannot be read.
    PlanError
        If it is none.
    """
    if config.plan is None:
        return config
    doubled = sorted(config.model_fields_set.intersection(PLAN_OPTIONS))
    if doubled:
        names = ", ".join("--" + name.replace("_", "-") for name in doubled)
        raise OptionError(
            f"{names} given together with --plan, which says it already: leave it out"
        )
    plan = read_plan(config.plan)
    left = [name for name in CHANGEABLE if name not in config.model_fields_set]
    return config.model_copy(update={name: getattr(plan, name) for name in (*PLAN_OPTIONS, *left)})


def read_plan(path: str) -> Plan:
    """Return a saved plan.

    Raises
    ------
    OptionError
        If the file cannot be read.
    PlanError
        If it holds no plan.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise OptionError(f"the plan {path} cannot be read: {error}") from error
    return Plan.from_json(text)
