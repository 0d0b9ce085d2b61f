"""Descriptions of the tasks of a block's graph: a small value for each kind of task.

The graph makes it, the kernel on the worker takes it, and the cost model reads it, each by the
names of its fields. It travels with every task, so it holds numbers and no more: which stages a
unit runs and which rows they need follow from the plan, which workers have.

================  ================================================  ================================
stage in the key  value                                             kernels
================  ================================================  ================================
read              :class:`ReadImages`, :class:`ReadChunk`           ``reading``
glue              :class:`RunStage`                                 ``common``
encode            :class:`EncodeInput`                              ``gathered_kernels``
share, parity     :class:`GatheredShare`                            ``gathered_kernels``
decode            :class:`DecodeLayer`, :class:`DecodeRightShares`  ``gathered_kernels``
share, parity     :class:`ImageShare`, :class:`ImageParity`         ``image_kernels``
glue              :class:`ImageGlue`                                ``image_kernels``
gather            :class:`JoinRuns`                                 ``image_kernels``
share, parity     :class:`StripShare`, :class:`StripParity`         ``row_kernels``
glue              :class:`StripGlue`, :class:`WholeGlue`            ``row_kernels``
halo              :class:`CutRows`                                  ``row_kernels``
gather            :class:`JoinStrips`                               ``row_kernels``
part              :class:`PartOutput`                               ``image_`` and ``row_kernels``
check             :class:`CheckShares`                              ``common``
check             :class:`RecheckShares`                            ``gathered_kernels``
gather            :class:`TakeImages`                               ``common``
================  ================================================  ================================

``layer`` is the number of a convolution, ``unit`` that of a unit of stages, which is the number of
its last one, ``position`` that of a share in its group, and ``part`` that of a run of images or a
strip of rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ...halo import Rows


@dataclass(frozen=True, slots=True)
class ReadImages:
    """Read images start … stop − 1 of a store, and prepare them.

    Images of zeros follow up to ``pad_to``. With ``rows`` only these, of the first spatial axis.
    With ``own`` only these images, (start, stop), are read from the store: the others are cut out
    of chunks that other tasks have read.
    """

    start: int
    stop: int
    pad_to: int
    rows: Rows | None = None
    own: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Read images start … stop − 1 of a store, ``size`` bytes, as they are stored.

    Several tasks take some of them.
    """

    start: int
    stop: int
    size: int


@dataclass(frozen=True, slots=True)
class TakeImages:
    """Take the predictions of the first ``images`` images: those of zeros follow them."""

    images: int


# ---------------------------------------------------------------- gathered form


@dataclass(frozen=True, slots=True)
class RunStage:
    """Run one stage, glue or a convolution that is not coded, on whole values."""

    stage: int


@dataclass(frozen=True, slots=True)
class EncodeInput:
    """Make the coded inputs of one share from the layer's whole input."""

    layer: int
    position: int


@dataclass(frozen=True, slots=True)
class GatheredShare:
    """Make one share, from its coded inputs or from the layer's whole input."""

    layer: int
    position: int


@dataclass(frozen=True, slots=True)
class DecodeLayer:
    """Make the output of a layer for ``images`` images from any shares that suffice."""

    layer: int
    images: int


@dataclass(frozen=True, slots=True)
class RecheckShares:
    """Find the wrong ones among all shares of a layer, for a block of ``images`` images."""

    layer: int
    images: int


@dataclass(frozen=True, slots=True)
class DecodeRightShares:
    """Make the output of a layer for ``images`` images from the shares that are right."""

    layer: int
    images: int


# ------------------------------------------------------------- parts that stay


@dataclass(frozen=True, slots=True)
class PartOutput:
    """Make one part of a layer's output: its own share, or decoded from others.

    ``images`` are those of the block, images of zeros included.
    """

    layer: int
    part: int
    images: int


@dataclass(frozen=True, slots=True)
class CheckShares:
    """Check the shares of a layer that are there against each other.

    ``images`` are those of the block, images of zeros included.
    """

    layer: int
    images: int


@dataclass(frozen=True, slots=True)
class ImageShare:
    """Run a unit for one run of images; its result is a share."""

    unit: int
    position: int


@dataclass(frozen=True, slots=True)
class ImageParity:
    """Make a parity share of a unit from the inputs of every run of images."""

    unit: int
    position: int


@dataclass(frozen=True, slots=True)
class ImageGlue:
    """Run a unit without a coded convolution for one run of images."""

    unit: int


@dataclass(frozen=True, slots=True)
class JoinRuns:
    """Join the predictions of all runs, and take those of the first ``images`` images."""

    images: int


@dataclass(frozen=True, slots=True)
class StripShare:
    """Run a unit for one strip of rows of ``images`` images; its result is a share."""

    unit: int
    position: int
    images: int


@dataclass(frozen=True, slots=True)
class StripParity:
    """Make a parity share of a unit from all rows of what it reads."""

    unit: int
    position: int


@dataclass(frozen=True, slots=True)
class StripGlue:
    """Run a unit without a coded convolution for one strip of rows."""

    unit: int
    part: int


@dataclass(frozen=True, slots=True)
class WholeGlue:
    """Run a unit once, on whole values that are put together from their strips."""

    unit: int


@dataclass(frozen=True, slots=True)
class CutRows:
    """Cut rows start … stop − 1 along an axis out of a value, for another worker.

    Along axis 0 these are images.
    """

    axis: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class JoinStrips:
    """Join strips along an axis: of each its first rows, as many as ``counts`` says."""

    axis: int
    counts: tuple[int, ...]


TaskSpec: TypeAlias = (
    ReadImages
    | ReadChunk
    | TakeImages
    | RunStage
    | EncodeInput
    | GatheredShare
    | DecodeLayer
    | RecheckShares
    | DecodeRightShares
    | PartOutput
    | CheckShares
    | ImageShare
    | ImageParity
    | ImageGlue
    | JoinRuns
    | StripShare
    | StripParity
    | StripGlue
    | WholeGlue
    | CutRows
    | JoinStrips
)


def find_spec(arguments: Iterable[object]) -> TaskSpec | None:
    """Return the task's description among its arguments; None if there is none."""
    return next((value for value in arguments if isinstance(value, TaskSpec)), None)
