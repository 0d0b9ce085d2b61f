"""Networks of torchvision: ``torchvision:resnet50``."""

from __future__ import annotations

from typing import Any

from ...errors import OptionError
from ..description import ModelPreparation, OutputKind
from .live_network import LiveNetwork, errors_refused, library

EXAMPLE_SHAPE = (3, 224, 224)
"""Shape of images where the weights do not say one."""

VIDEO_FRAMES = 16
"""Frames of a video where the weights do not say so."""

SEGMENTATION_SIDE = 520
"""Side of the images of a segmentation network whose weights only say a shorter side."""


def torchvision_network(name: str, random_weights: bool, weights: str | None) -> LiveNetwork:
    """Return a network of torchvision, prepared as the transforms of its weights do it.

    Raises
    ------
    OptionError
        If torchvision is not there or has no such network or weights, or cannot load them.
    """
    models = library("torchvision.models", f"torchvision:{name}")
    with errors_refused(
        f"torchvision has no network {name!r:.100}", "torchvision lists its models"
    ):
        known = models.get_model_weights(name)
    chosen = _chosen(known, name, weights)
    if chosen is None and not random_weights:
        raise OptionError(
            f"torchvision has no trained weights of {name}: give --random-weights, or use "
            "package.module:function"
        )
    advice = "give --random-weights to export the network without them, or load them once online"
    with errors_refused(f"the weights of torchvision:{name} cannot be loaded", advice):
        backbone = {"weights_backbone": None} if random_weights and _has_backbone(name) else {}
        module = models.get_model(name, weights=None if random_weights else chosen, **backbone)
    transforms = None if chosen is None else chosen.transforms()
    preparation, shape, notes = _preparation(transforms)
    names = None if chosen is None or random_weights else chosen.meta.get("categories")
    kind = type(transforms).__name__
    classifies = kind in ("ImageClassification", "VideoClassification")
    output: OutputKind | None = "logits" if classifies else None
    return LiveNetwork(
        f"torchvision:{name}",
        module,
        shape,
        preparation,
        tuple(names) if names else None,
        output,
        ("torchvision",),
        notes,
    )


def _chosen(known: Any, name: str, weights: str | None) -> Any:
    """Return the weights of a name, or the default; None if there are none."""
    members = [*known]
    if weights is None:
        return known.DEFAULT if members else None
    found = [member for member in members if weights in (member.name, str(member))]
    if not found:
        listed = ", ".join(member.name for member in members) or "none"
        raise OptionError(f"--weights {weights!r:.100} of {name}; torchvision has these: {listed}")
    return found[0]


def _has_backbone(name: str) -> bool:
    """Return whether a network has a backbone with weights of its own."""
    return any(part in name for part in ("deeplab", "fcn_", "lraspp", "rcnn", "retinanet", "ssd"))


def _preparation(
    transforms: Any,
) -> tuple[ModelPreparation, tuple[int, ...], tuple[str, ...]]:
    """Return what the transforms of weights do, the shape of an image, and notes."""
    kind = type(transforms).__name__
    if kind not in ("ImageClassification", "VideoClassification", "SemanticSegmentation"):
        unknown = () if transforms is None else (f"its transforms ({kind}) are not stored",)
        return ModelPreparation(), EXAMPLE_SHAPE, unknown
    values: dict[str, Any] = {
        "channel_order": "rgb",
        "value_range": (0.0, 1.0),
        "mean": tuple(map(float, transforms.mean)),
        "std": tuple(map(float, transforms.std)),
    }
    if kind == "VideoClassification":
        height, width = _pair(transforms.crop_size)
        note = "the scaling and cutting of its frames is not stored, since fcdcc ingest reads none"
        return ModelPreparation.of(**values), (3, VIDEO_FRAMES, height, width), (note,)
    values["interpolation"] = transforms.interpolation.value
    if kind == "SemanticSegmentation":
        side = transforms.resize_size[0] if transforms.resize_size else SEGMENTATION_SIDE
        form = {"size": (side, side), "fit": "torchvision", "resize": side}
        return ModelPreparation.of(**values, **form), (3, side, side), ()
    height, width = _pair(transforms.crop_size)
    resize = _pair(transforms.resize_size)
    cuts = {"size": (height, width), "fit": "torchvision", "resize": resize[0]}
    return ModelPreparation.of(**values, **cuts), (3, height, width), ()


def _pair(size: Any) -> tuple[int, int]:
    sizes = [int(side) for side in size]
    return sizes[0], sizes[-1]
