"""What the tasks of a block do whose strips stay put; see :mod:`.graph.by_rows`.

A task is given pieces of the values that it reads: strips, and rows cut out of others. A
piece says which rows of which value it is; the task puts together what it needs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fcdcc.coding import Abandoned
from fcdcc.coding.geometry import pad_space
from fcdcc.coding.slicing import runs

from ...anyk import abandonable, wanted
from ...errors import PlanError
from ...halo import RowPlan, Rows, run_rows
from ...model.interpreter import run_steps
from ...model.network import GlueStage
from ...plans.row_layout import ConvRows, RowTask
from ..executable import Executable, find
from ..share_checks import Finding, ShareMessage, as_message, share_values
from .common import (
    Array,
    ExecutableOrRef,
    NamedArrays,
    add_bias,
    check_spare,
    convolved,
    recovered,
    to_array,
    to_tensor,
)


class Piece(NamedTuple):
    """What an argument of a task is: rows of a value, or a value that has none.

    The array may have further rows behind these.
    """

    name: str
    rows: Rows | None


class _RowsOf(NamedTuple):
    """A value at hand, and which of its rows it is."""

    value: Tensor
    rows: Rows | None


def cut(value: Array, axis: int, start: int, stop: int) -> Array:
    """Return rows start … stop − 1 of a value, as an array that travels alone."""
    picked: Array = np.ascontiguousarray(value[(slice(None),) * axis + (slice(start, stop),)])
    return picked


def join(axis: int, counts: Sequence[int], *strips: Array) -> Array:
    """Return a value from its strips, of which some have further rows at their ends."""
    cuts = (cut(strip, axis, 0, count) for strip, count in zip(strips, counts, strict=True))
    return np.concatenate(list(cuts), axis=axis)


def share(
    program: ExecutableOrRef, unit: RowTask, position: int, images: int, pieces: Sequence[Piece],
    *arrays: Array,
) -> ShareMessage:  # fmt: skip
    """Return a plain share, bias included: a unit's work for one strip.

    It is (images, N, rows, …) for the rows of the strip that are not certainly zero. Between
    two stages, or slices of the convolution, it stops if nobody waits for it.
    """
    executable, is_wanted = find(program), wanted()
    layer = executable.plan.layer(unit.number)
    with abandonable(), torch.inference_mode():
        rows = layer.coded_conv.rows_of(position)
        if not rows:
            _, channels, _, *others = layer.coded_conv.share_shape(position, images)
            dtype = executable.weight(unit.number).dtype
            nothing = to_array(torch.empty(images, channels, 0, *others, dtype=dtype))
            return as_message(executable, unit.number, position, nothing, None)
        *before, last = executable.rows.steps(unit, position)
        if not isinstance(last, ConvRows):
            raise PlanError(f"unit {unit.number} does not end with a convolution")
        values = _taken(executable, executable.rows.needs(unit, position), pieces, arrays)
        name = executable.convolution(unit.number).input
        values = _through(executable, before, values, is_wanted, (name,))
        slices = layer.slices(images)
        result = to_array(_convolve(executable, last, values, slices, is_wanted))
        return as_message(executable, unit.number, position, result, values[name].value)


def parity(
    program: ExecutableOrRef, unit: RowTask, position: int, pieces: Sequence[Piece], *arrays: Array
) -> ShareMessage:
    """Return a parity share, from all rows of what the unit reads."""
    executable, is_wanted = find(program), wanted()
    layer = executable.plan.layer(unit.number)
    with abandonable(), torch.inference_mode():
        *before, last = executable.rows.steps(unit, None)
        if not isinstance(last, ConvRows):
            raise PlanError(f"unit {unit.number} does not end with a convolution")
        values = _taken(executable, executable.rows.needs(unit, None), pieces, arrays)
        name = executable.convolution(unit.number).input
        value, rows = _through(executable, before, values, is_wanted, (name,))[name]
        coded = layer.coded_conv
        start, size = last.window.rows.start - (rows.start if rows else 0), last.window.rows.size
        value = value.narrow(2, start, size)
        entering = coded.encode_input(value, position)
        result = coded.convolve(
            entering,
            executable.filters(unit.number, position),
            position,
            wanted=is_wanted,
            slices=layer.slices(len(value)),
        )
        return as_message(executable, unit.number, position, to_array(result), entering)


def part(
    shares: Mapping[int, ShareMessage], program: ExecutableOrRef, layer: int, own: int, images: int
) -> Array:
    """Return a strip of a layer's output: its own share, or decoded from others."""
    if own in shares:
        return share_values(shares[own])
    executable = find(program)
    with torch.inference_mode():
        output = recovered(executable, layer, shares, own, images)
        rows = executable.coded(layer).rows_of(own)
        return to_array(add_bias(output[:, :, : len(rows)], executable.bias(layer)))


def check(
    shares: Mapping[int, ShareMessage], program: ExecutableOrRef, layer: int, images: int
) -> Finding:
    """Check shares of a layer against each other; see :func:`.kernels.check_spare`."""
    executable = find(program)
    layer_plan = executable.plan.layer(layer)
    check_spare(executable, layer, shares, images, layer_plan.uncoded)
    return Finding(layer, layer_plan.name)


def glue(
    program: ExecutableOrRef, unit: RowTask, position: int, pieces: Sequence[Piece], *arrays: Array
) -> Array | NamedArrays:
    """Return what a unit makes of one strip: an array, or several by name."""
    executable, is_wanted = find(program), wanted()
    with torch.inference_mode():
        values = _taken(executable, executable.rows.needs(unit, position), pieces, arrays)
        values = _through(
            executable, executable.rows.steps(unit, position), values, is_wanted, unit.outputs
        )
        return _as_arrays(unit, {name: executable.value for name, executable in values.items()})


def whole(
    program: ExecutableOrRef, unit: RowTask, pieces: Sequence[Piece], *arrays: Array
) -> Array | NamedArrays:
    """Return what a unit makes of whole values, from their strips: an array, or several by name."""
    executable = find(program)
    with torch.inference_mode():
        needs = {piece.name: executable.rows.all_rows(piece.name) or piece.rows for piece in pieces}
        taken = _taken(executable, needs, pieces, arrays)
        values = {name: value.value for name, value in taken.items()}
        barrier = executable.rows.barrier(unit)
        if barrier is not None:
            values = run_steps(barrier, values, executable.network.tensors)
        else:
            for index in unit.stages:
                values |= _whole(executable, index, values)
        return _as_arrays(unit, values)


def _as_arrays(unit: RowTask, values: Mapping[str, Tensor]) -> Array | NamedArrays:
    made = {name: to_array(values[name]) for name in unit.outputs if name in values}
    return made[unit.outputs[0]] if len(unit.outputs) == 1 else made


def _check(is_wanted: Callable[[], bool]) -> None:
    if not is_wanted():
        raise Abandoned("nobody waits for this share any more")


def _whole(executable: Executable, index: int, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run one stage on whole values."""
    stage = executable.network.stages[index]
    if isinstance(stage, GlueStage):
        return run_steps(stage, values, executable.network.tensors)
    return {stage.output: convolved(executable, index, values[stage.input])}


def _through(
    executable: Executable,
    steps: Sequence[RowPlan | ConvRows],
    values: dict[str, _RowsOf],
    is_wanted: Callable[[], bool],
    kept: Collection[str],
) -> dict[str, _RowsOf]:
    """Run stages for some rows; of all values only those that are kept are left."""
    reads = [_reads(executable, step) for step in steps]
    for number, step in enumerate(steps):
        _check(is_wanted)
        values |= _done(executable, step, values)
        later = set(kept).union(*reads[number + 1 :])
        values = {name: value for name, value in values.items() if name in later}
    return values


def _reads(executable: Executable, step: RowPlan | ConvRows) -> Iterable[str]:
    return (executable.convolution(step.layer).input,) if isinstance(step, ConvRows) else step.needs


def _done(
    executable: Executable, step: RowPlan | ConvRows, values: dict[str, _RowsOf]
) -> dict[str, _RowsOf]:
    """Run one stage for some rows."""
    if isinstance(step, ConvRows):
        made = _convolve(executable, step, values, 1, lambda: True)
        return {executable.convolution(step.layer).output: _RowsOf(made, step.out)}
    inputs = {name: values[name].value for name in step.needs}
    rows = {name: values[name].rows for name in step.needs}
    has = {name: found for name, found in rows.items() if found is not None}
    results = run_rows(step, inputs, executable.network.tensors, has)
    return {name: _RowsOf(value, step.wanted[name]) for name, value in results.items()}


def _convolve(
    executable: Executable,
    step: ConvRows,
    values: Mapping[str, _RowsOf],
    slices: int,
    is_wanted: Callable[[], bool],
) -> Tensor:
    """Return some output rows of a convolution, bias added."""
    geometry = executable.plan.layer(step.layer).geometry
    value, rows = values[executable.convolution(step.layer).input]
    start = 0 if rows is None else rows.start
    found, above, below = step.window
    value = value.narrow(2, found.start - start, found.size)
    padding = ((above, below), *geometry.padding[1:])
    even = tuple(before for before, _ in padding)
    if any(before != after for before, after in padding):
        value, even = pad_space(value, padding), (0,) * geometry.ndim
    weight, bias = executable.weight(step.layer), executable.bias(step.layer)
    made = []
    for run in runs(len(value), slices):
        _check(is_wanted)
        made.append(geometry.convolve_padded(value[run], even, weight, bias))
    return made[0] if len(made) == 1 else torch.cat(made)


def _taken(
    executable: Executable,
    needs: Mapping[str, Rows | None],
    pieces: Sequence[Piece],
    arrays: Sequence[Array],
) -> dict[str, _RowsOf]:
    """Return the values that are needed, put together from pieces."""
    found: dict[str, list[tuple[Rows | None, Tensor]]] = {name: [] for name in needs}
    for piece, array in zip(pieces, arrays, strict=True):
        if piece.name in found:
            found[piece.name].append((piece.rows, to_tensor(array)))
    return {
        name: _RowsOf(_put_together(found[name], rows, executable.rows.axis(name), name), rows)
        for name, rows in needs.items()
    }


def _put_together(
    pieces: list[tuple[Rows | None, Tensor]], rows: Rows | None, axis: int, name: str
) -> Tensor:
    if rows is None:
        ((_, value),) = pieces
        return value
    parts = list(_cuts(pieces, rows, axis))
    if sum(part.shape[axis] for part in parts) != rows.size:
        raise PlanError(f"rows {rows.start} to {rows.stop} of {name!r} are not all there")
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)


def _cuts(pieces: list[tuple[Rows | None, Tensor]], rows: Rows, axis: int) -> Iterator[Tensor]:
    """Yield, in order, what the pieces have of some rows."""
    for has, value in sorted(pieces, key=lambda piece: piece[0] or rows):
        if has is None:  # all rows of a value that is in one place
            has = Rows(0, value.shape[axis])
        start, stop = max(has.start, rows.start), min(has.stop, rows.stop)
        if start < stop:
            yield value.narrow(axis, start - has.start, stop - start)
