"""Operators: which may be called, and that no others are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from fcdcc.pipeline.errors import ModelError, UnsafeModelError
from fcdcc.pipeline.model.interpreter import run_steps
from fcdcc.pipeline.model.network import GlueStage, Ref, Step
from fcdcc.pipeline.model.operator_list import (
    CALLED,
    GROUPS,
    NEVER_CALLED,
    READ_ONLY,
    OperatorGroup,
)
from fcdcc.pipeline.model.operators import check_operator, resolve

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


def all_names() -> list[str]:
    """Every operator of ATen in the PyTorch that is installed."""
    names = []
    for full_name in torch._C._dispatch_get_all_op_names():
        if full_name.startswith("aten::"):
            packet, _, overload = full_name.removeprefix("aten::").partition(".")
            names.append(f"{packet}.{overload or 'default'}")
    return names


def accepts(check: Callable[[str], object], name: str) -> bool:
    try:
        check(f"aten.{name}")
    except ModelError:
        return False
    return True


def test_no_operator_is_called_that_is_not_on_the_list() -> None:
    names = all_names()
    assert len(names) > 2500
    assert {name for name in names if accepts(resolve, name)} == CALLED


def test_a_model_names_listed_operators_and_their_forms_that_change_an_argument() -> None:
    named = {name for name in all_names() if accepts(check_operator, name)}
    others = named - CALLED - READ_ONLY
    for name in others:
        packet, _, overload = name.partition(".")
        assert packet.endswith("_")
        assert f"{packet.removesuffix('_')}.{overload}" in CALLED
        assert not accepts(resolve, name)


def test_listed_operators_compute_their_results_and_do_nothing_else() -> None:
    plain = {
        *("Tensor", "int", "float", "bool", "number", "str", "Device", "ScalarType", "Layout"),
        *("MemoryFormat", "Generator"),
    }
    for name in CALLED:
        packet, _, overload = name.partition(".")
        found = getattr(getattr(torch.ops.aten, packet), overload)
        assert not any(
            argument.alias_info is not None and argument.alias_info.is_write
            for argument in found._schema.arguments
        ), name
        for argument in found._schema.arguments:
            kind = str(argument.real_type)
            for wrapper in ("Optional[", "List[", "]"):
                kind = kind.replace(wrapper, "")
            assert kind in plain, name
        # The one with a generator does not use it in inference, which its rule checks.
        assert torch.Tag.nondeterministic_seeded not in found.tags or packet in SEEDED, name
        assert not packet.removeprefix("new_").startswith("empty"), name


SEEDED = {
    *("rrelu", "scaled_dot_product_attention", "_scaled_dot_product_attention_math"),
    *("_scaled_dot_product_flash_attention_for_cpu", "lstm", "gru", "rnn_tanh", "rnn_relu"),
}


@pytest.mark.parametrize("group", [*GROUPS.values(), *NEVER_CALLED.values()])
def test_the_list_gives_reasons_and_names_each_operator_once(group: OperatorGroup) -> None:
    assert group.reason.endswith(".")
    names = group.operators.split()
    assert len(set(names)) == len(names)
    others = [g for g in (*GROUPS.values(), *NEVER_CALLED.values()) if g is not group]
    assert not {name for g in others for name in g.operators.split()} & set(names)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("operator.pow", (7, 10**10)),
        ("operator.pow", (-3, 64)),
        ("operator.lshift", (1, 2**40)),
        ("operator.mul", ("a", 10**11)),
        ("operator.mul", (2**40, 2**40)),
        ("operator.mod", ("%09000000000d", 1)),
        ("operator.add", ([1], [2])),
        ("operator.floordiv", (1, 0)),
        ("operator.rshift", (1, -1)),
        ("torch.sym_float", ("nan",)),
        ("math.trunc", (float("inf"),)),
    ],
)
def test_arithmetic_on_sizes_stays_within_64_bits(op: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match="size"):
        resolve(op)(*arguments)


def test_arithmetic_on_sizes_computes_as_python_does() -> None:
    assert resolve("operator.pow")(2, 62) == 2**62
    assert resolve("operator.pow")(2, -1) == 0.5
    assert resolve("operator.lshift")(3, 4) == 48
    assert resolve("torch.sym_ite")(True, 3, 4) == 3
    assert resolve("torch.sym_max")(3, 4) == 4
