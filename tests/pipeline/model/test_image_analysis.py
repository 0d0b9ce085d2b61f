"""Networks that mix the images of a batch are refused; others give each image its own answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.image_analysis import analyse_images
from fcdcc.pipeline.model.interpreter import network_shapes, run_network
from support.model_nodes import node, value, with_nodes
from support.modules import ready
from support.pt2 import pt2
from zoo import NAMES, ZOO, images, save

DYNAMIC = torch.export.Dim.AUTO


class Between(nn.Module):
    """Two convolutions with a function between them, and a classifier."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(16, 5)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        x = self.function(torch.relu(self.first(x)))
        x = torch.relu(self.second(x))
        return self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1))


def as_rows(x: Tensor) -> Tensor:
    """All pixels of all images as rows."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def from_rows(rows: Tensor, x: Tensor) -> Tensor:
    return rows.reshape(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)


MIXING: dict[str, Callable[[Tensor], Tensor]] = {
    "the largest of all": lambda x: x / x.max(),
    "the mean of all": lambda x: x - x.mean(),
    "a mean over the batch": lambda x: x - x.mean((0, 2, 3), keepdim=True),
    "a norm of all": lambda x: x / x.norm(),
    "softmax over the batch": lambda x: x.softmax(0),
    "running sums over the batch": lambda x: x.cumsum(0),
    "the other order": lambda x: x.flip(0),
    "rolled": lambda x: x.roll(1, 0),
    "all rolled": lambda x: x.roll(5),
    "sorted": lambda x: x.sort(0).values,
    "the largest of the batch": lambda x: x + x.topk(1, 0).values,
    "the first image": lambda x: x + x[:1],
    "one image": lambda x: x * x[0],
    "half of the images": lambda x: torch.cat([x[::2], x[1::2]]),
    "places of the batch": lambda x: x * torch.arange(x.shape[0]).reshape(-1, 1, 1, 1),
    "the number of images": lambda x: x / x.shape[0],
    "products of images": lambda x: (
        x + (x.flatten(1) @ x.flatten(1).T).mean(1)[:, None, None, None]
    ),
    "images as channels": lambda x: (x.transpose(0, 1).softmax(1)).transpose(0, 1),
    "images as columns": lambda x: x.reshape(x.shape[1], -1, *x.shape[2:]).transpose(0, 1),
    "rows of all images": lambda x: from_rows(as_rows(x).softmax(0), x),
    "normalised rows": lambda x: from_rows(functional.normalize(as_rows(x), dim=0), x),
    "other images": lambda x: x + x.index_select(0, torch.tensor([0, 0])).mean(0),
    "a triangle of the batch": lambda x: x * x[:, :1, 0, 0].tril().unsqueeze(-1).unsqueeze(-1),
}

ALONE: dict[str, Callable[[Tensor], Tensor]] = {
    "its own largest": lambda x: x / x.amax((1, 2, 3), keepdim=True),
    "its own mean": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "rows one by one": lambda x: from_rows(as_rows(x).softmax(1), x),
    "windows": lambda x: (
        x.unflatten(2, (2, 4))
        .unflatten(4, (2, 4))
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(-1, 4, 4, 4)
        .softmax(1)
        .reshape(x.shape[0], 2, 2, 4, 4, 4)
        .permute(0, 3, 1, 4, 2, 5)
        .reshape(x.shape)
    ),
    "images behind channels": lambda x: (x.transpose(0, 1) * 2).softmax(0).transpose(0, 1),
    "a token for each image": lambda x: x + torch.ones(1, 4, 1, 1).expand(x.shape[0], -1, -1, -1),
    "attention inside an image": lambda x: (
        functional.scaled_dot_product_attention(*[x.flatten(2).transpose(1, 2).unsqueeze(1)] * 3)
        .squeeze(1)
        .transpose(1, 2)
        .reshape(x.shape)
    ),
    "products inside an image": lambda x: x @ x.transpose(2, 3),
    "sorted inside an image": lambda x: x.sort(1).values,
    "repeated": lambda x: x.repeat_interleave(2, 0).reshape(-1, 2, 4, 8, 8).mean(1),
    "written by a mask": lambda x: torch.where(x > 0.1, x, 0.0),
}


@pytest.mark.parametrize("function", MIXING.values(), ids=MIXING)
@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "batches of 2"])
def test_networks_that_mix_images_are_refused(
    function: Callable[[Tensor], Tensor], dynamic: bool
) -> None:
    data = pt2(ready(Between(function)), (2, 3, 8, 8), {0: DYNAMIC} if dynamic else False)
    if not dynamic and function in (MIXING["the number of images"],):
        open_model(data)  # a constant, where the batch is always the same
        return
    with pytest.raises(ModelError, match=r"one by one|for each image") as caught:
        open_model(data)
    assert "(aten." in str(caught.value) or "the convolution second" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("function", ALONE.values(), ids=ALONE)
@pytest.mark.parametrize("dynamic", [True, False], ids=["any batch", "batches of 2"])
def test_networks_that_keep_images_apart_are_opened(
    function: Callable[[Tensor], Tensor], dynamic: bool
) -> None:
    module = ready(Between(function))
    network = open_model(pt2(module, (2, 3, 8, 8), dynamic)).network
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(run_network(network, x), module(x))
    assert network_shapes(network, x.shape)[network.output] == (2, 5)


def test_a_batch_of_one_image_mixes_nothing() -> None:
    module = ready(Between(lambda x: x / x.max()))
    network = open_model(pt2(module, (1, 3, 8, 8), False)).network
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(run_network(network, x), module(x))


def test_sizes_that_are_free_are_proven_when_they_are_known() -> None:
    axes = {0: DYNAMIC, 2: DYNAMIC, 3: DYNAMIC}
    mixing = open_model(pt2(ready(Between(lambda x: x - x.mean())), (2, 3, 8, 8), axes)).network
    with pytest.raises(ModelError, match="one by one"):
        network_shapes(mixing, (2, 3, 9, 7))
    alone = open_model(pt2(ready(Between(lambda x: x * 2)), (2, 3, 8, 8), axes)).network
    assert network_shapes(alone, (4, 3, 9, 7))[alone.output] == (4, 5)


RETURNED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "an axis in front": (lambda y: y.unsqueeze(0), "along the first axis"),
    "pixels as images": (lambda y: y.reshape(-1), "along the first axis"),
    "classes first": (lambda y: y.T, "along the first axis"),
    "complex numbers": (lambda y: torch.complex(y, y), "real numbers"),
    "bfloat16": (lambda y: y.bfloat16(), "does not pass between workers"),
}


@pytest.mark.parametrize(("function", "words"), RETURNED.values(), ids=RETURNED)
def test_predictions_are_one_for_each_image(function: Callable[[Tensor], Any], words: str) -> None:
    class Returned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x: Tensor) -> Any:
            return function(self.conv(x).mean((2, 3)))

    with pytest.raises(ModelError, match=words):
        open_model(pt2(Returned().eval(), (2, 3, 8, 8)))


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        ("aten.gelu.default", torch.int64),
        ("aten.erf.default", torch.complex64),
        ("aten.relu.default", torch.bool),
        ("aten.silu.default", torch.uint8),
    ],
)
def test_values_of_a_type_that_an_operator_does_not_take_are_refused(
    op: str, dtype: torch.dtype
) -> None:
    nodes = [
        node("aten.to.dtype", "cast", value("relu"), dtype),
        node(op, "made", value("cast")),
        node("aten.to.dtype", "back", value("made"), torch.float32),
    ]
    data = with_nodes(pt2(ready(Between(torch.sigmoid)), (2, 3, 8, 8)), nodes, {}, {"relu": "back"})
    with pytest.raises(ModelError, match=f"takes values of {dtype}"):
        open_model(data)


@pytest.mark.parametrize("name", NAMES)
def test_no_image_of_a_known_network_depends_on_others(name: str, tmp_path: Path) -> None:
    entry = ZOO[name]
    network = open_model(save(entry, tmp_path / "model.pt2")).network
    x = images(entry, 4)
    whole = run_network(network, x)
    order = torch.tensor([2, 0, 3, 1])
    padded = torch.cat([x, torch.zeros_like(x[:2])])
    split = torch.cat([run_network(network, x[:3]), run_network(network, x[3:])])
    scale = whole.abs().max()
    for other in (
        run_network(network, x[order])[order.argsort()],
        split,
        run_network(network, padded)[:4],
    ):
        assert (other - whole).abs().max() <= 1e-5 * scale
    found = analyse_images(network, x.shape[1:]).values[network.output]
    assert (found.axis, found.sizes[0]) == (0, 1)
