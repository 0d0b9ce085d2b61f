"""A session that uses ``infer`` hears of workers that are removed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline.anyk import AnyKPlugin
from fcdcc.pipeline.runtime.removal_warnings import warn_of_removed_workers


def log(dask_scheduler: Any, events: list[dict[str, str]]) -> None:
    for event in events:
        dask_scheduler.log_event(AnyKPlugin.name, event)


def removed(name: str) -> dict[str, str]:
    """Return what the any-k plugin logs when it removes a worker."""
    return {"event": "remove-worker", "worker": name}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the workers that a warning has named, in order."""
    return [text.split()[1] for text in caplog.messages if "does not answer and was" in text]


@pytest.mark.cluster
def test_a_session_is_warned_once_of_each_worker_that_is_removed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    until = time.monotonic() + 60
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        warn_of_removed_workers(client)
        warn_of_removed_workers(client)
        while "first" not in told(caplog):  # its subscription travels beside these requests
            client.run_on_scheduler(log, events=[removed("first")])
            assert time.monotonic() < until
            time.sleep(0.1)
        other = {"event": "add-worker", "worker": "other"}
        client.run_on_scheduler(log, events=[other, removed("b"), removed("c")])
        while "c" not in told(caplog):
            assert time.monotonic() < until
            time.sleep(0.1)
    assert [name for name in told(caplog) if name != "first"] == ["b", "c"]


class Session:
    """What is needed of a client here."""

    asynchronous = False

    def __init__(self) -> None:
        self.scheduler_comm = object()
        self.subscribed: list[str] = []

    def subscribe_topic(self, topic: str, _: object) -> None:
        self.subscribed.append(topic)


def test_a_session_that_has_connected_anew_subscribes_again() -> None:
    session: Any = Session()
    warn_of_removed_workers(session)
    warn_of_removed_workers(session)
    assert len(session.subscribed) == 1
    session.scheduler_comm = object()
    warn_of_removed_workers(session)
    assert session.subscribed == [AnyKPlugin.name] * 2
