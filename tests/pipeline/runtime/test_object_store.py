"""Whole jobs from object store to object store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from fcdcc.storage import hold
from support.jobs import fcdcc
from support.s3 import S3_WARNINGS, s3_bucket, s3_server
from support.small import IMAGES, make_files

BATCH = 4
BLOCKS = -(-IMAGES // BATCH)

pytestmark = [pytest.mark.cluster, *S3_WARNINGS]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as endpoint, s3_bucket(endpoint) as url:
        yield url


@pytest.mark.long
def test_a_job_from_bucket_to_bucket(bucket: str, scheduler: str, tmp_path: Path) -> None:
    files = make_files(tmp_path)
    images, output = f"{bucket}/images.zarr", f"{bucket}/out.zarr"
    store = fsspec.filesystem("s3")
    store.put(str(files.images), images, recursive=True)
    command = ["run", files.model, images, output, "--scheduler", scheduler, "--batch", BATCH]
    command += ["--n", 3, "--tolerate", 1, "--json", "-"]

    first = fcdcc(*command, "--limit", 22)
    assert first.exit_code == 0, first.output
    grown = json.loads(fcdcc(*command).stdout)
    assert (grown["status"], grown["blocks_skipped"]) == ("complete", 22 // BATCH)
    with xr.open_zarr(output) as made:
        np.testing.assert_allclose(made["prediction"], files.expected, atol=1e-5)
    assert fcdcc("status", output).exit_code == 0
    assert fcdcc("verify", output).exit_code == 0

    chunk = f"{output}/prediction/c.3.0"
    data = bytearray(store.cat_file(chunk))
    data[len(data) // 2] ^= 4
    store.pipe_file(chunk, bytes(data))
    found = fcdcc("verify", output, "--json")
    assert (found.exit_code, json.loads(found.stdout)["blocks"]) == (5, [3])
    mended = json.loads(fcdcc(*command).stdout)
    assert (mended["blocks_done"], mended["blocks_skipped"]) == (1, BLOCKS - 1)
    assert fcdcc("verify", output).exit_code == 0

    with hold(output):
        assert fcdcc(*command).exit_code == 3
