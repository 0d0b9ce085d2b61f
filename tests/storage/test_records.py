from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcdcc.storage import BlockRecord, DamageError, PredictionStore
from fcdcc.storage.checksummed_json import seal
from fcdcc.storage.records import RECORDS, Chunk, compact, read_records
from support.stored import answers, fill, make_output

RECORD = BlockRecord(
    3, 12, 16, "done", "f" * 32, {"prediction/c.3.0": Chunk(9, "a" * 64)},
    warnings=("values that are no numbers in image 13",), details={"seconds": 0.25, "decodes": 2},
)  # fmt: skip


def names(store: PredictionStore) -> list[str]:
    return sorted(name.rpartition("/")[2] for name in store.folder.sizes(RECORDS))


def test_a_record_is_plain_json_and_comes_back() -> None:
    data = RECORD.to_bytes()
    assert BlockRecord.from_bytes(data) == RECORD
    members = json.loads(data)
    assert members["chunks"] == {"prediction/c.3.0": [9, "a" * 64]}
    assert members["schema"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"state": "perhaps"},
        {"block": "3"},
        {"chunks": []},
        {"chunks": {"a": 3}},
        {"details": None},
    ],
)
def test_a_sealed_object_that_is_no_record_is_damage(change: dict[str, object]) -> None:
    members = json.loads(RECORD.to_bytes()) | change
    del members["check"]
    with pytest.raises(DamageError, match="not a record that this version can read"):
        BlockRecord.from_bytes(seal(members))
    with pytest.raises(DamageError):
        BlockRecord.from_bytes(seal({"a": 1}))


def test_gathered_records_say_the_same_in_few_files(place: str) -> None:
    store = make_output(f"{place}/out", images=40)
    for block in range(6):
        store.write(block, answers(store, block))
    assert store.compact() == 0
    assert store.compact(keep=5) == 6
    assert names(store) == ["segment-000001.jsonl"]
    assert store.progress().pending == [6, 7, 8, 9]
    fill(store)
    assert store.compact(keep=0) == 4
    assert names(store) == ["segment-000001.jsonl", "segment-000002.jsonl"]
    assert store.progress().complete
    assert store.compact(keep=0) == 0


def test_failures_are_not_gathered(place: str) -> None:
    store = make_output(f"{place}/out")
    store.write(0, answers(store, 0))
    store.record_failure(1, "bad data")
    assert store.compact(keep=0) == 1
    assert names(store) == ["00000001.json", "segment-000001.jsonl"]
    assert store.progress().failed == {1: "bad data"}


def test_many_segments_become_one(place: str) -> None:
    store = make_output(f"{place}/out", images=140)
    for block in range(35):
        store.write(block, answers(store, block))
        store.compact(keep=0)
    assert len(names(store)) < 35
    assert store.progress().complete
    assert len(list(read_records(store.folder))) == 35


def test_gathering_that_dies_before_it_removes_anything_repeats_records(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_output(f"{place}/out")
    fill(store)
    folder = store.folder

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        compact(folder, keep=0)
    assert len(names(store)) == 4
    assert store.progress().complete
    assert store.compact(keep=0) == 3
    assert store.progress().complete


def test_a_record_in_a_file_of_its_own_is_newer_than_one_in_a_segment(place: str) -> None:
    store = make_output(f"{place}/out")
    fill(store)
    store.compact(keep=0)
    store.discard([1], "damaged")
    assert store.progress().pending == [1]
    fill(store)
    store.compact(keep=0)
    assert store.progress().complete


def test_a_damaged_line_costs_its_own_block_only(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"), images=40)
    fill(store)
    store.compact(keep=0)
    path = tmp_path / "out" / RECORDS / "segment-000001.jsonl"
    data = bytearray(path.read_bytes())
    data[data.index(b'"block":4')] ^= 1
    path.write_bytes(data)
    progress = store.progress()
    assert progress.pending == [4]
    assert list(progress.unreadable) == [f"{RECORDS}/segment-000001.jsonl:5"]
    assert fill(store) == [4]
    assert not store.progress().unreadable


def test_a_record_under_the_name_of_another_block_does_not_count(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"))
    store.write(0, answers(store, 0))
    folder = tmp_path / "out" / RECORDS
    (folder / "00000000.json").rename(folder / "00000001.json")
    progress = store.progress()
    assert progress.pending == [0, 1, 2]
    assert list(progress.unreadable.values()) == ["it is the record of block 0"]
