"""The mathematics of coded convolution: partitions, codes, encoding and decoding.

NumPy for the small matrices, torch for tensors; no cluster, no files, no clock.
:func:`make_code` gives a code by name, :func:`coded_conv` is a convolution done with it,
and :class:`CodedConv` is one coded layer, step by step.
"""

from __future__ import annotations

from ._version import __version__
from .code import Code
from .convolution import coded_conv
from .crme import crme
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
    "crme",
    "make_code",
]
