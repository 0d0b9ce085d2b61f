"""What a plan costs before it runs: a model with few constants.

``speeds`` has the constants, ``calibration`` measures them on the workers of a cluster and
``saved`` keeps them; ``profile`` says what the stages of a network have to do, ``tasks`` what
a task of a block's graph has to do, and ``simulation`` takes the tasks of some blocks through
workers that exist on paper. Its result is a ``forecast``.
"""
