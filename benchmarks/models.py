"""The networks that benchmarks run, with seeded random weights: time does not depend on them."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import zarr
from torch import nn

from fcdcc.pipeline import Model, open_model

__all__ = [
    "MODELS",
    "TinyNet",
    "exported",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "unet",
    "vgg16",
    "write_files",
]

VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""The convolutions of VGG-16, 0 being a pooling."""

CLASSES = 100


def vgg16(size: int) -> nn.Module:
    """Return the convolutions of VGG-16 and a linear classifier."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for width in VGG:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * (size // 32) ** 2, CLASSES)).eval()


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *_conv(inputs, width, 1), nn.ReLU(inplace=True),
            *_conv(width, width, 3, stride), nn.ReLU(inplace=True),
            *_conv(width, outputs, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Basic(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv(inputs, width, 3, stride), nn.ReLU(inplace=True), *_conv(width, width, 3)
        )
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv(inputs, width, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _resnet(block: type[_Basic | _Bottleneck], depths: tuple[int, ...], wider: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [*_conv(3, 64, 7, 2), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, padding=1))
    channels = 64
    for stage, depth in enumerate(depths):
        for number in range(depth):
            width = 64 << stage
            layers.append(block(channels, width, 2 if stage and not number else 1))
            channels = wider * width
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))
    return nn.Sequential(*layers, *head).eval()


def resnet18(size: int) -> nn.Module:  # noqa: ARG001 - as the other networks, which need it
    """Return ResNet-18, normalisation not folded."""
    return _resnet(_Basic, (2, 2, 2, 2), 1)


def resnet50(size: int) -> nn.Module:  # noqa: ARG001 - as the other networks, which need it
    """Return ResNet-50, the stride in the 3 × 3 convolutions, normalisation not folded."""
    return _resnet(_Bottleneck, (3, 4, 6, 3), 4)


class _UNet(nn.Module):
    """Ronneberger et al. 2015, three levels deep, with padded and transposed convolutions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.down = nn.ModuleList(
            _double(before, after) for before, after in zip([3, *widths], widths, strict=False)
        )
        pairs = list(pairwise(widths))[::-1]
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(_double(2 * a, a) for a, _ in pairs)
        self.classify = nn.Conv2d(width, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.down[0](x)]
        for down in list(self.down)[1:]:
            skips.append(down(torch.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for grow, up in zip(self.grow, self.up, strict=True):
            x = up(torch.cat([skips.pop(), grow(x)], dim=1))
        return self.classify(x)


def _double(inputs: int, outputs: int) -> nn.Module:
    both = (*_conv(inputs, outputs, 3), nn.ReLU(), *_conv(outputs, outputs, 3), nn.ReLU())
    return nn.Sequential(*both)


def unet(size: int) -> nn.Module:  # noqa: ARG001 - as the other networks, which need it
    """Return a U-Net with an output of four classes for every pixel."""
    torch.manual_seed(0)
    return _UNet().eval()


class _Gate(nn.Module):
    """Squeeze-excitation: a weight for each channel, from the mean over its pixels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.relu(self.reduce(nn.functional.adaptive_avg_pool2d(x, 1)))
        return x * nn.functional.hardsigmoid(self.expand(weights))


class _InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, wide: int, outputs: int, kernel: int, stride: int, gate: int, swish: bool
    ) -> None:
        super().__init__()
        activation: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if wide != inputs:
            layers += [*_conv(inputs, wide, 1), activation()]
        layers += [*_conv(wide, wide, kernel, stride, groups=wide), activation()]
        if gate:
            layers.append(_Gate(wide, gate))
        self.body = nn.Sequential(*layers, *_conv(wide, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


MOBILENET_V3_SMALL = (
    (16, 16, 16, 3, 2, 8, False), (16, 72, 24, 3, 2, 0, False), (24, 88, 24, 3, 1, 0, False),
    (24, 96, 40, 5, 2, 24, True), (40, 240, 40, 5, 1, 64, True), (40, 240, 40, 5, 1, 64, True),
    (40, 120, 48, 5, 1, 32, True), (48, 144, 48, 5, 1, 40, True), (48, 288, 96, 5, 2, 72, True),
    (96, 576, 96, 5, 1, 144, True), (96, 576, 96, 5, 1, 144, True),
)  # fmt: skip
"""Howard et al. 2019, table 2: channels in, widened and out, kernel, stride, channels of the gate
(0 for none), and whether the activation is hardswish."""


def mobilenet_v3_small(size: int) -> nn.Module:  # noqa: ARG001 - as the others, which need it
    """Return MobileNetV3-small."""
    torch.manual_seed(0)
    return nn.Sequential(
        *_conv(3, 16, 3, 2), nn.Hardswish(),
        *(_InvertedResidual(*block) for block in MOBILENET_V3_SMALL),
        *_conv(96, 576, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, CLASSES),
    ).eval()  # fmt: skip


class TinyNet(nn.Module):
    """One convolution and one classifier of images (1, H, W): hardly any work."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 10)."""
        return self.head(torch.relu(self.features(x)).mean((2, 3)))


MODELS = {
    "vgg16": vgg16,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "unet": unet,
    "mobilenet_v3_small": mobilenet_v3_small,
}


def exported(module: nn.Module, size: int) -> Model:
    """Return the module as a model that fcdcc runs."""
    return open_model(_model_file(module, size))


def write_files(folder: Path, module: nn.Module, size: int, images: int) -> None:
    """Write ``net.pt2``, and ``images.zarr`` with images of noise (3, size, size)."""
    (folder / "net.pt2").write_bytes(_model_file(module, size))
    shape = (images, 3, size, size)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    group = zarr.create_group(folder / "images.zarr")
    chunks = (16, *shape[1:])
    group.create_array("image", data=pixels, chunks=chunks, dimension_names=list("ncyx"))


def _model_file(module: nn.Module, size: int) -> bytes:
    """Return the bytes of the file of a module for images (3, size, size)."""
    batch = {0: torch.export.Dim("batch")}
    stored = BytesIO()
    program = torch.export.export(module, (torch.zeros(2, 3, size, size),), dynamic_shapes=(batch,))
    torch.export.save(program, stored)
    return stored.getvalue()


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]
