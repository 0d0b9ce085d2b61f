"""Freed memory is kept for the next array, and weights are in memory as rarely as possible."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource
import numpy as np
{imports}

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
{keep}
np.ones(2**23)
print(first, faults())
"""


WAYS = {
    "function": (
        "from fcdcc.pipeline.worker.memory import keep_freed_memory",
        "assert keep_freed_memory()",
    ),
    "preload of users": (
        "from fcdcc.pipeline.worker_memory import dask_setup",
        "dask_setup(None)",
    ),
    "preload of local clusters": (
        "from fcdcc.pipeline.worker.preload import dask_setup",
        "dask_setup(None)",
    ),
}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
@pytest.mark.parametrize("way", WAYS)
def test_arrays_of_the_same_size_get_the_same_memory(way: str) -> None:
    imports, keep = WAYS[way]
    program = PROGRAM.format(imports=imports, keep=keep)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    before, after = map(int, ran.stdout.split())
    assert after < before / 10


WEIGHT_BYTES = 4 * 8192 * 4096

RUN_WITH_THREADS = """
import resource, sys
import numpy as np, torch, zarr
from torch import nn
from fcdcc.pipeline import JobConfig, run

class Net(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.wide = nn.Linear(8 * 32 * 32, wide, bias=False)
    def forward(self, x):
        return self.wide(torch.relu(self.last(torch.relu(self.first(x)))).flatten(1)).mean(1, True)

def write(name, wide):
    batch = ({0: torch.export.Dim("b")},)
    images = (torch.zeros(2, 3, 32, 32),)
    torch.export.save(torch.export.export(Net(wide).eval(), images, dynamic_shapes=batch), name)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def compute(name):
    summary = run(JobConfig(
        model=name, input="images.zarr", output=name + ".zarr", processes=False, n=6, workers=6,
        tolerate=2, batch=8, split="images", dashboard_address="127.0.0.1:0",
    ))
    assert summary.status == "complete"

if sys.argv[1] == "write":
    group = zarr.create_group("images.zarr")
    pixels = np.zeros((20, 3, 32, 32), np.uint8)
    group.create_array("image", data=pixels, chunks=(4, 3, 32, 32), dimension_names=list("ncyx"))
    write("small.pt2", 8)
    write("large.pt2", 4096)
else:
    compute("small.pt2")
    before = peak()
    compute("large.pt2")
    print(peak() - before)
"""


@pytest.mark.cluster
@pytest.mark.long
def test_six_workers_in_one_process_have_the_weights_at_most_twice(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RUN_WITH_THREADS)
    said = [
        subprocess.run(
            [sys.executable, program, what], cwd=tmp_path, capture_output=True, text=True
        )
        for what in ("write", "run")
    ]
    assert [each.returncode for each in said] == [0, 0], said
    assert int(said[1].stdout) < 2.5 * WEIGHT_BYTES
