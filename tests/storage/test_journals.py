"""What runs leave about themselves: whole, bounded, and no harm where it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcdcc.storage import OutputError, verify
from fcdcc.storage.files import LocalFolder
from fcdcc.storage.journals import (
    JOURNALS,
    MAX_JOURNALS,
    last_journal,
    read_journals,
    trim_journals,
    write_journal,
)
from support.stored import fill, make_output


def test_what_a_run_writes_is_read_again_and_takes_the_place_of_what_it_wrote(
    tmp_path: Path,
) -> None:
    folder = LocalFolder(str(tmp_path))
    write_journal(folder, "20260101T000000-a", {"blocks": 1})
    write_journal(folder, "20260102T000000-b", {"blocks": 2})
    write_journal(folder, "20260101T000000-a", {"blocks": 3})
    assert read_journals(tmp_path) == [{"blocks": 3}, {"blocks": 2}]
    assert last_journal(tmp_path) == {"blocks": 2}


def test_nothing_is_read_where_no_run_has_been(tmp_path: Path) -> None:
    assert read_journals(tmp_path) == []
    assert last_journal(tmp_path) is None


def test_a_damaged_file_is_left_out_and_named_by_a_verification(tmp_path: Path) -> None:
    url = str(tmp_path / "out.zarr")
    store = make_output(url)
    fill(store)
    write_journal(store.folder, "20260101T000000-a", {"blocks": 1})
    write_journal(store.folder, "20260102T000000-b", {"blocks": 2})
    path = tmp_path / "out.zarr" / JOURNALS / "20260102T000000-b.json"
    path.write_bytes(path.read_bytes()[:-9])
    assert read_journals(url) == [{"blocks": 1}]
    assert [damage.path for damage in verify(url)] == [f"{JOURNALS}/{path.name}"]


def test_the_files_of_the_oldest_runs_go(tmp_path: Path) -> None:
    folder = LocalFolder(str(tmp_path))
    for number in range(MAX_JOURNALS + 3):
        write_journal(folder, f"2026-{number:03}", {"number": number})
    trim_journals(folder)
    assert [found["number"] for found in read_journals(tmp_path)] == list(
        range(3, MAX_JOURNALS + 3)
    )


def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a name of a run"):
        write_journal(LocalFolder(str(tmp_path)), "../../run", {"blocks": 1})
