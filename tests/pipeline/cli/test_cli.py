"""The command line: what is wrong is said in one line, with code 2, and nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner, Result

from fcdcc.pipeline.cli import main
from fcdcc.pipeline.model import open_model
from fcdcc.storage import hold
from support.small import SHAPE, Files


def fcdcc(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def group(path: Path, **arrays: tuple[int, ...]) -> Path:
    """Write a Zarr group with arrays of these shapes."""
    made = zarr.create_group(path)
    for name, shape in arrays.items():
        made.create_array(name, shape=shape, dtype="uint8", chunks=shape)
    return path


def no_model(files: Files, folder: Path) -> list[object]:
    return [folder / "nothing.pt2", files.images]


def no_archive(files: Files, folder: Path) -> list[object]:
    (folder / "words.pt2").write_text("not a model")
    return [folder / "words.pt2", files.images]


def pickled_model(files: Files, folder: Path) -> list[object]:
    torch.save(torch.nn.Conv2d(3, 8, 3), folder / "module.pt")
    return [folder / "module.pt", files.images]


def no_images(files: Files, folder: Path) -> list[object]:
    return [files.model, folder / "nothing.zarr"]


def several_arrays(files: Files, folder: Path) -> list[object]:
    return [files.model, group(folder / "in.zarr", left=(4, *SHAPE), right=(4, *SHAPE))]


def wrong_rank(files: Files, folder: Path) -> list[object]:
    return [files.model, group(folder / "in.zarr", image=(4, 16))]


def wrong_channels(files: Files, folder: Path) -> list[object]:
    return [files.model, group(folder / "in.zarr", image=(4, 5, 16, 16))]


def wrong_size(files: Files, folder: Path) -> list[object]:
    return [files.model, group(folder / "in.zarr", image=(4, 3, 12, 12))]


def nothing_left(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--n", 4, "--tolerate", 4]


def means_for_two_channels(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--mean", "0.5,0.5"]


def no_such_array(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--input-array", "picture"]


def no_such_code(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--code", "morse"]


def neither_number_nor_auto(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--tolerate", "some"]


def half_of_tls(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--tls-cert", "cert.pem"]


def too_many_losses(files: Files, folder: Path) -> list[object]:
    return [files.model, files.images, "--n", 28, "--tolerate", 16, "--code", "crme"]


BAD: dict[Callable[[Files, Path], list[object]], str] = {
    no_model: "nothing.pt2",
    no_archive: "torch.export.save",
    pickled_model: "torch.export.save",
    no_images: "nothing.zarr",
    several_arrays: "--input-array",
    wrong_rank: "(4, 16)",
    wrong_channels: "5",
    wrong_size: "12",
    nothing_left: "--tolerate 4",
    means_for_two_channels: "3",
    no_such_array: "picture",
    no_such_code: "morse",
    neither_number_nor_auto: "expected a whole number, or auto",
    half_of_tls: "--tls-key",
    too_many_losses: "condition number",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.__name__)
def test_bad_input_is_one_clear_line(
    bad: Callable[[Files, Path], list[object]], files: Files, tmp_path: Path
) -> None:
    first, second, *options = bad(files, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = fcdcc("run", first, second, tmp_path / "out.zarr", *options)
    assert result.exit_code == 2
    assert BAD[bad] in result.stderr
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) == 1 or "Usage:" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_something_else_is_left_alone(files: Files, tmp_path: Path) -> None:
    output = tmp_path / "letters"
    output.mkdir()
    (output / "letter.txt").write_text("dear")
    result = fcdcc("run", files.model, files.images, output)
    assert result.exit_code == 2
    assert "letter.txt" in result.stderr
    assert [path.name for path in output.iterdir()] == ["letter.txt"]


def test_no_scheduler_at_the_address(files: Files, tmp_path: Path) -> None:
    output = tmp_path / "out.zarr"
    result = fcdcc("run", files.model, files.images, output, "--scheduler", "nonsense://here")
    assert result.exit_code == 2
    assert "nonsense://here" in result.stderr
    assert not output.exists()


def test_a_held_lock_is_code_3(files: Files, tmp_path: Path) -> None:
    with hold(tmp_path / "out.zarr"):
        result = fcdcc("run", files.model, files.images, tmp_path / "out.zarr")
    assert result.exit_code == 3
    assert "process" in result.stderr


def test_a_model_without_a_convolution_runs_and_says_so(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (torch.zeros(2, 3, 2, 2),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "linear.pt2")
    pixels = np.arange(60, dtype=np.float32).reshape(5, 3, 2, 2)
    zarr.create_group(tmp_path / "in.zarr").create_array("image", data=pixels)
    result = fcdcc(
        "run", tmp_path / "linear.pt2", tmp_path / "in.zarr", tmp_path / "out.zarr",
        "--threads", "--workers", 1, "--dashboard-address", ":0", "--json", "-",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no convolution" in result.stderr
    assert json.loads(result.stdout)["status"] == "complete"
    made = zarr.open_group(tmp_path / "out.zarr", mode="r")["prediction"]
    assert isinstance(made, zarr.Array)
    with torch.inference_mode():
        np.testing.assert_allclose(made[:], module(torch.from_numpy(pixels)).numpy(), rtol=1e-6)


def test_every_name_of_the_command_is_the_same(files: Files) -> None:
    for command in (["-m", "fcdcc.pipeline"], ["-m", "dask", "fcdcc"]):
        shown = subprocess.run(
            [sys.executable, *command, "--version"], capture_output=True, text=True, check=True
        )
        assert shown.stdout.startswith("fcdcc, version")


def test_help_of_run_lists_every_option_with_its_default() -> None:
    shown = fcdcc("run", "--help").stdout
    for option in ("--n", "--tolerate", "--code", "--redundancy", "--batch", "--scheduler"):
        assert option in shown
    assert "[default: auto]" in shown


def test_main_is_a_click_group() -> None:
    assert isinstance(main, click.Group)  # what Dask's own command line asks for


def test_models_open(files: Files) -> None:
    assert open_model(files.model).network.input_shape == (None, *SHAPE)


def test_codes_are_compared(tmp_path: Path) -> None:
    result = fcdcc("codes", "--n", 6, "--delta", 4, "--json", "-", "--plot", tmp_path / "c.png")
    assert result.exit_code == 0, result.output
    rows = {row["label"]: row for row in json.loads(result.stdout)}
    systematic = rows["systematic"]
    assert systematic["conditions"]["worst"] <= 4.2
    assert systematic["conditions"]["method"] == "all"
    assert systematic["decoding_none_lost"] == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    table = fcdcc("codes", "--n", 3, "--delta", 2).stdout
    for name in ("systematic", "crme", "chebyshev", "uncoded"):
        assert name in table


def test_names_do_not_steer_the_terminal(tmp_path: Path) -> None:
    result = fcdcc("status", tmp_path / "\x1b[31mred\x07")
    assert result.exit_code == 2
    assert not {"\x1b", "\x07"} & {*result.stderr}
