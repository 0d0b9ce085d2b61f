"""Networks with attention or mixing: ViT, Swin, a hybrid of both, MLP-Mixer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .blocks import ConvNormAct

__all__ = ["Hybrid", "Mixer", "Swin", "VisionTransformer"]


class _Attention(nn.Module):
    """Self-attention with one linear layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))


class _Block(nn.Module):
    """Attention and two linear layers, each behind a normalisation and with a residual sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Dosovitskiy et al. 2021: patches of 8, a class token, learned positions."""

    def __init__(self, width: int = 24, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.linspace(-1, 1, width).reshape(1, 1, width))
        self.positions = nn.Parameter(torch.linspace(-1, 1, 37 * width).sin().reshape(1, 37, width))
        self.blocks = nn.Sequential(*(_Block(width, 4) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class _WindowBlock(nn.Module):
    """Attention in windows, which may be shifted round the edges, with a bias for each offset."""

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int) -> None:
        super().__init__()
        self.side, self.window, self.shift = side, window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        offsets = (2 * window - 1) ** 2
        self.table = nn.Parameter(torch.linspace(0, 9, offsets * heads).cos().reshape(-1, heads))
        places = torch.stack(torch.meshgrid(*2 * [torch.arange(window)], indexing="ij")).flatten(1)
        steps = places[:, :, None] - places[:, None, :] + window - 1
        self.register_buffer("index", steps[0] * (2 * window - 1) + steps[1])
        self.register_buffer("mask", self._mask() if shift else None)

    def _mask(self) -> torch.Tensor:
        """Keep apart what the shift has brought together."""
        regions = torch.zeros(self.side, self.side)
        cuts = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        for row, rows in enumerate(cuts):
            for column, columns in enumerate(cuts):
                regions[rows, columns] = 3 * row + column
        split = self._windows(regions[None, :, :, None]).squeeze(2)
        return (split[:, None, :] != split[:, :, None]).float()[:, None] * -100

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        count = self.side // self.window
        x = x.reshape(-1, count, self.window, count, self.window, x.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, x.shape[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, width = self.side // self.window, x.shape[-1]
        out = self.norm1(x)
        if self.shift:
            out = torch.roll(out, (-self.shift, -self.shift), (1, 2))
        bias = self.table[self.index].permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            bias = (bias + self.mask).repeat(x.shape[0], 1, 1, 1)
        out = self.attention(self._windows(out), bias)
        out = out.reshape(-1, count, count, self.window, self.window, width)
        out = out.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.side, self.side, width)
        if self.shift:
            out = torch.roll(out, (self.shift, self.shift), (1, 2))
        x = x + out
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Liu et al. 2021: windows of 4, every second one shifted, and two stages."""

    def __init__(self, width: int = 12, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.first = nn.Sequential(
            _WindowBlock(width, 2, 16, 4, 0), _WindowBlock(width, 2, 16, 4, 2)
        )
        self.merge_norm = nn.LayerNorm(4 * width)
        self.merge = nn.Linear(4 * width, 2 * width, bias=False)
        self.second = nn.Sequential(
            _WindowBlock(2 * width, 4, 8, 4, 0), _WindowBlock(2 * width, 4, 8, 4, 2)
        )
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.patches(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], dim=-1)
        x = self.second(self.merge(self.merge_norm(x)))
        return self.head(self.norm(x).mean((1, 2)))


class _MobileViTBlock(nn.Module):
    """Convolutions, attention between pixels of the same place in their patches, and back."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.local = nn.Sequential(ConvNormAct(channels, channels), nn.Conv2d(channels, width, 1))
        self.blocks = nn.Sequential(*(_Block(width, 2) for _ in range(2)))
        self.project = ConvNormAct(width, channels, 1, activation=nn.SiLU)
        self.fuse = ConvNormAct(2 * channels, channels, activation=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.local(x)
        batch, width, height, across = out.shape
        patch, rows, columns = self.patch, height // self.patch, across // self.patch
        out = out.reshape(batch * width * rows, patch, columns, patch).transpose(1, 2)
        out = out.reshape(batch, width, rows * columns, patch * patch).transpose(1, 3)
        out = self.blocks(out.reshape(batch * patch * patch, rows * columns, width))
        out = out.reshape(batch, patch * patch, rows * columns, width).transpose(1, 3)
        out = out.reshape(batch * width * rows, columns, patch, patch).transpose(1, 2)
        out = self.project(out.reshape(batch, width, height, across))
        return self.fuse(torch.cat([x, out], dim=1))


class Hybrid(nn.Module):
    """Convolutions with attention in between: MobileViT, Mehta and Rastegari 2022."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormAct(3, 8, stride=2, activation=nn.SiLU), ConvNormAct(8, 12, stride=2)
        )
        self.middle = _MobileViTBlock(12, 16, 2)
        self.down = ConvNormAct(12, 16, stride=2)
        self.last = _MobileViTBlock(16, 24, 2)
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.last(self.down(self.middle(self.stem(x))))
        return self.head(x.mean((2, 3)))


class _MixerBlock(nn.Module):
    """Linear layers over the places, then over the channels."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_places = nn.Sequential(nn.Linear(places, 24), nn.GELU(), nn.Linear(24, places))
        self.over_channels = nn.Sequential(nn.Linear(width, 48), nn.GELU(), nn.Linear(48, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.over_places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


class Mixer(nn.Module):
    """Tolstikhin et al. 2021, behind two convolutions in place of large patches."""

    def __init__(self, width: int = 24, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Sequential(
            ConvNormAct(3, 12, stride=2, activation=nn.GELU), nn.Conv2d(12, width, 4, stride=4)
        )
        self.blocks = nn.Sequential(*(_MixerBlock(36, width) for _ in range(2)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))
