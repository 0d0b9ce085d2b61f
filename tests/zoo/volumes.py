"""Networks in one and three dimensions: sound, volumes of medical images, and videos."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["AudioNet", "VideoNet", "VolumeNet"]


class _DilatedResidual(nn.Module):
    """A gated convolution with 'same' padding: tanh times sigmoid, and a residual sum."""

    def __init__(self, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, 2 * channels, kernel, dilation=dilation, padding="same")
        self.norm = nn.BatchNorm1d(2 * channels)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        signal, gate = self.norm(self.conv(x)).chunk(2, dim=1)
        return x + self.mix(torch.tanh(signal) * torch.sigmoid(gate))


class AudioNet(nn.Module):
    """Raw waveforms: M5 (Dai et al. 2017) with dilated residual blocks after its stem.

    The kernel of 4 in the last block makes 'same' padding uneven.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(1, 12, 80, stride=16),
            nn.BatchNorm1d(12),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(4),
        )
        self.blocks = nn.Sequential(
            _DilatedResidual(12, 3, 1),
            _DilatedResidual(12, 3, 2),
            _DilatedResidual(12, 3, 4),
            _DilatedResidual(12, 4, 3),
        )
        self.tail = nn.Sequential(
            nn.Conv1d(12, 24, 3),
            nn.BatchNorm1d(24),
            nn.LeakyReLU(0.1),
            nn.AvgPool1d(3, stride=2, padding=1),
        )
        self.head = nn.Linear(24, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.tail(self.blocks(self.stem(x)))
        x = functional.avg_pool1d(x, x.shape[-1]).permute(0, 2, 1)
        return self.head(x).squeeze(1)


class _VolumeBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.BatchNorm3d(outputs)
        self.second = nn.Conv3d(outputs, outputs, (1, 3, 3), padding=(0, 1, 1))
        self.norm2 = nn.BatchNorm3d(outputs)
        self.slope = nn.PReLU(outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, 1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.slope(self.norm1(self.first(x)))
        return functional.elu(self.norm2(self.second(out)) + self.shortcut(x))


class VolumeNet(nn.Module):
    """A segmentation network for volumes: residual blocks down, upsampling back, one skip."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.enter = _VolumeBlock(1, 4, 1)
        self.down1 = _VolumeBlock(4, 8, 2)
        self.pool = nn.AvgPool3d(3, stride=2, padding=1, count_include_pad=False)
        self.down2 = _VolumeBlock(8, 16, 1)
        self.grow = nn.ConvTranspose3d(16, 8, 3, stride=2, padding=1, output_padding=1)
        self.up = _VolumeBlock(16, 8, 1)
        self.classify = nn.Conv3d(12, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.enter(x)
        second = self.down1(first)
        third = self.down2(self.pool(second))
        merged = self.up(torch.cat([self.grow(third), second], dim=1))
        merged = functional.interpolate(merged, scale_factor=2.0, mode="trilinear")
        return self.classify(torch.cat([merged, first], dim=1))


class _SpaceThenTime(nn.Sequential):
    """A convolution over each frame, and one over the frames."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        between = (inputs + outputs) // 2
        super().__init__(
            nn.Conv3d(inputs, between, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(between),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, outputs, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
            nn.BatchNorm3d(outputs),
        )


class _VideoBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(_SpaceThenTime(inputs, outputs, stride), nn.ReLU(inplace=True))
        self.second = _SpaceThenTime(outputs, outputs)
        self.shortcut = nn.Sequential(
            nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class VideoNet(nn.Module):
    """R(2+1)D, Tran et al. 2018: residual blocks that are apart in space and time."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 8, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.blocks = nn.Sequential(_VideoBlock(8, 12, 1), _VideoBlock(12, 16, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)))
