"""Networks of sums and dense connections: ResNet, RegNet, DenseNet and ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .blocks import ConvNormAct, SqueezeExcite, pooled_head

__all__ = ["ConvNeXt", "DenseNet", "RegNet", "ResNet", "resnet18", "resnet50", "resnet_backbone"]


class _Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.first = ConvNormAct(inputs, width, 3, stride=stride, dilation=dilation)
        self.second = ConvNormAct(width, width, 3, activation=None)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.second(self.first(x))
        out += self.shortcut(x)
        return torch.relu(out)


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.first = ConvNormAct(inputs, width, 1)
        self.second = ConvNormAct(width, width, 3, stride=stride, dilation=dilation)
        self.third = ConvNormAct(width, 4 * width, 1, activation=None)
        self.shortcut = _shortcut(inputs, 4 * width, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.third(self.second(self.first(x)))
        out += self.shortcut(x)
        return self.relu(out)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return ConvNormAct(inputs, outputs, 1, stride=stride, activation=None)


def resnet_backbone(
    block: type[_Basic] | type[_Bottleneck],
    depths: Sequence[int],
    width: int,
    dilations: Sequence[int] = (1, 1, 1, 1),
) -> nn.Sequential:
    """Stem and four stages; a stage with a dilation keeps its grid instead of halving it."""
    layers: list[nn.Module] = [
        ConvNormAct(3, width, 7, stride=2),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = width
    for stage, (depth, dilation) in enumerate(zip(depths, dilations, strict=True)):
        for index in range(depth):
            halves = stage > 0 and index == 0 and dilation == 1
            stage_width = width << stage
            layers.append(block(channels, stage_width, 2 if halves else 1, dilation))
            channels = stage_width * block.expansion
    return nn.Sequential(*layers)


class ResNet(nn.Module):
    """He et al. 2016, the stride in the 3 × 3 convolution of a bottleneck."""

    def __init__(
        self,
        block: type[_Basic] | type[_Bottleneck],
        depths: Sequence[int],
        width: int,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.backbone = resnet_backbone(block, depths, width)
        self.head = pooled_head((width << 3) * block.expansion, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


def resnet18() -> ResNet:
    """Two basic blocks a stage."""
    return ResNet(_Basic, (2, 2, 2, 2), 8)


def resnet50() -> ResNet:
    """3, 4, 6 and 3 bottlenecks."""
    return ResNet(_Bottleneck, (3, 4, 6, 3), 8)


def dilated_resnet_backbone() -> nn.Sequential:
    """Bottlenecks, the last two stages dilated by 2 and 4: eight pixels a cell."""
    return resnet_backbone(_Bottleneck, (1, 2, 2, 1), 8, (1, 1, 2, 4))


def resnet_stages() -> list[nn.Sequential]:
    """Four stages of one basic block each, of 8, 16, 32 and 64 channels; the first has the stem."""
    backbone = resnet_backbone(_Basic, (1, 1, 1, 1), 8)
    return [backbone[:3], *(backbone[stage : stage + 1] for stage in (3, 4, 5))]


class _RegNetBlock(nn.Module):
    """A bottleneck of ratio 1 with a grouped 3 × 3 convolution, and squeeze-excitation (Y)."""

    def __init__(self, inputs: int, outputs: int, stride: int, group_width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormAct(inputs, outputs, 1),
            ConvNormAct(outputs, outputs, 3, stride=stride, groups=outputs // group_width),
            SqueezeExcite(outputs, max(inputs // 4, 1)),
            ConvNormAct(outputs, outputs, 1, activation=None),
        )
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.body(x))


class RegNet(nn.Module):
    """Radosavovic et al. 2020, RegNetY: grouped convolutions of one group width."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNormAct(3, 8, 3, stride=2)]
        channels = 8
        for width, depth in ((8, 1), (16, 1), (32, 3), (64, 1)):
            for index in range(depth):
                layers.append(_RegNetBlock(channels, width, 2 if index == 0 else 1, 8))
                channels = width
        self.features = nn.Sequential(*layers)
        self.head = pooled_head(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


class _DenseLayer(nn.Module):
    """Normalise first, then a 1 × 1 and a 3 × 3 convolution: what it makes is appended."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        x = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(x)))


class DenseNet(nn.Module):
    """Huang et al. 2017: every layer of a block reads all the layers before it."""

    def __init__(self, growth: int = 6, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(3, 2 * growth, 7, stride=2), nn.MaxPool2d(3, stride=2, padding=1)
        )
        channels = 2 * growth
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for index, depth in enumerate((3, 4, 6, 3)):
            self.blocks.append(
                nn.ModuleList(_DenseLayer(channels + i * growth, growth) for i in range(depth))
            )
            channels += depth * growth
            last = index == 3
            self.transitions.append(
                nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
                if last
                else nn.Sequential(
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                    nn.AvgPool2d(2, stride=2),
                )
            )
            channels = channels if last else channels // 2
        self.head = pooled_head(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            features = [x]
            for layer in block:  # type: ignore[union-attr]  # ModuleList items are Modules
                features.append(layer(features))
            x = transition(torch.cat(features, 1))
        return self.head(x)


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of an (N, C, H, W) tensor."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # the parent's name
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ConvNeXtBlock(nn.Module):
    """Depthwise 7 × 7, layer norm and two linear layers on channels-last, a scaled residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.narrow(nn.functional.gelu(self.widen(out)))
        return x + self.scale * torch.permute(out, (0, 3, 1, 2))


class ConvNeXt(nn.Module):
    """Liu et al. 2022: patches of 4, and 2 × 2 convolutions between the stages."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 8, 4, stride=4), _ChannelNorm(8, eps=1e-6)]
        channels = 8
        for index, depth in enumerate((2, 2, 3, 2)):
            if index:
                layers.append(_ChannelNorm(channels, eps=1e-6))
                layers.append(nn.Conv2d(channels, 2 * channels, 2, stride=2))
                channels *= 2
            layers.extend(_ConvNeXtBlock(channels) for _ in range(depth))
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.features(x).mean([-2, -1])))
