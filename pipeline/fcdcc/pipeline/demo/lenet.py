"""LeNet-5, trained in seconds and exported.

The network of Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, *Gradient-Based Learning Applied
to Document Recognition*, Proceedings of the IEEE 86 (1998), section II.B, but with ReLU and maximum
pooling. The demo codes its three convolutions; the last one covers its whole input.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .digits import DIGIT_SIZE, Digits

EPOCHS = 16
BATCH = 50
LEARNING_RATE = 4e-3
SEED = 5

WARP = 0.08
"""Standard deviation of the random changes to a training image: of the entries of the linear
map, and of the shift in half image sides."""


def lenet() -> nn.Sequential:
    """Return LeNet-5, untrained: (B, 1, 32, 32) float32 to (B, 10) logits."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, kernel_size=5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, kernel_size=5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(16, 120, kernel_size=5),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            linear1=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            linear2=nn.Linear(84, 10),
        )
    )


def prepare(images: NDArray[np.uint8]) -> Tensor:
    """Return (n, 1, 32, 32) bytes as float32 in [0, 1], as ``fcdcc run`` prepares them."""
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


def train(
    digits: Digits, epochs: int = EPOCHS, on_epoch: Callable[[int], None] | None = None
) -> nn.Module:
    """Return LeNet-5 trained on digits, in evaluation mode; the same for the same digits.

    Training uses one thread: on batches this small, threads wait for each other (59 s with
    eight threads on a busy machine, 5 s with one). It calls ``on_epoch`` with the number of
    epochs done, and leaves torch's number of threads and random state as they were.
    """
    images, labels = prepare(digits.images), torch.from_numpy(digits.labels)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = lenet().train()
        optimizer = torch.optim.Adam(network.parameters())
        steps = epochs * -(-len(digits) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
        for epoch in range(epochs):
            for chosen in torch.split(torch.randperm(len(digits)), BATCH):
                predicted = network(_warp(images[chosen]))
                loss = functional.cross_entropy(predicted, labels[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
                optimizer.step()
                schedule.step()
            if on_epoch is not None:
                on_epoch(epoch + 1)
    return network.eval()


def _warp(images: Tensor) -> Tensor:
    """Return images rotated, sheared, scaled and shifted at random.

    Trained on these, the network makes half the errors on held-out images.
    """
    turned = torch.eye(2) + WARP * torch.randn(len(images), 2, 2)
    shifted = WARP * torch.randn(len(images), 2, 1)
    grid = functional.affine_grid(
        torch.cat([turned, shifted], dim=2), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)


def logits(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return plain PyTorch's logits of images: (n, 10) float32."""
    with torch.inference_mode():
        predicted: NDArray[np.float32] = network(prepare(images)).numpy()
    return predicted


@cache
def _stored_network(path: str) -> nn.Module:
    """Return an exported network; each process reads a file once."""
    return torch.export.load(path).module()


def stored_logits(model: str, images: str, start: int, stop: int) -> NDArray[np.float32]:
    """Return an exported network's logits of some stored images: (stop - start, 10) float32.

    With one thread, as in a worker of Dask beside others.
    """
    pixels = np.asarray(zarr.open_array(images, path="image", mode="r")[start:stop])
    with _one_thread():
        return logits(_stored_network(model), pixels)


def accuracy(predicted: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the part of the images whose largest logit is their label's."""
    return float(np.mean(predicted.argmax(axis=1) == labels))


def export(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a network as a ``.pt2`` file that takes any number of images."""
    # torch.export would treat a batch of one as a constant size.
    example = torch.zeros(2, 1, DIGIT_SIZE, DIGIT_SIZE)
    program = torch.export.export(
        network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    torch.export.save(program, path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread in torch, for a while."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
