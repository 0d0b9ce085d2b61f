"""What a task tells the scheduler of the shares that it has looked at.

Through Dask's event log, which reaches the scheduler before the task's result does. A notice
says which shares were found wrong, or to contradict each other, or to hold numbers that are
none; the scheduler counts them and draws its conclusions (:mod:`.trust`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

from dask.context import thread_state
from distributed import get_worker

from fcdcc.pipeline.keys import parse_key

from .messages import Noticed

__all__ = ["TOPIC", "What", "announce", "here", "noticed"]

TOPIC = "fcdcc-shares"
"""Of the scheduler's event log."""

What: TypeAlias = Literal["corrupt-share", "mismatch", "not-finite"]
"""Found wrong; contradict each other, and nobody knows which is wrong; hold NaN or infinity."""

MOST = 4096
"""Shares that one notice names at most."""


def here() -> str:
    """Return the address of the worker whose task this is; '' outside Dask's workers."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def announce(what: What, shares: Iterable[tuple[int, str]]) -> None:
    """Tell the scheduler of shares of the layer and block that the running task belongs to.

    Outside a worker nobody is told.

    Parameters
    ----------
    what
        What is the matter with them.
    shares
        Position, and the worker that made the share, of each.
    """
    try:
        worker = get_worker()
    except ValueError:
        return
    key = parse_key(getattr(thread_state, "key", None))
    if key is not None:
        place = {"run": key.run, "layer": key.layer, "block": key.block}
        found = [[position, address] for position, address in shares]
        worker.log_event(TOPIC, {"event": what, **place, "shares": found[:MOST]})


def noticed(now: float, message: Mapping[str, Any]) -> Noticed | None:
    """Return what a notice says; None if it is none."""
    what, run = message.get("event"), message.get("run")
    layer, block, shares = (message.get(name) for name in ("layer", "block", "shares"))
    if not isinstance(what, str) or what not in get_args(What) or not isinstance(run, str):
        return None
    if not (isinstance(layer, int) and isinstance(block, int) and isinstance(shares, list | tuple)):
        return None
    named = tuple((int(position), str(worker)) for position, worker in shares[:MOST])
    return Noticed(now, what, run, layer, block, named)
