"""What a run does to be watched: it tells the scheduler, and keeps its story beside the output.

The story is written every few seconds and at the end, also when the run is interrupted. That
it cannot be written, or that the scheduler cannot be asked, ends no run.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client

from fcdcc.coding import __version__
from fcdcc.storage import Json, PredictionStore
from fcdcc.storage.journals import trim_journals, write_journal
from fcdcc.storage.locations import shown

from ...anyk.queries import RunTotals
from ...errors import full_line
from ...options import JobConfig
from ...plans.plan import LayerPlan, Plan
from ..dashboard.exchange import RunUpdate, exchange
from ..progress import RunProgress
from ..summary import Summary
from .journal import RunJournal, finite
from .work_counter import WorkCounter

logger = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two writings of the story, if these take no time."""

MODEST = 300.0
"""A writing is followed by so many times what it took without another."""

LAYERS_TOLD = 500
ROUNDS = 200

PACKAGES = ("dask", "distributed", "torch", "zarr", "numpy", "xarray", "numcodecs", "bokeh")


class RunRecorder:
    """Tells the scheduler about a run and keeps its story.

    Parameters
    ----------
    client
        Of the run's cluster.
    store
        Its output.
    story
        What it leaves; filled here.
    plan
        How it computes.
    """

    def __init__(
        self,
        client: Client,
        store: PredictionStore,
        story: RunJournal,
        plan: Plan,
        band_of: Callable[[int], tuple[Plan, float]] | None = None,
    ) -> None:
        self.story = story
        self.ledger = WorkCounter(plan, self._images_of, band_of)
        self._client = client
        self._store = store
        self._last = RunUpdate()
        self._next_write = 0.0
        names = {str(layer.layer): layer.name for layer in plan.layers[:LAYERS_TOLD]}
        told = ("output", "model", "n", "delta", "code", "redundancy")
        self._static: dict[str, Any] = {
            "layers": names,
            "condition_limit": self.ledger.limit,
            **{name: story.about.get(name) for name in told},
        }
        trim_journals_quietly(store)

    def observe(self, advance: RunProgress, failures: Mapping[int, str]) -> RunTotals:
        """Report progress to the scheduler and record what happened; return the run's totals.

        This is the one request of a run to the scheduler per tick. The journal is written
        every few seconds.
        """
        write = time.monotonic() >= self._next_write
        self._exchange(advance, "running", summary=write)
        self.story.failures = dict(failures)
        if write:
            self.write()
        return self._last.totals

    def drain(self, advance: RunProgress) -> RunTotals:
        """Record all that the scheduler still has of the run, which is over; return its totals."""
        for _ in range(ROUNDS):
            self._exchange(advance, "running", summary=True)
            if not self._last.more:
                break
        self.ledger.close()
        return self._last.totals

    @property
    def slow(self) -> str:
        """The workers that are late, in words; '' while nobody is."""
        return self._last.slow

    def finish(self, advance: RunProgress, summary: Summary, failures: Mapping[int, str]) -> None:
        """Tell how the run ended, and write its story for the last time."""
        self.story.failures = dict(failures)
        self.story.summary = summary.to_dict()
        self.story.state = summary.status
        said = {"extra_work": summary.extra_work, "corrupt_shares": len(summary.corrupt_shares)}
        try:
            self._exchange(
                advance, summary.status, said | {"seconds": summary.seconds}, summary=True
            )
        except OSError as error:  # all blocks are done: nothing more is needed of the scheduler
            logger.info("the scheduler cannot show how run %s ended: %s", self.story.run, error)
        self.write()

    def give_up(self, error: BaseException) -> None:
        """Write how the run ended before it was over; the scheduler may not be there any more."""
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        self.story.state = "interrupted" if stopped else "failed"
        self.story.error = "" if stopped else full_line(error)
        if self.story.told:
            self.story.told["state"] = self.story.state
        self.write()

    def write(self) -> None:
        """Write the story as it is."""
        before = time.monotonic()
        self.story.updated = time.time()
        try:
            write_journal(self._store.folder, self.story.name, self.story.members())
        except OSError as error:
            logger.warning("what happened in this run could not be kept for the report: %s", error)
        after = time.monotonic()
        self.story.every = max(EVERY, MODEST * (after - before))
        self._next_write = after + self.story.every

    def _exchange(
        self,
        advance: RunProgress,
        state: str,
        said: Mapping[str, Any] | None = None,
        *,
        summary: bool = False,
    ) -> None:
        told = {**self._static, **self._progress(advance), "state": state, **(said or {})}
        self.story.told = {name: value for name, value in told.items() if name != "layers"}
        told = dict(_mapping(finite(told)))
        news = exchange(self._client, self.story.run, told, self._last, summary=summary)
        self._last = news
        self.ledger.take(news.shares, news.groups)
        self.story.add_shares(news.shares)
        self.story.add_groups(news.settled)
        self.story.add_ghosts(news.freed)
        self.story.events.extend(news.events)
        if news.facts is not None:
            self.story.facts = news.facts

    def _progress(self, advance: RunProgress) -> dict[str, Any]:
        ledger = self.ledger
        return {
            "blocks_total": advance.blocks_total,
            "blocks_done": advance.blocks_done,
            "blocks_skipped": advance.blocks_skipped,
            "blocks_failed": advance.blocks_failed,
            "blocks_in_flight": advance.blocks_in_flight,
            "images_done": advance.images_done,
            "seconds": advance.seconds,
            "extra_work": ledger.extra_work,
            "max_condition_number": ledger.largest,
            "conditions": [*ledger.recent],
            "corrupt_shares": advance.corrupt_shares,
        }

    def _images_of(self, block: int) -> int:
        start, stop = self._store.layout.bounds(block)
        return stop - start


@contextmanager
def keep(
    client: Client,
    store: PredictionStore,
    run: str,
    config: JobConfig,
    plan: Plan,
    band_of: Callable[[int], tuple[Plan, float]] | None = None,
) -> Iterator[RunRecorder]:
    """Keep a run's story while the body runs; whatever ends it is written down.

    ``band_of`` is as for :class:`~fcdcc.pipeline.monitoring.record.work_counter.WorkCounter`.
    """
    story = RunJournal(run, time.time(), about(config, plan, client), _layers(plan))
    keeper = RunRecorder(client, store, story, plan, band_of)
    keeper.write()
    try:
        yield keeper
    except BaseException as error:
        keeper.give_up(error)
        raise


def about(config: JobConfig, plan: Plan, client: Client) -> dict[str, Json]:
    """Return what a run was, without anything that nobody else may see."""
    versions: dict[str, Json] = {"fcdcc": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "model": os.path.basename(shown(config.model)),  # noqa: PTH119 - it may be a URL
        "input": shown(config.input),
        "output": shown(config.output),
        "n": plan.n,
        "delta": plan.delta,
        "tolerate": plan.tolerate,
        "code": plan.code,
        "split": plan.split,
        "redundancy": plan.redundancy,
        "dtype": plan.dtype,
        "batch": plan.batch,
        "band": plan.band,
        "in_flight": plan.in_flight,
        "store": config.store,
        "workers": len(client.scheduler_info(n_workers=-1)["workers"]),
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _layers(plan: Plan) -> list[Json]:
    """Return a row per convolution of the plan."""
    total = plan.multiply_adds
    return [_layer(layer, total) for layer in plan.layers[:LAYERS_TOLD]]


def _layer(layer: LayerPlan, total: int) -> dict[str, Json]:
    geometry, code = layer.geometry, layer.code
    size = "×".join(map(str, geometry.spatial))
    return {
        "layer": layer.layer,
        "name": layer.name,
        "shape": f"{geometry.in_channels}→{geometry.out_channels}, {size}",
        "code": None if code is None else code.name,
        "k_a": None if code is None else code.k_a,
        "k_b": None if code is None else code.k_b,
        "split": layer.split,
        "reason": layer.reason,
        "multiply_adds": geometry.multiply_adds,
        "part": geometry.multiply_adds / total if total else 0.0,
    }


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def trim_journals_quietly(store: PredictionStore) -> None:
    """Remove the stories of the oldest runs, where that can be done."""
    try:
        trim_journals(store.folder)
    except OSError as error:
        logger.info("old stories could not be removed: %s", error)
