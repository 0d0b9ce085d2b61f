"""Exported model files: what is in them, and that they compute what the live network computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError, OptionError
from fcdcc.pipeline.model.description import ModelPreparation
from fcdcc.pipeline.model.export.live_network import LiveNetwork
from fcdcc.pipeline.model.export.model_file import Exported, write_model_file
from fcdcc.pipeline.model.interpreter import run_network, run_outputs
from fcdcc.storage.errors import OutputError

SHAPE = (3, 12, 12)


def layers(classes: int = 4) -> nn.Sequential:
    """Return a network that behaves otherwise in training, in training mode."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    )
    return made.train()


class Several(nn.Module):
    """A network with two outputs, of which it names the main one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.layers(images)
        return {"features": 2 * logits, "logits": logits}


class Named(nn.Module):
    """A network whose one output has a name, as those of transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.layers(images)}


class Noisy(nn.Module):
    """A network that is random in evaluation mode as well."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images)


class Alone(nn.Module):
    """A network that writes the number of its images into its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.layers(images).reshape(len(images) * 4).reshape(2, 4)
        return made


def exported(module: nn.Module, folder: Path, **options: Any) -> Exported:
    live = LiveNetwork("nets:net", module, SHAPE)
    if "class_names" in options:
        live = live.with_options(ModelPreparation(), options.pop("class_names"), None)
    return write_model_file(live, folder / "model.pt2", **options)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_computes_what_the_network_computes_in_evaluation_mode(tmp_path: Path) -> None:
    module = layers()
    found = exported(module, tmp_path, class_names=tuple("abcd"))
    assert found.input_shape == (None, *SHAPE)
    assert found.output_shape == (4,)
    assert found.comparison.error < 1e-5
    assert found.comparison.same_top
    model = open_model(tmp_path / "model.pt2")
    images = torch.rand(7, *SHAPE)
    with torch.no_grad():
        expected = module.eval()(images)
    torch.testing.assert_close(run_network(model.network, images), expected, rtol=1e-5, atol=1e-5)
    assert model.description is not None
    assert model.description.class_names == tuple("abcd")
    assert model.description.network == "nets:net"
    assert model.description.versions["torch"].startswith("2.")
    assert files(tmp_path) == ["model.pt2"]


@pytest.mark.long
def test_all_outputs_are_exported_and_compared_or_those_that_are_chosen(tmp_path: Path) -> None:
    module = Several()
    found = exported(module, tmp_path)
    assert found.output_shapes.keys() == {"features", "logits"}
    assert found.output_shape == found.output_shapes["logits"]
    images = torch.rand(3, *SHAPE)
    with torch.no_grad():
        expected = module.eval()(images)
    made = run_outputs(found.model.network, images)
    for name in ("features", "logits"):
        torch.testing.assert_close(made[name], expected[name], rtol=1e-5, atol=1e-5)
    other = exported(module, tmp_path, outputs=["features"])
    assert any("features is exported, without logits" in note for note in other.notes)
    assert other.output_shape == (4,)
    one = run_network(other.model.network, images)
    torch.testing.assert_close(one, expected["features"], rtol=1e-5, atol=1e-5)
    with pytest.raises(OptionError, match="expected one of features, logits"):
        exported(module, tmp_path, outputs=["boxes"])


def test_a_dictionary_of_one_output_is_that_output(tmp_path: Path) -> None:
    found = exported(Named(), tmp_path, class_names=tuple("abcd"))
    assert found.output_shape == (4,)
    assert list(found.model.network.outputs) == list(found.output_shapes)


def test_what_does_not_agree_is_not_written_and_an_earlier_file_stays(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"earlier")
    with pytest.raises(ModelError, match="not written") as refused:
        exported(Noisy(), tmp_path)
    assert ".model" not in str(refused.value)
    assert (tmp_path / "model.pt2").read_bytes() == b"earlier"
    assert files(tmp_path) == ["model.pt2"]


@pytest.mark.long
def test_sizes_are_free_where_that_is_asked_for(tmp_path: Path) -> None:
    module = layers()
    found = exported(module, tmp_path, free_size=True)
    assert found.input_shape == (None, 3, None, None)
    images = torch.rand(2, 3, 17, 29)
    with torch.no_grad():
        expected = module.eval()(images)
    made = run_network(found.model.network, images)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_sizes_that_must_be_multiples_are_said(tmp_path: Path) -> None:
    class Unet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(3, 3, 2, 2), nn.ConvTranspose2d(3, 3, 2, 2)

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = images + self.up(torch.relu(self.down(images)))
            return made

    found = exported(Unet(), tmp_path, free_size=True)
    assert found.steps == 2
    assert run_network(found.model.network, torch.rand(1, 3, 10, 14)).shape == (1, 3, 10, 14)


@pytest.mark.long
def test_a_batch_that_cannot_be_free_is_fixed_and_said(tmp_path: Path) -> None:
    found = exported(Alone(), tmp_path)
    assert found.input_shape == (2, *SHAPE)
    assert any("batch is fixed at 2" in note for note in found.notes)


@pytest.mark.long
def test_other_precisions_are_exported_as_float32(tmp_path: Path) -> None:
    found = exported(layers().to(torch.bfloat16), tmp_path)
    assert found.model.network.input_dtype == torch.float32
    assert any("bfloat16" in note for note in found.notes)


def test_names_of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="3 names of classes"):
        exported(layers(), tmp_path, class_names=tuple("abc"))
    assert files(tmp_path) == []


def test_a_network_that_does_not_take_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be run on images"):
        exported(layers(), tmp_path, input_shape=(5, 8, 8))
    with pytest.raises(OptionError, match="--input-shape"):
        write_model_file(LiveNetwork("nets:net", layers()), tmp_path / "model.pt2")
    with pytest.raises(OutputError, match="existing folder"):
        write_model_file(LiveNetwork("a:b", layers(), SHAPE), tmp_path / "none" / "model.pt2")
    assert files(tmp_path) == []
