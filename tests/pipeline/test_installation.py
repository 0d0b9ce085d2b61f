"""The command ``fcdcc`` is named as it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcdcc.pipeline.installation import program_command, typed_program


def test_the_command_is_called_as_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv/bin"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program_command() == [str(folder / "python"), "-m", "fcdcc.pipeline"]
    assert typed_program() == f"{folder}/python -m fcdcc.pipeline"
    (tmp_path / "fcdcc").touch(0o755)
    assert typed_program() == "fcdcc"  # it is installed elsewhere, as pip install --user does
    (folder / "fcdcc").touch(0o755)
    assert typed_program() == ".venv/bin/fcdcc"
    assert program_command() == [str(folder / "fcdcc")]
    monkeypatch.setenv("PATH", str(folder))
    assert typed_program() == "fcdcc"
