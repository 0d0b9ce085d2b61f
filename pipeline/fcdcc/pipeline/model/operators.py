"""Which operators a network may use, and what they are.

A network names its operators as text: ``aten.relu.default``, ``operator.getitem``. Only
operators that :func:`resolve` returns are ever called: those of
:mod:`~fcdcc.pipeline.model.operator_list`, and arithmetic on numbers for sizes. Model files may
also name operators that change an argument (``relu_``) if the operator without the underscore
is on the list; the importer replaces them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from ..errors import ModelError, UnsafeModelError
from .network import Step
from .operator_list import CALLED, READ_ONLY
from .output_bundle import BUNDLE, bundle
from .size_arithmetic import NUMBER_OPERATORS, number_function


def words(text: str) -> frozenset[str]:
    """Return the set of words of a text; lists of operators are written this way.

    >>> sorted(words("add mul"))
    ['add', 'mul']
    """
    return frozenset(text.split())


_GETITEM = "operator.getitem"
_RANDOM_ATEN = words(
    """
    bernoulli bernoulli_ binomial cauchy cauchy_ exponential exponential_ geometric
    geometric_ log_normal log_normal_ multinomial native_dropout normal normal_
    normal_functional poisson rand rand_like randint randint_like randn randn_like random
    random_ randperm uniform uniform_
    """
)
# Composite operators whose schema does not say that they may return a view of an argument.
_FRESH_COMPOSITES = words(
    """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d batch_norm
    layer_norm group_norm instance_norm rms_norm linear max_pool1d max_pool2d max_pool3d
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d cat concat concatenate
    hstack vstack dstack stack matmul upsample_nearest1d upsample_nearest2d
    upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d
    upsample_bicubic2d softmax log_softmax scaled_dot_product_attention relu6 selu prelu
    embedding clone where
    """
)


def operator_name(target: str) -> str:
    """Return the name in a network of an operator, given its name in ``torch.export``.

    >>> operator_name("torch.ops.aten.relu.default")
    'aten.relu.default'
    >>> operator_name("_operator.mul")
    'operator.mul'
    """
    if target.startswith("torch.ops."):
        return target.removeprefix("torch.ops.")
    if target.startswith("_operator."):
        return target.removeprefix("_")
    return target


@lru_cache(maxsize=4096)
def resolve(name: str) -> Callable[..., Any]:
    """Return the function of one operator of the list.

    Raises
    ------
    UnsafeModelError
        If the operator is not on the list.
    ModelError
        If it draws random numbers, or this version of torch does not have it.
    """
    if name == _GETITEM:
        return operator.getitem
    if name == BUNDLE:
        return bundle
    if name in NUMBER_OPERATORS:
        return number_function(name)
    if name.removeprefix("aten.") not in CALLED:
        _aten(name)  # its error says more
        raise UnsafeModelError(f"the operator {name!r} is not one that may be called")
    return _aten(name)


@lru_cache(maxsize=4096)
def check_operator(name: str) -> None:
    """Refuse an operator that a model file may not name.

    Raises
    ------
    UnsafeModelError, ModelError
        As for :func:`resolve`.
    """
    if name != _GETITEM and name not in NUMBER_OPERATORS:
        _aten(name)


def _may_be_named(packet: str, overload: str) -> bool:
    """Return whether a model may name an ATen operator."""
    name = f"{packet}.{overload}"
    if name in CALLED or name in READ_ONLY:
        return True
    return (
        packet.endswith("_")
        and not packet.startswith("__")
        and f"{packet.removesuffix('_')}.{overload}" in CALLED
    )


@lru_cache(maxsize=4096)
def _aten(name: str) -> torch._ops.OpOverload[..., Any]:
    namespace, _, rest = name.partition(".")
    packet_name, _, overload = rest.partition(".")
    if namespace != "aten" or not packet_name.isidentifier() or not overload.isidentifier():
        raise UnsafeModelError(
            f"the model uses the operator {name!r:.100}; expected ATen operators and arithmetic on "
            "sizes only: replace custom operators by PyTorch's own before the export"
        )
    if packet_name in _RANDOM_ATEN:
        raise ModelError(
            f"the model draws random numbers ({name}); expected a network that computes the "
            "same each time: call model.eval() before the export, or take that step out"
        )
    if packet_name.startswith("_") and not _may_be_named(packet_name, overload):
        raise _not_listed(name)
    qualified = f"aten::{packet_name}"
    registered = torch._C._dispatch_has_kernel(
        qualified if overload == "default" else f"{qualified}.{overload}"
    )
    if not registered:
        raise ModelError(
            f"this version of PyTorch ({torch.__version__}) has no operator {name!r:.100}; "
            "export the model again with this version"
        )
    if not _may_be_named(packet_name, overload):
        raise _not_listed(name)
    packet = getattr(torch.ops.aten, packet_name)
    found: torch._ops.OpOverload[..., Any] = getattr(packet, overload)
    return found


def _not_listed(name: str) -> UnsafeModelError:
    return UnsafeModelError(
        f"the model uses the operator {name!r:.100}, which is not on the list of operators that a "
        "network may use: write the model with other operators before the export"
    )


def schema(name: str) -> torch.FunctionSchema | None:
    """Return the schema of an ATen operator; None for those of our own and arithmetic on sizes."""
    if name in (_GETITEM, BUNDLE) or name in NUMBER_OPERATORS:
        return None
    return _aten(name)._schema


@lru_cache(maxsize=4096)
def written_arguments(name: str) -> tuple[str, ...]:
    """Return the names of the arguments that the operator changes."""
    found = schema(name)
    if found is None:
        return ()
    return tuple(
        argument.name
        for argument in found.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def is_functional(name: str) -> bool:
    """Return whether the operator leaves all its arguments as they are."""
    return not written_arguments(name)


@lru_cache(maxsize=4096)
def may_alias(name: str) -> bool:
    """Return whether an output may share memory with an argument."""
    found = schema(name)
    if found is None:
        return name == _GETITEM
    if any(argument.alias_info is not None for argument in found.arguments):
        return True
    qualified = found.name + (f".{found.overload_name}" if found.overload_name else "")
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(
        qualified, "CompositeImplicitAutograd"
    )
    return composite and found.name.removeprefix("aten::") not in _FRESH_COMPOSITES


@lru_cache(maxsize=4096)
def is_number(name: str) -> bool:
    """Return whether the operator makes a number (or several) rather than tensors."""
    found = schema(name)
    if found is None:
        return name in NUMBER_OPERATORS
    return not any("Tensor" in str(result.type) for result in found.returns)


@lru_cache(maxsize=4096)
def argument_kinds(name: str) -> tuple[tuple[str, str, Any], ...]:
    """Return (name, type in the schema, default) of each argument of an ATen operator.

    An argument without a default has the default ``...``.
    """
    return tuple(
        (a.name, str(a.real_type), a.default_value if a.has_default_value() else ...)
        for a in _aten(name)._schema.arguments
    )


@lru_cache(maxsize=4096)
def _formal_arguments(name: str) -> tuple[tuple[str, bool, Any], ...]:
    """Return (name, keyword only, default) of each argument of an ATen operator."""
    return tuple(
        (argument.name, argument.kwarg_only, argument.default_value)
        for argument in _aten(name)._schema.arguments
    )


def bound_arguments(step: Step) -> dict[str, Any]:
    """Return an ATen step's arguments by their name in the schema, defaults included.

    >>> bound_arguments(Step("y", "aten.leaky_relu.default", (1.0,), {}))
    {'self': 1.0, 'negative_slope': 0.01}
    """
    args, kwargs = step.args, step.kwargs
    bound: dict[str, Any] = {}
    for position, (name, keyword_only, default) in enumerate(_formal_arguments(step.op)):
        if position < len(args) and not keyword_only:
            bound[name] = args[position]
        else:
            bound[name] = kwargs.get(name, default)
    return bound


@lru_cache(maxsize=4096)
def needs_device(name: str) -> bool:
    """Return whether the operator makes a tensor from numbers only, on a ``device`` argument."""
    found = schema(name)
    if found is None:
        return False
    names = [argument.name for argument in found.arguments]
    tensors = any("Tensor" in str(argument.type) for argument in found.arguments)
    return "device" in names and not tensors
