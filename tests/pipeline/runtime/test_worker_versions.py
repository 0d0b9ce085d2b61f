"""A cluster whose workers have another version of this package, or lack it, is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from fcdcc.coding import __version__
from fcdcc.pipeline.errors import ClusterError
from fcdcc.pipeline.runtime.worker_versions import check_versions, check_worker_versions


def test_workers_are_named_with_what_they_have() -> None:
    workers = {f"tcp://{n}:1": version for n, version in enumerate(["1.0", None, "0.9", "1.0"])}
    with pytest.raises(ClusterError) as caught:
        check_worker_versions("1.0", "1.0", workers)
    assert str(caught.value) == (
        "worker tcp://1:1 has no fcdcc and worker tcp://2:1 has fcdcc 0.9; expected fcdcc 1.0, as "
        "here: install the same version everywhere, and start the scheduler and the workers again"
    )
    with pytest.raises(ClusterError, match="workers a, b, c and 2 more have no fcdcc"):
        check_worker_versions("1.0", None, dict.fromkeys("abcde"))
    with pytest.raises(ClusterError, match=r"the scheduler has fcdcc 0\.9;"):
        check_worker_versions("1.0", "0.9", {"a": "1.0"})
    check_worker_versions("1.0", None, {"a": "1.0"})


def test_a_worker_with_another_version_is_found_on_a_cluster(tmp_path: Path) -> None:
    metadata = tmp_path / "fcdcc-0.0.1.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: fcdcc\nVersion: 0.0.1\n")
    folders = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with (
        LocalCluster(
            n_workers=1, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        check_versions(client)
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_worker"),
                *(cluster.scheduler_address, "--no-nanny", "--no-dashboard", "--nthreads", "1"),
            ],
            env={**os.environ, "PYTHONPATH": folders},
            cwd=tmp_path,
            stderr=subprocess.DEVNULL,
        )
        try:
            client.wait_for_workers(2)
            with pytest.raises(ClusterError, match=r"worker tcp://\S+ has fcdcc 0.0.1; expected"):
                check_versions(client)
        finally:
            worker.terminate()
            worker.wait()
    assert __version__ != "0.0.1"
