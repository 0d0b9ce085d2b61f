"""The same against a server that speaks S3."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import numpy as np
import pytest
import s3fs
import xarray as xr

from fcdcc.storage import (
    Coordinate,
    InputError,
    LockedError,
    OutputError,
    UnreachableError,
    hold,
    inspect_output,
    open_images,
    resize_predictions,
    set_aside,
    verify,
)
from support.s3 import S3_WARNINGS, s3_bucket, s3_server
from support.stored import answers, fill, make_output, write_images

pytestmark = S3_WARNINGS


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(endpoint: str) -> Iterator[str]:
    with s3_bucket(endpoint) as url:
        yield url


def test_images_are_read(bucket: str) -> None:
    values = write_images(f"{bucket}/data.zarr", (10, 8, 6, 3), path="image", chunks=(4, 8, 6, 3))
    ids = write_images(f"{bucket}/data.zarr", (10,), "int64", path="image_id")
    source = open_images(f"{bucket}/data.zarr", expect=(None, 3, 8, 6))
    assert np.array_equal(source.read(2, 9), values[2:9].transpose(0, 3, 1, 2))
    read = source.read_ids(0, 10)
    assert read is not None
    assert np.array_equal(read, ids)


def test_an_output_is_written_continued_checked_and_put_aside(bucket: str) -> None:
    url = f"{bucket}/out"
    with hold(url):
        with pytest.raises(LockedError), hold(url):
            raise AssertionError
        store = make_output(url, coordinates=[Coordinate("id", "n", np.arange(10))])
        assert fill(store) == [0, 1, 2]
        store = resize_predictions(url, 15, [Coordinate("id", "n", np.arange(15))])
        assert fill(store) == [2, 3]
        assert store.compact(keep=0) == 4
        assert verify(url) == []
        with xr.open_zarr(url) as dataset:
            assert dataset["prediction"].to_numpy()[:, 0].tolist() == list(range(15))
        store.folder.write("prediction/c.1.0", b"damaged")
        assert [damage.block for damage in verify(url)] == [1]
        assert fill(store) == [1]
        moved = set_aside(url)
        assert inspect_output(url) is None
        assert verify(moved) == []


def test_of_two_writers_the_first_wins(bucket: str) -> None:
    store = make_output(f"{bucket}/out")
    assert store.folder.write("prediction/c.0.0", b"first", exclusive=True)
    assert not store.folder.write("prediction/c.0.0", b"second", exclusive=True)
    store.folder.delete(["prediction/c.0.0"])
    record = store.write(0, answers(store, 0))
    assert store.write(0, answers(store, 0) + 1) == record
    assert np.array_equal(store.read(0), answers(store, 0))


def test_an_endpoint_that_does_not_answer_is_out_of_reach(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match="Could not connect to the endpoint") as images:
        open_images(f"{bucket}/images.zarr")
    with pytest.raises(OutputError, match="Could not connect to the endpoint") as output:
        inspect_output(f"{bucket}/out")
    for caught in (images, output):
        assert isinstance(caught.value.__cause__, UnreachableError)


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(InputError, match="it does not exist") as absent:
        open_images(f"{bucket}-absent/x")
    assert not isinstance(absent.value.__cause__, UnreachableError)
    with pytest.raises(OutputError, match="cannot be"):
        make_output(f"{bucket}-absent/x")
