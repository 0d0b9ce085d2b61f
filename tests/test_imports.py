"""Modules of the pipeline: no circles of imports, type-only imports included; no name used twice.

At run time Python finds most circles itself. Those of imports under ``TYPE_CHECKING`` harm nothing
at run time, but two modules that need each other's types cannot be understood separately.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "pipeline"
PACKAGE = "fcdcc.pipeline"


def modules(source: Path, package: str) -> dict[str, Path]:
    """Return the files of all modules below a package, by name."""
    found = {}
    for path in sorted(source.joinpath(*package.split(".")).rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, anywhere in it; modules or what is in them."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def dependencies(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    needs: dict[str, set[str]] = {}
    for name, path in files.items():
        targets = imported(name, path)
        known = (t if t in files else t.rpartition(".")[0] for t in targets)
        needs[name] = {module for module in known if module in files and module != name}
    return needs


def circle(needs: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of a circle in the order of their imports, or nothing."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = modules(SOURCE, PACKAGE)
    assert len(files) > 50
    found = circle(dependencies(files))
    assert not found, "modules that import each other: " + " > ".join(found)


@pytest.mark.parametrize("statement", ["from .b import B", "from . import b", "import lib.b"])
def test_a_circle_of_imports_for_types_is_found(tmp_path: Path, statement: str) -> None:
    package = tmp_path / "lib"
    package.mkdir()
    (package / "__init__.py").touch()
    a = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {statement}\nclass A: ...\n"
    (package / "a.py").write_text(a)
    (package / "b.py").write_text("from .c import C\nclass B: ...\n")
    (package / "c.py").write_text("from .a import A\nclass C: ...\n")
    needs = dependencies(modules(tmp_path, "lib"))
    found = circle(needs)
    assert set(found) == {"lib.a", "lib.b", "lib.c"}
    assert found[0] == found[-1]
    assert all(target in needs[module] for module, target in pairwise(found))


def test_no_module_has_the_name_of_another() -> None:
    names = Counter(path.stem for path in modules(SOURCE, PACKAGE).values())
    assert {name for name, uses in names.items() if uses > 1} <= {"__init__", "errors"}


def test_no_public_class_has_the_name_of_another() -> None:
    names: Counter[str] = Counter()
    for path in modules(SOURCE, PACKAGE).values():
        tree = ast.parse(path.read_text("utf-8"))
        names.update(node.name for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, uses in names.items() if uses > 1 and not name.startswith("_")] == []
