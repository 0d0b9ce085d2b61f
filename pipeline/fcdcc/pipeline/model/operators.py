"""Which operators a network may use, and what they are.

A network names its operators as text: ``aten.relu.default``, ``operator.getitem``. Only
operators that :func:`resolve` returns are ever called: functional ATen operators, and
arithmetic on numbers for sizes. An operator may only compute its outputs from its inputs: it
draws no random numbers, changes no argument and opens no file.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from ..errors import ModelError, UnsafeModelError
from .network import Step


def words(text: str) -> frozenset[str]:
    """Return the set of words of a text; lists of operators are written this way.

    >>> sorted(words("add mul"))
    ['add', 'mul']
    """
    return frozenset(text.split())


# Arithmetic on sizes, as torch.export writes it.
_NUMBERS: dict[str, Callable[..., object]] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "lshift", "rshift"),
        )
    },
    "math.trunc": math.trunc,
    "torch.sym_int": torch.sym_int,
    "torch.sym_float": torch.sym_float,
    "torch.sym_not": torch.sym_not,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_ite": torch.sym_ite,
}
_PLAIN: dict[str, Callable[..., object]] = {**_NUMBERS, "operator.getitem": operator.getitem}

# ATen names that begin with an underscore are internal; these occur in exported networks.
_INTERNAL_ATEN = words(
    """
    __and__ __lshift__ __or__ __rshift__ __xor__
    _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar
    _assert_tensor_metadata _batch_norm_no_update _conv_depthwise2d _convolution
    _convolution_mode _functional_assert_async _functional_assert_scalar
    _fused_rms_norm _local_scalar_dense _log_softmax _native_batch_norm_legit
    _native_batch_norm_legit_functional _native_batch_norm_legit_no_training
    _native_multi_head_attention _pad_circular _pad_enum _prelu_kernel _reshape_alias
    _reshape_alias_copy _reshape_copy _safe_softmax _scaled_dot_product_attention_math
    _scaled_dot_product_flash_attention_for_cpu _softmax _stack _to_copy
    _transform_bias_rescale_qkv _transformer_encoder_layer_fwd _unsafe_index
    _unsafe_index_put _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    _weight_norm _weight_norm_interface
    """
)
# Operators that open files, or access memory that is not the argument's own.
_FORBIDDEN_ATEN = words(
    """
    from_file data set set_ resize resize_ resize_as resize_as_ record_stream
    quantized_gru quantized_lstm sparse_resize_ sparse_resize_and_clear_
    """
)
_RANDOM_ATEN = words(
    """
    bernoulli bernoulli_ binomial cauchy cauchy_ exponential exponential_ geometric
    geometric_ log_normal log_normal_ multinomial normal normal_ normal_functional poisson
    rand rand_like randint randint_like randn randn_like random random_ randperm uniform
    uniform_
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
    """Return the function of one operator.

    Raises
    ------
    UnsafeModelError
        If the name is not one of an ATen operator or of arithmetic on sizes, or if the
        operator does more than compute its outputs.
    ModelError
        If it draws random numbers, or this version of torch does not have it.
    """
    if name in _PLAIN:
        return _PLAIN[name]
    return _aten(name)


def _aten(name: str) -> torch._ops.OpOverload[..., Any]:
    namespace, _, rest = name.partition(".")
    packet_name, _, overload = rest.partition(".")
    if namespace != "aten" or not packet_name.isidentifier() or not overload.isidentifier():
        raise UnsafeModelError(
            f"the model uses the operator {name!r}; expected ATen operators and arithmetic on "
            "sizes only: replace custom operators by PyTorch's own before the export"
        )
    internal = packet_name.startswith("_") and packet_name not in _INTERNAL_ATEN
    if packet_name in _FORBIDDEN_ATEN or internal:
        raise UnsafeModelError(
            f"the model uses the operator {name!r}, which is not one that a network may use"
        )
    if packet_name in _RANDOM_ATEN:
        raise ModelError(
            f"the model draws random numbers ({name}); expected a network that computes the "
            "same each time: call model.eval() before the export, or take that step out"
        )
    qualified = f"aten::{packet_name}"
    registered = torch._C._dispatch_has_kernel(
        qualified if overload == "default" else f"{qualified}.{overload}"
    )
    if not registered:
        raise ModelError(
            f"this version of PyTorch ({torch.__version__}) has no operator {name!r}; "
            "export the model again with this version"
        )
    packet = getattr(torch.ops.aten, packet_name)
    found: torch._ops.OpOverload[..., Any] = getattr(packet, overload)
    return found


def schema(name: str) -> torch.FunctionSchema | None:
    """Return the schema of an ATen operator; None for arithmetic on sizes."""
    if name in _PLAIN:
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
        return name == "operator.getitem"
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
        return name in _NUMBERS
    return not any("Tensor" in str(result.type) for result in found.returns)


def bound_arguments(step: Step) -> dict[str, Any]:
    """Return an ATen step's arguments by their name in the schema, defaults included.

    >>> bound_arguments(Step("y", "aten.leaky_relu.default", (1.0,), {}))
    {'self': 1.0, 'negative_slope': 0.01}
    """
    found = _aten(step.op)._schema
    bound: dict[str, Any] = {}
    for position, argument in enumerate(found.arguments):
        if position < len(step.args) and not argument.kwarg_only:
            bound[argument.name] = step.args[position]
        elif argument.name in step.kwargs:
            bound[argument.name] = step.kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value
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
