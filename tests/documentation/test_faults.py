"""The tests that ``docs/faults.md`` names are there, and ``make chaos`` runs them."""

from __future__ import annotations

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
