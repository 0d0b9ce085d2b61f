"""Credentials in an address are used, and appear nowhere: not in files, logs, keys or events."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from fcdcc.pipeline import JobConfig, run
from fcdcc.pipeline.monitoring.progress import Quiet, RunProgress
from support.small import Files

SECRET = "geheimnis"

pytestmark = pytest.mark.cluster


@pytest.fixture
def served(files: Files) -> Iterator[str]:
    """The images' address, with a password."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    handler = partial(Handler, directory=files.images.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://user:{SECRET}@127.0.0.1:{server.server_port}/{files.images.name}"
    server.shutdown()
    thread.join()
    server.server_close()


class Listening(Quiet):
    """Remembers what the scheduler says of its tasks while a run goes on."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.said: set[str] = set()

    def advance(self, advance: RunProgress) -> None:
        tasks = list(self.cluster.scheduler.tasks.values())
        self.said.update(f"{task.key} {task!r} {task.exception_text}" for task in tasks)


def test_a_password_is_used_and_told_to_nobody(
    files: Files, served: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out.zarr"
    with (
        caplog.at_level("DEBUG"),
        LocalCluster(
            n_workers=3, processes=False, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        listening = Listening(cluster)
        options: dict[str, Any] = {"n": 3, "tolerate": 1, "batch": 10, "input_array": "image"}
        config = JobConfig(
            model=str(files.model), input=served, output=str(output),
            scheduler=cluster.scheduler_address, **options,
        )  # fmt: skip
        summary = run(config, listening)
        events = repr(cluster.scheduler.get_events())
    assert summary.status == "complete"
    assert listening.said
    stored = [file.read_bytes() for file in output.rglob("*") if file.is_file()]
    ours = ("fcdcc", "distributed", "py.warnings")  # drivers have debugging logs of their own
    logged = [record for record in caplog.records if record.name.startswith(ours)]
    texts = [
        *(record.getMessage() for record in logged),
        events,
        summary.to_json(),
        *listening.said,
    ]
    assert not [text for text in texts if SECRET in text]
    assert not [data for data in stored if SECRET.encode() in data]
