"""Which rows of which values make some rows of a stage's outputs: computed backwards.

Every step asks for the rows of its sources that it needs. Where several ask for rows of the
same value, it is computed from the first to the last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..errors import RowsError
from ..model.network import GlueStage, Step
from .operation import RowOperation
from .ranges import Rows, hull
from .stage_rows import Barrier, RowLocal, StageRows


@dataclass(frozen=True)
class PlannedStep:
    """A step, and which rows of its result are computed.

    Parameters
    ----------
    step
        What to run.
    operation
        How, if the step works on rows.
    rows
        The rows to compute; None for a value without rows.
    needs
        For each source its row axis and the rows that go in; None if any will do.
    dead
        Values that nobody reads after this step.
    """

    step: Step
    operation: RowOperation | None
    rows: Rows | None
    needs: Mapping[str, tuple[int, Rows | None]]
    dead: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowPlan:
    """How to compute some rows of some outputs: a value that travels to a worker.

    Parameters
    ----------
    needs
        The rows of each input that have to be there; None for a value that has to be there
        whole (an input without rows, or the result of a barrier).
    wanted
        The rows of each output that are computed.
    axes
        The row axis of each input that has one, and of each wanted output.
    steps
        What runs, in this order.
    """

    needs: Mapping[str, Rows | None]
    wanted: Mapping[str, Rows]
    axes: Mapping[str, int] = field(repr=False)
    steps: tuple[PlannedStep, ...] = field(repr=False)


def plan_rows(found: StageRows, wanted: Mapping[str, tuple[int, int]]) -> RowPlan:
    """Return how to compute some rows of some outputs.

    Parameters
    ----------
    found
        The stage, analysed.
    wanted
        (start, stop) of each output that is wanted, one row or more.

    Raises
    ------
    RowsError
        If an output is not local to rows, or does not have these rows.
    """
    rows = {name: _checked(found, name, Rows(*asked)) for name, asked in wanted.items()}
    return _Planner(found).plan(rows)


def needed(found: StageRows, wanted: Mapping[str, tuple[int, int]]) -> dict[str, Rows | None]:
    """Return the rows of each input that some rows of some outputs need.

    Parameters
    ----------
    found, wanted
        See :func:`plan_rows`, which also raises what this raises.

    Returns
    -------
    (start, stop) for inputs with rows, within the input: padding is not counted. None for
    values that have to be there whole: inputs without rows, and results of barriers. Inputs
    that are not needed are left out.

    The first and the last row of a range are needed, with these exceptions: one row is
    claimed where a range is made from padding alone, or only its batch size is asked for; a
    window of dilation d at a border may claim d − 1 rows too many there; and where several
    steps read ranges of one value that do not touch, it is computed with all rows between.
    """
    return dict(plan_rows(found, wanted).needs)


def barrier_stage(found: StageRows, names: Iterable[str] | None = None) -> GlueStage | None:
    """Return the part of a stage that computes, from whole inputs, what local outputs need whole.

    Parameters
    ----------
    found
        The stage, analysed.
    names
        Values to compute; all that local outputs require (:attr:`RowLocal.requires`) by default.

    Returns
    -------
    A stage with these values as outputs, to be run where the inputs are gathered. None if
    there are none.
    """
    if names is None:
        outputs = found.outputs.values()
        names = [name for o in outputs if isinstance(o, RowLocal) for name in o.requires]
    targets = tuple(dict.fromkeys(names))
    if not targets:
        return None
    live = set(targets)
    kept = []
    for step in reversed(found.stage.steps):
        if step.name in live:
            live.update(step.references)
            kept.append(step)
    inputs = tuple(name for name in found.stage.inputs if name in live)
    return replace(found.stage, inputs=inputs, outputs=targets, steps=tuple(kept[::-1]))


def _checked(found: StageRows, name: str, rows: Rows) -> Rows:
    output = found.outputs.get(name)
    if not isinstance(output, RowLocal):
        why = f": {output}" if isinstance(output, Barrier) else ""
        local = [n for n, o in found.outputs.items() if isinstance(o, RowLocal)]
        raise RowsError(
            f"rows of {name!r} were asked for, which is not local to rows{why}; expected one of "
            f"{local}: gather the inputs and run the stage whole"
        )
    size = found.layouts[name].rows
    if not 0 <= rows.start < rows.stop <= size:
        raise RowsError(
            f"rows {rows.start} to {rows.stop} of {name!r}, which has {size}; expected "
            f"0 <= start < stop <= {size}"
        )
    return rows


class _Planner:
    def __init__(self, found: StageRows) -> None:
        self.found = found
        self.values = {*found.stage.inputs, *(step.name for step in found.stage.steps)}
        # What is asked of each value: its rows, or None if it is taken whole or any rows do.
        self.asked: dict[str, Rows | None] = {}

    def plan(self, wanted: dict[str, Rows]) -> RowPlan:
        self.asked = dict(wanted)
        planned = [
            self._step(step)
            for step in reversed(self.found.stage.steps)
            if step.name in self.asked and step.name not in self.found.given
        ][::-1]
        made = {step.step.name for step in planned}
        axes: dict[str, int] = {}
        needs: dict[str, Rows | None] = {}
        for name, rows in self.asked.items():
            layout = self.found.layouts.get(name)
            axis = None if layout is None else layout.axis
            if axis is not None and (name in wanted or name not in made):
                axes[name] = axis
            if name not in made:
                needs[name] = None if axis is None else rows or Rows(0, 1)
        return RowPlan(needs, wanted, axes, _with_dead(planned, wanted))

    def _step(self, step: Step) -> PlannedStep:
        """Return the step with the rows that were asked of it, and ask for what it needs."""
        operation = self.found.operations.get(step.name)
        rows = self.asked[step.name]
        needs: dict[str, tuple[int, Rows | None]] = {}
        if operation is not None:
            wanted = rows or Rows(0, 1)
            rows = None if operation.makes_number else wanted
            for source, asked in zip(operation.sources, operation.needs(wanted), strict=True):
                needs[source.name] = (source.axis, asked)
                if not source.whole:
                    self._ask(source.name, asked)
        for name in step.references:
            if name in self.values:
                self.asked.setdefault(name, None)
        return PlannedStep(step, operation, rows, needs)

    def _ask(self, name: str, rows: Rows | None) -> None:
        before = self.asked.get(name)
        self.asked[name] = hull(before, rows) if before and rows else rows or before


def _with_dead(steps: list[PlannedStep], wanted: Mapping[str, Rows]) -> tuple[PlannedStep, ...]:
    last = {n: i for i, step in enumerate(steps) for n in (step.step.name, *step.step.references)}
    dead: list[list[str]] = [[] for _ in steps]
    for name, index in last.items():
        if name not in wanted:
            dead[index].append(name)
    return tuple(replace(step, dead=tuple(names)) for step, names in zip(steps, dead, strict=True))
