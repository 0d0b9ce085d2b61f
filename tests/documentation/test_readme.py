"""The commands of the README, in their order, in one empty folder, with its Python after them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import dask.config
import distributed  # noqa: F401 - it adds its part of Dask's configuration
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from support.jobs import fcdcc

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PICTURES = 12

NETWORK = """
import torch


def network():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    preparation = {"size": [32, 32], "fit": "crop", "mean": [0.5] * 3, "std": [0.2] * 3}
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8, 3))
    return module, {"preparation": preparation, "class_names": ["cat", "dog", "bird"]}
"""
"""Takes the place of torchvision's ResNet-50, which needs torchvision and its weights."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def names_of(job: str) -> list[str]:
    """Return the arguments of the job's run."""
    (line,) = [line for line in job.splitlines() if line.startswith("fcdcc run")]
    return shlex.split(line)[2:]


@pytest.mark.cluster
def test_the_job_of_the_readme_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "readme_network.py").write_text(NETWORK)
    for folder in ("dull", "bright"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(PICTURES):
        pixels = draw.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(
            tmp_path / "photos" / ("dull", "bright")[number % 2] / f"{number:02}.jpg"
        )
    (job,) = [block for block in blocks("sh") if "fcdcc export" in block]
    lines = job.splitlines()
    assert len(lines) == 4
    for line in lines:
        name, *arguments = shlex.split(
            line.replace("torchvision:resnet50", "readme_network:network")
        )
        assert name == "fcdcc"
        if arguments[0] == "run":
            arguments += ["--threads", "--workers", "2", "--dashboard-address", ":0"]
        result = fcdcc(*arguments)
        assert result.exit_code == 0, result.output
    assert "<html" in (tmp_path / "report.html").read_text()
    with xr.open_zarr("predictions.zarr") as stored:
        assert stored.sizes["n"] == PICTURES
        assert stored["class"].values.tolist() == ["cat", "dog", "bird"]
        best = stored["prediction"].values.argmax(1)
        assert stored["image_id"].values[0] == "bright/01.jpg"
        assert stored["label"].values.tolist() == [0] * (PICTURES // 2) + [1] * (PICTURES // 2)
    (reading,) = re.findall(r"`(xr\.open_zarr\(.*?)`", README)
    assert eval(reading, {"xr": xr}).values.argmax(1).tolist() == best.tolist()
    (own,) = re.findall(r"`fcdcc (export my_module.*?)`", README)
    exported = fcdcc(*shlex.split(own.replace("my_module:make_network", "readme_network:network")))
    assert exported.exit_code == 0, exported.output
    (line,) = re.findall(r"`run … (--print-config) > job.toml`", README)
    Path("job.toml").write_text(fcdcc("run", *names_of(job), line).stdout)
    printed = fcdcc("schedule", "job.toml", "--cron", "0 2 * * *", "--print", "cron")
    assert printed.exit_code == 0, printed.output
    capsys.readouterr()
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    plan, array, last = printed.partition("<xarray.DataArray")
    assert "3→8, 32×32" in plan
    assert array
    assert f"(n: {PICTURES})" in last
    assert re.search(r"array\(\[([0-9, \n]+)\]", last)[1].replace("\n", " ").split(", ") == [
        str(index) for index in best
    ]


def test_the_commands_are_there() -> None:
    (two,) = [block for block in blocks("sh") if "make demo" in block]
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[1] for line in two.splitlines()} <= {*targets}
    for option in ("images", "rounds", "stop"):
        assert f"--{option}" in (ROOT / "benchmarks" / "peers.py").read_text()


FAKE_PYTHON = """#!/bin/sh
case "$*" in
*"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*"-m pip "*) case "$*" in *"--quiet --quiet"*) ;; *) echo "WARNING: chatter" >&2 ;; esac ;;
esac
"""
"""Makes an environment without one, and warns as pip does."""


def test_make_says_in_a_line_that_it_makes_the_environment(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    command = ["make", "--no-print-directory", "env", f"PYTHON={python}"]
    first, second = (
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    (line,) = first.stdout.splitlines()
    assert "Making the environment in .venv" in line
    assert "GB" in line
    assert first.stderr == ""
    assert "Making" not in second.stdout


def test_plain_dask_waits_as_long_as_the_readme_says() -> None:
    assert "by itself it waits for five minutes" in " ".join(README.split())
    assert dask.config.get("distributed.scheduler.worker-ttl") == "5 minutes"


def test_it_is_two_screens() -> None:
    assert len(README.splitlines()) <= 110
