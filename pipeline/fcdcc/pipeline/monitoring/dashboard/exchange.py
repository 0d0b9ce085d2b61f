"""A run tells the scheduler how far it is, and asks what happened to its shares."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from distributed import Client

from ...anyk.queries import RunTotals, anyk_report
from ...anyk.state_machine.history import GroupRecord, ShareRecord
from .run_statistics import Erasure, GroupFacts

logger = logging.getLogger(__name__)

EXCHANGE = "fcdcc_watch_exchange"


def _no_totals() -> RunTotals:
    return {"counters": {}, "workers_removed": [], "workers_lost": [], "corrupt": []}


@dataclass(frozen=True)
class RunUpdate:
    """What happened since a run last asked.

    Parameters
    ----------
    shares, groups
        Records of the any-k history.
    settled
        Groups of which the lateness of all shares is known.
    events
        Late groups, and workers that are gone.
    freed
        Shares that were given up, with when their workers were free of them.
    totals
        Counters of the whole run, and the workers and shares that it lost.
    seen
        What to ask with the next time.
    more
        Whether there is more already.
    facts
        What everything so far adds up to, if it was asked for.
    slow
        The workers that are late now, in words; '' while nobody is.
    """

    shares: tuple[ShareRecord, ...] = ()
    groups: tuple[GroupRecord, ...] = ()
    settled: tuple[GroupFacts, ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    freed: tuple[Erasure, ...] = ()
    totals: RunTotals = field(default_factory=_no_totals)
    seen: Mapping[str, int] = field(
        default_factory=lambda: dict.fromkeys(("shares", "groups", "settled", "events", "freed"), 0)
    )
    more: bool = False
    facts: dict[str, Any] | None = None
    slow: str = ""


def exchange(
    client: Client, run: str, told: Mapping[str, Any], last: RunUpdate, *, summary: bool = False
) -> RunUpdate:
    """Tell what a run says of itself, and return what happened since ``last``.

    A scheduler without the dashboard plugin, or whose dashboard plugin fails, is asked for the
    run's totals alone, with a request of its own.

    Parameters
    ----------
    client
        A synchronous client.
    run
        The run's id.
    told
        What the page and the metrics show of it; nothing to only ask.
    last
        The answer before, or ``RunUpdate()``.
    summary
        Whether to ask for the facts, which may be long.

    Raises
    ------
    OSError
        If the scheduler cannot be reached.
    """

    async def call() -> Any:
        request = getattr(client.scheduler, EXCHANGE)
        return await request(run=run, told=dict(told), seen=dict(last.seen), summary=summary)

    try:
        answer = cast("dict[str, Any] | None", client.sync(call))
    except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on without it
        logger.debug("the scheduler could not be asked about run %s: %r", run, error)
        answer = None
    if answer is None:  # Dask also answers None to a request that it does not know
        return RunUpdate(totals=anyk_report(client, run, timeline=False), seen=last.seen)
    return RunUpdate(
        tuple(ShareRecord(*row) for row in answer["shares"]),
        tuple(GroupRecord(*row) for row in answer["groups"]),
        tuple(GroupFacts(*row) for row in answer["settled"]),
        tuple(answer["events"]),
        tuple(Erasure(*row) for row in answer["freed"]),
        answer["totals"],
        answer["seen"],
        answer["more"],
        answer["facts"],
        answer["slow"],
    )
