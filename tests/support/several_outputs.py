"""Small networks with several outputs, as segmentation networks have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from support.modules import ready


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Segmenter(nn.Module):
    """The structure of ``torchvision.models.segmentation``: a backbone with a main head and an
    auxiliary one, both resized to the images, in a dictionary."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([layer(3, 8, 2), layer(8, 8)])
        self.classifier = nn.Sequential(layer(8, 6), nn.Dropout(0.1), nn.Conv2d(6, classes, 1))
        self.aux_classifier = nn.Sequential(layer(8, 4), nn.Dropout(0.1), nn.Conv2d(4, classes, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.backbone[0](x)
        heads = {"out": self.classifier(self.backbone[1](first)), "aux": self.aux_classifier(first)}
        return {
            name: fn.interpolate(made, size=x.shape[-2:], mode="bilinear", align_corners=False)
            for name, made in heads.items()
        }


class TwoHeads(nn.Module):
    """A small U-Net that returns class numbers of every pixel, and scores of every 2 × 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = layer(3, 6), layer(6, 8, 2)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.fine, self.coarse = nn.Conv2d(12, 4, 1), nn.Conv2d(8, 7, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        down = self.down(x)
        deep = self.deep(down)
        fine = self.fine(torch.cat([down, self.up(deep)], 1))
        return fine.argmax(1), self.coarse(deep)


def segmenter() -> nn.Module:
    """Return a segmenter in evaluation mode."""
    return ready(Segmenter())


def two_heads() -> nn.Module:
    """Return a network with two heads in evaluation mode."""
    return ready(TwoHeads())
