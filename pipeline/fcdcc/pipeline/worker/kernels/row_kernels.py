"""Kernels of blocks whose strips stay with their workers: see :mod:`fcdcc.pipeline.graph.by_rows`.

A task is given pieces of the values that it reads: strips, and rows cut out of others. The layout
says which rows of which value each of them is; the task puts together what it needs of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fcdcc.coding.geometry import pad_space
from fcdcc.coding.slicing import runs

from ...anyk import abandonable, wanted
from ...errors import PlanError
from ...halo import Rows, run_rows
from ...model.interpreter import run_steps
from ...plans.fused_stages import FusedStages
from ...plans.row_layout import ConvRows, Piece, RowStep
from ..executable import Executable, find
from ..share_checks import ShareMessage, as_message, check_form, share_values
from .common import (
    Array,
    ExecutableOrRef,
    NamedArrays,
    add_bias,
    check_wanted,
    encoded_input,
    recovered,
    stage_outputs,
    to_array,
    to_arrays,
    to_tensor,
)
from .task_specs import (
    CutRows,
    JoinStrips,
    PartOutput,
    StripGlue,
    StripParity,
    StripShare,
    WholeGlue,
)


class _RowsOf(NamedTuple):
    """An array, and which rows of a value it holds; None for a value without rows."""

    value: Tensor
    rows: Rows | None


# ---------------------------------------------------------------------- kernels


def cut(spec: CutRows, value: Array) -> Array:
    """Return some rows of a value, as an array that travels alone."""
    return _cut(value, spec.axis, spec.start, spec.stop)


def join_strips(spec: JoinStrips, *strips: Array) -> Array:
    """Return a value from its strips, of which some have further rows at their ends."""
    pairs = zip(strips, spec.counts, strict=True)
    return np.concatenate([_cut(strip, spec.axis, 0, count) for strip, count in pairs], spec.axis)


def share(ref: ExecutableOrRef, spec: StripShare, *arrays: Array) -> ShareMessage:
    """Return a plain share, bias included: a unit's work for one strip.

    It is (images, N, rows, …) for the rows of the strip that are not certainly zero. Between
    two stages, or slices of the convolution, it stops if it is not needed.
    """
    executable, is_wanted = find(ref), wanted()
    unit, position = executable.rows.unit(spec.unit), spec.position
    layer = executable.plan.layer(unit.number)
    entries = layer.entries(spec.images)
    with abandonable(), torch.inference_mode():
        rows = layer.coded_conv.rows_of(position)
        if not rows:
            _, channels, _, *others = layer.coded_conv.share_shape(position, entries)
            dtype = executable.weight(unit.number).dtype
            nothing = to_array(torch.empty(entries, channels, 0, *others, dtype=dtype))
            return as_message(executable, unit.number, position, nothing, None)
        before, last = _ending_with_convolution(executable, unit, position)
        values = _taken(executable, unit, position, arrays)
        name = executable.convolution(unit.number).input
        values = _through(executable, before, values, is_wanted, (name,))
        slices = layer.slices(entries)
        result = to_array(_convolve(executable, last, values, slices, is_wanted))
        return as_message(executable, unit.number, position, result, values[name].value)


def parity(ref: ExecutableOrRef, spec: StripParity, *arrays: Array) -> ShareMessage:
    """Return a parity share, from all rows of what the unit reads."""
    executable, is_wanted = find(ref), wanted()
    unit, position = executable.rows.unit(spec.unit), spec.position
    layer = executable.plan.layer(unit.number)
    with abandonable(), torch.inference_mode():
        before, last = _ending_with_convolution(executable, unit, None)
        values = _taken(executable, unit, None, arrays)
        name = executable.convolution(unit.number).input
        value, rows = _through(executable, before, values, is_wanted, (name,))[name]
        start, size = last.window.rows.start - (rows.start if rows else 0), last.window.rows.size
        value = value.narrow(2, start, size)
        entering = encoded_input(executable, unit.number, value, position)
        result = layer.coded_conv.convolve(
            entering,
            executable.filters(unit.number, position),
            position,
            wanted=is_wanted,
            slices=layer.slices(len(value)),
            check=executable.share_check(unit.number, position),
        )
        return as_message(executable, unit.number, position, to_array(result), entering)


def strip_output(
    shares: Mapping[int, ShareMessage], ref: ExecutableOrRef, spec: PartOutput
) -> Array:
    """Return a strip of a layer's output: its own share, or decoded from others."""
    executable, layer = find(ref), spec.layer
    entries = executable.plan.layer(layer).entries(spec.images)
    check_form(executable, layer, shares, entries)
    if spec.part in shares:
        return share_values(shares[spec.part])
    with torch.inference_mode():
        output = recovered(executable, layer, shares, spec.part, entries)
        rows = executable.coded(layer).rows_of(spec.part)
        return to_array(add_bias(output[:, :, : len(rows)], executable.bias(layer)))


def glue(ref: ExecutableOrRef, spec: StripGlue, *arrays: Array) -> Array | NamedArrays:
    """Return what a unit makes of one strip: an array, or several by name."""
    executable, is_wanted = find(ref), wanted()
    unit = executable.rows.unit(spec.unit)
    with torch.inference_mode():
        values = _taken(executable, unit, spec.part, arrays)
        steps = executable.rows.steps(unit, spec.part)
        values = _through(executable, steps, values, is_wanted, unit.outputs)
        return to_arrays({name: made.value for name, made in values.items()}, unit.outputs)


def whole(ref: ExecutableOrRef, spec: WholeGlue, *arrays: Array) -> Array | NamedArrays:
    """Return what a unit makes of whole values, from their strips: an array, or several by name."""
    executable = find(ref)
    unit = executable.rows.whole_unit(spec.unit)
    with torch.inference_mode():
        values = {name: taken.value for name, taken in _all_of(executable, unit, arrays).items()}
        barrier = executable.rows.barrier(unit)
        if barrier is not None:
            values = run_steps(barrier, values, executable.network.tensors, executable.checks)
        else:
            for index in unit.stages:
                values |= stage_outputs(executable, index, values)
        return to_arrays(values, unit.outputs)


# ------------------------------------------------------------------------ steps


def _ending_with_convolution(
    executable: Executable, unit: FusedStages, part: int | None
) -> tuple[Sequence[RowStep], ConvRows]:
    """Return the steps of a unit, of which the last is its coded convolution."""
    *before, last = executable.rows.steps(unit, part)
    if not isinstance(last, ConvRows):
        raise PlanError(f"unit {unit.number} does not end with a convolution")
    return before, last


def _through(
    executable: Executable,
    steps: Sequence[RowStep],
    values: dict[str, _RowsOf],
    is_wanted: Callable[[], bool],
    kept: Collection[str],
) -> dict[str, _RowsOf]:
    """Run stages for some rows; of all values only those that are kept are left."""
    reads = [_reads(executable, step) for step in steps]
    for number, step in enumerate(steps):
        check_wanted(is_wanted)
        values |= _done(executable, step, values)
        later = set(kept).union(*reads[number + 1 :])
        values = {name: value for name, value in values.items() if name in later}
    return values


def _reads(executable: Executable, step: RowStep) -> Iterable[str]:
    return (executable.convolution(step.layer).input,) if isinstance(step, ConvRows) else step.needs


def _done(
    executable: Executable, step: RowStep, values: Mapping[str, _RowsOf]
) -> dict[str, _RowsOf]:
    """Run one stage for some rows."""
    if isinstance(step, ConvRows):
        made = _convolve(executable, step, values, 1, lambda: True)
        return {executable.convolution(step.layer).output: _RowsOf(made, step.out)}
    inputs = {name: values[name].value for name in step.needs}
    rows = {name: values[name].rows for name in step.needs}
    has = {name: found for name, found in rows.items() if found is not None}
    results = run_rows(step, inputs, executable.network.tensors, has, executable.checks)
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
    convolve = executable.convolution_of_strips(step.layer, even)
    made = []
    for run in runs(len(value), slices):
        check_wanted(is_wanted)
        made.append(convolve(value[run]))
    return made[0] if len(made) == 1 else torch.cat(made)


# ----------------------------------------------------------------------- pieces


def _taken(
    executable: Executable, unit: FusedStages, part: int | None, arrays: Sequence[Array]
) -> dict[str, _RowsOf]:
    """Return the rows that a unit needs for its strip, or for all rows, from its arguments."""
    layout = executable.rows
    return _assembled(executable, layout.needs(unit, part), layout.pieces(unit, part), arrays)


def _all_of(
    executable: Executable, unit: FusedStages, arrays: Sequence[Array]
) -> dict[str, _RowsOf]:
    """Return all rows of what a unit reads, from its arguments."""
    layout = executable.rows
    pieces = layout.pieces(unit, None)
    needs = {piece.name: layout.all_rows(piece.name) or piece.rows for piece in pieces}
    return _assembled(executable, needs, pieces, arrays)


def _assembled(
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
    parts = list(_parts_of(pieces, rows, axis))
    if sum(part.shape[axis] for part in parts) != rows.size:
        raise PlanError(f"rows {rows.start} to {rows.stop} of {name!r} are not all there")
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)


def _parts_of(pieces: list[tuple[Rows | None, Tensor]], rows: Rows, axis: int) -> Iterator[Tensor]:
    """Yield, in order, what the pieces have of some rows."""
    for has, value in sorted(pieces, key=lambda piece: piece[0] or rows):
        if has is None:  # all rows of a value that is in one place
            has = Rows(0, value.shape[axis])
        start, stop = max(has.start, rows.start), min(has.stop, rows.stop)
        if start < stop:
            yield value.narrow(axis, start - has.start, stop - start)


def _cut(value: Array, axis: int, start: int, stop: int) -> Array:
    picked: Array = np.ascontiguousarray(value[(slice(None),) * axis + (slice(start, stop),)])
    return picked
