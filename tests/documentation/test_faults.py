"""The tests that ``docs/faults.md`` names are there, and ``make chaos`` runs them."""

from __future__ import annotations

import ast
import errno
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_row_names_tests_that_make_chaos_runs() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    listed = re.search(r"^FAULTS := (.*)$", makefile, re.MULTILINE)
    assert listed is not None
    run = listed[1].split()
    rows = (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines()
    table = [row for row in rows if row.startswith("| ")][1:]
    assert len(table) >= 20
    for row in table:
        found = NAMED.findall(row)
        assert found, row
        for file, name in found:
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), (file, name)
            assert any(file.startswith(place) for place in run), file


def messages() -> list[str]:
    """Return the texts in the sources, with "…" for what is filled in as they are used."""
    found = []
    for source in ("coding", "storage", "pipeline"):
        for path in (ROOT / source).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"%[-\d.]*[sdfr]", "…", node.value))
    return found


def test_messages_are_quoted_as_they_are() -> None:
    page = (ROOT / "docs" / "faults.md").read_text("utf-8")
    known = [*messages(), os.strerror(errno.ENOSPC)]
    quoted = re.findall(r'"([^"]+)"', page)
    assert len(quoted) >= 8
    for text in quoted:
        for piece in re.split(r"…|; |\d+(?: s)?", text):
            assert any(piece.strip() in message for message in known), piece
