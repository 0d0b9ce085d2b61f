from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, psutil
from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.runtime.cluster import open_cluster

def look():
    import sys
    server = psutil.Process().parent()
    threads = os.environ["OMP_NUM_THREADS"]
    return " ".join(server.cmdline()), server.ppid(), threads, "torch" in sys.modules

if __name__ == "__main__":
    config = JobConfig(model="m", input="i", output="o", workers=2, dashboard_address="127.0.0.1:0")
    with open_cluster(config) as cluster:
        for server, client, threads, has_torch in cluster.client.run(look).values():
            assert "multiprocessing.forkserver" in server, server
            assert client == os.getpid()
            assert threads == "1" and has_torch
"""


@pytest.mark.cluster
def test_workers_of_a_local_cluster_are_forks_of_one_server(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_NUM_THREADS", "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD")
    }
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
