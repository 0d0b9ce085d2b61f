from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from fcdcc.storage import (
    Coordinate,
    Damage,
    OutputArray,
    PredictionStore,
    damaged_blocks,
    find_foreign_files,
    resize_predictions,
    verify,
)
from support.stored import LOGITS, answers, fill, make_output

IDS = Coordinate("image_id", "n", np.arange(60))
NAMES = Coordinate("class", "class", np.array(["ant", "bee", "cat", "dog", "elk"]))


@pytest.fixture(params=["records apart", "records gathered", "half gathered"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> PredictionStore:
    """A complete output of 60 images in 15 blocks, with two arrays and labels."""
    store = make_output(
        str(tmp_path / "out"),
        images=60,
        arrays=[LOGITS, OutputArray("score", (), "float32", ())],
        coordinates=[IDS, NAMES],
        plan={"layers": list(range(30))},
    )
    for block in range(15):
        if block == 8 and request.param == "half gathered":
            store.compact(keep=0)
        store.write(
            block, {"prediction": answers(store, block), "score": answers(store, block)[:, 0]}
        )
    if request.param == "records gathered":
        store.compact(keep=0)
    return store


def stored_files(store: PredictionStore) -> list[Path]:
    return sorted(p for p in Path(store.url).rglob("*") if p.is_file() and p.stat().st_size)


def owner(store: PredictionStore, path: Path) -> int | None:
    """Return the block whose chunk a file is."""
    name = str(path.relative_to(store.url))
    return int(name.split(".")[1]) if name.startswith(("prediction/c", "score/c")) else None


def test_an_untouched_output_has_no_damage(output: PredictionStore) -> None:
    assert verify(output.url) == []


def test_every_flipped_bit_anywhere_is_found_and_mended(output: PredictionStore) -> None:
    rng = random.Random(7)
    files = stored_files(output)
    for number in range(100):
        # Every file is hit several times, and long ones no more often than short ones.
        path = files[number % len(files)]
        original = path.read_bytes()
        data = bytearray(original)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        name = str(path.relative_to(output.url))
        found = verify(output.url)
        assert any(damage.path.split(":")[0] == name for damage in found), (name, found)
        if (block := owner(output, path)) is not None:
            assert found == [
                Damage(name, "changed", block, "its bytes are not the ones that were written")
            ]
        path.write_bytes(original)
    assert verify(output.url) == []


def test_every_truncation_is_found(output: PredictionStore) -> None:
    rng = random.Random(11)
    files = stored_files(output)
    for number in range(0, len(files), max(1, len(files) // 20)):
        path = files[number]
        original = path.read_bytes()
        for length in (0, rng.randrange(len(original)), len(original) - 1):
            path.write_bytes(original[:length])
            name = str(path.relative_to(output.url))
            assert any(
                damage.path.split(":")[0] == name or damage.kind == "unrecorded"
                for damage in verify(output.url)
            ), (name, length)
        path.write_bytes(original)
    assert verify(output.url) == []


def repaired(store: PredictionStore) -> list[int]:
    """Do what a run does after a verification and return the blocks that were made again."""
    store.discard(damaged_blocks(verify(store.url)), "damaged")
    store = resize_predictions(store.url, 60, [IDS])
    progress = store.progress()
    store.clear(progress)
    for block in progress.pending:
        values = answers(store, block)
        store.write(block, {"prediction": values, "score": values[:, 0]})
    return progress.pending


def test_exactly_the_damaged_blocks_are_made_again(output: PredictionStore) -> None:
    rng = random.Random(13)
    files = stored_files(output)
    before = {path: path.read_bytes() for path in files if owner(output, path) is not None}
    hit = set()
    for path in rng.sample(sorted(before), 6):
        data = bytearray(before[path])
        data[rng.randrange(len(data))] ^= 32
        path.write_bytes(data)
        hit.add(owner(output, path))
    assert repaired(output) == sorted(block for block in hit if block is not None)
    assert verify(output.url) == []
    assert {path: path.read_bytes() for path in before} == before


def test_everything_at_once_is_mended(output: PredictionStore) -> None:
    rng = random.Random(17)
    for path in stored_files(output):
        # Of the two copies of a file one must be left.
        if rng.random() < 0.5 and "copy" not in path.name:
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 2
            path.write_bytes(data)
    repaired(output)
    assert verify(output.url) == []


def test_each_kind_of_damage_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    store = make_output(str(out), images=20)
    fill(store)
    (out / "prediction/c.0.0").unlink()
    data = (out / "prediction/c.1.0").read_bytes()
    (out / "prediction/c.1.0").write_bytes(data[:-3])
    (out / ".fcdcc/blocks/00000002.json").unlink()
    (out / ".fcdcc/blocks/00000003.json").write_bytes(b"{}\n")
    (out / "prediction/c.4.0").write_bytes(b"x" * len(data))
    found = {(damage.path, damage.kind, damage.block) for damage in verify(out)}
    assert (
        found
        == {
            ("prediction/c.0.0", "missing", 0),
            ("prediction/c.1.0", "truncated", 1),
            ("prediction/c.2.0", "unrecorded", 2),
            (".fcdcc/blocks/00000003.json", "record", 3),
            ("prediction/c.3.0", "unrecorded", 3),
            ("prediction/c.4.0", "truncated" if len(data) != 27 else "changed", 4),
        }
        or ("prediction/c.4.0", "changed", 4) in found
    )
    assert damaged_blocks(verify(out)) == [0, 1, 2, 3, 4]
    text = "\n".join(map(str, verify(out)))
    assert "prediction/c.0.0 (block 0): the file is missing" in text
    assert "data without a record" in text


def test_blocks_that_have_not_been_made_are_no_damage(place: str) -> None:
    store = make_output(f"{place}/out")
    assert verify(f"{place}/out") == []
    store.write(1, answers(store, 1))
    store.record_failure(2, "bad data")
    assert verify(f"{place}/out") == []
    resize_predictions(f"{place}/out", 50)
    assert verify(f"{place}/out") == []


def test_a_record_that_does_not_belong_is_named(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"))
    stranger = type(store)(store.url, store.arrays, store.layout, "0" * 32, store.output)
    stranger.write(0, answers(store, 0))
    further = resize_predictions(tmp_path / "out", 30)
    make_output(str(tmp_path / "short"))
    further.write(5, answers(further, 5))
    record = (tmp_path / "out/.fcdcc/blocks/00000005.json").read_bytes()
    (tmp_path / "short/.fcdcc/blocks").mkdir()
    (tmp_path / "short/.fcdcc/blocks/00000005.json").write_bytes(record)
    assert [(d.kind, d.block) for d in verify(tmp_path / "out")] == [("record", 0)]
    kinds = {damage.detail for damage in verify(tmp_path / "short")}
    assert any("the last is 2" in detail for detail in kinds)


def test_an_output_without_its_mark_is_mended(tmp_path: Path) -> None:
    store = make_output(str(tmp_path / "out"))
    mark = next((tmp_path / "out/.fcdcc").glob("output-*"))
    mark.unlink()
    assert [damage.kind for damage in verify(tmp_path / "out")] == ["missing"]
    resize_predictions(tmp_path / "out", 10)
    fill(store)
    assert verify(tmp_path / "out") == []


FOREIGN = [
    ".DS_Store", "._c.0.0", "._00000001.json", ".nfs0000000001a2b3c400000001", "Thumbs.db",
    "desktop.ini", ".fuse_hidden0000001",
]  # fmt: skip


def folders_of(root: Path) -> list[Path]:
    return [root, *(path for path in root.rglob("*") if path.is_dir() and path.name != "tmp")]


def add_foreign_files(root: Path) -> list[str]:
    """Put files of other programs into every folder of an output, and return their names."""
    made = []
    for folder in folders_of(root):
        for name in FOREIGN:
            (folder / name).write_bytes(b"x" * 40)
            made.append(str((folder / name).relative_to(root)))
    return sorted(made)


def test_files_of_other_programs_are_no_damage(output: PredictionStore) -> None:
    assert find_foreign_files(output.url) == []
    made = add_foreign_files(Path(output.url))
    (Path(output.url) / "notes").mkdir()
    (Path(output.url) / "prediction" / "c.0.0.bak").write_bytes(b"x")
    assert verify(output.url) == []
    assert find_foreign_files(output.url) == sorted([*made, "notes", "prediction/c.0.0.bak"])
    # A run that continues and repairs the output leaves them alone.
    assert repaired(output) == []
    output.compact(keep=0)
    assert verify(output.url) == []
    assert find_foreign_files(output.url) == sorted([*made, "notes", "prediction/c.0.0.bak"])


def test_damage_among_files_of_other_programs_is_found(output: PredictionStore) -> None:
    root = Path(output.url)
    add_foreign_files(root)
    (root / "prediction/c.3.0").write_bytes(b"x")
    for name in ("contents.json", "contents.copy.json"):
        (root / ".fcdcc" / name).write_bytes(b"x")
    found = verify(output.url)
    assert ("prediction/c.3.0", 3) in {(damage.path, damage.block) for damage in found}
    assert not any(damage.path.rpartition("/")[2] in FOREIGN for damage in found)


def test_a_folder_with_files_of_other_programs_only_is_empty(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in FOREIGN:
        (out / name).write_bytes(b"x")
    fill(make_output(str(out)))
    assert verify(out) == []
