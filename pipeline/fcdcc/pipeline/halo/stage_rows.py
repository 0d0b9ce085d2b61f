"""What the analysis of a stage finds, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from ..model.network import GlueStage
from .operation import RowOperation


@dataclass(frozen=True)
class Layout:
    r"""A value as the row arithmetic sees it.

    Parameters
    ----------
    shape
        Of the whole value, for some batch size. With a batch of 1 a reshape may look as if
        it kept the rows when it does not; then running it says so. A batch of 2 is surer.
    axis
        Which axis is the rows: 2 for (N, C, \*space). None for a value that every worker
        holds whole, such as the weights of a squeeze-excitation block.
    dtype
        Of its numbers: resampling rounds places in it.
    """

    shape: tuple[int, ...]
    axis: int | None = 2
    dtype: torch.dtype = torch.float32

    @property
    def rows(self) -> int:
        """How many rows it has; a value without rows has none."""
        return 0 if self.axis is None else self.shape[self.axis]


@dataclass(frozen=True)
class RowLocal:
    """An output of which any rows can be computed from some rows of the inputs.

    Parameters
    ----------
    axis
        Its row axis.
    requires
        Results of barriers that go into it whole, computed by
        :func:`~fcdcc.pipeline.rows.barrier_stage`.
    """

    axis: int
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Barrier:
    """An output that needs all rows of an input.

    Parameters
    ----------
    step
        The value at which the rows end.
    op
        The operator that makes it.
    reason
        Why, in words.
    """

    step: str
    op: str
    reason: str

    def __str__(self) -> str:
        return f"%{self.step} ({self.op}): {self.reason}"


@dataclass(frozen=True)
class Whole:
    """An output that is computed from values without rows alone."""


OutputRows: TypeAlias = RowLocal | Barrier | Whole


@dataclass(frozen=True)
class StageRows:
    """What :func:`analyse` found out about a stage.

    Parameters
    ----------
    stage
        The stage.
    layouts
        Of the inputs and of all values that the stage makes, where they are tensors of known
        shape. The axis is None for what is held whole.
    outputs
        What each output is.
    barriers
        The steps at which rows end, in order; empty if all outputs are local to rows.
    operations
        How each step that is local to rows works.
    given
        The values that a range of rows needs ready-made: results of barriers, and what is
        computed from them without becoming larger. What does become larger, such as a mean
        that is spread over an image, is computed again with every range.
    """

    stage: GlueStage
    layouts: Mapping[str, Layout]
    outputs: Mapping[str, OutputRows]
    barriers: tuple[Barrier, ...]
    operations: Mapping[str, RowOperation] = field(repr=False)
    given: frozenset[str] = field(repr=False)

    @property
    def local(self) -> bool:
        """Whether all outputs are local to rows, with no barrier anywhere."""
        return not self.barriers
