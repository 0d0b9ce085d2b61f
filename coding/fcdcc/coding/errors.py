"""The errors of the coding layer and their common base, grouped by how a caller handles them.

Every error derives from :class:`FcdccError` and from the builtin that it resembles, so
that both ``except FcdccError`` and ``except ValueError`` catch it. A message says what was
given, what was expected and what to do. An error is constructed from its message alone, so
that it can be pickled.
"""

from __future__ import annotations

__all__ = [
    "Abandoned",
    "CodeError",
    "FcdccError",
    "GeometryError",
    "IllConditionedError",
    "NotDecodableError",
    "TensorError",
]


class FcdccError(Exception):
    """Any error that this project raises on purpose.

    Examples
    --------
    >>> from fcdcc.coding import make_code
    >>> try:
    ...     make_code("morse", n=6, k_a=16, k_b=1)
    ... except FcdccError as error:
    ...     print(error)
    no code is called 'morse'; expected one of ...
    """


class GeometryError(FcdccError, ValueError):
    """A convolution whose shapes, stride, padding, dilation or groups do not fit together.

    Examples
    --------
    >>> from fcdcc.coding import ConvGeometry
    >>> ConvGeometry.of((1, 3, 8, 8), (4, 5, 3, 3))
    Traceback (most recent call last):
    fcdcc.coding.errors.GeometryError: ...
    """


class TensorError(FcdccError, TypeError):
    """A tensor of a dtype that cannot be coded, or tensors of different dtypes or devices.

    Examples
    --------
    >>> import torch
    >>> from fcdcc.coding import coded_conv, make_code
    >>> x, weight = torch.zeros(1, 1, 8, 8, dtype=torch.int32), torch.zeros(1, 1, 3, 3)
    >>> coded_conv(x, weight, code=make_code("systematic", n=6, k_a=16, k_b=1))
    Traceback (most recent call last):
    fcdcc.coding.errors.TensorError: ...
    """


class CodeError(FcdccError, ValueError):
    """A code that does not exist, or parameters that no code of that name has.

    Examples
    --------
    >>> from fcdcc.coding import make_code
    >>> make_code("systematic", n=0, k_a=4, k_b=1)
    Traceback (most recent call last):
    fcdcc.coding.errors.CodeError: n = 0; expected a positive integer
    """


class IllConditionedError(CodeError):
    """A code that decodes, but not with the accuracy that the dtype should give."""


class NotDecodableError(FcdccError, ValueError):
    """Survivors from which the layer's output cannot be computed.

    Examples
    --------
    >>> from fcdcc.coding import make_code
    >>> make_code("systematic", n=6, k_a=16, k_b=1).decoder([0, 1, 2])
    Traceback (most recent call last):
    fcdcc.coding.errors.NotDecodableError: ...
    """


class Abandoned(FcdccError, RuntimeError):  # noqa: N818 - it follows a request, nothing failed
    """A share that stopped between two slices because its result is not needed any more.

    Examples
    --------
    >>> import torch
    >>> from fcdcc.coding import CodedConv, ConvGeometry, make_code
    >>> code = make_code("systematic", n=6, k_a=16, k_b=1)
    >>> layer = CodedConv(ConvGeometry.of((2, 3, 8, 8), (4, 3, 3, 3)), code)
    >>> coded = layer.encode_input(torch.ones(2, 3, 8, 8), 0)
    >>> filters = layer.encode_filters(torch.ones(4, 3, 3, 3), 0)
    >>> layer.convolve(coded, filters, 0, wanted=lambda: False)
    Traceback (most recent call last):
    fcdcc.coding.errors.Abandoned: share 0 is no longer wanted; stopped between two slices
    """
