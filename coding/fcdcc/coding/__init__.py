"""The mathematics of coded convolution: partitions, codes, encoding and decoding.

It uses NumPy for the small matrices of codes and torch for tensors, and no cluster, files or
clock. :func:`make_code` returns a code by its name, :func:`coded_conv` computes a convolution
with a code in one call, and :class:`CodedConv` has the steps of one coded layer.

Names are imported when they are first used: importing torch takes seconds, and code that only
needs an error class or the version should not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .code import Code
    from .convolution import coded_conv
    from .decoder import Decoder
    from .errors import (
        Abandoned,
        CodeError,
        FcdccError,
        GeometryError,
        NotDecodableError,
        TensorError,
    )
    from .geometry import ConvGeometry
    from .nsctc import CodedConv, Split
    from .registry import code_names, make_code

__all__ = [
    "Abandoned",
    "Code",
    "CodeError",
    "CodedConv",
    "ConvGeometry",
    "Decoder",
    "FcdccError",
    "GeometryError",
    "NotDecodableError",
    "Split",
    "TensorError",
    "__version__",
    "code_names",
    "coded_conv",
    "make_code",
]

_MODULE_OF = {
    "Abandoned": "errors",
    "Code": "code",
    "CodeError": "errors",
    "CodedConv": "nsctc",
    "ConvGeometry": "geometry",
    "Decoder": "decoder",
    "FcdccError": "errors",
    "GeometryError": "errors",
    "NotDecodableError": "errors",
    "Split": "nsctc",
    "TensorError": "errors",
    "code_names": "registry",
    "coded_conv": "convolution",
    "make_code": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
