"""The version of this package on the scheduler and the workers of a running cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from distributed import Client
from distributed.versions import get_versions

from ..errors import ClusterError
from ..worker.executable_plugin import POLL_SECONDS, silent_workers

DISTRIBUTION = "fcdcc"

ANSWER_SECONDS = 10.0
"""Time in which all workers must say their versions; without an answer nothing is checked."""

MAX_NAMED_WORKERS = 3
"""Most workers that the error names for one version."""


def check_versions(client: Client) -> None:
    """Check that a cluster has this package, in this version.

    A worker that is silent is not waited for: it may have stopped, and a run goes on without it.
    Another one that does not answer in time ends the check without an error. A scheduler without
    the package is allowed, too: the client then does what the plugin would do there.

    Parameters
    ----------
    client
        A synchronous client.

    Raises
    ------
    ClusterError
        If workers lack the package, or the scheduler or workers have another version.
    """
    here = _version_in(get_versions(packages=[DISTRIBUTION]))
    if here is None:  # it is not installed, but imported from a folder
        return
    found: Any = client.sync(_versions, client)
    if found is not None:
        scheduler, workers = found
        check_worker_versions(here, scheduler, workers)


async def _versions(client: Client) -> tuple[str | None, dict[str, str | None]] | None:
    """Return the version of the scheduler and of each worker; None without an answer in time."""
    cluster: Any = client.scheduler  # it has no types
    message = {"op": "versions", "packages": [DISTRIBUTION]}
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            scheduler = await cluster.versions(packages=[DISTRIBUTION])
            workers = await _answers(cluster, message)
    except TimeoutError:
        return None
    return _version_in(scheduler), {name: _version_in(said) for name, said in workers.items()}


async def _answers(cluster: Any, message: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what the workers answer that are heard of: the silent ones are not waited for.

    If another one falls silent meanwhile, the others are asked again.
    """
    while True:
        silent = await _silent(cluster)
        known = (await cluster.identity(n_workers=-1))["workers"]
        asked = [address for address in known if address not in silent]
        request = asyncio.ensure_future(
            cluster.broadcast(msg=message, workers=asked, on_error="ignore")
        )
        try:
            while not (await asyncio.wait({request}, timeout=POLL_SECONDS))[0]:
                if not (await _silent(cluster)).isdisjoint(asked):
                    break
            else:
                answers: dict[str, dict[str, Any]] = request.result()
                return answers
        finally:
            request.cancel()


async def _silent(cluster: Any) -> set[str]:
    """Return the workers of a scheduler that are silent."""
    known = (await cluster.identity(n_workers=-1))["workers"]
    return silent_workers({name: worker["last_seen"] for name, worker in known.items()})


def _version_in(versions: Mapping[str, Any]) -> str | None:
    found: str | None = versions["packages"].get(DISTRIBUTION)
    return found


def check_worker_versions(
    here: str, scheduler: str | None, workers: Mapping[str, str | None]
) -> None:
    """Check versions that a cluster has said.

    Parameters
    ----------
    here
        The version of this process.
    scheduler
        That of the scheduler; None if it lacks the package.
    workers
        Those of the workers by their addresses; None for a worker that lacks the package.

    Raises
    ------
    ClusterError
        As :func:`check_versions`.
    """
    by_version: dict[str | None, list[str]] = {}
    for address, version in workers.items():
        if version != here:
            by_version.setdefault(version, []).append(address)
    problems = [
        f"{_named(addresses)} {_has(len(addresses), version)}"
        for version, addresses in by_version.items()
    ]
    if scheduler not in (None, here):
        problems.insert(0, f"the scheduler {_has(1, scheduler)}")
    if problems:
        raise ClusterError(
            f"{' and '.join(problems)}; expected {DISTRIBUTION} {here}, as here: install the same "
            "version everywhere, and start the scheduler and the workers again"
        )


def _named(addresses: list[str]) -> str:
    shown = ", ".join(addresses[:MAX_NAMED_WORKERS])
    more = len(addresses) - MAX_NAMED_WORKERS
    word = "worker" if len(addresses) == 1 else "workers"
    return f"{word} {shown}" + (f" and {more} more" if more > 0 else "")


def _has(count: int, version: str | None) -> str:
    verb = "has" if count == 1 else "have"
    return f"{verb} {f'no {DISTRIBUTION}' if version is None else f'{DISTRIBUTION} {version}'}"
