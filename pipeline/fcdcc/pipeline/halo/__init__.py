"""Row arithmetic: which rows of each tensor a range of output rows needs, and computing them.

A strip of rows that stays on the worker that made it has to pass through the glue there. For
most glue that can be done exactly: rows [a, b) of what a run of operations makes depend on
some rows [c, d) of what it reads, found by going backwards through its steps.

::

    convolution   rows  5 … 22
      relu        rows  5 … 22
      max_pool    rows  3 … 11    (3 rows at stride 2, 1 row of padding: 2·3 − 1 … 2·10 + 2)
      bilinear    rows  8 … 20    asked for

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

What a step needs of its operands is a *rule* (``pointwise``, ``axes``, ``windows``,
``convolutions``, ``resampling``, ``edges``). A rule looks at a step and at the shapes of whole
tensors, and gives an operation that can say which rows it needs and can compute a range from
exactly these. The row axis is followed from step to step, so layouts with the channels last
are nothing special. Padding is put only where a range touches the border of the tensor.

A step that needs all rows is a *barrier*, and so is every step for which there is no rule.
That is why nothing can be wrong for not being recognised: the worst that happens is that
strips are gathered. What comes after a barrier is *whole*, that is, without rows; it may meet
rows again, as the weights of a squeeze-excitation block do.

:func:`analyse` says of each output of a stage whether it is local to rows, and if not, why.
:func:`needed` says which input rows a range of it needs. :func:`plan_rows` makes that range
into a value that travels to a worker, and :func:`run_rows` computes it there.
:func:`analyse_network` does the first for all stages, and :func:`needed_between` follows a
range through several of them, convolutions included; :func:`ranges_for` says what it needs
of every value on the way.
"""

from __future__ import annotations

from .analyse import analyse
from .execute import run_rows
from .network_rows import NetworkRows, analyse_network, conv_rows, needed_between, ranges_for
from .ranges import Rows, Window, hull, never_empty, transposed_window, window
from .row_plan import RowPlan, barrier_stage, needed, plan_rows
from .stage_rows import Barrier, Layout, OutputRows, RowLocal, StageRows, Whole

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
