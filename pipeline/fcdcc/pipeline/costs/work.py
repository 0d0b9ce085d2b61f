"""What something has to do, in the few numbers that the cost model knows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Work", "convolution_work"]


@dataclass(frozen=True)
class Work:
    """What something has to do.

    Parameters
    ----------
    multiply_adds
        Of convolutions and matrix products.
    touched
        Bytes of values that are read and written.
    fixed
        Bytes of weights that are read and written, however many images there are.
    """

    multiply_adds: float = 0.0
    touched: float = 0.0
    fixed: float = 0.0

    def times(self, factor: float) -> Work:
        """Return the work for so many images, or for a part of the rows."""
        return Work(self.multiply_adds * factor, self.touched * factor, self.fixed)

    def __add__(self, other: Work) -> Work:
        return Work(
            self.multiply_adds + other.multiply_adds,
            self.touched + other.touched,
            self.fixed + other.fixed,
        )


def convolution_work(multiply_adds: float, values: float, weights: float) -> Work:
    """Return the work of a convolution of so many bytes of inputs and outputs, and of weights.

    It brings inputs, outputs and weights into an order of its own: values are touched twice,
    weights read, written and read (benchmarks/operations.py).
    """
    return Work(multiply_adds, 2 * values, 3 * weights)
