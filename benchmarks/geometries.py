"""The convolutions of AlexNet and VGG-16, as geometries."""

from __future__ import annotations

from fcdcc.coding import ConvGeometry

__all__ = ["alexnet", "vgg16"]

Layers = dict[str, ConvGeometry]


def alexnet() -> Layers:
    """Return conv1 to conv5 as first published, without groups, for one 227 × 227 image."""
    return {
        "conv1": ConvGeometry.of((1, 3, 227, 227), (96, 3, 11, 11), stride=4),
        "conv2": ConvGeometry.of((1, 96, 27, 27), (256, 96, 5, 5), padding=2),
        "conv3": ConvGeometry.of((1, 256, 13, 13), (384, 256, 3, 3), padding=1),
        "conv4": ConvGeometry.of((1, 384, 13, 13), (384, 384, 3, 3), padding=1),
        "conv5": ConvGeometry.of((1, 384, 13, 13), (256, 384, 3, 3), padding=1),
    }


def vgg16(size: int = 224) -> Layers:
    """Return the thirteen convolutions for one image of this height and width."""
    layers: Layers = {}
    channels = 3
    plan = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    for stage, (filters, count) in enumerate(plan, start=1):
        for number in range(1, count + 1):
            layers[f"conv{stage}_{number}"] = ConvGeometry.of(
                (1, channels, size, size), (filters, channels, 3, 3), padding=1
            )
            channels = filters
        size //= 2
    return layers
