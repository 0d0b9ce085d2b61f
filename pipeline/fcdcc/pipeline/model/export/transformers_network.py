"""Networks of transformers that are stored in a folder: ``transformers:FOLDER``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from ...errors import OptionError
from ..description import ModelPreparation, OutputKind
from .live_network import LiveNetwork, errors_refused, library

WARPED_FROM = 384
"""From this size on image processors with a ``crop_pct`` stretch pictures instead of cutting."""

DEFAULT_SIDE = 224


class _Images(nn.Module):
    """A network that takes only images, by the name that its library gives them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(pixel_values=images, return_dict=True)


def transformers_network(folder: str, random_weights: bool, weights: str | None) -> LiveNetwork:
    """Return the network in a folder that transformers has written, with its image processor.

    Only files in the folder are read, and no code in it is run.

    Raises
    ------
    OptionError
        If transformers is not there, or the folder has no network of it that takes images.
    """
    if weights is not None:
        raise OptionError("--weights with transformers:FOLDER, which has its weights: leave it out")
    name = f"transformers:{folder}"
    if not Path(folder).is_dir():
        raise OptionError(f"{name}: there is no such folder; expected one of save_pretrained")
    transformers = library("transformers", name)
    local = {"local_files_only": True, "trust_remote_code": False}
    advice = "expected a folder of save_pretrained with a network of transformers itself"
    with errors_refused(f"{name} cannot be made", advice):
        config = transformers.AutoConfig.from_pretrained(folder, **local)
        kinds = getattr(config, "architectures", None) or ["AutoModelForImageClassification"]
        kind = getattr(transformers, kinds[0])
        if random_weights:
            network = kind.from_config(config) if kinds[0].startswith("Auto") else kind(config)
        else:
            network = kind.from_pretrained(folder, local_files_only=True)
    takes = getattr(network, "main_input_name", None)
    if takes != "pixel_values":
        raise OptionError(f"{name} takes {takes}; expected a network that takes pixel_values")
    processor = None
    if any(Path(folder).glob("*processor_config.json")):
        with errors_refused(f"the image processor of {name} cannot be read", advice):
            processor = transformers.AutoImageProcessor.from_pretrained(folder, **local).to_dict()
    channels = int(getattr(config, "num_channels", 3))
    preparation, notes = _preparation(processor, channels)
    size = preparation.size or _size(config)
    classifies = kinds[0].endswith("ForImageClassification")
    output: OutputKind | None = "logits" if classifies else None
    return LiveNetwork(
        name,
        _Images(network),
        (channels, *size),
        preparation,
        _class_names(config) if classifies and not random_weights else None,
        output,
        ("transformers",),
        notes,
    )


def _size(config: Any) -> tuple[int, int]:
    side = getattr(config, "image_size", None) or DEFAULT_SIDE
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))


def _class_names(config: Any) -> tuple[str, ...] | None:
    """Return the names of the classes; None if they are only numbered."""
    labels: Mapping[int, str] = getattr(config, "id2label", None) or {}
    names = tuple(str(labels.get(index, "")) for index in range(len(labels)))
    numbered = all(name == f"LABEL_{index}" for index, name in enumerate(names))
    return None if numbered or not all(names) else names


def _preparation(
    processor: Mapping[str, Any] | None, channels: int
) -> tuple[ModelPreparation, tuple[str, ...]]:
    """Return what an image processor does with pictures, and notes on what is left out."""
    if processor is None:
        return ModelPreparation(), ("the folder has no image processor: no preparation is stored",)
    values: dict[str, Any] = {}
    if channels in (1, 3):
        values["channel_order"] = "grey" if channels == 1 else "rgb"
    factor = float(processor.get("rescale_factor") or 1 / 255)
    white = 255 * factor if processor.get("do_rescale", True) else 255.0
    values["value_range"] = (0.0, 1.0 if abs(white - 1) < 1e-6 else white)
    if processor.get("do_normalize"):
        for stored, key in (("mean", "image_mean"), ("std", "image_std")):
            numbers = processor.get(key)
            if numbers is not None:
                numbers = numbers if isinstance(numbers, list | tuple) else (numbers,)
                values[stored] = tuple(map(float, numbers))
    resample = processor.get("resample")
    if isinstance(resample, int):
        values["interpolation"] = Image.Resampling(resample).name.lower()
    form = _form(processor)
    if form is None:
        size, crop = processor.get("size"), processor.get("crop_size")
        note = f"its sizes (size {size}, crop_size {crop}) are not stored: they vary by picture"
        return ModelPreparation.of(**values), (note,)
    return ModelPreparation.of(**values, **form), ()


def _form(processor: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return size, fit and resize; None if images have no common size."""
    size, crop = _sides(processor.get("size")), _sides(processor.get("crop_size"))
    shorter = _shorter(processor.get("size"))
    resizes, cuts = processor.get("do_resize"), processor.get("do_center_crop")
    ratio = processor.get("crop_pct")
    if resizes and shorter and ratio:
        if shorter >= WARPED_FROM:
            return {"size": (shorter, shorter), "fit": "stretch"}
        resize = int(shorter / ratio)
        return {"size": (shorter, shorter), "fit": "transformers", "resize": resize}
    if resizes and shorter and cuts and crop and shorter >= max(crop):
        return {"size": crop, "fit": "transformers", "resize": shorter}
    if resizes and size and (not cuts or crop == size):
        return {"size": size, "fit": "stretch"}
    return None


def _sides(size: Any) -> tuple[int, int] | None:
    """Return the height and width that a size is; None if it is something else."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    return None


def _shorter(size: Any) -> int | None:
    """Return the length of the shorter side that a size is; None if it is something else."""
    if not isinstance(size, Mapping) or size.get("longest_edge"):
        return None
    return int(size["shortest_edge"]) if size.get("shortest_edge") else None
