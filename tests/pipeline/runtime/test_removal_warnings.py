"""A session that uses ``infer`` hears of workers that are removed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from distributed import Client, LocalCluster

from fcdcc.pipeline.monitoring.dashboard.service import TOPIC
from fcdcc.pipeline.runtime.removal_warnings import warn_of_removed_workers


def log(dask_scheduler: Any, events: list[dict[str, str]]) -> None:
    for event in events:
        dask_scheduler.log_event(TOPIC, event)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the workers that a warning has named, in order."""
    return [text.split()[1] for text in caplog.messages if "does not answer and was" in text]


@pytest.mark.cluster
def test_a_session_is_warned_of_each_worker_that_is_removed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        warn_of_removed_workers(client)
        warn_of_removed_workers(client)
        events = [{"event": "late", "worker": "tcp://a:1"}]
        events += [{"event": "removed", "worker": f"tcp://{name}:1"} for name in "bc"]
        until = time.monotonic() + 60
        while len(told(caplog)) < 2:  # its subscription travels beside these requests
            client.run_on_scheduler(log, events=events)
            assert time.monotonic() < until
            time.sleep(0.1)
    assert told(caplog)[:2] == ["tcp://b:1", "tcp://c:1"]
