from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask
import psutil
import pytest

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.runtime.cluster import open_cluster
from support import fork_server

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


@pytest.mark.cluster
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_local_cluster_leaves_neither_processes_nor_folders(tmp_path: Path, stopped: int) -> None:
    config = JobConfig(model="m", input="i", output="o", workers=2, dashboard_address="127.0.0.1:0")
    with dask.config.set({"temporary-directory": str(tmp_path)}), open_cluster(config) as cluster:
        addresses = cluster.addresses()
        workers = fork_server.worker_processes()
        folders = [path for path in tmp_path.rglob("worker-*") if path.is_dir()]
        assert len(addresses) == len(workers) == len(folders) == 2
        for process in workers[:stopped]:
            process.suspend()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert (len(gone), alive) == (2, [])
    assert not [*tmp_path.rglob("worker-*")]
