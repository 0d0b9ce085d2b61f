"""Many calls in one process leave nothing behind: no threads, no open files, no memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.small import Files

pytestmark = pytest.mark.cluster

PROGRAM = """
import gc, json, shutil, sys, threading
import numpy as np, psutil, zarr
from distributed import Client, LocalCluster
from fcdcc.pipeline import JobConfig, infer, open_model, run

def state():
    gc.collect()
    us = psutil.Process()
    children = [child for child in us.children(recursive=True) if "forkserver" not in
                " ".join(child.cmdline())]
    return {
        "threads": us.num_threads(), "files": us.num_fds(), "children": len(children),
        "connections": len(us.net_connections()), "bytes": us.memory_info().rss,
        "python": threading.active_count(),
    }

def infers(model, images, expected, count):
    for number in range(count):
        how = ({"scheduler": "synchronous"}, {"scheduler": "threads"})[number % 2]
        made = infer(open_model(model), images, n=3, tolerate=1, batch=10).compute(**how)
        np.testing.assert_allclose(made, expected, atol=1e-5)

def runs(model, images, expected, count):
    for number in range(count):
        summary = run(JobConfig.of(
            model=model, input=images, output=f"{folder}/out.zarr", n=2, tolerate=1, workers=2,
            processes=processes, dashboard_address=":0", progress=False, limit=20,
        ))
        assert summary.status == "complete"
        made = zarr.open_group(f"{folder}/out.zarr", mode="r")["prediction"][:]
        np.testing.assert_allclose(made, expected[:20], atol=1e-5)
        shutil.rmtree(f"{folder}/out.zarr")

if __name__ == "__main__":
    what, model, images, expected, folder, warm, count = sys.argv[1:]
    processes = what == "processes"
    expected, pixels = np.load(expected), zarr.open_group(images, mode="r")["image"][:]
    def call(times):
        if what == "infer":
            infers(model, pixels, expected, times)
        elif what == "client":
            with LocalCluster(n_workers=3, processes=False, threads_per_worker=1,
                              dashboard_address=None) as cluster, Client(cluster):
                for _ in range(times):
                    made = infer(open_model(model), pixels, n=3, tolerate=1, batch=10).compute()
                    np.testing.assert_allclose(made, expected, atol=1e-5)
        else:
            runs(model, images, expected, times)
    call(int(warm))
    before = state()
    call(int(count))
    print(json.dumps([before, state()]))
"""

MAX_BYTES_PER_CALL = {"infer": 2**17, "client": 2**18, "threads": 2**20, "processes": 2**19}
"""Memory that a call may leave: allocators and caches of Dask keep some. A block of the images has
more."""


def check(files: Files, folder: Path, what: str, warm: int, count: int) -> None:
    np.save(folder / "expected.npy", files.expected)
    program = folder / "program.py"
    program.write_text(PROGRAM)
    arguments = [files.model, files.images, folder / "expected.npy", folder, warm, count]
    done = subprocess.run(
        [sys.executable, program, what, *map(str, arguments)],
        capture_output=True, text=True, timeout=3000, env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout.splitlines()[-1])
    for name in ("threads", "files", "connections", "children", "python"):
        assert after[name] <= before[name] + 2, (name, before, after)
    assert after["bytes"] - before["bytes"] < 2**24 + count * MAX_BYTES_PER_CALL[what], (
        before, after,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "warm", "count"),
    [("infer", 4, 12), pytest.param("threads", 2, 3, marks=pytest.mark.long)],
)
def test_a_few_calls_leave_nothing_behind(
    files: Files, tmp_path: Path, what: str, warm: int, count: int
) -> None:
    check(files, tmp_path, what, warm, count)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("what", "warm", "count"),
    [("infer", 20, 200), ("client", 20, 200), ("threads", 10, 50), ("processes", 5, 50)],
)
def test_hundreds_of_calls_leave_nothing_behind(
    files: Files, tmp_path: Path, what: str, warm: int, count: int
) -> None:
    check(files, tmp_path, what, warm, count)
