"""The rows of a whole network: which input rows a range needs through one or several stages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import RowsError
from ..model.network import ConvStage, Network
from .ranges import Rows, Window, hull, never_empty, window
from .row_plan import needed
from .stage_rows import Barrier, Layout, RowLocal, StageRows, analyse


@dataclass(frozen=True)
class NetworkRows:
    """The row arithmetic of a whole network.

    Parameters
    ----------
    network
        The network.
    layouts
        The layout of every value that passes between stages.
    stages
        The analysis of each glue stage, by its index.
    """

    network: Network = field(repr=False)
    layouts: Mapping[str, Layout]
    stages: Mapping[int, StageRows]

    @property
    def barriers(self) -> dict[int, tuple[Barrier, ...]]:
        """The barriers of each stage that has some, by its index."""
        return {index: found.barriers for index, found in self.stages.items() if found.barriers}


def analyse_network(network: Network, input_shape: Sequence[int]) -> NetworkRows:
    r"""Analyse all stages of a network.

    Rows are the first spatial axis of the input and of every convolution's output, with one
    exception: the convolution of a value without rows has no rows if its output has only one
    row (squeeze-excitation) or fewer dimensions than the images (a convolution over channels,
    as in efficient channel attention).

    Parameters
    ----------
    network
        The network.
    input_shape
        (batch, C, \*space); see :class:`Layout` about the batch.

    Raises
    ------
    RowsError
        If the shape of a value is unknown.
    """
    layouts = {network.input: Layout(tuple(input_shape), 2, network.input_dtype)}
    stages: dict[int, StageRows] = {}
    for stage in network.stages:
        if isinstance(stage, ConvStage):
            weight = tuple(network.tensors[stage.weight].shape)
            layouts[stage.output] = _convolved(
                stage, _layout(layouts, stage.input), weight, len(input_shape) - 2
            )
            continue
        inputs = {name: _layout(layouts, name) for name in stage.inputs}
        found = analyse(stage, inputs, network.tensors)
        stages[stage.index] = found
        layouts.update((n, found.layouts[n]) for n in stage.outputs if n in found.layouts)
    return NetworkRows(network, layouts, stages)


def _layout(layouts: Mapping[str, Layout], name: str) -> Layout:
    if name not in layouts:
        raise RowsError(
            f"the shape of {name!r} is unknown; expected operators that PyTorch can "
            "run on its meta device"
        )
    return layouts[name]


def _convolved(stage: ConvStage, layout: Layout, weight: tuple[int, ...], ndim: int) -> Layout:
    axes = zip(
        layout.shape[2:], weight[2:], stage.stride, stage.padding, stage.dilation, strict=True
    )
    space = tuple(
        (size + sum(padding) - (kernel - 1) * dilation - 1) // stride + 1
        for size, kernel, stride, padding, dilation in axes
    )
    small = space[0] == 1 or len(space) < ndim
    axis = None if layout.axis is None and small else 2
    return Layout((layout.shape[0], weight[0], *space), axis, layout.dtype)


def conv_rows(
    stage: ConvStage, weight_shape: Sequence[int], input_rows: int, out: tuple[int, int]
) -> Window:
    r"""Return the rows of a convolution's input that a range of its output rows needs.

    Parameters
    ----------
    stage
        The convolution.
    weight_shape
        (N, C / groups, \*kernel).
    input_rows
        Rows of the whole input, H.
    out
        (start, stop) of the output rows, one or more.

    Returns
    -------
    The rows within the input, and the rows of padding above and below them, by the arithmetic
    of APCP (paper, section III) for one part.
    """
    return window(
        Rows(*out),
        kernel=(weight_shape[2] - 1) * stage.dilation[0] + 1,
        stride=stage.stride[0],
        before=stage.padding[0][0],
        size=input_rows,
    )


def needed_between(
    found: NetworkRows, wanted: Mapping[str, tuple[int, int]], given: Collection[str]
) -> dict[str, Rows | None]:
    """Return the rows of given values that rows of later values need, through all stages.

    Parameters
    ----------
    found
        The network, analysed.
    wanted
        (start, stop) rows of values between stages, by the value's name.
    given
        Values to stop at, in addition to the network's input.

    Returns
    -------
    (start, stop) of the given values and of the network's input, all rows if there is a
    barrier in between; None for values without rows. Values that are not needed are left out.
    """
    kept = {found.network.input, *given}
    requested = _requested(found, wanted, kept)
    return {name: rows for name, rows in requested.items() if name in kept}


def ranges_for(found: NetworkRows, wanted: Mapping[str, tuple[int, int]]) -> dict[str, Rows | None]:
    """Return the rows of every value between stages that the wanted rows of some values need.

    Parameters
    ----------
    found, wanted
        As for :func:`needed_between`.

    Returns
    -------
    (start, stop) of the wanted values and of all values that they are computed from, the
    network's input included: one range that covers the rows for all stages that read the value;
    None for values without rows. Values that are not needed are left out.
    """
    return _requested(found, wanted, {found.network.input})


def _requested(
    found: NetworkRows, wanted: Mapping[str, tuple[int, int]], kept: Collection[str]
) -> dict[str, Rows | None]:
    """Return the rows of all values that are needed, going backwards no further than ``kept``."""
    network = found.network
    requested: dict[str, Rows | None] = {name: Rows(*rows) for name, rows in wanted.items()}

    def request(name: str, rows: Rows | None) -> None:
        layout, before = found.layouts[name], requested.get(name)
        if layout.axis is None:
            requested[name] = None
        else:
            rows = rows or Rows(0, layout.rows)
            requested[name] = hull(before, rows) if before else rows

    for stage in reversed(network.stages):
        outputs = [name for name in stage.outputs if name in requested and name not in kept]
        if not outputs:
            continue
        if isinstance(stage, ConvStage):
            request(stage.input, _conv_needs(found, stage, requested[stage.output]))
            continue
        ranges = {name: requested[name] for name in outputs}
        for name, rows in _glue_needs(found, found.stages[stage.index], ranges).items():
            request(name, rows)
    return requested


def _glue_needs(
    found: NetworkRows, stage: StageRows, outputs: Mapping[str, Rows | None]
) -> dict[str, Rows | None]:
    """Return the rows that glue needs of its inputs; all rows where there is a barrier."""
    if all(isinstance(stage.outputs[name], RowLocal) for name in outputs):
        ranges = {n: rows or Rows(0, found.layouts[n].rows) for n, rows in outputs.items()}
        needs = needed(stage, ranges)
        if all(name in stage.stage.inputs for name in needs):
            return needs
    return dict.fromkeys(stage.stage.inputs)


def _conv_needs(found: NetworkRows, stage: ConvStage, out: Rows | None) -> Rows | None:
    layout = found.layouts[stage.input]
    if out is None or layout.axis != 2:
        return None
    weight = tuple(found.network.tensors[stage.weight].shape)
    rows = conv_rows(stage, weight, layout.rows, out).rows
    return never_empty(rows, layout.rows)
