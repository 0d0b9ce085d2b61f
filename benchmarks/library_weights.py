"""Random weights with which a network's output depends on its images, and images to see it by.

Libraries begin much at zero or close to it: the last normalisation of a residual block, layer
scales of 1e-6, position tables, heads. Such a network gives nearly the same for all images, and
then a wrong prediction could not be told from a right one. Here each weight is drawn from a seed,
and one pass over a few images sets the scales layer by layer, as ``tests/zoo/initialise.py`` does
it: what a convolution or linear layer gives has unit variance before its bias, and a batch
normalisation has the statistics of what it sees. Constant parameters of other layers are disturbed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CALIBRATION_IMAGES = 4
SMALL = 0.1
"""A constant parameter below this is taken for one that begins at zero, such as a layer scale."""

_LINEAR = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Linear,
)  # fmt: skip
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def smooth_pictures(shape: tuple[int, ...], count: int, seed: int) -> Tensor:
    """(count, *shape) uint8: smooth random patterns with noise, each with its own colours."""
    dice = torch.Generator().manual_seed(seed)
    channels, *space = shape
    total = torch.zeros(count, channels, *space)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    for cells, strength in ((2, 1.0), (5, 0.7), (13, 0.5)):
        coarse = [min(cells, size) for size in space]
        pattern = torch.randn(count, channels, *coarse, generator=dice)
        total += strength * functional.interpolate(pattern, size=space, mode=mode)
    total += 0.3 * torch.randn(total.shape, generator=dice)
    ones = [1 for _ in space]
    total *= 0.5 + torch.rand(count, 1, *ones, generator=dice)
    total += torch.randn(count, channels, *ones, generator=dice)
    return (128 + 48 * total).clamp(0, 255).round().byte()


def draw_weights(network: nn.Module, images: Tensor, seed: int, gain: float = 1.0) -> None:
    """Give a network weights from a seed, with scales by one pass over prepared images.

    Parameters
    ----------
    images
        (count, C, *space), prepared as the network takes them.
    gain
        Factor of the weights of batch normalisations.
    """
    dice = torch.Generator().manual_seed(seed)
    handles: list[Any] = []
    drawn: set[int] = set()
    with torch.no_grad():
        for module in network.modules():
            own = module._parameters  # a computed weight is no parameter
            if isinstance(module, _LINEAR) and isinstance(own.get("weight"), Tensor):
                weight = module.weight
                weight.normal_(std=weight[0].numel() ** -0.5, generator=dice)
                if own.get("bias") is not None:
                    own["bias"].normal_(std=0.2, generator=dice)
                if id(weight) not in drawn:  # one that several layers have is scaled once
                    handles.append(module.register_forward_hook(_scaler()))
                drawn |= {id(tensor) for tensor in own.values()}
            elif isinstance(module, _BATCH_NORMS) and module.running_mean is not None:
                if module.weight is not None:
                    module.weight.uniform_(0.6 * gain, 1.4 * gain, generator=dice)
                    # Rectifiers that pass half of a centred input make deep networks chaotic.
                    module.bias.normal_(mean=1.0, std=0.3, generator=dice)
                module.running_mean.normal_(std=0.2, generator=dice)
                module.running_var.uniform_(0.7, 1.4, generator=dice)
                handles.append(module.register_forward_pre_hook(_statistics))
                drawn |= {id(tensor) for tensor in own.values()}
        for parameter in network.parameters():
            if id(parameter) not in drawn and parameter.is_floating_point():
                _disturb(parameter, dice)
        network.eval()
        network(images)
    for handle in handles:
        handle.remove()


def _disturb(parameter: Tensor, dice: torch.Generator) -> None:
    """Draw a parameter that is constant; leave others as the library has drawn them."""
    first = parameter.flatten()[:1]
    if not parameter.numel() or not bool((parameter == first).all()):
        return
    value = float(first)
    if value == 0:
        parameter.normal_(std=0.2, generator=dice)
    elif abs(value) < SMALL:
        parameter.uniform_(0.3, 0.6, generator=dice)
    else:
        parameter.uniform_(0.7 * value, 1.3 * value, generator=dice)


def _scaler() -> Callable[[Any, Any, Tensor], Tensor]:
    """Return a hook that scales a weight at its first call, and what it makes in the same way."""
    done = False

    def scale(module: Any, _inputs: Any, output: Tensor) -> Tensor:
        nonlocal done
        if done:
            return output
        done = True
        spread = output.std().clamp_min(1e-6)
        module.weight.div_(spread)
        if module.bias is None:
            return output / spread
        axis = output.ndim - 1 if isinstance(module, nn.Linear) else 1
        shape = [1] * output.ndim
        shape[axis] = -1
        bias = module.bias.reshape(shape)
        return (output - bias) / spread + bias

    return scale


def _statistics(module: Any, inputs: tuple[Tensor, ...]) -> None:
    """Shift and stretch the drawn statistics by those of the input."""
    x = inputs[0]
    axes = [axis for axis in range(x.ndim) if axis != 1]
    mean, variance = x.mean(axes), x.var(axes, unbiased=False)
    variance = variance.clamp_min(0.5 * float(variance.mean()) + 1e-6)
    module.running_mean.mul_(variance.sqrt()).add_(mean)
    module.running_var.mul_(variance)
