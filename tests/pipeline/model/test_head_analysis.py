"""What the output of a network is, by its last operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import OptionError
from fcdcc.pipeline.heads import Head
from fcdcc.pipeline.model.head_analysis import find_head
from support.modules import Lambda, conv
from support.pt2 import pt2

SHAPE = (3, 8, 12)
Function = Callable[..., Tensor]


def head_of(function: Function, shape: tuple[int, ...] = SHAPE, **layers: nn.Module) -> Head:
    module = Lambda(function, **layers).eval()
    return find_head(open_model(pt2(module, (2, *shape))).network, shape)


def classifier(function: Function, outputs: int = 5) -> Head:
    """Return the head of a network that ends with a function of a linear layer."""
    body = {"conv": conv(3, 4, 3, padding=1), "linear": nn.Linear(4, outputs)}
    return head_of(
        lambda x, conv, linear: function(linear(torch.relu(conv(x)).mean((2, 3)))), **body
    )


def dense(function: Function, channels: int = 5) -> Head:
    """Return the head of a network that ends with a function of a convolution."""
    return head_of(lambda x, conv: function(conv(x)), conv=conv(3, channels, 3, padding=1))


def summary(head: Head) -> tuple[str, str]:
    return head.kind, head.values


CLASSIFIERS: dict[str, tuple[Function, int, tuple[str, str]]] = {
    "linear": (lambda x: x, 5, ("logits", "logits")),
    "log-softmax": (lambda x: x.log_softmax(1), 5, ("logits", "logits")),
    "temperature": (lambda x: x / 0.07, 5, ("logits", "logits")),
    "softmax": (lambda x: x.softmax(1), 5, ("probabilities", "probabilities")),
    "softmax of the last axis": (lambda x: x.softmax(-1), 5, ("probabilities", "probabilities")),
    "exp of log-softmax": (lambda x: x.log_softmax(1).exp(), 5, ("probabilities", "probabilities")),
    "softmax, moved": (
        lambda x: x[..., None, None].softmax(1).permute(0, 2, 3, 1).flatten(1),
        5, ("probabilities", "probabilities"),
    ),
    "without background": (
        lambda x: x.softmax(1)[:, 1:], 5, ("probabilities", "probabilities")
    ),
    "one of two": (lambda x: x.softmax(1)[:, 1], 2, ("score", "probabilities")),
    "confidence": (lambda x: x.softmax(1).amax(1), 5, ("score", "probabilities")),
    "mean of two softmaxes": (
        lambda x: (x.softmax(1) + (2 * x).softmax(1)) / 2, 5, ("logits", "unknown")
    ),
    "softmax by hand": (
        lambda x: x.exp() / x.exp().sum(1, keepdim=True), 5, ("logits", "unknown")
    ),
    "clamped": (lambda x: x.clamp(0, 1), 5, ("logits", "unknown")),
    "sigmoid": (lambda x: x.sigmoid(), 5, ("labels", "probabilities")),
    "sigmoid and its opposite": (
        lambda x: torch.cat([1 - x.sigmoid(), x.sigmoid()], 1), 1, ("logits", "unknown")
    ),
    "one logit": (lambda x: x, 1, ("score", "logits")),
    "one logit, no axis": (lambda x: x.squeeze(1), 1, ("score", "logits")),
    "one sigmoid": (lambda x: x.sigmoid(), 1, ("score", "probabilities")),
    "one sigmoid, no axis": (lambda x: x.squeeze(1).sigmoid(), 1, ("score", "probabilities")),
    "softplus": (lambda x: fn.softplus(x), 1, ("score", "unknown")),
    "argmax": (lambda x: x.argmax(1), 5, ("label-map", "decided")),
    "argmax as floats": (lambda x: x.argmax(1).float(), 5, ("label-map", "decided")),
    "argmax in the middle": (lambda x: x.argmax(1) / 4, 5, ("score", "unknown")),
    "indices of the top two": (lambda x: x.topk(2, 1).indices, 5, ("label-map", "decided")),
    "values of the top two": (lambda x: x.topk(2, 1).values, 5, ("logits", "unknown")),
    "above": (lambda x: x > 0, 5, ("labels", "decided")),
    "one above": (lambda x: x > 0, 1, ("score", "decided")),
    "of length one": (lambda x: fn.normalize(x), 5, ("embedding", "unknown")),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_one_prediction_for_an_image(name: str) -> None:
    function, outputs, expected = CLASSIFIERS[name]
    assert summary(classifier(function, outputs)) == expected


DENSE: dict[str, tuple[Function, int, tuple[str, str], tuple[str, ...]]] = {
    "convolution": (lambda x: x, 5, ("dense", "logits"), ("class", "y", "x")),
    "resized": (
        lambda x: fn.interpolate(x, scale_factor=2, mode="bilinear"),
        5, ("dense", "logits"), ("class", "y", "x"),
    ),
    "softmax": (
        lambda x: x.softmax(1), 5, ("probabilities", "probabilities"), ("class", "y", "x")
    ),
    "softmax, resized": (
        lambda x: fn.interpolate(x.softmax(1), scale_factor=2, mode="bilinear"),
        5, ("probabilities", "probabilities"), ("class", "y", "x"),
    ),
    "softmax, resized by cubes": (
        lambda x: fn.interpolate(x.softmax(1), scale_factor=2, mode="bicubic"),
        5, ("dense", "unknown"), ("class", "y", "x"),
    ),
    "softmax of the last axis": (
        lambda x: x.softmax(-1), 5, ("embedding", "unknown"), ("feature", "y", "x")
    ),
    "sigmoid": (lambda x: x.sigmoid(), 5, ("labels", "probabilities"), ("class", "y", "x")),
    "one channel": (lambda x: x, 1, ("mask", "logits"), ("channel", "y", "x")),
    "no channel": (lambda x: x.squeeze(1), 1, ("mask", "logits"), ("y", "x")),
    "one sigmoid": (lambda x: x.sigmoid(), 1, ("mask", "probabilities"), ("channel", "y", "x")),
    "one of two": (lambda x: x.softmax(1)[:, 1], 2, ("mask", "probabilities"), ("y", "x")),
    "above": (lambda x: x.sigmoid() > 0.3, 1, ("mask", "decided"), ("channel", "y", "x")),
    "above, as floats": (
        lambda x: (x > 0).float(), 1, ("mask", "decided"), ("channel", "y", "x")
    ),
    "argmax": (lambda x: x.argmax(1), 5, ("label-map", "decided"), ("y", "x")),
    "argmax with its axis": (
        lambda x: x.argmax(1, keepdim=True), 5, ("label-map", "decided"), ("axis_1", "y", "x")
    ),
    "place of the maximum": (
        lambda x: x.max(1).indices, 5, ("label-map", "decided"), ("y", "x")
    ),
    "pooled to one place": (
        lambda x: fn.adaptive_avg_pool2d(x, 1), 5, ("logits", "logits"), ("class", "y", "x")
    ),
    "profiles": (lambda x: x.mean(3), 5, ("embedding", "unknown"), ("axis_1", "axis_2")),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", DENSE)
def test_a_prediction_for_every_place(name: str) -> None:
    function, channels, expected, dims = DENSE[name]
    head = dense(function, channels)
    assert summary(head) == expected
    assert head.dims(("y", "x")) == dims


@pytest.mark.long
def test_how_many_classes_an_argmax_counts() -> None:
    assert classifier(lambda x: x.argmax(1)).classes == 5
    assert dense(lambda x: x.argmax(1)).classes == 5
    assert dense(lambda x: x.argmax(1) + 1).classes is None


def test_pooled_features_are_no_logits() -> None:
    layers = {"first": conv(3, 4, 3, padding=1), "last": conv(4, 6, 1)}

    def pooled(x: Tensor) -> Tensor:
        return fn.adaptive_avg_pool2d(x, 1).flatten(1)

    features = head_of(lambda x, first, last: pooled(fn.silu(last(first(x)))), SHAPE, **layers)
    assert summary(features) == ("embedding", "unknown")
    # As SqueezeNet ends.
    classes = head_of(lambda x, first, last: pooled(fn.relu(last(first(x)))), SHAPE, **layers)
    assert summary(classes) == ("logits", "logits")


@pytest.mark.long
def test_tokens_have_no_axis_of_classes() -> None:
    norm = nn.LayerNorm(4)
    tokens = {"conv": conv(3, 4, 4, 4), "norm": norm}
    found = head_of(lambda x, conv, norm: norm(conv(x).flatten(2).transpose(1, 2)), **tokens)
    assert (found.kind, found.dims(("y", "x"))) == ("embedding", ("axis_1", "axis_2"))
    first = head_of(lambda x, conv, norm: norm(conv(x).flatten(2).mT)[:, 0], **tokens)
    assert (first.kind, first.dims(("y", "x"))) == ("embedding", ("feature",))


@pytest.mark.long
def test_signals() -> None:
    """One spatial axis: (n, c) and (n, x) have as many axes."""
    layer = nn.Conv1d(2, 1, 3, padding=1)
    line = head_of(lambda x, conv: conv(x).squeeze(1), (2, 16), conv=layer)
    assert (line.kind, line.dims(("x",))) == ("mask", ("x",))
    pooled = head_of(lambda x, conv: conv(x).mean(2), (2, 16), conv=nn.Conv1d(2, 16, 3, padding=1))
    assert (pooled.kind, pooled.dims(("x",))) == ("logits", ("class",))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("logits", ("logits", "logits")),
        ("probabilities", ("probabilities", "probabilities")),
        ("labels", ("labels", "logits")),
        ("embedding", ("embedding", "unknown")),
    ],
)
def test_what_somebody_says_counts(kind: Any, expected: tuple[str, str]) -> None:
    head = Head("logits", "unknown", (5,), "float32", 0, "this test says so")
    assert summary(head.named(kind)) == expected


def test_one_number_that_is_said_to_be_a_probability_is_one() -> None:
    number = Head("score", "unknown", (1,), "float32", 0, "this test says so")
    assert summary(number.named("probabilities")) == ("score", "probabilities")
    mask = Head("mask", "logits", (1, 4, 7), "float32", 2, "this test says so")
    assert summary(mask.named("probabilities")) == ("mask", "probabilities")


@pytest.mark.parametrize("kind", ["score", "label-map", "mask", "dense"])
def test_what_an_output_cannot_be_is_refused(kind: Any) -> None:
    head = Head("logits", "logits", (5,), "float32", 0, "this test says so")
    with pytest.raises(OptionError, match=rf"--head {kind} .* expected .* --head logits") as error:
        head.named(kind)
    assert "\n" not in str(error.value)
