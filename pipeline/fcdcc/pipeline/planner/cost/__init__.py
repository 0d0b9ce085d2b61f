"""What a plan costs before it runs: a model with few constants.

:mod:`.known_workers` has the workers and their speeds, which :mod:`.calibration` measures on a
cluster. :mod:`.profile` has the work of each stage of a network and :mod:`.task_costs` that of each
task of a block's graph. :mod:`.simulation` runs the tasks of some blocks on simulated workers, and
:mod:`.estimate` makes a :class:`~fcdcc.pipeline.plans.forecast.Forecast` of that.
"""
