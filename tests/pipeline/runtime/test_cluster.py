from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import LocalCluster

from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.errors import ClusterError
from fcdcc.pipeline.runtime.cluster import cluster_started_early, open_cluster
from support import fork_server
from support.jobs import fcdcc
from support.small import Files

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


LISTENING = """
import json, os, sys, psutil
from fcdcc.pipeline import JobConfig
from fcdcc.pipeline.runtime.cluster import open_cluster

if __name__ == "__main__":
    options = {"model": "m", "input": "i", "output": "o", "workers": 2, **json.loads(sys.argv[1])}
    with open_cluster(JobConfig.of(**options)) as cluster:
        cluster.client.wait_for_workers(2)
        us = psutil.Process()
        sockets = [
            socket for process in (us, *us.children(recursive=True))
            for socket in process.net_connections("inet") if socket.status == psutil.CONN_LISTEN
        ]
        print(json.dumps([socket.laddr.ip for socket in sockets]))
"""


def listening(folder: Path, **options: object) -> list[str]:
    """Return the addresses on which a local cluster listens, one for each socket."""
    program = folder / "program.py"
    program.write_text(LISTENING)
    command = [sys.executable, str(program), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.cluster
@pytest.mark.parametrize("processes", [True, False])
def test_a_local_cluster_listens_on_this_machine_only(tmp_path: Path, processes: bool) -> None:
    found = listening(tmp_path, processes=processes, dashboard_address=":0")
    # Scheduler, nannies, workers, and the dashboards of the scheduler and of each worker.
    assert len(found) >= (8 if processes else 3)
    assert set(found) == {"127.0.0.1"}


@pytest.mark.cluster
@pytest.mark.long
def test_the_dashboard_alone_listens_where_an_address_says(tmp_path: Path) -> None:
    found = listening(tmp_path, processes=True, dashboard_address="0.0.0.0:0")
    assert sorted(set(found)) == ["0.0.0.0", "127.0.0.1"]
    assert found.count("0.0.0.0") == 1


@pytest.mark.parametrize("address", ["203.0.113.1:0", "no.such.host.invalid:0"])
def test_an_address_that_is_not_ours_is_refused_in_words(address: str) -> None:
    options = {"model": "m", "input": "i", "output": "o", "workers": 1, "processes": False}
    config = JobConfig.of(**options, dashboard_address=address)
    with pytest.raises(ClusterError, match="--dashboard-address"), open_cluster(config):
        raise AssertionError


@pytest.mark.cluster
def test_a_scheduler_is_found_by_its_scheduler_file(tmp_path: Path) -> None:
    place = tmp_path / "scheduler.json"
    config = JobConfig(model="m", input="i", output="o", scheduler=str(place))
    with pytest.raises(ClusterError, match=r"scheduler\.json cannot be read.*--scheduler-file"):
        open_cluster(config).__enter__()
    options: dict[str, Any] = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=1, protocol="tcp://", **options) as running:
        place.write_text(json.dumps({"address": running.scheduler_address}))
        with open_cluster(config) as found:
            assert found.workers == 1
            assert found.local is None


@pytest.mark.cluster
@pytest.mark.long
def test_a_scheduler_that_accepts_connections_and_says_nothing_is_given_up() -> None:
    """As one does that was stopped."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}),
    ):
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        config = JobConfig(model="m", input="i", output="o", scheduler=address)
        refused = pytest.raises(ClusterError, match=r"no Dask scheduler answers.*does not answer")
        with refused, ExitStack() as stack:
            stack.enter_context(open_cluster(config))


def test_a_scheduler_or_a_store_out_of_reach_ends_a_run_with_code_1(
    files: Files, tmp_path: Path
) -> None:
    """What passes by itself, so that schedulers of jobs try again; other mistakes end with 2."""
    output = tmp_path / "out.zarr"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with dask.config.set({"distributed.comm.timeouts.connect": "0.3s"}):
        address = f"tcp://127.0.0.1:{port}"
        refused = fcdcc("run", files.model, files.images, output, "--scheduler", address)
    assert refused.exit_code == 1, refused.output
    assert f"no Dask scheduler answers at {address}" in refused.stderr
    for url in (f"http://127.0.0.1:{port}/images.zarr", f"http://127.0.0.1:{port}/small.pt2"):
        given = (files.model, url) if url.endswith(".zarr") else (url, files.images)
        refused = fcdcc("run", *given, output)
        assert refused.exit_code == 1, refused.output
        assert url in refused.stderr
        assert "annot connect to host 127.0.0.1" in refused.stderr
        assert "Traceback" not in refused.output
    missing = fcdcc("run", files.model, tmp_path / "none.zarr", output)
    assert missing.exit_code == 2
    assert not output.exists()


def test_a_cluster_that_is_started_early_is_replaced_if_the_plan_wants_other_workers() -> None:
    first = JobConfig.of(
        model="m", input="i", output="o", workers=2, processes=False, dashboard_address=":0"
    )
    with cluster_started_early(first) as cluster:
        started = cluster(first)
        assert cluster(first) is started
        assert started.workers == 2
        replaced = cluster(first.model_copy(update={"workers": 1}))
        assert replaced.workers == 1
        assert started.client.status == "closed"
    assert replaced.client.status == "closed"


def test_a_cluster_that_nobody_asked_for_is_closed_and_its_error_is_dropped() -> None:
    config = JobConfig.of(
        model="m", input="i", output="o", workers=1, processes=False,
        dashboard_address="203.0.113.1:0",
    )  # fmt: skip
    with cluster_started_early(config):
        pass
    with (
        cluster_started_early(config) as cluster,
        pytest.raises(ClusterError, match=r"203\.0\.113\.1"),
    ):
        cluster(config)


def test_dask_looks_less_often_at_a_local_cluster_unless_the_user_has_set_how_often() -> None:
    config = JobConfig.of(
        model="m", input="i", output="o", workers=1, processes=False, dashboard_address=":0"
    )
    profile, ticks = "distributed.worker.profile.interval", "distributed.admin.tick.interval"
    before = dask.config.get(profile)
    with dask.config.set({ticks: "25ms"}), open_cluster(config):
        assert (dask.config.get(profile), dask.config.get(ticks)) == ("100ms", "25ms")
    assert dask.config.get(profile) == before


@pytest.mark.cluster
def test_a_worker_of_ours_that_is_removed_is_named_with_its_name_and_process(
    scheduler: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = JobConfig(model="m", input="i", output="o", scheduler=scheduler)
    with open_cluster(config) as cluster:
        cluster.note_names()
        cluster.names |= {"tcp://10.0.0.1:1": "gpu-3"}
        cluster.pids |= {"tcp://10.0.0.1:1": 5125}
        cluster.warn_of_removed([])
        cluster.warn_of_removed(["tcp://10.0.0.1:1"])
        cluster.warn_of_removed([f"tcp://10.0.0.2:{port}" for port in range(6)])
        known = cluster.addresses()
        assert set(cluster.names) >= set(known)
    one, several = (text for text in caplog.messages if text.startswith("worker"))
    assert one.startswith(
        "worker tcp://10.0.0.1:1 (gpu-3, pid 5125) does not answer and was removed: "
    )
    assert several.startswith("workers tcp://10.0.0.2:0, ")
    assert "and 2 more do not answer" in several
