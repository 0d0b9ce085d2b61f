"""What a plan costs before it runs: a model with few constants.

:mod:`.known_workers` has the workers and their speeds, which :mod:`.calibration` measures on a
cluster. :mod:`.profile` says what the stages of a network have to do and :mod:`.task_costs` what
each task of a block's graph does. :mod:`.simulation` runs the tasks of some blocks on simulated
workers, and :mod:`.estimate` makes a :class:`~fcdcc.pipeline.plans.forecast.Forecast` of that.
"""
