"""Constants are computed by operators of the list on arguments that they take, or not at all."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError
from fcdcc.pipeline.model.budget import MAX_CONSTANT_BYTES
from fcdcc.pipeline.model.interpreter import run_network
from support.model_nodes import node, value, with_nodes
from support.pt2 import pt2

FAR = 10**11


@cache
def harmless() -> bytes:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    return pt2(module.eval(), (2, 3, 8, 8))


def places(*shape: int) -> torch.Tensor:
    return torch.full(shape, FAR, dtype=torch.int64)


# Kernels that write or read where an index tensor says, or whose operands do not fit.
UNSAFE: dict[str, tuple[list[Any], dict[str, torch.Tensor]]] = {
    "backward of pooling": (
        [
            node(
                "aten.max_pool2d_with_indices_backward.default",
                *("z", value("a"), value("b"), [2, 2], [2, 2], [0, 0], [1, 1], False, value("i")),
            )
        ],
        {"a": torch.ones(1, 1, 4, 4), "b": torch.ones(1, 1, 8, 8), "i": places(1, 1, 4, 4)},
    ),
    "unpooling": (
        [node("aten.max_unpool2d.default", "z", value("a"), value("i"), [8, 8])],
        {"a": torch.ones(1, 1, 4, 4), "i": places(1, 1, 4, 4)},
    ),
    "segments": (
        [
            node(
                *("aten.segment_reduce.default", "z", value("a"), "sum"),
                lengths=value("i"),
                unsafe=True,
            )
        ],
        {"a": torch.ones(10, 8), "i": places(2)},
    ),
    "backward of a loss": (
        [
            node(
                *("aten.nll_loss_backward.default", "z", value("a"), value("b"), value("i")),
                *(None, 0, -100, value("c")),
            )
        ],
        {"a": torch.ones(4), "b": torch.ones(4, 3), "i": places(4), "c": torch.tensor(1.0)},
    ),
    "a norm of another shape": (
        [
            node(
                *("aten._weight_norm_interface.default", "z", value("a"), value("b"), 0),
                makes=[value("z"), value("y")],
            )
        ],
        {"a": torch.ones(10_000, 4), "b": torch.ones(1)},
    ),
    "statistics that are missing": (
        [
            node(
                *("aten._native_batch_norm_legit.no_stats", "z", value("a"), None, None),
                *(False, 0.1, 1e-5),
                makes=[value("z"), value("y"), value("x2")],
            )
        ],
        {"a": torch.ones(1, 4, 4)},
    ),
    "a number for a type": (
        [node("aten.to.dtype", "z", value("a"), -1)],
        {"a": torch.ones(4)},
    ),
    "memory beyond a tensor": (
        [node("aten.as_strided.default", "z", value("a"), [100], [1], 1000)],
        {"a": torch.ones(4)},
    ),
    "random dropping": (
        [
            node(
                *("aten._scaled_dot_product_attention_math.default", "z"),
                *(value("a"), value("a"), value("a"), None, 0.5),
                makes=[value("z"), value("y")],
            )
        ],
        {"a": torch.ones(1, 1, 4, 4)},
    ),
    "memory that is not filled": (
        [node("aten.empty_strided.default", "z", [4], [1])],
        {},
    ),
    "memory in another order": (
        [node("aten.empty_permuted.default", "z", [4, 4], [1, 0])],
        {},
    ),
    "memory like another": (
        [node("aten.new_empty_strided.default", "z", value("a"), [4], [1])],
        {"a": torch.ones(4)},
    ),
    "a shape that depends on values": (
        [node("aten.repeat_interleave.Tensor", "z", value("a"))],
        {"a": torch.full((1,), 2**30)},
    ),
}


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "not read"])
@pytest.mark.parametrize(("nodes", "tensors"), UNSAFE.values(), ids=UNSAFE)
def test_kernels_that_trust_their_arguments_are_not_called(
    nodes: list[Any], tensors: dict[str, torch.Tensor], is_read: bool
) -> None:
    if is_read:
        nodes = [*nodes, node("aten.add.Tensor", "more", value("relu"), value("z"))]
    feeds = {"relu": "more"} if is_read else None
    with pytest.raises(ModelError) as caught:
        open_model(with_nodes(harmless(), nodes, tensors, feeds))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "nodes",
    [
        [node("aten.index_select.default", "z", value("a"), 0, value("i"))],
        [node("aten.gather.default", "z", value("a"), 0, value("i"))],
        [node("aten.embedding.default", "z", value("b"), value("i"))],
        [node("aten.scatter.value", "z", value("a"), 0, value("i"), 1.0)],
        [node("aten.index_fill.int_Scalar", "z", value("a"), 0, value("i"), 1.0)],
        [node("aten.index_add.default", "z", value("a"), 0, value("i"), value("a"))],
        [node("aten.index_copy.default", "z", value("a"), 0, value("i"), value("a"))],
    ],
    ids=lambda nodes: nodes[0]["target"].split(".")[3],
)
@pytest.mark.parametrize("place", [FAR, 4, -5, -FAR])
def test_places_outside_a_tensor_are_found_by_the_kernels(nodes: list[Any], place: int) -> None:
    tensors = {
        "a": torch.ones(4),
        "b": torch.ones(4, 2),
        "i": torch.full((4,), place, dtype=torch.int64),
    }
    reader = node("aten.sum.default", "s", value("z"))
    more = node("aten.add.Tensor", "more", value("relu"), value("s"))
    with pytest.raises(ModelError, match="cannot be computed"):
        open_model(with_nodes(harmless(), [*nodes, reader, more], tensors, {"relu": "more"}))


def test_constants_that_nobody_reads_are_not_computed() -> None:
    size = MAX_CONSTANT_BYTES // 4
    nodes = [node("aten.full.default", f"z{i}", [size], 1.5, dtype=torch.float32) for i in range(9)]
    plain, more = open_model(harmless()), open_model(with_nodes(harmless(), nodes))
    assert more.network.fingerprint == plain.network.fingerprint


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [
                node("aten.full.default", "a", [MAX_CONSTANT_BYTES // 8], 1.5, dtype=torch.float32),
                node("aten.relu.default", "b", value("a")),
                node("aten.relu.default", "c", value("b")),
                node("aten.sum.default", "z", value("c")),
            ],
            "takes .* bytes, and with those before it",
        ),
        (
            [
                node("aten.ones.default", "a", [1 << 13, 1 << 13], dtype=torch.float32),
                node("aten.mm.default", "b", value("a"), value("a")),
                node("aten.sum.default", "z", value("b")),
            ],
            "takes .* multiply-adds",
        ),
        ([node("aten.ones.default", "z", [2**40, 2**40])], "more than .* elements"),
        ([node("aten.ones.default", "z", [-1])], "expected at least 0"),
    ],
)
def test_constants_have_a_budget(nodes: list[Any], words: str) -> None:
    more = node("aten.add.Tensor", "more", value("relu"), value("z"))
    with pytest.raises(ModelError, match=words):
        open_model(with_nodes(harmless(), [*nodes, more], {}, {"relu": "more"}))


def test_constants_are_computed_as_the_model_would() -> None:
    nodes = [
        node("aten.arange.default", "a", 4),
        node("aten.mul.Tensor", "z", value("a"), 2.5),
        node("aten.reshape.default", "r", value("z"), [1, 4, 1, 1]),
        node("aten.add.Tensor", "more", value("relu"), value("r")),
    ]
    network = open_model(with_nodes(harmless(), nodes, {}, {"relu": "more"})).network
    plain = open_model(harmless()).network
    x = torch.rand(2, 3, 8, 8)
    head = plain.stages[-1]
    assert run_network(network, x).shape == run_network(plain, x).shape
    assert sum(t.numel() == 4 for t in network.tensors.values()) == 2  # a bias and the constant
    assert len(network.stages[-1].steps) == len(head.steps) + 1  # type: ignore[union-attr]
