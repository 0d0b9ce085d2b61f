from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from fcdcc.storage import (
    DamageError,
    OutputArray,
    OutputError,
    open_predictions,
    resize_predictions,
    set_aside,
    verify,
)
from fcdcc.storage.objects import open_folder
from support.stored import FINGERPRINT, LOGITS, answers, fill, make_output


def test_what_is_written_is_read(place: str) -> None:
    store = make_output(f"{place}/out")
    assert store.progress().pending == [0, 1, 2]
    for block in (2, 0):
        record = store.write(block, answers(store, block), warnings=["odd"], details={"s": 1.5})
        assert (record.start, record.stop) == store.layout.bounds(block)
        assert (record.warnings, record.details) == (("odd",), {"s": 1.5})
        assert np.array_equal(store.read(block), answers(store, block))
    progress = store.progress()
    assert progress.done.tolist() == [True, False, True]
    assert (progress.pending, progress.complete) == ([1], False)
    with pytest.raises(DamageError, match="missing"):
        store.read(1)
    store.write(1, answers(store, 1))
    assert store.progress().complete


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_block_that_looks_empty_is_stored_all_the_same(place: str, value: float) -> None:
    store = make_output(f"{place}/out", images=4)
    store.write(0, np.full((4, 5), value, dtype=np.float32))
    assert np.array_equal(store.read(0), np.full((4, 5), value), equal_nan=True)
    assert store.progress().complete
    assert verify(f"{place}/out") == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 5), np.float32), "expected 4 images"),
        (np.zeros((4, 6), np.float32), r"\(4, 6\); expected up to 4 images of \(5,\)"),
        (np.zeros((4, 5), np.complex64), "complex64; array 'prediction' holds float32"),
        (np.float32(0), r"shape \(\); expected 4 images"),
        ({"other": np.zeros((4, 5), np.float32)}, r"\['other'\]; expected \['prediction'\]"),
    ],
)
def test_values_that_do_not_fit_are_refused_and_nothing_is_written(
    tmp_path: Path, values: Any, message: str
) -> None:
    store = make_output(str(tmp_path / "out"))
    with pytest.raises(OutputError, match=message):
        store.write(0, values)
    assert store.folder.sizes("prediction").keys() == {"prediction/zarr.json"}
    assert store.progress().pending == [0, 1, 2]


def test_blocks_and_arrays_that_are_not_there_are_named(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"))
    with pytest.raises(OutputError, match="blocks 0 to 2"):
        store.write(3, np.zeros((4, 5), np.float32))
    with pytest.raises(OutputError, match="'score'; expected one of prediction"):
        store.read(0, "score")


def test_details_without_a_place_in_json(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"))
    record = store.write(0, answers(store, 0), details={"condition": float("inf")})
    assert record.details == {"condition": "Infinity"}
    assert store.progress().done[0]
    with pytest.raises(OutputError, match="not JSON"):
        store.write(1, answers(store, 1), details={"worker": object()})  # type: ignore[dict-item] # that is the test
    assert not store.progress().done[1]


def test_a_store_travels_and_is_small(place: str) -> None:
    store = make_output(f"{place}/out", images=10**6, batch=4)
    data = pickle.dumps(store)
    assert len(data) < 1000
    there = pickle.loads(data)
    assert there == store
    there.write(7, answers(there, 7))
    assert store.progress().done.sum() == 1


def test_a_block_that_is_done_keeps_its_bytes(place: str) -> None:
    store = make_output(f"{place}/out")
    record = store.write(0, answers(store, 0))
    data = store.folder.read("prediction/c.0.0")
    assert store.write(0, answers(store, 0) + 1e-6) == record
    store.compact(keep=0)
    again = store.write(0, answers(store, 0) + 1e-6)
    assert again.chunks == record.chunks
    assert store.folder.read("prediction/c.0.0") == data
    assert verify(f"{place}/out") == []


def test_of_many_writers_of_a_block_one_wins(place: str) -> None:
    store = make_output(f"{place}/out", images=4)
    start = threading.Barrier(8)
    records = []

    def write(number: int) -> None:
        start.wait()
        records.append(store.write(0, answers(store, 0) + number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(record.chunks.items()) for record in records}) == 1
    assert store.read(0)[0, 0] in range(8)
    assert store.progress().complete
    assert verify(f"{place}/out") == []


def stopped_before_its_record(monkeypatch: pytest.MonkeyPatch, write: Callable[[], Any]) -> None:
    """Run a write that is killed after its chunks and before its record."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fcdcc.storage.prediction_store.write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            write()


def test_chunks_without_a_record_are_written_again(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_output(f"{place}/out")
    stopped_before_its_record(monkeypatch, lambda: store.write(1, answers(store, 1) + 9))
    assert store.progress().pending == [0, 1, 2]
    fill(store)
    assert np.array_equal(store.read(1), answers(store, 1))
    assert verify(f"{place}/out") == []


def test_a_writer_that_was_overtaken_changes_nothing(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_output(f"{place}/out")
    # The first writer is stopped between chunk and record; the second finds the chunk there.
    stopped_before_its_record(monkeypatch, lambda: store.write(1, answers(store, 1) + 9))
    record = store.write(1, answers(store, 1))
    assert np.array_equal(store.read(1), answers(store, 1) + 9)
    assert store.write(1, answers(store, 1) + 9) == record
    assert verify(f"{place}/out") == []


def test_a_ghost_that_knew_fewer_images_does_not_shorten_a_block(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost = make_output(f"{place}/out")
    store = resize_predictions(f"{place}/out", 12)
    stopped_before_its_record(monkeypatch, lambda: ghost.write(2, answers(ghost, 2)))
    store.write(2, answers(store, 2))
    assert np.array_equal(store.read(2), answers(store, 2))
    assert verify(f"{place}/out") == []


def test_a_ghost_that_ends_last_does_not_undo_a_grown_block(place: str) -> None:
    ghost = make_output(f"{place}/out")
    store = resize_predictions(f"{place}/out", 12)
    store.write(2, answers(store, 2))
    ghost.write(2, answers(ghost, 2))
    assert store.progress().done[2]
    assert np.array_equal(store.read(2), answers(store, 2))
    assert verify(f"{place}/out") == []


@pytest.mark.parametrize("dtype", ["int64", "uint16", "float64"])
def test_a_grown_block_is_replaced_whatever_its_type(place: str, dtype: str) -> None:
    arrays = [OutputArray("prediction", (), dtype, ())]
    store = make_output(f"{place}/out", arrays=arrays)
    store.write(2, np.zeros(2, dtype))
    store = resize_predictions(f"{place}/out", 12)
    store.write(2, np.ones(4, dtype))
    assert store.read(2).tolist() == [1, 1, 1, 1]


def test_a_chunk_that_vanished_or_was_cut_is_written_again(place: str) -> None:
    store = make_output(f"{place}/out")
    fill(store)
    data = store.folder.read("prediction/c.1.0")
    store.folder.delete(["prediction/c.0.0"])
    store.folder.write("prediction/c.1.0", data[:-1])
    assert store.progress().pending == [0, 1]
    assert fill(store) == [0, 1]
    assert store.folder.read("prediction/c.1.0") == data
    assert verify(f"{place}/out") == []


def test_a_failed_block_says_why_and_is_tried_again(place: str) -> None:
    store = make_output(f"{place}/out")
    store.record_failure(1, "image 5 is cut off", details={"image": 5})
    store.record_failure(1, "image 6 is cut off")
    progress = store.progress()
    assert progress.failed == {1: "image 6 is cut off"}
    assert progress.pending == [0, 1, 2]
    assert verify(f"{place}/out") == []
    fill(store)
    progress = store.progress()
    assert (progress.complete, dict(progress.failed)) == (True, {})


def test_a_failure_of_a_second_try_does_not_undo_a_block(place: str) -> None:
    store = make_output(f"{place}/out")
    store.write(1, answers(store, 1))
    store.record_failure(1, "the other worker was removed")
    assert store.progress().done[1]


def test_a_discarded_block_is_done_again_by_whatever_way_it_was_recorded(place: str) -> None:
    store = make_output(f"{place}/out")
    fill(store)
    store.discard([0], "damaged")
    store.compact(keep=0)
    store.discard([1], "damaged")
    progress = store.progress()
    assert progress.failed == {0: "damaged", 1: "damaged"}
    assert fill(store) == [0, 1]
    assert store.progress().complete


def test_records_of_another_fingerprint_do_not_count(place: str) -> None:
    store = make_output(f"{place}/out")
    fill(store)
    other = type(store)(store.url, store.arrays, store.layout, "0" * 32, store.output)
    assert other.progress().pending == [0, 1, 2]


def test_a_worker_of_a_run_that_was_put_aside_writes_nothing(place: str) -> None:
    ghost = make_output(f"{place}/out")
    set_aside(f"{place}/out")
    with pytest.raises(OutputError, match="no longer the output"):
        ghost.write(0, answers(ghost, 0))
    assert open_folder(ghost.url).entries() is None
    store = make_output(f"{place}/out")
    with pytest.raises(OutputError, match="no longer the output"):
        ghost.write(0, answers(ghost, 0))
    with pytest.raises(OutputError, match="no longer the output"):
        ghost.record_failure(0, "stopped")
    assert store.progress().pending == [0, 1, 2]
    assert verify(f"{place}/out") == []


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_full_disk_fails_the_block_in_words_and_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    arrays = [LOGITS, OutputArray("score", (), "float32", ())]
    store = make_output(str(tmp_path / "out"), arrays=arrays)
    values = {"prediction": answers(store, 0), "score": np.ones(4, np.float32)}
    store.write(0, values)
    flushed = 0

    def full(_: int) -> None:
        nonlocal flushed
        flushed += 1
        if flushed >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OutputError, match=r"block 1 .*No space left on device"):
            store.write(1, values)
        with pytest.raises(OutputError, match="failure of block 1"):
            store.record_failure(1, "the disk is full")
    assert store.progress().done.tolist() == [True, False, False]
    assert not list((tmp_path / "out/.fcdcc/tmp").iterdir())
    store.clear(store.progress())
    for block in (1, 2):
        count = len(answers(store, block))
        store.write(block, {name: part[:count] for name, part in values.items()})
    assert store.progress().complete
    assert verify(tmp_path / "out") == []


LIMITED = """
import resource, sys
import numpy as np
from fcdcc.storage import OutputError, open_predictions
store = open_predictions(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
values = np.random.default_rng(0).random((4, 100_000), dtype=np.float32)
try:
    store.write(1, values)
except OutputError as error:
    print(error)
"""


def test_a_quota_that_the_system_enforces(tmp_path: Path) -> None:
    assert resource.RLIMIT_FSIZE is not None
    arrays = [OutputArray("prediction", (100_000,), "float32", ("class",))]
    store = make_output(str(tmp_path / "out"), arrays=arrays)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "block 1" in done.stdout
    assert "File too large" in done.stdout
    assert store.progress().pending == [0, 1, 2]
    assert verify(tmp_path / "out") == []


def test_what_a_killed_writer_left_behind_is_removed_by_the_next_run(tmp_path: Path) -> None:
    make_output(str(tmp_path / "out"))
    left = tmp_path / "out/.fcdcc/tmp/0123.partial"
    left.write_bytes(b"half a chunk")
    resize_predictions(tmp_path / "out", 10)
    assert not left.exists()


def test_large_blocks_are_split_into_several_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcdcc.storage.layout.CHUNK_LIMIT", 4 * 2 * 6 * 4)
    arrays = [OutputArray("prediction", (5, 6), "float32", ("class", "x"))]
    store = make_output(str(tmp_path / "out"), arrays=arrays)
    values = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    record = store.write(0, values)
    assert sorted(record.chunks) == [f"prediction/c.0.{part}.0" for part in range(3)]
    assert np.array_equal(store.read(0), values)
    (tmp_path / "out/prediction/c.0.1.0").unlink()
    assert store.progress().pending == [0, 1, 2]
    store.clear(store.progress())
    assert store.write(0, values).chunks == record.chunks


class NoConditions(fsspec.get_filesystem_class("memory")):  # type: ignore[misc] # fsspec publishes no types
    """An object store that knows no conditional writes and whose driver has its own errors."""

    protocol = "plain"
    store: dict[str, Any] = {}  # noqa: RUF012 - as in the base class
    pseudo_dirs = [""]  # noqa: RUF012 - as in the base class
    broken = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        if mode == "create":
            raise NotImplementedError
        if self.broken:
            raise RuntimeError("AccessDenied for geheim")
        super().pipe_file(path, value, **options)


def test_a_store_without_conditional_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("plain", NoConditions, clobber=True)
    monkeypatch.setattr(NoConditions, "_strip_protocol", classmethod(_strip_plain))
    url = "plain://geheim@bucket/out"
    store = make_output(url)
    store.write(0, answers(store, 0))
    data = store.folder.read("prediction/c.0.0")
    store.discard([0], "for the test")
    store.write(0, answers(store, 0) + 1)
    assert store.folder.read("prediction/c.0.0") == data
    assert verify(url) == []
    monkeypatch.setattr(NoConditions, "broken", True)
    with pytest.raises(OutputError, match="AccessDenied") as caught:
        store.write(1, answers(store, 1))
    assert "geheim" not in str(caught.value) + repr(store)


def _strip_plain(_: type, path: str) -> str:
    return "/" + path.removeprefix("plain://").strip("/")


def test_the_fingerprint_is_in_every_record(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"))
    assert store.write(0, answers(store, 0)).fingerprint == FINGERPRINT.digest
    assert open_predictions(tmp_path / "out").fingerprint == FINGERPRINT.digest


WRITER = """
import sys
from support.stored import answers
from fcdcc.storage import open_predictions
store = open_predictions(sys.argv[1])
for block in store.progress().pending:
    store.write(block, answers(store, block))
    print(block, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_damages_nothing(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"), images=4000)
    before: dict[str, bytes] = {}
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "out")],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert writer.stdout is not None
        for _ in range(20):
            assert writer.stdout.readline()
        writer.kill()
        writer.communicate()
        progress = store.progress()
        assert not progress.unreadable
        # At most the block that was being written has data without a record.
        found = verify(tmp_path / "out")
        assert [damage.kind for damage in found] in ([], ["unrecorded"])
        now = {
            name: store.folder.read(name)
            for block in np.flatnonzero(progress.done)
            for name in LOGITS.chunk_names(int(block), 4)
        }
        assert len(now) >= len(before) + 20
        assert {name: now[name] for name in before} == before
        before = now
        store.clear(progress)
        assert verify(tmp_path / "out") == []
