"""Which outputs a network has, what they are called, and the choice of some of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fcdcc.pipeline import open_model
from fcdcc.pipeline.errors import ModelError, OptionError
from fcdcc.pipeline.model.head_analysis import find_heads
from fcdcc.pipeline.model.interpreter import run_outputs
from fcdcc.pipeline.model.opening import Model
from support.modules import Lambda, conv, ready
from support.pt2 import GRAPH, edited, pt2
from support.several_outputs import segmenter

SHAPE = (3, 8, 8)


class Returning(nn.Module):
    """Two values of the images, in a form of one's own."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.form = nn.Conv2d(3, 4, 3, padding=1), form

    def forward(self, x: Tensor) -> Any:
        made = self.conv(x)
        return self.form(made, made.mean((2, 3)))


def opened(form: Callable[[Tensor, Tensor], Any], **options: Any) -> Model:
    return open_model(pt2(ready(Returning(form)), (2, *SHAPE), **options))


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda y, z: y, ["prediction"]),
        (lambda y, z: (y, z), ["output_0", "output_1"]),
        (lambda y, z: [y], ["output_0"]),
        (lambda y, z: {"out": y, "aux": z}, ["out", "aux"]),
        (lambda y, z: OrderedDict(out=y, aux=z), ["out", "aux"]),
        (lambda y, z: {"f": [y, z], "g": {"h": z}, 3: y}, ["f.0", "f.1", "g.h", "output_3"]),
        (lambda y, z: {"a/b": y, "a b": z}, ["a_b", "a_b_2"]),
        (lambda y, z: (y, None, 3, z), ["output_0", "output_3"]),
        (lambda y, z: (y, y), ["output_0", "output_1"]),
    ],
)
def test_outputs_have_the_names_that_the_program_gives_them(
    form: Callable[[Tensor, Tensor], Any], names: list[str]
) -> None:
    module = ready(Returning(form))
    model = open_model(pt2(module, (2, *SHAPE)))
    assert list(model.network.outputs) == names
    images = torch.rand(3, *SHAPE)
    with torch.inference_mode():
        expected = [t for t in tree_leaves(module(images)) if torch.is_tensor(t)]
    for name, wanted in zip(names, expected, strict=True):
        found = run_outputs(model.network, images)[name]
        torch.testing.assert_close(found, wanted)
        alone = run_outputs(model.with_outputs([name]).network, images)
        assert list(alone) == [name]
        torch.testing.assert_close(alone[name], wanted)


def test_a_file_without_a_readable_form_numbers_its_outputs() -> None:
    data = pt2(ready(Returning(lambda y, z: {"out": y, "aux": z})), (2, *SHAPE))

    def spoil(value: Any, tree: Any) -> None:
        value["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = tree

    deep = "[1, " + '{"type": "builtins.list", "context": null, "children_spec": [' * 5000
    for tree in (None, "", "[1, 2, 3]", '[1, {"children_spec": 4}]', deep, 7, "[" * 100000):
        model = open_model(edited(data, GRAPH, lambda value, tree=tree: spoil(value, tree)))
        assert list(model.network.outputs) == ["output_0", "output_1"]


def test_what_is_not_of_each_image_is_left_out_where_something_is() -> None:
    class Mixed(Returning):
        def __init__(self) -> None:
            super().__init__(lambda y, z: y)
            self.anchors = nn.Buffer(torch.arange(6.0))

        def forward(self, x: Tensor) -> Any:
            made = self.conv(x)
            anchors = self.anchors * 2
            loss, spread = made.mean(), made - made.mean(0, keepdim=True)
            turned = made.mean((2, 3)).T
            return {
                "out": made, "anchors": anchors, "loss": loss, "turned": turned, "spread": spread,
            }  # fmt: skip

    model = open_model(pt2(ready(Mixed()), (2, *SHAPE)))
    assert list(model.network.outputs) == ["out"]
    left_out = model.network.left_out
    assert left_out["anchors"] == "it does not depend on the images"
    assert left_out["loss"] == left_out["turned"] == "its first axis is not that of the images"
    assert "does not treat the images of a batch one by one" in left_out["spread"]
    with pytest.raises(
        OptionError, match=r"--output loss cannot be predicted: its first axis.*out"
    ):
        model.with_outputs(["loss"])
    with pytest.raises(OptionError, match="'boxes': the network has no such output; expected out"):
        model.with_outputs(["boxes"])


@pytest.mark.parametrize(
    "form",
    [
        lambda y, z: (y.mean(), z.T),
        lambda y, z: (y - y.mean(0), z.softmax(0)),
    ],
)
def test_a_network_without_any_output_of_each_image_is_refused(
    form: Callable[[Tensor, Tensor], Any],
) -> None:
    with pytest.raises(ModelError, match=r"first axis|one by one"):
        opened(form)


def test_hundreds_of_outputs_are_refused() -> None:
    with pytest.raises(ModelError, match="returns 300 tensors; expected at most 256"):
        opened(lambda y, z: [z + 1 for _ in range(300)])


def test_a_chosen_output_leaves_out_what_only_others_need() -> None:
    model = open_model(pt2(segmenter(), (2, 3, 16, 16)))
    chosen = model.with_outputs(["out"]).network
    assert len(chosen.convolutions) == len(model.network.convolutions) - 2
    assert chosen.fingerprint != model.network.fingerprint
    assert model.with_outputs(["aux", "out"]).network is model.network
    assert model.with_outputs(None).network is model.network


def test_outputs_of_a_network_in_bfloat16_are_floats() -> None:
    module = ready(Returning(lambda y, z: {"out": y, "classes": y.argmax(1)}))
    images = torch.rand(3, *SHAPE)
    with torch.inference_mode():
        expected = module(images)
    model = open_model(pt2(module, (2, *SHAPE)))
    for names in (None, ["out"], ["classes"]):
        network = model.with_outputs(names).to(torch.bfloat16).network
        for name, found in run_outputs(network, images).items():
            assert found.dtype == expected[name].dtype
            if name == "out":
                torch.testing.assert_close(found, expected["out"], rtol=0.05, atol=0.05)


def test_what_each_output_is() -> None:
    module = ready(
        Lambda(
            lambda x, c, d: (c(x).mean((2, 3)).softmax(1), d(x).sigmoid() > 0.5, d(x).flatten(1)),
            c=conv(3, 4, 3), d=conv(3, 1, 3),
        )
    )  # fmt: skip
    found = find_heads(open_model(pt2(module, (2, *SHAPE))).network, SHAPE)
    assert [head.kind for head in found.values()] == ["probabilities", "mask", "logits"]
    assert [head.dtype for head in found.values()] == ["float32", "bool", "float32"]


def test_what_in_place_operations_change_after_it_was_returned() -> None:
    def changed(x: Tensor, c: nn.Module) -> Any:
        first = c(x)
        view = first[:, :2]
        view.relu_()
        return {"all": first, "some": view, "half": torch.round(first).to(torch.int16)}

    module = ready(Lambda(changed, c=conv(3, 4, 3)))
    images = torch.rand(3, *SHAPE)
    with torch.inference_mode():
        expected = module(images)
    found = run_outputs(open_model(pt2(module, (2, *SHAPE))).network, images)
    for name, wanted in expected.items():
        torch.testing.assert_close(found[name], wanted)
