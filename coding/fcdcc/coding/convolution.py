"""A convolution computed with a code, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from .checks import check_alike, check_dtype, check_shape
from .code import Code
from .errors import NotDecodableError
from .geometry import ConvGeometry, Padding
from .nsctc import CodedConv, Split

__all__ = ["coded_conv"]


def coded_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding | Sequence[Sequence[int]] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    code: Code,
    survivors: Iterable[int] | None = None,
    split: Split = "rows",
) -> torch.Tensor:
    """Return a convolution, computed in coded shares and decoded from some of them.

    The same as ``torch.nn.functional.conv1d``, ``conv2d`` or ``conv3d``, up to rounding.

    Parameters
    ----------
    x
        (batch, C, *space), or (C, *space) for one image; float32 or float64.
    weight
        (N, C / groups, *kernel).
    bias
        (N,), added after decoding; None for none.
    stride, padding, dilation, groups
        As in torch; padding also as pairs (before, after).
    code
        The code, see :func:`fcdcc.coding.make_code`.
    survivors
        The shares to compute and to decode from; by default the first δ.
    split
        Split the input by 'rows' or by 'images'.

    Raises
    ------
    GeometryError
        If the arguments do not fit together.
    TensorError
        If dtypes or devices differ, or are not supported.
    NotDecodableError
        If the survivors do not decode.
    CodeError
        If there is no such survivor or split.

    Examples
    --------
    >>> from fcdcc.coding import make_code
    >>> x, weight = torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3)
    >>> code = make_code("crme", n=6, k_a=4, k_b=4)
    >>> y = coded_conv(x, weight, padding=1, code=code, survivors=[1, 2, 4, 5])
    >>> torch.allclose(y, torch.nn.functional.conv2d(x, weight, padding=1), atol=1e-4)
    True
    """
    check_dtype(x)
    check_alike(x, weight)
    geometry = ConvGeometry.of(x.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None:
        check_alike(x, bias)
        check_shape("bias", bias, (geometry.out_channels,))
    layer = CodedConv(geometry, code, split)
    images = x if x.ndim == geometry.ndim + 2 else x[None]
    chosen = _first_decodable(code) if survivors is None else _decodable(code, survivors)
    results = {}
    for share in chosen:
        coded_input = layer.encode_input(images, share)
        results[share] = layer.convolve(coded_input, layer.encode_filters(weight, share), share)
    out = layer.decode(results, len(images))
    if bias is not None:
        out = out + bias.view(-1, *[1] * geometry.ndim)
    return out if x.ndim == images.ndim else out[0]


def _decodable(code: Code, survivors: Iterable[int]) -> tuple[int, ...]:
    """Return the survivors, each once; raises an error if they do not decode."""
    return code.decoder(survivors).survivors


def _first_decodable(code: Code) -> tuple[int, ...]:
    """Return the first δ shares, or as many of the first as are needed to decode."""
    for count in range(code.recovery_threshold, code.n + 1):
        if code.is_decodable(range(count)):
            return tuple(range(count))
    raise NotDecodableError(
        f"all {code.n} shares of the {code.name} code do not decode: use another code"
    )
