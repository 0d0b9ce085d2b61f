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
    """Any error that this project raises on purpose."""


class GeometryError(FcdccError, ValueError):
    """A convolution whose shapes, stride, padding, dilation or groups do not fit together."""


class TensorError(FcdccError, TypeError):
    """A tensor of a dtype that cannot be coded, or tensors of different dtypes or devices."""


class CodeError(FcdccError, ValueError):
    """A code that does not exist, or parameters that no code of that name has."""


class IllConditionedError(CodeError):
    """A code that decodes, but not with the accuracy that the dtype should give."""


class NotDecodableError(FcdccError, ValueError):
    """Survivors from which the layer's output cannot be computed."""


class Abandoned(FcdccError, RuntimeError):  # noqa: N818 - it follows a request, nothing failed
    """A share that stopped between two slices because its result is not needed any more."""
