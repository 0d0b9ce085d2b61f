"""Freed memory is kept, so that the kernel need not provide new pages for the next array."""

from __future__ import annotations

import platform
import subprocess
import sys

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
