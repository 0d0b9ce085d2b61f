"""Networks without residual sums: LeNet-5, AlexNet, VGG-16, GoogLeNet and SqueezeNet."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import ConvNormAct, flat_head, pooled_head

__all__ = ["AlexNet", "GoogLeNet", "InceptionV3", "LeNet5", "SqueezeNet", "Vgg16"]


class LeNet5(nn.Module):
    """LeCun et al. 1998: 32 × 32 grey images, tanh, average pooling."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5),
            nn.Tanh(),
        )
        self.classifier = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).view(-1, 120))


class AlexNet(nn.Module):
    """Krizhevsky 2014, the one-tower version: 11 × 11 stride 4 first, overlapping pooling."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            nn.Conv2d(3, 2 * w, 11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(2 * w, 6 * w, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(6 * w, 12 * w, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(12 * w, 8 * w, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(8 * w, 8 * w, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),
        )
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = flat_head(8 * w * 4, 64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)))


class Vgg16(nn.Module):
    """Simonyan and Zisserman 2014, configuration D: thirteen 3 × 3 convolutions with bias."""

    LAYERS = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for layer in self.LAYERS:
            if isinstance(layer, str):
                layers.append(nn.MaxPool2d(2, stride=2))
            else:
                layers.append(nn.Conv2d(channels, layer * width, 3, padding=1))
                layers.append(nn.ReLU(inplace=True))
                channels = layer * width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = flat_head(channels * 4, 64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.pool(self.features(x)))


class _Inception(nn.Module):
    """Four branches of GoogLeNet: 1 × 1; reduced 3 × 3; reduced 5 × 5; pooled 1 × 1."""

    def __init__(self, inputs: int, outputs: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three_in, three, five_in, five, pooled = outputs
        self.one = ConvNormAct(inputs, one, 1)
        self.three = nn.Sequential(ConvNormAct(inputs, three_in, 1), ConvNormAct(three_in, three))
        self.five = nn.Sequential(ConvNormAct(inputs, five_in, 1), ConvNormAct(five_in, five, 5))
        self.pooled = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), ConvNormAct(inputs, pooled, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], dim=1)


class GoogLeNet(nn.Module):
    """Szegedy et al. 2015: nine inception blocks, ceil-mode pooling, local response norm."""

    BLOCKS = (
        (8, 12, 16, 2, 4, 4),
        (16, 16, 24, 4, 12, 8),
        None,
        (24, 12, 26, 2, 6, 8),
        (20, 14, 28, 3, 8, 8),
        (16, 16, 32, 3, 8, 8),
        (14, 18, 36, 4, 8, 8),
        (32, 20, 40, 4, 16, 16),
        None,
        (32, 20, 40, 4, 16, 16),
        (48, 24, 48, 6, 16, 16),
    )

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(3, 8, 7, stride=2),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            nn.LocalResponseNorm(5, alpha=0.1),
            ConvNormAct(8, 8, 1),
            ConvNormAct(8, 24, 3),
            nn.LocalResponseNorm(5, alpha=0.1),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
        )
        blocks: list[nn.Module] = []
        channels = 24
        for outputs in self.BLOCKS:
            if outputs is None:
                blocks.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            else:
                blocks.append(_Inception(channels, outputs))
                channels = outputs[0] + outputs[2] + outputs[4] + outputs[5]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(channels, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


class _FactorisedInception(nn.Module):
    """Inception v3, the block with 7 × 1 and 1 × 7 convolutions and padded average pooling."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = ConvNormAct(inputs, width, 1)
        self.seven = nn.Sequential(
            ConvNormAct(inputs, width, 1),
            ConvNormAct(width, width, (1, 7)),
            ConvNormAct(width, width, (7, 1)),
        )
        self.two = nn.Sequential(
            ConvNormAct(inputs, width, 1),
            ConvNormAct(width, width, (7, 1)),
            ConvNormAct(width, width, (1, 7)),
        )
        self.pooled = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1), ConvNormAct(inputs, width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.one(x), self.seven(x), self.two(x), self.pooled(x)], dim=1)


class _ReductionInception(nn.Module):
    """Inception v3, the block that halves the grid: strided convolutions beside max pooling."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.three = nn.Conv2d(inputs, width, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Sequential(
            ConvNormAct(inputs, width, 1),
            ConvNormAct(width, width, 3),
            nn.Conv2d(width, width, 3, stride=2),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(x, kernel_size=3, stride=2)
        return torch.cat([self.norm(self.three(x)).relu(), self.two(x), pooled], 1)


class InceptionV3(nn.Module):
    """Szegedy et al. 2016, one block of each kind."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(3, 8, 3, stride=2), ConvNormAct(8, 16, 3), nn.MaxPool2d(3, stride=2)
        )
        self.blocks = nn.Sequential(
            _FactorisedInception(16, 12),
            _ReductionInception(48, 16),
            _FactorisedInception(80, 16),
        )
        self.head = pooled_head(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one = nn.Conv2d(squeezed, expanded, 1)
        self.three = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


class SqueezeNet(nn.Module):
    """Iandola et al. 2016, version 1.1: fire modules, and a convolution for a classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _Fire(16, 4, 16),
            _Fire(32, 4, 16),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _Fire(32, 8, 32),
            _Fire(64, 8, 32),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),
            _Fire(64, 12, 48),
            _Fire(96, 16, 64),
        )
        self.dropout = nn.Dropout()
        self.classifier = nn.Conv2d(128, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.classifier(self.dropout(self.features(x))))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, (1, 1)), 1)
