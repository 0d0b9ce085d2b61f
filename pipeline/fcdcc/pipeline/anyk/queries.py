"""What a client can ask the scheduler about any-k groups."""

from __future__ import annotations

from typing import Any, TypedDict

from distributed import Client

REPORT = "fcdcc_anyk_report"
ALIVE = "fcdcc_anyk_alive"
FORGET = "fcdcc_anyk_forget"


class RunTotals(TypedDict):
    """The counters of a run, and the workers and shares that it lost; all of it is short."""

    counters: dict[str, int]
    workers_removed: list[str]
    workers_lost: list[str]
    corrupt: list[tuple[int, int, int, str]]


class Report(RunTotals):
    """What happened in a run; :mod:`.history` says what the records hold.

    ``failures`` are tracebacks of errors inside the plugin, over all runs: Dask only logs
    them, and a healthy plugin has none.
    """

    timeline: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    events: list[dict[str, Any]]
    failures: list[str]


def anyk_report(client: Client, run: str, *, timeline: bool = True) -> Report:
    """Return what the plugin knows of a run, empty if it knows nothing or is not there.

    The history is bounded: of very long runs the oldest shares are missing, not the counters.

    Parameters
    ----------
    client
        A synchronous client of a cluster that has the plugin.
    run
        The run id in the task keys; '' for keys that have none.
    timeline
        Whether to include one record per share and per group, which may be many.
    """
    nothing: Report = {
        "counters": {},
        "timeline": [],
        "groups": [],
        "events": [],
        "workers_removed": [],
        "workers_lost": [],
        "corrupt": [],
        "failures": [],
    }
    report: Report | None = _ask(client, REPORT, run=run, timeline=timeline)
    return report or nothing


def anyk_alive(client: Client) -> dict[str, int]:
    """Return how many groups, shares, nodes, blocks, tasks and doubles the plugin knows."""
    alive: dict[str, int] = _ask(client, ALIVE) or {}
    return alive


def anyk_forget(client: Client, run: str) -> None:
    """Drop the history of a run."""
    _ask(client, FORGET, run=run)


def _ask(client: Client, operation: str, **arguments: Any) -> Any:
    async def call() -> Any:
        answer = await getattr(client.scheduler, operation)(**arguments)
        if isinstance(answer, dict):  # lists arrive as tuples over some connections
            return {k: list(v) if isinstance(v, tuple) else v for k, v in answer.items()}
        return answer

    return client.sync(call)
