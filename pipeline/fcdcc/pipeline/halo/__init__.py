"""Row arithmetic: which rows of each tensor a range of output rows needs, and computing them.

A strip of rows that stays on the worker that computed it must pass through the glue there. For
most glue this is exact: the rows [a, b) of the result of a sequence of steps depend on some
rows [c, d) of its input, found by going backwards through the steps.

::

    convolution   rows  5 … 22
      relu        rows  5 … 22
      max_pool    rows  3 … 11    (3 rows at stride 2, 1 row of padding: 2·3 − 1 … 2·10 + 2)
      bilinear    rows  8 … 20    requested

>>> from fcdcc.pipeline.model.network import GlueStage, Ref, Step
>>> steps = (
...     Step("relu", "aten.relu.default", (Ref("conv"),), {}),
...     Step("pool", "aten.max_pool2d.default", (Ref("relu"), [3, 3], [2, 2], [1, 1]), {}),
...     Step("up", "aten.upsample_bilinear2d.vec", (Ref("pool"), None, False, [2.0, 2.0]), {}),
... )
>>> stage = GlueStage(1, inputs=("conv",), outputs=("up",), steps=steps)
>>> found = analyse(stage, {"conv": Layout((2, 16, 40, 40))}, tensors={})
>>> found.outputs["up"]
RowLocal(axis=2, requires=())
>>> needed(found, {"up": (8, 20)})
{'conv': Rows(start=5, stop=22)}

A *rule* (see :mod:`~fcdcc.pipeline.halo.rules`) takes a step and the shapes of whole tensors,
and returns an operation that knows which rows of its operands a range needs and computes the
range from exactly these rows. The row axis is followed from step to step, so layouts with the
channels last need no special case. Padding is added only where a range touches the border of
the tensor.

A step that needs all rows is a *barrier*, and so is every step without a rule. So a step that
is not recognised never gives a wrong result: strips are gathered before it. A value behind a
barrier is *whole*, that is, it has no rows; it may be combined with rows again, as the weights
of a squeeze-excitation block are.

:func:`analyse` finds for each output of a stage whether it is local to rows, and if not, why.
:func:`needed` returns the input rows that a range of an output needs. :func:`plan_rows` makes
a plan for that range, a value that is sent to a worker, and :func:`run_rows` computes it there.
:func:`analyse_network` analyses all stages, :func:`needed_between` follows a range through
several stages, convolutions included, and :func:`ranges_for` returns the rows that it needs of
every value on the way.
"""

from __future__ import annotations

from .network_rows import NetworkRows, analyse_network, conv_rows, needed_between, ranges_for
from .ranges import Rows, Window, hull, never_empty, transposed_window, window
from .row_plan import RowPlan, barrier_stage, needed, plan_rows, run_rows
from .stage_rows import Barrier, Layout, OutputRows, RowLocal, StageRows, Whole, analyse

__all__ = [
    "Barrier",
    "Layout",
    "NetworkRows",
    "OutputRows",
    "RowLocal",
    "RowPlan",
    "Rows",
    "StageRows",
    "Whole",
    "Window",
    "analyse",
    "analyse_network",
    "barrier_stage",
    "conv_rows",
    "hull",
    "needed",
    "needed_between",
    "never_empty",
    "plan_rows",
    "ranges_for",
    "run_rows",
    "transposed_window",
    "window",
]
