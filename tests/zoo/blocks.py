"""Blocks that several of the networks share."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ConvNormAct", "SqueezeExcite", "flat_head", "pooled_head"]


class ConvNormAct(nn.Sequential):
    """Convolution, batch normalisation and an activation, the convolution without bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (dilation * (height - 1) // 2, dilation * (width - 1) // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(
                inputs,
                outputs,
                (height, width),
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(outputs),
        ]
        if activation is nn.ReLU:
            layers.append(nn.ReLU(inplace=True))  # as most published models have it
        elif activation is not None:
            layers.append(activation())
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channels weighted by a function of their means: Hu et al. 2018, by 1 × 1 convolutions."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: type[nn.Module] = nn.ReLU,
        gate: type[nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation()
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.expand(self.activation(self.reduce(self.pool(x))))
        return x * self.gate(weights)


def pooled_head(channels: int, classes: int = 10) -> nn.Sequential:
    """Global average pooling and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def flat_head(features: int, hidden: int, classes: int = 10) -> nn.Sequential:
    """Three linear layers with dropout, as AlexNet and VGG end."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(features, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, classes),
    )
