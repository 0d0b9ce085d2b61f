"""The dashboard of a local cluster: Dask's pages are made when one is opened, and all are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys, urllib.error, urllib.request
from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.runtime.cluster import open_cluster
from fcdcc.pipeline.runtime.plugins import register_plugins

def get(path):
    with urllib.request.urlopen(url + path, timeout=60) as answer:
        return answer.read().decode()

config = JobConfig(model="m", input="i", output="o", workers=1, processes=False,
                   dashboard_address="127.0.0.1:0")
with open_cluster(config) as cluster:
    register_plugins(cluster.client)
    url = f"http://127.0.0.1:{cluster.local.scheduler.http_server.port}"
    assert "fcdcc_" in get("/metrics")
    assert "workers" in get("/json/fcdcc.json")
    assert "bokeh" not in sys.modules
    for path in sys.argv[1:]:
        page = get(path)
        for name in ("status", "fcdcc", "workers", "tasks"):
            assert f'href="{name}"' in page or f"/{name}" in page, (path, name)
    try:
        get("/no-such-page")
    except urllib.error.HTTPError as error:
        assert error.code == 404
    else:
        raise AssertionError
"""


@pytest.mark.cluster
@pytest.mark.parametrize(
    "paths",
    [("/status", "/fcdcc"), pytest.param(("/fcdcc", "/", "/workers"), marks=pytest.mark.long)],
)
def test_pages_are_made_when_one_is_opened(tmp_path: Path, paths: tuple[str, ...]) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
