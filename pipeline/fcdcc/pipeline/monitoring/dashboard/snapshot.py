"""What the page and the JSON show: one plain object, made from what was collected."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fcdcc.coding import __version__

from ...anyk.state_machine.history import Counters
from ..stragglers import WorkerView, ranked, verdict
from .collector import CollectedRun, RunCollector

MAX_WORKERS = 200
MAX_PACES = 2_000
MAX_LAYERS = 500
MAX_GROUPS = 120

SILENT_RUN_SECONDS = 15.0
"""A run that has not reported for so long is called silent instead of running."""


def snapshot(collector: RunCollector, now: float) -> dict[str, Any]:
    """Return what there is to see now, as dictionaries, lists, strings and finite numbers.

    It has the same members whether a run is going on or none ever was; its size is bounded.
    """
    known = collector.current()
    workers = ranked(collector.workers(known, now))
    counters = Counters() if known is None else known.counters
    status = {} if known is None else known.status
    return {
        "version": __version__,
        "time": now,
        "sentence": verdict(workers),
        "run": _run(known, now),
        "counters": asdict(counters),
        "totals": asdict(collector.state.history.totals()),
        "blocks_done_total": collector.blocks_done,
        "layers": [] if known is None else _layers(known),
        "groups": [] if known is None else _groups(known),
        "saved": _saved(known),
        "conditions": _conditions(status),
        "ghosts": sum(worker.ghosts for worker in workers),
        "workers_total": len(collector.state.workers.by_address),
        "workers": [_worker(worker) for worker in workers[:MAX_WORKERS]],
        "paces": [_pace(worker) for worker in workers if not worker.gone][:MAX_PACES],
    }


def _run(known: CollectedRun | None, now: float) -> dict[str, Any]:
    """Return what is known of a run's blocks."""
    status = {} if known is None else known.status
    names = ("blocks_total", "blocks_done", "blocks_skipped", "blocks_failed", "blocks_in_flight")
    blocks = {name: int(status.get(name, 0)) for name in names}
    images = int(status.get("images_done", 0))
    seconds = float(status.get("seconds", 0.0))
    rate = blocks["blocks_done"] / seconds if seconds > 0 else 0.0
    left = blocks["blocks_total"] - sum(blocks[name] for name in names[1:4])
    state = str(status.get("state", "" if known is None else "unknown"))
    if known is not None and state == "running" and now - known.status_at > SILENT_RUN_SECONDS:
        state = "silent"
    return {
        "id": "" if known is None else known.run,
        "state": state,
        **{name: str(status.get(name, "")) for name in ("output", "model", "redundancy", "code")},
        **{name: status.get(name) for name in ("n", "delta", "extra_work", "corrupt_shares")},
        **blocks,
        "images_done": images,
        "seconds": seconds,
        "blocks_per_second": rate,
        "images_per_second": images / seconds if seconds > 0 else 0.0,
        "seconds_left": left / rate if state == "running" and rate > 0 else None,
    }


def _layers(known: CollectedRun) -> list[dict[str, Any]]:
    """Return a row per layer: its groups, and their times in seconds on average."""
    names = known.status.get("layers", {})
    return [
        {
            "layer": number,
            "name": str(names.get(str(number), "")),
            "groups": facts.groups,
            "decodes": facts.solved,
            "erasures": facts.erased,
            "seconds": facts.settled_seconds / facts.settled if facts.settled else 0.0,
            "slowest": facts.slowest / facts.settled if facts.settled else 0.0,
            "share": facts.typical("share"),
        }
        for number, facts in sorted(known.statistics.layers.items())[:MAX_LAYERS]
    ]


def _groups(known: CollectedRun) -> list[list[Any]]:
    """Return the latest groups: layer, block, seconds, slowest, solved, erased."""
    latest = list(known.statistics.settled)[-MAX_GROUPS:]
    return [
        [g.layer, g.block, round(g.seconds, 4), round(g.slowest_seconds, 4), g.solved, g.erased]
        for g in latest
    ]


def _saved(known: CollectedRun | None) -> dict[str, float]:
    """Return the seconds of waiting that were saved: summed over groups, and on the clock."""
    if known is None:
        return {"group_seconds": 0.0, "seconds": 0.0}
    return {"group_seconds": known.statistics.saved, "seconds": known.statistics.saved_so_far()}


def _conditions(status: dict[str, Any]) -> dict[str, Any]:
    """Return the condition numbers of decodes: the limit, the largest and the latest."""
    return {
        "limit": status.get("condition_limit"),
        "max": status.get("max_condition_number"),
        "last": list(status.get("conditions", ()))[-MAX_GROUPS:],
    }


def _worker(worker: WorkerView) -> dict[str, Any]:
    """Return all about a worker; its pace is also under the name ``learned_pace``."""
    return {
        **vars(worker),
        "learned_pace": worker.pace,
        "late_mean": worker.late_mean,
        "trouble": worker.trouble,
        "slow": worker.is_slow,
    }


def _pace(worker: WorkerView) -> list[Any]:
    """Return what the map of workers needs of one: address, pace, ghosts, silence, slow."""
    pace = None if worker.pace is None else round(worker.pace, 3)
    return [worker.address, pace, worker.ghosts, round(worker.silent, 1), worker.is_slow]
