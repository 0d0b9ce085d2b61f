"""Modules, files, commands and options that the documentation names are there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fcdcc.pipeline.cli import main
from fcdcc.pipeline.model.export.network_names import LOADERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
SOURCES = [ROOT / name / "fcdcc" / name for name in ("coding", "storage", "pipeline")]
PIPELINE = SOURCES[-1]

ROOMS = sorted(
    path.stem if path.suffix == ".py" else path.name
    for path in PIPELINE.iterdir()
    if not path.name.startswith("_") and (path.suffix == ".py" or path.is_dir())
)
CODE = re.compile(r"`([^`\n]+)`")
DOTTED = re.compile(rf"(?:fcdcc|coding|storage|{'|'.join(ROOMS)})(?:\.\w+)+")
WITH_ROOMS = ("CONTRIBUTING.md", "docs/architecture.md", "docs/glossary.md")
"""Pages on which names begin in a layer or a room, not only in ``fcdcc``."""

FILE = re.compile(r"(?:[\w.-]+/)*[\w.-]+\.(?:py|toml|md|sh|html|css|svg|png|jsonl?)|(?:[\w.-]+/)+")
PLACES = (ROOT, PIPELINE, *(source.parent for source in SOURCES))
NOT_NAMES = tuple(  # of Dask's configuration
    f"fcdcc.{start}" for start in ("anyk.", "stall-", "scheduler-", "worker-", "calibration-")
)


def names_in(page: Path) -> Iterator[str]:
    """Yield what stands in code font on a page, fenced blocks left out."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    yield from dict.fromkeys(CODE.findall(text))


def find(name: str) -> object:
    """Return the module, or what is in a module, that a dotted name means."""
    parts = name.split(".")
    if parts[0] != "fcdcc":
        parts = ["fcdcc", *([] if parts[0] in ("coding", "storage") else ["pipeline"]), *parts]
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            fields = getattr(found, "__dataclass_fields__", {})
            found = fields[part] if part in fields else getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_what_is_in_them_exist(page: Path) -> None:
    wrong = []
    rooms = page.relative_to(ROOT).as_posix() in WITH_ROOMS
    for name in names_in(page):
        bare = name.removesuffix("()")
        if not rooms and not bare.startswith("fcdcc."):
            continue
        if DOTTED.fullmatch(bare) and not FILE.fullmatch(bare) and not name.startswith(NOT_NAMES):
            try:
                find(bare)
            except (AttributeError, ModuleNotFoundError, KeyError):
                wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("page", WITH_ROOMS)
def test_files_and_folders_exist(page: str) -> None:
    wrong = []
    for name in names_in(ROOT / page):
        file = name.split("::")[0]
        if FILE.fullmatch(file) and not any((place / file).exists() for place in PLACES):
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_and_tests_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for file in re.findall(r"\b(?:benchmarks|tests|tools|examples)/[\w/]+\.py\b", text):
        assert (ROOT / file).is_file(), file


def test_extras_that_are_named_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = {*project["optional-dependencies"]}
    assert known >= {*LOADERS}
    for file in [*PAGES, *(path for source in SOURCES for path in source.rglob("*.py"))]:
        for extra in re.findall(r"fcdcc\[([\w,-]+)\]", file.read_text("utf-8")):
            assert known >= {*extra.split(",")}, (file, extra)


def commands() -> list[tuple[str, str]]:
    """Return the commands that call a benchmark or ``fcdcc``, each with its page."""
    found = []
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ")
        for line in re.findall(r"(?:python benchmarks/|\bfcdcc )[^`\n]*", text):
            command = re.split(r"  +#|\s#\s", line)[0].strip()
            found.append((page.name, command.replace("[", "").replace("]", "")))
    return found


OPTION = re.compile(r"--[a-z][\w-]*")


@pytest.mark.parametrize(("page", "command"), [c for c in commands() if c[1].startswith("python ")])
def test_options_of_benchmarks_exist(page: str, command: str) -> None:
    program = ROOT / command.split()[1].strip(",;)")
    source = program.read_text("utf-8")
    for option in OPTION.findall(command):
        assert option == "--help" or f'"{option}"' in source, (page, option)


@pytest.mark.parametrize(
    ("page", "command"), [c for c in commands() if not c[1].startswith("python ")]
)
def test_options_of_commands_exist(page: str, command: str) -> None:
    word = command.split()[1].strip("`.,;:)")
    assert isinstance(main, click.Group)
    described = main.get_command(click.Context(main), word)
    if described is None:
        return  # prose, such as "fcdcc and the table"
    known = {name for option in described.params for name in option.opts}
    known |= {name for option in described.params for name in option.secondary_opts}
    for option in OPTION.findall(command.split(" dask ")[0]):
        assert option in known, (page, option)


def test_the_picture_of_the_rooms_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "draw_rooms.py", "--check"], check=False
    )
    assert done.returncode == 0, "run python tools/draw_rooms.py"
