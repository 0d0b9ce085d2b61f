"""Weights that keep activations at unit scale, and images to see it by.

A network with weights drawn once and for all lets its activations grow or fade with depth:
then relative errors say little. Here the weights are random, and one pass over a few images
sets their scale, layer by layer: every convolution and linear layer has outputs of unit
variance before its bias, every batch normalisation the statistics of what it sees, disturbed
so that nothing in it is trivial. Its offsets are positive on average: rectifiers that pass
half of a centred input make a deep network chaotic, and then plain float32 is already 1e-5
away from float64, which trained networks are not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

__all__ = ["initialise", "random_images"]

_LINEAR = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)
_NORMALISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def random_images(
    shape: Sequence[int], count: int, seed: int, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """(count, \\*shape): smooth random patterns plus noise, each with its own colours."""
    generator = torch.Generator().manual_seed(seed)
    channels, *space = shape
    total = torch.zeros(count, channels, *space)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    for cells, strength in ((2, 1.0), (5, 0.7), (13, 0.5)):
        coarse = [min(cells, size) for size in space]
        pattern = torch.randn(count, channels, *coarse, generator=generator)
        total += strength * functional.interpolate(pattern, size=space, mode=mode)
    total += 0.3 * torch.randn(total.shape, generator=generator)
    colours = torch.randn(count, channels, *(1 for _ in space), generator=generator)
    contrast = 0.5 + torch.rand(count, 1, *(1 for _ in space), generator=generator)
    return (contrast * total + colours).to(dtype)


def initialise(model: nn.Module, shape: Sequence[int], seed: int) -> nn.Module:
    """Give a model random weights from a seed, scaled as the module says; return it in eval mode.

    Parameters
    ----------
    shape
        (C, *space) of the model's input.
    """
    generator = torch.Generator().manual_seed(seed)
    handles: list[RemovableHandle] = []
    for module in model.modules():
        if isinstance(module, _LINEAR):
            with torch.no_grad():
                module.weight.normal_(generator=generator)
                if module.bias is not None:
                    module.bias.normal_(std=0.2, generator=generator)
            handles.append(module.register_forward_hook(_scale_weight))
        elif isinstance(module, _NORMALISED):
            assert module.running_mean is not None
            assert module.running_var is not None
            with torch.no_grad():
                module.weight.uniform_(0.6, 1.4, generator=generator)
                module.bias.normal_(mean=1.0, std=0.3, generator=generator)
                module.running_mean.normal_(std=0.2, generator=generator)
                module.running_var.uniform_(0.7, 1.4, generator=generator)
            handles.append(module.register_forward_pre_hook(_take_statistics))
        elif isinstance(module, nn.LayerNorm):
            with torch.no_grad():
                module.weight.uniform_(0.6, 1.4, generator=generator)
                module.bias.normal_(std=0.3, generator=generator)
    model.eval()
    with torch.no_grad():
        model(random_images(shape, 24, seed + 1))
    for handle in handles:
        handle.remove()
    return model


def _scale_weight(
    module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor
) -> torch.Tensor:
    """Divide the weight by the standard deviation of what it makes; the bias stays."""
    assert isinstance(module, _LINEAR)
    spread = output.std().clamp_min(1e-6)
    module.weight /= spread
    if module.bias is None:
        return output / spread
    last = 1 if isinstance(module, nn.Linear) else output.ndim - 1
    bias = module.bias.reshape(-1, *(1 for _ in range(last - 1))) if last > 1 else module.bias
    return (output - bias) / spread + bias


def _take_statistics(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
    """Shift and stretch the drawn statistics by those of the input."""
    assert isinstance(module, _NORMALISED)
    (x,) = inputs
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean, variance = x.mean(axes), x.var(axes, unbiased=False)
    # A channel that hardly varies would otherwise blow its rounding errors up to unit scale.
    variance = variance.clamp_min(0.5 * float(variance.mean()) + 1e-6)
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.mul_(variance.sqrt()).add_(mean)
    module.running_var.mul_(variance)
