"""Arithmetic on sizes, as ``torch.export`` writes it, within the range of 64 bits.

Numbers in a model are integers, floating-point numbers and truth values, never text, and every
integer fits into 64 bits: nothing here takes more time or memory than one addition.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from ..errors import ModelError
from .image_rules.facts import BatchSize

Number: TypeAlias = int | float | bool

_LIMIT = 1 << 63
_BITS = 63


def _checked(value: Any) -> Number:
    if isinstance(value, int) and abs(value) >= _LIMIT:
        raise ModelError("a size of the model does not fit into 64 bits")
    if not isinstance(value, (int, float)):
        raise ModelError(f"the model computes a size of {value!r:.40}; expected a number")
    return value


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent >= 0
    if whole and abs(base) > 1 and exponent * (abs(base).bit_length() - 1) > _BITS:
        raise ModelError(f"a size of the model, {base} ** {exponent}, does not fit into 64 bits")
    return base**exponent


def _shifted(value: Any, bits: Any) -> Any:
    if isinstance(bits, int) and bits > _BITS:
        raise ModelError(f"a size of the model is shifted by {bits} bits; expected at most {_BITS}")
    return value << bits


def _truncated(value: float) -> int:
    return math.trunc(value)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "pos", "eq", "ne", "lt"),
            *("le", "gt", "ge", "and_", "or_", "rshift"),
        )
    },
    "operator.pow": _power,
    "operator.lshift": _shifted,
    "math.trunc": _truncated,
    "torch.sym_int": _truncated,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_ite": lambda condition, one, other: one if condition else other,
}
NUMBER_OPERATORS = frozenset(_FUNCTIONS)


def number_function(name: str) -> Callable[..., Number]:
    """Return the function of an operator on numbers, which checks arguments and result.

    >>> number_function("operator.pow")(2, 10)
    1024
    >>> number_function("operator.pow")(7, 10**10)
    Traceback (most recent call last):
    ...
    fcdcc.pipeline.errors.ModelError: a size of the model, 7 ** 10000000000, does not fit ...
    """
    function = _FUNCTIONS[name]

    def checked(*values: Any) -> Number:
        try:
            return _checked(function(*map(_checked, values)))
        except ModelError:
            raise
        except (ArithmeticError, ValueError, TypeError) as error:
            raise ModelError(f"a size of the model cannot be computed ({name}): {error}") from error

    return checked


def number_of_batch(name: str, values: tuple[Any, ...]) -> Number | BatchSize:
    """Return the result of an operator on numbers of which some depend on the batch size."""
    if not any(isinstance(value, BatchSize) for value in values):
        return number_function(name)(*values)
    if any(isinstance(value, BatchSize) and value.factor is None for value in values):
        return BatchSize(None)
    # The number for one image is not needed, but arguments are refused that are wrong for it.
    number_function(name)(*(v.factor if isinstance(v, BatchSize) else v for v in values))
    return _linear(name.partition(".")[2], values)


def _linear(name: str, values: tuple[Any, ...]) -> Number | BatchSize:
    """Return the result for multiples of the batch size; unknown where it is no multiple."""
    factors = [value.factor if isinstance(value, BatchSize) else None for value in values]
    if name in ("pos", "trunc", "sym_int"):
        return BatchSize(factors[0])
    if name == "neg":
        return BatchSize(-(factors[0] or 0))
    if len(values) != 2:
        return BatchSize(None)
    (one, other), (left, right) = factors, values
    if one is not None and other is not None:
        return _of_two_multiples(name, one, other)
    if name == "mul":
        plain = right if one is not None else left
        factor = one if one is not None else other
        if isinstance(plain, int) and factor is not None and abs(plain * factor) < _LIMIT:
            return BatchSize(plain * factor)
    if one is not None and isinstance(right, int) and right and one % right == 0:
        if name == "floordiv":
            return BatchSize(one // right)
        if name == "mod":
            return 0
    if name in ("add", "sub") and 0 in (left, right):
        return BatchSize(one if one is not None else (other or 0) * (-1 if name == "sub" else 1))
    return BatchSize(None)


def _of_two_multiples(name: str, one: int, other: int) -> Number | BatchSize:
    if name in ("add", "sub"):
        factor = one + other if name == "add" else one - other
        return BatchSize(factor) if factor else 0
    if other and one % other == 0 and name in ("floordiv", "mod"):
        return one // other if name == "floordiv" else 0
    if one == other and name in ("eq", "le", "ge", "ne", "lt", "gt"):
        return name in ("eq", "le", "ge")
    if one == other and name in ("sym_max", "sym_min"):
        return BatchSize(one)
    return BatchSize(None)
