"""Networks with an output for every place: U-Net, FCN, DeepLab v3, and a feature pyramid."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvNormAct
from .residual import dilated_resnet_backbone, resnet_stages

__all__ = ["DeepLabV3", "Fcn", "FeaturePyramid", "UNet"]


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(inputs, outputs), ConvNormAct(outputs, outputs))


class UNet(nn.Module):
    """Ronneberger et al. 2015, with padded convolutions.

    ``bilinear`` chooses between bilinear upsampling (corners aligned) and transposed
    convolutions. Where the grids of a skip connection differ by a row or a column, the
    upsampled one is padded.
    """

    def __init__(self, *, bilinear: bool, width: int = 6, classes: int = 4) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.bilinear = bilinear
        self.enter = _double(3, width)
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), _double(w, 2 * w)) for w in widths[:-1]
        )
        self.grow = nn.ModuleList(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            if bilinear
            else nn.ConvTranspose2d(2 * w, w, 2, stride=2)
            for w in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(
            _double(3 * w if bilinear else 2 * w, w) for w in reversed(widths[:-1])
        )
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.enter(x)]
        for down in self.down:
            skips.append(down(skips[-1]))  # each level reads the one before
        x = skips.pop()
        for grow, up in zip(self.grow, self.up, strict=True):
            skip = skips.pop()
            x = grow(x)
            rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            if rows or columns:
                x = functional.pad(
                    x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
                )
            x = up(torch.cat([skip, x], dim=1))
        return self.classify(x)


class Fcn(nn.Module):
    """Long et al. 2015, on a dilated residual network: a head, and one large upsampling."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.backbone = dilated_resnet_backbone()
        self.head = nn.Sequential(
            ConvNormAct(256, 32, 3), nn.Dropout(0.1), nn.Conv2d(32, classes, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.head(self.backbone(x))
        return functional.interpolate(
            scores, size=x.shape[-2:], mode="bilinear", align_corners=False
        )


class _PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling: dilations side by side, and the mean of the image."""

    def __init__(self, inputs: int, outputs: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNormAct(inputs, outputs, 1)])
        for dilation in dilations:
            self.branches.append(ConvNormAct(inputs, outputs, 3, dilation=dilation))
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvNormAct(inputs, outputs, 1))
        self.project = ConvNormAct(outputs * (len(dilations) + 2), outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = [branch(x) for branch in self.branches]
        mean = self.pooled(x)
        results.append(
            functional.interpolate(mean, size=x.shape[-2:], mode="bilinear", align_corners=False)
        )
        return self.project(torch.cat(results, dim=1))


class DeepLabV3(nn.Module):
    """Chen et al. 2017."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.backbone = dilated_resnet_backbone()
        self.head = nn.Sequential(
            _PyramidPooling(256, 16, (2, 4, 6)),
            ConvNormAct(16, 16, 3),
            nn.Conv2d(16, classes, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.head(self.backbone(x))
        return functional.interpolate(
            scores, size=x.shape[-2:], mode="bilinear", align_corners=False
        )


class FeaturePyramid(nn.Module):
    """Lin et al. 2017, as detectors have it: the finest map, and scores of three anchors there."""

    def __init__(self, channels: int = 12, anchors: int = 3) -> None:
        super().__init__()
        self.stages = nn.ModuleList(resnet_stages())
        widths = (8, 16, 32, 64)
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1)
        self.scores = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, anchors, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = self.lateral[-1](maps[-1])
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            size = finer.shape[-2:]
            merged = lateral(finer) + functional.interpolate(merged, size=size, mode="nearest")
        finest = self.smooth(merged)
        return torch.cat([finest, self.scores(finest)], dim=1)
