"""Networks for small devices: ShuffleNet v2, MobileNet v2 and v3, EfficientNet."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import ConvNormAct, SqueezeExcite, pooled_head

__all__ = ["EfficientNet", "MobileNetV2", "MobileNetV3", "ShuffleNetV2"]


def _shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class _ShuffleUnit(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = outputs // 2
        entering = inputs if stride > 1 else half
        self.shortcut = (
            nn.Sequential(
                ConvNormAct(inputs, inputs, 3, stride=2, groups=inputs, activation=None),
                ConvNormAct(inputs, half, 1),
            )
            if stride > 1
            else nn.Identity()
        )
        self.body = nn.Sequential(
            ConvNormAct(entering, half, 1),
            ConvNormAct(half, half, 3, stride=stride, groups=half, activation=None),
            ConvNormAct(half, half, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            out = torch.cat((kept, self.body(changed)), dim=1)
        else:
            out = torch.cat((self.shortcut(x), self.body(x)), dim=1)
        return _shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    """Ma et al. 2018: half of the channels pass, and the halves are shuffled."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            ConvNormAct(3, 8, 3, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        channels = 8
        for width, depth in ((24, 4), (48, 8), (96, 4)):
            for index in range(depth):
                layers.append(_ShuffleUnit(channels, width, 2 if index == 0 else 1))
                channels = width
        self.features = nn.Sequential(*layers, ConvNormAct(channels, 128, 1))
        self.head = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean([2, 3]))


class _LinearGate(nn.Module):
    """Squeeze-excitation by linear layers, as the paper of MobileNet v3 writes it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, max(channels // 4, 4))
        self.expand = nn.Linear(max(channels // 4, 4), channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = x.mean(dim=(2, 3))
        weights = self.expand(torch.relu(self.reduce(weights)))
        return x * nn.functional.hardsigmoid(weights).view(-1, weights.shape[1], 1, 1)


class _InvertedResidual(nn.Module):
    """Widen, depthwise convolution, gate, narrow without an activation."""

    def __init__(
        self,
        inputs: int,
        expansion: int,
        outputs: int,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(ConvNormAct(inputs, wide, 1, activation=activation))
        layers.append(
            ConvNormAct(wide, wide, kernel, stride=stride, groups=wide, activation=activation)
        )
        if gate is not None:
            layers.append(gate)
        layers.append(ConvNormAct(wide, outputs, 1, activation=None))
        self.body = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018: linear bottlenecks and ReLU6."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormAct(3, 8, 3, stride=2, activation=nn.ReLU6)]
        channels = 8
        for expansion, width, depth, stride in ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 3, 2)):
            for index in range(depth):
                step = stride if index == 0 else 1
                layers.append(_InvertedResidual(channels, expansion, width, 3, step, nn.ReLU6))
                channels = width
        layers.append(ConvNormAct(channels, 64, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.head = pooled_head(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


class MobileNetV3(nn.Module):
    """Howard et al. 2019: squeeze-excitation in some blocks, hardswish in the later ones."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        relu, swish = nn.ReLU, nn.Hardswish
        self.features = nn.Sequential(
            ConvNormAct(3, 8, 3, stride=2, activation=swish),
            _InvertedResidual(8, 1, 8, 3, 2, relu, _LinearGate(8)),
            _InvertedResidual(8, 4, 12, 3, 2, relu),
            _InvertedResidual(12, 4, 12, 3, 1, relu),
            _InvertedResidual(12, 4, 16, 5, 2, swish, _LinearGate(48)),
            _InvertedResidual(16, 6, 16, 5, 1, swish, _LinearGate(96)),
            ConvNormAct(16, 96, 1, activation=swish),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            nn.Linear(96, 64), nn.Hardswish(inplace=True), nn.Dropout(0.2), nn.Linear(64, classes)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class EfficientNet(nn.Module):
    """Tan and Le 2019: inverted residuals with SiLU and squeeze-excitation everywhere."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormAct(3, 8, 3, stride=2, activation=nn.SiLU)]
        channels = 8
        for expansion, width, depth, kernel, stride in (
            (1, 8, 1, 3, 1),
            (6, 12, 2, 3, 2),
            (6, 16, 2, 5, 2),
            (6, 24, 2, 3, 2),
        ):
            for index in range(depth):
                wide = channels * expansion
                gate = SqueezeExcite(wide, max(channels // 4, 2), nn.SiLU)
                step = stride if index == 0 else 1
                layers.append(
                    _InvertedResidual(channels, expansion, width, kernel, step, nn.SiLU, gate)
                )
                channels = width
        layers.append(ConvNormAct(channels, 96, 1, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.head = pooled_head(96, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))
