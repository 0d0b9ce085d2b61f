"""Networks of timm: ``timm:convnext_tiny``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..description import ModelPreparation
from .live_network import LiveNetwork, errors_refused, library


def timm_network(name: str, random_weights: bool, weights: str | None) -> LiveNetwork:
    """Return a network of timm, prepared as its ``pretrained_cfg`` says.

    ``weights`` is a tag of pretrained weights, as in ``NAME.TAG``.

    Raises
    ------
    OptionError
        If timm is not there or has no such network, or cannot load its weights.
    """
    timm = library("timm", f"timm:{name}")
    data = library("timm.data", f"timm:{name}")
    full = name if weights is None else f"{name}.{weights}"
    advice = "give --random-weights to export the network without them, or load them once online"
    if random_weights:
        advice = "timm.list_models() lists its networks"
    with errors_refused(f"timm:{full} cannot be made", advice):
        module = timm.create_model(full, pretrained=not random_weights)
        config = data.resolve_data_config({}, model=module)
        names = None if random_weights else _class_names(data, module)
    preparation, notes = _preparation(config)
    classes = getattr(module, "num_classes", 0)
    return LiveNetwork(
        f"timm:{full}",
        module,
        tuple(map(int, config["input_size"])),
        preparation,
        names,
        "logits" if classes else "embedding",
        ("timm",),
        notes,
    )


def _preparation(config: Mapping[str, Any]) -> tuple[ModelPreparation, tuple[str, ...]]:
    """Return what a data configuration does with pictures, and notes on what is left out.

    As ``timm.data.transforms_imagenet_eval`` does.
    """
    channels, height, width = map(int, config["input_size"])
    values: dict[str, Any] = {
        "value_range": (0.0, 1.0),
        "mean": tuple(map(float, config["mean"])),
        "std": tuple(map(float, config["std"])),
        "size": (height, width),
        "interpolation": config["interpolation"],
    }
    if channels in (1, 3):
        values["channel_order"] = "grey" if channels == 1 else "rgb"
    scale = math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"])
    mode = config.get("crop_mode") or "center"
    notes: tuple[str, ...] = ()
    if mode == "center" and scale[0] == scale[1]:
        values |= {"fit": "torchvision", "resize": scale[0]}
    elif mode == "squash" and scale == (height, width):
        values["fit"] = "stretch"
    elif mode == "border" and scale == (height, width):
        values["fit"] = "pad"
        notes = ("its borders are filled with the mean colour by timm, and black by fcdcc ingest",)
    else:
        how = f"crop_mode {mode}, crop_pct {config['crop_pct']}"
        notes = (f"its way to cut pictures ({how}) is not stored; --fit sets one",)
    return ModelPreparation.of(**values), notes


def _class_names(data: Any, module: Any) -> tuple[str, ...] | None:
    """Return the names of the classes of ImageNet that a network was trained on, if it was."""
    subset = data.infer_imagenet_subset(module)
    if subset is None:
        return None
    info = data.ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))
