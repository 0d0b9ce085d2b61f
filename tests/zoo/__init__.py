"""Networks to test with: the real block structures at reduced width, on small inputs.

``ZOO`` has one entry for each; ``build`` gives the module with seeded weights, ``export`` its
exported program and ``save`` a ``.pt2`` file.

>>> sorted(ZOO)[:3]
['alexnet', 'audio', 'convnext']
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from . import attention, classic, mobile, residual, segmentation, volumes
from .initialise import initialise, random_images

__all__ = ["NAMES", "ZOO", "ZooEntry", "build", "export", "images", "save"]


@dataclass(frozen=True)
class ZooEntry:
    """One network.

    Parameters
    ----------
    builder
        Makes the module, with weights as PyTorch draws them; see :func:`build`.
    input_shape
        (C, *space), without the batch.
    dense
        Whether the output has a value for every pixel instead of one per image.
    seed
        Of the weights, chosen so that no image of :func:`images` is a near tie.
    """

    name: str
    builder: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    dense: bool = False
    seed: int = 0


_ENTRIES = (
    ZooEntry("lenet5", classic.LeNet5, (1, 32, 32), seed=3),
    ZooEntry("alexnet", classic.AlexNet, (3, 95, 95), seed=1),
    ZooEntry("vgg16", classic.Vgg16, (3, 64, 64), seed=31),
    ZooEntry("googlenet", classic.GoogLeNet, (3, 64, 64), seed=6),
    ZooEntry("inception_v3", classic.InceptionV3, (3, 63, 63), seed=8),
    ZooEntry("squeezenet", classic.SqueezeNet, (3, 64, 64), seed=13),
    ZooEntry("resnet18", residual.resnet18, (3, 64, 64), seed=63),
    ZooEntry("resnet50", residual.resnet50, (3, 64, 64), seed=6),
    ZooEntry("densenet", residual.DenseNet, (3, 64, 64), seed=9),
    ZooEntry("regnet", residual.RegNet, (3, 64, 64), seed=0),
    ZooEntry("convnext", residual.ConvNeXt, (3, 64, 64), seed=13),
    ZooEntry("shufflenet_v2", mobile.ShuffleNetV2, (3, 64, 64), seed=2),
    ZooEntry("mobilenet_v2", mobile.MobileNetV2, (3, 48, 48), seed=7),
    ZooEntry("mobilenet_v3", mobile.MobileNetV3, (3, 64, 64), seed=4),
    ZooEntry("efficientnet", mobile.EfficientNet, (3, 64, 64), seed=8),
    ZooEntry("unet", lambda: segmentation.UNet(bilinear=False), (3, 44, 36), dense=True),
    ZooEntry("unet_bilinear", lambda: segmentation.UNet(bilinear=True), (3, 40, 40), dense=True),
    ZooEntry("fcn", segmentation.Fcn, (3, 64, 56), dense=True),
    ZooEntry("deeplab_v3", segmentation.DeepLabV3, (3, 60, 64), dense=True),
    ZooEntry("feature_pyramid", segmentation.FeaturePyramid, (3, 56, 64), dense=True),
    ZooEntry("vision_transformer", attention.VisionTransformer, (3, 48, 48), seed=22),
    ZooEntry("swin", attention.Swin, (3, 64, 64), seed=32),
    ZooEntry("hybrid", attention.Hybrid, (3, 64, 64), seed=18),
    ZooEntry("mixer", attention.Mixer, (3, 48, 48), seed=2),
    ZooEntry("audio", volumes.AudioNet, (1, 4000), seed=9),
    ZooEntry("volume", volumes.VolumeNet, (1, 20, 16, 16), dense=True),
    ZooEntry("video", volumes.VideoNet, (3, 8, 32, 32), seed=33),
)
ZOO: dict[str, ZooEntry] = {entry.name: entry for entry in _ENTRIES}

_DEEP = {
    *("googlenet", "inception_v3", "densenet", "shufflenet_v2", "efficientnet", "regnet"),
    *("feature_pyramid", "swin", "hybrid", "mixer", "video"),
}

NAMES = [pytest.param(name, marks=pytest.mark.long) if name in _DEEP else name for name in ZOO]
"""The names for a parametrised test; those of deep networks, which take seconds, are long."""


@cache
def build(entry: ZooEntry) -> nn.Module:
    """Return the module in eval mode, always with the same weights; do not change it."""
    with warnings.catch_warnings():
        # PyTorch says once per process that uneven 'same' padding may copy its input.
        warnings.filterwarnings("ignore", "Using padding='same'", UserWarning)
        return initialise(entry.builder(), entry.input_shape, entry.seed)


def images(entry: ZooEntry, count: int = 4, seed: int = 100) -> torch.Tensor:
    """(count, C, \\*space) float32: inputs that tell classes apart."""
    return random_images(entry.input_shape, count, seed)


@cache
def export(entry: ZooEntry, dynamic_batch: bool = True) -> torch.export.ExportedProgram:
    """Return the exported program; with ``dynamic_batch`` false for blocks of 2 images only."""
    batch = {0: torch.export.Dim("batch", min=1, max=4096)} if dynamic_batch else None
    return torch.export.export(
        build(entry), (images(entry, 2),), dynamic_shapes=(batch,) if dynamic_batch else None
    )


def save(entry: ZooEntry, path: Path | str, dynamic_batch: bool = True) -> Path:
    """Write the exported program to a ``.pt2`` file, unless it is there, and return its path."""
    path = Path(path)
    if not path.exists():
        partial = path.with_suffix(f".{id(path)}.pt2")
        torch.export.save(export(entry, dynamic_batch), partial)
        partial.replace(path)
    return path
