"""Prometheus metrics at ``/metrics`` of the scheduler, in the default registry.

Dask's handler has a list of collectors, and sets the ``server`` of each to the scheduler whose
metrics are requested; so several schedulers can run in one process. This module adds one collector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import prometheus_client
from distributed.http.scheduler.prometheus import core
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .collector import OTHER_LAYERS, RunCollector
from .run_statistics import GROUP_SECONDS_BUCKETS, LayerFacts
from .service import SERVICE

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

logger = logging.getLogger(__name__)

MAX_WORKERS = 100
"""Most workers that have gauges of their own."""


class Metrics(Collector):
    """Makes metrics from the snapshot of a scheduler's monitoring service."""

    def __init__(self, server: Scheduler) -> None:
        self.server = server

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the names are not collected when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; none where the scheduler has no monitoring service."""
        service = self.server.extensions.get(SERVICE)
        if service is None:
            return
        try:
            yield from service.timed(lambda: list(families(service.refreshed())))
        except Exception:
            logger.exception("the metrics of fcdcc could not be collected")


def families(collector: RunCollector) -> Iterator[Metric]:
    """Yield the metrics of what was collected."""
    totals = collector.state.history.totals()
    yield from _by_layer(collector.layers, totals.groups, totals.decodes)
    erasures = CounterMetricFamily(
        "fcdcc_erasures", "Shares started and then given up without a result", labels=["worker"]
    )
    for worker, number in collector.erasures.items():
        erasures.add_metric([worker], number)
    missing = totals.erasures - sum(collector.erasures.values())
    if missing or not collector.erasures:
        erasures.add_metric([""], missing)
    yield erasures
    plain = {
        "fcdcc_parity_started": ("Parity shares started", totals.parity_started),
        "fcdcc_corrupt_shares": ("Wrong shares found", collector.corrupt_shares),
        "fcdcc_blocks_done": ("Blocks written and recorded", collector.blocks_done),
        "fcdcc_blocks_failed": ("Blocks that could not be made", collector.blocks_failed),
        "fcdcc_shares_lost": ("Shares that had to be computed again", totals.shares_lost),
        "fcdcc_workers_lost": ("Workers that died or were removed", totals.workers_lost),
    }
    for name, (what, number) in plain.items():
        yield CounterMetricFamily(name, what, value=number)
    wrong = CounterMetricFamily(
        "fcdcc_worker_wrong_shares",
        "Shares and other results of a worker that were found wrong",
        labels=["worker"],
    )
    for worker, number in list(collector.state.distrust.wrong_shares.items())[:MAX_WORKERS]:
        wrong.add_metric([worker], number)
    yield wrong
    yield from _workers(collector)


def _by_layer(layers: dict[int, LayerFacts], groups: int, decodes: int) -> Iterator[Metric]:
    done = CounterMetricFamily("fcdcc_groups", "Coded groups completed", labels=["layer"])
    solved = CounterMetricFamily(
        "fcdcc_decodes", "Groups in which something was solved for", labels=["layer"]
    )
    times = HistogramMetricFamily(
        "fcdcc_group_seconds", "From a group's first share to its last result", labels=["layer"]
    )
    for number, facts in sorted(layers.items()):
        label = ["other" if number == OTHER_LAYERS else str(number)]
        done.add_metric(label, facts.groups)
        solved.add_metric(label, facts.solved)
        counts = accumulate(facts.buckets)
        ends = [*map(str, GROUP_SECONDS_BUCKETS), "+Inf"]
        times.add_metric(label, list(zip(ends, counts, strict=True)), sum_value=facts.seconds)
    missing = groups - sum(facts.groups for facts in layers.values())
    if missing or not layers:
        done.add_metric([""], missing)
        solved.add_metric([""], decodes - sum(facts.solved for facts in layers.values()))
    yield from (done, solved, times)


def _workers(collector: RunCollector) -> Iterator[Metric]:
    """Yield the gauges of workers, and of the waiting saved in the latest run."""
    pace = GaugeMetricFamily(
        "fcdcc_worker_pace",
        "Time that a worker's shares take, as a multiple of what is usual, in the latest run",
        labels=["worker"],
    )
    learned = GaugeMetricFamily(
        "fcdcc_worker_learned_pace",
        "The same for all workers",
        labels=["worker"],
    )
    ghosts = GaugeMetricFamily(
        "fcdcc_worker_ghosts",
        "Shares that keep it busy although they were given up",
        labels=["worker"],
    )
    known = collector.current()
    facts = {} if known is None else known.statistics.workers
    for address, worker in list(collector.state.workers.by_address.items())[:MAX_WORKERS]:
        ghosts.add_metric([address], len(worker.ghosts))
        if worker.known_pace is not None:
            learned.add_metric([address], worker.known_pace)
            if address in facts:
                pace.add_metric([address], worker.known_pace)
    yield from (pace, learned, ghosts)
    saved = 0.0 if known is None else known.saved_seconds
    yield GaugeMetricFamily(
        "fcdcc_saved_seconds", "Waiting that the latest run was spared, at least", value=saved
    )


def register(scheduler: Scheduler) -> None:
    """Serve the metrics at ``/metrics``; again, or for another scheduler, changes nothing."""
    handler = core.PrometheusHandler
    present = handler._collectors
    if present is None:  # Dask makes all collectors at the first request
        kinds: list[Any] = core.COLLECTORS
        if Metrics not in kinds:
            kinds.append(Metrics)
    elif not any(isinstance(collector, Metrics) for collector in present):
        metrics = Metrics(scheduler)
        prometheus_client.REGISTRY.register(metrics)
        handler._collectors = (*present, metrics)
