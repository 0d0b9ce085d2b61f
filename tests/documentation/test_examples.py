"""Every Python example in the documentation runs, page by page; for the README: test_readme.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
