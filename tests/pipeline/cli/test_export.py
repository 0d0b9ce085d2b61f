"""``fcdcc export``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fcdcc.pipeline.cli import main
from fcdcc.pipeline.model.opening import open_description, open_model

CODE = """
from torch import nn

def small():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return layers, {"preparation": {"size": [8, 8], "fit": "crop", "resize": 9, "mean": [0.5]}}

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        made = self.conv(x)
        return {"out": made, "heads": [made.mean((2, 3)), made.argmax(1)], "loss": made.mean()}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "nets_of_a_command.py").write_text(CODE)
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("nets_of_a_command", None)


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


NAME = "nets_of_a_command:small"


def test_options_win_over_what_the_network_says(folder: Path) -> None:
    options = ["--mean", "0.1,0.2,0.3", "--std", 0.5, "--white", 255, "--head", "logits"]
    done = export(NAME, "model.pt2", *options, "--classes", "classes.txt", "--fit", "stretch")
    assert done.exit_code == 0, done.output
    assert "images (any, 3, 8, 8), prediction (any, 4)" in done.output
    assert "compared with the live network on 3 images" in done.output
    found = open_description("model.pt2")
    assert found is not None
    assert found.preparation.mean == (0.1, 0.2, 0.3)
    assert found.preparation.std == (0.5,)
    assert found.preparation.value_range == (0, 255)
    assert (found.preparation.fit, found.preparation.resize) == ("stretch", None)
    assert found.class_names == ("a", "b", "c", "d")
    assert found.output == "logits"
    again = export(NAME, "model.pt2", "--json")
    assert again.stderr.splitlines() == [
        f"fcdcc: loading {NAME}",
        f"fcdcc: running {NAME} on 2 images of 3 × 8 × 8, and exporting it",
        "fcdcc: reading the file again, as fcdcc run does",
        "fcdcc: comparing it with the live network",
    ]
    told = json.loads(again.stdout)
    assert told["input_shape"] == [None, 3, 8, 8]
    assert told["compared"]["error"] < 1e-5
    assert told["description"]["preparation"]["mean"] == [0.5]


def test_several_outputs_are_exported_and_compared(folder: Path) -> None:
    done = export("nets_of_a_command:Several", "model.pt2", "--input-shape", "3,8,8")
    assert done.exit_code == 0, done.output
    assert "outputs out (any, 4, 6, 6), heads.0 (any, 4), heads.1 (any, 6, 6)" in done.output
    assert "without loss (--output)" in done.output
    assert list(open_model("model.pt2").network.outputs) == ["out", "heads.0", "heads.1"]
    chosen = ["--output", "heads.0", "--output", "out", "--json"]
    done = export("nets_of_a_command:Several", "model.pt2", "--input-shape", "3,8,8", *chosen)
    assert json.loads(done.stdout)["output_shapes"] == {"out": [4, 6, 6], "heads.0": [4]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nets_of_a_command:absent", "model.pt2"], "absent"),
        ([NAME, "none/model.pt2"], "existing folder"),
        ([NAME, "model.pt2", "--mean", "nan"], "--mean"),
        ([NAME, "model.pt2", "--std", "0"], "std"),
        ([NAME, "model.pt2", "--resize", "4"], "--resize"),
        ([NAME, "model.pt2", "--input-shape", "3,8"], "cannot be run on images"),
        ([NAME, "model.pt2", "--input-shape", "3,a,8"], "such as 3,224,224"),
        ([NAME, "model.pt2", "--classes", "nets_of_a_command.py"], "names"),
        ([NAME, "model.pt2", "--head", "label-map"], "--head label-map"),
        ([NAME, "model.pt2", "--random-weights"], "--random-weights"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    folder: Path, arguments: list[str], words: str
) -> None:
    done = export(*arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output
    assert not list(folder.glob("**/*.pt2"))
