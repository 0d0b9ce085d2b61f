"""Numbers that a model takes beside the images, and the values that fix them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ...errors import ModelError

InputValue: TypeAlias = str | float | bool
"""A number, or a text that is one."""

_KINDS = {"as_sym_int": torch.int64, "as_sym_float": torch.float64, "as_sym_bool": torch.bool}
_TRUTH = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class ModelInput:
    """An input of a model.

    Parameters
    ----------
    name
        The name of the argument.
    dtype
        The type of its numbers.
    sizes
        Its shape, with expressions as text; None for a number that is no tensor.
    """

    name: str
    dtype: torch.dtype
    sizes: tuple[int | str, ...] | None

    @property
    def is_number(self) -> bool:
        """Whether it is one number: a value can fix it."""
        return self.sizes in (None, (), (1,))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a tensor of one number."""
        return () if self.sizes in (None, ()) else (1,)

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        if self.is_number:
            return f"{self.name} (one number, {dtype})"
        sizes = ["any" if isinstance(size, str) else str(size) for size in self.sizes or ()]
        return f"{self.name} ({' × '.join(sizes)}, {dtype})"


def number_input(name: str, kind: str) -> ModelInput:
    """Return an input that is a number and no tensor.

    Raises
    ------
    ModelError
        If it is none.
    """
    if kind not in _KINDS:
        raise ModelError(
            f"the model takes {name!r} of the kind {kind}; expected one tensor of images, and "
            "numbers beside it"
        )
    return ModelInput(name, _KINDS[kind], None)


def checked_inputs(
    inputs: list[ModelInput], given: Mapping[str, InputValue]
) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the name of the images among a model's inputs, and the values of all others.

    Parameters
    ----------
    inputs
        All of them, in order.
    given
        Values of numbers, by name.

    Raises
    ------
    ModelError
        If there are no images or several tensors of them, or if a number has no value or a wrong
        one; the message names the inputs.
    """
    listed = ", ".join(map(str, inputs)) or "nothing"
    numbers = {item.name: item for item in inputs if item.is_number}
    unknown = [name for name in given if name not in numbers]
    if unknown:
        raise ModelError(
            f"--input {unknown[0]:.80}: the model has no such number to fix; it takes {listed}"
        )
    images = [item for item in inputs if not item.is_number]
    if len(images) != 1:
        raise ModelError(
            f"the model takes {len(inputs)} inputs: {listed}; expected one tensor of images, and "
            "numbers beside it: wrap it in a module whose forward takes only the images"
        )
    missing = [name for name in numbers if name not in given]
    if missing:
        options = " ".join(f"--input {name}=VALUE" for name in missing)
        raise ModelError(
            f"the model takes {listed}; expected only images: fix the "
            f"{'number' if len(missing) == 1 else 'numbers'} with {options}"
        )
    return images[0].name, {name: _value(item, given[name]) for name, item in numbers.items()}


def _value(item: ModelInput, given: InputValue) -> torch.Tensor:
    """Return a value in the type of an input."""
    number = number_of(given)
    if number is None or not _fits(number, item.dtype):
        dtype = str(item.dtype).removeprefix("torch.")
        raise ModelError(f"--input {item.name}={given!s:.80}: expected one number, {dtype}")
    exact = number if item.dtype.is_floating_point else int(number)
    return torch.full(item.shape, exact, dtype=item.dtype)


def _fits(number: float, dtype: torch.dtype) -> bool:
    """Return whether a type has a number."""
    if not abs(number) <= sys.float_info.max or dtype.is_complex:  # also NaN is no number
        return False
    if dtype.is_floating_point:
        return True
    if dtype == torch.bool:
        return number in (0, 1)
    limits = torch.iinfo(dtype)
    return number == int(number) and limits.min <= number <= limits.max


def number_of(given: InputValue) -> int | float | None:
    """Return the number that a value means, an integer where it is one; None if it is no number.

    >>> number_of("2"), number_of("2.0"), number_of(True), number_of("0.5"), number_of("many")
    (2, 2, 1, 0.5, None)
    """
    found = _parsed(given) if isinstance(given, str) else given
    if isinstance(found, float) and not found.is_integer():
        return found
    return None if found is None else int(found)


def _parsed(given: str) -> int | float | None:
    if given.lower() in _TRUTH:
        return int(_TRUTH[given.lower()])
    for kind in (int, float):
        try:
            return kind(given[:80])
        except ValueError:
            continue
    return None
