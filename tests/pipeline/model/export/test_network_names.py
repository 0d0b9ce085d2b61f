"""NAMEs of networks: functions of one's own, and libraries, of which only a small part is here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.model.export.network_names import live_network

CODE = """
from torch import nn

layer = nn.Conv2d(1, 2, 3)

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 3))

def described():
    return Net(), {"preparation": {"size": [8, 8], "mean": [0.5]}, "class_names": ("a", "b"),
                   "input_shape": [3, 8, 8], "output": "logits"}

def wrong_member():
    return Net(), {"means": [0.5]}

def wrong_mean():
    return Net(), {"preparation": {"mean": ["0.5"]}}

def wrong_shape():
    return Net(), {"input_shape": "3,8,8"}

def number():
    return 3

def broken():
    raise RuntimeError("no such weights")
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "nets_of_a_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield "nets_of_a_test"
    sys.modules.pop("nets_of_a_test", None)


def test_functions_classes_and_modules_of_the_current_folder_are_found(own_module: str) -> None:
    before = list(sys.path)
    found = live_network(f"{own_module}:described")
    assert found.input_shape == (3, 8, 8)
    assert found.preparation.mean == (0.5,)
    assert found.class_names == ("a", "b")
    assert found.output == "logits"
    assert isinstance(live_network(f"{own_module}:Net").module, nn.Sequential)
    assert live_network(f"{own_module}:layer").module.in_channels == 1
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet50", "expected torchvision:NAME"),
        (":function", "expected torchvision:NAME"),
        ("nets_of_a_test:", "expected torchvision:NAME"),
        ("no_module_of_this_name:net", "no_module_of_this_name"),
        ("nets_of_a_test:absent", "absent"),
        ("nets_of_a_test:number", "gives int"),
        ("nets_of_a_test:broken", "no such weights"),
        ("nets_of_a_test:wrong_member", "gives means"),
        ("nets_of_a_test:wrong_mean", "preparation.mean"),
        ("nets_of_a_test:wrong_shape", "expected (C, *space)"),
    ],
)
def test_what_names_no_network_is_refused_in_one_line(
    own_module: str, name: str, words: str
) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        live_network(name)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_functions_give_their_own_weights(own_module: str) -> None:
    with pytest.raises(OptionError, match="--random-weights"):
        live_network(f"{own_module}:Net", random_weights=True)
    with pytest.raises(OptionError, match="--weights"):
        live_network(f"{own_module}:Net", weights="best")


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
def test_a_library_that_is_not_there_is_named(
    library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (library, f"{library}.models"):
        monkeypatch.setitem(sys.modules, module, None)
    name = str(tmp_path) if library == "transformers" else "net"
    with pytest.raises(OptionError, match=f"needs the package {library},") as refused:
        live_network(f"{library}:{name}")
    assert f"pip install 'fcdcc[{library}]'" in str(refused.value)


@pytest.mark.parametrize("library", ["torchvision", "timm", "transformers"])
@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError('operator torchvision::nms does not exist\\nin a schema')",
        "ImportError('cannot import name')",
        "OSError('undefined symbol')",
    ],
)
def test_a_library_for_another_pytorch_is_named_in_one_line(
    library: str, error: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / f"{library}.py").write_text(f"raise {error}")
    for module in (library, f"{library}.models"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    name = str(tmp_path) if library == "transformers" else "net"
    with pytest.raises(OptionError, match="probably does not match PyTorch") as refused:
        live_network(f"{library}:{name}")
    assert error[: error.index("(")] in str(refused.value)
    assert torch.__version__ in str(refused.value)
    assert "\n" not in str(refused.value)


class ImageClassification:
    """As in torchvision.transforms._presets."""

    crop_size, resize_size = [224], [232]
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    interpolation = SimpleNamespace(value="bicubic")


class VideoClassification(ImageClassification):
    crop_size, resize_size = [112, 112], [128, 171]


class SemanticSegmentation(ImageClassification):
    resize_size: ClassVar = [520]


class ObjectDetection:
    """Without any values."""


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    """Put in place of torchvision what is used of it."""

    class Weights(Enum):
        V1 = 1
        DEFAULT = V1

        def transforms(self) -> Any:
            return kind()

        @property
        def meta(self) -> dict[str, Any]:
            return {"categories": ["cat", "dog"]}

    def get_model(name: str, weights: Any = None) -> nn.Module:
        if weights is not None and name == "offline":
            raise OSError("the network is unreachable")
        return nn.Conv2d(3, 2, 3)

    models = ModuleType("torchvision.models")
    known = {"net": Weights, "offline": Weights, "untrained": ()}
    models.get_model_weights = known.__getitem__  # type: ignore[attr-defined]
    models.get_model = get_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def test_networks_of_torchvision_are_prepared_as_their_weights_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_torchvision(monkeypatch, ImageClassification)
    found = live_network("torchvision:net")
    assert found.input_shape == (3, 224, 224)
    assert found.class_names == ("cat", "dog")
    assert found.output == "logits"
    form = found.preparation.picture_form()
    assert (form.fit, form.resize, form.shape) == ("torchvision", 232, (224, 224, 3))
    assert form.interpolation == "bicubic"
    assert found.preparation.value_range == (0, 1)
    assert found.preparation.mean == (0.485, 0.456, 0.406)
    untrained = live_network("torchvision:net", random_weights=True)
    assert untrained.preparation == found.preparation
    assert untrained.class_names is None


def test_weights_of_torchvision_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(monkeypatch, ImageClassification)
    assert live_network("torchvision:net", weights="V1").class_names == ("cat", "dog")
    with pytest.raises(OptionError, match="has these: V1"):
        live_network("torchvision:net", weights="V9")
    with pytest.raises(OptionError, match="no network 'nets'"):
        live_network("torchvision:nets")
    with pytest.raises(OptionError, match="give --random-weights"):
        live_network("torchvision:untrained")
    with pytest.raises(OptionError, match="unreachable; give --random-weights"):
        live_network("torchvision:offline")
    assert live_network("torchvision:offline", random_weights=True).class_names is None


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        (VideoClassification, (3, 16, 112, 112), None),
        (SemanticSegmentation, (3, 520, 520), (520, 520)),
        (ObjectDetection, (3, 224, 224), None),
    ],
)
def test_other_transforms_of_torchvision(
    kind: type, shape: tuple[int, ...], size: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_torchvision(monkeypatch, kind)
    found = live_network("torchvision:net")
    assert found.input_shape == shape
    assert found.preparation.size == size
    assert found.notes or size


CENTRE = {"crop_mode": "center", "crop_pct": 0.875}


def fake_timm(monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
    """Put in place of timm what is used of it."""
    whole = {"input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0.5,) * 3}
    timm, data = ModuleType("timm"), ModuleType("timm.data")

    def create_model(name: str, pretrained: bool) -> nn.Module:
        if pretrained and name == "offline":
            raise OSError("the network is unreachable")
        made = nn.Conv2d(3, 2, 3)
        made.num_classes = 2  # type: ignore[assignment]
        return made

    info = SimpleNamespace(num_classes=lambda: 2, index_to_description="ab".__getitem__)
    timm.create_model = create_model  # type: ignore[attr-defined]
    data.resolve_data_config = (  # type: ignore[attr-defined]
        lambda args, model: {**whole, "std": (0.25,) * 3, **CENTRE, **config}
    )
    data.infer_imagenet_subset = lambda model: "imagenet-2"  # type: ignore[attr-defined]
    data.ImageNetInfo = lambda subset: info  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("torchvision", 256)),
        ({"crop_pct": 0.95}, ("torchvision", 235)),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, ("stretch", None)),
        ({"crop_pct": 1.0, "crop_mode": "border"}, ("pad", None)),
        ({"crop_mode": "squash"}, ("crop", None)),
    ],
)
def test_networks_of_timm_are_prepared_as_their_configuration_says(
    config: dict[str, Any], expected: tuple[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_timm(monkeypatch, **config)
    found = live_network("timm:net")
    form = found.preparation.picture_form()
    assert (form.fit, form.resize) == expected
    assert form.interpolation == "bicubic"
    assert found.class_names == ("a", "b")
    assert found.output == "logits"
    assert bool(found.notes) == (expected[0] in ("pad", "crop"))
    assert live_network("timm:net", random_weights=True).class_names is None
    with pytest.raises(OptionError, match="unreachable; give --random-weights"):
        live_network("timm:offline")


PROCESSOR: dict[str, Any] = {
    "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "resample": 3,
}  # fmt: skip


def fake_transformers(
    monkeypatch: pytest.MonkeyPatch, processor: dict[str, Any], takes: str = "pixel_values"
) -> None:
    """Put in place of transformers what is used of it."""

    class NetForImageClassification(nn.Module):
        main_input_name = takes

        def __init__(self, config: Any = None) -> None:
            super().__init__()

        @classmethod
        def from_pretrained(cls, folder: str, **options: Any) -> nn.Module:
            assert options == {"local_files_only": True}
            return cls()

    config = SimpleNamespace(
        architectures=["NetForImageClassification"], num_channels=3, image_size=48,
        id2label={0: "cat", 1: "dog"},
    )  # fmt: skip

    def read(made: Any) -> Any:
        def from_pretrained(folder: str, **options: Any) -> Any:
            assert options == {"local_files_only": True, "trust_remote_code": False}
            return made

        return SimpleNamespace(from_pretrained=from_pretrained)

    module = ModuleType("transformers")
    module.AutoConfig = read(config)  # type: ignore[attr-defined]
    module.AutoImageProcessor = read(  # type: ignore[attr-defined]
        SimpleNamespace(to_dict=lambda: processor)
    )
    module.NetForImageClassification = NetForImageClassification  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)


SQUARE, SHORTER = {"height": 224, "width": 224}, {"shortest_edge": 224}


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": SQUARE}, ("stretch", None, 224)),
        (
            {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": SQUARE},
            ("transformers", 256, 224),
        ),
        ({"size": SHORTER, "crop_pct": 0.875}, ("transformers", 256, 224)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, ("stretch", None, 384)),
    ],
)
def test_networks_of_transformers_are_prepared_as_their_image_processor_says(
    processor: dict[str, Any],
    expected: tuple[str, int | None, int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    fake_transformers(monkeypatch, {**PROCESSOR, **processor})
    (tmp_path / "preprocessor_config.json").write_text("{}")
    found = live_network(f"transformers:{tmp_path}")
    form = found.preparation.picture_form()
    assert (form.fit, form.resize, form.height) == expected
    assert form.interpolation == "bicubic"
    assert found.preparation.value_range == (0, 1)
    assert found.preparation.mean == (0.5, 0.4, 0.3)
    assert found.class_names == ("cat", "dog")
    assert found.input_shape == (3, expected[2], expected[2])


def test_image_processors_without_a_common_size_or_rescaling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = {"shortest_edge": 800, "longest_edge": 1333}
    fake_transformers(monkeypatch, {**PROCESSOR, "size": size, "do_rescale": False})
    (tmp_path / "preprocessor_config.json").write_text("{}")
    found = live_network(f"transformers:{tmp_path}")
    assert found.preparation.size is None
    assert found.preparation.value_range == (0, 255)
    assert found.input_shape == (3, 48, 48)
    assert any("vary by picture" in note for note in found.notes)


def test_networks_of_transformers_that_take_no_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_transformers(monkeypatch, PROCESSOR, takes="input_ids")
    with pytest.raises(OptionError, match="takes input_ids"):
        live_network(f"transformers:{tmp_path}")
    with pytest.raises(OptionError, match="no such folder"):
        live_network(f"transformers:{tmp_path}/none")
