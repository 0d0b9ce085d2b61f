"""Operators: which may be called, and that no others are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from fcdcc.pipeline.errors import ModelError, UnsafeModelError
from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step
from fcdcc.pipeline.model.operators import resolve, words

X = Ref("x")


def glue(*steps: Step, outputs: tuple[str, ...] | None = None) -> GlueStage:
    return GlueStage(0, ("x",), outputs or (steps[-1].name,), steps)


def step(op: str, *args: Any, name: str = "y", **kwargs: Any) -> Step:
    return Step(name, op, args, kwargs)


def run(stage: GlueStage, x: Tensor, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    (result,) = run_steps(stage, {"x": x, "other": x}, tensors or {}).values()
    return result


@pytest.mark.parametrize(
    "op",
    [
        "os.system",
        "operator.methodcaller",
        "operator.attrgetter",
        "math.factorial",
        "torch.load",
        "torch.sym_size",
        "aten.from_file.default",
        "aten._print.default",
        "aten.set_.source_Tensor",
        "aten.resize_.default",
        "aten.__class__.mro",
        "aten.relu",
        "aten.relu.default.name",
        "prim.device.default",
        "aten:relu.default",
        "",
    ],
)
def test_operators_beyond_arithmetic_are_not_run(op: str) -> None:
    with pytest.raises(UnsafeModelError):
        run(glue(step(op, X)), torch.zeros(1))


@pytest.mark.parametrize("op", ["aten.rand_like.default", "aten.bernoulli.p"])
def test_operators_that_draw_random_numbers_are_not_run(op: str) -> None:
    with pytest.raises(ModelError, match="random"):
        run(glue(step(op, X)), torch.zeros(1))


def test_operators_that_take_text_or_foreign_objects_are_known() -> None:
    """What a new version of PyTorch adds is looked at before models may use it."""
    plain = {"Tensor", "int", "float", "bool", "number", "Device", "Generator"}
    known = words(
        """
        conv1d conv2d conv3d div divide einsum gelu index_reduce linalg_cond linalg_eigh
        linalg_eigvalsh linalg_lstsq linalg_matrix_norm linalg_norm linalg_qr linalg_svd
        linalg_svdvals meshgrid nanquantile pad pad_sequence quantile scatter scatter_reduce
        searchsorted segment_reduce stft gelu_backward scatter_ scatter_reduce_ index_reduce_
        gelu_ div_ divide_ _convolution_mode _assert_async _assert_scalar
        _functional_assert_async _functional_assert_scalar
        """
    )
    unknown = []
    for full_name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = full_name.removeprefix("aten::").partition(".")
        if not full_name.startswith("aten::") or packet in known or packet.startswith("fft_"):
            continue
        try:
            operator = resolve(f"aten.{packet}.{overload or 'default'}")
        except ModelError:
            continue
        for argument in operator._schema.arguments:
            base = str(argument.type)
            for wrapper in ("Optional[", "List[", "]"):
                base = base.replace(wrapper, "")
            if base not in plain:
                unknown.append((full_name, argument.name, base))
    assert not unknown
