"""Types of elements that the kernels of each operator take on a CPU.

A value of another type would end a run with an error of PyTorch, so it is refused before. The
table was measured, and a test measures it again with the PyTorch that is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .facts import ArgumentsError, BatchSize, Facts, NotPerImageError, OperatorCall, names

# One letter for each group of types.
_GROUPS: dict[torch.dtype, str] = {
    torch.float16: "h",
    torch.bfloat16: "h",
    torch.float32: "f",
    torch.float64: "f",
    torch.uint8: "i",
    torch.int8: "i",
    torch.int16: "i",
    torch.int32: "i",
    torch.int64: "i",
    torch.bool: "b",
    torch.complex64: "c",
    torch.complex128: "c",
}
_NAMES = {"h": "half", "f": "single and double", "i": "integer", "b": "bool", "c": "complex"}
_ALL = "hfibc"
_CASTS = frozenset({"to", "_to_copy", "type_as"})
_TAKEN: dict[str, str] = {
    **dict.fromkeys(
        names("""
        _prelu_kernel celu elu frac gelu glu hardshrink hardsigmoid hardswish hardtanh hypot
        leaky_relu log_sigmoid mish prelu rrelu selu softplus softshrink avg_pool1d avg_pool2d
        max_pool1d
        """),
        "hf",
    ),
    **dict.fromkeys(names("addcdiv lerp logaddexp silu norm frobenius_norm"), "hfc"),
    **dict.fromkeys(
        names("""
        amax amin arctan2 atan2 clamp clamp_max clamp_min copysign cummax cummin deg2rad digamma
        erf erfc erfinv fmax fmin ge greater greater_equal gt heaviside
        isneginf isposinf le less less_equal lgamma logit lt max maximum min minimum nanmean
        nansum rad2deg sign signbit special_erf special_logit special_xlogy xlogy
        """),
        "hfib",
    ),
    **dict.fromkeys(
        names("""
        argmax argmin bucketize ceil clip fix floor floor_divide fmod relu relu6 remainder round
        threshold trunc
        """),
        "hfi",
    ),
    **dict.fromkeys(
        names("""
        abs absolute addcmul neg negative positive pow rsub sub subtract topk reflection_pad1d
        reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d
        """),
        "hfic",
    ),
    **dict.fromkeys(
        names("__and__ __or__ __xor__ bitwise_and bitwise_not bitwise_or bitwise_xor"), "ib"
    ),
    **dict.fromkeys(
        names("""
        fft_fft fft_fft2 fft_fftn fft_ifft fft_ifft2 fft_ifftn fft_irfft fft_irfft2 fft_irfftn
        fft_rfft fft_rfft2 fft_rfftn _fused_rms_norm _weight_norm_interface
        _scaled_dot_product_flash_attention_for_cpu
        """),
        "fc",
    ),
    **dict.fromkeys(names("_upsample_bicubic2d_aa _upsample_bilinear2d_aa avg_pool3d"), "f"),
}
_INTEGER = (int, BatchSize)
_KINDS: dict[str, tuple[type, ...]] = {
    "Tensor": (Facts,),
    "int": _INTEGER,
    "float": (int, float),
    "bool": (bool,),
    "number": (int, float, complex),
    "str": (str,),
    "ScalarType": (torch.dtype,),
    "Layout": (torch.layout,),
    "MemoryFormat": (torch.memory_format,),
    "Device": (torch.device,),
    "Generator": (),
}
_BY_MODE = {"div": "hfi", "divide": "hfi"}


def check_kinds(call: OperatorCall, kinds: Iterable[tuple[str, str, Any]]) -> None:
    """Refuse arguments of another kind than the operator's schema says.

    Kernels take types, layouts and memory formats as plain numbers and trust them.

    Parameters
    ----------
    kinds
        (name, kind, default) of each argument.
    """
    for name, kind, default in kinds:
        value = call.arguments[name]
        if value is default:
            continue
        if isinstance(value, BatchSize) and ("number" in kind or kind == "Tensor"):
            raise NotPerImageError(f"its argument {name!r} depends on the number of images")
        # A number may stand for a tensor without axes; rules that need a tensor refuse it.
        number = kind == "Tensor" and isinstance(value, (int, float, complex))
        if not number and not _is_of_kind(value, kind):
            raise ArgumentsError(f"its argument {name!r} is {value!r:.60}; expected {kind}")


def _is_of_kind(value: Any, kind: str) -> bool:
    if kind.startswith("Optional["):
        return value is None or _is_of_kind(value, kind[9:-1])
    if kind.startswith("List["):
        inner = kind[5:-1]
        return isinstance(value, (list, tuple)) and all(_is_of_kind(v, inner) for v in value)
    if isinstance(value, bool) and kind in ("int", "float"):
        return False
    return isinstance(value, _KINDS[kind])


def check_types(call: OperatorCall) -> None:
    """Refuse values of a type that the kernels of an operator do not take."""
    taken = _TAKEN.get(call.packet, _ALL)
    if call.overload.endswith("_mode") and call.arguments.get("rounding_mode") is not None:
        taken = _BY_MODE.get(call.packet, taken)
    elif call.packet == "round" and call.overload == "decimals":
        taken = "hf"
    elif call.packet == "pad" and call.arguments.get("mode") != "constant":
        taken = _TAKEN["reflection_pad1d"]
    for value in call.arguments.values():
        if isinstance(value, Facts):
            _check(call, value.dtype, taken)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Facts):
                    _check(call, item.dtype, taken)
    wanted = call.arguments.get("dtype")
    if isinstance(wanted, torch.dtype) and wanted not in _GROUPS:
        raise ArgumentsError(f"it makes values of {wanted}")


def _check(call: OperatorCall, dtype: torch.dtype, taken: str) -> None:
    group = _GROUPS.get(dtype)
    if group is None and call.packet in _CASTS:
        return
    if group is None or group not in taken:
        groups = ", ".join(_NAMES[letter] for letter in taken)
        raise ArgumentsError(f"it takes values of {dtype}, and PyTorch has it only for {groups}")
