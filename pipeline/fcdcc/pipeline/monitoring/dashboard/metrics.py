"""Prometheus metrics at ``/metrics`` of the scheduler, in the default registry.

Dask's handler keeps a collector per kind and points it at the scheduler that is asked, so
several schedulers can live in one process; ours joins them.
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

from .run_statistics import BUCKETS, LayerFacts

if TYPE_CHECKING:
    from distributed.scheduler import Scheduler

    from .collector import RunCollector


logger = logging.getLogger(__name__)

BOARD = "fcdcc-board"
"""Name of the board among a scheduler's extensions."""

MAX_WORKERS = 100


class Metrics(Collector):
    """Collects what one scheduler's board knows; ``server`` is set by Dask's handler."""

    def __init__(self, server: Scheduler) -> None:
        self.server = server

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are not to be looked up when it is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; none where the scheduler has no board."""
        watching = self.server.extensions.get(BOARD)
        if watching is None:
            return
        try:
            yield from watching.measured(lambda: list(families(watching.refreshed())))
        except Exception:
            logger.exception("the metrics of fcdcc could not be collected")


def families(board: RunCollector) -> Iterator[Metric]:
    """Yield the metrics of a board."""
    totals = board.state.history.totals()
    yield from _by_layer(board.layers, totals.groups, totals.decodes)
    erasures = CounterMetricFamily(
        "fcdcc_erasures", "Shares started and then given up without a result", labels=["worker"]
    )
    for worker, number in board.erasures.items():
        erasures.add_metric([worker], number)
    missing = totals.erasures - sum(board.erasures.values())
    if missing or not board.erasures:
        erasures.add_metric([""], missing)
    yield erasures
    plain = {
        "fcdcc_parity_started": ("Parity shares started", totals.parity_started),
        "fcdcc_corrupt_shares": ("Wrong shares found", board.corrupt_shares),
        "fcdcc_blocks_done": ("Blocks written and recorded", board.blocks_done),
        "fcdcc_blocks_failed": ("Blocks that could not be made", board.blocks_failed),
        "fcdcc_shares_lost": ("Shares made again because their worker left", totals.shares_lost),
        "fcdcc_workers_lost": ("Workers that died or were removed", totals.workers_lost),
    }
    for name, (what, number) in plain.items():
        yield CounterMetricFamily(name, what, value=number)
    yield from _workers(board)


def _by_layer(layers: dict[int, LayerFacts], groups: int, decodes: int) -> Iterator[Metric]:
    done = CounterMetricFamily("fcdcc_groups", "Coded groups completed", labels=["layer"])
    solved = CounterMetricFamily(
        "fcdcc_decodes", "Groups in which something was solved for", labels=["layer"]
    )
    times = HistogramMetricFamily(
        "fcdcc_group_seconds", "From a group's first share to its last result", labels=["layer"]
    )
    for number, facts in sorted(layers.items()):
        label = ["other" if number < 0 else str(number)]
        done.add_metric(label, facts.groups)
        solved.add_metric(label, facts.solved)
        counts = accumulate(facts.buckets)
        ends = [*map(str, BUCKETS), "+Inf"]
        times.add_metric(label, list(zip(ends, counts, strict=True)), sum_value=facts.seconds)
    missing = groups - sum(facts.groups for facts in layers.values())
    if missing or not layers:
        done.add_metric([""], missing)
        solved.add_metric([""], decodes - sum(facts.solved for facts in layers.values()))
    yield from (done, solved, times)


def _workers(board: RunCollector) -> Iterator[Metric]:
    """Yield how the workers of the latest run do, those that were met first."""
    pace = GaugeMetricFamily(
        "fcdcc_worker_pace",
        "Time that a worker's shares take, by the median of the same layer's",
        labels=["worker"],
    )
    learned = GaugeMetricFamily(
        "fcdcc_worker_learned_pace",
        "The same over all runs, as shares are given out by it",
        labels=["worker"],
    )
    ghosts = GaugeMetricFamily(
        "fcdcc_worker_ghosts",
        "Shares that nobody waits for and that keep it busy",
        labels=["worker"],
    )
    known = board.current()
    facts = {} if known is None else known.account.workers
    for address, worker in list(board.state.workers.by_address.items())[:MAX_WORKERS]:
        ghosts.add_metric([address], len(worker.ghosts))
        if worker.known_pace is not None:
            learned.add_metric([address], worker.known_pace)
        found = facts.get(address)
        if found is not None and found.pace is not None:
            pace.add_metric([address], found.pace)
    yield from (pace, learned, ghosts)
    saved = 0.0 if known is None else known.account.saved_at_once
    yield GaugeMetricFamily(
        "fcdcc_saved_seconds", "Waiting that the latest run was spared, at least", value=saved
    )


def register(scheduler: Scheduler) -> None:
    """Serve the metrics at ``/metrics``; again, or for another scheduler, changes nothing."""
    handler = core.PrometheusHandler
    present = handler._collectors
    if present is None:  # nobody has asked yet: the first to ask makes all of them
        kinds: list[Any] = core.COLLECTORS
        if Metrics not in kinds:
            kinds.append(Metrics)
    elif not any(isinstance(collector, Metrics) for collector in present):
        metrics = Metrics(scheduler)
        prometheus_client.REGISTRY.register(metrics)
        handler._collectors = (*present, metrics)
