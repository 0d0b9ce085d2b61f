"""The list of commands, and what commands import: what only reads an output answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fcdcc.pipeline.cli import main
from support.jobs import fcdcc
from support.small import Files

TORCH = {"torch"}
ENGINES = {"torch", "dask", "distributed", "zarr", "fsspec", "pydantic", "sympy", "pandas"}
EVERYTHING = {*ENGINES, "numpy", "rich", "jinja2", "asyncio"}


def imports_of(*command: object) -> set[str]:
    """Return the modules that a command imports in a process of its own, which must succeed."""
    return said_and_imported(0, *command)[1]


def said_and_imported(code: int, *command: object) -> tuple[str, set[str]]:
    """Return what a command says on standard error and the modules that it imports.

    It runs in a process of its own, which must end with this exit code.
    """
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fcdcc.pipeline", *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr[-2000:]
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines if line not in said}
    return "\n".join(said), imported


@pytest.fixture(scope="module")
def output(files: Files, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a job that has run."""
    made = tmp_path_factory.mktemp("output") / "out.zarr"
    done = fcdcc("run", files.model, files.images, made, "--scheduler", scheduler, "--limit", 4)
    assert done.exit_code == 0, done.output
    return made


@pytest.mark.parametrize("command", [["--help"], ["--version"]], ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    assert not imports_of(*command) & EVERYTHING


def test_help_of_a_command_does_not_import_torch() -> None:
    assert not imports_of("run", "--help") & TORCH


@pytest.mark.parametrize("command", ["status", "verify --compare off", "report"])
def test_what_reads_an_output_imports_neither_torch_nor_dask(command: str, output: Path) -> None:
    assert not imports_of(*command.split(), output) & ENGINES


def test_what_compares_an_output_with_its_images_imports_what_opens_these(output: Path) -> None:
    assert not imports_of("verify", output) & ENGINES - {"zarr", "fsspec"}


def test_a_plan_does_not_need_the_compiler_of_torch(files: Files) -> None:
    found = imports_of("plan", files.model, files.images)
    assert "torch" in found
    assert not {name for name in found if name.startswith(("torch._dynamo", "torch._inductor"))}


def test_help_lists_every_command_and_all_can_be_loaded() -> None:
    listed = CliRunner().invoke(main, ["--help"]).stdout
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert isinstance(command, click.Command)
        assert command.name == name
        assert f"\n  {name} " in listed


def test_an_unknown_command_is_one_clear_line_and_code_2() -> None:
    result = fcdcc("rum")
    assert result.exit_code == 2
    assert "rum" in result.stderr
    assert "Traceback" not in result.output


def test_a_wrong_file_is_found_before_anything_slow(files: Files, tmp_path: Path) -> None:
    """Importing PyTorch takes seconds, in which a wrong name should be known."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "cat.jpg").write_bytes(b"\xff\xd8")
    said, imported = said_and_imported(2, "run", files.model, pictures, tmp_path / "out.zarr")
    assert "fcdcc ingest FOLDER OUT.zarr" in said
    assert not imported & {"torch", "distributed"}
    for command, message in (
        (["plan", files.images, files.model], "it is a folder; expected a file written by"),
        (["run", files.model, tmp_path / "none.zarr", "out"], "none.zarr cannot be opened as a"),
        (["plan", tmp_path / "none.pt2", files.images], "none.pt2: no such file; expected"),
        (
            ["run", files.model, files.images, "out", "--classes", tmp_path / "names.txt"],
            "names.txt: there is no such file",
        ),
    ):
        result = fcdcc(*command)
        assert result.exit_code == 2
        assert message in result.stderr
