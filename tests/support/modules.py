"""Modules that several tests of the model import export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def ready(module: nn.Module) -> nn.Module:
    """Return the module in eval mode, with weights and statistics that are not all alike."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.uniform_(-0.5, 0.5, generator=generator)
    return module.eval()


class Lambda(nn.Module):
    """A module of layers and a function that uses them."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x, **self.layers)


def conv(*arguments: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(*arguments, **options)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = conv(4, 4, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.second = conv(4, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x + 1)
        y = self.relu(self.norm1(self.first(x)))
        y = self.norm2(self.second(y))
        y += x
        return self.relu(y)
