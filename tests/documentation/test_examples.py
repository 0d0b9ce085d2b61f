"""Every Python example in the documentation runs, page by page; for the README: test_readme.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.small import make_files

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

EXAMPLES = {page: BLOCK.findall(page.read_text()) for page in PAGES if page.name != "README.md"}


@pytest.mark.parametrize(
    "page", [page for page, found in EXAMPLES.items() if found], ids=lambda page: page.name
)
def test_the_examples_of_a_page_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for example in EXAMPLES[page]:
        exec(compile(example, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_example_escapes(page: Path) -> None:
    fences = re.findall(r"^```(\S*)", page.read_text(), re.MULTILINE)
    opened = fences[::2]
    assert len(fences) % 2 == 0, "a code block is not closed"
    known = ("python", "text", "sh", "toml", "json", "{toctree}", "{eval-rst}", "{include}", "yaml")
    assert set(opened) <= set(known)


@pytest.mark.parametrize(
    "program", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_an_example_program_runs(program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "nobody waited" in done.stdout


@pytest.mark.cluster
def test_the_cells_of_the_notebook_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "examples").mkdir()
    files = make_files(tmp_path)
    shutil.move(files.model, tmp_path / "demo/lenet5.pt2")
    shutil.move(files.images, tmp_path / "demo/digits.zarr")
    monkeypatch.chdir(tmp_path / "examples")
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), "notebook.ipynb", "exec"), names)
    assert names["summary"].status == "complete"
    best = names["stored"]["prediction"].argmax("class").values
    assert (names["digits"].values == best[:100]).all()
    assert (best == files.expected.argmax(1)).all()
