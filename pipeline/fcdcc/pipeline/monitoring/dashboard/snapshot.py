"""What the page, the JSON route and the terminal say: one plain object, made from the board."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fcdcc.coding import __version__

from ...anyk.state_machine.history import Counters
from ..stragglers import WorkerView, ranked, verdict
from .collector import RunBoard, RunCollector
from .run_statistics import LayerFacts

MAX_SHOWN_WORKERS = 200
MAX_SHOWN_LAYERS = 500
MAX_SHOWN_GROUPS = 120

QUIET_RUN = 15.0
"""Seconds after which a run that has not said anything is not called running any more."""


def snapshot(board: RunCollector, now: float) -> dict[str, Any]:
    """Return what there is to see now, as dictionaries, lists, strings and finite numbers.

    It has the same members whether a run is going on or none ever was; its size is bounded.
    """
    known = board.current()
    workers = ranked(board.workers(known, now))
    counters = Counters() if known is None else known.counters
    told = {} if known is None else known.told
    return {
        "version": __version__,
        "time": now,
        "sentence": verdict(workers),
        "run": _run(known, now),
        "counters": asdict(counters),
        "totals": asdict(board.state.history.totals()),
        "blocks_done_total": board.blocks_done,
        "layers": [] if known is None else layer_rows(known.account.layers, told.get("layers", {})),
        "groups": [] if known is None else _groups(known),
        "saved": _saved(known),
        "conditions": _conditions(told),
        "ghosts": sum(worker.ghosts for worker in workers),
        "workers_total": len(board.state.workers.by_address),
        "workers": [_worker(worker) for worker in workers[:MAX_SHOWN_WORKERS]],
        "paces": [_pace(worker) for worker in workers if not worker.gone][:2000],
    }


def _run(known: RunBoard | None, now: float) -> dict[str, Any]:
    """Return what is known of a run's blocks."""
    told = {} if known is None else known.told
    names = ("blocks_total", "blocks_done", "blocks_skipped", "blocks_failed", "blocks_in_flight")
    blocks = {name: int(told.get(name, 0)) for name in names}
    seconds = float(told.get("seconds", 0.0))
    rate = blocks["blocks_done"] / seconds if seconds > 0 else 0.0
    left = blocks["blocks_total"] - sum(blocks[name] for name in names[1:4])
    state = str(told.get("state", "" if known is None else "unknown"))
    if known is not None and state == "running" and now - known.told_at > QUIET_RUN:
        state = "silent"
    running = state == "running"
    return {
        "id": "" if known is None else known.run,
        "state": state,
        **{name: str(told.get(name, "")) for name in ("output", "model", "redundancy", "code")},
        **{name: told.get(name) for name in ("n", "delta", "extra_work", "corrupt_shares")},
        **blocks,
        "images_done": int(told.get("images_done", 0)),
        "seconds": seconds,
        "blocks_per_second": rate,
        "images_per_second": int(told.get("images_done", 0)) / seconds if seconds > 0 else 0.0,
        "seconds_left": left / rate if running and rate > 0 else None,
    }


def layer_rows(layers: dict[int, LayerFacts], names: dict[Any, Any]) -> list[dict[str, Any]]:
    """Return a row per layer: its groups, and their times in seconds on average."""
    return [
        {
            "layer": number,
            "name": str(names.get(str(number), names.get(number, ""))),
            "groups": facts.groups,
            "decodes": facts.solved,
            "erasures": facts.erased,
            "seconds": facts.settled_seconds / facts.settled if facts.settled else 0.0,
            "slowest": facts.slowest / facts.settled if facts.settled else 0.0,
            "share": facts.typical("share"),
        }
        for number, facts in sorted(layers.items())[:MAX_SHOWN_LAYERS]
    ]


def _groups(known: RunBoard) -> list[list[Any]]:
    """Return the latest groups: layer, block, seconds, slowest, solved, erased."""
    latest = list(known.account.recent)[-MAX_SHOWN_GROUPS:]
    return [
        [g.layer, g.block, round(g.seconds, 4), round(g.slowest, 4), g.solved, g.erased]
        for g in latest
    ]


def _saved(known: RunBoard | None) -> dict[str, float]:
    account = None if known is None else known.account
    return {
        "group_seconds": 0.0 if account is None else account.saved,
        "seconds": 0.0 if account is None else account.saved_so_far(),
    }


def _conditions(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "limit": told.get("condition_limit"),
        "max": told.get("max_condition_number"),
        "last": list(told.get("conditions", ()))[-MAX_SHOWN_GROUPS:],
    }


def _worker(worker: WorkerView) -> dict[str, Any]:
    mean = worker.late / worker.erased if worker.erased else 0.0
    return {**vars(worker), "late_mean": mean, "trouble": worker.trouble}


def _pace(worker: WorkerView) -> list[Any]:
    """Return what the map of workers needs of one: address, pace, ghosts, silence."""
    pace = None if worker.pace is None else round(worker.pace, 3)
    return [worker.address, pace, worker.ghosts, round(worker.silent, 1)]
