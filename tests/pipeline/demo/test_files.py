from __future__ import annotations

from pathlib import Path

import pytest

from fcdcc.pipeline.demo.files import DemoError, make_folder


def test_without_a_name_it_is_demo_or_the_next_that_is_free(tmp_path: Path):
    made = [make_folder(None, parent=tmp_path) for _ in range(3)]
    assert [path.name for path in made] == ["demo", "demo-2", "demo-3"]
    assert all(path.is_dir() for path in made)


def test_without_a_name_it_is_in_the_current_directory(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(None)
    assert (tmp_path / "demo").is_dir()


def test_a_named_folder_is_made_or_used_if_it_is_empty(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder) == folder
    assert folder.is_dir()


def test_what_is_there_is_never_touched(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(DemoError, match="not empty") as caught:
        make_folder(tmp_path / "mine")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    with pytest.raises(DemoError, match="is a file"):
        make_folder(tmp_path / "mine" / "thesis.tex")
    with pytest.raises(DemoError, match="cannot be made"):
        make_folder(tmp_path / "mine" / "thesis.tex" / "demo")
